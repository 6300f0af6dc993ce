"""Objectives on Pyro: from three programs to an estimate and its gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from ppvi.compiler.choose import refuse_unknown
from ppvi.compiler.explain import Explanation, explain
from ppvi.compiler.plan import Plan, plan
from ppvi.compiler.surrogate import surrogate
from ppvi.errors import ProgramError
from ppvi.program import Program, staging
from ppvi.pyro.handlers import Direct, Handle
from ppvi.pyro.ops import OPS
from ppvi.pyro.session import Initialisation, Session
from ppvi.pyro.stage import stage
from ppvi.strategies import Strategy

Params = dict[str, torch.Tensor]


class Objective:
    """A variational objective: a program over a model and a guide, and strategies for the sites that it draws."""

    def __init__(
        self,
        program: Callable[[Program, Program], torch.Tensor],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        strategies: Mapping[str, Strategy] | None = None,
    ):
        self.program = program
        self.model = model
        self.guide = guide
        self.strategies = dict(strategies or {})
        self._plans: dict[Any, Plan] = {}

    def init(self, key: int | torch.Generator | None, *args: Any, **kwargs: Any) -> Params:
        """Initial values of every parameter that the objective, its model and its guide declare."""
        session = Initialisation(self.strategies)
        with seeded(key), torch.no_grad():
            self.run(session, args, kwargs)
        if not session.found:
            raise ProgramError("neither the guide nor the model declares a parameter, so there is nothing to fit.")
        return session.found

    def estimate(self, key: int | torch.Generator | None, params: Params, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One unbiased estimate of the objective, a scalar."""
        with torch.no_grad():
            return self.surrogate(key, params, *args, **kwargs)

    def value_and_grad(
        self, key: int | torch.Generator | None, params: Params, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, Params]:
        """One unbiased estimate of the objective and of its gradient."""
        leaves = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
        value = self.surrogate(key, leaves, *args, **kwargs)
        grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        pairs = zip(leaves.items(), grads, strict=True)
        return value.detach(), {name: torch.zeros_like(x) if g is None else g for (name, x), g in pairs}

    def surrogate(self, key: int | torch.Generator | None, params: Params, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The scalar whose value is `estimate` and whose gradient in `params` is that of `value_and_grad`."""
        planned = self.staged(params, *args, **kwargs)
        arrays = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        with seeded(key):
            return surrogate(planned, OPS, [*params.values(), *arrays])

    def staged(self, params: Params, *args: Any, **kwargs: Any) -> Plan:
        """The compiler's plan for arguments of these shapes."""
        leaves, tree = tree_flatten((args, kwargs))
        signature = (
            tuple((name, x.shape, x.dtype) for name, x in params.items()),
            tuple((x.shape, x.dtype) if isinstance(x, torch.Tensor) else x for x in leaves),
            str(tree),
        )
        if signature not in self._plans:
            self._plans[signature] = self._plan(params, leaves, tree)
        return self._plans[signature]

    def explain(self, params: Params, *args: Any, **kwargs: Any) -> Explanation:
        """What the compiler saw: sites, strategies and why, lanes, credit, cost. Printable."""
        return explain(self.staged(params, *args, **kwargs), {})

    def _plan(self, params: Params, leaves: list[Any], tree: Any) -> Plan:
        names, places = list(params), [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

        def run(*tensors: torch.Tensor) -> torch.Tensor:
            filled = list(leaves)
            for place, tensor in zip(places, tensors[len(names) :], strict=True):
                filled[place] = tensor
            args, kwargs = tree_unflatten(filled, tree)
            session = Session(dict(zip(names, tensors, strict=False)), self.strategies)
            value = self.run(session, args, kwargs)
            refuse_unknown(self.strategies, session.drawn)
            return value

        inputs = [value.detach() for value in params.values()]
        with seeded(0):
            return plan(stage(run, inputs, *[leaves[i].detach() for i in places]))

    def run(self, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """Run the objective program once in a session."""
        session.args, session.kwargs = args, kwargs
        handle = functools.partial(Handle, session=session, args=args, kwargs=kwargs)
        # The checks of values that distributions and Pyro make are no part of any graph.
        with pyro.validation_enabled(False), staging(session), Direct(session):
            value = self.program(handle(self.model, "model"), handle(self.guide, "guide"))
        if not isinstance(value, torch.Tensor) or value.ndim:
            raise ProgramError(f"the objective must return one real number, not {value!r}.")
        return value


@contextmanager
def seeded(key: int | torch.Generator | None) -> Iterator[None]:
    """The random numbers of a seed or of a generator; with None those of PyTorch's global generator."""
    if key is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        if isinstance(key, torch.Generator):
            torch.manual_seed(int(torch.randint(2**62, (), generator=key)))
        else:
            torch.manual_seed(key)
        yield


def objective(
    program: Callable[[Program, Program], torch.Tensor],
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *,
    strategies: Mapping[str, Strategy] | None = None,
) -> Objective:
    """Transform an objective program into a gradient estimator."""
    return Objective(program, model, guide, strategies=strategies)
