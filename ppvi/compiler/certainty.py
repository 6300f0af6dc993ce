"""Whether a certain jump stays certain: through operations that are linear in it, or take no value twice.

The square in a norm is the same on both sides of a jump from -1 to 1, and a product is where its other factor is 0.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Any, Protocol

import numpy as np

from ppvi.compiler.continuity import Known
from ppvi.compiler.flat import Step
from ppvi.compiler.ir import Atom, Smoothness, Var

INJECTIVE = frozenset(
    """acos acosh asin asinh atan atanh cbrt concatenate copy_p erf erf_inv erfc exp exp2 expm1 log log1p log_ndtr logistic
    ndtri optimization_barrier ppvi_because ppvi_estimate ppvi_log_prob rsqrt sinh softplus sqrt stack tanh""".split()
)
"""Operations that take no value twice, so that a jump before them is one behind."""
PICKS = frozenset({"slice", "dynamic_slice", "gather", "split"})
"""Operations that return some of the entries of their first operand."""


class Jumping(Known, Protocol):
    """What is known of a program's values, and in which of them every entry begins to jump."""

    exits: dict[Var, Any]


def hands_on(step: Step, known: Jumping) -> bool:
    """Whether a jump of operands is one of what the operation returns: it is linear in them, by factors that are not 0 where
    they jump, or takes no value twice."""
    name, inputs = step.meaning.name, step.inputs
    if step.equation.site is not None or step.meaning.moves or name in INJECTIVE:
        return True
    jumping = {i for i, atom in enumerate(inputs) if Smoothness.JUMP in known.of(atom).values()}
    if name in PICKS:
        return jumping == {0} and inputs[0] in known.exits
    sources = {source for i in jumping for source in known.of(inputs[i])}
    groups = [group for group in step.equation.linear if jumping <= group]
    others = [[atom for i, atom in enumerate(inputs) if i not in group] for group in groups]
    return any(all(_is_factor(atom, sources, known) for atom in each) for each in others)


def _is_factor(atom: Atom, sources: Collection[Hashable], known: Jumping) -> bool:
    """Whether it is almost surely not 0 where something jumps in the sources."""
    value = None if known.of(atom) else known.fixed(atom)
    if value is not None:
        return bool(np.all(value))
    low, high = known.ranges.of(atom)
    return low > 0 or high < 0 or known.of(atom).keys().isdisjoint(sources)
