"""Sequential tests of means: after every batch each mean is known to lie in an interval, however often one looks.

Three of them, by what is known of the draws D:

    Bounded      a <= D <= b                    level alpha, exactly; bets on every mean (Waudby-Smith and Ramdas 2024)
    Catoni       Var(D) <= v                    level alpha, exactly (Wang and Ramdas 2023)
    Asymptotic   finite variance, many draws    level alpha in the limit (Waudby-Smith et al. 2024)

Without a bound on something no test of a mean has both a level and power (Bahadur and Savage 1956), so that a level is
exact for the first two only. All hold at every time at once: a test may stop when it likes.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np

from ppvi._doors import number
from ppvi.errors import ProgramError

LOPSIDED = 0.3
"""The largest skewness of a mean of which its distribution is known well enough."""

Floats = Any
"""A NumPy array of double precision."""


class MeanTest(Protocol):
    """A sequential test of the means of `tests` sequences at once, each at its own level."""

    count: int
    """Draws of each sequence so far."""

    def add(self, draws: Floats) -> None:
        """Take further draws, `(draw, test)`."""
        ...

    def interval(self) -> tuple[Floats, Floats]:
        """Bounds between which each mean lies, `(test,)` each, at every time at once with probability 1 - alpha."""
        ...

    def mean(self) -> Floats: ...

    def variance(self) -> Floats: ...


class Moments:
    """Counts and moments of many sequences."""

    def __init__(self, tests: int):
        self.count = 0
        self.sums = np.zeros((3, tests))
        self.center = np.zeros(tests)

    def add(self, draws: Floats) -> None:
        if not self.count:
            self.center = draws.mean(0)
        shifted = draws - self.center
        self.sums += np.stack([(shifted**power).sum(0) for power in (1, 2, 3)])
        self.count += len(draws)

    def mean(self) -> Floats:
        return self.center + self.sums[0] / self.count

    def variance(self) -> Floats:
        first, second, _ = self.sums / self.count
        return np.maximum(second - first**2, 0.0)

    def skewness(self) -> Floats:
        first, second, third = self.sums / self.count
        spread = self.variance() ** 1.5
        central = third - 3 * first * second + 2 * first**3
        return np.divide(central, spread, out=np.zeros_like(central), where=spread > 0)


class Asymptotic(Moments):
    """Asymptotic confidence sequences, for draws of finite variance.

        mean +- sd sqrt(2 (n r + 1) / (n^2 r) log(sqrt(n r + 1) / alpha))

    where r makes it tightest at `tightest` draws. It is wider by the skewness k of a mean, that of the draws over sqrt(n): the
    quantile z of a t statistic is z + k (2 z^2 + 1) / 6 (its Cornish-Fisher expansion, Hall 1983). Where k is above `LOPSIDED`,
    as for less than a dozen events of many draws, no expansion holds and there is no interval.
    """

    def __init__(self, tests: int, alpha: float, *, tightest: int = 200_000, least: int = 1000):
        super().__init__(tests)
        self.alpha, self.least = alpha, least
        log = -2 * math.log(alpha)
        self.r = (log + math.log(log) + 1) / tightest

    def enough(self) -> Floats:
        """For each sequence whether there are draws enough for an interval."""
        return (self.count >= self.least) & (self.lopsided() <= LOPSIDED)

    def lopsided(self) -> Floats:
        """The skewness of each mean."""
        return np.abs(self.skewness()) / math.sqrt(self.count)

    def interval(self) -> tuple[Floats, Floats]:
        n, r = self.count, self.r
        width = math.sqrt(2 * (n * r + 1) / (n**2 * r) * math.log(math.sqrt(n * r + 1) / self.alpha))
        z = -NormalDist().inv_cdf(self.alpha / 2)
        width = width * np.sqrt(self.variance()) * (1 + self.lopsided() * (2 * z**2 + 1) / (6 * z))
        width = np.where(self.enough(), width, np.inf)
        return self.mean() - width, self.mean() + width


class OnGrid(Moments):
    """Evidence against each of a grid of means; the interval holds those that the evidence has not ruled out."""

    def __init__(self, tests: int, alpha: float, grid: Floats):
        super().__init__(tests)
        self.alpha, self.grid = alpha, np.asarray(grid, float)
        self.ruled_out = np.zeros((len(self.grid), tests), bool)

    def evidence(self, draws: Floats) -> Floats:
        """The log of the largest evidence against each mean while these draws come in, `(mean, test)`."""
        raise NotImplementedError

    def add(self, draws: Floats) -> None:
        super().add(draws)
        self.ruled_out |= self.evidence(draws) >= -math.log(self.alpha)

    def interval(self) -> tuple[Floats, Floats]:
        """Bounds a step of the grid wide at least, on either side."""
        left, right = np.full(self.ruled_out.shape[1], -np.inf), np.full(self.ruled_out.shape[1], np.inf)
        for test, out in enumerate(self.ruled_out.T):
            inside = np.flatnonzero(~out)
            first, last = (inside[0], inside[-1]) if len(inside) else (0, len(out) - 1)
            left[test] = self.grid[first - 1] if first else -np.inf
            right[test] = self.grid[last + 1] if last + 1 < len(out) else np.inf
        return left, right


class Bounded(OnGrid):
    """Bets against each mean m, for draws between known bounds.

        K_n = 1/2G sum_g [prod_i (1 + l_g (D_i - m)) + prod_i (1 - h_g (D_i - m))]

    over a grid of stakes l_g up to 0.9 / (m - a) and h_g up to 0.9 / (b - m), so that no bet loses all. Under mean m it is a
    martingale, and exceeds 1 / alpha at any time with probability at most alpha (Ville).
    """

    STAKES = 12

    def __init__(self, tests: int, alpha: float, low: float, high: float, grid: Floats):
        if number("bounds: the lower one", low) >= number("bounds: the upper one", high):
            raise ProgramError(f"bounds are (lower, upper), with a lower one below the upper one, not ({low}, {high}).")
        super().__init__(tests, alpha, [m for m in grid if low < m < high])
        fractions = np.geomspace(2e-3, 1.0, self.STAKES)[:, None] * 0.9
        self.low, self.high = low, high
        self.stakes = np.concatenate([fractions / (self.grid - low), -fractions / (high - self.grid)])
        self.capital = np.zeros((2 * self.STAKES, len(self.grid), tests))

    def evidence(self, draws: Floats) -> Floats:
        if draws.min() < self.low or draws.max() > self.high:
            raise ProgramError(
                f"bounds: draws from {draws.min():.4g} to {draws.max():.4g} are not all within {self.low} and {self.high}, so "
                f"the test has no level. Give bounds that hold, or none."
            )
        best = np.full(self.ruled_out.shape, -np.inf)
        for block in np.array_split(draws, max(1, len(draws) // 64)):
            gains = np.log1p(self.stakes[:, :, None, None] * (block.T[None, None] - self.grid[None, :, None, None]))
            path = self.capital[..., None] + np.cumsum(gains, -1)
            top = path.max(0)
            mixed = top + np.log(np.exp(path - top).sum(0) / len(self.stakes))
            best = np.maximum(best, mixed.max(-1))
            self.capital = path[..., -1]
        return best


class Catoni(OnGrid):
    """Catoni's supermartingales, for draws of variance at most v.

        M_n = prod_i exp(+-phi(l_i (D_i - m)) - l_i^2 v / 2),    phi(x) = sign(x) log(1 + |x| + x^2 / 2)

    with l_i = sqrt(2 log(2 / alpha) / (v i)); mean m is ruled out when either exceeds 2 / alpha. Skewness does not matter.
    """

    def __init__(self, tests: int, alpha: float, variance: float, grid: Floats):
        super().__init__(tests, alpha, grid)
        self.variance_bound = variance
        self.logs = np.zeros((2, len(self.grid), tests))

    def evidence(self, draws: Floats) -> Floats:
        v, best = self.variance_bound, np.full(self.ruled_out.shape, -np.inf)
        numbers = self.count - len(draws) + 1 + np.arange(len(draws))
        stakes = np.sqrt(2 * math.log(2 / self.alpha) / (v * numbers))
        for block, stake in zip(*(np.array_split(x, max(1, len(draws) // 256)) for x in (draws, stakes)), strict=True):
            x = stake * (block.T[None] - self.grid[:, None, None])
            phi = np.sign(x) * np.log1p(np.abs(x) + x**2 / 2)
            path = self.logs[..., None] + np.cumsum(np.stack([phi, -phi]) - stake**2 * v / 2, -1)
            best = np.maximum(best, path.max((0, -1)) - math.log(2))
            self.logs = path[..., -1]
        return best
