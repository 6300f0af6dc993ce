"""Checkpoints: states of a fit in files, which are whole or not there, and are refused where they are not this fit's.

A file holds arrays in the safetensors format and, in its header, JSON: the version of this format, what the fit is of, and a
digest of the arrays. No code is ever read from it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ppvi._identity import difference, identity
from ppvi._ops import Array, as_numpy
from ppvi._trees import mapped
from ppvi.engine.protocol import Params
from ppvi.engine.trail import Trail
from ppvi.engine.training import State
from ppvi.errors import ProgramError
from ppvi.objective import Objective

FORMAT = 2
KEPT = 3
LOSSES = "losses"


class UnusableError(Exception):
    """A file that a fit cannot go on from."""


class SoFar(Protocol):
    """What is written of a fit."""

    @property
    def params(self) -> Params: ...

    @property
    def state(self) -> State: ...

    @property
    def start(self) -> int: ...

    @property
    def approximated(self) -> Any: ...


@dataclass
class Checkpoints:
    """The files of one fit."""

    folder: Path
    what: dict[str, Any]
    """What the fit is of."""
    next: float = field(default_factory=time.monotonic)
    written: tuple[int, int] | None = None
    """Step and start of the last file."""

    def __init__(self, folder: str | PathLike[str], objectives: Sequence[Objective], start: int):
        self.folder, self.what, self.next = Path(folder), identity(objectives), time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProgramError(f"fit: checkpoint= is a folder, and {self.folder} cannot be one: {error}.") from error
        for step, path in _files(self.folder):
            if step > start and _is_usable(path):
                raise ProgramError(
                    f"fit: {self.folder} holds a fit at step {step}, and this one begins at step {start}: go on from "
                    f"there, with state=ppvi.load({str(self.folder)!r}, objective), or write to another folder."
                )

    def write_in_time(self, so_far: Callable[[], SoFar]) -> None:
        """Write a fit if that takes less than a twentieth of the time since the last one was written."""
        began = time.monotonic()
        if began >= self.next:
            self.write(so_far())
            self.next = time.monotonic() + 19 * (time.monotonic() - began)

    def write(self, fit: SoFar) -> None:
        """Write a fit, unless it is there, and then remove the oldest files; a warning says where that cannot be done, and the
        fit goes on."""
        if self.written == (fit.state.step, fit.start):
            return
        try:
            self._write(fit.state, fit.params, fit.start, fit.approximated)
            self.written = fit.state.step, fit.start
        except OSError as error:
            warnings.warn(f"fit: no checkpoint of step {fit.state.step} could be written: {error}.", stacklevel=4)

    def _write(self, state: State, params: Params, start: int, approximated: Any) -> None:
        arrays = {f"arrays/{name}": _as_numpy(x) for name, x in state.arrays.items()} | {LOSSES: state.losses}
        formats = mapped(params, lambda _, x: str(x.dtype).removeprefix("torch."))
        mapped(params, lambda path, x: arrays.setdefault(f"params/{path}", _as_numpy(x)))
        if state.trail is not None:
            arrays |= {f"trail/{name}": np.ascontiguousarray(x) for name, x in state.trail.means.items()}
        header = {
            "format": FORMAT,
            "of": self.what,
            "step": state.step,
            "starts": state.starts,
            "start": start,
            "params": repr(formats),
            "width": state.trail and state.trail.width,
            "approximated": approximated and asdict(approximated),
            "digest": _digest(arrays),
        }
        path = self.folder / f"step-{state.step:09d}.safetensors"
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                file.write(save(arrays, {"ppvi": json.dumps(header)}))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        _sync(self.folder)
        for _, old in [(step, old) for step, old in _files(self.folder) if step < state.step][KEPT - 1 :]:
            old.unlink(missing_ok=True)


def newest(
    folder: str | PathLike[str], objectives: Sequence[Objective], array: Callable[[Any, str], Any]
) -> tuple[State, Params, int]:
    """The state, the constrained parameters and the start that these are of, of the newest file that is whole and of these
    objectives; a warning names every newer one and what it is.

    **Arguments**

    - `array`: makes the framework's arrays of NumPy's, in a format by its name.

    **Raises** `ProgramError` if there is none.
    """
    refused, what = [], identity(objectives)
    for _, path in _files(Path(folder)):
        try:
            found = _read(path, what, array)
        except UnusableError as error:
            refused.append(f"{path} {error}")
            continue
        for reason in refused:
            warnings.warn(f"load: {reason}; {path.name} is used instead.", stacklevel=5)
        return found
    why = "; ".join(refused) or "there is no file step-*.safetensors in it"
    raise ProgramError(f"load: {folder} has no checkpoint to go on from: {why}.")


def approximation(folder: str | PathLike[str]) -> dict[str, Any] | None:
    """What the newest file that is whole says of a fit of `approximate`, with the engine; None where there is none."""
    for _, path in _files(Path(folder)):
        with suppress(UnusableError):
            header, _ = _opened(path)
            return header.get("approximated") and {"engine": header["of"]["engine"], **header["approximated"]}
    return None


def _files(folder: Path) -> Iterator[tuple[int, Path]]:
    """Steps and files, the last first."""
    found = [(path.stem.removeprefix("step-"), path) for path in folder.glob("step-*.safetensors")]
    yield from sorted(((int(step), path) for step, path in found if re.fullmatch("[0-9]+", step)), reverse=True)


def _read(
    path: Path, what: Mapping[str, Any] | None = None, array: Callable[[Any, str], Any] = lambda x, _: x
) -> tuple[State, Params, int]:
    header, arrays = _opened(path)
    if what is not None and (other := difference(header["of"], what)):
        raise UnusableError(f"is of another fit: {other}")
    of_state, means = _under("arrays/", arrays), _under("trail/", arrays)
    formats = ast.literal_eval(header["params"])
    params = mapped(formats, lambda path, dtype: array(arrays[f"params/{path}"], dtype))
    trail = Trail(means, header["width"]) if header.get("width") else None
    return State(of_state, arrays[LOSSES], header["starts"], trail), params, header["start"]


def _opened(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a file says and holds.

    **Raises** `UnusableError` where it is not as it was written.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})["ppvi"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise UnusableError(f"is cut off or no checkpoint ({error})") from error
    if header.get("format") != FORMAT:
        raise UnusableError(f"is of format {header.get('format')}, and this version of ppvi reads format {FORMAT}")
    if header.get("digest") != _digest(arrays):
        raise UnusableError("has been changed since it was written")
    return header, arrays


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}


def _is_usable(path: Path) -> bool:
    try:
        _read(path)
    except UnusableError:
        return False
    return True


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name in sorted(arrays):
        x = arrays[name]
        found.update(f"{name} {x.dtype.str} {x.shape} ".encode())
        found.update(x.tobytes())
    return found.hexdigest()


def _as_numpy(x: Array) -> np.ndarray:
    """An array of a framework; formats that NumPy lacks as float32, which holds all their numbers."""
    if "float8" in str(x.dtype) or "bfloat16" in str(x.dtype):
        x = x.astype(np.float32) if hasattr(x, "astype") else x.float()
    return np.asarray(as_numpy(x), order="C")


def _sync(folder: Path) -> None:
    """A rename is on the disk when its folder is."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
