"""An objective as the `loss=` of `numpyro.infer.SVI`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
from numpyro.infer.elbo import ELBO
from numpyro.primitives import Messenger

from ppvi.engine.protocol import Args, Kwargs, Params
from ppvi.engine.sites import refuse_learning
from ppvi.numpyro._engine import Estimator
from ppvi.numpyro._learning import learners_of


class Loss(ELBO):
    """`loss` is the surrogate, signed so that SVI's descent optimises the objective. Made by `Objective.as_loss`."""

    can_infer_discrete = True

    def __init__(self, bound: Estimator):
        super().__init__()
        refuse_learning(bound.formula.strategies, "NumPyro")
        self.bound = bound

    def loss(
        self,
        rng_key: jax.Array,
        param_map: Params,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> jax.Array:
        bound = self._looked_at(model, guide, rng_key, param_map, args, kwargs)
        return self._signed(bound.surrogate(rng_key, param_map, *args, **kwargs))

    def loss_with_mutable_state(
        self,
        rng_key: jax.Array,
        param_map: Params,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        bound = self._looked_at(model, guide, rng_key, param_map, args, kwargs)
        loss = self._signed(bound.surrogate(rng_key, param_map, *args, **kwargs))
        return {"loss": loss, "mutable_state": bound.moved(rng_key, param_map, args, kwargs) or None}

    def _signed(self, value: jax.Array) -> jax.Array:
        return -value if self.bound.formula.maximize else value

    def _looked_at(
        self, model: Any, guide: Any, key: jax.Array, param_map: Params, args: Args, kwargs: Kwargs
    ) -> Estimator:
        """The objective, whose data are fine, and of which no strategy learns."""
        bound = self._on(model, guide, param_map)
        if bound.look(key, param_map, args, kwargs):
            refuse_learning(learners_of(bound.staged(param_map, *args, **kwargs)), "NumPyro")
        return bound

    def _on(self, model: Callable[..., Any], guide: Callable[..., Any], param_map: Params) -> Estimator:
        """The objective on SVI's own model and guide, as SVI may have wrapped them."""
        if not param_map:
            model, guide = Initial(model), Initial(guide)
        if model is self.bound.formula.model and guide is self.bound.formula.guide:
            return self.bound
        return self.bound.of(replace(self.bound.formula, model=model, guide=guide))


@dataclass(frozen=True)
class Initial:
    """A program whose parameters have their initial values, as NumPyro's losses take them where they are given none."""

    fn: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _Initially():
            return self.fn(*args, **kwargs)


class _Initially(Messenger):
    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "param" and msg["value"] is None:
            msg["value"] = msg["fn"](*msg["args"], **msg["kwargs"])
