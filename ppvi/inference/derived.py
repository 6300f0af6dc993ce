"""What programs made from programs share: proposals, densities that are one number, and the traces that hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from ppvi._ops import Array
from ppvi.errors import ProgramError
from ppvi.program import Plate, Plates, Program, Trace, handle, of_minibatches, plate_names, session, total

Conditional = Program | Callable[..., Any]
"""A program, or a program of the framework that is called with the choices it may depend on, followed by arguments."""


class Derived(Program):
    """What programs made from programs share: the arguments of `simulate` in terms of `bind`."""

    def run(self, given: Mapping[str, Array], observe: bool, stop_params: bool | str) -> Trace:
        """`simulate`, once arguments are bound."""
        raise NotImplementedError

    def simulate(
        self,
        *args: Any,
        given: Mapping[str, Array] | None = None,
        observe: bool = True,
        stop_params: bool | str = False,
        **kwargs: Any,
    ) -> Trace:
        bound: Any = self.bind(*args, **kwargs) if args or kwargs else self
        return bound.run(given or {}, observe, stop_params)


class Bound(NamedTuple):
    """A proposal on other arguments than those of the objective's call."""

    proposal: Conditional | Bound
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def conditional(proposal: Conditional | Bound, choices: Mapping[str, Array] | None) -> Program:
    """The program that a proposal is, given the choices that it may depend on, if there are any."""
    if isinstance(proposal, Bound):
        return conditional(proposal.proposal, choices).bind(*proposal.args, **proposal.kwargs)
    if isinstance(proposal, Program):
        return proposal
    return handle(proposal) if choices is None else handle(proposal, choices)


def layout(trace: Trace, sites: Iterable[str], values: Mapping[str, Array] | None = None) -> Trace:
    """How sites lie in plates, and their values if wanted, without densities."""
    sites = list(sites)
    return Trace(
        choices={} if values is None else {site: values[site] for site in sites},
        log_probs={},
        log_density=None,
        plates={site: trace.plates[site] for site in sites},
        batch_ndims={site: trace.batch_ndims[site] for site in sites},
        auxiliary=trace.auxiliary.intersection(sites),
        present={site: trace.present[site] for site in sites if site in trace.present},
    )


def with_auxiliary(target: Trace, drawn: Trace | None) -> Trace:
    """The run of a target, with what its proposal has drawn beside the target's sites: the proposal's density needs it."""
    others = [] if drawn is None else [site for site in drawn if site in drawn.auxiliary and site not in target]
    if drawn is None or not others:
        return target
    return replace(
        target,
        choices={**target.choices, **{site: drawn[site] for site in others}},
        present={**drawn.present, **target.present},
        plates={**target.plates, **{site: drawn.plates[site] for site in others}},
        batch_ndims={**target.batch_ndims, **{site: drawn.batch_ndims[site] for site in others}},
        auxiliary=frozenset(others),
    )


def without_auxiliary(trace: Trace) -> Trace:
    """The choices that other programs have sites for."""
    return layout(trace, [site for site in trace if site not in trace.auxiliary], trace)


def arrays(choices: Mapping[str, Any]) -> Mapping[str, Array]:
    """Choices from outside as arrays of the framework, which those of a run are."""
    return choices if isinstance(choices, Trace) else {site: session().array(x) for site, x in choices.items()}


def merged(old: Trace | None, new: Trace | None) -> Trace:
    """The choices of a step together with those before it."""
    before, after = old or {}, new or {}
    return Trace(
        choices={**before, **after},
        log_probs={},
        log_density=None,
        auxiliary=new.auxiliary if new else frozenset(),
        present={**(old.present if old else {}), **(new.present if new else {})},
    )


def joint_trace(label: str, per: Plates | None, log_density: Array, choices: Trace, whole: Trace | None) -> Trace:
    """A trace whose density is one number, or one for each index of some plates, and not a product over its sites."""
    names = plate_names(per)
    scales = [session().settle([name]) for name in names]
    frames = tuple(
        Plate(name, i - len(names), scale) for i, (name, scale) in enumerate(zip(names, scales, strict=True))
    )
    return Trace(
        choices=choices.choices,
        log_probs={label: of_minibatches(label, log_density, frames)},
        rows={label: log_density},
        log_density=total(log_density, per),
        plates={**choices.plates, label: frames},
        batch_ndims={**choices.batch_ndims, label: len(names)},
        auxiliary=choices.auxiliary,
        present=choices.present,
        whole=whole,
    )


@contextmanager
def within(what: str) -> Iterator[None]:
    """Say of which derived program an error is."""
    try:
        yield
    except ProgramError as error:
        raise ProgramError(f"{what}: {error}") from error
