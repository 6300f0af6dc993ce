"""The variational autoencoder of which only some pixels of a picture are seen; its decoder is trained already, and stays.

    z_i ~ N(0, I)    x_id ~ Bernoulli(sigmoid(decode(z_i)_d))  for the pixels d that are seen

What is not seen is left out of the density, so that the posterior of z is that of all pictures that go with what is seen.
Harvey, Naderiparizi and Wood, "Conditional image generation by conditioning variational auto-encoders", ICLR 2022.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models.networks import perceptron


def model(x, seen, decoder):
    """Of images and which of their pixels are seen, both `(n, pixels)` of zeros and ones; weights of a trained decoder."""
    with numpyro.plate("images", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(decoder[0][0].shape[0]), 1.0).to_event(1))
        pixels = dist.Bernoulli(logits=perceptron(decoder, z)).mask(seen > 0)
        numpyro.sample("x", pixels.to_event(1), obs=x)


def halves(n, side, seed):
    """For each of n images, which pixels are seen: the left or right, the upper or lower half, `(n, side * side)`."""
    first = np.arange(side) < side // 2
    across, down = np.broadcast_to(first, (side, side)), np.broadcast_to(first[:, None], (side, side))
    kinds = np.stack([across, ~across, down, ~down]).reshape(4, -1).astype(np.float32)
    return kinds[np.random.default_rng(seed).integers(0, 4, n)]


def grid(edge=6.0, steps=121):
    """Points of a plane, and the log of what share of the prior each stands for."""
    axis = jnp.linspace(-edge, edge, steps)
    z = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    return z, log_normal(z) + 2 * jnp.log(axis[1] - axis[0])


def draws(key, n, latent):
    """The same of draws of the prior."""
    return jax.random.normal(key, (n, latent)), jnp.full(n, -jnp.log(n))


def log_normal(z, loc=0.0, scale=1.0):
    return jax.scipy.stats.norm.logpdf(z, loc, scale).sum(-1)


@jax.jit
def judge(decoder, points, x, seen, loc, scale, key):
    """Of Gaussian guides `loc` and `scale`, one for each image: divergences in nats, log densities of pixels by weighted points
    and by 1,000 draws of the guide, and of how many draws of the posterior the points are worth."""
    z, share = points
    logits = perceptron(decoder, z)
    of_points = logits, jax.nn.softplus(logits)

    def log_density(of, pixels):
        return of[0] @ pixels[0] - of[1] @ pixels[1]

    def one(given):
        x, seen, loc, scale, key = given
        known, rest = (seen * x, seen), ((1 - seen) * x, 1 - seen)
        likelihood, own = log_density(of_points, known), loc + scale * jax.random.normal(key, (1000, len(loc)))
        log_y, posterior = jax.nn.logsumexp(share + likelihood), jax.nn.softmax(share + likelihood)
        made = perceptron(decoder, own)
        made = made, jax.nn.softplus(made)
        excess = log_normal(own, loc, scale) - log_normal(own) - log_density(made, known)
        return {
            "KL(posterior || guide)": posterior @ (likelihood + log_normal(z) - log_normal(z, loc, scale)) - log_y,
            "KL(guide || posterior)": excess.mean() + log_y,
            "log p(rest), guide": jax.nn.logsumexp(log_density(made, rest)) - jnp.log(1000),
            "log p(rest), exact": jax.nn.logsumexp(share + likelihood + log_density(of_points, rest)) - log_y,
            "log p(seen)": log_y,
            "points": 1 / (posterior**2).sum(),
        }

    return jax.lax.map(one, (x, seen, loc, scale, jax.random.split(key, len(x))))
