"""Programs of the two libraries beside the libraries' own losses: value and gradient have the same means.

A twin is a model and a guide as the documentation of a library writes them, with data of its own. At one point of the
parameters both sides are evaluated at N seeds, and every coordinate's means are compared by Welch's statistic at a level of
1e-6 for all coordinates of a twin together; a coordinate that does not vary on either side must be equal up to rounding. A
difference of about 7 standard errors is seen, that is of 7 sqrt(v / N), where v is the sum of both sides' variances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.infer
import pyro
import pyro.infer
import torch
from scipy.stats import norm
from torch.distributions import transform_to
from torch.distributions.constraints import real

import ppvi.numpyro
import ppvi.pyro
from ppvi.objectives import elbo

LEVEL = 1e-6
"""False alarms of a twin."""


class Twin(NamedTuple):
    """An example of a library's documentation."""

    name: str
    """The title of the page that it is on."""
    make: Callable[[], tuple[Any, Any, tuple[Any, ...]]]
    """Model, guide and arguments."""
    loss: Any = None
    """The library's loss; by default `Trace_ELBO()`."""
    objective: Callable[..., Any] = elbo
    at: Callable[[str, np.ndarray], np.ndarray] = lambda name, start: start
    """Where the parameters are, from where they start."""
    n: int = 400
    strategies: Mapping[str, Any] | None = None
    coordinates: int = 40
    """At most so many entries of a parameter are compared, evenly spread."""
    peer_n: int | None = None
    """Evaluations of the library's loss, where it takes long; by default `n`."""


def differ(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], coordinates: int) -> list[str]:
    """The coordinates in which two tables `(seeds, *shape)` have other means."""
    assert ours.keys() == theirs.keys(), (sorted(ours), sorted(theirs))
    picked = {name: _picked(x, coordinates) for name, x in ours.items()}
    total = sum(len(which) for which in picked.values())
    threshold = norm.isf(LEVEL / 2 / total)
    found = []
    for name, which in picked.items():
        a, b = (np.asarray(x[name], np.float64).reshape(len(x[name]), -1)[:, which] for x in (ours, theirs))
        assert np.isfinite(np.concatenate([a, b])).all(), name
        mean, other = a.mean(0), b.mean(0)
        error = np.sqrt(a.var(0, ddof=1) / len(a) + b.var(0, ddof=1) / len(b)) if len(a) > 1 else np.zeros(len(which))
        scale = np.maximum(np.abs(mean), np.abs(other)).max(initial=1.0)
        wrong = np.abs(mean - other) > threshold * error + 1e-4 * scale
        found += [
            f"{name}[{which[i]}]: {mean[i]:.5g} and the library {other[i]:.5g}, +- {error[i]:.2g}"
            for i in np.nonzero(wrong)[0]
        ]
    return found


def _picked(x: np.ndarray, most: int) -> np.ndarray:
    size = math.prod(x.shape[1:])
    return np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(int))


def on_numpyro(twin: Twin) -> list[str]:
    """Where a twin of NumPyro's differs, by what it says."""
    model, guide, args = twin.make()
    bound = ppvi.numpyro.objective(twin.objective, model, guide, strategies=twin.strategies)
    start = bound.init(jax.random.key(1), *args)
    leaves, tree = jax.tree_util.tree_flatten_with_path(start)
    params = tree.unflatten(
        [jnp.asarray(twin.at(jax.tree_util.keystr(path), np.asarray(x)), x.dtype) for path, x in leaves]
    )
    loss = twin.loss or numpyro.infer.Trace_ELBO()
    svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(0.1), loss)
    state = svi.init(jax.random.key(1), *args).mutable_state or {}
    transforms = svi.constrain_fn.args[0]  # of what is on a simplex, only the slopes along it are comparable
    own = {name: transforms[name].inv(x) if name in transforms else x for name, x in params.items()}

    def theirs(key: Any) -> Any:
        return jax.value_and_grad(lambda p: -loss.loss(key, {**svi.constrain_fn(p), **state}, model, guide, *args))(own)

    def ours(key: Any) -> Any:
        constrained, pull = jax.vjp(svi.constrain_fn, own)
        value, grads = bound.value_and_grad(key, constrained, *args)
        return value, pull(grads)[0]

    def table(run: Any, seed: int, n: int) -> dict[str, np.ndarray]:
        keys = jax.random.split(jax.random.key(seed), n)
        value, grads = jax.jit(lambda keys: jax.lax.map(run, keys, batch_size=100))(keys)
        return {"value": np.asarray(value), **{
            jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(grads)
        }}  # fmt: skip

    return differ(table(ours, 2, twin.n), table(theirs, 3, twin.peer_n or twin.n), twin.coordinates)


def on_pyro(twin: Twin) -> list[str]:
    """Where a twin of Pyro's differs, by what it says."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide, args = twin.make()
    loss = twin.loss or pyro.infer.Trace_ELBO()
    with torch.no_grad():
        loss.loss(model, guide, *args)  # which makes the library's parameters
    store = pyro.get_param_store()
    leaves = dict(store.named_parameters())
    constraints = store.get_state()["constraints"]
    with torch.no_grad():
        for name, leaf in leaves.items():
            value = transform_to(constraints[name])(leaf).numpy()
            moved = torch.as_tensor(twin.at(name, value), dtype=leaf.dtype)
            leaf.copy_(transform_to(constraints[name]).inv(moved))

    def slopes(value: torch.Tensor) -> list[np.ndarray]:
        used = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        found = [x if g is None else g for g, x in zip(used, map(torch.zeros_like, leaves.values()), strict=True)]
        return [x.detach().numpy() for x in found]

    def theirs(seed: int) -> tuple[float, list[np.ndarray]]:
        pyro.set_rng_seed(seed)
        for leaf in leaves.values():
            leaf.grad = None
        value = loss.loss_and_grads(model, guide, *args)
        grads = [torch.zeros_like(x) if x.grad is None else -x.grad for x in leaves.values()]
        return -float(value), [x.detach().clone().numpy() for x in grads]

    bound = ppvi.pyro.objective(twin.objective, model, guide, strategies=twin.strategies)

    def ours(seed: int) -> tuple[float, list[np.ndarray]]:
        made = {n: x if constraints[n] is real else transform_to(constraints[n])(x) for n, x in leaves.items()}
        value, grads = bound.value_and_grad(
            seed, {n: x if x is leaves[n] else x.detach() for n, x in made.items()}, *args
        )
        along = [(made[name] * slope).sum() for name, slope in grads.items()]
        return float(value), slopes(torch.stack(along).sum())

    def table(run: Callable[[int], Any], seeds: range) -> dict[str, np.ndarray]:
        values, grads = zip(*map(run, seeds), strict=True)
        return {"value": np.asarray(values), **{n: np.stack(x) for n, *x in zip(leaves, *grads, strict=True)}}

    mine = table(ours, range(10_000, 10_000 + twin.n))
    return differ(mine, table(theirs, range(twin.peer_n or twin.n)), twin.coordinates)
