"""Published objectives as programs: each a few lines that read as its equation. A user's own is not second class."""

from ppvi._doors import no_attribute as _no_attribute
from ppvi.objectives.divergences import (
    alpha_divergence as alpha_divergence,
    chi_square as chi_square,
    cubo as cubo,
    f_divergence as f_divergence,
    log_variance as log_variance,
    thermodynamic as thermodynamic,
)
from ppvi.objectives.elbo import (
    analytic_elbo as analytic_elbo,
    beta_elbo as beta_elbo,
    elbo as elbo,
    stl as stl,
    tempered_elbo as tempered_elbo,
)
from ppvi.objectives.hierarchical import diwhvi as diwhvi, hvi as hvi, iwhvi as iwhvi, sivi as sivi
from ppvi.objectives.multi_sample import (
    dreg as dreg,
    iwelbo as iwelbo,
    renyi as renyi,
    vimco as vimco,
    vr_max as vr_max,
)
from ppvi.objectives.sequential import annealed as annealed, fivo as fivo
from ppvi.objectives.wake_sleep import (
    forward_chi_square as forward_chi_square,
    forward_kl as forward_kl,
    reweighted_wake_sleep as reweighted_wake_sleep,
    variational_importance_sampling as variational_importance_sampling,
    wake_phase_p as wake_phase_p,
    wake_phase_q as wake_phase_q,
)

__getattr__ = _no_attribute(__name__, [name for name in globals() if not name.startswith("_")])
