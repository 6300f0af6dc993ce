"""What a call is given is what the estimate is of: arrays are traced, all else is a constant that is read afresh.

The oracle is the program itself with the number written into it, for the same key.
"""

import dataclasses
import functools
import io
import itertools
import types

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import torch

import ppvi
from ppvi.errors import EngineError, ProgramError
from ppvi.objective import estimator_of
from tests.engines import ENGINES, NUMPYRO, PYRO, dist, on, ppl, xp

each_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


def guide(*args, **kwargs):
    ppl.sample("z", dist.Normal(ppl.param("m", xp.array(0.3)), 1.0))


def scaled(x):
    """A model of one datum whose mean is `x` times the latent value."""
    ppl.sample("y", dist.Normal(x * ppl.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=xp.array(1.0))


def bound_on(engine, model):
    return engine.vi.objective(ppvi.objectives.elbo, model, guide)


def value(engine, bound, *args):
    return float(bound.estimate(engine.key(0), {"m": engine.array(0.3)}, *args))


class Config:
    def __init__(self):
        self.scale = 2.0

    @functools.cached_property
    def doubled(self):
        return 2 * self.scale


@dataclasses.dataclass(eq=False)
class Settings:
    scale: float = 2.0


UNIT = [2.0]
"""What a function reads that is an argument."""


def chain(length):
    last = first = types.SimpleNamespace(then=2.0)
    for _ in range(length):
        first = types.SimpleNamespace(then=first)
    return {"first": types.SimpleNamespace(first=first, last=last)}


def end(given):
    node = given["first"].first
    while isinstance(node, types.SimpleNamespace):
        node = node.then
    return node


CHANGING = {
    "an object": (Config, lambda c: c.scale, lambda c: setattr(c, "scale", 3.0)),
    "a property that is kept": (Config, lambda c: c.doubled, lambda c: vars(c).update(scale=3.0, doubled=6.0)),
    "a dataclass": (Settings, lambda c: c.scale, lambda c: setattr(c, "scale", 3.0)),
    "a namespace in a dict": (
        lambda: {"at": types.SimpleNamespace(scale=2.0)},
        lambda c: c["at"].scale,
        lambda c: setattr(c["at"], "scale", 3.0),
    ),
    "a list of texts": (lambda: ["a", "b"], len, lambda c: c.append("c")),
    "a set": (lambda: {1, 2}, len, lambda c: c.add(3)),
    "a table": (
        lambda: pd.DataFrame({"x": [2.0], "group": ["a"]}),
        lambda c: float(c["x"].sum()),
        lambda c: c.__setitem__("x", [3.0]),
    ),
    "an array in an object": (
        lambda: types.SimpleNamespace(x=np.array([2.0])),
        lambda c: xp.asarray(c.x)[0],
        lambda c: c.x.__setitem__(0, 3.0),
    ),
    "a function": (lambda: functools.partial(sum, [2.0]), lambda c: c(), lambda c: c.args[0].append(1.0)),
    "what a function reads": (lambda: lambda: UNIT[0], lambda c: c(), lambda c: UNIT.__setitem__(0, 5.0 - UNIT[0])),
    "the end of a long chain": (lambda: chain(1_500), end, lambda c: setattr(c["first"].last, "then", 3.0)),
}


QUICK = ("an object", "a table", "an array in an object")
"""On NumPyro, where each of them is compiled twice."""


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        pytest.param(engine, name, marks=[pytest.mark.slow] if engine is NUMPYRO and name not in QUICK else [])
        for engine in ENGINES
        for name in CHANGING
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_constants_are_read_afresh(engine, name):
    make, read, change = CHANGING[name]
    with on(engine):
        given, bound = make(), bound_on(engine, lambda c: scaled(read(c)))
        for _ in range(2):
            truth = value(engine, bound_on(engine, scaled), engine.array(float(read(given))))
            assert value(engine, bound, given) == pytest.approx(truth, rel=1e-5)
            change(given)


ALIKE = [
    (1, True),
    (1, 1.0),
    (0.0, -0.0),
    (-1 + 0j, complex(-1, -0.0)),
    ("1", b"1"),
    ((1,), [1]),
    (frozenset({1}), {1}),
]


def _sum(x):
    return float(sum(map(ord, repr(x))))


@pytest.mark.parametrize(("left", "right"), ALIKE, ids=str)
def test_equal_things_of_two_kinds_are_two(left, right):
    """`1 == True`, and a program may yet tell them apart."""
    with on(PYRO):
        bound = bound_on(PYRO, lambda x: scaled(_sum(x)))
        for x in (left, right):
            assert value(PYRO, bound, x) == value(PYRO, bound_on(PYRO, scaled), torch.tensor(_sum(x)))


@each_engine
def test_what_has_not_changed_is_not_staged_again(engine):
    runs = itertools.count()

    def model(nothing, config, text):
        next(runs)
        scaled(config.scale)

    with on(engine):
        bound = bound_on(engine, model)
        value(engine, bound, float("nan") if engine is PYRO else None, Config(), "text")
        before = repr(runs)
        for _ in range(3):
            value(engine, bound, float("nan") if engine is PYRO else None, Config(), "text")
        assert repr(runs) == before


REFUSED = {
    "a generator": lambda: (i for i in [1]),
    "an iterator": lambda: iter([1]),
    "a buffer": lambda: io.StringIO("1"),
    "PyTorch's generator": lambda: torch.Generator(),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("verb", ["init", "value_and_grad"])
@each_engine
def test_what_has_no_contents_is_refused_by_name(engine, verb, name):
    with on(engine):
        bound = bound_on(engine, lambda x, data: scaled(x))
        params = () if verb == "init" else ({"m": engine.array(0.3)},)
        with pytest.raises(ProgramError, match=r"argument 'data'\['rows'\] is a \w+"):
            getattr(bound, verb)(engine.key(0), *params, 1.0, {"rows": REFUSED[name]()})


@each_engine
def test_arrays_of_the_other_framework_are_refused_by_name(engine):
    other = jnp.ones(3) if engine is PYRO else torch.ones(3)
    with on(engine), pytest.raises(ProgramError, match=r"argument 'x' is a .*an array of another library"):
        bound_on(engine, scaled).init(engine.key(0), other)


# NumPy arrays that programs read in Python ---------------------------------------------------------------------------------


def grouped(groups, y):
    """Groups are counted in Python."""
    k = len(np.unique(groups))
    z = ppl.sample("z", dist.Normal(0.0, 1.0))
    ppl.sample("y", dist.Normal(z * k + xp.zeros(k)[groups], 1.0).to_event(1), obs=y)


def many(n, y):
    z = ppl.sample("z", dist.Normal(0.0, 1.0))
    if n > 2:
        z = 2 * z
    with ppl.plate("data", int(n)):
        ppl.sample("y", dist.Normal(z, 1.0), obs=xp.zeros(int(n)))


@each_engine
def test_numpy_arguments_may_be_read_in_python(engine):
    with on(engine):
        y, bound = engine.array(np.array([0.5, -1.0, 0.2])), bound_on(engine, grouped)
        for groups in ([0, 1, 1], [0, 1, 2]):
            written = bound_on(engine, lambda y, groups=groups: grouped(np.array(groups), y))
            assert value(engine, bound, np.array(groups), y) == pytest.approx(value(engine, written, y), rel=1e-6)


@each_engine
def test_fit_and_posterior_of_a_program_that_reads_an_argument(engine):
    with on(engine):
        y, bound = engine.array(np.array([0.5, -1.0, 0.2])), bound_on(engine, grouped)
        fit = engine.vi.fit(bound, engine.key(0), np.array([0, 1, 1]), y, num_steps=3, progress=False)
        written = bound_on(engine, lambda y: grouped(np.array([0, 1, 1]), y))
        np.testing.assert_allclose(
            fit.losses, engine.vi.fit(written, engine.key(0), y, num_steps=3, progress=False).losses, rtol=1e-5
        )
        assert fit.posterior(draws=2).posterior["z"].shape == (1, 2)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.array, int])
@each_engine
def test_numbers_of_numpy_may_decide(engine, kind):
    with on(engine):
        y, bound = engine.array(np.array([0.0])), bound_on(engine, many)
        for n in (2, 3):
            written = bound_on(engine, lambda y, n=n: many(n, y))
            assert value(engine, bound, kind(n), y) == pytest.approx(value(engine, written, y), rel=1e-6)


@each_engine
def test_minibatches_that_are_read_in_python_are_worth_a_word(engine):
    with on(engine):
        bound, params = bound_on(engine, many), {"m": engine.array(0.3)}

        def go_through(numbers):
            for n in numbers:
                estimator_of(bound).staged(params, n, None)

        with pytest.warns(UserWarning, match=r"staged 10 times again.*argument 'n'"):
            go_through(np.arange(1, 12))


def test_only_what_is_read_is_constant():
    """Minibatches of what a program does not read cost no staging."""
    runs = itertools.count()

    def model(data, names):
        next(runs)
        k = int(data["n"])
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(z, 1.0).expand([k]).to_event(1), obs=data["y"])

    bound, names = bound_on(NUMPYRO, model), np.array(["a", "b"])
    batches = [{"x": np.ones(2) * i, "y": np.ones(3) * i, "n": np.array(3)} for i in range(4)]
    value(NUMPYRO, bound, batches[0], names)
    before = repr(runs)
    for batch in batches[1:]:
        value(NUMPYRO, bound, batch, names)
    assert repr(runs) == before


def test_arrays_of_jax_that_are_read_are_refused_by_name():
    y = jnp.array([0.5, -1.0, 0.2])
    with pytest.raises(EngineError, match=r"argument 'groups' in Python at .*test_arguments.py:\d+.*np.asarray"):
        value(NUMPYRO, bound_on(NUMPYRO, grouped), jnp.array([0, 1, 1]), y)


def test_branches_on_draws_are_refused_with_their_line():
    def branching(y):
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(z if z > 0 else -z, 1.0), obs=y)

    with pytest.raises(EngineError, match=r"in Python at .*test_arguments.py:\d+.*lax.cond"):
        value(NUMPYRO, bound_on(NUMPYRO, branching), np.array(1.0))


# Changes in place, on Pyro --------------------------------------------------------------------------------------------------


def put(x, key, to):
    x[key] = to


IN_PLACE = {
    "add_": (lambda: torch.ones(2), lambda x: x.add_(1.0)),
    "an entry": (lambda: torch.ones(2), lambda x: put(x, 0, 3.0)),
    "a view": (lambda: torch.ones(2), lambda x: x.view(-1).mul_(2.0)),
    "an entry of a dict": (lambda: {"x": torch.ones(2)}, lambda x: put(x, "x", x["x"] + 1.0)),
    "a list": (lambda: [torch.ones(2)], lambda x: x.append(torch.ones(2))),
    "an array": (lambda: np.ones(2), lambda x: put(x, 0, 3.0)),
    "an attribute": (lambda: types.SimpleNamespace(calls=0), lambda x: setattr(x, "calls", x.calls + 1)),
}


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("verb", ["init", "value_and_grad"])
def test_a_change_in_place_is_refused_and_not_made(verb, name):
    make, change = IN_PLACE[name]

    def model(x):
        change(x)
        scaled(1.0)

    given, like = make(), repr(make())
    with on(PYRO), pytest.raises(ProgramError, match="changes its argument 'x' in place"):
        getattr(bound_on(PYRO, model), verb)(0, *([] if verb == "init" else [{"m": torch.tensor(0.3)}]), given)
    assert repr(given) == like


@pytest.mark.parametrize("branches", [False, True])
def test_a_change_that_comes_later_is_refused_and_not_made(branches):
    def model(x, change):
        if change or (branches and float(x) > 1e9):
            x.add_(1.0)
        scaled(x)

    with on(PYRO):
        bound, x = bound_on(PYRO, model), torch.tensor(2.0)
        value(PYRO, bound, x, False)
        with pytest.raises(ProgramError, match="changes its argument 'x' in place"):
            value(PYRO, bound, x, True)
        assert x == 2.0
        if branches:
            x.fill_(1e10)
            with pytest.raises(ProgramError, match="changes its argument 'x' in place"):
                value(PYRO, bound, x, False)
            assert x == 1e10


def test_what_a_program_has_made_it_may_change():
    def model(x):
        copied = {"x": x.clone()}
        copied["x"].add_(1.0)
        copied["y"] = copied["x"]
        scaled(copied["y"])

    with on(PYRO):
        truth = value(PYRO, bound_on(PYRO, scaled), torch.tensor(3.0))
        assert value(PYRO, bound_on(PYRO, model), torch.tensor(2.0)) == truth


def test_a_module_as_an_argument():
    """Its parameters move without a new staging; its mode is another program."""
    module = torch.nn.Dropout(0.5)

    def model(module, x):
        scaled(module(x).sum())

    with on(PYRO):
        bound, x = bound_on(PYRO, model), torch.ones(64)
        dropped = value(PYRO, bound, module, x)
        module.eval()
        assert value(PYRO, bound, module, x) == value(PYRO, bound_on(PYRO, scaled), torch.tensor(64.0))
        module.train()
        assert value(PYRO, bound, module, x) == dropped
