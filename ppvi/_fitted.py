"""What a fit returns: parameters, the state to go on from, the course of the losses; and draws from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from ppvi._averages import Averages
from ppvi._draws import drawn
from ppvi._losses import Course, converged, course_of, trends
from ppvi._options import door
from ppvi._predict import predicted
from ppvi._starts import Chosen
from ppvi.checkpoints import Checkpoints
from ppvi.engine.calls import misfit
from ppvi.engine.gathering import Groups
from ppvi.engine.protocol import Params
from ppvi.engine.training import State
from ppvi.errors import ProgramError
from ppvi.objective import Objective, estimator_of
from ppvi.program import Program

if TYPE_CHECKING:  # which takes seconds to import
    from ppvi.engine._arviz import ArviZData


@dataclass(frozen=True)
class Approximated:
    """What `approximate` has tried.

    **Attributes**

    - `version`: of a hierarchical model, whether it is as written or non-centred; else None.
    - `bounds`: the evidence lower bounds of the Gaussians from every mode that was found, of every version, the highest first.
    - `settled`: whether the steps were enough.
    - `untried`: of a hierarchical model, the sites that could not be non-centred, and why.
    - `weights`: of the Gaussians that the guide is a mixture of, the heaviest first; of one, 1.
    - `noncentred`: the sites that are, in the model that was kept.
    - `rank`: of the Gaussian's covariance beside a diagonal; None where it is full.
    - `particles`: among how many draws of the Gaussian one is chosen.
    - `mixed`: the mixture's evidence lower bound; None of one Gaussian.
    - `modes`: how many of the Gaussians are of regions that are apart; the others are in windows along the bends of these.
    """

    version: str | None
    bounds: tuple[float, ...]
    settled: bool
    untried: tuple[str, ...] = ()
    weights: tuple[float, ...] = (1.0,)
    noncentred: tuple[str, ...] = ()
    rank: int | None = None
    particles: int = 1
    mixed: float | None = None
    modes: int = 1

    @property
    def bound(self) -> float:
        """Of the guide: the mixture's, or that of the one Gaussian."""
        return self.bounds[0] if self.mixed is None else self.mixed

    def __str__(self) -> str:
        said = "" if self.version is None else f"the model {self.version}; "
        several = len(self.weights) > 1
        near = [f"{x:.5g}" for x in self.bounds[0 if several else 1 :] if x > self.bounds[0] - FAR]
        whose = "Gaussians" if several else "others"
        others = f", those of {whose} {', '.join(near)}" if near else ""
        untried = f"; not tried non-centred: {', '.join(self.untried)}" if self.untried else ""
        if several:
            said += f"a mixture of {len(self.weights)} Gaussians{self._laid()}; "
        return f"{said}bound {self.bound:.5g}{others}{untried}"

    def _laid(self) -> str:
        """Where the Gaussians of a mixture are."""
        if self.modes == len(self.weights):
            return f" of weights {', '.join(f'{w:.2g}' for w in self.weights)}"
        return ", in windows along the bends of " + ("one" if self.modes == 1 else f"{self.modes} that are apart")


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted objective.

    **Attributes**

    - `params`: name -> constrained value; averaged over the steps where the fit was asked for that.
    - `state`: all that the fit needs to go on, as in `fit(..., state=before.state)`.
    - `why`: why it stopped.
    - `seconds`: what the call took that it comes from.
    - `start`: the number of the start that `params` and `losses` are of.
    - `chosen`: of several starts, what each of them has reached; None while the fit goes on.
    - `approximated`: of `approximate`, what was tried; else None.
    - `particles`: among how many draws of the guide each draw of the posterior is chosen by its importance weight.
    - `moved`: how parameters are moved, and why, by an optimiser of `ppvi.optimizers`; empty for others and from a file.
    - `averages`: what `params` is averaged over, while `ppvi.Converged` asks; else None.
    """

    params: Params = field(repr=False)
    state: State
    why: str
    seconds: float
    objectives: tuple[Objective, ...] = field(repr=False)
    key: Any = field(repr=False)
    args: tuple[Any, ...] = field(repr=False)
    kwargs: Mapping[str, Any] = field(repr=False)
    start: int = 0
    chosen: Chosen | None = None
    approximated: Approximated | None = None
    particles: int = 1
    averages: Averages | None = field(default=None, repr=False)
    moved: tuple[str, ...] = field(default=(), repr=False)

    @property
    def losses(self) -> np.ndarray:
        """One estimate per step, `(step,)`, or `(step, objective)` of several; minus what was maximised."""
        return self.state.losses_of(self.start)

    def explain(self) -> str:
        """What was optimised and how: `explain` of each objective at the fit's parameters, and of an optimiser of
        `ppvi.optimizers` which parameters are moved as what, and why."""
        explained = []
        for bound in self.objectives:
            args, kwargs = bound.data((), {}) if bound.args or bound.kwargs else (self.args, dict(self.kwargs))
            explained.append(str(bound.explain(self.params, *args, **kwargs)))
        return "\n".join([*explained, *self.moved])

    @door
    def posterior(
        self,
        key: Any = None,
        draws: int = 1000,
        *,
        particles: int | None = None,
        temperature: int = 1,
        probs: bool = False,
        program: Callable[[Program, Program], Program] | None = None,
        log_likelihood: bool | None = None,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Any] | None = None,
    ) -> ArviZData:
        """Draws from the fitted guide, as ArviZ data; see `posterior`. By default there are as many `particles` as the fit has,
        which is 1 but for those of `approximate`. Beside the groups there it has one of `losses`, by step,
        and attributes that say why the fit stopped and whether it has `converged`."""
        options = {name: value for name, value in locals().items() if name not in ("self", "key")}
        options["particles"] = self.particles if particles is None else particles
        with self._precise(*self._on_data("posterior", key)) as given:
            return self._with_course(drawn(*given, **options))

    @door
    def predict(
        self,
        key: Any = None,
        draws: int = 1000,
        *,
        particles: int | None = None,
        program: Callable[[Program, Program], Program] | None = None,
        on: Objective | None = None,
        redraw: Collection[str] = (),
        prior: bool = False,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Any] | None = None,
    ) -> ArviZData:
        """Data that the fitted model draws, beside the draws of `posterior`; see `predict`. On new data it is
        `fit.predict(on=bound.on(new_x, None))`, from the posterior given the data of the fit."""
        options = {name: value for name, value in locals().items() if name not in ("self", "key")}
        options["particles"] = self.particles if particles is None else particles
        with self._precise(*self._on_data("predict", key)) as given:
            return self._with_course(predicted(*given, **options))

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the fit to a folder, as `checkpoint=` does, for `ppvi.load(folder, objective, *args)`; of `approximate` it is
        `ppvi.load(folder, model, *args)`. **Raises** `ProgramError` where a fit of more steps is there."""
        Checkpoints(folder, self.objectives, self.state.step).write(self)

    def _on_data(self, verb: str, key: Any) -> tuple[Objective, Any, Params, tuple[Any, ...], dict[str, Any]]:
        """The objective, a key, the parameters and the data to draw with."""
        bare = self.objectives[0]
        if type(key) is int and bare.engine.name == "numpyro":
            raise ProgramError(
                f"fit.{verb}(key, draws): the key is one of JAX, such as jax.random.key(0), not {key}; for so many draws "
                f"it is fit.{verb}(draws={key})."
            )
        bare.engine.refuse_transformed(verb)
        if key is None:
            key = bare.engine.key(self.state.step) if self.key is None else estimator_of(bare).another(self.key)
        args, kwargs = bare.data((), {}) if bare.args or bare.kwargs else (self.args, dict(self.kwargs))
        if self.why.startswith(LOADED) and not (args or kwargs) and misfit(bare.model, "model", args, kwargs):
            raise ProgramError(
                f"fit.{verb}: this fit was {self.why} without its data: load it on them, as in ppvi.load(folder, "
                f"objective.on(y))."
            )
        return bare, key, self.params, args, kwargs

    @contextmanager
    def _precise(
        self, objective: Objective, key: Any, params: Params, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[tuple[Objective, Any, Params, tuple[Any, ...], dict[str, Any]]]:
        """What to draw with, in the precision that the fit was made in, which is double of `approximate`: weights of draws are
        densities, and some, as of a Gaussian process, are no numbers in single precision."""
        if self.approximated is None:
            yield objective, key, params, args, kwargs
            return
        with objective.engine.guides.double((params, *args), kwargs) as (given, named):
            yield objective, key, given[0], given[1:], named

    def _with_course(self, groups: Groups) -> ArviZData:
        """Draws with what the fit was."""
        solved = None if self.approximated is None else self.approximated.settled
        said = converged(self.losses) if solved is None else f"{'yes' if solved else 'no'}: {self.why}"
        groups.attrs |= {"steps": len(self.losses), "why": self.why, "converged": said}
        groups.course("losses", self.steps, self.losses)
        return groups.finished()

    @property
    def course(self) -> Course | None:
        """How the losses went on in the end, None where it is not known. Of a deterministic problem every change is one."""
        if self.approximated is None:
            return course_of(self.losses)
        if self.approximated.settled:
            return Course(0.0, "eighth", 0.0, settled=True)
        before = self.losses[-1 - math.ceil(len(self.losses) / 8) :][0]
        return Course(float(self.losses[-1] - before), "eighth", 0.0, settled=False)

    @property
    def steps(self) -> np.ndarray:
        """The number of the step that each of `losses` is of, from 1."""
        return np.arange(1, len(self.losses) + 1)

    def plot(self, ax: Any = None) -> Any:
        """Draw the losses by step, a smoothed value with what it may be off by, and where the fit stopped and why; the axes of
        matplotlib. Of several objectives each has axes of its own."""
        from ppvi._plots import plot_losses

        return plot_losses(self, ax)

    def __str__(self) -> str:
        if not len(self.losses):
            return "Fit of 0 steps"
        solved, names = self.approximated is not None, list(self.params)
        ends = f"{self.losses.flat[0]:.5g} -> {self.losses.flat[-1]:.5g}"
        losses = ends if solved else ", ".join(trends(self.losses))
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        starts = "".join(f"; {x}" for x in (self.chosen, self.approximated) if x is not None)
        shown = ", ".join(names[:SHOWN])
        return f"Fit of {len(self.losses)} steps ({self.why}): loss {losses}; parameters {shown}{more}{starts}"


FAR = 1000.0
"""Nats by which a bound is lower that is not worth a word."""

LOADED = "loaded from"
"""How the reason begins why a fit stopped that comes from a file."""

SHOWN = 8
"""Names that are printed of a fit's parameters."""
