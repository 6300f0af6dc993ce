"""Densities and programs that put numbers where a mask says, which `torch.vmap` cannot: PyTorch's own, one draw at a time."""

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch

import ppvi
import ppvi.pyro as vi

COUNTS = torch.tensor([[2.0, 3.0, 5.0], [0.0, 4.0, 6.0]])
TRIES = torch.tensor([0.0, 3.0])


def counts(known):
    p = torch.tensor([0.2, 0.3, 0.5]) if known else pyro.sample("p", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("rows", 2):
        pyro.sample("y", dist.Multinomial(10, probs=p), obs=COUNTS)


def tries(known):
    p = torch.tensor(0.3) if known else pyro.sample("p", dist.Beta(2.0, 2.0))
    with pyro.plate("rows", 2):
        pyro.sample("y", dist.Geometric(p), obs=TRIES)


def guide_of_counts(known):
    pyro.sample("p" if not known else "q", dist.Dirichlet(pyro.param("a", torch.ones(3))))


def guide_of_tries(known):
    pyro.sample("p" if not known else "q", dist.Beta(pyro.param("a", torch.tensor(2.0)), 2.0))


LAWS = [
    (counts, guide_of_counts, lambda p: st.multinomial.logpmf(COUNTS.numpy(), 10, p / p.sum())),
    (tries, guide_of_tries, lambda p: st.geom.logpmf(TRIES.numpy() + 1, p)),
]


@pytest.mark.parametrize(("model", "guide", "law"), LAWS, ids=["Multinomial", "Geometric"])
def test_draws_of_models_that_observe_them(model, guide, law):
    bound = vi.objective(ppvi.objectives.elbo, model, guide).on(False)
    params = bound.init(0)
    data = vi.predict(bound, 0, params, draws=20)
    for p, found in zip(data["posterior"]["p"].values[0], data["log_likelihood"]["y"].values[0], strict=True):
        assert found == pytest.approx(law(p.astype(float)), rel=1e-4)
    assert data["posterior_predictive"]["y"].shape == (1, 20, *(COUNTS if model is counts else TRIES).shape)
    nuts = vi.nuts(model, 0, False, num_warmup=10, num_samples=5, num_chains=1, progress=False)
    assert nuts["log_likelihood"]["y"].values[0, 0] == pytest.approx(law(nuts["posterior"]["p"].values[0, 0]), rel=1e-4)


@pytest.mark.parametrize("model", [counts, tries])
def test_draws_of_what_is_known(model):
    """What is drawn has lanes that the probabilities have not."""

    def guide(known):
        pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.0)), 1.0))

    def with_latent(known):
        pyro.sample("z", dist.Normal(0.0, 1.0))
        model(known)

    bound = vi.objective(ppvi.objectives.elbo, with_latent, guide).on(True)
    y = vi.predict(bound, 0, bound.init(0), draws=3000)["posterior_predictive"]["y"].values[0]
    wanted = [2.0, 3.0, 5.0] if model is counts else 0.7 / 0.3
    assert y.mean((0, 1)) == pytest.approx(wanted, abs=0.2)


@pytest.mark.parametrize("value", [[0.0, 1.0, 2.0], [1.0, 0.0, 2.0]])
def test_counts_of_what_is_impossible(value):
    logits = torch.tensor([0.0, 0.4, 0.6]).log()
    found = dist.Multinomial(3, logits=logits).log_prob(torch.tensor(value))
    assert float(found) == pytest.approx(st.multinomial.logpmf(value, 3, [0.0, 0.4, 0.6]), rel=1e-5)


def test_no_failure_of_what_is_sure():
    assert float(dist.Geometric(torch.tensor(1.0)).log_prob(torch.tensor(0.0))) == pytest.approx(0.0, abs=1e-6)


def test_a_program_that_puts_numbers_by_a_mask():
    def model():
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        x = 2 * z
        x[x < 0] = 0.0
        pyro.deterministic("x", x)

    def guide():
        pyro.sample("z", dist.Normal(pyro.param("a", torch.zeros(3)), 1.0).to_event(1))

    bound = vi.objective(ppvi.objectives.elbo, model, guide)
    data = vi.posterior(bound, 0, bound.init(0), draws=50)
    z = data["posterior"]["z"].values
    assert data["posterior"]["x"].values == pytest.approx((2 * z).clip(0))
