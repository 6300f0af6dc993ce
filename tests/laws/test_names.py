"""A name means one thing: guides and models that disagree on what a site or a parameter is are refused, with both places."""

import numpy as np
import pyro
import pytest

import ppvi
from ppvi.errors import ProgramError
from tests.engines import ENGINES, PYRO, dist, on, ppl, xp

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
each_verb = pytest.mark.parametrize("verb", ["init", "value_and_grad"])
HERE = r"at \S+\.py:\d+"


def asked(engine, model, guide, verb="init", params=None):
    bound = engine.vi.objective(ppvi.objectives.elbo, model, guide)
    if verb == "init":
        return bound.init(engine.key(0))
    return bound.value_and_grad(engine.key(0), params or {"m": engine.array(0.3)})


def site(make):
    def program():
        ppl.param("m", xp.array(0.3))
        ppl.sample("z", make())

    return program


def normal():
    return dist.Normal(ppl.param("m", xp.array(0.3)), 1.0)


def bernoulli():
    return dist.Bernoulli(logits=ppl.param("m", xp.array(0.3)))


KINDS = {
    "Bernoulli": lambda: dist.Bernoulli(0.4),
    "Poisson": lambda: dist.Poisson(2.0),
    "Categorical": lambda: dist.Categorical(xp.array([0.2, 0.8])),
}


@pytest.mark.parametrize("name", KINDS)
@each_verb
@each_engine
def test_discrete_in_the_model_and_continuous_in_the_guide(engine, verb, name):
    said = f"site 'z' is discrete in the model {HERE} and continuous in the guide {HERE}"
    with on(engine), pytest.raises(ProgramError, match=said):
        asked(engine, site(KINDS[name]), site(normal), verb)


@each_verb
@each_engine
def test_continuous_in_the_model_and_discrete_in_the_guide(engine, verb):
    said = f"site 'z' is discrete in the guide {HERE} and continuous in the model {HERE}"
    with on(engine), pytest.raises(ProgramError, match=said):
        asked(engine, site(lambda: dist.Normal(0.0, 1.0)), site(bernoulli), verb)


@each_engine
def test_discrete_under_plates_and_events(engine):
    def model():
        with ppl.plate("data", 3):
            ppl.sample("z", dist.Bernoulli(0.4 * xp.ones(2)).to_event(1))

    def guide():
        with ppl.plate("data", 3):
            ppl.sample("z", dist.Normal(ppl.param("m", xp.zeros(2)), 1.0).to_event(1))

    with on(engine), pytest.raises(ProgramError, match="site 'z' is discrete in the model"):
        asked(engine, model, guide)


@each_engine
def test_a_point_mass_is_either(engine):
    """log N(3/10; 0, 1) + log Bernoulli(1; 0.4), of two point masses."""

    def model():
        ppl.sample("z", dist.Normal(0.0, 1.0))
        ppl.sample("c", dist.Bernoulli(0.4))

    def guide():
        ppl.sample("z", dist.Delta(ppl.param("m", xp.array(0.3))))
        ppl.sample("c", dist.Delta(xp.array(1.0)))

    with on(engine):
        value, grads = asked(engine, model, guide, "value_and_grad")
    np.testing.assert_allclose(float(value), -0.5 * np.log(2 * np.pi) - 0.045 + np.log(0.4), rtol=1e-5)
    np.testing.assert_allclose(float(grads["m"]), -0.3, rtol=1e-5)


@each_engine
def test_a_site_that_the_model_observes(engine):
    def model():
        ppl.sample("z", dist.Normal(0.0, 1.0), obs=xp.array(1.0))

    with on(engine), pytest.raises(ProgramError, match=f"the choices have 'z', which is observed in the model {HERE}"):
        asked(engine, model, site(normal))


@each_engine
def test_a_site_that_the_guide_observes(engine):
    def guide():
        ppl.param("m", xp.array(0.3))
        ppl.sample("z", dist.Normal(0.0, 1.0), obs=xp.array(1.0))

    said = f"latent site 'z' of the model {HERE}, which is observed in the guide {HERE}"
    with on(engine), pytest.raises(ProgramError, match=said):
        asked(engine, site(lambda: dist.Normal(0.0, 1.0)), guide)


# Parameters ------------------------------------------------------------------------------------------------------------------


def declared(start, **options):
    def program():
        w = ppl.param("w", start() if callable(start) else start, **{name: make() for name, make in options.items()})
        ppl.sample("z", dist.Normal(xp.sum(w), 1.0))

    return program


def positive():
    return dist.constraints.positive


SHAPES = {
    "arrays": (lambda: xp.zeros(2), lambda: xp.zeros(3)),
    "an array and a number": (lambda: xp.zeros(2), lambda: xp.array(0.0)),
}


@pytest.mark.parametrize("name", SHAPES)
@each_verb
@each_engine
def test_a_parameter_of_two_shapes(engine, verb, name):
    one, other = SHAPES[name]
    said = f"parameter 'w' has two shapes: .*in the guide {HERE}, and .*in the model {HERE}"
    with on(engine), pytest.raises(ProgramError, match=said):
        asked(engine, declared(other), declared(one), verb, {"w": one() * 1.0})


@each_engine
def test_a_parameter_of_two_shapes_that_are_made_when_asked_for(engine):
    def program(size):
        def made():
            w = (
                pyro.param("w", lambda: xp.zeros(size))
                if engine is PYRO
                else ppl.param("w", lambda key: xp.zeros(size))
            )
            ppl.sample("z", dist.Normal(xp.sum(w), 1.0))

        return made

    with on(engine), pytest.raises(ProgramError, match="parameter 'w' has two shapes"):
        asked(engine, program(3), program(2))


@each_verb
@each_engine
def test_a_parameter_of_two_constraints(engine, verb):
    said = (
        rf"parameter 'w' has two constraints: none in the guide {HERE}, and \w+\(lower_bound=0.0\) in the model {HERE}"
    )
    with on(engine), pytest.raises(ProgramError, match=said):
        asked(
            engine,
            declared(lambda: xp.array(1.0), constraint=positive),
            declared(lambda: xp.array(1.0)),
            verb,
            {"w": engine.array(1.0)},
        )


SAME = {
    "positive": (positive, lambda: dist.constraints.greater_than(0)),
    "numbers of two types": (lambda: dist.constraints.interval(1, 3), lambda: dist.constraints.interval(1.0, 3.0)),
    "two maps": (positive, lambda: dist.constraints.softplus_positive),
    "an array": (lambda: dist.constraints.greater_than(0), lambda: dist.constraints.greater_than(xp.array(0.0))),
}
OTHER = {
    "bounds": (positive, lambda: dist.constraints.greater_than(1)),
    "a side": (positive, lambda: dist.constraints.interval(0, 3)),
    "sets that have no bounds": (lambda: dist.constraints.simplex, lambda: dist.constraints.lower_cholesky),
}


@pytest.mark.parametrize("name", [*SAME, *OTHER])
@each_engine
def test_constraints_are_compared_as_sets(engine, name):
    one, other = {**SAME, **OTHER}[name]
    start = xp.eye if name.startswith("sets") else lambda n: xp.ones((n, n)) * 2.0
    with on(engine):
        programs = [declared(lambda: start(2), constraint=made) for made in (one, other)]
        if name in SAME:
            asked(engine, *programs, "value_and_grad", {"w": engine.array(2 * np.ones((2, 2)))})
        else:
            with pytest.raises(ProgramError, match="parameter 'w' has two constraints"):
                asked(engine, *programs, "value_and_grad", {"w": engine.array(2 * np.ones((2, 2)))})


@each_engine
def test_a_parameter_that_both_share(engine):
    """E log N(z; 2, 1) - log N(z; 2, 1) = 0, whoever says what it is."""
    constraint = dict(constraint=positive)
    with on(engine):
        for model in (declared(lambda: xp.array(2.0), **constraint), declared(lambda: xp.array(2.0)), declared(None)):
            bound = engine.vi.objective(ppvi.objectives.elbo, model, declared(lambda: xp.array(2.0), **constraint))
            value, _ = bound.value_and_grad(engine.key(0), bound.init(engine.key(0)))
            assert abs(float(value)) < 1e-6


@each_engine
def test_a_parameter_and_a_site_of_one_name(engine):
    def guide():
        ppl.sample("z", dist.Normal(ppl.param("z", xp.array(0.3)), 1.0))

    with (
        on(engine),
        pytest.raises(ProgramError, match=f"'z' is a parameter in the guide {HERE} and a site in the guide {HERE}"),
    ):
        asked(engine, site(lambda: dist.Normal(0.0, 1.0)), guide, params={"z": engine.array(0.3)})


@each_engine
def test_a_parameter_of_the_model_and_a_site_of_the_guide_of_one_name(engine):
    def model():
        ppl.sample("y", dist.Normal(ppl.param("z", xp.array(0.3)), 1.0), obs=xp.array(1.0))

    with (
        on(engine),
        pytest.raises(ProgramError, match=f"'z' is a parameter in the model {HERE} and a site in the guide {HERE}"),
    ):
        asked(engine, model, site(normal))
