"""An objective is a value: it compares, hashes, copies, pickles and prints as its parts do, before use and after."""

import copy
import gc
import pickle
import subprocess
import sys
import weakref
from unittest import mock

import cloudpickle
import numpy as np
import pytest

import ppvi
from ppvi.objective import Objective, estimator_of
from ppvi.objectives import elbo
from tests.engines import ENGINES, NUMPYRO, dist, enable_x64, on, ppl, xp

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


def model(y):
    ppl.sample("y", dist.Normal(ppl.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=y)


def guide(y):
    ppl.sample("z", dist.Normal(ppl.param("loc", xp.array(0.5)), 1.0))


def bound_on(engine, program=elbo, **options):
    return engine.vi.objective(program, model, guide, **options)


def value_of(engine, bound):
    y = engine.array(np.float32(3.0))
    return float(bound.value_and_grad(engine.key(0), {"loc": engine.array(np.float32(0.5))}, y)[0])


@each_engine
def test_equal_objectives_are_one(engine):
    with on(engine):
        bound, other = (bound_on(engine, strategies={"z": ppvi.Reinforce()}) for _ in range(2))
        assert bound == other
        assert hash(bound) == hash(other)
        assert estimator_of(bound) is estimator_of(other)
        assert len({bound, other, bound_on(engine), bound_on(engine, maximize=False)}) == 3
        assert bound != bound_on(engine, strategies={"z": ppvi.Reparam()})


@each_engine
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_after_use(engine, copied):
    with on(engine):
        for program in (elbo, ppvi.objectives.iwelbo(3), ppvi.objectives.beta_elbo({"z": 0.5})):
            bound = bound_on(engine, program)
            value = value_of(engine, bound)
            again = copied(bound)
            assert again == bound
            assert value_of(engine, again) == value


@each_engine
def test_closures_by_cloudpickle(engine):
    with on(engine):
        shift = engine.array(np.float32(0.25))

        def shifted(p, q):
            z = q.simulate()
            return p.log_density(z) - z.log_density + shift

        bound = bound_on(engine, shifted)
        value = value_of(engine, bound)
        assert value_of(engine, pickle.loads(cloudpickle.dumps(bound))) == value


@pytest.mark.slow
def test_a_fit_in_another_process(tmp_path):
    code = "import pickle, sys; fit = pickle.load(open(sys.argv[1], 'rb')); print(float(fit.posterior(draws=5).posterior['z'].sum()))"
    for engine in ENGINES:
        with on(engine):
            fit = engine.vi.fit(
                bound_on(engine), engine.key(0), engine.array(np.float32(3.0)), num_steps=5, progress=False
            )
            (tmp_path / "fit").write_bytes(pickle.dumps(fit))
            mine = float(fit.posterior(draws=5).posterior["z"].sum())
        setup = "" if engine is ENGINES[0] else "import tests.engines as e; e._engines.append(e.PYRO); "
        run = subprocess.run(
            [sys.executable, "-c", setup + code, tmp_path / "fit"], capture_output=True, text=True, check=True
        )
        assert float(run.stdout) == mine


@each_engine
def test_what_an_objective_prints(engine):
    with on(engine):
        bound = bound_on(engine, ppvi.objectives.iwelbo(3), strategies={"z": ppvi.Reinforce()})
        assert repr(bound).startswith("Objective(iwelbo(3), model, guide, strategies={'z': Reinforce(")
        assert repr(bound).endswith(f"; maximized, {engine.name.lower()})")


def test_objectives_of_the_library_are_values():
    objectives = ppvi.objectives
    assert objectives.iwelbo(3) == objectives.iwelbo(3) == pickle.loads(pickle.dumps(objectives.iwelbo(3)))
    assert objectives.iwelbo(3) != objectives.iwelbo(4)
    assert objectives.iwelbo(3) != objectives.vimco(3)
    assert len({objectives.renyi(0.5, 2), objectives.renyi(0.5, 2), objectives.renyi(0.5, 3)}) == 2
    assert repr(objectives.iwelbo(3, per="data")) == "iwelbo(3, per='data')"
    assert repr(objectives.cubo(3).marking.maximize) == "False"
    weights = np.array([0.0, 0.6])
    assert objectives.thermodynamic(weights, 3) == objectives.thermodynamic(weights, 3)
    assert objectives.thermodynamic(weights, 3) != objectives.thermodynamic(weights.copy(), 3)


@each_engine
def test_nothing_is_left_of_an_objective(engine):
    with on(engine):

        def made():
            def own(p, q):
                return elbo(p, q)

            bound = bound_on(engine, own)
            value_of(engine, bound)
            return weakref.ref(bound), weakref.ref(estimator_of(bound))

        dead = [made() for _ in range(3)]
        gc.collect()
        assert [ref() for refs in dead for ref in refs] == [None] * 6


@each_engine
def test_an_objective_does_not_change(engine):
    with on(engine):
        bound = bound_on(engine)
        with pytest.raises(ppvi.ProgramError, match="does not change: make another one, with the maximize"):
            bound.maximize = False
        with pytest.raises(TypeError):
            bound.strategies["z"] = ppvi.Reinforce()
        assert isinstance(bound, Objective)


# Data -------------------------------------------------------------------------------------------------------------------


def noisy_model(y, progress, alpha=1.0):
    ppl.sample("y", dist.Normal(ppl.sample("z", dist.Normal(0.0, alpha)), progress), obs=y)


def noisy_guide(y, progress, alpha=1.0):
    guide(y)


@each_engine
def test_an_objective_on_data(engine):
    with on(engine):
        y, half, one = (engine.array(np.float32(x)) for x in (3.0, 0.5, 1.0))
        bound = engine.vi.objective(elbo, noisy_model, noisy_guide)
        there = bound.on(y, progress=half)
        key, params = engine.key(0), {"loc": half}
        value, _ = bound.value_and_grad(key, params, y, progress=half)
        assert float(there.value_and_grad(key, params)[0]) == float(value)
        assert float(there.estimate(key, params)) == float(value)
        assert there.prove(params).verdict == "proved"
        assert estimator_of(there) is estimator_of(bound)
        assert there != bound.on(y, progress=one)
        assert there == bound.on(y, progress=half)
        fit = engine.vi.fit(there, key, num_steps=3, progress=False)
        assert fit.posterior(draws=4).posterior["z"].shape == (1, 4)
        again = pickle.loads(pickle.dumps(fit))
        np.testing.assert_array_equal(again.posterior(draws=4).posterior["z"], fit.posterior(draws=4).posterior["z"])
        assert "on 2 arguments" in repr(there)
        with pytest.raises(ppvi.ProgramError, match="has its data from `on`"):
            there.value_and_grad(key, params, y)


@each_engine
def test_an_option_and_an_argument_of_one_name(engine):
    with on(engine):
        y, half = (engine.array(np.float32(x)) for x in (3.0, 0.5))
        bound = engine.vi.objective(elbo, noisy_model, noisy_guide)
        with pytest.raises(
            ppvi.ProgramError, match=r"progress= is an option of fit and an argument of the model noisy_model"
        ):
            engine.vi.fit(bound, engine.key(0), y, progress=False)
        with pytest.raises(ppvi.ProgramError, match=r"alpha= is an option of check and an argument of the model"):
            bound.check(engine.key(0), {"loc": half}, y, half, alpha=0.5)
        with pytest.raises(ppvi.ProgramError, match=r"'progress' is the name of an option too"):
            engine.vi.fit(bound, engine.key(0), y, num_steps=1)


@each_engine
def test_verbs_stage_once_between_them(engine):
    """For arguments of the same shapes a plan is made once, whichever verb comes first, and for others once more."""
    with on(engine):
        bound = bound_on(engine, lambda p, q: elbo(p, q))  # equal to no other
        kind = type(estimator_of(bound))
        one, other = engine.array(np.float32(3.0)), engine.array(np.ones(2, np.float32))
        params = bound.init(engine.key(0), one)
        verbs = (
            lambda y: bound.explain(params, y),
            lambda y: bound.prove(params, y),
            lambda y: bound.estimate(engine.key(1), params, y),
            lambda y: bound.value_and_grad(engine.key(1), params, y),
        )
        with mock.patch.object(kind, "_plan", autospec=True, side_effect=kind._plan) as made:
            for verb in (*verbs, *verbs[::-1]):
                verb(one)
            bound.check(engine.key(0), params, one, against="path", budget=2.0, progress=False)
            assert made.call_count == 1
            verbs[-1](other)
            verbs[0](one)
            verbs[0](other)
            assert made.call_count == 2


def test_modes_of_jax_are_told_apart():
    """What is staged in single precision is not what runs in double."""

    def wide(y):
        ppl.sample("y", dist.Normal(ppl.sample("z", dist.Normal(0.0, xp.ones(()))), 1.0), obs=y)

    with on(NUMPYRO):
        bound = NUMPYRO.vi.objective(elbo, wide, guide)
        params, y = {"loc": np.float32(0.5)}, np.float32(3.0)
        found = bound.prove(params, y)
        with enable_x64(True):
            assert bound.prove(params, y).verdict == found.verdict
            assert bound.estimate(NUMPYRO.key(0), params, y).dtype == np.float64
        assert bound.estimate(NUMPYRO.key(0), params, y).dtype == np.float32
