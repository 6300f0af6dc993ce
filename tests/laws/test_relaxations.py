"""Relaxations: the biased ones are right where the theory says so and say so elsewhere; their control variates are unbiased."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ppvi
import ppvi.numpyro as vi
from ppvi import Reinforce
from ppvi.objectives import elbo
from ppvi.strategies import REBAR, RELAX, GumbelSoftmax, ReinMax, StraightThrough
from tests.laws import cases
from tests.laws.cases import COIN_PARAMS, LANES_PARAMS, Case, nothing, rows
from tests.laws.sampling import Z, check, moments

N = 100_000


class OneHot(dist.Distribution):
    """A finite site whose values are one-hot vectors."""

    arg_constraints = {"logits": dist.constraints.real_vector}  # noqa: RUF012
    support = dist.constraints.real_vector
    has_enumerate_support = True

    def __init__(self, logits, *, validate_args=None):
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        index = jax.random.categorical(key, self.logits, shape=(*sample_shape, *self.batch_shape))
        return jax.nn.one_hot(index, self.logits.shape[-1])

    def log_prob(self, value):
        return jnp.sum(jax.nn.log_softmax(self.logits) * value, -1)

    def enumerate_support(self, expand=True):
        k = self.logits.shape[-1]
        return jnp.broadcast_to(jnp.eye(k).reshape(k, *[1] * len(self.batch_shape), k), (k, *self.logits.shape))


def linear(z):
    return 1.7 * z[0] - 0.4 * z[1] + 0.9 * z[2]


def quadratic(z):
    """Without products of entries: a path of one site at a time is followed."""
    return linear(z) + jnp.sum(z**2 * jnp.array([0.3, 1.1, -0.8]))


def one_hot_guide():
    with numpyro.plate("lanes", 2):
        numpyro.sample("z", OneHot(numpyro.param("logits")))


def of_vectors(f):
    def exact(params):
        q = jax.nn.softmax(params["logits"])
        eye = jnp.eye(3)
        return sum(q[lane, k] * (1 + lane) * f(eye[k]) for lane in range(2) for k in range(3))

    def program(p, q):
        z = q.simulate()["z"]
        return sum((1 + lane) * f(z[lane]) for lane in range(2))

    return program, exact


def coupled_vectors(z, phi):
    return phi * jnp.exp(0.5 * (z[0] @ jnp.array([0.1, 0.9, -0.4])) * (z[1] @ jnp.array([1.0, -0.3, 0.6])))


def coupled_vectors_exact(params):
    q, eye = jax.nn.softmax(params["logits"]), jnp.eye(3)
    pairs = [(i, j) for i in range(3) for j in range(3)]
    return sum(q[0, i] * q[1, j] * coupled_vectors(eye[jnp.array([i, j])], params["phi"]) for i, j in pairs)


def net():
    return {"w": jnp.array([0.4, -0.7])}


def surrogate(weights, value):
    return weights["w"][0] * value + weights["w"][1] * value**2


def of_a_vector(weights, value):
    return weights["w"][0] * jnp.sum(value**2 * jnp.arange(3.0), -1)


LOGITS = dict(logits=jnp.array([[0.3, -0.5, 0.2], [-0.1, 0.6, 0.4]]))
LEARNED = tuple({"z": s} for s in (REBAR(), REBAR(2.0, 0.4), RELAX(net, surrogate), RELAX(net, surrogate, scale=0.0)))
VECTORS = tuple({"z": s} for s in (REBAR(), RELAX(net, of_a_vector)))
TABLE = [
    *(
        Case(f"lanes, {name}", program, nothing, cases.lanes_guide, LANES_PARAMS, exact, LEARNED, n=N, quick=2)
        for name, (program, exact) in cases.lanes.items() if name in ("separable", "coupled")
    ),
    Case("ELBO, coin", elbo, cases.coin_model, cases.coin_guide, COIN_PARAMS, cases.coin_multi(jnp.sum, 1), LEARNED, n=N, quick=3),
    Case("vectors, coupled", lambda p, q: coupled_vectors(q.simulate()["z"], numpyro.param("phi")), nothing, one_hot_guide,
         LOGITS | dict(phi=0.8), coupled_vectors_exact, VECTORS, n=N),
    *(
        Case(f"vectors, {f.__name__}", of_vectors(f)[0], nothing, one_hot_guide, LOGITS, of_vectors(f)[1], strategies, n=N)
        for f, strategies in ((linear, ({"z": StraightThrough()}, {"z": ReinMax()})), (quadratic, ({"z": ReinMax()},)))
    ),
]  # fmt: skip


@pytest.mark.parametrize(("case", "strategies"), rows(TABLE))
def test_mean_gradient(case, strategies):
    check(case, strategies)


# Where they are biased ---------------------------------------------------------------------------------------------------------


def cubic(p, q):
    return jnp.sum((q.simulate()["z"] * 1.0) ** 3 * jnp.arange(1.0, 5.0)) + jnp.prod(q.simulate()["z"] + 0.5)


@pytest.mark.parametrize("strategy", [GumbelSoftmax(), GumbelSoftmax(hard=True), StraightThrough()], ids=str)
def test_biased_strategies_are_biased_and_say_so(strategy):
    """A law that sees a bias elsewhere must see this one, and `explain` says what to expect."""
    case = Case("lanes", *cases.lanes_sum(cases.coupled)[:1], nothing, cases.lanes_guide, LANES_PARAMS, cases.lanes_sum(cases.coupled)[1], ())  # fmt: skip
    assert not strategy.unbiased
    with pytest.raises(AssertionError):
        check(case, {"z": strategy})
    bound = vi.objective(case.program, case.model, case.guide, strategies={"z": strategy})
    assert "biased by design" in str(bound.explain(LANES_PARAMS))


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_gumbel_softmax_is_pathwise_in_its_own_objective(temperature):
    """Its gradient is that of E f(sigmoid((a + logistic noise) / t)), by quadrature."""
    u = (jnp.arange(200_000) + 0.5) / 200_000

    def relaxed(a):
        z = jax.nn.sigmoid((a + jnp.log(u) - jnp.log1p(-u)) / temperature)
        return jnp.mean(z**3 + jnp.exp(z))

    def program(p, q):
        z = q.simulate()["z"]
        return z**3 + jnp.exp(z)

    objective = vi.objective(program, nothing, cases.coin_guide, strategies={"z": GumbelSoftmax(temperature)})
    (_, mean), (_, sd) = moments(objective, {"a": jnp.array(0.35)}, N)
    assert abs(mean["a"] - jax.grad(relaxed)(0.35)) < Z * sd["a"] / np.sqrt(N) + 1e-5


def test_rebar_has_less_variance_than_the_score_function():
    case = TABLE[1]
    assert case.name == "lanes, coupled"
    spreads = {}
    for strategy in (REBAR(), Reinforce()):
        objective = vi.objective(case.program, case.model, case.guide, strategies={"z": strategy})
        spreads[type(strategy).__name__] = moments(objective, LANES_PARAMS, 20_000)[1][1]["logits"]
    assert (spreads["REBAR"] < 0.7 * spreads["Reinforce"]).all()


@pytest.mark.parametrize("strategy", [GumbelSoftmax(), StraightThrough(), ReinMax(), REBAR()], ids=str)
def test_indices_do_not_mix(strategy):
    def guide():
        numpyro.sample("z", dist.Categorical(logits=numpyro.param("logits", jnp.zeros(3))))

    bound = vi.objective(lambda p, q: q.simulate()["z"] * 1.0, nothing, guide, strategies={"z": strategy})
    with pytest.raises(ppvi.StrategyError, match="mixes values, and the indices of CategoricalLogits do not mix"):
        bound.estimate(jax.random.key(0), {"logits": jnp.zeros(3)})


def test_a_temperature_must_be_positive():
    with pytest.raises(ppvi.StrategyError, match="GumbelSoftmax: the temperature must be positive, not 0"):
        GumbelSoftmax(0.0)
