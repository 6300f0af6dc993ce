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
from ppvi.strategies.baselines import Baseline as Baseline, NeuralBaseline as NeuralBaseline, RunningMean as RunningMean
from ppvi.strategies.control_variates import REBAR as REBAR, RELAX as RELAX
from ppvi.strategies.coupled import ARM as ARM, ARSM as ARSM, DisARM as DisARM
from ppvi.strategies.defaults import default_strategies as default_strategies
from ppvi.strategies.enumerate import (
    Enumerate as Enumerate,
    Quadrature as Quadrature,
    SumAndSample as SumAndSample,
)
from ppvi.strategies.measure_valued import LocalExpectation as LocalExpectation, MeasureValued as MeasureValued
from ppvi.strategies.pathwise import (
    Antithetic as Antithetic,
    BoundaryReparam as BoundaryReparam,
    Reparam as Reparam,
    Stratified as Stratified,
)
from ppvi.strategies.perturbation import (
    ParameterShift as ParameterShift,
    StochasticPerturbation as StochasticPerturbation,
)
from ppvi.strategies.relaxed import (
    GumbelSoftmax as GumbelSoftmax,
    ReinMax as ReinMax,
    StraightThrough as StraightThrough,
)
from ppvi.strategies.score import LeaveOneOut as LeaveOneOut, Reinforce as Reinforce
from ppvi.strategies.unordered import UnorderedSet as UnorderedSet
