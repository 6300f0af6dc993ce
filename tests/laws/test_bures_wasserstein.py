"""Forward-backward steps in the Bures-Wasserstein space, and proximal steps: against the paper's formulas and rates.

Potentials are such that a Gaussian's expectations are known, derivatives are JAX's, square roots of matrices SciPy's, and optima
are found by a search that knows nothing of the steps.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy.linalg import sqrtm
from scipy.optimize import minimize

from ppvi.numpyro._algebra import ALGEBRA as JAX
from ppvi.optimizers import Block, BuresWasserstein, Proximal
from ppvi.optimizers.bures_wasserstein import proximal
from ppvi.optimizers.gaussians import whitened
from tests.engines import ENGINES, PYRO, double

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
VECTOR = Block("z", "MultivariateNormal", (("loc", "m"), ("scale_tril", "L")))
NUMBERS = Block("z", "Normal", (("loc", "m"), ("scale", "s")))


class Potential:
    """V(z) = z' A z / 2 + c sum_i g(z_i - b_i), with g'' = exp(-x^2 / 2): between A and A + c in curvature."""

    def __init__(self, matrix, c, b=(0.5, -1.0)):
        self.matrix, self.c, self.b = np.asarray(matrix, float), c, np.asarray(b)
        values = np.linalg.eigvalsh(self.matrix)
        self.least, self.most = values[0], values[-1] + c

    def energy(self, m, factor):
        """E[V] of N(m, L L')."""
        covariance = factor @ factor.T
        sd, off = jnp.sqrt(1 + jnp.diag(covariance)), m - self.b
        bent = off * (norm.cdf(off / sd) - 0.5) + sd * norm.pdf(off / sd)
        return (m @ self.matrix @ m + jnp.trace(self.matrix @ covariance)) / 2 + self.c * (
            2 * jnp.pi
        ) ** 0.5 * bent.sum()

    def slope_and_curvature(self, m, factor):
        """E[V'] and E[V'']."""
        sd, off = np.sqrt(1 + (factor**2).sum(1)), m - self.b
        slope = self.matrix @ m + self.c * (2 * np.pi) ** 0.5 * (np.asarray(norm.cdf(off / sd)) - 0.5)
        return slope, self.matrix + self.c * np.diag(np.exp(-((off / sd) ** 2) / 2) / sd)

    def gap(self, m, factor):
        """Minus the bound."""
        return self.energy(m, factor) - jnp.log(jnp.abs(jnp.diag(factor))).sum()

    @functools.cached_property
    def _slopes(self):
        return jax.jit(jax.grad(self.gap, (0, 1)))

    def slopes(self, m, factor):
        """The bound's slope in m and L."""
        in_m, in_factor = self._slopes(m, factor)
        return {"loc": -np.asarray(in_m), "scale_tril": -np.tril(in_factor)}

    @functools.cached_property
    def best(self):
        """Where the bound is highest."""

        def unpacked(x):
            return x[:2], jnp.array([[jnp.exp(x[2]), 0.0], [x[4], jnp.exp(x[3])]])

        loss = jax.jit(jax.value_and_grad(lambda x: self.gap(*unpacked(x))))
        found = minimize(lambda x: tuple(map(np.asarray, loss(x))), np.zeros(5), jac=True, options={"gtol": 1e-10})
        return tuple(map(np.asarray, unpacked(found.x)))


CONVEX = Potential(np.zeros((2, 2)), 1.0)
STRONG = Potential([[2.0, 0.6], [0.6, 0.5]], 1.0)
START = np.array([3.0, -2.0]), np.array([[0.3, 0.0], [0.5, 2.0]])


def distance(p, q):
    """The squared Wasserstein distance of two Gaussians (Gelbrich 1990)."""
    (m, factor), (other_m, other) = p, q
    one, two = factor @ factor.T, other @ other.T
    root = sqrtm(one)
    return ((m - other_m) ** 2).sum() + np.trace(one + two - 2 * np.real(sqrtm(root @ two @ root)))


def stepped(optimizer, m, factor, slope, algebra=JAX, array=np.asarray):
    at = {"loc": array(m), "scale_tril": array(factor)}
    slope = {name: array(x) for name, x in slope.items()}
    after, _ = optimizer.update(VECTOR, at, slope, optimizer.init(VECTOR, at, algebra), 0, algebra)
    return np.asarray(after["loc"], float), np.asarray(after["scale_tril"], float)


@pytest.fixture(autouse=True)
def _double():
    with double():
        yield


def algebra_of(engine):
    if engine is PYRO:
        from ppvi.pyro._algebra import ALGEBRA

        return ALGEBRA
    return JAX


def test_the_gradient_in_the_factor_tells_the_curvature():
    """Price's theorem: with B of the slope, L' E[V''] L = I - B."""
    m, factor = START
    found = np.eye(2) - np.asarray(whitened({"scale_tril": factor}, STRONG.slopes(m, factor), JAX))
    np.testing.assert_allclose(found, factor.T @ STRONG.slope_and_curvature(m, factor)[1] @ factor, rtol=1e-10)


@each_engine
def test_a_step_is_the_papers(engine):
    (m, factor), h = START, 0.2
    slope, curvature = STRONG.slope_and_curvature(m, factor)
    forward = (np.eye(2) - h * curvature) @ factor
    half = forward @ forward.T
    covariance = (half + 2 * h * np.eye(2) + np.real(sqrtm(half @ (half + 4 * h * np.eye(2))))) / 2
    optimizer, slopes = BuresWasserstein(h), STRONG.slopes(m, factor)
    found_m, found = stepped(optimizer, m, factor, slopes, algebra_of(engine), engine.array)
    np.testing.assert_allclose(found_m, m - h * slope, rtol=1e-10)
    np.testing.assert_allclose(found @ found.T, covariance, rtol=1e-10)
    assert found[0, 1] == 0
    assert (np.diag(found) > 0).all()


def test_the_best_gaussian_stays():
    m, factor = STRONG.best
    found_m, found = stepped(BuresWasserstein(0.3), m, factor, STRONG.slopes(m, factor))
    np.testing.assert_allclose(found_m, m, atol=1e-5)
    np.testing.assert_allclose(found, factor, atol=1e-5)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_of_strongly_convex_potentials_the_distance_shrinks_by_a_factor(share):
    """W2^2(q_{k+1}, best) <= (1 - h a) W2^2(q_k, best), for h <= 1 / b: Diao et al. 2023, theorem 5.4."""
    h, best, at = share / STRONG.most, STRONG.best, START
    distances = [distance(at, best)]
    while distances[-1] > 1e-6 and len(distances) < 60:
        at = stepped(BuresWasserstein(h), *at, STRONG.slopes(*at))
        distances.append(distance(at, best))
    ratios = np.array(distances[1:]) / distances[:-1]
    assert (ratios <= 1 - h * STRONG.least + 1e-4).all(), ratios
    assert distances[-1] < 0.01 * distances[0]


def test_of_convex_potentials_the_gap_falls_like_one_over_steps():
    """F(q_n) - F(best) <= W2^2(q_0, best) / (2 h n): Diao et al. 2023, theorem 5.3."""
    h, best, at = 1 / CONVEX.most, CONVEX.best, START
    least, first = CONVEX.gap(*best), distance(START, best)
    for n in range(1, 101):
        at = stepped(BuresWasserstein(h), *at, CONVEX.slopes(*at))
        assert CONVEX.gap(*at) - least <= first / (2 * h * n)
    assert CONVEX.gap(*at) - least < 1e-3


@pytest.mark.parametrize("h", [1e-3, 1.0, 1e3])
def test_a_step_that_would_fold_space_is_shortened(h):
    """Where gradients are noise, covariances stay positive definite, and nothing is moved past where curvature says."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        factor = np.tril(rng.normal(size=(2, 2))) + 2 * np.eye(2)
        factor[np.diag_indices(2)] = np.abs(np.diag(factor))
        slope = {"loc": rng.normal(size=2), "scale_tril": np.tril(100 * rng.normal(size=(2, 2)))}
        m, found = stepped(BuresWasserstein(h), np.zeros(2), factor, slope)
        assert (np.linalg.eigvalsh(found @ found.T) > 0).all()
        inverse = np.linalg.inv(factor)
        curvature = inverse.T @ (np.eye(2) - np.asarray(whitened({"scale_tril": factor}, slope, JAX))) @ inverse
        taken = min(h, 1 / np.abs(np.linalg.eigvalsh(curvature)).max())
        np.testing.assert_allclose(m, taken * slope["loc"], rtol=1e-6)


INDEPENDENT = {
    "Bures-Wasserstein": (BuresWasserstein(0.05), BuresWasserstein(0.05)),
    "proximal": (BuresWasserstein(0.05), Proximal(0.05, adaptive=False)),
    "a schedule": (BuresWasserstein(0.05), Proximal(lambda step: 0.1 / step, adaptive=False)),
}


@each_engine
@pytest.mark.parametrize(("of_vectors", "of_numbers"), INDEPENDENT.values(), ids=INDEPENDENT)
def test_of_independent_numbers_steps_are_those_of_diagonal_matrices(engine, of_vectors, of_numbers):
    """And that of proximal gradients is that of the Wasserstein metric."""
    algebra, array = algebra_of(engine), engine.array
    m, scale = np.array([3.0, -2.0]), np.array([0.3, 2.0])
    slope = Potential(np.diag([2.0, 0.5]), 1.0).slopes(m, np.diag(scale))
    at = {"loc": array(m), "scale": array(scale)}
    own = {"loc": array(slope["loc"]), "scale": array(np.diag(slope["scale_tril"]).copy())}
    found, _ = of_numbers.update(NUMBERS, at, own, (), 2, algebra)
    whole_m, whole = stepped(of_vectors, m, np.diag(scale), slope, algebra, array)
    np.testing.assert_allclose(found["loc"], whole_m, rtol=1e-10)
    np.testing.assert_allclose(found["scale"], np.diag(whole), rtol=1e-10)


@pytest.mark.parametrize("x", [-1e6, -3.0, -1e-3, 0.0, 1e-3, 3.0, 1e6])
def test_the_proximal_map(x):
    """argmin (s - x)^2 / 2 - h log s: positive, and flat there."""
    h = 0.1
    s = float(proximal(np.asarray(x), h, JAX))
    assert s > 0
    np.testing.assert_allclose(s - h / s, x, rtol=1e-9, atol=1e-12)


def test_proximal_steps_lead_to_the_best_gaussian():
    best, at, h = STRONG.best, START, 1 / STRONG.most
    for _ in range(200):
        at = stepped(Proximal(h, adaptive=False), *at, STRONG.slopes(*at))
    np.testing.assert_allclose(at[0], best[0], atol=1e-5)
    np.testing.assert_allclose(at[1], best[1], atol=1e-5)


def test_adaptive_steps_are_adams_of_the_energy_and_proximal_by_entry():
    """Two steps of one number by hand."""
    optimizer, at, memory = Proximal(0.1), {"loc": 1.0, "scale": 2.0}, ({"loc": 0.0, "scale": 0.0},) * 2
    slopes = [{"loc": -1.0, "scale": -0.7}, {"loc": 0.5, "scale": 0.2}]
    first, second, m, s = np.zeros(2), np.zeros(2), 1.0, 2.0
    for t, slope in enumerate(slopes):
        energy = np.array([slope["loc"], slope["scale"] - 1 / s])
        first, second = 0.9 * first + 0.1 * energy, 0.999 * second + 0.001 * energy**2
        rates = 0.1 / (np.sqrt(second / (1 - 0.999 ** (t + 1))) + 1e-8)
        moved = np.array([m, s]) + rates * first / (1 - 0.9 ** (t + 1))
        m, s = moved[0], (moved[1] + np.sqrt(moved[1] ** 2 + 4 * rates[1])) / 2
        at, memory = optimizer.update(NUMBERS, at, slope, memory, t, JAX)
        np.testing.assert_allclose([at["loc"], at["scale"]], [m, s], rtol=1e-6)
