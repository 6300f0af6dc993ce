"""The runs of `benchmarks.posteriors` that were made, a line of JSON each."""

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


class Records(UserDict[Key, dict[str, Any]]):
    """Each is written when it is made: a benchmark that was stopped goes on."""

    @classmethod
    def read(cls) -> Records:
        records = cls()
        for line in FILE.read_text().splitlines() if FILE.exists() else []:
            kept = json.loads(line)
            records.data[Key(*(kept.pop(field) for field in Key._fields))] = kept
        return records

    def __setitem__(self, key: Key, record: dict[str, Any]) -> None:
        self.data[key] = record
        lines = [json.dumps(key._asdict() | rounded(self.data[key])) for key in sorted(self.data)]
        aside = FILE.with_suffix(".new")
        aside.write_text("\n".join(lines) + "\n")
        aside.replace(FILE)


def rounded(record: dict[str, Any]) -> dict[str, Any]:
    """To four digits."""
    return {name: float(f"{x:.4g}") if isinstance(x, float) else x for name, x in record.items()}
