"""Optimisers that know the geometry of a guide: they move distributions, not numbers.

`fit(bound, key, x, optimizer=ppvi.optimizers.Natural(0.5))`. An optimiser here is a frozen value that loads no framework;
`ppvi.optimizers.base` says how another one is written.
"""

from ppvi.optimizers.base import Block, Geometric
from ppvi.optimizers.ivon import IVON
from ppvi.optimizers.natural import Natural

__all__ = ["IVON", "Block", "Geometric", "Natural"]
