"""Objectives on Pyro: the same numbers as on NumPyro, and as by hand."""

import shutil
import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ppvi
import ppvi.pyro as vi
from ppvi import objectives
from ppvi.objective import estimator_of
from ppvi.strategies import Quadrature, SumAndSample

WEIGHT = torch.nn.Parameter(torch.ones(()))
DATA = [1.2, -0.7, 2.0, 0.1]


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# Draws ------------------------------------------------------------------------------------------------------------------


def means(bound, params, *args, n=500):
    draws = [bound.value_and_grad(seed, params, *args)[1] for seed in range(n)]
    stacks = {name: torch.stack([draw[name] for draw in draws]) for name in params}
    return {name: (x.mean(0), x.std(0) / n**0.5) for name, x in stacks.items()}


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


def label_and_point():
    p, m = pyro.param("p", torch.tensor(0.3)), pyro.param("m", torch.tensor(0.7))
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Bernoulli(p))
        pyro.sample("x", dist.Normal(m * z, 1.0))
        pyro.sample("w", dist.Normal(m, 1.0))


@pytest.mark.parametrize(
    "strategy",
    [
        ppvi.Enumerate(),
        ppvi.LeaveOneOut(2),
        *(pytest.param(s, marks=pytest.mark.slow) for s in (ppvi.Enumerate(sequential=True), SumAndSample(1))),
    ],
    ids=str,
)
def test_a_path_goes_through_draws_in_the_runs_of_a_strategy(strategy):
    """E sum (x^2 + x w + z w) = 3 [m^2 p + 1 + m^2 p + m p]: of x the runs draw one each, and w is the same in all of them."""

    def total(p, q):
        found = q.simulate()
        x, w, z = (found[name] for name in "xwz")
        return (x**2 + x * w + z * w).sum()

    bound = vi.objective(total, lambda: None, label_and_point, strategies={"z": strategy})
    p, m = 0.3, 0.7
    truth = {"p": 3 * (2 * m**2 + m), "m": 3 * (4 * m * p + p)}
    for name, (mean, error) in means(bound, bound.init(0), n=800).items():
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


TABLE = torch.arange(24, dtype=torch.float64).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "read",
    [
        lambda i: TABLE[i], lambda i: TABLE[i, 1], lambda i: TABLE[:, i], lambda i: TABLE[..., i], lambda i: TABLE[i, None, ..., i],
        lambda i: TABLE[-1 - i, torch.tensor([0, 2])], lambda i: TABLE[1, :, i], lambda i: TABLE[i][i][i],
    ],
    ids=range(8),
)  # fmt: skip
def test_tables_are_read_at_a_draw(read):
    """At a place of no axes, which PyTorch by itself would read out as a number; on the graph, and in every run at its own."""

    def guide():
        pyro.sample("b", dist.Bernoulli(logits=pyro.param("a", torch.tensor(0.4))))

    def program(p, q):
        return ppvi.replicate(3, lambda: read(q.simulate()["b"].long()).sum()).mean()

    bound = vi.objective(program, lambda: None, guide, strategies={"b": ppvi.Enumerate()})
    params = bound.init(0)
    assert str(bound.explain(params)).startswith("engine: staged")
    zero, one = (read(torch.tensor(i)).sum() for i in (0, 1))
    probability = torch.sigmoid(params["a"])
    value, gradient = bound.value_and_grad(0, params)
    torch.testing.assert_close(value, probability * one + (1 - probability) * zero)
    torch.testing.assert_close(gradient["a"], probability * (1 - probability) * (one - zero))


def test_random_operations_of_the_same_shape_stay_apart():
    """A graph computes once what is computed from equal operands, which a random number is not."""

    def guide():
        pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0))

    def program(p, q):
        z = q.simulate()["z"]
        one, other = (z.new_empty(5).uniform_() for _ in range(2))
        masks = [torch.nn.functional.dropout(torch.ones(5), 0.5, True) for _ in range(2)]
        return z + ((one - other) ** 2).sum() + ((masks[0] - masks[1]) ** 2).sum()

    bound = vi.objective(program, lambda: None, guide, strategies={"z": ppvi.Reparam()})
    params = {"m": torch.tensor(0.0)}
    values = torch.stack([bound.value_and_grad(seed, params)[0] for seed in range(2000)])
    # 5 E(U - V)^2 + 5 E(M - N)^2 with uniform U and V, and M and N 0 or 2.
    assert abs(values.mean() - (5 / 6 + 10)) < 5 * values.std() / 2000**0.5


class Exponentials(TorchDispatchMode):
    """Counts exponentials of long vectors."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.exp.default and args[0].numel() == 1000
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("strategy", "again"), [(ppvi.Enumerate(), 0), (ppvi.Enumerate(sequential=True), 64)], ids=str)
def test_sequential_runs_are_forgotten_and_run_again(strategy, again):
    def guide():
        with pyro.plate("lanes", 6):
            pyro.sample("b", dist.Bernoulli(logits=pyro.param("a", torch.linspace(-1, 1, 6))))

    def program(p, q):
        phi = pyro.param("phi", torch.tensor(0.8))
        return torch.exp(phi * q.simulate()["b"].sum() * torch.ones(1000)).mean()

    def exact(a, phi):
        return torch.prod(1 + torch.sigmoid(a) * torch.expm1(phi))

    bound = vi.objective(program, lambda: None, guide, strategies={"b": strategy})
    leaves = {name: value.clone().requires_grad_() for name, value in bound.init(0).items()}
    value = estimator_of(bound).surrogate_in(None, 0, leaves, (), {})
    with Exponentials() as counted:
        gradients = torch.autograd.grad(value, [leaves["a"], leaves["phi"]])
    assert counted.count == again
    slopes, truth = torch.func.grad_and_value(exact, (0, 1))(leaves["a"].detach(), leaves["phi"].detach())
    torch.testing.assert_close((value.detach(), *gradients), (truth, *slopes))


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


def test_an_objective_without_parameters_has_its_value():
    bound = vi.objective(
        lambda p, q: p.log_density({"x": 2.0}), lambda: pyro.sample("x", dist.Normal(0.0, 1.0)), lambda: None
    )
    value, grads = bound.value_and_grad(0, {})
    assert (value, grads) == (dist.Normal(0.0, 1.0).log_prob(torch.tensor(2.0)), {})


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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("strategy", [ppvi.Enumerate(), ppvi.Reinforce(), ppvi.LeaveOneOut(2)], ids=str)
def test_compiled(strategy):
    """PyTorch's compiler draws other numbers for a seed, but the same ones each time."""
    plain, compiled = (
        vi.objective(elbo_of_label, lambda: None, label_and_point, strategies={"z": strategy}, compile=compile)
        for compile in (False, True)
    )
    params = plain.init(0)
    (one, _), (again, _), (other, _) = (compiled.value_and_grad(seed, params) for seed in (0, 0, 1))
    assert one == again != other
    truth = means(plain, params, n=4000)
    for name, (mean, error) in means(compiled, params, n=4000).items():
        assert abs(mean - truth[name][0]) < 5 * (error + truth[name][1]), name


def elbo_of_label(p, q):
    z = q.simulate()
    return torch.sum(torch.sin(z["x"]) * (1 + z["z"]) * z["w"]) - z.log_density


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
