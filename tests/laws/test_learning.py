"""Strategies that learn: unbiased in every state, each state after its use, and less variance for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import ppvi
import ppvi.numpyro as vi
from ppvi import Enumerate, Reinforce
from ppvi.objective import estimator_of
from ppvi.objectives import elbo
from ppvi.strategies import REBAR, RELAX, NeuralBaseline, RunningMean
from tests.engines import ENGINES, PYRO, dist, on, ppl, xp
from tests.laws import cases
from tests.laws.sampling import Z

X = jnp.array([-2.1, -1.8, 0.4, 1.9])


def model(x):
    means = ppl.param("means", xp.array([-1.0, 1.3]))
    with ppl.plate("data", 4):
        z = ppl.sample("z", dist.Bernoulli(0.4))
        ppl.sample("x", dist.Normal((1 - z) * means[0] + z * means[1], 1.0), obs=x)


def guide(x):
    with ppl.plate("data", 4):
        logits = ppl.param("logits", xp.array([0.3, -0.2, 0.1, 0.4]))
        ppl.sample("z", dist.Bernoulli(logits=logits), infer={"baseline_input": x})


def weights():
    return xp.zeros(3)


def quadratic(w, x):
    return w[0] + w[1] * x + w[2] * x**2


LEARNERS = [
    Reinforce(RunningMean(0.8)),
    Reinforce(NeuralBaseline(weights, quadratic, 0.1)),
    REBAR(step_size=0.03),
    RELAX(weights, quadratic, scale=0.0, step_size=0.03),
    RELAX(weights, quadratic, step_size=0.03),
]


def trained(engine, strategy, steps=200):
    """The objective, its parameters, and the states before and after some steps."""
    bound, x = engine.vi.objective(elbo, model, guide, strategies={"z": strategy}), engine.array(X)
    params = bound.init(engine.key(0), x)
    first, states = bound.states(params, x), bound.states(params, x)
    if engine is PYRO:
        for i in range(steps):
            bound.update(i, params, states, x)
        return bound, params, first, states

    def step(states, key):
        return bound.update(key, params, states, x)[2], None

    states, _ = jax.jit(lambda keys: jax.lax.scan(step, first, keys))(jax.random.split(jax.random.key(1), steps))
    return bound, params, first, states


def moments(engine, bound, params, states, n):
    """Mean and sd of estimates and gradients in these states."""
    if engine is PYRO:
        leaves = {name: value.detach().expand(n, *value.shape).requires_grad_() for name, value in params.items()}
        values = estimator_of(bound).lanes(2, leaves, (engine.array(X),), values=states.values)
        grads = torch.autograd.grad(values.sum(), list(leaves.values()))
        draws = jax.tree.map(lambda x: x.detach().numpy(), (values, dict(zip(leaves, grads, strict=True))))
    else:
        keys = jax.random.split(jax.random.key(2), n)
        every = jax.jit(lambda keys: jax.lax.map(lambda key: bound.update(key, params, states, X)[:2], keys, batch_size=20_000))  # fmt: skip
        draws = every(keys)
    return jax.tree.map(lambda x: np.asarray(x, np.float64).mean(0), draws), jax.tree.map(lambda x: x.std(0), draws)


@pytest.mark.parametrize(
    ("engine", "strategy"),
    [
        pytest.param(e, s, id=f"{e.name}, {s}", marks=[pytest.mark.slow] * (i >= (2 if e is PYRO else 1)))
        for e in ENGINES
        for i, s in enumerate(LEARNERS)
    ],
)
def test_unbiased_in_the_state_that_it_learns(engine, strategy):
    with on(engine):
        exact = engine.vi.objective(elbo, model, guide, strategies={"z": Enumerate()})
        bound, params, first, states = trained(engine, strategy)
        truth = jax.tree.map(
            lambda x: np.asarray(x.detach() if engine is PYRO else x),
            exact.value_and_grad(engine.key(0), params, engine.array(X)),
        )
        mean, sd = moments(engine, bound, params, states, 100_000)
        before = moments(engine, bound, params, first, 20_000)[1][1]["logits"]
    for found, spread, right in zip(*map(jax.tree.leaves, (mean, sd, truth)), strict=True):
        assert (np.abs(found - right) <= Z * spread / np.sqrt(100_000) + 1e-4).all()
    assert sd[1]["logits"].mean() < before.mean()


def test_running_mean_is_used_first_and_moves_after():
    """By hand: the states are the weighted means of what each lane was credited with before (section 4.2 of NVIL)."""
    bound = vi.objective(elbo, model, guide, strategies={"z": Reinforce(RunningMean(0.8))})
    params = bound.init(jax.random.key(0), X)
    states = bound.states(params, X)
    np.testing.assert_array_equal(states.values["z"], np.zeros(4))
    by_hand = np.zeros(4)

    def credit(z):
        q = jax.nn.sigmoid(params["logits"])
        log_q = jnp.log(jnp.where(z == 1, q, 1 - q))
        mean = jnp.where(z == 1, params["means"][1], params["means"][0])
        return jnp.log(jnp.where(z == 1, 0.4, 0.6)) - 0.5 * (X - mean) ** 2 - 0.5 * jnp.log(2 * jnp.pi) - log_q

    credits = {bits: np.asarray(credit(jnp.array(bits))) for bits in np.ndindex(2, 2, 2, 2)}
    for i in range(3):
        value, grads, after = bound.update(jax.random.key(i), params, states, X)
        found = next(c for c in credits.values() if np.allclose(c.sum(), value, atol=1e-5))
        z = next(np.array(bits) for bits, c in credits.items() if c is found)
        score = z - np.asarray(jax.nn.sigmoid(params["logits"]))
        np.testing.assert_allclose(grads["logits"], (found - by_hand) * score, rtol=1e-4)
        by_hand = 0.8 * by_hand + 0.2 * found
        np.testing.assert_allclose(after.values["z"], by_hand, rtol=1e-4)
        states = after


def test_a_nested_site_learns_from_the_runs_that_it_is_in():
    """Under an enumerated site there are two runs, and the baseline goes to the mean of their credits."""
    case = next(case for case in cases.CASES if case.name == "dependent pair")
    learner = Reinforce(RunningMean(0.0))
    bound = vi.objective(case.program, case.model, case.guide, strategies={"z1": Enumerate(), "z2": learner})
    states = bound.states(case.params)
    keys = jax.random.split(jax.random.key(0), 4000)
    values = jax.vmap(lambda key: bound.update(key, case.params, states)[2].values["z2"])(keys)
    a, phi = case.params["a"], case.params["phi"]
    runs = {(z1, z2): float(jnp.exp(phi * (z1 + 2 * z2)) * (a + z1) ** 2) for z1 in (0, 1) for z2 in (0, 1)}
    possible = [(runs[0, i] + runs[1, j]) / 2 for i in (0, 1) for j in (0, 1)]
    found = {round(float(v), 4) for v in np.unique(values)}
    assert len(found) >= 3
    assert found <= {round(v, 4) for v in possible}


def test_fit_carries_states_along():
    """After as many steps, the fit whose baselines learn is much nearer to that of the exact gradient."""
    fits = {}
    for strategy in (Enumerate(), Reinforce(RunningMean()), Reinforce()):
        bound = vi.objective(elbo, model, guide, strategies={"z": strategy})
        fits[strategy] = vi.fit(bound, jax.random.key(0), X, num_steps=1500, progress=False)
    exact = vi.objective(elbo, model, guide, strategies={"z": Enumerate()})
    best, learned, plain = (float(-exact.estimate(jax.random.key(0), fit.params, X)) for fit in fits.values())
    assert learned - best < 0.25 * (plain - best)


def test_two_sites_of_one_name_have_states_of_their_own():
    def twice(p, q):
        return (q.simulate()["z"] + 2.0 * q.simulate()["z"]) ** 2

    bound = vi.objective(twice, cases.nothing, cases.coin_guide, strategies={"z": Reinforce(RunningMean())})
    assert set(bound.states({"a": jnp.array(0.3)}).values) == {"z", "z (2)"}


def test_a_neural_baseline_wants_an_input():
    bound = vi.objective(elbo, cases.coin_model, cases.coin_guide, strategies={"z": LEARNERS[1]})
    with pytest.raises(ppvi.StrategyError, match=r"NeuralBaseline needs an input: name one at the site by infer="):
        bound.estimate(jax.random.key(0), cases.COIN_PARAMS)


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_lies_between_zero_and_one(decay):
    with pytest.raises(ppvi.StrategyError, match="the decay must be a finite number at least 0 and below 1"):
        RunningMean(decay)


def test_svi_has_no_place_for_a_state():
    bound = vi.objective(elbo, model, guide, strategies={"z": Reinforce(RunningMean())})
    with pytest.raises(
        ppvi.StrategyError, match=r"as_loss: Reinforce\(baseline=RunningMean\(decay=0.9\)\) of site 'z' learns"
    ):
        bound.as_loss()
