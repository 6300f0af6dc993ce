"""Laws of programs with continuous or infinite sites: the mean of many gradients against a closed form or quadrature."""

from __future__ import annotations

import numpy as np
import pytest

from ppvi import Enumerate, LeaveOneOut, Reinforce, Reparam
from ppvi.objectives import elbo, iwelbo, renyi, vimco
from tests.engines import dist, handlers, nn, on, ppl, xp
from tests.laws.cases import Case, nothing, rows
from tests.laws.sampling import Z, check, moments


def normal_quadrature(n=60):
    """Nodes and weights for E f(e), e ~ N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return xp.asarray(nodes), xp.asarray(weights / weights.sum())


# E x^2 for x ~ N(theta, 1): theta^2 + 1, gradient 2 theta. The parameter in the distribution, in the continuation, in both. ---------


def square_guide():
    ppl.sample("x", dist.Normal(ppl.param("theta"), 1.0))


def square(p, q):
    return q.simulate()["x"] ** 2


def square_with_phi(p, q):
    return (ppl.param("phi") * q.simulate()["x"]) ** 2


def square_with_theta(p, q):
    return ppl.param("theta") * q.simulate()["x"] ** 2


CONTINUOUS = tuple({"x": s} for s in (Reparam(), Reinforce(), Reinforce(baseline=1.5), LeaveOneOut(2), LeaveOneOut(4)))


# Infinite discrete support ---------------------------------------------------------------------------------------------------------


def poisson_guide():
    with ppl.plate("lanes", 3):
        ppl.sample("x", dist.Poisson(xp.exp(ppl.param("log_rate"))))


def poisson_program(p, q):
    return xp.sum(q.simulate()["x"] ** 2)


def poisson_exact(params):
    rate = xp.exp(params["log_rate"])
    return xp.sum(rate + rate**2)


# A reparameterised site upstream of a discrete one, and a discrete one upstream of a reparameterised one ------------------------------


def mixed_guide():
    x = ppl.sample("x", dist.Normal(ppl.param("m"), 1.0))
    ppl.sample("z", dist.Bernoulli(logits=x + ppl.param("b")))


def mixed_program(p, q):
    z = q.simulate()
    return (z["z"] - 0.2) * z["x"] ** 2 + ppl.param("b") * z["x"] * z["z"]


def mixed_exact(params):
    e, w = normal_quadrature()
    x = params["m"] + e
    q = nn.sigmoid(x + params["b"])
    return w @ (q * (0.8 * x**2 + params["b"] * x) + (1 - q) * -0.2 * x**2)


def reversed_guide():
    z = ppl.sample("z", dist.Bernoulli(logits=ppl.param("b")))
    ppl.sample("x", dist.Normal(ppl.param("m") * (1 + z), 0.5 + z))


def reversed_exact(params):
    e, w = normal_quadrature()
    total = 0.0
    for z, q in ((0, nn.sigmoid(-params["b"])), (1, nn.sigmoid(params["b"]))):
        x = params["m"] * (1 + z) + (0.5 + z) * e
        total = total + q * (w @ ((z - 0.2) * x**2 + params["b"] * x * z))
    return total


PAIRS = tuple(
    {"x": x, "z": z}
    for x in (Reparam(), Reinforce(), LeaveOneOut(2))
    for z in (Enumerate(), Reinforce(), LeaveOneOut(2))
)


# IWELBO with a discrete and a continuous site ------------------------------------------------------------------------------------------


def switch_model():
    z = ppl.sample("z", dist.Bernoulli(0.4))
    x = ppl.sample("x", dist.Normal(2.0 * z, 1.0))
    ppl.sample("y", dist.Normal(x, 0.7), obs=1.3)


def switch_guide():
    z = ppl.sample("z", dist.Bernoulli(logits=ppl.param("b")))
    ppl.sample("x", dist.Normal(ppl.param("m") + z, 0.8))


def switch_bound(combine):
    """E over two particles, each a label and a normal, of combine(log w_1, log w_2)."""

    def exact(params):
        e, w = normal_quadrature(40)
        log_weights, probabilities = [], []
        for z, q in ((0.0, nn.sigmoid(-params["b"])), (1.0, nn.sigmoid(params["b"]))):
            loc = params["m"] + z
            x = loc + 0.8 * e
            log_p = xp.log(xp.where(z == 1, 0.4, 0.6)) + normal(x, 2 * z, 1.0) + normal(1.3, x, 0.7)
            log_weights.append(log_p - xp.log(q) - normal(x, loc, 0.8))
            probabilities.append(q * w)
        log_w, q = xp.concatenate(log_weights), xp.concatenate(probabilities)
        return q @ combine(log_w[:, None], log_w[None, :]) @ q

    return exact


def normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - xp.log(scale) - 0.5 * xp.log(2 * xp.pi)


def log_mean(left, right):
    return xp.logaddexp(left, right) - xp.log(2.0)


def renyi_half(left, right):
    return 2 * log_mean(0.5 * left, 0.5 * right)


SWITCH = tuple({"z": z, "x": x} for z in (Enumerate(), Reinforce(), LeaveOneOut(2)) for x in (Reparam(), Reinforce()))


# Subsampled plates and scale: FIELD rows of the score that counts N / n twice ----------------------------------------------------------

POINTS = xp.array([0.3, -1.2, 2.2, 0.9])


def subsampled(scale=1.0, subsample_size=2):
    def model():
        with handlers.scale(scale=scale), ppl.plate("data", 4, subsample_size=subsample_size) as i:
            z = ppl.sample("z", dist.Bernoulli(0.3))
            ppl.sample("y", dist.Normal(2.0 * z, 1.0), obs=xp.asarray(POINTS)[i])

    def guide():
        logits = ppl.param("logits")
        with handlers.scale(scale=scale), ppl.plate("data", 4, subsample_size=subsample_size) as i:
            ppl.sample("z", dist.Bernoulli(logits=logits[i]))

    return model, guide


def subsampled_exact(scale):
    def exact(params):
        total = 0.0
        for z in (0.0, 1.0):
            log_q = xp.log(nn.sigmoid(xp.where(z == 1, 1, -1) * params["logits"]))
            log_p = xp.log(xp.where(z == 1, 0.3, 0.7)) + normal(POINTS, 2 * z, 1.0)
            total = total + xp.sum(xp.exp(log_q) * (log_p - log_q))
        return scale * total

    return exact


SINGLE = tuple({"z": s} for s in (Enumerate(), Reinforce(), Reinforce(baseline=-4.0), LeaveOneOut(2)))
LOGITS = dict(logits=xp.array([0.2, -0.5, 0.9, 0.1]))


# A thousand lanes --------------------------------------------------------------------------------------------------------------------------


def thousand_guide():
    with ppl.plate("lanes", 1000):
        ppl.sample("z", dist.Bernoulli(logits=ppl.param("a") + xp.linspace(-1, 1, 1000)))


def thousand_program(p, q):
    return xp.mean(ppl.param("b") * (q.simulate()["z"] - 0.3) ** 2)


def thousand_exact(params):
    prob = nn.sigmoid(params["a"] + xp.linspace(-1, 1, 1000))
    return params["b"] * xp.mean(prob * 0.49 + (1 - prob) * 0.09)


# Implicit reparameterisation: E x^2 for x ~ Gamma(a, 1) is a + a^2 ----------------------------------------------------------------------


def gamma_guide():
    ppl.sample("x", dist.Gamma(ppl.param("a"), 1.0))


# A Uniform whose support moves: named Reparam is right, E x^2 on (0, b) is b^2 / 3 --------------------------------------------------------


def uniform_guide():
    ppl.sample("x", dist.Uniform(0.0, ppl.param("b")))


# A hierarchical model with a reparameterised global, whose prior must not be credited to the labels ---------------------------------------


def global_model():
    m = ppl.sample("m", dist.Normal(0.0, 1.0))
    with ppl.plate("data", 4):
        z = ppl.sample("z", dist.Bernoulli(0.3))
        ppl.sample("y", dist.Normal(m + 2.0 * z, 1.0), obs=POINTS)


def global_guide():
    ppl.sample("m", dist.Normal(ppl.param("m_loc"), 0.5))
    with ppl.plate("data", 4):
        ppl.sample("z", dist.Bernoulli(logits=ppl.param("logits")))


def global_exact(params):
    e, w = normal_quadrature()
    m = params["m_loc"] + 0.5 * e
    total = w @ (normal(m, 0.0, 1.0) - normal(m, params["m_loc"], 0.5))
    for z in (0.0, 1.0):
        log_q = xp.log(nn.sigmoid(xp.where(z == 1, 1, -1) * params["logits"]))
        log_p = xp.log(xp.where(z == 1, 0.3, 0.7)) + w @ normal(POINTS[None], (m + 2 * z)[:, None], 1.0)
        total = total + xp.sum(xp.exp(log_q) * (log_p - log_q))
    return total


THETA = dict(theta=0.7)
MIXED = dict(m=0.4, b=-0.3)
SWITCHED = dict(b=0.2, m=0.3)
CASES = [
    Case("E x^2", square, nothing, square_guide, THETA, lambda t: t["theta"] ** 2 + 1, CONTINUOUS),
    Case("E (phi x)^2", square_with_phi, nothing, square_guide, THETA | dict(phi=1.3),
         lambda t: t["phi"] ** 2 * (t["theta"] ** 2 + 1), CONTINUOUS, quick=3),
    Case("E theta x^2", square_with_theta, nothing, square_guide, THETA, lambda t: t["theta"] ** 3 + t["theta"], CONTINUOUS, quick=3),
    Case("Poisson lanes", poisson_program, nothing, poisson_guide, dict(log_rate=xp.array([0.1, 0.8, -0.4])), poisson_exact,
         tuple({"x": s} for s in (Reinforce(), Reinforce(baseline=3.0), LeaveOneOut(2), LeaveOneOut(3)))),
    Case("normal, then label", mixed_program, nothing, mixed_guide, MIXED, mixed_exact, PAIRS, quick=4),
    Case("label, then normal", mixed_program, nothing, reversed_guide, MIXED, reversed_exact, PAIRS, quick=4),
    Case("IWELBO(2), mixed sites", iwelbo(2), switch_model, switch_guide, SWITCHED, switch_bound(log_mean), SWITCH, quick=1),
    Case("VIMCO(2), mixed sites", vimco(2), switch_model, switch_guide, SWITCHED, switch_bound(log_mean), SWITCH[2:4]),
    Case("Renyi(0.5, 2), mixed sites", renyi(0.5, 2), switch_model, switch_guide, SWITCHED, switch_bound(renyi_half), SWITCH, quick=1),
    Case("subsampled plate", elbo, *subsampled(), LOGITS, subsampled_exact(1.0), SINGLE),
    Case("subsampled plate under scale(3)", elbo, *subsampled(3.0), LOGITS, subsampled_exact(3.0), SINGLE),
    Case("full plate under scale(3)", elbo, *subsampled(3.0, None), LOGITS, subsampled_exact(3.0), SINGLE),
    Case("a thousand lanes", thousand_program, nothing, thousand_guide, dict(a=0.2, b=1.7), thousand_exact, SINGLE, n=4000),
    Case("Gamma, implicit", square, nothing, gamma_guide, dict(a=1.7), lambda t: t["a"] + t["a"] ** 2,
         tuple({"x": s} for s in (Reparam(), Reinforce(), LeaveOneOut(2)))),
    Case("Uniform with a moving end", square, nothing, uniform_guide, dict(b=1.4), lambda t: t["b"] ** 2 / 3, ({"x": Reparam()},)),
    Case("ELBO, global and labels", elbo, global_model, global_guide, LOGITS | dict(m_loc=0.4), global_exact,
         tuple({"m": m, "z": z} for m in (Reparam(), Reinforce(), LeaveOneOut(2)) for z in (Enumerate(), Reinforce(), LeaveOneOut(2))), quick=1),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "case", "strategies"), rows(CASES))
def test_mean_gradient(engine, case, strategies):
    check(engine, case, strategies)


def test_lanes_are_credited_one_by_one(engine):
    """Per-lane credit keeps the variance of a mean over N lanes at O(1/N); joint credit would keep it at O(1)."""

    def program(p, q):
        return xp.mean(q.simulate()["z"] * 1.0)

    def guide(n):
        def run():
            with ppl.plate("lanes", n):
                ppl.sample("z", dist.Bernoulli(logits=ppl.param("a") * xp.ones(n)))

        return run

    spreads = {}
    for n in (10, 1000):
        with on(engine):
            objective = engine.vi.objective(program, nothing, guide(n), strategies={"z": Reinforce()})
            spreads[n] = moments(engine, objective, {"a": engine.array(0.4)}, 4000)[1][1]["a"]
    assert spreads[1000] < 1.2 * spreads[10] / 10


@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: case.name)
def test_different_keys_differ_and_equal_keys_agree(engine, case):
    with on(engine):
        objective = engine.vi.objective(case.program, case.model, case.guide, strategies=case.strategies[-1])
        params = {name: engine.array(np.asarray(value, np.float32)) for name, value in case.params.items()}
        values = [float(objective.estimate(engine.key(i), params)) for i in (0, 0, *range(1, 8))]
    assert values[0] == values[1]
    assert len(set(values)) > 1


@pytest.mark.parametrize("strategy", [Enumerate(), Reinforce(), LeaveOneOut(2)])
def test_what_the_objective_leaves_out_may_be_infinite(engine, strategy):
    """Lanes that a slice, a gather or a where leaves out are left out, even where they hold NaN or minus infinity."""

    def program(p, q):
        keep = xp.array([True, True, False])
        z = q.simulate()["z"]
        terms = xp.where(keep, z * 2.0, xp.array([0.0, 0.0, xp.nan])) + xp.array([0.0, 0.0, -xp.inf])
        return terms[xp.array([0, 1])].sum() + terms[:2].sum() + xp.where(keep, terms, z[0] * 1.0).sum()

    def guide():
        with ppl.plate("lanes", 3):
            ppl.sample("z", dist.Bernoulli(logits=ppl.param("a")))

    a = np.array([0.3, -0.4, 0.2], np.float32)
    with on(engine):
        objective = engine.vi.objective(program, nothing, guide, strategies={"z": strategy})
        (_, mean), (_, sd) = moments(engine, objective, {"a": engine.array(a)}, 20_000)
    prob = nn.sigmoid(a)
    exact = prob * (1 - prob) * xp.array([7.0, 6.0, 0.0])
    assert (np.abs(mean["a"] - exact) <= Z * sd["a"] / np.sqrt(20_000) + 1e-5).all()
