"""The student: one network says of every view what the teacher may have said of the other."""

import numpyro

from models.self_supervised import KAPPA, encoder, said


def guide(x, other, kappa=KAPPA):
    weights = encoder(x.shape[1])
    with numpyro.plate("views", len(x)):
        numpyro.sample("z", said(weights, x))
