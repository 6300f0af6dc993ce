"""Small data for the models of `models.discrete`: drawn by NumPy from a fixed seed, but for the disasters."""

import numpy as np

RNG = np.random.default_rng(20)

POINTS = np.concatenate([RNG.normal(mean, 0.8, n) for mean, n in ((-4.0, 12), (0.5, 9), (4.5, 15))])


def _paths(transition, loc, lengths, steps):
    """Sequences of a hidden Markov chain that starts in state 0, zero beyond their lengths."""
    found = np.zeros((len(lengths), steps))
    for row, length in zip(found, lengths, strict=True):
        state = 0
        for t in range(length):
            state = RNG.choice(len(loc), p=transition[state])
            row[t] = RNG.normal(loc[state], 0.7)
    return found


LENGTHS = np.array([12, 9, 12, 5])
SEQUENCES = _paths(np.array([[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7]]), [-2.0, 0.0, 2.0], LENGTHS, 12)

POSITIONS = np.array([0, 0, 1, 2, 3])
"""The annotator at each position: the first one labels every item twice."""
ITEMS = RNG.choice(3, 24, p=[0.5, 0.3, 0.2])
ANNOTATIONS = np.where(RNG.random((24, 5)) < 0.75, ITEMS[:, None], RNG.integers(0, 3, (24, 5)))

WORDS = np.stack([RNG.choice(12, 16, p=RNG.dirichlet(np.full(12, 0.3))) for _ in range(8)], -1)
"""Numbers of words, `(words of a document, documents)`."""


def _histories(animals, years, survival, recapture):
    """Who was caught when, `(animals, years)`, of animals that are caught and marked in one of the first years."""
    first = RNG.integers(0, years - 1, animals)
    caught = np.zeros((animals, years), int)
    for row, start in zip(caught, first, strict=True):
        row[start] = 1
        alive_until = start + RNG.geometric(1 - survival)
        row[start + 1 :] = (np.arange(start + 1, years) < alive_until) & (RNG.random(years - start - 1) < recapture)
    return caught


CAPTURES = _histories(40, 7, 0.7, 0.6)

DISASTERS = np.array(
    [int(digit) for digit in "4541043406334026335453144155342522342132211113001011003103220"]
    + [int(digit) for digit in "111010100021000110233112111124200014000100000100101"]
)
"""Explosions in British coal mines that killed ten or more, by year, 1851 to 1962 (Jarrett, Biometrika 66, 1979)."""

HOURS = RNG.normal(size=60)
CATCHES = np.where(RNG.random(60) < 1 / (1 + np.exp(-0.5 - HOURS)), RNG.poisson(np.exp(1.0 + 0.4 * HOURS)), 0)
"""Fish that a party brought home, by its standardised hours at the lake."""
