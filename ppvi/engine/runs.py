"""What a run of a model or a guide records of its sites, whatever the framework.

Every sample site that a program reaches is told to a `Run`: `Simulate` draws latent sites by their strategies, `Assess` gives
them the values asked for. Scale and mask multiply the densities that the objective sees, never the probability by which a draw
is credited. Who runs programs is in `ppvi.engine.handles`.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ppvi._doors import close_to, listed
from ppvi._ops import Array
from ppvi._source import warn_at
from ppvi.engine.calls import draw_by_hand
from ppvi.engine.names import Said, is_discrete
from ppvi.engine.sessions import Session
from ppvi.engine.sites import Arrays, Counted, Layout, Site, SiteRecord, minibatches_apart, plates_apart
from ppvi.engine.statements import named_otherwise
from ppvi.errors import FiniteSiteError, ProgramError
from ppvi.ir import POINT, At, Density
from ppvi.program import Plate, Trace, of_minibatches


class Run:
    """What both ways of running a program share: the record of its sites."""

    def __init__(self, role: str, session: Session, given: Mapping[str, Any]):
        self.role = role
        self.session = session
        self.given = given
        self.clear()

    def clear(self) -> None:
        """Forget what was recorded."""
        self.values: dict[str, Array] = {}
        self.log_probs: dict[str, Array] = {}
        self.rows: dict[str, Array] = {}
        self.plates: dict[str, tuple[Plate, ...]] = {}
        self.deterministic: dict[str, Array] = {}
        self.data: dict[str, Array] = {}
        """What observed sites have for their values."""
        self.layouts: dict[str, Layout] = {}
        """Whose the axes of values are."""
        self.auxiliary: set[str] = set()
        self.pathwise: set[str] = set()
        self.credited: set[str] = set()
        self.placed: set[str] = set()
        self.points: set[str] = set()
        self.present: dict[str, Array] = {}
        self.distributions: dict[str, Any] = {}

    def sample(self, site: Site) -> Array:
        """The value of a site that the program has reached."""
        name, session, where = site.name, self.session, self.session.here()
        if problem := named_otherwise("site", name, self.role, where):
            raise problem
        self.refuse_second(name, lambda: where)
        observed = site.observed is not None and not site.infer.get("is_auxiliary")
        discrete = is_discrete(site.fn)
        is_finite = bool(discrete) and not observed and session.scope.distribution(site.fn).has_enumerate_support
        session.names.site(name, Said(self.role, where, discrete, observed, is_finite))
        self.layouts[name] = Layout(site.plates, site.fn.event_dim)
        value, log_prob, at = self.visit(site) if site.observed is None else self.observe(site)
        density, bounds = self.density(site, at)
        session.names.density(name, self.role, density, at)
        if density is not None and density.support.name == POINT:
            self.points.add(name)
        record = SiteRecord(name, where, at != "data", density, site.plates)
        if site.infer.get("is_auxiliary"):
            self.auxiliary.add(name)
        arrays = Arrays(value, log_prob, site.scale, bounds)
        if session.scope.bodies is not None:
            return session.scope.bodies.record(record, arrays)
        self.distributions[name] = Counted(site.fn, site.scale, site.plates)
        self.record(record, arrays)
        return arrays.value

    def density(self, site: Site, at: At) -> tuple[Density | None, Sequence[Array]]:
        """What its mark says of a site's log_prob, and the arrays that are kept of it beside."""
        return self.session.density(site, at)

    def keep(self, name: str, value: Any, frames: Sequence[Any] = ()) -> None:
        """Keep a deterministic site, within these frames of plates."""
        session = self.session
        self.layouts[name] = Layout(tuple(Plate(frame.name, frame.dim) for frame in frames))
        if problem := named_otherwise("deterministic site", name, self.role, session.here()):
            raise problem
        if session.scope.bodies is None:
            self.refuse_second(name, self.session.here)
            self.deterministic[name] = value
        else:
            record = SiteRecord(name, session.here(), latent=False, density=None, deterministic=True)
            session.scope.bodies.record(record, Arrays(session.array(value), session.ops.zeros(()), None, ()))

    def refuse_second(self, name: str, where: Callable[[], str]) -> None:
        """Names of sites are unique."""
        if name in self.log_probs or name in self.deterministic:
            raise ProgramError(f"the {self.role} has two sites named {name!r}; the second at {where()}.")

    def record(self, record: SiteRecord, arrays: Arrays) -> None:
        """Keep a site."""
        session, name, log_prob = self.session, record.name, self.agreeing(record.name, arrays)
        if record.density is not None and (marks := session.marks) is not None:
            log_prob = marks.mark_note(log_prob, record.density, arrays.value, *arrays.bounds)
        rows = log_prob if arrays.scale is None else arrays.scale * log_prob
        self.log_probs[name] = of_minibatches(name, rows, record.plates)
        if any(plate.scale != 1 for plate in record.plates):
            self.rows[name] = rows
        self.plates[name] = record.plates
        session.owed.meet(record.plates)
        (self.values if record.latent else self.data)[name] = arrays.value
        if arrays.present is not None:
            self.present[name] = arrays.present

    def agreeing(self, name: str, arrays: Arrays) -> Array:
        """The log_prob of a site. A run that has the site in other rounds than the run which its value is of is impossible."""
        log_prob, known = arrays.log_prob, getattr(self.given, "present", None)
        if known is None or name not in self.given or known.get(name) is arrays.present is None:
            return log_prob
        ops, shape = self.session.ops, log_prob.shape
        everywhere = ops.zeros(()) == 0
        both = (everywhere if x is None else x for x in (known.get(name), arrays.present))
        one, other = (ops.reshape(x, (*x.shape, *[1] * (len(shape) - len(x.shape)))) for x in both)
        return ops.where(one == other, log_prob, -math.inf)

    def visit(self, site: Site) -> tuple[Array, Array, At]:
        """The value of a latent site, its log_prob without scale, and what that is taken at."""
        raise NotImplementedError

    def observe(self, site: Site) -> tuple[Array, Array, At]:
        value = self.session.observed(site, self.role)
        log_prob = self.session.log_prob(site, self.session.engine.looked_at(site.fn, value), self.role)
        self.session.say_if_broadcast(site, value, log_prob, self.role)
        return value, log_prob, "data"

    def place(self, site: Site, value: Any) -> tuple[Array, Array, At]:
        """Give a latent site a value from outside."""
        self.placed.add(site.name)
        drawn = getattr(self.given, "distributions", {}).get(site.name)
        if apart := minibatches_apart(site, drawn):
            raise ProgramError(f"site {site.name!r} of the {self.role} at {self.session.here()} {apart}.")
        if apart := plates_apart(site, drawn):
            warn_at(self.session.here(), f"site {site.name!r} of the {self.role}: {apart}.")
        value = self.session.given(site, self.session.array(value), self.role)
        return value, self.session.log_prob(site, value, self.role), "choice"

    def fix(self, site: Site) -> tuple[Array, Array, At]:
        """Leave a latent site the value that the program has given it."""
        self.placed.add(site.name)
        value = self.session.array(site.fixed)
        return value, self.session.log_prob(site, value, self.role), "choice"

    def called(self, name: str) -> str:
        """A site's name, and who observes it."""
        return f"{name!r}{self.session.names.observed(name)}"

    def refuse_unused(self, choices: Mapping[str, Any]) -> None:
        """Every choice must belong to a site, unless it is auxiliary to the program that made it."""
        auxiliary = getattr(choices, "auxiliary", frozenset())
        unused = [name for name in choices if name not in self.values and name not in auxiliary]
        if unused:
            raise ProgramError(
                f"the choices have {', '.join(map(self.called, unused))}, but the {self.role} has no such latent site (it has "
                f"{sorted(self.values)}): rename the site, integrate it out with ppvi.marginal (or ppvi.summed), mark it "
                f"infer={{'is_auxiliary': True}} where the guide samples it, or drop it from the choices."
            )

    def finish(self, returned: Any) -> Trace:
        ops = self.session.ops
        ndims = {name: len(log_prob.shape) for name, log_prob in self.log_probs.items()}
        scalars = [ops.sum(x, range(ndims[name])) for name, x in self.log_probs.items()]
        self.session.recorder.ran(self.role, self.values, self.log_probs, self.distributions)
        return Trace(
            choices=self.values,
            log_probs=self.log_probs,
            log_density=functools.reduce(operator.add, scalars) if scalars else ops.zeros(()),
            returned=returned,
            plates=self.plates,
            batch_ndims=ndims,
            rows=self.rows,
            auxiliary=frozenset(self.auxiliary),
            observed=frozenset(self.log_probs.keys() - self.values.keys()),
            pathwise=frozenset(self.pathwise),
            placed=frozenset(self.placed),
            points=frozenset(self.points),
            present=self.present,
            distributions=self.distributions,
        )


class Simulate(Run):
    """Draw every latent site by its strategy, but for those that are given."""

    def __init__(self, role: str, session: Session, given: Mapping[str, Any], observing: bool = True):
        super().__init__(role, session, given)
        self.observing = observing

    def visit(self, site: Site) -> tuple[Array, Array, At]:
        if site.name in self.given:
            return self.place(site, self.given[site.name])
        if site.fixed is not None:
            return self.fix(site)
        value, intermediates, route = self.session.draw(site.name, site.fn, site.infer)
        # Two branches may share a name; its site goes along the path if it does in both.
        (self.pathwise if route == "path" else self.credited).add(site.name)
        self.pathwise -= self.credited
        log_prob = self.session.log_prob(site, value, self.role, intermediates)
        return value, log_prob, "credited draw" if route == "credit" else "draw"

    def observe(self, site: Site) -> tuple[Array, Array, At]:
        if self.observing:
            return super().observe(site)
        self.auxiliary.add(site.name)
        return self.visit(site)

    def finish(self, returned: Any) -> Trace:
        self.refuse_unused(self.given)
        return super().finish(returned)


class Assess(Run):
    """Give every latent site the value that it has among the choices."""

    def __init__(self, role: str, session: Session, choices: Mapping[str, Any], strict: bool = True):
        super().__init__(role, session, choices)
        self.strict = strict

    def visit(self, site: Site) -> tuple[Array, Array, At]:
        if site.name not in self.given and site.fixed is not None:
            return self.fix(site)
        if site.name not in self.given:
            raise self._missing(site)
        return self.place(site, self.given[site.name])

    def _missing(self, site: Site) -> ProgramError:
        where = f"{self.session.here()}{self.session.names.observed(site.name)}"
        auxiliary = getattr(self.given, "auxiliary", frozenset())
        by_hand = f" {draw_by_hand()}" if is_discrete(site.fn) else ""
        there = [name for name in self.given if name not in auxiliary]
        is_finite = self.session.scope.distribution(site.fn).has_enumerate_support
        return (FiniteSiteError if is_finite else ProgramError)(
            f"latent site {site.name!r} of the {self.role} at {where} has no value: what it is run with has "
            f"{listed(there) or 'no site'}.{close_to(site.name, there)} Sample it in the guide under that name, or observe "
            f"it with obs=.{by_hand}"
        )

    def finish(self, returned: Any) -> Trace:
        if self.strict:
            self.refuse_unused(self.given)
        return super().finish(returned)


def no_direct_sites(name: str, where: str) -> ProgramError:
    """The error of an objective that samples by itself."""
    return ProgramError(
        f"site {name!r} at {where} is sampled by the objective itself: sites belong to a model or a guide; draw from one with "
        f"`simulate`."
    )
