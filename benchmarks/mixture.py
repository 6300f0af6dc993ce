"""N = 1000 discrete labels: one estimate of an ELBO's value and gradient, and how it scales to a million labels.

Contenders: ppvi with Enumerate, LeaveOneOut and Reinforce; NumPyro's TraceGraph_ELBO; by hand, the gradient of the sum over
both labels, which draws nothing, and the score function of drawn labels. Run with `python -m benchmarks.mixture`.
"""

from __future__ import annotations

import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import TraceGraph_ELBO

import ppvi
import ppvi.numpyro as vi
from benchmarks.results import table
from benchmarks.timing import microseconds, ratio, rounds
from ppvi.objectives import elbo


def model(x):
    means = numpyro.param("means")
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(means[z], 1.0), obs=x)


def guide(x):
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("logits")))


def by_hand(params, x):
    """The exact ELBO: for each datum the sum over its two labels."""
    q = jax.nn.sigmoid(params["logits"])
    log_q = jax.nn.log_sigmoid(jnp.stack([-params["logits"], params["logits"]]))
    log_x = -0.5 * (x - params["means"][:, None]) ** 2 - 0.5 * jnp.log(2 * jnp.pi)
    return jnp.sum(jnp.stack([1 - q, q]) * (log_x + jnp.log(0.5) - log_q))


def score_by_hand(params, key, x):
    """An estimate by drawn labels, each credited with its own datum."""
    logits, means = params["logits"], params["means"]
    z = jax.random.bernoulli(key, jax.nn.sigmoid(logits))
    log_q = jax.nn.log_sigmoid(jnp.where(z, logits, -logits))
    log_x = -0.5 * (x - jnp.where(z, means[1], means[0])) ** 2 - 0.5 * jnp.log(2 * jnp.pi)
    term = log_x + jnp.log(0.5) - log_q
    return jnp.sum(term + jax.lax.stop_gradient(term) * (log_q - jax.lax.stop_gradient(log_q)))


def problem(n):
    data = jnp.where(jnp.arange(n) < n // 2, -2.0, 2.0) + jax.random.normal(jax.random.key(1), (n,))
    return {"logits": 0.3 * jax.random.normal(jax.random.key(3), (n,)), "means": jnp.array([-1.0, 1.0])}, data


def contenders():
    graph = TraceGraph_ELBO()
    steps = {
        str(strategy): jax.jit(vi.objective(elbo, model, guide, strategies={"z": strategy}).value_and_grad)
        for strategy in (ppvi.Enumerate(), ppvi.LeaveOneOut(2), ppvi.Reinforce())
    }
    steps["TraceGraph_ELBO"] = jax.jit(
        lambda key, params, x: jax.value_and_grad(lambda p: -graph.loss(key, p, model, guide, x))(params)
    )
    steps["by hand"] = jax.jit(lambda key, params, x: jax.value_and_grad(by_hand)(params, x))
    steps["score by hand"] = jax.jit(lambda key, params, x: jax.value_and_grad(score_by_hand)(params, key, x))
    return steps


def exact_reinforce_variance(params, x):
    """Mean over labels of the exact variance of the per-lane score function less the zero-mean term."""
    q = jax.nn.sigmoid(params["logits"])
    mean, square = 0.0, 0.0
    for z, prob in ((0, 1 - q), (1, q)):
        cost = -0.5 * (x - params["means"][z]) ** 2 - 0.5 * jnp.log(2 * jnp.pi) + jnp.log(0.5) - jnp.log(prob)
        gradient = cost * (z - q)
        mean, square = mean + prob * gradient, square + prob * gradient**2
    return float((square - mean**2).mean())


def at_a_thousand(steps):
    params, x = problem(1000)
    key = jax.random.key(0)
    times = rounds({name: lambda step=step: step(key, params, x) for name, step in steps.items()}, seconds=20)
    rows = []
    for name, step in steps.items():
        keys = jax.random.split(jax.random.key(5), 20_000).reshape(10, 2000)
        draw = jax.jit(jax.vmap(step, (0, None, None)))
        grads = np.concatenate([draw(k, params, x)[1]["logits"] for k in keys])
        rows.append(
            (
                name,
                microseconds(times[name]),
                ratio(times, name, "by hand"),
                ratio(times, name, "score by hand"),
                ratio(times, name, "TraceGraph_ELBO"),
                f"{grads.var(0, dtype=np.float64).mean():.3g}",
            )
        )
    header = ("", "time", "/ by hand", "/ score by hand", "/ TraceGraph_ELBO", "variance of a logit's gradient")
    table("1000 labels (median [min, max] of ratios by round)", header, rows)
    print(f"Reinforce's variance in theory: {exact_reinforce_variance(params, x):.4g}\n")


def scaling():
    rows = []
    for strategy in (ppvi.Enumerate(), ppvi.Reinforce()):
        bound = vi.objective(elbo, model, guide, strategies={"z": strategy})
        for n in (1_000, 10_000, 100_000, 1_000_000):
            params, x = problem(n)
            start = time.perf_counter()
            bound.explain(params, x)
            staging = time.perf_counter() - start
            step = jax.jit(bound.value_and_grad)
            hand, score = jax.jit(jax.value_and_grad(by_hand)), jax.jit(jax.value_and_grad(score_by_hand))
            key = jax.random.key(0)
            each = {
                "ppvi": lambda: step(key, params, x),
                "by hand": lambda: hand(params, x),
                "score by hand": lambda: score(params, key, x),
            }
            times = rounds(each, seconds=5)
            per_label = 1e9 * np.median(times["ppvi"]) / n
            rows.append(
                (
                    str(strategy),
                    str(n),
                    f"{1e3 * staging:.0f} ms",
                    microseconds(times["ppvi"]),
                    f"{per_label:.1f} ns",
                    ratio(times, "ppvi", "by hand"),
                    ratio(times, "ppvi", "score by hand"),
                )
            )
    table(
        "scaling in labels",
        ("", "labels", "staging", "time", "per label", "/ by hand (exact)", "/ score by hand"),
        rows,
    )


def main():
    warnings.simplefilter("ignore")
    at_a_thousand(contenders())
    scaling()


if __name__ == "__main__":
    main()
