"""Constructs of both libraries: distributions, by their densities at data and by what is drawn from them."""

import numpy as np
import numpyro.distributions
import pyro.distributions
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.special import betaln, expit, gammaln
from scipy.stats import norm

from tests.conformance.constructs import Refusal, Row, cases, nothing, refusal, wrong
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, nn, ppl, xp

SLOW = pytest.mark.slow
AB = dict(a=0.4, b=1.3)
THREE = np.array([0.5, 1.2, 0.3])
COUNTS = np.array([0.0, 3.0, 1.0])
MATRIX = np.array([[1.0, 0.0, 0.0], [0.3, 0.9, 0.0], [-0.2, 0.4, 1.1]])


def given(name, make, x, exact, params=AB, engines=ENGINES, plate=True):
    """A distribution of parameters, at data."""

    def program():
        def model():
            fn = make(**{k: ppl.param(k) for k in params})
            if plate and fn.batch_shape:
                with ppl.plate("rows", fn.batch_shape[-1]):
                    ppl.sample("x", fn, obs=xp.array(x))
            else:
                ppl.sample("x", fn, obs=xp.array(x))

        return model, nothing

    return Row(name, program, exact, params, engines)


def each(make):
    """In a plate of three."""
    return lambda **p: make(**p).expand([3])


def mixed(weight, *logs):
    return np.logaddexp(np.log(weight) + logs[0], np.log1p(-weight) + logs[1]).sum()


def mixture_weights(w):
    return dist.Categorical(probs=xp.stack([w, 1 - w]))


def lkj_log(r, eta):
    """Lewandowski et al. 2009, of a 2 x 2 matrix of correlation r."""
    return (eta - 1) * np.log(1 - r**2) - (2 * eta - 1) * np.log(2) - betaln(eta, eta)


R = 0.6
CORRELATION = np.array([[1.0, R], [R, 1.0]])
FACTOR = np.array([[1.0, 0.0], [R, 0.8]])


def zero_inflated(log_pmf, gate):
    return np.where(COUNTS == 0, np.logaddexp(np.log(gate), np.log1p(-gate) + log_pmf), np.log1p(-gate) + log_pmf).sum()


def negative_binomial_2(mean, concentration):
    return stats.nbinom.logpmf(COUNTS, concentration, concentration / (concentration + mean))


def ordered(a, c):
    p = np.diff(np.concatenate([[0.0], expit(c - a), [1.0]]))
    return np.log(p[[0, 2, 1]]).sum()


ADJACENT = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


def car(a, t):
    precision = t * (np.diag(ADJACENT.sum(0)) - a * ADJACENT)
    return stats.multivariate_normal.logpdf(THREE, np.zeros(3), np.linalg.inv(precision))


def dirichlet_multinomial(c):
    n = COUNTS.sum()
    return (
        gammaln(c.sum())
        + gammaln(n + 1)
        - gammaln(n + c.sum())
        + (gammaln(COUNTS + c) - gammaln(c) - gammaln(COUNTS + 1)).sum()
    )


def multinomial(l):  # noqa: E741
    return gammaln(5) - gammaln(COUNTS + 1).sum() + (COUNTS * (l - np.log(np.exp(l).sum()))).sum()


def student(df, loc):
    return stats.multivariate_t.logpdf(THREE, loc, MATRIX @ MATRIX.T, df)


def log_sin(a, b):
    return norm.logpdf(np.log(THREE), a, b).sum() - np.log(THREE).sum()


def stick_breaking(m):
    """z_i = y_i / (1 - what is left before), of logits x_i - log(K - i); the density is by the Jacobian of logits."""
    y = np.array([0.2, 0.5, 0.3])
    left = 1 - np.concatenate([[0.0], np.cumsum(y)[:-1]])[:2]
    z = y[:2] / left
    x = np.log(z / (1 - z)) + np.log([2.0, 1.0])
    return norm.logpdf(x, m).sum() - (np.log(z) + np.log1p(-z) + np.log(left)).sum()


GIVEN = [
    given("Delta in the model", lambda a: dist.Delta(xp.array(0.5), log_density=a, event_dim=0), 0.5, lambda a: a, dict(a=0.4)),
    given("Delta of a vector", lambda a: dist.Delta(xp.array(THREE), log_density=a, event_dim=1), THREE, lambda a: a, dict(a=0.4)),
    given("LKJ", lambda a: dist.LKJ(2, a), CORRELATION, lambda a: lkj_log(R, a), dict(a=1.7)),
    given("LKJCholesky", lambda a: dist.LKJCholesky(2, a), FACTOR, lambda a: lkj_log(R, a), dict(a=1.7)),
    given("ZeroInflatedPoisson", lambda g, r: dist.ZeroInflatedPoisson(gate=g, rate=r).expand([3]), COUNTS, lambda g, r: zero_inflated(stats.poisson.logpmf(COUNTS, r), g), dict(g=0.3, r=1.4)),
    given("ZeroInflatedNegativeBinomial2", lambda g, m, c: dist.ZeroInflatedNegativeBinomial2(m, c, gate=g).expand([3]), COUNTS, lambda g, m, c: zero_inflated(negative_binomial_2(m, c), g), dict(g=0.3, m=1.4, c=2.2), (NUMPYRO,)),
    given("ZeroInflatedNegativeBinomial", lambda g, m, c: dist.ZeroInflatedNegativeBinomial(c, probs=m, gate=g).expand([3]), COUNTS, lambda g, m, c: zero_inflated(stats.nbinom.logpmf(COUNTS, c, 1 - m), g), dict(g=0.3, m=0.4, c=2.2), (PYRO,)),
    given("ZeroInflatedDistribution", lambda g, r: dist.ZeroInflatedDistribution(dist.Geometric(probs=r), gate=g).expand([3]), COUNTS, lambda g, r: zero_inflated(stats.geom.logpmf(COUNTS + 1, r), g), dict(g=0.3, r=0.4)),
    given("LeftCensoredDistribution", lambda a, b: dist.LeftCensoredDistribution(dist.Normal(a, b), xp.array([1, 0, 1])), THREE, lambda a, b: norm.logcdf(THREE[[0, 2]], a, b).sum() + norm.logpdf(1.2, a, b), AB, (NUMPYRO,)),
    given("RightCensoredDistribution", lambda a, b: dist.RightCensoredDistribution(dist.Normal(a, b), xp.array([1, 0, 1])), THREE, lambda a, b: norm.logsf(THREE[[0, 2]], a, b).sum() + norm.logpdf(1.2, a, b), AB, (NUMPYRO,)),
    given("TruncatedNormal", lambda a, b: dist.TruncatedNormal(a, b, low=0.1, high=2.0).expand([3]), THREE, lambda a, b: norm.logpdf(THREE, a, b).sum() - 3 * np.log(norm.cdf(2.0, a, b) - norm.cdf(0.1, a, b)), AB, (NUMPYRO,)),
    given("TruncatedDistribution", lambda a, b: dist.TruncatedDistribution(dist.Cauchy(a, b), low=xp.array(0.1)).expand([3]), THREE, lambda a, b: stats.cauchy.logpdf(THREE, a, b).sum() - 3 * stats.cauchy.logsf(0.1, a, b), AB, (NUMPYRO,)),
    given("MixtureSameFamily", lambda w, a, b: dist.MixtureSameFamily(mixture_weights(w), dist.Normal(xp.stack([a, b]), 1.0)).expand([3]), THREE, lambda w, a, b: mixed(w, norm.logpdf(THREE, a), norm.logpdf(THREE, b)), dict(w=0.3, **AB)),
    given("MixtureGeneral", lambda w, a, b: dist.MixtureGeneral(mixture_weights(w), [dist.Normal(a, 1.0), dist.Laplace(b, 1.0)]).expand([3]), THREE, lambda w, a, b: mixed(w, norm.logpdf(THREE, a), stats.laplace.logpdf(THREE, b)), dict(w=0.3, **AB), (NUMPYRO,)),
    given("MaskedDistribution", lambda a, b: dist.Normal(a, b).expand([3]).mask(xp.array([True, False, True])), THREE, lambda a, b: norm.logpdf(THREE[[0, 2]], a, b).sum()),
    given("Independent and Expanded", lambda a, b: dist.Normal(a, b).expand([3]).to_event(1), THREE, lambda a, b: norm.logpdf(THREE, a, b).sum()),
    given("TransformedDistribution affine and exp", lambda a, b: dist.TransformedDistribution(dist.Normal(xp.zeros(3), 1.0), [dist.transforms.AffineTransform(a, b), dist.transforms.ExpTransform()]), THREE, lambda a, b: log_sin(a, b)),
    given("TransformedDistribution StickBreaking", lambda m: dist.TransformedDistribution(dist.Normal(m, 1.0).to_event(1), [dist.transforms.StickBreakingTransform()]), np.array([0.2, 0.5, 0.3]), lambda m: stick_breaking(m), dict(m=[0.3, -0.4])),
    given("FoldedDistribution", lambda a, b: dist.FoldedDistribution(dist.Normal(a, b)).expand([3]), THREE, lambda a, b: np.logaddexp(norm.logpdf(THREE, a, b), norm.logpdf(-THREE, a, b)).sum()),
    given("VonMises", lambda a, b: dist.VonMises(a, b).expand([3]), THREE, lambda a, b: stats.vonmises.logpdf(THREE, b, a).sum()),
    given("GaussianRandomWalk", lambda b: dist.GaussianRandomWalk(b, num_steps=3), THREE, lambda b: norm.logpdf(np.diff(THREE, prepend=0.0), 0.0, b).sum(), dict(b=1.3), (NUMPYRO,)),
    given("MultivariateStudentT", lambda d, m: dist.MultivariateStudentT(d, m, xp.array(MATRIX)), THREE, lambda d, m: student(float(d), m), dict(d=5.0, m=[0.1, 0.2, -0.4])),
    given("Dirichlet", lambda c: dist.Dirichlet(c), np.array([0.2, 0.5, 0.3]), lambda c: gammaln(c.sum()) - gammaln(c).sum() + ((c - 1) * np.log([0.2, 0.5, 0.3])).sum(), dict(c=[1.2, 0.7, 2.0])),
    given("Multinomial", lambda l: numpyro.distributions.Multinomial(4, logits=l), COUNTS, multinomial, dict(l=[0.2, -0.3, 0.5]), (NUMPYRO,)),  # noqa: E741
    given("Multinomial", lambda l: pyro.distributions.Multinomial(4, logits=l), COUNTS, multinomial, dict(l=[0.2, -0.3, 0.5]), (PYRO,)),  # noqa: E741
    given("DirichletMultinomial", lambda c: dist.DirichletMultinomial(c, total_count=4), COUNTS, dirichlet_multinomial, dict(c=[1.2, 0.7, 2.0])),
    given("BetaBinomial", lambda a, b: dist.BetaBinomial(a, b, total_count=4).expand([3]), COUNTS, lambda a, b: stats.betabinom.logpmf(COUNTS, 4, a, b).sum()),
    given("GammaPoisson", lambda a, b: dist.GammaPoisson(a, b).expand([3]), COUNTS, lambda a, b: stats.nbinom.logpmf(COUNTS, a, b / (1 + b)).sum()),
    given("NegativeBinomial2", lambda m, c: dist.NegativeBinomial2(m, c).expand([3]), COUNTS, lambda m, c: negative_binomial_2(m, c).sum(), dict(m=1.4, c=2.2), (NUMPYRO,)),
    given("NegativeBinomial", lambda m, c: dist.NegativeBinomial(c, probs=m).expand([3]), COUNTS, lambda m, c: stats.nbinom.logpmf(COUNTS, c, 1 - m).sum(), dict(m=0.4, c=2.2)),
    given("OrderedLogistic", lambda a, c: dist.OrderedLogistic(a + xp.zeros(3), c), np.array([0, 2, 1]), ordered, dict(a=0.4, c=[-0.5, 0.9])),
    given("CAR", lambda a, t: dist.CAR(xp.zeros(3), a, t, xp.array(ADJACENT)), THREE, car, dict(a=0.4, t=1.3), (NUMPYRO,)),
    given("EulerMaruyama", lambda a, b: dist.EulerMaruyama(xp.arange(3) * 0.5, lambda x, t: (-a * x, b + 0.0 * x), dist.Normal(0.0, 1.0)), THREE, lambda a, b: norm.logpdf(0.5) + norm.logpdf(THREE[1:], THREE[:-1] * (1 - 0.5 * a), b * 0.5**0.5).sum(), AB, (NUMPYRO,)),
]  # fmt: skip


def censored_by_factor():
    def model():
        a, b = ppl.param("a"), ppl.param("b")
        with ppl.plate("rows", 3):
            ppl.factor("censored", nn.log_ndtr((a - xp.array(THREE)) / b))

    return model, nothing


def horseshoe():
    """Half-Cauchy scales within a half-Cauchy scale, and coefficients of both."""

    def model():
        tau = ppl.sample("tau", dist.HalfCauchy(xp.array(1.0)))
        with ppl.plate("rows", 3):
            scale = ppl.sample("lam", dist.HalfCauchy(xp.array(1.0)))
            w = ppl.sample("w", dist.Normal(0.0, tau * scale))
            ppl.sample("x", dist.Normal(w, 1.0), obs=THREE)

    def guide():
        ppl.sample("tau", dist.Delta(ppl.param("t")))
        with ppl.plate("rows", 3):
            ppl.sample("lam", dist.Delta(ppl.param("l")))
            ppl.sample("w", dist.Delta(ppl.param("w_at")))

    return model, guide


def of_horseshoe(t, l, w_at):  # noqa: E741
    scales = stats.halfcauchy.logpdf(t) + stats.halfcauchy.logpdf(l).sum()
    return scales + norm.logpdf(w_at, 0.0, t * l).sum() + norm.logpdf(THREE, w_at).sum()


PROGRAMS = [
    Row("censored by a factor", censored_by_factor, lambda a, b: norm.logsf(THREE, a, b).sum(), AB),
    Row("horseshoe", horseshoe, of_horseshoe, dict(t=0.7, l=[0.5, 1.2, 0.9], w_at=[0.3, -0.4, 1.0])),
]


@pytest.mark.parametrize(("row", "engine"), cases(GIVEN + PROGRAMS))
def test_density_is_right(row, engine):
    assert wrong(row, engine) == []


# Drawn by the guide -------------------------------------------------------------------------------------------------------


def drawn(name, make, density, low, high, params=AB, engines=ENGINES, marks=()):
    """A distribution of one real number in the guide, where the model has exp(-z^2 / 2 + z / 3)."""

    def program():
        def model():
            z = ppl.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
            ppl.factor("f", -0.5 * z**2 + z / 3)

        def guide():
            ppl.sample("z", make(**{k: ppl.param(k) for k in params}))

        return model, guide

    def exact(**p):
        def entry(z):
            q = density(z, **p)
            return q * (-0.5 * z**2 + z / 3 - np.log(q)) if q > 0 else 0.0

        return quad(entry, low, high, limit=500, epsabs=1e-11, epsrel=1e-11)[0]

    return Row(name, program, exact, params, engines, draws=1000, marks=marks)


DRAWN = [
    drawn("TruncatedNormal", lambda a, b: dist.TruncatedNormal(a, b, low=0.1, high=2.0), lambda z, a, b: norm.pdf(z, a, b) / (norm.cdf(2.0, a, b) - norm.cdf(0.1, a, b)), 0.1, 2.0, AB, (NUMPYRO,)),
    drawn("TruncatedDistribution", lambda a, b: dist.TruncatedDistribution(dist.Normal(a, b), low=xp.array(0.1)), lambda z, a, b: norm.pdf(z, a, b) / norm.sf(0.1, a, b), 0.1, 12, AB, (NUMPYRO,)),
    drawn("MixtureSameFamily", lambda w, a, b: dist.MixtureSameFamily(mixture_weights(w), dist.Normal(xp.stack([a, b]), 1.0)), lambda z, w, a, b: w * norm.pdf(z, a) + (1 - w) * norm.pdf(z, b), -10, 10, dict(w=0.3, **AB), marks=SLOW),
    drawn("MixtureGeneral", lambda w, a, b: dist.MixtureGeneral(mixture_weights(w), [dist.Normal(a, 1.0), dist.Normal(0.0, b)]), lambda z, w, a, b: w * norm.pdf(z, a) + (1 - w) * norm.pdf(z, 0.0, b), -12, 12, dict(w=0.3, **AB), (NUMPYRO,)),
    drawn("FoldedDistribution", lambda a, b: dist.FoldedDistribution(dist.Normal(a, b)), lambda z, a, b: norm.pdf(z, a, b) + norm.pdf(-z, a, b), 0, 12, marks=SLOW),
    drawn("VonMises", lambda a, b: dist.VonMises(a, b), lambda z, a, b: stats.vonmises.pdf(z, b, a), -np.pi, np.pi, marks=SLOW),
    drawn("TransformedDistribution", lambda a, b: dist.TransformedDistribution(dist.Normal(a, b), [dist.transforms.SigmoidTransform(), dist.transforms.AffineTransform(-1.0, 2.0)]), lambda z, a, b: norm.pdf(np.log(1 + z) - np.log(1 - z), a, b) * 2 / (1 - z**2), -1.0, 1.0),
    drawn("Gamma", lambda a, b: dist.Gamma(a + 1, b), lambda z, a, b: stats.gamma.pdf(z, a + 1, scale=1 / b), 0, 60, marks=SLOW),
    drawn("StudentT", lambda a, b: dist.StudentT(xp.array(9.0), a, b), lambda z, a, b: stats.t.pdf(z, 9, a, b), -200, 200),
    drawn("SoftLaplace", lambda a, b: dist.SoftLaplace(a, b), lambda z, a, b: 1 / (np.pi * b * np.cosh((z - a) / b)), -40, 40),
]  # fmt: skip


@pytest.mark.parametrize(("row", "engine"), cases(DRAWN))
def test_draws_are_right(row, engine):
    assert wrong(row, engine) == []


def uniform_of(ends):
    def model():
        ppl.sample("z", dist.Normal(0.0, 1.0))

    def guide():
        ppl.sample("z", ends(ppl.param("b")))

    return lambda: (model, guide)


def moved(b):
    return dist.TransformedDistribution(dist.Uniform(xp.array(0.0), 1.0), [dist.transforms.AffineTransform(0.0, b)])


REFUSALS = [
    Refusal("a transform that moves the support", uniform_of(moved), ("its support moves with a parameter", "Name Reparam()"), dict(b=1.3)),
]  # fmt: skip


@pytest.mark.parametrize(("row", "engine"), cases(REFUSALS))
def test_refused(row, engine):
    said = refusal(row, engine)
    assert all(word in said for word in row.words), said
