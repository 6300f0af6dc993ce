"""Effect handlers: how Pyro tells what a program does to a run of `ppvi.engine.runs`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from pyro.distributions import Unit, constraints
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import SubsampleMessenger

from ppvi._session import holding
from ppvi.engine.minibatches import Part, Plates, Stated, Whole
from ppvi.engine.runs import Run, no_direct_sites
from ppvi.engine.sessions import Session
from ppvi.engine.sites import Site, choices_of, own_scale, unknown_site
from ppvi.engine.statements import uneven
from ppvi.errors import ProgramError
from ppvi.pyro import _graphs as graphs, _source as source
from ppvi.pyro._baselines import with_baseline
from ppvi.pyro._compat import (
    DETERMINISTIC,
    HANDLERS,
    Subsample,
    holds_value,
    in_place_of_rows,
    is_guided,
    is_lazy,
)
from ppvi.pyro._rows import in_order, known
from ppvi.pyro._valid import bare_axis, refuse_other_rows, unsaid
from ppvi.strategies import Strategy


class Strategies(Messenger):
    """Made by `strategies`."""

    def __init__(self, choice: Mapping[str, Strategy]):
        super().__init__()
        self.choice = dict(choice)
        self.seen: set[str] = set()

    def __enter__(self) -> Strategies:
        self.seen = set()
        return super().__enter__()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        unknown = sorted(self.choice.keys() - self.seen)
        if kind is None and unknown:
            raise unknown_site(unknown[0], self.seen)

    def _pyro_sample(self, msg: Any) -> None:
        self.seen.add(msg["name"])
        if msg["name"] in self.choice:
            msg["infer"] = {**msg["infer"], "strategy": self.choice[msg["name"]]}


def strategies(fn: Callable[..., Any], choice: Mapping[str, Strategy]) -> Callable[..., Any]:
    """A program with gradient strategies set by site name.

        guide = ppvi.pyro.strategies(guide, {"z": ppvi.Enumerate()})

    `infer={"strategy": ...}` at the site does the same; `objective(..., strategies=...)` overrides both.
    """
    return Strategies(choices_of(fn, choice))(fn)


class Around(Messenger):
    """Around a program: tells its sites to a run, and gives it parameters and minibatches."""

    def __init__(self, run: Run, session: Session, plates: Plates):
        super().__init__()
        self.run = run
        self.session = session
        self.plates = plates
        self.grad = torch.is_grad_enabled()

    def _pyro_param(self, msg: Any) -> None:
        provide(self.session, msg, self.run.role)

    def _postprocess_message(self, msg: Any) -> None:
        """Plates take rows where they are of fewer than all; where they are of all in another order, these are taken here."""
        if msg["type"] in ("param", "subsample") and msg["kwargs"].get("event_dim") is not None:
            for plate in HANDLERS:
                if not isinstance(plate, SubsampleMessenger) or plate.dim is None:
                    continue
                axis, value = plate.dim - msg["kwargs"]["event_dim"], msg["value"]
                if value.ndim < -axis or value.shape[axis] == 1:
                    continue
                what = f"parameter {msg['name']!r}" if msg["type"] == "param" else "what pyro.subsample is given"
                refuse_other_rows(f"{what} at {source.here()}", value, axis, plate)
                if (rows := self.plates.in_order_of(plate.name)) is not None:
                    msg["value"] = _with_place(msg["value"].index_select(axis, rows), msg["value"])

    def _pyro_sample(self, msg: Any) -> None:
        name, fn, frames = msg["name"], msg["fn"], msg["cond_indep_stack"]
        msg["stop"] = msg["done"] = True
        if isinstance(fn, Subsample):
            self._plate(msg)
            return
        if msg["infer"].get(DETERMINISTIC) or (msg["is_observed"] and holds_value(fn)):
            self.run.keep(name, msg["value"], frames)
            return
        if msg["is_observed"] and is_guided():
            return
        if msg["args"] or msg["kwargs"]:
            named = "".join(f" {key}=" for key in msg["kwargs"])
            raise ProgramError(
                f"site {name!r} of the {self.run.role} at {source.here()} is sampled with arguments after its distribution"
                f"{named and ','}{named}: what is observed is obs=..., and a distribution gets its shape by expand."
            )
        for frame in frames:
            if frame.full_size not in (None, frame.size):
                self.plates.refuse_unstated(name, frame.name)
        shape, dims = tuple(fn.batch_shape), [(frame.name, frame.dim, _round(frame), frame.size) for frame in frames]
        plates = self.plates.around(name, shape, dims)
        is_factor = isinstance(fn, Unit) and msg["is_observed"] and self.run.role == "guide"
        problem = bare_axis(fn, frames) if self.session.engine.validates else None
        if problem := problem or (unsaid(fn) if is_factor else None):
            raise ProgramError(f"{self._at(name)} {problem}")
        if is_factor and not fn.has_rsample:
            self.session.engine.effects.factor(self.session, name, fn)
        if msg["mask"] is not None and (problem := uneven(self._at(name), "mask", msg["mask"], fn.batch_shape)):
            raise problem
        # Densities and credit are the objective's, which has gradients whether or not the program is under `no_grad`; what
        # the program draws there is a constant to it.
        constant = self.grad and not torch.is_grad_enabled()
        draws = self.session.within(constant_draws=True) if constant else nullcontext()
        infer = msg["infer"]
        if msg["value"] is None and "baseline" in infer:
            infer = with_baseline(infer, fn, name, source.here())
        same = torch.is_grad_enabled() == self.grad
        with draws, nullcontext() if same else torch.set_grad_enabled(self.grad):
            msg["value"] = self.run.sample(
                Site(
                    name=name,
                    fn=fn if msg["mask"] is None else fn.mask(msg["mask"]),
                    observed=msg["value"] if msg["is_observed"] else None,
                    fixed=None if msg["is_observed"] else msg["value"],
                    scale=own_scale(msg["scale"], plates),
                    infer=infer,
                    plates=plates,
                )
            )

    def _at(self, name: str) -> str:
        return f"site {name!r} of the {self.run.role} at {source.here()}"

    def _plate(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        held = self.plates.meet(stated_by(msg, self.run.role))
        if msg["value"] is not None:
            return
        if held.rows is not None:
            msg["value"] = held.rows
        elif held.partial:
            msg["value"] = self.session.engine.subsample(self.session.scope, name, held.size, held.number)
        elif name not in self.plates.taken:
            msg["value"] = known(fn.sample())
        # Otherwise it has no value: it is of all rows, whatever is stated, and `all_rows` is around.


def _round(frame: Any) -> int | None:
    """Which of the rows of a plate this is, where Python runs over it, perhaps several times."""
    return None if frame.dim is not None else (frame.counter - 1) % frame.size


class AllRows(Messenger):
    """Around a model whose posterior is drawn from: its plates are of all rows, where `all_rows` is around."""

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], Subsample):
            Whole().hold(stated_by(msg, "model"), graphs.same)
            if msg["fn"].subsample_size is not None:
                msg["fn"], msg["done"] = Subsample(msg["fn"].size, None), True


def stated_by(msg: Any, role: str) -> Stated:
    """What a message says of a plate."""
    fn, rows = msg["fn"], msg["value"]
    count = fn.subsample_size if rows is None else len(rows)
    given = None if rows is None or in_order(torch.as_tensor(rows), fn.size) else torch.as_tensor(rows)
    return Stated(msg["name"], fn.size, count, given, role, source.here())


class Direct(Messenger):
    """Around the objective itself: parameters that it declares, and sites that it must not."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session

    def _pyro_param(self, msg: Any) -> None:
        provide(self.session, msg, "objective")

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None and not msg["done"]:
            raise no_direct_sites(msg["name"], source.here())


def provide(session: Session, msg: Any, role: str) -> None:
    """Give a parameter to a message that asks for one."""
    if msg["value"] is not None or msg["done"]:
        return
    msg["stop"] = True  # a trace of SVI's around a staging must not see what is staged
    name, *given = msg["args"]
    initial = given[0] if given else msg["kwargs"].get("init_tensor")
    stated = given[1] if len(given) > 1 else msg["kwargs"].get("constraint")
    constraint = stated or constraints.real
    if initial is None:
        initial, constraint = session.engine.stored(name)
    else:
        session.engine.stated[name] = constraint
    if isinstance(initial, torch.nn.Parameter) and (is_lazy(initial) or not initial.requires_grad):
        msg["value"] = initial  # frozen, and so a constant; or of a module that has to run first
    elif isinstance(initial, torch.nn.Parameter):
        # A module does not look at what it is given, but reads its own, for which `Reading` puts the session's value. The same
        # one may be asked for under several names.
        value = session.param(session.engine.own_name(initial, name, role), lambda: initial, constraint, role)
        msg["value"] = initial if msg["kwargs"].get("event_dim") is None else _with_place(value, value)
    else:
        if initial is not None:
            session.declare(name, stated, initial, role)
        value = session.param(name, initial if callable(initial) else lambda: initial, constraint, role)
        # A constrained value is computed where it is asked for.
        stops = constraint is not constraints.real and not torch.is_grad_enabled()
        msg["value"] = _with_place(value.detach() if stops else value, value)
    msg["done"] = True


def _with_place(value: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """A parameter's value with its unconstrained one, with which plates that take a minibatch of it leave a note."""
    value.unconstrained = getattr(stored, "unconstrained", lambda: stored)  # type: ignore[attr-defined]
    return value


def all_rows() -> AbstractContextManager[bool]:
    """Plates that get no rows are of all rows, however many they state. (Pyro refuses rows that are more or fewer than stated,
    but lets none pass.)"""
    return holding(_all_rows, True)


def whole_plates(part: Part | None = None) -> AbstractContextManager[Any]:
    """Plates that get no rows state all of them, or a part, in programs that have been found to know no minibatch only."""
    return holding(_whole_plates, _all if part is None else part.rows)


def _all(size: int, count: int | None) -> int:
    return size


_all_rows: ContextVar[bool] = ContextVar("all_rows", default=False)
_whole_plates: ContextVar[Callable[[int, int | None], int] | None] = ContextVar("whole_plates", default=None)


def _subsample(name: str, size: Any = None, count: Any = None, rows: Any = None, *more: Any) -> Any:
    whole = _whole_plates.get()
    stated = count if whole is None or rows is not None else whole(size, count)
    size, count, rows = _native(name, size, stated, rows, *more)
    return (
        (size, size, known(torch.arange(size)))
        if _all_rows.get() and rows is None and size > 0
        else (size, count, rows)
    )


_native = in_place_of_rows(_subsample)
