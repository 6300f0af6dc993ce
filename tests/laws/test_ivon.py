"""IVON: its steps are the paper's, its precision stays positive, and it is at rest at the posterior where that is Gaussian."""

from dataclasses import replace

import numpy as np
import pytest

import ppvi
import ppvi.numpyro
from ppvi.optimizers import IVON
from ppvi.optimizers.ivon import Newton, positive

ESS, DECAY, START = 50.0, 0.02, 0.3
RULE = IVON(0.1, beta1=0.9, beta2=0.97, prior_precision=ESS * DECAY)
H, A = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 0.4]]), np.array([1.0, -2.0, 0.5])


def of_the_paper(gradients, noise, rate, beta1, beta2, n, radius=np.inf):
    """Algorithm 1 of Shen et al. 2024 in its own letters; the loss's gradient is a function of weights."""
    m, h, g = np.zeros(3), np.full(3, START), np.zeros(3)
    for t in range(1, n + 1):
        sigma = 1 / np.sqrt(ESS * (h + DECAY))
        theta = m + sigma * noise[t - 1]
        g_hat = gradients(theta)
        h_hat = g_hat * (theta - m) / sigma**2
        g = beta1 * g + (1 - beta1) * g_hat
        h = beta2 * h + (1 - beta2) * h_hat + 0.5 * (1 - beta2) ** 2 * (h - h_hat) ** 2 / (h + DECAY)
        m = m - rate * np.clip((g / (1 - beta1**t) + DECAY * m) / (h + DECAY), -radius, radius)
    return m, 1 / np.sqrt(ESS * (h + DECAY))


def start():
    return Newton(np.zeros(3), np.full(3, ESS * (START + DECAY)), np.zeros(3))


@pytest.mark.parametrize("clip", [None, 0.3])
def test_steps_are_those_of_the_paper(clip):
    noise, rule = np.random.default_rng(0).normal(size=(40, 3)), replace(RULE, clip=clip)
    at = start()
    for t in range(40):
        draw = at.mean + noise[t] * at.precision**-0.5
        at = rule.after(at, ESS * H @ (draw - A), draw, t)
    mean, scale = of_the_paper(lambda theta: H @ (theta - A), noise, 0.1, 0.9, 0.97, 40, clip or np.inf)
    np.testing.assert_allclose(at.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(at.precision**-0.5, scale, rtol=1e-10)


def test_the_objectives_own_gradient_has_the_same_steps():
    """Of minus the ELBO with a closed prior at m + scale eps: g + P m in the mean; g eps + P scale - 1 / scale in the scale."""
    noise, prior = np.random.default_rng(1).normal(size=(40, 3)), RULE.prior_precision
    memory, at = np.zeros(3), {"loc": np.zeros(3), "scale": start().precision ** -0.5}
    for t in range(40):
        g = ESS * H @ (at["loc"] + at["scale"] * noise[t] - A)
        down = {"loc": g + prior * at["loc"], "scale": g * noise[t] + prior * at["scale"] - 1 / at["scale"]}
        at, memory = RULE.update(None, at, {name: -x for name, x in down.items()}, memory, t, None)
    mean, scale = of_the_paper(lambda theta: H @ (theta - A), noise, 0.1, 0.9, 0.97, 40)
    np.testing.assert_allclose(at["loc"], mean, rtol=1e-10)
    np.testing.assert_allclose(at["scale"], scale, rtol=1e-10)


def test_at_rest_in_the_best_mean_field_gaussian():
    """Of a posterior N(b, Q^-1): the mean is b, the precisions Q's diagonal, for expected gradients."""
    precision = ESS * H + RULE.prior_precision * np.eye(3)
    best = np.linalg.solve(precision, ESS * H @ A)
    at = start()
    for t in range(3000):
        at = RULE.stepped(at, precision @ (at.mean - best), np.diag(precision) - at.precision, t)
    np.testing.assert_allclose(at.mean, best, rtol=1e-8)
    np.testing.assert_allclose(at.precision, np.diag(precision), rtol=1e-8)


def test_precisions_stay_positive():
    """At least half is left, whatever is estimated; without the square they would become negative here."""
    changes = np.concatenate([-np.logspace(-3, 4, 50), np.logspace(-3, 4, 50)])
    assert (2.0 + changes).min() < 0
    assert (positive(2.0, changes) >= 1.0).all()
    np.testing.assert_allclose(positive(2.0, -2.0), 1.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"beta1": 1.0}, "beta1"),
        ({"beta2": -0.1}, "beta2"),
        ({"prior_precision": -1.0}, "prior_precision"),
        ({"clip": 0.0}, "clip"),
    ],
)
def test_what_is_no_option_is_refused(options, says):
    with pytest.raises(ppvi.ProgramError, match=f"IVON: {says} must be"):
        IVON(**options)


# Without a guide ----------------------------------------------------------------------------------------------------------


def test_on_optax_steps_are_those_of_the_paper():
    import jax
    import jax.numpy as jnp
    import optax

    with jax.enable_x64(True):
        rule = ppvi.numpyro.ivon(RULE, ess=ESS, scale=float(start().precision[0] ** -0.5))
        means = {"w": jnp.zeros(3)}
        state, noise = rule.init(means), []

        @jax.jit
        def step(key, means, state):
            draw = rule.draw(key, means, state)
            updates, after = rule.update({"w": H @ (draw["w"] - A)}, state, means, draw=draw)
            return optax.apply_updates(means, updates), after, (draw["w"] - means["w"]) * state.precision["w"] ** 0.5

        for key in jax.random.split(jax.random.key(0), 40):
            means, state, eps = step(key, means, state)
            noise.append(np.asarray(eps))
        assert np.std(noise) == pytest.approx(1, abs=0.3)  # of 120 normal numbers: 4.6 standard errors
        mean, scale = of_the_paper(lambda theta: H @ (theta - A), noise, 0.1, 0.9, 0.97, 40)
        np.testing.assert_allclose(means["w"], mean, rtol=1e-9)
        np.testing.assert_allclose(state.precision["w"] ** -0.5, scale, rtol=1e-9)


def quadratic(w):
    torch = pytest.importorskip("torch")
    return 0.5 * (w - torch.tensor(A)) @ torch.tensor(H) @ (w - torch.tensor(A))


def on_torch(w):
    import ppvi.pyro

    return ppvi.pyro.ivon(RULE, ess=ESS, scale=float(start().precision[0] ** -0.5))([w])


def test_on_pytorch_steps_are_those_of_the_paper_and_go_on_from_a_state():
    torch = pytest.importorskip("torch")
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer, random, noise = on_torch(w), torch.Generator().manual_seed(0), []
    for t in range(40):
        if t == 20:  # as in another process
            kept = optimizer.state_dict()
            w = w.detach().clone().requires_grad_()
            optimizer = on_torch(w)
            optimizer.load_state_dict(kept)
        before, precision = w.detach().clone(), optimizer.state[w]["precision"]
        optimizer.zero_grad()
        with optimizer.drawn(random):
            noise.append(((w.detach() - before) * precision**0.5).numpy())
            quadratic(w).backward()
        assert torch.equal(w.detach(), before)
        optimizer.step()
    mean, scale = of_the_paper(lambda theta: H @ (theta - A), noise, 0.1, 0.9, 0.97, 40)
    np.testing.assert_allclose(w.detach(), mean, rtol=1e-9)
    np.testing.assert_allclose(optimizer.state[w]["precision"] ** -0.5, scale, rtol=1e-9)


def test_on_pytorch_a_closure_is_called_at_a_draw_and_a_gradient_at_the_mean_is_refused():
    torch = pytest.importorskip("torch")
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer, seen = on_torch(w), []

    def closure():
        optimizer.zero_grad()
        seen.append(w.detach().clone())
        loss = quadratic(w)
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == pytest.approx(float(quadratic(seen[0])))
    assert float(seen[0].abs().min()) > 0
    quadratic(w).backward()
    with pytest.raises(ppvi.ProgramError, match="take them within"):
        optimizer.step()


def test_on_pytorch_a_step_is_of_the_draw_that_its_gradient_is_at():
    """A prediction between the two is at another draw; gradients at two draws are no gradient."""
    torch = pytest.importorskip("torch")
    after = []
    for predicts in (False, True):
        w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        optimizer, random = on_torch(w), torch.Generator().manual_seed(0)
        with optimizer.drawn(random):
            quadratic(w).backward()
        if predicts:
            with optimizer.drawn(random), torch.no_grad():
                quadratic(w)
        optimizer.step()
        after.append((w.detach(), optimizer.state[w]["precision"]))
    assert all(torch.equal(one, other) for one, other in zip(*after, strict=True))
    optimizer.zero_grad()
    with optimizer.drawn(random):
        quadratic(w).backward()
    with pytest.raises(ppvi.ProgramError, match="at two draws"), optimizer.drawn(random):
        quadratic(w).backward()
