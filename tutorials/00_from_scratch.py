# %% [markdown]
# # From scratch: the core of ppvi in a hundred lines
#
# A gradient of an expectation, E over z ~ q(theta) of f(z, theta), is not the expectation of a gradient: theta is in the
# distribution too. This script rebuilds the idea that ppvi stands on, without importing it: *each random choice hands the
# rest of the program to a strategy*, which returns an estimate whose ordinary derivative is an unbiased estimate of the
# derivative that we want (ADEV; Lew et al. 2023). At the end the library is asked for the same numbers.

# %%
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

# %% [markdown]
# ## Distributions
# What a strategy may ask of a distribution: a draw, a log density, and, if there are such things, a draw as a differentiable
# function of noise and the list of all values.


# %%
class Bernoulli(NamedTuple):
    logit: Any

    def sample(self, key):
        return jax.random.bernoulli(key, jax.nn.sigmoid(self.logit)).astype(float)

    def log_prob(self, z):
        return jax.nn.log_sigmoid(jnp.where(z == 1, self.logit, -self.logit))

    def support(self):
        return (0.0, 1.0)


class Normal(NamedTuple):
    loc: Any
    scale: Any

    def sample(self, key):
        return self.loc + self.scale * jax.random.normal(key)

    def log_prob(self, x):
        return -0.5 * ((x - self.loc) / self.scale) ** 2 - jnp.log(self.scale) - 0.5 * jnp.log(2 * jnp.pi)


# %% [markdown]
# ## Strategies
# A strategy sees the distribution and `k`, the rest of the program as a function of this choice, and returns an estimate of
# E[k(z)]. The three differ only in how they use `k`.


# %%
def reparam(dist, key, k):
    """d E[k] = E[d k(g(noise, theta))]: the draw itself is differentiated."""
    return k(dist.sample(key))


def reinforce(dist, key, k):
    """d E[k] = E[d k + k d log q]: a factor that is one, and whose derivative is that of log q."""
    z = stop_gradient(dist.sample(key))
    log_prob = dist.log_prob(z)
    return k(z) * jnp.exp(log_prob - stop_gradient(log_prob))


def enumerate_(dist, key, k):
    """E[k] = sum_z q(z) k(z): a sum is differentiated like any sum."""
    return sum(jnp.exp(dist.log_prob(z)) * k(z) for z in dist.support())


# %% [markdown]
# ## The rest of the program
# Programs are plain Python that calls `sample`. To get at "the rest" we replay: run the program with the choices made so
# far; the first choice that is not yet made stops the run and names itself. Its strategy decides what to put there, and
# the program is run again from the top with one more choice made.


# %%
class Choice(Exception):  # noqa: N818
    """Raised by the first choice of a run that has no value yet."""

    def __init__(self, dist, strategy):
        self.dist, self.strategy = dist, strategy


made: list[Any] = []


def sample(dist, strategy):
    if not made:
        raise Choice(dist, strategy)
    return made.pop(0)


def surrogate(program: Callable[[], Any], key, values=()):
    """A number whose expectation is that of the program, and whose derivative has the expectation of its derivative."""
    made[:] = values
    try:
        return program()
    except Choice as choice:
        here, later = jax.random.split(key)
        return choice.strategy(choice.dist, here, lambda z: surrogate(program, later, (*values, z)))


# %% [markdown]
# That is all there is to it. An ELBO is a program like any other: a guide draws, and densities are computed.
#
# ## A model and a guide
# A lamp is on (z = 1) or off; its brightness x is normal around 2z; a meter reads y = 1.3.

# %%
PARAMS = {"logit": jnp.array(0.3), "loc": jnp.array(0.8), "slope": jnp.array(0.7)}


def elbo(params, strategy_z, strategy_x):
    def program():
        q_z = Bernoulli(params["logit"])
        z = sample(q_z, strategy_z)
        q_x = Normal(params["loc"] + params["slope"] * z, 0.6)
        x = sample(q_x, strategy_x)
        model = Bernoulli(-0.4).log_prob(z) + Normal(2.0 * z, 1.0).log_prob(x) + Normal(x, 0.7).log_prob(1.3)
        return model - q_z.log_prob(z) - q_x.log_prob(x)

    return program


@jax.jit
def exact(params):
    """The same ELBO without any randomness: the sum over z, and Gauss-Hermite quadrature over x."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)

    def given(z):
        q_z, q_x = Bernoulli(params["logit"]), Normal(params["loc"] + params["slope"] * z, 0.6)
        x = q_x.loc + 0.6 * nodes
        model = Bernoulli(-0.4).log_prob(z) + Normal(2.0 * z, 1.0).log_prob(x) + Normal(x, 0.7).log_prob(1.3)
        return jnp.exp(q_z.log_prob(z)) * (weights / weights.sum()) @ (model - q_z.log_prob(z) - q_x.log_prob(x))

    return given(0.0) + given(1.0)


# %% [markdown]
# ## Every combination of strategies has the same mean
# `f` may treat one choice one way and the other another way: strategies compose, because each sees the rest of the program
# only as a function.

# %%
truth = jax.grad(exact)(PARAMS)
N = 20_000


def gradients(strategy_z, strategy_x):
    def gradient(key):
        return jax.grad(lambda params: surrogate(elbo(params, strategy_z, strategy_x), key))(PARAMS)

    return jax.jit(jax.vmap(gradient))(jax.random.split(jax.random.key(0), N))


variances = {}
for strategy_z in (enumerate_, reinforce):
    for strategy_x in (reparam, reinforce):
        found = gradients(strategy_z, strategy_x)
        variances[strategy_z, strategy_x] = float(found["logit"].var())
        print(f"\n{strategy_z.__name__:12} {strategy_x.__name__:12}")
        for name, draws in found.items():
            error = draws.std() / np.sqrt(N)
            print(f"  d/d {name:6} {draws.mean():8.4f} ± {error:.4f}   exact {truth[name]:8.4f}")
            assert abs(draws.mean() - truth[name]) < 5 * error + 1e-5

# %% [markdown]
# ## The library's numbers
# Everything else in ppvi is there to do this to programs of NumPyro and Pyro, at the speed of code written by hand, and
# with less variance. It runs the program once instead of many times (it *stages* it), finds which parts of the objective
# depend on which choices, lane by lane, and credits each with its own parts only. So its means are ours, its enumeration
# is ours to rounding, and its score function has no more variance than ours.

# %%
import numpyro
import numpyro.distributions as dist

import ppvi
import ppvi.numpyro as vi


def model():
    z = numpyro.sample("z", dist.Bernoulli(logits=-0.4))
    x = numpyro.sample("x", dist.Normal(2.0 * z, 1.0))
    numpyro.sample("y", dist.Normal(x, 0.7), obs=1.3)


def guide():
    z = numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("logit")))
    numpyro.sample("x", dist.Normal(numpyro.param("loc") + numpyro.param("slope") * z, 0.6))


def library(strategies):
    bound = vi.objective(ppvi.objectives.elbo, model, guide, strategies=strategies)
    return jax.vmap(bound.value_and_grad, (0, None))(jax.random.split(jax.random.key(1), N), PARAMS)


for z, x in (
    (ppvi.Enumerate(), ppvi.Reparam()),
    (ppvi.Reinforce(), ppvi.Reparam()),
    (ppvi.Reinforce(), ppvi.Reinforce()),
):
    values, grads = library({"z": z, "x": x})
    assert abs(values.mean() - exact(PARAMS)) < 5 * values.std() / np.sqrt(N)
    for name, draws in grads.items():
        assert abs(draws.mean() - truth[name]) < 5 * draws.std() / np.sqrt(N) + 1e-5
    ours = variances[enumerate_ if z == ppvi.Enumerate() else reinforce, reparam if x == ppvi.Reparam() else reinforce]
    print(f"{z!s:24} {x!s:24} variance in d/d logit: library {grads['logit'].var():.4f}, from scratch {ours:.4f}")
    assert grads["logit"].var() < 1.1 * ours


# %% [markdown]
# Where nothing is random the two agree to rounding: a discrete program, enumerated.


# %%
def flip(params):
    def program():
        a = sample(Bernoulli(params["logit"]), enumerate_)
        b = sample(Bernoulli(params["slope"] - a), enumerate_)
        return (a + 2 * b - params["loc"]) ** 2

    return program


def coins():
    a = numpyro.sample("a", dist.Bernoulli(logits=numpyro.param("logit")))
    numpyro.sample("b", dist.Bernoulli(logits=numpyro.param("slope") - a))


def squared(p, q):
    z = q.simulate()
    return (z["a"] + 2 * z["b"] - numpyro.param("loc")) ** 2


value, grads = jax.value_and_grad(lambda params: surrogate(flip(params), jax.random.key(0)))(PARAMS)
bound = vi.objective(squared, lambda: None, coins, strategies={"a": ppvi.Enumerate(), "b": ppvi.Enumerate()})
library_value, library_grads = bound.value_and_grad(jax.random.key(1), PARAMS)
np.testing.assert_allclose(value, library_value, rtol=1e-5)
for name in PARAMS:
    np.testing.assert_allclose(grads[name], library_grads[name], rtol=1e-5)
print("\nfrom scratch and library agree")
