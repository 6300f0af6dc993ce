"""What PyTorch and Pyro programs read outside of their arguments (`ppvi.engine.world`), and the modes that they run in."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from pyro.nn.module import _Context
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.trace_struct import Trace

from ppvi.engine.world import Rules
from ppvi.pyro.keys import seeded


def _members(module: Any) -> Sequence[Mapping[Any, Any]]:
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return module._parameters, module._buffers, module._modules, *hooks


RULES = Rules(
    arrays=(torch.Tensor,),
    ignored=(Trace, IndepMessenger, _Context, torch.Generator),
    modules=(torch.nn.Module,),
    members=_members,
    attributes=frozenset({"training", "_pyro_params", "_pyro_samples"}),
)


CASTING = ("cpu", "cuda")
"""Devices whose operations autocast may change."""


def modes() -> Hashable:
    """The modes of PyTorch that decide what an operation does."""
    casting = [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in CASTING]
    return torch.get_default_dtype(), *casting


@contextmanager
def as_staged() -> Iterator[None]:
    """Within, operations are what they were when they were staged: the casts of autocast are among them."""
    with ExitStack() as stack:
        for kind in CASTING:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def drawing(seed: int) -> Iterator[torch.Tensor]:
    """Within, staged operations draw from a seed; what stands for it among a staged program's inputs."""
    with seeded(seed), torch.no_grad(), as_staged():
        yield torch.zeros(())
