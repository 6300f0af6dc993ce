# %% [markdown]
# # Auto-Encoding Variational Bayes
#
# A model with a latent variable for every datum has as many posteriors as data. The variational autoencoder computes them
# all with one network, which reads a datum and writes the parameters of its guide, and trains that network and the model's
# together, by pathwise gradients of the evidence lower bound on minibatches. It is the origin of most of the systems in
# this gallery.
#
# Here it is on both libraries: the same sites, the same densities, and from the same weights the same bound.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import torch
from numpyro.infer import SVI, Trace_ELBO

import ppvi.numpyro as vi
import ppvi.pyro as vi_pyro
from gallery import FULL, Entry, choose, said, show
from gallery.evaluation import by_datum
from guides import vae_pyro as pyro_guide
from guides.vae import encode, guide
from models import vae_pyro as pyro_model
from models.generated import binary_images
from models.networks import perceptron
from models.networks_pyro import take_over
from models.vae import LATENT, model
from ppvi.objectives import elbo, iwelbo

ENTRY = Entry(
    name="vae",
    system="Auto-Encoding Variational Bayes",
    family="autoencoders",
    engine="NumPyro, Pyro",
    objective="elbo",
    strategies="Reparam",
    shows="one network for all posteriors; the same program on two libraries",
    paper="Kingma and Welling 2014",
    link="https://arxiv.org/abs/1312.6114",
)
SEEDS, STEPS, BATCH, RATE = range(choose(1, 3)), choose(100, 10_000), choose(50, 100), 1e-3
data = binary_images(FULL, 500)
x, new = jnp.asarray(data.train), jnp.asarray(data.test[:: choose(1, 20)])

# %% [markdown]
# ## Model, guide, objective
#
# $$z_i \sim N(0, I) \qquad x_i \sim \text{Bernoulli}(\sigma(\text{decode}(z_i))) \qquad q(z_i) = N(\text{encode}(x_i))$$
#
# The plate says that images are independent, so that 100 of them stand for all, and that the objective is a sum over them.
# The objective is `z = q.simulate(); return p.log_density(z) - z.log_density`, and nothing of its gradient is missed:

# %%
show(model, guide)
bound = vi.objective(elbo, model, guide)
first = [bound.init(jax.random.key(seed), x[:BATCH]) for seed in SEEDS]
assert bound.prove(first[0], x[:BATCH]).verdict == "proved"
print(bound.explain(first[0], x[:BATCH]))

# %% [markdown]
# ## The twin on Pyro
# It takes over the weights. An objective may be any function of the two programs, so the density at given points is one.


# %%
def densities(z):
    return [lambda p, q: p.log_density({"z": z}), lambda p, q: q.log_density({"z": z})]


def on_pyro(program):
    return vi_pyro.objective(program, pyro_model.model, pyro_guide.guide)


def same_weights(params):
    """The twin's parameters, with the weights of these."""
    take_over(pyro_model.DECODER, params["decoder"])
    take_over(pyro_guide.ENCODER, params["encoder"])
    return on_pyro(elbo).init(0, torch_x[:BATCH])


torch_x, torch_new = torch.tensor(data.train), torch.tensor(np.array(new))
theirs = same_weights(first[0])
z = np.random.default_rng(0).normal(size=(10, LATENT)).astype(np.float32)
for ours, twin in zip(densities(jnp.asarray(z)), densities(torch.tensor(z)), strict=True):
    density = vi.objective(ours, model, guide).estimate(jax.random.key(0), first[0], x[:10])
    np.testing.assert_allclose(on_pyro(twin).estimate(0, theirs, torch_x[:10]).item(), density, rtol=1e-5)

# %% [markdown]
# ## Fit
# Adam, minibatches of 100. And beside it, from the same weights and for a fifth of the steps, the twin on Pyro and
# NumPyro's own `SVI` on the very same programs: what they reach is to be told apart by nothing but random numbers.

# %%
SHORT = STEPS // 5
fit = partial(vi.fit, bound, num_steps=STEPS, optimizer=RATE, every=SHORT, progress=False)
value = jax.jit(bound.estimate)
fits, short = [], {"ppvi.numpyro": [], "NumPyro's SVI": [], "ppvi.pyro": []}
for seed, start in zip(SEEDS, first, strict=True):
    key = jax.random.key(seed)
    course = {}
    fits.append(
        fit(key, x, batch=BATCH, params=start, callback=lambda step, so_far: course.update({step: so_far.params}))
    )
    short["ppvi.numpyro"].append(float(value(key, course[SHORT], new)) / len(new))
    svi = SVI(model, guide, optax.adam(RATE), Trace_ELBO())
    found = svi.run(key, SHORT, x, batch=BATCH, init_params=start, progress_bar=False).params
    short["NumPyro's SVI"].append(float(value(key, found, new)) / len(new))
    twin, theirs = on_pyro(elbo), same_weights(start)
    twin_fit = vi_pyro.fit(twin, seed, torch_x, batch=BATCH, num_steps=SHORT, optimizer=RATE, progress=False)
    short["ppvi.pyro"].append(float(twin.estimate(seed, twin_fit.params, torch_new)) / len(new))
test_bound = [float(value(jax.random.key(1), found.params, new)) / len(new) for found in fits]
print(f"after {STEPS} steps: ELBO {said(test_bound)} nats an image")
for way, values in short.items():
    print(f"after {SHORT} steps, {way:14} ELBO {said(values)} nats an image")

# %% [markdown]
# ## How good is the model?
# Of what the bound misses, the part that is the guide's is found by importance: the guide proposes many points for each
# image, and their average weight is the image's density, from below.

# %%
by_importance = by_datum(vi.objective(iwelbo(choose(100, 5000)), model, guide).estimate)
log_density = [by_importance(jax.random.key(2), found.params, new).mean() for found in fits]
print(f"log density of test images {said(log_density)} nats; the bound {said(test_bound)}")

# %% [markdown]
# ## What it has learned
# Left, images of points drawn from the prior. Right, what the guide says about each of the 50 dimensions, in nats, averaged
# over test images: most are left as the prior has them, and cost nothing.

# %%
params = fits[0].params
loc, scale = encode(params["encoder"], new)
kl = np.sort(0.5 * (loc**2 + scale**2 - 1 - 2 * jnp.log(scale)).mean(0))[::-1]
drawn = jax.nn.sigmoid(perceptron(params["decoder"], jax.random.normal(jax.random.key(3), (60, LATENT))))
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", width_ratios=[1.5, 1])
axes[0].imshow(np.block([list(row) for row in np.asarray(drawn).reshape(6, 10, 28, 28)]), cmap="gray_r")
axes[0].set(title="images of points of the prior", xticks=[], yticks=[])
axes[1].bar(range(LATENT), kl)
axes[1].set(title="what the guide says, by dimension", xlabel="dimension, the most telling first", ylabel="nats")
ENTRY.picture(figure)

# %% [markdown]
# ## The claim
# Burda et al. (2016, appendix D) report -88.71 nats for this model on this fixed set, and -86.76 on images that are made black
# and white anew in every epoch, both after 3,280 epochs of a step size that falls from 0.001 to 0.0001. The full run here is
# 20 epochs at 0.001, three seeds and every twentieth test image: -99.7 ± 0.3 nats, 11 short of what 160 times the epochs
# reach. There is no published number to hold beside 20 epochs: the curves of Kingma and Welling's Figure 2 are of other
# networks (500 units, 3 to 200 latents), and of the bound alone. What the run does show is that the three ways of fitting
# agree, within 0.6 nats after 2,000 steps, which is what seeds differ by.
#
# What to change first: the arguments `latent` and `hidden` of both programs; `elbo` to `iwelbo(5, per="images")`, which is
# the next entry.
#
# Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014.

# %%
ENTRY.record(
    f"{said(log_density)} nats after 20 epochs (bound {said(test_bound)}); published -88.71 after 3,280",
    seeds=SEEDS,
    steps=STEPS,
    log_density=log_density,
    bound=test_bound,
    short=short,
    short_steps=SHORT,
    units_above_a_hundredth_nat=int((kl > 0.01).sum()),
)
untrained = [float(value(jax.random.key(1), start, new)) / len(new) for start in first]
assert np.mean(test_bound) > np.mean(untrained) + 100
assert all(density > at for density, at in zip(log_density, test_bound, strict=True))
spread = [np.mean(values) for values in short.values()]
assert max(spread) - min(spread) < choose(40, 1.5)
