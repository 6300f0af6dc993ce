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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from ppvi._ops import Array, Ops


class Distribution(Protocol):
    """A site's distribution as a strategy sees it, the same for every framework.

    Lanes are the axes over which the draws are independent: the batch shape, with `to_event` and masks peeled off. `name` is
    that of its family; `has_rsample` and `has_enumerate_support` say whether there are `rsample` and `enumerate_support`.
    """

    ops: Ops
    baseline_input: Array | None
    """What the site names for baselines to look at, `(*lanes, ...)`."""

    @property
    def name(self) -> str: ...

    @property
    def has_rsample(self) -> bool: ...

    @property
    def has_enumerate_support(self) -> bool: ...

    def has(self, function: Literal["cdf", "icdf"]) -> bool:
        """Whether draws are reparameterised and this function is known."""
        ...

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

    def probabilities(self) -> Array:
        """q of every value of a lane, `(K, *lanes)`: where the distribution is given by probabilities, these, with their
        derivatives even where they are 0 or 1."""
        ...

    def log_weights(self) -> Array:
        """log q of every value of a lane, `(K, *lanes)`, to weigh the rest by: its exponential has the derivatives of
        `probabilities`, and where q is 0 it is below what counts."""
        ...

    def parameter(self, name: str) -> Array:
        """A parameter by the library's name for it, such as `loc` or `rate`, `(*lanes)`."""
        ...

    def replace(self, **parameters: Array) -> Distribution:
        """The same distribution with other values of some parameters, `(*lanes)`."""
        ...

    def cdf(self, value: Array) -> Array:
        """The cumulative distribution function of a scalar distribution, `(*lanes)`."""
        ...

    def icdf(self, quantiles: Array) -> Array:
        """Its inverse, differentiable in the parameters, of a stack `(n, *lanes)`."""
        ...

    @property
    def is_real(self) -> bool:
        """Whether it is continuous, with one real number in each lane."""
        ...

    def to_real(self, values: Array) -> Array:
        """Its values laid out on the whole line, of a stack `(n, *lanes)`; only where `is_real`."""
        ...

    def from_real(self, x: Array) -> tuple[Array, Array]:
        """The inverse of `to_real`, and the logarithm of its derivative."""
        ...

    def noise(self, rng: Any, kind: str, number: int, n: int | None = None) -> Array:
        """Draws of a standard `normal`, `exponential` or `uniform`, `(*lanes)`, or `(n, *lanes)`; different numbers are
        independent."""
        ...

    def pick(self, rng: Any, log_weights: Array, number: int) -> Array:
        """An index along the leading axis of `(K, *lanes)`, by the exponentials of these weights, `(*lanes)`."""
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
    weight: Array | None = None
    """The weight of the value itself, `(*lanes)`, where that is an alternative too."""
    inputs: Array | None = None
    """What else `estimate` needs to know about each lane, `(*lanes, ...)`."""
    transitions: Array | None = None
    """In a Markov chain, the alternatives' log_probs given each value of the lane before, `(K, K, *lanes)`; `log_probs` are
    then those of the marginals. The compiler adds them."""


STACKS = ("values", "log_probs", "weights")
"""The fields of a draw that have alternatives along their leading axis."""


@dataclass(frozen=True)
class Site:
    """A site while its strategy estimates the rest of the objective: its name, lanes and `Draw`, of which it has `value`,
    `log_prob`, `values`, `log_probs`, `weights` and `inputs` by these names."""

    name: str
    lanes: tuple[int, ...]
    draw: Draw
    ops: Ops
    state: Any = None
    """The strategy's state, if it has one."""
    time: int = 0
    """In a Markov chain, the lane axis along which its draws follow one another."""
    backward: bool = False
    """Whether they do so from the last lane to the first."""

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

    @property
    def inputs(self) -> Array:
        return self.draw.inputs


class Terms(Protocol):
    """One estimate of the objective's terms that depend on a site.

    Weights come in the shape of the site's lanes and as logarithms: a term that is along a lane axis receives
    the lanes one by one, a term that couples lanes receives their sum.
    """

    def scale(self, log_weight: Array) -> Terms:
        """Each term times the exponential of its log weight."""
        ...

    def vary(self, weight: Array) -> Terms:
        """Each term times what the weight varies by, `weight - stop_gradient(weight)`: nothing in value.

        Where the weight is 0, a term that is not finite counts nothing in its derivative either.
        """
        ...

    def control(self, x: Array | Callable[[Array], Array]) -> Terms:
        """Add to the objective a control variate: a quantity of value zero and of mean-zero gradient.

        A function receives the site's *credit*, `(*lanes)`: for each lane, what the terms add up to that depend on it.
        """
        ...

    def __mul__(self, number: float | Array) -> Terms:
        """Every term times a number, which is no matter of lanes."""
        ...

    def __add__(self, other: Terms) -> Terms: ...


class Runs(Terms, Protocol):
    """A stack of estimates, one for each of several runs; weights have the runs in front, `(K, *lanes)`."""

    def mix(self, log_weights: Array, first: Array | None = None) -> Terms:
        """The sum of the runs, each times the exponential of its log weights; a run of weight 0 counts nothing, whatever it is.

        An entry of a term has the weights of the lanes that it is a function of; of several in a row the first has its weight
        in `first`.

        With K = 3 runs of a site of 2 lanes, log weights w are `(3, 2)`. A term t `(3, 2)` that is along the lanes becomes
        sum_k e^w[k, i] t[k, i], `(2,)`; one that couples them, `(3,)`, sum_k e^(w[k, 0] + w[k, 1]) t[k]. Of a chain, whose
        term i is a function of lanes i and i + 1, the weight is that of lane i in `first` and of lane i + 1 in w: the
        probability of one value, times that of the other given it.
        """
        ...

    def total(self) -> Terms:
        """The sum of the runs."""
        ...

    def vary(self, weight: Array) -> Runs:
        """Each run's terms times what its weight varies by."""
        ...


class Continuation(Protocol):
    """`k`: the rest of the objective after a site, restricted to the terms that depend on the site.

    Every run shares the randomness of the sites to come: differences between runs are differences by the site's value.
    """

    def __call__(self, value: Array) -> Terms:
        """The differentiable estimate of the terms at this value of the site."""
        ...

    def each(self, values: Array, *, sequential: bool = False) -> Runs:
        """The same on a stack of values `(K, *lanes, *event)`: a stack of terms.

        Vectorised; or one after the other, with the memory of one run.
        """
        ...

    def assign(self, values: Array, index: np.ndarray, *, sequential: bool = False) -> Runs:
        """The same in C runs: in run c the lanes have `values[index[c]]`, `(C, *lanes)` with size 1 along axes that no term
        couples. What depends on fewer lanes than the terms do is run for fewer assignments.

        With 2 values and terms of neighbours among 3 lanes, C = 4 runs have every pair of neighbours at all 4 assignments:
        `index` is [[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]].
        """
        ...

    def value(self, value: Array) -> Terms:
        """The terms' values at this value, every later site simply drawn, without gradient machinery."""
        ...

    def value_each(self, values: Array) -> Runs:
        """The same on a stack of values."""
        ...

    def value_where(self, value: Array, values: Array, chosen: np.ndarray) -> Runs:
        """The same in C K runs, one stack of K after the other: in the runs of stack c the lanes that `chosen[c]` marks,
        `(C, *lanes)` with size 1 along axes that no term couples, have the K values, and the other lanes have `value`.

        With value [a, b], values [[0, 0], [1, 1]] and chosen [[True, False], [False, True]] the four runs are at [0, b],
        [1, b], [a, 0] and [a, 1].
        """
        ...

    def by_coupling(self) -> Sequence[tuple[Mapping[int, int], Continuation]]:
        """The rest, parted by the lane axes of the site that its terms couple, each with how many lanes in a row."""
        ...


class Strategy:
    """Base class of gradient strategies: frozen dataclasses of static fields."""

    route: ClassVar[Literal["credit", "path", "both"]] = "credit"
    """How the gradient reaches the distribution: by credit for the rest, along the path of the draw, or by both.

    By `path` alone there is nothing to credit, and `estimate` is not called. By `credit` alone every value that the rest
    is run at carries no gradient, so that the gradient of the site's own log_prob there has mean zero and is dropped.
    """
    unbiased: ClassVar[bool] = True
    """Whether the estimator's expectation is the gradient, where the strategy fits."""
    fixed_support: ClassVar[bool] = True
    """Whether the estimator is biased when the support moves with a parameter."""
    assumes: ClassVar[str] = ""
    """What is taken on the user's word where it is used, which the static check repeats."""

    chained: ClassVar[Literal["draw", "draws", "chain"] | None] = None
    """How it fits lanes that are drawn one after the other, each given those before: by the rest at the draw alone; by
    `values` that are further draws, then of all lanes; by sums over a Markov chain; None where it does not."""

    @property
    def sums_out(self) -> bool:
        """Whether it is the sum over all values, each weighed by its probability, so that others' may be taken with it."""
        return False

    relaxes: ClassVar[bool] = False
    """Whether the rest is run at values between those of the support."""

    @property
    def to_all_orders(self) -> bool:
        """Whether the second derivative of what `estimate` returns has the objective's as its mean, and so on."""
        return False

    @property
    def needs_continuity(self) -> bool:
        """Whether the estimator is biased where the rest jumps in the site's values."""
        return self.route != "credit"

    def __str__(self) -> str:
        """As a person would write it: without what is left at its default."""
        shown = [f for f in fields(self) if f.repr and getattr(self, f.name) != f.default]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"

    def misfit(self, dist: Distribution) -> str | None:
        """Why this strategy cannot handle that distribution and what could, or None where it can."""
        return None

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        """Draw at a site, while the program is staged and its distribution is at hand, and keep what `estimate` needs."""
        raise NotImplementedError

    def estimate(self, site: Site, k: Continuation) -> Terms:
        """Estimate the rest of the objective, `k`, so that the native gradient of the estimate is the site's and the rest's."""
        raise NotImplementedError

    def absent(self, draw: Draw) -> Draw:
        """From a draw of zeros, the one of a site that a branch has passed over: with it the estimate is the rest's own."""
        return draw

    def sees_all(self, alternatives: int) -> bool:
        """Whether it runs the rest at each of so many values, though their probabilities be zero: for as a parameter makes
        them possible, they have a share in the gradient."""
        return False

    # Strategies that learn from gradient to gradient; the others have no state. -------------------------------------------

    @property
    def stateful(self) -> bool:
        """Whether it has a state that learns."""
        return False

    def init(self, lanes: tuple[int, ...], ops: Ops) -> Any:
        """The state before the first gradient: a tree of arrays."""
        raise NotImplementedError

    @property
    def learning(self) -> tuple[Literal["sgd", "adam"], float]:
        """How the state goes down its gradient after each use, and the step size."""
        raise NotImplementedError

    learns_from: ClassVar[Literal["loss", "variance"]] = "loss"
    """What the state goes down: a loss of value zero that `estimate` adds by `control`; or half the squared length of the
    gradient in the parameters, whose mean over draws is its variance up to a constant."""

    # Cost -----------------------------------------------------------------------------------------------------------------

    def runs(self, alternatives: int, coupled: int) -> int:
        """Differentiable runs of a term, for that many alternative values and that many coupled lanes."""
        return 1

    def evaluations(self, alternatives: int, coupled: int) -> int:
        """Plain evaluations of a term, beside the differentiable runs."""
        return 0


def phantom(site: Site, x: Array) -> Array:
    """`x - stop_gradient(x)`: zero in value, and carries the gradient of x."""
    return x - site.ops.stop_gradient(x)


def needs_finite(strategy: Strategy, dist: Distribution) -> str | None:
    """Why a strategy for finite supports cannot handle a distribution, if it cannot."""
    if dist.has_enumerate_support:
        return None
    return f"{dist.name} has no finite support, which {strategy} needs; LeaveOneOut() or Reinforce() need none"
