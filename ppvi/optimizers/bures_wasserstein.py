"""Forward-backward steps in the Bures-Wasserstein space: gradient descent of a potential, then the entropy's exact step.

The bound of a Gaussian q = N(m, L L') is minus an energy, E_q[V], plus an entropy, which is not smooth: its gradient grows
without bound as the covariance shrinks. The energy takes a gradient step, the entropy a proximal one, both in the
Wasserstein metric, where Gaussians move as what transports their mass:

    m <- m - h E[V'],   S = M L L' M with M = I - h E[V''],   L L' <- (S + 2 h I + (S (S + 4 h I))^(1/2)) / 2

Diao, Balasubramanian, Chewi and Salim 2023, algorithm 1. With the singular values s of M L, the second step is

    s <- (s + (s^2 + 4 h)^(1/2)) / 2,  the proximal map of -h log s,

so that no number is squared: S has the left singular vectors of M L, and eigenvalues s^2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ppvi._doors import number
from ppvi._ops import Array
from ppvi.optimizers.algebra import Algebra
from ppvi.optimizers.base import Arguments, Block, Geometric
from ppvi.optimizers.gaussians import whitened

GAUSSIANS: Mapping[str, tuple[str, ...]] = {"Normal": ("loc", "scale"), "MultivariateNormal": ("loc", "scale_tril")}
"""Families, and the arguments by which they are moved."""

Schedule = Callable[[Any], Any]
"""From the number of steps that were taken, an integer array, to the size of the next."""


@dataclass(frozen=True)
class BuresWasserstein(Geometric):
    """Forward-backward steps of Gaussian sites in the Bures-Wasserstein space (Diao, Balasubramanian, Chewi and Salim 2023).

        fit(bound, key, x, optimizer=ppvi.optimizers.BuresWasserstein(0.01))

    Of q = N(m, L L') the objective is E_q[-V] plus the entropy of q, and a step of size h is

        m <- m - h E_q[V'],   S = (I - h E_q[V'']) L L' (I - h E_q[V'']),   L L' <- (S + 2 h I + (S (S + 4 h I))^(1/2)) / 2

    The gradient in L tells E_q[V''] without second derivatives (Price 1958): of the slope G = diag(1 / L_ii) -
    tril(E_q[V''] L), L' E_q[V''] L = I - B, where B is symmetric with the lower triangle of L' G. Of a `Normal` site the step
    is taken number by number, which is the step of `Proximal` there.

    Where V is a-strongly convex and b-smooth, and gradients are exact, a step of h <= 1 / b takes the squared Wasserstein
    distance from the best Gaussian to at most 1 - a h of what it was; where V is convex, the bound is within O(1 / n) of its
    top after n steps. Gradients that are estimates leave noise of the order of h, which a step size that falls, `averaging=`
    of `fit`, or the objective `stl` takes down. The metric is that of the site's values: b / a is what it costs.

    **Arguments**

    - `step_size`: h, in squared units of the site's values; or a function from the number of steps taken to it, such as
      `lambda step: 0.1 / (1 + step / 100)` and, on JAX, a schedule of optax. A step is shortened to one over the largest
      curvature, of either sign, that its own gradient tells, beyond which I - h E_q[V''] would fold space, or stretch it to
      more than twice its length.
    - `rest`: what moves all other parameters, as `optimizer=` of `fit`; Adam by default.

    **Right where** the objective is an evidence lower bound, such as `elbo` or `stl`, in which q's entropy has weight one.
    """

    step_size: float | Schedule = 0.01
    rest: Any = None

    families: ClassVar[Mapping[str, tuple[str, ...]]] = GAUSSIANS
    how: ClassVar[str] = "by forward-backward steps in the Wasserstein metric"

    def __post_init__(self) -> None:
        refuse_step_size("BuresWasserstein", self.step_size)

    def update(
        self, block: Block, at: Arguments, slope: Arguments, memory: Any, step: Array, algebra: Algebra
    ) -> tuple[Arguments, Any]:
        moved = of_numbers if block.family == "Normal" else of_vectors
        return moved(at, slope, size_at(self.step_size, step), algebra), memory


def of_numbers(at: Arguments, slope: Arguments, step_size: Any, algebra: Algebra) -> Arguments:
    """A step of independent normal numbers."""
    scale = at["scale"]
    curved = 1 / scale - slope["scale"]  # E[V''] scale
    rate = shortened(step_size, algebra.maximum(curved, -curved) / scale, algebra)
    return {"loc": at["loc"] + rate * slope["loc"], "scale": proximal(scale - rate * curved, rate, algebra)}


def of_vectors(at: Arguments, slope: Arguments, step_size: Any, algebra: Algebra) -> Arguments:
    """A step of normal vectors."""
    factor = at["scale_tril"]
    one = algebra.eye(factor.shape[-1], factor)
    curved = algebra.solve_upper(factor, one - whitened(at, slope, algebra))  # E[V''] L
    curvature = algebra.solve_upper(factor, algebra.transpose(curved))
    values = algebra.eigenvalues((curvature + algebra.transpose(curvature)) / 2)
    rate = shortened(step_size, algebra.maximum(values[..., -1], -values[..., 0]), algebra)[..., None]
    left, lengths = algebra.singular(factor - rate[..., None] * curved)
    roots = left * proximal(lengths, rate, algebra)[..., None, :]
    return {"loc": at["loc"] + rate * slope["loc"], "scale_tril": algebra.triangular(roots)}


def shortened(step_size: Any, curvature: Array, algebra: Algebra) -> Array:
    """Step sizes of at most one over the curvature."""
    return step_size / algebra.maximum(step_size * curvature, 1.0)


def proximal(x: Array, step_size: Any, algebra: Algebra) -> Array:
    """argmin_s (s - x)^2 / 2 - step_size log s, of the positive numbers: (x + (x^2 + 4 step_size)^(1/2)) / 2.

    Of negative x by the other form of the root, in which nothing cancels.
    """
    root = algebra.sqrt(x**2 + 4 * step_size)
    positive = x > 0
    return algebra.where(positive, (x + root) / 2, 2 * step_size / (root - algebra.where(positive, -root, x)))


def refuse_step_size(optimizer: str, step_size: Any) -> None:
    if not callable(step_size):
        number(f"{optimizer}: step_size", step_size, above=0)


def size_at(step_size: float | Schedule, step: Array) -> Any:
    return step_size(step) if callable(step_size) else step_size
