"""What pages are helped by: numbers with their errors, records of full runs alone, rows evaluated by themselves, layers of flows."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import norm

import gallery
import ppvi.numpyro as vi
from gallery.evaluation import (
    beside,
    by_datum,
    classified,
    drawn_of_grid,
    frechet_distance,
    gradient_moments,
    linear_probe,
    matched,
    mixture_score,
    reliability,
    worst_marginals,
)
from gallery.table import entry_of, row
from guides.implicit_vi import at_gaussian, truth
from models.implicit_vi import bend, log_joint
from models.networks import glorot, perceptron
from models.networks_pyro import perceptron as torch_perceptron, take_over
from models.sparse_cholesky import InTurn
from ppvi.objectives import iwelbo

ENTRY = dict.fromkeys("system family engine objective strategies shows paper link".split(), "")


def test_mean_and_standard_error():
    mean, error = gallery.mean_se([1.0, 2.0, 3.0])
    assert mean == 2
    assert error == pytest.approx(1 / np.sqrt(3))
    assert gallery.said([1.0, 2.0, 3.0]) == "2.00 ± 0.58"
    assert gallery.said([1.0]) == "1.00"


def test_programs_are_shown_as_they_are_written(capsys):
    from models import cone, eight_schools

    gallery.show(cone.model, eight_schools.model)
    assert 'numpyro.sample("z", dist.Normal(r, 0.1 + r / 100), obs=z)' in (shown := capsys.readouterr().out)
    assert 'numpyro.sample("tau", dist.HalfCauchy(5))' in shown


def test_only_a_full_run_records(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gallery, "RESULTS", tmp_path)
    entry = gallery.Entry(name="one", **ENTRY)
    entry.record("0.5", seeds=range(2), steps=3)
    assert "last full run: none yet" in capsys.readouterr().out
    monkeypatch.setattr(gallery, "FULL", True)
    entry.record("0.5", seeds=range(2), steps=3, found={1: np.array([0.123456789])})
    kept = json.loads((tmp_path / "one.json").read_text())
    assert (kept["result"], kept["seeds"], kept["numbers"]) == ("0.5", [0, 1], {"found": {"1": [0.12346]}})
    assert "0.5" in row(entry)


def test_a_bar_in_a_result_ends_no_cell():
    about = dict.fromkeys("system family engine objective strategies paper link".split(), "")
    assert "p(x \\| z)" in row(gallery.Entry(name="none", **about, shows="p(x | z)"))


def test_a_page_states_its_entry_in_literals(tmp_path):
    page = tmp_path / "page.py"
    page.write_text(
        f"ENTRY = Entry(name='page', **{{}}, {', '.join(f'{name}=1' for name in ENTRY)})\n".replace("**{}, ", "")
    )
    assert entry_of(page).name == "page"
    page.write_text("x = 1\n")
    with pytest.raises(ValueError, match="no ENTRY"):
        entry_of(page)


def test_rows_are_evaluated_by_themselves():
    """Of z ~ N(0, 1), x ~ N(z, 1) the densities of data are N(0, 2), and a guide that is the posterior finds them exactly."""

    def model(x):
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(z, numpyro.param("noise", 1.0)), obs=x)

    def guide(x):
        with numpyro.plate("rows", len(x)):
            numpyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    x = np.array([-1.0, 0.0, 2.5], np.float32)
    bound = vi.objective(iwelbo(7), model, guide)
    found = by_datum(bound.estimate)(jax.random.key(0), {"noise": jnp.ones(())}, x)
    np.testing.assert_allclose(found, norm.logpdf(x, scale=2**0.5), rtol=1e-5)


def test_networks_of_both_libraries_are_the_same():
    torch = pytest.importorskip("torch")
    weights, module = glorot(jax.random.key(0), 3, 5, 2), torch_perceptron(3, 5, 2)
    take_over(module, weights)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(module(torch.tensor(x)).detach(), perceptron(weights, x), rtol=1e-5, atol=1e-6)


def test_moments_of_a_gradient():
    """d (m + e)^2 / dm is 2 (m + e): mean 2 m, variance 4."""

    def guide():
        numpyro.sample("z", dist.Normal(numpyro.param("m", 3.0), 1.0))

    bound = vi.objective(lambda p, q: q.simulate()["z"] ** 2, lambda: None, guide)
    mean, variance = gradient_moments(bound, 10_000)(jax.random.key(0), {"m": jnp.array(3.0)})
    np.testing.assert_allclose(mean, [6], atol=5 * 2 / 100)
    np.testing.assert_allclose(variance, [4], atol=5 * 4 * np.sqrt(2) / 100)


def test_a_prior_of_autoregressive_layers():
    """Draws are points whose noise is what was drawn, and whose density is that of the noise by the Jacobian's determinant."""
    from models.flows import Flow, first_weights, inverse_autoregressive

    weights = first_weights(inverse_autoregressive, 3, 4, (), 12, jax.random.key(0))
    back = Flow(inverse_autoregressive, weights)
    noise = jax.random.normal(jax.random.key(1), (5, 4))
    points = back.inv(noise)
    np.testing.assert_allclose(back(points), noise, rtol=1e-4, atol=1e-4)
    prior = dist.TransformedDistribution(dist.Normal(0.0, 1.0).expand([4]).to_event(1), back.inv)
    determinants = np.linalg.slogdet(jax.vmap(jax.jacobian(back))(points))[1]
    np.testing.assert_allclose(prior.log_prob(points), norm.logpdf(noise).sum(1) + determinants, rtol=1e-3)


def test_the_frechet_distance_of_gaussians():
    """Of two sets that are one, moved and stretched along axes: the shift squared, and the differences of deviations squared."""
    rows = np.random.default_rng(0).normal(size=(200, 3))
    stretch, shift = np.array([1.0, 2.0, 0.5]), np.array([0.3, 0.0, -1.0])
    rows = (rows - rows.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    assert abs(frechet_distance(rows, rows)) < 1e-9
    expected = (shift**2).sum() + ((stretch - 1) ** 2).sum()
    np.testing.assert_allclose(frechet_distance(stretch * rows + shift, rows), expected, rtol=1e-9)


def test_error_likelihood_and_calibration_by_hand():
    """Four rows at 0.9, three of them right, and one at 0.6, which is right."""
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]])
    answer = np.array([0, 0, 0, 1, 1])
    share, sure, right = reliability(probabilities, answer)
    assert share.sum() == 1
    np.testing.assert_allclose([sure[13], right[13]], [0.9, 0.75])
    nll = -(3 * np.log(0.9) + np.log(0.1) + np.log(0.6)) / 5
    np.testing.assert_allclose(classified(probabilities, answer), (20, nll, 100 * (0.8 * 0.15 + 0.2 * 0.4)))


def test_a_linear_probe():
    """Classes that a line parts are told apart whatever the units, and labels that nothing tells of are guessed."""
    rng = np.random.default_rng(0)
    rows, blind = rng.normal(size=(2, 400, 3))
    labels = (rows[:, 0] > 0).astype(int)
    rows[:, 0] += 2 * labels
    assert linear_probe(rows[:300] * [100, 1, 1] + 7, labels[:300], rows[300:] * [100, 1, 1] + 7, labels[300:]) <= 2
    assert 30 < linear_probe(blind[:300], labels[:300], blind[300:], labels[300:]) < 70


def test_a_density_on_a_grid_is_drawn_from():
    """Two independent normals: 40,000 draws have their moments and quantiles; a Gaussian of another mean is as far as it is."""
    axes = dict(zip("ab", np.meshgrid(np.linspace(-6, 6, 61), np.linspace(-6, 6, 41)), strict=True))
    surface = norm(1, 0.8).logpdf(axes["a"]) + norm(-0.5, 1).logpdf(axes["b"]) + 3
    drawn = drawn_of_grid(surface, axes, 0, 40_000)
    rng = np.random.default_rng(1)
    exactly = {"a": rng.normal(1, 0.8, 40_000), "b": rng.normal(-0.5, 1, 40_000)}
    shifted = {"a": exactly["a"] + 0.8, "b": exactly["b"]}
    far = worst_marginals({"grid": drawn, "shifted": shifted}, exactly, ["a", "b"])
    assert far["grid"] < 0.05
    assert abs(far["shifted"] - 1) < 0.05


def test_the_score_of_a_mixture_is_that_of_its_density():
    y, one, other = np.array([0.3, -1.0]), (np.zeros(2), np.array([1.0, 0.5]), 0.4), (np.ones(2), np.zeros(2), 2.0)
    density = 0.5 * norm.pdf(y, 0, np.hypot([1.0, 0.5], 0.4)) + 0.5 * norm.pdf(y, 1, 2)
    found = mixture_score([one, other], y)
    assert found["score"] == pytest.approx(np.log(density).mean())
    assert found["sd"] == pytest.approx(np.sqrt([1 / 2 + 1 / 4, 1 / 8 + 1 / 4]).mean())


def test_draws_beside_draws():
    """Half a standard deviation away is half a standard deviation away, number by number."""
    one, other = np.random.default_rng(0).normal(size=(2, 2000, 3)) * [1, 2, 3]
    assert beside(one + np.array([0.5, 1, 1.5]), other) == pytest.approx(0.5, abs=0.08)
    assert beside(one, other) < 0.1


def test_values_in_turn_are_a_gaussian():
    """Whose density is that of its mean and covariance, and draws have these."""
    before = np.array([[-1, -1], [0, -1], [0, 1], [2, 0]])
    q = InTurn(
        jnp.arange(4.0),
        jnp.array([[9.0, 9.0], [0.5, 9.0], [-0.3, 0.8], [0.4, 0.2]]),
        jnp.array([1.0, 0.5, 2.0, 0.7]),
        before,
    )
    x = q.sample(jax.random.key(0), (20_000,))
    known = dist.MultivariateNormal(q.loc, q.root() @ q.root().T)
    np.testing.assert_allclose(q.log_prob(x[:5]), known.log_prob(x[:5]), rtol=1e-5)
    np.testing.assert_allclose(x.mean(0), known.loc, atol=0.1)
    np.testing.assert_allclose(np.cov(x.T), known.covariance_matrix, atol=0.25)


def test_clusterings_are_matched_at_best():
    assert matched([0, 0, 1, 1, 2], [2, 2, 0, 0, 1]) == 100
    assert matched([0, 0, 0, 1], [1, 1, 2, 0]) == 75
    assert matched([0, 0, 1, 1], [0, 1, 0, 1]) == 50


def test_the_density_of_a_straight_generator_is_a_gaussian():
    """What `truth` sums over a grid is as good as the grid is fine beside noise and slopes."""
    (x, y), sds = bend(0), np.array([1.5, 0.8])
    found, w = truth(at_gaussian(np.zeros(2), np.diag(sds**-2.0), 0.05), 0.05, x, y, 0.0, 201, 200)
    log_q = dist.Normal(0.0, jnp.float32(sds)).log_prob(w).sum(1)
    np.testing.assert_allclose(found["gap"], (log_q - log_joint(w, x, y)).mean(), atol=0.01)
    assert found["folded"] == 0
    assert abs(found["added"]) < 1e-6
