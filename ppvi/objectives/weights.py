"""Importance weights, of which most objectives are functions."""

from __future__ import annotations

from ppvi._ops import Array
from ppvi.errors import ProgramError
from ppvi.program import Plates, Program, Trace, replicate, session


def log_weight(p: Program, q: Program, per: Plates | None = None) -> Array:
    """log w = log p(x, z) - log q(z) for one draw z ~ q: a scalar, or one for each index of the plates."""
    z = q.simulate()
    return p.log_density(z, per=per) - z.per(per)


def log_weights(p: Program, q: Program, particles: int, per: Plates | None = None) -> Array:
    """The same for K independent draws: `(particle, *plates)`."""
    return replicate(particles, lambda: log_weight(p, q, per))


def normalized(log_w: Array) -> Array:
    """Weights that sum to one over the particles: w_k / sum_j w_j."""
    ops = session().ops
    return ops.exp(log_w - ops.logsumexp(log_w, 0))


def refuse_estimated(objective: str, z: Trace, q: Program) -> None:
    """Refuse a guide whose density is an estimate, for an objective that needs the same density twice."""
    if not z.exact:
        raise ProgramError(
            f"{objective}: the guide is a {q}, whose density is estimated anew each time it is asked for, and this objective "
            f"is right for exact densities only. Use `elbo`, or the guide itself."
        )


def refuse_points(objective: str, z: Trace) -> None:
    """Refuse a guide of points, for an objective whose gradient is that of the guide's density at draws held constant."""
    if len(z) and z.points.issuperset(z):
        raise ProgramError(
            f"{objective}: the guide's sites {sorted(z)} are points, whose density has no gradient, and this objective has no "
            f"other. Use `elbo`, which moves points, or a guide with a spread such as AutoNormal."
        )


def refuse_placed(objective: str, z: Trace) -> None:
    """Refuse a guide that draws some of its sites only, for an objective whose gradient leaves the score of draws out."""
    if z.placed:
        raise ProgramError(
            f"{objective}: site {min(z.placed)!r} of the guide is not drawn, since a handler gives its value, and the score of "
            f"a given value has no mean of zero. Use `elbo`, or condition the model and the guide on the value."
        )
