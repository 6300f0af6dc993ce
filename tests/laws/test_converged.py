"""Fits that stop by themselves: they average, go on exactly, do not stop while they drift, and say what they have found."""

import functools

import numpy as np
import optax
import pytest
import torch

import ppvi
from ppvi import _averages
from ppvi.objectives import elbo
from tests.engines import ENGINES, NUMPYRO, dist, on, ppl, xp
from tests.laws.test_resumed_fits import assert_same, rowed

Y = np.array([1.2, 0.4, 2.1, 1.7], np.float32)
each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


@pytest.fixture
def few(monkeypatch):
    """Fewer parts, of which fewer steps are enough."""
    monkeypatch.setattr(_averages, "PARTS", 8)


def model(y):
    z = ppl.sample("z", dist.Normal(xp.array(0.0), xp.array(1.0)))
    with ppl.plate("data", len(y)):
        ppl.sample("y", dist.Normal(z, xp.array(1.0)), obs=y)


def guide(y):
    loc = ppl.param("loc", xp.array(0.0))
    ppl.sample("z", dist.Normal(loc, ppl.param("sd", xp.array(0.5), constraint=dist.constraints.positive)))


def point(y):
    ppl.sample("z", dist.Delta(ppl.param("loc", xp.array(0.0))))


def run(engine, steps, guide=guide, **options):
    bound, y = engine.vi.objective(elbo, model, guide), engine.array(Y)
    options = {"until": ppvi.Converged(), "optimizer": 0.02, "progress": False} | options
    return engine.vi.fit(bound, engine.key(7), y, num_steps=steps, **options)


@pytest.mark.parametrize("engine", [NUMPYRO, *(pytest.param(x, marks=pytest.mark.slow) for x in ENGINES[1:])])
def test_it_stops_at_the_optimum(engine):
    """The posterior is N(sum y / 5, 1 / 5); of a mean that is known to 0.1 sds it is rare that it is off by 0.3."""
    with on(engine):
        fit = run(engine, 6000)
        assert fit.state.step < 6000
        half = fit.state.step // 2 // 25 * 25
        assert fit.why.startswith(f"converged: {half} steps moved the guide by 0.")
        assert abs(float(fit.params["loc"]) - Y.sum() / 5) < 0.3 / np.sqrt(5)
        assert abs(np.log(float(fit.params["sd"]) * np.sqrt(5))) < 0.3


@each_engine
def test_parameters_are_means_over_the_last_half(engine, few):
    seen = []
    with on(engine):
        run(engine, 200, until=(), every=1, callback=lambda step, fit: seen.append(float(fit.params["loc"])))
        fit = run(engine, 210)
    np.testing.assert_allclose(float(fit.params["loc"]), np.mean(seen[100:]), rtol=1e-5)


@each_engine
def test_parts_are_the_whole(engine, few, tmp_path):
    with on(engine):
        whole, part = run(engine, 2000), run(engine, 113, checkpoint=tmp_path)
        assert "converged" in whole.why
        bound = engine.vi.objective(elbo, model, guide)
        for before in (part, ppvi.load(tmp_path, bound)):
            rest = run(engine, 2000, state=before)
            assert_same(whole, rest)
            assert rest.why == whole.why
            for name, x in whole.state.trail.means.items():
                np.testing.assert_array_equal(x, rest.state.trail.means[name])


@each_engine
def test_each_start_has_its_own_averages(engine):
    with on(engine):
        several = run(engine, 100, num_starts=2)
        alone = run(engine, 50, state=several, num_starts=1)
        assert several.state.starts == 2
        assert alone.state.trail.blocks == 6
        assert several.averages is None
        if several.start == 0:
            np.testing.assert_allclose(float(several.params["loc"]), float(run(engine, 100).params["loc"]), rtol=1e-5)


@each_engine
def test_it_does_not_stop_while_it_drifts(engine, few):
    """Less than 0.1 sds in all these steps, which is the tolerance, and 20 sds from the optimum."""
    with on(engine):
        rule = optax.sgd(1e-6) if engine is NUMPYRO else functools.partial(torch.optim.SGD, lr=1e-6)
        fit = run(engine, 1000, optimizer=rule, params={"loc": 10.0})
        assert fit.why == "all steps taken"
        assert float(fit.params["loc"]) > 9.5


@each_engine
def test_of_points_the_parameters_are_looked_at(engine, few):
    with on(engine):
        fit = run(engine, 1500, guide=point)
        assert fit.why.startswith("converged: the parameters were stationary in")
        np.testing.assert_allclose(float(fit.params["loc"]), Y.sum() / 5, atol=0.02)


@pytest.mark.slow
@each_engine
def test_of_minibatches_the_parameters_are_looked_at(engine):
    """Where the rows of the batch are all that is known. d/ds of the bound is 0 at s = 1 / 2 for the average row."""
    x = np.arange(6, dtype=np.float32)
    with on(engine):
        batches = [engine.array(x[[i, 5 - i]]) for i in range(3)]
        options = {"num_steps": 20_000, "optimizer": 0.003, "progress": False, "until": ppvi.Converged()}
        fit = engine.vi.fit(rowed(engine), engine.key(1), batches=batches, **options)
        assert fit.why.startswith("converged: the parameters were stationary in")
        np.testing.assert_allclose(float(fit.params["slope"]), 0.5, atol=0.05)


@each_engine
def test_what_is_refused(engine):
    with on(engine):
        with pytest.raises(ppvi.ProgramError, match=r"averaging= and until=ppvi\.Converged\(\) both average"):
            run(engine, 2, averaging=3)
        with pytest.raises(ppvi.ProgramError, match="is of a fit with until=ppvi"):
            run(engine, 2, until=(), state=run(engine, 2))
        with pytest.raises(ppvi.ProgramError, match="is of a fit without until=ppvi"):
            run(engine, 2, state=run(engine, 2, averaging=3, until=()))
        with pytest.raises(ppvi.ProgramError, match="until= is a rule"):
            run(engine, 2, until=ppvi.Converged)
    with pytest.raises(ppvi.ProgramError, match="Converged is for until= of a fit"):
        ppvi.Converged()(object())
