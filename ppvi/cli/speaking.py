"""How commands speak: tables and sentences for people, one JSON object for machines, and errors in one line.

What is found goes to the standard output, and progress, warnings and errors to the other.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from ppvi._tables import prose
from ppvi.cli.failures import told
from ppvi.cli.options import OUTPUT, expanded
from ppvi.errors import BiasError, FitError

GOOD, BAD_INPUT, AGAINST, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: good; bad input; not converged, or a verdict against; interrupted, as shells have it."""


@dataclass
class Speaker:
    """Who tells what a command has found."""

    json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.", rich_help_panel=OUTPUT)] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=OUTPUT)] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=OUTPUT)] = (
        False
    )
    found: dict[str, Any] = field(default_factory=dict, init=False)
    warned: list[str] = field(default_factory=list, init=False)

    def say(self, text: str) -> None:
        """What people read."""
        if not self.json:
            print(text, flush=True)

    def lines(self, rows: list[tuple[str, str]]) -> None:
        """What is being done, to the other output."""
        if not (self.json or self.quiet):
            for name, said in rows:
                print(f"{name:<8}{said}", file=sys.stderr)

    def answer(self, **found: Any) -> None:
        """What machines read."""
        self.found |= found

    @contextmanager
    def warnings(self) -> Iterator[None]:
        """Each warning once, in one line; not those that libraries give each other."""

        def shown(message: Warning | str, category: type[Warning], *_: Any) -> None:
            said = " ".join(str(message).split())
            if not issubclass(category, DeprecationWarning | FutureWarning) and said not in self.warned:
                self.warned.append(said)
                if not self.json:
                    print(prose(f"warning: {said}"), file=sys.stderr)

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = shown  # type: ignore[assignment]
            yield

    def fail(self, error: BaseException) -> int:
        """Say an error; the exit code that it has."""
        if self.debug:
            traceback.print_exception(error)
        code = AGAINST if isinstance(error, BiasError | FitError) else BAD_INPUT
        self.answer(error=told(error))
        if not self.json:
            print(f"ppvi: {told(error)}", file=sys.stderr)
        return code

    def end(self, code: int) -> None:
        if self.json:
            print(json.dumps(plain({**self.found, "warnings": self.warned, "exit": code})))


def plain(x: Any) -> Any:
    """Numbers, texts, lists and dicts, for JSON, which has no NaN."""
    if isinstance(x, Mapping):
        return {str(name): plain(y) for name, y in x.items()}
    if isinstance(x, list | tuple | set | frozenset):
        return [plain(y) for y in x]
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return {y.name: plain(getattr(x, y.name)) for y in dataclasses.fields(x)}
    if isinstance(x, float):
        return x if math.isfinite(x) else None
    return x if x is None or isinstance(x, bool | int | str) else str(x)


@contextmanager
def terminated_alike() -> Iterator[None]:
    """What ends a job on a cluster is Ctrl-C, too, so that the state is written. A handler that is not Python's is left."""
    before = signal.getsignal(signal.SIGTERM)
    if before is None:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def speaking(command: Callable[..., int]) -> Callable[..., Any]:
    """A command whose errors are said in one line, and which returns its exit code; it has a `speaker`."""

    @functools.wraps(command)
    def called(*, speaker: Speaker, **given: Any) -> int:
        with speaker.warnings():
            try:
                code = command(speaker=speaker, **given)
            except KeyboardInterrupt:
                speaker.lines([("ppvi:", "interrupted")])
                code = INTERRUPTED
            except (Exception, SystemExit) as error:
                code = speaker.fail(error)
        speaker.end(code)
        return code

    return expanded(called)
