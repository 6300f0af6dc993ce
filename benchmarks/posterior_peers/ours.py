"""ppvi on NumPyro: `approximate`, `fit` of AutoMultivariateNormal, and NumPyro's NUTS as `nuts` has it; in double precision."""

import jax
from numpyro.infer.autoguide import AutoMultivariateNormal

import ppvi.numpyro as vi
from benchmarks.posterior_peers.numpyro_ways import STEPS, continuous
from benchmarks.posterior_peers.serving import DRAWS, serve
from models.posteriors import MODELS
from ppvi.objectives import elbo

jax.config.update("jax_enable_x64", True)


def arrays(data):
    return {name: x.values.reshape(-1, *x.shape[2:]) for name, x in data["posterior"].items()}


def approximate(name, data):
    def draw(seed):
        found = vi.approximate(MODELS[name], jax.random.key(seed), **data)
        return arrays(found.posterior(draws=DRAWS, log_likelihood=False))

    return draw


def fit(name, data):
    bound = vi.objective(elbo, MODELS[name], AutoMultivariateNormal(continuous(MODELS[name])))

    def draw(seed):
        found = vi.fit(bound, jax.random.key(seed), **data, num_steps=STEPS, progress=False)
        return arrays(found.posterior(draws=DRAWS, log_likelihood=False))

    return draw


def nuts(name, data):
    return lambda seed: arrays(vi.nuts(MODELS[name], jax.random.key(seed), **data, progress=False))


if __name__ == "__main__":
    serve({"approximate": approximate, "fit": fit, "NUTS": nuts}, ("ppvi", "jax", "numpyro"))
