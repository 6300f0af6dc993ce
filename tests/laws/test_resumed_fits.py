"""A fit is a state that goes on: in however many parts its steps are taken, they are the same numbers, to the bit."""

import functools
import os
import pickle
import random
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import optax
import pyro.optim
import pytest
import torch

import ppvi
from ppvi import _identity
from ppvi._steps import Pace
from ppvi.checkpoints import Checkpoints
from ppvi.objectives import elbo
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, handlers, on, ppl, xp

Y = np.array([1.2, 0.4, 2.1, 1.7], np.float32)
each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


def model(y):
    scale = ppl.sample("scale", dist.LogNormal(xp.array(0.0), xp.array(1.0)))
    with ppl.plate("data", len(y)):
        z = ppl.sample("z", dist.Bernoulli(xp.array(0.4)))
        ppl.sample("y", dist.Normal(2 * z, scale), obs=y)


def guide(y):
    loc = ppl.param("loc", xp.array(0.0))
    sd = ppl.param("sd", xp.array(0.5), constraint=dist.constraints.positive)
    ppl.sample("scale", dist.LogNormal(loc, sd))
    with ppl.plate("data", len(y)):
        ppl.sample("z", dist.Bernoulli(logits=ppl.param("logits", xp.array(np.zeros(4, np.float32)))))


def learned(engine):
    return {"z": ppvi.Reinforce(ppvi.strategies.RunningMean())}


def bounds(engine, kind):
    """What is fitted, made anew as in another process."""
    if engine is PYRO:
        pyro.clear_param_store()
    one = engine.vi.objective(elbo, model, guide, strategies=learned(engine) if kind == "learning" else None)
    if kind != "several":
        return one
    return [(one, ["loc", "sd"]), (engine.vi.objective(ppvi.objectives.iwelbo(3), model, guide), ["logits"])]


def scheduled(leaves):
    optimizer = torch.optim.SGD(leaves, lr=0.02, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)


OPTIMIZERS = {
    ("NumPyro", "natural"): ppvi.optimizers.Natural,
    ("Pyro", "natural"): ppvi.optimizers.Natural,
    ("NumPyro", "scheduled"): lambda: optax.adam(optax.cosine_decay_schedule(0.02, 60)),
    ("Pyro", "scheduled"): lambda: scheduled,
    ("Pyro", "clipped"): lambda: pyro.optim.ClippedAdam({"lr": 0.02, "lrd": 0.98}),
    ("Pyro", "falling"): lambda: pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.02}, "gamma": 0.95}
    ),
}


def run(engine, kind, rule, steps, **options):
    made = OPTIMIZERS.get((engine.name, rule), lambda: 0.02)()
    y, kind_options = engine.array(Y), {"averaging": 3} if kind == "averaged" else {}
    options = {"optimizer": made, "progress": False} | kind_options | options
    return engine.vi.fit(bounds(engine, kind), engine.key(7), y, num_steps=steps, **options)


def assert_same(fit, other):
    np.testing.assert_array_equal(fit.losses, other.losses)
    assert fit.state.arrays.keys() == other.state.arrays.keys()
    for name, x in fit.state.arrays.items():
        np.testing.assert_array_equal(np.asarray(x), np.asarray(other.state.arrays[name]), err_msg=name)
    for name, x in fit.params.items():
        np.testing.assert_array_equal(np.asarray(x), np.asarray(other.params[name]), err_msg=name)


@pytest.mark.parametrize(
    ("engine", "kind", "optimizer"),
    [
        *((engine, kind, "adam") for engine in ENGINES for kind in ("averaged", "learning")),
        *(pytest.param(engine, "several", "adam", marks=pytest.mark.slow) for engine in ENGINES),
        pytest.param(NUMPYRO, "one", "scheduled", marks=pytest.mark.slow),
        (PYRO, "one", "scheduled"),
        *((engine, "averaged", "natural") for engine in ENGINES),
        pytest.param(PYRO, "several", "clipped", marks=pytest.mark.slow),
        pytest.param(PYRO, "one", "falling", marks=pytest.mark.slow),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_parts_are_the_whole(engine, kind, optimizer, tmp_path, monkeypatch):
    with on(engine):
        whole = run(engine, kind, optimizer, 30)
        monkeypatch.setattr(Pace, "steps", lambda self, left: min(left, 7))
        part = run(engine, kind, optimizer, 11)
        assert_same(whole, run(engine, kind, optimizer, 19, state=part))
        assert_same(whole, run(engine, kind, optimizer, 19, state=pickle.loads(pickle.dumps(part.state))))
        run(engine, kind, optimizer, 11, checkpoint=tmp_path)
        loaded = ppvi.load(tmp_path, bounds(engine, kind))
        assert_same(part, loaded)
        assert_same(whole, run(engine, kind, optimizer, 19, state=loaded))


@each_engine
def test_a_number_is_the_step_size_of_adam(engine):
    with on(engine):
        adam = optax.adam(0.02) if engine is NUMPYRO else functools.partial(torch.optim.Adam, lr=0.02)
        assert_same(run(engine, "one", "adam", 5), run(engine, "one", "adam", 5, optimizer=adam))


@each_engine
@pytest.mark.parametrize("averaging", [0, 3])
def test_the_average_is_the_weighted_mean(engine, averaging):
    """At step t the weight is (a + 1) / (t + a), so the mean of all for a = 0."""
    seen = []
    with on(engine):
        run(engine, "one", "adam", 9, every=1, callback=lambda step, fit: seen.append(float(fit.params["loc"])))
        fit = run(engine, "one", "adam", 9, averaging=averaging)
    mean = 0.0
    for t, x in enumerate(seen, 1):
        mean += (averaging + 1) / (t + averaging) * (x - mean)
    assert len(seen) == 9
    np.testing.assert_allclose(float(fit.params["loc"]), mean, rtol=1e-5)


@each_engine
def test_what_stops_a_fit(engine):
    with on(engine):
        steps = []
        fit = run(engine, "one", "adam", 50, every=10, callback=lambda step, fit: steps.append(step) or step >= 20)
        assert (steps, fit.state.step, fit.why) == ([10, 20], 20, "the callback said so")
        resting = [ppvi.TimeLimit(1e4), ppvi.Plateau(window=5, errors=-100.0), ppvi.Plateau(window=5, errors=100.0)]
        fit = run(engine, "one", "adam", 50, every=5, until=resting)
        assert (fit.state.step, fit.why) == (10, "the loss has not fallen in 5 steps")
        assert run(engine, "one", "adam", 10**6, until=ppvi.TimeLimit(0.0)).state.step < 100
        assert "10 steps (the loss has not fallen in 5 steps)" in str(fit)


@each_engine
def test_an_interrupt_has_the_fit_so_far(engine):
    def interrupt(step, fit):
        if step == 4:
            raise KeyboardInterrupt

    with on(engine):
        with pytest.raises(KeyboardInterrupt) as caught:
            run(engine, "one", "adam", 9, every=2, callback=interrupt)
        assert_same(run(engine, "one", "adam", 9), run(engine, "one", "adam", 5, state=caught.value.fit))


def rowed(engine, told=lambda rows: None):
    def model(x):
        told(len(x))
        with ppl.plate("data", 6, subsample_size=len(x)):
            z = ppl.sample("z", dist.Normal(xp.array(0.0), xp.array(1.0)))
            ppl.sample("x", dist.Normal(z, xp.array(1.0)), obs=x)

    def guide(x):
        with ppl.plate("data", 6, subsample_size=len(x)):
            ppl.sample("z", dist.Normal(ppl.param("slope", xp.array(0.0)) * x, xp.array(0.7)))

    return engine.vi.objective(elbo, model, guide)


@each_engine
def test_a_stream_of_batches(engine):
    """The last batch is smaller; a step sees one batch, scaled to all rows, and a state goes on at its place among them."""
    x = np.arange(6, dtype=np.float32)
    with on(engine):
        batches = [(engine.array(x[i : i + 4]),) for i in (0, 4)]
        fit = functools.partial(engine.vi.fit, rowed(engine), engine.key(1), progress=False)
        whole = fit(batches=batches, num_steps=5)
        assert_same(whole, fit(batches=batches, num_steps=2, state=fit(batches=batches, num_steps=3)))
        assert_same(whole, fit(batches=(batch[0] for batch in batches + batches + batches[:1]), num_steps=9))
        sgd = optax.sgd(1e-3) if engine is NUMPYRO else functools.partial(torch.optim.SGD, lr=1e-3)
        [slope] = fit(batches=batches[1:], num_steps=1, optimizer=sgd).params.values()
        # d/ds of the mean of log N(z; 0, 1) + log N(x; z, 1) over the rows 4 and 5, times 6 / 2, at s = 0 is 3 (16 + 25).
        assert 0.05 < float(slope) < 0.2
        with pytest.raises(ppvi.ProgramError, match="batches= gives nothing"):
            fit(batches=[])
        with pytest.raises(ppvi.ProgramError, match="give either them or arguments by position"):
            engine.vi.fit(rowed(engine), engine.key(1), batches[0][0], batches=batches)


def test_a_ragged_batch_is_compiled_once():
    """However often it comes, no program runs again in Python."""
    x, runs = np.arange(6, dtype=np.float32), []

    def fit(steps):
        bound, before = rowed(NUMPYRO, runs.append), len(runs)
        NUMPYRO.vi.fit(bound, NUMPYRO.key(1), batches=[x[:4], x[4:]], num_steps=steps, progress=False)
        return len(runs) - before

    with on(NUMPYRO):
        assert fit(2) == fit(7) > 0
        assert set(runs) == {4, 2}


def test_a_loader_of_torch():
    rows = torch.utils.data.TensorDataset(torch.arange(6.0))
    loader = torch.utils.data.DataLoader(rows, batch_size=4)
    with on(PYRO):
        fit = PYRO.vi.fit(rowed(PYRO), 0, batches=loader, num_steps=5, progress=False)
    assert fit.losses.shape == (5,)


@each_engine
def test_draws_after_a_fit_are_not_its_own(engine):
    """With the guide's own draws for the objective, a step's loss is the draw of its step."""
    with on(engine):

        def guide():
            ppl.sample("z", dist.Normal(ppl.param("loc", xp.array(0.0)), xp.array(1.0)))

        bound = engine.vi.objective(
            lambda p, q: q.simulate()["z"], lambda: ppl.sample("z", dist.Normal(0.0, 1.0)), guide
        )
        still = optax.sgd(0.0) if engine is NUMPYRO else functools.partial(torch.optim.SGD, lr=0.0)
        fit = engine.vi.fit(bound, engine.key(0), num_steps=300, optimizer=still, progress=False)
        draws = np.asarray(fit.posterior(draws=300).posterior["z"]).ravel()
        assert abs(np.corrcoef(draws, -fit.losses)[0, 1]) < 0.3
        assert not set(draws.tolist()) & set((-fit.losses).tolist())


@each_engine
def test_what_ends_a_fit_has_it(engine, tmp_path, monkeypatch):
    def fails(step, fit):
        if step == 4:
            raise ZeroDivisionError

    def full(*_):
        raise OSError("no space left")

    with on(engine):
        with pytest.raises(ZeroDivisionError) as caught:
            run(engine, "one", "adam", 9, every=2, callback=fails)
        assert caught.value.fit.state.step == 4
        assert run(engine, "one", "adam", 9, every=3, callback=lambda step, fit: np.bool_(True)).state.step == 3
        monkeypatch.setattr(Checkpoints, "_write", full)
        with pytest.warns(UserWarning, match="no checkpoint of step 3 could be written: no space left"):
            assert run(engine, "one", "adam", 3, checkpoint=tmp_path).state.step == 3


def test_a_scheduler_of_pyro_moves():
    rule = pyro.optim.ExponentialLR({"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.02}, "gamma": 0.5})
    with on(PYRO):
        fit = run(PYRO, "one", "adam", 4, optimizer=rule)
        named = run(
            PYRO, "one", "adam", 2, optimizer=pyro.optim.Adam(lambda name: {"lr": 0.1 if name == "loc" else 0.0})
        )
    rates = [float(x) for name, x in fit.state.arrays.items() if name.endswith("param_groups/0/lr")]
    np.testing.assert_allclose(rates, 0.02 * 0.5**4)
    assert float(named.params["sd"]) == pytest.approx(0.5)
    assert float(named.params["loc"]) != 0.0


def test_an_error_of_a_fit_is_pickled():
    error = pickle.loads(pickle.dumps(ppvi.FitError("lost", 3)))
    assert (str(error), error.fit) == ("lost", 3)


# States and files that do not fit ---------------------------------------------------------------------------------------


def other_guide(y):
    guide(y)
    ppl.param("more", xp.array(0.0))


@each_engine
def test_a_state_of_another_fit_is_refused_by_name(engine):
    with on(engine):
        y, state = engine.array(Y), run(engine, "one", "adam", 2).state
        bound = engine.vi.objective(elbo, model, other_guide)
        with pytest.raises(ppvi.ProgramError, match=r"the state to go on from has nothing for params.*more"):
            engine.vi.fit(bound, engine.key(7), y, num_steps=2, state=state, progress=False)
        sgd = optax.sgd(0.1) if engine is NUMPYRO else functools.partial(torch.optim.SGD, lr=0.1)
        with pytest.raises(ppvi.ProgramError, match="begin anew with params="):
            engine.vi.fit(
                bounds(engine, "one"), engine.key(7), y, num_steps=2, state=state, optimizer=sgd, progress=False
            )
        fit = run(engine, "one", "adam", 2)
        other = engine.vi.objective(ppvi.objectives.iwelbo(2), model, guide)
        with pytest.raises(
            ppvi.ProgramError, match=r"state= is of another fit: its program is elbo, and not iwelbo\(2\)"
        ):
            engine.vi.fit(other, engine.key(7), y, num_steps=2, state=fit, progress=False)
        on_data = [(other.on(engine.array(Y)), ["loc"]), (other.on(engine.array(Y + 1)), ["sd"])]
        with pytest.raises(ppvi.ProgramError, match="several objectives have the same data"):
            engine.vi.fit(on_data, engine.key(7), num_steps=2, progress=False)
        with pytest.raises(ppvi.ProgramError, match=r"state= is a fit, its \.state, or ppvi\.load"):
            run(engine, "one", "adam", 2, state="run")
        with pytest.raises(ppvi.ProgramError, match="params= begins anew and state= goes on"):
            run(engine, "one", "adam", 2, state=state, params={"loc": 1.0})


def hooked(leaves):
    optimizer = torch.optim.Adam(leaves, lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


def test_a_schedule_that_no_state_holds_is_refused():
    with on(PYRO):
        part = run(PYRO, "one", "adam", 3, optimizer=hooked)
        with pytest.raises(ppvi.ProgramError, match=r"\(optimizer, scheduler\)"):
            run(PYRO, "one", "adam", 3, optimizer=hooked, state=part)


class Flagged(torch.optim.SGD):
    """Moves at every other step."""

    def step(self, closure=None):
        [group] = self.param_groups
        group["rests"] = not group.get("rests", True)
        return None if group["rests"] else super().step(closure)


def test_flags_of_an_optimiser_go_on():
    with on(PYRO):
        options = {"optimizer": functools.partial(Flagged, lr=0.02)}
        part = run(PYRO, "one", "adam", 3, **options)
        assert_same(run(PYRO, "one", "adam", 5, **options), run(PYRO, "one", "adam", 2, state=part, **options))


def on_plateau(leaves):
    optimizer = torch.optim.Adam(leaves, lr=0.1)
    return optimizer, torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [
        (torch.optim.LBFGS, "a step of LBFGS needs its closure"),
        (on_plateau, "a step of ReduceLROnPlateau needs its metrics"),
        (pyro.optim.PyroOptim(torch.optim.LBFGS, {}), "a step of LBFGS needs its closure"),
    ],
    ids=["LBFGS", "ReduceLROnPlateau", "LBFGS of Pyro"],
)
def test_what_needs_more_than_gradients_is_refused(optimizer, said):
    with on(PYRO), pytest.raises(ppvi.ProgramError, match=said):
        run(PYRO, "one", "adam", 2, optimizer=optimizer)


@each_engine
def test_parameters_are_loaded_in_their_formats(engine, tmp_path):
    def guide():
        half = ppl.param("half", start)
        ppl.sample("z", dist.Normal(xp.array(1.0) * half, xp.array(1.0)))

    with on(engine):
        start = jnp.array(0.3, jnp.bfloat16) if engine is NUMPYRO else (lambda: torch.tensor(0.3, dtype=torch.bfloat16))
        bound = engine.vi.objective(elbo, lambda: ppl.sample("z", dist.Normal(xp.array(0.0), xp.array(1.0))), guide)
        fit = engine.vi.fit(bound, engine.key(0), num_steps=2, progress=False, checkpoint=tmp_path)
        loaded = ppvi.load(tmp_path, bound)
        assert str(loaded.params["half"].dtype).endswith("bfloat16")
        assert float(loaded.params["half"]) == float(fit.params["half"])


def test_running_statistics_go_on(tmp_path):
    """Those of a BatchNorm are a part of the state."""

    def made():
        pyro.clear_param_store()
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))

        def guide(x):
            pyro.module("net", net)
            with pyro.plate("data", len(x)):
                pyro.sample("z", pyro.distributions.Normal(net(x)[:, 0], 1.0))

        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
                pyro.sample("x", pyro.distributions.Normal(z[:, None], 1.0).to_event(1), obs=x)

        return net, PYRO.vi.objective(elbo, model, guide)

    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    net, bound = made()
    whole = PYRO.vi.fit(bound, 3, x, num_steps=12, progress=False)
    other, bound = made()
    part = PYRO.vi.fit(bound, 3, x, num_steps=5, progress=False)
    third, bound = made()
    assert_same(whole, PYRO.vi.fit(bound, 3, x, num_steps=7, state=part, progress=False))
    torch.testing.assert_close(third.state_dict(), net.state_dict(), rtol=0, atol=0)
    assert not torch.equal(other[1].running_mean, net[1].running_mean)


@pytest.fixture
def files(tmp_path):
    """Files of steps 2, 4 and 6."""
    with on(NUMPYRO), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "write_in_time", lambda *_: None)
        state = None
        for _ in range(3):
            state = run(NUMPYRO, "one", "adam", 2, checkpoint=tmp_path, state=state)
        yield sorted(tmp_path.iterdir())


def spoilt(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut off":
        del content[-10:]
    elif how == "changed":
        content[-3] ^= 1
    elif how == "newer":
        content = content.replace(b'\\"format\\": 2', b'\\"format\\": 9')
    elif how == "empty":
        content.clear()
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut off", "is cut off or no checkpoint"),
        ("empty", "is cut off or no checkpoint"),
        ("changed", "has been changed since it was written"),
        ("newer", "is of format 9, and this version of ppvi reads format 2"),
    ],
)
def test_a_spoilt_file_is_named_and_the_one_before_is_used(files, how, said):
    spoilt(files[-1], how)
    with on(NUMPYRO), pytest.warns(UserWarning, match=f"{files[-1].name} {said}.*{files[-2].name} is used instead"):
        assert ppvi.load(files[0].parent, bounds(NUMPYRO, "one")).state.step == 4


def test_files_of_another_model_are_refused(files):
    def model(y):
        ppl.sample("scale", dist.LogNormal(0.0, 1.0))

    with on(NUMPYRO):
        other = NUMPYRO.vi.objective(elbo, model, guide)
        with pytest.raises(ppvi.ProgramError, match=r"is of another fit: its model is model, and not .*model"):
            ppvi.load(files[0].parent, other)
        with pytest.raises(ppvi.ProgramError, match="has no checkpoint to go on from: there is no file"):
            ppvi.load(files[0].parent / "nowhere", other)
        with pytest.raises(ppvi.ProgramError, match=r"holds a fit at step 6, and this one begins at step 0: go on"):
            run(NUMPYRO, "one", "adam", 2, checkpoint=files[0].parent)


def test_the_last_files_are_kept(files, tmp_path):
    with on(NUMPYRO):
        run(NUMPYRO, "one", "adam", 2, checkpoint=tmp_path, state=ppvi.load(tmp_path, bounds(NUMPYRO, "one")))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"step-{step:09d}.safetensors" for step in (4, 6, 8)]
    assert not [name for name in os.listdir(tmp_path) if "partial" in name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["numpyro", "pyro"])
def test_killed_fits_go_on_to_the_same_numbers(name, tmp_path):
    """A process is killed at twenty random moments, and begun again each time."""
    whole = killed(name, tmp_path / "whole", None)
    rng, deaths = random.Random(1), 0
    for _ in range(200):
        end = killed(name, tmp_path / "parts", rng.uniform(1.0, 8.0) if deaths < 20 else None)
        if end is not None and deaths == 20:
            assert end == whole
            return
        deaths += end is None
    raise AssertionError("the fit does not come to its end")


def killed(name, folder, seconds):
    """What a process prints that fits for a while, or None if it is killed so many seconds after it has begun."""
    command = [sys.executable, "-m", "tests.laws.goes_on", name, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if seconds is not None:
        process.stdout.readline()
        time.sleep(seconds)
        process.kill()
    out, _ = process.communicate(timeout=300)
    return out.splitlines()[-1] if process.returncode == 0 else None


SCALE = 2.0


def drawn_with(scale):
    return dist.Normal(0.0, scale)


class Twice:
    def __init__(self, scale):
        self.scale = scale

    def half(self):
        return 0.5


def of_its_module():
    ppl.sample("z", drawn_with(SCALE * Twice(1.0).half()))


@pytest.mark.parametrize(
    ("name", "other"),
    [("SCALE", 3.0), ("drawn_with", lambda scale: dist.Cauchy(0.0, scale)), ("Twice", type("Twice", (Twice,), {"half": lambda self: 2}))],
)  # fmt: skip
def test_a_model_is_what_its_code_names_too(monkeypatch, name, other):
    before = _identity.identity([NUMPYRO.vi.objective(elbo, of_its_module, of_its_module)])
    assert (
        _identity.difference(before, _identity.identity([NUMPYRO.vi.objective(elbo, of_its_module, of_its_module)]))
        is None
    )
    monkeypatch.setitem(of_its_module.__globals__, name, other)
    now = _identity.identity([NUMPYRO.vi.objective(elbo, of_its_module, of_its_module)])
    assert _identity.difference(before, now) == "the code of its model of_its_module was another"


@each_engine
def test_the_code_of_a_model_within_a_handler_is_compared(engine):
    """Of `reparam` and the like it is that of the function within."""

    def identity_of(scale):
        inner = handlers.reparam(lambda: ppl.sample("z", dist.Normal(0.0, scale)), config={})
        return _identity.identity([engine.vi.objective(elbo, inner, of_its_module)])

    with on(engine):
        before = identity_of(1.0)
        assert _identity.difference(before, identity_of(1.0)) is None
        assert "the code of its model" in _identity.difference(before, identity_of(2.0))
