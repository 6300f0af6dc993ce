"""Two strategies for Gaussians, by points that are placed about their means, in place of draws.

    d E_q[f(z)] = 1 / (2 d) sum_j d (f(m + s u_j) + f(m - s u_j)) + an error

The points u_j = sqrt(d) e_j of the unscented transform (Julier and Uhlmann 1997) make no error for polynomials up to the third
degree. Rotated at random, and as long as normal vectors are, they make none on average for any f (Genz and Monahan 1998 have
further such rules). Janjoš et al., "Unscented autoencoder", ICML 2023.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from ppvi.strategies import Draw, Strategy


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
