"""Objectives on Pyro: the same numbers as on NumPyro, and as by hand."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as jdist
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppvi
import ppvi.numpyro as on_jax
import ppvi.pyro as vi
from ppvi import objectives
from ppvi.strategies import ARM, DisARM, LocalExpectation, Quadrature, SumAndSample, UnorderedSet

WEIGHT = torch.nn.Parameter(torch.ones(()))
DATA = [1.2, -0.7, 2.0, 0.1]


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# Programs in both languages ---------------------------------------------------------------------------------------------


def chain(sample, param, d):
    def guide(x):
        a, b, c = (param(name, value) for name, value in (("a", 0.4), ("b", -0.3), ("c", 0.9)))
        z1 = sample("z1", d.Bernoulli(logits=a))
        sample("z2", d.Bernoulli(logits=b + c * z1))

    def model(x):
        z1 = sample("z1", d.Bernoulli(0.3))
        z2 = sample("z2", d.Bernoulli(0.6))
        sample("x", d.Normal(z1 + 2.0 * z2, 1.0), obs=x[0])

    return model, guide


def mixture(sample, param, d, plate, array, index):
    def model(x):
        means = param("loc", array([-1.0, 1.0]))
        with plate("data", len(x)):
            z = sample("z", d.Bernoulli(0.4))
            sample("x", d.Normal(means[index(z)], 1.0), obs=x)

    def guide(x):
        with plate("data", len(x)):
            sample("z", d.Bernoulli(logits=param("logits", array([-1.0, -0.3, 0.0, 1.0]))))

    return model, guide


def masked(sample, param, d, plate, array, scale, mask):
    def model(x):
        with plate("lanes", 3), scale(scale=2.0):
            z = sample("z", d.Categorical(probs=array([0.2, 0.5, 0.3])))
            with mask(mask=array([1.0, 0.0, 1.0]) > 0):
                sample("x", d.Normal(1.0 * z, 1.0), obs=x[:3])

    def guide(x):
        with plate("lanes", 3), scale(scale=2.0):
            sample(
                "z", d.Categorical(logits=param("logits", array([[0.1, 0.5, -0.2], [0.0, 0.0, 0.0], [1.0, -1.0, 0.3]])))
            )

    return model, guide


def of_jax(name):
    array = jnp.asarray
    return {
        "chain": lambda: chain(numpyro.sample, numpyro.param, jdist),
        "mixture": lambda: mixture(numpyro.sample, numpyro.param, jdist, numpyro.plate, array, lambda z: z),
        "masked": lambda: masked(
            numpyro.sample, numpyro.param, jdist, numpyro.plate, array, numpyro.handlers.scale, numpyro.handlers.mask
        ),
    }[name]()


def of_torch(name):
    def param(name, value):
        return pyro.param(name, torch.as_tensor(value))

    return {
        "chain": lambda: chain(pyro.sample, param, dist),
        "mixture": lambda: mixture(pyro.sample, param, dist, pyro.plate, torch.tensor, lambda z: z.long()),
        "masked": lambda: masked(
            pyro.sample, param, dist, pyro.plate, torch.tensor, pyro.poutine.scale, pyro.poutine.mask
        ),
    }[name]()


PROGRAMS = {
    "IWELBO(2)": objectives.iwelbo(2),
    "Renyi(0.5, 2)": objectives.renyi(0.5, 2),
    "exp": lambda p, q: (lambda z: ppvi.replicate(2, lambda: p.log_density(z) / 4).sum() - z.log_density / 3)(
        q.simulate()
    ),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ["chain", "mixture", "masked"])
def test_exact_gradients_are_those_of_numpyro(name, program):
    """Enumerated, so that what is left is arithmetic."""
    sites = {"chain": ("z1", "z2"), "mixture": ("z",), "masked": ("z",)}[name]
    strategies = dict.fromkeys(sites, ppvi.Enumerate())
    with jax.enable_x64(True):
        theirs = on_jax.objective(PROGRAMS[program], *of_jax(name), strategies=strategies)
        params = theirs.init(jax.random.key(0), jnp.asarray(DATA))
        value, gradient = theirs.value_and_grad(jax.random.key(1), params, jnp.asarray(DATA))
    ours = vi.objective(PROGRAMS[program], *of_torch(name), strategies=strategies)
    start = ours.init(0, torch.tensor(DATA))
    assert {k: v.tolist() for k, v in start.items()} == {k: np.asarray(v).tolist() for k, v in params.items()}
    found, slopes = ours.value_and_grad(1, start, torch.tensor(DATA))
    np.testing.assert_allclose(found, value, rtol=1e-10)
    for k, slope in gradient.items():
        np.testing.assert_allclose(slopes[k], slope, rtol=1e-10, atol=1e-10, err_msg=k)


# Strategies -------------------------------------------------------------------------------------------------------------

QUICK = [ppvi.Reinforce(), ppvi.LeaveOneOut(3)]
SLOW = [
    ppvi.Reinforce(0.7), DisARM(), ppvi.MeasureValued(), LocalExpectation(), ARM(), SumAndSample(), UnorderedSet(2),
    ppvi.Enumerate(sequential=True),
]  # fmt: skip
STRATEGIES = QUICK + [pytest.param(strategy, marks=pytest.mark.slow) for strategy in SLOW]


def means(bound, params, *args, n=500):
    draws = [bound.value_and_grad(seed, params, *args)[1] for seed in range(n)]
    stacks = {name: torch.stack([draw[name] for draw in draws]) for name in params}
    return {name: (x.mean(0), x.std(0) / n**0.5) for name, x in stacks.items()}


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_mean_gradient(strategy):
    """Of two coupled sites, to five standard errors: one false alarm in 10^5 such tests."""
    model, guide = of_torch("chain")
    x = torch.tensor(DATA)
    exact = vi.objective(objectives.elbo, model, guide, strategies={"z1": ppvi.Enumerate(), "z2": ppvi.Enumerate()})
    params = exact.init(0, x)
    truth = exact.value_and_grad(0, params, x)[1]
    bound = vi.objective(objectives.elbo, model, guide, strategies={"z1": strategy, "z2": ppvi.LeaveOneOut(2)})
    for name, (mean, error) in means(bound, params, x).items():
        assert abs(mean - truth[name]) < 5 * error + 1e-9, name


def beta():
    pyro.sample("x", dist.Beta(pyro.param("a", torch.tensor(1.5)), pyro.param("b", torch.tensor(0.8))))


@pytest.mark.parametrize("strategy", [ppvi.Reparam(), ppvi.Reinforce(), ppvi.MeasureValued(), Quadrature()], ids=str)
def test_implicit_derivative_of_a_beta(strategy):
    """E x = a / (a + b). The sampler's derivative is PyTorch's own and no ATen operation's."""
    bound = vi.objective(lambda p, q: q.simulate()["x"], lambda: None, beta, strategies={"x": strategy})
    params = bound.init(0)
    a, b = 1.5, 0.8
    truth = {"a": b / (a + b) ** 2, "b": -a / (a + b) ** 2}
    for name, (mean, error) in means(bound, params).items():
        assert abs(mean - truth[name]) < 5 * error + 1e-6, name


def test_runs_draw_afresh_and_agree_on_the_minibatch():
    x = torch.arange(10.0)

    def model(x):
        with pyro.plate("data", 10, subsample_size=3) as rows:
            pyro.sample("x", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0), obs=x[rows])

    def guide(x):
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def program(p, q):
        m = pyro.param("m", torch.tensor(0.0))
        draws = ppvi.replicate(4, lambda: q.simulate()["z"])
        sizes = ppvi.replicate(3, lambda: p.log_density({}))
        return ((draws - draws.mean()) ** 2).sum() + 1000 * ((sizes - sizes.mean()) ** 2).sum() + 0 * m

    bound = vi.objective(program, model, guide)
    params = {"m": torch.tensor(0.0)}
    values = torch.stack([bound.estimate(seed, params, x) for seed in range(200)])
    assert abs(values.mean() - 3.0) < 5 * values.std() / 200**0.5
    total = vi.objective(lambda p, q: p.log_density({}) + 0 * q.simulate()["z"], model, guide)
    slopes = torch.stack([total.value_and_grad(seed, params, x)[1]["m"] for seed in range(300)])
    assert abs(slopes.mean() - x.sum()) < 5 * slopes.std() / 300**0.5


def test_data_and_captured_tensors_are_no_constants():
    shift = torch.tensor(1.0)

    def guide(x):
        pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0))

    bound = vi.objective(
        lambda p, q: p.log_density(q.simulate()), lambda x: pyro.sample("z", dist.Normal(x + shift, 1.0)), guide
    )
    params = {"m": torch.tensor(0.0)}
    before = bound.estimate(0, params, torch.tensor(0.0))
    assert bound.estimate(0, params, torch.tensor(1.0)) != before
    shift += 1.0
    assert bound.estimate(0, params, torch.tensor(0.0)) == bound.estimate(0, params, torch.tensor(0.0)) != before


def test_seeds():
    bound = vi.objective(lambda p, q: q.simulate()["x"], lambda: None, beta)
    params = bound.init(0)
    state = torch.random.get_rng_state()
    assert bound.estimate(3, params) == bound.estimate(3, params) != bound.estimate(4, params)
    assert torch.equal(state, torch.random.get_rng_state())
    generator = torch.Generator().manual_seed(1)
    assert bound.estimate(generator, params) != bound.estimate(generator, params)


# Mistakes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "strategies", "message"),
    [
        (lambda p, q: q.simulate().log_density * torch.ones(2), {}, "one real number"),
        (objectives.elbo, {"y": ppvi.Reinforce()}, "names? the site 'y'"),
        (objectives.elbo, {"x": ppvi.Enumerate()}, "no finite support"),
        (lambda p, q: p.log_density({**q.simulate(), "w": 1.0}), {}, "no such latent site"),
        (lambda p, q: pyro.sample("u", dist.Normal(0.0, 1.0)), {}, "sampled by the objective itself"),
        (lambda p, q: q.simulate()["x"] * WEIGHT, {}, "a module with pyro.module"),
        (lambda p, q: torch.vmap(lambda i: q.simulate()["x"] + i)(torch.arange(3.0)).sum(), {}, "ppvi.replicate"),
    ],
)
def test_what_is_wrong_is_said(program, strategies, message):
    bound = vi.objective(program, lambda: pyro.sample("x", dist.Beta(1.0, 1.0)), beta, strategies=strategies)
    with pytest.raises(ppvi.PpviError, match=message):
        bound.value_and_grad(0, {"a": torch.tensor(1.5), "b": torch.tensor(0.8)})


@pytest.mark.parametrize("strategies", [{}, {"x": ppvi.Reinforce()}], ids=str)
def test_supports_that_move(strategies):
    def guide():
        pyro.sample("x", dist.Uniform(0.0, pyro.param("b", torch.tensor(2.0))))

    bound = vi.objective(lambda p, q: q.simulate()["x"], lambda: None, guide, strategies=strategies)
    with pytest.raises(ppvi.StrategyError, match="its support moves with a parameter"):
        bound.value_and_grad(0, {"b": torch.tensor(2.0)})


def test_without_torch():
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import ppvi.pyro"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'ppvi[pyro]'" in run.stderr
