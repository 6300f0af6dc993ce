"""Models and guides as the documentation, the examples and the users of NumPyro and Pyro write them: regressions, hierarchies,
mixtures, censoring, time series, Gaussian processes, flows and networks, under the libraries' handlers and autoguides."""

from __future__ import annotations

import numpy as np

import ppvi
from ppvi import objectives
from tests.corpus.programs import LOST, right, wrong
from tests.engines import dist, handlers, infer, nn, ppl, xp

X = np.linspace(-1.5, 1.5, 5).astype(np.float32)
Y = np.array([-1.0, 0.2, 0.1, 0.9, 1.4], np.float32)
COUNTS = np.array([0.0, 2.0, 0.0, 1.0, 4.0], np.float32)
BITS = np.array([0.0, 0.0, 1.0, 1.0, 1.0], np.float32)


def positive(name, value):
    return ppl.param(name, xp.array(value), constraint=dist.constraints.positive)


def mean_field(real=(), above_zero=(), sizes=None):
    """A guide of a Normal for each real site and a LogNormal for each positive one, of these sizes or scalars."""

    def guide():
        for names, family in ((real, dist.Normal), (above_zero, dist.LogNormal)):
            for name in names:
                size = (sizes or {}).get(name)
                start = 0.3 if size is None else np.linspace(-0.2, 0.4, size).astype(np.float32)
                q = family(ppl.param(f"{name}_loc", xp.array(start)), positive(f"{name}_scale", 0.4))
                ppl.sample(name, q if size is None else q.to_event(1))

    return guide


def line(likelihood, data):
    """A regression on a line, of which the mean has this likelihood."""

    def model():
        a, b = ppl.sample("a", dist.Normal(0.0, 2.0)), ppl.sample("b", dist.Normal(0.0, 1.0))
        with ppl.plate("rows", 5):
            ppl.sample("y", likelihood(a + b * xp.asarray(X)), obs=xp.asarray(data))

    return model


SMOOTH = "every density is analytic where its draws are"
LINE = mean_field("ab")

# Regressions ----------------------------------------------------------------------------------------------------------

for _name, _likelihood, _data in (
    ("logistic regression", lambda f: dist.Bernoulli(logits=f), BITS),
    ("probit regression", lambda f: dist.Bernoulli(probs=dist.Normal(0.0, 1.0).cdf(f)), BITS),
    ("Poisson regression", lambda f: dist.Poisson(xp.exp(f)), COUNTS),
    ("Poisson regression by softplus", lambda f: dist.Poisson(nn.softplus(f)), COUNTS),
    ("zero-inflated counts", lambda f: dist.ZeroInflatedPoisson(rate=xp.exp(f), gate=nn.sigmoid(0.3 * f)), COUNTS),
    ("robust regression", lambda f: dist.StudentT(4.0, f, 1.0), Y),
    ("median regression", lambda f: dist.Laplace(f, 1.0), Y),
    ("Beta regression", lambda f: dist.Beta(5.0 * nn.sigmoid(f), 5.0 * nn.sigmoid(-f)), 0.2 + 0.6 * BITS),
    ("Gamma regression", lambda f: dist.Gamma(2.0, 2.0 * xp.exp(-f)), Y + 1.5),
    ("binomial regression", lambda f: dist.Binomial(total_count=5, logits=f), COUNTS),
    ("ordinal regression", lambda f: dist.OrderedLogistic(f, xp.array([-1.0, 0.0, 1.5])), COUNTS.clip(0, 3).astype(int)),
    ("wrapped angles", lambda f: dist.VonMises(f, 2.0), Y),
    ("clamped rate", lambda f: dist.Poisson(xp.clip(xp.exp(f), 1e-6, 1e6)), COUNTS),
):  # fmt: skip
    because = "its kinks are continuous" if _name in ("median regression", "clamped rate") else SMOOTH
    on_pyro = "suspect" if _name == "ordinal regression" else ""  # probabilities that are divided by their sum
    right(_name, objectives.elbo, because, guide=LINE, model=line(_likelihood, _data), on_pyro=on_pyro)
wrong(
    "rate of a threshold", objectives.elbo, LOST, "jump", guide=LINE,
    model=line(lambda f: dist.Poisson(xp.where(f > 0.3, 3.0, 0.5)), COUNTS),
)  # fmt: skip
wrong(
    "rounded mean", objectives.elbo, LOST, "jump", guide=LINE,
    model=line(lambda f: dist.Normal(xp.round(f), 1.0), Y),
)  # fmt: skip


def with_noise(likelihood):
    def model():
        a, s = ppl.sample("a", dist.Normal(0.0, 2.0)), ppl.sample("s", dist.HalfCauchy(1.0))
        likelihood(a + xp.asarray(X), s)

    return model


NOISY = mean_field("a", "s")


def censored(mean, scale):
    """Rows that end the study alive count by their survival."""
    seen = xp.asarray(BITS) > 0
    z = (xp.asarray(Y) - mean) / scale
    ppl.factor("y", xp.sum(xp.where(seen, -0.5 * z**2 - xp.log(scale), nn.log_ndtr(-z))))


def censored_by_masks(mean, scale):
    seen = xp.asarray(BITS) > 0
    with ppl.plate("rows", 5):
        with handlers.mask(mask=seen):
            ppl.sample("y", dist.Normal(mean, scale), obs=xp.asarray(Y))
        with handlers.mask(mask=~seen):
            above = 1.0 - dist.Normal(mean, scale).cdf(xp.asarray(Y))
            ppl.sample("late", dist.Bernoulli(probs=above), obs=xp.ones(5))


def weibull(mean, shape):
    """Log density of those that die, log survival of the others."""
    hazard = (xp.asarray(Y + 2.0) / xp.exp(mean)) ** shape
    dies = xp.asarray(BITS) * (xp.log(shape) - shape * mean + (shape - 1.0) * xp.log(xp.asarray(Y + 2.0)))
    ppl.factor("y", xp.sum(dies - hazard))


def tobit(mean, scale):
    """What is seen is the latent value or 0."""
    z = (xp.asarray(np.maximum(Y, 0.0)) - mean) / scale
    at_zero = nn.log_ndtr(-mean / scale)
    ppl.factor("y", xp.sum(xp.where(xp.asarray(Y) > 0, -0.5 * z**2 - xp.log(scale), at_zero)))


def hurdle(mean, shape):
    """Whether there is any; and how many, of a Poisson that is never 0."""
    counts, rate = xp.asarray(COUNTS), xp.exp(mean)
    some = counts * mean - rate - xp.log(-xp.expm1(-rate))
    ppl.factor("y", xp.sum(xp.where(counts == 0, xp.log(nn.sigmoid(-shape)), xp.log(nn.sigmoid(shape)) + some)))


def heteroscedastic(mean, scale):
    with ppl.plate("rows", 5):
        ppl.sample("y", dist.Normal(mean, nn.softplus(mean) + scale), obs=xp.asarray(Y))


def missing(mean, scale):
    """Rows without a number, which count for nothing."""
    data = xp.asarray(np.where(BITS > 0, Y, np.nan).astype(np.float32))
    seen = ~xp.isnan(data)
    log_prob = dist.Normal(mean, scale).log_prob(xp.where(seen, data, 0.0))
    ppl.factor("y", xp.sum(xp.where(seen, log_prob, 0.0)))


def interval(mean, scale):
    """Seen to the next whole number."""
    low, high = (dist.Normal(mean, scale).cdf(xp.asarray(np.floor(Y) + i)) for i in (0.0, 1.0))
    ppl.factor("y", xp.sum(xp.log(high - low + 1e-8)))


for _f in (censored, censored_by_masks, weibull, tobit, hurdle, heteroscedastic, missing):
    right(_f.__name__.replace("_", " "), objectives.elbo, SMOOTH, guide=NOISY, model=with_noise(_f))
right(
    "interval", objectives.elbo, "a distribution function is increasing, so that the logarithm has a positive argument",
    guide=NOISY, model=with_noise(interval), verdict="suspect",
)  # fmt: skip


def tobit_of_a_draw(mean, scale):
    """The mistake: the mean, and no datum, decides on which side the row is."""
    z = xp.asarray(Y) - mean
    ppl.factor("y", xp.sum(xp.where(mean > 0, -0.5 * (z / scale) ** 2 - xp.log(scale), nn.log_ndtr(-mean / scale))))


def outliers_cut(mean, scale):
    """Rows that are far from the mean are left out."""
    z = (xp.asarray(Y) - mean) / scale
    ppl.factor("y", xp.sum(xp.where(abs(z) < 1.0, -0.5 * z**2 - xp.log(scale), 0.0)))


def outliers_winsorised(mean, scale):
    z = (xp.asarray(Y) - mean) / scale
    ppl.factor("y", xp.sum(-0.5 * xp.clip(z, -2.0, 2.0) ** 2 - xp.log(scale)))


wrong("censored where the mean is", objectives.elbo, LOST, "jump", guide=NOISY, model=with_noise(tobit_of_a_draw))
wrong("outliers left out", objectives.elbo, LOST, "jump", guide=NOISY, model=with_noise(outliers_cut))
right(
    "outliers winsorised", objectives.elbo, "a clip is continuous", guide=NOISY, model=with_noise(outliers_winsorised)
)

# Hierarchies ----------------------------------------------------------------------------------------------------------


def schools():
    mu, tau = ppl.sample("mu", dist.Normal(0.0, 5.0)), ppl.sample("tau", dist.HalfCauchy(5.0))
    with ppl.plate("schools", 5):
        theta = ppl.sample("theta", dist.Normal(mu, tau))
        ppl.sample("y", dist.Normal(theta, 1.5), obs=xp.asarray(Y))


def of_schools(name):
    def guide():
        mean_field(("mu",), ("tau",))()
        with ppl.plate("schools", 5):
            ppl.sample(name, dist.Normal(ppl.param("t", xp.asarray(Y)), positive("s", 0.5)))

    return guide


def decentered():
    with handlers.reparam(config={"theta": infer.reparam.LocScaleReparam(0.0)}):
        schools()


right("eight schools", objectives.elbo, SMOOTH, guide=of_schools("theta"), model=schools)
right("eight schools, decentred", objectives.elbo, SMOOTH, guide=of_schools("theta_decentered"), model=decentered)
for _guide in ("AutoLowRankMultivariateNormal", "AutoDiagonalNormal", "AutoDelta"):
    right(f"eight schools, {_guide}", objectives.elbo, SMOOTH, guide=_guide, model=schools)


def funnel():
    y = ppl.sample("y", dist.Normal(0.0, 3.0))
    ppl.sample("x", dist.Normal(xp.zeros(2), xp.exp(y / 2)).to_event(1))


def horseshoe():
    tau, b = ppl.sample("tau", dist.HalfCauchy(1.0)), []
    for i in range(2):
        shrunk = ppl.sample(f"lambda{i}", dist.HalfCauchy(1.0))
        b.append(ppl.sample(f"b{i}", dist.Normal(0.0, tau * shrunk)))
    with ppl.plate("rows", 5):
        ppl.sample("y", dist.Normal(b[0] + b[1] * xp.asarray(X), 1.0), obs=xp.asarray(Y))


def scaled_by_hand():
    """The scale of the noise is the magnitude of a draw, and a small number."""
    s = abs(ppl.sample("a", dist.Normal(0.0, 1.0))) + 0.1
    with ppl.plate("rows", 5):
        ppl.sample("y", dist.Normal(0.0, s), obs=xp.asarray(Y))


def annealed():
    with handlers.scale(scale=0.3):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
    with ppl.plate("rows", 5):
        ppl.sample("y", dist.Normal(a, 1.0), obs=xp.asarray(Y))


def conditioned():
    handlers.condition(line(lambda f: dist.Normal(f, 1.0), Y), data={"b": xp.array(0.5)})()


def imputed():
    """Entries that are missing are sites of their own, put into the array."""
    z = ppl.sample("z", dist.Normal(xp.zeros(2), 1.0).to_event(1))
    whole = xp.concatenate([xp.asarray(Y[:3]), z])
    with ppl.plate("rows", 5):
        ppl.sample("y", dist.Normal(whole * 0.5, 1.0), obs=xp.asarray(X))


def items():
    """Item response: how able two persons are, and how hard three items."""
    able = ppl.sample("able", dist.Normal(xp.zeros(2), 1.0).to_event(1))
    hard = ppl.sample("hard", dist.Normal(xp.zeros(3), 2.0).to_event(1))
    logits = able[:, None] - hard[None, :]
    ppl.sample("y", dist.Bernoulli(logits=logits).to_event(2), obs=xp.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]))


right("funnel", objectives.elbo, SMOOTH, guide=mean_field("yx", sizes={"x": 2}), model=funnel)
right(
    "horseshoe", objectives.elbo, SMOOTH, guide=mean_field(("b0", "b1"), ("tau", "lambda0", "lambda1")), model=horseshoe
)
right(
    "magnitude for a scale", objectives.elbo, "a magnitude is continuous", guide=mean_field("a"), model=scaled_by_hand
)
right("annealed prior", objectives.elbo, "a number times a density", guide=mean_field("a"), model=annealed)
right("condition", objectives.elbo, SMOOTH, guide=mean_field("a"), model=conditioned)
right("imputed entries", objectives.elbo, SMOOTH, guide=mean_field("z", sizes={"z": 2}), model=imputed)
right(
    "item response",
    objectives.elbo,
    SMOOTH,
    guide=mean_field(("able", "hard"), sizes={"able": 2, "hard": 3}),
    model=items,
)

# Mixtures, and what is counted out ------------------------------------------------------------------------------------


def mixture(component):
    def model():
        m = ppl.sample("m", dist.Normal(xp.array([-1.0, 1.0]), 1.0).to_event(1))
        component(m)

    return model


def assigned(m):
    with ppl.plate("rows", 5):
        k = ppl.sample("k", dist.Categorical(probs=xp.array([0.4, 0.6])), infer={"enumerate": "parallel"})
        ppl.sample("y", dist.Normal(m[k], 1.0), obs=xp.asarray(Y))


def summed_out(m):
    parts = dist.MixtureSameFamily(dist.Categorical(probs=xp.array([0.4, 0.6])), dist.Normal(m, 1.0))
    with ppl.plate("rows", 5):
        ppl.sample("y", parts, obs=xp.asarray(Y))


def by_log_sum_exp(m):
    log_probs = dist.Normal(m, 1.0).log_prob(xp.asarray(Y)[:, None]) + xp.log(xp.array([0.4, 0.6]))
    ppl.factor("y", xp.sum(nn.logsumexp(log_probs, -1)))


def in_order(m):
    """Components that are sorted, that they may be told apart."""
    summed_out(xp.sort(m))


def nearest(m):
    square = (xp.asarray(Y) - m[0]) ** 2, (xp.asarray(Y) - m[1]) ** 2
    return xp.minimum(*square)


def swapped(m):
    """Each row is weighed by whether it is nearer to the first."""
    y = xp.asarray(Y)
    first = (y - m[0]) ** 2 < (y - m[1]) ** 2
    ppl.factor("y", xp.sum(xp.where(first, -((y - m[0]) ** 2) - 1.0, -((y - m[1]) ** 2))))


def with_assignments():
    mean_field("m", sizes={"m": 2})()
    with ppl.plate("rows", 5):
        ppl.sample("k", dist.Categorical(logits=ppl.param("l", xp.zeros((5, 2)))), infer={"enumerate": "parallel"})


COMPONENTS = mean_field("m", sizes={"m": 2})
right(
    "assigned components",
    objectives.elbo,
    "assignments are summed over",
    guide=with_assignments,
    model=mixture(assigned),
)
right(
    "components by leave-one-out", objectives.elbo, "by the score", guide=with_assignments, model=mixture(assigned),
    strategies={"k": ppvi.LeaveOneOut(2)},
)  # fmt: skip
right("components summed out", objectives.elbo, SMOOTH, guide=COMPONENTS, model=mixture(summed_out))
right("components by log-sum-exp", objectives.elbo, SMOOTH, guide=COMPONENTS, model=mixture(by_log_sum_exp))
right("sorted components", objectives.elbo, "values in order are continuous", guide=COMPONENTS, model=mixture(in_order))
right(
    "k-means",
    objectives.elbo,
    "a least distance is continuous",
    guide=COMPONENTS,
    model=mixture(lambda m: ppl.factor("y", -xp.sum(nearest(m)))),
)
wrong("k-means with a penalty", objectives.elbo, LOST, "jump", guide=COMPONENTS, model=mixture(swapped))


def switch_point(rate):
    """Counts, of which the rate changes at a time."""

    def model():
        t = ppl.sample("t", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Poisson(rate(xp.asarray(X) - t)).to_event(1), obs=xp.asarray(COUNTS))

    return model


def of_all_times():
    t = ppl.sample("t", dist.Categorical(probs=xp.ones(5) / 5))
    rates = xp.where(xp.arange(5) < t[..., None], 0.5, 3.0)
    ppl.sample("y", dist.Poisson(rates).to_event(1), obs=xp.asarray(COUNTS))


def any_time():
    ppl.sample("t", dist.Categorical(logits=ppl.param("l", xp.zeros(5))))


def by_where(x):
    return xp.where(x < 0, 0.5, 3.0)


wrong("switch point", objectives.elbo, LOST, "jump", guide=mean_field("t"), model=switch_point(by_where))
right(
    "switch point by score",
    objectives.elbo,
    "by the score",
    guide=mean_field("t"),
    model=switch_point(by_where),
    strategies={"t": ppvi.Reinforce()},
)
right(
    "soft switch point",
    objectives.elbo,
    SMOOTH,
    guide=mean_field("t"),
    model=switch_point(lambda x: 0.5 + 2.5 * nn.sigmoid(5.0 * x)),
)
right(
    "broken line",
    objectives.elbo,
    "the line bends, and does not break",
    guide=mean_field("t"),
    model=switch_point(lambda x: 0.5 + nn.relu(x)),
)
right("switch point among rows", objectives.elbo, "every time is summed over", guide=any_time, model=of_all_times)
