"""Mistakes with what comes out: posteriors, comparisons, MCMC, fits that are kept."""

import dataclasses
import tempfile

import jax
import numpy as np

import ppvi
from tests.data import arviz_data
from tests.engines import NUMPYRO, PYRO
from tests.errors.table import PROGRAM, Case, N, mistake, mistakes

DRAWS = {"mean": np.linspace(-1.0, 1.0, 100)}
PRIOR = {"mean": np.linspace(-1.0, 1.0, 100)[None]}


FITS = {}


def fitted(e):
    """A fit of two steps."""
    if e.engine.name not in FITS:
        FITS[e.engine.name] = Case(e.engine).fit()
    return FITS[e.engine.name]


def nuts(e, model=None, *args, **options):
    options = {"num_warmup": 2, "num_samples": 4, "num_chains": 1, "progress": False, **options}
    return e.vi.nuts(model or e.model, e.key, *(args or (e.y,)), **options)


def mixed(e):
    """A model with a discrete site and a continuous one."""

    def model(y):
        which = e.ppl.sample("which", e.dist.Poisson(2.0))
        mean = e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
        with e.ppl.plate("rows", N):
            e.ppl.sample("heights", e.dist.Normal(mean + which, 1.0), obs=y)

    return model


def of_batch(e, rows=None):
    """A model of a minibatch of 2 rows of 5, of which it knows no others."""

    def model(y):
        mean = e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
        with e.ppl.plate("rows", N, subsample_size=2, **({} if rows is None or e.is_numpyro else {"subsample": rows})):
            e.ppl.sample("heights", e.dist.Normal(mean, 1.0), obs=y[:2])

    return model


mistakes(
    PROGRAM,
    ("nuts of discrete sites", lambda e: nuts(e, e.discrete), "nuts", "'which'", "discrete", "Enumerate()"),
    ("nuts of a discrete site among others", lambda e: nuts(e, mixed(e)), "nuts", "'which'", "discrete"),
    ("nuts of a minibatch", lambda e: nuts(e, of_batch(e)), "'rows'", "all rows"),
    ("nuts of given rows", lambda e: nuts(e, of_batch(e, e.xp.arange(2))), "'rows'", "all rows"),
    ("nuts of an objective", lambda e: nuts(e, e.bound), "nuts", "objective.model"),
    ("nuts of nothing", lambda e: e.vi.nuts(None, e.key, e.y), "nuts", "model", "None"),
    ("nuts of a key", lambda e: e.vi.nuts(e.key, e.model, e.y), "nuts", "model"),
    ("no draws of nuts", lambda e: nuts(e, num_samples=0), "num_samples", "0"),
    ("draws of nuts as a float", lambda e: nuts(e, num_samples=1e3), "num_samples", "1000.0"),
    ("no chains", lambda e: nuts(e, num_chains=0), "num_chains", "0"),
    ("chains below zero", lambda e: nuts(e, num_chains=-1), "num_chains", "-1"),
    ("warmup below zero", lambda e: nuts(e, num_warmup=-1), "num_warmup", "-1"),
    ("acceptance of all", lambda e: nuts(e, target_accept_prob=1.5), "target_accept_prob", "1.5"),
    ("acceptance by a text", lambda e: nuts(e, target_accept_prob="0.8"), "target_accept_prob", "'0.8'"),
    ("option of another sampler", lambda e: nuts(e, num_draws=5), "'num_draws'", "model(y)"),
    ("data of nuts left out", lambda e: e.vi.nuts(e.model, e.key, progress=False), "model(y)"),
    ("nuts of NaN", lambda e: nuts(e, None, e.array(np.full(N, np.nan))), "'heights'", "5 NaN"),
    ("nuts of a covariate with gaps", lambda e: nuts(e, shifted(e), e.y, e.array(np.full(N, np.nan))), "nuts", "'x'", "NaN", "rows 0, 1, 2 and 2 more"),
    ("nuts of impossible data", lambda e: nuts(e, poisson(e), e.array(np.full(N, 0.5))), "'seen'", "Poisson"),
    ("nuts of no latent site", lambda e: nuts(e, lambda y: e.ppl.sample("y", e.dist.Normal(0.0, 1.0), obs=y)), "nuts", "latent"),
)  # fmt: skip


def shifted(e):
    def model(y, x):
        mean = e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
        with e.ppl.plate("rows", N):
            e.ppl.sample("seen", e.dist.Normal(mean + x, 1.0), obs=y)

    return model


def poisson(e):
    def model(y):
        e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
        with e.ppl.plate("rows", N):
            e.ppl.sample("seen", e.dist.Poisson(2.0), obs=y)

    return model


mistakes(
    PROGRAM,
    ("fit beside nothing", lambda e: ppvi.compare(fitted(e), None), "compare", "None"),
    ("fit beside the model", lambda e: ppvi.compare(fitted(e), e.model), "compare", "model"),
    ("fit beside a text", lambda e: ppvi.compare(fitted(e), "nuts"), "compare", "'nuts'"),
    ("fit beside a number", lambda e: ppvi.compare(fitted(e), 3.0), "compare", "3.0"),
    ("fit beside an array", lambda e: ppvi.compare(fitted(e), np.zeros(10)), "compare", "array of shape (10,)"),
    ("fit beside no draws", lambda e: ppvi.compare(fitted(e), {}), "compare", "no"),
    ("fit beside scalars", lambda e: ppvi.compare(fitted(e), {"mean": 0.5}), "compare", "(draws, ...)"),
    ("fit beside other names", lambda e: ppvi.compare(fitted(e), {"mu": DRAWS["mean"]}), "'mean'", "'mu'"),
    ("fit beside other shapes", lambda e: ppvi.compare(fitted(e), {"mean": np.zeros((4, 100, 3))}), "'mean'", "(draws, ...)", "(4, 100, 3)"),
    ("fit beside an array of another shape", lambda e: ppvi.compare(fitted(e), [{"mean": np.zeros((9, 3))}]), "'mean'", "(3,)", "()"),
    ("fit beside texts", lambda e: ppvi.compare(fitted(e), {"mean": ["a", "b"]}), "compare", "'mean'"),
    ("fit beside NaN", lambda e: ppvi.compare(fitted(e), {"mean": np.array([0.1, np.nan, 0.2])}), "compare", "'mean'", "1 of 3"),
    ("fit beside one draw", lambda e: ppvi.compare(fitted(e), {"mean": np.zeros(1)}), "compare", "'mean'", "1 draw"),
    ("fit beside zero draws", lambda e: ppvi.compare(fitted(e), {"mean": np.zeros(0)}), "compare", "'mean'", "0 draws"),
    ("fit beside its params", lambda e: ppvi.compare(fitted(e), fitted(e).params), "compare", "shape"),
    ("compared the other way round", lambda e: ppvi.compare(DRAWS, fitted(e)), "compare(fit, reference)", "first"),
    ("compared alone", lambda e: ppvi.compare([fitted(e)], DRAWS), "compare", "list"),
    ("an objective compared", lambda e: ppvi.compare(e.bound, DRAWS), "compare", "Objective"),
    ("prior beside a fit", lambda e: ppvi.compare(fitted(e), arviz_data(prior=PRIOR)), "compare", "posterior"),
    ("compared by no draws", lambda e: ppvi.compare(fitted(e), DRAWS, draws=0), "compare", "draws", "0"),
    ("draws of text", lambda e: fitted(e).posterior(draws="100"), "draws", "'100'"),
    ("no draws", lambda e: fitted(e).posterior(draws=0), "draws", "0"),
    ("draws below zero", lambda e: fitted(e).posterior(draws=-1), "draws", "-1"),
    ("draws as a float", lambda e: fitted(e).posterior(draws=2.5), "draws", "2.5"),
    ("no particles of a draw", lambda e: fitted(e).posterior(particles=0), "particles", "0"),
    ("particles as a float", lambda e: fitted(e).posterior(particles=1.5), "particles", "1.5"),
    ("program that returns nothing", lambda e: fitted(e).posterior(program=lambda p, q: None), "program=", "None"),
    ("program that returns draws", lambda e: fitted(e).posterior(program=lambda p, q: q.simulate()), "program=", "Trace"),
    ("program of one argument", lambda e: fitted(e).posterior(program=lambda q: q), "program=", "(model, guide)"),
    ("program as a number", lambda e: fitted(e).posterior(program=5), "program=", "5"),
    ("key after params", lambda e: e.vi.posterior(e.bound, e.params, e.key, e.y), "key"),
    ("key before the objective of draws", lambda e: e.vi.posterior(e.key, e.bound, e.params, e.y), "posterior(objective, key, params"),
    ("draws of a fit", lambda e: e.vi.posterior(fitted(e), e.key, e.params, e.y), "posterior", "fit.posterior()"),
    ("draws at no params", lambda e: e.vi.posterior(e.bound, e.key, {}, e.y), "'loc'", "missing from params"),
    ("draws at a fit", lambda e: e.vi.posterior(e.bound, e.key, fitted(e), e.y), "params", "fit.params"),
    ("draws without data", lambda e: e.vi.posterior(e.bound, e.key, e.params), "guide(y)", "'y'"),
    ("draws with other data", lambda e: e.vi.posterior(e.bound, e.key, e.params, e.array(np.zeros(7))), "'heights'", "(7,)"),
    ("draws of an option misspelt", lambda e: e.vi.posterior(e.bound, e.key, e.params, e.y, num_draws=5), "'num_draws'"),
    ("params before the key", lambda e: e.bound.value_and_grad(e.params, e.key, e.y), "(key, params, ...)", "swapped"),
    ("explained at a key", lambda e: e.bound.explain(e.key, e.y), "params", "dict"),
    ("checked at a key", lambda e: e.bound.check(e.params, e.key, e.y), "key"),
    ("loaded from nowhere", lambda e: ppvi.load("/nowhere/at/all", e.bound), "load", "/nowhere/at/all", "step-"),
    ("loaded the other way round", lambda e: ppvi.load(e.bound, "folder"), "load(folder, objective)", "Objective"),
    ("loaded without an objective", lambda e: ppvi.load("folder", e.model), "load(folder, vi.objective(", "approximate"),
    ("weights that are all zero", lambda e: impossible(e).posterior(particles=3, draws=4), "weight", "particle"),
)  # fmt: skip


def impossible(e):
    """A fit whose draws have density zero under the model."""

    def model(y):
        e.model(y)
        e.ppl.factor("never", e.array(-np.inf))

    bound = e.objective(model=model)
    return dataclasses.replace(fitted(e), objectives=(bound,))


@mistake(PROGRAM, "another fit")
def a_checkpoint_of_another_fit(e):
    with tempfile.TemporaryDirectory() as folder:
        e.fit(checkpoint=folder)
        ppvi.load(folder, e.objective(model=e.discrete, guide=e.discrete_guide))


@mistake(PROGRAM, "posterior", "AutoLaplaceApproximation", "AutoMultivariateNormal")
def draws_of_a_laplace_guide(e):
    guide = e.infer.autoguide.AutoLaplaceApproximation(e.model)
    bound = e.objective(guide=guide)
    e.vi.posterior(bound, e.key, bound.init(e.key, e.y), e.y)


mistakes(
    PROGRAM,
    ("draws in place of a key", lambda e: fitted(e).posterior(5), "key", "5", "draws="),
    ("key of draws as a number", lambda e: e.vi.posterior(e.bound, 0, e.params, e.y), "key", "0"),
    ("key of nuts as a number", lambda e: e.vi.nuts(e.model, 0, e.y), "key", "0"),
    ("many keys of nuts", lambda e: e.vi.nuts(e.model, jax.random.split(e.key), e.y), "key", "(2,)"),
    ("data in place of a key", lambda e: e.vi.nuts(e.model, e.y), "key"),
    on=NUMPYRO,
)  # fmt: skip
mistakes(
    PROGRAM,
    ("key of nuts as a text", lambda e: e.vi.nuts(e.model, "seed", e.y), "key", "'seed'"),
    ("key of draws as a float", lambda e: fitted(e).posterior(0.5), "key", "0.5"),
    ("data as the key of nuts", lambda e: e.vi.nuts(e.model, e.y), "key"),
    on=PYRO,
)  # fmt: skip
