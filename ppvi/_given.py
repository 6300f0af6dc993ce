"""What posteriors are given as: fits, ArviZ data, MCMC of NumPyro or Pyro, draws by name, and posteriordb's files."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ppvi._doors import described, listed
from ppvi._ops import as_numpy
from ppvi._pairing import Posterior, long_axes, place_of
from ppvi.engine._arviz import group_of, is_data, names_of
from ppvi.errors import ProgramError


def is_fit(given: Any) -> bool:
    return callable(getattr(given, "posterior", None))


def is_by_name(given: Any) -> bool:
    """Whether draws come by name, with axes of chains or without."""
    return not is_data(given) and (isinstance(given, Mapping) or hasattr(given, "columns"))


def draws_of(given: Any, like: Posterior | None = None) -> Posterior:
    """The variables of a posterior, each `(chain, draw, *shape)`.

    **Arguments**

    - `like`: the other side, by whose shapes a mapping's leading axes are told apart, `(draw,)` or `(chain, draw)`.
    """
    if is_data(given):
        group = group_of(given, "posterior")
        if group is None:
            raise ProgramError(
                f"compare: ArviZ data have to have a group posterior; these have {listed(names_of(given))}."
            )
        return {str(name): _numbers(name, x) for name, x in group.data_vars.items()}
    if callable(getattr(given, "get_samples", None)):
        return {name: _numbers(name, x) for name, x in _samples(given).items()}
    if isinstance(given, str | PathLike):
        given = _read(given)
    if isinstance(given, Sequence) and given and all(isinstance(chain, Mapping) for chain in given):
        if len({tuple(chain) for chain in given}) > 1:
            raise ProgramError("compare: the chains of the reference have different names.")
        return {name: np.stack([_numbers(name, chain[name]) for chain in given]) for name in given[0]}
    if is_by_name(given):
        found = {str(name): _numbers(name, given[name]) for name in given}
        if not found:
            raise ProgramError(f"compare: there are no draws in {described(given)}.")
        return _with_chains(found, like or {})
    raise ProgramError(
        f"compare: expected a fit, ArviZ data with a posterior group, an MCMC that has run, draws by name, or a file of "
        f"posteriordb, not {described(given)}."
    )


def _samples(sampler: Any) -> Mapping[str, Any]:
    """The draws of MCMC, which does not say why there are none."""
    cause = found = None
    try:
        found = sampler.get_samples(group_by_chain=True)
    except (AttributeError, AssertionError, TypeError) as error:
        cause = error
    if found is None:
        raise ProgramError(
            f"compare: this {type(sampler).__name__} has no draws: let it run first, by its `run`, with the model's arguments."
        ) from cause
    return found


def _read(path: str | PathLike[str]) -> Any:
    """The draws of posteriordb: a list of chains, each a dict from the name of a scalar to draws; zipped or not."""
    file = Path(os.fspath(path))
    if not file.is_file():
        raise ProgramError(
            f"compare: there is no file {described(path)}; draws of posteriordb are in a .json or .json.zip."
        )
    try:
        if not zipfile.is_zipfile(file):
            return json.loads(file.read_text())
        with zipfile.ZipFile(file) as archive:
            return json.loads(archive.read(archive.namelist()[0]))
    except (ValueError, IndexError) as error:
        raise ProgramError(
            f"compare: {os.fspath(path)!r} has no draws in JSON, as posteriordb has them: {error}"
        ) from None


def diverged(given: Any) -> int | None:
    """How many draws of MCMC were divergent; None where nobody says."""
    stats = group_of(given, "sample_stats")
    if stats is not None and "diverging" in stats:
        return int(stats["diverging"].sum())
    extra = given.get_extra_fields() if callable(getattr(given, "get_extra_fields", None)) else {}
    if "diverging" in extra:
        return int(np.sum(extra["diverging"]))
    told = given.diagnostics() if callable(getattr(given, "diagnostics", None)) else {}
    return sum(map(len, told["divergences"].values())) if "divergences" in told else None


def log_weights_of(given: Any) -> np.ndarray | None:
    """The log importance weights of draws, if there are any."""
    stats = group_of(given, "sample_stats")
    return None if stats is None or "log_weight" not in stats else np.asarray(stats["log_weight"], float).ravel()


def _numbers(name: Any, x: Any) -> np.ndarray:
    try:
        return as_numpy(x.detach() if callable(getattr(x, "detach", None)) else x, float)
    except (TypeError, ValueError):
        raise ProgramError(f"compare: {name!r} has to be draws, an array of numbers, not {described(x)}.") from None


def _with_chains(draws: Mapping[str, Any], like: Posterior) -> Posterior:
    """Draws by name with an axis of chains in front, and one of draws."""
    known = [
        fits for name, x in draws.items() if name in like and (fits := _leading(np.shape(x), np.shape(like[name])))
    ]
    scalars = {np.ndim(x) for name, x in draws.items() if place_of(name) is not None}
    least = min(map(np.ndim, draws.values()), default=0)
    leading = min(set.intersection(*known), default=0) if known else max(scalars, default=least)
    if leading not in (1, 2) or len({np.shape(x)[:leading] for x in draws.values()}) > 1:
        raise ProgramError(
            "compare: draws by name are arrays of the shape (draws, ...) or (chains, draws, ...), with the same draws in all; "
            f"these have the shapes { {name: np.shape(x) for name, x in draws.items()} }."
        )
    many = [name for name, x in draws.items() if leading == 2 and np.shape(x)[0] > np.shape(x)[1]]
    if many and not known and not scalars:
        chains, count = np.shape(draws[many[0]])[:2]
        raise ProgramError(
            f"compare: {many[0]} may be {chains} draws of a vector, or {chains} chains of {count} draws. Say which: a list of "
            f"chains, each by name with arrays (draws, ...), is [draws] if there is one; or give ArviZ data."
        )
    return dict(draws) if leading == 2 else {name: x[None] for name, x in draws.items()}


def _leading(shape: tuple[int, ...], like: tuple[int, ...]) -> set[int]:
    """How many axes may be in front of an array's own, which are those of the other side, or as many."""
    alike = {n for n in (1, 2) if n <= len(shape) and long_axes(shape[n:]) == long_axes(like[2:])}
    return alike or {len(shape) - len(like) + 2} & {1, 2}
