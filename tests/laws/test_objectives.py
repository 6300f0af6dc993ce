"""The library's objectives against quadrature: value and gradient, on models small enough to integrate.

Every quadrature is a sum over a fixed grid, written from the equation in the docstring, and differentiated as it stands;
it knows nothing of strategies. Where an objective holds something constant, so does its sum.
"""

import itertools

import jax
import numpy as np
import pytest
from jax.lax import stop_gradient as stop

import ppvi
from ppvi import Reinforce, Reparam, objectives
from tests.engines import dist, double, handlers, nn, on, ppl, xp
from tests.laws import cases
from tests.laws.cases import Case, rows
from tests.laws.sampling import check, moments

N = 100_000
PARAMS = dict(theta=0.3, m=0.5, s=0.1)
EVERY = ({"z": Reparam()}, {"z": Reinforce()})
X = 0.9


def model(x=X):
    z = ppl.sample("z", dist.Normal(ppl.param("theta", 0.3), 1.0))
    ppl.sample("x", dist.Normal(z, 0.8), obs=x)


def guide(x=X):
    ppl.sample("z", dist.Normal(ppl.param("m", 0.5), xp.exp(ppl.param("s", 0.1))))


def log_normal(z, loc, scale):
    return -0.5 * ((z - loc) / scale) ** 2 - xp.log(scale) - 0.5 * xp.log(2 * xp.pi)


def log_p(params, z):
    return log_normal(z, params["theta"], 1.0) + log_normal(X, z, 0.8)


def log_q(params, z):
    return log_normal(z, params["m"], xp.exp(params["s"]))


def log_w(params, z):
    return log_p(params, z) - log_q(params, z)


def grid(axes, points, width=9.0):
    """Points of a grid in some dimensions, one array each, and the volume of a cell."""
    line = xp.linspace(0.4 - width, 0.4 + width, points)
    mesh = xp.meshgrid(*[line] * axes, indexing="ij")
    return [x.ravel() for x in mesh], (line[1] - line[0]) ** axes


def one(function, density=log_q):
    """E over one draw of the guide of function(params, z)."""

    def exact(params):
        (z,), cell = grid(1, 6001)
        return xp.sum(xp.exp(density(params, z)) * function(params, z)) * cell

    return exact


def two(function, density=log_q, points=801):
    """E over two independent draws of function(params, z1, z2)."""

    def exact(params):
        (z1, z2), cell = grid(2, points)
        joint = density(params, z1) + density(params, z2)
        return xp.sum(xp.exp(joint) * function(params, z1, z2)) * cell

    return exact


def of_two_weights(function):
    return two(lambda params, *z: function(xp.stack([log_w(params, x) for x in z])))


def log_mean(log_w):
    return nn.logsumexp(log_w, 0) - xp.log(2.0)


def self_normalised(beta):
    return lambda log_w: (nn.softmax(beta * log_w, 0) * log_w).sum(0)


def held(params):
    return jax.tree.map(stop, params)


def divergence(f):
    return one(lambda params, z: f(xp.exp(log_w(params, z) - LOG_EVIDENCE)))


LOG_EVIDENCE = float(dist.Normal(0.3, np.hypot(1.0, 0.8)).log_prob(X))


def half_variance(params):
    """The draws are held constant; the weights are not."""

    def mean(function):
        return one(function, lambda params, z: log_q(held(params), z))(params)

    return 0.5 * (mean(lambda params, z: log_w(params, z) ** 2) - mean(log_w) ** 2)


SQUARE = tuple(lambda x, c=c: c * xp.exp(2 * x + 3.0) for c in (1.0, 2.0, 4.0))
FORWARD = tuple(lambda x, n=n: (x + n) * xp.exp(x + 1.5) for n in (0, 1, 2))
SIMPLE = [
    ("elbo", objectives.elbo, one(log_w)),
    ("stl", objectives.stl, one(log_w)),
    ("analytic ELBO", objectives.analytic_elbo, one(log_w)),
    (
        "beta-ELBO",
        objectives.beta_elbo(1.7),
        one(
            lambda params, z: (
                log_normal(X, z, 0.8) - 1.7 * (log_q(params, z) - log_normal(z, params["theta"], 1.0))
            )
        ),
    ),
    (
        "tempered ELBO",
        objectives.tempered_elbo(2.0),
        one(lambda params, z: log_p(params, z) / 2 - log_q(params, z)),
    ),
    ("IWELBO", objectives.iwelbo(2), of_two_weights(log_mean)),
    ("Renyi", objectives.renyi(0.5, 2), of_two_weights(lambda w: 2 * log_mean(0.5 * w))),
    ("VR-max", objectives.vr_max(2), of_two_weights(lambda w: w.max(0))),
    ("DReG", objectives.dreg(2), of_two_weights(log_mean)),
    ("DReG of exp(2 L)", objectives.dreg(2, of=SQUARE), of_two_weights(lambda w: xp.exp(2 * log_mean(w) + 3.0))),
    ("DReG of L exp(L)", objectives.dreg(2, of=FORWARD), of_two_weights(lambda w: log_mean(w) * xp.exp(log_mean(w) + 1.5))),
    ("CUBO", objectives.cubo(2), of_two_weights(lambda w: log_mean(2 * w) / 2)),
    ("TVO", objectives.thermodynamic([0.0, 0.3], 2), of_two_weights(lambda w: 0.3 * w.mean(0) + 0.7 * self_normalised(0.3)(w))),
    ("chi-square moment", objectives.chi_square(2.0, log_scale=-1.5), one(lambda params, z: xp.exp(2 * (log_w(params, z) + 1.5)))),
    ("alpha-divergence", objectives.alpha_divergence(0.5, log_evidence=LOG_EVIDENCE), divergence(lambda w: -4 * (w**0.5 - 1))),
    ("reverse KL", objectives.f_divergence("reverse-kl", log_evidence=LOG_EVIDENCE), divergence(lambda w: -xp.log(w))),
    ("forward KL", objectives.f_divergence("forward-kl", log_evidence=LOG_EVIDENCE), divergence(lambda w: w * xp.log(w))),
    ("total variation", objectives.f_divergence("total-variation", log_evidence=LOG_EVIDENCE), divergence(lambda w: 0.5 * xp.abs(w - 1))),
    (
        "Jensen-Shannon",
        objectives.f_divergence("jensen-shannon", log_evidence=LOG_EVIDENCE),
        divergence(lambda w: 0.5 * (w * xp.log(2 * w / (1 + w)) + xp.log(2 / (1 + w)))),
    ),
    ("Hellinger", objectives.f_divergence("hellinger", log_evidence=LOG_EVIDENCE), divergence(lambda w: 1 - w**0.5)),
    ("chi-square", objectives.f_divergence("chi-square", log_evidence=LOG_EVIDENCE), divergence(lambda w: (w - 1) ** 2)),
    ("log variance", objectives.log_variance(3), half_variance),
    (
        "wake phase of the guide",
        objectives.wake_phase_q(2),
        lambda params: two(
            lambda _, z1, z2: -(
                nn.softmax(xp.stack([log_w(held(params), z1), log_w(held(params), z2)]), 0)
                * xp.stack([log_q(params, z1), log_q(params, z2)])
            ).sum(0)
        )(held(params)),
    ),
    (
        "forward chi-square",
        objectives.forward_chi_square(2),
        lambda params: two(
            lambda _, z1, z2: -(
                nn.softmax(2 * xp.stack([log_w(held(params), z1), log_w(held(params), z2)]), 0)
                * xp.stack([log_q(params, z1), log_q(params, z2)])
            ).sum(0)
            / 2
        )(held(params)),
    ),
    ("wake phase of the model", objectives.wake_phase_p(2), of_two_weights(log_mean)),
]  # fmt: skip

CASES = [
    Case(name, program, model, guide, PARAMS, exact, EVERY[:1] if name.startswith("DReG") else EVERY, N, quick)
    for (name, program, exact), quick in zip(SIMPLE, itertools.cycle([2, 1, 1, 1, 1, 1]))
]


# Forward KL by simulation: an amortised guide ----------------------------------------------------------------------------------------


def amortised_guide(x=X):
    loc = ppl.param("m", 0.5) + ppl.param("c", 0.4) * x
    ppl.sample("z", dist.Normal(loc, xp.exp(ppl.param("s", 0.1))))


def forward_kl_exact(params):
    (z, x), cell = grid(2, 801)
    joint = stop(log_normal(z, params["theta"], 1.0) + log_normal(x, z, 0.8))
    return -xp.sum(xp.exp(joint) * log_normal(z, params["m"] + params["c"] * x, xp.exp(params["s"]))) * cell


# Two sites: closed-form divergences, weights by site -----------------------------------------------------------------------------------


def two_model():
    a = ppl.sample("a", dist.Normal(0.0, 1.0))
    b = ppl.sample("b", dist.Normal(a, 0.7))
    ppl.sample("x", dist.Normal(b, 0.8), obs=X)


def forward_guide():
    a = ppl.sample("a", dist.Normal(ppl.param("m", 0.5), 0.8))
    ppl.sample("b", dist.Normal(0.6 * a + ppl.param("c", 0.2), 0.6))


def scaled_model():
    """The prior of a counts twice in the model, once in the guide: no divergence."""
    with handlers.scale(scale=2.0):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
    b = ppl.sample("b", dist.Normal(a, 0.7))
    ppl.sample("x", dist.Normal(b, 0.8), obs=X)


def scaled_exact(params):
    (a, b), cell = grid(2, 801)
    q_a, q_b = log_forward(params, a, b)
    model = 2 * log_normal(a, 0.0, 1.0) + log_normal(b, a, 0.7) + log_normal(X, b, 0.8)
    return xp.sum(xp.exp(q_a + q_b) * (model - q_a - q_b)) * cell


def backward_guide():
    """Draws in the other order: a closed form of KL(q(b) || p(b | a)) would be wrong here."""
    b = ppl.sample("b", dist.Normal(ppl.param("c", 0.2), 0.9))
    ppl.sample("a", dist.Normal(0.6 * b + ppl.param("m", 0.5), 0.6))


def two_exact(beta, log_guide):
    def exact(params):
        (a, b), cell = grid(2, 801)
        q_a, q_b = log_guide(params, a, b)
        excess = beta * (q_a - log_normal(a, 0.0, 1.0)) + q_b - log_normal(b, a, 0.7)
        return xp.sum(xp.exp(q_a + q_b) * (log_normal(X, b, 0.8) - excess)) * cell

    return exact


def log_forward(params, a, b):
    return log_normal(a, params["m"], 0.8), log_normal(b, 0.6 * a + params["c"], 0.6)


def log_backward(params, a, b):
    return log_normal(a, 0.6 * b + params["m"], 0.6), log_normal(b, params["c"], 0.9)


TWO = dict(m=0.5, c=0.2)
BOTH = ({"a": Reparam(), "b": Reparam()}, {"a": Reinforce(), "b": Reparam()}, {"a": Reparam(), "b": Reinforce()})

# Hierarchical guides: the auxiliary has a density that is not one -----------------------------------------------------------------------


def deep_guide():
    u = ppl.sample("u", dist.Normal(ppl.param("v", 0.3), 2.0))
    ppl.sample("z", dist.Normal(ppl.param("m", 0.5) + 0.4 * u, xp.exp(ppl.param("s", 0.1))))


def reverse(z):
    ppl.sample("u", dist.Normal(ppl.param("r", 0.6) * z["z"], 1.8))


DEEP = dict(theta=0.3, m=0.5, s=0.1, v=0.3, r=0.6)


def log_u(params, u):
    return log_normal(u, params["v"], 2.0)


def log_z(params, z, u):
    return log_normal(z, params["m"] + 0.4 * u, xp.exp(params["s"]))


def log_r(params, u, z):
    return log_normal(u, params["r"] * z, 1.8)


def hvi_exact(log_reverse):
    def exact(params):
        (z, u), cell = grid(2, 601, 14.0)
        joint = log_u(params, u) + log_z(params, z, u)
        return xp.sum(xp.exp(joint) * (log_p(params, z) + log_reverse(params, u, z) - joint)) * cell

    return exact


def iwhvi_exact(log_reverse):
    def exact(params):
        (z, u1, u2), cell = grid(3, 121, 14.0)
        first = log_u(params, u1) + log_z(params, z, u1)
        weights = [log_u(params, u) + log_z(params, z, u) - log_reverse(params, u, z) for u in (u1, u2)]
        bound = log_p(params, z) - log_mean(xp.stack(weights))
        return xp.sum(xp.exp(first + log_reverse(params, u2, z)) * bound) * cell

    return exact


def diwhvi_exact(params):
    """One inner and two outer draws, by Gauss-Hermite quadrature in the noise."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    e = [xp.asarray(x.ravel()) for x in np.meshgrid(*[nodes] * 4, indexing="ij")]
    w = xp.asarray(np.prod(np.meshgrid(*[weights / weights.sum()] * 4, indexing="ij"), 0).ravel())
    logs = []
    for u, z in (e[:2], e[2:]):
        u = params["v"] + 2.0 * u
        z = params["m"] + 0.4 * u + xp.exp(params["s"]) * z
        logs.append(log_p(params, z) + log_r(params, u, z) - log_u(params, u) - log_z(params, z, u))
    return w @ log_mean(xp.stack(logs))


def prior(params, u, z):
    return log_u(params, u)


DEEP_STRATEGIES = (
    {"u": Reparam(), "z": Reparam()},
    {"u": Reinforce(), "z": Reinforce()},
)


# Annealing: one move from the guide to the posterior ------------------------------------------------------------------------------------


def forward(z):
    ppl.sample("z", dist.Normal(z["z"] + ppl.param("f", 0.3) * (X - z["z"]), 0.5))


def backward(z):
    ppl.sample("z", dist.Normal(ppl.param("b", 0.7) * z["z"], 0.9))


def annealed_exact(params):
    (old, new), cell = grid(2, 801)
    log_f = log_normal(new, old + params["f"] * (X - old), 0.5)
    log_b = log_normal(old, params["b"] * new, 0.9)
    joint = log_q(params, old) + log_f
    return xp.sum(xp.exp(joint) * (log_p(params, new) + log_b - joint)) * cell


# Plates: independent data, each with its own weights ------------------------------------------------------------------------------------

DATA = xp.array([0.9, -0.4])


def plate_model():
    with ppl.plate("data", 2):
        z = ppl.sample("z", dist.Normal(ppl.param("theta", 0.3), 1.0))
        ppl.sample("x", dist.Normal(z, 0.8), obs=DATA)


def plate_guide():
    with ppl.plate("data", 2):
        ppl.sample("z", dist.Normal(ppl.param("m", 0.5), xp.exp(ppl.param("s", 0.1))))


def plate_exact(function):
    def exact(params):
        def weights(z, x):
            return log_normal(z, params["theta"], 1.0) + log_normal(x, z, 0.8) - log_q(params, z)

        return sum(two(lambda _, *z, x=x: function(xp.stack([weights(z_k, x) for z_k in z])))(params) for x in DATA)

    return exact


CASES += [
    Case("forward KL by simulation", objectives.forward_kl(lambda t: (t["x"],)), model, amortised_guide, PARAMS | {"c": 0.4}, forward_kl_exact, EVERY, n=N),
    Case("ELBO of two sites, analytic", objectives.analytic_elbo, two_model, forward_guide, TWO, two_exact(1.0, log_forward), BOTH, n=N),
    Case("ELBO of two sites, analytic, in another order", objectives.analytic_elbo, two_model, backward_guide, TWO, two_exact(1.0, log_backward), BOTH, n=N),
    Case("ELBO of two sites, analytic, scaled", objectives.analytic_elbo, scaled_model, forward_guide, TWO, scaled_exact, BOTH, n=N),
    Case("beta-ELBO by site", objectives.beta_elbo({"a": 0.4}), two_model, forward_guide, TWO, two_exact(0.4, log_forward), BOTH, n=N),
    Case("HVI", objectives.hvi(["z"], reverse), model, deep_guide, DEEP, hvi_exact(log_r), DEEP_STRATEGIES, n=N),
    Case("HVI without a reverse program", objectives.hvi(["z"]), model, deep_guide, {k: v for k, v in DEEP.items() if k != "r"}, hvi_exact(prior), DEEP_STRATEGIES, n=N),
    Case("IWHVI", objectives.iwhvi(["z"], reverse, 2), model, deep_guide, DEEP, iwhvi_exact(log_r), DEEP_STRATEGIES, n=N),
    Case("SIVI", objectives.sivi(["z"], 1), model, deep_guide, {k: v for k, v in DEEP.items() if k != "r"}, iwhvi_exact(prior), DEEP_STRATEGIES, n=N),
    Case("DIWHVI", objectives.diwhvi(["z"], reverse, 1, 2), model, deep_guide, DEEP, diwhvi_exact, DEEP_STRATEGIES, n=N),
    Case("annealed", objectives.annealed([1.0], forward, backward), model, guide, PARAMS | {"f": 0.3, "b": 0.7}, annealed_exact, EVERY, n=N),
    Case("IWELBO per plate", objectives.iwelbo(2, per="data"), plate_model, plate_guide, PARAMS, plate_exact(log_mean), EVERY, n=N),
    Case("Renyi per plate", objectives.renyi(2.0, 2, per="data"), plate_model, plate_guide, PARAMS, plate_exact(lambda w: -log_mean(-w)), EVERY, n=N),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "case", "strategies"), rows(CASES))
def test_value_and_gradient_against_quadrature(engine, case, strategies):
    check(engine, case, strategies)


def test_analytic_divergences_leave_no_noise_where_the_likelihood_has_none(engine):
    """With nothing observed the analytic ELBO is minus a KL divergence, and exact in one draw."""

    def prior():
        ppl.sample("z", dist.Normal(0.0, 1.0))

    with on(engine):
        objective = engine.vi.objective(objectives.analytic_elbo, prior, guide)
        params = {"m": engine.array(0.5), "s": engine.array(0.1)}
        (value, grads), (sd, _) = moments(engine, objective, params, 5)
    kl = dist.kl_divergence(dist.Normal(0.5, xp.exp(0.1)), dist.Normal(0.0, 1.0))
    np.testing.assert_allclose(value, -kl, rtol=1e-5)
    np.testing.assert_allclose(sd, 0.0, atol=1e-6)
    np.testing.assert_allclose(grads["m"], -0.5, rtol=1e-5)


def test_the_gradient_of_half_the_log_variance_is_that_of_the_reverse_divergence():
    """In the guide's parameters, which is what VarGrad says; so the row above is one for the divergence too."""
    with double():
        params = {name: xp.asarray(x) for name, x in PARAMS.items()}
        of_variance, of_elbo = jax.grad(half_variance)(params), jax.grad(one(log_w))(params)
    for name in ("m", "s"):
        np.testing.assert_allclose(of_variance[name], -of_elbo[name], rtol=1e-9)


def test_stl_has_no_variance_at_the_posterior(engine):
    precision = 1 + 1 / 0.8**2
    params = {"theta": 0.3, "m": (0.3 + X / 0.8**2) / precision, "s": -0.5 * np.log(precision)}
    with on(engine):
        objective = engine.vi.objective(objectives.stl, model, guide)
        (_, mean), (_, sd) = moments(
            engine, objective, {k: engine.array(np.float32(v)) for k, v in params.items()}, 100
        )
    np.testing.assert_allclose([mean["m"], mean["s"], sd["m"], sd["s"]], 0.0, atol=1e-5)


# A filter of two steps and two particles, by hand -----------------------------------------------------------------------------------------

OBSERVED = (0.9, 0.2)


def chain(steps):
    x = 0
    for t in range(steps):
        x = ppl.sample(f"x{t}", dist.Bernoulli(logits=ppl.param("c", 0.7) * x - 0.2))
        ppl.sample(f"y{t}", dist.Normal(x, 0.8), obs=OBSERVED[t])


def first(steps):
    ppl.sample("x0", dist.Bernoulli(logits=ppl.param("a", 0.4)))


def second(z, *args):
    ppl.sample("x1", dist.Bernoulli(logits=ppl.param("b", -0.3) + z["x0"]))


def prob(x, logits):
    return nn.sigmoid(logits if x else -logits)


def fivo_by_hand(params):
    """Every path of two particles: first states, ancestors, second states."""
    a, b, c = params["a"], params["b"], params["c"]
    total = 0.0
    for x, ancestors, y in itertools.product(itertools.product((0, 1), repeat=2), repeat=3):
        w1 = [prob(v, -0.2) * xp.exp(log_normal(OBSERVED[0], v, 0.8)) / prob(v, a) for v in x]
        probability = prob(x[0], a) * prob(x[1], a)
        w2 = []
        for k in (0, 1):
            old = x[ancestors[k]]
            probability *= w1[ancestors[k]] / sum(w1) * prob(y[k], b + old)
            w2.append(prob(y[k], c * old - 0.2) * xp.exp(log_normal(OBSERVED[1], y[k], 0.8)) / prob(y[k], b + old))
        total += probability * (xp.log(sum(w1) / 2) + xp.log(sum(w2) / 2))
    return total


def test_fivo_with_its_resampling_scores(engine):
    def sampler(p, q):
        return ppvi.normalize([p.bind(1), p.bind(2)], [q, second], 2)

    values = dict(a=0.4, b=-0.3, c=0.7)
    strategies = dict.fromkeys(("x0", "x1", "ancestor"), Reinforce())
    with double():
        with on(engine):
            objective = engine.vi.objective(objectives.fivo(sampler), chain, first, strategies=strategies)
            params = {name: engine.array(x) for name, x in values.items()}
            value, grads = engine.outcomes(objective, params, (2,), limit=20_000).mean()
        exact, exact_grads = jax.value_and_grad(fivo_by_hand)({name: xp.asarray(x) for name, x in values.items()})
    np.testing.assert_allclose(value, exact, rtol=1e-9)
    for name, grad in exact_grads.items():
        np.testing.assert_allclose(grads[name], grad, rtol=1e-8)


# An auxiliary whose density is not one: joint scores in place of importance weights give 0.03 and 8.1 here --------------------------------


@pytest.mark.parametrize("proposal", [None, reverse])
@pytest.mark.parametrize("particles", [1, 20])
def test_marginal_density_with_an_auxiliary_of_density_other_than_one(engine, proposal, particles):
    def program(p, q):
        made = ppvi.marginal(q, ["z"], proposal, particles)
        z = made.simulate()
        # The reciprocal times a normalised density has expectation one; a narrow one keeps its variance finite.
        reciprocal = xp.exp(log_normal(z["z"], 0.6, 0.8) - z.log_density)
        return xp.exp(made.log_density({"z": 0.4})) + 10.0 * reciprocal

    def exact(params):
        spread = xp.sqrt(xp.exp(2 * params["s"]) + (0.4 * 2.0) ** 2)
        return xp.exp(log_normal(0.4, params["m"] + 0.4 * params["v"], spread)) + 10.0

    params = {"m": 0.5, "s": 0.1, "v": 0.3} | ({"r": 0.6} if proposal else {})
    check(engine, Case("", program, lambda: None, deep_guide, params, exact, (), n=N), DEEP_STRATEGIES[0])


def test_vimco_has_less_variance_than_the_score_alone(engine):
    """Four particles of a coin: the spread of the gradient, with and without the baselines."""
    spreads = {}
    for make in (objectives.vimco, objectives.iwelbo):
        with on(engine):
            bound = engine.vi.objective(make(4), cases.coin_model, cases.coin_guide, strategies={"z": Reinforce()})
            params = {name: engine.array(x) for name, x in cases.COIN_PARAMS.items()}
            spreads[make.__name__] = float(moments(engine, bound, params, 20_000)[1][1]["a"])
    assert spreads["vimco"] < 0.5 * spreads["iwelbo"]
