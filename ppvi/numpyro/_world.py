"""What JAX and NumPyro programs read outside of their arrays (`ppvi.engine.world`), as a static argument of a jit."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
from numpyro.distributions.distribution import Distribution
from numpyro.primitives import plate

from ppvi.engine.arguments import Constants, Sight
from ppvi.engine.stagings import Stagings
from ppvi.engine.world import Rules, World
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
        traced = any(isinstance(fact.value, Tracer) for fact in world.facts)
        world.passing = traced and type(current_trace()) is not type(TOP)
        return world


def _kind(tree: Any) -> Any:
    return checks_values(Distribution), tree
