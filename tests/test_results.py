"""What draws come as: ArviZ data of either major version, from a fit and from NUTS, on both engines.

The model is a line through the origin with normal noise. Its posterior, its predictions and its leave-one-out densities have
closed forms; and ArviZ's own converter of NumPyro says what groups there are.
"""

import json
import zipfile

import arviz as az
import matplotlib
import numpy as np
import pytest
from scipy.stats import norm

import ppvi
from ppvi.checks.tails import pareto_shape
from ppvi.engine._arviz import group_of, is_old, names_of
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, on, ppl, xp

matplotlib.use("Agg")

RNG = np.random.default_rng(0)
X = np.linspace(-1.0, 2.0, 12).astype(np.float32)
Y = (0.7 * X + RNG.normal(size=12)).astype(np.float32)
PRECISION = 1 / 4 + (X**2).sum()
MEAN, SD = (X * Y).sum() / PRECISION, PRECISION**-0.5
OPTIONS = {"num_warmup": 150, "num_samples": 250, "num_chains": 2, "progress": False}

both = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


def model(x, y, prior=2.0):
    slope = ppl.sample("slope", dist.Normal(0.0, prior))
    with ppl.plate("rows", len(x), dim=-1):
        line = ppl.deterministic("line", slope * x)
        ppl.sample("y", dist.Normal(line, 1.0), obs=y)


def guide(x, y, prior=2.0):
    ppl.sample("slope", dist.Normal(ppl.param("loc", xp.array(MEAN)), ppl.param("scale", xp.array(SD))))


def objective(engine, model=model, guide=guide):
    return engine.vi.objective(ppvi.objectives.elbo, model, guide).on(engine.array(X), engine.array(Y))


def params(shift=0.0, factor=1.0):
    return {"loc": xp.array(MEAN + shift * SD), "scale": xp.array(factor * SD)}


def fitted(engine, steps=60):
    return engine.vi.fit(objective(engine), engine.key(0), num_steps=steps, optimizer=1e-3, progress=False)


SAMPLED = {}


def sampled(engine):
    """What NUTS draws of the model, once on each engine."""
    if engine.name not in SAMPLED:
        SAMPLED[engine.name] = engine.vi.nuts(model, engine.key(0), engine.array(X), engine.array(Y), **OPTIONS)
    return SAMPLED[engine.name]


# A fit ----------------------------------------------------------------------------------------------------------------------


@both
def test_groups_of_a_fit_are_formulas(engine):
    with on(engine):
        data = engine.vi.posterior(objective(engine), engine.key(0), params(0.5, 1.2), draws=50)
        slope = data["posterior"]["slope"].values[0]
        assert data["posterior"]["line"].dims == ("chain", "draw", "rows")
        np.testing.assert_allclose(data["posterior"]["line"].values[0], slope[:, None] * X, rtol=1e-5)
        likelihood = norm.logpdf(Y, slope[:, None] * X)
        np.testing.assert_allclose(data["log_likelihood"]["y"].values[0], likelihood, rtol=1e-4, atol=1e-5)
        assert data["log_likelihood"]["y"].dims == ("chain", "draw", "rows")
        log_p, log_q = norm.logpdf(slope, 0, 2) + likelihood.sum(1), norm.logpdf(slope, MEAN + 0.5 * SD, 1.2 * SD)
        stats = data["sample_stats"]
        np.testing.assert_allclose(stats["log_p"].values[0], log_p, rtol=1e-4)
        np.testing.assert_allclose(stats["log_q"].values[0], log_q, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(stats["log_weight"].values[0], log_p - log_q, rtol=1e-4)
        np.testing.assert_array_equal(data["observed_data"]["y"].values, Y)
        np.testing.assert_array_equal(data["constant_data"]["x"].values, X)
        assert data["constant_data"]["x"].dims == ("rows",)
        assert sorted(names_of(data)) == sorted(
            ["posterior", "sample_stats", "log_likelihood", "observed_data", "constant_data"]
        )


@both
def test_attributes_and_losses(engine, tmp_path):
    with on(engine):
        fit = fitted(engine)
        data = fit.posterior(draws=10)
        assert data.attrs["versions"].startswith(f"ppvi {ppvi.__version__}, {engine.name.lower()}")
        assert "elbo" in data.attrs["objective"]
        assert data.attrs["steps"] == 60
        assert data.attrs["why"] == "all steps taken"
        assert data.attrs["converged"].split(":")[0] in ("yes", "no", "unknown")
        assert data.attrs["key"]
        np.testing.assert_array_equal(data["losses"]["loss"].values, fit.losses)
        np.testing.assert_array_equal(data["losses"]["step"].values, fit.steps)
        file = tmp_path / "fit.nc"
        if is_old():
            data.to_netcdf(str(file))
            again = az.from_netcdf(str(file))
            assert again.attrs["converged"] == data.attrs["converged"]
            np.testing.assert_array_equal(again["posterior"]["slope"], data["posterior"]["slope"])


@both
def test_plot_of_losses(engine):
    with on(engine):
        fit = fitted(engine)
        ax = fit.plot()
        raw, smooth, end = ax.lines
        np.testing.assert_array_equal(raw.get_ydata(), fit.losses)
        assert abs(smooth.get_ydata().mean() - fit.losses.mean()) < 1e-3 * abs(fit.losses.mean())
        assert list(end.get_xdata()) == [60, 60]
        assert "all steps taken" in end.get_label()
        matplotlib.pyplot.close("all")


@both
def test_labels(engine):
    with on(engine):
        labels = [f"row {i}" for i in range(12)]
        draw = engine.vi.posterior
        data = draw(
            objective(engine), engine.key(0), params(), draws=3, coords={"rows": labels}, dims={"line": "where"}
        )
        assert data["posterior"]["line"].dims[-1] == "where"
        assert list(data["log_likelihood"]["rows"].values) == labels
        for options, said in (
            ({"coords": {"rows": labels[:3]}}, "3 labels of 'rows', whose size is 12"),
            ({"coords": {"row": labels}}, "Did you mean 'rows'"),
            ({"dims": {"lines": ["rows"]}}, "Did you mean 'line'"),
            ({"dims": {"line": ["a", "b"]}}, "'line' has 1 axes"),
        ):
            with pytest.raises(ppvi.ProgramError, match=said):
                draw(objective(engine), engine.key(0), params(), draws=3, **options)


@both
def test_axes_are_named_by_plates(engine):
    """Nested plates, events, a plate of the name of a site, and sites in none."""

    def model():
        ppl.sample("vector", dist.Normal(xp.zeros(3), 1.0).to_event(1))
        with ppl.plate("columns", 4, dim=-1):
            ppl.sample("rows", dist.Normal(0.0, 1.0))
            with ppl.plate("row", 2, dim=-2):
                x = ppl.sample("x", dist.Normal(xp.zeros((2, 4, 5)), 1.0).to_event(1))
                ppl.deterministic("total", x.sum(-1))

    with on(engine):
        bound = engine.vi.objective(ppvi.objectives.elbo, model, model)
        posterior = engine.vi.posterior(bound, engine.key(0), {}, draws=2)["posterior"]
        dims = {str(name): x.dims[2:] for name, x in posterior.data_vars.items()}
        assert dims == {
            "vector": ("vector_dim_0",),
            "rows": ("columns",),
            "x": ("row", "columns", "x_dim_2"),
            "total": ("row", "columns"),
        }


# Predictions ----------------------------------------------------------------------------------------------------------------


@both
def test_predictions_are_formulas(engine):
    """Of the fit's data, of new rows, and of the prior; by mean and spread, with 1e-6 for a false alarm."""
    with on(engine):
        n, bound = 4000, objective(engine)
        there = engine.array(np.array([3.0, -2.0], np.float32))
        fit = engine.vi.fit(bound, engine.key(0), num_steps=1, optimizer=1e-9, progress=False)
        data = fit.predict(draws=n, on=bound.on(there, None), prior=True)
        new = data["predictions"]
        assert set(new.data_vars) == {"y", "line"}
        assert new["y"].dims == ("chain", "draw", "rows")
        np.testing.assert_array_equal(data["predictions_constant_data"]["x"].values, there)
        inside = fit.predict(draws=n)["posterior_predictive"]["y"].values[0]
        for drawn, x, var in (
            (inside, X, SD**2),
            (new["y"].values[0], np.asarray(there), SD**2),
            (data["prior_predictive"]["y"].values[0], X, 4.0),
        ):
            sd = np.sqrt(1 + var * x**2)
            mean = 0.0 if var == 4.0 else MEAN * x
            assert (np.abs(drawn.mean(0) - mean) < 5.5 * sd / np.sqrt(n)).all()
            assert (np.abs(drawn.std(0) / sd - 1) < 5.5 / np.sqrt(2 * n)).all()
        slope = data["posterior"]["slope"].values[0]
        np.testing.assert_allclose(new["line"].values[0], slope[:, None] * np.asarray(there), rtol=1e-5)


@both
def test_prior_without_a_fit(engine):
    with on(engine):
        data = engine.vi.predict(objective(engine), engine.key(0), draws=20)
        assert sorted(names_of(data)) == ["constant_data", "observed_data", "prior", "prior_predictive"]
        np.testing.assert_array_equal(data["observed_data"]["y"].values, Y)


@pytest.mark.slow
@both
def test_local_sites_of_new_rows_are_drawn_from_the_model(engine):
    """z ~ N(m, 1), y ~ N(z, 0.1): a row that is new has a z of its own, and as many rows are those of the fit unless said."""

    def model(rows, y):
        m = ppl.sample("m", dist.Normal(0.0, 1.0))
        with ppl.plate("rows", rows, dim=-1):
            z = ppl.sample("z", dist.Normal(m, 1.0))
            ppl.sample("y", dist.Normal(z, 0.1), obs=y)

    def guide(rows, y):
        ppl.sample("m", dist.Normal(5.0, 0.01))
        with ppl.plate("rows", rows, dim=-1):
            ppl.sample("z", dist.Normal(100.0, 0.01))

    with on(engine):
        bound = engine.vi.objective(ppvi.objectives.elbo, model, guide).on(3, xp.zeros(3))
        near, far = {"rtol": 0.03}, {"rtol": 0.01}
        options = {"draws": 400}

        def mean(**more):
            found = engine.vi.predict(bound, engine.key(0), {}, **options, **more)
            return float(found["predictions" if "on" in more else "posterior_predictive"]["y"].mean())

        np.testing.assert_allclose(mean(), 100.0, **far)
        np.testing.assert_allclose(mean(on=bound.on(3, None)), 100.0, **far)
        np.testing.assert_allclose(mean(on=bound.on(3, None), redraw=["z"]), 5.0, **near)
        np.testing.assert_allclose(mean(on=bound.on(7, None)), 5.0, **near)
        for more, said in (
            ({"redraw": ["z"]}, "on="),
            ({"on": bound.on(3, None), "redraw": ["zz"]}, "Did you mean 'z'"),
            ({"on": engine.array(X)}, "objective on new data"),
        ):
            with pytest.raises(ppvi.ProgramError, match=said):
                engine.vi.predict(bound, engine.key(0), {}, **options, **more)


@both
def test_a_model_without_latent_sites(engine):
    def model(y):
        with ppl.plate("rows", 12, dim=-1):
            ppl.sample("y", dist.Normal(ppl.param("loc", xp.array(0.5)), 1.0), obs=y)

    with on(engine):
        bound = engine.vi.objective(ppvi.objectives.elbo, model, lambda y: None).on(engine.array(Y))
        data = engine.vi.predict(bound, engine.key(0), {"loc": xp.array(0.25)}, draws=3)
        np.testing.assert_allclose(data["log_likelihood"]["y"].values[0], [norm.logpdf(Y, 0.25)] * 3, rtol=1e-4)
        assert data["posterior_predictive"]["y"].dims == ("chain", "draw", "rows")


# NUTS -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@both
def test_groups_of_nuts_are_those_of_a_fit(engine):
    with on(engine):
        data = sampled(engine)
        assert data["posterior"]["line"].dims == ("chain", "draw", "rows")
        slope = data["posterior"]["slope"].values
        np.testing.assert_allclose(
            data["log_likelihood"]["y"].values, norm.logpdf(Y, slope[..., None] * X), rtol=1e-4, atol=1e-5
        )
        log_p = norm.logpdf(slope, 0, 2) + norm.logpdf(Y, slope[..., None] * X).sum(-1)
        np.testing.assert_allclose(data["sample_stats"]["log_p"].values, log_p, rtol=1e-4)
        np.testing.assert_array_equal(data["observed_data"]["y"].values, Y)
        assert data.attrs["sampler"] == "NUTS"
        assert data.attrs["divergences"] == 0
        assert data.attrs["r_hat"] == pytest.approx(float(group_of(data, "r_hat")["slope"]))
        assert data.attrs["ess"] == pytest.approx(float(az.ess(slope)), rel=1e-6)


def test_nuts_is_what_the_converter_of_arviz_makes_of_it():
    from numpyro.infer import MCMC, NUTS

    with on(NUMPYRO):
        x, y = NUMPYRO.array(X), NUMPYRO.array(Y)
        ours = NUMPYRO.vi.nuts(model, NUMPYRO.key(1), x, y, **OPTIONS)
        sampler = MCMC(
            NUTS(model), num_warmup=150, num_samples=250, num_chains=2, chain_method="vectorized", progress_bar=False
        )
        sampler.run(NUMPYRO.key(1), x, y)
        theirs = az.from_numpyro(sampler, log_likelihood=True)
        for group in ("posterior", "log_likelihood", "observed_data"):
            one, other = group_of(ours, group), group_of(theirs, group)
            assert set(one.data_vars) == set(other.data_vars)
            for name in one.data_vars:
                np.testing.assert_allclose(one[name].values, other[name].values, rtol=1e-4, atol=1e-5)
        comparison = ppvi.compare(sampler, ours)
        assert comparison.worst.wasserstein == 0.0


def test_draws_of_a_sampler_of_pyro():
    from pyro.infer import MCMC, NUTS

    with on(PYRO):
        sampler = MCMC(NUTS(model), num_samples=100, warmup_steps=100, disable_progbar=True)
        sampler.run(PYRO.array(X), PYRO.array(Y))
        comparison = ppvi.compare(fitted(PYRO), sampler)
        assert [m.name for m in comparison.marginals] == ["slope"]
        assert comparison.reference.divergences == 0


@pytest.mark.slow
@both
def test_divergences_are_said(engine):
    """A funnel, whose neck NUTS cannot go into."""

    def model():
        v = ppl.sample("v", dist.Normal(0.0, 3.0))
        ppl.sample("x", dist.Normal(xp.zeros(9), xp.exp(v / 2)).to_event(1))

    with on(engine):
        options = {**OPTIONS, "num_samples": 200, "num_warmup": 100, "target_accept_prob": 0.5}
        with pytest.warns(UserWarning, match="divergence"):
            data = engine.vi.nuts(model, engine.key(0), **options)
        count = int(data["sample_stats"]["diverging"].sum())
        assert data.attrs["divergences"] == count > 0
        assert data.attrs["converged"].startswith("no: ")
        said = " ".join(str(ppvi.compare(data, data)).split())
        assert f"{count} divergence" in said
        assert "the reference that is wrong" in said


@pytest.mark.slow
@both
def test_nuts_of_a_model_with_a_discrete_site_has_all_groups(engine):
    def model(y):
        mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
        with ppl.plate("rows", 4, dim=-1):
            which = ppl.sample("which", dist.Bernoulli(0.3 * xp.ones(())))
            ppl.sample("y", dist.Normal(mean + 2.0 * which, 1.0), obs=y)

    with on(engine):
        data = engine.vi.nuts(model, engine.key(0), engine.array(Y[:4]), **OPTIONS)
        assert list(data["posterior"].data_vars) == ["mean"]
        assert data["log_likelihood"]["y"].dims == ("chain", "draw", "rows")
        np.testing.assert_array_equal(data["observed_data"]["y"].values, Y[:4])


# What ArviZ makes of them ---------------------------------------------------------------------------------------------------


def exact_loo():
    """log p(y_i | the others), of a conjugate normal."""
    found = []
    for i in range(12):
        others = np.arange(12) != i
        precision = 1 / 4 + (X[others] ** 2).sum()
        mean = (X[others] * Y[others]).sum() / precision
        found.append(norm.logpdf(Y[i], mean * X[i], np.sqrt(1 + X[i] ** 2 / precision)))
    return np.array(found)


def pointwise(elpd):
    return np.asarray(elpd.loo_i if is_old() else elpd.elpd_i)


def total(elpd):
    return float(elpd.elpd_loo if is_old() else elpd.elpd)


@both
def test_loo_of_a_fit_is_corrected(engine):
    """Of a guide that is too wide and beside the posterior, which `az.loo` takes for it."""
    with on(engine):
        data = engine.vi.posterior(objective(engine), engine.key(0), params(1.5, 1.7), draws=8000)
        truth = exact_loo()
        found = ppvi.loo(data)
        np.testing.assert_allclose(pointwise(found), truth, atol=0.03)
        assert abs(total(az.loo(data)) - truth.sum()) > 10 * abs(total(found) - truth.sum())


@pytest.mark.parametrize(
    "engine", [pytest.param(x, id=x.name, marks=pytest.mark.slow if x is PYRO else ()) for x in ENGINES]
)
def test_arviz_takes_fits_and_nuts(engine):
    """`loo`, `compare`, `summary`, `plot_ppc`, `plot_forest`; the narrow prior is the worse model."""
    with on(engine):
        x, y = engine.array(X), engine.array(Y)
        fit = fitted(engine)
        data = fit.predict(draws=400)
        nuts = sampled(engine)

        def narrow(x, y):
            return model(x, y, prior=0.05)

        narrow_nuts = engine.vi.nuts(narrow, engine.key(0), x, y, **OPTIONS)
        for one in (az.loo(data), az.loo(nuts), ppvi.loo(nuts), ppvi.loo(fit)):
            assert abs(total(one) - exact_loo().sum()) < 0.3
        table = az.compare({"fit": ppvi.loo(data), "nuts": ppvi.loo(nuts), "narrow": ppvi.loo(narrow_nuts)})
        assert table.index[-1] == "narrow"
        assert set(az.compare({"fit": data, "narrow": narrow_nuts}).index) == {"fit", "narrow"}
        summary = az.summary(nuts, var_names=["slope"])
        assert abs(float(summary["mean"].iloc[0]) - MEAN) < 0.1
        assert len(az.summary(data)) == 13
        for each in (data, nuts):
            az.plot_forest(each, var_names=["line"])
        if is_old():
            az.plot_ppc(data, num_pp_samples=10)
        else:
            az.plot_ppc_dist(data, num_samples=10)
        matplotlib.pyplot.close("all")


def test_k_hat_is_that_of_arviz():
    for n in (30, 500, 4000):
        for scale in (0.5, 1.5, 3.0):
            log_weights = scale * np.random.default_rng(n).normal(size=n)
            if is_old():
                theirs = az.psislw(log_weights)[1]
            else:
                from arviz_stats.base import array_stats

                theirs = array_stats.psislw(-log_weights)[1]
            assert pareto_shape(log_weights) == pytest.approx(
                float(theirs), abs=0.05 if n > 100 and not is_old() else 1e-6
            )


@both
def test_loo_of_what_has_none(engine):
    with on(engine):
        bare = engine.vi.posterior(objective(engine), engine.key(0), params(), draws=5, log_likelihood=False)
        for given, said in ((bare, "log_likelihood"), (3, "expected a fit")):
            with pytest.raises(ppvi.ProgramError, match=said):
                ppvi.loo(given)
        with pytest.raises(ppvi.ProgramError, match="var_name='z' is none"):
            ppvi.loo(fitted(engine), var_name="z", draws=5)


# Comparisons of several -----------------------------------------------------------------------------------------------------


def test_several_posteriors(tmp_path):
    rng = np.random.default_rng(1)
    gold = [{"mu": rng.normal(size=500).tolist(), "b[1]": rng.normal(size=500).tolist()} for _ in range(4)]
    for chain in gold:
        chain["b[2]"] = rng.normal(size=500).tolist()
    path = tmp_path / "reference_draws.json.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("draws.json", json.dumps(gold))
    (tmp_path / "draws.json").write_text(json.dumps(gold))
    good = {"mu": rng.normal(size=(1, 2000)), "b": rng.normal(size=(1, 2000, 2))}
    bad = {"mu": rng.normal(3.0, 0.5, size=(1, 2000)), "b": rng.normal(size=(1, 2000, 2))}
    comparison = ppvi.compare(good=good, bad=bad, gold=path)
    assert comparison["bad"].worst.name == "mu"
    assert comparison["bad"].worst.mean_error == pytest.approx(3.0, abs=0.15)
    assert comparison["bad"].worst.sd_ratio == pytest.approx(0.5, abs=0.05)
    # Between N(3, 0.5) and N(0, 1), whose quantiles do not cross where they have mass: E |3 - 0.5 z| = 3.
    assert comparison["bad"].worst.wasserstein == pytest.approx(3.0, abs=0.15)
    assert comparison["good"].worst.wasserstein < 0.15
    said = str(comparison)
    assert max(map(len, said.splitlines())) <= 80
    assert said.index("bad") < said.index("mu")
    assert said.split("the worst marginals")[1].index("mu") < said.split("the worst marginals")[1].index("b[0]")
    frame = comparison.to_dataframe()
    assert len(frame) == 6
    assert frame[frame.posterior == "bad"].iloc[0].marginal == "mu"
    assert len(comparison.plot().get_yticklabels()) == 3
    matplotlib.pyplot.close("all")
    only = ppvi.compare(good=good, bad=bad, gold=str(tmp_path / "draws.json"), var_names=["b"])
    assert {m.name for m in only["bad"].marginals} == {"b[0]", "b[1]"}
    with pytest.raises(ppvi.ProgramError, match="choose one"):
        _ = comparison.marginals
    with pytest.raises(ppvi.ProgramError, match="Did you mean 'good'"):
        comparison["goood"]
    with pytest.raises(ppvi.ProgramError, match="var_names has 'bb'"):
        ppvi.compare(good=good, gold=path, var_names="bb")
    with pytest.raises(ppvi.ProgramError, match="no file"):
        ppvi.compare(good, "nowhere.json")


def test_long_sites_are_told_of_by_the_worst_of_them():
    rng = np.random.default_rng(0)
    ours, theirs = ({"w": rng.normal(size=(2, 300, 40, 30)), "mu": rng.normal(size=(2, 300))} for _ in range(2))
    ours["w"][:, :, 7, 5] += 2.0
    comparison = ppvi.compare(ours, theirs)
    assert len(comparison.marginals) == 1201
    said = str(comparison)
    assert "w[7,5] of 1,200" in said
    assert said.count("w[") == 2
    assert max(map(len, said.splitlines())) <= 80


def test_tables_are_as_wide_as_the_terminal(monkeypatch):
    import os
    import sys

    from ppvi._tables import render

    header, rows = ("site", "at", "because"), [("z", "somewhere/in/a/file.py:12", "it is so " * 9)]
    narrow = render("sites", header, rows, below=("at", "because"))
    assert max(map(len, narrow.splitlines())) <= 80
    assert "at somewhere/in/a/file.py:12" in narrow
    assert "(because: in a wider terminal)" in render("sites", header, rows, spare=("because",))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback: os.terminal_size((200, 24)))
    assert max(map(len, render("sites", header, rows, below=("at", "because")).splitlines())) > 80


# Names, fits from files, and what has not run --------------------------------------------------------------------------------


@both
def test_names_of_events_are_not_those_of_plates(engine):
    """`dims=` of the event axis, in data of which densities by entry have none; also where it is as long as the plate."""

    def model(y):
        mu = ppl.sample("mu", dist.Normal(xp.zeros(3), 1.0).to_event(1))
        with ppl.plate("rows", len(y)):
            ppl.sample("y", dist.Normal(mu, 1.0).to_event(1), obs=y)

    def guide(y):
        ppl.sample("mu", dist.Normal(ppl.param("loc", xp.zeros(3)), 0.5).to_event(1))

    with on(engine):
        for rows in (5, 3):
            y = engine.array(np.arange(3.0 * rows, dtype=np.float32).reshape(rows, 3))
            bound = engine.vi.objective(ppvi.objectives.elbo, model, guide).on(y)
            for names in (["xyz"], ["there", "xyz"]):
                data = engine.vi.posterior(bound, engine.key(0), {"loc": xp.zeros(3)}, draws=3, dims={"y": names})
                plate = names[0] if len(names) == 2 else "rows"
                assert data["log_likelihood"]["y"].dims == ("chain", "draw", plate)
                assert data["observed_data"]["y"].dims == (plate, "xyz")
                assert data["log_likelihood"]["y"].shape == (1, 3, rows)


@pytest.mark.slow
@both
def test_a_site_called_as_the_axes_of_draws(engine):
    def model(x, y):
        chain = ppl.sample("chain", dist.Normal(0.0, 2.0))
        with ppl.plate("draw", len(x)):
            ppl.sample("y", dist.Normal(chain * x, 1.0), obs=y)

    def guide(x, y):
        ppl.sample("chain", dist.Normal(ppl.param("loc", xp.array(MEAN)), ppl.param("scale", xp.array(SD))))

    with on(engine):
        data = engine.vi.predict(objective(engine, model, guide), engine.key(0), params(), draws=40)
        assert data["posterior"]["chain_site"].shape == (1, 40)
        assert data["posterior_predictive"]["y"].dims == ("chain", "draw", "draw_dim")
        nuts = engine.vi.nuts(model, engine.key(0), engine.array(X), engine.array(Y), **OPTIONS)
        assert abs(float(nuts["posterior"]["chain_site"].mean()) - MEAN) < 5 * SD
        assert ppvi.compare(data, nuts).worst.name == "chain_site"


@pytest.mark.slow
@both
def test_axes_of_nuts_have_the_names_of_a_fit(engine):
    def model(x, y):
        with ppl.plate("rows", len(x)):
            slope = ppl.sample("slope", dist.Normal(xp.zeros(2), 1.0).to_event(1))
            ppl.sample("y", dist.Normal(slope[..., 0] * x, 1.0), obs=y)

    def guide(x, y):
        with ppl.plate("rows", len(x)):
            ppl.sample("slope", dist.Normal(ppl.param("loc", xp.zeros(2)), 1.0).to_event(1))

    def with_dims(x, y, dims=1):
        return model(x, y)

    labels = {"coords": {"rows": [f"row {i}" for i in range(12)]}, "dims": {"slope": ["which"]}}
    with on(engine):
        x, y = engine.array(X), engine.array(Y)
        fit = engine.vi.posterior(
            objective(engine, model, guide), engine.key(0), {"loc": xp.zeros(2)}, draws=9, **labels
        )
        options = {**OPTIONS, "num_samples": 60, "num_warmup": 60}
        nuts = engine.vi.nuts(model, engine.key(0), x, y, **options, **labels)
        for group in ("posterior", "r_hat", "ess"):
            assert nuts[group]["slope"].dims[-2:] == fit["posterior"]["slope"].dims[-2:] == ("rows", "which")
            assert list(nuts[group]["rows"].values) == labels["coords"]["rows"]
        named = {"fit": fit, "nuts": nuts}  # of which ArviZ before 1.0 took a list
        both = az.plot_forest(
            list(named.values()) if hasattr(az, "from_pyro") else named, var_names=["slope"], combined=True
        )
        matplotlib.pyplot.close("all")
        assert both is not None
        with pytest.raises(
            ppvi.ProgramError, match="dims= is an option of nuts and an argument of the model with_dims"
        ):
            engine.vi.nuts(with_dims, engine.key(0), x, y, dims={"slope": ["which"]}, **OPTIONS)


@both
def test_a_fit_from_a_file(engine, tmp_path):
    with on(engine):
        bare = engine.vi.objective(ppvi.objectives.elbo, model, guide)
        x, y = engine.array(X), engine.array(Y)
        engine.vi.fit(bare, engine.key(0), x, y, num_steps=40, optimizer=1e-3, progress=False, checkpoint=tmp_path)
        without = ppvi.load(tmp_path, bare)
        for ask in (without.posterior, without.predict, lambda: ppvi.loo(without)):
            with pytest.raises(
                ppvi.ProgramError, match=r"without its data: load it on them, as in ppvi.load\(folder, obj"
            ):
                ask()
        for loaded in (ppvi.load(tmp_path, bare.on(x, y)), ppvi.load(tmp_path, bare, x, y)):
            assert abs(total(ppvi.loo(loaded)) - exact_loo().sum()) < 0.3
            assert ppvi.compare(loaded, {"slope": MEAN + SD * RNG.normal(size=2000)}).worst.wasserstein < 0.2
            assert loaded.predict(draws=5)["posterior_predictive"]["y"].shape == (1, 5, 12)


@both
def test_predictions_on_data_that_are_all_defaults(engine):
    def model(y=None):
        slope = ppl.sample("slope", dist.Normal(0.0, 2.0))
        ppl.sample("y", dist.Normal(slope, 1.0), obs=y)

    def guide(y=None):
        ppl.sample("slope", dist.Normal(ppl.param("loc", xp.array(MEAN)), ppl.param("scale", xp.array(SD))))

    with on(engine):
        bound = engine.vi.objective(ppvi.objectives.elbo, model, guide)
        at = engine.vi.predict(bound.on(xp.array(1.0)), engine.key(0), params(), draws=4000, on=bound.on())
        np.testing.assert_allclose(float(at["predictions"]["y"].std()), np.sqrt(1 + SD**2), rtol=0.06)
        other = objective(engine)
        unbound = engine.vi.objective(ppvi.objectives.elbo, globals()["model"], globals()["guide"])
        with pytest.raises(
            ppvi.ProgramError, match=r"without data: bind the new data first, as in on=bound.on\(new_x\)"
        ):
            engine.vi.predict(other, engine.key(0), params(), draws=3, on=unbound)


@both
def test_mcmc_that_has_not_run(engine):
    import numpyro.infer
    import pyro.infer

    infer = numpyro.infer if engine is NUMPYRO else pyro.infer
    with on(engine):
        sampler = infer.MCMC(
            infer.NUTS(model), num_samples=10, **{"num_warmup" if engine is NUMPYRO else "warmup_steps": 5}
        )
        with pytest.raises(ppvi.ProgramError, match="this MCMC has no draws: let it run first"):
            ppvi.compare(engine.vi.posterior(objective(engine), engine.key(0), params(), draws=9), sampler)


def trials(n, y=None):
    p = ppl.sample("p", dist.Beta(xp.array(1.0), 1.0))
    with ppl.plate("rows", 3):
        ppl.sample("y", dist.Binomial(n, p), obs=y)


@pytest.mark.parametrize("counts", [[5, 5, 5], [5, 7, 2]])
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_predictions_of_trials_whose_counts_are_an_argument(engine, counts):
    """Their support is not known, and need not be, of what is simply drawn."""
    with on(engine):
        n, y = engine.array(np.int32(counts)), engine.array(np.float32([2, 1, 2]))
        bound = engine.vi.objective(ppvi.objectives.elbo, trials, odds)
        fit = engine.vi.fit(bound, engine.key(0), n, y, num_steps=1, progress=False)
        seen = fit.predict(draws=400).posterior_predictive["y"].values[0]
    assert seen.max(0).tolist() == counts  # each is the most once in 6 to 50 draws of p uniform on (0, 1)


def odds(n, y=None):
    ppl.sample("p", dist.Beta(ppl.param("a", xp.array(1.0)), 1.0))
