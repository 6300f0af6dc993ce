# %% [markdown]
# # Foretelling a curve from those of its kind: a mixture of multi-task Gaussian processes
#
# A patient who has come three times, a young athlete after two seasons: what comes next? A Gaussian process fitted to these
# few points falls back on its prior mean soon after the last one. Others have been followed for longer, and there are kinds of
# them. The system learns what each kind has in common as a process of its own, with its uncertainty, and which task is of
# which kind; a new task is then foretold by a mixture of its possible kinds.

# %%
from functools import cache, partial
from itertools import product

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import logsumexp

import ppvi
import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from guides.gp_clusters import guide
from models.gp_clusters import ahead, alone, given_labels, learned_by, model, scores, tasks
from ppvi.objectives import elbo
from ppvi.optimizers import Natural

ENTRY = Entry(
    name="gp_clusters",
    system="Cluster-Specific Predictions with Multi-Task Gaussian Processes",
    family="Gaussian processes",
    engine="NumPyro",
    objective="its own: the ELBO in closed form",
    strategies="Enumerate, Reparam",
    shows="variational EM is natural gradients of size one in turn; kinds of functions, beside one kind and none",
    paper="Leroy, Latouche, Guedj and Gey 2023",
    link="https://www.jmlr.org/papers/v24/20-1321.html",
)
KINDS, TIMES, N, STEPS, STARTS = 3, choose(6, 20), 40, 150, 6
SEEDS, MEANS, LABELS = range(choose(1, 5)), ["loc", "scale"], ["logits"]
GRID, key = jnp.linspace(0, 10, TIMES), jax.random.key(0)

# %% [markdown]
# ## Model, guide, objective
#
# $$q(\text{mean}, \text{label}) = \prod_k N(\text{mean}_k; m_k, S_k) \prod_i \text{Categorical}(\text{label}_i; \tau_i)$$
#
# The log density is quadratic in the means. The expectation of a quadratic function is its mean over $2 G$ points, for $G$
# times: $m \pm \sqrt{G}\, s_j$ with the columns $s_j$ of Cholesky's factor. Labels are summed over: there is no noise.

# %%
show(model, guide)


def variational_em(p, q):
    z = q.simulate()
    loc, scale = z.returned
    columns = jnp.sqrt(TIMES) * jnp.moveaxis(scale, -1, 0)
    points = jnp.concatenate([loc + columns, loc - columns])
    expected = ppvi.each(lambda mean: p.log_density(dict(z) | {"mean": mean}), points).mean()
    entropy = dist.MultivariateNormal(loc, scale_tril=scale).entropy().sum()
    return expected + entropy - z.log_probs["label"].sum()


@cache
def bound_of(kinds):
    programs = (partial(program, kinds=kinds) for program in (model, guide))
    return vi.objective(variational_em, *programs, strategies={"label": ppvi.Enumerate()})


# %% [markdown]
# ## What is exact
# A step of a natural gradient, of size one, of means and then of labels, is a step of variational EM. Eight tasks of two kinds
# have 256 assignments, and given one of them all is Gaussian: the evidence and the posterior of labels are sums. The bound is
# below the evidence, and where it has made up its mind about labels it is the log density of outputs and these labels.


# %%
ASSIGNMENTS = jnp.array(list(product(range(2), repeat=8)))


@jax.jit
def densities_of(params, *data):
    """Log densities of outputs with each assignment."""
    return jax.lax.map(partial(given_labels, learned_by(params, 2), *data), ASSIGNMENTS)


def alike(labels):
    return labels[..., :, None] == labels[..., None, :]


def fitted(kinds, seed, *data, whose=(MEANS, LABELS), **options):
    """Of means, labels and hyperparameters those that are named, in turn."""
    natural = Natural(1.0, trust=None, decay=None)
    steps = [natural if names in (MEANS, LABELS) else 0.05 for names in whose]
    pairs = [(bound_of(kinds), names) for names in whose]
    return vi.fit(pairs, jax.random.key(seed), *data, optimizer=steps, progress=False, **options).params


small, gaps, off, sure = bound_of(2), [], [], []
for seed in SEEDS:
    few = tasks(8, 3, np.asarray(GRID), 2, seed)
    data = GRID, few.at, few.y
    at_first = small.init(key, *data)
    densities = np.asarray(densities_of(at_first, *data))
    if FULL:
        found = fitted(2, seed, *data, num_steps=50, num_starts=STARTS)
        gaps.append(float(logsumexp(densities) - small.estimate(key, found, *data)))
        q, pairs = np.asarray(jax.nn.softmax(found["logits"])), np.triu_indices(8, 1)
        exactly = np.tensordot(np.exp(densities - logsumexp(densities)), alike(ASSIGNMENTS), 1)[pairs]
        sure.append([np.abs(2 * x - 1).mean() for x in ((q @ q.T)[pairs], exactly)])
        off.append(np.abs((q @ q.T)[pairs] - exactly).mean())
        assert gaps[-1] > 0
        print(f"{said(gaps)} nats below the evidence; pairs {said(off, 3)} off; sureness {np.mean(sure, 0)}")
assert small.prove(at_first, *data).verdict == "proved"

given = at_first | {"logits": 40.0 * jax.nn.one_hot(ASSIGNMENTS[37], 2)}
given = fitted(2, 0, *data, whose=[MEANS], num_steps=1, params=given)
as_given = float(jax.jit(small.estimate)(key, given, *data)) - densities[37]

# %% [markdown]
# ## Fit, and foretell
# Forty tasks of three kinds, each seen at eight of twenty times. New ones are seen at the first seven times, and foretold at
# the others. Beside it are one kind, which is the authors' Magma of 2022, and each task by itself, with a process that all
# share and no mean. All learn their hyperparameters, and start at those of the data. The fit of kinds is told
# that there are three; of six starts it has the best bound.

# %%
HYPER = ["common_variance", "common_lengthscale", "own_variance", "own_lengthscale", "own_noise"]
by_itself = vi.objective(elbo, alone, lambda *data: None)
columns, rand = {}, []
for seed in SEEDS if FULL else ():
    train, test = tasks(N, 8, np.asarray(GRID), KINDS, seed), tasks(100, 7, np.asarray(GRID), KINDS, seed, mixed=False)
    data, later = (GRID, train.at, train.y), jnp.asarray(test.whole[:, 7:])
    whose, options = (MEANS, LABELS, ["share", *HYPER]), {"num_steps": STEPS, "num_starts": STARTS}
    fits = {
        "kinds": (KINDS, fitted(KINDS, seed, *data, whose=whose, **options)),
        "one kind": (1, fitted(1, seed, *data, whose=(MEANS, LABELS, HYPER), num_steps=STEPS)),
        "alone": (0, vi.fit(by_itself, key, *data, num_steps=STEPS, optimizer=0.05, progress=False).params),
    }
    for name, (kinds, params) in fits.items():
        for what, value in scores(ahead(params, kinds, GRID, test.y), later).items():
            columns.setdefault(name, {}).setdefault(what, []).append(value)
    right = alike(fits["kinds"][1]["logits"].argmax(1)) == alike(train.label)
    rand.append(float(right[np.triu_indices(N, 1)].mean()))
for name, column in columns.items():
    print(f"{name:10}", {what: said(values, 3) for what, values in column.items()})
print(f"pairs of tasks that are rightly together or apart: {said(rand or [0], 3)}")

# %%
if FULL:
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained", sharey=True)
    one = int(np.argmax(np.ptp(test.whole, axis=1)))
    for axis, (name, (kinds, params)) in zip(axes, reversed(fits.items()), strict=True):
        weight, mean, sd = (np.asarray(x) for x in ahead(params, kinds, GRID, test.y[one : one + 1]))
        axis.plot(GRID[:7], test.y[one], "ko", label="seen")
        axis.plot(GRID[7:], test.whole[one, 7:], "kx", label="later")
        for k, share in enumerate(np.exp(weight[0])):
            low, high = mean[0, k] - 2 * sd[k], mean[0, k] + 2 * sd[k]
            axis.plot(GRID[7:], mean[0, k], color=f"C{k}", alpha=max(float(share), 0.1))
            axis.fill_between(GRID[7:], low, high, color=f"C{k}", alpha=0.3 * share, label=f"{share:.2f}")
        axis.set(title=name, xlabel="time")
        axis.legend(frameon=False, fontsize=8)
    ENTRY.picture(figure)

# %% [markdown]
# ## What came out, what differs from the paper, what to change first
# The paper: kinds are found, and curves foretold better than by one mean and by single processes. Here: five sets of data
# drawn from the model, 100 new tasks each. The root mean squared error of later outputs is 0.96 ± 0.05, with one kind 1.68 ±
# 0.13, alone 1.83 ± 0.10; set by set less by 0.72 ± 0.13 and 0.87 ± 0.09, and an output is likelier by 0.60 ± 0.11 and 0.69 ±
# 0.07 nats. Of pairs of tasks 0.95 ± 0.03 are rightly together or apart. The picture: the last set's new task of widest range.
#
# Beside the exact answer, of eight tasks: the bound is 0.84 ± 0.11 nats below the evidence. log 2 = 0.69 of it is which kind
# is called the first: the posterior leaves that open, and q cannot. That two tasks are of one kind has a probability that is
# 0.03 ± 0.02 off in the mean. Where labels are open, q can be too sure, as independent labels and means are: in the second set
# |2 p - 1| is 0.98 in the mean over pairs, and exactly 0.73; over all sets the two are not told apart (0.06 ± 0.05).
#
# The authors have closed forms for shares; here Adam moves them. What to change first: the kinds of the fit, the times seen.
#
# Leroy, Latouche, Guedj and Gey, "Cluster-specific predictions with multi-task Gaussian processes", JMLR 24 (2023).

# %%
result = ", ".join(f"{name} {said(column['error'], 2)}" for name, column in columns.items())
result = f"error of what is foretold: {result}; pairs of tasks told rightly {said(rand or [0], 2)}"
ENTRY.record(result, seeds=SEEDS, steps=STEPS, columns=columns, rand=rand, gaps=gaps, off=off, sure=sure)
assert abs(as_given) < 0.02
if FULL:
    for other, (what, sign) in product(("one kind", "alone"), (("error", 1), ("score", -1))):
        ahead_by, error = mean_se(sign * np.subtract(columns[other][what], columns["kinds"][what]))
        assert ahead_by > 2 * error, (other, what)
