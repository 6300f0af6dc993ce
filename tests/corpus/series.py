"""Time series, Gaussian processes, flows and differential equations: loops of the frameworks with sites in them or without, and
what is made of matrices, spectra and second derivatives."""

from __future__ import annotations

import jax
import numpy as np
from jax import lax
from numpyro.contrib.control_flow import scan

import ppvi
from ppvi import objectives
from tests.corpus.models import COUNTS, SMOOTH, X, Y, mean_field, positive
from tests.corpus.programs import CONTINUOUS, LOOPS, LOST, RULES, of, pair, right, wrong
from tests.engines import dist, handlers, nn, ppl, xp

# Sites in loops -------------------------------------------------------------------------------------------------------


def chain(step, start=0.0, data=Y):
    """A model that scans over data."""
    return lambda: scan(step, start, xp.asarray(data))


def chain_guide(family=dist.Normal):
    """A guide of one factor for each round."""

    def guide():
        rows = ppl.param("loc", xp.asarray(Y) * 0.5), positive("scale", np.full(5, 0.4, np.float32))
        scan(lambda carry, row: (ppl.sample("z", family(*row)), None), 0.0, rows)

    return guide


def local_level(before, y):
    z = ppl.sample("z", dist.Normal(0.9 * before, 0.5))
    ppl.sample("y", dist.Normal(z, 1.0), obs=y)
    return z, z


def volatility(before, y):
    z = ppl.sample("z", dist.Normal(0.9 * before, 0.5))
    ppl.sample("y", dist.StudentT(5.0, 0.0, xp.exp(z / 2)), obs=y)
    return z, None


def thinned(before, y):
    z = ppl.sample("z", dist.Normal(nn.relu(before), 0.5))
    ppl.sample("y", dist.Poisson(nn.softplus(z)), obs=y)
    return z, None


def in_regimes(before, y):
    """A threshold autoregression."""
    z = ppl.sample("z", dist.Normal(xp.where(before > 0, 0.9 * before, -0.5 * before + 0.3), 0.5))
    ppl.sample("y", dist.Normal(z, 1.0), obs=y)
    return z, None


def alarmed(before, y):
    z = ppl.sample("z", dist.Normal(0.9 * before, 0.5))
    ppl.sample("y", dist.Normal(xp.where(z > 0.5, 1.0, 0.0), 1.0), obs=y)
    return z, None


def growing(before, y):
    """Positive states, whose ratio counts."""
    z = ppl.sample("z", dist.LogNormal(xp.log(before), 0.5))
    ppl.sample("y", dist.Normal(z / before - 1.0, 1.0), obs=y)
    return z, None


IN_LOOP = {"not_on_pyro": LOOPS}
right("local level", objectives.elbo, SMOOTH, guide=chain_guide(), model=chain(local_level), **IN_LOOP)
right("stochastic volatility", objectives.elbo, SMOOTH, guide=chain_guide(), model=chain(volatility), **IN_LOOP)
right(
    "counts of a bent state",
    objectives.elbo,
    CONTINUOUS,
    guide=chain_guide(),
    model=chain(thinned, data=COUNTS),
    **IN_LOOP,
)
right(
    "growth rates",
    objectives.elbo,
    SMOOTH,
    guide=chain_guide(dist.LogNormal),
    model=chain(growing, start=1.0),
    **IN_LOOP,
)
wrong(
    "threshold autoregression", objectives.elbo, LOST, "jump", guide=chain_guide(), model=chain(in_regimes), **IN_LOOP
)
wrong("alarm in a loop", objectives.elbo, LOST, "jump", guide=chain_guide(), model=chain(alarmed), **IN_LOOP)
right(
    "threshold autoregression by score", objectives.elbo, "by the score", guide=chain_guide(), model=chain(in_regimes),
    strategies={"z": ppvi.Reinforce()}, **IN_LOOP,
)  # fmt: skip


def autoregression():
    """Of two lags, conditioned on all values, as the example of the documentation has it."""
    a, s = ppl.sample("a", dist.Normal(0.0, 1.0)), ppl.sample("s", dist.HalfNormal(1.0))

    def step(carry, _):
        before, last = carry
        y = ppl.sample("y", dist.Normal(a * last + 0.2 * before, s))
        return (last, y), None

    with handlers.condition(data={"y": xp.asarray(Y[2:])}):
        scan(step, (Y[0], Y[1]), None, length=3)


def trend():
    """Exponential smoothing of level and trend, with no site but the data's."""
    alpha, s = ppl.sample("alpha", dist.Beta(2.0, 2.0)), ppl.sample("s", dist.HalfNormal(1.0))

    def step(carry, y):
        level, slope = carry
        mean = level + slope
        new = alpha * y + (1 - alpha) * mean
        return (new, 0.3 * (new - level) + 0.7 * slope), mean

    _, means = lax.scan(step, (0.0, 0.0), xp.asarray(Y))
    ppl.sample("y", dist.Normal(means, s).to_event(1), obs=xp.asarray(Y))


def of_trend():
    ppl.sample("alpha", dist.Beta(positive("c", 2.0), 2.0))
    mean_field((), ("s",))()


right("autoregression", objectives.elbo, SMOOTH, guide=mean_field("a", "s"), model=autoregression, **IN_LOOP)
right("exponential smoothing", objectives.elbo, SMOOTH, guide=of_trend, model=trend, **IN_LOOP)
right("exponential smoothing, AutoNormal", objectives.elbo, SMOOTH, guide="AutoNormal", model=trend, **IN_LOOP)


def hidden_markov():
    """The forward recursion, over states of which the emissions' means are drawn."""
    m = ppl.sample("m", dist.Normal(xp.array([-1.0, 1.0]), 1.0).to_event(1))
    moves = xp.log(xp.array([[0.8, 0.2], [0.3, 0.7]]))

    def step(alpha, y):
        return nn.logsumexp(alpha[:, None] + moves, 0) + dist.Normal(m, 1.0).log_prob(y), None

    alpha, _ = lax.scan(step, xp.log(xp.array([0.5, 0.5])), xp.asarray(Y))
    ppl.factor("y", nn.logsumexp(alpha))


def viterbi():
    """The best path's score, which is a greatest of sums."""
    m = ppl.sample("m", dist.Normal(xp.array([-1.0, 1.0]), 1.0).to_event(1))
    moves = xp.log(xp.array([[0.8, 0.2], [0.3, 0.7]]))

    def step(best, y):
        return xp.max(best[:, None] + moves, 0) + dist.Normal(m, 1.0).log_prob(y), None

    ppl.factor("y", xp.max(lax.scan(step, xp.log(xp.array([0.5, 0.5])), xp.asarray(Y))[0]))


MEANS = mean_field("m", sizes={"m": 2})
right("forward recursion", objectives.elbo, SMOOTH, guide=MEANS, model=hidden_markov, **IN_LOOP)
right("best path", objectives.elbo, "a greatest of sums is continuous", guide=MEANS, model=viterbi, **IN_LOOP)


def states(probs):
    def guide():
        rows = ppl.param("l", xp.zeros((5, 2)))
        scan(lambda carry, row: (ppl.sample("z", dist.Categorical(logits=row)), None), 0, rows)

    return guide


def switching(before, y):
    z = ppl.sample("z", dist.Categorical(probs=xp.array([[0.8, 0.2], [0.3, 0.7]])[before]))
    ppl.sample("y", dist.Normal(xp.array([-1.0, 1.0])[z], 1.0), obs=y)
    return z, None


for _strategy in (ppvi.Enumerate(), ppvi.Reinforce(), ppvi.LeaveOneOut(2)):
    right(
        f"switching states, {_strategy}", objectives.elbo, "finite, and summed over or by the score", guide=states(2),
        model=chain(switching, start=0), strategies={"z": _strategy}, **IN_LOOP,
    )  # fmt: skip


def rarely():
    ppl.sample("z", dist.Bernoulli(logits=ppl.param("l", 4.0)))


# Loops and branches around draws ---------------------------------------------------------------------------------------


def rounds(step, n=5):
    """n rounds of a function."""
    return of(lambda z: lax.fori_loop(0, n, lambda i, x: step(x, z), z))


def newton(x, z):
    """A step to the root of x + e^x = z."""
    return x - (x + xp.exp(x) - z) / (1.0 + xp.exp(x))


def until_done(carry, _):
    """Rounds that change nothing once they are near enough."""
    x, z = carry
    near = abs(x * x * x - z) < 0.1
    return (xp.where(near, x, x - 0.1 * (x * x * x - z)), z), near


def steps_taken(z):
    _, near = lax.scan(until_done, (0.5 * z, z), None, length=10)
    return xp.sum(1.0 - near)


def euler(z):
    """Of predator and prey, from drawn densities."""

    def step(state, _):
        u, v = state
        return (u + 0.1 * u * (1.0 - v), v + 0.1 * v * (u - 1.0)), None

    return lax.scan(step, (xp.exp(z[0]), xp.exp(z[1])), None, length=5)[0][0]


def runge_kutta(z):
    def slope(x):
        return xp.sin(x) - 0.5 * x

    def step(x, _):
        k1 = slope(x)
        k2 = slope(x + 0.1 * k1)
        return x + 0.2 * k2, x

    return lax.scan(step, z, None, length=5)[0]


def extinct(z):
    """A population that is dead below a threshold."""
    return lax.scan(lambda x, _: (xp.where(x < 0.4, 0.0, 0.8 * x), None), nn.softplus(z), None, length=4)[0]


def collatz(z):
    return lax.fori_loop(0, 3, lambda i, x: xp.where(x > 1, x / 2, 1.5 * x - 0.2), z)


def reflected(z):
    """A random walk between walls, which turn it."""
    return lax.scan(lambda x, s: (abs(x + s), None), z, xp.array([0.3, -0.8, 0.1]))[0]


def running_max(z):
    return lax.scan(lambda m, s: (xp.maximum(m, z * s), None), z, xp.array([0.5, -1.0, 2.0]))[0]


def drawdown(z):
    path = lax.cumsum(z)
    return xp.max(lax.cummax(path) - path)


right("Newton's steps in a loop", rounds(newton), SMOOTH, **IN_LOOP)
wrong("steps until near", of(steps_taken), LOST, "jump", verdict="suspect", **IN_LOOP)
right("Euler's steps", of(euler), SMOOTH, guide=pair, **IN_LOOP)
right("Runge and Kutta's steps", of(runge_kutta), SMOOTH, **IN_LOOP)
wrong("extinction", of(extinct), LOST, "jump", verdict="suspect", **IN_LOOP)
wrong("rounds of two branches", of(collatz), LOST, "jump", **IN_LOOP)
right("reflecting walls", of(reflected), CONTINUOUS, **IN_LOOP)
right("running maximum", of(running_max), CONTINUOUS, **IN_LOOP)
right("drawdown", of(drawdown), CONTINUOUS, guide=pair, **IN_LOOP)
right(
    "switch of branches that meet",
    of(lambda z: lax.switch(xp.asarray(z > 0, int), (lambda x: x, xp.sin), z)), CONTINUOUS, **IN_LOOP,
)  # fmt: skip
wrong(
    "switch of branches that do not",
    of(lambda z: lax.switch(xp.asarray(z > 0, int), (lambda x: x - 1, xp.sin), z)), LOST, "jump", **IN_LOOP,
)  # fmt: skip


def looked_up(p, q):
    """Logarithms of a table, of which one is of 0 and never looked up, in every round."""
    z, w = q.simulate()["z"], ppl.param("w", 0.0)

    def step(total, _):
        return total + xp.log(xp.stack([w + 1.0, w + 2.0, w]))[z], None

    return lax.scan(step, 0.0, None, length=3)[0]


for _strategy in (ppvi.Enumerate(), ppvi.Reinforce()):
    right(
        f"a pole in a loop, {_strategy}", looked_up, "no value looks it up", guide=rarely, strategies={"z": _strategy},
        **IN_LOOP,
    )  # fmt: skip

# Gaussian processes and matrices ---------------------------------------------------------------------------------------


def kernel(variance, length, noise=0.1):
    square = (xp.asarray(X)[:, None] - xp.asarray(X)) ** 2
    return variance * xp.exp(-0.5 * square / length**2) + noise * xp.eye(5)


def gaussian_process():
    v, length = ppl.sample("v", dist.LogNormal(0.0, 1.0)), ppl.sample("l", dist.LogNormal(0.0, 1.0))
    ppl.sample("y", dist.MultivariateNormal(xp.zeros(5), kernel(v, length)), obs=xp.asarray(Y))


def latent_process():
    length, eta = (
        ppl.sample("l", dist.LogNormal(0.0, 1.0)),
        ppl.sample("eta", dist.Normal(xp.zeros(5), 1.0).to_event(1)),
    )
    f = xp.linalg.cholesky(kernel(1.0, length)) @ eta
    ppl.sample("y", dist.Bernoulli(logits=f).to_event(1), obs=xp.asarray((Y > 0.15) * 1.0))


def low_rank():
    """A Hilbert space approximation: eigenfunctions with weights of the spectral density."""
    length, b = ppl.sample("l", dist.LogNormal(0.0, 1.0)), ppl.sample("b", dist.Normal(xp.zeros(3), 1.0).to_event(1))
    j = xp.asarray(np.arange(1.0, 4.0, dtype=np.float32))
    basis = xp.sin(j * (xp.asarray(X)[:, None] + 2.0) * np.pi / 4)
    f = basis @ (b * xp.sqrt(length) * xp.exp(-0.25 * (length * j) ** 2))
    ppl.sample("y", dist.Normal(f, 1.0).to_event(1), obs=xp.asarray(Y))


def correlated():
    """A correlation by tanh, and a factor by hand."""
    r = xp.tanh(ppl.sample("r", dist.Normal(0.0, 1.0)))
    factor = xp.stack([xp.stack([xp.ones(()), xp.zeros(())]), xp.stack([r, xp.sqrt(1 - r * r)])])
    ppl.sample("y", dist.MultivariateNormal(xp.zeros(2), scale_tril=factor), obs=xp.array([0.3, 0.8]))


right("Gaussian process of draws", objectives.elbo, SMOOTH, guide=mean_field((), ("v", "l")), model=gaussian_process)
right(
    "latent Gaussian process",
    objectives.elbo,
    "the factor exists, as the noise keeps the kernel positive, which is not known of a sum",
    guide=mean_field(("eta",), ("l",), sizes={"eta": 5}),
    model=latent_process,
    verdict="suspect",
    on_pyro="proved",
)
right(
    "spectral approximation", objectives.elbo, SMOOTH, guide=mean_field(("b",), ("l",), sizes={"b": 3}), model=low_rank
)
right("correlation by hand", objectives.elbo, SMOOTH, guide=mean_field("r"), model=correlated)


def whittle():
    """A periodogram, Exponential about a spectral density."""
    a = xp.tanh(ppl.sample("a", dist.Normal(0.0, 1.0)))
    w = xp.asarray(np.linspace(0.3, 2.8, 5).astype(np.float32))
    density = 1.0 / (1.0 - 2.0 * a * xp.cos(w) + a * a)
    ppl.sample("y", dist.Exponential(1.0 / density).to_event(1), obs=xp.asarray(Y + 1.5))


NO_COMPLEX = "complex tensors"
right("spectral likelihood", objectives.elbo, SMOOTH, guide=mean_field("a"), model=whittle, verdict="suspect")
right("power of a real spectrum", of(lambda z: abs(xp.fft.rfft(z)[0]) ** 2), SMOOTH, guide=pair, not_on_pyro=NO_COMPLEX)
right(
    "convolution by spectra",
    of(lambda z: xp.fft.irfft(xp.fft.rfft(z) * xp.fft.rfft(xp.array([1.0, 0.5])), 2)[0] ** 2),
    SMOOTH,
    guide=pair,
    not_on_pyro=NO_COMPLEX,
)
right(
    "interference",
    of(lambda z: abs(xp.exp(1j * z[0]) + 0.5 * xp.exp(1j * z[1])) ** 2),
    SMOOTH,
    guide=pair,
    not_on_pyro=NO_COMPLEX,
)
wrong(
    "phase",
    of(lambda z: xp.angle(z[0] + 1j * z[1])),
    "the phase jumps from pi to -pi",
    "jump",
    guide=pair,
    verdict="suspect",
    not_on_pyro=NO_COMPLEX,
)
wrong(
    "unit vector of a complex number",
    of(lambda z: xp.real((lambda c: c / abs(c))(z[:1] + 0j))),
    "it is the sign",
    "jump",
    guide=pair,
    verdict="suspect",
    not_on_pyro=NO_COMPLEX,
)

# Second derivatives, and rules of one's own ----------------------------------------------------------------------------


def net(z):
    return xp.tanh(z * xp.array([1.0, -0.5, 2.0])) @ xp.array([0.3, 1.0, -0.7])


def bent(z):
    return nn.relu(z * xp.array([1.0, -0.5, 2.0])) @ xp.array([0.3, 1.0, -0.7])


def flipped(x):
    """The gradient reversed, as adversarial training has it."""
    return _reverse(x)


@jax.custom_vjp
def _reverse(x):
    return x


_reverse.defvjp(lambda x: (x, None), lambda _, cotangent: (-cotangent,))


@jax.custom_jvp
def _log1mexp(x):
    return xp.where(x < 0.7, xp.log(xp.expm1(x)) - x, xp.log1p(-xp.exp(-x)))


@_log1mexp.defjvp
def _(primals, tangents):
    return _log1mexp(*primals), tangents[0] / xp.expm1(primals[0])


right("gradient penalty", of(lambda z: (jax.grad(net)(z) - 1.0) ** 2), SMOOTH, not_on_pyro=RULES)
right("clipped slope", of(lambda z: xp.clip(jax.grad(net)(z), -0.5, 0.5)), CONTINUOUS, not_on_pyro=RULES)
right(
    "curvature", of(lambda z: jax.hessian(lambda x: net(x[0] * x[1]))(z)[0, 1]), SMOOTH, guide=pair, not_on_pyro=RULES
)
right("directional derivative", of(lambda z: jax.jvp(net, (z,), (xp.ones(()),))[1]), SMOOTH, not_on_pyro=RULES)
right("a step of ascent", of(lambda z: net(z + 0.1 * jax.grad(net)(z))), SMOOTH, not_on_pyro=RULES)
wrong(
    "gradient penalty of a bent net",
    of(lambda z: (jax.grad(bent)(z) - 1.0) ** 2),
    "the slope jumps",
    "jump",
    not_on_pyro=RULES,
)
wrong(
    "a step of ascent on a bent net",
    of(lambda z: net(z + 0.5 * jax.grad(bent)(z))),
    "the slope jumps",
    "jump",
    not_on_pyro=RULES,
)
wrong(
    "reversed gradient",
    of(lambda z: flipped(z) ** 2),
    "the rule has the wrong sign",
    "derivative rule",
    not_on_pyro=RULES,
)
right(
    "own logarithm of 1 - exp(-x)",
    of(lambda z: _log1mexp(nn.softplus(z))),
    "the rule is the derivative of both formulas",
    not_on_pyro=RULES,
)
right("checkpointed", of(lambda z: jax.checkpoint(net)(z)), SMOOTH, not_on_pyro=RULES)
