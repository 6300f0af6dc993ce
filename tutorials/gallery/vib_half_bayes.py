# %% [markdown]
# # VIB is half Bayes: three classifiers between the empirical and the Bayesian
#
# With few data a network is right less often than it thinks. Bayes averages over networks, at the price of a posterior over all
# weights. The information bottleneck is uncertain of a few numbers for each picture, through which everything has to pass. The
# paper shows that this guards against one half of what chance leaves in a sample, the labels, and not the other, the pictures.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from gallery.evaluation import classified, reliability
from guides import ivon as weights_guide
from guides.vae import encode
from guides.vib_half_bayes import guide
from models import ivon as weights_model
from models.datasets import mnist
from models.generated import labelled_shapes
from models.networks import perceptron
from models.vib_half_bayes import model
from ppvi.objectives import elbo

ENTRY = Entry(
    name="vib_half_bayes",
    system="VIB is Half Bayes",
    family="Bayesian networks",
    engine="NumPyro",
    objective="empirical risk, information bottleneck and Bayes, as one program on the page",
    strategies="Reparam",
    shows="one objective, three guides: by its weight a bottleneck is the best or the worst calibrated",
    paper="Alemi, Morningstar, Poole, Fischer and Dillon 2020",
    link="https://arxiv.org/abs/2011.08711",
)
THIN, SEEDS, STEPS, BATCH, DRAWS = choose(2, 1), range(choose(1, 3)), choose(100, 2000), choose(50, 100), choose(4, 30)
(x, y), (new, answer) = (mnist(), mnist("t10k")) if FULL else (labelled_shapes(200), labelled_shapes(200, 1))
N = choose(200, 1000)
x, new = (jnp.asarray(images[:, ::THIN, ::THIN].reshape(len(images), -1) / 255, jnp.float32) for images in (x, new))
x, y = x[:N], jnp.asarray(y[:N], jnp.int32)

# %% [markdown]
# ## Three objectives, of one form
#
# $$\sum_i E_q [\log p(y_i \mid z)] - \beta\, KL(q(z) \,\|\, p(z))$$
#
# | | z | q | beta |
# |---|---|---|---|
# | empirical risk | numbers for each picture | a point, $\delta(z_i - f(x_i))$ | 0 |
# | bottleneck | numbers for each picture | a Gaussian, $N(f(x_i), g(x_i))$ | 0.01 to 1 |
# | Bayes | all weights | a Gaussian for each weight | 1 |
#
# With a beta of 1 it is an ELBO; a smaller one lets each label count as more than one, as if it had been seen again.


# %%
def compromise(beta):
    """With a point for z the divergence is infinite, and a beta of 0 leaves it out."""

    def bound(p, q):
        z = q.simulate()
        x = p.assess(z)
        prior = sum(x.log_probs[site].sum() for site in z)
        divergence = z.log_density - prior if beta else 0.0
        return x.log_density - prior - beta * divergence

    return bound


show(model, guide, weights_model.model, weights_guide.guide)
bounds = {"empirical": vi.objective(compromise(0), model, partial(guide, noisy=False))}
bounds |= {
    f"bottleneck, {beta:g}": vi.objective(compromise(beta), model, guide) for beta in choose([0.1], [0.01, 0.1, 1.0])
}
if FULL:  # it is proved by the page of IVON, too
    bounds["Bayes"] = vi.objective(compromise(1), weights_model.model, weights_guide.guide)
for bound in bounds.values():
    start = bound.init(jax.random.key(0), x[:BATCH], y[:BATCH], N)
    assert bound.prove(start, x[:BATCH], y[:BATCH], N).verdict == "proved"

# %% [markdown]
# With a beta of 1 the bottleneck's is the ELBO, draw for draw, and with one number it is an integral over the line:

# %%
few = x[:10], y[:10], 10
one = [vi.objective(program, partial(model, latent=1), partial(guide, latent=1)) for program in (compromise(1), elbo)]
start, keys = one[0].init(jax.random.key(0), *few), jax.random.split(jax.random.key(2), 2000)
draws, same = (np.asarray(jax.vmap(lambda k, b=b: b.estimate(k, start, *few))(keys)) for b in one)
np.testing.assert_allclose(draws, same, rtol=1e-4)
(loc, scale), (nodes, masses) = encode(start["encoder"], few[0]), np.polynomial.hermite_e.hermegauss(40)
scores = jax.nn.log_softmax(perceptron(start["decoder"], loc[:, None] + scale[:, None] * nodes[:, None]))
labels = scores[jnp.arange(10), :, few[1]] @ masses / np.sqrt(2 * np.pi)
exact = float((labels - 0.5 * (loc**2 + scale**2 - 1 - 2 * jnp.log(scale))[:, 0]).sum())
print(f"by quadrature {exact:.3f}, by 2000 draws {said(draws, 3)}")
assert abs(mean_se(draws)[0] - exact) < 5 * mean_se(draws)[1]

# %% [markdown]
# ## Fit and predict
# Probabilities are averages over draws of z, for each picture its own, or over networks.


# %%
@partial(jax.jit, static_argnums=0)
def predicted(name, key, params):
    keys = jax.random.split(key, DRAWS)
    if name == "Bayes":

        def draw(k):
            drawn = {}
            for site, shape in weights_model.layers(x.shape[1]).items():
                k, own = jax.random.split(k)
                drawn[site] = params[f"{site}_loc"] + params[f"{site}_scale"] * jax.random.normal(own, shape)
            return weights_model.logits(drawn, new)
    else:
        loc, scale = encode(params["encoder"], new)
        noise = scale * (name != "empirical")

        def draw(k):
            return perceptron(params["decoder"], loc + noise * jax.random.normal(k, loc.shape))

    return jax.lax.map(lambda k: jax.nn.softmax(draw(k)), keys).mean(0)


def batches(seed):
    rng = np.random.default_rng(seed)
    while True:
        for rows in rng.permutation(N).reshape(-1, BATCH):
            yield x[rows], y[rows], N


names = choose(["bottleneck, 0.1"], list(bounds))
found, curves, losses = {name: [] for name in names}, {name: [] for name in names}, {}
for seed in SEEDS:
    for name in names:
        fit = vi.fit(
            bounds[name], jax.random.key(seed), batches=batches(seed), num_steps=STEPS, optimizer=1e-3, progress=False
        )
        probabilities = np.asarray(predicted(name, jax.random.key(1), fit.params), np.float64)
        found[name].append(classified(probabilities, answer))
        curves[name].append(reliability(probabilities, answer))
        losses[name] = fit.losses
columns = {name: np.transpose(rows) for name, rows in found.items()}
for name, (error, nll, ece) in columns.items():
    print(f"{name:16} error {said(error)}%  NLL {said(nll, 3)}  ECE {said(ece)}%")

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for name, curve in curves.items():
    share, *at = np.mean(curve, 0)
    axes[0].plot(*np.array(at)[:, share > 0.005], "o-", label=name)
axes[0].plot([0.2, 1], [0.2, 1], ":", color="grey")
axes[0].set(xlabel="probability of what is predicted", ylabel="share that is right", title="calibration")
axes[0].legend(frameon=False, loc="upper left", fontsize=8)
for axis, k, what in ((axes[1], 1, "log-likelihood, negative"), (axes[2], 2, "calibration error, %")):
    means, errors = np.transpose([mean_se(column[k]) for column in columns.values()])
    axis.errorbar(means, range(len(means)), xerr=np.nan_to_num(errors), fmt="o", capsize=3)
    axis.set(yticks=range(len(means)), yticklabels=list(columns), title=what, ylim=(len(means) - 0.5, -0.5))
ENTRY.picture(figure)

# %% [markdown]
# ## What came out, what differs from the paper, what to change first
# The paper argues that the bottleneck has some of the benefits of Bayes for some of the work. Here 1,000 digits are learned
# from, 10,000 predicted, three seeds. It comes out for a beta of 0.01: of its predictions 11.1 ± 0.3% are wrong, as of Bayes
# (11.0 ± 0.5%), where empirical risk has 13.6 ± 0.2%; a picture costs 0.40 ± 0.01 nats, as with Bayes (0.39 ± 0.01), and 0.83 ±
# 0.03 with empirical risk, which is too sure of itself. It is better calibrated than both (1.8 ± 0.1%, against 6.8 ± 0.1% and
# 9.6 ± 0.2%), of which Bayes is on the side of too little trust. But a beta has to be found: with 0.1 the bottleneck is the
# worst calibrated of all (13.9 ± 0.3%), and with 1, which the derivation has, it says next to nothing of the picture. These
# are three betas, not tuned, and the test pictures are the judge of them.
#
# The Gaussian of the weights has 2,000 steps of Adam from scales of 0.0125, which may not be its optimum; its network has relu
# where the others have tanh. To change first: the betas, and how many pictures there are.
# Alemi, Morningstar, Poole, Fischer and Dillon, "VIB is half Bayes", AABI 2020.

# %%
ENTRY.record(
    "; ".join(f"{name}: NLL {said(nll, 3)}, ECE {said(ece)}%" for name, (_, nll, ece) in columns.items()),
    seeds=SEEDS,
    steps=STEPS,
    columns=columns,
    curves={name: np.mean(curve, 0) for name, curve in curves.items()},
)
assert all(np.mean(loss[-10:]) < np.mean(loss[:10]) for loss in losses.values())
if FULL:
    mean = {name: column.mean(1) for name, column in columns.items()}
    assert all((mean[name] < mean["empirical"]).all() for name in ("bottleneck, 0.01", "Bayes"))
    assert abs(mean["bottleneck, 0.01"][1] - mean["Bayes"][1]) < 0.1 * (mean["empirical"][1] - mean["Bayes"][1])
