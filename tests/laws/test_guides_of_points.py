"""A guide of points has no density to follow: an objective whose gradient is the density's refuses it, and others move it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.autoguide import AutoDelta, AutoLaplaceApproximation, AutoNormal

import ppvi
import ppvi.numpyro as vi


def model() -> None:
    numpyro.sample("z", dist.Normal(3.0, 2.0))


@pytest.mark.parametrize("guide", [AutoDelta, AutoLaplaceApproximation])
def test_log_variance_refuses_points(guide):
    bound = vi.objective(ppvi.objectives.log_variance(2), model, guide(model))
    with pytest.raises(ppvi.ProgramError, match="are points, whose density has no gradient"):
        bound.value_and_grad(jax.random.key(1), bound.init(jax.random.key(0)))


def test_log_variance_of_a_spread_and_elbo_of_points():
    """d log N(loc; 3, 2) = (3 - loc) / 4."""
    bound = vi.objective(ppvi.objectives.log_variance(2), model, AutoNormal(model))
    _, grads = bound.value_and_grad(jax.random.key(1), bound.init(jax.random.key(0)))
    assert grads["z_auto_loc"] != 0
    points = vi.objective(ppvi.objectives.elbo, model, AutoDelta(model))
    _, grads = points.value_and_grad(jax.random.key(1), {"z_auto_loc": jnp.array(1.0)})
    assert jnp.isclose(grads["z_auto_loc"], 0.5)
