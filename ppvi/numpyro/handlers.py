"""Effect handlers: how a NumPyro program runs while an objective is staged.

`Handle` is a model or guide as the objective sees it. Each of its runs installs one messenger around the program:
`Simulate` draws latent sites by their strategies and marks them, `Assess` gives them the values asked for. The
messenger is outermost, so that the program's own handlers (plates, scale, mask, reparam) have spoken when a message
arrives. Scale and mask multiply the densities that the objective sees, never the probability by which a draw is
credited.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.extend.core import take_current_trace
from numpyro.primitives import Messenger

from ppvi.compiler.ir import At, Density
from ppvi.errors import EngineError, ProgramError, StrategyError
from ppvi.numpyro import source
from ppvi.numpyro.distributions import SiteDistribution
from ppvi.numpyro.stage import mark_log_prob
from ppvi.program import Plate, Program, Trace
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
            raise StrategyError(
                f"strategies name the site {unknown[0]!r}, which the program does not have; it has {sorted(self.seen)}."
            )

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample":
            self.seen.add(msg["name"])
            if msg["name"] in self.choice:
                msg["infer"] = {**msg["infer"], "strategy": self.choice[msg["name"]]}


class Handle(Program):
    """A model or a guide, bound to the session's parameters and the objective's arguments (`ppvi.program.Program`)."""

    def __init__(
        self, fn: Callable[..., Any], role: str, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]
    ):
        self.fn = fn
        self.role = role
        self.session = session
        self.args = args
        self.kwargs = kwargs

    def simulate(
        self,
        *args: Any,
        given: Mapping[str, Any] | None = None,
        observe: bool = True,
        stop_params: bool | str = False,
        **kwargs: Any,
    ) -> Trace:
        messenger = Simulate(self.role, self.session, given or {}, observe)
        with self.session.held(stop_params):
            return self.run(messenger, *args, **kwargs)

    def assess(self, choices: Mapping[str, Any], *, stop_params: bool | str = False, strict: bool = True) -> Trace:
        messenger = Assess(self.role, self.session, choices, strict)
        with self.session.held(stop_params):
            return self.run(messenger)

    def bind(self, *args: Any, **kwargs: Any) -> Handle:
        return Handle(self.fn, self.role, self.session, args, kwargs)

    def run(self, messenger: Run, *args: Any, **kwargs: Any) -> Trace:
        """Run the program under a messenger. Arguments default to those of the objective's call.

        A site inside a jitted function of the program would leave its value there, so such a program runs once more
        without inner jits, which changes nothing of what it means.
        """
        args, kwargs = args or self.args, kwargs or self.kwargs
        try:
            with messenger:
                returned = self.fn(*args, **kwargs)
        except InnerSiteError:
            messenger.restart()
            with jax.disable_jit(), messenger:
                returned = self.fn(*args, **kwargs)
        return messenger.finish(returned)


class InnerSiteError(EngineError):
    """A site inside a JAX transformation within a program."""


class Run(Messenger):
    """What both ways of running a program share: parameters, keys, plates, and the record of its sites."""

    def __init__(self, role: str, session: Session):
        super().__init__()
        self.role = role
        self.session = session
        self.level = current_trace()
        self.inlined = False
        self.clear()

    def clear(self) -> None:
        self.values: dict[str, jax.Array] = {}
        self.log_probs: dict[str, jax.Array] = {}
        self.plates: dict[str, tuple[Plate, ...]] = {}
        self.deterministic: dict[str, jax.Array] = {}
        self.auxiliary: set[str] = set()
        self.pathwise: set[str] = set()
        self.distributions: dict[str, Any] = {}
        self.subsampled: set[str] = set()

    def restart(self) -> None:
        """Forget what was recorded: the program runs again without inner jits."""
        self.inlined = True
        self.clear()

    def process_message(self, msg: Any) -> None:
        kind, name = msg["type"], msg.get("name")
        if kind == "sample":
            self._sample(msg)
        elif kind == "deterministic":
            self.deterministic[name] = msg["value"]
        elif kind in _UNSUPPORTED:
            raise EngineError(_UNSUPPORTED[kind].format(name=name, role=self.role, where=source.here()))
        elif kind == "plate" and msg["value"] is None:
            msg["kwargs"]["rng_key"] = self.session.plate_key(name)
            self.subsampled.add(name)
        else:
            provide(self.session, msg, self.role)

    def _sample(self, msg: Any) -> None:
        name, fn, scale = msg["name"], msg["fn"], msg["scale"]
        if current_trace() is not self.level or (self.inlined and name in self.log_probs):
            raise InnerSiteError(
                f"sample site {name!r} of the {self.role} at {source.here()} is inside a JAX transformation within the "
                f"program (scan, cond, while_loop, vmap or grad): its value cannot leave it. Move the site out of the "
                f"transformation; for independent copies use a plate."
            )
        if name in self.log_probs:
            raise ProgramError(f"the {self.role} has two sites named {name!r}; the second at {source.here()}.")
        if msg["kwargs"].get("sample_shape"):
            msg["fn"] = fn.expand((*msg["kwargs"].pop("sample_shape"), *fn.batch_shape))
        observed = msg["is_observed"] or msg["value"] is not None
        self.distributions[name] = (msg["fn"], scale)
        log_prob, at = (self.observe if observed else self.visit)(msg)
        if self.session.marking:
            site = SiteDistribution(msg["fn"])
            info = Density(name, self.role, site.name, source.here(), site.support, site.tails, at)
            log_prob = mark_log_prob(log_prob, info, site.bounds())
        log_prob = log_prob if scale is None else scale * log_prob
        batches = [frame.name for frame in msg["cond_indep_stack"] if frame.name in self.subsampled]
        if batches:
            log_prob = self.session.estimate(log_prob, f"log density of {name} on a minibatch of {', '.join(batches)}")
        self.log_probs[name] = log_prob
        self.plates[name] = tuple(Plate(frame.name, frame.dim) for frame in msg["cond_indep_stack"])
        if msg["infer"].get("is_auxiliary"):
            self.auxiliary.add(name)

    def visit(self, msg: Any) -> tuple[jax.Array, At]:
        """Give a latent site its value; its log_prob without scale, and what that is taken at."""
        raise NotImplementedError

    def observe(self, msg: Any) -> tuple[jax.Array, At]:
        value = msg["value"]
        value = jnp.asarray(value) if isinstance(value, int | float) else value
        return self.session.log_prob(msg["fn"], value, msg["name"], self.role), "data"

    def place(self, msg: Any, value: Any) -> tuple[jax.Array, At]:
        """Give a latent site a value from outside."""
        name, fn = msg["name"], msg["fn"]
        if jnp.shape(value) != fn.shape():
            raise ProgramError(
                f"site {name!r} of the {self.role} at {source.here()} has shape {fn.shape()}, batch {fn.batch_shape} and "
                f"event {fn.event_shape}, but its choice has shape {jnp.shape(value)}: give the site the same plates and "
                f"to_event in the model and the guide."
            )
        msg["value"] = self.values[name] = value = jnp.asarray(value)
        return self.session.log_prob(fn, value, name, self.role), "choice"

    def refuse_unused(self, choices: Mapping[str, Any]) -> None:
        """Every choice must belong to a site, unless it is auxiliary to the program that made it."""
        auxiliary = getattr(choices, "auxiliary", frozenset())
        unused = [name for name in choices if name not in self.values and name not in auxiliary]
        if unused:
            raise ProgramError(
                f"the choices have {', '.join(map(repr, unused))}, but the {self.role} has no such latent site (it has "
                f"{sorted(self.values)}): rename the site, integrate it out with ppvi.marginal, mark it "
                f"infer={{'is_auxiliary': True}} where the guide samples it, or drop it from the choices."
            )

    def finish(self, returned: Any) -> Trace:
        scalars = [jnp.sum(x) if jnp.ndim(x) else x for x in self.log_probs.values()]
        total = functools.reduce(operator.add, scalars) if scalars else jnp.zeros(())
        self.session.ran(self.role, self.values, self.log_probs)
        return Trace(
            choices=self.values,
            log_probs=self.log_probs,
            log_density=total,
            returned=returned,
            plates=self.plates,
            batch_ndims={name: jnp.ndim(log_prob) for name, log_prob in self.log_probs.items()},
            auxiliary=frozenset(self.auxiliary),
            observed=frozenset(self.log_probs.keys() - self.values.keys()),
            pathwise=frozenset(self.pathwise),
            distributions=self.distributions,
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
            raise ProgramError(
                f"site {msg['name']!r} at {source.here()} is sampled by the objective itself: sites belong to a model or a "
                f"guide; draw from one with `simulate`."
            )
        provide(self.session, msg, "objective")


def provide(session: Session, msg: Any, role: str) -> None:
    """Give a parameter or a key to a message that asks for one."""
    if msg["value"] is not None:
        return
    if msg["type"] == "param":
        msg["value"] = session.param(msg["name"], lambda: msg["fn"](*msg["args"], **msg["kwargs"]), msg, role)
    elif msg["type"] == "prng_key":
        msg["value"] = session.key()


class Simulate(Run):
    """Draw every latent site by its strategy, but for those that are given."""

    def __init__(self, role: str, session: Session, given: Mapping[str, Any], observing: bool = True):
        super().__init__(role, session)
        self.given = given
        self.observing = observing

    def visit(self, msg: Any) -> tuple[jax.Array, At]:
        name, fn = msg["name"], msg["fn"]
        if name in self.given:
            return self.place(msg, self.given[name])
        value, intermediates, route = self.session.draw(name, fn, msg["infer"])
        msg["value"] = self.values[name] = value
        if route == "path":
            self.pathwise.add(name)
        at = "credited draw" if route == "credit" else "draw"
        return self.session.log_prob(fn, value, name, self.role, intermediates), at

    def observe(self, msg: Any) -> tuple[jax.Array, At]:
        if self.observing:
            return super().observe(msg)
        self.auxiliary.add(msg["name"])
        return self.visit(msg)

    def finish(self, returned: Any) -> Trace:
        self.refuse_unused(self.given)
        return super().finish(returned)


class Assess(Run):
    """Give every latent site the value that it has among the choices."""

    def __init__(self, role: str, session: Session, choices: Mapping[str, Any], strict: bool = True):
        super().__init__(role, session)
        self.choices = choices
        self.strict = strict

    def visit(self, msg: Any) -> tuple[jax.Array, At]:
        name = msg["name"]
        if name not in self.choices:
            raise ProgramError(
                f"latent site {name!r} of the {self.role} at {source.here()} has no value among the choices "
                f"{sorted(self.choices)}: sample it in the guide under that name, or observe it with obs=."
            )
        return self.place(msg, self.choices[name])

    def finish(self, returned: Any) -> Trace:
        if self.strict:
            self.refuse_unused(self.choices)
        return super().finish(returned)
