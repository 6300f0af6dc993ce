"""Run folders: what was asked, checkpoints, losses, the posterior, and what was found, in files that anybody can read.

    config.json      what was asked, of which data, by which versions
    checkpoints/     states to go on from, in the safetensors format
    losses.csv       one line a step
    posterior.nc     draws as ArviZ data, in NetCDF
    result.json      why it stopped, and whether it has converged
    report.html      all of that, to look at

No code is read from these. The programs are in the files that `config.json` names, which commands run, as `fit` has run them,
where the folder is this user's own (`ppvi.cli.trust`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ppvi
from ppvi._doors import listed
from ppvi.cli.failures import InputError
from ppvi.cli.options import Course, Question
from ppvi.cli.problems import Problem, problem_of
from ppvi.cli.sources import split
from ppvi.cli.trust import digest, programs_of, refuse_foreign, seal
from ppvi.engine._arviz import read, saved
from ppvi.engine.memory import LARGE, numbers_in
from ppvi.fit import Fit

FORMAT = 1


@dataclass(frozen=True)
class Run:
    """The folder of a fit."""

    folder: Path

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def posterior(self) -> Path:
        return self.folder / "posterior.nc"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def resumed(self) -> str:
        """The command that goes on with it, as it is typed."""
        return shlex.join(["ppvi", "resume", str(self.folder)])

    @property
    def steps(self) -> int:
        """Those that the last checkpoint has behind it."""
        found = [path.stem.removeprefix("step-") for path in self.checkpoints.glob("step-*.safetensors")]
        return max((int(step) for step in found if step.isdigit()), default=0)

    def begin(self, problem: Problem, course: Course, overwrite: bool) -> None:
        """Make the folder, and write what is asked.

        **Raises** `InputError` where it holds another run, or other files of these names.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"--out {self.folder}: it is a file, and has to be a folder.")
        there = [name for name in WRITTEN if (self.folder / name).exists()]
        if there and not self._is_ours():
            raise InputError(
                f"--out {self.folder}: {listed(there)} would be replaced, of a folder that is not of a run: choose another."
            )
        if (self.steps or self.posterior.exists()) and not overwrite:
            raise InputError(
                f"--out {self.folder}: it holds a run of {self.steps} steps: {self.resumed} goes on with it, "
                f"--overwrite replaces it, and another --out leaves it alone."
            )
        self._clear()
        self.folder.mkdir(parents=True, exist_ok=True)
        asked = {"question": asdict(problem.question), "course": asdict(course), "directory": str(Path.cwd())}
        made = {
            "engine": problem.engine,
            "arguments": str(problem.arguments),
            "data": {file: digest(file) for file in problem.question.data},
            "programs": programs_of(problem.question),
            "ppvi": ppvi.__version__,
        }
        self._write_sealed({"format": FORMAT, **asked, **made})

    def _write_sealed(self, config: Mapping[str, Any]) -> None:
        self.write("config", {**config, "seal": seal(config)})

    def trust(self, config: Mapping[str, Any], question: Question) -> None:
        """Take the folder, with the programs of `question` as they are now, for the user's own."""
        self._write_sealed({**config, "programs": programs_of(question)})

    def _is_ours(self) -> bool:
        """Whether the folder is of a run, by what it says of itself."""
        try:
            return (self.read("config") or {}).keys() >= {"format", "question", "course"}
        except InputError:
            return False

    def ask_for(self, steps: int) -> None:
        """Write how many steps there are to be in all."""
        config = self.read("config") or {}
        config["course"]["steps"] = steps
        self.write("config", config)

    def _clear(self) -> None:
        """Remove what a run before has left, and nothing else."""
        for path in (*self.checkpoints.glob("step-*.safetensors"), *map(self.folder.joinpath, WRITTEN)):
            path.unlink(missing_ok=True)

    def write(self, name: str, what: Mapping[str, Any]) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(what, indent=2) + "\n")

    def read(self, name: str) -> dict[str, Any] | None:
        """What was written, if it was.

        **Raises** `InputError` where it is no longer as it was.
        """
        path = self.folder / f"{name}.json"
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}.") from error
        if not isinstance(found, dict):
            raise InputError(f"{path} is not as ppvi wrote it: begin the run anew.")
        return found

    def finish(self, fit: Fit, draws: int) -> dict[str, Any]:
        """Write losses, draws and what was found of a fit; the latter is returned. What was found of fewer steps goes."""
        if (self.read("result") or {}).get("steps") != len(fit.losses):
            for name in ("diagnosis", "comparison"):
                (self.folder / f"{name}.json").unlink(missing_ok=True)
        few = numbers_in((fit.args, fit.kwargs)) * draws < LARGE
        data = fit.posterior(draws=draws, log_likelihood=few)
        columns = fit.losses.reshape(len(fit.losses), -1)
        names = ["loss"] if fit.losses.ndim == 1 else [f"loss_{i}" for i in range(columns.shape[1])]
        rows = (",".join(map(repr, row)) for row in columns.tolist())
        lines = [",".join(["step", *names]), *(f"{step},{row}" for step, row in enumerate(rows, 1))]
        (self.folder / "losses.csv").write_text("\n".join(lines) + "\n")
        saved(data, self.posterior)
        said = {"steps": len(fit.losses), "why": fit.why, "converged": data.attrs["converged"], "fit": str(fit)}
        self.write("result", said)
        return said


WRITTEN = (
    "losses.csv", "posterior.nc", "result.json", "report.html", "diagnosis.json", "comparison.json", "nuts.nc", "config.json",
)  # fmt: skip


def opened(folder: Path, trust: bool = False) -> tuple[Run, Problem, Course]:
    """A run, and what it is of, whose programs are run.

    **Arguments**

    - `trust`: run them although the folder is somebody else's, or they have changed.

    **Raises** `InputError` where the folder is none, its data have changed, or its programs are not to be run unasked.
    """
    run = Run(folder)
    config = run.read("config")
    if config is None:
        raise InputError(
            f"{folder} is not the folder of a run: there is no {folder / 'config.json'}. ppvi fit makes one."
        )
    if config.get("format") != FORMAT:
        raise InputError(
            f"{folder} is of format {config.get('format')}, and this version of ppvi reads format {FORMAT}."
        )
    try:
        question, course, home = Question(**config["question"]), Course(**config["course"]), Path(config["directory"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / 'config.json'} is not as ppvi wrote it: begin the run anew.") from error
    question = _from_here(question, home)
    for (before, before_digest), now in zip(config["data"].items(), question.data, strict=True):
        if Path(now).is_file() and digest(now) != before_digest:
            raise InputError(
                f"{before} has changed since the run in {folder} began: put it back, or begin anew, by ppvi fit."
            )
    if trust:
        run.trust(config, question)
    else:
        refuse_foreign(folder, config, question)
    return run, problem_of(question, [home]), course


def is_run(text: str) -> bool:
    """Whether what is named in place of a program is a run."""
    return (Path(text) / "config.json").is_file()


def draws_of(folder: Path) -> Any:
    """The posterior of a run."""
    run = Run(folder)
    if not run.posterior.is_file():
        raise InputError(f"{folder} has no posterior yet: {run.resumed} goes on until there is one.")
    return read(run.posterior)


def _from_here(question: Question, home: Path) -> Question:
    """A question whose files are found from wherever the command runs."""
    fields = asdict(question)
    for name in ("program", "guide", "objective"):
        if text := fields[name]:
            file, _ = split(text, "")
            fields[name] = str(home / text) if not file.exists() and (home / file).exists() else text
    fields["data"] = [str(home / x) if not Path(x).exists() else x for x in question.data]
    return Question(**fields)
