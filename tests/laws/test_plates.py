"""Laws of plates: one minibatch in one evaluation, whoever states it; and all rows after a fit.

Every unit has a bit of its own, enumerated, so that an estimate is exact given the rows of its minibatch: 4 / n times the sum
of these units' bounds, which differ so much that the value tells which units they are.
"""

from __future__ import annotations

import functools
import itertools
from contextlib import contextmanager

import numpy as np
import pytest

import ppvi
from tests.engines import PYRO, dist, handlers, nn, on, ppl, xp

X = np.array([0.3, -1.2, 2.2, 0.9])
LOGITS = np.array([0.2, -0.5, 0.9, 0.1])

SLOW = functools.partial(pytest.param, marks=pytest.mark.slow)


@contextmanager
def units(engine, said, size=4):
    """The plate `units`, of which it is said that it has so many rows, or these, or nothing."""
    if isinstance(said, int | None):
        with ppl.plate("units", size, subsample_size=said) as i:
            yield i
    elif engine is PYRO:
        with ppl.plate("units", size, subsample=xp.asarray(np.array(said))) as i:
            yield i
    else:
        with (
            handlers.substitute(data={"units": xp.asarray(said)}),
            ppl.plate("units", size, subsample_size=len(said)) as i,
        ):
            yield i


def bits(engine, said, size=4):
    """A model of bits, and observations of them."""

    def model():
        with units(engine, said, size) as i:
            z = ppl.sample("z", dist.Bernoulli(nn.sigmoid(ppl.param("prior"))))
            ppl.sample("x", dist.Normal(2.0 * z, 1.0), obs=xp.asarray(X)[i])

    return model


def indexed(engine, said, size=4):
    def guide():
        with units(engine, said, size) as i:
            ppl.sample("z", dist.Bernoulli(logits=ppl.param("logits")[i]))

    return guide


def taken_by_the_plate(engine, said, size=4):
    """The parameter has a row for each unit, of which the plate takes those of the minibatch."""

    def guide():
        with units(engine, said, size):
            ppl.sample("z", dist.Bernoulli(logits=ppl.param("logits", event_dim=0)))

    return guide


def forward(p, q):
    """The model runs first."""
    return q.log_density(p.simulate())


def bounds():
    """The bound of each unit, and its derivative in the unit's logit, at the prior's logit -0.8."""
    q, prior = 1 / (1 + np.exp(-LOGITS)), 1 / (1 + np.exp(0.8))
    gain = np.log(prior / (1 - prior)) + (X**2 - (X - 2) ** 2) / 2 - LOGITS
    low = np.log(1 - prior) - np.log(1 - q) - X**2 / 2 - 0.5 * np.log(2 * np.pi)
    return low + q * gain, q * (1 - q) * gain


def forward_densities():
    prior, q = 1 / (1 + np.exp(0.8)), 1 / (1 + np.exp(-LOGITS))
    return prior * np.log(q) + (1 - prior) * np.log(1 - q), prior - q


ORDERS = {
    "guide first": (ppvi.objectives.elbo, bounds, indexed),
    "model first": (forward, forward_densities, taken_by_the_plate),
}


def evaluated(engine, program, model, guide, seeds=1):
    params = {"logits": engine.array(LOGITS), "prior": engine.array(-0.8)}
    bound = engine.vi.objective(program, model, guide, strategies={"z": ppvi.Enumerate()})
    for seed in range(seeds):
        value, grads = bound.value_and_grad(engine.key(seed), params)
        yield float(value), np.asarray(grads["logits"])


def of_rows(exact, count):
    """Rows, and the value and the gradient that are theirs."""
    values, slopes = exact()
    for rows in itertools.combinations(range(4), count):
        chosen = np.isin(np.arange(4), rows)
        yield rows, 4 / count * values[chosen].sum(), 4 / count * np.where(chosen, slopes, 0.0)


def rows_of(found, exact, count):
    """The rows of which an evaluation was."""
    value, slope = found
    matches = [
        rows
        for rows, right, right_slope in of_rows(exact, count)
        if np.isclose(value, right, rtol=1e-4) and np.allclose(slope, right_slope, atol=1e-4)
    ]
    assert len(matches) == 1, f"{value}, {slope} is of no minibatch"
    return matches[0]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("said", "also_said"), [(2, None), (None, 2), SLOW(2, 2), SLOW(None, 1)])
def test_a_plate_has_one_minibatch_whoever_states_its_size(engine, order, said, also_said):
    program, exact, guide = ORDERS[order]
    with on(engine):
        found = evaluated(engine, program, bits(engine, said), guide(engine, also_said), seeds=6)
        assert len({rows_of(estimate, exact, said or also_said) for estimate in found}) > 1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("said", "also_said"), [([2, 1], None), SLOW(None, [2, 1]), ([2, 1], 2), SLOW(2, [2, 1]), ([2, 1], [2, 1])]
)
def test_given_rows_are_those_of_both_programs(engine, order, said, also_said):
    program, exact, guide = ORDERS[order]
    with on(engine):
        [found] = evaluated(engine, program, bits(engine, said), guide(engine, also_said))
    assert rows_of(found, exact, 2) == (1, 2)


@pytest.mark.parametrize("guide", [indexed, taken_by_the_plate])
def test_all_rows_may_be_given_in_another_order(engine, guide):
    """The observations are in that order already, so that only rows that are looked up there belong to them."""
    order = [2, 0, 3, 1]

    def model():
        with units(engine, order):
            z = ppl.sample("z", dist.Bernoulli(nn.sigmoid(ppl.param("prior"))))
            ppl.sample("x", dist.Normal(2.0 * z, 1.0), obs=xp.asarray(X[order]))

    with on(engine):
        [found] = evaluated(engine, ppvi.objectives.elbo, model, guide(engine, order))
    assert rows_of(found, bounds, 4) == (0, 1, 2, 3)


def test_data_that_a_plate_takes_are_in_its_order(engine):
    order = [2, 0, 3, 1]

    def model():
        with units(engine, order):
            z = ppl.sample("z", dist.Bernoulli(nn.sigmoid(ppl.param("prior"))))
            ppl.sample("x", dist.Normal(2.0 * z, 1.0), obs=ppl.subsample(xp.asarray(X), event_dim=0))

    with on(engine):
        [found] = evaluated(engine, ppvi.objectives.elbo, model, indexed(engine, order))
    assert rows_of(found, bounds, 4) == (0, 1, 2, 3)


@pytest.mark.parametrize(("said", "also_said"), [(None, [2, 0, 3, 1]), ([2, 0, 3, 1], 4), ([2, 0, 3, 1], [0, 1, 2, 3])])
def test_two_orders_of_all_rows_are_refused(engine, said, also_said):
    with on(engine), pytest.raises(ppvi.ProgramError, match=r"plate 'units'.*same order"):
        list(evaluated(engine, ppvi.objectives.elbo, bits(engine, said), indexed(engine, also_said)))


@pytest.mark.parametrize("verb", ["posterior", "nuts"])
def test_draws_are_of_rows_in_order_only(engine, verb):
    model, guide = local_normals(engine, [2, 0, 3, 1], [2, 0, 3, 1])
    options = dict(num_warmup=1, num_samples=4, num_chains=1, progress=False)
    draws = dict(
        posterior=lambda x: drawn(engine, model, guide, {"slope": 0.5}, x),
        nuts=lambda x: engine.vi.nuts(model, engine.key(0), x, **options),
    )
    with on(engine), pytest.raises(ppvi.ProgramError, match=r"plate 'units'.*all rows in order"):
        draws[verb](engine.array(X))


@pytest.mark.parametrize(("said", "also_said"), [(None, 4), (4, None), ([0, 1, 2, 3], None), (4, [0, 1, 2, 3])])
def test_all_rows_are_no_minibatch(engine, said, also_said):
    with on(engine):
        [found] = evaluated(engine, ppvi.objectives.elbo, bits(engine, said), indexed(engine, also_said))
    assert rows_of(found, bounds, 4) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("said", "also_said"), [(2, 3), (4, 2), (2, 4), ([0, 1], 3), ([0, 1], [0, 1, 2]), ([0, 1], [0, 2])]
)
def test_minibatches_that_disagree_are_refused_by_the_plate_and_both_places(engine, said, also_said):
    with on(engine), pytest.raises(ppvi.ProgramError, match="plate 'units'") as caught:
        list(evaluated(engine, ppvi.objectives.elbo, bits(engine, said), indexed(engine, also_said)))
    assert str(caught.value).count("test_plates.py:") == 2


def test_plates_of_one_name_and_two_sizes_are_refused_where_one_has_a_minibatch(engine):
    with on(engine), pytest.raises(ppvi.ProgramError, match=r"plate 'units'.*different names"):
        list(evaluated(engine, ppvi.objectives.elbo, bits(engine, 2), indexed(engine, 2, size=5)))


def test_a_program_that_ignores_the_rows_it_is_given_is_refused(engine):
    """Also where the minibatch is of one row, which would be broadcast."""

    def guide():
        with ppl.plate("units", 4):
            ppl.sample("z", dist.Bernoulli(logits=ppl.param("logits")))

    for count in (1, 2):
        with on(engine), pytest.raises(ppvi.ProgramError, match=r"'units'.*what (the plate|it) yields"):
            list(evaluated(engine, ppvi.objectives.elbo, bits(engine, count), guide))


def test_replicates_share_the_minibatch(engine):
    def mean_bound(p, q):
        return ppvi.replicate(3, lambda: ppvi.objectives.elbo(p, q)).mean()

    with on(engine):
        [found] = evaluated(engine, mean_bound, bits(engine, None), indexed(engine, 2))
    assert len(rows_of(found, bounds, 2)) == 2


# After a fit ---------------------------------------------------------------------------------------------------------------


def drawn(engine, model, guide, params, *args, **options):
    bound = engine.vi.objective(ppvi.objectives.elbo, model, guide)
    params = {name: engine.array(value) for name, value in params.items()}
    return engine.vi.posterior(bound, engine.key(0), params, *args, draws=20, **options)


def local_normals(engine, said, also_said):
    """Units with a mean of their own, and twice that as a deterministic site of the model."""

    def model(x):
        with units(engine, said) as i:
            z = ppl.sample("z", dist.Normal(0.0, 1.0))
            ppl.deterministic("double", 2 * z)
            ppl.sample("x", dist.Normal(z, 1.0), obs=x[i])

    def guide(x):
        with units(engine, also_said) as i:
            ppl.sample("z", dist.Normal(ppl.param("slope") * x[i], 0.5**0.5))

    return model, guide


@pytest.mark.parametrize(("said", "also_said"), [(2, 2), (2, None), (None, 2), (2, 3), (None, None)])
def test_draws_after_a_fit_are_of_all_rows_in_order(engine, said, also_said):
    """The guide is the posterior, so that every weight is the evidence of all units, x ~ N(0, sqrt(2))."""
    with on(engine):
        data = drawn(engine, *local_normals(engine, said, also_said), {"slope": 0.5}, engine.array(X))
    z = np.asarray(data.posterior["z"])
    assert z.shape == (1, 20, 4)
    np.testing.assert_allclose(z.mean((0, 1)), X / 2, atol=5 * (0.5 / 20) ** 0.5)
    np.testing.assert_allclose(data.posterior["double"], 2 * z, rtol=1e-6)
    evidence = -(X**2).sum() / 4 - 2 * np.log(4 * np.pi)
    np.testing.assert_allclose(data.sample_stats["log_weight"], evidence, rtol=1e-5)


def test_one_of_two_nested_plates_is_completed_on_its_own_axis(engine):
    loc = np.arange(12.0).reshape(3, 4)

    def model():
        with ppl.plate("groups", 3, dim=-2), ppl.plate("units", 4, subsample_size=2, dim=-1):
            ppl.sample("z", dist.Normal(0.0, 1.0))

    def guide():
        at = ppl.param("loc")
        with ppl.plate("groups", 3, dim=-2), ppl.plate("units", 4, dim=-1, subsample_size=2) as i:
            ppl.sample("z", dist.Normal(at[:, i], 1e-3))

    with on(engine):
        z = np.asarray(drawn(engine, model, guide, {"loc": loc}).posterior["z"])
    assert z.shape == (1, 20, 3, 4)
    np.testing.assert_allclose(z, np.broadcast_to(loc, z.shape), atol=1e-2)


def test_rows_that_a_plate_takes_of_a_parameter_are_all_of_them(engine):
    def model():
        with ppl.plate("units", 4, subsample_size=2):
            ppl.sample("z", dist.Normal(0.0, 1.0))

    def guide():
        with ppl.plate("units", 4, subsample_size=2):
            ppl.sample("z", dist.Normal(ppl.param("loc", event_dim=0), 1e-3))

    with on(engine):
        z = np.asarray(drawn(engine, model, guide, {"loc": X}).posterior["z"])
    np.testing.assert_allclose(z, np.broadcast_to(X, (1, 20, 4)), atol=1e-2)


def refused(engine, x, said, match):
    """A guide whose rows come from outside: `x` holds those of a minibatch only."""

    def model(x):
        with units(engine, said):
            z = ppl.sample("z", dist.Normal(0.0, 1.0))
            ppl.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with units(engine, said):
            ppl.sample("z", dist.Normal(ppl.param("slope") * x, 1.0))

    with on(engine), pytest.raises(ppvi.ProgramError, match=match):
        drawn(engine, model, guide, {"slope": 0.5}, engine.array(x))


@pytest.mark.parametrize("said", [2, [2, 1]])
def test_draws_from_a_guide_that_knows_a_minibatch_only_are_refused(engine, said):
    refused(engine, X[:2], said, r"plate 'units'.*all rows")


def test_a_minibatch_of_one_is_not_taken_for_all(engine):
    refused(engine, X[:1], 1, r"plate 'units'.*broadcast")


def test_given_rows_that_are_all_rows_in_order_give_draws(engine):
    with on(engine):
        data = drawn(engine, *local_normals(engine, [0, 1, 2, 3], None), {"slope": 0.5}, engine.array(X))
    np.testing.assert_allclose(np.asarray(data.posterior["z"]).mean((0, 1)), X / 2, atol=1.0)


@pytest.mark.parametrize(
    ("said", "created"),
    [(2, True), SLOW(None, True), SLOW(2, False)],
)
def test_an_autoguide_has_a_row_of_parameters_for_each_unit(engine, said, created):
    model, _ = local_normals(engine, said, None)

    def plate(x):
        return ppl.plate("units", 4, subsample_size=2)

    with on(engine):
        guide = engine.autoguide.AutoNormal(model, create_plates=plate if created else None)
        bound = engine.vi.objective(ppvi.objectives.elbo, model, guide)
        fit = engine.vi.fit(bound, engine.key(0), engine.array(X), num_steps=2, progress=False)
        z = np.asarray(fit.posterior(draws=20).posterior["z"])
        sizes = [np.asarray(value).size for value in fit.params.values()]
    assert z.shape == (1, 20, 4)
    assert sizes == [4, 4]


@pytest.mark.slow
def test_the_reference_is_of_all_rows_too(engine):
    with on(engine):
        model, _ = local_normals(engine, 2, 2)
        options = dict(num_warmup=200, num_samples=200, num_chains=2, progress=False)
        z = np.asarray(engine.vi.nuts(model, engine.key(0), engine.array(X), **options).posterior["z"])
    assert z.shape == (2, 200, 4)
    np.testing.assert_allclose(z.mean((0, 1)), X / 2, atol=0.25)


def test_a_plate_that_was_made_outside_of_the_programs_is_refused():
    with on(PYRO):
        plate = ppl.plate("units", 4, subsample_size=2)

        def model():
            with plate:
                ppl.sample("z", dist.Normal(0.0, 1.0))

        def guide():
            with plate as i:
                ppl.sample("z", dist.Normal(ppl.param("loc")[i], 1.0))

        bound = PYRO.vi.objective(ppvi.objectives.elbo, model, guide)
        with pytest.raises(ppvi.ProgramError, match="plate 'units'"):
            bound.value_and_grad(0, {"loc": PYRO.array(X)})


def test_what_is_stated_twice_in_one_program_is_refused(engine):
    def model():
        with ppl.plate("units", 4):
            z = ppl.sample("z", dist.Normal(0.0, 1.0))
        with ppl.plate("units", 4, subsample_size=2) as i:
            ppl.sample("x", dist.Normal(z[i], 1.0), obs=xp.asarray(X)[i])

    def guide():
        with ppl.plate("units", 4):
            ppl.sample("z", dist.Normal(ppl.param("loc"), 1.0))

    with on(engine):
        bound = engine.vi.objective(ppvi.objectives.elbo, model, guide)
        with pytest.raises(ppvi.ProgramError, match=r"plate 'units'.*different names"):
            bound.value_and_grad(engine.key(0), {"loc": engine.array(X)})
