"""Planted bugs of supports that are images: each must make a law fail."""

from importlib import import_module
from unittest import mock

import pytest

from ppvi.engine import regions
from tests.laws import test_moving_supports as laws


def library(engine):
    return import_module(f"{engine.vi.__name__}._regions").Library


def test_a_support_that_is_declared(engine):
    """The codomain of the last transform, wherever the base has mass."""
    with mock.patch.object(library(engine), "is_image", return_value=False), pytest.raises(pytest.fail.Exception):
        laws.test_a_score_of_a_support_that_moves_is_refused(engine, "shifted")


def test_every_function_rises(engine):
    with mock.patch.object(library(engine), "sign", return_value=1.0), pytest.raises(AssertionError):
        laws.test_the_support_is_the_image_of_that_of_the_base(engine, "reciprocal of a shifted one")


def test_a_mixture_of_what_has_the_first_support(engine):
    with mock.patch.object(regions, "components", return_value=[]), pytest.raises(pytest.fail.Exception):
        laws.test_a_score_of_a_support_that_moves_is_refused(engine, "mixture")
