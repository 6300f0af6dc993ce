"""Which estimates a run that has no graph uses nonlinearly (`ppvi.proofs.linearity` has it of a graph).

A sum over a minibatch is followed from operation to operation for as long as these are linear in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ppvi.proofs.examine import nonlinear_estimate
from ppvi.proofs.findings import Finding
from ppvi.pyro import _rules as rules, _source as source
from ppvi.pyro._compat import TorchDispatchMode
from ppvi.pyro._provenance import Marks, each, kind_of, strided


class Linearity(TorchDispatchMode):
    """The estimates of a run, and the operations that use them nonlinearly."""

    def __init__(self) -> None:
        super().__init__()
        self.estimates: list[tuple[str, frozenset[Any]]] = []
        """What is estimated, and the plates on whose minibatches, or else a number of its own."""
        self.misused: dict[str, tuple[str, str]] = {}
        """What is estimated -> the first such operation, and where it is."""
        self._marks = Marks()

    def estimate(self, value: torch.Tensor, what: str, plates: Sequence[str]) -> torch.Tensor:
        """Follow an estimate on the minibatches of these plates, which estimates on one plate share."""
        self.estimates.append((what, frozenset(plates or {len(self.estimates)})))
        followed = value.clone()
        self._marks.add(followed, 1 << len(self.estimates) - 1)
        return followed

    def findings(self) -> Iterator[Finding]:
        for what, (operation, where) in self.misused.items():
            yield nonlinear_estimate(what, operation, where)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, kind = kwargs or {}, kind_of(func)
        operands = list(strided((*args, *kwargs.values()))) if self._marks else []
        carried = [self._marks.behind(x) for x in operands]
        result = func(*args, **kwargs)
        if any(carried) and not (kind.first and not any(carried[kind.first :])):
            self._went(kind.name, carried, list(strided(result)))
        return result

    def _went(self, name: str, carried: list[int], results: list[torch.Tensor]) -> None:
        """Estimates went through an operation."""
        holders = {i for i, numbers in enumerate(carried) if numbers}
        together = [carried[i] for i in holders]
        apart = name in _PRODUCTS and len(together) == 2 and not self._noise(together[0]) & self._noise(together[1])
        if apart or name in _KEEPING or any(holders <= group for group in rules.linear(name, len(carried))):
            for x in results:
                self._marks.add(x, sum(1 << i for i in {i for numbers in together for i in each(numbers)}))
        elif results:
            for number in {i for numbers in together for i in each(numbers)}:
                self.misused.setdefault(self.estimates[number][0], (name, source.here()))

    def _noise(self, numbers: int) -> frozenset[Any]:
        """What estimates are random by."""
        return frozenset().union(*(self.estimates[number][1] for number in each(numbers)))


_KEEPING = frozenset({"detach", "copy", "lift_fresh", "flip", "unbind", "split", "unsafe_split"})
_PRODUCTS = frozenset({"mul", "mm", "bmm", "dot", "mv"})
