"""The guide of a chain, weights where it is now, some of which are replaced by earlier ones; and the chain itself."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size

import ppvi.numpyro as vi


def chain(x, y, keep, others):
    """Of weights to keep `(weights,)`, yes or no, and what stands in place of the others `(weights,)`."""
    now = jnp.asarray(numpyro.param("now", jnp.zeros(len(others))))
    numpyro.sample("w", dist.Delta(jnp.where(keep, now, others), event_dim=1))


def begin(bound, force, data, weights):
    """The mode, by Adam; the energy's curvature there; and as a step's size a tenth of the inverse of the largest one."""
    whole, random = (jnp.ones(weights, bool), jnp.zeros(weights)), jax.random.key(0)
    start = {"now": 0.5 * jax.random.normal(random, (weights,))}
    fit = vi.fit(bound, random, *data, *whole, num_steps=2000, optimizer=0.05, progress=False, params=start)
    keep, others = (each[None] for each in whole)
    curvature = -jax.jacfwd(lambda w: force(bound, w, data, keep, others))(fit.params["now"])
    return fit.params["now"], curvature, 0.1 / np.linalg.eigvalsh(curvature)[-1]


def langevin(force, seed, starts, data, rates, groups, rho, draws, thin):
    """A chain for each data set, `(chain, draw, weight)`, less its first fifth, which later steps are told of all the same.

        w <- w + rate * force(w, data, keep, others) + N(0, 2 rate)

    **Arguments**

    - `force`: minus the energy's gradient, by rows `(terms, weights)` of weights to keep and of earlier ones.
    - `starts`, `data`, `rates`: `(chain, weights)`, arrays `(chain, ...)`, `(chain,)`.
    - `groups`: of each weight, its group. One row for each group keeps that group, or there is one that keeps each with
      probability `rho`. The others are drawn from all draws so far, each group from one of its own.
    """
    groups, weights = np.array(groups), np.arange(len(groups))
    count = groups.max() + 1

    def step(_, state, past, held, data, rate):
        key, first, second, third = jax.random.split(state[0], 4)
        keep = jnp.eye(count, dtype=bool) if rho is None else jax.random.bernoulli(first, rho, (1, count))
        when = jax.random.randint(second, keep.shape, 0, held)[:, groups]
        drift = force(state[1], data, keep[:, groups], past[when, weights]) / (rho or 1)
        return key, state[1] + rate * drift + jnp.sqrt(2 * rate) * jax.random.normal(third, drift.shape)

    def run(key, start, data, rate):
        def held(state, n):
            (key, w), past = state
            now = partial(step, past=past, held=n, data=data, rate=rate)
            key, w = jax.lax.fori_loop(0, thin, now, (key, w))
            return ((key, w), past.at[n].set(w)), None

        past = jnp.zeros((draws, len(start))).at[0].set(start)
        return jax.lax.scan(held, ((key, start), past), jnp.arange(1, draws))[0][1]

    keys = jax.random.split(jax.random.key(seed), len(starts))
    return np.asarray(jax.jit(jax.vmap(run))(keys, starts, data, rates))[:, draws // 5 :]


def chains(force, sets, begun, ways, draws, thin):
    """By name of a way, groups and rho, its draws for each data set `(chain, draw, weight)`, from what `begin` gave."""
    data, (starts, _, rates) = (tuple(map(jnp.array, zip(*each, strict=True))) for each in (sets, begun))
    run = partial(langevin, force, 1, starts, data, rates, draws=draws, thin=thin)
    return {name: run(groups=groups, rho=rho) for name, (groups, rho) in ways.items()}


def pace(way, columns, thin, summary):
    """Steps and gradients to an independent draw; a step takes a gradient for each group, or one where they are dropped."""
    steps = summary([thin * len(each) / effective_sample_size(each[None]) for each in columns.T])
    return {"steps": steps, "calls": steps * (1 if way[1] else max(way[0]) + 1)}
