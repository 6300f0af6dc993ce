"""Plain runs of programs: nothing is staged, and sites are simply drawn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ppvi.engine.minibatches import Whole
from ppvi.engine.protocol import Params
from ppvi.engine.runs import Handle
from ppvi.engine.sessions import Recorder, Session
from ppvi.engine.unstaged import ONE_BY_ONE, culprits
from ppvi.errors import ProgramError
from ppvi.pyro._handlers import all_rows
from ppvi.pyro._keys import Key, seeded
from ppvi.pyro._lending import Arguments
from ppvi.pyro._programs import PyroPrograms, scope_of
from ppvi.pyro._stage import DynamicError, registering, what_prevents
from ppvi.pyro._trees import stacked, tree_map

if TYPE_CHECKING:
    from ppvi.pyro._engine import Estimator


def many(
    bound: Estimator, key: Key, params: Params, arguments: Arguments, n: int, function: Callable[[Handle, Handle], Any]
) -> Any:
    """`n` runs of a function of the two handles: vectorised, or one by one where programs read what they draw."""

    def run(vectorised: bool) -> Any:
        # A session leaves notes on the tensors of parameters, which are the caller's.
        own, repeats = {name: x.detach() for name, x in params.items()}, None if vectorised else ONE_BY_ONE
        session = Session(PyroPrograms(bound.modules), own, bound.formula.strategies, scope_of(), repeats=repeats)
        session.plate_rows = Whole()
        with (
            seeded(key),
            registering(),
            torch.no_grad(),
            all_rows(),
            arguments.lent(arguments.copies()) as lent,
            bound.formula.handles(session, *lent) as (p, q),
        ):
            if vectorised:
                return session.each(lambda: function(p, q), (), n)
            return stacked(*shared([function(p, q) for _ in range(n)]))

    try:
        found = run(vectorised=True)
    except (RuntimeError, DynamicError) as error:
        if what_prevents(error) is None:
            raise
        found = run(vectorised=False)
    return tree_map(lambda x: x.detach().cpu().numpy(), found)


def culprits_of(bound: Estimator, random: torch.Tensor, params: Params, arguments: Arguments) -> list[str]:
    """The sites whose values or densities are not finite, at the draws of the staged program in this state of the generator."""

    def start(recorder: Recorder) -> Session:
        engine = PyroPrograms(bound.modules)
        return Session(engine, params, bound.formula.strategies, scope_of(), repeats=ONE_BY_ONE, recorder=recorder)

    with torch.random.fork_rng(), torch.no_grad(), arguments.lent(arguments.copies()) as (args, kwargs):
        torch.set_rng_state(random)
        return culprits(lambda begin: bound.formula.evaluate(begin, args, kwargs), start)


def shared(runs: Sequence[tuple[Mapping[str, Any], Any]]) -> list[tuple[Mapping[str, Any], Any]]:
    """Sites and weights of runs, with the sites that all runs have, in one shape; a warning names the others."""
    names = dict.fromkeys(name for sites, _ in runs for name in sites)
    shapes = {name: {sites[name].shape if name in sites else None for sites, _ in runs} for name in names}
    left_out = [name for name, found in shapes.items() if len(found) > 1]
    if len(left_out) == len(names) and names:
        raise ProgramError(
            f"posterior: no site is in every draw and of one shape; {_some(left_out)} vary from draw to draw. Return what you "
            f"want of all draws by pyro.deterministic in the model."
        )
    if left_out:
        warnings.warn(
            f"posterior: {_some(left_out)} are left out, since not all draws have them in one shape. Return what you want of "
            f"all draws by pyro.deterministic in the model.",
            stacklevel=2,
        )
    return [({name: x for name, x in sites.items() if len(shapes[name]) == 1}, weight) for sites, weight in runs]


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"sites {', '.join(map(repr, names[:8]))}{rest}"
