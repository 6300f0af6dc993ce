"""Variational graph auto-encoders: every node of a graph has a place, and nodes are joined that lie in the same direction.

    z_i ~ N(0, I_16)        A_ij ~ Bernoulli(sigmoid(z_i . z_j))

An undirected graph of n nodes, such as papers that cite one another; A_ii = 1. Hardly any of the n^2 pairs are edges, so that
the likelihood would be of what is absent. As in the authors' code both kinds count alike, n^2 / 2 together, where the loops
A_ii have the weight of an edge and are not counted as edges:

    weight_ij = n^2 / (2 E) where A_ij = 1,    n^2 / (2 (n^2 - E)) where A_ij = 0,    E = sum_ij A_ij - n

Counted, they would be a third of E in a graph as sparse as Citeseer, and edges would weigh a third less.

Kipf and Welling, "Variational Graph Auto-Encoders", NeurIPS workshop on Bayesian Deep Learning 2016.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

LATENT, HIDDEN = 16, 32


def weights(adjacency):
    """How much each pair counts, `(n, n)`."""
    pairs, edges = adjacency.size, adjacency.sum() - len(adjacency)
    return jnp.where(adjacency > 0, pairs / (2 * edges), pairs / (2 * (pairs - edges)))


def model(features, graph, adjacency):
    """Of an adjacency matrix `(n, n)` of 0 and 1; features and the normalised graph are for the guide."""
    n = len(adjacency)
    with numpyro.plate("nodes", n):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([LATENT]).to_event(1))
    rows, columns = numpyro.plate("rows", n, dim=-2), numpyro.plate("columns", n, dim=-1)
    with numpyro.handlers.scale(scale=weights(adjacency)), rows, columns:
        numpyro.sample("edges", dist.Bernoulli(logits=z @ z.T), obs=adjacency)
