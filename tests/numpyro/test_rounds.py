"""Scales, masks and minibatches in the bodies of loops and branches are their round's: what a loop counts is what the same
rounds count one after the other, by a sum written out by hand."""

import contextlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro import handlers
from numpyro.contrib.control_flow import scan

import ppvi
import ppvi.numpyro as vi
from ppvi.objectives import elbo
from tests.engines import double

KEY = jax.random.key(0)


def by_scan(body, xs):
    lax.scan(lambda carry, x: (carry, body(x)), 0.0, xs)


def by_numpyro(body, xs):
    scan(lambda carry, x: (carry, body(x)), 0.0, xs)


def backward(body, xs):
    lax.scan(lambda carry, x: (carry, body(x)), 0.0, xs, reverse=True)


def by_map(body, xs):
    lax.map(body, xs)


def by_index(body, xs):
    def step(i, carry):
        body(jax.tree.map(lambda x: x[i], xs))
        return carry

    lax.fori_loop(0, len(jax.tree.leaves(xs)[0]), step, 0.0)


def checkpointed(body, xs):
    lax.scan(lambda carry, x: (carry, jax.checkpoint(lambda x: body(x))(x)), 0.0, xs)


LOOPS = {f.__name__: f for f in (by_scan, by_numpyro, backward, by_map, by_index, checkpointed)}


@dataclass(frozen=True)
class Rounds:
    """T rounds over plates, with weights and masks that are of the round, of the lane, or of both."""

    lanes: tuple[int, ...]
    size: int
    """Of the last plate, of which there are `lanes[-1]` rows."""
    data: Any
    scale: Any
    """By round, if `by_round`; broadcasts over the lanes."""
    mask: Any
    by_round: bool
    handled: bool
    """Whether the mask is a handler's and not the distribution's."""

    @classmethod
    def random(cls, seed: int) -> "Rounds":
        rng = np.random.default_rng(seed)
        rounds = int(rng.integers(1, 5))
        lanes = tuple(int(rng.choice([1, 2, 3, rounds])) for _ in range(rng.integers(0, 3)))
        by_round = bool(rng.integers(2))
        size = lanes[-1] + int(rng.integers(0, 3)) if lanes else 1

        def shape():
            kept = lanes[int(rng.integers(0, len(lanes) + 1)) :]
            return ((rounds,) if by_round else ()) + tuple(n if rng.integers(2) else 1 for n in kept)

        scale, mask = rng.uniform(0.5, 2.0, shape()), rng.uniform(size=shape()) < 0.6
        return cls(lanes, size, rng.normal(size=(rounds, *lanes)), scale, mask, by_round, bool(rng.integers(2)))

    def body(self, logits, observe):
        def run(x):
            _, data, scale, mask = x
            with contextlib.ExitStack() as stack:
                if scale is not None:
                    stack.enter_context(handlers.scale(scale=scale))
                for i, n in enumerate(reversed(self.lanes)):
                    stack.enter_context(numpyro.plate(f"plate {i}", self.size if i == 0 else n, n, dim=-1 - i))
                if mask is not None and self.handled:
                    stack.enter_context(handlers.mask(mask=mask))

                def masked(fn):
                    return fn if mask is None or self.handled else fn.mask(mask)

                z = numpyro.sample("z", masked(dist.Bernoulli(logits=jnp.broadcast_to(logits, self.lanes))))
                if observe:
                    numpyro.sample("x", masked(dist.Normal(z, 1.0)), obs=data)

        return run

    def programs(self, loop):
        rounds = len(self.data)
        flags = jnp.arange(rounds) % 2

        def run(logits, observe):
            scale, mask = jnp.asarray(self.scale), jnp.asarray(self.mask)
            if self.by_round:
                loop(self.body(logits, observe), (flags, jnp.asarray(self.data), scale, mask))
            else:
                inner = self.body(logits, observe)
                loop(lambda x: inner((*x, scale, mask)), (flags, jnp.asarray(self.data)))

        return lambda: run(-0.4, True), lambda: run(numpyro.param("logits", jnp.asarray(0.3)), False)

    def exact(self, params):
        """The sum over rounds and lanes of weight x mask x N/n x the expected log weight of a lane."""
        ahead = (slice(None),) if self.by_round else (None,)

        def laid(x):
            own = x.shape[1:] if self.by_round else x.shape
            return x[ahead].reshape(-1, *[1] * (len(self.lanes) - len(own)), *own)

        def lane(z):
            q, p = (jax.nn.log_sigmoid((2 * z - 1) * x) for x in (params["logits"], -0.4))
            return jnp.exp(q) * (p - q - 0.5 * (self.data - z) ** 2 - 0.5 * jnp.log(2 * jnp.pi))

        share = self.size / self.lanes[-1] if self.lanes else 1.0
        return share * (laid(self.scale) * jnp.where(laid(self.mask), lane(0) + lane(1), 0.0)).sum()


def agree(programs, exact, objective=elbo):
    bound = vi.objective(objective, *programs, strategies={"z": ppvi.Enumerate()})
    params = bound.init(KEY)
    value, grads = bound.value_and_grad(KEY, params)
    exact_value, exact_grads = jax.value_and_grad(exact)(params)
    np.testing.assert_allclose(value, exact_value, rtol=1e-9)
    np.testing.assert_allclose(grads["logits"], exact_grads["logits"], rtol=1e-9, atol=1e-12)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("loop", "seed"),
    [
        pytest.param(loop, seed, marks=() if seed == 0 and loop in ("by_scan", "by_index") else SLOW)
        for loop in LOOPS
        for seed in range(20)
    ],
)
def test_scale_and_mask_are_the_rounds(loop, seed):
    with double():
        case = Rounds.random(seed)
        agree(case.programs(LOOPS[loop]), case.exact)


# Bodies in bodies -------------------------------------------------------------------------------------------------------

X = np.array([[0.5, -1.0, 0.3], [2.0, 0.1, -0.4]])
OUTER, INNER = np.array([1.0, 3.0]), np.array([0.5, 2.0, 0.7])
MASK = np.array([[True, False, True], [True, True, False]])
LANES = np.array([0.3, 1.7])


def coin(observe, x, scale=None, mask=True, lanes=()):
    with contextlib.nullcontext() if scale is None else handlers.scale(scale=scale), handlers.mask(mask=mask):
        logits = -0.4 if observe else numpyro.param("logits", jnp.asarray(0.3))
        z = numpyro.sample("z", dist.Bernoulli(logits=jnp.broadcast_to(logits, lanes)))
        if observe:
            numpyro.sample("x", dist.Normal(z, 1.0), obs=jnp.broadcast_to(x, lanes))


def loop_in_a_loop(observe):
    def outer(carry, row):
        x, weight, mask = row
        with handlers.scale(scale=weight):
            scan(lambda c, at: (c, coin(observe, *at)), 0.0, (x, jnp.asarray(INNER), mask))
        return carry, None

    scan(outer, 0.0, (jnp.asarray(X), jnp.asarray(OUTER), jnp.asarray(MASK)))


def loop_in_a_loop_over_lanes(observe):
    """Weights by outer round, by inner round and by lane, of which there are as many as outer rounds."""

    def outer(carry, row):
        x, weight = row

        def inner(carry, at):
            x, weight = at
            with handlers.scale(scale=weight), numpyro.plate("lanes", 2):
                coin(observe, x, jnp.asarray(LANES), lanes=(2,))
            return carry, None

        with handlers.scale(scale=weight):
            lax.scan(inner, 0.0, (x, jnp.asarray(INNER)))
        return carry, None

    lax.scan(outer, 0.0, (jnp.asarray(X), jnp.asarray(OUTER)))


def branch_in_a_loop(observe):
    """One name in two branches, of which one has a scale of the lane, the other none."""

    def step(carry, at):
        i, x = at
        with numpyro.plate("lanes", 2):
            lax.cond(
                i % 2 == 0,
                lambda: coin(observe, x, jnp.asarray(LANES), lanes=(2,)),
                lambda: coin(observe, x, lanes=(2,)),
            )
        return carry, None

    lax.scan(step, 0.0, (jnp.arange(3), jnp.asarray(X[0])))


def branch_of_a_number_in_a_loop(observe):
    """Two names in two branches, scaled by numbers, around them a weight of the round."""

    def step(carry, at):
        i, x, weight = at
        with handlers.scale(scale=weight):
            lax.cond(i % 2 == 0, lambda: coin(observe, x, 2.0), lambda: None)
        return carry, None

    lax.scan(step, 0.0, (jnp.arange(3), jnp.asarray(X[0]), jnp.asarray(INNER)))


def loop_in_a_plate(observe):
    with numpyro.plate("lanes", 4, 2), handlers.scale(scale=jnp.asarray(LANES)):
        lax.scan(lambda c, at: (c, coin(observe, *at, lanes=(2,))), 0.0, (jnp.asarray(X[0]), jnp.asarray(INNER)))


def longer_than_its_site(observe):
    """A scale with more axes than the site has: the site counts for every entry."""
    lax.scan(lambda c, x: (c, coin(observe, x, jnp.asarray(LANES))), 0.0, jnp.asarray(X[0]))


NESTED = {
    loop_in_a_loop: OUTER[:, None] * INNER * MASK,
    loop_in_a_loop_over_lanes: OUTER[:, None] * INNER * LANES.sum(),
    branch_in_a_loop: np.array([[LANES.sum(), 2.0, LANES.sum()], [0.0] * 3]),
    branch_of_a_number_in_a_loop: np.array([[2 * INNER[0], 0.0, 2 * INNER[2]], [0.0] * 3]),
    loop_in_a_plate: np.array([2 * INNER * LANES.sum(), [0.0] * 3]),
    longer_than_its_site: np.array([[LANES.sum()] * 3, [0.0] * 3]),
}
"""By program, how often each datum counts."""


QUICK = (loop_in_a_loop_over_lanes, branch_in_a_loop)


@pytest.mark.parametrize("program", [pytest.param(f, id=f.__name__, marks=() if f in QUICK else SLOW) for f in NESTED])
def test_bodies_in_bodies(program):
    counts = NESTED[program]

    def exact(params):
        def lane(z):
            q, p = (jax.nn.log_sigmoid((2 * z - 1) * x) for x in (params["logits"], -0.4))
            return jnp.exp(q) * (p - q - 0.5 * (X - z) ** 2 - 0.5 * jnp.log(2 * jnp.pi))

        return (counts * (lane(0) + lane(1))).sum()

    with double():
        agree((lambda: program(True), lambda: (numpyro.param("logits", jnp.asarray(0.3)), program(False))), exact)


def test_a_coefficient_that_an_operation_returns_beside_what_depends_on_a_draw():
    """E sum_t w_t (t z)^2 of coins z, where one loop gives both the weights and the multiples of z."""

    def guide():
        with numpyro.plate("lanes", 2):
            z = numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("logits", jnp.asarray(0.3)).repeat(2)))
        _, both = lax.scan(lambda t, w: (t + 1, (jnp.exp(w), t * z)), 1.0, jnp.asarray(INNER))
        return both

    def program(p, q):
        weights, multiples = q.simulate().returned
        return (weights[:, None] * multiples**2).sum()

    def exact(params):
        return 2 * jax.nn.sigmoid(params["logits"]) * (jnp.exp(INNER) * jnp.arange(1, 4) ** 2).sum()

    with double():
        agree((lambda: None, guide), exact, program)
