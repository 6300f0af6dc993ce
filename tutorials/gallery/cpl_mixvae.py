# %% [markdown]
# # Coupled autoencoders: two networks that have to agree on what type a cell is of
#
# Cells of a tissue are of types, and a cell of a type is in one state or another. A mixture autoencoder has a discrete latent
# variable for the first and a continuous one for the second, and finds types that nobody has told it of; trained twice, it may
# find two different sets of them. Here two autoencoders, the arms, are trained side by side on different copies of each cell,
# and a penalty on the disagreement of their types makes them find the same ones.
#
# The paper relaxes the discrete variable and lets a network make the copies. Here types are summed over, and the molecules of a
# cell, which are counted, are dealt out to the arms.

# %%
from functools import partial

import jax
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp

import ppvi
import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from gallery.evaluation import columns_of, matched
from guides import cpl_mixvae as guides
from models import cpl_mixvae as cells

ENTRY = Entry(
    name="cpl_mixvae",
    system="Mixture Representation Learning with Coupled Autoencoders",
    family="autoencoders",
    engine="NumPyro",
    objective="the arms' bounds - penalty * Aitchison distance of their types, on the page",
    strategies="Reparam, Enumerate",
    shows="types of single cells that two networks agree on, and whether they are right",
    paper="Marghi, Gala and Sümbül 2020",
    link="https://arxiv.org/abs/2007.09880",
)
SEEDS, STEPS = range(choose(1, 8)), choose(15, 300)
PENALTIES = choose((0.1,), (0.0, 0.1, 1.0))
show(cells.model, guides.guide)

# %% [markdown]
# ## The objective
#
# $$\sum_a E_q[\log p(x_a, s_a, c_a) - \log q(s_a, c_a \mid x_a)] - \lambda\, d^2(q(c_1 \mid x_1), q(c_2 \mid x_2)), \qquad
# d^2(q, q') = |\mathrm{clr}(q) - \mathrm{clr}(q')|^2$$
#
# per cell. $\mathrm{clr}(q) = \log q - \mathrm{mean} \log q$ are coordinates in which the simplex is a plane, and distances in
# it are Aitchison's. Without penalty the arms are two mixture autoencoders that know nothing of one another: the baseline.


# %%
def coupled(penalty):
    def program(p, q):
        z = q.simulate()
        clr = z.returned - z.returned.mean(-1, keepdims=True)
        apart = ((clr[:1] - clr[1:]) ** 2).sum()
        return (p.log_density(z) - z.log_density - penalty * apart) / clr.shape[1]

    return program


def bound(penalty, types, decode=cells.by_networks, encode=guides.by_networks):
    programs = partial(cells.model, types=types, decode=decode), partial(guides.guide, types=types, encode=encode)
    return vi.objective(coupled(penalty), *programs, strategies={"c": ppvi.Enumerate()})


# %% [markdown]
# ## Exact, where decoders are straight
# With decoders that are linear in the state, what a type and a state are given a cell is known in closed form. With that for a
# guide every draw gives the same: the evidence of both copies, less the distance of the posteriors of the types.

# %%
decode, encode, parts = cells.straight(jax.random.key(0))
x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
joint = cells.log_evidence(x, *parts)
log_ratio = joint - joint.mean(1, keepdims=True)
distance = ((log_ratio[0] - log_ratio[1]) ** 2).sum()
exact = bound(0.3, 3, decode, encode)
params = {"log_noise": np.zeros((2, 1, 4)), "decoder": 0.0, "of_type": 0.0, "of_state": 0.0}  # no networks here
value = exact.estimate(jax.random.key(1), params, x)
np.testing.assert_allclose(value, (logsumexp(joint, 1).sum() - 0.3 * distance) / 5, rtol=1e-5)
print(exact.explain(params, x))
assert exact.prove(params, x).verdict == "proved"

# %% [markdown]
# ## Cells
# `made` are counts of 40 genes in 400 cells of five types, other ones for each seed. `lines` are 274 cells of three lines of
# lung cancer, in 150 variable genes; which line a cell is of is not in the file, and k-means on 300 other genes stands for it.
# `right` is the percentage of cells whose type is right by the best matching of types, in the mean over arms; `agreed` that of
# cells of which the arms say the same, by the best matching too. k-means on the genes that are seen is beside it.


# %%
def types_of(params, x):
    logits, _ = guides.by_networks((params["of_type"], params["of_state"]), x)
    return np.asarray(logits).argmax(-1)


def rows_of(name, types, seed, data):
    """For each penalty: percent of types that are right, percent on which the arms agree, and what the objective has gained."""
    counts, total, kind = data
    logs = np.log1p(1e4 * counts / total[:, None])
    fresh = cells.halves(np.random.default_rng(99), counts, total)
    found = {"k-means": {"right": matched(cells.by_k_means((logs - logs.mean(0)) / logs.std(0), types), kind)}}
    for penalty in PENALTIES:
        rng = np.random.default_rng(seed)
        batches = (cells.halves(rng, counts, total) for _ in range(STEPS))
        options = {"num_steps": STEPS, "optimizer": 2e-3, "progress": False}
        fit = vi.fit(BOUNDS[types, penalty], jax.random.key(seed), batches=batches, **options)
        told = types_of(fit.params, fresh)
        found[penalty] = {
            "right": np.mean([matched(each, kind) for each in told]),
            "agreed": matched(*told),
            "gained": float(np.mean(fit.losses[:5]) - np.mean(fit.losses[-5:])),
        }
    return found


SETS = {"made": (choose(3, 5), lambda seed: cells.made(*choose((60, 12, 3), (400, 40, 5)), seed))}
if FULL:
    LINES = cells.lines()
    SETS["lines"] = 3, lambda seed: LINES
BOUNDS = {(types, penalty): bound(penalty, types) for types, _ in SETS.values() for penalty in PENALTIES}
found = {}
for name, (types, data) in SETS.items():
    runs = [rows_of(name, types, seed, data(seed)) for seed in SEEDS]
    found[name] = {way: columns_of([run[way] for run in runs]) for way in runs[0]}
    for way, columns in found[name].items():
        print(name, way, {measure: said(values, 1) for measure, values in columns.items()}, flush=True)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for axis, (name, ways) in zip(axes, found.items(), strict=False):
    for k, measure in enumerate(("right", "agreed")):
        values = np.array([ways[penalty][measure] for penalty in PENALTIES])
        at = np.arange(len(PENALTIES)) + 0.2 * k - 0.1
        axis.plot(at, values, "o", color=f"C{k}", alpha=0.5)
        axis.plot(at, values.mean(1), "_", color=f"C{k}", markersize=22, label=measure)
    axis.axhline(np.mean(ways["k-means"]["right"]), color="black", lw=0.8, ls=":", label="k-means, right")
    axis.set(xticks=range(len(PENALTIES)), xticklabels=PENALTIES, xlabel="penalty", title=name, ylim=(0, 103))
axes[0].set_ylabel("percent of cells")
axes[0].legend(frameon=False, loc="lower right")
ENTRY.picture(figure)

# %% [markdown]
# ## The claim
# The paper: arms that have to agree find the same types, and better ones. The first comes out. On the made cells the arms agree
# on 61.4 ± 3.6 % without penalty, on 85.1 ± 3.7 % with one of 0.1 and on 80.8 ± 6.1 % with one of 1; on the lines on 78.4 ±
# 6.0 %, with a penalty of 0.1 on 92.9 ± 3.2 %, which is not told apart (14.5 ± 7.8), and with one of 1 on 98.7 ± 0.4 %. The
# second does not: types that are agreed on are not told apart in being right, 71.6 ± 3.6 % and, with 0.1, 70.7 ± 4.7 % of the
# made cells, 85.1 ± 3.5 % and 91.4 ± 3.7 % of the lines. A penalty of 1 loses 10.6 ± 5.2 on the made cells, and on the lines
# is not told apart (5.1 ± 6.0). Networks may agree on what is wrong: with it, those of one seed agree on 98.5 % of the lines'
# cells and have 48.2 % right.
#
# k-means sees whole cells, not halves. It gets 66.4 ± 3.1 % of the made cells right, not told apart. Of the lines it gets
# 99.6 %, more than the networks in the mean; but there what is right is k-means' own word, on other genes, which favours it.
#
# What differs: the paper's types are relaxed draws, and its distance is scaled by their spread in the minibatch; its copies are
# made by a network that has learned to keep the type; it has more arms, and brain cells of more than a hundred types; here
# the number of types is the right one. The penalty of 0.1 was found on other made cells and on the lines, with three of these
# seeds.
#
# What to change first: the penalty; `states`, of which there is one; a third copy, with distances between all pairs.
#
# Marghi, Gala and Sümbül, "Mixture representation learning with coupled autoencoders", 2020.

# %%
ends = (0.0, 0.1) if FULL else (0.1,)
text = "; ".join(
    f"{name}: " + ", ".join(f"{x} {' to '.join(said(ways[end][x], 0) for end in ends)} %" for x in ("right", "agreed"))
    for name, ways in found.items()
)
ENTRY.record(text, seeds=SEEDS, steps=STEPS, found=found)
assert min(found["made"][0.1]["gained"]) > 0
if FULL:
    for name, penalty in (("made", 0.1), ("made", 1.0), ("lines", 1.0)):
        ahead, error = mean_se(np.subtract(found[name][penalty]["agreed"], found[name][0.0]["agreed"]))
        assert ahead > 2 * error, name
