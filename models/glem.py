"""Labels of the nodes of a graph, each of which has a text: a random field, of which only the conditionals are needed.

    p(y | s, A)  proportional to  exp(sum_n a_n(s)[y_n] + sum_{n < m} A_nm W[y_n, y_m])
    p(y_n | s, A, y_others)  =  softmax(a_n(s) + sum_m A_nm W[:, y_m])[y_n]

Papers cite one another, and some have been given a subject. What is known of the others is in their words s and in who cites
whom, the graph A, which is normalised by degrees. Nobody can sum over all labels of thousands of papers to normalise the field;
its conditionals are softmaxes. Their product is the pseudo-likelihood, `model` on the labels themselves. The fields a are a
graph convolutional network of the words; W is symmetric, so that these are the conditionals of one joint distribution.

Zhao, Qu, Li, Yan, Liu, Li, Xie and Tang, "Learning on large-scale text-attributed graphs via variational inference", ICLR 2023,
whose graph model is any graph network, of texts and labels alike. The convolutions are those of Kipf and Welling, ICLR 2017.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.sparse
from jax.experimental.sparse import BCOO

from models.datasets import Graph
from models.networks import glorot


class Papers(NamedTuple):
    """A graph of n texts, some of whose labels are known."""

    words: jax.Array
    """`(n, words)`, sparse."""
    graph: jax.Array
    """`(n, n)`, sparse: normalised by degrees, with loops."""
    loops: jax.Array
    """`(n,)`: its diagonal."""
    label: jax.Array
    """`(n,)`: of classes from 0; what is said of those that are not known is not used."""
    known: jax.Array
    """`(n,)` of booleans."""
    new: jax.Array
    """`(n,)` of booleans: papers that nobody cites yet and that cite none, from which nothing is learned."""


def papers_of(graph, label, known, new):
    """Of a `Graph`, where edges to new papers weigh nothing: what is compiled for one choice of these is so for any."""
    n, (i, j) = len(label), graph.edges.T
    rows, columns = np.concatenate([[i, j], [j, i], np.tile(np.arange(n), (2, 1))], 1)
    there = np.concatenate([*2 * [~(new[i] | new[j])], np.ones(n, bool)])
    root = np.bincount(rows, there) ** -0.5
    normalised = jnp.asarray(there * root[rows] * root[columns], "float32")
    words = BCOO.from_scipy_sparse(graph.features.tocoo().astype("float32"))
    return Papers(
        words,
        BCOO((normalised, jnp.stack([rows, columns], 1)), shape=(n, n)),
        jnp.asarray(root**2, "float32"),
        *map(jnp.asarray, (label, known, new)),
    )


def split(graph, label, each, seed):
    """Papers of which a quarter, drawn at random, is new, and of the others so many of each class have a label."""
    order = np.random.default_rng(seed).permutation(len(label))
    new, rest = np.split(order, [len(label) // 4])
    known = np.concatenate([rest[label[rest] == k][:each] for k in range(label.max() + 1)])
    return papers_of(graph, label, *(np.isin(np.arange(len(label)), some) for some in (known, new)))


def weights(papers, share):
    """How much each paper counts: this share over those that have no label, the rest over those that have one."""
    of_hidden = share / (~papers.known & ~papers.new).sum()
    return jnp.where(papers.known, (1 - share) / papers.known.sum(), jnp.where(papers.new, 0.0, of_hidden))


def filled(papers, y):
    """Labels, `(n,)`: those that are known, and of the others these."""
    return jnp.where(papers.known, papers.label, y)


def fields(weights, papers):
    (first, bias), (last, _) = weights
    return papers.graph @ (jax.nn.relu(papers.graph @ (papers.words @ first) + bias) @ last)


def of_neighbours(graph, loops, y):
    """Labels or their probabilities, `(n, classes)`, summed over each node's neighbours, by the graph's weights."""
    return graph @ y - loops[:, None] * y


def model(papers, others=None, classes=7, hidden=32):
    """Draws each label given those of the others, `(n, classes)`: as zeros and ones, as probabilities, or nothing."""
    weights = numpyro.param("fields", lambda key: glorot(key, papers.words.shape[1], hidden, classes))
    half = numpyro.param("coupling", jnp.zeros((classes, classes)))
    logits = fields(weights, papers)
    if others is not None:
        logits += of_neighbours(papers.graph, papers.loops, others) @ (half + half.T)
    with numpyro.plate("nodes", len(papers.label)):
        numpyro.sample("y", dist.Categorical(logits=logits))


def predicted(params, papers, of_text):
    """Probabilities of each label by the graph model, where the others have these, `(n, classes)`, unless theirs are known."""
    known, half = jax.nn.one_hot(papers.label, of_text.shape[1]), params["coupling"]
    others = jnp.where(papers.known[:, None], known, of_text)
    around = of_neighbours(papers.graph, papers.loops, others)
    return jax.nn.softmax(fields(params["fields"], papers) + around @ (half + half.T))


def jointly(params, papers):
    """Log of the field's density of all labels of a small graph, with an axis for each node, by the sum over all of them."""
    a, w = (np.asarray(x, np.float64) for x in (fields(params["fields"], papers), params["coupling"]))
    graph, (n, classes) = np.asarray(papers.graph.todense()), a.shape
    y = np.indices((classes,) * n)
    pairs = itertools.combinations(range(n), 2)
    found = sum(a[i][y[i]] for i in range(n)) + sum(graph[i, j] * (w + w.T)[y[i], y[j]] for i, j in pairs)
    return found - np.log(np.exp(found).sum())


def marginals(joint):
    """Of probabilities of all labels, with an axis for each node: each node's, `(n, classes)`."""
    return np.stack([np.moveaxis(joint, i, 0).reshape(joint.shape[i], -1).sum(1) for i in range(joint.ndim)])


def small(key, classes=3):
    """Six papers of which the first and the last have a label, and parameters with strong couplings."""
    edges, first, no = [[0, 1], [0, 2], [1, 2], [2, 3], [3, 4], [4, 5]], np.arange(6), np.zeros(6, bool)
    graph = Graph(scipy.sparse.csr_matrix(np.random.default_rng(0).random((6, 10)) < 0.3), np.array(edges))
    keys = jax.random.split(key, 3)
    params = {"fields": glorot(keys[0], 10, 4, classes), "coupling": 3 * jax.random.normal(keys[1], (classes, classes))}
    return papers_of(graph, first % 3, first % 5 == 0, no), params | {"text": jax.random.normal(keys[2], (6, classes))}


def given_others(q, joint):
    """By the sum over all labels, of independent ones with probabilities `(n, classes)`: what each is in the mean, given the
    others, `(n, classes)`; and the mean of the logarithm of its probability given the others, `(n,)`. Of a log density `joint`.
    """
    each = np.exp(sum(np.ix_(*np.log(np.asarray(q, np.float64) + 1e-300))))
    each /= each.sum()
    told = [joint - np.logaddexp.reduce(joint, i, keepdims=True) for i in range(joint.ndim)]
    means = [marginals(each.sum(i, keepdims=True) * np.exp(given))[i] for i, given in enumerate(told)]
    return np.stack(means), np.array([(each * given).sum() for given in told])


def exactly(q, joint, papers, share):
    """By the sum over all labels of a small graph: the E-step's objective and its gradient by the logits of q, `(n, classes)`,
    and the M-step's objective.
    """
    w, one_hot = np.asarray(weights(papers, share)), np.eye(joint.shape[0])[np.asarray(papers.label)]
    known = np.asarray(papers.known)[:, None]
    means, logs = given_others(np.where(known, one_hot, q), joint)
    means = np.where(known, one_hot, means)
    return (w[:, None] * means * np.log(q)).sum(), w[:, None] * (means - q), (w * logs).sum()


def at_rest(q, joint, papers):
    """What the E-step comes to on a small graph from there, and the marginals of the posterior, `(n, classes)` each."""
    label, free = np.asarray(papers.label), ~np.asarray(papers.known)
    one_hot = np.eye(joint.shape[0])[label]
    for _ in range(200):
        q = np.where(free[:, None], (q + given_others(np.where(free[:, None], q, one_hot), joint)[0]) / 2, one_hot)
    told = np.exp(joint + sum(np.ix_(*np.where(free[:, None], 0.0, np.log(one_hot + 1e-300)))))
    return q, marginals(told / told.sum())


def by_gibbs(key, params, papers, sweeps, warmup):
    """Probabilities of labels that are not known, `(n, classes)`, by so many sweeps of Gibbs sampling after some more: means of
    those from which labels are drawn, which are less noisy than counts of what is drawn."""
    a, w = fields(params["fields"], papers), params["coupling"] + params["coupling"].T
    graph, (n, classes) = papers.graph.todense(), a.shape
    graph = graph - jnp.diag(papers.loops)

    def visit(state, visited):
        (y, around), (i, noise) = state, visited
        logits = a[i] + around[i] @ w
        drawn = jnp.where(papers.known[i], papers.label[i], (logits + noise).argmax())
        change = jax.nn.one_hot(drawn, classes) - jax.nn.one_hot(y[i], classes)
        return (y.at[i].set(drawn), around + graph[i][:, None] * change), jax.nn.softmax(logits)

    def sweep(state, key):
        return jax.lax.scan(visit, state, (jnp.arange(n), jax.random.gumbel(key, (n, classes))))

    y = filled(papers, a.argmax(1))
    start = y, graph @ jax.nn.one_hot(y, classes)
    start, _ = jax.lax.scan(lambda s, k: (sweep(s, k)[0], None), start, jax.random.split(key, warmup))

    def add(carry, key):
        state, total = carry
        state, each = sweep(state, key)
        return (state, total + each), None

    (_, total), _ = jax.lax.scan(add, (start, jnp.zeros(a.shape)), jax.random.split(jax.random.fold_in(key, 1), sweeps))
    return total / sweeps
