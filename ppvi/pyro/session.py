"""A session: one run of an objective, for staging it or for finding its parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._C._functorch import maybe_current_level  # pyright: ignore[reportMissingImports]
from torch.utils._pytree import tree_leaves, tree_map

from ppvi.compiler.ir import Candidate, SiteInfo
from ppvi.errors import EngineError, ProgramError, StrategyError
from ppvi.pyro import source
from ppvi.pyro.distributions import SiteDistribution
from ppvi.pyro.handlers import Handle
from ppvi.pyro.ops import OPS
from ppvi.pyro.stage import draw, site_of
from ppvi.strategies import Draw, Strategy, default_strategies


class Session:
    """The engine's side of `ppvi.program.Session`, while an objective is staged."""

    ops = OPS

    def __init__(self, params: Mapping[str, Any], chosen: Mapping[str, Strategy]):
        self.params = params
        self.chosen = chosen
        self.drawn: set[str] = set()
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.rows: dict[str, torch.Tensor] = {}
        self._held: bool | str = False
        self._key = torch.zeros(())
        self._level = level()

    def param(self, name: str, initial: Callable[[], Any], constraint: Any, role: str) -> Any:
        if name not in self.params:
            raise ProgramError(
                f"parameter {name!r} of the {role} at {source.here()} is missing from params, which has {sorted(self.params)}: "
                f"take params from `init`, or add a value under that name."
            )
        value = self.params[name]
        return value.detach() if self._held else value

    def draw(self, name: str, fn: Any, infer: Mapping[str, Any]) -> tuple[torch.Tensor, str]:
        """Draw a site by its strategies and mark it.

        **Returns** its value, and the route of its gradient.
        """
        where = source.here()
        if level() != self._level:
            raise EngineError(
                f"site {name!r} at {where} is drawn under torch.vmap or torch.func, where every lane would share one draw. Use "
                f"ppvi.replicate(n, thunk), which draws afresh in every run, or a plate."
            )
        self.drawn.add(name)
        site = SiteDistribution(fn, self._key, infer.get("baseline_input"))
        strategy = self.chosen.get(name, infer.get("strategy"))
        if strategy is not None and (problem := strategy.misfit(site)):
            raise StrategyError(f"site {name!r} ~ {site.name} at {where}: {problem}.")
        fitting = default_strategies(site) if strategy is None else (strategy,)
        draws = [candidate.draw(site, None) for candidate in fitting]
        inputs: list[torch.Tensor] = []
        candidates = [Candidate(s, _collect(d, inputs)) for s, d in zip(fitting, draws, strict=True)]
        bounds = site.bounds()
        info = SiteInfo(
            name=name,
            distribution=site.name,
            where=where,
            ndim=len(site.lanes),
            candidates=tuple(candidates),
            named=strategy is not None,
            bounds=tuple(range(1 + len(inputs), 1 + len(inputs) + len(bounds))),
            support=site.support,
        )
        return site_of(info, self._key, [*inputs, *bounds]), fitting[0].route

    def subsample(self, name: str, total: int, size: int) -> torch.Tensor:
        """Rows of a plate's minibatch, the same throughout one evaluation."""
        if name not in self.rows:
            key = torch.zeros(())
            self.rows[name] = draw(key, (), lambda key: torch.randperm(total)[:size])
        return self.rows[name]

    # What verbs ask for -----------------------------------------------------------------------------------------------

    def each(self, function: Callable[..., Any], stacks: Sequence[Any], n: int | None) -> Any:
        """`function` of every entry along the leading axis of the stacks, `n` of them where there are no stacks."""
        runs = n or len(tree_leaves(list(stacks))[0])

        def run(key: torch.Tensor, *entries: Any) -> Any:
            with self._fresh(self._key + key):
                return tree_map(torch.as_tensor, function(*entries))

        return torch.vmap(run, randomness="different")(torch.zeros(runs), *stacks)

    @contextmanager
    def _fresh(self, key: torch.Tensor) -> Iterator[None]:
        outer = self._key, self._level
        self._key, self._level = key, level()
        try:
            yield
        finally:
            self._key, self._level = outer

    def handle(self, fn: Callable[..., Any], *leading: Any) -> Handle:
        name = getattr(fn, "__name__", type(fn).__name__)
        return Handle(functools.partial(fn, *leading), f"program {name}", self, self.args, self.kwargs)

    @contextmanager
    def held(self, stop: bool | str) -> Iterator[None]:
        """Parameters are constants for every gradient, if `stop`, which may be the reason."""
        outer, self._held = self._held, self._held or stop
        try:
            yield
        finally:
            self._held = outer

    def kl(self, q: Any, p: Any) -> torch.Tensor | None:
        try:
            return torch.distributions.kl_divergence(q[0], p[0]).sum() if q[1] is p[1] else None
        except NotImplementedError:
            return None

    def estimate(self, value: torch.Tensor, what: str) -> torch.Tensor:
        return value

    def because(self, value: torch.Tensor, reason: str) -> torch.Tensor:
        return value

    def choice(self, site: str, log_weights: torch.Tensor, n: int | None) -> torch.Tensor:
        lanes = log_weights.shape[1:] if n is None else (n, *log_weights.shape[1:])
        logits = log_weights.movedim(0, -1).expand(*lanes, len(log_weights))
        return self.draw(site, torch.distributions.Categorical(logits=logits), {})[0]

    def fold(self, count: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        raise EngineError("plain runs whose number is drawn are not supported on Pyro.")

    def poisson(self, rate: float) -> torch.Tensor:
        return draw(self._key, (), lambda key: torch.poisson(torch.full(key.shape, rate)))

    def geometric(self, decay: float) -> torch.Tensor:
        return draw(self._key, (), lambda key: torch.empty(key.shape).geometric_(1 - decay) - 1)

    def subset(self, data: Any, size: int) -> tuple[Any, int]:
        total = len(tree_leaves(data)[0])
        if size > total:
            raise ProgramError(f"minibatch: there are {total} rows, fewer than a batch of {size}.")

        def rows(key: torch.Tensor) -> torch.Tensor:
            return torch.rand(*key.shape, total).argsort(-1)[..., :size]

        chosen = draw(self._key, (), rows)
        return tree_map(lambda x: x[chosen], data), total


class Initialisation(Session):
    """A session that runs the objective once, to find its parameters."""

    def __init__(self, chosen: Mapping[str, Strategy]):
        super().__init__({}, chosen)
        self.found: dict[str, torch.Tensor] = {}
        self.constraints: dict[str, Any] = {}

    def draw(self, name: str, fn: Any, infer: Mapping[str, Any]) -> tuple[torch.Tensor, str]:
        return fn.sample(), "credit"

    def each(self, function: Callable[..., Any], stacks: Sequence[Any], n: int | None) -> Any:
        runs = n or len(tree_leaves(list(stacks))[0])
        result = function(*tree_map(lambda x: x[0], list(stacks)))
        return tree_map(lambda x: torch.as_tensor(x).expand(runs, *torch.as_tensor(x).shape), result)

    def param(self, name: str, initial: Callable[[], Any], constraint: Any, role: str) -> Any:
        if name not in self.found:
            value = initial()
            if value is None:
                raise ProgramError(
                    f"parameter {name!r} of the {role} at {source.here()} has no initial value: write "
                    f"pyro.param({name!r}, value) at the first place where it is asked for."
                )
            self.found[name] = torch.as_tensor(value).detach().clone()
            self.constraints[name] = constraint
        return self.found[name]


def level() -> int:
    """How many transformations of `torch.func` are around."""
    return maybe_current_level() or 0


def _collect(drawn: Draw, inputs: list[torch.Tensor]) -> tuple[int | None, ...]:
    """Append a draw's arrays to a site's inputs; where each field went. Input 1 is the site's key."""
    places: list[int | None] = []
    for field in drawn:
        if field is None:
            places.append(None)
            continue
        inputs.append(torch.as_tensor(field))
        places.append(0 if len(inputs) == 1 else len(inputs))
    return tuple(places)
