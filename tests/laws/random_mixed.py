"""Random continuous and mixed programs: sites that depend on each other nonlinearly, in plates, masked and scaled, with jumps and kinks.

A `Mixed` is plain data. It is read twice: as a model, a guide and an objective, and as a sum, written here, over the values of the
finite sites and the nodes of a Gauss rule for the continuous ones, with the densities of Pyro, which knows nothing of strategies.
"""

from __future__ import annotations

import math
import random
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pyro.distributions.util import validation_enabled
from scipy.special import lambertw

import ppvi
from ppvi import Enumerate, LeaveOneOut, LocalExpectation, MeasureValued, Reinforce, Reparam
from ppvi.strategies import (
    ARM,
    Antithetic,
    DisARM,
    Quadrature,
    StochasticPerturbation,
    Stratified,
    SumAndSample,
    UnorderedSet,
)
from tests.engines import PYRO, dist, double, handlers, on, ppl, xp

MOST_RUNS = 80
"""The most runs of what follows a program's sites that their strategies may make, together."""
EDGE = 0.4
"""Where functions of draws jump, or have a kink."""
SCORES = (Reinforce(), Reinforce(0.7), LeaveOneOut(2), LeaveOneOut(3))


@dataclass(frozen=True)
class Family:
    make: Any
    """A distribution of a location, with the site's lanes, and a log scale."""
    to_real: Any = None
    """Of a number of the support; None for a finite one."""
    from_real: Any = None
    """Of numbers `t`: values of the support, and the slopes there."""
    reach: tuple[float, float] = (0.0, 0.0)
    """Where on the line there is mass."""
    values: int = 0
    event: tuple[int, ...] = ()
    pathwise: tuple[Any, ...] = (Reparam(),)
    others: tuple[Any, ...] = SCORES
    tame: bool = True
    """Whether exponentials and squares of draws have moments enough to be measured."""


QUANTILES = (Reparam(), Stratified(2), Antithetic(), Quadrature(40))
MEASURES = (*SCORES, MeasureValued())
FINITE = (
    *SCORES, Enumerate(), Enumerate(sequential=True), LocalExpectation(), MeasureValued(), SumAndSample(), UnorderedSet(2), ARM(), DisARM(),
    StochasticPerturbation(),
)  # fmt: skip
LINE = dict(
    to_real=lambda z: 2 * math.asinh(z / 2), from_real=lambda t: (2 * np.sinh(t / 2), np.cosh(t / 2)), reach=(-7.0, 7.0)
)
POSITIVE = dict(
    to_real=lambda z: math.log(z) + lambertw(1 / z).real,
    from_real=lambda t: (np.exp(t - np.exp(-t)), np.exp(t - np.exp(-t)) * (1 + np.exp(-t))), reach=(-2.8, 4.5),
)  # fmt: skip
"""The density of an exponential draw falls fast on either side of this line."""


def logistic(t):
    z = 1 / (1 + np.exp(-t))
    return z, z * (1 - z)


def bivariate(u, s):
    tril = xp.exp(0.3 * s) * xp.array([[0.7, 0.0], [0.3, 0.6]])
    return dist.MultivariateNormal(u + xp.array([-0.3, 0.4]), scale_tril=tril)


FAMILIES = {
    "Normal": Family(lambda u, s: dist.Normal(u, 0.7 * xp.exp(0.3 * s)), **LINE, pathwise=QUANTILES, others=MEASURES),
    "StudentT": Family(lambda u, s: dist.StudentT(12.0, u, 0.6 * xp.exp(0.3 * s)), **LINE, pathwise=(Reparam(), Quadrature(40)), tame=False),
    "LogNormal": Family(lambda u, s: dist.LogNormal(0.5 * u, 0.5 * xp.exp(0.3 * s)), **POSITIVE, pathwise=QUANTILES, tame=False),
    "Gamma": Family(lambda u, s: dist.Gamma(2 + xp.tanh(s), xp.exp(0.4 * u)), **POSITIVE, pathwise=(Reparam(), Quadrature(40)), others=MEASURES, tame=False),
    "Exponential": Family(lambda u, s: dist.Exponential(xp.exp(0.4 * u)), **POSITIVE, pathwise=QUANTILES, others=MEASURES, tame=False),
    "Beta": Family(
        lambda u, s: dist.Beta(2 + xp.tanh(u), 2 + xp.tanh(s)), to_real=lambda z: math.log(z / (1 - z)), from_real=logistic, reach=(-11.0, 11.0),
        pathwise=(Reparam(), Quadrature(40)), others=MEASURES,
    ),
    "MultivariateNormal": Family(bivariate, **LINE, event=(2,)),
    "Bernoulli": Family(lambda u, s: dist.Bernoulli(logits=u), values=2, pathwise=(), others=FINITE),
    "Categorical": Family(lambda u, s: dist.Categorical(logits=u[..., None] * xp.array([0.0, 1.0, -0.6])), values=3, pathwise=(), others=FINITE),
}  # fmt: skip


@dataclass(frozen=True)
class Site:
    family: str
    lanes: tuple[int, ...]
    """Sizes of the plates around it."""
    parents: tuple[tuple[int, str, float], ...]
    """Sites before it, the functions of them and the factors with which these enter its location."""
    mask: bool
    """Whether its second row of lanes is left out of densities."""
    scale: float
    strategy: Any
    """None for the default."""

    @property
    def shape(self):
        return self.lanes + FAMILIES[self.family].event

    @property
    def pathwise(self):
        return self.strategy in (None, *FAMILIES[self.family].pathwise) and not FAMILIES[self.family].values


@dataclass(frozen=True)
class Mixed:
    sites: tuple[Site, ...]
    seen: tuple[str, ...]
    """The function of each site that is in the mean of an observation."""
    terms: tuple[Any, ...]
    """Expressions that an objective of its own adds up."""
    density: float
    """The factor of the guide's log density there."""
    objective: str
    params: tuple[float, ...]

    @property
    def particles(self):
        return 2 if self.objective in ("iwelbo", "renyi") else 1

    def sites_in(self, *functions):
        """Continuous sites of which something is one of these functions."""
        uses = {(j, name) for site in self.sites for j, name, _ in site.parents}
        uses |= set(leaves_of(self.terms)) if self.objective == "function" else set(enumerate(self.seen))
        return {j for j, name in uses if name in functions and not FAMILIES[self.sites[j].family].values}

    @property
    def sound(self):
        """Whether no site that moves with its parameters meets a jump."""
        return not any(self.sites[j].pathwise for j in self.sites_in("step"))


# Two readings of a program ------------------------------------------------------------------------------------------------

BOUNDED = {
    "tanh": lambda x: xp.tanh(x), "sin": lambda x: xp.sin(2 * xp.arcsinh(x)), "bump": lambda x: xp.exp(-0.5 * x**2),
    "step": lambda x: xp.where(x > EDGE, 1.0, -0.5), "fold": lambda x: xp.tanh(xp.abs(x - EDGE)),
}  # fmt: skip
UNBOUNDED = {"id": lambda x: x, "log": lambda x: xp.log(1 + x**2), "kink": lambda x: xp.abs(x - EDGE)}
WILD = {"exp": lambda x: xp.exp(0.3 * x), "square": lambda x: x**2}
FUNCTIONS = BOUNDED | UNBOUNDED | WILD


def leaves_of(expression):
    """Sites and their functions in an expression or in several."""
    match expression:
        case (int(), str()):
            return [expression]
        case (*parts,):
            return [leaf for part in parts for leaf in leaves_of(part)]
    return []


def along(x, shape):
    """Lane by lane where there are as many lanes, by their sum elsewhere."""
    return x if tuple(x.shape) == shape else xp.sum(x)


def evaluate(expression, values, phi):
    match expression:
        case (int(site), name):
            return FUNCTIONS[name](values[site] * 1.0)
        case ("phi", x):
            return phi * evaluate(x, values, phi)
        case ("wave", x):
            return xp.sin(2 * evaluate(x, values, phi))
        case (operation, left, right):
            x, y = evaluate(left, values, phi), evaluate(right, values, phi)
            shape = tuple(x.shape)
            x, y = (x, y) if shape == tuple(y.shape) else (xp.sum(x), xp.sum(y))
            return x * y if operation == "mul" else x + y
    raise AssertionError(expression)


def distribution(site, values, a, s):
    u = a + sum(factor * along(FUNCTIONS[name](values[j] * 1.0), site.lanes) for j, name, factor in site.parents)
    return FAMILIES[site.family].make(xp.broadcast_to(u, site.lanes), s)


PRIOR = (0.2, -0.4, 0.3)
"""Locations of the model's sites."""
OBSERVED = 0.7


def sites_of(mixed, a, s, sample):
    values = []
    for i, site in enumerate(mixed.sites):
        values.append(sample(i, site, distribution(site, values, a[i], s[i])))
    return values


def mean_of(mixed, values, phi):
    return phi + sum(0.5 * xp.sum(FUNCTIONS[name](value * 1.0)) for name, value in zip(mixed.seen, values, strict=True))


def sample(i, site, fn):
    with ExitStack() as stack:
        for dim, size in zip(range(-len(site.lanes), 0), site.lanes, strict=True):
            stack.enter_context(ppl.plate(f"of {size}, {dim}", size, dim=dim))
        if site.mask:
            stack.enter_context(handlers.mask(mask=xp.array(kept(site))))
        if site.scale != 1:
            stack.enter_context(handlers.scale(scale=site.scale))
        return ppl.sample(f"z{i}", fn)


def kept(site):
    """Which lanes are not masked."""
    rows = np.arange(math.prod(site.lanes)).reshape(site.lanes)
    return rows % 2 == 0 if site.mask else rows >= 0


def guide_of(mixed):
    return lambda: sites_of(mixed, ppl.param("a"), ppl.param("s"), sample) and None


def model_of(mixed):
    def model():
        values = sites_of(mixed, PRIOR, (0.0, 0.0, 0.0), sample)
        ppl.sample("y", dist.Normal(mean_of(mixed, values, ppl.param("phi")), 1.0), obs=OBSERVED)

    return model if mixed.objective != "function" else lambda: None


def objective_of(mixed):
    def function(p, q):
        z, phi = q.simulate(), ppl.param("phi")
        values = [z[f"z{i}"] for i in range(len(mixed.sites))]
        return sum(xp.sum(evaluate(term, values, phi)) for term in mixed.terms) + mixed.density * z.log_density

    return {
        "function": function,
        "elbo": ppvi.objectives.elbo,
        "iwelbo": ppvi.objectives.iwelbo(2),
        "renyi": ppvi.objectives.renyi(0.5, 2),
    }[mixed.objective]


def strategies_of(mixed):
    return {f"z{i}": site.strategy for i, site in enumerate(mixed.sites) if site.strategy is not None}


def params_of(mixed):
    return {"a": np.array(mixed.params[:3]), "s": np.array(mixed.params[3:6]), "phi": np.array(mixed.params[6])}


def nodes(family, n):
    """Values of a lane and their weights; the rule has an end where functions of draws jump."""
    if family.values:
        return np.arange(family.values), np.ones(family.values)
    unit, weights = np.polynomial.legendre.leggauss(n)
    low, high, edge = *family.reach, family.to_real(EDGE)
    halves = [(unit + 1) / 2 * (b - a) + a for a, b in ((low, edge), (edge, high))]
    values, slopes = family.from_real(np.concatenate(halves))
    return values, slopes * np.concatenate([weights * (edge - low) / 2, weights * (high - edge) / 2])


def grid(mixed):
    """For each site its joint values with all others' `(joint, *shape)`, and the joint weights."""
    n = NODES[sum(math.prod(site.shape) for site in mixed.sites if not FAMILIES[site.family].values)]
    lanes = [nodes(FAMILIES[site.family], n) for site in mixed.sites for _ in range(math.prod(site.shape))]
    index = np.indices([len(values) for values, _ in lanes]).reshape(len(lanes), -1)
    columns = [values[i] for i, (values, _) in zip(index, lanes, strict=True)]
    weights = math.prod(weights[i] for i, (_, weights) in zip(index, lanes, strict=True))
    tables = []
    for site in mixed.sites:
        mine, columns = columns[: math.prod(site.shape)], columns[math.prod(site.shape) :]
        tables.append(torch.as_tensor(np.stack(mine, -1).reshape(-1, *site.shape) * 1.0))
    return tables, torch.as_tensor(weights)


def exact_of(mixed):
    """The objective's value and gradient, by summing over all joint values."""
    params = {
        name: torch.tensor(np.float32(x), dtype=torch.float64, requires_grad=True)
        for name, x in params_of(mixed).items()
    }
    a, s, phi = params.values()

    def one(*values):
        def densities(a, s):
            """Of the draws, and what counts of it under masks and scales."""
            whole, counted = [], []

            def given(i, site, fn):
                whole.append(xp.sum(fn.log_prob(values[i])))
                counted.append(xp.sum(xp.array(kept(site)) * site.scale * fn.log_prob(values[i])))
                return values[i]

            sites_of(mixed, a, s, given)
            return sum(whole), sum(counted)

        log_q, counted = densities(a, s)
        if mixed.objective == "function":
            return log_q, sum(xp.sum(evaluate(term, values, phi)) for term in mixed.terms) + mixed.density * counted
        observed = dist.Normal(mean_of(mixed, values, phi), 1.0).log_prob(torch.tensor(OBSERVED))
        return log_q, densities(PRIOR, (0.0, 0.0, 0.0))[1] + observed - counted

    with double(), on(PYRO), validation_enabled(False):
        tables, weights = grid(mixed)
        log_q, values = torch.func.vmap(one)(*tables)
        q = weights * torch.exp(log_q)
        if mixed.particles == 2:
            power = {"iwelbo": 1.0, "renyi": 0.5}[mixed.objective]
            pairs = torch.logaddexp(power * values[:, None], power * values[None]) - math.log(2)
            value = q @ (pairs / power) @ q
        else:
            value = q @ values
        gradients = torch.autograd.grad(value, list(params.values()), allow_unused=True, materialize_grads=True)
        np.testing.assert_allclose(q.sum().item(), 1.0, atol=1e-4)
        return value.item(), {name: g.numpy() for name, g in zip(params, gradients, strict=True)}


# How programs are drawn ---------------------------------------------------------------------------------------------------

NODES = {1: 36, 2: 36, 3: 28}
"""Of either half of a lane, by the number of continuous lanes."""


def runs_of(site, strategy, particles):
    """Runs of what follows a site, where all its lanes and particles are coupled."""
    family, coupled = FAMILIES[site.family], math.prod(site.lanes) * particles
    match strategy:
        case Enumerate():
            return family.values**coupled
        case SumAndSample():
            return 2**coupled
        case Quadrature():
            return strategy.n**coupled
        case LocalExpectation() | MeasureValued() | UnorderedSet():
            return 1 + (family.values - 1 if family.values else 4) * coupled
        case LeaveOneOut() | Stratified() | Antithetic():
            return strategy.n
        case ARM() | DisARM() | StochasticPerturbation():
            return 2
        case None:
            return family.values**coupled if family.values else 1
    return 1


FACTORS = (-0.9, -0.4, 0.5, 0.8)
PLATES = [(), (), (), (2,), (2,), (2, 1), (1, 2), (2, 2)]


def named(rng, functions, smooth):
    return rng.choice([name for name in functions if name != "step" or not smooth])


def expression(rng, sites, smooth):
    """Of at most two functions of sites, so that it has moments enough; a sine of bounded ones, so that a rule resolves it."""

    shape = rng.choice(["leaf", "mul", "mul", "add", "wave"])

    def leaf():
        i = rng.randrange(len(sites))
        functions = BOUNDED if shape == "wave" else FUNCTIONS if FAMILIES[sites[i].family].tame else BOUNDED | UNBOUNDED
        return i, named(rng, functions, smooth)

    if shape == "leaf":
        term = leaf()
    elif shape == "wave":
        term = ("wave", ("mul", leaf(), leaf()))
    else:
        term = (shape, leaf(), leaf())
    return ("phi", term) if rng.random() < 0.5 else term


def mixed_program(seed, jumps=False):
    """With `jumps`, functions that jump are three in seven of those in locations and means."""
    rng = random.Random(seed)
    n = rng.choice([1, 2, 2, 3])
    objective = rng.choice(["function", "function", "function", "elbo", "elbo", "iwelbo", "renyi"])
    particles = 2 if objective in ("iwelbo", "renyi") else 1
    smooth = rng.randint(0, 3) > 0 and not jumps
    bounded = BOUNDED if not jumps else [*BOUNDED, "step", "step"]
    must = rng.randint(0, n - 1)
    sites: list[Site] = []
    lanes, values, runs = 0, 1, 1
    for i in range(n):
        most = 1 if particles == 2 else 3 if values <= 2 else 2
        room = (most if i >= must else min(most - 1, 1)) - lanes
        fitting = [
            (name, plates)
            for name in FAMILIES
            for plates in PLATES
            if _fits(FAMILIES[name], plates, room, (2 if lanes == 3 else 16 // particles) // values, i == must)
        ]
        if not fitting:
            break
        name, plates = rng.choice(fitting)
        family = FAMILIES[name]
        if family.values:
            values *= family.values ** math.prod(plates)
        else:
            lanes += math.prod(plates + family.event)
        pairs = [(j, named(rng, bounded, smooth), rng.choice(FACTORS)) for j in range(i) if rng.randint(0, 2)]
        masked = 2 in plates and rng.randint(0, 2) == 0
        site = Site(name, plates, tuple(pairs), masked, rng.choice([1.0, 1.0, 0.5, 2.0]), None)
        left = [
            strategy
            for strategy in (None, *family.pathwise, *family.others)
            if runs * runs_of(site, strategy, particles) <= MOST_RUNS
        ]
        # As often one that moves with the parameters as one that does not.
        moving = [strategy for strategy in left if strategy is None or strategy in family.pathwise]
        still = [strategy for strategy in left if strategy not in moving]
        site = replace(site, strategy=rng.choice(rng.choice([x for x in (moving, still) if x])))
        runs *= runs_of(site, site.strategy, particles)
        sites.append(site)
    mixed = Mixed(
        sites=tuple(sites),
        seen=tuple(named(rng, bounded, smooth) for _ in sites),
        terms=tuple(expression(rng, sites, smooth) for _ in range(rng.randint(1, 2))),
        density=rng.choice([0.0, -1.0]),
        objective=objective,
        params=tuple(rng.choice([-0.8, -0.3, 0.1, 0.4, 0.7]) for _ in range(7)),
    )
    # At a kink the rule errs by more than rounding.
    kinked = [i for i in mixed.sites_in("fold", "kink") if isinstance(sites[i].strategy, Quadrature)]
    return replace(
        mixed, sites=tuple(replace(site, strategy=Reparam()) if i in kinked else site for i, site in enumerate(sites))
    )


def _fits(family, plates, lanes, values, continuous):
    """Whether a site has at most so many continuous lanes, or joint values."""
    if family.values:
        return not continuous and family.values ** math.prod(plates) <= values
    return math.prod(plates + family.event) <= lanes
