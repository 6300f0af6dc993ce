"""Fits, draws from them, and the comparison with MCMC."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

import guides.eight_schools
import guides.old_faithful
import models.eight_schools
import models.old_faithful
import ppvi
import ppvi.numpyro as vi
from ppvi._draws import one_of
from ppvi.engine._arviz import is_data
from ppvi.objective import estimator_of
from ppvi.objectives import elbo
from tests.data import arviz_data, gold_standard

KEY = jax.random.key(0)


def model(y):
    x = numpyro.sample("x", dist.Normal(0.0, 2.0))
    numpyro.deterministic("twice", 2 * x)
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def guide(y):
    scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
    numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.0), scale))


Y = jnp.array([1.2, 0.4, 2.1, 1.7])
PRECISION = 1 / 4 + 4
MEAN, SD = float(Y.sum() / PRECISION), PRECISION**-0.5


def test_fit_finds_a_conjugate_posterior():
    fit = vi.fit(vi.objective(elbo, model, guide), KEY, Y, num_steps=3000, optimizer=optax.adam(optax.cosine_decay_schedule(0.02, 3000)), progress=False)  # fmt: skip
    assert fit.losses.shape == (3000,)
    np.testing.assert_allclose(fit.params["loc"], MEAN, atol=0.01)
    np.testing.assert_allclose(fit.params["scale"], SD, atol=0.01)
    assert "3000 steps" in str(fit)


def test_descending_an_objective():
    def program(p, q):
        return (numpyro.param("a", 1.0) - 3.0) ** 2 + 0.0 * q.simulate()["x"]

    def guide():
        numpyro.sample("x", dist.Normal(0.0, 1.0))

    fit = vi.fit(vi.objective(program, lambda: None, guide, maximize=False), KEY, num_steps=2000, progress=False)
    assert abs(fit.params["a"] - 3.0) < 1e-3
    assert fit.losses[-1] < 1e-5


def test_fit_continues_from_parameters():
    bound = vi.objective(elbo, model, guide)
    fit = vi.fit(bound, KEY, Y, num_steps=1, params={"loc": 1.25}, optimizer=optax.sgd(0.0), progress=False)
    assert fit.params["loc"] == 1.25
    assert fit.params["scale"] == 1.0


# Several objectives -------------------------------------------------------------------------------------------------------


def learned_model(y):
    with numpyro.plate("data", len(y)):
        x = numpyro.sample("x", dist.Normal(numpyro.param("mean", 0.0), 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def amortised_guide(y):
    with numpyro.plate("data", len(y)):
        loc = numpyro.param("slope", 0.0) * y + numpyro.param("intercept", 0.0)
        numpyro.sample("x", dist.Normal(loc, numpyro.param("scale", 1.0, constraint=dist.constraints.positive)))


@pytest.mark.slow
def test_reweighted_wake_sleep_learns_the_model_and_the_posterior():
    """The mean of y is the maximum likelihood; the posterior is N((y + mean) / 2, 1 / 2)."""
    pairs = [
        (vi.objective(program, learned_model, amortised_guide), whose)
        for program, whose in ppvi.objectives.reweighted_wake_sleep(20, per="data")
    ]
    fit = vi.fit(pairs, KEY, Y, num_steps=4000, optimizer=optax.adam(optax.cosine_decay_schedule(0.02, 4000)), progress=False)  # fmt: skip
    mean = float(Y.mean())
    assert fit.losses.shape == (4000, 2)
    np.testing.assert_allclose(fit.params["mean"], mean, atol=0.03)
    np.testing.assert_allclose(fit.params["slope"] * Y + fit.params["intercept"], (Y + mean) / 2, atol=0.06)
    np.testing.assert_allclose(fit.params["scale"], 0.5**0.5, atol=0.03)
    assert fit.posterior(draws=5).posterior["x"].shape == (1, 5, 4)


def saddle(p, q):
    a, b = numpyro.param("a", 2.0), numpyro.param("b", -1.0)
    return a * b + 0.5 * a**2 - 0.5 * b**2 + 0.0 * q.simulate()["x"]


def test_an_adversary_descends_what_the_other_climbs():
    def guide():
        numpyro.sample("x", dist.Normal(0.0, 1.0))

    down = vi.objective(saddle, lambda: None, guide, maximize=False)
    up = vi.objective(saddle, lambda: None, guide)
    rules = [optax.sgd(0.05), optax.sgd(0.1)]
    fit = vi.fit([(down, ["a"]), (up, lambda name: name == "b")], KEY, num_steps=300, optimizer=rules, progress=False)
    np.testing.assert_allclose([fit.params["a"], fit.params["b"]], 0.0, atol=1e-4)
    first = vi.fit([(down, ["a"]), (up, ["b"])], KEY, num_steps=1, optimizer=optax.sgd(0.1), progress=False)
    # The second objective sees what the first has done: a = 2 - 0.1 (b + a), b = -1 + 0.1 (a - b).
    np.testing.assert_allclose([first.params["a"], first.params["b"]], [1.9, -1 + 0.1 * 2.9], rtol=1e-6)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (lambda bound: [(bound, "modle")], "'modle' is no parameter of the objective, and neither 'model' nor 'guide'"),
        (lambda bound: [(bound, "model")], r"would move no parameter: 'model' selects none of \['loc', 'scale'\]"),
        (lambda bound: [bound, bound], "a list of pairs"),
        (lambda bound: [], "a list of pairs"),
    ],
)
def test_pairs_that_fit_nothing(pairs, message):
    with pytest.raises(ppvi.ProgramError, match=message):
        vi.fit(pairs(vi.objective(elbo, model, guide)), KEY, Y, num_steps=1, progress=False)


@pytest.mark.parametrize("make", [numpyro.optim.Adam, numpyro.optim.ClippedAdam, numpyro.optim.Momentum])
def test_optimizers_of_numpyro_go_on(make):
    options = [0.05, 0.9] if make is numpyro.optim.Momentum else [0.05]
    bound = vi.objective(elbo, model, guide)

    def fit(steps, **more):
        return vi.fit(bound, KEY, Y, num_steps=steps, optimizer=make(*options), progress=False, **more)

    whole, half = fit(60), fit(25)
    assert jax.tree.all(jax.tree.map(np.array_equal, fit(35, state=half).params, whole.params))
    assert whole.losses[-10:].mean() < whole.losses[:10].mean()
    if make is numpyro.optim.Adam:
        other = vi.fit(bound, KEY, Y, num_steps=60, optimizer=optax.adam(0.05), progress=False)
        for name, value in other.params.items():
            np.testing.assert_allclose(whole.params[name], value, rtol=1e-4)


def test_one_optimizer_for_each_objective():
    bound = vi.objective(elbo, model, guide)
    with pytest.raises(ppvi.ProgramError, match="optimizer= has 1 for 2 objectives"):
        vi.fit([(bound, "guide"), (bound, ["loc"])], KEY, Y, optimizer=[optax.sgd(0.1)], progress=False)


def test_nan_in_one_of_several_objectives():
    def program(p, q):
        a = numpyro.param("a", 0.0)
        return q.simulate()["x"] + jnp.sqrt(a**2)

    pairs = [(vi.objective(elbo, model, guide), "guide"), (vi.objective(program, model, guide), ["a"])]
    with pytest.raises(ppvi.FitError, match="the gradient of parameter 'a' is not") as caught:
        vi.fit(pairs, KEY, Y, num_steps=10, progress=False)
    assert set(caught.value.fit.params) == {"loc", "scale", "a"}


# Draws --------------------------------------------------------------------------------------------------------------------


def test_posterior_of_a_marginal_guide():
    """Weights of a marginal guide are of the model's sites; those of its joint, u included, are not."""

    def deep(y):
        u = numpyro.sample("u", dist.Normal(0.0, 2.0))
        numpyro.sample("x", dist.Normal(numpyro.param("loc", MEAN) + 0.2 * u, 0.4))

    bound = vi.objective(ppvi.objectives.hvi(["x"]), model, deep)
    data = vi.posterior(
        bound, KEY, {"loc": jnp.array(MEAN)}, Y, draws=4000, particles=50, program=lambda p, q: ppvi.marginal(q, ["x"])
    )
    x = data.posterior["x"].values.ravel()
    assert set(data.posterior.data_vars) == {"x", "twice"}
    assert abs(x.mean() - MEAN) < 0.05
    assert abs(x.std() - SD) < 0.03
    with pytest.raises(ppvi.ProgramError, match=r"the choices have 'u', but the model has no such latent site"):
        vi.posterior(bound, KEY, {"loc": jnp.array(MEAN)}, Y, particles=2)


def test_runs_at_several_parameters_are_compiled_once():
    traced = []

    def of(p, q):
        traced.append(True)
        return {"x": q.simulate()["x"]}

    each = [{"loc": jnp.array(float(i)), "scale": jnp.array(1.0)} for i in range(4)]
    found = estimator_of(vi.objective(elbo, model, guide)).many(KEY, each, (Y,), {}, 10, of)
    assert len(traced) == 1
    for i, at in enumerate(found):
        np.testing.assert_allclose(at["x"] - i, found[0]["x"], atol=1e-5)


def test_a_particle_whose_weight_is_no_number_is_never_picked():
    """Beside one of weight zero, and one of weight 1: of three the mean is a third. Of none with a weight the draw is told so."""
    log_p = np.array([np.nan, -np.inf, 0.0, np.nan, -np.inf, np.nan])
    runs = {"sites": {"x": np.arange(6.0)}, "log_p": log_p, "log_q": np.zeros(6)}
    for seed in range(20):
        one = one_of(3, runs, np.random.default_rng(seed))
        assert one["sites"]["x"][0] == 2.0
        np.testing.assert_allclose(one["log_p"] - one["log_q"], [np.log(1 / 3), -np.inf])


def test_posterior_is_arviz_data():
    bound = vi.objective(elbo, model, guide)
    fit = vi.fit(bound, KEY, Y, num_steps=2000, progress=False)
    data = fit.posterior(draws=4000)
    assert is_data(data)
    assert set(data.posterior.data_vars) == {"x", "twice"}
    np.testing.assert_allclose(data.posterior["twice"], 2 * data.posterior["x"], rtol=1e-6)
    x = data.posterior["x"].values.ravel()
    assert abs(x.mean() - fit.params["loc"]) < 6 * x.std() / np.sqrt(4000)
    # Importance weights of the exact posterior are constant: the evidence.
    exact = {"loc": jnp.array(MEAN), "scale": jnp.array(SD)}
    weights = vi.posterior(bound, KEY, exact, Y, draws=50).sample_stats["log_weight"].values
    covariance = np.eye(4) + 4 * np.ones((4, 4))
    evidence = -0.5 * (Y @ np.linalg.solve(covariance, np.asarray(Y)) + np.linalg.slogdet(2 * np.pi * covariance)[1])
    np.testing.assert_allclose(weights, evidence, rtol=1e-4)


def test_resampling_corrects_a_wide_guide():
    wide = {"loc": jnp.array(0.0), "scale": jnp.array(2.0)}
    data = vi.posterior(vi.objective(elbo, model, guide), KEY, wide, Y, draws=4000, particles=200)
    x = data.posterior["x"].values.ravel()
    assert abs(x.mean() - MEAN) < 0.05
    assert abs(x.std() - SD) < 0.03


# NaN: nothing is lost -----------------------------------------------------------------------------------------------------


def test_fit_that_hits_nan_keeps_the_last_finite_state():
    def model(y):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        scale = numpyro.deterministic("scale", jnp.where(numpyro.param("a", 1.0) > 0.5, 1.0, jnp.nan))
        numpyro.sample("y", dist.Normal(x + numpyro.param("a", 1.0), scale), obs=y)

    def guide(y):
        numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.0), 1.0))

    bound = vi.objective(elbo, model, guide)
    with pytest.raises(ppvi.FitError, match=r"at step \d+: site 'y' of the model has log_prob nan") as caught:
        vi.fit(bound, KEY, jnp.array(-5.0), num_steps=1000, progress=False)
    fit = caught.value.fit
    step = int(str(caught.value).split("at step ")[1].split(":")[0])
    assert 0 < step < 1000
    assert len(fit.losses) == step
    assert np.isfinite(fit.losses).all()
    assert all(np.isfinite(value) for value in fit.params.values())
    assert fit.posterior(draws=10).posterior["x"].shape == (1, 10)


def test_nan_in_a_gradient_names_the_parameter():
    def program(p, q):
        a = numpyro.param("a", 0.0)
        return q.simulate()["x"] + jnp.sqrt(a**2)

    def guide():
        numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.0), 1.0))

    with pytest.raises(ppvi.FitError, match="the gradient of parameter 'a' is not"):
        vi.fit(vi.objective(program, lambda: None, guide), KEY, num_steps=10, progress=False)


# Comparison ---------------------------------------------------------------------------------------------------------------


def normal_data(mean, sd, seed, shape=(4, 2000)):
    return arviz_data(posterior={"x": np.random.default_rng(seed).normal(mean, sd, shape)})


def test_compare_measures_what_it_says():
    comparison = ppvi.compare(normal_data(1.0, 2.0, 1), normal_data(0.0, 2.0, 2))
    (marginal,) = comparison.marginals
    assert marginal.name == "x"
    np.testing.assert_allclose(marginal.mean_error, 0.5, atol=0.06)
    # The 1-Wasserstein distance of two normals that differ by a shift is the shift.
    np.testing.assert_allclose(marginal.wasserstein, 0.5, atol=0.06)
    assert comparison.k_hat is None
    assert comparison.r_hat < 1.01
    assert "W1" in str(comparison)


def test_compare_without_a_common_site():
    other = arviz_data(posterior={"z": np.zeros((2, 10))})
    with pytest.raises(ppvi.ProgramError, match=r"the fit has \['x'\] and the reference has \['z'\]"):
        ppvi.compare(normal_data(0, 1, 0), other)


def test_compare_of_what_is_neither_fit_nor_data():
    with pytest.raises(ppvi.ProgramError, match=r"expected a fit, ArviZ data with a posterior group, .* not an array"):
        ppvi.compare(np.zeros(3), normal_data(0, 1, 0))


def test_k_hat_tells_a_good_guide_from_a_narrow_one():
    bound = vi.objective(elbo, model, guide)
    reference = normal_data(MEAN, SD, 3)
    found = {}
    for name, factor in (("wide", 1.1), ("narrow", 0.3)):
        params = {"loc": jnp.array(MEAN), "scale": jnp.array(factor * SD)}
        found[name] = ppvi.compare(vi.posterior(bound, KEY, params, Y, draws=4000), reference).k_hat
    assert found["wide"] < 0.5 < found["narrow"]


@pytest.mark.slow
def test_nuts_reports_its_diagnostics():
    data = vi.nuts(model, KEY, Y, num_warmup=500, num_samples=1000, progress=False)
    assert data.posterior["x"].shape == (4, 1000)
    assert float(data["r_hat"]["x"]) < 1.02
    assert float(data["ess"]["x"]) > 300
    assert abs(float(data.posterior["x"].mean()) - MEAN) < 0.06


# Real data ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_eight_schools_against_gold_standard_draws():
    """10,000 reference draws of posteriordb, by NUTS in another system."""
    reference = gold_standard("eight_schools-eight_schools_noncentered", ("mu", "tau", "theta"))
    m = models.eight_schools
    bound = vi.objective(ppvi.objectives.iwelbo(10), m.model, guides.eight_schools.guide())
    fit = vi.fit(bound, KEY, m.EFFECTS, m.ERRORS, num_steps=4000, progress=False)
    comparison = ppvi.compare(fit.posterior(draws=4000, particles=10), reference)
    assert max(marginal.wasserstein for marginal in comparison.marginals) < 0.15
    assert comparison.k_hat < 0.7


@pytest.mark.parametrize(
    "strategy",
    [ppvi.Enumerate(), *(pytest.param(s, marks=pytest.mark.slow) for s in (ppvi.LeaveOneOut(2), ppvi.Reinforce()))],
)
def test_old_faithful_labels(strategy):
    """Every strategy finds the two kinds of eruption: about 35% of around 2 minutes, the others of around 4.3."""
    bound = vi.objective(elbo, models.old_faithful.model, guides.old_faithful.guide, strategies={"long": strategy})
    schedule = optax.exponential_decay(0.05, 2000, 0.1)
    fit = vi.fit(
        bound, KEY, models.old_faithful.ERUPTIONS, num_steps=4000, optimizer=optax.adam(schedule), progress=False
    )
    posterior = fit.posterior(draws=1000).posterior
    np.testing.assert_allclose(posterior["share"].mean(), 0.648, atol=0.02)
    np.testing.assert_allclose(posterior["means"].mean(("chain", "draw")), [2.02, 4.28], atol=0.04)
    np.testing.assert_allclose(posterior["sds"].mean(("chain", "draw")), [0.246, 0.435], atol=0.03)
