"""What ppvi builds on in PyTorch and Pyro beyond what they promise: a version that has changed it fails here, with a sentence."""

import copy

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch.distributions import transforms
from torch.overrides import TorchFunctionMode

from tests.surface import require, require_all, require_name, taken_by


@pytest.mark.parametrize(("path", "module", "name"), taken_by("pyro/_compat.py"))
def test_name(path, module, name):
    require_name(path, module, name)


def test_names_of_c():
    names = """DisableTorchFunction _disabled_torch_function_impl _is_torch_function_mode_enabled
    _storage_Use_Count ScriptFunction ScriptMethod""".split()
    require_all("torch", "torch._C", names, dir(torch._C))
    require_all("torch", "torch.autograd.forward_ad", ["_current_level"], dir(torch.autograd.forward_ad))


def test_memory_is_shared_by_tensors_that_are_alive_and_not_by_what_autograd_keeps():
    from ppvi.pyro._compat import is_shared

    z = torch.ones((), requires_grad=True)
    made = torch.zeros(2)
    made[0] = z * z
    made += z
    made *= z
    assert not is_shared(made)
    alias = made.detach()
    assert is_shared(made)
    assert is_shared(alias)


# Graphs -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graph():
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(torch.func.functionalize(lambda x: (x.sin() + 1).sum()))(torch.ones(3)).graph


def test_what_describes_a_node(graph):
    from torch.fx.experimental import proxy_tensor

    require_all("torch", "proxy_tensor", ["CONSTANT_NUMEL_LIMIT", "extract_val"], dir(proxy_tensor))
    sin = next(node for node in graph.nodes if node.op == "call_function")
    require_all("torch", "a node's meta", ["val"], sin.meta)
    require("torch", "meta['val'] of a node is no tensor of its shape", tuple(sin.meta["val"].shape) == (3,))


def test_operations(graph):
    names = []
    for node in graph.nodes:
        if node.op == "call_function":
            require("torch", f"{node.target} is no OpOverload", isinstance(node.target, torch._ops.OpOverload))
            require_all("torch", "an operation", "_schema _overloadname namespace tags".split(), dir(node.target))
            names.append(node.target._schema.name)
    require("torch", f"sin, + and sum are traced as {names}", names == ["aten::sin", "aten::add", "aten::sum"])


def test_what_is_held_constant_is_told_from_what_is_not():
    """By `graph_of`, since PyTorch 2.14 traces both as an alias; PyTorch 2.6 detaches what it has just detached again."""
    from ppvi.pyro._compat import graph_of, name_of

    def run(x):
        hard = torch.nn.functional.gumbel_softmax(x, hard=True)
        return torch.vmap(lambda x: x.detach() * x)(x) + torch.detach(x) + hard

    traced = graph_of(torch.func.functionalize(run), [torch.ones(3)], 1)
    names = {
        node: name_of(node.target)
        for node in traced.graph.nodes
        if node.op == "call_function" and hasattr(node.target, "_schema")
    }
    held = [node for node, name in names.items() if name == "detach" and names.get(node.args[0]) != "detach"]
    require("torch", f"detach, three times, is traced as {list(names.values())}", len(held) == 3)


def test_schemas():
    schema = torch.ops.aten.add_.Tensor._schema
    require_all("torch", "a schema", "name arguments returns is_mutable".split(), dir(schema))
    require_all("torch", "an argument of a schema", ["name", "alias_info"], dir(schema.arguments[0]))
    require(
        "torch",
        "add_ does not write to its first argument",
        schema.is_mutable and schema.arguments[0].alias_info.is_write,
    )


@pytest.mark.parametrize(
    "tag", ["nondeterministic_seeded", "dynamic_output_shape", "data_dependent_output", "inplace_view"]
)
def test_tag(tag):
    require("torch", f"there is no torch.Tag.{tag}", hasattr(torch.Tag, tag))


OPERATIONS = """_softmax _log_softmax _linalg_solve_ex _linalg_det _linalg_slogdet _linalg_eigh _linalg_svd _cdist_forward _conj
_standard_gamma _to_copy _unsafe_view _native_batch_norm_legit lift_fresh_copy linalg_cholesky_ex linalg_inv_ex native_layer_norm
unsafe_split""".split()


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_of_aten(name):
    require(
        "torch", f"there is no operation aten::{name}, whose meaning the checks know", hasattr(torch.ops.aten, name)
    )


# Transformations of functions ---------------------------------------------------------------------------------------------


def test_levels():
    from torch._C._functorch import is_batchedtensor, is_functorch_wrapped_tensor, maybe_current_level
    from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter

    def run(x):
        require("torch", "one vmap around is not level 1", maybe_current_level() == 1)
        require("torch", "what runs under vmap is not wrapped", is_batchedtensor(x) and is_functorch_wrapped_tensor(x))
        with retrieve_current_functorch_interpreter().lower():
            require("torch", "a level that is lowered is still there", not maybe_current_level())
        return x

    require("torch", "outside of all transformations there is a level", not maybe_current_level())
    torch.vmap(run)(torch.ones(2))


def test_functions_of_ones_own():
    apply = torch.autograd.Function.__dict__["apply"]
    if hasattr(apply, "__func__"):
        free = apply.__func__.__code__.co_freevars
        require("torch", f"the free variables of Function.apply are {free}, and not __class__", free == ("__class__",))
    else:
        require(
            "torch",
            f"Function.apply is {apply}, and no method of a class",
            callable(apply.__get__(None, torch.autograd.Function)),
        )


# Tensors, modules, optimisers ---------------------------------------------------------------------------------------------


def test_tensors():
    names = "_backward_hooks _post_accumulate_grad_hooks _version is_inference untyped_storage".split()
    require_all("torch", "a tensor", names, dir(torch.ones(1)))
    x = torch.ones(2)
    same = x.untyped_storage()._cdata == x[:1].untyped_storage()._cdata
    require("torch", "views of a tensor have other storages by _cdata", same)
    require("torch", "two tensors are one by _cdata", x._cdata != torch.ones(2)._cdata)


def test_nodes_of_autograd():
    class Marked(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.undecided = True
            return x.clone()

    y = 2 * Marked.apply(torch.ones(2, requires_grad=True))
    (before, _), *_ = y.grad_fn.next_functions
    require("torch", "the node of a Function has not what its ctx was given", hasattr(before, "undecided"))
    require("torch", "a node is another object each time", y.grad_fn.next_functions[0][0] is before)


def test_what_is_seen_of_a_function_of_pytorch():
    functions = []

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            functions.append(func)
            return func(*args, **(kwargs or {}))

    x = torch.ones(2)
    with Seen():
        torch.relu(x), x.relu(), bool(x[0]), int(x[0]), float(x[0]), x.tolist(), x.numpy(), x.detach_()
    names = [func.__name__ for func in functions if func.__name__ != "__getitem__"]
    held = names == "relu relu __bool__ __int__ __float__ tolist numpy detach_".split()
    require("torch", f"of functions by which tensors are read, a mode sees {names}", held)


def test_modules():
    names = "_parameters _buffers _modules _forward_pre_hooks _forward_hooks _backward_pre_hooks _backward_hooks"
    require_all("torch", "a module", names.split(), vars(torch.nn.Linear(1, 1)))


def test_optimisers():
    moving = torch.optim.Adam([torch.ones(1, requires_grad=True)])
    require_all("torch", "an optimiser", ["_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"], dir(moving))
    names = "_get_optim _get_grad_clip optim_objs grad_clip".split()
    require_all("pyro", "pyro.optim.Adam", names, dir(pyro.optim.Adam({"lr": 0.1})))


# Distributions ------------------------------------------------------------------------------------------------------------


def test_values_that_are_checked():
    unchecked = vars(dist.Normal(0.0, 1.0, validate_args=False))
    require("torch", "_validate_args of a distribution is not its own", unchecked.get("_validate_args") is False)
    other = copy.copy(dist.Normal(0.0, 1.0, validate_args=True))
    other._validate_args = False
    require(
        "torch",
        "a distribution with _validate_args False checks values",
        bool(other.log_prob(torch.tensor(float("nan"))).isnan()),
    )


def test_what_transforms_remember():
    transform = transforms.ExpTransform(cache_size=1)
    require_all("torch", "a transform", ["_cached_x_y", "_cache_size"], vars(transform))
    x = torch.ones(2)
    y = transform(x)
    held = transform._cached_x_y[0] is x and transform._cached_x_y[1] is y
    require("torch", "_cached_x_y of a transform is not what it was given last, and gave", held)
    inverse = transform.inv
    require("torch", "the inverse of a transform has no _inv", getattr(inverse, "_inv", None) is transform)


def test_parameters():
    for fn in (torch.distributions.Categorical(torch.ones(2)), torch.distributions.Bernoulli(0.5)):
        require(
            "torch", f"_param of a {type(fn).__name__} is not what it is given by", fn._param is fn.__dict__["probs"]
        )
    onehot = torch.distributions.OneHotCategorical(torch.ones(2))
    require("torch", "a OneHotCategorical has no _categorical", hasattr(onehot, "_categorical"))
    normal = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    require_all("torch", "a MultivariateNormal", ["_unbroadcasted_scale_tril", "_batch_shape"], vars(normal))
    low = torch.distributions.LowRankMultivariateNormal(torch.zeros(2), torch.ones(2, 1), torch.ones(2))
    require_all("torch", "a LowRankMultivariateNormal", ["_capacitance_tril"], vars(low))
    require(
        "pyro", "a masked distribution has no _mask", hasattr(dist.Normal(0.0, 1.0).mask(torch.tensor(False)), "_mask")
    )


# Pyro ---------------------------------------------------------------------------------------------------------------------


class Told(Messenger):
    """The messages of a program, by their kind."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def _process_message(self, msg):
        kind = "rows" if type(msg["fn"]).__name__ == "_Subsample" else msg["type"]
        kind = "deterministic" if msg["infer"] and msg["infer"].get("_deterministic") else kind
        self.found.setdefault(kind, dict(msg))


@pytest.fixture(scope="module")
def told():
    messages = Told()
    with messages:
        pyro.param("p", torch.ones(2))
        with pyro.plate("rows", 4, 2) as rows:
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.subsample(torch.arange(4), event_dim=0)
        pyro.deterministic("d", rows)
    pyro.clear_param_store()
    return messages.found


SAMPLE = "type name fn args kwargs value scale mask is_observed cond_indep_stack infer done stop"
FIELDS = {
    "sample": SAMPLE,
    "rows": SAMPLE,
    "deterministic": SAMPLE,
    "param": "type name fn args kwargs value done stop",
    "subsample": "type name args kwargs value",
}


@pytest.mark.parametrize("kind", FIELDS)
def test_message(kind, told):
    require_all("pyro", f"the message of {kind!r}", FIELDS[kind].split(), told.get(kind, {}))


def test_plates_of_a_message(told):
    [frame] = told["sample"]["cond_indep_stack"]
    require_all("pyro", "a frame of cond_indep_stack", ["name", "dim", "size"], dir(frame))


def test_rows_of_a_plate():
    from pyro.poutine.subsample_messenger import SubsampleMessenger

    require_all("pyro", "SubsampleMessenger", ["_subsample"], vars(SubsampleMessenger))
    size, count, rows = SubsampleMessenger._subsample("rows", 3, None, None)
    held = (size, count, rows.tolist()) == (3, 3, [0, 1, 2])
    require("pyro", "SubsampleMessenger._subsample does not give size, count and rows of a plate", held)


def test_modules_of_pyro():
    require_all("pyro", "a PyroModule", ["_pyro_params", "_pyro_samples"], vars(PyroModule()))
