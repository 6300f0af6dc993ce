"""Twins of the second half of Pyro's examples and tutorials: enumeration, time series, Gaussian processes, objectives."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoNormal
from pyro.ops.indexing import Vindex
from torch.distributions import constraints

from tests.conformance.twins import Twin, on_pyro


def draws(*shape, seed=0):
    """Synthetic real data."""
    return torch.tensor(np.random.RandomState(seed).standard_normal(shape), dtype=torch.float32)


def coins(*shape, seed=0, p=0.5):
    """Synthetic binary data."""
    return torch.tensor(np.random.RandomState(seed).binomial(1, p, shape), dtype=torch.float32)


def moved(name, start):
    """Away from the start, by amounts that keep every constraint of an unbounded or a positive parameter."""
    return start * 1.1 + 0.07 * np.cos(np.arange(start.size)).reshape(start.shape) ** 2


def sequences():
    """Three sequences of unequal lengths of four binary tones."""
    return coins(3, 4, 4, seed=3, p=0.4), torch.tensor([4, 2, 3])


# --- Inference with Discrete Latent Variables ---


def enumerated_in_the_guide():
    """Inference with Discrete Latent Variables: mean-field enumeration in the guide, in parallel."""
    data = draws(6) + torch.tensor([2.0, -2.0] * 3)

    @config_enumerate
    def guide(data):
        with pyro.plate("data", len(data)):
            probs = pyro.param("probs", torch.full((6, 2), 0.5), constraint=constraints.simplex)
            pyro.sample("cluster", dist.Categorical(probs))

    def model(data):
        centres = pyro.param("centres", torch.tensor([-1.0, 1.5]))
        with pyro.plate("data", len(data)):
            k = pyro.sample("cluster", dist.Categorical(torch.tensor([0.4, 0.6])))
            pyro.sample("value", dist.Normal(centres[k], 1.2), obs=data)

    return model, guide, (data,)


def enumerated_in_sequence():
    """Inference with Discrete Latent Variables: sequential enumeration of sites that depend on one another."""

    def model():
        bias = pyro.param("bias", torch.tensor(0.3))
        x = pyro.sample("x", dist.Bernoulli(0.4))
        y = pyro.sample("y", dist.Bernoulli(torch.sigmoid(x + bias)))
        pyro.sample("z", dist.Normal(x + 2 * y, 0.8), obs=torch.tensor(1.3))

    def guide():
        p = pyro.param("p", torch.tensor(0.6), constraint=constraints.unit_interval)
        q = pyro.param("q", torch.tensor([0.3, 0.8]), constraint=constraints.unit_interval)
        x = pyro.sample("x", dist.Bernoulli(p), infer={"enumerate": "sequential"})
        pyro.sample("y", dist.Bernoulli(q[x.long()]), infer={"enumerate": "sequential"})

    return model, guide, ()


def plates_and_enumeration():
    """Inference with Discrete Latent Variables: plates and enumeration, a mixture in two nested plates with Vindex."""
    data = draws(3, 4, seed=1)

    @config_enumerate
    def model(data):
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("components", 3):
            locs = pyro.sample("locs", dist.Normal(0.0, 2.0))
        with pyro.plate("rows", 4, dim=-1), pyro.plate("columns", 3, dim=-2):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(Vindex(locs)[..., z], 1.0), obs=data)

    guide = AutoNormal(poutine.block(model, hide=["z"]))
    return model, guide, (data,)


def dependencies_among_plates():
    """Inference with Discrete Latent Variables: one site on each of two crossing plates' outer, a table indexed by both."""
    data = draws(4, seed=2)

    @config_enumerate
    def model(data):
        with pyro.plate("a", 2, dim=-2), pyro.plate("b", 3, dim=-1):
            table = pyro.sample("table", dist.Normal(0.0, 1.5))
        p = pyro.sample("p", dist.Dirichlet(torch.ones(2)))
        q = pyro.sample("q", dist.Dirichlet(torch.ones(3)))
        x = pyro.sample("x", dist.Categorical(p))
        with pyro.plate("data", len(data)):
            y = pyro.sample("y", dist.Categorical(q))
            pyro.sample("value", dist.Normal(Vindex(table)[..., x, y], 1.0), obs=data)

    return model, AutoNormal(poutine.block(model, expose=["table", "p", "q"])), (data,)


def time_series():
    """Inference with Discrete Latent Variables: a chain by pyro.markov, its transitions learnt by AutoNormal."""
    data = draws(5, seed=4)

    @config_enumerate
    def model(data):
        p = pyro.sample("p", dist.Dirichlet(0.9 * torch.eye(3) + 0.4).to_event(1))
        mean = pyro.sample("mean", dist.Normal(torch.tensor([-1.0, 0.0, 1.0]), 1.0).to_event(1))
        x = 0
        for t in pyro.markov(range(len(data))):
            x = pyro.sample(f"x_{t}", dist.Categorical(Vindex(p)[..., x, :]))
            pyro.sample(f"y_{t}", dist.Normal(Vindex(mean)[..., x], 1.0), obs=data[t])

    return model, AutoNormal(poutine.block(model, expose=["p", "mean"])), (data,)


def chain_in_the_guide():
    """Inference with Discrete Latent Variables: a guide that is a chain as the model is, enumerated in parallel."""
    data = draws(4, seed=5)

    def model(data):
        p = pyro.param("model_p", torch.tensor([[0.7, 0.3], [0.4, 0.6]]), constraint=constraints.simplex)
        x = torch.tensor(0)
        for t in pyro.markov(range(len(data))):
            x = pyro.sample(f"x_{t}", dist.Categorical(p[x]))
            pyro.sample(f"y_{t}", dist.Normal(2.0 * x - 1.0, 1.0), obs=data[t])

    @config_enumerate
    def guide(data):
        q = pyro.param("q", torch.tensor([[0.6, 0.4], [0.2, 0.8]]), constraint=constraints.simplex)
        x = torch.tensor(0)
        for t in pyro.markov(range(len(data))):
            x = pyro.sample(f"x_{t}", dist.Categorical(q[x]))

    return model, guide, (data,)


# --- Hidden Markov Models ---


def _tones(model):
    tones, lengths = sequences()
    return model, AutoDelta(poutine.block(model, expose=["probs_w", "probs_x", "probs_y"])), (tones, lengths)


def _priors(states, tones, condition=1):
    x = pyro.sample("probs_x", dist.Dirichlet(0.9 * torch.eye(states) + 0.3).to_event(1))
    shape = [states, *[2] * (condition - 1), tones]
    return x, pyro.sample("probs_y", dist.Beta(1.1, 3.0).expand(shape).to_event(len(shape)))


def hmm_of_a_minibatch():
    """Hidden Markov Models, model 1, with two of the three sequences at a time."""

    def model(tones, lengths):
        probs_x, probs_y = _priors(3, 4)
        tones_plate = pyro.plate("tones", 4, dim=-1)
        with pyro.plate("sequences", 3, 2, dim=-2) as batch:
            length, x = lengths[batch], 0
            for t in pyro.markov(range(4)):
                with poutine.mask(mask=(t < length).unsqueeze(-1)):
                    x = pyro.sample(f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
                    with tones_plate:
                        pyro.sample(f"y_{t}", dist.Bernoulli(probs_y[x.squeeze(-1)]), obs=tones[batch, t])

    return _tones(model)


def hmm_autoregressive():
    """Hidden Markov Models, model 2: the tone depends on the state and on the tone before it."""

    def model(tones, lengths):
        probs_x, probs_y = _priors(2, 4, condition=2)
        tones_plate = pyro.plate("tones", 4, dim=-1)
        with pyro.plate("sequences", 3, dim=-2):
            x, y = 0, torch.zeros(3, 4).long()
            for t in pyro.markov(range(4)):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    x = pyro.sample(f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
                    with tones_plate as tone:
                        y = pyro.sample(f"y_{t}", dist.Bernoulli(Vindex(probs_y)[x, y, tone]), obs=tones[:, t]).long()

    return _tones(model)


def hmm_factorial():
    """Hidden Markov Models, model 3: two chains side by side, both of which the tones depend on."""

    def model(tones, lengths):
        probs_w = pyro.sample("probs_w", dist.Dirichlet(0.9 * torch.eye(2) + 0.3).to_event(1))
        probs_x, probs_y = _priors(2, 4, condition=2)
        tones_plate = pyro.plate("tones", 4, dim=-1)
        with pyro.plate("sequences", 3, dim=-2):
            w = x = torch.tensor(0)
            for t in pyro.markov(range(4)):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    w = pyro.sample(f"w_{t}", dist.Categorical(probs_w[w]), infer={"enumerate": "parallel"})
                    x = pyro.sample(f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
                    with tones_plate as tone:
                        pyro.sample(f"y_{t}", dist.Bernoulli(Vindex(probs_y)[w, x, tone]), obs=tones[:, t])

    return _tones(model)


def hmm_coupled():
    """Hidden Markov Models, model 4: the second chain's step depends on the first chain's state too."""

    def model(tones, lengths):
        probs_w = pyro.sample("probs_w", dist.Dirichlet(0.9 * torch.eye(2) + 0.3).to_event(1))
        probs_x = pyro.sample("probs_x", dist.Dirichlet(0.9 * torch.eye(2) + 0.3).expand([2, 2]).to_event(2))
        probs_y = pyro.sample("probs_y", dist.Beta(1.1, 3.0).expand([2, 2, 4]).to_event(3))
        tones_plate = pyro.plate("tones", 4, dim=-1)
        with pyro.plate("sequences", 3, dim=-2):
            w = x = torch.tensor(0, dtype=torch.long)
            for t in pyro.markov(range(4)):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    w = pyro.sample(f"w_{t}", dist.Categorical(probs_w[w]), infer={"enumerate": "parallel"})
                    x = pyro.sample(f"x_{t}", dist.Categorical(Vindex(probs_x)[w, x]), infer={"enumerate": "parallel"})
                    with tones_plate as tone:
                        pyro.sample(f"y_{t}", dist.Bernoulli(Vindex(probs_y)[w, x, tone]), obs=tones[:, t])

    return _tones(model)


class _Tones(torch.nn.Module):
    """Logits of the tones by a state and the tones before."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.of_state, self.of_tones = torch.nn.Linear(2, 3), torch.nn.Linear(4, 3)
        self.out = torch.nn.Linear(3, 4)

    def forward(self, x, y):
        onehot = torch.nn.functional.one_hot(x.squeeze(-1), 2).float()
        return self.out(torch.relu(self.of_state(onehot) + self.of_tones(y)))


def hmm_neural():
    """Hidden Markov Models, model 5: a network maps the state and the tones before to the tones."""
    net = _Tones()

    def model(tones, lengths):
        pyro.module("net", net)
        probs_x = pyro.sample("probs_x", dist.Dirichlet(0.9 * torch.eye(2) + 0.3).to_event(1))
        tones_plate = pyro.plate("tones", 4, dim=-1)
        with pyro.plate("sequences", 3, dim=-2):
            x, y = 0, torch.zeros(4)
            for t in pyro.markov(range(4)):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    x = pyro.sample(f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
                    with tones_plate:
                        y = pyro.sample(f"y_{t}", dist.Bernoulli(logits=net(x, y)), obs=tones[:, t])

    return _tones(model)


def hmm_of_second_order():
    """Hidden Markov Models, model 6: the state depends on the two before it, pyro.markov with history=2."""

    def model(tones, lengths):
        probs_x = pyro.sample("probs_x", dist.Dirichlet(0.9 * torch.eye(2) + 0.3).expand([2, 2]).to_event(2))
        probs_y = pyro.sample("probs_y", dist.Beta(1.1, 3.0).expand([2, 4]).to_event(2))
        tones_plate = pyro.plate("tones", 4, dim=-1)
        with pyro.plate("sequences", 3, dim=-2):
            before, last = torch.tensor(0), torch.tensor(0)
            for t in pyro.markov(range(4), history=2):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    probs = Vindex(probs_x)[before, last]
                    x = pyro.sample(f"x_{t}", dist.Categorical(probs), infer={"enumerate": "parallel"})
                    before, last = last, x
                    with tones_plate as tone:
                        pyro.sample(f"y_{t}", dist.Bernoulli(Vindex(probs_y)[x, tone]), obs=tones[:, t])

    return _tones(model)


def hmm_as_a_distribution():
    """Hidden Markov Models: the whole chain as one DiscreteHMM, under AutoDelta."""
    tones, _ = sequences()

    def model(tones):
        start = pyro.sample("start", dist.Dirichlet(torch.ones(3)))
        trans = pyro.sample("trans", dist.Dirichlet(0.9 * torch.eye(3) + 0.3).to_event(1))
        emit = pyro.sample("emit", dist.Beta(1.1, 3.0).expand([3, 4]).to_event(2))
        with pyro.plate("sequences", 3):
            heard = dist.DiscreteHMM(start.log(), trans.log(), dist.Bernoulli(emit).to_event(1))
            pyro.sample("y", heard, obs=tones)

    return model, AutoDelta(model), (tones,)


TWINS = [
    Twin(
        "Inference with Discrete Latent Variables", enumerated_in_the_guide, TraceEnum_ELBO(max_plate_nesting=1), n=200
    ),
    Twin(
        "Inference with Discrete Latent Variables", enumerated_in_sequence, TraceEnum_ELBO(max_plate_nesting=0), n=200
    ),
    Twin(
        "Inference with Discrete Latent Variables", plates_and_enumeration, TraceEnum_ELBO(max_plate_nesting=2), n=200
    ),
    Twin(
        "Inference with Discrete Latent Variables",
        dependencies_among_plates,
        TraceEnum_ELBO(max_plate_nesting=2),
        n=200,
    ),
    Twin("Inference with Discrete Latent Variables", time_series, TraceEnum_ELBO(max_plate_nesting=0), n=200),
    Twin("Inference with Discrete Latent Variables", chain_in_the_guide, TraceEnum_ELBO(max_plate_nesting=0), n=200),
    Twin("Example: Hidden Markov Models", hmm_of_a_minibatch, TraceEnum_ELBO(max_plate_nesting=2), n=200),
    Twin("Example: Hidden Markov Models", hmm_autoregressive, TraceEnum_ELBO(max_plate_nesting=2), n=200),
    Twin("Example: Hidden Markov Models", hmm_factorial, TraceEnum_ELBO(max_plate_nesting=2), n=200),
    Twin("Example: Hidden Markov Models", hmm_coupled, TraceEnum_ELBO(max_plate_nesting=2), n=200),
    Twin("Example: Hidden Markov Models", hmm_neural, TraceEnum_ELBO(max_plate_nesting=2), n=200),
    Twin("Example: Hidden Markov Models", hmm_of_second_order, TraceEnum_ELBO(max_plate_nesting=2), n=200),
    Twin("Example: Hidden Markov Models", hmm_as_a_distribution, n=200),
]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.make.__name__)
def test_a_twin_has_the_means_of_the_library(twin):
    assert on_pyro(twin) == []
