"""Every error that ppvi raises on purpose, and a warning.

One base class and five nouns: the *program* is at fault, the *strategy* is, the *engine* cannot do it, a gradient has
*bias*, or the *fit* left the finite numbers. A message names the site, its file and line where there is one, and the
next thing to try.
"""

from __future__ import annotations

from typing import Any


class PpviError(Exception):
    """Base class of everything that ppvi raises on purpose."""


class ProgramError(PpviError):
    """A model, a guide or an objective does not mean what it has to mean.

    Common causes: a latent site of the model that the guide lacks, or the reverse; a value whose shape does not
    fit its site; NaN among the observations; a parameter missing from `params`; an objective that returns
    something else than one real number.
    """


class CallError(ProgramError, TypeError):
    """A public function is called with arguments that it does not take."""


class NoChoiceError(ProgramError, KeyError):
    """A run has no such choice."""

    __str__ = Exception.__str__


class NoVerbError(ProgramError, AttributeError):
    """A handle on a program has no such verb."""


class NoLossError(ProgramError, AttributeError):
    """An objective has no attribute `loss`, nor is it a function."""


class ObservedError(ProgramError):
    """A site observes what it cannot have."""

    def __init__(self, message: str, site: str, value: Any):
        super().__init__(message)
        self.site = site
        self.value = value

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.site, self.value)


class StrategyError(PpviError):
    """A gradient strategy does not fit the site it was asked to handle.

    Common causes: `Enumerate` on an infinite support, `Reparam` on a distribution without a reparameterised
    sampler, a score function where the support moves with a parameter, enumeration of lanes that the objective couples.
    """


class FiniteSiteError(ProgramError):
    """A site has no value, and could be summed out."""


class EngineError(PpviError):
    """The program is meaningful, but the engine cannot transform it.

    Common causes: a sample site inside `lax.scan`, `lax.cond`, `lax.while_loop`, `jax.grad` or `jax.vmap`.
    """


class BiasError(PpviError):
    """A check found a gradient biased, or, where that was asked for, could not find it unbiased.

    Common causes: `Reparam` where the objective jumps, a `stop_gradient` that drops a part of the gradient, a nonlinear
    function of a minibatch estimate, a guide that draws outside the model's support, a loss without its score terms.

    **Attributes**

    - `report`: the check's report.
    """

    def __init__(self, message: str, report: Any):
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.report)


class BiasWarning(UserWarning):
    """An objective is biased, as is seen while it is staged: at the first gradient or estimate for arguments of new shapes.

    Common causes: a logarithm, an exponential or another nonlinear function of a density on a minibatch, such as an
    importance-weighted bound of a model with a subsampled plate, which has to be taken per row (`per=`).
    """


class FitError(PpviError):
    """A fit met NaN or infinity, or a parameter left its constraint, and the fit stopped.

    **Attributes**

    - `fit`: the fit up to the last state that was finite and in its constraints; its `params` and `losses` are usable.
    """

    def __init__(self, message: str, fit: Any):
        super().__init__(message)
        self.fit = fit

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.fit)
