"""The wheel alone: built, installed into a clean environment, it runs the README's programs there and types a user's script.

python -m tests.wheel
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDED = ("README.md", "docs", "models", "guides", "tests")
"""What is beside the wheel: the pages, the programs that they name, and the tests of them."""
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    found = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)
    if found.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{found.stdout}\n{found.stderr}")
    return found.stdout


def built(folder: Path) -> Path:
    """The wheel, which has the package and nothing else."""
    run(sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", folder, ".")
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
    if "ppvi/py.typed" not in names:
        sys.exit("the wheel has no ppvi/py.typed")
    if others := [name for name in names if not name.startswith(("ppvi/", "ppvi-"))]:
        sys.exit(f"the wheel has more in it than the package: {', '.join(others)}")
    return wheel


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel, environment, elsewhere = built(folder), folder / "environment", folder / "elsewhere"
        run(sys.executable, "-m", "venv", environment)
        python = environment / "bin" / "python"
        run(python, *PIP, "install", wheel, "pytest")
        for name in NEEDED:
            (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, elsewhere / name)
        home = run(python, "-c", "import ppvi; print(ppvi.__file__)", cwd=elsewhere)
        if not home.startswith(str(environment)):
            sys.exit(f"ppvi is imported from {home}, and not from the wheel")
        print(
            run(
                python, "-m", "pytest", "-q", "-W", "ignore", "-k", "not linked", "tests/test_readme.py", cwd=elsewhere
            ).splitlines()[-1]
        )
        script = elsewhere / "tests" / "user" / "script.py"
        run(python, script, cwd=elsewhere)
        print(run(sys.executable, "-m", "pyright", "--pythonpath", python, script, cwd=elsewhere).splitlines()[-1])
        print(f"{wheel.name} is well")


if __name__ == "__main__":
    main()
