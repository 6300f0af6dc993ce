"""A fit on each engine that is installed, against the posterior in closed form."""

import numpy as np
import pytest

import ppvi
from tests.engines import ENGINES, dist, on, ppl, xp

Y = np.array([1.2, 0.4, 2.1, 1.7])
"""The precision is that of the prior, 1/4, and of four observations."""
PRECISION = 1 / 4 + len(Y)


def model(y):
    loc = ppl.sample("loc", dist.Normal(0.0, 2.0))
    with ppl.plate("data", len(Y)):
        ppl.sample("y", dist.Normal(loc, 1.0), obs=y)


def guide(y):
    scale = ppl.param("scale", xp.array(1.0), constraint=dist.constraints.positive)
    ppl.sample("loc", dist.Normal(ppl.param("mean", xp.array(0.0)), scale))


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_a_fit(engine):
    with on(engine):
        bound = engine.vi.objective(ppvi.objectives.elbo, model, guide)
        fit = engine.vi.fit(bound, engine.key(0), engine.array(Y), num_steps=2000, optimizer=0.005, progress=False)
        assert bound.prove(fit.params, engine.array(Y)).verdict == "proved"
    assert len(fit.losses) == 2000
    np.testing.assert_allclose(float(fit.params["mean"]), Y.sum() / PRECISION, atol=0.1)
    np.testing.assert_allclose(float(fit.params["scale"]), PRECISION**-0.5, atol=0.1)
