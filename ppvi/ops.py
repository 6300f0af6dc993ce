"""The array functions that strategies, objectives and the compiler need, as a protocol.

Arithmetic, comparison and indexing are the arrays' own. Everything else that framework-free code does to an array goes
through an `Ops`, which an engine implements in a page and hands over while it stages a program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

Array = Any
"""A JAX array or a torch tensor; framework-free code only passes it on."""


class Ops(Protocol):
    """What framework-free code may ask of an array library."""

    def exp(self, x: Array) -> Array: ...

    def log(self, x: Array) -> Array: ...

    def sum(self, x: Array, axes: Sequence[int]) -> Array: ...

    def mean(self, x: Array, axis: int) -> Array: ...

    def logsumexp(self, x: Array, axis: int) -> Array: ...

    def logaddexp(self, x: Array, y: Array) -> Array: ...

    def max(self, x: Array, axis: int) -> Array: ...

    def cumsum(self, x: Array, axis: int) -> Array: ...

    def argsort(self, x: Array, axis: int) -> Array:
        """Indices that put the axis in ascending order."""
        ...

    def reshape(self, x: Array, shape: Sequence[int]) -> Array: ...

    def transpose(self, x: Array, axes: Sequence[int]) -> Array: ...

    def concatenate(self, xs: Sequence[Array]) -> Array:
        """One after the other along the leading axis."""
        ...

    def stack(self, xs: Sequence[Array]) -> Array:
        """Side by side along a new leading axis."""
        ...

    def tree_map(self, function: Callable[..., Array], *trees: Any) -> Any:
        """Apply a function to the arrays of a tree, or of several trees of one structure."""
        ...

    def moveaxis(self, x: Array, source: int, target: int) -> Array: ...

    def choose(self, values: Array, index: Any) -> Array:
        """`out[c, *lanes, ...] = values[index[c, *lanes], *lanes, ...]`, the index broadcast over lanes of size 1."""
        ...

    def zeros(self, shape: Sequence[int]) -> Array: ...

    def array(self, x: Any) -> Array:
        """Real numbers from NumPy, in the library's own precision."""
        ...

    def stop_gradient(self, x: Array) -> Array: ...

    def linear_coefficients(
        self, function: Callable[..., Array], arguments: Sequence[tuple[Sequence[int], str]]
    ) -> tuple[Array, Sequence[Array]]:
        """Of a scalar function that is affine in real arguments of these shapes and dtypes: constant and coefficients."""
        ...

    def where(self, condition: Array, x: Array, y: Array) -> Array: ...

    def vmap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Vectorise over the leading axis of every argument and result."""
        ...

    def one_by_one(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same as `vmap`, one entry after the other, each forgotten but for its result and run again for a gradient."""
        ...


def as_numpy(x: Any, dtype: Any = None) -> np.ndarray:
    """A framework's array, on whatever device, as NumPy's."""
    return np.asarray(x.cpu() if hasattr(x, "cpu") else x, dtype)
