"""Pyro's words for baselines, `infer={"baseline": {...}}`, in those of ppvi.

    use_decaying_avg_baseline, baseline_beta     Reinforce(RunningMean(beta))
    nn_baseline, nn_baseline_input               Reinforce(NeuralBaseline(...)), from the module's weights

A site with a reparameterised sampler has no score, and Pyro reads no baseline there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ppvi._doors import close_to, described, listed
from ppvi.errors import StrategyError
from ppvi.pyro._trees import tree_map
from ppvi.strategies import NeuralBaseline, Reinforce, RunningMean

WORDS = ("nn_baseline", "nn_baseline_input", "use_decaying_avg_baseline", "baseline_beta", "baseline_value")


def with_baseline(infer: Mapping[str, Any], fn: Any, name: str, where: str) -> Mapping[str, Any]:
    """What a site names by `infer`, with the strategy that its baseline asks for.

    **Raises** `StrategyError` for a baseline that is none of Pyro's, and for one beside a strategy, which has its own.
    """
    given = infer.get("baseline")
    if not given or fn.has_rsample:
        return infer
    at = f"site {name!r} at {where}: infer= has a baseline"
    beside = [word for word in ("strategy", "enumerate") if infer.get(word)]
    if beside:
        raise StrategyError(f"{at} beside {beside[0]!r}, which does not use it: leave one of both away.")
    if not isinstance(given, Mapping):
        raise StrategyError(f"{at} that is {described(given)}: it is a dict of {listed(WORDS)}.")
    for word in given:
        if word not in WORDS:
            raise StrategyError(f"{at} with {described(word)}, which nothing reads.{close_to(word, WORDS)}")
    network, running = given.get("nn_baseline"), given.get("use_decaying_avg_baseline")
    if "baseline_value" in given or (network is None) is not bool(running):
        raise StrategyError(
            f"{at} of {listed(sorted(given))}: a baseline is a decaying average or a network, one of both. Name a "
            f'strategy, such as infer={{"strategy": ppvi.LeaveOneOut()}}, which has the mean of other draws as its baseline.'
        )
    if running:
        return {**infer, "strategy": Reinforce(RunningMean(float(given.get("baseline_beta", 0.9))))}
    if not isinstance(network, torch.nn.Module) or "nn_baseline_input" not in given:
        raise StrategyError(f"{at} of nn_baseline, which is a torch.nn.Module, and needs its nn_baseline_input.")
    inputs = tree_map(lambda x: x.detach(), given["nn_baseline_input"])
    return {**infer, "strategy": Reinforce(neural(network)), "baseline_input": inputs}


def neural(network: torch.nn.Module) -> NeuralBaseline:
    """A module as a baseline, whose weights begin as the module's and are the strategy's own."""

    def weights() -> dict[str, torch.Tensor]:
        return {name: x.detach().clone() for name, x in network.named_parameters()}

    return NeuralBaseline(weights, lambda own, inputs: torch.func.functional_call(network, own, (inputs,)))
