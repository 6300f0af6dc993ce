"""Arguments that are NaN or infinite in places: which, in which rows, and whether a density is so for them.

Numbers that are missing are right where a mask leaves them out, or where a program fills them in. So nothing is said of them
but where a site's density is not finite, and is with other numbers in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ppvi._doors import first_of
from ppvi.engine.arguments import Programs
from ppvi.engine.data import is_of_framework, leaves_of, mapped
from ppvi.engine.protocol import Args, Estimator, Kwargs, Params
from ppvi.errors import ProgramError

Known = Callable[[Any], np.ndarray | None]
"""What a framework's array is as NumPy's, None where it is traced."""


def gaps(programs: Programs, known: Known, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """Which arguments are NaN or infinite, and where, as clauses of a sentence."""
    found = []
    for name, leaf in leaves_of(programs, args, kwargs):
        x = _floats(known, leaf)
        if x is None or (fine := np.isfinite(x)).all():
            continue
        what = "infinite" if not np.isnan(x).any() else "NaN or infinite" if np.isinf(x).any() else "NaN"
        rows = list(map(str, np.unique(np.argwhere(~fine)[:, 0]))) if x.ndim else []
        found.append(f"argument {name} is {what}" + (f" in rows {first_of(rows, 3)}" if rows else ""))
    return found


def gaps_of(bound: Estimator, args: Args, kwargs: Kwargs) -> list[str]:
    """The same of the arguments of an objective."""
    return gaps((bound.formula.model, bound.formula.guide), bound.known, args, kwargs)


def refuse_gaps(bound: Estimator, key: Any, params: Params, args: Args, kwargs: Kwargs) -> None:
    """Refuse arguments for whose gaps a density is not finite."""
    if not (found := gaps_of(bound, args, kwargs)):
        return
    filled = [_filled(bound, x) for x in args], {name: _filled(bound, x) for name, x in kwargs.items()}
    lost = bound.culprits(key, params, args, kwargs)
    if lost and not bound.culprits(key, params, tuple(filled[0]), filled[1]):
        raise ProgramError(
            f"{' and '.join(found)}, for which {lost[0]}: drop these rows, or fill them in and leave them out by a mask."
        )


def _floats(known: Known, x: Any) -> np.ndarray | None:
    """An array or a number of floats, if it is one and known."""
    is_number = type(x) is float
    if not is_number and "float" not in str(getattr(x, "dtype", "")).lower():
        return None
    if is_number or is_of_framework(x):
        return known(x)
    column: Any = x
    return column.to_numpy(float, na_value=np.nan) if hasattr(x, "iloc") else np.asarray(x)


def _filled(bound: Estimator, x: Any) -> Any:
    """An argument with the median of its numbers in place of what is none."""

    def fill(leaf: Any) -> Any:
        numbers = _floats(bound.known, leaf)
        if numbers is None or (fine := np.isfinite(numbers)).all():
            return leaf
        other = np.where(fine, numbers, np.median(numbers[fine]) if fine.any() else 1.0)
        if is_of_framework(leaf):
            return bound.in_format(other, str(leaf.dtype).removeprefix("torch."))
        return float(other) if isinstance(leaf, float) else other.astype(numbers.dtype)

    return mapped(x, fill)
