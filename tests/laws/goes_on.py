"""A fit that goes on from its checkpoints, if it has any: `python -m tests.laws.goes_on ENGINE FOLDER`. Prints where it ends."""

import importlib
import sys
from pathlib import Path

import ppvi
from ppvi.objectives import elbo

STEPS = {"numpyro": 400_000, "pyro": 6_000}


def bound_of(name):
    ppl, dist = importlib.import_module(name), importlib.import_module(f"{name}.distributions")
    array = importlib.import_module("torch").tensor if name == "pyro" else lambda x: x

    def model():
        ppl.sample("y", dist.Normal(ppl.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=array(3.0))

    def guide():
        scale = ppl.param("scale", array(1.0), constraint=dist.constraints.positive)
        ppl.sample("z", dist.Normal(ppl.param("loc", array(0.0)), scale))

    return importlib.import_module(f"ppvi.{name}").objective(elbo, model, guide)


def main(name, folder):
    print("begins", flush=True)
    bound = bound_of(name)
    state = ppvi.load(folder, bound).state if list(Path(folder).glob("step-*.safetensors")) else None
    left = STEPS[name] - (state.step if state else 0)
    if left:
        key = importlib.import_module("jax").random.key(3) if name == "numpyro" else 3
        fit = importlib.import_module(f"ppvi.{name}").fit
        state = fit(bound, key, num_steps=left, state=state, optimizer=0.001, checkpoint=folder, progress=False).state
    print(state.step, float(state.losses.sum()), {name: x.tolist() for name, x in sorted(state.arrays.items())})


if __name__ == "__main__":
    main(*sys.argv[1:])
