"""The static check on a corpus of small programs with known answers."""

import pytest

from tests.corpus import contracts, distributions, moving, probabilities, programs, singular, zeros  # noqa: F401  (each adds its rows)
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


def test_precision_and_recall(engine, capsys):
    """No biased program is proved, no right one is called biased; most are decided."""
    assert len(rows(engine)) >= 60
    verdicts = [(entry.truth == "biased", prove(engine, entry).verdict) for entry in rows(engine)]
    called = [truth for truth, said in verdicts if said.startswith("biased")]
    doubted = [truth for truth, said in verdicts if said == "suspect"]
    needless = sum(not truth for truth in doubted)
    assert all(called)
    assert not any(truth for truth, said in verdicts if said == "proved")
    biased = sum(truth for truth, _ in verdicts)
    with capsys.disabled():
        print(
            f"\n{engine.name}: {len(verdicts)} programs, {biased} of them biased: `biased` has precision {sum(called) / len(called):.2f} and recall "
            f"{sum(called) / biased:.2f}; `biased` or `suspect` {(sum(called) + sum(doubted)) / (len(called) + len(doubted)):.2f} and "
            f"{(sum(called) + sum(doubted)) / biased:.2f}; {len(doubted)} undecided, {needless} of them right"
        )
    assert needless <= (len(verdicts) - biased) / 5
