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

from ppvi.draws import posterior as posterior
from ppvi.fit import Fit as Fit, fit as fit
from ppvi.objective import Objective as Objective
from ppvi.pyro.handlers import strategies as strategies
from ppvi.pyro.mcmc import nuts as nuts
from ppvi.pyro.objective import objective as objective

del _pyro, _torch
