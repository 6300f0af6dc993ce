"""From a model to a Gaussian: against closed forms, quadrature and reference draws."""

import dataclasses
import importlib
import math
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pyro
import pytest
import torch
from numpyro.contrib.control_flow import scan
from scipy.stats import multivariate_normal

import models.posteriors as posteriors
import ppvi
import ppvi.approximate as approximating
import ppvi.engine.minibatches as minibatches
import ppvi.numpyro
import ppvi.pyro
from ppvi._cite import of_fit
from ppvi.approximation import Full, Gaussian, bent, climbs, fitted, lower, mixed, nearest, points_of
from ppvi.approximation.descent import descending, together
from ppvi.approximation.gaussian import Begun
from tests.data import gold_standard, posterior_data
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, on, ppl, xp

RNG = np.random.default_rng(3)
each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
on_pyro_first = pytest.mark.parametrize(
    "engine", [pytest.param(x, id=x.name, marks=[] if x is PYRO else [pytest.mark.slow]) for x in ENGINES]
)
"""Laws of what both engines share: NumPyro compiles each of them for five seconds or more."""


# Log densities of arrays ------------------------------------------------------------------------------------------------------


def gaussian(mean, precision):
    def density(points):
        away = points - mean
        return -0.5 * np.einsum("ni,ij,nj->n", away, precision, away), -away @ precision

    return density


def spread(size, least=1e-4, most=1e4):
    """A covariance in raw units: correlated, with variances that are eight orders of magnitude apart."""
    ways = np.linalg.qr(RNG.normal(size=(size, size)))[0]
    return ways @ np.diag(np.geomspace(least, most, size)) @ ways.T


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_points_have_the_moments_of_a_standard_normal(size):
    points = points_of(Full(size), 8 * size, 0)
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(points.T @ points / len(points), np.eye(size), atol=1e-10)
    assert (points_of(Full(size), 8 * size, 1) != points).any()


def climbed(density, start, **options):
    """The mode above a point."""
    return climbs(density, [start], **options)[0]


@pytest.mark.parametrize("size", [1, 5, 30])
def test_a_gaussian_is_found_exactly(size):
    mean, covariance = 100 * RNG.normal(size=size), spread(size)
    density = gaussian(mean, np.linalg.inv(covariance))
    mode = climbed(density, np.zeros(size))
    found = fitted(density, Begun(mode.point, mode.scale), Full(size), points_of(Full(size), 128, 0))
    sds = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((found.loc - mean) / sds, 0, atol=1e-3)
    np.testing.assert_allclose(
        found.scale @ found.scale.T / np.outer(sds, sds), covariance / np.outer(sds, sds), atol=1e-3
    )
    assert found.settled
    assert mode.concave


def test_the_nearest_gaussian_in_one_dimension():
    """Of a skew density, log p = a x - exp(x): E_q = a m - exp(m + s^2 / 2) + log s is highest at s^2 = 1 / a, and m by its."""
    a = 3.0

    def density(points):
        return (a * points - np.exp(points))[:, 0], a - np.exp(points)

    found = fitted(density, Begun(np.zeros(1), np.ones(1)[:, None]), Full(1), points_of(Full(1), 512, 0))
    assert found.scale[0, 0] ** 2 == pytest.approx(1 / a, rel=2e-2)
    assert found.loc[0] == pytest.approx(np.log(a) - 1 / (2 * a), abs=5e-3)


def test_a_mode_in_a_bent_valley():
    """Rosenbrock's, from where he began."""

    def density(points):
        x, y = points.T
        value = -(100 * (y - x**2) ** 2 + (1 - x) ** 2)
        return value, np.stack([400 * x * (y - x**2) + 2 * (1 - x), -200 * (y - x**2)], -1)

    mode = climbed(density, np.array([-1.2, 1.0]))
    np.testing.assert_allclose(mode.point, 1, atol=1e-4)
    np.testing.assert_allclose(mode.scale @ mode.scale.T, np.linalg.inv([[802.0, -400.0], [-400.0, 200.0]]), rtol=1e-3)


def test_a_saddle_is_said_to_be_one():
    """Where a density rises in one direction for ever, there is no mode."""

    def density(points):
        x, y = points.T
        return x - y**2, np.stack([np.ones(len(points)), -2 * y], -1)

    assert not climbed(density, np.zeros(2), rounds=5).concave


def test_a_cholesky_factor():
    factor = RNG.normal(size=(4, 4))
    np.testing.assert_allclose(lower(factor), np.linalg.cholesky(factor @ factor.T), rtol=1e-8)


# Models -----------------------------------------------------------------------------------------------------------------------

ROWS = np.stack([np.ones(60), RNG.normal(100.0, 15.0, 60), RNG.normal(0.0, 0.01, 60)], -1)
SEEN = ROWS @ np.array([20.0, 0.5, -300.0]) + RNG.normal(0.0, 2.0, 60)


def regression(rows, y):
    """y ~ N(rows beta, 2),  beta ~ N(0, 1000)"""
    beta = ppl.sample("beta", dist.Normal(xp.zeros(3), 1000.0).to_event(1))
    with ppl.plate("rows", len(y)):
        ppl.sample("y", dist.Normal(rows @ beta, 2.0), obs=y)


@pytest.mark.slow
@each_engine
def test_a_regression_in_raw_units(engine):
    """Columns of 1, of about 100 and of about .01, which Adam's default steps do not get to."""
    precision = ROWS.T @ ROWS / 4 + np.eye(3) / 1e6
    mean, sds = np.linalg.solve(precision, ROWS.T @ SEEN / 4), np.sqrt(np.diag(np.linalg.inv(precision)))
    with on(engine):
        fit = engine.vi.approximate(
            regression, engine.key(0), engine.array(np.float32(ROWS)), engine.array(np.float32(SEEN))
        )
        draws = fit.posterior(draws=4000).posterior["beta"].values[0]
    np.testing.assert_allclose((draws.mean(0) - mean) / sds, 0, atol=0.06)
    np.testing.assert_allclose(draws.std(0) / sds, 1, atol=0.06)
    evidence = -0.5 * 60 * np.log(2 * np.pi * 4) - 0.5 * 3 * np.log(1e6) - 0.5 * np.linalg.slogdet(precision)[1]
    evidence -= 0.5 * (SEEN @ SEEN / 4 - mean @ precision @ mean)
    assert fit.approximated.bounds == (pytest.approx(evidence, abs=1e-2),)
    assert "bound" in str(fit)
    assert fit.losses[-1] == pytest.approx(-evidence, abs=1e-2)


POINTS = np.float32(np.concatenate([RNG.normal(-2.0, 0.6, 12), RNG.normal(2.0, 0.6, 8)]))


def mixture(x):
    """share ~ Beta(2, 2),  z_i ~ Bernoulli(share),  x_i ~ N(4 z_i - 2, 0.6)"""
    share = ppl.sample("share", dist.Beta(xp.array(2.0), 2.0))
    with ppl.plate("points", len(x)):
        z = ppl.sample("z", dist.Bernoulli(share))
        ppl.sample("x", dist.Normal(4.0 * z - 2.0, 0.6), obs=x)


@each_engine
def test_discrete_sites_are_summed_out(engine):
    """Against quadrature over the share."""
    grid = np.linspace(1e-4, 1 - 1e-4, 4001)
    near = np.exp(-0.5 * ((POINTS[:, None] - np.array([-2.0, 2.0])) / 0.6) ** 2)
    logs = np.log(grid * (1 - grid)) + np.log((1 - grid)[:, None] * near[:, 0] + grid[:, None] * near[:, 1]).sum(-1)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    mean = weights @ grid
    sd = np.sqrt(weights @ (grid - mean) ** 2)
    with on(engine):
        fit = engine.vi.approximate(mixture, engine.key(0), engine.array(POINTS))
        found = fit.posterior(draws=4000).posterior
        alone = fit.posterior(draws=500, particles=1)
    assert (fit.particles, alone.attrs["particles"]) == (1, 1)  # of even weights, too
    assert abs(float(found["share"].mean()) - mean) < 0.1 * sd
    assert float(found["share"].std()) == pytest.approx(sd, rel=0.1)
    assert found["z"].shape == (1, 4000, 20)


EFFECTS = np.float32([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.float32([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


# Several regions of mass ------------------------------------------------------------------------------------------------------


def normal(loc, scale, bound):
    """A Gaussian that has settled at a bound."""
    return Gaussian(np.array(loc, float), np.diag(scale).astype(float), None, np.array([-bound]), True, 0)


def test_weights_of_gaussians_far_apart():
    """Each has the mass that its bound is the logarithm of, and what has none to speak of is left out."""
    parts = [normal([30, 0], [1, 2], np.log(0.2)), normal([0, 0], [1, 1], np.log(0.8)), normal([0, 30], [1, 1], -2000)]
    with np.errstate(divide="raise"):
        found = mixed(parts, 0)
    np.testing.assert_allclose(found.weights, [0.8, 0.2], atol=1e-8)
    assert [part.loc.tolist() for part in found.parts] == [[0, 0], [30, 0]]
    np.testing.assert_allclose(found.bound, 0, atol=1e-8)


def test_weights_of_gaussians_that_overlap():
    """Parts of a mixture that is the density itself: the bound of each is quadrature of it, and that of the mixture 0."""
    weights, locs, scales = np.array([0.7, 0.3]), np.array([0.0, 2.5]), np.array([1.0, 0.7])
    x = np.linspace(-15, 15, 200_001)
    parts = np.exp(-0.5 * ((x - locs[:, None]) / scales[:, None]) ** 2) / scales[:, None] / np.sqrt(2 * np.pi)
    bounds = (parts * np.log(weights @ parts / parts)).sum(-1) * (x[1] - x[0])
    found = mixed([normal([m], [s], b) for m, s, b in zip(locs, scales, bounds, strict=True)], 0)
    np.testing.assert_allclose(found.weights, weights, atol=0.03)  # of 1,000 draws
    np.testing.assert_allclose(found.bound, 0, atol=0.02)


def test_one_gaussian_twice_is_one():
    found = mixed([normal([1], [2], -3.0), normal([1], [2], -3.0)], 0)
    np.testing.assert_allclose(found.bound, -3)


def test_what_has_not_settled_is_in_no_mixture():
    high, low = (normal([loc], [1], bound) for loc, bound in ((0, 1.0), (30, 0.5)))
    assert len(mixed([high, low], 0).parts) == 2
    assert mixed([high, dataclasses.replace(low, settled=False)], 0).parts == [high]
    alone = mixed([dataclasses.replace(high, settled=False), low], 0)
    assert (len(alone.parts), alone.bound, alone.best.settled) == (1, 1.0, False)


# Windows along bends ----------------------------------------------------------------------------------------------------------


def test_windows_add_up_to_a_constant():
    u = np.linspace(0, 1, 101)[:, None]
    whole = np.exp(-0.5 * (u - np.arange(-40, 41)) ** 2).sum(1)
    np.testing.assert_allclose(whole, np.sqrt(2 * np.pi), rtol=2e-8)


def funnel(points, width=1.0):
    """log N(v; 0, w^2) + sum_i log N(x_i; 0, e^{v}), and its gradient: it has mass 1."""
    v, x = points[:, :1], points[:, 1:]
    scaled = x**2 * np.exp(-v)
    count = x.shape[1]
    values = -0.5 * (v[:, 0] / width) ** 2 - np.log(width) - (scaled.sum(1) + count * v[:, 0]) / 2
    slope = -v[:, 0] / width**2 + (scaled.sum(1) - count) / 2
    return values - (1 + count) * np.log(2 * np.pi) / 2, np.column_stack([slope, -x * np.exp(-v)])


def test_windows_follow_a_funnel():
    """Against what is known of it: the bound is below log 1, is what fresh draws say that it is, and marginals are near."""
    alone = mixed(nearest(funnel, [np.zeros(5)]), 0)
    found = bent(funnel, alone, 500, 0)
    assert alone.bound < -0.4
    assert -0.1 < found.bound < 0
    rng = np.random.default_rng(1)
    chosen = rng.choice(len(found.parts), 20_000, p=found.weights)
    noise = rng.standard_normal((20_000, 5))
    draws = np.stack([found.parts[k].loc + found.parts[k].scale @ e for k, e in zip(chosen, noise, strict=True)])
    (values, _), (below, _) = funnel(draws), found.log_density(draws)
    gaps = values - (below - 5 * np.log(2 * np.pi) / 2)
    np.testing.assert_allclose(
        gaps.mean(), found.bound, atol=4 * gaps.std() / np.sqrt(len(gaps)) + 0.03
    )  # and of 1,000 draws
    np.testing.assert_allclose([draws[:, 0].mean(), draws[:, 0].std()], [0, 1], atol=0.08)
    by_gaussian = alone.best.loc[0], np.linalg.norm(alone.best.scale[0])
    assert by_gaussian[1] < 0.75


def test_the_bound_of_a_part_is_that_of_the_whole_density():
    """Of every part in a window, beside the mean of log p - log q over draws of it."""
    found = bent(funnel, mixed(nearest(funnel, [np.zeros(3)]), 0), 500, 0)
    rng = np.random.default_rng(2)
    assert len(found.parts) > 5
    for part in found.parts:
        draws = part.loc + rng.standard_normal((20_000, 3)) @ part.scale.T
        gaps = funnel(draws)[0] - (part.log_density(draws) - 3 * np.log(2 * np.pi) / 2)
        np.testing.assert_allclose(gaps.mean(), -part.losses[-1], atol=4 * gaps.std() / np.sqrt(20_000) + 0.02)


def test_what_is_a_gaussian_has_no_windows():
    asked = []

    def each(points):
        asked.append(len(points))
        return -0.5 * (points**2).sum(1), -points

    alone = mixed([normal([0.0, 0.0], [1.0, 1.0], np.log(2 * np.pi))], 0)
    assert bent(each, alone, 500, 0) is alone
    assert asked == [256]


def test_what_has_not_settled_in_a_window_is_in_no_mixture():
    """Of a fiftieth of the mass, from where few steps do not lead to the rest: the windows there are higher, and not at a top."""

    def each(points):
        one, other = points, points - np.array([4.0, 0.0, 0.0])
        sizes = np.array([1.0, 0.05, 3.0])
        logs = np.stack([np.log(0.02) - (one**2).sum(1) / 2, np.log(0.98 / 0.15) - ((other / sizes) ** 2).sum(1) / 2])
        whole = np.logaddexp.reduce(logs)
        slopes = np.stack([-one, -other / sizes**2])
        return whole - 1.5 * np.log(2 * np.pi), (np.exp(logs - whole)[..., None] * slopes).sum(0)

    alone = mixed([normal(np.zeros(3), np.ones(3), np.log(0.02))], 0)
    for steps in (3, 10, 500):
        found = bent(each, alone, steps, 0)
        assert all(part.settled for part in found.parts)
        assert found.bound >= alone.bound
    assert found.bound > alone.bound + 0.03


def test_the_density_of_a_mixture():
    """Beside SciPy's, and its gradient beside differences."""
    factor = np.array([[1.0, 0.0], [0.7, 0.5]])
    parts = [normal([1, 2], [1, 2], 0.0), dataclasses.replace(normal([0, 0], [1, 1], -0.3), scale=factor)]
    found = dataclasses.replace(mixed(parts, 0), parts=parts, weights=np.array([0.3, 0.7]))
    points = RNG.normal(size=(7, 2))
    exact = np.logaddexp(
        np.log(0.3) + multivariate_normal([1, 2], np.diag([1.0, 4.0])).logpdf(points),
        np.log(0.7) + multivariate_normal([0, 0], factor @ factor.T).logpdf(points),
    )
    values, slopes = found.log_density(points)
    np.testing.assert_allclose(values - np.log(2 * np.pi), exact)
    step = 1e-6 * np.eye(2)
    ahead, behind = ([found.log_density(points + sign * e)[0] for e in step] for sign in (1, -1))
    np.testing.assert_allclose(slopes, ((np.array(ahead) - behind) / 2e-6).T, rtol=1e-5, atol=1e-8)


COUNTS = np.float32([1, 0, 3, 2, 9, 14, 7, 2])


def overdispersed(k):
    """s ~ Exponential(1),  z_i ~ N(0, 1),  k_i ~ Poisson(exp(1 + s z_i)): non-centred, where the data say much of each."""
    s = ppl.sample("s", dist.Exponential(xp.asarray(1.0)))
    with ppl.plate("rows", len(k)):
        z = ppl.sample("z", dist.Normal(xp.asarray(0.0), 1.0))
        ppl.sample("k", dist.Poisson(xp.exp(1.0 + s * z)), obs=k)


@each_engine
def test_a_bent_posterior_is_a_mixture(engine, tmp_path):
    """Against quadrature: each z_i is summed out on a grid, for every s."""
    s, z = np.linspace(0.02, 8, 800), np.linspace(-8, 8, 2001)
    rates = 1 + s[:, None] * z
    logs = -s
    for k in COUNTS:
        each = np.exp(k * rates - np.exp(rates) - math.lgamma(k + 1) - z**2 / 2)
        logs = logs + np.log(each.sum(1))
    mass = np.exp(logs - logs.max())
    mass /= mass.sum()
    mean = mass @ s
    sd = np.sqrt(mass @ (s - mean) ** 2)
    with on(engine):
        fit = engine.vi.approximate(overdispersed, engine.key(0), engine.array(COUNTS))
        draws = fit.posterior(draws=4000).posterior["s"].values.ravel()
        fit.save(tmp_path)
        again = ppvi.load(tmp_path, overdispersed, engine.array(COUNTS))
    assert len(fit.approximated.weights) > 5
    assert fit.approximated.modes == 1
    assert "in windows along the bends of one" in str(fit)
    assert again.approximated == fit.approximated
    assert "rue2009" in of_fit(fit)
    assert abs(draws.mean() - mean) < 0.1 * sd
    assert draws.std() == pytest.approx(sd, rel=0.1)


def test_sites_in_a_loop():
    """A walk with noise, of which all is Gaussian: beside its posterior by linear algebra."""
    y = np.random.default_rng(4).normal(size=15).cumsum()

    def walk(y):
        def step(before, y):
            z = numpyro.sample("z", numpyro.distributions.Normal(before, 0.7))
            numpyro.deterministic("twice", 2 * z)
            numpyro.sample("y", numpyro.distributions.Normal(z, 0.5), obs=y)
            return z, z

        scan(step, 0.0, y)

    fit = ppvi.numpyro.approximate(walk, jax.random.key(0), y)
    differences = np.eye(15) - np.eye(15, k=-1)
    covariance = np.linalg.inv(differences.T @ differences / 0.49 + np.eye(15) / 0.25)
    mean, sds = covariance @ y / 0.25, np.sqrt(np.diag(covariance))
    draws = fit.posterior(draws=4000).posterior
    assert draws["z"].shape == draws["twice"].shape == (1, 4000, 15)
    assert np.abs((draws["z"].values[0].mean(0) - mean) / sds).max() < 5 / np.sqrt(4000)
    np.testing.assert_allclose(draws["z"].values[0].std(0), sds, rtol=0.08)
    evidence = multivariate_normal(cov=np.linalg.inv(differences.T @ differences) * 0.49 + 0.25 * np.eye(15)).logpdf(y)
    assert fit.approximated.bound == pytest.approx(evidence, abs=1e-3)


def squared(x):
    z = ppl.sample("z", dist.Normal(xp.asarray(0.5), 2.0))
    ppl.sample("x", dist.Normal(z**2, 0.5), obs=x)


@each_engine
def test_a_posterior_with_two_modes(engine):
    """Against quadrature: the mass on either side of 0, and the mean."""
    z = np.linspace(-7, 7, 200_001)
    mass = np.exp(-0.5 * ((z - 0.5) / 2) ** 2 - 2 * (4 - z**2) ** 2)
    mass /= mass.sum()
    with on(engine):
        fit = engine.vi.approximate(squared, engine.key(0), engine.array(4.0))
        draws = fit.posterior(draws=4000).posterior["z"].values.ravel()
    weights = fit.approximated.weights
    np.testing.assert_allclose(sorted(weights), sorted([mass[z > 0].sum(), mass[z < 0].sum()]), atol=0.01)
    assert "a mixture of 2 Gaussians" in str(fit)
    assert fit.approximated.mixed == pytest.approx(-fit.losses[-1])
    assert f"; bound {fit.approximated.mixed:.5g}, those of Gaussians {fit.approximated.bounds[0]:.5g}" in str(fit)
    assert fit.approximated.mixed > fit.approximated.bounds[0] + 0.1
    assert "kool2019" not in of_fit(fit)  # whose strategy the guide would have, were there steps
    np.testing.assert_allclose(draws.mean(), mass @ z, atol=5 * 1.9 / np.sqrt(4000))  # five standard errors
    np.testing.assert_allclose((draws > 0).mean(), mass[z > 0].sum(), atol=5 * 0.5 / np.sqrt(4000))
    exact = np.log((np.exp(-0.5 * ((z - 0.5) / 2) ** 2 - 2 * (4 - z**2) ** 2)).sum() * (z[1] - z[0]) / (2 * np.pi))
    assert exact - 0.02 < -fit.losses[-1] < exact + 1e-3  # log(1 / (2 0.5 2 pi)), the constants of the two normals


@each_engine
def test_a_mixture_goes_on_by_stochastic_gradients(engine):
    x = engine.array(4.0)
    with on(engine):
        fit = engine.vi.approximate(squared, engine.key(0), x)
        after = engine.vi.fit(*fit.objectives, engine.key(1), x, state=fit, num_steps=5, progress=False)
    assert len(after.losses) == len(fit.losses) + 5
    assert np.isfinite(after.losses).all()


def unobserved(x=None):
    z = ppl.sample("z", dist.Normal(xp.asarray(0.0), 1.0))
    ppl.sample("x", dist.Normal(z, 1.0), obs=x)


def weighed():
    ppl.factor("weight", -(ppl.sample("z", dist.Normal(xp.asarray(0.0), 1.0)) ** 2))


def test_samples_of_a_shape_on_numpyro():
    """Three numbers of one site are its `sample_shape`; each is observed once with noise 1, and has the posterior N(y / 2, 1 / 2)."""

    def model(y):
        z = ppl.sample("z", dist.Normal(0.0, 1.0), sample_shape=(3,))
        ppl.sample("y", dist.Normal(z, 1.0).to_event(1), obs=y)

    with on(NUMPYRO):
        y = np.array([1.0, -2.0, 3.0])
        found = ppvi.numpyro.approximate(model, jax.random.key(0), jnp.array(y)).posterior(draws=2000).posterior["z"]
        np.testing.assert_allclose(found.values[0].mean(0), y / 2, atol=6 * np.sqrt(0.5 / 2000))


@on_pyro_first
def test_a_model_that_observes_nothing_is_said_to(engine):
    with on(engine), pytest.warns(UserWarning, match="observes nothing"):
        engine.vi.approximate(unobserved, engine.key(0))
    with on(engine), warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.vi.approximate(weighed, engine.key(0))


def schools(effects, errors):
    mu = ppl.sample("mu", dist.Normal(xp.array(0.0), 5.0))
    tau = ppl.sample("tau", dist.HalfCauchy(xp.array(5.0)))
    with ppl.plate("schools", 8):
        theta = ppl.sample("theta", dist.Normal(mu, tau))
        ppl.sample("y", dist.Normal(theta, errors), obs=effects)


def assert_loads(engine, fit, folder, model, *data):
    """A fit from a file, by its model, draws what the fit draws."""
    fit.save(folder)
    again = ppvi.load(folder, model, *data)
    one, other = (x.posterior(engine.key(5), draws=20).posterior for x in (fit, again))
    assert (str(again), again.particles) == (str(fit), fit.particles)
    assert one.equals(other)


def doubled(x):
    z = ppl.sample("z", dist.Normal(xp.array(0.0), 3.0))
    with ppl.plate("rows", 3):
        ppl.sample("x", dist.Normal(z, 1.0), obs=2.0 * x)


@pytest.mark.slow
@each_engine
def test_a_fit_of_lists_is_loaded_on_lists(engine, tmp_path):
    """Data that a model computes with become arrays there as they do in the fit; what they lack is said alike."""
    with on(engine):
        fit = engine.vi.approximate(doubled, engine.key(0), [0.1, 0.2, 0.3])
        assert_loads(engine, fit, tmp_path, doubled, [0.1, 0.2, 0.3])
        with pytest.raises(ppvi.ProgramError, match="missing a required argument: 'x'"):
            ppvi.load(tmp_path, doubled)
        with pytest.raises(ppvi.ProgramError, match="NaN"):
            ppvi.load(tmp_path, doubled, [0.1, 0.2, math.nan])


@on_pyro_first
def test_a_hierarchical_model_is_tried_non_centred(engine, tmp_path):
    """The funnel of the schools has no Gaussian near it, and the model non-centred has; all sites are among the draws."""
    reference = gold_standard("eight_schools-eight_schools_noncentered", ("mu", "tau", "theta"))
    with on(engine):
        data = engine.array(EFFECTS), engine.array(ERRORS)
        fit = engine.vi.approximate(schools, engine.key(1), *data)
        comparison = ppvi.compare(fit, reference)
        assert_loads(engine, fit, tmp_path, schools, *data)
        with pytest.raises(ppvi.ProgramError, match=r"is of another fit: .*its model"):
            ppvi.load(tmp_path, lambda effects, errors: schools(effects, errors + 1.0), *data)
    assert fit.approximated.version == "with theta non-centred"
    assert len(comparison.marginals) == 10
    assert max(x.wasserstein for x in comparison.marginals) < (0.15 if len(fit.approximated.weights) > 1 else 0.1)


@pytest.mark.slow
@each_engine
def test_a_fit_goes_on_by_stochastic_gradients(engine):
    with on(engine):
        data = engine.array(np.float32(ROWS)), engine.array(np.float32(SEEN))
        fit = engine.vi.approximate(regression, engine.key(0), *data)
        (bound,) = fit.objectives
        later = engine.vi.fit(bound, engine.key(1), *data, state=fit, num_steps=3, optimizer=1e-6, progress=False)
    assert len(later.losses) == len(fit.losses) + 3
    assert abs(later.losses[-1] - fit.losses[-1]) < 1


@each_engine
def test_the_default_precision_stays(engine):
    with on(engine):
        fit = engine.vi.approximate(mixture, engine.key(0), engine.array(POINTS))
        kinds = {str(x.dtype) for x in fit.params.values()} | {str(engine.array(POINTS).dtype)}
    assert all("float32" in kind for kind in kinds)
    assert torch.get_default_dtype() == torch.float32
    assert jnp.zeros(()).dtype == jnp.float32


def one(x):
    z = ppl.sample("z", dist.Normal(xp.array(0.0), 1.0))
    ppl.sample("x", dist.Normal(z, 1.0).expand([len(x)]).to_event(1), obs=x)


def test_data_that_a_program_in_single_precision_holds():
    """NumPyro's MCMC compiles the data in; JAX would then pass this very array of doubles on in single precision."""
    x = np.asarray(POINTS, np.float64)
    with on(NUMPYRO):
        NUMPYRO.vi.nuts(one, NUMPYRO.key(0), x, num_warmup=5, num_samples=5, num_chains=1, progress=False)
        fit = NUMPYRO.vi.approximate(one, NUMPYRO.key(0), x)
    assert abs(float(fit.posterior().posterior["z"].mean()) - x.sum() / (len(x) + 1)) < 0.1


@pytest.mark.slow
@each_engine
def test_equal_keys_give_equal_fits(engine):
    with on(engine):
        one, other, third = (engine.vi.approximate(mixture, engine.key(i), engine.array(POINTS)) for i in (0, 0, 1))
    assert one.approximated == other.approximated
    np.testing.assert_array_equal(one.losses, other.losses)
    assert abs(one.losses[-1] - third.losses[-1]) < 0.05


# What it is not for -----------------------------------------------------------------------------------------------------------


def tuned(x):
    scale = ppl.param("scale", xp.array(1.0))
    z = ppl.sample("z", dist.Normal(xp.array(0.0), 1.0))
    ppl.sample("x", dist.Normal(z, scale), obs=x)


def nested(x):
    a = ppl.sample("a", dist.Uniform(xp.array(0.0), 1.0))
    b = ppl.sample("b", dist.Uniform(xp.array(0.0), 1 - a))
    ppl.sample("x", dist.Normal(a + b, 1.0), obs=x)


def counted(x):
    z = ppl.sample("z", dist.Bernoulli(xp.array(0.5)))
    ppl.sample("x", dist.Normal(1.0 * z, 1.0), obs=x)


def huge(x):
    z = ppl.sample("z", dist.Normal(xp.zeros(100_001), 1.0).to_event(1))
    ppl.sample("x", dist.Normal(z.sum(), 1.0), obs=x)


def empty(x):
    ppl.sample("x", dist.Normal(xp.array(0.0), 1.0), obs=x)


def nowhere(x):
    z = ppl.sample("z", dist.Normal(xp.array(0.0), 1.0))
    ppl.factor("never", -xp.exp(z) * float("inf"))
    ppl.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (tuned, "parameters 'scale'"),
        (nested, "support of site 'b' moves"),
        (counted, "all discrete"),
        (huge, "100,001 dimensions"),
        (empty, "no latent site"),
        (nowhere, "not finite at any of the starts"),
    ],
)
@each_engine
def test_what_it_is_not_for(engine, model, said):
    with on(engine), pytest.raises(ppvi.ProgramError, match=said):
        engine.vi.approximate(model, engine.key(0), engine.array(np.float32(0.5)))


@each_engine
def test_mistakes_are_told(engine):
    with on(engine):
        data = engine.array(POINTS)
        bound = engine.vi.objective(ppvi.objectives.elbo, mixture, mixture)
        with pytest.raises(ppvi.ProgramError, match="the first argument is a model"):
            engine.vi.approximate(bound, engine.key(0), data)
        with pytest.raises(ppvi.ProgramError, match="num_starts must be an int of at least 1"):
            engine.vi.approximate(mixture, engine.key(0), data, num_starts=0)
        gaps = engine.array(np.where(POINTS > 2, np.float32(np.nan), POINTS))
        with pytest.raises(ppvi.ProgramError, match="NaN"):
            engine.vi.approximate(mixture, engine.key(0), gaps)


def cut(x):
    """N(1, .3) where it is below 1.2, which no support says."""
    z = ppl.sample("z", dist.Normal(xp.array(1.0), 0.3))
    ppl.factor("below", xp.where(z < 1.2, 0.0 * x, -float("inf")))


@pytest.mark.slow
@each_engine
def test_a_bound_without_a_top_is_said(engine):
    with on(engine):
        with pytest.warns(UserWarning, match="density is zero, or not a number"):
            fit = engine.vi.approximate(cut, engine.key(0), engine.array(np.float32(0.5)))
        assert not fit.approximated.settled
        assert fit.posterior(draws=50).attrs["converged"].startswith("no")


@pytest.mark.slow
@each_engine
def test_a_fit_that_is_solved_has_settled(engine):
    with on(engine):
        fit = engine.vi.approximate(mixture, engine.key(0), engine.array(POINTS))
        data = fit.posterior(draws=100)
        assert "falling" not in str(fit)
        assert data.attrs["converged"].startswith("yes")
        assert ppvi.compare(fit, data).moving == 0
        assert "less than 0" not in str(ppvi.compare(fit, data))


def subsampled(x):
    mu = ppl.sample("points", dist.Normal(xp.array(0.0), 10.0))
    with ppl.plate("rows", 20, subsample_size=5) as i:
        ppl.sample("x", dist.Normal(mu, 1.0), obs=x[i])


@each_engine
def test_plates_are_of_all_their_rows(engine):
    """And a site may have any name."""
    with on(engine):
        fit = engine.vi.approximate(subsampled, engine.key(0), engine.array(POINTS))
        draws = fit.posterior(draws=2000).posterior["points"]
    precision = 20 + 1 / 100
    assert float(draws.mean()) == pytest.approx(POINTS.sum() / precision, abs=0.02)
    assert float(draws.std()) == pytest.approx(precision**-0.5, rel=0.1)


def subsampled_effects(x):
    mu = ppl.sample("mu", dist.Normal(xp.array(0.0), 10.0))
    with ppl.plate("rows", 20, subsample_size=5) as i:
        z = ppl.sample("z", dist.Normal(mu, 1.0))
        ppl.sample("x", dist.Normal(z, 1.0), obs=x[i])


@on_pyro_first
def test_sites_in_a_plate_that_states_a_minibatch(engine, tmp_path):
    """x_i ~ N(mu, sqrt 2), so that mu has precision 20 / 2 + 1 / 100; z_i given mu is half way to x_i."""
    with on(engine):
        fit = engine.vi.approximate(subsampled_effects, engine.key(0), engine.array(POINTS))
        draws = fit.posterior(draws=2000).posterior
        assert_loads(engine, fit, tmp_path, subsampled_effects, engine.array(POINTS))
    precision = 10 + 1 / 100
    mean = POINTS.sum() / 2 / precision
    assert float(draws["mu"].mean()) == pytest.approx(mean, abs=0.04)
    np.testing.assert_allclose(draws["z"].values[0].mean(0), (mean + POINTS) / 2, atol=0.08)


@pytest.mark.slow
@on_pyro_first
def test_missing_observations_are_imputed_as_written(engine):
    """A site that is partly seen has no non-centred form."""
    seen = torch.arange(20) < 15 if engine is PYRO else jnp.arange(20) < 15

    def imputed(x):
        mu = ppl.sample("mu", dist.Normal(xp.array(0.0), 10.0))
        with ppl.plate("rows", 20):
            ppl.sample("x", dist.Normal(mu, 1.0), obs=x, obs_mask=seen)

    said = pytest.raises((ppvi.ProgramError, UserWarning), match="not to be believed")
    with on(engine), warnings.catch_warnings(), said:
        warnings.simplefilter("error", UserWarning)
        engine.vi.approximate(imputed, engine.key(0), engine.array(POINTS), num_steps=50)


def flat(x):
    """x ~ N(mu, s),  mu and log s flat"""
    mu = ppl.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
    log_s = ppl.sample("log_s", dist.ImproperUniform(dist.constraints.real, (), ()))
    with ppl.plate("rows", len(x)):
        ppl.sample("x", dist.Normal(mu, xp.exp(log_s)), obs=x)


@each_engine
def test_flat_priors(engine):
    """mu is a t distribution of 19 degrees of freedom about the mean; (n - 1) S^2 / s^2 is chi squared."""
    with on(engine):
        fit = engine.vi.approximate(flat, engine.key(0), engine.array(POINTS))
        draws = fit.posterior(draws=4000).posterior
    spread = float(POINTS.std(ddof=1))
    assert float(draws["mu"].mean()) == pytest.approx(float(POINTS.mean()), abs=0.05 * spread)
    assert float(draws["mu"].std()) == pytest.approx(spread / 20**0.5 * (19 / 17) ** 0.5, rel=0.07)
    assert float((19 * spread**2 / np.exp(2 * draws["log_s"])).mean()) == pytest.approx(19, rel=0.05)


def vague(x):
    """Two parameters of which only the sum is seen."""
    a = ppl.sample("a", dist.ImproperUniform(dist.constraints.real, (), ()))
    b = ppl.sample("b", dist.ImproperUniform(dist.constraints.real, (), ()))
    ppl.sample("x", dist.Normal(a + b, 1.0), obs=x)


@pytest.mark.slow
@each_engine
def test_an_improper_posterior_is_said_to_be_none(engine):
    said = pytest.raises((ppvi.ProgramError, UserWarning), match="no posterior")
    with on(engine), warnings.catch_warnings(), said:
        warnings.simplefilter("error", UserWarning)
        engine.vi.approximate(vague, engine.key(0), engine.array(np.float32(0.5)))


def on_a_simplex(x):
    """shares ~ Dirichlet(1, 2, 3),  x_i ~ Categorical(shares)"""
    shares = ppl.sample("shares", dist.Dirichlet(xp.array([1.0, 2.0, 3.0])))
    with ppl.plate("rows", len(x)):
        ppl.sample("x", dist.Categorical(shares), obs=x)


@pytest.mark.slow
@each_engine
def test_a_posterior_on_a_simplex(engine):
    """It is Dirichlet(1 + 10, 2 + 20, 3 + 5)."""
    counts = np.array([10, 20, 5])
    with on(engine):
        fit = engine.vi.approximate(on_a_simplex, engine.key(0), engine.array(np.repeat(np.arange(3), counts)))
        draws = fit.posterior(draws=4000).posterior["shares"].values[0]
    found = counts + np.array([1, 2, 3])
    mean = found / found.sum()
    sds = np.sqrt(mean * (1 - mean) / (found.sum() + 1))
    np.testing.assert_allclose((draws.mean(0) - mean) / sds, 0, atol=0.08)
    np.testing.assert_allclose(draws.std(0) / sds, 1, atol=0.08)


def in_order(x):
    """mu_1 < mu_2 flat,  x_i ~ N(mu_i, 0.1), far apart for its noise"""
    mu = ppl.sample("mu", dist.ImproperUniform(dist.constraints.ordered_vector, (), (2,)))
    ppl.sample("x", dist.Normal(mu, 0.1).to_event(1), obs=x)


def test_a_posterior_of_ordered_numbers():
    """Of NumPyro's, whose order is a support; N(x, 0.1) where that is far from the border."""
    with on(NUMPYRO):
        fit = NUMPYRO.vi.approximate(in_order, NUMPYRO.key(0), NUMPYRO.array(np.float32([-1.0, 1.0])))
        draws = fit.posterior(draws=4000).posterior["mu"].values[0]
    np.testing.assert_allclose(draws.mean(0), [-1, 1], atol=0.01)
    np.testing.assert_allclose(draws.std(0), 0.1, rtol=0.07)


@pytest.mark.slow
@each_engine
def test_why_a_site_was_not_tried_non_centred(engine, monkeypatch):
    """The report names the site, and what the library says."""

    def refusing(model, names):
        def refused(*args):
            raise ValueError(f"no {names[0]} here")

        return refused

    guides = importlib.import_module(f"{engine.vi.__name__}._approximate")
    monkeypatch.setattr(guides, "GUIDES", dataclasses.replace(guides.GUIDES, noncentred=refusing))
    with on(engine), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fit = engine.vi.approximate(schools, engine.key(1), engine.array(EFFECTS), engine.array(ERRORS), num_steps=5)
    assert fit.approximated.untried == ("theta (ValueError: no theta here)",)
    assert "not tried non-centred: theta" in str(fit)


@pytest.mark.slow
@each_engine
def test_a_fit_survives_pickling(engine):
    with on(engine):
        fit = engine.vi.approximate(mixture, engine.key(0), engine.array(POINTS))
        other = pickle.loads(pickle.dumps(fit))
        one, same = (x.posterior(draws=20, log_likelihood=False).posterior["share"].values for x in (fit, other))
    np.testing.assert_array_equal(one, same)


def test_starts_go_down_side_by_side():
    """As each of them alone, one of them from where there is nothing."""

    def losses(points):
        x, y = points.T
        value = np.where(x > 9, np.inf, 100 * (y - x**2) ** 2 + (1 - x) ** 2)
        return value, np.stack([400 * x * (x**2 - y) + 2 * (x - 1), 200 * (y - x**2)], -1)

    starts = [np.array(x) for x in ([-1.2, 1.0], [3.0, -4.0], [10.0, 0.0])]
    found = together([descending(x) for x in starts], losses)
    alone = [together([descending(x)], losses)[0] for x in starts]
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one.losses, other.losses)
    np.testing.assert_allclose([x.point for x in found[:2]], 1, atol=1e-3)
    assert [x.settled for x in found] == [True, True, False]
    assert (np.diff(found[0].losses) < 0).all()


@pytest.mark.slow
def test_what_a_pyro_program_closes_over_is_doubled():
    """Columns, buffers and a prior that were made before, in products of matrices with double numbers."""
    rows, y = torch.tensor(ROWS, dtype=torch.float32), torch.tensor(SEEN, dtype=torch.float32)
    prior = pyro.distributions.MultivariateNormal(torch.zeros(3), 1e6 * torch.eye(3))

    def model(y):
        beta = pyro.sample("beta", prior)
        line = torch.zeros(60, dtype=torch.float32)
        line[:] = rows @ beta  # which is a single number again, as PyTorch has it
        with pyro.plate("rows", 60):
            pyro.sample("y", pyro.distributions.Normal(rows @ beta + 0 * line, 2.0), obs=y)

    with on(PYRO):
        fit = PYRO.vi.approximate(model, 0, y)
        # The Gaussian's own draws: what is written in place runs one draw at a time, and 20 particles of each for 80 seconds.
        found = fit.posterior(draws=1000, particles=1, log_likelihood=False).posterior["beta"].values[0]
    precision = ROWS.T @ ROWS / 4 + np.eye(3) / 1e6
    mean, sds = np.linalg.solve(precision, ROWS.T @ SEEN / 4), np.sqrt(np.diag(np.linalg.inv(precision)))
    np.testing.assert_allclose((found.mean(0) - mean) / sds, 0, atol=0.15)


def test_a_module_with_parameters_is_refused_by_name():
    net = torch.nn.Linear(3, 1)

    def model(rows, y):
        pyro.module("net", net)
        scale = pyro.sample("scale", pyro.distributions.HalfNormal(1.0))
        pyro.sample("y", pyro.distributions.Normal(net(rows)[:, 0], scale).to_event(1), obs=y)

    with on(PYRO), pytest.raises(ppvi.ProgramError, match=r"parameters 'net"):
        PYRO.vi.approximate(model, 0, torch.tensor(ROWS, dtype=torch.float32), torch.tensor(SEEN, dtype=torch.float32))


# Real posteriors --------------------------------------------------------------------------------------------------------------

FAST = {"kidiq-kidscore_interaction"}


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[] if x in FAST else [pytest.mark.slow]) for x in posteriors.MODELS]
)
def test_real_posteriors(name):
    """Default settings, beside 10,000 reference draws."""
    data, reference = posterior_data(name), gold_standard(name)
    fit = ppvi.numpyro.approximate(posteriors.MODELS[name], jax.random.key(0), **data)
    comparison = ppvi.compare(fit, reference)
    assert max(x.wasserstein for x in comparison.marginals) < (0.15 if len(fit.approximated.weights) > 1 else 0.1)


# Pyro's handlers ----------------------------------------------------------------------------------------------------------------


def test_a_site_that_is_reparametrised_is_among_the_draws():
    model = pyro.poutine.reparam(schools, config={"theta": pyro.infer.reparam.LocScaleReparam(0.0)})
    with on(PYRO):
        guide = pyro.infer.autoguide.AutoNormal(model)
        bound = PYRO.vi.objective(ppvi.objectives.elbo, model, guide)
        data = torch.tensor(EFFECTS), torch.tensor(ERRORS)
        found = PYRO.vi.posterior(bound, 0, bound.init(0, *data), *data, draws=50).posterior
    made = found["mu"] + found["tau"] * found["theta_decentered"]
    np.testing.assert_allclose(found["theta"].values, made.transpose(*found["theta"].dims[:2], ...).values, rtol=1e-5)


# Many rows --------------------------------------------------------------------------------------------------------------------

MANY = 4000
COLUMNS = np.float32(RNG.normal(size=(MANY, 4)) * [1.0, 5.0, 0.1, 1.0] + [0, 0, 0, 2])
RESULTS = np.float32(COLUMNS @ [1.0, -0.5, 3.0, 0.0] + RNG.normal(0.0, 2.0, MANY))


@pytest.mark.parametrize("count", [None, 50])
@each_engine
def test_many_rows(engine, count, monkeypatch):
    """Few points for a density that costs much, and fewer where the plate states a minibatch: of a part of the rows. All rows
    decide in the end, against the closed form."""
    monkeypatch.setattr(minibatches, "FEW", 400)
    monkeypatch.setattr(minibatches, "MANY", 2000)
    monkeypatch.setattr(approximating, "COSTLY", 10_000)
    asked = {}
    each = approximating.LogJoint.each

    def counting(density, points):
        asked[density.model] = asked.get(density.model, 0) + len(points)
        return each(density, points)

    monkeypatch.setattr(approximating.LogJoint, "each", counting)

    def model(rows, y):
        beta = ppl.sample("beta", dist.Normal(xp.zeros(4), 10.0).to_event(1))
        with ppl.plate("rows", MANY, subsample_size=count) as i:
            ppl.sample("y", dist.Normal(rows[i] @ beta, 2.0), obs=y[i])

    precision = COLUMNS.T.astype(float) @ COLUMNS / 4 + np.eye(4) / 100
    mean, sds = np.linalg.solve(precision, COLUMNS.T @ RESULTS / 4), np.sqrt(np.diag(np.linalg.inv(precision)))
    with on(engine):
        fit = engine.vi.approximate(model, engine.key(0), engine.array(COLUMNS), engine.array(RESULTS))
        draws = fit.posterior(draws=4000, log_likelihood=False).posterior["beta"].values[0]
    np.testing.assert_allclose((draws.mean(0) - mean) / sds, 0, atol=0.06)
    np.testing.assert_allclose(draws.std(0) / sds, 1, atol=0.06)
    assert fit.particles == 1  # all weights are one
    *_, whole = asked.values()
    assert (len(asked), whole < 800) == ((1, False) if count is None else (2, True))


@each_engine
def test_rows_with_latent_sites_of_their_own_are_all_fitted(engine, monkeypatch):
    """A minibatch has fewer sites than the posterior."""
    monkeypatch.setattr(minibatches, "FEW", 4)
    monkeypatch.setattr(minibatches, "MANY", 8)
    monkeypatch.setattr(approximating, "COSTLY", 8)
    x = np.linspace(-1, 1, 8, dtype=np.float32)

    def model(x):
        with ppl.plate("rows", 8, subsample_size=2) as i:
            z = ppl.sample("z", dist.Normal(xp.array(0.0), 1.0))
            ppl.sample("x", dist.Normal(z, 1.0), obs=x[i])

    with on(engine):
        fit = engine.vi.approximate(model, engine.key(0), engine.array(x))
        draws = fit.posterior(draws=4000).posterior["z"].values[0]
    np.testing.assert_allclose(draws.mean(0), x / 2, atol=5 * np.sqrt(0.5 / 4000))
    np.testing.assert_allclose(draws.std(0), np.sqrt(0.5), rtol=0.06)
