"""The staging in progress, which the verbs of the objective language act on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from ppvi._ops import Array, Ops
from ppvi.errors import ProgramError

T = TypeVar("T")


class Session(Protocol):
    """One staging of an objective, as the verbs see it."""

    ops: Ops

    def array(self, value: Any, /) -> Array: ...
    def each(self, function: Callable[..., Any], stacks: Sequence[Any], n: int | None) -> Any: ...
    def handle(self, fn: Callable[..., Any], *leading: Any) -> Any: ...
    def summed(self, whole: Any, choices: Mapping[str, Array], sites: Collection[str] | None, strict: bool) -> Any: ...
    def finite(self, whole: Any) -> Collection[str]: ...
    def constant_params(self, stop: bool | str) -> AbstractContextManager[None]: ...
    def choice(self, site: str, log_weights: Array, n: int | None) -> Array: ...
    def kl(self, q: Any, p: Any, ratio: Array) -> Array | None: ...
    def fold(self, count: Array, body: Callable[[Array, Any], Any], carry: Any) -> Any: ...
    def poisson(self, rate: float) -> Array: ...
    def geometric(self, decay: float) -> Array: ...
    def subset(self, data: Any, size: int) -> tuple[Any, int]: ...
    def owe(self, plates: Sequence[str]) -> None: ...
    def settle(self, plates: Sequence[str]) -> float: ...
    def estimate(self, value: Array, what: str, plates: Sequence[str] = ()) -> Array: ...
    def because(self, value: Array, reason: str) -> Array: ...


_session: ContextVar[Session] = ContextVar("ppvi_session")


def session() -> Session:
    """The staging in progress; a `ProgramError` outside an objective program."""
    try:
        return _session.get()
    except LookupError:
        raise ProgramError(
            "this ppvi verb has a meaning inside an objective program only; "
            "pass the function that calls it to `objective(program, model, guide)`."
        ) from None


def staging(current: Session) -> AbstractContextManager[Session]:
    """Make `current` the engine that the verbs act on."""
    return holding(_session, current)


@contextmanager
def holding(variable: ContextVar[Any], value: T) -> Iterator[T]:
    """A variable of the context has this value, and then what it had."""
    token = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(token)
