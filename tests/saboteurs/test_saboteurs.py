"""Planted bugs: each must make a law fail. A saboteur that survives is a missing law."""

import importlib
from dataclasses import dataclass
from unittest import mock

import jax
import pytest

import ppvi
from ppvi.compiler import continuation as compiler, terms
from ppvi.strategies import phantom
from tests.engines import xp
from tests.laws import test_exact, test_statistical
from tests.laws.cases import CASES


def exact_case(name):
    return next(case for case in CASES if case.name == name)


def statistical_case(name):
    return next(case for case in test_statistical.CASES if case.name == name)


@dataclass(frozen=True)
class DroppedScore(ppvi.Reinforce):
    def estimate(self, site, k):
        return k(site.value)


@dataclass(frozen=True)
class WrongSign(ppvi.Reinforce):
    def estimate(self, site, k):
        return k(site.value).scale(-phantom(site, site.log_prob))


@dataclass(frozen=True)
class BaselineOfItsOwnDraw(ppvi.Reinforce):
    """The draw's own value, halved, as baseline: shrinks the gradient."""

    def estimate(self, site, k):
        score = phantom(site, site.log_prob)
        return k(site.value).scale(score) + k.value(site.value).vary(-0.5 * score)


@dataclass(frozen=True)
class OwnDrawAmongTheOthers(ppvi.LeaveOneOut):
    """The mean over all draws as baseline, undivided by n - 1: shrinks the gradient by 1 - 1/n."""

    def estimate(self, site, k):
        mean = (site.log_prob + site.log_probs.sum(0)) / self.n
        others = k.value_each(site.values).vary((site.log_probs - mean) / self.n).total()
        return k(site.value).scale(phantom(site, site.log_prob - mean) / self.n) + others


@dataclass(frozen=True)
class ValueOnly(ppvi.Reinforce):
    """The rest of the objective without its own gradient: the tangent of the continuation is missing."""

    def estimate(self, site, k):
        return k.value(site.value).scale(phantom(site, site.log_prob))


@dataclass(frozen=True)
class UniformMixture(ppvi.Enumerate):
    """Support values weighed alike."""

    def estimate(self, site, k):
        return k.each(site.values).mix(0 * site.log_probs - xp.log(2.0))


@pytest.mark.parametrize("strategy", [DroppedScore(), WrongSign(), BaselineOfItsOwnDraw(), OwnDrawAmongTheOthers(), ValueOnly(), UniformMixture()], ids=lambda s: type(s).__name__)  # fmt: skip
def test_strategy(engine, strategy):
    with pytest.raises(AssertionError):
        test_exact.test_expectation_is_exact(
            engine, exact_case("dependent pair"), {"z1": strategy, "z2": ppvi.Enumerate()}
        )


def test_wrong_lane_alignment(engine):
    """Weights laid along the wrong end of an axis."""

    def flipped(ops, weight, lanes, ndim):
        out = align(ops, weight, lanes, ndim)
        return xp.flip(out) if out.ndim else out

    align = compiler.align
    with mock.patch.object(compiler, "align", flipped), pytest.raises(AssertionError):
        test_exact.test_expectation_is_exact(engine, exact_case("lanes, separable"), {"z": ppvi.Reinforce()})


def test_one_lane_for_the_sum_of_them(engine):
    """A coupled term that is credited with one of its lanes only."""

    def first_lane(ops, weight, lanes, shape):
        return align(ops, weight, lanes, shape) if shape else weight[0]

    align = compiler.align
    with mock.patch.object(compiler, "align", first_lane), pytest.raises(AssertionError):
        test_exact.test_expectation_is_exact(engine, exact_case("lanes, coupled"), {"z": ppvi.Reinforce()})


def test_every_part_taken_for_a_zero_mean_log_prob(engine):
    part = terms.Part
    with (
        mock.patch.object(terms, "Part", lambda atom, own_log_prob: part(atom, True)),
        pytest.raises(AssertionError),
    ):
        test_exact.test_expectation_is_exact(engine, exact_case("ELBO, means[z]"), {"z": ppvi.Reinforce()})


def test_scale_in_the_score(engine):
    """N / n counted twice: the site's log_prob is weighed by the plate's scale."""

    @dataclass(frozen=True)
    class Scaled(ppvi.Reinforce):
        def estimate(self, site, k):
            return k(site.value).scale(2.0 * phantom(site, site.log_prob))

    with pytest.raises(AssertionError):
        test_statistical.test_mean_gradient(engine, statistical_case("subsampled plate"), {"z": Scaled()})


def test_frozen_key(engine):
    """One key for every evaluation: all seeds give the same draw."""

    def frozen_scope(key, *others):
        return scope_of(jax.random.key(0), *others)

    def frozen_seed(key):
        return seeded(0)

    on_numpyro, on_pyro = (importlib.import_module(f"ppvi.{name}._engine") for name in ("numpyro", "pyro"))
    scope_of, seeded = on_numpyro.scope_of, on_pyro.seeded
    with (
        mock.patch.object(on_numpyro, "scope_of", frozen_scope),
        mock.patch.object(on_pyro, "seeded", frozen_seed),
        pytest.raises(AssertionError),
    ):
        test_statistical.test_different_keys_differ_and_equal_keys_agree(engine, statistical_case("E x^2"))
