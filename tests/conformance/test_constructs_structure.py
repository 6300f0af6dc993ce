"""Constructs of both libraries: plates, loops and branches, factors, points, and what comes after a fit."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions
import pyro
import pyro.distributions
import pytest
import torch
from numpyro.contrib.control_flow import cond, scan
from scipy.stats import norm

from ppvi.objectives import elbo
from tests.conformance.constructs import Row, cases, nothing, points, wrong
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, on, ppl, xp

X = 0.7
AB = dict(a=0.4, b=1.3)
ABM = dict(**AB, m=-0.6)
THREE = np.array([0.5, -1.0, 0.3])
GRID = np.array([[0.5, -1.0, 0.3], [1.1, 0.2, -0.7]])


def log(x, loc=0.0, scale=1.0):
    return norm.logpdf(x, loc, scale).sum()


# Plates -------------------------------------------------------------------------------------------------------------------


def plate_of_a_dim():
    def model():
        with ppl.plate("rows", 2, dim=-2):
            ppl.sample("x", dist.Normal(ppl.param("a"), ppl.param("b")), obs=GRID[:, :1])

    return model, nothing


def nested():
    """A latent for each row, and data in rows and columns."""

    def latent():
        return ppl.plate("rows", 2, dim=-2)

    def model():
        with latent():
            z = ppl.sample("z", dist.Normal(ppl.param("a"), 1.0))
            with ppl.plate("columns", 3, dim=-1):
                ppl.sample("x", dist.Normal(z, ppl.param("b")), obs=GRID)

    def guide():
        with latent():
            ppl.sample("z", dist.Delta(ppl.param("m")))

    return model, guide


def again():
    """One plate that is entered twice, made outside."""

    def model():
        rows = ppl.plate("rows", 3)
        with rows:
            z = ppl.sample("z", dist.Normal(ppl.param("a"), 1.0))
        scale = ppl.param("b")
        with rows:
            ppl.sample("x", dist.Normal(z, scale), obs=THREE)

    def guide():
        with ppl.plate("rows", 3):
            ppl.sample("z", dist.Delta(ppl.param("m")))

    return model, guide


def plate_stack(library):
    def make():
        def model():
            with library.plate_stack("grid", (2, 3)):
                ppl.sample("x", dist.Normal(ppl.param("a"), ppl.param("b")), obs=GRID)

        return model, nothing

    return make


def subsampled(latent):
    """Two rows of three, with what lies in the plate by `subsample` and by a parameter with its event_dim."""

    def make():
        def here():
            return ppl.plate("rows", 3, subsample_size=2)

        def model():
            with here():
                known = ppl.subsample(xp.array(THREE), event_dim=0)
                z = ppl.sample("z", dist.Normal(ppl.param("a"), 1.0)) if latent else ppl.param("a")
                ppl.sample("x", dist.Normal(z, ppl.param("b")), obs=known)

        def guide():
            with here():
                ppl.sample("z", dist.Delta(ppl.param("m", xp.zeros(3), event_dim=0)))

        return model, guide if latent else nothing

    return make


def chosen_rows():
    def model():
        with pyro.plate("rows", 3, subsample=torch.tensor([2, 0])) as rows:
            ppl.sample("x", dist.Normal(ppl.param("a"), ppl.param("b")), obs=xp.array(THREE)[rows])

    return model, nothing


def vectors_in_a_plate():
    """A parameter whose last axis is of an event."""

    def model():
        with ppl.plate("rows", 2):
            loc = ppl.param("m", xp.zeros((2, 3)), event_dim=1)
            ppl.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=GRID)

    return model, nothing


PLATES = [
    Row("plate of a dim", plate_of_a_dim, lambda a, b: log(GRID[:, 0], a, b), AB),
    Row("nested plates", nested, lambda a, b, m: log(m, a) + log(GRID, m, b), dict(**AB, m=[[0.1], [-0.4]])),
    Row("plate that is entered again", again, lambda a, b, m: log(m, a) + log(THREE, m, b), dict(**AB, m=[0.1, -0.4, 0.2])),
    Row("plate_stack", plate_stack(numpyro), lambda a, b: log(GRID, a, b), AB, (NUMPYRO,)),
    Row("plate_stack", plate_stack(pyro), lambda a, b: log(GRID, a, b), AB, (PYRO,)),
    Row("subsample", subsampled(False), lambda a, b: log(THREE, a, b), AB, draws=1000),
    Row("param of a subsampled plate", subsampled(True), lambda a, b, m: log(m, a) + log(THREE, m, b), dict(**AB, m=[0.1, -0.4, 0.2]), draws=1000),
    Row("plate of given rows", chosen_rows, lambda a, b: 1.5 * log(THREE[[0, 2]], a, b), AB, (PYRO,)),
    Row("param of an event in a plate", vectors_in_a_plate, lambda m: log(GRID, m), dict(m=0.1 * GRID)),
]  # fmt: skip


# Factors and points -------------------------------------------------------------------------------------------------------


def normal_model():
    z = ppl.sample("z", dist.Normal(ppl.param("a"), 1.0))
    ppl.sample("x", dist.Normal(z, ppl.param("b")), obs=X)


def joint(a, b, z):
    return log(z, a) + log(X, z, b)


def improper():
    def model():
        z = ppl.sample("z", dist.ImproperUniform(dist.constraints.positive, (), ()))
        ppl.sample("x", dist.Normal(z, ppl.param("b")), obs=X)

    return model, points(z="m")


def factor_in_the_model():
    def model():
        normal_model()
        ppl.factor("f", -(ppl.param("a") ** 2))

    return model, points(z="m")


def unit_in_the_model():
    def model():
        normal_model()
        ppl.sample("f", dist.Unit(-(ppl.param("a") ** 2)), obs=xp.zeros((0,)))

    return model, points(z="m")


def factor_in_the_guide(**options):
    """It counts in the density of the guide, as Trace_ELBO of both libraries has it."""

    def make():
        def guide():
            points(z="m")()
            ppl.factor("f", -(ppl.param("m") ** 2), **options)

        return normal_model, guide

    return make


def deterministic_in_the_model():
    def model():
        z = ppl.sample("z", dist.Normal(ppl.param("a"), 1.0))
        twice = ppl.deterministic("twice", 2 * z)
        ppl.sample("x", dist.Normal(twice, ppl.param("b")), obs=X)

    return model, points(z="m")


def deterministic_in_the_guide():
    def guide():
        at = ppl.deterministic("at", 2 * ppl.param("m"))
        ppl.sample("z", dist.Delta(at))

    return normal_model, guide


def delta_of_a_density():
    """Points of a vector with a log_density of their own in the guide, which are counted."""

    def model():
        z = ppl.sample("z", dist.Normal(ppl.param("a"), 1.0).expand([3]).to_event(1))
        ppl.sample("x", dist.Normal(z, ppl.param("b")).to_event(1), obs=THREE)

    def guide():
        at = ppl.param("m")
        ppl.sample("z", dist.Delta(at, log_density=(at**2).sum(), event_dim=1))

    return model, guide


FACTORS = [
    Row("ImproperUniform", improper, lambda b, m: log(X, m, b), dict(b=1.3, m=0.6)),
    Row("factor in the model", factor_in_the_model, lambda a, b, m: joint(a, b, m) - a**2, ABM),
    Row("Unit in the model", unit_in_the_model, lambda a, b, m: joint(a, b, m) - a**2, ABM),
    Row("factor in the guide", factor_in_the_guide(), lambda a, b, m: joint(a, b, m) + m**2, ABM, (NUMPYRO,)),
    Row("factor in the guide, has_rsample=True", factor_in_the_guide(has_rsample=True), lambda a, b, m: joint(a, b, m) + m**2, ABM, (PYRO,)),
    Row("factor in the guide, has_rsample=False", factor_in_the_guide(has_rsample=False), lambda a, b, m: joint(a, b, m) + m**2, ABM, (PYRO,)),
    Row("deterministic in the model", deterministic_in_the_model, lambda a, b, m: log(m, a) + log(X, 2 * m, b), ABM),
    Row("deterministic in the guide", deterministic_in_the_guide, lambda a, b, m: joint(a, b, 2 * m), ABM),
    Row("Delta in the guide with a density", delta_of_a_density, lambda a, b, m: log(m, a) + log(THREE, m, b) - (m**2).sum(), dict(**AB, m=[0.1, -0.4, 0.2])),
]  # fmt: skip


# Loops and branches -------------------------------------------------------------------------------------------------------


def in_scan():
    """A random walk that is given, in the library's own loop."""

    def model():
        a, b = ppl.param("a"), ppl.param("b")

        def step(before, x):
            z = ppl.sample("z", dist.Normal(a * before, 1.0))
            ppl.sample("x", dist.Normal(z, b), obs=x)
            return z, None

        scan(step, jnp.array(0.0), jnp.array(THREE))

    def guide():
        at = ppl.param("m")
        scan(lambda carry, v: (carry, ppl.sample("z", dist.Delta(v))), 0, at)

    return model, guide


def in_loop():
    def model():
        a, b, z = ppl.param("a"), ppl.param("b"), 0.0
        for i in pyro.markov(range(3)):
            z = ppl.sample(f"z{i}", dist.Normal(a * z, 1.0))
            ppl.sample(f"x{i}", dist.Normal(z, b), obs=THREE[i])

    def guide():
        at = ppl.param("m")
        for i in pyro.markov(range(3)):
            ppl.sample(f"z{i}", dist.Delta(at[i]))

    return model, guide


def of_walk(a, b, m):
    return log(m, a * np.concatenate([[0.0], m[:-1]])) + log(THREE, m, b)


def in_cond():
    def model():
        a = ppl.param("a")

        def yes(x):
            ppl.sample("x", dist.Normal(a, ppl.param("b")), obs=x)

        def no(x):
            ppl.sample("x", dist.Normal(-a, 1.0), obs=x)

        cond(a > 0, yes, no, jnp.array(X))

    return model, nothing


def key_of_the_program():
    """Noise that is no site: the mean over it."""

    def model():
        noise = jax.random.normal(numpyro.prng_key())
        ppl.factor("f", -0.5 * (ppl.param("a") + ppl.param("b") * noise) ** 2)

    return model, nothing


def scored_chain():
    """A finite chain that markov marks, summed out of the model."""

    def model():
        stay, a, z = ppl.param("p"), ppl.param("a"), xp.array(0.0)
        for i in pyro.markov(range(3)):
            z = ppl.sample(
                f"z{i}", dist.Bernoulli(probs=z * stay + (1 - z) * (1 - stay)), infer={"enumerate": "parallel"}
            )
            ppl.sample(f"x{i}", dist.Normal(z * a, 1.0), obs=THREE[i])

    return model, nothing


def of_chain(p, a):
    step, alpha = np.array([[p, 1 - p], [1 - p, p]]), np.array([1.0, 0.0])
    for x in THREE:
        alpha = (alpha @ step) * np.exp(norm.logpdf(x, np.array([0.0, a])))
    return np.log(alpha.sum())


LOOPS = [
    Row("scan of NumPyro", in_scan, of_walk, dict(**AB, m=[0.1, -0.4, 0.2]), (NUMPYRO,)),
    Row("cond of NumPyro", in_cond, lambda a, b: log(X, a, b), AB, (NUMPYRO,)),
    Row("markov", in_loop, of_walk, dict(**AB, m=[0.1, -0.4, 0.2]), (PYRO,)),
    Row("markov of a finite chain", scored_chain, of_chain, dict(p=0.8, a=1.2), (PYRO,)),
    Row("prng_key", key_of_the_program, lambda a, b: -0.5 * (a**2 + b**2), AB, (NUMPYRO,), 1000),
]  # fmt: skip


@pytest.mark.parametrize(("row", "engine"), cases(PLATES + FACTORS + LOOPS))
def test_right(row, engine):
    assert wrong(row, engine) == []


# After a fit --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_predictive_of_the_library_takes_the_parameters_of_a_fit(engine):
    """z | x ~ Normal(x / 2, 1 / sqrt(2)), and y ~ Normal(z, 1); within 6.2 standard errors of 4000 draws, and the fit's 0.01."""

    def model(x):
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        ppl.sample("x", dist.Normal(z, 1.0), obs=x)
        ppl.sample("y", dist.Normal(z, 1.0), obs=None) if x is None else None

    def guide(x):
        scale = ppl.param("s", xp.array(0.5), constraint=dist.constraints.positive)
        ppl.sample("z", dist.Normal(ppl.param("m", xp.array(0.0)), scale))

    n = 4000
    with on(engine):
        x = engine.array(X)
        fit = engine.vi.fit(engine.vi.objective(elbo, model, guide), engine.key(0), x, num_steps=1500, progress=False)
        if engine is NUMPYRO:
            latent = numpyro.infer.Predictive(guide, params=fit.params, num_samples=n)(engine.key(1), x)
            drawn = numpyro.infer.Predictive(model, posterior_samples={"z": latent["z"]})(engine.key(2), None)
        else:
            pyro.set_rng_seed(0)
            drawn = pyro.infer.Predictive(model, guide=guide, num_samples=n, return_sites=["z", "y"])(None)
            latent = drawn
        z, y = np.asarray(latent["z"]).ravel(), np.asarray(drawn["y"]).ravel()
    np.testing.assert_allclose(z.mean(), X / 2, atol=6.2 * (0.5 / n) ** 0.5 + 0.01)
    np.testing.assert_allclose(z.std(), 0.5**0.5, atol=6.2 * 0.5 / n**0.5 + 0.01)
    np.testing.assert_allclose(y.mean(), X / 2, atol=6.2 * (1.5 / n) ** 0.5 + 0.01)
