"""Environments of the peers, each made from the registry when it is first asked for, in `.peers`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.matrix import interpreter

HOME = Path(__file__).parents[2] / ".peers"


@dataclass(frozen=True)
class Environment:
    name: str
    python: str
    packages: tuple[str, ...]

    def made(self) -> str:
        """Its interpreter."""
        folder = HOME / self.name
        python, stamp = folder / "bin" / "python", folder / "made"
        if not stamp.exists() or stamp.read_text() != repr(self):
            base = interpreter(self.python)
            if base is None:
                raise RuntimeError(f"{self.name} needs Python {self.python}, which is not on this machine")
            subprocess.run([base, "-m", "venv", "--clear", folder], check=True)
            pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
            subprocess.run([*pip, *self.packages], check=True)
            stamp.write_text(repr(self))
        return str(python)


@dataclass(frozen=True)
class Here:
    """The environment that ppvi is developed in."""

    def made(self) -> str:
        return sys.executable


PYRO = Environment("pyro", "3.11", ("torch==2.13.0", "pyro-ppl==1.9.2"))
NUMPYRO = Environment("numpyro", "3.11", ("jax==0.10.2", "numpyro==0.22.0", "funsor==0.4.8", "blackjax==1.7.1"))
PYMC = Environment("pymc", "3.13", ("pymc==6.3.2", "pytensor==3.3.8", "pymc-extras==0.15.1"))
