"""What people get wrong at first: each mistake is one typed sentence, that names what is at fault and what to do."""

import math
from functools import partial

import numpy as np
import numpyro.optim
import optax
import pyro.infer
import pyro.optim
import pytest
import torch

import ppvi
from ppvi import FitError, ProgramError
from ppvi.objectives import elbo, iwelbo
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, handlers, on, ppl, xp

X = np.array([0.3, -1.2, 2.2, 0.9])


def model(x):
    m = ppl.sample("m", dist.Normal(0.0, 1.0))
    with ppl.plate("rows", len(x)):
        ppl.sample("x", dist.Normal(m, 1.0), obs=x)


def guide(x):
    ppl.sample("m", dist.Normal(ppl.param("l", xp.array(0.3)), 1.0))


def minibatch(x):
    w = ppl.sample("w", dist.Normal(0.0, 1.0))
    with ppl.plate("rows", 4, subsample_size=2) as i:
        ppl.sample("x", dist.Normal(w, 1.0), obs=x[i])


def of_w(x):
    ppl.sample("w", dist.Normal(ppl.param("l", xp.array(0.3)), 1.0))


def bits(x, m=0.0):
    k = ppl.sample("k", dist.Bernoulli(0.3))
    with ppl.plate("rows", 4):
        ppl.sample("x", dist.Normal(m + 1.0 * k, 1.0), obs=x)


def mixed(x):
    bits(x, ppl.sample("m", dist.Normal(0.0, 1.0)))


def counted(x):
    ppl.sample("k", dist.Poisson(1.0))
    ppl.sample("x", dist.Normal(ppl.sample("m", dist.Normal(0.0, 1.0)), 1.0), obs=x[0])


def five(x):
    m = ppl.sample("m", dist.Normal(0.0, 1.0))
    with ppl.plate("rows", 5):
        ppl.sample("x", dist.Normal(m, 1.0), obs=x)


def of_size(x, n):
    m = ppl.sample("m", dist.Normal(0.0, 1.0))
    with ppl.plate("rows", n):
        ppl.sample("x", dist.Normal(m, 1.0), obs=x)


def observing(x):
    guide(x)
    ppl.sample("y", dist.Normal(0.0, 1.0), obs=xp.array(1.0))


def infinite(x):
    m = ppl.sample("m", dist.Normal(0.0, 1.0))
    ppl.factor("f", m * np.inf)


def gradient(engine, program=elbo, model=model, guide=guide, params=None, args=None):
    bound = engine.vi.objective(program, model, guide)
    args = [engine.array(X)] if args is None else args
    return bound.value_and_grad(engine.key(0), params or bound.init(engine.key(0), *args), *args)


def fit(engine, *, model=model, guide=guide, args=None, **options):
    bound = engine.vi.objective(elbo, model, guide)
    options = {"num_steps": 2, "progress": False} | options
    return engine.vi.fit(bound, engine.key(0), *([engine.array(X)] if args is None else args), **options)


def auto(engine, of, verb=fit, **options):
    return verb(engine, model=of, guide=engine.autoguide.AutoNormal(of), **options)


def nuts(engine):
    options = dict(num_warmup=2, num_samples=4, num_chains=1, progress=False)
    return engine.vi.nuts(bits, engine.key(0), engine.array(X), **options)


def svi(engine):
    bound = engine.vi.objective(elbo, model, guide)
    if engine is PYRO:
        return pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), loss=bound).step(engine.array(X))
    return numpyro.infer.SVI(model, guide, numpyro.optim.Adam(0.1), loss=bound).run(
        engine.key(0), 1, engine.array(X), progress_bar=False
    )


BY_HAND = r"AutoNormal\(block\(model, hide=\['k'\]\)\).*Enumerate\(\)"
MISTAKES = {
    "per beside a site of no plate": (
        partial(gradient, program=iwelbo(2, per="rows"), model=minibatch, guide=of_w),
        "site 'w' lies outside that plate.*`elbo`",
    ),
    "per a plate that there is not": (
        partial(gradient, program=iwelbo(2, per="row"), model=minibatch, guide=of_w),
        r"per plate 'row': no site of this run is in such a plate; its plates are \['rows'\]",
    ),
    "model and guide swapped": (partial(gradient, model=guide, guide=model), "guide observes site 'x'.*swapped"),
    "data in the guide": (partial(gradient, guide=observing), "guide observes site 'y'.*leave the site out"),
    "params of another shape": (
        lambda engine: gradient(engine, params={"l": engine.array(np.zeros(3))}),
        r"parameter 'l' of the guide at .* starts with shape \(\), .* has shape \(3,\)",
    ),
    "a fit from another shape": (
        lambda engine: fit(engine, params={"l": np.zeros(3)}),
        r"parameter 'l' has shape \(\), and its value in params has shape \(3,\)",
    ),
    "a misspelt option": (partial(fit, num_step=3), r"guide guide\(x\) .*Did you mean num_steps="),
    "the same with an autoguide": (partial(auto, of=model, num_step=3), "Did you mean num_steps="),
    "no data": (partial(fit, args=[]), r"guide guide\(x\) cannot be called.*missing a required argument: 'x'"),
    "no data with an autoguide": (partial(auto, of=model, args=[]), "missing a required argument: 'x'"),
    "an objective for a loss": (svi, r"loss=objective.as_loss\(\)"),
    "an autoguide of discrete sites": (
        partial(auto, of=bits),
        f"AutoNormal is a guide of continuous sites.*'k'.*{BY_HAND}",
    ),
    "an autoguide of some discrete sites": (partial(auto, of=mixed), f"'k' .*{BY_HAND}"),
    "an autoguide of points of discrete sites": (
        lambda engine: fit(engine, model=mixed, guide=engine.autoguide.AutoDelta(mixed)),
        f"AutoDelta is a guide of continuous sites.*{BY_HAND.replace('Normal', 'Delta')}",
    ),
    "an autoguide of a discrete site that may be infinite": (
        partial(auto, of=counted),
        r"AutoNormal is a guide of continuous sites.*'k'.*Enumerate\(\).*AutoNormal\(block\(model, hide=\['k'\]\)\) for the others",
    ),
    "a discrete site that the guide lacks": (partial(gradient, model=counted), r"latent site 'k' .*'m'.*Enumerate\(\)"),
    "an autoguide and a plate of another size": (partial(auto, of=five), r"site 'x' of the model at .*does not fit"),
    "the same of a partial": (partial(auto, of=partial(of_size, n=5)), r"site 'x' of the model at .*does not fit"),
    "draws of a Laplace approximation": (
        lambda engine: fit(engine, guide=engine.autoguide.AutoLaplaceApproximation(model)).posterior(),
        "AutoLaplaceApproximation is a point while it is fitted",
    ),
    "NUTS of discrete sites": (nuts, r"nuts: the latent sites \['k'\] are all discrete"),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.filterwarnings("ignore:Some algorithms will automatically enumerate:FutureWarning")
def test_mistakes(engine, name):
    make, said = MISTAKES[name]
    with on(engine), pytest.raises(ProgramError, match=said):
        make(engine)


@pytest.mark.parametrize("source", [ppvi.numpyro._source, ppvi.pyro._source], ids=["NumPyro", "Pyro"])
def test_a_function_called_as_what_runs_programs_is_the_users(source):
    def run():
        program_name = [source.here()]
        return program_name[0]

    assert "test_mistakes.py:" in run()


def test_an_objective_has_no_loss(engine):
    assert not hasattr(engine.vi.objective(elbo, model, guide), "loss")


OPTIMIZERS = {
    "a class": (NUMPYRO, numpyro.optim.Adam, "numpyro.optim|Adam"),
    "a function that makes one": (NUMPYRO, optax.adam, "adam"),
    "a function of pyro.optim": (PYRO, pyro.optim.Adam, "Adam"),
    "one of other tensors": (PYRO, torch.optim.Adam([torch.zeros(1)]), "an Adam"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    engine, optimizer, found = OPTIMIZERS[name]
    with (
        on(engine),
        pytest.raises(ProgramError, match=f"fit: the optimizer must .*such as|as .*, (and )?not .*{found}"),
    ):
        fit(engine, optimizer=optimizer)


def test_number_of_draws_by_its_place(engine):
    with on(engine):
        assert fit(engine).posterior(engine.key(1), 7).posterior["m"].shape == (1, 7)


def test_the_first_step_of_a_fit_asks_for_no_smaller_one(engine):
    with on(engine), pytest.raises(FitError, match=r"at step 0: site 'f' .*Nothing has been moved yet") as caught:
        fit(engine, model=infinite)
    assert "step size" not in str(caught.value)


def test_sites_of_an_autoguide_are_said_to_be_its(engine):
    with on(engine):
        bound = engine.vi.objective(elbo, model, engine.autoguide.AutoNormal(model))
        x = engine.array(X)
        found = str(bound.explain(bound.init(engine.key(0), x), x))
    assert "AutoNormal" in found
    assert "elbo.py:24" not in found


def test_one_warning_an_evaluation(engine):
    with on(engine), pytest.warns(ppvi.BiasWarning) as caught:
        gradient(engine, program=iwelbo(2), model=handlers.scale(minibatch, scale=0.5), guide=of_w)
    assert len(caught) == 1


def test_a_log_has_no_line_for_every_update(engine, capfd):
    with on(engine):
        fit(engine, num_steps=100, progress=True)
    assert capfd.readouterr().err.count("fit:") <= 2


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("data", [0.3, math.inf])
def test_nothing_is_proved_of_what_is_not_finite(engine, data):
    with on(engine):

        def model(x):
            z = ppl.sample("z", dist.Normal(0.0, 1.0))
            ppl.sample("x", dist.Normal(z, 1.0, validate_args=False), obs=x)

        def guide(x):
            ppl.sample("z", dist.Normal(ppl.param("loc", engine.array(0.1)), 1.0))

        bound = engine.vi.objective(ppvi.objectives.elbo, model, guide)
        report = bound.prove({"loc": engine.array(0.1)}, engine.array(data))
    assert report.verdict == ("suspect" if math.isinf(data) else "proved")
    if math.isinf(data):
        assert [(finding.rule, finding.subject) for finding in report.findings] == [("not finite", "site 'x'")]
