"""Jumps that cancel behind where they arise, or do not move with a parameter; and jumps to and from what is not a number."""

from tests.corpus.programs import of, pair, right, wrong
from tests.engines import dist, nn, ppl, xp


def step(z):
    return xp.sign(z)


def about_its_own_mean(p, q):
    return xp.sum(step(q.simulate()["z"] - ppl.param("loc", xp.array([0.3, -0.4]))))


CANCELS = {
    "summed with its negative": lambda z: xp.stack([step(z), -step(z)]),
    "a dot of equal jumps": lambda z: xp.stack([step(z[0]), step(z[0])]) @ xp.array([1.0, -1.0]),
    "a cumulated sum of jumps": lambda z: xp.cumsum(xp.stack([step(z[0]), -step(z[0])]), 0)[1],
    "jumps less their mean": lambda z: step(z) - xp.mean(step(z)),
    "times a matrix of zeros": lambda z: step(z) @ xp.zeros((2, 3)),
    "a whole and a fraction, summed apart": lambda z: xp.sum(xp.floor(z)) + xp.sum(z - xp.floor(z)),
    "differences of all pairs": lambda z: step(z)[:, None] - step(z)[None, :],
    "an entry that a mask leaves out": lambda z: (step(z) * xp.array([0.0, 1.0]))[0],
    "jumps in order": lambda z: xp.sort(xp.stack([step(z[0]), -step(z[0])])) * xp.array([1.0, 2.0]),
    "a step of a pair of opposites": lambda z: step(xp.stack([z, -z])),
    "two cases that are the same": lambda z: xp.where(z[0] > 0.4, z[0], xp.sort(xp.stack([z[0], z[0]]))[0]),
}
for name, function in CANCELS.items():
    right(name, of(function), "the jumps cancel in the sum", guide=pair, verdict="suspect")
right("a jump at the mean of its draw", about_its_own_mean, "it moves with no parameter", guide=pair, verdict="suspect")

REMAINS = {
    "a sum of jumps": step,
    "one jump in all data": lambda z: dist.Normal(xp.where(z[0] > 0, 1.0, -1.0), 1.0).log_prob(xp.array([0.3, 1.0, 2.0])),
    "a jump far away": lambda z: xp.where(z > 300.0, 1.0, 0.0),
    "a jump in a network": lambda z: xp.tanh(xp.floor(z) @ xp.ones((2, 3))),
    "a quantile that ends at 0": lambda z: xp.nan_to_num(dist.Normal(0.0, 1.0).icdf(nn.relu(z))),
    "a number or none, compared": lambda z: (xp.hypot(z, xp.sqrt(z)) > -0.8) * 1.0,
}  # fmt: skip
for name, function in REMAINS.items():
    wrong(name, of(function), "nothing cancels the jump", "jump", guide=pair)

wrong(
    "a quantile beyond (0, 1)",
    of(lambda z: xp.nan_to_num(dist.Normal(0.0, 1.0).icdf(z))),
    "it is NaN, and then a number",
    "jump",
    guide=pair,
    verdict="suspect",
    on_pyro="biased",
)
wrong(
    "log-gamma of a square",
    of(lambda z: nn.gammaln(z * z)),
    "its slope is -2 / z near 0",
    "jump",
    guide=pair,
    verdict="suspect",
)
