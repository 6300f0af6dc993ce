"""Guide for Attend, Infer, Repeat: a recurrent network looks at an image and finds one object after the other."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.air import PRESENCE, STEPS
from models.air_networks import (
    IMAGE,
    UNITS,
    WHAT,
    WHERE,
    WHERE_LOC,
    WHERE_SCALE,
    attend,
    encode,
    heads,
    look,
    lstm,
    recognition,
)
from models.networks import dense, layer
from ppvi import Enumerate, LeaveOneOut, MeasureValued, Reinforce
from ppvi.objectives import elbo, iwelbo, reweighted_wake_sleep
from ppvi.strategies import NeuralBaseline


def guide(images):
    """Where an object is absent, its place and appearance have their priors, so that they cost nothing.

    Places are in units of the prior, as windows of no size would else be likely at first.
    """
    weights = numpyro.param("recognition", recognition)
    n = len(images)
    present, where, what = jnp.ones(n), jnp.zeros((n, WHERE)), jnp.zeros((n, WHAT))
    seen, state = look(weights, images), (jnp.zeros((n, UNITS)), jnp.zeros((n, UNITS)))
    with numpyro.plate("images", n):
        for t in range(STEPS):
            state = lstm(weights, seen, (where, what, present[..., None]), state)
            further, loc, scale = heads(weights, state[0])
            chance = dist.Bernoulli(further * present)
            present = numpyro.sample(f"pres_{t}", chance, infer={"baseline_input": images})
            found = present[..., None] > 0
            loc = WHERE_LOC + jnp.where(found, loc, 0.0) * WHERE_SCALE
            scale = WHERE_SCALE * jnp.where(found, scale, 1.0)
            where = numpyro.sample(f"where_{t}", dist.Normal(loc, scale).to_event(1))
            loc, scale = encode(weights, attend(where, images))
            loc, scale = jnp.where(found, loc, 0.0), jnp.where(found, scale, 1.0)
            what = numpyro.sample(f"what_{t}", dist.Normal(loc, scale).to_event(1))


def value_weights():
    return dense(jax.random.key(0), hidden=(IMAGE**2, 64), out=(64, 1))


def value(weights, images):
    """What an image is worth before anything is known of its objects, in units of 1,000 nats."""
    hidden = jax.nn.relu(layer(weights["hidden"], images.reshape(*images.shape[:-2], IMAGE**2)))
    return 1000 * layer(weights["out"], hidden)[..., 0]


def presence(strategy, last=None):
    """A strategy for the presence of each object, or another one for the last."""
    return dict.fromkeys(PRESENCE, strategy) | ({} if last is None else {PRESENCE[-1]: last})


ESTIMATORS = {
    "REINFORCE": (elbo, presence(Reinforce())),
    "REINFORCE + baseline": (elbo, presence(Reinforce(NeuralBaseline(value_weights, value, 1e-3)))),
    "leave one out": (elbo, presence(LeaveOneOut(2))),
    "MVD": (elbo, presence(MeasureValued())),
    "ENUM": (elbo, presence(Enumerate())),
    "MVD + ENUM": (elbo, presence(MeasureValued(), last=Enumerate())),
    "IWELBO(2) + REINFORCE": (iwelbo(2, per="images"), presence(Reinforce())),
    "IWELBO(2) + MVD": (iwelbo(2, per="images"), presence(MeasureValued())),
    "RWS(10)": (reweighted_wake_sleep(10, per="images"), {}),
}
"""Objective and strategies of the estimators in Becker, Lew et al. 2024, Figure 7, and of three more."""
