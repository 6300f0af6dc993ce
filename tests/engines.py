"""Both engines, for tests whose programs are written once.

A table's programs and the sums that say what they should give are written with `xp`, `nn`, `ppl`, `dist` and `handlers`,
which are JAX's and NumPyro's, except in `on(PYRO)`, where they are PyTorch's and Pyro's. Where those are not installed, PYRO is
None.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.experimental
import jax.numpy as jnp
import jax.scipy.special
import numpyro
import numpyro.distributions
import numpyro.handlers
import numpyro.infer.autoguide
import numpyro.infer.reparam

import ppvi.numpyro
import ppvi.numpyro._programs
from ppvi.objective import estimator_of
from tests import distributions

try:
    from tests.on_pyro import PYRO, double as _double_on_pyro
except ModuleNotFoundError as error:
    if error.name not in ("torch", "pyro"):
        raise
    PYRO, _double_on_pyro = None, nullcontext


def exact(bound, params, args=(), kwargs=None, *, limit, seconds=math.inf):
    """Every outcome of an objective's estimator."""
    return estimator_of(bound).outcomes(params, args, kwargs or {}, limit, seconds)


class Namespace(ModuleType):
    """A module of the engine that is in force.

    It is a module to those who look at what programs read, too: they would go through all of both engines each time.
    """

    def __getattr__(self, attribute: str) -> Any:
        return getattr(getattr(_engines[-1], self.__name__), attribute)


xp, nn, ppl, dist, handlers, infer = map(Namespace, ("xp", "nn", "ppl", "dist", "handlers", "infer"))


NUMPYRO = SimpleNamespace(
    name="NumPyro",
    xp=jnp,
    nn=SimpleNamespace(
        **vars(jax.nn),
        log_ndtr=jax.scipy.special.log_ndtr,
        gammaln=jax.scipy.special.gammaln,
        xlogy=jax.scipy.special.xlogy,
    ),
    ppl=numpyro,
    dist=SimpleNamespace(**vars(numpyro.distributions), **distributions.NUMPYRO),
    handlers=numpyro.handlers,
    autoguide=numpyro.infer.autoguide,
    infer=numpyro.infer,
    vi=ppvi.numpyro,
    array=jnp.asarray,
    key=jax.random.key,
    programs=ppvi.numpyro._programs.NumPyroPrograms,
)
ENGINES = (NUMPYRO, PYRO) if PYRO else (NUMPYRO,)
"""Those that are installed."""
for _engine in ENGINES:
    _engine.outcomes = exact
_engines: list[Any] = [NUMPYRO]


@contextmanager
def on(engine: Any) -> Iterator[Any]:
    """Programs that run here run on this engine."""
    _engines.append(engine)
    try:
        yield engine
    finally:
        _engines.pop()
        if PYRO:
            PYRO.forget()


enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64  # until JAX 0.8


@contextmanager
def double() -> Iterator[None]:
    """64-bit numbers on both engines."""
    with _double_on_pyro(), enable_x64(True):
        yield
