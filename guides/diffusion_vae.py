"""The guide of the autoencoder on a manifold: Brownian motion from a place that a network says, for a time that it says.

    q(z_i) = kernel(t(x_i), m(x_i), z_i)

A draw is a walk of a few geodesic steps, a differentiable function of place and time. Perez Rey, Menkovski and Portegies,
"Diffusion variational autoencoders", IJCAI 2020, whose steps are straight and projected back.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, perceptron

LONGEST, STEPS = 0.25, 5


class Brownian(dist.Distribution):
    """Where Brownian motion from `loc` is after `time`, approximately: by so many steps.

    **Arguments**

    - `manifold`: one of `models.diffusion_vae`; `loc`: `(*batch, size)`; `time`: `(*batch,)`.
    """

    support = dist.constraints.real_vector
    reparametrized_params = ("loc", "time")
    pytree_data_fields = ("loc", "time")
    pytree_aux_fields = ("manifold",)

    def __init__(self, manifold, loc, time):
        self.manifold, self.loc, self.time = manifold, loc, time
        super().__init__(batch_shape=time.shape, event_shape=(manifold.size,))

    def sample(self, key, sample_shape=()):
        shape = (*sample_shape, *self.batch_shape, self.manifold.noise)
        z = jnp.broadcast_to(self.loc, (*shape[:-1], self.manifold.size))
        for noise in jax.random.normal(key, (STEPS, *shape)):
            z = self.manifold.step(z, jnp.sqrt(self.time / STEPS)[..., None] * noise)
        return z

    def log_prob(self, value):
        return self.manifold.log_kernel(self.loc, value, self.time)


def encode(weights, x, manifold):
    """Place and time of each picture; in a flat space, location and scale."""
    raw = perceptron(weights, x)
    if isinstance(manifold, int):
        return raw[..., :manifold], jnp.exp(raw[..., manifold:])
    return manifold.place(raw[..., :-1]), LONGEST * jax.nn.sigmoid(raw[..., -1] - 2)


def guide(x, batch=None, *, manifold, hidden=(100,)):
    """Returns place and time."""
    outputs = 2 * manifold if isinstance(manifold, int) else manifold.raw + 1
    weights = numpyro.param("encoder", lambda key: glorot(key, x.shape[1], *hidden, outputs))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        place = encode(weights, x[rows], manifold)
        flat = isinstance(manifold, int)
        numpyro.sample("z", dist.Normal(*place).to_event(1) if flat else Brownian(manifold, *place))
    return place
