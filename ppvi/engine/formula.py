"""An objective as an engine sees it: three programs, the strategies of their sites, and a direction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ppvi._ops import Array
from ppvi.engine.minibatches import Minibatches, Stated, agreed
from ppvi.engine.runs import Handle
from ppvi.engine.sessions import Session
from ppvi.errors import ProgramError
from ppvi.objectives.families import equal
from ppvi.program import Program, staging
from ppvi.strategies import Strategy

ObjectiveProgram = Callable[[Program, Program], Array]


@dataclass(frozen=True, eq=False)
class Formula:
    """E over the draws of the programs of what the first of them returns, of which an engine estimates the gradient."""

    program: ObjectiveProgram
    model: Callable[..., Any]
    guide: Callable[..., Any]
    strategies: dict[str, Strategy] = field(default_factory=dict)
    """Site -> strategy."""
    maximize: bool = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Formula) and equal(list(vars(self).values()), list(vars(other).values()))

    def __hash__(self) -> int:
        return hash((*map(_hash, (self.program, self.model, self.guide)), *sorted(self.strategies)))

    def evaluate(
        self, start: Callable[[], Session], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Array, Session]:
        """The value of the objective program in a session that `start` makes, and the session; begun anew in another one
        where a plate that was run over turns out to have a minibatch."""

        def attempt(known: Mapping[str, Stated]) -> tuple[Array, Session]:
            session = start()
            session.plate_rows, session.begun_anew = Minibatches(known), bool(known)
            return self.run(session, args, kwargs), session

        return agreed(attempt)

    def run(self, session: Session, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Array:
        """Run the objective program once in a session."""
        with self.handles(session, args, kwargs) as (p, q), session.engine.direct(session):
            value = self.program(p, q)
            session.owed.refuse()
            session.names.refuse_data_of_the_guide()
        return _real_scalar(value, session, _name(self.program))

    @contextmanager
    def handles(
        self, session: Session, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Iterator[tuple[Handle, Handle]]:
        """The model and the guide in a session, which is the one that verbs act on."""
        kwargs = dict(kwargs)
        session.args, session.kwargs = args, kwargs
        with staging(session), session.surroundings():
            yield Handle(self.model, "model", session, args, kwargs), Handle(self.guide, "guide", session, args, kwargs)

    def refuse_no_params(self, found: Collection[str]) -> None:
        """An objective without parameters has nothing to fit."""
        if not found:
            raise ProgramError(
                f"neither the guide {_name(self.guide)} nor the model {_name(self.model)} declares a parameter, so there is "
                f"nothing to fit: declare one with `param`, or use an autoguide such as AutoNormal(model)."
            )


def _hash(program: Any) -> int:
    try:
        return hash(program)
    except TypeError:
        return 0


def _real_scalar(value: Any, session: Session, name: str) -> Array:
    if hasattr(value, "dtype") or (isinstance(value, int | float) and not isinstance(value, bool)):
        value = session.array(value)
        dtype = str(value.dtype).removeprefix("torch.")
        if tuple(value.shape) == () and dtype.startswith(("float", "bfloat")):
            return value
        if tuple(value.shape) == () and dtype.startswith(("int", "uint")):
            return value * 1.0
        what = f"an array of shape {tuple(value.shape)} and dtype {dtype}"
    else:
        what = "a function, which wants to be called first" if callable(value) else type(value).__name__
    raise ProgramError(f"objective {name} returned {what}: it must return one real number; sum or average it.")


def _name(fn: Any) -> str:
    return repr(getattr(fn, "__name__", type(fn).__name__))
