"""Means of many draws against an exact value.

Fixed n. The suites' false-alarm rate is below 1e-6: with at most 1000 comparisons in all, each is made at z = 6.2,
two-sided level 6e-10 (normal tails; n is large and the estimators' tails light). The smallest bias seen with power
0.999 is (6.2 + 3.1) sd / sqrt(n), about 0.02 sd at n = 200,000 and 0.03 sd at n = 100,000.
"""

import jax
import jax.numpy as jnp
import numpy as np

import ppvi.numpyro as vi

Z = 6.2


def check(case, strategies, batch=None):
    """The mean of many estimates and gradients is the exact value and gradient of a case, within `Z` standard errors."""
    params = {name: jnp.asarray(value, jnp.float32) for name, value in case.params.items()}
    objective = vi.objective(case.program, case.model, case.guide, strategies=strategies)
    mean, sd = moments(objective, params, case.n, batch)
    with jax.enable_x64(True):
        exact = jax.value_and_grad(case.exact)({k: jnp.asarray(np.asarray(v), jnp.float64) for k, v in params.items()})
    rounding = 1e-5 * max(1.0, *(float(np.abs(x).max()) for x in jax.tree.leaves(exact)))
    for found, spread, truth in zip(jax.tree.leaves(mean), jax.tree.leaves(sd), jax.tree.leaves(exact), strict=True):
        error = np.abs(found - np.asarray(truth))
        assert (error <= Z * spread / np.sqrt(case.n) + rounding).all(), (
            f"{found} +- {spread / np.sqrt(case.n)}, not {truth}"
        )


def moments(objective, params, n, batch=None):
    """Mean and sd of value and gradient over n keys, in chunks, vectorised over a batch at a time."""

    @jax.jit
    def chunk(keys):
        return jax.lax.map(lambda key: objective.value_and_grad(key, params), keys, batch_size=batch or len(keys))

    size = min(n, 20_000)
    draws = [jax.device_get(chunk(keys)) for keys in jax.random.split(jax.random.key(20), (n // size, size))]
    stacked = jax.tree.map(lambda *xs: np.concatenate([np.asarray(x, np.float64) for x in xs]), *draws)
    return jax.tree.map(lambda x: x.mean(0), stacked), jax.tree.map(lambda x: x.std(0), stacked)
