r"""IVON: Newton's method that learns a Gaussian over weights, `q = N(m, 1 / s)` entry by entry.

What is descended is an objective with the entropy in it, such as minus an ELBO, `F(m, s) = E_q[U(theta)] - H(q)`, where `U`
is minus the log density of data and weights together. Of a draw `theta = m + eps / sqrt(s)` one gradient gives two numbers,

    g = dF/dm                                         an estimate of E_q[grad U]
    d = sqrt(s) dF/dscale = sqrt(s) eps grad U - s    an estimate of E_q[hess U] - s, by Price's theorem

and a step is

    gbar <- beta1 gbar + (1 - beta1) (g - P m)
    s    <- s + rho d + (rho d)^2 / (2 s),     rho = 1 - beta2
    m    <- m - alpha_t (gbar / (1 - beta1^t) + P m) / s

It rests where E_q[grad U] = 0 and s = E_q[hess U]: at the best Gaussian, and at the posterior where that is one. The square
in the second line keeps s positive, whatever d is: 1 + x + x^2 / 2 is at least 1/2 (Lin, Schmidt and Khan 2020).

In the paper's letters, of a mean loss over lambda data with weight decay delta, s = lambda (h + delta), P = lambda delta,
g - P m = lambda ghat and d = lambda (hhat - h): these lines are its Algorithm 1, times lambda. The number of data and the
prior are in the objective, so that a rule for its gradient has no need of them.

Shen et al. 2024; before them VON and Vprop, Khan et al. 2018, and CVI, Khan and Lin 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from ppvi._doors import number
from ppvi._ops import Array
from ppvi.optimizers.algebra import Algebra
from ppvi.optimizers.base import Arguments, Block, Geometric

Rate = float | Callable[[Any], Any]
"""A step size, or what gives it after so many steps, such as, on JAX, a schedule of optax."""


class Newton(NamedTuple):
    """What IVON remembers of some weights, all of their shape."""

    mean: Array
    precision: Array
    momentum: Array
    """Averages of gradients, biased to zero."""


def stepped(
    at: Newton,
    gradient: Array,
    drift: Array,
    step: Array,
    *,
    rate: Array,
    beta1: float,
    beta2: float,
    prior: float = 0.0,
    clip: float | None = None,
) -> Newton:
    """One step of IVON.

    **Arguments**

    - `gradient`: of what is descended, in the mean.
    - `drift`: an estimate of its mean curvature less the precision: the gradient in the scale, over the scale.
    - `step`: how many steps this makes, from 1.
    - `rate`: alpha; at 1 and without momentum the step in the mean is Newton's.
    - `prior`: precision P of a Gaussian prior around zero, whose part of the gradient is not averaged.
    - `clip`: the largest entry of Newton's step that is taken.
    """
    momentum = beta1 * at.momentum + (1 - beta1) * (gradient - prior * at.mean)
    precision = positive(at.precision, (1 - beta2) * drift)
    direction = (momentum / (1 - beta1**step) + prior * at.mean) / precision
    if clip is not None:
        direction = direction.clip(-clip, clip)
    return Newton(at.mean - rate * direction, precision, momentum)


def positive(precision: Array, change: Array) -> Array:
    """`s + c + c^2 / (2 s)`, which is at least half of what it was, and never less than s + c."""
    return precision + change + 0.5 * change**2 / precision


@dataclass(frozen=True)
class IVON(Geometric):
    """Improved variational online Newton (Shen et al. 2024) for the guide's Normal sites, such as the weights of a network.

    A step in a site's loc is Newton's, by the site's own precision s = 1 / scale^2, which is an average of Hessians at its
    draws. These are told by the gradient in the scale, so that a step costs one draw and one gradient, as Adam's does:

        d = gradient_scale / scale
        s <- s + rho d + (rho d)^2 / (2 s),    rho = 1 - beta2
        m <- m - learning_rate average(gradient_loc) / s

    with gradients of what is descended, such as minus an ELBO, and an average that is corrected for its beginning. Prior and
    entropy are in these gradients; precisions stay positive.

    With `ppvi.objectives.analytic_elbo`, which has the prior in closed form, and `prior_precision=` it is the paper's
    Algorithm 1: lambda is the number of data, delta the prior's precision over lambda, h0 + delta is 1 / (lambda scale^2) by
    the scale that the guide begins with, and where the paper multiplies a rate alpha by h0 + delta,
    `learning_rate=alpha / (lambda scale^2)`.

    **Arguments**

    - `learning_rate`: of means, 1 for Newton's step; a number, or a function of the steps before, such as, on JAX, those of
      optax.
    - `beta1`: what the average of gradients keeps of itself at a step.
    - `beta2`: the same of the average of Hessians, which remembers some 1 / (1 - beta2) steps.
    - `prior_precision`: of a prior N(0, 1 / prior_precision) of all the sites: its part of the gradient, prior_precision m, is
      left out of the average and is that at m now, as decoupled weight decay is. The objective has it in any case: 0 will do.
    - `clip`: entries of Newton's step, before the rate, are cut off here, for heavy-tailed gradients; in the weights' units.
    - `rest`: what moves parameters that are no Normal site's own; as `optimizer=` of `fit`, which is Adam by default.

    Gradients may be of any strategy that is unbiased, for they are all it sees; in a network pathwise ones (`Reparam`) have
    by far the least noise.
    """

    learning_rate: Rate = 0.1
    beta1: float = 0.9
    beta2: float = 0.999
    prior_precision: float = 0.0
    clip: float | None = None
    rest: Any = None

    how: ClassVar[str] = "by Newton steps, with precisions that are averages of Hessians"

    def __post_init__(self) -> None:
        if not callable(self.learning_rate):
            number("IVON: learning_rate", self.learning_rate, above=0)
        for name in ("beta1", "beta2"):
            number(f"IVON: {name}", getattr(self, name), least=0, below=1)
        number("IVON: prior_precision", self.prior_precision, least=0)
        if self.clip is not None:
            number("IVON: clip", self.clip, above=0)

    def init(self, block: Block, at: Arguments, algebra: Algebra) -> Array:
        return algebra.zeros_like(at["loc"])

    def update(
        self, block: Block, at: Arguments, slope: Arguments, memory: Any, step: Array, algebra: Algebra
    ) -> tuple[Arguments, Any]:
        before = Newton(at["loc"], at["scale"] ** -2, memory)
        after = self.stepped(before, -slope["loc"], -slope["scale"] / at["scale"], step)
        return {"loc": after.mean, "scale": after.precision**-0.5}, after.momentum

    def stepped(self, at: Newton, gradient: Array, drift: Array, step: Array) -> Newton:
        """After so many steps, the next one; see `stepped` of this module."""
        rate = self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
        averages = {"beta1": self.beta1, "beta2": self.beta2}
        return stepped(at, gradient, drift, step + 1, rate=rate, prior=self.prior_precision, clip=self.clip, **averages)

    def after(self, at: Newton, gradient: Array, draw: Array, step: Array) -> Newton:
        """The step from the gradient of minus a log likelihood at a draw; the prior's part is exact."""
        hessian = gradient * (draw - at.mean) * at.precision
        drift = hessian + self.prior_precision - at.precision
        return self.stepped(at, gradient + self.prior_precision * at.mean, drift, step)
