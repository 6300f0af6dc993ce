"""Every outcome of an estimator on PyTorch; see `ppvi.engine.outcomes`. They run side by side, as an outermost axis of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ppvi._ops import as_numpy
from ppvi.compiler.plan import Plan
from ppvi.compiler.surrogate import surrogate
from ppvi.engine import outcomes as engine
from ppvi.engine.outcomes import MOST_DRAWS, Outcomes
from ppvi.engine.protocol import Params
from ppvi.pyro._distributions import SiteDistribution, picked
from ppvi.pyro._keys import seeded
from ppvi.pyro._ops import TorchOps
from ppvi.pyro._recipes import Recipe, expanded
from ppvi.pyro._stage import Sampler, draw, registering
from ppvi.pyro._trees import gradients, vmap

if TYPE_CHECKING:
    pass

AT_ONCE = 2048
"""Outcomes side by side."""


class Tape(engine.Tape):
    """A tape whose choices are `(outcomes, MOST_DRAWS)`."""

    def read(self, support: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        """The value that is next, from a support `(K, outcomes, *lanes, *event)`."""
        values, n, *lanes = log_probs.shape
        count = math.prod(lanes)
        choice = self.next(values, count)
        places = torch.tensor([values**i for i in range(count)], dtype=torch.long, device=choice.device)
        digits = (choice[:, None] // places % values).reshape(1, n, *lanes).to(log_probs.device)
        spread = digits.reshape(digits.shape + (1,) * (support.ndim - digits.ndim))
        self.log_probability += torch.take_along_dim(log_probs, digits, 0).reshape(n, -1).sum(-1)
        return torch.take_along_dim(support, spread.expand(1, *support.shape[1:]), 0)[0]


class Taped(engine.Taped, SiteDistribution):
    """A site whose samplers read a tape."""

    tape: Tape

    def sample(self, rng: Any) -> torch.Tensor:
        return self._read(rng, lambda x, runs: x, 0)

    def samples(self, rng: Any, n: int) -> torch.Tensor:
        def laid(x: torch.Tensor, runs: int) -> torch.Tensor:
            return x.unsqueeze(1 + runs).expand(*x.shape[: 1 + runs], n, *x.shape[1 + runs :])

        return self._read(rng, laid, 1)

    def pick(self, rng: Any, log_weights: torch.Tensor, number: int) -> torch.Tensor:
        def one(key: torch.Tensor, log_weights: torch.Tensor) -> torch.Tensor:
            log_probs = torch.log_softmax(log_weights.movedim(key.ndim, 0), 0)
            numbers = torch.arange(len(log_probs), device=log_probs.device).reshape(-1, *[1] * (log_probs.ndim - 1))
            return self._next(key, numbers.expand(log_probs.shape), log_probs)

        return draw(rng, [log_weights.detach()], Sampler(one, [picked(log_weights)]))

    def noise(self, rng: Any, kind: str, number: int, n: int | None = None) -> torch.Tensor:
        """The same in every outcome: the probabilities of one choice may depend on it, and add up to one where it is fixed."""
        self.tape.noisy = True
        shape = self.lanes if n is None else (n, *self.lanes)
        sampler = Sampler(lambda key: self.standard(kind, (*key.shape[1:], *shape)).expand(*key.shape, *shape))
        return draw(rng, (), sampler)

    def _read(self, rng: Any, laid: Callable[[torch.Tensor, int], torch.Tensor], stacked: int) -> torch.Tensor:
        """A value from the support, with stacks `(K, *runs, *lanes, ...)` laid out as the sampler's draws are."""
        self.enumerate_support()
        recipe = Recipe(expanded(self.peeled, self.lanes) or self.peeled)

        def sampler(key: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
            def stack(of: Callable[[Any], torch.Tensor]) -> torch.Tensor:
                found = recipe(lambda there, runs: of(there).movedim(0, runs), values, key.shape)
                return laid(found.movedim(key.ndim, 0), key.ndim)

            support = stack(lambda there: there.enumerate_support(expand=True))
            log_probs = stack(lambda there: SiteDistribution(there).probabilities().log())
            return self._next(key, support, log_probs)

        return draw(rng, [x.detach() for x in recipe.tensors], Sampler(sampler, recipe.axes(stacked))).detach()

    def _next(self, key: torch.Tensor, support: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        return support[0] if self.tape.choices is None else self.tape.read(support, log_probs)


class LoopOps(TorchOps):
    """Vectorisation as a loop, so that every run of a sampler is a run of its own."""

    def vmap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.one_by_one(function)


def every_outcome(tape: Tape, plan: Plan, params: Params, arrays: Sequence[Any]) -> Callable[[int], Outcomes]:
    """From the seed of what is not on the tape to every outcome of a plan whose samplers read the tape."""

    def runs(seed: int, choices: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Probabilities, values and gradients, with the outcomes in front."""
        leaves = [x.detach().expand(len(choices), *x.shape).requires_grad_() for x in params.values()]
        tape.start(choices)

        def one(lane: torch.Tensor, *leaves: torch.Tensor) -> torch.Tensor:
            return surrogate(plan, LoopOps(), [*leaves, lane, *arrays])

        with seeded(seed), registering():
            values = vmap(one)(torch.zeros(len(choices)), *leaves)
        grads = gradients(values.sum(), leaves)
        log_probability = torch.as_tensor(tape.log_probability).detach().expand(len(choices))
        return log_probability.exp(), values.detach(), *grads

    runs(0, torch.zeros(1, MOST_DRAWS, dtype=torch.long))
    choices = torch.from_numpy(tape.all())

    def every(seed: int) -> Outcomes:
        parts = [runs(seed, rows) for rows in tape.in_time(choices.split(AT_ONCE))]
        probabilities, values, *grads = (as_numpy(torch.cat(xs)) for xs in zip(*parts, strict=True))
        return Outcomes(probabilities, values, dict(zip(params, grads, strict=True)))

    return every
