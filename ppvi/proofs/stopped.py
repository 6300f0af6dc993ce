"""Values held constant: where a `stop_gradient` drops a part of the gradient that does not cancel.

A stopped value s that varies with a parameter, or with a draw that carries a gradient, leaves out d out/ds ds. Nothing
is lost where s cancels, as the greatest logit does in a softmax or a log-sum-exp. So every value is followed as

    plus c     value = c s + something free of s            exp of it is  times c;    sums of c that are 0 have cancelled
    times c    value = exp(c s) something free of s         log of it is  plus c;     products of c that are 0 have too
    lost       anything else
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ppvi.analysis.inlined import Flat, Step
from ppvi.ir import Atom, AxisMap, Constant, Density, Origin, Var, straight
from ppvi.proofs.smoothness import Analysis

How = Literal["plus", "times", "lost"]

Lanes = tuple[int | None, ...]
"""For each axis of a stopped value the axis along which its entries lie, one by one; None where that is not so."""


@dataclass(frozen=True)
class Trace:
    """How a value depends on a stopped one, and along which axes the entries of that lie."""

    how: How
    power: float
    lanes: Lanes
    by_density: bool
    """Whether on its way it has met the log_prob of a draw."""


Traces = Mapping[Step, Trace]
LOST: tuple[How, float] = ("lost", 0.0)


def stopped(analysis: Analysis, sinks: Sequence[Atom], drawing: bool = False) -> dict[Step, Trace]:
    """The stops of something that varies which reach a sink without cancelling.

    **Arguments**

    - `drawing`: whether the sinks belong to draws, which a strategy stops itself: its own stops, and those of random numbers,
      are none.
    """
    flat = analysis.flat
    found: dict[Atom, Traces] = {}
    random: set[Atom] = set()

    def vouched(stop: Step) -> bool:
        origin = stop.meaning.origin()
        return Origin.SUM in origin or (drawing and (stop.inputs[0] in random or Origin.STRATEGY in origin))

    for step in flat.steps:
        if not step.equation.is_site and (step.meaning.keyed is not None or not random.isdisjoint(step.inputs)):
            random.update(step.outputs)
        traces = [found.get(atom, {}) for atom in step.inputs[: step.equation.arity]]
        if step.equation.is_site:
            traces = traces[:1] if step.outputs[0] in analysis.through else []
        elif isinstance(step.equation.role, Constant):
            traces = []
        elif (ignored := analysis.ignored(step)) and len(ignored) == len(step.inputs) - 1:
            [chosen] = set(range(len(step.inputs))) - ignored
            found[step.outputs[0]] = traces[chosen]
            continue
        if step.meaning.name == "stop_gradient" and analysis.of(step.inputs[0]) and not vouched(step):
            [operand] = step.inputs
            lanes = tuple(axis if size > 1 else None for axis, size in enumerate(operand.shape))
            found[step.outputs[0]] = {step: Trace("plus", 1.0, lanes, _behind_density(flat, operand))}
            continue
        stops = {stop for each in traces for stop in each}
        for number, var in enumerate(step.outputs):
            out = {stop: _step(flat, step, number, stop, [each.get(stop) for each in traces]) for stop in stops}
            found[var] = {stop: trace for stop, trace in out.items() if trace is not None}
    reached: dict[Step, Trace] = {}
    for sink in sinks:
        reached.update(found.get(flat.atom(sink), {}))
    return reached


def _behind_density(flat: Flat, atom: Atom) -> bool:
    """Whether a value is made of log_probs of draws."""
    seen: set[Atom] = set()
    waiting = [atom]
    while waiting:
        current = waiting.pop()
        step = flat.makers.get(current) if isinstance(current, Var) else None
        if step is None or current in seen:
            continue
        seen.add(current)
        if isinstance(step.equation.role, Density):
            return True
        if not step.equation.is_site:
            waiting.extend(step.inputs)
    return False


def _step(flat: Flat, step: Step, number: int, stop: Step, traces: Sequence[Trace | None]) -> Trace | None:
    """How an output depends on one stopped value, given how the operands do."""
    name = step.meaning.name
    alike = len(traces) == 2 and traces[0] == traces[1] and traces[0] is not None and traces[0].how == "plus"
    if alike and name in ("eq", "ne", "gt", "ge", "lt", "le"):
        return None
    lanes = _lanes(step, number, stop, traces)
    density = isinstance(step.equation.role, Density) or any(trace.by_density for trace in traces if trace is not None)
    how, power = _algebra(flat, step, traces) if lanes is not None else LOST
    if how != "lost" and power == 0:
        return None
    return Trace(how, power, lanes or (), density)


def _lanes(step: Step, number: int, stop: Step, traces: Sequence[Trace | None]) -> Lanes | None:
    """Where the entries of the stopped value lie in the output; None where an entry mixes several of them."""
    whole = step.meaning.loop is not None or step.meaning.inline is not None or step.equation.is_site
    if whole or any(trace is not None and trace.how == "lost" for trace in traces):
        return None
    flow = step.equation.flow()[number]
    places = {
        _through(trace.lanes, axes)
        for trace, axes in zip(traces, flow, strict=False)
        if trace is not None and axes is not None
    }
    if len(places) != 1:
        return None
    [lanes] = places
    sizes = stop.outputs[0].shape
    return None if any(a is None and size > 1 for a, size in zip(lanes, sizes, strict=True)) else lanes


def _through(lanes: Lanes, axes: AxisMap) -> Lanes:
    places = straight(axes)
    return tuple(None if a is None else places[a] for a in lanes)


def _algebra(flat: Flat, step: Step, traces: Sequence[Trace | None]) -> tuple[How, float]:
    name = step.meaning.name
    present = [trace for trace in traces if trace is not None]
    kinds = {trace.how for trace in present}
    if len(kinds) != 1 or "lost" in kinds:
        return LOST
    kind, powers = present[0].how, {trace.power for trace in present}
    first = traces[0]
    everywhere = len(present) == len(step.inputs) and len(powers) == 1
    if (
        name in IDENTITIES
        or step.meaning.moves
        or (name == "select_n" and first is None and len(present) == len(traces) - 1 and len(powers) == 1)
    ):
        return kind, present[0].power
    if name in ("max", "min", "concatenate", "stack") and everywhere:
        return kind, present[0].power
    if kind == "plus":
        return _plus(flat, step, traces)
    if name in ("add", "sub") and everywhere:
        return "times", present[0].power
    if name in ("mul", "div", "dot_general"):
        signs = (1.0, -1.0 if name == "div" else 1.0)
        return "times", sum(sign * trace.power for sign, trace in zip(signs, traces, strict=True) if trace is not None)
    changed: dict[str, tuple[How, float]] = {
        "log": ("plus", 1.0), "neg": ("times", 1.0), "abs": ("times", 1.0), "sum": ("times", 1.0), "greatest": ("times", 1.0),
        "sign": ("times", 0.0), "sqrt": ("times", 0.5), "square": ("times", 2.0), "rsqrt": ("times", -0.5),
    }  # fmt: skip
    if name in changed:
        how, factor = changed[name]
        return how, factor * present[0].power
    return LOST


IDENTITIES = frozenset("convert_element_type copy slice ppvi_note greatest sort rev gather dynamic_slice".split())
"""Operations whose entries are entries of the first operand."""


def _plus(flat: Flat, step: Step, traces: Sequence[Trace | None]) -> tuple[How, float]:
    name = step.meaning.name
    powers = [0.0 if trace is None else trace.power for trace in traces]
    if name in ("add", "sub"):
        return "plus", powers[0] + (powers[1] if name == "add" else -powers[1])
    if name == "neg":
        return "plus", -powers[0]
    if name == "exp":
        return "times", powers[0]
    if name == "sum":
        return "plus", powers[0] * math.prod(step.inputs[0].shape) / max(math.prod(step.outputs[0].shape), 1)
    if name in ("mul", "div"):
        other = flat.constant(step.inputs[0 if traces[0] is None else 1])
        if other is not None and None in traces and (name == "mul" or traces[1] is None):
            return "plus", sum(powers) * (other if name == "mul" else 1 / other)
    return LOST
