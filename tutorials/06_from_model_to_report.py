# %% [markdown]
# # From a model to a report
#
# Eight schools tried a coaching programme, and each measured its effect, with an error that is known (Rubin 1981). Does the
# programme work alike everywhere, or not at all, or differently from school to school? A hierarchical model answers; this is
# the whole way there: what the model says before it has seen data, the fit and whether to believe it, what it says of the data,
# how it stands beside simpler models, and a table for the report.

# %%
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.autoguide import AutoMultivariateNormal

import ppvi
import ppvi.numpyro as vi
from models.eight_schools import EFFECTS, ERRORS

SCHOOLS = list("ABCDEFGH")

# %% [markdown]
# ## The model
# The plate has a name, `school`, and so has the axis of everything in it. `theta` is kept as a deterministic site, since it is
# what the report is about; the site that is drawn is its standardised deviation `z`, whose posterior is close to normal.


# %%
def partial(errors, effects):
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    tau = numpyro.sample("tau", dist.HalfNormal(10.0))
    with numpyro.plate("school", len(errors)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("effect", dist.Normal(theta, errors), obs=effects)


bound = vi.objective(ppvi.objectives.iwelbo(5), partial, AutoMultivariateNormal(partial)).on(ERRORS, EFFECTS)
key = jax.random.key(0)

# %% [markdown]
# ## Before the fit: what data does the model expect?
# `predict` without parameters draws from the prior. Effects of coaching are points in a test whose scores have a spread of
# about 100: a prior that expects hundreds of points would be a mistake, and so would one that rules out twenty.

# %%
prior = vi.predict(bound, key, draws=2000, coords={"school": SCHOOLS})
low, high = np.quantile(prior["prior_predictive"]["effect"], [0.025, 0.975])
print(
    f"the prior expects 19 of 20 effects between {low:.0f} and {high:.0f}; the largest that was seen is {EFFECTS.max():.0f}"
)
assert 30 < high < 80

# %% [markdown]
# ## The fit, and whether to believe it
# `Plateau` stops the fit when the loss no longer falls; `fit.plot()` draws where that was. The draws carry what is needed to
# doubt them: whether the loss had settled, and the log density of each under model and guide.

# %%
fit = vi.fit(bound, key, num_steps=6000, until=ppvi.Plateau(1000), progress=False)
data = fit.predict(draws=4000, particles=5, coords={"school": SCHOOLS}, prior=True)
print(fit)
print(data.attrs["converged"])
assert data["posterior"]["theta"].dims == ("chain", "draw", "school")
assert data["losses"]["loss"].shape == fit.losses.shape

# %% [markdown]
# MCMC is affordable here, so compare: the last posterior is what the others are measured by. Its divergences, if there are any,
# are said too.

# %%
nuts = vi.nuts(partial, key, ERRORS, EFFECTS, num_warmup=500, target_accept_prob=0.95, progress=False)
comparison = ppvi.compare(fit=data, nuts=nuts, var_names=["mu", "tau", "theta"])
print(comparison)
assert comparison.worst.wasserstein < 0.3

# %% [markdown]
# ## After the fit: does the model know the data?
# Data that the fitted model draws, beside those that were seen: how often is a drawn effect above the one that was seen?

# %%
drawn = data["posterior_predictive"]["effect"].values[0]
tail = (drawn > np.asarray(EFFECTS)).mean(0)
print(
    "share of drawn effects above the one that was seen:",
    ", ".join(f"{s} {x:.2f}" for s, x in zip(SCHOOLS, tail, strict=True)),
)
assert (tail > 0.05).all()

# %% [markdown]
# ## Other models
# All schools alike, or none like another. What decides is the density of a school's effect given the other schools'. For a fit
# `ppvi.loo` corrects for the guide, whose draws are not those of the posterior; ArviZ then compares.


# %%
def pooled(errors, effects):
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    with numpyro.plate("school", len(errors)):
        numpyro.sample("effect", dist.Normal(mu, errors), obs=effects)


def apart(errors, effects):
    with numpyro.plate("school", len(errors)):
        theta = numpyro.sample("theta", dist.Normal(0.0, 30.0))
        numpyro.sample("effect", dist.Normal(theta, errors), obs=effects)


left_out = {"partial": ppvi.loo(data)}
for name, model in (("pooled", pooled), ("apart", apart)):
    other = vi.objective(ppvi.objectives.elbo, model, AutoMultivariateNormal(model)).on(ERRORS, EFFECTS)
    left_out[name] = ppvi.loo(vi.fit(other, key, num_steps=2000, optimizer=0.02, progress=False))
table = az.compare(left_out)
print(table)
assert table.index[-1] == "apart"

# %% [markdown]
# ## A new school
# The same model on new data, with `on=`: one school that is none of the eight, and whose effect nobody has seen. Its `z`, a
# site of another number of rows than the posterior's, is drawn from the model; `mu` and `tau` are those of the posterior.

# %%
new = fit.predict(draws=4000, particles=5, on=bound.on(jnp.array([5.0]), None))
effect = new["predictions"]["effect"].values.ravel()
print(f"a ninth school with error 5 would see {effect.mean():.1f}, give or take {effect.std():.1f}")
assert abs(effect.mean() - float(data["posterior"]["mu"].mean())) < 1.0

# %% [markdown]
# ## The report

# %%
report = az.summary(data, var_names=["mu", "tau", "theta"], kind="stats")
print(report)

figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
fit.plot(axes[0])
theta = data["posterior"]["theta"].values[0]
axes[1].errorbar(EFFECTS, SCHOOLS, xerr=ERRORS, fmt="o", color="0.6", capsize=3, label="seen, and its error")
axes[1].errorbar(theta.mean(0), SCHOOLS, xerr=theta.std(0), fmt="o", color="C0", label="effect, given all schools")
axes[1].set(xlabel="points", title="What the schools share pulls them together")
axes[1].invert_yaxis()
axes[1].legend(frameon=False, loc="lower right", fontsize=8, bbox_to_anchor=(1.0, -0.3))
comparison.plot(axes[2])
Path("out").mkdir(exist_ok=True)
figure.savefig("out/report.png", dpi=120)

# %% [markdown]
# The schools are pulled towards each other: that of A is far below the 28 points that it saw.

# %%
assert theta.mean(0)[0] < 18 < EFFECTS[0]
assert theta.std(0).max() < float(ERRORS.max())
