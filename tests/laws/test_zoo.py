"""Strategies whose own randomness is not finite, against sums and quadrature: parameters in the distribution and in the
continuation, lanes apart and coupled, objectives that jump."""

import jax
import numpy as np
import pytest

import ppvi
from ppvi import ARM, DisARM, Enumerate, LocalExpectation, MeasureValued
from ppvi.strategies import ARSM, ParameterShift, StochasticPerturbation, SumAndSample, UnorderedSet
from tests.engines import dist, nn, on, ppl, xp
from tests.laws import cases, test_exact
from tests.laws.cases import Case, nothing, rows
from tests.laws.sampling import check, spread

N = 100_000
MEASURE = ({"x": MeasureValued()},)
DISCRETE = (*MEASURE, {"x": StochasticPerturbation()})


def jump(x, phi):
    """Neither continuous nor differentiable anywhere that it jumps."""
    return xp.where(x > 0.7, phi * x**2, xp.floor(x))


def one_lane(program):
    return lambda p, q: program(q.simulate()["x"] * 1.0, ppl.param("phi"))


def coupled(x, phi):
    return jump(x[0] + 0.5 * x[1] - 0.3 * x[2], phi)


def normal():
    ppl.sample("x", dist.Normal(ppl.param("m"), xp.exp(ppl.param("s"))))


def normal_lanes():
    with ppl.plate("lanes", 3):
        ppl.sample("x", dist.Normal(ppl.param("m"), xp.exp(ppl.param("s"))))


def normal_exact(params, m=None, s=None):
    x = xp.linspace(-12.0, 12.0, 200_001)
    m, s = (params["m"], xp.exp(params["s"])) if m is None else (m, s)
    density = xp.exp(-0.5 * ((x - m) / s) ** 2) / (s * xp.sqrt(2 * xp.pi))
    return xp.sum(density * jump(x, params["phi"])) * (x[1] - x[0])


def normal_lanes_exact(params):
    """The coupled objective sees one normal number, the weighted sum of the lanes."""
    weights, spread = xp.array([1.0, 0.5, -0.3]), xp.exp(params["s"])
    return normal_exact(params, weights @ params["m"], xp.sqrt((weights**2) @ spread**2))


def discrete(log_prob, params, top=80):
    x = xp.arange(float(top))
    return xp.sum(xp.exp(log_prob(x)) * jump(x, params["phi"]))


def poisson():
    ppl.sample("x", dist.Poisson(xp.exp(ppl.param("r"))))


def poisson_exact(params):
    return discrete(lambda x: x * params["r"] - xp.exp(params["r"]) - jax.scipy.special.gammaln(x + 1), params)


def poisson_lanes():
    with ppl.plate("lanes", 3):
        ppl.sample("x", dist.Poisson(xp.exp(ppl.param("r"))))


def squared_sum(p, q):
    return ppl.param("phi") * xp.sum(q.simulate()["x"]) ** 2 + 0.5 * xp.sum(q.simulate()["x"])


def squared_sum_exact(params):
    rate = xp.exp(params["r"]).sum()
    return params["phi"] * (rate + rate**2) + 0.5 * rate


def geometric():
    ppl.sample("x", dist.Geometric(nn.sigmoid(ppl.param("a"))))


def geometric_exact(params):
    p = nn.sigmoid(params["a"])
    return discrete(lambda x: xp.log(p) + x * xp.log1p(-p), params, 400)


def exponential():
    ppl.sample("x", dist.Exponential(xp.exp(ppl.param("r"))))


def exponential_exact(params):
    x = (xp.arange(400_000) + 0.5) * 1e-4
    rate = xp.exp(params["r"])
    return xp.sum(rate * xp.exp(-rate * x) * jump(x, params["phi"])) * 1e-4


def continuous(density, params, top=40.0):
    """E of the jumping objective under a density on the positive numbers, whose derivative may be infinite at zero."""
    x = top * ((xp.arange(400_000) + 0.5) / 400_000) ** 3
    return xp.sum(density(x) * jump(x, params["phi"]) * 3 * top ** (1 / 3) * x ** (2 / 3)) / 400_000


def gamma():
    ppl.sample("x", dist.Gamma(xp.exp(ppl.param("a")), xp.exp(ppl.param("r"))))


def gamma_exact(params):
    a, rate = xp.exp(params["a"]), xp.exp(params["r"])
    return continuous(lambda x: xp.exp(a * xp.log(rate) + (a - 1) * xp.log(x) - rate * x - jax.lax.lgamma(a)), params)


def weibull():
    ppl.sample("x", dist.Weibull(xp.exp(ppl.param("s")), xp.exp(ppl.param("a"))))


def weibull_exact(params):
    scale, k = xp.exp(params["s"]), xp.exp(params["a"])
    return continuous(lambda x: k / scale * (x / scale) ** (k - 1) * xp.exp(-((x / scale) ** k)), params)


def beta():
    ppl.sample("x", dist.Beta(xp.exp(ppl.param("a")), xp.exp(ppl.param("b"))))


def beta_exact(params):
    a, b = xp.exp(params["a"]), xp.exp(params["b"])
    log_normaliser = jax.lax.lgamma(a) + jax.lax.lgamma(b) - jax.lax.lgamma(a + b)
    return continuous(lambda x: xp.exp((a - 1) * xp.log(x) + (b - 1) * xp.log1p(-x) - log_normaliser), params, 1.0)


def rotations():
    with ppl.plate("lanes", 3):
        ppl.sample("x", dist.Rotation(ppl.param("angle"), nn.sigmoid(ppl.param("v"))))


def rotations_exact(params):
    probs = (1 - nn.sigmoid(params["v"]) * xp.cos(params["angle"])) / 2
    return sum(xp.prod(cases.p_of(z, probs)) * coupled(z, params["phi"]) for z in cases.binary(3))


def three_valued():
    with ppl.plate("lanes", 2):
        ppl.sample("x", dist.Categorical(logits=ppl.param("logits")))


def met(x, phi):
    return phi * xp.exp(0.4 * x[0] * x[1]) + x[0] ** 2


def three_valued_exact(params):
    q = nn.softmax(params["logits"])
    pairs = [xp.array([i, j], float) for i in range(3) for j in range(3)]
    return sum(q[0, int(z[0])] * q[1, int(z[1])] * met(z, params["phi"]) for z in pairs)


def uniform():
    ppl.sample("x", dist.Uniform(ppl.param("low"), ppl.param("high")))


def uniform_exact(params):
    """floor(x) is 0 up to 0.7, where phi x^2 begins; -1 below 0."""
    low, high = params["low"], params["high"]
    return (low + params["phi"] * (high**3 - 0.7**3) / 3) / (high - low)


def two_kinds(p, q):
    z = q.simulate()
    return ppl.param("phi") * xp.where(z["x"] + z["b"] > 0.7, z["x"] ** 2, z["b"] * 1.0)


def two_kinds_guide():
    b = ppl.sample("b", dist.Bernoulli(logits=ppl.param("a")))
    ppl.sample("x", dist.Normal(ppl.param("m") + b, 0.9))


def two_kinds_exact(params):
    x = xp.linspace(-9.0, 11.0, 200_001)
    total = 0.0
    for b in (0.0, 1.0):
        density = xp.exp(-0.5 * ((x - params["m"] - b) / 0.9) ** 2) / (0.9 * xp.sqrt(2 * xp.pi))
        total += cases.p_of(b, nn.sigmoid(params["a"])) * xp.sum(density * xp.where(x + b > 0.7, x**2, b))
    return params["phi"] * total * (x[1] - x[0])


THREE = dict(logits=xp.array([[0.3, -0.5, 0.2], [-0.1, 0.6, 0.4]]), phi=0.8)
ROTATED = dict(angle=xp.array([0.4, 1.3, -2.0]), v=xp.array([0.5, 1.5, -0.3]), phi=0.8)
LANES = dict(m=xp.array([0.4, -0.2, 0.6]), s=xp.array([-0.1, 0.2, -0.3]), phi=0.8)
TABLE = [
    Case("Normal, a jump", one_lane(jump), nothing, normal, dict(m=0.4, s=-0.1, phi=0.8), normal_exact, MEASURE, n=N),
    Case("Normal lanes, a coupled jump", one_lane(coupled), nothing, normal_lanes, LANES, normal_lanes_exact, MEASURE, n=N),
    Case("Poisson, a jump", one_lane(jump), nothing, poisson, dict(r=0.4, phi=0.8), poisson_exact, DISCRETE, n=N),
    Case("Poisson lanes, coupled", squared_sum, nothing, poisson_lanes, dict(r=xp.array([0.4, -0.3, 0.1]), phi=0.8), squared_sum_exact, DISCRETE, n=N),
    Case("Geometric, a jump", one_lane(jump), nothing, geometric, dict(a=-0.2, phi=0.8), geometric_exact, DISCRETE, n=N),
    Case("Gamma, a jump", one_lane(jump), nothing, gamma, dict(a=0.4, r=0.2, phi=0.8), gamma_exact, MEASURE, n=N),
    Case("Weibull, a jump", one_lane(jump), nothing, weibull, dict(a=0.4, s=0.2, phi=0.8), weibull_exact, MEASURE, n=N),
    Case("Beta, a jump", one_lane(jump), nothing, beta, dict(a=0.4, b=0.2, phi=0.8), beta_exact, MEASURE, n=N),
    Case("three-valued lanes, coupled", one_lane(met), nothing, three_valued, THREE, three_valued_exact,
         tuple({"x": s} for s in (ARM(), ARSM(), StochasticPerturbation())), n=N),
    Case("Exponential, a jump", one_lane(jump), nothing, exponential, dict(r=0.3, phi=0.8), exponential_exact, MEASURE, n=N),
    Case("Uniform, its bounds and a jump", one_lane(jump), nothing, uniform, dict(low=-0.4, high=1.6, phi=0.8), uniform_exact, MEASURE, n=N),
    Case("Bernoulli above a Normal", two_kinds, nothing, two_kinds_guide, dict(a=0.4, m=-0.2, phi=0.8), two_kinds_exact,
         tuple({"b": b, "x": MeasureValued()} for b in (ARM(), DisARM(), LocalExpectation(), MeasureValued(), Enumerate())), n=N),
]  # fmt: skip

BINARY = ["dependent pair", "lanes, separable", "lanes, coupled", "lanes, both", "lanes, matrix", "IWELBO(2), coin", "replicated product"]  # fmt: skip


def binary(name):
    """A finite case of the exact laws, with strategies whose own randomness is a uniform number."""
    case = next(case for case in cases.CASES if case.name == name)
    sites = list(case.strategies[0])
    strategies = [dict.fromkeys(sites, strategy) for strategy in (ARM(), ARSM(), StochasticPerturbation())]
    mixed = [{sites[0]: DisARM(), sites[1]: ARM()}] if len(sites) > 1 else []
    quick = 0 if name in ("lanes, separable", "lanes, both", "lanes, matrix", "replicated product") else 2
    return Case(name, case.program, case.model, case.guide, case.params, case.exact, (*strategies, *mixed), N, quick)


@pytest.mark.parametrize(("engine", "case", "strategies"), rows([*TABLE, *map(binary, BINARY)]))
def test_mean_gradient(engine, case, strategies):
    check(engine, case, strategies)


@pytest.mark.parametrize("shift", [np.pi / 2, 0.7])
def test_parameter_shift_is_exact(engine, shift):
    """The angle by the rule, the visibility by the score; three lanes that a jump couples."""
    strategy = {"x": ParameterShift("angle", shift)}
    test_exact.test_expectation_is_exact(
        engine,
        Case("rotations", one_lane(coupled), nothing, rotations, ROTATED, rotations_exact, (strategy,)),
        strategy,
    )


def test_disarm_has_less_variance_than_arm(engine):
    case = binary("lanes, coupled")
    assert (spread(engine, case, {"z": DisARM()})["logits"] < spread(engine, case, {"z": ARM()})["logits"]).all()


def test_local_expectation_has_less_variance_than_a_score_function(engine):
    case = binary("lanes, coupled")
    assert (
        spread(engine, case, {"z": LocalExpectation()})["logits"]
        < spread(engine, case, {"z": ppvi.Reinforce()})["logits"]
    ).all()


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (MeasureValued(), "no measure-valued derivative of Gumbel is known here, only of Normal, Poisson"),
        (StochasticPerturbation(), "for finite supports, Poisson and Geometric, not Gumbel"),
        *(
            (s, "Gumbel has no finite support")
            for s in (LocalExpectation(), ARM(), DisARM(), ARSM(), UnorderedSet(), SumAndSample())
        ),
    ],
)
def test_sites_that_a_strategy_does_not_fit(engine, strategy, message):
    def gumbel():
        ppl.sample("x", dist.Gumbel(ppl.param("a", 0.1), 1.0))

    bound = engine.vi.objective(lambda p, q: q.simulate()["x"], nothing, gumbel, strategies={"x": strategy})
    with on(engine), pytest.raises(ppvi.StrategyError, match=message):
        bound.estimate(engine.key(0), {"a": engine.array(0.1)})


def test_too_many_coupled_lanes(engine):
    def guide():
        with ppl.plate("lanes", 5000):
            ppl.sample("z", dist.Bernoulli(logits=ppl.param("a", 0.1)))

    bound = engine.vi.objective(
        lambda p, q: xp.sum(q.simulate()["z"]) ** 2.0, nothing, guide, strategies={"z": LocalExpectation()}
    )
    message = "5000 coupled lanes, which take their alternatives one at a time, would cost 5000 runs"
    with on(engine), pytest.raises(ppvi.StrategyError, match=message):
        bound.estimate(engine.key(0), {"a": engine.array(0.1)})


def test_exact_where_nothing_couples_lanes(engine):
    case = next(case for case in cases.CASES if case.name == "lanes, separable")
    np.testing.assert_allclose(spread(engine, case, {"z": LocalExpectation()})["logits"], 0.0, atol=1e-5)
