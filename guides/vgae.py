"""Guide of the variational graph auto-encoder: two layers of graph convolution give each node's place and its scale.

    loc = G relu(G X W_0) W_loc        log scale = G relu(G X W_0) W_scale        G = D^-1/2 A D^-1/2

X are the nodes' features, A has ones on its diagonal, and D are its row sums. Products with X and G are sparse.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import scipy.sparse
from jax.experimental.sparse import BCOO

from models.networks import glorot
from models.vgae import HIDDEN, LATENT


def arguments(graph):
    """What model and guide take: sparse features, the sparse normalised graph, and the adjacency matrix."""
    n, (i, j) = graph.features.shape[0], graph.edges.T
    joined = scipy.sparse.coo_matrix((jnp.ones(len(i)), (i, j)), (n, n))
    joined = (joined + joined.T + scipy.sparse.eye(n)).tocsr()
    root = scipy.sparse.diags(joined.sum(1).A1 ** -0.5)
    sparse = (BCOO.from_scipy_sparse(x.tocoo().astype("float32")) for x in (graph.features, root @ joined @ root))
    return *sparse, jnp.asarray(joined.toarray(), "float32")


def encoder(key, words):
    """Weights from which training starts; each head by its own width, which is smaller than that of both."""
    sizes = (words, HIDDEN), (HIDDEN, LATENT), (HIDDEN, LATENT)
    return [glorot(k, *pair)[0][0] for k, pair in zip(jax.random.split(key, 3), sizes, strict=True)]


def encode(features, graph):
    first, *heads = numpyro.param("encoder", lambda key: encoder(key, features.shape[1]))
    hidden = graph @ jax.nn.relu(graph @ (features @ first))
    return hidden @ heads[0], hidden @ heads[1]


def guide(features, graph, adjacency):
    loc, log_scale = encode(features, graph)
    with numpyro.plate("nodes", len(adjacency)):
        numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))
