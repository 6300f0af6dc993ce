"""Programs and data as users have them in files: what the documentation of the two libraries begins with, and a regression."""

import numpy as np

COIN = {
    "numpyro": """
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

def model(data):
    f = numpyro.sample("latent_fairness", dist.Beta(10, 10))
    with numpyro.plate("N", data.shape[0]):
        numpyro.sample("obs", dist.Bernoulli(f), obs=data)

def guide(data):
    alpha_q = numpyro.param("alpha_q", 15., constraint=constraints.positive)
    beta_q = numpyro.param("beta_q", 15., constraint=constraints.positive)
    numpyro.sample("latent_fairness", dist.Beta(alpha_q, beta_q))
""",
    "pyro": """
import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

def model(data):
    alpha0, beta0 = torch.tensor(10.0), torch.tensor(10.0)
    f = pyro.sample("latent_fairness", dist.Beta(alpha0, beta0))
    with pyro.plate("N", len(data)):
        pyro.sample("obs", dist.Bernoulli(f), obs=data.float())

def guide(data):
    alpha_q = pyro.param("alpha_q", torch.tensor(15.0), constraint=constraints.positive)
    beta_q = pyro.param("beta_q", torch.tensor(15.0), constraint=constraints.positive)
    pyro.sample("latent_fairness", dist.Beta(alpha_q, beta_q))
""",
}
"""The first model of both libraries' introductions to inference."""

TOSSES = "data\n" + "\n".join("1" * 6 + "0" * 4) + "\n"

REGRESSION = {
    "numpyro": """
import numpyro
import numpyro.distributions as dist

def model(x, y=None, *, sigma=1.0):
    a = numpyro.sample("a", dist.Normal(0.0, 10.0))
    b = numpyro.sample("b", dist.Normal(0.0, 10.0))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(a + b * x, sigma), obs=y)
""",
    "pyro": """
import pyro
import pyro.distributions as dist

def model(x, y=None, *, sigma=1.0):
    a = pyro.sample("a", dist.Normal(0.0, 10.0))
    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(a + b * x, sigma), obs=y)
""",
}

X = np.linspace(-1.0, 2.0, 20)
Y = 1.0 + 2.0 * X + 0.5 * np.sin(7.0 * np.arange(20))


def regression_csv():
    rows = (f"{x:.6f},{y:.6f},row {i}" for i, (x, y) in enumerate(zip(X, Y, strict=True)))
    return "\n".join(["x,y,label", *rows]) + "\n"


def regression_posterior(sigma):
    """Mean and sd of intercept and slope, exactly."""
    design = np.stack([np.ones(20), X], 1)
    covariance = np.linalg.inv(design.T @ design / sigma**2 + np.eye(2) / 100)
    return covariance @ design.T @ Y / sigma**2, np.sqrt(np.diag(covariance))


SCHOOLS = "effects,errors,school\n28,15,A\n8,10,B\n-3,16,C\n7,11,D\n-1,9,E\n1,11,F\n18,10,G\n12,18,H\n"
