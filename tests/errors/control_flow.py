"""Mistakes of programs that look at what is traced, and of verbs under transformations."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax

import ppvi
from ppvi import strategies
from tests.engines import NUMPYRO, PYRO
from tests.errors.programs import around
from tests.errors.table import ENGINE, PROGRAM, STRATEGY, N, mistake, mistakes

HERE = "tests/errors/control_flow.py:"
TABLE = list(range(10))


def halved(m):
    while m > 1:
        m = m / 2
    return m


def positive(m):
    return m if m > 0 else -m


READS = {
    "if on a draw": positive,
    "while on a draw": halved,
    "max of Python": lambda m: max(m, 0.0),
    "and of a draw": lambda m: (m > 0 and m) or -m,
    "draw as a float": lambda m: float(m) * 1.0,
    "draw as an int": lambda m: int(m) * 1.0,
    "draw as an item": lambda m: m.item() * 1.0,
    "draw in math": lambda m: math.exp(m),
    "draw in NumPy": lambda m: np.exp(m),
    "draw as an array of NumPy": lambda m: np.asarray(m) * 1.0,
    "draw as a place in a list": lambda m: TABLE[m.astype(int)],
    "draw as a range": lambda m: sum(range(m.astype(int))),
    "draw among values": lambda m: 1.0 if m in (0.0, 1.0) else 0.0,
    "assertion on a draw": lambda m: m if not bool(m > 5) else None,
}
for name, location in READS.items():
    mistake(ENGINE, "in Python", "'mean'", "jnp.where", "lax.cond", HERE, on=NUMPYRO, called=name)(
        lambda e, location=location: e.gradient(model=around(e, location))
    )


def branching(e):
    return e.objective(model=around(e, positive))


mistakes(
    ENGINE,
    ("if on a draw in fit", lambda e: e.fit(branching(e)), "in Python", "'mean'", "lax.cond", HERE),
    ("if on a draw in prove", lambda e: branching(e).prove(e.params, e.y), "in Python", "'mean'", "lax.cond", HERE),
    ("if on a draw in explain", lambda e: branching(e).explain(e.params, e.y), "in Python", "'mean'", "lax.cond", HERE),
    ("if on a draw in estimate", lambda e: branching(e).estimate(e.key, e.params, e.y), "in Python", "'mean'", HERE),
    ("if on a draw in check", lambda e: branching(e).check(e.key, e.params, e.y, budget=1, progress=False), "in Python", "'mean'", HERE),
    ("if on a draw in posterior", lambda e: e.vi.posterior(branching(e), e.key, e.params, e.y, draws=2), "in Python", "'mean'", HERE),
    ("if on a parameter", lambda e: e.gradient(guide=lambda y: e.ppl.sample("mean", e.dist.Normal(positive(e.ppl.param("loc", e.array(0.1))), 1.0))), "in Python", "the guide", HERE),
    ("if in the objective", lambda e: e.gradient(lambda p, q: positive(q.simulate().log_density)), "in Python", "the objective program", HERE),
    ("mask of a draw as an index", lambda e: e.gradient(model=lambda y: positive_rows(e, y)), "in Python", "'mean'", "mask", HERE),
    on=NUMPYRO,
)  # fmt: skip


def positive_rows(e, y):
    mean = e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))
    return y[y > mean]


@mistake(PROGRAM, "'<lambda>'", "float", "no gradient", "item()")
def float_in_the_objective(e):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        e.gradient(lambda p, q: float(p.log_density(q.simulate())))


@mistake(PROGRAM, "'<lambda>'", "float", "no gradient", "item()")
def item_in_the_objective(e):
    e.gradient(lambda p, q: p.log_density(q.simulate()).item())


mistakes(
    ENGINE,
    ("while_loop of a draw", lambda e: e.gradient(model=around(e, lambda m: lax.while_loop(lambda x: x < 3, lambda x: x + 1, m))), "lax.while_loop", "'mean'", "lax.scan", HERE),
    ("pure_callback of a draw", lambda e: e.gradient(model=around(e, lambda m: jax.pure_callback(np.exp, jax.ShapeDtypeStruct((), jnp.float32), m))), "pure_callback", "'mean'", "custom_jvp", HERE),
    ("site under vmap", lambda e: e.gradient(model=lambda y: jax.vmap(lambda x: e.ppl.sample("heights", e.dist.Normal(0.0, 1.0), obs=x))(y)), "'heights'", "plate", HERE),
    ("site under grad", lambda e: e.gradient(guide=lambda y: jax.grad(lambda x: e.ppl.sample("mean", e.dist.Normal(x, 1.0)))(e.ppl.param("loc", jnp.array(0.1)))), "'mean'", "jax.grad", HERE),
    on=NUMPYRO,
)  # fmt: skip


def stepped(e, step, carry=lambda m: m):
    return e.gradient(model=around(e, lambda m: lax.scan(step, carry(m), jnp.arange(3.0))[0]))


mistakes(
    TypeError,
    ("carry that changes shape", lambda e: stepped(e, lambda c, x: (jnp.stack([c, c]), x)), "carry", "shapes do not match", "the model", "'mean'"),
    ("carry that changes dtype", lambda e: stepped(e, lambda c, x: (c.astype(int), x)), "carry", "dtypes do not match", "the model"),
    ("branches of different shapes", lambda e: e.gradient(model=around(e, lambda m: lax.cond(m > 0, lambda: m, lambda: jnp.stack([m, m])))), "shapes do not match", "'mean'"),
    ("branches of different dtypes", lambda e: e.gradient(model=around(e, lambda m: lax.cond(m > 0, lambda: m, lambda: 0))), "dtypes do not match", "'mean'"),
    ("item assignment", lambda e: e.gradient(model=around(e, assigned)), "immutable", "the model", "'mean'"),
    ("draw in a text", lambda e: e.gradient(model=around(e, lambda m: float(f"{m:.2f}"))), "__format__", "the model", "'mean'"),
    ("draw as a key of a dict", lambda e: e.gradient(model=around(e, lambda m: {0: 1.0}[m])), "unhashable", "the model", "'mean'"),
    ("function of PyTorch", lambda e: e.gradient(model=around(e, torch.exp)), "must be Tensor", "the model", "'mean'"),
    on=NUMPYRO,
)  # fmt: skip
mistakes(
    TypeError,
    ("function of JAX", lambda e: e.gradient(model=around(e, jnp.exp)), "torch.Tensor", "the model", "'mean'"),
    on=PYRO,
)  # fmt: skip
mistakes(
    TypeError,
    ("length of a number", lambda e: e.gradient(model=around(e, len)), "len()", "the model", "'mean'"),
    ("sum over a number", lambda e: e.gradient(model=around(e, sum)), "iteration", "the model", "'mean'"),
)  # fmt: skip


def assigned(m):
    x = jnp.zeros(N)
    x[0] = m
    return x


@mistake(TypeError, "scan", "'mean'", on=NUMPYRO)
def carry_of_numpyro_that_changes_shape(e):
    from numpyro.contrib.control_flow import scan

    def model(y):
        def step(carry, x):
            e.ppl.sample("heights", e.dist.Normal(carry, 1.0), obs=x)
            return jnp.stack([carry, carry]), None

        scan(step, e.ppl.sample("mean", e.dist.Normal(0.0, 1.0)), y)

    e.gradient(model=model)


@mistake(KeyError, "no such key", "the model", "'mean'")
def error_of_the_model_itself(e):
    e.gradient(model=around(e, lambda m: {}["no such key"]))


@mistake(Exception, "the guide", "(3, 1)", on=NUMPYRO)
def module_with_another_input(e):
    import flax.linen
    from numpyro.contrib.module import flax_module

    def guide(y):
        net = flax_module("net", flax.linen.Dense(1), input_shape=(3,))
        e.ppl.sample("mean", e.dist.Normal(net(jnp.ones(4)).sum(), 1.0))

    e.gradient(guide=guide)


@mistake(RuntimeError, "the guide", "1x4 and 3x1", on=PYRO)
def module_of_torch_with_another_input(e):
    net = torch.nn.Linear(3, 1)

    def guide(y):
        e.ppl.module("net", net)
        e.ppl.sample("mean", e.dist.Normal(net(torch.ones(4)).sum(), 1.0))

    e.gradient(guide=guide)


@mistake(ENGINE, "igamma", "no derivative", HERE, on=PYRO)
def operation_without_a_derivative(e):
    e.gradient(model=around(e, lambda m: torch.special.gammainc(m.exp(), torch.tensor(1.0))))


# Relaxed sites ------------------------------------------------------------------------------------------------------------


def indexed(e, strategy):
    """A gradient with this strategy of a site whose draw is an index."""

    def model(y):
        which = e.ppl.sample("which", e.dist.Bernoulli(probs=e.array(0.3)))
        with e.ppl.plate("rows", N):
            e.ppl.sample("heights", e.dist.Normal(e.array(np.arange(2.0))[which], 1.0), obs=y)

    return e.gradient(model=model, guide=e.discrete_guide, strategies={"which": strategy})


mistakes(
    STRATEGY,
    ("REBAR of an index", lambda e: indexed(e, strategies.REBAR()), "'which'", "index", "LeaveOneOut()"),
    ("GumbelSoftmax of an index", lambda e: indexed(e, strategies.GumbelSoftmax(1.0)), "'which'", "index", "Enumerate()"),
    ("StraightThrough of an index", lambda e: indexed(e, strategies.StraightThrough()), "'which'", "index", "Enumerate()"),
)  # fmt: skip

# Verbs under transformations ----------------------------------------------------------------------------------------------

mistakes(
    PROGRAM,
    ("fit under jit", lambda e: jax.jit(lambda y: e.fit(None, y).params)(e.y), "fit", "jax.jit", "outside"),
    ("fit under jit of its key", lambda e: jax.jit(lambda key: e.fit(key=key).params)(e.key), "fit", "jax.jit", "value_and_grad"),
    ("fit under grad", lambda e: jax.grad(lambda y: e.fit(None, y).params["loc"])(e.y), "fit", "grad", "outside"),
    ("fit under scan", lambda e: lax.scan(lambda c, y: (c, e.fit(None, y).params), 0, jnp.stack([e.y, e.y])), "fit", "scan", "outside"),
    ("fit under vmap", lambda e: jax.vmap(lambda y: e.fit(None, y).params)(jnp.stack([e.y, e.y])), "fit", "vmap", "Call it outside"),
    ("check under jit", lambda e: jax.jit(lambda key: e.bound.check(key, e.params, e.y).verdict)(e.key), "check", "jax.jit"),
    ("prove under jit", lambda e: jax.jit(lambda y: e.bound.prove(e.params, y).verdict)(e.y), "prove", "jax.jit"),
    ("explain under vmap", lambda e: jax.vmap(lambda y: e.bound.explain(e.params, y))(jnp.stack([e.y, e.y])), "explain", "vmap"),
    ("posterior under jit", lambda e: jax.jit(lambda key: e.vi.posterior(e.bound, key, e.params, e.y, draws=2))(e.key), "posterior", "jax.jit"),
    on=NUMPYRO,
)  # fmt: skip
mistakes(
    PROGRAM,
    ("fit under vmap of torch", lambda e: torch.vmap(lambda y: e.fit(None, y).params)(torch.stack([e.y, e.y])), "fit", "torch.vmap", "Call it outside"),
    ("prove under vmap of torch", lambda e: torch.vmap(lambda y: e.bound.prove(e.params, y))(torch.stack([e.y, e.y])), "prove", "torch.vmap"),
    on=PYRO,
)  # fmt: skip


@mistake(ENGINE, "value_and_grad", "torch.vmap", "ppvi.replicate", on=PYRO)
def gradient_under_vmap_of_torch(e):
    torch.vmap(lambda y: e.bound.value_and_grad(e.key, e.params, y))(torch.stack([e.y, e.y]))


# What the objective hands on ----------------------------------------------------------------------------------------------


@mistake(PROGRAM, "guide()", "too many positional arguments")
def simulate_given_an_array(e):
    def guide():
        e.ppl.sample("mean", e.dist.Normal(e.ppl.param("loc", e.array(0.1)), 1.0))

    def model():
        e.ppl.sample("mean", e.dist.Normal(0.0, 1.0))

    e.gradient(lambda p, q: p.log_density(q.simulate(e.y)), model=model, guide=guide, args=())


@mistake(PROGRAM, "'groups'", "['rows']")
def density_per_a_plate_that_is_none(e):
    e.gradient(lambda p, q: ppvi.total(p.log_density(q.simulate(), per="groups"), per="groups"))


@mistake(TypeError, "not callable", "the objective program")
def handle_called(e):
    e.gradient(lambda p, q: q(e.y).log_density)


@mistake(TypeError, "'choices'", "the objective program")
def density_of_nothing(e):
    e.gradient(lambda p, q: p.log_density() + q.simulate().log_density)
