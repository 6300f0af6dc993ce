"""Programmable variational inference for NumPyro programs.

import ppvi, ppvi.numpyro as vi

bound = vi.objective(ppvi.objectives.elbo, model, guide)
fit = vi.fit(bound, key, x)
print(ppvi.compare(fit, vi.nuts(model, key, x)))
"""

from ppvi.numpyro import _xla, _lapack  # noqa: F401  # isort: skip  (before anything that might compute)

from ppvi._draws import posterior
from ppvi._predict import predict
from ppvi.fit import Fit, fit
from ppvi.numpyro._approximate import approximate
from ppvi.numpyro._handlers import strategies
from ppvi.numpyro._ivon import ivon
from ppvi.numpyro._mcmc import nuts
from ppvi.numpyro._objective import objective
from ppvi.objective import Objective

__all__ = ["Fit", "Objective", "approximate", "fit", "ivon", "nuts", "objective", "posterior", "predict", "strategies"]


def __dir__() -> list[str]:
    return __all__
