"""What densities and their supports decide: parameters that a site holds constant, supports that move behind a transform, values
that are observed or changed before their density is taken."""

from __future__ import annotations

from jax import lax

import ppvi
from ppvi import objectives
from tests.corpus.programs import ABSENT, bit, of, right, wrong
from tests.engines import dist, nn, ppl, xp

# Held constant in a site's own parameters ------------------------------------------------------------------------------------


def location():
    return 2 * ppvi.stop_gradient(ppl.param("m", 0.5)) + ppl.param("c", 0.1)


def held_normal():
    ppl.sample("z", dist.Normal(location(), 1.0))


def held_bit():
    ppl.sample("z", dist.Bernoulli(logits=location()))


LEFT_OUT = "the density moves with the parameter, and its derivative leaves that out"
for _strategy in (ppvi.Reinforce(), ppvi.LeaveOneOut(2), ppvi.MeasureValued()):
    wrong(
        f"held in a Normal, {_strategy}", of(lambda z: 1.0 * z**2), LEFT_OUT, "held constant", guide=held_normal,
        strategies={"z": _strategy}, verdict="suspect",
    )  # fmt: skip
for _strategy in (ppvi.Reinforce(), ppvi.Enumerate(), ppvi.LocalExpectation()):
    wrong(
        f"held in a Bernoulli, {_strategy}", of(lambda z: 1.0 * z), LEFT_OUT, "held constant", guide=held_bit,
        strategies={"z": _strategy}, verdict="suspect",
    )  # fmt: skip
right(
    "bit by score",
    of(lambda b: 2.0 * b, "b"),
    "nothing is held constant",
    guide=bit,
    strategies={"b": ppvi.Reinforce()},
)

# Values that are observed, or changed before their density is taken ------------------------------------------------------------


def model_of(distribution):
    return lambda: ppl.sample("z", distribution())


def observing(distribution, value=lambda z: z):
    """A site that is observed at a function of a draw."""

    def model():
        ppl.sample("x", distribution(), obs=value(ppl.sample("z", dist.Normal(0.0, 1.0))))

    return model


def changed(f, log_slope=lambda z: 0.0):
    """The ELBO of a guide whose choice is f(z), with the logarithm of |f'|."""

    def objective(p, q):
        z = q.simulate()
        return p.log_density({"z": f(z["z"])}) + log_slope(z["z"]) - z.log_density

    return objective


def shifted(p, q):
    """Its mean is P(z < 1 - a / 2)."""
    return xp.exp(p.log_density({"z": q.simulate()["z"] + ppl.param("a", 0.8) / 2}))


def learned_beta():
    ppl.sample("z", dist.Beta(1.0 + ppl.param("a", 0.8), 2.0))


def density(p, q):
    return xp.exp(p.log_density(q.simulate()))


CUT_OFF = "the likelihood is zero where the draw is outside of its support"
INSIDE = "the value is inside of the support wherever the draw is"
wrong("observed at a draw", density, CUT_OFF, "support", model=observing(lambda: dist.Exponential(1.0)))
wrong(
    "observed at a function of a draw", density, CUT_OFF, "support", verdict="suspect",
    model=observing(lambda: dist.Exponential(1.0), lambda z: 2.0 * z + 1.0),
)  # fmt: skip
wrong(
    "observed at some draws", density, CUT_OFF, "support", verdict="suspect",
    model=observing(lambda: dist.Exponential(1.0), lambda z: xp.where(z > -1.0, z, -1.0)),
)  # fmt: skip
right(
    "observed at a positive function",
    density,
    INSIDE,
    model=observing(lambda: dist.Exponential(1.0), lambda z: xp.exp(z)),
)
right(
    "observed at a draw on the line", density, INSIDE, model=observing(lambda: dist.Normal(0.5, 1.0), lambda z: 2.0 * z)
)
right(
    "observed at a clamped draw", density, "a clamp is continuous, and inside of the support",
    model=observing(lambda: dist.Exponential(1.0), lambda z: lax.clamp(0.1, z, 5.0)), not_on_pyro=ABSENT,
)  # fmt: skip
wrong("shifted Beta", shifted, CUT_OFF, "support", verdict="suspect", model=model_of(lambda: dist.Uniform(0.0, 1.0)), guide=learned_beta)  # fmt: skip
wrong("negative Gamma", changed(lambda z: -z), CUT_OFF, "support", verdict="suspect", model=model_of(lambda: dist.Gamma(2.0, 1.0)), guide=learned_beta)  # fmt: skip
right(
    "exponential of a draw in a Gamma",
    changed(lambda z: xp.exp(z), lambda z: z),
    INSIDE,
    model=model_of(lambda: dist.Gamma(2.0, 1.0)),
)
right(
    "sigmoid of a draw in a Beta",
    changed(lambda z: nn.sigmoid(z), lambda z: xp.log(nn.sigmoid(z)) + xp.log(nn.sigmoid(-z))),
    INSIDE,
    model=model_of(lambda: dist.Beta(2.0, 1.0)),
)


def point_of(f):
    """A guide whose site is a point that is made of a draw."""

    def guide():
        u = ppl.sample("u", dist.Normal(ppl.param("loc", 0.3), 1.0), infer={"is_auxiliary": True})
        ppl.sample("z", dist.Delta(f(u)))

    return guide


def at_point(p, q):
    return xp.exp(p.log_density({"z": q.simulate()["z"]}))


def up_to_b():
    ppl.sample("z", dist.Uniform(0.0, ppl.param("b", 2.0)))


wrong(
    "point at a draw",
    at_point,
    CUT_OFF,
    "support",
    model=model_of(lambda: dist.Exponential(1.0)),
    guide=point_of(lambda u: u),
)
wrong("point at twice a draw", at_point, CUT_OFF, "support", verdict="suspect", model=model_of(lambda: dist.Exponential(1.0)), guide=point_of(lambda u: 2.0 * u))  # fmt: skip
right(
    "point at the exponential of a draw",
    at_point,
    INSIDE,
    model=model_of(lambda: dist.Gamma(2.0, 1.0)),
    guide=point_of(lambda u: xp.exp(u)),
)
right(
    "bound that moves with the draw", objectives.elbo, "the ratio of a distribution to itself is 1", verdict="suspect",
    model=up_to_b, guide=up_to_b, strategies={"z": ppvi.Reparam()},
)  # fmt: skip
