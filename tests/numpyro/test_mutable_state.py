"""Modules that keep a state beside their parameters: it moves once with each gradient, and is a constant elsewhere."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flax import nnx
from numpyro.contrib.control_flow import scan
from numpyro.contrib.module import flax_module, nnx_module, random_flax_module
from numpyro.infer import SVI, Predictive, Trace_ELBO, init_to_value
from numpyro.infer.autoguide import AutoDelta, AutoNormal
from numpyro.primitives import mutable

import ppvi
import ppvi.numpyro as vi
from ppvi.objectives import elbo, iwelbo

KEY = jax.random.key(0)
X = jnp.array([0.1, -1.0, 2.0, 0.4])
MOMENTUM = 0.9


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        h = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM)(nn.Dense(3)(x))
        return nn.Dense(1)(h)[:, 0]


class Nnx(nnx.Module):
    def __init__(self, *, rngs):
        self.first, self.last = nnx.Linear(1, 3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(3, momentum=MOMENTUM, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(self.norm(self.first(x))))[:, 0]


def model(x, train=True):
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def encoded(loc):
    with numpyro.plate("rows", len(loc)):
        numpyro.sample("z", dist.Normal(loc, 0.5))


def guide(x, train=True):
    net = flax_module("net", Encoder(), input_shape=(4, 1), mutable=["batch_stats"])
    encoded(net(x[:, None], train=train))


def nnx_guide(x, train=True):
    encoded(nnx_module("net", Nnx(rngs=nnx.Rngs(0)))(x[:, None]))


def statistics(state):
    [norm] = state["net$state"]["batch_stats"].values()
    return norm


def dense(params, x):
    return x[:, None] @ params["net$params"]["Dense_0"]["kernel"] + params["net$params"]["Dense_0"]["bias"]


def fitted(bound, steps, **options):
    return vi.fit(bound, KEY, X, num_steps=steps, progress=False, **options)


def assert_same(one, other):
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)


def test_an_update_moves_the_statistics_once():
    bound = vi.objective(iwelbo(3), model, guide)
    params = bound.init(KEY, X)
    states = bound.states(params, X)
    value, grads, after = bound.update(KEY, params, states, X)
    assert list(grads) == ["net$params"]
    assert_same(statistics(states.modules), {"mean": np.zeros(3), "var": np.ones(3)})
    h = dense(params, X)
    np.testing.assert_allclose(statistics(after.modules)["mean"], (1 - MOMENTUM) * h.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics(after.modules)["var"], MOMENTUM + (1 - MOMENTUM) * h.var(0), rtol=1e-5)
    assert float(value) == float(bound.value_and_grad(KEY, params, X)[0])


def test_a_fit_moves_a_state_once_with_each_gradient_whatever_runs_there_are():
    def counting(x):
        count = mutable("count", {"runs": jnp.array(0)})
        count["runs"] = count["runs"] + 1
        assert mutable("count")["runs"] is count["runs"]
        with numpyro.plate("rows", 4):
            numpyro.sample("z", dist.Normal(numpyro.param("loc", 0.0), 1.0))

    def twice(p, q):
        z = q.simulate()
        return p.log_density(z) - q.log_density(z)

    for objective in (elbo, iwelbo(5), twice):
        bound = vi.objective(objective, model, counting)
        assert fitted(bound, 7).params["count"]["runs"] == 7
    pairs = [(bound, ["loc"]), (bound, ["loc"])]
    assert fitted(pairs, 7).params["count"]["runs"] == 14


def test_evaluation_after_a_fit_has_its_statistics():
    bound = vi.objective(elbo, model, guide)
    fit = fitted(bound, 20)

    def by_hand(x, train=True):
        norm, net = statistics(fit.params), fit.params["net$params"]
        h = (dense(fit.params, x) - norm["mean"]) / jnp.sqrt(norm["var"] + 1e-5)
        h = h * net["BatchNorm_0"]["scale"] + net["BatchNorm_0"]["bias"]
        encoded((h @ net["Dense_1"]["kernel"])[:, 0] + net["Dense_1"]["bias"])

    exact = vi.objective(elbo, model, by_hand).estimate(KEY, {}, X)
    assert float(bound.estimate(KEY, fit.params, X, train=False)) == pytest.approx(float(exact), rel=1e-5)
    assert (
        float(bound.estimate(KEY, fit.params | {"net$state": bound.states(fit.params, X).modules["net$state"]}, X))
        != exact
    )
    draws = bound.on(X, train=False)
    mine = vi.posterior(draws, KEY, fit.params, draws=4000).posterior["z"].mean(("chain", "draw"))
    theirs = Predictive(guide, params=fit.params, num_samples=4000)(KEY, X, train=False)["z"].mean(0)
    np.testing.assert_allclose(mine, theirs, atol=6 * 0.5 * np.sqrt(2 / 4000))


def test_a_fit_goes_on_with_its_state(tmp_path):
    bound = vi.objective(elbo, model, guide)
    whole, half = fitted(bound, 12), fitted(bound, 5, checkpoint=tmp_path)
    assert_same(fitted(bound, 7, state=half).params, whole.params)
    assert_same(fitted(bound, 7, state=ppvi.load(tmp_path, bound, X)).params, whole.params)
    begun = statistics(fitted(bound, 1, params=whole.params).params)["mean"]
    mean = MOMENTUM * statistics(whole.params)["mean"] + (1 - MOMENTUM) * dense(whole.params, X).mean(0)
    np.testing.assert_allclose(begun, mean, rtol=1e-5)


def test_svi_carries_the_state():
    bound = vi.objective(elbo, model, guide)
    mine, theirs = (SVI(model, guide, optax.adam(0.01), loss) for loss in (bound.as_loss(), Trace_ELBO()))
    mine, theirs = (svi.run(KEY, 30, X, progress_bar=False).state.mutable_state for svi in (mine, theirs))
    for x, y in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, atol=0.1)


@pytest.mark.parametrize("autoguide", [AutoDelta, AutoNormal])
def test_svi_carries_the_state_of_a_model_beside_an_autoguide(autoguide):
    """Whose initial values are computed, as SVI traces its loss: the first loss and the statistics are those of NumPyro's own.

    At one point there is nothing random; of AutoNormal the scale is so small that draws make no difference.
    """

    def network(x):
        net = flax_module("net", Encoder(), input_shape=(4, 1), mutable=["batch_stats"])
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(net(x[:, None]), scale), obs=x)

    options = {} if autoguide is AutoDelta else {"init_scale": 1e-6}
    point = autoguide(network, init_loc_fn=init_to_value(values={"scale": 0.7}), **options)
    losses = vi.objective(elbo, network, point).as_loss(), Trace_ELBO()
    mine, theirs = (SVI(network, point, optax.sgd(1e-3), loss).run(KEY, 3, X, progress_bar=False) for loss in losses)
    atol = 0 if autoguide is AutoDelta else 10.0  # log q of the draws
    np.testing.assert_allclose(mine.losses, theirs.losses, rtol=1e-4, atol=atol)
    for x, y in zip(*(jax.tree.leaves(run.state.mutable_state) for run in (mine, theirs)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_random_module_has_the_density_that_numpyro_gives_it():
    def network(x):
        net = random_flax_module("net", Encoder(), dist.Normal(0.0, 1.0), input_shape=(4, 1), mutable=["batch_stats"])
        numpyro.sample("x", dist.Normal(net(x[:, None]), 1.0).to_event(1), obs=x)

    point = AutoDelta(network)
    bound = vi.objective(elbo, network, point)
    params = bound.init(KEY, X)
    states = bound.states(params, X).modules
    loss = Trace_ELBO().loss(KEY, params | states, network, point, X)
    assert float(bound.estimate(KEY, params, X)) == pytest.approx(-float(loss), rel=1e-5)


def test_modules_of_nnx_and_their_dropout():
    bound = vi.objective(elbo, model, nnx_guide)
    fit, params = fitted(bound, 5), bound.init(KEY, X)
    counts = [int(x) for x in jax.tree.leaves(fit.params["net$state"]) if x.dtype == jnp.uint32 and x.shape == ()]
    assert max(counts) >= 5
    states = [{"net$state": fitted(bound, n).params["net$state"]} for n in (1, 2, 3)]
    assert len({float(bound.estimate(KEY, params | state, X)) for state in states}) == 3  # with a mask each
    assert bound.explain(fit.params, X).sites[0].name == "z"


def test_a_state_beside_a_loop():
    def looped(x):
        net = flax_module("net", Encoder(), input_shape=(4, 1), mutable=["batch_stats"])
        loc = net(x[:, None])

        def step(before, at):
            z = numpyro.sample("z", dist.Normal(loc[at], 0.5))
            return z, None

        scan(step, 0.0, jnp.arange(4))

    def series(x):
        def step(before, at):
            z = numpyro.sample("z", dist.Normal(before, 1.0))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x[at])
            return z, None

        scan(step, 0.0, jnp.arange(4))

    bound = vi.objective(elbo, series, looped)
    params = bound.init(KEY, X)
    *_, after = bound.update(KEY, params, bound.states(params, X), X)
    np.testing.assert_allclose(statistics(after.modules)["mean"], (1 - MOMENTUM) * dense(params, X).mean(0), rtol=1e-5)


def test_a_state_of_draws():
    """A decoder's batch norm sees what is drawn."""

    def decoder(x):
        net = flax_module("net", Encoder(), input_shape=(4, 1), mutable=["batch_stats"])
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(net(z[:, None]), 1.0), obs=x)

    def far(x):
        with numpyro.plate("rows", len(x)):
            numpyro.sample("z", dist.Normal(numpyro.param("loc", 5.0), 1e-4))

    bound = vi.objective(elbo, decoder, far)
    params = bound.init(KEY, X)
    *_, after = bound.update(KEY, params, bound.states(params, X), X)
    expected = (1 - MOMENTUM) * dense(params, jnp.full(4, 5.0)).mean(0)
    np.testing.assert_allclose(statistics(after.modules)["mean"], expected, rtol=1e-3, atol=1e-4)


def followed():
    """A running mean of a parameter, which begins as the parameter is."""
    now = numpyro.param("now", lambda key: jax.random.normal(key, (2,)))
    mean = mutable("mean", {"of": jax.lax.stop_gradient(now)})
    mean["of"] = 0.9 * mean["of"] + 0.1 * jax.lax.stop_gradient(now)
    numpyro.sample("z", dist.Normal(now.sum(), 1.0))


def test_a_state_that_begins_as_a_parameter_begins_as_that_which_is_given():
    bound = vi.objective(elbo, lambda: numpyro.sample("z", dist.Normal(0.0, 1.0)), followed)
    options = {"num_steps": 1, "optimizer": optax.sgd(0.0), "progress": False}
    given = {"now": jnp.array([5.0, -2.0])}
    bound.init(KEY)
    np.testing.assert_allclose(bound.states(given).modules["mean"]["of"], given["now"])
    np.testing.assert_allclose(vi.fit(bound, KEY, params=given, **options).params["mean"]["of"], given["now"])
    apart = {"mean": {"of": jnp.array([1.0, 1.0])}}
    np.testing.assert_allclose(bound.states(given | apart).modules["mean"]["of"], 1.0)
    fit = vi.fit(bound, KEY, params=given | apart, **options)
    np.testing.assert_allclose(fit.params["mean"]["of"], 0.9 + 0.1 * given["now"], rtol=1e-6)
    fit = vi.fit(bound, KEY, **options)
    np.testing.assert_allclose(fit.params["mean"]["of"], fit.params["now"], rtol=1e-6)


def test_each_start_has_a_state_of_its_own():
    bound = vi.objective(elbo, lambda: numpyro.sample("z", dist.Normal(0.0, 1.0)), followed)
    options = {"num_starts": 3, "num_steps": 1, "optimizer": optax.sgd(0.0), "progress": False}
    fits = [vi.fit(bound, jax.random.key(seed), **options) for seed in range(4)]
    for fit in fits:
        np.testing.assert_allclose(fit.params["mean"]["of"], fit.params["now"], rtol=1e-6)
    assert len({fit.chosen.start for fit in fits}) > 1
