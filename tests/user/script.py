"""A script of a user's, which pyright reads with ppvi as it is installed: `assert_type` holds what a user's editor shows."""

from typing import assert_type

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import ppvi
import ppvi.numpyro as vi


def model(x: jax.Array) -> None:
    loc = numpyro.sample("loc", dist.Normal(0.0, 2.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def guide(x: jax.Array) -> None:
    numpyro.sample("loc", dist.Normal(numpyro.param("mean", jnp.array(0.0)), 0.5))


def elbo(p: ppvi.Program, q: ppvi.Program) -> jax.Array:
    z = q.simulate()
    assert_type(z, ppvi.Trace)
    return p.log_density(z) - z.log_density


bound = vi.objective(elbo, model, guide)
assert_type(bound, vi.Objective)
fit = vi.fit(bound, jax.random.key(0), jnp.array([1.2, 0.4]), num_steps=10, progress=False)
assert_type(fit, vi.Fit)
print(fit, len(fit.losses))
