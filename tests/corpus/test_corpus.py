"""The static check on a corpus of small programs with known answers."""

import pytest

from tests.corpus import (  # noqa: F401  (each adds its rows)
    cancelling,
    contracts,
    decisions,
    distributions,
    models,
    moving,
    probabilities,
    programs,
    series,
    singular,
    zeros,
)
from tests.engines import ENGINES, PYRO, on

ENTRIES = [*programs.PROVED, *programs.FLAGGED]
REPORTS = {}
"""By name: the statistics need what the rows have found."""


def prove(engine, entry):
    if (engine.name, entry.name) not in REPORTS:
        REPORTS[engine.name, entry.name] = _prove(engine, entry)
    return REPORTS[engine.name, entry.name]


def _prove(engine, entry):
    with on(engine):
        guide = getattr(engine.autoguide, entry.guide)(entry.model) if isinstance(entry.guide, str) else entry.guide
        objective = engine.vi.objective(entry.program, entry.model, guide, strategies=entry.strategies)
        return objective.prove(objective.init(engine.key(0)))


def rows(engine):
    return [entry for entry in ENTRIES if engine is not PYRO or not entry.not_on_pyro]


@pytest.mark.parametrize(
    ("engine", "entry"),
    [pytest.param(engine, entry, id=f"{engine.name}, {entry}") for engine in ENGINES for entry in rows(engine)],
)
def test_verdict(engine, entry):
    report = prove(engine, entry)
    expected = entry.on_pyro if engine is PYRO and entry.on_pyro else entry.verdict
    assert report.verdict == expected, f"{entry.because}\n{report}"
    found = {finding.rule for finding in report.findings if finding.severity != "note"}
    assert entry.rule is None or entry.rule in found, f"{entry.because}\n{report}"
    for finding in report.findings:
        assert ".py:" in finding.where or finding.where.startswith("Auto"), finding


def test_precision_and_coverage(engine, capsys):
    """No biased program is proved, no right one is called biased; most are decided."""
    verdicts = [(entry.truth == "biased", prove(engine, entry).verdict) for entry in rows(engine)]
    proved = [truth for truth, said in verdicts if said == "proved"]
    called = [truth for truth, said in verdicts if said.startswith("biased")]
    doubted = [truth for truth, said in verdicts if said == "suspect"]
    needless, biased = doubted.count(False), sum(truth for truth, _ in verdicts)
    of_proved, of_called = proved.count(False) / len(proved), called.count(True) / len(called)
    with capsys.disabled():
        print(
            f"\n{engine.name}: {len(verdicts)} programs, {biased} of them biased: precision of `proved` {of_proved:.2f}, of "
            f"`biased` {of_called:.2f}; coverage (decided / all) {1 - len(doubted) / len(verdicts):.2f}; "
            f"{len(doubted)} undecided, {needless} of them right"
        )
    assert of_proved == of_called == 1.0
    assert len(proved) + len(called) + len(doubted) == len(verdicts)
    assert needless <= (len(verdicts) - biased) / 10


def test_there_are_as_many_programs_as_the_statistics_need():
    names = [entry.name for entry in ENTRIES]
    assert len(set(names)) == len(names) >= 300
