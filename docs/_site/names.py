"""The public names: what the API reference has to have, and what code in docstrings may link to."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import ppvi

MODULES = ("ppvi", "ppvi.numpyro", "ppvi.pyro", "ppvi.objectives", "ppvi.strategies", "ppvi.optimizers", "ppvi.testing")
ENGINES = ("ppvi.numpyro", "ppvi.pyro")


def names_of(module: ModuleType) -> list[str]:
    """The public names of a module: those that it lists, or has without an underscore and defines itself or re-exports."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
    found = {name: x for name, x in vars(module).items() if not name.startswith("_")}
    return sorted(name for name, x in found.items() if _is_ours(x) and not inspect.ismodule(x))


def _is_ours(x: Any) -> bool:
    return getattr(x, "__module__", "").startswith("ppvi") or isinstance(x, float | int | str)


def public() -> dict[str, Any]:
    """Everything public by its full name. What `ppvi` has of `ppvi.strategies` is there under both names."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(name)
        found |= {f"{name}.{x}": getattr(module, x) for x in names_of(module)}
    return found


PROTOCOLS = (ppvi.strategies.Baseline,)
"""What classes provide without being made from it."""


def members(owner: type) -> Iterator[tuple[str, Any]]:
    """The public functions and properties that a class defines itself."""
    for name, x in vars(owner).items():
        if not name.startswith("_") and (inspect.isfunction(x) or isinstance(x, property | classmethod | staticmethod)):
            yield name, x


def undocumented() -> list[str]:
    """Public functions, classes and their members without a docstring of their own or of what they override."""
    found = []
    for name, x in public().items():
        if (inspect.isclass(x) or inspect.isroutine(x)) and not inspect.getdoc(x):
            found.append(name)
        if inspect.isclass(x):
            found += [f"{name}.{member}" for member, y in members(x) if not _documented(x, member, y)]
    return found


def _documented(owner: type, name: str, member: Any) -> bool:
    told = f"`{name}`" in (owner.__doc__ or "")
    return told or any(inspect.getdoc(getattr(base, name, None)) for base in (owner, *owner.__bases__, *PROTOCOLS))


def once() -> dict[str, Any]:
    """Every public object that has an entry, by the name that it has it under: strategies are those of `ppvi.strategies`, and
    classes that both engines have are NumPyro's."""
    everything = public()
    strategies = {id(x) for name, x in everything.items() if name.startswith("ppvi.strategies.")}
    classes = {id(x) for name, x in everything.items() if name.startswith("ppvi.numpyro.") and inspect.isclass(x)}
    others = {name for name, x in everything.items() if name.count(".") == 1 and id(x) in strategies}
    others |= {name for name, x in everything.items() if name.startswith("ppvi.pyro.") and id(x) in classes}
    return {name: x for name, x in everything.items() if name not in others}


class Known:
    """Public names, by the object, by the last word, and by where the object is defined."""

    def __init__(self) -> None:
        self.names = list(once())
        self.by_word: dict[str, list[str]] = {}
        self.by_place: dict[str, list[str]] = {}
        for name, x in once().items():
            self.by_word.setdefault(name.rpartition(".")[2], []).append(name)
            place = f"{getattr(x, '__module__', '')}.{getattr(x, '__qualname__', '')}"
            self.by_place.setdefault(place, []).append(name)

    def linked(self, text: str, engine: str = "ppvi.numpyro") -> str | None:
        """The full name of what code in a docstring names, if it is public; of two engines, that of this one."""
        word = text.removeprefix("ppvi.").removeprefix("vi.")
        return best(
            self.by_word.get(word.rpartition(".")[2], []) if "." in word else self.by_word.get(word, []), engine
        )

    def placed(self, target: str, engine: str) -> str | None:
        """The public name of what a signature names by its module."""
        return best(self.by_place.get(target, []), engine) or self.linked(target.rpartition(".")[2], engine)


def best(names: list[str], engine: str) -> str | None:
    """Of several names of one thing, that of this engine; what only the other has an entry of, both have."""
    other = ENGINES[engine == ENGINES[0]]
    found = [name for name in names if not name.startswith(f"{other}.")] or names
    return max(found, key=lambda name: name.startswith(engine), default=None)
