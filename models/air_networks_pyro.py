"""The networks and the spatial transformer of `models.air_networks`, in PyTorch."""

import torch
from torch import nn
from torch.nn.functional import leaky_relu, softplus

IMAGE, WINDOW, WHAT, WHERE, UNITS, HIDDEN = 50, 20, 50, 3, 256, 200


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(WHAT, HIDDEN), nn.Linear(HIDDEN, WINDOW**2)

    def forward(self, what):
        """The window, `(..., 20, 20)`, that shows `what`."""
        return self.out(leaky_relu(self.hidden(what), 0.01)).sigmoid().unflatten(-1, (WINDOW, WINDOW))


class Recognition(nn.Module):
    """The guide's networks."""

    def __init__(self):
        super().__init__()
        self.image, self.before = nn.Linear(IMAGE**2, 4 * UNITS), nn.Linear(WHERE + WHAT + 1 + UNITS, 4 * UNITS)
        self.further = nn.Linear(UNITS, 1 + 2 * WHERE)
        self.hidden, self.out = nn.Linear(WINDOW**2, HIDDEN), nn.Linear(HIDDEN, 2 * WHAT)

    def look(self, image):
        """What the image adds to the gates of the LSTM: the same at every step."""
        return self.image(image.flatten(-2))

    def lstm(self, seen, before, state):
        """One step: the gates by the image, by the object before, and by the state (hidden, cell)."""
        hidden, cell = state
        enter, forget, new, leave = (seen + self.before(torch.cat([*before, hidden], -1))).chunk(4, -1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * cell.tanh(), cell

    def heads(self, hidden):
        """Probability of a further object, location and scale of where it is."""
        out = self.further(hidden)
        return out[..., 0].sigmoid(), out[..., 1 : 1 + WHERE], softplus(out[..., 1 + WHERE :])

    def encode(self, window):
        """Location and scale of what a window shows."""
        out = self.out(leaky_relu(self.hidden(window.flatten(-2)), 0.01))
        return out[..., :WHAT], softplus(out[..., WHAT:])


def tents(scale, shift, outputs, inputs):
    """Weights `(..., outputs, inputs)` of linear interpolation, zero outside: output i lies at scale x_i + shift."""
    at = scale[..., None] * torch.linspace(-1.0, 1.0, outputs) + shift[..., None]
    return (1 - ((at[..., None] + 1) * (inputs - 1) / 2 - torch.arange(inputs)).abs()).clamp(min=0)


def resample(scale, x, y, picture, size):
    """A picture under a scaling and a shift, interpolated bilinearly: rows and columns each by a matrix."""
    rows, columns = (tents(scale, shift, size, picture.shape[-1]) for shift in (y, x))
    return rows @ picture @ columns.mT


def paint(where, window):
    """The image with a window in its place; `where` is (s, x, y), and a window's side is 1 / s of the image's."""
    s, x, y = where.unbind(-1)
    return resample(s, x, y, window, IMAGE)


def attend(where, image):
    """The window of an image: the inverse of `paint`."""
    s, x, y = where.unbind(-1)
    return resample(1 / s, -x / s, -y / s, image, WINDOW)
