"""Linear algebra on batches of matrices."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.lax import linalg
from jax.scipy.linalg import solve_triangular

import ppvi.numpyro  # noqa: F401

A = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
S = A @ np.swapaxes(A, -1, -2) + 4 * np.eye(4)
B = np.random.default_rng(1).normal(size=(2, 3, 4, 2))


def tridiagonal(a, b):
    above, below = (jnp.diagonal(a, k, -2, -1) for k in (1, -1))
    above, below = jnp.pad(above, (0, 1)), jnp.pad(below, (1, 0))
    return linalg.tridiagonal_solve(below, jnp.diagonal(a, 0, -2, -1) + 4, above, b)


def tridiagonal_by_scipy(a, b):
    near = sum(np.diag(np.diag(a, k), k) for k in (-1, 0, 1)) + 4 * np.eye(4)
    return np.linalg.solve(near, b)


CASES = {
    "cholesky": (lambda a, b: jnp.linalg.cholesky(a), lambda a, b: np.linalg.cholesky(a), S),
    "triangular solve": (
        lambda a, b: solve_triangular(a, b, lower=True),
        lambda a, b: scipy.linalg.solve_triangular(a, b, lower=True),
        S,
    ),
    "its transpose": (
        lambda a, b: solve_triangular(a, b, lower=True, trans=1),
        lambda a, b: scipy.linalg.solve_triangular(a, b, lower=True, trans=1),
        S,
    ),
    "solve": (jnp.linalg.solve, np.linalg.solve, A),
    "determinant": (lambda a, b: jnp.linalg.det(a), lambda a, b: np.linalg.det(a), A),
    "QR": (lambda a, b: jnp.linalg.qr(a)[0] @ jnp.linalg.qr(a)[1], lambda a, b: a, A),
    "singular values": (
        lambda a, b: jnp.linalg.svd(a, compute_uv=False),
        lambda a, b: np.linalg.svd(a, compute_uv=False),
        A,
    ),
    "eigenvalues": (lambda a, b: jnp.linalg.eigvalsh(a), lambda a, b: np.linalg.eigvalsh(a), S),
    "of any matrix": (
        lambda a, b: jnp.sum(jnp.linalg.eigvals(a) ** 2).real,
        lambda a, b: np.sum(np.linalg.eigvals(a) ** 2).real,
        A,
    ),
    "tridiagonal solve": (tridiagonal, tridiagonal_by_scipy, A),
    "Schur": (
        lambda a, b: jnp.trace(jax.scipy.linalg.schur(a)[0]),
        lambda a, b: np.trace(a),
        A,
    ),
    "Hessenberg": (lambda a, b: jnp.trace(jax.scipy.linalg.hessenberg(a)), lambda a, b: np.trace(a), A),
    "gradient of a density": (
        jax.grad(lambda a, b: jnp.sum(solve_triangular(jnp.linalg.cholesky(a), b, lower=True) ** 2)),
        lambda a, b: -np.linalg.solve(a, b) @ np.linalg.solve(a, b).T,
        S,
    ),
}
"""A function of a matrix and a right side, what NumPy or SciPy has for it, and the matrices."""


@pytest.mark.parametrize("name", CASES)
def test_a_batch_is_its_matrices_one_by_one(name):
    """By value; and no call gets more than one matrix."""
    function, oracle, matrices = CASES[name]
    batched = jax.jit(jax.vmap(jax.vmap(function)))
    expected = np.array([[oracle(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(matrices, B, strict=True)])
    assert np.allclose(batched(matrices, B), expected, rtol=2e-4, atol=1e-4)
    calls = re.findall(r"custom_call @lapack_.*-> .*", batched.lower(matrices, B).as_text())
    assert calls
    assert not [call for call in calls if re.search(r"tensor<[2-9]x\d+x\d+x?", call)]


def test_a_matrix_alone_is_a_call():
    assert "while" not in jax.jit(jnp.linalg.cholesky).lower(S[0, 0]).as_text()
    assert "while" not in jax.jit(jax.vmap(jnp.linalg.cholesky)).lower(S[0, :1]).as_text()
    assert jax.vmap(jnp.linalg.cholesky)(S[0, :0]).shape == (0, 4, 4)


@pytest.mark.parametrize("name", ["cholesky", "triangular solve", "QR"])
def test_a_batch_of_any_size_is_exported(name):
    function, _, matrices = CASES[name]
    batched, (a, b) = jax.jit(jax.vmap(function)), (jnp.asarray(matrices[0]), jnp.asarray(B[0]))
    (size,) = jax.export.symbolic_shape("size")
    shapes = [jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for x in (a, b)]
    np.testing.assert_allclose(jax.export.export(batched)(*shapes).call(a, b), batched(a, b), rtol=1e-5, atol=1e-5)


PROGRAM = """
import jax, jax.numpy as jnp, ppvi.numpyro
from jax.scipy.linalg import solve_triangular
f = jax.jit(lambda L, b: sum(solve_triangular(L[i], b[i], lower=True) for i in range(6)))
L, b = jnp.ones((6, 1000, 20, 20)), jnp.ones((6, 1000, 20, 1))
for _ in range(100): f(L, b).block_until_ready()
"""


def test_solves_of_two_threads_at_once():
    """Without the loops it waits for ever on jaxlib 0.10.2, nearly always."""
    subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ | {"NPROC": "2"}, check=True, timeout=100)
