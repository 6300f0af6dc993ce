"""Second derivatives of surrogates on Pyro: those of the objective in the mean, or refused by name."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppvi
import ppvi.pyro as vi

Y = torch.tensor([0.5, -1.0, 2.0])
A = torch.tensor(-0.1)


def model():
    k = pyro.sample("k", dist.Bernoulli(0.4))
    with pyro.plate("data", 3):
        pyro.sample("y", dist.Normal(k, 1.0), obs=Y)


def guide():
    pyro.sample("k", dist.Bernoulli(logits=pyro.param("a", A)))


def elbo(a):
    log_q = torch.nn.functional.logsigmoid(torch.stack([-a, a]))
    k = torch.arange(2.0)[:, None]
    log_p = torch.tensor([0.6, 0.4]).log() + dist.Normal(k, 1.0).log_prob(Y).sum(1)
    return (log_q.exp() * (log_p - log_q)).sum()


def second(bound, key, start=A):
    return torch.autograd.functional.hessian(lambda a: bound.surrogate(key, {"a": a}), start)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "keys"), [(ppvi.Enumerate(), 1), (ppvi.Reinforce(), 400), (ppvi.Reinforce(-3.0), 400)], ids=str
)
def test_of_a_coin(strategy, keys):
    bound = vi.objective(ppvi.objectives.elbo, model, guide, strategies={"k": strategy})
    found = torch.stack([second(bound, key) for key in range(keys)])
    error = 5 * found.std() / keys**0.5 if keys > 1 else 0.0
    assert abs(found.mean() - torch.autograd.functional.hessian(elbo, A)) < error + 1e-5


def test_of_a_normal_at_one_key():
    """E sin(2 (a + e)) differentiated at its draw, and with the global generator."""

    def normal():
        return pyro.sample("z", dist.Normal(pyro.param("a", A), 0.5))

    bound = vi.objective(lambda p, q: torch.sin(2 * q.simulate()["z"]), lambda: None, normal)
    value = float(bound.estimate(3, {"a": A}))
    assert float(second(bound, 3)) == pytest.approx(-4 * value, rel=1e-4)
    torch.manual_seed(5)
    value = float(bound.estimate(None, {"a": A}))
    torch.manual_seed(5)
    assert float(second(bound, None)) == pytest.approx(-4 * value, rel=1e-4)


REFUSED = {
    "a strategy": (lambda z: torch.sin(z), ppvi.LeaveOneOut(2), r"LeaveOneOut\(\) at site 'z'"),
    "a kink": (lambda z: torch.relu(z), ppvi.Reparam(), "a kink in the draw of site 'z'"),
    "a root": (lambda z: torch.sqrt(z * z), ppvi.Reparam(), "a kink in the draw of site 'z'"),
    "a power": (lambda z: (z * z) ** 0.5, ppvi.Reparam(), "a kink in the draw of site 'z'"),
    "another": (lambda z: torch.abs(z), ppvi.Reparam(), "a kink in the draw of site 'z'"),
    "a stop": (
        lambda z: z.exp().detach() * z,
        ppvi.Reparam(),
        r"held constant at tests/pyro/test_second_derivatives\.py",
    ),
    "a baseline": (lambda z: torch.sin(z), ppvi.Reinforce(ppvi.strategies.RunningMean()), "learn"),
}


@pytest.mark.filterwarnings("ignore::ppvi.BiasWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    f, strategy, words = REFUSED[name]

    def normal():
        pyro.sample("z", dist.Normal(pyro.param("a", A), 0.5))

    bound = vi.objective(lambda p, q: f(q.simulate()["z"]), lambda: None, normal, strategies={"z": strategy})
    with pytest.raises(ppvi.StrategyError, match=words):
        second(bound, 0)
    assert np.isfinite(float(bound.value_and_grad(0, {"a": A})[0]))


def test_in_one_of_two_parameters():
    """E sin(2 (a + s e)) at its draw, in a alone: the other has no gradient."""

    def normal():
        pyro.sample("z", dist.Normal(pyro.param("a", A), pyro.param("s", torch.tensor(0.5))))

    bound = vi.objective(lambda p, q: torch.sin(2 * q.simulate()["z"]), lambda: None, normal)
    found = torch.autograd.functional.hessian(lambda a: bound.surrogate(3, {"a": a, "s": torch.tensor(0.5)}), A)
    assert float(found) == pytest.approx(-4 * float(bound.estimate(3, {"a": A, "s": torch.tensor(0.5)})), rel=1e-4)


@pytest.mark.parametrize("strategy", [ppvi.Reinforce(), ppvi.LeaveOneOut(2)], ids=str)
def test_the_first_derivative_that_may_be_differentiated_is_the_first(strategy):
    """And nothing is refused as long as it is not."""
    bound = vi.objective(ppvi.objectives.elbo, model, guide, strategies={"k": strategy})
    _, grads = bound.value_and_grad(4, {"a": A})
    a = A.clone().requires_grad_()
    [found] = torch.autograd.grad(bound.surrogate(4, {"a": a}), [a], create_graph=True)
    assert float(found.detach()) == pytest.approx(float(grads["a"]), rel=1e-5)
