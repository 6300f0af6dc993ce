# %% [markdown]
# # Choosing gradient strategies
#
# A strategy says how one site's choice enters the gradient. The objective does not change, nor does its expectation; cost and
# variance do. Here are programs and strategies, with the variance that each has and the time that it takes.

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
from ppvi import ARM, DisARM, Enumerate, LeaveOneOut, LocalExpectation, MeasureValued, Reinforce, Reparam
from ppvi.objectives import elbo
from ppvi.strategies import (
    ARSM,
    REBAR,
    Antithetic,
    BoundaryReparam,
    GumbelSoftmax,
    ReinMax,
    RunningMean,
    StochasticPerturbation,
    StraightThrough,
    Stratified,
    UnorderedSet,
)
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

assert variances["Enumerate"] < variances["LeaveOneOut(8)"] < variances["LeaveOneOut(2)"] < variances["Reinforce"]

# %% [markdown]
# ## Every strategy that fits, on three programs
# What a given accuracy costs is variance times time. Three objectives: a few bits that are seldom on, and meet in a square;
# counts whose sum passes a threshold; a normal number and a step. Strategies that are biased by design (`Strategy.unbiased` is
# False, and `explain` says so), and pathwise ones where the objective jumps, are hatched: a small variance about the wrong
# number is no merit.


# %%
def nothing():
    pass


def bits():
    with numpyro.plate("bits", 8):
        numpyro.sample("x", dist.Bernoulli(logits=numpyro.param("a")))


def counts():
    with numpyro.plate("counts", 4):
        numpyro.sample("x", dist.Poisson(jnp.exp(numpyro.param("a"))))


def number():
    numpyro.sample("x", dist.Normal(numpyro.param("a"), 1.0))


def square(p, q):
    return (jnp.sum(q.simulate()["x"] * jnp.linspace(0.5, 2.0, 8)) - 1.0) ** 2


def threshold(p, q):
    x = q.simulate()["x"]
    return jnp.where(jnp.sum(x) > 5, 4.0, 0.0) + 0.1 * jnp.sum(x)


def step(p, q):
    x = q.simulate()["x"]
    return jnp.where(x > 0.7, 2.0 + 0.5 * x, 0.2 * x**2)


ANY = [Reinforce(), Reinforce(RunningMean()), LeaveOneOut(2), LeaveOneOut(8)]
FINITE = [Enumerate(), UnorderedSet(2), LocalExpectation(), ARM(), ARSM(), DisARM(), StochasticPerturbation()]
RELAXED = [REBAR(step_size=0.03), GumbelSoftmax(), StraightThrough(), ReinMax()]
PATHWISE = [BoundaryReparam((0.7,)), Reparam(), Stratified(4), Antithetic()]
PROGRAMS = {
    "sparse Bernoulli, 8 lanes": (square, bits, jnp.linspace(-3.5, -1.5, 8), [*ANY, *FINITE, *RELAXED]),
    "Poisson rates, 4 lanes": (
        threshold,
        counts,
        jnp.array([-0.5, 0.0, 0.5, 1.0]),
        [*ANY, MeasureValued(), StochasticPerturbation()],
    ),
    "Normal with a step": (step, number, jnp.array(0.3), [*ANY, MeasureValued(), *PATHWISE]),
}
JUMPS = (Reparam, Stratified, Antithetic)
N = 5_000


def cost_and_spread(program, guide, a, strategy):
    """Mean and variance of the gradient once the strategy has learned what it can, and the time of one."""
    bound = vi.objective(program, nothing, guide, strategies={"x": strategy})
    params = {"a": a}
    if strategy.stateful:
        states = bound.states(params)
        learn = jax.jit(lambda states, key: (bound.update(key, params, states)[2], None))
        states, _ = jax.lax.scan(learn, states, jax.random.split(jax.random.key(1), 300))
        gradient = lambda key, params: bound.update(key, params, states)[1]["a"]  # noqa: E731
    else:
        gradient = lambda key, params: bound.value_and_grad(key, params)[1]["a"]  # noqa: E731
    many = jax.jit(jax.vmap(gradient))
    # Parameters of their own for each key, or an exact gradient would be computed once for all of them.
    inputs = jax.random.split(jax.random.key(2), N), jax.tree.map(lambda x: jnp.tile(x, (N, *[1] * x.ndim)), params)
    grads = jax.block_until_ready(many(*inputs))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(many(*inputs))
        seconds.append(time.perf_counter() - start)
    return np.asarray(grads, float).reshape(N, -1), min(seconds) / N


results = {
    title: {str(strategy): (strategy, *cost_and_spread(program, guide, a, strategy)) for strategy in fitting}
    for title, (program, guide, a, fitting) in PROGRAMS.items()
}

# %% [markdown]
# Those that are unbiased agree with each other; the others are off, by more or by less.

# %%
worst = {}
for title, found in results.items():
    reference = found["LeaveOneOut(n=8)"][1]
    print(title)
    for name, (strategy, grads, seconds) in found.items():
        standard = np.sqrt((grads.var(0) + reference.var(0)) / N) + 1e-4
        off = np.abs((grads.mean(0) - reference.mean(0)) / standard).max()
        honest = strategy.unbiased and not (title.endswith("step") and isinstance(strategy, JUMPS))
        print(f"    {name:60} variance {grads.var(0).mean():8.4f}   {1e6 * seconds:6.2f} us   {off:7.1f} sigmas off")
        assert off < 6 or not honest
        worst[title] = max(worst.get(title, 0.0), 0.0 if honest else off)
assert worst["sparse Bernoulli, 8 lanes"] > 20
assert worst["Normal with a step"] > 20

# %% [markdown]
# The figure: variance times time, in units of `Reinforce()`; shorter is better. Of `Enumerate` nothing is left to see.

# %%
heights = [len(found) for found in results.values()]
figure, axes = plt.subplots(3, 1, figsize=(7.5, 9), height_ratios=heights, constrained_layout=True)
for axis, (title, found) in zip(axes, results.items(), strict=True):
    names = list(found)
    unit = found[names[0]][1].var(0).mean() * found[names[0]][2]
    bars = [max(grads.var(0).mean() * seconds / unit, 1e-4) for _, grads, seconds in found.values()]
    biased = [not s.unbiased or (title.endswith("step") and isinstance(s, JUMPS)) for s, _, _ in found.values()]
    axis.barh(
        names, bars, color=["#c9c9c9" if b else "#33658a" for b in biased], hatch=["///" if b else "" for b in biased]
    )
    axis.set(xscale="log", xlim=(1e-4, 30), title=title)
    axis.axvline(1.0, color="black", linewidth=0.8)
    axis.invert_yaxis()
figure.suptitle("variance x time of one gradient, in units of Reinforce() (hatched: biased)")
Path("out").mkdir(exist_ok=True)
figure.savefig("out/strategies.png", dpi=110)

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
        return k(site.value).scale(score) + k.value_each(site.values).vary(-weights * score).total()


grads, _ = measure({"z": MeanBaseline()})
own = float(grads["logits"].var(0).mean())
print(f"MeanBaseline       variance {own:10.4f}")
errors = (grads["logits"].mean(0) - exact) / (grads["logits"].std(0) / np.sqrt(len(KEYS)) + 1e-3)
assert np.abs(errors).max() < 6
assert variances["Enumerate"] < own < variances["Reinforce"]
