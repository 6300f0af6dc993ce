"""The models of `models.discrete`, in Pyro: what is finite is summed out of the density, exactly."""

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from pyro.poutine import mask


def mixture(x, components=3):
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(components)))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("components", components):
        loc = pyro.sample("loc", dist.Normal(0.0, 5.0))
    with pyro.plate("points", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(loc[z], scale), obs=x)


def hmm(y, lengths):
    with pyro.plate("states", 3):
        transition = pyro.sample("transition", dist.Dirichlet(1.0 + 4.0 * torch.eye(3)))
        loc = pyro.sample("loc", dist.Normal(torch.tensor([-2.0, 0.0, 2.0]), 0.5))
    with pyro.plate("records", len(lengths)):
        z = torch.zeros(len(lengths), dtype=torch.long)
        for t in pyro.markov(range(y.shape[1])):
            with mask(mask=t < lengths):
                z = pyro.sample(f"z_{t}", dist.Categorical(transition[z]))
                pyro.sample(f"y_{t}", dist.Normal(loc[z], 0.7), obs=y[:, t])


def dawid_skene(positions, annotations, annotators=4, classes=3):
    with pyro.plate("annotator", annotators, dim=-2), pyro.plate("class", classes):
        beta = pyro.sample("beta", dist.Dirichlet(1.0 + 3.0 * torch.eye(classes)))
    pi = pyro.sample("pi", dist.Dirichlet(torch.ones(classes)))
    with pyro.plate("item", len(annotations), dim=-2):
        c = pyro.sample("c", dist.Categorical(pi))
        with pyro.plate("position", len(positions)):
            pyro.sample("y", dist.Categorical(Vindex(beta)[positions, c, :]), obs=annotations)


def lda(words, vocabulary=12, topics=3):
    length, documents = words.shape
    with pyro.plate("topics", topics):
        phi = pyro.sample("phi", dist.Dirichlet(torch.full((vocabulary,), 0.5)))
    with pyro.plate("documents", documents, dim=-1):
        theta = pyro.sample("theta", dist.Dirichlet(torch.full((topics,), 0.7)))
        with pyro.plate("words", length, dim=-2):
            z = pyro.sample("z", dist.Categorical(theta))
            pyro.sample("w", dist.Categorical(phi[z]), obs=words)


def capture_recapture(captures):
    rho = pyro.sample("rho", dist.Uniform(0.0, 1.0))
    animals = pyro.plate("animals", len(captures))
    marked, alive = captures[:, 0] > 0, torch.ones(len(captures))
    for t in pyro.markov(range(1, captures.shape[1])):
        phi = pyro.sample(f"phi_{t}", dist.Uniform(0.0, 1.0))
        with animals:
            alive = pyro.sample(f"alive_{t}", dist.Bernoulli(torch.where(marked, phi * alive, 1.0)))
            with mask(mask=marked):
                pyro.sample(f"y_{t}", dist.Bernoulli(rho * alive), obs=captures[:, t])
        marked = marked | (captures[:, t] > 0)


def change_point(counts):
    years = len(counts)
    early = pyro.sample("early", dist.Gamma(2.0, 1.0))
    late = pyro.sample("late", dist.Gamma(2.0, 1.0))
    change = pyro.sample("change", dist.Categorical(torch.full((years,), 1 / years)))
    with pyro.plate("years", years):
        rate = torch.where(torch.arange(years) < change, early, late)
        pyro.sample("y", dist.Poisson(rate), obs=counts)


def zero_inflated(hours, catches):
    with pyro.plate("coefficients", 2):
        gate = pyro.sample("gate", dist.Normal(0.0, 1.0))
        rate = pyro.sample("rate", dist.Normal(0.0, 1.0))
    with pyro.plate("parties", len(hours)):
        fishes = pyro.sample("fishes", dist.Bernoulli(torch.sigmoid(gate[0] + gate[1] * hours)))
        pyro.sample("y", dist.Poisson(fishes * torch.exp(rate[0] + rate[1] * hours)), obs=catches)
