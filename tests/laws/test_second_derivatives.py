"""Second derivatives of surrogates: those of the objective in the mean, at each key where nothing is drawn, or refused by name.

Truths are sums over all values and Gauss-Hermite quadrature, differentiated twice by JAX.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ppvi
import ppvi.numpyro as vi
from ppvi.strategies import Antithetic, Quadrature, RunningMean, Stratified, SumAndSample

KEYS = jax.random.split(jax.random.key(0), 20_000)
Y = jnp.array([0.5, -1.0, 2.0])
START = {"a": jnp.asarray(-0.1), "b": jnp.asarray(0.3)}


def model():
    k = numpyro.sample("k", dist.Bernoulli(0.4))
    j = numpyro.sample("j", dist.Bernoulli(0.3 + 0.2 * k))
    with numpyro.plate("data", 3):
        numpyro.sample("y", dist.Normal(k + 0.5 * j, 1.0), obs=Y)


def guide():
    k = numpyro.sample("k", dist.Bernoulli(logits=numpyro.param("a", 0.0)))
    numpyro.sample("j", dist.Bernoulli(logits=numpyro.param("b", 0.0) + 0.7 * k))


def finite_elbo(params):
    total = 0.0
    for k in (0.0, 1.0):
        for j in (0.0, 1.0):
            log_q = jax.nn.log_sigmoid((2 * k - 1) * params["a"])
            log_q += jax.nn.log_sigmoid((2 * j - 1) * (params["b"] + 0.7 * k))
            p_j = 0.3 + 0.2 * k
            log_p = jnp.log(0.4 if k else 0.6) + jnp.log(p_j if j else 1 - p_j)
            log_p += jnp.sum(-((Y - k - 0.5 * j) ** 2) / 2) - 1.5 * jnp.log(2 * jnp.pi)
            total += jnp.exp(log_q) * (log_p - log_q)
    return total


SECOND = {
    "hessian of the surrogate": lambda b, key: jax.hessian(lambda p: b.surrogate(key, p)),
    "gradient of the gradient": lambda b, key: jax.jacrev(lambda p: b.value_and_grad(key, p)[1]),
    "derivative of the gradient": lambda b, key: jax.jacfwd(lambda p: b.value_and_grad(key, p)[1]),
}


def flat(tree):
    return jnp.stack(jax.tree.leaves(tree))


@pytest.mark.parametrize("how", SECOND)
@pytest.mark.parametrize(
    "strategies",
    [
        (ppvi.Enumerate(), ppvi.Enumerate()),
        (ppvi.Reinforce(), ppvi.Enumerate()),
        (ppvi.Enumerate(sequential=True), ppvi.Reinforce(baseline=1.5)),
        (SumAndSample(), ppvi.Reinforce()),
    ],
    ids=str,
)
def test_of_finite_sites(strategies, how):
    b = vi.objective(ppvi.objectives.elbo, model, guide, strategies=dict(zip("kj", strategies, strict=True)))
    want = flat(jax.hessian(finite_elbo)(START))
    exact = all(isinstance(strategy, ppvi.Enumerate) for strategy in strategies)
    found = jax.jit(jax.vmap(lambda key: flat(SECOND[how](b, key)(START))))(KEYS[:1] if exact else KEYS)
    error = 1e-5 if exact else 5 * found.std(0) / len(KEYS) ** 0.5
    assert (abs(found.mean(0) - want) < error + 1e-5).all(), (found.mean(0), want)


def normal():
    numpyro.sample("z", dist.Normal(numpyro.param("a", 0.0), jnp.exp(numpyro.param("b", 0.0))))


def smooth(p, q):
    return jnp.sin(2 * q.simulate()["z"])


def smooth_mean(params):
    x, w = np.polynomial.hermite_e.hermegauss(60)
    return jnp.sum(w * jnp.sin(2 * (params["a"] + jnp.exp(params["b"]) * x))) / np.sqrt(2 * np.pi)


@pytest.mark.parametrize(
    "strategy", [ppvi.Reparam(), Quadrature(), Stratified(3), Antithetic(), ppvi.Reinforce()], ids=str
)
def test_of_a_normal(strategy):
    b = vi.objective(smooth, lambda: None, normal, strategies={"z": strategy})
    want = flat(jax.hessian(smooth_mean)(START))
    found = jax.jit(jax.vmap(lambda key: flat(jax.hessian(lambda p: b.surrogate(key, p))(START))))(KEYS)
    assert (abs(found.mean(0) - want) < 5 * found.std(0) / len(KEYS) ** 0.5 + 1e-3).all(), (found.mean(0), want)


@pytest.mark.parametrize(
    "f",
    [jax.nn.softplus, lambda z: jnp.logaddexp(z, 2 * z), lambda z: jax.nn.logsumexp(jnp.stack([z, 0.5 * z, 1.0]))],
    ids=["softplus", "logaddexp", "log-sum-exp"],
)
def test_of_what_is_smooth_though_its_code_has_kinks(f):
    b = vi.objective(lambda p, q: f(q.simulate()["z"]), lambda: None, normal)

    def mean(params):
        x, w = np.polynomial.hermite_e.hermegauss(60)
        return jnp.sum(w * jax.vmap(f)(params["a"] + jnp.exp(params["b"]) * x)) / np.sqrt(2 * np.pi)

    want = flat(jax.hessian(mean)(START))
    found = jax.jit(jax.vmap(lambda key: flat(jax.hessian(lambda p: b.surrogate(key, p))(START))))(KEYS)
    assert (abs(found.mean(0) - want) < 5 * found.std(0) / len(KEYS) ** 0.5 + 1e-3).all(), (found.mean(0), want)


def test_the_first_derivative_is_as_it_was():
    """What makes the second right adds nothing to the first: (log p - log q) dlog q, without the derivative of log q itself."""

    def coin():
        numpyro.sample("k", dist.Bernoulli(0.4))

    def coin_guide():
        numpyro.sample("k", dist.Bernoulli(logits=numpyro.param("a", 0.0)))

    b = vi.objective(ppvi.objectives.elbo, coin, coin_guide, strategies={"k": ppvi.Reinforce()})
    p, a = jnp.array([0.6, 0.4]), START["a"]
    log_q = jax.nn.log_sigmoid(jnp.array([-a, a]))
    values, slopes = jnp.log(p) - log_q, (jnp.log(p) - log_q) * (jnp.arange(2) - jax.nn.sigmoid(a))
    for key in KEYS[:8]:
        value, slope = b.value_and_grad(key, {"a": a})
        drawn = int(jnp.argmin(abs(values - value)))
        assert float(slope["a"]) == pytest.approx(float(slopes[drawn]), rel=1e-5)


REFUSED = {
    "a strategy": (smooth, ppvi.LeaveOneOut(), r"LeaveOneOut\(\) at site 'z'"),
    "measures": (smooth, ppvi.MeasureValued(), r"MeasureValued\(\) at site 'z'"),
    "a learned baseline": (smooth, ppvi.Reinforce(RunningMean()), "RunningMean"),
    "a kink": (lambda p, q: jnp.abs(q.simulate()["z"]), ppvi.Reparam(), "a kink in the draw of site 'z'"),
    "a root": (lambda p, q: jnp.sqrt(q.simulate()["z"] ** 2), ppvi.Reparam(), "a kink in the draw of site 'z'"),
    "a power": (lambda p, q: (q.simulate()["z"] ** 2) ** 0.5, ppvi.Reparam(), "a kink in the draw of site 'z'"),
    "a stop": (
        lambda p, q: jax.lax.stop_gradient(jnp.exp(q.simulate()["z"])) * q.simulate()["z"],
        ppvi.Reparam(),
        r"held constant at tests/laws/test_second_derivatives\.py:\d+",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    program, strategy, words = REFUSED[name]
    b = vi.objective(program, lambda: None, normal, strategies={"z": strategy})
    for second in SECOND.values():
        with pytest.raises(ppvi.StrategyError, match=words):
            second(b, KEYS[0])(START)
    b.value_and_grad(KEYS[0], START)


def test_sticking_the_landing_is_refused():
    b = vi.objective(ppvi.objectives.stl, lambda: numpyro.sample("z", dist.Normal(0.0, 1.0)), normal)
    with pytest.raises(ppvi.StrategyError, match="held constant"):
        jax.hessian(lambda p: b.surrogate(KEYS[0], p))(START)
