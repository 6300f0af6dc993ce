"""Fits that are shared go on, are stopped and are refused, printed as JSON: `python -m tests.numpyro.on_peers FOLDER`.

With an address, a number of processes and this one's number after it, it is one of several processes.
"""

import json
import os
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

import ppvi
import ppvi.numpyro as vi
from tests.numpyro.on_devices import ROWS, objectives

X = np.sin(np.arange(ROWS, dtype=np.float32)) * 2


def fit(mesh, name="score", x=X, key=0, **options):
    options = {"num_steps": 6, "progress": False} | options
    return vi.fit(objectives()[name], jax.random.key(key), jnp.asarray(x), mesh=mesh, **options)


def numbers(found):
    return [found.losses.tolist(), {name: np.asarray(x).tolist() for name, x in found.params.items()}]


def refusal(mesh, **options):
    try:
        fit(mesh, **options)
    except ppvi.PpviError as error:
        return str(error)


def warned(mesh, name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(mesh, name=name)
    return [str(x.message) for x in caught]


def noisy():
    """An optimiser with a typed key in its memory."""
    return optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(4)), optax.sgd(1e-3))


def main(folder, *arguments):
    number = 0
    if arguments:
        number = int(arguments[2])
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(arguments[0], int(arguments[1]), number)
    devices = np.array(jax.devices())
    mesh, particles = (Mesh(devices, (name,)) for name in ("data", "particles"))
    part = fit(mesh, num_steps=2, averaging=3)
    found = {
        "whole": numbers(fit(mesh, averaging=3)),
        "parts": numbers(fit(mesh, num_steps=4, averaging=3, state=part)),
        "alone": numbers(fit(None, num_steps=4, averaging=3, state=part)),
        "noisy": [numbers(fit(at, optimizer=noisy())) for at in (mesh, None)],
        "starts": [fit(at, num_starts=3).chosen.losses.tolist() for at in (mesh, None)],
        "unused": warned(particles, "score"),
        "used": warned(particles, "particles"),
    }
    batches = [(X[:32],), (X[32:],), (X[:16],)]
    found["batches"] = [
        numbers(vi.fit(objectives()["score"], jax.random.key(0), batches=batches, num_steps=4, mesh=at, progress=False))
        for at in (mesh, None)
    ]
    if arguments:
        found |= {"data": refusal(mesh, x=X + number), "key": refusal(mesh, key=number)}
        limit = ppvi.TimeLimit(0.5 if number == 0 else 1e9)
        timed = fit(mesh, num_steps=10**8, until=limit, checkpoint=f"{folder}/{number}")
        found |= {"steps": timed.state.step, "files": len(os.listdir(f"{folder}/{number}"))}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
