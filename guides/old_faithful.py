"""A guide for the geyser's mixture: normal components in unconstrained space, and a Bernoulli label for each eruption.

Given the components, the log odds of a label are quadratic in the duration, so the guide's are too.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.transforms import ExpTransform, OrderedTransform, SigmoidTransform


def guide(minutes):
    positive = constraints.positive
    loc, scale = numpyro.param("share_loc", 0.0), numpyro.param("share_scale", 0.3, constraint=positive)
    numpyro.sample("share", dist.TransformedDistribution(dist.Normal(loc, scale), SigmoidTransform()))

    loc = numpyro.param("means_loc", jnp.array([2.0, 0.9]))
    scale = numpyro.param("means_scale", jnp.full(2, 0.1), constraint=positive)
    first_and_gap = dist.Normal(loc, scale).to_event(1)
    numpyro.sample("means", dist.TransformedDistribution(first_and_gap, OrderedTransform()))

    loc = numpyro.param("sds_loc", jnp.full(2, -1.0))
    scale = numpyro.param("sds_scale", jnp.full(2, 0.1), constraint=positive)
    numpyro.sample("sds", dist.TransformedDistribution(dist.Normal(loc, scale), ExpTransform()).to_event(1))

    constant, slope, curvature = numpyro.param("label", jnp.zeros(3))
    centred = minutes - 3
    logits = 10 * (constant + slope * centred + curvature * centred**2)
    with numpyro.plate("eruptions", len(minutes)):
        numpyro.sample("long", dist.Bernoulli(logits=logits))
