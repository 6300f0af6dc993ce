"""Full runs of pages: `python -m gallery NAME ...`, or of all of them; each in a process of its own. Then the table anew."""

from __future__ import annotations

import os
import subprocess
import sys

from gallery.table import TABLE, pages, render


def run(names: list[str]) -> None:
    """Run these pages in full, or all, and write the table."""
    known = {page.stem: page for page in pages()}
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"There is no page {', '.join(unknown)} in tutorials/gallery; there are {', '.join(known)}.")
    for name in names or known:
        print(f"== {name}", flush=True)
        command = [sys.executable, str(known[name])]
        subprocess.run(command, env={**os.environ, "PPVI_GALLERY": "full", "MPLBACKEND": "Agg"}, check=True)
    TABLE.write_text(render())


if __name__ == "__main__":
    run(sys.argv[1:])
