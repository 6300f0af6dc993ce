"""The main job on real data: write a model, a guide and an objective; fit; compare with NUTS. Run by `make demo`."""

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import guides.eight_schools
import guides.old_faithful
import models.eight_schools
import models.old_faithful
import ppvi
import ppvi.numpyro as vi
from ppvi.objectives import elbo, iwelbo

OUT = Path("out")
GLOBAL = ["share", "means", "sds"]
"""The sites that the marginalised model has too."""


def eight_schools(key):
    print("\n== Eight schools: an ELBO guide and an IWELBO guide against NUTS ==\n")
    model, data = models.eight_schools.model, (models.eight_schools.EFFECTS, models.eight_schools.ERRORS)
    reference = vi.nuts(model, key, *data, num_warmup=500, target_accept_prob=0.95, progress=False)
    fits = {}
    for name, bound in (("ELBO", elbo), ("IWELBO(10)", iwelbo(10))):
        objective = vi.objective(bound, model, guides.eight_schools.guide())
        fits[name] = vi.fit(objective, key, *data, num_steps=4000)
        if name == "ELBO":
            print(objective.explain(fits[name].params, *data), "\n")
        print(f"{name}: {fits[name]}\n{ppvi.compare(fits[name], reference)}\n")
    resampled = fits["IWELBO(10)"].posterior(draws=4000, particles=10)
    print(
        f"An IWELBO guide is a proposal: its draws, resampled by weight among 10.\n{ppvi.compare(resampled, reference)}\n"
    )
    return reference, fits["ELBO"].posterior(draws=4000), resampled


def old_faithful(key):
    print("\n== Old Faithful: one discrete label per eruption, three gradient strategies ==\n")
    model, guide, data = models.old_faithful.model, guides.old_faithful.guide, models.old_faithful.ERUPTIONS
    reference = vi.nuts(models.old_faithful.marginalised, key, data, num_warmup=500, progress=False)
    fits, variances, common = {}, {}, None
    for strategy in (ppvi.Enumerate(), ppvi.LeaveOneOut(2), ppvi.Reinforce()):
        objective = vi.objective(elbo, model, guide, strategies={"long": strategy})
        schedule = optax.exponential_decay(0.05, 2000, 0.1)
        fit = vi.fit(objective, key, data, num_steps=4000, optimizer=optax.adam(schedule))
        if not fits:
            print(objective.explain(fit.params, data), "\n")
            common = fit.params
        _, grads = jax.vmap(objective.value_and_grad, (0, None, None))(jax.random.split(key, 1000), common, data)
        variances[str(strategy)] = float(grads["label"].var(0).mean())
        fits[str(strategy)] = draws = fit.posterior(draws=4000)
        print(f"{strategy}: {fit}\n{ppvi.compare(draws, reference, var_names=GLOBAL)}")
        print(f"mean variance of the labels' gradient at the first fit: {variances[str(strategy)]:.3g}\n")
    return reference, fits, variances


def figure(schools, faithful, path):
    reference, direct, resampled = schools
    geyser, geyser_fits, variances = faithful
    fig, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    bins = np.linspace(0, 15, 60)
    for name, data in {"NUTS": reference, "ELBO": direct, "IWELBO(10), resampled": resampled}.items():
        axes[0].hist(
            data.posterior["tau"].values.ravel(), bins, density=True, histtype="step", linewidth=1.5, label=name
        )
    axes[0].set(title="Eight schools", xlabel="tau", ylabel="posterior density")
    axes[0].legend(frameon=False)
    draw = {"NUTS": geyser.posterior, **{name: data.posterior for name, data in geyser_fits.items()}}
    for name, posterior in draw.items():
        means = posterior["means"].values.reshape(-1, 2)
        axes[1].scatter(means[:1000, 0], means[:1000, 1], s=3, alpha=0.35, label=name)
    axes[1].set(title="Old Faithful", xlabel="mean of short eruptions (min)", ylabel="mean of long eruptions (min)")
    axes[1].legend(frameon=False, markerscale=3)
    axes[2].bar([name.partition("(")[0] for name in variances], list(variances.values()), width=0.5)
    axes[2].set(title="Variance of the labels' gradient", ylabel="variance", yscale="log")
    fig.savefig(path, dpi=130)


def main():
    key = jax.random.key(0)
    schools, faithful = eight_schools(key), old_faithful(key)
    OUT.mkdir(exist_ok=True)
    figure(schools, faithful, OUT / "demo.png")
    print(f"figure saved to {OUT / 'demo.png'}")


if __name__ == "__main__":
    main()
