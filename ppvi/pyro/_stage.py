"""Staging: an objective, run once under effect handlers, becomes the compiler's straight-line program.

`make_fx` traces the objective into a graph of ATen operations. Three operations of our own stand in it. A *draw* runs a
Python function on tensors and a batched key, whatever is inside: samplers fill memory in place and have derivatives that
are not ATen's. A *mark* is an identity on a site's value that carries its strategies and the arrays that they asked for.
Under `vmap` both grow a leading axis, because the key that each of them takes is that of one run. A *note* is an identity
on any other value, such as a density, that carries what the checks want to know of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ppvi._source import UNKNOWN, last_call
from ppvi.errors import EngineError, ProgramError
from ppvi.ir import Atom, AxisMap, Equation, Meaning, Note, Origin, Program, Sited, SiteInfo, Var
from ppvi.pyro import (
    _compat,
    _functions as functions,
    _graphs as graphs,
    _rules as rules,
    _semantics as meanings,
    _source as source,
)
from ppvi.pyro._buffers import written
from ppvi.pyro._compat import is_batchedtensor, is_functionaltensor, level, tree_flatten, tree_map_only, tree_unflatten
from ppvi.pyro._graphs import is_operand, name_of, trace
from ppvi.pyro._instead import INSTEAD
from ppvi.pyro._located import Located, Numbers, noting, numbers_noted
from ppvi.pyro._registry import LIBRARY, in_front, register, registered, registering
from ppvi.pyro._summing import Graph, expanded, sums_in
from ppvi.pyro._trees import lowered
from ppvi.pyro._written import TENSOR

LIBRARY.define("draw(Tensor key, Tensor[] inputs, int number) -> Tensor")
LIBRARY.define("note(Tensor value, Tensor[] others, int number) -> Tensor")
LIBRARY.define("write(Tensor value, int number, int mapped) -> Tensor")
LIBRARY.define("sized(Tensor value, Tensor[] masks, int beside, int size, str where) -> Tensor")
LIBRARY.define("mark(Tensor value, Tensor key, Tensor[] inputs, int number, int mapped) -> Tensor")


@dataclass(frozen=True)
class Sampler:
    """From a key, of one entry for each run, and tensors with the runs' axes in front, to a draw with them in front."""

    run: Callable[..., torch.Tensor]
    axes: Sequence[tuple[int | None, ...]] = ()
    """For each tensor where its axes lie in a draw, without the axes of runs; None for one that a draw mixes. Where nothing is
    said of a tensor, draws mix all of it."""
    library: bool = False
    """Whether it is a library's, which is known to be continuous in what it is given."""

    def __call__(self, key: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        return self.run(key, *inputs)

    def flow(self, inputs: Sequence[Atom]) -> list[AxisMap]:
        """Where the axes of the key and of the tensors lie, with those of runs in front."""
        key, *others = inputs
        runs = tuple(range(len(key.shape)))
        maps = [
            self.axes[i] if i < len(self.axes) else (None,) * len(x.shape[len(runs) :]) for i, x in enumerate(others)
        ]
        return [runs, *((*runs, *(None if axis is None else len(runs) + axis for axis in axes)) for axes in maps)]


def _draw(key: torch.Tensor, inputs: list[torch.Tensor], number: int) -> torch.Tensor:
    return registered(number)(key, *inputs).clone()


def _same(value: torch.Tensor, *others: Any) -> torch.Tensor:
    return value.clone()


def _sized(value: torch.Tensor, masks: list[torch.Tensor], beside: int, size: int, where: str) -> torch.Tensor:
    """The value, once the masks, with indices of so many entries beside them, pick so many; without masks it has so many."""
    found = [int(mask.count_nonzero()) for mask in masks] or [len(value)]
    if {*found, beside} - {1} != {size} - {1}:  # which are broadcast
        raise ProgramError(
            f"{' and '.join(map(str, found))} entries are picked at {where}, and {size} were when the program was staged, in "
            f"which their number is constant: give the objective what is picked as an argument, or read the number in Python, "
            f"as by int(mask.sum()), and the program is replayed."
        )
    return value.clone()


for name, function in {"sized": _sized, "write": _same, "note": _same, "draw": _draw, "mark": _same}.items():
    LIBRARY.impl(name, function, "CompositeExplicitAutograd")


def _batch_mark(
    info: Any, dims: Any, value: Any, key: Any, inputs: Any, number: int, mapped: int
) -> tuple[torch.Tensor, int]:
    front = functools.partial(in_front, info.batch_size)
    moved = [front(x, d) for x, d in zip(inputs, dims[2], strict=True)]
    return torch.ops.ppvi.mark(front(value, dims[0]), front(key, dims[1]), moved, number, mapped + 1), 0


def _batch_note(info: Any, dims: Any, value: Any, others: Any, number: int) -> tuple[torch.Tensor, int]:
    front = functools.partial(in_front, info.batch_size)
    return torch.ops.ppvi.note(front(value, dims[0]), [front(*x) for x in zip(others, dims[1], strict=True)], number), 0


def _batch_write(info: Any, dims: Any, value: Any, number: int, mapped: int) -> tuple[torch.Tensor, int]:
    return torch.ops.ppvi.write(in_front(info.batch_size, value, dims[0]), number, mapped + 1), 0


torch.library.register_fake(
    "ppvi::sized", lambda value, masks, beside, size, where: torch.empty_like(value), lib=LIBRARY
)
torch.library.register_vmap("ppvi::write", _batch_write, lib=LIBRARY)
torch.library.register_vmap("ppvi::note", _batch_note, lib=LIBRARY)
torch.library.register_vmap("ppvi::mark", _batch_mark, lib=LIBRARY)


def stage(
    function: Callable[..., torch.Tensor],
    params: Sequence[torch.Tensor],
    *inputs: torch.Tensor,
    numbers: Numbers | None = None,
) -> Program:
    """Trace `function(*params, *inputs)` into a program; the params come first among its inputs.

    What is read out of tensors that are not traced is constant in the program, and noted in `numbers`.
    """

    with registering() as things, torch.enable_grad():  # what counts are the program's own gradient modes
        reader = traced_and_read(function, things, *params, *inputs, numbers=numbers)
        if sums_in(reader.traced):
            again = functools.partial(expanded, reader.graph)
            reader = read(trace(torch.func.functionalize(again), *params, *inputs), things, held=True)
    return Program(
        inputs=tuple(reader.inputs),
        params=frozenset(reader.inputs[: len(params)]),
        constants=reader.constants,
        equations=tuple(reader.equations),
        output=reader.output,
    )


def traced_and_read(
    function: Callable[..., torch.Tensor],
    things: Sequence[Any],
    *tensors: torch.Tensor,
    numbers: Numbers | None = None,
    are_constants: bool = False,
) -> Reader:
    """A function's graph, which has been read. Tensors around it may have a gradient where they `are_constants` of the graph
    alone."""
    located = Located()

    def run(*tensors: torch.Tensor) -> torch.Tensor:
        with located, numbers_noted([] if numbers is None else numbers):
            return function(*tensors)

    try:
        traced = trace(torch.func.functionalize(run), *tensors)
    except RuntimeError as error:
        if (does := what_prevents(error)) is None:
            graphs.refuse_generator(error, located.operation, located.last)
            raise
        where, _ = last_call(error, source.LIBRARY)
        raise DynamicError(f"it {does} at {located.last if where == UNKNOWN else where}") from error
    return read(traced, things, are_constants=are_constants)


def read(traced: Any, things: Sequence[Any], held: bool = False, are_constants: bool = False) -> Reader:
    """A graph as equations; that it has been seen to before that operations give as many entries as they did is `held`."""
    for node in graphs.shaped_by_draws(traced):
        raise DynamicError(f"how many entries {name_of(node)} gives depends on a draw at {_where(node)}")
    graphs.without_mutation(traced)
    if not held:
        graphs.hold_sizes(traced)
    graphs.fold(traced)
    reader = Reader(traced, things, are_constants)
    for node in traced.graph.nodes:
        reader.read(node)
    return reader


class DynamicError(EngineError):
    """An objective has no graph, and why."""


_UNSTAGED = {
    "accessing `data`": "takes the `.data` of a tensor",
    "value out of a tracing tensor": "reads a number out of a tensor",
    "data-dependent control flow": "reads a number out of a tensor",
    "calling .item() on a Tensor": "reads a number out of a tensor",
    "backward() called inside": "differentiates by torch.autograd",
    "Batching rule not implemented": "uses an operation that cannot be vectorised",
    "requires_grad_()": "differentiates by torch.autograd",
    "does not require grad and does not have a grad_fn": "differentiates by torch.autograd",
    "is not possible because there exists a Tensor `other`": "writes what a run computes into what all runs share",
}
"""What PyTorch says where a program cannot be traced or vectorised, and what the program does."""


def what_prevents(error: Exception) -> str | None:
    """What a program does that only a plain run of it can do, if an error in a trace or in a vectorised run is due to that."""
    if isinstance(error, DynamicError):
        return str(error)
    return next((does for text, does in _UNSTAGED.items() if text in str(error)), None)


Run = Callable[..., Sequence[torch.Tensor]]


class Reader:
    """Reads a graph into equations."""

    def __init__(self, traced: Any, things: Sequence[Any], are_constants: bool):
        self.traced, self.are_constants = traced, are_constants
        self.things = things
        self.again = bool(sums_in(traced))
        """Whether operations are traced again, and are then at the place in the user's code where they were."""
        self.atoms: dict[Any, Atom] = {}
        self.inputs: list[Var] = []
        self.constants: dict[Var, Any] = {}
        self.equations: list[Equation] = []
        self.output: Any = None

    @property
    def graph(self) -> Graph:
        return Graph(self.traced, self.equations, self.atoms, self.constants)

    def read(self, node: Any) -> None:
        if node.op == "placeholder":
            self.inputs.append(self.variable(node, node.meta["val"]))
        elif node.op == "get_attr":
            value = getattr(self.traced, node.target)
            graphs.refuse_constant(node, value, self.are_constants)
            self.constants[self.variable(node, value)] = value
        elif node.op == "output":
            self.output = self.atoms[node.args[0]]
        elif node.target.__name__ == "getitem":
            source, place = node.args
            self.atoms[node] = self.atoms[source, place]
        elif node.target is torch.ops.ppvi.write.default and node.args[0].op == "get_attr":
            pass  # a buffer that nothing has changed
        elif is_operand(node):
            self.atoms[node] = self.atoms[node.args[0]]
        elif "val" in node.meta:  # without a value it is a check, such as that a Cholesky factor was found
            self.equations.append(self.equation(node))

    def variable(self, node: Any, value: Any) -> Var:
        out = Var(tuple(value.shape), str(value.dtype).removeprefix("torch."))
        self.atoms[node] = out
        return out

    def equation(self, node: Any) -> Equation:
        leaves, tree = tree_flatten((node.args, dict(node.kwargs)))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.fx.Node)]
        inputs = tuple(self.atoms[leaves[i]] for i in places)
        values = node.meta["val"]
        single = isinstance(values, torch.Tensor)
        outputs = tuple(
            self.variable(node if single else (node, i), x) for i, x in enumerate([values] if single else values)
        )
        where, same = functools.partial(_where, node), functools.partial(_identity, inputs)
        make = functools.partial(Equation, inputs=inputs, outputs=outputs, where=where)
        if node.target is torch.ops.ppvi.mark.default:
            _, _, _, number, mapped = node.args
            return make("site", run=_first, flow=same, role=Sited(self.things[number], mapped))
        if node.target is torch.ops.ppvi.draw.default:
            sampler = self.things[node.args[2]]
            return make(
                "draw",
                run=lambda *xs: (draw(xs[0], xs[1:], sampler),),
                flow=lambda: [sampler.flow(inputs)],
                meaning=lambda: meanings.of_draw(sampler.library),
            )
        if node.target is torch.ops.ppvi.call.default:
            made = self.things[node.args[1]]
            return make(
                made.function.__name__,
                run=lambda *xs: functions.call(made, xs),
                flow=lambda: made.flow(inputs, len(outputs)),
                meaning=lambda: Meaning(made.function.__name__),
            )
        if node.target is torch.ops.ppvi.write.default:
            buffer, mapped = self.things[node.args[1]], node.args[2]
            return make(
                "write",
                run=lambda value: (written(buffer, value, mapped),),
                flow=same,
                effect=True,
                meaning=meanings.of_write,
            )
        if node.target is torch.ops.ppvi.summed.default:
            return make("summed", run=lambda *xs: (xs[0],), flow=lambda: [[None] * len(inputs)])
        if node.target is torch.ops.ppvi.note.default:
            linear, role = (frozenset({0}),), self.things[node.args[2]]
            return make("note", run=_first, flow=same, linear=linear, role=role, meaning=meanings.of_note)

        flat = not node.kwargs and not any(isinstance(arg, list | tuple) for arg in node.args)

        def run(*tensors: torch.Tensor) -> Sequence[torch.Tensor]:
            filled = list(leaves)
            for place, tensor in zip(places, tensors, strict=True):
                filled[place] = tensor
            args, kwargs = (filled, {}) if flat else tree_unflatten(filled, tree)
            out: Any = target(*args, **kwargs)
            return (out,) if single else out

        def placed(run: Run) -> Run:
            """As it is run where it is traced again."""

            def again(*tensors: torch.Tensor) -> Sequence[torch.Tensor]:
                with noting(where=_where(node), origin=node.meta.get("origin", Origin.OTHER)):
                    return run(*tensors)

            return again if self.again else run

        def resized(shape: tuple[int, ...]) -> Run | None:
            if name in rules.ANY_SIZE:
                return placed(run)
            return placed(lambda x: (target(x, list(shape)),)) if name in rules.SIZED else None

        name = _compat.name_of(node.target)
        target: Any = INSTEAD.get(name, node.target)
        call = rules.Call(name, _named(node), tuple(x.shape for x in inputs), outputs[0].shape, len(outputs))
        floats = all(atom.dtype.startswith(("float", "bfloat", "int")) for atom in outputs)
        return make(
            # Of a number, which is no pole wherever it is.
            "exp2" if node.target is torch.ops.aten.pow.Scalar else name,
            run=placed(run),
            flow=lambda: [rules.flow(call)] * len(outputs),
            linear=rules.linear(name, len(inputs)) if floats else (),
            additive=name in rules.ADDITIVE,
            differentiable=name != "detach" and any(out.dtype.startswith(("float", "bfloat")) for out in outputs),
            meaning=lambda: meanings.meaning(call, inputs, outputs[0], where, node.meta.get("origin", Origin.OTHER)),
            resized=resized,
            broadcasts=name in rules.BROADCAST and single,
        )


def _named(node: Any) -> dict[str, Any]:
    names = [argument.name for argument in _compat.arguments_of(node.target)]
    arguments = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return tree_map_only(torch.fx.Node, lambda _: TENSOR, arguments)


def _identity(inputs: Sequence[Atom]) -> list[Any]:
    return [[tuple(range(len(inputs[0].shape))), *(None for _ in inputs[1:])]]


def _where(node: Any) -> str:
    return node.meta.get("where", "unknown")


def _first(value: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor]:
    return (value,)


# Those of `ppvi.engine.protocol.Marks`.


def mark_site(info: SiteInfo, key: torch.Tensor, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.ops.ppvi.mark(inputs[0], key, list(inputs[1:]), register(info), 0)


def mark_note(value: torch.Tensor, note: Note, *others: torch.Tensor) -> torch.Tensor:
    return torch.ops.ppvi.note(value, list(others), register(note))


def mark_write(buffer: torch.Tensor, value: torch.Tensor) -> None:
    torch.ops.ppvi.write(value, register(buffer), 0)


def draw(key: torch.Tensor, inputs: Sequence[torch.Tensor], sampler: Sampler) -> torch.Tensor:
    """A draw by Python code: one operation where it is staged. Otherwise it runs, on autograd's tape, vectorised as a whole."""
    tensors = (key, *inputs)
    if any(map(is_batchedtensor, tensors)):
        return _Vectorised.apply(sampler, *tensors)
    if any(map(is_functionaltensor, tensors)):
        return torch.ops.ppvi.draw(key, list(inputs), register(sampler))
    with lowered(level()), noting(runs=key.ndim):
        return sampler(*tensors)


class _Vectorised(torch.autograd.Function):
    """A draw under `vmap` is one draw of more lanes, whose derivative is on the tape outside."""

    @staticmethod
    def forward(sampler: Sampler, *tensors: torch.Tensor) -> torch.Tensor:
        return sampler(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[torch.Tensor, int]:
        sampler, *tensors = args
        key, *inputs = (in_front(info.batch_size, x, d) for x, d in zip(tensors, in_dims[1:], strict=True))
        return draw(key, inputs, sampler), 0
