"""What code names, and whose code it is."""

from __future__ import annotations

import dis
import functools
import importlib.util
import site
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

FRAMEWORKS = frozenset(
    """ppvi numpy scipy torch torchvision torchmetrics functorch pyro funsor gpytorch jax jaxlib numpyro optax flax equinox
    haiku chex blackjax orbax jaxtyping opt_einsum ml_dtypes multipledispatch""".split()
)
"""Packages of arrays and of programs on them."""

LIBRARIES = FRAMEWORKS | frozenset(
    """pandas polars matplotlib seaborn PIL tqdm rich arviz arviz_base xarray sklearn statsmodels pytest _pytest IPython
    lightning pytorch_lightning typing_extensions absl omegaconf""".split()
)
"""Packages whose code is not looked at, as Python's own is not, if it is they: a file of the user's may be called so."""

BY_ANY_NAME = frozenset("getattr hasattr vars __dict__ asdict astuple attrgetter fields".split())
"""Code that names one of these may read attributes that it does not name."""

ALL_GLOBALS = frozenset("globals eval exec".split())
"""Code that names one of these may read globals that it does not name."""


class Names(NamedTuple):
    """What a piece of code names, with the functions in it."""

    names: frozenset[str]
    """Globals, attributes, modules."""
    globals: frozenset[str]
    modules: frozenset[tuple[int, str]]
    """That are imported: the number of dots in front, and the name. Those that it may import by a text are among them."""


@functools.lru_cache(4096)
def names_in(code: types.CodeType) -> Names:
    inner = [names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    names, used, modules = set(code.co_names), set(), set()
    before: list[Any] = [0, None]
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            modules.add((before[0], instruction.argval))
        elif instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            used.add(instruction.argval)
        if instruction.opname != "EXTENDED_ARG":
            before = [before[1], instruction.argval]
    if names & {"import_module", "__import__", "modules"}:
        modules |= {(0, text) for text in code.co_consts if isinstance(text, str) and text in sys.modules}
    found = (frozenset(names), frozenset(used), frozenset(modules))
    return Names(*(x.union(*others) for x, *others in zip(found, *inner, strict=True)))


@functools.lru_cache(4096)
def names_in_class(kind: type) -> frozenset[str]:
    """What the methods of a class name, not those of its bases."""
    return frozenset().union(*(names_in(f.__code__).names for f in map(unwrapped, vars(kind).values()) if _has_code(f)))


def _has_code(x: Any) -> bool:
    return isinstance(x, types.FunctionType)


def unwrapped(value: Any) -> Any:
    """The function in a property, a class method or a static method."""
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    if isinstance(value, property):
        return value.fget
    return value.func if isinstance(value, functools.cached_property) else value


def imported(code: types.CodeType, scope: Mapping[str, Any]) -> Iterator[str]:
    """The full names of the modules that code imports, and of the packages that they are in."""
    for dots, name in sorted(names_in(code).modules):
        if dots:
            try:
                name = importlib.util.resolve_name("." * dots + name, scope.get("__package__") or scope["__name__"])
            except ImportError:  # as the code itself finds, if it gets there
                continue
        parts = name.split(".")
        yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def is_library(module: str | None) -> bool:
    """Whether a module of this name is a library's."""
    root = _root(module or "")
    if root in FRAMEWORKS:
        return True
    return (root in LIBRARIES or root in sys.stdlib_module_names) and _is_installed(root)


def is_framework(module: str) -> bool:
    return _root(module) in FRAMEWORKS


def _root(module: str) -> str:
    return module.partition(".")[0]


def is_librarys(scope: Mapping[str, Any]) -> bool:
    """Whether these are the globals of a library's module."""
    name = scope.get("__name__") or ""
    known = sys.modules.get(name)
    return is_library(name) and (_root(name) in FRAMEWORKS or (known is not None and vars(known) is scope))


_PLACES = (
    *(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")),
    *site.getsitepackages(),
    site.getusersitepackages(),
)


@functools.cache
def _is_installed(root: str) -> bool:
    module: Any = sys.modules.get(root)
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return file is None or file.startswith(_PLACES)  # what is built in has none
