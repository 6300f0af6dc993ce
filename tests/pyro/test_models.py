"""The example models in Pyro: fitted, and compared with the truth and with the same in NumPyro."""

import jax
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import guides.cone
import guides.cone_pyro
import guides.eight_schools_pyro
import guides.old_faithful_pyro
import models.cone
import models.cone_pyro
import models.eight_schools_pyro
import models.old_faithful_pyro
import ppvi
import ppvi.numpyro
import ppvi.pyro as vi
from ppvi.objectives import diwhvi, elbo, iwelbo
from tests.data import gold_standard
from tests.pyro.test_fit import falling


@pytest.mark.slow
def test_eight_schools_against_gold_standard_draws():
    """10,000 reference draws of posteriordb, by NUTS in another system."""
    reference = gold_standard("eight_schools-eight_schools_noncentered", ("mu", "tau", "theta"))
    m = models.eight_schools_pyro
    bound = vi.objective(iwelbo(10), m.model, guides.eight_schools_pyro.guide())
    fit = vi.fit(bound, 0, m.EFFECTS, m.ERRORS, num_steps=2500, progress=False)
    comparison = ppvi.compare(fit.posterior(draws=4000, particles=10), reference)
    assert max(marginal.wasserstein for marginal in comparison.marginals) < 0.15
    assert comparison.k_hat < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [ppvi.Enumerate(), ppvi.LeaveOneOut(2)])
def test_old_faithful_labels(strategy):
    """The kinds of eruption that the NumPyro model has."""
    m = models.old_faithful_pyro
    bound = vi.objective(elbo, m.model, guides.old_faithful_pyro.guide, strategies={"long": strategy})
    fit = vi.fit(bound, 0, m.ERUPTIONS, num_steps=1500, optimizer=falling(0.05, 1500), progress=False)
    posterior = fit.posterior(draws=1000).posterior
    np.testing.assert_allclose(posterior["share"].mean(), 0.648, atol=0.03)
    np.testing.assert_allclose(posterior["means"].mean(("chain", "draw")), [2.02, 4.28], atol=0.05)
    np.testing.assert_allclose(posterior["sds"].mean(("chain", "draw")), [0.246, 0.435], atol=0.04)


@pytest.mark.slow
def test_marginal_guide_of_the_cone():
    """The bound of the ring with its angle integrated out has the same mean on both engines."""
    program = diwhvi(["x", "y"], None, 5, 5)
    ours = vi.objective(program, models.cone_pyro.model, guides.cone_pyro.ring)
    params = ours.init(0, models.cone_pyro.OBSERVED)
    found = torch.stack([ours.estimate(i, params, models.cone_pyro.OBSERVED) for i in range(300)])
    theirs = ppvi.numpyro.objective(program, models.cone.model, guides.cone.ring)
    start = theirs.init(jax.random.key(0), 5.0)
    keys = jax.random.split(jax.random.key(1), 2000)
    expected = jax.vmap(lambda key: theirs.estimate(key, start, 5.0))(keys)
    error = np.hypot(float(found.std()) / 300**0.5, float(expected.std()) / 2000**0.5)
    assert abs(float(found.mean()) - float(expected.mean())) < 5 * error
    gradient = ours.value_and_grad(0, params, models.cone_pyro.OBSERVED)[1]
    assert all(torch.isfinite(g) for g in gradient.values())


def test_counts_of_a_binomial_in_a_plate():
    """Its support is as long as the number of trials, which the program's text tells: summed over, as by hand."""
    y, start = torch.tensor([0.3, 1.9, 2.5]), torch.tensor([-1.0, 0.2, 0.8])

    def model():
        with pyro.plate("data", 3):
            k = pyro.sample("k", dist.Binomial(3, torch.tensor(0.4)))
            pyro.sample("y", dist.Normal(k, 1.0), obs=y)

    def guide():
        logits = pyro.param("logits", start)
        with pyro.plate("data", 3):
            pyro.sample("k", dist.Binomial(3, torch.sigmoid(logits)))

    bound = vi.objective(ppvi.objectives.elbo, model, guide)
    assert "staged as one straight-line program" in str(bound.explain({"logits": start}))
    value, grads = bound.value_and_grad(0, {"logits": start})
    logits, k = start.clone().requires_grad_(), torch.arange(4.0)[:, None]
    log_q = dist.Binomial(3, torch.sigmoid(logits)).log_prob(k)
    log_p = dist.Binomial(3, torch.tensor(0.4)).log_prob(k) + dist.Normal(k, 1.0).log_prob(y)
    exact = (log_q.exp() * (log_p - log_q)).sum()
    torch.testing.assert_close(value, exact.detach())
    torch.testing.assert_close(grads["logits"], torch.autograd.grad(exact, logits)[0])
