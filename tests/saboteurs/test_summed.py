"""Planted bugs of sums over finite sites: each must make a law fail."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from ppvi.compiler import elimination, summing
from ppvi.compiler.factors import Factors
from tests.laws.random_summed import Group, Parent, Site, Summed
from tests.laws.test_random_summed import law

PARAMS = {
    "a": np.array([0.5, -0.3, 0.9, 0.1, 0.5, -0.8, 0.1]), "table": np.array([0.8, -1.1, 0.2]), "zero": np.array(0.4),
    "draw x": np.array(0.4), "draw y": np.array([0.3, -0.5]),
}  # fmt: skip


def model(family, size, move="same", scale=1.0):
    """A site in a plate and its observations."""
    latent = Site(family, (0,), (), (0.5, 0.0))
    seen = Site("Normal", (0,), (Parent(0, "number", 1.2, move),), (0.0, 0.3), seen="all")
    return Summed((Group((size,), (latent, seen), scale),), "density", PARAMS)


ROWS = model("Categorical logits", 3, scale=3.0)


def caught(engine, summed, planted):
    law(engine, summed)
    with planted, pytest.raises(AssertionError):
        law(engine, summed)


def test_a_sum_over_a_plate_in_place_of_a_product(engine):
    eliminate = summing.eliminate

    def added(ops, factors, work):
        found = eliminate(ops, factors, work)
        return [replace(factor, array=ops.logsumexp(factor.array, 0), axes=factor.axes[1:]) for factor in found]

    caught(engine, ROWS, mock.patch.object(summing, "eliminate", added))


def test_a_factor_that_is_dropped(engine):
    factors = Factors.factors
    caught(engine, ROWS, mock.patch.object(Factors, "factors", lambda self: factors(self)[:-1]))


def test_a_scale_inside_of_the_logarithm(engine):
    factor, counted = Factors._factor, summing._counted

    def scaled(self, i, part, *others):
        found = elimination.in_logs(self.ops, factor(self, i, part, *others))
        return replace(found, array=part.counts * found.array)

    def once(staged, result):
        [part, *_] = (part for part in staged.parts if part.name in result.names)
        return counted(staged, result) / part.counts

    with (
        mock.patch.object(summing, "_counted", once),
        mock.patch.object(Factors, "_factor", scaled),
        pytest.raises(AssertionError),
    ):
        law(engine, ROWS)
