"""PyTorch's gradient modes inside of programs and around calls: what is computed without gradients is constant."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppvi
import ppvi.pyro as vi
from ppvi.objectives import elbo


def under_no_grad(w):
    with torch.no_grad():
        return 3 * w


def under_inference_mode(w):
    with torch.inference_mode():
        return 3 * w


def switched_off(w):
    torch.set_grad_enabled(False)
    c = 3 * w
    torch.set_grad_enabled(True)
    return c


@torch.no_grad()
def decorated(w):
    return torch.nn.functional.relu(3 * w)


def written_in_place(w):
    c = torch.zeros(2)
    with torch.no_grad():
        c[0] = 2 * w
        c[1] = w
    return c.sum()


def switched_on_again(w):
    with torch.no_grad(), torch.enable_grad():
        return 3 * w


CONSTANT = [under_no_grad, under_inference_mode, switched_off, decorated, written_in_place, lambda w: (3 * w).detach()]


def objective_of(how, branching=False):
    """log N(z | c, 1) + log N(1.5 | v z, 1) at z = 0.5, where c is how(w), and w = 2."""

    def model():
        c = how(pyro.param("w", lambda: torch.tensor(2.0)))
        v = pyro.param("v", lambda: torch.tensor(0.7))
        if branching and v > 100:  # a number that is read out of a tensor, so the program is replayed
            return
        z = pyro.sample("z", dist.Normal(c, 1.0))
        pyro.sample("x", dist.Normal(v * z, 1.0), obs=torch.tensor(1.5))

    def guide():
        pyro.sample("z", dist.Delta(pyro.param("loc", lambda: torch.tensor(0.5))))

    return vi.objective(elbo, model, guide)


SLOPES = {"v": (1.5 - 0.35) * 0.5, "loc": -(0.5 - 6.0) + (1.5 - 0.35) * 0.7}
"""Of the parameters but w: with z = 0.5, (x - v z) z and c - z + (x - v z) v."""


@pytest.mark.parametrize("branching", [False, True], ids=["staged", "replayed"])
@pytest.mark.parametrize(("how", "slope"), [*((how, 0.0) for how in CONSTANT), (switched_on_again, 3 * (0.5 - 6.0))])
def test_what_a_program_computes_without_gradients_is_constant(how, slope, branching):
    bound = objective_of(how, branching)
    params = bound.init(0)
    for around in (torch.enable_grad, torch.no_grad):
        with around():
            grads = bound.value_and_grad(0, params)[1]
        leaves = {name: x.clone().requires_grad_() for name, x in params.items()}
        by_tape = torch.autograd.grad(
            bound.surrogate(0, leaves), list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        for found in (grads, dict(zip(leaves, by_tape, strict=True))):
            for name, expected in {**SLOPES, "w": slope}.items():
                assert abs(float(found[name]) - expected) < 1e-3, (name, around)


def test_gradients_after_an_estimate_are_what_they_would_have_been():
    bound = objective_of(switched_on_again)
    params = bound.init(0)
    bound.estimate(0, params)
    assert abs(float(bound.value_and_grad(0, params)[1]["w"]) - 3 * (0.5 - 6.0)) < 1e-3


@pytest.mark.parametrize("how", CONSTANT)
def test_the_static_check_finds_it(how):
    bound = objective_of(how)
    found = [f for f in bound.prove(bound.init(0)).findings if f.severity != "note"]
    assert ("held constant", "parameter 'w'") in {(finding.rule, finding.subject) for finding in found}
    assert all("test_gradient_modes.py" in finding.where for finding in found)


@pytest.mark.parametrize("branching", [False, True], ids=["staged", "replayed"])
@pytest.mark.parametrize(
    ("kind", "strategy", "slope"),
    [
        (lambda loc: dist.Bernoulli(logits=loc), ppvi.Enumerate(), 0.244458),  # p (1 - p), with logit 0.3
        (lambda loc: dist.Normal(loc, 1e-3), ppvi.Reparam(), 0.0),
    ],
    ids=["credit", "path"],
)
def test_credit_is_the_objectives_and_the_path_is_the_programs(kind, strategy, slope, branching):
    """d/dl E z^2 of a draw under `no_grad`: by Pyro's rules its score counts, which is computed outside, and its path does not."""

    def program(p, q):
        z = q.simulate()["z"]
        return z**2 if not branching or z < 100 else z

    def guide():
        fn = kind(pyro.param("loc", lambda: torch.tensor(0.3)))
        with torch.no_grad():
            pyro.sample("z", fn)

    bound = vi.objective(program, lambda: None, guide, strategies={"z": strategy})
    assert abs(float(bound.value_and_grad(0, bound.init(0))[1]["loc"]) - slope) < 1e-5


@pytest.mark.parametrize(
    "written",
    [
        lambda buffer, m: buffer.add_(other=m),
        lambda buffer, m: torch.add(m, 0.0, out=buffer),
        lambda buffer, m: buffer.copy_(torch.as_tensor(data=m)),
    ],
    ids=["by name", "into a result", "as a tensor again"],
)
def test_what_is_written_without_gradients_is_constant(written):
    def guide():
        m, buffer = pyro.param("m", lambda: torch.tensor(0.7)), torch.zeros(())
        with torch.no_grad():
            written(buffer, m)
        pyro.sample("z", dist.Normal(buffer + pyro.param("c", lambda: torch.tensor(0.1)), 1.0))

    bound = vi.objective(lambda p, q: q.simulate()["z"] ** 2, lambda: None, guide)
    _, grads = bound.value_and_grad(0, {"m": torch.tensor(0.7), "c": torch.tensor(0.1)})
    assert float(grads["m"]) == 0.0
    assert float(grads["c"]) != 0.0
