"""An implicit guide: noise goes through a network, and nobody knows the density of what comes out.

    z ~ N(0, I)    w ~ N(g(z), noise^2)    g(z) = loc + linear z + network(z)

The last step, a little Gaussian noise, gives the guide a density at all; it is an integral over z. The network begins as
nothing, so that the guide begins as a Gaussian.

Uppal, Stensbo-Smidt, Boomsma and Frellsen, "Implicit variational inference for high-dimensional posteriors", NeurIPS 2023.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from models.implicit_vi import grid, log_joint
from models.networks import dense, perceptron

UNITS, START = 32, 0.3


def generator(params, z):
    return params["loc"] + params["linear"] @ z + perceptron(params["network"], z)


def begun(weights, latent, key):
    """Parameters of the generator from which training starts."""
    first, second = jax.random.split(key)
    *hidden, (w, b) = dense(first, one=(latent, UNITS), two=(UNITS, UNITS), out=(UNITS, weights)).values()
    loc = START * jax.random.normal(second, (weights,))
    return {"loc": loc, "linear": START * jnp.eye(weights, latent), "network": [*hidden, (0 * w, 0 * b)]}


def guide(x, y, weights, latent, noise=0.05):
    """Returns g(z), its slopes `(weights, latent)` at z, and the noise."""
    params = numpyro.param("generator", partial(begun, weights, latent))
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([latent]).to_event(1))
    mean, slopes = generator(params, z), jax.jacfwd(partial(generator, params))(z)
    numpyro.sample("w", dist.Normal(mean, noise).to_event(1))
    return mean, slopes, noise


def families(model, weights, implicit):
    """Guides by name: implicit ones, of which one gives numbers of noise that go in, and noise added; and two Gaussians."""
    found = {name: partial(guide, weights=weights, latent=latent, noise=x) for name, (latent, x) in implicit.items()}
    return found | {"mean field": AutoNormal(model), "full rank": AutoMultivariateNormal(model)}


def at_gaussian(mean, precision, noise):
    """Parameters of the generator whose draws, with the noise, are of this Gaussian."""
    size = len(mean)
    linear = np.linalg.cholesky(np.linalg.inv(precision) - noise**2 * np.eye(size))
    found = {"loc": jnp.asarray(mean, jnp.float32), "linear": jnp.asarray(linear, jnp.float32)}
    start = jax.jit(begun, static_argnums=(0, 1))
    return {"generator": start(size, size, jax.random.key(0)) | found}


def drawn(fit):
    """Weights `(2000, weights)`."""
    return np.asarray(fit.posterior(draws=2000)["posterior"]["w"].values[0])


def truth(params, noise, x, y, evidence, points, draws):
    """Of an implicit guide of the two weights: how far its ELBO is below the log evidence, the share of draws at which the
    determinant of the generator's slopes has the rarer sign, what is added to their log densities by the noise for which it has
    the other one, and the draws `(draws, 2)`.

    The guide's density is a sum over a grid of so many points in each of two numbers of noise. If they are too few, a steep
    generator steps over draws, which then look improbable.
    """
    z, cell = grid(5.0, points)
    mass = -0.5 * (z**2).sum(1) - np.log(2 * np.pi) + np.log(cell)
    noises = jax.random.normal(jax.random.key(3), (2, draws, 2))
    w, log_q, alone, turned = densities(params["generator"], noise, jnp.float32(z), jnp.float32(mass), noises)
    turned = float(turned.mean())
    gap, added = evidence - float((log_joint(w, x, y) - log_q).mean()), float((log_q - alone).mean())
    return {"gap": gap, "folded": min(turned, 1 - turned), "added": added}, np.asarray(w)


@jax.jit
def densities(params, noise, z, log_mass, noises):
    """Draws at these noises `(2, m, 2)`, their log densities, these of the noise alone for which the slopes' determinant has
    the sign that it has at the draw, and whether it is negative there."""
    g = partial(generator, params)
    turned = jax.vmap(lambda z: jnp.linalg.det(jax.jacfwd(g)(z)) < 0)
    means, w, signs, own = jax.vmap(g)(z), jax.vmap(g)(noises[0]) + noise * noises[1], turned(z), turned(noises[0])

    def log_densities(at):
        each = log_mass + dist.Normal(means, noise).log_prob(at[0]).sum(-1)
        return jax.nn.logsumexp(each), jax.nn.logsumexp(jnp.where(signs == at[1], each, -jnp.inf))

    return w, *jax.lax.map(log_densities, (w, own)), own
