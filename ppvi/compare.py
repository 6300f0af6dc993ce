"""A fit beside MCMC: how far its marginals are from the reference, and whether its importance weights can be
trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

    - `marginals`: one row for each scalar that both sides have.
    - `k_hat`: Pareto shape of the fit's importance weights; below 0.7 the fit is close enough to the posterior for
      importance sampling to correct it (Vehtari et al. 2024). None if the fit has no weights.
    - `r_hat`: the reference's largest, `ess`: its smallest bulk effective sample size.
    """

    marginals: tuple[Marginal, ...]
    k_hat: float | None
    r_hat: float
    ess: float

    def __str__(self) -> str:
        from ppvi.tables import render

        header = ("", "mean", "ref mean", "sd", "ref sd", "mean error / sd", "W1 / sd")
        rows = [
            (m.name, *(f"{x:.3g}" for x in (m.mean, m.reference_mean, m.sd, m.reference_sd)), *_signed(m))
            for m in self.marginals
        ]
        worst = max(self.marginals, key=lambda m: m.wasserstein)
        k_hat = (
            "no importance weights" if self.k_hat is None else f"PSIS k-hat {self.k_hat:.2f} ({_verdict(self.k_hat)})"
        )
        notes = (
            f"worst marginal {worst.name}: W1 {worst.wasserstein:.2f} sd; {k_hat}; "
            f"reference R-hat <= {self.r_hat:.3f}, ESS >= {self.ess:.0f}"
        )
        return f"{render('fit against reference', header, rows)}\n{notes}"


def compare(fit: Any, reference: Any, *, draws: int = 4000) -> Comparison:
    """Compare a fit with reference draws, scalar by scalar.

    **Arguments**

    - `fit`: a fit, or ArviZ data with a `posterior` group (and `log_weight` in `sample_stats` for k-hat).
    - `reference`: the same, from `nuts` or elsewhere.
    - `draws`: number of draws from a fit.

    **Raises** `ProgramError` if one is neither, or if the two have no site in common.
    """
    import arviz as az
    import numpy as np
    from scipy.stats import wasserstein_distance

    data, reference = _data(fit, draws), _data(reference, draws)
    ours, theirs = _scalars(data.posterior), _scalars(reference.posterior)
    common = [name for name in theirs if name in ours]
    if not common:
        raise ProgramError(
            f"compare: the fit has {sorted(data.posterior.data_vars)} and the reference has "
            f"{sorted(reference.posterior.data_vars)}: no site, or no shape, in common."
        )
    marginals = []
    for name in common:
        x, y = ours[name], theirs[name]
        sd = float(y.std())
        unit = sd if sd > 0 else float("nan")
        marginals.append(
            Marginal(
                name=name,
                mean=float(x.mean()),
                sd=float(x.std()),
                reference_mean=float(y.mean()),
                reference_sd=sd,
                mean_error=float(x.mean() - y.mean()) / unit,
                wasserstein=float(wasserstein_distance(x, y)) / unit,
            )
        )
    weights = getattr(data, "sample_stats", {}).get("log_weight")
    with np.errstate(all="ignore"):
        k_hat = None if weights is None else float(az.psislw(np.asarray(weights, float).ravel())[1])
        r_hats: Any = az.rhat(reference)
        sizes: Any = az.ess(reference)
    r_hat, ess = float(r_hats.to_array().max()), float(sizes.to_array().min())
    return Comparison(tuple(marginals), k_hat, r_hat, ess)


def _data(given: Any, draws: int) -> Any:
    """ArviZ data of a fit, or as given."""
    posterior = getattr(given, "posterior", None)
    if posterior is None:
        raise ProgramError(f"compare: expected a fit or ArviZ data with a posterior group, not {type(given).__name__}.")
    return given.posterior(draws=draws) if callable(posterior) else given


def _scalars(group: Any) -> dict[str, Any]:
    """Name -> draws, for every scalar of every site of an ArviZ group."""
    import numpy as np

    out: dict[str, Any] = {}
    for name, values in group.data_vars.items():
        array = np.asarray(values, float)
        flat = array.reshape(array.shape[0] * array.shape[1], -1)
        index = list(np.ndindex(*array.shape[2:]))
        for place, column in zip(index, flat.T, strict=True):
            out[f"{name}[{','.join(map(str, place))}]" if place else str(name)] = column
    return out


def _signed(marginal: Marginal) -> tuple[str, str]:
    return f"{marginal.mean_error:+.2f}", f"{marginal.wasserstein:.2f}"


def _verdict(k_hat: float) -> str:
    return "good" if k_hat < 0.5 else "usable" if k_hat < 0.7 else "not to be trusted"
