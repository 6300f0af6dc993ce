"""Random numbers of exactly 0, which `jax.random.uniform` gives once in ten million draws."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import ppvi.numpyro as vi
from ppvi import LeaveOneOut, Reparam
from tests.laws.cases import nothing

FAMILIES = {
    "Exponential": (lambda a: dist.Exponential(1 / a), lambda u, a: stats.expon.ppf(u, scale=a)),
    "Weibull": (lambda a: dist.Weibull(a, 1.8), lambda u, a: stats.weibull_min.ppf(u, 1.8, scale=a)),
    "Gompertz": (lambda a: dist.Gompertz(a, 1.0), lambda u, a: stats.gompertz.ppf(u, a)),
    "Levy": (lambda a: dist.Levy(0.0, a), lambda u, a: stats.levy.ppf(u, scale=a)),
}
LEAST = 2.0**-23
"""The least number above 0 of those that are drawn."""


ROWS = [(family, strategy) for family in FAMILIES for strategy in (Reparam(), LeaveOneOut(2))]
ROWS.remove(("Levy", Reparam()))  # which has no path


@pytest.mark.parametrize(("family", "strategy"), ROWS, ids=str)
def test_a_uniform_number_of_zero(family, strategy):
    of, quantile = FAMILIES[family]

    def zeros(key, shape=(), dtype=float, minval=0.0, maxval=1.0):
        return jnp.full(shape, minval, jnp.result_type(float))

    def log_of_draw(p, q):
        z = q.simulate()
        return jnp.log(z["z"]) - z.log_density

    def guide():
        numpyro.sample("z", of(numpyro.param("a", 0.7)))

    bound = vi.objective(log_of_draw, nothing, guide, strategies={"z": strategy})
    with mock.patch.object(jax.random, "uniform", zeros):
        value, grads = bound.value_and_grad(jax.random.key(0), {"a": jnp.array(0.7)})
    z = quantile(LEAST, 0.7)
    np.testing.assert_allclose(value, np.log(z) - of(0.7).log_prob(z), rtol=1e-4)
    if strategy == Reparam():  # by differences of the quantile
        above, below = (np.log(quantile(LEAST, a)) - of(a).log_prob(quantile(LEAST, a)) for a in (0.707, 0.693))
        np.testing.assert_allclose(grads["a"], (above - below) / 0.014, rtol=2e-3, atol=1e-3)
    else:
        assert abs(float(grads["a"])) < 1e-3  # both draws are the same
