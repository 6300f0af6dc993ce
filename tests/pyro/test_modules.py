"""Parameters of modules on Pyro: read through the session, and moved where they are."""

import gc
import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoIAFNormal, AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn

import ppvi
import ppvi.pyro as vi
from ppvi.engine._arviz import group_of
from ppvi.objective import estimator_of
from ppvi.objectives import elbo

X = torch.tensor([[0.5, -1.0], [1.5, 0.3], [-0.2, 0.8]])
Y = torch.tensor([0.4, -0.3, 1.1])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def model_of(net):
    def model(x, y):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(net(x)[..., 0] + z, 1.0), obs=y)

    return model


class Amortised(PyroModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.line = PyroModule[nn.Linear](3, 1)
        self.scale = PyroParam(torch.tensor(0.5), dist.constraints.positive)

    def forward(self, x, y):
        loc = self.line(torch.cat([x, y[:, None]], -1))[..., 0]
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, self.scale))


def test_gradients_are_those_of_the_closed_form():
    """E log p(x, z) - log q(z) of normals, differentiated by hand-written code on the modules themselves."""
    net, guide = network(), Amortised()
    bound = vi.objective(elbo, model_of(net), guide)
    params = bound.init(0, X, Y)
    assert params["net$$$0.weight"] is net[0].weight
    loc, scale = guide.line(torch.cat([X, Y[:, None]], -1))[..., 0], torch.tensor(0.5, requires_grad=True)
    fit = -0.5 * ((Y - net(X)[..., 0] - loc) ** 2 + scale**2)
    truth = (fit - 0.5 * (loc**2 + scale**2) + scale.log()).sum()
    leaves = [scale if name == "scale" else value for name, value in params.items()]
    exact = torch.autograd.grad(truth, leaves)
    draws = [bound.value_and_grad(i, params, X, Y)[1] for i in range(600)]
    for name, expected in zip(params, exact, strict=True):
        found = torch.stack([draw[name] for draw in draws])
        assert ((found.mean(0) - expected).abs() < 5 * found.std(0) / 600**0.5 + 1e-5).all(), name


def test_optimisers_move_modules_in_place():
    net, guide = network(), Amortised()
    bound = vi.objective(elbo, model_of(net), guide)
    params = bound.init(0, X, Y)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    before = bound.estimate(1, params, X, Y)
    for i in range(30):
        optimizer.zero_grad()
        (-bound.surrogate(i, params, X, Y)).backward()
        optimizer.step()
    assert bound.estimate(1, params, X, Y) > before + 0.1


def test_params_of_a_call_are_what_counts():
    net, guide = network(), Amortised()
    bound = vi.objective(elbo, model_of(net), guide)
    params = bound.init(0, X, Y)
    others = {name: value + 0.3 for name, value in params.items()}
    first = bound.estimate(1, others, X, Y)
    assert first != bound.estimate(1, params, X, Y)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(5.0)
    assert bound.estimate(1, others, X, Y) == first
    draws = [vi.posterior(bound, 0, p, X, Y, draws=200).posterior["z"].mean() for p in (params, others)]
    assert abs(draws[0] - draws[1]) > 0.1


def test_stop_params_holds_modules():
    def program(p, q):
        z = q.simulate()
        return p.log_density(z, stop_params=True) - z.log_density

    net, guide = network(), Amortised()
    bound = vi.objective(program, model_of(net), guide)
    gradient = bound.value_and_grad(0, bound.init(0, X, Y), X, Y)[1]
    assert all((g.abs().sum() == 0) == name.startswith("net") for name, g in gradient.items())


def test_parameters_on_a_minibatch():
    def model(y):
        with pyro.plate("data", 3, subsample_size=2) as rows:
            loc = pyro.param("loc", torch.zeros(3), event_dim=0)
            pyro.sample("y", dist.Normal(loc, 1.0), obs=y[rows])

    def guide(y):
        pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})

    bound = vi.objective(lambda p, q: p.log_density({}) + 0 * q.simulate()["u"], model, guide)
    params = bound.init(0, Y)
    draws = torch.stack([bound.value_and_grad(i, params, Y)[1]["loc"] for i in range(400)])
    assert ((draws != 0).sum(-1) == 2).all()
    assert ((draws.mean(0) - Y).abs() < 5 * draws.std(0) / 20).all()


def test_modules_that_sample():
    class Regression(PyroModule):
        def __init__(self):
            super().__init__()
            self.line = PyroModule[nn.Linear](2, 1)
            self.line.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))

        def forward(self, x, y):
            loc = self.line(x)[..., 0]
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    model = Regression()
    bound = vi.objective(elbo, model, AutoNormal(model))
    params = bound.init(0, X, Y)
    assert "line.bias" in params
    assert bound.value_and_grad(0, params, X, Y)[1]["line.bias"].abs() > 0


@pytest.mark.parametrize(
    "auto", [AutoNormal, AutoMultivariateNormal, AutoLowRankMultivariateNormal, AutoIAFNormal], ids=lambda a: a.__name__
)
def test_autoguides_have_the_elbo_of_pyro(auto):
    def model(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        s = pyro.sample("s", dist.HalfNormal(1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(a, 0.5 + s), obs=y)

    pyro.clear_param_store()
    torch.manual_seed(0)
    guide = auto(model)
    bound = vi.objective(elbo, model, guide)
    params = bound.init(0, Y)
    ours = torch.stack([bound.estimate(i, params, Y) for i in range(300)])
    torch.manual_seed(0)
    theirs = -torch.tensor([pyro.infer.Trace_ELBO().loss(model, guide, Y) for _ in range(300)])
    error = (ours.var() / 300 + theirs.var() / 300).sqrt()
    assert (ours.mean() - theirs.mean()).abs() < 5 * error


def test_a_module_that_nobody_declared():
    net = network()

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x)[..., 0], pyro.param("s", torch.tensor(1.0))))

    bound = vi.objective(elbo, model_of(network()), guide)
    with pytest.raises(ppvi.EngineError, match=r"pyro\.module"):
        bound.value_and_grad(0, bound.init(0, X, Y), X, Y)


class Line(PyroModule):
    """A module whose parameter is called `line.weight`."""

    def __init__(self, weight):
        super().__init__()
        self.line = PyroModule[nn.Linear](1, 1, bias=False)
        self.line.weight.data.fill_(weight)


class ByWeight(Line):
    def forward(self):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(self.line(z.reshape(1)).squeeze(), 1.0), obs=torch.tensor(1.5))


class Placed(Line):
    def forward(self):
        pyro.sample("z", dist.Delta(self.line(torch.tensor([1.5])).squeeze()))


def test_parameters_of_one_name_are_two():
    """log N(z | 0, 1) + log N(1.5 | a z, 1) at z = 1.5 b, whose slopes are r z in a and 1.5 (a r - z) in b, with r = 1.5 - a z."""
    model, guide = ByWeight(1.0), Placed(0.5)
    bound = vi.objective(elbo, model, guide)
    params = bound.init(0)
    assert params["model.line.weight"] is model.line.weight
    assert params["guide.line.weight"] is guide.line.weight
    grads = bound.value_and_grad(0, params)[1]
    assert abs(float(grads["model.line.weight"]) - 0.75 * 0.75) < 1e-5
    assert abs(float(grads["guide.line.weight"]) - 1.5 * (0.75 - 0.75)) < 1e-5
    vi.fit(bound, 0, num_steps=3, progress=False)
    assert float(model.line.weight.detach()) > 1.0
    pyro.clear_param_store()


def test_a_module_in_both_programs_is_one():
    net = nn.Linear(1, 1)

    def program():
        pyro.module("net", net)
        pyro.sample("z", dist.Normal(net(torch.ones(1)).squeeze(), 1.0))

    assert set(vi.objective(elbo, program, program).init(0)) == {"net$$$weight", "net$$$bias"}


def test_two_modules_of_one_name_in_one_program():
    def guide():
        for module in (nn.Linear(1, 1), nn.Linear(1, 1)):
            pyro.module("net", module)

    with pytest.raises(ppvi.ProgramError, match=r"net\$\$\$weight"):
        vi.objective(elbo, lambda: None, guide).init(0)


def test_frozen_layers_stay():
    net = network()
    bound = vi.objective(elbo, model_of(net), Amortised())
    params = bound.init(0, X, Y)
    assert bound.value_and_grad(0, params, X, Y)[1]["net$$$0.weight"].abs().sum() > 0
    net[0].requires_grad_(False)
    assert bound.value_and_grad(0, params, X, Y)[1]["net$$$0.weight"].abs().sum() == 0
    before = net[0].weight.clone()
    fit = vi.fit(bound, 0, X, Y, num_steps=3, progress=False)
    assert torch.equal(net[0].weight, before)
    assert "net$$$0.weight" not in fit.params
    pyro.clear_param_store()


@pytest.mark.parametrize("enabled", [True, False], ids=["on", "off"])
def test_autocast(enabled):
    """A program that turns it on or off itself, whatever is around the call; against the module itself."""
    net = network()

    def seen(x):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            return net(x).float()[..., 0]

    def model(x, y):
        pyro.module("net", net)
        pyro.sample("y", dist.Normal(seen(x), 1.0).to_event(1), obs=y)

    bound = vi.objective(lambda p, q: p.log_density(q.simulate()), model, lambda x, y: None)
    params = bound.init(0, X, Y)
    truth = dist.Normal(seen(X), 1.0).log_prob(Y).sum()
    slopes = torch.autograd.grad(truth, list(net.parameters()))
    for around in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=around):
            value, grads = bound.value_and_grad(0, params, X, Y)
            assert torch.allclose(bound.estimate(0, params, X, Y), truth)
        assert torch.allclose(value, truth)
        for slope, grad in zip(slopes, grads.values(), strict=True):
            assert torch.allclose(slope, grad, rtol=1e-4, atol=1e-5)


def test_modules_that_a_replayed_program_makes_are_let_go():
    def guide():
        net = nn.Linear(1, 1)
        pyro.module("net", net)
        z = pyro.sample("z", dist.Normal(net(torch.ones(1)).squeeze(), 1.0))
        return z if z > 0 else -z

    bound = vi.objective(lambda p, q: q.simulate().returned, lambda: None, guide)
    params = bound.init(0)
    for seed in range(5):
        assert float(bound.value_and_grad(seed, params)[1]["net$$$bias"]) != 0
    gc.collect()
    assert len(estimator_of(bound).modules) <= 4
    pyro.clear_param_store()


def test_one_generator_one_beginning():
    """Also where modules of both programs turn out to have parameters of one name, and the first run is made anew."""

    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(1, 1)

        def __call__(self):
            pyro.module("line", self.line)
            loc = pyro.param("loc", lambda: torch.randn(()))
            pyro.sample("z", dist.Normal(self.line(torch.ones(1)).squeeze() + loc, 1.0))

    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    bound = vi.objective(elbo, Line(), Line())
    first, second = (float(bound.init(generator)["loc"]) for generator in generators)
    pyro.clear_param_store()
    assert first == second
    assert generators[0].get_state().equal(generators[1].get_state())


def joint_values(bound, params, counts, rows):
    """E_q f by going through all joint values, of sites with so many values in so many rows."""
    total = 0.0
    for values in itertools.product(*(range(k) for k in counts for _ in range(rows))):
        table = torch.tensor(values).reshape(len(counts), rows)
        choices = {f"z{i}": row for i, row in enumerate(table)}
        log_q = vi.objective(lambda p, q, c=choices: q.log_density(c), bound.model, bound.guide).estimate(0, params)
        ratio = vi.objective(lambda p, q, c=choices: p.log_density(c) - q.log_density(c), bound.model, bound.guide)
        total += float(torch.exp(log_q) * ratio.estimate(0, params))
    return total


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn", "embedding"])
def test_sites_that_follow_one_another_through_a_module(cell):
    """Cells change in place what they have just made, and split it."""
    torch.manual_seed(0)
    y = torch.tensor([0.3, -1.0])
    cells = {"gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell, "rnn": torch.nn.RNNCell}
    made = torch.nn.Embedding(2, 3) if cell == "embedding" else cells[cell](2, 3)
    out = torch.nn.Linear(3, 2)

    def model():
        with pyro.plate("rows", 2):
            z = pyro.sample("z0", dist.Categorical(torch.tensor([0.7, 0.3])))
            z = pyro.sample("z1", dist.Categorical(torch.tensor([[0.7, 0.3], [0.2, 0.8]])[z]))
            pyro.sample("y", dist.Normal(torch.tensor([-1.0, 1.0])[z], 1.0), obs=y)

    def guide():
        pyro.module("made", made)
        pyro.module("out", out)
        z, state = torch.zeros(2, dtype=torch.long), None
        with pyro.plate("rows", 2):
            for i in range(2):
                state = made(z) if cell == "embedding" else made(torch.stack([y, z.float()], -1), state)
                z = pyro.sample(f"z{i}", dist.Categorical(logits=out(state[0] if cell == "lstm" else state)))

    bound = vi.objective(elbo, model, guide)
    params = bound.init(0)
    assert [site.strategy for site in bound.explain(params).sites] == ["Enumerate()"] * 2
    assert float(bound.estimate(0, params)) == pytest.approx(joint_values(bound, params, [2, 2], 2), rel=1e-4)


def test_sizes_stay_sizes_beside_a_module():
    """`Exponential` draws by `rate.new(shape)`, which takes a tuple as the numbers of a tensor."""
    network = torch.nn.Linear(1, 1)

    def guide():
        pyro.module("network", network)
        pyro.sample("z", dist.Exponential(torch.nn.functional.softplus(network(torch.ones(1))[0])))

    bound = vi.objective(lambda p, q: q.simulate()["z"], lambda: None, guide, strategies={"z": ppvi.Reinforce()})
    params = bound.init(0)
    rate = torch.nn.functional.softplus(network(torch.ones(1))[0])
    [slope] = torch.autograd.grad(1 / rate, [network.bias])
    grads = torch.stack([bound.value_and_grad(seed, params)[1]["network$$$bias"] for seed in range(2000)])
    assert abs(float(grads.mean() - slope)) < 5 * float(grads.std()) / 2000**0.5


def line(x, y):
    a = pyro.sample("a", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(a * x[:, 0], 1.0), obs=y)


@pytest.mark.parametrize("kind", [AutoNormal, AutoMultivariateNormal], ids=lambda kind: kind.__name__)
def test_a_loaded_autoguide_makes_its_parameters_when_it_first_runs(kind, tmp_path):
    """As in another process, where the guide has not run: draws are those of the fit."""
    bound = vi.objective(elbo, line, kind(line))
    fit = vi.fit(bound, 0, X, Y, num_steps=5, checkpoint=tmp_path, progress=False)
    expected = fit.posterior(5, draws=20, log_likelihood=False)
    pyro.clear_param_store()
    loaded = ppvi.load(tmp_path, vi.objective(elbo, line, kind(line)), X, Y)
    found = loaded.posterior(5, draws=20, log_likelihood=False)
    a, b = (group_of(x, "posterior")["a"].values for x in (found, expected))
    assert a.shape == (1, 20)
    assert (a == b).all()
