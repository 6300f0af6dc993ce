"""Natural gradients: a step of size one is exact where the model is conjugate, whatever the guide's parameters are.

Expected values are the conjugate posteriors of textbooks, and of linear regression; the objectives have no noise, being sums over
finite supports, quadratures, or formulas of the guide's parameters.
"""

import jax
import numpy as np
import pytest

import ppvi
from ppvi.objectives import elbo
from ppvi.optimizers import Natural
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, on, ppl, xp

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
ONE = Natural(1.0, trust=None, damping=0.0)
Y = np.array([1.2, 0.4, 2.1, 1.7], np.float32)
COUNTS = np.array([3.0, 5.0, 0.0, 2.0, 4.0], np.float32)
KINDS = np.array([0, 2, 2, 1, 2])
PRIOR, NOISE = (0.5, 2.0), 0.5
PRECISION = 1 / PRIOR[1] ** 2 + len(Y) / NOISE**2
LOC = (PRIOR[0] / PRIOR[1] ** 2 + Y.sum() / NOISE**2) / PRECISION


def after(engine, bound, optimizer=ONE, steps=1, args=(Y,), **options):
    arrays = [engine.array(x) for x in args]
    return engine.vi.fit(bound, engine.key(0), *arrays, num_steps=steps, optimizer=optimizer, progress=False, **options)


def value(x):
    return np.asarray(x.detach() if hasattr(x, "detach") else x)


def positive(name, x):
    return ppl.param(name, xp.array(x), constraint=dist.constraints.positive)


def normal_model(y):
    loc = ppl.sample("loc", dist.Normal(xp.array(PRIOR[0]), xp.array(PRIOR[1])))
    with ppl.plate("data", len(y)):
        ppl.sample("y", dist.Normal(loc, xp.array(NOISE)), obs=y)


def by_arguments(y):
    ppl.sample("loc", dist.Normal(ppl.param("m", xp.array(-0.3)), positive("s", 0.7)))


def by_logarithm(y):
    ppl.sample("loc", dist.Normal(ppl.param("m", xp.array(-0.3)), xp.exp(ppl.param("log_s", xp.array(-0.3)))))


def by_known_scale(y):
    ppl.sample("loc", dist.Normal(2 * ppl.param("m", xp.array(-0.3)), xp.array(PRECISION**-0.5)))


QUADRATURE = {"loc": ppvi.strategies.Quadrature(64)}


@each_engine
def test_a_normal_is_exact_after_one_step(engine):
    with on(engine):
        fit = after(engine, engine.vi.objective(elbo, normal_model, by_arguments, strategies=QUADRATURE))
    np.testing.assert_allclose(value(fit.params["m"]), LOC, rtol=1e-5)
    np.testing.assert_allclose(value(fit.params["s"]), PRECISION**-0.5, rtol=1e-5)


@each_engine
def test_a_location_that_is_computed_is_exact_after_one_step(engine):
    """The mean is linear in the parameter, and the scale that of the posterior."""
    with on(engine):
        fit = after(engine, engine.vi.objective(elbo, normal_model, by_known_scale, strategies=QUADRATURE))
    np.testing.assert_allclose(2 * value(fit.params["m"]), LOC, rtol=1e-5)


@each_engine
def test_a_step_of_computed_arguments_is_fishers(engine):
    """With log s the Fisher matrix is diag(1 / s^2, 2), and the gradient known."""
    with on(engine):
        bound = engine.vi.objective(elbo, normal_model, by_logarithm, strategies=QUADRATURE)
        fit = after(engine, bound, Natural(0.01, trust=None, damping=0.0))
    s = np.exp(-0.3)
    np.testing.assert_allclose(value(fit.params["m"]), -0.3 + 0.01 * s**2 * PRECISION * (LOC + 0.3), rtol=1e-4)
    np.testing.assert_allclose(value(fit.params["log_s"]), -0.3 + 0.01 * (1 - PRECISION * s**2) / 2, rtol=1e-4)


X = np.array([[1.0, 2.0], [1.0, -1.0], [1.0, 0.5], [1.0, 3.0]])
REGRESSION = np.eye(2) / 4 + X.T @ X


def regression(y):
    w = ppl.sample("w", dist.Normal(xp.array(np.zeros(2, np.float32)), xp.array(2.0)).to_event(1))
    with ppl.plate("data", len(y)):
        ppl.sample("y", dist.Normal(xp.array(X.astype(np.float32)) @ w, xp.array(1.0)), obs=y)


START = np.array([[0.5, 0.0], [0.3, 0.2]], np.float32)


def matrix(y):
    loc = ppl.param("m", xp.array(np.ones(2, np.float32)))
    factor = ppl.param("factor", xp.array(START), constraint=dist.constraints.lower_cholesky)
    ppl.sample("w", dist.MultivariateNormal(loc, scale_tril=factor))


def formula(p, q):
    """The ELBO of the regression, up to a constant."""
    q.simulate()
    loc, factor = ppl.param("m"), ppl.param("factor")
    precision, pull = xp.array(REGRESSION.astype(np.float32)), xp.array((X.T @ Y).astype(np.float32))
    spread = (precision * (factor @ factor.T)).sum()
    return pull @ loc - (loc @ (precision @ loc) + spread) / 2 + xp.log(factor[0, 0] * factor[1, 1])


@each_engine
def test_a_linear_regression_is_exact_after_one_step(engine):
    with on(engine):
        fit = after(engine, engine.vi.objective(formula, regression, matrix))
    factor = value(fit.params["factor"])
    np.testing.assert_allclose(value(fit.params["m"]), np.linalg.solve(REGRESSION, X.T @ Y), rtol=1e-4)
    np.testing.assert_allclose(factor, np.linalg.cholesky(np.linalg.inv(REGRESSION)), rtol=1e-4, atol=1e-6)


def coins(y):
    p = ppl.sample("p", dist.Beta(xp.array(2.0), xp.array(1.5)))
    with ppl.plate("data", len(y)):
        ppl.sample("y", dist.Bernoulli(p), obs=y)


def beta(y):
    ppl.sample("p", dist.Beta(positive("a", 3.0), positive("b", 0.8)))


def rates(y):
    rate = ppl.sample("rate", dist.Gamma(xp.array(2.0), xp.array(1.5)))
    with ppl.plate("data", len(y)):
        ppl.sample("y", dist.Poisson(rate), obs=y)


def gamma(y):
    ppl.sample("rate", dist.Gamma(positive("a", 3.0), positive("b", 0.8)))


def shares(y):
    p = ppl.sample("p", dist.Dirichlet(xp.array(np.array([2.0, 1.0, 0.5], np.float32))))
    with ppl.plate("data", len(y)):
        ppl.sample("y", dist.Categorical(p), obs=y)


def dirichlet(y):
    ppl.sample("p", dist.Dirichlet(positive("a", np.array([1.0, 3.0, 0.8], np.float32))))


COINS = np.array([1.0, 0.0, 1.0, 1.0], np.float32)
PRIOR_SHARES = np.array([2.0, 1.0, 0.5], np.float32)


def with_dirichlet(p, q):
    """The ELBO of `shares`, up to a constant, by the means of log p."""
    q.simulate()
    a = ppl.param("a")
    special = jax.scipy.special if isinstance(a, jax.Array) else a.new_zeros(0)
    digamma, gammaln = (
        (special.digamma, special.gammaln) if isinstance(a, jax.Array) else (type(a).digamma, type(a).lgamma)
    )
    known = xp.array(PRIOR_SHARES + np.array([1, 1, 3], np.float32))
    return ((known - a) * (digamma(a) - digamma(a.sum()))).sum() + gammaln(a).sum() - gammaln(a.sum())


LINE = {name: ppvi.strategies.Quadrature(256) for name in ("p", "rate")}


@each_engine
def test_a_coin_is_exact_after_one_step(engine):
    with on(engine):
        fit = after(engine, engine.vi.objective(elbo, coins, beta, strategies={"p": LINE["p"]}), args=(COINS,))
    np.testing.assert_allclose(value(fit.params["a"]), 2.0 + COINS.sum(), rtol=1e-3)
    np.testing.assert_allclose(value(fit.params["b"]), 1.5 + 4 - COINS.sum(), rtol=1e-3)


@each_engine
def test_a_rate_is_exact_after_one_step(engine):
    with on(engine):
        fit = after(engine, engine.vi.objective(elbo, rates, gamma, strategies={"rate": LINE["rate"]}), args=(COUNTS,))
    np.testing.assert_allclose(value(fit.params["a"]), 2.0 + COUNTS.sum(), rtol=1e-3)
    np.testing.assert_allclose(value(fit.params["b"]), 1.5 + 5, rtol=1e-3)


@each_engine
def test_shares_are_exact_after_one_step(engine):
    with on(engine):
        fit = after(engine, engine.vi.objective(with_dirichlet, shares, dirichlet), args=(KINDS,))
    np.testing.assert_allclose(value(fit.params["a"]), PRIOR_SHARES + [1, 1, 3], rtol=1e-4)


WEIGHTS, PLACES = np.array([0.2, 0.5, 0.3], np.float32), np.array([-1.0, 0.5, 2.0], np.float32)


def mixture(y):
    with ppl.plate("data", len(y)):
        z = ppl.sample("z", dist.Categorical(xp.array(WEIGHTS)))
        ppl.sample("y", dist.Normal(xp.array(PLACES)[z], xp.array(NOISE)), obs=y)


def by_probs(y):
    start = xp.array(np.full((len(y), 3), 1 / 3, np.float32) + np.array([0.1, -0.1, 0.0], np.float32))
    with ppl.plate("data", len(y)):
        ppl.sample("z", dist.Categorical(ppl.param("p", start, constraint=dist.constraints.simplex)))


def by_logits(y):
    start = np.zeros((len(y), 3), np.float32) + np.array([0.3, -0.1, 0.0], np.float32)
    with ppl.plate("data", len(y)):
        ppl.sample("z", dist.Categorical(logits=ppl.param("p", xp.array(start))))


def by_network(y):
    """Logits that are linear in parameters, of which there are more than logits."""
    start = np.zeros((len(y), 3), np.float32) + np.array([0.3, -0.1, 0.0], np.float32)
    logits = ppl.param("p", xp.array(start)) + ppl.param("shift", xp.array(np.zeros(3, np.float32)))
    with ppl.plate("data", len(y)):
        ppl.sample("z", dist.Categorical(logits=logits))


RESPONSIBILITIES = WEIGHTS * np.exp(-(((Y[:, None] - PLACES) / NOISE) ** 2) / 2)
RESPONSIBILITIES /= RESPONSIBILITIES.sum(-1, keepdims=True)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


@pytest.mark.parametrize(("guide", "to_probs"), [(by_probs, np.asarray), (by_logits, softmax)])
@each_engine
def test_a_finite_site_is_exact_after_one_step(engine, guide, to_probs):
    """Plates of finite sites: coordinate ascent's responsibilities."""
    with on(engine):
        fit = after(engine, engine.vi.objective(elbo, mixture, guide, strategies={"z": ppvi.Enumerate()}))
    np.testing.assert_allclose(to_probs(value(fit.params["p"])), RESPONSIBILITIES, rtol=1e-3, atol=1e-6)


@each_engine
def test_a_singular_fisher_matrix_is_damped(engine):
    """Parameters that do the same share the step: the first order of the same change of the responsibilities."""
    small = Natural(0.001, trust=None, damping=1e-5)
    with on(engine):
        one, other = (
            after(engine, engine.vi.objective(elbo, mixture, guide, strategies={"z": ppvi.Enumerate()}), small)
            for guide in (by_logits, by_network)
        )
    found = softmax(value(other.params["p"]) + value(other.params["shift"]))
    expected, start = softmax(value(one.params["p"])), softmax(np.array([0.3, -0.1, 0.0]))
    np.testing.assert_allclose(found - start, expected - start, rtol=0.05, atol=1e-6)


def flags(y):
    with ppl.plate("data", len(y)):
        z = ppl.sample("z", dist.Bernoulli(xp.array(0.3)))
        ppl.sample("y", dist.Normal(2.0 * z, xp.array(NOISE)), obs=y)


def by_flag_probs(y):
    start = xp.array(np.linspace(0.2, 0.7, len(y)).astype(np.float32))
    with ppl.plate("data", len(y)):
        ppl.sample("z", dist.Bernoulli(ppl.param("p", start, constraint=dist.constraints.unit_interval)))


def by_flag_logits(y):
    with ppl.plate("data", len(y)):
        ppl.sample("z", dist.Bernoulli(logits=ppl.param("p", xp.array(np.linspace(-1, 1, len(y)).astype(np.float32)))))


@pytest.mark.parametrize(
    ("guide", "to_logits"), [(by_flag_probs, lambda p: np.log(p) - np.log1p(-p)), (by_flag_logits, np.asarray)]
)
@each_engine
def test_flags_are_exact_after_one_step(engine, guide, to_logits):
    with on(engine):
        fit = after(engine, engine.vi.objective(elbo, flags, guide, strategies={"z": ppvi.Enumerate()}))
    odds = np.log(0.3 / 0.7) + (Y**2 - (Y - 2.0) ** 2) / (2 * NOISE**2)
    np.testing.assert_allclose(to_logits(value(fit.params["p"])), odds, rtol=1e-3, atol=1e-3)


def events(y):
    n = ppl.sample("n", dist.Poisson(xp.array(2.0)))
    ppl.sample("y", dist.Normal(0.1 * n, xp.array(1.0)), obs=y[0])


def poisson(y):
    ppl.sample("n", dist.Poisson(positive("rate", 3.0)))


def with_rate(p, q):
    """E[n log 2] and the entropy but for E[log n!], by the mean."""
    q.simulate()
    rate = ppl.param("rate")
    return rate * float(np.log(2.0)) - rate * xp.log(rate) + rate


@each_engine
def test_the_rate_of_counts_is_exact_after_one_step(engine):
    with on(engine):
        fit = after(engine, engine.vi.objective(with_rate, events, poisson))
    np.testing.assert_allclose(value(fit.params["rate"]), 2.0, rtol=1e-5)


def two_means(y):
    a = ppl.sample("a", dist.Normal(xp.array(0.0), xp.array(2.0)))
    b = ppl.sample("b", dist.Normal(xp.array(1.0), xp.array(1.0)))
    with ppl.plate("data", len(y)):
        ppl.sample("y", dist.Normal(a + b, xp.array(NOISE)), obs=y)


def two_factors(y):
    ppl.sample("a", dist.Normal(ppl.param("m", xp.array(-0.3)), positive("s", 0.7)))
    ppl.sample("b", dist.Normal(ppl.param("l", xp.array(0.2)), positive("t", 0.4)))


@each_engine
def test_steps_in_turn_are_coordinate_ascents(engine):
    """First `a` given `b`, then `b` given the new `a`."""
    with on(engine):
        quadrature = {name: ppvi.strategies.Quadrature(64) for name in "ab"}
        bound = engine.vi.objective(elbo, two_means, two_factors, strategies=quadrature)
        fit = after(engine, [(bound, ["m", "s"]), (bound, ["l", "t"])])
    weight, found = len(Y) / NOISE**2, {name: value(x) for name, x in fit.params.items()}
    m = (Y - 0.2).sum() / NOISE**2 / (0.25 + weight)
    expected = {"m": m, "s": (0.25 + weight) ** -0.5}
    expected |= {"l": (1.0 + (Y - m).sum() / NOISE**2) / (1 + weight), "t": (1 + weight) ** -0.5}
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, rtol=1e-4, err_msg=name)


ROWS = np.array([0.4, -1.2, 2.0, 0.9, -0.3, 1.1], np.float32)


def by_rows(x):
    with ppl.plate("rows", 6, subsample_size=2) as rows:
        z = ppl.sample("z", dist.Normal(xp.array(0.0), xp.array(1.0)))
        ppl.sample("x", dist.Normal(z, xp.array(1.0)), obs=x[rows])


def local(x):
    locs = ppl.param("locs", xp.array(np.full(6, 5.0, np.float32)))
    with ppl.plate("rows", 6, subsample_size=2) as rows:
        ppl.sample("z", dist.Normal(locs[rows], xp.array(np.float32(0.5**0.5))))


def test_rows_of_a_minibatch_are_exact_after_one_step():
    """The posterior of a row is N(x / 2, 1 / 2); each counts three times, in the gradient and in the Fisher matrix."""
    with on(NUMPYRO):
        bound = NUMPYRO.vi.objective(elbo, by_rows, local, strategies={"z": ppvi.strategies.Quadrature(64)})
        fit = after(NUMPYRO, bound, Natural(1.0, trust=None, damping=1e-6), args=(ROWS,))
    found = value(fit.params["locs"])
    moved = np.abs(found - 5.0) > 1e-3
    assert moved.sum() == 2
    np.testing.assert_allclose(found[moved], ROWS[moved] / 2, atol=1e-4)


@pytest.mark.skipif(PYRO is None, reason="Pyro is not installed")
def test_rows_that_pyro_draws_are_refused():
    with on(PYRO):
        bound = PYRO.vi.objective(elbo, by_rows, local)
        with pytest.raises(ppvi.EngineError, match="'locs' has entries for the rows"):
            after(PYRO, bound, Natural(), args=(ROWS,))


def points(y):
    ppl.sample("loc", dist.Delta(ppl.param("m", xp.array(0.3))))


def constant(y):
    ppl.param("unused", xp.array(0.0))
    ppl.sample("loc", dist.Normal(xp.array(0.0), xp.array(1.0)))


def learned_model(y):
    loc = ppl.sample("loc", dist.Normal(ppl.param("prior", xp.array(0.5)), xp.array(2.0)))
    with ppl.plate("data", len(y)):
        ppl.sample("y", dist.Normal(loc, xp.array(NOISE)), obs=y)


@pytest.mark.parametrize(
    ("given", "guide", "optimizer", "words"),
    [
        (normal_model, points, Natural(), "this guide has none: its sites are points"),
        (normal_model, constant, Natural(), "those of its sites 'loc' depend on no parameter"),
        (normal_model, by_arguments, Natural, "Natural is a class; write optimizer=Natural()"),
    ],
    ids=["points", "constant", "class"],
)
@each_engine
def test_what_it_cannot_move_is_said(engine, given, guide, optimizer, words):
    with on(engine):
        bound = engine.vi.objective(elbo, given, guide)
        with pytest.raises(ppvi.ProgramError, match="fit: ") as caught:
            after(engine, bound, optimizer)
    assert words in str(caught.value)


@each_engine
def test_of_several_objectives_each_has_its_own(engine):
    with on(engine):
        bound = engine.vi.objective(elbo, learned_model, by_arguments)
        pairs = [(bound, "model"), (bound, "guide")]
        with pytest.raises(ppvi.ProgramError, match=r"optimizer=\[0.01, Natural\("):
            after(engine, pairs, Natural())
        fit = after(engine, pairs, [0.01, Natural()])
    assert [line.split(",")[0] for line in fit.moved] == [
        "Natural: site 'loc' ~ Normal: updated in natural coordinates"
    ]


@each_engine
def test_it_says_what_is_moved_how(engine):
    with on(engine):
        bound = engine.vi.objective(elbo, learned_model, by_logarithm)
        fit = after(engine, bound, Natural())
        curved, rest = fit.moved
        assert fit.explain().endswith(rest)
    named, _, how = curved.removeprefix("Natural: ").partition(": ")
    assert set(named.split(", ")) == {"'m'", "'log_s'"}
    assert how.startswith("updated along the natural gradient in unconstrained coordinates, because code of the guide")
    assert rest == "Natural: 'prior': moved by Adam, because they reach no distribution of the guide"


@pytest.mark.parametrize(
    "options", [{"step_size": 0.0}, {"step_size": -1}, {"trust": 0}, {"damping": -1}, {"decay": 0}, {"iterations": 0}]
)
def test_numbers_that_make_no_sense(options):
    with pytest.raises(ppvi.ProgramError, match=f"Natural: {next(iter(options))}"):
        Natural(**options)
