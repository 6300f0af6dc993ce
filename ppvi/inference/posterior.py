"""The posterior of a program, by sampling-importance-resampling or sequential Monte Carlo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ppvi._doors import count, described
from ppvi._ops import Array
from ppvi.errors import ProgramError
from ppvi.inference.derived import (
    Bound,
    Conditional,
    Derived,
    arrays,
    conditional,
    joint_trace,
    layout,
    merged,
    with_auxiliary,
    within,
    without_auxiliary,
)
from ppvi.program import Plates, Program, Trace, each, logmeanexp, plate_names, replicate, session, total


class Particle(NamedTuple):
    """One particle of a sampler, or a stack of them."""

    choices: Trace
    log_target: Array
    log_weight: Array


class Step(NamedTuple):
    """One step of a sampler: what it draws, and the target that it reaches."""

    number: int
    target: Program
    proposal: Conditional | Bound | None
    backward: Conditional | Bound | None


class Posterior(Derived):
    """The program that `normalize` returns."""

    def __init__(self, steps: Sequence[Step], particles: int, per: Plates | None, resample: bool):
        self.steps = tuple(steps)
        self.particles = particles
        self.per = per
        self.resample = resample

    def __str__(self) -> str:
        steps = "1 step" if len(self.steps) == 1 else f"{len(self.steps)} steps"
        return f"posterior by {steps} of {self.particles} particles"

    def bind(self, *args: Any, **kwargs: Any) -> Posterior:
        def bound(step: Step) -> Step:
            proposal, backward = (
                None if part is None else Bound(part, args, kwargs) for part in (step.proposal, step.backward)
            )
            return step._replace(target=step.target.bind(*args, **kwargs), proposal=proposal, backward=backward)

        return Posterior([bound(step) for step in self.steps], self.particles, self.per, self.resample)

    def run(self, given: Mapping[str, Array], observe: bool, stop_params: bool | str) -> Trace:
        if given or not observe:
            raise ProgramError(
                f"{self}: simulate draws every site and conditions on every observation; condition the programs that it is "
                f"made of instead."
            )
        particles, log_evidence = self._sampled(None, stop_params)
        index = session().choice("particle", particles.log_weight, None)
        chosen = session().ops.tree_map(lambda x: x[0], self._take(particles, index[None]))
        return self._trace(chosen, log_evidence)

    def assess(self, choices: Mapping[str, Array], *, stop_params: bool | str = False, strict: bool = True) -> Trace:
        retained = self._retained(arrays(choices), stop_params, strict)
        return self._trace(retained[-1], self._sampled(retained, stop_params)[1])

    def log_evidence(self, *, stop_params: bool | str = False) -> Array:
        """Log of an unbiased estimate of the last target's normalising constant, a scalar.

        E[exp(log_evidence)] = integral of the target;    E[log_evidence] <= log of it
        """
        _, log_evidence = self._sampled(None, stop_params)
        return total(log_evidence, self.per)

    # Particles ----------------------------------------------------------------------------------------------------------

    def _sampled(self, retained: Sequence[Particle] | None, stop_params: bool | str) -> tuple[Particle, Array]:
        """All particles after the last step, and the log of the evidence that they estimate.

        With `retained`, the first particle is that one at every step, and its own ancestor: the conditional sampler of
        Andrieu, Doucet and Holenstein (2010).
        """
        ops = session().ops
        fresh = self.particles - (retained is not None)
        particles: Particle | None = None
        log_evidence: Array = 0.0
        for step in self.steps:
            drawn: Particle | None = None
            if particles is not None and self.resample:
                log_evidence = log_evidence + logmeanexp(particles.log_weight)
            if fresh:
                drawn = self._drawn(step, particles, fresh, stop_params)
            if retained is not None:
                first = ops.tree_map(lambda x: x[None], retained[step.number])
                drawn = first if drawn is None else ops.tree_map(lambda *xs: ops.concatenate(xs), first, drawn)
            particles = drawn
        assert particles is not None
        return particles, log_evidence + logmeanexp(particles.log_weight)

    def _drawn(self, step: Step, particles: Particle | None, fresh: int, stop_params: bool | str) -> Particle:
        """Fresh particles of a step, from the particles before it."""
        if particles is None:
            return replicate(fresh, lambda: self._moved(step, None, stop_params))
        if self.resample:
            old = self._take(particles, session().choice("ancestor", particles.log_weight, fresh))
        else:
            old = session().ops.tree_map(lambda x: x[self.particles - fresh :], particles)
        return each(lambda old: self._moved(step, old, stop_params), old)

    def _moved(self, step: Step, old: Particle | None, stop_params: bool | str) -> Particle:
        """A particle after a step, from the one before it."""
        before = None if old is None else without_auxiliary(old.choices)
        drawn = None
        if step.proposal is not None:
            with within(f"{self}, the proposal of step {step.number + 1}"):
                drawn = conditional(step.proposal, before).simulate(stop_params=stop_params)
        with within(f"{self}, the target of step {step.number + 1}"):
            target = step.target.assess(merged(before, drawn), stop_params=stop_params)
        return self._weighed(step, old, drawn, target, stop_params)

    def _retained(self, choices: Mapping[str, Array], stop_params: bool | str, strict: bool) -> list[Particle]:
        """The particles, one for each step, that lead to given choices."""
        path = [choices]
        for step in reversed(self.steps[1:]):
            drawn = {}
            if step.backward is not None:
                drawn = conditional(step.backward, path[0]).simulate(stop_params=stop_params)
            path.insert(0, {**path[0], **drawn})
        old: Particle | None = None
        particles: list[Particle] = []
        for step, values in zip(self.steps, path, strict=True):
            with within(f"{self}, step {step.number + 1}"):
                last = step is self.steps[-1]
                target = step.target.assess(values, stop_params=stop_params, strict=strict and last)
                drawn = None
                if step.proposal is not None:
                    proposal = conditional(step.proposal, None if old is None else without_auxiliary(old.choices))
                    drawn = proposal.assess(values, stop_params=stop_params, strict=False)
            old = self._weighed(step, old, drawn, target, stop_params)
            particles.append(old)
        return particles

    def _weighed(
        self, step: Step, old: Particle | None, drawn: Trace | None, target: Trace, stop_params: bool | str
    ) -> Particle:
        """A particle with its weight: target after x backward / (target before x proposal).

        Without resampling, times the weight that it had.
        """
        log_target = log_weight = target.per(self.per)
        if drawn is not None:
            log_weight = log_weight - drawn.per(self.per)
        if old is not None:
            log_weight = log_weight - old.log_target
            before = without_auxiliary(old.choices)
            replaced = {} if drawn is None else {site: x for site, x in before.items() if site in drawn}
            if replaced and step.backward is None:
                raise ProgramError(
                    f"{self}, step {step.number + 1}: the proposal draws {sorted(replaced)} again, which the step before had "
                    f"drawn. Give normalize a backward kernel for the step, which draws the old values given the new ones, "
                    f"or rename the site."
                )
            if step.backward is not None:
                with within(f"{self}, the backward kernel of step {step.number + 1}"):
                    backward = conditional(step.backward, target).assess(replaced, stop_params=stop_params)
                log_weight = log_weight + backward.per(self.per)
            if not self.resample:
                log_weight = log_weight + old.log_weight
        known = with_auxiliary(target, drawn)
        return Particle(layout(known, known, known), log_target, log_weight)

    def _take(self, particles: Particle, index: Array) -> Particle:
        """Particles by index, `(n, *plates)`: along the plates, each entry has its own."""
        ops, names, choices = session().ops, plate_names(self.per), particles.choices

        def aligned(site: str) -> Array:
            """The index with axes of size one for those of the site's batch that are no such plate."""
            places = sorted((dim, 1 + i) for i, dim in enumerate(choices.dims(site, names)))
            shape = [1] * choices.batch_ndims[site]
            for dim, axis in places:
                shape[dim] = index.shape[axis]
            return ops.reshape(ops.transpose(index, [0, *(axis for _, axis in places)]), (index.shape[0], *shape))

        values = {site: ops.choose(x, aligned(site) if names else index) for site, x in choices.items()}
        weights = (ops.choose(x, index) for x in (particles.log_target, particles.log_weight))
        return Particle(layout(choices, values, values), *weights)

    def _trace(self, particle: Particle, log_evidence: Array) -> Trace:
        return joint_trace(str(self), self.per, particle.log_target - log_evidence, particle.choices, None)


def normalize(
    p: Program | Sequence[Program],
    proposal: Conditional | Sequence[Conditional | None],
    particles: int,
    *,
    backward: Sequence[Conditional | None] | None = None,
    per: Plates | None = None,
    resample: bool = True,
) -> Posterior:
    """The normalised `p` as a program: its posterior, approximated by K particles.

    With one target, sampling-importance-resampling:

        z_k ~ q,    w_k = p(z_k) / q(z_k),    simulate: z_j with j ~ w,    xi(z) = p(z) / (1/K sum_k w_k)

    On the density side one of the K particles is z itself. With a sequence of targets p_1 .. p_T, sequential Monte Carlo:
    particles are resampled, drawn on by the step's proposal f_t, and weighed by

        w_t = p_t(z_t) b_t(z_{t-1} | z_t) / (p_{t-1}(z_{t-1}) f_t(z_t | z_{t-1}))

    and xi(z) = p_T(z) / prod_t (1/K sum_k w_tk). The choice of a particle is a site called `particle`, and of ancestors a
    site called `ancestor`; both are credited like any other site, by the strategies named for them.

    **Arguments**

    - `p`: the target, an unnormalised density over the latent sites, or a sequence of targets; `p.bind(y[:t])` is the
      model on other arguments, `tempered(p, q, beta)` a bridge between two programs.
    - `proposal`: the program that draws the latent sites. With T targets a sequence of T: a later one is called with the
      choices so far, followed by the arguments of the objective's call; None draws nothing.
    - `particles`: K, at least 1.
    - `backward`: for steps whose proposal draws again what was there: a sequence of T (the first is None), each called with
      the new choices, drawing the old values of those sites (Del Moral, Doucet and Jasra 2006).
    - `per`: plates over which everything is independent, so that each index has weights and a choice of its own.
    - `resample`: whether particles are resampled between steps; if not, weights accumulate (annealed importance sampling,
      Neal 2001).

    **Returns** a program that also has `log_evidence()`, the log of an unbiased estimate of the evidence.

    **Raises** `ProgramError` where targets, proposals and backward kernels do not fit each other, and for no particles.

    **Unbiased when** the strategies are: xi(z) for the density of the program *as sampled*, with K particles, which tends to
    the posterior's as K grows. Andrieu, Doucet and Holenstein 2010; Lew et al. 2022; Becker, Lew et al. 2024.
    """
    count("normalize: the number of particles", particles)
    targets = list(p) if isinstance(p, Sequence) else [p]
    proposals = list(proposal) if isinstance(proposal, Sequence) else [proposal]
    backwards = [None] * len(targets) if backward is None else list(backward)
    if not targets or len(targets) != len(proposals) or len(targets) != len(backwards):
        raise ProgramError(
            f"normalize: {len(targets)} targets, {len(proposals)} proposals and {len(backwards)} backward kernels do not "
            f"make steps: each step has one of each (None for a step that draws nothing, or redraws nothing)."
        )
    for target in targets:
        if not isinstance(target, Program):
            raise ProgramError(
                f"normalize: a target must be a program, such as a handle of the objective, not {described(target)}."
            )
    for part in (*proposals, *backwards):
        if part is not None and not isinstance(part, Program) and not callable(part):
            raise ProgramError(
                f"normalize: a proposal or kernel must be a program, or a function of choices, not {described(part)}."
            )
    if proposals[0] is None or backwards[0] is not None:
        raise ProgramError(
            "normalize: the first step needs a proposal, and no backward kernel, for nothing is before it."
        )
    steps = map(Step, range(len(targets)), targets, proposals, backwards)
    return Posterior(tuple(steps), particles, per, resample)
