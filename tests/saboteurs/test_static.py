"""Planted bugs in the static check: each must make a program of the corpus have a verdict that is wrong."""

from contextlib import ExitStack
from unittest import mock

import pytest

from ppvi.analysis.intervals import RANGES
from ppvi.analysis.ranges import Ranges
from ppvi.engine import algebra
from ppvi.numpyro import _semantics as semantics
from ppvi.proofs import continuity, examine, formula, smoothness
from ppvi.proofs.findings import Finding
from ppvi.proofs.smoothness import Analysis
from ppvi.proofs.supports import ends, within
from ppvi.proofs.witnesses import Witnesses
from tests.corpus import test_corpus as corpus
from tests.engines import NUMPYRO, PYRO


def by_name(rules):
    """The support of a density compared with that of the site of its name, whatever has been made of the draw."""
    steps, ranges = rules.analysis.flat.steps, rules.analysis.ranges
    drawn = {step.equation.role.info.name: step for step in steps if step.equation.is_site}
    for step in filter(examine.is_asked, steps):
        density, site = step.equation.role, drawn.get(step.equation.role.site)
        if site is not None:
            inner, outer = (ends(x.support, (), ranges) for x in (site.equation.role.info, density))
            if within(inner, outer) is False:
                yield Finding("biased", "support", density.site, "log_prob", density.where, "")


ENTRIES = {entry.name: entry for entry in corpus.ENTRIES}
ALWAYS, NEVER = mock.Mock(return_value=True), mock.Mock(return_value=False)
TABLE = {
    "jumps that cancel": (Witnesses, "show", ALWAYS, "summed with its negative"),
    "what is never seen to jump": (Witnesses, "show", NEVER, "a sum of jumps"),
    "poles": (Ranges, "has_pole", NEVER, "quotient of the magnitude"),
    "tests for NaN": (Ranges, "is_sure", ALWAYS, "is a root NaN"),
    "what a comparison finds of NaN": (Ranges, "is_sure", ALWAYS, "a number or none, compared"),
    "ties": (Ranges, "touches", ALWAYS, "is it the greatest entry"),
    "pivots": (Analysis, "_is_regular", ALWAYS, "tanh of a solution"),
    "permutations": (smoothness, "is_in_order", ALWAYS, "places"),
    "steep slopes": (formula, "_is_steep", NEVER, "steep bump"),
    "large multiples": (Analysis, "_magnified", mock.Mock(return_value=None), "steep softmax"),
    "an absolute tolerance": (formula, "TINY", 1e-3, "small step, summed and scaled"),
    "jumps in entrywise code": (formula, "_gaps", lambda along, crossings, *_: [formula.np.zeros(1) for _ in crossings], "sign"),
    "supports": (examine, "within", ALWAYS, "Normal guide of a Gamma"),
    "supports by the names of sites": (examine.Rules, "supports", by_name, "exponential of a draw in a Gamma"),
    "bounds of what is clamped": (RANGES, "clamp", lambda low, x, high: x, "observed at a clamped draw"),
    "casts to fewer digits": (algebra, "keeps", ALWAYS, "rounded to bfloat16"),
    "numbers of few digits": (semantics, "DIGITS", 0, "few digits"),
    "rules that a user wrote": (semantics, "wrong_rule", mock.Mock(return_value=None), "own square, reversed"),
    "values by their bounds": (examine, "holds", ALWAYS, "observed at a function of a draw"),
    "densities whose support moves": (examine, "is_asked", NEVER, "under a shifted exponential"),
    "stops": (examine, "stopped", lambda *args, **options: {}, "half of it held constant"),
    "stops in a site's own parameters": (
        examine,
        "stopped",
        lambda analysis, sinks, drawing=False: {} if drawing else stopped(analysis, sinks),
        "held in a Normal, Reinforce()",
    ),
    "free operands": (continuity.Region, "is_free", ALWAYS, "is it the least entry"),
}  # fmt: skip
"""By the rule that is broken: where it is, what it is instead, and the program."""
stopped = examine.stopped


@pytest.mark.parametrize("rule", TABLE)
def test_rules(rule):
    owner, name, instead, program = TABLE[rule]
    entry = ENTRIES[program]
    engine = NUMPYRO if entry.not_on_pyro else PYRO
    with ExitStack() as stack:
        stack.callback(formula.jumps_in.cache_clear)
        stack.enter_context(mock.patch.dict(corpus.REPORTS, clear=True))
        corpus.test_verdict(engine, entry)
        corpus.REPORTS.clear()
        formula.jumps_in.cache_clear()
        tables = isinstance(owner, dict)
        stack.enter_context(
            mock.patch.dict(owner, {name: instead}) if tables else mock.patch.object(owner, name, instead)
        )
        with pytest.raises(AssertionError):
            corpus.test_verdict(engine, entry)
