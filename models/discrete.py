"""Models with discrete sites that no guide need draw: what is finite is summed out of the density, exactly.

Each is written as in NumPyro's examples. The data are in `models.discrete_data`.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.nn import sigmoid
from numpyro.contrib.control_flow import scan
from numpyro.handlers import mask
from numpyro.ops.indexing import Vindex


def mixture(x, components=3):
    """weights ~ Dirichlet(1),  loc_k ~ N(0, 5),  scale ~ LogNormal(0, 1),  z_i ~ weights,  x_i ~ N(loc_{z_i}, scale)

    Points lie around a few centres, and nobody says which point belongs to which. The labels are summed out.

    Dempster, Laird and Rubin, "Maximum Likelihood from Incomplete Data via the EM Algorithm", JRSS B 39 (1977).
    """
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(components)))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("components", components):
        loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))
    with numpyro.plate("points", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale), obs=x)


def hmm(y, lengths):
    """transition_k ~ Dirichlet(1 + 4 e_k),  loc_k ~ N(2 k - 2, 0.5),  z_t ~ transition_{z_{t-1}},  y_t ~ N(loc_{z_t}, 0.7)

    A machine wanders between three states, seldom changing them, and each leaves its own mark on what is measured.
    There are several records, `(records, time)`, some of which end early.

    Rabiner, "A Tutorial on Hidden Markov Models and Selected Applications in Speech Recognition", Proc. IEEE 77 (1989).
    """
    with numpyro.plate("states", 3):
        transition = numpyro.sample("transition", dist.Dirichlet(1.0 + 4.0 * jnp.eye(3)))
        loc = numpyro.sample("loc", dist.Normal(jnp.array([-2.0, 0.0, 2.0]), 0.5))

    def step(z, at):
        t, y_t = at
        with numpyro.plate("records", len(lengths)), mask(mask=t < lengths):
            z = numpyro.sample("z", dist.Categorical(transition[z]))
            numpyro.sample("y", dist.Normal(loc[z], 0.7), obs=y_t)
        return z, None

    scan(step, jnp.zeros(len(lengths), int), (jnp.arange(y.shape[1]), y.T))


def dawid_skene(positions, annotations, annotators=4, classes=3):
    """pi ~ Dirichlet(1),  beta_{jk} ~ Dirichlet(1 + 3 e_k),  c_i ~ pi,  y_{ip} ~ beta_{j(p), c_i}

    Annotators label the same items, and disagree; one of them labels every item twice. Each has a matrix of confusion
    of their own, and the true classes are summed out.

    Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm", Applied Statistics
    28 (1979).
    """
    with numpyro.plate("annotator", annotators, dim=-2), numpyro.plate("class", classes):
        beta = numpyro.sample("beta", dist.Dirichlet(1.0 + 3.0 * jnp.eye(classes)))
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.ones(classes)))
    with numpyro.plate("item", len(annotations), dim=-2):
        c = numpyro.sample("c", dist.Categorical(pi))
        with numpyro.plate("position", len(positions)):
            numpyro.sample("y", dist.Categorical(Vindex(beta)[positions, c, :]), obs=annotations)


def lda(words, vocabulary=12, topics=3):
    """phi_k ~ Dirichlet(0.5),  theta_d ~ Dirichlet(0.7),  z_{dn} ~ theta_d,  w_{dn} ~ phi_{z_{dn}}

    Every document mixes a few topics, and a topic is a distribution over words. The topic of each single word is summed
    out; `words` is `(words of a document, documents)`.

    Blei, Ng and Jordan, "Latent Dirichlet Allocation", JMLR 3 (2003).
    """
    length, documents = words.shape
    with numpyro.plate("topics", topics):
        phi = numpyro.sample("phi", dist.Dirichlet(jnp.full(vocabulary, 0.5)))
    with numpyro.plate("documents", documents, dim=-1):
        theta = numpyro.sample("theta", dist.Dirichlet(jnp.full(topics, 0.7)))
        with numpyro.plate("words", length, dim=-2):
            z = numpyro.sample("z", dist.Categorical(theta))
            numpyro.sample("w", dist.Categorical(phi[z]), obs=words)


def capture_recapture(captures):
    """phi_t, rho ~ U(0, 1),  alive_{i,t} ~ Bernoulli(phi_t alive_{i,t-1}),  y_{it} ~ Bernoulli(rho alive_{i,t})

    Animals are caught, marked and set free, and looked for in the years that follow: one that is not seen again has
    died, or was overlooked. All is given the first capture; `captures` is `(animals, years)`.

    Cormack, "Estimates of Survival from the Sighting of Marked Animals", Biometrika 51 (1964); Jolly, and Seber, ib. 52
    (1965).
    """
    rho = numpyro.sample("rho", dist.Uniform(0.0, 1.0))

    def year(carry, y):
        marked, alive = carry
        phi = numpyro.sample("phi", dist.Uniform(0.0, 1.0))
        with numpyro.plate("animals", len(captures)):
            alive = numpyro.sample("alive", dist.Bernoulli(jnp.where(marked, phi * alive, 1.0)))
            with mask(mask=marked):
                numpyro.sample("y", dist.Bernoulli(rho * alive), obs=y)
        return (marked | (y > 0), alive), None

    scan(year, (captures[:, 0] > 0, jnp.ones(len(captures), int)), captures[:, 1:].T)


def change_point(counts):
    """early, late ~ Gamma(2, 1),  change ~ Categorical(1/T),  y_t ~ Poisson(early if t < change else late)

    Disasters in coal mines became rarer at some time in the nineteenth century. The year of change is summed out.

    Carlin, Gelfand and Smith, "Hierarchical Bayesian Analysis of Changepoint Problems", Applied Statistics 41 (1992).
    """
    years = len(counts)
    early = numpyro.sample("early", dist.Gamma(2.0, 1.0))
    late = numpyro.sample("late", dist.Gamma(2.0, 1.0))
    change = numpyro.sample("change", dist.Categorical(jnp.full(years, 1 / years)))
    with numpyro.plate("years", years):
        rate = jnp.where(jnp.arange(years) < change, early, late)
        numpyro.sample("y", dist.Poisson(rate), obs=counts)


def zero_inflated(hours, catches):
    """a, b, c, d ~ N(0, 1),  fishes_i ~ Bernoulli(sigmoid(a + b x_i)),  y_i ~ Poisson(fishes_i exp(c + d x_i))

    Some who come to a lake do not fish, and catch nothing; some fish, and catch nothing either. Who fishes is summed
    out.

    Lambert, "Zero-Inflated Poisson Regression, with an Application to Defects in Manufacturing", Technometrics 34 (1992).
    """
    with numpyro.plate("coefficients", 2):
        gate = numpyro.sample("gate", dist.Normal(0.0, 1.0))
        rate = numpyro.sample("rate", dist.Normal(0.0, 1.0))
    with numpyro.plate("parties", len(hours)):
        fishes = numpyro.sample("fishes", dist.Bernoulli(sigmoid(gate[0] + gate[1] * hours)))
        numpyro.sample("y", dist.Poisson(fishes * jnp.exp(rate[0] + rate[1] * hours)), obs=catches)
