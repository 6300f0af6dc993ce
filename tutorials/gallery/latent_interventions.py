# %% [markdown]
# # Latent interventions: causes from data that somebody has disturbed, nobody knows where
#
# Which variable causes which, data alone can seldom say: two Gaussian variables look the same whichever came first. Data
# after interventions can say it, since what is set from outside moves its effects and not its causes. But who has noted, for
# each cell on the slide, what was done to it? Here nobody has. Each datum belongs to some component of a mixture, the
# undisturbed system or one of its interventions, and all of them share one graph.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ppvi
import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from gallery.evaluation import columns_of
from guides.latent_interventions import guide
from models import latent_interventions as causes
from models.datasets import proteins
from ppvi.objectives import elbo

ENTRY = Entry(
    name="latent_interventions",
    system="Differentiable Causal Discovery Under Latent Interventions",
    family="causal discovery",
    engine="NumPyro",
    objective="elbo",
    strategies="LocalExpectation, Reparam",
    shows="one graph under a mixture of interventions that nobody has noted: Hamming distance, beside all graphs enumerated",
    paper="Faria, Martins and Figueiredo 2022",
    link="https://arxiv.org/abs/2203.02336",
)
SEEDS, STEPS, STARTS = range(choose(1, 5)), choose(100, 600), 24
D, DATA, COMPONENTS = 4, 500, 4

# %% [markdown]
# ## Model, guide, objective
#
# $$z_n \sim \text{sticks} \qquad p(x_n \mid z_n, G) = \prod_{j \text{ alone}} N\Big(\sum_i G_{ij} w_{ij} x_{ni} + b_j, s_j\Big)
#   \; N(x_{nt}; b_{z_n t}, s_{z_n t}), \quad t = \text{target}(z_n)$$
#
# Arrows and targets are independent in the guide, and each is summed while the others are as they are drawn. Nothing is
# relaxed: the gradient is that of discrete graphs, and what makes cycles unlikely may count arrows, with no slope of its own.

# %%
show(causes.densities, causes.on_cycles, causes.model, guide)


def bound_of(components):
    summed = {name: ppvi.LocalExpectation() for name in ("edges", "targets")[: 1 + (components > 1)]}
    program, its_guide = (partial(each, components=components) for each in (causes.model, guide))
    return vi.objective(elbo, program, its_guide, strategies=summed)


def fitted(bound, seed, *data, **options):
    return vi.fit(bound, jax.random.key(seed), *data, num_steps=STEPS, optimizer=0.05, progress=False, **options).params


def graph_of(params):
    return np.asarray(causes.matrix(params["arrow"] > 0, len(params["bias"])), bool)


single, mixture, key = bound_of(1), bound_of(COMPONENTS), jax.random.key(0)
x = jnp.asarray(causes.made(D, DATA, 3, 0)[0])
report = mixture.prove(mixture.init(key, x), x, batch=100)
print(report)
assert report.verdict == "proved"

# %% [markdown]
# ## What is exact
# There are 64 sets of arrows among three variables, cycles included, so that the bound and its gradient are sums. And where
# all is undisturbed, all graphs can be compared at the best weights of each, by least squares.

# %%
x = jnp.asarray(causes.made(3, 100, 1, 0)[0])
params = single.init(key, x) | {"arrow": jnp.linspace(-3.0, -1.0, 6)}
SETS = jnp.asarray(causes.graphs(3))


@jax.jit
@jax.value_and_grad
def exactly(params):
    """The bound, by the sum over all sets of arrows."""
    log_q = SETS @ jax.nn.log_sigmoid(params["arrow"]) + (1 - SETS) @ jax.nn.log_sigmoid(-params["arrow"])
    joints = jax.vmap(lambda edges: causes.log_joint(edges, params, x))(SETS)
    return jnp.exp(log_q) @ (joints - log_q)


keys = jax.random.split(key, choose(300, 2000))
values, grads = jax.jit(jax.vmap(single.value_and_grad, (0, None, None)))(keys, params, x)
value, grad = exactly(params)
for ours, truly in [(values, value), *zip(grads["arrow"].T, grad["arrow"], strict=True)]:
    mean, error = mean_se(ours)
    assert abs(mean - truly) < 5 * error
print(f"bound {said(values, 1)}, exactly {value:.1f}; slope {said(grads['arrow'][:, 0])}, {grad['arrow'][0]:.2f}")

# %% [markdown]
# ## Who knows what
# Systems of four variables, 500 data of each, half of them undisturbed and half from interventions on three variables. Beside
# the mixture: itself, begun near the true arrows; the same program with one component, which takes all data for undisturbed;
# and the best of all 543 graphs without cycles, once by that same belief, and once with all interventions known.

# %%
estimates, runs = jax.jit(jax.vmap(mixture.estimate, (0, None, None))), []
for seed in SEEDS:
    data, truth, moved = causes.made(D, DATA, 3, seed)
    x, at, none = jnp.asarray(data), tuple(causes.arrows(D).T), np.zeros_like(moved)
    graphs = {
        "no arrows": np.zeros((D, D)),
        "all graphs, all known": causes.best_graph(data, moved),
        "all graphs, none known": causes.best_graph(data, none),
    }
    assert causes.score(graphs["all graphs, all known"], data, moved) >= causes.score(truth, data, moved) - 1e-6
    numbers = {"arrows": int(truth.sum())}
    if FULL:
        near = {"arrow": jnp.where(truth[at], 4.0, -4.0)}
        ways = {
            "one component": fitted(single, seed, x, num_starts=STARTS),
            "mixture": fitted(mixture, seed, x, num_starts=STARTS),
            "mixture, from the truth": fitted(mixture, seed, x, num_starts=STARTS, params=near),
        }
        graphs |= {name: graph_of(params) for name, params in ways.items()}
        bounds = [float(estimates(keys[:200], ways[name], x).mean()) for name in ("mixture", "mixture, from the truth")]
        best, found = (causes.score(graphs[name], data, none) for name in ("all graphs, none known", "one component"))
        numbers |= {"ahead of the truth": bounds[0] - bounds[1], "behind the best": best - found}
        assert numbers["behind the best"] > -1e-6
        assert all(causes.on_cycles(jnp.asarray(graph, float)) == 0 for graph in graphs.values())
    runs.append({name: causes.distance(graph, truth) for name, graph in graphs.items()} | numbers)
shd = columns_of(runs)
for name, found in shd.items():
    print(f"{name:24} {said(found, 1)}")

# %% [markdown]
# ## Proteins
# Amounts of eleven proteins in 7,466 cells, under interventions that are not told, and the 18 arrows on which biologists agree.

# %%
cells, consensus, names = proteins() if FULL else (np.zeros((1, 11)), np.zeros((11, 11)), [""] * 11)
found, real = {}, {"no arrows": [causes.distance(np.zeros((11, 11)), consensus)]}
for name, bound in ({"mixture": bound_of(6), "one component": single} if FULL else {}).items():
    fits = [fitted(bound, seed, jnp.asarray(cells), batch=100) for seed in range(3)]
    found[name] = [graph_of(params) for params in fits]
    real[name] = [causes.distance(graph, consensus) for graph in found[name]]
    real[name + ", arrows"] = [int(graph.sum()) for graph in found[name]]
    real[name + ", of the consensus"] = [int((graph & consensus).sum()) for graph in found[name]]
for name, numbers in real.items():
    print(f"{name:32} {said(numbers, 1)}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
shown = [name for name in shd if name[0] in "noam" and name not in ("arrows", "ahead of the truth")]
means, errors = np.transpose([mean_se(shd[name]) for name in shown])
axes[0].errorbar(means, range(len(shown)), xerr=np.nan_to_num(errors), fmt="o", capsize=3)
axes[0].set(yticks=range(len(shown)), yticklabels=shown, title="four variables", xlabel="structural Hamming distance")
maps = {"proteins: how often found, of three": sum(found.get("mixture", [0 * consensus])), "consensus": consensus}
for axis, (title, graph) in zip(axes[1:], maps.items(), strict=True):
    axis.imshow(np.asarray(graph, float), cmap="Blues", vmin=0)
    axis.set(xticks=range(11), yticks=range(11), yticklabels=names, title=title, xlabel="effect", ylabel="cause")
    axis.set_xticklabels(names, rotation=90)
ENTRY.picture(figure)

# %% [markdown]
# ## What came out, what differs from the paper, what to change first
# The paper discovers causes under latent interventions by neural networks and an infinite mixture. Here: linear equations, as
# many components as there are (six for proteins), one target each, five systems with 2.2 ± 0.2 arrows, the best of 24 starts
# of 600 steps. Its structural Hamming distance is 1.0 ± 0.4; that of one component 2.0 ± 0.3, of no arrows 2.2 ± 0.2, of the
# best of all graphs 2.6 ± 0.6 where no intervention is known, 0.2 ± 0.2 where all are. Seed by seed the mixture is 1.0 ± 0.7
# nearer than one component: not told apart. It is the search that falls short: begun near the true arrows the mixture finds the
# true graph on every seed, by a bound 166 ± 67 nats above. Where the search finds it too, on two seeds, the two bounds
# are within 15 nats, elsewhere at least 254 apart. One component is never more than 2.5 nats behind the best of all graphs.
#
# Proteins: negative. The mixture is 22.0 ± 2.1 from the consensus (4.0 ± 1.5 of its 14.7 ± 4.7 arrows are there), one component
# 23.0 ± 1.5, no arrows 18: no better than none. What to change first: `STARTS`.
#
# Faria, Martins and Figueiredo, "Differentiable causal discovery under latent interventions", CLeaR 2022.

# %%
assert max(shd["all graphs, all known"]) < min(shd["no arrows"])
told = ("mixture", "one component", "all graphs, all known")
result = [f"{name} {said(found, 1)}" for name, found in shd.items() if name in told]
ENTRY.record("Hamming distance: " + ", ".join(result), seeds=SEEDS, steps=STEPS, shd=shd, real=real, found=found)
if FULL:
    ahead, error = mean_se(shd["ahead of the truth"])
    assert ahead < -2 * error
    less, error = mean_se(np.subtract(shd["one component"], shd["mixture, from the truth"]))
    assert less > 2 * error
