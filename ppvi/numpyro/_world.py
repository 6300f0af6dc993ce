"""What JAX and NumPyro programs read outside of their arrays (`ppvi.engine.world`), as a static argument of a jit."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpyro.distributions.distribution import Distribution
from numpyro.primitives import plate

from ppvi.engine.arguments import Constants, Sight
from ppvi.engine.snapshots import Content
from ppvi.engine.stagings import Stagings
from ppvi.engine.world import Rules, World
from ppvi.errors import ProgramError
from ppvi.numpyro import _source as source
from ppvi.numpyro._arguments import Structure
from ppvi.numpyro._compat import CondIndepStackFrame, Tracer, checks_values, current_trace

RULES = Rules(
    arrays=(jax.Array,),
    ignored=(plate, CondIndepStackFrame),
    hidden=frozenset(
        """prototype_trace plates _prototype_frames _prototype_plate_sizes _prototype_frame_full_sizes _init_locs
        _postprocess_fn _potential_fn _potential_fn_gen""".split()
    ),
)
DOUBLE = {np.dtype(kind) for kind in (np.int64, np.uint64, np.float64, np.complex128)}
TOP = current_trace()
"""What records nothing."""


class Worlds:
    """The last states of the world that a few programs read."""

    def __init__(self, **programs: Any):
        self.sight = Sight(RULES, programs)
        self.stagings: Stagings[Structure] = Stagings(self.look, source.here)
        self.traced = False
        """Whether programs have been traced since the last call."""

    def structure(self, tree: Any, leaves: Sequence[Any], constants: Constants) -> Structure:
        """That of such arguments in the world as it is, with the modes of NumPyro."""
        make = functools.partial(Structure, tree, leaves, constants)
        return self.stagings.get(_kind(tree), constants, make)[1]

    def settle(self, constants: Constants, structure: Structure) -> None:
        """After a call: what programs have changed themselves when they were traced is no change of the world, as all side
        effects are none to JAX."""
        if self.traced:
            self.stagings.renew(_kind(structure.tree), constants, structure)
            self.traced = False

    def look(self, constants: Constants) -> World:
        world = self.sight.look(constants)
        for fact in world.facts:
            if isinstance(fact.value, Content):
                _refuse_outdated(str(fact.path), fact.value)
        traced = any(isinstance(fact.value, Tracer) for fact in world.facts)
        world.passing = traced and type(current_trace()) is not type(TOP)
        return world


def _refuse_outdated(name: str, content: Content) -> None:
    """JAX remembers what it has made of an array of NumPy's in another precision for as long as anything holds that, also where
    the array has been written to."""
    array = content.array
    if content.frozen or array.dtype not in DOUBLE or jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype:
        return
    with jax.ensure_compile_time_eval():
        held = np.asarray(jax.device_put(array))
    if held.tobytes() != array.astype(held.dtype).tobytes():
        raise ProgramError(
            f"{name} was changed in place, and JAX still computes with what it held before, which it keeps in {held.dtype} for "
            f"an array of {array.dtype}: write to a copy of it, or make it an array of {held.dtype}."
        )


def _kind(tree: Any) -> Any:
    return checks_values(Distribution), tree
