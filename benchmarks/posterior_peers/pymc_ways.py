"""PyMC's full-rank ADVI, and DADVI and Pathfinder of pymc-extras, with their defaults; PyTensor compiles them by Numba."""

import pymc as pm
from pymc_extras.inference import fit_dadvi, fit_pathfinder

from benchmarks.posterior_peers.pymc_models import MODELS
from benchmarks.posterior_peers.serving import DRAWS, serve


def model_of(name, data):
    with pm.Model() as model:
        MODELS[name](**data)
    return model


def arrays(data):
    return {name: x.values.reshape(-1, *x.shape[2:]) for name, x in data["posterior"].items()}


def advi(name, data):
    model = model_of(name, data)

    def draw(seed):
        found = pm.fit(method="fullrank_advi", model=model, random_seed=seed, progressbar=False)
        return arrays(found.sample(DRAWS, random_seed=seed))

    return draw


def dadvi(name, data):
    model = model_of(name, data)
    return lambda seed: arrays(fit_dadvi(model, n_draws=DRAWS, random_seed=seed, progressbar=False))


def pathfinder(name, data):
    """Of as many draws as it takes, which are fewer than its paths have: of these it resamples without replacement."""
    model = model_of(name, data)
    return lambda seed: arrays(fit_pathfinder(model, random_seed=seed, progressbar=False))


def log_density(name, data, points):
    model = model_of(name, data)
    compiled = model.compile_logp(jacobian=False)
    values = {}
    for site in model.free_RVs:
        value, transform = model.rvs_to_values[site], model.rvs_to_transforms[site]
        x = points[site.name]
        if transform is not None:
            x = [transform.forward(y, *site.owner.inputs).eval() for y in x]
        values[value.name] = x
    return [float(compiled({name: x[i] for name, x in values.items()})) for i in range(len(x))]


if __name__ == "__main__":
    ways = {"PyMC ADVI": advi, "PyMC DADVI": dadvi, "PyMC Pathfinder": pathfinder}
    serve(ways, ("pymc", "pymc-extras", "pytensor"), log_density)
