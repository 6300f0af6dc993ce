"""Sites in loops: a random walk by the score function and a hidden Markov chain by the forward recursion, beside hand-written
code; and the chain beside NumPyro's enumeration and Pyro's `DiscreteHMM`. `python -m benchmarks.control_flow`.

At the posterior's chain the bound is the evidence, which the peers compute, each with its gradient in the model.
"""

from __future__ import annotations

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pyro.distributions
import torch
from jax import lax
from numpyro.contrib.control_flow import scan
from numpyro.contrib.funsor import config_enumerate, enum
from numpyro.contrib.funsor.infer_util import log_density

import ppvi
import ppvi.numpyro as vi
from benchmarks.results import table
from benchmarks.timing import microseconds, ratio, rounds
from ppvi.objectives import elbo

KEY = jax.random.key(0)
ROUNDS, WALKS, STATES = 200, 64, 16

# A random walk, whose costs are credited to the steps so far ------------------------------------------------------------


def walker():
    theta = numpyro.param("theta", jnp.full(WALKS, 0.01))

    def step(x, _):
        with numpyro.plate("walks", WALKS):
            x = numpyro.sample("x", dist.Normal(x + theta, 0.5))
        return x, jnp.tanh(x) ** 2

    return lax.scan(step, jnp.zeros(WALKS), None, length=ROUNDS)[1].sum()


def by_hand(theta, key):
    def step(x, key):
        now = lax.stop_gradient(x + theta + 0.5 * jax.random.normal(key, (WALKS,)))
        log_prob = dist.Normal(x + theta, 0.5).log_prob(now)
        return now, (log_prob, jnp.tanh(now) ** 2)

    _, (log_probs, costs) = lax.scan(step, jnp.zeros(WALKS), jax.random.split(key, ROUNDS))
    score = jnp.cumsum(log_probs, 0)
    return (costs * jnp.exp(score - lax.stop_gradient(score))).sum()


def of_walks():
    bound = vi.objective(lambda p, q: q.simulate().returned, lambda: None, walker, strategies={"x": ppvi.Reinforce()})
    params = bound.init(KEY)
    ours, hand = jax.jit(bound.value_and_grad), jax.jit(jax.value_and_grad(by_hand))
    return {"ppvi": lambda: ours(KEY, params), "by hand": lambda: hand(params["theta"], KEY)}


def walks():
    times = rounds(of_walks())
    return [("random walk, Reinforce", name, microseconds(x), ratio(times, "ppvi", name)) for name, x in times.items()]


# A hidden Markov chain ---------------------------------------------------------------------------------------------------


def model(series):
    transition = numpyro.param("transition", jax.random.normal(jax.random.key(5), (STATES, STATES)))
    means = numpyro.param("means", jnp.linspace(-2.0, 2.0, STATES))

    # NumPyro's enumeration wants states that are not scalars.
    def step(z, x):
        with numpyro.plate("series", 1):
            z = numpyro.sample("z", dist.Categorical(logits=transition[z]))
            numpyro.sample("x", dist.Normal(means[z], 1.0), obs=x)
        return z, None

    scan(step, jnp.zeros(1, int), series)


def guide(series):
    logits = numpyro.param("logits", jnp.zeros((ROUNDS, STATES, STATES)))

    def step(z, rows):
        with numpyro.plate("series", 1):
            return numpyro.sample("z", dist.Categorical(logits=rows[z])), None

    scan(step, jnp.zeros(1, int), logits)


def emissions(params, series):
    return dist.Normal(params["means"], 1.0).log_prob(series)


def posterior(params, series):
    """Logits of the posterior's chain, by the backward recursion."""
    p = jax.nn.log_softmax(params["transition"])

    def step(later, now):
        logits = p + (now + later)[None]
        return jax.scipy.special.logsumexp(logits, -1), logits

    return lax.scan(step, jnp.zeros(STATES), emissions(params, series), reverse=True)[1]


def recursion(params, series):
    """The bound by the forward recursion over the chain's marginals, written for this model."""
    p, q = jax.nn.log_softmax(params["transition"]), jax.nn.log_softmax(params["logits"])

    def step(marginal, now):
        q, e = now
        pairs = marginal[:, None] * jnp.exp(q)
        return pairs.sum(0), (pairs * (p + e - q)).sum()

    return lax.scan(step, jnp.eye(STATES)[0], (q, emissions(params, series)))[1].sum()


def pyro_evidence(params, series):
    leaves = [torch.tensor(np.asarray(params[name]), requires_grad=True) for name in ("transition", "means")]
    start = torch.full((STATES,), -math.inf)
    start[0] = 0.0
    x = torch.tensor(np.asarray(series[:, 0]))

    def run():
        emission = pyro.distributions.Normal(leaves[1], torch.ones(STATES))
        evidence = pyro.distributions.DiscreteHMM(start, leaves[0], emission, duration=ROUNDS).log_prob(x)
        return [evidence, *torch.autograd.grad(evidence, leaves)]

    return lambda: [jnp.asarray(float(x.sum())) for x in run()]


def of_chains():
    series = jax.random.normal(jax.random.key(1), (ROUNDS, 1))
    bound = vi.objective(elbo, model, guide, strategies={"z": ppvi.Enumerate()})
    params = bound.init(KEY, series)
    params["logits"] = posterior(params, series)
    own = {name: params[name] for name in ("transition", "means")}
    enumerated_model = enum(config_enumerate(numpyro.handlers.seed(model, KEY)), -2)

    def evidence(params):
        return log_density(enumerated_model, (series,), {}, params)[0]

    gradients = bound.value_and_grad, jax.value_and_grad(recursion), jax.value_and_grad(evidence)
    ours, hand, enumerated = map(jax.jit, gradients)
    return {
        "ppvi": lambda: ours(KEY, params, series),
        "by hand": lambda: hand(params, series),
        "NumPyro, enumeration": lambda: enumerated(own),
        "Pyro, DiscreteHMM": pyro_evidence(params, series),
    }


def chains():
    contenders = of_chains()
    values = {name: float(jax.tree.leaves(run())[0]) for name, run in contenders.items()}
    times = rounds(contenders)
    return [
        (f"hidden Markov chain, log p(x) {values[name]:.3f}", name, microseconds(x), ratio(times, "ppvi", name))
        for name, x in times.items()
    ]


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    header = ("problem", "system", "one gradient", "ppvi / it")
    table(f"{ROUNDS} rounds; {WALKS} walks; {STATES} states", header, [*walks(), *chains()])


if __name__ == "__main__":
    main()
