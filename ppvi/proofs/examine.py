"""The static check: what can be proved of an objective's gradient from its staged program.

Each rule looks at the whole program for one way in which an estimator goes wrong, and says where, why, and what to do.
The gradient is `proved` unbiased where every rule was decided and found nothing; the conditions that no rule can
decide, finite moments above all, are the statistical check's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from ppvi.analysis.inlined import Flat, Step, flatten
from ppvi.analysis.ranges import pole_of
from ppvi.compiler.plan import Plan
from ppvi.ir import Atom, Constant, Density, Equation, Estimate, Program, Smoothness, Var, is_float
from ppvi.proofs.findings import UNBIASED_INSTEAD, Finding, Rule, Severity, StaticReport, in_order, unless
from ppvi.proofs.linearity import misused
from ppvi.proofs.masses import possible
from ppvi.proofs.numbers import Numbers
from ppvi.proofs.smoothness import Analysis, Source, analyse
from ppvi.proofs.stopped import stopped
from ppvi.proofs.supports import Ends, Piece, beyond, draw_of, ends, holds, is_asked, is_drawn, pieces, within
from ppvi.proofs.witnesses import Witnesses


def examine(plan: Plan, names: Mapping[Var, str], numbers: Numbers) -> StaticReport:
    """Run every rule on a planned program.

    **Arguments**

    - `names`: the parameters' names by their variables.
    - `numbers`: what the program's arrays are at the parameters and arguments.
    """
    program, choices = plan.program, plan.choices
    sources: dict[Var, Source] = {var: var for var in program.params}
    sources |= {site.outputs[0]: site for site, choice in choices.items() if choice.strategy.needs_continuity}
    pathwise = (
        site for site, choice in choices.items() if choice.strategy.route == "path" and choice.strategy.unbiased
    )
    through = frozenset(site.outputs[0] for site in pathwise)
    densities = [equation for equation in program.equations if isinstance(equation.role, Density)]
    own = [equation.outputs[0] for equation in densities if equation.role.at == "credited draw"]
    kept = [atom for choice in choices.values() if choice.strategy.unbiased for atom in choice.kept]
    sinks = [program.output, *own, *kept]
    analysis = analyse(program.equations, sinks, sources, program.constants, through, program.supports)
    subjects: dict[Source, str] = {site: f"site {choice.info.name!r}" for site, choice in choices.items()}
    subjects |= {var: f"parameter {name!r}" for var, name in names.items()}
    rules = Rules(plan, analysis, subjects, numbers, Witnesses(analysis, numbers))
    return StaticReport(
        in_order(
            (
                *rules.jumps(program.output),
                *(finding for var in own for finding in rules.density_jumps(var)),
                *rules.held(kept),
                *rules.nonlinear(),
                *rules.supports(),
                *rules.impossible(),
                *rules.unseen(),
                *rules.poles(),
                *rules.values(),
                *rules.moving_densities(),
                *rules.derivative_rules(),
                *rules.strategies(),
                *rules.tails(program.output),
            )
        )
    )


def nonlinear_estimates(flat: Flat) -> Iterator[Finding]:
    """The estimates that a program uses nonlinearly."""
    by_step: dict[Step, set[str]] = {}
    for estimate, step in misused(flat).items():
        by_step.setdefault(step, set()).add(f"the {estimate.equation.role.of}")
    for step, estimates in by_step.items():
        yield _finding("biased", "nonlinear estimate", ", ".join(sorted(estimates)), step, _NONLINEAR, _LINEARLY)


def nonlinear_estimate(what: str, operation: str, where: str) -> Finding:
    """The same of an estimate of which this is known without a graph."""
    return Finding("biased", "nonlinear estimate", f"the {what}", operation, where, _NONLINEAR, _LINEARLY)


_NONLINEAR = "a nonlinear function of an unbiased estimate is biased: E g(X) is not g(E X)."
_LINEARLY = (
    "Where every site is in the minibatch's plate, take densities per plate and sum the function of them by ppvi.total, as "
    "iwelbo(K, per=...) does; beside a site outside of it use elbo, which is linear, or run the plate over all rows; exp_of, "
    "log_of and power_of have the expectation of the function of a sum."
)


def misused_estimates(program: Program) -> tuple[Finding, ...]:
    """The same of a program as it is staged, at no cost where it has no estimates."""
    if not any(isinstance(equation.role, Estimate) for equation in program.equations):
        return ()
    flat = flatten(program.equations, [program.output], lambda site: False, program.constants)
    return in_order(nonlinear_estimates(flat))


@dataclass(frozen=True)
class Rules:
    """The rules, each a generator of findings."""

    plan: Plan
    analysis: Analysis
    subjects: Mapping[Source, str]
    numbers: Numbers
    witnesses: Witnesses

    def jumps(self, output: Atom) -> Iterator[Finding]:
        """A pathwise gradient does not see a jump."""
        atom = self.analysis.flat.atom(output)
        sources = self._jumping(atom)
        for jump in self.analysis.all_causes(atom) if sources and isinstance(atom, Var) else ():
            near = {source for operand in jump.step.inputs for source in self.analysis.of(operand)}
            subject = self._names(source for source in sources if source in near or not near.intersection(sources))
            remedy = "Let the parameter enter through a site's distribution, or use a continuous function of it."
            if subject.startswith("site"):
                remedy = "Name Reinforce(), LeaveOneOut() or MeasureValued() for the site, which need no continuity."
            why = "the objective jumps in it, and a pathwise gradient does not see the jump: that part of it is lost."
            certain = self.witnesses.show(jump, cast(Var, output), sources)
            if not certain:
                why = "it may make the objective jump, which a pathwise gradient does not see; that could not be "
                why += f"decided{unless(jump.step.meaning.name, pole_of(jump.step) is not None)}."
            yield _finding("biased" if certain else "suspect", "jump", subject, jump.step, why, remedy)

    def density_jumps(self, own: Var) -> Iterator[Finding]:
        """Nor does a score function see a jump of the density in a parameter."""
        atom = self.analysis.flat.atom(own)
        sources = self._jumping(atom)
        if not sources or not isinstance(atom, Var):
            return
        cause, density = self.analysis.causes[atom], _density(self.analysis.flat.makers[atom])
        why = f"the density of its draw jumps in {self._names(sources)}, and a score function does not see the jump."
        remedy = "Let the distribution's parameters be continuous functions."
        severity = "biased" if self.witnesses.show(cause, own, sources) else "suspect"
        yield _finding(severity, "density jump", f"site {density.site!r}", cause.step, why, remedy)

    def held(self, kept: Sequence[Atom]) -> Iterator[Finding]:
        """What a stop_gradient leaves out is missed, unless it cancels or has mean zero: of the objective, and of the densities
        and weights that strategies keep of sites."""
        analysis = self.analysis
        stops = {**stopped(analysis, kept, drawing=True), **stopped(analysis, [self.plan.program.output])}
        for stop, trace in stops.items():
            certain = trace.how != "lost" and not trace.by_density
            why = "the objective depends on it, and the gradient leaves that out"
            why += "." if certain else ", which is right only where that has mean zero; it could not be decided."
            remedy = "Remove it; or, where you have a proof, say so: stop_gradient(x, because=...), stop_params='...'."
            subject = self._names(analysis.of(stop.inputs[0]))
            yield _finding("biased" if certain else "suspect", "held constant", subject, stop, why, remedy)
        for step in analysis.flat.steps:
            if isinstance(role := step.equation.role, Constant):
                yield Finding("note", "assumption", "assumed", "stop_gradient", step.where(), role.because)

    def nonlinear(self) -> Iterator[Finding]:
        """Nonlinear functions of unbiased estimates are biased."""
        yield from nonlinear_estimates(self.analysis.flat)

    def supports(self) -> Iterator[Finding]:
        """What depends on a draw must be possible where its density is taken."""
        makers, through = self.analysis.flat.makers, self.analysis.through
        for step in filter(is_asked, self.analysis.flat.steps):
            outer = ends(_density(step).support, _bounds(step), self.analysis.ranges)
            found = list(pieces(step.inputs[1], makers, through))
            if any(piece.passed for piece in found) or not self._is_inside(step.inputs[1], outer):
                for piece in found:
                    yield from self._outside(step, outer, piece)

    def _outside(self, log_prob: Step, outer: Ends, piece: Piece) -> Iterator[Finding]:
        """What may be outside of a support, of which a value has entries. What depends on no draw shows at once."""
        flat = self.analysis.flat
        if not is_drawn(piece.atom, flat.makers) or self._is_inside(piece.atom, outer):
            return
        maker = flat.makers[cast(Var, piece.atom)]
        if not maker.equation.is_site:
            fits, subject = None, f"site {_density(log_prob).site!r}"
            why = f"its value is made of draws by {maker.meaning.name} at {maker.where()}, and could not be shown to be in the "
            why += "support, outside of which the log density is -inf, or has no meaning."
            remedy = "Make the value by what maps all draws into the support, such as exp or a sigmoid."
        else:
            site = maker.equation.role.info
            inner = ends(site.support, [maker.inputs[i] for i in site.bounds], self.analysis.ranges)
            fits = within(inner, outer)
            if fits is None and holds(outer, maker.inputs[0], self.analysis.ranges, analytic=True):
                return
            how = "is not within" if fits is False else "could not be compared with"
            subject = f"site {site.name!r}"
            why = f"it is drawn from {site.distribution} at {site.where}, whose support {how} the one here: outside of that the"
            why += " log density is -inf, or has no meaning."
            remedy = "Give the site a distribution on the same support in the model and the guide, or transform it."
        if not fits:
            certain = fits is False and piece.sure and not _density(log_prob).masked
            severity = "biased" if certain else "note" if piece.passed and not outer.is_known else "suspect"
            yield _finding(severity, "support", subject, log_prob, why, remedy)

    def _is_inside(self, atom: Atom, support: Ends) -> bool:
        analytic = set(self.analysis.of(atom).values()) == {Smoothness.SMOOTH}
        return holds(support, atom, self.analysis.ranges, analytic)

    def impossible(self) -> Iterator[Finding]:
        """A value of probability zero in one program and not in the other: there the log density is -inf."""
        makers = self.analysis.flat.makers
        for log_prob in filter(is_asked, self.analysis.flat.steps):
            density, barred = _density(log_prob), log_prob.equation.inputs[-1]
            masses = density.masses
            if masses is None or not is_drawn(log_prob.inputs[1], makers) or not self.numbers.may_bar(masses, barred):
                continue
            draw = draw_of(log_prob, makers)
            site = None if draw is None or draw.equation.role.info.masses is None else draw.equation.role.info
            its_masses = None if site is None else site.masses
            theirs = () if draw is None or its_masses is None else (draw.equation.inputs[-1],)
            found = (
                beyond(np.asarray(True) if its_masses is None else possible(its_masses, *x), possible(masses, y))
                for _, (*x, y) in self.numbers.together(*theirs, barred)
            )
            if values := next(filter(None, found), ()):
                why = f"{_value(values)} has probability zero here, and a positive one in "
                why += (
                    "what it is made of, as far as is known" if site is None else f"{site.distribution} at {site.where}"
                )
                why += ", from which it is drawn: the log density is -inf there, or as low as the library has it."
                remedy = "Give the value a probability, or none in the other program either: a logit of -inf, for one."
                severity, subject = ("suspect", density.site) if site is None else ("biased", site.name)
                yield _finding(severity, "support", f"site {subject!r}", log_prob, why, remedy)

    def unseen(self) -> Iterator[Finding]:
        """A strategy that never draws a value does not see what the gradient has from it as it becomes possible."""
        for site, choice in self.plan.choices.items():
            info = choice.info
            if info.masses is None or not choice.strategy.unbiased:
                continue
            found = self.numbers.becoming(info.masses, site.inputs[-1])
            # Where probabilities are given by their logarithms, these hide the derivative from everyone.
            seen = info.masses.endswith("probs") and choice.strategy.sees_all(len(found))
            if found.any() and not seen:
                why = f"{_value(np.flatnonzero(found).tolist())} has probability zero at these parameters, and not near them: "
                why += "it is never drawn, and what the gradient has from it is lost."
                remedy = (
                    "Give the distribution by its probs, of which Enumerate(), LocalExpectation() and MeasureValued() "
                )
                remedy += "have the derivative at 0 too; or keep the parameters inside."
                subject, strategy = f"site {info.name!r}", str(choice.strategy)
                yield Finding("biased", "probability zero", subject, strategy, info.where, why, remedy)

    def values(self) -> Iterator[Finding]:
        """A mean has the infinity or the NaN that is drawn."""
        program, numbers = self.plan.program, self.numbers
        for value, run in numbers.not_finite(program.output):
            densities = (e for e in program.equations if isinstance(e.role, Density))
            density = next((e.role for e in densities if not _is_finite(numbers.of(e.outputs[0], run))), None)
            made = (e for e in program.equations if program.output in e.outputs)
            named = ("the objective", "value", next(made).where()) if density is None else _named(density)
            said = numbers.said(run)
            why = f"the objective is {value} in a run at these parameters and arguments{said}, so that it has no mean."
            remedy = (
                "Look for missing data, parameters beyond their constraints, data that the model makes impossible, "
            )
            remedy += "and sites in branches that the other program takes in other runs."
            yield Finding("suspect", "not finite", *named, why, remedy)
            return

    def poles(self) -> Iterator[Finding]:
        """What is finite at an infinity has a derivative of 0 times infinity."""
        for equation in self.numbers.forgotten():
            sources = {x for atom in equation.inputs for x in self.analysis.of(self.analysis.flat.atom(atom))}
            why = "it is given an infinity and varies with parameters near here: its derivative is 0 times infinity."
            remedy = "Write it without the infinity, w for exp(log(w)); or keep the parameters inside."
            yield Finding("biased", "pole", self._names(sources), equation.op, equation.where(), why, remedy)

    def moving_densities(self) -> Iterator[Finding]:
        """A density whose support moves jumps as a bound passes the value."""
        for step in filter(is_asked, self.analysis.flat.steps):
            moving = {source for bound in _bounds(step) for source in self._moving(bound)}
            together = moving.intersection(self.analysis.of(step.inputs[1]))
            outer = ends(_density(step).support, _bounds(step), self.analysis.ranges)
            if holds(outer, step.inputs[1], self.analysis.ranges, analytic=False):
                continue  # no bound ever passes it
            if moving and any(is_drawn(x, self.analysis.flat.makers) for x in (step.inputs[1], *_bounds(step))):
                certain = _density(step).support.jumps and not together
                why = f"its support moves with {self._names(moving)}, so that the density jumps as a bound passes the value"
                why += "." if certain else ", unless it is 0 there or the value moves with it; it could not be decided."
                remedy = "Take a distribution of fixed support and transform its draw, or one that has no bounds."
                severity, subject = "biased" if certain else "suspect", f"site {_density(step).site!r}"
                yield _finding(severity, "moving density", subject, step, why, remedy)

    def _moving(self, bound: Atom) -> set[Source]:
        """What a bound moves with, and does not only depend on by which of several it is."""
        if self.analysis.ranges.is_number(bound):
            return set()
        waiting, reached = [bound], set[Atom]()
        while waiting:
            atom = waiting.pop()
            if atom not in reached and is_float(atom):
                reached.add(atom)
                step = self.analysis.flat.makers.get(atom) if isinstance(atom, Var) else None
                waiting += step.inputs[: step.equation.arity] if step is not None else ()
        varying = self.analysis.of(bound)
        return {x for x in varying if (x.outputs[0] if isinstance(x, Equation) else x) in reached}

    def derivative_rules(self) -> Iterator[Finding]:
        """Derivative rules that a user wrote are compared with the derivative."""
        for step in self.analysis.flat.rules:
            rule = step.meaning.own_rule
            if rule is None or not any(map(self.analysis.of, step.inputs)):
                continue
            same = [self.analysis.flat.same(atom) for atom in step.inputs]
            problem = rule([self.analysis.ranges.of(atom) for atom in step.inputs], [same.index(x) for x in same])
            if problem is not None:
                said, certain = problem
                remedy = "Correct the rule, or leave the derivative to the framework."
                yield _finding(
                    "biased" if certain else "suspect", "derivative rule", "the objective", step, f"{said}.", remedy
                )

    def strategies(self) -> Iterator[Finding]:
        """Strategies that are biased by design, or take something on the user's word."""
        for choice in self.plan.choices.values():
            strategy, site = choice.strategy, choice.info
            named = f"site {site.name!r}", str(strategy), site.where
            if not strategy.unbiased:
                yield Finding("biased", "strategy", *named, "the strategy is biased by design.", UNBIASED_INSTEAD)
            if strategy.assumes:
                yield Finding("note", "assumption", *named, f"assumed: {strategy.assumes}")

    def tails(self, output: Atom) -> Iterator[Finding]:
        """Weights that are averaged without their logarithm need a guide of heavier tails."""
        weighed = self._weighed(output)
        roles = [step.equation.role for step in self.analysis.flat.steps]
        own = {d.site: d for d in roles if isinstance(d, Density) and d.at in ("draw", "credited draw")}
        for log_prob in weighed:
            density = _density(log_prob)
            drawn = own.get(density.site)
            if density.at != "choice" or drawn is None or drawn.tails is None or density.tails is None:
                continue
            if drawn.tails < density.tails:
                why = (
                    f"weights are averaged, and their variance may be infinite: the tails of {drawn.distribution} at "
                    f"{drawn.where} are lighter than those here."
                )
                remedy = "Give the guide heavier tails, such as StudentT, and look at k-hat."
                yield _finding("suspect", "tails", f"site {density.site!r}", log_prob, why, remedy)

    def _jumping(self, atom: Atom) -> list[Source]:
        return [source for source, c in self.analysis.settle(atom).items() if c is Smoothness.JUMP]

    def _names(self, sources: Iterable[Source]) -> str:
        """Sites where there are any: a parameter that reaches an operation through a draw is the draw's business."""
        named = sorted({self.subjects.get(source, "the program") for source in sources})
        named = [name for name in named if name.startswith("site")] or named
        return ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")

    def _weighed(self, output: Atom) -> list[Step]:
        """The densities that reach the objective through an exponential, and through no logarithm after it."""
        found: dict[Step, None] = {}
        seen: set[tuple[Atom, bool]] = set()
        waiting: list[tuple[Atom, bool]] = [(self.analysis.flat.atom(output), False)]
        while waiting:
            atom, exponential = waiting.pop()
            step = self.analysis.flat.makers.get(atom) if isinstance(atom, Var) else None
            if step is None or (atom, exponential) in seen or step.meaning.name in ("log", "log1p", "cumlogsumexp"):
                continue
            seen.add((atom, exponential))
            if isinstance(step.equation.role, Density) and exponential:
                found[step] = None
            elif not step.equation.is_site:
                waiting.extend((operand, exponential or step.meaning.name == "exp") for operand in step.inputs)
        return list(found)


def _is_finite(x: np.ndarray | None) -> bool:
    return x is None or bool(np.isfinite(x).all())


def _named(density: Density) -> tuple[str, str, str]:
    return f"site {density.site!r}", f"{density.distribution}.log_prob", density.where


def _density(step: Step) -> Density:
    return step.equation.role


def _bounds(step: Step) -> tuple[Atom, ...]:
    """The bounds of a density's support that are arrays."""
    return step.inputs[2:] if _density(step).masses is None else step.inputs[2:-1]


def _value(values: Sequence[int]) -> str:
    return f"value {values[0]}" + (f", among {len(values)}," if len(values) > 1 else "")


def _finding(severity: Severity, rule: Rule, subject: str, step: Step, why: str, remedy: str) -> Finding:
    operation, where = step.meaning.name, step.where()
    if isinstance(density := step.equation.role, Density):
        operation, where = f"{density.distribution}.log_prob", density.where
    return Finding(severity, rule, subject, operation, where, why, remedy)
