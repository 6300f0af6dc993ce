"""Mistakes with plates and with the shapes of sites."""

from tests.engines import NUMPYRO, PYRO
from tests.errors.table import PROGRAM, N, mistake, mistakes

HERE = "tests/errors/plates.py:"


def heights(e, location, obs=lambda y: y, size=N, **options):
    """A model whose data are in a plate, with a location from the mean and the data."""

    def model(y):
        mean = e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
        with e.ppl.plate("rows", size, **options) as rows:
            e.ppl.sample("heights", e.dist.Normal(location(mean, y, rows), 1.0), obs=obs(y))

    return model


def in_plate(e, **options):
    return e.gradient(model=heights(e, lambda mean, y, rows: mean, **options))


mistakes(
    PROGRAM,
    ("axis zero", lambda e: in_plate(e, dim=0), "'rows'", "below zero", "0", HERE),
    ("axis from the left", lambda e: in_plate(e, dim=1), "'rows'", "below zero", "1", HERE),
    ("axis as a float", lambda e: in_plate(e, dim=-1.0), "'rows'", "-1.0", HERE),
    ("axis as a text", lambda e: in_plate(e, dim="rows"), "'rows'", "below zero", HERE),
    ("plate of none", lambda e: in_plate(e, size=0), "'rows'", "at least 1", "0", HERE),
    ("plate of less than none", lambda e: in_plate(e, size=-3), "'rows'", "at least 1", "-3", HERE),
    ("plate of a float", lambda e: in_plate(e, size=5.0), "'rows'", "5.0", HERE),
    ("plate of a text", lambda e: in_plate(e, size="5"), "'rows'", "'5'", HERE),
    ("plate of a shape", lambda e: in_plate(e, size=(N,)), "'rows'", "a tuple of length 1", HERE),
    ("plate of the data themselves", lambda e: in_plate(e, size=e.y), "'rows'", "shape (5,)", HERE),
    ("minibatch of none", lambda e: in_plate(e, subsample_size=0), "'rows'", "from 1 to 5", "0", HERE),
    ("minibatch of less than none", lambda e: in_plate(e, subsample_size=-2), "'rows'", "-2", HERE),
    ("minibatch of more than all", lambda e: in_plate(e, subsample_size=7), "'rows'", "from 1 to 5", "7", HERE),
    ("minibatch of half a row", lambda e: in_plate(e, subsample_size=2.5), "'rows'", "2.5", HERE),
    ("plate of fewer rows than the data", lambda e: in_plate(e, size=4), "'heights'", "(5,)", "'rows'", HERE),
    ("plate of one row", lambda e: in_plate(e, size=1), "'heights'", "(5,)", "'rows'", HERE),
    ("plate of fewer rows than a covariate", lambda e: e.gradient(model=heights(e, lambda mean, y, rows: mean * y, size=4)), "'heights'", "(5,)", "'rows'", HERE),
    ("data of a minibatch in full", lambda e: in_plate(e, subsample_size=2), "'heights'", "(5,)", "(2,)", HERE),
    ("covariate of a minibatch in full", lambda e: e.gradient(model=heights(e, lambda mean, y, rows: mean * y, obs=lambda y: y[:2], subsample_size=2)), "'heights'", "'rows'", HERE),
    ("data as a column", lambda e: in_plate(e, obs=lambda y: y[:, None]), "'heights'", "(5, 1)", "'rows'", HERE),
)  # fmt: skip


@mistake(UserWarning, "'heights'", "(5,)", "(5, 5)", "counts 5 times", "axis -2", "squeeze", HERE, on=NUMPYRO)
def square_likelihood(e):
    e.gradient(model=heights(e, lambda mean, y, rows: mean * y[:, None]))


@mistake(UserWarning, "'heights'", "(5, 5)", "counts 5 times", HERE, on=NUMPYRO)
def square_likelihood_in_a_fit(e):
    e.fit(e.objective(model=heights(e, lambda mean, y, rows: (mean * y)[:, None])))


@mistake(UserWarning, "'heights'", "(5, 1)", "(5, 5)", "counts 5 times", "axis -1", "squeeze", HERE, on=NUMPYRO)
def square_likelihood_of_columns(e):
    e.gradient(model=heights(e, lambda mean, y, rows: mean * y[:, None], obs=lambda y: y[:, None]))


@mistake(UserWarning, "'heights'", "(3, 5)", "counts 3 times", "a plate around the site", HERE, on=NUMPYRO)
def batch_axis_outside_of_every_plate(e):
    e.gradient(model=heights(e, lambda mean, y, rows: mean + e.xp.zeros((3, 1))))


@mistake(PROGRAM, "'heights'", "(5,)", "(5, 1)", "a plate", HERE, on=NUMPYRO)
def column_without_a_plate(e):
    def model(y):
        mean = e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
        e.ppl.sample("heights", e.dist.Normal(mean * y[:, None], 1.0), obs=y)

    e.gradient(model=model)


BARE = "'heights'", "no plate around it is along axis", "pyro.plate", ".to_event", "pyro.enable_validation(False)", HERE


for shape, likelihood in (
    ("(5, 5)", square_likelihood),
    ("(5, 5)", square_likelihood_in_a_fit),
    ("(3, 5)", batch_axis_outside_of_every_plate),
    ("(5, 1)", column_without_a_plate),
):
    mistake(PROGRAM, shape, *BARE, on=PYRO, called=f"{likelihood.__name__} of Pyro")(likelihood)


@mistake(PROGRAM, "'weights'", "(3,)", "'rows'", "of 5 rows", HERE, on=PYRO)
def parameter_of_other_rows_than_the_plate(e):
    def guide(y):
        with e.ppl.plate("rows", N):
            e.ppl.param("weights", e.xp.ones(3), event_dim=0)
        e.guide(y)

    e.gradient(guide=guide)


@mistake(PROGRAM, "'effect'", "'rows'", "'row'", "two minibatches", "the same name", HERE)
def minibatches_of_two_names(e):
    def program(name, effect):
        with e.ppl.plate(name, N, subsample_size=2) as rows:
            e.ppl.sample("effect", e.dist.Normal(effect[rows], 1.0))

    def guide(y):
        program("row", e.ppl.param("effects", e.xp.zeros(N)))

    e.gradient(model=lambda y: program("rows", y), guide=guide)


def two(e, first, second):
    """A model of data in two plates."""

    def model(y):
        mean = e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
        with e.ppl.plate(*first[:2], dim=first[2]), e.ppl.plate(*second[:2], dim=second[2]):
            e.ppl.sample("heights", e.dist.Normal(mean, 1.0), obs=y)

    return e.gradient(model=model)


mistakes(
    PROGRAM,
    ("two plates along one axis", lambda e: two(e, ("a", N, -1), ("b", N, -1)), "'b'", "axis -1", "dim=-2", HERE),
    ("a plate in itself", lambda e: two(e, ("a", N, -1), ("a", N, -2)), "'a'", HERE),
)  # fmt: skip


@mistake(PROGRAM, "'rows'", "3 rows", "4 rows", "different names", HERE)
def one_name_for_plates_of_two_sizes(e):
    def model(y):
        mean = e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
        for n, name in ((3, "first"), (4, "second")):
            with e.ppl.plate("rows", n):
                e.ppl.sample(name, e.dist.Normal(mean, 1.0), obs=y[:n])

    e.gradient(model=model)


def grouped(e, in_model, in_guide):
    """A gradient with a site that has an effect in each group, in the model and the guide by these functions."""

    def model(y):
        effect = in_model(e)
        with e.ppl.plate("rows", N):
            e.ppl.sample("heights", e.dist.Normal(effect.sum(), 1.0), obs=y)

    def guide(y):
        in_guide(e, e.ppl.param("loc", e.array(0.1)))

    return e.gradient(model=model, guide=guide)


def effects(size, **options):
    def sampled(e, loc=0.0):
        with e.ppl.plate("groups", size, **options):
            return e.ppl.sample("effect", e.dist.Normal(loc, 1.0))

    return sampled


def together(n):
    return lambda e, loc=0.0: e.ppl.sample("effect", e.dist.Normal(loc + e.xp.zeros(n), 1.0).to_event(1))


def alone(e, loc=0.0):
    return e.ppl.sample("effect", e.dist.Normal(loc, 1.0))


mistakes(
    PROGRAM,
    ("plates that differ in size", lambda e: grouped(e, effects(3), effects(4)), "'effect'", "(3,)", "(4,)", "same plates", HERE),
    ("plates that differ in axis", lambda e: grouped(e, effects(3), effects(3, dim=-2)), "'effect'", "(3,)", "(3, 1)", HERE),
    ("plate in the model only", lambda e: grouped(e, effects(3), alone), "'effect'", "(3,)", "()", HERE),
    ("plate in the guide only", lambda e: grouped(e, alone, effects(3)), "'effect'", "()", "(3,)", HERE),
    ("events that differ in size", lambda e: grouped(e, together(3), together(2)), "'effect'", "(3,)", "(2,)", "to_event", HERE),
    ("event in the model only", lambda e: grouped(e, together(3), alone), "'effect'", "event (3,)", HERE),
)  # fmt: skip


@mistake(Exception, "reinterpreted_batch_ndims", "ppvi was running the model")
def more_events_than_axes(e):
    e.gradient(model=lambda y: e.ppl.sample("mean", e.dist.Normal(0.0, 1.0).to_event(1)))


@mistake(TypeError, "missing 1 required positional argument: 'size'", "the model", on=NUMPYRO)
def plate_without_a_name(e):
    e.gradient(model=lambda y: e.ppl.plate(N))


@mistake(PROGRAM, "named 5", "plate(name, size)", HERE, on=PYRO)
def plate_with_a_number_for_a_name(e):
    def model(y):
        with e.ppl.plate(N):
            e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))

    e.gradient(model=model)


@mistake(PROGRAM, "'f'", "'rows' of 5 rows", HERE)
def factor_of_another_size_than_its_plate(e):
    def model(y):
        e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
        with e.ppl.plate("rows", N):
            e.ppl.factor("f", e.xp.zeros(3))

    e.gradient(model=model)


@mistake(Exception, "ppvi was running the model", "'mean'")
def mask_by_a_text(e):
    handled(e, lambda: e.handlers.mask(mask="all"))


@mistake(Exception, "scale", "ppvi was running the model", "'mean'")
def scale_below_zero(e):
    handled(e, lambda: e.handlers.scale(scale=-1.0))


def handled(e, handler):
    def model(y):
        mean = e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
        with handler(), e.ppl.plate("rows", N):
            e.ppl.sample("heights", e.dist.Normal(mean, 1.0), obs=y)

    return e.gradient(model=model)
