"""What processes of one fit do to each other, printed as JSON: `python -m tests.pyro.on_peers ADDRESS PROCESSES NUMBER FOLDER`."""

import json
import os
import sys
import time
import warnings

import pyro
import torch.distributed as distributed
from torch.distributed.device_mesh import init_device_mesh

import ppvi
import ppvi.pyro as vi
from ppvi.objectives import elbo
from tests.pyro.on_processes import data, guide, model, objectives, refusal


def choosing(strategy):
    """Of a site that no strategy else would share."""
    return vi.objective(elbo, model, guide, strategies={"z": strategy})


def fit(bound, mesh, **options):
    pyro.clear_param_store()
    return vi.fit(bound, 0, data(), mesh=mesh, progress=False, **{"num_steps": 4} | options)


def main(address, processes, number, folder):
    number = int(number)
    distributed.init_process_group("gloo", init_method=f"tcp://{address}", world_size=int(processes), rank=number)
    line, particles = (
        init_device_mesh("cpu", (int(processes),), mesh_dim_names=(name,)) for name in ("data", "particles")
    )
    score = objectives()["score"]
    found = {"different": refusal(line, score, data() + number)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(score, particles)
    found["unused"] = [str(x.message) for x in caught]
    for strategy in (ppvi.strategies.DisARM(), ppvi.strategies.UnorderedSet(2)):
        name = type(strategy).__name__
        try:
            found[name] = [fit(choosing(strategy), mesh).losses.tolist() for mesh in (line, None)]
        except ppvi.PpviError as error:
            found[name] = str(error)
    limit = ppvi.TimeLimit(0.5 if number == 0 else 1e9)
    timed = fit(score, line, num_steps=10**6, until=limit, checkpoint=f"{folder}/{number}")
    found |= {"steps": timed.state.step, "why": timed.why, "files": len(os.listdir(f"{folder}/{number}"))}
    found["starts"] = [fit(score, mesh, num_starts=3).chosen.losses.tolist() for mesh in (line, None)]

    def dies(step, fit):
        if step == 6 and number == 1:
            print(json.dumps(found), flush=True)
            os._exit(0)

    began = time.monotonic()
    try:
        fit(score, line, num_steps=10**6, every=2, callback=dies)
    except ppvi.FitError as error:
        found |= {"error": str(error), "kept": error.fit.state.step, "seconds": time.monotonic() - began}
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
