"""The world that programs read outside of their arguments, and whether it has changed.

A program that is staged once and used many times has read closure cells, globals, default arguments, and attributes of
whatever these hold. They are found from the program's code: a function reads what it closes over and the globals that it
names; of an object of the user's it reads the attributes that any code within reach names, and of containers everything.
What is found is kept as *facts*, by which two looks at the world are compared, and as *reads*, which give the objects that
the facts were made of: as long as these are the very same, which takes a microsecond or two for a module, nothing has changed.

Arrays of the framework count by identity, NumPy's by what is in them. Libraries are taken not to change.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import operator
import sys
import types
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

LIBRARIES = sys.stdlib_module_names | set(
    """ppvi numpy scipy pandas polars matplotlib seaborn PIL tqdm rich arviz arviz_base xarray sklearn statsmodels pytest
    IPython torch torchvision torchmetrics lightning pytorch_lightning functorch pyro funsor gpytorch jax jaxlib numpyro optax
    flax equinox haiku chex blackjax orbax jaxtyping typing_extensions multipledispatch opt_einsum ml_dtypes absl
    omegaconf""".split()
)
"""Packages whose code is not looked at."""

VALUES = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    range,
    slice,
    np.generic,
    type(...),
    types.BuiltinFunctionType,
)
"""Types of values that cannot change."""

BY_ANY_NAME = frozenset("getattr hasattr vars __dict__ asdict astuple attrgetter fields".split())
"""Code that names one of these may read attributes that it does not name."""


class Fact(NamedTuple):
    """One thing that was read."""

    path: str
    """As a person would write it, such as `model.beta`."""
    kind: str
    value: Any

    def same(self, other: Fact) -> bool:
        if self.kind != other.kind or self.path != other.path:
            return False
        if self.kind == "value":
            return _same_value(self.value, other.value)
        return self.value is other.value if self.kind in ("object", "array") else self.value == other.value


def _same_value(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and bool(a == b or (a != a and b != b)))


@dataclass(frozen=True)
class Rules:
    """What an engine knows of its framework's objects."""

    arrays: tuple[type, ...]
    """Types of arrays, which count by identity."""
    ignored: tuple[type, ...] = ()
    """Types of the framework's own objects whose state is no program's business."""
    modules: tuple[type, ...] = ()
    """Types of the framework's modules."""
    members: Callable[[Any], Sequence[Mapping[Any, Any]]] = lambda module: ()
    """Of a module: where it keeps its parts and parameters."""
    attributes: frozenset[str] = frozenset()
    """Of a module: attributes that the framework's code reads, by name."""
    hidden: frozenset[str] = frozenset()
    """Attributes in which objects of the framework keep what they have found out."""


@dataclass(eq=False)
class World:
    """One look at the world."""

    facts: list[Fact] = field(default_factory=list)
    views: list[Collection[Any]] = field(default_factory=list)
    """Containers themselves, and views of them."""
    reads: list[Callable[[], Iterable[Any]]] = field(default_factory=list)
    """What else gives objects."""
    arrays: list[tuple[np.ndarray, bytes]] = field(default_factory=list)
    modules: list[tuple[str, Any]] = field(default_factory=list)
    """The framework's modules, and what to call them."""
    seen: tuple[list[Any], list[int]] = ([], [])
    """What the views and the reads gave, and the sizes of the views."""
    passing: bool = False
    """Whether it will not be met again, as arrays that are being traced are not."""

    def see(self) -> tuple[list[Any], list[int]]:
        read = itertools.chain.from_iterable([read() for read in self.reads])
        return [*itertools.chain.from_iterable(self.views), *read], list(map(len, self.views))

    def is_current(self) -> bool:
        """Whether the very same objects are there."""
        try:
            found, sizes = self.see()
        except (ValueError, AttributeError):  # a variable is empty, an attribute is gone
            return False
        return (
            sizes == self.seen[1]
            and all(map(operator.is_, found, self.seen[0]))
            and all(array.tobytes() == content for array, content in self.arrays)
        )

    def difference(self, other: World, matters: Callable[[Any], bool] = lambda array: True) -> str | None:
        """What has changed between two looks, if anything; of arrays only those that matter to who asks."""
        for mine, theirs in zip(self.facts, other.facts, strict=False):
            alike = mine.kind == theirs.kind == "array" and mine.path == theirs.path and not matters(mine.value)
            if not alike and not mine.same(theirs):
                return mine.path
        longer = max(self.facts, other.facts, key=len)[min(len(self.facts), len(other.facts)) :]
        return longer[0].path if longer else None


def look(rules: Rules, **roots: Any) -> World:
    """Look at the world that these programs read."""
    names: set[str] = set()
    while True:
        before, looker = len(names), Looker(rules, names)
        for path, root in roots.items():
            looker.visit(path, root)
        if len(names) == before:
            break
    looker.world.seen = looker.world.see()
    return looker.world


class Looker:
    """Goes through everything that is within reach of a program."""

    def __init__(self, rules: Rules, names: set[str]):
        self.rules = rules
        self.names = names
        """Those that code within reach names, which grow as more is found: then everything is looked at again."""
        self.world = World()
        self.number: dict[int, int] = {}
        self.alive: list[Any] = []

    def visit(self, path: str, x: Any) -> None:
        if isinstance(x, VALUES):
            self.fact(path, "value", x)
        elif id(x) in self.number:
            self.fact(path, "again", self.number[id(x)])
        elif not isinstance(x, self.rules.ignored):
            self.number[id(x)] = len(self.number)
            self.alive.append(x)
            self.look_into(path, x)

    def fact(self, path: str, kind: str, value: Any) -> None:
        self.world.facts.append(Fact(path, kind, value))

    def look_into(self, path: str, x: Any) -> None:
        for kinds, how in (
            (self.rules.arrays, lambda path, x: self.fact(path, "array", x)),
            (np.ndarray, self.array),
            (types.FunctionType, self.function),
            (types.MethodType, self.method),
            (functools.partial, self.partial),
            (types.ModuleType, self.module),
            (type, self.type),
            (self.rules.modules, self.framework_module),
            (dict, self.mapping),
            (list | tuple | deque, self.sequence),
            (set | frozenset, self.set),
        ):
            if isinstance(x, kinds):
                how(path, x)
                return
        self.instance(path, x)

    def array(self, path: str, x: np.ndarray) -> None:
        content = x.tobytes()
        self.fact(path, "array content", (x.shape, str(x.dtype), content))
        self.world.arrays.append((x, content))

    # Code -------------------------------------------------------------------------------------------------------------

    def function(self, path: str, x: types.FunctionType) -> None:
        self.fact(path, "object", x.__code__)
        closed = zip(x.__code__.co_freevars, x.__closure__ or (), strict=True)
        closed = [(name, cell) for name, cell in closed if not _is_empty(cell)]
        named, cells = [name for name, _ in closed], [cell for _, cell in closed]
        self.members(named, functools.partial(_contents, cells))
        self.members([f"{path}'s default {i}" for i, _ in enumerate(_defaults(x))], functools.partial(_defaults, x))
        if is_library(x.__globals__.get("__name__")):
            return
        code = set(_names(x.__code__))
        if x.__name__ in ("__getattr__", "__getattribute__"):  # which hand on names that other code has
            code -= BY_ANY_NAME
        self.names |= code
        used = sorted(code & x.__globals__.keys())
        self.members(used, functools.partial(_entries, x.__globals__, used))
        self.attributes(path, x, x.__dict__)

    def method(self, path: str, x: types.MethodType) -> None:
        self.visit(path, x.__func__)
        self.visit(path, x.__self__)

    def partial(self, path: str, x: functools.partial[Any]) -> None:
        self.visit(path, x.func)
        self.visit(f"{path}.args", x.args)
        self.visit(f"{path}.keywords", x.keywords)

    def module(self, path: str, x: types.ModuleType) -> None:
        self.fact(path, "object", x)
        if not is_library(x.__name__):
            self.attributes(path, x, vars(x))

    def type(self, path: str, x: type) -> None:
        self.fact(path, "object", x)
        for kind in x.__mro__:
            if not is_library(kind.__module__):
                self.attributes(kind.__name__, x, vars(kind), of_class=True)

    # Objects ----------------------------------------------------------------------------------------------------------

    def instance(self, path: str, x: Any) -> None:
        self.visit(type(x).__name__, type(x))
        own = getattr(x, "__dict__", None)
        if not is_library(type(x).__module__):
            self.attributes(path, x, {} if own is None else own)
            slots = [
                name for kind in type(x).__mro__ for name in _slots(kind) if name in self.names and hasattr(x, name)
            ]
            self.members([f"{path}.{name}" for name in slots], functools.partial(_attributes, x, slots))
        elif own is None or (is_standard(type(x)) and not isinstance(x, types.SimpleNamespace | argparse.Namespace)):
            self.fact(path, "object", x)
        else:
            self.library_attributes(path, own)

    def library_attributes(self, path: str, own: Mapping[str, Any]) -> None:
        if not own.keys() & self.rules.hidden:
            self.mapping(path, own, attributes=True)
            return
        shown = [name for name in own if name not in self.rules.hidden]
        self.members([f"{path}.{name}" for name in shown], functools.partial(_entries, own, shown))

    def framework_module(self, path: str, x: Any) -> None:
        self.visit(type(x).__name__, type(x))
        self.world.modules.append((path, x))
        for parts in self.rules.members(x):
            self.mapping(path, parts, attributes=True)
        own, library = vars(x), is_library(type(x).__module__)
        public = [name for name in own if name in self.rules.attributes or (library and not name.startswith("_"))]
        self.members([f"{path}.{name}" for name in public], functools.partial(_entries, own, public))
        if not library:
            self.attributes(path, x, own)

    def attributes(self, path: str, x: Any, own: Mapping[str, Any], of_class: bool = False) -> None:
        """The attributes of an object of the user's that code names."""
        if not of_class and not isinstance(x, types.ModuleType) and self.names & BY_ANY_NAME:
            self.mapping(path, own, attributes=True)
            return
        names = [name for name in own if name in self.names or (of_class and _is_special(name, own[name]))]
        if of_class and x.__name__ not in self.names:  # no program makes one
            names = [name for name in names if name not in ("__init__", "__post_init__")]
        if not of_class and not isinstance(x, types.ModuleType | types.FunctionType):
            names += [name for name in dir(type(x)) if name in self.names and name not in own]
        self.members([f"{path}.{name}" for name in names], functools.partial(_entries, own, names))

    # Containers -------------------------------------------------------------------------------------------------------

    def mapping(self, path: str, x: Mapping[Any, Any], attributes: bool = False) -> None:
        keys = list(x)
        self.fact(path, "keys", keys)
        self.world.views.append(x.keys())
        paths = [f"{path}.{key}" if attributes else f"{path}[{key!r}]" for key in keys]
        self.view(paths, x.values())

    def sequence(self, path: str, x: Sequence[Any]) -> None:
        self.fact(path, "length", (type(x).__name__, len(x)))
        self.view([f"{path}[{i}]" for i in range(len(x))], x)

    def set(self, path: str, x: set[Any]) -> None:
        self.fact(path, "content", frozenset(x))
        self.world.views.append(x)

    def view(self, paths: Sequence[str], x: Collection[Any]) -> None:
        """What is in a container."""
        self.world.views.append(x)
        self.visit_all(paths, x)

    def members(self, paths: Sequence[str], read: Callable[[], Iterable[Any]]) -> None:
        """What a read gives."""
        if paths:
            self.world.reads.append(read)
            self.visit_all(paths, read())

    def visit_all(self, paths: Sequence[str], values: Iterable[Any]) -> None:
        for path, value in zip(paths, list(values), strict=True):
            if value is not _ABSENT:
                self.visit(path, _unwrapped(value))


_ABSENT = object()


def is_library(module: str | None) -> bool:
    """Whether a module of this name is a library's."""
    return (module or "").partition(".")[0] in LIBRARIES


def is_standard(kind: type) -> bool:
    """Whether a class is Python's own."""
    return kind.__module__.partition(".")[0] in sys.stdlib_module_names


def _contents(cells: Sequence[Any]) -> Iterable[Any]:
    return [cell.cell_contents for cell in cells]


def _is_empty(cell: Any) -> bool:
    try:
        return cell.cell_contents is _ABSENT
    except ValueError:
        return True


def _defaults(x: types.FunctionType) -> Iterable[Any]:
    return (*(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).values())


def _entries(mapping: Mapping[str, Any], names: Sequence[str]) -> Iterable[Any]:
    return [mapping.get(name, _ABSENT) for name in names]


def _attributes(x: Any, names: Sequence[str]) -> Iterable[Any]:
    return [getattr(x, name) for name in names]


def _slots(kind: type) -> Sequence[str]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_special(name: str, value: Any) -> bool:
    """Whether something in a class is called by what is written otherwise, such as `__call__`."""
    special = name == "forward" or (name.startswith("__") and name.endswith("__"))
    return special and isinstance(value, types.FunctionType)


def _unwrapped(value: Any) -> Any:
    """The function in a property, a class method or a static method."""
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    if isinstance(value, property):
        return value.fget
    return value.func if isinstance(value, functools.cached_property) else value
