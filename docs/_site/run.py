"""Run the code of one page, in a process of its own, and keep what it prints and draws.

    python docs/_site/run.py PAGE OUTPUT

What a cell prints, and the names of its figures, are entry by entry in the JSON file OUTPUT; figures lie beside it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
from cells import cells_of

ROOT = Path(__file__).resolve().parents[2]


def run(page: Path, output: Path) -> None:
    """Run all cells in one namespace, which is that of a script, beside a copy of the page in an empty folder."""
    page, output = page.resolve(), output.resolve()
    main = types.ModuleType("__main__")
    main.__file__ = str(page)
    sys.modules["__main__"] = main
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        beside = Path(shutil.copy(page, folder))
        found = []
        for cell in cells_of(page):
            if cell.runs:
                found.append(_outcome(compile(cell.code(), beside, "exec"), main, output, len(found)))
        os.chdir(page.parent)
    output.write_text(json.dumps(found, indent=1))


def _outcome(code: Any, main: types.ModuleType, output: Path, number: int) -> dict[str, Any]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, main.__dict__)
    said = printed.getvalue().rstrip().replace(f"{ROOT}/", "")
    return {"printed": said, "figures": _figures(output, number)}


def _figures(output: Path, number: int) -> list[str]:
    if "matplotlib.pyplot" not in sys.modules:
        return []
    from matplotlib import pyplot as plt

    names = []
    for i in plt.get_fignums():
        names.append(f"{output.stem}_{number}_{i}.png")
        plt.figure(i).savefig(output.with_name(names[-1]), dpi=110, bbox_inches="tight")
    plt.close("all")
    return names


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
