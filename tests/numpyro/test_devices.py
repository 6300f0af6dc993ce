"""Many devices: the same key gives the same fit, and each device does its share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import ppvi.numpyro as vi
from tests.numpyro import on_devices
from tests.processes import free_address, printed, started


def on(devices, *arguments, module="on_devices"):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return started(f"tests.numpyro.{module}", *arguments, XLA_FLAGS=flags, JAX_PLATFORMS="cpu")


def same(found, expected):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)


@pytest.mark.slow
def test_eight_devices_give_the_fit_of_one():
    found = printed(on(8))
    for name in on_devices.objectives():
        for mesh in ("data 1", "data 2", "data 8", "particles", "both"):
            same(found[f"{name} {mesh}"], found[f"{name} none"])
    counts = found["flops"]
    for n in ("2", "4", "8"):
        assert counts[n] < 1.1 * counts["1"] / int(n)
    assert "no argument has a leading axis that 8 devices can share; theirs are [(5,)]" in found["refusal"]


@pytest.mark.slow
def test_two_processes_give_the_fit_of_one():
    address = free_address()
    first, second = map(printed, [on(1, address, 2, i) for i in range(2)])
    assert first == second
    x = jnp.sin(jnp.arange(1.0 * on_devices.ROWS)) * 2
    for name in ("score", "loop"):
        fit = vi.fit(on_devices.objectives()[name], jax.random.key(0), x, num_steps=5, progress=False)
        same(first[f"{name} data"], [fit.losses.tolist(), {k: np.asarray(v).tolist() for k, v in fit.params.items()}])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_shared_fits_go_on(processes, tmp_path):
    """From a state, with batches, several starts and an optimiser with a typed key; and what cannot be shared is refused."""
    if processes == 1:
        all_of_them = [on(2, tmp_path, module="on_peers")]
    else:
        address = free_address()
        all_of_them = [on(1, tmp_path, address, 2, i, module="on_peers") for i in range(2)]
    found, *others = map(printed, all_of_them)
    assert found["whole"] == found["parts"]
    same(found["alone"], found["whole"])
    for name in ("noisy", "starts", "batches"):
        same(*found[name])
    assert "nothing uses the axis 'particles' of the mesh" in "".join(found["unused"])
    assert "nothing uses" not in "".join(found["used"])
    for other in others:
        assert "the processes of the mesh have different arguments" in found["data"]
        assert "the processes of the mesh have different keys or initial parameters" in found["key"]
        assert (found.pop("files") > 0, other.pop("files")) == (True, 0)
        assert found == other


def test_a_mesh_of_one_device_is_no_mesh():
    mesh, x = Mesh(np.array(jax.devices()[:1]), ("data",)), jnp.arange(5.0)
    bound = vi.objective(on_devices.elbo, on_devices.model, on_devices.guide)
    fits = [vi.fit(bound, jax.random.key(0), x, num_steps=3, mesh=at, progress=False) for at in (None, mesh)]
    same(*(fit.losses for fit in fits))
