"""For the test suites of users: `assert_unbiased`, as a function and as a pytest fixture of that name.

def test_my_objective(assert_unbiased):
    assert_unbiased(bound, jax.random.key(0), params, x)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ppvi.checks import Report

__all__ = ["ALPHA", "assert_unbiased"]

ALPHA = 1e-6
"""Probability that one test fails, or passes, by mistake: low enough for suites of thousands."""


def assert_unbiased(
    bound: Any, key: Any, params: Any, *args: Any, alpha: float = ALPHA, inconclusive: bool = False, **options: Any
) -> Report:
    """Check an objective's gradient, and raise `BiasError` with the report if it is biased.

    **Arguments**

    - `bound`: an `Objective`; the others are those of its `check`, which shows no progress here.
    - `inconclusive`: whether an inconclusive verdict passes too. By default it fails: a test that cannot see is no test.
    """
    report = bound.check(key, params, *args, alpha=alpha, **{"progress": False, **options})
    report.raise_if_biased(inconclusive=not inconclusive)
    return report


@pytest.fixture(name="assert_unbiased")
def _assert_unbiased() -> Callable[..., Report]:
    return assert_unbiased
