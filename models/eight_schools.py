"""Effects of coaching in eight schools (Rubin 1981), a hierarchical normal model in its non-centred form.

    mu ~ N(0, 5)    tau ~ HalfCauchy(5)    theta_j = mu + tau e_j,  e_j ~ N(0, 1)    y_j ~ N(theta_j, sigma_j)

Rubin, "Estimation in parallel randomized experiments", Journal of Educational Statistics 6 (1981), table 2.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam

EFFECTS = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


@reparam(config={"theta": LocScaleReparam(0)})
def model(effects, errors):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", len(effects)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("effect", dist.Normal(theta, errors), obs=effects)
