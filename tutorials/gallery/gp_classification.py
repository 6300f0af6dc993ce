# %% [markdown]
# # Learning the hyperparameters of a Gaussian process by another objective than its posterior's
#
# A process behind labels of two classes has hyperparameters: how large the function is, how quickly it changes. They are
# learned by climbing the evidence, or in its place the evidence lower bound. This is a good objective for the posterior, and a
# biased one for hyperparameters: it is looser where the function is large, and pulls it down. The paper keeps the bound's
# posterior, and learns hyperparameters by an estimate of the evidence as expectation propagation would make it.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.infer.reparam import TransformReparam

import ppvi
import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from gallery.evaluation import columns_of, drawn_of_grid, worst_marginals
from guides.gp_classification import NODES, WEIGHTS, conjugate, guide, predicted, start
from models import gp
from models.gp_classification import drawn, labels, log_prior, model, process
from ppvi.objectives import iwelbo
from ppvi.optimizers import Natural

ENTRY = Entry(
    name="gp_classification",
    system="Improving Hyperparameter Learning under Approximate Inference in Gaussian Process Models",
    family="Gaussian processes",
    engine="NumPyro",
    objective="ELBO for the posterior; an estimate of the evidence for hyperparameters, on the page",
    strategies="Reparam",
    shows="one objective for the posterior and another for hyperparameters, in turn, beside NUTS",
    paper="Li, John and Solin 2023",
    link="https://arxiv.org/abs/2306.04201",
)
SEEDS, N, STEPS = range(choose(1, 5)), choose(12, 40), choose(40, 150)
SITES, HYPER = ["slope", "weight"], ["log_sd", "log_lengthscale"]

# %% [markdown]
# ## Model, guide, and two objectives that differ in one word
#
# The guide puts a Gaussian $t_i$ in place of each label's likelihood, and $q \propto p(f) \prod_i t_i(f_i)$. With $Z_t$ for
# the integral of this,
#
# $$\text{ELBO} = \log Z_t + \sum_i E_{q_i} \log \frac{p(y_i | f_i)}{t_i(f_i)} \qquad
#   \log Z_{EP} = \log Z_t + \sum_i \log E_{q_i} \frac{p(y_i | f_i)}{t_i(f_i)}$$
#
# The second is what expectation propagation says of the evidence, cavities and all: a cavity is $q_i / t_i$. $\log Z_t$ is
# $\log p(f) + \sum_i \log t_i(f_i) - \log q(f)$ at any $f$, so that one draw tells it; expectations of one value are sums of 32
# terms. Neither program has noise.

# %%
show(model, guide, conjugate)


def averaged(average):
    def objective(p, q):
        f = q.simulate()
        mean, sd, site = f.returned
        logs = p.log_probs(f)
        whole = logs["prior"] + logs["f"] + site(f["f"]).sum() - f.log_density
        ratio = ppvi.each(lambda t: p.log_probs({"f": mean + sd * t})["y"] - site(mean + sd * t), NODES)
        return whole + average(ratio).sum()

    return objective


elbo = vi.objective(averaged(lambda ratio: WEIGHTS @ ratio), model, guide)
ep_like = vi.objective(averaged(lambda ratio: logsumexp(ratio, axis=0, b=WEIGHTS[:, None])), model, guide)
(x, y, _), key = labels(N), jax.random.key(0)
at_first = elbo.init(key, x, y)
assert all(bound.prove(at_first, x, y).verdict == "proved" for bound in (elbo, ep_like))

# %% [markdown]
# ## What is exact
# Of a single label the evidence is 1/2 whatever the hyperparameters, and the estimate is exact with any site, as the cavity is
# the prior; the bound is below it. And a natural step of half the way is, of sites, `conjugate`, which is how the field has it.


# %%
values = {"log_sd": jnp.array(1.5), "log_lengthscale": jnp.array(-0.5)}
one = dict(zip(SITES, start(y[:1]), strict=True)) | values, x[:1], y[:1]
lower, estimate = jax.jit(lambda one: [bound.estimate(key, *one) - log_prior(values) for bound in (elbo, ep_like)])(one)
assert lower < estimate - 0.1


def fitted(bound, x, y, steps=STEPS):
    """Sites by natural gradients of the bound, hyperparameters by Adam on an objective of their own, in turn."""
    pairs, rates = [(elbo, SITES), (bound, HYPER)], [Natural(0.5, trust=None, decay=None, damping=1e-4), 0.05]
    return vi.fit(pairs, key, x, y, num_steps=steps, optimizer=rates, progress=False).params


if FULL:
    once, by_hand = fitted(ep_like, x, y, 1), conjugate(gp.factor(process(at_first), x), y, start(y))
    np.testing.assert_allclose([once[name] for name in SITES], by_hand, atol=2e-3)

# %% [markdown]
# ## Both objectives as posteriors of hyperparameters
# Times the prior, on a grid, with the bound's best sites at each point: what the objectives say of hyperparameters. A third
# surface is the evidence by importance sampling from q, of thousands of draws. NUTS, which draws hyperparameters and function,
# says for one set of data whether that is to be believed; for the others it is the reference.


# %%
AXES = dict(zip(HYPER, np.meshgrid(*(np.linspace(*ends, choose(5, 25)) for ends in ((-2, 4.5), (-3, 3)))), strict=True))
LEARNING, sampled = {"ELBO": elbo, "EP-like": ep_like}, vi.objective(iwelbo(choose(300, 4000)), model, guide)


@jax.jit
def surfaces(x, y):
    def at(values):
        step = partial(conjugate, gp.factor(process(values), x), y)
        sites = jax.lax.fori_loop(0, choose(30, 60), lambda _, sites: step(sites), start(y))
        params = dict(zip(SITES, sites, strict=True)) | values
        return {name: bound.estimate(key, params, x, y) for name, bound in (LEARNING | {"evidence": sampled}).items()}

    return jax.lax.map(at, {name: jnp.asarray(values.ravel(), jnp.float32) for name, values in AXES.items()})


far, far_from_nuts, columns = [], {}, {name: [] for name in LEARNING}
for seed in SEEDS:
    x, y, true = labels(N + 500, seed=seed)
    (x, new), y, true = jnp.split(x, [N]), y[:N], true[N:]
    found = {name: np.asarray(surface) for name, surface in surfaces(x, y).items()}
    assert (found["ELBO"] < found["evidence"] + 0.01).all()
    gaps = {name: np.abs(found[name] - found["evidence"]).mean() for name in LEARNING}
    assert gaps["EP-like"] < gaps["ELBO"], gaps
    if not FULL:
        break
    posteriors = {name: drawn_of_grid(surface, AXES, seed) for name, surface in found.items()}
    far.append(worst_marginals({name: posteriors[name] for name in LEARNING}, posteriors["evidence"], HYPER))
    fits = {name: fitted(bound, x, y) for name, bound in LEARNING.items()}
    if seed == SEEDS[0]:
        white = handlers.reparam(partial(model, hyper=drawn), config={"f": TransformReparam()})
        options = {"num_chains": 2, "num_samples": 1500, "target_accept_prob": 0.95, "progress": False}
        reference = vi.nuts(white, jax.random.key(seed), x, y, **options)
        far_from_nuts, pictured = worst_marginals(posteriors, reference, HYPER), (found, fits)
    for name, params in fits.items():
        height = float(sampled.estimate(key, params, x, y)) - found["evidence"].max()
        chance = np.clip(predicted(params, x, new), 1e-6, 1 - 1e-6)
        score = float(np.mean(true * np.log(chance) + (1 - true) * np.log(1 - chance)))
        columns[name].append({"log sd": params["log_sd"], "gap": gaps[name], "height": height, "score": score})
far, columns = columns_of(far), {name: columns_of(rows) for name, rows in columns.items()}
for name, column in columns.items() if FULL else ():
    print(f"{name:8} {said(far[name], 3)} sds", {what: said(values, 3) for what, values in column.items()})

# %%
if FULL:
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained", sharey=True)
    for axis, (name, surface) in zip(axes, pictured[0].items(), strict=True):
        surface = (surface - surface.max()).reshape(AXES["log_sd"].shape)
        axis.contourf(*AXES.values(), surface, np.arange(-6, 0.5, 0.5), cmap="Blues")
        axis.plot(*(reference["posterior"][what].values[0, ::10] for what in HYPER), "k.", markersize=2)
        for (fit, params), marker in zip(pictured[1].items(), "os", strict=True):
            axis.plot(*(params[what] for what in HYPER), marker, color="tab:orange", label=f"learned by {fit}")
        axis.set(title=name, xlabel="log sd", ylabel="log lengthscale", xlim=(-1, 4.5), ylim=(-1.5, 3))
    axes[0].legend(loc="lower right")
    ENTRY.picture(figure)

# %% [markdown]
# ## What came out, what differs from the paper, what to change first
# The paper: on a wide range of data sets the estimate is the better objective for hyperparameters, and predictions are better.
# Here: five sets of 40 labels of two inputs, drawn from the process, and a prior of hyperparameters, so that there is a
# posterior to be compared with. The NUTS run on the first set and the sampled evidence agree (0.04 standard deviations in the
# worse of both marginals), where the estimate is at 0.14 and the bound at 0.24. Over all sets the estimate's posterior of
# hyperparameters is 0.12 ± 0.02 standard deviations from the evidence's, the bound's 0.36 ± 0.03; set by set it is nearer by
# 0.24 ± 0.04. Over the grid the estimate is 0.39 ± 0.03 nats off in the mean, the bound 1.98 ± 0.04. The estimate learns
# larger functions, log sd 0.117 ± 0.012 above the bound's, at which the evidence, with the prior, is 0.071 ± 0.017 nats
# higher. In predictions of new labels the two are not told apart (0.0002 ± 0.0011 nats a label).
#
# The picture is of the first set; dots are draws of NUTS. The estimate is no bound: it is never below the ELBO, by Jensen's
# inequality, and may be above the evidence. Its ripples are where functions are very large: there half steps end in turning
# between two sets of sites. What to change first: the likelihood of `model`; the size of the functions, `labels(sd=...)`.
#
# Li, John and Solin, "Improving hyperparameter learning under approximate inference in Gaussian process models", ICML 2023.

# %%
result = ", ".join(f"{name} {said(values, 2)}" for name, values in far.items())
result = f"hyperparameters' posterior, sds from the evidence's: {result}"
ENTRY.record(result, seeds=SEEDS, steps=STEPS, far=far, far_from_nuts=far_from_nuts, columns=columns)
assert abs(estimate - np.log(0.5)) < 1e-4
if FULL:
    heights = (columns[name]["height"] for name in LEARNING)
    for ahead, error in (mean_se(np.subtract(far["ELBO"], far["EP-like"])), mean_se(-np.subtract(*heights))):
        assert ahead > 2 * error
