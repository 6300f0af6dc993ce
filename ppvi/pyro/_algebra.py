"""`ppvi.optimizers.algebra.Algebra` on PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ppvi.pyro._trees import tree_map


class TorchAlgebra:
    """PyTorch's side of the protocol."""

    exp, log, sqrt = staticmethod(torch.exp), staticmethod(torch.log), staticmethod(torch.sqrt)
    tril, zeros_like, digamma = staticmethod(torch.tril), staticmethod(torch.zeros_like), staticmethod(torch.digamma)

    def sum(self, x: torch.Tensor, axes: int | tuple[int, ...], keepdims: bool = False) -> torch.Tensor:
        return x.sum(axes, keepdim=keepdims)

    def max(self, x: torch.Tensor, axis: int, keepdims: bool = False) -> torch.Tensor:
        return x.amax(axis, keepdim=keepdims)

    def minimum(self, x: torch.Tensor, y: Any) -> torch.Tensor:
        return torch.minimum(x, torch.as_tensor(y, dtype=x.dtype, device=x.device))

    def maximum(self, x: torch.Tensor, y: Any) -> torch.Tensor:
        return torch.maximum(x, torch.as_tensor(y, dtype=x.dtype, device=x.device))

    def where(self, condition: torch.Tensor, x: Any, y: Any) -> torch.Tensor:
        return torch.where(condition, x, y)

    def trigamma(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.polygamma(1, x)

    def transpose(self, x: torch.Tensor) -> torch.Tensor:
        return x.mT

    def flip(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(-2, -1)

    def eye(self, n: int, like: torch.Tensor) -> torch.Tensor:
        return torch.eye(n, dtype=like.dtype, device=like.device)

    def cholesky(self, x: torch.Tensor) -> torch.Tensor:
        factor, failed = torch.linalg.cholesky_ex(x)
        return torch.where((failed > 0)[..., None, None], torch.nan, factor)

    def solve_lower(self, factor: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.linalg.solve_triangular(factor, right, upper=False)

    def solve_upper(self, factor: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.linalg.solve_triangular(factor.mT, right, upper=True)

    def eigenvalues(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(x) if _is_finite(x) else torch.full_like(x[..., 0], torch.nan)

    def eigen(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not _is_finite(x):
            return torch.full_like(x[..., 0], torch.nan), torch.full_like(x, torch.nan)
        values, vectors = torch.linalg.eigh(x)
        return values, vectors

    def singular(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not _is_finite(x):
            return torch.full_like(x, torch.nan), torch.full_like(x[..., 0], torch.nan)
        left, values, _ = torch.linalg.svd(x)
        return left, values

    def triangular(self, x: torch.Tensor) -> torch.Tensor:
        _, upper = torch.linalg.qr(x.mT, mode="r")
        signs = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(x.dtype)
        return (upper.mT * signs[..., None, :]).tril()

    def repeat(self, n: int, step: Callable[[Any], Any], start: Any) -> Any:
        for _ in range(n):
            start = step(start)
        return start

    def columns(self, function: Callable[[torch.Tensor], torch.Tensor], n: int, like: torch.Tensor) -> torch.Tensor:
        return torch.stack([function(row) for row in self.eye(n, like)], -1)

    def tree_map(self, function: Callable[..., torch.Tensor], *trees: Any) -> Any:
        return tree_map(function, *trees)


def _is_finite(x: torch.Tensor) -> bool:
    """Of what is not, LAPACK would not return."""
    return bool(x.isfinite().all())


ALGEBRA = TorchAlgebra()
