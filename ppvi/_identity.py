"""What an objective is, in words that outlive the process: to tell whether a file is of it."""

from __future__ import annotations

import functools
import hashlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any

from ppvi.engine.code import names_in
from ppvi.objective import Objective


def identity(objectives: Sequence[Objective]) -> dict[str, Any]:
    """The engine, and of each objective its programs, by name and by code, its strategies and its direction."""
    return {
        "engine": objectives[0].engine.name,
        "python": list(sys.version_info[:2]),
        "objectives": [
            {
                **{role: _named(getattr(bound, role)) for role in ("program", "model", "guide")},
                "strategies": {name: repr(strategy) for name, strategy in sorted(bound.strategies.items())},
                "maximize": bool(bound.maximize),
            }
            for bound in objectives
        ],
    }


def difference(mine: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """How two identities differ, if they do; code is compared where both are of one version of Python."""
    if mine["engine"] != other["engine"]:
        return f"it was made by ppvi.{mine['engine']}, and not by ppvi.{other['engine']}"
    if len(mine["objectives"]) != len(other["objectives"]):
        return f"it has {len(mine['objectives'])} objectives, and not {len(other['objectives'])}"
    for before, now in zip(mine["objectives"], other["objectives"], strict=True):
        for role in ("program", "model", "guide"):
            if before[role]["name"] != now[role]["name"]:
                return f"its {role} is {before[role]['name']}, and not {now[role]['name']}"
            if mine["python"] == other["python"] and before[role]["code"] != now[role]["code"]:
                return f"the code of its {role} {now[role]['name']} was another"
        for what in ("strategies", "maximize"):
            if before[what] != now[what]:
                return f"its {what} is {before[what]}, and not {now[what]}"
    return None


def _named(program: Any) -> dict[str, str]:
    name = getattr(program, "__qualname__", None) or getattr(program, "__name__", None) or type(program).__qualname__
    digest = hashlib.sha256()
    _digest(program, digest.update, set())
    return {"name": name, "code": digest.hexdigest()}


def _digest(program: Any, update: Any, seen: set[int]) -> None:
    """The code of a function, and of what it has closed over, been made of, or names in its module: numbers and texts, and
    functions and classes of the same package."""
    if isinstance(program, int | float | complex | str | bytes | bool | None):
        update(repr(program).encode())
        return
    if id(program) in seen:
        return
    seen.add(id(program))
    if isinstance(program, functools.partial):
        for part in (program.func, *program.args, *program.keywords.values()):
            _digest(part, update, seen)
    code = getattr(program, "__code__", None)
    if isinstance(code, CodeType):
        _digest_code(code, update)
        given = getattr(program, "__defaults__", None) or (), (getattr(program, "__kwdefaults__", None) or {}).values()
        for default in itertools.chain(*given):
            _digest(default, update, seen)
        for cell in getattr(program, "__closure__", None) or ():
            try:
                _digest(cell.cell_contents, update, seen)
            except ValueError:  # an empty cell
                update(b"empty")
        package, known = _package(program), getattr(program, "__globals__", {})
        for thing in (known[name] for name in sorted(names_in(code).names) if name in known):
            if not isinstance(thing, FunctionType | type) or _package(thing) == package:
                _digest(thing, update, seen)
    elif isinstance(program, type):
        for name, part in vars(program).items():
            if isinstance(part, FunctionType) or not name.startswith("__"):  # Python's own notes have line numbers
                _digest(part, update, seen)
    elif callable(model := getattr(program, "model", None)):  # that of an autoguide
        update(type(program).__qualname__.encode())
        _digest(model, update, seen)
    elif isinstance(call := getattr(type(program), "__call__", None), FunctionType):  # noqa: B004
        update(type(program).__qualname__.encode())
        if callable(inner := getattr(program, "fn", None)):  # within handlers of the libraries, such as `reparam`
            _digest(inner, update, seen)
        _digest(call, update, seen)


def _package(thing: Any) -> str:
    return str(getattr(thing, "__module__", "")).partition(".")[0]


def _digest_code(code: CodeType, update: Any) -> None:
    update(code.co_code)
    update(repr(code.co_names).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _digest_code(constant, update)
        else:
            update(repr(sorted(constant, key=repr) if isinstance(constant, frozenset) else constant).encode())
