"""Several processes: the same key gives the same fit, and each process does its share."""

from unittest import mock

import numpy as np
import pytest
import torch.distributed as distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._pytree import tree_leaves

import ppvi
from ppvi.pyro._sharding import Layout
from tests.processes import free_address, printed, started
from tests.pyro import on_processes


def same(found, expected):
    for x, y in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_give_the_fit_of_one(processes):
    address, one = free_address(), {"OMP_NUM_THREADS": "1"}
    all_of_them = [started("tests.pyro.on_processes", address, processes, i, **one) for i in range(processes)]
    found, *others = map(printed, all_of_them)
    assert all(other == found for other in others)
    for name in on_processes.objectives():
        expected = on_processes.fitted(name)
        for mesh in ["both"] if processes == 4 else ["data", "particles"]:
            same(found[f"{name} {mesh}"], expected)
    assert found["work"] < 1.2 * on_processes.work() / processes
    rows, learner = found["refusals"]
    assert f"no argument has a leading axis that {processes} devices can share; theirs are [(5,)]" in rows
    assert f"the mesh has for data the axes '0' of {processes}" in rows
    assert "what the strategies of ['z'] learn is kept between gradients: fit it without" in learner


@pytest.mark.slow
def test_processes_decide_together(tmp_path):
    """Strategies that pick among values share, too; one process stops all and writes; and nobody waits for one that has ended."""
    address, one = free_address(), {"OMP_NUM_THREADS": "1"}
    first, second = map(printed, [started("tests.pyro.on_peers", address, 2, i, tmp_path, **one) for i in range(2)])
    for found in (first, second):
        assert "the processes of the mesh have different arguments" in found["different"]
        assert "nothing uses the axis 'particles' of the mesh" in "".join(found["unused"])
        for name in ("DisARM", "UnorderedSet", "starts"):
            same(*found[name])
    assert (first["why"], second["why"]) == ("0.5 seconds have passed", "the first process said so")
    assert first["steps"] == second["steps"]
    assert (first["files"] > 0, second["files"]) == (True, 0)
    assert "the fit stopped at step 6: another process of the mesh has ended" in first["error"]
    assert first["kept"] == 6
    assert first["seconds"] < 30
    assert "error" not in second


@pytest.fixture
def alone():
    """A mesh of this process only."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), world_size=1, rank=0)
    yield init_device_mesh("cpu", (1, 1), mesh_dim_names=("data", "particles"))
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", [pytest.param("particles", marks=pytest.mark.slow), "minibatch"])
def test_a_mesh_of_one_process_is_no_mesh(alone, name):
    same(on_processes.fitted(name, alone), on_processes.fitted(name))


def test_a_mesh_of_other_devices_is_refused():
    with pytest.raises(ppvi.EngineError, match="a mesh of cuda devices, whose random numbers"):
        Layout(mock.Mock(device_type="cuda"))
