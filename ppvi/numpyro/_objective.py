"""The way from three programs of NumPyro to an objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ppvi._options import door
from ppvi.engine.formula import ObjectiveProgram
from ppvi.objective import Engine, Objective
from ppvi.strategies import Strategy


@door
def objective(
    program: ObjectiveProgram,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *,
    strategies: Mapping[str, Strategy] | None = None,
    maximize: bool | None = None,
) -> Objective:
    """Transform an objective program into a gradient estimator.

    **Arguments**

    - `program`: a function of two handles, the model and the guide, that returns one real number (`ppvi.program`).
    - `model`, `guide`: NumPyro programs; the arguments of a call go to both, as in SVI.
    - `strategies`: gradient strategies by site name. A site without one gets `Reparam` where it has a reparameterised
      sampler, `Enumerate` where its support is small and finite and its lanes are separable, else `LeaveOneOut(2)`.
    - `maximize`: whether `fit` and `as_loss` go uphill. By default they do, unless the program is marked `minimized`, as
      the library's divergences and upper bounds are.

    **Returns** an `Objective`.
    """
    return Objective(program, model, guide, strategies=strategies, maximize=maximize, engine=Engine("numpyro"))
