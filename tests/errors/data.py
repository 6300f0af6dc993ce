"""Mistakes in the data: what is passed to a model and a guide."""

import datetime
import io

import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.sparse
import torch
import xarray as xr

import ppvi
from tests.engines import NUMPYRO, PYRO
from tests.errors.table import PROGRAM, Case, N, mistake, mistakes

X = np.linspace(-1.0, 1.0, N)


def observing(distribution, y, event=0):
    """A gradient of a model of data alone, at one latent site."""

    def gradient(e: Case):
        def model(y):
            e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
            with e.ppl.plate("rows", N):
                e.ppl.sample("seen", distribution(e).to_event(event) if event else distribution(e), obs=y)

        e.objective(model=model).init(e.key, y(e) if callable(y) else e.xp.asarray(np.asarray(y)))

    return gradient


def as_events(distribution, y):
    """The same, where all of the data are one event."""

    def gradient(e: Case):
        def model(y):
            e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
            e.ppl.sample("seen", distribution(e).expand([N]).to_event(1), obs=y)

        e.objective(model=model).init(e.key, e.array(y))

    return gradient


def regression(x, y=None):
    """A gradient of a regression on what is passed for `x`."""

    def gradient(e: Case):
        def model(x, y):
            slope = e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
            with e.ppl.plate("rows", N):
                e.ppl.sample("heights", e.dist.Normal(slope * x, 1.0), obs=y)

        def guide(x, y):
            e.guide(y)

        e.gradient(model=model, guide=guide, args=(x(e), e.y if y is None else y(e)))

    return gradient


def as_long(e):
    """A model of as many rows as there are."""

    def model(y):
        mean = e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
        with e.ppl.plate("rows", len(y)):
            e.ppl.sample("heights", e.dist.Normal(mean, 1.0), obs=y)

    return model


def with_gap(value):
    x = X.copy()
    x[[1, 3]] = value
    return x


mistakes(
    PROGRAM,
    ("texts as data", lambda e: e.gradient(args=(np.array(list("abcde")),)), "'heights'", "tests/errors/table.py:", "texts"),
    ("a text as data", lambda e: e.gradient(args=("abc",)), "'heights'", "'abc'"),
    ("a list of texts as data", lambda e: e.gradient(args=(list("abcde"),)), "'heights'", "text"),
    ("an object as data", lambda e: e.gradient(args=(object(),)), "'heights'", "object"),
    ("dates as data", lambda e: e.gradient(args=(np.arange(N).astype("datetime64[D]"),)), "'heights'", "date"),
    ("objects as data", lambda e: e.gradient(args=(np.array([object()] * N),)), "'heights'", "object"),
    ("a date", lambda e: e.gradient(args=(datetime.date(2020, 1, 1),)), "'heights'", "date"),
    ("complex data", lambda e: e.gradient(args=(e.xp.asarray(X + 1j),)), "'heights'", "complex"),
    ("masked data", lambda e: e.gradient(args=(np.ma.masked_less(X, 0),)), "'heights'", "mask"),
    ("empty data", lambda e: e.gradient(args=(e.array(np.zeros(0)),)), "'heights'", "'rows'", "empty"),
    ("texts as covariate", regression(lambda e: np.array(list("abcde"))), "'x'", "text"),
    ("dates as covariate", regression(lambda e: np.arange(N).astype("datetime64[D]")), "'x'", "date"),
    ("masked covariate", regression(lambda e: np.ma.masked_less(X, 0)), "'x'", "mask"),
    ("objects as covariate", regression(lambda e: np.array([object()] * N)), "'x'", "object"),
    ("NaN in a covariate", regression(lambda e: e.array(with_gap(np.nan))), "'x'", "NaN", "rows 1, 3"),
    ("infinity in a covariate", regression(lambda e: e.array(with_gap(np.inf))), "'x'", "inf", "rows 1, 3"),
    ("NaN in observations", lambda e: e.objective().init(e.key, e.array(with_gap(np.nan))), "'heights'", "2 NaN"),
    ("infinity in observations", lambda e: e.objective().init(e.key, e.array(with_gap(np.inf))), "'heights'", "2", "infinit"),
    ("coin of minus one", observing(lambda e: e.dist.Bernoulli(0.5), [0.0, 1.0, -1.0, 1.0, 0.0]), "'seen'", "Bernoulli", "1 of 5", "row 2"),
    ("counts of fractions", observing(lambda e: e.dist.Poisson(2.0), [0.0, 1.5, 2.0, 0.5, 0.0]), "'seen'", "Poisson", "2 of 5", "row 1"),
    ("counts below zero", observing(lambda e: e.dist.Poisson(2.0), [0, 1, -2, 5, 0]), "'seen'", "Poisson", "1 of 5", "row 2"),
    ("labels out of range", observing(lambda e: e.dist.Categorical(e.xp.ones(3) / 3), [0, 1, 2, 3, 0]), "'seen'", "Categorical", "row 3"),
    ("labels from one", observing(lambda e: e.dist.Categorical(e.xp.ones(3) / 3), [1, 2, 3, 3, 1]), "'seen'", "Categorical", "row 2"),
    ("labels that are floats", observing(lambda e: e.dist.Categorical(e.xp.ones(3) / 3), [0.0, 1.0, 2.0, 0.5, 0.0]), "'seen'", "Categorical"),
    ("simplex of another sum", observing(lambda e: e.dist.Dirichlet(e.xp.ones(3)), np.full((N, 3), 0.5)), "'seen'", "Dirichlet", "simplex", "row 0"),
    ("negative waiting times", observing(lambda e: e.dist.Gamma(2.0, 1.0), [1.0, 2.0, -1.0, 3.0, 1.0]), "'seen'", "Gamma", "row 2"),
    ("no time at all", observing(lambda e: e.dist.LogNormal(0.0, 1.0), [1.0, 2.0, 0.0, 3.0, 1.0]), "'seen'", "LogNormal", "row 2"),
    ("shares of nothing and all", observing(lambda e: e.dist.Beta(2.0, 2.0), [0.5, 0.0, 1.0, 0.5, 0.2]), "'seen'", "Beta", "2 of 5"),
    ("shares in percent", observing(lambda e: e.dist.Beta(2.0, 2.0), [50.0, 20.0, 10.0, 5.0, 2.0]), "'seen'", "Beta", "5 of 5"),
    ("more successes than trials", observing(lambda e: e.dist.Binomial(3, e.xp.asarray(0.5)), [0.0, 1.0, 4.0, 1.0, 0.0]), "'seen'", "Binomial", "row 2"),
    ("outside of a uniform", observing(lambda e: e.dist.Uniform(0.0, 1.0), [0.0, 0.5, 1.5, 0.5, 0.0]), "'seen'", "Uniform", "row 2"),
    ("a coin of two in an event", as_events(lambda e: e.dist.Bernoulli(0.5), [0, 1, 2, 1, 0]), "'seen'", "Bernoulli", "0 and 1"),
    ("counts of fractions in an event", as_events(lambda e: e.dist.Poisson(2.0), [0, 1.5, 2, 1, 0]), "'seen'", "Poisson"),
    ("more successes than trials in an event", as_events(lambda e: e.dist.Binomial(3, e.array(0.5)), [0, 1, 4, 1, 0]), "'seen'", "Binomial"),
    ("waiting times below zero in an event", as_events(lambda e: e.dist.Exponential(1.0), [1, 2, -1, 3, 1]), "'seen'", "Exponential"),
    ("shares in percent in an event", as_events(lambda e: e.dist.Beta(2.0, 2.0), [50, 20, 10, 5, 2]), "'seen'", "Beta"),
    ("another length than the plate", lambda e: e.objective().init(e.key, e.array(np.zeros(7))), "'heights'", "(7,)", "'rows'", "5"),
    ("a column of responses", lambda e: e.objective().init(e.key, e.array(X[:, None])), "'heights'", "(5, 1)"),
    ("a table in place of a column", lambda e: e.objective().init(e.key, e.array(np.ones((N, 3)))), "'heights'", "(5, 3)"),
    ("transposed data", observing(lambda e: e.dist.Normal(0.0, 1.0).expand([3]), np.ones((3, N)), 1), "'seen'", "(3, 5)"),
    ("a generator as data", lambda e: e.gradient(args=((x for x in X),)), "'y'", "generator", "batches="),
    ("a file as data", lambda e: e.gradient(args=(io.StringIO("1,2"),)), "'y'", "StringIO"),
    ("a loader as data", lambda e: e.gradient(args=(torch.utils.data.DataLoader(X),)), "'y'", "DataLoader", "batches="),
    ("a column of texts", regression(lambda e: pd.Series(list("abcde"))), "'x'", "text"),
    ("a column of dates", regression(lambda e: pd.Series(pd.date_range("2020", periods=N))), "'x'", "date"),
    ("a column of categories", regression(lambda e: pd.Series(list("ababa")).astype("category")), "'x'", "categor"),
    ("a table with a column of texts", regression(lambda e: pd.DataFrame({"a": X, "group": list("abcde")})), "'x'", "'group'", "text"),
    ("an array of xarray with texts", regression(lambda e: xr.DataArray(np.array(list("abcde")), dims="row")), "'x'"),
    ("a dataset of xarray", regression(lambda e: xr.Dataset({"a": ("row", X)})), "'x'", "Dataset"),
    ("texts observed in a series", lambda e: e.gradient(args=(pd.Series(list("abcde")),)), "'heights'", "text"),
    ("a table observed", lambda e: e.gradient(args=(pd.DataFrame({"a": X, "b": X}),)), "'heights'", "(5, 2)"),
    ("data as a function", lambda e: e.gradient(args=(lambda: X,)), "'heights'", "function"),
    ("data as a set", lambda e: e.gradient(args=({1.0, 2.0},)), "'heights'", "set"),
    ("sparse covariates", regression(lambda e: scipy.sparse.eye(N).tocsr()), "'x'", "csr_matrix", "dense"),
    ("a set of data of torch", regression(lambda e: torch.utils.data.TensorDataset(torch.ones(N))), "'x'", "TensorDataset"),
    ("a range of texts", regression(lambda e: {"x": ["a", "b"]}), "'x'", "text"),
    ("gaps in a column", regression(lambda e: pd.Series(with_gap(np.nan))), "'x'", "NaN", "rows 1, 3"),
    ("missing entries of a list", lambda e: e.gradient(args=([0.1, None, 0.3, 0.4, 0.5],)), "'heights'", "entry 1", "None"),
    ("empty data and a plate", lambda e: e.gradient(model=as_long(e), args=(e.array(np.zeros(0)),)), "'y'", "empty"),
    ("ragged data", lambda e: e.gradient(args=([[1.0, 2.0], [1.0]],)), "'heights'", "length"),
)  # fmt: skip


@mistake(KeyError, "heights", "model")
def a_key_that_is_missing(e):
    def model(data):
        e.model(data["heights"])

    e.gradient(model=model, args=({"height": e.y},))


mistakes(
    PROGRAM,
    ("tensor of torch", lambda e: e.gradient(args=(torch.ones(N),)), "'y'", "Tensor"),
    ("tensor of torch as covariate", regression(lambda e: torch.ones(N)), "'x'", "Tensor", "x.numpy()"),
    ("labels of float dtype", observing(lambda e: e.dist.Categorical(e.xp.ones(3) / 3), [0.0, 1.0, 2.0, 1.0, 0.0]), "'seen'", "Categorical", "dtype"),
    on=NUMPYRO,
)  # fmt: skip
mistakes(
    PROGRAM,
    ("array of JAX", lambda e: e.gradient(args=(jnp.ones(N),)), "'y'", "another library"),
    ("meta tensors", lambda e: e.gradient(args=(torch.ones(N, device="meta"),)), "'y'", "meta"),
    on=PYRO,
)  # fmt: skip


@mistake(TypeError, "the model model", "'y', 3.0", "'mean'")
def a_number_for_an_array(e):
    def model(y):
        e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
        e.ppl.sample("heights", e.dist.Normal(0.0, 1.0), obs=y[0])

    e.gradient(model=model, args=(3.0,))


@mistake(ppvi.FitError, "'heights'", "argument 'y' is NaN in rows 1, 3")
def gaps_in_a_later_batch(e):
    e.vi.fit(e.bound, e.key, batches=[e.y, e.array(with_gap(np.nan))], num_steps=2, progress=False)
