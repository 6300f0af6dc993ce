"""Programmable variational inference for NumPyro programs.

import ppvi, ppvi.numpyro as vi

bound = vi.objective(ppvi.objectives.elbo, model, guide)
fit = vi.fit(bound, key, x)
print(ppvi.compare(fit, vi.nuts(model, key, x)))
"""

from ppvi.numpyro import xla as xla, lapack as lapack  # isort: skip  (before anything that might compute)

from ppvi.draws import posterior as posterior
from ppvi.fit import Fit as Fit, fit as fit
from ppvi.numpyro.handlers import strategies as strategies
from ppvi.numpyro.mcmc import nuts as nuts
from ppvi.numpyro.objective import objective as objective
from ppvi.objective import Objective as Objective
