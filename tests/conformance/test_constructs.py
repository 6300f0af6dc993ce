"""Constructs of both libraries: effect handlers and reparameterisations."""

import numpy as np
import numpyro
import pyro
import pytest
from numpyro.infer.reparam import CircularReparam, ExplicitReparam
from pyro.contrib.autoname import scope
from scipy.stats import norm, vonmises

from ppvi import Enumerate
from ppvi.objectives import elbo
from tests.conformance.constructs import Refusal, Row, cases, nothing, points, refusal, wrong
from tests.conformance.test_constructs_structure import factor_in_the_guide
from tests.engines import NUMPYRO, PYRO, dist, handlers, infer, ppl, xp

X = 0.7
AB = dict(a=0.4, b=1.3)
ABM = dict(**AB, m=-0.6)
THREE = np.array([0.5, -1.0, 0.3])


def log(x, loc=0.0, scale=1.0):
    return norm.logpdf(x, loc, scale).sum()


def chain():
    """z ~ Normal(a, 1), x ~ Normal(z, b)"""
    z = ppl.sample("z", dist.Normal(ppl.param("a"), 1.0))
    ppl.sample("x", dist.Normal(z, ppl.param("b")), obs=X)


def joint(a, b, z=0.3):
    return log(z, a) + log(X, z, b)


# Handlers that give or take values ----------------------------------------------------------------------------------------


def condition():
    return handlers.condition(chain, data={"z": xp.array(0.3)}), nothing


def substitute():
    return handlers.substitute(chain, data={"a": xp.array(0.9)}), points(z="m")


def do_numpyro():
    """The site itself stays, and those after it see what is put in its place."""
    return handlers.do(chain, data={"z": xp.array(0.3)}), points(z="m")


def uncondition():
    return handlers.uncondition(chain), points(z="m", x="y")


def lift():
    return handlers.lift(chain, prior={"a": dist.Normal(xp.array(0.2), 2.0)}), points(z="m", a="at")


def replay_numpyro():
    known = handlers.condition(_normal_guide, data={"z": xp.array(0.3)})
    trace = handlers.trace(handlers.substitute(known, data={"m": xp.array(0.0)})).get_trace()
    trace["z"]["is_observed"] = False
    return chain, handlers.replay(_normal_guide, trace)


def replay_pyro():
    trace = pyro.poutine.trace(lambda: pyro.sample("z", dist.Normal(0.0, 1.0))).get_trace()
    trace.nodes["z"]["value"] = xp.array(0.3)
    return chain, pyro.poutine.replay(_normal_guide, trace=trace)


def _normal_guide():
    ppl.sample("z", dist.Normal(ppl.param("m"), 1.0))


# Handlers that change what counts -----------------------------------------------------------------------------------------


def block_hide():
    def model():
        chain()
        ppl.sample("y", dist.Normal(ppl.param("b"), 1.0), obs=2.0)

    return handlers.block(model, hide=["y"]), points(z="m")


def block_expose():
    def model():
        chain()
        ppl.sample("y", dist.Normal(0.0, 1.0), obs=2.0)

    return handlers.block(model, expose=["z", "x", "a", "b"]), points(z="m")


def scale():
    return handlers.scale(chain, scale=2.5), points(z="m")


def masked(mask):
    def make():
        def model():
            with ppl.plate("rows", 3), handlers.mask(mask=mask if isinstance(mask, bool) else xp.array(mask)):
                ppl.sample("x", dist.Normal(ppl.param("a"), ppl.param("b")), obs=THREE)
            ppl.sample("y", dist.Normal(ppl.param("a"), 1.0), obs=X)

        return model, nothing

    return make


def mask_of_all():
    return handlers.mask(chain, mask=False), points(z="m")


def obs_mask():
    def model():
        with ppl.plate("rows", 3):
            a = ppl.param("a")
            ppl.sample("x", dist.Normal(a, ppl.param("b")), obs=THREE, obs_mask=xp.array([True, False, True]))

    def guide():
        with ppl.plate("rows", 3):
            ppl.sample("x_unobserved", dist.Delta(ppl.param("m")))

    return model, guide


def seed_in_the_model(seed):
    return lambda: (seed(chain, rng_seed=0), points(z="m"))


def scope_numpyro():
    return handlers.scope(chain, prefix="s"), points(**{"s/z": "m"})


def scope_pyro():
    return scope(chain, prefix="s"), points(**{"s/z": "m"})


def trace_inside():
    """What a program finds in its own trace is as what it samples."""

    def model():
        tr = handlers.trace(chain).get_trace()
        nodes = getattr(tr, "nodes", tr)
        ppl.factor("more", -0.5 * (nodes["z"]["value"] - ppl.param("a")) ** 2)

    return model, points(z="m")


def infer_config():
    def guide():
        ppl.sample("k", dist.Bernoulli(logits=ppl.param("l")))

    def model():
        k = ppl.sample("k", dist.Bernoulli(probs=xp.array(0.3)))
        ppl.sample("x", dist.Normal(k * ppl.param("a"), 1.0), obs=X)

    return model, handlers.infer_config(
        guide, config_fn=lambda site: {"strategy": Enumerate()} if site["name"] == "k" else {}
    )


def of_coin(l, a):  # noqa: E741
    q = 1 / (1 + np.exp(-l))
    return q * (np.log(0.3 / q) + log(X, a)) + (1 - q) * (np.log(0.7 / (1 - q)) + log(X))


def collapse():
    def model():
        a, b = ppl.param("a"), ppl.param("b")
        with handlers.collapse():
            p = ppl.sample("p", dist.Beta(a, b))
            ppl.sample("x", dist.Bernoulli(probs=p), obs=xp.array(1.0))

    return model, nothing


# Reparameterisations ------------------------------------------------------------------------------------------------------


def reparam(program, **config):
    return handlers.reparam(program, config={name: make() for name, make in config.items()})


def spread():
    """z ~ Normal(a, b), x ~ Normal(z, 1)"""
    z = ppl.sample("z", dist.Normal(ppl.param("a"), ppl.param("b")))
    ppl.sample("x", dist.Normal(z, 1.0), obs=X)


def loc_scale(centered):
    def make():
        return reparam(spread, z=lambda: infer.reparam.LocScaleReparam(centered)), points(
            z="m"
        ) if centered == 1 else points(z_decentered="m")

    def exact(a, b, m):
        if centered == 1:
            return log(m, a, b) + log(X, m)
        return log(m, a * centered, b**centered) + log(X, a + b ** (1 - centered) * (m - a * centered))

    return Row(f"LocScaleReparam {centered}", make, exact, ABM)


def loc_scale_learned():
    """How centred a site is, is a parameter of the strategy of the library."""
    return reparam(spread, z=lambda: infer.reparam.LocScaleReparam()), points(z_decentered="m")


def transform_reparam():
    def model():
        base = dist.Normal(xp.array(0.0), xp.array(1.0))
        move = dist.transforms.AffineTransform(ppl.param("a"), ppl.param("b"))
        z = ppl.sample("z", dist.TransformedDistribution(base, [move, dist.transforms.ExpTransform()]))
        ppl.sample("x", dist.Normal(z, 1.0), obs=X)

    return reparam(model, z=lambda: infer.reparam.TransformReparam()), points(z_base="m")


def projected_normal():
    def model():
        v = ppl.sample("v", dist.ProjectedNormal(ppl.param("c")))
        ppl.sample("x", dist.Normal(v[0], 1.0), obs=X)

    return reparam(model, v=lambda: infer.reparam.ProjectedNormalReparam()), points(v_normal="m")


def circular():
    def model():
        z = ppl.sample("z", dist.VonMises(ppl.param("a"), ppl.param("b")))
        ppl.sample("x", dist.Normal(z, 1.0), obs=X)

    return reparam(model, z=CircularReparam), points(z_unwrapped="m")


def explicit():
    return reparam(spread, z=lambda: ExplicitReparam(dist.transforms.AffineTransform(0.5, 2.0))), points(z_base="m")


ROWS = [
    Row("condition", condition, joint, AB),
    Row("substitute", substitute, lambda b, m: joint(0.9, b, m), dict(b=1.3, m=-0.6)),
    Row("do", do_numpyro, lambda a, b, m: log(m, a) + log(X, 0.3, b), ABM),
    Row("uncondition", uncondition, lambda a, b, m, y: log(m, a) + log(y, m, b), dict(**ABM, y=0.2)),
    Row("lift", lift, lambda b, m, at: log(at, 0.2, 2.0) + joint(at, b, m), dict(b=1.3, m=-0.6, at=0.5)),
    Row("replay", replay_numpyro, lambda a, b, m: joint(a, b) - log(0.3, m), ABM, (NUMPYRO,)),
    Row("replay", replay_pyro, lambda a, b, m: joint(a, b) - log(0.3, m), ABM, (PYRO,)),
    Row("block hide", block_hide, lambda a, b, m: joint(a, b, m), ABM),
    Row("block expose", block_expose, lambda a, b, m: joint(a, b, m), ABM),
    Row("scale", scale, lambda a, b, m: 2.5 * joint(a, b, m), ABM),
    Row("mask by a tensor", masked([True, False, True]), lambda a, b: log(THREE[[0, 2]], a, b) + log(X, a), AB),
    Row("mask True", masked(True), lambda a, b: log(THREE, a, b) + log(X, a), AB),
    Row("mask False", masked(False), lambda a, b: log(X, a), AB),
    Row("mask False around a latent", mask_of_all, lambda a, b, m: 0.0, ABM),
    Row("obs_mask", obs_mask, lambda a, b, m: log([0.5, m[1], 0.3], a, b), dict(**AB, m=[0.1, 0.2, 0.4])),
    Row("seed in the model", seed_in_the_model(numpyro.handlers.seed), lambda a, b, m: joint(a, b, m), ABM, (NUMPYRO,)),
    Row("seed in the model", seed_in_the_model(pyro.poutine.seed), lambda a, b, m: joint(a, b, m), ABM, (PYRO,)),
    Row("seed in the guide", lambda: (chain, handlers.seed(_normal_guide, 0)), lambda a, b, m: joint(a, b, m) - 0.5 / b**2 - log(0), ABM, (NUMPYRO,), 1000),
    Row("scope", scope_numpyro, lambda **p: joint(p["s/a"], p["s/b"], p["m"]), {"s/a": 0.4, "s/b": 1.3, "m": -0.6}, (NUMPYRO,)),
    Row("scope", scope_pyro, lambda a, b, m: joint(a, b, m), ABM, (PYRO,)),
    Row("trace inside", trace_inside, lambda a, b, m: joint(a, b, m) - 0.5 * (m - a) ** 2, ABM),
    Row("infer_config", infer_config, of_coin, dict(l=0.6, a=1.2)),
    Row("collapse", collapse, lambda a, b: np.log(a / (a + b)), AB),
    *(loc_scale(c) for c in (0.0, 0.4, 1.0)),
    Row("LocScaleReparam learned", loc_scale_learned, lambda **p: loc_scale(p.pop("z_centered")).exact(**p), {**ABM, "z_centered": 0.4}),
    Row("TransformReparam", transform_reparam, lambda a, b, m: log(m) + log(X, np.exp(a + b * m)), ABM),
    Row("ProjectedNormalReparam", projected_normal, lambda c, m: log(m) + log(X, (m + c)[0] / np.linalg.norm(m + c)), dict(c=[0.5, -0.2], m=[1.0, 0.8])),
    Row("CircularReparam", circular, lambda a, b, m: vonmises.logpdf(m, b, a) + log(X, (m + np.pi) % (2 * np.pi) - np.pi), dict(a=0.4, b=1.3, m=4.0), (NUMPYRO,)),
    Row("ExplicitReparam", explicit, lambda a, b, m: log((m - 0.5) / 2, a, b) - np.log(2) + log(X, (m - 0.5) / 2), ABM, (NUMPYRO,)),
]  # fmt: skip


@pytest.mark.parametrize(("row", "engine"), cases(ROWS))
def test_right(row, engine):
    assert wrong(row, engine) == []


def test_another_objective_is_seen():
    assert wrong(ROWS[0], NUMPYRO, lambda p, q: 1.001 * elbo(p, q)) != []


REFUSALS = [
    Refusal(
        "seed in the guide",
        lambda: (chain, pyro.poutine.seed(_normal_guide, 0)),
        ("would have the same draws", "leave out"),
        ABM,
        (PYRO,),
    ),
    Refusal(
        "factor in the guide, no has_rsample", factor_in_the_guide(), ("'f' of the guide", "has_rsample="), ABM, (PYRO,)
    ),
]


@pytest.mark.parametrize(("row", "engine"), cases(REFUSALS))
def test_refused(row, engine):
    said = refusal(row, engine)
    assert all(word in said for word in row.words), said
