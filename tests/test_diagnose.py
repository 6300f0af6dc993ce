"""Whether a fit is to be believed: verdicts on guides whose distance from the posterior is known by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, wasserstein_distance

import ppvi
import ppvi.approximate as approximating
from models.posteriors import MODELS
from ppvi._freed import like_all
from ppvi.approximation import basins, chained
from tests.data import gold_standard, posterior_data
from tests.engines import ENGINES, NUMPYRO, dist, handlers, on, ppl, xp

both = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)

# Chains --------------------------------------------------------------------------------------------------------------------


def normal(points):
    return -(points**2).sum(1) / 2, -points


def half(points):
    """A normal distribution of which only x > 0 is left."""
    values, slopes = normal(points)
    return np.where(points[:, 0] > 0, values, -np.inf), slopes


def test_chains_leave_their_target_as_it_is():
    rng = np.random.default_rng(0)
    start = rng.standard_normal((512, 3))
    found = chained(normal, start, np.diag([1.0, 0.2, 3.0]), rng, rounds=30)
    last = found.states[-1].ravel()
    assert found.states.shape == (30, 512, 3)
    assert abs(found.accepted - 0.8) < 0.15
    assert abs(last.mean()) < 4 / np.sqrt(last.size)
    assert abs((last**2).mean() - 1) < 4 * np.sqrt(2 / last.size)


@pytest.mark.parametrize("start", [0.003, 30.0])
def test_chains_go_to_their_target_from_far_too_narrow_and_far_too_wide(start):
    rng = np.random.default_rng(1)
    found = chained(normal, start * rng.standard_normal((512, 2)), np.full(2, start), rng, rounds=60)
    assert 0.9 < found.states[-1].std() < 1.1


def test_chains_do_not_go_where_the_density_is_zero():
    rng = np.random.default_rng(2)
    found = chained(half, np.abs(rng.standard_normal((512, 1))), np.ones(1), rng, rounds=30)
    last = found.states[-1]
    assert (last > 0).all()
    assert abs(last.mean() - np.sqrt(2 / np.pi)) < 4 * last.std() / np.sqrt(512)


# Verdicts ------------------------------------------------------------------------------------------------------------------

Y = np.array([0.3, 1.1, 0.8, -0.2], np.float32)
SD = 1 / np.sqrt(1 / 9 + len(Y))
MEAN = SD**2 * Y.sum()


def conjugate(y):
    """theta given y is normal with MEAN and SD."""
    theta = ppl.sample("theta", dist.Normal(0.0, 3.0))
    with ppl.plate("rows", len(Y)):
        ppl.sample("y", dist.Normal(theta, 1.0), obs=y)


def by_hand(y):
    loc, scale = ppl.param("loc", xp.array(0.0)), ppl.param("scale", xp.array(1.0))
    ppl.sample("theta", dist.Normal(loc, scale))


def fit_at(engine, model, guide, params, *args):
    """A fit whose parameters have these values."""
    bound = engine.vi.objective(ppvi.objectives.elbo, model, guide)
    fit = engine.vi.fit(bound, engine.key(0), *args, num_steps=1, progress=False)
    assert fit.params.keys() == params.keys()
    return replace(fit, params={name: engine.xp.array(x) for name, x in params.items()})


GUIDES = {
    "right": (MEAN, SD, "good"),
    "narrow": (MEAN, 0.6 * SD, "poor"),
    "far too narrow": (MEAN, SD / 300, "poor"),
    "wide": (MEAN, 2 * SD, "poor"),
    "beside": (MEAN + 0.5 * SD, SD, "poor"),
}


CASES = [(NUMPYRO, name) for name in GUIDES] + [
    (engine, name) for engine in ENGINES[1:] for name in ("right", "beside")
]


@pytest.mark.parametrize(("engine", "name"), CASES, ids=[f"{engine.name}-{name}" for engine, name in CASES])
def test_the_verdict_is_that_of_the_distance_by_hand(engine, name):
    loc, scale, verdict = GUIDES[name]
    with on(engine):
        fit = fit_at(engine, conjugate, by_hand, {"loc": np.float32(loc), "scale": np.float32(scale)}, xp.array(Y))
        report = ppvi.diagnose(fit)
    places = (np.arange(4000) + 0.5) / 4000
    distance = wasserstein_distance(norm.ppf(places, loc, scale), norm.ppf(places, MEAN, SD)) / SD
    assert report.verdict == verdict
    assert abs(report["chains"].number - distance) < 0.12
    assert report.findings.keys() >= {"chains", "modes", "weights", "course", "leave-one-out of y", "prediction of y"}
    assert json.loads(json.dumps(report.to_dict()))["verdict"] == verdict
    assert max(map(len, str(report).splitlines())) <= 80
    assert str(report).startswith(f"diagnosis: {verdict}")


BOUNDS = {
    "right": 0.0,
    "wide": np.sqrt(4 / np.sqrt(7) - 1),
    "beside": np.sqrt(np.exp(0.25) - 1),
    "far too narrow": None,
}
"""The root of the chi-squared divergence of N(m, s^2) from each guide, by hand."""


@pytest.mark.parametrize("name", BOUNDS)
def test_the_bound_is_the_root_of_the_divergence_by_hand_and_above_the_error(name):
    loc, scale, _ = GUIDES[name]
    with on(NUMPYRO):
        fit = fit_at(NUMPYRO, conjugate, by_hand, {"loc": np.float32(loc), "scale": np.float32(scale)}, xp.array(Y))
        found = ppvi.diagnose(fit, draws=4000)["bound"]
    if BOUNDS[name] is None:
        assert found.number is None
        assert found.verdict == "unsure"
        return
    assert abs(found.number - BOUNDS[name]) < 0.03 + 0.1 * BOUNDS[name]
    places = (np.arange(4000) + 0.5) / 4000
    error = wasserstein_distance(norm.ppf(places, loc, scale), norm.ppf(places, MEAN, SD)) / scale
    assert found.number > error - 0.03
    assert found.verdict == ("good" if name == "right" else "unsure")
    assert not found.decides


def mixture(y):
    """Two components by labels: what is summed out leaves two modes, one beside the other at -mu."""
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    with ppl.plate("rows", 30):
        z = ppl.sample("z", dist.Bernoulli(0.5))
        ppl.sample("y", dist.Normal(xp.where(z > 0, mu, -mu), 0.5), obs=y)


def of_mu(y):
    loc, scale = ppl.param("loc", xp.array(2.0)), ppl.param("scale", xp.array(1.0))
    ppl.sample("mu", dist.Normal(loc, scale))


@pytest.mark.slow
def test_another_mode_of_like_mass_is_said_where_finite_sites_are_summed_out():
    rng = np.random.default_rng(0)
    y = (2 * np.sign(rng.standard_normal(30)) + 0.5 * rng.standard_normal(30)).astype(np.float32)
    own = np.abs(y).mean()  # the components are far apart
    with on(NUMPYRO):
        params = {"loc": np.float32(own), "scale": np.float32(0.5 / np.sqrt(30))}
        report = ppvi.diagnose(fit_at(NUMPYRO, mixture, of_mu, params, xp.array(y)))
    assert report["chains"].verdict == "good"  # they stay where they are
    assert report["modes"].verdict == "unsure"
    assert report["modes"].number == pytest.approx(0.5, abs=0.02)  # by symmetry they are of one mass
    assert report.verdict == "unsure"


def labels(y):
    z = ppl.sample("z", dist.Bernoulli(0.5))
    ppl.sample("y", dist.Normal(xp.where(z > 0, 1.0, -1.0), 1.0), obs=y)


def of_labels(y):
    ppl.sample("z", dist.Bernoulli(ppl.param("p", xp.array(0.5))), infer={"strategy": ppvi.Enumerate()})


def test_a_model_without_a_continuous_site_is_left_undecided_and_that_is_said():
    with on(NUMPYRO):
        report = ppvi.diagnose(fit_at(NUMPYRO, labels, of_labels, {"p": np.float32(0.5)}, xp.array(Y[0])))
    assert report.verdict == "unsure"
    assert "no continuous site" in report["chains"].said
    assert report.comparison is None


def regression(x, y):
    """A parameter of the model, beside a latent site: the posterior is that at the parameter."""
    slope = ppl.param("slope", xp.array(0.0))
    shift = ppl.sample("shift", dist.Normal(0.0, 3.0))
    with ppl.plate("rows", len(Y)):
        ppl.sample("y", dist.Normal(slope * x + shift, 1.0), obs=y)


def of_shift(x, y):
    loc, scale = ppl.param("loc", xp.array(0.0)), ppl.param("scale", xp.array(1.0))
    ppl.sample("shift", dist.Normal(loc, scale))


@both
def test_parameters_of_the_model_are_those_of_the_fit(engine):
    x = np.array([1.0, 2.0, 0.0, -1.0], np.float32)
    mean = SD**2 * (Y - 0.5 * x).sum()
    with on(engine):
        params = {"slope": np.float32(0.5), "loc": np.float32(mean), "scale": np.float32(SD)}
        report = ppvi.diagnose(fit_at(engine, regression, of_shift, params, xp.array(x), xp.array(Y)))
    assert report.verdict == "good"


@pytest.mark.slow
def test_an_amortised_guide_is_asked_about_other_data():
    def local(y):
        with ppl.plate("rows", len(y)):
            z = ppl.sample("z", dist.Normal(0.0, 1.0))
            ppl.sample("y", dist.Normal(z, 1.0), obs=y)

    def amortised(y):
        weight = ppl.param("weight", xp.array(0.0))
        with ppl.plate("rows", len(y)):
            ppl.sample("z", dist.Normal(weight * y, np.sqrt(0.5)))

    with on(NUMPYRO):
        fit = fit_at(NUMPYRO, local, amortised, {"weight": np.float32(0.5)}, xp.array(Y))
        assert ppvi.diagnose(fit, on=fit.objectives[0].on(xp.array(Y[:2]))).verdict == "good"
        far = replace(fit, params={"weight": xp.array(-0.5)})
        report = ppvi.diagnose(far, on=fit.objectives[0].on(xp.array(10 * Y[:2])))
    assert report.verdict == "poor"
    assert report.comparison.worst.place in [(0,), (1,)]


def test_a_guide_where_the_model_has_no_mass_is_said():
    def positive(y):
        theta = ppl.sample("theta", dist.Uniform(0.0, 1.0))
        ppl.sample("y", dist.Normal(theta, 1.0).mask(theta < 0.01), obs=y)
        ppl.factor("bound", xp.where(theta < 0.01, 0.0, -np.inf))

    def unit(y):
        ppl.sample("theta", dist.Uniform(0.0, ppl.param("end", xp.array(1.0))))

    with on(NUMPYRO):
        bound = NUMPYRO.vi.objective(ppvi.objectives.elbo, positive, unit)
        params = bound.init(NUMPYRO.key(0), xp.array(0.0))
        fit = fit_at(NUMPYRO, conjugate, by_hand, {"loc": np.float32(0), "scale": np.float32(1)}, xp.array(Y))
        fit = replace(fit, objectives=(bound,), params=params, args=(xp.array(0.0),))
        report = ppvi.diagnose(fit)
    assert report.verdict == "unsure"
    assert "no mass at most of what the fit draws" in report["chains"].said


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda fit: ppvi.diagnose(fit.objectives[0]), "takes a fit"),
        (lambda fit: ppvi.diagnose(fit, draws=10), "at least 100"),
        (lambda fit: ppvi.diagnose(fit, num_chains=1), "at least 8"),
        (lambda fit: ppvi.diagnose(fit, on=Y), "on= is an objective on data"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(call, said):
    with on(NUMPYRO):
        params = {"loc": np.float32(0), "scale": np.float32(1)}
        fit = fit_at(NUMPYRO, conjugate, by_hand, params, xp.array(Y))
    with pytest.raises(ppvi.ProgramError, match=said):
        call(fit)


def moving():
    """The support of one site is another's value."""
    end = ppl.sample("end", dist.Uniform(1.0, 3.0))
    ppl.sample("within", dist.Uniform(0.0, end))
    ppl.sample("y", dist.Normal(end, 1.0), obs=xp.array(2.0))


def of_moving():
    end = ppl.sample("end", dist.Uniform(1.0, ppl.param("top", xp.array(3.0))))
    ppl.sample("within", dist.Uniform(0.0, end))


def test_supports_that_move_are_left_undecided():
    with on(NUMPYRO):
        bound = NUMPYRO.vi.objective(ppvi.objectives.elbo, moving, of_moving)
        fit = fit_at(NUMPYRO, conjugate, by_hand, {"loc": np.float32(0), "scale": np.float32(1)}, xp.array(Y))
        fit = replace(fit, objectives=(bound,), params={"top": xp.array(3.0)}, args=())
        report = ppvi.diagnose(fit)
    assert report.verdict == "unsure"
    assert "support of site 'within' moves" in report["chains"].said


SEEN = np.array([True, True, False, True])


def masked(y):
    """A row that is left out has a placeholder; nothing of another site is seen."""
    theta = ppl.sample("theta", dist.Normal(0.0, 3.0))
    with ppl.plate("rows", len(Y)), handlers.mask(mask=xp.array(SEEN)):
        ppl.sample("y", dist.Normal(theta, 1.0), obs=y)
    with ppl.plate("others", 2), handlers.mask(mask=xp.array(np.zeros(2, bool))):
        ppl.sample("w", dist.Normal(theta, 1.0), obs=xp.array(np.zeros(2, np.float32)))


@pytest.mark.slow
@both
def test_rows_that_a_mask_leaves_out_are_no_data(engine):
    y, sd = np.where(SEEN, Y, -999.0).astype(np.float32), 1 / np.sqrt(1 / 9 + SEEN.sum())
    with on(engine):
        params = {"loc": np.float32(sd**2 * Y[SEEN].sum()), "scale": np.float32(sd)}
        report = ppvi.diagnose(fit_at(engine, masked, by_hand, params, xp.array(y)))
    assert report.verdict == "good"
    assert report["prediction of y"].verdict == "good"
    assert report["weights"].verdict == "good"  # all are one, but for rounding
    assert report.findings.keys() & {"leave-one-out of w", "prediction of w"} == set()


def test_few_chains_do_not_call_an_exact_guide_poor():
    def independent():
        ppl.sample("z", dist.Normal(0.0, 1.0).expand([20]).to_event(1))

    def exact():
        ppl.sample("z", dist.Normal(ppl.param("loc", xp.zeros(20)), 1.0).to_event(1))

    with on(NUMPYRO):
        fit = fit_at(NUMPYRO, independent, exact, {"loc": np.zeros(20, np.float32)})
        assert ppvi.diagnose(fit, num_chains=8).verdict != "poor"


# Real posteriors -----------------------------------------------------------------------------------------------------------


HOW = ["far too narrow", "narrow", "wide", "one narrow", "beside", "near", "mean-field"]


def moved(fit, how, entry):
    """The fit of a Gaussian with its location and scale changed, drawn without resampling."""
    loc, scale = (next(name for name in fit.params if name.endswith(end)) for end in ("loc", "scale_tril"))
    m, factor = (np.asarray(fit.params[name], float) for name in (loc, scale))
    sd = np.sqrt((factor**2).sum(1))
    one = np.eye(len(m))[entry]
    m, factor = {
        "far too narrow": (m, factor / 300),
        "narrow": (m, 0.6 * factor),
        "wide": (m, 1.7 * factor),
        "one narrow": (m, (1 - 0.6 * one)[:, None] * factor),
        "beside": (m + 0.6 * sd * one, factor),
        "near": (m + 0.1 * sd * one, factor),
        "mean-field": (m, np.diag(1 / np.sqrt(np.diag(np.linalg.inv(factor @ factor.T))))),
    }[how]
    params = {name: NUMPYRO.xp.array(x.astype(np.float32)) for name, x in ((loc, m), (scale, factor))}
    return replace(fit, params=params, particles=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_bad_fit_of_a_real_posterior_is_called_good_and_hardly_a_good_one_poor(monkeypatch):
    called = {"bad": [], "good": []}
    rng = np.random.default_rng(0)
    for name, model in MODELS.items():
        data, reference = posterior_data(name), gold_standard(name)
        fit = NUMPYRO.vi.approximate(model, NUMPYRO.key(1), **data)
        with monkeypatch.context() as without_windows:
            without_windows.setattr(approximating, "bent", lambda each, mixture, num_steps, seed: mixture)
            one = fit if len(fit.approximated.weights) == 1 else NUMPYRO.vi.approximate(model, NUMPYRO.key(1), **data)
        size = next(len(x) for key, x in one.params.items() if key.endswith("loc"))
        fits = [fit, *(moved(one, how, rng.integers(size)) for how in HOW)]
        for each in fits:
            draws = each.posterior(draws=4000, log_likelihood=False)
            far = ppvi.compare(draws, reference).worst.wasserstein
            verdict = ppvi.diagnose(each).verdict
            called["bad"] += [verdict] * (far > 0.3)
            called["good"] += [verdict] * (far < 0.15 and each is fit)
    assert "good" not in called["bad"]
    assert called["good"].count("poor") <= 0.05 * len(called["good"])
    assert len(called["bad"]) > 60
    assert len(called["good"]) > 10


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_data_that_broadcast_against_a_site_take_no_verdict_away(engine):
    def model(x):
        ppl.sample("x", dist.Normal(ppl.sample("m", dist.Normal(xp.array(0.0), 1.0)), 1.0), obs=x)

    with on(engine):
        fit = engine.vi.approximate(model, engine.key(0), engine.array(np.linspace(-1, 1, 20, dtype=np.float32)))
        report = ppvi.diagnose(fit)
    assert report.verdict == "good"
    assert "state a plate" in report.findings["prediction of x"].said


# Modes ---------------------------------------------------------------------------------------------------------------------


def bumps(weights, locs, scales):
    """A mixture of normal distributions in one dimension."""
    weights, locs, scales = map(np.array, (weights, locs, scales))

    def density(points):
        away = (points - locs) / scales
        logs = np.log(weights / scales) - away**2 / 2
        value = np.logaddexp.reduce(logs, axis=1)
        return value, -(np.exp(logs - value[:, None]) * away / scales).sum(1, keepdims=True)

    return density


@pytest.mark.parametrize(
    ("weights", "locs", "scales"),
    [
        ([0.5, 0.3, 0.2], [0.3, 1.8, -1.5], [0.2, 0.2, 0.2]),
        ([0.7, 0.3], [0.0, 0.8], [1.0, 0.01]),
        ([0.6, 0.4], [0.0, 3.0], [1.0, 0.05]),
        ([1.0], [0.3], [2.0]),
    ],
)
def test_the_mass_around_modes(weights, locs, scales):
    """Against the weights of a mixture, whose parts hardly overlap, or whose narrow part is within the wide one."""
    each, rng = bumps(weights, locs, scales), np.random.default_rng(0)
    found = basins(each, [np.array([x]) for x in (*locs, -4.0, 4.0)], rng)
    assert found.sure
    order = np.argsort([np.abs(mode.point[0] - np.array(locs)).argmin() for mode in found.modes])
    np.testing.assert_allclose(found.masses[order], weights, atol=0.05)
    parts = rng.choice(len(weights), 20_000, p=weights)
    points = (np.array(locs)[parts] + np.array(scales)[parts] * rng.standard_normal(20_000))[:, None]
    np.testing.assert_allclose(found.shares(points).mean(0), found.masses, atol=0.03)


MODES = {"three": ([0.2, 0.5, 0.3], [-1.5, 0.3, 1.8], [0.2, 0.2, 0.2]), "spike": ([0.3, 0.7], [0.8, 0.0], [0.01, 1.0])}


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("name", MODES)
def test_a_mode_among_the_draws_that_has_none_of_them_is_seen(engine, name):
    """A Gaussian over all of three modes, and one that has no more of a narrow one than of what is around it."""
    weights, locs, scales = (np.array(x, np.float32) for x in MODES[name])

    def model():
        z = ppl.sample("z", dist.Normal(xp.array(0.0), 100.0))
        parts = dist.MixtureSameFamily(
            dist.Categorical(probs=xp.array(weights)), dist.Normal(xp.array(locs), xp.array(scales))
        )
        ppl.factor("mass", parts.log_prob(z))

    def outer():
        at = dist.Normal(xp.array(np.float32([-1.5, 1.8])), ppl.param("width", xp.array(1.0)))
        ppl.sample("z", dist.MixtureSameFamily(dist.Categorical(probs=xp.array(np.float32([0.4, 0.6]))), at))

    def wide():
        ppl.sample("z", dist.Normal(0.0, ppl.param("width", xp.array(1.0))))

    guide, width = (outer, 0.2) if name == "three" else (wide, 1.0)
    with on(engine):
        report = ppvi.diagnose(fit_at(engine, model, guide, {"width": np.float32(width)}))
    assert report["modes"].verdict == "unsure"
    assert report.verdict != "good"
    assert report["modes"].number > 0.25


def test_starts_of_chains_have_their_share_of_each_mode():
    rng = np.random.default_rng(1)
    points = np.where(rng.random((2000, 1)) < 0.3, -3.0, 3.0) + rng.standard_normal((2000, 1))
    share = (points > 0).mean()
    kept = np.array([(like_all(points, 128, np.random.default_rng(i)) > 0).mean() for i in range(20)])
    assert np.abs(kept - share).max() < 0.04  # of chance, one in twenty would be 0.08 off
