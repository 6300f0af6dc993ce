"""Models with discrete sites: densities with these summed out against sums by hand, and fits against NUTS."""

from types import SimpleNamespace as Case

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import torch
from scipy.special import gammaln, logsumexp, softmax, xlog1py, xlogy
from scipy.stats import dirichlet, gamma, lognorm, norm, poisson

import ppvi
from models import discrete, discrete_data as data, discrete_pyro
from tests.engines import ENGINES, NUMPYRO, double, on, ppl


def dirichlets(concentration, x):
    """The log density of rows of probabilities, of any sum."""
    a = np.broadcast_to(concentration, x.shape)
    normaliser = [dirichlet.logpdf(np.full(x.shape[-1], 1 / x.shape[-1]), row) for row in a.reshape(-1, x.shape[-1])]
    return np.sum(normaliser) + ((a - 1) * np.log(x * x.shape[-1])).sum()


def mixture(v, x):
    prior = dirichlets(1.0, v["weights"]) + lognorm.logpdf(v["scale"], 1.0) + norm.logpdf(v["loc"], 0, 5).sum()
    return prior + logsumexp(np.log(v["weights"]) + norm.logpdf(x[:, None], v["loc"], v["scale"]), axis=1).sum()


def hmm(v, y, lengths):
    """The forward recursion."""
    found = dirichlets(1 + 4 * np.eye(3), v["transition"]) + norm.logpdf(v["loc"], [-2, 0, 2], 0.5).sum()
    for row, length in zip(y, lengths, strict=True):
        forward = np.array([1.0, 0.0, 0.0])
        for value in row[:length]:
            forward = (forward @ v["transition"]) * norm.pdf(value, v["loc"], 0.7)
        found += np.log(forward.sum())
    return found


def dawid_skene(v, positions, annotations):
    prior = dirichlets(1.0, v["pi"]) + dirichlets(1 + 3 * np.eye(3), v["beta"])
    labels = np.log(v["beta"])[positions[:, None], :, annotations[..., None]].sum(1)[:, 0]
    return prior + logsumexp(np.log(v["pi"]) + labels, axis=-1).sum()


def lda(v, words):
    mixed = v["theta"] @ v["phi"]
    likelihood = np.log(mixed[np.arange(words.shape[1]), words]).sum()
    return dirichlets(0.5, v["phi"]) + dirichlets(0.7, v["theta"]) + likelihood


def capture_recapture(v, captures):
    """chi_t, the probability that an animal alive at t is not seen after t, is 1 - phi_t + phi_t (1 - rho) chi_{t+1}."""
    phi, rho, chi = v["phi"], v["rho"], [1.0]
    for survival in phi[::-1]:
        chi.insert(0, 1 - survival + survival * (1 - rho) * chi[0])
    found = 0.0
    for row in captures:
        first, last = np.flatnonzero(row)[[0, -1]] if row.any() else (0, None)
        if last is not None:
            seen = row[first + 1 : last + 1]
            found += (
                np.log(phi[first:last]).sum() + (xlogy(seen, rho) + xlog1py(1 - seen, -rho)).sum() + np.log(chi[last])
            )
    return found


def change_point(v, counts):
    early, late = (poisson.logpmf(counts, v[name]) for name in ("early", "late"))
    paths = [early[:t].sum() + late[t:].sum() for t in range(len(counts))]
    return gamma.logpdf([v["early"], v["late"]], 2.0).sum() + logsumexp(paths) - np.log(len(counts))


def zero_inflated(v, hours, catches):
    fishes, rate = 1 / (1 + np.exp(-v["gate"] @ [0 * hours + 1, hours])), np.exp(v["rate"] @ [0 * hours + 1, hours])
    likelihood = (catches == 0) * (1 - fishes) + fishes * poisson.pmf(catches, rate)
    return norm.logpdf([*v["gate"], *v["rate"]]).sum() + np.log(likelihood).sum()


RNG = np.random.default_rng(7)


def probabilities(*shape):
    return RNG.dirichlet(np.full(shape[-1], 3.0), shape[:-1])


CASES = [
    Case(
        law=mixture,
        data=(data.POINTS,),
        values={"weights": probabilities(3), "scale": 0.9, "loc": np.array([-3.0, 1.0, 3.5])},
    ),
    Case(
        law=hmm,
        data=(data.SEQUENCES, data.LENGTHS),
        values={"transition": probabilities(3, 3), "loc": np.array([-1.8, 0.2, 1.7])},
    ),
    Case(
        law=dawid_skene,
        data=(data.POSITIONS, data.ANNOTATIONS),
        values={"beta": probabilities(4, 3, 3), "pi": probabilities(3)},
    ),
    Case(law=lda, data=(data.WORDS,), values={"phi": probabilities(3, 12), "theta": probabilities(8, 3)}),
    Case(
        law=capture_recapture,
        data=(data.CAPTURES,),
        values={"rho": 0.55, "phi": RNG.uniform(0.4, 0.9, data.CAPTURES.shape[1] - 1)},
    ),
    Case(law=change_point, data=(data.DISASTERS,), values={"early": 3.1, "late": 0.9}),
    Case(
        law=zero_inflated,
        data=(data.HOURS, data.CATCHES),
        values={"gate": np.array([0.4, 0.8]), "rate": np.array([0.9, 0.5])},
    ),
]
SIMPLEXES = ("weights", "transition", "beta", "pi", "phi", "theta")
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.law.__name__)
each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


def model_of(law, engine):
    return getattr(discrete if engine is NUMPYRO else discrete_pyro, law.__name__)


def arrays(engine, values):
    return [
        engine.array(x) if x.dtype.kind == "f" else (jnp.asarray if engine is NUMPYRO else torch.tensor)(x)
        for x in values
    ]


def at_points(case, engine):
    """The model's objective at points, which are parameters, and the arguments."""
    values = case.values
    if engine is not NUMPYRO and case.law is capture_recapture:  # a loop of Python has a site for each year
        values = {"rho": values["rho"]} | {f"phi_{t}": x for t, x in enumerate(values["phi"], 1)}

    def points(*_):
        return {name: ppl.param(f"at_{name}", engine.array(value)) for name, value in values.items()}

    bound = engine.vi.objective(lambda p, q: p.log_density(q.simulate().returned), model_of(case.law, engine), points)
    return bound, {f"at_{name}": engine.array(x) for name, x in values.items()}


@each_engine
@each_case
def test_densities_are_those_by_hand(engine, case):
    """The log density, and its slope along a line of which all points have probabilities that sum to one."""
    with on(engine), double():
        bound, points = at_points(case, engine)
        value, grads = bound.value_and_grad(engine.key(0), points, *arrays(engine, case.data))
        assert float(value) == pytest.approx(case.law(case.values, *case.data), rel=1e-12)

        rng, step = np.random.default_rng(1), 1e-5
        along = {name: 0.1 * rng.normal(size=np.shape(x)) for name, x in case.values.items()}
        along |= {name: x - x.mean(-1, keepdims=True) for name, x in along.items() if name in SIMPLEXES and np.ndim(x)}
        ahead, behind = (
            case.law({name: x + s * along[name] for name, x in case.values.items()}, *case.data) for s in (step, -step)
        )
        grads = {name.removeprefix("at_"): np.asarray(x) for name, x in grads.items()}
        if "phi_1" in grads:
            grads["phi"] = np.array([grads[f"phi_{t}"] for t in range(1, len(along["phi"]) + 1)])
        slope = sum((grads[name] * x).sum() for name, x in along.items())
        assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-6)


def fitted(engine, law, values, hidden, start=None):
    """Draws from the fit of a multivariate normal over what is continuous, and of what is summed out given these."""
    values_at = getattr(engine.infer, "init_to_value", None) or engine.autoguide.init_to_value
    begin = {} if start is None else {"init_loc_fn": values_at(values={k: engine.array(x) for k, x in start.items()})}
    model, args, params = model_of(law, engine), arrays(engine, values), None
    guide = engine.autoguide.AutoMultivariateNormal(engine.handlers.block(model, hide=hidden), **begin)
    bound = engine.vi.objective(ppvi.objectives.elbo, model, guide)
    for size, steps in ((0.05, 600), (0.005, 600)):
        options = {"num_steps": steps, "optimizer": size, "progress": False}
        fit = engine.vi.fit(bound, engine.key(0), *args, params=params, **options)
        params = fit.params
    draws = fit.posterior(draws=4000).posterior
    return {name: draws[name].values[0] for name in draws}


def assert_alike(draws, mean, sd, within=0.3, ratio=1.3):
    """Means are `within` posterior standard deviations, and these are the same up to a `ratio`."""
    error = np.abs(draws.mean(0) - mean) / sd
    assert np.max(error) < within, error
    off = np.abs(np.log(draws.std(0) / sd))
    assert np.max(off) < np.log(ratio), np.exp(off)


@each_engine
@pytest.mark.slow
def test_a_change_point_is_found(engine):
    """Given the year the rates are gamma distributed, and the evidence of each year is known."""
    counts = data.DISASTERS
    with on(engine):
        draws = fitted(engine, change_point, (counts,), ["change", "y"])
    years = np.arange(len(counts))
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])
    shapes = np.stack([2.0 + before, 2.0 + counts.sum() - before])
    rates = np.stack([1.0 + years, 1.0 + len(counts) - years])
    year = softmax((gammaln(shapes) - shapes * np.log(rates)).sum(0))
    means, squares = shapes / rates, shapes * (shapes + 1) / rates**2
    for name, mean, square in zip(("early", "late"), means @ year, squares @ year, strict=True):
        assert_alike(draws[name], mean, np.sqrt(square - mean**2))
    found = np.bincount(draws["change"].astype(int), minlength=len(counts)) / len(draws["change"])
    assert np.abs(found - year).sum() / 2 < 0.1


def nuts_of(model, values):
    options = {"num_warmup": 500, "num_samples": 2000, "num_chains": 1, "progress": False}
    draws = NUMPYRO.vi.nuts(model, NUMPYRO.key(1), *arrays(NUMPYRO, values), **options).posterior
    return {name: draws[name].values[0] for name in draws}


@pytest.fixture(scope="module")
def fishing():
    """Of the model whose switch is summed out by hand."""

    def model(hours, catches):
        with numpyro.plate("coefficients", 2):
            gate = numpyro.sample("gate", numpyro.distributions.Normal(0.0, 1.0))
            rate = numpyro.sample("rate", numpyro.distributions.Normal(0.0, 1.0))
        none = 1 - jax.nn.sigmoid(gate[0] + gate[1] * hours)
        counts = numpyro.distributions.ZeroInflatedPoisson(none, jnp.exp(rate[0] + rate[1] * hours))
        numpyro.sample("y", counts, obs=catches)

    return nuts_of(model, (data.HOURS, data.CATCHES))


@each_engine
@pytest.mark.slow
def test_who_fishes_is_found(engine, fishing):
    with on(engine):
        draws = fitted(engine, zero_inflated, (data.HOURS, data.CATCHES), ["fishes", "y"])
    for name, reference in fishing.items():
        assert_alike(draws[name], reference.mean(0), reference.std(0))
    assert (draws["fishes"][:, data.CATCHES > 0] == 1).all()


def test_a_guide_that_finds_no_beginning():
    """Of who fishes NumPyro's autoguide sees one draw, of which the catches of the others are impossible."""
    hiding = numpyro.handlers.block(discrete.zero_inflated, hide=["fishes"])
    guide = numpyro.infer.autoguide.AutoNormal(hiding)
    bound = NUMPYRO.vi.objective(ppvi.objectives.elbo, discrete.zero_inflated, guide)
    with pytest.raises(ppvi.errors.ProgramError, match=r"AutoNormal finds no point .*hide the data too"):
        bound.init(jax.random.key(0), *arrays(NUMPYRO, (data.HOURS, data.CATCHES)))


@pytest.fixture(scope="module")
def labels():
    """NUTS of the model itself, whose labels NumPyro sums out by funsor."""
    return nuts_of(discrete.dawid_skene, (data.POSITIONS, data.ANNOTATIONS))


@each_engine
@pytest.mark.slow
def test_annotators_are_known_by_what_they_confuse(engine, labels):
    with on(engine):
        draws = fitted(engine, dawid_skene, (data.POSITIONS, data.ANNOTATIONS), ["c", "y"])
    for name, reference in labels.items():
        assert_alike(draws[name], reference.mean(0), reference.std(0), within=0.5, ratio=1.6)
    likeliest = np.array([np.bincount(row).argmax() for row in draws["c"][..., 0].astype(int).T])
    assert (likeliest == data.ITEMS).mean() > 0.8
