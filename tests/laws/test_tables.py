"""Data come as tables, columns and lists too. A program that computes with them as with arrays has the estimate of these arrays;
one that reads them as what they are gets them as they are; and nothing that is right is refused for how it looks.

The oracle is the same program on arrays of the framework, with the same key.
"""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import ppvi
from tests.engines import ENGINES, PYRO, dist, on, ppl, xp

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)

X = np.array([[0.5, 1.0], [-1.0, 2.0], [0.25, 0.0], [1.5, -2.0]])
Y = np.array([0.5, -1.0, 2.0, 0.0])


def model(x, y):
    slopes = ppl.sample("slopes", dist.Normal(xp.zeros(2), 1.0).to_event(1))
    with ppl.plate("rows", 4):
        ppl.sample("y", dist.Normal(x @ slopes, 1.0), obs=y)


def guide(x, y):
    ppl.sample("slopes", dist.Normal(ppl.param("loc", xp.zeros(2)), 0.5).to_event(1))


TABLES = {
    "tables of pandas": lambda engine: (pd.DataFrame(X, columns=["a", "b"]), pd.Series(Y)),
    "a table of integers and floats": lambda engine: (
        pd.DataFrame({"a": X[:, 0], "b": X[:, 1].astype(int)}),
        pd.Series(Y),
    ),
    "nullable and sparse columns": lambda engine: (
        pd.DataFrame({"a": pd.arrays.SparseArray(X[:, 0]), "b": pd.array(X[:, 1].astype(int), dtype="Int64")}),
        pd.Series(Y, index=list("abcd")),
    ),
    "xarray": lambda engine: (xr.DataArray(X, dims=("row", "column")), xr.DataArray(Y, dims="row")),
    "lists": lambda engine: (X.tolist(), Y.tolist()),
    "tuples": lambda engine: (tuple(map(tuple, X)), tuple(Y)),
    "NumPy": lambda engine: (X, Y),
    "a masked array without a gap": lambda engine: (engine.array(X), np.ma.masked_invalid(Y)),
    "whole numbers in an array of integers": lambda engine: (engine.array(X), engine.array(Y)),
}


@pytest.mark.parametrize("kind", TABLES)
@each_engine
def test_what_holds_numbers_is_an_array(engine, kind):
    with on(engine):
        bound, given = engine.vi.objective(ppvi.objectives.elbo, model, guide), TABLES[kind](engine)
        params = bound.init(engine.key(0), *given)
        value, grads = bound.value_and_grad(engine.key(1), params, *given)
        truth, slopes = bound.value_and_grad(engine.key(1), params, engine.array(X), engine.array(Y))
        assert float(value) == pytest.approx(float(truth), rel=1e-5)
        np.testing.assert_allclose(np.asarray(grads["loc"]), np.asarray(slopes["loc"]), rtol=1e-4)
        if kind == "tables of pandas":
            assert engine.vi.fit(bound, engine.key(0), *given, num_steps=2, progress=False).posterior(draws=3)


def test_a_table_in_a_program_that_is_replayed():
    def branching(x, y):
        model(x, y)
        if ppl.sample("coin", dist.Bernoulli(0.5)):
            ppl.sample("late", dist.Normal(0.0, 1.0), obs=xp.array(1.0))

    def both(x, y):
        guide(x, y)
        ppl.sample("coin", dist.Bernoulli(0.5))

    with on(PYRO):
        bound = PYRO.vi.objective(ppvi.objectives.elbo, branching, both)
        tables, tensors = (pd.DataFrame(X), pd.Series(Y)), (torch.tensor(X).float(), torch.tensor(Y).float())
        params = bound.init(0, *tables)
        for seed in range(3):
            values = [float(bound.estimate(seed, params, *given)) for given in (tables, tensors)]
            assert values[0] == pytest.approx(values[1], rel=1e-5)


@each_engine
def test_an_error_of_the_program_itself_stays_what_it_is(engine):
    def named(table, y):
        model(xp.asarray(table[["a", "c"]].to_numpy()), y)

    def raising(x, y):
        raise ValueError("no such link")

    with on(engine):
        for program, error in ((named, KeyError), (raising, ValueError)):
            bound = engine.vi.objective(ppvi.objectives.elbo, program, guide)
            with pytest.raises(error) as raised:
                bound.init(engine.key(0), pd.DataFrame(X, columns=["a", "b"]).assign(group="a"), Y)
            assert any("ppvi was running the model" in note for note in raised.value.__notes__)


OBSERVED = {
    "grey pixels": (lambda: dist.Bernoulli(probs=xp.array([0.2, 0.3, 0.4, 0.5])), np.array([0.0, 0.3, 1.0, 0.5])),
    "truth": (lambda: dist.Bernoulli(probs=xp.array([0.2, 0.3, 0.4, 0.5])), np.array([True, False, True, True])),
    "counts as floats": (lambda: dist.Poisson(xp.array([0.2, 0.3, 0.4, 0.5])), np.array([0.0, 3.0, 1.0, 2.0])),
    "heights as integers": (lambda: dist.Normal(xp.zeros(4), 1.0), np.array([150, 160, 170, 180])),
    "shares that are rounded": (
        lambda: dist.Dirichlet(xp.ones(3)).expand([4]),
        np.array([[0.333, 0.333, 0.333]] * 4),
    ),
    "at the ends of a uniform": (lambda: dist.Uniform(xp.zeros(4), xp.array(0.1)), np.array([0.0, 0.1, 0.05, 0.1])),
    "waiting no time": (lambda: dist.Exponential(xp.ones(4)), np.array([0.0, 1.0, 2.0, 3.0])),
    "one for all": (lambda: dist.Normal(xp.zeros(4), 1.0), 1.0),
    "excess of zeros": (lambda: dist.ZeroInflatedPoisson(gate=xp.array(0.3), rate=xp.ones(4)), np.array([0, 0, 1, 2])),
    "a mixture": (
        lambda: dist.MixtureSameFamily(
            dist.Categorical(probs=xp.array([0.4, 0.6])), dist.Normal(xp.array([0.0, 1.0]), 1.0)
        ).expand([4]),
        np.array([0.0, 1.0, 2.0, 3.0]),
    ),
    "gaps under a mask": (
        lambda: dist.Gamma(xp.ones(4), 1.0).mask(xp.array([True, False, True, False])),
        np.array([1.0, np.nan, 2.0, -9.0]),
    ),
    "triangles": (lambda: dist.Wishart(xp.array(5.0), xp.eye(2)), np.array([[2.0, 0.3], [0.3, 1.0]])),
    "a direction": (lambda: dist.VonMises(xp.zeros(4), 1.0), np.array([0.0, 3.0, -3.1, 1.0])),
}


@pytest.mark.parametrize("name", OBSERVED)
@each_engine
def test_data_that_a_site_may_have(engine, name):
    distribution, data = OBSERVED[name]

    def observing(y):
        ppl.sample("slopes", dist.Normal(xp.zeros(2), 1.0).to_event(1))
        ppl.sample("y", distribution(), obs=y)

    with on(engine):
        bound = engine.vi.objective(ppvi.objectives.elbo, observing, lambda y: guide(None, y))
        assert set(bound.init(engine.key(0), data)) == {"loc"}


@each_engine
def test_gaps_that_a_program_fills_in(engine):
    x = X.copy()
    x[2, 1] = np.nan

    def filling(x, y):
        model(xp.where(xp.isnan(x), 0.0, x), y)

    with on(engine):
        bound = engine.vi.objective(ppvi.objectives.elbo, filling, guide)
        params = bound.init(engine.key(0), engine.array(x), engine.array(Y))
        value = bound.estimate(engine.key(1), params, engine.array(x), engine.array(Y))
        plain = engine.vi.objective(ppvi.objectives.elbo, model, guide)
        filled = engine.array(np.nan_to_num(x))
        assert float(value) == pytest.approx(
            float(plain.estimate(engine.key(1), params, filled, engine.array(Y))), rel=1e-5
        )
        plain = engine.vi.objective(ppvi.objectives.elbo, model, guide, strategies={"slopes": ppvi.Reparam()})
        with pytest.raises(ppvi.ProgramError, match="argument 'x' is NaN in rows 2, for which site 'y' of the model"):
            plain.value_and_grad(engine.key(1), params, engine.array(x), engine.array(Y))


@each_engine
def test_a_density_that_its_user_has_opened(engine):
    def opened(y):
        ppl.sample("slopes", dist.Normal(xp.zeros(2), 1.0).to_event(1))
        with ppl.plate("rows", 4):
            ppl.sample("y", dist.Poisson(xp.array(1.0), validate_args=False), obs=y)

    with on(engine):
        bound = engine.vi.objective(ppvi.objectives.elbo, opened, lambda y: guide(None, y))
        assert bound.init(engine.key(0), engine.array(np.array([0.5, 1.5, 2.0, 1.0])))
