"""What is a tensor of a staged program among a call's arguments, and what is a number: by what the program does with it.

Floats change from call to call, as the weight of an annealing does. A float is a constant of the staged program. Where a call
has another one in its place, the program is staged once more with a tensor there, which serves all that follow. What a program
cannot do with a tensor, such as a branch on it, keeps the constant, and is staged for each number. A tensor is of one
precision, and stands for a float only where all tensors of the call have it.

Whole numbers in tensors are read, as the lengths of sequences are in `range(lengths[i])`. Where a program cannot be staged, the
smallest of such tensors is a constant of it, then the next, and it is staged for each of their values while these are few.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import torch

from ppvi.engine.stagings import KINDS
from ppvi.pyro._lending import Arguments

VALUES = 16
"""The most values of tensors that a program is staged for, which takes as long as many runs of it."""


@dataclass
class WholeNumbers:
    """Which tensors among the arguments of an objective's calls are constants, by the kind of a call."""

    tried: dict[Hashable, int] = field(default_factory=dict)
    """How many, the smallest first; one more than there are where none of them helps."""
    values: dict[Hashable, set[Hashable]] = field(default_factory=dict)
    """What they have been."""

    def as_numbers(self, arguments: Arguments) -> Arguments | None:
        """The arguments with as many tensors as constants as have been tried; None where that is given up."""
        kind = arguments.kind
        if not (whole := arguments.whole) or (tried := self.tried.get(kind, 0)) > len(whole):
            return None
        if not tried:
            return arguments
        known = arguments.with_numbers(whole[:tried])
        values = self.values.setdefault(kind, set())
        values.add(known.constants.numbers)
        if len(values) > VALUES:
            self.tried[kind] = len(whole) + 1
            return None
        return known

    def try_another(self, arguments: Arguments) -> None:
        """One more of them."""
        self.tried[arguments.kind] = self.tried.get(arguments.kind, 0) + 1
        self.values.pop(arguments.kind, None)


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
