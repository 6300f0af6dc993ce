"""Data are what they are said to be, whatever way they come; where they are absent the tests of them skip."""

import collections
import gzip
import hashlib
import io
import pickle

import numpy as np
import pytest

from models import datasets, generated


def test_content_that_is_other_is_refused():
    with pytest.raises(ValueError, match="it is other data, or damaged"):
        datasets.verified("rows", b"ab", "0" * 64)


def test_the_order_of_rows_is_no_matter():
    sha256 = "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603"
    for content in (b"ab", b"ba"):
        assert datasets.verified("rows", content, sha256, lambda x: (x[i : i + 1] for i in range(2))) == content


def test_what_is_not_at_hand_is_fetched_once(tmp_path, monkeypatch):
    """From the source, here a file of the same machine, into the cache; after that the source may be gone."""
    monkeypatch.setenv("PPVI_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source.gz"
    source.write_bytes(gzip.compress(b"digits"))
    for _ in range(2):
        assert datasets.fetched(source.as_uri(), "some/file", gzip.decompress).read_bytes() == b"digits"
        source.unlink(missing_ok=True)
    assert [path.name for path in (tmp_path / "cache" / "some").iterdir()] == ["file"]


@pytest.mark.parametrize("damage", [lambda x: x[:-9], lambda x: b"no archive", lambda x: gzip.compress(b"other")])
def test_a_damaged_copy_in_the_cache_is_fetched_anew(damage, tmp_path, monkeypatch):
    monkeypatch.setenv("PPVI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PPVI_DATA", "/nowhere")
    source, sha256 = tmp_path / "source.gz", hashlib.sha256(b"digits").hexdigest()
    source.write_bytes(gzip.compress(b"digits"))
    kept = datasets.cached("file.gz")
    kept.parent.mkdir()
    kept.write_bytes(damage(source.read_bytes()))
    for _ in range(2):
        assert datasets.content("file.gz", source.as_uri(), sha256, decode=gzip.decompress) == b"digits"
        source.unlink(missing_ok=True)


def test_what_the_source_has_otherwise_is_refused_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("PPVI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PPVI_DATA", "/nowhere")
    (tmp_path / "source").write_bytes(b"other")
    with pytest.raises(ValueError, match="it is other data, or damaged"):
        datasets.content("file", (tmp_path / "source").as_uri(), "0" * 64)
    assert not datasets.cached("file").exists()


def test_rows_of_digits_are_packed():
    rows = np.random.default_rng(0).integers(0, 2, (3, 784))
    text = "\n".join(" ".join(map(str, row)) for row in rows).encode()
    packed = np.frombuffer(datasets._packed_rows(text), np.uint8).reshape(3, 98)
    np.testing.assert_array_equal(np.unpackbits(packed, axis=1), rows)


def test_shapes_are_made_alike_each_time():
    first, again = generated.binary_shapes(5, seed=1), generated.binary_shapes(5, seed=1)
    np.testing.assert_array_equal(first, again)
    assert set(np.unique(first)) == {0, 1}
    assert first.shape == (5, 784)


def test_quick_runs_need_no_download(monkeypatch):
    monkeypatch.setenv("PPVI_DATA", "/nowhere")
    assert [part.shape for part in generated.binary_images(False, 6, test=4)] == [(6, 784), (4, 784), (4, 784)]


def test_static_mnist():
    if not datasets.held("static_mnist"):
        pytest.skip("there is no static_mnist in the folder PPVI_DATA")
    splits = datasets.static_mnist()
    assert [part.shape for part in splits] == [(50_000, 784), (10_000, 784), (10_000, 784)]
    assert set(np.unique(splits.test)) == {0, 1}
    assert abs(splits.train.mean() - 0.1307) < 0.001  # the mean of MNIST's pixels, from 0 to 1


def test_mnist():
    if not datasets.held("mnist"):
        pytest.skip("there is no mnist in the folder PPVI_DATA")
    images, labels = datasets.mnist("t10k")
    assert images.shape == (10_000, 28, 28)
    assert sorted(set(labels)) == list(range(10))


@pytest.mark.parametrize(
    ("name", "nodes", "features", "edges"), [("cora", 2708, 1433, 5278), ("citeseer", 3327, 3703, 4552)]
)
def test_planetoid(name, nodes, features, edges):
    if not datasets.held("planetoid"):
        pytest.skip("there is no planetoid in the folder PPVI_DATA")
    graph = datasets.planetoid(name)
    assert graph.features.shape == (nodes, features)
    assert graph.edges.shape == (edges, 2)
    assert (graph.edges[:, 0] < graph.edges[:, 1]).all()


def test_subjects_of_papers():
    """Papers cite their own subject: four in five citations, as everybody finds on Cora."""
    if not datasets.held("planetoid"):
        pytest.skip("there is no planetoid in the folder PPVI_DATA")
    label = datasets.cora_labels()
    assert np.bincount(label).tolist() == [351, 217, 418, 818, 426, 298, 180]
    first, second = label[datasets.planetoid("cora").edges.T]
    assert abs((first == second).mean() - 0.81) < 0.005


def test_a_pickle_makes_nothing_but_matrices_and_lists():
    with pytest.raises(ValueError, match=r"no collections\.OrderedDict"):
        datasets._Planetoid(io.BytesIO(pickle.dumps(collections.OrderedDict(), protocol=2))).load()


def test_hidden_edges():
    """Are no longer known; the other pairs are none."""
    graph = generated.communities(60)
    known, hidden, none = datasets.hide_edges(graph, seed=0)
    all_edges, apart = set(map(tuple, graph.edges)), [set(map(tuple, x)) for x in (known.edges, hidden, none)]
    assert apart[0] | apart[1] == all_edges
    assert not apart[0] & apart[1]
    assert not apart[2] & all_edges
    assert len(apart[2]) == len(hidden) == round(0.1 * len(all_edges))


def test_movielens():
    if not datasets.held("movielens_small"):
        pytest.skip("there is no movielens_small in the folder PPVI_DATA")
    ratings = datasets.movielens_small()
    assert len(ratings.stars) == 100_836
    assert (ratings.user.max(), ratings.item.max()) == (609, 9723)
    assert set(ratings.stars) == set(np.arange(0.5, 5.5, 0.5))


@pytest.mark.parametrize(("kind", "turn"), [("circle", True), ("torus", False), ("sphere", True), ("rotations", True)])
def test_things_that_turn_come_back(kind, turn):
    """By a whole turn to the same picture; by a small one to another, the nearer the smaller the turn."""
    (one, near), (_, nearer), (_, back) = (generated.turned(kind, 20, apart=by) for by in (0.1, 0.05, 2 * np.pi))
    far, less = (np.linalg.norm(other - one, axis=1) for other in (near, nearer))
    assert (far > 0.02).all()
    np.testing.assert_allclose(far / less, 2, rtol=0.1)
    if turn:
        np.testing.assert_allclose(back, one, atol=1e-6)


def test_words_within_reach_of_one_another():
    found = datasets.within_reach("peace and war and peace".split(), {"peace": 0, "war": 1}, window=3)
    assert found.tolist() == [[0, 2], [2, 0]]
    assert datasets.within_reach("peace and war and peace".split(), {"peace": 0, "war": 1}).tolist() == [[2, 2], [2, 0]]


def test_diabetes():
    if not datasets.held("diabetes"):
        pytest.skip("there is no diabetes in the folder PPVI_DATA")
    x, y = datasets.diabetes()
    assert x.shape == (442, 10)
    assert (y.min(), y.max()) == (25, 346)


def test_standardised_by_what_is_learned_from():
    rng = np.random.default_rng(0)
    x, y, new, answer = datasets.standardised(1, rng.normal(3, 2, (50, 2)), rng.normal(5, 1, 50))
    assert (len(x), len(new), len(answer)) == (40, 10, 10)
    np.testing.assert_allclose([x.mean(0), x.std(0)], [[0, 0], [1, 1]], atol=1e-5)
    np.testing.assert_allclose([y.mean(), y.std()], [0, 1], atol=1e-5)


def test_swissmetro():
    """Nine choices of each, one after another."""
    if not datasets.held("choice"):
        pytest.skip("there is no choice in the folder PPVI_DATA")
    data = datasets.swissmetro()
    assert len(data["CHOICE"]) == 10_728
    assert (data["ID"].reshape(-1, 9) == np.arange(1, 1193)[:, None]).all()
    assert set(data["CHOICE"]) == {0, 1, 2, 3}


def test_cell_lines():
    if not datasets.held("single_cell"):
        pytest.skip("there is no single_cell in the folder PPVI_DATA")
    counts = datasets.cell_lines()
    assert counts.shape == (274, 28204)
    assert counts.min() == 0
    assert counts.sum(1).min() > 5000
