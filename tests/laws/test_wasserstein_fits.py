"""Fits by forward-backward and proximal steps: where they lead, that they go on exactly, and what they refuse."""

import numpy as np
import pytest

import ppvi
from ppvi.objectives import elbo, stl
from ppvi.optimizers import BuresWasserstein, Proximal
from tests.engines import ENGINES, dist, double, on, ppl, xp

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
WAYS = np.array([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]])
Y = np.array([1.2, 0.4, 2.1])


def model(x, y):
    z = ppl.sample("z", dist.MultivariateNormal(xp.zeros(2), xp.eye(2)))
    with ppl.plate("data", len(y)):
        ppl.sample("y", dist.Normal(x @ z, 0.7), obs=y)


def vector(x, y):
    loc, factor = ppl.param("m", xp.ones(2)), ppl.param("L", 2 * xp.eye(2), constraint=dist.constraints.lower_cholesky)
    ppl.sample("z", dist.MultivariateNormal(loc, scale_tril=factor))


def numbers(x, y):
    loc, scale = ppl.param("m", xp.ones(2)), ppl.param("s", xp.ones(2), constraint=dist.constraints.positive)
    ppl.sample("z", dist.Normal(loc, scale).to_event(1))


def points(x, y):
    ppl.sample("z", dist.Delta(ppl.param("m", xp.ones(2)), event_dim=1))


def computed(x, y):
    ppl.sample("z", dist.Normal(ppl.param("m", xp.ones(2)), xp.exp(ppl.param("log_s", xp.zeros(2)))).to_event(1))


@pytest.fixture(autouse=True)
def _double():
    with double():
        yield


def fitted(engine, program, guide, **options):
    with on(engine):
        bound = engine.vi.objective(program, model, guide)
        data = engine.array(WAYS), engine.array(Y)
        return engine.vi.fit(bound, engine.key(0), *data, progress=False, **options)


def exact():
    """Mean and covariance of the posterior."""
    covariance = np.linalg.inv(np.eye(2) + WAYS.T @ WAYS / 0.7**2)
    return covariance @ WAYS.T @ Y / 0.7**2, covariance


def tensor(x):
    return np.asarray(x.detach() if hasattr(x, "detach") else x)


@each_engine
@pytest.mark.parametrize("optimizer", [BuresWasserstein(0.02), Proximal(0.02, adaptive=False)], ids=repr)
def test_the_posterior_of_a_conjugate_model(engine, optimizer):
    """The path derivative's noise vanishes there, and with it that of the steps."""
    params, (mean, covariance) = fitted(engine, stl, vector, optimizer=optimizer, num_steps=1500).params, exact()
    factor = tensor(params["L"])
    np.testing.assert_allclose(tensor(params["m"]), mean, atol=1e-6)
    np.testing.assert_allclose(factor @ factor.T, covariance, atol=1e-6)


@each_engine
def test_independent_numbers_have_the_precisions_of_the_posterior(engine):
    params, (mean, covariance) = (
        fitted(
            engine, stl, numbers, optimizer=BuresWasserstein(lambda step: 0.1 / (1 + 0.01 * step)), num_steps=3000
        ).params,
        exact(),
    )
    np.testing.assert_allclose(tensor(params["m"]), mean, atol=0.1)
    np.testing.assert_allclose(tensor(params["s"]) ** -2, np.diag(np.linalg.inv(covariance)), rtol=0.2)


@each_engine
@pytest.mark.parametrize("starts", [None, 2])
@pytest.mark.parametrize("optimizer", [BuresWasserstein(), Proximal()], ids=repr)
def test_fits_go_on_exactly(engine, optimizer, starts):
    options = {"optimizer": optimizer, "num_starts": starts}
    whole = fitted(engine, elbo, vector, num_steps=30, **options)
    begun = fitted(engine, elbo, vector, num_steps=11, **options)
    went_on = fitted(engine, elbo, vector, num_steps=19, state=begun, **options)
    np.testing.assert_array_equal(went_on.losses, whole.losses)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(tensor(went_on.params[name]), tensor(value))


@each_engine
@pytest.mark.parametrize("optimizer", [BuresWasserstein(), Proximal()], ids=repr)
@pytest.mark.parametrize(("guide", "why"), [(points, "its sites are points"), (computed, "arguments are computed")])
def test_a_guide_without_a_gaussian_of_its_own_is_refused(engine, optimizer, guide, why):
    with pytest.raises(ppvi.ProgramError, match=f"fit: {type(optimizer).__name__} moves .*{why}"):
        fitted(engine, elbo, guide, optimizer=optimizer, num_steps=1)


@each_engine
@pytest.mark.parametrize("optimizer", [BuresWasserstein(), Proximal()], ids=repr)
def test_a_fit_explains_how_its_sites_are_moved(engine, optimizer):
    explained = fitted(engine, elbo, vector, optimizer=optimizer, num_steps=1).explain()
    assert f"site 'z' ~ MultivariateNormal: updated {optimizer.how}, because its" in explained


@pytest.mark.parametrize("kind", [BuresWasserstein, Proximal])
def test_a_step_size_is_positive_or_a_schedule(kind):
    kind(step_size=lambda step: 0.1)
    with pytest.raises(ppvi.ProgramError, match=f"{kind.__name__}: step_size"):
        kind(step_size=-0.1)
