# %% [markdown]
# # Programmable variational inference: the objective is a program
#
# The paper that this library follows: model, guide *and objective* are programs, made of drawing (`simulate`), asking for a
# density (`log_density`), and two ways to make programs of programs, `marginal` and `normalize`; how each site's gradient is
# estimated is a word at the site. What takes a framework's release elsewhere, such as a hierarchical importance-weighted
# bound, is then a line. This page has the paper's Tables 1, 2 and 4, and Figures 2 and 7.

# %%
import csv
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import gallery
import ppvi
import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, show
from guides.cone import mean_field, ring
from models.cone import OBSERVED, log_evidence, model
from ppvi.objectives import elbo, iwelbo

ENTRY = Entry(
    name="programmable_vi",
    system="Probabilistic Programming with Programmable Variational Inference",
    family="foundations",
    engine="NumPyro",
    objective="elbo, iwelbo, and of marginal guides HVI, IWHVI, DIWHVI",
    strategies="Reparam; for AIR Enumerate, MeasureValued, Reinforce",
    shows="the paper's Tables 1, 2 and 4, and Figures 2 and 7: bounds as one-line programs, what they reach, what they cost",
    paper="Becker, Lew, Wang, Ghavami, Huot, Rinard and Mansinghka 2024",
    link="https://doi.org/10.1145/3656463",
)
show(model, mean_field, ring)

# %% [markdown]
# ## Table 4: five bounds for the noisy cone
# A point of the plane is known by its squared distance from the origin, with noise: its posterior is a ring. A mean-field guide
# cannot follow it. The other guide goes round by a hidden angle, which `marginal` integrates out, by K draws of the
# guide's own.

# %%
KEEP = ["x", "y"]


def hvi(p, q):
    return elbo(p, ppvi.marginal(q, KEEP))


def iwhvi(p, q):
    return elbo(p, ppvi.marginal(q, KEEP, particles=5))


def diwhvi(p, q):
    return iwelbo(5)(p, ppvi.marginal(q, KEEP, particles=5))


def off_centre(z):
    return mean_field(z, start=(3.0, 0.0))


BOUNDS = {
    "ELBO": (elbo, mean_field, 20_000, 64, -8.08),
    "IWELBO(5)": (iwelbo(5), off_centre, 20_000, 1, -7.79),
    "HVI": (hvi, ring, 5_000, 64, -9.75),
    "IWHVI(5)": (iwhvi, ring, 5_000, 64, -8.18),
    "DIWHVI(5, 5)": (diwhvi, ring, 5_000, 64, -7.33),
}
"""Objective, guide, steps and draws a step as in the paper's artifact, and the published value."""


def averaged(program, draws):
    return lambda p, q: ppvi.replicate(draws, lambda: program(p, q)).mean()


fits, reached, starts = {}, {}, {}
for name in choose(("ELBO", "DIWHVI(5, 5)"), tuple(BOUNDS)):
    program, guide, steps, draws, published = BOUNDS[name]
    trained = vi.objective(averaged(program, choose(8, draws)), model, guide)
    start = trained.init(jax.random.key(0), OBSERVED)
    assert trained.prove(start, OBSERVED).verdict == "proved"
    steps, rule = choose(2_000, steps), optax.sgd(1e-3)
    fits[name] = vi.fit(trained, jax.random.key(0), OBSERVED, optimizer=rule, num_steps=steps, progress=False)
    estimates = jax.jit(jax.vmap(vi.objective(program, model, guide).estimate, (0, None, None)))
    keys = jax.random.split(jax.random.key(1), choose(5_000, 200_000))
    before, after = (np.asarray(estimates(keys, params, OBSERVED)) for params in (start, fits[name].params))
    starts[name], reached[name] = before.mean(), (after.mean(), after.std() / np.sqrt(len(keys)))
    print(
        f"{name:13} {reached[name][0]:.3f} ± {reached[name][1]:.3f}   published {published}   at first {before.mean():.1f}"
    )
print(f"log evidence, by quadrature: {(evidence := log_evidence()):.3f}")

# %% [markdown]
# What the compiler makes of the last one: one straight-line program, in which the other draws of the angle are lanes.

# %%
print(trained.explain(fits[name].params, OBSERVED))

# %% [markdown]
# ## Figure 2: the guides
# The mean-field guide picks a place on the ring, resampling by `normalize` widens it, the marginal guide goes round.

# %%
PROGRAMS = {
    "ELBO": lambda p, q: q,
    "IWELBO(5)": lambda p, q: ppvi.normalize(p, q, 5),
    "DIWHVI(5, 5)": lambda p, q: ppvi.marginal(q, KEEP, particles=5),
}
angle = np.linspace(0, 2 * np.pi, 200)
figure, axes = plt.subplots(2, 3, figsize=(11, 7.2), layout="constrained")
for axis, name in zip(axes[0], PROGRAMS, strict=True):
    axis.plot(np.sqrt(OBSERVED) * np.cos(angle), np.sqrt(OBSERVED) * np.sin(angle), lw=1, color="C1")
    axis.set(aspect="equal", xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), title=name)
    if name in fits and FULL:
        drawn = fits[name].posterior(draws=1500, program=PROGRAMS[name])["posterior"]
        axis.plot(drawn["x"].values.ravel(), drawn["y"].values.ravel(), ".", markersize=3, alpha=0.5)

# %% [markdown]
# ## Tables 1 and 2: what a gradient costs
# Timings need a machine of their own, so this page reads what `python -m benchmarks.vae_overhead` and
# `python -m benchmarks.air_steps` recorded: ratios of seconds, median and range over rounds; below 1 ppvi is faster. Table 1 is
# a variational autoencoder beside code by hand, Table 2 a step of Attend, Infer, Repeat.

# %%
RECORDS = Path(gallery.__file__).parents[1] / "benchmarks"


def recorded(heading):
    """The first table below a heading of the records, by its first column."""
    lines = (RECORDS / "RESULTS.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


costs = {
    "Table 1": recorded("A VAE: value and gradient"),
    "Table 2": recorded("Attend, Infer, Repeat: one Adam step of 64 images"),
}
for table, rows in costs.items():
    print(table, *(f"{name}: {row}" for name, row in rows.items()), sep="\n  ")

# %% [markdown]
# ## Figure 7: Attend, Infer, Repeat
# A recurrent guide finds one object after the other (`models/air.py`, `guides/air.py`); how the presence of an object is
# estimated is one argument. `benchmarks.air_training` recorded 30 epochs of 6,400 images, and of one estimator 15 of 60,000.

# %%
texts = ((RECORDS / "curves" / f"{name}.csv").read_text() for name in ("air_training", "air_whole"))
rows, whole = (list(csv.DictReader(text.splitlines())) for text in texts)
curves = {
    name: [row for row in rows if row["estimator"] == name] for name in dict.fromkeys(row["estimator"] for row in rows)
}
for axis, (x, y) in zip(axes[1], (("epoch", "accuracy"), ("epoch", "elbo"), ("seconds", "accuracy")), strict=True):
    for name, found in curves.items():
        axis.plot([float(row[x]) for row in found], [float(row[y]) for row in found], lw=1.2, label=name)
    axis.set(xlabel=x, ylabel={"accuracy": "count accuracy", "elbo": "ELBO, nats an image"}[y])
axes[1, 1].set_ylim(bottom=450)
axes[1, 2].legend(frameon=False, fontsize=7, loc="lower right", bbox_to_anchor=(1, 0.02))
ENTRY.picture(figure)
best = {name: max(float(row["accuracy"]) for row in found) for name, found in curves.items()}
print("best count accuracy:", {name: round(value, 3) for name, value in best.items()})
print(f"of 60,000 images, {whole[-1]['estimator']}: {float(whole[-1]['accuracy']):.3f}")

# %% [markdown]
# ## What differs from the paper, and what to change first
# Table 4 has the settings of the paper's artifact. AIR has a thirteenth of the steps, at three times the step size, and one
# seed; the paper reaches 0.98 with ENUM, MVD and IWELBO(2) + MVD, of which here the first and the last come near. With all
# images a baseline that learns, which costs the least, reaches 0.988.
#
# Give `marginal` a learned reverse program, `guides.cone.angle`, in place of the guide's own angles.
#
# Becker et al., "Probabilistic programming with programmable variational inference", PLDI 2024.

# %%
ENTRY.record(
    "Table 4: " + ", ".join(f"{name} {value:.2f} ± {error:.2f}" for name, (value, error) in reached.items()),
    seeds=[0],
    steps=20_000,
    reached=reached,
    published={name: row[-1] for name, row in BOUNDS.items()},
    evidence=evidence,
    best_accuracy=best,
)
for name, (value, error) in reached.items():
    assert starts[name] < value <= evidence + 3 * error
    assert not FULL or value >= BOUNDS[name][-1] - 2 * error - 0.02
assert reached["DIWHVI(5, 5)"][0] > reached["ELBO"][0] or not FULL
