"""A step of size one in natural parameters is exact where the model is conjugate."""

import numpy as np
import pytest

import ppvi
from ppvi.objectives import elbo
from ppvi.optimizers import Natural
from tests.engines import NUMPYRO, dist, on, ppl, xp

Y = np.array([1.2, 0.4, 2.1, 1.7])
each_engine = pytest.mark.parametrize("engine", [NUMPYRO], ids=lambda engine: engine.name)


def model(y):
    loc = ppl.sample("loc", dist.Normal(xp.array(0.5), xp.array(2.0)))
    with ppl.plate("data", len(y)):
        ppl.sample("y", dist.Normal(loc, xp.array(0.5)), obs=y)


def guide(y):
    loc = ppl.param("m", xp.array(-0.3))
    scale = ppl.param("s", xp.array(0.7), constraint=dist.constraints.positive)
    ppl.sample("loc", dist.Normal(loc, scale))


@each_engine
def test_a_normal_mean_is_exact_after_one_step(engine):
    precision = 1 / 2.0**2 + 4 / 0.5**2
    with on(engine):
        bound = engine.vi.objective(elbo, model, guide, strategies={"loc": ppvi.strategies.Quadrature(64)})
        fit = engine.vi.fit(bound, engine.key(0), engine.array(Y), num_steps=1, optimizer=Natural(1.0), progress=False)
    np.testing.assert_allclose(fit.params["m"], (0.5 / 2.0**2 + Y.sum() / 0.5**2) / precision, rtol=1e-5)
    np.testing.assert_allclose(fit.params["s"], precision**-0.5, rtol=1e-5)
