"""Fits on Pyro, its SVI with our losses, draws, and the comparison with MCMC."""

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive
from pyro.infer.autoguide import AutoNormal

import ppvi
import ppvi.pyro as vi
from ppvi.engine._arviz import is_data
from ppvi.objectives import elbo, stl
from ppvi.strategies import RunningMean

Y = torch.tensor([1.2, 0.4, 2.1, 1.7])
PRECISION = 1 / 4 + 4
MEAN, SD = float(Y.sum() / PRECISION), PRECISION**-0.5


def model(y):
    x = pyro.sample("x", dist.Normal(0.0, 2.0))
    pyro.deterministic("twice", 2 * x)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(x, 1.0), obs=y)


def guide(y):
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), scale))


def falling(rate, steps):
    """Adam with a step size that falls to zero."""

    def make(leaves):
        optimizer = torch.optim.Adam(leaves, lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        optimizer.register_step_post_hook(lambda *_: schedule.step())
        return optimizer

    return make


def test_fit_finds_a_conjugate_posterior():
    bound = vi.objective(stl, model, guide)  # its gradient has no variance at the posterior
    fit = vi.fit(bound, 0, Y, num_steps=2000, optimizer=falling(0.03, 2000), progress=False)
    assert fit.losses.shape == (2000,)
    np.testing.assert_allclose(fit.params["loc"], MEAN, atol=1e-3)
    np.testing.assert_allclose(fit.params["scale"], SD, atol=1e-3)
    assert "2000 steps" in str(fit)
    assert float(pyro.param("loc")) == float(fit.params["loc"])
    again = vi.fit(vi.objective(elbo, model, guide), 0, Y, num_steps=50, progress=False)
    np.testing.assert_array_equal(vi.fit(vi.objective(elbo, model, guide), 0, Y, num_steps=50, progress=False).losses, again.losses)  # fmt: skip


def test_fit_continues_from_parameters():
    still = functools.partial(torch.optim.SGD, lr=0.0)
    fit = vi.fit(vi.objective(elbo, model, guide), 0, Y, num_steps=1, params={"loc": 1.25}, optimizer=still, progress=False)  # fmt: skip
    assert {name: float(value) for name, value in fit.params.items()} == {"loc": 1.25, "scale": 1.0}


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(falling(0.05, 1000), id="torch"),
        pytest.param(pyro.optim.Adam({"lr": 0.02}), id="pyro", marks=pytest.mark.slow),
    ],
)
def test_fit_moves_autoguides_in_place(optimizer):
    auto = AutoNormal(model)
    vi.fit(vi.objective(ppvi.objectives.iwelbo(2), model, auto), 0, Y, num_steps=1000, optimizer=optimizer, progress=False)  # fmt: skip
    assert abs(float(auto.median()["x"]) - MEAN) < 0.15
    assert abs(float(Predictive(model, guide=auto, num_samples=2000)(Y)["x"].std()) - SD) < 0.15


def test_an_adversary_descends_what_the_other_climbs():
    def saddle(p, q):
        a, b = pyro.param("a", torch.tensor(2.0)), pyro.param("b", torch.tensor(-1.0))
        return a * b + 0.5 * a**2 - 0.5 * b**2 + 0.0 * q.simulate()["x"]

    def guide():
        pyro.sample("x", dist.Normal(0.0, 1.0))

    down = vi.objective(saddle, lambda: None, guide, maximize=False)
    up = vi.objective(saddle, lambda: None, guide)
    step = functools.partial(torch.optim.SGD, lr=0.1)
    first = vi.fit([(down, ["a"]), (up, lambda name: name == "b")], 0, num_steps=1, optimizer=step, progress=False)
    # The second objective sees what the first has done: a = 2 - 0.1 (b + a), b = -1 + 0.1 (a - b).
    np.testing.assert_allclose([first.params["a"], first.params["b"]], [1.9, -1 + 0.1 * 2.9], rtol=1e-6)
    with pytest.raises(ppvi.ProgramError, match="optimizer= has 1 for 2 objectives"):
        vi.fit([(down, ["a"]), (up, ["b"])], 0, optimizer=[step], progress=False)


def test_a_baseline_learns():
    """At its mean a running baseline leaves the gradient of a cost that is nearly constant a small variance."""

    def guide():
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("a", torch.tensor(0.3))))

    def program(p, q):
        return 100.0 + q.simulate()["z"]

    strategy = ppvi.Reinforce(RunningMean())
    bound = vi.objective(program, lambda: None, guide, strategies={"z": strategy})
    params = bound.init(0)
    states = bound.states(params)
    before = torch.stack([bound.value_and_grad(i, params)[1]["a"] for i in range(50)]).std()
    for i in range(200):
        _, _, states = bound.update(i, params, states)
    after = torch.stack([bound.update(i, params, states)[1]["a"] for i in range(50)]).std()
    assert after < before / 20
    with pytest.raises(ppvi.StrategyError, match="Pyro's SVI has no place"):
        bound.as_loss()


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: guide, lambda: AutoNormal(model)], ids=["params", "autoguide"])
def test_as_loss_of_svi(make):
    made = make()
    svi = SVI(model, made, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.995}), loss=vi.objective(elbo, model, made).as_loss())  # fmt: skip
    losses = [svi.step(Y) for _ in range(1000)]
    theirs = SVI(model, made, pyro.optim.Adam({"lr": 0.0}), loss=pyro.infer.Trace_ELBO(num_particles=200))
    assert abs(np.mean(losses[-200:]) - theirs.evaluate_loss(Y)) < 0.2
    assert np.isfinite(svi.evaluate_loss(Y))
    x = Predictive(model, guide=made, num_samples=2000)(Y)["x"]
    assert abs(float(x.mean()) - MEAN) < 0.1
    assert abs(float(x.std()) - SD) < 0.1


def test_a_stale_parameter_store_is_refused():
    def of(net):
        def guide(y):
            pyro.module("net", net)
            pyro.sample("x", dist.Normal(net(y[:1])[0], 1.0))

        return guide

    for net, expected in ((torch.nn.Linear(1, 1), None), (torch.nn.Linear(1, 1), "clear_param_store")):
        guide = of(net)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=vi.objective(elbo, model, guide).as_loss())
        if expected is None:
            svi.step(Y)
            continue
        with pytest.raises(ppvi.ProgramError, match=expected):
            svi.step(Y)


# Draws and comparison -------------------------------------------------------------------------------------------------------


def test_posterior_is_arviz_data():
    exact = {"scale": torch.tensor(SD), "loc": torch.tensor(MEAN)}
    data = vi.posterior(vi.objective(elbo, model, guide), 0, exact, Y, draws=4000)
    assert set(data.posterior.data_vars) == {"x", "twice"}
    np.testing.assert_allclose(data.posterior["twice"], 2 * data.posterior["x"], rtol=1e-6)
    assert abs(float(data.posterior["x"].std()) - SD) < 0.03
    # Importance weights of the exact posterior are constant: the evidence.
    covariance, y = np.eye(4) + 4 * np.ones((4, 4)), Y.numpy()
    evidence = -0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(2 * np.pi * covariance)[1])
    np.testing.assert_allclose(data.sample_stats["log_weight"].values, evidence, rtol=1e-4)
    wide = {"scale": torch.tensor(2.0), "loc": torch.tensor(0.0)}
    corrected = vi.posterior(vi.objective(elbo, model, guide), 0, wide, Y, draws=2000, particles=50).posterior["x"]
    assert abs(float(corrected.mean()) - MEAN) < 0.06
    assert abs(float(corrected.std()) - SD) < 0.05


@pytest.mark.slow
def test_compare_with_nuts():
    reference = vi.nuts(model, 0, Y, num_warmup=200, num_samples=400, num_chains=2, progress=False)
    assert is_data(reference)
    assert reference.posterior["x"].shape == (2, 400)
    assert abs(float(reference.posterior["x"].mean()) - MEAN) < 0.15
    fit = vi.fit(vi.objective(elbo, model, guide), 0, Y, num_steps=1000, optimizer=falling(0.05, 1000), progress=False)
    comparison = ppvi.compare(fit, reference)
    assert comparison.k_hat < 0.5
    assert comparison.marginals[0].wasserstein < 0.35


# NaN: nothing is lost -------------------------------------------------------------------------------------------------------


def test_fit_that_hits_nan_keeps_the_last_finite_state():
    def model(y):
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        a = pyro.param("a", torch.tensor(1.0))
        pyro.sample("y", dist.Normal(x + a, torch.where(a > 0.5, 1.0, float("nan"))), obs=y)

    def guide(y):
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    with pytest.raises(ppvi.FitError, match=r"at step \d+: site 'y' of the model has log_prob nan") as caught:
        vi.fit(vi.objective(elbo, model, guide), 0, torch.tensor(-5.0), num_steps=1000, progress=False)
    fit = caught.value.fit
    step = int(str(caught.value).split("at step ")[1].split(":")[0])
    assert 0 < step < 1000
    assert len(fit.losses) == step
    assert np.isfinite(fit.losses).all()
    assert all(torch.isfinite(value) for value in fit.params.values())
    assert fit.posterior(draws=10).posterior["x"].shape == (1, 10)


def test_nan_in_a_gradient_names_the_parameter():
    def program(p, q):
        return q.simulate()["x"] + torch.sqrt(pyro.param("a", torch.tensor(0.0)) ** 2)

    def guide():
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    with pytest.raises(ppvi.FitError, match="the gradient of parameter 'a' is not"):
        vi.fit(vi.objective(program, lambda: None, guide), 0, num_steps=10, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be an int of at least 1"),
        ({"params": {"lco": 1.0}}, "'lco', which is no parameter"),
        ({"optimizer": torch.optim.Adam([torch.zeros(1)])}, "functools.partial"),
    ],
)
def test_what_is_wrong_is_said(options, message):
    with pytest.raises(ppvi.ProgramError, match=message):
        vi.fit(vi.objective(elbo, model, guide), 0, Y, progress=False, **options)


def test_a_distribution_of_the_users_validates_afterwards():
    """What `to_event` makes has whether it does of its base; that stays the user's, and Pyro's own loss refuses as before."""
    fn = dist.Exponential(torch.ones(2)).to_event(1)

    def model(y):
        pyro.sample("y", fn, obs=y)

    bound = vi.objective(elbo, model, lambda y: None)
    assert float(bound.estimate(0, {}, torch.tensor([1.0, 2.0]))) == pytest.approx(-3.0)
    with pytest.raises(ValueError, match="within the support"):
        pyro.infer.Trace_ELBO().loss(model, lambda y: None, torch.tensor([-1.0, 2.0]))
