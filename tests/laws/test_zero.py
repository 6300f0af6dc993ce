"""Zero times infinity: what has probability zero counts nothing, in value and in gradient, for every strategy of finite sites.

The exact values are sums over what is possible, written out by hand.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ppvi import Enumerate, LeaveOneOut, LocalExpectation, MeasureValued, Reinforce
from ppvi.objectives import elbo
from ppvi.strategies import ARM, ARSM, REBAR, DisARM, StochasticPerturbation, SumAndSample, UnorderedSet
from tests.engines import NUMPYRO, PYRO, dist, double, nn, on, ppl, xp

PRIOR = np.array([0.5, 0.3, 0.2])
TABLE = np.array([0.7, 0.2, 0.0])
START = {"q": np.array([1.0, -0.5]), "t": np.array(0.7), "r": np.array(0.4)}
EXACT = (
    Enumerate(), Enumerate(sequential=True), LocalExpectation(), MeasureValued(), SumAndSample(1), SumAndSample(2), Reinforce(),
    LeaveOneOut(2), UnorderedSet(2), UnorderedSet(3), StochasticPerturbation(),
)  # fmt: skip


def by_logits(shift=-np.inf):
    return dist.Categorical(logits=xp.concatenate([ppl.param("q"), xp.asarray([shift])]))


def by_probs():
    return dist.Categorical(probs=nn.softmax(xp.concatenate([ppl.param("q"), xp.asarray([-2000.0])])))


GUIDES = {"logits of -inf": by_logits, "probs that underflow": by_probs}


def guide_of(law):
    return lambda: ppl.sample("z", law())


def barred():
    ppl.sample("z", dist.Categorical(logits=xp.log(xp.asarray([0.5, 0.3, 0.0]))))


def free():
    ppl.sample("z", dist.Categorical(probs=xp.asarray(PRIOR)))


def looked_up(p, q):
    """A parameter times the logarithm of 0, where it is looked up and before."""
    z, t = q.simulate(), ppl.param("t")
    log_table = xp.log(xp.asarray(TABLE))
    return p.log_density(z) - z.log_density + t * log_table[z["z"]] + (log_table / t)[z["z"]]


def of_two(log_f):
    """E log f / q over the two possible values."""

    def exact(params):
        log_q = jax.nn.log_softmax(params["q"])
        return jnp.exp(log_q) @ (log_f(params) - log_q)

    return exact


OBJECTIVES = {
    "a prior that bars nothing": (elbo, free, of_two(lambda params: np.log(PRIOR[:2]))),
    "the same zero in the prior": (elbo, barred, of_two(lambda params: np.log([0.5 / 0.8, 0.3 / 0.8]))),
    "the logarithm of a zero": (
        looked_up,
        free,
        of_two(lambda params: np.log(PRIOR[:2]) + np.log(TABLE[:2]) * (params["t"] + 1 / params["t"])),
    ),
}


def params_of(engine, *names):
    return {name: engine.array(START[name]) for name in names}


def agree(engine, bound, exact, names, limit=512):
    params = params_of(engine, *names)
    if all(isinstance(strategy, Enumerate) for strategy in bound.strategies.values()):
        value, grads = bound.value_and_grad(engine.key(0), params)
    else:
        value, grads = engine.outcomes(bound, params, limit=limit).mean()
    expected, slopes = jax.value_and_grad(exact)({name: jnp.asarray(START[name]) for name in names})
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for name in names:
        np.testing.assert_allclose(grads[name], slopes[name], rtol=1e-6, atol=1e-9, err_msg=name)


def rows():
    """NumPyro compiles every row; in a test of minutes Pyro has all of them, and NumPyro those of three strategies."""
    for engine in (PYRO, NUMPYRO):
        for case, (program, *_) in OBJECTIVES.items():
            for law in GUIDES:
                for number, strategy in enumerate(EXACT):
                    few = program is not elbo and law == "logits of -inf" and number in (0, 4, 8)
                    quick = number % 3 == 0 or few if engine is PYRO else few
                    marks = [] if quick else [pytest.mark.slow]
                    yield pytest.param(
                        engine, case, law, strategy, id=f"{engine.name}, {case}, {law}, {strategy}", marks=marks
                    )


@pytest.mark.parametrize(("engine", "case", "law", "strategy"), list(rows()))
def test_the_sum_is_over_what_is_possible(engine, case, law, strategy):
    program, model, exact = OBJECTIVES[case]
    with double(), on(engine):
        bound = engine.vi.objective(program, model, guide_of(GUIDES[law]), strategies={"z": strategy})
        agree(engine, bound, exact, ("q", "t") if program is looked_up else ("q",))


STEEP = {
    "square root": lambda t, x: (t * x) ** 0.5 if isinstance(x, float) else xp.sqrt(t * x),
    "power": lambda t, x: (t * x) ** 0.7,
    "entropy": lambda t, x: (torch if isinstance(x, torch.Tensor) else jax.scipy).special.entr(t * x),
    "hypotenuse": lambda t, x: (jnp if isinstance(x, float) else xp).hypot(t * x, x * t / 2),
    "arc cosine": lambda t, x: (jnp if isinstance(x, float) else xp).arccos(1 - t * x / 4),
    "area cosine": lambda t, x: (jnp if isinstance(x, float) else xp).arccosh(1 + t * x),
    "negative power": lambda t, x: t**-0.3 if isinstance(x, float) else xp.where(x > 0, (t * x / 2) ** -0.3, 0.0),
}
"""Functions that are 0 at x = 0 for all t, where the slope of an operation is infinite."""


@pytest.mark.parametrize("name", STEEP)
def test_a_slope_that_is_infinite_where_nothing_moves(engine, name):
    """E f(t, x), for an x that is 0 or 2."""

    def steep(p, q):
        return STEEP[name](ppl.param("t"), xp.asarray([0.0, 2.0, 0.0])[q.simulate()["z"]])

    def exact(params):
        return jax.nn.softmax(params["q"])[1] * STEEP[name](params["t"], 2.0)

    with double(), on(engine):
        bound = engine.vi.objective(steep, lambda: None, guide_of(by_logits), strategies={"z": Enumerate()})
        agree(engine, bound, exact, ("q", "t"))


def lanes_model():
    z = ppl.sample("z", dist.Categorical(probs=xp.asarray([PRIOR] * 2)).to_event(1))
    table = xp.asarray([[0.6, 0.4, 0.0], [0.0, 0.5, 0.5], [0.2, 0.2, 0.6]])
    ppl.sample("y", dist.Categorical(logits=ppl.param("t") * xp.log(table[z[..., 0]])))


def lanes_guide():
    """Two lanes that the prior couples with a site after them, which cannot be what its prior bars."""
    barred = xp.concatenate([ppl.param("q"), xp.asarray([-xp.inf])])
    z = ppl.sample("z", dist.Categorical(logits=xp.stack([barred, barred[xp.asarray([0, 2, 1])]])).to_event(1))
    table = xp.asarray([[0.0, -0.3, -xp.inf], [-xp.inf, 0.1, 0.4], [0.0, 0.0, 0.0]])
    ppl.sample("y", dist.Categorical(logits=table[z[..., 0]] + ppl.param("r") * xp.arange(3)))


def lanes_exact(params):
    """A lane of values 0 and 1, another of values 0 and 2; then a site of values 0 and 1, or 1 and 2."""
    log_q, t, r = jax.nn.log_softmax(params["q"]), params["t"], params["r"]
    total = 0.0
    for i, j in np.ndindex(2, 2):
        log_z, prior = log_q[i] + log_q[j], np.log(PRIOR[i] * PRIOR[2 * j])
        scores = jnp.array([[0.0, -0.3 + r], [0.1 + r, 0.4 + 2 * r]])[i]
        log_y, log_p = (
            jax.nn.log_softmax(scores),
            jax.nn.log_softmax(t * jnp.log(jnp.array([[0.6, 0.4], [0.5, 0.5]])[i])),
        )
        total += jnp.exp(log_z) * (prior - log_z + jnp.exp(log_y) @ (log_p - log_y))
    return total


NESTED = [
    (Enumerate(), Enumerate()), (LocalExpectation(), Enumerate()), (LeaveOneOut(2), SumAndSample(1)),
    (Reinforce(), StochasticPerturbation()), (SumAndSample(1), LocalExpectation()),
]  # fmt: skip


@pytest.mark.parametrize(("outer", "inner"), NESTED, ids=str)
@pytest.mark.parametrize(
    "engine", [PYRO, pytest.param(NUMPYRO, marks=pytest.mark.slow)], ids=lambda engine: engine.name
)
def test_lanes_that_are_coupled_and_sites_that_are_nested(engine, outer, inner):
    with double(), on(engine):
        bound = engine.vi.objective(elbo, lanes_model, lanes_guide, strategies={"z": outer, "y": inner})
        agree(engine, bound, lanes_exact, ("q", "t", "r"), limit=20_000)


def test_a_rate_of_zero_where_a_count_was_seen(engine):
    """y ~ Poisson(r z), where the guide's z is 1 wherever y > 0: the zero-inflated count model, as people fit it."""
    y = np.array([0.0, 3.0])

    def model():
        r = ppl.sample("r", dist.Gamma(2.0, 1.0))
        with ppl.plate("N", 2):
            z = ppl.sample("z", dist.Bernoulli(0.3))
            ppl.sample("y", dist.Poisson(r * z), obs=y)

    def guide():
        ppl.sample("r", dist.LogNormal(ppl.param("c", 1.0), 0.2))
        with ppl.plate("N", 2):
            ppl.sample("z", dist.Bernoulli(xp.array([0.2, 1.0])))

    with on(engine):
        bound = engine.vi.objective(elbo, model, guide, strategies={"z": Enumerate()})
        grads = [bound.value_and_grad(engine.key(seed), {"c": engine.array(1.0)})[1]["c"] for seed in range(400)]
    # d/dc E [log Gamma(r; 2, 1) - 0.2 r + 3 log r - r - log q(r)] = 5 - 2.2 E r, with r = exp(c + 0.2 e)
    slopes = np.array([float(g) for g in grads])
    assert abs(slopes.mean() - (5 - 2.2 * np.exp(1 + 0.02))) < 6.2 * slopes.std() / 20


def test_a_check_of_a_coin_that_always_falls_on_one_side(engine):
    """Its draws are the same at every key, and right."""

    def saturated():
        ppl.sample("z", dist.Bernoulli(logits=ppl.param("p", 200.0)))

    with on(engine):
        bound = engine.vi.objective(
            lambda p, q: 2 + 3.0 * q.simulate()["z"], lambda: None, saturated, strategies={"z": REBAR()}
        )
        report = bound.check(engine.key(0), {"p": engine.array(200.0)}, against="exact", progress=False)
        assert report.verdict == "unbiased within delta", report


LANES = 4000
BY_NOISE = {
    "Categorical": (ARSM(), StochasticPerturbation(), UnorderedSet(2), LeaveOneOut(3)),
    "Bernoulli": (ARM(), DisARM(), ARSM(), REBAR(scale=0.0), StochasticPerturbation()),
}


@pytest.mark.parametrize(
    ("family", "strategy"), [(family, strategy) for family, of in BY_NOISE.items() for strategy in of], ids=str
)
def test_strategies_that_draw_by_noise(engine, family, strategy):
    """E log f(z) in lanes whose value 1, or 2, is impossible where f is 0: the derivative within 5 standard errors."""
    table = np.array([0.7, 0.2, 0.0] if family == "Categorical" else [0.7, 0.2])

    def guide():
        with ppl.plate("lanes", LANES):
            if family == "Categorical":
                logits = xp.concatenate([ppl.param("q"), xp.full((LANES, 1), -xp.inf)], -1)
                ppl.sample("z", dist.Categorical(logits=logits))
            else:
                barred = xp.arange(LANES) % 2 == 1
                ppl.sample("z", dist.Bernoulli(logits=xp.where(barred, -2000.0, ppl.param("q")[:, 0])))

    def worth(p, q):
        z = q.simulate()["z"]
        return xp.sum(xp.log(xp.asarray(table))[xp.asarray(z, dtype=int)])

    with double(), on(engine):
        start = np.tile([0.4, -0.3], (LANES, 1))
        bound = engine.vi.objective(worth, lambda: None, guide, strategies={"z": strategy})
        slopes = np.asarray(bound.value_and_grad(engine.key(0), {"q": engine.array(start)})[1]["q"])[:, 0]
    q = jax.nn.softmax(start[0])[0] if family == "Categorical" else jax.nn.sigmoid(start[0, 0])
    slope = float(q * (1 - q)) * np.log(table[0] / table[1]) * (1 if family == "Categorical" else -1)
    if family == "Bernoulli":
        assert (slopes[1::2] == 0).all()
        slopes = slopes[::2]
    assert abs(slopes.mean() - slope) < 5 * slopes.std() / len(slopes) ** 0.5 + 1e-6


def test_a_power_that_is_not_there_moves_nothing(engine):
    """E of z^1.5 where z is positive, and of 0 elsewhere: its slope in the mean is 1.5 E sqrt(z) there."""

    def program(p, q):
        z = q.simulate()["z"]
        return xp.where(z > 0, z**1.5, 0.0 * z)

    def guide():
        ppl.sample("z", dist.Normal(ppl.param("m", xp.array(0.3)), 1.0))

    with on(engine):
        bound = engine.vi.objective(program, lambda: None, guide)
        params = bound.init(engine.key(0))
        slopes = [float(bound.value_and_grad(engine.key(i), params)[1]["m"]) for i in range(30)]
        assert np.isfinite(slopes).all()
        assert 0.0 in slopes
        assert max(slopes) > 0
        assert bound.prove(params).verdict == "proved"
