"""The coupling of `models.coupled_vae` that draws of the guide make."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.handlers import substitute

from guides.vae import encode
from models.coupled_vae import decode, potential


def coupled_points(key, params, x, draws):
    """A point for each datum: of so many draws of its guide one, by their weights, which have the potential if there is one."""
    at, pick = jax.random.split(key)
    guide = dist.Normal(*encode(params["encoder"], x))
    z = guide.sample(at, (draws,))
    log_weight = (dist.Normal(0.0, 1.0).log_prob(z) - guide.log_prob(z)).sum(-1)
    log_weight += dist.Normal(decode(params["decoder"], z), params["noise"]).log_prob(x).sum(-1)
    if "potential" in params:
        log_weight += substitute(potential, params)(z)
    return z[jax.random.categorical(pick, log_weight, axis=0), jnp.arange(len(x))]
