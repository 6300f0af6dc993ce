"""Data in files: CSV, npz and NetCDF as arrays by name. No code is ever read from them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppvi._doors import close_to, listed
from ppvi.cli.failures import InputError

MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "."))
"""What an empty cell is written as, in whatever case."""

LOGICAL = {"true": 1, "false": 0}


@dataclass(frozen=True)
class Column:
    """An array of a file, as it is there."""

    values: np.ndarray
    file: str
    lines: tuple[int, ...] | None = None
    """Those that its entries end on, in a file that has lines."""

    @property
    def is_text(self) -> bool:
        return self.values.dtype.kind in "USO"

    def place(self, index: int) -> str:
        return f"at index {index}" if self.lines is None else f"at line {self.lines[index]}"


Columns = Mapping[str, Column]


def read(files: Iterable[str]) -> dict[str, Column]:
    """All arrays of these files by name, none of which is in two."""
    found: dict[str, Column] = {}
    for file in files:
        there = _read(Path(file))
        if twice := sorted(found.keys() & there.keys()):
            raise InputError(f"--data: {twice[0]!r} is in {found[twice[0]].file} and in {file}: leave one of them out.")
        found |= there
    return found


def _read(path: Path) -> dict[str, Column]:
    readers = {".csv": _csv, ".tsv": _csv, ".txt": _csv, ".npz": _npz, ".nc": _netcdf}
    if path.suffix.lower() not in readers:
        raise InputError(f"--data {path}: it is a .csv, .tsv, .npz or .nc, of arrays by name.")
    if not path.is_file():
        raise InputError(f"--data {path}: there is no such file.{close_to(path.name, _neighbours(path))}")
    try:
        return readers[path.suffix.lower()](path)
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise InputError(f"--data {path}: it cannot be read: {' '.join(str(error).split())}.") from error


def _neighbours(path: Path) -> list[str]:
    return [x.name for x in path.parent.iterdir()] if path.parent.is_dir() else []


def _csv(path: Path) -> dict[str, Column]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        start = file.readline()
        file.seek(0)
        between = max("\t;,", key=start.count)
        reader = csv.reader(file, delimiter=between, skipinitialspace=True)
        rows = dict((reader.line_num, row) for row in reader if row)  # noqa: C402  (which is another number for each row)
    if len(rows) < 2:
        raise InputError(f"--data {path}: it needs a line with the names of the columns, and a line for each row.")
    header = [name.strip() for name in rows.pop(min(rows))]
    _refuse_header(path, header)
    for line, row in rows.items():
        if len(row) != len(header):
            raise InputError(
                f"--data {path}:{line}: {len(row)} cells, where the header has {len(header)}: quote cells with a "
                f"{between!r} in them, and fill the line up."
            )
    columns = zip(header, zip(*rows.values(), strict=True), strict=True)
    return {name: Column(_parsed([x.strip() for x in cells]), str(path), tuple(rows)) for name, cells in columns}


def _refuse_header(path: Path, header: list[str]) -> None:
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise InputError(f"--data {path}: two columns are called {twice[0]!r}: rename one of them.")
    if all(is_number(name) for name in header):
        raise InputError(
            f"--data {path}: its first line is numbers ({listed(header, 3)}): put the columns' names there."
        )


def _parsed(cells: list[str]) -> np.ndarray:
    """Whole numbers, real numbers with NaN for what is missing, logical values as 0 and 1, or texts."""
    lower = {cell.lower() for cell in cells}
    if lower <= LOGICAL.keys():
        return np.array([LOGICAL[cell.lower()] for cell in cells])
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", cell) for cell in cells):
        return np.array(cells, dtype=np.int64)
    try:
        return np.array([np.nan if cell.lower() in MISSING else _real(cell) for cell in cells])
    except ValueError:
        return np.array(["" if cell.lower() in MISSING else cell for cell in cells], dtype=object)


def is_number(text: str) -> bool:
    """Whether a text says a real number."""
    try:
        _real(text)
    except ValueError:
        return False
    return True


def _real(text: str) -> float:
    """A real number. **Raises** `ValueError` of another text; also of 1_2, which is a name in data, and a number in Python."""
    if "_" in text:
        raise ValueError(text)
    return float(text)


def _npz(path: Path) -> dict[str, Column]:
    found: dict[str, Column] = {}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            try:
                found[name] = Column(file[name], str(path))
            except ValueError as error:
                raise InputError(
                    f"--data {path}: {name!r} is of Python objects, which are code and are not read: save it as numbers, "
                    f"or leave it out."
                ) from error
    return found


def _netcdf(path: Path) -> dict[str, Column]:
    """Variables of the file; of ArviZ data those of the groups of data."""
    import xarray as xr

    found: dict[str, Column] = {}
    for group in (None, "constant_data", "observed_data"):
        try:
            with xr.open_dataset(path, group=group, engine="h5netcdf") as there:
                found |= {str(name): Column(np.asarray(x.values), str(path)) for name, x in there.data_vars.items()}
        except OSError:
            if group is None:
                raise
    if not found:
        raise InputError(f"--data {path}: it has no variables, nor groups observed_data or constant_data.")
    return found
