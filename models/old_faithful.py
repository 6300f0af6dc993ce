"""Eruptions of the Old Faithful geyser: a mixture of short and long ones, each eruption with its own label.

    share ~ Beta(2, 2)         mean_0 ~ N(2, 1),  log(mean_1 - mean_0) ~ N(0.9, 0.5)         sd_k ~ LogNormal(-1, 0.5)
    long_i ~ Bernoulli(share)  minutes_i ~ N(mean_{long_i}, sd_{long_i})

The means are ordered, so that the posterior has one mode.

272 durations in minutes, from Azzalini and Bowman, "A look at some data on the Old Faithful geyser", Applied Statistics
39 (1990), as the data set `faithful` of R has them.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions.transforms import OrderedTransform

ERUPTIONS = jnp.asarray(
    np.loadtxt(Path(__file__).with_name("faithful.csv"), delimiter=",", skiprows=1)[:, 0], jnp.float32
)


def components():
    share = numpyro.sample("share", dist.Beta(2.0, 2.0))
    first_and_gap = dist.Normal(jnp.array([2.0, 0.9]), jnp.array([1.0, 0.5])).to_event(1)
    means = numpyro.sample("means", dist.TransformedDistribution(first_and_gap, OrderedTransform()))
    sds = numpyro.sample("sds", dist.LogNormal(-1.0, 0.5).expand([2]).to_event(1))
    return share, means, sds


def model(minutes):
    share, means, sds = components()
    with numpyro.plate("eruptions", len(minutes)):
        long = numpyro.sample("long", dist.Bernoulli(share))
        numpyro.sample("minutes", dist.Normal(means[long], sds[long]), obs=minutes)


def marginalised(minutes):
    """The same posterior with the labels summed out, for NUTS."""
    share, means, sds = components()
    labels = dist.Categorical(jnp.stack([1 - share, share]))
    with numpyro.plate("eruptions", len(minutes)):
        numpyro.sample("minutes", dist.MixtureSameFamily(labels, dist.Normal(means, sds)), obs=minutes)
