"""Rows 5, 6 and 6b of the field's defects: Pyro's K-sample bound on sites that are not reparameterised."""

import pytest

import ppvi

pyro = pytest.importorskip("pyro", reason="Pyro is an extra")
torch = pytest.importorskip("torch", reason="Pyro is an extra")


def coin():
    pyro.sample("z", pyro.distributions.Bernoulli(torch.tensor(0.3)))


def bit():
    pyro.sample("z", pyro.distributions.Bernoulli(logits=pyro.param("a", torch.tensor(0.5))))


def standard():
    z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
    pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=torch.tensor(1.0))


def without_path():
    a = pyro.param("a", torch.tensor(0.5))
    pyro.sample("z", pyro.distributions.Normal(a, 1.0).has_rsample_(False))


def value_and_grad(loss, model, guide):
    def run(seed, params):
        pyro.set_rng_seed(seed)
        pyro.get_param_store().clear()
        a = pyro.param("a", torch.tensor(params["a"], dtype=torch.float32))
        value = loss.loss_and_grads(model, guide)
        grad = a.unconstrained().grad
        return value, {"a": 0.0 if grad is None else grad.item()}

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alpha", "model", "guide"),
    [(0.0, coin, bit), (0.5, coin, bit), (0.0, standard, without_path)],
    ids=["row 5", "row 6", "row 6b"],
)
def test_biased(alpha, model, guide):
    loss = pyro.infer.RenyiELBO(alpha=alpha, num_particles=2)
    estimator = value_and_grad(loss, model, guide)
    report = ppvi.check_estimator(estimator, {"a": 0.5}, alpha=0.01, budget=900, progress=False)
    assert report.verdict == "biased", report
