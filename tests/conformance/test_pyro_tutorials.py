"""Twins of Pyro's tutorials: regression, the pages on stochastic variational inference, and deep and discrete models."""

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO, config_enumerate
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoIAFNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalizingFlow,
    init_to_feasible,
    init_to_mean,
)
from pyro.nn import DenseNN, PyroModule, PyroParam, PyroSample
from torch import nn
from torch.distributions import constraints
from torch.nn.functional import one_hot, softplus

from ppvi.objectives import analytic_elbo
from tests.conformance.twins import Twin, on_pyro


def normals(seed, *shape):
    return torch.tensor(np.random.RandomState(seed).randn(*shape), dtype=torch.float)


def coins(seed, *shape):
    return torch.tensor(np.random.RandomState(seed).randint(2, size=shape), dtype=torch.float)


def moved(by):
    """Parameters that differ from each other, a little off where they start."""

    def at(name, start):
        return start * (1 + by * np.sin(np.arange(start.size)).reshape(start.shape))

    return at


def shifted(by):
    def at(name, start):
        return start + by * np.sin(1 + np.arange(start.size)).reshape(start.shape)

    return at


# ------------------------------------------------------------------------------------------------------- regression


def countries():
    """Two covariates, of which one is 0 or 1, and a response."""
    one, other = coins(0, 12), normals(1, 12)
    return one, other, 1.0 + 0.4 * one - 0.7 * other + 0.3 * one * other + 0.5 * normals(2, 12)


def gdp_model(one, other, y=None):
    a = pyro.sample("a", dist.Normal(0.0, 10.0))
    b_one = pyro.sample("bA", dist.Normal(0.0, 1.0))
    b_other = pyro.sample("bR", dist.Normal(0.0, 1.0))
    b_both = pyro.sample("bAR", dist.Normal(0.0, 1.0))
    sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
    mean = a + b_one * one + b_other * other + b_both * one * other
    with pyro.plate("data", len(one)):
        return pyro.sample("obs", dist.Normal(mean, sigma), obs=y)


def gdp_by_hand():
    """Introduction to Pyro, a guide of independent normal distributions with parameters made by functions."""

    def guide(one, other, y=None):
        sigma_loc = pyro.param("sigma_loc", lambda: torch.tensor(1.0), constraint=constraints.positive)
        for name in ("a", "bA", "bR", "bAR"):
            loc = pyro.param(f"{name}_loc", lambda: torch.tensor(0.0))
            scale = pyro.param(f"{name}_scale", lambda: torch.tensor(0.3), constraint=constraints.positive)
            pyro.sample(name, dist.Normal(loc, scale))
        pyro.sample("sigma", dist.Normal(sigma_loc, torch.tensor(0.05)))

    return gdp_model, guide, countries()


def gdp_normal():
    """Introduction to Pyro, AutoNormal."""
    return gdp_model, AutoNormal(gdp_model), countries()


def gdp_multivariate():
    """Introduction to Pyro, AutoMultivariateNormal that starts at the prior's mean."""
    return gdp_model, AutoMultivariateNormal(gdp_model, init_loc_fn=init_to_mean), countries()


class Regression(PyroModule):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear = PyroModule[nn.Linear](inputs, outputs)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([outputs, inputs]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([outputs]).to_event(1))

    def forward(self, x, y=None):
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


def regression_module():
    """Bayesian Regression - Introduction (Part 1), PyroSample weights of a linear layer and AutoDiagonalNormal."""
    one, other, y = countries()
    model = Regression(3, 1)
    return model, AutoDiagonalNormal(model), (torch.stack([one, other, one * other], -1), y)


def regression_maximum_likelihood():
    """Bayesian Regression - Introduction (Part 1), the layer's parameters learn, without a hidden site."""
    one, other, y = countries()
    layer = PyroModule[nn.Linear](3, 1)

    def model(x, y):
        pyro.module("layer", layer)
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(layer(x).squeeze(-1), 0.7), obs=y)

    def guide(x, y):
        pass

    return model, guide, (torch.stack([one, other, one * other], -1), y)


def network_module():
    """Modules in Pyro, a PyroModule tree with PyroParam, PyroSample that depends on another, and an AutoNormal of it."""

    class Net(PyroModule):
        def __init__(self):
            super().__init__()
            self.spread = PyroParam(torch.tensor(0.8), constraint=constraints.positive)
            self.first = PyroModule[nn.Linear](2, 3)
            self.second = PyroModule[nn.Linear](3, 1)
            self.tau = PyroSample(dist.LogNormal(0.0, 0.3))
            self.second.weight = PyroSample(lambda own: dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
            self.first.bias = PyroSample(dist.Normal(0.0, 1.0).expand([3]).to_event(1))

        def forward(self, x, y):
            mean = self.second(torch.tanh(self.first(x))).squeeze(-1) * self.tau
            with pyro.plate("data", len(x)):
                return pyro.sample("y", dist.Normal(mean, self.spread), obs=y)

    model = Net()
    return model, AutoNormal(model), (normals(3, 6, 2), normals(4, 6))


# ---------------------------------------------------------------------------------------------------- SVI, in parts


def fairness_guide(data):
    alpha = pyro.param("alpha_q", torch.tensor(5.0), constraint=constraints.positive)
    beta = pyro.param("beta_q", torch.tensor(4.0), constraint=constraints.positive)
    pyro.sample("latent_fairness", dist.Beta(alpha, beta))


def fairness():
    return pyro.sample("latent_fairness", dist.Beta(torch.tensor(10.0), torch.tensor(10.0)))


TOSSES = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0])


def loop_plate():
    """SVI Part II, a sequential plate."""

    def model(data):
        f = fairness()
        for i in pyro.plate("data_loop", len(data)):
            pyro.sample(f"obs_{i}", dist.Bernoulli(f), obs=data[i])

    return model, fairness_guide, (TOSSES,)


def loop_subsample():
    """SVI Part II, a sequential plate that subsamples."""

    def model(data):
        f = fairness()
        for i in pyro.plate("data_loop", len(data), subsample_size=4):
            pyro.sample(f"obs_{i}", dist.Bernoulli(f), obs=data[i])

    return model, fairness_guide, (TOSSES,)


def vector_plate():
    """SVI Part II, a vectorised plate."""

    def model(data):
        f = fairness()
        with pyro.plate("observe_data"), poutine.mask(mask=data > -1):
            pyro.sample("obs", dist.Bernoulli(f), obs=data)

    return model, fairness_guide, (TOSSES,)


def vector_subsample():
    """SVI Part II, a vectorised plate that subsamples."""

    def model(data):
        f = fairness()
        with pyro.plate("observe_data", size=10, subsample_size=5) as index:
            pyro.sample("obs", dist.Bernoulli(f), obs=data.index_select(0, index))

    return model, fairness_guide, (TOSSES,)


def local_subsample():
    """SVI Part II, a global site and local ones, of which model and guide subsample the same."""

    def model(data):
        loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
        with pyro.plate("locals", len(data), subsample_size=3) as index:
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=data[index])

    def guide(data):
        loc = pyro.param("loc_q", torch.tensor(0.3))
        pyro.sample("loc", dist.Normal(loc, pyro.param("scale_q", torch.tensor(0.4), constraint=constraints.positive)))
        lambdas = pyro.param("lambdas", 0.3 * normals(5, len(data)))
        with pyro.plate("locals", len(data), subsample_size=3) as index:
            pyro.sample("z", dist.Normal(lambdas[index], 0.6))

    return model, guide, (normals(6, 7),)


def local_loop():
    """SVI Part II, local sites in sequential plates that subsample the same of model and guide."""

    def model(data):
        loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
        for i in pyro.plate("locals", len(data), subsample_size=2):
            z = pyro.sample(f"z_{i}", dist.Normal(loc, 1.0))
            pyro.sample(f"x_{i}", dist.Normal(z, 0.5), obs=data[i])

    def guide(data):
        loc = pyro.param("loc_q", torch.tensor(0.3))
        pyro.sample("loc", dist.Normal(loc, 0.4))
        lambdas = pyro.param("lambdas", 0.3 * normals(5, len(data)))
        for i in pyro.plate("locals", len(data), subsample_size=2):
            pyro.sample(f"z_{i}", dist.Normal(lambdas[i], 0.6))

    return model, guide, (normals(6, 4),)


def score_of_a_bernoulli():
    """SVI Part III, discrete sites of a guide, in two plates beside each other, each with its own part of the cost."""

    def model(x, y):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("left", 3):
            a = pyro.sample("a", dist.Bernoulli(0.4))
            pyro.sample("x", dist.Normal(loc + a, 0.8), obs=x)
        with pyro.plate("right", 2):
            b = pyro.sample("b", dist.Poisson(2.0))
            pyro.sample("y", dist.Normal(loc - 0.3 * b, 0.8), obs=y)

    def guide(x, y):
        loc = pyro.param("loc_q", torch.tensor(0.3))
        pyro.sample("loc", dist.Normal(loc, 0.5))
        with pyro.plate("left", 3):
            pyro.sample("a", dist.Bernoulli(logits=pyro.param("logits", normals(7, 3))))
        with pyro.plate("right", 2):
            rate = pyro.param("rate", torch.tensor([1.5, 2.5]), constraint=constraints.positive)
            pyro.sample("b", dist.Poisson(rate))

    return model, guide, (normals(8, 3), normals(9, 2))


class ScoreBeta(dist.Beta):
    has_rsample = False


def score_of_a_beta():
    """SVI Part III, a Beta distribution that is declared to have no reparameterised sampler."""

    def model(data):
        f = fairness()
        with pyro.plate("data_plate"):
            pyro.sample("obs", dist.Bernoulli(f), obs=data)

    def guide(data):
        alpha = pyro.param("alpha_q", torch.tensor(5.0), constraint=constraints.positive)
        beta = pyro.param("beta_q", torch.tensor(4.0), constraint=constraints.positive)
        pyro.sample("latent_fairness", ScoreBeta(alpha, beta))

    return model, guide, (TOSSES,)


def rescaled():
    """SVI Part IV: Tips and Tricks, model and guide scaled down by the number of data, several particles at once."""

    @poutine.scale(scale=1.0 / 8)
    def model(data):
        rate = pyro.sample("rate", dist.LogNormal(torch.tensor([0.1, 0.4]), 1.0).to_event(1))
        with pyro.plate("data", len(data)):
            pyro.sample("x", dist.Exponential(rate[..., 0] * rate[..., 1]), obs=data)

    @poutine.scale(scale=1.0 / 8)
    def guide(data):
        loc = pyro.param("log_rate", lambda: torch.tensor([0.2, -0.1]))
        scale = pyro.param("spread", lambda: torch.tensor([0.4, 0.3]), constraint=dist.constraints.softplus_positive)
        pyro.sample("rate", dist.LogNormal(loc, scale).to_event(1))

    return model, guide, (normals(10, 8).abs(),)


def analytic():
    """SVI Part IV: Tips and Tricks, divergences in closed form where model and guide factor in the same way."""

    def model(data):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        prec = pyro.sample("prec", dist.Gamma(2.0, 1.0))
        with pyro.plate("data", len(data)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(loc.sum(-1) + z, prec.rsqrt()), obs=data)

    def guide(data):
        at = pyro.param("at", torch.tensor([0.3, -0.2]))
        pyro.sample("loc", dist.Normal(at, 0.5).to_event(1))
        rate = pyro.param("rate", torch.tensor(2.5), constraint=constraints.positive)
        pyro.sample("prec", dist.Gamma(pyro.param("shape", torch.tensor(3.0), constraint=constraints.positive), rate))
        with pyro.plate("data", len(data)):
            pyro.sample("z", dist.Normal(pyro.param("zs", 0.5 * normals(11, len(data))), 0.7))

    return model, guide, (normals(12, 5),)


def dirichlet_on_the_boundary():
    """SVI Part IV: Tips and Tricks, initial values that a function draws and a guide's parameter clamped from below."""

    def model(counts):
        with pyro.plate("rows", 2):
            p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
            pyro.sample("n", dist.Multinomial(probs=p, validate_args=False), obs=counts)

    def guide(counts):
        with pyro.plate("rows", 2):
            c = pyro.param("c", lambda: 2 + torch.arange(6.0).reshape(2, 3), constraint=constraints.greater_than(0.5))
            pyro.sample("p", dist.Dirichlet(c.clamp(min=0.7)))

    return model, guide, (torch.tensor([[1.0, 4.0, 2.0], [0.0, 3.0, 5.0]]),)


# ---------------------------------------------------------------------------------------------------- MLE and MAP


def coin_model(data):
    f = fairness()
    with pyro.plate("data", data.size(0)):
        pyro.sample("obs", dist.Bernoulli(f), obs=data)


def maximum_a_posteriori():
    """MLE and MAP Estimation, a Delta guide whose value lies in the unit interval."""

    def guide(data):
        at = pyro.param("f_map", torch.tensor(0.4), constraint=constraints.unit_interval)
        pyro.sample("latent_fairness", dist.Delta(at))

    return coin_model, guide, (TOSSES,)


def maximum_likelihood():
    """MLE and MAP Estimation, a parameter of the model and a guide without anything in it."""

    def model(data):
        f = pyro.param("latent_fairness", torch.tensor(0.4), constraint=constraints.unit_interval)
        with pyro.plate("data", data.size(0)):
            pyro.sample("obs", dist.Bernoulli(f), obs=data)

    def guide(data):
        pass

    return model, guide, (TOSSES,)


def auto_delta():
    """MLE and MAP Estimation, AutoDelta of sites in and out of a plate, on the simplex and on the half-line."""

    def model(x):
        p = pyro.sample("p", dist.Dirichlet(torch.tensor([2.0, 3.0, 2.0])))
        with pyro.plate("parts", 3):
            loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
            scale = pyro.sample("scale", dist.Gamma(2.0, 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(p), dist.Normal(loc, scale)), obs=x)

    return model, AutoDelta(model, init_loc_fn=init_to_feasible), (normals(13, 6),)


# --------------------------------------------------------------------------------------------------- autoencoders


class Layers(nn.Module):
    """A hidden layer and heads."""

    def __init__(self, inputs, hidden, *outputs):
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden)
        self.heads = nn.ModuleList(nn.Linear(hidden, n) for n in outputs)
        self.softplus = nn.Softplus()

    def forward(self, *xs):
        h = self.softplus(self.hidden(torch.cat(xs, -1)))
        return [head(h) for head in self.heads]


def autoencoder():
    """Variational Autoencoders, networks made known by pyro.module."""

    class Autoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = Layers(6, 4, 2, 2), Layers(2, 4, 6)

        def model(self, x):
            pyro.module("decoder", self.decoder)
            with pyro.plate("data", x.shape[0]):
                zeros, ones = x.new_zeros(torch.Size((x.shape[0], 2))), x.new_ones(torch.Size((x.shape[0], 2)))
                z = pyro.sample("latent", dist.Normal(zeros, ones).to_event(1))
                image = torch.sigmoid(self.decoder(z)[0])
                pyro.sample("obs", dist.Bernoulli(image).to_event(1), obs=x.reshape(-1, 6))

        def guide(self, x):
            pyro.module("encoder", self.encoder)
            with pyro.plate("data", x.shape[0]):
                loc, log_scale = self.encoder(x.reshape(-1, 6))
                pyro.sample("latent", dist.Normal(loc, log_scale.exp()).to_event(1))

    vae = Autoencoder()
    return vae.model, vae.guide, (coins(14, 3, 2, 3),)


class SemiSupervised(nn.Module):
    """Digits `y` of three kinds and styles `z`."""

    def __init__(self, auxiliary=None):
        super().__init__()
        self.auxiliary = auxiliary
        self.encoder_y, self.encoder_z, self.decoder = Layers(5, 4, 3), Layers(8, 4, 2, 2), Layers(5, 4, 5)

    def model(self, xs, ys=None):
        pyro.module("ss_vae", self)
        n = xs.size(0)
        options = dict(dtype=xs.dtype, device=xs.device)
        with pyro.plate("data"):
            zs = pyro.sample("z", dist.Normal(torch.zeros(n, 2, **options), torch.ones(n, 2, **options)).to_event(1))
            ys = pyro.sample("y", dist.OneHotCategorical(torch.ones(n, 3, **options) / 3), obs=ys)
            if zs.dim() < ys.dim():
                zs = zs.expand(ys.shape[:-1] + (2,))
            loc = torch.sigmoid(self.decoder(zs, ys)[0])
            pyro.sample("x", dist.Bernoulli(loc, validate_args=False).to_event(1), obs=xs)

    def guide(self, xs, ys=None):
        with pyro.plate("data"):
            if ys is None:
                ys = pyro.sample("y", dist.OneHotCategorical(self.encoder_y(xs)[0].softmax(-1)))
            xs = xs.expand(ys.shape[:-1] + xs.shape[-1:])
            loc, log_scale = self.encoder_z(xs, ys)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def model_classify(self, xs, ys=None):
        pyro.module("ss_vae", self)
        with pyro.plate("data"):
            probs = self.encoder_y(xs)[0].softmax(-1)
            with poutine.scale(scale=self.auxiliary):
                pyro.sample("y_aux", dist.OneHotCategorical(probs), obs=ys)

    def guide_classify(self, xs, ys=None):
        """Nothing is hidden."""


def semi_supervised():
    """The Semi-Supervised VAE, a batch without labels, over which the guide's site is enumerated."""
    vae = SemiSupervised()
    return vae.model, config_enumerate(vae.guide, "parallel", expand=True), (coins(15, 4, 5),)


def semi_supervised_by_draws():
    """The Semi-Supervised VAE, a batch without labels, the labels drawn."""
    vae = SemiSupervised()
    return vae.model, vae.guide, (coins(15, 3, 5),)


def supervised():
    """The Semi-Supervised VAE, a batch with labels."""
    vae = SemiSupervised()
    labels = one_hot(torch.tensor([0, 2, 1, 1]), 3).float()
    return vae.model, config_enumerate(vae.guide, "parallel", expand=True), (coins(15, 4, 5), labels)


def auxiliary_loss():
    """The Semi-Supervised VAE, the auxiliary loss of the classifier."""
    vae = SemiSupervised(auxiliary=7.0)
    labels = one_hot(torch.tensor([0, 2, 1, 1]), 3).float()
    return vae.model_classify, vae.guide_classify, (coins(15, 4, 5), labels)


def conditional_autoencoder():
    """Conditional Variational Auto-encoder, a prior network, a first guess that is not learnt, and hidden pixels."""

    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = Layers(6, 4, 6)
            self.first.requires_grad_(False)
            self.prior, self.generate, self.recognise = Layers(12, 4, 2, 2), Layers(2, 4, 6), Layers(12, 4, 2, 2)

        def model(self, xs, ys):
            pyro.module("generation_net", self)
            with pyro.plate("data"):
                with torch.no_grad():
                    guess = torch.sigmoid(self.first(xs)[0])
                loc, log_scale = self.prior(xs, guess)
                zs = pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
                image = torch.sigmoid(self.generate(zs)[0])
                hidden = xs == -1
                seen = image[hidden].view(xs.shape[0], -1)
                pyro.sample(
                    "y", dist.Bernoulli(seen, validate_args=False).to_event(1), obs=ys[hidden].view(xs.shape[0], -1)
                )
                pyro.deterministic("guess", guess.detach())
                return image

        def guide(self, xs, ys):
            with pyro.plate("data"):
                loc, log_scale = self.recognise(xs, ys)
                pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    vae = Conditional()
    ys = coins(16, 3, 6)
    xs = ys.clone()
    for row, column in [(0, 1), (0, 4), (1, 2), (1, 3), (2, 0), (2, 5)]:
        xs[row, column] = -1
    return vae.model, vae.guide, (xs, ys)


# ---------------------------------------------------------------------------------------------------------- flows


def spline_flow():
    """Normalizing Flows - Introduction (Part 1), maximum likelihood of a spline coupling, whose cache is emptied."""
    base = dist.Normal(torch.zeros(2), torch.ones(2))
    spline = transforms.spline_coupling(2, split_dim=1, hidden_dims=[4], count_bins=4)

    def model(x):
        pyro.module("flow", spline)
        flow = dist.TransformedDistribution(base, [spline])
        with pyro.plate("data", len(x)):
            pyro.sample("x", flow, obs=x)
        flow.clear_cache()

    def guide(x):
        pass

    return model, guide, (0.8 * normals(17, 5, 2),)


def learnt_prior():
    """Normalizing Flows - Introduction (Part 1), a model that draws from an affine coupling, a guide with planar flows."""
    coupling = transforms.AffineCoupling(1, DenseNN(1, [4], [1, 1]))
    planar = [transforms.Planar(2), transforms.Planar(2)]

    def model(x):
        pyro.module("coupling", coupling)
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(2), torch.ones(2))
            z = pyro.sample(
                "z", dist.TransformedDistribution(base, [coupling, transforms.Permute(torch.tensor([1, 0]))])
            )
            pyro.sample("x", dist.Normal(z, 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("planar", nn.ModuleList(planar))
        with pyro.plate("data", len(x)):
            base = dist.Normal(pyro.param("at", 0.3 * normals(20, 2)), torch.ones(2))
            pyro.sample("z", dist.TransformedDistribution(base, planar))

    return model, guide, (normals(21, 3, 2),)


def several(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    rates = pyro.sample("rates", dist.Gamma(torch.tensor([2.0, 3.0]), 2.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, rates.prod(-1)), obs=x)


def iaf_guide():
    """Normalizing Flows - Introduction (Part 1), AutoIAFNormal."""
    return several, AutoIAFNormal(several, hidden_dim=[4], num_transforms=2), (normals(22, 4),)


def flow_guide():
    """Normalizing Flows - Introduction (Part 1), AutoNormalizingFlow of radial and planar flows and a batch norm."""

    def flows(size):
        return transforms.ComposeTransformModule([transforms.radial(size), transforms.planar(size)])

    return several, AutoNormalizingFlow(several, flows), (normals(22, 4),)


# ------------------------------------------------------------------------------------------------------ sequences


class Gated(nn.Module):
    """A transition whose mean is, by a gate, linear or not."""

    def __init__(self, size):
        super().__init__()
        self.gate, self.proposed = Layers(size, 3, size), Layers(size, 3, size)
        self.loc, self.scale = nn.Linear(size, size), nn.Linear(size, size)
        self.loc.weight.data = torch.eye(size)
        self.loc.bias.data = torch.zeros(size)

    def forward(self, z):
        gate = torch.sigmoid(self.gate(z)[0])
        proposed = self.proposed(z)[0]
        return (1 - gate) * self.loc(z) + gate * proposed, softplus(self.scale(torch.relu(proposed)))


class DeepMarkov(nn.Module):
    """Sequences of different lengths, a recurrent network over their reversals."""

    def __init__(self, flows=0, packed=False):
        super().__init__()
        self.emit, self.transition = Layers(2, 3, 4), Gated(2)
        self.combine = nn.Linear(2, 3)
        self.loc, self.scale = nn.Linear(3, 2), nn.Linear(3, 2)
        self.rnn = nn.RNN(4, 3, nonlinearity="relu", batch_first=True)
        self.packed = packed
        self.z_0, self.z_q_0 = nn.Parameter(torch.full((2,), 0.1)), nn.Parameter(torch.full((2,), -0.2))
        self.h_0 = nn.Parameter(torch.full((1, 1, 3), 0.1))
        self.flows = nn.ModuleList(transforms.affine_autoregressive(2, hidden_dims=[4]) for _ in range(flows))

    def model(self, sequences, reversed_ones, mask, lengths, annealing=1.0):
        pyro.module("dmm", self)
        z = self.z_0.expand(len(sequences), 2)
        with pyro.plate("z_minibatch", len(sequences)):
            for t in pyro.markov(range(1, sequences.size(1) + 1)):
                loc, scale = self.transition(z)
                with poutine.scale(None, annealing):
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, scale).mask(mask[:, t - 1 : t]).to_event(1))
                probs = torch.sigmoid(self.emit(z)[0])
                pyro.sample(
                    f"obs_x_{t}",
                    dist.Bernoulli(probs).mask(mask[:, t - 1 : t]).to_event(1),
                    obs=sequences[:, t - 1, :],
                )

    def hidden(self, reversed_ones, lengths):
        h_0 = self.h_0.expand(1, len(lengths), 3).contiguous()
        if not self.packed:
            return self.rnn(reversed_ones, h_0)[0]
        together = nn.utils.rnn.pack_padded_sequence(reversed_ones, lengths, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.rnn(together, h_0)[0], batch_first=True)[0]

    def guide(self, sequences, reversed_ones, mask, lengths, annealing=1.0):
        pyro.module("dmm", self)
        hs = self.hidden(reversed_ones, lengths)
        hs = torch.stack([hs[i, torch.arange(hs.shape[1] - 1, -1, -1)] for i in range(len(sequences))])
        z = self.z_q_0.expand(len(sequences), 2)
        with pyro.plate("z_minibatch", len(sequences)):
            for t in pyro.markov(range(1, sequences.size(1) + 1)):
                h = 0.5 * (torch.tanh(self.combine(z)) + hs[:, t - 1])
                d = dist.Normal(self.loc(h), softplus(self.scale(h)))
                if len(self.flows):
                    d = dist.TransformedDistribution(d, list(self.flows))
                    assert d.event_shape == (2,)
                with poutine.scale(None, annealing):
                    if len(self.flows):
                        z = pyro.sample(f"z_{t}", d.mask(mask[:, t - 1]))
                    else:
                        z = pyro.sample(f"z_{t}", d.mask(mask[:, t - 1 : t]).to_event(1))


def chorales(annealing):
    sequences = coins(23, 3, 3, 4)
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    return sequences * mask[..., None], sequences.flip(1), mask > 0, torch.tensor([3, 2, 1]), annealing


def deep_markov():
    """Deep Markov Model, a mask of lengths and annealed latent sites."""
    dmm = DeepMarkov()
    return dmm.model, dmm.guide, chorales(0.3)


def deep_markov_packed():
    """Deep Markov Model, the guide's network runs over packed sequences."""
    dmm = DeepMarkov(packed=True)
    return dmm.model, dmm.guide, chorales(1.0)


def deep_markov_flows():
    """Deep Markov Model, autoregressive flows in the guide."""
    dmm = DeepMarkov(flows=1)
    return dmm.model, dmm.guide, chorales(0.6)


TWINS = [
    Twin("Introduction to Pyro", gdp_by_hand, at=shifted(0.1), n=400),
    Twin("Introduction to Pyro", gdp_normal, at=shifted(0.1), n=400),
    Twin("Introduction to Pyro", gdp_multivariate, at=shifted(0.1), n=400),
    Twin("Bayesian Regression - Introduction (Part 1)", regression_module, at=shifted(0.1), n=400),
    Twin("Bayesian Regression - Introduction (Part 1)", regression_maximum_likelihood, n=200),
    Twin("Modules in Pyro", network_module, at=shifted(0.02), n=400),
    Twin("SVI Part II", loop_plate),
    Twin("SVI Part II", loop_subsample),
    Twin("SVI Part II", vector_plate),
    Twin("SVI Part II", vector_subsample),
    Twin("SVI Part II", local_subsample),
    Twin("SVI Part II", local_loop, n=500),
    Twin("SVI Part III", score_of_a_bernoulli, n=300, loss=TraceGraph_ELBO()),
    Twin("SVI Part III", score_of_a_beta, n=300, loss=TraceGraph_ELBO()),
    Twin("SVI Part IV", rescaled, loss=Trace_ELBO(num_particles=3, vectorize_particles=True), n=500),
    Twin("SVI Part IV", analytic, loss=TraceMeanField_ELBO(), objective=analytic_elbo, n=500),
    Twin("SVI Part IV", dirichlet_on_the_boundary),
    Twin("MLE and MAP Estimation", maximum_a_posteriori, n=200),
    Twin("MLE and MAP Estimation", maximum_likelihood, n=200),
    Twin("MLE and MAP Estimation", auto_delta, n=200),
    Twin("Variational Autoencoders", autoencoder, n=400),
    Twin("The Semi-Supervised VAE", semi_supervised, loss=TraceEnum_ELBO(max_plate_nesting=1), n=300),
    Twin("The Semi-Supervised VAE", semi_supervised_by_draws, n=600),
    Twin("The Semi-Supervised VAE", supervised, loss=TraceEnum_ELBO(max_plate_nesting=1), n=300),
    Twin("The Semi-Supervised VAE", auxiliary_loss, n=200),
    Twin("Conditional Variational Auto-encoder", conditional_autoencoder, n=300),
    Twin("Normalizing Flows - Introduction (Part 1)", spline_flow, n=200),
    Twin("Normalizing Flows - Introduction (Part 1)", learnt_prior, n=400),
    Twin("Normalizing Flows - Introduction (Part 1)", iaf_guide, at=shifted(0.05), n=300),
    Twin("Normalizing Flows - Introduction (Part 1)", flow_guide, at=shifted(0.05), n=300),
    Twin("Deep Markov Model", deep_markov, n=300),
    Twin("Deep Markov Model", deep_markov_packed, n=300),
    Twin("Deep Markov Model", deep_markov_flows, n=300),
]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.make.__name__)
def test_a_twin_has_the_means_of_the_library(twin):
    assert on_pyro(twin) == []
