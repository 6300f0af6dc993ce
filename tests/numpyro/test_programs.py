"""Programs made from programs, as a user meets them: what they return, and what they say when they do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import ppvi
import ppvi.numpyro as vi
from ppvi import objectives

KEY = jax.random.key(0)


def model():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=1.0)


def flat():
    numpyro.sample("x", dist.Normal(numpyro.param("m", 0.0), 1.0))


def deep():
    u = numpyro.sample("u", dist.Normal(numpyro.param("m", 0.0), 1.0))
    v = numpyro.sample("v", dist.Normal(u, 1.0))
    numpyro.sample("x", dist.Normal(u + v, 1.0))


def half(z):
    numpyro.sample("u", dist.Normal(z["x"], 1.0))


def full(z):
    half(z)
    numpyro.sample("v", dist.Normal(z["x"], 1.0))


def extra(z):
    full(z)
    numpyro.sample("w", dist.Normal(0.0, 1.0))


def second(z):
    numpyro.sample("z", dist.Normal(z["x"], 1.0))


def again(z):
    numpyro.sample("x", dist.Normal(z["x"], 1.0))


m, n = ppvi.marginal, ppvi.normalize

ERRORS = [
    (lambda p, q: m(q, ["z"]).simulate(), deep, r"marginal over \['z'\]: the program has no latent site 'z'; it has \['u', 'v', 'x'\]"),
    (lambda p, q: m(q, ["z"]).assess({"z": 1.0}), deep, r"marginal over \['z'\]: the choices have 'z', but the guide has no such"),
    (lambda p, q: m(p, ["y"]).simulate(), deep, "site 'y' is observed, so it has one value and no marginal"),
    (lambda p, q: m(q, ["x"], half).simulate(), deep, "proposal must draw the other sites and no more: the choices have 'v', but the program half"),
    (lambda p, q: m(q, ["x"], half).assess({"x": 1.0}), deep, r"must draw the other sites and no more: latent site 'v' of the guide at \S+:\d+"),
    (lambda p, q: m(q, ["x"], extra).simulate(), deep, r"latent site 'w' of the program extra at \S+:\d+"),
    (lambda p, q: m(q, ["x"], extra).assess({"x": 1.0}), deep, "the choices have 'w', but the guide has no such"),
    (lambda p, q: m(q, ["x"], full, 0), deep, "the number of particles must be an int of at least 1, not 0"),
    (lambda p, q: m(q, ["x"], 3), deep, "the proposal must be a program, or a function of the kept choices, not 3"),
    (lambda p, q: m(q, ["x"], full).assess({"x": 1.0, "u": 2.0}), deep, r"the choices have \['u', 'x'\], but the density is one of \['x'\] exactly"),
    (lambda p, q: m(q, []).simulate(), deep, "with no site kept its density is 1"),
    (lambda p, q: m(p, ["x"]).simulate(observe=False), deep, "its observations cannot be drawn"),
    (lambda p, q: m(q, ["x"], per="data").simulate(), deep, r"per plate 'data': no site of this run is in such a plate; its plates are \[\]"),
    (lambda p, q: m(n(p, q, 2), ["x"]).assess({"x": 1.0}), flat, "simulate draws every site and conditions on every observation"),
    (lambda p, q: n(p, q, 2).simulate(), deep, "the target of step 1: the choices have 'u', 'v', but the model has no such latent site"),
    (lambda p, q: n(p, q, 0), flat, "the number of particles must be an int of at least 1, not 0"),
    (lambda p, q: n(p, 3, 2), flat, "a proposal or kernel must be a program, or a function of choices, not 3"),
    (lambda p, q: n([p, p], [q], 2), flat, "2 targets, 1 proposals and 2 backward kernels do not make steps"),
    (lambda p, q: n([p, p], [q, second], 2).simulate(), flat, "the target of step 2: the choices have 'z', but the model has no such"),
    (lambda p, q: n([p, p], [q, again], 2).simulate(), flat, r"the proposal draws \['x'\] again, which the step before had drawn"),
    (lambda p, q: n([p, p], [q, again], 2, backward=[None, second]).simulate(), flat, "the backward kernel of step 2: latent site 'z' of the program second"),
    (lambda p, q: n([p, p], [None, again], 2), flat, "the first step needs a proposal"),
    (lambda p, q: n(p, q, 2).simulate(given={"x": 1.0}), flat, "condition the programs that it is made of instead"),
    (lambda p, q: ppvi.tempered(p, q, 0.3).simulate(), flat, "a tempered density has no sampler of its own"),
    (lambda p, q: q.simulate(given={"w": 1.0}), flat, "the choices have 'w', but the guide has no such latent site"),
    (lambda p, q: q.simulate(given={"x": jnp.ones(3)}), flat, r"site 'x' of the guide at \S+:\d+ has shape \(\), .* its choice has shape \(3,\)"),
    (lambda p, q: objectives.elbo(p, q), deep, "integrate it out with ppvi.marginal"),
    (lambda p, q: objectives.stl(p, m(q, ["x"])), deep, r"stl: the guide is a marginal over \['x'\], whose density is estimated"),
    (lambda p, q: objectives.log_variance(2)(p, m(q, ["x"])), deep, r"log_variance: the guide is a marginal over \['x'\]"),
    (lambda p, q: objectives.dreg(2)(p, m(q, ["x"])), deep, "the draw of site 'x' does not carry its own gradient"),
    (lambda p, q: objectives.beta_elbo({"w": 2.0})(p, q), flat, "site 'w' has no density of its own in the guide"),
    (lambda p, q: objectives.f_divergence("jeffreys"), flat, "the name must be 'reverse-kl' or"),
    (lambda p, q: objectives.alpha_divergence(1), flat, "order 1 is a KL divergence"),
    (lambda p, q: objectives.chi_square(1.0), flat, "a finite number above 1, not 1.0"),
    (lambda p, q: objectives.log_variance(1), flat, "an int of at least 2, not 1"),
    (lambda p, q: objectives.thermodynamic([0.0, 0.5, 0.4], 2), flat, "betas must rise from 0 to below 1"),
    (lambda p, q: ppvi.each(lambda a, b: a, jnp.ones(3), jnp.ones(4)), flat, r"the stacks must share the size of their leading axis"),
    (lambda p, q: ppvi.each(lambda: 1.0), flat, "there is nothing to run over"),
    (lambda p, q: ppvi.handle(3), flat, "a program must be a function, not 3"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "guide", "message"), ERRORS, ids=[message[:50] for _, _, message in ERRORS])
def test_what_does_not_fit_is_named(program, guide, message):
    with pytest.raises((ppvi.ProgramError, ppvi.StrategyError), match=message):
        vi.objective(program, model, guide).init(KEY)


def test_dreg_refuses_a_strategy_that_is_not_pathwise():
    bound = vi.objective(objectives.dreg(3), model, flat, strategies={"x": ppvi.Reinforce()})
    with pytest.raises(ppvi.StrategyError, match=r"site 'x' .* Name Reparam\(\) for it, or use `iwelbo`"):
        bound.estimate(KEY, {"m": jnp.array(0.0)})


def value(program, *args, model=model, guide=flat, params=None):
    """One estimate of a program's result, parameters or not."""

    def with_parameter(p, q):
        return program(p, q) + 0.0 * numpyro.param("m", 0.0)

    bound = vi.objective(with_parameter, model, guide)
    return bound.value_and_grad(KEY, params or bound.init(KEY, *args), *args)


def test_given_sites_are_not_drawn_and_weigh_the_run():
    def program(p, q):
        z = q.simulate(given={"u": 0.3, "x": 1.0})
        expected = dist.Normal(0.0, 1.0).log_prob(0.3) + dist.Normal(0.3 + z["v"], 1.0).log_prob(1.0)
        return z.log_weight(["u", "x"]) - expected

    np.testing.assert_allclose(value(program, guide=deep)[0], 0.0, atol=1e-6)


def test_stopped_parameters():
    def program(p, q):
        z = q.simulate(stop_params=True)
        return z["x"] + q.log_density({"x": 1.5}) + 10.0 * q.log_density({"x": 1.5}, stop_params=True)

    _, grads = value(program)
    np.testing.assert_allclose(grads["m"], 1.5, rtol=1e-6)


def test_observations_may_be_drawn():
    def program(p, q):
        dream = p.simulate(observe=False)
        assert set(dream) == {"x", "y"}
        assert set(p.simulate()) == {"x"}
        # The drawn observation is no choice that the guide must have.
        return jnp.where(dream["y"] == 1.0, jnp.nan, q.log_density(dream) * 0.0)

    assert value(program)[0] == 0.0


def test_other_arguments():
    def model(y, scale=1.0):
        numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(0.0, scale), obs=y)

    def guide(y, scale=1.0):
        numpyro.sample("x", dist.Normal(numpyro.param("m", 0.0), 1.0))

    def program(p, q):
        x = {"x": 0.0}
        once, twice = p.bind(2.0, scale=3.0).log_density(x), m(p, ["x"]).bind(2.0, scale=3.0).log_density(x)
        return jnp.stack([once, twice, n(p, q, 1).bind(2.0, scale=3.0).log_density(x) - q.log_density(x)]).sum()

    each = dist.Normal(0.0, 1.0).log_prob(0.0) + dist.Normal(0.0, 3.0).log_prob(2.0)
    np.testing.assert_allclose(value(program, 1.0, model=model, guide=guide)[0], 2 * each, rtol=1e-6)


def test_other_arguments_reach_proposals_too():
    """A proposal that is a function is called with the choices, if there are any, and then with the arguments bound."""

    def model(y):
        numpyro.sample("x", dist.Normal(y, 1.0))

    def deep(y):
        u = numpyro.sample("u", dist.Normal(y, 1.0))
        numpyro.sample("x", dist.Normal(u, 1.0))

    def reverse(z, y):
        numpyro.sample("u", dist.Normal((z["x"] + y) / 2, 0.5**0.5))

    def program(p, q):
        # The reverse program is the posterior of u, so one particle gives the density exactly, at the new argument only.
        off = m(q, ["x"], reverse).bind(3.0).log_density({"x": 2.0}) - dist.Normal(3.0, 2**0.5).log_prob(2.0)
        evidence = n(p, model, 2).bind(3.0).log_evidence()
        return (
            jnp.abs(off) + jnp.abs(evidence) + jnp.abs(ppvi.handle(reverse, {"x": 1.0}).bind(3.0).simulate()["u"] * 0)
        )

    np.testing.assert_allclose(value(program, 0.0, model=model, guide=deep)[0], 0.0, atol=1e-5)


def test_several_plates_are_kept_in_the_order_asked_for():
    def guide():
        with numpyro.plate("columns", 3, dim=-1), numpyro.plate("rows", 2, dim=-2):
            numpyro.sample("x", dist.Normal(numpyro.param("m", 0.0), jnp.ones((2, 3, 4))).to_event(1))

    def program(p, q):
        z = q.simulate()
        by_site = q.log_probs(z)["x"]
        kept = q.log_density(z, per=["columns", "rows"])
        assert kept.shape == (3, 2)
        assert z.per(("rows", "columns")).shape == (2, 3)
        assert z.per("rows").shape == (2,)
        return jnp.abs(kept - by_site.T).max() + jnp.abs(z.per("columns") - by_site.sum(0)).max()

    np.testing.assert_allclose(value(program, guide=guide)[0], 0.0, atol=1e-6)


def test_each_draws_afresh_for_every_entry():
    def program(p, q):
        draws = ppvi.each(lambda shift: q.simulate()["x"] + shift, jnp.array([0.0, 100.0, 200.0]))
        nested = ppvi.replicate(2, lambda: ppvi.each(lambda z: q.log_density(z), ppvi.replicate(4, q.simulate)))
        assert nested.shape == (2, 4)
        differences = jnp.abs(jnp.diff(draws) - 100.0)
        return differences.min() + 0.0 * nested.sum()

    assert value(program)[0] > 1e-3


def test_a_third_program_has_parameters_of_its_own():
    bound = vi.objective(objectives.hvi(["x"], learned), model, one_level)
    assert set(bound.init(KEY)) == {"m", "r"}
    _, grads = bound.value_and_grad(KEY, bound.init(KEY))
    assert abs(float(grads["r"])) > 1e-3


def one_level():
    u = numpyro.sample("u", dist.Normal(numpyro.param("m", 0.0), 1.0))
    numpyro.sample("x", dist.Normal(u, 1.0))


def learned(z):
    numpyro.sample("u", dist.Normal(numpyro.param("r", 0.5) * z["x"], 0.7))


def test_directions():
    assert vi.objective(objectives.elbo, model, flat).maximize
    assert not vi.objective(objectives.cubo(3), model, flat).maximize
    assert vi.objective(objectives.cubo(3), model, flat, maximize=True).maximize


def test_resampled_ancestors_get_a_strategy_and_may_be_named():
    def growing(steps):
        x = 0.0
        for t in range(steps):
            x = numpyro.sample(f"x{t}", dist.Normal(x, 1.0))
            numpyro.sample(f"y{t}", dist.Normal(x, 1.0), obs=1.0)

    def first(steps):
        numpyro.sample("x0", dist.Normal(numpyro.param("m", 0.0), 1.0))

    def step(z, steps):
        numpyro.sample("x1", dist.Normal(z["x0"] + numpyro.param("s", 0.0), 1.0))

    program = objectives.fivo(lambda p, q: n([p.bind(1), p.bind(2)], [q, step], 4))
    for strategies in ({}, {"ancestor": ppvi.Reinforce()}):
        bound = vi.objective(program, growing, first, strategies=strategies)
        report = {site.name: site for site in bound.explain(bound.init(KEY, 2), 2).sites}
        assert report["ancestor"].lanes == (4,)
        assert report["ancestor"].strategy == str(strategies.get("ancestor", ppvi.LeaveOneOut(2)))
