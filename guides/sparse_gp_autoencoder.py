"""Guides of a film's hidden path and of its decoder: an encoder whose word is taken as if it were an observation of the path.

    v ~ p(v) prod_t N(m_t; a_t' v, s_t^2 + left_t) / Z    z_t ~ N(a_t' v, left_t) N(z_t; m_t, s_t^2) / Z_t

The encoder writes m_t and s_t for each frame. The path is then what the process says after these pseudo-observations, exactly.

Pearce, "The Gaussian process prior VAE for interpretable latent dynamics from pixels", AABI 2019; Jazbec et al., "Scalable
Gaussian process variational autoencoders", AISTATS 2021.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from models import gp
from models.networks import dense, layer
from models.sparse_gp_autoencoder import LATENT, UNITS, weights


def encoder(y):
    """Locations and scales of the hidden numbers of frames `(n, pixels)`."""
    sizes = {"hidden": (y.shape[1], 20), "out": (20, 2 * LATENT)}
    net = numpyro.param("encoder", lambda key: dense(key, **sizes))
    loc, log_scale = jnp.split(layer(net["out"], jnp.tanh(layer(net["hidden"], y))), 2, -1)
    return loc, jnp.exp(log_scale - 1)


def _after(a, loc, sd):
    v = gp.seen(a / sd[:, None], loc / sd)
    return v.loc, v.scale_tril


def path(t, log_lengthscale, loc, scale):
    """The process after these observations of it."""
    a, left = weights(jnp.exp(log_lengthscale), t)
    sd = jnp.sqrt(scale**2 + left)
    means, roots = jax.vmap(partial(_after, a), 1)(loc, sd)
    v = numpyro.sample("v", dist.MultivariateNormal(means, scale_tril=roots).to_event(1))
    share = left / sd**2
    numpyro.sample("z", dist.Normal((1 - share) * (a @ v.T) + share * loc, scale * jnp.sqrt(share)).to_event(2))


def start(y):
    """Where the numbers other than the path are at first."""
    drawn = {name: numpyro.param(f"{name}_loc", -1.0) for name in ("log_lengthscale", "log_noise")}
    for name, shape in {"inward": (LATENT + 1, UNITS), "outward": (y.shape[1], UNITS + 1)}.items():
        drawn[name] = numpyro.param(f"{name}_loc", partial(_normal, shape))
    return drawn


def _normal(shape, key):
    return 0.3 * jax.random.normal(key, shape)


def apart(name, loc):
    """A Gaussian for each number."""
    scale = numpyro.param(f"{name}_scale", np.full(np.shape(loc), 0.05, np.float32), constraint=constraints.positive)
    numpyro.sample(name, dist.Normal(loc, scale).to_event(jnp.ndim(loc)))


def points(at):
    """Each of these numbers as it is."""
    for name, value in at.items():
        numpyro.sample(name, dist.Delta(value, event_dim=jnp.ndim(value)))


def point(t, y):
    """A decoder without doubt, as a GP-VAE has it."""
    at = start(y)
    points(at)
    path(t, at["log_lengthscale"], *encoder(y))


def mean_field(t, y):
    """A Gaussian for each weight of the decoder, and for the noise; the lengthscale is a point."""
    at = start(y)
    points({"log_lengthscale": at["log_lengthscale"]})
    for name in ("log_noise", "inward", "outward"):
        apart(name, at[name])
    path(t, at["log_lengthscale"], *encoder(y))


def last_layer(t, y):
    """The same, but that the weights from all units to a pixel have one covariance, whichever pixel it is."""
    at, factor = start(y), 0.05 * np.eye(UNITS + 1, dtype=np.float32)
    factor = numpyro.param("outward_factor", factor, constraint=constraints.lower_cholesky)
    points({"log_lengthscale": at["log_lengthscale"]})
    for name in ("log_noise", "inward"):
        apart(name, at[name])
    numpyro.sample("outward", dist.MultivariateNormal(at["outward"], scale_tril=factor).to_event(1))
    path(t, at["log_lengthscale"], *encoder(y))
