"""Gradient strategies: one frozen dataclass each, its docstring the equation it estimates."""

from ppvi.strategies.base import (
    Continuation as Continuation,
    Distribution as Distribution,
    Draw as Draw,
    Site as Site,
    Strategy as Strategy,
    Terms as Terms,
    phantom as phantom,
)
from ppvi.strategies.coupled import ARM as ARM, DisARM as DisARM
from ppvi.strategies.enumerate import Enumerate as Enumerate
from ppvi.strategies.measure_valued import LocalExpectation as LocalExpectation, MeasureValued as MeasureValued
from ppvi.strategies.pathwise import Reparam as Reparam
from ppvi.strategies.score import LeaveOneOut as LeaveOneOut, Reinforce as Reinforce
