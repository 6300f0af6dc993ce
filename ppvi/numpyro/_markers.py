"""Markers: operations that stand in a traced program for what JAX knows nothing of.

A latent site leaves a *site marker*, an identity on the drawn value that carries its strategies and the arrays that they
asked for; under `vmap` it grows a leading lane axis. A body of control flow, whose values cannot leave it while it is
traced, has markers for what it asks of the outside, a key or a given value, and for what it tells of its sites; they are
answered when the body is run (`ppvi.numpyro._lifting`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ppvi.compiler.dependence import Lanes
from ppvi.engine.sites import Arrays, SiteRecord
from ppvi.errors import EngineError
from ppvi.ir import Along, Note, SiteInfo, further
from ppvi.numpyro import _compat
from ppvi.numpyro._compat import ClosedJaxpr, Primitive, ShapedArray, ad, batching, jaxpr_as_fun, mlir

site_p = Primitive("ppvi_site")
note_p = Primitive("ppvi_note")
outcome_p = Primitive("ppvi_outcome")
key_p = Primitive("ppvi_key")
given_p = Primitive("ppvi_given")
record_p = Primitive("ppvi_record")
rest_p = Primitive("ppvi_rest")
record_p.multiple_results = rest_p.multiple_results = True

for _marker in (site_p, note_p, outcome_p, given_p):
    _marker.def_abstract_eval(lambda value, *others, **params: value)
record_p.def_abstract_eval(lambda *values, **params: values)
key_p.def_abstract_eval(lambda dtype: ShapedArray((), dtype))
rest_p.def_abstract_eval(lambda *values, before, **params: values[:before])

# Notes to the checks mean nothing to whoever runs the program. The other markers have no lowering: one that reached
# execution would be an error, never a silent identity.
mlir.register_lowering(note_p, lambda ctx, value, *others, **params: [value])


# The first two are those of `ppvi.engine.protocol.Marks`.


def mark_site(info: SiteInfo, key: jax.Array, inputs: Sequence[jax.Array]) -> jax.Array:
    return site_p.bind(inputs[0], key, *inputs[1:], info=info, mapped=0, past=())


def mark_note(value: jax.Array, note: Note, *others: jax.Array) -> jax.Array:
    return note_p.bind(value, *others, note=note)


def mark_outcome(value: jax.Array, support: jax.Array, log_probs: jax.Array, tape: Any, lanes: int) -> jax.Array:
    """A draw for which a tape may stand in: what it may choose from lies along the leading axis of the others."""
    return outcome_p.bind(value, support, log_probs, tape=tape, mapped=0, lanes=lanes)


def mark_lifted(info: SiteInfo, operands: Sequence[jax.Array], mapped: int, past: dict[SiteInfo, Lanes]) -> jax.Array:
    """A site in a loop, from its marker's operands in all rounds."""
    return site_p.bind(*operands, info=info, mapped=mapped, past=tuple(past.items()))


def ask_key() -> jax.Array:
    """A fresh key, in every round of every loop around."""
    return key_p.bind(dtype=jax.eval_shape(lambda: jax.random.key(0)).dtype)


def ask_given(like: jax.Array, name: str, check: Callable[[tuple[int, ...]], None]) -> jax.Array:
    """The value that a site is given from outside, of this shape; `check` is told of the shape that it has."""
    return given_p.bind(like, name=name, check=check)


def mark_record(record: SiteRecord, arrays: Arrays) -> jax.Array:
    """What is known of a site; its value."""
    scale = () if arrays.scale is None else (_laid_along(jnp.asarray(arrays.scale), jnp.shape(arrays.log_prob)),)
    return record_p.bind(arrays.value, arrays.log_prob, *scale, *arrays.bounds, record=record, scaled=bool(scale))[0]


def recorded(values: Sequence[Any], scaled: bool) -> Arrays:
    """The arrays of a site's record."""
    value, log_prob, *others = values
    return Arrays(value, log_prob, others[0] if scaled else None, tuple(others[scaled:]))


def _laid_along(scale: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A scale with the axes of its site, ahead of which rounds will come; of one that has more axes, the sum."""
    summed = scale.sum(range(max(0, scale.ndim - len(shape))))
    laid = summed.reshape((1,) * (len(shape) - summed.ndim) + summed.shape)
    return laid.sum([axis for axis, size in enumerate(shape) if size == 1], keepdims=True)


def _batch_site(args: Sequence[Any], dims: Sequence[Any], *, info: SiteInfo, mapped: int, past: Any) -> Any:
    if dims[1] is None:
        raise EngineError(one_key(info.name, info.where))
    moved = tuple((other, (Along(0), *map(further, lanes))) for other, lanes in past)
    return site_p.bind(*_in_front(args, dims), info=info, mapped=mapped + 1, past=moved), 0


def _batch_outcome(
    args: Sequence[Any], dims: Sequence[Any], *, tape: Any, mapped: int, lanes: int
) -> tuple[jax.Array, int]:
    return outcome_p.bind(*_in_front(args, dims), tape=tape, mapped=mapped + 1, lanes=lanes + 1), 0


def _in_front(args: Sequence[Any], dims: Sequence[Any], size: int | None = None) -> list[jax.Array]:
    """Everything with the mapped axis in front, repeated along it where it has none."""
    size = size or next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
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


def _batch_record(args: Sequence[Any], dims: Sequence[Any], *, record: SiteRecord, scaled: bool) -> Any:
    raise EngineError(
        f"site {record.name!r} at {record.where} is inside jax.vmap, so that it has more lanes than it is seen to have. Use a "
        f"plate for independent copies."
    )


def _batch_rest(
    args: Sequence[Any], dims: Sequence[Any], *, jaxpr: ClosedJaxpr, before: int, fresh: tuple[int, ...]
) -> Any:
    batched = jax.make_jaxpr(jax.vmap(jaxpr_as_fun(jaxpr), in_axes=dims[before:]))(*args[before:])
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    stacked = _in_front(args[:before], dims[:before], size)
    outs = rest_p.bind(*stacked, *args[before:], jaxpr=batched, before=before, fresh=fresh)
    return outs, [0] * len(outs)


def _differentiate_site(primals: Any, tangents: Any, **params: Any) -> Any:
    info = params["info"] if "info" in params else params["record"]
    raise EngineError(
        f"site {info.name!r} at {info.where} is drawn inside jax.grad, jvp or a custom derivative rule of the objective: "
        f"the derivative of a draw there has no meaning. Draw outside and differentiate a density instead."
    )


batching.primitive_batchers[site_p] = _batch_site
batching.primitive_batchers[outcome_p] = _batch_outcome
batching.primitive_batchers[record_p] = _batch_record
batching.primitive_batchers[rest_p] = _batch_rest
ad.primitive_jvps[site_p] = ad.primitive_jvps[record_p] = _differentiate_site
batching.primitive_batchers[note_p] = lambda args, dims, note: (note_p.bind(*_in_front(args, dims), note=note), 0)
ad.primitive_jvps[note_p] = lambda primals, tangents, note: (note_p.bind(*primals, note=note), tangents[0])


ASKING = frozenset({site_p, key_p, given_p, record_p, outcome_p})


def asking_in(params: Any) -> Iterator[Any]:
    """The markers, at any depth in the bodies among an operation's parameters, that their surroundings must answer."""
    for body in _compat.bodies_in(params):
        for eqn in body.eqns:
            yield from (eqn,) if eqn.primitive in ASKING else asking_in(eqn.params)


def is_asking(eqn: Any) -> bool:
    """Whether a body of an operation has such a marker."""
    return any(True for _ in asking_in(eqn.params))


def sites_in(params: Any) -> list[SiteInfo]:
    """The sites that are drawn in the bodies among an operation's parameters."""
    return [eqn.params["info"] for eqn in asking_in(params) if eqn.primitive is site_p]


def given_in(params: Any) -> list[str]:
    """The names of the sites there that are given a value."""
    return list(dict.fromkeys(eqn.params["name"] for eqn in asking_in(params) if eqn.primitive is given_p))


def names_in(params: Any) -> list[str]:
    """The names of all sites there."""
    noted = {record_p: "record", site_p: "info"}
    found = (eqn.params[noted[eqn.primitive]].name for eqn in asking_in(params) if eqn.primitive in noted)
    return list(dict.fromkeys(found))
