"""One gradient on Pyro: ppvi, with and without torch.compile, beside the losses of Pyro's own SVI.

A mixture with N = 1000 discrete labels, variational autoencoders, eight schools, and a program that is replayed. Variances
are the mean over coordinates of the gradient's, as ratios. Run with `python -m benchmarks.pyro_svi`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, config_enumerate
from torch import nn

import models.eight_schools_pyro
import ppvi
import ppvi.pyro as vi
from benchmarks.results import table
from benchmarks.timing import microseconds, ratio, rounds
from ppvi.objectives import elbo
from ppvi.strategies import Strategy

N = 1000


class Case(NamedTuple):
    """A gradient that both can compute."""

    name: str
    model: Callable[..., Any]
    guide: Callable[..., Any]
    args: tuple[torch.Tensor, ...]
    strategies: dict[str, Strategy]
    theirs: Any
    their_guide: Callable[..., Any]


def mixture():
    torch.manual_seed(0)
    x = torch.where(torch.arange(N) < N // 2, -2.0, 2.0) + torch.randn(N)
    start = 0.3 * torch.randn(N)

    def model(x):
        means = pyro.param("means", torch.tensor([-1.0, 1.0]))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(means[z.long()], 1.0), obs=x)

    def guide(x):
        logits = pyro.param("logits", start)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logits))

    enumerated = config_enumerate(guide, "parallel")
    pairs = [
        (ppvi.Reinforce(), Trace_ELBO(), guide),
        (ppvi.Reinforce(), TraceGraph_ELBO(), guide),
        (ppvi.LeaveOneOut(2), TraceGraph_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1), guide),
        (ppvi.Enumerate(), TraceEnum_ELBO(max_plate_nesting=1), enumerated),
    ]
    for ours, theirs, g in pairs:
        yield Case("mixture", model, guide, (x,), {"z": ours}, theirs, g)


def autoencoder(batch, pixels, hidden, latent):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.Softplus(), nn.Linear(hidden, 2 * latent))
    decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Softplus(), nn.Linear(hidden, pixels))
    x = (torch.rand(batch, pixels) < 0.2).float()

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(latent), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z), validate_args=False).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        loc, scale = encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    yield Case(f"VAE {pixels}-{hidden}-{latent}, batch {batch}", model, guide, (x,), {}, Trace_ELBO(), guide)


def semi_supervised(batch, pixels, hidden, latent):
    """Its rows without labels, of which the label is enumerated (Kingma et al. 2014, M2)."""
    torch.manual_seed(0)
    to_y = nn.Sequential(nn.Linear(pixels, hidden), nn.Softplus(), nn.Linear(hidden, 10))
    to_z = nn.Sequential(nn.Linear(pixels + 10, hidden), nn.Softplus(), nn.Linear(hidden, 2 * latent))
    decoder = nn.Sequential(nn.Linear(latent + 10, hidden), nn.Softplus(), nn.Linear(hidden, pixels))
    x = (torch.rand(batch, pixels) < 0.2).float()

    def joined(*xs):
        shape = torch.broadcast_shapes(*(x.shape[:-1] for x in xs))
        return torch.cat([x.expand(*shape, -1) for x in xs], -1)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(latent), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(10)))
            probs = decoder(joined(z, y)).sigmoid()
            pyro.sample("x", dist.Bernoulli(probs, validate_args=False).to_event(1), obs=x)

    def guide(x):
        pyro.module("to_y", to_y)
        pyro.module("to_z", to_z)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=to_y(x)))
            loc, scale = to_z(joined(x, y)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    enumerated = config_enumerate(guide, "parallel", expand=True)
    name = f"semi-supervised VAE {pixels}-{hidden}-{latent}, batch {batch}"
    yield Case(name, model, guide, (x,), {"y": ppvi.Enumerate()}, TraceEnum_ELBO(max_plate_nesting=1), enumerated)


def schools():
    m = models.eight_schools_pyro

    def model(y, sigma):
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", 8):
            theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(mu + tau * theta, sigma), obs=y)

    def guide(y, sigma):
        def normal(name, size=()):
            loc = pyro.param(f"{name}_loc", torch.zeros(size))
            return dist.Normal(loc, pyro.param(f"{name}_scale", torch.ones(size), constraint=dist.constraints.positive))

        pyro.sample("mu", normal("mu"))
        tau = normal("tau")
        pyro.sample("tau", dist.LogNormal(tau.loc, tau.scale))
        with pyro.plate("schools", 8):
            pyro.sample("theta", normal("theta", (8,)))

    yield Case("eight schools", model, guide, (m.EFFECTS, m.ERRORS), {}, Trace_ELBO(), guide)


def geometric():
    """A program that branches on what it draws, which is replayed: its sites are as many as it takes."""

    def rounds_of(probability):
        n = 0
        while not pyro.sample(f"x_{n}", dist.Bernoulli(probability)).item():
            n += 1
        return n

    def model(y):
        pyro.sample("y", dist.Normal(float(rounds_of(torch.tensor(0.4))), 1.0), obs=y)

    def guide(y):
        rounds_of(pyro.param("logit", torch.tensor(0.5)).sigmoid())

    yield Case("geometric, replayed", model, guide, (torch.tensor(2.0),), {}, TraceGraph_ELBO(), guide)


def variance(draw: Callable[[], dict[str, torch.Tensor]], names: list[str], draws: int = 300) -> float:
    """Mean over coordinates of a gradient's variance."""
    found = [draw() for _ in range(draws)]
    return float(torch.cat([torch.stack([g[name].flatten() for g in found]).var(0) for name in names]).mean())


def measure(case: Case) -> tuple[str, ...]:
    pyro.clear_param_store()
    make = {"ppvi": False, "compiled": True}
    bounds = {
        name: vi.objective(elbo, case.model, case.guide, strategies=case.strategies, compile=compiled)
        for name, compiled in make.items()
    }
    params = bounds["ppvi"].init(0, *case.args)
    for name, value in params.items():
        positive = dist.constraints.positive if name.endswith("_scale") else dist.constraints.real
        pyro.param(name, value, constraint=positive)
    leaves = dict(pyro.get_param_store().named_parameters())

    def theirs() -> dict[str, torch.Tensor]:
        for leaf in leaves.values():
            leaf.grad = None
        case.theirs.loss_and_grads(case.model, case.their_guide, *case.args)
        return {name: leaf.grad for name, leaf in leaves.items()}

    contenders = {
        name: lambda bound=bound: bound.value_and_grad(None, params, *case.args)[1] for name, bound in bounds.items()
    }
    contenders["Pyro"] = theirs
    times = rounds(contenders)
    shared = [
        name for name in leaves if not name.endswith("_scale")
    ]  # of scales Pyro has the gradient of the logarithm
    ours, others = variance(contenders["ppvi"], shared), variance(theirs, shared)
    spread = "both exact" if max(ours, others) < 1e-8 else f"{ours / others:.2f}"
    strategy = ", ".join(map(str, case.strategies.values())) or "Reparam()"
    ratios = (ratio(times, name, "Pyro") for name in bounds)
    return case.name, strategy, type(case.theirs).__name__, *(microseconds(x) for x in times.values()), *ratios, spread


def main():
    pyro.enable_validation(False)
    autoencoders = (
        autoencoder(64, 196, 64, 5),
        autoencoder(64, 784, 200, 10),
        semi_supervised(100, 784, 400, 50),
    )
    rows = [measure(case) for cases in (mixture(), *autoencoders, schools(), geometric()) for case in cases]
    header = ("", "strategy", "Pyro's loss", "ppvi", "compiled", "Pyro", "ppvi / Pyro", "compiled / Pyro", "variance")
    table("A gradient on Pyro (median [min, max] of ratios by round)", header, rows)


if __name__ == "__main__":
    main()
