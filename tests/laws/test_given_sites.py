"""Sites whose values handlers of a program give: latent, and not drawn. By hand: with z given,

log p(z, x) - log q(z; loc)    and in loc    loc - z
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pytest

from ppvi import ProgramError, objectives
from tests.engines import ENGINES, NUMPYRO, dist, on, ppl

Z, X, LOC = 0.3, 1.0, 0.5


def model() -> None:
    z = ppl.sample("z", dist.Normal(0.0, 1.0))
    ppl.sample("x", dist.Normal(z, 1.0), obs=X)


def guide() -> None:
    ppl.sample("z", dist.Normal(ppl.param("loc", LOC), 1.0))


def giving(engine: Any, program: Any) -> Any:
    """The program with its site given."""
    if engine is NUMPYRO:
        return engine.handlers.substitute(program, data={"z": engine.array(Z)})
    trace = pyro.poutine.trace(program).get_trace()
    trace.nodes["z"]["value"] = engine.array(Z)
    return pyro.poutine.replay(program, trace=trace)


def log_normal(x: float, loc: float) -> float:
    return -0.5 * (x - loc) ** 2 - 0.5 * math.log(2 * math.pi)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("program", [objectives.elbo, objectives.vimco(2)], ids=["elbo", "vimco"])
def test_a_given_site_is_latent_and_not_drawn(engine, program):
    with on(engine):
        bound = engine.vi.objective(program, model, giving(engine, guide))
        value, grads = bound.value_and_grad(engine.key(0), {"loc": engine.array(LOC)})
        np.testing.assert_allclose(float(value), log_normal(Z, 0) + log_normal(X, Z) - log_normal(Z, LOC), rtol=1e-5)
        np.testing.assert_allclose(float(grads["loc"]), LOC - Z, rtol=1e-4)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_choices_take_the_place_of_what_is_given(engine):
    with on(engine):
        found, wanted = (engine.vi.objective(objectives.elbo, p, guide) for p in (giving(engine, model), model))
        params = {"loc": engine.array(LOC)}
        for seed in (1, 2):
            pair = [float(b.value_and_grad(engine.key(seed), params)[0]) for b in (found, wanted)]
            np.testing.assert_allclose(*pair, rtol=1e-6)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_the_score_of_a_given_site_is_not_left_out(engine):
    with on(engine):
        bound = engine.vi.objective(objectives.stl, model, giving(engine, guide))
        with pytest.raises(ProgramError, match="site 'z' of the guide is not drawn"):
            bound.value_and_grad(engine.key(0), {"loc": engine.array(LOC)})


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("kind", ["AutoNormal", "AutoDelta", "AutoMultivariateNormal"])
def test_the_model_of_an_autoguide_is_its_model(engine, kind):
    """Before the autoguide was used, and after."""
    with on(engine):
        auto = getattr(engine.autoguide, kind)(model)
        params = None
        for _ in range(2):
            found, wanted = (engine.vi.objective(objectives.elbo, p, auto) for p in (auto.model, model))
            params = params or found.init(engine.key(0))
            pair = [b.value_and_grad(engine.key(3), params) for b in (found, wanted)]
            np.testing.assert_allclose(*(float(value) for value, _ in pair), rtol=1e-6)
            for name in params:
                np.testing.assert_allclose(*(np.asarray(grads[name]) for _, grads in pair), rtol=1e-5)
