"""Gradients on several processes of one machine, by `jax.distributed` over loopback: seconds of a step and bytes moved in it.

Logistic regression with data that the processes share and Adam, as in `benchmarks.scaling`: what a process has to tell the
others is the likelihood and its gradient. `python -m benchmarks.growth_peers ADDRESS PROCESSES NUMBER` is one process.
"""

from __future__ import annotations

import functools
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import ppvi.numpyro as vi
from benchmarks.timing import rounds
from ppvi.objectives import elbo

ROWS = 400_000
"""Of all processes together where they share one problem, and eight times those of each where each has its own."""
WIDTHS = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1}
MOVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@functools.cache
def measured(processes: int) -> dict[str, Any]:
    """What the first of so many processes has measured, of one problem for all of them and of one for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "benchmarks.growth_peers", address, str(processes)]
    started = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(processes)]
    outputs = [each.communicate(timeout=900)[0] for each in started]
    assert not any(each.returncode for each in started)
    return json.loads(outputs[0].splitlines()[-1])


def moved(program: str) -> Iterator[tuple[str, int]]:
    """Operations in a compiled program's text that move arrays between processes, with the bytes that they result in."""
    for shapes, operation in re.findall(rf"= (\(?[^=]*?\)?) ({'|'.join(MOVES)})(?:-start)?\(", program):
        sizes = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
        yield (
            operation,
            sum(WIDTHS[kind] * int(np.prod([int(n) for n in dims.split(",") if n])) for kind, dims in sizes),
        )


def told(times: dict[str, np.ndarray]) -> dict[str, float]:
    """The ratio of ppvi to by hand, by round where they took turns."""
    ratios = times["ppvi"] / times["by hand"]
    return {"ratio": float(np.median(ratios)), "least": float(ratios.min()), "most": float(ratios.max())}


def of_process(processes: int, rows: int) -> dict[str, Any]:
    """Of this process among them."""
    from benchmarks import scaling  # which computes as it is imported, and JAX has to be told of processes before

    mesh = Mesh(np.array(jax.devices()), ("data",))
    rng = np.random.default_rng(jax.process_index())
    own = rng.standard_normal((rows, scaling.SIZE), np.float32), np.float32(rng.random(rows) < 0.5)
    split, copy = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    x, y = (jax.make_array_from_process_local_data(split, part) for part in own)
    bound, written = vi.objective(elbo, scaling.model, scaling.guide), scaling.by_hand(1)
    first = bound.init(jax.random.key(0), *own)
    params, number = jax.device_put(first, copy), jax.device_put(np.uint32(0), copy)

    def ours(number: Any, params: Any, x: Any, y: Any) -> Any:
        return bound.value_and_grad(jax.random.key(number), params, x, y)

    def by_hand(number: Any, params: Any, x: Any, y: Any) -> Any:
        return jax.value_and_grad(written)(params, jax.random.key(number), x, y)

    args, found, calls = (number, params, x, y), {}, {}
    for name, function in (("ppvi", ours), ("by hand", by_hand)):
        step: Callable[..., Any] = jax.jit(function)
        moves = list(moved(step.lower(*args).compile().as_text()))
        found[name] = {"moves": len(moves), "moved": sum(size for _, size in moves)}
        calls[name] = lambda step=step: step(*args)
    # Processes have to make the same calls: blocks of one, and as many rounds in each.
    times = rounds(calls, 0.0, block=0.0, least=15)
    for name, each in times.items():
        found[name]["seconds"] = float(np.median(each))
    return found | told(times) | {"processes": processes, "rows": rows}


def main(address: str, processes: int, number: int) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, processes, number)
    print(json.dumps({"strong": of_process(processes, ROWS // processes), "weak": of_process(processes, ROWS // 8)}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
