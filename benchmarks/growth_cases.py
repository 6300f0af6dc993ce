"""Pairs of programs of any size for `benchmarks.growth`: a gradient of ppvi, and one of the same bound by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import lax
from numpyro.infer import Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

import ppvi
import ppvi.numpyro as vi
from benchmarks import mixture, scaling
from ppvi.objectives import elbo, iwelbo

KEY = jax.random.key(0)
LOG_2PI = float(np.log(2 * np.pi))
Call = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of a key and arrays, which gives a value and its gradient, and what it is called with."""


def ours(bound: Any, params: Any, *data: Any) -> Call:
    return bound.value_and_grad, (KEY, params, *data)


def hand(function: Callable[..., Any], params: Any, *data: Any) -> Call:
    """Of a bound as a function of a key, parameters and data."""
    return jax.value_and_grad(function, argnums=1), (KEY, params, *data)


def numpyro_loss(model: Any, guide: Any, params: Any, *data: Any) -> Call:
    def loss(key: jax.Array, params: Any, *data: Any) -> jax.Array:
        return -Trace_ELBO().loss(key, params, model, guide, *data)

    return hand(loss, params, *data)


# Sites --------------------------------------------------------------------------------------------------------------------


def sites(n: int, star: bool) -> dict[str, Call]:
    """n scalar sites in a loop of Python, each given the one before, or all given the first."""

    def model() -> None:
        parent = 0.0
        for i in range(n):
            x = numpyro.sample(f"x{i}", dist.Normal(0.5 * parent, 1.0))
            parent = parent if star and i else x

    def guide() -> None:
        for i in range(n):
            numpyro.sample(f"x{i}", dist.Normal(numpyro.param(f"loc{i}", 0.1), 1.0))

    def by_hand(key: jax.Array, params: Any) -> jax.Array:
        noise, parent, total = jax.random.normal(key, (n,)), 0.0, 0.0
        for i in range(n):
            x = params[f"loc{i}"] + noise[i]
            total += 0.5 * noise[i] ** 2 - 0.5 * (x - 0.5 * parent) ** 2
            parent = parent if star and i else x
        return total

    params = {f"loc{i}": jnp.array(0.1) for i in range(n)}
    made = {"ppvi": ours(vi.objective(elbo, model, guide), params), "by hand": hand(by_hand, params)}
    return made if n > 300 else made | {"NumPyro": numpyro_loss(model, guide, params)}


# Lanes and particles ------------------------------------------------------------------------------------------------------


def lanes(n: int, strategy: Any) -> dict[str, Call]:
    params, x = mixture.problem(n)
    bound = vi.objective(elbo, mixture.model, mixture.guide, strategies={"z": strategy})
    exact = isinstance(strategy, ppvi.Enumerate)

    def by_hand(key: jax.Array, params: Any, x: jax.Array) -> jax.Array:
        return mixture.by_hand(params, x) if exact else mixture.score_by_hand(params, key, x)

    return {"ppvi": ours(bound, params, x), "by hand": hand(by_hand, params, x)}


def particles(n: int) -> dict[str, Call]:
    x, y = scaling.problem(1_000)
    bound = vi.objective(iwelbo(n), scaling.model, scaling.guide)
    params, written = bound.init(KEY, x, y), scaling.by_hand(n)
    by_hand = hand(lambda key, params, x, y: written(params, key, x, y), params, x, y)
    return {"ppvi": ours(bound, params, x, y), "by hand": by_hand}


def nested(n: int) -> dict[str, Call]:
    """The mean of n bounds, each of n data with five weights of their own."""
    k, y = 5, jnp.linspace(-2.0, 2.0, n)

    def model(y: jax.Array) -> None:
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(numpyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=y)

    def guide(y: jax.Array) -> None:
        slope, log_scale = numpyro.param("slope", 0.4), numpyro.param("log_scale", -0.5)
        with numpyro.plate("data", len(y)):
            numpyro.sample("z", dist.Normal(slope * y, jnp.exp(log_scale)))

    def objective(p: ppvi.Program, q: ppvi.Program) -> Any:
        return ppvi.replicate(n, lambda: iwelbo(k, per="data")(p, q)).mean()

    def by_hand(key: jax.Array, params: Any, y: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, (n, k, len(y)))
        z = params["slope"] * y + jnp.exp(params["log_scale"]) * noise
        log_w = -0.5 * (z**2 + (y - z) ** 2 - noise**2 + LOG_2PI) + params["log_scale"]
        return (jax.nn.logsumexp(log_w, 1) - np.log(k)).sum(-1).mean()

    bound = vi.objective(objective, model, guide)
    params = bound.init(KEY, y)
    return {"ppvi": ours(bound, params, y), "by hand": hand(by_hand, params, y)}


# Rounds -------------------------------------------------------------------------------------------------------------------


def walk(n: int, strategy: Any) -> dict[str, Call]:
    """The costs of a random walk of n rounds, with a draw in each."""

    def walker() -> Any:
        theta = numpyro.param("theta", 0.01)

        def step(x: Any, _: None) -> Any:
            x = numpyro.sample("x", dist.Normal(0.9 * x + theta, 0.5))
            return x, jnp.tanh(x) ** 2

        return lax.scan(step, 0.0, None, length=n)[1].sum()

    stopped = lax.stop_gradient if isinstance(strategy, ppvi.Reinforce) else lambda x: x

    def by_hand(key: jax.Array, params: Any) -> jax.Array:
        def step(x: Any, noise: jax.Array) -> Any:
            mean = 0.9 * x + params["theta"]
            now = stopped(mean + 0.5 * noise)
            return now, (-2 * (now - mean) ** 2, jnp.tanh(now) ** 2)

        _, (log_probs, costs) = lax.scan(step, 0.0, jax.random.normal(key, (n,)))
        score = jnp.cumsum(log_probs - lax.stop_gradient(log_probs)) if isinstance(strategy, ppvi.Reinforce) else 0.0
        return (costs + lax.stop_gradient(costs) * score).sum()

    bound = vi.objective(lambda p, q: q.simulate().returned, lambda: None, walker, strategies={"x": strategy})
    params = bound.init(KEY)
    return {"ppvi": ours(bound, params), "by hand": hand(by_hand, params)}


# Data by minibatches ------------------------------------------------------------------------------------------------------

BATCH = 100


def of_rows(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, scaling.SIZE), np.float32), np.float32(rng.random(n) < 0.5)


def part_by_hand(key: jax.Array, params: Any, x: jax.Array, y: jax.Array, n: int) -> jax.Array:
    """The bound of one particle with the likelihood of some of n rows."""
    noise = jax.random.normal(key, (scaling.SIZE,))
    w = params["loc"] + jnp.exp(params["log_scale"]) * noise
    logits = x @ w
    likelihood = (y * logits - jax.nn.softplus(logits)).sum() * (n / len(y))
    return likelihood + (0.5 * (noise**2 - w**2) + params["log_scale"]).sum()


def subsampled(n: int) -> dict[str, Call]:
    """The plate draws the rows. By hand they are drawn with repetition."""
    x, y = map(jnp.asarray, of_rows(n))

    def model(x: jax.Array, y: jax.Array) -> None:
        w = numpyro.sample("w", dist.Normal(jnp.zeros(scaling.SIZE), 1.0).to_event(1))
        with numpyro.plate("data", len(x), subsample_size=BATCH) as i:
            numpyro.sample("y", dist.Bernoulli(logits=x[i] @ w), obs=y[i])

    def by_hand(key: jax.Array, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        at, key = jax.random.split(key)
        i = jax.random.randint(at, (BATCH,), 0, len(x))
        return part_by_hand(key, params, x[i], y[i], len(x))

    bound = vi.objective(elbo, model, scaling.guide)
    params = bound.init(KEY, x, y)
    made = {"ppvi": ours(bound, params, x, y), "by hand": hand(by_hand, params, x, y)}
    return made | {"NumPyro": numpyro_loss(model, scaling.guide, params, x, y)}


def streamed(n: int, steps: int = 1_000) -> dict[str, np.ndarray]:
    """Seconds of a step of `fit(batches=)`, by hundreds of steps, beside those of a loop by hand over the same batches."""
    x, y = of_rows(n)

    def model(x: jax.Array, y: jax.Array) -> None:
        w = numpyro.sample("w", dist.Normal(jnp.zeros(scaling.SIZE), 1.0).to_event(1))
        with numpyro.plate("data", n, subsample_size=BATCH):
            numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(1)
        while True:
            i = rng.integers(n, size=BATCH)
            yield x[i], y[i]

    rule, stamps = optax.adam(1e-3), {"ppvi": [], "by hand": []}

    @jax.jit
    def step(key: jax.Array, t: Any, params: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        value, grads = jax.value_and_grad(part_by_hand, 1)(jax.random.fold_in(key, t), params, x, y, n)
        moves, state = rule.update(jax.tree.map(jnp.negative, grads), state)
        return value, optax.apply_updates(params, moves), state

    def look(*_: Any) -> None:
        stamps["ppvi"].append(time.process_time())

    bound = vi.objective(elbo, model, scaling.guide)
    vi.fit(bound, KEY, batches=batches(), num_steps=steps, optimizer=rule, progress=False, callback=look, every=100)
    params, values = bound.init(KEY, x[:BATCH], y[:BATCH]), []
    state = rule.init(params)
    for t, (xs, ys) in zip(range(steps), batches(), strict=False):
        value, params, state = step(KEY, t, params, state, xs, ys)
        values.append(value)
        if t % 100 == 99:
            jax.block_until_ready(params)
            stamps["by hand"].append(time.process_time())
    return {name: np.diff(each)[1:] / 100 for name, each in stamps.items()}


# Parameters ---------------------------------------------------------------------------------------------------------------


def mean_field(n: int) -> dict[str, Call]:
    """AutoNormal's guide of n / 2 latents."""
    y = jnp.linspace(-1.0, 1.0, n // 2)

    def model(y: jax.Array) -> None:
        x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1))
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)

    def by_hand(key: jax.Array, params: Any, y: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, y.shape)
        x = params["x_auto_loc"] + params["x_auto_scale"] * noise
        terms = 0.5 * (noise**2 - x**2 - (y - x) ** 2) + jnp.log(params["x_auto_scale"])
        return terms.sum() - 0.5 * LOG_2PI * len(y)

    bound = vi.objective(elbo, model, AutoNormal(model))
    params = bound.init(KEY, y)
    return {"ppvi": ours(bound, params, y), "by hand": hand(by_hand, params, y)}


def layer(n: int) -> dict[str, Call]:
    """A dense layer of n weights, from 64 rows to the means of the guide."""
    m = round(n**0.5)
    x, params = jnp.ones((64, m)) / m, {"w": jnp.full((m, m), 0.1)}

    def model(x: jax.Array) -> None:
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(0.0, 1.0).expand([m]).to_event(1))

    def guide(x: jax.Array) -> None:
        means = x @ numpyro.param("w")
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(means, 1.0).to_event(1))

    def by_hand(key: jax.Array, params: Any, x: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, x.shape)
        return 0.5 * (noise**2 - (x @ params["w"] + noise) ** 2).sum()

    return {"ppvi": ours(vi.objective(elbo, model, guide), params, x), "by hand": hand(by_hand, params, x)}
