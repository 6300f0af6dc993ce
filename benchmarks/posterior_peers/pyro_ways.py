"""Pyro's SVI of AutoMultivariateNormal, in double precision and one thread: two take seven times the processor seconds.

It draws one at a time: fewer than others.
"""

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from pyro.optim import Adam
from pyro.poutine import condition, replay, trace

from benchmarks.posterior_peers.pyro_models import MODELS
from benchmarks.posterior_peers.serving import serve

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
STEPS, DRAWS = 20_000, 1000


def tensors(data):
    """Numbers that stand alone are sizes and constants."""
    return {name: x if isinstance(x, int | float) else torch.tensor(x, dtype=torch.float64) for name, x in data.items()}


def svi(name, data):
    model, data = MODELS[name], tensors(data)

    def draw(seed):
        pyro.clear_param_store()
        pyro.set_rng_seed(seed)
        guide = AutoMultivariateNormal(model)
        optimisation = SVI(model, guide, Adam({"lr": 0.01}), Trace_ELBO())
        for _ in range(STEPS):
            optimisation.step(**data)
        with torch.no_grad():
            draws = [
                latent(trace(replay(model, trace(guide).get_trace(**data))).get_trace(**data)) for _ in range(DRAWS)
            ]
        return {site: torch.stack([x[site] for x in draws]) for site in draws[0]}

    return draw


def latent(found):
    """Values of latent and of deterministic sites."""
    return {
        name: site["value"]
        for name, site in found.nodes.items()
        if site["type"] == "sample" and (not site["is_observed"] or site["infer"].get("_deterministic"))
    }


def log_density(name, data, points):
    model, data = MODELS[name], tensors(data)
    found = []
    for i in range(len(next(iter(points.values())))):
        point = {site: torch.tensor(x[i]) for site, x in points.items()}
        found.append(trace(condition(model, point)).get_trace(**data).log_prob_sum().item())
    return found


if __name__ == "__main__":
    serve({"Pyro SVI": svi}, ("torch", "pyro-ppl"), log_density, compiles=False)
