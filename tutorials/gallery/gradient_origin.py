# %% [markdown]
# # Gradient origin networks: an encoder that is the decoder's gradient
#
# An autoencoder has two networks, and one of them only undoes the other. A gradient origin network has the decoder alone. To
# encode a picture it stands at the origin of the latent space and takes one step up the likelihood of that picture: the
# gradient there is the code. Training differentiates through the step, so that the decoder learns to be climbed.
#
# In a probabilistic program it is a guide that differentiates the model's own network.

# %%
import time
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from guides import vae as with_encoder
from guides.gradient_origin import encoded, guide, point, step
from models import vae
from models.datasets import half_size, mnist
from models.generated import shapes
from models.networks import glorot, perceptron
from ppvi.objectives import analytic_elbo

ENTRY = Entry(
    name="gradient_origin",
    system="Gradient Origin Networks",
    family="autoencoders",
    engine="NumPyro",
    objective="analytic_elbo; likelihood, on the page",
    strategies="Reparam",
    shows="a guide that is the gradient of the model's network; its parameters beside, and against, an encoder's",
    paper="Bond-Taylor and Willcocks 2021",
    link="https://arxiv.org/abs/2007.02798",
)
SEEDS, STEPS, BATCH, RATE, LATENT = range(choose(1, 3)), choose(60, 3000), choose(20, 100), 1e-3, choose(4, 16)
SIZES = {"latent": LATENT, "hidden": choose((20,), (200, 200))}
x, new = (
    jnp.asarray(half_size(each)) for each in ((mnist()[0], mnist("t10k")[0]) if FULL else (shapes(200), shapes(50, 1)))
)
new = new[:: choose(1, 5)]

# %% [markdown]
# ## Model, guides, objectives
#
# $$z \sim N(0, I) \qquad x \sim \text{Bernoulli}(\sigma(f(z))) \qquad
#   g(x) = \nabla_u \log p(x \mid z = A u + a) \big|_{u = 0} \qquad q(z \mid x) = N(A g + a, \, e^{B g + b})$$
#
# The guide of points is $g$ itself, with $A = 1$, and is trained by the likelihood at $g$; the Gaussian by the evidence lower
# bound. The parameter `decoder` stands in model and guide under one name, and is one parameter.


# %%
def likelihood(p, q):
    return p.log_probs(q.simulate())["x"].sum()


show(vae.model, step, point, guide)
model = partial(vae.model, **SIZES, activation=jax.nn.elu)
WAYS = {
    "GON": (likelihood, partial(point, **SIZES)),
    "GON, step held constant": (likelihood, partial(point, **SIZES, through=False)),
    "autoencoder": (likelihood, partial(encoded, **SIZES)),
    "variational GON": (analytic_elbo, partial(guide, **SIZES)),
    "VAE": (analytic_elbo, partial(with_encoder.guide, **SIZES, activation=jax.nn.elu)),
    "VAE, affine encoder": (analytic_elbo, partial(with_encoder.guide, latent=LATENT, hidden=())),
}
bounds = {name: vi.objective(program, model, guide) for name, (program, guide) in WAYS.items()}
start = bounds["variational GON"].init(jax.random.key(0), x, batch=BATCH)
assert bounds["variational GON"].prove(start, x, batch=BATCH).verdict == "proved"
assert bounds["GON"].prove(start, x, batch=BATCH).verdict == "proved"
print(held := bounds["GON, step held constant"].prove(start, x, batch=BATCH))
assert held.verdict != "proved"

# %% [markdown]
# The gradient that training follows is the whole one: through the decoder where it draws, and through the step.


# %%
def by_hand(weights, rows):
    logits = perceptron(weights, step(weights, rows), jax.nn.elu)
    return (rows * logits - jax.nn.softplus(logits)).sum()


weights, some = start["decoder"], x[:5]
ours = bounds["GON"].value_and_grad(jax.random.key(0), {"decoder": weights}, some)
theirs = jax.jit(jax.value_and_grad(by_hand))(weights, some)
for one, other in zip(*map(jax.tree.leaves, ((ours[0], ours[1]["decoder"]), theirs)), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)

# %% [markdown]
# ## What the step is
# At the origin the decoder is the same for all pictures. So the step is affine in the picture, however deep the decoder,
#
# $$g(x) = J^\top (x - \sigma(f(0))) \qquad J = f'(0)$$
#
# and of a decoder that is linear, $f(z) = z W + b$, it is $W (x - \sigma(b))$. It is an encoder that has no hidden layer, with
# the decoder's Jacobian for weights. What this costs is seen beside an encoder that is affine, too, with weights of its own.

# %%
jacobian = jax.jacobian(lambda z: perceptron(weights, z, jax.nn.elu))(jnp.zeros(LATENT))
at_origin = jax.nn.sigmoid(perceptron(weights, jnp.zeros(LATENT), jax.nn.elu))
np.testing.assert_allclose(step(weights, some), (some - at_origin) @ jacobian, rtol=1e-4, atol=1e-4)
linear = glorot(jax.random.key(1), LATENT, x.shape[1])
np.testing.assert_allclose(step(linear, some), (some - 0.5) @ linear[0][0].T, rtol=1e-4, atol=1e-4)

# %% [markdown]
# ## Fit
# All begin with the same decoder, and see the same minibatches. Reconstruction is the log likelihood of test pictures at the
# mean of what the guide says of them; the bound is the variational ones' own.


def reconstruction(p, q):
    loc, _ = q.simulate().returned
    return p.log_probs({"z": loc})["x"].sum()


names, finals = choose(["variational GON"], list(WAYS)), {}
found = {name: {"course": [], "bound": [], "seconds": []} for name in names}
for name in names:
    bound, at_mean = bounds[name], vi.objective(reconstruction, model, WAYS[name][1])
    value, recovered = jax.jit(bound.estimate), jax.jit(at_mean.estimate)
    for seed in SEEDS:
        key, course = jax.random.key(seed), []
        start, began = bound.init(key, x, batch=BATCH), time.process_time()
        options = {"num_steps": STEPS, "optimizer": RATE, "every": STEPS // 10, "progress": False}

        def keep(_, fit, recovered=recovered, course=course):
            course.append(float(recovered(key, fit.params, new)) / len(new))

        fit = vi.fit(bound, key, x, batch=BATCH, params=start, callback=keep, **options)
        found[name]["seconds"].append(time.process_time() - began)
        found[name]["course"].append(course)
        found[name]["bound"].append(float(value(key, fit.params, new)) / len(new))
        finals[name] = fit.params
sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(params)) for name, params in finals.items()}
ends = {name: np.array(of["course"])[:, -1] for name, of in found.items()}
for name, of in found.items():
    has_bound = f"bound {said(of['bound'])}, " if WAYS[name][0] is analytic_elbo else ""
    tenth = said(np.array(of["course"])[:, 0])
    print(f"{name:24} {sizes[name]} parameters, {said(of['seconds'], 0)} s")
    print(f"{'':24} {has_bound}reconstruction {said(ends[name])}, after a tenth of the steps {tenth}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained", width_ratios=[1.2, 1, 1.2])
for name, of in found.items():
    axes[0].plot(np.arange(1, 11) * STEPS // 10, np.mean(of["course"], 0), "-" if "GON" in name else "--", label=name)
axes[0].set(xlabel="step", ylabel="nats a picture", title="reconstruction of test pictures")
axes[0].legend(frameon=False, fontsize=7)
variational = [name for name in names if WAYS[name][0] is analytic_elbo]
means, errors = zip(*(mean_se(found[name]["bound"]) for name in variational), strict=True)
axes[1].errorbar([sizes[name] / 1000 for name in variational], means, np.nan_to_num(errors), fmt="o", capsize=4)
for name, mean in zip(variational, means, strict=True):
    place = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "fontsize": 8}
    axes[1].annotate(name, (sizes[name] / 1000, mean), **place)
axes[1].set(xlabel="thousands of parameters", ylabel="bound, nats a picture", title="what they say of test pictures")
axes[1].margins(x=0.35, y=0.25)
rows = [new[:: len(new) // 8][:8]]
for name in choose([], names[:3]):
    weights, encoder = finals[name]["decoder"], finals[name].get("encoder")
    codes = perceptron(encoder, rows[0], jax.nn.elu) if encoder else step(weights, rows[0])
    rows.append(jax.nn.sigmoid(perceptron(weights, codes, jax.nn.elu)))
axes[2].imshow(np.block([list(np.asarray(row).reshape(-1, 14, 14)) for row in rows]), cmap="gray_r")
axes[2].set(title="pictures; by GON, held constant, autoencoder", xticks=[], yticks=[])
ENTRY.picture(figure)

# %% [markdown]
# ## What came out, what differs from the paper, what to change first
# TEXT
#
# Bond-Taylor and Willcocks, "Gradient origin networks", ICLR 2021.

# %%
ENTRY.record(
    "; ".join(f"{name} {said(ends[name], 1)}" for name in names if name in ("GON", "autoencoder"))
    + " nats to reconstruct; bounds: "
    + "; ".join(f"{name} {said(found[name]['bound'], 1)}" for name in variational),
    seeds=SEEDS,
    steps=STEPS,
    parameters=sizes,
    found=found,
)
assert found["variational GON"]["course"][0][-1] > found["variational GON"]["course"][0][0]
