"""The numbers, the networks and the spatial transformer of Attend, Infer, Repeat, as plain functions of weights and arrays.

Sizes as in the experiment of Becker, Lew et al. 2024, Figure 7: images of 50 x 50 pixels, windows of 20 x 20, 50 numbers for
what a window shows, an LSTM of 256 units, one hidden layer of 200 units in the encoder and the decoder.
"""

import jax
import jax.numpy as jnp
from jax.nn import leaky_relu, sigmoid, softplus

from models.networks import dense, layer

IMAGE, WINDOW, WHAT, WHERE, UNITS, HIDDEN = 50, 20, 50, 3, 256, 200

PRESENT = (0.05, 0.05**2.3, 0.05**5)
WHERE_LOC, WHERE_SCALE = jnp.array([3.0, 0.0, 0.0]), jnp.array([0.2, 1.0, 1.0])
NOISE = 0.3


@jax.jit
def decoder(key):
    return dense(key, hidden=(WHAT, HIDDEN), out=(HIDDEN, WINDOW**2))


@jax.jit
def recognition(key):
    """Weights of the guide's networks."""
    return dense(
        key,
        image=(IMAGE**2, 4 * UNITS),
        before=(WHERE + WHAT + 1 + UNITS, 4 * UNITS),
        heads=(UNITS, 1 + 2 * WHERE),
        hidden=(WINDOW**2, HIDDEN),
        out=(HIDDEN, 2 * WHAT),
    )


def decode(weights, what):
    """The window, `(..., 20, 20)`, that shows `what`."""
    window = sigmoid(layer(weights["out"], leaky_relu(layer(weights["hidden"], what))))
    return window.reshape(*window.shape[:-1], WINDOW, WINDOW)


def encode(weights, window):
    """Location and scale of what a window shows."""
    flat = window.reshape(*window.shape[:-2], WINDOW**2)
    out = layer(weights["out"], leaky_relu(layer(weights["hidden"], flat)))
    return out[..., :WHAT], softplus(out[..., WHAT:])


def look(weights, image):
    """What the image adds to the gates of the LSTM: the same at every step."""
    return layer(weights["image"], image.reshape(*image.shape[:-2], IMAGE**2))


def lstm(weights, seen, before, state):
    """One step: the gates by the image, by the object before, and by the state (hidden, cell)."""
    hidden, cell = state
    gates = seen + layer(weights["before"], jnp.concatenate([*before, hidden], -1))
    enter, forget, new, leave = jnp.split(gates, 4, -1)
    cell = sigmoid(forget) * cell + sigmoid(enter) * jnp.tanh(new)
    return sigmoid(leave) * jnp.tanh(cell), cell


def heads(weights, hidden):
    """Probability of a further object, location and scale of where it is."""
    out = layer(weights["heads"], hidden)
    return sigmoid(out[..., 0]), out[..., 1 : 1 + WHERE], softplus(out[..., 1 + WHERE :])


def tents(scale, shift, outputs, inputs):
    """Weights `(..., outputs, inputs)` of linear interpolation, zero outside: output i lies at scale x_i + shift, where the
    places x of either grid go from -1 to 1."""
    at = scale[..., None] * jnp.linspace(-1.0, 1.0, outputs) + shift[..., None]
    return jnp.maximum(0.0, 1 - jnp.abs((at[..., None] + 1) * (inputs - 1) / 2 - jnp.arange(inputs)))


def resample(scale, x, y, picture, size):
    """A picture under a scaling and a shift, interpolated bilinearly: rows and columns each by a matrix."""
    rows, columns = (tents(scale, shift, size, picture.shape[-1]) for shift in (y, x))
    return rows @ picture @ jnp.swapaxes(columns, -1, -2)


def paint(where, window):
    """The image with a window in its place; `where` is (s, x, y), and a window's side is 1 / s of the image's."""
    s, x, y = jnp.moveaxis(where, -1, 0)
    return resample(s, x, y, window, IMAGE)


def attend(where, image):
    """The window of an image: the inverse of `paint`."""
    s, x, y = jnp.moveaxis(where, -1, 0)
    return resample(1 / s, -x / s, -y / s, image, WINDOW)
