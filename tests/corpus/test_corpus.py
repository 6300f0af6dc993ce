"""The static check on a corpus of small programs with known answers."""

import jax
import pytest

import ppvi.numpyro as vi
from tests.corpus.programs import ENTRIES

REPORTS = {}
"""By name: the statistics need what the rows have found."""


def prove(entry):
    if entry.name not in REPORTS:
        REPORTS[entry.name] = _prove(entry)
    return REPORTS[entry.name]


def _prove(entry):
    objective = vi.objective(entry.program, entry.model, entry.guide, strategies=entry.strategies)
    params = objective.init(jax.random.key(0))
    return objective.prove(params)


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_verdict(entry):
    report = prove(entry)
    assert report.verdict == entry.verdict, f"{entry.because}\n{report}"
    found = {finding.rule for finding in report.findings if finding.severity != "note"}
    assert entry.rule is None or entry.rule in found, f"{entry.because}\n{report}"
    for finding in report.findings:
        assert ".py:" in finding.where, finding


def test_precision_and_recall(capsys):
    """No biased program is proved, no right one is called biased; most are decided."""
    assert len(ENTRIES) >= 60
    verdicts = [(entry.truth == "biased", prove(entry).verdict) for entry in ENTRIES]
    called = [truth for truth, said in verdicts if said.startswith("biased")]
    doubted = [truth for truth, said in verdicts if said == "suspect"]
    assert all(called)
    assert not any(truth for truth, said in verdicts if said == "proved")
    biased = sum(truth for truth, _ in verdicts)
    with capsys.disabled():
        print(
            f"\n{len(verdicts)} programs, {biased} of them biased: `biased` has precision {sum(called) / len(called):.2f} and recall "
            f"{sum(called) / biased:.2f}; `biased` or `suspect` {(sum(called) + sum(doubted)) / (len(called) + len(doubted)):.2f} and "
            f"{(sum(called) + sum(doubted)) / biased:.2f}; {len(doubted)} undecided"
        )
    assert len(doubted) <= len(verdicts) / 5
