"""The rows of plates: in one evaluation a plate of one name has one minibatch, whoever states it.

A program states of a plate that it runs over all of its rows, over a number of them, or over rows that it gives. What says
most holds: given rows before a number, a number before nothing. A plate of that name that says less, in another program,
takes the same rows, with the scale. What cannot be reconciled is refused, by the plate's name.

An evaluation finds out as it goes. Where a plate has been run over before what holds of it was stated, the evaluation begins
anew and knows it from the start (`agreed`). Draws from the guide after a fit are of all rows, whatever is stated (`Whole`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from ppvi.engine.protocol import Programs
from ppvi.engine.statements import refuse_plate, refuse_plates
from ppvi.errors import FiniteSiteError, ProgramError
from ppvi.program import Plate

T = TypeVar("T")

Same = Callable[[Any, Any], bool]
"""Whether two arrays of rows are known to be equal."""


@dataclass(frozen=True)
class Stated:
    """What a program states of a plate."""

    plate: str
    size: int
    count: int | None
    """Number of rows of the minibatch; None where nothing is said of one."""
    rows: Any
    """Those that are given, if any; None too where they are known to be all, in order."""
    role: str
    where: str

    @property
    def number(self) -> int:
        """How many rows there are."""
        return self.size if self.count is None else self.count

    @property
    def partial(self) -> bool:
        """Whether it is of a minibatch and not of all rows."""
        return self.number != self.size

    @property
    def reordered(self) -> bool:
        """Whether it is of all rows, which are given, in an order that may be another."""
        return self.rows is not None and not self.partial

    @property
    def binds(self) -> bool:
        """Whether other plates of the name have to follow."""
        return self.rows is not None or self.partial

    @property
    def strength(self) -> int:
        return 2 if self.rows is not None else int(self.count is not None)

    def __str__(self) -> str:
        what = "all" if self.count is None else self.count
        given = ", which it is given," if self.rows is not None else ""
        return f"{what} of {self.size} rows{given} in the {self.role} at {self.where}"


class Rows(Protocol):
    """How the plates of a session get their rows."""

    begun_anew: bool
    """Whether the evaluation has been begun before, and came to nothing."""

    def hold(self, stated: Stated, same: Same) -> Stated:
        """What holds of a plate of which this is stated."""
        ...

    def misfit(self, stated: Stated, held: Stated) -> str:
        """Why a program may not fit the rows that a plate of it has been given, and what to do."""
        ...


class LaterError(Exception):
    """A plate has been run over already, and now more is stated of it."""

    def __init__(self, stated: Stated):
        super().__init__()
        self.stated = stated


class Minibatches:
    """The plates of one evaluation, with what is known of them from the beginnings of it that came to nothing."""

    def __init__(self, known: Mapping[str, Stated] | None = None):
        self.known = known or {}
        self.begun_anew = bool(known)
        self.met: dict[str, Stated] = {}

    def hold(self, stated: Stated, same: Same) -> Stated:
        held = self.known.get(stated.plate) or self.met.setdefault(stated.plate, stated)
        if not (held.binds or stated.binds):
            return stated
        refuse_conflict(held, stated, same)
        if stated.strength > held.strength:
            raise LaterError(stated)
        return held

    def misfit(self, stated: Stated, held: Stated) -> str:
        return (
            f"plate {stated.plate!r} is of {stated}, and takes those of the minibatch, {held}. Index what belongs to its rows "
            f"by what the plate yields, as in `with plate(...) as i: x[i]`, or give the plates different names"
        )


class Whole:
    """All rows, in order, whatever is stated."""

    begun_anew = False

    def hold(self, stated: Stated, same: Same) -> Stated:
        if stated.rows is not None:
            raise ProgramError(
                f"plate {stated.plate!r} is of {stated}: draws are of all rows in order, so give it those: `posterior` "
                f"and `nuts` take arguments that hold all rows."
            )
        if stated.count == 1 < stated.size:
            raise ProgramError(
                f"plate {stated.plate!r} is of {stated}, and draws are of all rows, over which what belongs to the one row "
                f"would be broadcast: state two rows or more, or none."
            )
        return replace(stated, count=None, rows=None)

    def misfit(self, stated: Stated, held: Stated) -> str:
        return (
            f"plate {stated.plate!r} is of {stated}, and draws are of all rows. Index what belongs to its rows by what the "
            f"plate yields, as in `with plate(...) as i: x[i]`; where an argument holds the rows of a minibatch only, give "
            f"`posterior(objective, key, params, ...)` or `nuts` one that holds all rows"
        )


FEW, MANY = 10_000, 100_000
"""Rows of a part of a plate, and those of plates that have one."""


@dataclass
class Part:
    """Of plates that state a minibatch, and have many rows, a part.

    **Attributes**

    - `fewer`: whether there has been one of them.
    """

    fewer: bool = False

    def rows(self, size: int, count: int | None) -> int:
        """How many, of a plate of this size that states so many."""
        if count in (None, size) or size < MANY:
            return size
        self.fewer = True
        return max(count or 0, FEW)


class Owed:
    """What an objective has to put in for densities in which the rows of minibatches count once."""

    def __init__(self) -> None:
        self.scales: dict[str, set[float]] = {}
        """Of the plates around sites."""
        self.plates: dict[str, str] = {}
        """Plates of which nothing has counted the rows for all of them yet, and where that began."""

    def meet(self, plates: Iterable[Plate]) -> None:
        """Told of the plates around every site."""
        for plate in plates:
            self.scales.setdefault(plate.name, set()).add(plate.scale)

    def owe(self, plates: Iterable[str], where: str) -> None:
        self.plates |= dict.fromkeys(plates, where)

    def settle(self, plates: Iterable[str]) -> float:
        """How many rows every index of these plates stands for."""
        for name in plates:
            self.plates.pop(name, None)
            if len(self.scales.get(name, ())) != 1:
                problem = "has minibatches of several sizes" if name in self.scales else "is around no site"
                raise ProgramError(f"total over plate {name!r}, which {problem}; there are {sorted(self.scales)}.")
        return math.prod(scale for name in plates for scale in self.scales[name])

    def refuse(self) -> None:
        """A minibatch that nothing counts for all of its plate."""
        for name, where in self.plates.items():
            scales = ", ".join(f"{scale:g}" for scale in sorted(self.scales[name]))
            raise ProgramError(
                f"densities per plate {name!r}, asked for at {where}, are those of each row of its minibatch for itself, and "
                f"the objective never puts in that each stands for {scales} rows: sum over the plate by "
                f"ppvi.total(x, per={name!r}) instead of x.sum(); for a mean over rows, divide that by their number."
            )


def agreed(attempt: Callable[[Mapping[str, Stated]], T]) -> T:
    """What an evaluation returns, begun anew with what the plates that were run over too early turned out to be."""
    known: dict[str, Stated] = {}
    while True:
        try:
            return attempt(known)
        except LaterError as later:
            known[later.stated.plate] = later.stated


def refuse_conflict(held: Stated, stated: Stated, same: Same) -> None:
    """Two statements that no one set of rows can satisfy."""
    if held.size != stated.size:
        remedy = "Give them one size, or plates of different sizes different names"
    elif None not in (held.count, stated.count) and held.count != stated.count:
        remedy = "Give them one number of rows, or say none in one of them, which then takes the rows of the other"
    elif held.rows is not None and stated.rows is not None and not same(held.rows, stated.rows):
        remedy = (
            "Nothing shows that these are the same rows: give both the same array, or give it to one of them, and the other "
            "takes its rows"
        )
    elif held.number == stated.number and (held.rows is None) != (stated.rows is None) and not held.partial:
        remedy = "Nothing shows that they are in the same order: give both the same array of rows, or neither"
    else:
        return
    raise _conflict(held, stated, remedy)


def _conflict(held: Stated, stated: Stated, remedy: str) -> ProgramError:
    return ProgramError(
        f"plate {stated.plate!r} is of {held}, and of {stated}: a plate of one name has one minibatch in one evaluation. "
        f"{remedy}."
    )


EMPTY = 0
"""Rows of which there are none libraries refuse by themselves, and then what is known of the data says more."""


class Plates:
    """The plates of one run of a program: what it states of them, and the rows that they have got instead."""

    def __init__(self, rows: Rows, engine: Programs[Any, Any], role: str):
        self.rows = rows
        self.engine = engine
        self.role = role
        self.stated: dict[str, Stated] = {}
        self.taken: dict[str, tuple[Stated, Stated]] = {}
        """Those that have got another number of rows than is stated."""
        self.batches: dict[str, Stated] = {}
        """What holds of those that run over a minibatch, or over rows in another order."""

    def meet(self, stated: Stated) -> Stated:
        """What holds of a plate that the program has reached."""
        if not (type(stated.size) is int and stated.size == EMPTY):
            count = None if stated.rows is not None else stated.count
            refuse_plate(stated.plate, stated.size, count, self.role, stated.where)
        before = self.stated.setdefault(stated.plate, stated)
        if before.size != stated.size or before.partial != stated.partial:
            raise _conflict(before, stated, "Give the two different names")
        held = self.rows.hold(stated, self.engine.same_rows)
        if held.number != stated.number:
            self.taken[stated.plate] = stated, held
        if held.binds:
            self.batches[stated.plate] = held
        return held

    def refuse_unstated(self, site: str, plate: str) -> None:
        """A plate of a minibatch around a site, of which the run was told nothing."""
        if plate not in self.stated:
            raise ProgramError(
                f"site {site!r} of the {self.role} at {self.engine.here()} is in plate {plate!r}, whose minibatch was "
                f"drawn where no other program can know of it, once for all if the plate was made outside of the program. Make "
                f"the plate in the program, and let no handler hide it."
            )

    def around(
        self, site: str, shape: tuple[int, ...], frames: Iterable[tuple[str, int | None, int | None, int | None]]
    ) -> tuple[Plate, ...]:
        """The plates around a site of this batch shape, by name, axis, round and number of rounds; minibatches have rows."""
        frames = tuple(frames)
        refuse_plates([name for name, *_ in frames], site, self.role, self.engine.here())
        return tuple(Plate(name, dim, self._scale(name, dim, site, shape), *rounds) for name, dim, *rounds in frames)

    def _scale(self, name: str, dim: int | None, site: str, shape: tuple[int, ...]) -> float:
        """How many rows of a plate each of those that it runs over stands for."""
        if name not in self.batches:
            return 1.0
        size, rows = self.batches[name].size, self.batches[name].number
        if dim is not None and shape[dim] != rows:
            raise ProgramError(
                f"site {site!r} of the {self.role} at {self.engine.here()} has batch shape {shape}, whose axis {dim} is that "
                f"of plate {name!r} with a minibatch of {rows}: index what belongs to its rows by what it yields, as in `with "
                f"plate(...) as i: x[i]`."
            )
        return size / rows

    def in_order_of(self, plate: str) -> Any:
        """All rows of a plate, in the order that they are given in; None for the plain one, and of a minibatch."""
        held = self.batches.get(plate)
        return held.rows if held is not None and held.reordered else None

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Around the run: what goes wrong in it may be due to plates that have got other rows than it states."""
        try:
            yield
        except (ProgramError, ValueError, TypeError, RuntimeError, IndexError) as error:
            if not self.taken or isinstance(error, FiniteSiteError) or self.engine.is_signal(error):
                raise
            *_, (stated, held) = self.taken.values()
            raise ProgramError(f"{self.rows.misfit(stated, held)}. What went wrong: {error}") from error
