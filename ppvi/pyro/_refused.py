"""What a program asks of PyTorch, or of a replay, that an estimator of a gradient does not do: it is refused by name.

A hook on a gradient would change what is computed and not what the objective means; a seed would give every estimate the
same draws.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ppvi.compiler.choose import moving_support
from ppvi.engine.sites import Place
from ppvi.errors import EngineError, ProgramError
from ppvi.ir import POINT
from ppvi.pyro import _source as source
from ppvi.pyro._compat import has_backward_hooks, has_hooks

HOOKS = frozenset({torch.Tensor.register_hook, torch.Tensor.register_post_accumulate_grad_hook})

_REMEDY = (
    "An estimate of a gradient is that of the objective, and runs none. Change the gradients that `value_and_grad` returns, in "
    "an optimiser of your own, or state a derivative of your own by a torch.autograd.Function."
)


def refuse_hook(func: Any) -> None:
    """Of a tensor, in a program."""
    if func in HOOKS:
        raise ProgramError(f"the program calls {func.__name__} of a tensor at {source.here()}. {_REMEDY}")


def refuse_hooks(modules: Iterable[tuple[str, torch.nn.Module]]) -> None:
    """Of modules and their parameters, by their paths."""
    for path, module in modules:
        if has_backward_hooks(module):
            raise ProgramError(f"{path}, a {type(module).__name__}, has a backward hook. {_REMEDY}")
        for name, x in module.named_parameters(recurse=False):
            if has_hooks(x):
                raise ProgramError(f"the parameter {path}.{name} has a hook on its gradient. {_REMEDY}")


class Seed:
    """That of PyTorch's generator when a program begins, which must stay."""

    def __init__(self) -> None:
        self.seed = torch.default_generator.initial_seed()

    def refuse_another(self) -> None:
        if torch.default_generator.initial_seed() != self.seed:
            raise ProgramError(
                f"the program seeds PyTorch's generator before {source.here()}, and every estimate would have the same "
                f"draws. Their seed is the key that an objective is called with: leave out torch.manual_seed and set_rng_seed, "
                f"and make what is to stay the same outside of the program."
            )


def refuse_unreplayable(at: Place) -> None:
    """A site whose strategy needs a graph, or does not see that its support moves."""
    strategy, site = at.strategies[-1], at.site
    if strategy.stateful:
        raise EngineError(
            f"site {at.name!r} at {at.where}: {strategy} learns, and a program that is replayed has no sites to keep states "
            f"for."
        )
    moves = any(bound.requires_grad and bool(bound.detach().isfinite().any()) for bound in site.bounds())
    if moves and (strategy.fixed_support if at.named else site.region.name != POINT):
        raise moving_support(at.name, site.name, at.where, strategy)
