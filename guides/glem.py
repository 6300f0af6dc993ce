"""The guide of `models.glem` is the text model: what a paper's own words say of its subject, and no other paper's.

q(y | s) = prod_n softmax(network(s_n))[y_n]
"""

import jax
import numpyro
import numpyro.distributions as dist

from models.glem import predicted
from models.networks import glorot, layer


def of_words(weights, papers):
    first, last = weights
    return layer(last, jax.nn.relu(layer(first, papers.words)))


def guide(papers, others=None, classes=7, hidden=64):
    """Returns the papers."""
    weights = numpyro.param("text", lambda key: glorot(key, papers.words.shape[1], hidden, classes))
    with numpyro.plate("nodes", len(papers.label)):
        numpyro.sample("y", dist.Categorical(logits=of_words(weights, papers)))
    return papers


def table(papers, others=None, classes=3):
    """A guide with numbers of its own for each paper."""
    logits = numpyro.param("text", lambda key: 0.1 * jax.random.normal(key, (len(papers.label), classes)))
    with numpyro.plate("nodes", len(papers.label)):
        numpyro.sample("y", dist.Categorical(logits=logits))
    return papers


@jax.jit
def answers(params, papers):
    """Probabilities of labels, `(n, classes)`, by the text model, and by the graph model, whose neighbours have the former."""
    text = jax.nn.softmax(of_words(params["text"], papers))
    return {"text": text, "graph": predicted(params, papers, text)}
