"""A network for regression of which the last layer is a Bayesian linear regression.

    W ~ N(0, gain^2 / inputs)    w ~ N(0, 1 / units)    noise ~ LogNormal(-1, 1)    y_i ~ N(w' features(x_i), noise)

A hidden layer makes features of the inputs, and a one for the constant; the larger the gain, the more they bend. Given them
and the noise the posterior of w is a Gaussian that is known, and so is the evidence of the outputs; of the whole network
neither is.

Harrison, Willes and Snoek, "Variational Bayesian last layers", ICLR 2024. There the noise has an inverse Wishart prior.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models import gp
from models.datasets import diabetes, standardised
from models.generated import smooth
from models.networks import layer

UNITS = 50
SCALE = UNITS**-0.5
"""Of the last layer, in the prior."""


def features(hidden, x):
    """Of inputs `(n, d)`, by weights of which the last row is biases: `(n, units + 1)`."""
    return jnp.concatenate([jnp.tanh(layer((hidden[:-1], hidden[-1]), x)), jnp.ones((len(x), 1))], 1)


def model(x, y, gain):
    """Of inputs `(n, d)` and outputs `(n,)`; returns features and noise."""
    shape = (x.shape[1] + 1, UNITS)
    hidden = numpyro.sample("hidden", dist.Normal(0.0, gain * x.shape[1] ** -0.5).expand(shape).to_event(2))
    last = numpyro.sample("last", dist.Normal(0.0, SCALE).expand([UNITS + 1]).to_event(1))
    noise, phi = numpyro.sample("noise", dist.LogNormal(-1.0, 1.0)), features(hidden, x)
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(phi @ last, noise), obs=y)
    return phi, noise


@jax.jit
def exact(phi, noise, y):
    """The last layer's posterior, given features and noise, and the log evidence of the outputs."""
    white = gp.seen(SCALE * phi / noise, y / noise)
    root = jnp.linalg.cholesky(SCALE**2 * phi @ phi.T + noise**2 * jnp.eye(len(y)))
    evidence = dist.MultivariateNormal(jnp.zeros(len(y)), scale_tril=root).log_prob(y)
    return dist.MultivariateNormal(SCALE * white.loc, scale_tril=SCALE * white.scale_tril), evidence


def data(name, seed):
    """Inputs and outputs to learn from, and new ones: of patients, or of a function that is drawn."""
    if name == "diabetes":
        return tuple(map(jnp.asarray, standardised(seed, *diabetes())))
    x, y = map(jnp.asarray, smooth(600, lengthscale=0.7, seed=seed))
    return x[:100], y[:100], x[100:], y[100:]


@jax.jit
def function(hidden, noise, m, root, new):
    """Means and standard deviations of the function at new inputs, of a last layer N(m, root root'); and the noise."""
    phi = features(hidden, new)
    return phi @ m, jnp.sqrt(((phi @ root) ** 2).sum(1)), noise


def of_draws(found, new):
    """The same for each draw of all weights, from ArviZ data: functions that are known."""
    hidden, noise, last = (jnp.asarray(found["posterior"][site].values[0]) for site in ("hidden", "noise", "last"))
    f = jax.vmap(lambda h, w: features(h, new) @ w)(hidden, last)
    return list(zip(f, 0 * f, noise, strict=True))
