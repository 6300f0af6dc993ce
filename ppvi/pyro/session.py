"""A session on PyTorch: keys of runs, minibatches and parameters of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingImports]
from torch.distributions import constraints, transform_to

from ppvi.compiler.ir import Origin, Support
from ppvi.engine import sessions as engine
from ppvi.engine.minibatches import Plates
from ppvi.engine.runs import Run
from ppvi.errors import EngineError, ProgramError
from ppvi.pyro import graphs, source, stage
from ppvi.pyro.buffers import Buffers, SharedNameError
from ppvi.pyro.distributions import SiteDistribution, evaluate, without_masked
from ppvi.pyro.functions import calls_noted
from ppvi.pyro.handlers import Around, Direct, Reading
from ppvi.pyro.located import note, within
from ppvi.pyro.ops import OPS
from ppvi.pyro.refused import Seed
from ppvi.pyro.regions import support_of
from ppvi.pyro.stage import DynamicError
from ppvi.pyro.trees import level, tree_leaves, tree_map, vmap
from ppvi.strategies import Strategy


class Session(engine.Session):
    """An objective's run on PyTorch."""

    ops = OPS
    marks = stage

    def __init__(
        self,
        params: Mapping[str, Any],
        chosen: Mapping[str, Strategy],
        modules: MutableMapping[torch.nn.Parameter, str],
        distribution: Callable[..., SiteDistribution] = SiteDistribution,
        key: torch.Tensor | None = None,
    ):
        super().__init__(params, chosen, distribution)
        self.rows: dict[str, torch.Tensor] = {}
        """Of minibatches that are drawn."""
        self.modules = modules
        """Parameters that belong to modules, and their names, which runs of the objective add to."""
        self._root = self._key = torch.zeros(()) if key is None else key
        self._level = level()
        self._constant_draws = False
        self._named: dict[str, torch.nn.Parameter] = {}
        self.buffers = Buffers(getattr(modules, "places", ()))

    def here(self) -> str:
        return source.here()

    def key(self) -> torch.Tensor:
        """A tensor with an axis for every `each` around, by which samplers know how many runs there are."""
        return self._key

    def array(self, value: Any) -> torch.Tensor:
        return torch.as_tensor(value)

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        # The checks of values that distributions and Pyro make are no part of any graph, and what modules put into the
        # parameter store is of this session only.
        store, self._seed = pyro.get_param_store(), Seed()
        self._stored = store.get_state()
        with store.scope(), pyro.validation_enabled(False):
            try:
                with Reading(self), calls_noted(self.read):
                    yield
                self._seed.refuse_another()
            finally:
                ended = self.buffers.ended()
            self.write(ended)

    def shape_of(self, initial: Any, again: bool) -> Any:
        return None if callable(initial) else tuple(torch.as_tensor(initial).shape)

    def execute(self, run: Run, program: Callable[[], Any]) -> Any:
        plates = Plates(self, run.role)
        with plates.explained(), Around(run, self, plates):
            return program()

    @contextmanager
    def outside(self, grad: bool) -> Iterator[None]:
        """Around what is told of a site: densities and credit are the objective's, which has gradients whether or not the
        program is under `no_grad`; what the program draws there is a constant to it."""
        outer, self._constant_draws = self._constant_draws, grad and not torch.is_grad_enabled()
        try:
            with torch.set_grad_enabled(grad):
                yield
        finally:
            self._constant_draws = outer

    def draw(self, name: str, fn: Any, infer: Mapping[str, Any]) -> tuple[torch.Tensor, Sequence[Any], str]:
        self._seed.refuse_another()
        value, between, route = self.draw_site(name, fn, infer)
        if not self._constant_draws:
            return value, between, route
        return value.detach(), [(transform, x.detach()) for transform, x in between], route

    def draw_site(self, name: str, fn: Any, infer: Mapping[str, Any]) -> tuple[torch.Tensor, Sequence[Any], str]:
        """`draw` where gradients are recorded."""
        with within(Origin.STRATEGY):
            return super().draw(name, fn, infer)

    def direct(self) -> Direct:
        return Direct(self)

    def refuse_foreign_lanes(self, name: str, where: str) -> None:
        if level() != self._level:
            raise EngineError(
                f"site {name!r} at {where} is drawn under torch.vmap or torch.func, where every lane would share one draw. Use "
                f"ppvi.replicate(n, thunk), which draws afresh in every run, or a plate."
            )

    def same_rows(self, rows: Any, others: Any) -> bool:
        return graphs.same(rows, others)

    def support_of(self, constraint: Any) -> Support:
        return support_of(constraint)

    def is_signal(self, error: Exception) -> bool:
        return isinstance(error, RecursionError) or stage.what_prevents(error) is not None

    def evaluate(
        self, fn: Any, value: torch.Tensor, intermediates: Sequence[Any]
    ) -> tuple[torch.Tensor | None, Exception | None]:
        return evaluate(fn, value, intermediates)

    def looked_at(self, fn: Any, value: torch.Tensor) -> torch.Tensor:
        return without_masked(fn, value)

    def divergence(self, q: Any, p: Any) -> torch.Tensor | None:
        try:
            return torch.distributions.kl_divergence(q, p)
        except NotImplementedError:
            return None

    def stored(self, name: str) -> tuple[torch.Tensor | None, Any]:
        """The value and the constraint that Pyro's parameter store has: a module puts its constrained parameters there before
        it asks for them, and a program may ask for what was there before."""
        for state in (pyro.get_param_store().get_state(), self._stored):
            if name in state["params"]:
                constraint = state["constraints"][name]
                return transform_to(constraint)(state["params"][name]), constraint
        return None, constraints.real

    def own_name(self, parameter: torch.nn.Parameter, name: str, role: str) -> str:
        """The name of a module's parameter, of which no other has the same."""
        shared = getattr(self.modules, "shared", ())
        known = self.modules.setdefault(parameter, f"{role}.{name}" if name in shared else name)
        if self._named.setdefault(known, parameter) is not parameter:
            raise SharedNameError(known, role, self.here())
        return known

    def read(self, x: Any) -> Any:
        """What stands for a tensor that may be a module's parameter."""
        name = self.modules.get(x) if isinstance(x, torch.nn.Parameter) and x.requires_grad else None
        return self.buffers.read(x) if name is None else self.value_of(name)

    def write(self, buffers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Told at the end what is to be in the buffers of modules."""
        if self.marking:
            for buffer, value in buffers:
                stage.mark_write(buffer, value)

    def read_out(self, tensors: Any) -> None:
        """Told that numbers leave PyTorch where nothing else would see it: of a trace they would stay as they are for ever."""
        if any(isinstance(x, torch.Tensor) and is_functorch_wrapped_tensor(x) for x in tree_leaves(tensors)):
            raise DynamicError(f"it reads a number out of a tensor at {source.here()}")
        if self.marking:
            note(tensors)

    def subsample(self, name: str, total: int, size: int) -> torch.Tensor:
        """Rows of a plate's minibatch, the same throughout one evaluation."""
        if name not in self.rows:
            self.rows[name] = self.random(lambda key: _rows(key, total, size), self._root)
        return self.rows[name]

    def random(self, sampler: Callable[[torch.Tensor], torch.Tensor], key: torch.Tensor | None = None) -> torch.Tensor:
        """A draw of no site, by default for every run a draw of its own."""
        return stage.draw(self._key if key is None else key, (), stage.Sampler(sampler))

    # What verbs ask for -----------------------------------------------------------------------------------------------

    def each(self, function: Callable[..., Any], stacks: Sequence[Any], n: int | None) -> Any:
        """`function` of every entry along the leading axis of the stacks, `n` of them where there are no stacks."""
        runs = n or length(stacks)

        def run(key: torch.Tensor, *entries: Any) -> Any:
            with self._fresh(self._key + key), self.buffers.side_by_side(key) as ended:
                found = function(*entries)
                self.write(ended())
                return found

        return vmap(run)(torch.zeros(runs), *stacks)

    @contextmanager
    def _fresh(self, key: torch.Tensor) -> Iterator[None]:
        outer = self._key, self._level
        self._key, self._level = key, level()
        try:
            yield
        finally:
            self._key, self._level = outer

    def choice(self, site: str, log_weights: torch.Tensor, n: int | None) -> torch.Tensor:
        lanes = log_weights.shape[1:] if n is None else (n, *log_weights.shape[1:])
        logits = log_weights.movedim(0, -1).expand(*lanes, len(log_weights))
        return self.draw(site, torch.distributions.Categorical(logits=logits, validate_args=False), {})[0]

    def fold(self, count: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        raise DynamicError("it runs a program as many times as a draw says")

    def poisson(self, rate: float) -> torch.Tensor:
        return self.random(lambda key: torch.poisson(torch.full(key.shape, rate)))

    def geometric(self, decay: float) -> torch.Tensor:
        return self.random(lambda key: torch.empty(key.shape).geometric_(1 - decay) - 1)

    def subset(self, data: Any, size: int) -> tuple[Any, int]:
        total = length([data])
        if size > total:
            raise ProgramError(f"minibatch: there are {total} rows, fewer than a batch of {size}.")

        chosen = self.random(lambda key: _rows(key, total, size))
        return tree_map(lambda x: x[chosen], data), total


def _rows(key: torch.Tensor, total: int, size: int) -> torch.Tensor:
    """Different numbers below the total, for every run."""
    return torch.rand(*key.shape, total).argsort(-1)[..., :size]


def length(stacks: Sequence[Any]) -> int:
    """The size of the leading axis that all arrays share."""
    sizes = {tuple(torch.as_tensor(x).shape[:1]) for x in tree_leaves(list(stacks))}
    if len(sizes) != 1 or sizes == {()}:
        raise ProgramError(f"each: the stacks must share the size of their leading axis; theirs are {sorted(sizes)}.")
    return sizes.pop()[0]
