"""Guides that draw all sites at once: an autoguide is the same program as the guide that one would write, for every objective.

The latent site of both is a vector, whose draw the autoguide makes under another name, so values and gradients are the same
numbers at the same key.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.distributions import TransformModule, constraints

import ppvi
import ppvi.pyro
from ppvi import ProgramError, objectives
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, on, ppl, xp

OBJECTIVES = {
    "stl": objectives.stl,
    "iwelbo": objectives.iwelbo(3),
    "dreg": objectives.dreg(3),
    "wake_phase_q": objectives.wake_phase_q(3),
    "forward_chi_square": objectives.forward_chi_square(3),
    "log_variance": objectives.log_variance(3),
    "posterior": lambda p, q: -q.log_density(ppvi.normalize(p, q, 3).simulate()),
}

LOC, TRIL = [0.5, -0.3], [[0.9, 0.0], [0.4, 0.7]]


def model() -> None:
    z = ppl.sample("z", dist.Normal(xp.zeros(2), 1.0).to_event(1))
    ppl.sample("x", dist.Normal(z.sum(), 0.5), obs=1.0)


def numpyro_guide(params: dict[str, Any]) -> None:
    loc, tril = ppl.param("auto_loc", params["auto_loc"]), ppl.param("auto_scale_tril", params["auto_scale_tril"])
    ppl.sample("z", dist.MultivariateNormal(loc, scale_tril=tril))


def pyro_guide(params: dict[str, Any]) -> None:
    loc, scale, tril = (ppl.param(f"AutoMultivariateNormal.{x}", params[x]) for x in ("loc", "scale", "scale_tril"))
    ppl.sample("z", dist.MultivariateNormal(loc, scale_tril=scale[..., None] * tril))


def params_of(engine: Any) -> dict[str, Any]:
    loc, tril = engine.array(np.array(LOC)), engine.array(np.array(TRIL))
    if engine is NUMPYRO:
        return {"auto_loc": loc, "auto_scale_tril": tril}
    scale = tril.diagonal()
    return {"loc": loc, "scale": scale, "scale_tril": tril / scale[:, None]}


def written(engine: Any) -> Any:
    guide = numpyro_guide if engine is NUMPYRO else pyro_guide
    return lambda: guide(params_of(engine))


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        pytest.param(engine, name, marks=[pytest.mark.slow] if engine is NUMPYRO and i % 2 else [])
        for engine in ENGINES
        for i, name in enumerate(OBJECTIVES)
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_an_autoguide_is_the_guide_that_one_would_write(engine, name):
    with on(engine):
        params = {k if engine is NUMPYRO else f"AutoMultivariateNormal.{k}": x for k, x in params_of(engine).items()}
        drawn = engine.autoguide.AutoMultivariateNormal(model)
        found, wanted = (engine.vi.objective(OBJECTIVES[name], model, guide) for guide in (drawn, written(engine)))
        found.init(engine.key(0))
        for seed in (1, 2):
            value, grads = found.value_and_grad(engine.key(seed), params)
            expected, others = wanted.value_and_grad(engine.key(seed), params)
            np.testing.assert_allclose(float(value), float(expected), rtol=1e-4)
            for leaf in params:
                np.testing.assert_allclose(np.asarray(grads[leaf]), np.asarray(others[leaf]), rtol=2e-3, atol=1e-4)


class Shift(TransformModule):
    """A transform that outlives a run and remembers what it was given, as those of normalizing flows do."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self) -> None:
        super().__init__(cache_size=1)
        self.by = torch.nn.Parameter(torch.tensor(LOC))

    def _call(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.by

    def _inverse(self, y: torch.Tensor) -> torch.Tensor:
        return y - self.by

    def log_abs_det_jacobian(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(x.shape[:-1])


@pytest.mark.parametrize("name", ["stl", "log_variance", "wake_phase_q", "forward_chi_square", "dreg"])
def test_a_density_is_not_remembered_from_a_run_with_other_parameters(name):
    shift, base = Shift(), pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1)

    def flow() -> None:
        pyro.module("flow", shift)
        pyro.sample("z", pyro.distributions.TransformedDistribution(base, [shift]))

    def plain() -> None:
        by = pyro.param("flow$$$by", torch.tensor(LOC))
        pyro.sample("z", pyro.distributions.Normal(by, 1.0).to_event(1))

    with on(PYRO):
        objective = OBJECTIVES[name]
        found, wanted = (ppvi.pyro.objective(objective, model, guide) for guide in (flow, plain))
        for seed in (1, 2):
            value, grads = found.value_and_grad(seed, found.init(0))
            expected, others = wanted.value_and_grad(seed, wanted.init(0))
            torch.testing.assert_close(value, expected)
            torch.testing.assert_close(*(next(iter(each.values())) for each in (grads, others)))


def test_a_flow_without_an_inverse_has_no_density_at_other_values():
    with on(PYRO):
        guide = pyro.infer.autoguide.AutoNormalizingFlow(model, pyro.distributions.transforms.planar)
        bound = ppvi.pyro.objective(objectives.dreg(2), model, guide)
        with pytest.raises(ProgramError, match=r"AutoNormalizingFlow_latent.*has no density at a value"):
            bound.value_and_grad(0, bound.init(0))
