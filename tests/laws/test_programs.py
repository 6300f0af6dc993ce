"""Laws of programs made from programs, exactly, by enumerating the randomness of estimates and estimators.

    reciprocal   E[h(z) / xi(z)] over z ~ simulate        = sum_z h(z), whatever the parameters
    agreement    E[h(z)] over z ~ simulate                = sum_z h(z) E[xi(z)] over log_density
    density      E[xi(z)] over log_density                = the density, where it is known
    evidence     E[exp(log_evidence)]                     = sum_z target(z)

each with its gradient. The first two together say that simulate and log_density are a pair.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest

import ppvi
from ppvi import Enumerate, Reinforce
from tests.engines import ENGINES, PYRO, dist, double, handlers, nn, on, ppl, xp


@dataclass(frozen=True)
class Derived:
    name: str
    build: Callable[..., Any]
    """The derived program, from handles on the model and the guide."""
    model: Callable[..., Any]
    guide: Callable[..., Any]
    sites: tuple[str, ...]
    """Sites of the derived program, each Bernoulli."""
    drawn: tuple[str, ...]
    """Sites that it draws when it simulates."""
    redrawn: tuple[str, ...]
    """Sites that it draws to estimate a density."""
    enumerated: tuple[str, ...] = ()
    """Sites that one row enumerates, while it takes the score of the others."""
    density: Callable[..., Any] | None = None
    evidence: Callable[..., Any] | None = None
    shape: tuple[int, ...] = ()
    """Batch shape of each site."""
    slow: bool = False

    def __str__(self):
        return self.name

    @property
    def support(self):
        values = itertools.product((0, 1), repeat=len(self.sites) * int(np.prod(self.shape)))
        return [dict(zip(self.sites, np.array(v).reshape(len(self.sites), *self.shape), strict=True)) for v in values]


PARAMS = dict(a=0.4, b=-0.3, c=0.7, d=0.2)


def coin(site, logits):
    return ppl.sample(site, dist.Bernoulli(logits=logits))


def prob(z, logits):
    return nn.sigmoid(xp.where(z == 1, logits, -logits))


def param(name):
    return ppl.param(name, PARAMS[name])


def pair_guide():
    u = coin("u", param("a"))
    coin("x", param("b") + 1.5 * u)


def pair_density(params, z):
    return sum(prob(u, params["a"]) * prob(z["x"], params["b"] + 1.5 * u) for u in (0, 1))


def reverse(z):
    coin("u", param("c") * z["x"] - 0.3)


def chain_guide():
    u = coin("u", param("a"))
    v = coin("v", param("b") + u)
    coin("x", param("c") * v - 0.4 * u)


def chain_density(params, z):
    return sum(
        prob(u, params["a"]) * prob(v, params["b"] + u) * prob(z["x"], params["c"] * v - 0.4 * u)
        for u, v in itertools.product((0, 1), repeat=2)
    )


def reverse_v(z):
    coin("v", param("d") + 0.5 * z["x"])


def target():
    x = coin("x", param("c"))
    ppl.sample("y", dist.Normal(x, 1.0), obs=0.7)


def target_evidence(params):
    return sum(prob(x, params["c"]) * xp.exp(dist.Normal(x, 1.0).log_prob(0.7)) for x in (0, 1))


def coin_guide():
    coin("x", param("b"))


def hidden_target():
    x = coin("x", param("c"))
    w = coin("w", param("d") - x)
    ppl.sample("y", dist.Normal(x + w, 1.0), obs=0.7)


def hidden_evidence(params):
    return sum(
        prob(x, params["c"]) * prob(w, params["d"] - x) * xp.exp(dist.Normal(x + w, 1.0).log_prob(0.7))
        for x, w in itertools.product((0, 1), repeat=2)
    )


# Two steps of a hidden Markov chain, and a bridge with kernels that draw the same site again -------------------------------------


def hmm(steps):
    x = 0
    for t in range(steps):
        x = coin(f"x{t}", param("c") * x - 0.2)
        ppl.sample(f"y{t}", dist.Normal(x, 0.8), obs=(0.9, 0.2)[t])


def hmm_evidence(params):
    return sum(
        prob(x0, -0.2)
        * prob(x1, params["c"] * x0 - 0.2)
        * xp.exp(dist.Normal(x0, 0.8).log_prob(0.9) + dist.Normal(x1, 0.8).log_prob(0.2))
        for x0, x1 in itertools.product((0, 1), repeat=2)
    )


def start():
    coin("x0", param("a"))


def extend(z, *args):
    coin("x1", param("b") + z["x0"])


def forward(z):
    coin("x", param("a") + z["x"])


def backward(z):
    coin("x", param("d") - z["x"])


def filtered(p, q, resample=True):
    return ppvi.normalize([p.bind(1), p.bind(2)], [ppvi.handle(start), extend], 2, resample=resample)


def bridged(p, q, resample=True):
    targets = [ppvi.tempered(p, q, 0.4), p]
    return ppvi.normalize(targets, [q, forward], 2, backward=[None, backward], resample=resample)


# Plates: each index has an estimate of its own -------------------------------------------------------------------------------------


def lanes_guide():
    with ppl.plate("lanes", 2):
        u = coin("u", param("a"))
        coin("x", param("b") + 1.5 * u * xp.array([1.0, -1.0]))


def lanes_density(params, z):
    return xp.prod(
        sum(prob(u, params["a"]) * prob(z["x"], params["b"] + 1.5 * u * xp.array([1.0, -1.0])) for u in (0, 1))
    )


def lanes_target():
    with ppl.plate("lanes", 2):
        x = coin("x", param("c"))
        ppl.sample("y", dist.Normal(x, 1.0), obs=xp.array([0.7, -0.4]))


def lanes_coin_guide():
    with ppl.plate("lanes", 2):
        coin("x", param("b"))


def lanes_evidence(params):
    y = xp.array([0.7, -0.4])
    return xp.prod(sum(prob(x, params["c"]) * xp.exp(dist.Normal(x, 1.0).log_prob(y)) for x in (0, 1)))


PAIR = dict(model=target, guide=pair_guide, sites=("x",), density=pair_density, drawn=("u", "x"), redrawn=("u",))
CHAIN = dict(
    model=target, guide=chain_guide, sites=("x",), density=chain_density, drawn=("u", "v", "x"), redrawn=("u", "v")
)
SIR = dict(
    model=target, guide=coin_guide, sites=("x",), evidence=target_evidence, drawn=("x", "particle"), redrawn=("x",)
)
SMC = {**SIR, "drawn": ("x", "ancestor", "particle"), "redrawn": ("x", "ancestor")}
GROWING = dict(model=hmm, guide=start, sites=("x0", "x1"), evidence=hmm_evidence)

TABLE = [
    Derived("marginal, K = 1", lambda p, q: ppvi.marginal(q, ["x"]), enumerated=("u", "x"), **PAIR),
    Derived("marginal, K = 2", lambda p, q: ppvi.marginal(q, ["x"], particles=2), enumerated=("x",), **PAIR),
    Derived(
        "marginal, learned proposal, K = 1",
        lambda p, q: ppvi.marginal(q, ["x"], reverse),
        enumerated=("u", "x"),
        **PAIR,
    ),
    Derived("marginal, learned proposal, K = 2", lambda p, q: ppvi.marginal(q, ["x"], reverse, 2), **PAIR),
    Derived(
        "marginal of a marginal",
        lambda p, q: ppvi.marginal(ppvi.marginal(q, ["v", "x"], particles=2), ["x"], particles=2),
        **CHAIN,
    ),
    Derived(
        "marginal of a marginal, learned proposal",
        lambda p, q: ppvi.marginal(ppvi.marginal(q, ["v", "x"]), ["x"], reverse_v, 2),
        **CHAIN,
    ),
    Derived("SIR, K = 1", lambda p, q: ppvi.normalize(p, q, 1), **{**SIR, "redrawn": ()}),
    Derived("SIR, K = 2", lambda p, q: ppvi.normalize(p, q, 2), enumerated=("x", "particle"), **SIR),
    Derived(
        "SIR, the proposal a marginal",
        lambda p, q: ppvi.normalize(p, ppvi.marginal(q, ["x"], reverse), 2),
        slow=True,
        model=target,
        guide=pair_guide,
        sites=("x",),
        evidence=target_evidence,
        drawn=("u", "x", "particle"),
        redrawn=("u", "x"),
        enumerated=("particle",),
    ),
    Derived(
        "SIR, the target a marginal",
        lambda p, q: ppvi.normalize(ppvi.marginal(p, ["x"]), q, 2),
        model=hidden_target,
        guide=coin_guide,
        sites=("x",),
        evidence=hidden_evidence,
        drawn=("x", "w", "particle"),
        redrawn=("x", "w"),
        enumerated=("particle",),
    ),
    Derived(
        "SIR, the proposal a SIR",
        lambda p, q: ppvi.normalize(p, ppvi.normalize(p, q, 2), 2),
        slow=True,
        **{**SIR, "redrawn": ("x", "particle")},
    ),
    Derived(
        "SMC over a growing chain",
        filtered,
        drawn=("x0", "x1", "ancestor", "particle"),
        redrawn=("x0", "x1", "ancestor"),
        **GROWING,
    ),
    Derived(
        "AIS over a growing chain",
        lambda p, q: filtered(p, q, resample=False),
        slow=True,
        drawn=("x0", "x1", "particle"),
        redrawn=("x0", "x1"),
        enumerated=("particle",),
        **GROWING,
    ),
    Derived("SMC over tempered targets", bridged, **SMC),
    Derived("AIS over tempered targets", lambda p, q: bridged(p, q, resample=False), slow=True, **SIR),
    Derived(
        "marginal per plate",
        lambda p, q: ppvi.marginal(q, ["x"], particles=2, per="lanes"),
        shape=(2,),
        **{**PAIR, "model": lanes_target, "guide": lanes_guide, "density": lanes_density},
    ),
    Derived(
        "SIR per plate",
        lambda p, q: ppvi.normalize(p, q, 2, per="lanes"),
        shape=(2,),
        enumerated=("particle",),
        **{**SIR, "model": lanes_target, "guide": lanes_coin_guide, "evidence": lanes_evidence},
    ),
]


def row(engine, case, enumerated, often):
    what = " ".join(("enumerated", *enumerated)) if enumerated else "score"
    slow = case.slow or enumerated or not often
    return pytest.param(
        engine, case, enumerated, id=f"{engine.name}, {case}, {what}", marks=[pytest.mark.slow] * bool(slow)
    )


ROWS = [
    row(engine, case, enumerated, often=engine is PYRO or i % 4 == 0)
    for engine in ENGINES
    for i, case in enumerate(TABLE)
    for enumerated in dict.fromkeys(((), case.enumerated))
]
"""In a test of minutes the scores, NumPyro, which compiles each, with one in four."""


def mean(engine, case, program, enumerated, drawn):
    """Exact expectation of an objective over the derived program, and of its gradient."""

    def with_all_parameters(p, q):
        for name in PARAMS:
            param(name)
        return program(case.build(p, q)) + 0 * param("a")

    strategies = {site: Enumerate() if site in enumerated else Reinforce() for site in drawn}
    with on(engine):
        params = {name: engine.array(value) for name, value in PARAMS.items()}
        objective = engine.vi.objective(with_all_parameters, case.model, case.guide, strategies=strategies)
        return engine.outcomes(objective, params, limit=20_000).mean()


def weight(z):
    """Any function of the choices that treats them all differently, with a parameter."""
    flat = xp.concatenate([xp.ravel(xp.asarray(x) * 1.0) for x in z.values()])
    return 1.0 + flat @ xp.arange(1.0, 1.0 + len(flat)) + param("a") * flat[0]


def weighed(case, density):
    """The sum of weight times density, and its gradient."""

    def total(params):
        with handlers.substitute(data=params):
            return sum(weight(z) * density(params, z) for z in case.support)

    return exactly(total)


def exactly(function):
    return jax.value_and_grad(function)({name: xp.asarray(x) for name, x in PARAMS.items()})


def agree(got, want):
    np.testing.assert_allclose(got[0], want[0], rtol=1e-9)
    for name in PARAMS:
        np.testing.assert_allclose(got[1][name], want[1][name], rtol=1e-8, atol=1e-9, err_msg=name)


@pytest.fixture(autouse=True)
def in_double():
    with double():
        yield


@pytest.mark.parametrize(("engine", "case", "enumerated"), ROWS)
def test_reciprocal_density_of_its_own_draw(engine, case, enumerated):
    def program(made):
        z = made.simulate()
        return weight(z) * xp.exp(-z.log_density)

    agree(mean(engine, case, program, enumerated, case.drawn), weighed(case, lambda params, z: 1.0))


@pytest.mark.parametrize(("engine", "case", "enumerated"), ROWS)
def test_simulate_agrees_with_log_density(engine, case, enumerated):
    simulated = mean(engine, case, lambda made: weight(made.simulate()), enumerated, case.drawn)
    terms = [
        mean(engine, case, lambda made, z=z: weight(z) * xp.exp(made.log_density(z)), enumerated, case.redrawn)
        for z in case.support
    ]
    total = jax.tree.map(lambda *xs: sum(xs), *terms)
    agree(total, simulated)
    if case.density is not None:
        agree(total, weighed(case, case.density))


@pytest.mark.parametrize(("engine", "case", "enumerated"), [row for row in ROWS if row.values[1].evidence is not None])
def test_evidence_is_unbiased(engine, case, enumerated):
    drawn = case.drawn if "proposal a SIR" in case.name else case.drawn[:-1]
    agree(mean(engine, case, lambda made: xp.exp(made.log_evidence()), enumerated, drawn), exactly(case.evidence))
