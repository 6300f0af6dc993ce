"""One gradient on Pyro: ppvi, with and without torch.compile, beside the losses of Pyro's own SVI.

A mixture with N = 1000 discrete labels, variational autoencoders, eight schools, and programs that are replayed. Variances
are the mean over coordinates of the gradient's, as ratios; `first` is the time to the first compiled gradient. Run with
`python -m benchmarks.pyro_svi`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, config_enumerate
from torch import nn
from torch.nn.functional import softplus
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import models.eight_schools_pyro
import ppvi
import ppvi.pyro as vi
from benchmarks.results import table
from benchmarks.timing import microseconds, ratio, rounds, summary
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


def geometric(strategy=None):
    """A program that branches on what it draws, which is replayed: its sites are as many as it takes."""

    def rounds_of(probability):
        n = 0
        infer = {} if strategy is None else {"strategy": strategy}
        while not pyro.sample(f"x_{n}", dist.Bernoulli(probability), infer=infer).item():
            n += 1
        return n

    def model(y):
        pyro.sample("y", dist.Normal(float(rounds_of(torch.tensor(0.4))), 1.0), obs=y)

    def guide(y):
        rounds_of(pyro.param("logit", torch.tensor(0.5)).sigmoid())

    name = f"geometric, replayed, {strategy or ppvi.LeaveOneOut()}"
    yield Case(name, model, guide, (torch.tensor(2.0),), {}, TraceGraph_ELBO(), guide)


class DeepMarkov(nn.Module):
    """As in Pyro's `examples/dmm`, with its sizes: the guide's recurrent network runs backwards over packed sequences."""

    def __init__(self, notes=88, size=100, emission=100, transition=200, hidden=600):
        super().__init__()
        self.emit = layers(size, emission, emission, notes)
        self.gate, self.proposed = layers(size, transition, size), layers(size, transition, size)
        self.loc, self.scale = nn.Linear(size, size), nn.Linear(size, size)
        self.rnn = nn.RNN(notes, hidden, nonlinearity="relu", batch_first=True)
        self.combine = nn.Linear(size, hidden)
        self.loc_q, self.scale_q = nn.Linear(hidden, size), nn.Linear(hidden, size)
        self.z_0, self.z_q_0 = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(size))
        self.h_0 = nn.Parameter(torch.zeros(1, 1, hidden))

    def model(self, x, backwards, mask, lengths):
        pyro.module("dmm", self)
        z = self.z_0.expand(len(x), -1)
        with pyro.plate("sequences", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                gate, proposed = self.gate(z).sigmoid(), self.proposed(z)
                loc, scale = (1 - gate) * self.loc(z) + gate * proposed, softplus(self.scale(proposed.relu()))
                z = pyro.sample(f"z_{t}", dist.Normal(loc, scale).mask(mask[:, t : t + 1]).to_event(1))
                notes = dist.Bernoulli(self.emit(z).sigmoid()).mask(mask[:, t : t + 1]).to_event(1)
                pyro.sample(f"x_{t}", notes, obs=x[:, t])

    def guide(self, x, backwards, mask, lengths):
        pyro.module("dmm", self)
        packed = pack_padded_sequence(backwards, lengths, batch_first=True)
        hidden, _ = pad_packed_sequence(
            self.rnn(packed, self.h_0.expand(-1, len(x), -1).contiguous())[0], batch_first=True
        )
        z = self.z_q_0.expand(len(x), -1)
        with pyro.plate("sequences", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                h = 0.5 * (self.combine(z).tanh() + hidden[:, x.shape[1] - 1 - t])
                q = dist.Normal(self.loc_q(h), softplus(self.scale_q(h)))
                z = pyro.sample(f"z_{t}", q.mask(mask[:, t : t + 1]).to_event(1))


def layers(*sizes):
    steps = [(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*[step for pair in steps for step in pair][:-1])


def deep_markov(batch, rounds):
    """A program that reads the lengths of its sequences, and is replayed."""
    torch.manual_seed(0)
    lengths = torch.linspace(rounds, rounds // 2, batch).long()
    mask = torch.arange(rounds) < lengths[:, None]
    x = (torch.rand(batch, rounds, 88) < 0.05).float() * mask[..., None]
    dmm = DeepMarkov()
    args = (x, x.flip(1), mask, lengths)
    yield Case(
        f"deep Markov model, {rounds} rounds, batch {batch}", dmm.model, dmm.guide, args, {}, Trace_ELBO(), dmm.guide
    )


def variance(draw: Callable[[], dict[str, torch.Tensor]], names: list[str], draws: int = 300) -> float:
    """Mean over coordinates of a gradient's variance."""
    found = [draw() for _ in range(draws)]
    return float(torch.cat([torch.stack([g[name].flatten() for g in found]).var(0) for name in names]).mean())


def contenders(case: Case, make: dict[str, bool]) -> tuple[dict[str, Callable[[], Any]], list[str], float]:
    """One gradient each of ours, compiled or not, and of "Pyro"; the parameters whose gradients are of the same numbers; and
    the seconds to the first gradient of ours."""
    pyro.clear_param_store()
    bounds = {
        name: vi.objective(elbo, case.model, case.guide, strategies=case.strategies, compile=compiled)
        for name, compiled in make.items()
    }
    params = bounds["ppvi"].init(0, *case.args)
    begun = time.perf_counter()
    bounds[[*make][-1]].value_and_grad(None, params, *case.args)
    first = time.perf_counter() - begun
    for name, value in params.items():
        positive = dist.constraints.positive if name.endswith("_scale") else dist.constraints.real
        pyro.param(name, value, constraint=positive)
    leaves = dict(pyro.get_param_store().named_parameters())

    def theirs() -> dict[str, torch.Tensor]:
        for leaf in leaves.values():
            leaf.grad = None
        case.theirs.loss_and_grads(case.model, case.their_guide, *case.args)
        return {name: leaf.grad for name, leaf in leaves.items()}

    each = {
        name: lambda bound=bound: bound.value_and_grad(None, params, *case.args)[1] for name, bound in bounds.items()
    }
    # Of scales Pyro has the gradient of the logarithm.
    return each | {"Pyro": theirs}, [name for name in leaves if not name.endswith("_scale")], first


def measure(case: Case) -> tuple[str, ...]:
    each, shared, first = contenders(case, {"ppvi": False, "compiled": True})
    times = rounds(each)
    ours, others = variance(each["ppvi"], shared), variance(each["Pyro"], shared)
    spread = "both exact" if max(ours, others) < 1e-8 else f"{ours / others:.2f}"
    strategy = ", ".join(map(str, case.strategies.values())) or "Reparam()"
    ratios = (ratio(times, name, "Pyro") for name in ("ppvi", "compiled"))
    return (
        case.name,
        strategy,
        type(case.theirs).__name__,
        *(microseconds(x) for x in times.values()),
        *ratios,
        f"{first:.1f} s",
        spread,
    )


def fitting(case: Case, steps: int = 200, repeats: int = 9) -> tuple[str, ...]:
    """Processor seconds of a step of `fit` over those of a gradient and a step of the same optimiser, without what a fit takes
    to begin; on a busy machine wall time would count the neighbours."""
    pyro.clear_param_store()
    bound = vi.objective(elbo, case.model, case.guide, strategies=case.strategies)
    params = {name: x.detach().clone().requires_grad_() for name, x in bound.init(0, *case.args).items()}
    optimizer = torch.optim.Adam(params.values(), lr=1e-9)

    def bare(n: int) -> None:
        for _ in range(n):
            _, grads = bound.value_and_grad(None, params, *case.args)
            for name, leaf in params.items():
                leaf.grad = grads[name]
            optimizer.step()

    def fitted(n: int) -> None:
        vi.fit(bound, 0, *case.args, num_steps=n, optimizer=1e-9, progress=False)

    def seconds(function: Callable[[int], None], n: int) -> float:
        begun = time.process_time()
        function(n)
        return time.process_time() - begun

    bare(1)
    fitted(1)
    ratios = []
    for _ in range(repeats):
        begin = seconds(fitted, 1)
        ratios.append((seconds(fitted, steps + 1) - begin) / seconds(bare, steps))
    return case.name, summary(np.array(ratios))


def main():
    pyro.enable_validation(False)
    fitted = [*list(mixture())[3:], *autoencoder(64, 196, 64, 5), *autoencoder(64, 784, 200, 10), *schools()]
    table("A step of a fit", ("", "fit / gradient and optimiser"), [fitting(case) for case in fitted])
    autoencoders = (
        autoencoder(64, 196, 64, 5),
        autoencoder(64, 784, 200, 10),
        semi_supervised(100, 784, 400, 50),
    )
    replayed = (geometric(ppvi.Reinforce()), geometric(), deep_markov(20, 20))
    rows = [measure(case) for cases in (mixture(), *autoencoders, schools(), *replayed) for case in cases]
    header = (
        "",
        "strategy",
        "Pyro's loss",
        "ppvi",
        "compiled",
        "Pyro",
        "ppvi / Pyro",
        "compiled / Pyro",
        "first",
        "variance",
    )
    table("A gradient on Pyro (median [min, max] of ratios by round)", header, rows)


if __name__ == "__main__":
    main()
