"""Gaussians of many dimensions: against closed forms, and draws that memory suffices for."""

import numpy as np
import pytest

import ppvi.approximation.curvature as by_curvature
from ppvi.approximation import LowRank, fitted, nearest, points_of
from ppvi.approximation.gaussian import Begun
from ppvi.engine import memory
from ppvi.engine.memory import abreast
from tests.engines import ENGINES, dist, on, ppl, xp

RNG = np.random.default_rng(5)
each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


def covariance(gaussian):
    if gaussian.rank is None:
        return gaussian.scale @ gaussian.scale.T
    inner = np.eye(len(gaussian.loc)) + gaussian.factor @ gaussian.factor.T
    return inner * np.outer(gaussian.scale, gaussian.scale)


def gaussian(mean, precision):
    def each(points):
        away = points - mean
        slopes = -away @ precision
        return 0.5 * (away * slopes).sum(1), slopes

    return each


def test_a_gaussian_in_raw_units_is_found_exactly():
    """Scales of four orders of magnitude, and correlations of up to .99."""
    size = 310
    sizes = np.geomspace(1e-2, 1e2, size)
    inner = 0.9 ** np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    mean, truth = 3 * sizes * RNG.normal(size=size), inner * np.outer(sizes, sizes)
    (one,) = nearest(gaussian(mean, np.linalg.inv(truth)), [np.zeros(size)])
    np.testing.assert_allclose((one.loc - mean) / sizes, 0, atol=1e-2)
    np.testing.assert_allclose(covariance(one) / np.outer(sizes, sizes), inner, atol=2e-2)
    assert one.settled
    entropy = size * (1 + np.log(2 * np.pi)) / 2 + np.linalg.slogdet(truth)[1] / 2
    assert -one.losses[-1] == pytest.approx(entropy - size / 2, abs=0.1)


def test_a_diagonal_and_some_directions(monkeypatch):
    """As those of a hierarchical model are: each coordinate with a noise of its own, and three that all share."""
    monkeypatch.setattr(by_curvature, "DENSE", 100)
    size = 400
    own, ways = np.geomspace(0.1, 10, size), RNG.normal(size=(size, 3))
    truth = (np.eye(size) + ways @ ways.T) * np.outer(own, own)
    (one,) = nearest(gaussian(np.ones(size), np.linalg.inv(truth)), [np.zeros(size)])
    sds = np.sqrt(np.diag(truth))
    np.testing.assert_allclose((one.loc - 1) / sds, 0, atol=0.02)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance(one))) / sds, 1, atol=0.15)
    correlations = covariance(one) / np.outer(sds, sds) - truth / np.outer(sds, sds)
    assert np.sqrt((correlations**2).mean()) < 0.05
    assert one.factor.shape[1] < by_curvature.RANK


@pytest.mark.parametrize("dense", [2000, 100], ids=["full", "low-rank"])
def test_the_nearest_gaussian_of_skew_marginals(dense, monkeypatch):
    """log p = sum a x - exp(x), of which the nearest has variance 1 / a and mean log a - 1 / (2 a)."""
    monkeypatch.setattr(by_curvature, "DENSE", dense)
    a = np.geomspace(1, 9, 320)
    (one,) = nearest(lambda x: ((a * x - np.exp(x)).sum(1), a - np.exp(x)), [np.zeros(320)])
    np.testing.assert_allclose(np.diag(covariance(one)) * a, 1, atol=0.25)
    assert abs((np.diag(covariance(one)) * a).mean() - 1) < 0.03
    np.testing.assert_allclose((one.loc - np.log(a) + 0.5 / a) * np.sqrt(a), 0, atol=0.2)


def test_modes_that_are_apart_are_two():
    """Of log p = log(N(5, 1) + N(-5, 1) / 2) of every coordinate at once."""

    def each(points):
        near, far = (-0.5 * ((points - c) ** 2).sum(1) for c in (5, -5))
        both = np.logaddexp(near, far - np.log(2))
        share = np.exp(near - both)[:, None]
        return both, -(points - 5) * share - (points + 5) * (1 - share)

    starts = [np.full(310, c) for c in (3.0, -3.0, 4.0)]
    one, other = nearest(each, starts)
    assert one.loc == pytest.approx(np.full(310, 5), abs=0.05)
    assert other.loc == pytest.approx(np.full(310, -5), abs=0.05)
    assert other.losses[-1] - one.losses[-1] == pytest.approx(np.log(2), abs=0.05)


def test_the_gradient_of_a_family():
    """By central differences, of a bound over few points."""
    family = LowRank(RNG.normal(size=(5, 2)))
    points, precision = points_of(family, 16, 0), np.diag(np.arange(1.0, 6))
    density, x = gaussian(np.ones(5), precision), 0.3 * RNG.normal(size=family.size)

    def bound(x):
        values, slopes = density(family.draws(x, points))
        log_det, slope = family.bound(x, points, slopes)
        return values.mean() + log_det, slope

    for i, step in enumerate(1e-5 * np.eye(family.size)):
        assert bound(x)[1][i] == pytest.approx((bound(x + step)[0] - bound(x - step)[0]) / 2e-5, abs=1e-6)
    _, log_det = np.linalg.slogdet(covariance(fitted_at(family, x)))
    assert family.bound(x, points, 0 * points[:, 2:])[0] == pytest.approx(log_det / 2)


def fitted_at(family, x):
    """The Gaussian of a vector."""
    loc, scale, factor = family.scaled(x, np.ones(family.dimension))
    return fitted(
        lambda z: (0 * z[:, 0], 0 * z), Begun(loc, scale), LowRank(factor), points_of(family, 16, 0), num_steps=0
    )


@pytest.mark.parametrize(("joint", "size"), [(0, 500), (3, 500)])
def test_points_of_many_dimensions_have_variances_of_one(joint, size):
    points = points_of(LowRank(np.zeros((size, joint))), 128, 0)
    assert points.shape == (128, size + joint)
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose((points**2).mean(0), 1, rtol=1e-10)
    np.testing.assert_allclose(points[:, :joint].T @ points / 128, np.eye(joint, size + joint), atol=1e-10)


# Models -----------------------------------------------------------------------------------------------------------------------

GROUPS = 3 + 1.5 * RNG.standard_normal(360) + RNG.standard_normal((4, 360))


def groups(y):
    """m ~ N(0, 10), z_g ~ N(m, 1.5), y_ig ~ N(z_g, 1)."""
    m = ppl.sample("m", dist.Normal(xp.array(0.0), 10.0))
    with ppl.plate("groups", y.shape[1], dim=-1):
        z = ppl.sample("z", dist.Normal(m, 1.5))
        with ppl.plate("rows", y.shape[0], dim=-2):
            ppl.sample("y", dist.Normal(z, 1.0), obs=y)


FULL = [pytest.param(x, 2000, id=f"{x.name}-full", marks=pytest.mark.slow) for x in ENGINES]
LOW_RANK = [pytest.param(x, 100, id=f"{x.name}-low-rank") for x in ENGINES]


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "dense"), FULL + LOW_RANK)
def test_a_hierarchical_model(engine, dense, monkeypatch):
    monkeypatch.setattr(by_curvature, "DENSE", dense)
    each = 1 / (1.5**2 + 1 / 4)  # of a group's mean
    precision = 360 * each + 1 / 100
    mean = GROUPS.mean(0).sum() * each / precision
    shrunk = 4 / (4 + 1 / 1.5**2)
    with on(engine):
        fit = engine.vi.approximate(groups, engine.key(0), engine.array(np.float32(GROUPS)))
        draws = fit.posterior(draws=2000).posterior
    m, z = draws["m"].values[0], draws["z"].values[0]
    assert fit.approximated.settled
    assert m.mean() == pytest.approx(mean, abs=0.1 * precision**-0.5)
    assert m.std() == pytest.approx(precision**-0.5, rel=0.12)
    sds = np.sqrt(1 / (4 + 1 / 1.5**2) + (1 - shrunk) ** 2 / precision)
    np.testing.assert_allclose((z.mean(0) - (shrunk * GROUPS.mean(0) + (1 - shrunk) * mean)) / sds, 0, atol=0.15)
    np.testing.assert_allclose(z.std(0) / sds, 1, atol=0.15)


@pytest.mark.parametrize(
    ("n", "particles", "tree", "said"), [(1000, 1, np.zeros(10), 1000), (1000, 20, np.zeros(10), 1000)]
)
def test_small_runs_go_side_by_side(n, particles, tree, said):
    assert abreast(n, particles, tree) == said


def test_large_runs_do_not():
    rows = {"x": np.zeros((100_000, 20)), "y": [np.zeros(100_000)]}
    assert abreast(1000, 20, rows) == memory.LARGE // (20 * 2_100_000)
    assert abreast(1000, 1, np.broadcast_to(0.0, 10**9)) == 1
    assert abreast(7, 1, ()) == 7


@pytest.mark.slow
@each_engine
@pytest.mark.parametrize("particles", [1, 4])
def test_draws_in_parts(engine, particles, monkeypatch):
    """N(2, 1 / 4) of a flat prior and four observations of 2; the last part has fewer."""

    def model(y):
        z = ppl.sample("z", dist.Normal(xp.array(0.0), 100.0))
        with ppl.plate("rows", 4):
            ppl.sample("y", dist.Normal(z, 1.0), obs=y)

    with on(engine):
        fit = engine.vi.approximate(model, engine.key(0), engine.array(np.full(4, 2, np.float32)))
        monkeypatch.setattr(memory, "LARGE", 6 * 700 * particles)
        found = fit.posterior(engine.key(3), draws=2500, particles=particles)
        again = fit.posterior(engine.key(3), draws=2500, particles=particles)
    z, likelihood = found.posterior["z"].values[0], found.log_likelihood["y"].values[0]
    assert z.shape == (2500,)
    assert len(np.unique(z)) > 2400
    assert z.mean() == pytest.approx(2, abs=0.05)
    assert z.std() == pytest.approx(0.5, rel=0.08)
    np.testing.assert_allclose(likelihood[:, 0], -0.5 * (z - 2) ** 2 - 0.5 * np.log(2 * np.pi), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(z, again.posterior["z"].values[0])
