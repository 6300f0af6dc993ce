"""What a geometric optimiser is, and what it moves: blocks.

A *block* is a site of the guide whose distribution's arguments are parameters of their own, each entry of a parameter one of
an argument: `Normal(param("loc", ...), param("scale", ...))`, whatever the names. An engine finds blocks in a trace of the
guide, takes the objective's gradient in these arguments, and hands both to the optimiser, which answers with new arguments. All
other parameters are moved by `rest`, an optimiser as `fit` takes it.

To write another one: a frozen dataclass that derives from `Geometric`, with `init` and `update`. Both see one block at a
time, as arrays by the argument's name, `(*lanes, *event)`, and compute through an `Algebra`; on JAX they are compiled into the
step of the fit.

    @dataclass(frozen=True)
    class Steepest(Geometric):
        step_size: float = 0.1
        rest: Any = None

        def update(self, block, at, slope, memory, step, algebra):
            return {name: at[name] + self.step_size * slope[name] for name in at}, memory

New arguments are kept inside their constraints by the optimiser. What it remembers of a block is an array, or a tree of dicts
and tuples of arrays, of the same shapes throughout; it is part of the fit's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ppvi._ops import Array
from ppvi.optimizers.algebra import Algebra

Arguments = Mapping[str, Array]
"""Of a distribution, by name."""

LOWER = "scale_tril"
"""The argument that is a lower triangular matrix."""


@dataclass(frozen=True)
class Block:
    """A site of the guide whose distribution's arguments are parameters of their own.

    **Attributes**

    - `site`: its name.
    - `family`: its distribution's, without `to_event`, plates and fixed transforms: `"Normal"`, `"MultivariateNormal"`, ...
    - `parameters`: argument -> the parameter that it is, in pairs; `scale_tril` may be two, a vector times a matrix.
    """

    site: str
    family: str
    parameters: tuple[tuple[str, str], ...]

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of those that are parameters."""
        return tuple(argument for argument, _ in self.parameters)


class Geometric:
    """An optimiser that moves a guide's distributions.

    **Attributes**

    - `families`: family -> the arguments by which it is moved; another site is no block for this optimiser.
    - `rest`: what moves all other parameters, as `fit` takes it; Adam by default.
    """

    families: ClassVar[Mapping[str, tuple[str, ...]]] = {"Normal": ("loc", "scale")}
    curved: ClassVar[bool] = False
    """Whether it moves parameters that reach the guide's sites through other code, too, by `along`."""
    how: ClassVar[str] = "as distributions"
    """How blocks are updated, for `fit.explain()`."""
    rest: Any = None

    @property
    def name(self) -> str:
        """What it is called in messages, and by `ppvi.cite`."""
        return type(self).__name__

    def init(self, block: Block, at: Arguments, algebra: Algebra) -> Any:
        """What it remembers of a block before the first step: a tree of arrays, empty by default."""
        return ()

    def update(
        self, block: Block, at: Arguments, slope: Arguments, memory: Any, step: Array, algebra: Algebra
    ) -> tuple[Arguments, Any]:
        """The arguments of a block after a step, and what is remembered.

        **Arguments**

        - `at`: the arguments; constrained values.
        - `slope`: an estimate of the gradient in them of what is maximised, which is minus the objective where that is
          minimised; zero above the diagonal of a lower triangular matrix.
        - `step`: how many steps were taken before; an integer array.
        """
        raise NotImplementedError

    def along(
        self,
        fisher: Callable[[Array], Array],
        divergence: Callable[[Array], Array],
        slope: Array,
        step: Array,
        algebra: Algebra,
    ) -> Array:
        """By what those parameters are moved that reach the guide's sites through other code; unconstrained, as one vector.

        **Arguments**

        - `fisher`: the Fisher information of the guide times a vector, for one draw of what is upstream of each site.
        - `divergence`: that from the guide to itself moved by a vector, for the same draw.
        """
        raise NotImplementedError
