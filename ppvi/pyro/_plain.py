"""Plain runs of programs: nothing is staged, and sites are simply drawn."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ppvi.engine.evaluations import handles
from ppvi.engine.formula import Formula
from ppvi.engine.memory import abreast
from ppvi.engine.minibatches import Whole
from ppvi.engine.pieces import Staged, Wanted
from ppvi.engine.protocol import Params, Pick
from ppvi.engine.sessions import Session
from ppvi.engine.summed import Alternatives, Completed, alternatives_of, log_sum
from ppvi.engine.unstaged import ONE_BY_ONE, culprits
from ppvi.errors import ProgramError
from ppvi.program import each, replicate
from ppvi.pyro._buffers import Modules
from ppvi.pyro._handlers import all_rows
from ppvi.pyro._keys import Key, seeded
from ppvi.pyro._lending import Arguments
from ppvi.pyro._programs import STAGED, PyroPrograms, scope_of
from ppvi.pyro._stage import DynamicError, registering, traced_and_read, what_prevents
from ppvi.pyro._summing import completed as of_one, expanded
from ppvi.pyro._trees import beside, stacked, tree_map


def many(
    formula: Formula,
    modules: Modules,
    key: Key,
    params: Params,
    arguments: Arguments,
    n: int,
    function: Callable[..., Any],
    given: Any,
    particles: int = 1,
    pick: Pick | None = None,
) -> Any:
    """`n` runs of a function of the two handles, and each of an entry of what is given: vectorised, as many at a time as
    there is memory for, or one by one where a program reads what it draws. With `pick` one of so many particles is picked."""
    side_by_side = abreast(n, particles, params, arguments.tensors)

    def run(n: int, given: Any, vectorised: bool) -> Any:
        entries = beside(given, params, arguments.copies())
        # A session leaves notes on the tensors of parameters, which are the caller's.
        own = {name: x.detach() for name, x in params.items()}
        options = {"repeats": None if vectorised else ONE_BY_ONE, "plate_rows": Whole()}
        session = Session(PyroPrograms(modules), own, formula.strategies, scope_of(), **options)
        with (
            registering(),
            torch.enable_grad(),
            all_rows(),
            arguments.lent(arguments.copies()) as lent,
            handles(formula, session, *lent) as (p, q),
        ):
            if vectorised and given:
                return each(lambda entry: function(p, q, entry), entries)
            if vectorised:
                return replicate(n, lambda: function(p, q, *([] if given is None else [entries])))
            if given is not None:
                return stacked(*shared([function(p, q, tree_map(lambda x, i=i: x[i], entries)) for i in range(n)]))
            return stacked(*shared([function(p, q) for _ in range(n)]))

    def part(begin: int) -> Any:
        size = min(side_by_side, n - begin) * (1 if pick is None else particles)
        some = tree_map(lambda x: x[begin : begin + size], given)
        try:
            found = run(size, some, vectorised=True)
        except (RuntimeError, DynamicError) as error:
            if what_prevents(error) is None:
                raise
            found = run(size, some, vectorised=False)
        arrays = tree_map(lambda x: x.detach().cpu().numpy(), found)
        return arrays if pick is None else pick(arrays, np.random.default_rng(int(torch.randint(2**63 - 1, ()))))

    with seeded(key):
        parts = [part(begin) for begin in range(0, n, side_by_side)]
    return tree_map(lambda *xs: np.concatenate(xs), *parts)


def completed(
    formula: Formula,
    modules: Modules,
    key: Key,
    params: Params,
    arguments: Arguments,
    choices: Mapping[str, Any],
    wanted: Wanted,
) -> Completed:
    """Of stacks of choices the finite sites that are summed out."""
    names, stacks = list(choices), [*choices.values()]
    own, tensors = [x.detach() for x in params.values()], arguments.copies()
    stacks = beside(stacks, own, tensors)

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        values, lent = dict(zip(params, inputs, strict=False)), inputs[len(own) + len(names) :]
        given = dict(zip(names, inputs[len(own) :], strict=False))
        session = Session(PyroPrograms(modules, STAGED), values, formula.strategies, scope_of(), plate_rows=Whole())
        with arguments.lent(lent) as (args, kwargs), handles(formula, session, args, kwargs) as (p, _):
            return log_sum(p, given, None, None, False)[0]

    with seeded(key), all_rows(), registering() as things, torch.no_grad():
        with arguments.lent(tensors), torch.enable_grad():
            graph = traced_and_read(run, things, *own, *[x[0] for x in stacks], *[x.detach() for x in tensors]).graph
        # Within a vectorisation nobody can look at the numbers of a tensor.
        graph = graph._replace(constants={var: x.detach().cpu().numpy() for var, x in graph.constants.items()})
        about: list[Alternatives] = []

        def summed(inputs: Sequence[torch.Tensor], made: Callable[[Staged], torch.Tensor]) -> torch.Tensor:
            return expanded(graph, *own, *inputs, *tensors, made=made)

        def noted(staged: Staged) -> torch.Tensor:
            about[:] = [alternatives_of(staged)]
            return torch.zeros(())

        summed([x[0] for x in stacks], noted)
        found = torch.func.vmap(
            lambda inputs: tuple(of_one(functools.partial(summed, inputs), about[0], wanted)),
            randomness="different",
            chunk_size=CHUNK,
        )(stacks)
    return Completed(*tree_map(lambda x: x.detach().cpu().numpy(), found))


CHUNK = 256
"""So many draws are completed side by side."""


def culprits_of(
    formula: Formula, modules: Modules, random: torch.Tensor, params: Params, arguments: Arguments
) -> list[str]:
    """The sites whose values or densities are not finite, at the draws of the staged program in this state of the generator."""

    def start(**options: Any) -> Session:
        return Session(PyroPrograms(modules), params, formula.strategies, scope_of(), **options)

    params = {name: x.detach() for name, x in params.items()}
    with torch.random.fork_rng(), torch.enable_grad(), arguments.lent(arguments.copies()) as (args, kwargs):
        torch.set_rng_state(random)
        return culprits(formula, start, args, kwargs)


def shared(runs: Sequence[Any]) -> list[Any]:
    """What runs have returned, of whose dicts by site those entries are kept that all runs have, in one shape; a warning names
    the others."""
    left_out: dict[str, None] = {}
    found = _alike(runs, left_out)
    if left_out:
        warnings.warn(
            f"posterior: {_some(list(left_out))} are left out, since not all draws have them in one shape. Return what you "
            f"want of all draws by pyro.deterministic in the model.",
            stacklevel=2,
        )
    return found


def _alike(runs: Sequence[Any], left_out: dict[str, None]) -> list[Any]:
    if not isinstance(runs[0], Mapping):
        return list(runs)
    names = dict.fromkeys(name for run in runs for name in run)
    if any(isinstance(x, Mapping) for x in runs[0].values()):
        columns = {name: _alike([run[name] for run in runs], left_out) for name in names}
        return [{name: column[i] for name, column in columns.items()} for i in range(len(runs))]
    bad = [name for name in names if len({run[name].shape if name in run else None for run in runs}) > 1]
    if bad and len(bad) == len(names):
        raise ProgramError(
            f"posterior: no site is in every draw and of one shape; {_some(bad)} vary from draw to draw. Return what you want "
            f"of all draws by pyro.deterministic in the model."
        )
    left_out |= dict.fromkeys(bad)
    return [{name: x for name, x in run.items() if name not in bad} for run in runs]


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"sites {', '.join(map(repr, names[:8]))}{rest}"
