"""What commands are asked, as values: their fields are the options, and a run folder holds them as JSON."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

import typer

DATA = "Data"
INFERENCE = "Inference"
OUTPUT = "Output"


@dataclass(frozen=True)
class Question:
    """A model, how it is looked at, and its data."""

    program: Annotated[str, typer.Argument(metavar="FILE:MODEL", help="A Python file, and the model in it.")]
    guide: Annotated[
        str,
        typer.Option(
            metavar="FILE:GUIDE|auto|AutoNormal",
            help="The guide; or the name of an autoguide of the library. auto is vi.approximate, which needs no objective, "
            "and with --objective it is AutoNormal.",
            rich_help_panel=INFERENCE,
        ),
    ] = "auto"
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:ARGS]|FILE:NAME",
            help="The objective, such as elbo, iwelbo:5, renyi:0.5,10; elbo where there is a guide.",
            rich_help_panel=INFERENCE,
        ),
    ] = None
    strategy: Annotated[
        list[str],
        typer.Option(metavar="SITE=NAME[:ARGS]", help="A site's gradient strategy.", rich_help_panel=INFERENCE),
    ] = dataclasses.field(default_factory=list)
    data: Annotated[
        list[str],
        typer.Option(
            metavar="FILE", help="A .csv, .npz or .nc: arrays become arguments by name.", rich_help_panel=DATA
        ),
    ] = dataclasses.field(default_factory=list)
    set: Annotated[
        list[str],
        typer.Option(metavar="NAME=VALUE", help="A number, list or text as an argument.", rich_help_panel=DATA),
    ] = dataclasses.field(default_factory=list)
    columns: Annotated[
        list[str],
        typer.Option(metavar="NAME=A,B,...", help="Columns as a matrix, or one by another name.", rich_help_panel=DATA),
    ] = dataclasses.field(default_factory=list)
    factor: Annotated[
        list[str],
        typer.Option(metavar="COLUMN", help="Code a column of texts as 0, 1, ...", rich_help_panel=DATA),
    ] = dataclasses.field(default_factory=list)
    seed: Annotated[int, typer.Option(help="Of all random numbers.", rich_help_panel=INFERENCE)] = 0
    engine: Annotated[
        str | None,
        typer.Option(metavar="numpyro|pyro", help="By default, what FILE imports.", rich_help_panel=INFERENCE),
    ] = None


@dataclass(frozen=True)
class Course:
    """How long a fit goes on, and what is drawn from it."""

    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of the optimiser: 2,000, or with --until at most 100,000.", rich_help_panel=INFERENCE
        ),
    ] = None
    until: Annotated[
        list[str],
        typer.Option(
            metavar="RULE", help="Stop when: converged, plateau, plateau:500, 90s, 10m, 2h.", rich_help_panel=INFERENCE
        ),
    ] = dataclasses.field(default_factory=list)
    lr: Annotated[float, typer.Option(min=0.0, help="Step size of Adam.", rich_help_panel=INFERENCE)] = 0.01
    starts: Annotated[
        int, typer.Option(min=1, help="Fits side by side, of which the best is kept.", rich_help_panel=INFERENCE)
    ] = 1
    draws: Annotated[int, typer.Option(min=1, help="From the fitted posterior.", rich_help_panel=OUTPUT)] = 2000

    @property
    def total(self) -> int:
        return self.steps or (100_000 if self.until else 2000)


def command_line(*asked: Any) -> str:
    """The options of these values that are not as by default, as they are typed."""
    words: list[str] = []
    for values in asked:
        for x in dataclasses.fields(values):
            given = getattr(values, x.name)
            if given != _default(x):
                option = [] if _default(x) is inspect.Parameter.empty else [f"--{x.name}"]
                words += [
                    word for value in (given if isinstance(given, list) else [given]) for word in (*option, str(value))
                ]
    return shlex.join(words)


def expanded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of dataclasses as one of all their fields, which typer makes options of."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    parameters, owners = [], dict[str, list[str]]()
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in groups:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=parameter.KEYWORD_ONLY))
            continue
        found = _parameters(groups[parameter.name])
        parameters += found
        owners[parameter.name] = [x.name for x in found]

    @functools.wraps(function)
    def called(**given: Any) -> Any:
        made = {name: groups[name](**{x: given.pop(x) for x in fields}) for name, fields in owners.items()}
        return function(**made, **given)

    arguments = [x for x in parameters if _is_argument(x.annotation)]
    parameters = [*arguments, *(x for x in parameters if x not in arguments)]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {x.name: x.annotation for x in parameters}
    del called.__wrapped__  # type: ignore[attr-defined]
    return called


def _parameters(kind: type) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(x.name, inspect.Parameter.KEYWORD_ONLY, default=_default(x), annotation=hints[x.name])
        for x in dataclasses.fields(kind)
        if x.init
    ]


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def _is_argument(annotation: Any) -> bool:
    return any(isinstance(x, typer.models.ArgumentInfo) for x in get_args(annotation))
