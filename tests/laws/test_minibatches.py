"""A minibatch's scale N / n multiplies what rows cost, inside nothing nonlinear.

A bound `per` row of a plate is a sum over rows, so that on a minibatch it is exactly N / n times the sum over the rows that are
in it: which they are shows in the gradient, each row having a parameter of its own. What no such sum is says so when it is
first used.
"""

import itertools
import warnings
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppvi
from ppvi import BiasWarning, Enumerate, ProgramError, Reparam
from ppvi.objectives import (
    beta_elbo,
    cubo,
    dreg,
    elbo,
    f_divergence,
    fivo,
    forward_chi_square,
    hvi,
    iwelbo,
    iwhvi,
    renyi,
    stl,
    thermodynamic,
    vimco,
    vr_max,
    wake_phase_q,
)
from tests.engines import dist, double, handlers, on, ppl, xp

SLOW = pytest.mark.slow
X = np.array([[0.5, -1.0, 2.0, 0.3], [-0.2, 0.7, 1.5, -1.1], [0.9, 0.1, -0.6, 1.2]])
LOGITS = np.array([[0.3, -0.6, 1.3, 0.2], [0.5, 0.9, -0.3, -0.8], [-1.0, 0.4, 0.6, 0.1]])


def coin(name, logits):
    return ppl.sample(name, dist.Bernoulli(logits=logits))


def rows(power=1.0):
    """Four rows, two at a time, whose likelihood is annealed by the program's own scale."""

    def model():
        with ppl.plate("rows", 4, subsample_size=2) as i:
            z = coin("z", xp.zeros(2) - 0.4)
            with handlers.scale(scale=power):
                ppl.sample("x", dist.Normal(z * 1.0, 1.0), obs=xp.array(X[0])[i])

    def guide():
        with ppl.plate("rows", 4, subsample_size=2):
            coin("z", ppl.param("logits", LOGITS[0], event_dim=0))

    return model, guide


def groups(batches):
    """Three groups of four rows, so many of each at a time."""
    shape = batches[0], batches[1]

    def plates():
        sizes = [size if n < size else None for n, size in zip(batches, (3, 4), strict=True)]
        sizes = [None if size is None else n for n, size in zip(batches, sizes, strict=True)]
        return (
            ppl.plate("groups", 3, subsample_size=sizes[0], dim=-2),
            ppl.plate("rows", 4, subsample_size=sizes[1], dim=-1),
        )

    def model():
        outer, inner = plates()
        with outer as g, inner as i:
            z = coin("z", xp.zeros(shape) - 0.4)
            x = xp.array(X)[g[:, None], i]
            ppl.sample("x", dist.Normal(z * 1.0, 1.0), obs=x)

    def guide():
        outer, inner = plates()
        with outer, inner:
            coin("z", ppl.param("logits", LOGITS, event_dim=0))

    return model, guide


def log_weight(z, logits, x, power=1.0):
    """log p(x, z) - log q(z), and log q(z), of one row."""
    q, p = (jax.nn.log_sigmoid((2 * z - 1) * y) for y in (logits, -0.4))
    return p - q - power * 0.5 * ((x - z) ** 2 + jnp.log(2 * jnp.pi)), q


def bound(combine, particles=2, power=1.0):
    """E over the particles of a function of their log weights, in one row."""

    def row(logits, x):
        found = 0.0
        for zs in itertools.product((0, 1), repeat=particles):
            log_w, log_q = zip(*(log_weight(z, logits, x, power) for z in zs), strict=True)
            found += jnp.exp(sum(log_q)) * combine(jnp.stack(log_w), jnp.stack(log_q))
        return found

    return row


def log_mean_exp(x):
    return jax.nn.logsumexp(x) - jnp.log(len(x))


def normalised(log_w):
    return jnp.exp(log_w - jax.nn.logsumexp(log_w))


def by_hand(p, q):
    """An objective of a user's own."""

    def weight():
        z = q.simulate()
        return p.log_density(z, per="rows") - z.per("rows")

    return ppvi.total(ppvi.logmeanexp(ppvi.replicate(2, weight)), per="rows")


def evidence(p, q):
    return ppvi.normalize(p, q, 2, per="rows")


@dataclass(frozen=True)
class PerRow:
    program: object
    row: object
    """The bound of one row, from its logits and its datum."""
    power: float = 1.0
    slow: bool = False


IWELBO = bound(lambda log_w, log_q: log_mean_exp(log_w))
OBJECTIVES = {
    "elbo": PerRow(elbo, bound(lambda log_w, log_q: log_w[0], 1), slow=True),
    "iwelbo": PerRow(iwelbo(2, per="rows"), IWELBO),
    "vimco": PerRow(vimco(2, per="rows"), IWELBO),
    "by hand": PerRow(by_hand, IWELBO, slow=True),
    "an annealed likelihood": PerRow(
        iwelbo(2, per="rows"), bound(lambda log_w, log_q: log_mean_exp(log_w), power=0.3), power=0.3
    ),
    "renyi": PerRow(renyi(0.5, 2, per="rows"), bound(lambda log_w, log_q: 2 * log_mean_exp(log_w / 2)), slow=True),
    "vr_max": PerRow(vr_max(2, per="rows"), bound(lambda log_w, log_q: log_w.max()), slow=True),
    "cubo": PerRow(cubo(2, per="rows"), bound(lambda log_w, log_q: log_mean_exp(2 * log_w) / 2), slow=True),
    "thermodynamic": PerRow(
        thermodynamic([0.0, 0.4], 2, per="rows"),
        bound(lambda log_w, log_q: 0.4 * log_w.mean() + 0.6 * (normalised(0.4 * log_w) * log_w).sum()),
    ),
    "the evidence of a posterior": PerRow(fivo(evidence), IWELBO),
}


def selected(grads):
    """Which rows are in the minibatch: no gradient here is zero by chance."""
    return np.asarray(grads) != 0


def params_of(found):
    return [
        pytest.param(case, id=name, marks=SLOW if getattr(case, "slow", False) else ()) for name, case in found.items()
    ]


@pytest.mark.parametrize("case", params_of(OBJECTIVES))
def test_a_bound_per_row_counts_each_row_of_its_minibatch_so_many_times(engine, case):
    with double(), on(engine), warnings.catch_warnings():
        warnings.simplefilter("error", BiasWarning)
        objective = engine.vi.objective(case.program, *rows(case.power), strategies={"z": Enumerate()})
        for seed in range(3):
            value, grads = objective.value_and_grad(engine.key(seed), {"logits": engine.array(LOGITS[0])})
            batch = selected(grads["logits"])
            assert batch.sum() == 2
            exact = jax.device_get(jax.vmap(jax.value_and_grad(case.row))(LOGITS[0], X[0]))
            np.testing.assert_allclose(value, 2 * exact[0][batch].sum(), rtol=1e-9)
            np.testing.assert_allclose(grads["logits"], 2 * np.where(batch, exact[1], 0.0), rtol=1e-9)


@pytest.mark.parametrize(
    "batches", [(2, 2), pytest.param((2, 4), marks=SLOW), pytest.param((3, 1), marks=SLOW)], ids=str
)
@pytest.mark.parametrize("per", [("groups", "rows"), ("rows", "groups")], ids=str)
def test_nested_plates(engine, per, batches):
    scale = 12 / (batches[0] * batches[1])
    with double(), on(engine):
        objective = engine.vi.objective(iwelbo(2, per=per), *groups(batches), strategies={"z": Enumerate()})
        value, grads = objective.value_and_grad(engine.key(0), {"logits": engine.array(LOGITS)})
        batch = selected(grads["logits"])
        assert batch.sum() == batches[0] * batches[1]
        exact = jax.device_get(jax.vmap(jax.vmap(jax.value_and_grad(IWELBO)))(LOGITS, X))
    np.testing.assert_allclose(value, scale * exact[0][batch].sum(), rtol=1e-9)
    np.testing.assert_allclose(grads["logits"], scale * np.where(batch, exact[1], 0.0), rtol=1e-9)


def test_a_plate_within_one_that_is_kept(engine):
    """Per group the rows are summed inside the logarithm: a group's bound is that of all its rows."""

    def group(logits, x):
        found = 0.0
        for zs in itertools.product((0, 1), repeat=4):
            log_w, log_q = log_weight(np.array(zs).reshape(2, 2), logits, x)
            found += jnp.exp(log_q.sum()) * log_mean_exp(log_w.sum(1))
        return found

    def model():
        with ppl.plate("rows", 2, dim=-1), ppl.plate("groups", 3, subsample_size=1, dim=-2) as g:
            ppl.sample("x", dist.Normal(coin("z", xp.zeros((1, 2)) - 0.4) * 1.0, 1.0), obs=xp.array(X[:, :2])[g])

    def guide():
        with ppl.plate("rows", 2, dim=-1), ppl.plate("groups", 3, subsample_size=1, dim=-2):
            coin("z", ppl.param("logits", LOGITS[:, :2], event_dim=0))

    with double(), on(engine):
        objective = engine.vi.objective(iwelbo(2, per="groups"), model, guide, strategies={"z": Enumerate()})
        value, grads = objective.value_and_grad(engine.key(0), {"logits": engine.array(LOGITS[:, :2])})
        batch = selected(grads["logits"])[:, 0]
        exact = jax.device_get(jax.vmap(jax.value_and_grad(group))(LOGITS[:, :2], X[:, :2]))
    np.testing.assert_allclose(value, 3 * exact[0][batch].sum(), rtol=1e-9)
    np.testing.assert_allclose(grads["logits"], 3 * np.where(batch[:, None], exact[1], 0.0), rtol=1e-9)


# Guides with a hidden variable, and posteriors -------------------------------------------------------------------------------


def hidden_guide():
    with ppl.plate("rows", 4, subsample_size=2):
        u = coin("u", xp.zeros(2) + 0.2)
        coin("z", ppl.param("logits", LOGITS[0], event_dim=0) + 1.5 * u)


def of_u(u):
    return jax.nn.log_sigmoid((2 * u - 1) * 0.2)


def hierarchical(particles, combine):
    """E over z and the draws of u of the log weight with the density of z estimated from them."""

    def row(logits, x):
        found = 0.0
        for z, *us in itertools.product((0, 1), repeat=1 + particles):
            log_z = [jax.nn.log_sigmoid((2 * z - 1) * (logits + 1.5 * u)) for u in us]
            p = jax.nn.log_sigmoid((2 * z - 1) * -0.4) - 0.5 * ((x - z) ** 2 + jnp.log(2 * jnp.pi))
            found += jnp.exp(sum(map(of_u, us)) + log_z[0]) * (p - combine(jnp.stack(log_z)))
        return found

    return row


HIERARCHICAL = {
    "iwhvi": (iwhvi(["z"], None, 2, per="rows"), hierarchical(2, log_mean_exp)),
    "hvi": (hvi(["z"], per="rows"), hierarchical(1, log_mean_exp)),
    "iwelbo of a marginal": (
        lambda p, q: iwelbo(1, per="rows")(p, ppvi.marginal(q, ["z"], None, 2, per="rows")),
        hierarchical(2, log_mean_exp),
    ),
}


@pytest.mark.parametrize("name", [n if n == "iwhvi" else pytest.param(n, marks=SLOW) for n in HIERARCHICAL])
def test_hierarchical_guides_per_row(engine, name):
    program, row = HIERARCHICAL[name]
    with double(), on(engine):
        objective = engine.vi.objective(
            program, rows()[0], hidden_guide, strategies={"z": Enumerate(), "u": Enumerate()}
        )
        value, grads = objective.value_and_grad(engine.key(0), {"logits": engine.array(LOGITS[0])})
        batch = selected(grads["logits"])
        exact = jax.device_get(jax.vmap(jax.value_and_grad(row))(LOGITS[0], X[0]))
    np.testing.assert_allclose(value, 2 * exact[0][batch].sum(), rtol=1e-9)
    np.testing.assert_allclose(grads["logits"], 2 * np.where(batch, exact[1], 0.0), rtol=1e-9)


def test_squares_of_weights_are_normalised_in_a_row(engine):
    row = bound(lambda log_w, log_q: -(normalised(2 * log_w) * log_q).sum() / 2)
    with double(), on(engine):
        objective = engine.vi.objective(forward_chi_square(2, per="rows"), *rows(), strategies={"z": Enumerate()})
        value, grads = objective.value_and_grad(engine.key(0), {"logits": engine.array(LOGITS[0])})
        exact = jax.device_get(jax.vmap(row)(LOGITS[0], X[0]))
    np.testing.assert_allclose(value, 2 * exact[selected(grads["logits"])].sum(), rtol=1e-9)


def test_the_choice_of_a_posterior_is_by_the_weights_of_a_row(engine):
    row = bound(lambda log_w, log_q: -(normalised(log_w) * log_q).sum())
    with double(), on(engine):
        strategies = {"z": Enumerate(), "particle": Enumerate()}
        objective = engine.vi.objective(wake_phase_q(2, per="rows"), *rows(), strategies=strategies)
        value, grads = objective.value_and_grad(engine.key(0), {"logits": engine.array(LOGITS[0])})
        exact = jax.device_get(jax.vmap(row)(LOGITS[0], X[0]))
    np.testing.assert_allclose(value, 2 * exact[selected(grads["logits"])].sum(), rtol=1e-9)


# Draws along the path -----------------------------------------------------------------------------------------------------


def normal_rows():
    def model():
        with ppl.plate("rows", 4, subsample_size=2) as i:
            z = ppl.sample("z", dist.Normal(xp.zeros(2), 1.0))
            ppl.sample("x", dist.Normal(z, 1.0), obs=xp.array(X[0])[i])

    def guide():
        with ppl.plate("rows", 4, subsample_size=2):
            ppl.sample("z", dist.Normal(ppl.param("loc", LOGITS[0], event_dim=0), 1.0))

    return model, guide


@pytest.mark.parametrize("other", ["vimco", "dreg"])
def test_the_same_draws_give_the_same_bound_along_the_path(engine, other):
    """Of `vimco`, whose control variates are of no site there, the gradient too; that of `dreg` has the same mean."""
    programs = dict(vimco=vimco(3, per="rows"), dreg=dreg(3, per="rows"))
    with double(), on(engine):
        found = [
            engine.vi.objective(program, *normal_rows(), strategies={"z": Reparam()}).value_and_grad(
                engine.key(1), {"loc": engine.array(LOGITS[0])}
            )
            for program in (iwelbo(3, per="rows"), programs[other])
        ]
    (value, grads), (same, others) = found
    np.testing.assert_allclose(same, value, rtol=1e-9)
    if other == "vimco":
        np.testing.assert_allclose(others["loc"], grads["loc"], rtol=1e-9)
    np.testing.assert_array_equal(selected(others["loc"]), selected(grads["loc"]))


# What is no sum over rows -------------------------------------------------------------------------------------------------


def under_a_global_site():
    model, guide = rows()

    def shared_model():
        ppl.sample("w", dist.Normal(0.0, 1.0))
        model()

    def shared_guide():
        ppl.sample("w", dist.Normal(ppl.param("c", 0.3), 1.0))
        guide()

    return shared_model, shared_guide


NONLINEAR = {
    "iwelbo": (iwelbo(2), rows()),
    "renyi": (renyi(0.5, 2), rows()),
    "vimco": (vimco(2), rows()),
    "thermodynamic": (thermodynamic([0.0, 0.4], 2), rows()),
    "f-divergence": (f_divergence("hellinger"), rows()),
    "under a global site": (iwelbo(2), under_a_global_site()),
    "a minibatch within the plate that is kept": (iwelbo(2, per="groups"), groups((2, 2))),
    "a sum over rows that is squared": (lambda p, q: by_hand(p, q) ** 2, rows()),
}


@pytest.mark.parametrize("name", [n if n in ("iwelbo", "under a global site") else pytest.param(n, marks=SLOW) for n in NONLINEAR])  # fmt: skip
def test_a_nonlinear_function_of_a_minibatch_says_so_at_its_first_use(engine, name):
    program, programs = NONLINEAR[name]
    with on(engine):
        objective = engine.vi.objective(program, *programs)
        params = objective.init(engine.key(0))
        with pytest.warns(BiasWarning, match=r"minibatch of rows(.|\n)*per plate(.|\n)*ppvi.total"):
            objective.value_and_grad(engine.key(0), params)
        with warnings.catch_warnings():
            warnings.simplefilter("error", BiasWarning)
            objective.value_and_grad(engine.key(1), params)


@pytest.mark.parametrize("use", ["estimate", "fit"])
def test_whatever_the_first_use_is(engine, use):
    with on(engine):
        objective = engine.vi.objective(iwelbo(2), *rows())
        uses = dict(
            estimate=lambda: objective.estimate(engine.key(0), objective.init(engine.key(0))),
            fit=lambda: engine.vi.fit(objective, engine.key(0), num_steps=1, progress=False),
        )
        with pytest.warns(BiasWarning, match="minibatch of rows"):
            uses[use]()


LINEAR = {
    "elbo": elbo,
    "beta_elbo": beta_elbo(2.0),
    "reverse-kl": f_divergence("reverse-kl"),
    "stl": stl,
    "analytic_elbo": ppvi.objectives.analytic_elbo,
    "mean of bounds": lambda p, q: ppvi.replicate(3, lambda: elbo(p, q)).mean(),
}


@pytest.mark.parametrize("name", [n if n in ("elbo", "analytic_elbo") else pytest.param(n, marks=SLOW) for n in LINEAR])
def test_what_is_linear_in_a_minibatch_says_nothing(engine, name):
    with on(engine), warnings.catch_warnings():
        warnings.simplefilter("error", BiasWarning)
        objective = engine.vi.objective(LINEAR[name], *under_a_global_site())
        objective.value_and_grad(engine.key(0), objective.init(engine.key(0)))


def test_densities_per_row_want_a_total(engine):
    def forgotten(p, q):
        z = q.simulate()
        return (p.log_density(z, per="rows") - z.per("rows")).sum()

    with on(engine), pytest.raises(ProgramError, match=r"per plate 'rows'.*stands for 2 rows.*ppvi.total"):
        engine.vi.objective(forgotten, *rows()).init(engine.key(0))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda p, q: ppvi.total(q.simulate().per("rows"), per=None), r"shape \(2,\).*plates \[\]"),
        (lambda p, q: ppvi.total(q.simulate().per("rows"), per="cells"), "'cells'.*around no site.*'rows'"),
        (lambda p, q: ppvi.total(q.simulate().log_density, per="rows"), r"shape \(\).*'rows'"),
    ],
)
def test_totals_over_what_is_not_there(engine, program, message):
    with on(engine), pytest.raises(ProgramError, match=message):
        engine.vi.objective(program, *rows()).init(engine.key(0))
