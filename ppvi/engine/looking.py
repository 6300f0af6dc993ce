"""Looking at everything within reach of programs.

What is within reach is found from code: a function reads what it closes over, the globals that it names and the modules that it
imports; of an object of the user's it reads the attributes that any code within reach names, and so do the methods that the
object has from a library; of containers, and of a library's objects, everything. An object that only tells by pickling what is
in it, such as a table of pandas, is pickled at each look. Libraries are taken not to change.

What cannot be seen into is constant, and known by its identity: iterators, open files, locks, objects of compiled code that
cannot be pickled. What is not looked at is the state of PyTorch's generators and of the libraries themselves, and what code
finds by a name that it computes in `sys.modules`, or through weak references.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextvars import ContextVar
from typing import Any

import numpy as np

from ppvi.engine.code import (
    ALL_GLOBALS,
    BY_ANY_NAME,
    Names,
    imported,
    is_framework,
    is_library,
    is_librarys,
    names_in,
    unwrapped,
)
from ppvi.engine.kinds import Pickle, is_dunder, kind_of, reduced, with_subclasses
from ppvi.engine.snapshots import Content
from ppvi.engine.world import ABSENT, FUNCTION, Fact, Path, Rules, World, scalar

SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range})
"""Types of values that cannot change."""


def look(rules: Rules, programs: Mapping[str, Any], constants: Mapping[str, Any], names: set[str]) -> World:
    """Look at the world that these programs read, and at these constants; the names are those that were found before."""
    while True:
        before, looker = len(names), Looker(rules, names)
        looker.look({**programs, **constants}.items())
        if len(names) == before:
            break
    world = looker.world
    world.roots = list(constants.values())
    world.watch.begin()
    return world


class Looker:
    """Goes through everything, once."""

    def __init__(self, rules: Rules, names: set[str], watching: bool = True, copying: bool = True):
        self.rules = rules
        self.names = names
        """Those that code within reach names, which grow as more is found: then everything is looked at again."""
        self.by_any_name = bool(names & BY_ANY_NAME)
        self.watching = watching
        """Whether what is found will stay where it is."""
        self.copying = copying
        """Whether what is in NumPy arrays is to be known later."""
        self.world = World()
        self.watch = self.world.watch
        self.number: dict[int, int] = {}
        self.alive: list[Any] = []
        self.waiting: deque[tuple[Path, Any]] = deque()
        self.kinds: Sequence[tuple[Any, Callable[[Path, Any], None]]] = (
            (rules.ignored, lambda path, x: None),
            (rules.drawing, self.drawing),
            (rules.arrays, lambda path, x: self.fact(path, "array", x)),
            (np.ndarray, self.array),
            (np.generic, lambda path, x: self.fact(path, "value", (type(x), x.dtype, x.tobytes()))),
            (types.FunctionType, self.function),
            ((types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType), self.method),
            (functools.partial, self.partial),
            (types.ModuleType, self.module),
            (type, self.type),
            (rules.modules, self.framework_module),
            (ContextVar, self.variable),
            (slice, lambda path, x: self.visit_all(path, ("start", "stop", "step"), (x.start, x.stop, x.step))),
            (object, self.instance),
        )
        self.how: dict[type, Callable[[Path, Any], None]] = {}

    def look(self, roots: Iterable[tuple[str, Any]]) -> None:
        for name, root in roots:
            self.visit(Path(None, name), root)
        while self.waiting:
            path, x = self.waiting.popleft()
            kind = type(x)
            if kind not in self.how:
                self.how[kind] = next(how for kinds, how in self.kinds if isinstance(x, kinds))
            self.how[kind](path, x)

    def visit(self, path: Path, x: Any) -> None:
        if type(x) in SCALARS:
            self.fact(path, "value", scalar(x))
        elif id(x) in self.number:
            self.fact(path, "again", self.number[id(x)])
        else:
            self.number[id(x)] = len(self.number)
            self.alive.append(x)
            self.waiting.append((path, x))

    def visit_all(self, path: Path | None, steps: Iterable[str], values: Iterable[Any]) -> None:
        for step, value in zip(steps, list(values), strict=True):
            if value is not ABSENT:
                self.visit(Path(path, step), unwrapped(value))

    def fact(self, path: Path, kind: str, value: Any) -> None:
        self.world.facts.append(Fact(path, kind, value))

    def array(self, path: Path, x: np.ndarray) -> None:
        if type(x) is not np.ndarray:
            self.mapping(path, getattr(x, "__dict__", {}), attributes=True)
        if x.dtype.hasobject:
            self.fact(path, "shape", (x.shape, x.dtype))
            self.watch.reads.append(lambda: [*x.ravel().tolist(), ABSENT])
            entries = x.ravel().tolist()
            self.visit_all(path, (f".flat[{i}]" for i in range(len(entries))), entries)
            return
        content = Content(np.asarray(x), self.copying)  # a masked array fills itself to say what is in it
        self.fact(path, "array content", content)
        if self.watching:
            self.watch.others.append(content.is_current)

    # Code -------------------------------------------------------------------------------------------------------------

    def function(self, path: Path, x: types.FunctionType) -> None:
        self.fact(path, "object", x.__code__)
        self.watch.owners += [x] * len(FUNCTION)
        self.watch.names += FUNCTION
        closed = zip(x.__code__.co_freevars, x.__closure__ or (), strict=True)
        full = [(name, cell) for name, cell in closed if not _is_empty(cell)]
        self.watch.owners += [cell for _, cell in full]
        self.watch.names += ["cell_contents"] * len(full)
        self.visit_all(None, (name for name, _ in full), (cell.cell_contents for _, cell in full))
        defaults = x.__defaults__ or ()
        self.visit_all(path, (f"'s default {i}" for i in range(len(defaults))), defaults)
        if x.__kwdefaults__:
            self.mapping(path, x.__kwdefaults__)
        if not is_librarys(x.__globals__):
            self.users_function(path, x, names_in(x.__code__))

    def users_function(self, path: Path, x: types.FunctionType, code: Names) -> None:
        # What is looked up by any name hands on names that other code has.
        self.names |= code.names - (BY_ANY_NAME if x.__name__ in ("__getattr__", "__getattribute__") else frozenset())
        scope, used = x.__globals__, sorted(code.globals & x.__globals__.keys())
        if code.globals & ALL_GLOBALS:
            self.watch.views.append(scope.keys())
            used = [name for name in scope if not is_dunder(name)]
        self.members(None, "", scope.get, used)
        self.members(None, "", sys.modules.get, list(imported(x.__code__, scope)))
        self.attributes(path, x.__dict__, self.names)

    def method(self, path: Path, x: Any) -> None:
        owner = x.__self__
        if isinstance(x, types.MethodType):
            self.visit(path, x.__func__)
        elif owner is None or isinstance(owner, types.ModuleType | type):
            self.fact(path, "object", x)
            return
        else:
            self.fact(path, "value", x.__name__)
        self.visit(path, owner)

    def partial(self, path: Path, x: functools.partial[Any]) -> None:
        self.visit_all(path, ("", ".args", ".keywords"), (x.func, x.args, x.keywords))

    def module(self, path: Path, x: types.ModuleType) -> None:
        self.fact(path, "object", x)
        if not is_librarys(vars(x)):
            self.namespace(path, vars(x), [])

    def type(self, path: Path, x: type) -> None:
        self.fact(path, "object", x)
        if not is_library(x.__module__):
            special = [name for name, value in vars(x).items() if _is_special(name, value)]
            if not self.names.intersection(with_subclasses(x)):  # no program makes one
                special = [name for name in special if name not in ("__init__", "__post_init__")]
            self.namespace(Path(None, x.__name__), vars(x), special)
            self.visit_all(None, (base.__name__ for base in x.__bases__), x.__bases__)

    def namespace(self, path: Path, own: Mapping[str, Any], names: Sequence[str]) -> None:
        """What code names in a module or a class, and these."""
        if self.by_any_name:
            self.watch.views.append(own.keys())
        named = [name for name in own if not is_dunder(name) and (self.by_any_name or name in self.names)]
        self.members(path, ".", own.get, [*named, *(name for name in names if name not in named)])

    def variable(self, path: Path, x: ContextVar[Any]) -> None:
        self.members(path, ".", lambda _, absent: x.get(absent), ["get()"])

    # Objects ----------------------------------------------------------------------------------------------------------

    def instance(self, path: Path, x: Any) -> None:
        own, kind, held = getattr(x, "__dict__", None), kind_of(type(x)), self.contained(path, x)
        if kind.is_users:
            self.visit(Path(None, type(x).__name__), type(x))
            if own is not None:
                self.attributes(path, own, self.names | (kind.read - self.rules.hidden), kind.named)
            self.slots(path, x, kind.slots if self.by_any_name else self.names.intersection(kind.slots))
            if not held and kind.pickler is not None and is_library(kind.pickler) and not is_framework(kind.pickler):
                self.pickled(path, x)
        elif hasattr(type(x), "__next__"):
            self.unseen(path, x, "is used up by reading it")
        elif type(x).__name__ == "DataLoader":
            self.unseen(path, x, "gives other batches each time")
        elif hasattr(type(x), "__dlpack__"):
            self.unseen(path, x, "is an array of another library; pass it as one of NumPy's, such as x.numpy()")
        elif callable(x) and (own is None or hasattr(x, "__wrapped__")):
            self.fact(path, "object", x)
            self.visit(path, getattr(x, "__wrapped__", None))
        elif own is not None and (kind.pickler is None or kind.is_framework):
            self.fact(path, "type", type(x))
            self.library_attributes(path, own)
            self.slots(path, x, kind.slots)
        elif not held:
            self.pickled(path, x)

    def library_attributes(self, path: Path, own: Mapping[str, Any]) -> None:
        shown = [name for name in own if name not in self.rules.hidden]
        if len(shown) == len(own):
            self.mapping(path, own, attributes=True)
        else:
            self.members(path, ".", own.get, shown)

    def contained(self, path: Path, x: Any) -> bool:
        """Look at what is in it, if it is a container."""
        if isinstance(x, dict):
            self.mapping(path, x)
            if isinstance(x, defaultdict):
                self.slots(path, x, ["default_factory"])
        elif isinstance(x, list | tuple | deque):
            self.sequence(path, x)
        elif isinstance(x, set | frozenset):
            self.set(path, x)
        elif isinstance(x, int | float | complex | str | bytes):  # of a class of its own
            bases: list[Any] = [base for base in type(x).__mro__ if base in SCALARS]
            self.fact(path, "value", (type(x), *(base.__repr__(x) for base in bases)))
        else:
            return False
        return True

    def slots(self, path: Path, x: Any, names: Iterable[str]) -> None:
        self.members(path, ".", functools.partial(getattr, x), sorted(names))

    def attributes(self, path: Path, own: Mapping[str, Any], names: Set[str], hiding: Set[str] = frozenset()) -> None:
        """The attributes of an object of the user's that code names, and those of its class that they would hide."""
        if self.by_any_name:
            self.mapping(path, own, attributes=True)
        else:
            named = [name for name in own if name in names]
            self.members(path, ".", own.get, named + sorted(hiding & names - own.keys()))

    def framework_module(self, path: Path, x: Any) -> None:
        self.visit(Path(None, type(x).__name__), type(x))
        self.world.modules.append((str(path), x))
        for parts in self.rules.members(x):
            self.mapping(path, parts, attributes=True)
        own, library = vars(x), is_library(type(x).__module__)
        public = [name for name in own if name in self.rules.attributes or (library and not name.startswith("_"))]
        self.members(path, ".", own.get, public)
        if not library:
            self.attributes(path, own, self.names.difference(public), kind_of(type(x)).named)

    def drawing(self, path: Path, x: Any) -> None:
        self.world.opaque.append((path, x, "its numbers are used up by drawing"))

    def unseen(self, path: Path, x: Any, why: str) -> None:
        self.fact(path, "object", x)
        self.world.opaque.append((path, x, why))

    def pickled(self, path: Path, x: Any) -> None:
        """Look at what a pickle of it holds, which is made anew each time."""
        parts = reduced(x)
        if parts is None:
            self.fact(path, "object", x)
        elif isinstance(parts, Exception):
            self.unseen(path, x, "nothing can tell what it holds")
        elif not self.watching:
            self.visit(path, parts)
        else:
            found = self._world_in(path, parts)
            self.world.facts += found.facts
            self.world.opaque += found.opaque
            if type(x).__hash__ in (None, object.__hash__):  # what is hashed by what is in it does not change
                try:
                    self.watch.others.append(Pickle(x).is_current)
                except Exception:  # for want of a name of a function in it, say
                    self.watch.others.append(
                        lambda: _alike(found.facts, self._world_in(path, reduced(x), copying=False).facts)
                    )

    def _world_in(self, path: Path, parts: Any, copying: bool = True) -> World:
        looker = Looker(self.rules, self.names, watching=False, copying=copying)
        looker.look([(str(path), parts)])
        return looker.world

    # Containers -------------------------------------------------------------------------------------------------------

    def mapping(self, path: Path, x: Mapping[Any, Any], attributes: bool = False) -> None:
        # What is in it, whatever a class of the user's gives.
        own: Any = next((kind for kind in (OrderedDict, dict) if isinstance(x, kind)), type(x))
        keys, values = own.keys(x), own.values(x)
        self.watch.views += [keys, values]
        if all(type(key) is str for key in keys):
            self.fact(path, "attributes" if attributes else "keys", (type(x), tuple(keys)))
        else:
            self.fact(path, "length", (type(x), len(keys)))
            self.visit_all(path, (f"'s key {i}" for i in range(len(keys))), keys)
        self.visit_all(path, (f".{key}" if attributes else f"[{_short(key)}]" for key in keys), values)

    def sequence(self, path: Path, x: Sequence[Any]) -> None:
        own: Any = next(kind for kind in (list, tuple, deque) if isinstance(x, kind))
        self.fact(path, "length", (type(x), len(x)))
        if type(x) is own:
            self.watch.views.append(x)
        else:
            self.watch.reads.append(lambda: [*own.__iter__(x), ABSENT])
        self.visit_all(path, (f"[{i}]" for i in range(len(x))), own.__iter__(x))

    def set(self, path: Path, x: Set[Any]) -> None:
        plain = [entry for entry in x if type(entry) in SCALARS]
        others = sorted((entry for entry in x if type(entry) not in SCALARS), key=id)
        self.fact(path, "content", (type(x), frozenset(map(scalar, plain))))
        self.watch.views.append(x)
        self.visit_all(path, (f"'s entry {i}" for i in range(len(others))), others)

    def members(self, path: Path | None, prefix: str, get: Callable[..., Any], names: Sequence[str]) -> None:
        """What a namespace gives for these names."""
        if names:
            self.fact(path or Path(None, ""), "names", tuple(names))
            self.watch.getters += [get] * len(names)
            self.watch.keys += names
            self.visit_all(path, (prefix + name for name in names), (get(name, ABSENT) for name in names))


def _alike(before: Sequence[Fact], after: Sequence[Fact]) -> bool:
    return len(before) == len(after) and all(x.same(y, briefly=True) for x, y in zip(before, after, strict=True))


def _is_empty(cell: Any) -> bool:
    try:
        return cell.cell_contents is ABSENT
    except ValueError:
        return True


def _is_special(name: str, value: Any) -> bool:
    """Whether something in a class is called by what is written otherwise, such as `__call__`."""
    return (name == "forward" or is_dunder(name)) and isinstance(value, types.FunctionType)


def _short(key: Any) -> str:
    return repr(key) if type(key) in SCALARS else f"a {type(key).__name__}"
