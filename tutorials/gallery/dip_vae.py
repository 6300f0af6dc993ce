# %% [markdown]
# # DIP-VAE: latent dimensions that vary by themselves
#
# A picture of an ellipse is made of four numbers: where it is, how large, how it lies. An autoencoder that has never been told
# so may still find them, one to a dimension of its latent space; then one can be changed and the others kept. If the factors
# are independent in the world, dimensions that stand for them must be uncorrelated over all pictures together. The beta-VAE
# comes near to that by saying less of every picture. DIP-VAE asks for it and nothing else: it adds to the bound what the
# covariance of the *aggregated* posterior lacks of the identity.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ppvi
import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from gallery.evaluation import columns_of, mig, mutual_informations, sap
from guides.vae import encode, guide
from models.generated import FACTORS, ellipses
from models.networks import perceptron
from models.vae import model
from ppvi.objectives import beta_elbo, elbo

ENTRY = Entry(
    name="dip_vae",
    system="Variational Inference of Disentangled Latent Concepts from Unlabeled Observations",
    family="autoencoders",
    engine="NumPyro",
    objective="elbo - what the aggregate's covariance lacks of the identity, on the page",
    strategies="Reparam",
    shows="factors of pictures, one to a latent dimension: beside the VAE and the beta-VAE, at which price",
    paper="Kumar, Sattigeri and Balakrishnan 2018",
    link="https://arxiv.org/abs/1711.00848",
)
SEEDS, STEPS, BATCH, LATENT = range(choose(1, 5)), choose(100, 5000), 100, 6
x, new = jnp.asarray(ellipses(choose(500, 10_000))[0]), ellipses(2000, seed=1)
widths = {"latent": LATENT, "hidden": (100, 100)}
model, guide = partial(model, **widths), partial(guide, **widths)
show(model.func, guide.func)

# %% [markdown]
# ## The objective
#
# $$\text{ELBO} - \lambda_{od} \sum_{i \ne j} C_{ij}^2 - \lambda_d \sum_i (C_{ii} - 1)^2$$
#
# In DIP-VAE-I, $C = \text{Cov}_x[\mu(x)]$ is the covariance of what the encoder says of pictures; in DIP-VAE-II it is that of
# draws, $C = \text{Cov}_x[\mu(x)] + E_x[\text{diag}\,\sigma^2(x)]$. The guide returns $\mu$ and $\sigma$, which the objective
# finds in `z.returned`. As in the paper, $C$ is that of a minibatch, and its square is larger in the mean than the square for
# all pictures by what the minibatch's covariance varies: a gradient without bias, of a penalty that is a little too large.


# %%
def covariance(loc, scale, draws):
    apart = loc - loc.mean(0)
    return apart.T @ apart / (len(loc) - 1) + draws * jnp.diag((scale**2).mean(0))


def lack(c, off_diagonal, diagonal):
    of = jnp.diagonal(c)
    return off_diagonal * ((c**2).sum() - (of**2).sum()) + diagonal * ((of - 1) ** 2).sum()


def dip_vae(off_diagonal, diagonal, draws):
    def bound(p, q):
        z = q.simulate()
        each = p.log_density(z, per="images") - z.per("images")
        return ppvi.total(each - lack(covariance(*z.returned, draws), off_diagonal, diagonal), per="images")

    return bound


OBJECTIVES = {
    "VAE": elbo,
    "beta-VAE": beta_elbo(4.0),
    "DIP-VAE-I": dip_vae(10.0, 100.0, draws=False),
    "DIP-VAE-II": dip_vae(10.0, 10.0, draws=True),
}
bounds = {name: vi.objective(program, model, guide) for name, program in OBJECTIVES.items()}
start = bounds["VAE"].init(jax.random.key(0), x, batch=BATCH)
print(bounds["DIP-VAE-II"].explain(start, x, batch=BATCH))
assert bounds["DIP-VAE-II"].prove(start, x, batch=BATCH).verdict == "proved"

# %% [markdown]
# Without weights it is the ELBO, draw for draw. With them it lacks what a sum over pairs of dimensions says by `np.cov`, here
# of all rows of a small set. And measures of disentanglement have to know the truth when they see it: SAP and MIG of the
# factors themselves are 1, but for what is by chance; turned by 45 degrees in pairs they are 0.

# %%
rows = x[:BATCH]
plain, without, weighed = (
    vi.objective(program, model, guide).estimate(jax.random.key(1), start, rows)
    for program in (elbo, dip_vae(0.0, 0.0, True), dip_vae(50.0, 10.0, True))
)
loc, scale = map(np.asarray, encode(start["encoder"], rows))
cov = np.cov(loc, rowvar=False)
off = sum(cov[i, j] ** 2 for i in range(LATENT) for j in range(LATENT) if i != j)
on = sum((cov[i, i] + (scale[:, i] ** 2).mean() - 1) ** 2 for i in range(LATENT))
np.testing.assert_allclose(without, plain, rtol=1e-6)
np.testing.assert_allclose((plain - weighed) / BATCH, 50 * off + 10 * on, rtol=1e-3)
factors = new[1] / new[1].std(0)
turned = np.hstack([factors[:, i::2] @ [[1, 1], [-1, 1]] for i in range(2)])
assert min(measure(factors, factors) for measure in (mig, sap)) > 0.9
assert max(measure(turned, factors) for measure in (mig, sap)) < 0.1

# %% [markdown]
# ## Fit
# `lack` is what the covariance of draws lacks over test pictures, `reconstruction` the log density of one given its own draw.


# %%
@jax.jit
def reconstruction(key, params, x):
    loc, scale = encode(params["encoder"], x)
    logits = perceptron(params["decoder"], loc + scale * jax.random.normal(key, loc.shape))
    return (x * logits - jax.nn.softplus(logits)).sum(-1).mean()


def measures(params):
    codes, scales = map(np.asarray, encode(params["encoder"], new[0]))
    c = np.asarray(covariance(codes, scales, True))
    return {
        "SAP": sap(codes, new[1]),
        "MIG": mig(codes, new[1]),
        "lack": float(lack(c, 1.0, 1.0)),
        "reconstruction": float(reconstruction(jax.random.key(1), params, new[0])),
    }


found, informed = {}, {}
for name in choose(["DIP-VAE-II"], list(bounds)):
    for seed in SEEDS:
        options = {"batch": BATCH, "num_steps": STEPS, "optimizer": 1e-3, "progress": False}
        fit = vi.fit(bounds[name], jax.random.key(seed), x, **options)
        found.setdefault(name, []).append(measures(fit.params))
        informed.setdefault(name, mutual_informations(encode(fit.params["encoder"], new[0])[0], new[1]))
    by = columns_of(found[name])
    print(f"{name:11}", ", ".join(f"{measure} {said(values, 3)}" for measure, values in by.items()), flush=True)

# %% [markdown]
# Left, each run: how far apart the factors are, and what is given for it. Right, of the first seed's runs, which dimension
# (down) says how much of which factor (across), in nats.

# %%
figure, axes = plt.subplots(
    1, 1 + len(found), figsize=(11, 3.2), layout="constrained", width_ratios=[2] + [1] * len(found)
)
for (name, runs), axis in zip(found.items(), axes[1:], strict=True):
    axes[0].plot([run["reconstruction"] for run in runs], [run["SAP"] for run in runs], "o", label=name)
    drawn = axis.imshow(informed[name], cmap="Blues", vmin=0, vmax=2, aspect="auto")
    axis.set(title=name, xticks=range(len(FACTORS)), xticklabels=FACTORS, yticks=[])
    axis.tick_params(axis="x", rotation=60)
axes[0].set(xlabel="log density of a picture, given its point", ylabel="SAP", title="each seed")
axes[0].set_ylim(bottom=0)
axes[0].legend(frameon=False, fontsize=8)
figure.colorbar(drawn, label="nats")
ENTRY.picture(figure)

# %% [markdown]
# ## The claim
# The paper: at the same reconstruction, DIP-VAE separates factors better than the beta-VAE. Its data are 737,280 pictures of 2D
# Shapes, its networks have convolutions, its weights are swept; here are 10,000 ellipses of 16 by 16 pixels, perceptrons, five
# seeds, and one weight each, chosen in an exploration with one seed. In full, SAP is 0.57 ± 0.07 for DIP-VAE-II, 0.46 ± 0.04
# for the VAE and 0.14 ± 0.03 for the beta-VAE, which also draws worst: a log density of -22.2 ± 1.3 where the others have
# -9.4 to -11.5. MIG: 0.26, 0.22, 0.13, and 0.06 of DIP-VAE-I. Against the beta-VAE the claim comes out. Against the
# VAE five seeds do not decide: one of DIP-VAE-II's is below all of the VAE's. DIP-VAE-I, whose means are to vary by 1 in
# six dimensions where four would do, spreads factors over them: 0.27 ± 0.04. None has found the angle. A covariance nearer
# to the identity (0.028 ± 0.008 is lacking, of the VAE 0.070 ± 0.006) cannot be enough: turned, it is the identity still.
#
# What to change first: the weights of `dip_vae`; `LATENT`, to 4.
#
# Kumar, Sattigeri and Balakrishnan, "Variational inference of disentangled latent concepts from unlabeled observations", ICLR
# 2018.

# %%
mean = {name: {what: mean_se([run[what] for run in runs])[0] for what in runs[0]} for name, runs in found.items()}
ENTRY.record(
    "SAP: " + ", ".join(f"{name} {said([run['SAP'] for run in runs])}" for name, runs in found.items()),
    seeds=SEEDS,
    steps=STEPS,
    found=found,
)
if FULL:
    assert mean["DIP-VAE-II"]["SAP"] > max(mean["beta-VAE"]["SAP"] + 0.2, mean["DIP-VAE-I"]["SAP"])
    assert mean["DIP-VAE-II"]["reconstruction"] > mean["beta-VAE"]["reconstruction"]
assert mean["DIP-VAE-II"]["lack"] < 0.5 * choose(measures(start), mean.get("VAE"))["lack"]
