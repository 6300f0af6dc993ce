"""The objective language: what an objective program may say, whatever framework it runs on.

An objective is a plain function of two `Program` handles, the model `p` and the guide `q`. It draws from them
(`simulate`), asks for densities (`log_density`, `log_probs`), runs things several times (`replicate`), and returns one
real number whose expectation is to be optimised:

    def elbo(p, q):                                  # E_q [log p(x, z) - log q(z)]
        z = q.simulate()
        return p.log_density(z) - z.log_density

The verbs act on the engine that is staging at the moment; outside an objective they raise a `ProgramError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from ppvi.errors import ProgramError
from ppvi.ops import Array, Ops

T = TypeVar("T")


class Plate(NamedTuple):
    """A plate around a site: its name and its axis, counted from the right of the site's batch shape."""

    name: str
    dim: int


@dataclass(frozen=True)
class Trace(Mapping[str, Array]):
    """One run of a program: a mapping from latent site to value, with the densities of that run.

    **Attributes**

    - `log_density`: scalar, the sum of every site's log_prob, observations, scales and masks included.
    - `log_probs`: site -> array of the site's batch shape, observed sites included.
    - `returned`: what the program returned.
    """

    choices: Mapping[str, Array]
    log_probs: Mapping[str, Array]
    log_density: Array
    returned: Any = None
    plates: Mapping[str, tuple[Plate, ...]] = field(default_factory=dict)
    batch_ndims: Mapping[str, int] = field(default_factory=dict)
    auxiliary: frozenset[str] = frozenset()

    def __getitem__(self, site: str) -> Array:
        return self.choices[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    def per(self, plate: str) -> Array:
        """The log density with that plate's axis kept: shape `(plate,)`, summed over everything else.

        **Raises** `ProgramError` if a site lies outside the plate, for its log_prob then has no such axis.
        """
        ops = session().ops
        total: Array = 0.0
        for site, log_prob in self.log_probs.items():
            dims = [frame.dim for frame in self.plates[site] if frame.name == plate]
            if not dims:
                raise ProgramError(
                    f"log density per plate {plate!r}: site {site!r} lies outside that plate, so its log_prob has no "
                    f"such axis. Move the site into the plate, or sum the entries of `log_probs` that you mean."
                )
            ndim = self.batch_ndims[site]
            total = total + ops.sum(log_prob, [axis for axis in range(-ndim, 0) if axis != dims[0]])
        return total


class Program(Protocol):
    """A model or a guide, as an objective sees it."""

    def simulate(self, *args: Any, **kwargs: Any) -> Trace:
        """Run the program, drawing every latent site. Arguments default to those of the objective's call."""
        ...

    def log_density(self, choices: Mapping[str, Array], *, per: str | None = None) -> Array:
        """log density of these latent choices together with the program's observations.

        **Arguments**

        - `choices`: a value for every latent site, `(*batch, *event)`.
        - `per`: the name of a plate whose axis is kept instead of summed; the result then has shape `(plate,)`.

        **Raises** `ProgramError` if a latent site has no choice, a choice has no site, or a shape does not fit.
        """
        ...

    def log_probs(self, choices: Mapping[str, Array]) -> Mapping[str, Array]:
        """The same density site by site, each of the site's batch shape, unsummed."""
        ...


class Session(Protocol):
    """One staging of an objective, as the verbs below see it."""

    @property
    def ops(self) -> Ops: ...

    def replicate(self, n: int, thunk: Callable[[], Any]) -> Any: ...


_session: ContextVar[Session] = ContextVar("ppvi_session")


def session() -> Session:
    """The staging in progress; a `ProgramError` outside an objective program."""
    try:
        return _session.get()
    except LookupError:
        raise ProgramError(
            "this ppvi verb has a meaning inside an objective program only; "
            "pass the function that calls it to `objective(program, model, guide)`."
        ) from None


@contextmanager
def staging(current: Session) -> Iterator[None]:
    """Make `current` the engine that the verbs act on."""
    token = _session.set(current)
    try:
        yield
    finally:
        _session.reset(token)


def replicate(n: int, thunk: Callable[[], T]) -> T:
    """`n` independent runs of `thunk`, vectorised.

    **Arguments**

    - `n`: number of runs (particles), a Python int of at least 1.
    - `thunk`: a function of no arguments that returns arrays, or a tree of arrays.

    **Returns** what the thunk returns, each array with a leading axis of size `n`. Every site draws afresh in every
    run; a subsampled plate has one minibatch for all of them.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ProgramError(f"replicate: the number of runs must be an int of at least 1, not {n!r}.")
    return session().replicate(n, thunk)


def stop_gradient(x: Array) -> Array:
    """`x`, held constant by every gradient."""
    return session().ops.stop_gradient(x)


def logmeanexp(x: Array) -> Array:
    """log of the mean of exp(x) over the leading axis, computed without overflow."""
    import math

    return session().ops.logsumexp(x, 0) - math.log(x.shape[0])
