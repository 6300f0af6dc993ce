"""Small problems: one gradient of the ELBO by one draw on real posteriors, beside NumPyro's Trace_ELBO.

The models are those of `benchmarks.posteriors` whose sites are all continuous, the guides NumPyro's AutoNormal and
AutoMultivariateNormal. A gradient takes between ten microseconds and some hundred, so that a call and a kernel more are seen.
`python -m benchmarks.small`; the data are those of posteriordb, in the folder that PPVI_DATA names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpyro.infer import Trace_ELBO
from numpyro.infer.autoguide import AutoGuide, AutoMultivariateNormal, AutoNormal

import ppvi.numpyro as vi
from benchmarks.posterior_peers.serving import data_of
from benchmarks.results import table
from benchmarks.timing import microseconds, rounds
from models.posteriors import MODELS
from ppvi.objectives import elbo

KEY = jax.random.key(0)
FINITE = "hmm_example-hmm_example", "low_dim_gauss_mix-low_dim_gauss_mix"
"""Posteriors with discrete sites, which Trace_ELBO does not sum out."""
GUIDES: tuple[type[AutoGuide], ...] = (AutoNormal, AutoMultivariateNormal)
SECONDS = 2.0


def contenders(name: str, guide: type[AutoGuide]) -> dict[str, Callable[[], Any]]:
    """Value and gradient at the guide's first parameters."""
    model, data = MODELS[name], data_of(name)
    q: Any = guide(model)
    bound, loss = vi.objective(elbo, model, q), Trace_ELBO()
    params = bound.init(KEY, **data)
    steps = {
        "ppvi": jax.jit(lambda key, params: bound.value_and_grad(key, params, **data)),
        "NumPyro": jax.jit(
            lambda key, params: jax.value_and_grad(lambda p: -loss.loss(key, p, model, q, **data))(params)
        ),
    }
    return {system: lambda step=step: step(KEY, params) for system, step in steps.items()}


def main() -> None:
    rows, medians = [], []
    for name in MODELS:
        if name in FINITE:
            continue
        for guide in GUIDES:
            times = rounds(contenders(name, guide), SECONDS)
            ratios = times["ppvi"] / times["NumPyro"]
            low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
            medians.append(middle)
            row = name.rpartition("-")[2], guide.__name__, *(microseconds(x) for x in times.values())
            rows.append((*row, f"{middle:.2f} [{low:.2f}, {high:.2f}]"))
    middle = f"{np.median(medians):.2f} [{min(medians):.2f}, {max(medians):.2f}]"
    rows.append(("median [least, most]", "", "", "", middle))
    header = ("posterior", "guide", "ppvi", "Trace_ELBO", "ratio, [quartiles]")
    table("one gradient of the ELBO on small problems", header, rows)


if __name__ == "__main__":
    main()
