"""Supports of transformed distributions: the image of the base's support, and refused to a score where that moves.

The ends below are those of the base, put by hand through the transforms. A mean of sines is known in closed form,
E sin(t + c e) = (sin t + c cos t) / (1 + c^2) for a standard exponential e.
"""

import math
from importlib import import_module

import numpy as np
import pytest

from ppvi import LeaveOneOut, MeasureValued, Reinforce, Reparam
from ppvi.errors import StrategyError
from ppvi.objectives import elbo
from ppvi.strategies import Quadrature
from tests.engines import dist, on, ppl, xp
from tests.laws.cases import nothing


def image(base, *transforms):
    return dist.TransformedDistribution(base, list(transforms))


def affine(loc, scale):
    return dist.transforms.AffineTransform(loc, scale)


def ordered(*names):
    return [getattr(dist.transforms, f"{name}Transform")() for name in names]


def exponential(*batch):
    return dist.Exponential(xp.ones(batch))


MOVING = {
    "shifted": lambda t: image(exponential(), affine(t, 1.0)),
    "reflected": lambda t: image(exponential(), affine(t, -1.0)),
    "shifted and scaled": lambda t: image(exponential(), affine(t, xp.exp(t))),
    "stretched Uniform": lambda t: image(dist.Uniform(0.0, 1.0), affine(0.0, t)),
    "exponential of a shifted one": lambda t: image(exponential(), affine(t, 1.0), *ordered("Exp")),
    "sigmoid of a shifted one": lambda t: image(exponential(), affine(t, 1.0), *ordered("Sigmoid")),
    "softplus of a shifted one": lambda t: image(exponential(), affine(t, 1.0), *ordered("Softplus")),
    "power of a shifted one": lambda t: image(exponential(), affine(t, 1.0), dist.transforms.PowerTransform(xp.array(2.0))),
    "inverse of a composition": lambda t: image(exponential(), dist.transforms.ComposeTransform([affine(t, 2.0), affine(0.0, 3.0)]).inv),
    "nested": lambda t: image(image(exponential(), affine(t, 1.0)), affine(0.0, 2.0)),
    "shifted lognormal": lambda t: image(dist.LogNormal(0.0, 1.0), affine(t, 1.0)),
    "events": lambda t: image(exponential(2), affine(t, 1.0)).to_event(1),
    "events of its base": lambda t: image(exponential(2).to_event(1), affine(t, 1.0)),
    "expanded": lambda t: image(exponential(), affine(t, 1.0)).expand([2]).to_event(1),
    "masked": lambda t: image(exponential(), affine(t, 1.0)).mask(True),
    "mixture": lambda t: dist.MixtureSameFamily(dist.Categorical(xp.ones(2) / 2), image(exponential(2), affine(t, 1.0))),
    "folded": lambda t: dist.FoldedDistribution(dist.Uniform(t, t + 1.0)),
    "cone": lambda t: image(exponential(2).to_event(1), dist.transforms.LowerCholeskyAffine(t * xp.ones(2), xp.eye(2))),
}  # fmt: skip


def program_of(draw, **options):
    return lambda: ppl.sample("z", draw(ppl.param("t", 0.6, **options)))


def mean_sine(p, q):
    return xp.sum(xp.sin(q.simulate()["z"]))


@pytest.mark.parametrize("name", MOVING)
def test_a_score_of_a_support_that_moves_is_refused(engine, name):
    with on(engine):
        for strategy in (Reinforce(), LeaveOneOut(2), None):
            bound = engine.vi.objective(
                mean_sine, nothing, program_of(MOVING[name]), strategies=strategy and {"z": strategy}
            )
            with pytest.raises(StrategyError, match=r"'z' ~ .*its support moves with a parameter.*Name Reparam\(\)"):
                bound.value_and_grad(engine.key(1), bound.init(engine.key(0)))


inf = math.inf
ENDS = {
    "shifted": (lambda: image(exponential(), affine(1.5, 1.0)), 1.5, inf),
    "reflected": (lambda: image(exponential(), affine(1.5, -2.0)), -inf, 1.5),
    "reflected by an array": (lambda: image(exponential(), affine(1.5, xp.array(-2.0))), -inf, 1.5),
    "stretched": (lambda: image(dist.Beta(2.0, 2.0), affine(-1.0, 3.0)), -1.0, 2.0),
    "stretched, and turned": (lambda: image(dist.Uniform(0.0, 1.0), affine(-1.0, -3.0)), -4.0, -1.0),
    "exponential": (lambda: image(exponential(), affine(1.0, 2.0), *ordered("Exp")), math.e, inf),
    "exponential of a reflected one": (lambda: image(exponential(), affine(1.0, -2.0), *ordered("Exp")), 0.0, math.e),
    "logarithm": (lambda: image(exponential(), ordered("Exp")[0].inv), -inf, inf),
    "logit of a Uniform": (lambda: image(dist.Uniform(0.0, 1.0), ordered("Sigmoid")[0].inv), -inf, inf),
    "sigmoid": (lambda: image(exponential(), *ordered("Sigmoid")), 0.5, 1.0),
    "softplus": (lambda: image(exponential(), *ordered("Softplus")), math.log(2.0), inf),
    "reciprocal": (lambda: image(exponential(), dist.transforms.PowerTransform(xp.array(-1.0))), 0.0, inf),
    "reciprocal of a shifted one": (
        lambda: image(exponential(), affine(2.0, 1.0), dist.transforms.PowerTransform(xp.array(-1.0))), 0.0, 0.5,
    ),
    "inverse of a composition": (
        lambda: image(exponential(), dist.transforms.ComposeTransform([affine(1.0, 2.0), affine(0.0, 3.0)]).inv), -0.5, inf,
    ),
    "folded": (lambda: dist.FoldedDistribution(dist.Normal(1.0, 1.0)), 0.0, inf),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_the_support_is_the_image_of_that_of_the_base(engine, name):
    make, lower, upper = ENDS[name]
    with on(engine):
        region = import_module(f"{engine.vi.__name__}._distributions").SiteDistribution(make()).region
        assert region.kind == "real"
        np.testing.assert_allclose([float(region.lower), float(region.upper)], [lower, upper], rtol=1e-6)


SINES = {
    "scaled": (lambda t: image(exponential(), affine(0.0, t)), lambda t: t / (1 + t**2)),
    "reflected": (lambda t: image(exponential(), affine(0.0, -t)), lambda t: -t / (1 + t**2)),
    "shifted, and scaled by its rate": (
        lambda t: image(dist.Exponential(1 / t), affine(2.0, 1.0)),
        lambda t: (math.sin(2.0) + t * math.cos(2.0)) / (1 + t**2),
    ),
}


@pytest.mark.parametrize("name", SINES)
def test_quadrature_on_a_support_that_stays(engine, name):
    draw, mean = SINES[name]
    with on(engine):
        bound = engine.vi.objective(
            mean_sine,
            nothing,
            program_of(draw, constraint=dist.constraints.positive),
            strategies={"z": Quadrature(400)},
        )
        value, slopes = bound.value_and_grad(engine.key(0), bound.init(engine.key(1)))
    slope = (mean(0.6 + 1e-5) - mean(0.6 - 1e-5)) / 2e-5
    np.testing.assert_allclose([float(value), float(slopes["t"])], [mean(0.6), slope], atol=2e-3)


def test_a_path_moves_with_its_support(engine):
    """Of 20,000 lanes: within 5 standard errors."""
    n, t = 20_000, 0.6

    def guide():
        with ppl.plate("lanes", n):
            ppl.sample("z", image(exponential(n), affine(ppl.param("t", t), 1.0)))

    with on(engine):
        bound = engine.vi.objective(mean_sine, nothing, guide, strategies={"z": Reparam()})
        start = bound.init(engine.key(0))
        assert bound.prove(start).verdict == "proved"
        slope = float(bound.value_and_grad(engine.key(1), start)[1]["t"]) / n
    # Var cos(t + e) = (1 + E cos(2 t + 2 e)) / 2 - (E cos(t + e))^2
    mean = (math.cos(t) - math.sin(t)) / 2
    variance = (1 + (math.cos(2 * t) - 2 * math.sin(2 * t)) / 5) / 2 - mean**2
    assert abs(slope - mean) < 5 * math.sqrt(variance / n)


def test_a_point_that_moves_has_no_score(engine):
    """Its density is of probability one at the point, wherever that is."""
    with on(engine):
        program = program_of(lambda t: dist.Delta(t))
        for strategy in (Reinforce(), LeaveOneOut(2)):
            bound = engine.vi.objective(mean_sine, nothing, program, strategies={"z": strategy})
            with pytest.raises(StrategyError, match=r"'z' ~ Delta.*its support moves with a parameter"):
                bound.value_and_grad(engine.key(1), bound.init(engine.key(0)))
        bound = engine.vi.objective(mean_sine, nothing, program)
        _, grads = bound.value_and_grad(engine.key(1), bound.init(engine.key(0)))
        np.testing.assert_allclose(float(grads["t"]), np.cos(0.6), rtol=1e-6)


C = -math.log(2 * math.pi) / 2
OF_THE_DENSITY = {
    "the entropy alone": (lambda p, q: -q.simulate().log_density, lambda h: 1 / h),
    "an ELBO": (elbo, lambda h: -h / 3 + 1 / h),
    "a product": (
        lambda p, q: -p.log_density(z := q.simulate()) * z.log_density,
        lambda h: -h / 3 * math.log(h) + C / h - h / 6,
    ),
}
"""Objectives of z ~ U(0, h) beside a standard normal model, with E log p = C - h^2 / 6 and log q = -log h, and their derivatives."""


@pytest.mark.parametrize("name", OF_THE_DENSITY)
def test_the_density_of_a_support_that_moves_has_a_derivative(engine, name):
    """E d log q(z) = -1 / h, and not 0: as the support widens, mass is lost from every point of it. Within 4 standard errors."""
    (program, exact), n = OF_THE_DENSITY[name], 600
    with on(engine):
        bound = engine.vi.objective(
            program,
            lambda: ppl.sample("z", dist.Normal(xp.array(0.0), 1.0)),
            lambda: ppl.sample("z", dist.Uniform(xp.array(0.0), ppl.param("h", xp.array(0.8)))),
            strategies={"z": MeasureValued()},
        )
        params = {"h": xp.array(0.8)}
        draws = [float(bound.value_and_grad(engine.key(i), params)[1]["h"]) for i in range(n)]
        assert bound.prove(params).verdict == "proved"
    assert abs(np.mean(draws) - exact(0.8)) < 4 * np.std(draws) / n**0.5 + 1e-5
