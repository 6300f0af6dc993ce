# %% [markdown]
# # A curved latent space: where to draw new points, and how to go from one to another
#
# An autoencoder is trained with a prior, but codes of data do not lie as the prior does, and points drawn from it may fall where
# the decoder has never been. The encoder tells more than a code: where it is sure of a dimension, a small step changes the
# picture. Its precisions are read as a metric, in which a part of the latent space is the larger the more happens there. New
# data are then drawn from the *uniform* distribution of this curved space, by Hamiltonian Monte Carlo, and the autoencoder stays
# as it is, a plain one.

# %%
from functools import partial

from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import MCMC, NUTS

import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from gallery.evaluation import frechet_distance
from guides.vae import encode, guide
from models.datasets import half_size, mnist
from models.generated import shapes
from models.geometric_vae import log_volume, metric, mixture, uniform
from models.networks import perceptron
from models.vae import model
from ppvi.objectives import analytic_elbo, elbo

ENTRY = Entry(
    name="geometric_vae",
    system="A Geometric Perspective on Variational Autoencoders",
    family="autoencoders",
    engine="NumPyro",
    objective="analytic_elbo; elbo of a mixture fitted to codes",
    strategies="Reparam",
    shows="",
    paper="Chadebec and Allassonnière 2022",
    link="https://arxiv.org/abs/2209.07370",
)
SEEDS, STEPS, BATCH, CENTRES = range(choose(1, 3)), choose(60, 3000), 100, choose(6, 200)
CHAINS, WARMUP, DRAWS, KEPT = choose(50, 500), choose(40, 100), choose(40, 40), choose(2, 4)
images = (mnist()[0][:5000], mnist("t10k")[0][:2000]) if FULL else (shapes(400), shapes(100, 1))
x, new = (jnp.asarray(half_size(each)) for each in images)
show(model, guide, metric, log_volume, uniform, mixture)

# %% [markdown]
# ## The uniform distribution, and that it is drawn from
#
# $$p(z) \propto \sqrt{\det G(z)} \qquad G(z) = \sum_i \Sigma_i^{-1} e^{-|z - \mu_i|^2_{\Sigma_i} / \rho^2}
#   + \lambda e^{-\tau |z|^2} I$$
#
# Of one centre, and without the second term, it is a Gaussian in closed form, $N(\mu, \frac{\rho^2}{d} \Sigma)$: every centre
# that is by itself has the same share, whatever its width, and draws are those of its own posterior, made wider or narrower.

# %%
own = jnp.array([[0.3, -0.7]]), jnp.array([[0.2, 0.5]])
points = jax.random.normal(jax.random.key(0), (20, 2))
gap = log_volume(points, *own, 1.5, 0.0) - dist.Normal(own[0], own[1] * 1.5 / 2**0.5).to_event(1).log_prob(points)
np.testing.assert_allclose(gap, gap[0], rtol=1e-4, atol=1e-3)

# %% [markdown]
# Of several centres there is only the density, for NUTS to draw from. In two dimensions a grid has all of it: how often draws
# of independent chains are in each of 64 cells is what the grid says, within the chains' own errors.


# %%
def drawn_uniformly(key, space, starts, sampler):
    """Draws `(chain, draw, latent)`, of chains that begin at given points."""
    sampler.run(key, *space, init_params={"z": starts})
    return sampler.get_samples(group_by_chain=True)["z"]


def sampler():
    options = {"num_chains": CHAINS, "chain_method": "vectorized", "progress_bar": False, "jit_model_args": True}
    return MCMC(NUTS(uniform, max_tree_depth=4), num_warmup=WARMUP, num_samples=DRAWS, **options)


rng, nuts = np.random.default_rng(0), sampler()
space = jnp.asarray(rng.normal(size=(6, 2))), jnp.asarray(rng.uniform(0.2, 0.4, (6, 2))), 2.0
z = drawn_uniformly(jax.random.key(1), space, jnp.zeros((CHAINS, 2)), nuts)
middles = (jnp.arange(400) + 0.5) / 400 * 10 - 5
grid = jnp.stack(jnp.meshgrid(middles, middles, indexing="ij"), -1)
mass = np.asarray(jax.nn.softmax(log_volume(grid, *space).ravel()), np.float64)
edges = np.quantile(z.reshape(-1, 2), np.linspace(0, 1, 9)[1:-1], axis=0)


def cell(points):
    """Which of 8 by 8 cells points are in."""
    row, column = (np.searchsorted(edges[:, i], np.asarray(points[..., i])) for i in (0, 1))
    return 8 * row + column


exact = np.bincount(cell(grid).ravel(), mass, 64)
each = np.stack([np.bincount(cell(chain), minlength=64) / DRAWS for chain in z])
errors = (each.mean(0) - exact) / (each.std(0, ddof=1) / CHAINS**0.5 + 1e-4)
print(f"64 cells: largest share {exact.max():.3f}, draws off by at most {abs(errors).max():.1f} standard errors")
assert abs(errors).max() < 6

# %% [markdown]
# ## Fit, and four ways to draw
# The plain autoencoder, on few images. Then 2,000 points: from the prior; from a mixture of ten Gaussians that is fitted to the
# codes afterwards; from the curved space by NUTS, in chains that begin at the centres, as the paper's do; and, what the
# paper does not have, from the centres' own Gaussians, $N(\mu_i, \frac{\rho^2}{d} \Sigma_i)$, with i at random, which needs no
# chains. As the author's program has it, $\rho$ is the largest distance of a centre from its next.


# %%
def fitted(latent, seed):
    sizes = {"latent": latent, "hidden": (choose(30, 200),), "batch": BATCH}
    bound = vi.objective(analytic_elbo, partial(model, **sizes), partial(guide, **sizes))
    return vi.fit(bound, jax.random.key(seed), x, num_steps=STEPS, optimizer=2e-3, progress=False).params


def curved(params, key):
    """Some codes with their scales, and the reach of each."""
    rows = jax.random.choice(key, len(x), (CENTRES,), replace=False)
    centres, scales = encode(params["encoder"], x[rows])
    apart = jnp.linalg.norm(centres[:, None] - centres, axis=-1) + jnp.where(jnp.eye(CENTRES), jnp.inf, 0)
    return centres, scales, apart.min(1).max()


def of_mixture(key, codes, n):
    bound = vi.objective(elbo, partial(mixture, parts=choose(2, 10)), lambda codes: None)
    params = vi.fit(bound, key, codes, num_steps=choose(30, 500), optimizer=0.02, progress=False).params
    shares = numpyro.handlers.substitute(mixture, params)
    return shares(codes, choose(2, 10)).sample(key, (n,))


def four_ways(params, key, nuts):
    """Points by way of drawing, and the share of chains that have come near another centre."""
    (centres, scales, rho), keys = curved(params, key), jax.random.split(key, 4)
    latent, n = centres.shape[1], CHAINS * KEPT
    begin, anew = (jax.random.randint(k, (n,), 0, CENTRES) for k in jax.random.split(keys[0]))
    chains = drawn_uniformly(keys[1], (centres, scales, rho), centres[begin[:CHAINS]], nuts)
    nearest = metric_nearest(chains[:, -1], centres, scales)
    return {
        "prior": jax.random.normal(keys[2], (n, latent)),
        "mixture of ten": of_mixture(keys[3], encode(params["encoder"], x)[0], n),
        "centres' Gaussians": centres[anew] + scales[anew] * rho / latent**0.5 * jax.random.normal(keys[3], (n, latent)),
        "uniform, by NUTS": chains[:, :: DRAWS // KEPT][:, -KEPT:].reshape(n, latent),
    }, float((nearest != begin[:CHAINS]).mean())


def metric_nearest(z, centres, scales):
    return (((z[:, None] - centres) / scales) ** 2).sum(-1).argmin(1)


def distances(a, b):
    """From each of some pictures to the nearest of others."""
    squares = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)
    return jnp.sqrt(jnp.maximum(squares.min(1), 0))


MEASURES = "Fréchet distance", "to the nearest test image", "from test images"
found, moved, pictures, kept = {}, {}, {}, {}
for latent in choose((2,), (2, 10)):
    nuts = sampler() if latent > 2 or FULL else nuts
    for seed in SEEDS:
        params = fitted(latent, seed)
        points, share = four_ways(params, jax.random.key(seed), nuts)
        moved.setdefault(latent, []).append(share)
        for way, z in points.items():
            drawn = jax.nn.sigmoid(perceptron(params["decoder"], z))
            values = frechet_distance(drawn, new), distances(drawn, new).mean(), distances(new, drawn).mean()
            for measure, value in zip(MEASURES, values, strict=True):
                found.setdefault(latent, {}).setdefault(way, {}).setdefault(measure, []).append(float(value))
            pictures[latent, way] = drawn[:: max(1, len(drawn) // 24)][:24]
        kept[latent] = params, points
        print(f"latent {latent}, seed {seed}: {share:.2f} of chains are by another centre than they began at")
        for way, by in found[latent].items():
            print(f"   {way:20}", {measure: round(values[-1], 3) for measure, values in by.items()}, flush=True)
