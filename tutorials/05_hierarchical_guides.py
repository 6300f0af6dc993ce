# %% [markdown]
# # Guides with hidden variables: the noisy cone
#
# A point (x, y) is seen through z, its squared distance from the origin, with noise. Given z = 5 the posterior is a ring,
# which no mean-field guide can follow. A guide that first draws an angle u can; but then its density at (x, y) is an
# integral over u. This is the example of Becker, Lew et al. (2024), Figure 2 and Table 4; `benchmarks/cone.py` has the
# paper's own settings and figure.

# %%
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ppvi
import ppvi.numpyro as vi
from guides.cone import angle, mean_field, ring
from models.cone import OBSERVED, log_evidence, model
from ppvi.objectives import elbo

# %% [markdown]
# `marginal(q, keep)` is the guide over the kept sites. Where it simulates, it keeps the u that came with (x, y) among K
# draws; asked for the density of a given point, it draws all K afresh. So 1 / density is unbiased on the one side and density
# on the other, and the ELBO of a marginal guide is a lower bound of its exact ELBO, tighter with more draws. The other
# draws come from the guide's own distribution of u, or from a *reverse program*, here one that looks at the point's angle and
# learns how far to trust it.

# %%
KEEP = ["x", "y"]


def prior(p, q):  # HVI when particles = 1, IWHVI otherwise
    return elbo(p, ppvi.marginal(q, KEEP, particles=5))


def learned(p, q):
    return elbo(p, ppvi.marginal(q, KEEP, angle, particles=5))


def mean_of(objective, n):
    return lambda p, q: ppvi.replicate(n, lambda: objective(p, q)).mean()


evidence = log_evidence()
fits, bounds = {}, {}
for name, objective, guide in (
    ("mean field", elbo, mean_field),
    ("ring, own angles", prior, ring),
    ("ring, learned reverse", learned, ring),
):
    trained = vi.objective(mean_of(objective, 16), model, guide)
    rule = optax.adam(optax.exponential_decay(0.05, 1000, 0.3))
    fits[name] = vi.fit(trained, jax.random.key(0), OBSERVED, optimizer=rule, num_steps=3000, progress=False)
    bound = vi.objective(objective, model, guide)
    keys = jax.random.split(jax.random.key(1), 50_000)
    values = jax.vmap(bound.estimate, (0, None, None))(keys, fits[name].params, OBSERVED)
    bounds[name] = float(values.mean())
    print(f"{name:22} {bounds[name]:.3f} ± {values.std() / np.sqrt(len(keys)):.3f}   log evidence {evidence:.3f}")

assert bounds["ring, own angles"] < bounds["ring, learned reverse"] < evidence
assert bounds["mean field"] + 0.5 < bounds["ring, learned reverse"]

# %% [markdown]
# Draws of each guide. `posterior` takes any program made from the model and the guide: here the marginal guide, resampled
# among 20 by its importance weights, which do not know of u.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 4.3), constrained_layout=True)
circle = np.linspace(0, 2 * np.pi, 200)
radius = np.sqrt(OBSERVED)
drawn = {
    "mean field": fits["mean field"].posterior(draws=1500).posterior,
    "ring, learned reverse": fits["ring, learned reverse"]
    .posterior(draws=1500, particles=20, program=lambda p, q: ppvi.marginal(q, KEEP, angle, particles=5))
    .posterior,
}
for axis, (name, draws) in zip(axes, drawn.items(), strict=True):
    axis.scatter(draws["x"], draws["y"], s=5, alpha=0.5)
    axis.plot(radius * np.cos(circle), radius * np.sin(circle), lw=1, color="tab:orange")
    axis.set(title=name, aspect="equal", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), xlabel="x", ylabel="y")
Path("out").mkdir(exist_ok=True)
figure.savefig("out/ring.png", dpi=110)

points = drawn["ring, learned reverse"]
quadrants = np.histogram(np.arctan2(points["y"], points["x"]), bins=4, range=(-np.pi, np.pi))[0]
print("draws in each quadrant:", quadrants)
assert quadrants.min() > 250
assert abs(float(jnp.hypot(points["x"].values, points["y"].values).mean()) - radius) < 0.05
