"""The noisy cone: a point of the plane is seen through its squared distance from the origin.

    x, y ~ N(0, 10)    z ~ N(r, 0.1 + r / 100),  r = x^2 + y^2    (standard deviations)

Given z, the posterior of (x, y) lies on a ring of radius sqrt(z). Becker, Lew et al., "Probabilistic Programming with
Programmable Variational Inference", PLDI 2024, Figure 2 and Table 4, with z = 5.
"""

import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.integrate import quad
from scipy.stats import norm

OBSERVED = 5.0


def model(z=None):
    x = numpyro.sample("x", dist.Normal(0.0, 10.0))
    y = numpyro.sample("y", dist.Normal(0.0, 10.0))
    r = x**2 + y**2
    numpyro.sample("z", dist.Normal(r, 0.1 + r / 100), obs=z)


def log_evidence(z: float = OBSERVED) -> float:
    """log p(z) by quadrature: r / 100 is chi-square with two degrees of freedom, so r is exponential with mean 200."""
    density, _ = quad(lambda r: norm.pdf(z, r, 0.1 + r / 100) * np.exp(-r / 200) / 200, 0, 20 * z, points=[z])
    return float(np.log(density))
