"""What an autoguide has kept of its first run: where each site has its values.

It maps real numbers onto these by a transform that is made once. Where the support of a site moves, with other data, rows,
parameters or sites, its draws stay where they were, and no library looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ppvi.engine.calls import name_of
from ppvi.engine.regions import Library, region_of
from ppvi.engine.sites import Site
from ppvi.errors import ProgramError

ROUNDING = 1e-5
"""By how much ends may differ that are the same, in shares of the larger."""

Known = Callable[[Any], np.ndarray | None]
"""An array as NumPy's, or None where that is not known."""


def refuse_moved(guide: Any, site: Site, library: Library, known: Known, where: str) -> None:
    """Refuse a latent site of the model whose support is not that with which its autoguide has begun, as far as it is known."""
    begun = _begun(guide, site.name)
    if begun is None or site.observed is not None:
        return
    then, now = ([_known(end, known) for end in _ends(fn, library)] for fn in (begun, site.fn))
    rounding = ROUNDING * _size([*then, *now])
    if all(_agree(one, other, rounding) for one, other in zip(then, now, strict=True)):
        return
    raise ProgramError(
        f"site {site.name!r} of the model at {where} has its values {_said(now)}, and {name_of(guide)} keeps to those of its "
        f"first run, {_said(then)}. For other data make a new guide, and an objective of it. If the support moves with other "
        f"sites, parameters or the rows of a minibatch, take a distribution of fixed support and transform its draw, as in "
        f"u ~ Uniform(0, 1) and {site.name} = low + (high - low) * u."
    )


def _begun(guide: Any, name: str) -> Any:
    """The distribution that a site had in the first run of an autoguide, if that has been; not of a list of guides, some of
    whose sites may be drawn by programs of the user's."""
    run = None if type(guide).__name__ == "AutoGuideList" else getattr(guide, "prototype_trace", None)
    sites: Mapping[str, Any] = getattr(run, "nodes", run) or {}
    return sites.get(name, {}).get("fn")


def _ends(fn: Any, library: Library) -> tuple[Any, Any]:
    region = region_of(fn, library)
    return (region.lower, region.upper) if region.kind == "real" else (None, None)


def _known(end: Any, known: Known) -> np.ndarray | None:
    return np.asarray(end) if isinstance(end, float) else None if end is None else known(end)


def _agree(one: np.ndarray | None, other: np.ndarray | None, rounding: float) -> bool:
    """Whether two ends are the same as far as is known, but for rounding, which differs with the type of the data. Those of
    other shapes are of data of other sizes, of which more is said elsewhere."""
    if one is None or other is None or one.shape != other.shape:
        return True
    return np.allclose(one, other, rtol=0, atol=rounding)


def _size(ends: Iterable[np.ndarray | None]) -> float:
    """The largest number among ends."""
    return max((float(np.abs(x).max()) for x in ends if x is not None and x.size and np.isfinite(x).all()), default=0.0)


def _said(ends: list[np.ndarray | None]) -> str:
    lower, upper = (None if end is None or np.isinf(end).all() else end for end in ends)
    words = [] if lower is None else [f"above {lower.min():.6g}"]
    words += [] if upper is None else [f"below {upper.max():.6g}"]
    return " and ".join(words) or "on the whole line"
