"""The runs of `benchmarks.posteriors`, `benchmarks.geometry` and `benchmarks.growth` that were made, a line of JSON each."""

from __future__ import annotations

import json
from collections import UserDict
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).parent / "curves" / "posteriors.jsonl"


class Key(NamedTuple):
    posterior: str
    way: str
    seed: int


class Records(UserDict[Any, dict[str, Any]]):
    """Each is written when it is made: a benchmark that was stopped goes on. Keys are named tuples of one kind."""

    file: Path

    @classmethod
    def read(cls, file: Path | None = None, kind: type[Any] = Key) -> Records:
        records = cls()
        records.file = file or FILE
        for line in records.file.read_text().splitlines() if records.file.exists() else []:
            kept = json.loads(line)
            records.data[kind(*(kept.pop(field) for field in kind._fields))] = kept
        return records

    def __setitem__(self, key: Any, record: dict[str, Any]) -> None:
        self.data[key] = record
        lines = [json.dumps(key._asdict() | rounded(self.data[key])) for key in sorted(self.data)]
        aside = self.file.with_suffix(".new")
        aside.write_text("\n".join(lines) + "\n")
        aside.replace(self.file)


def rounded(record: dict[str, Any]) -> dict[str, Any]:
    """Numbers to four digits, those of lists to seven."""
    return {name: rounded_to(7, 4, x) for name, x in record.items()}


def rounded_to(in_lists: int, digits: int, x: Any) -> Any:
    if isinstance(x, dict):
        return {name: rounded_to(in_lists, digits, entry) for name, entry in x.items()}
    if isinstance(x, list):
        return [rounded_to(in_lists, in_lists, entry) for entry in x]
    return float(f"{x:.{digits}g}") if isinstance(x, float) else x
