"""Simulation-based calibration: posteriors that are known, and those that are wrong in a known way."""

import math
from collections import namedtuple
from functools import partial

import numpy as np
import optax
import pytest
import torch

import ppvi
from ppvi._calibrate import Data
from ppvi._calibration import ALARM, Calibration
from ppvi.objectives import elbo
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, on, ppl, xp

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
on_pyro_first = pytest.mark.parametrize(
    "engine", [pytest.param(x, id=x.name, marks=[] if x is PYRO else [pytest.mark.slow]) for x in ENGINES]
)
SHARE, ROWS = 0.3, 5


def model(x):
    """z ~ N(0, 1), k ~ Bernoulli(.3), x_i ~ N(z + 2 k, 1)"""
    z = ppl.sample("z", dist.Normal(xp.array(0.0), 1.0))
    k = ppl.sample("k", dist.Bernoulli(xp.array(SHARE)))
    with ppl.plate("rows", ROWS):
        ppl.sample("x", dist.Normal(z + 2.0 * k, 1.0), obs=x)


def guide(x):
    """The posterior is k ~ Bernoulli(logit = a + b mean), z ~ N(5 (mean - 2 k) / 6, 1 / sqrt 6)."""
    how = ppl.param("how", xp.array([0.0, 0.0, 0.0, 0.0]))
    mean = x.mean()
    k = ppl.sample("k", dist.Bernoulli(logits=how[0] + how[1] * mean))
    ppl.sample("z", dist.Normal(how[2] + ROWS * (mean - 2.0 * k) / (ROWS + 1), xp.exp(how[3])))


def exact():
    """The mean of the data is N(2 k, 1 + 1 / 5), which gives the odds."""
    variance = 1 + 1 / ROWS
    return np.float32([math.log(SHARE / (1 - SHARE)) - 2 / variance, 2 / variance, 0.0, -math.log(ROWS + 1) / 2])


def amortised(engine, how):
    """A fit that has stayed where it was begun."""
    bound = engine.vi.objective(elbo, model, guide)
    optimizer = optax.sgd(0.0) if engine is NUMPYRO else partial(torch.optim.SGD, lr=1e-30)
    x = engine.array(np.float32([0.1, 0.5, 1.0, -0.3, 0.6]))
    return engine.vi.fit(
        bound,
        engine.key(0),
        x,
        num_steps=1,
        optimizer=optimizer,
        params={"how": engine.array(how)},
        progress=False,
    )


@each_engine
@pytest.mark.parametrize(
    ("moved", "verdict", "number"),
    [
        ([0, 0, 0, 0], "good", None),
        ([0, 0, 0.4, 0], "poor", "z"),
        ([0, 0, 0, -0.7], "poor", "z"),
        ([2, 0, 0, 0], "poor", "k"),
    ],
    ids=["exact", "shifted", "narrow", "odds"],
)
def test_a_guide_that_takes_the_data(engine, moved, verdict, number):
    """400 data sets see each of these errors with more than six standard errors; what is exact is called poor once in 1,000."""
    with on(engine):
        report = ppvi.calibrate(amortised(engine, exact() + np.float32(moved)), data_sets=400, progress=False)
    assert report.verdict == verdict
    assert number is None or next(row.p for row in report.rows if row.name == number) < 1e-3
    assert {row.name for row in report.rows} == {"z", "k"}
    assert report.ranks["z"].shape == (400,)
    assert f"calibration: {verdict}, of 400 data sets" in " ".join(str(report).split())
    assert report.to_dict()["rows"]["z"]["p"] == next(row.p for row in report.rows if row.name == "z")


def test_what_ranks_say_of_normal_posteriors():
    """Bias and spread of posteriors of a known error: by 20,000 data sets, with standard errors of .007 and .01."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((20_000, 2))
    draws = np.stack([0.2 + rng.standard_normal((20_000, 99)), 0.5 * rng.standard_normal((20_000, 99))], axis=-1)
    shifted, narrow = sorted(Calibration.of({"z": truth}, {"z": draws}).rows, key=lambda row: row.name)
    assert (shifted.name, narrow.name) == ("z[0]", "z[1]")
    assert shifted.bias == pytest.approx(0.2, abs=0.03)
    assert narrow.bias == pytest.approx(0, abs=0.03)
    # of u = Phi(2 t), t standard normal: Var u = arcsin(rho) / (2 pi) with rho = 4 / 5
    assert narrow.spread == pytest.approx(12 * math.asin(0.8) / (2 * math.pi), abs=0.05)


def test_a_large_bias_is_told_in_full():
    """Posteriors two of their standard deviations too high: by 20,000 data sets, with a standard error below .02."""
    rng = np.random.default_rng(2)
    (row,) = Calibration.of({"z": rng.standard_normal(20_000)}, {"z": 2 + rng.standard_normal((20_000, 99))}).rows
    assert row.bias == pytest.approx(2, abs=0.1)


def test_what_so_many_data_sets_see():
    """A bias of the size that is stated, of one among a thousand numbers, is an alarm in 95 % of reports: of 400, in fewer than
    90 % once in 100,000 times."""
    rng, numbers = np.random.default_rng(3), 1000
    sees = Calibration.of({"z": np.zeros((100, numbers))}, {"z": np.zeros((100, 1, numbers))}).sees
    found = [
        Calibration.of({"z": rng.standard_normal(100)}, {"z": sees + rng.standard_normal((100, 99))})
        for _ in range(400)
    ]
    assert np.mean([report.rows[0].p * numbers < ALARM for report in found]) > 0.9


@pytest.mark.slow
def test_false_alarms():
    """Of exact posteriors of ten numbers, whose ranks are uniform, one report in a thousand is an alarm: of 400, at most 4 but
    once in a thousand times."""
    rng = np.random.default_rng(1)
    reports = [
        Calibration.of({"z": rng.uniform(size=(50, 10))}, {"z": rng.uniform(size=(50, 19, 10))}) for _ in range(400)
    ]
    assert sum(report.verdict == "poor" for report in reports) <= 4


def one(x):
    z = ppl.sample("z", dist.Normal(xp.array(0.0), 1.0))
    ppl.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.slow
@on_pyro_first
def test_approximations_are_made_anew(engine):
    with on(engine):
        fit = engine.vi.approximate(one, engine.key(0), engine.array(np.float32(0.5)))
        report = ppvi.calibrate(fit, data_sets=10, draws=29, progress=False)
    assert report.data_sets == 10
    assert report.verdict == "good"


@pytest.mark.slow
@on_pyro_first
def test_fits_are_made_anew_as_is_said(engine):
    keys, biased = [], engine.array(np.float32(3.0))

    def refit(model, key, x):
        keys.append(key)
        return engine.vi.approximate(model, key, x + biased)

    with on(engine):
        fit = engine.vi.approximate(one, engine.key(0), engine.array(np.float32(0.5)))
        report = ppvi.calibrate(fit, data_sets=12, draws=29, refit=refit, progress=False)
    assert len(keys) == 12
    assert report.verdict == "poor"
    assert report.rows[0].bias > 0


Named = namedtuple("Named", "rows count")


@each_engine
@pytest.mark.parametrize(
    "given",
    [
        lambda x, engine: x.astype(np.float64),
        lambda x, engine: x.tolist(),
        lambda x, engine: engine.array(np.int64([1, -2, 3])),
        lambda x, engine: np.int64([1, -2, 3]),
        lambda x, engine: Named(engine.array(x), 3),
        lambda x, engine: {"a": [engine.array(x), 3.0]},
    ],
    ids=["float64", "list", "whole", "whole float64", "named", "nested"],
)
def test_others_take_the_place_of_the_data(engine, given):
    """As they were drawn: in whatever the data are given, and not rounded where those were whole."""
    x, other = np.float32([0.1, 0.5, 1.25]), np.float32([9.5, 8.25, -7.5])
    with on(engine):
        old = given(x, engine)
        seen = leaf(old)
        data = Data(engine.vi.objective(elbo, one, fixed), (old,), {}, {"x": np.asarray(seen, np.float32)})
        (new,), _ = data.replaced({"x": other})
        assert type(new) is type(old)
        assert np.array_equal(np.asarray(leaf(new)), other)


def leaf(given):
    """The data in what a model is given."""
    if isinstance(given, Named):
        return given.rows
    return given["a"][0] if isinstance(given, dict) else given


@each_engine
def test_data_of_which_the_place_is_not_known(engine):
    x = engine.array(np.float32([0.0, 0.0]))
    again = engine.array(np.float32([0.0, 0.0]))
    numbers = np.float32([0.0, 0.0])
    with on(engine):
        bound = engine.vi.objective(elbo, one, fixed)
        with pytest.raises(ppvi.ProgramError, match="'x' are equal to those of another site, or to several arguments"):
            Data(bound, (x, again), {}, {"x": numbers})
        with pytest.raises(ppvi.ProgramError, match="'x' are equal to those of another site"):
            Data(bound, (x,), {}, {"x": numbers, "y": numbers})
        twice = Data(bound, (x,), {"of": x}, {"x": numbers}).replaced({"x": np.float32([1.0, 2.0])})
    assert np.array_equal(np.asarray(twice[0][0]), np.asarray(twice[1]["of"]))


def fixed(x):
    ppl.sample("z", dist.Normal(ppl.param("loc", xp.array(0.0)), 1.0))


def doubled(x):
    z = ppl.sample("z", dist.Normal(xp.array(0.0), 1.0))
    ppl.sample("x", dist.Normal(z, 1.0), obs=2 * x)


@each_engine
def test_mistakes_are_told(engine):
    x = engine.array(np.float32(0.5))
    with on(engine):
        bound = engine.vi.objective(elbo, one, fixed)
        fit = engine.vi.fit(bound, engine.key(0), x, num_steps=2, progress=False)
        with pytest.raises(ppvi.ProgramError, match="draws the same whatever the data"):
            ppvi.calibrate(fit, progress=False)
        with pytest.raises(ppvi.ProgramError, match="data_sets must be"):
            ppvi.calibrate(fit, data_sets=3)
        with pytest.raises(ppvi.ProgramError, match="refit returns a fit"):
            ppvi.calibrate(fit, refit=lambda model, key, x: None, data_sets=10, progress=False)
        with pytest.raises(ppvi.ProgramError, match="it takes a fit"):
            ppvi.calibrate(bound)
        other = engine.vi.fit(engine.vi.objective(elbo, doubled, fixed), engine.key(0), x, num_steps=2, progress=False)
        with pytest.raises(ppvi.ProgramError, match="'x' are no argument of the model"):
            ppvi.calibrate(other, progress=False)


def scaled(n, y):
    z = ppl.sample("z", dist.Normal(xp.array(0.0), 1.0))
    ppl.sample("y", dist.Normal(z * n, 1.0).to_event(1), obs=y)


def weighed(y):
    z = ppl.sample("z", dist.Normal(xp.array(0.0), 1.0))
    ppl.factor("y", -((z - y) ** 2).sum())


@each_engine
def test_which_argument_is_observed_has_to_be_known(engine):
    """A covariate that is by chance equal to the data would be replaced with them."""
    x, other = (engine.array(np.ones(3, np.float32)) for _ in range(2))
    with on(engine):
        bound = engine.vi.objective(elbo, scaled, lambda n, y: fixed(y))
        fit = engine.vi.fit(bound, engine.key(0), x, other, num_steps=2, progress=False)
        with pytest.raises(ppvi.ProgramError, match="or to several arguments"):
            ppvi.calibrate(fit, progress=False)
        fit = engine.vi.fit(engine.vi.objective(elbo, weighed, fixed), engine.key(0), x, num_steps=2, progress=False)
        with pytest.raises(ppvi.ProgramError, match="observes nothing"):
            ppvi.calibrate(fit, progress=False)


def penalised(x):
    z = ppl.sample("z", dist.Normal(xp.array(0.0), 1.0))
    ppl.factor("far", -((z - 2.0) ** 2))
    ppl.sample("x", dist.Normal(z, 1.0), obs=x)


@each_engine
def test_a_factor_beside_data_is_no_prior_to_draw_from(engine):
    with on(engine):
        bound = engine.vi.objective(elbo, penalised, fixed)
        fit = engine.vi.fit(bound, engine.key(0), engine.array(np.float32(0.5)), num_steps=2, progress=False)
        with pytest.raises(ppvi.ProgramError, match="the factors 'far'"):
            ppvi.calibrate(fit, progress=False)


def test_doubles_of_numpy_are_found():
    """Which NumPyro's programs observe in single precision."""
    x = np.random.default_rng(0).normal(size=ROWS)
    assert x.dtype == np.float64
    with on(NUMPYRO):
        bound = NUMPYRO.vi.objective(elbo, model, guide)
        fit = NUMPYRO.vi.fit(bound, NUMPYRO.key(0), x, num_steps=2, params={"how": exact()}, progress=False)
        assert ppvi.calibrate(fit, data_sets=10, progress=False).verdict == "good"


def hardly(x):
    """A guide that takes little of the data."""
    how = ppl.param("how", xp.array([0.0, 0.0, 0.0, 0.0]))
    ppl.sample("k", dist.Bernoulli(logits=how[0] + 1e-3 * x.mean()))
    ppl.sample("z", dist.Normal(how[2] + 1e-3 * x.mean(), 1.0))


@each_engine
def test_a_guide_that_takes_little_of_the_data_is_asked_too(engine):
    """Draws given other data differ by less than their standard errors, and are no draws of a guide that takes none."""
    x = engine.array(np.float32([0.1, 0.5, 1.0, -0.3, 0.6]))
    with on(engine):
        bound = engine.vi.objective(elbo, model, hardly)
        fit = engine.vi.fit(bound, engine.key(0), x, num_steps=1, progress=False)
        assert ppvi.calibrate(fit, data_sets=50, progress=False).data_sets == 50
