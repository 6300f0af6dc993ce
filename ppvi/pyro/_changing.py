"""Floats among the arguments that change from call to call, as the weight of an annealing does.

A float is a constant of the staged program. Where a call has another one in its place, the program is staged once more with a
tensor there, which serves all that follow. What a program cannot do with a tensor, such as a branch on it, keeps the constant,
and is staged for each number. A tensor is of one precision, and stands for a float only where all tensors of the call have it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import torch

from ppvi.engine.stagings import KINDS
from ppvi.pyro._lending import Arguments


@dataclass
class Changing:
    """What is known of the floats of an objective's calls, by the kind of a call."""

    first: dict[Hashable, dict[int, float]] = field(default_factory=dict)
    """The floats of the first such call, by their places among the leaves."""
    changed: dict[Hashable, set[int]] = field(default_factory=dict)
    """The places of those that have changed since."""
    held: set[Hashable] = field(default_factory=set)
    """The kinds of calls whose floats stay constants."""

    def as_tensors(self, arguments: Arguments, others: Iterable[torch.Tensor]) -> Arguments:
        """The arguments, with tensors in place of the floats that have changed."""
        floats, kind = arguments.floats, arguments.kind
        if not floats or kind in self.held:
            return arguments
        if len(self.first) > KINDS:
            self.first.clear()
            self.changed.clear()
        first, changed = self.first.setdefault(kind, floats), self.changed.setdefault(kind, set())
        changed |= {i for i, x in floats.items() if x != first[i]}
        dtypes = {x.dtype for x in (*others, *arguments.tensors) if x.is_floating_point()}
        return arguments.with_tensors(changed) if changed and dtypes <= {torch.get_default_dtype()} else arguments

    def hold(self, arguments: Arguments) -> None:
        """The floats of such calls are constants from now on."""
        self.held.add(arguments.kind)
