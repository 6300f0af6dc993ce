"""The rows of plates that run over all of them, whose numbers are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ppvi.pyro import _graphs as graphs
from ppvi.pyro._compat import no_torch_function


def in_order(rows: torch.Tensor, size: int) -> bool:
    """Whether rows are known to be all of them in order: what is traced is, if it is made as these are."""
    return tuple(rows.shape) == (size,) and any(graphs.same(rows, made(size)) for made in (torch.arange, np.arange))


def known(rows: torch.Tensor) -> torch.Tensor:
    """The numbers of all rows of a plate as `Rows`."""
    rows.__class__ = Rows
    return rows


class Rows(torch.Tensor):
    """The numbers of all rows of a plate, which are known: `for i in pyro.plate("p", 4)` is a loop of Python's."""

    __torch_function__: Any = no_torch_function

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter([torch.tensor(i) for i in range(len(self))])
