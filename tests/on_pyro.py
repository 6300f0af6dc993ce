"""Pyro as one of the engines of `tests.engines`: PyTorch under NumPy's names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pyro
import pyro.distributions
import pyro.infer.autoguide
import pyro.infer.reparam
import pyro.poutine
import torch

import ppvi.pyro
import ppvi.pyro._programs
from tests import distributions_pyro


def tensor(x: Any) -> Any:
    """Numbers and arrays as tensors; anything else as it is."""
    if isinstance(x, bool | int | float | np.ndarray | np.generic | jax.Array):
        array = np.asarray(x)
        return torch.tensor(array, dtype=torch.get_default_dtype() if array.dtype.kind == "f" else None)
    return x


class Converting:
    """A module whose functions take numbers and arrays where they want tensors."""

    def __init__(self, module: Any, only: Callable[[str], bool] = lambda name: True, **others: Any):
        self._module, self._only, self._others = module, only, others

    def __getattr__(self, name: str) -> Any:
        found = self._others[name] if name in self._others else getattr(self._module, name)
        if name in self._others or not callable(found) or not self._only(name):
            return found
        return lambda *args, **kwargs: found(*map(tensor, args), **{k: tensor(x) for k, x in kwargs.items()})


def _array(x: Any, dtype: Any = None) -> torch.Tensor:
    x = torch.stack([_array(entry) for entry in x]) if isinstance(x, list | tuple) else tensor(x)
    return x if dtype is None else x.to({float: torch.get_default_dtype(), int: torch.long}.get(dtype, dtype))


_NOT_ENTRYWISE = frozenset("sum prod mean max min cumsum arange linspace zeros ones full eye".split())


_numbers = Converting(
    torch,
    lambda name: name not in _NOT_ENTRYWISE,
    array=_array,
    asarray=_array,
    pi=math.pi,
    inf=math.inf,
    nan=math.nan,
    ravel=lambda x: x.reshape(-1),
    flip=lambda x: torch.flip(x, tuple(range(x.ndim))),
    concatenate=lambda xs, axis=0: torch.cat([_array(x) for x in xs], axis),
    stack=lambda xs, axis=0: torch.stack([_array(x) for x in xs], axis),
    atleast_1d=lambda x: torch.atleast_1d(_array(x)),
    max=lambda x: torch.amax(x, tuple(range(x.ndim))),
    mean=lambda x, axis=None: torch.mean(x * 1.0) if axis is None else torch.mean(x * 1.0, axis),
    sort=lambda x: torch.sort(x).values,
    median=lambda x: torch.quantile(x, 0.5),
    linalg=SimpleNamespace(**{**vars(torch.linalg), "norm": torch.linalg.vector_norm}),
    arctan2=torch.atan2,
    where=lambda c, x, y: torch.where(_array(c), *torch.broadcast_tensors(*(_array(v) for v in (x, y)))),
)
"""PyTorch's functions, whose first arguments may be numbers where they are entrywise."""


def _all_axes(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda x, axis=None: function(x, tuple(range(x.ndim)) if axis is None else axis)


_activations = Converting(
    torch.nn.functional,
    sigmoid=lambda x: torch.sigmoid(_array(x)),
    logsumexp=_all_axes(torch.logsumexp),
    softmax=lambda x, axis=-1: torch.softmax(x, axis),
    log_softmax=lambda x, axis=-1: torch.log_softmax(x, axis),
    one_hot=lambda x, n: (x[..., None] == torch.arange(n)) * 1.0,
    hard_tanh=torch.nn.functional.hardtanh,
    log_ndtr=torch.special.log_ndtr,
    gammaln=torch.lgamma,
    xlogy=torch.xlogy,
)


def _param(name: str, value: Any = None, **options: Any) -> Any:
    return pyro.param(name, *(() if value is None else (value if callable(value) else tensor(value) * 1.0,)), **options)


def _sample(name: str, fn: Any, obs: Any = None, **options: Any) -> Any:
    return pyro.sample(name, fn, obs=None if obs is None else tensor(obs), **options)


PYRO = SimpleNamespace(
    name="Pyro",
    xp=_numbers,
    nn=_activations,
    ppl=SimpleNamespace(
        param=_param,
        sample=_sample,
        plate=pyro.plate,
        deterministic=pyro.deterministic,
        factor=pyro.factor,
        subsample=lambda data, event_dim: pyro.subsample(tensor(data), event_dim=event_dim),
    ),
    dist=Converting(pyro.distributions, constraints=pyro.distributions.constraints, **distributions_pyro.PYRO),
    handlers=Converting(pyro.poutine),
    autoguide=pyro.infer.autoguide,
    infer=pyro.infer,
    vi=ppvi.pyro,
    array=lambda x: tensor(x) * 1.0,
    key=lambda seed: seed,
    programs=ppvi.pyro._programs.PyroPrograms,
    forget=pyro.clear_param_store,
)


@contextmanager
def double() -> Iterator[None]:
    """64-bit numbers."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
