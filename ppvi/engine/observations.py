"""Data that a site cannot have: of another shape, missing, or impossible. Said of the first run, when all of them are at hand.

A value outside of a support has a density all the same, which the library computes by a formula that does not hold there.
What a mask covers is no data. A value between those of a Bernoulli is a probability, whose log_prob is a cross-entropy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ppvi._ops import Array
from ppvi.engine.distributions import SiteDistribution, uncovered
from ppvi.engine.protocol import Programs
from ppvi.engine.regions import Region
from ppvi.engine.sites import Site
from ppvi.engine.statements import given_text
from ppvi.errors import ObservedError, ProgramError

Engine = Programs[Any, Any]

ROUNDED = 1e-3
"""By which the sum of a simplex may differ from one."""

GAPS = (
    "drop them, or fill them in and leave them out by a mask, as in handlers.mask(mask=...) or poutine.mask(mask=...); "
    "`predict` draws what is missing. (obs_mask= imputes them by a site of all rows, which in the rows that are observed has "
    "no density: an autoguide of it widens there for ever)"
)
"""What to do about missing data."""

OPEN = ("Beta", "Kumaraswamy", "Gamma", "InverseGamma")
"""Distributions whose densities are 0 or infinite at the ends of their supports, as a rule."""


def fits(fn: Any, shape: tuple[int, ...]) -> bool:
    """Whether a value of this shape may be one of a distribution: of its batch, or with axes in front of it."""
    batch, lanes = tuple(fn.batch_shape), shape[: len(shape) - fn.event_dim]
    try:
        np.broadcast_shapes(shape, batch + tuple(fn.event_shape))
        return np.broadcast_shapes(batch, lanes) in (batch, lanes)
    except ValueError:
        return False


def misfit(site: Site, seen: SiteDistribution, shape: tuple[int, ...], role: str, where: str) -> ProgramError:
    """The error of a value that is of another shape than its site."""
    if problem := given_text(f"site {site.name!r} of the {role} at {where}, {seen.name},", vars(site.fn)):
        return problem
    fn, plates = site.fn, ", ".join(repr(plate.name) for plate in site.plates)
    is_data = site.observed is not None
    within = f" within {'plates' if len(site.plates) > 1 else 'plate'} {plates}" if plates else ""
    own = tuple(fn.batch_shape) + tuple(fn.event_shape)
    if shape == (*own, 1):
        hint = "Its last axis is a column: take y[..., 0]"
    elif len(own) > 1 and shape == own[::-1]:
        hint = "It seems to be transposed"
    elif 0 in shape:
        hint = "It is empty: pass rows, or leave the site out"
    else:
        hint = "Make the shapes agree, or add to_event or a plate"
    return ProgramError(
        f"site {site.name!r} of the {role} at {where}: {'an observation' if is_data else 'a value'} of shape {shape} "
        f"does not fit {seen.name} of batch shape {tuple(fn.batch_shape)}{within} and event shape "
        f"{tuple(fn.event_shape)}. {hint}."
    )


def refuse(engine: Engine, site: Site, seen: SiteDistribution, value: Array, role: str, where: str) -> None:
    """Refuse data that are missing or impossible, as far as they are known."""
    known = engine.known(value)
    if known is None or known.size == 0:
        return
    for what, remedy, gaps in _wrong(engine, seen, value, known):
        bad = uncovered(np.broadcast_to(gaps, known.shape), site.fn, engine.known)
        if bad.any():
            rows = f", first in row {np.argwhere(bad)[0][0]}" if bad.ndim else ""
            observed = what.format(n=int(bad.sum()), size=bad.size)
            said = f"site {site.name!r} of the {role} at {where} observes {observed}{rows}: {remedy}."
            raise ObservedError(said, site.name, known)


def _wrong(
    engine: Engine, seen: SiteDistribution, value: Array, known: np.ndarray
) -> Iterator[tuple[str, str, np.ndarray]]:
    """What may be wrong with data, what to do about it, and where it is, `(*batch, *event)`."""
    if known.dtype.kind == "f":
        yield "{n} NaN among {size} values", GAPS, np.isnan(known)
    if known.dtype.kind == "f" and not seen.unchecked:
        yield "{n} infinite numbers among {size} values", "drop them, or leave them out by a mask", np.isinf(known)
    if known.dtype.kind == "f" and seen.takes_integers:
        yield (
            f"labels of dtype {known.dtype}, and {seen.name} is of integers",
            "make them integers, as by y.astype(int)",
            np.ones(known.shape, bool),
        )
    support = _support(engine, seen, value, known)
    if support is not None:
        words, inside = support
        yield (
            f"{{n}} of {{size}} values outside of the support of {seen.name} ({words})",
            "look at how they are coded, or choose a distribution that has them",
            ~inside,
        )


def _support(engine: Engine, seen: SiteDistribution, value: Array, known: np.ndarray) -> tuple[str, np.ndarray] | None:
    """Where a distribution has mass in words, and which entries of the data are there; None where that is not known."""
    library = seen.library
    constraint = library.constraint(fn := library.unwrapped(seen.fn))
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    region = library.declared(constraint)
    name = region.name.lower().replace("_", "")
    if seen.unchecked or (region.kind == "other" and name not in ("simplex", "onehot", "multinomial")):
        return None
    if name in ("simplex", "onehot"):
        inside = (known >= 0).all(-1) & (np.abs(known.sum(-1) - 1) < ROUNDED)
        return "a simplex: numbers from 0 on that sum to 1", np.broadcast_to(inside[..., None], known.shape)
    if name == "boolean":
        return "0 and 1", (known >= 0) & (known <= 1)
    exactly, nearly = (engine.known(engine.check(constraint, x)) for x in (value, engine.ops.array(known)))
    if exactly is None or nearly is None:
        return None
    if name == "multinomial":
        return "counts from 0 on that sum to its total_count", np.broadcast_to(exactly[..., None], known.shape)
    # Libraries differ in whether an end belongs to a support. Where a density is finite there, it does.
    ends = [end for end in (region.lower, region.upper) if isinstance(end, float)]
    inside, at_end = exactly | nearly, np.isin(known, ends)
    is_open = seen.name in OPEN or (hasattr(fn, "transforms") and not inside[at_end].any())
    return _words(region, is_open), np.broadcast_to(inside & ~at_end if is_open else inside | at_end, known.shape)


def _words(region: Region, is_open: bool) -> str:
    what = "integers" if region.kind == "integer" else "numbers"
    ends = (("above" if is_open else "from", region.lower), ("below" if is_open else "to", region.upper))
    return " ".join([what, *(f"{word} {end:g}" for word, end in ends if isinstance(end, float) and math.isfinite(end))])
