"""Whose ideas a fit has used: every strategy and objective of the library has papers, and a fit prints those that it used."""

import io
import re

import numpy as np
import pytest

import ppvi
from ppvi._references import METHOD, METHODS, OBJECTIVES, OPTIMIZERS, STRATEGIES, entries
from ppvi.strategies import Strategy
from tests.engines import ENGINES, NUMPYRO, dist, on, ppl, xp

X = np.array([0.1, 1.2, 0.9], np.float32)
both = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


def model(x):
    mean = ppl.sample("mean", dist.Normal(0.0, 2.0))
    with ppl.plate("rows", 3):
        z = ppl.sample("z", dist.Bernoulli(xp.array(0.5)))
        ppl.sample("x", dist.Normal(mean + z, 1.0), obs=x)


def guide(x):
    ppl.sample("mean", dist.Normal(ppl.param("loc", xp.array(0.0)), 1.0))
    with ppl.plate("rows", 3):
        ppl.sample("z", dist.Bernoulli(logits=ppl.param("logits", xp.zeros(3))))


def of_mean(x):
    ppl.sample("mean", dist.Normal(ppl.param("loc", xp.array(0.0)), 1.0))


def cited(what):
    printed = io.StringIO()
    ppvi.cite(what, file=printed)
    return re.findall(r"@\w+\{(\w+),", printed.getvalue())


def own(p, q):
    z = q.simulate()
    return p.log_density(z) - z.log_density


def test_all_that_the_library_has_is_in_the_tables():
    strategies = {name for name, x in vars(ppvi.strategies).items() if isinstance(x, type) and issubclass(x, Strategy)}
    assert set(STRATEGIES) == strategies - {"Strategy"} | {"RunningMean", "NeuralBaseline"}
    objectives = {name for name, x in vars(ppvi.objectives).items() if callable(x) and not name.startswith("_")}
    assert set(OBJECTIVES) == objectives
    optimizers = {
        name
        for name in ppvi.optimizers.__all__
        if ppvi.optimizers.base.Geometric in getattr(ppvi.optimizers, name).__mro__
    }
    assert set(OPTIMIZERS) == optimizers - {"Geometric"}


def test_every_key_has_a_paper_and_every_paper_a_use():
    used = {
        key for table in (OBJECTIVES, STRATEGIES, OPTIMIZERS, METHODS) for keys in table.values() for key in keys
    } | {*METHOD}
    assert used == set(entries())
    for entry in entries().values():
        assert re.search(r"author = \{.+\},\n  title = \{\{.+\}\},\n(.+\n)+  year = \{(19|20)\d\d\},\n\}$", entry), (
            entry
        )


def test_the_year_of_a_paper_is_that_of_the_docstrings():
    """`Author ... year` in a docstring is the year of its key, so that neither is changed alone."""
    for table, module in ((STRATEGIES, ppvi.strategies), (OBJECTIVES, ppvi.objectives)):
        for name, keys in table.items():
            said = getattr(module, name).__doc__
            if re.search(r"(19|20)\d\d\.?$", said.strip()):
                assert {re.search(r"\d{4}", key)[0] for key in keys} <= set(re.findall(r"(?:19|20)\d\d", said)), name


@both
def test_a_fit_has_the_papers_of_what_was_chosen(engine):
    with on(engine):
        x = engine.array(X)
        bound = engine.vi.objective(
            ppvi.objectives.iwelbo(2), model, guide, strategies={"mean": ppvi.Reinforce(ppvi.strategies.RunningMean())}
        )
        fit = engine.vi.fit(bound, engine.key(0), x, num_steps=2, progress=False)
        named = ["becker2024", "lew2023", "burda2016", "williams1992", "schulman2015", "mnih2014"]
        assert cited(bound) == cited(bound.on(x)) == named
        assert cited(fit) == [*named, *STRATEGIES["LeaveOneOut"]]


@both
def test_an_objective_of_ones_own_has_the_papers_of_the_method(engine):
    with on(engine):
        bound = engine.vi.objective(own, model, guide)
        assert cited(bound) == ["becker2024", "lew2023"]
        fit = engine.vi.fit(bound.on(engine.array(X)), engine.key(0), num_steps=2, progress=False)
        assert cited(fit) == ["becker2024", "lew2023", *STRATEGIES["Reparam"]]


def test_what_is_summed_out_and_several_objectives():
    with on(NUMPYRO):
        x = NUMPYRO.array(X)
        pairs = [
            (NUMPYRO.vi.objective(program, model, of_mean), {"loc"})
            for program in (ppvi.objectives.elbo, ppvi.objectives.cubo(2))
        ]
        fit = NUMPYRO.vi.fit(pairs, NUMPYRO.key(0), x, num_steps=2, progress=False)
        found = cited(fit)
        assert {*METHODS["summed out"], *OBJECTIVES["elbo"], *OBJECTIVES["cubo"]} <= set(found)
        assert len(found) == len(set(found))


@both
def test_a_fit_from_a_file_has_the_papers_of_its_objective(engine, tmp_path):
    """Its data are not in the file, without which a program may fail in whatever way."""

    def of_rows(x=None):
        model(x.reshape(3))

    with on(engine):
        bound = engine.vi.objective(ppvi.objectives.iwelbo(2), of_rows, lambda x=None: guide(x))
        engine.vi.fit(bound, engine.key(0), engine.array(X), num_steps=2, progress=False, checkpoint=tmp_path)
        assert cited(ppvi.load(tmp_path, bound)) == ["becker2024", "lew2023", "burda2016"]


def test_what_cannot_be_cited():
    with pytest.raises(ppvi.ProgramError, match="cite takes an objective or a fit"):
        ppvi.cite(3)


@both
def test_a_fit_has_the_papers_of_its_optimizer(engine):
    with on(engine):
        bound = engine.vi.objective(ppvi.objectives.elbo, model, guide, strategies={"z": ppvi.Enumerate()})
        options = {"num_steps": 1, "progress": False, "optimizer": ppvi.optimizers.Natural()}
        found = cited(engine.vi.fit(bound, engine.key(0), engine.array(X), **options))
    assert set(OPTIMIZERS["Natural"]) <= set(found)
