"""Two models whose posteriors simple guides cannot match: a mixture seen through a bit, and neurons of which some are hidden.

The mixture: four groups on a line, and a coin whose bias is where one stands.

    z_i ~ sum_k w_k N(mean_k, 1)        x_i ~ Bernoulli(sigmoid(z_i))        w = (1 - share, 1 - share, share, share) / 2

The neurons, a partially observed generalised linear model: counts of spikes excite or inhibit one another through a decaying
history, and only some neurons are recorded.

    spikes_t ~ Poisson(sigmoid(bias + history_t couplings))        history_{t+1} = decay (history_t + spikes_t)

Share, means, couplings and biases are parameters, found by maximum likelihood.

Li, Wang, Li and Wu, "Forward chi-square divergence based variational importance sampling", ICLR 2024.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.nn import sigmoid
from numpyro.contrib.control_flow import scan

SHARE, MEANS = 0.7, jnp.array([-8.0, -2.0, 2.0, 8.0])
RECORDED, HIDDEN, DECAY = 3, 2, 0.78
NEURONS = RECORDED + HIDDEN


def groups(share, means):
    """The distribution of places, means in their order."""
    weights = jnp.stack([1 - share, 1 - share, share, share]) / 2
    return dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(means, 1.0))


def mixture(x, size):
    """Of bits `(n,)`, `size` of them at a time."""
    share = numpyro.param("share", 0.5, constraint=dist.constraints.unit_interval)
    means = numpyro.param("means", jnp.array([-9.0, -1.0, 1.0, 9.0]))
    with numpyro.plate("data", len(x), subsample_size=size) as rows:
        z = numpyro.sample("z", groups(share, means))
        numpyro.sample("x", dist.Bernoulli(logits=z), obs=x[rows])


def bits(key, n):
    """Places and bits of the true mixture, `(n,)` each."""
    of_place, of_bit = jax.random.split(key)
    z = groups(jnp.array(SHARE), MEANS).sample(of_place, (n,))
    return z, jax.random.bernoulli(of_bit, sigmoid(z)).astype(jnp.float32)


def couplings():
    return numpyro.param("couplings", jnp.zeros((NEURONS, NEURONS))), numpyro.param("bias", jnp.zeros(NEURONS))


def neurons(recorded):
    """Of counts of the neurons that are recorded, `(sequences, times, RECORDED)`."""
    weights, bias = couplings()

    def step(history, seen):
        rates = sigmoid(bias + history @ weights)
        with numpyro.plate("sequences", len(seen)):
            hidden = numpyro.sample("hidden", dist.Poisson(rates[..., RECORDED:]).to_event(1))
            numpyro.sample("recorded", dist.Poisson(rates[..., :RECORDED]).to_event(1), obs=seen)
        return DECAY * (history + jnp.concatenate([seen, hidden], -1)), None

    scan(step, jnp.zeros((len(recorded), NEURONS)), jnp.swapaxes(recorded, 0, 1))


def spikes(key, sequences, times, weights, bias):
    """Counts of all neurons, `(sequences, times, NEURONS)`."""

    def step(history, key):
        counts = jax.random.poisson(key, sigmoid(bias + history @ weights)).astype(jnp.float32)
        return DECAY * (history + counts), counts

    _, drawn = jax.lax.scan(step, jnp.zeros((sequences, NEURONS)), jax.random.split(key, times))
    return jnp.swapaxes(drawn, 0, 1)
