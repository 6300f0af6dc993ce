"""Random models with finite sites that no draw gives a value: in plates that nest, overlap or cross, in chains, masked, scaled.

A `Summed` is plain data. It is read twice: as a model, and as a sum over every joint value of its finite sites, written here, of
products of probabilities and not of their logarithms, which knows nothing of factors, plates or orders.
"""

from __future__ import annotations

import itertools
import math
import random
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import numpyro.contrib.control_flow
import pyro
import torch
from pyro.distributions.util import validation_enabled

import ppvi
from tests.engines import NUMPYRO, PYRO, dist, double, handlers, nn, on, ppl, xp

MOST = 81
"""The most joint values of the finite sites of a part."""


@dataclass(frozen=True)
class Family:
    values: np.ndarray
    """`(K, *event)`"""
    make: Any
    """A distribution of its argument."""
    weight: Any = None
    """The probability of a value, written out."""


def _of_probs(z, p):
    return xp.where(z == 1, p, 1 - p)


def _picked(z, p):
    return xp.sum(p * nn.one_hot(z, 3), -1)


def _softmax(u):
    return nn.softmax(u, -1)


COIN, THREE, ONE_HOT = np.arange(2.0), np.arange(3.0), np.eye(3)
FAMILIES = {
    "Bernoulli probs": Family(COIN, lambda p: dist.Bernoulli(probs=p), _of_probs),
    "Bernoulli logits": Family(COIN, lambda u: dist.Bernoulli(logits=u), lambda z, u: _of_probs(z, nn.sigmoid(u))),
    "Categorical probs": Family(THREE, lambda p: dist.Categorical(probs=p), _picked),
    "Categorical logits": Family(THREE, lambda u: dist.Categorical(logits=u), lambda z, u: _picked(z, _softmax(u))),
    "OneHotCategorical probs": Family(ONE_HOT, lambda p: dist.OneHotCategorical(probs=p), lambda z, p: xp.sum(z * p, -1)),
    "OneHotCategorical logits": Family(
        ONE_HOT, lambda u: dist.OneHotCategorical(logits=u), lambda z, u: xp.sum(z * _softmax(u), -1)
    ),
    "OneHot logits": Family(ONE_HOT, lambda u: dist.OneHot(u), lambda z, u: xp.sum(z * _softmax(u), -1)),
    "Binomial": Family(
        THREE,
        lambda p: dist.Binomial(2, probs=p),
        lambda z, p: xp.where(z == 1, 2 * p * (1 - p), xp.where(z == 2, p * p, (1 - p) * (1 - p))),
    ),
    "Normal": Family(COIN, lambda u: dist.Normal(u, 0.8)),
    "Poisson": Family(COIN, lambda u: dist.Poisson(xp.exp(0.3 * u))),
}  # fmt: skip
FINITE = {
    engine: [name for name, family in FAMILIES.items() if family.weight and without not in name]
    for engine, without in ((NUMPYRO.name, "OneHotCategorical"), (PYRO.name, "OneHot logits"))
}
SEEN = ["Normal", "Normal", "Normal", "Poisson", "Bernoulli logits", "Categorical logits"]


@dataclass(frozen=True)
class Parent:
    site: int
    feature: str
    factor: float
    move: str = "same"
    """How its rows meet those of the plates that both are in."""
    mix: str = "sum"
    """What becomes of the rows of a plate that the child is not in."""


@dataclass(frozen=True)
class Site:
    family: str
    plates: tuple[int, ...]
    """Numbers of the plates around it; that of number i is along axis -1 - i."""
    parents: tuple[Parent, ...]
    draws: tuple[float, float]
    """The factors of the continuous draws."""
    zero: str = ""
    """How its last value is of probability zero: `parameter`, as one that is 0 says, or `bar`, in some rows or for a value of its
    first parent."""
    seen: str = ""
    """`all` rows or `some` of them, or none."""
    mask: bool = False


@dataclass(frozen=True)
class Group:
    """Sites that are in plates."""

    sizes: tuple[int, ...]
    """Of the plates."""
    sites: tuple[Site, ...]
    scale: float = 1.0
    by_row: bool = False
    """Whether every row of the first plate has a scale of its own."""
    rows: tuple[int, ...] = ()
    """A minibatch of the first plate."""

    @property
    def apart(self):
        """Whether rows of the first plate have nothing to do with one another."""
        return self.by_row or bool(self.rows)


@dataclass(frozen=True)
class Chain:
    """Sites that follow one another."""

    length: int
    order: int
    how: str
    """The control flow around it: `loop`, or `markov` on Pyro, or what NumPyro and JAX have."""
    reverse: bool
    family: str
    lanes: int
    """The size of the plate that it is in; 0 for none."""
    second: bool
    """Whether another site follows in every round, that depends on the first and on its own round before."""
    wide: bool
    """Whether an observation depends on the round before too."""
    features: tuple[str, ...]
    mask: bool
    zero: bool
    scale: float = 1.0


@dataclass(frozen=True)
class Summed:
    parts: tuple[Any, ...]
    objective: str
    params: dict[str, Any]


# What both readings share ------------------------------------------------------------------------------------------------

LOOK_UP = np.array([0.4, -0.9, 1.1])


def feature(name, family, z, params):
    """A number of a value."""
    event = FAMILIES[family].values.ndim > 1
    number = xp.sum(z * xp.array(LOOK_UP), -1) if event else z * 1.0
    match name:
        case "look up":
            return xp.sum(z * params["table"], -1) if event else params["table"][xp.array(z, int)]
        case "square":
            return (number - 0.4) ** 2
        case "step":
            return xp.where(number > 0.5, 0.8, -0.3)
    return number


FEATURES = ["number", "look up", "look up", "square", "step"]


def argument(family, u, zero, bar, params):
    """Of a distribution with this location."""
    family, _, by = family.partition(" ")
    p = params["zero"] * nn.sigmoid(u) if zero == "parameter" else nn.sigmoid(u)
    if family in ("Bernoulli", "Binomial"):
        if by == "logits":
            return u if bar is None else xp.where(bar, -2000.0, u)
        return p if bar is None else xp.where(bar, 0.0, p)
    if family in ("Categorical", "OneHotCategorical", "OneHot"):
        ramp = u[..., None] * xp.array([0.0, 1.0, -0.6])
        last = xp.arange(3) == 2
        if by == "logits":
            return ramp if bar is None else xp.where(bar[..., None] & last, -math.inf, ramp)
        if zero == "parameter":
            return xp.where(last, p[..., None], (1 - p)[..., None] * xp.array([0.6, 0.4, 0.0]))
        kept = xp.exp(ramp) if bar is None else xp.where(bar[..., None] & last, 0.0, xp.exp(ramp))
        return kept / xp.sum(kept, -1)[..., None]
    return u


def shape_of(group, plates, full=False):
    sizes = list(group.sizes)
    if group.rows and not full:
        sizes[0] = len(group.rows)
    return tuple(sizes[i] if i in plates else 1 for i in reversed(range(max(plates, default=-1) + 1)))


def numbers(group, plates, salt):
    """Some numbers for every row."""
    shape = shape_of(group, plates, full=True)
    found = np.sin(1.0 + salt + sum((1.7 + k) * i for k, i in enumerate(np.indices(shape)))) if shape else np.sin(salt)
    return np.take(found, group.rows, -1) if group.rows and 0 in plates else np.asarray(found)


def masked(group, plates, salt):
    return numbers(group, plates, salt) > -0.2


def _entries(x, axis, entries):
    return x[(..., entries, *[slice(None)] * (-1 - axis))]


def moved(x, how, axis):
    """Along an axis: the entry before, that after, or the one minus the other."""
    none = 0.0 * _entries(x, axis, slice(0, 1))
    before = xp.concatenate([none, _entries(x, axis, slice(None, -1))], axis)
    after = xp.concatenate([_entries(x, axis, slice(1, None)), none], axis)
    return {"same": x, "before": before, "after": after, "around": before - after, "and before": x - 0.5 * before}[how]


def met(group, x, mine, plates, parent):
    """A parent's rows where its child's are."""
    for i in mine:
        if i not in plates:
            axis = -1 - i
            x = _entries(x, axis, slice(0, 1)) if parent.mix == "first" else xp.sum(x, axis, keepdims=True)
    frame = max(plates, default=-1) + 1
    x = x.reshape(x.shape[max(0, x.ndim - frame) :])
    common = [i for i in mine if i in plates and shape_of(group, mine)[-1 - i] > 1]
    return moved(x, parent.move, -1 - common[0]) if common and parent.move != "same" else x


def read_group(group, params, sample):
    """Every site of a group, by any way of drawing: `sample(number, site, argument)`."""
    values = []
    for number, site in enumerate(group.sites):
        shape = shape_of(group, site.plates)
        u = params["a"][number] + 0.5 * xp.array(numbers(group, site.plates, number))
        u = u + site.draws[0] * params["x"] + site.draws[1] * xp.sum(params["y"] ** 2)
        first = None
        for parent in site.parents:
            theirs = group.sites[parent.site]
            x = feature(parent.feature, theirs.family, values[parent.site], params)
            x = met(group, x, theirs.plates, site.plates, parent)
            first = x if first is None else first
            u = u + parent.factor * x
        bar = None
        if site.zero == "bar":
            rows = masked(group, site.plates, number + 0.5)
            bar = xp.array(rows) if first is None else xp.broadcast_to(first > 0.45, shape)
        values.append(sample(number, site, argument(site.family, xp.broadcast_to(u, shape), site.zero, bar, params)))


def data_of(group, site, number):
    """What is observed: a number, or the number of a value."""
    x = numbers(group, site.plates, number + 0.3)
    if site.family == "Normal":
        return x
    return np.abs(np.round(2 * x)) % (2 if site.family.startswith("Bernoulli") else 3)


def body(chain, params, carry, x, y, t, sample):
    """A round: the carry has the first site's values in the rounds before, and the second's in the last."""
    *before, w_before = carry
    u = params["a"][0] + x + 0.4 * params["x"]
    for lag, z in enumerate(before):
        u = u + (0.9, -0.7)[lag] * feature(chain.features[lag], chain.family, z, params)
    mean = 0.2 * params["y"][0]
    if chain.wide:
        mean = mean + 0.6 * feature("number", chain.family, before[0], params)
    bar = None if not chain.zero else feature("number", chain.family, before[0], params) > 0.45
    z = sample("z", chain.family, argument(chain.family, u, "", bar, params))
    mean = mean + params["a"][1] * feature(chain.features[2], chain.family, z, params)
    w = w_before
    if chain.second:
        logits = params["a"][2] + 0.8 * feature("number", chain.family, z, params) - 0.9 * w_before
        w = sample("w", "Bernoulli logits", logits) * 1.0
        mean = mean * (1 - w)
    sample("y", "Normal", mean, y, t)
    return (z * 1.0 if FAMILIES[chain.family].values.ndim > 1 else xp.array(z, int), *before[:-1], w)


def rounds_of(chain):
    shape = (chain.length, *([chain.lanes] if chain.lanes else []))
    grid = sum((1.3 + k) * i for k, i in enumerate(np.indices(shape)))
    return 0.5 * np.sin(grid), np.cos(grid)


def start_of(chain):
    lanes = (chain.lanes,) if chain.lanes else ()
    if FAMILIES[chain.family].values.ndim > 1:
        none = xp.broadcast_to(xp.array([1.0, 0.0, 0.0]), (*lanes, 3))
    else:
        none = xp.zeros(lanes, dtype=xp.array([0], int).dtype)
    return (*[none] * chain.order, xp.zeros(lanes))


# As a model --------------------------------------------------------------------------------------------------------------


@contextmanager
def plate(engine, name, size, axis, rows=()):
    if not rows:
        with ppl.plate(name, size, dim=axis):
            yield
    elif engine is PYRO:
        with ppl.plate(name, size, dim=axis, subsample=xp.array(np.array(rows))):
            yield
    else:
        with (
            handlers.substitute(data={name: xp.array(np.array(rows))}),
            ppl.plate(name, size, subsample_size=len(rows), dim=axis),
        ):
            yield


def group_model(engine, part, group, params):
    def sample(number, site, value):
        with ExitStack() as stack:
            for i in reversed(site.plates):
                rows = group.rows if i == 0 else ()
                stack.enter_context(plate(engine, f"plate {part} {i}", group.sizes[i], -1 - i, rows))
            if group.by_row:
                stack.enter_context(handlers.scale(scale=xp.array(scales(group))))
            elif group.scale != 1:
                stack.enter_context(handlers.scale(scale=group.scale))
            if site.mask:
                stack.enter_context(handlers.mask(mask=xp.array(masked(group, site.plates, number))))
            fn, name, seen = FAMILIES[site.family].make(value), f"z{part}_{number}", {}
            if site.seen:
                seen["obs"] = xp.array(data_of(group, site, number), None if site.family == "Normal" else int)
                if engine is PYRO and site.family != "Normal":
                    seen["obs"] = seen["obs"] * (1.0 if site.family != "Categorical logits" else 1)
            if site.seen == "some":
                seen["obs_mask"] = xp.array(masked(group, site.plates, number + 0.7))
            return ppl.sample(name, fn, **seen)

    read_group(group, params, sample)


def scales(group):
    return 0.5 + np.arange(len(group.rows) or group.sizes[0])


def chain_model(engine, part, chain, params):
    xs, ys = (xp.array(x) for x in rounds_of(chain))

    def step(carry, x, y, t, suffix=""):
        def sample(name, family, value, obs=None, t=None):
            with ExitStack() as stack:
                if chain.lanes:
                    stack.enter_context(ppl.plate(f"lanes {part}", chain.lanes, dim=-1))
                if chain.scale != 1:
                    stack.enter_context(handlers.scale(scale=chain.scale))
                if chain.mask and obs is not None:
                    stack.enter_context(handlers.mask(mask=xp.array(t < chain.length - 1)))
                return ppl.sample(f"{name}{part}{suffix}", FAMILIES[family].make(value), obs=obs)

        return body(chain, params, carry, x, y, t, sample)

    carry, rounds = start_of(chain), range(chain.length)
    if chain.how in ("loop", "markov"):
        order = list(reversed(rounds)) if chain.reverse else rounds
        for t in order if engine is NUMPYRO or chain.how == "loop" else pyro.markov(order, history=chain.order):
            carry = step(carry, xs[t], ys[t], t, f"_{t}")
        return
    scan = {"scan": numpyro.contrib.control_flow.scan, "lax": jax.lax.scan}[chain.how]
    data = xs, ys, xp.arange(chain.length)
    scan(lambda carry, row: (step(carry, *row), None), carry, data, reverse=chain.reverse)


def model_of(engine, summed):
    def model():
        params = {name: ppl.param(name) for name in ("a", "table", "zero")}
        params["x"] = ppl.sample("x", dist.Normal(0.0, 1.0))
        with ppl.plate("own", 2):
            params["y"] = ppl.sample("y", dist.Normal(params["x"], 1.0))
        if summed.objective != "density":
            params["x"] = params["x"] + ppl.sample("b", dist.Bernoulli(0.4))
        for part, each in enumerate(summed.parts):
            (group_model if isinstance(each, Group) else chain_model)(engine, part, each, params)

    return model


def guide():
    ppl.sample("b", dist.Bernoulli(logits=ppl.param("b")))


def objective_of(summed):
    def log_weight(p, q):
        draws = {name: ppl.param(f"draw {name}") for name in ("x", "y")}
        if summed.objective == "density":
            return p.log_density(draws)
        z = q.simulate()
        return p.log_density(draws | {"b": z["b"]}) - z.log_density

    def bound(p, q):
        return nn.logsumexp(ppvi.replicate(2, lambda: log_weight(p, q))) - math.log(2)

    return bound if summed.objective == "iwelbo" else log_weight


# As a sum ----------------------------------------------------------------------------------------------------------------


def joint(sizes):
    """Every joint value of sites that have so many values and lanes: a table of indices `(joint, *lanes)` for each."""
    digits = [range(k) for k, lanes in sizes for _ in range(math.prod(lanes))]
    table = np.array(list(itertools.product(*digits)), int).reshape(math.prod(map(len, digits)), len(digits))
    ends = np.cumsum([0, *(math.prod(lanes) for _, lanes in sizes)])
    return [table[:, a:b].reshape(len(table), *lanes) for a, b, (_, lanes) in zip(ends, ends[1:], sizes, strict=False)]


def log_of_sum(weights, logs):
    """log sum_k w_k exp(l_k) over the first axis."""
    top = torch.amax(logs, 0).detach()
    return torch.log(torch.sum(weights * torch.exp(logs - top), 0)) + top


def group_sum(group, params):
    latent = [(number, site) for number, site in enumerate(group.sites) if site.seen != "all"]
    tables = joint([(len(FAMILIES[s.family].values), shape_of(group, s.plates)) for _, s in latent])

    def by_row(x):
        """The product or sum of what is in each row, or of all."""
        return x.reshape(-1, x.shape[-1]) if group.apart else x.reshape(-1, 1)

    def one(*picked):
        at = {number: x for (number, _), x in zip(latent, picked, strict=True)}
        weights, logs = [], []

        def sample(number, site, value):
            family = FAMILIES[site.family]
            there = xp.array(masked(group, site.plates, number)) if site.mask else xp.array(True)
            data = xp.array(data_of(group, site, number)) if site.seen else None
            if site.seen == "all":
                logs.append(by_row(xp.where(there, family.make(value).log_prob(data), 0.0)).sum(0))
                return data
            z = xp.array(family.values)[at[number]]
            w = family.weight(z, value)
            if site.seen == "some":
                known = xp.array(masked(group, site.plates, number + 0.7))
                logs.append(by_row(xp.where(known & there, family.make(value).log_prob(data), 0.0)).sum(0))
                z = xp.where(known, data, z)
                w = xp.where(known, 1 / len(family.values), w)  # the same for all values that are not taken
            weights.append(by_row(w).prod(0))
            return z

        read_group(group, params, sample)
        return math.prod(weights), sum(logs, torch.zeros(1))

    weights, logs = torch.func.vmap(one)(*map(torch.as_tensor, tables))
    rows = log_of_sum(weights, logs)
    if not group.apart:
        return group.scale * rows.sum()
    # All others' values are gone through for each row.
    others = math.log(len(weights)) * (1 - 1 / rows.shape[0])
    scale = torch.as_tensor(scales(group) if group.by_row else group.scale)
    return ((rows - others) * scale).sum() * (group.sizes[0] / len(group.rows) if group.rows else 1.0)


def chain_sum(chain, params):
    lanes = (chain.lanes,) if chain.lanes else ()
    kinds = [chain.family, *(["Bernoulli logits"] if chain.second else [])]
    tables = joint([(len(FAMILIES[kind].values), lanes) for _ in range(chain.length) for kind in kinds])
    xs, ys = (xp.array(x) for x in rounds_of(chain))

    def one(*picked):
        values, weights, logs = iter(picked), [], []

        def sample(name, family, value, obs=None, t=None):
            if obs is not None:
                there = not chain.mask or t < chain.length - 1
                logs.append(there * FAMILIES[family].make(value).log_prob(obs).sum())
                return None
            z = xp.array(FAMILIES[family].values)[next(values)]
            weights.append(FAMILIES[family].weight(z, value).prod())
            return z

        carry = start_of(chain)
        for t in reversed(range(chain.length)) if chain.reverse else range(chain.length):
            carry = body(chain, params, carry, xs[t], ys[t], t, sample)
        return math.prod(weights), sum(logs)

    return chain.scale * log_of_sum(*torch.func.vmap(one)(*map(torch.as_tensor, tables)))


def exact_of(summed):
    """The objective, as a function of PyTorch's tensors."""

    def density(params, b):
        x, y = params["draw x"], params["draw y"]
        total = dist.Normal(0.0, 1.0).log_prob(x) + dist.Normal(x, 1.0).log_prob(y).sum()
        here = params | {"x": x if b is None else x + b, "y": y}
        for part in summed.parts:
            total = total + (group_sum if isinstance(part, Group) else chain_sum)(part, here)
        return total

    def value(params):
        if summed.objective == "density":
            return density(params, None)
        q = torch.sigmoid(torch.stack([-params["b"], params["b"]]))
        f = torch.stack([density(params, b) + math.log((0.6, 0.4)[b]) - torch.log(q[b]) for b in (0, 1)])
        if summed.objective == "elbo":
            return q @ f
        return q @ (torch.logaddexp(f[:, None], f[None]) - math.log(2)) @ q

    return value


def numbers_of(function, summed, direction):
    """Value, gradient, and the product of the Hessian and a direction, of a function of PyTorch's tensors."""
    with double(), on(PYRO), validation_enabled(False):
        params = {name: torch.tensor(np.asarray(x), requires_grad=True) for name, x in summed.params.items()}
        leaves = list(params.values())
        value = function(params)
        gradient = torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True, allow_unused=True)
        slope = sum((g * torch.as_tensor(direction[name])).sum() for name, g in zip(params, gradient, strict=True))
        second = torch.autograd.grad(slope, leaves, materialize_grads=True, allow_unused=True)
        named = [{name: g.detach().numpy() for name, g in zip(params, gs, strict=True)} for gs in (gradient, second)]
        return value.item(), *named


# How models are drawn ----------------------------------------------------------------------------------------------------

FACTORS = (-1.1, -0.6, 0.7, 1.2)


def a_parent(rng, sites, i, plates, apart):
    move = rng.choice(["same"] * 6 + ["before", "after", "around", "and before"])
    mix = rng.choice(["sum", "sum", "first"])
    return Parent(i, rng.choice(FEATURES), rng.choice(FACTORS), "same" if apart else move, mix)


def a_group(rng, engine):
    count = rng.choice([0, 1, 1, 1, 2, 2, 2, 3])
    apart = rng.choice(["", "", "", "scales", "minibatch"]) if count else ""
    sizes = tuple(rng.choice([1, 2, 2, 3, 4]) for _ in range(count))
    rows = ()
    if apart == "minibatch":
        rows, sizes = ((3, 1), (0, 2, 4))[rng.randint(0, 1)], (5, *sizes[1:])
    room, sites = MOST, []
    shaped = Group(sizes, (), rows=rows)

    def in_plates():
        found = [i for i in range(count) if rng.random() < 0.5]
        return tuple(sorted({0, *found} if apart else found))

    def parents(most, plates, likely):
        latent = [i for i, site in enumerate(sites) if site.seen != "all"]
        found = rng.sample(latent, min(len(latent), rng.randint(likely, most)))
        return tuple(a_parent(rng, sites, i, plates, bool(apart)) for i in found)

    def draws():
        return rng.choice([0.0, 0.5, -0.8]), rng.choice([0.0, 0.0, 0.3])

    for _ in range(rng.choice([1, 2, 2, 3, 3, 4])):
        plates, family = in_plates(), rng.choice(FINITE[engine.name])
        cost = len(FAMILIES[family].values) ** math.prod(shape_of(shaped, plates))
        if cost > room and not sites:
            plates, cost = (
                plates[:1] if apart else (),
                len(FAMILIES[family].values) ** (math.prod(shape_of(shaped, plates[:1])) if apart else 1),
            )
        if cost <= room:
            room //= cost
            parameter = "parameter" if "probs" in family or family == "Binomial" else ""
            zero = rng.choice(["", "", "bar", parameter]) if family != "OneHot logits" else ""
            some = "some" if family.startswith(("Bern", "Cat")) and plates and rng.random() < 0.15 else ""
            zero = "" if some else zero  # what is observed has the library's density, which keeps away from zero
            sites.append(
                Site(family, plates, parents(2, plates, 0), draws(), zero, some, bool(plates) and rng.random() < 0.15)
            )
    for _ in range(rng.choice([1, 2, 2, 3])):
        plates = in_plates()
        sites.append(
            Site(
                rng.choice(SEEN), plates, parents(3, plates, 1), draws(), "", "all", bool(plates) and rng.random() < 0.2
            )
        )
    scale = rng.choice([1.0, 1.0, 0.5, 3.0])
    return Group(sizes, tuple(sites), scale, apart == "scales", rows)


def a_chain(rng, engine):
    family = rng.choice(FINITE[engine.name])
    second, lanes = rng.random() < 0.3, rng.choice([0, 0, 0, 2])
    values = len(FAMILIES[family].values) * (2 if second else 1)
    longest = int(math.log(MOST + 1) / math.log(values) / max(lanes, 1))
    hows = ["loop", "markov"] if engine is PYRO else ["loop", "scan", "scan", "lax", "lax"]
    if longest < 1:
        return a_chain(rng, engine)
    return Chain(
        length=rng.randint(max(1, longest - 2), longest),
        order=rng.choice([1, 1, 2]),
        how=rng.choice(hows),
        reverse=rng.random() < 0.3,
        family=family,
        lanes=lanes,
        second=second,
        wide=rng.random() < 0.3,
        features=tuple(rng.choice(FEATURES) for _ in range(3)),
        mask=rng.random() < 0.2,
        zero=rng.random() < 0.2 and family != "OneHot logits",
        scale=rng.choice([1.0, 1.0, 1.0, 0.5]),
    )


def summed_model(seed, engine):
    rng = random.Random(seed)
    kinds = rng.choice([["group"], ["group"], ["chain"], ["group", "group"], ["group", "chain"]])
    parts = tuple(a_group(rng, engine) if kind == "group" else a_chain(rng, engine) for kind in kinds)
    objective = rng.choice(["density", "density", "density", "elbo", "iwelbo"])
    if objective == "iwelbo" and any(isinstance(part, Group) and part.rows for part in parts):
        objective = "elbo"  # a logarithm of an estimate is biased
    params = {
        "a": np.array([rng.choice([-0.8, -0.3, 0.1, 0.5, 0.9]) for _ in range(7)]),
        "table": np.array([rng.choice([-1.1, 0.2, 0.8]) for _ in range(3)]),
        "zero": np.array(rng.choice([0.0, 0.0, 0.4])),
        "draw x": np.array(rng.choice([-0.7, 0.4])),
        "draw y": np.array([0.3, -0.5]),
    }
    if objective != "density":
        params["b"] = np.array(rng.choice([-0.6, 0.3]))
    return Summed(parts, objective, params)
