"""Divergences in closed form: PyTorch's, and those of finite sites, where it asks for the places of zeros, which no trace has.

KL(q, p) = sum_v q(v) (log q(v) - log p(v)),    0 where q(v) is 0, infinite where p(v) alone is
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn.functional import softplus


def divergence(q: Any, p: Any) -> torch.Tensor | None:
    """KL(q, p), `(*batch)`; None where PyTorch knows no formula."""
    if isinstance(q, torch.distributions.Independent) and isinstance(p, torch.distributions.Independent):
        count = q.reinterpreted_batch_ndims
        inner = divergence(q.base_dist, p.base_dist) if count == p.reinterpreted_batch_ndims else None
        return inner if inner is None else inner.sum(tuple(range(-count, 0)))
    for family in (torch.distributions.Categorical, torch.distributions.OneHotCategorical):
        if isinstance(q, family) and isinstance(p, family):
            return _share(q.probs, p.probs, q.logits - p.logits).sum(-1)
    if isinstance(q, torch.distributions.Bernoulli) and isinstance(p, torch.distributions.Bernoulli):
        ones = _share(q.probs, p.probs, softplus(-p.logits) - softplus(-q.logits))
        return ones + _share(1 - q.probs, 1 - p.probs, softplus(p.logits) - softplus(q.logits))
    try:
        return torch.distributions.kl_divergence(q, p)
    except NotImplementedError:
        return None


def _share(q: torch.Tensor, p: torch.Tensor, log_ratio: torch.Tensor) -> torch.Tensor:
    return torch.where(q == 0, 0.0, torch.where(p == 0, math.inf, q * log_ratio))
