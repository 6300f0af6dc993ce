"""What ppvi builds on in JAX and NumPyro beyond what they promise: a version that has changed it fails here, with a sentence."""

from pathlib import Path

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import jax.scipy.ndimage
import jax.scipy.special
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro.contrib.control_flow import cond, scan
from numpyro.primitives import Messenger, mutable

from tests.numpyro.own_rules import cubed, halved
from tests.surface import name_of, require, require_all, require_name, taken_by

X = jnp.array([0.3, 1.2, 0.7])


@pytest.mark.parametrize(("path", "module", "name"), taken_by("numpyro/_compat.py"))
def test_name(path, module, name):
    require_name(path, module, name)


# Operations and their parameters ------------------------------------------------------------------------------------------


OPERATIONS = {
    "scan": (lambda x: lax.scan(lambda c, y: (c + y, c), 0.0, x), "jaxpr length reverse unroll"),
    "while": (
        lambda x: lax.while_loop(lambda c: c.sum() < 9, lambda c: c * 2, x),
        "cond_jaxpr cond_nconsts body_jaxpr body_nconsts",
    ),
    "cond": (lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), "branches"),
    "custom_linear_solve": (
        lambda x: lax.custom_linear_solve(lambda v: 2 * v, x, lambda f, b: b / 2),
        "jaxprs const_lengths",
    ),
    "jit": (jax.jit(jnp.sin), "jaxpr"),
    "remat2": (jax.checkpoint(jnp.sin), "jaxpr prevent_cse policy"),
    "custom_jvp_call": (cubed, "call_jaxpr"),
    "custom_vjp_call": (halved, "call_jaxpr"),
    "gather": (lambda x: x[jnp.array([0, 2])], "dimension_numbers slice_sizes mode fill_value"),
    "scatter": (lambda x: x.at[0].set(1.0), "update_jaxpr dimension_numbers"),
    "scatter-add": (lambda x: x.at[jnp.array([0, 1])].add(1.0), "dimension_numbers"),
    "reduce_sum": (jnp.sum, "axes"),
    "reduce_max": (jnp.max, "axes"),
    "argmax": (jnp.argmax, "axes"),
    "broadcast_in_dim": (lambda x: jnp.broadcast_to(x, (2, 3)), "shape broadcast_dimensions"),
    "reshape": (lambda x: x.reshape(3, 1, 1), "new_sizes"),
    "transpose": (lambda x: x.reshape(3, 1).T, "permutation"),
    "squeeze": (lambda x: lax.squeeze(x.reshape(3, 1), (1,)), "dimensions"),
    "dot_general": (lambda x: x @ x, "dimension_numbers"),
    "slice": (lambda x: x[:2], "start_indices strides"),
    "dynamic_slice": (lambda x: lax.dynamic_slice(x, (1,), (2,)), "slice_sizes"),
    "concatenate": (lambda x: jnp.concatenate([x, x]), "dimension"),
    "cumsum": (jnp.cumsum, "axis reverse"),
    "pad": (lambda x: jnp.pad(x, 1), "padding_config"),
    "sort": (jnp.sort, "dimension"),
    "rev": (lambda x: x[::-1], "dimensions"),
    "split": (lambda x: jnp.split(x, 3), "axis"),
    "integer_pow": (lambda x: x**3, "y"),
    "reduce_precision": (lambda x: lax.reduce_precision(x, 8, 10), "mantissa_bits"),
    "conv_general_dilated": (
        lambda x: lax.conv(x.reshape(1, 1, 3, 1), jnp.ones((1, 1, 2, 1)), (1, 1), "VALID"),
        "dimension_numbers batch_group_count feature_group_count",
    ),
    "reduce_window_max": (
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "VALID"),
        "window_dimensions window_strides padding",
    ),
}
"""By name: a function of `X` with such an operation, and the parameters that are read of it."""


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for name in ("jaxpr", "call_jaxpr"):
            if name in eqn.params and eqn.primitive.name != "scan":
                yield from equations(getattr(eqn.params[name], "jaxpr", eqn.params[name]))


def first(name, function):
    """The first operation of that name in a function of `X`, at any depth of its calls."""
    found = {eqn.primitive.name: eqn for eqn in reversed(list(equations(jax.make_jaxpr(function)(X).jaxpr)))}
    require("jax", f"there is no operation {name!r} where one is expected, but {', '.join(found)}", name in found)
    return found[name]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name):
    function, params = OPERATIONS[name]
    require_all("jax", f"the operation {name!r}", params.split(), first(name, function).params)


def test_numbers_of_a_scan():
    params = first("scan", OPERATIONS["scan"][0]).params
    known = "ft_in" in params or {"num_consts", "num_carry"} <= params.keys()
    require("jax", f"'scan' says by none of its parameters, {', '.join(params)}, what it carries", known)


def test_rows_of_a_gather():
    numbers = first("gather", OPERATIONS["gather"][0]).params["dimension_numbers"]
    fields = "offset_dims collapsed_slice_dims start_index_map operand_batching_dims start_indices_batching_dims"
    require_all("jax", "dimension_numbers of 'gather'", fields.split(), numbers._fields)


def test_rows_of_a_scatter():
    numbers = first("scatter", OPERATIONS["scatter"][0]).params["dimension_numbers"]
    fields = """update_window_dims inserted_window_dims scatter_dims_to_operand_dims operand_batching_dims
    scatter_indices_batching_dims"""
    require_all("jax", "dimension_numbers of 'scatter'", fields.split(), numbers._fields)


# Places in the code -------------------------------------------------------------------------------------------------------


def test_where_an_operation_is():
    eqn = first("sin", lambda x: jnp.sin(x))
    require_all("jax", "source_info of an equation", ["traceback", "name_stack"], dir(eqn.source_info))
    frames = eqn.source_info.traceback.frames
    require_all("jax", "a frame of a traceback", ["file_name", "line_num", "function_name"], dir(frames[0]))
    require("jax", "a traceback does not name this file", any(frame.file_name == __file__ for frame in frames))


WHOLE = {
    "numpy/linalg.py: slogdet": lambda x: jnp.linalg.slogdet(jnp.outer(x, x)),
    "numpy/linalg.py: det": lambda x: jnp.linalg.det(jnp.outer(x, x)),
    "numpy/linalg.py: solve": lambda x: jnp.linalg.solve(jnp.outer(x, x), x),
    "numpy/linalg.py: inv": lambda x: jnp.linalg.inv(jnp.outer(x, x)),
    "numpy/linalg.py: _pinv": lambda x: jnp.linalg.pinv(jnp.outer(x, x)),
    "numpy/lax_numpy.py: diagonal": lambda x: jnp.diagonal(jnp.outer(x, x)),
    "scipy/linalg.py: _solve": lambda x: jax.scipy.linalg.solve(jnp.outer(x, x), x),
    "scipy/linalg.py: expm": lambda x: jax.scipy.linalg.expm(jnp.outer(x, x)),
    "scipy/special.py: expi": jax.scipy.special.expi,
    "scipy/special.py: expn, _expn": lambda x: jax.scipy.special.expn(1, x),
    "scipy/special.py: _xlogx": jax.scipy.special.entr,
    "numpy/ufuncs.py: hypot": lambda x: jnp.hypot(x, x),
    "numpy/lax_numpy.py: _interp": lambda x: jnp.interp(x, x, x),
    "numpy/lax_numpy.py: searchsorted": lambda x: jnp.searchsorted(x, x),
    "scipy/ndimage.py: _map_coordinates": lambda x: jax.scipy.ndimage.map_coordinates(x, [x], 1),
    "lax/other.py: logaddexp": lambda x: jnp.logaddexp(x, x),
}
"""Functions of JAX that the checks know by the file and the name of their code."""


@pytest.mark.parametrize("name", WHOLE)
def test_a_function_is_a_call_that_says_whose_code_it_is(name):
    found = set()
    for eqn in equations(jax.make_jaxpr(WHOLE[name])(X).jaxpr):
        for body in (eqn.params[field] for field in ("jaxpr", "call_jaxpr") if field in eqn.params):
            function, _, place = (getattr(body, "jaxpr", body).debug_info.func_src_info or "").partition(" at ")
            found.add(f"{'/'.join(Path(place.partition(':')[0]).parts[-2:])}: {function}")
    path, names = name.split(": ")
    held = any(f"{path}: {one}" in found for one in names.split(", "))
    require("jax", f"no call is of {name}, but of {', '.join(sorted(found))}", held)


# What is registered or exchanged ------------------------------------------------------------------------------------------


def test_backends():
    from jax._src import xla_bridge

    held = "cpu" in xla_bridge._backend_factories and callable(xla_bridge._backend_factories["cpu"].factory)
    require(
        "jax", "xla_bridge._backend_factories['cpu'] has no factory", held and isinstance(xla_bridge._backends, dict)
    )


def test_lowerings_on_cpus():
    from jax._src.lax import linalg
    from jax.interpreters import mlir

    rule = mlir._platform_specific_lowerings["cpu"].get(linalg.lu_p)
    require(
        "jax", "mlir._platform_specific_lowerings['cpu'] has no rule of 'lu'", callable(getattr(rule, "rule", None))
    )


def test_the_trace_of_what_is_computed():
    from jax._src import core

    with core.take_current_trace() as trace:
        require("jax", f"what computes is a {type(trace).__name__}, no EvalTrace", type(trace).__name__ == "EvalTrace")


def test_what_is_computed_of_numbers_in_a_trace():
    from jax._src import config

    with jax.ensure_compile_time_eval():
        held = jax.make_jaxpr(lambda: jnp.sin(1.0))().eqns == []
        with config.eager_constant_folding(False):
            held = held and len(jax.make_jaxpr(lambda: jnp.sin(1.0))().eqns) == 1
    require("jax", "config.eager_constant_folding does not say whether numbers are recorded", held)


def test_functions_with_a_derivative_rule():
    from jax._src.lax.other import logaddexp

    for function in (logaddexp, jax.scipy.special.xlogy, jax.scipy.special.xlog1py):
        require("jax", f"{function} has no `fun`, the function without its rule", hasattr(function, "fun"))


def test_contexts():
    require_all("jax", "jax", ["make_user_context", "ensure_compile_time_eval"], dir(jax))


# NumPyro ------------------------------------------------------------------------------------------------------------------


class Told(Messenger):
    """The messages of a program, by their kind."""

    def __init__(self):
        super().__init__()
        self.found = {}

    def process_message(self, msg):
        self.found.setdefault(msg["type"], dict(msg))


def program():
    numpyro.param("p", jnp.ones(2), constraint=dist.constraints.positive)
    with numpyro.plate("rows", 4, 2):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.deterministic("d", z)
    mutable("state", 0)
    numpyro.prng_key()
    scan(lambda c, x: (c, x), 0.0, jnp.arange(2.0))
    cond(True, lambda x: x, lambda x: -x, 1.0)


FIELDS = {
    "sample": "type name fn args kwargs value scale is_observed cond_indep_stack infer",
    "param": "type name fn args kwargs value",
    "plate": "type name args kwargs value",
    "deterministic": "type name value",
    "mutable": "type name args value",
    "prng_key": "type value",
    "control_flow": "type fn args kwargs value",
}


@pytest.fixture(scope="module")
def told():
    messages = Told()
    with numpyro.handlers.block(), numpyro.handlers.seed(rng_seed=0), messages:
        program()
    return messages.found


@pytest.mark.parametrize("kind", FIELDS)
def test_message(kind, told):
    require_all("numpyro", f"the message of a {kind!r}", FIELDS[kind].split(), told.get(kind, {}))


def test_plates_of_a_message(told):
    [frame] = told["sample"]["cond_indep_stack"]
    require_all("numpyro", "a frame of cond_indep_stack", ["name", "dim", "size"], dir(frame))


def test_control_flow(told):
    from numpyro.contrib.control_flow.scan import scan_wrapper

    require("numpyro", "a scan's message is not of scan_wrapper", told["control_flow"]["fn"] is scan_wrapper)


def test_distributions():
    require("numpyro", "there is no Distribution._validate_args", hasattr(dist.Distribution, "_validate_args"))
    unchecked = vars(dist.Normal(0.0, 1.0, validate_args=False))
    require("numpyro", "_validate_args of a distribution is not its own", unchecked.get("_validate_args") is False)
    require("numpyro", "a masked distribution has no _mask", hasattr(dist.Normal(0.0, 1.0).mask(False), "_mask"))
    inverse = dist.transforms.ExpTransform().inv
    held = type(inverse).__name__ == "_InverseTransform" and hasattr(inverse, "_inv")
    require("numpyro", "the inverse of a transform is no _InverseTransform with an _inv", held)


def test_functions_that_are_exchanged():
    from numpyro.distributions import continuous, discrete, transforms

    names = ["binary_cross_entropy_with_logits", "xlogy", "xlog1py", "BinomialLogits", "validate_sample"]
    require_all("numpyro", "distributions.discrete", names, dir(discrete))
    require_all("numpyro", "distributions.continuous", ["random"], dir(continuous))
    require_all("numpyro", "PowerTransform", ["__call__", "log_abs_det_jacobian"], vars(transforms.PowerTransform))


def test_a_failure_says_what_has_changed():
    with pytest.raises(
        pytest.fail.Exception, match=r"jax [\d.]+ has no jax.extend.core.tea, which ppvi/numpyro/_compat.py"
    ):
        require_name("numpyro/_compat.py", "jax.extend.core", "tea")
    with pytest.raises(pytest.fail.Exception, match="'scan' has no milk, only sugar"):
        require_all("jax", "the operation 'scan'", ["milk"], ["sugar"])
    assert name_of("jax") == f"jax {jax.__version__}"
