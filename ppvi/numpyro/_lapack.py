"""A deadlock of JAX's linear algebra on CPUs, kept from the user's process.

In jaxlib 0.10 a call of LAPACK on a batch of matrices hands the batch out to XLA's pool of threads and waits for it, on a
thread of that very pool. With as many such calls at once as there are threads, all of them wait for work that nobody is
left to do. On two cores two solves at once are enough, as in

    f = jax.jit(lambda L, b: sum(solve_triangular(L[i], b[i], lower=True) for i in range(6)))
    L, b = jnp.ones((6, 1000, 20, 20)), jnp.ones((6, 1000, 20, 1));    for _ in range(300): f(L, b).block_until_ready()

and neither --xla_cpu_multi_thread_eigen=false nor another scheduler cures it. (By 0.11.2 the batch stays on its thread.) Here a
batch is lowered as a loop over its matrices: a call of one matrix hands nothing out. On two cores that takes as long as the
batch, but for tens of thousands of matrices of three rows, where it is a microsecond a matrix. It holds for whatever the
process compiles, since any of it may be vectorised.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from ppvi.numpyro import _compat
from ppvi.numpyro._compat import mlir


def one_by_one(call: Any, rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule that lowers a call on a batch of matrices as a loop over them, and one of a single matrix by the given rule."""

    def looped(*operands: Any, **params: Any) -> Any:
        # The operands have the same axes of the batch, and the largest has two more.
        batch = operands[0].shape[: max(x.ndim for x in operands) - 2]
        flat = [x.reshape(-1, *x.shape[len(batch) :]) for x in operands]
        found = jax.lax.map(lambda xs: call.bind(*xs, **params), tuple(flat))
        return jax.tree.map(lambda x: x.reshape(*batch, *x.shape[1:]), found)

    loop = mlir.lower_fun(looped, multiple_results=call.multiple_results)

    def lowered(ctx: Any, *operands: Any, **params: Any) -> Any:
        shapes = [aval.shape for aval in ctx.avals_in]
        batch = shapes[0][: max(map(len, shapes)) - 2]
        # How many there are of a symbolic shape, as `jax.export` has them, nobody knows yet: these are left as they are.
        several = all(isinstance(n, int) for n in batch) and math.prod(batch) > 1
        return (loop if several else rule)(ctx, *operands, **params)

    return lowered


for _call in _compat.LAPACK:
    mlir.register_lowering(_call, one_by_one(_call, _compat.lowering_on_cpu(_call)), platform="cpu")
