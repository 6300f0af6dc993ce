# %% [markdown]
# # Is this gradient right?
#
# A gradient estimator may be wrong without a sign of it: losses fall, parameters move, and end in the wrong place. Two checks
# tell. The *static* one reads the program and looks for what makes estimators wrong: jumps that a pathwise gradient does not
# see, values held constant, nonlinear functions of minibatch estimates, guides that draw where the model has no mass. The
# *statistical* one needs no theory of the estimator at all. Along any path theta(u) through the parameters
#
#     E[ theta'(u) . G(theta(u)) ] = J(theta(1)) - J(theta(0)),    u uniform on [0, 1],
#
# holds if the mean of G is the gradient of J, and fails on almost every path if it is not. Both sides can be estimated.

# %%
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import RenyiELBO, Trace_ELBO, TraceGraph_ELBO

import ppvi
import ppvi.numpyro as vi
from ppvi.objectives import elbo

KEY = jax.random.key(0)


# %% [markdown]
# ## A likelihood with a step
# A detector fires when a latent signal passes a threshold. The guide is normal, so the default strategy is the pathwise one,
# and the step has a boundary that it does not see.


# %%
def model(fired):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    rate = jnp.where(z > 0.5, 0.9, 0.1)
    numpyro.sample("fired", dist.Bernoulli(rate), obs=fired)


def guide(fired):
    scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
    numpyro.sample("z", dist.Normal(numpyro.param("loc", 0.1), scale))


FIRED = jnp.array(1.0)
by_path = vi.objective(elbo, model, guide)
params = by_path.init(KEY, FIRED)
report = by_path.check(KEY, params, FIRED, progress=False)
print(report)

# %% [markdown]
# The static part names the site, the comparison, its line, and what to do; the statistical part measures by how much the
# gradient is off, in units of the gradient, and along which parameter. Taking the advice:

# %%
by_measures = vi.objective(elbo, model, guide, strategies={"z": ppvi.MeasureValued()})
corrected = by_measures.check(KEY, params, FIRED, delta=0.05, progress=False)
print(corrected)

# %% [markdown]
# ## What looks wrong and is right
# A `where` is no jump if its branches meet. Before the check calls something a jump it follows it back through entrywise code
# and looks for the place where the comparison turns, in double precision.


# %%
def smooth(p, q):
    z = q.simulate()["z"]
    return -jnp.where(abs(z) < 1, z**2 / 2, abs(z) - 0.5)


def nothing():
    pass


def normal():
    numpyro.sample("z", dist.Normal(numpyro.param("loc", 0.1), 1.0))


proof = vi.objective(smooth, nothing, normal).prove({"loc": jnp.array(0.1)})
print(proof)

# %% [markdown]
# ## Other people's gradients
# The statistical check takes any function from a key and parameters to a value and a gradient. Here are losses of NumPyro, each
# on a program for which its gradient is biased, and one for which it is not. (Some warn when SVI starts; none does when it
# is asked for a gradient.)


# %%
def bit():
    numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("a", 0.5)))


def coin():
    numpyro.sample("z", dist.Bernoulli(0.3))


def batched(program):
    def run():
        with numpyro.plate("data", 4, subsample_size=2):
            program()

    return run


def threshold():
    numpyro.factor("step", jnp.where(numpyro.sample("z", dist.Normal(0.0, 1.0)) > 0, -3.0, 0.0))


def shifted():
    numpyro.sample("z", dist.Normal(numpyro.param("a", 0.5), 1.0))


def numpyro_loss(loss, model, guide):
    return lambda key, params: jax.value_and_grad(lambda params: loss.loss(key, params, model, guide))(params)


LOSSES = {
    "TraceGraph_ELBO, discrete site": (TraceGraph_ELBO(), coin, bit),
    "TraceGraph_ELBO, the same in a subsampled plate": (TraceGraph_ELBO(), batched(coin), batched(bit)),
    "Trace_ELBO, discrete site": (Trace_ELBO(), coin, bit),
    "RenyiELBO(0), discrete site": (RenyiELBO(0, num_particles=2), coin, bit),
    "Trace_ELBO, step in the likelihood": (Trace_ELBO(), threshold, shifted),
}
verdicts = {}
for name, parts in LOSSES.items():
    found = ppvi.check_estimator(numpyro_loss(*parts), {"a": jnp.array(0.5)}, delta=0.05, progress=False)
    verdicts[name] = found.verdict
    worst = found.worst
    print(f"{name}: {found.verdict} (bias {worst.bias:.3f} in a gradient of mean {worst.gradient:.3f})")

# %% [markdown]
# Pyro's losses are called one draw at a time, with an int seed and NumPy arrays. The K-sample bound drops the score of sites
# that are not reparameterised (for alpha = 0 its gradient is exactly zero), so importance-weighted training of a discrete
# guide does not move it.

# %%
if find_spec("pyro") is None:
    print("Pyro is not installed: its losses are left out.")
else:
    import pyro
    import pyro.distributions
    import torch
    from pyro.infer import RenyiELBO as PyroRenyi

    def pyro_coin():
        pyro.sample("z", pyro.distributions.Bernoulli(torch.tensor(0.3)))

    def pyro_bit():
        a = pyro.param("a", torch.tensor(0.5))
        pyro.sample("z", pyro.distributions.Bernoulli(logits=a))

    def pyro_loss(loss):
        def value_and_grad(seed, params):
            pyro.set_rng_seed(seed)
            pyro.get_param_store().clear()
            a = pyro.param("a", torch.tensor(params["a"], dtype=torch.float32))
            value = loss.loss_and_grads(pyro_coin, pyro_bit)
            grad = a.unconstrained().grad
            return value, {"a": 0.0 if grad is None else grad.item()}

        return value_and_grad

    loss = PyroRenyi(alpha=0.0, num_particles=2)
    # The log weights of a coin are bounded, so that the difference that is tested is: then the test has an exact level, and
    # needs none of the draws that would show rare events.
    options = {"alpha": 0.01, "bounds": (-30.0, 30.0), "budget": 180}
    found = ppvi.check_estimator(pyro_loss(loss), {"a": 0.5}, **options, progress=False)
    verdicts["Pyro's RenyiELBO(0), discrete site"] = found.verdict
    print(f"Pyro's RenyiELBO(0), discrete site: {found.verdict} (bias {found.worst.bias:.3f} in a gradient of 0)")

# %% [markdown]
# ## In a test suite
# `report.raise_if_biased()` raises a `BiasError` that holds the report. For pytest there is a fixture, which checks at
# alpha = 1e-6, so that a suite of thousands of such tests has no false alarm in a lifetime:
#
# ```python
# def test_my_objective(assert_unbiased):
#     assert_unbiased(bound, jax.random.key(0), params, x)
# ```

# %%
assert report.biased_by == ("static", "statistical")
assert any(finding.rule == "jump" and "04_checking" in finding.where for finding in report.static.findings)
assert corrected.verdict == "unbiased within delta"
assert proof.verdict == "proved"
assert verdicts.pop("TraceGraph_ELBO, discrete site") == "unbiased within delta"
assert set(verdicts.values()) == {"biased"}, verdicts
