"""The posteriors of `models.posteriors` as Pyro models: the same sites, and the same densities up to constants."""

import pyro
import torch
from pyro import distributions as dist
from pyro.distributions import constraints
from torch.distributions import biject_to


class Flat(dist.ImproperUniform):
    """With draws, from which Pyro's guides begin: uniform on (-2, 2) where they are not constrained, as NumPyro's."""

    def sample(self, sample_shape=()):
        freely = biject_to(self.support)
        return freely(4 * torch.rand(freely.inverse_shape(self.shape(sample_shape))) - 2)


def flat(name, support, shape=()):
    return pyro.sample(name, Flat(support, (), shape))


def regression(columns, y, sigma=None):
    beta = flat("beta", constraints.real_vector, (columns.shape[-1],))
    sigma = flat("sigma", constraints.positive) if sigma is None else pyro.sample("sigma", sigma)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(columns @ beta, sigma), obs=y)


def ark(y, K, T):
    alpha = pyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0).expand([K]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    before = torch.stack([y[K - k - 1 : T - k - 1] for k in range(K)], -1)
    with pyro.plate("times", T - K):
        pyro.sample("y", dist.Normal(alpha + before @ beta, sigma), obs=y[K:])


def log_earnings(N, earn, height, male):
    z = (height - height.mean()) / height.std()
    regression(torch.stack([torch.ones(N), z, male, z * male], -1), earn.log())


def eight_schools_centered(J, y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", J):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def eight_schools_noncentered(J, y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", J):
        z = pyro.sample("theta_trans", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def garch(T, y, sigma1):
    """The recursion, solved: s_t^2 = sum_r beta_1^{t-r} (alpha_0 + alpha_1 (y_{r-1} - mu)^2) + beta_1^{t-1} s_1^2"""
    mu, alpha0 = flat("mu", constraints.real), flat("alpha0", constraints.positive)
    alpha1, share = flat("alpha1", constraints.unit_interval), flat("share", constraints.unit_interval)
    beta1 = pyro.deterministic("beta1", (1 - alpha1) * share)
    pyro.factor("jacobian", torch.log1p(-alpha1))
    news = torch.cat([torch.tensor([sigma1**2]), alpha0 + alpha1 * (y[:-1] - mu) ** 2])
    gaps = torch.arange(T)[:, None] - torch.arange(T)
    variances = (beta1 ** gaps.clamp(min=0)).tril() @ news
    with pyro.plate("times", T):
        pyro.sample("y", dist.Normal(mu, variances.sqrt()), obs=y)


def poisson_gp(N, x, k, **_):
    rho = pyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(2.0))
    f_tilde = pyro.sample("f_tilde", dist.Normal(0.0, 1.0).expand([N]).to_event(1))
    covariance = alpha**2 * torch.exp(-0.5 * ((x[:, None] - x) / rho) ** 2) + 1e-10 * torch.eye(N)
    f = pyro.deterministic("f", torch.linalg.cholesky(covariance) @ f_tilde)
    with pyro.plate("points", N):
        pyro.sample("k", dist.Poisson(f.exp()), obs=k)


def hmm(N, K, y):
    """By the parallel recursion of DiscreteHMM, whose chain moves before it is seen first."""
    theta = torch.stack([pyro.sample(f"theta{k + 1}", dist.Dirichlet(torch.ones(K))) for k in range(K)])
    mu = flat("mu", constraints.positive_ordered_vector, (K,))
    pyro.factor("prior", dist.Normal(torch.tensor([3.0, 10.0]), 1.0).log_prob(mu).sum())
    seen = dist.Normal(mu, 1.0)
    pyro.factor("first", seen.log_prob(y[0]).logsumexp(-1))
    pyro.sample("y", dist.DiscreteHMM(seen.log_prob(y[0]), theta.log(), seen, duration=N - 1), obs=y[1:])


def lotka_volterra(**_):
    raise NotImplementedError("Pyro solves no differential equations")


def kidscore_interaction(N, kid_score, mom_iq, mom_hs, **_):
    columns = torch.stack([torch.ones(N), mom_hs, mom_iq, mom_hs * mom_iq], -1)
    regression(columns, kid_score, dist.HalfCauchy(2.5))


def kidscore_momhsiq(N, kid_score, mom_iq, mom_hs, **_):
    regression(torch.stack([torch.ones(N), mom_hs, mom_iq], -1), kid_score, dist.HalfCauchy(2.5))


def gaussian_mixture(N, y):
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    mu = flat("mu", constraints.ordered_vector, (2,))
    pyro.factor("prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    theta = pyro.sample("theta", dist.Beta(5.0, 5.0))
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.stack([theta, 1 - theta])), dist.Normal(mu, sigma))
    with pyro.plate("points", N):
        pyro.sample("y", mixture, obs=y)


def _mesquite(scaled, N, weight, diam1, diam2, canopy_height, total_height, density, group):
    columns = [scaled(x) for x in (diam1, diam2, canopy_height, total_height, density)]
    regression(torch.stack([torch.ones(N), *columns, group], -1), scaled(weight))


def mesquite(**data):
    _mesquite(torch.as_tensor, **data)


def log_mesquite(**data):
    _mesquite(torch.log, **data)


def nes(N, partyid7, real_ideo, race_adj, educ1, gender, income, age_discrete, **_):
    ages = [(age_discrete == i) * 1.0 for i in (2, 3, 4)]
    regression(torch.stack([torch.ones(N), real_ideo, race_adj, *ages, educ1, gender, income], -1), partyid7)


def blr(N, D, X, y):
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0).expand([D]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(10.0))
    with pyro.plate("rows", N):
        pyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)


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
