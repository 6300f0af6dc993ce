"""What people get wrong: each mistake is a typed error that names the thing at fault and the next thing to try."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ppvi
import ppvi.numpyro as vi
from ppvi import EngineError, ProgramError, StrategyError
from ppvi.objectives import elbo, iwelbo, renyi
from ppvi.strategies import RunningMean

KEY = jax.random.key(0)
THETA = {"theta": jnp.array(0.5)}


def model():
    numpyro.sample("x", dist.Normal(0.0, 1.0))


def guide():
    numpyro.sample("x", dist.Normal(numpyro.param("theta", 0.5), 1.0))


def estimate(program=elbo, model=model, guide=guide, params=THETA, args=(), **options):
    return vi.objective(program, model, guide, **options).value_and_grad(KEY, params, *args)


# Sites ------------------------------------------------------------------------------------------------------------------


def test_latent_site_that_the_guide_lacks():
    def model():
        numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("forgotten", dist.Normal(0.0, 1.0))

    with pytest.raises(ProgramError, match=r"latent site 'forgotten' of the model at .*test_errors.py:\d+"):
        estimate(model=model)


def test_guide_site_that_the_model_lacks():
    def guide():
        numpyro.sample("x", dist.Normal(numpyro.param("theta"), 1.0))
        numpyro.sample("extra", dist.Normal(0.0, 1.0))

    with pytest.raises(ProgramError, match=r"'extra', but the model has no such latent site.*is_auxiliary"):
        estimate(guide=guide)


def test_auxiliary_guide_site_is_no_error():
    def guide():
        u = numpyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        numpyro.sample("x", dist.Normal(numpyro.param("theta") + u, 1.0))

    value, grads = estimate(guide=guide)
    assert np.isfinite(value)
    assert grads["theta"] != 0


def test_shape_of_a_latent_site():
    def model():
        numpyro.sample("x", dist.Normal(0.0, 1.0).expand([3]))

    with pytest.raises(ProgramError, match=r"site 'x' of the model at .*has shape \(3,\).*choice has shape \(\)"):
        estimate(model=model)


def test_shape_of_an_observation():
    def model(y):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x + jnp.zeros((8, 1)), 1.0), obs=y)

    with pytest.raises(
        ProgramError, match=r"site 'y' of the model at .*shape \(8,\) does not fit .*batch shape \(8, 1\)"
    ):
        estimate(model=model, guide=lambda y: guide(), args=(jnp.zeros(8),))
    with pytest.raises(ProgramError, match=r"site 'y' of the model at .*shape \(7,\) does not fit"):
        estimate(model=lambda y: model(y) or None, guide=lambda y: guide(), args=(jnp.zeros((3, 7)).T[:, 0],))


def test_nan_data():
    def model(y):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0).expand([4]), obs=y)

    bound = vi.objective(elbo, model, lambda y: guide())
    with pytest.raises(ProgramError, match=r"site 'y' of the model at .*observes 2 NaN among 4 values"):
        bound.init(KEY, jnp.array([1.0, jnp.nan, 2.0, jnp.nan]))


def test_nan_under_a_mask_is_no_error():
    def model(y):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        with numpyro.handlers.mask(mask=~jnp.isnan(y)):
            numpyro.sample("y", dist.Normal(x, 1.0).expand([2]), obs=y)

    bound = vi.objective(elbo, model, lambda y: guide())
    assert bound.init(KEY, jnp.array([1.0, jnp.nan])) == THETA


def test_two_sites_of_one_name():
    def guide():
        numpyro.sample("x", dist.Normal(numpyro.param("theta"), 1.0))
        numpyro.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(ProgramError, match="the guide has two sites named 'x'"):
        estimate(guide=guide)


def test_site_sampled_by_the_objective():
    def program(p, q):
        return numpyro.sample("stray", dist.Normal(0.0, 1.0))

    with pytest.raises(ProgramError, match=r"'stray' at .* is sampled by the objective itself"):
        estimate(program)


def test_site_outside_of_the_plate_asked_for():
    def program(p, q):
        return p.log_density(q.simulate(), per="data").sum()

    with pytest.raises(
        ProgramError, match=r"per plate 'data': no site of this run is in such a plate; its plates are \[\]"
    ):
        estimate(program)


# Parameters -----------------------------------------------------------------------------------------------------------------


def test_guide_without_parameters():
    with pytest.raises(ProgramError, match="neither the guide 'empty' nor the model 'model' declares a parameter"):
        vi.fit(vi.objective(elbo, model, empty), KEY, num_steps=2)


def test_no_parameters_are_evaluated():
    bound = vi.objective(elbo, model, empty)
    params = bound.init(KEY)
    value, grads = bound.value_and_grad(KEY, params)
    assert params == grads == {}
    assert float(value) == float(bound.estimate(KEY, params))
    with pytest.raises(ProgramError, match="nothing to fit or check"):
        bound.check(KEY, params)


def empty():
    numpyro.sample("x", dist.Normal(0.0, 1.0))


def test_missing_parameter():
    with pytest.raises(
        ProgramError,
        match=r"parameter 'theta' of the guide at .*test_errors.py:\d+ is missing from params.*\['other'\]",
    ):
        estimate(params={"other": jnp.array(1.0)})


def test_params_of_the_wrong_kind():
    with pytest.raises(ProgramError, match="params must be a dict"):
        estimate(params=jnp.array(1.0))
    with pytest.raises(ProgramError, match=r"parameter 'theta' is an array of .*int32, which has no gradient"):
        estimate(params={"theta": jnp.array(1)})


def test_fit_from_an_unknown_parameter():
    bound = vi.objective(elbo, model, guide)
    with pytest.raises(ProgramError, match="'thita', which is no parameter of the objective"):
        vi.fit(bound, KEY, params={"thita": 1.0}, num_steps=1, progress=False)


@pytest.mark.parametrize("num_steps", [0, -3, 2.5, True])
def test_number_of_steps(num_steps):
    with pytest.raises(ProgramError, match="num_steps must be an int of at least 1"):
        vi.fit(vi.objective(elbo, model, guide), KEY, num_steps=num_steps)


@pytest.mark.parametrize("key", [0, jnp.zeros(3), jax.random.split(KEY, 3)])
def test_key_that_is_no_key(key):
    bound = vi.objective(elbo, model, guide)
    for call in (lambda: bound.init(key), lambda: vi.fit(bound, key, num_steps=1), lambda: bound.estimate(key, THETA)):
        with pytest.raises(ProgramError, match="the key must be one JAX key, such as"):
            call()


# Objectives --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (lambda z: jnp.stack([z["x"], z["x"]]), r"an array of shape \(2,\)"),
        (lambda z: z["x"] > 0, "dtype bool"),
        (lambda z: None, "None"),
        (lambda z: {"loss": z["x"]}, "dict"),
    ],
)
def test_objective_that_is_no_real_scalar(returned, found):
    def program(p, q):
        return returned(q.simulate())

    with pytest.raises(ProgramError, match=f"objective 'program' returned .*{found}.*one real number"):
        estimate(program)


def test_constant_objective():
    def program(p, q):
        q.simulate()
        return jnp.zeros(())

    with pytest.raises(ProgramError, match=r"does not depend on any parameter of \['theta'\]"):
        estimate(program)


def test_verbs_outside_an_objective():
    with pytest.raises(ProgramError, match="has a meaning inside an objective program only"):
        ppvi.stop_gradient(jnp.zeros(()))


@pytest.mark.parametrize("particles", [0, -1, 2.0, True])
def test_number_of_particles(particles):
    with pytest.raises(ProgramError, match="iwelbo: the number of particles must be an int of at least 1"):
        estimate(iwelbo(particles))


def test_renyi_of_order_one():
    with pytest.raises(ProgramError, match="alpha = 1 is the ELBO"):
        renyi(1.0, particles=2)


def test_an_objective_that_was_not_called():
    with pytest.raises(ProgramError, match=r"'iwelbo' takes \(particles, per\): .* call it first"):
        vi.objective(iwelbo, model, guide)
    with pytest.raises(ProgramError, match=r"objective 'hvi' returned .*, which wants to be called first"):
        vi.objective(ppvi.objectives.hvi, model, guide).init(KEY)


def test_programs_that_are_no_functions():
    with pytest.raises(ProgramError, match="the guide must be a function, not None"):
        vi.objective(elbo, model, None)  # type: ignore[arg-type]


# Strategies ---------------------------------------------------------------------------------------------------------------------


def test_strategy_for_a_site_that_does_not_exist():
    with pytest.raises(
        StrategyError, match=r"strategies name the site 'zz', which the objective never draws; it draws \['x'\]"
    ):
        estimate(strategies={"zz": ppvi.Reinforce()})


def test_strategy_handler_for_a_site_that_does_not_exist():
    with pytest.raises(
        StrategyError, match=r"strategies name the site 'zz', which the program does not have; it has \['x'\]"
    ):
        estimate(guide=vi.strategies(guide, {"zz": ppvi.Reinforce()}))


@pytest.mark.parametrize("strategy", ["Enumrate", 3, None])
def test_unknown_strategy(strategy):
    with pytest.raises(
        StrategyError,
        match=r"is not a gradient strategy; write one of ppvi.strategies, such as Reparam\(\) or Enumerate\(\)",
    ):
        vi.objective(elbo, model, guide, strategies={"x": strategy})


def test_strategy_class_instead_of_strategy():
    with pytest.raises(StrategyError, match=r"Reinforce is a class; write Reinforce\(\)"):
        vi.objective(elbo, model, guide, strategies={"x": ppvi.Reinforce})  # type: ignore[dict-item]


def bernoulli_guide():
    numpyro.sample("x", dist.Bernoulli(logits=numpyro.param("theta")))


@pytest.mark.parametrize(
    ("guide", "strategy", "message"),
    [
        (guide, ppvi.Enumerate(), r"'x' ~ Normal at .*test_errors.py:\d+: Normal has no finite support"),
        (bernoulli_guide, ppvi.Reparam(), "'x' ~ BernoulliLogits at .* has no reparameterised sampler"),
    ],
)
def test_strategy_that_does_not_fit(guide, strategy, message):
    with pytest.raises(StrategyError, match=message):
        estimate(guide=guide, strategies={"x": strategy})


class Forgetful(ppvi.Reinforce):
    def estimate(self, site, k):
        k(site.value)


def test_strategy_that_returns_nothing():
    with pytest.raises(StrategyError, match=r"site 'x': estimate of Forgetful.* returned NoneType; it must"):
        estimate(strategies={"x": Forgetful()})


@pytest.mark.parametrize("n", [1, 0, 2.0])
def test_leave_one_out_of_one(n):
    with pytest.raises(StrategyError, match="LeaveOneOut: n must be an int of at least 2"):
        ppvi.LeaveOneOut(n)


def uniform_guide():
    numpyro.sample("x", dist.Uniform(0.0, numpyro.param("theta")))


@pytest.mark.parametrize("strategies", [None, {"x": ppvi.Reinforce()}, {"x": ppvi.LeaveOneOut(2)}])
def test_support_that_moves_with_a_parameter(strategies):
    """The score function misses the moving end of the support: d/db E x^2 would come out as -1/3 b instead of 2/3 b."""

    def program(p, q):
        return q.simulate()["x"] ** 2

    with pytest.raises(StrategyError, match=r"'x' ~ Uniform at .*its support moves with a parameter.*Name Reparam\(\)"):
        estimate(program, guide=uniform_guide, strategies=strategies)


@pytest.mark.parametrize(
    "make",
    [
        lambda theta: dist.Pareto(theta, 3.0),
        lambda theta: dist.TruncatedNormal(0.0, 1.0, low=theta),
        lambda theta: dist.TruncatedNormal(0.0, 1.0, high=theta),
        lambda theta: dist.Uniform(theta - 1.0, 2.0),
    ],
    ids=["Pareto", "truncated below", "truncated above", "Uniform"],
)
@pytest.mark.parametrize("strategy", [ppvi.Reinforce(), ppvi.LeaveOneOut(2), ppvi.Reinforce(RunningMean())], ids=str)
def test_score_functions_of_other_supports_that_move(make, strategy):
    def guide():
        numpyro.sample("x", make(numpyro.param("theta")))

    with pytest.raises(StrategyError, match="its support moves with a parameter, which biases"):
        estimate(lambda p, q: q.simulate()["x"] ** 2, guide=guide, strategies={"x": strategy})


def test_support_with_fixed_ends_is_no_error():
    def guide():
        numpyro.sample("x", dist.Uniform(jnp.zeros(2), 1.0).to_event(1))
        numpyro.sample("y", dist.TruncatedNormal(numpyro.param("theta"), 1.0, low=jnp.array(0.0)))

    def program(p, q):
        z = q.simulate()
        return z["x"].sum() + z["y"]

    assert np.isfinite(estimate(program, guide=guide)[1]["theta"])


def test_enumeration_of_coupled_lanes():
    def guide():
        numpyro.sample("x", dist.Bernoulli(logits=numpyro.param("theta") * jnp.ones(40)))

    def program(p, q):
        return jax.nn.logsumexp(q.simulate()["x"] * 1.0)

    with pytest.raises(
        StrategyError, match=r"'x' ~ .* at .*1.1e\+12 runs.*coupled by reduce_\w+ at .*test_errors.py:\d+.*LeaveOneOut"
    ):
        estimate(program, guide=guide, strategies={"x": ppvi.Enumerate()})


def test_nested_enumeration_past_the_limit():
    def guide():
        total = numpyro.param("theta")
        for i in range(4):
            total = total + numpyro.sample(f"x{i}", dist.Categorical(logits=total * jnp.arange(16.0))) / 16
        return total

    def program(p, q):
        return jnp.exp(q.simulate().returned)

    strategies = {f"x{i}": ppvi.Enumerate() for i in range(4)}
    with pytest.raises(StrategyError, match=r"'x3' .*6.55e\+04 runs.*nests in other enumerated sites"):
        estimate(program, guide=guide, strategies=strategies)
    assert np.isfinite(estimate(program, guide=guide)[0])


# Draws whose derivative, or whose lanes, have no meaning --------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [ppvi.Reparam(), ppvi.Reinforce()])
def test_site_under_vmap(strategy):
    def program(p, q):
        return jax.vmap(lambda i: q.simulate()["x"] ** 2 + i)(jnp.arange(3.0)).sum()

    with pytest.raises(EngineError, match=r"site 'x' at .*test_errors.py:\d+ is drawn under jax.vmap"):
        estimate(program, strategies={"x": strategy})


def test_site_whose_draw_is_differentiated_by_the_objective():
    def guide(loc):
        numpyro.sample("x", dist.Normal(loc + numpyro.param("theta"), 1.0))

    def program(p, q):
        return jax.grad(lambda loc: q.simulate(loc)["x"] ** 2)(0.3)

    with pytest.raises(EngineError, match=r"site 'x' at .*test_errors.py:\d+ is drawn inside jax.grad"):
        estimate(program, guide=guide)


def test_parameter_first_declared_inside_a_transformation():
    def guide():
        loc = jax.vmap(lambda i: numpyro.param("theta", jnp.zeros(())) * i)(jnp.ones(2))
        numpyro.sample("x", dist.Normal(loc.sum(), 1.0))

    with pytest.raises(EngineError, match=r"parameter 'theta' at .*test_errors.py:\d+ is first declared inside"):
        vi.objective(elbo, model, guide).init(KEY)
    assert np.isfinite(estimate(guide=guide)[0])
