"""The latent space of an autoencoder as a curved space, whose metric the encoder writes; and the uniform distribution on it.

    G(z) = sum_i S_i^-1 w_i(z) + lam exp(-tau |z|^2) I    w_i(z) = exp(-(z - m_i)' S_i^-1 (z - m_i) / rho^2)
    z ~ sqrt(det G(z)) / volume

The encoder says of a picture a centre m_i and variances S_i: small ones where a small step changes the picture. Read as lengths,
1 / S_i is a metric at m_i, and G continues it to where there are no pictures; there it is small, and so is the volume. The
autoencoder is that of `models.vae`. Chadebec and Allassonnière, "A geometric perspective on variational autoencoders", NeurIPS 2022.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


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
