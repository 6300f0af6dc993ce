"""The strategies that a site gets when the user names none."""

from __future__ import annotations

from ppvi.strategies.base import Distribution, Strategy
from ppvi.strategies.enumerate import Enumerate
from ppvi.strategies.pathwise import Reparam
from ppvi.strategies.score import LeaveOneOut


def default_strategies(dist: Distribution) -> tuple[Strategy, ...]:
    """Candidates in order of preference; the compiler takes the first that is cheap enough."""
    if dist.has_rsample:
        return (Reparam(),)
    if dist.has_enumerate_support:
        return (Enumerate(), LeaveOneOut())
    return (LeaveOneOut(),)
