"""Causes and effects, where nobody has noted which data come from which intervention.

    stick_k ~ Beta(1, 1),  z_n ~ Categorical(what the sticks leave),  target_k ~ Categorical(1 / d)
    graph_ij ~ Bernoulli(SPARSE)
    x_nj ~ N(sum_i graph_ij weight_ij x_ni + bias_j, scale_j)    for j that z_n leaves alone
    x_nj ~ N(bias_{z_n j}, scale_{z_n j})                        for the target of z_n

The first component is the undisturbed system, each other one sets one variable from outside. A graph counts exp(-PENALTY n c)
where c of its arrows lie on cycles. Weights, biases and scales are parameters; the component of a datum is summed out.

Faria, Martins and Figueiredo, "Differentiable causal discovery under latent interventions", CLeaR 2022.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.infer.util import log_density

SPARSE, PENALTY = 0.1, 5.0
"""How likely an arrow is beforehand; nats a datum, for each arrow on a cycle."""


def on_cycles(graph):
    """How many arrows lie on a cycle: none if and only if there is none."""
    d = graph.shape[-1]
    reached = jnp.linalg.matrix_power(jnp.eye(d) + graph, d - 1) > 0
    return (graph * reached.T).sum()


def arrows(d):
    """All pairs of different variables, `(d (d - 1), 2)`."""
    return np.array([(i, j) for i in range(d) for j in range(d) if i != j])


def matrix(edges, d):
    """Of the arrows' values, `(d (d - 1),)`, with zeros for none to itself."""
    return jnp.zeros((d, d)).at[tuple(arrows(d).T)].set(edges)


def densities(x, graph, targets):
    """Log densities of each datum under each component, `(n, components)`."""
    k, d = targets.shape
    weight = numpyro.param("weight", lambda key: 0.1 * jax.random.normal(key, (d, d)))
    bias = numpyro.param("bias", jnp.zeros(d))
    scale = numpyro.param("scale", jnp.ones(d), constraint=constraints.positive)
    set_to = numpyro.param("set_to", lambda key: x[jax.random.choice(key, len(x), (k,), replace=False)])
    set_scale = numpyro.param("set_scale", jnp.ones((k, d)), constraint=constraints.positive)
    alone = dist.Normal(x @ (graph * weight) + bias, scale).log_prob(x)
    moved = dist.Normal(set_to, set_scale).log_prob(x[:, None])
    return alone @ (1 - targets).T + jnp.einsum("nkd,kd->nk", moved, targets)


def model(x, batch=None, components=1):
    """Of data `(n, d)`; with one component nothing is ever disturbed."""
    d = x.shape[1]
    graph = matrix(numpyro.sample("edges", dist.Bernoulli(SPARSE).expand([d * (d - 1)]).to_event(1)), d)
    numpyro.factor("acyclic", -PENALTY * len(x) * on_cycles(graph))
    targets, log_shares = jnp.zeros((1, d)), jnp.zeros(1)
    if components > 1:
        sticks = numpyro.sample("sticks", dist.Beta(1.0, 1.0).expand([components - 1]).to_event(1))
        chosen = numpyro.sample("targets", dist.Categorical(jnp.full((components - 1, d), 1 / d)).to_event(1))
        targets = jnp.concatenate([targets, jax.nn.one_hot(chosen, d)])
        left = jnp.cumsum(jnp.log1p(-sticks))
        log_shares = jnp.concatenate([jnp.log(sticks), jnp.zeros(1)]) + jnp.concatenate([jnp.zeros(1), left])
    with numpyro.plate("data", len(x), subsample_size=batch) as rows:
        numpyro.factor("x", jax.nn.logsumexp(densities(x[rows], graph, targets) + log_shares, 1))


def graphs(d):
    """All sets of arrows, cycles included, `(2^(d (d - 1)), d (d - 1))`."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=d * (d - 1))), np.float32)


def log_joint(edges, params, x):
    """Of arrows, at parameters, where nothing is ever disturbed."""
    return log_density(model, (x,), {}, {**params, "edges": edges})[0]


def gain(x, moved, j, parents):
    """What a variable and the arrows to it add to the log density, at the best weights, up to what no graph changes."""
    rows = ~moved[:, j]
    inputs = np.column_stack([x[rows][:, parents], np.ones(rows.sum())])
    left = x[rows, j] - inputs @ np.linalg.lstsq(inputs, x[rows, j], rcond=None)[0]
    return -0.5 * rows.sum() * np.log(np.mean(left**2)) + len(parents) * np.log(SPARSE / (1 - SPARSE))


def score(graph, x, moved):
    """Log density of data and graph, at the best weights, where it is known which variables are set in which data, `(n, d)`."""
    x = np.asarray(x, np.float64)
    return sum(gain(x, moved, j, tuple(np.flatnonzero(parents))) for j, parents in enumerate(np.asarray(graph).T))


def best_graph(x, moved):
    """The graph without cycles that has the largest score, of all graphs."""
    x, d = np.asarray(x, np.float64), x.shape[1]
    gains = {
        (j, parents): gain(x, moved, j, parents)
        for j, size in itertools.product(range(d), range(d))
        for parents in itertools.combinations([i for i in range(d) if i != j], size)
    }
    best, found = -np.inf, []
    for order in itertools.permutations(range(d)):
        chosen = [
            max((key for key in gains if key[0] == j and set(key[1]) <= set(order[:at])), key=gains.__getitem__)
            for at, j in enumerate(order)
        ]
        if (total := sum(gains[key] for key in chosen)) > best + 1e-9:
            best, found = total, chosen
    graph = np.zeros((d, d), bool)
    for j, parents in found:
        graph[list(parents), j] = True
    return graph


def distance(graph, truth):
    """Structural Hamming distance: arrows to add, to take away or to turn round."""
    wrong = np.asarray(graph, bool) != np.asarray(truth, bool)
    return int(np.triu(wrong | wrong.T).sum())


def made(d, n, interventions, seed, share=0.4):
    """A random graph, and data of it on scales of one: a half undisturbed, the others by interventions on a variable each; and
    which variables are set from outside in which data, `(n, d)`.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(d)
    later = np.argsort(order)[:, None] < np.argsort(order)
    truth = later & (rng.uniform(size=(d, d)) < share)
    weight = truth * rng.choice([-1, 1], (d, d)) * rng.uniform(0.7, 1.5, (d, d))
    z = np.where(rng.uniform(size=n) < 0.5, 0, rng.integers(1, interventions + 1, n))
    which = rng.permutation(d)[:interventions]
    places = rng.choice([-1, 1], interventions) * rng.uniform(3, 5, interventions)
    x = np.zeros((n, d))
    for j in order:
        x[:, j] = x @ weight[:, j] + 0.6 * rng.normal(size=n)
        for k in range(interventions):
            if which[k] == j:
                x[z == k + 1, j] = places[k] + 0.5 * rng.normal(size=(z == k + 1).sum())
    moved = np.stack([np.isin(z, [k + 1 for k in range(interventions) if which[k] == j]) for j in range(d)], 1)
    return (x / x.std(0)).astype(np.float32), truth, moved
