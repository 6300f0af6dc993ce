"""Pathwise strategies: several quantiles at once, jumps at known surfaces, densities made by transforms; by quadrature."""

import numpy as np
import pytest
from numpyro.distributions.flows import InverseAutoregressiveTransform

import ppvi
from ppvi import Reparam
from ppvi.objectives import elbo
from ppvi.strategies import Antithetic, BoundaryReparam, Stratified
from tests.engines import NUMPYRO, dist, on, ppl, xp
from tests.laws.cases import Case, nothing, rows
from tests.laws.sampling import check, spread

N = 100_000


def normal():
    ppl.sample("x", dist.Normal(ppl.param("m"), xp.exp(ppl.param("s"))))


def normal_lanes():
    with ppl.plate("lanes", 3):
        ppl.sample("x", dist.Normal(ppl.param("m"), xp.exp(ppl.param("s"))))


def over_grid(params, f):
    """E f(x, phi) for a normal x, on both sides of a jump at 0.7."""
    m, s = params["m"], xp.exp(params["s"])
    total = 0.0
    for low, high in ((-12.0, 0.7), (0.7, 12.0)):
        x = low + (high - low) * (xp.arange(200_000) + 0.5) / 200_000
        density = xp.exp(-0.5 * ((x - m) / s) ** 2) / (s * xp.sqrt(2 * xp.pi))
        total += xp.mean(density * f(x, params["phi"])) * (high - low)
    return total


def smooth(x, phi):
    return phi * xp.exp(0.3 * x) + x**2


def kinked(x, phi):
    return xp.maximum(phi * (x - 0.7), 0.0) + xp.abs(x)


def stepped(x, phi):
    return xp.where(x > 0.7, phi * x**2 + 1, xp.sin(x))


WEIGHTS = (1.0, 0.5, -0.3)


def along(f):
    """f of the lanes' weighted sum, which is one normal number."""

    def exact(params):
        w, spread = xp.array(WEIGHTS), xp.exp(params["s"])
        one = dict(m=w @ params["m"], s=xp.log(xp.sqrt(w**2 @ spread**2)), phi=params["phi"])
        return over_grid(one, f)

    def program(p, q):
        x = q.simulate()["x"]
        return f(sum(w * x[i] for i, w in enumerate(WEIGHTS)), ppl.param("phi"))

    return program, exact


def alone(f):
    return lambda p, q: f(q.simulate()["x"], ppl.param("phi")), lambda params: over_grid(params, f)


def each_lane(p, q):
    return xp.sum(stepped(q.simulate()["x"], ppl.param("phi")) * xp.arange(1.0, 4.0))


def each_lane_exact(params):
    lanes = zip(params["m"], params["s"], (1, 2, 3), strict=True)
    return sum(i * over_grid(dict(m=m, s=s, phi=params["phi"]), stepped) for m, s, i in lanes)


# A density that transforms make: a shift by a parameter, an exponential, a power by a parameter; and its entropy -------------------


def transformed():
    base = dist.Normal(xp.zeros(()), 1.0)
    a, b = ppl.param("a"), ppl.param("b")
    chain = [
        dist.transforms.AffineTransform(a, xp.exp(b)),
        dist.transforms.ExpTransform(),
        dist.transforms.AffineTransform(1.0, 2.0),
    ]
    ppl.sample("x", dist.TransformedDistribution(base, chain))


def gamma_like():
    ppl.sample("x", dist.TransformedDistribution(dist.Exponential(0.5), dist.transforms.AffineTransform(1.0, 1.0)))


def transformed_exact(params):
    """x = 1 + 2 exp(a + e^b e): the ELBO under p(x) = 0.5 exp(-(x - 1) / 2)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    y = params["a"] + xp.exp(params["b"]) * nodes
    log_q = -0.5 * nodes**2 - 0.5 * xp.log(2 * xp.pi) - params["b"] - y - xp.log(2.0)
    return (weights / weights.sum()) @ (xp.log(0.5) - xp.exp(y) - log_q)


AVERAGED = tuple({"x": s} for s in (Stratified(2), Stratified(5), Antithetic()))
ONE = dict(m=0.4, s=-0.1, phi=0.8)
LANES = dict(m=xp.array([0.4, -0.2, 0.6]), s=xp.array([-0.1, 0.2, -0.3]), phi=0.8)
TABLE = [
    Case("Normal, smooth", alone(smooth)[0], nothing, normal, ONE, alone(smooth)[1], AVERAGED, n=N),
    Case("Normal, with kinks", alone(kinked)[0], nothing, normal, ONE, alone(kinked)[1], AVERAGED, n=N),
    Case("Normal lanes, coupled", along(smooth)[0], nothing, normal_lanes, LANES, along(smooth)[1], AVERAGED, n=N),
    Case("Normal, a jump", alone(stepped)[0], nothing, normal, ONE, alone(stepped)[1], ({"x": BoundaryReparam((0.7,))},), n=N),
    Case("Normal lanes, a jump in each", each_lane, nothing, normal_lanes, LANES, each_lane_exact, ({"x": BoundaryReparam((0.7,))},), n=N),
    Case("Normal lanes, a jump across", along(stepped)[0], nothing, normal_lanes, LANES, along(stepped)[1],
         ({"x": BoundaryReparam(((WEIGHTS, 0.7),))},), n=N),
    Case("ELBO of a transformed density", elbo, gamma_like, transformed, dict(a=0.2, b=-0.7), transformed_exact, ({"x": Reparam()},), n=N),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "case", "strategies"), rows(TABLE))
def test_mean_gradient(engine, case, strategies):
    check(engine, case, strategies)


def test_normalizing_flow():
    """The density of an autoregressive flow at its own draws is the density that is pushed forward."""
    flow = InverseAutoregressiveTransform(lambda z: (0.3 * xp.concatenate([0 * z[..., :1], z[..., :-1]], -1), 0.1 * xp.ones_like(z)))  # fmt: skip

    def guide():
        base = dist.Normal(ppl.param("m") * xp.ones(2), 1.0).to_event(1)
        ppl.sample("x", dist.TransformedDistribution(base, flow))

    def model():
        ppl.sample("x", dist.Normal(xp.zeros(2), 2.0).to_event(1))

    def exact(params):
        """Gaussian, and linear in the noise: x_0 = e^.1 z_0, x_1 = e^.1 z_1 + .3 z_0."""
        m, s = params["m"], xp.exp(0.1)
        second = s**2 * (1 + m**2) + s**2 * (1 + m**2) + 0.09 * (1 + m**2) + 2 * 0.3 * s * m**2
        entropy = 2 * 0.5 * (1 + xp.log(2 * xp.pi)) + 0.2
        return -second / 8 - xp.log(2 * xp.pi * 4) + entropy

    check(NUMPYRO, Case("flow", elbo, model, guide, dict(m=0.6), exact, ({},), n=20_000), {})


def test_stratified_draws_spread_less_than_independent_ones(engine):
    independent, apart = (
        spread(engine, TABLE[0], {"x": Reparam()})["m"],
        spread(engine, TABLE[0], {"x": Stratified(4)})["m"],
    )
    assert apart < 0.7 * independent / 2


def test_antithetic_draws_cancel_what_is_linear(engine):
    assert spread(engine, Case("x^2", lambda p, q: q.simulate()["x"] ** 2, nothing, normal, dict(m=0.4, s=-0.1), None, ()), {"x": Antithetic()})["m"] < 1e-5  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stratified(1), "Stratified: n must be an int of at least 2, not 1"),
        (lambda: BoundaryReparam(0.7), "surfaces must be a tuple of at least one, such as"),
        (lambda: BoundaryReparam(()), "surfaces must be a tuple of at least one"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ppvi.StrategyError, match=message):
        make()


@pytest.mark.parametrize(
    ("strategy", "family", "message"),
    [
        (Stratified(2), "StudentT", r"StudentT has no inverse of its distribution function, which Stratified\(\) needs"),
        (Antithetic(), "StudentT", r"StudentT has no inverse of its distribution function, which Antithetic\(\) needs"),
        (BoundaryReparam((((1.0, 2.0), 0.7),)), "Normal", r"a surface has 2 weights, which must be as many as the lanes of the site"),
    ],
)  # fmt: skip
def test_sites_that_a_strategy_does_not_fit(engine, strategy, family, message):
    def guide():
        degrees = (4.0,) if family == "StudentT" else ()
        ppl.sample("x", getattr(dist, family)(*degrees, ppl.param("m", 0.1), 1.0))

    bound = engine.vi.objective(lambda p, q: q.simulate()["x"], nothing, guide, strategies={"x": strategy})
    with on(engine), pytest.raises(ppvi.StrategyError, match=message):
        bound.estimate(engine.key(0), {"m": engine.array(0.1)})
