"""NUTS is of all that a model says: minibatches count for their plates, and discrete sites are summed out.

The oracle is a sum over the discrete values, and quadrature.
"""

import numpy as np
import pytest

import ppvi
from tests.engines import ENGINES, dist, on, ppl, xp

Y = np.array([2.5, 3.0, -0.5, 2.0])
GRID = np.linspace(-8.0, 8.0, 4001)


def moments(log_density):
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    mean = (weights * GRID).sum()
    return mean, np.sqrt((weights * (GRID - mean) ** 2).sum())


def normal(x, mean):
    return -0.5 * (x - mean) ** 2


def mixed(y):
    which = ppl.sample("which", dist.Bernoulli(probs=xp.array(0.3)))
    mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
    with ppl.plate("rows", 4, dim=-1):
        ppl.sample("y", dist.Normal(mean + 2.0 * which, 1.0), obs=y)


def subsampled(y):
    mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
    with ppl.plate("rows", 4, subsample_size=2, dim=-1) as rows:
        ppl.sample("y", dist.Normal(mean, 1.0), obs=y[rows])


PRIOR = normal(GRID, 0.0)
BY_VALUE = [normal(Y[:, None], GRID + 2.0 * value).sum(0) + np.log(p) for value, p in ((0, 0.7), (1, 0.3))]
TRUTH = {
    mixed: moments(PRIOR + np.logaddexp(*BY_VALUE)),
    subsampled: moments(PRIOR + normal(Y[:, None], GRID).sum(0)),
}


@pytest.mark.parametrize("model", TRUTH, ids=lambda model: model.__name__)
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_draws_have_the_moments_of_the_posterior(engine, model):
    with on(engine):
        options = {"num_warmup": 100, "num_samples": 200, "num_chains": 1, "progress": False}
        data = engine.vi.nuts(model, engine.key(0), engine.array(Y), **options)
        assert list(data.posterior) == ["mean"]
        mean, sd = TRUTH[model]
        error = 5 * sd / np.sqrt(float(data.ess["mean"]))  # a false alarm in a million
        assert float(data.posterior["mean"].mean()) == pytest.approx(mean, abs=error)
        assert float(data.posterior["mean"].std()) == pytest.approx(sd, abs=error)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_draws_of_a_model_of_lists(engine):
    with on(engine):

        def model(y):
            mean = ppl.sample("mean", dist.Normal(0.0, 1.0))
            ppl.sample("y", dist.Normal(mean, 1.0).expand([4]).to_event(1), obs=y * xp.ones(4))

        options = {"num_warmup": 2, "num_samples": 4, "num_chains": 1, "progress": False}
        assert engine.vi.nuts(model, engine.key(0), Y.tolist(), **options).posterior["mean"].shape == (1, 4)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_diagnoses_of_many_sites_do_not_broadcast_them(engine):
    """A dozen vectors of eight, each with an axis of its own: an array with all the axes would have 8^12 entries."""
    with on(engine):

        def model():
            for k in range(12):
                ppl.sample(f"x{k}", dist.Normal(0.0, 1.0).expand([8]).to_event(1))

        options = {"num_warmup": 10, "num_samples": 10, "num_chains": 2, "progress": False}
        with pytest.warns(UserWarning, match="R-hat"):
            data = engine.vi.nuts(model, engine.key(0), **options)
        assert data.attrs["r_hat"] == pytest.approx(max(float(data.r_hat[f"x{k}"].max()) for k in range(12)))
        assert ppvi.compare(data, data).reference.r_hat > 1
