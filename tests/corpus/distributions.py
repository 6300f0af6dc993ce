"""What densities and their supports decide: parameters that a site holds constant, supports that move behind a transform, values
that are observed or changed before their density is taken."""

from __future__ import annotations

import ppvi
from tests.corpus.programs import bit, of, right, wrong
from tests.engines import dist, ppl

# Held constant in a site's own parameters ------------------------------------------------------------------------------------


def location():
    return 2 * ppvi.stop_gradient(ppl.param("m", 0.5)) + ppl.param("c", 0.1)


def held_normal():
    ppl.sample("z", dist.Normal(location(), 1.0))


def held_bit():
    ppl.sample("z", dist.Bernoulli(logits=location()))


LEFT_OUT = "the density moves with the parameter, and its derivative leaves that out"
for _strategy in (ppvi.Reinforce(), ppvi.LeaveOneOut(2), ppvi.MeasureValued()):
    wrong(
        f"held in a Normal, {_strategy}", of(lambda z: 1.0 * z**2), LEFT_OUT, "held constant", guide=held_normal,
        strategies={"z": _strategy}, verdict="suspect",
    )  # fmt: skip
for _strategy in (ppvi.Reinforce(), ppvi.Enumerate(), ppvi.LocalExpectation()):
    wrong(
        f"held in a Bernoulli, {_strategy}", of(lambda z: 1.0 * z), LEFT_OUT, "held constant", guide=held_bit,
        strategies={"z": _strategy}, verdict="suspect",
    )  # fmt: skip
right(
    "bit by score",
    of(lambda b: 2.0 * b, "b"),
    "nothing is held constant",
    guide=bit,
    strategies={"b": ppvi.Reinforce()},
)
