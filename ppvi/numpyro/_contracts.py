"""Functions of JAX, and one of ours, that the checks take as a whole, by what they compute, and not by the code that does.

An inverse is a smooth function of a matrix that has one, and its code swaps rows; an integral of an exponential is smooth, and
its code goes by pieces and in loops until it is near enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ppvi.numpyro import _compat

CONTRACTS: dict[tuple[str, str], str] = {
    **{("numpy/linalg.py", name): name for name in ("slogdet", "det")},
    **{("numpy/linalg.py", name): "solve" for name in ("solve", "inv", "_pinv")},
    ("numpy/lax_numpy.py", "diagonal"): "diagonal",
    ("scipy/linalg.py", "_solve"): "solve",
    ("scipy/linalg.py", "expm"): "expm",
    ("scipy/special.py", "expi"): "expi",
    **{("scipy/special.py", name): "expn" for name in ("expn", "_expn")},  # the latter since JAX 0.12
    ("numpy/ufuncs.py", "hypot"): "hypot",
    ("numpy/lax_numpy.py", "_interp"): "interp",
    ("numpy/lax_numpy.py", "searchsorted"): "searchsorted",
    ("scipy/ndimage.py", "_map_coordinates"): "map_coordinates",
    ("lax/other.py", "logaddexp"): "logaddexp",
    ("numpyro/_ops.py", "_log_sum"): "logsumexp",
}
"""By file and name: the operation of the checks' algebra that it is."""


def contract(eqn: Any) -> str | None:
    """The name in the algebra of a call of such a function; None of any other equation."""
    body = _compat.body(eqn) if eqn.primitive.name in _compat.ONE_RUN else None
    if body is None:
        return None
    name, path = _compat.written_at(body)
    known = "jax/_src/" in path or path.endswith("ppvi/numpyro/_ops.py")
    found = CONTRACTS.get(("/".join(path.split("/")[-2:]), name)) if known else None
    other = found in _OTHERWISE and _OTHERWISE[found](eqn)
    return None if other else found


def _rounds(eqn: Any) -> bool:
    """Whether it is a rounding, or there is one in its body."""
    body = _compat.body(eqn)
    return eqn.primitive.name == "round" or (body is not None and any(map(_rounds, body.jaxpr.eqns)))


_OTHERWISE: dict[str, Callable[[Any], bool]] = {
    "interp": lambda eqn: len(eqn.invars) != 3,
    "map_coordinates": _rounds,
}
"""Whether a call is another function: one with values of its own beyond the ends, or that takes the nearest entry."""
