"""Twins of NumPyro's tutorials and examples that use stochastic variational inference."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import nnx
from jax.example_libraries import stax
from numpyro.contrib.control_flow import scan
from numpyro.contrib.funsor import config_enumerate, enum, log_density
from numpyro.contrib.hsgp.approximation import hsgp_matern, hsgp_squared_exponential
from numpyro.contrib.module import flax_module, nnx_module, random_flax_module, random_nnx_module
from numpyro.distributions import constraints
from numpyro.distributions.transforms import AffineTransform, OrderedTransform
from numpyro.handlers import block, condition, lift, mask, reparam, scale, scope, seed, substitute, trace
from numpyro.infer import (
    ELBO,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    init_to_feasible,
    init_to_value,
)
from numpyro.infer.autoguide import (
    AutoBatchedLowRankMultivariateNormal,
    AutoBatchedMultivariateNormal,
    AutoBNAFNormal,
    AutoDAIS,
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuideList,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoSemiDAIS,
    AutoSurrogateLikelihoodDAIS,
)
from numpyro.infer.reparam import (
    CircularReparam,
    ExplicitReparam,
    LocScaleReparam,
    ProjectedNormalReparam,
    TransformReparam,
)
from numpyro.ops.indexing import Vindex

import ppvi
from tests.conformance.twins import Twin, on_numpyro


def noise(seed, *shape):
    """Standard normal numbers of a seed."""
    return jnp.asarray(np.random.RandomState(seed).randn(*shape), jnp.float32)


def moved(name, start):
    """Away from where parameters are equal to one another, and triangular matrices diagonal."""
    off = 0.05 * np.tril(np.ones_like(start), -1) if "scale_tril" in name else 0.0
    return start * (1 + 0.1 * np.cos(np.arange(start.size)).reshape(start.shape)) + off


def divorces():
    """Bayesian Regression Using NumPyro, a robust linear model's mode by AutoLaplaceApproximation; data may be absent."""

    def model(weddings=None, years=None, rate=None):
        a = numpyro.sample("a", dist.Normal(0.0, 0.2))
        w = y = 0.0
        if weddings is not None:
            w = numpyro.sample("bW", dist.Normal(0.0, 0.5)) * weddings
        if years is not None:
            y = numpyro.sample("bY", dist.Normal(0.0, 0.5)) * years
        sigma = numpyro.sample("sigma", dist.Exponential(1.0))
        numpyro.sample("obs", dist.Normal(a + w + y, sigma), obs=rate)

    x = noise(0, 12)
    return model, AutoLaplaceApproximation(model), (None, x, 0.3 * x + 0.5 * noise(1, 12))


def lungs():
    """Bayesian Hierarchical Linear Regression, patients' lines gathered by codes, AutoMultivariateNormal."""

    def model(patient, week, capacity=None):
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
        tau = numpyro.sample("tau", dist.HalfNormal(2.0).expand([2]).to_event(1))
        with numpyro.plate("patients", 3):
            level = numpyro.sample("level", dist.Normal(mu[0], tau[0]))
            slope = numpyro.sample("slope", dist.Normal(mu[1], tau[1]))
        sigma = numpyro.sample("sigma", dist.HalfNormal(3.0))
        with numpyro.plate("visits", len(patient)):
            numpyro.sample("obs", dist.Normal(level[patient] + slope[patient] * week, sigma), obs=capacity)

    patient, week = jnp.arange(12) % 3, jnp.repeat(jnp.arange(4.0), 3)
    return model, AutoMultivariateNormal(model), (patient, week, 2.0 - 0.3 * week + 0.4 * noise(2, 12))


def digits():
    """Example: Variational Autoencoder, stax networks registered by numpyro.module, sizes among the arguments."""

    def encoder(hidden, latent):
        return stax.serial(
            stax.Dense(hidden),
            stax.Softplus,
            stax.FanOut(2),
            stax.parallel(stax.Dense(latent), stax.serial(stax.Dense(latent), stax.Exp)),
        )

    def decoder(hidden, out):
        return stax.serial(stax.Dense(hidden), stax.Softplus, stax.Dense(out), stax.Sigmoid)

    def model(batch, hidden=3, latent=2):
        batch = jnp.reshape(batch, (batch.shape[0], -1))
        decode = numpyro.module("decoder", decoder(hidden, batch.shape[1]), (batch.shape[0], latent))
        with numpyro.plate("batch", batch.shape[0]):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([latent]).to_event(1))
            numpyro.sample("obs", dist.Bernoulli(decode(z)).to_event(1), obs=batch)

    def guide(batch, hidden=3, latent=2):
        batch = jnp.reshape(batch, (batch.shape[0], -1))
        encode = numpyro.module("encoder", encoder(hidden, latent), (batch.shape[0], batch.shape[1]))
        loc, scale = encode(batch)
        with numpyro.plate("batch", batch.shape[0]):
            numpyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return model, guide, ((noise(3, 4, 2, 3) > 0).astype(jnp.float32),)


class Mlp(nn.Module):
    """Two layers."""

    width: int
    out: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.out)(nn.softplus(nn.Dense(self.width)(x)))


class TopicEncoder(nn.Module):
    """Counts to the parameters of logistic normal topics: dropout, and batch norms of their own."""

    topics: int
    rate: float

    @nn.compact
    def __call__(self, counts, is_training):
        h = nn.softplus(nn.Dense(3)(counts))
        h = nn.Dropout(self.rate, deterministic=not is_training)(h)
        norm = {"use_bias": False, "use_scale": False, "momentum": 0.9, "use_running_average": not is_training}
        loc, log_var = (nn.BatchNorm(**norm)(nn.Dense(self.topics)(h)) for _ in range(2))
        return loc, jnp.exp(0.5 * log_var)


class TopicDecoder(nn.Module):
    """Topics to words, likewise."""

    words: int
    rate: float

    @nn.compact
    def __call__(self, topics, is_training):
        h = nn.Dropout(self.rate, deterministic=not is_training)(topics)
        h = nn.Dense(self.words, use_bias=False)(h)
        return nn.BatchNorm(use_bias=False, use_scale=False, momentum=0.9, use_running_average=not is_training)(h)


def topics():
    """Example: ProdLDA with Flax, BatchNorm's mutable state, dropout's key, and a subsampled plate of documents."""
    size, k = 4, 2

    def model(docs, is_training=True):
        decode = flax_module(
            "decoder",
            TopicDecoder(docs.shape[1], 0.3),
            input_shape=(1, k),
            apply_rng=["dropout"],
            mutable=["batch_stats"],
            is_training=is_training,
        )
        with numpyro.plate("documents", docs.shape[0], subsample_size=size, dim=-1):
            batch = numpyro.subsample(docs, event_dim=1)
            theta = numpyro.sample("theta", dist.Normal(0, 1).expand([k]).to_event(1))
            logits = decode(nn.softmax(theta), is_training, rngs={"dropout": numpyro.prng_key()})
            numpyro.sample("obs", dist.Multinomial(batch.sum(-1), logits=logits), obs=batch)

    def guide(docs, is_training=True):
        encode = flax_module(
            "encoder",
            TopicEncoder(k, 0.3),
            input_shape=(1, docs.shape[1]),
            apply_rng=["dropout"],
            mutable=["batch_stats"],
            is_training=is_training,
        )
        with numpyro.plate("documents", docs.shape[0], subsample_size=size, dim=-1):
            batch = numpyro.subsample(docs, event_dim=1)
            loc, scale = encode(batch, is_training, rngs={"dropout": numpyro.prng_key()})
            numpyro.sample("theta", dist.Normal(loc, scale).to_event(1))

    return model, guide, (jnp.asarray(np.random.RandomState(4).poisson(1.5, (8, 5))),)


def images_from_quarters():
    """Example: Conditional Variational Autoencoder in Flax, a prior network fed with a baseline's guess, masked pixels."""

    def model(x, y=None):
        batch, out = x.shape[0], 4
        base = flax_module("baseline", Mlp(3, out), input_shape=x.shape)
        prior = flax_module("prior", Mlp(3, 4), input_shape=(batch, x.shape[1] + out))
        generate = flax_module("generation", Mlp(3, out), input_shape=(batch, 2))
        with numpyro.plate("data", batch):
            guess = base(x)
            loc, log_scale = jnp.split(prior(jnp.concatenate([x, nn.sigmoid(guess)], -1)), 2, -1)
            z = numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))
            logits = generate(z)
            if y is None:
                numpyro.deterministic("y", nn.sigmoid(logits))
            else:
                there = y >= 0
                numpyro.sample("y", dist.Bernoulli(logits=logits).mask(there).to_event(1), obs=jnp.where(there, y, 0.0))

    def guide(x, y=None):
        recognise = flax_module("recognition", Mlp(3, 4), input_shape=(x.shape[0], x.shape[1] + 4))
        with numpyro.plate("data", x.shape[0]):
            loc, log_scale = jnp.split(recognise(jnp.concatenate([x, y], -1)), 2, -1)
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    y = (noise(5, 5, 4) > 0).astype(jnp.float32).at[:, 0].set(-1.0)
    return model, guide, ((noise(6, 5, 2) > 0).astype(jnp.float32), y)


def logistic(subsample=None):
    """A logistic regression, its data closed over or subsampled."""
    x = noise(7, 12, 2)
    y = (x @ jnp.array([1.0, -0.5]) + 0.5 * noise(8, 12) > 0).astype(jnp.float32)

    def model(x, y):
        theta = numpyro.sample("theta", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        with numpyro.plate("N", len(y), subsample_size=subsample):
            batch = numpyro.subsample(x, event_dim=1)
            labels = numpyro.subsample(y, event_dim=0)
            numpyro.sample("obs", dist.Bernoulli(logits=batch @ theta), obs=labels)

    return model, x, y


def annealed_logistic():
    """Example: AutoDAIS, a logistic regression by differentiable annealed importance sampling."""
    model, x, y = logistic()
    return model, AutoDAIS(model, K=3, eta_init=0.02, eta_max=0.5), (x, y)


def annealed_cholesky():
    """Example: AutoDAIS, a correlated base distribution."""
    model, x, y = logistic()
    return model, AutoDAIS(model, K=2, eta_init=0.02, eta_max=0.5, base_dist="cholesky"), (x, y)


def surrogate():
    """AutoSurrogateLikelihoodDAIS, minibatches and a weighted subset that stands for the data."""
    model, x, y = logistic(subsample=4)

    def surrogate_model():
        theta = numpyro.sample("theta", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        omegas = numpyro.param("omegas", 2.0 * jnp.ones(3), constraint=constraints.positive)
        with numpyro.plate("N", 3), scale(scale=omegas):
            numpyro.sample("obs", dist.Bernoulli(logits=x[:3] @ theta), obs=y[:3])

    return model, AutoSurrogateLikelihoodDAIS(model, surrogate_model, K=2), (x, y)


def local_annealing(everywhere):
    """AutoSemiDAIS, a normal guide of the global site and annealing of the local ones in minibatches."""

    def make():
        def global_model(data):
            return numpyro.sample("theta", dist.Normal(0.0, 1.0))

        def local_model(theta):
            with numpyro.plate("data", len(x), subsample_size=3):
                tau = numpyro.sample("tau", dist.Gamma(5.0, 5.0))
                numpyro.sample("obs", dist.Normal(theta, tau), obs=numpyro.subsample(x, event_dim=0))

        def model(data):
            local_model(global_model(data))

        x = noise(9, 6)
        guide = AutoSemiDAIS(model, local_model, AutoNormal(global_model), K=2, use_global_dais_params=everywhere)
        return model, guide, (x,)

    make.__name__ = f"local_annealing_{'shared' if everywhere else 'own'}"
    return make


def schools():
    """Automatic reparameterisation with centredness as a parameter: LocScaleReparam(None) and AutoDiagonalNormal."""

    def model(sigma, y=None):
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        with numpyro.plate("J", len(sigma)):
            with reparam(config={"theta": LocScaleReparam(centered=None)}):
                theta = numpyro.sample("theta", dist.Normal(mu, tau))
            numpyro.sample("obs", dist.Normal(theta, sigma), obs=y)

    sigma = jnp.array([3.0, 2.0, 4.0, 2.5])
    return model, AutoDiagonalNormal(model), (sigma, sigma * noise(10, 4))


def clusters(guide_of, marks):
    """A Gaussian mixture whose assignments are summed out beside an autoguide of the other sites."""

    def model(data):
        weights = numpyro.sample("weights", dist.Dirichlet(0.5 * jnp.ones(2)))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 2.0))
        with numpyro.plate("components", 2):
            locs = numpyro.sample("locs", dist.Normal(0.0, 10.0))
        with numpyro.plate("data", len(data)):
            z = numpyro.sample("z", dist.Categorical(weights), infer=marks)
            numpyro.sample("obs", dist.Normal(locs[z], scale), obs=data)

    hidden = block(model, hide=["z"])
    return model, guide_of(hidden), (jnp.array([0.0, 1.0, 10.0, 11.0, 12.0]),)


def clusters_mode():
    """Gaussian Mixture Model, AutoDelta and config_enumerate, begun at a given value."""
    start = {"weights": jnp.array([0.4, 0.6]), "scale": jnp.array(4.0), "locs": jnp.array([1.0, 9.0])}
    model, guide, args = clusters(lambda hidden: AutoDelta(hidden, init_loc_fn=init_to_value(values=start)), {})
    return config_enumerate(model), guide, args


def clusters_normal():
    """Gaussian Mixture Model, AutoNormal of what is not enumerated, begun at a given value of some sites."""
    start = {"locs": jnp.array([1.0, 9.0]), "scale": jnp.array(2.0)}
    return clusters(lambda h: AutoNormal(h, init_loc_fn=init_to_value(values=start)), {"enumerate": "parallel"})


def clothes():
    """Example: Toy mixture model with discrete enumeration, of which the guide enumerates too."""

    def model(brand, features, labels):
        with numpyro.plate("brands", 2), numpyro.plate("kinds", 3):
            cpd = numpyro.sample("cpd", dist.Beta(2.0, 3.0))
        with numpyro.plate("N", len(labels)):
            kind = numpyro.sample("kind", dist.Categorical(jnp.array([0.5, 0.3, 0.2])), infer={"enumerate": "parallel"})
            numpyro.sample("feature", dist.Normal(kind.astype(jnp.float32), 1.0), obs=features)
            numpyro.sample("label", dist.Bernoulli(Vindex(cpd)[kind, brand]), obs=labels)

    def guide(brand, features, labels):
        a = numpyro.param("a", 2.0 * jnp.ones((3, 2)), constraint=constraints.positive)
        b = numpyro.param("b", 2.5 * jnp.ones((3, 2)), constraint=constraints.positive)
        with numpyro.plate("brands", 2), numpyro.plate("kinds", 3):
            numpyro.sample("cpd", dist.Beta(a, b))
        logits = numpyro.param("logits", 0.5 * noise(35, len(labels), 3))
        with numpyro.plate("N", len(labels)):
            numpyro.sample("kind", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})

    return model, guide, (jnp.arange(5) % 2, noise(11, 5) + 1.0, jnp.array([0.0, 1.0, 1.0, 0.0, 1.0]))


def ages():
    """Bayesian Imputation, missing entries by a normal masked to nothing and set among those that are there."""
    age = noise(12, 10).at[jnp.array([2, 7])].set(jnp.nan)

    def model(age, fare, survived):
        missing = np.array([2, 7])
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        filled = numpyro.sample("filled", dist.Normal(mu, sigma).expand([2]).to_event(1).mask(False))
        age = age.at[missing].set(filled)
        numpyro.sample("age", dist.Normal(mu, sigma), obs=age)
        b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        numpyro.sample("survived", dist.Bernoulli(logits=b[0] + b[1] * age + b[2] * fare), obs=survived)

    guide = AutoDiagonalNormal(model)
    return model, guide, (age, noise(13, 10), (noise(14, 10) > 0).astype(jnp.float32))


def lifetimes():
    """Censored data, what is known to be longer enters by numpyro.factor inside of its plate."""
    t = jnp.abs(noise(15, 10))
    seen = jnp.arange(10) % 3 > 0

    def model(t, seen):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 2.0))
        law = dist.Weibull(1.0 / rate, numpyro.sample("shape", dist.LogNormal(0.0, 0.5)))
        with numpyro.plate("units", len(t)):
            with mask(mask=seen):
                numpyro.sample("t", law, obs=t)
            numpyro.factor("longer", jnp.where(seen, 0.0, jnp.log1p(-law.cdf(t))))

    return model, AutoNormal(model, init_loc_fn=init_to_feasible), (t, seen)


def truncated():
    """Truncated and folded distributions, fitted by AutoNormal."""

    def model(below, between, folded):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        scale = numpyro.sample("scale", dist.HalfNormal(2.0))
        df = numpyro.sample("df", dist.LogNormal(1.0, 0.3))
        with numpyro.plate("a", len(below)):
            numpyro.sample("below", dist.RightTruncatedDistribution(dist.Normal(mu, scale), high=1.5), obs=below)
        with numpyro.plate("b", len(between)):
            numpyro.sample("between", dist.TruncatedNormal(mu, scale, low=-1.0, high=2.0), obs=between)
        with numpyro.plate("c", len(folded)):
            numpyro.sample("folded", dist.FoldedDistribution(dist.StudentT(df, mu, scale)), obs=folded)

    x = noise(16, 8)
    return model, AutoNormal(model), (jnp.minimum(x, 1.2), jnp.clip(x, -0.9, 1.9), jnp.abs(x))


def politicians():
    """Example: Text-Based Ideal Points, lognormal and normal guides whose local parameters a minibatch picks."""
    authors, docs, topics, words, batch = 3, 6, 2, 4, 3
    author = jnp.arange(docs) % authors
    counts = jnp.asarray(np.random.RandomState(17).poisson(1.0, (docs, words)), jnp.float32)

    def model(author, counts):
        with numpyro.plate("topics", topics, dim=-2), numpyro.plate("words", words, dim=-1):
            beta = numpyro.sample("beta", dist.Gamma(0.8, 0.5))
            eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        with numpyro.plate("authors", authors):
            ideal = numpyro.sample("ideal", dist.Normal(0.0, 1.0))
            weight = numpyro.sample("weight", dist.LogNormal(0.0, 0.4))
        with numpyro.plate("docs", docs, subsample_size=batch, dim=-2) as row:
            with numpyro.plate("topics_k", topics, dim=-1):
                theta = numpyro.sample("theta", dist.Gamma(0.8, 0.5))
            who = author[row]
            rates = jnp.einsum("dk,kv,dkv->dv", theta, beta, jnp.exp(ideal[who][:, None, None] * eta))
            with numpyro.plate("words_v", words, dim=-1):
                numpyro.sample("counts", dist.Poisson(weight[who][:, None] * rates), obs=counts[row])

    def pair(name, shape, seed):
        loc = numpyro.param(f"{name}_loc", 0.3 * noise(seed, *shape))
        return loc, numpyro.param(f"{name}_scale", 0.4 * jnp.ones(shape), constraint=constraints.positive)

    def guide(author, counts):
        beta, eta = pair("beta", (topics, words), 18), pair("eta", (topics, words), 19)
        theta, ideal = pair("theta", (docs, topics), 20), pair("ideal", (authors,), 21)
        weight = pair("weight", (authors,), 22)
        with numpyro.plate("topics", topics, dim=-2), numpyro.plate("words", words, dim=-1):
            numpyro.sample("beta", dist.LogNormal(*beta))
            numpyro.sample("eta", dist.Normal(*eta))
        with numpyro.plate("authors", authors):
            numpyro.sample("ideal", dist.Normal(*ideal))
            numpyro.sample("weight", dist.LogNormal(*weight))
        with (
            numpyro.plate("docs", docs, subsample_size=batch, dim=-2) as row,
            numpyro.plate("topics_k", topics, dim=-1),
        ):
            numpyro.sample("theta", dist.LogNormal(theta[0][row], theta[1][row]))

    return model, guide, (author, counts)


def hilbert_space(guide_of):
    """A Gaussian process by its basis functions."""

    def model(x, y=None):
        alpha = numpyro.sample("alpha", dist.LogNormal(0.0, 0.5))
        length = numpyro.sample("length", dist.InverseGamma(4.0, 4.0))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        with reparam(config={"beta": LocScaleReparam(0.0)}):
            f = hsgp_squared_exponential(x=x, alpha=alpha, length=length, ell=1.5, m=4, non_centered=True)
        with numpyro.plate("data", len(x)):
            numpyro.sample("obs", dist.Normal(f, sigma), obs=y)

    x = jnp.linspace(-1.0, 1.0, 10)
    return model, guide_of(model), (x, jnp.sin(4 * x) + 0.2 * noise(23, 10))


def hilbert_space_normal():
    """Example: Hilbert space approximation for Gaussian processes, AutoNormal."""
    return hilbert_space(AutoNormal)


def hilbert_space_mode():
    """Example: Hilbert space approximation for Gaussian processes, AutoDelta."""
    return hilbert_space(AutoDelta)


def circulant():
    """Example: Circulant Gaussian Process, a stationary process on a ring by its Fourier coefficients."""
    n = 8

    def model(y):
        length = numpyro.sample("length", dist.LogNormal(0.0, 0.3))
        level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        power = jnp.exp(-0.5 * (length * jnp.arange(n // 2 + 1)) ** 2) + 0.1
        rate = numpyro.sample("rate", dist.CirculantNormal(jnp.broadcast_to(level, (n,)), covariance_rfft=power))
        with numpyro.plate("n", n):
            numpyro.sample("y", dist.Poisson(jnp.exp(rate)), obs=y)

    return model, AutoNormal(model), (jnp.asarray(np.random.RandomState(24).poisson(2.0, n)),)


def moons(guide_of):
    """A density of two moons as a factor of the potential."""

    def model():
        x = numpyro.sample("x", dist.Normal(jnp.zeros(2), 2.0).to_event(1))
        ring = -0.5 * ((jnp.linalg.norm(x) - 1.6) / 0.5) ** 2
        sides = jnp.logaddexp(*[-0.5 * ((x[0] + s * 1.6) / 0.6) ** 2 for s in (1, -1)])
        numpyro.factor("moons", ring + sides)

    return model, guide_of(model), ()


def moons_bnaf():
    """Example: Neural Transport, AutoBNAFNormal."""
    return moons(lambda model: AutoBNAFNormal(model, num_flows=2, hidden_factors=[2, 2]))


def moons_iaf():
    """AutoIAFNormal, two flows and a permutation."""
    return moons(lambda model: AutoIAFNormal(model, num_flows=2, hidden_dims=[3, 3], nonlinearity=stax.Tanh))


def trips():
    """Hierarchical Forecasting, drifts by scan over time for pairs of stations under plates, AutoNormal and reparam."""
    hours, n = 5, 2

    def model(counts):
        with numpyro.plate("origin", n, dim=-2), numpyro.plate("destination", n, dim=-1):
            base = numpyro.sample("base", dist.Normal(0.0, 2.0))
            scale = numpyro.sample("drift_scale", dist.LogNormal(-1.0, 0.5))
        noise_scale = numpyro.sample("noise_scale", dist.LogNormal(-1.0, 0.5))

        def step(before, y):
            with numpyro.plate("origin", n, dim=-2), numpyro.plate("destination", n, dim=-1):
                with reparam(config={"drift": LocScaleReparam(0.0)}):
                    drift = numpyro.sample("drift", dist.Normal(0.9 * before, scale))
                numpyro.sample("y", dist.Normal(base + drift, noise_scale), obs=y)
            return drift, None

        scan(step, jnp.zeros((n, n)), counts)

    return model, AutoNormal(model, init_scale=0.2), (noise(25, hours, n, n),)


def local_level():
    """Time Series Forecasting, a seasonal state carried by scan; one site for all of its steps in the guide."""

    def model(y):
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        trend = numpyro.sample("trend", dist.Normal(0.0, 0.5))
        season = numpyro.sample("season", dist.Normal(0.0, 1.0).expand([3]).to_event(1))

        def step(carry, y):
            level, season = carry
            level = numpyro.sample("level", dist.Normal(level + trend, 0.5))
            numpyro.sample("y", dist.StudentT(4.0, level + season[0], sigma), obs=y)
            return (level, jnp.roll(season, -1)), level

        scan(step, (0.0, season), y)

    return model, AutoMultivariateNormal(model), (noise(26, 6),)


def ordinal():
    """Ordinal Regression, cutpoints that are transformed or improper, AutoDelta: posterior mode and likelihood's."""

    def model(x, y):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        with reparam(config={"cuts": TransformReparam()}):
            cuts = numpyro.sample(
                "cuts", dist.TransformedDistribution(dist.Normal(0.0, 1.0).expand([2]).to_event(1), OrderedTransform())
            )
        with numpyro.plate("obs", len(x)):
            numpyro.sample("y", dist.OrderedLogistic(b * x, cuts), obs=y)

    return model, AutoDelta(model), (noise(27, 9), jnp.arange(9) % 3)


def likelihood_only():
    """Ordinal Regression, ImproperUniform priors and AutoDelta: maximum likelihood."""

    def model(x, y):
        b = numpyro.sample("b", dist.ImproperUniform(constraints.real, (), ()))
        cuts = numpyro.sample("cuts", dist.ImproperUniform(constraints.ordered_vector, (), event_shape=(2,)))
        with numpyro.plate("obs", len(x)):
            numpyro.sample("y", dist.OrderedLogistic(b * x, cuts), obs=y)

    return model, AutoDelta(model), (noise(27, 9), jnp.arange(9) % 3)


def two_guides():
    """AutoGuideList, a correlated guide of some sites and a point of the others."""

    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        sigma = numpyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(x @ w + b, sigma), obs=y)

    guide = AutoGuideList(model)
    guide.append(AutoLowRankMultivariateNormal(block(model, expose=["w", "b"]), rank=1, prefix="one"))
    guide.append(AutoDelta(block(model, hide=["w", "b"]), prefix="two"))
    x = noise(28, 9, 2)
    return model, guide, (x, x[:, 0] + 0.5 * noise(29, 9))


def bayesian_network():
    """Bayesian neural network by random_flax_module, a normal prior on weights and AutoNormal in minibatches."""

    def model(x, y):
        net = random_flax_module("net", Mlp(2, 1), dist.Normal(0, 1.0), input_shape=(1,), apply_rng=None)
        sigma = numpyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        with numpyro.plate("batch", len(x), subsample_size=4):
            xs, ys = numpyro.subsample(x, event_dim=0), numpyro.subsample(y, event_dim=0)
            numpyro.sample("obs", dist.Normal(net(xs[:, None]).squeeze(-1), sigma), obs=ys)

    x = noise(30, 8)
    return model, AutoNormal(model, init_scale=0.1), (x, jnp.cos(2 * x))


def fish():
    """Example: Zero-Inflated Poisson regression with variational inference, AutoMultivariateNormal."""

    def model(x, y):
        theta = numpyro.sample("theta", dist.Uniform(0.1, 0.9))
        beta = numpyro.sample("beta", dist.Normal(0.0, 1.0).expand([x.shape[1]]))
        rate = jnp.exp(jnp.dot(x, beta))
        with numpyro.plate("obs", len(x)):
            numpyro.sample("y", dist.ZeroInflatedPoisson(theta, rate), obs=y)

    return model, AutoMultivariateNormal(model), (0.5 * noise(31, 9, 2), jnp.array([0, 0, 1, 3, 0, 2, 0, 1, 5]))


def switches(named):
    """A discrete guide whose draws are credited by their scores, local sites below a global one."""

    def make():
        def model(x):
            on = numpyro.sample("on", dist.Bernoulli(0.3))
            with numpyro.plate("data", len(x)):
                z = numpyro.sample("z", dist.Bernoulli(0.2 + 0.5 * on))
                numpyro.sample("x", dist.Normal(z + 0.5 * on, 1.0), obs=x)

        def guide(x):
            on = numpyro.sample("on", dist.Bernoulli(logits=numpyro.param("a", 0.2)))
            with numpyro.plate("data", len(x)):
                logits = numpyro.param("b", jnp.linspace(-0.5, 0.5, len(x)))
                numpyro.sample("z", dist.Bernoulli(logits=logits + 0.4 * on))

        return model, guide, (noise(32, 4) + 0.5,)

    make.__name__ = named
    make.__doc__ = "TraceGraph_ELBO, a discrete guide of a global and of local sites."
    return make


def weighed():
    """RenyiELBO, local latent variables in a subsampled plate that everything lies in, amortised by data."""

    def model(data):
        with numpyro.plate("batch", len(data), subsample_size=3):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Bernoulli(logits=z), obs=numpyro.subsample(data, event_dim=0))

    def guide(data):
        slope, width = numpyro.param("slope", 0.4), numpyro.param("width", -0.2)
        with numpyro.plate("batch", len(data), subsample_size=3):
            batch = numpyro.subsample(data, event_dim=0)
            numpyro.sample("z", dist.Normal(slope * batch, jnp.exp(width * (1 + batch))))

    return model, guide, (jnp.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0]),)


def weighed_globally():
    """RenyiELBO of a model with one global site, AutoDiagonalNormal."""
    model, x, y = logistic()
    return model, AutoDiagonalNormal(model, init_scale=0.5), (x, y)


def directions():
    """Reparameterizers: circular, explicit and projected normal sites under one handler, AutoNormal."""

    def model(angles, y):
        config = {
            "mean": CircularReparam(),
            "gain": ExplicitReparam(AffineTransform(1.0, 2.0)),
            "way": ProjectedNormalReparam(),
        }
        with reparam(config=config):
            mean = numpyro.sample("mean", dist.VonMises(0.3, 2.0))
            gain = numpyro.sample("gain", dist.Normal(1.0, 2.0))
            way = numpyro.sample("way", dist.ProjectedNormal(jnp.array([1.0, 0.5])))
        with numpyro.plate("data", len(y)):
            numpyro.sample("angle", dist.VonMises(mean, 3.0), obs=angles)
            numpyro.sample("y", dist.Normal(gain * way[0] + way[1], 0.7), obs=y)

    return model, AutoNormal(model, init_scale=0.2), (0.4 * noise(36, 6), noise(37, 6))


def lifted():
    """Effect handlers: parameters lifted to sites, one program twice under scopes, another site conditioned."""

    def line(x):
        slope = numpyro.param("slope", 0.3)
        level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("y", dist.Normal(slope * x + level, 0.5))

    def model(x, y):
        full = lift(condition(line, data={"y": y}), prior={"slope": dist.Normal(0.0, 2.0)})
        scope(full, prefix="left")(x)
        scope(full, prefix="right")(2.0 * x)

    return model, AutoLowRankMultivariateNormal(model, rank=2), (noise(38, 6), noise(39, 6))


def regimes():
    """Example: Enumerate Hidden Markov Model, a chain by a loop of Python's whose states are summed out, and AutoNormal."""

    def model(y):
        with numpyro.plate("states", 2):
            rows = numpyro.sample("rows", dist.Dirichlet(jnp.array([2.0, 1.0])))
            locs = numpyro.sample("locs", dist.Normal(0.0, 2.0))
        x = 0
        for t, value in enumerate(y):
            x = numpyro.sample(f"x_{t}", dist.Categorical(Vindex(rows)[x]), infer={"enumerate": "parallel"})
            numpyro.sample(f"y_{t}", dist.Normal(locs[x], 1.0), obs=value)

    return model, AutoNormal(block(model, hide=[f"x_{t}" for t in range(4)])), (noise(40, 4),)


class Summed(ELBO):
    """The bound by NumPyro's own log_density, which sums out what is enumerated in scan, for one number a site and plate.

    The `TraceEnum_ELBO` of NumPyro 0.22 has another value for a chain in scan than for the same chain in a loop of Python's.
    """

    can_infer_discrete = True

    def loss(self, key, params, model, guide, *args):
        sites = trace(substitute(seed(guide, key), params)).get_trace(*args).values()
        drawn = {site["name"]: site for site in sites if site["type"] == "sample"}
        summed = enum(config_enumerate(seed(model, 0)), -2)
        log_p, _ = log_density(summed, args, {}, {name: site["value"] for name, site in drawn.items()})
        return sum(site["fn"].log_prob(site["value"]).sum() for site in drawn.values()) - log_p


def regimes_in_scan():
    """Example: Enumerate Hidden Markov Model, the chain by scan."""

    def model(y):
        with numpyro.plate("states", 2):
            rows = numpyro.sample("rows", dist.Dirichlet(jnp.array([2.0, 1.0])))
            locs = numpyro.sample("locs", dist.Normal(0.0, 2.0))

        def step(before, y):
            x = numpyro.sample("x", dist.Categorical(Vindex(rows)[before]), infer={"enumerate": "parallel"})
            numpyro.sample("y", dist.Normal(locs[x], 1.0), obs=y)
            return x, None

        scan(step, 0, y)

    return model, AutoNormal(block(model, hide=["x"])), (noise(40, 6),)


def annotators():
    """Example: Bayesian Models of Annotation, an item's class summed out of crossed plates."""
    marks = jnp.asarray(np.random.RandomState(41).randint(0, 2, (5, 3)))

    def model(marks):
        with numpyro.plate("annotator", 3, dim=-2), numpyro.plate("class", 2):
            beta = numpyro.sample("beta", dist.Dirichlet(jnp.array([1.5, 2.0])))
        pi = numpyro.sample("pi", dist.Dirichlet(jnp.ones(2)))
        with numpyro.plate("item", 5, dim=-2):
            c = numpyro.sample("c", dist.Categorical(pi), infer={"enumerate": "parallel"})
            with numpyro.plate("position", 3):
                numpyro.sample("y", dist.Categorical(Vindex(beta)[jnp.arange(3), c, :]), obs=marks)

    return model, AutoNormal(block(model, hide=["c"])), (marks,)


def discrete_gaps():
    """Bayesian Imputation for Discrete Covariates, what is missing is summed out under masks."""
    seen = jnp.array([True, False, True, True, False, True])

    def model(a, b, y):
        share = numpyro.sample("share", dist.Beta(2.0, 2.0).expand([2]).to_event(1))
        effect = numpyro.sample("effect", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with numpyro.plate("obs", len(y)):
            with mask(mask=seen):
                numpyro.sample("b", dist.Bernoulli(share[a]), obs=jnp.where(seen, b, 0))
            with mask(mask=~seen):
                gap = numpyro.sample("gap", dist.Bernoulli(share[a]), infer={"enumerate": "parallel"})
            b = jnp.where(seen, b, gap)
            numpyro.sample("y", dist.Normal(effect[0] * a + effect[1] * b, 1.0), obs=y)

    a, b = jnp.array([0, 1, 1, 0, 0, 1]), jnp.array([1, -1, 0, 1, -1, 1])
    return model, AutoNormal(block(model, hide=["gap"])), (a, b, noise(42, 6))


def partly_observed():
    """Sites of which a mask says what is observed, a point for their other entries."""
    seen = jnp.array([True, False, True, True])

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", len(y)):
            x = numpyro.sample("x", dist.Normal(mu, 1.0), obs=y, obs_mask=seen)
            numpyro.sample("double", dist.Normal(2 * x, 0.5), obs=y - 0.3)

    return model, AutoNormal(model), (noise(43, 4),)


def batched(guide_of, named):
    """AutoBatchedMultivariateNormal and its relative of low rank, a correlated block for each row."""

    def make():
        def model(y):
            with numpyro.plate("rows", len(y)):
                loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
                scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
                numpyro.sample("y", dist.Normal(loc, scale), obs=y)

        return model, guide_of(model, batch_ndim=1), (noise(44, 3),)

    make.__name__ = named
    return make


def volatility():
    """Example: Stochastic Volatility, a Gaussian random walk of log scales, AutoNormal."""

    def model(returns):
        step = numpyro.sample("step", dist.Exponential(5.0))
        s = numpyro.sample("s", dist.GaussianRandomWalk(scale=step, num_steps=len(returns)))
        nu = numpyro.sample("nu", dist.Exponential(0.3))
        numpyro.sample("r", dist.StudentT(df=nu, loc=0.0, scale=jnp.exp(s)), obs=returns)

    return model, AutoNormal(model), (0.5 * noise(45, 6),)


def mixed():
    """Mixture distributions, components of one family and of several, AutoDiagonalNormal."""

    def model(x):
        w = numpyro.sample("w", dist.Dirichlet(jnp.ones(2)))
        locs = numpyro.sample(
            "locs", dist.TransformedDistribution(dist.Normal(0, 1).expand([2]).to_event(1), OrderedTransform())
        )
        same = dist.MixtureSameFamily(dist.Categorical(w), dist.Normal(locs, 1.0))
        several = dist.MixtureGeneral(
            dist.Categorical(w), [dist.Normal(locs[0], 1.0), dist.StudentT(3.0, locs[1], 2.0)]
        )
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", same, obs=x)
            numpyro.sample("y", several, obs=x + 0.5)

    return model, AutoDiagonalNormal(model), (noise(46, 6),)


class Dropped(nnx.Module):
    """Two layers of an eager module."""

    def __init__(self, *, rngs):
        self.first, self.last = nnx.Linear(1, 2, rngs=rngs), nnx.Linear(2, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.tanh(self.first(x[:, None])))[:, 0]


def eager_network():
    """random_nnx_module, priors by the parameters' names, and an nnx_module beside it."""

    def model(x, y):
        net = random_nnx_module(
            "net",
            Dropped(rngs=nnx.Rngs(0)),
            prior=lambda name, shape: dist.Cauchy() if name.endswith("bias") else dist.Normal(),
        )
        trend = nnx_module("trend", nnx.Linear(1, 1, rngs=nnx.Rngs(1)))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("y", dist.Normal(net(x) + trend(x[:, None])[:, 0], 0.5), obs=y)

    return model, AutoNormal(model), (noise(47, 6), noise(48, 6))


def bandit():
    """Example: Thompson Sampling for Bayesian Optimization, a surrogate function fitted by SVI and AutoDelta."""

    def model(x, y):
        var = numpyro.sample("var", dist.LogNormal(0.0, 1.0))
        length = numpyro.sample("length", dist.LogNormal(0.0, 0.5))
        level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        gap = (x[:, None] - x) / length
        k = var * jnp.exp(-0.5 * gap**2) + 0.1 * jnp.eye(len(x))
        numpyro.sample("y", dist.MultivariateNormal(level, covariance_matrix=k), obs=y)

    return model, AutoDelta(model), (jnp.linspace(0.0, 2.0, 6), noise(49, 6))


def tides():
    """Hilbert space approximation for Gaussian processes, two kernels under scopes, AutoMultivariateNormal."""

    def model(x, y):
        length = numpyro.sample("length", dist.InverseGamma(4.0, 4.0))
        slow = scope(hsgp_matern, prefix="slow")(x=x, nu=1.5, alpha=1.0, length=length, ell=1.5, m=2)
        fast = scope(hsgp_matern, prefix="fast")(
            x=x, nu=2.5, alpha=0.5, length=0.5 * length, ell=1.5, m=2, non_centered=False
        )
        numpyro.sample("y", dist.Normal(slow + fast, 0.5), obs=y)

    return model, AutoMultivariateNormal(model), (jnp.linspace(-1.0, 1.0, 8), noise(50, 8))


TWINS = [
    Twin("Bayesian Regression Using NumPyro", divorces),
    Twin("Bayesian Hierarchical Linear Regression", lungs),
    Twin("Example: Variational Autoencoder", digits),
    Twin(
        "Example: Variational Autoencoder", digits, loss=TraceMeanField_ELBO(), objective=ppvi.objectives.analytic_elbo
    ),
    Twin(
        "Example: ProdLDA with Flax and Haiku",
        topics,
        loss=TraceMeanField_ELBO(),
        objective=ppvi.objectives.analytic_elbo,
    ),
    Twin("Example: Conditional Variational Autoencoder in Flax", images_from_quarters),
    Twin("Example: AutoDAIS", annealed_logistic),
    Twin("Example: AutoDAIS", annealed_cholesky),
    Twin("AutoSurrogateLikelihoodDAIS", surrogate),
    Twin("AutoSemiDAIS", local_annealing(False)),
    Twin("AutoSemiDAIS", local_annealing(True)),
    Twin("Variationally Inferred Parameterization", schools),
    Twin("Gaussian Mixture Model", clusters_mode, loss=TraceEnum_ELBO(max_plate_nesting=1)),
    Twin("Gaussian Mixture Model", clusters_normal, loss=TraceEnum_ELBO(max_plate_nesting=1)),
    Twin("Example: Toy Mixture Model with Discrete Enumeration", clothes, loss=TraceEnum_ELBO(max_plate_nesting=2)),
    Twin("Bayesian Imputation", ages),
    Twin("Example: Censored data", lifetimes),
    Twin("Truncated and folded distributions", truncated),
    Twin("Example: Text-Based Ideal Points", politicians),
    Twin("Example: Hilbert space approximation for Gaussian processes", hilbert_space_normal),
    Twin("Example: Hilbert space approximation for Gaussian processes", hilbert_space_mode),
    Twin("Example: Circulant Gaussian Process", circulant),
    Twin("Example: Neural Transport", moons_bnaf),
    Twin("Example: Neural Transport", moons_iaf),
    Twin("Hierarchical Forecasting", trips),
    Twin("Time Series Forecasting", local_level),
    Twin("Ordinal Regression", ordinal),
    Twin("Ordinal Regression", likelihood_only),
    Twin("AutoGuideList", two_guides),
    Twin("random_flax_module", bayesian_network),
    Twin("Example: Zero-Inflated Poisson regression", fish),
    Twin("TraceGraph_ELBO", switches("switches_graph"), loss=TraceGraph_ELBO()),
    Twin("TraceGraph_ELBO", switches("switches_particles"), loss=TraceGraph_ELBO(num_particles=3)),
    Twin("RenyiELBO", weighed, loss=RenyiELBO(0.5, 3), objective=ppvi.objectives.renyi(0.5, 3, per="batch")),
    Twin("RenyiELBO", weighed_globally, loss=RenyiELBO(0.0, 4), objective=ppvi.objectives.renyi(0.0, 4)),
    Twin("Trace_ELBO of several particles", weighed_globally, loss=Trace_ELBO(num_particles=4)),
    Twin("Automatic Reparameterization", directions),
    Twin("Effect Handlers", lifted),
    Twin("Example: Enumerate Hidden Markov Model", regimes, loss=TraceEnum_ELBO(max_plate_nesting=1)),
    Twin("Example: Enumerate Hidden Markov Model", regimes_in_scan, loss=Summed()),
    Twin("Example: Bayesian Models of Annotation", annotators, loss=TraceEnum_ELBO(max_plate_nesting=2)),
    Twin("Bayesian Imputation for Discrete Covariates", discrete_gaps, loss=TraceEnum_ELBO(max_plate_nesting=1)),
    Twin("obs_mask", partly_observed),
    Twin("AutoBatchedMultivariateNormal", batched(AutoBatchedMultivariateNormal, "batched_full")),
    Twin(
        "AutoBatchedLowRankMultivariateNormal",
        batched(AutoBatchedLowRankMultivariateNormal, "batched_low_rank"),
    ),
    Twin("Example: Stochastic Volatility", volatility),
    Twin("Mixture distributions", mixed),
    Twin("random_nnx_module", eager_network),
    Twin("Example: Thompson Sampling for Bayesian Optimization with GPs", bandit),
    Twin("Example: Hilbert space approximation for Gaussian processes", tides, at=moved),
]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.make.__name__)
def test_a_twin_has_the_means_of_the_library(twin):
    assert on_numpyro(twin) == []
