"""Several processes: the same key gives the same fit, and each process does its share."""

import json
import os
import socket
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch.distributed as distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._pytree import tree_leaves

import ppvi
from ppvi.pyro.sharding import Layout
from tests.pyro import on_processes


def same(found, expected):
    for x, y in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_give_the_fit_of_one(processes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "tests.pyro.on_processes", address, str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([*command, str(i)], env=environment, stdout=subprocess.PIPE, text=True)
        for i in range(processes)
    ]
    outputs = [process.communicate(timeout=900)[0] for process in started]
    assert not any(process.returncode for process in started)
    found, *others = (json.loads(output.splitlines()[-1]) for output in outputs)
    assert all(other == found for other in others)
    for name in on_processes.objectives():
        for mesh in ["both"] if processes == 4 else ["data", "particles"]:
            same(found[f"{name} {mesh}"], on_processes.fitted(name))
    assert found["work"] < 1.2 * on_processes.work() / processes
    rows, learner = found["refusals"]
    assert f"no argument has a leading axis that {processes} devices can share; theirs are [(5,)]" in rows
    assert "what the strategies of ['z'] learn is kept between gradients: fit it without" in learner


@pytest.fixture
def alone():
    """A mesh of this process only."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), world_size=1, rank=0)
    yield init_device_mesh("cpu", (1, 1), mesh_dim_names=("data", "particles"))
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["particles", "minibatch"])
def test_a_mesh_of_one_process_is_no_mesh(alone, name):
    same(on_processes.fitted(name, alone), on_processes.fitted(name))


def test_a_mesh_of_other_devices_is_refused():
    with pytest.raises(ppvi.EngineError, match="a mesh of cuda devices, whose random numbers"):
        Layout(mock.Mock(device_type="cuda"))
