"""The guide of the variational autoencoder, which returns what the Wasserstein distance to the prior is made of; and two
strategies for its Gaussians, by points that are placed about their means.

    d E_q[f(z)] = 1 / (2 d) sum_j d (f(m + s u_j) + f(m - s u_j)) + an error

The points u_j = sqrt(d) e_j of the unscented transform (Julier and Uhlmann 1997) make no error for polynomials up to the third
degree. Rotated at random, and as long as normal vectors are, they make none on average for any f (Genz and Monahan 1998 have
further such rules). Janjoš et al., "Unscented autoencoder", ICML 2023.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from guides.vae import encode
from models.networks import glorot
from ppvi.strategies import Draw, Strategy


def guide(x, batch=None, latent=8, hidden=(100,)):
    """Returns location and scale of each image's Gaussian, `(images, latent)` both."""
    weights = numpyro.param("encoder", lambda key: glorot(key, x.shape[1], *hidden, 2 * latent))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        loc, scale = encode(weights, x[rows])
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1))
    return loc, scale


@dataclass(frozen=True)
class SigmaPoints(Strategy):
    """The rest of the objective, averaged over points placed on the axes; of the lanes along the last axis at once."""

    route = "both"
    unbiased = False

    def misfit(self, dist):
        return None if dist.name == "Normal" else f"{dist.name} has no sigma points here; Reparam() needs none"

    def directions(self, dist, rng):
        d, rows = dist.parameter("loc").shape[-1], dist.parameter("loc").ndim - 1
        return jnp.sqrt(d) * jnp.eye(d).reshape(d, *[1] * rows, d)

    def draw(self, dist, rng):
        u = self.directions(dist, rng)
        values = dist.parameter("loc") + dist.parameter("scale") * jnp.concatenate([u, -u])
        return Draw(values[0], values=values)

    def estimate(self, site, k):
        return k.each(site.values).total() * (1 / len(site.values))

    def runs(self, alternatives, coupled):
        return alternatives


class Rotated(SigmaPoints):
    unbiased = True

    def directions(self, dist, rng):
        d = dist.parameter("loc").shape[-1]
        square, others = (jnp.moveaxis(dist.noise(rng, "normal", i, n=d), 0, -2) for i in (0, 1))
        length = jnp.linalg.norm(others, axis=-1, keepdims=True)
        return jnp.moveaxis(length * jnp.swapaxes(jnp.linalg.qr(square)[0], -1, -2), -2, 0)
