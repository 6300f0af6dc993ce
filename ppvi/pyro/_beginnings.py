"""The first run of an objective, on tensors: it finds the parameters that the programs declare, with their initial values.

Autoguides and lazy modules make themselves when they first run, which must be part of no graph.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch

from ppvi.engine import protocol as engine
from ppvi.engine.evaluations import evaluate
from ppvi.engine.formula import Formula
from ppvi.engine.protocol import Params
from ppvi.engine.sessions import Session
from ppvi.engine.unstaged import ONCE, unseen
from ppvi.errors import EngineError, ObservedError, ProgramError
from ppvi.pyro._buffers import Modules, SharedNameError
from ppvi.pyro._compat import level
from ppvi.pyro._keys import Key, seeded
from ppvi.pyro._lending import Arguments
from ppvi.pyro._programs import PyroPrograms, scope_of
from ppvi.pyro._stage import what_prevents


@dataclass(frozen=True)
class Start(engine.Start):
    """Parameters before a fit."""

    leaves: dict[str, torch.Tensor]
    """Name -> the unconstrained tensor, which for a module's parameter is the module's own."""


class Found:
    """Parameters are found: they are made where they are declared with a value, and are given where they are not."""

    makes = True

    def __init__(self) -> None:
        self.values: dict[str, torch.Tensor] = {}
        self.leaves: dict[str, torch.Tensor] = {}
        self.owners: dict[str, set[str]] = {}

    def value(self, session: Session, name: str, initial: Callable[[], Any], constraint: Any, role: str) -> Any:
        store = pyro.get_param_store()
        self.owners.setdefault(name, set()).add(role)
        if name not in self.values:
            value = initial()
            if value is None and name in session.params:
                return session.params[name].detach()
            if value is None:
                raise ProgramError(
                    f"parameter {name!r} of the {role} at {session.here()} has no initial value: write "
                    f"pyro.param({name!r}, value) at the first place where it is asked for."
                )
            if level():
                raise EngineError(
                    f"parameter {name!r} at {session.here()} is first declared under torch.vmap or torch.func, which its "
                    f"initial value cannot leave. Declare it outside and use its value inside; for runs of a program there is "
                    f"ppvi.replicate(n, thunk)."
                )
            # A module's own parameter stays what it is, so that what changes it changes the module.
            own = isinstance(value, torch.nn.Parameter)
            session.made(name, value, constraint, role)
            made: Any = store.setdefault(name, value if own else torch.as_tensor(value).detach().clone(), constraint)
            self.values[name] = value if own else made.detach().clone()
            self.leaves[name] = made.unconstrained()
            session.constraints[name] = constraint
        return store[name]


def first_run(formula: Formula, modules: Modules, key: Key, given: Params, arguments: Arguments) -> Start:
    """A run that finds the parameters that are declared with a value; the others are given."""

    drawn: set[str] = set()
    """Sites whose observations depend on draws."""

    def begin(**options: Any) -> Session:
        options |= {
            "repeats": ONCE,
            "log_probs": lambda *site: torch.as_tensor(unseen(*site, drawn=drawn, guide=formula.guide)),
            "parameters": Found(),
        }
        return Session(PyroPrograms(modules), given, formula.strategies, scope_of(), **options)

    def attempt(random: torch.Tensor) -> Start:
        torch.set_rng_state(random)
        try:
            with arguments.lent(arguments.copies()) as (args, kwargs):
                _, session = evaluate(formula, begin, args, kwargs)
            found: Any = session.parameters
            return Start(found.values, session.constraints, found.owners, session.learning, found.leaves)
        except SharedNameError as clash:
            if clash.name in modules.values() and clash.name not in modules.shared:
                modules.tell_apart(clash.name)
                return attempt(random)
            raise

    def looked_at(random: torch.Tensor) -> Start:
        """What a site observes is data if it is the same of other draws."""
        try:
            return attempt(random)
        except ObservedError as error:
            try:
                attempt(torch.Generator().manual_seed(zlib.crc32(random.numpy().tobytes())).get_state())
            except ObservedError as again:
                if again.site == error.site and np.array_equal(again.value, error.value, equal_nan=True):
                    raise error from None
            drawn.add(error.site)
            return looked_at(random)

    try:
        with seeded(key), torch.enable_grad():  # a program may have derivatives of its own
            return looked_at(torch.get_rng_state())
    except RuntimeError as error:
        if (does := what_prevents(error)) is None:
            raise
        raise EngineError(
            f"the objective {does} in a first run, which has no gradients ({error}). Use torch.func.grad, or "
            f"torch.enable_grad() and a tensor that requires a gradient."
        ) from error
