"""An autoencoder whose decoder sees a little of the picture: each pixel given its neighbours before it, and a point.

    z_i ~ prior    x_id ~ Bernoulli(sigmoid(a_d + near(a_d, neighbours of d before it))),    a = far(z_i)

`far` writes a logit for every pixel from the point alone, and `near`, the same small network at all pixels, corrects it in the
light of those within `field` rows and columns that come before it in reading order. With a field of none this is the
autoencoder of `models.vae`; with all pixels before, as `field=None` has it, the masked network of `models.infovae`, which
needs no point. The prior is a Gaussian, or what layers make of one that are autoregressive: their inverse is the flow of
`models.flows`, so that a density takes one pass.

Chen, Kingma, Salimans, Duan, Dhariwal, Schulman, Sutskever and Abbeel, "Variational lossy autoencoder", ICLR 2017.
"""

import functools

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.nn import relu

from models import infovae
from models.flows import Flow, first_weights, inverse_autoregressive
from models.infovae import LATENT
from models.networks import glorot, perceptron

HIDDEN, NEAR, PRIOR = 200, 16, 40
"""Units of the two networks, and of each layer of the prior."""


def neighbours(x, field, shape):
    """Of each pixel those before it within so many rows and columns, `(n, pixels, 2 field (field + 1))`."""
    rows, columns = shape
    wide = jnp.pad(x.reshape(-1, rows, columns), ((0, 0), (field, 0), (field, field)))
    before = [(i, j) for i in range(field + 1) for j in range(2 * field + 1) if (i, j) < (field, field)]
    seen = [wide[:, i : i + rows, j : j + columns] for i, j in before]
    return jnp.stack(seen, -1).reshape(-1, rows * columns, len(seen))


def decoder(field, shape, key):
    """Weights from which training starts."""
    if field is None:
        return infovae.decoder(key)
    far, near = jax.random.split(key)
    weights = {"far": glorot(far, LATENT, HIDDEN, shape[0] * shape[1])}
    return weights | ({"near": glorot(near, 1 + 2 * field * (field + 1), NEAR, 1)} if field else {})


def logits(weights, x, z, field, shape=(28, 28)):
    """Of each pixel given those before it and the point."""
    if field is None:
        return infovae.logits(weights, x, z)
    alone = perceptron(weights["far"], z)
    if not field:
        return alone
    seen = jnp.concatenate([alone[..., None], neighbours(x, field, shape)], -1)
    return alone + perceptron(weights["near"], seen, relu)[..., 0]


def prior(layers):
    """A Gaussian, or what so many autoregressive layers make of it."""
    noise = dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1)
    if not layers:
        return noise
    start = functools.partial(first_weights, inverse_autoregressive, layers, LATENT, (), PRIOR)
    return dist.TransformedDistribution(noise, Flow(inverse_autoregressive, numpyro.param("prior", start)).inv)


def model(x, batch=None, field=2, layers=4, shape=(28, 28)):
    """Of pictures `(n, pixels)` of zeros and ones; a minibatch of so many of them stands for all."""
    weights = numpyro.param("decoder", functools.partial(decoder, field, shape))
    with numpyro.plate("images", len(x), subsample_size=batch) as rows:
        z = numpyro.sample("z", prior(layers))
        numpyro.sample("x", dist.Bernoulli(logits=logits(weights, x[rows], z, field, shape)).to_event(1), obs=x[rows])


def of_noise(x):
    """The same with the noise for its point, from which the decoder makes the prior's: another guide's, with the same bound."""
    weights, layers = numpyro.param("decoder", None), numpyro.param("prior", None)
    with numpyro.plate("images", len(x)):
        z = numpyro.sample("z", prior(0))
        point = Flow(inverse_autoregressive, layers).inv(z)
        numpyro.sample("x", dist.Bernoulli(logits=logits(weights, x, point, 2)).to_event(1), obs=x)


@functools.partial(jax.jit, static_argnames=("field",))
def pictures(key, weights, z, field):
    """Drawn from points, pixel by pixel."""

    def step(drawn, d):
        chance = jax.nn.sigmoid(logits(weights, drawn, z, field)[:, d])
        return drawn.at[:, d].set(jax.random.bernoulli(jax.random.fold_in(key, d), chance).astype(float)), None

    return jax.lax.scan(step, jnp.zeros((len(z), infovae.PIXELS)), jnp.arange(infovae.PIXELS))[0]
