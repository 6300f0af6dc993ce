# %% [markdown]
# # PULASki: outlines that differ as those of several people do
#
# Where does a lesion end, and is there one? Several radiologists give several answers, and a network that is to help them
# should give answers that differ in the same way. A probabilistic U-Net has a hidden variable for that, and is trained pixel by
# pixel against one person's outline at a time. PULASki keeps the network and replaces the likelihood: the outlines that it
# draws for a picture, as a set, should be near to the set of the raters', in a distance of distributions. Here the raters are
# made, so that their distribution is known.

# %%
import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
import optax
from scipy.optimize import linear_sum_assignment

import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from gallery.evaluation import told
from guides.inter_rater import guide
from models.inter_rater import SIDE, agreement, model, outlines_of, pictures, rated
from ppvi.objectives import analytic_elbo

ENTRY = Entry(
    name="inter_rater",
    system="PULASki: Learning inter-rater variability using statistical distances to improve probabilistic segmentation",
    family="autoencoders",
    engine="NumPyro",
    objective="a distance of sets of outlines, and a divergence, on the page; analytic_elbo",
    strategies="Reparam",
    shows="outlines drawn as raters draw them: by a distance of two sets and by the ELBO, beside the known distribution",
    paper="Chatterjee, Gaidzik, Sciarra, Mattern, Janiga, Speck, Nürnberger and Pathiraja 2023",
    link="https://arxiv.org/abs/2312.15686",
)
SEEDS, STEPS, NUMBERS, RATERS = range(choose(1, 3)), choose(50, 1000), choose([40], [60, 300]), 4

# %% [markdown]
# ## Model, guide, objective
#
# $$-\lambda R \sum_i D\big(\{y_{ij}\}_j, \{\hat y_{ij}\}_j\big)
#   - \sum_{ij} KL\big(q(z_{ij} \mid x_i, y_{ij}) \,\|\, p(z_{ij} \mid x_i)\big)$$
#
# $\hat y_{ij}$ are the pixels' probabilities at a draw of the guide, one for each of $R$ raters. $D$ is the Sinkhorn
# divergence, the cost of moving one set onto the other, blurred a little, or the energy distance. The objective is no bound
# of a likelihood. The iteration is stopped after 20 steps: of six pairs of raters' sets tried, five are then within 1% of what
# 1,000 steps give, and one is 11% below it.

# %%
show(model, guide)


def moved(a, b, blur, steps):
    """Cost of moving a set of points onto another, `(m, d)` each, by Sinkhorn's iteration."""
    cost = 0.5 * ((a[:, None] - b) ** 2).sum(-1)

    def least(potential, cost):
        return -blur * (jax.nn.logsumexp((potential - cost) / blur, -1) - jnp.log(cost.shape[-1]))

    def step(now, _):
        f, g = now
        return ((f + least(g, cost)) / 2, (g + least(f, cost.T)) / 2), None

    f, g = jax.lax.scan(step, (0 * cost[:, 0], 0 * cost[0]), length=steps)[0]
    return f.mean() + g.mean()


def sinkhorn(a, b, blur=1.0, steps=20):
    return moved(a, b, blur, steps) - 0.5 * (moved(a, a, blur, steps) + moved(b, b, blur, steps))


def energy(a, b):
    ab, aa, bb = (jnp.sqrt(((u[:, None] - v) ** 2).sum(-1) + 1e-6).mean() for u, v in ((a, b), (a, a), (b, b)))
    return 2 * ab - aa - bb


def pulaski(distance, weight):
    def objective(p, q):
        z = q.simulate()
        before, pixels, y = p.assess(z).returned
        apart = jax.vmap(distance)(y, pixels).sum()
        return -weight * y.shape[1] * apart - dist.kl_divergence(z.returned, before).sum()

    return objective


# %% [markdown]
# ## Where it is exact
# With little blur the cost is that of the best pairing, an assignment problem. Of a set and the same moved by $t$, in another
# order, the divergence is $|t|^2 / 2$ with any blur, as costs that are sums of both points' do not change the plan. And of one
# rater the distance is between two points: the objective is a conditional autoencoder with squared errors.

# %%
x, outlines, shares = pictures(NUMBERS[0], 0)
y = jnp.asarray(rated(outlines, shares, RATERS, 0))
a, b = np.random.default_rng(0).normal(size=(2, 4, 5))
pairs = 0.5 * ((a[:, None] - b) ** 2).sum(-1)
best = pairs[linear_sum_assignment(pairs)].mean()
np.testing.assert_allclose(moved(jnp.asarray(a), jnp.asarray(b), 0.02, 500), best, rtol=0.02)
np.testing.assert_allclose(sinkhorn(jnp.asarray(a), jnp.asarray(a[::-1] + b[0])), (b[0] ** 2).sum() / 2, rtol=0.02)
one, programs = y[:, :1], {"Sinkhorn": pulaski(sinkhorn, 10.0), "energy": pulaski(energy, 30.0), "ELBO": analytic_elbo}
bounds = {name: vi.objective(program, model, guide) for name, program in programs.items()}
single = bounds["Sinkhorn"]
params = single.init(jax.random.key(0), x, one)
assert single.prove(params, x, one).verdict == "proved"


def squares(p, q):
    z = q.simulate()
    before, pixels, y = p.assess(z).returned
    return -5.0 * ((y - pixels) ** 2).sum() - dist.kl_divergence(z.returned, before).sum()


values = [bound.estimate(jax.random.key(1), params, x, one) for bound in (single, vi.objective(squares, model, guide))]
np.testing.assert_allclose(*values, rtol=1e-4)

# %% [markdown]
# ## Fit, beside the known distribution
# Pictures are outlined by four raters each. Of 200 new ones a hundred outlines are drawn at numbers from the prior, of pixels
# that are then more probable than not: `variation`, the total variation between the shares of none, tight and wide and the
# raters' own; `missed`, the error of the share of none; `off`, pixels between a draw and the nearest of the three outlines;
# `energy`, the squared generalised energy distance by 1 - IoU. `raters` are a hundred draws of the raters' own distribution; of
# `one answer`, the outline that most raters give, every draw is the same.

# %%
new, true, known = pictures(choose(20, 200), 1000)
examples = {"raters": rated(true, known, 100, 2000).transpose(1, 0, 2)}
examples["one answer"] = np.repeat(true[np.arange(len(true)), known.argmax(1)][None], 100, 0)
found = {name: [agreement(each, true, known)] for name, each in examples.items()}
for n, seed in itertools.product(NUMBERS, SEEDS):
    x, outlines, shares = pictures(n, seed)
    y = jnp.asarray(rated(outlines, shares, RATERS, seed))
    for name, bound in list(bounds.items())[: choose(1, 3)]:
        options = {"num_steps": STEPS, "optimizer": optax.adam(optax.cosine_decay_schedule(0.003, STEPS))}
        fit = vi.fit(bound, jax.random.key(seed), jnp.asarray(x), y, progress=False, **options)
        examples[name] = np.asarray(outlines_of(fit.params, jax.random.key(1), new, 100))
        found.setdefault(f"{name}, {n}", []).append(agreement(examples[name], true, known))
found = told(found)

# %%
figure, axes = plt.subplots(len(examples), 9, figsize=(10, 1.2 * len(examples)), layout="constrained")
faint = int(np.argmax(known[:, 0]))
for row, (name, each) in zip(axes, examples.items(), strict=True):
    for axis, picture in zip(row, (new[faint], *each[:8, faint]), strict=True):
        axis.imshow(picture.reshape(SIDE, SIDE), cmap="gray_r")
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, fontsize=8)
ENTRY.picture(figure)

# %% [markdown]
# ## What came out, what differs from the paper, what to change first
# The paper: U-Nets, vessels and lesions in magnetic resonance images; a Hausdorff divergence, a Fréchet distance or a Sinkhorn
# one in place of the likelihood; better than its baselines. Here: perceptrons, 100 pixels, three data sets of each size,
# and outlines of a set drawn from the guide.
#
# In part it comes out. With 300 pictures the total variation from the raters is 0.160 ± 0.009 by the Sinkhorn divergence and
# 0.180 ± 0.002 by the ELBO, seed by seed 0.020 ± 0.008 apart, and the generalised energy distance 0.0096 ± 0.0033 apart. With
# 60 they are not told apart (0.015 ± 0.010, 0.014 ± 0.007), though small sets are where the paper wants to help. Training by
# the energy distance is not told apart from the ELBO in these; its draws are further from any outline, by 0.31 ± 0.07 pixels
# with 60 and 0.55 ± 0.08 with 300, and with 300 it is worse in the share of none, by 0.017 ± 0.006. Draws of the Sinkhorn
# divergence are not told apart from the ELBO's in how far they are from outlines (with 300, 0.15 ± 0.13 further). All are far
# from the truth, of which a hundred draws have a variation of 0.05; one answer has 0.48. Much of the variation is the share of
# raters who see no spot, which is 0.106 ± 0.003 off by the Sinkhorn divergence and 0.111 ± 0.004 by the ELBO, not told apart.
# The weights of the two distances are each the better one of two, tried on the first data set, with fewer steps, on the same
# new pictures; the ELBO had no such choice, and what is won may be no more than that. What to change first: these weights, one
# for the ELBO's divergence, and `RATERS`.
#
# Chatterjee, Gaidzik, Sciarra, Mattern, Janiga, Speck, Nürnberger and Pathiraja, "PULASki: Learning inter-rater variability
# using statistical distances to improve probabilistic segmentation", Medical Image Analysis, 2025; arXiv 2312.15686, 2023.

# %%
last = {
    name: said(found[f"{name}, {NUMBERS[-1]}"]["variation"]) for name in bounds if f"{name}, {NUMBERS[-1]}" in found
}
result = "total variation from the raters: " + ", ".join(f"{name} {value}" for name, value in last.items())
result += f"; one answer {said(found['one answer']['variation'])}"
ENTRY.record(result, seeds=SEEDS, steps=STEPS, found=found)
distances = {name: np.mean(column["energy"]) for name, column in found.items()}
assert abs(distances.pop("raters")) < 0.02 < min(distances.values())
if FULL:
    for measure in ("variation", "energy"):
        ahead, error = mean_se(np.subtract(found["ELBO, 300"][measure], found["Sinkhorn, 300"][measure]))
        assert ahead > 2 * error, measure
