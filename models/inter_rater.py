"""Several people outline the same spots in pictures, and do not agree; a network with a hidden variable outlines as they do.

    z_ij ~ N(net(x_i))    y_ij ~ Bernoulli(sigmoid(net(x_i, z_ij)))       picture i, rater j

The pictures are made, and so are the raters, whose distribution is known: of a faint spot half of them say that there is none,
of a bright one a tenth; of the others 60% outline it tightly and 40% widely. It is a conditional autoencoder, a probabilistic
U-Net with perceptrons for its networks.

Kohl et al., "A probabilistic U-Net for segmentation of ambiguous images", NeurIPS 2018; Chatterjee et al., "PULASki", 2023.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, normal, perceptron

SIDE, LATENT, HIDDEN = 10, 3, 64
MISSED, TIGHT = (0.5, 0.1), 0.6


def pictures(n, seed):
    """Pictures `(n, pixels)`; outlines of each, `(n, 3, pixels)`: none, tight, wide; the shares of raters, `(n, 3)`."""
    rng = np.random.default_rng(seed)
    middle, radius = rng.uniform(4.0, SIDE - 4.0, (n, 2, 1)), rng.uniform(2.0, 3.0, (n, 1))
    far = np.hypot(*(np.indices((SIDE, SIDE)).reshape(2, 1, -1) + 0.5 - middle.transpose(1, 0, 2)))
    bright = rng.random(n) < 0.5
    spot = np.where(bright, 1.5, 0.7)[:, None] / (1 + np.exp((far - radius) / 0.5))
    outlines = np.stack([0 * far, far < radius - 0.6, far < radius + 0.8], 1)
    missed = np.where(bright, MISSED[1], MISSED[0])
    shares = np.stack([missed, (1 - missed) * TIGHT, (1 - missed) * (1 - TIGHT)], 1)
    return np.float32(spot + 0.3 * rng.normal(size=spot.shape)), np.float32(outlines), shares


def rated(outlines, shares, raters, seed):
    """What so many raters say of each picture: `(n, raters, pixels)`."""
    chance = np.random.default_rng(seed).random((len(shares), raters, 1))
    which = (chance > shares.cumsum(1)[:, None]).sum(2)
    return np.take_along_axis(outlines, which[..., None], 1)


def outline(weights, x, z):
    """Logits of pixels, of pictures `(..., pixels)` and numbers `(..., 3)`."""
    return perceptron(weights, jnp.concatenate([x, z], -1))


def model(x, y):
    """Of pictures `(n, pixels)` and raters' outlines `(n, raters, pixels)`; returns prior, chances of pixels, outlines."""
    pixels = x.shape[1]
    prior = numpyro.param("prior", lambda key: glorot(key, pixels, HIDDEN, 2 * LATENT))
    decoder = numpyro.param("decoder", lambda key: glorot(key, pixels + LATENT, HIDDEN, pixels))
    each = jnp.broadcast_to(x[:, None], y.shape)
    with numpyro.plate("pictures", len(x), dim=-2), numpyro.plate("raters", y.shape[1], dim=-1):
        before = normal(perceptron(prior, each))
        logits = outline(decoder, each, numpyro.sample("z", before))
        numpyro.sample("y", dist.Bernoulli(logits=logits).to_event(1), obs=y)
    return before, jax.nn.sigmoid(logits), y


def outlines_of(params, key, x, n):
    """So many outlines of each picture, `(n, pictures, pixels)` of zeros and ones, at numbers from the prior."""
    before = normal(perceptron(params["prior"], x))
    z = before.sample(key, (n,))
    return outline(params["decoder"], jnp.broadcast_to(x, (n, *x.shape)), z) > 0


def agreement(drawn, outlines, shares):
    """Of drawn outlines `(draw, picture, pixels)`, beside the raters' distribution, means over pictures.

    `variation` is the distance in total variation of the shares of outlines to which draws are nearest, `missed` the error of
    the share of empty ones, `off` how many pixels a draw is from the nearest outline, and `energy` the squared generalised
    energy distance by 1 - IoU.
    """
    drawn = np.asarray(drawn, np.float32)
    apart = np.abs(drawn[:, :, None] - outlines).sum(-1)
    share = np.stack([(apart.argmin(-1) == k).mean(0) for k in range(outlines.shape[1])], 1)
    half = len(drawn) // 2
    own = unlike(drawn[:half], drawn[half : 2 * half]).mean(0)
    cross = (unlike(drawn[:, :, None], outlines) * shares).sum(-1).mean(0)
    among = np.einsum("ni,nij,nj->n", shares, unlike(outlines[:, :, None], outlines[:, None]), shares)
    return {
        "variation": float(0.5 * np.abs(share - shares).sum(1).mean()),
        "missed": float(np.abs(share - shares)[:, 0].mean()),
        "off": float(apart.min(-1).mean()),
        "energy": float((2 * cross - own - among).mean()),
    }


def unlike(a, b):
    """1 - IoU of outlines `(..., pixels)`, 0 of two empty ones."""
    union = np.maximum(a, b).sum(-1)
    return np.where(union > 0, 1 - np.minimum(a, b).sum(-1) / np.maximum(union, 1), 0.0)
