"""GenJAX: model and guide as generative functions of one image, with the networks of `models.air_networks`."""

import sys
import time

import genjax
import jax
import jax.numpy as jnp
import numpy as np
from genjax.adev import (
    expectation,
    flip_enum,
    flip_mvd,
    flip_reinforce,
    multivariate_normal_diag_reparam as normal,
)
from genjax.core import distribution
from genjax.pjax import modular_vmap, seed

from benchmarks.air_peers.adam import serve_adam
from models import air_networks
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

# GenJAX has no rule for functions with a derivative rule of their own.
air_networks.softplus = lambda x: jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def drawn_by(primitive):
    """A distribution of one of ADEV's primitives, which GenJAX has for REINFORCE only."""
    return distribution(primitive, lambda b, p: jnp.where(b, jnp.log(p), jnp.log1p(-p)))


flip_enum, flip_mvd = drawn_by(flip_enum), drawn_by(flip_mvd)
FLIPS = {
    "REINFORCE": (flip_reinforce,) * 3,
    "MVD": (flip_mvd,) * 3,
    "ENUM": (flip_enum,) * 3,
    "MVD + ENUM": (flip_mvd, flip_mvd, flip_enum),
}


def programs(flips):
    @genjax.gen
    def model(weights):
        present, canvas = 1.0, jnp.zeros((IMAGE, IMAGE))
        for t, (prior, flip) in enumerate(zip(PRESENT, flips, strict=True)):
            present = jnp.float32(flip(jnp.clip(prior * present, 1e-6, 1 - 1e-6)) @ f"pres_{t}")
            where = normal(WHERE_LOC, WHERE_SCALE) @ f"where_{t}"
            what = normal(jnp.zeros(WHAT), jnp.ones(WHAT)) @ f"what_{t}"
            canvas = canvas + present * paint(where, decode(weights, what))
        normal(canvas.reshape(-1), jnp.full(IMAGE**2, NOISE)) @ "image"

    @genjax.gen
    def guide(image, weights):
        present, where, what = 1.0, jnp.zeros(WHERE), jnp.zeros(WHAT)
        seen, state = look(weights, image), (jnp.zeros(UNITS), jnp.zeros(UNITS))
        for t, flip in enumerate(flips):
            state = lstm(weights, seen, (where, what, jnp.atleast_1d(present)), state)
            further, loc, scale = heads(weights, state[0])
            present = jnp.float32(flip(jnp.clip(further * present, 1e-6, 1 - 1e-6)) @ f"pres_{t}")
            found = present > 0
            loc = WHERE_LOC + jnp.where(found, loc, 0.0) * WHERE_SCALE
            where = normal(loc, WHERE_SCALE * jnp.where(found, scale, 1.0)) @ f"where_{t}"
            loc, scale = encode(weights, attend(where, image))
            what = normal(jnp.where(found, loc, 0.0), jnp.where(found, scale, 1.0)) @ f"what_{t}"

    return model, guide


def log_weight(model, guide, params, image):
    drawn = guide.simulate(image, params["recognition"])
    choices, _ = model.merge({"image": image.reshape(-1)}, drawn.get_choices())
    density, _ = model.assess(choices, params["decoder"])
    return density + drawn.get_score()


def objective(name):
    particles = 2 if name.startswith("IWELBO(2) + ") else 1
    model, guide = programs(FLIPS[name.removeprefix("IWELBO(2) + ")])

    @expectation
    def bound(params, image):
        log_w = jnp.stack([log_weight(model, guide, params, image) for _ in range(particles)])
        return jax.nn.logsumexp(log_w) - jnp.log(particles)

    return bound


def main(name, file):
    started = time.perf_counter()
    images, bound = jnp.asarray(np.load(file)), objective(name)
    params = {"decoder": decoder(jax.random.key(0)), "recognition": recognition(jax.random.key(1))}

    def gradient(params):
        grads = modular_vmap(lambda image: bound.grad_estimate(params, image)[0])(images)
        return jax.tree.map(lambda g: g.mean(0), grads)

    serve_adam(seed(gradient), params, started)


if __name__ == "__main__":
    main(*sys.argv[1:])
