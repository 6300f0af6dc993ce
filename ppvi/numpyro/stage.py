"""Staging: an objective, run once under effect handlers, becomes the compiler's straight-line program.

JAX traces the objective into a jaxpr; a latent site leaves in it a *site marker*, an identity on the drawn value that
carries its strategies and the arrays that they asked for. Under `vmap` a marker grows a leading lane axis. Here the
jaxpr becomes `ppvi.compiler.ir`: bodies of `jit` are inlined, and a marker inside any other operation with a body is
refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal as JaxLiteral, Primitive
from jax.interpreters import ad, batching

from ppvi.compiler.dependence import body_flow
from ppvi.compiler.ir import Atom, Density, Equation, Flow, Literal, Program, SiteInfo, Var
from ppvi.errors import EngineError
from ppvi.numpyro import lookup, meanings, rules, source

INLINED = frozenset({"jit", "pjit", "closed_call", "core_call"})
"""Operations whose bodies are inlined."""

# Markers --------------------------------------------------------------------------------------------------------------
# None has a lowering: a marker that reached execution would be an error, never a silent identity.

site_p = Primitive("ppvi_site")
log_prob_p = Primitive("ppvi_log_prob")
estimate_p = Primitive("ppvi_estimate")
because_p = Primitive("ppvi_because")
outcome_p = Primitive("ppvi_outcome")
for _marker in (site_p, log_prob_p, estimate_p, because_p, outcome_p):
    _marker.def_abstract_eval(lambda value, *others, **params: value)


# The first four are those of `ppvi.engine.sessions.Marks`.


def mark_site(info: SiteInfo, key: jax.Array, inputs: Sequence[jax.Array]) -> jax.Array:
    return site_p.bind(inputs[0], key, *inputs[1:], info=info, mapped=0)


def mark_density(log_prob: jax.Array, info: Density, bounds: Sequence[jax.Array]) -> jax.Array:
    return log_prob_p.bind(log_prob, *bounds, info=info)


def mark_estimate(value: jax.Array, what: str) -> jax.Array:
    return estimate_p.bind(value, what=what)


def mark_because(value: jax.Array, because: str) -> jax.Array:
    return because_p.bind(value, because=because)


def mark_outcome(value: jax.Array, support: jax.Array, log_probs: jax.Array, tape: Any, lanes: int) -> jax.Array:
    """A draw for which a tape may stand in: what it may choose from lies along the leading axis of the others."""
    return outcome_p.bind(value, support, log_probs, tape=tape, mapped=0, lanes=lanes)


def _batch_site(args: Sequence[Any], dims: Sequence[Any], *, info: SiteInfo, mapped: int) -> tuple[jax.Array, int]:
    if dims[1] is None:
        raise EngineError(one_key(info.name, info.where))
    return site_p.bind(*_in_front(args, dims), info=info, mapped=mapped + 1), 0


def _batch_outcome(
    args: Sequence[Any], dims: Sequence[Any], *, tape: Any, mapped: int, lanes: int
) -> tuple[jax.Array, int]:
    return outcome_p.bind(*_in_front(args, dims), tape=tape, mapped=mapped + 1, lanes=lanes + 1), 0


def _in_front(args: Sequence[Any], dims: Sequence[Any]) -> list[jax.Array]:
    """Everything with the mapped axis in front, repeated along it where it has none."""
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    return [
        jnp.broadcast_to(x, (size, *jnp.shape(x))) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(args, dims, strict=True)
    ]


def one_key(site: str, where: str) -> str:
    """Message for a site that is drawn under a foreign `vmap`."""
    return (
        f"site {site!r} at {where} is drawn under jax.vmap, where every lane would share one draw. "
        f"Use ppvi.replicate(n, thunk), which draws afresh in every run, or a plate."
    )


def _differentiate_site(primals: Any, tangents: Any, *, info: SiteInfo, mapped: int) -> Any:
    raise EngineError(
        f"site {info.name!r} at {info.where} is drawn inside jax.grad, jvp or a custom derivative rule of the objective: "
        f"the derivative of a draw there has no meaning. Draw outside and differentiate a density instead."
    )


batching.primitive_batchers[site_p] = _batch_site
batching.primitive_batchers[outcome_p] = _batch_outcome
ad.primitive_jvps[site_p] = _differentiate_site
for _identity in (log_prob_p, estimate_p, because_p):
    batching.primitive_batchers[_identity] = lambda args, dims, p=_identity, **params: (
        p.bind(*args, **params),
        dims[0],
    )
    ad.primitive_jvps[_identity] = lambda primals, tangents, p=_identity, **params: (
        p.bind(*primals, **params),
        tangents[0],
    )


# From jaxpr to program ------------------------------------------------------------------------------------------------


def stage(function: Callable[..., jax.Array], params: Any, *inputs: Any) -> Program:
    """Trace `function(params, *inputs)` into a program; the params' leaves come first among its inputs."""
    closed = jax.make_jaxpr(function)(params, *inputs)
    reader = Reader()
    variables = [reader.variable(v) for v in closed.jaxpr.invars]
    constants = {reader.variable(v): x for v, x in zip(closed.jaxpr.constvars, closed.consts, strict=True)}
    reader.read(closed.jaxpr)
    return Program(
        inputs=tuple(variables),
        params=frozenset(variables[: len(jax.tree.leaves(params))]),
        constants=constants,
        equations=tuple(reader.equations),
        output=reader.atom(closed.jaxpr.outvars[0]),
    )


class Reader:
    """Reads jaxprs into equations, inlining as it goes."""

    def __init__(self, call: Any = None) -> None:
        self.atoms: dict[Any, Atom] = {}
        self.equations: list[Equation] = []
        self.call = call
        self.drawn: set[int] = set()

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
            inner = rules.body(eqn)
            if eqn.primitive.name in INLINED and inner is not None:
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

    def refuse_second_draw(self, eqn: Any, where: Callable[[], str]) -> None:
        """JAX traces a jitted function once, so a second call of it would draw with the keys of the first."""
        if id(eqn) in self.drawn:
            raise EngineError(
                f"site {eqn.params['info'].name!r} at {eqn.params['info'].where} is drawn by a jitted function that the "
                f"objective calls more than once (at {where()}), and every call would give the same draw. Remove the inner "
                f"jit, which changes nothing here, or use ppvi.replicate."
            )
        self.drawn.add(id(eqn))

    def equation(self, eqn: Any) -> Equation:
        inputs = tuple(self.atom(var) for var in eqn.invars)
        outputs = tuple(self.variable(var) for var in eqn.outvars)
        name = eqn.primitive.name
        call, inner = self.call or eqn, functools.partial(Reader, self.call)
        where = _where(call)
        if eqn.primitive is site_p:
            self.refuse_second_draw(eqn, where)
            return Equation(
                name, inputs, outputs, _first, _unused, where, site=eqn.params["info"], mapped=eqn.params["mapped"]
            )
        if eqn.primitive is outcome_p:
            return Equation(name, inputs, outputs, _next_of(**eqn.params), lambda: _identity_flow(inputs), where)
        if eqn.primitive in (log_prob_p, estimate_p, because_p):
            return Equation(
                name,
                inputs,
                outputs,
                _first,
                lambda: _identity_flow(inputs),
                where,
                linear=(frozenset({0}),),
                meaning=lambda: meanings.meaning(eqn, call, inner),
                density=eqn.params.get("info"),
                estimate_of=eqn.params.get("what"),
                because=eqn.params.get("because"),
            )
        _refuse_markers(eqn, where)
        return Equation(
            name,
            inputs,
            outputs,
            _runner(eqn),
            lambda: _flow(eqn),
            where,
            linear=rules.linear(eqn),
            additive=name in rules.ADDITIVE,
            split=_splitter(eqn, inputs, outputs, where) if name == "reduce_sum" else None,
            effect=bool(eqn.effects) and not outputs,
            differentiable=name != "stop_gradient" and any(rules.is_float(var) for var in eqn.outvars),
            meaning=lambda: meanings.meaning(eqn, call, inner),
        )


def _where(eqn: Any) -> Callable[[], str]:
    return lambda: source.of(eqn.source_info.traceback)


def _first(value: jax.Array, *others: jax.Array) -> tuple[jax.Array]:
    return (value,)


def _next_of(tape: Any, mapped: int, lanes: int) -> Callable[..., tuple[jax.Array]]:
    return lambda *values: (tape.read(*values, mapped=mapped, lanes=lanes),)


def _identity_flow(inputs: Sequence[Atom]) -> Flow:
    return [[tuple(range(len(inputs[0].shape))), *(None for _ in inputs[1:])]]


def _unused() -> Flow:
    raise AssertionError("a site's dependence is the compiler's own rule")


def _runner(eqn: Any) -> Callable[..., Sequence[jax.Array]]:
    primitive = eqn.primitive

    def run(*values: jax.Array) -> Sequence[jax.Array]:
        out = primitive.bind(*values, **primitive.get_bind_params(eqn.params))
        return out if primitive.multiple_results else (out,)

    def run_lookup(table: jax.Array, indices: jax.Array) -> Sequence[jax.Array]:
        return (lookup.look_up(table, indices, eqn.params["mode"], eqn.params["fill_value"]),)

    if lookup.is_small_lookup(eqn):
        return run_lookup
    if primitive.name == "abs" and rules.is_float(eqn.invars[0]):
        return _symmetric_abs

    def run_on_reals(*values: jax.Array) -> Sequence[jax.Array]:
        return run(*_promoted(values)) if any(map(_is_real, values)) else run(*values)

    # A sum of integers may be asked to add weighted terms, which are real numbers.
    integers = not any(rules.is_float(var) for var in (*eqn.invars, *eqn.outvars))
    return run_on_reals if integers and rules.linear(eqn) else run


def _symmetric_abs(x: jax.Array) -> Sequence[jax.Array]:
    """|x| of derivative 0 at 0, midway between its two sides, as JAX has it for max(x, 0).

    JAX's own abs takes one side, 1. Stable formulas of smooth functions, such as the max(x, 0) + log1p(exp(-|x|)) of a
    Bernoulli density in its logit x, are right at 0 only if both take the middle, and 0 is where logits begin.
    """
    return (x * lax.stop_gradient(jnp.sign(x)),)


def _is_real(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.floating)


def _promoted(values: Sequence[jax.Array]) -> list[jax.Array]:
    dtype = jnp.result_type(*values)
    return [jnp.asarray(value, dtype) for value in values]


def _flow(eqn: Any) -> Flow:
    inner = rules.body(eqn)
    if inner is None or eqn.primitive.name not in {"custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint"}:
        return rules.flow(eqn)
    reader = Reader()
    inputs = tuple(reader.variable(var) for var in inner.jaxpr.invars)
    reader.bind(inner, inputs)
    reader.read(inner.jaxpr)
    return body_flow(inputs, tuple(reader.equations), tuple(reader.atom(var) for var in inner.jaxpr.outvars))


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


def _refuse_markers(eqn: Any, where: Callable[[], str]) -> None:
    for info in _markers(eqn.params):
        raise EngineError(
            f"site {info.name!r} at {info.where} is drawn inside `{eqn.primitive.name}` (at {where()}): sites under "
            f"control flow are not supported. Move the site out of it: draw all values at once in a plate or by "
            f"ppvi.replicate, and pass them in."
        )


def _markers(params: Any) -> list[SiteInfo]:
    found: list[SiteInfo] = []
    for leaf in jax.tree.leaves(list(params.values()), is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr)):
        jaxpr = leaf.jaxpr if isinstance(leaf, ClosedJaxpr) else leaf
        if not isinstance(jaxpr, Jaxpr):
            continue
        for eqn in jaxpr.eqns:
            found += [eqn.params["info"]] if eqn.primitive is site_p else _markers(eqn.params)
    return found
