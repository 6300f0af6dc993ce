"""The versions of Python and of the libraries that ppvi runs on, each tried in an environment of its own.

    python -m tests.matrix                  # all of them; writes docs/versions.md
    python -m tests.matrix newest oldest    # these

An environment is made from the registry with ppvi as a user installs it, so that the bounds in pyproject.toml are tried too. In each
run the tests of what ppvi builds on, the exact laws of the engines, the README and a fit. What this machine cannot make is left out
with a sentence: an interpreter that is not there, or a PyTorch that would bring gigabytes of CUDA. `MATRIX_TORCH=any` takes it, and
`MATRIX_TORCH=newest,oldest` takes it in these.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "versions.md"
HOME = Path(os.environ.get("MATRIX_HOME", ROOT / ".matrix"))
"""Where the environments are kept."""
PIP = ("-m", "pip", "--disable-pip-version-check")
TESTING = ("pytest", "pytest-xdist", "funsor")
NO_STYLE_CORE = "matplotlib<3.11"
"""What ArviZ before 0.23, and 1.1, do not import without."""


@dataclass(frozen=True)
class Environment:
    name: str
    python: str
    torch: str
    packages: tuple[str, ...]


ENVIRONMENTS = [
    Environment(
        "oldest",
        "3.11",
        "torch==2.6.0",
        (
            "jax==0.7.2",
            "jaxlib==0.7.2",
            "numpyro==0.19.0",
            "optax==0.2.4",
            "flax==0.11.0",
            "arviz==0.20.0",
            NO_STYLE_CORE,
        ),
    ),
    Environment(
        "Colab's",
        "3.13",
        "torch==2.11.*",
        ("jax==0.7.2", "jaxlib==0.7.2", "flax==0.11.*", "arviz==0.22.*", NO_STYLE_CORE),
    ),
    Environment("JAX 0.8", "3.12", "torch", ("jax==0.8.*", "numpyro==0.20.*", "arviz==0.21.*", NO_STYLE_CORE)),
    Environment("JAX 0.9", "3.11", "torch==2.13.0", ("jax==0.9.*", "numpyro==0.21.*", "arviz==0.23.*")),
    Environment("pinned", "3.11", "torch==2.13.0", ("jax==0.10.2", "numpyro==0.22.0", "flax==0.12.8", "arviz==0.23.4")),
    Environment("JAX 0.11", "3.13", "torch", ("jax==0.11.*", "arviz==1.1.*", NO_STYLE_CORE)),
    Environment("newest on 3.11", "3.11", "torch==2.13.0", ("arviz==0.23.*",)),
    Environment("newest", "3.12", "torch", ("arviz==1.3.*",)),
    Environment("newest on 3.13", "3.13", "torch", ("arviz==1.3.*",)),
    Environment("newest on 3.14", "3.14", "torch", ()),
]
"""ArviZ has 1.x on Python 3.12 and later; JAX ends with 0.10 on Python 3.11."""

CHECKS = {
    "surface": ("tests/numpyro/test_surface.py", "tests/pyro/test_surface.py"),
    "exact laws": ("tests/laws/test_exact.py",),
    "README": ("tests/test_readme.py",),
    "a fit": ("tests/test_one_fit.py",),
}
SHOWN = "jax numpyro flax optax arviz torch pyro-ppl".split()


@dataclass
class Outcome:
    """What was found in an environment."""

    environment: Environment
    versions: dict[str, str] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    """What could not be run here, and why."""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        return any(found.startswith("FAILED") for found in self.checks.values())


# Interpreters and environments --------------------------------------------------------------------------------------------


def candidates(version: str) -> Iterator[str]:
    yield sys.executable
    yield from filter(None, [shutil.which(f"python{version}")])
    for root in {os.environ.get("PYENV_ROOT"), str(Path.home() / ".pyenv")} - {None}:
        yield from map(str, sorted(Path(root).glob(f"versions/{version}.*/bin/python{version}"), reverse=True))


@cache
def interpreter(version: str) -> str | None:
    """A Python of this version that runs and can make environments, as the name of a shim alone cannot."""
    asked = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    for path in candidates(version):
        run = subprocess.run([path, "-c", asked], capture_output=True, text=True, check=False)
        if run.returncode == 0 and run.stdout.strip() == version:
            return path
    return None


def install(python: Path, *packages: str, quietly: bool = False) -> bool:
    run = subprocess.run([python, *PIP, "install", "--quiet", *packages], cwd=ROOT, check=False, capture_output=quietly)
    return run.returncode == 0


@cache
def costly(python: Path, torch: str) -> str | None:
    """Why a PyTorch is better not installed here; None where it is for processors alone, and small."""
    command = [
        python,
        *PIP,
        "install",
        "--quiet",
        "--dry-run",
        "--no-deps",
        "--ignore-installed",
        "--report",
        "-",
        torch,
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        return f"there is no {torch} for this Python"
    [found] = json.loads(run.stdout)["install"]
    needs = found["metadata"].get("requires_dist", [])
    if (
        platform.machine() == "x86_64"
        and sys.platform == "linux"
        and any(re.match("nvidia|cuda|triton", x) for x in needs)
    ):
        return f"PyTorch {found['metadata']['version']} would bring gigabytes of CUDA (MATRIX_TORCH=any takes it)"
    return None


def made(environment: Environment, outcome: Outcome) -> Path | None:
    """The interpreter of an environment, made unless it is there; None where it cannot be, which the outcome says."""
    base = interpreter(environment.python)
    if base is None:
        outcome.said.append(f"no Python {environment.python} on this machine")
        return None
    home = HOME / re.sub(r"\W+", "-", environment.name)
    python = home / "bin" / "python"
    asked = bool({"any", environment.name} & set(os.environ.get("MATRIX_TORCH", "").split(",")))
    text = repr((environment, TESTING, (ROOT / "pyproject.toml").read_text(), asked))
    stamp, key = home / "made", hashlib.sha256(text.encode()).hexdigest()
    if stamp.exists() and stamp.read_text().partition("\n")[0] == key:
        outcome.said += stamp.read_text().splitlines()[1:]
        return python
    subprocess.run([base, "-m", "venv", "--clear", home], check=True)
    why = None if asked else costly(python, environment.torch)
    others = ("-e", ".", "flax", "matplotlib", *environment.packages, *TESTING)
    if why is None and not install(python, *others, environment.torch, "pyro-ppl"):
        why = f"{environment.torch} cannot be installed beside the others"
    if why is not None:
        outcome.said.append(why)
        if not install(python, *others):
            outcome.said.append("the registry has no such versions for this Python")
            return None
    stamp.write_text("\n".join([key, *outcome.said]))
    return python


# Checks -------------------------------------------------------------------------------------------------------------------


def versions(python: Path) -> dict[str, str]:
    run = subprocess.run([python, *PIP, "list", "--format", "json"], capture_output=True, text=True, check=True)
    known = {package["name"].lower(): package["version"] for package in json.loads(run.stdout)}
    return {name: known[name] for name in SHOWN if name in known}


def check(python: Path, tests: Sequence[str]) -> str:
    """How many tests passed; or which failed."""
    command = [
        python,
        "-m",
        "pytest",
        "-q",
        "-W",
        "ignore",
        "-m",
        "not slow",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        *tests,
    ]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if run.returncode == 0 and (passed := re.search(r"(\d+) passed", run.stdout)):
        return passed[1]
    print(run.stdout[-4000:], run.stderr[-2000:], sep="\n")
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    return f"FAILED: {', '.join(name.partition('::')[2] or name for name in failed[:3]) or 'no test ran'}"


def tried(environment: Environment) -> Outcome:
    outcome, start = Outcome(environment), time.monotonic()
    python = made(environment, outcome)
    if python is not None:
        outcome.versions = versions(python)
        for name, tests in CHECKS.items():
            here = [test for test in tests if "torch" in outcome.versions or not test.startswith("tests/pyro")]
            outcome.checks[name] = check(python, here)
    outcome.seconds = time.monotonic() - start
    return outcome


# What is said of it -------------------------------------------------------------------------------------------------------


def line(outcome: Outcome) -> str:
    environment = outcome.environment
    found = ", ".join(f"{name} {version}" for name, version in outcome.versions.items())
    checks = ", ".join(f"{name}: {result}" for name, result in outcome.checks.items())
    said = "".join(f"; not run here: {why}" for why in outcome.said)
    return f"{environment.name} (Python {environment.python}): {checks or 'left out'}{said}  [{found}; {outcome.seconds:.0f} s]"


def page(outcomes: Sequence[Outcome]) -> str:
    """The table of docs/versions.md."""
    head = ["environment", "Python", *SHOWN, *CHECKS]
    rows, notes = [], []
    for outcome in outcomes:
        marks = ""
        for why in outcome.said:
            if why not in notes:
                notes.append(why)
            marks += f" [{notes.index(why) + 1}]"
        environment = outcome.environment
        rows.append(
            [environment.name + marks, environment.python]
            + [outcome.versions.get(name, "-") for name in SHOWN]
            + [outcome.checks.get(name, "-") for name in CHECKS]
        )
    table = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    said = [f"[{i + 1}] Not run here: {why}." for i, why in enumerate(notes)]
    return "\n".join([INTRODUCTION, *table, "", *(f"{note}\n" for note in said)]).rstrip() + "\n"


INTRODUCTION = """# Versions

What `make matrix` has found (`tests/matrix.py`): in an environment of each kind, made from the registry, the tests of what ppvi builds
on in the libraries beyond what they promise (`tests/numpyro/test_surface.py`, `tests/pyro/test_surface.py`), the exact laws of the
engines that are installed, the README's programs, and a fit. The numbers are those of the tests that passed. `.ci/run` runs *newest*
and *oldest*.
"""


def main(names: Sequence[str]) -> int:
    unknown = set(names) - {environment.name for environment in ENVIRONMENTS}
    if unknown:
        sys.exit(
            f"there is no environment {', '.join(sorted(unknown))}: choose of {', '.join(e.name for e in ENVIRONMENTS)}"
        )
    outcomes = []
    for environment in ENVIRONMENTS:
        if not names or environment.name in names:
            outcomes.append(tried(environment))
            print(line(outcomes[-1]), flush=True)
            if not names:
                PAGE.write_text(page(outcomes))
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
