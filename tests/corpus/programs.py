"""Small objectives with the verdict that the static check should reach, and why, by the mathematics.

`truth` is whether the gradient is unbiased; `verdict` what can be told of it without running it. A `suspect` is an honest
answer where the proof is out of reach, and has to be the exception: the traps, which look wrong and are right, are to be
proved.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np
from jax import lax
from jax.experimental.sparse import BCOO

import ppvi
from ppvi import objectives
from ppvi.strategies import REBAR, BoundaryReparam, GumbelSoftmax, ReinMax, StraightThrough
from tests.engines import dist, nn, ppl, xp


@dataclass(frozen=True)
class Entry:
    name: str
    truth: Literal["unbiased", "biased"]
    verdict: Literal["proved", "suspect", "biased", "biased by design"]
    because: str
    program: Callable[..., Any]
    model: Callable[..., Any]
    guide: Callable[..., Any] | str
    """A guide, or the name of an autoguide."""
    rule: str | None = None
    """The rule that has to have found it."""
    strategies: dict[str, Any] = field(default_factory=dict)
    not_on_pyro: str = ""
    """Why it cannot be written there, if so."""
    on_pyro: str = ""
    """The verdict there, where it is another."""
    module: str = ""
    """Where it is written."""

    def __str__(self) -> str:
        return self.name


def normal():
    """One reparameterised draw, both of whose parameters are learned."""
    loc, scale = ppl.param("loc", 0.3), ppl.param("scale", 1.2, constraint=dist.constraints.positive)
    ppl.sample("z", dist.Normal(loc, scale))


def pair():
    ppl.sample("z", dist.Normal(ppl.param("loc", xp.array([0.3, -0.4])), 1.0).to_event(1))


def bit():
    ppl.sample("b", dist.Bernoulli(logits=ppl.param("logit", 0.2)))


def nothing():
    pass


ABSENT = "PyTorch and Pyro have no such function or distribution"
CALLBACKS = "PyTorch's graphs have no callbacks"
LOOPS = (
    "PyTorch's graphs have no loops and no branches; those of Python on a draw are replayed, of which nothing is proved"
)
RULES = "a rule of the user's own is an autograd.Function, which is differentiated as it is written or refused"

PROVED: list[Entry] = []
FLAGGED: list[Entry] = []


def of(f, site="z"):
    """The objective E[f(draw)]."""
    return lambda p, q: xp.sum(f(q.simulate()[site]))


def right(name, program, because, guide=normal, model=nothing, verdict="proved", **others):
    module = sys._getframe(1).f_globals["__name__"]
    PROVED.append(Entry(name, "unbiased", verdict, because, program, model, guide, module=module, **others))


def wrong(name, program, because, rule, guide=normal, model=nothing, verdict="biased", **others):
    module = sys._getframe(1).f_globals["__name__"]
    FLAGGED.append(Entry(name, "biased", verdict, because, program, model, guide, rule, module=module, **others))


# Smooth, or continuous with bounded slopes ----------------------------------------------------------------------------

SMOOTH = "analytic in the draw"
DIAGONAL = BCOO.fromdense(np.diag([2.0, 3.0]))
CONTINUOUS = "its pieces meet where it switches, and it is Lipschitz between"

right("polynomial", of(lambda z: z**3 - 2 * z), SMOOTH)
right("tanh network", of(lambda z: xp.tanh(xp.tanh(z * 2.0) @ xp.ones((2, 3))).sum()), SMOOTH, guide=pair)
right(
    "product with a sparse matrix",
    of(lambda z: DIAGONAL @ z**2),
    SMOOTH,
    guide=pair,
    not_on_pyro=ABSENT,
)
right("gelu", of(lambda z: nn.gelu(z)), SMOOTH)
right("silu", of(lambda z: nn.silu(z)), SMOOTH)
right("softplus", of(lambda z: nn.softplus(z)), "analytic; its stable formula has max and abs, whose kinks cancel")
right("logaddexp", of(lambda z: xp.logaddexp(z, 2 * z)), "as softplus")
right(
    "log-sum-exp",
    of(lambda z: nn.logsumexp(z)),
    "the greatest entry that is held constant is taken away and added again",
    guide=pair,
)
right(
    "log-sum-exp of some",
    of(lambda z: xp.log(xp.sum(xp.exp(z) * xp.array([0.0, 1.0])))),
    "one is always there",
    guide=pair,
)
right("log-sum-exp by hand", lambda p, q: _lse_by_hand(q.simulate()["z"]), "the stopped maximum cancels", guide=pair)
right(
    "softmax",
    of(lambda z: nn.softmax(z)[0]),
    "numerator and denominator are divided by the same constant",
    guide=pair,
)
right("log-softmax", of(lambda z: nn.log_softmax(z)[0]), "as log-sum-exp", guide=pair)
right(
    "xlogy",
    of(lambda z: nn.xlogy(nn.sigmoid(z), nn.sigmoid(-z))),
    "the comparison with zero holds on a null set at most",
)
right("relu", of(lambda z: nn.relu(z)), CONTINUOUS)
right("leaky relu", of(lambda z: nn.leaky_relu(z)), CONTINUOUS)
right("elu", of(lambda z: nn.elu(z)), CONTINUOUS)
right("selu", of(lambda z: nn.selu(z)), CONTINUOUS)
right("hard tanh", of(lambda z: nn.hard_tanh(z)), CONTINUOUS)
right("clip", of(lambda z: xp.clip(z, -0.5, 0.5)), CONTINUOUS)
right("absolute value", of(lambda z: xp.abs(z)), CONTINUOUS)
right("maximum of entries", of(lambda z: xp.max(z)), CONTINUOUS, guide=pair)
right("Huber by where", of(lambda z: xp.where(abs(z) < 1, z**2 / 2, abs(z) - 0.5)), CONTINUOUS)
right("own expm1 by where", of(lambda z: xp.where(z > 0, z, xp.expm1(xp.where(z > 0, 0.0, z)))), CONTINUOUS)
right(
    "log of a normal distribution function",
    of(lambda z: nn.log_ndtr(z)),
    "three formulas of one function, which agree where they meet",
)
right("sorted values", of(lambda z: xp.sort(z)[0]), "the values in order are continuous", guide=pair)
right("median", of(lambda z: xp.median(z)), "a mean of values in order", guide=pair)
right("norm", of(lambda z: xp.linalg.norm(z)), "not differentiable at one point only", guide=pair)
right(
    "cosine of a wrapped angle",
    of(lambda z: xp.cos(2 * xp.pi * (z % 1.0))),
    "the wrapped angle jumps by a period of the cosine",
)
right("continuous cond", of(lambda z: lax.cond(z > 0, lambda z: z, xp.expm1, z)), CONTINUOUS, not_on_pyro=LOOPS)
right(
    "scan",
    of(lambda z: lax.scan(lambda c, s: (xp.tanh(c + s * z), c), z, xp.arange(3.0))[0]),
    SMOOTH,
    not_on_pyro=LOOPS,
)
right("nan_to_num", of(lambda z: xp.nan_to_num(z)), "whether a number is NaN is no function of a real number")
right(
    "argmax for logging",
    lambda p, q: _logs_argmax(q.simulate()["z"]),
    "nothing of it reaches the objective",
    guide=pair,
    not_on_pyro=CALLBACKS,
)
right(
    "mask of data",
    of(lambda z: xp.where(xp.array([True, False]), z, 0.0)),
    "what selects does not depend on the draw",
    guide=pair,
)
right("own rule, right", of(lambda z: _cube(z)), "the rule is the derivative", not_on_pyro=RULES)

# Densities of libraries -----------------------------------------------------------------------------------------------


def likelihood(distribution, value):
    def model():
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        ppl.sample("x", distribution(z), obs=value)

    return model


right(
    "Bernoulli by logits",
    objectives.elbo,
    "analytic in the logit",
    model=likelihood(lambda z: dist.Bernoulli(logits=z), 1.0),
)
right(
    "Bernoulli by probabilities",
    objectives.elbo,
    "analytic within (0, 1)",
    model=likelihood(lambda z: dist.Bernoulli(probs=nn.sigmoid(z)), 1.0),
)
right(
    "Categorical by logits",
    objectives.elbo,
    "the index is data",
    model=likelihood(lambda z: dist.Categorical(logits=xp.stack([z, -z])), 1),
)
right(
    "Categorical by probabilities",
    objectives.elbo,
    "a softmax is positive",
    model=likelihood(lambda z: dist.Categorical(probs=nn.softmax(xp.stack([z, -z]))), 1),
)
right(
    "truncated normal",
    objectives.elbo,
    "analytic in its location",
    model=likelihood(lambda z: dist.TruncatedNormal(z, 1.0, low=-1.0, high=2.0), 0.5),
    not_on_pyro=ABSENT,
)


def truncated(low, high, loc=lambda m: m):
    def guide():
        m, s = ppl.param("m", 0.3), ppl.param("s", 0.8, constraint=dist.constraints.positive)
        ppl.sample("z", dist.TruncatedNormal(loc(m), s, low=low, high=high))

    return guide


def truncated_model(low, high):
    def model():
        z = ppl.sample("z", dist.TruncatedNormal(0.0, 2.0, low=low, high=high))
        ppl.sample("x", dist.Normal(z, 1.0), obs=1.0)

    return model


QUANTILES = "a quantile is continuous in its distribution's parameters, whatever side of the mean it is computed on"
for low, high in ((-1.0, 2.0), (0.0, None), (None, 1.5)):
    right(
        f"truncated normal guide from {low} to {high}",
        objectives.elbo,
        QUANTILES,
        guide=truncated(low, high),
        model=truncated_model(low, high),
        not_on_pyro=ABSENT,
    )
right("quantiles", of(lambda z: dist.Normal(0.0, 1.0).icdf(nn.sigmoid(z))), "the probit of a logit, in four formulas")


def stepping():
    ppl.sample("z", dist.Step(ppl.param("m", 0.3), 1.0))


right("Poisson", objectives.elbo, "analytic in the log rate", model=likelihood(lambda z: dist.Poisson(xp.exp(z)), 3.0))
right(
    "negative binomial",
    objectives.elbo,
    "analytic in the log mean",
    model=likelihood(lambda z: dist.NegativeBinomial2(xp.exp(z), 2.0), 3.0),
    not_on_pyro=ABSENT,
)


def beta_binomial():
    ppl.sample("x", dist.Binomial(5, ppl.sample("z", dist.Beta(2.0, 1.0))), obs=3.0)


def mixed():
    a, b = ppl.sample("a", dist.HalfCauchy(1.0)), ppl.sample("b", dist.Uniform(-1.0, 2.0))
    ppl.sample("x", dist.Normal(b + ppl.sample("c", dist.Beta(1.0, 2.0)), a), obs=0.3)


def beta():
    concentration = ppl.param("a", 2.0, constraint=dist.constraints.positive)
    ppl.sample("z", dist.Beta(concentration, 1.5))


def gamma_model():
    ppl.sample("x", dist.Normal(ppl.sample("z", dist.Gamma(2.0, 1.0)), 1.0), obs=1.0)


def log_normal():
    ppl.sample("z", dist.LogNormal(ppl.param("loc", 0.1), 0.5))


right(
    "Beta guide and model", objectives.elbo, "implicit reparameterisation, one support", model=beta_binomial, guide=beta
)
right(
    "AutoNormal", objectives.elbo, "transforms onto the supports, of which one has arrays for bounds",
    model=mixed, guide="AutoNormal",
)  # fmt: skip
right(
    "AutoMultivariateNormal", objectives.elbo, "as AutoNormal, every site a point that is made of one draw",
    model=mixed, guide="AutoMultivariateNormal",
)  # fmt: skip
right(
    "AutoBNAFNormal", objectives.elbo, "a product of matrices in logarithms, whose greatest entries cancel",
    model=mixed, guide="AutoBNAFNormal", not_on_pyro=ABSENT)  # fmt: skip
wrong(
    "AutoIAFNormal", objectives.elbo, "its clamp lets the gradient pass where it holds the value", "held constant",
    model=mixed, guide="AutoIAFNormal", verdict="suspect",
)  # fmt: skip
right(
    "LogNormal guide of a Gamma", objectives.elbo, "both on the positive numbers", model=gamma_model, guide=log_normal
)

# Strategies that need no continuity -----------------------------------------------------------------------------------

STEP = of(lambda z: xp.where(z > 0.2, 1.0, 0.0))
right(
    "step by score",
    STEP,
    "a score function needs a smooth density and nothing of the objective",
    strategies={"z": ppvi.Reinforce()},
)
right("step by measures", STEP, "as the score function", strategies={"z": ppvi.MeasureValued()})
right(
    "floor by leave-one-out", of(lambda z: xp.floor(z)), "as the score function", strategies={"z": ppvi.LeaveOneOut(2)}
)
right("step with its boundary", STEP, "the boundary term is added", strategies={"z": BoundaryReparam((0.2,))})
right("step of a discrete draw", of(lambda b: xp.where(b > 0.5, 2.0, -1.0), "b"), "values are enumerated", guide=bit)
right(
    "REBAR of a smooth rest",
    of(lambda b: (b - 0.4) ** 2, "b"),
    "the relaxed rest is differentiable",
    guide=bit,
    strategies={"b": REBAR()},
)

# Objectives of the library --------------------------------------------------------------------------------------------

LIKELY = likelihood(lambda z: dist.Normal(z, 1.0), 0.7)
right("iwelbo", objectives.iwelbo(3), "smooth in the draws", model=LIKELY)
right("Renyi bound", objectives.renyi(0.5, 3), "smooth in the draws", model=LIKELY)
right("best of K", objectives.vr_max(3), "a maximum is Lipschitz", model=LIKELY)
right("sticking the landing", objectives.stl, "the score that is left out has mean zero", model=LIKELY)
right("doubly reparameterised", objectives.dreg(3), "by its theorem", model=LIKELY)
right(
    "chi-square, heavy guide",
    objectives.chi_square(),
    "the guide's tails are the heavier",
    model=LIKELY,
    guide=lambda: ppl.sample("z", dist.StudentT(5.0, ppl.param("loc", 0.1), 2.0)),
)

# Minibatches ----------------------------------------------------------------------------------------------------------

DATA = np.linspace(-1.0, 2.0, 8, dtype=np.float32)


def regression():
    z = ppl.sample("z", dist.Normal(0.0, 1.0))
    with ppl.plate("data", 8, subsample_size=3) as rows:
        ppl.sample("x", dist.Normal(z, 1.0), obs=xp.asarray(DATA)[rows])


def on_batch(p, q):
    z = q.simulate()["z"]
    return ppvi.minibatch(lambda x: -((x - z) ** 2) / 10, xp.asarray(DATA), 3)


right("ELBO on a minibatch", objectives.elbo, "a sum of unbiased estimates", model=regression)
right("sum over a minibatch", on_batch, "linear in the estimate")
right(
    "scaled by the draw",
    lambda p, q: q.simulate()["z"] * ppvi.minibatch(lambda x: x, xp.asarray(DATA), 3),
    "given the draw, a constant times the estimate",
)
right(
    "product of independent batches",
    lambda p, q: (
        q.simulate()["z"]
        * ppvi.minibatch(lambda x: x, xp.asarray(DATA), 3)
        * ppvi.minibatch(lambda x: x, xp.asarray(DATA), 3)
    ),
    "independent estimates multiply",
)
right(
    "exp_of a minibatch",
    lambda p, q: _exp_of(q.simulate()["z"]),
    "a randomised estimate of the exponential",
    not_on_pyro=LOOPS,
)

# Right, and out of reach of the proof ---------------------------------------------------------------------------------

right(
    "interpolation",
    of(lambda z: xp.interp(z, xp.array([-1.0, 0.0, 2.0]), xp.array([0.0, 1.0, -1.0]))),
    "its pieces meet at the knots, all of which differ",
    not_on_pyro=ABSENT,
)
right(
    "score left out by hand",
    lambda p, q: p.log_density(z := q.simulate()) - q.log_density(z, stop_params=True),
    "the user's own sticking the landing, without its reason",
    model=LIKELY,
    verdict="suspect",
    rule="held constant",
)
right(
    "entry at the argmax",
    of(lambda z: z[xp.argmax(z)]),
    "it is the maximum, by way of a place",
    guide=pair,
)

# Jumps ----------------------------------------------------------------------------------------------------------------

LOST = "the jump's part of the gradient, its size times the density there, is lost"
wrong("step", STEP, LOST, "jump")
wrong(
    "detector", objectives.elbo, LOST, "jump",
    model=likelihood(lambda z: dist.Bernoulli(xp.where(z > 0.5, 0.9, 0.1)), xp.array(1.0)),
)  # fmt: skip
wrong("step by comparison", of(lambda z: (z > 0.2) * 1.0), LOST, "jump")
wrong("floor", of(lambda z: xp.floor(z)), LOST, "jump")
wrong(
    "location of a truncated normal with a step",
    objectives.elbo,
    LOST,
    "jump",
    guide=truncated(-1.0, 2.0, lambda m: xp.where(m > 0.4, m + 1.0, m)),
    model=truncated_model(-1.0, 2.0),
    not_on_pyro=ABSENT,
)
wrong(
    "sampler with a step",
    of(lambda z: z**2),
    "the draw jumps as its mean passes 0.25",
    "jump",
    guide=stepping,
    on_pyro="suspect",
)
wrong("round", of(lambda z: xp.round(z)), LOST, "jump")
wrong("sign", of(lambda z: xp.sign(z)), LOST, "jump")
wrong("cast to int", of(lambda z: xp.asarray(z, int) * 1.0), LOST, "jump")
wrong("remainder", of(lambda z: z % 1.0), LOST, "jump")
wrong("is the relu zero", of(lambda z: (nn.relu(z) == 0) * 1.0), LOST, "jump")
wrong("where with a gap", of(lambda z: xp.where(z > 0, z + 0.5, z)), LOST, "jump")
wrong(
    "cond with a gap", of(lambda z: lax.cond(z > 0, lambda z: z + 1, lambda z: z, z)), LOST, "jump", not_on_pyro=LOOPS
)
wrong(
    "step in a vector",
    of(lambda z: xp.where(z[0] > z[1], z, -z)),
    "the entries change sign where their order turns",
    "jump",
    guide=pair,
)
wrong(
    "step in a parameter",
    lambda p, q: q.simulate()["z"] ** 2 + xp.where(ppl.param("loc") > 0.1, 1.0, 0.0),
    "the objective jumps in a parameter",
    "jump",
)
wrong(
    "step in a draw and a parameter",
    lambda p, q: xp.where(q.simulate()["z"] + ppl.param("loc") > 0, 1.0, 0.0),
    "the parameter moves the step, whatever the strategy",
    "jump",
    strategies={"z": ppvi.Reinforce()},
)
wrong(
    "hard constraint",
    of(lambda z: xp.where(z > 0, -(z**2), -xp.inf)),
    "the density is cut off where it is not zero",
    "jump",
)
wrong(
    "scan with a step",
    of(lambda z: lax.scan(lambda c, s: (xp.where(c > 0, c, -1.0), c), z, xp.arange(40.0))[0]),
    LOST,
    "jump",
    verdict="suspect",
    not_on_pyro=LOOPS,
)
wrong(
    "one-hot of the argmax",
    of(lambda z: nn.one_hot(xp.argmax(z), 2)[0]),
    LOST,
    "jump",
    guide=pair,
    verdict="suspect",
)
wrong(
    "table", of(lambda z: xp.array([0.0, 3.0, 1.0])[xp.asarray(xp.clip(z, 0, 2), int)]), LOST, "jump", verdict="suspect"
)
wrong("rank", of(lambda z: xp.argsort(z)[0] * 1.0), LOST, "jump", guide=pair, verdict="suspect")
wrong(
    "REBAR of a step",
    of(lambda b: xp.where(b > 0.4, 2.0, 1.0), "b"),
    "the relaxed rest jumps, so that its path has not the gradient of its mean",
    "jump",
    guide=bit,
    strategies={"b": REBAR()},
)
wrong(
    "density that jumps",
    of(lambda b: (b - 0.3) ** 2, "b"),
    "the probability jumps in the parameter",
    "density jump",
    guide=lambda: ppl.sample("b", dist.Bernoulli(xp.where(ppl.param("a", 0.1) > 0, 0.3, 0.6))),
    strategies={"b": ppvi.Reinforce()},
)

# Held constant --------------------------------------------------------------------------------------------------------

wrong(
    "straight through by hand",
    of(lambda z: _straight_through(z)),
    "the value is a step, the gradient that of the line",
    "held constant",
)
wrong(
    "draw held constant",
    of(lambda z: ppvi.stop_gradient(z) ** 2),
    "nothing of the gradient is left",
    "held constant",
    verdict="suspect",
)
wrong(
    "half of it held constant",
    of(lambda z: z + 2 * ppvi.stop_gradient(z)),
    "a third of the gradient is left",
    "held constant",
)
wrong(
    "parameter held constant",
    lambda p, q: q.simulate()["z"] * ppvi.stop_gradient(ppl.param("loc")),
    "the parameter's own part is left out",
    "held constant",
    verdict="suspect",
)
wrong(
    "landing stuck in a chi-square",
    lambda p, q: xp.exp(2 * (p.log_density(z := q.simulate()) - q.log_density(z, stop_params=True))),
    "what is left out has mean zero for the logarithm only",
    "held constant",
    model=LIKELY,
    verdict="suspect",
)

# Estimates ------------------------------------------------------------------------------------------------------------

JENSEN = "a nonlinear function of an unbiased estimate"
wrong("exponential of a minibatch", lambda p, q: xp.exp(on_batch(p, q)), JENSEN, "nonlinear estimate")
wrong("square of a minibatch", lambda p, q: on_batch(p, q) ** 2, JENSEN, "nonlinear estimate")
wrong("iwelbo on a minibatch", objectives.iwelbo(3), JENSEN, "nonlinear estimate", model=regression)
wrong("product with itself", lambda p, q: (x := on_batch(p, q)) * x, JENSEN, "nonlinear estimate")
wrong("maximum with a minibatch", lambda p, q: xp.maximum(on_batch(p, q), -1.0), JENSEN, "nonlinear estimate")

# Supports -------------------------------------------------------------------------------------------------------------

OUTSIDE = "draws fall where the model has no mass"


def model_of(distribution):
    def model():
        ppl.sample("z", distribution())

    return model


def uniform_data():
    ppl.sample("x", dist.Uniform(0.0, ppl.sample("z", dist.LogNormal(0.0, 1.0))), obs=0.4)


wrong("Normal guide of a Gamma", objectives.elbo, OUTSIDE, "support", model=gamma_model)
wrong("Normal guide of a Beta", objectives.elbo, OUTSIDE, "support", model=model_of(lambda: dist.Beta(2.0, 2.0)))
wrong(
    "wide guide of a uniform",
    objectives.elbo,
    OUTSIDE,
    "support",
    model=model_of(lambda: dist.Uniform(0.2, 0.8)),
    guide=beta,
)
wrong(
    "bound that the draw moves",
    objectives.elbo,
    "the likelihood jumps to zero as the bound passes the data",
    "moving density",
    model=uniform_data,
    guide=log_normal,
)
wrong(
    "density asked by hand", of(lambda z: dist.Uniform(-1.0, 1.0, validate_args=True).log_prob(z)),
    "cut off at its bounds, and no site of anybody's", "jump", not_on_pyro="validation looks at values there",
)  # fmt: skip
wrong(
    "heavy model, light guide",
    objectives.chi_square(),
    "the weights have no second moment",
    "tails",
    model=model_of(lambda: dist.StudentT(3.0)),
    verdict="suspect",
)

# Biased by design, and wrong rules ------------------------------------------------------------------------------------

SQUARE = of(lambda b: (b - 0.4) ** 2, "b")
for strategy in (GumbelSoftmax(), StraightThrough(), ReinMax()):
    wrong(
        type(strategy).__name__,
        SQUARE,
        "a relaxation",
        "strategy",
        guide=bit,
        strategies={"b": strategy},
        verdict="biased by design",
    )
wrong(
    "own rule, wrong",
    of(lambda z: _cube_wrongly(z)),
    "the rule is not the derivative",
    "derivative rule",
    not_on_pyro=RULES,
)
wrong(
    "own backward rule, wrong",
    of(lambda z: _square_wrongly(z)),
    "the rule is not the derivative",
    "derivative rule",
    not_on_pyro=RULES,
)
wrong("rounding with a rule", of(lambda z: _rounded(z)), "straight-through by a rule", "jump", not_on_pyro=RULES)


def _lse_by_hand(x):
    top = ppvi.stop_gradient(x.max())
    return top + xp.log(xp.exp(x - top).sum())


def _logs_argmax(z):
    jax.debug.callback(lambda i: None, xp.argmax(z))
    return z.sum() ** 2


def _straight_through(z):
    return z + ppvi.stop_gradient(xp.where(z > 0, 1.0, 0.0) - z)


def _exp_of(z):
    return ppvi.exp_of(lambda: z / 10 * ppvi.minibatch(lambda x: x, xp.asarray(DATA), 3))


@jax.custom_jvp
def _cube(z):
    return z**3


@_cube.defjvp
def _(primals, tangents):
    return _cube(*primals), 3 * primals[0] ** 2 * tangents[0]


@jax.custom_jvp
def _cube_wrongly(z):
    return z**3


@_cube_wrongly.defjvp
def _(primals, tangents):
    return _cube_wrongly(*primals), primals[0] ** 2 * tangents[0]


@jax.custom_vjp
def _square_wrongly(z):
    return z**2


_square_wrongly.defvjp(lambda z: (z**2, z), lambda z, cotangent: (z * cotangent,))


@jax.custom_jvp
def _rounded(z):
    return xp.round(z)


@_rounded.defjvp
def _(primals, tangents):
    return _rounded(*primals), tangents[0]
