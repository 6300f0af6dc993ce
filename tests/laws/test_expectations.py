"""Unbiased functions of expectations, against closed forms and quadrature: value and gradient."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import ppvi
import ppvi.numpyro as vi
from ppvi import Enumerate, LeaveOneOut, Reinforce, Reparam
from ppvi.engine.evaluations import handles
from ppvi.engine.sessions import Session
from ppvi.errors import ProgramError
from ppvi.ir import Estimate
from ppvi.numpyro._programs import NumPyroPrograms, scope_of
from ppvi.numpyro._stage import stage
from ppvi.objective import estimator_of
from tests.engines import dist, nn, ppl, xp
from tests.laws.cases import Case, nothing, rows
from tests.laws.sampling import check
from tests.laws.test_statistical import normal_quadrature


def normal_guide():
    ppl.sample("z", dist.Normal(ppl.param("m"), 1.0))


def two_guide():
    u = ppl.sample("u", dist.Normal(ppl.param("m"), 0.3))
    ppl.sample("z", dist.Bernoulli(logits=ppl.param("a") + u))


def exp_of_an_inner_expectation(p, q):
    u = q.simulate()["u"]
    return ppvi.exp_of(lambda: 0.8 * q.simulate(given={"u": u})["z"] * (1 + u))


def exp_exact(params):
    e, w = normal_quadrature()
    u = params["m"] + 0.3 * e
    return w @ xp.exp(0.8 * nn.sigmoid(params["a"] + u) * (1 + u))


def mixture_model():
    z = ppl.sample("z", dist.Bernoulli(logits=ppl.param("a")))
    ppl.sample("x", dist.Normal(ppl.param("b") * z, 1.0), obs=0.9)


def mixture_guide():
    ppl.sample("z", dist.Bernoulli(logits=ppl.param("c")))


def evidence(p, q):
    def log_weight():
        z = q.simulate()
        return p.log_density(z) - z.log_density

    return ppvi.log_of(log_weight, logs=True)


def evidence_exact(params):
    p = nn.sigmoid(params["a"])
    densities = [xp.exp(dist.Normal(loc, 1.0).log_prob(0.9)) for loc in (0.0, params["b"])]
    return xp.log((1 - p) * densities[0] + p * densities[1])


DATA = np.arange(7.0, dtype=np.float32)


def minibatch(p, q):
    return ppvi.minibatch(lambda x: (x - q.simulate()["z"]) ** 2, xp.asarray(DATA), 3)


def batched_model():
    """A likelihood of four data, two at a time."""
    m = ppl.param("m")
    with ppl.plate("data", 4, subsample_size=2) as rows:
        ppl.sample("x", dist.Normal(m, 1.0), obs=xp.array([0.1, -0.2, 0.4, 0.3])[rows])


def likelihood(p, q):
    return ppvi.exp_of(lambda: p.log_density({}), rate=2.0)


def likelihood_exact(params):
    return xp.exp(dist.Normal(params["m"], 1.0).log_prob(xp.array([0.1, -0.2, 0.4, 0.3])).sum())


def replicated(p, q):
    return ppvi.replicate(2, lambda: ppvi.exp_of(lambda: 0.5 * q.simulate()["z"])).mean()


PATHS = ({"z": Reparam()}, {"z": Reinforce()})
LABELS = ({"z": Enumerate()}, {"z": Reinforce()}, {"z": LeaveOneOut(2)})
REPLAYED = (
    "runs whose number is drawn are replayed on Pyro, one draw at a time: tests/pyro/test_replay.py has their law"
)
CASES = [
    Case("exp of an inner expectation", exp_of_an_inner_expectation, nothing, two_guide, dict(m=0.2, a=0.4), exp_exact,
         ({"u": Reparam(), "z": Enumerate()}, {"u": Reparam(), "z": Reinforce()}, {"u": Reinforce(), "z": LeaveOneOut(2)}), quick=1, not_on_pyro=REPLAYED),
    Case("exp, named rate and center", lambda p, q: ppvi.exp_of(lambda: 0.5 * q.simulate()["z"], rate=0.7, center=0.3), nothing, normal_guide, dict(m=0.5), lambda t: xp.exp(0.5 * t["m"]), PATHS, quick=0, not_on_pyro=REPLAYED),
    Case("exp of a subsampled log likelihood", likelihood, batched_model, nothing, dict(m=0.5), likelihood_exact, ({},), not_on_pyro=REPLAYED),
    Case("replicated exp", replicated, nothing, normal_guide, dict(m=0.5), lambda t: xp.exp(0.5 * t["m"]), PATHS, quick=0, not_on_pyro=REPLAYED),
    Case("log", lambda p, q: ppvi.log_of(lambda: xp.exp(0.3 * q.simulate()["z"])), nothing, normal_guide, dict(m=0.5), lambda t: 0.3 * t["m"] + 0.045, PATHS, quick=0, not_on_pyro=REPLAYED),
    Case("log of very small numbers", lambda p, q: ppvi.log_of(lambda: 0.3 * q.simulate()["z"] - 200.0, logs=True), nothing, normal_guide, dict(m=0.5), lambda t: 0.3 * t["m"] + 0.045 - 200.0, PATHS, not_on_pyro=REPLAYED),
    Case("log evidence", evidence, mixture_model, mixture_guide, dict(a=0.3, b=1.4, c=-0.2), evidence_exact, LABELS, quick=1, not_on_pyro=REPLAYED),
    Case("reciprocal", lambda p, q: ppvi.power_of(-1.0, lambda: xp.exp(0.3 * q.simulate()["z"])), nothing, normal_guide, dict(m=0.5), lambda t: xp.exp(-0.3 * t["m"] - 0.045), PATHS, not_on_pyro=REPLAYED),
    Case("square root", lambda p, q: ppvi.power_of(0.5, lambda: xp.exp(0.3 * q.simulate()["z"])), nothing, normal_guide, dict(m=0.5), lambda t: xp.exp(0.15 * t["m"] + 0.0225), PATHS, quick=0, not_on_pyro=REPLAYED),
    Case("minibatch", minibatch, nothing, normal_guide, dict(m=0.5), lambda t: xp.sum((xp.asarray(DATA) - t["m"]) ** 2) + 7.0, PATHS),
    Case("exp of a minibatch", lambda p, q: ppvi.exp_of(lambda: ppvi.minibatch(lambda x: ppl.param("m") * x + 0 * q.simulate()["z"], xp.asarray(DATA) / 10, 3)), nothing, normal_guide, dict(m=0.5), lambda t: xp.exp(2.1 * t["m"]), PATHS[:1], not_on_pyro=REPLAYED),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "case", "strategies"), rows(CASES))
def test_value_and_gradient(engine, case, strategies):
    # A vectorised loop runs as long as its longest lane, so the draws come in small batches.
    check(engine, replace(case, n=60_000), strategies, batch=100)


def test_what_does_not_depend_on_a_site_is_not_credited_to_it():
    """The value, about -200, stands beside the run that is differentiated: times the score it would have an sd of 200."""
    (case,) = (case for case in CASES if case.name == "log of very small numbers")
    objective = vi.objective(case.program, nothing, normal_guide, strategies={"z": Reinforce()})
    grads = jax.vmap(objective.value_and_grad, (0, None))(
        jax.random.split(jax.random.key(0), 500), {"m": xp.array(0.5)}
    )
    assert float(grads[1]["m"].std()) < 20.0


def _staged(model, guide, params, program):
    """The equations of an objective."""

    def run(params, key):
        session = Session(NumPyroPrograms(), params, {}, scope_of(key))
        with handles(estimator_of(bound).formula, session, (), {}) as (p, q):
            return program(p, q)

    bound = vi.objective(program, model, guide)
    return stage(run, params, jax.random.key(0)).equations


def test_estimates_are_marked():
    """What a nonlinear function must not be applied to is there to be seen, with its place in the program."""
    batch = [e.role for e in _staged(batched_model, nothing, {"m": 0.5}, lambda p, q: p.log_density({}))]
    assert Estimate("log density of x on a minibatch of data") in batch
    marks = [e for e in _staged(nothing, normal_guide, {"m": 0.5}, minibatch) if isinstance(e.role, Estimate)]
    assert [mark.role.of for mark in marks] == ["minibatch of 3 among 7"]
    assert "test_expectations.py" in marks[0].where()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: ppvi.exp_of(lambda: 1.0, rate=0.0), "the rate must be a finite number above 0, not 0.0"),
        (lambda: ppvi.minibatch(lambda x: x, DATA, 8), "there are 7 rows, fewer than a batch of 8"),
        (lambda: ppvi.minibatch(lambda x: x, DATA, 0), "must be an int of at least 1, not 0"),
    ],
)
def test_bad_input(program, message):
    def objective(p, q):
        return program() * q.simulate()["z"]

    with pytest.raises(ProgramError, match=message):
        vi.objective(objective, nothing, normal_guide).estimate(jax.random.key(0), {"m": xp.array(0.5)})
