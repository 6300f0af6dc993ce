# %% [markdown]
# # The prior of a Bayesian autoencoder, chosen so that what it gives back is distributed as the data are
#
# An autoencoder gives back what it is shown, through a bottleneck. With few data one wants its weights drawn from a posterior,
# and then their prior matters. Nobody has beliefs about weights; but what a prior makes of data can be seen before anything is
# learned. The paper moves the prior until outputs of the network are distributed as its inputs are, by a distance that needs
# draws alone. Here it is an objective program, whose guide draws the directions in which both are looked at.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro import handlers
from numpyro.diagnostics import split_gelman_rubin
from numpyro.distributions import constraints
from scipy import stats

import ppvi
import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from gallery.evaluation import columns_of, mixture_score
from models.autoencoder_prior import SHAPES, model, outputs, reconstructed
from models.generated import curved

ENTRY = Entry(
    name="autoencoder_prior",
    system="Model Selection for Bayesian Autoencoders",
    family="Bayesian networks",
    engine="NumPyro",
    objective="a sliced Wasserstein distance, on the page",
    strategies="Reparam",
    shows="a prior tuned by what the network gives back, beside N(0, 1), with posteriors by NUTS",
    paper="Tran, Rossi, Milios, Michiardi, Bonilla and Filippone 2021",
    link="https://arxiv.org/abs/2106.06245",
)
SEEDS, STEPS, N, DRAWS = range(choose(1, 4)), choose(300, 1000), 12, choose(10, 150)

# %% [markdown]
# ## Model, guide, objective
# $$\frac{1}{D} E_{W, g \sim N(0, I)} W_2^2(g' f_W(x), g' x) \qquad
#   W_2^2(a, b) = \frac{1}{N} \sum_i (a_{(i)} - b_{(i)})^2$$
#
# In one direction the distance of two samples of equal size is that of their sorted values. Directions have any length: on the
# sphere the mean would be the same, since a length is a factor, whose mean square is D. The model draws weights of its own for
# each row, so that outputs are draws of the prior's distribution of them; its parameters are the prior's scales.


# %%
def directions(x):
    numpyro.sample("direction", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    return x


@ppvi.minimized
def sliced_wasserstein(p, q, slices=30):
    g = ppvi.replicate(slices, q.simulate)
    made, x = p.simulate().returned, g.returned[0]
    gap = jnp.sort(made @ g["direction"].T, 0) - jnp.sort(x @ g["direction"].T, 0)
    return (gap**2).mean() / x.shape[1]


show(model, outputs)

# %% [markdown]
# ## Where it is exact
# A linear network x -> W x with weights of N(0, s^2), in the plane, at rows of length one: outputs are N(0, s^2 I), and with
# n rows the objective is $s^2 - 2 c s + 1/2$, where c is the mean, over directions, of sorted data times what sorted normal
# values are in the mean. It is least at c. Between the data and N(0, s^2 I) itself, and not n draws of it, c has quantiles
# in place of sorted values, and is larger: few draws make the prior too narrow. The evidence of the same prior is known too.


# %%
def linear(x):
    s = numpyro.param("s", 1.0, constraint=constraints.positive)
    w = numpyro.sample("w", dist.Normal(0, s).expand((len(x), 2, 2)).to_event(3))
    return jnp.einsum("nij,nj->ni", w, x)


def fitted(bound, seed, x):
    rule = optax.adam(optax.cosine_decay_schedule(0.03, STEPS))
    return vi.fit(bound, jax.random.key(seed), x, num_steps=STEPS, optimizer=rule, progress=False).params


x, z = np.random.default_rng(0).normal(size=(N, 2)), np.linspace(-8, 8, 4001)
x = jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), jnp.float32)
ranks = np.arange(1, N + 1)[:, None]
normal = np.trapezoid(z * stats.beta.pdf(stats.norm.cdf(z), ranks, N + 1 - ranks) * stats.norm.pdf(z), z, axis=1)
angles = np.linspace(0, np.pi, 2001)[:-1]
c = float((normal[:, None] * np.sort(np.asarray(x) @ [np.cos(angles), np.sin(angles)], 0)).mean())
flat = vi.objective(sliced_wasserstein, linear, directions)
assert flat.prove(flat.init(jax.random.key(0), x), x).verdict == "proved"
keys = jax.random.split(jax.random.key(1), 2000)
values = jax.jit(jax.vmap(flat.estimate, (0, None, None)))(keys, {"s": 1.0}, x)
tuned = float(fitted(flat, 0, x)["s"])
cuts = stats.norm.pdf(stats.norm.ppf(np.arange(N + 1) / N))
of_all = float((N * -np.diff(cuts)[:, None] * np.sort(np.asarray(x) @ [np.cos(angles), np.sin(angles)], 0)).mean())
grid, noise = np.linspace(0.3, 1.5, 241), 0.1
grams = [s**2 * np.asarray(x @ x.T, np.float64) + noise**2 * np.eye(N) for s in grid]
evidence = [stats.multivariate_normal.logpdf(np.asarray(x).T, np.zeros(N), gram).sum() for gram in grams]
exact = {"tuned": tuned, "closed form": c, "of the distance": of_all, "of the evidence": grid[np.argmax(evidence)]}
print("scales", exact)

# %% [markdown]
# ## Fit, and what the posterior makes of it
# Twelve rows of six numbers from a curved surface with two dimensions, and noise. Three priors: N(0, 1) for all weights and
# biases; the same but N(0, 1 / inputs) for weights; and the one tuned on these rows, each counting ten times, with ten draws.
# NUTS draws weights and noise. The score is the mean log density of 300 new rows' numbers, as they are given back.


# %%
tuning = vi.objective(sliced_wasserstein, outputs, directions)
measured = jax.jit(jax.vmap(tuning.estimate, (0, None, None)))
PRIORS = {
    "N(0, 1)": dict.fromkeys(SHAPES, 1.0),
    "1 / inputs": {name: shape[0] ** -0.5 if len(shape) == 2 else 1.0 for name, shape in SHAPES.items()},
}


def run(seed):
    x, new = map(jnp.asarray, np.split(curved(N + 300, 2, outputs=6, noise=0.3, seed=seed), [N]))
    copies, key, found = jnp.tile(x, (10, 1)), jax.random.key(seed), {}
    learned = fitted(tuning, seed, copies)
    for name, sd in (PRIORS | {"tuned": {name: learned[f"{name}_sd"] for name in SHAPES}}).items():
        sd = {site: jnp.asarray(value, jnp.float32) for site, value in sd.items()}
        chains = vi.nuts(model, key, x, sd, num_warmup=200, num_samples=DRAWS, num_chains=2, progress=False)
        draws = {site: np.concatenate(chains["posterior"][site].values) for site in (*SHAPES, "log_noise")}
        back = np.asarray(given_back(draws, new)).reshape(2 * DRAWS, -1)
        predictions = list(zip(back, 0 * back, np.exp(draws["log_noise"]), strict=True))
        found[name] = mixture_score(predictions, np.ravel(new)) | {"noise": float(np.exp(draws["log_noise"]).mean())}
        found[name]["r_hat"] = float(np.median(split_gelman_rubin(back.reshape(2, DRAWS, -1))))
        at = {f"{site}_sd": value for site, value in sd.items()}
        found[name]["distance"] = float(measured(jax.random.split(key, 200), at, copies).mean())
    return found, (x, learned)


given_back = jax.jit(jax.vmap(reconstructed, (0, None)))
assert not FULL or tuning.prove(tuning.init(keys[0], jnp.ones((N, 6))), jnp.ones((N, 6))).verdict == "proved"
runs = [run(seed) for seed in SEEDS if FULL]
table = {name: columns_of([found[name] for found, _ in runs]) for name in (runs[0][0] if runs else ())}
scales = columns_of([{name: float(value) for name, value in learned.items()} for _, (_, learned) in runs])
for name, column in table.items():
    print(f"{name:12}", {what: said(values, 3) for what, values in column.items()})

# %%
if FULL:
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    (x, learned), many = runs[0][1], handlers.seed(outputs, jax.random.key(0))
    for axis, (name, at) in zip(axes, {"N(0, 1)": {}, "tuned": learned}.items(), strict=False):
        made = handlers.substitute(many, at)(jnp.tile(x, (25, 1)))
        axis.plot(*made[:, :2].T, ".", markersize=3, label="given back, prior")
        axis.plot(*x[:, :2].T, "k.", label="data")
        axis.set(title=name, xlabel="first number", ylabel="second", xlim=(-6, 6), ylim=(-6, 6))
    axes[0].legend()
    means, errors = np.transpose([mean_se(column["score"]) for column in table.values()])
    axes[2].errorbar(list(table), means, errors, fmt="o", capsize=3)
    axes[2].set(title="log score of new rows, NUTS")
    ENTRY.picture(figure)

# %% [markdown]
# ## What came out, what differs from the paper, what to change first
# The paper: where data are few, and priors matter, tuned autoencoders do better than several rivals. Here, four sets of twelve
# rows. The objective is 0.21 ± 0.03 at the tuned prior, 2.19 ± 0.06 at N(0, 1), 0.50 ± 0.02 at N(0, 1 / inputs). New rows have
# a log score of -0.40 ± 0.02 by the tuned prior's posterior and of -0.47 ± 0.02 by that of N(0, 1); set by set it is ahead by
# 0.064 ± 0.030, and so far the claim comes out. But N(0, 1 / inputs), which looks at no data, has -0.36 ± 0.01: it is ahead of
# N(0, 1) by 0.110 ± 0.008, and of the tuned prior by 0.046 ± 0.022, on three sets of four. So the prior whose outputs are
# nearest to the data need not be the best; both steps to and from the tuned one are barely beyond two standard errors.
#
# In the linear network the tuned scale is 0.592, with 0.583 known, and 0.628 of the distance itself; the evidence, with a noise
# of 0.1, is greatest at 0.705. To be distributed as the data are, and to make them likely, is not the same here. NUTS, two
# chains of 150 draws, warns that weights have not mixed; R-hat of what is given back is at most 1.002 in the median, its worst
# is not recorded. The paper has images, directions that tell most, and stochastic gradient Hamiltonian Monte Carlo; its
# authors' program tunes each weight's mean, too, from a trained network's, on data set apart. To change first: `N`.
#
# Tran, Rossi, Milios, Michiardi, Bonilla and Filippone, "Model selection for Bayesian autoencoders", NeurIPS 2021.

# %%
result = "log score of new rows: " + ", ".join(f"{name} {said(column['score'])}" for name, column in table.items())
ENTRY.record(result, seeds=SEEDS, steps=STEPS, table=table, scales=scales, exact=exact)
assert abs(mean_se(values)[0] - (1.5 - 2 * c)) < 5 * mean_se(values)[1]
assert abs(tuned - c) < 0.02 < of_all - c
if FULL:
    distance = {name: np.array(column["distance"]) for name, column in table.items()}
    assert all((distance["tuned"] < distance[name]).all() for name in PRIORS)
    for better, worse in (("tuned", "N(0, 1)"), ("1 / inputs", "tuned"), ("1 / inputs", "N(0, 1)")):
        ahead, error = mean_se(np.subtract(table[better]["score"], table[worse]["score"]))
        assert ahead > 2 * error, (better, worse)
