"""Twins of Pyro's tutorials: discrete and amortised models."""

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, TraceGraph_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDelta, init_to_value
from torch import nn
from torch.distributions import constraints
from torch.nn.functional import affine_grid, grid_sample, one_hot, softplus

from tests.conformance.test_pyro_tutorials import Layers, coins, normals
from tests.conformance.twins import Twin, on_pyro


def conditional_flow():
    """Normalizing Flows - Introduction (Part 1), p(x1) p(x2 | x1) by a spline and a conditional spline."""
    one = transforms.Spline(1, count_bins=4)
    two = transforms.conditional_spline(1, context_dim=1, hidden_dims=[4], count_bins=4)

    def model(x1, x2):
        modules = pyro.module("flows", nn.ModuleList([one, two]))
        base = dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1)
        first = dist.TransformedDistribution(base, [modules[0]])
        second = dist.ConditionalTransformedDistribution(base, [modules[1]])
        with pyro.plate("data", len(x1)):
            context = pyro.sample("x1", first, obs=x1)
            pyro.sample("x2", second.condition(context.detach()), obs=x2)
        first.clear_cache()
        second.clear_cache()

    def guide(x1, x2):
        pass

    return model, guide, (0.8 * normals(18, 5, 1), 0.8 * normals(19, 5, 1))


# -------------------------------------------------------------------------------------------- attend, infer, repeat


class Scenes(nn.Module):
    """At most two objects of 2 x 2 pixels in images of 4 x 4, the second only where the first is."""

    def __init__(self):
        super().__init__()
        self.decode, self.encode = Layers(2, 3, 4), Layers(16, 3, 2, 2)
        self.rnn, self.predict = nn.LSTMCell(16 + 1 + 3 + 2, 4), Layers(4, 3, 1, 3, 3)
        self.h, self.c = nn.Parameter(torch.full((1, 4), 0.1)), nn.Parameter(torch.full((1, 4), -0.1))

    def window(self, where, pixels):
        scale, x, y = where.unbind(-1)
        zero = torch.zeros_like(x)
        theta = torch.stack([scale, zero, x, zero, scale, y], -1).reshape(-1, 2, 3)
        grid = affine_grid(theta, torch.Size((len(where), 1, 4, 4)), align_corners=False)
        return grid_sample(pixels.reshape(-1, 1, 2, 2), grid, align_corners=False).reshape(-1, 16)

    def model(self, images):
        pyro.module("decode", self.decode)
        n = len(images)
        with pyro.plate("data", n, device=images.device):
            x, present = torch.zeros(n, 16), torch.ones(n, 1)
            for t in range(2):
                present = pyro.sample(f"z_pres_{t}", dist.Bernoulli(0.6 * present).to_event(1))
                where = pyro.sample(
                    f"z_where_{t}",
                    dist.Normal(torch.tensor([1.0, 0.0, 0.0]).expand(n, 3), 0.3).mask(present.bool()).to_event(1),
                )
                what = pyro.sample(f"z_what_{t}", dist.Normal(torch.zeros(n, 2), 1.0).mask(present.bool()).to_event(1))
                x = x + self.window(where, torch.sigmoid(self.decode(what)[0])) * present
            pyro.sample("obs", dist.Normal(x, 0.7).to_event(1), obs=images)

    def guide(self, images):
        pyro.module("air", self, update_module_params=True)
        n = len(images)
        with pyro.plate("data", n, device=images.device):
            h, c = self.h.expand(n, -1), self.c.expand(n, -1)
            present, where, what = torch.ones(n, 1), torch.zeros(n, 3), torch.zeros(n, 2)
            for t in range(2):
                h, c = self.rnn(torch.cat([images, present, where, what], -1), (h, c))
                logit, loc, scale = self.predict(h)
                present = pyro.sample(f"z_pres_{t}", dist.Bernoulli(torch.sigmoid(logit) * present).to_event(1))
                where = pyro.sample(
                    f"z_where_{t}",
                    dist.Normal(loc + torch.tensor([1.0, 0.0, 0.0]), 0.3 * softplus(scale))
                    .mask(present.bool())
                    .to_event(1),
                )
                what_loc, what_scale = self.encode(images)
                what = pyro.sample(
                    f"z_what_{t}",
                    dist.Normal(what_loc + 0.1 * t, softplus(what_scale)).mask(present.bool()).to_event(1),
                )


def attend_infer_repeat():
    """Attend Infer Repeat, presences that end a scene, masked sites and a spatial transformer."""
    air = Scenes()
    return air.model, air.guide, (normals(24, 2, 16).abs(),)


# --------------------------------------------------------------------------------------------------------- mixtures


@config_enumerate
def mixture(x):
    weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(2)))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        assignment = pyro.sample("assignment", dist.Categorical(weights))
        pyro.sample("obs", dist.Normal(locs[assignment], scale), obs=x)


SPREAD = torch.tensor([0.0, 1.0, 10.0, 11.0, 12.0]) / 3


def mixture_mode():
    """Gaussian Mixture Model, AutoDelta of the exposed sites from values that are given, assignments summed out."""
    start = {"weights": torch.tensor([0.4, 0.6]), "scale": torch.tensor(1.3), "locs": torch.tensor([0.2, 3.1])}
    guide = AutoDelta(
        poutine.block(mixture, expose=["weights", "locs", "scale"]),
        init_loc_fn=lambda site: start[site["name"]],
    )
    return mixture, guide, (SPREAD,)


def mixture_full():
    """Gaussian Mixture Model, a global autoguide called within a guide that enumerates the assignments."""
    start = {"weights": torch.tensor([0.4, 0.6]), "scale": torch.tensor(1.3), "locs": torch.tensor([0.2, 3.1])}
    everywhere = AutoDelta(
        poutine.block(mixture, expose=["weights", "locs", "scale"]), init_loc_fn=init_to_value(values=start)
    )

    @config_enumerate
    def guide(x):
        everywhere(x)
        with pyro.plate("data", len(x)):
            p = pyro.param("p", torch.tensor([[0.7, 0.3]] * 5), constraint=constraints.simplex)
            pyro.sample("assignment", dist.Categorical(p))

    return mixture, guide, (SPREAD,)


def stick_breaking(beta):
    left = (1 - beta).cumprod(-1)
    return nn.functional.pad(beta, (0, 1), value=1) * nn.functional.pad(left, (1, 0), value=1)


def dirichlet_process():
    """Dirichlet Process Mixture Models in Pyro, sticks broken by Beta sites, assignments drawn by the guide."""

    def model(x):
        with pyro.plate("beta_plate", 2):
            beta = pyro.sample("beta", dist.Beta(1, 1.3))
        with pyro.plate("mu_plate", 3):
            mu = pyro.sample("mu", dist.MultivariateNormal(torch.zeros(2), 5 * torch.eye(2)))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(stick_breaking(beta)))
            pyro.sample("obs", dist.MultivariateNormal(mu[z], torch.eye(2)), obs=x)

    def guide(x):
        kappa = pyro.param("kappa", lambda: torch.tensor([1.5, 0.8]), constraint=constraints.positive)
        tau = pyro.param("tau", lambda: normals(25, 3, 2))
        phi = pyro.param("phi", lambda: torch.tensor([[0.5, 0.3, 0.2]] * 4), constraint=constraints.simplex)
        with pyro.plate("beta_plate", 2):
            pyro.sample("beta", dist.Beta(torch.ones(2), kappa))
        with pyro.plate("mu_plate", 3):
            pyro.sample("mu", dist.MultivariateNormal(tau, torch.eye(2)))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(phi))

    return model, guide, (normals(26, 4, 2),)


def sunspots():
    """Dirichlet Process Mixture Models in Pyro, rates of counts, the concentration a site of its own."""

    def model(counts):
        alpha = pyro.sample("alpha", dist.Gamma(2.0, 1.0))
        with pyro.plate("beta_plate", 2):
            beta = pyro.sample("beta", dist.Beta(1, alpha))
        with pyro.plate("lambda_plate", 3):
            rate = pyro.sample("lambda", dist.Gamma(3.0, 1.0))
        with pyro.plate("data", len(counts)):
            z = pyro.sample("z", dist.Categorical(stick_breaking(beta)))
            pyro.sample("obs", dist.Poisson(rate[z]), obs=counts)

    def guide(counts):
        alpha = pyro.param("alpha_q", lambda: torch.tensor(1.6), constraint=constraints.positive)
        gamma = pyro.param("gamma", lambda: torch.tensor([1.5, 2.0]), constraint=constraints.positive)
        tau = pyro.param("tau", lambda: torch.tensor([1.0, 3.0, 4.0]), constraint=constraints.positive)
        phi = pyro.param("phi", lambda: torch.tensor([[0.5, 0.3, 0.2]] * 4), constraint=constraints.simplex)
        pyro.sample("alpha", dist.Gamma(3.0 * alpha, 3.0))
        with pyro.plate("beta_plate", 2):
            pyro.sample("beta", dist.Beta(torch.ones(2) * 1.5, gamma))
        with pyro.plate("lambda_plate", 3):
            pyro.sample("lambda", dist.LogNormal(tau.log(), 0.3))
        with pyro.plate("data", len(counts)):
            pyro.sample("z", dist.Categorical(phi))

    return model, guide, (torch.tensor([1.0, 5.0, 3.0, 2.0]),)


# ----------------------------------------------------------------------------------------------------------- topics


def latent_dirichlet(subsample):
    """Example: Amortized Latent Dirichlet Allocation, word topics enumerated in nested plates, documents in minibatches."""
    topics, words, length, documents = 2, 4, 3, 4
    predictor = nn.Sequential(nn.Linear(words, 3), nn.Sigmoid(), nn.Linear(3, topics), nn.Softmax(dim=-1))
    data = torch.tensor(np.random.RandomState(27).randint(words, size=(length, documents)))

    def model(data):
        with pyro.plate("topics", topics):
            weights = pyro.sample("topic_weights", dist.Gamma(1.0 / topics, 1.0))
            of_topics = pyro.sample("topic_words", dist.Dirichlet(torch.ones(words) / words))
        with pyro.plate("documents", documents) as index:
            rows = data[:, index]
            doc_topics = pyro.sample("doc_topics", dist.Dirichlet(weights))
            with pyro.plate("words", length):
                word_topics = pyro.sample("word_topics", dist.Categorical(doc_topics), infer={"enumerate": "parallel"})
                pyro.sample("doc_words", dist.Categorical(of_topics[word_topics]), obs=rows)

    def guide(data):
        weights = pyro.param("weights_q", lambda: torch.tensor([1.5, 0.8]), constraint=constraints.positive)
        of_topics = pyro.param(
            "words_q", lambda: 1 + torch.arange(8.0).reshape(2, 4) / 4, constraint=constraints.greater_than(0.5)
        )
        with pyro.plate("topics", topics):
            pyro.sample("topic_weights", dist.Gamma(2 * weights, 2.0))
            pyro.sample("topic_words", dist.Dirichlet(of_topics))
        pyro.module("predictor", predictor)
        with pyro.plate("documents", documents, subsample) as index:
            rows = data[:, index]
            counts = torch.zeros(words, rows.size(1)).scatter_add(0, rows, torch.ones(rows.shape))
            pyro.sample("doc_topics", dist.Delta(predictor(counts.t()), event_dim=1))

    return model, guide, (data,)


def topics_of_all():
    return latent_dirichlet(None)


def topics_of_some():
    return latent_dirichlet(2)


def product_of_experts(dropout):
    """Probabilistic Topic Modeling (ProdLDA), batch norms without weights and dropout in both programs."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(dropout)
            self.layers = Layers(5, 4, 2, 2)
            self.norm_loc, self.norm_scale = nn.BatchNorm1d(2, affine=False), nn.BatchNorm1d(2, affine=False)

        def forward(self, x):
            loc, log_scale = self.layers(self.drop(x))
            return self.norm_loc(loc), (0.5 * self.norm_scale(log_scale)).exp()

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.beta, self.norm, self.drop = (
                nn.Linear(2, 5, bias=False),
                nn.BatchNorm1d(5, affine=False),
                nn.Dropout(dropout),
            )

        def forward(self, theta):
            return self.norm(self.beta(self.drop(theta))).softmax(1)

    encoder, decoder = Encoder(), Decoder()

    def model(docs):
        pyro.module("decoder", decoder)
        with pyro.plate("documents", docs.shape[0]):
            loc = docs.new_zeros((docs.shape[0], 2))
            theta = pyro.sample("logtheta", dist.Normal(loc, docs.new_ones(loc.shape)).to_event(1)).softmax(-1)
            total = int(docs.sum(-1).max())
            pyro.sample("obs", dist.Multinomial(total, decoder(theta), validate_args=False), obs=docs)

    def guide(docs):
        pyro.module("encoder", encoder)
        with pyro.plate("documents", docs.shape[0]):
            loc, scale = encoder(docs)
            pyro.sample("logtheta", dist.Normal(loc, scale).to_event(1))

    return model, guide, (torch.tensor(np.random.RandomState(28).poisson(2.0, (5, 5)), dtype=torch.float),)


def topics_with_norms():
    return product_of_experts(0.0)


def topics_with_dropout():
    return product_of_experts(0.3)


# ------------------------------------------------------------------------------------------------------ cells, causes


class Normed(nn.Module):
    def __init__(self, inputs, hidden, *outputs):
        super().__init__()
        self.first, self.norm = nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden)
        self.heads = nn.ModuleList(nn.Linear(hidden, n) for n in outputs)

    def forward(self, *xs):
        h = torch.relu(self.norm(self.first(torch.cat(xs, -1))))
        return [head(h) for head in self.heads]


class Cells(nn.Module):
    def __init__(self, normed, alpha):
        super().__init__()
        of_labels = Normed if normed else Layers
        self.alpha = alpha
        self.z2_decoder, self.x_decoder = of_labels(2 + 3, 4, 2, 2), of_labels(2, 4, 4, 4)
        self.z2l_encoder, self.classifier, self.z1_encoder = (
            Normed(4, 4, 2, 2, 1, 1),
            Layers(2, 4, 3),
            of_labels(2 + 3, 4, 2, 2),
        )

    def model(self, x, y=None):
        pyro.module("scanvi", self)
        theta = pyro.param("inverse_dispersion", 2.0 * x.new_ones(4), constraint=constraints.positive)
        with pyro.plate("batch", len(x)), poutine.scale(scale=0.2):
            z1 = pyro.sample("z1", dist.Normal(0, x.new_ones(2)).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(3)), obs=y)
            z1 = z1.expand(y.shape[:-1] + z1.shape[-1:])
            loc, scale = self.z2_decoder(z1, y)
            z2 = pyro.sample("z2", dist.Normal(loc, softplus(scale)).to_event(1))
            size = pyro.sample("l", dist.LogNormal(1.0, 0.5 * x.new_ones(1)).to_event(1))
            gate, mu = self.x_decoder(z2)
            logits = (size * mu.softmax(-1) + 1e-3).log() - (theta + 1e-3).log()
            counts = dist.ZeroInflatedNegativeBinomial(
                gate_logits=gate, total_count=theta, logits=logits, validate_args=False
            )
            pyro.sample("x", counts.to_event(1), obs=x)

    def guide(self, x, y=None):
        pyro.module("scanvi", self)
        with pyro.plate("batch", len(x)), poutine.scale(scale=0.2):
            loc, scale, l_loc, l_scale = self.z2l_encoder(torch.log(1 + x))
            pyro.sample("l", dist.LogNormal(l_loc, softplus(l_scale)).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(loc, softplus(scale)).to_event(1))
            label = dist.OneHotCategorical(logits=self.classifier(z2)[0])
            if y is None:
                y = pyro.sample("y", label)
            elif self.alpha:
                pyro.factor("classification_loss", -self.alpha * label.log_prob(y), has_rsample=True)
            z2 = z2.expand(y.shape[:-1] + z2.shape[-1:])
            z1_loc, z1_scale = self.z1_encoder(z2, y)
            pyro.sample("z1", dist.Normal(z1_loc, softplus(z1_scale)).to_event(1))


GENES = torch.tensor(np.random.RandomState(29).poisson(2.0, (4, 4)), dtype=torch.float)
LABELS = one_hot(torch.tensor([0, 2, 1, 1]), 3).float()


def cells_with_labels():
    """A scANVI tutorial, batch norms, a library size, zero-inflated counts and scaled programs; a batch with labels."""
    cells = Cells(True, 0.0)
    return cells.model, config_enumerate(cells.guide, "parallel", expand=True), (GENES, LABELS)


def cells_with_classifier():
    """A scANVI tutorial, the classifier's loss is a factor of the guide."""
    cells = Cells(True, 1.5)
    return cells.model, config_enumerate(cells.guide, "parallel", expand=True), (GENES, LABELS)


def cells_without_labels():
    """A scANVI tutorial, labels enumerated."""
    cells = Cells(False, 0.0)
    return cells.model, config_enumerate(cells.guide, "parallel", expand=True), (GENES,)


def cells_by_draws():
    """A scANVI tutorial, labels drawn, batch norms couple them."""
    cells = Cells(True, 0.0)
    return cells.model, cells.guide, (GENES,)


class Treated(nn.Module):
    """A treatment `t`, an outcome `y` of two arms, covariates `x`."""

    def __init__(self):
        super().__init__()
        self.to_x, self.to_t = Layers(2, 3, 3, 3), Layers(2, 3, 1)
        self.to_y = nn.ModuleList(Layers(2, 3, 1, 1) for _ in range(2))
        self.q_t, self.q_y = Layers(3, 3, 1), nn.ModuleList(Layers(3, 3, 1, 1) for _ in range(2))
        self.q_z = nn.ModuleList(Layers(4, 3, 2, 2) for _ in range(2))

    def arms(self, t, networks, *xs):
        zero, one = (networks[arm](*xs) for arm in range(2))
        t = t.bool().unsqueeze(-1)
        return [torch.where(t, b, a) for a, b in zip(zero, one, strict=True)]

    def outcome(self, t, networks, x):
        loc, scale = self.arms(t, networks, x)
        return dist.Normal(loc.squeeze(-1), softplus(scale.squeeze(-1)))

    def model(self, x, t, y, size):
        pyro.module("treated", self)
        with pyro.plate("data", size, subsample=x):
            z = pyro.sample("z", dist.Normal(0, torch.ones(2)).to_event(1))
            loc, scale = self.to_x(z)
            pyro.sample("x", dist.Normal(loc, softplus(scale)).to_event(1), obs=x)
            t = pyro.sample("t", dist.Bernoulli(logits=self.to_t(z)[0].squeeze(-1)), obs=t)
            pyro.sample("y", self.outcome(t, self.to_y, z), obs=y)

    def guide(self, x, t, y, size):
        pyro.module("treated", self)
        with pyro.plate("data", size, subsample=x):
            loc, scale = self.arms(t, self.q_z, y.unsqueeze(-1), x)
            pyro.sample("z", dist.Normal(loc, softplus(scale)).to_event(1))

    def auxiliary(self, x, t, y, size):
        with pyro.plate("again", size, subsample=x):
            t = pyro.sample("t_of_x", dist.Bernoulli(logits=self.q_t(x)[0].squeeze(-1)), obs=t)
            pyro.sample("y_of_x", self.outcome(t, self.q_y, x), obs=y)


def causal_effect():
    """Example: Causal Effect VAE, two arms by torch.where, a plate of given rows; log q(t | x) and log q(y | t, x) are observed in the model."""
    own = Treated()

    def model(*args):
        own.model(*args)
        own.auxiliary(*args)

    return model, own.guide, (normals(30, 4, 3), coins(31, 4), normals(32, 4), 9)


TWINS = [
    Twin("Normalizing Flows - Introduction (Part 1)", conditional_flow, n=200),
    Twin("Attend Infer Repeat", attend_infer_repeat, loss=TraceGraph_ELBO(), n=200),
    Twin("Gaussian Mixture Model", mixture_mode, loss=TraceEnum_ELBO(max_plate_nesting=1), n=200),
    Twin("Gaussian Mixture Model", mixture_full, loss=TraceEnum_ELBO(max_plate_nesting=1), n=200),
    Twin("Dirichlet Process Mixture Models in Pyro", dirichlet_process, n=400),
    Twin("Dirichlet Process Mixture Models in Pyro", sunspots, n=400),
    Twin(
        "Example: Amortized Latent Dirichlet Allocation", topics_of_all, loss=TraceEnum_ELBO(max_plate_nesting=2), n=300
    ),
    Twin(
        "Example: Amortized Latent Dirichlet Allocation",
        topics_of_some,
        loss=TraceEnum_ELBO(max_plate_nesting=2),
        n=300,
    ),
    Twin("Probabilistic Topic Modeling", topics_with_norms, n=300),
    Twin("Probabilistic Topic Modeling", topics_with_dropout, n=300),
    Twin("scANVI", cells_with_labels, loss=TraceEnum_ELBO(max_plate_nesting=1), n=200),
    Twin("scANVI", cells_with_classifier, loss=TraceEnum_ELBO(max_plate_nesting=1), n=200),
    Twin("scANVI", cells_without_labels, loss=TraceEnum_ELBO(max_plate_nesting=1), n=200),
    Twin("scANVI", cells_by_draws, n=400),
    Twin("Example: Causal Effect VAE", causal_effect, n=200),
]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.make.__name__)
def test_a_twin_has_the_means_of_the_library(twin):
    assert on_pyro(twin) == []
