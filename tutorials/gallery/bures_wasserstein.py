# %% [markdown]
# # Forward-backward Gaussian variational inference: gradient descent where Gaussians move mass
#
# The nearest Gaussian to a log density minimises an energy, which is smooth, minus an entropy, which is not. In the space of
# Gaussians under the Wasserstein distance both are convex where the density is log-concave, and the entropy has a proximal
# step in closed form. So a gradient step of the energy, and then the proximal step of the entropy, is an algorithm with
# rates: those that proximal gradient descent has in Euclidean space.

# %%
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ppvi
import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, said, show
from guides.bures_wasserstein import gaussian
from models.bures_wasserstein import regression, rows, spectrum, target
from ppvi.objectives import elbo, stl

ENTRY = Entry(
    name="bures_wasserstein",
    system="Forward-backward Gaussian variational inference via JKO in the Bures-Wasserstein Space",
    family="optimisers",
    engine="NumPyro",
    objective="elbo, stl",
    strategies="Reparam",
    shows="steps of Gaussians in the Wasserstein metric: the rate that was proved, beside natural gradients and Adam",
    paper="Diao, Balasubramanian, Chewi and Salim 2023",
    link="https://arxiv.org/abs/2304.05398",
)
SEEDS, STEPS = range(choose(1, 3)), 2000

# %% [markdown]
# ## The step
# Of $q = N(m, \Sigma)$ and a density $e^{-V}$, with step size $h$,
#
# $$m \leftarrow m - h\,E_q[\nabla V], \qquad S = M \Sigma M, \quad M = I - h\,E_q[\nabla^2 V], \qquad
#   \Sigma \leftarrow \tfrac12\big(S + 2hI + (S(S + 4hI))^{1/2}\big)$$
#
# The objective is a program, and its gradient in $(m, L)$, $\Sigma = LL'$, tells both expectations: the one of $\nabla^2 V$
# by Price's theorem, without second derivatives. The optimizer takes off the entropy's gradient, which is known.


# %%
def bound_of(program, draws, model, dimension, scale=1.0):
    """An objective's mean over so many draws, of a Gaussian guide."""
    return vi.objective(
        lambda p, q: ppvi.replicate(draws, lambda: program(p, q)).mean(), model, gaussian(dimension, scale)
    )


def course(bound, key, data, optimizer, measure, steps, every):
    """What is measured of the parameters, every so many steps."""
    found = [measure(bound.init(key, *data))]
    options = {"optimizer": optimizer, "num_steps": steps, "every": every, "progress": False}
    vi.fit(bound, key, *data, callback=lambda _, fit: found.append(measure(fit.params)), **options)
    return np.array(found)


# %% [markdown]
# ## The rate
# Of a Gaussian target whose precision has eigenvalues from $a = 1$ to $b = 20$ the best Gaussian is the target. The theorem:
# where $h \le 1/b$, each step takes the squared distance $W_2^2$ from it to at most $1 - ha$ of what it was. The path
# derivative (`stl`) of many draws is near to the exact gradient, and its noise vanishes at the optimum.

# %%
show(target)
DIMENSION, LEAST, MOST = 5, 1.0, 20.0


def squared_distance(center, precision, params):
    """W2^2 of N(m, L L') and N(center, precision^-1)."""
    values, ways = np.linalg.eigh(np.linalg.inv(precision))
    root = (ways * np.sqrt(values)) @ ways.T
    covariance = np.asarray(params["L"] @ params["L"].T)
    both = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance @ root), 0)).sum()
    return ((params["m"] - center) ** 2).sum() + np.trace(covariance) + values.sum() - 2 * both


h, rates = 1 / MOST, []
for seed in SEEDS:
    data = spectrum(DIMENSION, LEAST, MOST, seed)
    bound = bound_of(stl, 100, target, DIMENSION, scale=0.3)
    optimizer, distance = ppvi.optimizers.BuresWasserstein(h), functools.partial(squared_distance, *data)
    found = course(bound, jax.random.key(seed), data, optimizer, distance, choose(40, 100), 10)
    rates.append(found / found[0])
rates = np.array(rates)
at = 10 * np.arange(rates.shape[1])
proved = (1 - h * LEAST) ** at
print(f"W2^2 after 40 steps: {said(rates[:, 4], 6)} of the first; the theorem: at most {proved[4]:.6f}")

# %% [markdown]
# ## A posterior
# Logistic regression with a standard normal prior: $a = 1$, and $b = 1 + \lambda_{\max}(X'X) / 4$. One draw a step, as in
# the stochastic algorithm; with a step size that falls, and with the path derivative, beside the plain ELBO. Natural gradients
# are the library's as they come; Adam, which moves unconstrained parameters, has two step sizes. What is
# told is the divergence from the best Gaussian, in nats of the bound, over the same draws for all.

# %%
show(regression)
ROWS, FEATURES, EVERY = choose((50, 3, 20), (300, 10, 20))


def ways(smooth):
    optimizers, h = ppvi.optimizers, 1 / smooth
    return {
        "BW": (elbo, optimizers.BuresWasserstein(h)),
        "BW, falling": (elbo, optimizers.BuresWasserstein(lambda step: h / (1 + step / 100) ** 0.75)),
        "BW, path derivative": (stl, optimizers.BuresWasserstein(h)),
        "natural": (elbo, optimizers.Natural()),
        "Adam, 0.1": (elbo, 0.1),
        "Adam, 0.01": (elbo, 0.01),
    }


gaps = {}
for seed in SEEDS:
    x, y = rows(ROWS, FEATURES, seed)
    measured = bound_of(elbo, 1000, regression, FEATURES)
    start = measured.init(jax.random.key(0), x, y)
    if not FULL:
        assert measured.prove(start, x, y).verdict == "proved"
        break
    value = jax.jit(lambda params, m=measured, x=x, y=y: m.estimate(jax.random.key(99), params, x, y))
    best = vi.approximate(regression, jax.random.key(seed), x, y).params
    top = float(value({"m": jnp.asarray(best["auto_loc"]), "L": jnp.asarray(best["auto_scale_tril"])}))
    for name, (program, optimizer) in ways(1 + np.linalg.eigvalsh(x.T @ x)[-1] / 4).items():
        bound = bound_of(program, 1, regression, FEATURES)
        told = course(bound, jax.random.key(seed), (x, y), optimizer, lambda p, v=value: float(v(p)), STEPS, EVERY)
        gaps.setdefault(name, []).append(top - told)


def first_below(found, nats):
    """Steps until the gap is below so many nats; all of them where it never is."""
    return [EVERY * int(np.argmax(gap < nats)) if (gap < nats).any() else STEPS for gap in found]


near = {name: first_below(found, 1.0) for name, found in gaps.items()}
end = {name: [gap[-10:].mean() for gap in found] for name, found in gaps.items()}
for name in gaps:
    print(f"{name:20} below a nat after {said(near[name], 0)} steps; at the end {said(end[name], 3)} nats")

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
axes[0].plot(at, rates.T, color="tab:blue", lw=1)
axes[0].plot(at, proved, "k--", label="$(1 - ha)^n$, the theorem")
axes[0].set(yscale="log", xlabel="steps", ylabel="$W_2^2$ / the first", title="a Gaussian target, by seed")
axes[0].legend(frameon=False)
for name, found in gaps.items():
    steps = EVERY * np.arange(len(found[0]))
    axes[1].plot(steps, np.median(found, 0), ":" if "path" in name else "-", lw=1.4, label=name)
axes[1].set(yscale="log", xlabel="gradients", ylabel="nats to the best Gaussian", title="logistic regression, median")
axes[1].set_ylim(0.1, 1e3)
axes[1].legend(frameon=False, fontsize=8)
ENTRY.picture(figure)

# %% [markdown]
# ## What came out, what differs from the paper, what to change first
# The rate is that of the theorem, and better: after 40 steps 0.0016 ± 0.0008 of the squared distance is left, where the
# theorem allows 0.13, for it holds for every target between $a$ and $b$.
#
# On the posterior the noise of single draws decides. With the constant step $1/b$ the guide stays 5.2 ± 0.4 nats away, with
# the path derivative 2.7 ± 0.3; with a step that falls it is within a nat after 507 ± 55 gradients, and ends at 0.34 ± 0.05.
# Adam at 0.01 takes 1960 ± 40, two of its three seeds all 2000, and 0.1 never gets there (52 ± 1). Natural gradients are
# the quickest, 287 ± 18 gradients, and end at 0.17 ± 0.01.
#
# The stochastic algorithm of the paper takes the Hessian of $V$ at the draw, which is between $a$ and $b$ whatever the draw.
# Here it is told by the gradient, which costs no second derivatives and is noisier.
#
# Diao, Balasubramanian, Chewi and Salim, "Forward-backward Gaussian variational inference via JKO in the Bures-Wasserstein
# space", ICML 2023.

# %%
ENTRY.record(
    f"W2^2 after 40 steps {said(rates[:, 4], 4)} of the first, at most {proved[4]:.4f} proved; steps to within a nat: "
    + ", ".join(f"{name} {said(steps, 0)}" for name, steps in near.items()),
    seeds=SEEDS,
    steps=STEPS,
    rates=rates,
    near=near,
    end=end,
)
assert (rates <= proved + 1e-5).all()
