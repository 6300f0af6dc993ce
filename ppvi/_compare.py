"""A fit beside MCMC: how far its marginals are from the reference, what its importance weights can say, and what they
cannot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppvi._doors import count
from ppvi._losses import change_of
from ppvi._options import door
from ppvi._pairing import Pairs, draws_of, paired
from ppvi.errors import ProgramError


@dataclass(frozen=True)
class Marginal:
    """One scalar of the posterior."""

    name: str
    mean: float
    sd: float
    reference_mean: float
    reference_sd: float
    mean_error: float
    """(mean - reference mean) / reference sd."""
    wasserstein: float
    """1-Wasserstein distance of the marginals, in reference sds."""


@dataclass(frozen=True)
class Comparison:
    """What `compare` returns. Printable.

    **Attributes**

    - `marginals`: one row for each scalar that both sides have, entries of arrays counted from 0.
    - `k_hat`: Pareto shape of the fit's importance weights, and `threshold`, below which they can be averaged:
      min(1 - 1 / log10 S, 0.7) for S draws (Vehtari et al. 2024). Weights know what the guide draws only: those of a guide that
      is far too narrow may look well. None if the fit has no weights.
    - `r_hat`: the reference's largest, NaN where it has one chain; `ess`: its smallest bulk effective sample size.
    - `only_fit`, `only_reference`: names that only one side has.
    - `moving`: by how much the fit's loss changed over the last tenth of the steps, where that is more than its noise; 0 where
      it had settled, None where it is not known.
    """

    marginals: tuple[Marginal, ...]
    k_hat: float | None
    r_hat: float
    ess: float
    threshold: float | None = None
    only_fit: tuple[str, ...] = ()
    only_reference: tuple[str, ...] = ()
    moving: float | None = None

    @property
    def worst(self) -> Marginal:
        """The marginal that is farthest from the reference, by its Wasserstein distance, or by its spread."""
        return max(self.marginals, key=lambda m: np.nan_to_num(m.wasserstein, nan=math.inf))

    def __str__(self) -> str:
        from ppvi._tables import render

        header = ("", "mean", "ref mean", "sd", "ref sd", "mean error / sd", "W1 / sd")
        rows = [
            (m.name, *(f"{x:.3g}" for x in (m.mean, m.reference_mean, m.sd, m.reference_sd)), *_signed(m))
            for m in self.marginals
        ]
        return "\n".join([render("fit against reference", header, rows), *self._sentences()])

    def _sentences(self) -> list[str]:
        worst = self.worst
        ratio = f", its sd {worst.sd / worst.reference_sd:.2f} of the reference's" if worst.reference_sd else ""
        chains = "one chain, no R-hat" if math.isnan(self.r_hat) else f"R-hat <= {self.r_hat:.3f}"
        left_out = [
            f"only in the {side}, not compared: {', '.join(names)}"
            for side, names in (("fit", self.only_fit), ("reference", self.only_reference))
            if names
        ]
        constant = [m.name for m in self.marginals if not m.reference_sd]
        return [
            f"worst marginal: {worst.name}, W1 {worst.wasserstein:.2f} sd{ratio}",
            f"importance weights: {_of_weights(self.k_hat, self.threshold)}",
            *([] if self.moving is None else [f"loss: {_of_loss(self.moving)}"]),
            f"reference: {chains}, ESS >= {self.ess:.0f}",
            *([f"constant in the reference, so that no sd is a unit: {', '.join(constant)}"] if constant else []),
            *left_out,
        ]


@door
def compare(fit: Any, reference: Any, *, draws: int = 4000) -> Comparison:
    """Compare a fit with reference draws, array by array.

    Variables are paired by name and shape. Scalars such as `beta[1]` or `beta.1`, numbered from 1 as Stan does or from 0, are
    the entries of `beta`. What only one side has is left out, and named.

    **Arguments**

    - `fit`: a fit, or ArviZ data with a `posterior` group (and `log_weight` in `sample_stats` for k-hat).
    - `reference`: the same, from `nuts` or elsewhere; or a mapping from names to arrays of shape `(draw, *shape)` or `(chain,
      draw, *shape)`; or a list of such mappings, one for each chain.
    - `draws`: number of draws from a fit.

    **Raises** `ProgramError` if one is none of these, if the two have nothing in common, if a name has two shapes, or if an
    array is given by some of its entries.
    """
    count("compare: draws", draws)
    if _is_fit(reference) and not _is_fit(fit):
        raise ProgramError(
            "compare(fit, reference): the fit comes first, and the reference, such as draws of nuts, after it."
        )
    import arviz as az

    data, reference = _data(fit, draws), _data(reference, draws)
    ours = draws_of(data)
    theirs = draws_of(reference, like=ours)
    pairs = paired(ours, theirs)
    if not pairs.common:
        raise ProgramError(
            f"compare: the fit has {sorted(ours)} and the reference has {sorted(theirs)}: no site in common."
        )
    weights = getattr(data, "sample_stats", {}).get("log_weight")
    chains = az.convert_to_dataset({name: y for name, (_, y) in pairs.common.items()})
    with np.errstate(all="ignore"):
        k_hat = None if weights is None else float(az.psislw(np.asarray(weights, float).ravel())[1])
        r_hats: Any = az.rhat(chains) if chains.sizes["chain"] > 1 else None  # of one chain there is none
        sizes: Any = az.ess(chains)
    return Comparison(
        marginals=_marginals(pairs),
        k_hat=k_hat,
        r_hat=math.nan if r_hats is None else float(r_hats.to_array().max()),
        ess=float(sizes.to_array().min()),
        threshold=None if weights is None else threshold(weights.size),
        only_fit=pairs.only_fit,
        only_reference=pairs.only_reference,
        moving=change_of(getattr(fit, "losses", None)),
    )


def threshold(draws: int) -> float:
    """The Pareto shape up to which so many weights can be averaged. Vehtari et al. 2024."""
    return max(0.0, min(1 - 1 / math.log10(max(draws, 2)), 0.7))


def _data(given: Any, draws: int) -> Any:
    """ArviZ data of a fit, or as given."""
    return given.posterior(draws=draws) if _is_fit(given) else given


def _is_fit(given: Any) -> bool:
    return callable(getattr(given, "posterior", None))


def _marginals(pairs: Pairs) -> tuple[Marginal, ...]:
    from scipy.stats import wasserstein_distance

    found = []
    for name, (x, y) in pairs.common.items():
        for place in np.ndindex(*x.shape[2:]):
            ours, theirs = (z[(slice(None), slice(None), *place)].ravel() for z in (x, y))
            sd = float(theirs.std()) if np.ptp(theirs) else 0.0  # of equal numbers the sd is one of rounding
            unit = sd if sd > 0 else float("nan")
            found.append(
                Marginal(
                    name=f"{name}[{','.join(map(str, place))}]" if place else name,
                    mean=float(ours.mean()),
                    sd=float(ours.std()),
                    reference_mean=float(theirs.mean()),
                    reference_sd=sd,
                    mean_error=float(ours.mean() - theirs.mean()) / unit,
                    wasserstein=float(wasserstein_distance(ours, theirs)) / unit,
                )
            )
    return tuple(found)


def _signed(marginal: Marginal) -> tuple[str, str]:
    return f"{marginal.mean_error:+.2f}", f"{marginal.wasserstein:.2f}"


def _of_weights(k_hat: float | None, limit: float | None) -> str:
    """What k-hat says, and what it cannot say."""
    if k_hat is None or limit is None:
        return "none, so that nothing is known of the fit but its marginals"
    if not k_hat < limit:
        return f"PSIS k-hat {k_hat:.2f}, not below {limit:.2f}: they do not correct this fit, at this number of draws"
    return (
        f"PSIS k-hat {k_hat:.2f}, below {limit:.2f}: they can correct the fit where it draws, and say nothing of where it does "
        f"not: a guide far too narrow looks the same"
    )


def _of_loss(moving: float) -> str:
    if not moving:
        return "had settled"
    way = "falling" if moving < 0 else "rising"
    return f"was still {way}, by {abs(moving):.3g} over the last tenth of the steps; fit for longer"
