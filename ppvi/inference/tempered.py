"""Bridges between two programs, as targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppvi._ops import Array
from ppvi.errors import ProgramError
from ppvi.inference.derived import Derived
from ppvi.program import Program, Trace


class Tempered(Derived):
    """The target that `tempered` returns: a density without a sampler."""

    def __init__(self, p: Program, q: Program, beta: Array):
        self.p = p
        self.q = q
        self.beta = beta

    def bind(self, *args: Any, **kwargs: Any) -> Tempered:
        return Tempered(self.p.bind(*args, **kwargs), self.q.bind(*args, **kwargs), self.beta)

    def run(self, given: Mapping[str, Array], observe: bool, stop_params: bool | str) -> Trace:
        raise ProgramError("a tempered density has no sampler of its own; normalize it with a proposal.")

    def assess(self, choices: Mapping[str, Array], *, stop_params: bool | str = False, strict: bool = True) -> Trace:
        ends = (("p", self.p, self.beta), ("q", self.q, 1 - self.beta))
        traces = [(end, f.assess(choices, stop_params=stop_params, strict=strict), power) for end, f, power in ends]
        names = [(f"{end}: {site}", trace, site, power) for end, trace, power in traces for site in trace.log_probs]
        p = traces[0][1]
        return Trace(
            choices=p.choices,
            log_probs={name: power * trace.log_probs[site] for name, trace, site, power in names},
            rows={name: power * trace.rows[site] for name, trace, site, power in names if site in trace.rows},
            log_density=sum(power * trace.log_density for _, trace, power in traces),
            plates={name: trace.plates[site] for name, trace, site, _ in names} | dict(p.plates),
            batch_ndims={name: trace.batch_ndims[site] for name, trace, site, _ in names} | dict(p.batch_ndims),
        )


def tempered(p: Program, q: Program, beta: Array) -> Tempered:
    """The geometric bridge between two programs over the same sites, as a target of `normalize`.

    log density = beta log p(z) + (1 - beta) log q(z)
    """
    return Tempered(p, q, beta)
