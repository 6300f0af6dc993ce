"""The small language of options: `iwelbo:5`, `name=value`, `10m`, `plateau:500`. Nothing in it is evaluated as code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import ppvi
from ppvi._doors import close_to, listed
from ppvi.cli.failures import InputError

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def value_of(text: str) -> Any:
    """What a text says as JSON, such as `3`, `0.5`, `true`, `[1, 2]`; else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """`name=value`, each name once."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name.isidentifier() and equals and value):
            raise InputError(f"{option} {text!r}: it is name=value, such as {option} {EXAMPLES[option]}.")
        if name in found:
            raise InputError(f"{option}: {name!r} is given twice.")
        found[name] = value
    return found


EXAMPLES = {"--set": "sigma=0.5", "--columns": "X=height,weight", "--strategy": "z=Enumerate"}


def call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """`name:1,2,key=3` as a name, arguments by position and by name."""
    name, _, rest = text.partition(":")
    args, kwargs = [], {}
    for part in filter(None, (x.strip() for x in rest.split(","))):
        key, equals, value = part.partition("=")
        if equals and key.isidentifier():
            kwargs[key] = value_of(value)
        else:
            args.append(value_of(part))
    return name.strip(), args, kwargs


def made(option: str, text: str, module: ModuleType, names: Iterable[str], is_made: Callable[[Any], bool]) -> Any:
    """What a name of a module and its arguments, if any, make; the thing itself where it needs none."""
    name, args, kwargs = call(text)
    known = list(names)
    if name not in known:
        raise InputError(
            f"{option} {text!r}: there is no {name!r}; there are {listed(known, 40)}.{close_to(name, known)}"
        )
    thing = getattr(module, name)
    if is_made(thing) and not (args or kwargs):
        return thing
    try:
        return thing(*args, **kwargs)
    except (TypeError, ppvi.PpviError) as error:
        raise InputError(f"{option} {text!r}: {' '.join(str(error).split()).rstrip('.')}.") from error


def strategy(text: str) -> ppvi.Strategy:
    """Such as `Enumerate` or `LeaveOneOut:4`."""
    found = vars(ppvi.strategies)
    names = [x for x in found if isinstance(found[x], type) and issubclass(found[x], ppvi.Strategy) and x != "Strategy"]
    return made("--strategy", text, ppvi.strategies, names, lambda thing: False)


def rule(text: str) -> Any:
    """When to stop: `converged`, `plateau`, `plateau:500`, or a time such as `90s`, `10m`, `2h`."""
    name, args, kwargs = call(text)
    if found := re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)([smh])", text.strip()):
        return ppvi.TimeLimit(float(found[1]) * SECONDS[found[2]])
    known = {"converged": ppvi.Converged, "plateau": ppvi.Plateau}
    if name not in known:
        raise InputError(f"--until {text!r}: it is converged, plateau, plateau:500, or a time such as 90s, 10m or 2h.")
    try:
        return known[name](*args, **kwargs)
    except (TypeError, ppvi.PpviError) as error:
        raise InputError(f"--until {text!r}: {error}") from error
