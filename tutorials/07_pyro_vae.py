# %% [markdown]
# # On Pyro: a variational autoencoder
#
# The same library with PyTorch's networks. The data are small pictures, made here: a bar of some slant at some place, 12 by
# 12 pixels, black and white, with a few pixels flipped. Two numbers make a picture, and an autoencoder with two latent numbers
# has to find them. The encoder is a guide: one network for all pictures, so that new ones cost nothing.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import nn

import ppvi.pyro as vi
from ppvi.objectives import elbo, iwelbo

SIDE = 12


def pictures(n, seed):
    rng = np.random.default_rng(seed)
    slant, place = rng.uniform(-0.7, 0.7, (n, 1, 1)), rng.uniform(-2.5, 2.5, (n, 1, 1))
    row, column = np.meshgrid(np.arange(SIDE) - 5.5, np.arange(SIDE) - 5.5, indexing="ij")
    bar = np.abs(column - place - slant * row) < 1.3
    noisy = bar ^ (rng.uniform(size=bar.shape) < 0.02)
    return torch.tensor(noisy.reshape(n, -1), dtype=torch.float32), torch.tensor(np.stack([slant, place], 1)[..., 0, 0])


x, truth = pictures(1000, seed=0)
new_x, new_truth = pictures(200, seed=1)

# %% [markdown]
# ## Model and guide
# Ordinary Pyro programs with ordinary modules. `pyro.plate` says that pictures are independent: the objective is a mean over
# them, and a minibatch of 100 of 1,000 rows counts for all. Both programs name the plate and take the same rows; the guide
# states the minibatch.

# %%
torch.manual_seed(0)
decoder = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, SIDE**2))
encoder = nn.Sequential(nn.Linear(SIDE**2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))
BATCH = 100


def model(x):
    pyro.module("decoder", decoder)
    with pyro.plate("pictures", len(x), subsample_size=min(BATCH, len(x))) as rows:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x[rows])


def guide(x):
    pyro.module("encoder", encoder)
    with pyro.plate("pictures", len(x), subsample_size=min(BATCH, len(x))) as rows:
        loc, log_scale = encoder(x[rows]).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, log_scale.clamp(-6, 3).exp()).to_event(1))


# %% [markdown]
# ## Fit
# `explain` shows what is known of the objective: the draws are reparameterised, and every picture's term depends on its own
# draw alone.

# %%
bound = vi.objective(elbo, model, guide)
params = bound.init(0, x)
print(bound.explain(params, x))
fit = vi.fit(bound, 0, x, num_steps=2500, optimizer=0.003, progress=False)
print(fit)
assert fit.losses[-200:].mean() < 0.5 * fit.losses[:20].mean()

# %% [markdown]
# ## New pictures
# `posterior` and `predict` at these parameters, on other data: the encoder sees the new pictures, and the decoder draws them
# again. What is returned is ArviZ data, as on NumPyro; Pyro itself has no converter in ArviZ 1.x.

# %%
data = vi.predict(bound, 0, fit.params, new_x, draws=50)
again = data["posterior_predictive"]["x"]
assert again.dims == ("chain", "draw", "pictures", "x_dim_1")
share = float((again.values[0].mean(0).round() == new_x.numpy()).mean())
print(
    f"pixels of new pictures that are drawn again as they are: {share:.1%}; all black would be {1 - new_x.mean():.1%}"
)
assert share > 0.93

# %% [markdown]
# ## How good is the bound?
# Of an importance-weighted bound with more draws the value is closer to the evidence: what the encoder lacks shows in the
# difference.

# %%
with torch.no_grad():
    bounds = {
        k: float(np.mean([vi.objective(iwelbo(k), model, guide).estimate(s, fit.params, new_x) for s in range(20)]))
        for k in (1, 50)
    }
print({k: round(value / len(new_x), 2) for k, value in bounds.items()}, "nats a picture")
assert bounds[1] < bounds[50]

# %% [markdown]
# ## What has it found?
# The two latent numbers know slant and place of a bar: a linear function of them, and of their products, tells most of both.

# %%
z = data["posterior"]["z"].values[0].mean(0)
features = np.column_stack([np.ones(len(z)), z, z**2, z[:, :1] * z[:, 1:], z**3, z**2 * z[:, ::-1]])
weights, *_ = np.linalg.lstsq(features[:150], new_truth[:150].numpy(), rcond=None)
left = new_truth[150:].numpy() - features[150:] @ weights
told = 1 - left.var(0) / new_truth[150:].numpy().var(0)
print(f"told of the slant {told[0]:.0%}, of the place {told[1]:.0%}")
assert told.max() > 0.8

figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
fit.plot(axes[0])
grid = np.stack(np.meshgrid(np.linspace(-2, 2, 9), np.linspace(-2, 2, 9)), -1).reshape(-1, 2)
with torch.no_grad():
    shown = torch.sigmoid(decoder(torch.tensor(grid, dtype=torch.float32))).reshape(9, 9, SIDE, SIDE)
axes[1].imshow(np.block([[np.asarray(cell) for cell in row] for row in shown]), cmap="gray_r")
axes[1].set(title="what each z is a picture of", xticks=[], yticks=[])
points = axes[2].scatter(*z.T, c=new_truth[:, 1], s=12, cmap="coolwarm")
axes[2].set(title="new pictures, by the place of the bar", xlabel="z[0]", ylabel="z[1]")
figure.colorbar(points, ax=axes[2])
Path("out").mkdir(exist_ok=True)
figure.savefig("out/vae.png", dpi=120)
