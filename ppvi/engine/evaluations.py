"""Evaluations: the objective program, run once in a session, and what its verbs ask for meanwhile."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ppvi._doors import described, noted
from ppvi._ops import Array
from ppvi.engine.calls import name_of
from ppvi.engine.divergences import closed_form
from ppvi.engine.formula import Formula
from ppvi.engine.handles import Handle
from ppvi.engine.minibatches import Minibatches, Stated, agreed
from ppvi.engine.protocol import Args, Kwargs
from ppvi.engine.sessions import Session
from ppvi.engine.sites import Counted
from ppvi.engine.summed import assessed
from ppvi.errors import ProgramError
from ppvi.ir import Estimate
from ppvi.program import Trace, staging


def evaluate(formula: Formula, start: Callable[..., Session], args: Args, kwargs: Kwargs) -> tuple[Array, Session]:
    """The value of the objective program in a session that `start` makes, and the session; begun anew in another one
    where a plate that was run over turns out to have a minibatch."""

    def attempt(known: Mapping[str, Stated]) -> tuple[Array, Session]:
        session = start(plate_rows=Minibatches(known))
        return run_in(formula, session, args, kwargs), session

    return agreed(attempt)


def run_in(formula: Formula, session: Session, args: Args, kwargs: Kwargs) -> Array:
    """Run the objective program once in a session."""
    with handles(formula, session, args, kwargs) as (p, q), session.engine.direct(session):
        try:
            value = formula.program(p, q)
        except Exception as error:
            noted(error, f"the objective program {name_of(formula.program)!r}.")
            raise
        session.owed.refuse()
        session.names.refuse_data_of_the_guide()
    return _real_scalar(value, session, name_of(formula.program))


@contextmanager
def handles(formula: Formula, session: Session, args: Args, kwargs: Kwargs) -> Iterator[tuple[Handle, Handle]]:
    """The model and the guide in a session, which is the one that verbs act on."""
    given = args, dict(kwargs)
    with staging(Evaluation(session, *given)), session.surroundings():
        yield Handle(formula.model, "model", session, *given), Handle(formula.guide, "guide", session, *given)


@dataclass(eq=False)
class Evaluation:
    """What a session does for the verbs of the objective language; a `ppvi._session.Session`."""

    session: Session
    args: Args
    kwargs: dict[str, Any]

    def __post_init__(self) -> None:
        session = self.session
        self.ops, self.array, self.because = session.ops, session.array, session.because
        self.constant_params = session.constant_params
        self.settle, self._repeats = session.owed.settle, session.repeats or session.engine

    def handle(self, fn: Callable[..., Any], *leading: Any) -> Handle:
        """A handle on a program that is neither the model nor the guide."""
        role = f"program {name_of(fn)}"
        return Handle(functools.partial(fn, *leading), role, self.session, self.args, self.kwargs)

    def summed(self, whole: Any, choices: Mapping[str, Any], sites: Collection[str] | None, strict: bool) -> Trace:
        """The run of a program with these choices in which finite sites without one are summed out."""
        return assessed(whole, choices, sites, strict)

    def finite(self, whole: Any) -> Collection[str]:
        """The latent sites of a program, which has been run, that have finitely many values."""
        return self.session.names.finite(whole.role)

    def each(self, function: Callable[..., Any], stacks: Sequence[Any], n: int | None) -> Any:
        """`function` of every entry along the leading axis of the stacks, `n` of them where there are no stacks."""
        return self._repeats.each(self.session, function, stacks, n or self._length(stacks))

    def fold(self, count: Array, body: Callable[[Array, Any], Any], carry: Any) -> Any:
        """`carry` after `body(i, carry)` for i below `count`, every site simply drawn, without a gradient."""
        return self._repeats.fold(self.session, count, body, carry)

    def choice(self, site: str, log_weights: Array, n: int | None) -> Array:
        """A site that chooses along the leading axis with these log weights, `n` times where `n` is given."""
        if self.session.marks is None:  # weights that are all zero choose as equal ones do
            none, zero = self.ops.max(log_weights, 0) == -math.inf, self.ops.zeros(())
            log_weights = self.ops.where(none, zero, log_weights)
        lanes = tuple(log_weights.shape[1:]) if n is None else (n, *log_weights.shape[1:])
        return self.session.draw(site, self.session.engine.choosing(log_weights, lanes), {}).value

    def kl(self, q: Counted, p: Counted, ratio: Array) -> Array | None:
        """KL divergence between the distributions of one site, counted and summed; None where no closed form is known."""
        return closed_form(self.session, q, p, ratio)

    def poisson(self, rate: float) -> Array:
        return self.session.engine.poisson(self.session.scope, rate)

    def geometric(self, decay: float) -> Array:
        return self.session.engine.geometric(self.session.scope, decay)

    def subset(self, data: Any, size: int) -> tuple[Any, int]:
        """Rows of the data, drawn without replacement, and how many there are in all."""
        total = self._length([data])
        if size > total:
            raise ProgramError(f"minibatch: there are {total} rows, fewer than a batch of {size}.")
        rows = self.session.engine.subset(self.session.scope, total, size)
        return self.ops.tree_map(lambda x: self.array(x)[rows], data), total

    def _length(self, stacks: Sequence[Any]) -> int:
        """The size of the leading axis that all arrays share."""
        sizes: set[tuple[int, ...]] = set()
        self.ops.tree_map(lambda x: sizes.add(tuple(self.array(x).shape[:1])), list(stacks))
        if len(sizes) != 1 or sizes == {()}:
            raise ProgramError(
                f"each: the stacks must share the size of their leading axis; theirs are {sorted(sizes)}."
            )
        return sizes.pop()[0]

    def owe(self, plates: Sequence[str]) -> None:
        """Densities are given out in which the rows of these plates' minibatches count once."""
        self.session.owed.owe(plates, self.session.here())

    def estimate(self, value: Array, what: str, plates: Sequence[str] = ()) -> Array:
        """The value, marked as an unbiased estimate, on the minibatches of these plates."""
        value = self.session.recorder.estimate(value, what, plates)
        return self.session.noted(value, Estimate(what))


def _real_scalar(value: Any, session: Session, name: str) -> Array:
    if type(value) in (int, float) and session.assesses:
        raise ProgramError(
            f"objective {name!r} returned a number of Python's, {type(value).__name__}, which has no gradient: return the "
            f"array that it has computed, without float() or .item()."
        )
    if hasattr(value, "dtype") or (isinstance(value, int | float) and not isinstance(value, bool)):
        value = session.array(value)
        dtype = str(value.dtype).removeprefix("torch.")
        if tuple(value.shape) == () and dtype.startswith(("float", "bfloat")):
            return value
        if tuple(value.shape) == () and dtype.startswith(("int", "uint")):
            return value * 1.0
    if callable(value):
        raise ProgramError(
            f"objective {name!r} returned {described(value)}, which wants to be called first: a function that makes an "
            f"objective is called with what it makes it of, as in objective(iwelbo(5), model, guide)."
        )
    raise ProgramError(
        f"objective {name!r} returned {described(value)}: it must return one real number; sum or average it."
    )
