"""Data that are made here: samples with which quick runs need no download, and data of which the truth is known."""

from collections.abc import Callable

import numpy as np
import scipy.sparse

from models.datasets import Graph, Ratings, Splits, in_two_colours, mnist, static_mnist


def shapes(n: int, seed: int | np.random.Generator = 0) -> np.ndarray:
    """Circles, squares, triangles and crosses, drawn like digits: `(n, 28, 28)` of 0 to 255."""
    return labelled_shapes(n, seed)[0]


def labelled_shapes(n: int, seed: int | np.random.Generator = 0) -> tuple[np.ndarray, np.ndarray]:
    """The same, and which of the four they are."""
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(seed)
    drawn = np.zeros((n, 28, 28), np.uint8)
    kinds = rng.integers(0, 4, n)
    for i, kind in enumerate(kinds):
        picture = Image.new("L", (28, 28))
        draw, (x, y), r = ImageDraw.Draw(picture), rng.uniform(13, 15, 2), rng.uniform(7, 10)
        box = (x - r, y - r, x + r, y + r)
        if kind == 0:
            draw.ellipse(box, outline=255, width=3)
        elif kind == 1:
            draw.rectangle(box, outline=255, width=3)
        elif kind == 2:
            draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], outline=255, width=3)
        else:
            draw.line((x - r, y, x + r, y), 255, 3)
            draw.line((x, y - r, x, y + r), 255, 3)
        drawn[i] = np.asarray(picture)
    return drawn, kinds


def binary_shapes(n: int, seed: int = 0) -> np.ndarray:
    """The same in black and white, `(n, 784)` of zeros and ones."""
    return (shapes(n, seed).reshape(n, 784) > 127).astype(np.float32)


def binary_images(full: bool, n: int = 300, test: int = 50) -> Splits:
    """Static MNIST for full runs, and so many shapes for quick ones."""
    return static_mnist() if full else Splits(binary_shapes(n), binary_shapes(test, 1), binary_shapes(test, 2))


def communities(nodes: int, groups: int = 4, degree: float = 8.0, words: int = 40, seed: int = 0) -> Graph:
    """A sample for quick runs: nodes of some groups have nine in ten neighbours, and most words, within their group."""
    rng = np.random.default_rng(seed)
    group = _groups_of(rng, nodes, groups)
    same = group[:, None] == group
    chance = degree * np.where(same, 0.9 * groups, 0.1 * groups / (groups - 1)) / nodes
    edges = np.argwhere(np.triu(rng.random((nodes, nodes)) < chance, 1))
    own = np.arange(words) % groups == group[:, None]
    return Graph(scipy.sparse.csr_matrix(rng.random((nodes, words)) < np.where(own, 0.3, 0.1), dtype=np.float32), edges)


def ratings_by_taste(users: int, items: int, tastes: int = 5, each: int = 30, seed: int = 0) -> Ratings:
    """A sample for quick runs: everybody rates `each` items, of two tastes of their own mostly, and likes them all."""
    rng = np.random.default_rng(seed)
    loved = rng.dirichlet(np.full(items, 0.1), tastes)
    chances = (0.9 * loved[rng.integers(0, tastes, (users, 2))].mean(1)) + 0.1 / items
    item = np.concatenate([rng.choice(items, each, replace=False, p=p) for p in chances])
    return Ratings(np.repeat(np.arange(users), each), item, np.full(users * each, 5.0))


FACTORS = ("x", "y", "size", "angle")
"""What an ellipse is made of."""


def ellipses(n: int, seed: int = 0, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """White ellipses, twice as long as wide, `(n, side * side)` of zeros and ones, and their factors, `(n, 4)`, which are
    independent and uniform: place of the centre and length in parts of the side, and angle within 45 degrees of level.
    """
    rng = np.random.default_rng(seed)
    factors = rng.uniform([0.3, 0.3, 0.12, -np.pi / 4], [0.7, 0.7, 0.25, np.pi / 4], (n, 4))
    x, y, size, angle = factors.T[..., None]
    down, right = (np.indices((side, side)).reshape(2, -1) + 0.5) / side
    along = (right - x) * np.cos(angle) + (down - y) * np.sin(angle)
    across = (down - y) * np.cos(angle) - (right - x) * np.sin(angle)
    return ((along**2 + 4 * across**2) < size**2).astype(np.float32), factors.astype(np.float32)


def curved(n: int, factors: int, outputs: int = 40, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """Points of a curved surface with so many dimensions, `(n, outputs)`, and noise about it. The surface is the same for all
    seeds: a network with a hidden layer of 64 units, of Gaussian factors that all count alike.
    """
    fixed, rng = np.random.default_rng(factors), np.random.default_rng(seed)
    inward, outward = fixed.normal(size=(factors, 64)) / np.sqrt(factors), fixed.normal(size=(64, outputs)) / 8
    drawn = np.tanh(1.5 * rng.normal(size=(n, factors)) @ inward) @ outward
    return (drawn + noise * rng.normal(size=(n, outputs))).astype(np.float32)


def said_by_topic(n: int, topics: int = 6, vocabulary: int = 40, longest: int = 12, seed: int = 0) -> np.ndarray:
    """A sample for quick runs, as `phrases` has them: of each topic's own words mostly."""
    rng = np.random.default_rng(seed)
    own = rng.integers(2, vocabulary, (topics, 5))[rng.integers(0, topics, n)]
    drawn = np.take_along_axis(own, rng.integers(0, 5, (n, longest + 1)), 1)
    return np.where(np.arange(longest + 1) < rng.integers(4, longest + 1, (n, 1)), drawn, 0).astype(np.int32)


def turned(kind: str, n: int, seed: int = 0, side: int = 12, apart: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of a thing in all its positions: `(n, pixels)` of 0 to about 1, and of each another, so far `apart`.

    **Arguments**

    - `kind`: "circle", spots that shift along a strip which closes; "torus", the same in both directions; "sphere", a lamp on a
      ball that turns, seen from in front and from behind, side by side; "rotations", two lamps, of which one is brighter.
    """
    rng, thing = np.random.default_rng(seed), np.random.default_rng(7)
    spots, weight = thing.uniform(-1, 1, (5, 3)), np.array([1.0, 0.7, 0.4, 0.9, 0.6])
    grid = (np.arange(side) + 0.5) / side * 2 - 1

    def picture(
        x: np.ndarray, y: np.ndarray, weight: np.ndarray, width: float, gap: Callable = np.subtract
    ) -> np.ndarray:
        down, along = (np.exp(-(gap(grid, at[..., None]) ** 2) / (2 * width**2)) for at in (y, x))
        return np.einsum("ns,nsi,nsj->nij", weight, down, along).reshape(n, -1)

    if kind in ("circle", "torus"):

        def shifted(shift: np.ndarray) -> np.ndarray:
            x, y = (spots[None, :, i] + shift[:, None, i] / np.pi for i in (0, 1))
            return picture(x, y, np.tile(weight, (n, 1)), 0.35, lambda a, b: (a - b + 1) % 2 - 1)

        shift = rng.uniform(-np.pi, np.pi, (n, 2)) * ([1, 0] if kind == "circle" else [1, 1])
        way = rng.normal(size=(n, 2)) * ([1, 0] if kind == "circle" else [1, 1])
        return shifted(shift), shifted(shift + apart * way / np.linalg.norm(way, axis=1, keepdims=True))

    def seen(pose: np.ndarray) -> np.ndarray:
        at = pose.swapaxes(1, 2)[:, : 1 if kind == "sphere" else 2]
        front = weight[: at.shape[1]] / (1 + np.exp(-4 * at[..., 2]))
        views = (front, at[..., 0]), (weight[: at.shape[1]] - front, -at[..., 0])
        return np.concatenate([picture(x, at[..., 1], shown, 0.35) for shown, x in views], 1)

    from scipy.spatial.transform import Rotation

    pose, way = Rotation.random(n, rng), rng.normal(size=(n, 3)) * ([1, 1, 1] if kind == "rotations" else [0, 1, 1])
    small = Rotation.from_rotvec(apart * way / np.linalg.norm(way, axis=1, keepdims=True))
    return seen(pose.as_matrix()), seen((pose * small).as_matrix())


def smooth(
    n: int, inputs: int = 2, lengthscale: float = 0.5, noise: float = 0.3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A function drawn from a Gaussian process, with a Matérn kernel of order 3/2 and a variance of 1, at points `(n, inputs)`
    within 1 of zero, and noise about it, `(n,)`.
    """
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, inputs))
    r = np.sqrt(3) * np.linalg.norm(x[:, None] - x, axis=2) / lengthscale
    y = np.linalg.cholesky((1 + r) * np.exp(-r) + 1e-8 * np.eye(n)) @ rng.normal(size=n) + noise * rng.normal(size=n)
    return x.astype(np.float32), y.astype(np.float32)


SURFACES = {"disc": (1.0, 0.0), "sphere": (1.0, 0.0), "torus": (1.0, 0.4)}
"""Radius, and that of the tube."""


def surface(kind: str, n: int, seed: int = 0, noise: float = 0.01) -> np.ndarray:
    """Points `(n, 3)` that lie evenly on a disc, a sphere or a torus, and noise about it."""
    rng, (radius, tube) = np.random.default_rng(seed), SURFACES[kind]
    if kind == "sphere":
        found = rng.normal(size=(n, 3))
        found *= radius / np.linalg.norm(found, axis=1, keepdims=True)
    elif kind == "disc":
        angle, out = rng.uniform(-np.pi, np.pi, n), radius * rng.uniform(size=n) ** 0.5
        found = np.stack([out * np.cos(angle), out * np.sin(angle), 0 * out], 1)
    else:  # a turn about the tube is as likely as it is long there
        turns, chance = rng.uniform(-np.pi, np.pi, (3 * n + 100, 2)), rng.uniform(size=3 * n + 100)
        (a, b), out = turns[chance < (radius + tube * np.cos(turns[:, 1])) / (radius + tube)][:n].T, 0.0
        out = radius + tube * np.cos(b)
        found = np.stack([out * np.cos(a), out * np.sin(a), tube * np.sin(b)], 1)
    return (found + noise * rng.normal(size=found.shape)).astype(np.float32)


def nearest_on_surface(kind: str, x: np.ndarray) -> np.ndarray:
    """The point of such a surface that is nearest to each of `(n, 3)`."""
    x, (radius, tube) = np.asarray(x, np.float64), SURFACES[kind]
    if kind == "sphere":
        return radius * x / np.linalg.norm(x, axis=1, keepdims=True)
    level = x * [1, 1, 0]
    out = np.linalg.norm(level, axis=1, keepdims=True)
    if kind == "disc":
        return level * np.minimum(1, radius / out)
    ring = radius * level / out
    return ring + tube * (x - ring) / np.linalg.norm(x - ring, axis=1, keepdims=True)


def walk_on_surface(kind: str, x: np.ndarray, a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where points `(n, 3)` of such a surface are after 300 steps down |a x - y|^2 / 2 on it; each has its own measurement."""
    for _ in range(300):
        x = nearest_on_surface(kind, x - 0.1 * np.einsum("nij,ni->nj", a, np.einsum("nij,nj->ni", a, x) - y))
    return x


def two_places(full: bool, train: int, test: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Digits (or shapes, for quick runs) and labels of a source and a target, and new ones of both. At the source pictures
    of the lower half of the labels are red and the others green, at the target the other way round.
    """
    drawn = (mnist(), mnist("t10k")) if full else (labelled_shapes(2 * train), labelled_shapes(test, 1))

    def place(images: np.ndarray, labels: np.ndarray, target: bool) -> tuple[np.ndarray, np.ndarray]:
        return in_two_colours(images, (labels < (5 if full else 2)) != target), labels.astype(np.int32)

    learned = [place(*(part[k * train :][:train] for part in drawn[0]), target=bool(k)) for k in (0, 1)]
    return learned + [place(*(part[:test] for part in drawn[1]), target=there) for there in (False, True)]


def community(nodes: int, groups: int = 4, seed: int = 0) -> np.ndarray:
    """Which group each node of `communities` is of, `(nodes,)`."""
    return _groups_of(np.random.default_rng(seed), nodes, groups)


def _groups_of(rng: np.random.Generator, nodes: int, groups: int) -> np.ndarray:
    """What a sample of `communities` draws first."""
    return rng.integers(0, groups, nodes).astype(np.int32)


def moving_light(frames: int, side: int = 4, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """A film, `(frames, side * side)`, of a light that moves smoothly about a square, and noise: its coordinates are drawn from
    a Gaussian process over a time of 2, with a squared exponential kernel whose lengthscale is 0.4.
    """
    rng, t = np.random.default_rng(seed), np.linspace(-1, 1, frames)
    root = np.linalg.cholesky(np.exp(-0.5 * ((t[:, None] - t) / 0.4) ** 2) + 1e-6 * np.eye(frames))
    x, y = np.tanh(root @ rng.normal(size=(frames, 2))).T
    grid = (np.arange(side) + 0.5) / side * 2 - 1
    down, along = (np.exp(-0.5 * ((at[:, None] - grid) / 0.4) ** 2) for at in (y, x))
    lit = np.einsum("ni,nj->nij", down, along).reshape(frames, -1)
    return (lit + noise * rng.normal(size=lit.shape)).astype(np.float32)
