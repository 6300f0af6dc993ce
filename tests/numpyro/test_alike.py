"""Along which axes all entries of a variable are known to be the same."""

import jax
import jax.numpy as jnp
import pytest

from ppvi.compiler.assignments import Alike
from ppvi.numpyro._stage import Reader

CASES = {
    "broadcast": (lambda x: jnp.broadcast_to(x, (4, 2)), {0}),
    "a function of what is broadcast": (lambda x: jnp.exp(jnp.broadcast_to(x, (4, 2))).T * 2.0, {1}),
    "with what is not": (lambda x: jnp.broadcast_to(x, (2, 2)) + x[:, None], set()),
    "numbers one after the other": (lambda x: jnp.arange(5) + x[0], set()),
    "different numbers side by side": (lambda x: jnp.stack([x[0], 2.0 * x[0], x[1]]), set()),
    "parts that are each alike": (lambda x: jnp.concatenate([jnp.full(3, x[0]), jnp.full(3, x[1])]), set()),
    "an axis that becomes two": (lambda x: jnp.broadcast_to(x, (4, 2)).reshape(2, 4), set()),
}


@pytest.mark.parametrize("name", CASES)
def test_axes_along_which_entries_are_the_same(name):
    function, expected = CASES[name]
    closed = jax.make_jaxpr(function)(jnp.array([1.0, 3.0]))
    reader = Reader()
    for var in (*closed.jaxpr.invars, *closed.jaxpr.constvars):
        reader.variable(var)
    reader.read(closed.jaxpr)
    assert Alike(reader.equations)(reader.atom(closed.jaxpr.outvars[0])) == expected
