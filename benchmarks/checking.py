"""What a check costs: the statistical one until its verdict, the static one beside staging.

An ELBO with ten parameters (Bayesian regression, five coefficients, independent normal guide), checked at alpha = 1e-3 and
delta = 1% of the gradient's scale, from scratch: staging, compiling and drawing included. And for several programs the
processor's time of `prove` without staging, in units of staging. Run with `python -m benchmarks.checking`.
"""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.autoguide import AutoNormal

import ppvi
import ppvi.numpyro as vi
from benchmarks.results import table
from benchmarks.timing import summary
from ppvi.objective import estimator_of

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (50, 5))
Y = X @ jnp.linspace(-1.0, 1.0, 5) + jax.random.normal(jax.random.key(2), (50,))


def regression(x, y):
    beta = numpyro.sample("beta", dist.Normal(0.0, 1.0).expand([5]).to_event(1))
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(x @ beta, 1.0), obs=y)


def scalars(x, y):
    for i in range(5):
        scale = numpyro.param(f"scale{i}", 0.3, constraint=dist.constraints.positive)
        numpyro.sample(f"beta{i}", dist.Normal(numpyro.param(f"loc{i}", 0.1 * i), scale))


def by_scalars(x, y):
    beta = jnp.stack([numpyro.sample(f"beta{i}", dist.Normal(0.0, 1.0)) for i in range(5)])
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(x @ beta, 1.0), obs=y)


def mixture(x, y):
    means = numpyro.sample("means", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    with numpyro.plate("data", len(y)):
        label = numpyro.sample("label", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(means[label], 1.0), obs=y)


def mixture_guide(x, y):
    numpyro.sample("means", dist.Normal(numpyro.param("loc", jnp.array([-1.0, 1.0])), 0.3).to_event(1))
    with numpyro.plate("data", len(y)):
        numpyro.sample("label", dist.Bernoulli(logits=numpyro.param("logits", jnp.zeros(len(y)))))


def statistical():
    rows = []
    for name, model, guide, strategies in (
        ("two vectors of five, Reparam", regression, AutoNormal(regression), {}),
        ("ten scalars, Reparam", by_scalars, scalars, {}),
        ("ten scalars, Reinforce", by_scalars, scalars, {f"beta{i}": ppvi.Reinforce() for i in range(5)}),
    ):
        bound = vi.objective(ppvi.objectives.elbo, model, guide, strategies=strategies)
        params = bound.init(KEY, X, Y)
        start = time.perf_counter()
        report = bound.check(KEY, params, X, Y, progress=False)
        seconds = time.perf_counter() - start
        seen = max(m.visible / m.scale for m in report.measurements)
        draws = report.measurements[0].draws
        rows.append((name, report.verdict, f"{seconds:.1f}", f"{draws:,}", f"{100 * seen:.2g}%"))
    header = ("ELBO with ten parameters", "verdict", "seconds", "draws of each path", "smallest bias visible, of scale")
    table("statistical check, alpha = 1e-3, delta = 1%", header, rows)


def static(rounds: int = 15):
    rows = []
    for name, objective, model, guide in (
        ("ELBO, regression", ppvi.objectives.elbo, regression, AutoNormal(regression)),
        ("ELBO, ten scalars", ppvi.objectives.elbo, by_scalars, scalars),
        ("ELBO, mixture", ppvi.objectives.elbo, mixture, mixture_guide),
        ("IWELBO(5), mixture", ppvi.objectives.iwelbo(5), mixture, mixture_guide),
        ("DReG(5), regression", ppvi.objectives.dreg(5), regression, AutoNormal(regression)),
    ):
        bound = vi.objective(objective, model, guide)
        params = bound.init(KEY, X, Y)
        ratios, known = [], estimator_of(bound)
        for _ in range(rounds):
            estimator = known.of(known.formula)  # which has staged nothing yet
            start = time.process_time()
            seen = estimator.seen(params, X, Y)
            middle = time.process_time()
            seen.prove()
            ratios.append((time.process_time() - middle) / (middle - start))
        rows.append((name, summary(np.array(ratios))))
    table("static check, in units of staging", ("program", "median [min, max]"), rows)


if __name__ == "__main__":
    statistical()
    static()
