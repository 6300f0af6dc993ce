"""Sessions that stage nothing: they run an objective on tensors, to find its parameters, to draw, or to look for NaN."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch

from ppvi.engine.distributions import uncovered
from ppvi.engine.runs import Site
from ppvi.errors import EngineError, ProgramError
from ppvi.pyro import source
from ppvi.pyro.session import Session, length
from ppvi.pyro.trees import level, stacked, tree_map
from ppvi.strategies import Strategy


class Initialisation(Session):
    """A session that runs the objective once on tensors to find its parameters and to look at its data.

    Parameters that are declared without a value have the one in `given`.
    """

    marking = False

    def __init__(
        self,
        chosen: Mapping[str, Strategy],
        modules: MutableMapping[torch.nn.Parameter, str],
        given: Mapping[str, Any] | None = None,
    ):
        super().__init__(given or {}, chosen, modules)
        self.found: dict[str, torch.Tensor] = {}
        self.leaves: dict[str, torch.Tensor] = {}
        """The unconstrained tensor of each, which for a module's parameter is the module's."""
        self.owners: dict[str, set[str]] = {}

    def param(self, name: str, initial: Callable[[], Any], constraint: Any, role: str) -> Any:
        store = pyro.get_param_store()
        self.owners.setdefault(name, set()).add(role)
        if name not in self.found:
            value = initial()
            if value is None and name in self.params:
                return self.params[name].detach()
            if value is None:
                raise ProgramError(
                    f"parameter {name!r} of the {role} at {source.here()} has no initial value: write "
                    f"pyro.param({name!r}, value) at the first place where it is asked for."
                )
            if level():
                raise EngineError(
                    f"parameter {name!r} at {source.here()} is first declared under torch.vmap or torch.func, which its "
                    f"initial value cannot leave. Declare it outside and use its value inside; for runs of a program there is "
                    f"ppvi.replicate(n, thunk)."
                )
            # A module's own parameter stays what it is, so that what changes it changes the module.
            own = isinstance(value, torch.nn.Parameter)
            made: Any = store.setdefault(name, value if own else torch.as_tensor(value).detach().clone(), constraint)
            self.found[name] = value if own else made.detach().clone()
            self.leaves[name] = made.unconstrained()
            self.constraints[name] = constraint
            self.names.made(name, tuple(self.found[name].shape))
        return store[name]

    def shape_of(self, initial: Any, again: bool) -> Any:
        if not (callable(initial) and again):
            return super().shape_of(initial, again)
        with torch.random.fork_rng():
            return super().shape_of(initial(), again)

    def read(self, x: Any) -> Any:
        return self.buffers.read(x)

    def log_prob(self, site: Site, value: Any, role: str, intermediates: Sequence[Any] = ()) -> Any:
        bad = missing(site.fn, value)
        if bad:
            raise ProgramError(
                f"site {site.name!r} of the {role} at {source.here()} observes {bad} NaN among {value.numel()} values: drop "
                f"them, or give the site an obs_mask= and impute them."
            )
        return torch.zeros(site.fn.batch_shape)

    def each(self, function: Callable[..., Any], stacks: Sequence[Any], n: int | None) -> Any:
        n = n or length(stacks)
        result = function(*tree_map(lambda x: x[0], list(stacks)))
        return tree_map(lambda x: torch.as_tensor(x).expand(n, *torch.as_tensor(x).shape), result)

    def fold(self, count: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        return tree_map(torch.as_tensor, carry)


class PlainSession(Session):
    """A session that simply draws: no markers, nothing staged."""

    marking = False

    def draws(self, function: Callable[[], Any], n: int) -> Any:
        """The sites and the weight that a function gives, stacked over runs of it."""
        return self.each(function, (), n)


class Loops(PlainSession):
    """A session that vectorises nothing, so that programs may branch on what they draw."""

    def draws(self, function: Callable[[], Any], n: int) -> Any:
        return stacked(*shared([function() for _ in range(n)]))

    def each(self, function: Callable[..., Any], stacks: Sequence[Any], n: int | None) -> Any:
        runs = [function(*tree_map(lambda x, i=i: x[i], list(stacks))) for i in range(n or length(stacks))]
        return stacked(*runs)

    @torch.no_grad()
    def fold(self, count: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        for i in range(int(count)):
            with self.apart():
                carry = body(torch.tensor(i), carry)
        return tree_map(torch.as_tensor, carry)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """An evaluation of its own, whose minibatches are other ones."""
        outer, self.rows = self.rows, {}
        try:
            yield
        finally:
            self.rows = outer


class Probe(Loops):
    """A session that runs the objective on tensors, and looks for NaN."""

    def __init__(
        self,
        params: Mapping[str, Any],
        chosen: Mapping[str, Strategy],
        modules: MutableMapping[torch.nn.Parameter, str],
    ):
        super().__init__(params, chosen, modules)
        self.culprits: list[str] = []

    def ran(self, role: str, values: Mapping[str, Any], log_probs: Mapping[str, Any]) -> None:
        for name, log_prob in log_probs.items():
            if name in values and not bool(values[name].isfinite().all()):
                self.culprits.append(f"site {name!r} of the {role} has a value that is not finite")
            if not bool(log_prob.isfinite().all()):
                bad = log_prob[~log_prob.isfinite()].flatten()[0]
                self.culprits.append(f"site {name!r} of the {role} has log_prob {float(bad)}")


def shared(runs: Sequence[tuple[Mapping[str, Any], Any]]) -> list[tuple[Mapping[str, Any], Any]]:
    """Sites and weights of runs, with the sites that all runs have, in one shape; a warning names the others."""
    names = dict.fromkeys(name for sites, _ in runs for name in sites)
    shapes = {name: {sites[name].shape if name in sites else None for sites, _ in runs} for name in names}
    left_out = [name for name, found in shapes.items() if len(found) > 1]
    if len(left_out) == len(names) and names:
        raise ProgramError(
            f"posterior: no site is in every draw and of one shape; {_some(left_out)} vary from draw to draw. Return what you "
            f"want of all draws by pyro.deterministic in the model."
        )
    if left_out:
        warnings.warn(
            f"posterior: {_some(left_out)} are left out, since not all draws have them in one shape. Return what you want of "
            f"all draws by pyro.deterministic in the model.",
            stacklevel=2,
        )
    return [({name: x for name, x in sites.items() if len(shapes[name]) == 1}, weight) for sites, weight in runs]


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"sites {', '.join(map(repr, names[:8]))}{rest}"


def missing(fn: Any, value: torch.Tensor) -> int:
    """Number of NaN events that no mask covers."""
    if not value.is_floating_point():
        return 0
    return uncovered(value.isnan().cpu().numpy(), fn, lambda mask: torch.as_tensor(mask).detach().cpu().numpy())
