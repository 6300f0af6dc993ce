"""Python branches on draws: a draw that is read or jumps is weighed by its score, the others go by their path."""

import contextlib
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from scipy.stats import norm
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import ppvi
import ppvi.pyro as vi
from ppvi.objective import estimator_of

REAL = torch.nn.Linear(1, 1)
REAL.requires_grad_(False)
REAL.weight.fill_(2.0)
REAL.bias.fill_(-1.0)


def returned(p, q):
    return q.simulate().returned


def param(name, value, **options):
    return pyro.param(name, torch.tensor(value), **options)


def counted(z):
    n = 0
    while z > 0.5 and n < 1:
        n += 1
    return n


READS = {
    "if": lambda z: 1 if z > 0.5 else 0,
    "while": counted,
    "bool": lambda z: int(bool(z > 0.5)),
    "item": lambda z: int(z.item() > 0.5),
    "float": lambda z: int(float(z) > 0.5),
    "int": lambda z: int(int(z + 100.5) > 100),
    "item of a comparison": lambda z: int((z > 0.5).item()),
    "index of a list": lambda z: [0, 1][(z > 0.5).long()],
    "range": lambda z: len(range((z > 0.5).long())),
    "tolist": lambda z: int(z.tolist() > 0.5),
    "numpy": lambda z: int(z.detach().numpy() > 0.5),
    "asarray": lambda z: int(np.asarray(z.detach()) > 0.5),
    "tensor of a list": lambda z: torch.tensor([z, 1.0])[0] > 0.5,
    "entries of a mask": lambda z: len(z[None][z[None] > 0.5]),
    "nonzero": lambda z: len((z[None] > 0.5).nonzero()),
    "max": lambda z: int(max(z, torch.tensor(0.5)) is z),
    "of what is computed": lambda z: int(2 * z > 1),
    "of a network": lambda z: int(REAL(z[None]).sum() > 0),
    "through memory": lambda z: int(torch.zeros(2).index_put_((torch.tensor([1]),), z[None])[1:].sum() > 0.5),
    "of a copy": lambda z: int(z.detach().clone() > 0.5),
}
JUMPS = {
    "where": lambda z: torch.where(z > 0.5, 1.0, 0.0),
    "comparison": lambda z: (z >= 0.5).float(),
    "other than": lambda z: z.clamp(min=0.5) != 0.5,
    "sign": lambda z: (z - 0.5).sign(),
    "round": lambda z: z.clamp(0.0, 0.99).round(),
    "floor": lambda z: (z + 0.5).floor(),
    "ceil, in place": lambda z: (z - 0.5).ceil_(),
    "trunc": lambda z: (z + 0.5).trunc(),
    "quotient": lambda z: torch.div(z, 0.5, rounding_mode="floor"),
    "remainder": lambda z: z % 0.5 - z,
    "int": lambda z: (z + 0.5).long(),
    "bool": lambda z: (z - 0.5).relu().bool(),
    "argmax": lambda z: torch.stack([torch.tensor(0.5), z]).argmax(),
    "order": lambda z: torch.tensor([0.0, 1.0])[torch.stack([torch.tensor(0.5), z]).sort()[1][1]],
    "bucket": lambda z: torch.bucketize(z, torch.tensor([0.5])),
    "mask": lambda z: torch.ones(1).masked_fill(z[None] <= 0.5, 0.0)[0],
    "data": lambda z: dist.Categorical(logits=torch.tensor([0.0, 1.0])).log_prob((z > 0.5).long()),
    "support": lambda z: dist.Uniform(z - 9.0, z + 9.0, validate_args=False).log_prob(torch.tensor(0.0)),
}


def strategies_of(bound):
    return {site.name: site.strategy for site in bound.explain(bound.init(0)).sites}


@pytest.mark.parametrize("read", (READS | JUMPS).values(), ids=READS | JUMPS)
def test_the_site_that_is_read_goes_by_its_score(read):
    """The other one by its path: its slope is 1, and so would be that of the first by its path."""

    def guide():
        going = bool(pyro.sample("b", dist.Bernoulli(0.5)))
        z = pyro.sample("z", dist.Normal(param("l", 0.1), 1.0))
        y = pyro.sample("y", dist.Normal(param("k", 0.2), 1.0))
        return 2.0 * read(z) + z + y + going

    bound = vi.objective(returned, lambda: None, guide)
    grads = [bound.value_and_grad(seed, bound.init(0))[1] for seed in range(3)]
    assert all(abs(float(grad["k"]) - 1) < 1e-6 < abs(float(grad["l"]) - 1) for grad in grads)
    _, z, y = bound.explain(bound.init(0)).sites
    assert (z.strategy, y.strategy) == ("LeaveOneOut()", "Reparam()")
    assert "test_reads.py" in z.reason


class Straight(torch.autograd.Function):
    """A rounding, with the derivative of the identity."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, slope):
        return slope


CONTINUOUS = {
    "greatest": lambda z: torch.stack([z, z**2]).max(0).values,
    "order": lambda z: torch.stack([z, z**2]).sort().values[0],
    "clamp": lambda z: z.clamp(0.0, 1.0) + z.relu() + z.abs(),
    "shape only": lambda z: torch.where(torch.ones_like(z, dtype=torch.bool), z, 0.0),
    "not used": lambda z: ((z > 0.5), z)[1],
    "inside of a density": lambda z: pyro.sample("f", dist.HalfCauchy(1.0), obs=z.exp()),
    "a factor": lambda z: torch.linalg.cholesky((1 + z**2) * torch.eye(2)).sum(),
    "a derivative of its own": Straight.apply,
}


@pytest.mark.parametrize("function", CONTINUOUS.values(), ids=CONTINUOUS)
def test_what_does_not_jump_goes_by_its_path(function):
    def guide():
        going = bool(pyro.sample("b", dist.Bernoulli(0.5)))
        return function(pyro.sample("z", dist.Normal(param("l", 0.1), 1.0))) + going

    bound = vi.objective(lambda p, q: p.simulate().returned + p.simulate().log_density, guide, lambda: None)
    assert strategies_of(bound)["z"] == "Reparam()"


class Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Dispatched(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("context", [Functions, Dispatched, contextlib.nullcontext])
def test_a_draw_inside_of_a_context_is_followed_outside(context):
    def guide():
        with context():
            z = pyro.sample("z", dist.Normal(param("l", 0.1), 1.0))
        return 2.0 if z > 0.5 else 0.0

    bound = vi.objective(returned, lambda: None, guide)
    slopes = torch.stack([bound.value_and_grad(seed, bound.init(0))[1]["l"] for seed in range(60)])
    assert abs(slopes.mean() - 2 * norm.pdf(0.4)) < 5 * slopes.std() / 60**0.5


def read_of_the_later():
    z = pyro.sample("z", dist.Normal(param("l", 0.1), 1.0))
    x = pyro.sample("x", dist.Normal(z, 1.0))
    return (2.0 if x > 0.5 else 0.0) + z


def read_of_the_earlier():
    z = pyro.sample("z", dist.Normal(param("l", 0.1), 1.0))
    x = pyro.sample("x", dist.Normal(z, 1.0))
    return x if z > 0.5 else 0 * x


def transformed():
    z = pyro.sample("z", dist.LogNormal(param("l", 0.1), 1.0))
    return 2.0 * (z > 0.5).item() + z.log()


def sum_over_a_plate():
    with pyro.plate("n", 3):
        z = pyro.sample("z", dist.Normal(param("l", 0.1), 1.0))
    return 2.0 * float(z.sum() > 0.5)


def jump_in_a_tensor():
    loc = param("l", 0.1)
    if pyro.sample("b", dist.Bernoulli(0.5)):
        return torch.tensor(0.0)
    z = pyro.sample("z", dist.Normal(loc, 1.0))
    return 2 * torch.where(z > 0.5, z + 1.0, z)


def read_in_one_alternative():
    z = pyro.sample("z", dist.Normal(param("l", 0.1), 1.0))
    k = pyro.sample("k", dist.Bernoulli(param("q", 0.3)))
    return (torch.tensor(2.0) if z > 0.5 else torch.tensor(0.0)) if k else z


def a_read_after_a_read():
    z = pyro.sample("z", dist.Normal(param("l", 0.1), 1.0))
    if z > 0.5:
        return 1.0 + 2.0 * float(pyro.sample("y", dist.Normal(param("m", 0.2), 1.0)) > 0)
    return 0.0


PROGRAMS = [
    (read_of_the_later, {}, {"l": 2 * norm.pdf(0.4 / 2**0.5) / 2**0.5 + 1}),
    (read_of_the_earlier, {}, {"l": 0.5 * norm.pdf(0.4) + norm.sf(0.4)}),
    (transformed, {}, {"l": 2 * norm.pdf(math.log(0.5) - 0.1) + 1}),
    (jump_in_a_tensor, {}, {"l": norm.pdf(0.4) + 1}),
    (sum_over_a_plate, {}, {"l": 2 * norm.pdf(0.2 / 3**0.5) * 3**0.5}),
    (read_in_one_alternative, {}, {"l": 0.6 * norm.pdf(0.4) + 0.7, "q": 2 * norm.sf(0.4) - 0.1}),
    pytest.param(
        read_in_one_alternative,
        {"k": ppvi.Enumerate()},
        {"l": 0.6 * norm.pdf(0.4) + 0.7, "q": 2 * norm.sf(0.4) - 0.1},
        marks=pytest.mark.slow,
    ),
    (
        a_read_after_a_read,
        {},
        {"l": norm.pdf(0.4) * (1 + 2 * norm.sf(-0.2)), "m": 2 * norm.sf(0.4) * norm.pdf(0.2)},
    ),
]


@pytest.mark.parametrize(
    ("guide", "strategies", "want"),
    PROGRAMS,
    ids=lambda x: getattr(x, "__name__", "enumerated" if isinstance(x, dict) and "k" in x else ""),
)
def test_slopes_of_programs_that_read(guide, strategies, want):
    """By the Normal's distribution function."""
    bound = vi.objective(returned, lambda: None, guide, strategies=strategies)
    params = bound.init(0) | {"m": torch.tensor(0.2)} if "m" in want else bound.init(0)
    grads = [bound.value_and_grad(seed, params)[1] for seed in range(100)]
    for name, exact in want.items():
        slopes = torch.stack([grad[name] for grad in grads])
        assert abs(slopes.mean() - exact) < 5 * slopes.std() / 100**0.5, name


def model():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("f", dist.Bernoulli(0.9 if z > 0.5 else 0.1), obs=torch.tensor(1.0))


@pytest.mark.parametrize(
    ("autoguide", "read"),
    [(AutoNormal, "z_unconstrained"), (AutoDiagonalNormal, "_AutoDiagonalNormal_latent"), (AutoDelta, None)],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_what_an_autoguide_draws_is_read_through_points(autoguide, read):
    """A point is no draw: its score says nothing, and what it is a function of is what is read."""
    chosen = strategies_of(vi.objective(ppvi.objectives.elbo, model, autoguide(model)))
    assert {name for name, strategy in chosen.items() if strategy == "LeaveOneOut()"} == ({read} if read else set())


def test_reparam_by_name_is_suspect():
    def guide():
        z = pyro.sample("z", dist.Normal(param("l", 0.1), 1.0))
        return 2.0 if z > 0.5 else 0.0

    bound = vi.objective(returned, lambda: None, guide, strategies={"z": ppvi.Reparam()})
    params = bound.init(0)
    assert "biased if the objective jumps where it is read" in " ".join(str(bound.explain(params)).split())
    [jump] = [finding for finding in bound.prove(params).findings if finding.rule == "jump"]
    assert jump.subject == "site 'z'"
    assert "test_reads.py" in jump.where


@pytest.mark.parametrize("scale", [0.01, 1.0], ids=["inside", "outside"])
def test_draws_outside_of_a_support_are_found(scale):
    def halved():
        z = pyro.sample("z", dist.HalfNormal(1.0))
        if pyro.sample("b", dist.Bernoulli(0.5)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.5))

    def guide():
        pyro.sample("z", dist.Normal(param("l", 0.5), scale))
        pyro.sample("b", dist.Bernoulli(0.5))

    bound = vi.objective(ppvi.objectives.iwelbo(2), halved, guide)
    found = [finding for finding in bound.prove(bound.init(0)).findings if finding.rule == "support"]
    assert [(finding.subject, finding.operation) for finding in found] == [("site 'z'", "HalfNormal.log_prob")] * (
        scale == 1
    )


def test_formulas_for_paths_refuse_what_is_read():
    def guide():
        pyro.sample("z", dist.Normal(param("l", 0.1), 1.0))

    bound = vi.objective(ppvi.objectives.dreg(2), model, guide)
    with pytest.raises(ppvi.StrategyError, match=r"site 'z' .*Python reads, or the program"):
        bound.value_and_grad(0, bound.init(0))


@pytest.mark.slow
def test_gradients_of_replayed_programs_are_measured():
    """Right by the default, and biased by the path, which leaves the jump out."""

    def guide():
        z = pyro.sample("z", dist.Normal(param("l", 0.1), 1.0))
        return (z + 1) ** 2 + (6.0 if z > 0.5 else 0.0)

    found = []
    for strategies in ({}, {"z": ppvi.Reparam()}):
        bound = vi.objective(returned, lambda: None, guide, strategies=strategies)
        report = bound.check(0, bound.init(0), budget=ppvi.Budget(300.0, 300), progress=False)
        found.append(report.measurements)
    assert all(abs(m.bias) < m.visible for m in found[0])
    assert all(abs(m.bias) > m.visible for m in found[1])


def test_checks_of_replayed_programs_say_what_they_are():
    bound = vi.objective(ppvi.objectives.elbo, model, AutoNormal(model))
    report = bound.check(0, bound.init(0), budget=ppvi.Budget(1.0, 8), progress=False)
    assert report.measurements
    assert "nothing is proved" in " ".join(str(report).split())


KEPT = {
    "item": lambda t: t.item(),
    "list": lambda t: torch.tensor([t, 1.0])[0],
    "as_tensor of a list": lambda t: torch.as_tensor([t, 1.0])[0],
    "new_tensor of a list": lambda t: t.new_tensor([t, 1.0])[0],
    "full": lambda t: torch.full((2,), t)[0],
    "numpy": lambda t: torch.from_numpy(t.numpy()),
    "tensor": torch.tensor,
    "as_tensor": torch.as_tensor,
    "asarray": torch.asarray,
}
LIVE = ("tensor", "as_tensor", "asarray")


@pytest.mark.parametrize("read", KEPT)
def test_what_is_read_of_a_tensor_outside_is_looked_at_again(read):
    """But not where a tensor is made of it, which the graph does by itself."""
    kept = torch.tensor(2.0)

    def guide():
        return KEPT[read](kept) * pyro.sample("z", dist.Normal(param("l", 0.1), 1.0))

    bound = vi.objective(returned, lambda: None, guide)
    params = bound.init(0)
    for number in (2.0, 3.0):
        kept.fill_(number)
        assert float(bound.value_and_grad(0, params)[1]["l"]) == number
    assert bool(estimator_of(bound)._prepared(params, (), {})[0].numbers) == (read not in LIVE)


def test_a_nan_that_is_read_outside_is_what_it_was():
    kept = torch.tensor([float("nan"), 2.0])

    def guide():
        return np.nansum(kept.numpy()) * pyro.sample("z", dist.Normal(param("l", 0.1), 1.0))

    bound = vi.objective(returned, lambda: None, guide)
    (first, _), (second, _) = (estimator_of(bound)._prepared(bound.init(0), (), {}) for _ in range(2))
    assert first is second
    assert first.numbers


PICKED = {
    "index": lambda x: x[x > 0],
    "a row of it": lambda x: torch.stack([x, 2 * x], 1)[x > 0, 0],
    "several masks": lambda x: torch.stack([x, 2 * x])[torch.tensor([True, False]), x > 0],
    "a mask and indices": lambda x: torch.stack([x, 2 * x])[torch.tensor([[0], [0], [0]]), x > 0][0],
    "masked_select": lambda x: torch.masked_select(x, x > 0),
    "masked_select by broadcasting": lambda x: torch.masked_select(torch.stack([x, x]), x > 0),
    "nonzero": lambda x: x[(x > 0).nonzero()[:, 0]],
    "unique": lambda x: torch.unique(x.relu())[1:],
    "unique truths": lambda x: x[x > 0] + torch.unique(x > 0).sum() - 1,
}


@pytest.mark.parametrize("pick", PICKED.values(), ids=PICKED)
def test_how_many_entries_are_picked_is_no_constant(pick):
    """The slope is their mean; where there are others than when it was staged, that is said."""

    def guide(x):
        picked = pick(x)
        return pyro.sample("z", dist.Normal(param("l", 0.1), 1.0)) * picked.sum() / len(picked)

    bound = vi.objective(returned, lambda x: None, guide)
    for x, mean in ((torch.tensor([1.0, -1.0, 2.0]), 1.5), (torch.tensor([-1.0, 4.0, 6.0]), 5.0)):
        assert float(bound.value_and_grad(0, {"l": torch.tensor(0.1)}, x)[1]["l"]) == mean
    with pytest.raises(ppvi.ProgramError, match=r"entries are picked at .*test_reads.py:\d+.*int\(mask.sum\(\)\)"):
        bound.value_and_grad(0, {"l": torch.tensor(0.1)}, torch.full((3,), 2.0))
