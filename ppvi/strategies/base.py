"""What a gradient strategy is: how a site draws, and how its draw is credited with the rest of the objective.

A strategy is a frozen dataclass with two methods. `draw` is traced where the distribution is at hand and returns the
arrays that the strategy wants to keep (a `Draw`). `estimate` sees those arrays and `k`, the rest of the objective, and
returns the estimate of the objective's terms whose *native* gradient is the strategy's gradient estimator:

    class Reinforce(Strategy):                                      # d E[f] = E[df + f dlog q]
        def draw(self, dist, rng):
            value = dist.sample(rng)
            return Draw(value, log_prob=dist.log_prob(value))
        def estimate(self, site, k):
            return k(site.value).scale(phantom(site, site.log_prob))

The compiler calls both; nothing is registered anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from ppvi.ops import Array, Ops


class Distribution(Protocol):
    """A site's distribution as a strategy sees it, the same for every framework.

    Lanes are the axes over which the draws are independent: the batch shape, with `to_event` and masks peeled off.
    """

    @property
    def name(self) -> str: ...

    @property
    def ops(self) -> Ops: ...

    @property
    def has_rsample(self) -> bool: ...

    @property
    def has_enumerate_support(self) -> bool: ...

    def sample(self, rng: Any) -> Array:
        """A draw that carries no gradient, `(*lanes, *event)`."""
        ...

    def samples(self, rng: Any, n: int) -> Array:
        """`n` independent draws that carry no gradient, `(n, *lanes, *event)`."""
        ...

    def rsample(self, rng: Any) -> Array:
        """A draw that is differentiable in the distribution's parameters, explicitly or implicitly."""
        ...

    def log_prob(self, value: Array) -> Array:
        """log q(value), `(*lanes)`; of a stack `(n, *lanes, *event)`, `(n, *lanes)`."""
        ...

    def enumerate_support(self) -> Array:
        """Every value of a lane, `(K, *lanes, *event)`."""
        ...

    def parameter(self, name: str) -> Array:
        """A parameter by the library's name for it, such as `loc` or `rate`, `(*lanes)`."""
        ...

    def noise(self, rng: Any, kind: str, number: int) -> Array:
        """Draws of a standard `normal`, `exponential` or `uniform`, `(*lanes)`; different numbers are independent."""
        ...


class Draw(NamedTuple):
    """The arrays that a strategy keeps of a site."""

    value: Array
    """What the program goes on with, `(*lanes, *event)`."""
    log_prob: Array | None = None
    """Its log_prob, `(*lanes)`."""
    values: Array | None = None
    """Alternative values, `(K, *lanes, *event)`."""
    log_probs: Array | None = None
    """Their log_probs, `(K, *lanes)`."""
    weights: Array | None = None
    """Their weights, `(K, *lanes)`."""


@dataclass(frozen=True)
class Site:
    """A site while its strategy estimates the rest of the objective: its name, lanes and `Draw`."""

    name: str
    lanes: tuple[int, ...]
    draw: Draw
    ops: Ops

    @property
    def value(self) -> Array:
        return self.draw.value

    @property
    def log_prob(self) -> Array:
        return self.draw.log_prob

    @property
    def values(self) -> Array:
        return self.draw.values

    @property
    def log_probs(self) -> Array:
        return self.draw.log_probs

    @property
    def weights(self) -> Array:
        return self.draw.weights


class Terms(Protocol):
    """One estimate of the objective's terms that depend on a site.

    Weights come in the shape of the site's lanes and as logarithms: a term that is along a lane axis receives
    the lanes one by one, a term that couples lanes receives their sum.
    """

    def scale(self, log_weight: Array) -> Terms:
        """Each term times the exponential of its log weight."""
        ...

    def times(self, weight: Array) -> Terms:
        """Each term times the weight itself."""
        ...

    def control(self, x: Array) -> Terms:
        """Add to the objective a control variate: a quantity of value zero and of mean-zero gradient."""
        ...

    def __add__(self, other: Terms) -> Terms: ...


class Runs(Terms, Protocol):
    """A stack of estimates, one for each of several runs; weights have the runs in front, `(K, *lanes)`."""

    def mix(self, log_weights: Array) -> Terms:
        """The sum of the runs, each times the exponential of its log weights."""
        ...

    def total(self) -> Terms:
        """The sum of the runs."""
        ...

    def times(self, weight: Array) -> Runs:
        """Each run's terms times its weight."""
        ...


class Continuation(Protocol):
    """`k`: the rest of the objective after a site, restricted to the terms that depend on the site.

    Every run shares the randomness of the sites to come: differences between runs are differences by the site's value.
    """

    def __call__(self, value: Array) -> Terms:
        """The differentiable estimate of the terms at this value of the site."""
        ...

    def each(self, values: Array) -> Runs:
        """The same on a stack of values `(K, *lanes, *event)`, vectorised: a stack of terms."""
        ...

    def value(self, value: Array) -> Terms:
        """The terms' values at this value, every later site simply drawn, without gradient machinery."""
        ...

    def value_each(self, values: Array) -> Runs:
        """The same on a stack of values."""
        ...

    def by_coupling(self) -> Sequence[tuple[tuple[int, ...], Continuation]]:
        """The rest, parted by which lane axes of the site its terms couple."""
        ...


class Strategy:
    """Base class of gradient strategies: frozen dataclasses of static fields."""

    pathwise: ClassVar[bool] = False
    """The draw itself carries the gradient, so there is nothing to credit."""
    unbiased: ClassVar[bool] = True
    """Whether the estimator's expectation is the gradient, where the strategy fits."""
    fixed_support: ClassVar[bool] = True
    """Whether the estimator is biased when the support moves with a parameter."""

    def misfit(self, dist: Distribution) -> str | None:
        """Why this strategy cannot handle that distribution and what could, or None where it can."""
        return None

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        raise NotImplementedError

    def estimate(self, site: Site, k: Continuation) -> Terms:
        raise NotImplementedError

    def runs(self, support: int, coupled: int) -> int:
        """Differentiable runs of the rest, for that many alternative values and that many coupled lanes."""
        return 1


def phantom(site: Site, x: Array) -> Array:
    """`x - stop_gradient(x)`: zero in value, and carries the gradient of x."""
    return x - site.ops.stop_gradient(x)
