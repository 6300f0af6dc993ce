"""The latent space of an autoencoder as a curved space, whose metric the encoder writes; and the uniform distribution on it.

    G(z) = sum_i S_i^-1 w_i(z) + lam exp(-tau |z|^2) I    w_i(z) = exp(-(z - m_i)' S_i^-1 (z - m_i) / rho^2)
    z ~ sqrt(det G(z)) / volume

The encoder says of a picture a centre m_i and variances S_i: small ones where a small step changes the picture. Read as
lengths, 1 / S_i is a metric at m_i, and G continues it to where there are no pictures; there it is small, and so is the
volume. The autoencoder is that of `models.vae`. Chadebec and Allassonnière, "A geometric perspective on variational
autoencoders", NeurIPS 2022.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import MCMC, NUTS


def metric(z, centres, scales, rho, lam=0.01, tau=0.01):
    """The diagonal of G at points `(..., latent)`, by centres and scales `(centres, latent)`."""
    precisions = scales**-2
    apart = (((z[..., None, :] - centres) ** 2) * precisions).sum(-1)
    return jnp.exp(-apart / rho**2) @ precisions + lam * jnp.exp(-tau * (z**2).sum(-1, keepdims=True))


def log_volume(z, *space):
    """Logarithm of sqrt(det G) at points."""
    return jnp.log(metric(z, *space)).sum(-1) / 2


def uniform(*space):
    """A point of the curved space, all its parts alike."""
    z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real_vector, (), space[0].shape[1:]))
    numpyro.factor("volume", log_volume(z, *space))


def chains(key, space, starts, num_warmup, num_samples):
    """Draws of it `(chain, draw, latent)`, by chains that begin at given points."""
    options = {"num_chains": len(starts), "chain_method": "vectorized", "progress_bar": False}
    found = MCMC(NUTS(uniform, max_tree_depth=4), num_warmup=num_warmup, num_samples=num_samples, **options)
    found.run(key, *space, init_params={"z": starts})
    return found.get_samples(group_by_chain=True)["z"]


def reach(centres):
    """The largest distance of a centre from the one next to it."""
    apart = jnp.linalg.norm(centres[:, None] - centres, axis=-1) + jnp.where(jnp.eye(len(centres)), jnp.inf, 0)
    return apart.min(1).max()


def mixture(codes, parts):
    """Codes `(n, latent)` from a mixture of Gaussians, to be fitted after training."""
    at = numpyro.param("at", lambda key: jax.random.choice(key, codes, (parts,), replace=False))
    start = jnp.tile(0.5 * jnp.eye(codes.shape[1]), (parts, 1, 1))
    tril = numpyro.param("tril", start, constraint=dist.constraints.lower_cholesky)
    shares = numpyro.param("shares", jnp.full(parts, 1 / parts), constraint=dist.constraints.simplex)
    found = dist.MixtureSameFamily(dist.CategoricalProbs(shares), dist.MultivariateNormal(at, scale_tril=tril))
    with numpyro.plate("images", len(codes)):
        numpyro.sample("code", found, obs=codes)
    return found


def energy(curves, space):
    """Energy of broken lines `(n, points, latent)` in the metric I / sqrt(det G): ways are short where pictures are."""
    step = jnp.diff(curves, axis=1)
    within = curves[:, :-1, None] + (jnp.arange(8) + 0.5)[:, None] / 8 * step[:, :, None]
    potential = jnp.exp(-log_volume(within, *space)).mean(-1)
    return step.shape[1] * (potential * (step**2).sum(-1)).sum(-1)


def shortest(curves, space, steps):
    """The curves, bent by Adam to less energy, with their ends where they are."""
    rule, moves = optax.adam(0.02), jnp.ones((curves.shape[1], 1)).at[jnp.array([0, -1])].set(0)

    def better(_, now):
        curves, state = now
        slope = jax.grad(lambda curves: jnp.log(energy(curves, space)).sum())(curves)
        change, state = rule.update(slope * moves, state)
        return optax.apply_updates(curves, change), state

    return jax.lax.fori_loop(0, steps, better, (curves, rule.init(curves)))[0]
