"""A program with finite sites summed out, exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ppvi._doors import described
from ppvi._ops import Array
from ppvi.errors import ProgramError
from ppvi.inference.derived import Derived, arrays, layout
from ppvi.program import Program, Trace, session


class Summed(Derived):
    """The program that `summed` returns."""

    def __init__(self, whole: Program, sites: Sequence[str] | None):
        self.whole = whole
        self.sites = None if sites is None else tuple(sites)

    def __str__(self) -> str:
        return "summed" if self.sites is None else f"summed over {list(self.sites)}"

    def bind(self, *args: Any, **kwargs: Any) -> Summed:
        return Summed(self.whole.bind(*args, **kwargs), self.sites)

    def assess(self, choices: Mapping[str, Array], *, stop_params: bool | str = False, strict: bool = True) -> Trace:
        with session().constant_params(stop_params):
            return session().summed(self.whole, arrays(choices), self.sites, strict)

    def run(self, given: Mapping[str, Array], observe: bool, stop_params: bool | str) -> Trace:
        whole = self.whole.simulate(given=given, observe=observe, stop_params=stop_params)
        gone = session().finite(self.whole) if self.sites is None else self.sites
        kept = {site: x for site, x in whole.items() if site not in gone}
        if not observe:  # of what has been drawn for the data no density is asked for
            return replace(layout(whole, kept, kept), returned=whole.returned)
        with session().constant_params(stop_params):
            found = session().summed(self.whole, kept, self.sites, True)
        return replace(found, choices=kept, returned=whole.returned, whole=whole)


def summed(p: Program, sites: Sequence[str] | None = None) -> Summed:
    """The program over the other sites of `p`, with finite sites summed out, exactly.

        log density of x = log sum_z p(x, z)

    A model's finite sites that have no value among the choices are summed out by themselves; this says so, and of any program.

    **Arguments**

    - `p`: the model, the guide, or another program of the framework.
    - `sites`: the names of latent sites that have finitely many values, beside all such sites without a value.

    **Returns** a program. `log_density` is a scalar, or `(*plates)` with `per` plates that all sites lie in; `simulate` draws
    as `p` does, and returns the other sites.

    **Raises** `ProgramError` where a site does not exist, is observed or has not finitely many values; where the sum takes a
    table of more than 2^28 entries, or more than 4096 values of entries that are mixed; where what is summed together has
    different scales, or lies in part on a minibatch.

    **Unbiased when** always: the density is exact, and an estimate that sums rows of minibatches is linear in them.
    Cost: K^(number of summed sites that depend on each other at once), for any number of lanes; T K^(order + 1) of a chain.

    Zhang and Poole 1996; Obermeyer et al. 2019.
    """
    if isinstance(sites, str):
        sites = (sites,)
    if not isinstance(p, Program):
        raise ProgramError(f"summed(p, sites): p is a program, such as a handle of the objective, not {described(p)}.")
    return Summed(p, sites)
