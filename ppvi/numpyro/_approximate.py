"""From a NumPyro model to a fitted Gaussian, without a guide of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam

from ppvi._options import door
from ppvi.approximate import Guides, approximated, refuse_model
from ppvi.engine.mcmc import looked_at, starting
from ppvi.engine.protocol import Args, Kwargs
from ppvi.engine.training import Data
from ppvi.fit import Fit
from ppvi.numpyro._compat import enable_x64
from ppvi.numpyro._guides import Points, continuous, gaussian, latent, order_of, weighted
from ppvi.numpyro._handlers import AllRows
from ppvi.numpyro._mcmc import looking
from ppvi.numpyro._objective import objective
from ppvi.numpyro._programs import as_key, entropy, known
from ppvi.numpyro._regions import LIBRARY


@contextmanager
def _double(args: Args, kwargs: Kwargs) -> Iterator[Data]:
    with enable_x64(True):
        yield jax.tree.map(_doubled, (args, dict(kwargs)))


def _doubled(x: Any) -> Any:
    """Loops, as in `odeint`, refuse single numbers beside double ones. Arrays of NumPy are copied: one that a program compiled
    in single precision holds, as NumPyro's MCMC does, JAX 0.10.2 passes to all others in that precision."""
    if isinstance(x, jax.Array | np.ndarray) and x.dtype == np.float32:
        return jnp.asarray(x, float)
    return x.copy() if isinstance(x, np.ndarray) else x


def _noncentred(model: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    return reparam(model, config=dict.fromkeys(names, LocScaleReparam(0)))


GUIDES = Guides(
    library=LIBRARY,
    onto=biject_to,
    array=lambda x, like: jax.device_put(x),
    objective=objective,
    double=_double,
    looking=lambda look: looking(jax.random.key(0), look),
    latent=latent,
    noncentred=_noncentred,
    whole=AllRows,
    part=AllRows,
    all_rows=nullcontext,
    points=Points,
    weighted=weighted,
    blocks=lambda count: (count // 4,),
    gaussian=gaussian,
    continuous=continuous,
    order=order_of,
    sums_by_particle=False,
)


@door
def approximate(
    model: Callable[..., Any],
    key: jax.Array,
    *args: Any,
    num_starts: int = 4,
    num_steps: int = 500,
    **kwargs: Any,
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
    Gaussian itself).

    **Arguments**

    - `model`: a NumPyro program, whose plates are of all their rows; those of 100,000 or more that state a minibatch are
      fitted on 10,000 of them first. Discrete latent sites with finitely many values are summed out of the density. Where a
      location and a scale are moved by other sites, as in hierarchical models, the model with that site non-centred is tried
      too, and the higher bound kept: both are bounds of the same evidence.
    - `key`: a JAX key; it decides the starts and the points.
    - `*args`, `**kwargs`: passed to the model.
    - `num_starts`: points that are begun from: the library's own initial one, and others from within 2 of 0 in every
      unconstrained coordinate at which the density is finite, in opposite pairs.
    - `num_steps`: the most steps of L-BFGS in each fit.

    **Returns** a `Fit`, whose `losses` are minus the averaged bound after each step, `params` those of NumPyro's
    `AutoMultivariateNormal` or `AutoLowRankMultivariateNormal`, or the weights, means and scales of a mixture, and
    `approximated` what was tried; `fit(fit.objectives[0], key, ..., state=fit)` goes on from it by stochastic gradients. It
    may be far from a posterior with bent ridges, or with modes that no start leads to: see `diagnose`.

    **Raises** `ProgramError` if the model has parameters, discrete sites alone, more than 100,000 dimensions, a site whose
    support other sites move, or a density that is nowhere finite at the starts, or has no top at all.

    **Warns** where the bound still rose when it stopped: there is no posterior, or the density is zero where a Gaussian has
    mass, which supports have to say, or `num_steps` is too small. `fit.approximated.settled` is then False.

    Giordano, Ingram and Broderick, "Black Box Variational Inference with a Deterministic Objective" (JMLR 2024); Kucukelbir
    et al., "Automatic Differentiation Variational Inference" (JMLR 2017); Opper and Archambeau, "The Variational Gaussian
    Approximation Revisited" (2009), on its curvature; Arimoto (1972) on the weights of mixtures; Rue, Martino and Chopin
    (2009) on Gaussians given a few numbers; Papaspiliopoulos, Roberts and Skold (2007) on centring.
    """
    refuse_model(model, num_starts, num_steps)
    key = as_key(key)
    with starting("approximate", model, known, args, kwargs):
        args, kwargs, _ = looked_at("approximate", partial(looking, key), model, args, kwargs)
    (seed,) = entropy(key).generate_state(1)
    return approximated(GUIDES, model, key, args, kwargs, num_starts, num_steps, int(seed))
