"""The guide of `models.cpl_mixvae`: each arm says of its copy which type the cell is of, and given that, in which state."""

import jax
import jax.numpy as jnp
import numpyro

from models.cpl_mixvae import HIDDEN, per_arm
from models.joint_vae import OneHot
from models.networks import normal, perceptron


def by_networks(weights, x):
    """Logits of types, `(arms, cells, types)`, and what takes types to the Gaussian of states."""
    of_type, of_state = weights
    logits = jax.vmap(lambda w, x: perceptron(w, x, jax.nn.relu))(of_type, x)

    def states(c):
        return normal(jax.vmap(lambda w, z: perceptron(w, z, jax.nn.relu))(of_state, jnp.concatenate([x, c], -1)))

    return logits, states


def guide(x, types=3, states=1, encode=by_networks):
    """Returns the logits."""
    arms, cells, genes = x.shape
    of_type = numpyro.param("of_type", per_arm(arms, genes, HIDDEN, types))
    of_state = numpyro.param("of_state", per_arm(arms, genes + types, HIDDEN, 2 * states))
    logits, given = encode((of_type, of_state), x)
    with numpyro.plate("arms", arms, dim=-2), numpyro.plate("cells", cells, dim=-1):
        c = numpyro.sample("c", OneHot(logits))
        numpyro.sample("s", given(c))
    return logits
