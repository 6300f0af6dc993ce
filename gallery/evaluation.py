"""How good a model of many independent data is, datum by datum, which no evaluation may mix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from scipy.stats import norm

import ppvi
from gallery import said


def by_datum(estimate: Callable[..., Any]) -> Callable[[jax.Array, Any, Any], np.ndarray]:
    """Takes key, parameters and data to estimates of an objective for each row by itself, `(n,)`.

    Rows come one after the other, so that memory is that of one. With `vi.objective(iwelbo(5000), model, guide).estimate` the
    estimates are log densities of the data, from below. It is compiled once for data of a shape.
    """

    @jax.jit
    def one_by_one(key: jax.Array, params: Any, x: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(x))
        return jax.lax.map(lambda each: estimate(each[0], params, each[1][None]), (keys, x))

    return lambda key, params, x: np.asarray(one_by_one(key, params, jnp.asarray(x)), np.float64)


def mutual_informations(codes: Any, factors: Any, bins: int = 20) -> np.ndarray:
    """Of each code with each factor, `(codes, factors)` in nats, in bins of equal width; of arrays `(n, k)`."""
    codes, factors = (np.stack([_binned(x, bins) for x in np.asarray(each).T]) for each in (codes, factors))
    return np.array([[_information(code, factor, bins) for factor in factors] for code in codes])


def mig(codes: Any, factors: Any, bins: int = 20) -> float:
    """Mutual information gap: by how much the code that says most of a factor is ahead of the next, in parts of the factor's
    entropy; the mean over factors. Chen, Li, Grosse and Duvenaud, "Isolating sources of disentanglement", NeurIPS 2018.
    """
    entropies = np.diagonal(mutual_informations(factors, factors, bins))
    return _gap(mutual_informations(codes, factors, bins) / entropies)


def sap(codes: Any, factors: Any) -> float:
    """Separated attribute predictability: by how much the code that predicts a factor best, linearly, is ahead of the next, as
    R squared; the mean over factors. Kumar, Sattigeri and Balakrishnan, ICLR 2018.
    """
    joined = np.corrcoef(np.hstack([codes, factors]), rowvar=False)
    return _gap(joined[: np.shape(codes)[1], np.shape(codes)[1] :] ** 2)


def _gap(scores: np.ndarray) -> float:
    ordered = np.sort(scores, axis=0)
    return float((ordered[-1] - ordered[-2]).mean())


def _binned(x: np.ndarray, bins: int) -> np.ndarray:
    edges = np.linspace(x.min(), x.max(), bins + 1)[1:-1]
    return np.digitize(x, edges)


def _information(a: np.ndarray, b: np.ndarray, bins: int) -> float:
    joint = np.bincount(a * bins + b, minlength=bins * bins).reshape(bins, bins) / len(a)
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / apart[some])).sum())


def gradient_moments(bound: Any, n: int) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Takes key, parameters and data to mean and variance of n estimates of an objective's gradient, `(parameters,)` each."""

    @jax.jit
    def moments(key: jax.Array, params: Any, *data: Any) -> tuple[jax.Array, jax.Array]:
        def one(key: jax.Array) -> jax.Array:
            grad = bound.value_and_grad(key, params, *data)[1]
            return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grad)])

        each = jax.lax.map(one, jax.random.split(key, n))
        return each.mean(0), each.var(0, ddof=1)

    def found(key: jax.Array, params: Any, *data: Any) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = moments(key, params, *data)
        return np.asarray(mean, np.float64), np.asarray(variance, np.float64)

    return found


def nearest_label(images: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The label of the nearest of some images `(m, pixel)`, for each of new ones `(..., pixel)`."""
    return labels[np.argmin((images**2).sum(1) - 2 * np.asarray(new) @ images.T, -1)]


def shape_and_detail(pictures: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of pictures of 28 by 28 pixels: the means of blocks of 4 by 4, and what is left of each pixel beside these."""
    blocks = np.asarray(pictures).reshape(-1, 7, 4, 7, 4)
    means = blocks.mean((2, 4), keepdims=True)
    return means.ravel(), (blocks - means).ravel()


def frechet_distance(drawn: Any, real: Any, directions: int = 50) -> float:
    """Fréchet distance, squared, of two sets of rows as Gaussians, in the leading principal directions of the real ones.

        |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2))

    Dowson and Landau 1982; with features of a network in place of pixels it is the FID of Heusel et al. 2017.
    """
    a, b = (np.asarray(rows, np.float64).reshape(len(rows), -1) for rows in (drawn, real))
    axes = np.linalg.eigh(np.cov(b.T))[1][:, -directions:]
    means, covariances = zip(*(((x @ axes).mean(0), np.cov((x @ axes).T)) for x in (a, b)), strict=True)
    product = np.linalg.eigvals(covariances[0] @ covariances[1])
    cross = np.sqrt(np.maximum(product.real, 0)).sum()
    return float(((means[0] - means[1]) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * cross)


class Reliability(NamedTuple):
    """Of bins by the probability of what is predicted."""

    share: np.ndarray
    """Of the rows, in each bin."""
    sure: np.ndarray
    """Mean probability of what is predicted."""
    right: np.ndarray
    """Share of predictions that are right."""


def reliability(probabilities: np.ndarray, answer: Any, bins: int = 15) -> Reliability:
    """Of probabilities `(n, classes)` and what was the case, `(n,)`."""
    sure, right = probabilities.max(1), probabilities.argmax(1) == np.asarray(answer)
    which = np.minimum((bins * sure).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    means = [np.bincount(which, each, bins) / np.maximum(count, 1) for each in (sure, right)]
    return Reliability(count / len(sure), *means)


class Classified(NamedTuple):
    """How probabilities of classes did."""

    error: float
    """In percent."""
    nll: float
    """Negative log-likelihood of a datum, in nats."""
    ece: float
    """Expected calibration error, in percent."""


def classified(probabilities: np.ndarray, answer: Any) -> Classified:
    """Of probabilities `(n, classes)` and what was the case, `(n,)`."""
    share, sure, right = reliability(probabilities, answer)
    likelihood = np.log(np.maximum(probabilities[np.arange(len(probabilities)), np.asarray(answer)], 1e-30)).mean()
    wrong = np.mean(probabilities.argmax(1) != np.asarray(answer))
    return Classified(float(100 * wrong), float(-likelihood), float(100 * np.sum(share * np.abs(sure - right))))


def linear_probe(features: Any, labels: Any, new: Any, answer: Any) -> float:
    """Error in percent, on new rows, of the linear classifier by ridge regression on standardised features `(n, k)`.

    The penalty is the one, of nine, that errs least on a fifth of the rows which are then given back.
    """
    mean, scale = np.mean(features, 0), np.std(features, 0) + 1e-6
    rows, others = ((np.asarray(x, np.float64) - mean) / scale for x in (features, new))
    targets, kept = np.eye(int(np.max(labels)) + 1)[np.asarray(labels)], len(rows) * 4 // 5

    def error(n: int, penalty: float, at: np.ndarray, truth: Any) -> float:
        x, y = rows[:n], targets[:n]
        weights = np.linalg.solve(x.T @ x + penalty * n * np.eye(x.shape[1]), x.T @ (y - y.mean(0)))
        return float(100 * np.mean((at @ weights + y.mean(0)).argmax(1) != np.asarray(truth)))

    best = min(10.0 ** np.arange(-6, 3), key=lambda penalty: error(kept, penalty, rows[kept:], labels[kept:]))
    return error(len(rows), best, others, answer)


def operations(function: Callable[..., Any], *arguments: Any) -> float:
    """Products and sums that XLA counts in a compiled function, of a loop whose length it does not know one turn."""
    return (jax.jit(function).lower(*arguments).compile().cost_analysis() or {})["flops"]


def drawn(model: Callable[..., Any], key: jax.Array, params: Any, *arguments: Any, site: str = "x") -> np.ndarray:
    """What a model that has these parameters draws at a site where it is given data, from its prior on."""
    first, second = jax.random.split(key)
    told = handlers.seed(handlers.substitute(model, params), first)
    return np.asarray(handlers.trace(told).get_trace(*arguments)[site]["fn"].sample(second))


def nearest_distances(rows: Any, others: Any) -> np.ndarray:
    """Euclidean distance of each of some rows to the nearest of others."""
    a, b = (np.asarray(each, np.float64) for each in (rows, others))
    squares = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)
    return np.sqrt(np.maximum(squares.min(1), 0))


def information_of_halves(loc: Any, scale: Any) -> float:
    """What a number says of which half of some Gaussians on the line it is drawn from, in nats, by the trapezoidal rule."""
    loc, scale = (np.asarray(x, np.float64).reshape(-1, 1) for x in (loc, scale))
    line = np.linspace((loc - 10 * scale).min(), (loc + 10 * scale).max(), 40_001)
    density = np.exp(-0.5 * ((line - loc) / scale) ** 2) / (np.sqrt(2 * np.pi) * scale)
    halves = np.stack([half.mean(0) for half in np.split(density, 2)]) + 1e-300
    return float(np.trapezoid((halves * np.log(halves / halves.mean(0))).mean(0), line))


def drawn_of_grid(surface: Any, axes: dict[str, np.ndarray], seed: int, n: int = 4000) -> dict[str, np.ndarray]:
    """Draws from a log density that is known on a regular grid, up to a constant: of cells, and anywhere within one.

    Of values `(points,)` or in the grid's shape, and of the grid's coordinates by name, as of `np.meshgrid`.
    """
    rng, log_density = np.random.default_rng(seed), np.ravel(np.asarray(surface, np.float64))
    shares = np.exp(log_density - log_density.max())
    cells = rng.choice(shares.size, n, p=shares / shares.sum())
    wide = {name: np.diff(np.unique(values)).mean() for name, values in axes.items()}
    return {name: values.ravel()[cells] + wide[name] * rng.uniform(-0.5, 0.5, n) for name, values in axes.items()}


def columns_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows with the same names, such as those of seeds, as lists by name; of none, none."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def worst_marginals(found: dict[str, Any], reference: Any, names: Sequence[str]) -> dict[str, float]:
    """Of each posterior, Wasserstein's distance of its worst marginal from the reference's, in the latter's standard
    deviations; prints the comparison.
    """
    print(compared := ppvi.compare(**found, reference=reference, var_names=names))
    return {each.name: float(each.worst.wasserstein) for each in compared.posteriors}


def mixture_score(predictions: list[tuple[Any, Any, Any]], y: Any) -> dict[str, float]:
    """Of a mixture of predictions of outputs `(n,)`: `score`, the mean log density, and `sd`, that of the function in the mean.

    **Arguments**

    - `predictions`: of each means and standard deviations of the function, `(n,)`, and the standard deviation about it.
    """
    f, sd, noise = (np.stack([np.asarray(each[i], np.float64) for each in predictions]) for i in range(3))
    each = norm.logpdf(np.asarray(y), f, np.sqrt(sd**2 + noise[:, None] ** 2))
    score = logsumexp(each, 0) - np.log(len(each))
    return {"score": float(score.mean()), "sd": float(np.sqrt((sd**2).mean(0) + f.var(0)).mean())}


def beside(draws: Any, reference: Any) -> float:
    """Wasserstein distance of each number's draws, `(draw, n)`, from a reference's, in its standard deviations; the mean over
    numbers."""
    chains = ([{"x": np.asarray(rows)}] for rows in (draws, reference))
    return float(np.mean([marginal.wasserstein for marginal in ppvi.compare(*chains).marginals]))


def functions_beside(curves: dict[str, Any], reference: str, seen: Any) -> dict[str, dict[str, float]]:
    """Of draws of a function at some inputs `(draw, input)`, by name, beside those of a reference: the ratio of standard
    deviations where there are data, `seen`, and elsewhere, `unseen`; the mean error of correlations between inputs, `tied`;
    and the `worst` marginal, as of `worst_marginals`.
    """
    named = {name: {f"f{i}": each for i, each in enumerate(np.asarray(f).T)} for name, f in curves.items()}
    worst, known = worst_marginals(named, named.pop(reference), list(next(iter(named.values())))), curves[reference]
    found = {}
    for name, f in curves.items():
        width = np.std(f, 0) / np.std(known, 0)
        ties = np.abs(np.corrcoef(f, rowvar=False) - np.corrcoef(known, rowvar=False)).mean()
        row = {"seen": width[seen].mean(), "unseen": width[~seen].mean(), "tied": ties, "worst": worst.get(name, 0.0)}
        found[name] = {what: float(value) for what, value in row.items()}
    return found


def told(found: dict[str, Sequence[dict[str, Any]]], digits: int = 3) -> dict[str, dict[str, list[Any]]]:
    """Rows of seeds, by name, as lists by name; prints their means and standard errors."""
    columns = {name: columns_of(rows) for name, rows in found.items()}
    for name, column in columns.items():
        print(f"{name:16}", {what: said(values, digits) for what, values in column.items()}, flush=True)
    return columns


def matched(found: Any, others: Any) -> float:
    """Percent of rows of which two clusterings `(n,)` say the same, by the best matching of the clusters' numbers."""
    a, b = np.asarray(found), np.asarray(others)
    counts = np.zeros((max(a.max(), b.max()) + 1,) * 2)
    np.add.at(counts, (a, b), 1)
    return float(100 * counts[linear_sum_assignment(-counts)].sum() / len(a))
