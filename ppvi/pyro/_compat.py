"""What ppvi reads of PyTorch's and Pyro's internals, and all that their versions differ in.

PyTorch promises nothing of names that begin with an underscore, nor of what traces graphs (`torch.fx.experimental`). All of it
that is used comes from here (`tests/test_layers.py`), and `tests/pyro/test_surface.py` says which name a version lacks. Names
of ATen's operations, which graphs are made of, are in the tables of those who read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import takewhile
from operator import attrgetter
from types import FunctionType
from typing import Any
from unittest import mock

import torch
from pyro.distributions import Delta
from pyro.infer import ELBO
from pyro.infer.autoguide import AutoContinuous
from pyro.infer.util import is_validation_enabled as is_validation_enabled
from pyro.nn.module import _Context
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.subsample_messenger import SubsampleMessenger, _Subsample
from torch._C._functorch import (  # pyright: ignore[reportMissingImports]
    TransformType as TransformType,
    _wrap_functional_tensor,
    is_batchedtensor as is_batchedtensor,
    is_functionaltensor as is_functionaltensor,
    is_functorch_wrapped_tensor as is_functorch_wrapped_tensor,
    maybe_current_level,
)
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
from torch._guards import TracingContext, tracing
from torch._ops import OpOverload as OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.distributions.transforms import _InverseTransform
from torch.fx import GraphModule
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.proxy_tensor import (
    get_innermost_proxy_mode as get_innermost_proxy_mode,
    get_proxy_slot as get_proxy_slot,
)
from torch.multiprocessing.reductions import StorageWeakRef as StorageWeakRef
from torch.nn.functional import gumbel_softmax
from torch.nn.parameter import is_lazy as is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import (
    keystr as keystr,
    tree_flatten as tree_flatten,
    tree_flatten_with_path as tree_flatten_with_path,
    tree_leaves as tree_leaves,
    tree_map as tree_map,
    tree_map_only as tree_map_only,
    tree_unflatten as tree_unflatten,
)
from torch.utils.checkpoint import CheckpointFunction as CheckpointFunction
from torch.utils.weak import WeakIdKeyDictionary as WeakIdKeyDictionary

pytree = _pytree
disable_current_modes = _disable_current_modes
interpreter = retrieve_current_functorch_interpreter
"""The innermost transformation of `torch.func` that is around."""
wrap_functional_tensor = _wrap_functional_tensor
DisableTorchFunction: Any = torch._C.DisableTorchFunction
no_torch_function: Any = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAttributeAccessIssue]
"""`__torch_function__` of a tensor that does as every other does."""


def kind_of(tree: Any) -> Any:
    """What tells the structure of a tree from others, as the key of a dict."""
    return tree if _STRUCTURES_HASH else str(tree)


def _hashes(thing: Any) -> bool:
    try:
        hash(thing)
    except TypeError:
        return False
    return True


_STRUCTURES_HASH = _hashes(_pytree.tree_structure(({"": 0}, ())))
"""Which they do not in PyTorch 2.6."""


def level() -> int:
    """How many transformations of `torch.func` are around."""
    return maybe_current_level() or 0


def is_forward() -> bool:
    """Whether derivatives may go along with values (`torch.autograd.forward_ad`)."""
    return forward_ad._current_level >= 0


# Graphs ---------------------------------------------------------------------------------------------------------------


def graph_of(function: Callable[..., Any], tensors: Sequence[torch.Tensor], known: int) -> GraphModule:
    """The graph that `make_fx` makes of `function(*tensors)`, in which constants of so many numbers are known.

    Every node is described by a fake tensor. With no mode for all of them, each is given its own, and that takes a record of
    the whole stack: a good part of the tracing; and so is to make one where there has been one like it.
    """
    made: dict[Any, Any] = {}
    describe = proxy_tensor.extract_val

    def described(value: Any, *how: Any, **options: Any) -> Any:  # no options in PyTorch 2.6
        if type(value) is not torch.Tensor or value.layout is not torch.strided:
            return describe(value, *how, **options)
        like = (value.shape, value.stride(), value.dtype, value.device)
        if like not in made:
            made[like] = describe(value, *how, **options)
        return made[like]

    def run(*fakes: torch.Tensor) -> Any:
        with _Detaching():
            return function(*fakes)

    patched = mock.patch.multiple(proxy_tensor, CONSTANT_NUMEL_LIMIT=known, extract_val=described)
    with tracing(TracingContext(FakeTensorMode())), patched:
        traced = proxy_tensor.make_fx(run)(*tensors)
    for node in traced.graph.nodes:
        if node.op == "get_attr" and "val" not in node.meta:  # as in PyTorch 2.6
            node.meta["val"] = attrgetter(str(node.target))(traced)
        if node.meta.pop("detached", False) and node.target is torch.ops.aten.alias.default:
            node.target = torch.ops.aten.detach.default
    return traced


@contextmanager
def noting(**meta: Any) -> Iterator[None]:
    """What is traced here is noted to be this, where nothing else is."""
    mode = get_innermost_proxy_mode()
    nodes = [] if mode is None else mode.tracer.graph.nodes
    before = next(iter(reversed(nodes)), None)
    yield
    for node in takewhile(lambda node: node is not before, reversed(nodes)):
        node.meta = meta | node.meta


_DETACHES = frozenset(
    {torch.Tensor.detach, torch.Tensor.detach_, torch.detach, torch.ops.aten.detach, torch.ops.aten.detach.default}
)


class _Detaching(TorchFunctionMode):
    """Notes at a node of a graph that it holds its operand constant: PyTorch 2.14 traces that as an alias, which does not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is gumbel_softmax:  # which does it within, where no mode sees it
            return _relaxed(*args, **(kwargs or {}))
        with noting(detached=True) if func in _DETACHES else nullcontext():
            return func(*args, **(kwargs or {}))


def _relaxed(logits: torch.Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Any:
    """`gumbel_softmax`."""
    soft = gumbel_softmax(logits, tau, dim=dim)
    if not hard:
        return soft
    place = soft.max(dim, keepdim=True)[1]
    with noting(detached=True):
        held = soft.detach()
    return torch.zeros_like(logits).scatter(dim, place, 1.0) - held + soft


def holds_no_generator(error: Exception) -> bool:
    """Whether a graph cannot be made because it cannot hold a generator, as in PyTorch 2.6."""
    return isinstance(error, NotImplementedError) and "torch._C.Generator" in str(error)


def name_of(operation: Any) -> str:
    """An operation's name in ATen, without its overload."""
    return operation._schema.name.removeprefix("aten::")


def overload_of(operation: Any) -> str:
    return operation._overloadname


def arguments_of(operation: Any) -> Sequence[Any]:
    """What an operation takes: each has a `name`, and says by its `alias_info` whether it is written to."""
    return operation._schema.arguments


def is_view(operation: Any) -> bool:
    """Whether a result shares its memory with an operand."""
    return any(result.alias_info for result in operation._schema.returns)


def writes(operation: Any) -> bool:
    """Whether it changes an operand in place."""
    return operation._schema.is_mutable


# Tensors and modules --------------------------------------------------------------------------------------------------


def memory_of(storage: Any) -> int:
    """Where a storage lies, which two of them that are alive do not share."""
    return storage._cdata


def is_shared(x: torch.Tensor) -> bool:
    """Whether other tensors that are alive lie in the memory of this one, of which autograd may know nothing."""
    return torch._C._storage_Use_Count(x.untyped_storage()._cdata) > 2  # its own, and Python's


is_mode_around = torch._C._is_torch_function_mode_enabled
"""Whether a mode sees the functions that are called here."""
DisableTorchFunction = torch._C.DisableTorchFunction
"""Within it no mode sees functions."""
IDENTITY = torch.Tensor._cdata.__get__  # type: ignore[attr-defined]
"""By which `pyro.module` sees whether it has been given the parameter that it asks for."""


def has_hooks(x: torch.Tensor) -> bool:
    """Whether something is to happen to the gradient of a tensor."""
    return bool(x._backward_hooks or x._post_accumulate_grad_hooks)  # type: ignore[attr-defined]


def has_backward_hooks(module: torch.nn.Module) -> bool:
    return bool(module._backward_hooks or module._backward_pre_hooks)


def members_of(module: torch.nn.Module) -> Sequence[Mapping[Any, Any]]:
    """What a module has by name or in order: parameters, buffers, modules, and its hooks."""
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return module._parameters, module._buffers, module._modules, *hooks


def is_hooked(optimizer: torch.optim.Optimizer) -> bool:
    """Whether something is to happen before or after the steps of an optimiser."""
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)  # type: ignore[attr-defined]


def in_place_of_apply(function: Any) -> Any:
    """PyTorch's own `apply` of a `torch.autograd.Function`, as a function of the class, once another is in its place."""
    found = torch.autograd.Function.__dict__["apply"]
    native: Any = getattr(found, "__func__", None)
    if hasattr(native, "_ppvi_native"):
        return native._ppvi_native
    if isinstance(native, FunctionType):
        native._ppvi_native = FunctionType(native.__code__, native.__globals__, "apply", None, native.__closure__)  # type: ignore
        native.__code__ = function.__code__
        return native._ppvi_native  # type: ignore[attr-defined]

    def written_in_c(cls: Any, *args: Any, **kwargs: Any) -> Any:  # as in PyTorch 2.14
        return found.__get__(None, cls)(*args, **kwargs)

    function._ppvi_native = written_in_c
    torch.autograd.Function.apply = classmethod(function)  # type: ignore[method-assign]
    return written_in_c


def in_place_of_scripts(around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> list[Callable[..., Any]]:
    """How what `torch.jit` has made is called, of functions and of modules, from now on: given how it was."""
    kinds: list[Any] = [torch._C.ScriptFunction, torch._C.ScriptMethod]
    for kind in kinds:
        kind.__call__ = around(kind.__call__)
    return [kind.__call__ for kind in kinds]


class Elbo(ELBO):
    """A loss by the verbs that Pyro's SVI asks for, which makes no traces."""

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError


# Distributions --------------------------------------------------------------------------------------------------------

InverseTransform = _InverseTransform
PARAMETER_OF = "_param"
"""The attribute of a categorical distribution that is the parameter it is given by."""
REMEMBERED = "_cached_x_y"
"""The attribute of a transform in which it remembers what it was given last, and what it gave."""


def remembers(transform: Any) -> bool:
    """Whether a transform remembers what it was given last."""
    return bool(transform._cache_size)


def remembered(transform: Any) -> Any:
    """What a transform was given last, and what it gave."""
    return transform._cached_x_y


def remember(transform: Any, x: Any, y: Any) -> None:
    """Have a transform know what it gives for x, and by that what it gave y for."""
    transform._cached_x_y = x, y


def is_unchecked(fn: Any) -> bool:
    """Whether it has been said of this distribution alone that it refuses no values: ppvi switches validation off by 0, and
    False is the user's own."""
    validates = vars(fn).get("_validate_args", 0)
    return type(validates) is not int and not validates


def may_check_values(fn: Any) -> bool:
    """Whether a distribution refuses values outside of its support."""
    return getattr(fn, "_validate_args", False)


def leave_unchecked(fn: Any) -> None:
    """Have a distribution refuse no value."""
    fn._validate_args = False


def categorical_in(fn: Any) -> Any:
    """The categorical distribution that one of one-hot vectors is made of; any other distribution itself."""
    return getattr(fn, "_categorical", fn)


def with_lanes(fn: Any, lanes: Sequence[int]) -> None:
    """Have a distribution say that its batch has these axes in front."""
    fn._batch_shape = torch.Size(lanes) + fn._batch_shape


BATCH_SHAPE = "_batch_shape"
"""The attribute that holds the shape of a distribution's batch."""
DERIVED = {"_capacitance_tril": 2}
"""Attributes that distributions compute of their parameters, and how many axes each has for itself."""
UNBROADCAST = "_unbroadcasted"
"""How the names begin of attributes that hold a parameter before it is broadcast."""


def is_masked(fn: Any) -> bool:
    return hasattr(fn, "_mask")


def holds_value(fn: Any) -> bool:
    """Whether the density of a point does not count, as of a site that a handler which reparametrises has made of others."""
    return is_masked(fn) and fn._mask is False and isinstance(fn.base_dist, Delta)


# Pyro -----------------------------------------------------------------------------------------------------------------

HANDLERS: list[Any] = _PYRO_STACK
"""The effect handlers around what runs, the outermost first."""
Subsample = _Subsample
"""The distribution of a plate's rows."""
Context = _Context
"""What a PyroModule keeps of the calls around."""
DETERMINISTIC = "_deterministic"
"""What `infer` of a site says that holds a value and draws none."""


def is_guided() -> bool:
    """Whether the model is running that a guide made of effects goes through: its data and factors are no part of the guide."""
    return any(isinstance(messenger, GuideMessenger) for messenger in HANDLERS)


def in_place_of_rows(function: Any) -> Any:
    """Pyro's own function that finds the rows of a plate, once another is in its place."""
    native = SubsampleMessenger._subsample
    SubsampleMessenger._subsample = staticmethod(function)  # type: ignore[method-assign]
    function.native = getattr(native, "native", native)
    return function.native


READ_BY_MODULES = frozenset({"_pyro_params", "_pyro_samples"})
"""The attributes of a PyroModule that decide what its own attributes are."""


def optimizer_of(optimizer: Any, leaf: torch.Tensor) -> Any:
    """PyTorch's optimiser that one of Pyro's makes of a tensor."""
    return optimizer._get_optim(leaf)


def clipping_of(optimizer: Any, leaf: torch.Tensor) -> Any:
    """How one of Pyro's clips the gradient of a tensor."""
    return optimizer._get_grad_clip(leaf)


def initial_point(guide: AutoContinuous) -> torch.Tensor:
    """Where it begins in unconstrained space."""
    return guide._init_loc()


def sites_at(guide: AutoContinuous, point: torch.Tensor) -> dict[str, torch.Tensor]:
    """The parts of a point of unconstrained space, by site."""
    parts: Any = guide._unpack_latent(point)
    return {site["name"]: x for site, x in parts}


def validate(fn: torch.distributions.Distribution, value: torch.Tensor) -> None:
    """Refuse a value beyond the support of a distribution, where PyTorch's validation is on."""
    if fn._validate_args:
        fn._validate_sample(value)
