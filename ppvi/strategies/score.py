"""Score-function gradients: weigh what follows a draw by the gradient of the draw's log probability.

Weights enter as exp(phantom(log q)): one in value, with the gradient of log q (the "magic box" of Foerster et al.
2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ppvi._doors import count, number
from ppvi._ops import Array, Ops
from ppvi.errors import StrategyError
from ppvi.strategies.base import Continuation, Distribution, Draw, Site, Strategy, Terms, phantom
from ppvi.strategies.baselines import Baseline, NeuralBaseline


@dataclass(frozen=True)
class Reinforce(Strategy):
    """The score-function estimator, with a constant baseline b.

        d E_q[f(z)] = E[df + (f(z) - b) dlog q(z)]

    f is what the objective adds up downstream of the draw: for a lane, the terms that depend on this lane only.

    **Arguments**

    - `baseline`: b, in units of the objective: a number, the same for each lane, or one that learns, `RunningMean()` or
      `NeuralBaseline(...)`.

    **Unbiased when** the support does not move with a parameter and E|f dlog q| is finite; f may be anything
    measurable. Cost: one run of the rest. Williams 1992; Schulman et al. 2015.
    """

    baseline: float | Baseline = 0.0
    chained: ClassVar[Literal["draw", "draws", "chain"] | None] = "draw"

    def __post_init__(self) -> None:
        if not isinstance(self.baseline, Baseline) or isinstance(self.baseline, type):
            what = "Reinforce: the baseline, where it is not RunningMean() or NeuralBaseline(...),"
            number(what, self.baseline, error=StrategyError)

    @property
    def stateful(self) -> bool:
        return isinstance(self.baseline, Baseline)

    @property
    def to_all_orders(self) -> bool:
        return not self.stateful

    @property
    def learned(self) -> Baseline:
        """The baseline, where it learns."""
        assert isinstance(self.baseline, Baseline)
        return self.baseline

    @property
    def learning(self) -> tuple[Literal["sgd", "adam"], float]:
        return self.learned.learning

    def init(self, lanes: tuple[int, ...], ops: Ops) -> Any:
        return self.learned.init(lanes, ops)

    def misfit(self, dist: Distribution) -> str | None:
        if isinstance(self.baseline, NeuralBaseline) and dist.baseline_input is None:
            return 'NeuralBaseline needs an input: name one at the site by infer={"baseline_input": x}'
        return None

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        value = dist.sample(rng)
        return Draw(value, log_prob=dist.log_prob(value), inputs=dist.baseline_input)

    def estimate(self, site: Site, k: Continuation) -> Terms:
        score = phantom(site, site.log_prob)
        credited = k(site.value).scale(score)
        if isinstance(self.baseline, int | float):
            return credited.control(self.baseline * (1 - site.ops.exp(score))) if self.baseline else credited

        def control(credit: Array) -> Array:
            b = self.learned(site)
            return phantom(site, (b - credit) ** 2 / 2) - site.ops.stop_gradient(b) * score

        return credited.control(control)


@dataclass(frozen=True)
class LeaveOneOut(Strategy):
    """The score function over n draws, each with the mean of the others as its baseline.

        d E_q[f(z)] = E[df(z_1) + 1/(n-1) sum_i (f(z_i) - mean_j f(z_j)) dlog q(z_i)]

    f(z_1) is run with all its gradients, f(z_2) .. f(z_n) in value only, so that nested sites cost a sum of runs. In a loop
    whose draws follow one another the z_i are draws of all rounds, and f of a round has the mean of the others' as baseline.

    **Arguments**

    - `n`: number of draws, at least 2.

    **Unbiased when** the support does not move with a parameter and E|f dlog q| is finite; f may be anything
    measurable. Cost: one run of the rest and n - 1 plain evaluations. Kool et al. 2019; Richter et al. 2020.
    """

    n: int = 2
    chained: ClassVar[Literal["draw", "draws", "chain"] | None] = "draws"

    def __post_init__(self) -> None:
        count("LeaveOneOut: n", self.n, 2, StrategyError)

    def draw(self, dist: Distribution, rng: Any) -> Draw:
        return self.around(dist, dist.samples(rng, self.n))

    def around(self, dist: Distribution, draws: Array) -> Draw:
        """These draws `(n, *lanes, *event)`, of which the first is the program's."""
        log_probs = dist.log_prob(draws)
        return Draw(draws[0], log_prob=log_probs[0], values=draws[1:], log_probs=log_probs[1:])

    def estimate(self, site: Site, k: Continuation) -> Terms:
        mean = (site.log_prob + site.log_probs.sum(0)) / self.n
        others = k.value_each(site.values).vary((site.log_probs - mean) / (self.n - 1)).total()
        return k(site.value).scale(phantom(site, site.log_prob - mean) / (self.n - 1)) + others

    def evaluations(self, alternatives: int, coupled: int) -> int:
        return alternatives
