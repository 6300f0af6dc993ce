"""A pendulum of which physics knows a part: the rest of the force is a network's.

    log w_i ~ N    start_i ~ N(0, 1)    aux_i ~ N(0, I)    angle'' = -w_i^2 sin(angle) + net(angle, angle', aux_i)
    x_it ~ N(angle_i(t), noise)

Real pendulums lose energy, of which the law of the first term does not know. Each has its frequency w, from its length, and its
start, at rest. `physics` is the first term alone. For comparison, "decoder" is a network from the latent numbers and the time
to the angle, and "neural" an equation whose whole force is a network's. Takeishi and Kalousis, "Physics-integrated variational
autoencoders for robust and interpretable generative modeling", NeurIPS 2021.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from models.networks import glorot, perceptron

STEP, WINDOW, AUX, UNITS = 0.05, 50, 2, 32


def swing(force, start, steps):
    """Angles `(n, steps)` of pendulums that start at rest, by the midpoint rule."""

    def step(state, _):
        angle, speed = state
        middle, half = angle + 0.5 * STEP * speed, speed + 0.5 * STEP * force(angle, speed)
        return (angle + STEP * half, speed + STEP * force(middle, half)), angle

    return jax.lax.scan(step, (start, jnp.zeros_like(start)), None, length=steps)[1].T


def gravity(w, angle, speed):
    return -(w**2) * jnp.sin(angle)


def paths(kind, weights, w, start, aux, steps):
    """Angles, by one of the three decoders."""
    if kind == "decoder":
        times = STEP * jnp.arange(steps)
        known = jnp.stack([jnp.log(w), start, *aux.T], -1)[:, None].repeat(steps, 1)
        times = jnp.broadcast_to(times[:, None], (len(w), steps, 1))
        return perceptron(weights, jnp.concatenate([times, known], -1))[..., 0]

    def force(angle, speed):
        seen = [angle, speed, *aux.T] + ([jnp.log(w)] if kind == "neural" else [])
        other = perceptron(weights, jnp.stack(seen, -1))[:, 0]
        return other if kind == "neural" else gravity(w, angle, speed) + other

    return swing(force, start, steps)


def model(x, kind="integrated"):
    """Of angles `(n, WINDOW)`, measured with noise. Returns the path, and what physics alone makes of the same pendulum."""
    inputs = {"decoder": 3 + AUX, "neural": 3 + AUX, "integrated": 2 + AUX}[kind]
    weights = numpyro.param("network", lambda key: glorot(key, inputs, UNITS, *([UNITS] * (kind == "decoder")), 1))
    noise = numpyro.param("noise", jnp.array(0.3), constraint=dist.constraints.positive)
    with numpyro.plate("pendulums", len(x)):
        w = numpyro.sample("w", dist.LogNormal(jnp.log(1.8), 0.4))
        start = numpyro.sample("start", dist.Normal(0.0, 1.0))
        aux = numpyro.sample("aux", dist.Normal(jnp.zeros(AUX), 1.0).to_event(1))
        path = paths(kind, weights, w, start, aux, x.shape[1])
        numpyro.sample("x", dist.Normal(path, noise).to_event(1), obs=x)
    return path, swing(partial(gravity, w), start, x.shape[1])


def physics(x):
    """Pendulums that lose nothing, and measurements of them."""
    with numpyro.plate("pendulums", len(x)):
        w = numpyro.sample("w", dist.LogNormal(jnp.log(1.8), 0.4))
        start = numpyro.sample("start", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(swing(partial(gravity, w), start, x.shape[1]), 0.1).to_event(1), obs=x)


def measured(n, seed, steps):
    """Pendulums with friction: frequencies, angles `(n, steps)`, and the same with noise."""
    rng = np.random.default_rng(seed)
    w, start, friction = (
        rng.uniform(1.0, 3.0, n),
        rng.choice([-1, 1], n) * rng.uniform(0.5, 1.6, n),
        rng.uniform(0.2, 0.8, n),
    )
    angle, speed, angles, fine = start, np.zeros(n), [], 100
    for _ in range(steps):
        angles.append(angle)
        for _ in range(fine):
            speed = speed + STEP / fine * (-(w**2) * np.sin(angle) - friction * speed)
            angle = angle + STEP / fine * speed
    angles = np.stack(angles, 1).astype(np.float32)
    return w, angles, angles + 0.1 * rng.standard_normal(angles.shape).astype(np.float32)
