"""Sites under control flow, lifted out of it: `lax.scan`, `map`, `cond`, `switch`, `remat`, a `jit`, nested to any depth.

A program with such sites is traced whole, and its sites leave markers in the bodies (`ppvi.numpyro._markers`). Then it is
run operation by operation: an operation with a body is run anew by the library's own function, with the markers answered
(`ppvi.numpyro._bodies`), and what its sites have told comes out of it, stacked by the round.

What strategies need is the loop as a function of the values of its sites. So a site is drawn by one run of the operation,
is marked outside of it with a lane for every round, and is planted in another run, the *rest* of the operation:

    draws, ... = loop(...);    z = site(draws);    results = rest(loop(z, ...))

At the draws themselves the rest is the first run's results, so that a strategy which asks for nothing else costs nothing
else. Which sites can be drawn before which others, and which are sequences, is found from how their distributions depend on
planted values (`ppvi.compiler.sequences`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import jax
import jax.numpy as jnp
from jax import lax

from ppvi.compiler.dependence import Lanes, own_axes
from ppvi.compiler.sequences import fitting, groups, meets, pasts, time_of
from ppvi.engine.runs import Run
from ppvi.engine.sessions import Session
from ppvi.engine.sites import Arrays, Site, SiteRecord, refuse_shape
from ppvi.ir import AxisMap, Candidate, SiteInfo
from ppvi.numpyro import _compat
from ppvi.numpyro._bodies import Found, Inside, Interpreter, Sites, folded
from ppvi.numpyro._compat import ClosedJaxpr
from ppvi.numpyro._flows import of_body
from ppvi.numpyro._handlers import Around
from ppvi.numpyro._markers import ask_given, is_asking, mark_lifted, mark_record, rest_p, site_p
from ppvi.numpyro._ops import OPS
from ppvi.numpyro._stage import Reader
from ppvi.strategies.zero import log_weights

traced_afresh = jax.make_user_context(None)
"""JAX traces a body once for all programs that share it; markers are of one program only."""


class Asking:
    """`ppvi.engine.protocol.Bodies`: sites leave markers for what they are given and for what is recorded of them."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def place(self, site: Site, value: Any, role: str, where: str) -> Any:
        self.given[site.name] = value
        # Of a distribution its shapes only: what is traced must not outlive its trace.
        shapes = (tuple(site.fn.batch_shape), tuple(site.fn.event_shape))
        check = functools.partial(refuse_shape, site.name, shapes, role, lambda: where)
        return ask_given(jnp.zeros(site.fn.shape(), value.dtype), site.name, check)

    def record(self, record: SiteRecord, arrays: Arrays) -> Any:
        return mark_record(record, arrays)


def run_lifted(session: Session, run: Run, program: Callable[[], Any], around: Callable[[], Around]) -> Any:
    """Run a program whose sites may be under control flow, with handlers around it that tell of them; what it returns."""
    static: list[Any] = []

    def traced() -> list[Any]:
        with (handler := around()):
            returned = program()
        leaves, structure = jax.tree.flatten((returned, handler.states))
        static[:] = [structure, [None if _is_array(leaf) else leaf for leaf in leaves]]
        return [leaf for leaf in leaves if _is_array(leaf)]

    asking = Asking()
    with traced_afresh(object()), _compat.all_recorded(), session.within(bodies=asking):
        closed = jax.make_jaxpr(traced)()
    keys = iter(lambda: session.engine.key(session.scope), None)
    outside = Outside(keys, asking.given, session.marks is not None, run)
    arrays = iter(outside.evaluate(closed.jaxpr, closed.consts, ()))
    structure, leaves = static
    returned, states = jax.tree.unflatten(structure, [next(arrays) if leaf is None else leaf for leaf in leaves])
    session.engine.modules.ran(states)
    return returned


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def lifted(closed: ClosedJaxpr, key: Callable[[Sequence[Any]], Any]) -> ClosedJaxpr:
    """A whole objective, with the sites lifted out that it draws in bodies of its own.

    **Arguments**

    - `key`: a key for them, from the objective's inputs.
    """
    if not any(is_asking(eqn) for eqn in closed.eqns):
        return closed

    def run(*args: Any) -> list[Any]:
        keys = (jax.random.fold_in(key(args), i) for i in itertools.count())
        return Outside(keys, {}, marking=True).evaluate(closed.jaxpr, closed.consts, args)

    return jax.make_jaxpr(run)(*closed.in_avals)


@final
class Outside(Interpreter):
    """A program itself: what its operations tell goes to its run, and their sites are marked."""

    def __init__(self, keys: Iterator[Any], given: Mapping[str, Any], marking: bool, run: Run | None = None):
        self.sites, self.keys, self.given, self.marking, self.run = Sites(), keys, given, marking, run

    def record(self, record: SiteRecord, arrays: Arrays) -> None:
        assert self.run is not None
        if record.deterministic:
            self.run.deterministic[record.name] = arrays.value
            return
        self.run.refuse_second(record.name, lambda: record.where)
        self.run.record(record, arrays)

    def site(self, params: Mapping[str, Any], values: list[Any]) -> Any:
        return site_p.bind(*values, **params)

    def plain(self, eqn: Any, values: list[Any]) -> Sequence[Any]:
        return _compat.bind(eqn, values)

    def control(self, eqn: Any, values: list[Any]) -> Sequence[Any]:
        whole = Whole(self.sites, eqn, next(self.keys), self.given, values)
        found = whole.run({}, {})
        if self.marking:
            found = self.marked(whole, found)
        outs, recorded, _ = found
        for name, arrays in recorded.items():
            self.record(self.sites.records[name], arrays)
        return outs

    def marked(self, whole: Whole, found: Found) -> Found:
        """The operation as a function of its sites, with every site marked."""
        credited = [n for n in found[2] if self.sites.infos[n].candidates[0].strategy.route != "path"]
        steps = whole.steps(credited, found) if credited else {}
        planted: dict[int, Any] = {}
        for group, sequential in groups(steps):
            operands = {n: found[2][n] for n in group}
            infos = {n: self.sites.infos[n] for n in group}
            past: dict[int, dict[SiteInfo, Lanes]] = {n: {} for n in group}
            if sequential:
                own = {n: own_axes(operands[n][0].shape[: self.sites.mapped[n] + infos[n].ndim]) for n in group}
                for n in group:
                    infos[n], operands[n] = self.sequence(
                        whole, n, group, own[n], steps[n].get(n, ()), planted, operands[n]
                    )
                past = {
                    n: {infos[m]: lanes for m, lanes in lanes_of.items()} for n, lanes_of in pasts(own, steps).items()
                }
            planted |= {n: mark_lifted(infos[n], operands[n], self.sites.mapped[n], past[n]) for n in group}
            found = whole.rest(planted, group, found)
        names = [self.sites.infos[n].name for n in found[2]]
        for n, operands in found[2].items():
            if n not in planted:
                info = self.sites.infos[n]
                value = mark_lifted(info, operands, self.sites.mapped[n], {})
                # Of two sites that share a name, in two branches, each has its draw in its own branch only.
                if info.name in found[1] and names.count(info.name) == 1:
                    found[1][info.name] = found[1][info.name]._replace(value=value)
        return found

    def sequence(
        self,
        whole: Whole,
        n: int,
        group: Sequence[int],
        own: Lanes,
        step: AxisMap,
        planted: Mapping[int, Any],
        operands: list[Any],
    ) -> tuple[SiteInfo, list[Any]]:
        """A site whose lanes are drawn one after the other: what its strategies need of the sequence as a whole."""
        time = time_of(own, step)
        others = [self.sites.infos[m] for m in group if m != n]
        info = fitting(self.sites.infos[n], others, time is not None)
        candidates = []
        for candidate in info.candidates:
            if candidate.strategy.chained == "draws":
                operands = _trajectories(whole, n, candidate, planted, operands)
            elif candidate.strategy.chained == "chain" and time is not None:
                candidate, operands = _chain(whole, n, candidate, planted, operands, *time)
            candidates.append(candidate)
        return replace(info, candidates=tuple(candidates)), operands


@dataclass(frozen=True)
class Whole:
    """An operation with sites, as a function of the values of some of them."""

    sites: Sites
    eqn: Any
    key: Any
    given: Mapping[str, Any]
    values: Sequence[Any]

    def run(self, planted: Mapping[int, Any], picks: Mapping[int, Any]) -> Found:
        return Inside(self.sites, folded(self.key), self.given, planted, picks).anew(self.eqn, self.values)

    def staged(self, planted: Mapping[int, Any]) -> tuple[ClosedJaxpr, list[Any]]:
        """The operation as a function of the planted values and of everything else, which is also returned."""
        others = [self.key, dict(self.given), list(self.values)]

        def run(planted: Mapping[int, Any], others: Any) -> Found:
            key, given, values = others
            return replace(self, key=key, given=given, values=values).run(planted, {})

        return jax.make_jaxpr(run)(dict(planted), others), jax.tree.leaves(others)

    def steps(self, credited: Sequence[int], found: Found) -> dict[int, dict[int, AxisMap]]:
        """For each credited site the sites that its draw is a function of, and where their axes lie in it."""
        closed, _ = self.staged({n: found[2][n][0] for n in credited})
        flow = of_body(closed, Reader)
        numbered = jax.tree.unflatten(jax.tree.structure(found), range(len(flow)))
        order, shapes = sorted(credited), {n: found[2][n][0].shape for n in credited}

        def past(n: int) -> dict[int, AxisMap]:
            maps = zip(order, flow[numbered[2][n][0]], strict=False)
            return {m: axes for m, axes in maps if axes is not None and meets(axes, shapes[m], shapes[n])}

        return {n: past(n) for n in credited}

    def rest(self, planted: Mapping[int, Any], latest: Sequence[int], found: Found) -> Found:
        """The operation as a function of the planted values; at the draws of the latest of them it found this, which is all
        that there is of a result in which none of the values plays a part."""
        closed, others = self.staged(planted)
        before, structure = jax.tree.flatten(found)
        order = sorted(planted)
        fresh = tuple(order.index(n) for n in latest)
        values = [*before, *[planted[n] for n in order], *others]
        after = rest_p.bind(*values, jaxpr=closed, before=len(before), fresh=fresh)
        moved = [any(axes is not None for axes in maps[: len(order)]) for maps in of_body(closed, Reader)]
        results = [new if moves else old for new, old, moves in zip(after, before, moved, strict=True)]
        return jax.tree.unflatten(structure, results)


def _trajectories(
    whole: Whole, n: int, candidate: Candidate, planted: Mapping[int, Any], operands: list[Any]
) -> list[Any]:
    """Further draws of all lanes, each drawn given the further draws before."""
    places, mapped = _places(candidate), whole.sites.mapped[n]

    def draw(i: Any) -> list[Any]:
        return whole.run(planted, {n: (i, places)})[2][n]

    further = jax.vmap(draw)(jnp.arange(operands[places[0]].shape[mapped]))
    return _replaced(operands, {place: jnp.moveaxis(x, 0, mapped) for place, x in zip(places, further, strict=True)})


def _chain(
    whole: Whole,
    n: int,
    candidate: Candidate,
    planted: Mapping[int, Any],
    operands: list[Any],
    time: int,
    backward: bool,
) -> tuple[Candidate, list[Any]]:
    """A Markov chain's transitions, and its marginals by the forward recursion."""
    (values, log_probs), mapped = _places(candidate), whole.sites.mapped[n]

    def given(value: Any) -> Any:
        return whole.run({**planted, n: value}, {})[2][n][log_probs]

    table = jax.vmap(given)(jnp.moveaxis(operands[values], mapped, 0))
    table = jnp.moveaxis(table, 1 + mapped, 1)
    steps = jnp.moveaxis(table, 2 + time, 0)

    def forward(before: Any, step: Any) -> Any:
        now = (before[:, None] * step).sum(0)
        return now, now

    # Nothing comes before the first draw, so that all rows of its transitions are the same.
    start = steps[-1 if backward else 0][0]
    others = steps[:-1] if backward else steps[1:]
    _, marginals = lax.scan(forward, jnp.exp(start), jnp.exp(others), reverse=backward)
    marginals = log_weights(OPS, marginals)
    ends = [marginals, start[None]] if backward else [start[None], marginals]
    marginals = jnp.moveaxis(jnp.concatenate(ends), 0, 1 + time)
    transitions = jnp.moveaxis(jnp.moveaxis(table, 1, 1 + mapped), 0, mapped)
    operands = [*_replaced(operands, {log_probs: jnp.moveaxis(marginals, 0, mapped)}), transitions]
    return replace(candidate, fields=(*candidate.fields[:-1], len(operands) - 1)), operands


def _places(candidate: Candidate) -> tuple[int, int]:
    """Where the alternatives and their log_probs are among a marker's operands."""
    values, log_probs = candidate.place("values"), candidate.place("log_probs")
    assert values is not None
    assert log_probs is not None
    return values, log_probs


def _replaced(operands: list[Any], by: Mapping[int, Any]) -> list[Any]:
    return [by.get(i, x) for i, x in enumerate(operands)]
