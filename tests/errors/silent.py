"""Mistakes that both libraries take in silence, and that make the numbers wrong, or of no use."""

import numpy as np

import ppvi
from ppvi.errors import BiasWarning
from ppvi.objectives import thermodynamic
from tests.engines import PYRO
from tests.errors.table import PROGRAM, STRATEGY, Case, mistake, mistakes

HERE = "tests/errors/silent.py:"


def read_by(read, scale=True):
    """A gradient of a guide whose location is what is read out of its parameter."""

    def gradient(e: Case):
        def guide(y):
            loc = read(e.ppl.param("loc", e.array(0.1)))
            width = e.ppl.param("scale", e.array(1.2), constraint=e.dist.constraints.positive) if scale else 1.0
            e.ppl.sample("mean", e.dist.Normal(loc, width))

        e.gradient(guide=guide)

    return gradient


mistakes(
    BiasWarning,
    ("a parameter read by item", read_by(lambda x: x.item()), "'loc'", HERE, "no gradient"),
    ("a parameter read by float", read_by(lambda x: float(x.detach())), "'loc'", HERE, "no gradient"),
    ("a parameter read by numpy", read_by(lambda x: float(x.detach().numpy())), "'loc'", HERE, "no gradient"),
    on=PYRO,
)


mistakes(
    PROGRAM,
    ("the only parameter read by item", read_by(lambda x: x.item(), scale=False), "does not depend on any", "'loc'", HERE),
    ("the only parameter read and held", read_by(lambda x: float(x.detach()), scale=False), "does not depend on any", "'loc'", HERE),
    on=PYRO,
)  # fmt: skip


def counted(total, counts):
    def first(e: Case):
        def model(y):
            e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
            e.ppl.sample("votes", e.dist.Multinomial(total, e.xp.ones(3) / 3), obs=y)

        e.objective(model=model).init(e.key, e.array(counts))

    return first


mistakes(
    PROGRAM,
    ("counts of more than their total", counted(10, [5, 6, 7]), "'votes'", "Multinomial", "total_count", HERE),
    ("counts below nothing", counted(10, [5, 6, -1]), "'votes'", "Multinomial", "total_count", HERE),
)


def keyword(**named):
    def gradient(e: Case):
        def guide(y):
            e.ppl.sample("mean", e.dist.Normal(e.ppl.param("loc", e.array(0.1)), 1.0), **named)

        e.gradient(guide=guide)

    return gradient


mistakes(
    PROGRAM,
    ("a sample of a shape", keyword(sample_shape=(3,)), "'mean'", HERE, "sample_shape=", "expand"),
    ("several samples", keyword(num_samples=3), "'mean'", HERE, "num_samples=", "expand"),
    on=PYRO,
)


@mistake(UserWarning, "'mean'", "'stratgey'", "Did you mean 'strategy'?", HERE)
def infer_that_is_misspelt(e):
    keyword(infer={"stratgey": ppvi.Reparam()})(e)


def estimated(value, gradient):
    """A check of an estimator that returns these."""
    return lambda e: ppvi.check_estimator(lambda key, params: (value, gradient), {"a": 1.0}, progress=False)


mistakes(
    PROGRAM,
    ("a value that is text", estimated("1", {"a": 1.0}), "the value", "'1'"),
    ("a gradient that is text", estimated(1.0, {"a": "one"}), "the gradient of 'a'", "'one'"),
    ("a gradient of another shape", estimated(1.0, {"a": np.ones(3)}), "the gradient of 'a'", "shape ()", "(3,)"),
    ("betas that are a number", lambda e: e.objective(thermodynamic(10, 5)), "betas", "10", "list"),
    ("an update without states", lambda e: e.bound.update(e.key, e.params, e.y), "update", "states"),
)
mistakes(
    STRATEGY,
    ("a text for strategies", lambda e: e.vi.strategies(e.guide, "reparam"), "'reparam'", "by site"),
    ("strategies before the program", lambda e: e.vi.strategies({"mean": ppvi.Reparam()}, e.guide), "by site", "guide"),
)


def of_a_set(distribution, shape):
    """A gradient of a site that the model draws from a set without an interior, and the guide from Normals."""

    def gradient(e: Case):
        def model(y):
            e.ppl.sample("weights", distribution(e))

        def guide(y):
            loc = e.ppl.param("loc", e.array(np.full(shape, 0.3)))
            e.ppl.sample("weights", e.dist.Normal(loc, 1.0).to_event(len(shape)))

        e.gradient(model=model, guide=guide)

    return gradient


mistakes(
    BiasWarning,
    ("shares drawn from normals", of_a_set(lambda e: e.dist.Dirichlet(e.xp.ones(3)), (3,)), "'weights'", "Dirichlet", "same support"),
    ("correlations drawn from normals", of_a_set(lambda e: e.dist.LKJCholesky(3, 1.0), (3, 3)), "'weights'", "LKJCholesky", "same support"),
)  # fmt: skip


@mistake(UserWarning, "'z'", "is along axis", "where it is drawn", "same dim in both")
def plates_on_swapped_axes(e):
    def grid(fn, dims):
        with e.ppl.plate("a", 3, dim=dims[0]), e.ppl.plate("b", 3, dim=dims[1]):
            e.ppl.sample("z", fn)

    def model(y):
        grid(e.dist.Normal(0.0, 1.0), (-2, -1))

    def guide(y):
        grid(e.dist.Normal(e.ppl.param("loc", e.array(np.zeros(3))), 1.0), (-1, -2))

    e.gradient(model=model, guide=guide)


@mistake(UserWarning, "batches=", "shape (5,)", "one number", "[y]")
def batches_of_one_number(e):
    e.vi.fit(e.bound, e.key, batches=e.y, num_steps=2, progress=False)
