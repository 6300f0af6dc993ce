"""Attend, Infer, Repeat: an image shows up to three objects, each with a place and an appearance.

    pres_t ~ Bernoulli(prior_t pres_{t-1})    where_t ~ N((3, 0, 0), (0.2, 1, 1))    what_t ~ N(0, I)
    image ~ N(sum_t pres_t paint(where_t, decode(what_t)), 0.3)

Eslami et al., "Attend, Infer, Repeat: Fast scene understanding with generative models", NeurIPS 2016, with the priors of
Becker, Lew et al. 2024, Figure 7. After the last object further ones are impossible, not only unlikely: the probability of
pres_t is then exactly zero, in the model as in the guide.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from models.air_networks import IMAGE, NOISE, PRESENT, WHAT, WHERE_LOC, WHERE_SCALE, decode, decoder, paint

STEPS = len(PRESENT)
PRESENCE = tuple(f"pres_{t}" for t in range(STEPS))


def model(images):
    """Of images `(n, 50, 50)`."""
    weights = numpyro.param("decoder", decoder)
    with numpyro.plate("images", len(images)):
        present, canvas = 1.0, jnp.zeros((IMAGE, IMAGE))
        for t, prior in enumerate(PRESENT):
            present = numpyro.sample(f"pres_{t}", dist.Bernoulli(prior * present))
            where = numpyro.sample(f"where_{t}", dist.Normal(WHERE_LOC, WHERE_SCALE).to_event(1))
            what = numpyro.sample(f"what_{t}", dist.Normal(jnp.zeros(WHAT), 1.0).to_event(1))
            canvas = canvas + present[..., None, None] * paint(where, decode(weights, what))
        numpyro.sample("image", dist.Normal(canvas, NOISE).to_event(2), obs=images)
