"""A strategy of your own, and the tests that it must pass: copy this file, write yours, and run pytest on it.

The one here is the score function at a draw of a normal site and at its mirror image. Nothing is registered anywhere.
"""

import pickle
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ppvi
import ppvi.numpyro as vi
from ppvi.strategies import Draw, Strategy, phantom


@dataclass(frozen=True)
class MirroredScore(Strategy):
    """The score function at a draw, and at that draw mirrored in the mean.

    d E_q[f(z)] = E[1/2 sum_i df(z_i) + f(z_i) dlog q(z_i)],    z_1 ~ q,    z_2 = 2 mean - z_1
    """

    def misfit(self, dist):
        return None if dist.name == "Normal" else f"{dist.name} has no mirror image here; Reinforce() needs none"

    def draw(self, dist, rng):
        z = dist.sample(rng)
        both = dist.ops.stack([z, dist.ops.stop_gradient(2 * dist.parameter("loc") - z)])
        return Draw(z, values=both, log_probs=dist.log_prob(both))

    def estimate(self, site, k):
        return k.each(site.values).mix(phantom(site, site.log_probs)) * 0.5

    def runs(self, alternatives, coupled):
        return 2


STRATEGY = MirroredScore()


@dataclass(frozen=True)
class Broken(MirroredScore):
    """The same without the score, of which the tests must tell that it is wrong."""

    def estimate(self, site, k):
        return k.each(site.values).mix(0 * site.log_probs) * 0.5


# Programs with a parameter in the distribution, in the rest, in both, under a branch, and before another site -------------


def guide():
    scale = numpyro.param("scale", jnp.array([0.5, 1.0]), constraint=dist.constraints.positive)
    with numpyro.plate("lanes", 2):
        z = numpyro.sample("z", dist.Normal(numpyro.param("loc", jnp.array([0.3, -0.4])), scale))
        numpyro.sample("next", dist.Normal(jnp.sin(z), 1.0))


def nothing():
    pass


def squares(p, q):
    return (q.simulate()["z"] ** 2).sum()


def coupled(p, q):
    return q.simulate()["z"].prod()


def with_density(p, q):
    z = q.simulate()
    return z.log_density * jnp.cos(z["z"].sum())


def elsewhere(p, q):
    return jnp.sum(jnp.sin(q.simulate()["z"] * numpyro.param("slope", 0.7)))


def branched(p, q):
    z = q.simulate()["z"]
    return jnp.sum(jnp.where(z > 0.1, 2.0 + z, 0.2 * z))


def nested(p, q):
    z = q.simulate()
    return jnp.sum(jnp.cos(z["z"]) * z["next"] ** 2)


PROGRAMS = [squares, coupled, with_density, elsewhere, branched, nested]
KEY = jax.random.key(0)


def bound_of(program, strategy=STRATEGY, guide=guide, **others):
    bound = vi.objective(program, nothing, guide, strategies={"z": strategy, **others})
    return bound, bound.init(KEY)


def gradients(bound, params, n):
    return jax.vmap(bound.value_and_grad, (0, None))(jax.random.split(KEY, n), params)[1]


# The tests ------------------------------------------------------------------------------------------------------------------


def test_it_is_a_value():
    assert pickle.loads(pickle.dumps(STRATEGY)) == STRATEGY
    assert hash(STRATEGY) == hash(type(STRATEGY)())
    assert str(STRATEGY) == f"{type(STRATEGY).__name__}()"


def test_by_hand():
    """d E sum z² is 2 mean, and 2 scale."""
    bound, params = bound_of(squares)
    found = gradients(bound, params, 20_000)
    for name in ("loc", "scale"):
        error = np.abs(found[name].mean(0) - 2 * params[name])
        assert (error < 5 * found[name].std(0) / np.sqrt(20_000)).all()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_unbiased(program, assert_unbiased):
    bound, params = bound_of(program, next=ppvi.LeaveOneOut(2))
    assert_unbiased(bound, KEY, params, delta=0.1, budget=60)


def test_a_lane_is_credited_with_its_own_terms():
    """What one lane adds to the objective is no noise to the gradient of the other."""

    def lopsided(p, q):
        return jnp.sum(q.simulate()["z"] ** 2 * jnp.array([1.0, 1000.0]))

    spread = {f: gradients(*bound_of(f), 2000)["loc"][:, 0].std().item() for f in (squares, lopsided)}
    assert spread[lopsided] == pytest.approx(spread[squares], rel=1e-3)


def test_nothing_in_it_is_suspect():
    bound, params = bound_of(squares)
    assert bound.prove(params).verdict == "proved"


def test_a_broken_one_is_found():
    bound, params = bound_of(squares, Broken())
    assert bound.check(KEY, params, delta=0.1, progress=False).verdict == "biased"


def test_what_does_not_fit_is_refused():
    def other():
        numpyro.sample("z", dist.Gamma(numpyro.param("shape", 2.0), 1.0))

    with pytest.raises(ppvi.StrategyError, match="Reinforce"):
        bound_of(lambda p, q: q.simulate()["z"], guide=other)
