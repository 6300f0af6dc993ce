"""From a Pyro model to a fitted Gaussian, without a guide of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from pyro.distributions.transforms import biject_to
from pyro.infer.reparam import LocScaleReparam
from torch.overrides import TorchFunctionMode

from ppvi._options import door
from ppvi.approximate import Guides, approximated, refuse_model
from ppvi.engine.mcmc import Look, looked_at, starting
from ppvi.engine.minibatches import Part
from ppvi.engine.protocol import Args, Kwargs
from ppvi.engine.training import Data
from ppvi.fit import Fit
from ppvi.pyro._guides import Points, continuous, gaussian, latent, order_of, weighted
from ppvi.pyro._handlers import all_rows, whole_plates
from ppvi.pyro._keys import Key, seeded
from ppvi.pyro._mcmc import looking
from ppvi.pyro._objective import objective
from ppvi.pyro._programs import known
from ppvi.pyro._regions import LIBRARY
from ppvi.pyro._trees import tree_leaves, tree_map

PRODUCTS = frozenset(
    "matmul __matmul__ __rmatmul__ mm mv bmm dot vdot inner tensordot einsum linear bilinear addmm addmv addbmm baddbmm "
    "linalg_solve linalg_solve_triangular cholesky_solve triangular_solve conv1d conv2d conv3d layer_norm group_norm "
    "batch_norm gru lstm rnn_tanh rnn_relu prelu scaled_dot_product_attention".split()
)
"""Functions that refuse single numbers beside double ones."""


class Doubled(TorchFunctionMode):
    """Single numbers that meet double ones in a product of matrices are double too: those that a program closes over, buffers
    and distributions that were made before. Elsewhere PyTorch promotes them itself."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", None) in PRODUCTS:
            kinds = {x.dtype for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
            if kinds >= {torch.float32, torch.float64}:
                args, kwargs = tree_map(_doubled, args), tree_map(_doubled, kwargs)
        return func(*args, **kwargs)


def _doubled(x: Any) -> Any:
    return x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


@contextmanager
def _double(args: Args, kwargs: Kwargs) -> Iterator[Data]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with Doubled(), whole_plates():
            yield tree_map(_doubled, args), tree_map(_doubled, dict(kwargs))
    finally:
        torch.set_default_dtype(before)


def _whole(model: Callable[..., Any]) -> Callable[..., Any]:
    """In `_double`, plates are."""
    return model


def _part(model: Callable[..., Any], part: Part) -> Callable[..., Any]:
    def of_part(*args: Any, **kwargs: Any) -> Any:
        with whole_plates(part):
            return model(*args, **kwargs)

    return of_part


def _noncentred(model: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    return poutine.reparam(model, config=dict.fromkeys(names, LocScaleReparam(0.0)))


def _looking(look: Look) -> None:
    with seeded(0), all_rows(), torch.no_grad():
        looking(look)


GUIDES = Guides(
    library=LIBRARY,
    onto=biject_to,
    array=lambda x, like: torch.as_tensor(x, device=like.device),
    objective=objective,
    double=_double,
    looking=_looking,
    latent=latent,
    noncentred=_noncentred,
    whole=_whole,
    part=_part,
    all_rows=whole_plates,
    points=Points,
    weighted=weighted,
    blocks=lambda count: (4, count // 4, count),
    gaussian=gaussian,
    continuous=continuous,
    order=order_of,
    sums_by_particle=True,
)


@door
def approximate(
    model: Callable[..., Any], key: Key, *args: Any, num_starts: int = 4, num_steps: int = 500, **kwargs: Any
) -> Fit:
    """Fit a Gaussian to a model's posterior, with no guide to write and no step size, number of steps or start to choose.

        fit = vi.approximate(model, key, x)
        fit.posterior()

    The guide is N(m, S S') in unconstrained space, with a full covariance up to 2,000 dimensions and one of rank 20 beside a
    diagonal beyond, and maximises the evidence lower bound E_q[log p(z, x) - log q(z)], averaged over fixed points of N(0,
    I): a deterministic problem, which ends. From several starts L-BFGS moves the mean and a diagonal; then, in rounds, S is
    taken from the curvature, averaged over the Gaussian, and the mean and a scale for each of its directions are fitted
    again; up to 300 dimensions all of S is, at last. Where the starts lead to Gaussians that are apart, the guide is the
    mixture of them whose weights make its bound highest; where one is bent, up to 100 dimensions, by Gaussians in windows along
    the ways in which log p / q is steepest, too. All this is in double precision, whatever the default. The points
    have mean 0 and covariance I, so that a Gaussian posterior is found exactly; of another, the bound is off by what 128
    points, or eight a dimension where these are more, miss of it. Where importance weights are uneven, draws of the fit are
    chosen among 20 of the Gaussian by these, which takes out much of what is skew or heavy-tailed (`particles=1` draws the
    Gaussian itself, as it is by default where finite sites are summed out).

    **Arguments**

    - `model`: a Pyro program, whose plates are of all their rows; those of 100,000 or more that state a minibatch are
      fitted on 10,000 of them first. Discrete latent sites with finitely many values are summed out of the density. Where a
      location and a scale are moved by other sites, as in hierarchical models, the model with that site non-centred is tried
      too, and the higher bound kept: both are bounds of the same evidence.
    - `key`: an int seed, a `torch.Generator`, or None for PyTorch's global one; it decides the starts and the points.
    - `*args`, `**kwargs`: passed to the model.
    - `num_starts`: points that are begun from: the library's own initial one, and others from within 2 of 0 in every
      unconstrained coordinate at which the density is finite, in opposite pairs.
    - `num_steps`: the most steps of L-BFGS in each fit.

    **Returns** a `Fit`, whose `losses` are minus the averaged bound after each step, `params` those of Pyro's
    `AutoMultivariateNormal` or `AutoLowRankMultivariateNormal`, or the weights, means and scales of a mixture, and
    `approximated` what was tried; `fit(fit.objectives[0], key, ..., state=fit)` goes on from it by stochastic gradients. It
    may be far from a posterior with bent ridges, or with modes that no start leads to: see `diagnose`.

    **Raises** `ProgramError` if the model has parameters, discrete sites alone, more than 100,000 dimensions, a site whose
    support other sites move, or a density that is nowhere finite at the starts, or has no top at all.

    **Warns** where the bound still rose when it stopped: there is no posterior, or the density is zero where a Gaussian has
    mass, which supports have to say, or `num_steps` is too small. `fit.approximated.settled` is then False.

    Giordano, Ingram and Broderick, "Black Box Variational Inference with a Deterministic Objective" (JMLR 2024); Kucukelbir
    et al., "Automatic Differentiation Variational Inference" (JMLR 2017); Opper and Archambeau, "The Variational Gaussian
    Approximation Revisited" (2009), on its curvature; Arimoto (1972) on the weights of mixtures; Rue, Martino and Chopin (2009)
    on Gaussians given a few numbers; Papaspiliopoulos, Roberts and Skold (2007) on centring.
    """
    refuse_model(model, num_starts, num_steps)
    with seeded(key), all_rows():
        with torch.random.fork_rng(), torch.no_grad(), starting("approximate", model, known, args, kwargs):
            args, kwargs, _ = looked_at("approximate", looking, model, args, kwargs)
        drawn = int(torch.randint(2**31 - 1, ()))
    with whole_plates():
        return approximated(GUIDES, model, drawn, args, kwargs, num_starts, num_steps, drawn)
