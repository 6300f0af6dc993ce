# %% [markdown]
# # Variational Bayesian last layers: uncertainty at the price of one covariance matrix
#
# A network that predicts numbers says nothing of how far it may be off. A posterior over all its weights would, at the price
# of sampling them; several networks, trained apart, do so at several times the price of one. The last layer is a linear
# regression on what the layers before make of the inputs, and of such a regression the posterior is a Gaussian. Here it is
# learned with the rest, by a bound that has no draw in it: beside a plain network's pass, one more product of matrices.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
import optax
from scipy import stats

import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from gallery.evaluation import mixture_score
from guides import last_layers as guides
from models.generated import smooth
from models.last_layers import SCALE, data, exact, features, function, model, of_draws
from ppvi.objectives import analytic_elbo, elbo

ENTRY = Entry(
    name="last_layers",
    system="Variational Bayesian Last Layers",
    family="Bayesian networks",
    engine="NumPyro",
    objective="the bound in closed form, on the page",
    strategies="Reparam",
    shows="a last layer with its exact posterior, learned with the features, beside a deep ensemble and NUTS on the network",
    paper="Harrison, Willes and Snoek 2024",
    link="https://arxiv.org/abs/2404.11599",
)
SEEDS, STEPS, MEMBERS, DRAWS = range(choose(1, 5)), choose(150, 2000), choose(1, 5), choose(20, 200)
GAINS = {"smooth": choose([6.0], [1.5, 3.0, 6.0]), "diabetes": choose([], [0.5, 1.0, 2.0])}
JUDGED = ("smooth", 6.0), ("diabetes", 1.0)

# %% [markdown]
# ## Model, guide, objective
#
# $$\text{bound} = \sum_i \left[\log N(y_i; m' \phi_i, \text{noise}^2) - \tfrac{\phi_i' S \phi_i}{2\, \text{noise}^2}\right]
#   - KL(N(m, S) \,\|\, p(w)) + \log p(W, \text{noise})$$
#
# Hidden layer $W$ and noise are points, under their priors; the last layer $w$ is $N(m, S)$. As the outputs are Gaussian, their
# expected log density is that at $m$, less a term for $S$. The guide returns $m$ and a factor of $S$.


# %%
def last_layer_bound(p, q):
    z = q.simulate()
    m, root = z.returned
    phi, noise = (x := p.assess({**z, "last": m})).returned
    likelihood = x.log_probs["y"].sum() - 0.5 * ((phi @ root) ** 2).sum() / noise**2
    divergence = 0.5 * ((root**2).sum() + (m**2).sum()) / SCALE**2 - jnp.log(jnp.diagonal(root) / SCALE).sum()
    points = x.log_probs["hidden"].sum() + x.log_probs["noise"].sum()
    return likelihood - (divergence - 0.5 * len(m)) + points


show(model, guides.points, guides.last_layer)
last_layer, point = vi.objective(last_layer_bound, model, guides.last_layer), vi.objective(elbo, model, guides.point)
x, y, new, answer = data("smooth", 0)
start = last_layer.init(jax.random.key(0), x, y, 6.0)
assert last_layer.prove(start, x, y, 6.0).verdict == "proved"

# %% [markdown]
# ## Where it is known
# At the last layer's exact posterior the bound is the log evidence of the outputs, and the densities of the points; at
# any other it is less. And it is what the ELBO, which draws the last layer, is in the mean.

# %%
known, evidence = exact(features(start["hidden_loc"], x), start["noise_loc"], y)
best = {**start, "last_loc": known.loc, "last_factor": known.scale_tril}
prior = stats.norm.logpdf(start["hidden_loc"], 0, 6.0 / x.shape[1] ** 0.5).sum()
prior += stats.lognorm.logpdf(start["noise_loc"], 1.0, scale=np.exp(-1.0))
estimate = jax.jit(last_layer.estimate)
np.testing.assert_allclose(estimate(jax.random.key(0), best, x, y, 6.0), evidence + prior, rtol=1e-4)
assert estimate(jax.random.key(0), start, x, y, 6.0) < evidence + prior - 1
if FULL:
    drawing, keys = vi.objective(elbo, model, guides.last_layer), jax.random.split(jax.random.key(1), 1000)
    draws = jax.jit(jax.vmap(drawing.estimate, (0, None, None, None, None)))(keys, start, x, y, 6.0)
    assert abs(mean_se(draws)[0] - estimate(keys[0], start, x, y, 6.0)) < 5 * mean_se(draws)[1]

# %% [markdown]
# ## Fit and predict
# The log score is the mean log density of new outputs. An ensemble's is that of the mixture of its members, each a mode from
# a start of its own; `post` is one of these with the exact last layer put on afterwards. The reference is NUTS on the whole
# network, at one of the gains.

# %%
RULE = optax.adam(optax.cosine_decay_schedule(0.01, STEPS))
mean_field = vi.objective(analytic_elbo, model, guides.mean_field)


def fitted(bound, seed, *data):
    return vi.fit(bound, jax.random.key(seed), *data, num_steps=STEPS, optimizer=RULE, progress=False)


def run(name, gain, seed):
    x, y, new, answer = data(name, seed)
    params = fitted(last_layer, seed, x, y, gain).params
    hidden, noise, m, root = (params[each] for each in ("hidden_loc", "noise_loc", "last_loc", "last_factor"))
    known, _ = exact(features(hidden, x), noise, y)
    gap = dist.kl_divergence(dist.MultivariateNormal(m, scale_tril=root), known)
    predictions = {"last layer": [function(hidden, noise, m, root, new)]}
    if FULL:
        modes = [fitted(point, 100 * seed + k, x, y, gain).params for k in range(MEMBERS)]
        weights = [(p["hidden_loc"], p["noise_loc"]) for p in modes]
        points = [function(*w, p["last_loc"], 0 * root, new) for w, p in zip(weights, modes, strict=True)]
        after, _ = exact(features(weights[0][0], x), weights[0][1], y)
        predictions |= {"mode": points[:1], "ensemble": points}
        predictions["post"] = [function(*weights[0], after.loc, after.scale_tril, new)]
        predictions["mean field"] = of_draws(fitted(mean_field, seed, x, y, gain).posterior(draws=DRAWS), new)
        if (name, gain) in JUDGED:
            options = {"num_warmup": DRAWS, "num_samples": DRAWS, "num_chains": 1, "progress": False}
            predictions["NUTS"] = of_draws(vi.nuts(model, jax.random.key(seed), x, y, gain, **options), new)
    found = {way: mixture_score(each, answer) for way, each in predictions.items()}
    return found | {"last layer": found["last layer"] | {"gap": float(gap)}}


table = {}
for name, gain in [(name, gain) for name, gains in GAINS.items() for gain in gains]:
    found = [run(name, gain, seed) for seed in SEEDS]
    ways = {way: {what: [each[way][what] for each in found] for what in found[0][way]} for way in found[0]}
    table[f"{name}, {gain:g}"] = ways
    print(f"{name}, {gain:g}", {way: said(column["score"], 3) for way, column in ways.items()})

# %%
if FULL:  # a function of one input, seen on two sides of a gap
    x, y = map(jnp.asarray, smooth(80, inputs=1, lengthscale=0.7, noise=0.1, seed=3))
    x, y, line = x[jnp.abs(x[:, 0]) > 0.35], y[jnp.abs(x[:, 0]) > 0.35], jnp.linspace(-1.5, 1.5, 200)[:, None]
    networks = {"last layer": [fitted(last_layer, 0, x, y, 6.0).params]}
    networks["ensemble"] = [fitted(point, k, x, y, 6.0).params for k in range(MEMBERS)]
    none, names = 0 * networks["last layer"][0]["last_factor"], ("hidden_loc", "noise_loc", "last_loc")
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.4), layout="constrained")
    for axis, (title, members) in zip(axes, networks.items(), strict=False):
        f, sd, _ = zip(
            *(function(*(p[n] for n in names), p.get("last_factor", none), line) for p in members), strict=True
        )
        f, sd = np.stack(f), np.stack(sd)
        mean, spread = f.mean(0), np.sqrt((sd**2).mean(0) + f.var(0))
        axis.fill_between(line[:, 0], mean - 2 * spread, mean + 2 * spread, alpha=0.3)
        axis.plot(line, mean, "C0", x, y, "k.", markersize=3)
        axis.set(title=f"{title}: function, two sds", ylim=(-3, 3), xlabel="input")
    for axis, name in zip(axes[2:], GAINS, strict=True):
        for way in ("last layer", "mode", "ensemble", "post", "mean field", "NUTS"):
            at = [k for k, gain in enumerate(GAINS[name]) if way in table[f"{name}, {gain:g}"]]
            means, errors = np.transpose([mean_se(table[f"{name}, {GAINS[name][k]:g}"][way]["score"]) for k in at])
            axis.errorbar(at, means, errors, fmt="o-" if len(at) > 1 else "k*", label=way, capsize=3)
        axis.set(xticks=range(3), xticklabels=GAINS[name], xlabel="gain", title=f"log score of new outputs, {name}")
    axes[3].legend(frameon=False, fontsize=8, loc="lower left")
    ENTRY.picture(figure)

# %% [markdown]
# ## What came out, what differs from the paper, what to change first
# The last layer's Gaussian is the exact one of its features: the divergence between them is 0.015 nats at most. What is left
# out is that the features are uncertain, too: the function's sd at new inputs is 0.094 ± 0.005 for smooth functions, where
# NUTS has 0.173 ± 0.005, and 0.063 ± 0.001 for the patients, against 0.175 ± 0.004.
#
# Log scores, five seeds. With the largest gain the last layer has -0.57 ± 0.09 for smooth functions and -1.16 ± 0.06 for the
# patients; an ensemble of five has -0.69 ± 0.18 and -1.40 ± 0.13, a single mode -0.70 ± 0.18 and -1.79 ± 0.37. Seed by seed
# it is ahead of the ensemble by 0.24 ± 0.07 for the patients; 0.12 ± 0.09 for smooth functions does not tell them apart, nor
# do 0.13 ± 0.10 and 0.63 ± 0.32 ahead of the mode, 0.05 ± 0.05 and 0.57 ± 0.29 ahead of `post`. With smaller gains it is not
# told apart from any of them. The mean-field Gaussian is behind it by 0.36 ± 0.06 or more for smooth functions, by 0.04 ±
# 0.02 and 0.05 ± 0.02 for the patients with the smaller gains, and not told apart with the largest. NUTS, one chain of 200
# draws, has -0.48 ± 0.02 and -1.08 ± 0.03 at the gains where it was run, and is not told apart from it. The claim comes out
# where features are free to overfit, and there in part.
#
# The paper's networks are larger, its UCI data more, and its prior of the noise is an inverse Wishart. To change first: the
# gain, which nothing here learns, or Gaussians for the features, too, as `guides.mean_field` has them.
#
# Harrison, Willes and Snoek, "Variational Bayesian last layers", ICLR 2024; the patients are of Efron, Hastie, Johnstone and
# Tibshirani, "Least angle regression", Annals of Statistics 32 (2004).

# %%
gaps = [gap for row in table.values() for gap in row["last layer"]["gap"]]
judged = table["smooth, 6"]
told = ", ".join(f"{way} {said(judged[way]['score'])}" for way in ("last layer", "ensemble", "mode", "NUTS") if FULL)
result = f"log score, smooth functions: {told}"
ENTRY.record(result, seeds=SEEDS, steps=STEPS, largest_gap=max(gaps), table=table)
assert max(gaps) < choose(5, 0.1)
if FULL:
    for at, way in [*((f"smooth, {gain:g}", "mean field") for gain in GAINS["smooth"]), ("diabetes, 2", "ensemble")]:
        ahead, error = mean_se(np.subtract(table[at]["last layer"]["score"], table[at][way]["score"]))
        assert ahead > 2 * error, (at, way)
    for row in (judged, table["diabetes, 1"]):
        narrower, error = mean_se(np.subtract(row["NUTS"]["sd"], row["last layer"]["sd"]))
        assert narrower > 2 * error
