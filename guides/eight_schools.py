"""A mean-field normal guide for the eight schools, in unconstrained space."""

from numpyro.infer.autoguide import AutoNormal

from models.eight_schools import model


def guide():
    return AutoNormal(model)
