"""The layers are one-way, and the framework-free ones load no framework."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ppvi"
LAYERS = [
    ["approximation", "axes", "errors", "losses", "ops", "references", "source", "tables", "trees"],
    ["doors", "options", "plots"],
    ["pairing"],
    ["checks"],
    ["optimizers", "strategies"],
    ["session"],
    ["trace"],
    ["program"],
    ["inference", "expectations"],
    ["objectives"],
    ["ir"],
    ["analysis"],
    ["compiler"],
    ["proofs"],
    ["engine"],
    ["objective"],
    ["averages", "draws", "identity", "steps", "stopping"],
    ["checkpoints", "course", "predict", "starts"],
    ["fitted"],
    ["approximate", "fit"],
    ["numpyro", "pyro"],
    ["check", "cite", "comparison", "freed", "given"],
    ["calibration", "compare", "diagnosis", "loo"],
    ["calibrate", "diagnose"],
    ["testing"],
    ["cli"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FRAMEWORKS = {"jax", "jaxlib", "numpyro", "torch", "pyro", "optax", "flax"}


def imports(path):
    """Modules that a file imports, at any depth in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


FILES = [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_imports_run_downward_only(path):
    layer = path.relative_to(ROOT).parts[0].removesuffix(".py").removeprefix("_")
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "ppvi" and len(parts) > 1 and parts[1].removeprefix("_") != layer:
            assert RANK[parts[1].removeprefix("_")] < RANK[layer], f"{layer} imports {module}"
        if layer not in ("numpyro", "pyro"):
            assert parts[0] not in FRAMEWORKS, f"{layer} imports {module}"
        assert parts[0] not in ("models", "guides", "gallery", "benchmarks", "tests"), f"{layer} imports {module}"


UNSTABLE = re.compile(
    r"(jax\.(_src|core|extend|interpreters|experimental)|jaxlib|numpyro\.(ops|contrib\.control_flow\.(cond|scan))"
    r"|torch\._\w+|torch\.fx\.experimental|torch\.utils\.(_\w+|weak)|torch\.multiprocessing"
    r"|pyro\.(nn\.module|poutine\.runtime))(\.|$)"
)
"""Modules of which the libraries promise nothing."""
PUBLIC = frozenset("_replace _asdict _fields _make _getframe _buffers _modules _parameters".split())
"""Names with an underscore that are documented, or by which every `torch.nn.Module` is pickled."""
SHARED = {"engine/distributions.py": ["fn._mask"], "engine/foreign.py": ["module._PYRO_STACK"]}
"""What both libraries have, in code that loads neither; the tests of both surfaces ask for it."""


def unstable(tree):
    """What code takes of the libraries that a new version may change: modules, and private names that are none of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if UNSTABLE.match(name) or (is_private(node.attr) and node.attr not in OURS):
                yield name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            package = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for name in (f"{package}{alias.name}" for alias in node.names):
                library, *parts = name.split(".")
                if UNSTABLE.match(name) or (library in FRAMEWORKS and any(map(is_private, parts))):
                    yield name


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def stored(tree):
    """The names that a file's code gives: to functions, classes, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            yield from [node.attr] if node.value.id == "self" else []


TREES = {path: ast.parse(path.read_text()) for path in FILES}
OURS = {name for tree in TREES.values() for name in stored(tree)} | {path.stem for path in FILES}
OURS |= set("_estimator _formula _ppvi_literal _ppvi_native".split())


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_only_compat_knows_what_libraries_may_change(path):
    if not path.name.startswith("_compat"):
        assert sorted(set(unstable(TREES[path]))) == SHARED.get(path.relative_to(ROOT).as_posix(), [])


@pytest.mark.parametrize(
    "code",
    [
        "from jax._src import core",
        "from jax.extend.core import Jaxpr",
        "from jax.interpreters import mlir",
        "from numpyro.primitives import _PYRO_STACK",
        "from torch._C._functorch import is_batchedtensor",
        "from torch.utils._pytree import tree_map",
        "from torch.fx.experimental.proxy_tensor import make_fx",
        "torch._C.DisableTorchFunction()",
        "fn._validate_args",
    ],
)
def test_what_libraries_may_change_is_found(code):
    assert list(unstable(ast.parse(code)))


@pytest.mark.parametrize(
    "code", ["from jax import lax", "from torch.fx import Node", "found._replace(x=1)", "self._next()"]
)
def test_what_they_promise_is_left_alone(code):
    assert not list(unstable(ast.parse(code)))


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        (
            "ppvi",
            ("jax", "numpyro", "torch", "pyro", "scipy", "arviz", "matplotlib", "tqdm", "rich", "safetensors", "typer"),
        ),
        ("ppvi.numpyro", ("torch", "pyro", "arviz", "matplotlib", "rich")),
        ("ppvi.pyro", ("jax", "numpyro", "arviz", "matplotlib", "rich")),
    ],
)
def test_import_loads_no_more_than_it_needs(module, forbidden):
    code = f"import sys, {module}; print([name for name in {forbidden!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert run.stdout.strip() == "[]"


def test_modules_stay_small():
    """A module past 400 lines has more than one idea."""
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert max(sizes.values()) <= 400, {name: size for name, size in sizes.items() if size > 400}


def test_no_module_needs_itself():
    """The graph of imports, at any depth in files, has no circle."""
    names = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in FILES}
    graph = {name: needed(path, names) - {name} for name, path in names.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def needed(path, names):
    """The modules of these names that a file imports, for types alone or not."""
    froms = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
    found = {node.module for node in froms} | {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
    return found & names.keys()
