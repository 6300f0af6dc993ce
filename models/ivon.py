"""A network that tells digits apart, and whose weights nobody knows: a Bayesian neural network.

    w ~ N(0, 1 / 6)    y_i ~ Categorical(softmax(network(w, x_i)))

Two hidden layers of 200 units make ten scores of a picture of 784 pixels. The weights have a prior, so that after the data
they have a posterior, and a prediction is an average over networks. The prior's precision is the weight decay of 0.0001 of a
mean loss over 60,000 pictures, which is usual in training. A layer is one site, the last row of which is its biases.

The network of Shen et al., "Variational learning is effective for large deep networks", ICML 2024, is a ResNet or GPT-2.
"""

import itertools

import jax
import numpyro
import numpyro.distributions as dist

from models.networks import perceptron

HIDDEN, CLASSES, PRECISION = (200, 200), 10, 6.0


def layers(pixels):
    """Names and shapes of the weights: inputs and one more, outputs."""
    sizes = itertools.pairwise((pixels, *HIDDEN, CLASSES))
    return {f"layer{i}": (inputs + 1, outputs) for i, (inputs, outputs) in enumerate(sizes)}


def logits(weights, x):
    """Ten scores of each picture, `(n, 10)`, by weights `layer0`, `layer1`, ..."""
    return perceptron([(weights[name][:-1], weights[name][-1]) for name in layers(x.shape[1])], x, jax.nn.relu)


def model(x, y, total):
    """Of some pictures `(n, pixels)` and what they are, which stand for so many."""
    weights = {
        name: numpyro.sample(name, dist.Normal(0.0, PRECISION**-0.5).expand(shape).to_event(2))
        for name, shape in layers(x.shape[1]).items()
    }
    with numpyro.plate("images", total, subsample_size=len(x)):
        numpyro.sample("y", dist.Categorical(logits=logits(weights, x)), obs=y)
