"""Charts of a surface: each is a map of a plane into space, and a point of the surface has been drawn on one of them.

    chart_i ~ Categorical(share)    z_i ~ N(0, I_2)    x_i ~ N(decode_chart(z_i), noise^2 I)

A sphere or a torus is no deformed plane: whoever maps a plane on it tears it somewhere. Atlases cover the earth by maps that
overlap, and so does a mixture of autoencoders, of which each decoder is a map. Alberti, Hertrich, Santacesaria and Sciutto,
"Manifold learning by mixture models of VAEs for inverse problems", JMLR 2024.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models.networks import dense, perceptron

LATENT, HIDDEN = 2, (32, 32)


def start(*sizes):
    """Weights of a perceptron of these widths, of one draw, for `numpyro.param`."""
    return lambda key: list(dense(key, **{str(i): pair for i, pair in enumerate(itertools.pairwise(sizes))}).values())


def several(charts, *sizes):
    """Weights of one for each chart."""
    return lambda key: jax.vmap(start(*sizes))(jax.random.split(key, charts))


def on_charts(weights, x):
    """What the networks of all charts make of x, `(charts, ..., outputs)`."""
    return jax.vmap(perceptron, (0, None))(weights, x)


def of_chart(each, chart):
    """Of what there is for each chart `(charts, n, k)`: that of each point's own, `(n, k)`."""
    return jnp.take_along_axis(each, chart[None, :, None], 0)[0]


def model(x, charts, batch=None, noise=0.05):
    """Of points `(n, 3)`; a minibatch of so many of them stands for all."""
    weights = numpyro.param("decoders", several(charts, LATENT, *HIDDEN, x.shape[1]))
    share = numpyro.param("share", jnp.zeros(charts))
    with numpyro.plate("points", len(x), subsample_size=batch) as rows:
        chart = numpyro.sample("chart", dist.Categorical(logits=share))
        z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
        numpyro.sample("x", dist.Normal(of_chart(on_charts(weights, z), chart), noise).to_event(1), obs=x[rows])


def draws(params, n, seed):
    """Points that the model draws, without noise, `(n, 3)`, and their charts."""
    rng, share = np.random.default_rng(seed), np.asarray(jax.nn.softmax(params["share"]), np.float64)
    own = rng.choice(len(share), n, p=share / share.sum())
    each = on_charts(params["decoders"], rng.normal(size=(n, LATENT)).astype(np.float32))
    return np.asarray(each)[own, np.arange(n)], own
