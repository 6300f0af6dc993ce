"""The posteriors of `models.posteriors` as PyMC models: the same sites, and the same densities up to constants."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pymc.distributions.transforms import Chain, log, ordered


def regression(columns, y, sigma=pm.HalfFlat):
    beta = pm.Flat("beta", shape=columns.shape[-1])
    pm.Normal("y", columns @ beta, sigma("sigma"), observed=y)


def half_cauchy(name):
    return pm.HalfCauchy(name, 2.5)


def ark(y, K, T):
    alpha, beta = pm.Normal("alpha", 0, 10), pm.Normal("beta", 0, 10, shape=K)
    before = np.stack([y[K - k - 1 : T - k - 1] for k in range(K)], -1)
    pm.Normal("y", alpha + before @ beta, half_cauchy("sigma"), observed=y[K:])


def log_earnings(N, earn, height, male):
    z = (height - height.mean()) / height.std(ddof=1)
    regression(np.stack([np.ones(N), z, male, z * male], -1), np.log(earn))


def eight_schools_centered(J, y, sigma):
    theta = pm.Normal("theta", pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5), shape=J)
    pm.Normal("y", theta, sigma, observed=y)


def eight_schools_noncentered(J, y, sigma):
    mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
    theta = pm.Deterministic("theta", mu + tau * pm.Normal("theta_trans", shape=J))
    pm.Normal("y", theta, sigma, observed=y)


def garch(T, y, sigma1):
    mu, alpha0 = pm.Flat("mu"), pm.HalfFlat("alpha0")
    alpha1, share = pm.Uniform("alpha1"), pm.Uniform("share")
    beta1 = pm.Deterministic("beta1", (1 - alpha1) * share)
    pm.Potential("jacobian", pt.log1p(-alpha1))
    first = pt.constant(sigma1**2, dtype="float64")
    later = pytensor.scan(
        lambda before, variance, mu, alpha0, alpha1, beta1: alpha0 + alpha1 * (before - mu) ** 2 + beta1 * variance,
        sequences=[pt.constant(y[:-1])],
        outputs_info=[first],
        non_sequences=[mu, alpha0, alpha1, beta1],
        return_updates=False,
    )
    pm.Normal("y", mu, pt.sqrt(pt.concatenate([first[None], later])), observed=y)


def poisson_gp(N, x, k, **_):
    rho, alpha = pm.Gamma("rho", 25, 4), pm.HalfNormal("alpha", 2)
    covariance = alpha**2 * pt.exp(-0.5 * ((x[:, None] - x) / rho) ** 2) + 1e-10 * np.eye(N)
    f = pm.Deterministic("f", pt.linalg.cholesky(covariance) @ pm.Normal("f_tilde", shape=N))
    pm.Poisson("k", pt.exp(f), observed=k)


def hmm(N, K, y):
    theta = pt.stack([pm.Dirichlet(f"theta{k + 1}", np.ones(K)) for k in range(K)])
    mu = pm.Normal("mu", [3.0, 10.0], 1.0, transform=Chain([log, ordered]), initval=[3.0, 10.0])
    seen = pm.logp(pm.Normal.dist(mu, 1.0), y[:, None])
    forward = pytensor.scan(
        lambda seen, before, log_theta: pt.logsumexp(before[:, None] + log_theta, 0) + seen,
        sequences=[seen[1:]],
        outputs_info=[seen[0]],
        non_sequences=[pt.log(theta)],
        return_updates=False,
    )
    pm.Potential("y", pt.logsumexp(forward[-1]))


def lotka_volterra(N, ts, y_init, y, substeps=20):
    """PyMC's solver of differential equations has no second derivatives and is slow: Runge and Kutta's, 20 steps a year."""
    theta = pm.TruncatedNormal("theta", [1.0, 0.05, 1.0, 0.05], [0.5, 0.05, 0.5, 0.05], lower=0.0)
    z_init = pm.LogNormal("z_init", np.log(10.0), 1.0, shape=2)
    sigma = pm.LogNormal("sigma", -1.0, 1.0, shape=2)
    h = 1 / substeps

    def moves(z, theta):
        return pt.stack([(theta[0] - theta[1] * z[1]) * z[0], (theta[3] * z[0] - theta[2]) * z[1]])

    def step(z, theta):
        k1 = moves(z, theta)
        k2 = moves(z + h / 2 * k1, theta)
        k3 = moves(z + h / 2 * k2, theta)
        return z + h / 6 * (k1 + 2 * k2 + 2 * k3 + moves(z + h * k3, theta))

    z = pytensor.scan(
        step, outputs_info=[z_init], non_sequences=[theta], n_steps=substeps * int(ts[-1]), return_updates=False
    )
    pm.LogNormal("y_init", pt.log(z_init), sigma, observed=y_init)
    pm.LogNormal("y", pt.log(z[substeps - 1 :: substeps]), sigma, observed=y)


def kidscore_interaction(N, kid_score, mom_iq, mom_hs, **_):
    regression(np.stack([np.ones(N), mom_hs, mom_iq, mom_hs * mom_iq], -1), kid_score, half_cauchy)


def kidscore_momhsiq(N, kid_score, mom_iq, mom_hs, **_):
    regression(np.stack([np.ones(N), mom_hs, mom_iq], -1), kid_score, half_cauchy)


def gaussian_mixture(N, y):
    sigma = pm.HalfNormal("sigma", 2.0, shape=2)
    mu = pm.Normal("mu", 0.0, 2.0, shape=2, transform=ordered, initval=[-1.0, 1.0])
    theta = pm.Beta("theta", 5.0, 5.0)
    pm.NormalMixture("y", pt.stack([theta, 1 - theta]), mu, sigma, observed=y)


def _mesquite(scaled, N, weight, diam1, diam2, canopy_height, total_height, density, group):
    columns = [scaled(x) for x in (diam1, diam2, canopy_height, total_height, density)]
    regression(np.stack([np.ones(N), *columns, group], -1), scaled(weight))


def mesquite(**data):
    _mesquite(np.asarray, **data)


def log_mesquite(**data):
    _mesquite(np.log, **data)


def nes(N, partyid7, real_ideo, race_adj, educ1, gender, income, age_discrete, **_):
    ages = [(age_discrete == i) * 1.0 for i in (2, 3, 4)]
    regression(np.stack([np.ones(N), real_ideo, race_adj, *ages, educ1, gender, income], -1), partyid7)


def blr(N, D, X, y):
    pm.Normal("y", X @ pm.Normal("beta", 0, 10, shape=D), pm.HalfNormal("sigma", 10), observed=y)


MODELS = {
    "arK-arK": ark,
    "earnings-logearn_interaction_z": log_earnings,
    "eight_schools-eight_schools_centered": eight_schools_centered,
    "eight_schools-eight_schools_noncentered": eight_schools_noncentered,
    "garch-garch11": garch,
    "gp_pois_regr-gp_pois_regr": poisson_gp,
    "hmm_example-hmm_example": hmm,
    "hudson_lynx_hare-lotka_volterra": lotka_volterra,
    "kidiq-kidscore_interaction": kidscore_interaction,
    "kidiq-kidscore_momhsiq": kidscore_momhsiq,
    "low_dim_gauss_mix-low_dim_gauss_mix": gaussian_mixture,
    "mesquite-logmesquite": log_mesquite,
    "mesquite-mesquite": mesquite,
    "nes1980-nes": nes,
    "sblrc-blr": blr,
}
