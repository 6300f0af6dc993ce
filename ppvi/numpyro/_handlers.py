"""Effect handlers: how NumPyro tells what a program does to a run of `ppvi.engine.runs`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import lax
from numpyro.distributions import constraints
from numpyro.handlers import condition, substitute
from numpyro.primitives import Messenger

from ppvi.engine.minibatches import Part, Plates, Stated, Whole
from ppvi.engine.runs import Run, no_direct_sites
from ppvi.engine.sessions import Session
from ppvi.engine.sites import Site, choices_of, own_scale, unknown_site
from ppvi.errors import EngineError
from ppvi.numpyro import _source as source
from ppvi.numpyro._compat import HANDLERS, PytreeTrace, Tracer, cond_wrapper, current_trace, scan_wrapper
from ppvi.numpyro._minibatches import is_small, rows_of
from ppvi.strategies import Strategy


class strategies(Messenger):  # noqa: N801  (a handler, named as NumPyro names its own)
    """Effect handler that sets gradient strategies by site name.

        guide = ppvi.numpyro.strategies(guide, {"z": ppvi.Enumerate()})

    `infer={"strategy": ...}` at the site does the same; `objective(..., strategies=...)` overrides both.
    """

    def __init__(self, fn: Callable[..., Any] | None = None, choice: Mapping[str, Strategy] | None = None):
        self.choice = choices_of(fn, choice)
        super().__init__(fn)
        self.seen: set[str] = set()

    def __enter__(self) -> None:
        self.seen = set()
        super().__enter__()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        unknown = sorted(self.choice.keys() - self.seen)
        if kind is None and unknown:
            raise unknown_site(unknown[0], self.seen)

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample":
            self.seen.add(msg["name"])
            if msg["name"] in self.choice:
                msg["infer"] = {**msg["infer"], "strategy": self.choice[msg["name"]]}


class InnerSiteError(EngineError):
    """A site in a body of a program that was run as if it had none."""


class Around(Messenger):
    """Around a program: tells its sites to a run, and gives it parameters, keys and minibatches."""

    def __init__(self, run: Run, session: Session, plates: Plates):
        super().__init__()
        self.run = run
        self.session = session
        self.plates = plates
        self.level = current_trace()
        self.states: dict[str, Any] = {}
        """Of modules, which the program changes in place."""

    def process_message(self, msg: Any) -> None:
        kind, name = msg["type"], msg.get("name")
        if kind == "sample":
            self._sample(msg)
        elif kind == "deterministic":
            self.run.keep(name, msg["value"], msg["cond_indep_stack"])
        elif kind == "control_flow":
            msg["fn"] = CONTROL_FLOW[msg["fn"]]
        elif kind == "mutable":
            msg["value"] = self._state(name, msg["args"][0])
        elif kind == "plate":
            self._plate(msg)
        else:
            provide(self.session, msg, self.run.role)
        msg["stop"] = True  # what is around a call is of no program

    def _state(self, name: str, initial: Any) -> Any:
        if name not in self.states and (found := self.session.engine.modules.before(name, initial)) is not None:
            self.states[name] = found
        return self.states.get(name)

    def _plate(self, msg: Any) -> None:
        held = self.plates.meet(stated_by(msg, self.run.role, self.session.here()))
        msg["args"] = held.size, held.count
        if held.rows is not None:
            msg["value"] = held.rows
        elif held.partial:
            msg["value"], msg["kwargs"]["rng_key"] = None, self.session.engine.plate_key(self.session.scope, held.plate)
            if is_small(held.size, held.number):
                msg["fn"] = rows_of
        elif msg["value"] is None:
            msg["value"] = jnp.arange(held.size)

    def postprocess_message(self, msg: Any) -> None:
        """Plates take rows where they are of fewer than all; where they are of all in another order, these are taken here."""
        if msg["type"] in ("param", "subsample") and msg["kwargs"].get("event_dim") is not None:
            for plate in HANDLERS:
                rows = self.plates.in_order_of(plate.name) if isinstance(plate, numpyro.plate) else None
                axis = None if rows is None else plate.dim - msg["kwargs"]["event_dim"]
                if (
                    rows is not None
                    and axis is not None
                    and jnp.ndim(msg["value"]) >= -axis
                    and jnp.shape(msg["value"])[axis] != 1
                ):
                    msg["value"] = jnp.take(msg["value"], rows, axis)

    def _sample(self, msg: Any) -> None:
        name, fn, frames = msg["name"], msg["fn"], msg["cond_indep_stack"]
        if current_trace() is not self.level and self.session.scope.bodies is None:
            self.session.engine.meet_inner_site(self.session)
            msg["value"] = (
                fn.sample(self.session.engine.key(self.session.scope), ()) if msg["value"] is None else msg["value"]
            )
            return
        if msg["kwargs"].get("sample_shape"):
            msg["fn"] = fn = fn.expand((*msg["kwargs"].pop("sample_shape"), *fn.batch_shape))
        shape, dims = tuple(fn.batch_shape), [(frame.name, frame.dim, None, None) for frame in frames]
        plates = self.plates.around(name, shape, dims)
        msg["value"] = self.run.sample(
            Site(
                name=name,
                fn=fn,
                observed=msg["value"] if msg["is_observed"] else None,
                fixed=None if msg["is_observed"] else msg["value"],
                scale=own_scale(msg["scale"], plates),
                infer=msg["infer"],
                plates=plates,
            )
        )


class AllRows(Messenger):
    """Around a model whose posterior is drawn from: its plates are of all rows, or of a part of them."""

    def __init__(self, fn: Callable[..., Any] | None = None, part: Part | None = None):
        super().__init__(fn)
        self.part = part

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "plate":
            stated = stated_by(msg, "model", source.here())
            size = Whole().hold(stated, np.array_equal).size
            rows = size if self.part is None else self.part.rows(size, stated.count)
            msg["value"], msg["args"] = (jnp.arange(size), (size, None)) if rows == size else (None, (size, rows))


def stated_by(msg: Any, role: str, where: str) -> Stated:
    """What a message says of a plate."""
    (size, count), rows = msg["args"], msg["value"]
    if rows is not None and count in (None, size) and in_order(rows, size):
        rows = None
    return Stated(msg["name"], size, count if rows is None else len(rows), rows, role, where)


def in_order(rows: Any, size: int) -> bool:
    """Whether rows are known to be all of them in order, as those that a plate makes itself, which may be traced."""
    rows = rows.full_lower() if isinstance(rows, Tracer) else rows
    if isinstance(rows, Tracer):
        made = getattr(rows, "parent", None)
        return rows.shape == (size,) and made is not None and made.primitive is lax.iota_p
    return np.array_equal(rows, np.arange(size))


def _scan(
    f: Callable[..., Any],
    init: Any,
    xs: Any,
    length: int | None,
    reverse: bool,
    substitute_stack: Sequence[tuple[str, Any]] = (),
    **options: Any,
) -> Any:
    """`numpyro.contrib.control_flow.scan` as a plain loop. Data that handlers around it have for its sites go in by round."""
    length = len(jax.tree.leaves(xs)[0]) if length is None else length

    def step(carry: Any, entry: Any) -> Any:
        i, x = entry
        return _with_data(f, substitute_stack, functools.partial(_in_round, i=i, length=length))(carry, x)

    carry, ys = lax.scan(step, init, (jnp.arange(length), xs), length, reverse=reverse)
    return (length, None, carry), (PytreeTrace({}), ys)


def _cond(
    pred: Any,
    true_fun: Callable[..., Any],
    false_fun: Callable[..., Any],
    operand: Any,
    substitute_stack: Sequence[tuple[str, Any]] = (),
    **options: Any,
) -> Any:
    branches = [_with_data(branch, substitute_stack, lambda value, site: value) for branch in (true_fun, false_fun)]
    return lax.cond(pred, *branches, operand), PytreeTrace({})


CONTROL_FLOW = {scan_wrapper: _scan, cond_wrapper: _cond}
"""NumPyro's control flow, which hides its sites from handlers, as JAX's own, which does not."""


def _with_data(
    f: Callable[..., Any], stack: Sequence[tuple[str, Any]], entry: Callable[[Any, Any], Any]
) -> Callable[..., Any]:
    """The function with the values that `condition` and `substitute` around its control flow have for its sites."""

    def value(data: Any, site: Any) -> Any:
        if callable(data):
            return data(site)
        return entry(data[site["name"]], site) if site["name"] in data else None

    for kind, data in stack:
        known = functools.partial(value, data)
        f = condition(f, condition_fn=known) if kind == "condition" else substitute(f, substitute_fn=known)
    return _Done(f)


def _in_round(value: Any, site: Any, i: Any, length: int) -> Any:
    stacked = jnp.ndim(value) == len(site["fn"].shape()) + 1 and jnp.shape(value)[0] == length
    return jnp.asarray(value)[i] if stacked else value


class _Done(Messenger):
    """Marks sites as having got what handlers around their control flow have for them."""

    def process_message(self, msg: Any) -> None:
        msg["_control_flow_done"] = True


class Direct(Messenger):
    """Around the objective itself: parameters that it declares, and sites that it must not."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and msg["value"] is None:
            raise no_direct_sites(msg["name"], source.here())
        provide(self.session, msg, "objective")


def provide(session: Session, msg: Any, role: str) -> None:
    """Give a parameter or a key to a message that asks for one."""
    if msg["value"] is not None:
        return
    if msg["type"] == "param":
        initial, constraint = functools.partial(msg["fn"], *msg["args"], **msg["kwargs"]), None
        value = msg["args"][0] if msg["args"] else initial
        if value is not None:
            constraint = msg["kwargs"].get("constraint", constraints.real)
            session.declare(msg["name"], constraint, value, role)
        msg["value"] = session.param(msg["name"], initial, constraint, role)
    elif msg["type"] == "prng_key":
        msg["value"] = session.engine.untraced_key(session.scope)
