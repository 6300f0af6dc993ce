"""Relaxations: the biased ones are right where the theory says so and say so elsewhere; their control variates are unbiased."""

import jax
import numpy as np
import pytest

import ppvi
from ppvi import Reinforce
from ppvi.objectives import elbo
from ppvi.strategies import REBAR, RELAX, GumbelSoftmax, ReinMax, StraightThrough
from tests.engines import dist, nn, on, ppl, xp
from tests.laws import cases
from tests.laws.cases import COIN_PARAMS, LANES_PARAMS, Case, nothing, rows
from tests.laws.sampling import Z, check, moments, spread

N = 100_000


def linear(z):
    return 1.7 * z[0] - 0.4 * z[1] + 0.9 * z[2]


def quadratic(z):
    """Without products of entries: a path of one site at a time is followed."""
    return linear(z) + xp.sum(z**2 * xp.array([0.3, 1.1, -0.8]))


def one_hot_guide():
    with ppl.plate("lanes", 2):
        ppl.sample("z", dist.OneHot(ppl.param("logits")))


def of_vectors(f):
    def exact(params):
        q = nn.softmax(params["logits"])
        eye = xp.eye(3)
        return sum(q[lane, k] * (1 + lane) * f(eye[k]) for lane in range(2) for k in range(3))

    def program(p, q):
        z = q.simulate()["z"]
        return sum((1 + lane) * f(z[lane]) for lane in range(2))

    return program, exact


def coupled_vectors(z, phi):
    return phi * xp.exp(0.5 * (z[0] @ xp.array([0.1, 0.9, -0.4])) * (z[1] @ xp.array([1.0, -0.3, 0.6])))


def coupled_vectors_exact(params):
    q, eye = nn.softmax(params["logits"]), xp.eye(3)
    pairs = [(i, j) for i in range(3) for j in range(3)]
    return sum(q[0, i] * q[1, j] * coupled_vectors(eye[xp.array([i, j])], params["phi"]) for i, j in pairs)


def net():
    return {"w": xp.array([0.4, -0.7])}


def surrogate(weights, value):
    return weights["w"][0] * value + weights["w"][1] * value**2


def of_a_vector(weights, value):
    return weights["w"][0] * xp.sum(value**2 * xp.arange(3.0), -1)


LOGITS = dict(logits=xp.array([[0.3, -0.5, 0.2], [-0.1, 0.6, 0.4]]))
LEARNED = tuple({"z": s} for s in (REBAR(), REBAR(2.0, 0.4), RELAX(net, surrogate), RELAX(net, surrogate, scale=0.0)))
VECTORS = tuple({"z": s} for s in (REBAR(), RELAX(net, of_a_vector)))
TABLE = [
    *(
        Case(f"lanes, {name}", program, nothing, cases.lanes_guide, LANES_PARAMS, exact, LEARNED, n=N, quick=2)
        for name, (program, exact) in cases.lanes.items() if name in ("separable", "coupled")
    ),
    Case("ELBO, coin", elbo, cases.coin_model, cases.coin_guide, COIN_PARAMS, cases.coin_multi(xp.sum, 1), LEARNED, n=N, quick=3),
    Case("vectors, coupled", lambda p, q: coupled_vectors(q.simulate()["z"], ppl.param("phi")), nothing, one_hot_guide,
         LOGITS | dict(phi=0.8), coupled_vectors_exact, VECTORS, n=N),
    *(
        Case(f"vectors, {f.__name__}", of_vectors(f)[0], nothing, one_hot_guide, LOGITS, of_vectors(f)[1], strategies, n=N)
        for f, strategies in ((linear, ({"z": StraightThrough()}, {"z": ReinMax()})), (quadratic, ({"z": ReinMax()},)))
    ),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "case", "strategies"), rows(TABLE))
def test_mean_gradient(engine, case, strategies):
    check(engine, case, strategies)


# Where they are biased ---------------------------------------------------------------------------------------------------------


def cubic(p, q):
    return xp.sum((q.simulate()["z"] * 1.0) ** 3 * xp.arange(1.0, 5.0)) + xp.prod(q.simulate()["z"] + 0.5)


@pytest.mark.parametrize("strategy", [GumbelSoftmax(), GumbelSoftmax(hard=True), StraightThrough()], ids=str)
def test_biased_strategies_are_biased_and_say_so(engine, strategy):
    """A law that sees a bias elsewhere must see this one, and `explain` says what to expect."""
    case = Case("lanes", *cases.lanes_sum(cases.coupled)[:1], nothing, cases.lanes_guide, LANES_PARAMS, cases.lanes_sum(cases.coupled)[1], ())  # fmt: skip
    assert not strategy.unbiased
    with pytest.raises(AssertionError):
        check(engine, case, {"z": strategy})
    bound = engine.vi.objective(case.program, case.model, case.guide, strategies={"z": strategy})
    with on(engine):
        params = {name: engine.array(x) for name, x in LANES_PARAMS.items()}
        assert "biased by design" in " ".join(str(bound.explain(params)).split())


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_gumbel_softmax_is_pathwise_in_its_own_objective(engine, temperature):
    """Its gradient is that of E f(sigmoid((a + logistic noise) / t)), by quadrature."""
    u = (xp.arange(200_000) + 0.5) / 200_000

    def relaxed(a):
        z = nn.sigmoid((a + xp.log(u) - xp.log1p(-u)) / temperature)
        return xp.mean(z**3 + xp.exp(z))

    def program(p, q):
        z = q.simulate()["z"]
        return z**3 + xp.exp(z)

    with on(engine):
        objective = engine.vi.objective(
            program, nothing, cases.coin_guide, strategies={"z": GumbelSoftmax(temperature)}
        )
        (_, mean), (_, sd) = moments(engine, objective, {"a": engine.array(0.35)}, N)
    assert abs(mean["a"] - jax.grad(relaxed)(0.35)) < Z * sd["a"] / np.sqrt(N) + 1e-5


def test_rebar_has_less_variance_than_the_score_function(engine):
    case = TABLE[1]
    assert case.name == "lanes, coupled"
    rebar, score = (spread(engine, case, {"z": strategy})["logits"] for strategy in (REBAR(), Reinforce()))
    assert (rebar < 0.7 * score).all()


@pytest.mark.parametrize("strategy", [GumbelSoftmax(), StraightThrough(), ReinMax(), REBAR()], ids=str)
def test_indices_do_not_mix(engine, strategy):
    def guide():
        ppl.sample("z", dist.Categorical(logits=ppl.param("logits", xp.zeros(3))))

    bound = engine.vi.objective(lambda p, q: q.simulate()["z"] * 1.0, nothing, guide, strategies={"z": strategy})
    message = r"mixes values, and the indices of Categorical\w* do not mix"
    with on(engine), pytest.raises(ppvi.StrategyError, match=message):
        bound.estimate(engine.key(0), {"logits": engine.array(np.zeros(3))})


def test_a_temperature_must_be_positive():
    with pytest.raises(
        ppvi.StrategyError, match="GumbelSoftmax: the temperature must be a finite number above 0, not 0"
    ):
        GumbelSoftmax(0.0)
