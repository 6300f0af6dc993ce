"""Programs of which finite sites are summed out: their log density, exactly.

    log p(x) = log sum_z p(x, z)

The program runs once with a marker in place of every site that is summed out, and tells the density of each of its sites. From
what the engine has staged of that run the compiler makes the sum (`ppvi.compiler.summing`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal as Choice, NamedTuple, TypeVar

import numpy as np

from ppvi._ops import Array, Ops
from ppvi.compiler.dependence import site_lanes
from ppvi.compiler.summing import Part, log_density, pointwise
from ppvi.engine.handles import Handle
from ppvi.engine.pieces import Piece, Staged, Told
from ppvi.engine.runs import Assess
from ppvi.engine.sameness import same_number
from ppvi.engine.sessions import Session
from ppvi.engine.sites import Arrays, Site, SiteRecord
from ppvi.errors import ProgramError
from ppvi.ir import At, Candidate, Density, Equation, Literal, Note, Sited, SiteInfo
from ppvi.program import Plates, Trace, plate_names, session as verbs
from ppvi.strategies.base import Draw, Strategy

Operations = TypeVar("Operations", bound=Ops)


@dataclass(frozen=True, eq=False)
class Summand(Strategy):
    """What stands for the value of a site that is summed out: any of these, `(K, *event)`."""

    values: np.ndarray

    chained: ClassVar[Choice["draw", "draws", "chain"] | None] = "draw"


class SumOut(Assess):
    """Give every latent site the value that it has among the choices, and sum out the finite sites that have none."""

    def __init__(
        self,
        role: str,
        session: Session,
        choices: Mapping[str, Any],
        sites: Collection[str] | None,
        strict: bool = True,
    ):
        super().__init__(role, session, choices, strict)
        self.sites = sites
        """Those that are summed out beside all finite sites without a value."""

    def clear(self) -> None:
        super().clear()
        self.told = Told([], [], [])
        self.weights: dict[str, tuple[Array, bool]] = {}

    def visit(self, site: Site) -> tuple[Array, Array, At]:
        named = site.name in (self.sites or ())
        if not named and (site.name in self.given or site.fixed is not None):
            return super().visit(site)
        seen = self.session.scope.distribution(site.fn)
        if not seen.has_enumerate_support and named:
            raise ProgramError(
                f"summed: site {site.name!r} of the {self.role} at {self.session.here()} is {seen.name}, which has not "
                f"finitely many values; draw it in the guide."
            )
        if not seen.has_enumerate_support:
            return super().visit(site)
        session, ops = self.session, self.session.ops
        key = session.engine.key(session.scope)
        value, log_prob = seen.sample(key), ops.zeros(tuple(site.fn.batch_shape))
        if session.marks is not None:
            values = finite(session, seen, site)
            draw = Candidate(Summand(values), (0, *(None for _ in Draw._fields[1:])))
            info = SiteInfo(site.name, seen.name, session.here(), len(seen.lanes), (draw,), True, (), seen.support)
            value = session.marks.mark_site(info, key, [value])
        # A mask leaves them as they are, for a variable that is masked is drawn all the same.
        self.weights[site.name] = seen.weights()
        return value, log_prob, "draw"

    def observe(self, site: Site) -> tuple[Array, Array, At]:
        # What stands for a site that is summed out may give the support an end that the data are beyond.
        if self.session.parameters.makes and self.weights and self.session.scope.distribution(site.fn).bounds():
            return self.session.observed(site, self.role), self.session.ops.zeros(tuple(site.fn.batch_shape)), "data"
        return super().observe(site)

    def density(self, site: Site, at: At) -> tuple[Density | None, Sequence[Array]]:
        if site.name in self.weights:
            return None, [self.weights[site.name][0]]
        return super().density(site, at)

    def record(self, record: SiteRecord, arrays: Arrays) -> None:
        name, ops, marks = record.name, self.session.ops, self.session.marks
        batch, own = len(arrays.log_prob.shape), name in self.weights
        if own:
            [array] = arrays.bounds
            if arrays.present is not None:  # where a branch has passed it over, all its values are one
                shape = (*arrays.present.shape, *[1] * (len(array.shape) - len(arrays.present.shape)))
                array = ops.where(ops.reshape(arrays.present, shape), array, _nothing(array, self.weights[name][1]))
        else:
            array = self.agreeing(name, arrays)
            if record.density is not None and marks is not None:
                array = marks.mark_note(array, record.density, arrays.value, *arrays.bounds)
            if record.latent:
                self.values[name] = arrays.value
        self.log_probs[name] = array
        self.plates[name] = record.plates
        self.session.owed.meet(record.plates)
        scale = 1.0 if arrays.scale is None else arrays.scale
        if isinstance(scale, int | float):
            number = float(scale)
        else:
            number, whole = None, scale.shape
            self.told.scales.append(ops.reshape(scale, (*[1] * (batch - len(whole)), *whole)))
        shape, is_probability = tuple(array.shape), own and self.weights[name][1]
        if own:
            shape = (*arrays.value.shape[: len(shape) - 1], shape[-1])
        is_data = not (own or record.latent)
        piece = Piece(name, record.where, batch, shape, record.plates, number, own, is_probability, is_data)
        self.told.pieces.append(piece)
        self.told.arrays.append(array)

    def finish(self, returned: Any) -> Any:
        if self.strict:
            self.refuse_unused(self.given)
        for name in self.sites or ():
            if name not in self.weights:
                observed = ", which observes it" if name in self.log_probs and name not in self.values else ""
                raise ProgramError(
                    f"summed: the {self.role} has no latent site {name!r} to sum out{observed}; it has "
                    f"{sorted({*self.values, *self.weights})}."
                )
        return self


def finite(session: Session, seen: Any, site: Site) -> np.ndarray:
    """The values of a finite site, `(K, *event)`."""
    values = session.engine.values_of(seen.peeled)
    if values is None:
        raise ProgramError(
            f"site {site.name!r} at {session.here()} cannot be summed out: how many values {seen.name} has depends on what is "
            f"drawn, or on an argument. Give it a number."
        )
    return values[(slice(None), *[0] * len(seen.lanes))]


def _nothing(weights: Array, is_probability: bool) -> float:
    count = weights.shape[-1]
    return 1 / count if is_probability else -math.log(count)


def assessed(whole: Any, choices: Mapping[str, Any], sites: Collection[str] | None, strict: bool) -> Trace:
    """The run of a program with these choices, in which finite sites that have none are summed out."""
    if not isinstance(whole, Handle):
        raise ProgramError(
            f"summed: {whole} has a density that is no product over sites: sum out those of the program that it is made of, as "
            f"in marginal(summed(p), ...)."
        )
    density, seen = log_sum(whole, choices, sites, None, strict)
    kept = [name for name in seen.kept if name in choices]
    label = f"{whole.role} without {', '.join(piece.name for piece in seen.pieces if piece.own)}"
    return Trace(
        choices={name: whole.session.array(choices[name]) for name in kept},
        log_probs={label: density},
        log_density=density,
        plates={label: (), **{piece.name: piece.plates for piece in seen.pieces if piece.name in kept}},
        batch_ndims={label: 0, **{piece.name: piece.batch for piece in seen.pieces if piece.name in kept}},
        observed=frozenset(piece.name for piece in seen.pieces if not piece.own and piece.name not in seen.kept),
        placed=frozenset(kept),
        per_plates=lambda per: log_sum(whole, choices, sites, per, strict)[0],
    )


class Completed(NamedTuple):
    """What is known of finite sites that are summed out, given the others."""

    drawn: dict[str, Any]
    """Values of theirs."""
    probs: dict[str, Any]
    """The probability of each value, `(*lanes, K)`."""
    log_density: Any
    """Of the others."""
    pointwise: dict[str, Any]
    """Of data of which each entry has finite sites of its own, the log density by entry, summed over these."""


class Seen(NamedTuple):
    """What a run was of, without its arrays, which may not leave it."""

    pieces: Sequence[Piece] = ()
    kept: Sequence[str] = ()
    """Its latent sites that are not summed out."""


def telling(
    whole: Handle, choices: Mapping[str, Any], sites: Collection[str] | None, strict: bool, seen: list[Seen]
) -> Callable[[], Told]:
    """A run of a program with these choices, which leaves in `seen` what it was of."""

    def run() -> Told:
        done: Any = whole.run(SumOut(whole.role, whole.session, choices, sites, strict))
        seen[:] = [Seen(done.told.pieces, list(done.values))]
        return done.told

    return run


def log_sum(
    whole: Handle, choices: Mapping[str, Any], sites: Collection[str] | None, per: Plates | None, strict: bool = True
) -> tuple[Array, Seen]:
    """The log density of choices with finite sites summed out, `per` plates, of which each row counts once."""
    session, names = whole.session, plate_names(per)
    found: list[Seen] = []
    run = telling(whole, choices, sites, strict, found)

    def sizes(pieces: Sequence[Piece]) -> list[int]:
        return [pieces[0].shape[axis] for axis in _axes(pieces[0], names)] if pieces else []

    if session.parameters.makes:
        density = session.ops.zeros(sizes(run().pieces))
    else:
        density = session.engine.summed(
            session, run, sizes, functools.partial(eliminated, names=names, note=session.noted)
        )
    [seen] = found
    batches = list(dict.fromkeys(plate.name for piece in seen.pieces for plate in piece.plates if plate.scale != 1))
    if kept := [name for name in batches if name in names]:
        verbs().owe(kept)
    if others := [name for name in batches if name not in names]:
        density = verbs().estimate(density, f"log density on a minibatch of {', '.join(others)}", others)
    return density, seen


def _axes(piece: Piece, names: Sequence[str]) -> tuple[int, ...]:
    """The axes of a piece's batch that are these plates."""
    dims = {plate.name: plate.dim for plate in piece.plates}
    for name in names:
        if dims.get(name) is None:
            raise ProgramError(
                f"log density per plate {name!r}: site {piece.name!r} at {piece.where} lies outside that plate, or in it in "
                f"another way than other sites, so that its log_prob has no such axis. Leave `per` out."
            )
    return tuple(piece.batch + dims[name] for name in names)  # type: ignore[operator]


def eliminated(
    staged: Staged,
    ops: Ops,
    names: Sequence[str] = (),
    shifts: Mapping[str, Array] | None = None,
    note: Callable[[Array, Note], Array] | None = None,
) -> Array:
    """The sum, from what is staged, by the row of the plates of these names; `shifts` as for `log_density`. What is said of it
    is a `note`."""
    parts, values = _parts(staged, ops, names)
    total, how = log_density(staged.equations, staged.env, values, parts, ops, shifts)
    return total if shifts is not None or note is None else note(total, how)


def by_entry(staged: Staged, ops: Ops) -> dict[str, Array]:
    """The log density of each entry of data, marginal over the sites that are summed out, where it has its own of them."""
    parts, values = _parts(staged, ops, ())
    data = {piece.name for piece in staged.pieces if piece.is_data}
    return pointwise(staged.equations, staged.env, values, parts, data, ops)


def _parts(staged: Staged, ops: Ops, names: Sequence[str]) -> tuple[list[Part], dict[Equation[Sited], Array]]:
    """The factors of what is staged, and the values of the sites that are summed out."""
    sites = _summed_in(staged)
    scales, parts, runs = iter(staged.atoms[len(staged.pieces) :]), [], range(staged.mapped)
    for piece, atom in zip(staged.pieces, staged.atoms, strict=False):
        scale = next(scales) if piece.scale is None else None
        alike = piece.scale if scale is None else same_number(scale, staged)
        own = sites.get(piece.name)
        if piece.own and own is None:  # a site on which nothing depends, whose probabilities have the sum 1
            lanes = atom.shape[:-1]
            atom = Literal(ops.zeros(lanes), lanes, atom.dtype)
        minibatches = [plate for plate in piece.plates if plate.scale != 1]
        part = Part(
            name=piece.name,
            where=piece.where,
            atom=atom,
            own=own,
            is_probability=own is not None and piece.is_probability,
            scale=None if isinstance(alike, float) else scale,
            alike=alike,
            rate=math.prod(plate.scale for plate in minibatches),
            counts=math.prod(plate.scale for plate in minibatches if plate.name not in names)
            * (alike if isinstance(alike, float) else 1.0),
            kept=(*runs, *(len(runs) + axis for axis in _axes(piece, names))),
            rows=tuple(len(runs) + piece.batch + x.dim for x in minibatches if x.dim is not None),
        )
        parts.append(part)
    return parts, {site: in_lanes(values_at(site), site) for site in sites.values()}


def _summed_in(staged: Staged) -> dict[str, Equation[Sited]]:
    """The sites that are summed out of what the run has told, which may stand beside others in one program."""
    wanted, found = set(staged.atoms), {}
    for equation in reversed(staged.equations):
        if not wanted.isdisjoint(equation.outputs) and equation.op != SUM:
            wanted.update(equation.inputs)
            if isinstance(equation.role, Sited) and is_summed(equation.role.info):
                found[equation.role.info.name] = equation
    return found


SUM = "summed"
"""The operation that stands for a sum which is still to be made."""


def values_at(site: Equation[Sited]) -> np.ndarray:
    """The values of a site that is summed out, `(K, *event)`."""
    return site.role.info.candidates[0].strategy.values  # type: ignore[attr-defined]


def in_lanes(values: np.ndarray, site: Equation[Sited]) -> np.ndarray:
    """Values that are the same for all lanes, `(K, *ones, *event)`."""
    return values.reshape((len(values), *[1] * len(site_lanes(site)), *values.shape[1:]))


Alternatives = Mapping[str, tuple[tuple[int, ...], np.ndarray, str]]


def alternatives_of(staged: Staged) -> Alternatives:
    """Of each site that is summed out the lanes, the values, `(K, *event)`, and their format."""
    return {
        name: (site_lanes(site), values_at(site), site.outputs[0].dtype) for name, site in _summed_in(staged).items()
    }


def conditional(
    about: Alternatives,
    ops: Operations,
    choosing: Operations,
    derivative: Callable[[Operations, dict[str, Array]], dict[str, Array]],
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Values of sites that are summed out, given all else, and the probability of each value, `(*lanes, K)`.

    **Arguments**

    - `choosing`: operations by which the derivative of a log of a sum is one of its terms.
    - `derivative`: of the sum, by some operations, in its `shifts`.
    """
    zeros = {name: ops.zeros((*lanes, len(values))) for name, (lanes, values, _) in about.items()}
    chosen = derivative(choosing, zeros)
    drawn = {name: ops.constant(values, dtype)[chosen[name].argmax(-1)] for name, (_, values, dtype) in about.items()}
    return drawn, derivative(ops, zeros)


def is_summed(info: SiteInfo) -> bool:
    return isinstance(info.candidates[0].strategy, Summand)
