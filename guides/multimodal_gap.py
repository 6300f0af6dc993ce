"""The guide of `models.multimodal_gap`: what each modality says of the point, multiplied with the others and the prior."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.multimodal_gap import networks
from models.networks import perceptron


def product(weights, x, seen):
    """Gaussians of the points of data of which only some modalities are seen: `seen` has a one for each of these."""
    natural, log_precision = jnp.split(jax.vmap(perceptron)(weights, x), 2, -1)
    precision = 1 + jnp.tensordot(seen, jnp.exp(log_precision), 1)
    return dist.Normal(jnp.tensordot(seen, natural, 1) / precision, precision**-0.5).to_event(1)


def guide(x, seen=None, latent=20, hidden=(200,)):
    """Of views `(modality, datum, pixel)`, of which all are seen if nothing else is said."""
    modalities, n, pixels = x.shape
    weights = numpyro.param("encoders", networks(modalities, pixels, *hidden, 2 * latent))
    with numpyro.plate("data", n, dim=-1):
        numpyro.sample("z", product(weights, x, jnp.ones(modalities) if seen is None else seen))


@jax.jit
def crossed(params, x):
    """Of the first modality alone, all: probabilities of pixels at the mean of its Gaussian, `(modality, datum, pixel)`."""
    z = product(params["encoders"], x, jnp.eye(len(x))[0]).mean
    return jax.nn.sigmoid(jax.vmap(perceptron, (0, None))(params["decoders"], z))
