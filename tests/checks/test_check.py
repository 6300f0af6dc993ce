"""The check of whole objectives, and of anybody's estimators."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

import ppvi
import ppvi.numpyro as vi
from ppvi.engine import checking
from ppvi.strategies import GumbelSoftmax
from tests.laws import test_objectives
from tests.laws.cases import CASES, CHAIN_PARAMS, chain_guide, chain_objective, nothing
from tests.saboteurs import test_saboteurs as planted, test_zoo as zoo

KEY = jax.random.key(7)
CHAIN = {name: jnp.asarray(value) for name, value in CHAIN_PARAMS.items()}
ALPHA = 1e-6
"""Of each check in this file: of thirty none gives a wrong verdict, but for a chance of 3e-5."""


def normal_model():
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("x", dist.Normal(z, 1.0), obs=1.0)


def normal_guide():
    scale = numpyro.param("scale", 0.8, constraint=dist.constraints.positive)
    numpyro.sample("z", dist.Normal(numpyro.param("loc", 0.3), scale))


def step(p, q):
    return jnp.where(q.simulate()["z"] > 0.2, 1.0, 0.0)


def chain(strategies):
    return vi.objective(chain_objective, nothing, chain_guide, strategies=strategies)


def quick(values, number, names):
    """Rows of a table, of which the first so many run in a test of minutes."""
    marks = ([] if i < number else [pytest.mark.slow] for i in range(len(values)))
    return [pytest.param(value, marks=mark, id=name) for value, mark, name in zip(values, marks, names, strict=True)]


# Verdicts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategies",
    quick(
        [{}, {"z1": ppvi.Reinforce(baseline=2.0), "z2": ppvi.MeasureValued()}], 1, ["enumerated", "score and measures"]
    ),
)
def test_unbiased_discrete(strategies):
    report = chain(strategies).check(KEY, CHAIN, alpha=ALPHA, delta=0.03, budget=60, progress=False)
    assert report.verdict == "unbiased within delta", report
    assert report.static.verdict == "proved"
    assert any(m.point == "given, every outcome" for m in report.measurements)


@pytest.mark.parametrize("strategy", [ppvi.Reparam(), pytest.param(ppvi.Reinforce(), marks=pytest.mark.slow)], ids=str)
def test_unbiased_continuous(strategy):
    bound = vi.objective(ppvi.objectives.elbo, normal_model, normal_guide, strategies={"z": strategy})
    report = bound.check(KEY, bound.init(KEY), alpha=ALPHA, delta=0.03, budget=60, progress=False)
    assert report.verdict == "unbiased within delta", report
    assert {m.direction for m in report.measurements if m.point == "given"} >= {"loc", "scale"}
    report.raise_if_biased(inconclusive=True)


def test_step_by_its_path_and_by_score():
    """What the static part calls biased and what the statistical part measures is one and the same."""
    params = {"loc": jnp.asarray(0.3), "scale": jnp.asarray(0.8)}
    wrong = vi.objective(step, nothing, normal_guide).check(KEY, params, alpha=ALPHA, progress=False)
    assert wrong.verdict == "biased"
    assert wrong.biased_by == ("static", "statistical")
    by_loc = next(m for m in wrong.measurements if m.direction == "loc" and m.point == "given")
    # A path of up to a unit through 0.3, in the direction that the sign of the bias tells: -d P(z > 0.2) / d loc.
    slope = (_upper((0.2 - 0.31) / 0.8) - _upper((0.2 - 0.29) / 0.8)) / 0.02
    assert abs(abs(by_loc.bias) - slope) < 0.1
    right = vi.objective(step, nothing, normal_guide, strategies={"z": ppvi.Reinforce()})
    assert right.check(KEY, params, alpha=ALPHA, delta=0.05, progress=False).verdict == "unbiased within delta"


def _upper(x):
    return float(jax.scipy.stats.norm.sf(x))


@pytest.mark.slow
def test_against_the_score_function():
    bound = vi.objective(step, nothing, normal_guide)
    report = bound.check(KEY, bound.init(KEY), alpha=ALPHA, against=("reinforce",), progress=False)
    assert report.statistical == "biased"
    assert {m.point for m in report.measurements} == {"given, by score"}


@pytest.mark.parametrize(
    ("strategy", "verdict"), [(ppvi.Reinforce(), "unbiased within delta"), (planted.DroppedScore(), "biased")], ids=str
)
def test_against_quadrature(strategy, verdict):
    """The gradient and the value of an ELBO with a normal site, in closed form by hand elsewhere, here by the trapezoidal rule."""
    bound = vi.objective(ppvi.objectives.elbo, normal_model, normal_guide, strategies={"z": strategy})
    report = bound.check(KEY, bound.init(KEY), alpha=ALPHA, delta=0.05, against="quadrature", progress=False)
    assert report.statistical == verdict, report
    assert {m.point for m in report.measurements} == {"given, by quadrature"}
    assert "the value itself" in {m.direction for m in report.measurements}


def test_what_no_rule_of_quadrature_finds(monkeypatch):
    """It is said of the rules that were asked for, and only where none of them found it."""
    bound = vi.objective(lambda p, q: jnp.cos(40 * q.simulate()["z"]), nothing, normal_guide)
    report = bound.check(KEY, bound.init(KEY), against="quadrature", progress=False)
    assert [note for note in report.notes if "nodes gave another" in note or "exact" in note] == [
        f"no gradient was found by quadrature: {few} nodes gave another than {many}, or another key did"
        for few, many in ((48, 64), (32, 44))
    ]
    monkeypatch.setattr(checking, "NODES", ((2, 3), (48, 64)))
    bound = vi.objective(lambda p, q: jnp.cos(2 * q.simulate()["z"]), nothing, normal_guide)
    report = bound.check(KEY, bound.init(KEY), delta=0.1, against="quadrature", progress=False)
    assert {m.point for m in report.measurements} == {"given, by quadrature"}
    assert not [note for note in report.notes if "was not found" in note or "nodes gave another" in note]


def test_every_outcome():
    """A finite program of few outcomes is decided without a draw, to float precision."""
    wrong, right = (chain({"z1": s, "z2": ppvi.LeaveOneOut()}) for s in (planted.DroppedScore(), ppvi.Reinforce(0.4)))
    report = right.check(KEY, CHAIN, against=("exact",), progress=False)
    assert report.verdict == "unbiased within delta"
    assert all(m.low == m.high and abs(m.bias) < 1e-5 * m.scale for m in report.measurements)
    report = wrong.check(KEY, CHAIN, progress=False)
    assert report.biased_by == ("statistical",)
    assert {m.draws for m in report.measurements} == {8}


def test_probabilities_that_do_not_add_up():
    class Leaky(dist.BernoulliProbs):
        def log_prob(self, value):
            return super().log_prob(value) - 0.1

    def guide():
        numpyro.sample("z", Leaky(numpyro.param("p", 0.3)))

    bound = vi.objective(lambda p, q: 1.0 * q.simulate()["z"], nothing, guide, strategies={"z": ppvi.Reinforce()})
    with pytest.raises(ppvi.EngineError, match="is a distribution's log_prob normalised"):
        bound.check(KEY, bound.init(KEY), progress=False)


@pytest.mark.slow
def test_biased_by_design():
    strategies = {"z1": GumbelSoftmax(), "z2": ppvi.Enumerate()}
    report = chain(strategies).check(KEY, CHAIN, alpha=ALPHA, against=("exact",), progress=False)
    assert report.static.verdict == "biased by design"
    assert report.biased_by == ("static", "statistical")


def test_a_biased_strategy_of_the_users_is_told_what_fits_its_site():
    """Not of finite sites alone, where the site is none."""

    class Placed(ppvi.Reparam):
        unbiased = False

    def guide():
        numpyro.sample("z", dist.Normal(numpyro.param("m", 0.0), 1.0))

    bound = vi.objective(lambda p, q: q.simulate()["z"] ** 2, nothing, guide, strategies={"z": Placed()})
    (finding,) = bound.prove(bound.init(KEY)).findings
    assert finding.rule == "strategy"
    assert "Reparam()" in finding.remedy


@pytest.mark.slow
def test_budget_too_small():
    """What could have been seen is said, and shrinks with the budget, where draws have to decide: outcomes are infinitely many."""
    bound = vi.objective(ppvi.objectives.elbo, normal_model, normal_guide, strategies={"z": ppvi.Reinforce()})
    seen = []
    for draws in (3000, 30_000):
        report = bound.check(KEY, bound.init(KEY), delta=1e-3, budget=ppvi.Budget(600, draws), progress=False)
        assert report.verdict == "inconclusive"
        assert "would have been seen" in " ".join(str(report).split())
        seen.append(report.measurements[-1].visible)
    assert 0.2 < seen[1] / seen[0] < 0.5


def test_draws_none_of_which_is_finite():
    """Of a bias nothing is known then, and nothing would have been seen."""
    bound = vi.objective(lambda p, q: q.simulate()["z"] * jnp.nan, normal_model, normal_guide)
    report = bound.check(KEY, bound.init(KEY), budget=ppvi.Budget(20, 1000), progress=False)
    assert report.verdict == "inconclusive"
    assert " ".join(str(report).split()).startswith(
        "verdict: inconclusive: no draw is finite, so that nothing was seen"
    )
    assert "would have been seen" not in " ".join(str(report).split())


def test_what_is_proved_leads_where_draws_are_too_few():
    bound = vi.objective(ppvi.objectives.elbo, normal_model, normal_guide, strategies={"z": ppvi.Reinforce()})
    report = bound.check(KEY, bound.init(KEY), delta=1e-4, budget=ppvi.Budget(20, 1000), progress=False)
    assert " ".join(str(report).split()).startswith(
        "verdict: inconclusive: proved from the program; draws show no bias, and are too few"
    )


def test_objective_without_a_potential():
    """Wake-phase updates hold the draws constant: there is nothing that their gradient integrates to."""
    bound = vi.objective(ppvi.objectives.wake_phase_q(3), normal_model, normal_guide)
    report = bound.check(KEY, bound.init(KEY), progress=False)
    assert report.verdict == "inconclusive"
    assert "nothing was measured" in " ".join(str(report).split())


def test_objective_of_the_guide_only():
    """The sleep phase moves the guide, so the model's parameters do not move."""

    def model():
        z = numpyro.sample("z", dist.Normal(numpyro.param("prior", 0.2), 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=1.0)

    bound = vi.objective(ppvi.objectives.forward_kl(lambda trace: ()), model, normal_guide)
    report = bound.check(KEY, bound.init(KEY), alpha=ALPHA, delta=0.05, progress=False)
    assert report.verdict == "unbiased within delta", report
    assert "prior" not in {m.direction for m in report.measurements}


def test_no_oracle():
    bound = vi.objective(ppvi.objectives.elbo, normal_model, normal_guide)
    report = bound.check(KEY, bound.init(KEY), against=("exact",), progress=False)
    assert report.verdict == "inconclusive"
    assert "no gradient to compare with" in " ".join(str(report).split())
    assert "Normal has no finite support" in " ".join(str(report).split())


# Reports --------------------------------------------------------------------------------------------------------------


def test_report(assert_unbiased):
    bound = vi.objective(step, nothing, normal_guide)
    with pytest.raises(ppvi.BiasError, match=r"site 'z': gt at tests/checks/test_check\.py:") as caught:
        assert_unbiased(bound, KEY, bound.init(KEY))
    report = caught.value.report
    assert json.loads(json.dumps(report.to_dict()))["verdict"] == "biased"
    assert report.worst.outcome == "biased"
    assert "by the static and the statistical part" in " ".join(str(report).split())


# Planted bugs ---------------------------------------------------------------------------------------------------------

SABOTEURS = [
    planted.DroppedScore(),
    planted.BaselineOfItsOwnDraw(),
    zoo.MeanFirst(),
    planted.WrongSign(),
    planted.OwnDrawAmongTheOthers(),
    planted.ValueOnly(),
    planted.UniformMixture(),
    zoo.WithoutTheDraw(),
    zoo.BackwardOnly(),
]


@pytest.mark.parametrize("strategy", quick(SABOTEURS, 2, [type(strategy).__name__ for strategy in SABOTEURS]))
def test_saboteur_in_a_strategy(strategy):
    report = chain({"z1": strategy, "z2": ppvi.Enumerate()}).check(KEY, CHAIN, alpha=ALPHA, budget=90, progress=False)
    assert report.biased_by == ("statistical",), report


def check_case(cases, name, strategy, **changes):
    case = replace(zoo.named(cases, name), **changes)
    params = {name: jnp.asarray(np.asarray(value), jnp.float32) for name, value in case.params.items()}
    strategies = dict.fromkeys(case.strategies[0], strategy)
    bound = vi.objective(case.program, case.model, case.guide, strategies=strategies)
    return bound.check(KEY, params, alpha=ALPHA, budget=90, progress=False)


def test_score_left_out():
    """Rows 8 to 10: the score left out, in a divergence that is no logarithm."""

    def stuck(p, q):
        z = q.simulate()
        return jnp.exp((p.log_density(z) - q.log_density(z, stop_params=True)) / 2)

    bound = vi.objective(stuck, normal_model, normal_guide)
    report = bound.check(KEY, bound.init(KEY), alpha=ALPHA, progress=False)
    assert "statistical" in report.biased_by, report


@pytest.mark.slow
def test_curvature_left_out():
    """Rows 8 to 10 again: the theorem that the static part takes the objective's word for does not hold."""
    first, slope, _ = test_objectives.SQUARE
    wrong = ppvi.objectives.dreg(2, of=(first, slope, lambda x: 0.0 * x))
    report = check_case(test_objectives.CASES, "DReG of exp(2 L)", ppvi.Reparam(), program=wrong)
    assert report.biased_by == ("statistical",), report


@pytest.mark.slow
def test_all_weights_replaced_at_once():
    """Row 22: the baseline of a particle depends on its draw."""

    with zoo.all_at_once():
        report = check_case(CASES, "VIMCO(3), coin", ppvi.Reinforce())
    assert report.biased_by == ("statistical",), report


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "name"), [(0.0, "Renyi(0, 2), coin"), (-1.0, "Renyi(-1, 2), coin")])
def test_coefficient_on_the_score(alpha, name):
    """Rows 5 and 6: alpha / (1 - alpha) on the score of a Renyi bound."""

    report = check_case(CASES, name, zoo.TimesScore(coefficient=alpha / (1 - alpha)))
    assert report.biased_by == ("statistical",), report


# Anybody's estimators -------------------------------------------------------------------------------------------------


def bit_model():
    numpyro.sample("z", dist.Bernoulli(0.3))


def bit_guide():
    numpyro.sample("z", dist.Bernoulli(logits=numpyro.param("a", 0.5)))


def in_plate(fn):
    def program():
        with numpyro.plate("data", 4, subsample_size=2):
            fn()

    return program


def step_model():
    numpyro.factor("step", jnp.where(numpyro.sample("z", dist.Normal(0.0, 1.0)) > 0, -3.0, 0.0))


def one_normal():
    numpyro.sample("z", dist.Normal(numpyro.param("a", 0.1), 1.0))


def loss(elbo, model, guide):
    return lambda key, params: jax.value_and_grad(lambda params: elbo.loss(key, params, model, guide))(params)


TRIPLED = handlers.scale(bit_model, scale=3.0), handlers.scale(bit_guide, scale=3.0)
NUMPYRO_BIASED = {
    "row 1: TraceGraph_ELBO, subsampled plate": (TraceGraph_ELBO(), in_plate(bit_model), in_plate(bit_guide)),
    "row 2: TraceGraph_ELBO, scale": (TraceGraph_ELBO(), *TRIPLED),
    "row 3: Trace_ELBO, discrete site": (Trace_ELBO(), bit_model, bit_guide),
    "row 3: TraceMeanField_ELBO, discrete site": (TraceMeanField_ELBO(), bit_model, bit_guide),
    "row 4: RenyiELBO, discrete site": (RenyiELBO(0, num_particles=2), bit_model, bit_guide),
    "row 7: Trace_ELBO, step likelihood": (Trace_ELBO(), step_model, one_normal),
}
NUMPYRO_RIGHT = {
    "TraceGraph_ELBO, discrete site": (TraceGraph_ELBO(), bit_model, bit_guide),
    "Trace_ELBO, normal": (Trace_ELBO(), normal_model, one_normal),
    "RenyiELBO, normal": (RenyiELBO(0.5, num_particles=3), normal_model, one_normal),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", quick(list(NUMPYRO_BIASED), 2, NUMPYRO_BIASED))
def test_numpyro_losses_that_are_biased(name):
    report = ppvi.check_estimator(loss(*NUMPYRO_BIASED[name]), {"a": jnp.asarray(0.5)}, alpha=ALPHA, progress=False)
    assert report.verdict == "biased", report


@pytest.mark.parametrize("name", quick(list(NUMPYRO_RIGHT), 0, NUMPYRO_RIGHT))
def test_numpyro_losses_that_are_not(name):
    estimator = loss(*NUMPYRO_RIGHT[name])
    report = ppvi.check_estimator(estimator, {"a": jnp.asarray(0.5)}, alpha=ALPHA, delta=0.05, progress=False)
    assert report.verdict == "unbiased within delta", report


def test_frozen_key():
    """Row 14: whatever the key, the same draw."""

    def frozen(key, params):
        noise = jax.random.normal(jax.random.key(0))
        return jax.value_and_grad(lambda p: (p["a"] + noise) ** 2)(params)

    report = ppvi.check_estimator(frozen, {"a": jnp.asarray(0.5)}, progress=False)
    assert report.verdict == "biased"
    assert "frozen" in " ".join(str(report).split())


@pytest.mark.slow
def test_estimator_of_plain_python():
    """The score function of E (x - 1)^2, x ~ N(a, 1), by hand in NumPy, and without its score."""

    def estimator(score):
        def run(seed, params):
            rng = np.random.default_rng(seed)
            x = params["a"] + rng.normal()
            value = (x - 1) ** 2
            gradient = 2 * (x - 1) if score is None else score * value * (x - params["a"])
            return value, {"a": gradient}

        return run

    options = {"alpha": 1e-3, "delta": 0.2, "budget": 60, "progress": False}
    assert ppvi.check_estimator(estimator(1.0), {"a": 0.2}, **options).verdict == "unbiased within delta"
    assert ppvi.check_estimator(estimator(None), {"a": 0.2}, **options).verdict == "unbiased within delta"
    assert ppvi.check_estimator(estimator(0.5), {"a": 0.2}, **options).verdict == "biased"
    with pytest.raises(ppvi.ProgramError, match="the gradient must be a dict of 'a'"):
        ppvi.check_estimator(lambda seed, params: (0.0, {"b": 0.0}), {"a": 0.2}, progress=False)


def test_estimator_that_is_no_function_of_key_and_parameters():
    with pytest.raises(ppvi.ProgramError, match="could not be called"):
        ppvi.check_estimator(lambda params: params, {"a": jnp.asarray(0.5)}, progress=False)


def slope_of(value, gradient):
    return lambda key, params: (value(params), gradient(params))


@pytest.mark.parametrize(
    ("estimator", "params", "message"),
    [
        (slope_of(lambda p: p["a"], lambda p: {"b": p["a"]}), {"a": jnp.asarray(0.5)}, "is laid out as"),
        (slope_of(lambda p: {"a": p["a"]}, lambda p: p["a"]), {"a": jnp.asarray(0.5)}, "is laid out as"),
        (slope_of(lambda p: p["a"], lambda p: {"a": jnp.zeros(2)}), {"a": jnp.asarray(0.5)}, r"of a has shape \(2,\)"),
        (slope_of(lambda p: jnp.zeros(3), lambda p: p), {"a": jnp.asarray(0.5)}, "must be one number"),
        (lambda key, params: params["a"], {"a": jnp.asarray(0.5)}, r"must return \(value, gradient\)"),
        (slope_of(lambda p: p, lambda p: p), 0.7, "params must be a JAX array"),
        (slope_of(lambda p: 0.0, lambda p: p), {}, "params must be a JAX array"),
    ],
)
def test_estimators_of_other_shapes(estimator, params, message):
    with pytest.raises(ppvi.ProgramError, match=message):
        ppvi.check_estimator(estimator, params, progress=False)


@pytest.mark.parametrize(
    ("key", "options", "message"),
    [
        (0, {}, "one JAX key"),
        (KEY, {"against": ("oracle",)}, "'path' or 'exact' or 'quadrature' or 'reinforce'"),
        (KEY, {"budget": "a minute"}, "the budget, in seconds, must be"),
        (KEY, {"budget": -1.0}, "the budget, in seconds, must be"),
        (KEY, {"alpha": 3.0}, "alpha must be a finite number between 0 and 1"),
    ],
    ids=str,
)
def test_mistakes(key, options, message):
    bound = vi.objective(step, nothing, normal_guide)
    with pytest.raises(ppvi.ProgramError, match=message):
        bound.check(key, bound.init(KEY), progress=False, **options)


def test_reports_fit_into_80_columns():
    bound = vi.objective(ppvi.objectives.elbo, normal_model, normal_guide)
    params = bound.init(KEY)
    for said in (bound.explain(params), bound.check(KEY, params, alpha=ALPHA)):
        assert max(map(len, str(said).splitlines())) <= 80
        assert "taken for granted: that the objective and its gradient have means" in " ".join(str(said).split())
