"""What threads do beside each other is what each does alone."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.autoguide import AutoNormal

import ppvi.numpyro as vi
from ppvi.objectives import elbo


def hand_written():
    numpyro.sample("z", dist.Normal(numpyro.param("loc", lambda key: dist.Normal(0.0, 1.0).sample(key)), 1.0))


def objective(size, guide=None):
    x = jnp.linspace(-1.0, 1.0, size)

    def model():
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        with numpyro.plate("n", size, subsample_size=2) as i:
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x[i])

    return vi.objective(elbo, model, guide or AutoNormal(model))


def fitted(bound, seed):
    return vi.fit(bound, jax.random.key(seed), num_steps=20, progress=False).losses


def drawn(bound, seed):
    fit = vi.fit(bound, jax.random.key(seed), num_steps=5, progress=False)
    return fit.posterior(draws=10)["posterior"]["z"].to_numpy()


@pytest.mark.parametrize("work", [fitted, drawn])
def test_threads_do_what_each_does_alone(work):
    sizes = [3, 4, 5, 6]
    alone = [work(objective(size), seed) for seed, size in enumerate(sizes)]
    together = Barrier(len(sizes))

    def beside(seed, size):
        together.wait()
        return work(objective(size), seed)

    with ThreadPoolExecutor(len(sizes)) as pool:
        found = list(pool.map(beside, range(len(sizes)), sizes))
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_threads_fit_one_objective_beside_each_other():
    alone, shared = [fitted(objective(5, hand_written), seed) for seed in range(4)], objective(5, hand_written)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: fitted(shared, seed), range(4)))
    np.testing.assert_array_equal(found, alone)
