"""Staging: an objective, run once under effect handlers, becomes the compiler's straight-line program.

JAX traces the objective into a jaxpr; a latent site leaves in it a *site marker*, an identity on the drawn value that
carries its strategies and the arrays that they asked for. Under `vmap` a marker grows a leading lane axis. Here the
jaxpr becomes `ppvi.ir`: bodies of `jit` are inlined. Sites under control flow have been lifted out of it before
(`ppvi.numpyro._lifting`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ppvi.ir import Atom, Equation, Flow, Lifted, Literal, Looped, Meaning, Program, Sited, Summed, Var
from ppvi.numpyro import (
    _compat,
    _lookup as lookup,
    _numbers as numbers,
    _rules as rules,
    _semantics as meanings,
    _source as source,
)
from ppvi.numpyro._compat import ClosedJaxpr, Jaxpr, Literal as JaxLiteral, jaxpr_as_fun, user_context
from ppvi.numpyro._contracts import contract
from ppvi.numpyro._flows import flow, of_body
from ppvi.numpyro._markers import note_p, outcome_p, rest_p, site_p
from ppvi.numpyro._symmetric import symmetric


def stage(function: Callable[..., jax.Array], params: Any, *inputs: Any) -> Program:
    """Trace `function(params, *inputs)` into a program; the params' leaves come first among its inputs."""
    return read(jax.make_jaxpr(function)(params, *inputs), len(jax.tree.leaves(params)))


def read(closed: ClosedJaxpr, params: int) -> Program:
    """A traced objective as a program; so many parameters come first among its inputs."""
    reader, closed = Reader(), symmetric(closed)
    variables = [reader.variable(v) for v in closed.jaxpr.invars]
    constants = {reader.variable(v): x for v, x in zip(closed.jaxpr.constvars, closed.consts, strict=True)}
    reader.read(closed.jaxpr)
    return Program(
        inputs=tuple(variables),
        params=frozenset(variables[:params]),
        constants=constants,
        equations=tuple(reader.equations),
        output=reader.atom(closed.jaxpr.outvars[0]),
    )


class Reader:
    """Reads jaxprs into equations, inlining as it goes."""

    def __init__(self, call: Any = None, again: bool = False) -> None:
        self.again = again
        """Whether operations are traced again, at the place in the user's code where they were."""
        self.atoms: dict[Any, Atom] = {}
        self.equations: list[Equation] = []
        self.sites: dict[Atom, Equation] = {}
        self.call = call

    def variable(self, var: Any) -> Var:
        out = Var(tuple(getattr(var.aval, "shape", ())), str(getattr(var.aval, "dtype", "token")))
        self.atoms[var] = out
        return out

    def atom(self, var: Any) -> Atom:
        if isinstance(var, JaxLiteral):
            return Literal(var.val, tuple(getattr(var.aval, "shape", ())), str(getattr(var.aval, "dtype", "token")))
        return self.atoms[var]

    def read(self, jaxpr: Jaxpr) -> None:
        for eqn in jaxpr.eqns:
            inner = _compat.body(eqn)
            if eqn.primitive.name in _compat.INLINED and inner is not None and contract(eqn) is None:
                self.inline(eqn, inner)
            else:
                self.equations.append(self.equation(eqn))

    def inline(self, eqn: Any, body: ClosedJaxpr) -> None:
        arguments = [self.atom(var) for var in eqn.invars]
        self.bind(body, arguments)
        # JAX caches traces, so a body's own line may be that of an earlier caller: the call's line is the true one.
        outer, self.call = self.call, self.call or eqn
        self.read(body.jaxpr)
        self.call = outer
        self.atoms.update(zip(eqn.outvars, [self.atom(var) for var in body.jaxpr.outvars], strict=True))

    def bind(self, body: ClosedJaxpr, arguments: Sequence[Atom]) -> None:
        """Bind the inputs and constants of a body, anew each time that it is read."""
        self.atoms.update(zip(body.jaxpr.invars, arguments, strict=True))
        for var, value in zip(body.jaxpr.constvars, body.consts, strict=True):
            self.atoms[var] = Literal(value, jnp.shape(value), str(jnp.result_type(value)))

    def equation(self, eqn: Any) -> Equation:
        inputs = tuple(self.atom(var) for var in eqn.invars)
        outputs = tuple(self.variable(var) for var in eqn.outvars)
        name = eqn.primitive.name
        call, inner = self.call or eqn, functools.partial(Reader, self.call, self.again)
        at = functools.partial(_at, call.source_info) if self.again else lambda run: run
        make = functools.partial(Equation, op=name, inputs=inputs, outputs=outputs, where=_where(call))
        same = functools.partial(_identity_flow, inputs)
        if eqn.primitive is site_p:
            role = Sited(eqn.params["info"], eqn.params["mapped"], dict(eqn.params["past"]))
            site = make(run=_first, flow=same, role=role, numbers=_as_is)
            self.sites[outputs[0]] = site
            return site
        if eqn.primitive is rest_p:
            return self.rest(eqn, inputs, make, inner)
        if eqn.primitive is outcome_p:
            return make(run=_next_of(**eqn.params), flow=same)
        meaning = functools.cache(lambda: meanings.meaning(eqn, call, inner))
        if eqn.primitive is note_p:
            linear, role = (frozenset({0}),), eqn.params["note"]
            return make(run=_first, flow=same, linear=linear, meaning=meaning, role=role, numbers=_as_is)
        role = Looped(functools.partial(_scan_of, eqn)) if name == "scan" else None
        if name == "reduce_sum":
            role = Summed(_splitter(eqn, inputs, outputs, _where(call)))
        return make(
            op="xlogx" if name == "custom_jvp_call" and _is_x_log_x(eqn) else name,
            run=at(_runner(eqn)),
            flow=lambda: flow(eqn, Reader),
            linear=rules.linear(eqn),
            additive=name in rules.ADDITIVE,
            effect=bool(eqn.effects) and not outputs,
            differentiable=name != "stop_gradient" and any(rules.is_float(var) for var in eqn.outvars),
            role=role,
            meaning=meaning,
            numbers=functools.partial(numbers.run_of, eqn),
            resized=functools.partial(_other, rules.resized, eqn, at),
            without_rows=functools.partial(_other, rules.without_rows, eqn, at),
        )

    def rest(
        self, eqn: Any, inputs: tuple[Atom, ...], make: Callable[..., Equation], reader: Callable[[], Reader]
    ) -> Equation:
        """The operation that drew some sites, as a function of their values: at the draws it is what it was."""
        body, before, fresh = eqn.params["jaxpr"], eqn.params["before"], eqn.params["fresh"]
        results, values = inputs[:before], inputs[before:]
        draws = tuple(self.sites[values[i]].inputs[0] for i in fresh)
        first = before + len(draws)

        def unless_same(anew: Callable[..., Sequence[Any]], *arrays: Any) -> Sequence[Any]:
            results, draws, values = arrays[:before], arrays[before:first], arrays[first:]
            same = all(draw is values[i] for draw, i in zip(draws, fresh, strict=True))
            return results if same else anew(*values)

        def axes() -> Flow:
            return [[*[None] * first, *maps] for maps in of_body(body, reader)]

        def inline(operands: Sequence[Atom]) -> Any:
            return meanings.inlined(reader, body, operands[first:])

        operands = (*results, *draws, *values)
        meaning = Meaning("rest", inline=inline)
        return make(
            op="rest",
            inputs=operands,
            run=functools.partial(unless_same, jaxpr_as_fun(body)),
            flow=axes,
            role=Lifted(functools.partial(inline, operands)),
            meaning=lambda: meaning,
            numbers=lambda wanted: functools.partial(unless_same, numbers.run_of_body(body)),
        )


def _is_x_log_x(eqn: Any) -> bool:
    """Whether it is JAX's entropy of a number, whose own derivative rule is infinite at 0."""
    body = _compat.body(eqn)
    return body is not None and _compat.written_at(body)[0] == "_xlogx"


def _where(eqn: Any) -> Callable[[], str]:
    return lambda: source.of(eqn.source_info.traceback)


def _first(value: jax.Array, *others: jax.Array) -> tuple[jax.Array]:
    return (value,)


def _as_is(wanted: Collection[int] | None) -> Callable[..., tuple[Any]]:
    return _first


def _next_of(tape: Any, mapped: int, lanes: int) -> Callable[..., tuple[jax.Array]]:
    return lambda *values: (tape.read(*values, mapped=mapped, lanes=lanes),)


def _identity_flow(inputs: Sequence[Atom]) -> Flow:
    return [[tuple(range(len(inputs[0].shape))), *(None for _ in inputs[1:])]]


def _runner(eqn: Any) -> Callable[..., Sequence[jax.Array]]:
    def run(*values: jax.Array) -> Sequence[jax.Array]:
        return _compat.bind(eqn, values)

    def run_lookup(table: jax.Array, indices: jax.Array) -> Sequence[jax.Array]:
        return (lookup.look_up(table, indices, eqn.params["mode"], eqn.params["fill_value"]),)

    if lookup.is_small_lookup(eqn):
        return run_lookup

    def run_on_reals(*values: jax.Array) -> Sequence[jax.Array]:
        return run(*_promoted(values)) if any(map(_is_real, values)) else run(*values)

    # A sum of integers may be asked to add weighted terms, which are real numbers.
    integers = not any(rules.is_float(var) for var in (*eqn.invars, *eqn.outvars))
    return run_on_reals if integers and rules.linear(eqn) else run


Run = Callable[..., Sequence[jax.Array]]


def _other(rule: Callable[..., Any], eqn: Any, at: Callable[[Run], Run], how: Sequence[int]) -> Run | None:
    """How an operation is run in another form that a rule gives it; None where it has none."""
    return None if (other := rule(eqn, how)) is None else at(_runner(other))


def _at(info: Any, run: Run) -> Run:
    def located(*values: jax.Array) -> Sequence[jax.Array]:
        with user_context(info.traceback, name_stack=info.name_stack):
            return run(*values)

    return located


def _scan_of(eqn: Any, body: Callable[..., Sequence[jax.Array]]) -> Callable[..., Sequence[jax.Array]]:
    """A loop with another function for its body."""
    loop = _compat.scan(eqn)
    fixed, carried, start = loop.fixed, loop.carried, loop.start

    def run(*operands: jax.Array) -> Sequence[jax.Array]:
        def step(carry: Sequence[jax.Array], entries: Sequence[jax.Array]) -> Any:
            outs = body(*operands[:fixed], *carry, *entries)
            return outs[:carried], outs[carried:]

        carry, stacked = lax.scan(step, list(operands[fixed:start]), list(operands[start:]), **loop.how)
        return [*carry, *stacked]

    return run


def _is_real(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.floating)


def _promoted(values: Sequence[jax.Array]) -> list[jax.Array]:
    dtype = jnp.result_type(*values)
    return [jnp.asarray(value, dtype) for value in values]


def _splitter(
    eqn: Any, inputs: tuple[Atom, ...], outputs: tuple[Var, ...], where: Callable[[], str]
) -> Callable[[frozenset[int]], tuple[Equation, Equation] | None]:
    """A sum over some axes, taken as a sum over all but `last` followed by the sum over `last`."""

    def summation(x: tuple[Atom, ...], out: tuple[Var, ...], axes: tuple[int, ...]) -> Equation:
        kept = [axis for axis in range(len(x[0].shape)) if axis not in axes]
        flow: Flow = [[tuple(kept.index(axis) if axis in kept else None for axis in range(len(x[0].shape)))]]
        return Equation(
            "reduce_sum",
            x,
            out,
            lambda value: (jnp.sum(value, axis=axes),),
            lambda: flow,
            where,
            linear=(frozenset({0}),),
        )

    def split(last: frozenset[int]) -> tuple[Equation, Equation] | None:
        axes = eqn.params["axes"]
        first = tuple(axis for axis in axes if axis not in last)
        if not first or len(first) == len(axes):
            return None
        shape = tuple(size for axis, size in enumerate(inputs[0].shape) if axis not in first)
        between = Var(shape, outputs[0].dtype)
        rest = tuple(axis - sum(other < axis for other in first) for axis in axes if axis in last)
        return summation(inputs, (between,), first), summation((between,), outputs, rest)

    return split
