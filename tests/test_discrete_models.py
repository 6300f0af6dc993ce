"""Models with discrete sites: densities with these summed out against sums by hand, and fits against NUTS."""

from types import SimpleNamespace as Case

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.special import logsumexp, xlog1py, xlogy
from scipy.stats import dirichlet, gamma, lognorm, norm, poisson

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
ROWS = [
    pytest.param(case, engine, id=f"{case.law.__name__}-{engine.name}")
    for case in CASES
    for engine in ENGINES
    if engine is NUMPYRO or case.law not in (hmm, capture_recapture)
]


def at_points(case, engine):
    """The model's objective at points, which are parameters, and the arguments."""
    values, model = case.values, getattr(discrete if engine is NUMPYRO else discrete_pyro, case.law.__name__)
    if engine is not NUMPYRO and case.law is capture_recapture:  # a loop of Python has a site for each year
        values = {"rho": values["rho"]} | {f"phi_{t}": x for t, x in enumerate(values["phi"], 1)}

    def points(*_):
        return {name: ppl.param(f"at_{name}", engine.array(value)) for name, value in values.items()}

    bound = engine.vi.objective(lambda p, q: p.log_density(q.simulate().returned), model, points)
    args = [jnp.asarray(x) if engine is NUMPYRO else torch.tensor(x) for x in case.data]
    return bound, {f"at_{name}": engine.array(x) for name, x in values.items()}, args


@pytest.mark.parametrize(("case", "engine"), ROWS)
def test_densities_are_those_by_hand(case, engine):
    """The log density, and its slope along a line of which all points have probabilities that sum to one."""
    with on(engine), double():
        bound, points, args = at_points(case, engine)
        value, grads = bound.value_and_grad(engine.key(0), points, *args)
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
