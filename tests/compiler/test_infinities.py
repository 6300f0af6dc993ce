"""Where infinities are guarded: on the way of a gradient alone, where ranges cannot acquit and values may play no part."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from jax import lax

from ppvi.compiler.infinities import Edges, guarded
from ppvi.ir import Literal
from ppvi.numpyro._ops import OPS
from ppvi.numpyro._stage import stage

TABLE = jnp.array([0.3, 0.0])


def logarithm(w, x):
    return jnp.log(w)[jnp.argmax(x)]


def of_parameters_alone(w, x):
    return jnp.exp(jnp.log(w[0])) + jnp.sqrt(w[1])


def square_root(w, x):
    return jnp.sqrt(w)[jnp.argmax(x)]


def power(w, x):
    return (w**x)[jnp.argmax(x)]


def logarithm_of_data(w, x):
    return w[0] + jnp.log(x)[0]


def product_with_infinity(w, x):
    return (w * jnp.log(TABLE))[jnp.argmax(x)]


def infinity_or_nothing(w, x):
    """As NumPyro writes the density of a coin whose logit is infinite: a truth value times infinity."""
    return jnp.where(jnp.isfinite(w), w, jnp.inf * (w > 0))[0]


def log_probs_of_logits(w, x):
    """Of which the greatest is taken beside minus infinity, that is no bound."""
    return dist.Categorical(logits=w).log_prob(jnp.argmax(x))


def log_probs_of_logits_one_of_which_is_masked(w, x):
    return dist.Categorical(logits=jnp.where(jnp.arange(2) > 0, w, -jnp.inf)).log_prob(jnp.argmax(x))


def sum_of_others_than_the_greatest(w, x):
    """Which of 200 and 0 is zero, in single precision."""
    shares = jnp.exp(w - lax.stop_gradient(jnp.max(w)))
    return jnp.where(x[0] > 0, jnp.log(jnp.sum(shares * jnp.array([0.0, 1.0]))), 0.0)


def behind_many_tests(w, x):
    for _ in range(300):
        w = jnp.where(w > 0.01, 0.9 * w, 0.009)
    return jnp.log(w)[jnp.argmax(x)]


def in_a_loop(w, x):
    return lax.scan(lambda total, _: (total + jnp.log(w)[jnp.argmax(x)], None), 0.0, None, length=2)[0]


def in_a_loop_of_what_is_positive(w, x):
    return lax.scan(lambda total, _: (total + jnp.log(1 + w * w)[jnp.argmax(x)], None), 0.0, None, length=2)[0]


def positive(w, x):
    return jnp.log(1 + jnp.exp(w))[0]


def clamped(w, x):
    """The largest number of single precision below 1 is none that rounds to 1."""
    return jnp.log1p(-jnp.clip(w, 1e-7, 1 - 2.0**-23))[jnp.argmax(x)]


def clamped_too_little(w, x):
    return jnp.log1p(-jnp.clip(w, 1e-7, 1 - 1e-9))[jnp.argmax(x)]


CASES = {
    logarithm: 1, logarithm_of_data: 0, product_with_infinity: 1, infinity_or_nothing: 0, positive: 0, square_root: 1, power: 1,
    of_parameters_alone: 0, behind_many_tests: 1, in_a_loop: 1, clamped: 0, clamped_too_little: 1, in_a_loop_of_what_is_positive: 0,
    log_probs_of_logits: 0, log_probs_of_logits_one_of_which_is_masked: 2, sum_of_others_than_the_greatest: 1,
}  # fmt: skip


@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
def test_operations_that_are_guarded(function):
    program = stage(function, jnp.ones(2), jnp.ones(2))
    pairs = zip(program.equations, guarded(program, Edges.of(program, OPS)).equations, strict=True)
    assert sum(before is not after for before, after in pairs) == CASES[function]


def test_a_pole_in_a_loop_that_no_value_looks_up():
    """The derivative of 2 log(w[0]) alone, beside a logarithm of 0 in every round."""
    assert slope(in_a_loop, [0.5, 0.0], [1.0, 0.0]) == [4.0, 0.0]


def test_a_sum_too_small_to_tell_that_is_not_taken():
    assert slope(sum_of_others_than_the_greatest, [200.0, 0.0], [0.0, 0.0]) == [0.0, 0.0]


def test_a_number_of_a_trace_outside_may_be_infinite():
    def traced(number):
        staged = stage(lambda w, x: lax.max(w[0], 2.0), jnp.ones(2), jnp.ones(2))
        outer = Literal(number, (), "float32")
        equations = [
            replace(e, inputs=tuple(outer if isinstance(atom, Literal) else atom for atom in e.inputs))
            for e in staged.equations
        ]
        edges = Edges.of(replace(staged, equations=tuple(equations)), OPS)
        assert edges.infinite == {var for e in equations if e.op == "max" for var in e.outputs}
        return number

    jax.jit(traced)(2.0)


def slope(function, w, x):
    """The derivative by w of the guarded program."""
    staged = stage(function, jnp.ones(2), jnp.ones(2))
    program = guarded(staged, Edges.of(staged, OPS))

    def value(w):
        known = dict(zip(program.inputs, (w, jnp.array(x)), strict=True)) | program.constants
        for equation in program.equations:
            arrays = (atom.value if isinstance(atom, Literal) else known[atom] for atom in equation.inputs)
            known.update(zip(equation.outputs, equation.run(*arrays), strict=True))
        return known[program.output]

    return jax.grad(value)(jnp.array(w)).tolist()
