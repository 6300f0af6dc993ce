"""Whether a fit is to be believed: what several looks at it say, each of which sees something else."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ppvi._compare import compare
from ppvi._comparison import Comparison
from ppvi._diagnosis import Diagnosis, Finding, Verdict
from ppvi._doors import count, described, listed
from ppvi._draws import posterior
from ppvi._fitted import Fit
from ppvi._freed import Freed, like_all
from ppvi._given import draws_of, log_weights_of
from ppvi._loo import loo, masked_out
from ppvi._ops import as_numpy
from ppvi._options import door
from ppvi._predict import predict
from ppvi.approximate import Guides, LogJoint, on_fixed_supports, starts
from ppvi.approximation import Chains, basins, chained, whitened
from ppvi.checks.tails import HEAVY, pareto_shape, threshold
from ppvi.engine._arviz import group_of, variable
from ppvi.engine.memory import LARGE, abreast, numbers_in
from ppvi.engine.protocol import Params
from ppvi.engine.training import Data
from ppvi.errors import EngineError, ProgramError, StrategyError
from ppvi.objective import Objective

FAR = 0.2
"""Of the Wasserstein distance, in standard deviations: a marginal that is farther from where chains take it is wrong."""

NOISE = 0.1
"""Standard errors, in standard deviations, from which on chains tell too little."""

MOST = 100_000
"""Dimensions in which chains are run."""

DIMENSIONS = 300
"""In which modes are looked for."""

LEAST_ACCEPTED = 0.3
"""The share of proposals below which chains have not moved."""

PREDICTED = 500
"""Predictions that data are looked at beside."""

RARE = 0.005
"""The share of predictions below which data are unlike them."""

STARTS = 4
"""From which modes are climbed to."""

LIKE, LACKING = 0.05, 0.1
"""The share of the mass from which on a mode is missed where a tenth of that, at most, is among the draws; and what may be
lacking of any mode, where the mass is known well."""


@door
def diagnose(
    fit: Fit, key: Any = None, *, draws: int = 2000, num_chains: int = 128, on: Objective | None = None
) -> Diagnosis:
    """Ask whether a fit is near to the posterior, without a reference.

        report = ppvi.diagnose(fit)
        report.verdict  # 'good', 'poor' or 'unsure'
        print(report)

    It looks at

    - *chains*: short Markov chains, by Hamiltonian Monte Carlo in unconstrained space, are started from `num_chains` of the
      fit's draws, with its covariance for their scale. They leave the posterior as it is, so that draws of it stay what they
      are, and others move towards it: the Wasserstein distance of the worst marginal from where they have gone, in standard
      deviations, is the number. It is nearly a lower bound of the error. Chains leave a guide that is far too narrow, which
      importance weights need not show. Finite sites are summed out of the density, exactly.
    - *modes*: those that are climbed to from the draws and from elsewhere, and whether each has the share of the draws that it
      has of the mass, which chains do not change.
    - *weights*: the Pareto shape k-hat of w = p(x, z) / q(z), whether so many of them can be averaged, and their effective
      number (Vehtari et al. 2024).
    - *bound*: where w has a variance, sqrt(E_q[w^2] / E_q[w]^2 - 1) in standard deviations of the draws, than which no mean and
      no marginal is further off (Wasserstein). It is estimated from w, and is an upper bound as far as the fit draws.
    - *course*: whether the loss had settled.
    - *leave-one-out*: how many observations have weights that do not do.
    - *prediction*: whether data have the mean, sd and extremes that the fitted model predicts, where it is the model that may
      be wrong.

    The verdict is that of chains and modes: poor where a marginal is more than 0.2 standard deviations off, or unsure where
    chains cannot be run, have not moved, or are too few to tell, and where a mode has not its share of the draws.

    **Arguments**

    - `key`: of the fit's draws, as for `fit.posterior`.
    - `draws`: of the fit.
    - `num_chains`: those whose data are too many for the memory are fewer.
    - `on`: the objective on other data, as of an amortised guide whose data are too many: `on=bound.on(x[:100])`.

    **Returns** a `Diagnosis`: printable, with `verdict`, `findings` by name, `to_dict()`, and the `comparison` of the fit with
    its chains, marginal by marginal.

    Of several objectives the first one's programs are looked at.

    **Raises** `ProgramError` where what is given is no fit; and as `posterior` does.

    Cowles and Carlin 1996 on what chains cannot see; Yao, Vehtari, Simpson and Gelman 2018, "Yes, but did it work?", on k-hat;
    Huggins, Kasprzak, Campbell and Broderick 2020, "Validated variational inference via practical posterior error bounds".
    """
    if not isinstance(fit, Fit):
        raise ProgramError(f"diagnose: it takes a fit, from vi.fit or vi.approximate, not {described(fit)}.")
    count("diagnose: draws", draws, least=100)
    count("diagnose: num_chains", num_chains, least=8)
    if on is not None and not isinstance(on, Objective):
        raise ProgramError(f"diagnose: on= is an objective on data, as in bound.on(x), not {described(on)}.")
    seen = _seen(fit, key, draws, on)
    chains, comparison, modes = _by_chains(seen, num_chains)
    found = [chains, modes, *_weights(seen.drawn), _course(fit), *_left_out(seen.drawn), *_predicted(seen)]
    return Diagnosis({x.name: x for x in found}, comparison)


@dataclass(frozen=True)
class Seen:
    """A fit, with the data that it is asked about, and its draws."""

    fit: Fit
    objective: Objective
    """On the data."""
    key: Any
    drawn: Any


def _seen(fit: Fit, key: Any, draws: int, on: Objective | None) -> Seen:
    bare = fit.objectives[0]
    data = (fit.args, fit.kwargs) if on is None else (on.args, on.kwargs)
    options = {"draws": draws, "log_likelihood": numbers_in(data) * draws < LARGE}
    key = bare.engine.fixed_key(fit.state.step) if key is None else key
    if on is None:
        drawn = fit.posterior(key, **options)
        bound = bare if bare.args or bare.kwargs else bare.on(*fit.args, **fit.kwargs)
    else:
        drawn, bound = posterior(on, key, fit.params, particles=fit.particles, **options), on
    return Seen(fit, bound, key, drawn)


# Chains and modes ----------------------------------------------------------------------------------------------------------


def _freed(seen: Seen, guides: Guides, data: Data, params: Params, num_chains: int) -> Freed:
    """**Raises** `ProgramError` where there is no such space."""
    engine, model = seen.objective.engine, guides.whole(seen.objective.model)
    pairs = on_fixed_supports([guides.latent(model, i, *data) for i in range(2)], guides.library)
    fns = {name: fn for name, (fn, _) in pairs.items() if not fn.support.is_discrete}
    if not fns:
        raise ProgramError("the model has no continuous site")
    drawn = {name: x.reshape(-1, *x.shape[2:]) for name, x in draws_of(seen.drawn).items()}
    if lacking := sorted(name for name in fns if variable(name) not in drawn):
        raise ProgramError(f"the fit does not draw {listed(lacking)}")
    fewer = max(abreast(num_chains, 1, data), 8)
    density, sites, points = LogJoint(guides, model, engine.fixed_key(0), data, params, fewer), {}, []
    for name in sorted(fns):
        onto = guides.onto(fns[name].support)
        free = as_numpy(onto.inv(guides.array(drawn[variable(name)].astype(float), density.like)), float)
        sites[variable(name)] = onto, free.shape[1:]
        points.append(free.reshape(len(free), -1))
    whole = np.concatenate(points, 1)
    if (size := whole.shape[1]) > MOST:
        raise ProgramError(f"there are {size:,} dimensions: ask about fewer data, as in on=bound.on(x[:100])")
    return Freed(density, sites, whole[np.isfinite(whole).all(1)])


def _by_chains(seen: Seen, num_chains: int) -> tuple[Finding, Comparison | None, Finding]:
    """What chains and modes say, and the comparison with chains."""
    guides: Guides = seen.objective.engine.guides
    args, kwargs = seen.objective.args, seen.objective.kwargs
    rng = np.random.default_rng(0)
    try:
        with guides.double((args, seen.fit.params), kwargs) as ((args, params), kwargs):
            freed = _freed(seen, guides, (args, kwargs), params, num_chains)
            start = _starts(freed, rng)
            found = chained(freed.density.each, start, freed.scale, rng)
            half = len(found.states) // 2
            parts = [freed.sites_at(x.reshape(-1, x.shape[-1])) for x in (found.states[:half], found.states[half:])]
            modes = _modes(freed, found.states[-1], rng)
    except (EngineError, StrategyError, ProgramError) as error:
        said = f"cannot be run: {str(error).rstrip('.')}"
        unknown = Finding(
            "chains", None, "unsure", said, CHAINS_BLIND, "compare with vi.nuts, if the model allows it", True
        )
        return unknown, None, replace(unknown, name="modes", blind=MODES_BLIND, then="")
    first, last = parts
    comparison, between = compare(fit=seen.drawn, chains=[last]), compare(fit=[first], chains=[last])
    richer = RICHER if seen.fit.approximated is None else BENT
    return _of_chains(found, comparison, between, richer), comparison, modes


def _starts(freed: Freed, rng: np.random.Generator) -> np.ndarray:
    """Draws at which the density is finite, as many as there are chains."""
    points, count = freed.points, freed.density.count
    if len(points):
        points = like_all(points, min(count, len(points)), rng)
        points = points[np.isfinite(freed.density.each(points)[0])]
    if len(points) < count / 2:
        raise ProgramError("the model has no mass at most of what the fit draws")
    return points[np.arange(count) % len(points)]


CHAINS_BLIND = "modes far from the fit's draws; what chains leave slowly; finite sites, which are summed out"
MODES_BLIND = "modes to which none of the starts leads"


RICHER = "fit for longer, or a richer guide, such as vi.approximate's"
BENT = "no Gaussian has this shape: write the model in other coordinates, fit a flow such as AutoIAFNormal, or take vi.nuts"


def _of_chains(found: Chains, comparison: Comparison, between: Comparison, richer: str) -> Finding:
    states = found.states[len(found.states) // 2 :]
    spread = states.reshape(-1, states.shape[-1]).std(0)
    noise = float((states.mean(0).std(0) / np.where(spread > 0, spread, 1)).max() / math.sqrt(states.shape[1]))
    worst, drift = comparison.worst, between.worst.wasserstein
    verdict: Verdict = "good"
    more = ""
    if not worst.wasserstein <= (FAR + 3 * noise if noise > NOISE else FAR):
        verdict = "poor"
    elif found.accepted < LEAST_ACCEPTED:
        verdict, more = "unsure", f"; they accept {found.accepted:.0%} of the proposals, which is too few"
    elif max(noise, drift - FAR / 2) > NOISE:
        verdict, more = "unsure", f"; they still move, by {drift:.2f} sd, or are few, with errors of {noise:.2f} sd"
    said = (
        f"{worst.name} is {worst.wasserstein:.2f} sd (W1) from where chains take it: mean off by {worst.mean_error:+.2f} sd, "
        f"sd {worst.sd_ratio:.2f} of theirs{more}"
    )
    then = {
        "good": "",
        "poor": f"print(report.comparison) has all marginals; {richer}",
        "unsure": "more chains, as in num_chains=512, or compare with vi.nuts",
    }[verdict]
    return Finding("chains", worst.wasserstein, verdict, said, CHAINS_BLIND, then, decides=True)


def _modes(freed: Freed, chains: np.ndarray, rng: np.random.Generator) -> Finding:
    """How the fit's draws are shared among the modes that are climbed to, and how the posterior's mass is."""
    if (size := freed.points.shape[1]) > DIMENSIONS:
        return Finding("modes", None, "unsure", f"not looked for in {size:,} dimensions", MODES_BLIND)
    found = basins(freed.density.each, _begun(freed, chains), rng)
    if found is None:
        return Finding("modes", None, "unsure", "none was found to climb to", MODES_BLIND)
    if len(found.modes) == 1:
        return Finding("modes", 0.0, "good", "all climbs lead to one", MODES_BLIND, decides=True)
    drawn = found.shares(freed.points).mean(0)
    lacking = found.masses - drawn
    missed = (found.masses > LIKE) & (drawn < found.masses / 10)
    far = found.sure and lacking.max() > LACKING
    worst = int(np.argmax(np.where(missed, 1, 0) + lacking))
    how = "importance weights" if found.sure else "its curvature"
    mass = f"{found.masses[worst]:.0%} of the mass, by {how}"
    said = f"of {len(found.modes)}, one has {mass}, and {drawn[worst]:.0%} of the draws"
    verdict: Verdict = "unsure" if missed.any() or far else "good"
    then = "if it is the same but for labels, order them in the model; else take a guide with several modes"
    then = then if verdict == "unsure" else ""
    return Finding("modes", float(lacking[worst]), verdict, said, MODES_BLIND, then, decides=True)


def _begun(freed: Freed, chains: np.ndarray) -> Sequence[np.ndarray]:
    """Points to climb from: the mean of the draws, the one of them where the density is highest beside a Gaussian's, ends of
    chains that are far from one another, and starts elsewhere."""
    points, center = freed.points, freed.points.mean(0)
    away = whitened(freed.scale, points - center)
    gains = freed.density.each(points)[0] + (away**2).sum(1) / 2
    ends, chosen = whitened(freed.scale, chains - center), [center, points[int(np.nanargmax(gains))]]
    nearest = np.full(len(ends), np.inf)
    for _ in range(STARTS // 2):
        last = whitened(freed.scale, chosen[-1] - center)
        nearest = np.minimum(nearest, np.linalg.norm(ends - last, axis=1))
        chosen.append(chains[int(nearest.argmax())])
    return [*chosen, *starts(freed.density, STARTS, 0)]


# Other looks ---------------------------------------------------------------------------------------------------------------


def _weights(drawn: Any) -> Iterator[Finding]:
    """What importance weights say, and the bound of the error that they have where they have a variance."""
    blind = "where the fit does not draw: a guide far too narrow may look well"
    log_weights = log_weights_of(drawn)
    if log_weights is None:
        yield Finding("weights", None, "unsure", "the draws have none", blind)
        return
    if all(np.ptp(x, 1).max() == 0 for x in draws_of(drawn).values()):
        yield Finding("weights", None, "unsure", "the fit has one draw, again and again", blind)
        return
    k, limit = pareto_shape(log_weights), threshold(log_weights.size)
    weights = np.exp(log_weights - log_weights.max())
    share = float(weights.sum() ** 2 / (weights**2).sum() / weights.size)
    if k == -math.inf:
        yield Finding("weights", None, "good", "all are one, but for rounding: there is nothing to correct", blind)
    elif k < limit:
        said = f"k-hat below {limit:.2f}: p / q can be averaged, {log_weights.size} draws count as {share:.0%} of them"
        yield Finding("weights", k, "good", said, blind)
    else:
        then = "do not correct means by these weights; fit.posterior(particles=20) may help"
        yield Finding("weights", k, "poor", f"k-hat not below {limit:.2f}: p / q cannot be averaged", blind, then)
    yield _bound(k, share)


def _bound(k: float, share: float) -> Finding:
    """By the Cauchy-Schwarz inequality |E_p f - E_q f| = |E_q[(p / q - 1) (f - E_q f)]| is at most sd_q(f) times the root
    of the chi-squared divergence of p from q, E_q[(p / q)^2] - 1. So is W1, for mass that differs is moved no further than
    by way of the mean m: W1 <= E_q[|p / q - 1| |x - m|] (Villani 2009, theorem 6.15)."""
    blind = "what the weights do not see; it may be many times the error"
    if k >= HEAVY:
        return Finding("bound", None, "unsure", "the weights have no variance, so that there is none", blind)
    most = math.sqrt(max(1 / share - 1, 0))
    said = f"by estimate no mean, and no marginal (W1), is more than {most:.2f} sd of the draws off"
    return Finding("bound", most, "good" if most <= FAR else "unsure", said, blind)


def _course(fit: Fit) -> Finding:
    blind, course = "whether what it settled at is the posterior", fit.course
    if course is None:
        return Finding("course", None, "unsure", "too few losses to tell", blind)
    verdict: Verdict = "poor" if course.change else "good" if course.settled else "unsure"
    return Finding(
        "course", course.change, verdict, f"the loss {course}", blind, "fit for longer" if course.change else ""
    )


def _left_out(drawn: Any) -> Iterator[Finding]:
    """Of every observed site."""
    densities = group_of(drawn, "log_likelihood")
    blind = "whether the fit is right; it looks at how observations pull at it"
    for name, values in () if densities is None else densities.data_vars.items():
        if masked_out(values).all():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            k = np.asarray(loo(drawn, var_name=str(name)).pareto_k)
        high = int((k > 0.7).sum())
        said = f"{high} of {k.size} observations of {name} have a Pareto k above 0.7"
        verdict: Verdict = "good" if not high else "poor"
        yield Finding(f"leave-one-out of {name}", float(k.max()), verdict, said, blind)


STATISTICS = {"mean": np.mean, "sd": np.std, "least": np.min, "greatest": np.max}
"""Of data, by which predictions are told from them."""


def _predicted(seen: Seen) -> Iterator[Finding]:
    """Of every observed site."""
    blind = "whether it is the fit or the model that is wrong; other statistics"
    particles = seen.fit.particles
    try:
        found = predict(seen.objective, seen.key, seen.fit.params, draws=PREDICTED, particles=particles)
    except (EngineError, StrategyError, ProgramError) as error:
        yield Finding("prediction", None, "unsure", f"cannot be made: {str(error).rstrip('.')}", blind)
        return
    drawn, observed = group_of(found, "posterior_predictive"), group_of(found, "observed_data")
    if drawn is None or observed is None:
        return
    densities = group_of(seen.drawn, "log_likelihood")
    for name in sorted({str(name) for name in drawn.data_vars if name in observed}):
        data, others = np.asarray(observed[name], float), np.asarray(drawn[name], float)[0]
        if others.shape[1:] != data.shape:
            said = f"{name} draws {others[0].size} at a time and its data are {data.size}: state a plate of them"
            yield Finding(f"prediction of {name}", None, "unsure", said, blind)
            continue
        if densities is not None and name in densities:
            kept = ~masked_out(densities[name])
            data, others = data[kept], others[:, kept]
        if not data.size or not np.isfinite(data).all():
            continue
        odds = {}
        for said, statistic in STATISTICS.items():
            values = np.array([statistic(x) for x in others])
            above, below = (values >= statistic(data)).mean(), (values <= statistic(data)).mean()
            odds[said] = min(1.0, 2 * float(min(above, below)))
        least = min(odds, key=odds.__getitem__)
        verdict: Verdict = "good" if odds[least] >= RARE else "poor"
        said = f"the {least} of the data is where {odds[least]:.1%} of {len(others)} predictions are, at both ends"
        then = "" if verdict == "good" else "look at az.plot_ppc(fit.predict())"
        yield Finding(f"prediction of {name}", odds[least], verdict, said, blind, then)
