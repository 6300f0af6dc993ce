"""Fits on meshes of devices, printed as JSON: `python -m tests.numpyro.on_devices` in a process that has the devices.

With an address, a number of processes and this one's number as arguments, it is one of several processes.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpyro.contrib.control_flow import scan

import ppvi
import ppvi.numpyro as vi
from ppvi.objectives import elbo, iwelbo
from ppvi.optimizers import Natural

ROWS = 64


def model(x):
    means = numpyro.sample("means", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(means[z], 1.0), obs=x)


def guide(x):
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    numpyro.sample("means", dist.Normal(loc, 0.1).to_event(1))
    a, b = numpyro.param("a", 0.0), numpyro.param("b", 0.3)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Bernoulli(logits=a + b * x))


def walk(x):
    def step(before, x):
        z = numpyro.sample("z", dist.Normal(before, 1.0).expand([len(x)]))
        numpyro.sample("x", dist.Normal(z, 0.5), obs=x)
        return z, None

    scan(step, jnp.zeros(ROWS), jnp.stack([x, 2 * x, x]))


def walker(x):
    a = numpyro.param("a", 0.3)
    scan(
        lambda c, x: (numpyro.sample("z", dist.Normal(c + a * x, 1.0)), None), jnp.zeros(ROWS), jnp.stack([x, 2 * x, x])
    )


def objectives():
    return {
        "enumerated": vi.objective(elbo, model, guide),
        "score": vi.objective(elbo, model, guide, strategies={"z": ppvi.Reinforce()}),
        "particles": vi.objective(iwelbo(8), model, guide, strategies={"z": ppvi.LeaveOneOut(2)}),
        "loop": vi.objective(elbo, walk, walker, strategies={"z": ppvi.Reinforce()}),
        "natural": vi.objective(elbo, model, guide, strategies={"z": ppvi.Reinforce()}),
    }


OPTIMIZERS = {"natural": Natural()}
"""Of some of them; Adam of the others."""


def flops(bound, x, devices):
    """Operations of one gradient on each device, as XLA counts them."""
    mesh = Mesh(np.array(devices), ("data",))
    params = jax.device_put(bound.init(jax.random.key(0), x), NamedSharding(mesh, PartitionSpec()))
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    return jax.jit(bound.value_and_grad).lower(jax.random.key(0), params, split).compile().cost_analysis()["flops"]


def refusal(devices):
    """What is said of rows that the devices cannot share."""
    try:
        vi.fit(objectives()["score"], jax.random.key(0), jnp.arange(5.0), mesh=Mesh(devices, ("data",)))
    except ppvi.ProgramError as error:
        return str(error)


def fits(meshes, names):
    x = jnp.sin(jnp.arange(1.0 * ROWS)) * 2
    out = {}
    for name, bound in ((name, objectives()[name]) for name in names):
        for where, mesh in meshes.items():
            options = {"optimizer": OPTIMIZERS.get(name), "num_steps": 5, "progress": False}
            fit = vi.fit(bound, jax.random.key(0), x, mesh=mesh, **options)
            out[f"{name} {where}"] = [fit.losses.tolist(), {k: np.asarray(v).tolist() for k, v in fit.params.items()}]
    return out


def main(arguments):
    if arguments:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(arguments[0], int(arguments[1]), int(arguments[2]))
        found = fits({"data": Mesh(np.array(jax.devices()), ("data",))}, ["score", "loop"])
    else:
        devices = np.array(jax.devices())
        meshes = {"none": None} | {f"data {n}": Mesh(devices[:n], ("data",)) for n in (1, 2, 8) if n <= len(devices)}
        if len(devices) == 8:
            meshes["particles"] = Mesh(devices, ("particles",))
            meshes["both"] = Mesh(devices.reshape(2, 4), ("data", "particles"))
        x = jnp.arange(4096.0)
        counts = {n: flops(objectives()["score"], x, devices[:n]) for n in (1, 2, 4, 8) if n <= len(devices)}
        found = fits(meshes, objectives()) | {"flops": counts, "refusal": refusal(devices)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
