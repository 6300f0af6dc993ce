"""One run of a program, and its density: in one number, site by site, or per plate.

A row of a minibatch of n of a plate's N rows stands for N / n of them. In the density of the whole run each counts so many
times; per plate each counts once, so that whatever function is taken of a row's density is taken of that and of no multiple of
it, and the sum over rows (`ppvi.total`) is where N / n comes in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ppvi._doors import close_to, described, listed
from ppvi._ops import Array
from ppvi._session import session
from ppvi.errors import NoChoiceError, ProgramError

Plates = str | Sequence[str]
"""The name of a plate, or several names."""


class Plate(NamedTuple):
    """A plate around a site."""

    name: str
    dim: int | None
    """Its axis, counted from the right of the site's batch shape; None where it has none, being run over in Python."""
    scale: float = 1.0
    """N / n, for a minibatch of n of the plate's N rows: how many rows each stands for."""
    round: int | None = None
    """Which of its rows this is, where the plate is run over in Python."""
    rounds: int | None = None
    """Of so many."""


@dataclass(frozen=True)
class Trace(Mapping[str, Array]):
    """One run of a program: a mapping from latent site to value, with the densities of that run.

    **Attributes**

    - `log_density`: scalar, the sum of every site's log_prob, observations, scales and masks included.
    - `log_probs`: site -> array of the site's batch shape, observed sites included, scales and masks too.
    - `returned`: what the program returned.
    """

    choices: Mapping[str, Array]
    log_probs: Mapping[str, Array]
    log_density: Array
    returned: Any = None
    plates: Mapping[str, tuple[Plate, ...]] = field(default_factory=dict)
    batch_ndims: Mapping[str, int] = field(default_factory=dict)
    auxiliary: frozenset[str] = frozenset()
    """Sites that another program, asked for the density of these choices, need not have."""
    observed: frozenset[str] = frozenset()
    """Sites whose values are data."""
    pathwise: frozenset[str] = frozenset()
    """Sites whose draw carries its own gradient."""
    placed: frozenset[str] = frozenset()
    """Sites that were not drawn, but given a value."""
    points: frozenset[str] = frozenset()
    """Sites whose distribution has all its mass at one value, as far as staging marks them."""
    whole: Trace | None = None
    """Of a marginal: the run of the whole program."""
    rows: Mapping[str, Array] = field(default_factory=dict)
    """Of sites on minibatches: `log_probs` with every row counted once, whatever it stands for."""
    present: Mapping[str, Array] = field(default_factory=dict)
    """Of sites in branches: whether the run has the site, in each round of the loops around the branch."""
    distributions: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The engine's own objects for each site, while the run is not yet stacked with others."""
    per_plates: Callable[[Plates], Array] | None = field(default=None, repr=False, compare=False)
    """How its density is found by the row of some plates, where that is no sum over sites."""

    def __getitem__(self, site: str) -> Array:
        try:
            return self.choices[site]
        except KeyError:
            observed = "; it is observed" * (site in self.observed)
            raise NoChoiceError(
                f"this run has no latent site {described(site)}{observed}: it has {listed(self.choices) or 'none'}."
                f"{close_to(site, self.choices)}"
            ) from None

    def __contains__(self, site: object) -> bool:
        return site in self.choices

    def __iter__(self) -> Iterator[str]:
        return iter(self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    @property
    def exact(self) -> bool:
        """Whether the density is exact, a product over the sites, and not an estimate."""
        return all(site in self.log_probs for site in self.choices)

    def per(self, plate: Plates | None) -> Array:
        """The log density with the axes of these plates kept, in their order, and summed over everything else.

        It is that of each row for itself: a minibatch of one of these plates has no scale N / n here, which `total` puts in.

        **Raises** `ProgramError` if a site lies outside a plate, for its log_prob then has no such axis.
        """
        if plate is None:
            return self.log_density
        return self._total(self.log_probs, plate) if self.per_plates is None else self.per_plates(plate)

    def score(self, per: Plates | None = None) -> Array:
        """log q - stop_gradient(log q) of the sites whose draws carry no gradient: zero in value, with the gradient of log q.

        Its mean gradient is zero, so that times anything which does not depend on the draws it is a control variate.

        **Raises** `ProgramError` where the density of the run is one number and not a product over its sites.
        """
        if not self.exact:
            raise ProgramError("score: the density of this run is an estimate, which is no product over its sites.")
        log_prob = self._total([site for site in self.choices if site not in self.pathwise | self.placed], per)
        now, reason = session(), "a score has mean zero, whatever does not depend on its draw weighs it"
        return log_prob - now.because(now.ops.stop_gradient(log_prob), reason)

    def log_weight(self, given: Collection[str] = (), per: Plates | None = None) -> Array:
        """Log importance weight of a run in which the sites `given` were given: their log density and the observations'.

            log w = log p(given, drawn, observed) - log density with which the run drew the rest

        **Raises** `ProgramError` where the density of the run is one number and not a product over its sites.
        """
        if self.whole is not None:
            return self.whole.log_weight(given, per)
        joined = [site for site in given if site not in self.log_probs]
        if joined:
            raise ProgramError(
                f"site {joined[0]!r} has no log_prob of its own in this run, whose density is that of "
                f"{', '.join(self.log_probs)} at once: a run in which it is given has no weight. Give the marginal a "
                f"proposal for its auxiliary sites."
            )
        return self._total([site for site in self.log_probs if site in given or site in self.observed], per)

    def along(self, x: Array, site: str, per: Plates | None, ndim: int) -> Array:
        """What there is for each index of these plates, `(*plates)`, along the axes of a site's value, of which there are so
        many."""
        ops, names = session().ops, plate_names(per)
        dims = self.dims(site, names)
        shape = [1] * self.batch_ndims[site]
        for dim, size in zip(dims, x.shape, strict=True):
            shape[dim] = size
        laid = ops.transpose(x, [dims.index(dim) for dim in sorted(dims)]) if len(dims) > 1 else x
        return ops.reshape(laid, (*shape, *[1] * (ndim - len(shape))))

    def _total(self, sites: Iterable[str], per: Plates | None) -> Array:
        names, sites = plate_names(per), list(sites)
        if not sites and names and self.log_probs:  # a sum of nothing has the plates' axes too
            return session().ops.zeros(tuple(self._total(self.log_probs, per).shape))
        cells: dict[tuple[int, ...], list[Array]] = {}
        looped = [name for name in names if sites and name in self._rounds(sites[0])]
        for site in sites:
            rounds = self._rounds(site)
            kept = self._kept(site, names, [name for name in names if name not in looped])
            if not looped:
                cells.setdefault((), []).append(kept)
            elif rounds.keys() >= set(looped):
                cells.setdefault(tuple(rounds[name] for name in looped), []).append(kept)
            else:
                raise self._outside(site, next(name for name in looped if name not in rounds))
        sums = {rounds: sum(parts, start=0.0) for rounds, parts in cells.items()}
        return self._rows_of(sums, names, looped) if looped else sums.get((), 0.0)

    def _rounds(self, site: str) -> dict[str, int]:
        """Of the plates around a site that are run over in Python, in which row it is."""
        return {plate.name: plate.round for plate in self.plates.get(site, ()) if plate.round is not None}

    def _rows_of(self, sums: Mapping[tuple[int, ...], Array], names: Sequence[str], looped: Sequence[str]) -> Array:
        """Sums of rounds along an axis for each plate that is run over in Python, in the order of the plates."""
        ops, rounds = (
            session().ops,
            {plate.name: plate.rounds or 0 for plates in self.plates.values() for plate in plates},
        )
        sizes = [rounds[name] for name in looped]
        nothing = ops.zeros(tuple(next(iter(sums.values())).shape))
        x = ops.stack([sums.get(rounds, nothing) for rounds in itertools.product(*map(range, sizes))])
        x = ops.moveaxis(x, 0, len(x.shape) - 1)
        x = ops.reshape(x, (*x.shape[:-1], *sizes))
        others, ahead = [name for name in names if name not in looped], len(x.shape) - len(names)
        order = [[*others, *looped].index(name) for name in names]
        return ops.transpose(x, [*range(ahead), *(ahead + axis for axis in order)])

    def _kept(self, site: str, names: Sequence[str], vectorised: Sequence[str]) -> Array:
        """The log_prob of a site, summed over all axes but those of the plates, of which every row counts once."""
        ops, ndim, kept = session().ops, self.batch_ndims[site], self.dims(site, vectorised)
        minibatches = [plate for plate in self.plates[site] if plate.scale != 1]
        log_prob = self.log_probs[site]
        if any(plate.name in names for plate in minibatches):
            session().owe([plate.name for plate in minibatches if plate.name in names])
            log_prob = of_minibatches(
                site, self.rows[site], [plate for plate in minibatches if plate.name not in names]
            )
        total = ops.sum(log_prob, [axis for axis in range(-ndim, 0) if axis not in kept])
        return ops.transpose(total, [sorted(kept).index(dim) for dim in kept]) if len(kept) > 1 else total

    def dims(self, site: str, names: Sequence[str]) -> list[int]:
        """The axes of plates in the log_prob of a site."""
        dims = {plate.name: plate.dim for plate in self.plates[site] if plate.dim is not None}
        for name in names:
            if name not in dims:
                raise self._outside(site, name)
        return [dims[name] for name in names]

    def _outside(self, site: str, plate: str) -> ProgramError:
        there = sorted({each.name for plates in self.plates.values() for each in plates})
        if plate not in there:
            return ProgramError(
                f"log density per plate {plate!r}: no site of this run is in such a plate; its plates are {there}."
            )
        return ProgramError(
            f"log density per plate {plate!r}: site {site!r} lies outside that plate, or in it in another way than other "
            f"sites, so its log_prob has no such axis, and no bound is a sum over the rows. Move the site into the plate; or "
            f"leave `per` out, with `elbo`, or with a plate of all rows; or sum the entries of `log_probs` that you mean."
        )


def plate_names(per: Plates | None) -> tuple[str, ...]:
    """Names of plates as a tuple."""
    if per is None:
        return ()
    names = (per,) if isinstance(per, str) else per
    if not isinstance(names, Collection) or any(not isinstance(name, str) for name in names):
        raise ProgramError(f"per= is the name of a plate, or a list of names, not {described(per)}.")
    return tuple(names)


def of_minibatches(site: str, rows: Array, plates: Iterable[Plate]) -> Array:
    """The log_prob of a site in which every row of the plates' minibatches counts for those that it stands for."""
    minibatches = [plate for plate in plates if plate.scale != 1]
    if not minibatches:
        return rows
    scale, names = math.prod(plate.scale for plate in minibatches), [plate.name for plate in minibatches]
    return session().estimate(scale * rows, f"log density of {site} on a minibatch of {', '.join(names)}", names)
