"""Effect handlers: how a Pyro program runs while an objective is staged.

`Handle` is a model or guide as the objective sees it. Each of its runs installs one messenger around the program:
`Simulate` draws latent sites by their strategies and marks them, `Assess` gives them the values asked for. The
messenger is outermost, so that the program's own handlers (plates, scale, mask) have spoken when a message arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from pyro.distributions import constraints
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample

from ppvi.errors import ProgramError
from ppvi.program import Plate, Program, Trace
from ppvi.pyro import source

if TYPE_CHECKING:
    from ppvi.pyro.session import Session


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
        with self.session.held(stop_params):
            return self.run(Simulate(self.role, self.session, given or {}, observe), *args, **kwargs)

    def assess(self, choices: Mapping[str, Any], *, stop_params: bool | str = False, strict: bool = True) -> Trace:
        with self.session.held(stop_params):
            return self.run(Assess(self.role, self.session, choices, strict))

    def bind(self, *args: Any, **kwargs: Any) -> Handle:
        return Handle(self.fn, self.role, self.session, args, kwargs)

    def run(self, messenger: Run, *args: Any, **kwargs: Any) -> Trace:
        """Run the program under a messenger. Arguments default to those of the objective's call."""
        with messenger:
            returned = self.fn(*(args or self.args), **(kwargs or self.kwargs))
        return messenger.finish(returned)


class Run(Messenger):
    """What both ways of running a program share: parameters, plates, and the record of its sites."""

    def __init__(self, role: str, session: Session):
        super().__init__()
        self.role = role
        self.session = session
        self.values: dict[str, torch.Tensor] = {}
        self.log_probs: dict[str, torch.Tensor] = {}
        self.plates: dict[str, tuple[Plate, ...]] = {}
        self.auxiliary: set[str] = set()
        self.pathwise: set[str] = set()
        self.distributions: dict[str, Any] = {}

    def _pyro_param(self, msg: Any) -> None:
        provide(self.session, msg, self.role)

    def _pyro_sample(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        msg["stop"] = True
        if isinstance(fn, _Subsample):
            if fn.subsample_size is not None and fn.subsample_size < fn.size:
                msg["value"] = self.session.subsample(name, fn.size, fn.subsample_size)
                msg["done"] = True
            return
        if name in self.log_probs:
            raise ProgramError(f"the {self.role} has two sites named {name!r}; the second at {source.here()}.")
        observed = msg["is_observed"] or msg["value"] is not None
        log_prob = (self.observe if observed else self.visit)(msg)
        if isinstance(msg["mask"], torch.Tensor):
            log_prob = torch.where(msg["mask"], log_prob, 0.0)
        elif msg["mask"] is False:
            log_prob = torch.zeros_like(log_prob)
        scaled = isinstance(msg["scale"], torch.Tensor) or msg["scale"] != 1
        self.log_probs[name] = msg["scale"] * log_prob if scaled else log_prob
        self.plates[name] = tuple(Plate(frame.name, frame.dim) for frame in msg["cond_indep_stack"])
        self.distributions[name] = (fn, msg["scale"])
        if msg["infer"].get("is_auxiliary"):
            self.auxiliary.add(name)
        msg["done"] = True

    def visit(self, msg: Any) -> torch.Tensor:
        """Give a latent site its value; its log_prob without scale."""
        raise NotImplementedError

    def observe(self, msg: Any) -> torch.Tensor:
        return self.log_prob(msg, msg["value"])

    def log_prob(self, msg: Any, value: torch.Tensor) -> torch.Tensor:
        fn, problem, log_prob = msg["fn"], None, None
        try:
            log_prob = fn.log_prob(value)
        except (RuntimeError, ValueError) as error:
            problem = error
        if log_prob is None or log_prob.shape not in (fn.batch_shape, value.shape[: value.ndim - fn.event_dim]):
            raise ProgramError(
                f"site {msg['name']!r} of the {self.role} at {source.here()}: a value of shape {tuple(value.shape)} does not "
                f"fit {type(fn).__name__} of batch shape {tuple(fn.batch_shape)} and event shape {tuple(fn.event_shape)}. Make "
                f"the shapes agree, or add to_event or a plate."
            ) from problem
        return log_prob

    def place(self, msg: Any, value: torch.Tensor) -> torch.Tensor:
        """Give a latent site a value from outside."""
        name, fn = msg["name"], msg["fn"]
        if tuple(value.shape) != tuple(fn.shape()):
            raise ProgramError(
                f"site {name!r} of the {self.role} at {source.here()} has shape {tuple(fn.shape())}, but its choice has shape "
                f"{tuple(value.shape)}: give the site the same plates and to_event in the model and the guide."
            )
        msg["value"] = self.values[name] = value
        return self.log_prob(msg, value)

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
        total = sum((log_prob.sum() for log_prob in self.log_probs.values()), start=torch.zeros(()))
        return Trace(
            choices=self.values,
            log_probs=self.log_probs,
            log_density=total,
            returned=returned,
            plates=self.plates,
            batch_ndims={name: log_prob.ndim for name, log_prob in self.log_probs.items()},
            auxiliary=frozenset(self.auxiliary),
            observed=frozenset(self.log_probs.keys() - self.values.keys()),
            pathwise=frozenset(self.pathwise),
            distributions=self.distributions,
        )


class Direct(Messenger):
    """Around the objective itself: parameters that it declares, and sites that it must not."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session

    def _pyro_param(self, msg: Any) -> None:
        provide(self.session, msg, "objective")

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None and not msg["done"]:
            raise ProgramError(
                f"site {msg['name']!r} at {source.here()} is sampled by the objective itself: sites belong to a model or a "
                f"guide; draw from one with `simulate`."
            )


def provide(session: Session, msg: Any, role: str) -> None:
    """Give a parameter to a message that asks for one."""
    if msg["value"] is not None or msg["done"]:
        return
    _, *given = msg["args"]
    initial = given[0] if given else msg["kwargs"].get("init_tensor")
    constraint = (given[1] if len(given) > 1 else msg["kwargs"].get("constraint")) or constraints.real
    msg["value"] = session.param(msg["name"], initial if callable(initial) else lambda: initial, constraint, role)
    msg["done"] = True


class Simulate(Run):
    """Draw every latent site by its strategy, but for those that are given."""

    def __init__(self, role: str, session: Session, given: Mapping[str, Any], observing: bool = True):
        super().__init__(role, session)
        self.given = given
        self.observing = observing

    def visit(self, msg: Any) -> torch.Tensor:
        name, fn = msg["name"], msg["fn"]
        if name in self.given:
            return self.place(msg, self.given[name])
        value, route = self.session.draw(name, fn, msg["infer"])
        msg["value"] = self.values[name] = value
        if route == "path":
            self.pathwise.add(name)
        return self.log_prob(msg, value)

    def observe(self, msg: Any) -> torch.Tensor:
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

    def visit(self, msg: Any) -> torch.Tensor:
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
