# %% [markdown]
# # Diffusion variational autoencoders: a latent space with the data's topology
#
# Pictures of a thing that turns lie on a closed curve or surface: after a whole turn the same picture is back. A latent space
# of normal variables is flat and open, so that an encoder into as many dimensions as there are degrees of freedom has to tear
# the data somewhere. Here the latent space is a circle, a torus, a sphere or the rotations of space, and the guide of a
# picture is where Brownian motion from some point is after some time.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ppvi
import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from guides.diffusion_vae import Brownian, encode, guide
from models.generated import turned
from models.diffusion_vae import Manifold, model, rotations, sphere, torus
from ppvi.objectives import elbo, iwelbo

ENTRY = Entry(
    name="diffusion_vae",
    system="Diffusion Variational Autoencoders",
    family="autoencoders",
    engine="NumPyro",
    objective="elbo by heat kernels; with the paper's divergence for short times, on the page",
    strategies="Reparam",
    shows="one's own distributions on closed manifolds; circle and sphere of turned things are found, rotations not",
    paper="Perez Rey, Menkovski and Portegies 2020",
    link="https://arxiv.org/abs/1901.08991",
)
SPACES = {"circle": torus(1), "torus": torus(2), "sphere": sphere(), "rotations": rotations()}
SEEDS, N, STEPS, BATCH = range(choose(1, 3)), choose(100, 4000), choose(20, 2000), choose(20, 100)
show(Manifold, Brownian, model, guide)

# %% [markdown]
# ## The kernels
# A kernel is a density: its integral over the manifold is one. A draw should have it as its density, and the mean of the
# points at time t is the place they began at, times $e^{-t/2}$ on the circle and $e^{-t}$ on sphere and rotations, which are
# eigenvalues of the Laplacian. By quadrature over the angle from there:

# %%
a = (jnp.arange(4000) + 0.5) / 4000 * jnp.pi
north = {"circle": jnp.array([1.0, 0]), "sphere": jnp.array([0, 0, 1.0]), "rotations": jnp.eye(3).ravel()}
away = {"circle": a[:, None], "sphere": jnp.outer(a, jnp.eye(3)[0]), "rotations": jnp.outer(a, jnp.eye(3)[2])}
area = {"circle": 2 + 0 * a, "sphere": 2 * jnp.pi * jnp.sin(a), "rotations": 16 * jnp.pi * jnp.sin(a / 2) ** 2}


def divergence(space, t):
    """From the uniform density, for short times."""
    return jnp.log(space.volume) - space.dimension / 2 * (jnp.log(2 * jnp.pi * t) + 1) + space.curvature * t / 4


@partial(jax.jit, static_argnames="name")
def by_quadrature(name, t):
    """Mass, mean and divergence of the kernel; and the mean of many walks."""
    space, start, weights = SPACES[name], north[name], area[name] * jnp.pi / 4000
    points = space.step(jnp.broadcast_to(start, (4000, space.size)), away[name])
    kernel = weights * jnp.exp(log_kernel := space.log_kernel(points, start, jnp.full(4000, t)))
    walks = Brownian(space, start, t).sample(jax.random.key(0), (20_000,)) @ start / (start @ start)
    excess = jnp.maximum(log_kernel, -100) + jnp.log(space.volume)
    return kernel.sum(), kernel @ points @ start / (start @ start), kernel @ excess, walks.mean()


gaps = {}
for name, t in [(name, t) for name in choose(["circle", "rotations"], north) for t in (0.01, 0.03, 0.1, 0.25)]:
    mass, mean, exact, walked = by_quadrature(name, t)
    np.testing.assert_allclose(mass, 1, atol=2e-3)
    np.testing.assert_allclose([mean, walked], np.exp(-t / (2 if name == "circle" else 1)), atol=5e-3)
    gaps.setdefault(name, []).append(float(exact - divergence(SPACES[name], t)))
print("divergence from the uniform density, by quadrature less by its expansion", gaps)
assert max(abs(gap) for by in gaps.values() for gap in by) < 5e-3

# %% [markdown]
# ## The objective
# The kernel gives the evidence lower bound itself. The paper uses no kernel but the expansion of the divergence in short times,
# which needs nothing but the manifold's dimension d, volume and scalar curvature c:
#
# $$E_q \log p(x \mid z) - \log \text{Vol} + \tfrac{d}{2} (1 + \log 2 \pi t) - \tfrac{c\, t}{4}$$


# %%
def expanded(space):
    def bound(p, q):
        z = q.simulate()
        return p.log_probs(z)["x"].sum() - ppvi.total(divergence(space, z.returned[1]), per="images")

    return bound


def programs(space):
    return partial(model, manifold=space), partial(guide, manifold=space)


thing, few = choose("circle", "sphere"), choose(["circle"], list(SPACES))
x, space = jnp.asarray(turned(thing, N)[0], jnp.float32), SPACES[thing]
pair = [vi.objective(program, *programs(space)) for program in (elbo, expanded(space))]
start = pair[0].init(jax.random.key(0), x, batch=BATCH)
assert [bound.prove(start, x, batch=BATCH).verdict for bound in pair] == ["proved", "proved"]


def excess(p, q):
    """Of the sampled divergence over its expansion."""
    z = q.simulate()
    sampled = z.per("images") + jnp.log(space.volume)
    return ppvi.total(sampled - divergence(space, z.returned[1]), per="images")


excess = jax.vmap(vi.objective(excess, *programs(space)).estimate, (0, None, None))
excess = excess(jax.random.split(jax.random.key(1), 200), start, x[:BATCH]) / BATCH
print(f"divergence less its expansion, nats a picture: {excess.mean():.4f} ± {excess.std() / 200**0.5:.4f}")
assert abs(excess.mean()) < 5 * excess.std() / 200**0.5 + 5e-3

# %% [markdown]
# ## Fit
# Each thing in the latent space that it is made for, and in a flat one of as many dimensions. Two mistakes are possible. Where
# the encoder *folds*, different pictures share a point, and the density of new pictures suffers. Where it *tears*, pictures
# that are a twentieth of a radian apart come far from one another: the farthest pair of many, in medians, is the stretch.


# %%
def judged(name, space, params, mean):
    """Log density; and how far pairs of pictures are apart, in medians."""
    new, near = (jnp.asarray(rows, jnp.float32) - mean for rows in turned(name, choose(100, 4000), 100, apart=0.05))
    density = jax.jit(vi.objective(iwelbo(choose(5, 100), per="images"), *programs(space)).estimate)
    places = [encode(params["encoder"], rows, space)[0] for rows in (new, near)]
    far = jnp.linalg.norm(places[0] - places[1], axis=1) if isinstance(space, int) else space.distance(*places)
    thousand = new[:1000]
    return float(density(jax.random.key(1), params, thousand)) / len(thousand), np.asarray(far / jnp.median(far))


found, pairs, options = {}, {}, {"batch": BATCH, "num_steps": STEPS, "optimizer": 2e-3, "progress": False}
for name in few:
    for which, space in ({"closed": SPACES[name]} | choose({}, {"flat": SPACES[name].dimension})).items():
        bound, found[name, which] = vi.objective(elbo, *programs(space)), []
        for seed in SEEDS:
            x = jnp.asarray(turned(name, N, seed)[0], jnp.float32)
            fit = vi.fit(bound, jax.random.key(seed), x - x.mean(0), **options)
            density, pairs[name, which] = judged(name, space, fit.params, x.mean(0))
            found[name, which].append((density, pairs[name, which].max()))
        columns = np.transpose(found[name, which])
        print(
            f"{name:9} {which:6} log density {said(columns[0])}, stretch {said(columns[1], 1)}", columns[1], flush=True
        )

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
for which, color in zip(choose(["closed"], ["closed", "flat"]), ("tab:blue", "tab:orange"), strict=False):
    for axis, k in zip(axes, (0, 1), strict=False):
        means, errors = np.nan_to_num([mean_se(np.transpose(found[name, which])[k]) for name in few]).T
        axis.errorbar(few, means, errors, fmt="o", capsize=4, color=color, label=which)
    axes[2].hist(
        pairs[choose("circle", "sphere"), which], np.geomspace(0.1, 100, 60), color=color, alpha=0.6, label=which
    )
axes[0].set(title="log density of new pictures", ylabel="nats a picture")
axes[1].set(title="largest stretch", ylabel="medians", yscale="log")
axes[2].set(title="sphere: pairs of near pictures", xlabel="distance in the latent space, medians", ylabel="pairs")
axes[2].set(xscale="log", yscale="log")
axes[0].legend()
ENTRY.picture(figure)

# %% [markdown]
# ## The claim
# The paper: the topology of data that turn or shift is captured, by tori, spheres and rotations, and cannot be by flat
# spaces. Here, small pictures, 2,000 steps, three seeds. The circle is found always (95.5 nats and no tear, against 25 ± 22
# of the line, which folds or tears), and so is the sphere: the largest stretch is 2.5 ± 0.3, in the plane 23.2 ± 1.2, with a
# density that is no worse (175.8 ± 2.7 nats, 171.8 ± 0.9). The torus is better than the plane (74.3 ± 6.8, 43.8 ± 9.3), but
# only one of three encoders found it without a tear, and of rotations none did: the stretch is 41.1 ± 1.5, of the flat space
# 3.7, though their density is better, too (151.6 ± 0.7, 146.9 ± 0.4). The right space does not suffice: training has to find
# the way.
#
# To change first: `LONGEST`; the pictures less their mean, without which the encoder begins with all of them in one place.
#
# Perez Rey, Menkovski and Portegies, "Diffusion variational autoencoders", IJCAI 2020.

# %%
said_of = {where: [said(column, 1) for column in np.transpose(rows)] for where, rows in found.items()}
result = "; ".join(f"{', '.join(where)}: {nats} nats, stretch {far}" for where, (nats, far) in said_of.items())
numbers = {f"{name}, {which}": rows for (name, which), rows in found.items()}
ENTRY.record(result, seeds=SEEDS, steps=STEPS, found=numbers, gaps=gaps)
assert all(stretch < choose(3, 1.1) for _, stretch in found["circle", "closed"])
if FULL:
    density, stretch = ({where: np.array(rows)[:, k] for where, rows in found.items()} for k in (0, 1))
    assert density["circle", "closed"].min() > density["circle", "flat"].max()
    assert all(density[name, "closed"].mean() > density[name, "flat"].mean() for name in SPACES)
    assert 3 * stretch["sphere", "closed"].max() < stretch["sphere", "flat"].min()
