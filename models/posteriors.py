"""Posteriors of posteriordb, written as NumPyro programs; each takes the data as they are there.

Magnusson et al., "posteriordb: Testing, Benchmarking and Developing Bayesian Inference Algorithms" (2024). Priors, and the lack
of them, are those of the Stan programs, up to constants. Sites have the names of the reference draws.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.experimental.ode import odeint
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints


def flat(support, shape=()):
    """No prior on what has this support."""
    return dist.ImproperUniform(support, (), shape)


def regression(columns, y, sigma=None):
    """y ~ N(columns beta, sigma),  beta flat,  sigma flat on the positive numbers or as given"""
    beta = numpyro.sample("beta", flat(constraints.real_vector, (columns.shape[-1],)))
    sigma = numpyro.sample("sigma", flat(constraints.positive) if sigma is None else sigma)
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(columns @ beta, sigma), obs=y)


def ark(y, K, T):
    """y_t ~ N(alpha + sum_k beta_k y_{t-k}, sigma),  alpha, beta_k ~ N(0, 10),  sigma ~ HalfCauchy(2.5)"""
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([K]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    before = jnp.stack([y[K - k - 1 : T - k - 1] for k in range(K)], -1)
    with numpyro.plate("times", T - K):
        numpyro.sample("y", dist.Normal(alpha + before @ beta, sigma), obs=y[K:])


def log_earnings(N, earn, height, male):
    z = (height - height.mean()) / height.std(ddof=1)
    regression(jnp.stack([jnp.ones(N), z, male, z * male], -1), jnp.log(earn))


def eight_schools_centered(J, y, sigma):
    """mu ~ N(0, 5),  tau ~ HalfCauchy(5),  theta_j ~ N(mu, tau),  y_j ~ N(theta_j, sigma_j)"""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", J):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def eight_schools_noncentered(J, y, sigma):
    """The same with theta_j = mu + tau z_j,  z_j ~ N(0, 1)"""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", J):
        z = numpyro.sample("theta_trans", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def garch(T, y, sigma1):
    """y_t ~ N(mu, s_t),  s_t^2 = alpha_0 + alpha_1 (y_{t-1} - mu)^2 + beta_1 s_{t-1}^2,  all flat with alpha_1 + beta_1 < 1"""
    mu = numpyro.sample("mu", flat(constraints.real))
    alpha0 = numpyro.sample("alpha0", flat(constraints.positive))
    alpha1 = numpyro.sample("alpha1", flat(constraints.unit_interval))
    share = numpyro.sample("share", flat(constraints.unit_interval))
    beta1 = numpyro.deterministic("beta1", (1 - alpha1) * share)
    numpyro.factor("jacobian", jnp.log1p(-alpha1))

    def step(variance, before):
        variance = alpha0 + alpha1 * (before - mu) ** 2 + beta1 * variance
        return variance, variance

    _, later = scan(step, jnp.asarray(sigma1**2, jnp.result_type(float)), y[:-1])
    variances = jnp.concatenate([jnp.asarray([sigma1**2]), later])
    with numpyro.plate("times", T):
        numpyro.sample("y", dist.Normal(mu, jnp.sqrt(variances)), obs=y)


def poisson_gp(N, x, k, y=None):
    """f = chol(alpha^2 exp(-(x - x')^2 / 2 rho^2)) f_tilde,  k ~ Poisson(exp f),  rho ~ Gamma(25, 4),  alpha ~ HalfNormal(2)"""
    rho = numpyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2.0))
    f_tilde = numpyro.sample("f_tilde", dist.Normal(0.0, 1.0).expand([N]).to_event(1))
    gaps = (x[:, None] - x) / rho
    factor = jnp.linalg.cholesky(alpha**2 * jnp.exp(-0.5 * gaps**2) + JITTER * jnp.eye(N))
    f = numpyro.deterministic("f", factor @ f_tilde)
    with numpyro.plate("points", N):
        numpyro.sample("k", dist.Poisson(jnp.exp(f)), obs=k)


JITTER = 1e-10


def hmm(N, K, y):
    """theta_k ~ Dirichlet(1),  mu_1 ~ N(3, 1) < mu_2 ~ N(10, 1),  y_t ~ N(mu_{z_t}, 1),  z_t ~ theta_{z_{t-1}}"""
    theta = jnp.stack([numpyro.sample(f"theta{k + 1}", dist.Dirichlet(jnp.ones(K))) for k in range(K)])
    mu = numpyro.sample("mu", flat(constraints.positive_ordered_vector, (K,)))
    numpyro.factor("prior", dist.Normal(jnp.array([3.0, 10.0]), 1.0).log_prob(mu).sum())
    first = numpyro.sample("z_0", dist.Categorical(jnp.ones(K) / K), infer={"enumerate": "parallel"})
    numpyro.sample("y_0", dist.Normal(mu[first], 1.0), obs=y[0])

    def step(z, y_t):
        z = numpyro.sample("z", dist.Categorical(theta[z]), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y_t)
        return z, None

    scan(step, first, y[1:])


def lotka_volterra(N, ts, y_init, y):
    """Prey u and predators v:  u' = (alpha - beta v) u,  v' = (delta u - gamma) v,  seen with log-normal errors"""
    theta = numpyro.sample(
        "theta",
        dist.TruncatedNormal(jnp.array([1.0, 0.05, 1.0, 0.05]), jnp.array([0.5, 0.05, 0.5, 0.05]), low=0.0).to_event(1),
    )
    z_init = numpyro.sample("z_init", dist.LogNormal(jnp.log(10.0), 1.0).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]).to_event(1))

    def moves(z, t, theta):
        return jnp.stack([(theta[0] - theta[1] * z[1]) * z[0], (theta[3] * z[0] - theta[2]) * z[1]])

    times = jnp.concatenate([jnp.zeros(1), ts])
    z = odeint(moves, z_init, times, theta, rtol=1e-6, atol=1e-5, mxstep=1000)
    numpyro.sample("y_init", dist.LogNormal(jnp.log(z_init), sigma).to_event(1), obs=y_init)
    with numpyro.plate("times", N):
        numpyro.sample("y", dist.LogNormal(jnp.log(z[1:]), sigma).to_event(1), obs=y)


def kidscore_interaction(N, kid_score, mom_iq, mom_hs, **_):
    columns = jnp.stack([jnp.ones(N), mom_hs, mom_iq, mom_hs * mom_iq], -1)
    regression(columns, kid_score, dist.HalfCauchy(2.5))


def kidscore_momhsiq(N, kid_score, mom_iq, mom_hs, **_):
    regression(jnp.stack([jnp.ones(N), mom_hs, mom_iq], -1), kid_score, dist.HalfCauchy(2.5))


def gaussian_mixture(N, y):
    """y_n ~ theta N(mu_1, sigma_1) + (1 - theta) N(mu_2, sigma_2),  mu ~ N(0, 2) in order,  sigma ~ HalfNormal(2)"""
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    mu = numpyro.sample("mu", flat(constraints.ordered_vector, (2,)))
    numpyro.factor("prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    theta = numpyro.sample("theta", dist.Beta(5.0, 5.0))
    with numpyro.plate("points", N):
        second = numpyro.sample("second", dist.Bernoulli(1 - theta), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(mu[second], sigma[second]), obs=y)


def _mesquite(scaled, N, weight, diam1, diam2, canopy_height, total_height, density, group):
    columns = [scaled(x) for x in (diam1, diam2, canopy_height, total_height, density)]
    regression(jnp.stack([jnp.ones(N), *columns, group], -1), scaled(weight))


def mesquite(**data):
    _mesquite(jnp.asarray, **data)


def log_mesquite(**data):
    _mesquite(jnp.log, **data)


def nes(N, partyid7, real_ideo, race_adj, educ1, gender, income, age_discrete, **_):
    ages = [(age_discrete == i) * 1.0 for i in (2, 3, 4)]
    regression(jnp.stack([jnp.ones(N), real_ideo, race_adj, *ages, educ1, gender, income], -1), partyid7)


def blr(N, D, X, y):
    """y ~ N(X beta, sigma),  beta ~ N(0, 10),  sigma ~ HalfNormal(10)"""
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([D]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(10.0))
    with numpyro.plate("rows", N):
        numpyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)


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
"""By the name of the posterior."""
