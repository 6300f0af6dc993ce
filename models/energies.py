"""Four energies in the plane, whose densities exp(-U) are two moons, a wave, a wave that forks, and two waves.

    U1 = ((|z| - 2) / 0.4)^2 / 2 - log(bump(z1 - 2, 0.6) + bump(z1 + 2, 0.6))      bump(x, s) = exp(-(x / s)^2 / 2)
    U2 = ((z2 - w1) / 0.4)^2 / 2                                                   w1 = sin(pi z1 / 2)
    U3 = -log(bump(z2 - w1, 0.35) + bump(z2 - w1 + w2, 0.35))                      w2 = 3 bump(z1 - 1, 0.6)
    U4 = -log(bump(z2 - w1, 0.4) + bump(z2 - w1 + w3, 0.35))                       w3 = 3 sigmoid((z1 - 1) / 0.3)

Rezende and Mohamed, "Variational inference with normalizing flows", ICML 2015, table 1. The waves have no end there, and so
no density; here a wall, quadratic beyond |z1| = 4, ends them.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.nn import relu, sigmoid

NAMES = ("U1", "U2", "U3", "U4")


def log_bump(x, scale):
    return -0.5 * (x / scale) ** 2


def energies(z):
    """The four energies of points `(4, ..., 2)`, the first of the first row of points and so on: `(4, ...)`."""
    x, y = z[..., 0], z[..., 1]
    wave, wall = y - jnp.sin(jnp.pi * x / 2), 0.5 * (relu(jnp.abs(x) - 4) / 0.2) ** 2
    fork, step = wave + 3 * jnp.exp(log_bump(x - 1, 0.6)), wave + 3 * sigmoid((x - 1) / 0.3)
    radius = jnp.sqrt((z**2).sum(-1) + 1e-12)
    return jnp.stack(
        [
            -log_bump(radius[0] - 2, 0.4) - jnp.logaddexp(log_bump(x[0] - 2, 0.6), log_bump(x[0] + 2, 0.6)),
            -log_bump(wave[1], 0.4) + wall[1],
            -jnp.logaddexp(log_bump(wave[2], 0.35), log_bump(fork[2], 0.35)) + wall[2],
            -jnp.logaddexp(log_bump(wave[3], 0.4), log_bump(step[3], 0.35)) + wall[3],
        ]
    )


def model(seeds=1):
    """A point under each energy, so many times over: every one is a problem of its own, and all are solved at once."""
    with numpyro.plate("seeds", seeds, dim=-1), numpyro.plate("energies", 4, dim=-2):
        z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real_vector, (), (2,)))
        numpyro.factor("energy", -energies(z))


def log_normalizers(points=1001, width=7.0):
    """log of the integrals of exp(-U) by the trapezoidal rule: `(4,)`."""
    line = jnp.linspace(-width, width, points)
    grid = jnp.broadcast_to(jnp.stack(jnp.meshgrid(line, line, indexing="ij"), -1), (4, points, points, 2))
    cell = (line[1] - line[0]) ** 2
    return jnp.log(jnp.exp(-energies(grid)).sum((1, 2)) * cell)
