"""Models with discrete sites that the guide lacks have the numbers that Pyro's and NumPyro's `TraceEnum_ELBO` give them.

The programs are written as the libraries' documentation writes them. Their guides draw nothing, so that a bound is one number, which
both must have, and its gradient.

NumPyro's is wrong of a `scan`, whose rounds it does not sum out one after the other: there the peer is the log density that its
HMC samples by, which counts log K too much for every round that is masked.
"""

import jax
import numpy as np
import numpyro.infer
import numpyro.ops.indexing
import pyro
import pyro.infer
import pyro.ops.indexing
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.contrib.funsor import config_enumerate, enum, log_density

import ppvi
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, double, handlers, nn, on, ppl, xp
from tests.laws.random_summed import plate

X = np.array([0.4, -1.2, 2.1, 0.9])
GRID = np.array([[0.4, -1.2, 2.1, 0.9], [0.1, 1.7, -0.6, 0.2]])
SPREAD = np.array([-1.0, 0.5, 2.0])
TABLE = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
PAIRS = np.array([[0.2, -0.7, 1.1], [0.9, 0.4, -1.3]])
THERE = np.array([True, False, True, True])
KNOWN = np.array([1, 0, 1, 0])
ROWS = (3, 0)


def weights():
    return nn.softmax(ppl.param("w"), -1)


def normal(mean, obs, name="y"):
    return ppl.sample(name, dist.Normal(mean, 0.8), obs=xp.array(obs))


def mixture(engine, u):
    with ppl.plate("rows", 4, dim=-1):
        z = ppl.sample("z", dist.Categorical(weights()))
        normal(xp.array(SPREAD)[z] * u, X)


def nested(engine, u):
    with ppl.plate("groups", 2, dim=-2):
        z = ppl.sample("z", dist.Categorical(weights()))
        with ppl.plate("rows", 4, dim=-1):
            k = ppl.sample("k", dist.Categorical(xp.array(TABLE)[z]))
            normal(xp.array(SPREAD)[k] * u, GRID)


def common(engine, u):
    z = ppl.sample("z", dist.Categorical(weights()))
    with ppl.plate("rows", 4, dim=-1):
        k = ppl.sample("k", dist.Bernoulli(xp.array([0.2, 0.5, 0.9])[z]))
        normal(xp.array(SPREAD)[z] + k * u, X)


def two_parents(engine, u):
    vindex = {NUMPYRO.name: numpyro.ops.indexing.Vindex, PYRO.name: pyro.ops.indexing.Vindex}[engine.name]
    with ppl.plate("rows", 4, dim=-1):
        z = ppl.sample("z", dist.Categorical(weights()))
        k = ppl.sample("k", dist.Bernoulli(nn.sigmoid(u)))
        normal(vindex(xp.array(PAIRS))[xp.array(k, int), z] * u, X)


def masked(engine, u):
    with ppl.plate("rows", 4, dim=-1), handlers.mask(mask=xp.array(THERE)):
        z = ppl.sample("z", dist.Categorical(weights()))
        normal(xp.array(SPREAD)[z] * u, X)


def masked_alone(engine, u):
    """A mask around a site that is summed out does nothing, for it is drawn all the same."""
    with ppl.plate("rows", 4, dim=-1):
        with handlers.mask(mask=xp.array(THERE)):
            z = ppl.sample("z", dist.Categorical(weights()))
        normal(xp.array(SPREAD)[z] * u, X)


def partly_observed(engine, u):
    with ppl.plate("rows", 4, dim=-1):
        known = xp.array(KNOWN) * (1.0 if engine is PYRO else 1)
        k = ppl.sample("k", dist.Bernoulli(nn.sigmoid(u)), obs=known, obs_mask=xp.array(THERE))
        normal(2.0 * k * u, X)


def scaled(engine, u):
    with ppl.plate("rows", 4, dim=-1), handlers.scale(scale=2.5):
        z = ppl.sample("z", dist.Categorical(weights()))
        normal(xp.array(SPREAD)[z] * u, X)


def subsampled(engine, u):
    with plate(engine, "rows", 4, -1, ROWS):
        z = ppl.sample("z", dist.Categorical(weights()))
        normal(xp.array(SPREAD)[z] * u, X[list(ROWS)])


def chain(engine, u, masks=False):
    def step(before, t, y, suffix=""):
        with handlers.mask(mask=xp.array(t < 2) if masks else xp.array(True)):
            z = ppl.sample(f"z{suffix}", dist.Categorical(xp.array(TABLE)[before]))
            normal(xp.array(SPREAD)[z] * u, y, f"y{suffix}")
        return z

    if engine is NUMPYRO:
        scan(lambda z, row: (step(z, *row), None), 0, (xp.arange(4), xp.array(X)))
        return
    z = 0
    for t in pyro.markov(range(4)):
        z = step(z, t, X[t], f"_{t}")


def ragged(engine, u):
    chain(engine, u, masks=True)


def in_a_plate(engine, u):
    """Sequences in a plate, as in the HMM of the documentation."""

    sequences = ppl.plate("sequences", 2, dim=-1)

    def step(before, y, suffix=""):
        with sequences:
            z = ppl.sample(f"z{suffix}", dist.Categorical(xp.array(TABLE)[before]))
            normal(xp.array(SPREAD)[z] * u, y, f"y{suffix}")
        return z

    if engine is NUMPYRO:
        scan(lambda z, y: (step(z, y), None), xp.zeros(2, int), xp.array(GRID.T))
        return
    z = 0
    for t in pyro.markov(range(4)):
        z = step(z, GRID[:, t], f"_{t}")


MODELS = [
    mixture, nested, common, two_parents, masked, masked_alone, partly_observed, scaled, subsampled, chain, ragged, in_a_plate,
]  # fmt: skip
PARAMS = {"w": np.array([0.3, -0.5, 0.1]), "m": np.array(0.7)}


def programs(engine, model):
    def whole():
        model(engine, ppl.sample("u", dist.Normal(0.0, 1.0)))

    def guide():
        ppl.sample("u", dist.Delta(ppl.param("m")))

    return whole, guide


def by_numpyro(model):
    whole, guide = programs(NUMPYRO, model)
    params = {name: NUMPYRO.array(x) for name, x in PARAMS.items()}

    def bound(params):
        if model in SCANNED:
            whole_at = enum(config_enumerate(handlers.seed(whole, 0)), -3)
            return log_density(whole_at, (), {}, {"u": params["m"], "w": params["w"]})[0] - TOO_MUCH.get(model, 0.0)
        return -numpyro.infer.TraceEnum_ELBO().loss(jax.random.key(0), params, config_enumerate(whole), guide)

    return jax.value_and_grad(bound)(params)


def by_pyro(model):
    whole, guide = programs(PYRO, model)
    for name, x in PARAMS.items():
        pyro.param(name, PYRO.array(x))
    elbo = pyro.infer.TraceEnum_ELBO(max_plate_nesting=2)
    loss = elbo.differentiable_loss(pyro.infer.config_enumerate(whole), guide)
    loss.backward()
    params = {name: pyro.param(name) for name in PARAMS}
    return -float(loss), {
        name: -x.grad.numpy() if x.grad is not None else np.zeros(x.shape) for name, x in params.items()
    }


SCANNED = (chain, ragged, in_a_plate)
TOO_MUCH = {ragged: 2 * np.log(3)}
PEERS = {NUMPYRO.name: by_numpyro, PYRO.name: by_pyro}


QUICK = (nested, partly_observed, chain)
"""Of those that NumPyro's enumeration, by funsor, takes seconds for."""


@pytest.mark.parametrize(
    ("engine", "model"),
    [
        pytest.param(
            engine,
            model,
            marks=pytest.mark.slow if engine is NUMPYRO and model not in QUICK else (),
            id=f"{engine.name}-{model.__name__}",
        )
        for engine in ENGINES
        for model in MODELS
    ],
)
def test_the_numbers_of_trace_enum(engine, model):
    with double(), on(engine):
        bound = engine.vi.objective(ppvi.objectives.elbo, *programs(engine, model))
        params = {name: engine.array(x) for name, x in PARAMS.items()}
        value, gradient = bound.value_and_grad(engine.key(0), params)
        theirs, slopes = PEERS[engine.name](model)
    np.testing.assert_allclose(float(value), float(theirs), rtol=1e-9)
    for name in PARAMS:
        np.testing.assert_allclose(
            np.asarray(gradient[name]), np.asarray(slopes[name]), rtol=1e-7, atol=1e-9, err_msg=name
        )
