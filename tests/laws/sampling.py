"""Means of many draws against an exact value.

Fixed n. The suites' false-alarm rate is below 1e-6: with at most 1000 comparisons in all, each is made at z = 6.2,
two-sided level 6e-10 (normal tails; n is large and the estimators' tails light). The smallest bias seen with power
0.999 is (6.2 + 3.1) sd / sqrt(n), about 0.02 sd at n = 200,000 and 0.03 sd at n = 100,000.
"""

import jax
import jax.numpy as jnp
import numpy as np
import torch

from ppvi.objective import estimator_of
from tests.engines import PYRO, double, on

Z = 6.2


def check(engine, case, strategies, batch=None):
    """The mean of many estimates and gradients is the exact value and gradient of a case, within `Z` standard errors."""
    with on(engine):
        params = {name: engine.array(np.asarray(value, np.float32)) for name, value in case.params.items()}
        objective = engine.vi.objective(case.program, case.model, case.guide, strategies=strategies)
        mean, sd = moments(engine, objective, params, case.n, batch)
    with double():
        exact = jax.value_and_grad(case.exact)({k: jnp.asarray(np.asarray(v), jnp.float64) for k, v in params.items()})
    rounding = 1e-5 * max(1.0, *(float(np.abs(x).max()) for x in jax.tree.leaves(exact)))
    for found, spread, truth in zip(jax.tree.leaves(mean), jax.tree.leaves(sd), jax.tree.leaves(exact), strict=True):
        error = np.abs(found - np.asarray(truth))
        assert (error <= Z * spread / np.sqrt(case.n) + rounding).all(), (
            f"{found} +- {spread / np.sqrt(case.n)}, not {truth}"
        )


def spread(engine, case, strategies):
    """Standard deviations of the gradient, by parameter."""
    with on(engine):
        objective = engine.vi.objective(case.program, case.model, case.guide, strategies=strategies)
        params = {name: engine.array(np.asarray(value, np.float32)) for name, value in case.params.items()}
        return moments(engine, objective, params, 20_000)[1][1]


def moments(engine, objective, params, n, batch=None):
    """Mean and sd of value and gradient over n keys, in chunks, vectorised over a batch at a time."""
    size = min(n, 20_000)
    assert n % size == 0, "as many draws as are counted"
    draws = (_on_pyro if engine is PYRO else _on_numpyro)(objective, params, n // size, size, batch or size)
    stacked = jax.tree.map(lambda *xs: np.concatenate([np.asarray(x, np.float64) for x in xs]), *draws)
    return jax.tree.map(lambda x: x.mean(0), stacked), jax.tree.map(lambda x: x.std(0), stacked)


def _on_numpyro(objective, params, chunks, size, batch):
    @jax.jit
    def chunk(keys):
        return jax.lax.map(lambda key: objective.value_and_grad(key, params), keys, batch_size=batch)

    return [jax.device_get(chunk(keys)) for keys in jax.random.split(jax.random.key(20), (chunks, size))]


def _on_pyro(objective, params, chunks, size, batch):
    draws = []
    for seed in range(chunks * size // batch):
        leaves = {name: x.expand(batch, *x.shape).requires_grad_() for name, x in params.items()}
        values = estimator_of(objective).lanes(seed, leaves)
        grads = torch.autograd.grad(values.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
        draws.append((values.detach().numpy(), {k: g.numpy() for k, g in zip(leaves, grads, strict=True)}))
    return draws
