# %% [markdown]
# # Coresets: a Gaussian process that has seen observations nobody made
#
# A Gaussian process says of every point how much is known of a function there, at a cost that is cubic in the number of data.
# The usual remedy writes what is known as a Gaussian over the function's values at m inducing points, with a mean and a
# covariance matrix: some m (m + 1) / 2 numbers to learn, of which a likelihood and a prior know nothing. The coreset's
# posterior has 2 m instead. It is what the process itself would say after m made-up observations, each of which counts as
# many times as it has learned to: the prior's and the likelihood's structure is in it for nothing.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from numpyro import handlers

import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from gallery.evaluation import columns_of
from guides import gp as guides
from models import gp
from models.generated import smooth
from ppvi.objectives import analytic_elbo, elbo

ENTRY = Entry(
    name="tempered_coresets",
    system="A Coreset-based, Tempered Variational Posterior for Accurate and Scalable Stochastic Gaussian Process Inference",
    family="Gaussian processes",
    engine="NumPyro",
    objective="analytic_elbo",
    strategies="Reparam",
    shows="a guide that is a posterior, of made-up observations: fewer numbers than a covariance, beside the exact process",
    paper="Ketenci, Perotte, Elhadad and Urteaga 2023",
    link="https://arxiv.org/abs/2311.01409v1",
)
SEEDS, N, STEPS, BATCH = range(choose(1, 3)), choose(60, 600), choose(150, 2000), choose(60, 200)
FAMILIES = {"full": guides.full, "diagonal": guides.diagonal, "coreset": guides.coreset}
SIZES = choose([6], [10, 20, 40])

# %% [markdown]
# ## Model, guides, objective
#
# $$q(u) \propto p(u) \prod_j N(y_j; u_j, \text{noise}^2)^{w_j} \qquad
#   \text{ELBO} = \sum_i E_q \log N(y_i; f_i, \text{noise}^2) - KL(q(u) \,\|\, p(u))$$
#
# The powers $w_j$ are the paper's temperatures. In whitened values the coreset's posterior is one more Gaussian, so that three
# families share one guide; each value of the function is drawn by guide and model alike, and costs the bound nothing. Kernel,
# noise and places are parameters that model and guide both name.

# %%
show(gp.model, guides.observed, guides.coreset, guides.guide)


def bound_of(family, m):
    return vi.objective(analytic_elbo, partial(gp.model, m=m), partial(guides.guide, m=m, family=FAMILIES[family]))


def posterior(family, m, params):
    """The Gaussian, the process and the places that parameters say."""
    guide = partial(guides.guide, m=m, family=FAMILIES[family])
    return handlers.seed(handlers.substitute(guide, params), 0)(x[:1], y[:1])


def data(seed):
    x, y = map(jnp.asarray, smooth(N + choose(50, 500), seed=seed))
    return x[:N], y[:N], x[N:], y[N:]


x, y, new, answer = data(0)
bound = bound_of("coreset", SIZES[0])
start = bound.init(jax.random.key(0), x, y)
report = bound.prove(start, x, y, batch=BATCH)
print(report)
assert report.verdict == "proved"

# %% [markdown]
# ## Where it is exact
# With every datum in the coreset, as it is and counted once, the bound is the log evidence, and predictions are the exact
# process's. And at any places the largest bound is that of a Gaussian that is known (Titsias 2009): none is above it.

# %%
few = 30
process, places = gp.Process(jnp.array(1.0), jnp.ones(2), jnp.array(0.3)), x[:few]
all_seen = guides.observed(process, places, y[:few], jnp.ones(few))
evidence, mean, variance = gp.exact(process, x[:few], y[:few], new)
np.testing.assert_allclose(gp.bound(all_seen, process, places, x[:few], y[:few]), evidence, atol=0.05)
for ours, theirs in zip(gp.marginals(all_seen, process, places, new), (mean, variance), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=5e-3)
others = guides.observed(process, places, y[:few], 2 * jnp.ones(few))
assert gp.bound(others, process, places, x[:few], y[:few]) < evidence - 1

# The program's bound, in the mean of minibatches, is that in closed form:

key = jax.random.key(1)
each = jax.jit(partial(jax.lax.map, lambda key: bound.estimate(key, start, x, y, batch=20)))
mean, error = mean_se(each(jax.random.split(key, 500)))
assert abs(mean - gp.bound(*posterior("coreset", SIZES[0], start), x, y)) < 5 * error

# %% [markdown]
# ## Fit
# Adam on minibatches for 2,000 steps, kernel and noise learned with the rest. The reference is the exact process, whose log
# evidence is the same objective of a program without latent values, climbed for 150 steps. Bounds are in closed form, of all
# data; the log score is the mean log density of new outputs.


# %%
def fitted(bound, seed, *data, steps=STEPS, rate=0.03, **options):
    decay = optax.adam(optax.cosine_decay_schedule(rate, steps))
    return vi.fit(
        bound, jax.random.key(seed), *data, num_steps=steps, optimizer=decay, progress=False, **options
    ).params


def exactly(seed):
    process = gp.Process(**fitted(vi.objective(elbo, gp.whole, lambda x, y: None), seed, x, y, steps=150, rate=0.1))
    evidence, mean, variance = gp.exact(process, x, y, new)
    return {"bound": float(evidence), "score": float(gp.log_score(mean, variance, process.noise, answer))}


def scores(family, m, params):
    q, *rest = posterior(family, m, params)
    process = rest[0]
    return {
        "bound": float(gp.bound(q, *rest, x, y)),
        "best": float(gp.bound(gp.best(*rest, x, y), *rest, x, y)),
        "evidence": float(gp.exact(process, x, y, new)[0]),
        "score": float(gp.log_score(*gp.marginals(q, *rest, new), process.noise, answer)),
        "numbers": sum(np.count_nonzero(params[name]) for name in {"loc", "scale", "outputs", "weights"} & set(params)),
    }


runs = {"exact": []}
bounds = {(family, m): bound_of(family, m) for m in SIZES for family in FAMILIES if FULL or family == "coreset"}
for seed in SEEDS:
    x, y, new, answer = data(seed)
    if FULL:
        runs["exact"].append(exactly(seed))
    for (family, m), bound in bounds.items():
        found = scores(family, m, fitted(bound, seed, x, y, batch=BATCH))
        runs.setdefault(f"{family}, {m}", []).append(found)
columns = {name: columns_of(each) for name, each in runs.items() if each}
for name, column in columns.items():
    print(f"{name:13}", {what: said(values, 3) for what, values in column.items()})

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for axis, what in zip(axes, ("bound", "score"), strict=True):
    for k, family in enumerate(FAMILIES):
        names = [name for name in columns if name.startswith(family)]
        gaps = [np.subtract(columns[name][what], columns.get("exact", columns[name])[what]) for name in names]
        means, errors = np.transpose([mean_se(gap) for gap in gaps] or np.zeros((0, 2)))
        numbers = [columns[name]["numbers"][0] for name in names]
        axis.errorbar(numbers, means, np.nan_to_num(errors), fmt="o-", color=f"C{k}", label=family, capsize=3)
    axis.axhline(0, color="black", linewidth=1, linestyle=":")
    axis.set(xscale="log", xlabel="numbers that q has, beside the places", title=f"{what}, beside the exact process's")
    axis.set_ylabel("nats" if what == "bound" else "nats an output")
axes[0].legend(frameon=False)
ENTRY.picture(figure)

# %% [markdown]
# ## What came out, what differs from the paper, what to change first
# The paper: better bounds and errors than other stochastic processes, with fewer parameters. Here: functions of two inputs
# drawn from a process with a Matérn kernel, 600 noisy outputs, 500 new ones, 2,000 updates of 200, three seeds, each with data
# of its own. The exact log evidence is -257.7 ± 9.7. With 40 points the coreset's bound is 44 ± 6 nats below, with 80 numbers,
# the full Gaussian's 62 ± 9, with 860, the diagonal one's 70 ± 9, with 80 too. Seed by seed the coreset is above the full
# Gaussian by 18 ± 3 nats at 40 points and 10 ± 3 at 20, above the diagonal one by 25 ± 3 and 23 ± 3; with 10 points it is not
# told apart from either. New outputs at 40 points are 0.012 ± 0.002 nats each likelier than by the full one, and not told
# apart from the diagonal one's (0.006 ± 0.005); at 20 points it is the other way round (0.005 ± 0.007 and 0.014 ± 0.004).
#
# The full family has the coreset's Gaussians in it. That it is behind is a matter of steps: at its own kernel and places it is
# 4.1 ± 0.7 nats below the best Gaussian where the coreset is 1.0 ± 0.1 below, and it has found worse kernels and places.
#
# What to change first: `STEPS`; the likelihood of `gp.model`, where outputs are counts or classes.
#
# Ketenci, Perotte, Elhadad and Urteaga, "A coreset-based, tempered variational posterior for accurate and scalable stochastic
# Gaussian process inference", 2023; the second version has another title.

# %%
bounded = [column for name, column in columns.items() if name != "exact"]
assert all(np.all(np.array(column["bound"]) < np.array(column["best"]) + 0.05) for column in bounded)
assert all(np.all(np.array(column["best"]) < np.array(column["evidence"]) + 0.05) for column in bounded)
result = [f"{name} {said(column['bound'], 1)}" for name, column in columns.items() if name[-2:] in ("ct", "20")]
ENTRY.record(", ".join(result), seeds=SEEDS, steps=STEPS, columns=columns)
if FULL:
    for other in ("full, 20", "diagonal, 20", "full, 40", "diagonal, 40"):
        ahead, error = mean_se(np.subtract(columns[f"coreset, {other[-2:]}"]["bound"], columns[other]["bound"]))
        assert ahead > 2 * error, other
