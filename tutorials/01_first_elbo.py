# %% [markdown]
# # A first ELBO
#
# A model, a guide and an objective, each a program: fit the guide to the model's posterior, and see how good it is beside
# MCMC. The data are 272 eruptions of the geyser Old Faithful: how long each lasted, and how long people then waited for
# the next one, in minutes.

# %%
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax

import models
import ppvi
import ppvi.numpyro as vi

TABLE = np.loadtxt(Path(models.__file__).with_name("faithful.csv"), delimiter=",", skiprows=1)
DURATION, WAITING = jnp.asarray(TABLE.T, jnp.float32)

# %% [markdown]
# ## The model
# An ordinary NumPyro program: a line, and a few eruptions that are off it. Each eruption has a label, `odd`, which is
# discrete, and stays in the model: nobody has to sum it out by hand.


# %%
def line(duration):
    level = numpyro.sample("level", dist.Normal(70.0, 20.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 20.0))
    sd = numpyro.sample("sd", dist.LogNormal(1.5, 0.5))
    return level + slope * (duration - 3.5), sd


def model(duration, waiting):
    mean, sd = line(duration)
    with numpyro.plate("eruptions", len(duration)):
        odd = numpyro.sample("odd", dist.Bernoulli(0.05))
        numpyro.sample("waiting", dist.Normal(mean, jnp.where(odd == 1, 3 * sd, sd)), obs=waiting)


# %% [markdown]
# ## The guide
# A NumPyro program too, over the model's latent sites, with parameters.


# %%
def guide(duration, waiting):
    positive = dist.constraints.positive
    for site, family, start in (
        ("level", dist.Normal, 70.0),
        ("slope", dist.Normal, 10.0),
        ("sd", dist.LogNormal, 1.8),
    ):
        loc = numpyro.param(f"{site}_loc", start)
        scale = numpyro.param(f"{site}_scale", 0.1, constraint=positive)
        numpyro.sample(site, family(loc, scale))
    with numpyro.plate("eruptions", len(duration)):
        numpyro.sample("odd", dist.Bernoulli(logits=numpyro.param("odd_logits", jnp.full(len(duration), -3.0))))


# %% [markdown]
# ## The objective
# The evidence lower bound, E over z ~ q of [log p(x, z) - log q(z)], as one writes it. `p` and `q` are handles on the model
# and the guide: `simulate` draws from a program, `log_density` asks for a density.


# %%
def elbo(p, q):
    z = q.simulate()
    return p.log_density(z) - z.log_density


bound = vi.objective(elbo, model, guide)

# %% [markdown]
# `explain` says what was made of it: how each site's gradient is estimated and why. The continuous sites are differentiated
# through their draws, and the 272 labels are enumerated, each by itself, since no term of the objective couples them.

# %%
key = jax.random.key(0)
params = bound.init(key, DURATION, WAITING)
explanation = bound.explain(params, DURATION, WAITING)
print(explanation)
strategies = {site.name: site.strategy for site in explanation.sites}
assert strategies == {"level": "Reparam()", "slope": "Reparam()", "sd": "Reparam()", "odd": "Enumerate()"}

# %% [markdown]
# ## Fit
# One call. `bound.value_and_grad(key, params, DURATION, WAITING)` is there too, for a loop of your own.

# %%
schedule = optax.exponential_decay(0.05, 1000, 0.2)
fit = vi.fit(bound, key, DURATION, WAITING, num_steps=3000, optimizer=optax.adam(schedule), progress=False)
print(fit)

# %% [markdown]
# ## Is it any good?
# NUTS moves continuous sites only. `nuts` sums discrete ones out with the package funsor; here the labels are summed out by
# hand after all. `compare` sets the two side by side: errors and Wasserstein distances in units of the reference's spread.


# %%
def summed_out(duration, waiting):
    mean, sd = line(duration)
    kinds = dist.Categorical(jnp.array([0.95, 0.05]))
    both = dist.Normal(mean[:, None], sd * jnp.array([1.0, 3.0]))
    with numpyro.plate("eruptions", len(duration)):
        numpyro.sample("waiting", dist.MixtureSameFamily(kinds, both), obs=waiting)


nuts = vi.nuts(summed_out, key, DURATION, WAITING, num_warmup=300, num_samples=500, progress=False)
comparison = ppvi.compare(fit, nuts)
print(comparison)

# %%
errors = {marginal.name: marginal.wasserstein for marginal in comparison.marginals}
assert set(errors) == {"level", "slope", "sd"}
assert max(errors.values()) < 0.3
