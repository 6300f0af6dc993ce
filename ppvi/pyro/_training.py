"""Training on PyTorch. What is moved are the unconstrained tensors themselves: those of modules, in place, as any PyTorch
optimiser does, and for the others those that Pyro's parameter store holds afterwards. A state is a copy of them, and steps that
begin at another state than the last one put that back first.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyro
import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributions import transform_to

from ppvi.engine import training
from ppvi.engine.gaps import gaps_of
from ppvi.engine.protocol import Params
from ppvi.engine.training import Arrays, Averaging, Data, State, Whose
from ppvi.errors import ProgramError
from ppvi.pyro._buffers import named_again
from ppvi.pyro._engine import Estimator
from ppvi.pyro._geometry import Blockwise
from ppvi.pyro._keys import Key, drawing_from, random_state, seeded, seeds
from ppvi.pyro._memories import Memory
from ppvi.pyro._moves import Move, moving
from ppvi.pyro._plain import culprits_of
from ppvi.pyro._programs import check
from ppvi.pyro._trees import tree_leaves
from ppvi.pyro._unconstrained import Unconstrained

if TYPE_CHECKING:  # distributed tensors take a second to import
    from ppvi.pyro._sharding import Layout


class Trainer:
    """Moves the parameters of objectives on PyTorch; a `ppvi.engine.training.Trainer`."""

    remedy = "torch.nn.utils.clip_grad_norm_ in an optimiser of your own"

    def __init__(
        self,
        pairs: Sequence[tuple[Estimator, Whose]],
        key: Key,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        optimizer: Any = None,
        params: Params | None = None,
        averaging: Averaging | None = None,
        mesh: DeviceMesh | None = None,
        starts: int = 1,
    ):
        self.objectives = shared = tuple(bound for bound, _ in pairs)
        self.averaging, self.starts = averaging, starts
        self.layout: Layout | None = None
        self._shared: Data | None = None
        first, later, *more = seeds(key, 2 * starts)
        found = [bound.initialise(first, *args, **kwargs) for bound in self.objectives]
        for bound, at in zip(self.objectives, found, strict=True):
            bound.formula.refuse_no_params(at.params)
        self.leaves = {name: x for at in found for name, x in at.leaves.items()}
        self._from = training.beginning([whose for _, whose in pairs], found, transform_to)
        self._many, self._several = (() if n == 1 else (n,) for n in (starts, len(pairs)))
        given = self._given(params)
        others = [self._apart(seed, set(given), args, kwargs) for seed in more[::2]]
        with seeded(later):
            if mesh is not None:
                from ppvi.pyro._sharding import Layout  # which takes a second to import

                self.layout = layout = Layout(mesh)
                layout.agree([*self.leaves.values(), *(x for other in others for x in other.values())])
                shared = tuple(bound.on_mesh(layout) for bound in self.objectives)
            random = random_state()
        constrained = self._from.constrained(self.leaves)
        pyro.get_param_store().set_state(
            {"params": self.leaves, "constraints": self._from.constraints}
        )  # optimisers ask it for names
        moves, space = [], Unconstrained(self.leaves, self._from.transforms)
        each = zip(
            self.objectives, shared, found, self._from.names, training.one_each(optimizer, len(pairs)), strict=True
        )
        for bound, on_mesh, at, mine, rule in each:
            leaves = {name: self.leaves[name] for name in mine}
            memory = moving(rule, self._from, bound, at, mine, self.leaves, args, kwargs, shared=mesh is not None)
            states = bound.states(constrained, *args, **kwargs)
            rules = list(states.rules.values())
            moves.append(Move(on_mesh, space, leaves, memory, states, Memory(lambda: None, lambda rules=rules: rules)))
        self.moves = tuple(moves)
        memories = (move.memory for move in moves if isinstance(move.memory, Blockwise))
        self.explained = tuple(line for memory in memories for line in memory.parts.said(memory.optimizer))
        self._average = {} if averaging is None else {name: _precise(x) for name, x in self.leaves.items()}
        self._at: Arrays | None = None
        all_of_them = [self._now(random)]
        for other, seed in zip(others, more[1::2], strict=True):
            with seeded(seed):
                random = _within("random/", random_state())
            average = {name: _precise(x) for name, x in other.items()} if self._average else {}
            all_of_them.append(
                {**all_of_them[0], **_within("params/", other), **_within("average/", average), **random}
            )
        averages = [dict.fromkeys(f"average/{name}" for name in self._average)] * starts
        self.averages = list(self._joined(averages))
        self._init = State(self._joined(all_of_them), np.zeros((0, *self._many, *self._several), np.float32), starts)

    @torch.no_grad()
    def _given(self, params: Params | None) -> Params:
        """Values to start from, at which the leaves are put."""
        start = self._from.constrained(self.leaves)
        given = training.started_from(
            start, self._from.constraints, params, _like, lambda x: tuple(torch.as_tensor(x).shape), _numbers, check
        )
        for name, value in given.items():
            self.leaves[name].copy_(self._from.transforms[name].inv(value))
        return given

    def _apart(self, seed: int, given: Collection[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Params:
        """The unconstrained parameters that another start than the first begins with, less those that are given to all."""
        found = [bound.initialise(seed, *args, **kwargs) for bound in self.objectives]
        own = {name: x for at in found for name, x in at.leaves.items()}
        other = [self.leaves[name] if name in given else own[name] for name in self.leaves]
        values = self._from.constrained(self.leaves).values()
        arrays = ([x.detach().double().cpu().numpy() for x in each] for each in (self.leaves.values(), other, values))
        begun = zip(self.leaves.items(), training.apart(*arrays, seed=seed), strict=True)
        return {name: torch.as_tensor(x, dtype=like.dtype, device=like.device) for (name, like), x in begun}

    # States -------------------------------------------------------------------------------------------------------------

    def _tensors(self) -> dict[str, torch.Tensor]:
        """What is moved in place, beside what optimisers remember."""
        buffers: dict[int, tuple[str, torch.Tensor]] = {}
        for i, bound in enumerate(self.objectives):
            for place in bound.modules.places:
                buffers.setdefault(id(place.tensor), (f"buffers/{i}/{len(buffers)}/{place.path}", place.tensor))
        learned = {
            f"strategies/{i}/{site}/{j}": x
            for i, move in enumerate(self.moves)
            for site, tree in move.states.values.items()
            for j, x in enumerate(tree_leaves(tree))
        }
        return {
            **{f"params/{name}": x for name, x in self.leaves.items()},
            **{f"average/{name}": x for name, x in self._average.items()},
            **learned,
            **dict(buffers.values()),
        }

    def _memories(self) -> Iterator[tuple[str, Memory]]:
        for i, move in enumerate(self.moves):
            yield f"optimizers/{i}/", move.memory
            yield f"learning/{i}/", move.learned

    def _now(self, random: Mapping[str, torch.Tensor]) -> Arrays:
        """What all is now."""
        arrays = {name: x.detach().clone() for name, x in self._tensors().items()}
        for prefix, memory in self._memories():
            arrays |= _within(prefix, memory.arrays())
        self._at = {**arrays, **_within("random/", random)}
        return self._at

    @torch.no_grad()
    def _go_to(self, arrays: Arrays) -> None:
        """Make all what it was."""
        if arrays is self._at:
            return
        for prefix, memory in self._memories():
            memory.load(_under(prefix, arrays))
        for name, x in self._tensors().items():
            x.copy_(torch.as_tensor(arrays[name]))
        self._at = arrays

    def _joined(self, arrays: Sequence[Arrays]) -> Arrays:
        """What all starts have."""
        if not self._many:
            return arrays[0]
        return {name: x for i, each in enumerate(arrays) for name, x in _within(f"starts/{i}/", each).items()}

    @property
    def is_first(self) -> bool:
        return self.layout is None or self.layout.is_first

    def agreed(self, number: int) -> int:
        return number if self.layout is None else self.layout.agreed(number)

    def init(self) -> State:
        return self._init

    def one(self, state: State, start: int) -> State:
        if state.starts == 1:
            return state
        return State(_under(f"starts/{start}/", state.arrays), state.losses_of(start))

    def restored(self, state: State) -> State:
        restored = [self._restored(self.one(state, i), self.one(self._init, i)) for i in range(self.starts)]
        return State(self._joined(restored), state.losses, self.starts)

    def _restored(self, state: State, init: State) -> Arrays:
        if state.step and any(move.memory.hooked for move in self.moves):
            raise ProgramError(
                "fit: the optimizer has step hooks, and what they remember is in no state: let its maker return a scheduler "
                "beside it, (optimizer, scheduler), which a fit steps itself; or begin anew with params=."
            )
        arrays = {name: torch.as_tensor(x) for name, x in state.arrays.items()}
        prefixes = (*(prefix for prefix, _ in self._memories()), "random/cuda")
        mine, theirs = (
            {name: x for name, x in found.items() if not name.startswith(prefixes)} for found in (init.arrays, arrays)
        )
        training.refuse_other_state(mine, State(theirs, state.losses))
        found = arrays | {name: x.to(mine[name]) for name, x in theirs.items()}
        self._go_to(found)
        return found

    # Steps --------------------------------------------------------------------------------------------------------------

    def advance(self, state: State, n: int, data: Data) -> tuple[Arrays, np.ndarray, np.ndarray]:
        """One start after the other; those that are lost stay where they are."""
        if self.layout is None:
            return self._in_turn(state, n, data)
        if data is not self._shared:
            self.layout.refuse_different(self.objectives[0].arguments(*data).tensors)
            self._shared = data
        with self.layout.peers():
            found = self._in_turn(state, n, data)
        self.layout.warn_unused()
        return found

    def _in_turn(self, state: State, n: int, data: Data) -> tuple[Arrays, np.ndarray, np.ndarray]:
        arrays, losses, fine = [], [], []
        for i, is_lost in enumerate(state.lost):
            one = self.one(state, i)
            still = one.arrays, np.full((n, *self._several), np.nan, np.float32), False
            after = still if is_lost else self._advance(one, n, data)
            for found, x in zip((arrays, losses, fine), after, strict=True):
                found.append(x)
        return self._joined(arrays), np.stack(losses, 1) if self._many else losses[0], np.array(fine)

    def estimates(self, state: State, draws: range, data: Data) -> np.ndarray:
        bound, (args, kwargs) = self.objectives[0], data
        found = np.empty((len(draws), self.starts))
        base = zlib.crc32(self.one(state, 0).arrays["random/cpu"].numpy().tobytes()) << 20
        for i in range(self.starts):
            one = self.one(state, i)
            self._go_to(one.arrays)
            params = self.params(one)
            found[:, i] = [float(bound.estimate(base + draw, params, *args, **kwargs)) for draw in draws]
        return -found if bound.formula.maximize else found

    def _advance(self, state: State, n: int, data: Data) -> tuple[Arrays, np.ndarray, bool]:
        self._go_to(state.arrays)
        self._at = None  # whatever happens in between
        with drawing_from(_under("random/", state.arrays)):
            losses = torch.stack([self._step(state.step + i, data) for i in range(1, n + 1)]).cpu()
            after = self._now(random_state())
        losses = (losses if losses.dtype == torch.float64 else losses.float()).numpy()
        fine = bool(np.isfinite(losses).all()) and self._lost(after) is None
        return after, losses.reshape(n, *self._several), fine

    def _step(self, number: int, data: Data) -> torch.Tensor:
        """The losses."""
        losses: list[torch.Tensor] = []
        for move in self.moves:
            value, grads = move.gradient(*data)
            move.move(grads, *data)
            losses.append(-value if move.bound.formula.maximize else value)
        if self.averaging is not None:
            weight = self.averaging.weight(number)
            for name, mean in self._average.items():
                mean.lerp_(self.leaves[name].detach().to(mean.dtype), weight)
        return torch.stack(losses) if self._several else losses[0]

    @torch.no_grad()
    def params(self, state: State) -> Params:
        found = _under("params/" if self.averaging is None else "average/", state.arrays)
        found = self._from.constrained(
            {name: torch.as_tensor(x).to(self.leaves[name].device) for name, x in found.items()}
        )
        return {name: value.to(self.leaves[name].dtype, copy=True) for name, value in found.items()}

    # What goes wrong ----------------------------------------------------------------------------------------------------

    def problem(self, state: State) -> str | None:
        lost = self._lost(state.arrays)
        finite = bool(np.isfinite(state.losses[-1:]).all())
        return lost if lost or finite else "the objective's value is not finite"

    def cause(self, state: State, data: Data) -> str | None:
        self._go_to(state.arrays)
        self._at = None
        with drawing_from(_under("random/", state.arrays)):
            for move in self.moves:
                random, params = torch.get_rng_state(), self._from.constrained(self.leaves)
                value, grads = move.gradient(*data)
                bad = [name for name, grad in zip(move.leaves, grads, strict=True) if not bool(grad.isfinite().all())]
                culprits = culprits_of(
                    move.bound.formula, move.bound.modules, random, params, move.bound.arguments(*data)
                )
                prove = functools.partial(
                    lambda bound, params: bound.seen(params, *data[0], **data[1]).prove(), move.bound, params
                )
                if cause := training.cause_in(culprits, bool(value.isfinite()), bad, prove):
                    return "; ".join([cause, *gaps_of(move.bound, *data)])
                move.move(grads, *data)
        return None

    @torch.no_grad()
    def _lost(self, arrays: Arrays) -> str | None:
        """What is wrong with the parameters, if anything."""
        for name, leaf in _under("params/", arrays).items():
            if leaf.numel() and not float(leaf.abs().max()) < HARMLESS:
                if not bool(leaf.isfinite().all()):
                    return training.update_of(name)
                value = self._from.transforms[name](leaf).double().cpu().numpy()
                if cause := training.strayed(name, value, self._from.constraints[name]):
                    return cause
        return None

    def end(self, state: State) -> None:
        self._go_to(state.arrays)
        stored = {"params": self.leaves, "constraints": self._from.constraints}
        for bound in self.objectives:
            stored = named_again(stored, bound.modules.aliases)
        pyro.get_param_store().set_state(cast(Any, stored))


HARMLESS = 10.0
"""Unconstrained numbers below this are far from where a transform leaves the numbers, even those of half precision."""


def _precise(x: torch.Tensor) -> torch.Tensor:
    """A copy in which a mean of many numbers still moves."""
    return x.detach().clone().to(torch.promote_types(x.dtype, torch.float32))


def _within(prefix: str, arrays: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: x for name, x in arrays.items()}


def _under(prefix: str, arrays: Arrays) -> dict[str, Any]:
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}


def _like(start: torch.Tensor, value: Any) -> torch.Tensor:
    """A value of a parameter in the format that it begins in."""
    return torch.as_tensor(value).detach().to(start)


def _numbers(x: torch.Tensor) -> list[np.ndarray]:
    return [x.cpu().numpy()]
