"""From files to the arguments of a model."""

import numpy as np
import pytest
import xarray as xr

from ppvi.cli.arguments import arguments_of
from ppvi.cli.failures import InputError
from ppvi.cli.tables import read
from ppvi.cli.words import call, pairs, rule, strategy, value_of
from ppvi.engine._arviz import Variable, data_of, dataset, saved
from ppvi.stopping import Converged, Plateau, TimeLimit
from ppvi.strategies import Enumerate, LeaveOneOut


def values(model, columns, settings=None, made_of=None, factors=()):
    return arguments_of(model, columns, settings or {}, made_of or {}, factors)


@pytest.mark.parametrize(
    "text",
    [
        "x,n,yes,name\n0.5,1,TRUE,a b\n-2e3,2,FALSE,c\n",
        "x;n;yes;name\n0.5;1;true;a b\n-2e3;2;false;c\n",
        "x\tn\tyes\tname\n0.5\t1\tTrue\ta b\n-2e3\t2\tFalse\tc\n",
        '\ufeffx,n,yes,name\n0.5, 1, TRUE,"a b"\n\n-2e3, 2, FALSE,"c"\n',
    ],
    ids=["commas", "semicolons", "tabs", "as Windows writes it"],
)
def test_csv(text, tmp_path):
    """Real, whole and logical numbers, and texts."""
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    found = read([str(tmp_path / "a.csv")])
    assert found["x"].values.tolist() == [0.5, -2000.0]
    assert found["x"].values.dtype == np.float64
    assert found["n"].values.tolist() == [1, 2]
    assert found["n"].values.dtype == np.int64
    assert found["yes"].values.tolist() == [1, 0]
    assert found["name"].values.tolist() == ["a b", "c"]


def test_names_with_underscores_are_no_numbers(tmp_path):
    """Python reads 1_2 as twelve."""
    (tmp_path / "a.csv").write_text("1_1,1_2\n1_1,1_2\n1_2,1_3\n")
    found = read([str(tmp_path / "a.csv")])
    assert {name: x.values.tolist() for name, x in found.items()} == {"1_1": ["1_1", "1_2"], "1_2": ["1_2", "1_3"]}


def test_the_line_of_what_is_missing(tmp_path):
    """Lines are those of an editor, with empty ones and cells of several lines."""
    (tmp_path / "a.csv").write_text('x,s\n1,"two\nlines"\n\n,b\n')
    with pytest.raises(InputError, match="'x' has 1 missing of 2 values, the first at line 5"):
        values(lambda x: None, read([str(tmp_path / "a.csv")]))


def test_arviz_data(tmp_path):
    """The data of a file of draws, and not its draws."""
    groups = {"observed_data": "y", "constant_data": "x", "posterior": "a"}
    made = {
        group: dataset({name: Variable((f"{name}_row",), np.arange(3.0))}, {}, {}) for group, name in groups.items()
    }
    saved(data_of(made, {}), tmp_path / "a.nc")
    assert sorted(read([str(tmp_path / "a.nc")])) == ["x", "y"]


def test_sites_with_a_slash_are_written(tmp_path):
    draws = {"net/w": Variable(("chain", "draw", "net/w_dim_0"), np.arange(6.0).reshape(1, 3, 2))}
    saved(data_of({"posterior": dataset(draws, {}, {})}, {}), tmp_path / "a.nc")
    found = xr.open_dataset(tmp_path / "a.nc", group="posterior", engine="h5netcdf")
    assert list(found.data_vars) == ["net.w"]


def test_sites_that_would_be_one_without_their_slashes_stay_two(tmp_path):
    sites = {"a/b": 2, "a.b": 3, "a.b_": 4}
    draws = {x: Variable(("chain", "draw", f"{x}_dim_0"), np.full((1, 3, n), n)) for x, n in sites.items()}
    saved(data_of({"posterior": dataset(draws, {}, {})}, {}), tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc", group="posterior", engine="h5netcdf") as found:
        assert {str(x): found[x].shape for x in found.data_vars} == {
            "a.b": (1, 3, 3),
            "a.b_": (1, 3, 4),
            "a.b__": (1, 3, 2),
        }


COLUMNS = {
    "height": [1.0, 2.0, 3.0],
    "weight": [4.0, 5.0, 6.0],
    "group": ["b", "a", "b"],
}


@pytest.fixture
def columns(tmp_path):
    rows = zip(*COLUMNS.values(), strict=True)
    (tmp_path / "a.csv").write_text("\n".join([",".join(COLUMNS), *(",".join(map(str, row)) for row in rows)]))
    return read([str(tmp_path / "a.csv")])


def test_a_matrix_of_columns(columns):
    found = values(lambda matrix, y: None, columns, made_of={"matrix": "height,weight", "y": "height"})
    np.testing.assert_array_equal(found.values["matrix"], np.stack([COLUMNS["height"], COLUMNS["weight"]], 1))
    np.testing.assert_array_equal(found.values["y"], COLUMNS["height"])
    assert found.unused == ("group",)


def test_texts_are_coded_in_alphabetical_order(columns):
    found = values(lambda group: None, columns, factors=["group"])
    assert found.values["group"].tolist() == [1, 0, 1]
    assert found.levels == {"group": ["a", "b"]}
    assert "group: 0 = a, 1 = b" in str(found)


def test_settings(columns):
    settings = {
        name: value_of(x) for name, x in pairs("--set", ["k=3", "s=0.5", "v=[1, 2]", "f=poisson", "b=true"]).items()
    }
    found = values(lambda k, s, v, f, b: None, {}, settings)
    assert (found.values["k"], found.values["s"], found.values["f"], found.values["b"]) == (3, 0.5, "poisson", True)
    np.testing.assert_array_equal(found.values["v"], [1, 2])


def test_a_model_of_anything_gets_all(columns):
    numbers = {name: columns[name] for name in ("height", "weight")}
    assert sorted(values(lambda **data: None, numbers).values) == ["height", "weight"]


def test_defaults_may_be_left_out(columns):
    assert sorted(values(lambda height, sigma=1.0, *, obs=None: None, columns).values) == ["height"]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("converged", Converged()),
        ("plateau", Plateau()),
        ("plateau:500", Plateau(500)),
        ("plateau:window=500,errors=2", Plateau(500, 2)),
        ("90s", TimeLimit(90.0)),
        ("1.5h", TimeLimit(5400.0)),
    ],
)
def test_rules(text, made):
    assert rule(text) == made


@pytest.mark.parametrize("text", ["1.2.3s", ".s", "soon", "converged:1,2,3,4,5,6,7"])
def test_what_is_no_rule(text):
    with pytest.raises(InputError, match="--until"):
        rule(text)


def test_strategies():
    assert strategy("Enumerate") == Enumerate()
    assert strategy("Enumerate:sequential=true") == Enumerate(sequential=True)
    assert strategy("LeaveOneOut:4") == LeaveOneOut(4)


def test_calls():
    assert call("renyi:0.5,10") == ("renyi", [0.5, 10], {})
    assert call("f_divergence:hellinger") == ("f_divergence", ["hellinger"], {})
    assert call("elbo") == ("elbo", [], {})


def test_arrays_have_the_byte_order_of_the_machine(tmp_path):
    """PyTorch takes no others."""
    np.savez(tmp_path / "a.npz", x=np.arange(3.0).astype(">f8"), n=np.arange(3).astype(">i4"))
    found = values(lambda x, n: None, read([str(tmp_path / "a.npz")])).values
    assert all(x.dtype.isnative and x.tolist() == [0, 1, 2] for x in found.values())


def test_settings_are_said_with_their_values():
    """A text where a number is meant is to be seen."""
    assert str(values(lambda sigma, knots: None, {}, {"sigma": "O.5", "knots": [1, 2]})) == "sigma = 'O.5', knots (2)"
