"""Which parameters of an objective a geometric optimiser moves as what: those of blocks, those that reach the guide's sites
otherwise, and the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ppvi._doors import listed
from ppvi.engine.protocol import Start
from ppvi.errors import ProgramError
from ppvi.optimizers.base import Geometric


@dataclass(frozen=True)
class Parts:
    """**Attributes**

    - `blocks`: the engine's, each with a `ppvi.optimizers.Block` as its `.block`.
    - `curved`: parameters that reach sites of the guide otherwise, where the optimiser moves such.
    - `reached`: the sites that they reach.
    - `unknown`: parameters among the rest that reach sites whose divergence has no closed form -> those sites.
    - `rest`: all other parameters.
    """

    blocks: tuple[Any, ...]
    curved: tuple[str, ...]
    reached: tuple[str, ...]
    rest: tuple[str, ...]
    unknown: Mapping[str, tuple[str, ...]]

    @property
    def moved(self) -> frozenset[str]:
        """The parameters of blocks."""
        return frozenset(name for placed in self.blocks for _, name in placed.block.parameters)

    def said(self, optimizer: Geometric) -> tuple[str, ...]:
        """How each parameter is moved, and why."""
        lines = []
        for block in (placed.block for placed in self.blocks):
            arguments, names = (listed(dict.fromkeys(x)) for x in zip(*block.parameters, strict=True))
            verb = "are parameters" if len(block.parameters) > 1 else "is a parameter"
            lines.append(
                f"site {block.site!r} ~ {block.family}: updated {optimizer.how}, because its {arguments} {verb}, {names}"
            )
        if self.curved:
            lines.append(
                f"{listed(self.curved)}: updated along the natural gradient in unconstrained coordinates, because code of the "
                f"guide is between them and the distributions of {listed(self.reached)}"
            )
        if self.rest:
            by = "Adam" if optimizer.rest is None else "rest="
            why = (
                "because they reach no distribution of the guide"
                if optimizer.curved
                else "because they are no site's own"
            )
            lines.append(f"{listed(self.rest)}: moved by {by}, {why}")
        return tuple(f"{optimizer.name}: {line}" for line in lines)


def parted(
    optimizer: Geometric,
    candidates: Sequence[Any],
    reach: Mapping[str, Collection[str]],
    unknown: Collection[str],
    names: Sequence[str],
    start: Start,
) -> Parts:
    """The parts of the parameters of these names.

    **Arguments**

    - `candidates`: sites whose arguments are parameters, as the engine has blocks.
    - `reach`: site of the guide with mass at more than one value -> the parameters that its distribution depends on.
    - `unknown`: those of these sites whose divergence has no closed form.
    """
    blocks = tuple(x for x in candidates if _alone(x, reach, names, start))
    moved = {name for x in blocks for _, name in x.block.parameters}
    left = [name for name in names if name not in moved]
    sites = {name: tuple(site for site, found in reach.items() if name in found) for name in left}
    lost = {name: found for name, each in sites.items() if (found := tuple(x for x in each if x in unknown))}
    curved = tuple(name for name in left if optimizer.curved and sites[name] and name not in lost)
    reached = tuple(site for site in reach if any(site in sites[name] for name in curved))
    rest = tuple(name for name in left if name not in curved)
    if not blocks and not curved:
        raise refused(optimizer, reach, unknown, names, start)
    return Parts(blocks, curved, reached, rest, lost if optimizer.curved else {})


def _alone(candidate: Any, reach: Mapping[str, Collection[str]], names: Collection[str], start: Start) -> bool:
    """Whether nothing but the site has its arguments' parameters, which are to be moved."""
    own = {name for _, name in candidate.block.parameters}
    elsewhere = {name for site, found in reach.items() if site != candidate.block.site for name in found}
    return own <= set(names) and not own & elsewhere and not any("model" in start.owners[name] for name in own)


def refused(
    optimizer: Geometric,
    reach: Mapping[str, Collection[str]],
    unknown: Collection[str],
    names: Collection[str],
    start: Start,
) -> ProgramError:
    """The error of an optimiser that would move nothing of the guide."""
    name, instead = optimizer.name, "take another optimizer, such as the step size of Adam, optimizer=0.01"
    if all(owners == {"model"} for x, owners in start.owners.items() if x in names):
        return ProgramError(
            f"fit: {name} moves distributions of the guide, and an objective that it is given for moves none but the model's "
            f"parameters: of several objectives each has an optimizer of its own, as in optimizer=[0.01, {name}()]."
        )
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
    if optimizer.curved and unknown:
        return ProgramError(
            f"fit: {name} knows no Fisher information of {listed(sorted(unknown))}, of whose distribution no divergence has a "
            f"closed form; {instead}."
        )
    kinds = listed(sorted(optimizer.families))
    return ProgramError(
        f"fit: {name} moves sites of the guide whose distribution's arguments are parameters of their own, of the families "
        f"{kinds}, and there is none among {listed(reach)}: their arguments are computed from parameters, shared, or of "
        f"other families. A scale is a parameter itself in param('scale', 1.0, constraint=constraints.positive), and "
        f"not in exp(param('log_scale', 0.0)); or {instead}."
    )


def refuse_misused(optimizer: Any) -> None:
    """A geometric optimiser is a value, and what moves the rest is none."""
    if isinstance(optimizer, type) and issubclass(optimizer, Geometric):
        raise ProgramError(f"fit: {optimizer.__name__} is a class; write optimizer={optimizer.__name__}().")
    if isinstance(optimizer, Geometric) and isinstance(optimizer.rest, Geometric):
        raise ProgramError(
            f"fit: {optimizer.name}(rest={optimizer.rest.name}()): the rest are parameters that are no distribution's: give "
            f"an optimizer of numbers, such as the step size of Adam, rest=0.01."
        )
