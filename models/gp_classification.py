"""A Gaussian process behind the labels of two classes.

    log sd ~ N(1, 1)    log lengthscale ~ N(-1, 1)    f ~ N(0, K)    y_i ~ Bernoulli(Phi(f_i))

How large the function is and how quickly it changes are its hyperparameters. Fits have them as parameters, with their prior
as a factor, so that the objective is of the evidence times the prior; NUTS draws them. The likelihood is probit's, whose
expectation under a Gaussian has a closed form.

Rasmussen and Williams, "Gaussian processes for machine learning", 2006, chapter 3; Nickisch and Rasmussen, "Approximations for
binary Gaussian process classification", JMLR 9 (2008).
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr, ndtr
from numpyro.distributions.transforms import LowerCholeskyAffine

from models import gp
from models.generated import smooth

PRIORS = {"log_sd": dist.Normal(1.0, 1.0), "log_lengthscale": dist.Normal(-1.0, 1.0)}


def learned():
    """Hyperparameters as parameters, their prior as a factor."""
    values = {name: numpyro.param(name, prior.loc) for name, prior in PRIORS.items()}
    numpyro.factor("prior", log_prior(values))
    return values


def drawn():
    """Hyperparameters as sites."""
    return {name: numpyro.sample(name, prior) for name, prior in PRIORS.items()}


def log_prior(values):
    return sum(prior.log_prob(values[name]) for name, prior in PRIORS.items())


def process(values):
    """The process of hyperparameters, which here has no noise."""
    return gp.Process(jnp.exp(2 * values["log_sd"]), jnp.exp(values["log_lengthscale"]), None)


def probit(f, process=None):
    return dist.Bernoulli(logits=log_ndtr(f) - log_ndtr(-f))


def model(x, y, hyper=learned):
    """Of inputs `(n, d)` and labels `(n,)`."""
    root = gp.factor(process(hyper()), x)
    white = dist.Normal(jnp.zeros(len(x)), 1.0).to_event(1)
    f = numpyro.sample("f", dist.TransformedDistribution(white, LowerCholeskyAffine(jnp.zeros(len(x)), root)))
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", probit(f), obs=y)


def labels(n, sd=4.0, lengthscale=0.7, seed=0):
    """Two inputs, a function drawn from the process, a label for each point; also the labels' probabilities."""
    x, f = smooth(n, lengthscale=lengthscale, noise=0.0, seed=seed)
    chance = jax.device_get(ndtr(sd * f))
    y = jax.random.bernoulli(jax.random.key(seed), chance)
    return jnp.asarray(x), y.astype(jnp.float32), jnp.asarray(chance)
