"""Bounds from sequential Monte Carlo and annealed importance sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ppvi._doors import function, number
from ppvi._ops import Array
from ppvi.inference import Posterior, normalize, tempered
from ppvi.objectives.families import Objective, family
from ppvi.program import Program


@family
def fivo(sampler: Callable[[Program, Program], Posterior]) -> Objective:
    """The bound of a sequential Monte Carlo sampler, to be maximised (filtering variational objective).

        E [log prod_t 1/K sum_k w_tk]  <=  log p(x)

    **Arguments**

    - `sampler`: takes the model and the guide to a posterior by `normalize`, such as
      `lambda p, q: normalize([p.bind(y[:1]), p.bind(y[:2])], [first, second], particles=8)`.

    **Unbiased when** every strategy is, those of the resampled ancestors (site `ancestor`) included; leaving their score
    out, as is common, is biased. Maddison et al. 2017; Naesseth et al. 2018; Le et al. 2018.
    """

    function("fivo: the sampler", sampler)

    def bound(p: Program, q: Program) -> Array:
        return sampler(p, q).log_evidence()

    return bound


@family
def annealed(
    betas: Sequence[float],
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    *,
    particles: int = 1,
    resample: bool = False,
) -> Objective:
    """The bound of annealed importance sampling from the guide to the posterior, to be maximised.

        E [log 1/K sum_k prod_t p_t(z_t) b(z_{t-1} | z_t) / (p_{t-1}(z_{t-1}) f(z_t | z_{t-1}))],
        log p_t = beta_t log p(x, z) + (1 - beta_t) log q(z)

    **Arguments**

    - `betas`: 0 < beta_1 < ... < beta_T, the last of them 1: one move for each.
    - `forward`, `backward`: kernels, programs of the framework that are called with the choices so far and draw the same
      sites again; they may have parameters, or be steps of a Langevin diffusion.
    - `particles`, `resample`: as for `normalize`.

    **Unbiased when** every strategy is, kernels included, which are densities and need no Metropolis correction.
    Neal 2001; Wu, Köhler and Noé 2020; Geffner and Domke 2021; Zhang et al. 2021.
    """

    function("annealed: the forward kernel", forward)
    function("annealed: the backward kernel", backward)
    for beta in betas:
        number("annealed: each of betas", beta, above=0, most=1)

    def bound(p: Program, q: Program) -> Array:
        targets = [q, *(tempered(p, q, beta) for beta in betas)]
        kernels, backwards = [q, *[forward] * len(betas)], [None, *[backward] * len(betas)]
        return normalize(targets, kernels, particles, backward=backwards, resample=resample).log_evidence()

    return bound
