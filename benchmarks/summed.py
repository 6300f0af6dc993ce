"""Finite sites summed out: one gradient of the log density in the continuous sites, beside TraceEnum_ELBO and code by hand.

A mixture of 8 components at N = 1,000 and 1,000,000, a hidden Markov model of 16 states at T = 200 and 10,000, annotations
of 1,000 items and a batch of documents. The guide is a point, so that all contenders compute the same number. First calls are
those of a process that has compiled something else before. Run with `python -m benchmarks.summed [numpyro] [pyro]`.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import funsor
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pyro
import pyro.distributions as pdist
import torch
from numpyro.contrib.control_flow import scan
from numpyro.contrib.funsor import config_enumerate

import ppvi.numpyro
import ppvi.pyro
from benchmarks.results import table
from benchmarks.timing import microseconds, ratio, rounds
from models import discrete, discrete_pyro
from ppvi.objectives import elbo

K, STATES, CLASSES, TOPICS = 8, 16, 5, 20
RANDOM = np.random.default_rng(0)


class Case(NamedTuple):
    """A model, where its continuous sites are, its data, and its log density by hand."""

    name: str
    model: Callable[..., Any]
    values: dict[str, np.ndarray]
    data: tuple[Any, ...]
    by_hand: Callable[..., Any] | None
    nesting: int = 1
    peers: bool = True


# NumPyro ------------------------------------------------------------------------------------------------------------------


def hmm(y):
    transition = numpyro.sample("transition", dist.Dirichlet(jnp.ones((STATES, STATES))).to_event(1))
    loc = numpyro.sample("loc", dist.Normal(jnp.zeros(STATES), 1.0).to_event(1))

    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(transition[z]))
        numpyro.sample("y", dist.Normal(loc[z], 1.0), obs=y)
        return z, None

    scan(step, 0, y)


def mixture_by_hand(at, x, components):
    prior = dist.Dirichlet(jnp.ones(K)).log_prob(at["weights"]) + dist.LogNormal(0.0, 1.0).log_prob(at["scale"])
    prior += dist.Normal(0.0, 5.0).log_prob(at["loc"]).sum()
    terms = jnp.log(at["weights"])[:, None] + dist.Normal(at["loc"][:, None], at["scale"]).log_prob(x)
    return prior + jax.nn.logsumexp(terms, 0).sum()


def hmm_by_hand(at, y):
    prior = dist.Dirichlet(jnp.ones(STATES)).log_prob(at["transition"]).sum()
    prior += dist.Normal(0.0, 1.0).log_prob(at["loc"]).sum()
    log_transition = jnp.log(at["transition"])

    def step(alpha, y):
        alpha = jax.nn.logsumexp(alpha[:, None] + log_transition, 0) + dist.Normal(at["loc"], 1.0).log_prob(y)
        return alpha, None

    first = log_transition[0] + dist.Normal(at["loc"], 1.0).log_prob(y[0])
    return prior + jax.nn.logsumexp(jax.lax.scan(step, first, y[1:])[0])


def annotation_by_hand(at, positions, annotations, annotators, classes):
    prior = dist.Dirichlet(1.0 + 3.0 * jnp.eye(classes)).log_prob(at["beta"]).sum()
    prior += dist.Dirichlet(jnp.ones(classes)).log_prob(at["pi"])
    rows = jnp.log(at["beta"])[positions]  # (positions, class, label)
    said = rows[jnp.arange(len(positions))[:, None, None], jnp.arange(classes)[:, None], annotations.T[:, None, :]]
    return prior + jax.nn.logsumexp(jnp.log(at["pi"])[:, None] + said.sum(0), 0).sum()


def lda_by_hand(at, words, vocabulary, topics):
    prior = dist.Dirichlet(jnp.full(vocabulary, 0.5)).log_prob(at["phi"]).sum()
    prior += dist.Dirichlet(jnp.full(topics, 0.7)).log_prob(at["theta"]).sum()
    terms = jnp.log(at["theta"])[None] + jnp.log(at["phi"].T)[words]  # (words, documents, topics)
    return prior + jax.nn.logsumexp(terms, -1).sum()


def dirichlet(*shape: int) -> np.ndarray:
    return RANDOM.dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def cases(mixture: Any, chain: Any, annotation: Any, lda: Any, by_hand: dict[str, Any], long: int) -> list[Case]:
    """The cases of an engine; its chain is short of `long` steps where the peer takes minutes."""
    points = {"weights": dirichlet(K), "scale": np.float32(1.3), "loc": normal(K)}
    states = {"transition": dirichlet(STATES, STATES), "loc": normal(STATES)}
    annotators, items, documents, length, vocabulary = 10, 1000, 100, 64, 500
    positions = np.arange(annotators)
    said = RANDOM.integers(0, CLASSES, (items, annotators))
    words = RANDOM.integers(0, vocabulary, (length, documents))
    found = [
        Case(f"mixture, N = {n:,}", mixture, points, (normal(n), K), by_hand.get("mixture")) for n in (1000, 1_000_000)
    ]
    found += [
        Case(f"hidden Markov model, T = {t:,}", chain, states, (normal(t),), by_hand.get("hmm"), 0, t <= long)
        for t in (30, 200, 10_000)
        if t <= long or by_hand
    ]
    confusion = {"beta": dirichlet(annotators, CLASSES, CLASSES), "pi": dirichlet(CLASSES)}
    found.append(
        Case("annotation", annotation, confusion, (positions, said, annotators, CLASSES), by_hand.get("annotation"), 2)
    )
    topics = {"phi": dirichlet(TOPICS, vocabulary), "theta": dirichlet(documents, TOPICS)}
    found.append(Case("LDA", lda, topics, (words, vocabulary, TOPICS), by_hand.get("lda"), 2))
    return found


def nothing(*args):
    """A guide without a site: what is not finite is observed."""


def on_numpyro(case: Case) -> dict[str, Callable[[], Any]]:
    params = {f"at_{name}": jnp.asarray(x) for name, x in case.values.items()}
    data = [jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in case.data]
    key = jax.random.key(0)

    def model(*args):
        at = {name[3:]: numpyro.param(name, x) for name, x in params.items()}
        numpyro.handlers.condition(case.model, at)(*args)

    bound = ppvi.numpyro.objective(elbo, model, nothing)
    ours = jax.jit(lambda p: bound.value_and_grad(key, p, *data))
    calls: dict[str, Callable[[], Any]] = {"ppvi": lambda: ours(params)}
    if case.peers:
        peer, enumerated = numpyro.infer.TraceEnum_ELBO(), config_enumerate(model)
        step = jax.jit(jax.value_and_grad(lambda p: -peer.loss(key, p, enumerated, nothing, *data)))
        calls["TraceEnum_ELBO"] = lambda: step(params)
    if case.by_hand is not None:
        hand = jax.jit(jax.value_and_grad(lambda p: case.by_hand({name[3:]: x for name, x in p.items()}, *data)))
        calls["by hand"] = lambda: hand(params)
    return calls


# Pyro ---------------------------------------------------------------------------------------------------------------------


def hmm_pyro(y):
    transition = pyro.sample("transition", pdist.Dirichlet(torch.ones(STATES, STATES)).to_event(1))
    loc = pyro.sample("loc", pdist.Normal(torch.zeros(STATES), 1.0).to_event(1))
    z = 0
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", pdist.Categorical(transition[z]))
        pyro.sample(f"y_{t}", pdist.Normal(loc[z], 1.0), obs=y[t])


def on_pyro(case: Case) -> dict[str, Callable[[], Any]]:
    params = {f"at_{name}": torch.as_tensor(x) for name, x in case.values.items()}
    data = [torch.as_tensor(x) if isinstance(x, np.ndarray) else x for x in case.data]

    def model(*args):
        at = {name[3:]: pyro.param(name, x) for name, x in params.items()}
        pyro.condition(case.model, at)(*args)

    bound = ppvi.pyro.objective(elbo, model, nothing)
    calls: dict[str, Callable[[], Any]] = {"ppvi": lambda: bound.value_and_grad(0, params, *data)}
    if case.peers:
        pyro.clear_param_store()
        peer = pyro.infer.TraceEnum_ELBO(max_plate_nesting=case.nesting)
        enumerated = pyro.infer.config_enumerate(model)

        def step():
            pyro.get_param_store().clear()
            loss = peer.differentiable_loss(enumerated, nothing, *data)
            leaves = [pyro.get_param_store()._params[name] for name in params]
            return -loss.detach(), torch.autograd.grad(loss, leaves)

        calls["TraceEnum_ELBO"] = step
    return calls


def measured(engine: str, make: Callable[[Case], dict[str, Callable[[], Any]]], found: list[Case]) -> None:
    rows, first = [], []
    for case in found:
        calls, taken, values = make(case), {}, {}
        for name, call in calls.items():
            start = time.perf_counter()
            value, _ = jax.block_until_ready(call())
            taken[name], values[name] = time.perf_counter() - start, float(value)
        for name, value in values.items():
            if not math.isclose(value, values["ppvi"], rel_tol=1e-3):
                print(f"{case.name}: {name} has {value}, and ppvi {values['ppvi']}")
        first.append([case.name, *(f"{taken[name]:.2f} s" if name in taken else "-" for name in CONTENDERS)])
        times = rounds(calls, seconds=8)
        ratios = [ratio(times, "ppvi", name) if name in times else "-" for name in CONTENDERS[1:]]
        rows.append([case.name, microseconds(times["ppvi"]), *ratios])
    table(f"{engine}: one gradient, and its ratio to others", ["model", "ppvi", *CONTENDERS[1:]], rows)
    table(f"{engine}: the first call", ["model", *CONTENDERS], first)


CONTENDERS = ["ppvi", "TraceEnum_ELBO", "by hand"]


def main() -> None:
    warnings.simplefilter("ignore")
    funsor.set_backend("jax")
    engines = sys.argv[1:] or ["numpyro", "pyro"]
    if "numpyro" in engines:
        hands = {"mixture": mixture_by_hand, "hmm": hmm_by_hand, "annotation": annotation_by_hand, "lda": lda_by_hand}
        found = cases(discrete.mixture, hmm, discrete.dawid_skene, discrete.lda, hands, long=10_000)
        next(iter(on_numpyro(found[0]).values()))()
        measured("NumPyro", on_numpyro, found)
    if "pyro" in engines:
        theirs = discrete_pyro
        found = cases(theirs.mixture, hmm_pyro, theirs.dawid_skene, theirs.lda, {}, long=200)
        next(iter(on_pyro(found[0]).values()))()
        measured("Pyro", on_pyro, found)


if __name__ == "__main__":
    main()
