"""The corpus' own verdicts against gradients by score functions, of which the library knows nothing."""

import math

import pytest

from ppvi import Enumerate
from tests.corpus import decisions, models, series
from tests.corpus.programs import FLAGGED, PROVED
from tests.corpus.truth import FAR, apart
from tests.engines import NUMPYRO, on

MODULES = {module.__name__ for module in (decisions, models, series)}
BY_PARAMETERS = {"thresholded concrete", "leaky flow"}
"""Programs that jump in parameters, which a score function does not see either."""
INFINITE = "rate zero", "a pole in a loop"
"""Parts of names of programs that are infinite, or whose derivative JAX has as 0 times infinity."""
DRAWS = 20_000


def has_truth(entry):
    """Whether it has a mean, and a guide whose density is that of its draws."""
    finite = not any(name in entry.name for name in INFINITE) and entry.name not in BY_PARAMETERS
    return entry.module in MODULES and finite and not isinstance(entry.guide, str)


@pytest.mark.slow
@pytest.mark.parametrize("entry", [entry for entry in (*PROVED, *FLAGGED) if has_truth(entry)], ids=str)
def test_truth(entry):
    with on(NUMPYRO):
        objective = NUMPYRO.vi.objective(entry.program, entry.model, entry.guide, strategies=entry.strategies)
        params = objective.init(NUMPYRO.key(0))
        far = apart(entry, objective.value_and_grad, params, DRAWS)
    assert (far < FAR) == (entry.truth == "unbiased"), f"{far:.1f} standard errors apart: {entry.because}"


def test_a_pole_in_a_loop():
    """Three times E[1 / (w + 1 + z)] at w = 0, of a coin z: what nobody looks up is infinite, and has no part in it."""
    objective = NUMPYRO.vi.objective(series.looked_up, lambda: None, series.rarely, strategies={"z": Enumerate()})
    params = objective.init(NUMPYRO.key(0))
    heads = 1 / (1 + math.exp(-4.0))
    assert objective.value_and_grad(NUMPYRO.key(0), params)[1]["w"] == pytest.approx(3 * (1 - heads / 2), rel=1e-5)
