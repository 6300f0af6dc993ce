"""The surface: what a user of NumPyro may bring, and how calls behave."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flax import linen, nnx
from jax.experimental.ode import odeint
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.contrib.module import flax_module, nnx_module
from numpyro.distributions import constraints
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoIAFNormal, AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal
from numpyro.infer.reparam import LocScaleReparam

import ppvi
import ppvi.numpyro as vi
from models.eight_schools import EFFECTS, ERRORS
from ppvi.objectives import elbo, iwelbo
from ppvi.strategies import RunningMean

KEY = jax.random.key(0)


def centred(effects, errors):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("effect", dist.Normal(theta, errors), obs=effects)


def mean_gradient(bound, params, *args, n=20_000):
    """Mean and standard error of value and gradient."""
    draws = jax.vmap(bound.value_and_grad, (0, None, *[None] * len(args)))(jax.random.split(KEY, n), params, *args)
    return jax.tree.map(lambda x: x.mean(0), draws), jax.tree.map(lambda x: x.std(0) / np.sqrt(n), draws)


def reference_gradient(model, guide, params, *args, n=20_000):
    """The same of NumPyro's Trace_ELBO, which is right for reparameterised sites."""
    loss = Trace_ELBO()

    def value_and_grad(key):
        return jax.value_and_grad(lambda params: -loss.loss(key, params, model, guide, *args))(params)

    draws = jax.jit(jax.vmap(value_and_grad))(jax.random.split(jax.random.key(1), n))
    return jax.tree.map(lambda x: x.mean(0), draws), jax.tree.map(lambda x: x.std(0) / np.sqrt(n), draws)


def assert_same(ours, theirs):
    """Equal within 6 joint standard errors."""
    for (x, x_se), (y, y_se) in zip(zip(*map(jax.tree.leaves, ours), strict=True), zip(*map(jax.tree.leaves, theirs), strict=True), strict=True):  # fmt: skip
        assert (np.abs(x - y) <= 6 * np.hypot(x_se, y_se) + 1e-5 * (1 + np.abs(y))).all(), (x, y)


def test_initial_values_cost_no_more_than_they_need():
    ran = []

    def costly(z):
        ran.append(z)
        return z

    def guide():
        z = numpyro.sample("z", dist.Normal(numpyro.param("loc", 0.5), 1.0))
        numpyro.deterministic("seen", jax.pure_callback(costly, z, z))
        return z

    def dependent():
        numpyro.param("start", 2 * guide())

    def model():
        numpyro.sample("z", dist.Normal(0.0, 1.0))

    params = vi.objective(elbo, model, guide).init(KEY)
    assert params == {"loc": 0.5}
    assert not ran
    params = vi.objective(elbo, model, dependent).init(KEY)
    assert params["start"] == 2 * ran[0]


def test_lanes_that_meet_late_are_run_together():
    """Eight lanes take their alternatives one by one, at the cost of one run of what comes before they meet."""

    def guide():
        with numpyro.plate("lanes", 8):
            numpyro.sample("z", dist.Bernoulli(numpyro.param("p", jnp.linspace(0.2, 0.8, 8))))

    def program(p, q):
        z = q.simulate()["z"]
        deep = jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ WEIGHTS), z[:, None] * WEIGHTS[0])
        return jax.nn.logsumexp(deep.sum(-1))

    def flops(strategy):
        bound = vi.objective(program, lambda: None, guide, strategies={"z": strategy})
        params = bound.init(KEY)
        (site,) = bound.explain(params).sites
        compiled = jax.jit(bound.value_and_grad).lower(KEY, params).compile()
        return compiled.cost_analysis()["flops"], site.evaluations

    alone, _ = flops(ppvi.Reinforce())
    one_by_one, evaluations = flops(ppvi.MeasureValued())
    assert evaluations == 8
    assert one_by_one < 2.5 * alone


WEIGHTS = jnp.sin(jnp.arange(64.0**2)).reshape(64, 64) / 8


@pytest.mark.parametrize(
    ("autoguide", "noncentred"),
    [
        pytest.param(AutoNormal, False, marks=pytest.mark.slow),
        (AutoNormal, True),
        pytest.param(AutoMultivariateNormal, True, marks=pytest.mark.slow),
        pytest.param(AutoIAFNormal, False, marks=pytest.mark.slow),
        pytest.param(AutoLowRankMultivariateNormal, False, marks=pytest.mark.slow),
        pytest.param(AutoMultivariateNormal, False, marks=pytest.mark.slow),
        pytest.param(AutoIAFNormal, True, marks=pytest.mark.slow),
        pytest.param(AutoLowRankMultivariateNormal, True, marks=pytest.mark.slow),
    ],
)
def test_autoguides_and_reparam_handlers(autoguide, noncentred):
    model = handlers.reparam(centred, config={"theta": LocScaleReparam(0)}) if noncentred else centred
    guide = autoguide(model)
    bound = vi.objective(elbo, model, guide)
    params = bound.init(KEY, EFFECTS, ERRORS)
    args = (EFFECTS, ERRORS)
    assert_same(mean_gradient(bound, params, *args), reference_gradient(model, guide, params, *args))


def test_param_constraints_are_kept_in_params():
    def guide():
        scale = numpyro.param("scale", 0.3, constraint=constraints.positive)
        numpyro.sample("x", dist.Normal(numpyro.param("loc", lambda key: jax.random.normal(key)), scale))

    def model():
        numpyro.sample("x", dist.Normal(3.0, 0.1))

    bound = vi.objective(elbo, model, guide)
    params = bound.init(KEY)
    assert params["scale"] == jnp.float32(0.3)
    assert not params["scale"].weak_type
    fit = vi.fit(bound, KEY, num_steps=4000, progress=False)
    assert abs(fit.params["loc"] - 3.0) < 0.05
    assert abs(fit.params["scale"] - 0.1) < 0.02


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(1)(jnp.tanh(linen.Dense(4)(x)))[..., 0]


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(3, 4, rngs=rngs)
        self.out = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))[..., 0]


@pytest.mark.parametrize("kind", [pytest.param("linen", marks=pytest.mark.slow), "nnx"])
def test_modules_as_parameters(kind):
    x = jax.random.normal(jax.random.key(5), (6, 3))
    network = Nnx(nnx.Rngs(0))

    def model(x):
        with numpyro.plate("data", 6):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(z, 0.5), obs=x.sum(1))

    def guide(x):
        net = flax_module("net", Linen(), input_shape=(3,)) if kind == "linen" else nnx_module("net", network)
        with numpyro.plate("data", 6):
            numpyro.sample("z", dist.Normal(net(x), 0.4))

    bound = vi.objective(elbo, model, guide)
    params = bound.init(KEY, x)
    assert list(params) == ["net$params"]
    assert_same(mean_gradient(bound, params, x, n=4000), reference_gradient(model, guide, params, x, n=4000))
    fit = vi.fit(bound, KEY, x, num_steps=300, progress=False)
    assert fit.losses[-50:].mean() < fit.losses[:50].mean() - 1


@pytest.mark.slow
def test_module_trees_with_subsampled_parameters():
    """A parameter with event_dim inside a subsampled plate gets gradients at the minibatch only, scaled to the
    whole."""
    data = jnp.arange(6.0)

    def model():
        with numpyro.plate("data", 6, subsample_size=2) as i:
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=data[i])

    def guide():
        with numpyro.plate("data", 6, subsample_size=2):
            numpyro.sample("z", dist.Normal(numpyro.param("loc", jnp.zeros(6), event_dim=0), 1.0))

    bound = vi.objective(elbo, model, guide)
    params = bound.init(KEY)
    _, grads = bound.value_and_grad(KEY, params)
    assert int((grads["loc"] != 0).sum()) == 2
    (_, mean), (_, error) = mean_gradient(bound, params)
    assert (abs(mean["loc"] - data) < 6 * error["loc"]).all()


def test_parameters_in_the_objective_itself():
    def program(p, q):
        return -((numpyro.param("inside", 2.0) - q.simulate()["x"]) ** 2)

    def guide():
        numpyro.sample("x", dist.Normal(numpyro.param("loc", 1.0), 1.0))

    bound = vi.objective(program, lambda: None, guide)
    assert bound.init(KEY).keys() == {"inside", "loc"}
    (_, grads), (_, error) = mean_gradient(bound, bound.init(KEY))
    assert abs(grads["inside"] + 2.0) < 6 * error["inside"]


def test_per_keeps_a_plate():
    """A per-datum importance-weighted bound, which is tighter than the joint one."""
    y = jnp.array([0.3, -1.0, 2.0])

    def model(y):
        with numpyro.plate("data", 3):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def guide(y):
        with numpyro.plate("data", 3):
            numpyro.sample("z", dist.Normal(numpyro.param("loc", jnp.zeros(3)), 1.0))

    def per_datum(p, q):
        def log_weight():
            z = q.simulate()
            return p.log_density(z, per="data") - z.per("data")

        return ppvi.logmeanexp(ppvi.replicate(50, log_weight)).sum()

    values = {}
    for name, program in {"per datum": per_datum, "joint": iwelbo(50), "elbo": elbo}.items():
        bound = vi.objective(program, model, guide)
        (values[name], _), _ = mean_gradient(bound, bound.init(KEY, y), y, n=2000)
    evidence = float(dist.Normal(0.0, np.sqrt(2.0)).log_prob(y).sum())
    assert values["elbo"] < values["joint"] < values["per datum"] < evidence
    assert evidence - values["per datum"] < 0.05


def test_log_probs_site_by_site():
    def program(p, q):
        z = q.simulate()
        parts = p.log_probs(z)
        assert parts.keys() == {"mu", "tau", "theta", "effect"}
        assert parts["theta"].shape == (8,)
        return sum(x.sum() for x in parts.values()) - sum(x.sum() for x in z.log_probs.values())

    guide = AutoNormal(centred)
    args = (EFFECTS, ERRORS)
    bounds = [vi.objective(bound, centred, guide) for bound in (program, elbo)]
    params = bounds[1].init(KEY, *args)
    np.testing.assert_allclose(*[bound.estimate(KEY, params, *args) for bound in bounds], rtol=1e-5)


@pytest.mark.parametrize("verb", ["prove", "estimate", "value_and_grad"])
def test_an_autoguide_may_begin_with_any_verb(verb):
    """At parameters of another fit, before any `init`: what is staged then leaves nothing traced in the guide."""
    args = (EFFECTS, ERRORS)
    params = vi.objective(elbo, centred, AutoNormal(centred)).init(KEY, *args)
    bound = vi.objective(elbo, centred, AutoNormal(centred))
    getattr(bound, verb)(*[KEY] * (verb != "prove"), params, *args)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, bound.init(KEY, *args), params))


def test_stop_gradient():
    def program(p, q):
        return numpyro.param("a") * ppvi.stop_gradient(numpyro.param("a")) + 0.0 * q.simulate()["x"]

    def guide():
        numpyro.sample("x", dist.Normal(numpyro.param("a"), 1.0))

    _, grads = vi.objective(program, lambda: None, guide).value_and_grad(KEY, {"a": jnp.array(3.0)})
    assert grads["a"] == 3.0


# Strategies ---------------------------------------------------------------------------------------------------------------


def bernoulli_guide():
    with numpyro.plate("lanes", 3):
        numpyro.sample(
            "z", dist.Bernoulli(logits=numpyro.param("a", jnp.zeros(3))), infer={"strategy": ppvi.Reinforce()}
        )


def bernoulli_model():
    with numpyro.plate("lanes", 3):
        numpyro.sample("z", dist.Bernoulli(0.2))


def chosen(bound):
    return {site.name: site.strategy for site in bound.explain(bound.init(KEY)).sites}


def test_strategies_by_site_by_handler_and_by_objective():
    with_handler = vi.strategies(bernoulli_guide, {"z": ppvi.LeaveOneOut(3)})
    overridden = {"z": ppvi.Enumerate()}
    assert chosen(vi.objective(elbo, bernoulli_model, bernoulli_guide)) == {"z": "Reinforce()"}
    assert chosen(vi.objective(elbo, bernoulli_model, with_handler)) == {"z": "LeaveOneOut(n=3)"}
    assert chosen(vi.objective(elbo, bernoulli_model, with_handler, strategies=overridden)) == {"z": "Enumerate()"}


def test_default_strategies_and_their_reasons():
    def guide():
        a = numpyro.param("a", 0.3)
        numpyro.sample("normal", dist.Normal(a, 1.0))
        numpyro.sample("separable", dist.Bernoulli(logits=a * jnp.ones(3)))
        numpyro.sample("coupled", dist.Bernoulli(logits=a * jnp.ones(3)))
        numpyro.sample("large", dist.Binomial(40, logits=a))
        numpyro.sample("infinite", dist.Poisson(jnp.exp(a)))
        numpyro.sample("circular", dist.VonMises(a, 1.0))

    def program(p, q):
        z = q.simulate()
        return (
            z["normal"] * z["separable"].sum()
            + jax.nn.logsumexp(z["coupled"] * 1.0)
            + z["large"]
            + z["infinite"]
            + z["circular"]
        )

    bound = vi.objective(program, lambda: None, guide)
    sites = {site.name: (site.strategy, site.reason) for site in bound.explain(bound.init(KEY)).sites}
    assert sites["normal"] == ("Reparam()", "reparameterised sampler, support free of parameters")
    assert sites["separable"] == ("Enumerate()", "finite support of 2, lanes separable in every term")
    assert sites["coupled"][0] == "LeaveOneOut()"
    assert "lanes coupled by" in sites["coupled"][1]
    assert sites["large"] == ("LeaveOneOut()", "finite support, but more than 16 values or more than 4096 runs")
    assert sites["infinite"] == ("LeaveOneOut()", "no reparameterised sampler, no finite support")
    assert sites["circular"] == sites["infinite"]
    value, grads = bound.value_and_grad(KEY, bound.init(KEY))
    assert np.isfinite(value)
    assert np.isfinite(grads["a"])


def test_explain_reads_well():
    text = " ".join(str(vi.objective(elbo, bernoulli_model, bernoulli_guide).explain({"a": jnp.zeros(3)})).split())
    assert "Reinforce()" in text
    assert "1 terms, 1 lane by lane, 0 coupled" in text
    assert "own draw" in text
    assert "test_objective.py:" in text


# Calls ----------------------------------------------------------------------------------------------------------------------


def test_calls_compile_once_and_depend_on_their_data():
    traces = []

    def model(y, flag):
        traces.append(flag)
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)

    def guide(y, flag):
        numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.5), 1.0))

    bound = vi.objective(elbo, model, guide)
    params = bound.init(KEY, jnp.array(1.0), True)
    traces.clear()
    first = [bound.value_and_grad(jax.random.key(i), params, jnp.array(1.0 + i), True) for i in range(4)]
    assert len(traces) == 1
    assert len({float(value) for value, _ in first}) == 4
    bound.value_and_grad(KEY, params, jnp.array(1.0), False)
    assert traces == [True, False]
    assert bound.value_and_grad(KEY, params, jnp.array(9.0), True)[0] != first[0][0]


def test_old_style_keys_and_transformations():
    bound = vi.objective(elbo, bernoulli_model, bernoulli_guide)
    params = bound.init(jax.random.PRNGKey(0))
    old = bound.value_and_grad(jax.random.PRNGKey(3), params)
    new = bound.value_and_grad(jax.random.key(3), params)
    jitted = jax.jit(bound.value_and_grad)(jax.random.key(3), params)
    by_hand = jax.value_and_grad(lambda params: bound.surrogate(jax.random.key(3), params))(params)
    for other in (new, jitted, by_hand):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), old, other)
    assert bound.estimate(jax.random.key(3), params) == new[0]


def test_side_effects_are_run():
    seen = []

    def program(p, q):
        z = q.simulate()
        jax.debug.callback(lambda x: seen.append(x.copy()), z["z"])
        return p.log_density(z) - z.log_density

    bound = vi.objective(program, bernoulli_model, bernoulli_guide)
    bound.estimate(KEY, {"a": jnp.zeros(3)})
    jax.effects_barrier()
    assert any(x.shape == (3,) for x in seen)


@pytest.mark.parametrize("stable_update", [False, True])
@pytest.mark.parametrize("progress_bar", [False, True])
def test_as_loss_of_svi(stable_update, progress_bar):
    """SVI on a discrete model with ppvi's loss finds the exact posterior, which its own Trace_ELBO cannot."""

    def model(y):
        with numpyro.plate("data", 4):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("y", dist.Normal(2.0 * z, 1.0), obs=y)

    def guide(y):
        with numpyro.plate("data", 4):
            numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("logits", jnp.zeros(4))))

    y = jnp.array([0.3, -1.2, 2.2, 0.9])
    bound = vi.objective(elbo, model, guide)
    svi = SVI(model, guide, optax.adam(0.1), loss=bound.as_loss())
    result = svi.run(KEY, 2500, y, stable_update=stable_update, progress_bar=progress_bar)
    exact = np.log(0.3 / 0.7) + 2 * np.asarray(y) - 2
    np.testing.assert_allclose(result.params["logits"], exact, atol=0.01)
    assert svi.evaluate(result.state, y) < 10


def observing(sample, rounds=False):
    """The loss of SVI on a model of counts."""

    def model(y):
        rate = jnp.exp(numpyro.sample("rate", dist.Normal(0.0, 1.0)))
        if rounds:
            scan(lambda c, x: (c, numpyro.sample("early", dist.Poisson(rate), obs=x)), 0.0, jnp.ones(2))
        sample(y, rate)

    def guide(y):
        numpyro.sample("rate", dist.Normal(numpyro.param("loc", 0.0), 1.0))

    return SVI(model, guide, optax.adam(0.1), loss=vi.objective(elbo, model, guide).as_loss())


def counts(y, rate, **options):
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Poisson(rate, **options), obs=y)


DATA_OF_SVI = {
    "below zero": (
        counts,
        [-1.0, 0.0, 2.0],
        r"'y' of the model at .*test_objective.py:\d+ observes 1 of 3 values outside",
    ),
    "an infinity": (counts, [0.0, np.inf, 2.0], r"'y' of the model at .*test_objective.py:\d+ observes 1 infinite"),
    "a NaN of the program": (
        lambda y, rate: numpyro.sample("y", dist.Normal(rate, 1.0), obs=jnp.log(y - 1.0).sum()),
        [0.0, 1.0, 2.0],
        r"'y' of the model at .*test_objective.py:\d+ observes 1 NaN",
    ),
}


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("name", DATA_OF_SVI)
@pytest.mark.parametrize("verb", ["run", "update", "evaluate"])
def test_data_that_cannot_be_are_refused_under_svi(name, verb, rounds):
    """As by `init`, which SVI does not call."""
    sample, y, said = DATA_OF_SVI[name]
    svi, y = observing(sample, rounds), jnp.array(y)
    with pytest.raises(ppvi.ProgramError, match=said):
        svi.run(KEY, 2, y, progress_bar=False) if verb == "run" else getattr(svi, verb)(svi.init(KEY, y), y)


def test_a_strategy_that_learns_is_refused_under_svi():
    """Wherever it is named; the state of one at a site began anew with every step."""

    def guide():
        numpyro.sample(
            "z", dist.Bernoulli(logits=numpyro.param("a", 0.3)), infer={"strategy": ppvi.Reinforce(RunningMean())}
        )

    loss = vi.objective(elbo, lambda: numpyro.sample("z", dist.Bernoulli(0.4)), guide).as_loss()
    svi = SVI(lambda: numpyro.sample("z", dist.Bernoulli(0.4)), guide, optax.adam(0.1), loss)
    with pytest.raises(ppvi.StrategyError, match=r"as_loss: Reinforce\(.* of site 'z' learns"):
        svi.run(KEY, 2, progress_bar=False)


FINE_FOR_SVI = {
    "under a mask": lambda y, rate: numpyro.handlers.mask(lambda: counts(y, rate), mask=y >= 0)(),
    "said to be unchecked": lambda y, rate: counts(y, rate, validate_args=False),
    "of a draw": lambda y, rate: numpyro.sample("y", dist.HalfNormal(1.0), obs=-rate),
}


@pytest.mark.parametrize("name", FINE_FOR_SVI)
def test_what_is_no_data_is_left_alone_under_svi(name):
    svi, y = observing(FINE_FOR_SVI[name]), jnp.array([-1.0, 0.0, 2.0])
    losses = svi.run(KEY, 2, y, progress_bar=False).losses
    assert np.isfinite(losses).all() == (name == "under a mask")


def test_a_function_of_jax_nn_after_what_may_be_infinite():
    """Its body takes operands of the shapes that it was traced with: softplus(y) is logaddexp(y, 0)."""
    m = jnp.array([0.3, -0.5, 1.1])

    def program(p, q):
        return jax.nn.softplus(jnp.log(jnp.abs(q.simulate()["x"]))).sum()

    def guide():
        numpyro.sample("x", dist.Normal(numpyro.param("m"), 1.0).to_event(1))

    bound = vi.objective(program, guide, guide)
    value, grads = bound.value_and_grad(KEY, {"m": m})
    # softplus(log |x|) = log(1 + |x|), whose derivative along the path is +-1 / (1 + |x|).
    np.testing.assert_allclose(-jnp.log(jnp.abs(grads["m"])).sum(), value, rtol=1e-5)


def test_zero_has_its_probability_behind_a_hurdle():
    """E 1{x = 0} = gate, and (1 - gate) its derivative in the gate's logit, times gate."""

    def program(p, q):
        return jnp.where(q.simulate()["x"] == 0, 1.0, 0.0).mean()

    def guide():
        with numpyro.plate("rows", 20_000):
            numpyro.sample("x", dist.HurdleGamma(jax.nn.sigmoid(numpyro.param("a")), 2.0, 1.0))

    value, grads = vi.objective(program, guide, guide).value_and_grad(KEY, {"a": jnp.array(-0.5)})
    gate = 1 / (1 + np.exp(0.5))
    np.testing.assert_allclose(value, gate, atol=0.02)
    np.testing.assert_allclose(grads["a"], gate * (1 - gate), atol=0.02)


def test_a_folded_normal_has_a_density_at_its_draws():
    def guide():
        numpyro.sample("x", dist.FoldedDistribution(dist.Normal(numpyro.param("m"), 1.0)))

    bound = vi.objective(lambda p, q: jnp.square(q.simulate()["x"]) + 0 * q.simulate().log_density, guide, guide)
    values, grads = jax.vmap(bound.value_and_grad, (0, None))(jax.random.split(KEY, 4000), {"m": jnp.array(0.4)})
    np.testing.assert_allclose(values.mean(), 1.16, atol=0.15)
    np.testing.assert_allclose(grads["m"].mean(), 0.8, atol=0.2)


def test_a_differential_equation_has_the_gradient_of_its_solution():
    """y' = -z y from 1 is e^-z at 1; the rule of its derivative indexes the times, which are numbers of the text."""

    def solved(z):
        return odeint(lambda y, t, k: -k * y, 1.0, jnp.array([0.0, 1.0]), z)[1]

    def program(solve):
        def model():
            numpyro.sample("x", dist.Normal(solve(numpyro.sample("z", dist.Normal(0.0, 1.0))), 1.0), obs=0.7)

        def guide():
            numpyro.sample("z", dist.Normal(numpyro.param("loc", 0.3), 0.5))

        return vi.objective(ppvi.objectives.elbo, model, guide)

    key, params = jax.random.key(0), {"loc": 0.3}
    found, exact = (program(solve).value_and_grad(key, params) for solve in (solved, lambda z: jnp.exp(-z)))
    np.testing.assert_allclose([found[0], found[1]["loc"]], [exact[0], exact[1]["loc"]], rtol=1e-4)


def test_a_loss_at_no_parameters_has_their_initial_values():
    """As NumPyro's own losses, whose gradient may be one in the arguments that parameters begin at."""

    def model(start):
        numpyro.sample("z", dist.Normal(0.0, 1.0))

    def guide(start):
        loc = numpyro.param("loc", start["loc"])
        scale = numpyro.param("scale", lambda key: start["scale"], constraint=dist.constraints.positive)
        numpyro.sample("z", dist.Normal(loc, scale))

    loss = vi.objective(ppvi.objectives.analytic_elbo, model, guide).as_loss()
    start = {"loc": jnp.array(0.7), "scale": jnp.array(1.3)}
    value, grads = jax.value_and_grad(lambda start: loss.loss(jax.random.key(0), {}, model, guide, start))(start)
    kl = 0.5 * (1.3**2 + 0.7**2 - 1) - np.log(1.3)
    np.testing.assert_allclose([value, grads["loc"], grads["scale"]], [kl, 0.7, 1.3 - 1 / 1.3], rtol=1e-5)
