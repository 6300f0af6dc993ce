"""NumPyro's SVI of AutoMultivariateNormal, and BlackJAX's multi-path Pathfinder on NumPyro's potential; in double precision."""

import jax
from jax import random
from numpyro.handlers import block
from numpyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal
from numpyro.infer.util import initialize_model
from numpyro.optim import Adam

from benchmarks.posterior_peers.serving import DRAWS, serve
from models.posteriors import MODELS

jax.config.update("jax_enable_x64", True)
STEPS, PATHS = 20_000, 4


def continuous(model):
    """Without the discrete sites, of which an autoguide has none."""
    hidden = {"hmm": ["z_0", "z"], "gaussian_mixture": ["second"]}.get(model.__name__)
    return block(model, hide=hidden) if hidden else model


def svi(name, data):
    model = MODELS[name]
    guide = AutoMultivariateNormal(continuous(model))
    loss = Trace_ELBO() if continuous(model) is model else TraceEnum_ELBO()
    optimisation = SVI(model, guide, Adam(0.01), loss)

    @jax.jit
    def draw(key):
        found = optimisation.run(key, STEPS, progress_bar=False, **data)
        drawn = guide.sample_posterior(random.fold_in(key, 1), found.params, sample_shape=(DRAWS,), **data)
        if any(site["type"] == "deterministic" for site in guide.prototype_trace.values()):
            drawn |= Predictive(model, drawn, infer_discrete=False)(random.fold_in(key, 2), **data)
        return drawn

    return lambda seed: draw(random.key(seed))


def pathfinder(name, data):
    import blackjax

    def begun(key):
        """At as many points as there are paths."""
        return initialize_model(random.split(key, PATHS), MODELS[name], model_kwargs=data)

    whole = begun(random.key(0))

    @jax.jit
    def draw(key, starts):
        paths = blackjax.multipathfinder(lambda z: -whole.potential_fn(z))
        state, _ = paths.init(random.fold_in(key, 0), starts)
        drawn = paths.sample(random.fold_in(key, 1), state, DRAWS)
        return jax.lax.map(whole.postprocess_fn, drawn)

    def drawn(seed):
        key = random.key(seed)
        return draw(key, begun(random.fold_in(key, 2)).param_info.z)

    return drawn


if __name__ == "__main__":
    serve({"NumPyro SVI": svi, "BlackJAX Pathfinder": pathfinder}, ("jax", "numpyro", "blackjax"))
