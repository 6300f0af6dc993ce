"""Twins of the second half of Pyro's examples and tutorials: enumeration, time series, Gaussian processes, objectives."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib import gp
from pyro.contrib.easyguide import EasyGuide, easy_guide
from pyro.contrib.forecast import ForecastingModel
from pyro.contrib.forecast.util import time_reparam_dct
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO, config_enumerate
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoDiscreteParallel,
    AutoGaussian,
    AutoGuideList,
    AutoHierarchicalNormalMessenger,
    AutoIAFNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalizingFlow,
    AutoNormalMessenger,
    AutoRegressiveMessenger,
    AutoStructured,
    init_to_feasible,
)
from pyro.infer.reparam import (
    AutoReparam,
    GumbelSoftmaxReparam,
    LocScaleReparam,
    ProjectedNormalReparam,
    TransformReparam,
)
from pyro.nn import PyroModule, PyroParam, PyroSample
from pyro.nn.module import to_pyro_module_
from pyro.ops.indexing import Vindex
from pyro.poutine.guide import GuideMessenger
from torch.distributions import constraints

import ppvi
from ppvi.objectives import elbo
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
    """Three sequences of unequal lengths of three binary tones."""
    return coins(3, 3, 3, seed=3, p=0.4), torch.tensor([3, 1, 2])


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
    data = draws(4, seed=4)

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
    data = draws(3, seed=5)

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


def hmm_one_by_one():
    """Hidden Markov Models, model 0: each sequence by itself in a plate that is a Python loop."""

    @config_enumerate
    def model(tones, lengths):
        probs_x, probs_y = _priors(2, 3)
        tones_plate = pyro.plate("tones", 3, dim=-1)
        for i in pyro.plate("sequences", 3):
            x = 0
            for t in pyro.markov(range([3, 1, 2][i])):
                x = pyro.sample(f"x_{i}_{t}", dist.Categorical(probs_x[x]))
                with tones_plate as tone:
                    pyro.sample(f"y_{i}_{t}", dist.Bernoulli(Vindex(probs_y)[x, tone]), obs=tones[i, t])

    return _tones(model)


def _hmm_side_by_side(size, rounds):
    """All sequences masked by their lengths, `size` of the three at a time."""

    def model(tones, lengths):
        probs_x, probs_y = _priors(3, 3)
        tones_plate = pyro.plate("tones", 3, dim=-1)
        with pyro.plate("sequences", 3, size, dim=-2) as batch:
            length, x = lengths[batch], 0
            for t in pyro.markov(range(rounds or tones.shape[1])):
                with poutine.mask(mask=(t < length).unsqueeze(-1)):
                    x = pyro.sample(f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
                    with tones_plate:
                        pyro.sample(f"y_{t}", dist.Bernoulli(probs_y[x.squeeze(-1)]), obs=tones[batch, t])

    return _tones(model)


def hmm_masked():
    """Hidden Markov Models, model 1: all sequences side by side, masked by their lengths, a minibatch of all."""
    return _hmm_side_by_side(3, None)


def hmm_of_a_minibatch():
    """Hidden Markov Models, model 1, with two of the three sequences at a time."""
    return _hmm_side_by_side(2, 3)


def hmm_autoregressive():
    """Hidden Markov Models, model 2: the tone depends on the state and on the tone before it."""

    def model(tones, lengths):
        probs_x, probs_y = _priors(2, 3, condition=2)
        tones_plate = pyro.plate("tones", 3, dim=-1)
        with pyro.plate("sequences", 3, dim=-2):
            x, y = 0, torch.zeros(3, 3).long()
            for t in pyro.markov(range(3)):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    x = pyro.sample(f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
                    with tones_plate as tone:
                        y = pyro.sample(f"y_{t}", dist.Bernoulli(Vindex(probs_y)[x, y, tone]), obs=tones[:, t]).long()

    return _tones(model)


def hmm_factorial():
    """Hidden Markov Models, model 3: two chains side by side, both of which the tones depend on."""

    def model(tones, lengths):
        probs_w = pyro.sample("probs_w", dist.Dirichlet(0.9 * torch.eye(2) + 0.3).to_event(1))
        probs_x, probs_y = _priors(2, 3, condition=2)
        tones_plate = pyro.plate("tones", 3, dim=-1)
        with pyro.plate("sequences", 3, dim=-2):
            w = x = torch.tensor(0)
            for t in pyro.markov(range(3)):
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
        probs_y = pyro.sample("probs_y", dist.Beta(1.1, 3.0).expand([2, 2, 3]).to_event(3))
        tones_plate = pyro.plate("tones", 3, dim=-1)
        with pyro.plate("sequences", 3, dim=-2):
            w = x = torch.tensor(0, dtype=torch.long)
            for t in pyro.markov(range(3)):
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
        self.of_state, self.of_tones = torch.nn.Linear(2, 3), torch.nn.Linear(3, 3)
        self.out = torch.nn.Linear(3, 3)

    def forward(self, x, y):
        onehot = torch.nn.functional.one_hot(x.squeeze(-1), 2).float()
        return self.out(torch.relu(self.of_state(onehot) + self.of_tones(y)))


def hmm_neural():
    """Hidden Markov Models, model 5: a network maps the state and the tones before to the tones."""
    net = _Tones()

    def model(tones, lengths):
        pyro.module("net", net)
        probs_x = pyro.sample("probs_x", dist.Dirichlet(0.9 * torch.eye(2) + 0.3).to_event(1))
        tones_plate = pyro.plate("tones", 3, dim=-1)
        with pyro.plate("sequences", 3, dim=-2):
            x, y = 0, torch.zeros(3)
            for t in pyro.markov(range(3)):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    x = pyro.sample(f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
                    with tones_plate:
                        y = pyro.sample(f"y_{t}", dist.Bernoulli(logits=net(x, y)), obs=tones[:, t])

    return _tones(model)


def hmm_of_second_order():
    """Hidden Markov Models, model 6: the state depends on the two before it, pyro.markov with history=2."""

    def model(tones, lengths):
        probs_x = pyro.sample("probs_x", dist.Dirichlet(0.9 * torch.eye(2) + 0.3).expand([2, 2]).to_event(2))
        probs_y = pyro.sample("probs_y", dist.Beta(1.1, 3.0).expand([2, 3]).to_event(2))
        tones_plate = pyro.plate("tones", 3, dim=-1)
        with pyro.plate("sequences", 3, dim=-2):
            before, last = torch.tensor(0), torch.tensor(0)
            for t in pyro.markov(range(3), history=2):
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
        emit = pyro.sample("emit", dist.Beta(1.1, 3.0).expand([3, 3]).to_event(2))
        with pyro.plate("sequences", 3):
            heard = dist.DiscreteHMM(start.log(), trans.log(), dist.Bernoulli(emit).to_event(1))
            pyro.sample("y", heard, obs=tones)

    return model, AutoDelta(model), (tones,)


# --- Capture-recapture ---


def captures():
    """Which of three animals were caught in each of three years."""
    return torch.tensor([[1.0, 0, 1], [0, 1, 1], [1, 1, 0]])


def _alive(history, phi, rho):
    """One animal's life after its first capture, masked before it."""
    animals = pyro.plate("animals", len(history), dim=-1)
    z, seen = torch.ones(len(history)), torch.zeros(len(history), dtype=torch.bool)
    for t in pyro.markov(range(history.shape[1])):
        with animals, poutine.mask(mask=seen):
            stays = seen.float() * phi(t) * z + (1 - seen.float())
            z = pyro.sample(f"z_{t}", dist.Bernoulli(stays), infer={"enumerate": "parallel"})
            pyro.sample(f"y_{t}", dist.Bernoulli(rho * z), obs=history[:, t])
        seen = seen | history[:, t].bool()


def cjs_constant():
    """Capture-Recapture, model 1: one survival and one recapture probability, masked before the first capture."""

    def model(history):
        phi = pyro.sample("phi", dist.Uniform(0.0, 1.0))
        rho = pyro.sample("rho", dist.Uniform(0.0, 1.0))
        _alive(history, lambda t: phi, rho)

    return model, AutoDiagonalNormal(poutine.block(model, expose=["phi", "rho"])), (captures(),)


def cjs_by_year():
    """Capture-Recapture, model 2: a survival probability for each year, drawn inside of pyro.markov."""

    def model(history):
        rho = pyro.sample("rho", dist.Uniform(0.0, 1.0))
        _alive(history, lambda t: pyro.sample(f"phi_{t}", dist.Uniform(0.0, 1.0)) if t else torch.tensor(0.5), rho)

    exposed = ["rho", "phi_1", "phi_2"]
    return model, AutoDiagonalNormal(poutine.block(model, expose=exposed)), (captures(),)


def cjs_random_effects():
    """Capture-Recapture, model 3: years' survival as a random effect on the logit scale."""

    def model(history):
        mean = pyro.sample("phi_mean", dist.Uniform(0.0, 1.0)).logit()
        sigma = pyro.sample("phi_sigma", dist.Uniform(0.0, 3.0))
        rho = pyro.sample("rho", dist.Uniform(0.0, 1.0))

        def phi(t):
            return torch.sigmoid(pyro.sample(f"phi_logit_{t}", dist.Normal(mean, sigma))) if t else torch.tensor(0.5)

        _alive(history, phi, rho)

    exposed = ["phi_mean", "phi_sigma", "rho", "phi_logit_1", "phi_logit_2"]
    return model, AutoDiagonalNormal(poutine.block(model, expose=exposed)), (captures(),)


def cjs_by_group():
    """Capture-Recapture, model 4: survival by the animals' sex."""
    sex = torch.tensor([0, 1, 1])

    def model(history):
        male = pyro.sample("phi_male", dist.Uniform(0.0, 1.0))
        female = pyro.sample("phi_female", dist.Uniform(0.0, 1.0))
        rho = pyro.sample("rho", dist.Uniform(0.0, 1.0))
        phi = sex * male + (1 - sex) * female
        _alive(history, lambda t: phi, rho)

    return model, AutoDiagonalNormal(poutine.block(model, expose=["phi_male", "phi_female", "rho"])), (captures(),)


# --- Mixed-effect hidden Markov models, tracking ---


def mixed_effect_hmm():
    """Hierarchical mixed-effect hidden Markov models: discrete random effects of groups, animals' chains, masked steps."""
    steps = draws(2, 2, 3, seed=6).abs() + 0.2
    mask = torch.tensor([[[1, 1, 1], [1, 1, 0]], [[1, 1, 1], [1, 0, 0]]]).bool()

    def model(steps, mask):
        kinds = pyro.param("kinds", torch.tensor([0.4, 0.6]), constraint=constraints.simplex)
        theta = pyro.param("theta", torch.tensor([[-0.5, 0.5], [0.2, -0.1]]))
        base = pyro.param("base", torch.tensor([[0.3, -0.2], [0.1, 0.4]]))
        shape = pyro.param("shape", torch.tensor([1.2, 2.5]), constraint=constraints.positive)
        with pyro.plate("group", 2, dim=-2):
            kind = pyro.sample("kind", dist.Categorical(kinds), infer={"enumerate": "parallel"})
            effect = Vindex(theta)[..., kind, :]
            with pyro.plate("animal", 2, dim=-1):
                y = torch.tensor(0)
                for t in pyro.markov(range(3)):
                    with poutine.mask(mask=mask[..., t]):
                        logits = Vindex(base)[y] + effect
                        y = pyro.sample(f"y_{t}", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
                        pyro.sample(f"step_{t}", dist.Gamma(Vindex(shape)[y], 1.0), obs=steps[..., t])

    def guide(steps, mask):
        pass

    return model, guide, (steps, mask)


def mixed_effect_hmm_with_normal_effects():
    """Hierarchical mixed-effect hidden Markov models: continuous random effects, drawn in the guide by plates."""
    steps = draws(2, 2, 3, seed=6).abs() + 0.2

    def model(steps):
        shape = pyro.param("shape", torch.tensor([1.2, 2.5]), constraint=constraints.positive)
        with pyro.plate("group", 2, dim=-2):
            effect = pyro.sample("effect", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with pyro.plate("animal", 2, dim=-1):
                own = pyro.sample("own", dist.Normal(torch.zeros(2), 0.5).to_event(1))
                y = torch.tensor(0)
                for t in pyro.markov(range(3)):
                    logits = Vindex(torch.eye(2))[y] + effect + own
                    y = pyro.sample(f"y_{t}", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
                    pyro.sample(f"step_{t}", dist.Gamma(Vindex(shape)[y], 1.0), obs=steps[..., t])

    def guide(steps):
        loc = pyro.param("loc", torch.tensor([0.2, -0.3]))
        scale = pyro.param("scale", torch.tensor([0.5, 0.8]), constraint=constraints.positive)
        with pyro.plate("group", 2, dim=-2):
            pyro.sample("effect", dist.Normal(loc, scale).to_event(1))
            with pyro.plate("animal", 2, dim=-1):
                pyro.sample("own", dist.Normal(loc / 2, scale / 2).to_event(1))

    return model, guide, (steps,)


def tracking():
    """Tracking an Unknown Number of Objects: which object each detection is of, with its probability in the guide."""
    seen = torch.tensor([[-1.1, 0.2, 1.4], [-0.8, 1.2, 3.0]])

    def model(seen):
        noise = pyro.param("noise", torch.tensor(0.5), constraint=constraints.positive)
        with pyro.plate("objects", 2):
            exists = pyro.sample("exists", dist.Bernoulli(0.7))
            states = pyro.sample("states", dist.Normal(torch.zeros(2), 1.5).to_event(1))
        paths = states[:, :1] + torch.arange(2.0) * states[:, 1:]
        weights = torch.cat([exists * 0.4 + 0.05, torch.ones(1) * 0.3])
        with pyro.plate("detections", 3, dim=-1), pyro.plate("time", 2, dim=-2):
            assigned = pyro.sample("assigned", dist.Categorical(weights))
            real = assigned < 2
            at = Vindex(paths)[assigned.clamp(max=1), torch.arange(2)[:, None]]
            with poutine.mask(mask=real):
                pyro.sample("real", dist.Normal(at, noise), obs=seen)
            with poutine.mask(mask=~real):
                pyro.sample("spurious", dist.Uniform(-4.0, 4.0), obs=seen)

    @config_enumerate
    def guide(seen):
        p = pyro.param("p_exists", torch.tensor([0.6, 0.8]), constraint=constraints.unit_interval)
        probs = pyro.param("p_assigned", torch.tensor([0.3, 0.5, 0.2]).expand(2, 3, 3), constraint=constraints.simplex)
        locs = pyro.param("states_loc", torch.tensor([[-1.0, 0.2], [0.4, 1.0]]))
        with pyro.plate("objects", 2):
            pyro.sample("exists", dist.Bernoulli(p), infer={"enumerate": None})
            pyro.sample("states", dist.Normal(locs, 0.3).to_event(1))
        with pyro.plate("detections", 3, dim=-1), pyro.plate("time", 2, dim=-2):
            pyro.sample("assigned", dist.Categorical(probs))

    return model, guide, (seen,)


# --- Forecasting ---


class _Trend(ForecastingModel):
    """A level, a slope and a heavy-tailed residual."""

    def model(self, zero_data, covariates):
        bias = pyro.sample("bias", dist.Normal(0.0, 5.0))
        weight = pyro.sample("weight", dist.Normal(0.0, 0.5).expand([covariates.size(-1)]).to_event(1))
        prediction = bias + (weight * covariates).sum(-1, keepdim=True)
        noise = pyro.sample("noise_scale", dist.LogNormal(-1.0, 1.0))
        self.predict(dist.StudentT(6.0, 0.0, noise), prediction)


def forecasting_univariate():
    """Forecasting I: a ForecastingModel of independent residuals, and AutoNormal."""
    covariates = torch.stack([torch.arange(6.0) / 6, torch.sin(torch.arange(6.0))], -1)
    model = _Trend()
    return model, AutoNormal(model, init_scale=0.3), (draws(6, 1) + 1.0, covariates)


class _Level(ForecastingModel):
    """A random walk that drifts at each time, with noise around it."""

    def model(self, zero_data, covariates):
        drift_scale = pyro.sample("drift_scale", dist.LogNormal(-1.0, 1.0))
        with self.time_plate, poutine.reparam(config={"drift": LocScaleReparam()}):
            drift = pyro.sample("drift", dist.Normal(zero_data[..., 0], drift_scale))
        level = drift.cumsum(-1).unsqueeze(-1)
        noise = pyro.sample("noise_scale", dist.LogNormal(-1.0, 1.0))
        self.predict(dist.Normal(0.0, noise), level)


def forecasting_local_level():
    """Forecasting I and II: a local level in the time plate, with LocScaleReparam."""
    model = _Level()
    return model, AutoNormal(model, init_scale=0.3), (draws(5, 1, seed=1), torch.zeros(5, 0))


def forecasting_dct():
    """Forecasting I: time-dependent sites by the discrete cosine transform, as time_reparam says."""
    model = poutine.reparam(_Level(), time_reparam_dct)
    return model, AutoNormal(model, init_scale=0.3), (draws(5, 1, seed=1), torch.zeros(5, 0))


class _States(ForecastingModel):
    """A linear dynamical system of two states as noise about a seasonal mean."""

    def model(self, zero_data, covariates):
        season = pyro.sample("season", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        prediction = season[torch.arange(covariates.size(-2)) % 2].unsqueeze(-1)
        timescale = pyro.sample("timescale", dist.LogNormal(1.0, 0.5))
        scale = pyro.sample("trans_scale", dist.LogNormal(-0.5, 0.5))
        decay = torch.exp(-1 / timescale)
        first = dist.Normal(torch.zeros(1), 1.0).to_event(1)
        noise = dist.Normal(torch.zeros(1), scale).to_event(1)
        seen = dist.Normal(torch.zeros(1), 0.5).to_event(1)
        hmm = dist.GaussianHMM(first, decay.reshape(1, 1), noise, torch.eye(1), seen, duration=zero_data.size(-2))
        self.predict(hmm, prediction)


def forecasting_state_space():
    """Forecasting II: state space models, a GaussianHMM as the noise of a prediction."""
    model = _States()
    return model, AutoNormal(model, init_scale=0.3), (draws(5, 1, seed=1), torch.zeros(5, 0))


class _Trips(ForecastingModel):
    """Trips by origin and destination in three nested plates, of which a minibatch of the first."""

    def __init__(self, size=None):
        super().__init__()
        self.size = size

    def model(self, zero_data, covariates):
        origins = pyro.plate("origin", 3, subsample_size=self.size, dim=-3)
        destins = pyro.plate("destin", 2, dim=-2)
        with origins:
            origin = pyro.sample("origin_bias", dist.Normal(0.0, 1.0))
        with destins:
            destin = pyro.sample("destin_bias", dist.Normal(0.0, 1.0))
            scale = pyro.sample("scale", dist.LogNormal(-1.0, 1.0))
        with origins, destins:
            pair = pyro.sample("pair", dist.Normal(0.0, 0.5))
            with self.time_plate:
                drift = pyro.sample("drift", dist.Normal(pyro.subsample(zero_data, event_dim=1)[..., 0], 0.3))
        mean = (origin + destin + pair + drift.cumsum(-1)).unsqueeze(-1)
        with origins, destins:
            self.predict(dist.Normal(0.0, scale.unsqueeze(-1)), mean)


def _create_plates(data, covariates):
    return [pyro.plate("origin", 3, subsample_size=2, dim=-3), pyro.plate("destin", 2, dim=-2)]


def forecasting_hierarchical():
    """Forecasting III: hierarchical models of origins and destinations, whole data."""
    model = _Trips()
    return model, AutoNormal(model, init_scale=0.3), (draws(3, 2, 3, 1, seed=2), torch.zeros(3, 0))


def forecasting_subsampled():
    """Forecasting III: a minibatch of the origins, in the guide by create_plates."""
    model = _Trips(2)
    guide = AutoNormal(model, init_scale=0.3, create_plates=_create_plates)
    return model, guide, (draws(3, 2, 3, 1, seed=2), torch.zeros(3, 0))


def multivariate_walk():
    """Multivariate forecasting: a random walk of several series with LKJ-correlated steps, by LocScaleReparam."""
    data = draws(4, 2, seed=8)

    def model(data):
        scales = pyro.sample("scales", dist.LogNormal(torch.zeros(2) - 1, 0.5).to_event(1))
        corr = pyro.sample("corr", dist.LKJCholesky(2, 2.0))
        with pyro.plate("time", 4):
            raw = pyro.sample("raw", dist.Normal(torch.zeros(2), scales).to_event(1))
            walk = (raw @ corr.transpose(-1, -2)).cumsum(-2)
            pyro.sample("y", dist.Normal(walk, 0.7).to_event(1), obs=data)

    reparametrised = poutine.reparam(model, {"raw": LocScaleReparam()})
    return reparametrised, AutoNormal(reparametrised, init_scale=0.3), (data,)


# --- Gaussian processes ---


def _curve(n=5):
    x = torch.linspace(0.0, 4.0, n)
    return x, torch.sin(x) + 0.3 * draws(n, seed=11)


def gp_regression():
    """Gaussian Processes: GPRegression, whose hyperparameters are parameters."""
    x, y = _curve()
    kernel = gp.kernels.RBF(input_dim=1, variance=torch.tensor(2.0), lengthscale=torch.tensor(1.5))
    gpr = gp.models.GPRegression(x, y, kernel, noise=torch.tensor(0.5))
    return gpr.model, gpr.guide, ()


def gp_regression_maximum_a_posteriori():
    """Gaussian Processes: priors of the kernel's hyperparameters, at their modes."""
    x, y = _curve()
    gpr = gp.models.GPRegression(x, y, gp.kernels.RBF(input_dim=1), noise=torch.tensor(0.5))
    gpr.kernel.lengthscale = PyroSample(dist.LogNormal(0.0, 1.0))
    gpr.kernel.variance = PyroSample(dist.LogNormal(0.0, 1.0))
    gpr.kernel.autoguide("lengthscale", dist.Delta)
    gpr.kernel.autoguide("variance", dist.Delta)
    return gpr.model, gpr.guide, ()


def gp_regression_with_a_guide():
    """Gaussian Processes: a prior of a hyperparameter and its Normal autoguide, summed kernels."""
    x, y = _curve()
    kernel = gp.kernels.Sum(gp.kernels.RBF(input_dim=1), gp.kernels.Periodic(input_dim=1))
    gpr = gp.models.GPRegression(x, y, kernel, noise=torch.tensor(0.5))
    gpr.kernel.kern0.lengthscale = PyroSample(dist.LogNormal(0.0, 1.0))
    gpr.kernel.kern0.autoguide("lengthscale", dist.Normal)
    return gpr.model, gpr.guide, ()


def sparse_gp_regression():
    """Gaussian Processes: SparseGPRegression by variational free energy."""
    x, y = _curve()
    kernel = gp.kernels.Matern32(input_dim=1)
    sgpr = gp.models.SparseGPRegression(
        x, y, kernel, Xu=torch.linspace(0.5, 3.5, 3), noise=torch.tensor(0.5), jitter=1e-3
    )
    return sgpr.model, sgpr.guide, ()


def variational_gp():
    """Gaussian Processes: VariationalGP with a Gaussian likelihood."""
    x, y = _curve(4)
    likelihood = gp.likelihoods.Gaussian(variance=torch.tensor(0.5))
    vgp = gp.models.VariationalGP(x, y, gp.kernels.RBF(input_dim=1), likelihood, jitter=1e-2)
    return vgp.model, vgp.guide, ()


def whitened_gp():
    """Gaussian Processes: VariationalSparseGP, whitened, a minibatch scaled to num_data."""
    x, y = _curve(4)
    likelihood = gp.likelihoods.Gaussian(variance=torch.tensor(0.5))
    kernel = gp.kernels.RBF(input_dim=1)
    svgp = gp.models.VariationalSparseGP(
        x, y, kernel, torch.linspace(0.5, 3.5, 3), likelihood, num_data=12, whiten=True, jitter=1e-2
    )
    return svgp.model, svgp.guide, ()


def binary_gp():
    """Gaussian Processes: VariationalSparseGP of binary data, whose likelihood draws the function inside."""
    x, _ = _curve(4)
    kernel = gp.kernels.RBF(input_dim=1)
    svgp = gp.models.VariationalSparseGP(
        x, coins(4, seed=1), kernel, torch.linspace(0.5, 3.5, 2), gp.likelihoods.Binary(), jitter=1e-2
    )
    return svgp.model, svgp.guide, ()


def multiclass_gp():
    """Deep Kernel Learning: a network's features in the kernel, three classes."""
    torch.manual_seed(0)
    x = draws(4, 3, seed=12)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh())
    kernel = gp.kernels.Warping(gp.kernels.RBF(input_dim=2, lengthscale=torch.ones(2)), iwarping_fn=net)
    svgp = gp.models.VariationalSparseGP(
        x,
        torch.tensor([0.0, 2.0, 1.0, 2.0]),
        kernel,
        draws(2, 3, seed=13),
        gp.likelihoods.MultiClass(num_classes=3),
        latent_shape=torch.Size([3]),
        jitter=1e-2,
    )
    return svgp.model, svgp.guide, ()


def gplvm():
    """Gaussian Process Latent Variable Model: inputs with a prior and a Normal autoguide, sparse regression."""
    y = draws(2, 4, seed=14)
    kernel = gp.kernels.RBF(input_dim=1, lengthscale=torch.ones(1))
    base = gp.models.SparseGPRegression(
        torch.zeros(4, 1), y, kernel, draws(2, 1, seed=15), noise=torch.tensor(0.5), jitter=1e-2
    )
    base.X = PyroSample(dist.Normal(torch.zeros(4, 1), 0.7).to_event())
    base.autoguide("X", dist.Normal)
    base.X_loc.data = 0.3 * draws(4, 1, seed=16)
    return base.model, base.guide, ()


def gplvm_module():
    """Gaussian Process Latent Variable Model: the class of that name."""
    y = draws(2, 4, seed=14)
    kernel = gp.kernels.RBF(input_dim=1, lengthscale=torch.ones(1))
    x = 0.3 * draws(4, 1, seed=16)
    base = gp.models.SparseGPRegression(x, y, kernel, draws(2, 1, seed=15), noise=torch.tensor(0.5), jitter=1e-2)
    lvm = gp.models.GPLVM(base)
    return lvm.model, lvm.guide, ()


# --- Sparse gamma deep exponential family ---


def _gamma_layers(data):
    """Two layers of Gamma latent variables and Poisson data, with their weights."""
    with pyro.plate("w_top_plate", 2):
        top_w = pyro.sample("w_top", dist.Gamma(0.5, 0.5))
    with pyro.plate("w_bottom_plate", 6):
        bottom_w = pyro.sample("w_bottom", dist.Gamma(0.5, 0.5)).reshape(2, 3)
    with pyro.plate("data", len(data)):
        z = pyro.sample("z", dist.Gamma(torch.full((2,), 0.7), 0.7).to_event(1))
        h = pyro.sample("h", dist.Gamma(0.8, 0.8 / (z * top_w + 0.1)).to_event(1))
        pyro.sample("x", dist.Poisson(h @ bottom_w + 0.1).to_event(1), obs=data)


def _counts():
    return torch.tensor(np.random.RandomState(5).poisson(1.5, (3, 3)), dtype=torch.float32)


def gamma_family():
    """Sparse Gamma Deep Exponential Family: a mean-field Gamma guide whose parameters go through softplus."""

    def guide(data):
        def gamma(name, *shape):
            alpha = pyro.param(f"alpha_{name}", 0.8 + 0.3 * draws(*shape, seed=20))
            mean = pyro.param(f"mean_{name}", 0.5 + 0.3 * draws(*shape, seed=21))
            alpha, mean = torch.nn.functional.softplus(alpha) + 0.3, torch.nn.functional.softplus(mean)
            return dist.Gamma(alpha, alpha / mean)

        with pyro.plate("w_top_plate", 2):
            pyro.sample("w_top", gamma("w_top", 2))
        with pyro.plate("w_bottom_plate", 6):
            pyro.sample("w_bottom", gamma("w_bottom", 6))
        with pyro.plate("data", len(data)):
            pyro.sample("z", gamma("z", 3, 2).to_event(1))
            pyro.sample("h", gamma("h", 3, 2).to_event(1))

    return _gamma_layers, guide, (_counts(),)


def gamma_family_by_autoguide():
    """Sparse Gamma Deep Exponential Family: the same by AutoNormal, started at feasible points."""
    return _gamma_layers, AutoNormal(_gamma_layers, init_loc_fn=init_to_feasible, init_scale=0.2), (_counts(),)


class _Easy(EasyGuide):
    """Groups of the sites as the example's easy guide has them."""

    def guide(self, data):
        weights = self.group("w_.*")
        alphas = torch.nn.functional.softplus(pyro.param("w_loc", 0.3 * torch.ones(8)))
        weights.sample("weights", dist.Normal(alphas, 0.3).to_event(1))
        with self.plate("data", len(data)):
            loc = pyro.param("local_loc", 0.2 * draws(3, 4, seed=22))
            self.group("[hz]").sample("local", dist.Normal(loc, 0.3).to_event(1))


def gamma_family_by_easyguide():
    """Sparse Gamma Deep Exponential Family: an EasyGuide with groups of sites."""
    return _gamma_layers, _Easy(_gamma_layers), (_counts(),)


def easy_guide_of_a_function():
    """Easy Custom Guides: a guide by decorator, with a group, a MAP estimate and a local site in a plate."""
    data = draws(4, seed=23)

    def model(data):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        bias = pyro.sample("bias", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
        with pyro.plate("data", len(data)):
            x = pyro.sample("x", dist.Normal(loc, 1.0))
            pyro.sample("y", dist.Normal(x + bias.sum(), scale), obs=data)

    @easy_guide(model)
    def guide(self, data):
        self.map_estimate("scale")
        group = self.group(match="loc|bias")
        loc = pyro.param("group_loc", torch.tensor([0.1, -0.2, 0.3]))
        tril = pyro.param("group_tril", 0.5 * torch.eye(3) + 0.0, constraint=constraints.lower_cholesky)
        group.sample("group", dist.MultivariateNormal(loc, scale_tril=tril))
        with self.plate("data", 4):
            x_loc = pyro.param("x_loc", torch.zeros(4), event_dim=0)
            pyro.sample("x", dist.Normal(x_loc, 0.6))

    return model, guide, (data,)


# --- Objectives of one's own ---


class Written:
    """A loss written as a function that autograd differentiates."""

    def __init__(self, function):
        self.function = function

    def loss(self, model, guide, *args):
        return float(self.function(model, guide, *args))

    def loss_and_grads(self, model, guide, *args):
        value = self.function(model, guide, *args)
        value.backward()
        return float(value)


def two_traces(model, guide, *args):
    """Minus the ELBO by a trace of the guide and one of the model replayed."""
    drawn = poutine.trace(guide).get_trace(*args)
    scored = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*args)
    return drawn.log_prob_sum() - scored.log_prob_sum()


def simple_elbo():
    """Customizing SVI objectives: a loss of two traces, written by hand."""
    data = draws(4, seed=24)

    def model(data):
        with pyro.plate("data", len(data)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z * pyro.param("slope", torch.tensor(0.8)), 0.7), obs=data)

    def guide(data):
        with pyro.plate("data", len(data)):
            loc = pyro.param("loc", torch.tensor(0.2))
            pyro.sample(
                "z", dist.Normal(loc + 0.5 * data, pyro.param("scale", torch.tensor(0.6), constraints.positive))
            )

    return model, guide, (data,)


def annealed_divergence():
    """Customizing SVI objectives: the latent sites alone scaled, in model and guide, by an annealing factor argument."""
    data = draws(4, seed=24)

    def model(data, beta):
        with pyro.plate("data", len(data)):
            with poutine.scale(scale=beta):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z * pyro.param("slope", torch.tensor(0.8)), 0.7), obs=data)

    def guide(data, beta):
        with pyro.plate("data", len(data)), poutine.scale(scale=beta):
            loc = pyro.param("loc", torch.tensor(0.2))
            pyro.sample(
                "z", dist.Normal(loc + 0.5 * data, pyro.param("scale", torch.tensor(0.6), constraints.positive))
            )

    return model, guide, (data, 0.3)


def scaled_as_a_whole():
    """Customizing SVI objectives: model and guide scaled by one over the number of data."""
    model, guide, (data,) = simple_elbo()
    return poutine.scale(model, scale=0.25), poutine.scale(guide, scale=0.25), (data,)


def regularised(model, guide, *args):
    """The library's ELBO and a penalty of the parameters."""
    loss = Trace_ELBO().differentiable_loss(model, guide, *args)
    return loss + 0.5 * (pyro.param("loc") ** 2).sum() + 0.1 * (pyro.param("slope") ** 2).sum()


def penalised_elbo(p, q):
    return elbo(p, q) - 0.5 * pyro.param("loc") ** 2 - 0.1 * pyro.param("slope") ** 2


def mixing_discrete_and_vector_particles():
    """Customizing SVI objectives: several particles, vectorised, of a discrete site and a continuous one."""
    data = draws(3, seed=25)

    def model(data):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(data)):
            b = pyro.sample("b", dist.Bernoulli(0.4))
            pyro.sample("x", dist.Normal(z + b, 0.8), obs=data)

    def guide(data):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 0.5))
        with pyro.plate("data", len(data)):
            p = pyro.param("p", torch.tensor([0.3, 0.6, 0.5]), constraint=constraints.unit_interval)
            pyro.sample("b", dist.Bernoulli(p))

    return model, guide, (data,)


# --- Boosting ---


def _earlier(data):
    """The mixture of the components before, whose parameters are fixed."""
    mixing = dist.Categorical(torch.tensor([0.6, 0.4]))
    pyro.sample("mu", dist.MixtureSameFamily(mixing, dist.Normal(torch.tensor([-1.0, 0.5]), torch.tensor([0.5, 0.7]))))


def boosting():
    """Boosting Black Box Variational Inference: one more component by the residual ELBO."""
    data = draws(5, seed=26) * 2

    def model(data):
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        with pyro.plate("data", len(data)):
            pyro.sample("x", dist.Normal(mu * mu, 1.0), obs=data)

    def guide(data):
        scale = pyro.param("scale_2", torch.tensor(0.6), constraint=constraints.positive)
        pyro.sample("mu", dist.Normal(pyro.param("loc_2", torch.tensor(0.9)), scale))

    return model, guide, (data,)


def residual_loss(model, guide, *args):
    """Minus the residual ELBO: the earlier components replayed at the new one's draw."""
    drawn = poutine.trace(guide).get_trace(*args)
    scored = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*args)
    before = poutine.trace(poutine.replay(poutine.block(_earlier, expose=["mu"]), trace=drawn)).get_trace(*args)
    return drawn.log_prob_sum() + before.log_prob_sum() - scored.log_prob_sum()


def residual_elbo(p, q):
    z = q.simulate()
    return p.log_density(z) - z.log_density - ppvi.handle(_earlier).log_density(z)


# --- Reweighted bounds ---


def renyi_normal():
    """SVI objectives, RenyiELBO: a Normal guide, several particles."""
    data = draws(4, seed=27)

    def model(data):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(data)):
            pyro.sample("x", dist.Normal(z, 0.9), obs=data)

    def guide(data):
        scale = pyro.param("scale", torch.tensor(0.9), constraint=constraints.positive)
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), scale))

    return model, guide, (data,)


def analytic_terms():
    """SVI objectives, TraceMeanField_ELBO: closed divergences in a plate, under a mask and a scale."""
    data = draws(4, seed=28)
    mask = torch.tensor([True, True, False, True])

    def model(data):
        w = pyro.sample("w", dist.Gamma(2.0, 1.5))
        with pyro.plate("data", 8, 4), poutine.mask(mask=mask):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1) * w, 0.9), obs=data)

    def guide(data):
        pyro.sample("w", dist.Gamma(pyro.param("a", torch.tensor(3.0), constraint=constraints.positive), 2.0))
        with pyro.plate("data", 8, 4), poutine.mask(mask=mask):
            loc = pyro.param("loc", 0.3 * torch.ones(2))
            pyro.sample("z", dist.Normal(loc, pyro.param("scale", torch.tensor(0.6), constraints.positive)).to_event(1))

    return model, guide, (data,)


# --- State space ---


def gaussian_hmm():
    """State space models: a Kalman filter as GaussianHMM, its matrices parameters."""
    data = draws(2, 4, 1, seed=30)

    def model(data):
        noise = pyro.sample("noise", dist.LogNormal(-0.5, 0.4))
        angle = pyro.param("angle", torch.tensor(0.4))
        turn = torch.stack([torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)]).reshape(2, 2)
        first = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        step = dist.Normal(torch.zeros(2), torch.full((2,), 0.5)).to_event(1)
        seen = dist.Normal(torch.zeros(1), noise.unsqueeze(-1)).to_event(1)
        with pyro.plate("series", 2):
            hmm = dist.GaussianHMM(first, 0.9 * turn, step, torch.tensor([[1.0], [0.3]]), seen, duration=4)
            pyro.sample("y", hmm, obs=data)

    return model, AutoNormal(model, init_scale=0.3), (data,)


def extended_kalman_filter():
    """Kalman Filter: an extended filter's distribution, a network of a step and a measurement."""
    data = draws(3, 2, seed=31)

    def model(data):
        var = pyro.param("var", torch.tensor(0.5), constraint=constraints.positive)
        x = pyro.sample("x_0", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
        for t in range(3):
            x = pyro.sample(
                f"x_{t + 1}", dist.MultivariateNormal(0.9 * x + 0.1 * x.sin(), covariance_matrix=var * torch.eye(2))
            )
            pyro.sample(f"y_{t}", dist.Normal(x, 0.7).to_event(1), obs=data[t])

    def guide(data):
        for t in range(4):
            loc = pyro.param(f"loc_{t}", 0.1 * t * torch.ones(2))
            tril = pyro.param(f"tril_{t}", 0.5 * torch.eye(2), constraint=constraints.lower_cholesky)
            pyro.sample(f"x_{t}", dist.MultivariateNormal(loc, scale_tril=tril))

    return model, guide, (data,)


# --- Effect handlers, modules, reparametrisation ---


def conditioned():
    """Poutine: poutine.condition makes an observation of a site, and a scale and a mask of blocks of sites."""
    data = draws(3, seed=32)

    def model():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with poutine.scale(scale=2.0):
            b = pyro.sample("b", dist.Normal(a, 1.0))
        with pyro.plate("data", 3), poutine.mask(mask=torch.tensor([True, False, True])):
            pyro.sample("x", dist.Normal(a * b, 1.0))

    def guide():
        pyro.sample("a", dist.Normal(pyro.param("a_loc", torch.tensor(0.4)), 0.7))
        with poutine.scale(scale=2.0):
            pyro.sample("b", dist.Normal(pyro.param("b_loc", torch.tensor(-0.2)), 0.7))

    return poutine.condition(model, data={"x": data}), guide, ()


def intervened():
    """Poutine: poutine.do cuts a site off from those after it, which see another value."""

    def model():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Normal(a, 1.0))
        c = pyro.sample("c", dist.Normal(a + b, 1.0))
        pyro.sample("x", dist.Normal(c, 1.0), obs=torch.tensor(0.8))

    def guide():
        a = pyro.sample("a", dist.Normal(pyro.param("a_loc", torch.tensor(0.4)), 0.7))
        pyro.sample("b", dist.Normal(a + pyro.param("b_loc", torch.tensor(0.2)), 0.7))
        pyro.sample("c", dist.Normal(pyro.param("c_loc", torch.tensor(0.1)), 0.7))

    return poutine.do(model, data={"b": torch.tensor(1.5)}), guide, ()


def lifted():
    """Poutine: parameters lifted to sites by priors, in a guide of Normals."""
    x, y = draws(4, seed=33), draws(4, seed=34)

    def regression(x, y):
        slope = pyro.param("slope", torch.tensor(0.5))
        offset = pyro.param("offset", torch.tensor(0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(slope * x + offset, 0.8), obs=y)

    def guide(x, y):
        for name in ("slope", "offset"):
            loc = pyro.param(f"{name}_loc", torch.tensor(0.3))
            scale = pyro.param(f"{name}_scale", torch.tensor(0.6), constraint=constraints.positive)
            pyro.sample(name, dist.Normal(loc, scale))

    model = poutine.lift(regression, prior={"slope": dist.Normal(0.0, 1.0), "offset": dist.Normal(0.0, 2.0)})
    return model, guide, (x, y)


def blocked_and_replayed():
    """Poutine: a guide that replays a trace of one site, of a model that hides another by poutine.block."""
    fixed = poutine.trace(lambda: pyro.sample("b", dist.Normal(torch.tensor(0.0), 1.0))).get_trace()

    def inner():
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        return a, pyro.sample("b", dist.Normal(a, 1.0))

    def model():
        a, b = poutine.block(poutine.replay(inner, trace=fixed), hide=["b"])()
        pyro.sample("x", dist.Normal(a + b, 1.0), obs=torch.tensor(0.8))

    def guide():
        pyro.sample("a", dist.Normal(pyro.param("a_loc", torch.tensor(0.4)), 0.7))

    return model, guide, ()


class _Bayesian(PyroModule):
    """A network of two layers whose weights have priors."""

    def __init__(self):
        super().__init__()
        self.one = PyroModule[torch.nn.Linear](2, 2)
        self.one.weight = PyroSample(dist.Normal(0.0, 1.0).expand([2, 2]).to_event(2))
        self.one.bias = PyroSample(dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        self.two = PyroModule[torch.nn.Linear](2, 1)
        self.two.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))
        self.scale = PyroParam(torch.tensor(0.7), constraints.positive)

    def forward(self, x, y=None):
        mean = self.two(torch.tanh(self.one(x))).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, self.scale), obs=y)
        return pyro.deterministic("mean", mean)


def bayesian_network():
    """Modules in Pyro: a network of PyroSample weights and a PyroParam, under AutoDiagonalNormal."""
    torch.manual_seed(0)
    model = _Bayesian()
    return model, AutoDiagonalNormal(model, init_scale=0.3), (draws(4, 2, seed=35), draws(4, seed=36))


def bayesian_network_by_to_pyro_module():
    """Modules in Pyro: a torch module converted in place, all its parameters replaced by priors."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    to_pyro_module_(net)
    for module in net.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            setattr(module, name, PyroSample(dist.Normal(torch.zeros_like(value), 0.8).to_event(value.dim())))

    def model(x, y):
        mean = net(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, 0.7), obs=y)

    return model, AutoNormal(model, init_scale=0.3), (draws(4, 2, seed=35), draws(4, seed=36))


class _Regression(PyroModule):
    """A regression with a deterministic mean, for predictions."""

    def __init__(self):
        super().__init__()
        self.linear = PyroModule[torch.nn.Linear](2, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))

    def forward(self, x, y=None):
        sigma = pyro.sample("sigma", dist.Uniform(0.2, 3.0))
        mean = pyro.deterministic("mean", self.linear(x).squeeze(-1))
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        pyro.factor("penalty", -0.1 * (mean**2).sum())
        return mean


def predictive_deterministic():
    """High-dimensional Bayesian workflow: pyro.deterministic and pyro.factor in a module under AutoNormal."""
    torch.manual_seed(0)
    model = _Regression()
    return model, AutoNormal(model, init_scale=0.3), (draws(4, 2, seed=35), draws(4, seed=36))


def _funnel():
    y = pyro.sample("y", dist.Normal(0.0, 1.0))
    with pyro.plate("x_plate", 3):
        x = pyro.sample("x", dist.Normal(0.5, (y / 2).exp()))
        pyro.sample("seen", dist.Normal(x, 1.0), obs=torch.tensor([0.3, -1.0, 1.2]))


def decentred_by_hand():
    """Reparametrization: LocScaleReparam, wholly decentred."""
    model = poutine.reparam(_funnel, config={"x": LocScaleReparam(0.0)})
    return model, AutoNormal(model, init_scale=0.4), ()


def decentred_by_learning():
    """Reparametrization: LocScaleReparam with a learnt centredness."""
    model = poutine.reparam(_funnel, config={"x": LocScaleReparam()})
    return model, AutoDiagonalNormal(model, init_scale=0.4), ()


def _by_a_transform():
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    loc = torch.tensor([0.2, -0.3])
    base = dist.TransformedDistribution(dist.Normal(loc, scale).to_event(1), [dist.transforms.ExpTransform()])
    x = pyro.sample("x", base)
    pyro.sample("seen", dist.Normal(x.sum(), 1.0), obs=torch.tensor(2.3))


def transformed():
    """Reparametrization: TransformReparam of a transformed distribution."""
    model = poutine.reparam(_by_a_transform, config={"x": TransformReparam()})
    return model, AutoNormal(model, init_scale=0.4), ()


def automatically():
    """Reparametrization: MinimalReparam and AutoReparam as configurations."""
    model = poutine.reparam(_funnel, config=AutoReparam(centered=0.3))
    return model, AutoNormal(model, init_scale=0.4), ()


def projected():
    """Reparametrization: ProjectedNormal and Gumbel-softmax sites by their own reparametrisations."""

    def model():
        u = pyro.sample("u", dist.ProjectedNormal(torch.tensor([1.0, 0.5])))
        v = pyro.sample("v", dist.RelaxedOneHotCategorical(torch.tensor(0.7), logits=torch.tensor([0.3, 0.1])))
        pyro.sample("seen", dist.Normal(u[0] + v[..., 0], 0.5), obs=torch.tensor(1.1))

    model = poutine.reparam(model, config={"u": ProjectedNormalReparam(), "v": GumbelSoftmaxReparam()})
    return model, AutoNormal(model, init_scale=0.4), ()


# --- Autoguides ---


def _schools(y):
    """A hierarchy with a positive and a simplex-valued site."""
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = pyro.sample("tau", dist.LogNormal(0.0, 0.6))
    parts = pyro.sample("parts", dist.Dirichlet(torch.tensor([2.0, 3.0])))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta * parts[..., 0], 0.9), obs=y)


def _hierarchy(guide):
    return _schools, guide, (draws(3, seed=40) + 0.5,)


def auto_normal():
    """Automatic Guide Generation: AutoNormal."""
    return _hierarchy(AutoNormal(_schools, init_scale=0.3))


def auto_multivariate():
    """Automatic Guide Generation: AutoMultivariateNormal."""
    return _hierarchy(AutoMultivariateNormal(_schools, init_scale=0.3))


def auto_low_rank():
    """Automatic Guide Generation: AutoLowRankMultivariateNormal."""
    return _hierarchy(AutoLowRankMultivariateNormal(_schools, init_scale=0.3, rank=2))


def auto_flow():
    """Automatic Guide Generation: AutoNormalizingFlow by a function of the dimension."""
    torch.manual_seed(0)
    return _hierarchy(
        AutoNormalizingFlow(
            _schools, partial(dist.transforms.iterated, 1, dist.transforms.affine_autoregressive, hidden_dims=[6])
        )
    )


def auto_iaf():
    """Automatic Guide Generation: AutoIAFNormal."""
    torch.manual_seed(0)
    return _hierarchy(AutoIAFNormal(_schools, hidden_dim=[6], num_transforms=1))


def auto_list():
    """Automatic Guide Generation: an AutoGuideList of AutoDelta, AutoDiagonalNormal and a function."""
    guide = AutoGuideList(_schools)
    guide.append(AutoDelta(poutine.block(_schools, expose=["parts"])))
    guide.append(AutoDiagonalNormal(poutine.block(_schools, expose=["tau", "theta"]), init_scale=0.3))

    def rest(y):
        return {"mu": pyro.sample("mu", dist.Normal(pyro.param("mu_loc", torch.tensor(0.2)), 0.5))}

    guide.append(rest)
    return _hierarchy(guide)


def auto_structured():
    """Automatic Guide Generation: AutoStructured with sites' kinds, and a linear dependency."""
    guide = AutoStructured(
        _schools,
        conditionals={"mu": "normal", "tau": "delta", "parts": "mvn", "theta": "normal"},
        dependencies={"theta": {"mu": "linear"}},
        init_scale=0.3,
    )
    return _hierarchy(guide)


def auto_gaussian():
    """Automatic Guide Generation: AutoGaussian, whose precision follows the model's dependencies."""
    return _hierarchy(AutoGaussian(_schools, init_scale=0.3))


def normal_messenger():
    """Effect guides: AutoNormalMessenger, a guide beside the model."""
    return _hierarchy(AutoNormalMessenger(_schools, init_scale=0.3))


def hierarchical_messenger():
    """Effect guides: AutoHierarchicalNormalMessenger, local sites about their priors."""
    return _hierarchy(AutoHierarchicalNormalMessenger(_schools, init_scale=0.3))


def regressive_messenger():
    """Effect guides: AutoRegressiveMessenger, an affine function of each prior's draw."""
    return _hierarchy(AutoRegressiveMessenger(_schools))


class _Messenger(GuideMessenger):
    """A guide that looks at the prior of each site of the model."""

    def get_posterior(self, name, prior):
        if name == "theta":
            loc = pyro.param("theta_loc", torch.full(prior.batch_shape, 0.2))
            return dist.Normal(loc + 0.5 * prior.mean, 0.5)
        if name == "parts":
            return dist.Dirichlet(pyro.param("parts_q", torch.tensor([2.5, 3.5]), constraint=constraints.positive))
        if name == "tau":
            return dist.LogNormal(pyro.param("tau_loc", torch.tensor(-0.2)), 0.4)
        return dist.Normal(pyro.param(f"{name}_loc", torch.tensor(0.4)), 0.6)


def custom_messenger():
    """Effect guides: one's own GuideMessenger, by the prior of each site."""
    return _hierarchy(_Messenger(_schools))


def discrete_parallel():
    """Automatic Guide Generation: AutoDiscreteParallel beside a continuous guide in a list."""
    data = draws(4, seed=41)

    @config_enumerate
    def model(data):
        locs = pyro.sample("locs", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
        with pyro.plate("data", len(data)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.4, 0.6])))
            pyro.sample("x", dist.Normal(Vindex(locs)[..., k], 0.9), obs=data)

    guide = AutoGuideList(model)
    guide.append(AutoNormal(poutine.block(model, expose=["locs"]), init_scale=0.3))
    guide.append(AutoDiscreteParallel(poutine.block(model, expose=["k"])))
    return model, guide, (data,)


# --- Designs, and a small Pyro ---


def working_memory():
    """Designing Adaptive Experiments: the posterior of a limit of memory, after lengths chosen before."""
    lengths = torch.tensor([3.0, 5.0, 7.0, 8.0])
    correct = torch.tensor([1.0, 1.0, 1.0, 0.0])

    def model(lengths):
        theta = pyro.sample("theta", dist.Normal(torch.tensor(7.0), torch.tensor(2.0)))
        with pyro.plate_stack("designs", lengths.shape):
            pyro.sample("y", dist.Bernoulli(logits=1.2 * (theta - lengths)))

    def guide(lengths):
        mean = pyro.param("mean", torch.tensor(6.5))
        sd = pyro.param("sd", torch.tensor(1.5), constraint=constraints.positive)
        pyro.sample("theta", dist.Normal(mean, sd))

    return pyro.condition(model, data={"y": correct}), guide, (lengths,)


def mini():
    """Mini-Pyro: its script of a Normal mean and scale at their own parameters."""
    data = 3.0 + draws(5, seed=42)

    def model(data):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(data), dim=-1):
            pyro.sample("obs", dist.Normal(loc, 1.0), obs=data)

    def guide(data):
        guide_loc = pyro.param("guide_loc", torch.tensor(0.3))
        guide_scale = torch.exp(pyro.param("guide_scale_log", torch.tensor(-0.4)))
        pyro.sample("loc", dist.Normal(guide_loc, guide_scale))

    return model, guide, (data,)


TWINS = [
    Twin(
        "Inference with Discrete Latent Variables", enumerated_in_the_guide, TraceEnum_ELBO(max_plate_nesting=1), n=200
    ),
    Twin(
        "Inference with Discrete Latent Variables",
        enumerated_in_sequence,
        TraceEnum_ELBO(max_plate_nesting=0),
        n=200,
        peer_n=60,
    ),
    Twin(
        "Inference with Discrete Latent Variables", plates_and_enumeration, TraceEnum_ELBO(max_plate_nesting=2), n=400
    ),
    Twin(
        "Inference with Discrete Latent Variables",
        dependencies_among_plates,
        TraceEnum_ELBO(max_plate_nesting=2),
        n=400,
    ),
    Twin("Inference with Discrete Latent Variables", time_series, TraceEnum_ELBO(max_plate_nesting=0), n=400),
    Twin("Inference with Discrete Latent Variables", chain_in_the_guide, TraceEnum_ELBO(max_plate_nesting=0), n=200),
    Twin("Example: Hidden Markov Models", hmm_one_by_one, TraceEnum_ELBO(max_plate_nesting=1), n=200, peer_n=60),
    Twin("Example: Hidden Markov Models", hmm_masked, TraceEnum_ELBO(max_plate_nesting=2), n=200, peer_n=60),
    Twin("Example: Hidden Markov Models", hmm_of_a_minibatch, TraceEnum_ELBO(max_plate_nesting=2), n=300),
    Twin("Example: Hidden Markov Models", hmm_autoregressive, TraceEnum_ELBO(max_plate_nesting=2), n=200, peer_n=60),
    Twin("Example: Hidden Markov Models", hmm_factorial, TraceEnum_ELBO(max_plate_nesting=2), n=200, peer_n=60),
    Twin("Example: Hidden Markov Models", hmm_coupled, TraceEnum_ELBO(max_plate_nesting=2), n=200, peer_n=60),
    Twin("Example: Hidden Markov Models", hmm_neural, TraceEnum_ELBO(max_plate_nesting=2), n=200, peer_n=60),
    Twin("Example: Hidden Markov Models", hmm_of_second_order, TraceEnum_ELBO(max_plate_nesting=2), n=200, peer_n=60),
    Twin("Example: Hidden Markov Models", hmm_as_a_distribution, n=200),
    *[
        Twin("Example: Capture-Recapture Models (CJS Models)", make, TraceEnum_ELBO(max_plate_nesting=1), n=200)
        for make in (cjs_constant, cjs_by_year, cjs_random_effects, cjs_by_group)
    ],
    Twin(
        "Example: Hierarchical mixed-effect hidden Markov models",
        mixed_effect_hmm,
        TraceEnum_ELBO(max_plate_nesting=2),
        n=200,
    ),
    Twin(
        "Example: Hierarchical mixed-effect hidden Markov models",
        mixed_effect_hmm_with_normal_effects,
        TraceEnum_ELBO(max_plate_nesting=2),
        n=300,
    ),
    Twin("Tracking an Unknown Number of Objects", tracking, n=500),
    Twin("Forecasting I: univariate, heavy tailed", forecasting_univariate, n=500),
    Twin("Forecasting I: univariate, heavy tailed", forecasting_local_level, n=400),
    Twin("Forecasting I: univariate, heavy tailed", forecasting_dct, n=400),
    Twin("Forecasting II: state space models", forecasting_state_space, n=300),
    Twin("Forecasting III: hierarchical models", forecasting_hierarchical, n=300),
    Twin("Forecasting III: hierarchical models", forecasting_subsampled, n=500),
    Twin("Multivariate Forecasting", multivariate_walk, n=400),
    Twin("Gaussian Processes", gp_regression, n=200),
    Twin("Gaussian Processes", gp_regression_maximum_a_posteriori, n=200),
    Twin("Gaussian Processes", gp_regression_with_a_guide, n=300),
    Twin("Gaussian Processes", sparse_gp_regression, n=200),
    Twin("Gaussian Processes", variational_gp, TraceMeanField_ELBO(), ppvi.objectives.analytic_elbo, n=300),
    Twin("Gaussian Processes", whitened_gp, TraceMeanField_ELBO(), ppvi.objectives.analytic_elbo, n=300, at=moved),
    Twin("Gaussian Processes", binary_gp, n=400, at=moved),
    Twin("Example: Deep Kernel Learning", multiclass_gp, TraceMeanField_ELBO(), ppvi.objectives.analytic_elbo, n=300),
    Twin("Gaussian Process Latent Variable Model", gplvm, n=300),
    Twin("Gaussian Process Latent Variable Model", gplvm_module, n=300),
    Twin(
        "Example: Sparse Gamma Deep Exponential Family",
        gamma_family,
        TraceMeanField_ELBO(),
        ppvi.objectives.analytic_elbo,
        n=600,
    ),
    Twin("Example: Sparse Gamma Deep Exponential Family", gamma_family_by_autoguide, n=400),
    Twin("Example: Sparse Gamma Deep Exponential Family", gamma_family_by_easyguide, n=400),
    Twin("Easy Custom Guides", easy_guide_of_a_function, n=400),
    Twin("Customizing SVI objectives and training loops", simple_elbo, Written(two_traces), n=400),
    Twin("Customizing SVI objectives and training loops", annealed_divergence, n=400),
    Twin("Customizing SVI objectives and training loops", annealed_divergence, Written(two_traces), n=400),
    Twin("Customizing SVI objectives and training loops", scaled_as_a_whole, n=400),
    Twin("Customizing SVI objectives and training loops", simple_elbo, Written(regularised), penalised_elbo, n=400),
    Twin(
        "Customizing SVI objectives and training loops",
        mixing_discrete_and_vector_particles,
        Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1),
        n=500,
    ),
    Twin("Boosting Black Box Variational Inference", boosting, Written(residual_loss), residual_elbo, n=600),
    Twin("SVI: RenyiELBO", renyi_normal, RenyiELBO(alpha=0.5, num_particles=3), ppvi.objectives.renyi(0.5, 3), n=600),
    Twin("SVI: TraceMeanField_ELBO", analytic_terms, TraceMeanField_ELBO(), ppvi.objectives.analytic_elbo, n=600),
    Twin("State space models", gaussian_hmm, n=200),
    Twin("Example: Kalman Filter", extended_kalman_filter, n=300),
    *[
        Twin("Poutine: A Guide to Programming with Effect Handlers in Pyro", make, n=500)
        for make in (conditioned, intervened, lifted, blocked_and_replayed)
    ],
    Twin("Modules in Pyro", bayesian_network, n=400),
    Twin("Modules in Pyro", bayesian_network_by_to_pyro_module, n=400),
    Twin("Example: predictive_deterministic", predictive_deterministic, n=400),
    *[
        Twin("Reparametrization", make, n=400)
        for make in (decentred_by_hand, decentred_by_learning, transformed, automatically)
    ],
    Twin("Reparametrization", projected, n=200),
    *[
        Twin("Automatic Guide Generation", make, n=300)
        for make in (
            auto_normal,
            auto_multivariate,
            auto_low_rank,
            auto_flow,
            auto_iaf,
            auto_list,
            auto_structured,
            auto_gaussian,
        )
    ],
    *[
        Twin("Automatic Guide Generation: effect guides", make, n=300)
        for make in (normal_messenger, hierarchical_messenger, regressive_messenger, custom_messenger)
    ],
    Twin("Automatic Guide Generation", discrete_parallel, TraceEnum_ELBO(max_plate_nesting=1), n=300),
    Twin("Designing Adaptive Experiments to Study Working Memory", working_memory, n=500),
    Twin("Example: Mini-Pyro", mini, n=500),
]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.make.__name__)
def test_a_twin_has_the_means_of_the_library(twin):
    assert on_pyro(twin) == []
