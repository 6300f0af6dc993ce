"""From what is asked to what the library works on: programs, data and objectives."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import ppvi
from ppvi._doors import close_to, listed
from ppvi.cli import sources, tables, words
from ppvi.cli.arguments import Arguments, arguments_of
from ppvi.cli.failures import InputError
from ppvi.cli.options import Course, Question
from ppvi.engine.calls import parameters_of
from ppvi.fit import Fit
from ppvi.objective import Engine, Objective


@dataclass(frozen=True)
class Problem:
    """A model with its data, of an engine.

    **Attributes**

    - `args`, `kwargs`: what the model is called with; `arguments` says what they are.
    """

    question: Question
    engine: str
    model: Callable[..., Any]
    arguments: Arguments
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    folders: tuple[Path, ...]

    @property
    def vi(self) -> ModuleType:
        """`ppvi.numpyro` or `ppvi.pyro`."""
        return importlib.import_module(f"ppvi.{self.engine}")

    @property
    def key(self) -> Any:
        return Engine(self.engine).fixed_key(self.question.seed)

    @property
    def is_approximated(self) -> bool:
        """Whether `vi.approximate` is asked for: there is no guide, and no objective."""
        return self.question.guide == "auto" and self.question.objective is None

    def lines(self) -> list[tuple[str, str]]:
        """What is being done, in words."""
        name = {"numpyro": "NumPyro", "pyro": "Pyro"}[self.engine]
        how = (
            "approximate"
            if self.is_approximated
            else f"{self.question.objective or 'elbo'}, guide {self.question.guide}"
        )
        return [("model", f"{self.question.program} on {name}"), ("data", str(self.arguments)), ("by", how)]


def problem_of(question: Question, folders: Sequence[Path] = ()) -> Problem:
    """Load the programs and the data of a question.

    **Arguments**

    - `folders`: where files are imported from, too.
    """
    of_programs = [text for text in (question.program, question.guide) if sources.is_source(text)]
    engine = sources.engine_of(of_programs or [question.program], question.engine)
    _load_library(engine)
    model = sources.program(question.program, "model", folders)
    settings = {name: words.value_of(text) for name, text in words.pairs("--set", question.set).items()}
    made_of = words.pairs("--columns", question.columns)
    found = arguments_of(model, tables.read(question.data), settings, made_of, question.factor)
    arrays = {name: _native(engine, x) for name, x in found.values.items()}
    args, kwargs = _called_with(model, arrays)
    return Problem(question, engine, model, found, args, kwargs, tuple(folders))


def _load_library(engine: str) -> None:
    try:
        importlib.import_module(f"ppvi.{engine}")
    except ImportError as error:
        raise InputError(str(error)) from error


def _native(engine: str, x: Any) -> Any:
    return Engine(engine).array(x) if isinstance(x, np.ndarray) else x


def _called_with(model: Callable[..., Any], values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by position where the model takes them so alone; else by name."""
    only = [x for x in parameters_of(model) if x.kind is inspect.Parameter.POSITIONAL_ONLY]
    args: list[Any] = []
    for x in only:
        if x.name not in values and x.default is x.empty:
            break
        args.append(values.get(x.name, x.default))
    return tuple(args), {name: x for name, x in values.items() if name not in {x.name for x in only}}


# Objectives ----------------------------------------------------------------------------------------------------------------


def objective_of(problem: Problem) -> Objective | list[tuple[Objective, str]]:
    """The objective that is asked for, or the pairs, on the data."""
    guide, (args, kwargs) = _guide(problem), (problem.args, problem.kwargs)
    strategies = {name: words.strategy(x) for name, x in words.pairs("--strategy", problem.question.strategy).items()}
    if not _takes(guide, kwargs):
        args, kwargs = _by_position(problem)

    def bound(program: Any) -> Objective:
        return problem.vi.objective(program, problem.model, guide, strategies=strategies).on(*args, **kwargs)

    program = _program(problem)
    return [(bound(part), whose) for part, whose in program] if isinstance(program, list | tuple) else bound(program)


def _by_position(problem: Problem) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The data as the model takes them in order, for a guide whose names are others: up to the first that is left out."""
    args, kwargs = list(problem.args), dict(problem.kwargs)
    for x in parameters_of(problem.model)[len(args) :]:
        if x.name not in kwargs or x.kind is not x.POSITIONAL_OR_KEYWORD:
            break
        args.append(kwargs.pop(x.name))
    return tuple(args), kwargs


def _takes(guide: Callable[..., Any], kwargs: dict[str, Any]) -> bool:
    """Whether a guide can be called with these arguments by name."""
    taken = parameters_of(guide)
    names = {x.name for x in taken if x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)}
    return any(x.kind is x.VAR_KEYWORD for x in taken) or kwargs.keys() <= names


def objectives_of(problem: Problem) -> list[Objective]:
    found = objective_of(problem)
    return [found] if isinstance(found, Objective) else [bound for bound, _ in found]


def _program(problem: Problem) -> Any:
    text = problem.question.objective or "elbo"
    if sources.is_source(text):
        return sources.program(text, "objective", problem.folders)
    found = vars(ppvi.objectives)
    known = [name for name, x in found.items() if inspect.isfunction(x) and not name.startswith("_")]
    return words.made("--objective", text, ppvi.objectives, known, lambda thing: thing in PROGRAMS)


PROGRAMS = (ppvi.objectives.elbo, ppvi.objectives.analytic_elbo, ppvi.objectives.stl)
"""Objectives that are programs, and need no numbers."""


def _guide(problem: Problem) -> Callable[..., Any]:
    text = problem.question.guide
    if sources.is_source(text):
        return sources.program(text, "guide", problem.folders)
    module = importlib.import_module(f"{problem.engine}.infer.autoguide")
    known = [name for name in vars(module) if name.startswith("Auto") and name != "AutoGuide"]
    name = "AutoNormal" if text == "auto" else text
    if name not in known:
        raise InputError(
            f"--guide {text!r}: it is FILE:GUIDE, such as {sources.split(problem.question.program, '')[0]}:guide, or auto, or "
            f"an autoguide: {listed(sorted(known), 20)}.{close_to(name, known)}"
        )
    of_all = "Discrete" in name or "List" in name
    return getattr(module, name)(problem.model if of_all else Engine(problem.engine).guides.continuous(problem.model))


# Fits ----------------------------------------------------------------------------------------------------------------------


def fitted(problem: Problem, course: Course, checkpoints: Path, progress: bool, steps: int, state: Any = None) -> Fit:
    """Fit what is asked for, or go on; checkpoints are written to a folder."""
    if problem.is_approximated:
        fit = problem.vi.approximate(problem.model, problem.key, *problem.args, **problem.kwargs)
        fit.save(checkpoints)
        return replace(fit, key=problem.key)  # draws are those of the fit when it is loaded
    starts = {"num_starts": course.starts} if course.starts > 1 else {}
    return problem.vi.fit(
        objective_of(problem),
        problem.key,
        num_steps=steps,
        optimizer=course.lr,
        until=[words.rule(text) for text in course.until],
        checkpoint=checkpoints,
        progress=progress,
        state=state,
        **starts,
    )


def loaded(problem: Problem, checkpoints: Path) -> Fit:
    """The fit that a folder of checkpoints holds, with its data."""
    if problem.is_approximated:
        found = ppvi.load(checkpoints, problem.model, *problem.args, **problem.kwargs)
    else:
        found = ppvi.load(checkpoints, objective_of(problem))
    return replace(found, key=problem.key)
