"""A program's own `torch.autograd.Function` has the derivative that it states: the same numbers as with PyTorch's own operation.

Each function here is the double or the square of its argument, written in another way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

import ppvi.pyro as vi
from ppvi import EngineError, Enumerate, objectives


class Old(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * slope


class New(torch.autograd.Function):
    @staticmethod
    def forward(x, times=1.0):
        return x**2 * times

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.times = inputs[1]

    @staticmethod
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * ctx.times * slope, None


class Once(torch.autograd.Function):
    """With a number, a text and a tensor that is no input of a gradient."""

    @staticmethod
    def forward(ctx, how, x, power, shift):
        assert how == "power"
        ctx.save_for_backward(x, shift)
        return x**power + shift - shift

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        x, _ = ctx.saved_tensors
        return None, 2 * x * slope, None, None


class Several(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x**2, None, 3, x * y

    @staticmethod
    def backward(ctx, first, *others):
        x, y = ctx.saved_tensors
        return 2 * x * first + y * others[-1], x * others[-1]


class Numbers(torch.autograd.Function):
    """By NumPy, forwards and backwards."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.as_tensor(np.square(x.detach().numpy()))

    @staticmethod
    def backward(ctx, slope):
        return torch.as_tensor(2 * ctx.saved_tensors[0].detach().numpy()) * slope


def several(x: torch.Tensor) -> torch.Tensor:
    square, nothing, three, product = Several.apply(x, x)
    assert nothing is None
    assert three == 3
    return (square + product) / 2


def differentiated(x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = x.clone() if x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad((x**3 / 3).sum(), x, create_graph=True)[0]


def written_into(x: torch.Tensor) -> torch.Tensor:
    square = torch.zeros_like(x, memory_format=torch.contiguous_format).detach().clone()
    square[...] = x**2
    return square


SQUARES: dict[str, Callable[[torch.Tensor], Any]] = {
    "old style": Old.apply,
    "new style": lambda x: New.apply(x, 1.0),
    "new style, a default": New.apply,
    "once differentiable": lambda x: Once.apply("power", x, 2, torch.ones(())),
    "several results": several,
    "under a checkpoint": lambda x: checkpoint(Old.apply, x, use_reentrant=False),
    "a reentrant checkpoint": lambda x: checkpoint(torch.square, x, use_reentrant=True),
    "by NumPy": Numbers.apply,
    "by torch.func": torch.func.grad(lambda x: x**3 / 3),
    "by torch.autograd": differentiated,
    "in place": written_into,
}


class Scaled(PyroModule):
    """A module that gives a parameter of its own to the function."""

    def __init__(self, square: Callable[[torch.Tensor], Any]):
        super().__init__()
        self.loc = torch.nn.Parameter(torch.tensor(0.7))
        self.scale = PyroParam(torch.tensor(1.3), constraint=dist.constraints.positive)
        self.square = square

    def forward(self) -> None:
        pyro.sample("z", dist.Normal(self.square(self.loc), self.scale))


def in_model(square: Callable[[torch.Tensor], Any]) -> tuple[Any, Any]:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(square(z), 1.0), obs=torch.tensor([0.5, 1.0, 2.0]))

    def guide() -> None:
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.7)), pyro.param("scale", torch.tensor(1.3))))

    return model, guide


def in_guide(square: Callable[[torch.Tensor], Any]) -> tuple[Any, Any]:
    def guide() -> None:
        pyro.sample("z", dist.Normal(square(pyro.param("loc", torch.tensor(0.7))), pyro.param("s", torch.tensor(1.3))))

    return in_model(torch.square)[0], guide


def in_module(square: Callable[[torch.Tensor], Any]) -> tuple[Any, Any]:
    return in_model(torch.square)[0], Scaled(square)


def after_finite_sites(square: Callable[[torch.Tensor], Any]) -> tuple[Any, Any]:
    def model() -> None:
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(0.4))
        pyro.sample("x", dist.Normal(square(z + 1).sum(), 1.0), obs=torch.tensor(2.0))

    def guide() -> None:
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Bernoulli(logits=pyro.param("logits", torch.tensor([0.2, -0.5, 1.0]))))

    return model, guide


PLACES = {"in the model": in_model, "in the guide": in_guide, "in a module": in_module, "finite": after_finite_sites}


def numbers(place: Any, square: Any, program: Any) -> list[Any]:
    """Value and gradient at two seeds."""
    torch.manual_seed(0)
    strategies = {"z": Enumerate()} if place is after_finite_sites else {}
    bound = vi.objective(program, *place(square), strategies=strategies)
    params = bound.init(0)
    pyro.clear_param_store()
    return [bound.value_and_grad(seed, params) for seed in (1, 2)]


@functools.cache
def by_pytorch(where: str, program: str) -> list[Any]:
    return numbers(PLACES[where], torch.square, PROGRAMS[program])


def same(found: list[Any], wanted: list[Any]) -> bool:
    pairs = [((v, *g.values()), (w, *h.values())) for (v, g), (w, h) in zip(found, wanted, strict=True)]
    return all(torch.allclose(x, y, atol=1e-5) for xs, ys in pairs for x, y in zip(xs, ys, strict=True))


ROWS = [
    *((square, "in the model", "elbo") for square in SQUARES),
    *(
        (square, "in the model", "iwelbo")
        for square in ("old style", "new style", "by NumPy", "by torch.func", "in place")
    ),
    *(("old style", where, program) for where in PLACES for program in ("elbo", "iwelbo")),
    ("by NumPy", "finite", "elbo"),
    ("several results", "in the guide", "iwelbo"),
    ("once differentiable", "in a module", "elbo"),
]
PROGRAMS = {"elbo": objectives.elbo, "iwelbo": objectives.iwelbo(2)}


@pytest.mark.parametrize(("square", "where", "program"), dict.fromkeys(ROWS))
def test_a_function_has_its_derivative(square, where, program):
    assert same(numbers(PLACES[where], SQUARES[square], PROGRAMS[program]), by_pytorch(where, program))


class Rounded(torch.autograd.Function):
    """A straight-through estimator."""

    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, slope):
        return slope


def test_a_derivative_that_a_program_states_is_not_proved():
    model, guide = in_model(Rounded.apply)
    bound = vi.objective(objectives.elbo, model, guide)
    report = bound.prove(bound.init(0))
    assert report.verdict == "suspect"
    assert "Rounded" in str(report)


def test_an_array_of_a_draw_is_no_constant():
    """Pyro's own gradient, which does not see through NumPy, at the same draw."""

    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        square = torch.as_tensor(np.square(z.detach().numpy()))
        pyro.sample("x", dist.Normal(square, 1.0), obs=torch.tensor(0.5))

    guide = in_model(torch.square)[1]
    bound = vi.objective(objectives.elbo, model, guide)
    value, _ = bound.value_and_grad(3, bound.init(0))
    pyro.clear_param_store()
    torch.manual_seed(3)
    loss = pyro.infer.Trace_ELBO().loss(model, guide)
    assert float(value) == pytest.approx(-loss, rel=1e-5)


def test_under_a_derivative_of_torch_func_a_function_is_refused_by_name():
    model, guide = in_model(lambda z: torch.func.grad(lambda x: Old.apply(x).sum())(z))
    with pytest.raises(EngineError, match="Old"):
        vi.objective(objectives.elbo, model, guide).prove({"loc": torch.tensor(0.7), "scale": torch.tensor(1.3)})


def test_libraries_own_functions_that_write_past_autograd_are_staged():
    """The Cholesky factors of a Gaussian hidden Markov model have a jitter that is a constant; a folded density has signs."""
    one, plane = dist.Normal(0.0, 1.0).expand([1]).to_event(1), dist.Normal(0.0, 1.0).expand([2]).to_event(1)

    def model():
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        steps = dist.Normal(m.expand([2]), 1.0).to_event(1)
        eye = torch.eye(2)
        pyro.sample("y", dist.GaussianHMM(plane, eye, steps, eye[:, :1], one, duration=5), obs=torch.ones(5, 1))
        pyro.sample("x", dist.FoldedDistribution(dist.Normal(m, 1.0)), obs=torch.tensor(0.4))

    def guide():
        pyro.sample("m", dist.Delta(pyro.param("at", torch.tensor(0.3))))

    bound = vi.objective(objectives.elbo, model, guide)
    params = bound.init(0)
    assert "staged as one" in str(bound.explain(params))
    value, grads = bound.value_and_grad(0, params)
    loss = -pyro.infer.Trace_ELBO().differentiable_loss(model, guide)
    at = pyro.get_param_store()._params["at"]
    assert float(value) == pytest.approx(float(loss), rel=1e-5)
    assert float(grads["at"]) == pytest.approx(float(torch.autograd.grad(loss, at)[0]), rel=1e-4)
