"""A fit beside a reference: which scalars are one, and what is said of importance weights."""

import arviz as az
import numpy as np
import pytest

import ppvi
from ppvi import ProgramError
from ppvi._losses import course_of
from ppvi.checks.tails import threshold
from ppvi.engine._arviz import is_data
from tests.data import arviz_data

RNG = np.random.default_rng(0)
AT = {"mu": np.array(1.0), "beta": np.array([10.0, 20.0]), "gamma": np.arange(6.0).reshape(2, 3) + 30}
"""Posterior means; every scalar has a spread of 1."""


def draws(shape, names=tuple(AT)):
    return {name: AT[name] + RNG.normal(size=(*shape, *AT[name].shape)) for name in names}


def entries(arrays, written, first=1):
    """Every entry of arrays as a scalar of its own, under a name such as `beta[1,2]`."""
    found = {}
    for name, x in arrays.items():
        for place in np.ndindex(*AT[name].shape):
            found[written(name, [i + first for i in place])] = x[(..., *place)]
    return found


def brackets(name, place):
    return f"{name}[{','.join(map(str, place))}]" if place else name


def spaced(name, place):
    return f"{name}[{', '.join(map(str, place))}]" if place else name


def nested(name, place):
    return name + "".join(f"[{i}]" for i in place)


def dotted(name, place):
    return ".".join([name, *map(str, place)])


MANY, ONE = draws((4, 400)), draws((1600,))
CHAINS = [{name: x[i] for name, x in MANY.items()} for i in range(4)]
REFERENCES = {
    "arrays": arviz_data(posterior=MANY),
    "Stan's scalars": arviz_data(posterior=entries(MANY, brackets)),
    "with spaces": arviz_data(posterior=entries(MANY, spaced)),
    "with brackets around each": arviz_data(posterior=entries(MANY, nested)),
    "with dots": arviz_data(posterior=entries(MANY, dotted)),
    "from 0": arviz_data(posterior=entries(MANY, brackets, first=0)),
    "in another order": arviz_data(posterior=dict(reversed(entries(MANY, brackets).items()))),
    "a dict of chains": MANY,
    "a dict of draws": ONE,
    "a dict of scalars": entries(ONE, brackets),
    "a dict of chains of scalars": entries(MANY, dotted),
    "a list of chains": CHAINS,
    "a list of chains of scalars": [entries(chain, brackets) for chain in CHAINS],
    "a data set": az.convert_to_dataset(MANY),
    "axes of length one": ONE | {"mu": ONE["mu"][:, None]},
}


@pytest.mark.parametrize("name", REFERENCES)
def test_every_scalar_meets_its_own(name):
    """By the means, which are far from each other; and the other way round, where the reference has its chains' axes."""
    fit = arviz_data(posterior=draws((1, 2000)))
    comparison = ppvi.compare(fit, REFERENCES[name])
    assert [m.name for m in comparison.marginals if m.name.startswith("beta")] == ["beta[0]", "beta[1]"]
    assert len(comparison.marginals) == 9
    for marginal in comparison.marginals:
        assert abs(marginal.mean_error) < 0.15, marginal
        assert marginal.wasserstein < 0.15, marginal
    assert comparison.only.only_here == comparison.only.only_reference == ()
    if is_data(REFERENCES[name]):
        assert len(ppvi.compare(REFERENCES[name], arviz_data(posterior=draws((2, 500)))).marginals) == 9


@pytest.mark.parametrize("shape", [(2000,), (1, 2000), (4, 500)])
def test_draws_by_name_without_a_scalar_are_told_by_the_reference(shape):
    """Where all have an axis of their own, (2000, 2) may be 2,000 draws, or chains of two."""
    ours = np.random.default_rng(0).normal([1.0, 2.0], size=(*shape, 2))
    reference = arviz_data(posterior={"beta": np.random.default_rng(1).normal([1.0, 2.0], size=(2, 1000, 2))})
    comparison = ppvi.compare({"beta": ours}, reference)
    assert [m.name for m in comparison.marginals] == ["beta[0]", "beta[1]"]
    assert comparison.worst.wasserstein < 0.15


def test_draws_of_a_vector_alone_are_not_taken_for_as_many_chains():
    draws = {"x": np.random.default_rng(0).normal(size=(400, 20))}
    with pytest.raises(ProgramError, match=r"x may be 400 draws of a vector, or 400 chains of 20 draws.*\[draws\]"):
        ppvi.compare(fit=draws, reference=draws)
    assert len(ppvi.compare(fit=[draws], reference=[draws]).marginals) == 20
    chains = {"x": draws["x"].T}
    assert len(ppvi.compare(fit=chains, reference=chains).marginals) == 1


def test_what_one_side_has_is_said():
    fit = arviz_data(posterior={**draws((1, 100), ["mu", "beta"]), "extra": RNG.normal(size=(1, 100))})
    reference = {**entries(draws((2, 50), ["beta", "gamma"]), brackets), "tau": RNG.normal(size=(2, 50))}
    comparison = ppvi.compare(fit, reference)
    assert {m.name for m in comparison.marginals} == {"beta[0]", "beta[1]"}
    assert comparison.only.only_here == ("mu", "extra")
    assert "only in the fit, not compared: mu, extra" in str(comparison)
    assert comparison.only.only_reference[-1] == "tau"
    assert "gamma[2,3], tau" in str(comparison)


def test_a_name_that_is_a_whole_name_stays_one():
    """Sites of modules have numbers in their names."""
    both = [arviz_data(posterior={f"net.{i}": i + RNG.normal(size=(2, 50, 3)) for i in (0, 1)}) for _ in range(2)]
    assert [m.name for m in ppvi.compare(*both).marginals][::3] == ["net.0[0]", "net.1[0]"]


REFUSED = {
    "transposed": ({"gamma": np.zeros((2, 50, 3, 2))}, r"'gamma' has the shape \(2, 3\) in the fit and \(3, 2\)"),
    "one entry too many": (
        entries(MANY, brackets) | {"beta[3]": np.zeros((4, 400))},
        r"'beta' has the shape \(2,\) in the fit and \(3,\)",
    ),
    "some entries": (
        {"gamma[1,1]": np.zeros((2, 50)), "gamma[2,3]": np.zeros((2, 50))},
        "some entries of an array 'gamma'",
    ),
    "entries of two ranks": ({"beta[1]": np.zeros((2, 50)), "beta[1,1]": np.zeros((2, 50))}, "some entries"),
    "entries from 2 on": ({"beta[2]": np.zeros((2, 50)), "beta[3]": np.zeros((2, 50))}, "not all from 1 or from 0"),
    "axes that cannot be told apart": (
        {"beta": np.zeros((50, 2)), "mu": np.zeros((2, 50))},
        "draws by name are arrays of the shape",
    ),
    "nothing in common": ({"alpha": np.zeros((2, 50))}, r"the fit has \['beta', 'gamma', 'mu'\]"),
    "chains of different names": ([{"mu": np.zeros(5)}, {"beta": np.zeros((5, 2))}], "different names"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    reference, said = REFUSED[name]
    with pytest.raises(ppvi.ProgramError, match=said):
        ppvi.compare(arviz_data(posterior=draws((1, 100))), reference)


# Words ------------------------------------------------------------------------------------------------------------------------


def weighed(log_weights, losses=None):
    """A fit of one scalar, far too narrow, with these weights."""
    data = arviz_data(
        posterior={"x": 0.1 * RNG.normal(size=(1, len(log_weights)))}, sample_stats={"log_weight": log_weights[None]}
    )
    return type("Fit", (), {"posterior": lambda self, draws, log_likelihood: data, "course": course_of(losses)})()


REFERENCE = {"x": RNG.normal(size=(4, 500))}


def test_thresholds():
    """Vehtari et al. 2024: 1 - 1 / log10 S up to 2,154 draws, and 0.7 from there on."""
    assert threshold(100) == pytest.approx(0.5)
    assert threshold(1000) == pytest.approx(2 / 3)
    assert threshold(4000) == threshold(10**6) == 0.7
    assert threshold(5) == threshold(1) == 0.0


def test_weights_that_look_well_call_no_fit_good():
    comparison = ppvi.compare(weighed(0.1 * RNG.normal(size=1000)), REFERENCE)
    assert comparison.k_hat < comparison.threshold == pytest.approx(2 / 3)
    said = " ".join(str(comparison).split())
    assert "a guide far too narrow looks the same" in said
    assert "worst marginal: x, W1 0.7" in said
    assert "its sd 0.10 of the reference's" in said
    assert "good" not in said
    assert "usable" not in said


def test_weights_that_look_badly():
    comparison = ppvi.compare(weighed(RNG.standard_cauchy(size=100)), REFERENCE)
    assert comparison.k_hat > comparison.threshold == pytest.approx(0.5)
    assert "not below 0.50" in str(comparison)


@pytest.mark.parametrize(
    ("slope", "said"), [(-0.01, "was still falling, by 5"), (0.01, "was still rising, by 4.9"), (0.0, "had settled")]
)
def test_whether_the_loss_was_moving(slope, said):
    losses = slope * np.arange(1000) + 0.1 * np.random.default_rng(0).normal(size=1000)
    assert f"loss: {said}" in str(ppvi.compare(weighed(np.zeros(500), losses), REFERENCE))


def test_a_constant_is_not_the_worst():
    rng = np.random.default_rng(0)
    reference = {"mu": np.zeros((2, 50)), "b": rng.normal(size=(2, 50))}
    comparison = ppvi.compare({"mu": rng.normal(size=(2, 50)), "b": rng.normal(size=(2, 50))}, reference)
    assert comparison.worst.name == "b"
    assert "nan sd" not in str(comparison)
    assert "constant in the reference, so that no sd is a unit: mu" in str(comparison)


def test_who_lacks_what():
    one, other = draws((2, 50), ["mu"]), draws((2, 50), ["mu", "beta"])
    said = str(ppvi.compare(a=one, b=other, c={**other, "tau": RNG.normal(size=(2, 50))}))
    assert "not in a, not compared there: beta" in said
    assert "only in c, not compared: tau" in said


def test_bars_are_within_the_figure():
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(2, 50)) for name in ("mu", "tau")}
    ax = ppvi.compare(a=x, b=x, c=x).plot()
    low, high = sorted(ax.get_ylim())
    heights = [y for line in ax.lines for y in line.get_ydata()]
    assert low + 0.2 < min(heights) < max(heights) < high - 0.2


def test_one_chain_has_no_r_hat():
    assert "one chain, no R-hat" in str(ppvi.compare(weighed(np.zeros(500)), {"x": RNG.normal(size=500)}))


def test_a_reference_that_is_constant_has_no_unit():
    rng = np.random.default_rng(0)
    said = str(ppvi.compare({"mean": rng.normal(size=(2, 50))}, {"mean": np.full((2, 50), 0.1)}))
    assert "constant in the reference" in said
    assert "e+1" not in said


def test_a_reference_whose_chains_have_not_mixed_is_said_to_be_none():
    rng = np.random.default_rng(0)
    apart = {"x": rng.normal(size=(2, 500)) + np.array([[0.0], [2.0]])}
    said = " ".join(str(ppvi.compare({"x": rng.normal(size=1000)}, apart)).split())
    assert "its chains have not mixed, so that it is no reference yet" in said
    mixed = {"x": rng.normal(size=(2, 500))}
    assert "have not mixed" not in str(ppvi.compare({"x": rng.normal(size=1000)}, mixed))


def test_weights_that_are_all_one_have_no_tail():
    even, other = weighed(np.zeros(1000)), weighed(RNG.normal(size=1000))
    assert "all are one, but for rounding" in " ".join(str(ppvi.compare(even, REFERENCE)).split())
    both = str(ppvi.compare(REFERENCE, even=even, other=other, last=REFERENCE))
    assert "none" in both
    assert "inf" not in both
