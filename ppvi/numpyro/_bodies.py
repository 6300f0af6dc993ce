"""Operations with bodies, run anew with their markers answered.

A body asks for keys, and gets others in every round; it asks for the values that the program is given, and gets those of its
round; a site in it draws, or takes the value that is planted for it; and what it tells of its sites comes out of the operation,
stacked by the round. Where a branch has passed a site over, it has told nothing: there its log_prob is 0.
"""

from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import jax
import jax.numpy as jnp
from jax import lax

from ppvi.engine.outcomes import EndlessError
from ppvi.engine.sites import Arrays, SiteRecord
from ppvi.errors import EngineError, ProgramError
from ppvi.ir import SiteInfo
from ppvi.numpyro import _compat, _parallel_scan as side_by_side, _source as source
from ppvi.numpyro._compat import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun, user_context
from ppvi.numpyro._draws_ahead import drawn_ahead
from ppvi.numpyro._markers import (
    given_in,
    given_p,
    is_asking,
    key_p,
    names_in,
    outcome_p,
    record_p,
    recorded,
    rest_p,
    site_p,
    sites_in,
)
from ppvi.strategies.base import STACKS

Found = tuple[list[Any], dict[str, Arrays], dict[int, Any]]
"""What an operation returns, what it has told of sites by their names, and the operands of its markers by number."""


@dataclass
class Sites:
    """The sites that have been met in bodies, by number."""

    infos: list[SiteInfo] = field(default_factory=list)
    records: dict[str, SiteRecord] = field(default_factory=dict)
    mapped: dict[int, int] = field(default_factory=dict)

    def number(self, info: SiteInfo) -> int:
        if info not in self.infos:
            self.infos.append(info)
        return self.infos.index(info)

    def absent(self, number: int, shapes: Sequence[Any]) -> list[Any]:
        """The operands of a site's marker where a branch has passed over the site."""
        operands, mapped = [_zeros(shape) for shape in shapes], self.mapped[number]
        for candidate in self.infos[number].candidates:
            found = candidate.strategy.absent(candidate.draw(dict(enumerate(operands)), mapped, jnp.moveaxis))
            back = found._replace(
                **{f: jnp.moveaxis(x, 0, mapped) for f in STACKS if (x := getattr(found, f)) is not None}
            )
            for i, x in zip(candidate.fields, back, strict=True):
                if i is not None:
                    operands[i] = x
        return operands


class Interpreter(ABC):
    """Runs a body, answering its markers."""

    sites: Sites
    keys: Iterator[Any]
    given: Mapping[str, Any]

    def evaluate(self, jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for eqn in jaxpr.eqns:
            # What is bound anew is at the place in the user's code where it was.
            with user_context(eqn.source_info.traceback, name_stack=eqn.source_info.name_stack):
                outs = self.operation(eqn, [read(atom) for atom in eqn.invars])
            values.update(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def operation(self, eqn: Any, values: list[Any]) -> Sequence[Any]:
        """What an operation returns."""
        primitive, params = eqn.primitive, eqn.params
        if primitive is key_p:
            return [next(self.keys)]
        if primitive is given_p:
            return [self.answer(values[0], **params)]
        if primitive is record_p:
            self.record(params["record"], recorded(values, params["scaled"]))
            return values
        if primitive is site_p:
            return [self.site(params, values)]
        if not is_asking(eqn):
            return self.plain(eqn, values)
        inner = _inlined(eqn)
        return self.control(eqn, values) if inner is None else self.evaluate(inner.jaxpr, inner.consts, values)

    def answer(self, like: Any, name: str, check: Callable[[tuple[int, ...]], None]) -> Any:
        value = self.given[name]
        check(jnp.shape(value))
        return jnp.asarray(value)

    @abstractmethod
    def record(self, record: SiteRecord, arrays: Arrays) -> None: ...

    @abstractmethod
    def site(self, params: Mapping[str, Any], values: list[Any]) -> Any: ...

    @abstractmethod
    def plain(self, eqn: Any, values: list[Any]) -> Sequence[Any]: ...

    @abstractmethod
    def control(self, eqn: Any, values: list[Any]) -> Sequence[Any]: ...


def _inlined(eqn: Any) -> ClosedJaxpr | None:
    """The body of an operation that has markers and is run as what it stands for."""
    return _compat.body(eqn) if eqn.primitive.name in _compat.INLINED | _compat.RULED else None


def _keys_in(body: Jaxpr) -> int:
    """How many keys a run of a body takes."""
    asking = [eqn for eqn in body.eqns if eqn.primitive is key_p or is_asking(eqn)]
    inner = [_inlined(eqn) for eqn in asking]
    return sum(1 if closed is None else _keys_in(closed.jaxpr) for closed in inner)


def folded(key: Any) -> Iterator[Any]:
    """Keys made of one."""
    return (jax.random.fold_in(key, i) for i in itertools.count())


@final
class Inside(Interpreter):
    """The body of an operation: what it tells is kept for the operation to return."""

    def __init__(
        self,
        sites: Sites,
        keys: Iterator[Any],
        given: Mapping[str, Any],
        planted: Mapping[int, Any],
        picks: Mapping[int, Any],
    ):
        self.sites, self.keys, self.given, self.planted, self.picks = sites, keys, given, planted, picks
        self.recorded: dict[str, Arrays] = {}
        self.operands: dict[int, Any] = {}

    def record(self, record: SiteRecord, arrays: Arrays) -> None:
        if record.name in self.recorded:
            raise ProgramError(f"there are two sites named {record.name!r}; the second at {record.where}.")
        known = self.sites.records.get(record.name)
        # Of two branches that share a name, one that is drawn along its path needs the gradient of its density.
        if known is None or known.density is None or known.density.at == "credited draw":
            self.sites.records[record.name] = record
        self.recorded[record.name] = arrays

    def plain(self, eqn: Any, values: list[Any]) -> Sequence[Any]:
        if eqn.primitive is outcome_p:
            raise EndlessError("sites under control flow are not gone through.")
        if eqn.primitive is not rest_p:
            return _compat.bind(eqn, values)
        # What was lifted out of an inner operation is lifted further as the function of its sites that it has become.
        return jaxpr_as_fun(eqn.params["jaxpr"])(*values[eqn.params["before"] :])

    def site(self, params: Mapping[str, Any], values: list[Any]) -> Any:
        info, mapped = params["info"], params["mapped"]
        number = self.sites.number(info)
        if number in self.operands:
            raise EngineError(
                f"site {info.name!r} at {info.where} is drawn by a jitted function that a body calls more than once, and every "
                f"call would give the same draw. Remove the inner jit, which changes nothing here."
            )
        self.sites.mapped[number] = mapped
        self.operands[number] = values
        if number in self.planted:
            return self.planted[number]
        if number in self.picks:
            # A further draw, of the same round but with a past of its own.
            i, places = self.picks[number]
            self.operands[number] = [
                lax.dynamic_index_in_dim(values[place], i, mapped, keepdims=False) for place in places
            ]
            return self.operands[number][0]
        return values[0]

    def control(self, eqn: Any, values: list[Any]) -> Sequence[Any]:
        outs, told, operands = self.anew(eqn, values)
        for name in told:
            if name in self.recorded:
                raise ProgramError(
                    f"there are two sites named {name!r}; the second at {self.sites.records[name].where}."
                )
        self.recorded |= told
        self.operands |= operands
        return outs

    def anew(self, eqn: Any, values: Sequence[Any]) -> Found:
        """Run an operation by the library's function for it."""
        name = eqn.primitive.name
        if name not in RULES:
            where = source.of(eqn.source_info.traceback)
            sites = ", ".join(map(repr, names_in(eqn.params))) or "a random draw"
            raise EngineError(f"site {sites} is inside `{name}` (at {where}){_INSTEAD.get(name, _ELSE)}")
        return RULES[name](self, eqn, values)

    def absent(self, number: int, shapes: Sequence[Any]) -> list[Any]:
        """What is kept of a site where a branch has passed over it; of a further draw, that it is none."""
        return [_zeros(shape) for shape in shapes] if number in self.picks else self.sites.absent(number, shapes)

    def bodies(self, keys: Iterator[Any], branch: ClosedJaxpr, given: Any, planted: Any, args: Sequence[Any]) -> Found:
        """A body in one of its rounds."""
        inner = Inside(self.sites, keys, given, planted, self.picks)
        outs = inner.evaluate(branch.jaxpr, branch.consts, args)
        return outs, inner.recorded, inner.operands


_INSTEAD = {
    "while": ": how many rounds it takes is not known, so that its draws have no shape, and JAX has no gradient through "
    "it. Use lax.scan over as many rounds as there can be, with lax.cond for those that are not taken.",
}
_ELSE = ": its value cannot leave that. Move the site out of it; for independent copies use a plate."


def _scan(inside: Inside, eqn: Any, values: Sequence[Any]) -> Found:
    body, fixed, carried, how = loop = _compat.scan(eqn)
    consts, init, xs, length = values[:fixed], values[fixed : loop.start], values[loop.start :], how["length"]
    names = given_in(eqn.params)
    for name in names:
        if jnp.shape(inside.given[name])[:1] != (length,):
            _refuse_given(eqn, name, jnp.shape(inside.given[name]), length)
    key, inner = next(inside.keys), [inside.sites.number(info) for info in sites_in(eqn.params)]
    given = {name: jnp.asarray(inside.given[name]) for name in names}
    planted = {number: inside.planted[number] for number in inner if number in inside.planted}

    def step(carry: Sequence[Any], entry: Any) -> Any:
        given, planted, keys, x = entry
        outs, told, operands = inside.bodies(iter(keys), body, given, planted, [*consts, *carry, *x])
        return outs[:carried], (outs[carried:], told, operands)

    # Those of all rounds at once, which in a round would be numbers hashed one after the other.
    fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
    keys = fold(fold(key[None], jnp.arange(length))[0], jnp.arange(_keys_in(body.jaxpr)))
    rounds = (given, planted, keys, list(xs))
    ahead, rounds = drawn_ahead(step, list(init), rounds, keys=2)
    carry, (ys, told, operands) = side_by_side.run(ahead, list(init), rounds, given=2, **how)
    for number in inner:
        inside.sites.mapped[number] += 1
    return [*carry, *ys], told, operands


def _cond(inside: Inside, eqn: Any, values: Sequence[Any]) -> Found:
    index, *operands = values
    key = next(inside.keys)

    def taken(i: int, branch: ClosedJaxpr) -> Callable[..., Found]:
        return lambda given, planted, operands: inside.bodies(
            folded(jax.random.fold_in(key, i)), branch, given, planted, operands
        )

    args = dict(inside.given), dict(inside.planted), operands
    branches = [taken(i, branch) for i, branch in enumerate(_compat.branches(eqn))]
    shapes = [jax.eval_shape(branch, *args) for branch in branches]
    several = [name for shape in shapes for name in shape[1]]
    scaled = {name for shape in shapes for name, arrays in shape[1].items() if arrays.scale is not None}
    passed = {
        name
        for shape in shapes
        for name, arrays in shape[1].items()
        if inside.sites.records[name].latent and (several.count(name) < len(shapes) or arrays.present is not None)
    }
    if scaled or passed:
        branches = [_alike(branch, scaled, passed) for branch in branches]
        shapes = [jax.eval_shape(branch, *args) for branch in branches]
    told = functools.reduce(lambda a, b: b | a, (shape[1] for shape in shapes))
    drawn = functools.reduce(lambda a, b: b | a, (shape[2] for shape in shapes))
    _refuse_unlike(eqn, shapes)

    def whole(branch: Callable[..., Found]) -> Callable[..., Found]:
        def run(*args: Any) -> Found:
            outs, mine, draws = branch(*args)
            passed = {name: jax.tree.map(_zeros, like) for name, like in told.items() if name not in mine}
            absent = {n: inside.absent(n, like) for n, like in drawn.items() if n not in draws}
            return outs, mine | passed, draws | absent

        return run

    return lax.switch(index, [whole(branch) for branch in branches], *args)


def _alike(branch: Callable[..., Found], scaled: Collection[str], passed: Collection[str]) -> Callable[..., Found]:
    """A branch in which some sites have a scale for every entry, and some say that they are there, as in another branch."""

    def alike(name: str, arrays: Arrays) -> Arrays:
        if name in passed and arrays.present is None:
            arrays = arrays._replace(present=jnp.ones((), bool))
        if name not in scaled:
            return arrays
        scale = jnp.ones(()) if arrays.scale is None else arrays.scale
        return arrays._replace(scale=jnp.broadcast_to(scale, arrays.log_prob.shape).astype(arrays.log_prob.dtype))

    def run(*args: Any) -> Found:
        outs, told, operands = branch(*args)
        return outs, {name: alike(name, arrays) for name, arrays in told.items()}, operands

    return run


def _zeros(like: Any) -> Any:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), like.shape)
    return jnp.zeros(like.shape, like.dtype)


def _refuse_unlike(eqn: Any, shapes: Sequence[Found]) -> None:
    """What branches tell under one name must be alike, for the run to keep it."""
    first: dict[str, Any] = {}
    for _, told, _ in shapes:
        for name, arrays in told.items():
            kinds = [(x.shape, x.dtype) for x in jax.tree.leaves(arrays)]
            if first.setdefault(name, kinds) != kinds:
                raise ProgramError(
                    f"site {name!r} differs between the branches of `cond` at {source.of(eqn.source_info.traceback)}: one "
                    f"draws {first[name][0]}, another {kinds[0]}. Give the sites two names, or distributions of one shape."
                )


def _remat(inside: Inside, eqn: Any, values: Sequence[Any]) -> Found:
    key, inner = next(inside.keys), _compat.body(eqn)
    assert inner is not None

    def run(given: Any, planted: Any, *args: Any) -> Found:
        return inside.bodies(folded(key), inner, given, planted, args)

    again = jax.checkpoint(run, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])
    return again(dict(inside.given), dict(inside.planted), *values)


RULES: dict[str, Callable[[Inside, Any, Sequence[Any]], Found]] = {
    "scan": _scan,
    "cond": _cond,
    _compat.REMAT: _remat,
}
"""How an operation with a body is run anew."""


def _refuse_given(eqn: Any, name: str, shape: tuple[int, ...], length: int) -> None:
    where = source.of(eqn.source_info.traceback)
    raise ProgramError(
        f"site {name!r} is in a loop of {length} rounds at {where}, but its choice has shape {shape}: it needs a leading axis "
        f"of size {length}, a value for every round. Draw the site in a loop of the guide too, or in a plate of that size."
    )
