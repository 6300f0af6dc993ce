"""What PyTorch and Pyro programs read outside of their arrays (`ppvi.engine.world`), and the modes that they run in."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.trace_struct import Trace

from ppvi.engine.world import Rules
from ppvi.pyro import _compat
from ppvi.pyro._keys import seeded

RULES = Rules(
    arrays=(torch.Tensor,),
    ignored=(Trace, IndepMessenger, _compat.Context),
    drawing=(torch.Generator,),
    modules=(torch.nn.Module,),
    members=_compat.members_of,
    attributes=_compat.READ_BY_MODULES | {"training"},
)


@functools.cache
def devices() -> Sequence[str]:
    """The kinds of devices that there are."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return ("cpu",) if found is None else ("cpu", found.type)


def modes() -> Hashable:
    """The modes of PyTorch that decide what an operation does: default dtype and device, and the casts of autocast."""
    casts = [torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) for kind in devices()]
    return torch.get_default_dtype(), torch.empty(0).device, *casts


def as_staged() -> AbstractContextManager[Any]:
    """Within, operations are what they were when they were staged: the casts of autocast are among them."""
    casting = [kind for kind in devices() if torch.is_autocast_enabled(kind)]
    if not casting:
        return nullcontext()
    stack = ExitStack()
    for kind in casting:
        stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


@contextmanager
def drawing(seed: int) -> Iterator[torch.Tensor]:
    """Within, staged operations draw from a seed; what stands for it among a staged program's inputs."""
    with seeded(seed), torch.no_grad(), as_staged():
        yield torch.zeros(())
