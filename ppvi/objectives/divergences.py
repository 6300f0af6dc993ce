"""Divergences other than the reverse KL, as expectations of a function of the importance weight."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from ppvi._doors import count, described, number, one_of
from ppvi._ops import Array
from ppvi.errors import ProgramError
from ppvi.objectives.families import Objective, family
from ppvi.objectives.weights import log_weight, log_weights, normalized, refuse_estimated, refuse_points
from ppvi.program import (
    Plates,
    Program,
    logmeanexp,
    minimized,
    replicate,
    session,
    total,
    without_potential,
)


def _exp(x: Array) -> Array:
    return session().ops.exp(x)


def _jensen_shannon(log_w: Array) -> Array:
    log_mean = session().ops.logaddexp(log_w, 0.0) - math.log(2)
    return (_exp(log_w) * (log_w - log_mean) - log_mean) / 2


DIVERGENCES: dict[str, Callable[[Array], Array]] = {
    "reverse-kl": lambda log_w: -log_w,
    "forward-kl": lambda log_w: _exp(log_w) * log_w,
    "total-variation": lambda log_w: abs(_exp(log_w) - 1) / 2,
    "jensen-shannon": _jensen_shannon,
    "hellinger": lambda log_w: 1 - _exp(log_w / 2),
    "chi-square": lambda log_w: (_exp(log_w) - 1) ** 2,
}
"""f as a function of log w, by name."""


@family
def f_divergence(name: str, *, log_evidence: float = 0.0) -> Objective:
    """An f-divergence of the posterior from the guide, to be minimised.

        E_{z ~ q} [f(w)],    w = p(x, z) / (p(x) q(z))

        reverse-kl         -log w                              KL(q || p)
        forward-kl         w log w                             KL(p || q)
        total-variation    |w - 1| / 2
        jensen-shannon     (w log w - (1 + w) log((1 + w) / 2)) / 2
        hellinger          1 - sqrt(w)                         squared Hellinger distance
        chi-square         (w - 1)^2

    **Arguments**

    - `name`: one of the above.
    - `log_evidence`: log p(x). Where it is not known, a guess scales the weights; the gradient is then the divergence's
      own up to a factor, except for `total-variation` and `jensen-shannon`, whose minimum moves with the guess.

    **Raises** `ProgramError` for an unknown name.

    **Unbiased when** every strategy is and the weights have finite variance, which a guide with heavier tails than the
    posterior ensures. Ali and Silvey 1966; Csiszar 1967; for the gradients, Wan, Li and Hovakimyan 2020.
    """
    one_of("f_divergence: the name", name, DIVERGENCES)
    number("f_divergence: log_evidence", log_evidence)

    def divergence(p: Program, q: Program) -> Array:
        return DIVERGENCES[name](log_weight(p, q) - log_evidence)

    return minimized(divergence)


@family
def alpha_divergence(alpha: float, *, log_evidence: float = 0.0) -> Objective:
    """Amari's alpha-divergence of the posterior from the guide, to be minimised.

        E_{z ~ q} [(w^alpha - 1) / (alpha (alpha - 1))],    w = p(x, z) / (p(x) q(z))

    **Arguments**

    - `alpha`: order, any real but 0 and 1, where it tends to KL(q || p) and KL(p || q): use `elbo`, `forward_kl`.
    - `log_evidence`: log p(x), or a guess, which scales the gradient and does not move the minimum.

    **Unbiased when** every strategy is and w^alpha has finite variance. Hernandez-Lobato et al. 2016.
    """
    number("alpha_divergence: alpha", alpha)
    number("alpha_divergence: log_evidence", log_evidence)
    if alpha in (0, 1):
        raise ProgramError(
            f"alpha_divergence: order {alpha} is a KL divergence; use f_divergence('reverse-kl' or 'forward-kl')."
        )

    def divergence(p: Program, q: Program) -> Array:
        return (_exp(alpha * (log_weight(p, q) - log_evidence)) - 1) / (alpha * (alpha - 1))

    return minimized(divergence)


@family
def chi_square(order: float = 2.0, *, log_scale: float = 0.0) -> Objective:
    """Moments of the weight, to be minimised: exp(n CUBO_n), an upper bound of p(x)^n.

        E_{z ~ q} [(w / e^c)^n],    w = p(x, z) / q(z)

    **Arguments**

    - `order`: n > 1.
    - `log_scale`: c, a constant that keeps the weights in range, such as a guess of log p(x).

    **Unbiased when** every strategy is and w^n has finite variance, which needs a guide with heavier tails than the
    posterior; its logarithm is `cubo`, whose estimate is biased. Dieng et al. 2017.
    """
    number("chi_square: the order", order, above=1)
    number("chi_square: log_scale", log_scale)

    def moment(p: Program, q: Program) -> Array:
        return _exp(order * (log_weight(p, q) - log_scale))

    return minimized(moment)


@family
def cubo(particles: int, order: float = 2.0, *, per: Plates | None = None) -> Objective:
    """Chi-square upper bound on the log scale by K draws, to be minimised.

        1/n E_{z_1..z_K ~ q} [log 1/K sum_k w_k^n],    w_k = p(x, z_k) / q(z_k)

    **Arguments**

    - `particles`: K, at least 1.
    - `order`: n > 1.
    - `per`: plates over which everything is independent, as for `iwelbo`.

    **Unbiased** for the quantity above, and **biased for CUBO_n** = 1/n log E[w^n], which it underestimates by
    O(1/K): with few particles or heavy weights it is no upper bound of log p(x). `chi_square` is the unbiased one.
    Dieng et al. 2017.
    """
    count("cubo: the number of particles", particles)
    number("cubo: the order", order, above=1)

    def bound(p: Program, q: Program) -> Array:
        return total(logmeanexp(order * log_weights(p, q, particles, per)), per) / order

    return minimized(bound)


@family
def log_variance(particles: int) -> Objective:
    """Half the variance of the log weight, to be minimised in the guide's parameters (VarGrad).

        1/2 Var_{z ~ stop(q)} [log q(z) - log p(x, z)],    from K draws

    Zero exactly at the posterior, whatever log p(x) is; its gradient in the guide's parameters is that of
    KL(q || p(z | x)), while in the model's it is its own. The draws are not differentiated, so a guide of any kind will
    do, and no strategy matters.

    **Arguments**

    - `particles`: K, at least 2.

    **Raises** `ProgramError` for a guide whose density is estimated, for the noise of an estimate adds to the variance, and
    for a guide of points, such as AutoDelta, whose density has no gradient.

    **Unbiased** always: the sample variance for its value, its gradient in the guide for that of the reverse KL divergence.
    Richter et al. 2020.
    """
    count("log_variance: the number of particles", particles, least=2)

    def divergence(p: Program, q: Program) -> Array:
        def ratio() -> Array:
            z = q.simulate(stop_params="the gradient is that of KL(q || p) at the draws (Richter et al. 2020)")
            refuse_estimated("log_variance", z, q)
            refuse_points("log_variance", z)
            return q.log_density(z) - p.log_density(z)

        f = replicate(particles, ratio)
        return ((f - f.mean()) ** 2).sum() / (2 * (particles - 1))

    return without_potential("the value is a variance, the gradient that of KL(q || p)")(minimized(divergence))


@family
def thermodynamic(betas: list[float] | tuple[float, ...], particles: int, *, per: Plates | None = None) -> Objective:
    """Thermodynamic variational objective by K draws, to be maximised.

        sum_t (beta_{t+1} - beta_t) sum_k v_tk log w_k,    v_tk = w_k^beta_t / sum_j w_j^beta_t

    The left Riemann sum of log p(x) = int_0^1 E_{pi_beta}[log w] d beta, pi_beta between the guide and the posterior.

    **Arguments**

    - `betas`: 0 = beta_0 < beta_1 < ... < beta_T < 1, where each interval starts. `[0]` alone is the ELBO.
    - `particles`: K, at least 1, shared by all intervals.
    - `per`: plates over which everything is independent, as for `iwelbo`.

    **Unbiased** for the quantity above when every strategy is, and **biased for the objective** at K -> infinity by
    O(1/K), because the weights are self-normalised. Masrani, Le and Wood 2019.
    """
    count("thermodynamic: the number of particles", particles)
    if not hasattr(betas, "__iter__"):
        raise ProgramError(f"thermodynamic: betas must be a list, such as [0, 0.25, 0.5], not {described(betas)}.")
    points = [*(number("thermodynamic: each of betas", beta) for beta in betas), 1.0]
    if points[0] != 0 or any(not a < b for a, b in itertools.pairwise(points)):
        raise ProgramError(f"thermodynamic: betas must rise from 0 to below 1, not {list(betas)}.")

    def bound(p: Program, q: Program) -> Array:
        log_w = log_weights(p, q, particles, per)

        def mean(beta: float) -> Array:
            return (normalized(beta * log_w) * log_w).sum(0)

        return total(sum((b - a) * mean(a) for a, b in itertools.pairwise(points)), per)

    return bound
