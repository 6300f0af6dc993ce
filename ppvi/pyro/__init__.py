"""Programmable variational inference for Pyro programs.

The compiler, the strategies and the objectives are those of `ppvi.numpyro`; programs are staged with `make_fx`.
"""

try:
    import pyro as _pyro
    import torch as _torch
except ImportError as error:
    raise ImportError("ppvi.pyro needs PyTorch and Pyro: install them with pip install 'ppvi[pyro]'.") from error

from ppvi.pyro.objective import Objective as Objective, objective as objective

del _pyro, _torch
