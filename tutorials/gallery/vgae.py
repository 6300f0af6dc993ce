# %% [markdown]
# # Variational graph auto-encoders: which links are missing?
#
# A graph of papers that cite one another, with some citations hidden. The auto-encoder gives every paper a place, from its
# words and its neighbours' by graph convolutions, such that papers in the same direction cite one another; a pair whose
# places agree and that has no edge is a link that is missing. Recommending, completing knowledge graphs and predicting
# interactions of proteins are the same task.
#
# The whole system is one model with two sites, a guide with two matrices, and the ELBO.

# %%

import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import eigsh
from scipy.stats import rankdata

import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from guides.vgae import arguments, encode, guide
from models.datasets import hide_edges, planetoid
from models.generated import communities
from models.vgae import model
from ppvi.objectives import analytic_elbo

ENTRY = Entry(
    name="vgae",
    system="Variational Graph Auto-Encoders",
    family="graphs",
    engine="NumPyro",
    objective="analytic_elbo",
    strategies="Reparam",
    shows="link prediction on Cora and Citeseer, where hidden edges are found and where not",
    paper="Kipf and Welling 2016",
    link="https://arxiv.org/abs/1611.07308",
)
GRAPHS = {name: planetoid(name) for name in ("cora", "citeseer")} if FULL else {"sample": communities(200)}
PUBLISHED = {"cora": (91.4, 92.6), "citeseer": (90.8, 92.0)}
SEEDS, STEPS = range(choose(1, 10)), choose(100, 200)
bound = vi.objective(analytic_elbo, model, guide)

# %% [markdown]
# ## Model, guide, objective
#
# $$z_i \sim N(0, I), \quad A_{ij} \sim \mathrm{Bernoulli}(\sigma(z_i^\top z_j)), \quad
# q(z_i) = N(\mu_i, \sigma_i), \quad (\mu, \log\sigma) = \tilde A\, \mathrm{relu}(\tilde A X W_0) W_1$$
#
# `handlers.scale` weighs pairs, so that edges count as much as what is none; the divergence from the prior is in closed form.
# Products with the graph are JAX's sparse ones.

# %%
show(model, encode, guide)
known, *_ = hide_edges(next(iter(GRAPHS.values())), seed=0)
data = arguments(known)
params = bound.init(jax.random.key(0), *data)
print(bound.explain(params, *data))
assert bound.prove(params, *data).verdict == "proved"

# %% [markdown]
# ## Fit and score
# A tenth of the edges is hidden, with as many pairs that are no edges; another twentieth is left out, as in the paper. Two
# numbers say how well a score tells them apart: the area under the ROC curve, and average precision. Beside the auto-encoder
# are the 128 leading eigenvectors of the normalised graph, which know no words, and the cosine between papers' words, which
# know no graph.


# %%
def auc_and_ap(linked, none):
    """In percent: how often an edge is above what is none, and the mean precision at each edge."""
    ranks = rankdata(np.concatenate([linked, none]))[: len(linked)]
    auc = (ranks.mean() - (len(linked) + 1) / 2) / len(none)
    above = np.sort(len(linked) + len(none) + 1 - ranks)
    return 100 * auc, 100 * np.mean(np.arange(1, len(linked) + 1) / above)


def agreement(places, pairs):
    return (places[pairs[:, 0]] * places[pairs[:, 1]]).sum(1)


def places_of(graph, seed):
    """By method: what pairs are scored by, as products of places."""
    features, normalised, adjacency = arguments(graph)
    fit = vi.fit(
        bound, jax.random.key(seed), features, normalised, adjacency, num_steps=STEPS, optimizer=0.01, progress=False
    )
    loc, _ = numpyro.handlers.substitute(encode, fit.params)(features, normalised)
    degree = np.asarray(adjacency.sum(0))
    values, vectors = eigsh(csr_matrix(np.asarray(adjacency) / np.sqrt(np.outer(degree, degree))), choose(16, 128))
    words = graph.features.toarray()
    words /= np.maximum(1, np.linalg.norm(words, axis=1, keepdims=True))
    spectral = vectors * np.sqrt(np.maximum(values, 0) / degree[:, None])
    return fit, {"VGAE": np.asarray(loc), "eigenvectors": spectral, "words": words}


scores, found = {name: {} for name in GRAPHS}, {name: [] for name in GRAPHS}
for name, graph in GRAPHS.items():
    for seed in SEEDS:
        known, *pairs = hide_edges(graph, seed, share=0.15)
        hidden, none = (x[: 2 * len(x) // 3] for x in pairs)
        fit, places = places_of(known, seed)
        for method, at in places.items():
            scores[name].setdefault(method, []).append(auc_and_ap(agreement(at, hidden), agreement(at, none)))
        degree = np.bincount(known.edges.ravel(), minlength=graph.features.shape[0])
        better = rankdata(np.concatenate([agreement(places["VGAE"], pairs) for pairs in (none, hidden)]))
        found[name].append((degree[hidden].min(1), better[len(none) :] > len(none)))
    for method, pairs in scores[name].items():
        auc, ap = np.transpose(pairs)
        print(f"{name:9} {method:13} AUC {said(auc, 1)}   AP {said(ap, 1)}   published {PUBLISHED.get(name, '')}")

# %% [markdown]
# ## Where hidden edges are found
# A paper that cites others has neighbours to go by. One whose only citation is hidden has its words alone.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
GROUPS = {"0": (0, 0), "1": (1, 1), "2": (2, 2), "3-4": (3, 4), "5-9": (5, 9), "10+": (10, np.inf)}
for k, (name, methods) in enumerate(scores.items()):
    for place, pairs in enumerate(methods.values()):
        at = np.full(len(pairs), place + 0.18 * (2 * k - 1))
        axes[0].plot(at, np.transpose(pairs)[0], ".", color=f"C{k}", label=None if place else name)
    if name in PUBLISHED:
        axes[0].plot(0.18 * (2 * k - 1), PUBLISHED[name][0], "_", color="black", markersize=16)
    degree, upper = (np.concatenate(x) for x in zip(*found[name], strict=True))
    within = {label: upper[(degree >= low) & (degree <= high)] for label, (low, high) in GROUPS.items()}
    axes[1].plot(*zip(*((label, x.mean()) for label, x in within.items() if len(x)), strict=True), "o-", color=f"C{k}")
axes[0].set(xticks=range(3), xticklabels=list(methods), ylabel="AUC in percent", title="each split (black: published)")
axes[1].set(ylim=(0, 1.03), title="share of hidden edges scored in the upper half")
axes[1].set(xlabel="edges that are known of the end that has fewer")
axes[0].legend(frameon=False)
ENTRY.picture(figure)

# %% [markdown]
# ## What came out, what differs from the paper, what to change first
# AUC 91.7 ± 0.2 and AP 92.7 ± 0.3 on Cora, 90.2 ± 0.3 and 91.5 ± 0.3 on Citeseer; published are 91.4 and 92.6, 90.8 and
# 92.0. The cosine between words alone, a baseline that the paper does not have, is at 89.2 ± 0.3 on Citeseer. Of links
# whose one end has no edge that is known, the auto-encoder puts about half into the upper half: there it has words
# alone to go by. Each of ten seeds has its own hidden edges and its own start, where the paper has ten starts on one
# split: splits differ, in AUC, by a standard deviation of 0.7 on Cora and 0.9 on Citeseer. Nothing is chosen by the edges
# that are left out. Sizes, step size (Adam, 0.01) and 200 steps are the paper's.
#
# Two things that the paper does not say matter on Citeseer, which is sparse. Its code weighs pairs by a number of edges
# in which loops do not count, and draws the first weights of each head by that head's width. With loops counted and both
# heads drawn as one matrix, two splits were at 88.3 and 88.2; with the first mended at 89.1 and 89.7; with both at 90.6
# and 91.0, and from the first weights of the run above at 90.9 and 89.6.
#
# `LATENT` and `HIDDEN` in the model; `beta_elbo(...)` for the objective; features by the identity, as for graphs without any.
#
# Kipf and Welling, "Variational Graph Auto-Encoders", NeurIPS workshop on Bayesian Deep Learning 2016.

# %%
auc = {name: mean_se(np.transpose(methods["VGAE"])[0]) for name, methods in scores.items()}
ENTRY.record(
    "AUC/AP: "
    + ", ".join(
        f"{name} {' / '.join(said(x, 1) for x in np.transpose(methods['VGAE']))}" for name, methods in scores.items()
    ),
    seeds=SEEDS,
    steps=STEPS,
    scores=scores,
)
assert np.mean(fit.losses[-10:]) < 0.9 * np.mean(fit.losses[:10])
for name, methods in scores.items():
    assert mean_se(np.transpose(methods["eigenvectors"])[0])[0] < auc[name][0]
    assert abs(auc[name][0] - PUBLISHED[name][0]) < 1.0 + 2 * auc[name][1] if FULL else auc[name][0] > 75
