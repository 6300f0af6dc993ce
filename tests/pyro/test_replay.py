"""Programs that branch in Python on what they draw: run again instead of staged."""

import contextlib
import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate

import ppvi
import ppvi.pyro as vi
from ppvi.objective import estimator_of
from ppvi.objectives import elbo, iwelbo
from ppvi.strategies import DisARM, RunningMean, SumAndSample


def means(bound, params, *args, n=100):
    draws = [bound.value_and_grad(seed, params, *args)[1] for seed in range(n)]
    stacks = {name: torch.stack([draw[name] for draw in draws]) for name in params}
    return {name: (float(x.mean()), float(x.std()) / n**0.5) for name, x in stacks.items()}


def geometric(t=0):
    """The number of failures before a success, by recursion."""
    stop = pyro.sample(f"stop_{t}", dist.Bernoulli(logits=pyro.param("a", torch.tensor(0.3))))
    return torch.tensor(float(t)) if stop else geometric(t + 1)


def length(p, q):
    return q.simulate().returned


@pytest.mark.parametrize(
    "strategy",
    [
        ppvi.Reinforce(),
        ppvi.LeaveOneOut(2),
        pytest.param(ppvi.MeasureValued(), marks=pytest.mark.slow),
        pytest.param(DisARM(), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_geometric_by_recursion(strategy):
    """E t = exp(-a), whose derivative in a is -exp(-a)."""
    bound = vi.objective(length, lambda: None, geometric, strategies={f"stop_{t}": strategy for t in range(40)})
    params = bound.init(0)
    mean, error = means(bound, params)["a"]
    assert abs(mean + math.exp(-0.3)) < 5 * error


def varying():
    a, m = pyro.param("a", torch.tensor(-0.4)), pyro.param("m", torch.tensor(0.7))
    z = pyro.sample("z", dist.Bernoulli(logits=a))
    if z:
        w = pyro.sample("w", dist.Bernoulli(logits=m))
        x = pyro.sample("x", dist.Normal(m, 1.0))
        return (x + w) ** 2
    return torch.tensor(0.5)


def truth():
    """E = s(a) E(x + w)^2 + (1 - s(a)) / 2, with E(x + w)^2 = 1 + m^2 + 2 m s(m) + s(m)."""
    a, m = torch.tensor(-0.4, requires_grad=True), torch.tensor(0.7, requires_grad=True)
    s, w = a.sigmoid(), m.sigmoid()
    value = s * (1 + m**2 + 2 * m * w + w) + (1 - s) / 2
    return float(value), dict(zip("am", map(float, torch.autograd.grad(value, [a, m])), strict=True))


@pytest.mark.parametrize(
    "strategies",
    [
        {},
        {"z": ppvi.Reinforce(), "w": ppvi.Reinforce(), "x": ppvi.Reinforce()},
        pytest.param({"z": ppvi.Enumerate(), "w": ppvi.Enumerate()}, marks=pytest.mark.slow),
        pytest.param(
            {"z": ppvi.MeasureValued(), "w": ppvi.LeaveOneOut(3), "x": ppvi.MeasureValued()}, marks=pytest.mark.slow
        ),
        pytest.param({"z": SumAndSample(), "w": ppvi.MeasureValued()}, marks=pytest.mark.slow),
    ],
    ids=lambda s: ", ".join(map(str, s.values())) or "defaults",
)
def test_sites_whose_number_varies(strategies):
    bound = vi.objective(lambda p, q: q.simulate().returned, lambda: None, varying, strategies=strategies)
    params = bound.init(0)
    value, slopes = truth()
    for name, (mean, error) in means(bound, params).items():
        assert abs(mean - slopes[name]) < 5 * error + 1e-6, name
    values = torch.stack([bound.estimate(seed, params) for seed in range(100)])
    assert abs(values.mean() - value) < 5 * values.std() / 100**0.5


def test_elbo_of_a_varying_program():
    """The evidence of one observation of a recursive model, by an exact guide: every estimate is the evidence."""
    data = torch.tensor(2.0)

    def model(x):
        n, going = 0, True
        while going and n < 3:
            going = bool(pyro.sample(f"more_{n}", dist.Bernoulli(0.5)))
            n += going
        pyro.sample("x", dist.Normal(float(n), 1.0), obs=x)

    prior = np.array([0.5, 0.25, 0.125, 0.125])
    joint = prior * np.exp(-0.5 * (2.0 - np.arange(4)) ** 2) / math.sqrt(2 * math.pi)
    more = [joint[n + 1 :].sum() / joint[n:].sum() for n in range(3)]

    def guide(x):
        n, going = 0, True
        while going and n < 3:
            logit = pyro.param(f"logit_{n}", torch.tensor(math.log(more[n] / (1 - more[n]))))
            going = bool(pyro.sample(f"more_{n}", dist.Bernoulli(logits=logit)))
            n += going

    params = {f"logit_{n}": torch.tensor(math.log(m / (1 - m))) for n, m in enumerate(more)}
    bound = vi.objective(elbo, model, guide)
    for seed in range(5):
        assert abs(float(bound.estimate(seed, params, data)) - math.log(joint.sum())) < 1e-4
    fit = vi.fit(bound, 0, data, num_steps=20, progress=False)
    assert len(fit.losses) == 20


@pytest.mark.slow
def test_several_particles_of_a_branching_guide():
    """The importance-weighted bound, whose runs are not vectorised then: at most the evidence, and above the ELBO."""

    def guide(y):
        z = pyro.sample("z", dist.Bernoulli(logits=pyro.param("a", torch.tensor(0.2))))
        pyro.sample("x", dist.Normal(1.0 if z else -1.0, 1.0))

    def model(y):
        pyro.sample("z", dist.Bernoulli(0.5))
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x, 1.0), obs=y)

    y = torch.tensor(0.3)
    programs, score = (elbo, ppvi.objectives.iwelbo(5)), {"z": ppvi.Reinforce()}
    bounds = [vi.objective(program, model, guide, strategies=score) for program in programs]
    params = bounds[0].init(0, y)
    loose, tight = (np.mean([float(bound.estimate(i, params, y)) for i in range(200)]) for bound in bounds)
    evidence = float(dist.Normal(0.0, 2.0**0.5).log_prob(y))
    assert loose + 0.1 < tight < evidence + 0.1
    assert torch.isfinite(bounds[1].value_and_grad(0, params, y)[1]["a"])


def test_staged_programs_and_replayed_ones_agree():
    """The same estimator with a branch that is none."""

    def staged():
        z = pyro.sample("z", dist.Bernoulli(logits=pyro.param("a", torch.tensor(0.2))))
        return torch.where(z > 0, 3.0, 1.0) * pyro.param("b", torch.tensor(0.5))

    def branching():
        z = pyro.sample("z", dist.Bernoulli(logits=pyro.param("a", torch.tensor(0.2))))
        return (3.0 if z > 0 else 1.0) * pyro.param("b", torch.tensor(0.5))

    found = []
    for guide in (staged, branching):
        bound = vi.objective(
            lambda p, q: q.simulate().returned, lambda: None, guide, strategies={"z": ppvi.Enumerate()}
        )
        params = bound.init(0)
        found.append({k: float(v) for k, v in bound.value_and_grad(0, params)[1].items()})
        assert ("engine: replay" in str(bound.explain(params))) == (guide is branching)
    assert found[0] == pytest.approx(found[1], rel=1e-6)


class Own:
    """A user's own context, which keeps count of who is inside and swallows what goes wrong."""

    inside = 0

    def __enter__(self):
        self.inside += 1

    def __exit__(self, kind, error, traceback):
        self.inside -= 1
        return isinstance(error, Exception)


OWN = Own()


def in_a_plate(prob):
    with pyro.plate("n", 2):
        return pyro.sample("z", dist.Bernoulli(prob))


def in_a_sequential_plate(prob):
    return torch.stack([pyro.sample(f"z_{i}", dist.Bernoulli(prob)) for i in pyro.plate("n", 2)])


def in_a_markov_loop(prob):
    return torch.stack([pyro.sample(f"z_{i}", dist.Bernoulli(prob)) for i in pyro.markov(range(2))])


def in_contexts_of_its_own(prob):
    with OWN, contextlib.suppress(ValueError), pyro.plate("n", 2):
        try:
            return pyro.sample("z", dist.Bernoulli(prob))
        except Exception:
            return torch.zeros(2)


def scaled(program):
    return poutine.scale(poutine.mask(config_enumerate(program), mask=torch.tensor(True)), 2.0)


def untouched(program):
    blocked = poutine.block(poutine.lift(program, prior={"none": dist.Normal(0.0, 1.0)}), hide=["none"])
    return poutine.condition(config_enumerate(blocked), data={"none": torch.tensor(0.0)})


@pytest.mark.parametrize("strategy", [None, ppvi.Enumerate(), ppvi.MeasureValued()], ids=str)
@pytest.mark.parametrize(("around", "scale"), [(untouched, 1.0), (scaled, 2.0)], ids=["untouched", "scaled"])
@pytest.mark.parametrize("drawn", [in_a_plate, in_a_sequential_plate, in_a_markov_loop, in_contexts_of_its_own])
def test_runs_are_left_before_they_are_run_again(drawn, around, scale, strategy):
    """Plates, handlers and contexts are entered anew by every run: the bound of two Bernoullis, summed by hand."""

    def model():
        if drawn(0.5).sum() > 0:
            pyro.sample("x", dist.Normal(1.0, 1.0), obs=torch.tensor(0.3))

    def guide():
        drawn(pyro.param("q", torch.tensor(0.3), constraint=dist.constraints.unit_interval))

    q = torch.tensor(0.3, requires_grad=True)
    some = 1 - (1 - q) ** 2
    likelihood = some * dist.Normal(1.0, 1.0).log_prob(torch.tensor(0.3))
    entropy = -2 * (q * q.log() + (1 - q) * (1 - q).log())
    value = scale * (likelihood + 2 * math.log(0.5)) + entropy
    slope = float(torch.autograd.grad(value, q)[0])
    names = ["z"] if drawn in (in_a_plate, in_contexts_of_its_own) else ["z_0", "z_1"]
    strategies = dict.fromkeys(names, strategy) if strategy else None
    bound = vi.objective(elbo, around(model), around(guide) if scale == 1 else guide, strategies=strategies)
    runs = [
        bound.value_and_grad(seed, {"q": torch.tensor(0.3)})
        for seed in range(1 if strategy == ppvi.Enumerate() else 30)
    ]
    for found, exact in (
        (torch.stack([v for v, _ in runs]), float(value)),
        (torch.stack([g["q"] for _, g in runs]), slope),
    ):
        error = float(found.std()) / len(runs) ** 0.5 if len(runs) > 1 else 0.0
        assert abs(float(found.mean()) - exact) < 5 * error + 1e-5
    assert OWN.inside == 0


def test_runs_whose_number_is_drawn():
    """exp of an expectation by the Poisson estimator: E exp = exp(m), with derivative exp(m)."""

    def guide():
        pyro.sample("x", dist.Normal(pyro.param("m", torch.tensor(0.3)), 0.1))

    bound = vi.objective(lambda p, q: ppvi.exp_of(lambda: q.simulate()["x"]), lambda: None, guide)
    params = bound.init(0)
    mean, error = means(bound, params)["m"]
    assert abs(mean - math.exp(0.3)) < 5 * error


@pytest.mark.parametrize(("drawn", "message"), [(True, r"latent site 'x'.* has no value"), (False, "choices have 'x'")])
def test_a_model_that_branches_otherwise_than_its_guide(drawn, message):
    def program(condition):
        def run():
            z = pyro.sample("z", dist.Bernoulli(pyro.param("p", torch.tensor(0.4))))
            if condition(z):
                pyro.sample("x", dist.Normal(0.0, 1.0))

        return run

    bound = vi.objective(elbo, program(lambda z: drawn), program(lambda z: z > 0))
    with pytest.raises(ppvi.ProgramError, match=message):
        _ = [bound.value_and_grad(seed, {"p": torch.tensor(0.4)}) for seed in range(20)]


@pytest.mark.parametrize(
    ("strategies", "error", "message"),
    [
        ({"z": ppvi.Reinforce(RunningMean())}, ppvi.EngineError, "learns"),
        ({"x": ppvi.Enumerate()}, ppvi.StrategyError, "no finite support"),
    ],
)
def test_what_is_wrong_is_said(strategies, error, message):
    def guide():
        a = pyro.param("a", torch.tensor(0.2))
        x = pyro.sample("x", dist.Normal(a, 1.0))
        z = pyro.sample("z", dist.Bernoulli(logits=a))
        return x if z else a

    bound = vi.objective(lambda p, q: q.simulate().returned, lambda: None, guide, strategies=strategies)
    with pytest.raises(error, match=message):
        bound.value_and_grad(0, {"a": torch.tensor(0.2)})


def test_draws_of_a_branching_guide():
    def guide():
        z = pyro.sample("z", dist.Bernoulli(logits=pyro.param("a", torch.tensor(0.2))))
        pyro.sample("x", dist.Normal(4.0 if z else -4.0, 1.0))

    def model():
        pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(0.0, 4.0))

    bound = vi.objective(elbo, model, guide)
    draws = vi.posterior(bound, 0, bound.init(0), draws=300).posterior
    assert abs(float(draws["z"].mean()) - 0.55) < 0.15
    assert float((draws["x"] * (2 * draws["z"] - 1)).mean()) > 3.5
    ragged = vi.objective(elbo, varying, varying)
    with pytest.warns(UserWarning, match="sites 'w', 'x' are left out"):
        found = vi.posterior(ragged, 0, ragged.init(0), draws=50).posterior
    assert list(found) == ["z"]
    assert found["z"].shape == (1, 50)

    def named():
        size = 2 if pyro.sample("z", dist.Bernoulli(0.5), infer={"is_auxiliary": True}) else 3
        pyro.sample("x", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0).expand([size]).to_event(1))

    bound = vi.objective(elbo, named, named)
    with pytest.warns(UserWarning, match="sites 'x' are left out"):
        assert list(vi.posterior(bound, 0, bound.init(0), draws=50).posterior) == ["z"]


def test_what_needs_a_graph_says_so():
    bound = vi.objective(length, lambda: None, geometric)
    params = bound.init(0)
    with pytest.raises(ppvi.EngineError, match=r"cannot be staged, since it reads a number out of a tensor at .*test_replay.py:\d+"):  # fmt: skip
        estimator_of(bound).staged(params)
    assert bound.prove(params).verdict == "suspect"
    assert "nothing is proved" in str(bound.prove(params))
    runaway = vi.objective(
        length, lambda: None, geometric, strategies={f"stop_{t}": ppvi.Enumerate() for t in range(500)}
    )
    with pytest.raises(ppvi.StrategyError, match="nest at sites"):
        runaway.value_and_grad(0, params)


def minibatch(data):
    """With a branch on a draw, so that it has no graph."""
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(data), subsample_size=2) as i:
        pyro.sample("x", dist.Normal(m if m > 0 else 2 * m, 1.0), obs=data[i])


def at_a_loc(data):
    pyro.sample("m", dist.Normal(pyro.param("loc", torch.tensor(0.4)), 1.0))


def squared(p, q):
    return -(p.log_density(q.simulate()) ** 2) / 100


def multiplied(p, q):
    z = q.simulate()
    return -p.log_density(z) * p.log_density(z) / 100


def summed(p, q):
    z = q.simulate()
    return torch.stack([p.log_probs(z)["x"].sum(), 2 * p.log_density(z)]).sum() / 3 - z.log_density


@pytest.mark.parametrize(
    ("program", "operation"),
    [(squared, "pow"), (multiplied, "mul"), (iwelbo(2), "logsumexp"), (elbo, None), (summed, None)],
    ids=["squared", "multiplied", "iwelbo", "elbo", "sums"],
)
def test_nonlinear_functions_of_minibatches_are_seen_without_a_graph(program, operation):
    bound, data = vi.objective(program, minibatch, at_a_loc), torch.arange(4.0)
    params = bound.init(0, data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bound.value_and_grad(0, params, data)
    told = [str(w.message) for w in caught if issubclass(w.category, ppvi.BiasWarning)]
    assert len(told) == (operation is not None)
    assert all("minibatch of data" in text and f"{operation} at " in text for text in told)
    assert bound.prove(params, data).verdict == ("biased" if operation else "suspect")


# Programs with derivatives of their own ---------------------------------------------------------------------------------------

NEWTON_DATA = torch.tensor([0.0, 1.0, 3.0])


def newton_model():
    loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
    with pyro.plate("data", 3):
        pyro.sample("obs", dist.Normal(loc, pyro.param("scale")), obs=NEWTON_DATA)


def by_autograd(scale):
    """A Newton step from 0, by PyTorch's own derivatives."""
    x = torch.tensor(0.0, requires_grad=True)
    loss = -dist.Normal(0.0, 10.0).log_prob(x) - dist.Normal(x, scale).log_prob(NEWTON_DATA).sum()
    [slope] = torch.autograd.grad(loss, [x], create_graph=True)
    [curvature] = torch.autograd.grad(slope, [x], create_graph=True)
    return x.detach() - slope / curvature


def by_hand(scale):
    """The same: the posterior's mean is (sum of data / scale^2) / (3 / scale^2 + 1 / 100)."""
    mean = (NEWTON_DATA.sum() / scale**2) / (3 / scale**2 + 0.01)
    assert mean.item() > -100  # which is read, so that this is replayed as well
    return mean


def newton_guide(step):
    def guide():
        scale = pyro.param("scale", torch.tensor(1.3), constraint=dist.constraints.positive)
        width = pyro.param("width", torch.tensor(0.8), constraint=dist.constraints.positive)
        pyro.sample("loc", dist.Normal(step(scale), width))

    return guide


def test_a_program_may_differentiate_by_itself():
    theirs, ours = (vi.objective(elbo, newton_model, newton_guide(step)) for step in (by_autograd, by_hand))
    params = theirs.init(0)
    for seed in range(3):
        (value, grads), (other, slopes) = (bound.value_and_grad(seed, params) for bound in (theirs, ours))
        torch.testing.assert_close((value, grads), (other, slopes), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(theirs.estimate(seed, params), ours.estimate(seed, params), rtol=1e-5, atol=1e-5)
    fit = vi.fit(theirs, 0, num_steps=50, optimizer=0.05, progress=False)
    draws = fit.posterior(draws=400).posterior["loc"].to_numpy()
    assert abs(draws.mean() - float(by_hand(fit.params["scale"]))) < 5 * float(fit.params["width"]) / 20
