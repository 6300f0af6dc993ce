"""An autoencoder whose prior has a width of its own for every latent dimension, which the data decide.

    alpha_l ~ Gamma(a_0, b_0)    z_il ~ N(0, 1 / alpha_l)    x_i ~ N(decode(z_i), noise^2)

The Gamma distribution is conjugate: given the squares of n points that the encoder drew for data, alpha_l is Gamma(a, b_l) with
a = a_0 + n / 2 and b_l = b_0 + sum_i z_il^2 / 2, and a new point, alpha integrated out, has a Student distribution with 2a
degrees of freedom and the scale sqrt(b_l / a). This is the prior that the model draws from.
Saha, Joshi and Whitaker, "ARD-VAE: a statistical formulation to find the relevant latent dimensions of variational
autoencoders", 2025.
"""

import jax.numpy as jnp
import numpyro.distributions as dist

HIDDEN = 100
A0, B0 = 1e-3, 1e-3


def updated(squares, n):
    """The Gamma distribution of precisions given the sums of squares of n points: `a` and `b`."""
    return A0 + n / 2, B0 + squares / 2


def given(a, b):
    """The distribution of a new point."""
    return dist.StudentT(2 * a, 0.0, jnp.sqrt(b / a)).to_event(1)
