"""The training loop.

A step moves the parameters of one objective, or of several in turn, each by its own gradient and its own parameters, as
in wake-sleep, variational EM and adversarial schemes. What is moved are the unconstrained tensors themselves: those of
modules, in place, as any PyTorch optimiser does, and for the others those that Pyro's parameter store holds afterwards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from pyro.optim import PyroOptim
from torch.distributed.device_mesh import DeviceMesh
from torch.distributions import transform_to

from ppvi.engine.fitting import (
    Fit,
    Whose,
    cause_in,
    check_steps,
    moved,
    one_each,
    pairs_of,
    progress_bar,
    refuse_other_shapes,
    refuse_unknown_params,
    stopped,
    strayed,
    update_of,
)
from ppvi.errors import ProgramError
from ppvi.pyro.keys import Key, seeded, seeds
from ppvi.pyro.learning import States, value_and_grads
from ppvi.pyro.objective import Objective, Params
from ppvi.pyro.unstaged import Probe

Optimizer = Callable[[Iterable[torch.Tensor]], torch.optim.Optimizer] | PyroOptim
"""Makes an optimiser of tensors, such as the class `torch.optim.Adam`; or one of `pyro.optim`."""


@dataclass(frozen=True)
class Move:
    """What one objective does in a step: a gradient step of its own parameters."""

    bound: Objective
    leaves: Mapping[str, torch.Tensor]
    """Its own parameters, unconstrained."""
    update: Callable[[], None]
    """Moves them by their `.grad`."""
    states: States

    @property
    def sign(self) -> int:
        return -1 if self.bound.maximize else 1

    def step(self, params: Params, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, list[str]]:
        """The loss, and the parameters whose gradients are not finite; nothing is moved if there are any."""

        def surrogate(values: dict[str, Any]) -> torch.Tensor:
            if not values:
                return self.bound.surrogate(None, params, *args, **kwargs)
            return self.bound.surrogate_in(values, None, params, args, kwargs)

        value, grads = value_and_grads(surrogate, list(self.leaves.values()), self.states)
        loss = self.sign * value.item()
        bad = [name for name, grad in zip(self.leaves, grads, strict=True) if not bool(grad.isfinite().all())]
        if not bad and np.isfinite(loss):
            for leaf, grad in zip(self.leaves.values(), grads, strict=True):
                leaf.grad = self.sign * grad
            self.update()
            for leaf in self.leaves.values():
                leaf.grad = None
        return loss, bad


def fit(
    objective: Objective | Sequence[tuple[Objective, Whose]],
    key: Key,
    *args: Any,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    num_steps: int = 2000,
    params: Params | None = None,
    progress: bool = True,
    mesh: DeviceMesh | None = None,
    **kwargs: Any,
) -> Fit:
    """Optimise an objective by stochastic gradients in unconstrained space, or several objectives in turn.

    The parameters of modules are moved in place, and all parameters are in Pyro's parameter store afterwards.

    **Arguments**

    - `objective`: from `objective`; climbed if it is maximised, else descended. Or a sequence of pairs, an objective and
      whose parameters it moves: `"model"`, `"guide"`, a collection of names, or a predicate on names. A step then takes a
      gradient step for each pair in turn, at the parameters that the pair before has left.
    - `key`: an int seed, a `torch.Generator`, or None for PyTorch's global one.
    - `*args`, `**kwargs`: passed to the model and the guide.
    - `optimizer`: makes an optimiser of tensors, such as `functools.partial(torch.optim.Adam, lr=0.02)`, or is one of
      `pyro.optim`; or one for each pair. Adam with step size 0.01 by default.
    - `num_steps`: number of gradient steps (of each objective).
    - `params`: constrained values to start from instead of the initial ones.
    - `progress`: whether to show a progress bar.
    - `mesh`: processes on CPUs that share the work, from `torch.distributed.init_device_mesh`. Each calls `fit` with the
      whole data; tensors among the arguments are split along their leading axis over the axes of the mesh, but for one
      named `"particles"`, which splits the runs of `replicate`. Parameters and random numbers start as the first
      process's. The same key gives the same fit on any mesh, up to rounding.

    **Raises** `FitError` when an estimate or a parameter becomes NaN or infinite, or a positive parameter zero: it says at
    which step and where it came from, and holds the fit up to the last good state. `ProgramError` if an objective would move
    nothing. `EngineError` where a mesh cannot share the gradient: strategies that learn or are `sequential`, programs that
    are replayed, devices other than CPUs.
    """
    check_steps(num_steps)
    single, pairs = isinstance(objective, Objective), pairs_of(objective)
    objectives = tuple(bound for bound, _ in pairs)
    first, later = seeds(key, 2)
    starts = [bound.initialise(first, *args, **kwargs) for bound in objectives]
    with seeded(later):
        leaves = {name: x for at in starts for name, x in at.leaves.items()}
        constraints = {name: c for at in starts for name, c in at.constraints.items()}
        transforms = {name: transform_to(c) for name, c in constraints.items()}
        _start_from(leaves, transforms, params)
        mine = [{name: leaves[name] for name in moved(whose, at)} for (_, whose), at in zip(pairs, starts, strict=True)]

        def constrained() -> Params:
            return {name: transforms[name](leaf) for name, leaf in leaves.items()}

        def result() -> Fit:
            done = np.asarray(losses, np.float32).reshape(len(losses), *() if single else (len(pairs),))
            values = {name: value.detach().clone() for name, value in constrained().items()}
            return Fit(values, done, objectives, key, args, kwargs)

        shared = objectives
        if mesh is not None:
            from ppvi.pyro.sharding import Layout  # which takes a second to import

            layout = Layout(mesh)
            layout.agree(leaves.values())
            shared = [bound.on(layout) for bound in objectives]
        states = [bound.states(constrained(), *args, **kwargs) for bound in objectives]
        updates = [
            _updates(o, list(x.values())) for o, x in zip(one_each(optimizer or _adam, len(pairs)), mine, strict=True)
        ]
        moves = tuple(map(Move, shared, mine, updates, states))
        losses: list[Any] = []
        every = max(num_steps // 50, 1)
        with progress_bar(num_steps, progress) as bar:
            for i in range(num_steps):
                values = []
                for move in moves:
                    random, before = torch.get_rng_state(), [leaf.detach().clone() for leaf in move.leaves.values()]
                    loss, bad = move.step(constrained(), args, kwargs)
                    lost = _lost(move.leaves, transforms, constraints)
                    if bad or not np.isfinite(loss) or lost:
                        _restore(move.leaves.values(), before)
                        done = result()
                        cause = (
                            cause_in(_culprits(move.bound, random, done), bool(np.isfinite(loss)), bad) or lost or ""
                        )
                        raise stopped(i, cause, done, "torch.nn.utils.clip_grad_norm_ in an optimiser of your own")
                    values.append(loss)
                losses.append(values[0] if single else values)
                if (i + 1) % every == 0 or i + 1 == num_steps:
                    recent = np.reshape(losses[bar.n :], (-1, len(pairs))).mean(0)
                    bar.update(i + 1 - bar.n)
                    bar.set_postfix(loss=", ".join(f"{x:.5g}" for x in recent), refresh=False)
    pyro.get_param_store().set_state({"params": leaves, "constraints": constraints})
    return result()


def _adam(leaves: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(leaves, lr=1e-2)


def _updates(optimizer: Any, leaves: list[torch.Tensor]) -> Callable[[], Any]:
    """A function that moves leaves by their gradients."""
    if isinstance(optimizer, PyroOptim):
        return lambda: optimizer(leaves)
    made: Any = (
        None if isinstance(optimizer, torch.optim.Optimizer) or not callable(optimizer) else _made(optimizer, leaves)
    )
    if not isinstance(made, torch.optim.Optimizer):
        name = getattr(optimizer, "__name__", None) or f"an instance of {type(optimizer).__name__}"
        raise ProgramError(
            f"fit: the optimizer must make an optimiser of the tensors that it is given, as "
            f"functools.partial(torch.optim.Adam, lr=0.01) does, or be one of pyro.optim, as "
            f"pyro.optim.Adam({{'lr': 0.01}}) is, and not {name}."
        )
    return lambda: made.step()  # a scheduler holds the optimiser itself by a weak reference only


def _made(optimizer: Any, leaves: list[torch.Tensor]) -> Any:
    """What an optimiser's maker makes; None of those of `pyro.optim`, which make none of tensors."""
    return None if str(getattr(optimizer, "__module__", None)).startswith("pyro.") else optimizer(leaves)


def _start_from(leaves: Mapping[str, torch.Tensor], transforms: Mapping[str, Any], params: Params | None) -> None:
    if params is not None:
        refuse_unknown_params(dict(leaves), params)
        start = {name: transforms[name](leaves[name]) for name in params}
        refuse_other_shapes(start, params, lambda x: tuple(torch.as_tensor(x).shape))
        values = {name: transforms[name].inv(torch.as_tensor(value).detach()) for name, value in params.items()}
        _restore([leaves[name] for name in values], list(values.values()))


@torch.no_grad()
def _restore(leaves: Iterable[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    for leaf, value in zip(leaves, values, strict=True):
        leaf.copy_(value)


@torch.no_grad()
def _lost(
    leaves: Mapping[str, torch.Tensor], transforms: Mapping[str, Any], constraints: Mapping[str, Any]
) -> str | None:
    """What is wrong with the parameters, if anything."""
    for name, leaf in leaves.items():
        if leaf.numel() and not float(leaf.abs().max()) < HARMLESS:
            if not bool(leaf.isfinite().all()):
                return update_of(name)
            if cause := strayed(name, transforms[name](leaf).double().cpu().numpy(), constraints[name]):
                return cause
    return None


HARMLESS = 10.0
"""Unconstrained numbers below this are far from where a transform leaves the numbers, even those of half precision."""


def _culprits(bound: Objective, random: torch.Tensor, done: Fit) -> list[str]:
    """The sites whose values or densities are not finite."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.set_rng_state(random)
        start = functools.partial(Probe, done.params, bound.strategies, bound.modules)
        arguments = bound.arguments(done.args, done.kwargs)
        with arguments.lent(arguments.copies()) as (args, kwargs):
            _, probe = bound.evaluate(start, args, kwargs)
    return probe.culprits
