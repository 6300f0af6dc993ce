"""Many processes: data and particles split over a mesh, by PyTorch's own distributed tensors.

The graph of a gradient runs on tensors of which every process has a part (`torch.distributed.tensor`): PyTorch propagates how
operations split, and adds up over the processes what the program adds up. Random numbers are drawn whole in every process,
which then keeps its part: one key gives the same draws on any mesh, so the estimate is the same but for rounding.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch.distributed import ReduceOp, all_reduce
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.fx import Interpreter, Node

from ppvi._doors import described
from ppvi.engine.sharding import PARTICLES, PeerError, different, digest, shareable, warn_unused
from ppvi.errors import EngineError, ProgramError
from ppvi.pyro._compat import tree_flatten, tree_map, tree_unflatten, writes
from ppvi.pyro._gradient import Gradient
from ppvi.pyro._graphs import is_random
from ppvi.pyro._stage import registering


class Layout:
    """Where the tensors of a fit lie on a mesh."""

    def __init__(self, mesh: DeviceMesh):
        if not hasattr(mesh, "device_type"):
            raise ProgramError(
                f'fit: mesh= is a DeviceMesh, such as init_device_mesh("cpu", (2,)), not {described(mesh)}.'
            )
        if mesh.device_type != "cpu":
            raise EngineError(
                f"fit: a mesh of {mesh.device_type} devices, whose random numbers are not kept the same in all processes: make "
                f'the mesh with init_device_mesh("cpu", ...) and the gloo backend, or fit in one process on the device.'
            )
        self.mesh = mesh
        self.names = mesh.mesh_dim_names or tuple(map(str, range(mesh.ndim)))
        self.sizes = {name: mesh.size(i) for i, name in enumerate(self.names)}
        self.is_first = not any(mesh.get_coordinate() or ())
        self._splits_runs = False
        self.copied: tuple[Placement, ...] = (Replicate(),) * mesh.ndim

    def split(self, arrays: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Data on the mesh: each tensor split along its leading axis where that goes, and whole where it does not."""
        placements = [Replicate() if name == PARTICLES else Shard(0) for name in self.names]
        goes = shareable([x.shape for x in arrays], self.sizes)
        return [self.placed(x, placements) if split else x for x, split in zip(arrays, goes, strict=True)]

    def placed(self, x: torch.Tensor, placements: Sequence[Placement]) -> DTensor:
        """Of a tensor that every process has whole the part that is to be its own."""
        return self.on_mesh(x).redistribute(placements=placements)

    def partitioned(self, gradient: Gradient) -> Partitioned:
        return Partitioned(gradient, self)

    def on_mesh(self, x: Any) -> Any:
        """A whole tensor as one of the mesh, of which every process has all."""
        is_whole = isinstance(x, torch.Tensor) and not isinstance(x, DTensor)
        return DTensor.from_local(x, self.mesh, self.copied, run_check=False) if is_whole else x

    def split_draw(self, draw: torch.Tensor, parts: Sequence[DTensor], runs: bool) -> torch.Tensor:
        """A draw split like what it was made of; draws of several runs, which are in front, over the mesh's particles too."""
        placements = list(self.copied)
        for i, name in enumerate(self.names):
            like = parts[0].placements[i] if parts else Replicate()
            if isinstance(like, Shard) and tuple(draw.shape[like.dim :][:1]) == (parts[0].shape[like.dim],):
                placements[i] = like
            if runs and name == PARTICLES and draw.shape[0] % self.mesh.size(i) == 0:
                placements[i] = Shard(0)
                self._splits_runs = True
        return draw if placements == list(self.copied) else self.placed(draw, placements)

    @torch.no_grad()
    def agree(self, leaves: Iterable[torch.Tensor]) -> None:
        """Give the first process's values and random numbers to all."""
        for leaf in leaves:
            leaf.copy_(self._first(leaf))
        torch.set_rng_state(self._first(torch.get_rng_state()))

    def agreed(self, number: int) -> int:
        """The first process's number."""
        with self.peers():
            return int(self._first(torch.tensor(number)))

    def refuse_different(self, arrays: Iterable[torch.Tensor]) -> None:
        """Arguments must be the same in all processes."""
        found = digest(x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy() for x in arrays)
        bounds = torch.tensor([found, -found])
        with self.peers():
            for i in range(self.mesh.ndim):
                all_reduce(bounds, ReduceOp.MIN, self.mesh.get_group(i))
        if int(bounds[0]) != -int(bounds[1]):
            raise different("arguments")

    def warn_unused(self) -> None:
        """The axis for particles is to have split something of the steps that were taken."""
        if self.sizes.get(PARTICLES, 1) > 1 and not self._splits_runs:
            self._splits_runs = True  # once is enough
            warn_unused(self.sizes[PARTICLES])

    @contextmanager
    def peers(self) -> Iterator[None]:
        """Around what the processes do together."""
        try:
            yield
        except RuntimeError as error:
            if "gloo" not in str(error):
                raise
            what, *_ = str(error).split(". ")
            raise PeerError(f"another process of the mesh has ended, or does not answer ({what})") from error

    def _first(self, x: torch.Tensor) -> torch.Tensor:
        return distribute_tensor(x.detach(), self.mesh, self.copied).to_local()


class Partitioned(Interpreter):
    """The graph of a gradient, run on a mesh; a function of the same tensors, which every process has whole."""

    def __init__(self, gradient: Gradient, layout: Layout):
        super().__init__(gradient.graph)
        self.gradient = gradient
        self.layout = layout

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        detached = [x.detach() for x in tensors]
        params, arrays = detached[: self.gradient.size], detached[self.gradient.size :]
        with registering(self.gradient.samplers), torch.no_grad():
            return self.gradient.finished(tree_map(whole, self.run(*params, *self.layout.split(arrays))))

    def run_node(self, n: Node) -> Any:
        if n.op != "call_function" or n.target is operator.getitem:
            return super().run_node(n)
        leaves, tree = tree_flatten(self.fetch_args_kwargs_from_env(n))
        parts = [x for x in leaves if isinstance(x, DTensor)]

        def run(prepared: Callable[[Any], Any]) -> Any:
            args, kwargs = tree_unflatten([prepared(x) for x in leaves], tree)
            return cast(Any, n.target)(*args, **kwargs)

        if is_random(n):
            return self.layout.split_draw(run(whole), parts, runs=bool(n.meta.get("runs")))
        if not parts:
            return run(lambda x: x)
        try:
            return run(self.layout.on_mesh)
        except RuntimeError:  # PyTorch does not know how it splits
            if writes(n.target):
                raise
            return run(whole)


def whole(x: Any) -> Any:
    """What every process has a part of, in every process."""
    return x.full_tensor() if isinstance(x, DTensor) else x
