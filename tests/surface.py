"""What a version of a library must have for an engine to run on it, asked for without loading the engine."""

import ast
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

PACKAGES = {"pyro": "pyro-ppl"}
PPVI = Path(__file__).parents[1] / "ppvi"


def taken_by(path):
    """The modules and names that a file takes of other libraries, as parameters of a test."""
    imports = [node for node in ast.parse((PPVI / path).read_text()).body if isinstance(node, ast.ImportFrom)]
    return [
        pytest.param(path, node.module, alias.name, id=f"{node.module}.{alias.name}")
        for node in imports
        if (node.module or "").partition(".")[0] in LIBRARIES
        for alias in node.names
    ]


LIBRARIES = frozenset({"jax", "jaxlib", "numpyro", "torch", "pyro"})


def name_of(library):
    """A library with its version."""
    return f"{library} {version(PACKAGES.get(library, library))}"


def has(module, name):
    """Whether a module, or one in it, has this name."""
    try:
        found = import_module(module)
    except ModuleNotFoundError:
        return False
    if hasattr(found, name):
        return True
    try:
        import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def require_name(path, module, name):
    library = module.partition(".")[0]
    if not has(module, name):
        pytest.fail(f"{name_of(library)} has no {module}.{name}, which ppvi/{path} takes from there.", pytrace=False)


def require(library, what, held):
    """Fail with a sentence that says what a library has changed."""
    if not held:
        pytest.fail(f"{name_of(library)} has changed what ppvi builds on: {what}.", pytrace=False)


def require_all(library, whose, names, found):
    missing = sorted(set(names) - set(found))
    require(library, f"{whose} has no {', '.join(missing)}, only {', '.join(map(str, found))}", not missing)
