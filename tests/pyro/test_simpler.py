"""Graphs with fewer operations give the same numbers, and steps of a fit the same slopes."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints, transform_to

import ppvi
import ppvi.pyro as vi
from ppvi.objectives import elbo
from ppvi.pyro import _gradient, _quick as quick, _simpler as simpler, _unconstrained as unconstrained
from ppvi.pyro._graphs import name_of, trace
from ppvi.pyro._products import split_products

aten = torch.ops.aten
A, B, C = (torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1, 2))
S = torch.tensor(0.7)


def repeated(s, b):
    return aten.expand(aten.unsqueeze(aten.expand(aten.unsqueeze(s, 0), [3]), -1), [3, 4])


SIMPLER = {
    "negated twice": (lambda a, b: aten.neg(-a) * b, 1),
    "negated product": (lambda a, b: -(-a * b), 1),
    "negated quotient": (lambda a, b: -(a / -b), 1),
    "added negative": (lambda a, b: a + -b, 1),
    "added to a negative": (lambda a, b: -a + b, 1),
    "subtracted negative": (lambda a, b: a - -b, 1),
    "powers": (lambda a, b: a**1.0 * b, 1),
    "nothing added": (lambda a, b: (a + 0) * 1 / 1 - 0 + b, 1),
    "transposed": (lambda a, b: aten.t(aten.t(a)) * b, 1),
    "sum with its axes": (lambda a, b: aten.sum(a * b, [0], True).view(4), 2),
    "sum of negatives": (lambda a, b: (-(a * b)).sum([1]), 3),
    "repeated": (lambda a, b: repeated(a.sum(), b) * b, 2),
    "negated where repeated": (lambda a, b: -repeated(a.sum(), b) / b, 4),
}


@pytest.mark.parametrize("name", SIMPLER)
def test_graph_is_smaller_and_the_same(name):
    function, size = SIMPLER[name]
    traced = trace(function, A, B)
    simpler.simplify(traced)
    called = [node for node in traced.graph.nodes if name_of(node)]
    assert len(called) <= size
    assert torch.equal(quick.quick(traced)(A, B), function(A, B))


@pytest.mark.parametrize("shape", [(), (4,), (3, 1)])
def test_dtypes_are_those_of_repeated_operands(shape):
    """A number without axes decides nothing about a dtype, and once repeated it does."""
    few, half = torch.ones(shape), torch.ones(3, 4, dtype=torch.float16)

    def function(few, half):
        return aten.expand(few, [3, 4]) * half

    traced = trace(function, few, half)
    simpler.simplify(traced)
    assert quick.quick(traced)(few, half).dtype == function(few, half).dtype == torch.float32


def test_what_is_returned_is_an_array_of_its_own():
    def function(a, b):
        return a * 1, aten.neg(-b), aten.t(aten.t(a @ b.t())), -repeated(S, b)

    traced = trace(function, A, B)
    simpler.simplify(traced)
    found = quick.quick(traced)(A, B)
    assert all(torch.equal(x, y) for x, y in zip(found, function(A, B), strict=True))
    assert len({x.untyped_storage().data_ptr() for x in (A, B, *found)}) == 2 + len(found)
    assert all(x.is_contiguous() for x in found)


def test_functions_are_those_of_aten():
    for overload, function in quick.FUNCTIONS.items():
        name, kind = overload.split(".")
        if hasattr(aten, name) and kind in getattr(aten, name).overloads():
            assert function.__name__ == name
    x = A.abs() + 0.1
    for name in quick._ENTRIES.split():
        if not name.startswith("bitwise"):
            found, expected = getattr(torch, name)(x), getattr(aten, name).default(x)
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(torch.nn.functional.softplus(x, 1.0, 20.0), aten.softplus.default(x, 1.0, 20.0))


@pytest.mark.parametrize("transposed", [False, True])
def test_rows_that_repeat_are_multiplied_once(transposed):
    """Value and gradient of f([x, z] W), where x repeats along z's values."""
    x, w = torch.randn(5, 100), torch.randn(*((7, 103) if transposed else (103, 7)))
    z = torch.eye(3)[:, None].expand(3, 5, 3)

    def function(x, w):
        leaf = w.detach().requires_grad_()
        rows = torch.cat([x.expand(3, 5, 100), z], -1).view(15, 103)
        value = (rows @ (leaf.t() if transposed else leaf)).tanh().sum()
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    traced = trace(function, x, w)
    products = [node for node in traced.graph.nodes if name_of(node) == "mm"]
    split_products(traced)
    simpler.simplify(traced)
    again = [node for node in traced.graph.nodes if name_of(node) in ("mm", "addmm")]
    assert (len(products), len(again)) == (2, 4)
    assert 5 in [len(node.meta["val"]) for node in again]
    for found, expected in zip(quick.quick(traced)(x, w), function(x, w), strict=True):
        torch.testing.assert_close(found, expected)


def test_rows_that_are_few_are_left_alone():
    x, z, w = torch.randn(5, 4), torch.randn(3, 5, 3), torch.randn(7, 2)
    traced = trace(lambda x, z, w: torch.cat([x.expand(3, 5, 4), z], -1).view(15, 7) @ w, x, z, w)
    split_products(traced)
    assert [name_of(node) for node in traced.graph.nodes if name_of(node) == "mm"] == ["mm"]


CONSTRAINTS = [
    constraints.real,
    constraints.positive,
    dist.constraints.softplus_positive,
    constraints.greater_than(2.0),
    constraints.less_than(1.0),
    constraints.interval(-1.0, 3.0),
    constraints.unit_interval,
    constraints.simplex,
    constraints.lower_cholesky,
]


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=str)
def test_slopes_in_unconstrained_space(constraint):
    generator = torch.Generator().manual_seed(0)
    leaf = torch.randn(3, 3, generator=generator)
    space = unconstrained.Unconstrained({"x": leaf}, {"x": transform_to(constraint)})
    values, steps = space.values()
    slope = torch.randn(values["x"].shape, generator=generator)
    found = unconstrained.pulled({"x": slope}, steps)["x"]
    again = leaf.clone().requires_grad_()
    value = transform_to(constraint)(again)
    expected = slope if value is again else torch.autograd.grad(value, again, slope)[0]
    assert torch.equal(values["x"], value.detach())
    assert torch.equal(found, expected)


def test_enumerated_labels_of_a_network():
    """A gradient whose rows repeat is that of the sum over labels by hand."""
    torch.manual_seed(0)
    x, w = torch.randn(6, 80), torch.randn(83, 2)

    def guide(x):
        with pyro.plate("data", 6):
            pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(3)))

    def model(x):
        weights = pyro.param("w", lambda: w.clone())
        with pyro.plate("data", 6):
            y = pyro.sample("y", dist.OneHotCategorical(logits=torch.zeros(3)))
            rows = torch.cat([x.expand(*torch.broadcast_shapes(x.shape[:-1], y.shape[:-1]), -1), y], -1)
            pyro.sample("x", dist.Normal((rows @ weights).sum(-1).tanh(), 1.0), obs=torch.ones(6))

    pyro.clear_param_store()
    bound = vi.objective(elbo, model, guide, strategies={"y": ppvi.Enumerate()})
    params = bound.init(0, x)
    value, grads = bound.value_and_grad(0, params, x)
    leaf = params["w"].detach().clone().requires_grad_()
    rows = torch.cat([x.expand(3, 6, 80), torch.eye(3)[:, None].expand(3, 6, 3)], -1)
    expected = dist.Normal((rows @ leaf).sum(-1).tanh(), 1.0).log_prob(torch.ones(6)).mean(0).sum()
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(grads["w"], torch.autograd.grad(expected, leaf)[0])


# Programs on which a rule was wrong ------------------------------------------------------------------------------------


class Overwritten(dist.Normal):
    """A sampler that writes into what it has negated before."""

    def rsample(self, sample_shape=()):
        noise = torch.randn(3) + self.loc
        negative = -noise
        noise.add_(5.0)
        return self.loc + negative + noise * 0.1


IMAGE = torch.arange(12, dtype=torch.uint8).reshape(3, 4)
WIDE = torch.linspace(-1.0, 1.0, 500).reshape(5, 100)


def rows_of(last):
    return torch.cat([WIDE.expand(3, 5, 100), last[:, None].expand(3, 5, 3)], -1)


SHARP = {
    "a sampler that overwrites": lambda z, w: pyro.sample("v", Overwritten(w, 1.0).to_event(1)).sum(),
    "scaled product": lambda z, w: torch.addmm(w, rows_of(torch.eye(3)).reshape(15, 103), M, beta=0.5, alpha=2.0),
    "a bias for each row": lambda z, w: torch.addmm(
        torch.arange(15.0)[:, None] * z, rows_of(torch.eye(3)).reshape(15, 103), M
    ),
    "whole numbers beside others": lambda z, w: (z * rows_of(torch.eye(3, dtype=torch.int64))) @ M,
    "bools beside others": lambda z, w: rows_of(torch.eye(3) > 0) @ (M * z),
    "a bool and a negative": lambda z, w: (w > 0) + -(z * w),
    "a negative and a bool": lambda z, w: -(z * w) + (z > 0),
    "unsigned numbers": lambda z, w: z * (1.0 * IMAGE.float() + -IMAGE),
    "their sum": lambda z, w: z * (-IMAGE).sum(),
    "a single number in more axes": lambda z, w: z.reshape(1, 1).expand(-1, 4) * 2.0,
    "and a few of it": lambda z, w: z.view(1).expand(3, -1) * w,
    "a sum over no axis": lambda z, w: z.exp().sum(-1, keepdim=True).view(1),
}
M = torch.linspace(-0.5, 0.5, 309).reshape(103, 3)


@pytest.mark.parametrize("name", SHARP)
def test_rules_are_not_taken_where_they_do_not_hold(name, monkeypatch):
    """Values and slopes are those of the graph as it was traced."""

    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))
        if name == "a sampler that overwrites":
            pyro.sample("v", dist.Normal(0.0, 1.0).expand([3]).to_event(1))

    def guide():
        z = pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.3)), 1.0))
        w = pyro.param("w", torch.tensor([0.2, -0.4, 0.7]))
        pyro.factor("f", SHARP[name](z, w).sum(), has_rsample=True)

    found = []
    for rules in (simpler.simplify, lambda traced: None):
        monkeypatch.setattr(_gradient, "simplify", rules)
        pyro.clear_param_store()
        bound = vi.objective(elbo, model, guide)
        found.append(bound.value_and_grad(5, bound.init(0)))
    (value, slopes), (expected, others) = found
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-4)
    for key in others:
        torch.testing.assert_close(slopes[key], others[key], rtol=1e-4, atol=1e-4)
