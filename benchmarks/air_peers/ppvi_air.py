"""ppvi on NumPyro."""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import ppvi.numpyro as vi
from benchmarks.air_peers.adam import serve_adam
from guides.air import ESTIMATORS, guide
from models.air import model


def main(name, file):
    started = time.perf_counter()
    images = jnp.asarray(np.load(file))
    objective, strategies = ESTIMATORS[name]
    bound = vi.objective(objective, model, guide, strategies=strategies)

    def gradient(key, params):
        _, grads = bound.value_and_grad(key, params, images)
        return jax.tree.map(lambda g: g / len(images), grads)

    serve_adam(gradient, bound.init(jax.random.key(0), images), started)


if __name__ == "__main__":
    main(*sys.argv[1:])
