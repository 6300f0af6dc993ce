"""Paths that are steered to the outputs: in each step the noise has another mean.

    w_t ~ N(push_t + feedback_t' z_t, width_t^2)

z_t is where the processes are. A push that knows the time alone moves every path alike; one that knows z too brings paths
together. In continuous time the noise's width stays that of the prior, and the divergence is Girsanov's, half the mean of the
push's square; a step that is not short narrows the noise a little.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from models.fractional import LAW, mixed, moved


def guide(y, feedback=True):
    """Returns where the processes are after each step, `(n, processes)`."""
    keep, add = moved(len(y))
    push = numpyro.param("push", jnp.zeros(len(y)))
    back = numpyro.param("feedback", jnp.zeros((len(y), len(keep)))) if feedback else jnp.zeros((len(y), len(keep)))
    width = numpyro.param("width", jnp.ones(len(y)), constraint=constraints.positive)

    def step(z, each):
        push, back, width = each
        z = keep * z + add * numpyro.sample("w", dist.Normal(push + back @ z, width))
        return z, z

    return scan(step, jnp.zeros(len(keep)), (push, back, width))[1]


def optimal(hurst, y):
    """The guide's parameters at which it is the posterior, from the last step to the first: log p(y_t .. y_n | z) is
    r'z - z'Pz / 2 and a constant."""
    mix, keep, add = (np.asarray(x, np.float64) for x in (mixed(hurst), *moved(len(y))))
    p, r, found = np.zeros((len(mix), len(mix))), np.zeros(len(mix)), []
    for seen in np.asarray(y, np.float64)[::-1]:
        p, r = p + np.outer(mix, mix) / LAW.noise**2, r + mix * seen / LAW.noise**2
        width = 1 / np.sqrt(1 + add @ p @ add)
        push, back = width**2 * (add @ r), -(width**2) * keep * (p @ add)
        found.append((push, back, width))
        p, r = keep[:, None] * (p - width**2 * np.outer(p @ add, p @ add)) * keep, keep * (r - push * (p @ add))
    names = ("push", "feedback", "width")
    return {name: jnp.asarray(np.stack(x[::-1])) for name, x in zip(names, zip(*found, strict=True), strict=True)}


@partial(jax.jit, static_argnames="feedback")
def paths(key, params, y, feedback):
    """Means and standard deviations of X, by 2,000 draws."""
    steered = handlers.substitute(partial(guide, feedback=feedback), params)
    states = jax.vmap(lambda key: handlers.seed(steered, key)(y))(jax.random.split(key, 2000))
    x = jnp.asarray(states) @ mixed(params["hurst"])
    return x.mean(0), x.std(0)
