"""An objective as the `loss=` of `pyro.infer.SVI`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyro
import torch

from ppvi._source import warn_at
from ppvi.engine.protocol import Args, Kwargs, Params
from ppvi.engine.sites import refuse_learning
from ppvi.errors import ProgramError
from ppvi.pyro import _source as source
from ppvi.pyro._beginnings import Start
from ppvi.pyro._buffers import named_again
from ppvi.pyro._compat import Elbo
from ppvi.pyro._engine import Estimator

Program = Callable[..., Any]


class Loss(Elbo):
    """The surrogate, signed so that SVI's descent optimises the objective, with the verbs of Pyro's own losses. Made by
    `Objective.as_loss`.

    `loss(model, guide)` is a module whose calls with the programs' arguments are differentiable losses, for `torch.optim`.
    """

    def __init__(self, bound: Estimator):
        super().__init__()
        refuse_learning(bound.formula.strategies, "Pyro")
        self.bound = bound
        self._start: Start | None = None
        self._told = False
        """Whether it has been said that a loss was not finite, and why."""

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The loss as a number."""
        with torch.no_grad():
            return float(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The loss as a number, after its gradient has been added to those of the parameters."""
        value = self.differentiable_loss(model, guide, *args, **kwargs)
        if value.requires_grad:
            value.backward()
        return float(value.detach())

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loss with its graph, at the parameters in Pyro's parameter store."""
        bound, store = self._on(model, guide), pyro.get_param_store()
        if self._start is None or not self._start.params.keys() <= store.keys():
            with torch.random.fork_rng():
                self._start = bound.initialise(None, *args, **kwargs)
            _store(self._start, bound.modules.aliases)
        params = {name: store[name] for name in self._start.params}
        if self._start.learning:
            refuse_learning(bound.states(params, *args, **kwargs).learners, "Pyro")
        random = torch.get_rng_state()
        value = bound.surrogate(None, params, *args, **kwargs)
        if not self._told and not bool(value.detach().isfinite()):
            self._told = True
            _tell(bound, random, float(value.detach()), params, args, kwargs)
        for name in self._start.params:
            pyro.param(name)  # SVI moves the parameters whose messages it sees
        return -value if bound.formula.maximize else value

    def _on(self, model: Program, guide: Program) -> Estimator:
        """The objective on SVI's own model and guide."""
        if model is not self.bound.formula.model or guide is not self.bound.formula.guide:
            self.bound = self.bound.of(replace(self.bound.formula, model=model, guide=guide))
            self._start = None
        return self.bound


def _tell(bound: Estimator, random: torch.Tensor, value: float, params: Params, args: Args, kwargs: Kwargs) -> None:
    """Warn of an objective that is not finite, with these random numbers, and say where that comes from."""
    with torch.random.fork_rng(), pyro.poutine.block():  # SVI moves what it sees
        torch.set_rng_state(random)
        culprits = bound.culprits(None, {name: x.detach() for name, x in params.items()}, args, kwargs)
    why = f": {culprits[0]}" if culprits else ""
    warn_at(
        source.here(),
        f"as_loss: the objective is {value}{why}. Look at the data, at the parameters and at what is computed of them there.",
    )


def _store(start: Start, aliases: Mapping[str, str]) -> None:
    """Put the parameters that it lacks into Pyro's store, under all of their names."""
    store = pyro.get_param_store()
    known = dict(store.named_parameters())
    for name, value in start.params.items():
        if name in known and isinstance(value, torch.nn.Parameter) and known[name] is not value:
            raise ProgramError(
                f"Pyro's parameter store has another tensor under the name {name!r} than the module: call "
                f"pyro.clear_param_store() before a fit of a new module, or give the modules different names."
            )
    new = {name: leaf for name, leaf in start.leaves.items() if name not in known}
    constraints = {name: start.constraints[name] for name in new}
    store.set_state(named_again({"params": new, "constraints": constraints}, aliases))
