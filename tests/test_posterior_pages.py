"""The records of `benchmarks.posteriors`, and what is told of them: no run that failed is left out or counted as good."""

import json

import pytest

from benchmarks import posterior_pages, posterior_records
from benchmarks.posterior_pages import BEGIN, END, Cell, failures, replaced, summary
from benchmarks.posterior_peers.contenders import reason
from benchmarks.posterior_records import Key, Records

GOOD = {
    "mean_error": 0.1,
    "log_sd_ratio": 0.02,
    "w1": 0.123456,
    "seconds": 4.0,
    "again": 2.0,
    "versions": {},
    "error": None,
}
LATE = {"error": "more than 300 processor seconds"}


def test_records_come_back_as_they_were_written(tmp_path, monkeypatch):
    monkeypatch.setattr(posterior_records, "FILE", tmp_path / "runs.jsonl")
    records = Records.read()
    records[Key("b", "fit", 1)] = LATE
    records[Key("a", "fit", 0)] = GOOD
    assert Records.read() == {Key("a", "fit", 0): GOOD | {"w1": 0.1235}, Key("b", "fit", 1): LATE}
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [(line["posterior"], line["seed"]) for line in lines] == [("a", 0), ("b", 1)]


def test_a_run_that_failed_is_infinitely_far():
    assert Cell([GOOD, GOOD, LATE]).error("w1") == "0.12 (failed)"
    assert Cell([GOOD, LATE, LATE]).error("w1") == "failed (failed)"
    row = summary({("a", "fit"): Cell([GOOD, LATE, LATE]), ("b", "fit"): Cell([GOOD])}, ["fit"]).splitlines()[-1]
    assert row == "| fit | 1 | 1 | 2 | 4.0 | 2.0 | 4 | 2 |"


def test_failures_are_told_with_reasons_and_seeds():
    records = {Key("a", "fit", 0): LATE, Key("a", "fit", 3): LATE, Key("b", "fit", 0): GOOD}
    [_, line] = failures(records, ["fit"])
    assert line == "- fit: more than 300 processor seconds. By posterior (seeds): a (0, 3)."


def test_only_what_is_between_the_marks_is_replaced():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    new = f"{BEGIN}\nnew\n{END}"
    assert replaced(page, new) == f"before\n{new}\nafter\n"
    assert replaced((posterior_pages.HERE / "RESULTS.md").read_text(), new).count(END) == 1


@pytest.mark.parametrize(
    ("code", "said", "why"),
    [
        (-24, "", "more than 300 processor seconds"),
        (1, "Traceback\n  File x\nValueError: no\nTrace Shapes:\n Sites:", "ValueError: no"),
        (3, "", "exit status 3"),
    ],
)
def test_the_reason_is_the_error_that_was_raised(code, said, why):
    assert reason(code, said) == why
