"""A mean-field normal guide for the eight schools, in unconstrained space, in Pyro."""

from pyro.infer.autoguide import AutoNormal

from models.eight_schools_pyro import model


def guide():
    return AutoNormal(model)
