"""Decisions, losses and tricks of the trade: risks that bend and risks that jump, orders and counts, relaxations, safe quotients,
scores that are held constant, and the sampler's own transforms."""

from __future__ import annotations

import ppvi
from tests.corpus.models import SMOOTH, positive
from tests.corpus.programs import CONTINUOUS, LOST, of, right, wrong
from tests.engines import dist, nn, ppl, xp


def triple():
    ppl.sample("z", dist.Normal(ppl.param("loc", xp.array([0.3, -0.4, 0.2])), 1.0).to_event(1))


def entries(f):
    return lambda p, q: (lambda z: f(z[0], z[1], z[2]))(q.simulate()["z"])


def weights():
    return xp.array([1.0, 3.0, 7.0])


# Losses ---------------------------------------------------------------------------------------------------------------

for _name, _f in (
    ("hinge", lambda z: nn.relu(1.0 - z)),
    ("squared hinge", lambda z: nn.relu(1.0 - z) ** 2),
    ("quantile", lambda z: xp.where(z < 0.5, 0.1 * (0.5 - z), 0.9 * (z - 0.5))),
    ("quantile by maximum", lambda z: xp.maximum(0.9 * (0.5 - z), 0.1 * (z - 0.5))),
    ("newsvendor", lambda z: 3.0 * xp.minimum(z, 1.0) - z),
    ("call option", lambda z: nn.relu(xp.exp(z) - 1.2)),
    ("dead zone", lambda z: nn.relu(abs(z - 0.2) - 0.5)),
    ("Tukey's biweight", lambda z: xp.where(abs(z) < 1.0, 1.0 - (1.0 - z**2) ** 3, 1.0)),
    ("expected improvement", lambda z: xp.maximum(z - 0.4, 0.0)),
    ("absolute percentage", lambda z: abs(z - 0.5) / 0.5),
    ("log-cosh", lambda z: z + nn.softplus(-2.0 * z)),
    ("focal", lambda z: (1.0 - nn.sigmoid(z)) ** 2 * nn.softplus(-z)),
):  # fmt: skip
    right(f"{_name} loss", of(_f), CONTINUOUS)
for _name, _f in (
    ("0/1", lambda z: xp.where(z > 0, 0.0, 1.0)),
    ("digital option", lambda z: xp.where(xp.exp(z) > 1.2, 1.0, 0.0)),
    ("barrier option", lambda z: xp.where(z > 0.8, 0.0, nn.relu(z + 0.5))),
    ("truncated", lambda z: xp.where(abs(z) < 1.0, z**2, 0.0)),
    ("tax by brackets", lambda z: xp.where(z < 0.0, 0.1 * z, 0.3 * z - 0.2)),
    ("hysteresis", lambda z: xp.sign(z - 0.4) * 0.5 + z),
    ("fixed cost", lambda z: nn.relu(z) + xp.where(z > 0.0, 0.7, 0.0)),
    ("exceedance", lambda z: xp.heaviside(z - 0.5, 0.5)),
    ("whole lots", lambda z: 0.25 * xp.ceil(4.0 * z)),
):  # fmt: skip
    wrong(f"{_name} loss", of(_f), LOST, "jump")

# Choices and orders ---------------------------------------------------------------------------------------------------


def second_best(z):
    return xp.sort(z)[1]


def simplex_by_bisection(z):
    """The projection onto the simplex, by rounds that halve an interval."""
    low, high = xp.max(z) - 1.0, xp.max(z)
    for _ in range(3):
        middle = (low + high) / 2
        short = xp.sum(nn.relu(z - middle)) < 1.0
        low, high = xp.where(short, low, middle), xp.where(short, middle, high)
    return nn.relu(z - low)[0]


def regret(z):
    """What is lost by taking what looked best under another draw."""
    chosen = xp.argmax(z)
    return xp.max(z * weights()) - (z * weights())[chosen]


def soft_rank(z):
    return xp.sum(nn.sigmoid(z[:, None] - z[None, :]), 0) @ weights()


def trimmed(z):
    return xp.sort(z)[1:2][0]


def gated(z):
    return xp.sum(nn.softmax(z) * z)


def top_two(z):
    return xp.sum(xp.sort(z)[1:])


def weighed_by_rank(z):
    return xp.sort(z) @ weights()


def kendall(z):
    return xp.sum(xp.sign(z[:, None] - z[None, :]) * (weights()[:, None] - weights()))


def above_mean(z):
    return xp.sum(xp.where(z > xp.mean(z), z + 2.0, 0.0))


def share_above(z):
    return xp.mean(xp.where(z > 0.1, 1.0, 0.0))


def nucleus(z):
    """Probabilities below a threshold are dropped, and the rest scaled up."""
    p = nn.softmax(z)
    kept = xp.where(p > 0.25, p, 0.0)
    return (kept / xp.sum(kept)) @ weights()


def mixture_of_experts(z):
    """One expert, by the greatest gate."""
    best = xp.where(z == xp.max(z), 1.0, 0.0)
    return (best * nn.softmax(z)) @ weights()


def lexicographic(x, y, w):
    return xp.where(x > y, w, 2.0 * w + 1.0)


def tournament(x, y, w):
    return xp.maximum(xp.maximum(x, y), w)


def cross_over(x, y, w):
    return xp.where(x > y, x * w, y * w)


def clipped_ratio(x, y, w):
    """The surrogate of proximal policies."""
    ratio = xp.exp(x - y)
    return xp.minimum(ratio * w, xp.clip(ratio, 0.8, 1.2) * w)


for _f in (second_best, trimmed, top_two, weighed_by_rank):
    right(_f.__name__.replace("_", " "), of(_f), "values in order are continuous", guide=triple)
for _f in (soft_rank, gated):
    right(_f.__name__.replace("_", " "), of(_f), SMOOTH, guide=triple)
for _f in (tournament, cross_over, clipped_ratio):
    right(_f.__name__.replace("_", " "), entries(_f), CONTINUOUS, guide=triple)
wrong(
    "projection by bisection",
    of(simplex_by_bisection),
    "after few rounds it goes by steps",
    "jump",
    guide=triple,
    on_pyro="suspect",
)
for _f in (kendall, share_above):
    wrong(_f.__name__.replace("_", " "), of(_f), LOST, "jump", guide=triple)
for _f in (above_mean, nucleus, regret, mixture_of_experts):
    wrong(_f.__name__.replace("_", " "), of(_f), LOST, "jump", guide=triple, verdict="suspect")
wrong("lexicographic", entries(lexicographic), LOST, "jump", guide=triple)

# Relaxations ----------------------------------------------------------------------------------------------------------


def gumbels():
    ppl.sample("z", dist.Gumbel(ppl.param("loc", xp.array([0.3, -0.4, 0.2])), 1.0).to_event(1))


def logistic():
    u = ppl.sample("z", dist.Uniform(0.0, 1.0))
    return nn.sigmoid((xp.log(u) - xp.log(1.0 - u) + ppl.param("l", 0.3)) / 0.5)


def by_returned(f):
    return lambda p, q: f(q.simulate().returned)


right("Gumbel softmax", of(lambda z: nn.softmax(z / 0.5) @ weights()), "the relaxed objective is smooth", guide=gumbels)
right("concrete", by_returned(lambda b: (b - 0.4) ** 2), "the relaxed objective is smooth", guide=logistic)
right("hard concrete", by_returned(lambda b: xp.clip(1.2 * b - 0.1, 0.0, 1.0)), CONTINUOUS, guide=logistic)
wrong("thresholded concrete", by_returned(lambda b: xp.where(b > 0.5, 1.0, 0.0)), LOST, "jump", guide=logistic)
wrong(
    "Gumbel's greatest", of(lambda z: xp.where(z == xp.max(z), weights(), 0.0)), LOST, "jump", guide=gumbels,
    verdict="suspect",
)  # fmt: skip
wrong(
    "straight through a softmax",
    of(lambda z: (lambda soft, hard: soft + ppvi.stop_gradient(hard - soft))(nn.softmax(z), xp.where(z == xp.max(z), 1.0, 0.0)) @ weights()),
    LOST, "held constant", guide=gumbels, verdict="suspect",
)  # fmt: skip
wrong(
    "straight through a rounding", of(lambda z: (z + ppvi.stop_gradient(3.0 * xp.round(z / 3.0) - z)) ** 2), LOST, "held constant",
)  # fmt: skip
wrong(
    "a codebook", of(lambda z: (lambda near: (z + ppvi.stop_gradient(near - z)) ** 2)(xp.where(abs(z - 1.0) < abs(z + 1.0), 1.0, -1.0))),
    LOST, "held constant", verdict="suspect",
)  # fmt: skip

# Safe functions -------------------------------------------------------------------------------------------------------


def safe_sinc(z):
    near = abs(z) < 1e-3
    return xp.where(near, 1.0 - z**2 / 6.0, xp.sin(z) / xp.where(near, 1.0, z))


def own_softplus(z):
    return xp.where(z > 20.0, z, xp.log1p(xp.exp(xp.minimum(z, 20.0))))


def own_log_sigmoid(z):
    return -(xp.maximum(-z, 0.0) + xp.log1p(xp.exp(-abs(z))))


def own_log1mexp(z):
    x = nn.softplus(z)
    return xp.where(x < 0.7, xp.log(xp.expm1(x)) - x, xp.log1p(-xp.exp(-x)))


def box_cox(z):
    """Of a power that is learned, with its limit at 0."""
    return xp.where(z == 0, 0.3, xp.expm1(0.3 * z) / xp.where(z == 0, 1.0, z))


def safe_normalised(z):
    return (z / (xp.linalg.norm(z) + 1.0))[0]


def unsafe_normalised(z):
    return (z / xp.linalg.norm(z))[0]


def spherical(z):
    return z[0] ** 2 / xp.sum(z * z)


def cosine(z):
    return z @ weights() / xp.maximum(xp.linalg.norm(z), 1e-8)


def log_of_clipped(z):
    return xp.log(xp.clip(z, 0.1, 1e6))


def root_of_relu(z):
    return xp.sqrt(nn.relu(z) + 1e-3)


def entropy(z):
    p = nn.softmax(z)
    return -xp.sum(p * xp.log(p + 1e-8))


def inverse_square(z):
    return 1.0 / (1e-3 + z * z)


def log_cosh_by_where(z):
    return xp.where(abs(z) > 10.0, abs(z) - 0.6931472, xp.log(xp.cosh(xp.clip(z, -10.0, 10.0))))


def or_zero(z):
    """A ratio, or zero where there is nothing to divide by: as it is not near there."""
    return xp.where(abs(z) > 0.1, 1.0 / xp.where(abs(z) > 0.1, z, 1.0), 0.0)


def or_floor(z):
    return xp.where(z > 0.1, xp.log(xp.where(z > 0.1, z, 1.0)), -10.0)


for _f in (own_softplus, own_log_sigmoid, own_log1mexp, log_of_clipped, root_of_relu, inverse_square, safe_sinc, log_cosh_by_where, box_cox):  # fmt: skip
    right(_f.__name__.replace("_", " "), of(_f), "its formulas agree where it goes from one to the other")
for _f in (safe_normalised, cosine, entropy):
    right(_f.__name__.replace("_", " "), of(_f), "its divisor is kept away from zero", guide=triple)
for _f in (unsafe_normalised, spherical):
    right(
        _f.__name__.replace("_", " "), of(_f), "it is continuous but at one point of three dimensions", guide=triple,
        verdict="suspect",
    )  # fmt: skip
for _f in (or_zero, or_floor):
    wrong(_f.__name__.replace("_", " "), of(_f), LOST, "jump")

# What is held constant ------------------------------------------------------------------------------------------------


def advantage(p, q):
    """A reward less its own value, held constant: the mean is zero, and the gradient of it is not."""
    z = q.simulate()["z"]
    return (z**2 - ppvi.stop_gradient(z**2)) * 1.0


def own_reinforce(p, q):
    """The score function by hand beside a pathwise draw, that is counted twice."""
    z = q.simulate()
    return z["z"] ** 2 + ppvi.stop_gradient(z["z"] ** 2) * (z.log_density - ppvi.stop_gradient(z.log_density))


def bootstrapped(p, q):
    """Temporal differences: the target is held constant."""
    z = q.simulate()["z"]

    def value(s):
        return xp.tanh(ppl.param("v", 0.4) * s)

    return (z + 0.9 * ppvi.stop_gradient(value(z + 1.0)) - value(z)) ** 2


def held_statistics(z):
    """Batch normalisation with statistics that are held constant."""
    mean = ppvi.stop_gradient(xp.mean(z))
    scale = ppvi.stop_gradient(xp.sqrt(xp.mean((z - mean) ** 2) + 1e-5))
    return (((z - mean) / scale) ** 2)[0]


def own_statistics(z):
    mean = xp.mean(z)
    return (((z - mean) / xp.sqrt(xp.mean((z - mean) ** 2) + 1e-5)) ** 2)[0]


def centred_weights(z):
    """Weights whose greatest exponent is taken away, and not given back."""
    return xp.sum(xp.exp(z - ppvi.stop_gradient(xp.max(z))) * weights())


def self_normalised(z):
    """The same, where it cancels."""
    w = xp.exp(z - ppvi.stop_gradient(xp.max(z)))
    return xp.sum(w * weights()) / xp.sum(w)


wrong("advantage of itself", advantage, "the gradient leaves half of nothing out", "held constant")
wrong("the score by hand, twice", own_reinforce, "a gradient is counted twice", None, verdict="suspect")
wrong("bootstrapped target", bootstrapped, "the target moves with the parameter", "held constant", verdict="suspect")
wrong(
    "held statistics",
    of(held_statistics),
    "the statistics move with the draws",
    "held constant",
    guide=triple,
    verdict="suspect",
)
right("own statistics", of(own_statistics), SMOOTH, guide=triple)
wrong("centred weights", of(centred_weights), "the maximum is not given back", "held constant", guide=triple)
right("self-normalised weights", of(self_normalised), "the maximum cancels", guide=triple)

# Transforms by hand ---------------------------------------------------------------------------------------------------


def flow(f, log_slope):
    """An ELBO of a standard Normal's draw through a learned function, with the slope's logarithm by hand."""

    def objective(p, q):
        u = q.simulate()["z"]
        return -0.5 * (f(u) - 1.0) ** 2 + xp.sum(log_slope(u))

    return objective


def standard():
    ppl.sample("z", dist.Normal(0.0, 1.0))


def at(u):
    return ppl.param("loc", 0.3) + positive("scale", 0.8) * u


def leaky(u):
    return xp.where(at(u) > 0, at(u), 0.2 * at(u))


def log_slope_of_leaky(u):
    return xp.log(positive("scale", 0.8)) + xp.where(at(u) > 0, 0.0, xp.log(xp.asarray(0.2)))


def sinh_arcsinh(u):
    return xp.sinh(xp.arcsinh(at(u)) * 0.8)


def log_slope_of_sinh(u):
    x = at(u)
    return xp.log(positive("scale", 0.8)) + xp.log(0.8 * xp.cosh(0.8 * xp.arcsinh(x))) - 0.5 * xp.log(1 + x * x)


def planar(u):
    return at(u) + 0.5 * xp.tanh(at(u))


def log_slope_of_planar(u):
    return xp.log(positive("scale", 0.8)) + xp.log(1.0 + 0.5 * (1.0 - xp.tanh(at(u)) ** 2))


wrong("leaky flow", flow(leaky, log_slope_of_leaky), "the slope of a bent transform jumps", "jump", guide=standard)
right("flow of sinh and arcsinh", flow(sinh_arcsinh, log_slope_of_sinh), SMOOTH, guide=standard)
right("planar flow", flow(planar, log_slope_of_planar), SMOOTH, guide=standard)
