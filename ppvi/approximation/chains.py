"""Short Markov chains, side by side, from draws of an approximation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ppvi.approximation.modes import Each
from ppvi.approximation.scales import pulled, stretched

ACCEPTED = 0.8
"""The share of proposals that step sizes are chosen for; Beskos et al. 2013 have 0.65 as the least costly."""

LONGEST = 16
"""Steps of one trajectory, at most."""


@dataclass(frozen=True)
class Chains:
    """Where chains have been after each trajectory.

    **Attributes**

    - `states`: `(round, chain, dimension)`, those of `warmup` left out.
    - `accepted`: the mean probability of acceptance over these rounds.
    """

    states: np.ndarray
    accepted: float


def chained(
    each: Each, start: np.ndarray, scale: np.ndarray, rng: np.random.Generator, rounds: int = 40, warmup: int = 15
) -> Chains:
    """Hamiltonian Monte Carlo from every starting point, with one step size for all, chosen in the first rounds.

    Momenta are standard normal in coordinates u with x = S u, in which an approximation with covariance S S' has a unit scale;
    a trajectory is a quarter of the period that a normal distribution has there, give or take 40%. Chains leave a target as it
    is: what begins as draws from it stays so, and what does not moves towards it. Duane et al. 1987; Neal 2011.

    **Arguments**

    - `scale`: S, `(dimension, dimension)`, or its diagonal, `(dimension,)`.
    """
    at, (value, slope) = start, each(start)
    step, kept, chances = 0.5 * start.shape[1] ** -0.25, [], []
    for i in range(warmup + rounds):
        length = math.pi / 2 * rng.uniform(0.6, 1.4)
        steps = min(max(round(length / step), 1), LONGEST)
        first = rng.standard_normal(at.shape)
        with np.errstate(all="ignore"):
            to, speed, there = at, first + step / 2 * pulled(scale, slope), (value, slope)
            for left in reversed(range(steps)):
                to = to + step * stretched(scale, speed)
                there = each(to)
                speed = speed + (step if left else step / 2) * pulled(scale, there[1])
            gain = there[0] - (speed**2).sum(1) / 2 - value + (first**2).sum(1) / 2
            chance = np.nan_to_num(np.exp(np.minimum(gain, 0)), nan=0.0)
        taken = rng.random(len(at)) < chance
        at = np.where(taken[:, None], to, at)
        value, slope = np.where(taken, there[0], value), np.where(taken[:, None], there[1], slope)
        if i < warmup:
            step *= math.exp(2 * (chance.mean() - ACCEPTED)) if chance.mean() > 0.2 else 0.2
        else:
            kept.append(at)
            chances.append(chance.mean())
    return Chains(np.array(kept), float(np.mean(chances)))
