"""Optimisers that know the geometry of a guide: they move distributions, not numbers.

`fit(bound, key, x, optimizer=ppvi.optimizers.Natural(0.5))`. An optimiser here is a frozen value that loads no framework;
`ppvi.optimizers.base` says how another one is written.
"""

from ppvi.optimizers.base import Block, Geometric
from ppvi.optimizers.bures_wasserstein import BuresWasserstein
from ppvi.optimizers.ivon import IVON
from ppvi.optimizers.natural import Natural
from ppvi.optimizers.proximal import Proximal

__all__ = ["IVON", "Block", "BuresWasserstein", "Geometric", "Natural", "Proximal"]
