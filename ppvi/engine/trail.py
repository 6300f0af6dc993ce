"""Where a fit has been: means of its unconstrained parameters over blocks of steps, in bounded memory.

An engine averages over `BLOCK` steps and begins again; what it has found then is kept here. Blocks are joined in pairs when
there are too many, so that all are of one width, but for the last one, which may be of fewer steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ppvi._ops import Array, as_numpy

BLOCK = 25
"""Steps that an engine averages over."""

NUMBERS = 2**22
"""That are kept of all parameters, and at least `LEAST` blocks and at most `MOST`, which are even numbers. After blocks were
joined half are left, and the last half of these is to have one block for each of the parts that are compared."""
LEAST, MOST = 128, 512


@dataclass(frozen=True, eq=False)
class Trail:
    """Means over blocks of steps.

    **Attributes**

    - `means`: name of a state's array -> its means, `(*shape, block)`.
    - `width`: steps in a block.
    """

    means: Mapping[str, np.ndarray] = field(repr=False)
    width: int = BLOCK

    @property
    def blocks(self) -> int:
        return min((x.shape[-1] for x in self.means.values()), default=0)

    def after(self, step: int, arrays: Mapping[str, Array]) -> Trail:
        """The trail after so many steps, with what the engine has averaged over the last ones."""
        if step % BLOCK:
            return self
        new = {name: as_numpy(arrays[name], x.dtype)[..., None] for name, x in self.means.items()}
        there = step - BLOCK - self.width * (self.blocks - 1)  # steps of the last block
        if self.blocks and there < self.width:
            weight = BLOCK / (there + BLOCK)
            last = {name: x[..., -1:] + weight * (new[name] - x[..., -1:]) for name, x in self.means.items()}
            return Trail(_joined({name: x[..., :-1] for name, x in self.means.items()}, last), self.width)
        numbers = sum(x.size for x in new.values())
        if self.blocks < min(max(NUMBERS // max(numbers, 1) // 2 * 2, LEAST), MOST):
            return Trail(_joined(self.means, new), self.width)
        pairs = {name: (x[..., ::2] + x[..., 1::2]) / 2 for name, x in self.means.items()}
        return Trail(_joined(pairs, new), 2 * self.width)

    def recent(self) -> Trail:
        """The last half of the blocks."""
        return self._between(self.blocks // 2, self.blocks)

    def parts(self, n: int) -> list[Trail]:
        """The last blocks in so many parts of equal length, in order."""
        each = self.blocks // n
        begin = self.blocks - n * each
        return [self._between(begin + i * each, begin + (i + 1) * each) for i in range(n)]

    def _between(self, first: int, last: int) -> Trail:
        return replace(self, means={name: x[..., first:last] for name, x in self.means.items()})

    def mean(self) -> dict[str, np.ndarray]:
        """Over all of its blocks."""
        return {name: x.mean(-1, dtype=float) for name, x in self.means.items()}

    def iterates(self) -> np.ndarray:
        """`(block, number)`: all of them as vectors."""
        return np.concatenate([x.reshape(-1, self.blocks) for x in self.means.values()]).T.astype(float)


def _joined(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([x, after[name]], -1) for name, x in before.items()}
