"""Whether `until=ppvi.Converged()` stops too early or too late.

A fit goes on for all of its steps, and it is noted where the rule would have stopped it. T is the number of steps after which
the averaged parameters were within 0.1 sd of the optimum for good. A stop is false if the worst marginal's mean was then more
than 0.3 sd from it, and late if it came after 3 T. The first table is of synthetic iterates, many noises each: 8 numbers in sds
of a posterior, whose optimum is 0. The second is of real posteriors, in double precision: Gaussians of full rank, whose optimum
is that of `approximate`, and diagonal ones, whose optimum is their average over the last half of all steps; from the start
that a guide has, and from `approximate`'s solution moved by one sd, with sds wrong by a factor of e^0.5 either way. Run with
`python -m benchmarks.stopping [--steps N] [--seconds N] [--synthetic] [NAME ...]`; the data are found as in `posteriors.py`.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable

import numpy as np

from benchmarks.posteriors import member
from benchmarks.results import table
from ppvi._averages import PARTS
from ppvi.engine.trail import BLOCK, Trail
from ppvi.stopping import Converged, drift

ERROR, FALSE, LATE = 0.1, 0.3, 3.0
ASKED = [100 * n for n in sorted({round(16 * 1.1**i) for i in range(40)})]
"""Steps after which a fit is asked, as `Converged` does."""

# Synthetic iterates ---------------------------------------------------------------------------------------------------------


def noise(rng: np.random.Generator, memory: float, sd: float, steps: int, heavy: bool = False) -> np.ndarray:
    """Stationary, with an autocorrelation of exp(-n / memory)."""
    from scipy.signal import lfilter

    kept = np.exp(-1 / memory)
    fresh = rng.standard_t(3, (steps, 8)) / np.sqrt(3) if heavy else rng.standard_normal((steps, 8))
    return sd * lfilter([np.sqrt(1 - kept**2)], [1, -kept], fresh, axis=0)


def synthetic(steps: int) -> dict[str, Callable[[np.random.Generator], np.ndarray]]:
    t = np.arange(steps)[:, None]
    decay = 3 * np.exp(-t / 500)
    found = {
        f"decay, memory {memory}, sd {sd}": lambda rng, m=memory, sd=sd: decay + noise(rng, m, sd, steps)
        for memory in (10, 100, 1000)
        for sd in (0.1, 0.5)
    }
    return found | {
        "decay, memory 100, heavy tails": lambda rng: decay + noise(rng, 100, 0.5, steps, heavy=True),
        "slow decay in 5000 steps": lambda rng: 3 * np.exp(-t / 5000) + noise(rng, 100, 0.1, steps),
        "drift of 0.1 sd in 1000 steps": lambda rng: 1e-4 * (steps - t) + noise(rng, 100, 0.1, steps),
        "drift of 0.01 sd in 1000 steps": lambda rng: 1e-5 * (steps - t) + 10 + noise(rng, 100, 1e-3, steps),
        "plateau of 8000 steps, then a drop": lambda rng: 3.0 * (t < 8000) + noise(rng, 100, 0.1, steps),
    }


def stop_of(iterates: np.ndarray) -> tuple[int, int, float]:
    """Where it stops, or 0; T; and the error at the stop. Blocks as in a fit."""
    blocks = iterates[: len(iterates) // BLOCK * BLOCK].reshape(-1, BLOCK, iterates.shape[1]).mean(1)
    asked = [n for n in ASKED if n <= len(iterates)]
    recent = [Trail({"": blocks[: n // BLOCK].T}).recent() for n in asked]
    moves = [np.stack([part.mean()[""] for part in x.parts(PARTS)]) for x in recent]
    stop = next((i for i, x in enumerate(moves) if drift(x) <= 2 * Converged().tolerance), None)
    errors = np.array([np.abs(x.mean()[""]).max() for x in recent])
    return asked[stop] if stop is not None else 0, settled(asked, errors), errors[stop] if stop is not None else np.nan


def settled(steps: list[int], errors: np.ndarray) -> int:
    """After how many steps the errors are small for good; beyond all if they never are."""
    large = np.flatnonzero(~(errors <= ERROR))
    if not len(large):
        return steps[0]
    return steps[large[-1] + 1] if large[-1] + 1 < len(steps) else 2**31


def on_synthetic(steps: int, seeds: int) -> None:
    rows = []
    for name, made in synthetic(steps).items():
        found = [stop_of(made(np.random.default_rng(seed))) for seed in range(seeds)]
        stops, times, errors = (np.array(x, float) for x in zip(*found, strict=True))
        known = (stops > 0) & (times < 2**31)
        never, false = np.mean(stops == 0), np.mean(errors > FALSE)
        late = np.mean(np.where(stops > 0, stops, steps) > LATE * times)
        ratio = f"{np.median(stops[known] / times[known]):.1f}" if known.any() else "-"
        time = f"{np.median(stops[stops > 0]):.0f}" if (stops > 0).any() else "-"
        rows.append((name, time, ratio, f"{false:.0%}", f"{late:.0%}", f"{never:.0%}"))
    header = ("iterates", "stop", "stop / T", "false", "late", f"not in {steps}")
    table(f"Synthetic iterates, {seeds} noises each", header, rows)


# Real posteriors ------------------------------------------------------------------------------------------------------------


def gone(bound, key, data, steps, seconds, params):
    """The steps that were looked at, averaged locations there, the last sds, and where it would have stopped, or 0."""
    import ppvi.numpyro as vi
    from ppvi import TimeLimit

    stops, at, locs = [], [], []

    class Watching(Converged):
        def __call__(self, fit):
            if not stops and super().__call__(fit):
                stops.append(fit.state.step)

    def note(step, fit):
        at.append(step)
        locs.append(np.asarray(fit.params["auto_loc"], float))

    options = {"until": [Watching(), TimeLimit(seconds)], "callback": note, "progress": False}
    fit = vi.fit(bound, key, **data, params=params, num_steps=steps, **options)
    scale = np.asarray(fit.params.get("auto_scale", fit.params.get("auto_scale_tril")), float)
    sds = scale if scale.ndim == 1 else np.sqrt((scale**2).sum(1))
    return at, np.array(locs), sds, stops[0] if stops else 0


def moved(params, rng):
    """Where a fit begins from a solution that is wrong by one sd, and in its sds."""
    loc, scale = (np.asarray(params[f"auto_{name}"]) for name in ("loc", "scale_tril"))
    off = rng.choice([-1.0, 1.0], loc.shape)
    return {"auto_loc": loc + scale @ off, "auto_scale_tril": scale * np.exp(0.5 * rng.choice([-1, 1]))}


def on_posterior(name: str, steps: int, seconds: float) -> list[tuple[str, ...]]:
    import jax
    from numpyro.infer.autoguide import AutoDiagonalNormal

    import ppvi.numpyro as vi
    from models.posteriors import MODELS
    from ppvi.objectives import elbo

    jax.config.update("jax_enable_x64", True)
    key = jax.random.key(0)
    data = {k: np.asarray(x) if isinstance(x, list) else x for k, x in member(name, "data.json.zip").items()}
    solved = vi.approximate(MODELS[name], key, **data)
    full = solved.objectives[0]
    optimum = np.asarray(solved.params["auto_loc"]), np.sqrt((np.asarray(solved.params["auto_scale_tril"]) ** 2).sum(1))
    diagonal = vi.objective(elbo, full.model, AutoDiagonalNormal(full.guide.model))
    ways = {
        "full rank": (full, optimum, None),
        "full rank, from near": (full, optimum, moved(solved.params, np.random.default_rng(0))),
        "diagonal": (diagonal, None, None),
    }
    rows = []
    for way, (bound, known, params) in ways.items():
        try:
            at, locs, sds, stop = gone(bound, key, data, steps, seconds, params)
        except Exception:
            traceback.print_exc()
            rows.append((name, way, *["-"] * 5, "failed"))
            continue
        loc, sd = known or (locs[-1], sds)
        errors = np.abs((locs - loc) / sd).max(1)
        time, error = settled(at, errors), errors[at.index(stop)] if stop else np.nan
        late = (stop or at[-1]) > LATE * time
        verdict = "false" if error > FALSE else "late" if late else "good" if stop else "goes on"
        shown = ("never" if time == 2**31 else str(time), f"{stop / time:.1f}" if stop and time < 2**31 else "-")
        rows.append((name, way, str(stop or "-"), *shown, f"{error:.2f}", f"{errors[-1]:.2f}", f"{verdict} ({at[-1]})"))
        print(" | ".join(rows[-1]), flush=True)
    jax.clear_caches()
    return rows


def main() -> None:
    from models.posteriors import MODELS

    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--synthetic", action="store_true", help="the synthetic iterates alone")
    options = parser.parse_args()
    on_synthetic(options.steps, options.seeds)
    if options.synthetic:
        sys.exit()
    rows = [row for name in options.names for row in on_posterior(name, options.steps, options.seconds)]
    header = ("posterior", "family", "stop", "T", "stop / T", "error", "in the end", "verdict (steps)")
    table("Real posteriors, errors in sds", header, rows)


if __name__ == "__main__":
    main()
