"""Forward KL divergences, and the schemes that alternate between objectives for the model and for the guide.

An alternating scheme is a list of pairs for `fit`: an objective program, and whose parameters it moves, those of the
`"model"` or of the `"guide"`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ppvi._doors import count, function
from ppvi._ops import Array
from ppvi.inference import normalize
from ppvi.objectives.families import Objective, family
from ppvi.objectives.multi_sample import iwelbo
from ppvi.objectives.weights import normalized, refuse_estimated, refuse_points
from ppvi.program import (
    Plates,
    Program,
    Trace,
    minimized,
    moves,
    replicate,
    stop_gradient,
    total,
    without_potential,
)

Alternating = list[tuple[Objective, str]]
"""Objectives, and whose parameters each moves."""


@family
def forward_kl(arguments: Callable[[Trace], tuple[Any, ...]]) -> Objective:
    """Forward KL divergence by simulating the model, to be minimised: the sleep phase of wake-sleep.

        E_{(x, z) ~ p} [-log q(z; x)]  =  E_{x ~ p} [KL(p(z | x) || q(z; x))] + constant in q

    **Arguments**

    - `arguments`: takes a run of the model, its observed sites drawn too, to the guide's arguments for that data, such as
      `lambda t: (t["x"],)`.

    **Unbiased when** the guide's support covers the model's. The model's parameters are held constant.
    Hinton et al. 1995; as amortised inference, Le, Baydin and Wood 2017.
    """

    function("forward_kl: the arguments", arguments, "It takes a run of the model, as in lambda t: (t['x'],).")

    def divergence(p: Program, q: Program) -> Array:
        dream = p.simulate(observe=False, stop_params="the model is held constant")
        return -q.bind(*arguments(dream)).log_density(dream)

    return moves("guide")(minimized(divergence))


@family
def wake_phase_q(particles: int, *, per: Plates | None = None) -> Objective:
    """Forward KL divergence by sampling-importance-resampling, to be minimised: the wake-phase update of the guide.

        E [-sum_k v_k log q(z_k)],    z_k ~ stop(q),    v_k = w_k / sum_j w_j

    **Arguments**

    - `particles`: K, at least 1.
    - `per`: plates over which everything is independent.

    **Biased** for KL(p(z | x) || q) by O(1/K), because the weights are self-normalised; unbiased for the quantity
    above, where draws and weights are held constant. Bornschein and Bengio 2015; Le et al. 2019.
    """

    count("wake_phase_q: the number of particles", particles)

    def divergence(p: Program, q: Program) -> Array:
        z = normalize(p, q, particles, per=per).simulate(stop_params="draws and weights are held constant")
        return -q.log_density(z)

    return without_potential("the wake phase holds its draws and weights constant")(minimized(divergence))


@family
def forward_chi_square(particles: int, *, per: Plates | None = None) -> Objective:
    """Forward chi-square divergence by the squares of importance weights, to be minimised.

        E [-1/2 sum_k v_k log q(z_k)],    z_k ~ stop(q),    v_k = w_k^2 / sum_j w_j^2

    Its gradient is that of 1/2 log E_{z ~ q} [w^2], whose minimum is the proposal by which log p(x) has the least variance,
    self-normalised. `cubo` has the value itself; of few draws that is least where the guide misses the posterior, since the
    weights there are all small, and a guide that follows its paths gets lost.

    **Arguments**

    - `particles`: K, at least 1.
    - `per`: plates over which everything is independent.

    **Raises** `ProgramError` for a guide whose density is estimated, and for a guide of points.

    **Biased** for the divergence by O(1/K), because the weights are self-normalised; unbiased for the quantity above, where
    draws and weights are held constant, so that no strategy matters. Li et al. 2024.
    """

    count("forward_chi_square: the number of particles", particles)

    def divergence(p: Program, q: Program) -> Array:
        def densities() -> tuple[Array, Array]:
            z = q.simulate(stop_params="draws and weights are held constant")
            refuse_estimated("forward_chi_square", z, q)
            refuse_points("forward_chi_square", z)
            return p.log_density(z, per=per), q.log_density(z, per=per)

        log_p, log_q = replicate(particles, densities)
        log_w = stop_gradient(log_p - log_q, because="draws and weights are held constant")
        return -total((normalized(2 * log_w) * log_q).sum(0), per) / 2

    return without_potential("the forward chi-square holds its draws and weights constant")(minimized(divergence))


@family
def wake_phase_p(particles: int, *, per: Plates | None = None) -> Objective:
    """The importance-weighted ELBO, to be maximised in the model's parameters: the wake-phase update of the model.

        E [log 1/K sum_k w_k],    gradient in theta  E [sum_k v_k d log p(x, z_k)]

    **Unbiased when** every strategy is; see `iwelbo`. Bornschein and Bengio 2015; Le et al. 2019.
    """
    return iwelbo(particles, per=per)


def reweighted_wake_sleep(particles: int, *, per: Plates | None = None) -> Alternating:
    """Reweighted wake-sleep, for `fit`: `wake_phase_p` moves the model, `wake_phase_q` the guide.

    Discrete sites need no score function here, because the guide's draws are never differentiated.
    Bornschein and Bengio 2015; Le et al. 2019.
    """
    return [(wake_phase_p(particles, per=per), "model"), (wake_phase_q(particles, per=per), "guide")]


def variational_importance_sampling(particles: int, *, per: Plates | None = None) -> Alternating:
    """Variational importance sampling, for `fit`: log p(x) by importance sampling moves the model, the forward
    chi-square divergence the guide, whose minimum is the proposal of least variance.

        model    maximise E [log 1/K sum_k w_k]           guide    by `forward_chi_square`

    Discrete sites need no score function here, because the guide's draws are never differentiated.

    **Biased** in the guide's part, O(1/K). Li et al. 2024.
    """
    return [(iwelbo(particles, per=per), "model"), (forward_chi_square(particles, per=per), "guide")]
