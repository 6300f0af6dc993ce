"""How programs run on PyTorch: keys of runs, minibatches, parameters and buffers of modules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import pyro
import pyro.distributions
import torch
from torch.distributions import constraints, transform_to

from ppvi.engine.minibatches import Plates
from ppvi.engine.pieces import Finish, Piece, Told
from ppvi.engine.protocol import Marks, Scope
from ppvi.engine.runs import Run
from ppvi.engine.sessions import Session
from ppvi.engine.statements import Library
from ppvi.errors import EngineError
from ppvi.ir import Origin
from ppvi.pyro import _graphs as graphs, _source as source, _stage as stage, _summing as summing
from ppvi.pyro._buffers import Buffers, Modules, SharedNameError, Written
from ppvi.pyro._compat import (
    DisableTorchFunction,
    disable_current_modes,
    is_functorch_wrapped_tensor,
    is_validation_enabled,
    level,
)
from ppvi.pyro._distributions import SiteDistribution, evaluate, without_masked
from ppvi.pyro._divergences import divergence
from ppvi.pyro._functions import calls_noted
from ppvi.pyro._handlers import Around, Direct
from ppvi.pyro._located import note, within
from ppvi.pyro._ops import OPS
from ppvi.pyro._reading import Reading
from ppvi.pyro._recipes import ingredients_of_library
from ppvi.pyro._refused import Seed
from ppvi.pyro._regions import support_of
from ppvi.pyro._stage import DynamicError
from ppvi.pyro._trees import stacked, tree_leaves, tree_map, vmap


def key_of(number: int) -> None:
    """A key for whoever gives none: PyTorch's global generator."""


def array_of(x: np.ndarray) -> torch.Tensor:
    """Data of a file as a program of Pyro takes them: real numbers in the default precision."""
    found = torch.as_tensor(x)
    return found.to(torch.get_default_dtype()) if found.is_floating_point() else found


def known(x: Any) -> np.ndarray | None:
    """A tensor as NumPy has it; None where it is sparse, or has no numbers."""
    tensor = torch.as_tensor(x).detach()
    if tensor.layout is not torch.strided or tensor.is_meta or is_functorch_wrapped_tensor(tensor):
        return None
    has_other_floats = tensor.is_floating_point() and tensor.itemsize < 4
    return (tensor.float() if has_other_floats else tensor).cpu().numpy()


def transformation() -> str | None:
    """What is around that is being traced or vectorised by PyTorch, if anything is."""
    return "torch.vmap, torch.func or torch.compile" if level() or torch.compiler.is_compiling() else None


def check(constraint: Any, value: Any) -> Any:
    """Where a constraint holds."""
    return constraint.check(value)


class Evaluation(NamedTuple):
    """What minibatches depend on."""

    key: torch.Tensor
    rows: dict[str, torch.Tensor]
    """Of minibatches that are drawn, by plate."""


def scope_of(
    key: torch.Tensor | None = None,
    distribution: Callable[..., SiteDistribution] = SiteDistribution,
    *,
    plain: bool = False,
) -> Scope:
    """The scope that an evaluation begins in. A key is a tensor with an axis for every `each` around, by which samplers know
    how many runs there are."""
    root = torch.zeros(()) if key is None else key
    return Scope(Evaluation(root, {}), root, level(), distribution, plain)


def drawn(sampler: Callable[[torch.Tensor], torch.Tensor], key: torch.Tensor) -> torch.Tensor:
    """A draw of no site, for every run a draw of its own."""
    return stage.draw(key, (), stage.Sampler(sampler))


def refuse_traced(session: Session[PyroPrograms], tensors: Any) -> None:
    """Of a trace, numbers that leave PyTorch where nothing else would see it would stay as they are for ever."""
    if any(isinstance(x, torch.Tensor) and is_functorch_wrapped_tensor(x) for x in tree_leaves(tensors)):
        raise DynamicError(f"it reads a number out of a tensor at {source.here()}")


@dataclass(frozen=True)
class Effects:
    """What becomes of what happens beside the values of sites; by default nothing."""

    marks: Marks | None = None
    origin: Origin = Origin.STRATEGY
    """Whose code draws are."""
    random: Callable[[Callable[[torch.Tensor], torch.Tensor], torch.Tensor], torch.Tensor] = drawn
    """A draw of no site, by a sampler with a key."""
    read_out: Callable[[Session, Any], None] = refuse_traced
    """Told of tensors whose numbers leave PyTorch where nothing else would see it."""
    write: Callable[[Session, Written], None] = lambda session, buffers: None
    """Told at the end what is to be in the buffers of modules."""
    factor: Callable[[Session, str, Any], None] = lambda session, name, fn: None
    """Told of a guide's factor that is the density of a draw which is no site."""
    crossed: Callable[[Any, Any, Any, Any], Any] | None = None
    """Told of every function of PyTorch's that a program calls, its operands and its result, which it returns."""


def _read_out(session: Session[PyroPrograms], tensors: Any) -> None:
    refuse_traced(session, tensors)
    note(tensors)


def _write(session: Session, buffers: Written) -> None:
    for buffer, value in buffers:
        stage.mark_write(buffer, value)


def _factor(session: Session[PyroPrograms], name: str, fn: Any) -> None:
    if graphs.is_drawn(fn.log_factor):
        raise DynamicError(f"the factor {name!r} is the density of a draw of its own at {source.here()}")


STAGED = Effects(stage, read_out=_read_out, write=_write, factor=_factor)


@dataclass(eq=False)
class PyroPrograms:
    """`ppvi.engine.protocol.Programs`."""

    modules: MutableMapping[torch.nn.Parameter, str]
    """Parameters that belong to modules, and their names, which runs of the objective add to."""
    effects: Effects = Effects()
    named: dict[str, torch.nn.Parameter] = field(default_factory=dict)

    ops = OPS
    library = Library("Pyro", source.LIBRARY, pyro.distributions.Distribution, constraints.Constraint, transform_to)
    here, support_of, same_rows = staticmethod(source.here), staticmethod(support_of), staticmethod(graphs.same)
    array, looked_at, direct = staticmethod(torch.as_tensor), staticmethod(without_masked), staticmethod(Direct)
    known, values_of, divergence = staticmethod(known), staticmethod(summing.values_of), staticmethod(divergence)
    check = staticmethod(check)

    def __post_init__(self) -> None:
        self.buffers = Buffers(getattr(self.modules, "places", ()))
        self._names: dict[int, str] = {}
        """Of the parameters that are `named`, by their identities."""
        self.stated: dict[str, Any] = {}
        """Constraints of parameters by name, of which a module that makes them while it runs puts none into the store."""
        self.marks: Marks | None = self.effects.marks

    @contextmanager
    def surroundings(self, session: Session[PyroPrograms]) -> Iterator[None]:
        # The checks of values that distributions and Pyro make are no part of any graph, and what modules put into the
        # parameter store is of this session only. They are off by 0, and not by False, which is then the user's own.
        store, self._seed = pyro.get_param_store(), Seed()
        self.validates = bool(is_validation_enabled())
        self._stored = store.get_state()
        with store.scope(), pyro.validation_enabled(cast(bool, 0)):
            try:
                read = functools.partial(self.read, session)
                with Reading(session, read, self.effects.crossed), calls_noted(read):
                    yield
                self._seed.refuse_another()
            finally:
                ended = self.buffers.ended()
            self.effects.write(session, ended)

    def execute(self, session: Session[PyroPrograms], run: Run, program: Callable[[], Any]) -> Any:
        plates = Plates(session.plate_rows, self, run.role)
        with plates.explained(), Around(run, session, plates):
            return program()

    def is_signal(self, error: Exception) -> bool:
        return isinstance(error, RecursionError) or stage.what_prevents(error) is not None

    def shape_of(self, initial: Any, make: bool) -> Any:
        if callable(initial) and make:
            with torch.random.fork_rng():
                initial = initial()
        return None if callable(initial) else tuple(torch.as_tensor(initial).shape)

    def started(self, value: Any, constraint: Any) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        made = torch.as_tensor(value).detach()
        inside = constraint is None or bool(constraint.check(made).all())
        there = made if inside else transform_to(constraint)(transform_to(constraint).inv(made))
        return [_as_double(made)], None if inside else [_as_double(there)]

    # Parameters and buffers of modules --------------------------------------------------------------------------------

    def stored(self, name: str) -> tuple[torch.Tensor | None, Any]:
        """The value and the constraint that Pyro's parameter store has: a module puts its constrained parameters there before
        it asks for them, and a program may ask for what was there before."""
        for state in (pyro.get_param_store().get_state(), self._stored):
            if name in state["params"]:
                constraint = state["constraints"].get(name, self.stated.get(name, constraints.real))
                return transform_to(constraint)(state["params"][name]), constraint
        return None, constraints.real

    def own_name(self, parameter: torch.nn.Parameter, name: str, role: str) -> str:
        """The name of a module's parameter, of which no other has the same."""
        shared = getattr(self.modules, "shared", ())
        if (known := self._names.get(id(parameter))) is None:
            known = self.modules.setdefault(parameter, f"{role}.{name}" if name in shared else name)
            if self.named.setdefault(known, parameter) is not parameter:
                raise SharedNameError(known, role, self.here())
            self._names[id(parameter)] = known
        if known != name and name not in shared and isinstance(self.modules, Modules):
            self.modules.aliases[name] = known
        return known

    def read(self, session: Session[PyroPrograms], x: Any) -> Any:
        """What stands for a tensor that may be a module's parameter, which where parameters are made is itself; one that a
        handler has hidden went to Pyro's store, and is a constant."""
        name = None
        kind = type(x)
        if kind is torch.nn.Parameter or (kind is not torch.Tensor and isinstance(x, torch.nn.Parameter)):
            if x.requires_grad and not session.parameters.makes:
                name = self._names.get(id(x)) or self.modules.get(x)
            if name is None and x.requires_grad and pyro.get_param_store().param_name(x) is not None:
                with disable_current_modes():
                    return x.detach()
        return self.buffers.read(x) if name is None else session.value_of(name)

    # Random numbers ---------------------------------------------------------------------------------------------------

    def key(self, scope: Scope) -> torch.Tensor:
        return scope.keys

    def subsample(self, scope: Scope, name: str, total: int, size: int) -> torch.Tensor:
        """Rows of a plate's minibatch, the same throughout one evaluation."""
        key, rows = scope.evaluation
        if name not in rows:
            rows[name] = self.effects.random(lambda key: _rows(key, total, size), key)
        return rows[name]

    def poisson(self, scope: Scope, rate: float) -> torch.Tensor:
        return self.effects.random(lambda key: torch.poisson(torch.full(key.shape, rate)), scope.keys)

    def geometric(self, scope: Scope, decay: float) -> torch.Tensor:
        return self.effects.random(lambda key: torch.empty(key.shape).geometric_(1 - decay) - 1, scope.keys)

    def subset(self, scope: Scope, total: int, size: int) -> torch.Tensor:
        return self.effects.random(lambda key: _rows(key, total, size), scope.keys)

    # Sites ------------------------------------------------------------------------------------------------------------

    def refuse_draw(self, scope: Scope, name: str, where: str) -> None:
        self._seed.refuse_another()
        if level() != scope.lanes:
            raise EngineError(
                f"site {name!r} at {where} is drawn under torch.vmap or torch.func, where every lane would share one draw. Use "
                f"ppvi.replicate(n, thunk), which draws afresh in every run, or a plate."
            )

    def drawing(self) -> AbstractContextManager[Any]:
        return within(self.effects.origin)

    def choosing(self, log_weights: torch.Tensor, lanes: tuple[int, ...]) -> torch.distributions.Distribution:
        logits = log_weights.movedim(0, -1).expand(*lanes, len(log_weights))
        return torch.distributions.Categorical(logits=logits, validate_args=False)

    def evaluate(
        self, fn: Any, value: torch.Tensor, intermediates: Sequence[Any], relaxed: bool
    ) -> tuple[torch.Tensor | None, Exception | None]:
        made_of = None if intermediates or level() or self.buffers.places else ingredients_of_library(fn)
        if made_of is None or type(value) is not torch.Tensor:
            return evaluate(fn, value, intermediates)
        # To those who watch what functions a program calls, a library's density is one of them.
        with DisableTorchFunction():
            found = evaluate(fn, value, intermediates)
        if self.effects.crossed is not None and found[0] is not None:
            with within(Origin.DENSITY):
                self.effects.crossed(made_of.kinds, (*made_of.tensors, value), {}, found[0])
        return found

    def summed(
        self,
        session: Session[PyroPrograms],
        run: Callable[[], Told],
        sizes: Callable[[Sequence[Piece]], Sequence[int]],
        finish: Finish,
    ) -> torch.Tensor:
        def marked() -> torch.Tensor:
            told = run()
            return summing.mark(told, sizes(told.pieces), finish)

        if self.effects is STAGED:
            return marked()
        if level():
            raise DynamicError("sums out finite sites")
        return self._summed_now(session, marked)

    def _summed_now(self, session: Session[PyroPrograms], marked: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The sum by a graph of this run alone, of which what is around it is a constant."""

        def traced(key: torch.Tensor) -> torch.Tensor:
            with session.within(keys=session.scope.keys + key):  # so that what stands for a site is traced
                return marked()

        before, self.marks = self.marks, STAGED.marks
        try:
            with stage.registering() as things, session.within(plain=False, lanes=level() + 1):
                token = torch.zeros(())
                return summing.expanded(stage.traced_and_read(traced, things, token, are_constants=True).graph, token)
        except DynamicError as error:
            raise EngineError(
                f"finite sites that the guide lacks are summed out of programs that can be staged, and this one cannot: "
                f"{error}. Let it have a number of Python's there, such as x.shape[1] of padded data in place of "
                f"int(lengths.max()), or draw the sites in the guide."
            ) from error
        finally:
            self.marks = before

    # Runs of a function -----------------------------------------------------------------------------------------------

    def each(self, session: Session[PyroPrograms], function: Callable[..., Any], stacks: Sequence[Any], n: int) -> Any:
        def run(key: torch.Tensor, *entries: Any) -> Any:
            own = session.within(keys=session.scope.keys + key, lanes=level())
            with own, self.buffers.side_by_side(key) as ended:
                found = function(*entries)
                self.effects.write(session, ended())
                return found

        return vmap(run)(torch.zeros(n), *stacks)

    def in_turn(self, scope: Scope, n: int) -> Callable[[int], Mapping[str, Any]]:
        return lambda i: {}

    def fold(self, session: Session[PyroPrograms], count: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        raise DynamicError("it runs a program as many times as a draw says")

    @contextmanager
    def separate_evaluation(self, session: Session[PyroPrograms], key: torch.Tensor, i: Any) -> Iterator[None]:
        own = session.scope.evaluation._replace(rows={})
        with torch.no_grad(), session.within(plain=True, evaluation=own):
            yield

    def stacked(self, trees: Sequence[Any]) -> Any:
        return stacked(*trees)

    def repeated(self, tree: Any, n: int) -> Any:
        return tree_map(lambda x: torch.as_tensor(x).expand(n, *torch.as_tensor(x).shape), tree)


def _as_double(x: torch.Tensor) -> np.ndarray:
    return x.double().cpu().numpy()


def _rows(key: torch.Tensor, total: int, size: int) -> torch.Tensor:
    """Different numbers below the total, for every run."""
    return torch.rand(*key.shape, total).argsort(-1)[..., :size]
