"""The families that are known, by the name of the distribution in its parametrisation."""

from __future__ import annotations

from ppvi.optimizers.discrete import BernoulliLogits, BernoulliProbs, CategoricalLogits, CategoricalProbs, Poisson
from ppvi.optimizers.family import Family
from ppvi.optimizers.gaussians import MultivariateNormal, Normal
from ppvi.optimizers.positive import Beta, Dirichlet, Exponential, Gamma

_ALL: list[Family] = [
    Normal(), MultivariateNormal(), BernoulliProbs(), BernoulliLogits(), CategoricalProbs(), CategoricalLogits(), Poisson(),
    Exponential(), Gamma(), Dirichlet(), Beta(),
]  # fmt: skip
FAMILIES: dict[str, Family] = {type(family).__name__: family for family in _ALL}
