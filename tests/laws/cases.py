"""Programs with their objective's exact value; here the finite ones, by sums written out by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import ppvi
from ppvi import Enumerate, LeaveOneOut, LocalExpectation, MeasureValued, Reinforce
from ppvi.objectives import elbo, iwelbo, renyi, vimco
from ppvi.strategies import DisARM, StochasticPerturbation, SumAndSample, UnorderedSet
from tests.engines import ENGINES, PYRO, dist, handlers, nn, ppl, xp


@dataclass(frozen=True)
class Case:
    name: str
    program: Callable[..., Any]
    model: Callable[..., Any]
    guide: Callable[..., Any]
    params: dict[str, Any]
    exact: Callable[[dict[str, Any]], Any]
    """The objective's value, by enumeration written out."""
    strategies: tuple[dict[str, Any], ...]
    n: int = 200_000
    """Number of draws, where the law is statistical."""
    quick: int = 100
    """How many of the strategies run in a test of minutes; the others repeat what they and other cases say."""
    not_on_pyro: str = ""
    """Why it cannot run on Pyro, if so."""

    def __str__(self) -> str:
        return self.name


def rows(cases):
    """Each case with each of its strategies on each engine, as parameters of a test."""
    return [
        pytest.param(
            engine,
            case,
            strategies,
            id=f"{engine.name}, {case}: {', '.join(f'{k} {v}' for k, v in strategies.items())}",
            marks=_marks(engine, case, number, i),
        )
        for engine in ENGINES
        for number, case in enumerate(cases)
        for i, strategies in enumerate(case.strategies)
    ]


def _marks(engine, case, number, i):
    """NumPyro compiles every row, so that in a test of minutes it has one of those that Pyro has, of every other case."""
    if engine is PYRO and case.not_on_pyro:
        return [pytest.mark.skip(reason=case.not_on_pyro)]
    most = case.quick if engine is PYRO or case.not_on_pyro else min(case.quick, 1 - number % 2)
    return [] if i < most else [pytest.mark.slow]


def nothing():
    """A model for objectives that look at the guide only."""


def p_of(z, probability):
    return xp.where(z == 1, probability, 1 - probability)


def binary(n):
    return [xp.array(bits, float) for bits in itertools.product((0, 1), repeat=n)]


SINGLE = (Enumerate(), Reinforce(), Reinforce(baseline=0.7), LeaveOneOut(2), LeaveOneOut(3))
CHEAP = (Enumerate(), Reinforce(), Reinforce(baseline=0.7), LeaveOneOut(2))
PARTIAL = (Enumerate(sequential=True), SumAndSample(), UnorderedSet(2), DisARM())
LANEWISE = (*CHEAP, LocalExpectation(), *PARTIAL)
APART = (*LANEWISE, StochasticPerturbation())
"""Of lanes that are coupled, `StochasticPerturbation` moves one at random, by noise that no tape has."""


def each(site, strategies=SINGLE):
    return tuple({site: strategy} for strategy in strategies)


# Two dependent Bernoullis with a nonlinear coupling; parameters in the distributions, in the continuation, in both. -----------------


def chain_guide():
    a, b, c = (ppl.param(name) for name in "abc")
    z1 = ppl.sample("z1", dist.Bernoulli(logits=a))
    ppl.sample("z2", dist.Bernoulli(logits=b + c * z1))


def chain_objective(p, q):
    z = q.simulate()
    phi, a = ppl.param("phi"), ppl.param("a")
    return xp.exp(phi * (z["z1"] + 2 * z["z2"])) * (a + z["z1"]) ** 2


def chain_exact(params):
    a, b, c, phi = (params[name] for name in ("a", "b", "c", "phi"))
    return sum(
        p_of(z1, nn.sigmoid(a)) * p_of(z2, nn.sigmoid(b + c * z1)) * xp.exp(phi * (z1 + 2 * z2)) * (a + z1) ** 2
        for z1, z2 in itertools.product((0, 1), repeat=2)
    )


def weighed_objective(p, q):
    z = q.simulate()
    phi, a = ppl.param("phi"), ppl.param("a")
    return phi * (z["z1"] + 2.0 * z["z2"]) + a * (3.0 - z["z2"])


def weighed_exact(params):
    a, b, c, phi = (params[name] for name in ("a", "b", "c", "phi"))
    first = nn.sigmoid(a)
    second = first * nn.sigmoid(b + c) + (1 - first) * nn.sigmoid(b)
    return phi * (first + 2 * second) + a * (3 - second)


PAIRS = tuple(
    {"z1": first, "z2": second}
    for first, second in itertools.product(
        (Enumerate(), Reinforce(), Reinforce(baseline=2.0), LeaveOneOut(2)), repeat=2
    )
) + tuple(
    {"z1": first, "z2": second}
    for first, second in (
        (MeasureValued(), Enumerate()),
        (Reinforce(), MeasureValued()),
        (MeasureValued(), MeasureValued()),
    )
)
CHAIN_PARAMS = dict(a=0.4, b=-0.3, c=0.9, phi=0.5)
AT_ZERO = dict(a=0.0, b=0.0, c=0.0, phi=0.5)
"""Where logits begin, and where the pieces of a stable density meet."""


# Lanes -------------------------------------------------------------------------------------------------------------------------


def lanes_guide(n=4):
    logits = ppl.param("logits")
    with ppl.plate("lanes", n):
        ppl.sample("z", dist.Bernoulli(logits=logits))


def lanes_sum(objective):
    """E of objective(z, phi) over independent lanes."""

    def exact(params):
        probs = nn.sigmoid(params["logits"])
        return sum(xp.prod(p_of(z, probs)) * objective(z, params["phi"]) for z in binary(len(probs)))

    def program(p, q):
        return objective(q.simulate()["z"] * 1.0, ppl.param("phi"))

    return program, exact


def separable(z, phi):
    return xp.sum(phi * (z - 0.3) ** 2 * xp.arange(1.0, z.shape[0] + 1))


def coupled(z, phi):
    return nn.logsumexp(phi * z * xp.arange(1.0, z.shape[0] + 1))


def both_structures(z, phi):
    return xp.sum(phi * z) + xp.sum(z) ** 2 * xp.sum(phi) + z[0] * z[2]


def shifted(z, phi):
    """Neighbouring lanes meet: a slice of a lane axis is no lane of its own."""
    return xp.sum(phi[1:] * z[1:] * (1 - z[:-1])) + xp.sum(xp.flip(z) * z * phi)


def matrix(z, phi):
    """Lanes meet in an outer product, and on its diagonal."""
    outer = z[:, None] * z[None, :] + phi[:, None]
    return xp.sum(outer**2) + xp.trace(outer)


LANES_PARAMS = dict(logits=xp.array([0.3, -0.6, 1.1, 0.2]), phi=xp.array([0.8, -0.4, 1.3, -0.7]))


def event_guide():
    ppl.sample("z", dist.Bernoulli(logits=ppl.param("logits")).to_event(1))


def masked_guide():
    """The mask hides a lane's density from the objective, not the lane's value."""
    with ppl.plate("lanes", 4), handlers.mask(mask=xp.array([True, False, True, True])):
        ppl.sample("z", dist.Bernoulli(logits=ppl.param("logits")))


# ELBOs of a mixture with indexing ----------------------------------------------------------------------------------------------

DATA = xp.array([-0.7, 1.4])
PRIOR = xp.array([0.5, 0.3, 0.2])


def mixture(scale=1.0, mask=True):
    def model():
        means = ppl.param("means")
        with handlers.scale(scale=scale), ppl.plate("data", len(DATA)), handlers.mask(mask=mask):
            z = ppl.sample("z", dist.Categorical(PRIOR))
            ppl.sample("x", dist.Normal(means[z], 0.8), obs=DATA)

    def guide():
        with handlers.scale(scale=scale), ppl.plate("data", len(DATA)), handlers.mask(mask=mask):
            ppl.sample("z", dist.Categorical(logits=ppl.param("logits")))

    return model, guide


def mixture_weights(params):
    """log q(z) and log p(x, z) - log q(z) by datum and label."""
    log_q = nn.log_softmax(params["logits"])
    log_x = -0.5 * ((DATA[:, None] - params["means"]) / 0.8) ** 2 - xp.log(0.8) - 0.5 * xp.log(2 * xp.pi)
    return log_q, log_x + xp.log(PRIOR) - log_q


MASK = xp.array([True, False])


def mixture_elbo(scale, kept=slice(None)):
    def exact(params):
        log_q, log_w = mixture_weights(params)
        return scale * xp.sum((xp.exp(log_q) * log_w)[kept])

    return exact


def mixture_multi(combine, particles):
    """E over `particles` joint labellings of combine(log weights)."""

    def exact(params):
        log_q, log_w = mixture_weights(params)
        total = 0.0
        states = list(itertools.product(range(3), repeat=len(DATA)))
        for joint in itertools.product(states, repeat=particles):
            q = sum(log_q[i, z] for state in joint for i, z in enumerate(state))
            w = xp.stack([sum(log_w[i, z] for i, z in enumerate(state)) for state in joint])
            total = total + xp.exp(q) * combine(w)
        return total

    return exact


def mixture_per_datum(combine, particles):
    """The sum over the data of E over `particles` labels of combine(log weights)."""

    def exact(params):
        log_q, log_w = mixture_weights(params)
        joints = list(itertools.product(range(3), repeat=particles))
        return sum(
            xp.exp(sum(log_q[i, z] for z in joint)) * combine(xp.stack([log_w[i, z] for z in joint]))
            for i in range(len(DATA))
            for joint in joints
        )

    return exact


MIXTURE_PARAMS = dict(means=xp.array([-1.0, 0.5, 1.2]), logits=xp.array([[0.2, -0.4, 0.1], [-0.3, 0.6, 0.4]]))


# A small discrete model for multi-sample bounds: one Bernoulli, so that two particles have few executions. ---------------------------


def coin_model():
    z = ppl.sample("z", dist.Bernoulli(0.3))
    ppl.sample("x", dist.Normal(ppl.param("m") * z, 1.0), obs=0.8)


def coin_guide():
    ppl.sample("z", dist.Bernoulli(logits=ppl.param("a")))


def coin_multi(combine, particles):
    def exact(params):
        z = xp.array([0.0, 1.0])
        q = p_of(z, nn.sigmoid(params["a"]))
        log_w = xp.log(p_of(z, 0.3)) - 0.5 * (0.8 - params["m"] * z) ** 2 - 0.5 * xp.log(2 * xp.pi) - xp.log(q)
        return sum(
            xp.prod(xp.stack([q[i] for i in joint])) * combine(xp.stack([log_w[i] for i in joint]))
            for joint in itertools.product((0, 1), repeat=particles)
        )

    return exact


def log_mean_exp(w):
    return nn.logsumexp(w) - xp.log(len(w))


def renyi_of(alpha):
    return lambda w: log_mean_exp((1 - alpha) * w) / (1 - alpha)


COIN_PARAMS = dict(a=0.35, m=1.2)


# A hierarchical guide: a global label, lanes that depend on it, lanes that depend on lanes. --------------------------------------------


def tree_guide():
    a, b, c = (ppl.param(name) for name in "abc")
    top = ppl.sample("top", dist.Bernoulli(logits=a))
    with ppl.plate("lanes", 2):
        mid = ppl.sample("mid", dist.Bernoulli(logits=b + top))
        ppl.sample("low", dist.Bernoulli(logits=c * (2 * mid - 1) + 0.3))


def tree_value(top, mid, low, phi):
    return xp.sum(phi * mid * (1 + low) ** 2) + xp.sum(xp.exp(phi * low)) + top * phi


def tree_objective(p, q):
    z = q.simulate()
    return tree_value(z["top"], z["mid"], z["low"], ppl.param("phi"))


def tree_exact(params):
    a, b, c, phi = (params[name] for name in ("a", "b", "c", "phi"))
    total = 0.0
    for top in (0.0, 1.0):
        for mid in binary(2):
            for low in binary(2):
                q = p_of(top, nn.sigmoid(a)) * xp.prod(p_of(mid, nn.sigmoid(b + top)))
                q = q * xp.prod(p_of(low, nn.sigmoid(c * (2 * mid - 1) + 0.3)))
                total = total + q * tree_value(top, mid, low, phi)
    return total


TREE_STRATEGIES = (
    {"top": Enumerate(), "mid": Enumerate(), "low": Enumerate()},
    {"top": Reinforce(), "mid": Enumerate(), "low": Reinforce()},
    {"top": Enumerate(), "mid": Reinforce(), "low": Enumerate()},
    {"top": LeaveOneOut(2), "mid": Enumerate(), "low": Enumerate()},
    {"top": Reinforce(baseline=1.0), "mid": Reinforce(), "low": Enumerate()},
)


# A parameter that appears only through what the guide returns --------------------------------------------------------------------------


def returning_guide():
    z = ppl.sample("z", dist.Bernoulli(logits=ppl.param("a")))
    return ppl.param("b") * (1 + z)


def returning_objective(p, q):
    z = q.simulate()
    return z.returned**2


def returning_exact(params):
    return sum(p_of(z, nn.sigmoid(params["a"])) * (params["b"] * (1 + z)) ** 2 for z in (0.0, 1.0))


# Independent scalar sites: each a term of its own, so that strategies with several runs add up and do not multiply ---------------------


def many_guide():
    for i in range(3):
        ppl.sample(f"z{i}", dist.Bernoulli(logits=ppl.param("logits")[i]))


def many_objective(p, q):
    z = q.simulate()
    return sum((i + 1) * ppl.param("phi")[i] * (z[f"z{i}"] - 0.3) ** 2 for i in range(3)) - z.log_density


def many_exact(params):
    probs = nn.sigmoid(params["logits"])
    return sum(
        p_of(z, probs[i]) * ((i + 1) * params["phi"][i] * (z - 0.3) ** 2 - xp.log(p_of(z, probs[i])))
        for i in range(3)
        for z in (0.0, 1.0)
    )


# A site drawn in a replicate, squared: independent particles, whose coupling is between lanes of the vectorised axis -------------------


def product_objective(p, q):
    def run():
        return ppl.param("b") + q.simulate()["z"]

    draws = ppvi.replicate(2, run)
    return draws[0] * draws[1] + xp.sum(draws**3)


def product_exact(params):
    def moment(power):
        return sum(p_of(z, nn.sigmoid(params["a"])) * (params["b"] + z) ** power for z in (0.0, 1.0))

    return moment(1) ** 2 + 2 * moment(3)


QUICK_LANES = dict(shifted=2, matrix=2, both=5)
lanes = {
    name: lanes_sum(function)
    for name, function in dict(
        separable=separable, coupled=coupled, both=both_structures, shifted=shifted, matrix=matrix
    ).items()
}

CASES = [
    Case("dependent pair", chain_objective, nothing, chain_guide, CHAIN_PARAMS, chain_exact, PAIRS, quick=9),
    Case(
        "dependent pair, logits zero", chain_objective, nothing, chain_guide, AT_ZERO, chain_exact,
        tuple({"z1": s, "z2": s} for s in (Enumerate(), Reinforce(), LeaveOneOut(2), DisARM(), StochasticPerturbation())),
    ),
    *(
        Case(f"lanes, {name}", program, nothing, lanes_guide, LANES_PARAMS, exact, each("z", APART if name == "separable" else LANEWISE), quick=QUICK_LANES.get(name, 100))
        for name, (program, exact) in lanes.items()
    ),
    Case("coefficients of value zero", weighed_objective, nothing, chain_guide, dict(a=0.0, b=-0.3, c=0.9, phi=0.0), weighed_exact, PAIRS, quick=4),
    Case("lanes in the event", lanes["separable"][0], nothing, event_guide, LANES_PARAMS, lanes["separable"][1], each("z", CHEAP), quick=2),
    Case("lanes under a mask", lanes["both"][0], nothing, masked_guide, LANES_PARAMS, lanes["both"][1], each("z", CHEAP), quick=2),
    Case("ELBO, means[z]", elbo, *mixture(), MIXTURE_PARAMS, mixture_elbo(1.0), each("z", (SumAndSample(2), UnorderedSet(3), *APART)), quick=8),
    Case("ELBO under scale(3)", elbo, *mixture(3.0), MIXTURE_PARAMS, mixture_elbo(3.0), each("z", CHEAP)),
    Case("ELBO under a mask", elbo, *mixture(2.0, MASK), MIXTURE_PARAMS, mixture_elbo(2.0, slice(1)), each("z", CHEAP), quick=2),
    Case(
        "IWELBO(2), means[z]", iwelbo(2), *mixture(), MIXTURE_PARAMS, mixture_multi(log_mean_exp, 2),
        each("z", (Reinforce(),)),
    ),
    Case(
        "IWELBO(2), means[z], enumerated", iwelbo(2), *mixture(), MIXTURE_PARAMS, mixture_multi(log_mean_exp, 2),
        each("z", (Enumerate(),)), quick=0,
    ),
    Case("IWELBO(2), coin", iwelbo(2), coin_model, coin_guide, COIN_PARAMS, coin_multi(log_mean_exp, 2), each("z", (*SINGLE, *LANEWISE[4:]))),
    Case("IWELBO(3), coin", iwelbo(3), coin_model, coin_guide, COIN_PARAMS, coin_multi(log_mean_exp, 3), each("z", CHEAP), quick=2),
    Case("VIMCO(2), coin", vimco(2), coin_model, coin_guide, COIN_PARAMS, coin_multi(log_mean_exp, 2), each("z", CHEAP)),
    Case("VIMCO(3), coin", vimco(3), coin_model, coin_guide, COIN_PARAMS, coin_multi(log_mean_exp, 3), each("z", (Reinforce(),))),
    Case("VIMCO(2), means[z]", vimco(2), *mixture(), MIXTURE_PARAMS, mixture_multi(log_mean_exp, 2), each("z", (Reinforce(),))),
    Case("VIMCO(2) per datum", vimco(2, per="data"), *mixture(), MIXTURE_PARAMS, mixture_per_datum(log_mean_exp, 2), each("z", (Reinforce(),))),
    Case("Renyi(0, 2), coin", renyi(0.0, 2), coin_model, coin_guide, COIN_PARAMS, coin_multi(renyi_of(0.0), 2), each("z", CHEAP), quick=2),
    Case("Renyi(0.5, 2), coin", renyi(0.5, 2), coin_model, coin_guide, COIN_PARAMS, coin_multi(renyi_of(0.5), 2), each("z", CHEAP), quick=2),
    Case("Renyi(-1, 2), coin", renyi(-1.0, 2), coin_model, coin_guide, COIN_PARAMS, coin_multi(renyi_of(-1.0), 2), each("z", CHEAP)),
    Case("hierarchical guide", tree_objective, nothing, tree_guide, dict(a=0.2, b=-0.4, c=0.7, phi=0.6), tree_exact, TREE_STRATEGIES, quick=1),
    Case("returned", returning_objective, nothing, returning_guide, dict(a=0.3, b=0.8), returning_exact, each("z")),
    Case(
        "independent sites", many_objective, nothing, many_guide, LANES_PARAMS, many_exact,
        tuple({f"z{i}": strategy for i in range(3)} for strategy in CHEAP),
    ),
    Case("replicated product", product_objective, nothing, coin_guide, dict(a=0.3, b=0.8), product_exact, each("z")),
]  # fmt: skip
