"""What ppvi reads of JAX's and NumPyro's internals, and all that their versions differ in.

JAX promises neither the names of its operations nor their parameters, nor what is in `jax.extend`, `jax.interpreters` and
`jax.core`. All of it that is used comes from here (`tests/test_layers.py`), and `tests/numpyro/test_surface.py` says which name
a version lacks. Every operation with a body says here in words of its own what it holds, whichever version made it, and
`tests/numpyro/test_compat.py` holds each of them to what the operation does.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jax import lax
from jax._src import config as _config, core as _core, xla_bridge as _backends
from jax._src.lax import linalg as _linalg
from jax._src.lax.other import logaddexp as logaddexp
from jax.core import ShapedArray as ShapedArray, Tracer as Tracer
from jax.experimental import multihost_utils as multihost_utils
from jax.extend.core import (
    ClosedJaxpr as ClosedJaxpr,
    Jaxpr as Jaxpr,
    Literal as Literal,
    Primitive as Primitive,
    jaxpr_as_fun as jaxpr_as_fun,
)
from jax.extend.source_info_util import user_context as user_context
from jax.interpreters import ad as ad, batching as batching, mlir as mlir
from jax.interpreters.partial_eval import dce_jaxpr
from numpyro.contrib.control_flow.cond import cond_wrapper as cond_wrapper
from numpyro.contrib.control_flow.scan import scan_wrapper as scan_wrapper
from numpyro.distributions import Distribution, ExpandedDistribution
from numpyro.infer.autoguide import AutoContinuous
from numpyro.ops.pytree import PytreeTrace as PytreeTrace
from numpyro.optim import _NumPyroOptim
from numpyro.primitives import _PYRO_STACK, CondIndepStackFrame as CondIndepStackFrame


def enable_x64(on: bool) -> AbstractContextManager[Any]:
    """A context in which numbers are in double precision, or not."""
    return (jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")).enable_x64(on)


Trace = _core.Trace
typeof = jax.typeof
Body = TypeVar("Body", Jaxpr, ClosedJaxpr)

SPELT: dict[str, Callable[..., Any]] = {
    "log2": lambda x, **how: lax.log(x) / math.log(2),
    "one_minus_square": lambda x: (1 + x) * (1 - x),
    "unstack": lambda x, axis: [lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])],
}
"""Operations that the checks read as what these are made of: some versions of JAX have them, and others spell them out."""

INLINED = frozenset("jit closed_call core_call eval_jaxpr unstack".split())
"""Operations that are nothing but their body."""
RULED = frozenset("custom_jvp_call custom_vjp_call call_hi_primitive".split())
"""Operations whose body has a derivative rule of its own."""
REMAT = "remat2"
ONE_RUN = INLINED | RULED | {REMAT}
"""Operations that run their one body once."""

BODIES = ("jaxpr", "call_jaxpr")
"""The parameters that hold the one body of an operation."""
_HIGH = "_prim"
"""The parameter that holds an operation which is an object, with `params` and an `expand` of its own (JAX 0.11 and later)."""


class Scan(NamedTuple):
    """A loop: the first operands are the same in every round, the next are carried, and the others give each round an entry."""

    body: ClosedJaxpr
    fixed: int
    carried: int
    how: Mapping[str, Any]
    """The options of `lax.scan`: length, reverse, unroll."""

    @property
    def start(self) -> int:
        """The number of the first operand of which each round gets an entry."""
        return self.fixed + self.carried


class While(NamedTuple):
    """A loop of which a test of what it carries decides how long it runs: the first operands are constants of the test, the
    next those of the body."""

    test: ClosedJaxpr
    tested: int
    body: ClosedJaxpr
    fixed: int


class LinearSolve(NamedTuple):
    """A solution x of A x = b, with constants of the solver, the operator and their transposes ahead of b."""

    solve: ClosedJaxpr
    constants: int


def scan(eqn: Any) -> Scan:
    """What an equation of `lax.scan` holds."""
    params = eqn.params
    if "ft_in" in params:
        fixed, carried, _ = map(len, params["ft_in"].unpack())
    else:
        fixed, carried = params["num_consts"], params["num_carry"]
    return Scan(params["jaxpr"], fixed, carried, {name: params[name] for name in ("length", "reverse", "unroll")})


def while_loop(eqn: Any) -> While:
    """What an equation of `lax.while_loop` holds."""
    params = eqn.params
    return While(params["cond_jaxpr"], params["cond_nconsts"], params["body_jaxpr"], params["body_nconsts"])


def branches(eqn: Any) -> Sequence[ClosedJaxpr]:
    """The branches of an equation of `lax.cond` or `lax.switch`, whose first operand is the number of one."""
    return eqn.params["branches"]


def linear_solve(eqn: Any) -> LinearSolve:
    """What an equation of `lax.custom_linear_solve` holds."""
    return LinearSolve(eqn.params["jaxprs"].solve, sum(eqn.params["const_lengths"]))


def applies(eqn: Any) -> bool:
    """Whether it is `x.at[i].apply(f)`, of which JAX knows no derivative: f may be any code."""
    return eqn.primitive.name == "scatter" and eqn.params["update_jaxpr"] is not None


def body(eqn: Any) -> ClosedJaxpr | None:
    """The one body of an operation such as jit, custom_jvp_call or checkpoint."""
    if eqn.primitive.name in SPELT:
        return _spelt(eqn.primitive.name, eqn.invars[0].aval, **eqn.params)
    found = next((eqn.params[name] for name in BODIES if name in eqn.params), None)
    if isinstance(found, ClosedJaxpr):
        return found
    if isinstance(found, Jaxpr):
        return ClosedJaxpr(found, ())
    return _expanded(eqn.params[_HIGH]) if _HIGH in eqn.params else None


@functools.lru_cache(maxsize=256)
def _spelt(name: str, operand: Any, **params: Any) -> ClosedJaxpr:
    return jax.make_jaxpr(functools.partial(SPELT[name], **params))(operand)


@functools.lru_cache(maxsize=256)
def _expanded(operation: Any) -> ClosedJaxpr:
    """The body of an operation that is an object: what it does, in operations that are none."""

    def run(*leaves: Any) -> Sequence[Any]:
        return jax.tree.leaves(operation.expand(*jax.tree.unflatten(operation.in_tree, leaves)))

    return jax.make_jaxpr(run)(*operation.in_avals_flat)


def operations(eqns: Iterable[Any]) -> Iterator[str]:
    """The names of operations, and of those in their bodies."""
    for eqn in eqns:
        yield eqn.primitive.name
        for body in bodies_in(eqn.params):
            yield from operations(body.eqns)


def bodies_in(params: Mapping[str, Any]) -> Iterator[Jaxpr]:
    """All bodies among the parameters of an operation."""
    params = params[_HIGH].params if _HIGH in params else params
    for leaf in jax.tree.leaves(list(params.values()), is_leaf=is_body):
        if is_body(leaf):
            yield leaf.jaxpr if isinstance(leaf, ClosedJaxpr) else leaf


def is_body(x: Any) -> bool:
    """Whether it is a program, with its constants or without."""
    return isinstance(x, Jaxpr | ClosedJaxpr)


def with_equations(body: Body, equation: Callable[[Any], Any]) -> Body:
    """A program with the same constants that has other equations, each given by that of the program."""
    if isinstance(body, Jaxpr):  # JAX 0.11's ClosedJaxpr is another name of it
        return body.replace(eqns=[equation(eqn) for eqn in body.eqns])
    return body.replace(jaxpr=with_equations(body.jaxpr, equation))


def bind(eqn: Any, values: Sequence[Any]) -> Sequence[Any]:
    """What an equation returns as it stands. A derivative rule may index its residuals by what is traced, as NumPy's arrays
    cannot be."""
    arrays = [jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in values]
    params = eqn.primitive.get_bind_params(eqn.params)
    functions, params = params if isinstance(params, tuple) else ((), params)  # apart in JAX 0.7
    out = eqn.primitive.bind(*functions, *arrays, **params)
    return out if eqn.primitive.multiple_results else (out,)


def only(closed: ClosedJaxpr, wanted: Collection[int]) -> tuple[ClosedJaxpr, list[int]]:
    """What computes some of the outputs, and the numbers of the inputs that it needs, which are its own."""
    jaxpr, needed = dce_jaxpr(closed.jaxpr, [number in wanted for number in range(len(closed.jaxpr.outvars))])
    return ClosedJaxpr(jaxpr, closed.consts), [number for number, need in enumerate(needed) if need]


@functools.cache
def xla_knows(option: str, value: Any) -> bool:
    """Whether programs can be compiled with an option of XLA's, of which versions differ."""
    try:
        jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def once() -> dict[str, Any]:
    """Options of programs that run once: what level 2 adds takes longer than it saves."""
    option, value = "xla_backend_optimization_level", 1
    return {option: value} if xla_knows(option, value) else {}


def key_kind(dtype: Any) -> tuple[str, tuple[int, ...]]:
    """The name of a kind of random keys, and the shape of the words of one."""
    return dtype._impl.name, dtype._impl.key_shape


def is_split(aval: Any) -> bool:
    """Whether a type says itself over which devices its axes are split."""
    spec = getattr(getattr(aval, "sharding", None), "spec", ())
    return any(axis is not None for axis in spec) or bool(getattr(aval, "vma", ()))


def are_threefry(avals: Iterable[Any]) -> bool:
    """Whether the keys among arrays are of JAX's default kind, which gives the same bits one by one and under `vmap`."""
    keys = [x for x in avals if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    return all(key_kind(x.dtype)[0] == "threefry2x32" for x in keys)


def threefry_by_place() -> bool:
    """Whether such keys draw each number by its place alone, as they do by default since JAX 0.5."""
    return _config.threefry_partitionable.value


def looks_for_nans() -> bool:
    """Whether JAX is asked to break off where a number is none."""
    return _config.debug_nans.value or _config.debug_infs.value


def is_unsaid(sharding: Any) -> bool:
    """Whether a function that is compiled says nothing of where an array is."""
    return sharding is None or type(sharding).__name__ == "UnspecifiedValue"


def written_at(body: ClosedJaxpr) -> tuple[str, str]:
    """The name of the function that a body is the trace of, and its file; empty where JAX does not say."""
    name, _, source = (body.jaxpr.debug_info.func_src_info or "").partition(" at ")
    return name, source.partition(":")[0]


_CALLS_OF_LAPACK = """cholesky eig eigh geqp3 geqrf hessenberg householder_product lu ormqr schur svd triangular_solve
    tridiagonal tridiagonal_solve""".split()
LAPACK = tuple(getattr(_linalg, f"{name}_p") for name in _CALLS_OF_LAPACK if hasattr(_linalg, f"{name}_p"))
"""What jaxlib calls LAPACK for. (The product with the Q of a QR decomposition is an operation since JAX 0.10.)"""


def lowering_on_cpu(primitive: Any) -> Callable[..., Any]:
    """How an operation is lowered on CPUs."""
    return mlir._platform_specific_lowerings["cpu"][primitive].rule


JAXLIB = tuple(int(part) for part in jaxlib.version.__version__.split(".")[:3] if part.isdecimal())
"""The version of jaxlib, which has XLA in it."""


def cpu_starts_within(context: Callable[[], AbstractContextManager[Any]]) -> bool:
    """Have the backend of CPUs start within a context; whether it has not started yet."""
    if "cpu" in _backends._backends:
        return False
    registration = _backends._backend_factories["cpu"]
    factory = registration.factory

    def start() -> Any:
        with context():
            return factory()

    registration.factory = start
    return True


def current_trace() -> Any:
    """The JAX trace that operations are recorded in at the moment, for comparison by identity."""
    with _core.take_current_trace() as trace:
        return trace


def computes() -> bool:
    """Whether operations are computed at the moment, and not recorded or transformed."""
    return type(current_trace()).__name__ == "EvalTrace"


def transformation() -> str | None:
    """What is around that is being traced or vectorised by JAX, if anything is."""
    return None if computes() else "jax.jit, vmap, grad or scan"


def in_trace(trace: Any) -> AbstractContextManager[Any]:
    """A context in which operations are this trace's; of None they are computed."""
    return _core.set_current_trace(_core.eval_trace if trace is None else trace)


def all_recorded() -> AbstractContextManager[None]:
    """In a trace, operations on numbers are recorded too, which `jax.ensure_compile_time_eval` around it would compute."""
    return _config.eager_constant_folding(False)


# NumPyro --------------------------------------------------------------------------------------------------------------

NumPyroOptim = _NumPyroOptim
HANDLERS: list[Any] = _PYRO_STACK
"""The effect handlers around what runs, the outermost first."""


def support_of(fn: Distribution) -> Any:
    """All values of a finite distribution, `(K, *batch, *event)`."""
    if not isinstance(fn, ExpandedDistribution):
        return fn.enumerate_support(expand=True)
    values = jnp.asarray(fn.enumerate_support(expand=False))  # NumPyro 0.19 cannot expand these
    return jnp.broadcast_to(values, (*values.shape[:1], *fn.batch_shape, *fn.event_shape))


def checks_values(fn: type[Distribution] | Distribution) -> bool | None:
    """Whether a distribution, or each of a class, refuses values outside of its support; None where nobody has said."""
    return fn._validate_args


def is_unchecked(fn: Distribution) -> bool:
    """Whether it has been said of this distribution alone that it refuses none."""
    return vars(fn).get("_validate_args") is False


def leave_unchecked(fn: Distribution) -> None:
    """Have a distribution refuse no value."""
    fn._validate_args = False  # type: ignore[misc]


# NumPyro's autoguides -------------------------------------------------------------------------------------------------


def initial_point(guide: AutoContinuous) -> jax.Array:
    """Where it begins in unconstrained space."""
    return guide._init_latent


def sites_at(guide: AutoContinuous, point: Any) -> Mapping[str, Any]:
    """The parts of a point of unconstrained space, by site."""
    parts: Any = guide._unpack_latent(point)
    return parts
