"""Plain runs of programs: nothing is staged, and sites are simply drawn, as many runs side by side as there is memory for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ppvi.engine.protocol import Pick
from ppvi.numpyro._compat import once
from ppvi.numpyro._programs import generator


@dataclass(frozen=True)
class Draws:
    """`n` runs, or so many particles of each, of which one is picked."""

    run: Callable[..., Any]
    """Of parameters, arrays, their structure, a key, and an entry of what is given."""
    key: jax.Array
    n: int
    given: Any
    side_by_side: int
    particles: int
    pick: Pick | None

    def of(self, called: Callable[[Callable[..., Any]], Any]) -> Any:
        """The runs of what a call of parameters, arrays and structure is called with, as NumPy's arrays."""
        if self.pick is None:
            return jax.device_get(called(functools.partial(self._runs, self.key, self.given)))
        # All particles of a draw are kept until one is picked, so that draws come in as many calls as they have to.
        parts = []
        for begin in range(0, self.n, self.side_by_side):
            key = jax.random.fold_in(self.key, begin) if begin else self.key
            found = self.pick(jax.device_get(called(functools.partial(self._runs, key, None))), generator(key))
            parts.append(jax.tree.map(lambda x, some=self.n - begin: x[:some], found))
        return parts[0] if len(parts) == 1 else jax.tree.map(lambda *xs: np.concatenate(xs), *parts)

    @functools.cached_property
    def _runs(self) -> Callable[..., Any]:
        """The runs of one call, which is compiled once for all parameters and parts."""
        together = self.side_by_side * self.particles
        count, together = (self.n, self.side_by_side) if self.pick is None else (together, together)

        @functools.partial(jax.jit, static_argnums=4, compiler_options=once())
        def runs(key: jax.Array, given: Any, params: Any, arrays: list[Any], structure: Any) -> Any:
            def one(each: tuple[jax.Array, Any]) -> Any:
                return self.run(params, arrays, structure, *each)

            each = jax.random.split(key, count), given
            return jax.vmap(one)(each) if together == count else jax.lax.map(one, each, batch_size=together)

        return runs
