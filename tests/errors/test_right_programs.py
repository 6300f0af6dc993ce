"""Right programs in the peers' idioms, which no check of mistakes may refuse or warn of."""

import dataclasses
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.experimental.sparse import BCOO

import ppvi
from tests.engines import ENGINES, NUMPYRO, PYRO, on
from tests.errors.table import Case, N


def scalar_data(e, y, mean):
    with e.ppl.plate("rows", N):
        e.ppl.sample("heights", e.dist.Normal(mean, 1.0), obs=y[0])


def data_of_one(e, y, mean):
    with e.ppl.plate("rows", N):
        e.ppl.sample("heights", e.dist.Normal(mean, 1.0), obs=y[:1])


def soft_constraint(e, y, mean):
    e.ppl.sample("heights", e.dist.Normal(mean * y, 1.0), obs=e.array(0.0))


def no_plate(e, y, mean):
    e.ppl.sample("heights", e.dist.Normal(mean * y, 1.0), obs=y)


def location_of_one(e, y, mean):
    with e.ppl.plate("rows", N):
        e.ppl.sample("heights", e.dist.Normal(mean[None], 1.0), obs=y)


def crossed(e, y, mean):
    with e.ppl.plate("rows", N, dim=-1), e.ppl.plate("columns", 3, dim=-2):
        e.ppl.sample("heights", e.dist.Normal(mean * y, 1.0), obs=y * e.xp.ones((3, 1)))


def data_in_one_of_two_plates(e, y, mean):
    with e.ppl.plate("rows", N, dim=-1), e.ppl.plate("columns", 3, dim=-2):
        e.ppl.sample("heights", e.dist.Normal(mean * y, 1.0), obs=y)


def outer_plate_alone(e, y, mean):
    with e.ppl.plate("rows", N, dim=-2):
        e.ppl.sample("heights", e.dist.Normal(mean * y[:, None], 1.0), obs=y[:, None])


def expanded(e, y, mean):
    e.ppl.sample("heights", e.dist.Normal(mean, 1.0).expand((N,)).to_event(1), obs=y)


def events(e, y, mean):
    with e.ppl.plate("columns", 3):
        e.ppl.sample("heights", e.dist.Normal(mean * y, 1.0).to_event(1), obs=y * e.xp.ones((3, 1)))


def minibatch(e, y, mean):
    with e.ppl.plate("rows", N, subsample_size=2) as rows:
        e.ppl.sample("heights", e.dist.Normal(mean * y[rows], 1.0), obs=y[rows])


def size_of_numpy(e, y, mean):
    with e.ppl.plate("rows", np.int64(N)):
        e.ppl.sample("heights", e.dist.Normal(mean, 1.0), obs=y)


def plate_twice(e, y, mean):
    for name in ("first", "second"):
        with e.ppl.plate("rows", N):
            e.ppl.sample(name, e.dist.Normal(mean, 1.0), obs=y)


def masked_nan(e, y, mean):
    there = e.xp.arange(N) > 0
    broken = e.xp.where(there, y, e.array(np.nan))
    with e.ppl.plate("rows", N), e.handlers.mask(mask=there):
        e.ppl.sample("heights", e.dist.Normal(mean * broken, 1.0), obs=y)


def scale_of_zero_that_is_masked(e, y, mean):
    there = e.xp.arange(N) > 0
    with e.ppl.plate("rows", N), e.handlers.mask(mask=there):
        e.ppl.sample("heights", e.dist.Normal(mean, there * 2.0 - 1.0, validate_args=False), obs=y)


LIKELIHOODS = [
    scalar_data, data_of_one, soft_constraint, no_plate, location_of_one, crossed, data_in_one_of_two_plates, outer_plate_alone,
    expanded, events, minibatch, size_of_numpy, plate_twice, masked_nan, scale_of_zero_that_is_masked,
]  # fmt: skip


ROWS = [
    pytest.param(likelihood, engine, id=f"{likelihood.__name__}-{engine.name}")
    for likelihood in LIKELIHOODS
    for engine in ENGINES
    if engine is NUMPYRO or likelihood not in (soft_constraint, no_plate)  # whose axes are of no plate, as Pyro has it
]


@pytest.mark.parametrize(("likelihood", "engine"), ROWS)
def test_a_right_likelihood_is_taken_in_silence(likelihood, engine):
    with on(engine), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        e = Case(engine)
        value, grads = e.gradient(model=lambda y: likelihood(e, y, e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))))
        assert np.isfinite(float(value))
        assert float(grads["loc"]) != 0


def from_a_function(e):
    return e.ppl.param("loc", lambda *key: e.array(0.1))


def float_of_python(e):
    return e.ppl.param("loc", 0.1)


def asked_again(e):
    e.ppl.param("loc", e.array(0.1))
    return e.ppl.param("loc")


def constraint_said_twice(e):
    positive = e.dist.constraints.positive
    return e.ppl.param("loc", e.array(0.1), constraint=positive) + e.ppl.param("loc", e.array(0.1), constraint=positive)


def simplex_up_to_rounding(e):
    weights = np.full(1000, 1 / 1000, np.float32) * np.float32(1 + 3e-6)
    return e.ppl.param("weights", e.array(weights), constraint=e.dist.constraints.simplex)[0]


def interval(e):
    return e.ppl.param("loc", e.array(0.5), constraint=e.dist.constraints.interval(0.0, 1.0))


PARAMETERS = [
    from_a_function, float_of_python, asked_again, constraint_said_twice, simplex_up_to_rounding, interval,
]  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("declared", PARAMETERS, ids=lambda declared: declared.__name__)
def test_a_right_parameter_is_taken_in_silence(declared, engine):
    with on(engine), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        e = Case(engine)
        value, _ = e.gradient(guide=lambda y: e.ppl.sample("mean", e.dist.Normal(declared(e), 1.0)))
        assert np.isfinite(float(value))


@dataclasses.dataclass
class Unhashable:
    """A program as a record, which says when it is equal to another."""

    e: Case

    def __call__(self, x):
        return self.e.model(x)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_a_program_that_has_no_hash_is_taken(engine):
    with on(engine):
        e = Case(engine)
        assert np.isfinite(float(e.gradient(model=Unhashable(e), args=(e.y.tolist(),))[0]))


class StandsForAnArray:
    def __init__(self, array):
        self.array = array

    def __jax_array__(self):
        return self.array

    def __array__(self, *args, **kwargs):
        return np.asarray(self.array, *args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.array, name)


OTHER_ARRAYS = [
    (NUMPYRO, lambda y: y.astype(jnp.bfloat16), lambda y: y),
    (NUMPYRO, lambda y: BCOO.fromdense(jnp.diag(y)), lambda y: y @ jnp.ones(N)),
    (NUMPYRO, lambda y: y, StandsForAnArray),
    (PYRO, lambda y: y.bfloat16(), lambda y: y),
    (PYRO, lambda y: y.as_subclass(type("Own", (torch.Tensor,), {})), lambda y: y.as_subclass(torch.Tensor)),
]


@pytest.mark.parametrize(("engine", "given", "used"), OTHER_ARRAYS)
def test_a_framework_s_other_arrays_are_taken_as_they_are(engine, given, used):
    with on(engine):
        e = Case(engine)
        value, grads = e.gradient(
            model=lambda y: expanded(e, used(y), e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))), args=(given(e.y),)
        )
        assert np.isfinite(float(value))
        assert float(grads["loc"]) != 0


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_the_other_library_s_handlers_may_end_while_a_program_runs(engine):
    """As they do in another thread."""
    with on(engine):
        e = Case(engine)
        trace = Case(PYRO if e.is_numpyro else NUMPYRO).handlers.trace
        others = [trace() for _ in range(100)]
        for handler in reversed(others):
            handler.__enter__()

        def model(y):
            others.pop(0).__exit__(None, None, None)
            return e.model(y)

        try:
            assert np.isfinite(float(e.gradient(model=model)[0]))
        finally:
            for handler in others:
                handler.__exit__(None, None, None)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_fits_are_compared_with_a_single_chain_in_silence(engine, caplog):
    e, x = Case(engine), np.random.default_rng(0).normal(size=500)
    with on(engine):
        assert "one chain, no R-hat" in str(ppvi.compare(e.fit(), {"mean": x}))
    assert not caplog.records


def within(e):
    """A model whose support is that of its data, and its autoguide."""

    def model(y):
        mean = e.ppl.sample("mean", e.dist.Uniform(y.mean() - 3 * y.std(), 3.3 * y.max()))
        with e.ppl.plate("rows", N):
            e.ppl.sample("heights", e.dist.Normal(mean, 1.0), obs=y)

    return model


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_a_support_of_the_same_data_in_another_type(engine):
    with on(engine):
        e = Case(engine)
        y = e.array(np.random.default_rng(0).normal(size=N))
        wide = np.asarray(y, np.float64) * (1 + 1e-7) if engine is NUMPYRO else y.double() * (1 + 1e-7)
        bound = e.vi.objective(ppvi.objectives.elbo, model := within(e), e.infer.autoguide.AutoNormal(model))
        bound.init(e.key, wide)
        bound.init(e.key, y)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_draws_from_the_prior_know_nothing_of_an_autoguide(engine):
    with on(engine):
        e = Case(engine)
        bound = e.vi.objective(ppvi.objectives.elbo, model := within(e), e.infer.autoguide.AutoNormal(model))
        bound.init(e.key, e.y)
        found = e.vi.predict(bound, e.key, None, e.y + 100, draws=50).prior["mean"].values
        assert found.min() > 90


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_a_list_of_guides_has_parts_of_the_users(engine):
    with on(engine):
        e = Case(engine)

        def model(y):
            low = e.ppl.sample("low", e.dist.Uniform(y.min(), y.max()))
            mean = e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
            with e.ppl.plate("rows", N):
                e.ppl.sample("heights", e.dist.Normal(low + mean, 1.0), obs=y)

        def mine(y):
            return {"low": e.ppl.sample("low", e.dist.Uniform(y.min(), y.max()))}

        guide = e.infer.autoguide.AutoGuideList(model)
        guide.append(e.infer.autoguide.AutoNormal(e.handlers.block(model, hide=["low"])))
        guide.append(mine)
        bound = e.vi.objective(ppvi.objectives.elbo, model, guide)
        for y in (e.y, e.y + 10):
            bound.init(e.key, y)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.name)
def test_an_estimate_within_a_program_that_somebody_runs(engine):
    """As NUTS and Predictive run programs, under handlers of their own."""
    with on(engine):
        e = Case(engine)
        bound, seen = e.objective(), []

        def outer():
            e.ppl.sample("other", e.dist.Normal(0.0, 1.0))
            seen.append(float(bound.estimate(e.key, e.params, e.y)))

        runs = e.handlers.seed(outer, rng_seed=0) if engine is NUMPYRO else outer
        e.handlers.trace(e.handlers.condition(runs, data={"other": e.array(1.0)})).get_trace()
        np.testing.assert_allclose(seen, float(bound.estimate(e.key, e.params, e.y)), rtol=1e-6)
