"""Guide of charts: a network says on which chart a point is, and that chart's encoder where on it; and walks that go by it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.charts import HIDDEN, LATENT, of_chart, on_charts, several, start
from models.networks import perceptron


def encode(weights, x):
    """Location and scale on every chart, `(charts, n, 2)` each."""
    loc, log_scale = jnp.split(on_charts(weights, x), 2, -1)
    return loc, jnp.exp(log_scale)


def guide(x, charts, batch=None):
    which = numpyro.param("which", start(x.shape[1], *HIDDEN, charts))
    encoders = numpyro.param("encoders", several(charts, x.shape[1], *HIDDEN, 2 * LATENT))
    with numpyro.plate("points", len(x), subsample_size=batch) as rows:
        chart = numpyro.sample("chart", dist.Categorical(logits=perceptron(which, x[rows])))
        loc, scale = (of_chart(each, chart) for each in encode(encoders, x[rows]))
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1))


def downhill(params, at, a, y):
    """A step down |a x - y|^2 / 2 in the metric of the surface, from a chart and a place on it; and where it leads in space."""
    chart, z = at
    x = perceptron(jax.tree.map(lambda w: w[chart], params["decoders"]), z)
    chances = jax.nn.softmax(perceptron(params["which"], x))
    leaves, chart = chances[chart] < 0.1, jnp.where(chances[chart] < 0.1, chances.argmax(), chart)
    z = jnp.where(leaves, encode(params["encoders"], x)[0][chart], z)
    decode = partial(perceptron, jax.tree.map(lambda w: w[chart], params["decoders"]))
    tangents = jax.jacfwd(decode)(z)
    slope = tangents.T @ a.T @ (a @ decode(z) - y)
    z -= 0.1 * jnp.linalg.solve(tangents.T @ tangents + 1e-3 * jnp.eye(2), slope)
    return (chart, z), decode(z)


@jax.jit
def walk(params, x, a, y):
    """The places of walks of 300 steps from points `(n, 3)`, each with its own measurement, `(300, n, 3)`."""
    chart = perceptron(params["which"], x).argmax(1)
    z = of_chart(encode(params["encoders"], x)[0], chart)
    return jax.lax.scan(lambda at, _: jax.vmap(partial(downhill, params))(at, a, y), (chart, z), None, 300)[1]
