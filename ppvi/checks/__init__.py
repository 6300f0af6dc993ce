"""The statistical check: sequential tests of whether a gradient estimator is unbiased. Framework-free; engines draw."""

from ppvi.checks.report import Measurement as Measurement, Report as Report
from ppvi.checks.sequential import Asymptotic as Asymptotic, Bounded as Bounded, Catoni as Catoni
from ppvi.checks.unbiased import Budget as Budget, Question as Question, exactly as exactly, measure as measure
