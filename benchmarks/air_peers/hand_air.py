"""Written by hand in JAX, batched, for this model only: what the other contenders are measured against.

The networks are those of `models.air_networks`; densities and estimators are written out. The cost of a run is
log p(image, z) - log q(z), one for each image.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient as stop

import ppvi.numpyro  # noqa: F401  (for the flags of XLA that it sets)
from benchmarks.air_peers.adam import serve_adam
from models.air_networks import (
    IMAGE,
    NOISE,
    PRESENT,
    UNITS,
    WHAT,
    WHERE,
    WHERE_LOC,
    WHERE_SCALE,
    attend,
    decode,
    decoder,
    encode,
    heads,
    look,
    lstm,
    paint,
    recognition,
)

TINY = 1e-30


def log_normal(x, loc, scale):
    return -0.5 * (((x - loc) / scale) ** 2).sum(-1) - jnp.log(scale * jnp.ones_like(x)).sum(-1)


def log_bernoulli(present, p):
    return jnp.where(present > 0, jnp.log(jnp.maximum(p, TINY)), jnp.log1p(-p))


def begin(params, images):
    n = len(images)
    zeros = jnp.zeros((n, UNITS))
    return {
        "images": images,
        "seen": look(params["recognition"], images),
        "state": (zeros, zeros),
        "present": jnp.ones(n),
        "where": jnp.zeros((n, WHERE)),
        "what": jnp.zeros((n, WHAT)),
        "canvas": jnp.zeros((n, IMAGE, IMAGE)),
        "log_w": jnp.zeros(n),
    }


def chance(params, now):
    """The state after the LSTM, and the probability of a further object with what the heads say of its place."""
    before = (now["where"], now["what"], now["present"][:, None])
    state = lstm(params["recognition"], now["seen"], before, now["state"])
    further, *place = heads(params["recognition"], state[0])
    return now | {"state": state}, further * now["present"], place


def follow(params, now, key, t, p, place, present):
    """The rest of step t after presence is known."""
    key_where, key_what = jax.random.split(key)
    found = present[:, None] > 0
    log_w = log_bernoulli(present, PRESENT[t] * now["present"]) - log_bernoulli(present, p)
    loc = WHERE_LOC + jnp.where(found, place[0], 0.0) * WHERE_SCALE
    scale = WHERE_SCALE * jnp.where(found, place[1], 1.0)
    where = loc + scale * jax.random.normal(key_where, loc.shape)
    log_w += log_normal(where, WHERE_LOC, WHERE_SCALE) - log_normal(where, loc, scale)
    loc, scale = encode(params["recognition"], attend(where, now["images"]))
    loc, scale = jnp.where(found, loc, 0.0), jnp.where(found, scale, 1.0)
    what = loc + scale * jax.random.normal(key_what, loc.shape)
    log_w += log_normal(what, 0.0, 1.0) - log_normal(what, loc, scale)
    canvas = now["canvas"] + present[:, None, None] * paint(where, decode(params["decoder"], what))
    changed = {"present": present, "where": where, "what": what, "canvas": canvas, "log_w": now["log_w"] + log_w}
    return now | changed


def end(now):
    flat = (now["images"] - now["canvas"]).reshape(-1, IMAGE**2)
    return now["log_w"] - 0.5 * (flat**2).sum(-1) / NOISE**2 - IMAGE**2 * (np.log(NOISE) + 0.5 * np.log(2 * np.pi))


def draw(key, p):
    return jnp.float32(jax.random.uniform(key, p.shape) < p)


def run_on(params, now, key, t):
    """A run from step t on: the cost and the log_prob of its presences."""
    score = jnp.zeros(len(now["images"]))
    for s in range(t, 3):
        key, coin, rest = jax.random.split(key, 3)
        now, p, place = chance(params, now)
        present = draw(coin, stop(p))
        score += log_bernoulli(present, p)
        now = follow(params, now, rest, s, p, place, present)
    return end(now), score


def with_flips(params, images, key):
    """A run, and for every presence p and the difference between the rest with and without it."""
    now, differences = begin(params, images), []
    for t in range(3):
        key, coin, rest, other = jax.random.split(key, 4)
        now, p, place = chance(params, now)
        present = draw(coin, stop(p))
        flipped = stop(follow(params, now, other, t, p, place, 1 - present))
        differences.append((p, present, stop(run_on(params, flipped, other, t + 1)[0])))
        now = follow(params, now, rest, t, p, place, present)
    return end(now), differences


def reinforce(params, images, key):
    cost, score = run_on(params, begin(params, images), key, 0)
    return cost + stop(cost) * score


def measure_valued(params, images, key):
    cost, differences = with_flips(params, images, key)
    return cost + sum(stop((1 - 2 * present) * (other - cost)) * p for p, present, other in differences)


def enumerated(params, images, key):
    """All eight runs, side by side in the batch."""
    now, weight = begin(params, images), jnp.ones(len(images))
    for t in range(3):
        key, rest = jax.random.split(key)
        now, p, place = chance(params, now)
        present = jnp.repeat(jnp.array([0.0, 1.0]), len(p))
        now, p, place, weight = jax.tree.map(lambda x: jnp.concatenate([x, x]), (now, p, place, weight))
        weight = weight * jnp.where(present > 0, p, 1 - p)
        now = follow(params, now, rest, t, p, place, present)
    return (weight * end(now)).reshape(8, -1).sum(0)


def iwelbo_reinforce(params, images, key):
    pair = jnp.concatenate([images, images])
    log_w, score = (x.reshape(2, -1) for x in run_on(params, begin(params, pair), key, 0))
    bound = jax.nn.logsumexp(log_w, 0) - jnp.log(2.0)
    return bound + stop(bound) * score.sum(0)


def iwelbo_measure_valued(params, images, key):
    log_w, differences = with_flips(params, jnp.concatenate([images, images]), key)
    log_w = log_w.reshape(2, -1)
    bound = jax.nn.logsumexp(log_w, 0) - jnp.log(2.0)
    total = bound
    for p, present, other in differences:
        p, present, other = (x.reshape(2, -1) for x in (p, present, other))
        instead = jnp.logaddexp(other, log_w[::-1]) - jnp.log(2.0)
        total = total + (stop((1 - 2 * present) * (instead - bound)) * p).sum(0)
    return total


SURROGATES = {
    "REINFORCE": reinforce,
    "MVD": measure_valued,
    "ENUM": enumerated,
    "IWELBO(2) + REINFORCE": iwelbo_reinforce,
    "IWELBO(2) + MVD": iwelbo_measure_valued,
}


def main(name, file):
    started = time.perf_counter()
    images = jnp.asarray(np.load(file))
    params = {"decoder": decoder(jax.random.key(0)), "recognition": recognition(jax.random.key(1))}

    def mean(params, key):
        return SURROGATES[name](params, images, key).mean()

    serve_adam(lambda key, params: jax.grad(mean)(params, key), params, started)


if __name__ == "__main__":
    main(*sys.argv[1:])
