"""A picture that was measured badly: what an autoencoder of good pictures knows is the prior.

    z_i ~ N(0, I)    x_i ~ N(decode(z_i), gamma^2 I)    y_i ~ N(A x_i, sigma^2 I)

`models.vae.gaussian` learns the first two from good pictures. For `model` they are fixed, and A is what was done to a picture:
pixels left out or averaged. The picture x is integrated out, which leaves y a Gaussian given z, of independent numbers where
the rows of A are orthogonal. Biquard, Chabert, Genin, Latry and Oberlin, "Variational Bayes image restoration with compressive
autoencoders", 2023.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models.networks import perceptron


class Prior(NamedTuple):
    """A trained autoencoder: the decoder's weights, and the scale of what it leaves out."""

    decoder: list
    gamma: jax.Array


class Damage(NamedTuple):
    """What was done to pictures: a matrix `(measurement, pixel)` of orthogonal rows, and the scale of the noise."""

    rows: np.ndarray
    sigma: float


def latent_size(prior):
    return len(prior.decoder[0][0])


def model(y, prior, damage):
    """Of measurements `(n, measurement)`."""
    scale = (damage.sigma**2 + prior.gamma**2 * (damage.rows**2).sum(1)) ** 0.5
    with numpyro.plate("images", len(y)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(latent_size(prior)), 1.0).to_event(1))
        numpyro.sample("y", dist.Normal(perceptron(prior.decoder, z) @ damage.rows.T, scale).to_event(1), obs=y)


def pictures(z, y, prior, damage):
    """Given points and measurements: the mean of pictures `(..., n, pixel)`, and the scale of each pixel, `(pixel,)`."""
    gain = prior.gamma**2 * damage.rows / (damage.sigma**2 + prior.gamma**2 * (damage.rows**2).sum(1, keepdims=True))
    mean = perceptron(prior.decoder, z)
    return mean + (y - mean @ damage.rows.T) @ gain, prior.gamma * (1 - (gain * damage.rows).sum(0)) ** 0.5


PIXELS = np.eye(196, dtype=np.float32)
PAIRS = np.kron(np.eye(7), np.full((1, 2), 0.5))
DAMAGES = {
    "half of the pixels": Damage(PIXELS[np.random.default_rng(0).permutation(196)[:98]], 0.05),
    "noise": Damage(PIXELS, 0.3),
    "a quarter of the resolution": Damage(np.kron(PAIRS, PAIRS).astype(np.float32), 0.05),
}
"""Of pictures of 14 by 14 pixels."""
