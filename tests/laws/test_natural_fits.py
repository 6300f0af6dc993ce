"""Fits by natural gradients: starts side by side, batches that come one by one, stopping, other shapes, and the noise of draws."""

from dataclasses import replace

import numpy as np
import pytest

import ppvi
from ppvi.objectives import elbo, stl
from ppvi.optimizers import Natural
from tests.engines import ENGINES, on
from tests.laws.test_natural_gradients import (
    LOC,
    NOISE,
    ONE,
    PRECISION,
    PRIOR,
    QUADRATURE,
    Y,
    by_arguments,
    normal_model,
    value,
)

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
SD = PRECISION**-0.5


def fitted(engine, bound, optimizer=None, y=Y, **options):
    optimizer = Natural() if optimizer is None else optimizer
    return engine.vi.fit(bound, engine.key(0), engine.array(y), optimizer=optimizer, progress=False, **options)


def found(fit):
    return float(value(fit.params["m"])), float(value(fit.params["s"]))


@each_engine
def test_every_start_is_exact_after_one_step(engine):
    with on(engine):
        bound = engine.vi.objective(elbo, normal_model, by_arguments, strategies=QUADRATURE)
        fit = fitted(engine, bound, ONE, num_steps=1, num_starts=3)
    np.testing.assert_allclose(found(fit), (LOC, SD), rtol=1e-4)
    assert fit.chosen is not None


@each_engine
def test_the_posterior_of_each_batch_in_turn(engine):
    """Of a step of size one on a batch nothing is left of the batch before; batches may have other shapes."""
    batches, whole = [Y[:2], Y[1:], Y], replace(ONE, decay=None)
    with on(engine):
        bound = engine.vi.objective(elbo, normal_model, by_arguments, strategies=QUADRATURE)
        for n in range(1, 4):
            arrays = [(engine.array(batch),) for batch in batches]
            fit = engine.vi.fit(bound, engine.key(0), batches=arrays, num_steps=n, optimizer=whole, progress=False)
            y = batches[n - 1]
            precision = 1 / PRIOR[1] ** 2 + len(y) / NOISE**2
            loc = (PRIOR[0] / PRIOR[1] ** 2 + y.sum() / NOISE**2) / precision
            np.testing.assert_allclose(found(fit), (loc, precision**-0.5), rtol=1e-4)


@each_engine
def test_it_comes_to_the_posterior_by_single_draws(engine):
    """Without noise at the posterior, as of the path derivative, it is met; with it, to a tenth of a standard deviation."""
    with on(engine):
        quiet = fitted(engine, engine.vi.objective(stl, normal_model, by_arguments), num_steps=400)
        noisy = fitted(engine, engine.vi.objective(elbo, normal_model, by_arguments), num_steps=1500, averaging=3.0)
    np.testing.assert_allclose(found(quiet), (LOC, SD), rtol=1e-3)
    assert abs(found(noisy)[0] - LOC) < 0.1 * SD
    assert abs(np.log(found(noisy)[1] / SD)) < 0.1


@each_engine
def test_it_stops_where_it_has_converged(engine):
    with on(engine):
        bound = engine.vi.objective(elbo, normal_model, by_arguments)
        fit = fitted(engine, bound, Natural(0.05, decay=None), num_steps=20_000, until=ppvi.Converged())
    assert len(fit.losses) < 20_000
    assert abs(found(fit)[0] - LOC) < 0.2 * SD
    assert abs(np.log(found(fit)[1] / SD)) < 0.2
