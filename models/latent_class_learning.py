"""Travellers who choose again and again and learn from what happens, each of a class with a learning rate of its own.

    share ~ Dirichlet(2)    logit rate_k ~ N(-1, 1.5)    weight_k ~ N(0, 2)    taste_k ~ N(0, 2)
    class_n ~ Categorical(share)
    value_{n,1} = 0    value_{n,t+1} = value_{n,t} + rate_k seen_{n,t} (feedback_{n,t} - value_{n,t})
    choice_{n,t} ~ Categorical(softmax(taste_k x_{n,t} + weight_k value_{n,t}))    with k = class_n

The value of an alternative is a moving average of its feedback, by the rule of Rescorla and Wagner, "A theory of Pavlovian
conditioning", 1972. Where the feedback is how the journey was, the rate is that of experience; where it is the choice itself,
the value is a habit. The prior is the same for all classes, so that draws are put in the order of the rates afterwards.

Sfeir, Hess, Hancock, Rodrigues, Rad, Bliemer, Beck and Khan, "A Bayesian latent class reinforcement learning framework to
capture adaptive, feedback-driven travel behaviour", 2025.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import Predictive

from models.datasets import swissmetro

SITES = ("share", "speed", "weight", "taste")


class Panel(NamedTuple):
    """Choices of travellers, one after another."""

    x: jax.Array
    """What is known of alternatives beforehand, `(traveller, time, alternative, attribute)`."""
    choice: jax.Array
    """`(traveller, time)`."""
    feedback: jax.Array
    """What each alternative was worth, `(traveller, time, alternative)`."""
    seen: jax.Array
    """Whether the traveller saw that, 0 or 1, in the same shape."""


def panel(x, choice, feedback, seen):
    """Of NumPy's arrays."""
    x, feedback, seen = (jnp.asarray(each, jnp.float32) for each in (x, feedback, seen))
    return Panel(x, jnp.asarray(choice, jnp.int32), feedback, seen)


def values(rate, panel):
    """What alternatives are worth before each choice, `(class, traveller, time, alternative)`, at the rate of each class."""

    def learn(value, now):
        feedback, seen = now
        return value + rate[:, None, None] * seen * (feedback - value), value

    start = jnp.zeros((len(rate), *panel.seen[:, 0].shape))
    each = (panel.feedback.swapaxes(0, 1), panel.seen.swapaxes(0, 1))
    return jnp.moveaxis(jax.lax.scan(learn, start, each)[1], 0, 2)


def scores(speed, weight, taste, panel):
    """Log odds of each choice, `(class, traveller, time, alternative)`; `speed` is the logit of the rate."""
    known = jnp.einsum("ntap,kp->knta", panel.x, taste)
    return known + weight[:, None, None, None] * values(jax.nn.sigmoid(speed), panel)


def model(panel, k=2):
    share = numpyro.sample("share", dist.Dirichlet(jnp.full(k, 2.0)))
    speed = numpyro.sample("speed", dist.Normal(-1.0, 1.5).expand([k]).to_event(1))
    weight = numpyro.sample("weight", dist.Normal(0.0, 2.0).expand([k]).to_event(1))
    taste = numpyro.sample("taste", dist.Normal(0.0, 2.0).expand([k, panel.x.shape[-1]]).to_event(2))
    by_class = scores(speed, weight, taste, panel).swapaxes(0, 1)
    with numpyro.plate("travellers", len(panel.choice)) as rows:
        c = numpyro.sample("class", dist.Categorical(share))
        numpyro.sample("choice", dist.Categorical(logits=by_class[rows, c]).to_event(1), obs=panel.choice)


def log_density_by_class(draw, panel):
    """Of each traveller's choices and class together, `(traveller, class)`: its exponentials add up to the likelihood."""
    by_class = scores(draw["speed"], draw["weight"], draw["taste"], panel)
    each = dist.Categorical(logits=by_class).log_prob(panel.choice).sum(2)
    return (jnp.log(draw["share"])[:, None] + each).T


def in_order(draws):
    """Draws `(..., class, ...)` by site, with the slower class first."""
    order = draws["speed"].argsort(-1)
    places = {name: order.reshape(order.shape + (1,) * (draws[name].ndim - order.ndim)) for name in SITES}
    return {name: np.take_along_axis(np.asarray(draws[name]), place, order.ndim - 1) for name, place in places.items()}


def draws_of(bound, fit, panel):
    """1,000 of a guide, in order."""
    return in_order(Predictive(bound.guide, params=fit.params, num_samples=1000)(jax.random.key(0), panel))


@jax.jit
def foreseen(draws, panel):
    """Mean log probability of a choice of new travellers, and the probabilities of their classes, in the mean of draws."""
    joint = jax.lax.map(lambda draw: log_density_by_class(draw, panel), draws)
    each = jax.scipy.special.logsumexp(joint, (0, 2)) - jnp.log(len(joint))
    return each.mean() / panel.choice.shape[1], jax.nn.softmax(joint, 2).mean(0)


def static(panel):
    """Without feedback, so that nobody learns."""
    return panel._replace(feedback=jnp.zeros_like(panel.feedback))


TRUTH = {
    "share": np.array([0.6, 0.4]),
    "speed": np.log([0.1 / 0.9, 0.6 / 0.4]),
    "weight": np.array([4.0, 2.0]),
    "taste": np.array([[-1.0], [-0.3]]),
}


def truth(panel):
    """A guide that knows."""
    for name, value in TRUTH.items():
        numpyro.sample(name, dist.Delta(jnp.asarray(value, jnp.float32), event_dim=value.ndim))


def by_hand(panel):
    """Log-likelihood of the truth, with classes summed out."""
    return jax.scipy.special.logsumexp(log_density_by_class(TRUTH, panel), 1).sum()


def simulated(n, times, seed):
    """Travellers with two routes, of which one is the faster for ten journeys and then the other; a journey is worth 0.7 on
    the faster and -0.7 on the slower, with noise of 0.7, and only the route that is taken is seen. Each route has a toll that
    changes from day to day, which is known. Returns the panel and the classes.
    """
    rng = np.random.default_rng(seed)
    c = rng.choice(2, n, p=TRUTH["share"])
    rate, weight, taste = (
        each[c] for each in (1 / (1 + np.exp(-TRUTH["speed"])), TRUTH["weight"], TRUTH["taste"][:, 0])
    )
    x, faster = rng.normal(size=(n, times, 2, 1)), np.arange(times)[:, None] // 10 % 2 == np.arange(2)
    feedback = 0.7 * np.where(faster, 1, -1) + 0.7 * rng.normal(size=(n, times, 2))
    value, seen = np.zeros((n, 2)), np.zeros((n, times, 2))
    for t in range(times):
        odds = taste[:, None] * x[:, t, :, 0] + weight[:, None] * value
        seen[:, t] = np.eye(2)[(odds + rng.gumbel(size=(n, 2))).argmax(1)]
        value += rate[:, None] * seen[:, t] * (feedback[:, t] - value)
    return panel(x, seen.argmax(2), feedback, seen), c


def commuters(seed, n):
    """Nine choices each of n people with a car, on their way to work or on business, and of the rest of these: constants of
    Swissmetro and car, hours and hundreds of francs. Fares are zero for holders of a general season ticket. The feedback is the
    choice itself.
    """
    data = swissmetro()
    kept = np.isin(data["PURPOSE"], (1, 3)) & (data["CAR_AV"] == 1) & (data["CHOICE"] > 0)
    people = data["ID"][kept].reshape(-1, 9)
    assert (people == people[:, :1]).all()

    def of(kind, *names):
        paid = 1 - data["GA"] if kind == "CO" else 1
        return np.stack([data[f"{name}_{kind}"] * (1 if name == "CAR" else paid) for name in names], 1)[kept]

    names = ("TRAIN", "SM", "CAR")
    constants = np.broadcast_to(np.eye(3)[:, 1:], (kept.sum(), 3, 2))
    x = np.concatenate([constants, np.stack([of("TT", *names) / 60, of("CO", *names) / 100], 2)], 2)
    choice = data["CHOICE"][kept].reshape(-1, 9) - 1
    rows = np.random.default_rng(seed).permutation(len(people))
    x = x.reshape(-1, 9, 3, 4)
    return [panel(x[i], choice[i], np.eye(3)[choice[i]], np.ones((len(i), 9, 3))) for i in (rows[:n], rows[n:])]
