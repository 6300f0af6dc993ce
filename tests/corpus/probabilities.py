"""Densities given probabilities that are drawn: at a boundary of the simplex or of the unit interval a library clamps, masks and
selects, and the density goes to zero there, or does not, as it does by the mathematics."""

from __future__ import annotations

from ppvi import objectives
from tests.corpus.programs import LOST, likelihood, right, wrong
from tests.engines import dist, ppl, xp


def positive(name, values):
    return ppl.param(name, xp.array(values), constraint=dist.constraints.positive)


def dirichlet():
    ppl.sample("w", dist.Dirichlet(positive("c", [1.0, 2.0, 3.0])))


def beta():
    ppl.sample("w", dist.Beta(positive("a", 2.0), positive("b", 3.0)))


def betas():
    ppl.sample("w", dist.Beta(positive("a", [2.0, 1.0]), positive("b", [3.0, 2.0])).to_event(1))


def broken_stick():
    noise = dist.Normal(ppl.param("loc", xp.array([0.3, -0.4])), 1.0).to_event(1)
    ppl.sample("w", dist.TransformedDistribution(noise, dist.transforms.StickBreakingTransform()))


def of_simplex(distribution, value):
    """A model with three probabilities, and an observation given them."""

    def model():
        w = ppl.sample("w", dist.Dirichlet(xp.ones(3)))
        ppl.sample("x", distribution(w), obs=xp.array(value))

    return model


def of_interval(distribution, value):
    def model():
        w = ppl.sample("w", dist.Beta(1.0, 1.0))
        ppl.sample("x", distribution(w), obs=xp.array(value))

    return model


def sticks():
    w = ppl.sample("w", dist.Beta(xp.ones(2), 3.0).to_event(1))
    lengths = xp.concatenate([w, xp.ones(1)]) * xp.concatenate([xp.ones(1), xp.cumprod(1 - w, 0)])
    ppl.sample("x", dist.Categorical(probs=lengths), obs=xp.array(1))


def transitions():
    rows = ppl.sample("w", dist.Dirichlet(xp.ones((3, 3))).to_event(1))
    states = xp.array([0, 1, 2, 1])
    with ppl.plate("steps", 3):
        ppl.sample("x", dist.Categorical(probs=rows[states[:-1]]), obs=states[1:])


def latent():
    w = ppl.sample("w", dist.Dirichlet(xp.ones(3)))
    ppl.sample("x", dist.Normal(1.0 * ppl.sample("k", dist.Categorical(probs=w)), 1.0), obs=xp.array(0.5))


def with_a_latent():
    dirichlet()
    ppl.sample("k", dist.Categorical(probs=xp.array([0.2, 0.3, 0.5])))


CATEGORY = of_simplex(lambda w: dist.Categorical(probs=w), 1)
ANALYTIC = "analytic in probabilities within the simplex"
OUTSIDE = "a probability of zero is a density that ends at zero"

right("Categorical of a Dirichlet", objectives.elbo, OUTSIDE, guide=dirichlet, model=CATEGORY)
right("Categorical of a broken stick", objectives.elbo, OUTSIDE, guide=broken_stick, model=CATEGORY)
right("Categorical of an AutoNormal", objectives.elbo, OUTSIDE, guide="AutoNormal", model=CATEGORY)
right("Categorical of sticks by hand", objectives.elbo, OUTSIDE, guide=betas, model=sticks)
right("transitions of a chain", objectives.elbo, OUTSIDE, guide="AutoNormal", model=transitions)
right("latent Categorical of a Dirichlet", objectives.elbo, OUTSIDE, guide=with_a_latent, model=latent)
right(
    "Categorical by logarithms", objectives.elbo, ANALYTIC, guide=dirichlet,
    model=of_simplex(lambda w: dist.Categorical(logits=xp.log(w)), 1),
)  # fmt: skip
right(
    "Dirichlet of a Dirichlet", objectives.elbo, ANALYTIC, guide=dirichlet,
    model=of_simplex(lambda w: dist.Dirichlet(20.0 * w), [0.2, 0.3, 0.5]),
)  # fmt: skip
right(
    "mixture of a Dirichlet", objectives.elbo, OUTSIDE, guide=dirichlet,
    model=of_simplex(
        lambda w: dist.MixtureSameFamily(dist.Categorical(probs=w), dist.Normal(xp.array([-1.0, 0.0, 1.0]), 1.0)), 0.5
    ),
)  # fmt: skip
right(
    "Bernoulli of a Beta", objectives.elbo, "clamped by the smallest numbers there are, which is continuous", guide=beta,
    model=of_interval(lambda w: dist.Bernoulli(probs=w), 1.0),
)  # fmt: skip
right(
    "Geometric of a Beta", objectives.elbo, "as of a Bernoulli", guide=beta,
    model=of_interval(lambda w: dist.Geometric(probs=w), 3.0),
)  # fmt: skip
wrong(
    "Categorical of a threshold", objectives.elbo, LOST, "jump", guide=dirichlet,
    model=of_simplex(lambda w: dist.Categorical(probs=xp.where(w > 0.3, 0.5, 0.25)), 1),
)  # fmt: skip
wrong(
    "Categorical without the small ones", objectives.elbo, "the density jumps from log 0.3 to -inf", "jump", guide=dirichlet,
    model=of_simplex(lambda w: dist.Categorical(probs=xp.where(w > 0.3, w, 0.0)), 1),
)  # fmt: skip
wrong(
    "Categorical with another test", objectives.elbo, "the library's own test of w > 0 says nothing of w > 0.1", "jump",
    guide=dirichlet, model=of_simplex(lambda w: dist.Categorical(probs=xp.where(w > 0.1, w, 1.0)), 1),
)  # fmt: skip
wrong(
    "Bernoulli of a threshold", objectives.elbo, LOST, "jump", guide=beta,
    model=of_interval(lambda w: dist.Bernoulli(probs=xp.where(w > 0.1, w, 0.5)), 1.0),
)  # fmt: skip
wrong(
    "a logarithm behind a test", objectives.elbo, "the two tests agree, and the values do not meet", "jump",
    model=likelihood(lambda z: dist.Normal(xp.where(z > 0, xp.log(xp.where(z > 0, z + 2.0, 1.0)), 0.0), 1.0), 1.0),
)  # fmt: skip
