"""The first run of an objective, on tensors: it finds the parameters that the programs declare, with their initial values.

Autoguides and lazy modules make themselves when they first run, which must be part of no graph.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ppvi.engine import protocol as engine
from ppvi.engine.protocol import Params
from ppvi.errors import EngineError
from ppvi.pyro.buffers import SharedNameError
from ppvi.pyro.keys import Key, seeded
from ppvi.pyro.lending import Arguments
from ppvi.pyro.stage import what_prevents
from ppvi.pyro.unstaged import Initialisation

if TYPE_CHECKING:
    from ppvi.pyro._engine import Estimator


@dataclass(frozen=True)
class Start(engine.Start):
    """Parameters before a fit."""

    leaves: dict[str, torch.Tensor]
    """Name -> the unconstrained tensor, which for a module's parameter is the module's own."""


def initialise(bound: Estimator, key: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Start:
    """The parameters that a key begins with."""
    with seeded(key):
        if not bound.has_run:  # with random numbers that later calls do not need
            with torch.random.fork_rng():
                bound.first_run(None, {}, args, kwargs)
        session = bound.first_run(None, {}, args, kwargs)
    bound.formula.refuse_no_params(session.found)
    return start_of(session)


def start_of(session: Initialisation) -> Start:
    """What a session has found."""
    return Start(session.found, session.constraints, session.owners, session.learning, session.leaves)


def first_run(bound: Estimator, key: Key, given: Params, arguments: Arguments) -> Initialisation:
    """A run that finds the parameters that are declared with a value; the others are given."""
    start, modules = functools.partial(Initialisation, bound.formula.strategies, bound.modules, given), bound.modules

    def attempt(random: torch.Tensor) -> Initialisation:
        torch.set_rng_state(random)
        try:
            with arguments.lent(arguments.copies()) as (args, kwargs):
                return bound.formula.evaluate(start, args, kwargs)[1]
        except SharedNameError as clash:
            if clash.name in modules.values() and clash.name not in modules.shared:
                modules.tell_apart(clash.name)
                return attempt(random)
            raise

    try:
        with seeded(key), torch.no_grad():
            return attempt(torch.get_rng_state())
    except RuntimeError as error:
        if (does := what_prevents(error)) is None:
            raise
        raise EngineError(
            f"the objective {does} in a first run, which has no gradients ({error}). Use torch.func.grad, or "
            f"torch.enable_grad() and a tensor that requires a gradient."
        ) from error
