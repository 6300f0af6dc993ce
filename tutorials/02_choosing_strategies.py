# %% [markdown]
# # Choosing gradient strategies
#
# A strategy says how one site's choice enters the gradient. The objective does not change, nor does its expectation; cost and
# variance do. Here are one program and several strategies, with the variance that each has and the time that it takes.

# %%
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist

import ppvi
import ppvi.numpyro as vi
from ppvi.objectives import elbo
from ppvi.strategies.base import Draw, phantom

# %% [markdown]
# A mixture of two components: a continuous site, the means, and a discrete one in each of 200 lanes, the labels.

# %%
rng = np.random.default_rng(0)
X = jnp.asarray(rng.normal(np.where(rng.random(200) < 0.4, -1.5, 1.5), 1.0), jnp.float32)


def model(x):
    means = numpyro.sample("means", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(means[z], 1.0), obs=x)


def guide(x):
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    numpyro.sample("means", dist.Normal(loc, 0.2).to_event(1))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("logits", 0.5 * x)))


# %% [markdown]
# ## By name
# `strategies={"z": ...}` names one for a site. The others get their defaults: `Reparam` where there is a reparameterised
# sampler, `Enumerate` where the support is small and no term couples the lanes, else `LeaveOneOut(2)`.

# %%
CHOICES = {
    "Enumerate": {"z": ppvi.Enumerate()},
    "LeaveOneOut(2)": {"z": ppvi.LeaveOneOut(2)},
    "LeaveOneOut(8)": {"z": ppvi.LeaveOneOut(8)},
    "Reinforce": {"z": ppvi.Reinforce()},
}
KEYS = jax.random.split(jax.random.key(0), 500)


def measure(strategies):
    bound = vi.objective(elbo, model, guide, strategies=strategies)
    params = bound.init(jax.random.key(1), X)
    many = jax.jit(jax.vmap(lambda key: bound.value_and_grad(key, params, X)[1]))
    grads = jax.block_until_ready(many(KEYS))
    start = time.perf_counter()
    jax.block_until_ready(many(KEYS))
    seconds = time.perf_counter() - start
    return grads, seconds / len(KEYS)


found = {name: measure(strategies) for name, strategies in CHOICES.items()}
variances = {name: float(grads["logits"].var(0).mean()) for name, (grads, _) in found.items()}
for name, (_, seconds) in found.items():
    print(f"{name:18} variance {variances[name]:10.4f}   {1e6 * seconds:7.1f} us a gradient")

# %% [markdown]
# All of them estimate one gradient: the means agree within their standard errors.

# %%
exact = found["Enumerate"][0]["logits"].mean(0)
for name, (grads, _) in found.items():
    draws = grads["logits"]
    errors = (draws.mean(0) - exact) / (draws.std(0) / np.sqrt(len(KEYS)) + 1e-3)
    assert np.abs(errors).max() < 6, name

# %% [markdown]
# The figure: down and to the left is better. Variance times cost is what a given accuracy costs in time.

# %%
figure, axis = plt.subplots(figsize=(6, 3.8), constrained_layout=True)
for name, (_, seconds) in found.items():
    axis.semilogy(1e6 * seconds, variances[name], "o")
    axis.annotate(name, (1e6 * seconds, variances[name]), xytext=(4, 7), textcoords="offset points")
axis.set(xlabel="microseconds a gradient", ylabel="mean variance of d/d logits", title="one objective, four strategies")
axis.margins(0.25)
axis.set_xlim(left=0)
Path("out").mkdir(exist_ok=True)
figure.savefig("out/strategies.png", dpi=110)

assert variances["Enumerate"] < variances["LeaveOneOut(8)"] < variances["LeaveOneOut(2)"] < variances["Reinforce"]

# %% [markdown]
# ## What does not fit is an error
# A strategy that would be biased, or endless, is refused with a reason and with what would work instead.


# %%
def bounded(x):
    numpyro.sample("means", dist.Uniform(-3.0, numpyro.param("top", 3.0)).expand([2]).to_event(1))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("logits", 0.5 * x)))


refused = []
for strategy in (ppvi.Reinforce(), ppvi.Enumerate()):
    bound = vi.objective(elbo, model, bounded, strategies={"means": strategy})
    try:
        bound.value_and_grad(jax.random.key(0), bound.init(jax.random.key(0), X), X)
    except ppvi.StrategyError as error:
        refused.append(str(error))
        print(error, "\n")
assert len(refused) == 2
assert "its support moves with a parameter" in refused[0]

# %% [markdown]
# ## A strategy of your own
# A strategy is a small class; nothing is registered. This one is the score function whose baseline is the mean of the rest
# over all values, evaluated without gradient machinery.


# %%
@dataclass(frozen=True)
class MeanBaseline(ppvi.Strategy):
    """d E[f] = E[df + (f - sum_v q(v) f(v)) dlog q]."""

    def misfit(self, dist):
        return None if dist.has_enumerate_support else "there is no finite support to take a mean over"

    def draw(self, dist, rng):
        value, support = dist.sample(rng), dist.enumerate_support()
        return Draw(value, dist.log_prob(value), support, dist.log_prob(support))

    def estimate(self, site, k):
        score = phantom(site, site.log_prob)
        weights = site.ops.exp(site.ops.stop_gradient(site.log_probs))
        return k(site.value).scale(score) + k.value_each(site.values).times(-weights * score).total()


grads, _ = measure({"z": MeanBaseline()})
own = float(grads["logits"].var(0).mean())
print(f"MeanBaseline       variance {own:10.4f}")
errors = (grads["logits"].mean(0) - exact) / (grads["logits"].std(0) / np.sqrt(len(KEYS)) + 1e-3)
assert np.abs(errors).max() < 6
assert variances["Enumerate"] < own < variances["Reinforce"]
