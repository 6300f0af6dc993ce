"""Two regressions with a known noise: of a straight function of some inputs, and of a network of one input.

    w_k ~ N(0, 1)    y_i ~ N(f(w, x_i), noise^2)    f(w, x) = x w    or    f(w, x) = 2 tanh(3 x a + 3 b) c / sqrt(H) + d

The first has a posterior in closed form; the second, whose weights w are (a, b, c, d) of H hidden units, has none. They stand
for the residual networks of Alexos, Boyd and Mandt, "Structured stochastic gradient MCMC", ICML 2022.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

UNITS, NOISE = 6, 0.3
GROUPS = {
    "Langevin": [0] * (3 * UNITS + 1),
    "layers": [0] * 2 * UNITS + [1] * (UNITS + 1),
    "units": [*range(UNITS)] * 3 + [UNITS],
    "weights": [*range(3 * UNITS + 1)],
}
"""Ways to group the network's weights: all in one, by layer, with what goes in and out of a unit, each by itself."""


def straight(w, x):
    return x @ w


def network(w, x):
    a, b, c = w[:-1].reshape(3, UNITS)
    return 2 * jnp.tanh(3 * x * a + 3 * b) @ c / UNITS**0.5 + w[-1]


def model(x, y, *told, function, weights):
    """Of inputs `(n, inputs)` and outputs `(n,)`; what else a guide is told is nothing to it."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([weights]).to_event(1))
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(function(w, x), NOISE), obs=y)


def neighbours(seed, n=50, inputs=6, correlation=0.9):
    """Inputs that are like their neighbours `(n, inputs)`, and outputs of a straight function with weights from the prior."""
    rng = np.random.default_rng(seed)
    covariance = correlation ** np.abs(np.subtract.outer(np.arange(inputs), np.arange(inputs)))
    x = rng.multivariate_normal(np.zeros(inputs), covariance, n)
    y = x @ rng.normal(size=inputs) + NOISE * rng.normal(size=n)
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


def wave(seed, n=30):
    """Inputs `(n, 1)` between -1 and 1, none of them between -0.2 and 0.4, outputs of a wave, and as many new ones of both."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(size=2 * n)
    x = np.where(share < 4 / 7, -1 + 0.8 * share * 7 / 4, 0.4 + 0.6 * (share * 7 - 4) / 3)
    y = np.sin(4 * x) + NOISE * rng.normal(size=2 * n)
    x, y = jnp.asarray(x[:, None], jnp.float32), jnp.asarray(y, jnp.float32)
    return x[:n], y[:n], x[n:], y[n:]


def posterior(x, y):
    """Of the straight function: mean and precision matrix."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    precision = x.T @ x / NOISE**2 + np.eye(x.shape[1])
    return np.linalg.solve(precision, x.T @ y / NOISE**2), precision


def broken(precision, groups, rho):
    """Precision matrix of what is left of a Gaussian where groups of weights are apart, or are dropped unless by `rho`."""
    return precision * np.where(np.equal.outer(groups, groups), 1, rho or 0)
