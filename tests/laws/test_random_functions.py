"""Every random function of a draw has a verdict that section search does not contradict.

`proved` is false where the function jumps or the gradient is not its derivative, `biased` where it does neither.
"""

import functools
import re
from collections import Counter

import jax
import numpy as np
from mpmath import mp

from tests.engines import NUMPYRO, PYRO, double, on, ppl, xp
from tests.laws.random_functions import FAMILIES, REACH, UnknownError, code_of, exact_of, random_function
from tests.laws.sections import MANY, EndlessError, derivative, jumps, saturates, shows
from tests.laws.seeds import FIRST, each_shard, how_many, how_many_shards

FUNCTIONS, SHARDS = how_many(2000), how_many_shards(20)
"""Half of them on each engine."""
NUMBERS = {NUMPYRO.name: range(FUNCTIONS // 2), PYRO.name: range(FUNCTIONS // 2, FUNCTIONS)}
BATCH = 20
"""Functions that are staged together, each of a site of its own."""
POINTS = np.linspace(-2.5, 2.5, 40) + 0.003
"""Draws at which gradients are looked at."""
LEAST = 0.5
"""So many of the functions whose gradient is right are proved."""
OFFSET = 0.00271
"""So that no point of a grid is a round number."""


def verdicts_of(engine, functions):
    """Of each function the verdict, the values and the gradients at the points."""
    codes = [code_of(function.tree) for function in functions]
    distributions = [FAMILIES[function.family][0] for function in functions]

    def guide():
        for i, distribution in enumerate(distributions):
            ppl.sample(f"z{i}", distribution(ppl.param(f"loc{i}"), ppl.param("scale")).to_event(1))

    def total(p, q):
        z = q.simulate()
        return xp.sum(xp.stack([xp.sum(code(z[f"z{i}"])) for i, code in enumerate(codes)]))

    bound = engine.vi.objective(total, lambda: None, guide)
    params = {f"loc{i}": engine.array(POINTS) for i in range(len(codes))} | {
        "scale": engine.array(np.ones(len(POINTS)))
    }
    found = ["proved"] * len(codes)
    for finding in reversed(bound.prove(params).findings):  # the gravest last
        sites = re.findall(r"\b(?:z|loc)(\d+)'", finding.subject)
        assert sites or finding.rule == "not finite", finding  # in one run, at draws far out
        for i in map(int, sites):
            found[i] = finding.severity
    # Draws without noise are where their distributions are.
    with jax.disable_jit():
        _, gradients = bound.value_and_grad(engine.key(0), params | {"scale": params["scale"] * 1e-30})
    values = [code(engine.array(draws_of(function))) for code, function in zip(codes, functions, strict=True)]
    return [(found[i], np.asarray(values[i]), np.asarray(gradients[f"loc{i}"])) for i in range(len(codes))]


def draws_of(function):
    return np.array([float(FAMILIES[function.family][1](mp.mpf(u))) for u in POINTS])


def wrong_gradients(exact, values, gradients):
    """Where a gradient is no derivative, at points where the value is what it should be but for rounding."""
    for u, value, gradient in zip(POINTS, values, gradients, strict=True):
        right, slope = exact(u)[0], derivative(exact, u)
        if not (mp.isfinite(right) and mp.isfinite(slope)) or not abs(value - right) <= 1e-9 * (1 + abs(right)):
            continue
        if not abs(gradient - slope) <= 1e-4 * (1 + abs(slope)) and not saturates(exact, [u], MANY):
            yield u, gradient, float(slope)


def truth_of(function, verdict, values, gradients):
    """What is wrong with the gradient, `None` if nothing, and whether draws meet it."""
    exact = exact_of(function)
    for u, gradient, slope in wrong_gradients(exact, values, gradients):
        return f"the gradient at {u} is {gradient}, not {slope}", True
    for n in (400, 8_000) if verdict == "biased" else (400,):
        grid = np.linspace(-3 * REACH, 3 * REACH, n) + OFFSET
        for u in filter(functools.partial(shows, exact), jumps(exact, grid)):
            return f"it jumps at {float(u)}", abs(u) < REACH
        if verdict == "biased" and saturates(exact, grid):
            raise UnknownError
    return None, False


@each_shard(SHARDS)
def test_random_functions(engine, shard, record_property):
    numbers = [FIRST + number for number in NUMBERS[engine.name][shard::SHARDS]]
    counts, false = Counter(), []
    for start in range(0, len(numbers), BATCH):
        batch = numbers[start : start + BATCH]
        functions = [random_function(number) for number in batch]
        with on(engine), double():
            found = verdicts_of(engine, functions)
        for number, function, (verdict, *seen) in zip(batch, functions, found, strict=True):
            try:
                wrong, met = truth_of(function, verdict, *seen)
            except (UnknownError, EndlessError):
                continue
            counts[verdict, "right" if wrong is None else "wrong"] += 1
            if (verdict == "proved" and met) or (verdict == "biased" and wrong is None):
                false.append(f"random_function({number}) on {engine.name}, {function}: {verdict}, and {wrong}")
    record_property("verdicts", [(*key, n) for key, n in counts.items()])
    assert not false, "\n".join(false)
    assert counts["proved", "right"] >= LEAST * sum(n for (_, kind), n in counts.items() if kind == "right"), counts
