"""Which parameters of an objective a geometric optimiser moves as what: those of blocks, those that reach the guide's sites
otherwise, and the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ppvi._doors import listed
from ppvi.engine.formula import Formula
from ppvi.engine.protocol import Start
from ppvi.errors import ProgramError
from ppvi.optimizers.base import Geometric


@dataclass(frozen=True)
class Parts:
    """**Attributes**

    - `blocks`: the engine's, each with a `ppvi.optimizers.Block` as its `.block`.
    - `curved`: parameters that reach sites of the guide otherwise, where the optimiser moves such.
    - `reached`: the sites that they reach.
    - `rest`: all other parameters.
    """

    blocks: tuple[Any, ...]
    curved: tuple[str, ...]
    reached: tuple[str, ...]
    rest: tuple[str, ...]

    @property
    def moved(self) -> frozenset[str]:
        """The parameters of blocks."""
        return frozenset(name for placed in self.blocks for _, name in placed.block.parameters)


def parted(
    optimizer: Geometric,
    candidates: Sequence[Any],
    reach: Mapping[str, Collection[str]],
    names: Sequence[str],
    start: Start,
    formula: Formula,
) -> Parts:
    """The parts of the parameters of these names.

    **Arguments**

    - `candidates`: sites whose arguments are parameters, as the engine has blocks.
    - `reach`: site of the guide with mass at more than one value -> the parameters that its distribution depends on.
    """
    blocks = tuple(x for x in candidates if _alone(x, reach, names, start))
    moved = {name for x in blocks for _, name in x.block.parameters}
    left = [name for name in names if name not in moved]
    reached = [site for site, found in reach.items() if set(found) & set(left)]
    curved = [name for name in left if any(name in reach[site] for site in reached)] if optimizer.curved else []
    parts = Parts(blocks, tuple(curved), tuple(reached), tuple(name for name in left if name not in curved))
    if not blocks and not curved:
        raise refused(optimizer, reach, start, formula)
    return parts


def _alone(candidate: Any, reach: Mapping[str, Collection[str]], names: Collection[str], start: Start) -> bool:
    """Whether nothing but the site has its arguments' parameters, which are to be moved."""
    own = {name for _, name in candidate.block.parameters}
    elsewhere = {name for site, found in reach.items() if site != candidate.block.site for name in found}
    return own <= set(names) and not own & elsewhere and not any("model" in start.owners[name] for name in own)


def refused(optimizer: Geometric, reach: Mapping[str, Collection[str]], start: Start, formula: Formula) -> ProgramError:
    """The error of an optimiser that would move nothing of the guide."""
    name, instead = optimizer.name, "take another optimizer, such as the step size of Adam, optimizer=0.01"
    if not reach:
        return ProgramError(
            f"fit: {name} moves distributions of the guide, and this guide has none: its sites are points, or it samples "
            f"nothing; {instead}."
        )
    if not any(reach.values()):
        return ProgramError(
            f"fit: {name} moves distributions of the guide, and those of its sites {listed(reach)} depend on no parameter "
            f"that the objective moves; {instead}."
        )
    kinds = listed(sorted(optimizer.families))
    return ProgramError(
        f"fit: {name} moves sites of the guide whose distribution's arguments are parameters of their own, of the families "
        f"{kinds}, and there is none among {listed(reach)}: their arguments are computed from parameters, shared, or of "
        f"other families; {instead}."
    )
