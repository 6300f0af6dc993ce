"""One key, one result: whatever was called, staged, fitted or drawn before, with the same key or another."""

import jax
import numpy as np
import pyro
import pytest
import torch

import ppvi
from ppvi import Enumerate, Reinforce
from tests.engines import NUMPYRO, PYRO, dist, on, ppl, xp

Y = np.array([0.3, -1.2, 0.8])


def model(y):
    z = ppl.sample("z", dist.Normal(0.0, 1.0))
    c = ppl.sample("c", dist.Bernoulli(0.4))
    with ppl.plate("data", 3):
        ppl.sample("y", dist.Normal(z + c, 1.0), obs=y)


def mean_field(y):
    ppl.sample("z", dist.Normal(ppl.param("m", xp.array(0.5)), 1.0))
    ppl.sample("c", dist.Bernoulli(0.3), infer={"strategy": Reinforce()})


def accepting(y):
    """A Gamma's sampler draws until it accepts, so that on Pyro the gradient is no graph."""
    z = ppl.sample("z", dist.Gamma(ppl.param("m", xp.array(1.5)), 1.0))
    ppl.sample("c", dist.Bernoulli(z / (1 + z)), infer={"strategy": Reinforce()})


def branching(y):
    """Replayed, on Pyro only."""
    c = ppl.sample("c", dist.Bernoulli(0.3), infer={"strategy": Enumerate()})
    m = ppl.param("m", xp.array(0.5))
    ppl.sample("z", dist.Normal(m if c > 0 else -m, 1.0), infer={"strategy": Reinforce()})


def continuous(y):
    with ppl.plate("data", 3):
        ppl.sample("y", dist.Normal(ppl.sample("z", dist.Normal(0.0, 1.0).expand([])), 1.0), obs=y)


class Dropping(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, y):
        ppl.sample("z", dist.Normal(self.drop(self.weight * y).sum(), 1.0))
        ppl.sample("c", dist.Bernoulli(0.3))


def dropping():
    module = Dropping()

    def guide(y):
        pyro.module("dropping", module)
        module(y)

    return guide


def draws(data):
    return [np.asarray(x) for group in (data.posterior, data.sample_stats) for x in group.data_vars.values()]


def numbers(tree):
    return [
        np.asarray(x.detach().clone() if isinstance(x, torch.Tensor) else x)
        for x in torch.utils._pytree.tree_leaves(tree)
    ]


VERBS = {
    "init": lambda vi, bound, key, params, y: bound.init(key, y),
    "estimate": lambda vi, bound, key, params, y: bound.estimate(key, params, y),
    "value_and_grad": lambda vi, bound, key, params, y: bound.value_and_grad(key, params, y),
    "posterior": lambda vi, bound, key, params, y: draws(vi.posterior(bound, key, params, y, draws=3)),
    "fit": lambda vi, bound, key, params, y: vi.fit(bound, key, y, num_steps=2, progress=False).losses,
}
ORDERS = (("init", "estimate", "value_and_grad", "posterior", "fit"), ("posterior", "value_and_grad", "init"), ("fit",))


def called(engine, programs, key, order):
    """What verbs give on an objective of its own, one after the other, and the random numbers that each leaves."""
    torch.manual_seed(0)
    with on(engine):
        bound, y = engine.vi.objective(ppvi.objectives.elbo, *programs), engine.array(Y)
        params, found = bound.init(engine.key(0), y), {}
        for verb in order:
            used = key()
            result = numbers(VERBS[verb](engine.vi, bound, used, params, y))
            left = used.get_state() if isinstance(used, torch.Generator) else torch.get_rng_state()
            found[verb] = [*result, left.numpy()]
            bound.explain(params, y)
    return found


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


TYPED, RAW = (lambda: jax.random.key(3)), (lambda: jax.random.PRNGKey(3))
SEED, GLOBAL = (lambda: 3), (lambda: torch.manual_seed(3) and None)


@pytest.mark.parametrize(
    ("engine", "key", "make"),
    [
        pytest.param(NUMPYRO, TYPED, lambda guides: (model, mean_field), id="NumPyro"),
        pytest.param(
            NUMPYRO,
            TYPED,
            lambda guides: (continuous, guides.AutoNormal(continuous)),
            id="NumPyro, autoguide",
            marks=pytest.mark.slow,
        ),
        pytest.param(PYRO, GLOBAL, lambda guides: (model, mean_field), id="Pyro"),
        pytest.param(PYRO, SEED, lambda guides: (model, mean_field), id="Pyro, a seed", marks=pytest.mark.slow),
        pytest.param(
            PYRO,
            lambda: torch.Generator().manual_seed(3),
            lambda guides: (model, mean_field),
            id="Pyro, a generator",
            marks=pytest.mark.slow,
        ),
        pytest.param(PYRO, GLOBAL, lambda guides: (continuous, guides.AutoNormal(continuous)), id="Pyro, autoguide"),
        pytest.param(PYRO, GLOBAL, lambda guides: (model, accepting), id="Pyro, a gradient that is no graph"),
        pytest.param(PYRO, GLOBAL, lambda guides: (model, branching), id="Pyro, replayed"),
        pytest.param(PYRO, GLOBAL, lambda guides: (model, dropping()), id="Pyro, dropout"),
    ],
)
def test_what_was_called_before_does_not_matter(engine, key, make):
    known, *others = (called(engine, make(engine.autoguide), key, order) for order in ORDERS)
    for found in others:
        assert all(same(known[verb], found[verb]) for verb in found)


def test_raw_and_typed_keys_are_the_same():
    typed, raw = (called(NUMPYRO, (model, mean_field), key, ORDERS[0]) for key in (TYPED, RAW))
    assert all(same(typed[verb], raw[verb]) for verb in typed)


@pytest.mark.parametrize("kind", ["typed", "raw"])
def test_keys_of_another_generator(kind):
    """E z^2 = m^2 + 1 at m = 1/2, by draws of XLA's own generator; the variances of z^2 and of 2 z are 3 and 4."""
    with jax.default_prng_impl("rbg"):
        key = jax.random.key(0) if kind == "typed" else jax.random.PRNGKey(0)
        bound = ppvi.numpyro.objective(
            lambda p, q: ppvi.replicate(20_000, lambda: q.simulate()["z"] ** 2).mean(), continuous, normal
        )
        value, grads = bound.value_and_grad(key, bound.init(key, Y), Y)
    assert abs(value - 1.25) < 5 * (4.0 / 20_000) ** 0.5
    assert abs(grads["m"] - 1.0) < 5 * (4.0 / 20_000) ** 0.5


def normal(y):
    ppl.sample("z", dist.Normal(ppl.param("m", xp.array(0.5)), 1.0))
