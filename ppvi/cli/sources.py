"""The user's Python files: which engine they are of, and the functions in them."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from ppvi._doors import close_to, listed
from ppvi.cli.failures import InputError, told

ENGINES = {"numpyro": {"numpyro", "jax"}, "pyro": {"pyro", "torch"}}
"""What a file imports that is written for an engine."""


def split(text: str, default: str) -> tuple[Path, str]:
    """`FILE:NAME` as a file and a name, which may be left out."""
    file, colon, name = text.rpartition(":")
    if colon and name.isidentifier():
        return Path(file), name
    return Path(text), default


def is_source(text: str) -> bool:
    """Whether a text names a Python file, with a function or without."""
    return split(text, "")[0].suffix == ".py"


def engine_of(texts: Iterable[str], asked: str | None) -> str:
    """The engine that was asked for; else that of which the files import the library."""
    if asked is not None:
        if asked not in ENGINES:
            raise InputError(f"--engine {asked!r}: it is numpyro or pyro.{close_to(asked, ENGINES)}")
        return asked
    files = [split(text, "")[0] for text in texts]
    imported = set[str]().union(*(_imports(file) for file in files))
    found = [name for name in ENGINES if name in imported] or [x for x, of in ENGINES.items() if of & imported]
    if len(found) == 1:
        return found[0]
    said = "imports both NumPyro and Pyro" if found else "imports neither NumPyro nor Pyro"
    raise InputError(f"{files[0]} {said}: say which engine its programs are of, --engine numpyro or --engine pyro.")


def _imports(file: Path) -> set[str]:
    """The packages that a file imports, anywhere in it."""
    found = set[str]()
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise InputError(told(error)) from error
    except (OSError, ValueError) as error:
        raise InputError(_not_there(file)) from error


def _not_there(file: Path) -> str:
    near = sorted(str(path) for path in file.parent.glob("*.py")) if file.parent.is_dir() else []
    there = f"; there are {listed(near)}" if near else ""
    return f"there is no Python file {file}{there}. A program is FILE:FUNCTION, such as model.py:model."


def program(text: str, default: str, folders: Iterable[Path] = ()) -> Callable[..., Any]:
    """The function, or another thing that can be called, that `FILE:NAME` names.

    **Raises** what the file does when it is run; `InputError` where there is no such file, or nothing of the name in it.
    """
    file, name = split(text, default)
    _parsed(file)
    module = _module(file, folders)
    if name not in vars(module):
        mine = [x for x, y in vars(module).items() if getattr(y, "__module__", None) == module.__name__ and callable(y)]
        raise InputError(
            f"{file} has no {name!r}; it has {listed(mine) or 'no function'}.{close_to(name, mine)} A program is "
            f"FILE:FUNCTION, such as {file}:{mine[0] if mine else default}."
        )
    found = getattr(module, name)
    if not callable(found) or isinstance(found, type):
        raise InputError(f"{file}:{name} is no function, but {type(found).__name__}: name a program, FILE:FUNCTION.")
    return found


def _module(file: Path, folders: Iterable[Path]) -> ModuleType:
    """A file as a module, of the name that it has where files are imported from here, so that it is one with what other
    files import of it."""
    path = file.resolve()
    for folder in (path.parent, *(Path(x).resolve() for x in folders), Path.cwd()):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    name = _dotted(path)
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None:
        name = f"_ppvi_{path.stem}_{len(sys.modules)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} cannot be imported: a program is in a Python file, such as model.py.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _dotted(path: Path) -> str:
    try:
        parts = path.relative_to(Path.cwd()).with_suffix("").parts
    except ValueError:
        return path.stem
    return ".".join(parts) if all(part.isidentifier() for part in parts) else path.stem
