"""IVON for weights that no guide draws: an optimiser of PyTorch, which draws the weights, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ppvi._doors import number
from ppvi.errors import ProgramError
from ppvi.optimizers import IVON
from ppvi.optimizers.ivon import Newton


def ivon(rule: IVON, *, ess: float, scale: float = 0.01) -> Callable[[Iterable[Any]], Weights]:
    """IVON for weights that no guide draws, as for any network that is trained by hand.

        optimizer = vi.ivon(ppvi.optimizers.IVON(0.1, prior_precision=10.0), ess=60_000)(net.parameters())

        optimizer.zero_grad()
        with optimizer.drawn():
            mean_loss(net, batch).backward()
        optimizer.step()

    What is descended is `ess E_q[mean loss] + KL(q || N(0, 1 / prior_precision))`.

    **Arguments**

    - `ess`: how many data the mean loss stands for, lambda in the paper; the weight decay delta is `prior_precision / ess`.
    - `scale`: the standard deviation to begin with, of all weights; the paper's initial Hessian is 1 / (ess scale^2) - delta.

    **Returns** what makes a `torch.optim.Optimizer` of parameters. These are the means; within `drawn()`, for a gradient or a
    prediction, they are a draw from `N(m, 1 / s)`. Shen et al. 2024.
    """
    number("ivon: ess", ess, above=0)
    number("ivon: scale", scale, above=0)
    return lambda params: Weights(params, rule, ess, scale)


class Weights(torch.optim.Optimizer):
    """The parameters of a network as means of a Gaussian, moved by IVON."""

    def __init__(self, params: Iterable[Any], rule: IVON, ess: float, scale: float):
        super().__init__(params, {"ess": ess, "scale": scale})
        self.rule = rule
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {
                    "step": 0,
                    "precision": torch.full_like(p, group["scale"] ** -2),
                    "momentum": torch.zeros_like(p),
                }

    def _all(self) -> Iterator[tuple[torch.Tensor, dict[str, Any], float]]:
        for group in self.param_groups:
            yield from ((p, self.state[p], group["ess"]) for p in group["params"])

    @contextmanager
    def drawn(self, generator: torch.Generator | None = None) -> Iterator[None]:
        """In here, the parameters are a draw; afterwards they are the means again, and `step` knows of the draw where a
        gradient was taken at it."""
        means = [p.detach().clone() for p, _, _ in self._all()]
        draws, before = [], [(p.grad, _version(p.grad)) for p, _, _ in self._all()]
        with torch.no_grad():
            for p, state, _ in self._all():
                noise = torch.randn(p.shape, dtype=p.dtype, device=p.device, generator=generator)
                p.add_(noise * state["precision"] ** -0.5)
                draws.append(p.detach().clone())
        try:
            yield
        finally:
            with torch.no_grad():
                for (p, _, _), mean in zip(self._all(), means, strict=True):
                    p.copy_(mean)
        for (p, state, _), draw, (grad, version) in zip(self._all(), draws, before, strict=True):
            if p.grad is not grad or _version(grad) != version:
                if "draw" in state and p.grad is grad:
                    raise ProgramError(
                        "ivon: gradients at two draws add up: call optimizer.step() or zero_grad() between."
                    )
                state["draw"] = draw

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step by the gradients that were taken within `drawn()`; a closure is called there."""
        loss = None
        if closure is not None:
            with self.drawn(), torch.enable_grad():
                loss = closure()
        for p, state, ess in self._all():
            if p.grad is None:
                continue
            if "draw" not in state:
                raise ProgramError("ivon: gradients are those at a draw: take them within `with optimizer.drawn():`.")
            at = Newton(p, state["precision"], state["momentum"])
            after = self.rule.after(at, ess * p.grad, state.pop("draw"), state["step"])
            p.copy_(after.mean)
            state |= {"step": state["step"] + 1, "precision": after.precision, "momentum": after.momentum}
        return loss


def _version(grad: torch.Tensor | None) -> int:
    """How often it was changed in place."""
    return 0 if grad is None else grad._version
