"""Loops whose rounds are run side by side: the same as `lax.scan`, where it can be and where it cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ppvi.numpyro import _parallel_scan as side_by_side

KEY = jax.random.key(0)
ROUNDS = 5
GIVEN = jnp.sin(jnp.arange(ROUNDS * 2.0)).reshape(ROUNDS, 2)
SERIES = jnp.cos(jnp.arange(ROUNDS * 2.0)).reshape(ROUNDS, 2)


def handed_on(carry, entry):
    """The state is what is given, and a function of it; nothing waits for anything."""
    z, x = entry
    before, twice = carry
    return [z, jnp.tanh(2 * z)], [before * x + twice, z - before]


def counted(carry, entry):
    """A counter, a key that is split and the given state."""
    z, x = entry
    i, key, before = carry
    key, now = jax.random.split(key)
    return [i + 1, key, z], before * i + x * jax.random.normal(now, (2,))


def summed(carry, entry):
    """What is given adds up."""
    z, x = entry
    total, before = carry
    return [total + z, z], total * x + before


def chosen(carry, entry):
    """A branch would be left undone."""
    z, x = entry
    (before,) = carry
    return [z], lax.cond(x[0] > 0, lambda: jnp.log(abs(x)), lambda: before)


def untouched(carry, entry):
    """Nothing is handed on."""
    z, x = entry
    return carry, z * x


START = jnp.array([0.5, -1.0])
LOOPS = {
    handed_on: ([START, START + 1], True),
    counted: ([jnp.array(0), KEY, START], True),
    summed: ([START, START], False),
    chosen: ([START], False),
    untouched: ([], False),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("step", LOOPS, ids=lambda step: step.__name__)
def test_side_by_side_is_the_loop(step, reverse):
    init, expected = LOOPS[step]

    def run(scan, given):
        carry, outs = scan(step, init, (given, SERIES), length=ROUNDS, reverse=reverse)
        return [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in carry], outs

    def ours(*args, **how):
        return side_by_side.run(*args, given=1, **how)

    found, truth = (jax.jit(run, static_argnums=0)(scan, GIVEN) for scan in (ours, lax.scan))
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)
    loops = [eqn for eqn in jax.make_jaxpr(lambda given: run(ours, given))(GIVEN).eqns if eqn.primitive is lax.scan_p]
    given = [eqn for eqn in loops if any(var.aval.shape == GIVEN.shape for var in eqn.invars)]
    assert (not given) == expected
