"""The objective language: what an objective program may say, whatever framework it runs on.

An objective is a plain function of two `Program` handles, the model `p` and the guide `q`. It draws from them
(`simulate`), asks for densities (`log_density`, `log_probs`), runs things several times (`replicate`, `each`), and
returns one real number whose expectation is to be optimised:

    def elbo(p, q):                                  # E_q [log p(x, z) - log q(z)]
        z = q.simulate()
        return p.log_density(z) - z.log_density

The verbs act on the engine that is staging at the moment; outside an objective they raise a `ProgramError`. Programs
made from programs, `marginal` and `normalize`, are in `ppvi.inference`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from ppvi._doors import count, described, function as refuse_no_function
from ppvi._ops import Array
from ppvi._session import Session as Session, session as session, staging as staging
from ppvi._trace import (
    Plate as Plate,
    Plates as Plates,
    Trace as Trace,
    of_minibatches as of_minibatches,
    plate_names as plate_names,
)
from ppvi.errors import ProgramError

T = TypeVar("T")


@runtime_checkable
class Program(Protocol):
    """A model, a guide, or a program made from programs, as an objective sees it."""

    def simulate(
        self,
        *args: Any,
        given: Mapping[str, Array] | None = None,
        observe: bool = True,
        stop_params: bool | str = False,
        **kwargs: Any,
    ) -> Trace:
        """Run the program, drawing every latent site.

        **Arguments**

        - `*args`, `**kwargs`: instead of those of the objective's call.
        - `given`: latent sites that are not drawn but have these values; `Trace.log_weight(given)` is then the importance
          weight of the run.
        - `observe`: whether observed sites have the values observed; if not, they are drawn like the others.
        - `stop_params`: whether every gradient holds the program's parameters constant; a text instead of True is the reason
          why no part of the gradient is missed, as for `stop_gradient`.
        """
        ...

    def assess(self, choices: Mapping[str, Array], *, stop_params: bool | str = False, strict: bool = True) -> Trace:
        """The run of the program in which its latent sites have these values.

        **Arguments**

        - `choices`: a value for every latent site, `(*batch, *event)`.
        - `stop_params`: whether every gradient holds the program's parameters constant; a text instead of True is the reason
          why no part of the gradient is missed, as for `stop_gradient`.
        - `strict`: whether choices that the program has no site for are an error.

        **Raises** `ProgramError` if a latent site has no choice, a choice has no site, or a shape does not fit.
        """
        ...

    def log_density(
        self, choices: Mapping[str, Array], *, per: Plates | None = None, stop_params: bool | str = False
    ) -> Array:
        """log density of these latent choices together with the program's observations.

        **Arguments**

        - `choices`, `stop_params`: as for `assess`.
        - `per`: a plate, or several, whose axes are kept instead of summed, in this order. The densities are those of each
          row for itself: where the plate runs over a minibatch of n of N rows, they come without its scale N / n, so that any
          function may be taken of them. `ppvi.total(x, per)` then sums over the plate, and puts it in. A scale of the program's
          own (`handlers.scale`, `poutine.scale`), such as that of an annealed likelihood, is part of the density and stays.

        **Raises** `ProgramError` as `assess` does.
        """
        return self.assess(choices, stop_params=stop_params).per(per)

    def log_probs(self, choices: Mapping[str, Array], *, stop_params: bool | str = False) -> Mapping[str, Array]:
        """The same density site by site, each of the site's batch shape, unsummed."""
        return self.assess(choices, stop_params=stop_params).log_probs

    def bind(self, *args: Any, **kwargs: Any) -> Program:
        """The same program with other arguments than those of the objective's call."""
        ...


def replicate(n: int, thunk: Callable[[], T]) -> T:
    """`n` independent runs of `thunk`, vectorised.

    **Arguments**

    - `n`: number of runs (particles), a Python int of at least 1.
    - `thunk`: a function of no arguments that returns arrays, or a tree of arrays.

    **Returns** what the thunk returns, each array with a leading axis of size `n`. Every site draws afresh in every
    run; a subsampled plate has one minibatch for all of them. Replicates nest. Buffers of modules, such as the running
    statistics of a BatchNorm, count once in a gradient, with the mean over the runs, so once a step under `iwelbo(5)` too.
    """
    count("replicate(n, thunk): the number of runs", n)
    refuse_no_function("replicate: the thunk", thunk, "Write lambda: in front of what is to be run.", of=())
    return session().each(thunk, (), n)


def each(function: Callable[..., T], *stacks: Any) -> T:
    """`function` of every entry along the leading axis of its arguments, vectorised, with independent draws.

    **Arguments**

    - `function`: takes one entry of each stack, and returns arrays, or a tree of arrays.
    - `*stacks`: arrays or trees of arrays (traces among them), such as `replicate` returns.
    """
    refuse_no_function("each: the first argument", function, "What it runs over comes after it.")
    if not stacks:
        raise ProgramError("each: there is nothing to run over; replicate(n, thunk) runs a function of no arguments.")
    return session().each(function, stacks, None)


def handle(fn: Callable[..., Any], *leading: Any) -> Program:
    """A handle on a further program, such as a learned reverse model, beside the model and the guide.

    **Arguments**

    - `fn`: a program of the framework. It is called with `leading`, followed by the arguments of the objective's call.
    """
    refuse_no_function("handle: a program", fn)
    return session().handle(fn, *leading)


def stop_gradient(x: Array, *, because: str | None = None) -> Array:
    """`x`, held constant by every gradient.

    **Arguments**

    - `because`: why no part of the gradient is missed, such as a theorem, where you know. The static check then takes your
      word for it, and says so in its report.
    """
    now = session()
    stopped = now.ops.stop_gradient(now.array(x))
    return stopped if because is None else now.because(stopped, because)


def logmeanexp(x: Array) -> Array:
    """log of the mean of exp(x) over the leading axis, computed without overflow."""
    if not getattr(x, "shape", ()):
        raise ProgramError(
            f"logmeanexp: the mean is over the leading axis of an array, such as replicate(5, log_weight) returns, not over "
            f"{described(x)}."
        )
    return session().ops.logsumexp(x, 0) - math.log(x.shape[0])


def total(x: Array, per: Plates | None) -> Array:
    """The sum over plates of what there is for each of their indices, in which a minibatch stands for all of its plate.

        sum_i x_i;    over a minibatch of n of N rows    N / n sum_{i in batch} x_i

    Densities `per` a plate are those of each row for itself, so that a nonlinear function of them is taken before the scale
    of the minibatch comes in, and not of densities that have it:

        def iwelbo_per_datum(p, q):
            def log_weight():
                z = q.simulate()
                return p.log_density(z, per="data") - z.per("data")

            return ppvi.total(ppvi.logmeanexp(ppvi.replicate(5, log_weight)), per="data")

    **Arguments**

    - `x`: array of shape `(*plates)`.
    - `per`: the plate or plates whose axes it has, in their order; None for a number, which is returned as it is.

    **Returns** a scalar.

    **Raises** `ProgramError` if the array has other axes, or if no program has such a plate.

    **Unbiased** for the sum over all rows.
    """
    now, names = session(), plate_names(per)
    x = now.array(x)
    if len(x.shape) != len(names):
        raise ProgramError(
            f"total: an array of shape {tuple(x.shape)} has not one axis for each of the plates {list(names)}: sum or average "
            f"other axes, such as that of particles, before."
        )
    if not names:
        return x
    scale = now.settle(names)
    summed = now.ops.sum(x, range(len(names)))
    return summed if scale == 1 else now.estimate(scale * summed, f"sum over a minibatch of {', '.join(names)}", names)


def kl_divergences(q: Trace, p: Trace) -> dict[str, Array]:
    """KL(q(z_i | before) || p(z_i | before)) of every site for which the framework has a closed form, or that has finitely many
    values, over which it is summed; a scalar each.

    Scales, masks and minibatches count in it. Entries that the two programs do not mask alike have no closed form, and are
    log q(z_i) - log p(z_i) at the draw.

    Only where it may stand for E[log q(z_i) - log p(z_i)]: everything that the model draws before the site, the guide has
    drawn before it too, so that neither distribution depends on the site's own value.
    """
    found: dict[str, Array] = {}
    earlier = {name: set(list(q)[:i]) for i, name in enumerate(q)}
    for i, name in enumerate(p):
        if name in q.distributions and name in p.distributions and earlier[name].issuperset(list(p)[:i]):
            ratio = q.log_probs[name] - p.log_probs[name]
            divergence = session().kl(q.distributions[name], p.distributions[name], ratio)
            if divergence is not None:
                found[name] = divergence
    return found


@dataclass(frozen=True)
class Marking:
    """What an objective program is marked with."""

    maximize: bool = True
    gradient_of: str | None = None
    by_paths: bool = False
    no_potential: str | None = None


def marking_of(objective: Any) -> Marking:
    return getattr(objective, "marking", Marking())


def _marked(objective: T, **marks: Any) -> T:
    objective.marking = replace(marking_of(objective), **marks)  # type: ignore[attr-defined]
    return objective


def minimized(objective: T) -> T:
    """Mark an objective program as one to be minimised, for `objective(...)`, which maximises otherwise."""
    refuse_no_function("minimized: an objective program", objective)
    return _marked(objective, maximize=False)


def moves(whose: str) -> Callable[[T], T]:
    """Mark an objective program as one for the parameters of the `"model"` or the `"guide"` only; others are held constant."""
    return functools.partial(_marked, gradient_of=whose)


def by_paths(objective: T) -> T:
    """Mark an objective program whose formula holds for draws that carry their own gradient, and for no others."""
    return _marked(objective, by_paths=True)


def without_potential(why: str) -> Callable[[T], T]:
    """Mark an objective program as one whose gradient is by design not that of its value, for checks, which compare them."""
    return functools.partial(_marked, no_potential=why)
