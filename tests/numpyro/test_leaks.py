"""Nothing that is traced outlives its trace: every verb runs under JAX's own check for that, as users run theirs."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer import SVI
from numpyro.infer.autoguide import AutoNormal

import ppvi
import ppvi.numpyro as vi
from ppvi import objectives

Y = jnp.array([0.3, -1.2, 0.8])


def model(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", 3):
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


def guide(y):
    numpyro.sample("z", dist.Normal(numpyro.param("m", jnp.array(0.5)), 1.0))


def chain(y):
    def step(before, x):
        z = numpyro.sample("z", dist.Bernoulli(0.3 + 0.4 * before))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=x)
        return z * 1.0, None

    scan(step, 0.0, y)


def forward(y):
    def step(before, logit):
        z = numpyro.sample("z", dist.Bernoulli(logits=logit + before))
        return z * 1.0, None

    scan(step, 0.0, numpyro.param("logits", jnp.zeros(3)))


PROGRAMS = {
    "by the path": (objectives.iwelbo(2), model, guide, {}),
    "by the score": (objectives.elbo, model, guide, {"z": ppvi.Reinforce(ppvi.strategies.RunningMean())}),
    "an autoguide": (objectives.elbo, model, AutoNormal(model), {}),
    "sites in a loop": (objectives.elbo, chain, forward, {"z": ppvi.Enumerate()}),
}


def staged(name):
    program, p, q, strategies = PROGRAMS[name]
    bound = vi.objective(program, p, q, strategies=strategies)
    params = bound.init(jax.random.key(0), Y)
    bound.prove(params, Y)
    return bound, params


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_tracer_outlives_a_staging(name):
    with jax.checking_leaks():
        staged(name)


@pytest.mark.parametrize(
    "name", [name if name == "by the path" else pytest.param(name, marks=pytest.mark.slow) for name in PROGRAMS]
)
def test_no_tracer_outlives_a_verb(name):
    with jax.checking_leaks():
        key, (bound, params) = jax.random.key(0), staged(name)
        bound.value_and_grad(key, params, Y)
        bound.explain(params, Y)
        vi.fit(bound, key, Y, num_steps=2, progress=False)
        vi.posterior(bound, key, params, Y, draws=2)


def test_no_tracer_outlives_a_check_or_svi():
    with jax.checking_leaks():
        key, bound = jax.random.key(0), vi.objective(objectives.elbo, model, guide)
        bound.check(key, bound.init(key, Y), Y, budget=0.1, progress=False)
        SVI(model, guide, numpyro.optim.Adam(0.1), bound.as_loss()).run(key, 2, Y, progress_bar=False)
