"""What JAX and NumPyro programs read outside of their arguments (`ppvi.engine.world`), as a static argument of a jit."""

from __future__ import annotations

from typing import Any

import jax
from jax.core import Tracer
from numpyro.distributions.distribution import Distribution
from numpyro.primitives import CondIndepStackFrame, plate

from ppvi.engine.stagings import LIMIT, Stagings
from ppvi.engine.world import Rules, World, look
from ppvi.numpyro.handlers import current_trace

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


class Token:
    """Stands for one state of the world: JAX tells calls apart by it."""

    def holds(self) -> bool:
        return True

    def uses(self, array: object) -> bool:
        return not isinstance(array, Tracer)  # one that an earlier trace has left behind


class Worlds:
    """The last states of the world that a few programs read."""

    def __init__(self, **programs: Any):
        self.programs = programs
        self.stagings: Stagings[Token] = Stagings(self._look)
        self.made = 0
        self.traced = False
        """Whether programs have been traced since the last call."""

    def token(self) -> Token:
        """The token of the world as it is, with the modes of NumPyro."""
        return self.stagings.get(Distribution._validate_args, self._made)

    def settle(self, token: Token) -> None:
        """After a call: what programs have changed themselves when they were traced is no change of the world, as all side
        effects are none to JAX."""
        known = self.stagings.made.get(Distribution._validate_args, [])
        if self.traced and known and known[0][1] is token:
            world = self._look()
            known[0] = (known[0][0] if world.passing else world, token)
        self.traced = False

    def are_many(self) -> bool:
        """Whether so many tokens have been made since this was last true that what was compiled for them is to be dropped."""
        many = self.made > 2 * LIMIT
        self.made = 0 if many else self.made
        return many

    def _made(self) -> Token:
        self.made += 1
        return Token()

    def _look(self) -> World:
        world = look(RULES, **self.programs)
        traced = any(isinstance(fact.value, Tracer) for fact in world.facts)
        world.passing = traced and type(current_trace()) is not type(TOP)
        return world
