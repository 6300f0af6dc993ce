"""What a program asks of PyTorch that an estimate of a gradient does not do is refused by name."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import ppvi
import ppvi.pyro as vi
from ppvi.objectives import elbo


def drawn():
    return pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))


def hooked(method):
    def guide():
        loc = pyro.param("loc", torch.tensor(0.3), constraint=dist.constraints.real)
        getattr(loc, method)(lambda g: 10 * g)
        return drawn()

    return guide


def seeded(seed, aside=False, branches=False):
    def guide():
        with torch.random.fork_rng(enabled=aside):
            seed(0)
            noise = torch.randn(()) if aside else 1.0
        z = drawn() * noise
        return z if not branches or z > 0 else -z

    return guide


PROGRAMS = {
    "a hook": (hooked("register_hook"), r"register_hook of a tensor at .*test_refused.py:\d+.*value_and_grad"),
    "a hook after accumulation": (hooked("register_post_accumulate_grad_hook"), "register_post_accumulate_grad_hook"),
    "torch.manual_seed": (seeded(torch.manual_seed), r"seeds PyTorch's generator before .*test_refused.py:\d+"),
    "pyro.set_rng_seed": (seeded(pyro.set_rng_seed), "leave out torch.manual_seed"),
    "a seed aside": (seeded(torch.manual_seed, aside=True), "outside of the program"),
    "a seed and a branch": (seeded(torch.manual_seed, branches=True), "the same draws"),
}


def returned(p, q):
    return q.simulate().returned


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_program_must_not_do(name):
    guide, message = PROGRAMS[name]
    bound = vi.objective(returned, lambda: None, guide)
    with pytest.raises(ppvi.ProgramError, match=message):
        bound.value_and_grad(0, {"loc": torch.tensor(0.3)})


MODULES = {
    "backward": (lambda net: net.register_full_backward_hook(lambda *xs: None), "net, a Linear, has a backward hook"),
    "before": (lambda net: net.register_full_backward_pre_hook(lambda *xs: None), "net, a Linear"),
    "of a parameter": (lambda net: net.weight.register_hook(lambda g: 2 * g), "the parameter net.weight has a hook"),
}


def of(net):
    def guide():
        pyro.module("net", net)
        return pyro.sample("z", dist.Normal(net(torch.ones(2, 1))[:, 0], 1.0).to_event(1)).sum()

    return guide


@pytest.mark.parametrize("name", MODULES)
def test_hooks_of_modules(name):
    hook, message = MODULES[name]
    net = nn.Linear(1, 1)
    hook(net)
    bound = vi.objective(returned, lambda: None, of(net))
    with pytest.raises(ppvi.ProgramError, match=message):
        bound.value_and_grad(0, bound.init(0))


def test_hooks_of_a_run_forwards_are_part_of_it():
    """The slope of 2 (w + b) + 2 (2 w + b), whose input and output are doubled."""
    net = nn.Linear(1, 1)
    net.register_forward_hook(lambda net, inputs, output: 2 * output)
    net.register_forward_pre_hook(lambda net, inputs: (2 * inputs[0],))
    bound = vi.objective(returned, lambda: None, of(net))
    grads = bound.value_and_grad(0, bound.init(0))[1]
    assert {name: float(x.sum()) for name, x in grads.items()} == {"net$$$weight": 8.0, "net$$$bias": 4.0}


def test_lazy_modules_are_made_by_the_first_run():
    net = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d(), nn.LazyLinear(1))
    bound = vi.objective(returned, lambda: None, of(net))
    assert sorted(bound.init(0)) == sorted(f"net$$${name}" for name, _ in net.named_parameters())
    assert bound.value_and_grad(0, bound.init(0))[1]["net$$$2.bias"] == 2


def test_backward_inside_of_a_program():
    """E z d(w z)/dw = E z^2 with z held constant in the derivative: the slope of z is z."""

    def guide():
        z = drawn()
        with torch.enable_grad():
            w = torch.tensor(1.0, requires_grad=True)
            (w * z.detach()).backward()
        return z * w.grad

    bound = vi.objective(returned, lambda: None, guide)
    value, grads = bound.value_and_grad(0, {"loc": torch.tensor(0.3)})
    assert float(grads["loc"]) == pytest.approx(float(value) ** 0.5, abs=1e-6)


def test_the_line_that_reads_a_number_is_named():
    """A model with sites that are summed out is to be staged: padded data have a length that Python knows."""
    lengths, data = torch.tensor([2, 3]), torch.zeros(3)

    def model(steps):
        loc, z = pyro.sample("loc", dist.Normal(0.0, 1.0)), 0
        for t in range(steps()):
            z = pyro.sample(f"z_{t}", dist.Categorical(torch.tensor([[0.7, 0.3], [0.4, 0.6]])[z]))
            pyro.sample(f"x_{t}", dist.Normal(loc + z, 1.0), obs=data[t])

    def guide(steps):
        pyro.sample("loc", dist.Normal(pyro.param("mean", torch.tensor(0.0)), 1.0))

    bound = vi.objective(elbo, model, guide)
    with pytest.raises(
        ppvi.EngineError, match=r"reads a number out of a tensor at .*test_refused.py:\d+. .*x.shape\[1\]"
    ):
        bound.value_and_grad(0, {"mean": torch.tensor(0.0)}, lambda: int(lengths.max()))
    assert bound.value_and_grad(0, {"mean": torch.tensor(0.0)}, lambda: len(data))[0] < 0


def test_one_hot_of_a_draw_is_a_lookup():
    """PyTorch's reads the labels first, which no trace can."""

    def guide():
        z = pyro.sample("z", dist.Categorical(logits=pyro.param("w", torch.tensor([0.1, 0.4, -0.3]))))
        assert torch.nn.functional.one_hot(z, 3).dtype == torch.int64
        pyro.sample("u", dist.Categorical(logits=torch.nn.functional.one_hot(z, 3) * 1.0))

    def looked_up():
        z = pyro.sample("z", dist.Categorical(logits=pyro.param("w", torch.tensor([0.1, 0.4, -0.3]))))
        pyro.sample("u", dist.Categorical(logits=torch.eye(3)[z]))

    def model():
        pyro.sample(
            "u",
            dist.Categorical(
                logits=torch.nn.functional.one_hot(pyro.sample("z", dist.Categorical(torch.ones(3))), num_classes=3)
                * 1.0
            ),
        )

    found = [
        vi.objective(elbo, model, program).value_and_grad(0, {"w": torch.tensor([0.1, 0.4, -0.3])})
        for program in (guide, looked_up)
    ]
    torch.testing.assert_close(found[0], found[1])


def test_a_generator_of_the_programs_own():
    def guide():
        start = torch.randn((), generator=torch.Generator().manual_seed(0))
        pyro.sample("z", dist.Normal(pyro.param("loc", start), 1.0))

    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    bound = vi.objective(elbo, model, guide)
    with pytest.raises(ppvi.EngineError, match=r"randn at .*test_refused.py:\d+ draws by a torch.Generator of its own"):
        bound.value_and_grad(0, bound.init(0))
