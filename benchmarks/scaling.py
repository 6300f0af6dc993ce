"""How a gradient's time grows with the particles of an importance-weighted bound and with the data, beside hand-written code.

Bayesian logistic regression with 20 coefficients and a mean-field guide, reparameterised. `python -m benchmarks.scaling`;
labels are scaled in `benchmarks.mixture`, sites in `benchmarks.staging`, rounds of a loop in `benchmarks.control_flow`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import ppvi.numpyro as vi
from benchmarks.results import table
from benchmarks.timing import microseconds, ratio, rounds
from ppvi.objectives import iwelbo

KEY, SIZE = jax.random.key(0), 20


def model(x, y):
    w = numpyro.sample("w", dist.Normal(jnp.zeros(SIZE), 1.0).to_event(1))
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def guide(x, y):
    loc = numpyro.param("loc", jnp.zeros(SIZE))
    scale = jnp.exp(numpyro.param("log_scale", jnp.full(SIZE, -3.0)))
    numpyro.sample("w", dist.Normal(loc, scale).to_event(1))


def by_hand(particles):
    def bound(params, key, x, y):
        noise = jax.random.normal(key, (particles, SIZE))
        scale = jnp.exp(params["log_scale"])
        w = params["loc"] + scale * noise
        prior = (-0.5 * w**2).sum(-1)
        posterior = (-0.5 * noise**2 - params["log_scale"]).sum(-1)
        logits = w @ x.T
        likelihood = (y * logits - jax.nn.softplus(logits)).sum(-1)
        return jax.nn.logsumexp(prior + likelihood - posterior) - jnp.log(particles)

    return bound


def problem(n):
    x = jax.random.normal(jax.random.key(1), (n, SIZE))
    y = jax.random.bernoulli(jax.random.key(2), jax.nn.sigmoid(x.sum(-1) / 4)).astype(jnp.float32)
    return x, y


def contenders(particles, data):
    x, y = problem(data)
    bound = vi.objective(iwelbo(particles), model, guide)
    params = bound.init(KEY, x, y)
    ours, hand = jax.jit(bound.value_and_grad), jax.jit(jax.value_and_grad(by_hand(particles)))
    return {"ppvi": lambda: ours(KEY, params, x, y), "by hand": lambda: hand(params, KEY, x, y)}


def row(particles, data):
    times = rounds(contenders(particles, data), seconds=4)
    each = 1e9 * np.median(times["ppvi"]) / (particles * data)
    return str(particles), str(data), microseconds(times["ppvi"]), f"{each:.2f} ns", ratio(times, "ppvi", "by hand")


def main():
    header = ("particles", "data", "one gradient", "a particle and datum", "ppvi / by hand")
    table("particles", header, [row(particles, 1_000) for particles in (1, 10, 100, 1_000)])
    table("data", header, [row(1, data) for data in (1_000, 10_000, 100_000, 1_000_000)])


if __name__ == "__main__":
    main()
