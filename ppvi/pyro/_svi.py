"""An objective as the `loss=` of `pyro.infer.SVI`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyro
import torch

from ppvi.engine.sites import refuse_learning
from ppvi.errors import ProgramError
from ppvi.pyro._beginnings import Start
from ppvi.pyro._engine import Estimator


class Loss:
    """The surrogate, signed so that SVI's descent optimises the objective. Made by `Objective.as_loss`."""

    def __init__(self, bound: Estimator):
        refuse_learning(bound.formula.strategies, "Pyro")
        self.bound = bound
        self._start: Start | None = None

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loss with its graph, at the parameters in Pyro's parameter store."""
        bound, store = self._on(model, guide), pyro.get_param_store()
        if self._start is None or not self._start.params.keys() <= store.keys():
            with torch.random.fork_rng():
                self._start = bound.initialise(None, *args, **kwargs)
            _store(self._start)
        value = bound.surrogate(None, {name: store[name] for name in self._start.params}, *args, **kwargs)
        for name in self._start.params:
            pyro.param(name)  # SVI moves the parameters whose messages it sees
        return -value if bound.formula.maximize else value

    def _on(self, model: Callable[..., Any], guide: Callable[..., Any]) -> Estimator:
        """The objective on SVI's own model and guide."""
        if model is not self.bound.formula.model or guide is not self.bound.formula.guide:
            self.bound = self.bound.of(replace(self.bound.formula, model=model, guide=guide))
            self._start = None
        return self.bound


def _store(start: Start) -> None:
    """Put the parameters that it lacks into Pyro's store."""
    store = pyro.get_param_store()
    known = dict(store.named_parameters())
    for name, value in start.params.items():
        if name in known and isinstance(value, torch.nn.Parameter) and known[name] is not value:
            raise ProgramError(
                f"Pyro's parameter store has another tensor under the name {name!r} than the module: call "
                f"pyro.clear_param_store() before a fit of a new module, or give the modules different names."
            )
    new = {name: leaf for name, leaf in start.leaves.items() if name not in known}
    store.set_state({"params": new, "constraints": {name: start.constraints[name] for name in new}})
