"""What programs read outside of their arguments may change between two calls, and the second sees it."""

import array
import collections
import contextvars
import copy
import dataclasses
import functools
import gc
import pickle
import sys
import threading
import time
import types
import weakref
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from ppvi.engine.arguments import Constants
from ppvi.engine.snapshots import BLOCK, Content
from ppvi.engine.stagings import KINDS, Stagings
from ppvi.engine.world import World
from ppvi.pyro._world import modes
from tests.engines import NUMPYRO, dist, handlers, on, ppl, xp

FACTOR = 1.0
"""A global that a program reads."""


def reads(number):
    """A model whose density is that of 1 under N(number(), 1)."""

    def model():
        ppl.sample("y", dist.Normal(number(), 1.0), obs=xp.array(1.0))

    return model


def guide():
    ppl.sample("z", dist.Normal(ppl.param("loc", 0.5), 1.0))


def density(p, q):
    return p.log_density({}) + 0 * q.simulate()["z"]


def truth(number):
    return -0.5 * (1.0 - number) ** 2 - 0.5 * np.log(2 * np.pi)


# Each gives a model that reads 1, and a function after which it reads 3.


def a_global():
    def change():
        global FACTOR
        FACTOR = 3.0

    change_back()
    return reads(lambda: FACTOR), change


def change_back():
    global FACTOR
    FACTOR = 1.0


def a_closed_over_number():
    factor = 1.0

    def change():
        nonlocal factor
        factor = 3.0

    return reads(lambda: factor), change


def a_closed_over_array():
    factor = xp.array(1.0)

    def change():
        nonlocal factor
        factor = xp.array(3.0)

    return reads(lambda: factor + 0.0), change


def numpy_in_place():
    data = np.ones((2, 3)).T

    def change():
        data[:2] = 4.0

    return reads(lambda: float(data.mean())), change


def a_nested_dict():
    config = {"model": {"factor": 1.0}}
    return reads(lambda: config["model"]["factor"]), lambda: config["model"].update(factor=3.0)


def the_order_of_a_dict():
    numbers = collections.OrderedDict(first=1.0, second=3.0)
    return reads(lambda: next(iter(numbers.values()))), lambda: numbers.move_to_end("first")


def what_a_dict_gives_by_default():
    numbers = collections.defaultdict(lambda: 1.0)
    return reads(lambda: (numbers["a"], numbers.pop("a"))[0]), lambda: setattr(numbers, "default_factory", lambda: 3.0)


def another_dict_with_the_same_in_it():
    config = types.SimpleNamespace(table={"unit": 1.0})
    change = functools.partial(setattr, config, "table", collections.OrderedDict(unit=1.0))
    return reads(lambda: 1.0 if type(config.table) is dict else 3.0), change


def a_longer_list():
    numbers = [1.0]
    return reads(lambda: sum(numbers)), lambda: numbers.append(2.0)


def a_set():
    numbers = {1.0}
    return reads(lambda: sum(numbers)), lambda: numbers.add(2.0)


def a_flag():
    config = types.SimpleNamespace(kind="small")
    return reads(lambda: 1.0 if config.kind == "small" else 3.0), lambda: setattr(config, "kind", "large")


def another_function():
    functions = [lambda: 1.0]
    return reads(lambda: functions[0]()), lambda: functions.__setitem__(0, lambda: 3.0)


def a_default_argument():
    def number(factor=1.0):
        return factor

    return reads(number), lambda: setattr(number, "__defaults__", (3.0,))


def an_argument_of_a_partial():
    config = {"factor": 1.0}
    return reads(functools.partial(dict.get, config, "factor")), lambda: config.update(factor=3.0)


def a_module_of_python():
    settings = types.ModuleType("settings")
    settings.factor = 1.0
    return reads(lambda: settings.factor), lambda: setattr(settings, "factor", 3.0)


def a_dataclass():
    @dataclasses.dataclass
    class Config:
        factor: float = 1.0

    config = Config()
    return reads(lambda: dataclasses.asdict(config)["factor"]), lambda: setattr(config, "factor", 3.0)


def slots():
    class Config:
        __slots__ = ("factor",)

    config = Config()
    config.factor = 1.0
    return reads(lambda: config.factor), lambda: setattr(config, "factor", 3.0)


def the_attribute_of_a_method():
    class Program:
        def __init__(self):
            self.state = types.SimpleNamespace(factor=1.0)
            self.number = reads(self.read)

        def read(self):
            return self.state.factor

        def model(self):
            return self.number()

    program = Program()
    return program.model, lambda: setattr(program.state, "factor", 3.0)


def a_class_attribute_that_an_object_hides():
    class Program:
        factor = 1.0

        def __call__(self):
            return reads(lambda: self.factor)()

    program = Program()
    return program, lambda: setattr(program, "factor", 3.0)


def a_class_attribute():
    class Program:
        factor = 1.0

        @property
        def doubled(self):
            return 2 * type(self).factor

        def __call__(self):
            return reads(lambda: self.doubled / 2)()

    return Program(), lambda: setattr(Program, "factor", 3.0)


def within_a_handler():
    factor = [1.0]
    return handlers.scale(reads(lambda: factor[0]), scale=1.0), lambda: factor.__setitem__(0, 3.0)


def a_module_that_is_imported_inside():
    sys.modules["settings_of_a_test"] = settings = types.ModuleType("settings_of_a_test")
    settings.factor = 1.0

    def number():
        from settings_of_a_test import factor

        return factor

    return reads(number), lambda: setattr(settings, "factor", 3.0)


def a_module_that_is_imported_after_many_names():
    sys.modules["tests.laws.settings_of_a_test"] = settings = types.ModuleType("settings")
    settings.factor = 1.0
    scope = {"__name__": __name__, "__package__": __package__, **{f"f{i}": 0.0 for i in range(300)}}
    lines = [
        "def number():",
        *(f"  f{i}" for i in range(300)),
        "  from .settings_of_a_test import factor",
        "  return factor",
    ]
    exec("\n".join(lines), scope)
    return reads(scope["number"]), lambda: setattr(settings, "factor", 3.0)


def an_import_that_fails():
    settings = types.SimpleNamespace(factor=1.0)

    def number():
        try:
            from .....settings import factor  # noqa: TID252  (of no package that there is)
        except ImportError:
            factor = settings.factor
        return factor

    return reads(number), lambda: setattr(settings, "factor", 3.0)


def a_module_that_is_called_like_a_library():
    seaborn = types.ModuleType("seaborn")
    seaborn.factor = 1.0
    return reads(lambda: seaborn.factor), lambda: setattr(seaborn, "factor", 3.0)


def an_attribute_of_a_module_by_its_name():
    settings, name = types.ModuleType("settings"), "fac"
    settings.factor = 1.0
    return reads(lambda: getattr(settings, name + "tor")), lambda: setattr(settings, "factor", 3.0)


def an_attribute_of_a_class_by_its_name():
    class Config:
        factor = 1.0

    return reads(lambda: getattr(Config, "".join(["fac", "tor"]))), lambda: setattr(Config, "factor", 3.0)


def a_global_by_its_name():
    change_back()
    return reads(lambda: globals()["FAC" + "TOR"]), a_global()[1]


def a_dict_of_the_standard_library():
    config = collections.UserDict(factor=1.0)
    return reads(lambda: config["factor"]), lambda: config.update(factor=3.0)


def a_dict_of_a_class_of_its_own():
    class Config(dict):
        def number(self):
            return self["factor"] * self.unit

    config = Config(factor=1.0)
    config.unit = 1.0
    return reads(lambda: config.number()), lambda: (config.update(factor=1.5), setattr(config, "unit", 2.0))


def what_a_named_tuple_computes():
    table = {"unit": 1.0}

    class Config(NamedTuple):
        factor: float

        def number(self):
            return self.factor * table["unit"]

    config = Config(1.0)
    return reads(lambda: config.number()), lambda: table.update(unit=3.0)


def a_method_of_a_dict():
    config = {"factor": 1.0}
    get = config.get
    return reads(lambda: get("factor")), lambda: config.update(factor=3.0)


def an_array_of_objects():
    numbers = np.array([[1.0], [0.0]], dtype=object)
    return reads(lambda: numbers.sum()), lambda: numbers.__setitem__((1, 0), 2.0)


def an_array_of_python():
    numbers = array.array("d", [1.0])
    return reads(lambda: sum(numbers)), lambda: numbers.append(2.0)


def a_table():
    table = pd.DataFrame({"factor": [1.0, 2.0], "name": ["a", "b"]})
    return reads(lambda: float(table["factor"].iloc[0])), lambda: table.__setitem__("factor", [3.0, 2.0])


def a_table_in_place():
    table = pd.DataFrame({"factor": [1.0, 2.0], "name": ["a", "b"]})
    return reads(lambda: float(table["factor"].iloc[0])), lambda: table.iloc.__setitem__((0, 0), 3.0)


def a_variable_of_the_context():
    factor = contextvars.ContextVar("factor", default=1.0)
    return reads(lambda: factor.get()), lambda: factor.set(3.0)


def numbers_that_were_drawn():
    rng = np.random.default_rng(0)
    start = rng.bit_generator.state
    return reads(lambda: 1.0 if rng.bit_generator.state == start else 3.0), lambda: rng.random()


def the_end_of_a_long_chain():
    class Node:
        def __init__(self, then):
            self.then = then

    last = chain = Node(1.0)
    for _ in range(1_500):
        chain = Node(chain)

    def number():
        node = chain
        while isinstance(node, Node):
            node = node.then
        return node

    return reads(number), lambda: setattr(last, "then", 3.0)


def what_many_share():
    ends = shared = [1.0]
    for _ in range(60):
        shared = [shared, shared]

    def number():
        found = shared
        while isinstance(found, list):
            found = found[0]
        return found

    return reads(number), lambda: ends.__setitem__(0, 3.0)


CHANGES = [
    a_global, a_closed_over_number, a_closed_over_array, numpy_in_place, a_nested_dict, the_order_of_a_dict,
    what_a_dict_gives_by_default, another_dict_with_the_same_in_it, a_longer_list, a_set, a_flag,
    another_function, a_default_argument, an_argument_of_a_partial, a_module_of_python, a_dataclass, slots,
    the_attribute_of_a_method, a_class_attribute_that_an_object_hides, a_class_attribute, within_a_handler,
    a_module_that_is_imported_inside, a_module_that_is_imported_after_many_names, an_import_that_fails,
    a_module_that_is_called_like_a_library, an_attribute_of_a_module_by_its_name,
    an_attribute_of_a_class_by_its_name, pytest.param(a_global_by_its_name, marks=pytest.mark.slow), a_dict_of_the_standard_library, a_dict_of_a_class_of_its_own,
    what_a_named_tuple_computes, a_method_of_a_dict, an_array_of_objects, an_array_of_python, a_table, a_table_in_place,
    a_variable_of_the_context, numbers_that_were_drawn, the_end_of_a_long_chain, what_many_share,
]  # fmt: skip


@pytest.mark.parametrize("case", CHANGES, ids=lambda case: getattr(case, "__name__", None))
def test_what_changes_is_seen(case, engine):
    with on(engine):
        model, change = case()
        bound = engine.vi.objective(density, model, guide)
        params = {"loc": engine.array(0.5)}
        before = [float(bound.estimate(engine.key(seed), params)) for seed in range(2)]
        change()
        after = float(bound.estimate(engine.key(0), params))
        assert np.allclose(before, truth(1.0), atol=1e-5)
        assert np.allclose(after, truth(3.0), atol=1e-5)


RUNS = iter(range(10**6))


class Program:
    """A model that is a method of an object, of which it reads one attribute."""

    def __init__(self):
        self.factor = 1.0
        self.losses = []

    def model(self):
        next(RUNS)
        reads(lambda: self.factor)()


def test_only_what_is_read_is_looked_at(engine):
    """Another loss in a list changes nothing; nor is a program staged again for what it has been staged for."""
    program = Program()
    with on(engine):
        bound = engine.vi.objective(density, program.model, guide)
        params = bound.init(engine.key(0))

        def runs(factor):
            before = next(RUNS)
            program.factor = factor
            program.losses.append(float(bound.estimate(engine.key(0), params)))
            return next(RUNS) - before - 1

        assert [runs(factor) > 0 for factor in (1.0, 1.0, 3.0, 3.0, 1.0, 3.0)] == [
            True,
            False,
            True,
            False,
            False,
            False,
        ]
        assert np.allclose(program.losses[-2:], [truth(1.0), truth(3.0)], atol=1e-5)


class Held:
    factor = 1.0


def test_worlds_that_are_gone_are_forgotten(engine):
    program = Program()
    with on(engine):
        bound = engine.vi.objective(density, lambda: reads(lambda: program.factor.factor)(), guide)
        program.factor = Held()
        params, first = bound.init(engine.key(0)), weakref.ref(program.factor)

        def anneal():
            for i in range(12):
                program.factor = Held()
                program.factor.factor = float(i)
                assert abs(float(bound.estimate(engine.key(0), params)) - truth(i)) < 1e-4

        with pytest.warns(UserWarning, match=r"program\.factor") as warned:
            anneal()
        assert [warning.filename for warning in warned] == ["tests/laws/test_world.py"]
        gc.collect()
        assert first() is None


def test_a_program_may_change_what_it_reads(engine):
    """Pyro runs a program for every gradient, and JAX traces it once."""
    program = Program()

    def model():
        program.factor += 1.0
        program.model()

    with on(engine):
        bound = engine.vi.objective(density, model, guide)
        params = bound.init(engine.key(0))
        values, numbers = [], []
        for _ in range(3):
            values.append(float(bound.estimate(engine.key(0), params)))
            numbers.append(program.factor)
        assert (len(set(numbers)) == 3) == (engine.name == "Pyro")
        assert np.allclose(values, [truth(number) for number in numbers], atol=1e-4)


COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy}


def model_of_one():
    reads(float)()


@pytest.mark.parametrize("made", COPIES)
def test_a_copy_of_what_was_used_is_as_good(made, engine):
    """In a process of its own, say."""
    with on(engine):
        bound, params = engine.vi.objective(density, model_of_one, guide), {"loc": engine.array(0.5)}
        value = float(bound.estimate(engine.key(0), params))
        assert float(COPIES[made](bound).estimate(engine.key(0), params)) == value


def test_an_objective_is_pickled_after_its_use():
    bound, params = NUMPYRO.vi.objective(density, model_of_one, guide), {"loc": NUMPYRO.array(0.5)}
    value = float(bound.estimate(NUMPYRO.key(0), params))
    assert float(pickle.loads(pickle.dumps(bound)).estimate(NUMPYRO.key(0), params)) == value


# What is kept ---------------------------------------------------------------------------------------------------------------


class Kept:
    """What is made of a call in these laws."""

    def holds(self):
        return True

    def uses(self, array):
        return True


def test_kinds_of_calls_are_bounded():
    """Those that were used last are kept, and a program that runs through more of them is worth a word."""
    made, stagings = [], Stagings(lambda constants: World(), lambda: "caller.py:7")

    def get(kind):
        def make(world):
            made.append(kind)
            return Kept()

        return stagings.get(kind, Constants(), make)

    for kind in range(KINDS + 1):
        get(0)
        get(kind)
    assert made == list(range(KINDS + 1))
    get(0)
    assert made[-1] == KINDS
    get(1)
    assert made[-1] == 1
    with pytest.warns(UserWarning, match="more than 64 kinds of arguments") as warned:
        list(map(get, range(100, 120)))
    assert [(warning.filename, warning.lineno) for warning in warned] == [("caller.py", 7)]


def test_threads_that_come_together_make_one_staging():
    made, stagings = [], Stagings(lambda constants: World(), lambda: "caller.py:7")

    def make(world):
        time.sleep(0.05)
        made.append(world)
        return Kept()

    threads = [threading.Thread(target=stagings.get, args=("kind", Constants(), make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


SHAPES = {
    "rows": lambda x: x.reshape(-1, 64),
    "columns": lambda x: x.reshape(-1, 64).T,
    "every other": lambda x: x.reshape(-1, 64)[:, ::2],
    "a few long rows": lambda x: x.reshape(3, -1),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [BLOCK // 64, BLOCK])
def test_what_is_in_a_large_array_is_compared_in_parts(shape, size):
    """Other data are seen at once, one number at the latest when every part has had its turn."""
    array = SHAPES[shape](np.arange(3.0 * size))
    content, calls = Content(array), array.nbytes // BLOCK + 1
    assert all(content.is_current() for _ in range(2 * calls))
    array += 1.0
    assert not content.is_current()
    array -= 1.0
    array[-1, -2] += 1.0
    assert not all(content.is_current() for _ in range(calls + 1))


def test_an_array_that_nobody_can_write_to_is_not_copied():
    array = np.ones(BLOCK)
    array.flags.writeable = False
    content = Content(array)
    assert content.copy is array
    assert content.is_current()
    assert Content(np.ones(BLOCK)[1:]).copy.base is None
    array.flags.writeable = True
    assert not content.is_current()


def test_modes_of_pytorch_are_part_of_the_world():
    before, found = modes(), set()
    for mode in (torch.device("meta"), torch.autocast("cpu"), torch.autocast("cpu", torch.float16)):
        with mode:
            found.add(modes())
    assert len(found | {before}) == 4
    assert modes() == before
