"""How benchmarks say and keep what they have measured."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from ppvi._tables import render

PACKAGES = ("ppvi", "jax", "numpyro", "torch", "pyro-ppl")
_tables: dict[str, dict[str, Sequence]] = {}


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, and keep it with the others of this script in `out/SCRIPT.json`, with versions and machine."""
    print(render(title, header, rows), flush=True)
    _tables[title] = {"header": list(header), "rows": [list(row) for row in rows]}
    path = Path("out") / f"{Path(sys.argv[0]).stem}.json"
    path.parent.mkdir(exist_ok=True)
    kept = {"versions": _versions(), "machine": _machine(), "tables": _tables}
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def _versions() -> dict[str, str]:
    found = {x.metadata["Name"]: x.version for x in importlib.metadata.distributions()}
    return {name: found[name] for name in PACKAGES if name in found}


def _machine() -> dict[str, object]:
    return {"python": platform.python_version(), "cores": os.cpu_count(), "processor": platform.machine()}
