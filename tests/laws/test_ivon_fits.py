"""IVON in fits: expected gradients give the paper's steps, noisy ones the same rest, and a fit goes on exactly."""

import functools

import numpy as np
import pytest

import ppvi
from ppvi.objectives import analytic_elbo, elbo, stl
from ppvi.optimizers import IVON
from tests.engines import ENGINES, NUMPYRO, dist, on, ppl, xp
from tests.laws.test_resumed_fits import assert_same

Y = np.array([1.2, 0.4, 2.1, 1.7], np.float32)
PRIOR, SD = 0.25, 0.5
PRECISION = PRIOR + len(Y) / SD**2
LOC = Y.sum() / SD**2 / PRECISION
each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


def model(y):
    loc = ppl.sample("loc", dist.Normal(xp.array(0.0), xp.array(PRIOR**-0.5)))
    with ppl.plate("data", len(y)):
        ppl.sample("y", dist.Normal(loc, xp.array(SD)), obs=y)


def guide(y):
    scale = ppl.param("s", xp.array(0.7), constraint=dist.constraints.positive)
    ppl.sample("loc", dist.Normal(ppl.param("m", xp.array(-0.3)), scale))


def fitted(engine, program=elbo, strategies=None, rule=None, num_steps=60, **options):
    bound = engine.vi.objective(program, model, guide, strategies=strategies)
    options = {"optimizer": rule or IVON(0.3, beta2=0.9), "num_steps": num_steps, "progress": False} | options
    return engine.vi.fit(bound, engine.key(0), engine.array(Y), **options)


@each_engine
@pytest.mark.parametrize("prior", [0.0, PRIOR])
@pytest.mark.parametrize("maximize", [True, False])
def test_steps_by_exact_gradients_are_the_papers(engine, prior, maximize):
    """The gradient of minus the bound in m is Q (m - b), in s it is Q s - 1 / s, with b and Q of the posterior."""
    m, s, momentum = -0.3, 0.7, 0.0
    for t in range(1, 8):
        precision = s**-2
        change = 0.1 * (PRECISION * s - 1 / s) / s
        momentum = 0.9 * momentum + 0.1 * (PRECISION * (m - LOC) - prior * m)
        precision = precision + change + change**2 / (2 * precision)
        m -= 0.3 * (momentum / (1 - 0.9**t) + prior * m) / precision
        s = precision**-0.5

    def program(p, q):
        return elbo(p, q) * (1 if maximize else -1)

    with on(engine):
        bound = engine.vi.objective(
            program, model, guide, strategies={"loc": ppvi.strategies.Quadrature(64)}, maximize=maximize
        )
        rule = IVON(lambda step: 0.3, beta2=0.9, prior_precision=prior)
        fit = engine.vi.fit(bound, engine.key(0), engine.array(Y), num_steps=7, optimizer=rule, progress=False)
    np.testing.assert_allclose(fit.params["m"], m, rtol=2e-5)
    np.testing.assert_allclose(fit.params["s"], s, rtol=2e-5)


@each_engine
def test_draws_lead_to_the_posterior(engine):
    """With `stl` the noise of the gradient is zero at the posterior, so that the last step is as good as an average."""
    with on(engine):
        fit = fitted(engine, stl, num_steps=300)
    np.testing.assert_allclose(fit.params["m"], LOC, rtol=1e-4)
    np.testing.assert_allclose(fit.params["s"], PRECISION**-0.5, rtol=1e-4)


@each_engine
@pytest.mark.parametrize("strategy", ["Reparam", "MeasureValued"])
def test_any_unbiased_strategy_leads_there_in_the_mean(engine, strategy):
    """Means over the last 2000 of 4000 steps, within a tenth of the posterior's sd."""
    with on(engine):
        options = {"averaging": 3, "rule": IVON(0.01, beta2=0.99), "num_steps": 4000}
        fit = fitted(engine, analytic_elbo, {"loc": getattr(ppvi.strategies, strategy)()}, **options)
    assert abs(float(fit.params["m"]) - LOC) < 0.1 * PRECISION**-0.5
    assert abs(float(fit.params["s"]) * PRECISION**0.5 - 1) < 0.1


@each_engine
def test_a_fit_goes_on_exactly(engine, tmp_path):
    with on(engine):
        whole, part = fitted(engine, num_steps=30), fitted(engine, num_steps=11)
        assert_same(whole, fitted(engine, num_steps=19, state=part))
        fitted(engine, num_steps=11, checkpoint=tmp_path)
        loaded = ppvi.load(tmp_path, engine.vi.objective(elbo, model, guide))
        assert_same(whole, fitted(engine, num_steps=19, state=loaded))


@each_engine
def test_starts_are_fits_of_their_own(engine):
    with on(engine):
        alone, several = fitted(engine, num_steps=30), fitted(engine, num_steps=30, num_starts=3)
    np.testing.assert_allclose(several.state.losses[:, 0], alone.losses, rtol=1e-4)
    assert not several.state.lost.any()


@each_engine
def test_sites_of_other_families_are_moved_by_the_rest(engine):
    """A Gamma beside a Normal; a guide without a Normal is refused by name."""

    def both(y):
        with ppl.plate("data", len(y)):
            scale = ppl.sample("scale", dist.Gamma(xp.array(3.0), xp.array(3.0)))
            ppl.sample("y", dist.Normal(ppl.sample("z", dist.Normal(xp.array(0.0), xp.array(1.0))), scale), obs=y)

    def gammas(y):
        rate = ppl.param("rate", xp.array(np.ones(4, np.float32)), constraint=dist.constraints.positive)
        with ppl.plate("data", len(y)):
            ppl.sample("scale", dist.Gamma(xp.array(3.0), rate))
            return ppl.sample("z", dist.Normal(xp.array(0.0), xp.array(1.0)))

    def guide(y):
        locs = ppl.param("m", xp.array(np.zeros(4, np.float32)))
        sds = ppl.param("s", xp.array(np.ones(4, np.float32)), constraint=dist.constraints.positive)
        rate = ppl.param("rate", xp.array(np.ones(4, np.float32)), constraint=dist.constraints.positive)
        with ppl.plate("data", len(y)):
            ppl.sample("scale", dist.Gamma(xp.array(3.0), rate))
            ppl.sample("z", dist.Normal(locs, sds))

    with on(engine):
        fit = functools.partial(engine.vi.fit, num_steps=20, optimizer=IVON(0.1), progress=False)
        found = fit(engine.vi.objective(elbo, both, guide), engine.key(0), engine.array(Y))
        moved = {name: np.abs(np.asarray(x) - (0 if name == "m" else 1)).max() for name, x in found.params.items()}
        assert min(moved.values()) > 1e-3, moved
        with pytest.raises(ppvi.ProgramError, match="IVON moves sites"):
            fit(engine.vi.objective(elbo, both, gammas), engine.key(0), engine.array(Y))


@each_engine
def test_an_autoguide_is_moved(engine):
    """AutoNormal's sites are Normal under transforms without parameters, the one of a positive site among them."""

    def model(y):
        scale = ppl.sample("scale", dist.LogNormal(xp.array(0.0), xp.array(1.0)))
        with ppl.plate("data", len(y)):
            ppl.sample("y", dist.Normal(xp.array(1.0), scale), obs=y)

    with on(engine):
        bound = engine.vi.objective(stl, model, engine.autoguide.AutoNormal(model))
        fit = functools.partial(engine.vi.fit, bound, engine.key(0), engine.array(Y), progress=False)
        ivon, adam = fit(num_steps=1500, optimizer=IVON(0.05, beta2=0.99)), fit(num_steps=1500, optimizer=0.02)
        bounds = [
            np.mean([float(bound.estimate(engine.key(i), each.params, engine.array(Y))) for i in range(200)])
            for each in (ivon, adam)
        ]
    assert bounds[0] == pytest.approx(bounds[1], abs=0.05)


def test_weights_of_a_random_module_are_moved():
    """Each of flax's weights is a site, and all of them are moved by Newton steps: nothing is left for the rest."""
    nn = pytest.importorskip("flax.linen")
    from numpyro.contrib.module import random_flax_module

    x = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]

    def model(x, y):
        net = random_flax_module("net", nn.Dense(1), dist.Normal(0.0, 1.0), input_shape=(1,))
        ppl.sample("y", dist.Normal(net(x)[:, 0], 0.1).to_event(1), obs=y)

    with on(NUMPYRO):
        bound = NUMPYRO.vi.objective(stl, model, NUMPYRO.autoguide.AutoNormal(model, init_scale=0.01))
        rule = IVON(0.1, beta2=0.98, rest=ppvi)  # which is no optimiser
        with pytest.raises(ppvi.ProgramError, match="the optimizer must be"):
            NUMPYRO.vi.fit(bound, NUMPYRO.key(0), x, 2 * x[:, 0] - 1, optimizer=rule, progress=False)
        rule = IVON(0.1, beta2=0.98)
        fit = NUMPYRO.vi.fit(bound, NUMPYRO.key(0), x, 2 * x[:, 0] - 1, num_steps=800, optimizer=rule, progress=False)
    precision = np.array([12.0, (x**2).sum()]) / 0.1**2 + 1
    found = [
        fit.params[f"net/{name}_auto_{what}"].ravel()[0] for what in ("loc", "scale") for name in ("bias", "kernel")
    ]
    np.testing.assert_allclose(found[:2], np.array([-12.0, 2 * (x**2).sum()]) / 0.1**2 / precision, rtol=1e-3)
    np.testing.assert_allclose(found[2:], precision**-0.5, rtol=1e-3)


@pytest.mark.skipif(len(ENGINES) < 2, reason="Pyro is not installed")
def test_weights_of_a_pyro_module_are_moved():
    import pyro.distributions as distributions
    import torch
    from pyro.nn import PyroModule, PyroSample

    x = torch.linspace(-1, 1, 12)[:, None]
    net = PyroModule[torch.nn.Linear](1, 1)
    net.weight = PyroSample(distributions.Normal(0.0, 1.0).expand([1, 1]).to_event(2))
    net.bias = PyroSample(distributions.Normal(0.0, 1.0).expand([1]).to_event(1))

    def model(x, y):
        ppl.sample("y", dist.Normal(net(x)[:, 0], 0.1).to_event(1), obs=y)

    with on(ENGINES[1]):
        bound = ENGINES[1].vi.objective(stl, model, ENGINES[1].autoguide.AutoNormal(model, init_scale=0.01))
        rule = IVON(0.1, beta2=0.98)
        fit = ENGINES[1].vi.fit(bound, 0, x, 2 * x[:, 0] - 1, num_steps=800, optimizer=rule, progress=False)
    found = {name: value.detach().ravel()[0] for name, value in fit.params.items()}
    precision = np.array([12.0, float((x**2).sum())]) / 0.1**2 + 1
    locs, scales = ([found[f"AutoNormal.{what}.{name}"] for name in ("bias", "weight")] for what in ("locs", "scales"))
    np.testing.assert_allclose(locs, np.array([-12.0, 2 * float((x**2).sum())]) / 0.1**2 / precision, rtol=1e-3)
    np.testing.assert_allclose(scales, precision**-0.5, rtol=1e-3)
