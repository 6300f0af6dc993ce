"""Pathwise strategies: several quantiles at once, jumps at known surfaces, densities made by transforms; by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import transforms
from numpyro.distributions.flows import InverseAutoregressiveTransform

import ppvi
import ppvi.numpyro as vi
from ppvi import Reparam
from ppvi.objectives import elbo
from ppvi.strategies import Antithetic, BoundaryReparam, Stratified
from tests.laws.cases import Case, nothing, rows
from tests.laws.sampling import check, moments

N = 100_000


def normal():
    numpyro.sample("x", dist.Normal(numpyro.param("m"), jnp.exp(numpyro.param("s"))))


def normal_lanes():
    with numpyro.plate("lanes", 3):
        numpyro.sample("x", dist.Normal(numpyro.param("m"), jnp.exp(numpyro.param("s"))))


def over_grid(params, f):
    """E f(x, phi) for a normal x, on both sides of a jump at 0.7."""
    m, s = params["m"], jnp.exp(params["s"])
    total = 0.0
    for low, high in ((-12.0, 0.7), (0.7, 12.0)):
        x = low + (high - low) * (jnp.arange(200_000) + 0.5) / 200_000
        density = jnp.exp(-0.5 * ((x - m) / s) ** 2) / (s * jnp.sqrt(2 * jnp.pi))
        total += jnp.mean(density * f(x, params["phi"])) * (high - low)
    return total


def smooth(x, phi):
    return phi * jnp.exp(0.3 * x) + x**2


def kinked(x, phi):
    return jnp.maximum(phi * (x - 0.7), 0.0) + jnp.abs(x)


def stepped(x, phi):
    return jnp.where(x > 0.7, phi * x**2 + 1, jnp.sin(x))


WEIGHTS = (1.0, 0.5, -0.3)


def along(f):
    """f of the lanes' weighted sum, which is one normal number."""

    def exact(params):
        w, spread = jnp.array(WEIGHTS), jnp.exp(params["s"])
        one = dict(m=w @ params["m"], s=jnp.log(jnp.sqrt(w**2 @ spread**2)), phi=params["phi"])
        return over_grid(one, f)

    def program(p, q):
        x = q.simulate()["x"]
        return f(sum(w * x[i] for i, w in enumerate(WEIGHTS)), numpyro.param("phi"))

    return program, exact


def alone(f):
    return lambda p, q: f(q.simulate()["x"], numpyro.param("phi")), lambda params: over_grid(params, f)


def each_lane(p, q):
    return jnp.sum(stepped(q.simulate()["x"], numpyro.param("phi")) * jnp.arange(1.0, 4.0))


def each_lane_exact(params):
    lanes = zip(params["m"], params["s"], (1, 2, 3), strict=True)
    return sum(i * over_grid(dict(m=m, s=s, phi=params["phi"]), stepped) for m, s, i in lanes)


# A density that transforms make: a shift by a parameter, an exponential, a power by a parameter; and its entropy -------------------


def transformed():
    base = dist.Normal(jnp.zeros(()), 1.0)
    a, b = numpyro.param("a"), numpyro.param("b")
    chain = [transforms.AffineTransform(a, jnp.exp(b)), transforms.ExpTransform(), transforms.AffineTransform(1.0, 2.0)]
    numpyro.sample("x", dist.TransformedDistribution(base, chain))


def gamma_like():
    numpyro.sample("x", dist.TransformedDistribution(dist.Exponential(0.5), transforms.AffineTransform(1.0, 1.0)))


def transformed_exact(params):
    """x = 1 + 2 exp(a + e^b e): the ELBO under p(x) = 0.5 exp(-(x - 1) / 2)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    y = params["a"] + jnp.exp(params["b"]) * nodes
    log_q = -0.5 * nodes**2 - 0.5 * jnp.log(2 * jnp.pi) - params["b"] - y - jnp.log(2.0)
    return (weights / weights.sum()) @ (jnp.log(0.5) - jnp.exp(y) - log_q)


AVERAGED = tuple({"x": s} for s in (Stratified(2), Stratified(5), Antithetic()))
ONE = dict(m=0.4, s=-0.1, phi=0.8)
LANES = dict(m=jnp.array([0.4, -0.2, 0.6]), s=jnp.array([-0.1, 0.2, -0.3]), phi=0.8)
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


@pytest.mark.parametrize(("case", "strategies"), rows(TABLE))
def test_mean_gradient(case, strategies):
    check(case, strategies)


def test_normalizing_flow():
    """The density of an autoregressive flow at its own draws is the density that is pushed forward."""
    flow = InverseAutoregressiveTransform(lambda z: (0.3 * jnp.concatenate([0 * z[..., :1], z[..., :-1]], -1), 0.1 * jnp.ones_like(z)))  # fmt: skip

    def guide():
        base = dist.Normal(numpyro.param("m") * jnp.ones(2), 1.0).to_event(1)
        numpyro.sample("x", dist.TransformedDistribution(base, flow))

    def model():
        numpyro.sample("x", dist.Normal(jnp.zeros(2), 2.0).to_event(1))

    def exact(params):
        """Gaussian, and linear in the noise: x_0 = e^.1 z_0, x_1 = e^.1 z_1 + .3 z_0."""
        m, s = params["m"], jnp.exp(0.1)
        second = s**2 * (1 + m**2) + s**2 * (1 + m**2) + 0.09 * (1 + m**2) + 2 * 0.3 * s * m**2
        entropy = 2 * 0.5 * (1 + jnp.log(2 * jnp.pi)) + 0.2
        return -second / 8 - jnp.log(2 * jnp.pi * 4) + entropy

    check(Case("flow", elbo, model, guide, dict(m=0.6), exact, ({},), n=20_000), {})


def spread(case, strategy):
    objective = vi.objective(case.program, case.model, case.guide, strategies={"x": strategy})
    return moments(objective, {k: jnp.asarray(v, jnp.float32) for k, v in case.params.items()}, 20_000)[1][1]["m"]


def test_stratified_draws_spread_less_than_independent_ones():
    independent, apart = spread(TABLE[0], Reparam()), spread(TABLE[0], Stratified(4))
    assert apart < 0.7 * independent / 2


def test_antithetic_draws_cancel_what_is_linear():
    assert spread(Case("x^2", lambda p, q: q.simulate()["x"] ** 2, nothing, normal, dict(m=0.4, s=-0.1), None, ()), Antithetic()) < 1e-5  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stratified(1), "Stratified: n must be an int of at least 2, not 1"),
        (lambda: BoundaryReparam(0.7), "surfaces must be a tuple of at least one, not 0.7"),
        (lambda: BoundaryReparam(()), "surfaces must be a tuple of at least one"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ppvi.StrategyError, match=message):
        make()


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Stratified(2), r"StudentT has no inverse of its distribution function, which Stratified\(\) needs"),
        (Antithetic(), r"StudentT has no inverse of its distribution function, which Antithetic\(\) needs"),
        (BoundaryReparam((((1.0, 2.0), 0.7),)), r"a surface has 2 weights, which must be as many as the lanes of the site"),
    ],
)  # fmt: skip
def test_sites_that_a_strategy_does_not_fit(strategy, message):
    def guide():
        numpyro.sample("x", dist.StudentT(4.0, numpyro.param("m", 0.1), 1.0))

    bound = vi.objective(lambda p, q: q.simulate()["x"], nothing, guide, strategies={"x": strategy})
    with pytest.raises(ppvi.StrategyError, match=message):
        bound.estimate(jax.random.key(0), {"m": jnp.array(0.1)})
