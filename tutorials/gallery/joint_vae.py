# %% [markdown]
# # JointVAE: what a thing is, and how it looks
#
# A handwritten digit is one of ten kinds, and it is slanted, thick, narrow. An autoencoder that has a discrete latent variable
# beside its continuous ones could find the kinds without having been told of any. Trained by the evidence lower bound it need
# not: it says everything with whichever is easier. JointVAE tells each of the two how much it has to say, in nats, and lets
# that rise as training goes on.
#
# The paper relaxes the discrete variable, so that gradients pass through it. Ten kinds can be summed over.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro.distributions as dist

import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, said, show
from gallery.evaluation import columns_of
from guides.joint_vae import encode, guide
from models.datasets import halved, mnist
from models.generated import labelled_shapes
from models.joint_vae import LATENT, model
from models.networks import perceptron
from ppvi.objectives import analytic_elbo
from ppvi.strategies import Enumerate, GumbelSoftmax

ENTRY = Entry(
    name="joint_vae",
    system="Learning Disentangled Joint Continuous and Discrete Representations",
    family="autoencoders",
    engine="NumPyro",
    objective="likelihood - distance of each divergence from its capacity, on the page",
    strategies="Reparam, Enumerate, GumbelSoftmax",
    shows="digits found without labels by a discrete latent variable, summed over and relaxed",
    paper="Dupont 2018",
    link="https://arxiv.org/abs/1804.00104",
)
SEEDS, STEPS, BATCH, KINDS = range(choose(1, 3)), choose(40, 4000), choose(50, 64), choose(4, 10)
(train, _), (new, kinds) = (mnist(), mnist("t10k")) if FULL else (labelled_shapes(300), labelled_shapes(100, 1))
x, new = ((halved(images) > 0.5).astype(np.float32) for images in (train[:20_000], new))
model, guide = partial(model, kinds=KINDS), partial(guide, kinds=KINDS)
show(model.func, guide.func)

# %% [markdown]
# ## The objective
#
# $$E_q[\log p(x \mid z, c)] - \gamma\, |KL(q(z \mid x) \,\|\, p(z)) - C_z| - \gamma\, |KL(q(c \mid x) \,\|\, p(c)) - C_c|$$
#
# with the divergences in the mean over a minibatch. The capacities $C_z$ and $C_c$ rise from 0 during two thirds of training; a
# stream of batches brings with it how much of that is over, and the guide returns it.


# %%
def divergences(loc, scale, logits):
    """Of points and of kinds, from the prior, in the mean over images."""
    of_points = dist.kl_divergence(dist.Normal(loc, scale), dist.Normal(0.0, 1.0)).sum(-1)
    of_kinds = jnp.log(logits.shape[-1]) - dist.Categorical(logits=logits).entropy()
    return of_points.mean(), of_kinds.mean()


def joint_vae(gamma, points, kinds):
    def bound(p, q):
        z = q.simulate()
        *encoded, share = z.returned
        of_points, of_kinds = divergences(*encoded)
        apart = abs(of_points - share * points) + abs(of_kinds - share * kinds)
        return p.log_probs(z)["x"].mean() - gamma * apart

    return bound


CAPACITY = joint_vae(gamma=5.0, points=5.0, kinds=float(np.log(KINDS)))
WAYS = {"summed over": (CAPACITY, Enumerate()), "relaxed": (CAPACITY, GumbelSoftmax(0.67))}
WAYS["ELBO, summed over"] = joint_vae(1.0, 0.0, 0.0), Enumerate()
bounds = {name: vi.objective(program, model, guide, strategies={"c": way}) for name, (program, way) in WAYS.items()}
start = bounds["summed over"].init(jax.random.key(0), x[:BATCH])
print(bounds["summed over"].explain(start, x[:BATCH]))
verdicts = {name: bound.prove(start, x[:BATCH]).verdict for name, bound in bounds.items()}
assert verdicts == dict.fromkeys(bounds, "proved") | {"relaxed": "biased by design"}

# %% [markdown]
# The sum is exact: from given points, the likelihood and its gradient are those of a loop over the kinds by hand, weighed by
# what the encoder says of each. And with $\gamma = 1$ and no capacity it is the ELBO, per image.

# %%
rows, at = x[:BATCH], jax.random.normal(jax.random.key(1), (BATCH, LATENT))


def given_points(p, q):
    return p.log_probs(q.simulate(given={"z": at}))["x"].mean()


def by_hand(params):
    weights, value = jax.nn.softmax(encode(params["encoder"], rows)[2]), 0.0
    for kind in range(KINDS):
        logits = perceptron(params["decoder"], jnp.hstack([at, jnp.tile(jnp.eye(KINDS)[kind], (BATCH, 1))]))
        value += (weights[:, kind, None] * (rows * logits - jax.nn.softplus(logits))).sum(-1).mean()
    return value


summed = vi.objective(given_points, model, guide, strategies={"c": Enumerate()})
ours, theirs = summed.value_and_grad(jax.random.key(2), start, rows), jax.value_and_grad(by_hand)(start)
for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)
both = vi.objective(analytic_elbo, model, guide, strategies={"c": Enumerate()}), bounds["ELBO, summed over"]
elbo, per_image = (bound.estimate(jax.random.key(3), start, rows) for bound in both)
np.testing.assert_allclose(elbo / BATCH, per_image, rtol=1e-4)

# %% [markdown]
# ## Fit
# Accuracy, as in the paper, is that of the best digit for each kind, of test images; labels are used for nothing else.
# `likelihood` is that of an image whose kind and point are drawn from what the encoder says of it.


# %%
def course(seed):
    rng = np.random.default_rng(seed)
    for step in range(1, STEPS + 1):
        yield jnp.asarray(x[rng.choice(len(x), BATCH)]), jnp.float32(min(1.0, 1.5 * step / STEPS))


@jax.jit
def measures(key, params):
    loc, scale, logits = encode(params["encoder"], new)
    draws = jax.random.split(key)
    kind = jax.nn.one_hot(jax.random.categorical(draws[0], logits), KINDS)
    point = loc + scale * jax.random.normal(draws[1], loc.shape)
    pixels = perceptron(params["decoder"], jnp.hstack([point, kind]))
    of_points, of_kinds = divergences(loc, scale, logits)
    counts = jax.nn.one_hot(logits.argmax(1), KINDS).T @ jax.nn.one_hot(kinds, KINDS)
    return {
        "accuracy": 100 * counts.max(1).sum() / len(kinds),
        "points": of_points,
        "kinds": of_kinds,
        "likelihood": (new * pixels - jax.nn.softplus(pixels)).sum(1).mean(),
    }


found, first = {}, None
for name in choose(["summed over"], list(bounds)):
    for seed in SEEDS:
        options = {"num_steps": STEPS, "optimizer": 1e-3, "progress": False}
        fit = vi.fit(bounds[name], jax.random.key(seed), batches=course(seed), **options)
        first = first or fit.params
        found.setdefault(name, []).append({k: float(v) for k, v in measures(jax.random.key(1), fit.params).items()})
    by = columns_of(found[name])
    print(f"{name:22}", ", ".join(f"{measure} {said(values, 1)}" for measure, values in by.items()), flush=True)

# %% [markdown]
# Left, each run's accuracy. Right, of the first seed of the run that is summed over: a row for each kind, a column for each
# point of the prior.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
for place, runs in enumerate(found.values()):
    axes[0].plot([place] * len(runs), [run["accuracy"] for run in runs], "o")
axes[0].set(xticks=range(len(found)), xticklabels=found, xlim=(-0.5, 2.5), title="digits found without labels")
axes[0].set(ylabel="accuracy in percent", ylim=(0, 100))
points, rows = jax.random.normal(jax.random.key(4), (10, LATENT)), jnp.eye(KINDS)
pairs = jnp.hstack([jnp.tile(points, (KINDS, 1)), jnp.repeat(rows, 10, 0)])
drawn = jax.nn.sigmoid(perceptron(first["decoder"], pairs))
axes[1].imshow(np.block([list(row) for row in np.asarray(drawn).reshape(KINDS, 10, 14, 14)]), cmap="gray_r")
axes[1].set(title="kinds (down) and points (across)", xticks=[], yticks=[])
ENTRY.picture(figure)

# %% [markdown]
# ## The claim
# The paper: kinds become digits. It has convolutions and all of MNIST; here perceptrons see 20,000 digits of 14 by 14 pixels
# for 4,000 steps, three seeds. In full the capacities do what they are for: kinds say 2.2 nats of at most 2.3, by the ELBO
# 1.0 ± 0.1, and 46.8 ± 0.7 % of test digits are found, by the ELBO 26.1 ± 1.2 %. That is half of the claim: half of the
# digits are not found. Summed over and relaxed (45.3 ± 4.3 %) are not told apart in accuracy; what the sum has is a proof.
#
# What to change first: the capacities; `GumbelSoftmax(0.67)` to `StraightThrough()` or `LeaveOneOut()`.
#
# Dupont, "Learning disentangled joint continuous and discrete representations", NeurIPS 2018.

# %%
accuracy = {name: [run["accuracy"] for run in runs] for name, runs in found.items()}
text = ", ".join(f"{name} {said(values, 1)}%" for name, values in accuracy.items())
ENTRY.record(f"accuracy: {text}", seeds=SEEDS, steps=STEPS, found=found)
nats = [run["kinds"] for run in found["summed over"]]
assert all(0 < each < np.log(KINDS) for each in nats)
if FULL:
    assert min(accuracy["summed over"]) > max(accuracy["ELBO, summed over"]) + 10
    assert min(nats) > 0.9 * np.log(KINDS)
