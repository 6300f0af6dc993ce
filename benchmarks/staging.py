"""The first call: staging plus compilation, beside NumPyro's SVI; of a second process, by JAX's cache of compiled programs;
and staging time as the number of sites grows.

Each first call runs in a process of its own, with nothing in JAX's caches; processes take turns. `python -m
benchmarks.staging`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO

import ppvi
import ppvi.numpyro as vi
from benchmarks import mixture, vae_overhead
from benchmarks.results import table
from ppvi.objectives import elbo

ROUNDS = 5


def vae():
    key = jax.random.key(0)
    params = {
        "encoder": vae_overhead.layers(key, [784, 200, 20]),
        "decoder": vae_overhead.layers(key, [10, 200, 784]),
    }
    return vae_overhead.model, vae_overhead.guide, params, (jnp.ones((64, 784)),), Trace_ELBO(), None


def labels():
    params, x = mixture.problem(1000)
    return mixture.model, mixture.guide, params, (x,), TraceGraph_ELBO(), {"z": ppvi.Reinforce()}


def chain(n, distribution):
    """n scalar sites, each depending on the one before."""

    def model():
        x = 0.0
        for i in range(n):
            x = numpyro.sample(f"x{i}", distribution(0.5 * x))

    def guide():
        locs = numpyro.param("locs")
        for i in range(n):
            numpyro.sample(f"x{i}", distribution(locs[i]))

    return model, guide, {"locs": jnp.linspace(-0.1, 0.1, n)}


def normal(loc):
    return dist.Normal(loc, 1.0)


def fifty_sites():
    model, guide, params = chain(50, normal)
    return model, guide, params, (), Trace_ELBO(), None


PROGRAMS = {"VAE, batch 64": vae, "1000 labels": labels, "50 sites": fifty_sites}


def first_call(system, program):
    """Seconds from three programs to the first gradient."""
    warnings.simplefilter("ignore")
    model, guide, params, args, loss, strategies = PROGRAMS[program]()
    jax.block_until_ready(jax.tree.map(jnp.sin, params))
    start = time.perf_counter()
    key = jax.random.key(0)
    if system == "ppvi":
        out = vi.objective(elbo, model, guide, strategies=strategies).value_and_grad(key, params, *args)
    else:
        svi = SVI(model, guide, optax.sgd(0.0), loss)
        out = jax.jit(lambda key, p: jax.value_and_grad(lambda p: svi.loss.loss(key, p, model, guide, *args))(p))(
            key, params
        )
    jax.block_until_ready(out)
    return time.perf_counter() - start


def alone(system, program, cache=None):
    code = f"from benchmarks.staging import cached, first_call; cached({cache!r}); print(first_call({system!r}, {program!r}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout.split()[-1])


def cached(directory):
    """Have JAX keep what it compiles, whatever it took, in a directory."""
    if directory is not None:
        jax.config.update("jax_compilation_cache_dir", directory)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def second_processes():
    rows = []
    for program in PROGRAMS:
        with tempfile.TemporaryDirectory() as directory:
            filling = alone("ppvi", program, directory)
            found = [(alone("ppvi", program), alone("ppvi", program, directory)) for _ in range(ROUNDS)]
        without, warm = np.median(found, axis=0)
        rows.append((program, f"{without:.2f} s", f"{filling:.2f} s", f"{warm:.2f} s"))
    table("first call of ppvi by JAX's cache on disk", ("", "none", "empty", "of a process before"), rows)


def first_calls():
    rows = []
    for program in PROGRAMS:
        times = {system: [] for system in ("ppvi", "NumPyro")}
        for _ in range(ROUNDS):
            for system in times:
                times[system].append(alone(system, program))
        ratios = np.array(times["ppvi"]) / np.array(times["NumPyro"])
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        medians = [f"{np.median(x):.2f} s" for x in times.values()]
        rows.append((program, *medians, f"{middle:.2f} [{low:.2f}, {high:.2f}]"))
    table("first call: staging and compilation", ("", "ppvi", "NumPyro's SVI loss", "ratio [min, max]"), rows)


def staging_by_sites():
    """Analysis alone, without tracing or compiling gradients: `explain` stages and plans."""
    rows = []
    kinds = {
        "Reparam": (normal, None),
        "Reinforce": (normal, ppvi.Reinforce()),
        "Enumerate": (lambda x: dist.Bernoulli(logits=x), ppvi.Enumerate()),
    }
    for name, (distribution, strategy) in kinds.items():
        for n in (10, 100, 500):
            model, guide, params = chain(n, distribution)
            strategies = {f"x{i}": strategy for i in range(n)} if strategy else None
            bound = vi.objective(elbo, model, guide, strategies=strategies)
            staging = _timed(lambda: bound.explain(params))
            step = jax.jit(bound.value_and_grad)
            tracing = _timed(lambda: step.trace(jax.random.key(0), params))
            rows.append(
                (name, str(n), f"{1e3 * staging:.0f} ms", f"{1e3 * staging / n:.2f} ms", f"{1e3 * tracing / n:.2f} ms")
            )
    header = ("sites", "number", "staging", "staging per site", "with the gradient's trace, per site")
    table("staging by number of sites", header, rows)


def _timed(function):
    jax.clear_caches()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    first_calls()
    second_processes()
    staging_by_sites()
