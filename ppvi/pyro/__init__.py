"""Programmable variational inference for Pyro programs.

import ppvi, ppvi.pyro as vi

bound = vi.objective(ppvi.objectives.elbo, model, guide)
fit = vi.fit(bound, 0, x)
print(ppvi.compare(fit, vi.nuts(model, 0, x)))
"""

try:
    import pyro as _pyro
    import torch as _torch
except ImportError as error:
    raise ImportError("ppvi.pyro needs PyTorch and Pyro: install them with pip install 'ppvi[pyro]'.") from error

from ppvi._draws import posterior
from ppvi._predict import predict
from ppvi.fit import Fit, fit
from ppvi.objective import Objective
from ppvi.pyro._approximate import approximate
from ppvi.pyro._handlers import strategies
from ppvi.pyro._ivon import ivon
from ppvi.pyro._mcmc import nuts
from ppvi.pyro._objective import objective

del _pyro, _torch

__all__ = ["Fit", "Objective", "approximate", "fit", "ivon", "nuts", "objective", "posterior", "predict", "strategies"]


def __dir__() -> list[str]:
    return __all__
