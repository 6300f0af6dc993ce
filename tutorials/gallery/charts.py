# %% [markdown]
# # Charts: a surface that no single autoencoder can cover
#
# Who knows that pictures of a thing lie on a surface of few dimensions can find one from less than a picture: a few
# measurements, and the surface. A decoder is such a surface, a plane put into space by a network; but a sphere or a torus is no
# deformed plane, so that one decoder tears it. Atlases of the earth have several maps. A mixture of autoencoders is an atlas,
# in which every point has a chart that nobody has told, and with it one can walk anywhere.

# %%
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from scipy.spatial import cKDTree

import ppvi
import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from guides.charts import downhill, encode, guide, walk
from models.charts import draws, model
from models.generated import nearest_on_surface, surface, walk_on_surface
from models.networks import perceptron
from ppvi.objectives import elbo

ENTRY = Entry(
    name="charts",
    system="Manifold Learning by Mixture Models of VAEs for Inverse Problems",
    family="autoencoders",
    engine="NumPyro",
    objective="elbo",
    strategies="Enumerate, Reparam",
    shows="an atlas: the chart of a point is summed over; one does for a disc, two for a sphere, a torus wants more",
    paper="Alberti, Hertrich, Santacesaria and Sciutto 2024",
    link="https://arxiv.org/abs/2303.15244",
)
CHARTS = choose({"sphere": (2,)}, {"disc": (1, 2), "sphere": (1, 2, 4), "torus": (1, 2, 4, 6)})
SEEDS, STEPS, ROWS, BATCH, PROBLEMS = range(choose(1, 3)), choose(300, 2500), choose(1000, 5000), 100, choose(50, 300)

# %% [markdown]
# ## Model, guide, objective
#
# $$c_i \sim \text{Cat}(\alpha) \qquad z_i \sim N(0, I_2) \qquad x_i \sim N(D_{c_i}(z_i), \sigma^2 I) \qquad
# q = q(c_i \mid x_i)\, N(z_i \mid E_{c_i}(x_i))$$
#
# The charts of a minibatch are 100 discrete choices, and no pathwise gradient goes through them. Nothing couples them, so their
# exact sum costs as many runs as there are charts.

# %%
show(model, guide)
bound = vi.objective(elbo, model, guide, strategies={"chart": ppvi.Enumerate()})
few, key = jnp.asarray(surface("sphere", BATCH)), jax.random.key(0)
start = bound.init(key, few, 3)
print(bound.explain(start, few, 3))
assert bound.prove(start, few, 3).verdict == "proved"

# %% [markdown]
# The paper maximises $\log \sum_c \alpha_c \exp(\text{ELBO}_c(x_i))$, where $\text{ELBO}_c$ is that of chart $c$ by itself. It
# is the bound with the best of all $q(c \mid x_i)$, which is in proportion to the summands. Draw for draw, of each point:


# %%
def said_of(logits, x):
    """The bound of one point, when this is what the guide says of its chart."""
    *layers, (w, _) = start["which"]
    return bound.estimate(key, start | {"which": [*layers, (0 * w, logits)]}, x[None], 3)


alone = jax.vmap(lambda x: jax.vmap(partial(said_of, x=x))(200 * jnp.eye(3) - 200))(few[:20])
np.testing.assert_allclose(jax.vmap(said_of)(alone, few[:20]), jax.nn.logsumexp(alone, 1), rtol=1e-4)
assert (jax.vmap(said_of)(0 * alone, few[:20]) < jax.nn.logsumexp(alone, 1)).all()

# %% [markdown]
# ## What an atlas is good for
# A walk on it: steps downhill on a chart, in its own coordinates $z$ and the metric of the surface, until the guide gives this
# chart less than a tenth; then on with the point's coordinates on the likeliest. Here two numbers of a point of the surface are
# measured, $y = A x$, and the walk is down $|A x - y|^2 / 2$, from a point anywhere on it. It has arrived when it is within
# 0.05 of what was measured, and 0.1 of the surface. On the surface itself, where it can be caught behind a fold as well, the
# same walk takes the nearest point after each step.


# %%
show(downhill, walk)


def arrived(kind, x, a, y):
    off = np.linalg.norm(x - nearest_on_surface(kind, x), axis=1)
    return np.mean((off < 0.1) & (np.linalg.norm(np.einsum("nij,nj->ni", a, x) - y, axis=1) < 0.05))


# %% [markdown]
# ## Fit
# Of points of the surface that were not learned from: how far each is from what its chart makes of it, in root mean square,
# and how many have one of 5,000 draws of the model within 0.1; and how far these draws are from the surface.


# %%
def judged(kind, params, new, drawn, ends):
    which = perceptron(params["which"], new).argmax(1)
    again = jax.vmap(perceptron)(params["decoders"], encode(params["encoders"], new)[0])
    error = np.linalg.norm(np.asarray(again)[which, np.arange(len(new))] - new, axis=1)
    off = np.linalg.norm(drawn - nearest_on_surface(kind, drawn), axis=1)
    covered = np.mean(cKDTree(drawn).query(new)[0] < 0.1)
    return np.sqrt(np.mean(error**2)), covered, off.mean(), arrived(kind, *ends)


MEASURES = ("error", "covered", "off", "arrived")
found = {kind: {charts: [] for charts in many} for kind, many in CHARTS.items()}
exact, fits, losses = {kind: [] for kind in CHARTS}, {}, []
for kind, seed in itertools.product(CHARTS, SEEDS):
    x, new = surface(kind, ROWS, seed), surface(kind, 2000, seed + 100, noise=0)
    there, truth = (surface(kind, PROBLEMS, seed + more, noise=0) for more in (1000, 2000))
    a = np.linalg.qr(np.random.default_rng(seed).normal(size=(PROBLEMS, 3, 3)))[0][:, :2].astype(np.float32)
    y = np.einsum("nij,nj->ni", a, truth)
    exact[kind].append(arrived(kind, walk_on_surface(kind, there, a, y), a, y))
    for charts in CHARTS[kind]:
        how = {"num_steps": STEPS, "optimizer": optax.adam(optax.cosine_decay_schedule(5e-3, STEPS)), "progress": False}
        fit = vi.fit(bound, jax.random.key(seed), jnp.asarray(x), charts, batch=BATCH, **how)
        path, (drawn, own) = np.asarray(walk(fit.params, there, a, y)), draws(fit.params, 5000, seed)
        found[kind][charts].append(judged(kind, fit.params, new, drawn, (path[-1], a, y)))
        fits.setdefault((kind, charts), (drawn, own, path))
        losses.append(fit.losses)
        print(kind, charts, seed, np.round(found[kind][charts][-1], 4), flush=True)

# %%
figure = plt.figure(figsize=(12, 3.4), layout="constrained")
shown = [each for each in (("sphere", 1), ("sphere", 2), ("torus", 6)) if each in fits]
for i, (kind, charts) in enumerate(shown):
    drawn, own, path = fits[kind, charts]
    axis = figure.add_subplot(1, 4, i + 1, projection="3d", computed_zorder=False)
    axis.set_box_aspect((1, 1, 1), zoom=1.25)
    axis.scatter(*drawn[:3000].T, c=[f"C{each}" for each in own[:3000]], s=0.6, alpha=0.5)
    for each in path[:, :6].swapaxes(0, 1):
        axis.plot(*each.T, color="black", linewidth=1.2)
        axis.plot(*each[-1:].T, "o", color="black", markersize=3)
    limits = dict.fromkeys(("xlim", "ylim", "zlim"), np.array([-1, 1]) * np.quantile(abs(drawn), 0.999))
    axis.set(**limits, title=f"{kind}, {charts} chart{'s'[: charts - 1]}: draws, walks")
    axis.set_axis_off()
axis = figure.add_subplot(1, 4, 4)
for kind, many in found.items():
    means, errors = np.transpose([mean_se(np.transpose(rows)[0]) for rows in many.values()])
    axis.errorbar(list(many), means, np.nan_to_num(errors), fmt="o-", capsize=4, label=kind)
axis.set(xlabel="charts", yscale="log", title="error of new points", xticks=(1, 2, 4, 6))
axis.legend(frameon=False)
ENTRY.picture(figure)

# %% [markdown]
# ## The claim
# The paper: a mixture covers what one generator cannot, and descent on it solves inverse problems. Here new points of a sphere
# are 0.093 ± 0.005 from what one chart makes of them, and 0.012 ± 0.000 with two or with four; its radius is 1. Of walks 92.8
# ± 0.7% arrive with one chart, 99.8 ± 0.2% with two, and 99.7 ± 0.2% on the sphere itself. A disc wants one: the second makes
# its error no smaller (0.015 ± 0.000 beside 0.013 ± 0.001), and walks arrive as often as on the disc itself (94%).
#
# Of a torus one chart covers 15%, two 92 ± 1%, and the error goes on falling: 0.284, 0.067, 0.053, 0.045 with one, two, four,
# six. But walks arrive best with two (83.8 ± 1.5%; with four 51.4 ± 3.3%, with six 54.3 ± 4.3%; on the torus
# itself 94.6 ± 0.6%). The paper has six there, decoders that are exactly invertible, a flow for the density of the plane, and a
# phase of training that makes charts overlap, so that its walks can go by means of several. The perceptrons here have none of
# these, and what they draw with four charts is 0.10 ± 0.01 off the surface, which walks from chart to chart may have to cross.
# The paper's step, through encoder and decoder, did not come to rest at solutions, since here neither undoes the other exactly.
#
# What to change first: the number of charts, `HIDDEN`, and the noise, 0.05, which is what the model takes for small.
#
# Alberti, Hertrich, Santacesaria and Sciutto, "Manifold learning by mixture models of VAEs for inverse problems", JMLR 2024.

# %%
columns = {kind: {charts: np.transpose(rows) for charts, rows in many.items()} for kind, many in found.items()}
for kind, many in columns.items():
    print(f"{kind}, on the surface itself arrived {said(exact[kind], 3)}")
    for charts, column in many.items():
        print(kind, charts, {measure: said(each, 3) for measure, each in zip(MEASURES, column, strict=True)})
errors = (f"{kind} " + ", ".join(f"{n}: {x[0].mean():.3f}" for n, x in by.items()) for kind, by in columns.items())
numbers = {"columns": columns, "measures": MEASURES, "exact": exact}
ENTRY.record("error by charts: " + "; ".join(errors), seeds=SEEDS, steps=STEPS, **numbers)
assert all(np.mean(loss[-20:]) < 0.5 * np.mean(loss[:20]) for loss in losses)
assert min(exact["sphere"]) > 0.95
if FULL:
    sphere, torus = columns["sphere"], columns["torus"]
    assert sphere[2][0].max() < 0.2 * sphere[1][0].min()
    assert sphere[2][3].min() > sphere[1][3].max()
    assert torus[4][0].max() < torus[1][0].min()
