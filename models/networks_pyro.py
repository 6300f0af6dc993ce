"""The networks of `models.networks` as modules of PyTorch, for entries that are on both libraries."""

import itertools

import numpy as np
import torch
from torch import nn


def perceptron(*sizes, activation=nn.Tanh):
    """Linear layers of these widths, inputs first, with this activation between them; Glorot's uniform weights."""
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
        nn.init.xavier_uniform_(layers[-2].weight)
        nn.init.zeros_(layers[-2].bias)
    return nn.Sequential(*layers[:-1])


def take_over(module, weights):
    """Give a perceptron the weights of one of `models.networks`."""
    linear = [layer for layer in module if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer, (w, b) in zip(linear, weights, strict=True):
            layer.weight.copy_(torch.tensor(np.array(w).T))
            layer.bias.copy_(torch.tensor(np.array(b)))
