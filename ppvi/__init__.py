"""ppvi: programmable variational inference for NumPyro and Pyro.

Here are the names that need no framework: strategies, objectives, the objective language, errors. The engines are
`ppvi.numpyro` and, with the extra `ppvi[pyro]`, `ppvi.pyro`. Importing ppvi loads neither JAX nor torch.
"""

from typing import Any

from ppvi import objectives, optimizers, strategies
from ppvi._calibration import Calibration
from ppvi._check import check_estimator
from ppvi._compare import compare
from ppvi._comparison import Comparison
from ppvi._diagnosis import Diagnosis
from ppvi._doors import ENGINES as _ENGINES, no_attribute as _no_attribute
from ppvi._loo import loo
from ppvi._options import door as _door
from ppvi.checks import Budget, Report
from ppvi.errors import (
    BiasError,
    BiasWarning,
    EngineError,
    FitError,
    PpviError,
    ProgramError,
    StrategyError,
)
from ppvi.expectations import (
    exp_of,
    log_of,
    minibatch,
    power_of,
)
from ppvi.inference import marginal, normalize, summed, tempered
from ppvi.program import (
    Program,
    Trace,
    each,
    handle,
    logmeanexp,
    minimized,
    replicate,
    stop_gradient,
    total,
)
from ppvi.stopping import Converged, Plateau, TimeLimit
from ppvi.strategies import (
    ARM,
    DisARM,
    Enumerate,
    LeaveOneOut,
    LocalExpectation,
    MeasureValued,
    Reinforce,
    Reparam,
    Strategy,
)


@_door
def load(folder: Any, objective: Any, *args: Any, **kwargs: Any) -> Any:
    """The fit that was last written to a folder of checkpoints; see `ppvi.fit.load`."""
    from ppvi.approximate import load as approximation
    from ppvi.fit import load
    from ppvi.objective import Objective

    if callable(objective) and not isinstance(objective, Objective):
        return approximation(folder, objective, *args, **kwargs)
    return load(folder, objective, *args, **kwargs)


@_door
def diagnose(fit: Any, key: Any = None, *, draws: int = 2000, num_chains: int = 128, on: Any = None) -> Diagnosis:
    """Whether a fit is near to the posterior, by short chains from its draws; see `ppvi._diagnose.diagnose`."""
    from ppvi._diagnose import diagnose

    return diagnose(fit, key, draws=draws, num_chains=num_chains, on=on)


@_door
def calibrate(
    fit: Any, key: Any = None, *, data_sets: int = 100, draws: int = 99, refit: Any = None, progress: bool = True
) -> Calibration:
    """Simulation-based calibration: fits of data sets that the model draws; see `ppvi._calibrate.calibrate`."""
    from ppvi._calibrate import calibrate

    return calibrate(fit, key, data_sets=data_sets, draws=draws, refit=refit, progress=progress)


@_door
def cite(what: Any, *, file: Any = None) -> None:
    """Print the papers behind an objective or a fit, as BibTeX: of programmable variational inference, of the library's
    objective, of the strategies of its sites and of what the fit did beside, such as averaging.

    **Arguments**

    - `what`: an `Objective`, whose named strategies are cited; or a `Fit`, whose sites' strategies are, named or not.
    - `file`: where to print it, as for `print`.

    An objective of your own has the papers of the method and of the strategies; what else it is made of, you know.
    """
    from ppvi._cite import cite

    cite(what, file=file)


__version__ = "0.1.0"

__all__ = [
    "ARM",
    "BiasError",
    "BiasWarning",
    "Budget",
    "Calibration",
    "Comparison",
    "Converged",
    "Diagnosis",
    "DisARM",
    "EngineError",
    "Enumerate",
    "FitError",
    "LeaveOneOut",
    "LocalExpectation",
    "MeasureValued",
    "Plateau",
    "PpviError",
    "Program",
    "ProgramError",
    "Reinforce",
    "Reparam",
    "Report",
    "Strategy",
    "StrategyError",
    "TimeLimit",
    "Trace",
    "calibrate",
    "check_estimator",
    "cite",
    "compare",
    "diagnose",
    "each",
    "exp_of",
    "handle",
    "load",
    "log_of",
    "logmeanexp",
    "loo",
    "marginal",
    "minibatch",
    "minimized",
    "normalize",
    "objectives",
    "optimizers",
    "power_of",
    "replicate",
    "stop_gradient",
    "strategies",
    "summed",
    "tempered",
    "total",
]


def __dir__() -> list[str]:
    return __all__


_OF_ENGINES: dict[str, str] = dict.fromkeys(
    ("fit", "nuts", "objective", "posterior", "predict"), f" It is of ppvi.numpyro and of ppvi.pyro: {_ENGINES}."
)
__getattr__ = _no_attribute(__name__, __all__, _OF_ENGINES)
