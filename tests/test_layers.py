"""The layers are one-way, and the framework-free ones load no framework."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ppvi"
LAYERS = [
    ["axes", "errors", "losses", "ops", "source", "tables", "trees"],
    ["doors", "options", "plots"],
    ["pairing"],
    ["checks"],
    ["strategies"],
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
    ["draws", "identity", "steps", "stopping"],
    ["checkpoints", "course", "predict", "starts"],
    ["fitted"],
    ["fit"],
    ["numpyro", "pyro"],
    ["check", "comparison", "given", "loo"],
    ["compare"],
    ["testing"],
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
        assert parts[0] not in ("models", "guides", "benchmarks", "tests"), f"{layer} imports {module}"


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("ppvi", ("jax", "numpyro", "torch", "pyro", "scipy", "arviz", "matplotlib", "tqdm", "rich", "safetensors")),
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
