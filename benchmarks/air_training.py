"""Attend, Infer, Repeat: how often each estimator's guide counts right, and its bound, against time spent on gradients.

The experiment of Becker, Lew et al. 2024, Figure 7, on fewer images: 41 epochs of 6,400 multi-MNIST images in batches of 64,
Adam with step size 0.0003, one seed. Count accuracy and ELBO are of 1,000 other images, one draw each. Estimators take
turns, an epoch each, so that what else the machine does falls on all of them alike. Run with
`python -m benchmarks.air_training`; it writes `out/air_training.csv` and `out/air_training.png`.

The whole data set, once an estimator is chosen, with a step size that falls to nothing along a cosine, as counting needs:
`python -m benchmarks.air_training --only "REINFORCE + baseline" --epochs 15 --images 60000 --step 0.001 --anneal
--to out/air_whole`.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpyro
import optax

import ppvi.numpyro as vi
from guides.air import ESTIMATORS, guide
from models.air import PRESENCE, model
from models.multi_mnist import multi_mnist
from ppvi.objectives import elbo

BATCH, HELD_OUT = 64, 1000
OWNER = {"model": "decoder", "guide": "recognition"}


class Run:
    """One estimator's training."""

    def __init__(self, name, images, step_size):
        objective, strategies = ESTIMATORS[name]
        pairs = objective if isinstance(objective, list) else [(objective, None)]
        self.name, self.seconds, self.epochs, self.key = name, 0.0, 0, jax.random.key(1)
        self.bounds = [(vi.objective(part, model, guide, strategies=strategies), whose) for part, whose in pairs]
        first = images[:BATCH]
        self.params = self.bounds[0][0].init(jax.random.key(0), first)
        self.states = [bound.states(self.params, first) for bound, _ in self.bounds]
        self.rule = optax.adam(step_size)
        self.adam = self.rule.init(self.params)
        self._epoch = jax.jit(self._train).lower(*self.state, images).compile()

    @property
    def state(self):
        return self.params, self.adam, self.states, self.key

    def _train(self, params, adam, states, key, images):
        def step(carry, inputs):
            (params, adam, states), (key, batch) = carry, inputs
            grads, after = {}, []
            for (bound, whose), state in zip(self.bounds, states, strict=True):
                _, g, state = bound.update(key, params, state, batch)
                after.append(state)
                sign = -1.0 if bound.maximize else 1.0
                names = params if whose is None else [OWNER[whose]]
                grads |= {name: jax.tree.map(lambda x, sign=sign: sign * x / BATCH, g[name]) for name in names}
            updates, adam = self.rule.update(grads, adam)
            return (optax.apply_updates(params, updates), adam, after), None

        key, order, draws = jax.random.split(key, 3)
        batches = jax.random.permutation(order, images)[: len(images) // BATCH * BATCH].reshape(-1, BATCH, 50, 50)
        inputs = (jax.random.split(draws, len(batches)), batches)
        return *jax.lax.scan(step, (params, adam, states), inputs)[0], key

    def epoch(self, images):
        start = time.perf_counter()
        self.params, self.adam, self.states, self.key = jax.block_until_ready(self._epoch(*self.state, images))
        self.seconds += time.perf_counter() - start
        self.epochs += 1


def evaluator(images, counts):
    bound = vi.objective(elbo, model, guide)

    @jax.jit
    def evaluate(key, params):
        drawn = numpyro.handlers.trace(numpyro.handlers.seed(numpyro.handlers.substitute(guide, params), key))
        sites = drawn.get_trace(images)
        found = sum(sites[name]["value"] for name in PRESENCE)
        return (found == counts).mean(), bound.estimate(key, params, images) / len(images)

    return evaluate


def draw_figure(rows, path):
    figure, axes = plt.subplots(2, 2, figsize=(12, 8), constrained_layout=True)
    for name in dict.fromkeys(row["estimator"] for row in rows):
        own = [row for row in rows if row["estimator"] == name]
        for axis, y in zip(axes, ("accuracy", "elbo"), strict=True):
            for panel, x in zip(axis, ("seconds", "epoch"), strict=True):
                panel.plot([row[x] for row in own], [row[y] for row in own], label=name, lw=1.3)
    for axis, y in zip(axes, ("count accuracy", "ELBO, nats per image"), strict=True):
        for panel, x in zip(axis, ("seconds of gradient steps", "epochs"), strict=True):
            panel.set(xlabel=x, ylabel=y)
    for panel in axes[1]:
        panel.set_ylim(bottom=450)
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ESTIMATORS, action="append", help="this estimator, and no other")
    parser.add_argument("--epochs", type=int, default=41)
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--step", type=float, default=3e-4)
    parser.add_argument("--anneal", action="store_true", help="lower the step size to zero along a cosine")
    parser.add_argument("--to", type=Path, default=Path("out/air_training"), help="without .csv and .png")
    return parser.parse_args()


def write(rows, to):
    with to.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    draw_figure(rows, to.with_suffix(".png"))


def main():
    asked = options()
    pictures, counts = multi_mnist(asked.images + HELD_OUT)
    train, test = jnp.asarray(pictures[: asked.images]), jnp.asarray(pictures[asked.images :])
    evaluate = evaluator(test, jnp.asarray(counts[asked.images :]))
    asked.to.parent.mkdir(exist_ok=True)
    steps = asked.epochs * (asked.images // BATCH)
    step_size = optax.cosine_decay_schedule(asked.step, steps) if asked.anneal else asked.step
    runs, rows = [Run(name, train, step_size) for name in asked.only or ESTIMATORS], []
    for epoch in range(asked.epochs):
        for run in runs:
            run.epoch(train)
            accuracy, bound = map(float, evaluate(jax.random.key(epoch), run.params))
            row = {"estimator": run.name, "epoch": run.epochs, "seconds": run.seconds}
            rows.append(row | {"accuracy": accuracy, "elbo": bound})
            print(
                f"{run.name}: epoch {run.epochs}, {run.seconds:.0f} s, accuracy {accuracy:.3f}, ELBO {bound:.1f}",
                flush=True,
            )
        write(rows, asked.to)


if __name__ == "__main__":
    main()
