"""The marginal of a program over some of its sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ppvi._doors import count, described
from ppvi._ops import Array
from ppvi.errors import ProgramError
from ppvi.inference.derived import Bound, Conditional, Derived, arrays, conditional, joint_trace, layout, within
from ppvi.program import Plates, Program, Trace, logmeanexp, replicate, session


class Marginal(Derived):
    """The program that `marginal` returns."""

    def __init__(
        self,
        whole: Program,
        keep: Sequence[str],
        proposal: Conditional | Bound | None,
        particles: int,
        per: Plates | None,
    ):
        self.whole = whole
        self.keep = tuple(keep)
        self.proposal = proposal
        self.particles = particles
        self.per = per

    def __str__(self) -> str:
        return f"marginal over {list(self.keep)}"

    def bind(self, *args: Any, **kwargs: Any) -> Marginal:
        proposal = None if self.proposal is None else Bound(self.proposal, args, kwargs)
        return Marginal(self.whole.bind(*args, **kwargs), self.keep, proposal, self.particles, self.per)

    def run(self, given: Mapping[str, Array], observe: bool, stop_params: bool | str) -> Trace:
        if not observe:
            raise ProgramError(f"{self}: its observations cannot be drawn; simulate the program that it is made of.")
        whole = self.whole.simulate(given=given, stop_params=stop_params)
        self._refuse_unknown(whole)
        kept = {site: whole[site] for site in self.keep}
        with within(self._rule()):
            weights = self._retained(whole, kept, stop_params)[None]
            if self.particles > 1:
                fresh, _ = replicate(self.particles - 1, lambda: self._fresh(kept, stop_params))
                weights = session().ops.concatenate([weights, fresh])
        return self._trace(kept, logmeanexp(weights), whole, whole)

    def assess(self, choices: Mapping[str, Array], *, stop_params: bool | str = False, strict: bool = True) -> Trace:
        choices = arrays(choices)
        auxiliary = getattr(choices, "auxiliary", frozenset())
        kept = {site: choices[site] for site in self.keep if site in choices}
        unused = [site for site in choices if site not in kept and site not in auxiliary]
        missing = [site for site in self.keep if site not in kept]
        if missing or (strict and unused):
            raise ProgramError(
                f"{self}: the choices have {sorted(choices)}, but the density is one of {sorted(self.keep)} exactly. Keep the "
                f"sites that the other program has, no more and no fewer."
            )
        with within(self._rule()):
            weights, frames = replicate(self.particles, lambda: self._fresh(kept, stop_params))
        return self._trace(kept, logmeanexp(weights), frames, None)

    def _retained(self, whole: Trace, kept: Mapping[str, Array], stop_params: bool | str) -> Array:
        """Log weight of the auxiliary draws that came with the kept ones."""
        if self.proposal is None:
            return whole.log_weight(kept, self.per)
        auxiliary = {site: value for site, value in whole.items() if site not in kept}
        reverse = conditional(self.proposal, kept).assess(auxiliary, stop_params=stop_params)
        return whole.per(self.per) - reverse.per(self.per)

    def _fresh(self, kept: Mapping[str, Array], stop_params: bool | str) -> tuple[Array, Trace]:
        """Log weight of fresh auxiliary draws, and how the kept sites lie in plates."""
        if self.proposal is None:
            whole = self.whole.simulate(given=kept, stop_params=stop_params)
            return whole.log_weight(kept, self.per), layout(whole, self.keep)
        drawn = conditional(self.proposal, kept).simulate(stop_params=stop_params)
        whole = self.whole.assess({**kept, **drawn}, stop_params=stop_params)
        return whole.per(self.per) - drawn.per(self.per), layout(whole, self.keep)

    def _rule(self) -> str:
        """What an error in a weight is about."""
        return str(self) if self.proposal is None else f"{self}, whose proposal must draw the other sites and no more"

    def _trace(self, kept: Mapping[str, Array], log_density: Array, frames: Trace, whole: Trace | None) -> Trace:
        return joint_trace(str(self), self.per, log_density, layout(frames, self.keep, kept), whole)

    def _refuse_unknown(self, whole: Trace) -> None:
        if not self.keep and not whole.observed:
            raise ProgramError(f"{self}: the program has no observations, so with no site kept its density is 1.")
        for site in self.keep:
            if site in whole.observed:
                raise ProgramError(
                    f"{self}: site {site!r} is observed, so it has one value and no marginal; its density is part of the "
                    f"program's in any case. Keep latent sites, of which there are {sorted(whole)}."
                )
            if site not in whole:
                raise ProgramError(f"{self}: the program has no latent site {site!r}; it has {sorted(whole)}.")


def marginal(
    q: Program,
    keep: Sequence[str],
    proposal: Conditional | None = None,
    particles: int = 1,
    *,
    per: Plates | None = None,
) -> Marginal:
    """A program over some sites of `q`, its other sites integrated out by importance sampling.

        xi(z) = 1/K sum_k q(z, u_k) / r(u_k; z)

    On the density side all u_k are drawn from the proposal r, so that E[xi(z)] = q(z); on the simulate side u_1 is the
    auxiliary draw that came with z, so that E[1 / xi(z) | z] = 1 / q(z).

    **Arguments**

    - `q`: any program.
    - `keep`: the sites that remain. With none, the density is the evidence of the program's observations.
    - `proposal`: r, which draws exactly the other sites: a program of the framework that is called with the kept choices
      (a mapping), followed by the arguments of the objective's call; it may declare parameters, and so be learned. By
      default `q` itself with the kept sites held fixed, whose importance weight is the density of the kept sites alone.
    - `particles`: K, at least 1. The estimate's variance falls as 1/K.
    - `per`: plates over which everything is independent, so that each index has an estimate of its own; far better than
      one estimate of a product.

    **Raises** `ProgramError` if a kept site does not exist or is observed, or if the proposal draws other sites than the
    auxiliary ones.

    **Unbiased when** the support of r covers that of q(u | z). The density is unbiased, its logarithm is not: an ELBO of a
    marginal guide is a lower bound of the ELBO of its exact density.

    Ranganath, Tran and Blei 2016; Sobolev and Vetrov 2019; Lew et al. 2022; Becker, Lew et al. 2024, section 4.
    """
    count("marginal: the number of particles", particles)
    if isinstance(keep, str):
        keep = (keep,)
    if not isinstance(q, Program) or not isinstance(keep, Sequence) or not all(isinstance(x, str) for x in keep):
        raise ProgramError(
            f"marginal(q, keep, proposal, particles): q is a program, such as a handle of the objective, and keep the names of "
            f"sites, such as ['x'], not {described(q)} and {described(keep)}."
        )
    if proposal is not None and not isinstance(proposal, Program) and not callable(proposal):
        raise ProgramError(
            f"marginal: the proposal must be a program, or a function of the kept choices, not {described(proposal)}."
        )
    return Marginal(q, keep, proposal, particles, per)
