"""Effect handlers: how NumPyro tells what a program does to a run of `ppvi.engine.runs`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jax.extend.core import take_current_trace
from numpyro.distributions import constraints
from numpyro.primitives import Messenger

from ppvi.engine.runs import Run, Site, no_direct_sites, unknown_site
from ppvi.errors import EngineError
from ppvi.numpyro import source
from ppvi.program import Plate
from ppvi.strategies import Strategy

if TYPE_CHECKING:
    from ppvi.numpyro.session import Session


def current_trace() -> Any:
    """The JAX trace that operations are recorded in at the moment, for comparison by identity."""
    with take_current_trace() as trace:
        return trace


class strategies(Messenger):  # noqa: N801  (a handler, named as NumPyro names its own)
    """Effect handler that sets gradient strategies by site name.

        guide = ppvi.numpyro.strategies(guide, {"z": ppvi.Enumerate()})

    `infer={"strategy": ...}` at the site does the same; `objective(..., strategies=...)` overrides both.
    """

    def __init__(self, fn: Callable[..., Any] | None = None, choice: Mapping[str, Strategy] | None = None):
        super().__init__(fn)
        self.choice = dict(choice or {})
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
    """A site inside a JAX transformation within a program."""


class Around(Messenger):
    """Around a program: tells its sites to a run, and gives it parameters, keys and minibatches."""

    def __init__(self, run: Run, session: Session, inlined: bool = False):
        super().__init__()
        self.run = run
        self.session = session
        self.level = current_trace()
        self.inlined = inlined
        self.subsampled: set[str] = set()

    def process_message(self, msg: Any) -> None:
        kind, name = msg["type"], msg.get("name")
        if kind == "sample":
            self._sample(msg)
        elif kind == "deterministic":
            self.run.deterministic[name] = msg["value"]
        elif kind in _UNSUPPORTED:
            raise EngineError(_UNSUPPORTED[kind].format(name=name, role=self.run.role, where=source.here()))
        elif kind == "plate" and msg["value"] is None:
            msg["kwargs"]["rng_key"] = self.session.plate_key(name)
            self.subsampled.add(name)
        else:
            provide(self.session, msg, self.run.role)

    def _sample(self, msg: Any) -> None:
        name, fn, frames = msg["name"], msg["fn"], msg["cond_indep_stack"]
        if current_trace() is not self.level or (self.inlined and name in self.run.log_probs):
            raise InnerSiteError(
                f"sample site {name!r} of the {self.run.role} at {source.here()} is inside a JAX transformation within the "
                f"program (scan, cond, while_loop, vmap or grad): its value cannot leave it. Move the site out of the "
                f"transformation; for independent copies use a plate."
            )
        if msg["kwargs"].get("sample_shape"):
            msg["fn"] = fn = fn.expand((*msg["kwargs"].pop("sample_shape"), *fn.batch_shape))
        msg["value"] = self.run.sample(
            Site(
                name=name,
                fn=fn,
                observed=msg["value"],
                scale=msg["scale"],
                infer=msg["infer"],
                plates=tuple(Plate(frame.name, frame.dim) for frame in frames),
                batches=tuple(frame.name for frame in frames if frame.name in self.subsampled),
            )
        )


_UNSUPPORTED = {
    "mutable": "mutable site {name!r} of the {role} at {where}: mutable state is not supported; keep the state in `params`, "
    "or evaluate the module with fixed statistics.",
    "control_flow": "numpyro.contrib.control_flow in the {role} at {where}: sites under control flow are not supported. "
    "Draw all values at once in a plate, and compute with them afterwards.",
}


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
        constraint = msg["kwargs"].get("constraint", constraints.real)
        initial = functools.partial(msg["fn"], *msg["args"], **msg["kwargs"])
        msg["value"] = session.param(msg["name"], initial, constraint, role)
    elif msg["type"] == "prng_key":
        msg["value"] = session.key()
