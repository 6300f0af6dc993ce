"""What `ppvi.numpyro._compat` says that an operation of JAX holds, against what the operation does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Literal, jaxpr_as_fun

from ppvi.numpyro import _compat
from tests.numpyro import own_rules
from tests.numpyro.own_rules import cubed, halved

X = jnp.array([0.3, 1.2, 0.7])


def met(function, name):
    """The first equation of that name in a function of `X`, what it is given there, and what it returns."""
    closed = jax.make_jaxpr(function)(X)
    known = dict(zip((*closed.jaxpr.constvars, *closed.jaxpr.invars), (*closed.consts, X), strict=True))
    for eqn in closed.jaxpr.eqns:
        given = [x.val if isinstance(x, Literal) else known[x] for x in eqn.invars]
        found = _compat.bind(eqn, given)
        if eqn.primitive.name == name:
            return eqn, given, found
        known.update(zip(eqn.outvars, found, strict=True))
    raise AssertionError(f"there is no {name} among {[eqn.primitive.name for eqn in closed.jaxpr.eqns]}")


def alike(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def decayed(x, **how):
    """A loop with a constant, two carried values and entries."""
    rate = jnp.exp(-x).sum()
    return lax.scan(lambda c, y: ((c[0] * rate + y, c[1] + 1), c[0] - y), (x[0], 0), x, **how)


LOOPS = {
    "forward": decayed,
    "backward": lambda x: decayed(x, reverse=True),
    "unrolled": lambda x: decayed(x, unroll=2),
    "without entries": lambda x: lax.fori_loop(0, 4, lambda i, c: c * x.sum() + i, x),
    "without a carry": lambda x: lax.map(lambda y: y * x.sum(), x),
    "of lanes": jax.vmap(lambda x: decayed(x * X)),
    "of tangents": lambda x: jax.jvp(decayed, (x,), (jnp.cos(x),)),
    "of cotangents": jax.grad(lambda x: decayed(x)[1].sum()),
}


@pytest.mark.parametrize("name", LOOPS)
def test_scan(name):
    eqn, operands, results = met(LOOPS[name], "scan")
    loop = _compat.scan(eqn)
    fixed, carry, entries = operands[: loop.fixed], operands[loop.fixed : loop.start], operands[loop.start :]
    rounds, stacks = range(loop.how["length"]), {}
    for i in reversed(rounds) if loop.how["reverse"] else rounds:
        outs = jaxpr_as_fun(loop.body)(*fixed, *carry, *(x[i] for x in entries))
        carry, stacks[i] = outs[: loop.carried], outs[loop.carried :]
    alike(results, [*carry, *(jnp.stack([stacks[i][k] for i in rounds]) for k in range(len(results) - loop.carried))])


def test_options_of_a_scan_are_those_of_lax_scan():
    eqn, _, _ = met(lambda x: decayed(x, reverse=True, unroll=3), "scan")
    assert _compat.scan(eqn).how == {"length": 3, "reverse": True, "unroll": 3}


def test_while_loop():
    def function(x):
        limit, step = x.sum(), x[1]
        return lax.while_loop(lambda c: (c[0] < limit) & (c[1] < 10), lambda c: (c[0] + step / 3, c[1] + 1), (x[0], 0))

    eqn, operands, results = met(function, "while")
    loop = _compat.while_loop(eqn)
    start = loop.tested + loop.fixed
    tested, fixed, carry = operands[: loop.tested], operands[loop.tested : start], operands[start:]
    while jaxpr_as_fun(loop.test)(*tested, *carry)[0]:
        carry = jaxpr_as_fun(loop.body)(*fixed, *carry)
    alike(results, carry)


@pytest.mark.parametrize("taken", range(3))
def test_branches(taken):
    def function(x):
        return lax.switch(jnp.int32(x[0]) + taken, [jnp.sin, lambda x: x * X.sum(), jnp.exp], x)

    eqn, (index, *operands), results = met(function, "cond")
    alike(results, jaxpr_as_fun(_compat.branches(eqn)[int(index)])(*operands))


def test_linear_solve():
    def function(x):
        shift = jnp.exp(x)
        return lax.custom_linear_solve(lambda v: v * shift, x, lambda matvec, b: b / shift, symmetric=True)

    eqn, operands, results = met(function, "custom_linear_solve")
    solver = _compat.linear_solve(eqn)
    given = operands[solver.constants :]
    alike(given, [X])
    consts = [jnp.exp(X)] * (len(solver.solve.jaxpr.invars) - len(given))
    alike(results, jaxpr_as_fun(solver.solve)(*consts, *given))


def root(x):
    """A cube root by Newton's method."""
    return lax.custom_root(
        lambda y: y**3 - x,
        x + 1,
        lambda f, y: lax.fori_loop(0, 20, lambda i, y: y - f(y) / (3 * y**2), y),
        lambda g, y: y / g(jnp.ones_like(y)),
    )


BODIES = {
    "jit": jax.jit(jnp.sin),
    "custom_jvp": cubed,
    "custom_vjp": halved,
    "checkpoint": jax.checkpoint(jnp.sin),
    "custom_root": root,
    "unstack": lambda x: jnp.unstack(jnp.outer(x, x), axis=1),
    "log2": lambda x: jnp.log2(x),
}
INNERMOST = {"custom_jvp": "integer_pow", "custom_vjp": "div", "custom_root": "scan"}


def operations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for body in _compat.bodies_in(eqn.params):
            yield from operations(body)


@pytest.mark.parametrize("name", BODIES)
def test_body(name):
    """An operation with one body returns what the body does."""
    met_some = False
    for eqn in jax.make_jaxpr(BODIES[name])(X).jaxpr.eqns:
        if eqn.primitive.name in _compat.ONE_RUN or eqn.primitive.name in _compat.SPELT:
            _, operands, results = met(BODIES[name], eqn.primitive.name)
            alike(results, jaxpr_as_fun(_compat.body(eqn))(*operands))
            met_some = True
    assert met_some or name == "log2"  # which older versions spell out


@pytest.mark.parametrize("name", INNERMOST)
def test_bodies_in(name):
    assert INNERMOST[name] in operations(jax.make_jaxpr(BODIES[name])(X).jaxpr)


def test_with_equations():
    """A program keeps what it holds, whether that is given to it or is one of its constants."""

    def program(x):
        return jnp.sin(x) + X * jax.jit(jnp.cos)(x)

    def exchanged(eqn):
        return eqn.replace(primitive=lax.exp_p, params={"accuracy": None}) if eqn.primitive is lax.sin_p else eqn

    found = _compat.with_equations(jax.make_jaxpr(program)(X), exchanged)
    assert _compat.is_body(found)
    alike(jaxpr_as_fun(found)(2 * X), [jnp.exp(2 * X) + X * jnp.cos(2 * X)])


@pytest.mark.parametrize("name", _compat.SPELT)
def test_an_operation_is_what_it_is_spelt_as(name):
    spelt = {"log2": jnp.log2, "one_minus_square": lambda x: 1 - x**2, "unstack": lambda x: jnp.unstack(x, axis=0)}
    how = {"axis": 0} if name == "unstack" else {}
    np.testing.assert_allclose(_compat.SPELT[name](X, **how), spelt[name](X), rtol=1e-5)


def test_only():
    """Of a program, what some outputs need and nothing else."""
    closed = jax.make_jaxpr(lambda x, y, z: (x * X[0], y + z, jnp.sin(z) + np.arange(3.0)))(X, X, X)
    part, used = _compat.only(closed, [2])
    assert used == [2]
    assert "mul" not in operations(part.jaxpr)
    alike(jaxpr_as_fun(part)(2 * X), [jnp.sin(2 * X) + np.arange(3.0)])


def test_xla_knows():
    assert _compat.xla_knows("xla_backend_optimization_level", 0)
    assert not _compat.xla_knows("xla_make_tea", True)


def test_written_at():
    eqn, _, _ = met(jax.jit(cubed), "jit")
    assert _compat.written_at(_compat.body(eqn)) == ("cubed", own_rules.__file__)
    eqn, _, _ = met(jax.nn.softplus, "jit")
    name, path = _compat.written_at(_compat.body(eqn))
    assert name == "softplus"
    assert "jax/_src/nn/" in path


@pytest.mark.parametrize("primitive", _compat.LAPACK, ids=str)
def test_lowering_on_cpu(primitive):
    assert callable(_compat.lowering_on_cpu(primitive))


def test_functions_of_places():
    """They are told from values of places, and have no derivative: where they have one, they need a rule."""
    applied, _, _ = met(lambda x: x.at[0].apply(jnp.sign), "scatter")
    placed, _, _ = met(lambda x: x.at[0].set(1.0), "scatter")
    assert (_compat.applies(applied), _compat.applies(placed)) == (True, False)
    with pytest.raises(NotImplementedError, match="scatter_apply"):
        jax.grad(lambda x: x.at[0].apply(jnp.sin).sum())(X)
