"""Log-concave targets of forward-backward Gaussian variational inference.

    target        z ~ N(c, A^-1), the eigenvalues of A between a and b
    regression    z ~ N(0, I),  y_n ~ Bernoulli(sigmoid(x_n' z))

The potential of the first, minus its log density, has curvature between a and b; that of the second between 1 and 1 +
lambda_max(X'X) / 4, for the logistic function is nowhere steeper than 1 / 4.

Diao, Balasubramanian, Chewi and Salim, "Forward-backward Gaussian variational inference via JKO in the Bures-Wasserstein space"
(ICML 2023).
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist


def target(center, precision):
    """z ~ N(center, precision^-1)"""
    numpyro.sample("z", dist.MultivariateNormal(center, precision_matrix=precision))


def regression(x, y):
    """z ~ N(0, I),  y_n ~ Bernoulli(sigmoid(x_n' z))"""
    z = numpyro.sample("z", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Bernoulli(logits=x @ z), obs=y)


def spectrum(dimension, least, most, seed):
    """A center, and a precision matrix with eigenvalues from least to most, in random directions."""
    rng = np.random.default_rng(seed)
    ways, _ = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    return rng.standard_normal(dimension), (ways * np.geomspace(least, most, dimension)) @ ways.T


def rows(count, dimension, seed):
    """Columns x of unequal lengths, and labels y of a regression that is drawn."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, dimension)) * np.geomspace(1, 3, dimension)
    w = rng.standard_normal(dimension)
    return x, (rng.random(count) < 1 / (1 + np.exp(-x @ w))) * 1.0
