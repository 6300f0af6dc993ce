"""Supports of transformed distributions: which are images of where the base has mass, and not what the transform may return."""

from __future__ import annotations

from ppvi import LeaveOneOut, Reinforce, Reparam, objectives
from tests.corpus.distributions import changed, density, model_of, observing
from tests.corpus.programs import ABSENT, of, right, wrong
from tests.engines import dist, nn, ppl, xp


def image(base, *transforms):
    return dist.TransformedDistribution(base, list(transforms))


def affine(loc, scale):
    return dist.transforms.AffineTransform(loc, scale)


def exp():
    return dist.transforms.ExpTransform()


def positive(name="s"):
    return ppl.param(name, 0.7, constraint=dist.constraints.positive)


REPLAYED = (
    "Pyro's FoldedDistribution reads a number, so that programs with one are replayed, and nothing of them is proved"
)

# Drawn from ----------------------------------------------------------------------------------------------------------------

FIXED = "the ends of the support are no functions of the parameter, so that a score sees all of the gradient"
for _name, _draw in (
    ("scaled", lambda: image(dist.Exponential(1.0), affine(0.0, positive()))),
    ("scaled by any number", lambda: image(dist.Exponential(1.0), affine(0.0, ppl.param("c", 0.7)))),
    ("reflected", lambda: image(dist.Exponential(1.0), affine(0.0, -positive()))),
    ("shifted by a number", lambda: image(dist.Gamma(2.0, positive()), affine(1.5, -2.0))),
    ("power", lambda: image(dist.Gamma(2.0, 1.0), dist.transforms.PowerTransform(positive()))),
    ("logistic", lambda: image(dist.Uniform(0.0, 1.0), dist.transforms.SigmoidTransform().inv, affine(positive(), 0.7))),
    ("folded", lambda: dist.FoldedDistribution(dist.Normal(positive(), 1.0))),
    ("back again", lambda: image(dist.LogNormal(positive(), 1.0), exp().inv, affine(positive(), 2.0))),
):  # fmt: skip
    for _strategy in (Reinforce(), LeaveOneOut(2)):
        right(
            f"{_name}, {_strategy}", of(lambda z: xp.sin(z)), FIXED, guide=model_of(_draw), strategies={"z": _strategy},
            not_on_pyro=REPLAYED if _name == "folded" else "",
        )  # fmt: skip

CARRIED = "the draw moves with its support, and the objective is continuous up to the ends"
for _name, _draw in (
    ("shifted", lambda: image(dist.Exponential(1.0), affine(positive(), 1.0))),
    ("stretched", lambda: image(dist.Uniform(0.0, 1.0), affine(0.0, positive()))),
    ("Pareto by hand", lambda: image(dist.Exponential(1.0), affine(positive(), 1.0), exp())),
):  # fmt: skip
    right(f"{_name}, by path", of(lambda z: xp.sin(z)), CARRIED, guide=model_of(_draw), strategies={"z": Reparam()})

# A density that is asked elsewhere -----------------------------------------------------------------------------------------

SHARED = "the guide has mass in the model's support only"
for _name, _model, _guide in (
    ("scaled in a half line", lambda: dist.HalfNormal(1.0), lambda: image(dist.Exponential(1.0), affine(0.0, positive()))),
    ("shifted in a Pareto", lambda: dist.Pareto(1.0, 2.0), lambda: image(dist.Exponential(positive()), affine(1.0, 1.0))),
    ("shifted further", lambda: image(dist.Gamma(2.0, 1.0), affine(1.0, 1.0)), lambda: image(dist.Exponential(positive()), affine(2.0, 1.0))),
    ("stretched Beta", lambda: dist.Uniform(-1.0, 1.0), lambda: image(dist.Beta(1.0 + positive(), 2.0), affine(-1.0, 2.0))),
    ("exponential of a number above 0", lambda: dist.Pareto(1.0, 2.0), lambda: image(dist.Exponential(positive()), exp())),
    ("shifted up by a parameter", lambda: dist.HalfNormal(1.0), lambda: image(dist.Exponential(1.0), affine(positive(), 1.0))),
):  # fmt: skip
    right(_name, objectives.elbo, SHARED, model=model_of(_model), guide=model_of(_guide), strategies={"z": Reparam()})

BEYOND = "the guide draws where the model's density is zero"
for _name, _model, _guide in (
    ("below a shifted one", lambda: image(dist.LogNormal(0.0, 1.0), affine(1.0, 1.0)), lambda: dist.LogNormal(positive(), 1.0)),
    ("shifted below", lambda: dist.Exponential(1.0), lambda: image(dist.Exponential(positive()), affine(-1.0, 1.0))),
    ("on the other side", lambda: dist.HalfNormal(1.0), lambda: image(dist.Exponential(1.0), affine(0.0, -positive()))),
    ("outside of a Uniform", lambda: dist.Uniform(0.5, 2.0), lambda: dist.Beta(1.0 + positive(), 2.0)),
):  # fmt: skip
    wrong(_name, objectives.elbo, BEYOND, "support", model=model_of(_model), guide=model_of(_guide))

CUT = "the likelihood is zero on one side of the draw"


def with_location(likelihood):
    """A number that is observed under a distribution given a draw of a Normal."""

    def model():
        ppl.sample("x", likelihood(ppl.sample("z", dist.Normal(0.0, 1.0))), obs=1.0)

    return model


for _name, _likelihood in (
    ("shifted exponential", lambda z: image(dist.Exponential(1.0), affine(z, 1.0))),
    ("mixture of shifted ones", lambda z: dist.MixtureSameFamily(dist.Categorical(xp.ones(2) / 2), image(dist.Exponential(xp.ones(2)), affine(z, 1.0)))),
    ("folded Uniform", lambda z: dist.FoldedDistribution(dist.Uniform(z, z + 3.0))),
):  # fmt: skip
    wrong(
        f"under a {_name}", density, CUT, "moving density", model=with_location(_likelihood),
        not_on_pyro=REPLAYED if _name == "folded Uniform" else "",
    )  # fmt: skip
    right(
        f"under a {_name}, by score", density, "a score needs no continuity", model=with_location(_likelihood),
        strategies={"z": Reinforce()}, not_on_pyro=REPLAYED if _name == "folded Uniform" else "",
    )  # fmt: skip
right(
    "under a scaled exponential", density, "its support is the half line whatever the scale",
    model=with_location(lambda z: image(dist.Exponential(1.0), affine(0.0, xp.exp(z)))),
)  # fmt: skip
wrong("residual of a draw", density, CUT, "support", verdict="suspect", model=observing(lambda: dist.HalfNormal(1.0), lambda z: 0.5 - z))  # fmt: skip
wrong(
    "mixture that begins at 0", density, "one of its components jumps at 0", "support", verdict="suspect",
    model=observing(lambda: dist.MixtureGeneral(dist.Categorical(xp.ones(2) / 2), [dist.Normal(0.0, 1.0), dist.HalfNormal(1.0)], support=dist.constraints.real)),
    not_on_pyro=ABSENT,
)  # fmt: skip

# Choices that are transformed by hand --------------------------------------------------------------------------------------

BIJECTION = "the map takes all draws into the support, and the Jacobian is there"


def log_slope_of_sigmoid(u):
    return -nn.softplus(u) - nn.softplus(-u)


for _name, _model, _f, _slope in (
    ("sigmoid into a Uniform", lambda: dist.Uniform(-1.0, 2.0), lambda u: 3.0 * nn.sigmoid(u) - 1.0, log_slope_of_sigmoid),
    ("tanh into a stretched Beta", lambda: image(dist.Beta(2.0, 2.0), affine(-1.0, 2.0)), lambda u: xp.tanh(u), lambda u: log_slope_of_sigmoid(2.0 * u)),
    ("1 + exp into a shifted lognormal", lambda: image(dist.LogNormal(0.0, 1.0), affine(1.0, 1.0)), lambda u: 1.0 + xp.exp(u), lambda u: u),
    ("-exp into a reflected exponential", lambda: image(dist.Exponential(1.0), affine(0.0, -1.0)), lambda u: -xp.exp(u), lambda u: u),
):  # fmt: skip
    right(_name, changed(_f, _slope), BIJECTION, model=model_of(_model))
wrong(
    "exp into a shifted exponential", changed(lambda u: xp.exp(u), lambda u: u), "exp(u) is below 1 for some draws", "support",
    verdict="suspect", model=model_of(lambda: image(dist.Exponential(1.0), affine(1.0, 1.0))),
)  # fmt: skip

# Bounds that never pass a value -------------------------------------------------------------------------------------------

for _name, _bound in (("a square", lambda z: z * z + 2.0), ("exp", lambda z: xp.exp(z) + 1.6), ("softplus", lambda z: nn.softplus(z) + 2.0)):  # fmt: skip
    right(
        f"datum below {_name}", density, "the upper end is above the datum whatever the draw is",
        model=with_location(lambda z, end=_bound: dist.Uniform(0.0, end(z))),
    )  # fmt: skip
wrong(
    "datum that an end passes", density, CUT, "moving density",
    model=with_location(lambda z: dist.Uniform(0.0, z * z + 0.5)),
)  # fmt: skip
