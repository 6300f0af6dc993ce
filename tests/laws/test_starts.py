"""Several starts of a fit: each is a fit of its own, and the best of them is kept."""

import functools
import warnings

import numpy as np
import pytest
import torch
from jax.sharding import Mesh

import ppvi
from ppvi._steps import Pace
from ppvi.engine.training import apart
from ppvi.objectives import elbo
from tests.engines import ENGINES, NUMPYRO, dist, on, ppl, xp
from tests.laws.test_resumed_fits import assert_same, bounds, rowed, run

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


def two_modes():
    """Of a density of z at 3 and, with nine times the mass, at -3."""
    z = ppl.sample("z", dist.Normal(xp.array(0.0), xp.array(20.0)))
    ppl.factor("modes", xp.logaddexp(-2 * (z - 3) ** 2, np.log(9.0) - 2 * (z + 3) ** 2))


def narrow():
    ppl.sample("z", dist.Normal(ppl.param("loc", xp.array(0.4)), xp.array(0.5)))


@each_engine
@pytest.mark.parametrize("maximize", [pytest.param(True, marks=pytest.mark.slow), False])
def test_the_best_start_is_kept(engine, maximize):
    """From 0.4 a fit goes to 3, where the bound is lower by ln 9; what is minimised is minus the bound."""

    def program(p, q):
        return elbo(p, q) * (1 if maximize else -1)

    with on(engine):
        bound = engine.vi.objective(program, two_modes, narrow, maximize=maximize)
        fit = functools.partial(engine.vi.fit, bound, engine.key(0), optimizer=0.1, num_steps=150, progress=False)
        assert float(fit().params["loc"]) == pytest.approx(3.0, abs=0.5)
        best = fit(num_starts=4)
        assert float(best.params["loc"]) == pytest.approx(-3.0, abs=0.5)
        reached = best.chosen.losses - best.chosen.losses[best.start]
        np.testing.assert_allclose(reached[0], np.log(9), atol=0.1)
        assert set(np.round(reached, 0)) == {0.0, 2.0}
        np.testing.assert_allclose(best.losses, best.state.losses[:, best.start])
        np.testing.assert_allclose(best.state.losses[:, 0], fit().losses, rtol=1e-4, atol=1e-3)
        assert f"start {best.start} of 4 was kept, whose loss is" in str(best)


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        (NUMPYRO, "averaged"),
        *(
            pytest.param(engine, kind, marks=pytest.mark.slow)
            for engine in ENGINES
            for kind in ("averaged", "several", "learning")
            if (engine, kind) != (NUMPYRO, "averaged")
        ),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_parts_are_the_whole(engine, kind, tmp_path, monkeypatch):
    with on(engine):
        whole = run(engine, kind, "adam", 6, num_starts=3)
        monkeypatch.setattr(Pace, "steps", lambda self, left: min(left, 2))
        part = run(engine, kind, "adam", 3, num_starts=3, checkpoint=tmp_path)
        loaded = ppvi.load(tmp_path, bounds(engine, kind))
        assert (loaded.start, loaded.state.starts) == (part.start, 3)
        assert_same(part, loaded)
        again = run(engine, kind, "adam", 3, state=loaded)
        assert_same(whole, again)
        np.testing.assert_array_equal(whole.chosen.losses, again.chosen.losses)
        alone = run(engine, kind, "adam", 3, state=part, num_starts=1)
        assert alone.state.starts == 1
        np.testing.assert_allclose(alone.losses, again.state.losses[:, part.start], rtol=1e-5)
        for wrong, n in ((part, 2), (part.state, 1)):
            with pytest.raises(ppvi.ProgramError, match=f"is of 3 starts, and num_starts is {n}: leave num_starts out"):
                run(engine, kind, "adam", 4, state=wrong, num_starts=n)


def falling(engine):
    """A bound with the logarithm of a parameter that begins at random and may be negative."""
    start = (
        (lambda key: 2 * NUMPYRO.dist.Normal(0.0, 1.0).sample(key))
        if engine is NUMPYRO
        else (lambda: 2 * torch.randn(()))
    )

    def model():
        ppl.sample("z", dist.Normal(xp.array(0.0), xp.array(1.0)))

    def guide():
        loc = ppl.param("loc", start)
        ppl.sample("z", dist.Normal(loc, xp.array(1.0)))
        return loc

    def program(p, q):
        z = q.simulate()
        return p.log_density(z) - z.log_density + xp.log(z.returned)

    return engine.vi.objective(program, model, guide)


@each_engine
def test_a_start_that_is_lost_does_not_end_the_others(engine):
    with on(engine):
        fit = functools.partial(engine.vi.fit, falling(engine), num_steps=20, optimizer=0.01, progress=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = fit(engine.key(0), num_starts=4)
        said = [str(x.message) for x in caught if "was lost at step" in str(x.message)]
        lost = found.state.lost
        assert 0 < lost.sum() < 4
        assert len(said) == lost.sum()
        assert all("The others go on" in x for x in said)
        assert np.isfinite(found.losses).all()
        assert str(found).count("lost (") == lost.sum()
        np.testing.assert_array_equal(np.isnan(found.chosen.losses), lost)
        more = fit(engine.key(0), state=found)
        np.testing.assert_array_equal(more.state.lost, lost)
        with pytest.raises(ppvi.FitError, match=r"the fit stopped at step 0: start 0 of 2 was lost at step 0: "):
            fit(engine.key(0), num_starts=2, params={"loc": -30.0})


@each_engine
def test_starts_see_the_same_batches(engine):
    x = np.arange(6, dtype=np.float32)
    with on(engine):
        batches = [(engine.array(x[i : i + 4]),) for i in (0, 4)]
        fit = functools.partial(engine.vi.fit, rowed(engine), engine.key(1), num_starts=2, progress=False)
        found = fit(batches=batches, num_steps=3)
        assert found.chosen.draws == 100
        alone = engine.vi.fit(rowed(engine), engine.key(1), batches=batches, num_steps=3, progress=False)
        np.testing.assert_allclose(found.state.losses[:, 0], alone.losses, rtol=1e-5)
        with pytest.raises(ppvi.ProgramError, match="batches= is an iterator, which gives each batch once"):
            fit(batches=iter(batches))


@pytest.mark.slow
def test_starts_on_a_mesh():
    """Of one device, which is no mesh."""
    import jax

    with on(NUMPYRO):
        mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
        one, other = (run(NUMPYRO, "one", "adam", 4, num_starts=3, mesh=at) for at in (None, mesh))
        np.testing.assert_allclose(one.state.losses, other.state.losses, rtol=1e-5)
        np.testing.assert_allclose(one.chosen.losses, other.chosen.losses, rtol=1e-5)


@each_engine
def test_what_asks_sees_the_start_that_leads(engine):
    seen = []
    with on(engine):
        bound = engine.vi.objective(elbo, two_modes, narrow)
        fit = engine.vi.fit(
            bound, engine.key(0), num_starts=4, optimizer=0.1, num_steps=150, every=50, progress=False,
            callback=lambda step, fit: seen.append((step, fit.losses.shape, float(fit.params["loc"]))),
        )  # fmt: skip
    assert [x[:2] for x in seen] == [(50, (50,)), (100, (100,)), (150, (150,))]
    assert seen[-1][2] == pytest.approx(float(fit.params["loc"]), abs=0.3)


def test_what_begins_alike_gets_noise():
    """A matrix with less, as in U(-2, 2) / sqrt(4); what the key decides and what has a constraint with none."""
    first = [np.zeros(1000), np.zeros((500, 4)), np.log([0.1, 0.1]), np.array([1.0])]
    other = [*first[:3], np.array([7.0])]
    values = [*first[:2], np.array([0.1, 0.1]), np.array([1.0])]
    vector, matrix, scale, own = apart(first, other, values, seed=1)
    np.testing.assert_allclose([vector.min(), vector.max()], [-2, 2], atol=0.03)
    np.testing.assert_allclose([matrix.min(), matrix.max()], [-1, 1], atol=0.03)
    np.testing.assert_array_equal(scale, other[2])
    np.testing.assert_array_equal(own, other[3])
    [alone] = apart([first[2]], [first[2]], [values[2]], seed=1)
    assert (np.abs(alone - first[2]) > 1e-3).all()


@each_engine
@pytest.mark.parametrize("wrong", [0, 2.5, True, "two"])
def test_the_number_of_starts_is_one(engine, wrong):
    with on(engine), pytest.raises(ppvi.ProgramError, match="num_starts must be an int of at least 1"):
        run(engine, "one", "adam", 2, num_starts=wrong)
