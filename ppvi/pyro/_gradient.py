"""Value and gradient of a planned program as one graph of ATen operations.

Traced once, forwards and backwards, a surrogate needs neither the compiler's machine nor autograd's tape when it runs. The
derivative of the trace is the estimate of the gradient and not a function to differentiate again; a second derivative runs the
plan itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ppvi._source import warn_at
from ppvi.compiler.plan import Plan
from ppvi.compiler.surrogate import surrogate
from ppvi.errors import EngineError
from ppvi.proofs.orders import refuse, refuse_second
from ppvi.pyro import _source as source
from ppvi.pyro._borders import Known
from ppvi.pyro._buffers import put, writing
from ppvi.pyro._graphs import drop_aliases, fold, share, trace
from ppvi.pyro._keys import Key, seeded
from ppvi.pyro._ops import TorchOps
from ppvi.pyro._quick import quick
from ppvi.pyro._simpler import simplify
from ppvi.pyro._stage import registering, what_prevents
from ppvi.pyro._trees import gradients
from ppvi.pyro._world import as_staged


class LoopError(Exception):
    """Runs one after the other are to take the memory of one, and a graph would hold them all."""


class GraphOps(TorchOps):
    """What a graph may be made of."""

    def one_by_one(self, function: Callable[..., Any]) -> Callable[..., Any]:
        raise LoopError


class Gradient:
    """A function of parameters and arrays: the estimate, and its gradient in the parameters.

    **Raises** `LoopError` where a strategy is sequential.
    """

    def __init__(
        self,
        plan: Plan,
        params: Sequence[torch.Tensor],
        arrays: Sequence[torch.Tensor],
        compiled: bool,
        partitioned: bool,
    ):
        self.buffers: list[torch.Tensor] = []
        """Those that a gradient changes."""

        def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            leaves = [x.detach().requires_grad_() for x in tensors[: len(params)]]
            with writing() as writes:
                value = surrogate(plan, GraphOps(), [*leaves, torch.zeros(()), *tensors[len(params) :]])
            grads = gradients(value, leaves)
            self.buffers[:] = [buffer for buffer, _ in writes.values()]
            return value.detach(), *grads, *(x for _, x in writes.values())

        with registering() as self.samplers, torch.enable_grad(), as_staged(), seeded(0):
            traced = trace(run, *(x.detach() for x in (*params, *arrays)))
        fold(traced)
        drop_aliases(traced)
        share(traced)
        self.size = len(params)
        if not partitioned:  # on a mesh each operation of ATen is split by itself
            simplify(traced)
            share(traced)
        traced.recompile()
        self.graph = traced
        self.run: Callable[..., Any] = traced if partitioned else torch.compile(traced) if compiled else quick(traced)

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with registering(self.samplers), torch.no_grad(), as_staged():
            return self.finished(self.run(*tensors))

    def finished(self, found: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Value and gradient, after the buffers of modules have been changed."""
        if self.buffers:
            put(zip(self.buffers, found[1 + self.size :], strict=True))
        return tuple(found[: 1 + self.size])


class Staging:
    """What is made once for arguments of the same shapes."""

    def __init__(
        self,
        plan: Plan | None,
        compile: bool,
        partitioned: Callable[[Gradient], Callable[..., Any]] | None,
        why: str = "",
        numbers: Sequence[tuple[torch.Tensor, torch.Tensor]] = (),
    ):
        learners = sorted(plan.stateful) if plan else []
        self.plan = plan
        self.why = f"what the strategies of {learners} learn is kept between gradients" if learners else why
        """Why there is no plan, and the objective is replayed; or why its gradient is no graph."""
        self.compile = compile
        self.partitioned = partitioned
        """On a mesh, what runs a gradient there."""
        self.numbers = numbers
        """Tensors that numbers were read out of, and what was in them."""
        self.known = Known()
        """What its replays have shown."""
        self._arrays = {id(x) for x in plan.program.constants.values()} if plan else set()
        self._gradient: Callable[..., tuple[torch.Tensor, ...]] | None = None
        self._asked = plan is None or bool(learners)
        self._said = not compile
        """Whether it needs no more saying that nothing is compiled."""

    def holds(self) -> bool:
        return not self.numbers or all(_same(x, before) for x, before in self.numbers)

    def uses(self, array: object) -> bool:
        return id(array) in self._arrays

    def gradient(self, size: int, tensors: Sequence[torch.Tensor]) -> Callable[..., tuple[torch.Tensor, ...]] | None:
        """Value and gradient as one graph, unless a strategy learns or is sequential, or a number is read out of a tensor."""
        if self.plan is not None and not self._asked:
            self._asked = True
            try:
                gradient = Gradient(
                    self.plan, tensors[:size], tensors[size:], self.compile, self.partitioned is not None
                )
                self._gradient = self.partitioned(gradient) if self.partitioned else gradient
            except LoopError:
                self.why = "a strategy makes its runs one after the other"
            except RuntimeError as error:  # such as that of a sampler which draws until it accepts
                if what_prevents(error) is None:
                    if problem := _without_derivative(self.plan, error):
                        raise problem from error
                    raise
                self.why = "a sampler reads numbers out of tensors"
        if not self._said and (self._gradient is None or self.partitioned):
            self._said = True
            why = self.why if self._gradient is None else "its gradient is computed on a mesh"
            warn_at(source.here(), f"objective: compile=True does nothing here, since {why}.")
        return self._gradient


def _without_derivative(plan: Plan, error: RuntimeError) -> EngineError | None:
    """What is wrong with a plan in which there is an operation that PyTorch cannot differentiate."""
    named = re.search(r"derivative for '?(?:aten::)?(\w+)", str(error))
    for equation in plan.program.equations if named else ():
        if named and equation.op == named[1]:
            return EngineError(
                f"{equation.op} at {equation.where()} has no derivative in PyTorch: use another operation there, or name "
                f"Reinforce() or LeaveOneOut() for the sites that it depends on."
            )
    return None


def _same(x: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are equal, where NaN is equal to itself."""
    return torch.equal(x, other) or (
        x.shape == other.shape and torch.allclose(x, other, rtol=0, atol=0, equal_nan=True)
    )


class Surrogate(torch.autograd.Function):
    """A scalar with a gradient that was computed along with it, and is made anew where that is to be differentiated."""

    @staticmethod
    def forward(ctx: Any, gradient: Gradient, again: Again, *tensors: torch.Tensor) -> torch.Tensor:
        value, *ctx.grads = gradient(*tensors)
        ctx.again = again
        ctx.save_for_backward(*tensors)
        return value

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        tensors = ctx.saved_tensors
        grads = Slopes.apply(ctx.again, ctx.grads, *tensors) if torch.is_grad_enabled() else ctx.grads
        return None, None, *(slopes[0] * grad for grad in grads), *[None] * (len(tensors) - len(grads))


class Slopes(torch.autograd.Function):
    """A gradient that was computed already, and is made anew where it is differentiated."""

    @staticmethod
    def forward(ctx: Any, again: Again, grads: Sequence[torch.Tensor], *tensors: torch.Tensor) -> tuple[Any, ...]:
        ctx.again, ctx.size = again, len(grads)
        ctx.save_for_backward(*tensors)
        return tuple(grad.clone() for grad in grads)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        once_more, tensors = torch.is_grad_enabled(), ctx.saved_tensors
        wanted = [x for x in tensors if x.requires_grad]
        with torch.enable_grad():
            along = sum((s * x).sum() for s, x in zip(slopes, ctx.again(tensors, ctx.size), strict=True))
            found = iter(gradients(torch.as_tensor(along), wanted, again=once_more))
        return None, None, *(next(found) if x.requires_grad else None for x in tensors)


@dataclass(frozen=True)
class Again:
    """The gradient of the surrogate of a plan, with the random numbers that it had, to be differentiated."""

    plan: Plan
    key: Key
    state: torch.Tensor | None
    """That of PyTorch's global generator, where the key is None."""

    def __call__(self, tensors: Sequence[torch.Tensor], size: int) -> Sequence[torch.Tensor]:
        refuse_second(self.plan)
        params, arrays = tensors[:size], tensors[size:]
        with torch.random.fork_rng(enabled=self.state is not None), seeded(self.key), registering(), as_staged():
            if self.state is not None:
                torch.set_rng_state(self.state)
            value = surrogate(self.plan, TorchOps(), [*params, torch.zeros(()), *arrays], again=True)
        grads = iter(gradients(value, [x for x in params if x.requires_grad], again=True))
        return [next(grads) if x.requires_grad else torch.zeros_like(x) for x in params]


class Once(torch.autograd.Function):
    """A parameter of what can be differentiated once only."""

    @staticmethod
    def forward(ctx: Any, why: str, x: torch.Tensor) -> torch.Tensor:
        ctx.why, ctx.met = why, False
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.met:
            refuse(ctx.why)
        ctx.met = torch.is_grad_enabled()
        return None, slopes[0]
