"""Constructs of both libraries: parameters with constraints, and modules."""

import flax.linen
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions
import pyro
import pyro.distributions
import pyro.nn
import pytest
import torch
from numpyro.contrib.module import flax_module, random_flax_module
from scipy.stats import norm

from ppvi import ProgramError
from ppvi.objectives import elbo
from tests.conformance.constructs import nothing, slopes
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, double, on, ppl, xp

C = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.3, 0.5, np.sqrt(0.66)]])
OTHER = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.0, 0.8]])
CONSTRAINTS = {
    "real": (lambda c: c.real, 0.3, -1.2),
    "positive": (lambda c: c.positive, 0.3, 1.7),
    "softplus_positive": (lambda c: c.softplus_positive, 0.3, 1.7),
    "interval": (lambda c: c.interval(-1.0, 2.0), 0.3, 1.2),
    "unit_interval": (lambda c: c.unit_interval, 0.3, 0.8),
    "greater_than": (lambda c: c.greater_than(1.0), 1.3, 2.2),
    "simplex": (lambda c: c.simplex, [0.2, 0.3, 0.5], [0.5, 0.3, 0.2]),
    "ordered": (lambda c: c.ordered_vector, [-1.0, 0.2, 0.5], [-0.5, 0.4, 1.4]),
    "positive_ordered": (lambda c: c.positive_ordered_vector, [0.1, 0.2, 0.5], [0.5, 0.9, 1.4]),
    "corr_cholesky": (lambda c: c.corr_cholesky, OTHER, C),
    "lower_cholesky": (lambda c: c.lower_cholesky, OTHER, 1.5 * C),
    "softplus_lower_cholesky": (lambda c: c.softplus_lower_cholesky, OTHER, 1.5 * C),
    "positive_definite": (lambda c: c.positive_definite, OTHER @ OTHER.T, C @ C.T),
    "sphere": (lambda c: c.sphere, [0.6, 0.8], [0.8, -0.6]),
}
"""Where a parameter starts, and where the objective is greatest."""


def near(constraint, start, best):
    """A model without a latent site that is the likelier, the nearer a parameter is to a point."""

    def model():
        x = ppl.param("x", np.asarray(start, float), constraint=constraint(dist.constraints))
        ppl.factor("f", -((x - xp.array(np.asarray(best, float))) ** 2).sum())

    return model


OF_PYRO = ("sphere",)
"""Constraints that only Pyro has a transform for."""
ROWS = [
    pytest.param(name, engine, id=f"{name}-{engine.name}")
    for name in CONSTRAINTS
    for engine in ENGINES
    if engine is PYRO or name not in OF_PYRO
]


@pytest.mark.parametrize(("name", "engine"), ROWS)
def test_value_and_gradient_in_a_constrained_parameter(name, engine):
    """-(x - t)^2 and -2 (x - t), in the numbers of the parameter as it is used."""
    constraint, start, best = CONSTRAINTS[name]
    apart = np.asarray(start) - np.asarray(best)
    with double(), on(engine):
        bound = engine.vi.objective(elbo, near(constraint, start, best), nothing)
        value, grads = bound.value_and_grad(engine.key(0), bound.init(engine.key(0)))
    np.testing.assert_allclose(float(value), -(apart**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(grads["x"], -2 * apart, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "engine"), ROWS)
def test_a_fit_moves_a_constrained_parameter_to_the_best(name, engine):
    """Which is within the constraint, so that its distance is known to be zero."""
    constraint, start, best = CONSTRAINTS[name]
    with double(), on(engine):
        bound = engine.vi.objective(elbo, near(constraint, start, best), nothing)
        fit = engine.vi.fit(bound, engine.key(0), num_steps=600, optimizer=0.05, progress=False)
        found = np.asarray(fit.params["x"].detach() if engine is PYRO else fit.params["x"])
    np.testing.assert_allclose(found, best, atol=2e-3)


def test_a_constraint_without_a_transform_is_refused():
    constraint, start, best = CONSTRAINTS["sphere"]
    with pytest.raises(ProgramError, match=r"no transform.* make it real, positive, in an interval"):
        NUMPYRO.vi.objective(elbo, near(constraint, start, best), nothing).init(NUMPYRO.key(0))


# Modules ------------------------------------------------------------------------------------------------------------------

DATA = np.array([[0.5, -1.0], [1.1, 0.2], [-0.7, 0.4]])
W, BIAS = np.array([[0.3], [-0.8]]), np.array([0.1])
Y = np.array([0.2, 1.0, -0.5])


def of_regression(w, bias):
    return norm.logpdf(Y, (DATA @ w)[:, 0] + bias[0]).sum()


def of_priors(w, bias):
    """With standard normal priors on all weights."""
    return of_regression(w, bias) + norm.logpdf(w).sum() + norm.logpdf(bias).sum()


def observe(loc):
    with ppl.plate("rows", 3):
        ppl.sample("y", dist.Normal(loc, 1.0), obs=Y)


def close(value, grads, exact):
    """`grads`: of w and bias as in the formula."""
    np.testing.assert_allclose(float(value), exact(W, BIAS), rtol=1e-6)
    for name, slope in slopes(exact, {"w": W, "bias": BIAS}).items():
        np.testing.assert_allclose(np.asarray(grads[name]).reshape(slope.shape), slope, rtol=1e-6, atol=1e-8)


def test_flax_module():
    def model():
        net = flax_module("net", flax.linen.Dense(1, param_dtype=float), input_shape=(2,))
        observe(net(jnp.array(DATA))[:, 0])

    with double():
        bound = NUMPYRO.vi.objective(elbo, model, nothing)
        params = {"net$params": {"kernel": jnp.array(W), "bias": jnp.array(BIAS)}}
        value, grads = bound.value_and_grad(NUMPYRO.key(0), params)
    close(value, {"w": grads["net$params"]["kernel"], "bias": grads["net$params"]["bias"]}, of_regression)


def test_random_flax_module():
    def model():
        prior = numpyro.distributions.Normal(0.0, 1.0)
        net = random_flax_module("net", flax.linen.Dense(1, param_dtype=float), prior, input_shape=(2,))
        observe(net(jnp.array(DATA))[:, 0])

    def guide():
        for name, param in {"kernel": "w", "bias": "bias"}.items():
            at = ppl.param(param, {"w": W, "bias": BIAS}[param])
            ppl.sample(f"net/{name}", numpyro.distributions.Delta(at, event_dim=at.ndim))

    with double():
        bound = NUMPYRO.vi.objective(elbo, model, guide)
        params = {**bound.init(NUMPYRO.key(0)), "w": jnp.array(W), "bias": jnp.array(BIAS)}
        value, grads = bound.value_and_grad(NUMPYRO.key(0), params)
    close(value, grads, of_priors)


def linear():
    net = torch.nn.Linear(2, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor(W.T))
        net.bias.copy_(torch.tensor(BIAS))
    return net


def test_pyro_module():
    with double(), on(PYRO):
        net = linear()

        def model():
            pyro.module("net", net)
            observe(net(torch.tensor(DATA))[:, 0])

        bound = PYRO.vi.objective(elbo, model, nothing)
        value, grads = bound.value_and_grad(0, bound.init(0))
        (weight,), (bias,) = ([g for n, g in grads.items() if n.endswith(end)] for end in ("weight", "bias"))
        close(value, {"w": weight.T, "bias": bias}, of_regression)


def points_of_a_net(sites):
    def guide():
        for site, param in sites.items():
            at = ppl.param(param)
            ppl.sample(site, pyro.distributions.Delta(at, event_dim=at.ndim))

    return guide


def test_pyro_sample_of_a_module():
    with double(), on(PYRO):

        class Net(pyro.nn.PyroModule):
            def __init__(self):
                super().__init__()
                self.linear = pyro.nn.PyroModule[torch.nn.Linear](2, 1)
                prior = pyro.distributions.Normal(torch.tensor(0.0), 1.0)
                self.linear.weight = pyro.nn.PyroSample(prior.expand([1, 2]).to_event(2))
                self.linear.bias = pyro.nn.PyroSample(prior.expand([1]).to_event(1))

            def forward(self):
                observe(self.linear(torch.tensor(DATA))[:, 0])

        guide = points_of_a_net({"linear.weight": "w", "linear.bias": "bias"})
        bound = PYRO.vi.objective(elbo, Net(), guide)
        value, grads = bound.value_and_grad(0, {"w": torch.tensor(W.T), "bias": torch.tensor(BIAS)})
        close(value, {"w": grads["w"].T, "bias": grads["bias"]}, of_priors)


@pytest.mark.filterwarnings("ignore")
def test_random_module_of_pyro():
    """`pyro.random_module`, which Pyro has deprecated for `PyroSample`."""
    with double(), on(PYRO):
        net = linear()
        prior = pyro.distributions.Normal(torch.tensor(0.0), 1.0)
        priors = {"weight": prior.expand([1, 2]).to_event(2), "bias": prior.expand([1]).to_event(1)}

        def model():
            observe(pyro.random_module("net", net, priors)()(torch.tensor(DATA))[:, 0])

        guide = points_of_a_net({"net$$$weight": "w", "net$$$bias": "bias"})
        bound = PYRO.vi.objective(elbo, model, guide)
        value, grads = bound.value_and_grad(0, {"w": torch.tensor(W.T), "bias": torch.tensor(BIAS)})
        close(value, {"w": grads["w"].T, "bias": grads["bias"]}, of_priors)


def test_spline_of_a_module():
    """A spline's own density, through which PyTorch differentiates."""
    with double(), on(PYRO):
        torch.manual_seed(0)
        spline = pyro.distributions.transforms.Spline(1, count_bins=4)
        x = torch.tensor(Y)[:, None]

        def fn():
            return pyro.distributions.TransformedDistribution(
                pyro.distributions.Normal(torch.zeros(1), 1.0).to_event(1), [spline]
            )

        def model():
            pyro.module("spline", spline)
            with pyro.plate("rows", 3):
                pyro.sample("x", fn(), obs=x)

        wanted = fn().log_prob(x).sum()
        along = dict(zip(*zip(*spline.named_parameters(), strict=True), strict=True))
        exact = dict(zip(along, torch.autograd.grad(wanted, list(along.values())), strict=True))
        bound = PYRO.vi.objective(elbo, model, nothing)
        value, grads = bound.value_and_grad(0, bound.init(0))
        np.testing.assert_allclose(float(value), float(wanted), rtol=1e-6)
        for name, slope in exact.items():
            (found,) = (g for n, g in grads.items() if n.endswith(name))
            np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-9)
