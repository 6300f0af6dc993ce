"""Value and gradient of a 784-200-10 Bernoulli VAE's ELBO: ppvi, NumPyro's Trace_ELBO, hand-written JAX.

The data are binary noise: the cost does not depend on them. Run with `python benchmarks/vae_overhead.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import Trace_ELBO

import ppvi.numpyro as vi
from benchmarks.results import table
from benchmarks.timing import microseconds, ratio, rounds
from ppvi.objectives import elbo

PIXELS, HIDDEN, LATENT = 784, 200, 10


def layers(key, sizes):
    keys = jax.random.split(key, len(sizes))
    return [
        (jax.random.normal(k, (m, n)) / jnp.sqrt(m), jnp.zeros(n))
        for k, m, n in zip(keys, sizes, sizes[1:], strict=False)
    ]


def encode(weights, x):
    (w, b), (heads, bias) = weights
    out = jax.nn.softplus(x @ w + b) @ heads + bias
    return out[..., :LATENT], jnp.exp(out[..., LATENT:])


def decode(weights, z):
    (w, b), (v, c) = weights
    return jax.nn.softplus(z @ w + b) @ v + c


def model(x):
    weights = numpyro.param("decoder")
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([LATENT]).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=decode(weights, z)).to_event(1), obs=x)


def guide(x):
    loc, scale = encode(numpyro.param("encoder"), x)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1))


def by_hand(key, params, x):
    """The same single-sample ELBO, densities written out."""
    loc, scale = encode(params["encoder"], x)
    e = jax.random.normal(key, loc.shape)
    z = loc + scale * e
    logits = decode(params["decoder"], z)
    log_x = jnp.sum(x * logits - jax.nn.softplus(logits))
    log_p = -0.5 * jnp.sum(z**2)
    log_q = -0.5 * jnp.sum(e**2) - jnp.sum(jnp.log(scale))
    return log_x + log_p - log_q


def contenders(batch):
    key = jax.random.key(0)
    x = (jax.random.uniform(jax.random.key(2), (batch, PIXELS)) < 0.2).astype(jnp.float32)
    params = {
        "encoder": layers(key, [PIXELS, HIDDEN, 2 * LATENT]),
        "decoder": layers(jax.random.key(1), [LATENT, HIDDEN, PIXELS]),
    }
    bound = vi.objective(elbo, model, guide)
    loss = Trace_ELBO()
    steps = {
        "ppvi": jax.jit(bound.value_and_grad),
        "NumPyro": jax.jit(
            lambda key, params, x: jax.value_and_grad(lambda p: -loss.loss(key, p, model, guide, x))(params)
        ),
        "by hand": jax.jit(jax.value_and_grad(by_hand, argnums=1)),
    }
    return {name: lambda step=step: step(key, params, x) for name, step in steps.items()}


def main():
    rows = []
    for batch in (64, 128, 256, 512, 1024):
        times = rounds(contenders(batch))
        rows.append(
            (
                str(batch),
                *map(microseconds, times.values()),
                ratio(times, "ppvi", "by hand"),
                ratio(times, "ppvi", "NumPyro"),
                ratio(times, "NumPyro", "by hand"),
            )
        )
    header = ("batch", *times, "ppvi / by hand", "ppvi / NumPyro", "NumPyro / by hand")
    table("VAE 784-200-10, value and gradient (median [min, max] of ratios by round)", header, rows)


if __name__ == "__main__":
    main()
