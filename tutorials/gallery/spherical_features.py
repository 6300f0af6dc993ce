# %% [markdown]
# # Spherical features: what neurons know of a Gaussian process, and what they are blind to
#
# A sparse Gaussian process knows a function's values at some inducing points, each of which says something of its own
# neighbourhood alone. A neuron says something everywhere. On a sphere a neuron's output can be an inducing value, too: then the
# mean of the posterior is a network with one hidden layer, and the variance comes with it. But neurons have a spectrum of their
# own, and of what it lacks they know nothing however many there are. Two orthogonal parts mend this: neurons say what they can,
# and inducing points what is left of the process after them.

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
from guides.spherical_features import guide
from models import gp, spherical_features as spherical
from ppvi.objectives import analytic_elbo

ENTRY = Entry(
    name="spherical_features",
    system="Spherical Inducing Features for Orthogonally-Decoupled Gaussian Processes",
    family="Gaussian processes",
    engine="NumPyro",
    objective="analytic_elbo",
    strategies="Reparam",
    shows="neurons as inducing values, blind to some harmonics, and orthogonal points that see them, beside the exact process",
    paper="Tiao, Dutordoir and Picheny 2023",
    link="https://arxiv.org/abs/2304.14034",
)
SEEDS, N, NEW, STEPS = range(choose(1, 3)), choose(50, 300), choose(40, 200), choose(60, 600)
PROCESS, M = gp.Process(1.0, 1.0, 0.3), choose(6, 30)
WAYS = {
    "points": (spherical.points, M, 0),
    "points, then points": (spherical.points, M // 2, M // 2),
    "neurons": (spherical.neurons, M, 0),
    "neurons, then points": (spherical.neurons, M // 2, M // 2),
}

# %% [markdown]
# ## Model, guide, objective
#
# $$f = k_u(x)^\top K_u^{-1} u + h, \quad h \sim GP(0,\; k - k_u^\top K_u^{-1} k_u) \qquad q(u)\, q(v)$$
#
# $u$ are values at points or at neurons, $v$ those of $h$ at other points. They are independent in the prior, and in the guide,
# where that is an approximation; factors of two small matrices are cheaper than of a large one. All four ways below are one
# program. Kernel and noise are known here, those that made the data.

# %%
show(spherical.parts, spherical.neurons, spherical.model, guide)


def programs(way):
    kind, m, k = WAYS[way]
    return (partial(program, process=PROCESS, kind=kind, m=m, k=k) for program in (spherical.model, guide))


x, y = spherical.drawn(N + NEW, 2, PROCESS)
x, y, new, answer = x[:N], y[:N], x[N:], y[N:]
bounds = {way: vi.objective(analytic_elbo, *programs(way)) for way in WAYS}
bound = bounds["neurons, then points"]
start = bound.init(jax.random.key(0), x, y)
report = bound.prove(start, x, y)
print(report)
assert report.verdict == "proved"

# %% [markdown]
# ## Where it is exact
# As many neurons as there are harmonics on the first three levels span these levels: what they explain of the process is its
# covariance, cut off there.

# %%
levels, some = 3, x[:30]
kernel = spherical.coefficients(spherical.kernel_of(PROCESS), 3)
many = spherical.harmonics(3)
directions = spherical.unit(jnp.asarray(np.random.default_rng(0).normal(size=(int(many[:levels].sum()), 3))))
known = jax.jit(lambda x: spherical.parts(PROCESS, x, spherical.neurons(PROCESS, directions, levels=levels), None)[0])
a = known(some)
cut = np.tensordot((many * kernel)[:levels], spherical.legendre(np.asarray(some @ some.T, np.float64), 3, levels), 1)
np.testing.assert_allclose(a @ a.T, cut, atol=0.02)

# With the data as orthogonal points nothing is left, and the best Gaussian's bound is the log evidence:


@jax.jit
def largest(x, y):
    return spherical.best(spherical.parts(PROCESS, x, spherical.neurons(PROCESS, directions[:5]), x), PROCESS, y)


np.testing.assert_allclose(largest(some, y[:30]), gp.exact(PROCESS, some, y[:30], new)[0], atol=0.1)

# The neuron is softplus. On odd levels above the first it has nothing, and the process has something:

share = many * kernel / PROCESS.variance
blind = np.abs(spherical.coefficients(spherical.softplus, 3)) < 1e-9
print("share of the variance, by level:", share.round(3), "neurons see:", ~blind)
assert blind.tolist() == [n > 1 and n % 2 == 1 for n in range(spherical.LEVELS)]

# %% [markdown]
# ## Fit
# The same number of inducing values each way: all of them points, all neurons, or half and half in two orthogonal parts.
# Directions and places are learned. The bound that is kept is in closed form; `best` is that of the best Gaussian on all the
# values together (Titsias 2009), at the same directions and places. The reference is the exact process.


# %%
@partial(jax.jit, static_argnames="way")
def measured(way, params, x, y, new, answer):
    q, parts = handlers.seed(handlers.substitute(bounds[way].guide, params), 0)(x, y)
    return {
        "bound": spherical.bound(q, parts(x), PROCESS, y),
        "best": spherical.best(parts(x), PROCESS, y),
        "score": gp.log_score(*spherical.moments(q, parts(new)), PROCESS.noise, answer),
        "left": parts(x)[-1].mean(),
    }


found = {"exact": [], **{way: [] for way in choose(["neurons, then points"], WAYS)}}
for seed in SEEDS:
    x, y = spherical.drawn(N + NEW, 2, PROCESS, seed)
    x, y, new, answer = x[:N], y[:N], x[N:], y[N:]
    evidence, mean, variance = gp.exact(PROCESS, x, y, new)
    found["exact"].append({"bound": evidence, "score": gp.log_score(mean, variance, PROCESS.noise, answer)})
    for way in list(found)[1:]:
        decay = optax.adam(optax.cosine_decay_schedule(0.03, STEPS))
        fit = vi.fit(bounds[way], jax.random.key(seed), x, y, num_steps=STEPS, optimizer=decay, progress=False)
        found[way].append(measured(way, fit.params, x, y, new, answer))
columns = {way: {what: np.array(x, float) for what, x in columns_of(runs).items()} for way, runs in found.items()}
for way, column in columns.items():
    print(f"{way:21}", {what: said(values, 3) for what, values in column.items()})

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
axes[0].bar(range(len(share)), share, color=["tab:grey" if unseen else "tab:blue" for unseen in blind])
axes[0].set(xlabel="level (grey: the neurons are blind)", title="the process's variance by level")
names = list(columns)[1:]
for axis, what in zip(axes[1:], ("bound", "score"), strict=True):
    gaps = [mean_se(columns["exact"][what] - columns[way][what]) for way in names]
    means, errors = np.transpose(gaps)
    axis.errorbar(means, range(len(names)), xerr=np.nan_to_num(errors), fmt="o", capsize=3)
    axis.set(yticks=range(len(names)), yticklabels=names if what == "bound" else [])
    axis.set(title={"bound": "bound", "score": "log score"}[what], xlabel="nats below the exact process")
    axis.invert_yaxis()
ENTRY.picture(figure)

# %% [markdown]
# ## What came out, what differs from the paper, what to change first
# The paper: orthogonal points make up for what neurons lack, at less cost than more neurons or levels, and such features do
# as well as other sparse processes or better. Here: functions of two inputs drawn from a process with a Matérn kernel of
# order 3/2 of the chord, 300 outputs, 200 new ones, 30 inducing values, 600 steps, three seeds, each with data of its own.
# That they make up for it comes out, cost is not measured, and in the bound the rest does not. 30 neurons leave 0.105 ± 0.001
# of the process's variance of 1 unexplained: 0.087 is on levels that they are blind to, 0.010 above the eight levels that are
# kept. Their bound is 198 ± 3 nats below the log evidence. 15 neurons and 15 orthogonal points leave 0.018 ± 0.001, and are
# 62 ± 3 below. But 30 points leave 0.009, and are 35 ± 1 below: seed by seed neurons and points are 135 ± 5 nats above
# neurons, and 28 ± 2 below points, 21 ± 2 below points in two parts. New outputs are 0.072 ± 0.007 nats each likelier than by
# neurons, less likely by 0.016 ± 0.002 than by points in two parts, and not told apart from points (0.000 ± 0.010).
#
# The best Gaussian at the same places would gain 21 nats on points, where the fit alone is to blame, and 30 and 32 where
# there are two parts, for short fits or for two Gaussians in place of one: this run does not tell. Best beside best, neurons
# and points are still 16 ± 1 nats below points. A guess: a function from a Matérn kernel of two inputs is a matter of
# neighbourhoods, for which points were made. The paper's data are benchmarks with more inputs, and its kernels are learned.
# What to change first: `spherical.softplus`, with a bias; the number of inputs; `STEPS`.
#
# Tiao, Dutordoir and Picheny, "Spherical inducing features for orthogonally-decoupled Gaussian processes", ICML 2023.

# %%
for way in names:
    assert np.all(columns[way]["bound"] < columns[way]["best"] + 0.05), way
    assert np.all(columns[way]["best"] < columns["exact"]["bound"] + 0.05), way
assert np.all(columns["neurons, then points"]["left"] < choose(0.3, share[blind].sum()) * PROCESS.variance)
ENTRY.record(
    "; ".join(f"{way} {said(columns['exact']['bound'] - columns[way]['bound'], 1)}" for way in names) + " nats below",
    seeds=SEEDS,
    steps=STEPS,
    columns=columns,
    share=share,
)
if FULL:
    behind, error = mean_se(columns["points"]["bound"] - columns["neurons, then points"]["bound"])
    assert behind > 2 * error
    for what in ("bound", "best", "score"):
        ahead, error = mean_se(columns["neurons, then points"][what] - columns["neurons"][what])
        assert ahead > 2 * error, what
