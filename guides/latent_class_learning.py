"""Guides of classes that learn: Gaussians, in unconstrained space, of what the classes are.

Two of them leave out who is of which class, which is then summed out of the model. The third draws it, from probabilities of
each traveller's own, independently of the rest. All begin with a slow class and a fast one, so that the classes are not alike
at first; where nobody learns, rates make no difference, and what sets the classes apart is left to chance.
"""

from functools import partial

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.infer.autoguide import AutoMultivariateNormal
from numpyro.infer.initialization import init_to_value

from models.latent_class_learning import model


def rates(k):
    """Logits of learning rates at the start."""
    return jnp.linspace(-2.0, 0.5, k)


def joint(k=2):
    """One Gaussian of all numbers of all classes, with a full covariance."""
    numbers, start = handlers.block(partial(model, k=k), hide=["class"]), init_to_value(values={"speed": rates(k)})
    return AutoMultivariateNormal(numbers, init_loc_fn=start, init_scale=0.05)


def apart(panel, k=2):
    """A Gaussian for each number."""

    def gaussian(name, start):
        scale = numpyro.param(f"{name}_scale", jnp.full_like(start, 0.05), constraint=dist.constraints.positive)
        return dist.Normal(numpyro.param(f"{name}_loc", start), scale).to_event(start.ndim)

    share = gaussian("share", jnp.zeros(k - 1))
    numpyro.sample("share", dist.TransformedDistribution(share, dist.transforms.StickBreakingTransform()))
    numpyro.sample("speed", gaussian("speed", rates(k)))
    numpyro.sample("weight", gaussian("weight", jnp.ones(k)))
    numpyro.sample("taste", gaussian("taste", jnp.zeros((k, panel.x.shape[-1]))))


def drawn(panel, k=2):
    """The same, and a class for each traveller."""
    apart(panel, k)
    with numpyro.plate("travellers", len(panel.choice)):
        odds = numpyro.param("class_odds", jnp.zeros((len(panel.choice), k)))
        numpyro.sample("class", dist.Categorical(logits=odds))
