"""What names mean: in one evaluation a site or a parameter is the same thing to every program that names it.

The peers take the first meaning that they meet, and go on. A draw from a Bernoulli has no density under a Normal, though
one can be computed; a parameter that one program made positive is not what another asked for. These are refused, with both
places.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ppvi._source import warn_at
from ppvi.errors import BiasWarning, ProgramError
from ppvi.ir import POINT, At, Density, Support

REALS = Support("real", "real", -math.inf, math.inf)


@dataclass(frozen=True)
class Said:
    """What a program has said of a name."""

    role: str
    where: str
    discrete: bool | None = None
    """Of a site; None where nobody knows."""
    observed: bool = False
    finite: bool = False
    """Of a site: whether it has finitely many values."""
    constraint: str | None = None
    """Of a parameter; None where nothing was said."""
    support: Support = REALS
    """What a parameter's constraint allows."""
    shape: Any = None
    """Of a parameter's initial value; None where it is not known."""

    @property
    def is_known(self) -> bool:
        """Whether what a parameter's constraint allows is known in numbers."""
        return None not in (self.support.lower, self.support.upper)

    def __str__(self) -> str:
        return f"in the {self.role} at {self.where}"


class Names:
    """What the programs of an evaluation have said."""

    def __init__(self) -> None:
        self.sites: dict[str, dict[str, Said]] = {}
        """By name and program."""
        self.params: dict[str, Said] = {}
        """By whoever came first."""
        self.drawn: dict[str, tuple[str, Density]] = {}
        """Which program draws a site, and what is known of the density."""
        self.asked: dict[str, str] = {}
        """Parameters that a program has asked for and nobody has declared, and where."""

    def site(self, name: str, said: Said) -> None:
        """A program samples a site."""
        if name in self.params:
            raise _namesakes(name, self.params[name], said)
        for other in self.sites.setdefault(name, {}).values():
            kinds = other.discrete, said.discrete
            if other.role != said.role and None not in kinds and kinds[0] != kinds[1]:
                first, second = (other, said) if other.discrete else (said, other)
                raise ProgramError(
                    f"site {name!r} is discrete {first} and continuous {second}: give it distributions of the same kind. What "
                    f"relaxes a discrete site of the guide is its strategy, such as GumbelSoftmax() or StraightThrough()."
                )
        self.sites[name].setdefault(said.role, said)

    def density(self, name: str, role: str, density: Density | None, at: At) -> None:
        """Told what staging knows of a site's density, and where that is taken. To draw beyond what another program allows is
        no mistake where objectives weigh what they draw, but wherever they take the mean of a log density."""
        if density is not None and at not in ("data", "choice"):
            self.drawn[name] = role, density
        elif density is not None and at == "choice":
            said = self.beyond(name, role, density.where, density.distribution, density.support)
            if said is not None:
                warn_at(density.where, said, BiasWarning)

    def beyond(self, name: str, role: str, where: str, distribution: str, support: Support) -> str | None:
        """What is to be said of a site's density where another program is known to draw the site beyond the support."""
        whose, drawn = self.drawn.get(name, (role, None))
        if drawn is None or whose == role or not _reaches_beyond(drawn.support, support):
            return None
        return (
            f"site {name!r} is drawn from {drawn.distribution} in the {whose} at {drawn.where}, and {distribution} in the "
            f"{role} at {where} has no mass on all of its support: outside of that the log density is -inf, or has no meaning. "
            f"Give the site a distribution on the same support in both, or transform it."
        )

    def observed(self, name: str) -> str:
        """Which programs observe a site, as a clause of a sentence."""
        found = [said for said in self.sites.get(name, {}).values() if said.observed]
        return f", which is observed {found[0]}" if found else ""

    def discrete(self, role: str) -> dict[str, Said]:
        """The latent sites of a program that are discrete."""
        found = {name: said[role] for name, said in self.sites.items() if role in said}
        return {name: said for name, said in found.items() if said.discrete and not said.observed}

    def finite(self, role: str) -> list[str]:
        """The latent sites of a program that have finitely many values."""
        return [name for name, said in self.discrete(role).items() if said.finite]

    def refuse_data_of_the_guide(self) -> None:
        """A guide that observes is a model: what it says of the data would count against the model's."""
        roles = {role for said in self.sites.values() for role in said}
        for name, said in self.sites.items():
            if "guide" in said and said["guide"].observed and "model" in roles:
                raise ProgramError(
                    f"the guide observes site {name!r}, {said['guide'].where}: data belong to the model, and a guide only "
                    f"samples. If the two are swapped, it is objective(program, model, guide); else leave the site out of the "
                    f"guide, or mark it infer={{'is_auxiliary': True}} there."
                )

    def param(self, name: str, said: Said) -> None:
        """A program declares a parameter."""
        if name in self.sites:
            raise _namesakes(name, said, next(iter(self.sites[name].values())))
        self.asked.pop(name, None)
        first = self.params.setdefault(name, said)
        if first.role == said.role and not (first.is_known and said.is_known):  # bounds that it has computed anew
            return
        if said.constraint is not None and _differ(first, said):
            raise _two(name, "constraints", first, first.constraint or "none", said, said.constraint)
        if None not in (first.shape, said.shape) and first.shape != said.shape:
            raise _two(name, "shapes", first, first.shape, said, said.shape)

    def made(self, name: str, shape: Any) -> None:
        """The first initial value of a parameter has been made."""
        if name in self.params:
            self.params[name] = replace(self.params[name], shape=shape)

    def never_made(self) -> ProgramError | None:
        """What is wrong with a program that asks for a parameter which has no initial value, if it has asked for one."""
        for name, where in self.asked.items():
            return ProgramError(
                f"parameter {name!r} {where} has no initial value: write param({name!r}, value) at the first place where it is "
                f"asked for."
            )
        return None

    def is_of_another(self, name: str, role: str) -> bool:
        """Whether another program has declared a parameter before."""
        return name in self.params and self.params[name].role != role


def of_param(role: str, where: str, constraint: Any, shape: Any, support_of: Callable[[Any], Support]) -> Said:
    """What is said of a parameter by declaring it; a constraint to all reals is the frameworks' default, and says nothing."""
    inner = getattr(constraint, "base_constraint", constraint)
    if str(inner) in ("None", "Real()"):
        return Said(role, where, shape=shape)
    return Said(role, where, constraint=str(inner), support=support_of(inner), shape=shape)


def is_discrete(fn: Any) -> bool | None:
    """Whether a distribution is discrete; None for a point mass, which is either."""
    inner = fn
    while hasattr(inner, "base_dist"):
        inner = inner.base_dist
    try:
        return None if type(inner).__name__ == "Delta" else fn.support.is_discrete
    except (NotImplementedError, AttributeError):
        return None


def _reaches_beyond(mine: Support, other: Support) -> bool:
    """Whether one support is known to reach out of another."""
    ends = (mine.lower, mine.upper, other.lower, other.upper)
    if mine.kind == "real" and other.name.lower().replace("_", "") in JOINT:
        return True
    if "other" in (mine.kind, other.kind) or mine.name == POINT or None in ends:
        return False
    low, high, least, most = ends
    return low < least - SLACK or high > most + SLACK  # type: ignore[operator]


JOINT = frozenset(
    """simplex corrcholesky corrmatrix positivedefinite positivesemidefinite lowercholesky softpluslowercholesky orderedvector
    positiveorderedvector sphere zerosumvector""".split()
)
"""Constraints of an array that no numbers which each have an interval of their own keep to."""

SLACK = 1e-6
"""By which the ends of supports may differ."""


def _differ(one: Said, other: Said) -> bool:
    """Whether two constraints are known to allow different values; how a library maps the reals onto them is no difference."""
    (a, b), same_text = (one.support, other.support), _set_of(one.constraint) == _set_of(other.constraint)
    if "other" in (a.kind, b.kind):
        return not same_text
    ends = ((a.lower, b.lower), (a.upper, b.upper))
    return a.kind != b.kind or any(x != y if None not in (x, y) else x is y and not same_text for x, y in ends)


def _set_of(text: str | None) -> str | None:
    return text and re.sub("^(Softplus|ScaledUnit)", "", text)


def _namesakes(name: str, param: Said, site: Said) -> ProgramError:
    return ProgramError(f"{name!r} is a parameter {param} and a site {site}: rename one of them.")


def _two(name: str, what: str, first: Said, mine: Any, said: Said, other: Any) -> ProgramError:
    return ProgramError(
        f"parameter {name!r} has two {what}: {mine} {first}, and {other} {said}. Say the same in both, or use two names."
    )
