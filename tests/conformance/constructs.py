"""Tables of the two libraries' constructs, each in a small model and guide whose objective is known from outside.

A row is right where the mean of value and gradient at one point of the parameters is that of a formula in NumPy and SciPy,
whose gradient is taken by differences of the fourth order, with an error of about 1e-9. Where nothing is drawn one evaluation
has to be equal to it; where something is, the mean of N has to be within z = 6.2 standard errors in every coordinate
(two-sided level 6e-10 each), so that a bias of 0.3 standard deviations of an estimate is seen at N = 1000.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

import ppvi
from ppvi.objectives import elbo
from tests.engines import ENGINES, double, on, ppl

Z = 6.2
STEP = 1e-3


class Row(NamedTuple):
    """A construct in a program."""

    name: str
    make: Callable[[], tuple[Any, Any]]
    """Model and guide, on the engine in force."""
    exact: Callable[..., Any]
    """The objective as a function of the parameters by name."""
    params: Mapping[str, Any] = {}
    engines: tuple[SimpleNamespace, ...] = ENGINES
    draws: int = 1
    strategies: Mapping[str, Any] | None = None
    marks: Any = ()


class Refusal(NamedTuple):
    """A construct that is refused, by an error that says what to write instead."""

    name: str
    make: Callable[[], tuple[Any, Any]]
    words: tuple[str, ...]
    params: Mapping[str, Any] = {}
    engines: tuple[SimpleNamespace, ...] = ENGINES


def cases(rows: list[Any]) -> list[Any]:
    """Rows by engine, to be parametrised with."""
    return [
        pytest.param(row, engine, id=f"{row.name}-{engine.name}".replace(" ", "_"), marks=getattr(row, "marks", ()))
        for row in rows
        for engine in row.engines
    ]


def nothing() -> None:
    """A guide without a site."""


def points(**names: str) -> Callable[[], None]:
    """A guide with its sites at the values of parameters: points(z="m")."""
    from tests.engines import dist

    def guide() -> None:
        for site, param in names.items():
            at = ppl.param(param)
            ppl.sample(site, dist.Delta(at, event_dim=at.ndim))

    return guide


def slopes(exact: Callable[..., Any], params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The gradient of a formula, by differences."""

    def slope(name: str, i: int) -> float:
        def at(step: float) -> float:
            moved = np.array(params[name], float)
            moved.reshape(-1)[i] += step
            return float(exact(**{**params, name: moved}))

        return (8 * (at(STEP) - at(-STEP)) - (at(2 * STEP) - at(-2 * STEP))) / (12 * STEP)

    return {
        name: np.array([slope(name, i) for i in range(np.size(x))]).reshape(np.shape(x)) for name, x in params.items()
    }


def wrong(row: Row, engine: Any, objective: Any = elbo) -> list[str]:
    """The coordinates in which a row is not as the formula says."""
    params = {name: np.asarray(x, float) for name, x in row.params.items()}
    wanted = {"value": np.asarray(float(row.exact(**params))), **slopes(row.exact, params)}
    with double(), on(engine):
        bound = engine.vi.objective(objective, *row.make(), strategies=row.strategies)
        here = {name: engine.array(x) for name, x in params.items()}
        found = [bound.value_and_grad(engine.key(seed), here) for seed in range(row.draws)]
    draws = {"value": np.array([float(value) for value, _ in found])}
    draws |= {name: np.stack([np.asarray(grads[name]) for _, grads in found]) for name in params}
    said = []
    for name, x in draws.items():
        error = x.std(0, ddof=1) / len(x) ** 0.5 if len(x) > 1 else np.zeros(x.shape[1:])
        within = Z * error + 1e-6 * max(1.0, np.abs(wanted[name]).max(initial=0.0))
        if not (np.abs(x.mean(0) - wanted[name]) <= within).all():
            said.append(f"{name}: {x.mean(0)}, not {wanted[name]}, +- {error}")
    return said


def refusal(row: Refusal, engine: Any) -> str:
    """What is said of a construct that is refused."""

    def run() -> None:
        bound = engine.vi.objective(elbo, *row.make())
        bound.value_and_grad(
            engine.key(0), {name: engine.array(np.asarray(x, float)) for name, x in row.params.items()}
        )

    with double(), on(engine), pytest.raises(ppvi.PpviError) as raised:
        run()
    return "\n".join([str(raised.value), *getattr(raised.value, "__notes__", ())])
