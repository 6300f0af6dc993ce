"""Strategies whose own randomness is not finite, against sums and quadrature: parameters in the distribution and in the
continuation, lanes apart and coupled, objectives that jump."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ppvi
import ppvi.numpyro as vi
from ppvi import ARM, DisARM, Enumerate, LocalExpectation, MeasureValued
from ppvi.strategies import ARSM, ParameterShift, StochasticPerturbation, SumAndSample, UnorderedSet
from tests.laws import cases, test_exact
from tests.laws.cases import Case, nothing, rows
from tests.laws.sampling import check

N = 100_000
MEASURE = ({"x": MeasureValued()},)
DISCRETE = (*MEASURE, {"x": StochasticPerturbation()})


def jump(x, phi):
    """Neither continuous nor differentiable anywhere that it jumps."""
    return jnp.where(x > 0.7, phi * x**2, jnp.floor(x))


def one_lane(program):
    return lambda p, q: program(q.simulate()["x"] * 1.0, numpyro.param("phi"))


def coupled(x, phi):
    return jump(x[0] + 0.5 * x[1] - 0.3 * x[2], phi)


def normal():
    numpyro.sample("x", dist.Normal(numpyro.param("m"), jnp.exp(numpyro.param("s"))))


def normal_lanes():
    with numpyro.plate("lanes", 3):
        numpyro.sample("x", dist.Normal(numpyro.param("m"), jnp.exp(numpyro.param("s"))))


def normal_exact(params, m=None, s=None):
    x = jnp.linspace(-12.0, 12.0, 200_001)
    m, s = (params["m"], jnp.exp(params["s"])) if m is None else (m, s)
    density = jnp.exp(-0.5 * ((x - m) / s) ** 2) / (s * jnp.sqrt(2 * jnp.pi))
    return jnp.sum(density * jump(x, params["phi"])) * (x[1] - x[0])


def normal_lanes_exact(params):
    """The coupled objective sees one normal number, the weighted sum of the lanes."""
    weights, spread = jnp.array([1.0, 0.5, -0.3]), jnp.exp(params["s"])
    return normal_exact(params, weights @ params["m"], jnp.sqrt((weights**2) @ spread**2))


def discrete(log_prob, params, top=80):
    x = jnp.arange(float(top))
    return jnp.sum(jnp.exp(log_prob(x)) * jump(x, params["phi"]))


def poisson():
    numpyro.sample("x", dist.Poisson(jnp.exp(numpyro.param("r"))))


def poisson_exact(params):
    return discrete(lambda x: x * params["r"] - jnp.exp(params["r"]) - jax.scipy.special.gammaln(x + 1), params)


def poisson_lanes():
    with numpyro.plate("lanes", 3):
        numpyro.sample("x", dist.Poisson(jnp.exp(numpyro.param("r"))))


def squared_sum(p, q):
    return numpyro.param("phi") * jnp.sum(q.simulate()["x"]) ** 2 + 0.5 * jnp.sum(q.simulate()["x"])


def squared_sum_exact(params):
    rate = jnp.exp(params["r"]).sum()
    return params["phi"] * (rate + rate**2) + 0.5 * rate


def geometric():
    numpyro.sample("x", dist.Geometric(jax.nn.sigmoid(numpyro.param("a"))))


def geometric_exact(params):
    p = jax.nn.sigmoid(params["a"])
    return discrete(lambda x: jnp.log(p) + x * jnp.log1p(-p), params, 400)


def exponential():
    numpyro.sample("x", dist.Exponential(jnp.exp(numpyro.param("r"))))


def exponential_exact(params):
    x = (jnp.arange(400_000) + 0.5) * 1e-4
    rate = jnp.exp(params["r"])
    return jnp.sum(rate * jnp.exp(-rate * x) * jump(x, params["phi"])) * 1e-4


def continuous(density, params, top=40.0):
    """E of the jumping objective under a density on the positive numbers, whose derivative may be infinite at zero."""
    x = top * ((jnp.arange(400_000) + 0.5) / 400_000) ** 3
    return jnp.sum(density(x) * jump(x, params["phi"]) * 3 * top ** (1 / 3) * x ** (2 / 3)) / 400_000


def gamma():
    numpyro.sample("x", dist.Gamma(jnp.exp(numpyro.param("a")), jnp.exp(numpyro.param("r"))))


def gamma_exact(params):
    a, rate = jnp.exp(params["a"]), jnp.exp(params["r"])
    return continuous(
        lambda x: jnp.exp(a * jnp.log(rate) + (a - 1) * jnp.log(x) - rate * x - jax.lax.lgamma(a)), params
    )


def weibull():
    numpyro.sample("x", dist.Weibull(jnp.exp(numpyro.param("s")), jnp.exp(numpyro.param("a"))))


def weibull_exact(params):
    scale, k = jnp.exp(params["s"]), jnp.exp(params["a"])
    return continuous(lambda x: k / scale * (x / scale) ** (k - 1) * jnp.exp(-((x / scale) ** k)), params)


def beta():
    numpyro.sample("x", dist.Beta(jnp.exp(numpyro.param("a")), jnp.exp(numpyro.param("b"))))


def beta_exact(params):
    a, b = jnp.exp(params["a"]), jnp.exp(params["b"])
    log_normaliser = jax.lax.lgamma(a) + jax.lax.lgamma(b) - jax.lax.lgamma(a + b)
    return continuous(lambda x: jnp.exp((a - 1) * jnp.log(x) + (b - 1) * jnp.log1p(-x) - log_normaliser), params, 1.0)


class Rotation(dist.Distribution):
    """A measurement after a rotation: 1 with probability (1 - visibility cos(angle)) / 2."""

    arg_constraints = {"angle": dist.constraints.real, "visibility": dist.constraints.unit_interval}  # noqa: RUF012
    support = dist.constraints.boolean
    has_enumerate_support = True

    def __init__(self, angle, visibility, *, validate_args=None):
        self.angle, self.visibility = jnp.broadcast_arrays(angle, visibility)
        super().__init__(self.angle.shape, (), validate_args=validate_args)

    @property
    def probs(self):
        return (1 - self.visibility * jnp.cos(self.angle)) / 2

    def sample(self, key, sample_shape=()):
        return jax.random.bernoulli(key, self.probs, (*sample_shape, *self.batch_shape)).astype(int)

    def log_prob(self, value):
        return jnp.log(jnp.where(value == 1, self.probs, 1 - self.probs))

    def enumerate_support(self, expand=True):
        values = jnp.arange(2).reshape(2, *[1] * len(self.batch_shape))
        return jnp.broadcast_to(values, (2, *self.batch_shape)) if expand else values


def rotations():
    with numpyro.plate("lanes", 3):
        numpyro.sample("x", Rotation(numpyro.param("angle"), jax.nn.sigmoid(numpyro.param("v"))))


def rotations_exact(params):
    probs = (1 - jax.nn.sigmoid(params["v"]) * jnp.cos(params["angle"])) / 2
    return sum(jnp.prod(cases.p_of(z, probs)) * coupled(z, params["phi"]) for z in cases.binary(3))


def three_valued():
    with numpyro.plate("lanes", 2):
        numpyro.sample("x", dist.Categorical(logits=numpyro.param("logits")))


def met(x, phi):
    return phi * jnp.exp(0.4 * x[0] * x[1]) + x[0] ** 2


def three_valued_exact(params):
    q = jax.nn.softmax(params["logits"])
    pairs = [jnp.array([i, j], float) for i in range(3) for j in range(3)]
    return sum(q[0, int(z[0])] * q[1, int(z[1])] * met(z, params["phi"]) for z in pairs)


def uniform():
    numpyro.sample("x", dist.Uniform(numpyro.param("low"), numpyro.param("high")))


def uniform_exact(params):
    """floor(x) is 0 up to 0.7, where phi x^2 begins; -1 below 0."""
    low, high = params["low"], params["high"]
    return (low + params["phi"] * (high**3 - 0.7**3) / 3) / (high - low)


def two_kinds(p, q):
    z = q.simulate()
    return numpyro.param("phi") * jnp.where(z["x"] + z["b"] > 0.7, z["x"] ** 2, z["b"] * 1.0)


def two_kinds_guide():
    b = numpyro.sample("b", dist.Bernoulli(logits=numpyro.param("a")))
    numpyro.sample("x", dist.Normal(numpyro.param("m") + b, 0.9))


def two_kinds_exact(params):
    x = jnp.linspace(-9.0, 11.0, 200_001)
    total = 0.0
    for b in (0.0, 1.0):
        density = jnp.exp(-0.5 * ((x - params["m"] - b) / 0.9) ** 2) / (0.9 * jnp.sqrt(2 * jnp.pi))
        total += cases.p_of(b, jax.nn.sigmoid(params["a"])) * jnp.sum(density * jnp.where(x + b > 0.7, x**2, b))
    return params["phi"] * total * (x[1] - x[0])


THREE = dict(logits=jnp.array([[0.3, -0.5, 0.2], [-0.1, 0.6, 0.4]]), phi=0.8)
ROTATED = dict(angle=jnp.array([0.4, 1.3, -2.0]), v=jnp.array([0.5, 1.5, -0.3]), phi=0.8)
LANES = dict(m=jnp.array([0.4, -0.2, 0.6]), s=jnp.array([-0.1, 0.2, -0.3]), phi=0.8)
TABLE = [
    Case("Normal, a jump", one_lane(jump), nothing, normal, dict(m=0.4, s=-0.1, phi=0.8), normal_exact, MEASURE, n=N),
    Case("Normal lanes, a coupled jump", one_lane(coupled), nothing, normal_lanes, LANES, normal_lanes_exact, MEASURE, n=N),
    Case("Poisson, a jump", one_lane(jump), nothing, poisson, dict(r=0.4, phi=0.8), poisson_exact, DISCRETE, n=N),
    Case("Poisson lanes, coupled", squared_sum, nothing, poisson_lanes, dict(r=jnp.array([0.4, -0.3, 0.1]), phi=0.8), squared_sum_exact, DISCRETE, n=N),
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


@pytest.mark.parametrize(("case", "strategies"), rows([*TABLE, *map(binary, BINARY)]))
def test_mean_gradient(case, strategies):
    check(case, strategies)


@pytest.mark.parametrize("shift", [np.pi / 2, 0.7])
def test_parameter_shift_is_exact(shift):
    """The angle by the rule, the visibility by the score; three lanes that a jump couples."""
    strategy = {"x": ParameterShift("angle", shift)}
    test_exact.test_expectation_is_exact(
        Case("rotations", one_lane(coupled), nothing, rotations, ROTATED, rotations_exact, (strategy,)), strategy
    )


def gradients(case, strategy):
    objective = vi.objective(case.program, case.model, case.guide, strategies={"z": strategy})
    params = {name: jnp.asarray(x, jnp.float32) for name, x in case.params.items()}
    keys = jax.random.split(jax.random.key(0), 20_000)
    return jax.vmap(objective.value_and_grad, (0, None))(keys, params)[1]["logits"]


def test_disarm_has_less_variance_than_arm():
    case = binary("lanes, coupled")
    assert (gradients(case, DisARM()).var(0) < gradients(case, ARM()).var(0)).all()


def test_local_expectation_has_less_variance_than_a_score_function():
    case = binary("lanes, coupled")
    local, score = gradients(case, LocalExpectation()), gradients(case, ppvi.Reinforce())
    assert (local.var(0) < score.var(0)).all()


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
def test_sites_that_a_strategy_does_not_fit(strategy, message):
    def gumbel():
        numpyro.sample("x", dist.Gumbel(numpyro.param("a", 0.1), 1.0))

    bound = vi.objective(lambda p, q: q.simulate()["x"], nothing, gumbel, strategies={"x": strategy})
    with pytest.raises(ppvi.StrategyError, match=message):
        bound.estimate(jax.random.key(0), {"a": jnp.array(0.1)})


def test_too_many_coupled_lanes():
    def guide():
        with numpyro.plate("lanes", 3000):
            numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("a", 0.1)))

    bound = vi.objective(
        lambda p, q: jnp.sum(q.simulate()["z"]) ** 2.0, nothing, guide, strategies={"z": LocalExpectation()}
    )
    with pytest.raises(ppvi.StrategyError, match="3000 coupled lanes, one at a time with 2 alternatives each"):
        bound.estimate(jax.random.key(0), {"a": jnp.array(0.1)})


def test_exact_where_nothing_couples_lanes():
    case = next(case for case in cases.CASES if case.name == "lanes, separable")
    np.testing.assert_allclose(gradients(case, LocalExpectation()).std(0), 0.0, atol=1e-5)
