"""How costs grow: what is by hand in `benchmarks.growth` is the same bound, slopes are those of lines, and records are whole."""

import json
import math

import jax
import numpy as np
import pytest

from benchmarks import growth, growth_pages, growth_peers
from benchmarks.growth import CASES
from benchmarks.growth_pages import Key, Slope, seconds_table, slope

DRAWS = 2_000


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.made], ids=lambda case: case.axis)
def test_by_hand_is_the_same_bound(case):
    """In value and in the sums of gradients: means of draws, 1e-6 for a false alarm; biases of half an sd would be seen."""
    keys, found = jax.random.split(jax.random.key(1), DRAWS), {}
    for name, (function, args) in case.made(max(case.sizes[0], 3)).items():
        value, grads = jax.jit(jax.vmap(function, (0,) + (None,) * (len(args) - 1)))(keys, *args[1:])
        sums = [np.asarray(x, np.float64).reshape(DRAWS, -1).sum(1) for x in (value, *map(grads.get, sorted(grads)))]
        found[name] = [(x.mean(), x.std() / math.sqrt(DRAWS)) for x in sums]
    mine = found.pop("ppvi")
    for theirs in found.values():
        for (a, one), (b, other) in zip(mine, theirs, strict=True):
            assert abs(a - b) < 6.5 * math.hypot(one, other) + 1e-4 * (1 + abs(a))


def test_one_axis_is_measured_at_its_two_smallest_sizes(tmp_path, monkeypatch, capsys):
    """And is drawn, and not measured again."""
    for name in ("FILE", "FIGURE", "HERE"):
        monkeypatch.setattr(growth_pages, name, tmp_path / {"FILE": "x.jsonl", "FIGURE": "x.png", "HERE": ""}[name])
    monkeypatch.setattr(growth, "FILE", tmp_path / "x.jsonl")
    monkeypatch.setattr(growth, "SECONDS", 0.01)
    (tmp_path / "RESULTS.md").write_text(f"before {growth_pages.BEGIN} old {growth_pages.END} after")
    monkeypatch.setattr("sys.argv", ["growth", "lanes, Enumerate", "--largest", "3e3"])
    assert growth.main() == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [(line["axis"], line["size"]) for line in lines] == [("lanes, Enumerate", n) for n in (1_000, 3_000)]
    for line in lines:
        for who in ("ppvi", "by hand"):
            run = line[who]
            assert min(run["seconds"], run["compiled"], run["traced"], run["temporary"]) > 0
            assert run["bytes"] - run["temporary"] == pytest.approx(12 * line["size"], rel=0.01)  # x, logits, gradient
        assert line["least"] <= line["ratio"] <= line["most"]
    page = (tmp_path / "RESULTS.md").read_text()
    assert (page[:7], page[-6:], "old" in page) == ("before ", " after", False)
    assert "| lanes, Enumerate | 1,000 to 3,000 |" in page
    assert (tmp_path / "x.png").stat().st_size > 0
    assert growth.main() == 0
    assert capsys.readouterr().out == ""


def test_slopes_are_those_of_the_upper_half():
    sizes = [1, 10, 100, 1_000, 10_000]
    assert slope(sizes, [5, 5, 1e-4, 1e-2, 1.0]) == pytest.approx(Slope(2.0, 0.0), abs=1e-12)
    bent = slope(sizes, [0, 0, math.exp(0.1), 10 * math.exp(-0.2), 100 * math.exp(0.1)])
    assert bent == pytest.approx(Slope(1.0, math.sqrt(0.06 / (2 * math.log(10) ** 2))))
    assert str(slope([1, 2], [1.0, 2.0])) == ""


def test_the_largest_ratio_is_told_with_its_size():
    def run(ours, theirs):
        return {"ppvi": {"seconds": ours}, "by hand": {"seconds": theirs}, "ratio": ours / theirs}

    told = seconds_table({"lanes": [(10, run(1e-3, 1e-3)), (100, run(3e-3, 1e-3)), (1_000, run(1e-1, 1e-1))]})
    assert told.splitlines()[-1].endswith("| 100 ms | 1.00 | 3.00 at 100 |")


def test_sizes_have_one_digit():
    assert growth.decades(10, 1e3) == [10, 30, 100, 300, 1000]
    assert growth.decades(100, 1e4, 1) == [100, 1000, 10_000]


def test_an_axis_ends_where_it_is_slow_or_large():
    quick = {"ppvi": {"seconds": 1.0, "compiled": 5.0}, "by hand": {"seconds": 1.0}}
    slow = {"ppvi": {"seconds": 1.0, "compiled": 5.0}, "by hand": {"seconds": 61.0}}
    assert [growth.is_last(x) for x in (quick, slow, quick | {"error": "more than 6 GB"})] == [False, True, True]


def test_bytes_moved_are_read_from_the_program():
    text = """
      %all-reduce.1 = f32[20]{0} all-reduce(%x), replica_groups={{0,1}}
      %all-reduce-start = (f32[], f32[3,4]{1,0}) all-reduce(%y, %z), channel_id=1
      %add = f32[5]{0} add(%all-reduce.1, %x)
      ROOT %g = bf16[8]{0} all-gather(%v), dimensions={0}
    """
    assert list(growth_peers.moved(text)) == [("all-reduce", 80), ("all-reduce", 52), ("all-gather", 16)]


def test_records_of_the_repository_are_of_axes_that_there_are():
    records = growth_pages.Records.read(growth_pages.FILE, Key)
    sizes = {case.axis: case.sizes for case in CASES}
    assert records
    assert all(key.size in sizes[key.axis] for key in records)
