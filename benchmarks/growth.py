"""How costs grow: a gradient of ppvi beside one by hand, from small sizes to large, axis by axis.

Each axis is a row of `CASES`: its sizes, and what makes for a size the functions of a key and of arrays that are compared. Of
each are measured the processor seconds of one compiled call, the contenders taking turns, which are those of the clock where
there is one processor and nobody else; those to stage and trace it, and to compile it; and the bytes at its peak, by XLA's
count: arguments, results and temporary arrays. An axis ends before what needs more than 6 GB, and after what takes more than a
minute a call or ten to compile. Every size is a record in `curves/growth.jsonl`; what has a record is not run again.

    python -m benchmarks.growth [AXIS ...] [--largest N] [--again]      # words in names of axes
    python -m benchmarks.growth --table                                 # from the records: RESULTS.md and the figure

Run it with one thread: `taskset -c 0`. Several processes are started by `benchmarks.growth_peers`, and timed by the clock.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import ppvi
from benchmarks import growth_peers
from benchmarks.growth_cases import Call, lanes, layer, mean_field, nested, particles, sites, streamed, subsampled, walk
from benchmarks.growth_pages import FILE, Key, draw
from benchmarks.growth_peers import told
from benchmarks.posterior_records import Records
from benchmarks.timing import rounds

SECONDS, MOST_BYTES, MOST_SECONDS, MOST_COMPILING = 1.0, 6e9, 60.0, 600.0
"""Of the rounds in which contenders take turns; and where an axis ends."""


# The table of cases, and what is measured -----------------------------------------------------------------------------------


def decades(first: float, last: float, each: int = 2) -> list[int]:
    """Sizes from one to another, so many a decade, of one digit."""
    powers = np.arange(round(each * np.log10(first)), round(each * np.log10(last)) + 1) / each
    return [int(float(f"{10**x:.0e}")) for x in powers]


class Case(NamedTuple):
    axis: str
    sizes: Sequence[int]
    made: Callable[[int], dict[str, Call]] | None = None
    measured: Callable[[int], dict[str, Any]] | None = None
    """In place of calls: the whole record."""


def of_calls(made: dict[str, Call], seconds: float) -> dict[str, Any]:
    """What is measured of contenders."""
    found, calls = {}, {}
    jax.block_until_ready([args for _, args in made.values()])
    for name, (function, args) in made.items():
        jitted, start = jax.jit(function), time.process_time()
        lowered = jitted.lower(*args)
        traced = time.process_time()
        program = lowered.compile()
        found[name] = {"traced": traced - start, "compiled": time.process_time() - traced, **bytes_of(program)}
        calls[name] = lambda jitted=jitted, args=args: jitted(*args)
    if max(each["bytes"] for each in found.values()) > MOST_BYTES:
        return found | {"error": "more than 6 GB"}
    times = rounds(calls, seconds, least=3, clock=time.process_time)
    for name, each in times.items():
        found[name]["seconds"] = float(np.median(each))
    return found | told(times)


def of_stream(n: int) -> dict[str, Any]:
    times = streamed(n)
    return told(times) | {name: {"seconds": float(np.median(each))} for name, each in times.items()}


def bytes_of(program: Any) -> dict[str, int]:
    """Bytes of a compiled program, by XLA's count."""
    x = program.memory_analysis()
    whole = x.temp_size_in_bytes + x.argument_size_in_bytes + x.output_size_in_bytes - x.alias_size_in_bytes
    return {"bytes": whole, "temporary": x.temp_size_in_bytes}


CASES = [
    Case("sites, a chain", decades(10, 1e3), lambda n: sites(n, star=False)),
    Case("sites, a star", decades(10, 1e3), lambda n: sites(n, star=True)),
    Case("lanes, Enumerate", decades(1e3, 1e7), lambda n: lanes(n, ppvi.Enumerate())),
    Case("lanes, Reinforce", decades(1e3, 1e7), lambda n: lanes(n, ppvi.Reinforce())),
    Case("particles, IWELBO", decades(1, 1e4), particles),
    Case("rounds, Reparam", decades(10, 1e5), lambda n: walk(n, ppvi.Reparam())),
    Case("rounds, Reinforce", decades(10, 1e5), lambda n: walk(n, ppvi.Reinforce())),
    Case("data, subsampled plate", decades(1e3, 1e7), subsampled),
    Case("data, fit(batches=)", decades(1e3, 1e7), measured=of_stream),
    Case("parameters, AutoNormal", decades(1e2, 1e8, 1), mean_field),
    Case("parameters, dense layer", decades(1e2, 1e8, 1), layer),
    Case("nested replicates, n x n", decades(3, 1e3), nested),
    Case("processes, strong", [1, 2, 4, 8], measured=lambda n: growth_peers.measured(n)["strong"]),
    Case("processes, weak", [1, 2, 4, 8], measured=lambda n: growth_peers.measured(n)["weak"]),
]


def measure(case: Case, size: int) -> dict[str, Any]:
    if case.measured is not None:
        return case.measured(size)
    assert case.made is not None
    return of_calls(case.made(size), SECONDS)


def is_last(record: dict[str, Any]) -> bool:
    """Whether larger sizes would take too long, or too much."""
    slow = max(record[name].get("seconds", 0.0) for name in ("ppvi", "by hand"))
    first = max(record[name].get("compiled", 0.0) for name in ("ppvi", "by hand"))
    return "error" in record or slow > MOST_SECONDS or first > MOST_COMPILING


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("axes", nargs="*", default=[""], metavar="AXIS", help="words in the names of axes")
    parser.add_argument("--largest", type=float, default=np.inf, help="no sizes above this")
    parser.add_argument("--again", action="store_true", help="what has a record, too")
    parser.add_argument("--table", action="store_true", help="only write the table and the figure")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    records = Records.read(FILE, Key)
    asked = [case for case in CASES if any(word in case.axis for word in options.axes)]
    for case in [] if options.table else asked:
        for size in (n for n in case.sizes if n <= options.largest):
            key = Key(case.axis, size)
            if options.again or key not in records:
                records[key] = measure(case, size)
                print(*key, records[key], flush=True)
                jax.clear_caches()
            if is_last(records[key]):
                break
    draw(records, [case.axis for case in CASES])
    return 0


if __name__ == "__main__":
    sys.exit(main())
