# %% [markdown]
# # Variational importance sampling: a guide that is made for estimating the likelihood
#
# Parameters by maximum likelihood need the likelihood of data whose causes are hidden. The ELBO trades it for a bound; where
# the guide is simpler than the posterior, the parameters give way, and the model is bent until its posterior fits the guide.
# Variational importance sampling estimates the likelihood itself, by weighted draws, and trains the guide to be the proposal
# under which that varies least: the nearest in forward chi-square divergence, which covers the posterior.

# %%

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist

import ppvi
import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, said, show
from guides.forward_chi_square import normals, past
from models.forward_chi_square import MEANS, NEURONS, RECORDED, SHARE, bits, groups, mixture, neurons, spikes
from ppvi import Reinforce, objectives

ENTRY = Entry(
    name="forward_chi_square",
    system="Forward chi-square Divergence Based Variational Importance Sampling",
    family="importance sampling",
    engine="NumPyro",
    objective="forward_chi_square, iwelbo, elbo",
    strategies="Reparam, Reinforce",
    shows="maximum likelihood with guides that are too simple: a mixture seen through a bit, neurons of which some are hidden",
    paper="Li, Wang, Li and Wu 2024",
    link="https://arxiv.org/abs/2311.02516",
)
SEEDS, STEPS = range(choose(1, 2)), choose(500, 1000)
DATA, BATCH, DRAWS = choose((200, 50, 100), (1000, 100, 200))

# %% [markdown]
# ## The objective
# Two in turn. The model climbs $\log \frac{1}{K}\sum_k w_k$, the guide descends $\frac12 \log E_q[w^2]$ by
#
# $$-\tfrac12 \nabla_\phi \sum_k v_k \log q_\phi(z_k), \quad v_k = w_k^2 / \textstyle\sum_j w_j^2, \quad z_k \sim q$$
#
# where draws and weights are held constant, so that continuous and discrete causes are alike. The library has the pair as
# `variational_importance_sampling`, and its second part as `forward_chi_square`. The others move both programs by one bound.


# %%
def ways(particles, per, model, guide, strategies=None):
    """What is fitted: an objective, or pairs of an objective and whose parameters it moves."""

    def bound(program):
        return vi.objective(program, model, guide, strategies=strategies)

    pair = objectives.variational_importance_sampling(particles, per=per)
    return {
        "VIS": [(bound(program), whose) for program, whose in pair],
        "IWELBO": bound(objectives.iwelbo(particles, per=per)),
        "ELBO": bound(lambda p, q: ppvi.replicate(particles, lambda: objectives.elbo(p, q)).mean()),
    }


def tell(results, digits):
    for name, found in results.items():
        print(f"{name:8}", "   ".join(f"{what} {said(values, digits)}" for what, values in found.items()))


# %% [markdown]
# ## A mixture seen through a bit
# A place on a line is hidden, and known is a coin whose bias it sets: the posterior has two modes, the guide is one normal for
# heads and one for tails. All methods start at the same wrong groups.

# %%
show(mixture, normals)


def log_evidence(params, x):
    """Mean log p(x) of bits, by quadrature."""
    z = np.linspace(-25, 25, 5001)
    density = np.exp(np.asarray(groups(params["share"], params["means"]).log_prob(jnp.asarray(z))))
    heads = (density / (1 + np.exp(-z))).sum() * (z[1] - z[0])
    return float(x.mean() * np.log(heads) + (1 - x.mean()) * np.log(1 - heads))


of_mixture, learned = {}, {}
methods = ways(DRAWS, "data", mixture, normals)
for seed in SEEDS:
    _, x = bits(jax.random.key(seed), DATA)
    new_z, new_x = bits(jax.random.key(1000 + seed), 1000)
    for name, bounds in list(methods.items())[: choose(1, 3)]:
        fit = vi.fit(bounds, jax.random.key(seed), x, BATCH, num_steps=STEPS, optimizer=0.01, progress=False)
        learned[name], bit = fit.params, new_x.astype(int)
        q = dist.Normal(fit.params["loc"][bit], fit.params["scale"][bit])
        found = of_mixture.setdefault(name, {"log p(x)": [], "log q(true z)": [], "error of means": []})
        found["log p(x)"].append(log_evidence(fit.params, new_x))
        found["log q(true z)"].append(float(q.log_prob(new_z).mean()))
        found["error of means"].append(float(jnp.abs(fit.params["means"] - MEANS).mean()))
tell(of_mixture, 3)

# %% [markdown]
# ## Neurons of which some are hidden
# Five neurons excite and inhibit one another; the counts of three are recorded. The guide draws those of the other two from the
# past alone. Numbers of the hidden ones may be exchanged, so errors are of the better order.

# %%
show(neurons, past)
SEQUENCES, TIMES, MANY = choose((4, 5, 2), (40, 100, 30))


def batches(counts, seed):
    rng = np.random.default_rng(seed)
    while True:
        yield counts[rng.choice(SEQUENCES, SEQUENCES // 4, replace=False)]


def aligned(found, truth):
    """Couplings with the hidden neurons in the order that is nearer to the truth."""
    orders = [[0, 1, 2, *hidden] for hidden in ((3, 4), (4, 3))]
    return min((found[np.ix_(order, order)] for order in orders), key=lambda x: np.abs(x - truth).mean())


of_neurons, couplings = {}, {}
methods = ways(MANY, "sequences", neurons, past, {"hidden": Reinforce()})
evaluate = jax.jit(vi.objective(objectives.iwelbo(200, per="sequences"), neurons, past).estimate)
for seed in SEEDS:
    rng = np.random.default_rng(seed)
    truth, bias = 0.5 * rng.normal(size=(NEURONS, NEURONS)), 0.1 * rng.normal(size=NEURONS)
    if not FULL:
        hidden = {"hidden_couplings": truth[:, RECORDED:], "hidden_bias": bias[RECORDED:]}
        params = {"couplings": truth, "bias": bias, **hidden}
        guides_part, _ = methods["VIS"][1]
        assert guides_part.prove(params, jnp.ones((SEQUENCES, TIMES, RECORDED))).verdict == "proved"
        break
    counts = spikes(jax.random.key(seed), 2 * SEQUENCES, TIMES, truth, bias)[..., :RECORDED]
    for name, bounds in methods.items():
        stream = batches(counts[:SEQUENCES], seed)
        fit = vi.fit(bounds, jax.random.key(seed), batches=stream, num_steps=100, optimizer=0.03, progress=False)
        couplings[name] = aligned(np.asarray(fit.params["couplings"]), truth)
        found = of_neurons.setdefault(name, {"log p(x)": [], "error of couplings": []})
        found["log p(x)"].append(float(evaluate(jax.random.key(1), fit.params, counts[SEQUENCES:])) / SEQUENCES)
        found["error of couplings"].append(np.abs(couplings[name] - truth).mean())
tell(of_neurons, 2)

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
z = jnp.linspace(-13, 13, 600)
axes[0].fill_between(z, jnp.exp(groups(jnp.array(SHARE), MEANS).log_prob(z)), color="0.85", label="truth")
for name, p in learned.items():
    axes[0].plot(z, jnp.exp(groups(p["share"], p["means"]).log_prob(z)), label=name)
axes[0].set(xlabel="z", ylabel="density", title="groups, as they were learned")
axes[0].legend(frameon=False)
for name, found in couplings.items():
    axes[1].plot(truth.ravel(), found.ravel(), "o", markersize=4, label=name)
axes[1].axline((0, 0), slope=1, color="0.8")
axes[1].set(xlabel="true coupling", ylabel="learned coupling", title="neurons, last data set")
ENTRY.picture(figure)

# %% [markdown]
# ## What came out, what differs from the paper, what to change first
# The mixture's likelihood is the same for all: one bit does not tell the groups apart. But the ELBO has moved them to where
# its guide sits (error of means 2.60 ± 0.00), and its guide hardly knows of the true places (log q of them -7.8 ± 0.4, VIS
# -2.72 ± 0.02, IWELBO -2.88 ± 0.04). VIS has the guide that covers most, and not the best groups: 1.09 ± 0.00, where they
# began at 1.00, beside 0.54 ± 0.10 of IWELBO, which the paper has not. Of the neurons VIS has the highest likelihood of new
# sequences in both data sets, by 0.1 to 0.4 nats a sequence; errors of couplings are not told apart (0.25 ± 0.02, IWELBO 0.26
# ± 0.00, ELBO 0.25 ± 0.02).
#
# Here are two data sets of each kind. The paper has 200 epochs with 5,000 draws a datum for the mixture, 20 with 2,000 for the
# neurons, ten runs, couplings of 0.1 and not 0.5 in scale, and a window of five bins as history. The strategy of `hidden` is
# plain `Reinforce()`, as there; try `LeaveOneOut()`.
#
# Li, Wang, Li and Wu, "Forward chi-square divergence based variational importance sampling", ICLR 2024.

# %%
errors = {"means": of_mixture, "couplings": of_neurons}
ENTRY.record(
    "; ".join(
        f"error of {what}: " + ", ".join(f"{name} {said(found[f'error of {what}'])}" for name, found in results.items())
        for what, results in errors.items()
    ),
    seeds=SEEDS,
    steps=STEPS,
    mixture=of_mixture,
    neurons=of_neurons,
)
before = {"share": jnp.array(0.5), "means": jnp.array([-9.0, -1.0, 1.0, 9.0])}
assert of_mixture["VIS"]["log p(x)"][-1] > log_evidence(before, new_x)
if FULL:
    assert np.mean(of_mixture["VIS"]["error of means"]) < np.mean(of_mixture["ELBO"]["error of means"])
    assert all(
        np.mean(of_neurons["VIS"]["log p(x)"]) > np.mean(of_neurons[name]["log p(x)"]) for name in ("ELBO", "IWELBO")
    )
