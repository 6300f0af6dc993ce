"""Attend, Infer, Repeat: one model on two libraries, and gradients that are finite and agree."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer.util import log_density

import ppvi.numpyro as vi
from guides.air import ESTIMATORS, guide
from models.air import PRESENCE, model
from models.air_networks import attend, decoder, paint, recognition
from models.multi_mnist import multi_mnist

PARAMS = {"decoder": decoder(jax.random.key(0)), "recognition": recognition(jax.random.key(1))}


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(multi_mnist(4, seed=3)[0])


def test_scenes(monkeypatch):
    """Digits do not overlap and are as many as is said; without MNIST there are shapes."""
    monkeypatch.setenv("PPVI_DATA", "/nowhere")
    pictures, counts = multi_mnist(30, seed=1)
    assert pictures.shape == (30, 50, 50)
    assert pictures.max() <= 1
    assert sorted(set(counts)) == [0, 1, 2]
    np.testing.assert_array_equal(pictures.any((1, 2)), counts > 0)


def test_the_spatial_transformer():
    """What is painted at a place is read there again, and bilinear interpolation reproduces what is linear."""
    ramp = jnp.add.outer(jnp.linspace(0, 1, 20), 2 * jnp.linspace(0, 1, 20))
    where = jnp.array([3.0, 0.4, -0.9])
    np.testing.assert_allclose(attend(where, paint(where, ramp))[2:-2, 2:-2], ramp[2:-2, 2:-2], atol=0.05)
    whole = paint(jnp.array([1.0, 0.0, 0.0]), ramp)
    np.testing.assert_allclose(whole, jnp.add.outer(jnp.linspace(0, 1, 50), 2 * jnp.linspace(0, 1, 50)), atol=1e-5)


@pytest.mark.slow
def test_both_libraries_have_the_same_densities(images):
    pyro = pytest.importorskip("pyro")
    torch = pytest.importorskip("torch")
    from guides.air_pyro import RECOGNITION, guide as pyro_guide
    from models.air_pyro import DECODER, model as pyro_model

    for module, weights in ((DECODER, PARAMS["decoder"]), (RECOGNITION, PARAMS["recognition"])):
        for name, (w, b) in weights.items():
            layer = getattr(module, {"heads": "further"}.get(name, name))
            layer.weight.data, layer.bias.data = torch.tensor(np.array(w.T)), torch.tensor(np.array(b))
    with numpyro.handlers.seed(rng_seed=2):
        trace = numpyro.handlers.trace(numpyro.handlers.substitute(guide, PARAMS)).get_trace(images)
    values = {name: site["value"] for name, site in trace.items() if site["type"] == "sample"}
    assert 0 < sum(float(values[name].sum()) for name in PRESENCE) < 12
    known = {name: torch.tensor(np.array(x)).float() for name, x in values.items()}
    pictures = torch.tensor(np.array(images))
    for program, other in ((model, pyro_model), (guide, pyro_guide)):
        ours, _ = log_density(program, (images,), {}, PARAMS | values)
        theirs = pyro.poutine.trace(pyro.poutine.condition(other, known)).get_trace(pictures).log_prob_sum().item()
        np.testing.assert_allclose(float(ours), theirs, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ESTIMATORS if not name.startswith("RWS")])
def test_gradients_are_finite(name, images):
    objective, strategies = ESTIMATORS[name]
    bound = vi.objective(objective, model, guide, strategies=strategies)
    states = bound.states(PARAMS, images)
    value, grads, _ = bound.update(jax.random.key(0), PARAMS, states, images)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(grads))


@pytest.mark.slow
def test_estimators_agree(images):
    """Mean gradients of the heads' biases: presence by enumeration and by measure-valued derivatives."""

    def mean(name, n=400):
        objective, strategies = ESTIMATORS[name]
        bound = vi.objective(objective, model, guide, strategies=strategies)
        gradient = jax.jit(lambda key: bound.value_and_grad(key, PARAMS, images)[1]["recognition"]["heads"][1])
        draws = np.stack([gradient(key) for key in jax.random.split(jax.random.key(4), n)])
        return draws.mean(0), draws.std(0) / np.sqrt(n)

    (exact, error), (other, spread) = mean("ENUM"), mean("MVD")
    assert (np.abs(exact - other) < 4.5 * np.hypot(error, spread)).all()
