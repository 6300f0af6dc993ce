"""Mutable sites: what modules keep beside their parameters, such as running means of a batch norm.

A run of a program sees the state as it is before the gradient, whatever other runs have made of it: what a gradient is of does
not depend on the order of the runs. The first run of an evaluation says what the state is afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from ppvi.engine.arguments import named
from ppvi.engine.evaluations import evaluate
from ppvi.engine.formula import Formula
from ppvi.engine.protocol import Args, Kwargs, Params
from ppvi.engine.sessions import Given, Session
from ppvi.engine.unstaged import ONCE, unseen
from ppvi.errors import EngineError

State = Mapping[str, Any]
"""Of modules: the name of a mutable site -> arrays."""


class UnknownStateError(EngineError):
    """A mutable site of which nobody has said what it is."""

    def __init__(self, name: str):
        super().__init__(
            f"mutable site {name!r} has no state yet: let the program declare it with one in each of its runs, or begin with "
            f"`init` on these arguments."
        )
        self.name = name


class Modules:
    """The states of modules in an evaluation.

    **Arguments**

    - `state`: before it.
    - `makes`: whether the programs may say how others begin.
    """

    def __init__(self, state: State, makes: bool = False):
        self.state, self.makes = dict(state), makes
        self.after: dict[str, Any] = {}
        """What the first run that has a mutable site has made of it."""

    def before(self, name: str, initial: Any) -> Any:
        """What a run may change in place; None where nothing is known yet."""
        if self.makes and initial is not None:
            self.state.setdefault(name, _copied(initial))
        if not self.makes and name not in self.state:
            raise UnknownStateError(name)
        return _copied(self.state.get(name))

    def ran(self, states: State) -> None:
        """Told of what a run has made of those that it has."""
        self.after = {**states, **self.after}


class Begun:
    """How the states of modules begin, as far as they have been met."""

    def __init__(self) -> None:
        self.first: dict[str, Any] = {}

    def meet(self, state: State) -> None:
        self.first = {**state, **self.first}

    def parted(self, params: Params) -> tuple[Params, dict[str, Any]]:
        """Parameters, and states: those that are given among them, or else as they begin."""
        given = self.given(params)
        return {name: value for name, value in params.items() if name not in given}, self.first | given

    def given(self, params: Params) -> dict[str, Any]:
        """The states that are among parameters."""
        return {name: value for name, value in named(params).items() if name in self.first}

    def at(self, params: Params, begin: Callable[[Params], State]) -> dict[str, Any]:
        """How they begin with these parameters, as one may that is a copy of some; but for those that are given among them."""
        return {**begin(self.parted(params)[0]), **self.given(params)} if self.first else {}

    def last_of(self, arrays: Sequence[Any]) -> dict[str, Any]:
        """States, which are the last of some arrays."""
        leaves, structure = jax.tree.flatten(self.first)
        return jax.tree.unflatten(structure, arrays[len(arrays) - len(leaves) :])


def _copied(tree: Any) -> Any:
    return jax.tree.map(lambda x: x, tree)


def moved(formula: Formula, session: Callable[..., Session], args: Args, kwargs: Kwargs) -> dict[str, Any]:
    """The states of modules after an evaluation, of which neither densities nor a second particle are computed."""

    def start(**options: Any) -> Session:
        return session(parameters=Given(makes=True), repeats=ONCE, log_probs=unseen, **options)

    _, run = evaluate(formula, start, args, kwargs)
    return jax.tree.map(jax.lax.stop_gradient, run.engine.modules.after)
