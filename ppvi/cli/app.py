"""The commands. Each reads what is asked, has the library do it, and says what was found."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ppvi._tables import prose, render
from ppvi.cli.failures import InputError
from ppvi.cli.options import Course, Question
from ppvi.cli.speaking import AGAINST, BAD_INPUT, GOOD, INTERRUPTED, Speaker, speaking, terminated_alike


class Commands(TyperGroup):
    """Commands whose exit codes are those of `speaking`, what is typed wrong included."""

    def main(self, *args: Any, standalone_mode: bool = True, **options: Any) -> Any:
        try:
            code = super().main(*args, standalone_mode=False, **options)
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            path = getattr(getattr(error, "ctx", None), "command_path", "ppvi")
            said = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
            print(f"{path}: {said}. See {path} --help.", file=sys.stderr)
            code = BAD_INPUT
        sys.exit(code or GOOD)


app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.callback(invoke_without_command=True)
def ppvi(context: typer.Context) -> None:
    """Programmable variational inference for NumPyro and Pyro.

    Exit codes: 0 good; 1 bad input; 2 not converged, or a verdict biased or poor; 130 interrupted.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def command(example: str, **options: Any) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """A command of the application; `example` ends its help."""

    def registered(function: Callable[..., int]) -> Callable[..., int]:
        app.command(epilog=f"Example: [bold]{example}[/bold]", **options)(speaking(function))
        return function

    return registered


Folder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Run the programs of a run that is somebody else's, or whose files have changed."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run that is there.")]


# Fits ----------------------------------------------------------------------------------------------------------------------


@command("ppvi fit model.py:model --guide model.py:guide --objective iwelbo:5 --data data.csv --out run")
def fit(
    question: Question,
    course: Course,
    speaker: Speaker,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder of the run.")] = Path("run"),
    overwrite: Overwrite = False,
) -> int:
    """Fit a guide to a model's posterior, or, without a guide, approximate it."""
    from ppvi.cli.problems import problem_of
    from ppvi.cli.runs import Run

    problem, run = problem_of(question), Run(out)
    _refuse_unheard(problem, course)
    run.begin(problem, course, overwrite)
    speaker.lines(problem.lines())
    return _fitted(speaker, run, problem, course, None)


def _refuse_unheard(problem: Any, course: Course) -> None:
    """What `approximate` decides by itself cannot be asked for."""
    asked = {"steps": course.steps, "until": course.until, "lr": course.lr != Course().lr, "starts": course.starts > 1}
    asked["strategy"] = problem.question.strategy
    if problem.is_approximated and (unheard := [name for name, x in asked.items() if x]):
        raise InputError(
            f"--{unheard[0]} is of a fit by stochastic gradients, and without a guide or an objective it is vi.approximate, "
            f"which decides that by itself: leave it out, or name --objective elbo."
        )


@command("ppvi resume run --steps 5000")
def resume(
    run: Folder,
    speaker: Speaker,
    steps: Annotated[int | None, typer.Option(min=1, help="In all; by default those that fit was asked for.")] = None,
    trust: Trust = False,
) -> int:
    """Go on with a run that was interrupted, exactly, or for more steps."""
    from ppvi.cli.problems import loaded
    from ppvi.cli.runs import opened

    there, problem, course = opened(run, trust)
    result = there.read("result") or {}
    has_as_many = steps is not None and steps <= there.steps
    if steps is not None and not (has_as_many or problem.is_approximated):
        course = replace(course, steps=steps)
        there.ask_for(steps)
    speaker.lines(problem.lines())
    if not there.steps:
        return _fitted(speaker, there, problem, course, None)
    before = loaded(problem, there.checkpoints)
    has_ended = steps is None and result.get("steps") == there.steps
    if problem.is_approximated or has_ended or has_as_many or there.steps >= course.total:
        why = result.get("why") or ("all steps taken" if before.approximated is None else before.why)
        speaker.lines(
            [("resume", f"there is nothing left to do ({why}): the posterior and the report are written anew")]
        )
        return _finished(speaker, there, course, replace(before, why=why))
    return _fitted(speaker, there, problem, course, before)


def _fitted(speaker: Speaker, run: Any, problem: Any, course: Course, before: Any) -> int:
    from ppvi.cli.problems import fitted

    left = course.total - run.steps
    progress = not (speaker.quiet or speaker.json)
    try:
        with terminated_alike():
            found = fitted(problem, course, run.checkpoints, progress, left, before)
    except KeyboardInterrupt:
        where = f"at step {run.steps} of {course.total}; to go on from there, exactly"
        said = f"{'before it was done; to begin anew' if problem.is_approximated else where}: {run.resumed}"
        speaker.answer(interrupted=True, steps=run.steps, run=str(run.folder))
        speaker.lines([("stopped", said)])
        return INTERRUPTED
    return _finished(speaker, run, course, found)


def _finished(speaker: Speaker, run: Any, course: Course, found: Any) -> int:
    """Write what was found, and say it."""
    from ppvi.cli import pages, summaries
    from ppvi.engine._arviz import read

    result = run.finish(found, course.draws)
    pages.write(run)
    posterior = read(run.posterior)
    speaker.say(summaries.text_of(posterior))
    speaker.say(f"{result['fit']}\nconverged: {result['converged']}")
    speaker.say(f"{run.report}, {run.posterior}, {run.folder / 'losses.csv'}")
    speaker.answer(run=str(run.folder), **result, posterior=summaries.summary_of(posterior))
    return _code(result["converged"])


def _code(converged: str) -> int:
    return AGAINST if converged.startswith("no") else GOOD


# Is it right? --------------------------------------------------------------------------------------------------------------


def _asked(question: Question, trust: bool) -> tuple[Any, list[Any], Any]:
    """A problem, its objectives, and the parameters to look at them: those of a run where one is given."""
    from ppvi.cli.problems import loaded, objectives_of, problem_of
    from ppvi.cli.runs import is_run, opened

    if not is_run(question.program):
        problem = problem_of(question)
        return problem, objectives_of(problem), None
    _refuse_options(question)
    run, problem, _ = opened(Path(question.program), trust)
    if not run.steps:
        return problem, objectives_of(problem), None
    found = loaded(problem, run.checkpoints)
    bounds = [x if x.args or x.kwargs else x.on(*problem.args, **problem.kwargs) for x in found.objectives]
    return problem, bounds, found.params


def _refuse_options(question: Question) -> None:
    """A run has its own."""
    if question != Question(question.program):
        raise InputError(
            f"{question.program} is a run, which has its own guide, objective and data: leave the options out, or name a "
            f"program, FILE:MODEL."
        )


@command("ppvi check model.py:model --guide model.py:guide --objective iwelbo:5 --data data.csv")
def check(
    question: Question,
    speaker: Speaker,
    budget: Annotated[float, typer.Option(min=0.1, help="Seconds to draw for.")] = 30.0,
    alpha: Annotated[float, typer.Option(help="Probability of a wrong verdict.")] = 1e-3,
    trust: Trust = False,
) -> int:
    """Is the gradient unbiased? A proof where there is one, and a sequential test. FILE:MODEL may be a run."""
    problem, bounds, params = _asked(question, trust)
    progress = not (speaker.quiet or speaker.json)
    reports = [
        bound.check(problem.key, params or bound.init(problem.key), budget=budget, alpha=alpha, progress=progress)
        for bound in bounds
    ]
    for report in reports:
        speaker.say(str(report))
    speaker.answer(verdicts=[x.verdict for x in reports], reports=[x.to_dict() for x in reports])
    return AGAINST if any(report.verdict == "biased" for report in reports) else GOOD


@command("ppvi prove model.py:model --guide model.py:guide --data data.csv")
def prove(question: Question, speaker: Speaker, trust: Trust = False) -> int:
    """What can be proved of the gradient from the programs alone. FILE:MODEL may be a run."""
    problem, bounds, params = _asked(question, trust)
    found = [bound.prove(params or bound.init(problem.key)) for bound in bounds]
    for static in found:
        speaker.say(prose(str(static)))
    speaker.answer(verdicts=[x.verdict for x in found], findings=[list(x.findings) for x in found])
    return AGAINST if any(static.verdict.startswith("biased") for static in found) else GOOD


@command("ppvi explain model.py:model --guide model.py:guide --data data.csv --strategy z=Enumerate")
def explain(question: Question, speaker: Speaker, trust: Trust = False) -> int:
    """Sites, strategies and why, lanes, credit and cost. FILE:MODEL may be a run."""
    problem, bounds, params = _asked(question, trust)
    found = [bound.explain(params or bound.init(problem.key)) for bound in bounds]
    for explanation in found:
        speaker.say(str(explanation))
    speaker.answer(explanations=found)
    return GOOD


# Is it near? ---------------------------------------------------------------------------------------------------------------


@command("ppvi diagnose run")
def diagnose(
    run: Folder,
    speaker: Speaker,
    draws: Annotated[int, typer.Option(min=100, help="From the fit.")] = 2000,
    trust: Trust = False,
) -> int:
    """Is the fit near to the posterior? Short Markov chains from its draws, modes, weights, predictions."""
    import ppvi as library
    from ppvi.cli import pages
    from ppvi.cli.problems import loaded
    from ppvi.cli.runs import opened
    from ppvi.cli.speaking import plain

    there, problem, _ = opened(run, trust)
    speaker.lines([*problem.lines(), ("running", "chains from the fit's draws")])
    report = library.diagnose(loaded(problem, there.checkpoints), draws=draws)
    there.write("diagnosis", plain(report.to_dict()))
    if there.posterior.is_file():
        pages.write(there)
    speaker.say(str(report))
    speaker.answer(**report.to_dict())
    return AGAINST if report.verdict == "poor" else GOOD


@command("ppvi compare run nuts --within 0.2")
def compare(
    run: Folder,
    reference: Annotated[
        str,
        typer.Argument(
            help="nuts; a NetCDF file of ArviZ; another run; or draws of posteriordb, a .json or .json.zip."
        ),
    ],
    speaker: Speaker,
    within: Annotated[
        float | None, typer.Option(min=0.0, help="Exit code 2 if a marginal is farther off than this, in sds.")
    ] = None,
    trust: Trust = False,
) -> int:
    """A fit beside a reference, marginal by marginal, the worst first."""
    import ppvi as library
    from ppvi.cli import pages
    from ppvi.cli.runs import Run, draws_of
    from ppvi.cli.speaking import plain

    found = library.compare(fit=draws_of(run), reference=_reference(run, reference, speaker, trust))
    beside, worst = found["fit"], found["fit"].worst
    marginals = sorted(beside.marginals, key=lambda x: -x.badness)
    Run(run).write("comparison", plain({"reference": reference, "rows": [_row(x) for x in marginals]}))
    pages.write(Run(run))
    speaker.say(str(found))
    speaker.answer(worst=worst.name, wasserstein=worst.wasserstein, k_hat=beside.k_hat, marginals=marginals)
    return AGAINST if within is not None and not worst.wasserstein <= within else GOOD


def _row(x: Any) -> list[str]:
    from ppvi.cli.summaries import shown

    return [x.name, *shown((x.mean, x.sd, x.reference_mean, x.reference_sd), x.reference_sd), f"{x.wasserstein:.2f}"]


def _reference(run: Path, reference: str, speaker: Speaker, trust: bool) -> Any:
    """Draws of a reference; those of NUTS are kept with the run."""
    from ppvi.cli.runs import draws_of, is_run, opened
    from ppvi.engine._arviz import read, saved

    path = run / "nuts.nc" if reference == "nuts" else Path(reference)
    if reference == "nuts" and not path.exists():
        _, problem, _ = opened(run, trust)
        saved(_nuts(problem, speaker), path)
    if is_run(reference):
        return draws_of(path)
    if path.suffix in (".json", ".zip"):
        return str(path)
    if not path.is_file():
        raise InputError(f"there is no reference {reference!r}: it is nuts, a .nc, a run, or a .json of posteriordb.")
    try:
        return read(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as NetCDF: {' '.join(str(error).split())}.") from error


def _nuts(problem: Any, speaker: Speaker, **options: Any) -> Any:
    speaker.lines([*problem.lines(), ("running", "NUTS")])
    progress = not (speaker.quiet or speaker.json)
    return problem.vi.nuts(problem.model, problem.key, *problem.args, progress=progress, **options, **problem.kwargs)


@command("ppvi nuts model.py:model --data data.csv --out nuts.nc")
def nuts(
    question: Question,
    speaker: Speaker,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="By default nuts.nc, of a run in its folder.")
    ] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Steps of each chain before its draws.")] = 1000,
    samples: Annotated[int, typer.Option(min=1, help="Draws of each chain.")] = 1000,
    chains: Annotated[int, typer.Option(min=1)] = 4,
    trust: Trust = False,
) -> int:
    """Draw from the posterior by the no-U-turn sampler. FILE:MODEL may be a run."""
    from ppvi.cli import summaries
    from ppvi.cli.problems import problem_of
    from ppvi.cli.runs import is_run, opened
    from ppvi.engine._arviz import saved

    of_run = is_run(question.program)
    if of_run:
        _refuse_options(question)
    problem = opened(Path(question.program), trust)[1] if of_run else problem_of(question)
    path = out or (Path(question.program) / "nuts.nc" if of_run else Path("nuts.nc"))
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}.")
    data = _nuts(problem, speaker, num_warmup=warmup, num_samples=samples, num_chains=chains)
    saved(data, path)
    told = {name: data.attrs[name] for name in ("r_hat", "ess", "divergences", "converged")}
    speaker.say(summaries.text_of(data, "posterior by NUTS"))
    speaker.say(
        f"worst R-hat {told['r_hat']:.3f}, least ESS {told['ess']:.0f}, {told['divergences']} divergences\n"
        f"converged: {told['converged']}\n{path}"
    )
    speaker.answer(file=str(path), **told, posterior=summaries.summary_of(data))
    return _code(told["converged"])


# Around --------------------------------------------------------------------------------------------------------------------


@command("ppvi new harvest && cd harvest && ppvi fit model.py --data data.csv")
def new(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="The folder to make.")],
    speaker: Speaker,
    engine: Annotated[str, typer.Option(metavar="numpyro|pyro")] = "numpyro",
) -> int:
    """A starter project that runs: a model, a guide, data, and commands to try."""
    from ppvi.cli.sources import engine_of
    from ppvi.cli.starter import COMMANDS, begin

    files = begin(name, engine_of([], engine))
    speaker.say(f"{name} has {', '.join(files)}. Try\n\n  cd {quote(str(name))}\n  {COMMANDS[0][0]}\n")
    speaker.answer(folder=str(name), files=files)
    return GOOD


@command("ppvi version")
def version(speaker: Speaker) -> int:
    """The versions of the libraries that are here, and the devices that they see."""
    from ppvi.cli.around import devices, versions

    found, seen = versions(), devices()
    speaker.say(render("versions", ("library", "version"), [(x, v or "not installed") for x, v in found.items()]))
    speaker.say(render("devices", ("of", "devices"), [(x, ", ".join(v) or "none") for x, v in seen.items()]))
    speaker.answer(versions=found, devices=seen)
    return GOOD
