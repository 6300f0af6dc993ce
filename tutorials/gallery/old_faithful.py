# %% [markdown]
# # Old Faithful: a mixture with a label for each eruption
#
# The geyser has short and long eruptions. Every eruption has a label that nobody sees, and a label is a discrete site,
# through which no pathwise gradient goes. Three strategies have the same expectation: a sum over both values of each label,
# the score function with the other of two draws as its baseline, and the score function alone. They differ in variance, by
# factors.

# %%
import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ppvi
import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from guides.old_faithful import guide
from models.old_faithful import ERUPTIONS, marginalised, model
from ppvi.objectives import elbo

ENTRY = Entry(
    name="old_faithful",
    system="A Look at Some Data on the Old Faithful Geyser",
    family="mixtures",
    engine="NumPyro",
    objective="elbo",
    strategies="Enumerate, LeaveOneOut, Reinforce",
    shows="one label a datum: three unbiased strategies, whose variances differ by factors",
    paper="Azzalini and Bowman 1990",
    link="https://doi.org/10.2307/2347385",
)
SEEDS, STEPS, DRAWS = range(choose(1, 5)), choose(1000, 6000), choose(300, 20_000)
STRATEGIES = {"Enumerate": ppvi.Enumerate(), "LeaveOneOut": ppvi.LeaveOneOut(2), "Reinforce": ppvi.Reinforce()}
bounds = {name: vi.objective(elbo, model, guide, strategies={"long": how}) for name, how in STRATEGIES.items()}

# %% [markdown]
# ## Model, guide, objective
#
# $$l_i \sim \text{Bernoulli}(\text{share}) \qquad \text{minutes}_i \sim N(\text{mean}_{l_i}, \text{sd}_{l_i})$$
#
# Given the components the log odds of a label are quadratic in the duration, so the guide's are, too. What the compiler
# saw: 272 labels that are coupled to nothing but their own eruption, so that both values of all of them cost two runs, and
# not 2^272.

# %%
show(model, guide)
key = jax.random.key(0)
params = bounds["Enumerate"].init(key, ERUPTIONS)
print(bounds["Enumerate"].explain(params, ERUPTIONS))
for bound in bounds.values():
    assert bound.prove(params, ERUPTIONS).verdict == "proved"

# %% [markdown]
# ## Fit
# In full, each strategy from several seeds, beside NUTS with the labels summed out by hand: the distance is Wasserstein's,
# of the worst of the marginals of share, means and sds, in standard deviations of the posterior.


# %%
def fitted(bound, seed):
    rule = optax.adam(optax.exponential_decay(0.05, STEPS // 2, 0.1))
    return vi.fit(bound, jax.random.key(seed), ERUPTIONS, num_steps=STEPS, optimizer=rule, progress=False)


fit, distance = fitted(bounds["Enumerate"], 0), {name: [] for name in bounds}
params = fit.params
print(fit)
if FULL:
    reference = vi.nuts(marginalised, key, ERUPTIONS, num_samples=5000, progress=False)
    for name, seed in itertools.product(bounds, SEEDS):
        compared = ppvi.compare(fitted(bounds[name], seed), reference, var_names=["share", "means", "sds"])
        distance[name].append(compared.posteriors[0].worst.wasserstein)
    for name, found in distance.items():
        print(f"{name:12} worst marginal {said(found, 3)} sds from NUTS")

# %% [markdown]
# ## Variance
# Of the gradient with respect to the coefficients of the labels' log odds, at the fit by sums.

# %%
mean, variance = {}, {}
for name, bound in bounds.items():
    _, grads = jax.jit(jax.vmap(bound.value_and_grad, (0, None, None)))(jax.random.split(key, DRAWS), params, ERUPTIONS)
    mean[name], variance[name] = mean_se(grads["label"][:, 0]), float(grads["label"].var(0).mean())
    print(f"{name:12} gradient {said(grads['label'][:, 0]):>16}   variance {variance[name]:.3g}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
minutes = jnp.linspace(1, 5.5, 100)
constant, slope, curvature = params["label"]
odds = 10 * (constant + slope * (minutes - 3) + curvature * (minutes - 3) ** 2)
axes[0].hist(np.asarray(ERUPTIONS), 40, color="tab:gray")
axes[0].set(xlabel="minutes", ylabel="eruptions", title="what the guide says of the labels")
probability = axes[0].twinx()
probability.plot(minutes, jax.nn.sigmoid(odds), color="tab:orange")
probability.set_ylabel("probability of a long one")
axes[1].bar(list(variance), list(variance.values()), width=0.5)
axes[1].set(yscale="log", title="variance of the labels' gradient")
ENTRY.picture(figure)

# %% [markdown]
# ## What to change first
# `strategies={"long": ...}`: `ppvi.DisARM()`, `ppvi.strategies.RELAX(...)`; or leave the site out of the guide, and it is
# summed out.
#
# Azzalini and Bowman, "A look at some data on the Old Faithful geyser", Applied Statistics 39 (1990).

# %%
ENTRY.record(
    f"variance by LeaveOneOut {variance['LeaveOneOut'] / variance['Enumerate']:.1f} and by Reinforce "
    f"{variance['Reinforce'] / variance['Enumerate']:.0f} times that by sums; "
    f"worst marginal {said(distance['Enumerate'] or [0], 3)} sds from NUTS",
    seeds=SEEDS,
    steps=STEPS,
    distance=distance,
    variance=variance,
)
for (a, a_error), (b, b_error) in ((mean["Enumerate"], mean[other]) for other in ("LeaveOneOut", "Reinforce")):
    assert abs(a - b) < 5 * np.hypot(a_error, b_error)
assert variance["Enumerate"] < variance["LeaveOneOut"] < variance["Reinforce"]
