"""ppvi on Pyro."""

import itertools
import sys
import time

import numpy as np
import torch

import ppvi.pyro as vi
from benchmarks.turns import serve
from guides.air import ESTIMATORS
from guides.air_pyro import RECOGNITION, guide
from models.air_pyro import DECODER, model


def main(name, file):
    started = time.perf_counter()
    images = torch.tensor(np.load(file))
    objective, strategies = ESTIMATORS[name]
    bound = vi.objective(objective, model, guide, strategies=strategies)
    params, seeds = bound.init(0, images), itertools.count()
    adam = torch.optim.Adam([*DECODER.parameters(), *RECOGNITION.parameters()], 1e-4)

    def step():
        adam.zero_grad()
        (-bound.surrogate(next(seeds), params, images) / len(images)).backward()
        adam.step()

    serve(step, started)


if __name__ == "__main__":
    main(*sys.argv[1:])
