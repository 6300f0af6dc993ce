"""Fits: an objective, or several in turn, optimised by stochastic gradients."""

from __future__ import annotations

import functools
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from ppvi._averages import averaged, averages_of, restored, with_trail
from ppvi._course import LostError, states
from ppvi._doors import NoFunction, count, described, flag, number
from ppvi._fitted import LOADED, Fit
from ppvi._identity import difference, identity
from ppvi._options import door
from ppvi._starts import ROUND, Chosen, chosen, leading
from ppvi._steps import Stream
from ppvi.checkpoints import Checkpoints, newest
from ppvi.engine.calls import own_options
from ppvi.engine.protocol import Params
from ppvi.engine.sharding import PeerError
from ppvi.engine.trail import BLOCK
from ppvi.engine.training import Blocks, Decay, State, Trainer, Whose
from ppvi.errors import FitError, ProgramError
from ppvi.objective import Objective, estimator_of
from ppvi.stopping import Callback, Rule, asked

if TYPE_CHECKING:  # it takes seconds to import
    from tqdm import tqdm


@door
def fit(
    objective: Objective | Sequence[tuple[Objective, Whose]],
    key: Any,
    /,
    *args: Any,
    optimizer: Any = None,
    num_steps: int = 2000,
    num_starts: int | None = None,
    batches: Iterable[Any] | None = None,
    params: Params | None = None,
    state: State | Fit | None = None,
    until: Rule | Sequence[Rule] = (),
    callback: Callback | None = None,
    every: int = 100,
    checkpoint: str | PathLike[str] | None = None,
    averaging: float | None = None,
    progress: bool = True,
    mesh: Any = None,
    **kwargs: Any,
) -> Fit:
    """Optimise an objective by stochastic gradients in unconstrained space, or several objectives in turn.

    On Pyro the parameters of modules are moved in place, and all parameters are in Pyro's parameter store afterwards.

    **Arguments**

    - `objective`: from `objective`; climbed if it is maximised, else descended. Or a sequence of pairs, an objective and
      whose parameters it moves: `"model"`, `"guide"`, a collection of names, or a predicate on names. A step then takes a
      gradient step for each pair in turn, at the parameters that the pair before has left.
    - `key`: a JAX key; on Pyro an int seed, a `torch.Generator`, or None for PyTorch's global one.
    - `*args`, `**kwargs`: passed to the model and the guide.
    - `optimizer`: the step size of Adam (0.01 by default); or, on NumPyro, an optax optimiser; on Pyro what makes an
      optimiser of tensors, such as `functools.partial(torch.optim.Adam, lr=0.02)`, or an optimiser and a scheduler of its
      step sizes, or one of `pyro.optim`. Or one of `ppvi.optimizers`, such as `ppvi.optimizers.Natural()`, which move a guide's
      distributions. Or a list, one for each pair.
    - `num_steps`: number of gradient steps (of each objective), beside those that `state` has behind it.
    - `num_starts`: so many fits side by side, of which the one is kept that is best in fresh estimates of the bound (of the
      first objective) at the end; `print(fit)` says what the others have reached. The first is the fit without; the others
      have keys of their own. What a random function begins, such as `param("loc", lambda key: ...)` on NumPyro, is theirs;
      parameters that begin alike whatever the key, such as those of autoguides, get uniform noise of +-2 where they have no
      constraint, less in matrices. A start that is lost to NaN is said in a warning, and the others go on. `callback` and
      `until` see the one that leads. `state` has all of them; `state=fit, num_starts=1` goes on with the one that was kept.
    - `batches`: in place of `*args`, what gives the arguments of one step after the other, such as a `DataLoader` of PyTorch: a
      tuple or a list of them, or a single one. It is gone through again and again, an iterator once. A plate states how many
      rows there are in all. `state` goes on at its place among the batches, which are the same ones only where going through
      them again gives them in the same order. Steps are taken one by one, which on NumPyro costs a call of the compiled
      step each; it is compiled once for every shape of a batch.
    - `params`: constrained values to start from instead of the initial ones.
    - `state`: that of a fit before, or that fit, to go on from: its steps and these are the same numbers as all of them in one
      fit, to the bit. Parameters, optimisers' memories and random numbers are the state's, whatever the key.
    - `until`: takes the fit so far to the reason why it is to stop, or None; such as `ppvi.Plateau()` or `ppvi.TimeLimit(60)`,
      or a list of such rules, of which the first stops it.
    - `callback`: is called with the number of steps and the fit so far, and stops the fit by returning True.
    - `every`: both are asked after so many steps, a `TimeLimit` oftener.
    - `checkpoint`: a folder that the state is written to as the fit goes on, for `ppvi.load(folder, objective)`. The last three
      files are kept; writing takes less than a twentieth of the time.
    - `averaging`: `params` of the fit are a mean over the steps in which the last ones count most: step t enters with weight
      (a + 1) / (t + a) for `averaging=a`, such as 3; 0 is the plain mean (Shamir and Zhang 2013). On Pyro modules and the
      parameter store have the last values and not the mean.
    - `progress`: whether to show a progress bar on a terminal, or a line now and then in a log.
    - `mesh`: what shares the work. On NumPyro devices, a `jax.sharding.Mesh`; on Pyro processes on CPUs, from
      `torch.distributed.init_device_mesh`. Arrays among the arguments are split along their leading axis over the axes of the
      mesh, but for one named `"particles"`, which splits the runs of `replicate`. Each process calls `fit` with the whole
      data; the first decides when all stop, and writes the checkpoints. The same key gives the same fit on any mesh, up to
      rounding.

    **Returns** a `Fit`. When Ctrl-C stops it, the KeyboardInterrupt has the fit so far as its `.fit`.

    **Raises** `FitError` when an estimate or a parameter becomes NaN or infinite, or a positive parameter zero: it says at
    which step and where it came from, and holds the fit up to the last good state; or, on Pyro, when another process of the
    mesh has died. `ProgramError` if an objective would move nothing, or if `state` or `checkpoint` is of another fit.
    `EngineError` where a mesh of processes cannot share the gradient: strategies that learn or are `sequential`, programs that
    are replayed, devices other than CPUs.
    """
    began = time.monotonic()
    pairs = pairs_of(objective)
    objectives = tuple(bound for bound, _ in pairs)
    options = own_options(objectives, locals(), fit)
    objectives[0].engine.refuse_transformed("fit")
    num_steps = count("fit: num_steps", num_steps)
    ask = asked(count("fit: every", every), until, callback)
    flag("fit: progress", progress)
    if params is not None and state is not None:
        raise ProgramError("fit: params= begins anew and state= goes on: give one of them.")
    if averaging is not None:
        number("fit: averaging", averaging, least=0)
        if ask.averages:
            raise ProgramError(
                "fit: averaging= and until=ppvi.Converged() both average the parameters: give one of them."
            )
    if not isinstance(checkpoint, str | PathLike | None):
        raise ProgramError(f"fit: checkpoint= is the path of a folder, not {described(checkpoint)}.")
    if any(not bound.has_data_of(objectives[0]) for bound in objectives):
        raise ProgramError("fit: several objectives have the same data: make them all `on` the very same, or none.")
    args, kwargs = objectives[0].data(args, kwargs)
    before = _started_from(state, objectives, ask.averages)
    starts = (before.starts if before else 1) if num_starts is None else count("fit: num_starts", num_starts)
    steps = before.step if before else 0
    files = None if checkpoint is None else Checkpoints(checkpoint, objectives, steps)
    streamed = None if batches is None else functools.partial(Stream, batches, engine=objectives[0].engine.name)
    stream = None if streamed is None else streamed(steps)
    if stream is not None:
        if args:
            raise ProgramError(
                "fit: batches= are the arguments of the programs: give either them or arguments by position."
            )
        if starts > 1:
            stream.refuse_once("num_starts= compares the starts on batches when all steps are taken")
        args = stream.first()
    moved = [(estimator_of(bound), whose) for bound, whose in pairs]
    passed_on = {name: options[name] for name in ("optimizer", "params", "mesh")}
    how = Blocks(BLOCK) if ask.averages else None if averaging is None else Decay(averaging)
    trainer = objectives[0].engine.trainer(moved, key, args, kwargs, starts=starts, averaging=how, **passed_on)
    files = files if trainer.is_first else None

    def fit_at(state: State, averages: bool = False, why: str = "it goes on", best: Chosen | None = None) -> Fit:
        start = leading(state) if best is None else best.start
        params = trainer.params(trainer.one(averaged(state), start))
        found = averages_of(trainer, state, start) if averages else None
        seconds = time.monotonic() - began
        more = {"averages": found, "moved": tuple(trainer.explained)}
        return Fit(params, state, why, seconds, objectives, key, args, kwargs, start, best, **more)

    begun = trainer.init() if before is None else _restored(starts, before, state, trainer)
    begun = with_trail(trainer, begun) if ask.averages and begun.trail is None else begun
    feed = itertools.repeat((args, kwargs)) if stream is None else ((batch, kwargs) for batch in stream)
    last, due = begun.step + num_steps, ask.next if stream is None else lambda step: step + 1
    at, why, best = begun, "interrupted", None
    try:
        with progress_bar(num_steps, progress) as bar:
            for at in states(trainer, begun, last, feed, due):
                shown(bar, at, at.step - begun.step)
                so_far = functools.partial(fit_at, at)
                if files is not None:
                    files.write_in_time(so_far)
                said = ask(at.step, so_far)
                if trainer.agreed(bool(said)):
                    why = said or "the first process said so"
                    break
            else:
                why = "all steps taken" if at.step == last else "the batches have ended"
        if starts > 1:
            fresh = ((data, ROUND) for data in feed) if streamed is None else (((x, kwargs), 1) for x in streamed(0))
            best = chosen(trainer, averaged(at), fresh)
    except LostError as error:
        at, why = error.state, "a number or a parameter was lost"
        raise stopped(error.causes, fit_at(at, why=why), trainer.remedy) from None
    except PeerError as error:
        why = "a process was lost"
        raise FitError(
            f"the fit stopped at step {at.step}: {error}. The error's `.fit` holds the fit so far: begin the processes again "
            f"with state=it, or with state=ppvi.load(folder, objective) from a checkpoint.",
            fit_at(at, why=why),
        ) from error
    except BaseException as error:
        why = "interrupted"
        raise with_fit(error, functools.partial(fit_at, at, why=why)) from error.__cause__
    finally:
        end = fit_at(at, why=why, best=best)
        trainer.end(trainer.one(at, end.start))
        if files is not None:
            files.write(end)
    return end


def load(folder: str | PathLike[str], objective: Any, *args: Any, **kwargs: Any) -> Fit:
    """The fit that was last written to a folder of checkpoints.

    `fit(objective, key, *args, state=load(folder, objective), num_steps=n)` goes on from there, exactly. That of
    `vi.approximate`, which `fit.save(folder)` has written, is loaded by its model: `ppvi.load(folder, model, x)`.

    **Arguments**

    - `objective`: the objective, or the pairs, that were fitted.
    - `*args`, `**kwargs`: what was passed to the model and the guide, for `posterior`, `predict`, `ppvi.loo` and
      `ppvi.compare`, unless the objective is `on` data. They draw with a key of their own where they get none.

    A file that is cut off, was changed, or is of another fit or a newer format is named in a warning, and the one before is
    used.

    **Raises** `ProgramError` if there is none to use.
    """
    if not isinstance(folder, str | PathLike):
        raise ProgramError(f"load(folder, objective): the folder is a path, not {described(folder)}.")
    objectives = tuple(bound for bound, _ in pairs_of(objective, "load(folder, objective)"))
    state, params, start = newest(folder, objectives, estimator_of(objectives[0]).in_format)
    return Fit(params, state, f"{LOADED} {os.fspath(folder)}", 0.0, objectives, None, args, kwargs, start)


def _started_from(state: Any, objectives: Sequence[Objective], averages: bool) -> State | None:
    if isinstance(state, Fit) and (other := difference(identity(state.objectives), identity(objectives))):
        raise ProgramError(
            f"fit: state= is of another fit: {other}. Go on with the objective that it is of, or begin anew with params=."
        )
    found = state.state if isinstance(state, Fit) else state
    if not isinstance(found, State | None):
        raise ProgramError(
            f"fit: state= is a fit, its .state, or ppvi.load(folder, objective), not {described(state)}; values to start "
            f"from are params=."
        )
    if found is not None and found.step and averages != (found.trail is not None):
        had, has = ("with" if there else "without" for there in (found.trail is not None, averages))
        raise ProgramError(
            f"fit: the state to go on from is of a fit {had} until=ppvi.Converged(), which averages its parameters, and this "
            f"one is {has} it: go on with the same, or begin anew with params=."
        )
    return found


def _restored(starts: int, before: State, given: Any, trainer: Trainer) -> State:
    """The state of so many starts, as the trainer's: of all, or of the one that a fit has kept."""
    if starts == 1 < before.starts and isinstance(given, Fit):
        return restored(trainer, before, given.start)
    if starts != before.starts:
        raise ProgramError(
            f"fit: the state to go on from is of {before.starts} starts, and num_starts is {starts}: leave num_starts out to "
            f"go on with all, or go on from the fit itself, state=fit, with num_starts=1 and the start that it has kept."
        )
    return restored(trainer, before)


def pairs_of(
    objective: Objective | Sequence[tuple[Objective, Whose]], call: str = "fit(objective, key, ...)"
) -> list[tuple[Objective, Whose]]:
    """Objectives, and whose parameters each of them moves."""
    if isinstance(objective, Objective):
        return [(objective, lambda name: True)]
    if not isinstance(objective, list | tuple):
        raise ProgramError(
            f"{call}: the objective is one of vi.objective(elbo, model, guide), or a list of pairs, not {described(objective)}."
        )
    pairs = list(objective)
    if not pairs or not all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Objective) for pair in pairs
    ):
        raise ProgramError(
            "fit: several objectives are a list of pairs, each an objective from `objective(...)` and whose parameters it "
            'moves, such as [(wake, "model"), (sleep, "guide")].'
        )
    return pairs


def stopped(causes: Sequence[str], so_far: Fit, remedy: str) -> FitError:
    """The error of a fit that has left the finite numbers, or a constraint, and has no start left."""
    cause = "; ".join(causes) or "a number or a parameter was lost, in steps that are others when they are taken again"
    held = f"the last parameters that were finite and in their constraints, and {len(so_far.losses)} losses"
    hint = f"The error's `.fit` holds {held}; a smaller step size, or {remedy}, may help."
    if so_far.state.step == 0:
        hint = "Nothing has been moved yet: look at the data, at the initial parameters and at what is computed of them there."
    return FitError(f"the fit stopped at step {so_far.state.step}: {cause}. {hint}", so_far)


def with_fit(error: BaseException, so_far: Callable[[], Fit]) -> BaseException:
    """Nothing is lost: what ends a fit, such as Ctrl-C or an error in a callback, has the fit so far."""
    if not hasattr(error, "fit"):
        fit = so_far()
        with suppress(AttributeError):
            error.fit = fit  # type: ignore[attr-defined]
            if fit.state.step:
                error.add_note(
                    f"The fit so far, of {fit.state.step} steps, is the `.fit` of this exception (in a notebook, "
                    f"sys.last_value.fit): fit(..., state=it) goes on from there."
                )
    return error


def progress_bar(num_steps: int, wanted: bool) -> tqdm:
    """A bar for a terminal; where there is none, as in a log, a line every ten seconds."""
    from tqdm import tqdm

    return tqdm(total=num_steps, disable=not wanted, desc="fit", mininterval=0.1 if sys.stderr.isatty() else 10.0)


def shown(bar: tqdm, state: State, steps: int) -> None:
    """Move the bar on to so many steps; its rate does not count the first call, in which compilers run."""
    if bar.disable:
        return
    if bar.n == 0:
        bar.unpause()
    recent = np.atleast_1d(state.losses_of(leading(state))[bar.n - steps :].mean(0))
    bar.set_postfix(loss=", ".join(f"{x:.5g}" for x in recent), refresh=False)
    bar.update(steps - bar.n)


sys.modules[__name__].__class__ = NoFunction
