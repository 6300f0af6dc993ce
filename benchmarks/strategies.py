"""What strategies cost: one gradient in units of one plain evaluation of the objective, declared and measured.

n Bernoulli sites, each depending on the one before, and then work that looks at all of them: *nested*, so that a strategy
that multiplies runs costs its power of n. Or n independent sites, each with work of its own: *apart*. A differentiable run
takes about three plain evaluations, forwards and back, and is declared as three. Contenders: ppvi's strategies, and where
peers have the strategy NumPyro's TraceGraph_ELBO and code by hand. Run with `python -m benchmarks.strategies`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import TraceGraph_ELBO

import ppvi
import ppvi.numpyro as vi
from benchmarks.results import table
from benchmarks.timing import ratio, rounds
from ppvi.strategies import ARM, REBAR, DisARM, StochasticPerturbation, SumAndSample, UnorderedSet

WIDTH = 256
STRATEGIES = (
    ppvi.Reinforce(), ppvi.LeaveOneOut(2), ppvi.MeasureValued(), ARM(), DisARM(), StochasticPerturbation(), UnorderedSet(2),
    REBAR(), ppvi.Enumerate(), SumAndSample(),
)  # fmt: skip
DIFFERENTIABLE = 3
"""Plain evaluations that a differentiable run is declared to take."""


def work(weights, start):
    h = start * jnp.ones((WIDTH, WIDTH))
    for _ in range(6):
        h = jnp.tanh(weights @ h)
    return jnp.mean(h**2)


def guide(n, nested):
    previous = 0.0
    for i in range(n):
        z = numpyro.sample(f"z{i}", dist.Bernoulli(logits=numpyro.param("a")[i] + 0.3 * previous))
        previous = z if nested else 0.0


def value(z, n, nested):
    weights = numpyro.param("weights")
    if nested:
        return work(weights, 0.1 + sum(z[f"z{i}"] * 0.2 for i in range(n)))
    return sum(work(weights, 0.1 + z[f"z{i}"] * 0.2) for i in range(n))


def program(p, q, n, nested):
    return value(q.simulate(), n, nested)


def model(n, nested):
    """The same objective as an ELBO: the guide's densities cancel, and a factor is left."""
    previous = 0.0
    z = {}
    for i in range(n):
        z[f"z{i}"] = numpyro.sample(f"z{i}", dist.Bernoulli(logits=numpyro.param("a")[i] + 0.3 * previous))
        previous = z[f"z{i}"] if nested else 0.0
    numpyro.factor("value", value(z, n, nested))


def contenders(n, nested):
    params = {"a": jnp.linspace(-0.5, 0.7, n), "weights": jax.random.normal(jax.random.key(0), (WIDTH, WIDTH)) / 16}
    key = jax.random.key(1)
    steps, declared = {}, {}

    def plain(key, params):
        logits = params["a"]
        bits = jax.random.bernoulli(key, jax.nn.sigmoid(logits), (n,)) * 1.0
        if nested:
            return work(params["weights"], 0.1 + 0.2 * bits.sum())
        return sum(work(params["weights"], 0.1 + 0.2 * bits[i]) for i in range(n))

    def by_hand(key, params):
        """The score function, written out for this program."""
        keys, bits, previous = jax.random.split(key, n), [], 0.0
        log_q = jnp.zeros(())
        for i in range(n):
            logit = params["a"][i] + 0.3 * previous
            bit = jax.random.bernoulli(keys[i], jax.nn.sigmoid(jax.lax.stop_gradient(logit))) * 1.0
            log_q = log_q + logit * bit - jax.nn.softplus(logit)
            bits.append(bit)
            previous = bit if nested else 0.0
        f = value_of(params, bits)
        return f + jax.lax.stop_gradient(f) * (log_q - jax.lax.stop_gradient(log_q))

    def value_of(params, bits):
        if nested:
            return work(params["weights"], 0.1 + 0.2 * sum(bits))
        return sum(work(params["weights"], 0.1 + 0.2 * bit) for bit in bits)

    steps["plain evaluation"] = functools.partial(jax.jit(plain), key, params)
    for strategy in STRATEGIES:
        if n == 8 and nested and isinstance(strategy, ppvi.Enumerate | SumAndSample | REBAR):
            continue
        bound = vi.objective(
            functools.partial(program, n=n, nested=nested), lambda *args: None, functools.partial(guide, n, nested),
            strategies={f"z{i}": strategy for i in range(n)},
        )  # fmt: skip
        steps[str(strategy)] = functools.partial(jax.jit(bound.value_and_grad), key, params)
        report = bound.explain(params)
        parts = [(term.runs, term.evaluations) for term in report.terms]
        whole = 1 if nested else n
        declared[str(strategy)] = sum(DIFFERENTIABLE * runs + plain for runs, plain in parts) / whole
    graph, programs = TraceGraph_ELBO(), (functools.partial(model, n, nested), functools.partial(guide, n, nested))
    score = jax.jit(jax.value_and_grad(lambda params: -graph.loss(key, params, *programs)))
    steps["TraceGraph_ELBO (score)"] = functools.partial(score, params)
    steps["score by hand"] = functools.partial(jax.jit(jax.value_and_grad(by_hand, argnums=1)), key, params)
    return steps, declared


def main(seconds: float = 15.0):
    for nested in (True, False):
        columns, names = {}, []
        for n in (1, 2, 4, 8):
            steps, declared = contenders(n, nested)
            times = rounds(steps, seconds)
            for name in steps:
                if name not in names:
                    names.append(name)
                measured = ratio(times, name, "plain evaluation")
                columns[name, n] = f"{declared[name]:.0f}: {measured}" if name in declared else measured
        rows = [(name, *(columns.get((name, n), "-") for n in (1, 2, 4, 8))) for name in names]
        title = "nested sites" if nested else "sites apart"
        header = ("strategy", *(f"n = {n}" for n in (1, 2, 4, 8)))
        table(f"{title}: declared: measured [min, max], in plain evaluations", header, rows)


if __name__ == "__main__":
    main()
