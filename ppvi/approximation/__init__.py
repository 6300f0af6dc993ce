"""Gaussian approximations of a log density whose gradient is at hand, by averages over fixed points; and modes and chains that
tell how far an approximation is from it.

Nothing here knows of programs or frameworks: a density is a function of arrays of NumPy, in double precision.
"""

from ppvi.approximation.basins import Basins, basins
from ppvi.approximation.chains import Chains, chained
from ppvi.approximation.curvature import EVEN, nearer, nearest, spread
from ppvi.approximation.families import Full, LowRank
from ppvi.approximation.gaussian import Gaussian, LostDensityError, fitted, points_of
from ppvi.approximation.mixtures import Mixture, mixed
from ppvi.approximation.modes import Each, Mode, apart, climbs, lower
from ppvi.approximation.scales import log_det, whitened
from ppvi.approximation.windows import bent

__all__ = [
    "EVEN",
    "Basins",
    "Chains",
    "Each",
    "Full",
    "Gaussian",
    "LostDensityError",
    "LowRank",
    "Mixture",
    "Mode",
    "apart",
    "basins",
    "bent",
    "chained",
    "climbs",
    "fitted",
    "log_det",
    "lower",
    "mixed",
    "nearer",
    "nearest",
    "points_of",
    "spread",
    "whitened",
]
