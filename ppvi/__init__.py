"""ppvi: programmable variational inference for NumPyro and Pyro.

Here are the names that need no framework: strategies, objectives, the objective language, errors. The engines are
`ppvi.numpyro` and, with the extra `ppvi[pyro]`, `ppvi.pyro`. Importing ppvi loads neither JAX nor torch.
"""

from typing import Any

from ppvi import objectives as objectives, strategies as strategies
from ppvi.check import check_estimator as check_estimator
from ppvi.checks import Budget as Budget, Report as Report
from ppvi.compare import Comparison as Comparison, compare as compare
from ppvi.errors import (
    BiasError as BiasError,
    BiasWarning as BiasWarning,
    EngineError as EngineError,
    FitError as FitError,
    PpviError as PpviError,
    ProgramError as ProgramError,
    StrategyError as StrategyError,
)
from ppvi.expectations import (
    exp_of as exp_of,
    log_of as log_of,
    minibatch as minibatch,
    power_of as power_of,
)
from ppvi.inference import marginal as marginal, normalize as normalize, tempered as tempered
from ppvi.program import (
    Program as Program,
    Trace as Trace,
    each as each,
    handle as handle,
    logmeanexp as logmeanexp,
    minimized as minimized,
    replicate as replicate,
    stop_gradient as stop_gradient,
    total as total,
)
from ppvi.stopping import Plateau as Plateau, TimeLimit as TimeLimit
from ppvi.strategies import (
    ARM as ARM,
    DisARM as DisARM,
    Enumerate as Enumerate,
    LeaveOneOut as LeaveOneOut,
    LocalExpectation as LocalExpectation,
    MeasureValued as MeasureValued,
    Reinforce as Reinforce,
    Reparam as Reparam,
    Strategy as Strategy,
)


def load(folder: Any, objective: Any, *args: Any, **kwargs: Any) -> Any:
    """The fit that was last written to a folder of checkpoints; see `ppvi.fit.load`."""
    from ppvi.fit import load

    return load(folder, objective, *args, **kwargs)


__version__ = "0.1.0"
