"""A fit stops where a number or a parameter is lost, names it, and holds the parameters of the step before.

The objectives are functions of one parameter, whose steps are computed by hand: at step size r the unconstrained u goes to
u + r exp(u) where a scale exp(u) is to grow, and to u - r where minus its logarithm is.
"""

import functools

import numpy as np
import optax
import pytest
import torch

from ppvi.errors import FitError
from tests.engines import ENGINES, NUMPYRO, dist, on, ppl, xp

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


def model():
    ppl.sample("y", dist.Normal(ppl.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=xp.array(1.0))


def failed(engine, guide, program, step_size, num_steps=200):
    """The error of a fit by plain gradient steps."""
    rule = optax.sgd(step_size) if engine is NUMPYRO else functools.partial(torch.optim.SGD, lr=step_size)
    bound = engine.vi.objective(program, model, guide)
    with pytest.raises(FitError) as caught:
        engine.vi.fit(bound, engine.key(0), num_steps=num_steps, optimizer=rule, progress=False)
    return caught.value


def guide_of(constraint, start):
    def guide():
        value = ppl.param("scale", xp.array(start), constraint=constraint())
        ppl.sample("z", dist.Normal(0.0, 1.0))
        return value

    return guide


def positive():
    return dist.constraints.positive


@each_engine
def test_a_scale_that_becomes_infinite(engine):
    with on(engine):
        error = failed(engine, guide_of(positive, 1.0), lambda p, q: q.simulate().returned, 5.0)
        assert "step 1: parameter 'scale' has left its constraint" in str(error)
        assert "with the value inf" in str(error)
        np.testing.assert_allclose(np.asarray(error.fit.params["scale"]), np.exp(5.0), rtol=1e-5)
        assert len(error.fit.losses) == 1


@each_engine
def test_a_scale_that_becomes_zero(engine):
    with on(engine):
        error = failed(engine, guide_of(positive, 1.0), lambda p, q: -xp.log(q.simulate().returned) * 1.0, 60.0)
        assert "step 1: parameter 'scale' has left its constraint" in str(error)
        assert "with the value 0.0" in str(error)
        np.testing.assert_allclose(np.asarray(error.fit.params["scale"]), np.exp(-60.0), rtol=1e-4)


@each_engine
def test_one_entry_of_a_vector_that_becomes_zero(engine):
    def program(p, q):
        return -xp.log(q.simulate().returned)[1] * 1.0

    with on(engine):
        error = failed(engine, guide_of(positive, [1.0, 1.0]), program, 60.0)
        assert "parameter 'scale' has left its constraint" in str(error)
        np.testing.assert_allclose(np.asarray(error.fit.params["scale"]), [1.0, np.exp(-60.0)], rtol=1e-4)


@each_engine
def test_a_factor_whose_diagonal_becomes_zero(engine):
    def program(p, q):
        return -xp.log(q.simulate().returned[0, 0]) * 1.0

    with on(engine):
        guide = guide_of(lambda: dist.constraints.lower_cholesky, np.eye(2))
        error = failed(engine, guide, program, 60.0)
        assert "parameter 'scale' has left its constraint LowerCholesky" in str(error)
        assert np.diagonal(np.asarray(error.fit.params["scale"])).min() > 0


@each_engine
def test_an_update_that_is_not_finite_names_its_parameter(engine):
    def program(p, q):
        return q.simulate().returned ** 2

    with on(engine):
        error = failed(engine, guide_of(lambda: dist.constraints.real, 1e19), program, 1e25)
        assert "the optimiser's update of parameter 'scale' is not" in str(error)
        np.testing.assert_allclose(np.asarray(error.fit.params["scale"]), 1e19, rtol=1e-6)


@each_engine
def test_a_bound_that_is_not_zero_may_be_reached(engine):
    """5 + exp(-60) is 5 to the precision of numbers, and a fit may converge there."""
    with on(engine):
        guide = guide_of(lambda: dist.constraints.greater_than(5.0), 6.0)
        rule = optax.sgd(10.0) if engine is NUMPYRO else functools.partial(torch.optim.SGD, lr=10.0)
        bound = engine.vi.objective(lambda p, q: -q.simulate().returned, model, guide)
        fit = engine.vi.fit(bound, engine.key(0), num_steps=50, optimizer=rule, progress=False)
        np.testing.assert_allclose(np.asarray(fit.params["scale"]), 5.0, atol=0.02)
