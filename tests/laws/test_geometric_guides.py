"""What geometric optimisers take a guide's sites for: transforms that no parameter changes are looked through, others not."""

import numpy as np
import pytest

import ppvi
from ppvi.objectives import elbo
from ppvi.optimizers import BuresWasserstein, Natural, Proximal
from tests.engines import ENGINES, NUMPYRO, dist, on, ppl, xp

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
Y = np.array([1.2, 0.4, 2.1, 1.7], np.float32)
PRIOR, NOISE = (0.5, 2.0), 0.5
PRECISION = 1 / PRIOR[1] ** 2 + len(Y) / NOISE**2
LOC = (PRIOR[0] / PRIOR[1] ** 2 + Y.sum() / NOISE**2) / PRECISION


def model(y):
    loc = ppl.sample("loc", dist.Normal(xp.array(PRIOR[0]), xp.array(PRIOR[1])))
    with ppl.plate("data", len(y)):
        ppl.sample("y", dist.Normal(loc, xp.array(NOISE)), obs=y)


def parameters():
    scale = ppl.param("s", xp.array(0.7), constraint=dist.constraints.positive)
    return ppl.param("m", xp.array(-0.3)), scale


def image(base, *affine):
    ppl.sample("loc", dist.TransformedDistribution(base, [dist.transforms.AffineTransform(*affine)]))


def by_numbers(y):
    image(dist.Normal(*parameters()), 0.4, 2.1)


def by_data(y):
    image(dist.Normal(*parameters()), y[1], y[2])


def computed_by_numbers(y):
    m, s = parameters()
    image(dist.Normal(2 * m, s), 0.4, 2.1)


def computed_by_data(y):
    m, s = parameters()
    image(dist.Normal(2 * m, s), y[1], y[2])


def by_parameters(y):
    m, s = parameters()
    image(dist.Normal(2 * m, s), m, 2.0)


def by_another(y):
    image(dist.Normal(*parameters()), ppl.param("shift", xp.array(0.0)), 2.0)


def folded(y):
    ppl.sample("loc", dist.FoldedDistribution(dist.Normal(*parameters())))


def fitted(engine, guide, optimizer, steps=1, **strategies):
    with on(engine):
        bound = engine.vi.objective(elbo, model, guide, strategies=strategies)
        return engine.vi.fit(
            bound, engine.key(0), engine.array(Y), num_steps=steps, optimizer=optimizer, progress=False
        )


def value(x):
    return np.asarray(x.detach() if hasattr(x, "detach") else x)


@pytest.mark.parametrize(
    ("numbers", "data"), [(by_numbers, by_data), (computed_by_numbers, computed_by_data)], ids=["block", "computed"]
)
@each_engine
def test_a_transform_of_data_is_that_of_its_numbers(engine, numbers, data):
    """On NumPyro the Fisher matrix was zero, where two runs of the guide had arrays of their own."""
    one, other = (fitted(engine, guide, Natural(), 20) for guide in (numbers, data))
    assert one.moved == other.moved
    for name, x in one.params.items():
        np.testing.assert_allclose(value(x), value(other.params[name]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("guide", [by_parameters, by_another])
@each_engine
def test_a_transform_that_parameters_change_has_no_fisher_matrix(engine, guide):
    """On Pyro it was that of the base alone."""
    with pytest.raises(ppvi.ProgramError, match="Natural knows no Fisher information of 'loc'"):
        fitted(engine, guide, Natural())


@pytest.mark.parametrize("optimizer", [Proximal(), BuresWasserstein()], ids=lambda x: x.name)
@each_engine
def test_a_folded_normal_is_no_gaussian_site(engine, optimizer):
    """Its entropy is not the logarithm of its scale."""
    with pytest.raises(ppvi.ProgramError, match="there is none among 'loc'"):
        fitted(engine, folded, optimizer)


@each_engine
def test_what_moves_the_rest_is_no_geometric_optimizer(engine):
    with pytest.raises(ppvi.ProgramError, match=r"Natural\(rest=Proximal\(\)\).*rest=0.01"):
        fitted(engine, by_numbers, Natural(rest=Proximal()))


def test_parameters_in_a_tree_are_exact_after_one_step():
    """As those of a flax module are; the mean is linear in them, and the scale the posterior's."""
    import numpyro

    def in_a_tree(y):
        tree = numpyro.param("tree", {"a": xp.array(-0.3)})
        ppl.sample("loc", dist.Normal(tree["a"], xp.array(PRECISION**-0.5)))

    exact = Natural(1.0, trust=None, damping=0.0)
    fit = fitted(NUMPYRO, in_a_tree, exact, loc=ppvi.strategies.Quadrature(64))
    np.testing.assert_allclose(fit.params["tree"]["a"], LOC, rtol=1e-5)


@pytest.mark.parametrize("optimizer", [Proximal(), BuresWasserstein()], ids=lambda x: x.name)
def test_a_tree_of_one_array_makes_no_block(optimizer):
    import numpyro

    def in_a_tree(y):
        tree, scale = numpyro.param("tree", {"a": xp.array(-0.3)}), parameters()[1]
        ppl.sample("loc", dist.Normal(tree["a"], scale))

    with pytest.raises(ppvi.ProgramError, match="there is none among 'loc'"):
        fitted(NUMPYRO, in_a_tree, optimizer)
