"""Pyro, eager: its own ELBOs. Its RenyiELBO has no score term, and it has no measure-valued derivative."""

import sys
import time

import numpy as np
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate

from benchmarks.turns import serve
from guides.air_pyro import RECOGNITION, guide
from models.air_pyro import DECODER, model

LOSSES = {"REINFORCE": Trace_ELBO, "ENUM": TraceEnum_ELBO}


def main(name, file):
    started = time.perf_counter()
    images = torch.tensor(np.load(file))
    q = config_enumerate(guide) if name == "ENUM" else guide
    loss = LOSSES[name](max_plate_nesting=1).differentiable_loss
    adam = torch.optim.Adam([*DECODER.parameters(), *RECOGNITION.parameters()], 1e-4)

    def step():
        adam.zero_grad()
        (loss(model, q, images) / len(images)).backward()
        adam.step()

    serve(step, started)


if __name__ == "__main__":
    main(*sys.argv[1:])
