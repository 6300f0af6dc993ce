"""The objective language: what an objective program may say, whatever framework it runs on.

An objective is a plain function of two `Program` handles, the model `p` and the guide `q`. It draws from them
(`simulate`), asks for densities (`log_density`, `log_probs`), runs things several times (`replicate`, `each`), and
returns one real number whose expectation is to be optimised:

    def elbo(p, q):                                  # E_q [log p(x, z) - log q(z)]
        z = q.simulate()
        return p.log_density(z) - z.log_density

The verbs act on the engine that is staging at the moment; outside an objective they raise a `ProgramError`. Programs
made from programs, `marginal` and `normalize`, are in `ppvi.inference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from ppvi.errors import ProgramError
from ppvi.ops import Array, Ops

T = TypeVar("T")

Plates = str | Sequence[str]
"""The name of a plate, or several names."""


class Plate(NamedTuple):
    """A plate around a site."""

    name: str
    dim: int | None
    """Its axis, counted from the right of the site's batch shape; None where it has none, being run over in Python."""
    scale: float = 1.0
    """N / n, for a minibatch of n of the plate's N rows: how many rows each stands for."""


@dataclass(frozen=True)
class Trace(Mapping[str, Array]):
    """One run of a program: a mapping from latent site to value, with the densities of that run.

    **Attributes**

    - `log_density`: scalar, the sum of every site's log_prob, observations, scales and masks included.
    - `log_probs`: site -> array of the site's batch shape, observed sites included, scales and masks too.
    - `returned`: what the program returned.
    """

    choices: Mapping[str, Array]
    log_probs: Mapping[str, Array]
    log_density: Array
    returned: Any = None
    plates: Mapping[str, tuple[Plate, ...]] = field(default_factory=dict)
    batch_ndims: Mapping[str, int] = field(default_factory=dict)
    auxiliary: frozenset[str] = frozenset()
    """Sites that another program, asked for the density of these choices, need not have."""
    observed: frozenset[str] = frozenset()
    """Sites whose values are data."""
    pathwise: frozenset[str] = frozenset()
    """Sites whose draw carries its own gradient."""
    placed: frozenset[str] = frozenset()
    """Sites that were not drawn, but given a value."""
    whole: Trace | None = None
    """Of a marginal: the run of the whole program."""
    rows: Mapping[str, Array] = field(default_factory=dict)
    """Of sites on minibatches: `log_probs` with every row counted once, whatever it stands for."""
    distributions: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The engine's own objects for each site, while the run is not yet stacked with others."""

    def __getitem__(self, site: str) -> Array:
        return self.choices[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    @property
    def exact(self) -> bool:
        """Whether the density is exact, a product over the sites, and not an estimate."""
        return all(site in self.log_probs for site in self.choices)

    def per(self, plate: Plates | None) -> Array:
        """The log density with the axes of these plates kept, in their order, and summed over everything else.

        It is that of each row for itself: a minibatch of one of these plates has no scale N / n here, which `total` puts in.

        **Raises** `ProgramError` if a site lies outside a plate, for its log_prob then has no such axis.
        """
        return self.log_density if plate is None else self._total(self.log_probs, plate)

    def score(self, per: Plates | None = None) -> Array:
        """log q - stop_gradient(log q) of the sites whose draws carry no gradient: zero in value, with the gradient of log q.

        Its mean gradient is zero, so that times anything which does not depend on the draws it is a control variate.

        **Raises** `ProgramError` where the density of the run is one number and not a product over its sites.
        """
        if not self.exact:
            raise ProgramError("score: the density of this run is an estimate, which is no product over its sites.")
        log_prob = self._total([site for site in self.choices if site not in self.pathwise | self.placed], per)
        return log_prob - stop_gradient(
            log_prob, because="a score has mean zero, whatever does not depend on its draw weighs it"
        )

    def log_weight(self, given: Collection[str] = (), per: Plates | None = None) -> Array:
        """Log importance weight of a run in which the sites `given` were given: their log density and the observations'.

            log w = log p(given, drawn, observed) - log density with which the run drew the rest

        **Raises** `ProgramError` where the density of the run is one number and not a product over its sites.
        """
        if self.whole is not None:
            return self.whole.log_weight(given, per)
        joined = [site for site in given if site not in self.log_probs]
        if joined:
            raise ProgramError(
                f"site {joined[0]!r} has no log_prob of its own in this run, whose density is that of "
                f"{', '.join(self.log_probs)} at once: a run in which it is given has no weight. Give the marginal a "
                f"proposal for its auxiliary sites."
            )
        return self._total([site for site in self.log_probs if site in given or site in self.observed], per)

    def along(self, x: Array, site: str, per: Plates | None, ndim: int) -> Array:
        """What there is for each index of these plates, `(*plates)`, along the axes of a site's value, of which there are so
        many."""
        ops, names = session().ops, plate_names(per)
        dims = self._dims(site, names)
        shape = [1] * self.batch_ndims[site]
        for dim, size in zip(dims, x.shape, strict=True):
            shape[dim] = size
        laid = ops.transpose(x, [dims.index(dim) for dim in sorted(dims)]) if len(dims) > 1 else x
        return ops.reshape(laid, (*shape, *[1] * (ndim - len(shape))))

    def _total(self, sites: Iterable[str], per: Plates | None) -> Array:
        names = plate_names(per)
        kept = [self._kept(site, names) for site in sites]
        if kept or not names or not self.log_probs:
            return sum(kept, start=0.0)
        # A sum of nothing has the plates' axes too.
        return session().ops.zeros(tuple(self._kept(next(iter(self.log_probs)), names).shape))

    def _kept(self, site: str, names: Sequence[str]) -> Array:
        """The log_prob of a site, summed over all axes but those of the plates, of which every row counts once."""
        ops, ndim, kept = session().ops, self.batch_ndims[site], self._dims(site, names)
        minibatches = [plate for plate in self.plates[site] if plate.scale != 1]
        log_prob = self.log_probs[site]
        if any(plate.name in names for plate in minibatches):
            session().owe([plate.name for plate in minibatches if plate.name in names])
            log_prob = of_minibatches(
                site, self.rows[site], [plate for plate in minibatches if plate.name not in names]
            )
        total = ops.sum(log_prob, [axis for axis in range(-ndim, 0) if axis not in kept])
        return ops.transpose(total, [sorted(kept).index(dim) for dim in kept]) if len(kept) > 1 else total

    def _dims(self, site: str, names: Sequence[str]) -> list[int]:
        """The axes of plates in the log_prob of a site."""
        dims = {plate.name: plate.dim for plate in self.plates[site] if plate.dim is not None}
        for name in names:
            if name not in dims:
                raise ProgramError(
                    f"log density per plate {name!r}: site {site!r} lies outside that plate, or in a round of a plate that "
                    f"Python runs over, so its log_prob has no such axis. Move the site into the plate, or sum the entries "
                    f"of `log_probs` that you mean."
                )
        return [dims[name] for name in names]


def plate_names(per: Plates | None) -> tuple[str, ...]:
    """Names of plates as a tuple."""
    if per is None:
        return ()
    return (per,) if isinstance(per, str) else tuple(per)


@runtime_checkable
class Program(Protocol):
    """A model, a guide, or a program made from programs, as an objective sees it."""

    def simulate(
        self,
        *args: Any,
        given: Mapping[str, Array] | None = None,
        observe: bool = True,
        stop_params: bool | str = False,
        **kwargs: Any,
    ) -> Trace:
        """Run the program, drawing every latent site.

        **Arguments**

        - `*args`, `**kwargs`: instead of those of the objective's call.
        - `given`: latent sites that are not drawn but have these values; `Trace.log_weight(given)` is then the importance
          weight of the run.
        - `observe`: whether observed sites have the values observed; if not, they are drawn like the others.
        - `stop_params`: whether every gradient holds the program's parameters constant; a text instead of True is the reason
          why no part of the gradient is missed, as for `stop_gradient`.
        """
        ...

    def assess(self, choices: Mapping[str, Array], *, stop_params: bool | str = False, strict: bool = True) -> Trace:
        """The run of the program in which its latent sites have these values.

        **Arguments**

        - `choices`: a value for every latent site, `(*batch, *event)`.
        - `stop_params`: whether every gradient holds the program's parameters constant; a text instead of True is the reason
          why no part of the gradient is missed, as for `stop_gradient`.
        - `strict`: whether choices that the program has no site for are an error.

        **Raises** `ProgramError` if a latent site has no choice, a choice has no site, or a shape does not fit.
        """
        ...

    def log_density(
        self, choices: Mapping[str, Array], *, per: Plates | None = None, stop_params: bool | str = False
    ) -> Array:
        """log density of these latent choices together with the program's observations.

        **Arguments**

        - `choices`, `stop_params`: as for `assess`.
        - `per`: a plate, or several, whose axes are kept instead of summed, in this order. The densities are those of each
          row for itself: where the plate runs over a minibatch of n of N rows, they come without its scale N / n, so that any
          function may be taken of them. `ppvi.total(x, per)` then sums over the plate, and puts it in. A scale of the program's
          own (`handlers.scale`, `poutine.scale`), such as that of an annealed likelihood, is part of the density and stays.

        **Raises** `ProgramError` as `assess` does.
        """
        return self.assess(choices, stop_params=stop_params).per(per)

    def log_probs(self, choices: Mapping[str, Array], *, stop_params: bool | str = False) -> Mapping[str, Array]:
        """The same density site by site, each of the site's batch shape, unsummed."""
        return self.assess(choices, stop_params=stop_params).log_probs

    def bind(self, *args: Any, **kwargs: Any) -> Program:
        """The same program with other arguments than those of the objective's call."""
        ...


class Session(Protocol):
    """One staging of an objective, as the verbs below see it."""

    ops: Ops

    def array(self, value: Any) -> Array: ...

    def each(self, function: Callable[..., Any], stacks: Sequence[Any], n: int | None) -> Any: ...

    def handle(self, fn: Callable[..., Any], *leading: Any) -> Program: ...

    def choice(self, site: str, log_weights: Array, n: int | None) -> Array: ...

    def held(self, stop: bool | str) -> AbstractContextManager[None]: ...

    def kl(self, q: Any, p: Any, ratio: Array) -> Array | None: ...

    def fold(self, count: Array, body: Callable[[Array, Any], Any], carry: Any) -> Any: ...

    def poisson(self, rate: float) -> Array: ...

    def geometric(self, decay: float) -> Array: ...

    def subset(self, data: Any, size: int) -> tuple[Any, int]: ...

    def owe(self, plates: Sequence[str]) -> None: ...

    def settle(self, plates: Sequence[str]) -> float: ...

    def estimate(self, value: Array, what: str) -> Array: ...

    def because(self, value: Array, reason: str) -> Array: ...


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
    run; a subsampled plate has one minibatch for all of them. Replicates nest.
    """
    check_count("replicate: the number of runs", n)
    return session().each(thunk, (), n)


def each(function: Callable[..., T], *stacks: Any) -> T:
    """`function` of every entry along the leading axis of its arguments, vectorised, with independent draws.

    **Arguments**

    - `function`: takes one entry of each stack, and returns arrays, or a tree of arrays.
    - `*stacks`: arrays or trees of arrays (traces among them), such as `replicate` returns.
    """
    if not stacks:
        raise ProgramError("each: there is nothing to run over; replicate(n, thunk) runs a function of no arguments.")
    return session().each(function, stacks, None)


def handle(fn: Callable[..., Any], *leading: Any) -> Program:
    """A handle on a further program, such as a learned reverse model, beside the model and the guide.

    **Arguments**

    - `fn`: a program of the framework. It is called with `leading`, followed by the arguments of the objective's call.
    """
    if not callable(fn):
        raise ProgramError(f"handle: a program must be a function, not {fn!r}.")
    return session().handle(fn, *leading)


def stop_gradient(x: Array, *, because: str | None = None) -> Array:
    """`x`, held constant by every gradient.

    **Arguments**

    - `because`: why no part of the gradient is missed, such as a theorem, where you know. The static check then takes your
      word for it, and says so in its report.
    """
    stopped = session().ops.stop_gradient(x)
    return stopped if because is None else session().because(stopped, because)


def logmeanexp(x: Array) -> Array:
    """log of the mean of exp(x) over the leading axis, computed without overflow."""
    return session().ops.logsumexp(x, 0) - math.log(x.shape[0])


def total(x: Array, per: Plates | None) -> Array:
    """The sum over plates of what there is for each of their indices, in which a minibatch stands for all of its plate.

        sum_i x_i;    over a minibatch of n of N rows    N / n sum_{i in batch} x_i

    Densities `per` a plate are those of each row for itself, so that a nonlinear function of them is taken before the scale
    of the minibatch comes in, and not of densities that have it:

        def iwelbo_per_datum(p, q):
            def log_weight():
                z = q.simulate()
                return p.log_density(z, per="data") - z.per("data")

            return ppvi.total(ppvi.logmeanexp(ppvi.replicate(5, log_weight)), per="data")

    **Arguments**

    - `x`: array of shape `(*plates)`.
    - `per`: the plate or plates whose axes it has, in their order; None for a number, which is returned as it is.

    **Returns** a scalar.

    **Raises** `ProgramError` if the array has other axes, or if no program has such a plate.

    **Unbiased** for the sum over all rows.
    """
    now, names = session(), plate_names(per)
    x = now.array(x)
    if len(x.shape) != len(names):
        raise ProgramError(
            f"total: an array of shape {tuple(x.shape)} has not one axis for each of the plates {list(names)}: sum or average "
            f"other axes, such as that of particles, before."
        )
    if not names:
        return x
    scale = now.settle(names)
    summed = now.ops.sum(x, range(len(names)))
    return summed if scale == 1 else now.estimate(scale * summed, f"sum over a minibatch of {', '.join(names)}")


def of_minibatches(site: str, rows: Array, plates: Iterable[Plate]) -> Array:
    """The log_prob of a site in which every row of the plates' minibatches counts for those that it stands for."""
    minibatches = [plate for plate in plates if plate.scale != 1]
    if not minibatches:
        return rows
    scale, names = math.prod(plate.scale for plate in minibatches), ", ".join(plate.name for plate in minibatches)
    return session().estimate(scale * rows, f"log density of {site} on a minibatch of {names}")


def kl_divergences(q: Trace, p: Trace) -> dict[str, Array]:
    """KL(q(z_i | before) || p(z_i | before)) of every site for which the framework has a closed form, a scalar each.

    Scales, masks and minibatches count in it. Entries that the two programs do not mask alike have no closed form, and are
    log q(z_i) - log p(z_i) at the draw.

    Only where it may stand for E[log q(z_i) - log p(z_i)]: everything that the model draws before the site, the guide has
    drawn before it too, so that neither distribution depends on the site's own value.
    """
    found: dict[str, Array] = {}
    earlier = {name: set(list(q)[:i]) for i, name in enumerate(q)}
    for i, name in enumerate(p):
        if name in q.distributions and name in p.distributions and earlier[name].issuperset(list(p)[:i]):
            ratio = q.log_probs[name] - p.log_probs[name]
            divergence = session().kl(q.distributions[name], p.distributions[name], ratio)
            if divergence is not None:
                found[name] = divergence
    return found


def minimized(objective: T) -> T:
    """Mark an objective program as one to be minimised, for `objective(...)`, which maximises otherwise."""
    objective.maximize = False  # type: ignore[attr-defined]
    return objective


def moves(whose: str) -> Callable[[T], T]:
    """Mark an objective program as one for the parameters of the `"model"` or the `"guide"` only; others are held constant."""

    def mark(objective: T) -> T:
        objective.gradient_of = whose  # type: ignore[attr-defined]
        return objective

    return mark


def without_potential(why: str) -> Callable[[T], T]:
    """Mark an objective program as one whose gradient is by design not that of its value, for checks, which compare them."""

    def mark(objective: T) -> T:
        objective.no_potential = why  # type: ignore[attr-defined]
        return objective

    return mark


def check_count(what: str, n: Any, least: int = 1) -> None:
    """Refuse a number of runs that is no int, or too small."""
    if isinstance(n, bool) or not isinstance(n, int) or n < least:
        raise ProgramError(f"{what} must be an int of at least {least}, not {n!r}.")
