"""Programs made from programs: `marginal` and `normalize`, whose densities are estimated without bias.

Neither a marginal density nor a normalised one is at hand in closed form, and a variational objective needs neither: it
needs a *pair* of estimates that fit together (Cusumano-Towner and Mansinghka 2017; Lew et al. 2022).

    density side     E[xi(z)] = q(z)               fresh auxiliary draws, for `log_density` of a given z
    simulate side    E[1 / xi(z) | z] = 1 / q(z)   the draws that made z, for the `log_density` of its own trace

Both are the same function of different draws. By Jensen's inequality -log xi then errs on the safe side wherever it
stands in a bound: an objective with estimates in place of densities is a lower bound of the objective without.

Programs of programs are programs: the marginal of a marginal, or a posterior whose proposal is a marginal, need no more
than what stands here.
"""

from ppvi.inference.marginal import Marginal as Marginal, marginal as marginal
from ppvi.inference.posterior import Posterior as Posterior, normalize as normalize
from ppvi.inference.summed import Summed as Summed, summed as summed
from ppvi.inference.tempered import Tempered as Tempered, tempered as tempered
