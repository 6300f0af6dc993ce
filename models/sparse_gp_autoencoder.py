"""A film whose hidden path is a sparse Gaussian process, behind a decoder that has a prior of its own.

    v_q ~ N(0, I)    z_tq ~ N(a_t' v_q, left_t)    W_l ~ N(0, gain_l^2)    y_t ~ N(decoder_W(z_t), noise^2 I)

Each frame of a film is seen with noise, and comes of a few hidden numbers. These are functions of time, drawn from processes
that are told by whitened values v at a few times; of these a_t and left_t come, as in `models.gp`. Lengthscale, noise and all
weights W of the decoder are drawn, too. A frame that is missing is foretold from its neighbours, by way of the path.

Tran, Shahbaba, Mandt and Filippone, "Fully Bayesian autoencoders with latent sparse Gaussian processes", ICML 2023. There the
places of the inducing values and each kernel's variance have priors, too.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models import gp
from models.generated import moving_light
from models.networks import layer

LATENT, UNITS, PLACES = 2, 10, np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
NUMBERS = "log_lengthscale", "log_noise", "inward", "outward", "v"
"""Sites by which other frames are foretold."""


def decoder(inward, outward, z):
    """Of hidden numbers `(n, 2)`, by weights `(2 + 1, units)` and `(pixels, units + 1)`, biases last: `(n, pixels)`."""
    hidden = jnp.tanh(layer((inward[:-1], inward[-1]), z))
    return layer((outward[:, :-1].T, outward[:, -1]), hidden)


def weights(lengthscale, t):
    """By how much the path at times `(n, 1)` goes with whitened values, `(n, m)`, and what variance is left, `(n, 1)`."""
    a, left = gp.weights(gp.Process(1.0, lengthscale, None), PLACES, t, gp.squared_exponential)
    return a, left[:, None]


def model(t, y, decode=decoder):
    """Of times `(n, 1)` and frames `(n, pixels)`."""
    lengthscale = jnp.exp(numpyro.sample("log_lengthscale", dist.Normal(-1.0, 0.5)))
    noise = jnp.exp(numpyro.sample("log_noise", dist.Normal(-2.0, 1.0)))
    inward = numpyro.sample("inward", dist.Normal(0, 1.5).expand([LATENT + 1, UNITS]).to_event(2))
    outward = numpyro.sample("outward", dist.Normal(0, UNITS**-0.5).expand([y.shape[1], UNITS + 1]).to_event(2))
    v = numpyro.sample("v", dist.Normal(0, 1).expand([LATENT, len(PLACES)]).to_event(2))
    a, left = weights(lengthscale, t)
    z = numpyro.sample("z", dist.Normal(a @ v.T, jnp.sqrt(left)).to_event(2))
    numpyro.sample("y", dist.Normal(decode(inward, outward, z), noise).to_event(2), obs=y)


def pixels(t, y):
    """A process for each pixel by itself, with common hyperparameters."""
    covariance = gp.covariance(gp.learned(1), t, gp.squared_exponential)
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(t)), covariance).expand(y.shape[1:]).to_event(1), obs=y.T)


def film(seed, seen=20, missing=10):
    """Times and frames that are seen, and those that are missing, at random among them; less the mean of the frames seen."""
    n = seen + missing
    rows, frames = np.random.default_rng(seed).permutation(n), moving_light(n, seed=seed)
    t, frames = np.linspace(-1, 1, n, dtype=np.float32)[rows, None], frames[rows] - frames[rows[:seen]].mean(0)
    return tuple(map(jnp.asarray, (t[:seen], frames[:seen], t[seen:], frames[seen:])))


@jax.jit
def foretold(draws, t, key):
    """Frames at other times, without their noise, of each draw of the posterior: `(draw, n, pixels)`."""

    def one(draw, key):
        a, left = weights(jnp.exp(draw["log_lengthscale"]), t)
        z = a @ draw["v"].T + jnp.sqrt(left) * jax.random.normal(key, (len(t), LATENT))
        return decoder(draw["inward"], draw["outward"], z)

    return jax.vmap(one)(draws, jax.random.split(key, len(draws["v"])))
