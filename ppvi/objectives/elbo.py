"""The evidence lower bound, and its variants with one draw."""

from __future__ import annotations

from collections.abc import Mapping

from ppvi._doors import number
from ppvi._ops import Array
from ppvi.errors import ProgramError
from ppvi.objectives.families import Objective, family, objective_program
from ppvi.objectives.weights import refuse_estimated, refuse_placed
from ppvi.program import Program, kl_divergences


@objective_program
def elbo(p: Program, q: Program) -> Array:
    """Evidence lower bound, to be maximised.

        E_{z ~ q} [log p(x, z) - log q(z)]  =  log p(x) - KL(q || p(z | x))

    **Unbiased when** every strategy is, for any kind of site.
    Jordan et al. 1999; Kingma and Welling 2014.
    """
    z = q.simulate()
    return p.log_density(z) - z.log_density


@objective_program
def analytic_elbo(p: Program, q: Program) -> Array:
    """The evidence lower bound with KL divergences in closed form wherever there is one, to be maximised.

        E_{z ~ q} [log p(x | z) - sum_i KL(q(z_i | before) || p(z_i | before))]

    A site keeps its Monte Carlo estimate where the framework knows no closed form, and where the model draws something
    before the site that the guide draws after it: the closed form would be another number there.

    **Unbiased when** every strategy is; it has the expectation of `elbo`, mostly at less variance.
    Kingma and Welling 2014, appendix B.
    """
    z = q.simulate()
    x = p.assess(z)
    closed = kl_divergences(z, x)
    sampled = sum((z.log_probs[site] - x.log_probs[site]).sum() for site in closed)
    return x.log_density - z.log_density + sampled - sum(closed.values())


@family
def beta_elbo(beta: float | Mapping[str, float]) -> Objective:
    """ELBO with weighted divergences, to be maximised.

        E_{z ~ q} [log p(x | z) - sum_i beta_i (log q(z_i) - log p(z_i))]

    **Arguments**

    - `beta`: one weight for all latent sites, or weights by site name (1 for sites not named). Above 1 the guide is pulled
      to the prior; a lower bound of log p(x) for beta >= 1.

    **Raises** `ProgramError` if a named site does not exist, or if the guide's density is not a product over its sites.

    **Unbiased when** every strategy is. Higgins et al. 2017.
    """

    for site, weight in (beta if isinstance(beta, Mapping) else {"every site": beta}).items():
        number(f"beta_elbo: the weight of {site}", weight)

    def weighted_elbo(p: Program, q: Program) -> Array:
        z = q.simulate()
        x = p.assess(z)
        named = beta if isinstance(beta, Mapping) else dict.fromkeys(z, beta)
        unknown = sorted(set(named) - set(z.log_probs))
        if unknown:
            raise ProgramError(
                f"beta_elbo: site {unknown[0]!r} has no density of its own in the guide, which has {sorted(z.log_probs)}."
            )
        joined = [site for site in named if site in x and site not in x.log_probs]
        if joined:
            raise ProgramError(
                f"beta_elbo: site {joined[0]!r} has no density of its own in the model, whose density is that of "
                f"{', '.join(x.log_probs)} at once, so that its divergence cannot be weighed: draw in the guide what is "
                f"summed out."
            )
        priors = {site: x.log_probs[site].sum() if site in x else 0.0 for site in named}
        excess = [(named[site] - 1) * (z.log_probs[site].sum() - priors[site]) for site in named]
        return x.log_density - z.log_density - sum(excess)

    return weighted_elbo


@family
def tempered_elbo(temperature: float) -> Objective:
    """ELBO of a tempered model, to be maximised; for annealing, lower the temperature towards 1 from fit to fit.

        E_{z ~ q} [log p(x, z) / T - log q(z)]

    **Arguments**

    - `temperature`: T > 0. Above 1 it flattens the target, which keeps modes apart from collapsing early.

    **Unbiased when** every strategy is. At T = 1 it is the ELBO. Mandt et al. 2016.
    """

    number("tempered_elbo: the temperature", temperature, above=0)

    def bound(p: Program, q: Program) -> Array:
        z = q.simulate()
        return p.log_density(z) / temperature - z.log_density

    return bound


@objective_program
def stl(p: Program, q: Program) -> Array:
    """The ELBO by its path derivative ("sticking the landing"), to be maximised.

        E_{z ~ q} [log p(x, z) - log q(z; stop(phi))]

    The score of the guide at its own draw has mean zero; left out, the variance vanishes where the guide is exact.

    **Raises** `ProgramError` for a guide whose density is estimated, such as a marginal.

    **Unbiased when** every strategy is: value and gradient have the expectations of `elbo`. This is so for log weights
    only; in any other divergence a stopped density drops a term that is not zero. Roeder, Wu and Duvenaud 2017.
    """
    z = q.simulate()
    refuse_estimated("stl", z, q)
    refuse_placed("stl", z)
    return p.log_density(z) - q.log_density(
        z, stop_params="the score at its own draw has mean zero (Roeder et al. 2017)"
    )
