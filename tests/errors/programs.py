"""Mistakes in models, guides and objective programs: sites, parameters and distributions."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions
import pyro
import pyro.distributions
import pytest
import torch

import ppvi
from ppvi import strategies
from ppvi.errors import BiasWarning
from tests.engines import NUMPYRO, PYRO
from tests.errors.table import ENGINE, PROGRAM, STRATEGY, N, mistake, mistakes

HERE = "tests/errors/programs.py:"


def mean(e, name="mean"):
    return e.ppl.sample(name, e.dist.Normal(0.0, 1.0))


def heights(e, y, fn):
    with e.ppl.plate("rows", N):
        return e.ppl.sample("heights", fn, obs=y)


def around(e, location):
    """A model whose data lie around a function of the mean."""

    def model(y):
        heights(e, y, e.dist.Normal(location(mean(e)), 1.0))

    return model


def from_param(e, *value, **options):
    """A guide with a parameter that is declared so."""

    def guide(y):
        e.ppl.sample("mean", e.dist.Normal(e.ppl.param("loc", *value, **options), 1.0))

    return guide


def of(e, fn):
    """A model that samples the mean from what a function returns."""

    def model(y):
        heights(e, y, e.dist.Normal(e.ppl.sample("mean", fn()), 1.0))

    return model


def choice_of(e, distribution, guided):
    """A model and a guide of one site from what functions return."""

    def model(y):
        heights(e, y, e.dist.Normal(e.ppl.sample("which", distribution()) * 1.0, 1.0))

    def guide(y):
        e.ppl.sample("which", guided(e.ppl.param("p", e.xp.zeros(5))))

    return {"model": model, "guide": guide}


# Which program is which, and whose sites are whose ------------------------------------------------------------------------

mistakes(
    PROGRAM,
    ("model and guide swapped", lambda e: e.fit(e.objective(model=e.guide, guide=e.model)), "'heights'", "swapped"),
    ("model as the guide", lambda e: e.gradient(guide=e.model), "'heights'", "the guide observes", "tests/errors/table.py:"),
    ("guide as the model", lambda e: e.gradient(model=lambda y: None), "'mean'", "the model has no such latent site"),
    ("guide of nothing", lambda e: e.gradient(guide=lambda y: e.ppl.param("loc", e.array(0.0))), "'mean'", "Sample it in the guide"),
    ("guide without parameters", lambda e: e.fit(e.objective(guide=lambda y: mean(e))), "declares a parameter", "AutoNormal"),
    ("parameter without use", lambda e: e.gradient(guide=lambda y: (e.ppl.param("loc", e.array(0.0)), mean(e))), "'loc'", "does not depend"),
    ("simulated objective", lambda e: e.gradient(lambda p, q: e.model(e.y)), "'mean'", "sampled by the objective itself"),
    ("site in the objective", lambda e: e.gradient(lambda p, q: mean(e, "extra") + q.simulate().log_density), "'extra'", HERE),
    ("site without a name", lambda e: e.gradient(model=lambda y: e.ppl.sample(e.dist.Normal(0.0, 1.0), "mean")), "Normal", HERE, "names are texts"),
    ("site with a number for a name", lambda e: e.gradient(model=lambda y: mean(e, 0)), "named 0", HERE),
)  # fmt: skip


@mistake(PROGRAM, "the model 'generator'", "yield")
def generator(e):
    def generator(y):
        yield mean(e)

    e.gradient(model=generator)


@mistake(PROGRAM, "two sites named 'mean'", HERE)
def site_twice(e):
    e.gradient(model=lambda y: heights(e, y, e.dist.Normal(mean(e) + mean(e), 1.0)))


@mistake(PROGRAM, "two sites named 'heights'", HERE)
def site_in_a_loop_of_python(e):
    def model(y):
        location = mean(e)
        for x in range(3):
            e.ppl.sample("heights", e.dist.Normal(location, 1.0), obs=y[x])

    e.gradient(model=model)


@mistake(PROGRAM, "two sites named 'mean'", HERE)
def deterministic_of_the_name_of_a_site(e):
    e.gradient(model=around(e, lambda m: e.ppl.deterministic("mean", m)))


@mistake(PROGRAM, "two sites named 'twice'", HERE)
def factor_twice(e):
    def model(y):
        e.ppl.factor("twice", mean(e))
        e.ppl.factor("twice", e.array(1.0))

    e.gradient(model=model)


@mistake(PROGRAM, "'spread'", HERE, "Sample it in the guide", "obs=")
def site_missing_in_the_guide(e):
    def model(y):
        heights(e, y, e.dist.Normal(mean(e), e.ppl.sample("spread", e.dist.HalfNormal(1.0))))

    e.gradient(model=model)


@mistake(PROGRAM, "'spread'", "['mean']", "rename the site", "is_auxiliary")
def site_missing_in_the_model(e):
    def guide(y):
        e.guide(y)
        e.ppl.sample("spread", e.dist.HalfNormal(1.0))

    e.gradient(guide=guide)


@mistake(PROGRAM, "'heights'", "observed in the model", "tests/errors/table.py:")
def site_of_the_data_in_the_guide(e):
    def guide(y):
        e.guide(y)
        with e.ppl.plate("rows", N):
            e.ppl.sample("heights", e.dist.Normal(0.0, 1.0))

    e.gradient(guide=guide)


@mistake(PROGRAM, "'heights'", "obs=", HERE)
def observation_forgotten(e):
    e.gradient(model=lambda y: heights(e, None, e.dist.Normal(mean(e), 1.0)))


@mistake(PROGRAM, "'mean'", "parameter", "site", "rename")
def site_of_the_name_of_a_parameter(e):
    e.gradient(guide=lambda y: e.ppl.sample("mean", e.dist.Normal(e.ppl.param("mean", e.array(0.1)), 1.0)))


@mistake(PROGRAM, "'heights'", "'y'", "numbers")
def observation_by_name(e):
    e.gradient(model=lambda y: e.ppl.sample("heights", e.dist.Normal(mean(e), 1.0), obs="y"))


@mistake(PROGRAM, "'heights'", "obs=", HERE, on=PYRO)
def observation_by_position(e):
    e.gradient(model=lambda y: e.ppl.sample("heights", e.dist.Normal(mean(e), 1.0), y))


@mistake(PROGRAM, "'mean'", "infer", "'parallel'", HERE)
def infer_by_a_text(e):
    e.gradient(model=lambda y: e.ppl.sample("mean", e.dist.Normal(0.0, 1.0), infer="parallel"))


@mistake(STRATEGY, "'mean'", "'reparam'", HERE)
def strategy_by_name_at_the_site(e):
    def guide(y):
        loc = e.ppl.param("loc", e.array(0.1))
        e.ppl.sample("mean", e.dist.Normal(loc, 1.0), infer={"strategy": "reparam"})

    e.gradient(guide=guide)


@mistake(STRATEGY, "'mean'", "ImproperUniform", "no sampler", HERE)
def guide_without_a_sampler(e):
    def guide(y):
        e.ppl.param("loc", e.array(0.1))
        e.ppl.sample("mean", e.dist.ImproperUniform(e.dist.constraints.real, (), ()))

    e.gradient(guide=guide)


@mistake(PROGRAM, "AutoNormal", "'which'", "Enumerate()")
def autoguide_of_discrete_sites(e):
    e.gradient(model=e.discrete, guide=autoguide(e)(e.discrete))


@mistake(PROGRAM, "'mean'", "'slope'")
def autoguide_of_another_model(e):
    e.gradient(guide=autoguide(e)(lambda y: mean(e, "slope")))


@mistake(PROGRAM, "the class AutoNormal", "Pass an instance")
def autoguide_not_made(e):
    e.gradient(guide=autoguide(e))


@mistake(PROGRAM, "'mean'", HERE, "below 10", "AutoNormal keeps", "below 2", "new guide")
def autoguide_of_other_data_that_move_a_support(e):
    def model(y):
        heights(e, y, e.dist.Normal(e.ppl.sample("mean", e.dist.Uniform(0.0, 2 * y.max())), 1.0))

    bound = e.objective(model=model, guide=autoguide(e)(model))
    bound.init(e.key, e.y)
    bound.init(e.key, 5 * e.y)


@mistake(PROGRAM, "'mean'", HERE, "AutoNormal keeps", "low + (high - low) * u")
def autoguide_of_a_support_that_moves_with_another_site(e):
    def model(y):
        high = e.ppl.sample("high", e.dist.HalfNormal(1.0))
        heights(e, y, e.dist.Normal(e.ppl.sample("mean", e.dist.Uniform(0.0, high)), 1.0))

    e.objective(model=model, guide=autoguide(e)(model)).init(e.key, e.y)


def within_scale(e):
    return e.handlers.scale(scale=2.0)


@mistake(PROGRAM, "with scale(...)", "scale(model, ...)")
def handler_around_a_fit(e):
    with within_scale(e):
        e.fit(e.objective())


@mistake(PROGRAM, "with scale(...)", "scale(model, ...)")
def handler_around_a_gradient(e):
    """Staged before it."""
    bound = e.objective()
    bound.value_and_grad(e.key, e.params, e.y)
    with within_scale(e):
        bound.value_and_grad(e.key, e.params, e.y)


@mistake(PROGRAM, "with plate(...)", "put it into")
def plate_around_a_fit(e):
    with e.ppl.plate("rows", N):
        e.fit(e.objective())


def autoguide(e):
    return (numpyro if e.is_numpyro else pyro).infer.autoguide.AutoNormal


# Kinds and supports -------------------------------------------------------------------------------------------------------


@mistake(PROGRAM, "'mean'", "discrete in the guide", "continuous in the model", HERE)
def discrete_in_the_guide_only(e):
    e.gradient(guide=lambda y: e.ppl.sample("mean", e.dist.Bernoulli(probs=e.ppl.param("p", e.array(0.3)))))


@mistake(PROGRAM, "'which'", "discrete in the model", "continuous in the guide", HERE)
def discrete_in_the_model_only(e):
    e.gradient(
        model=e.discrete, guide=lambda y: e.ppl.sample("which", e.dist.Normal(e.ppl.param("p", e.array(0.3)), 1.0))
    )


def positive_by_a_normal(e):
    return choice_of(e, lambda: e.dist.HalfNormal(1.0), lambda p: e.dist.Normal(p[0], 1.0))


mistakes(
    BiasWarning,
    ("positive site by a Normal", lambda e: e.fit(e.objective(**positive_by_a_normal(e))), "'which'", "HalfNormal", "Normal in the guide", HERE),
    ("unit interval by a LogNormal", lambda e: e.fit(e.objective(**choice_of(e, lambda: e.dist.Beta(e.array(1.0), e.array(1.0)), lambda p: e.dist.LogNormal(p[0], 1.0)))), "'which'", "Beta", "LogNormal"),
    ("three categories by five", lambda e: e.fit(e.objective(**choice_of(e, lambda: e.dist.Categorical(logits=e.xp.zeros(3)), lambda p: e.dist.Categorical(logits=p)))), "'which'", "Categorical", HERE),
    ("two values by a Poisson", lambda e: e.fit(e.objective(**choice_of(e, lambda: e.dist.Bernoulli(probs=e.array(0.3)), lambda p: e.dist.Poisson(e.xp.exp(p[0]))))), "'which'", "Bernoulli", "Poisson"),
    on=NUMPYRO,
)  # fmt: skip
mistakes(
    BiasWarning,
    ("positive site by a Normal of Pyro", lambda e: e.fit(e.objective(**positive_by_a_normal(e))), "'which'", "HalfNormal", "Normal in the guide", HERE),
    ("two values by a Poisson of Pyro", lambda e: e.fit(e.objective(**choice_of(e, lambda: e.dist.Bernoulli(probs=e.array(0.3)), lambda p: e.dist.Poisson(p[0].exp())))), "'which'", "Bernoulli", "Poisson"),
    on=PYRO,
)  # fmt: skip


@mistake(PROGRAM, "'which'", "Categorical", "on the same support", HERE, on=PYRO)
def three_categories_by_five_of_pyro(e):
    e.gradient(
        **choice_of(e, lambda: e.dist.Categorical(logits=e.xp.zeros(3)), lambda p: e.dist.Categorical(logits=p)),
        strategies={"which": strategies.Enumerate()},
    )


@mistake(ppvi.FitError, "'which'", "HalfNormal", "drawn from Normal", "on the same support")
def fit_beyond_a_support(e):
    with pytest.warns(BiasWarning):
        e.fit(e.objective(**positive_by_a_normal(e)), num_steps=50)


# Parameters ---------------------------------------------------------------------------------------------------------------

mistakes(
    PROGRAM,
    ("parameter from an int", lambda e: e.gradient(guide=from_param(e, 1)), "'loc'", "starts from 1", "1.0", HERE),
    ("parameter from truth", lambda e: e.gradient(guide=from_param(e, True)), "'loc'", "True", HERE),
    ("parameter from whole numbers", lambda e: e.gradient(guide=from_param(e, e.xp.zeros(3, dtype=e.xp.int32))), "'loc'", "int32", "(3,)"),
    ("parameter from a text", lambda e: e.gradient(guide=from_param(e, "0.1")), "'loc'", "'0.1'", HERE),
    ("parameter from texts", lambda e: e.gradient(guide=from_param(e, ["a"])), "'loc'", "'a'"),
    ("parameter from a list", lambda e: e.gradient(guide=from_param(e, [0.1, 0.2])), "'loc'", "list of length 2", "array"),
    ("parameter from None", lambda e: e.gradient(guide=from_param(e, None)), "'loc'", "no initial value", HERE),
    ("parameter without a value", lambda e: e.gradient(guide=from_param(e)), "'loc'", "param('loc', value)", HERE),
    ("parameter from NaN", lambda e: e.gradient(guide=from_param(e, e.array(float("nan")))), "'loc'", "NaN", HERE),
    ("parameter from infinity", lambda e: e.gradient(guide=from_param(e, float("inf"))), "'loc'", "infinity"),
    ("parameter from a complex number", lambda e: e.gradient(guide=from_param(e, 1j)), "'loc'", "1j", "real"),
    ("parameter from a distribution", lambda e: e.gradient(guide=from_param(e, e.dist.Normal(0.0, 1.0))), "'loc'", "a Normal"),
    ("parameter from a function of whole numbers", lambda e: e.gradient(guide=from_param(e, lambda *key: e.xp.zeros(2, dtype=e.xp.int32))), "'loc'", "int32"),
    ("parameter named by a number", lambda e: e.gradient(guide=lambda y: e.ppl.param(0, e.array(0.1))), "named 0", "param(name, value)", HERE),
    ("parameter without a name", lambda e: e.gradient(guide=lambda y: e.ppl.param(e.array(0.1))), "named a", "shape ()", HERE),
    ("constraint by name", lambda e: e.gradient(guide=from_param(e, e.array(0.1), constraint="positive")), "'loc'", "'positive'", "constraints.positive"),
    ("constraint as a class", lambda e: e.gradient(guide=from_param(e, e.array(0.1), constraint=e.dist.constraints.interval)), "'loc'", "the class", "constraints.interval(0.0, 1.0)"),
    ("constraint that is a distribution", lambda e: e.gradient(guide=from_param(e, e.array(0.1), constraint=e.dist.HalfNormal(1.0))), "'loc'", "HalfNormal"),
    ("constraint of the other library", lambda e: e.gradient(guide=from_param(e, e.array(0.1), constraint=foreign(e).constraints.positive)), "'loc'", "constraint"),
    ("constraint to whole numbers", lambda e: e.gradient(guide=from_param(e, e.array(1.0), constraint=e.dist.constraints.nonnegative_integer)), "'loc'", "continuously"),
    ("start below a constraint", lambda e: e.gradient(guide=from_param(e, e.array(-0.1), constraint=e.dist.constraints.positive)), "'loc'", "positive", HERE),
    ("start beyond an interval", lambda e: e.gradient(guide=from_param(e, e.array(3.0), constraint=e.dist.constraints.interval(0.0, 1.0))), "'loc'", "Interval"),
)  # fmt: skip


def foreign(e):
    """The distributions of the other library."""
    return pyro.distributions if e.is_numpyro else numpyro.distributions


@mistake(PROGRAM, "'weights'", "outside of its constraint", "Simplex", HERE)
def start_off_the_simplex(e):
    def guide(y):
        weights = e.ppl.param("weights", e.xp.ones(3), constraint=e.dist.constraints.simplex)
        e.ppl.sample("mean", e.dist.Normal(weights[0], 1.0))

    e.gradient(guide=guide)


@mistake(PROGRAM, "MultivariateNormal of the model", "loc has shape (2, 3)", "(5, 3, 3)", HERE)
def matrices_that_do_not_go_together(e):
    def model(y):
        e.ppl.sample(
            "mean", e.dist.MultivariateNormal(e.xp.zeros((2, 3)), scale_tril=e.xp.ones((5, 1, 1)) * e.xp.eye(3))
        )

    e.gradient(model=model)


@mistake(PROGRAM, "'loc'", "two shapes", "()", "(3,)", HERE)
def parameter_of_two_shapes(e):
    def guide(y):
        first, second = e.ppl.param("loc", e.array(0.1)), e.ppl.param("loc", e.xp.zeros(3))
        e.ppl.sample("mean", e.dist.Normal(first + second.sum(), 1.0))

    e.gradient(guide=guide)


@mistake(PROGRAM, "'loc'", "two shapes", "in the guide at", "in the model at")
def parameter_of_two_shapes_in_two_programs(e):
    e.gradient(model=around(e, lambda m: m + e.ppl.param("loc", e.xp.zeros(3)).sum()))


@mistake(PROGRAM, "'loc'", "two constraints", HERE)
def parameter_of_two_constraints(e):
    def guide(y):
        loc = e.ppl.param("loc", e.array(0.1))
        e.ppl.sample(
            "mean", e.dist.Normal(loc, e.ppl.param("loc", e.array(0.1), constraint=e.dist.constraints.positive))
        )

    e.gradient(guide=guide)


@mistake(PROGRAM, "'loc'", "(3,)", "(5,)", "init")
def parameter_of_another_shape_in_another_call(e):
    bound = e.objective(
        model=lambda y: mean(e),
        guide=lambda y: e.ppl.sample("mean", e.dist.Normal(e.ppl.param("loc", e.xp.zeros(len(y))).sum(), 1.0)),
    )
    bound.value_and_grad(e.key, bound.init(e.key, e.y), e.y[:3])


@mistake(TypeError, "param() takes", "the guide guide", on=NUMPYRO)
def constraint_by_position(e):
    def guide(y):
        e.ppl.param("loc", jnp.array(0.1), e.dist.constraints.positive)

    e.gradient(guide=guide)


# Distributions ------------------------------------------------------------------------------------------------------------

mistakes(
    PROGRAM,
    ("number for a distribution", lambda e: e.gradient(model=of(e, lambda: 0.5)), "'mean'", "0.5", "dist.Normal", HERE),
    ("None for a distribution", lambda e: e.gradient(model=of(e, lambda: None)), "'mean'", "None", HERE),
    ("text for a distribution", lambda e: e.gradient(model=of(e, lambda: "Normal")), "'mean'", "'Normal'", HERE),
    ("class for a distribution", lambda e: e.gradient(model=of(e, lambda: e.dist.Normal)), "'mean'", "the class Normal", "call it", HERE),
    ("function for a distribution", lambda e: e.gradient(model=of(e, lambda: lambda: 0.3)), "'mean'", "the function", HERE),
    ("array for a distribution", lambda e: e.gradient(model=of(e, lambda: e.array(0.3))), "'mean'", "shape ()", HERE),
    ("distribution of the other library", lambda e: e.gradient(model=of(e, lambda: foreign(e).Normal(0.0, 1.0))), "'mean'", "a Normal of", HERE),
    ("distribution of the other library in the guide", lambda e: e.gradient(guide=lambda y: (e.ppl.param("loc", e.array(0.0)), e.ppl.sample("mean", foreign(e).Normal(0.0, 1.0)))), "'mean'", "a Normal of"),
    ("sample of the other library", lambda e: e.gradient(guide=lambda y: other(e).sample("mean", foreign(e).Normal(0.0, 1.0))), "'mean'", "write its programs with", HERE),
    ("param of the other library", lambda e: e.gradient(guide=lambda y: other(e).param("loc", torch.tensor(0.0) if e.is_numpyro else jnp.array(0.0))), "'loc'", "write its programs with", HERE),
    ("plate of the other library", lambda e: e.gradient(model=lambda y: other(e).plate("rows", N).__enter__()), "'rows'", "write its programs with", HERE),
    ("scale below zero", lambda e: e.gradient(model=of(e, lambda: e.dist.Normal(0.0, -1.0))), "Normal", "scale", "positive", HERE),
    ("probability beyond one", lambda e: e.gradient(model=of(e, lambda: e.dist.Bernoulli(probs=e.array(1.4))), guide=lambda y: e.ppl.sample("mean", e.dist.Bernoulli(logits=e.ppl.param("p", e.array(0.0))))), "Bernoulli", "probs", HERE),
)  # fmt: skip


def other(e):
    return pyro if e.is_numpyro else numpyro


@mistake(PROGRAM, "torch", "'mean'", "pyro.distributions", HERE, on=PYRO)
def distribution_of_torch(e):
    e.gradient(model=of(e, lambda: torch.distributions.Normal(0.0, 1.0)))


mistakes(
    PROGRAM,
    ("probabilities that do not sum to one", lambda e: e.gradient(model=of(e, lambda: e.dist.Categorical(probs=jnp.array([0.5, 0.9])))), "probs", "Simplex", HERE),
    ("covariance that is none", lambda e: e.gradient(model=of(e, lambda: e.dist.MultivariateNormal(jnp.zeros(2), jnp.array([[1.0, 2.0], [2.0, 1.0]])))), "MultivariateNormal", "covariance_matrix", "PositiveDefinite", HERE),
    on=NUMPYRO,
)  # fmt: skip


@mistake(ppvi.FitError, "'mean' of the guide", "scale", "positive", on=NUMPYRO)
def scale_without_a_constraint(e):
    guide = lambda y: e.ppl.sample("mean", e.dist.Normal(0.0, e.ppl.param("scale", jnp.array(-1.0))))  # noqa: E731
    e.fit(e.objective(guide=guide))


@mistake(PROGRAM, "'mean' of the guide", "scale", "positive", HERE, on=PYRO)
def scale_without_a_constraint_of_pyro(e):
    guide = lambda y: e.ppl.sample("mean", e.dist.Normal(0.0, e.ppl.param("scale", torch.tensor(-1.0))))  # noqa: E731
    e.gradient(guide=guide)


@mistake(TypeError, "unexpected keyword argument", "the model model")
def keyword_of_a_distribution(e):
    e.gradient(model=of(e, lambda: e.dist.Normal(mean=0.0, std=1.0)))


@mistake(PROGRAM, "Normal of the model", "loc has shape (3,)", "scale has shape (4,)", HERE)
def shapes_that_do_not_broadcast(e):
    e.gradient(model=lambda y: heights(e, y, e.dist.Normal(mean(e) * e.xp.ones(3), e.xp.ones(4))), guide=e.guide)


# Texts, names and shapes in other statements ------------------------------------------------------------------------------


def after(e, statement):
    """One gradient of the model with a further statement."""
    return e.gradient(model=lambda y: (e.model(y), statement()))


mistakes(
    PROGRAM,
    ("deterministic named by its value", lambda e: after(e, lambda: e.ppl.deterministic(e.array(1.0), "twice")), "deterministic(name, value)", HERE),
    ("factor of a text", lambda e: after(e, lambda: e.ppl.factor("penalty", "x")), "'penalty'", "'x'", "log_factor", HERE),
    ("factor named by its value", lambda e: after(e, lambda: e.ppl.factor(e.array(1.0), "penalty")), "named a", HERE),
    ("scale of another number of rows", lambda e: e.gradient(model=lambda y: scaled(e, y)), "'heights'", "scale", "(3,)", "(5,)"),
    ("mask of another number of rows", lambda e: e.gradient(model=lambda y: masked(e, y)), "'heights'", "mask", "(3,)", "(5,)", HERE),
    ("ints beyond 64 bits", lambda e: e.gradient(args=([10**30] * N,)), "'heights'", "64 bits", "floats"),
    ("objective without a guide", lambda e: e.fit(e.objective(lambda p, q: p.simulate().log_density)), "as the objective runs them", "q.simulate()"),
    ("handle of a program of no arguments", lambda e: e.gradient(lambda p, q: ppvi.handle(nothing).simulate().log_density), "nothing()", "too many positional"),
)  # fmt: skip


def nothing():
    """A program without arguments."""


def scaled(e, y):
    where = mean(e)
    with e.handlers.scale(scale=e.array([1.0, 2.0, 3.0])):
        heights(e, y, e.dist.Normal(where, 1.0))


def masked(e, y):
    where = mean(e)
    with e.ppl.plate("rows", N), e.handlers.mask(mask=e.xp.asarray([True, False, True])):
        e.ppl.sample("heights", e.dist.Normal(where, 1.0), obs=y)


@mistake(ENGINE, "a traced array of an earlier run", on=NUMPYRO)
def draw_kept_from_an_earlier_run(e):
    kept = []

    def model(y):
        kept.append(mean(e))
        heights(e, y + 0.0 * kept[0], e.dist.Normal(kept[-1], 1.0))

    e.gradient(model=model)
