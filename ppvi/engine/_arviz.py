"""ArviZ data, whichever ArviZ there is: an `InferenceData` before 1.0, a `DataTree` of xarray from 1.0 on.

Both are groups of xarray's datasets by name, with attributes; what else is asked of ArviZ, diagnostics of chains and the
leave-one-out density, is called otherwise in the two. No other module knows which of them is there.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # which take seconds to import
    import xarray as xr
    from arviz import InferenceData

    ArviZData = InferenceData | xr.DataTree
    """What is returned: the former of ArviZ 0.x, the latter of 1.x."""

SAMPLE = ("chain", "draw")


class Variable(NamedTuple):
    """An array and the names of its axes."""

    dims: tuple[str, ...]
    values: Any


def is_old() -> bool:
    """Whether ArviZ is one before 1.0."""
    import arviz as az

    return int(az.__version__.split(".")[0]) < 1


# Data ----------------------------------------------------------------------------------------------------------------------


def variable(site: str) -> str:
    """What a site is called in a group."""
    return f"{site}_site" if site in SAMPLE else site


def dataset(variables: Mapping[str, Variable], coords: Mapping[str, Any], attrs: Mapping[str, Any]) -> xr.Dataset:
    """A group; what has no coordinates is numbered from 0, as ArviZ has it. A site that is called as the axes of draws are is
    `chain_site`, for these are."""
    import xarray as xr

    variables = {variable(name): v for name, v in variables.items()}
    sizes = {dim: size for v in variables.values() for dim, size in zip(v.dims, np.shape(v.values), strict=True)}
    labels = {dim: coords.get(dim, np.arange(size)) for dim, size in sizes.items()}
    return xr.Dataset({name: (v.dims, np.asarray(v.values)) for name, v in variables.items()}, labels, dict(attrs))


def data_of(groups: Mapping[str, xr.Dataset], attrs: Mapping[str, Any]) -> ArviZData:
    """ArviZ data of these groups."""
    attrs = {"created_at": datetime.now(UTC).isoformat(), "creation_library": "ppvi", **attrs}
    if is_old():
        import arviz as az

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not defined in the InferenceData scheme.*")
            return az.InferenceData(attrs=attrs, **groups)  # pyright: ignore[reportArgumentType]
    import xarray as xr

    tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    tree.attrs = attrs
    return tree


def is_data(given: Any) -> bool:
    """Whether this is ArviZ data, of whichever version."""
    return type(given).__name__ in ("InferenceData", "DataTree") and "xarray" in sys.modules


def names_of(given: Any) -> list[str]:
    """The groups of ArviZ data."""
    found: Any = given.groups() if callable(given.groups) else given.groups
    return [name.strip("/") for name in found if name != "/"]


def group_of(given: Any, name: str) -> xr.Dataset | None:
    """A group of ArviZ data; None where there is none."""
    if not is_data(given) or name not in names_of(given):
        return None
    found = given[name]
    return found.to_dataset() if hasattr(found, "to_dataset") else found


def saved(data: Any, path: str | PathLike[str]) -> None:
    """Write ArviZ data to a file, as NetCDF, where slashes are between groups: a site `a/b` is `a.b` there, and beside a site
    that is called `a.b` it is `a.b_`."""
    groups = {name: found for name in names_of(data) if (found := group_of(data, name)) is not None}
    written = _without_slashes(str(x) for group in groups.values() for x in (*group.variables, *group.dims))
    for name, group in groups.items():
        groups[name] = group.rename({x: written[str(x)] for x in {*group.variables, *group.dims} if str(x) in written})
    data_of(groups, data.attrs).to_netcdf(os.fspath(path), engine="h5netcdf")


def _without_slashes(names: Iterable[str]) -> dict[str, str]:
    """For names with slashes others without, of which no two are equal."""
    known, found = set(names), dict[str, str]()
    for name in sorted(x for x in known if "/" in x):
        other = name.replace("/", ".")
        while other in known:
            other += "_"
        found[name] = other
        known.add(other)
    return found


def read(path: str | PathLike[str]) -> ArviZData:
    """ArviZ data, or other groups of arrays, from a NetCDF file. All of it is in memory."""
    if is_old():
        import arviz as az
        from arviz.rcparams import rc_context

        with rc_context({"data.load": "eager"}):  # by default the file stays open
            return az.from_netcdf(os.fspath(path), engine="h5netcdf")
    import xarray as xr

    with xr.open_datatree(path, engine="h5netcdf") as tree:
        return tree.load()


# What is computed of them ---------------------------------------------------------------------------------------------------


def split_r_hat(draws: Any) -> xr.Dataset:
    """R-hat of every scalar, by ranks. Vehtari et al. 2021."""
    import arviz as az

    return az.rhat(draws)  # pyright: ignore[reportReturnType]


def bulk_ess(draws: Any) -> xr.Dataset:
    """Effective sample size of every scalar's bulk. Vehtari et al. 2021."""
    import arviz as az

    return az.ess(draws)  # pyright: ignore[reportReturnType]


def of_chains(draws: Mapping[str, Any]) -> xr.Dataset:
    """A dataset of arrays by name, `(chain, draw, *shape)`."""
    return dataset({name: Variable(sample_dims(name, np.ndim(x)), x) for name, x in draws.items()}, {}, {})


def sample_dims(name: str, ndim: int) -> tuple[str, ...]:
    """The axes of draws by name: chains, draws, and those that have no other name than the variable's."""
    return (*SAMPLE, *(f"{name}_dim_{i}" for i in range(ndim - 2)))


def of_entries(data: Any, name: str, kept: np.ndarray) -> ArviZData:
    """What the leave-one-out density is computed of, with some of the entries of a variable of `log_likelihood`."""
    groups = {group: found for group in ("posterior", "sample_stats") if (found := group_of(data, group)) is not None}
    [x] = (found[name] for found in [group_of(data, "log_likelihood")] if found is not None)
    if len(x.dims) == 3:
        entries = x.isel({x.dims[2]: np.flatnonzero(kept)}).to_dataset()
    else:
        values = x.values.reshape(*x.shape[:2], -1)[..., kept.ravel()]
        entries = dataset({name: Variable((*SAMPLE, f"{name}_dim_0"), values)}, {}, {})
    return data_of({**groups, "log_likelihood": entries}, {})


def loo(data: Any, var_name: str, log_ratio: xr.DataArray | None = None, k_hat: float | None = None) -> Any:
    """Leave-one-out density with its pointwise values, as ArviZ's `ELPDData`.

    **Arguments**

    - `log_ratio`: log p(theta, y) - log q(theta) of draws that are not the posterior's, `(chain, draw)`; `k_hat`, what is to be
      told of the tail of these weights.
    """
    import arviz as az

    if log_ratio is None:
        return az.loo(data, var_name=var_name, pointwise=True)
    if is_old():
        found = _corrected_loo(data, var_name, log_ratio)
        found["k_hat"] = k_hat
        return found
    found = az.loo_approximate_posterior(  # pyright: ignore[reportAttributeAccessIssue]
        data, log_ratio, log_ratio * 0.0, pointwise=True, var_name=var_name
    )
    found.k_hat = k_hat
    return found


def _corrected_loo(data: Any, var_name: str, log_ratio: xr.DataArray) -> Any:
    """As ArviZ 1.x has it, by the smoothing and in the words of 0.x. Magnusson et al. 2019, equation 8."""
    import arviz as az
    from arviz.stats.stats_utils import ELPDData, get_log_likelihood
    from scipy.special import logsumexp

    log_likelihood: Any = get_log_likelihood(data, var_name).stack(__sample__=SAMPLE)
    n = log_likelihood.sizes["__sample__"]
    ratios = log_ratio.stack(__sample__=SAMPLE) - log_likelihood
    log_weights, k_hat = az.psislw(ratios.transpose(*log_likelihood.dims), 1.0)  # pyright: ignore[reportGeneralTypeIssues]
    pointwise = (
        log_likelihood[..., 0]
        .drop_vars(["__sample__", *SAMPLE])
        .copy(data=logsumexp(log_weights.values + log_likelihood.values, axis=-1))
    )
    of_all = logsumexp(log_likelihood.values, axis=-1) - np.log(n)
    good_k, size, elpd = min(1 - 1 / np.log10(n), 0.7), pointwise.size, float(pointwise.sum())
    rows: Sequence[tuple[str, Any]] = [
        ("elpd_loo", elpd),
        ("se", float(np.sqrt(size * pointwise.values.var()))),
        ("p_loo", float(of_all.sum()) - elpd),
        ("n_samples", n),
        ("n_data_points", size),
        ("warning", bool((k_hat > good_k).any())),
        ("loo_i", pointwise.rename("loo_i")),
        ("pareto_k", k_hat),
        ("scale", "log"),
        ("good_k", good_k),
    ]
    return ELPDData(data=[value for _, value in rows], index=[name for name, _ in rows])
