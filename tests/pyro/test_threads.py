"""What threads do beside each other is what each does alone. (Pyro's own handlers are the process's, and are not safe so.)"""

from concurrent.futures import ThreadPoolExecutor

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppvi
import ppvi.pyro as vi


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, slope):
        return 2 * slope


def objective(size, branches):
    """Of a plate of this size, with a function of its own and a minibatch."""
    x = torch.linspace(-1.0, 1.0, size)

    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        loc = Double.apply(z) if not branches or z > 0 else z
        with pyro.plate("n", size, subsample_size=2) as i:
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x[i])

    def guide():
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))

    return vi.objective(ppvi.objectives.elbo, model, guide)


def gradients(size, branches):
    bound, params = objective(size, branches), {"loc": torch.tensor(0.3)}
    return [float(bound.value_and_grad(seed, params)[1]["loc"]) for seed in range(12)]


def drawn(size, branches):
    bound = objective(size, branches)
    return [
        float(vi.posterior(bound, seed, {"loc": torch.tensor(0.3)}, draws=3).posterior["z"][0, 0]) for seed in range(6)
    ]


def plain(size, branches):
    """PyTorch's own, which has nothing to do with a session."""
    found = []
    for i in range(400):
        x = torch.tensor(float(i), requires_grad=True)
        found.append(float(torch.autograd.grad(torch.func.grad(lambda y: y**2)(x) + Double.apply(x), x)[0]))
    return found


@pytest.mark.parametrize(
    "works",
    [(gradients, gradients), (gradients, plain), (drawn, gradients)],
    ids=lambda works: ", ".join(w.__name__ for w in works),
)
def test_threads_do_what_each_does_alone(works):
    rows = [(work, size, branches) for work, size, branches in zip(works, (3, 5), (False, True), strict=True)]
    alone = [work(size, branches) for work, size, branches in rows]
    with ThreadPoolExecutor(2) as pool:
        beside = [pool.submit(*row) for row in rows]
    assert [each.result() for each in beside] == alone
