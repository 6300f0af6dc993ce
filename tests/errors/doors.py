"""Mistakes at the doors: arguments and options of the public functions."""

import jax
import numpy as np
import optax
import torch

import ppvi
from ppvi import objectives, strategies
from ppvi.objectives import cubo, elbo, iwelbo, renyi, tempered_elbo, vimco
from ppvi.program import each
from tests.engines import NUMPYRO, PYRO
from tests.errors.table import PROGRAM, STRATEGY, N, mistake, mistakes

# objective(...) -----------------------------------------------------------------------------------------------------------

mistakes(
    PROGRAM,
    ("objective called", lambda e: e.vi.objective(elbo(), e.model, e.guide), "elbo", "vi.objective(elbo, model, guide)"),
    ("objective of functions called", lambda e: elbo(e.model, e.guide), "elbo", "vi.objective(elbo, model, guide)"),
    ("family not called", lambda e: e.objective(iwelbo), "iwelbo", "call it first"),
    ("model called", lambda e: e.vi.objective(elbo, None, e.guide), "the model", "None", "itself, and not what it returns"),
    ("program by name", lambda e: e.vi.objective("elbo", e.model, e.guide), "the objective program", "'elbo'", "ppvi.objectives.elbo"),
    ("objective in an objective", lambda e: e.objective(e.bound), "the objective program", "Objective"),
    ("program left out", lambda e: e.vi.objective(e.model, e.guide, elbo), "takes two arguments", "model"),
    ("data as the guide", lambda e: e.vi.objective(elbo, e.model, e.y), "the guide", "function"),
    ("maximize by word", lambda e: e.objective(maximize="no"), "maximize", "True or False", "'no'"),
    ("tempered by less than nothing", lambda e: tempered_elbo(-1), "tempered_elbo", "-1"),
    ("tempered by a text", lambda e: tempered_elbo("0.5"), "tempered_elbo", "'0.5'", "number"),
    ("alpha by a text", lambda e: renyi("2", 5), "renyi", "alpha", "'2'"),
    ("order of cubo", lambda e: cubo("2"), "cubo", "'2'"),
    ("no particles", lambda e: iwelbo(0), "iwelbo", "particles", "0"),
    ("half a particle", lambda e: iwelbo(2.5), "iwelbo", "particles", "2.5"),
    ("particles by a text", lambda e: iwelbo("5"), "iwelbo", "particles", "'5'"),
    ("one particle of vimco", lambda e: vimco(1), "vimco", "at least 2"),
)  # fmt: skip


@mistake(PROGRAM, "minimized", "objective program")
def minimised_number(e):
    ppvi.minimized(3.0)


# strategies= --------------------------------------------------------------------------------------------------------------

mistakes(
    STRATEGY,
    ("strategy alone", lambda e: e.objective(strategies=strategies.Reparam()), "strategies=", "{'z': Reparam()}"),
    ("strategies as pairs", lambda e: e.objective(strategies=[("mean", strategies.Reparam())]), "strategies=", "dict"),
    ("strategy as a class", lambda e: e.objective(strategies={"mean": strategies.Reparam}), "'mean'", "write Reparam()"),
    ("strategy by name", lambda e: e.objective(strategies={"mean": "reparam"}), "'mean'", "'reparam'", "Reparam()"),
    ("site by number", lambda e: e.objective(strategies={0: strategies.Reparam()}), "strategies=", "0", "name"),
    ("strategy of no site", lambda e: e.gradient(strategies={"meen": strategies.Reparam()}), "'meen'", "'mean'"),
    ("enumeration of the reals", lambda e: e.gradient(strategies={"mean": strategies.Enumerate()}), "'mean'", "Normal"),
    ("baseline by name", lambda e: strategies.Reinforce("mean"), "Reinforce", "baseline", "'mean'"),
    ("baseline as a class", lambda e: strategies.Reinforce(strategies.RunningMean), "RunningMean()"),
    ("running mean beyond one", lambda e: strategies.RunningMean(1.5), "RunningMean", "1.5"),
    ("leave one out of one", lambda e: strategies.LeaveOneOut(1), "LeaveOneOut", "at least 2"),
    ("leave one out of a float", lambda e: strategies.LeaveOneOut(2.0), "LeaveOneOut", "2.0"),
    ("no nodes", lambda e: strategies.Quadrature(0), "Quadrature", "0"),
    ("nodes by a text", lambda e: strategies.Quadrature("9"), "Quadrature", "'9'"),
    ("cold relaxation", lambda e: strategies.GumbelSoftmax(0.0), "GumbelSoftmax", "temperature", "0.0"),
    ("temperature by a text", lambda e: strategies.GumbelSoftmax("1"), "GumbelSoftmax", "'1'"),
    ("surfaces as a list", lambda e: strategies.BoundaryReparam([0.5]), "BoundaryReparam", "(0.5,)"),
    ("shift of no parameter", lambda e: e.gradient(strategies={"mean": strategies.ParameterShift("nosuch")}), "'mean'", "'nosuch'"),
    ("samples of unordered sets", lambda e: strategies.UnorderedSet(0), "UnorderedSet", "0"),
    ("terms that are no number", lambda e: strategies.SumAndSample("all"), "SumAndSample", "'all'"),
)  # fmt: skip

# fit(...) -----------------------------------------------------------------------------------------------------------------

mistakes(
    PROGRAM,
    ("steps misspelt", lambda e: e.fit(steps=10), "'steps'", "num_steps"),
    ("iterations", lambda e: e.fit(num_iterations=10), "'num_iterations'", "num_steps"),
    ("step size as lr", lambda e: e.fit(lr=0.1), "'lr'", "optimizer=0.1"),
    ("step size as learning_rate", lambda e: e.fit(learning_rate=0.1), "'learning_rate'", "optimizer=0.1"),
    ("optim", lambda e: e.fit(optim=0.1), "'optim'", "optimizer"),
    ("progress_bar", lambda e: e.fit(progress_bar=False), "'progress_bar'", "progress"),
    ("no steps", lambda e: e.fit(num_steps=0), "num_steps", "at least 1", "0"),
    ("steps below zero", lambda e: e.fit(num_steps=-5), "num_steps", "-5"),
    ("steps as a float", lambda e: e.fit(num_steps=1e3), "num_steps", "1000.0"),
    ("steps as a text", lambda e: e.fit(num_steps="100"), "num_steps", "'100'"),
    ("steps as truth", lambda e: e.fit(num_steps=True), "num_steps", "True"),
    ("no starts", lambda e: e.fit(num_starts=0), "num_starts", "0"),
    ("asked never", lambda e: e.fit(every=0, callback=lambda step, fit: None), "every", "0"),
    ("optimizer by name", lambda e: e.fit(optimizer="adam"), "optimizer", "'adam'", "0.01"),
    ("step size below zero", lambda e: e.fit(optimizer=-0.1), "optimizer", "-0.1"),
    ("step size of nothing", lambda e: e.fit(optimizer=0.0), "optimizer", "0.0"),
    ("step size NaN", lambda e: e.fit(optimizer=float("nan")), "optimizer", "nan"),
    ("optimizer as truth", lambda e: e.fit(optimizer=True), "optimizer", "True"),
    ("optimizer of the other library", lambda e: e.fit(optimizer=e.optimiser()), "optimizer"),
    ("one optimizer for two", lambda e: e.fit(bound=[(e.bound, "guide"), (e.bound, "guide")], optimizer=[0.1]), "optimizer"),
    ("mesh as a number", lambda e: e.fit(mesh=2), "mesh", "2"),
    ("params as a list", lambda e: e.fit(params=[1.0]), "params", "list", "dict"),
    ("params as a fit", lambda e: e.fit(params=e.fit()), "params", "fit.params"),
    ("params of unknown names", lambda e: e.fit(params={"lok": e.array(0.1)}), "'lok'", "'loc'"),
    ("params of another shape", lambda e: e.fit(params={"loc": e.array([0.1, 0.2])}), "'loc'", "(2,)", "()"),
    ("params of NaN", lambda e: e.fit(params={"loc": e.array(np.nan)}), "'loc'", "NaN"),
    ("params of text", lambda e: e.fit(params={"loc": "0.1"}), "'loc'", "'0.1'"),
    ("params outside of the constraint", lambda e: e.fit(params={"scale": e.array(-1.0)}), "'scale'", "positive"),
    ("params on the constraint", lambda e: e.fit(params={"scale": e.array(0.0)}), "'scale'", "positive"),
    ("params and state", lambda e: e.fit(params=e.params, state=e.fit()), "params=", "state="),
    ("state of params", lambda e: e.fit(state=e.params), "state=", "params="),
    ("state of another fit", lambda e: e.fit(state=e.fit(e.objective(model=e.discrete, guide=e.discrete_guide))), "state="),
    ("until as a class", lambda e: e.fit(until=ppvi.Plateau), "until", "ppvi.Plateau()"),
    ("until as a number", lambda e: e.fit(until=3), "until", "3"),
    ("callback of one argument", lambda e: e.fit(callback=lambda fit: None), "callback", "step"),
    ("callback that is none", lambda e: e.fit(callback=3), "callback", "3"),
    ("until of two arguments", lambda e: e.fit(until=lambda step, fit: None), "until", "(fit)"),
    ("averaging by word", lambda e: e.fit(averaging="yes"), "averaging", "'yes'"),
    ("averaging as truth", lambda e: e.fit(averaging=True), "averaging", "True"),
    ("checkpoint as a number", lambda e: e.fit(checkpoint=5), "checkpoint", "folder", "5"),
    ("progress by word", lambda e: e.fit(progress="no"), "progress", "True or False", "'no'"),
    ("batches as text", lambda e: e.vi.fit(e.bound, e.key, batches="ab", num_steps=2), "batches", "'ab'"),
    ("batches as a number", lambda e: e.vi.fit(e.bound, e.key, batches=5, num_steps=2), "batches", "not 5"),
    ("no batches", lambda e: e.vi.fit(e.bound, e.key, batches=[], num_steps=2), "batches", "nothing"),
    ("batches and data", lambda e: e.fit(batches=[e.y]), "batches", "position"),
    ("fit of a function", lambda e: e.vi.fit(elbo, e.key, e.y), "fit", "elbo", "vi.objective(elbo, model, guide)"),
    ("fit of the model", lambda e: e.vi.fit(e.model, e.key, e.y), "fit", "model", "vi.objective"),
    ("key before the objective", lambda e: e.vi.fit(e.key, e.bound, e.y), "fit", "fit(objective, key"),
    ("key left out", lambda e: e.vi.fit(e.bound, e.y, num_steps=2), "key", "shape (5,)"),
    ("objective without whose", lambda e: e.fit([e.bound, e.bound]), "pairs"),
    ("whose parameters", lambda e: e.fit([(e.bound, "modell"), (e.bound, "guide")]), "'modell'"),
    ("data left out", lambda e: e.vi.fit(e.bound, e.key), "guide(y)", "'y'"),
    ("too many data", lambda e: e.vi.fit(e.bound, e.key, e.y, e.y), "guide(y)", "too many"),
    ("data by another name", lambda e: e.vi.fit(e.bound, e.key, x=e.y), "'x'"),
)  # fmt: skip

mistakes(
    PROGRAM,
    ("factory of optax", lambda e: e.fit(optimizer=optax.adam), "optimizer", "optax.adam(0.01)"),
    ("rule that wants values", lambda e: e.fit(optimizer=optax.lbfgs()), "optimizer", "value"),
    ("optimiser of torch", lambda e: e.fit(optimizer=torch.optim.Adam([torch.zeros(1)])), "optimizer", "optax.adam(0.01)"),
    ("key as a number", lambda e: e.vi.fit(e.bound, 0, e.y), "key", "0", "jax.random.key(0)"),
    ("no key", lambda e: e.vi.fit(e.bound, None, e.y), "key", "None", "jax.random.key(0)"),
    ("many keys", lambda e: e.vi.fit(e.bound, jax.random.split(e.key), e.y), "key", "(2,)"),
    on=NUMPYRO,
)  # fmt: skip
mistakes(
    PROGRAM,
    ("optimiser with tensors", lambda e: e.fit(optimizer=torch.optim.Adam([torch.zeros(1)])), "optimizer", "functools.partial"),
    ("key of 71 bits", lambda e: e.vi.fit(e.bound, 2**70, e.y), "key", "2**64"),
    ("key as a float", lambda e: e.vi.fit(e.bound, 0.5, e.y), "key", "0.5", "int"),
    ("key as a text", lambda e: e.vi.fit(e.bound, "seed", e.y), "key", "'seed'"),
    ("key of JAX", lambda e: e.vi.fit(e.bound, jax.random.key(0), e.y), "key", "int"),
    ("compile by word", lambda e: e.objective(compile="yes"), "compile", "True or False", "'yes'"),
    on=PYRO,
)  # fmt: skip

# The verbs of an objective ------------------------------------------------------------------------------------------------

mistakes(
    PROGRAM,
    ("key and params swapped", lambda e: e.bound.value_and_grad(e.params, e.key, e.y), "key", "params", "swapped"),
    ("params missing", lambda e: e.bound.value_and_grad(e.key, {"loc": e.array(0.0)}, e.y), "'scale'", "init"),
    ("params left out", lambda e: e.bound.value_and_grad(e.key, e.y), "params", "dict"),
    ("params None", lambda e: e.bound.estimate(e.key, None, e.y), "params", "None"),
    ("params a fit", lambda e: e.bound.estimate(e.key, e.fit(), e.y), "params", "fit.params"),
    ("params a number in a dict of texts", lambda e: e.bound.value_and_grad(e.key, {"loc": "a", "scale": "b"}, e.y), "'loc'", "'a'"),
    ("params shaped otherwise", lambda e: e.bound.value_and_grad(e.key, {**e.params, "loc": e.array([1.0, 2.0, 3.0])}, e.y), "'loc'", "(3,)"),
    ("params that are whole numbers", lambda e: e.bound.value_and_grad(e.key, {**e.params, "loc": e.xp.zeros((), dtype=e.xp.int32)}, e.y), "'loc'", "int32"),
    ("options of value_and_grad", lambda e: e.bound.value_and_grad(e.key, e.params, e.y, num_samples=10), "'num_samples'"),
    ("prove with a key", lambda e: e.bound.prove(e.key, e.params, e.y), "prove", "params"),
    ("explain without params", lambda e: e.bound.explain(e.y), "explain", "params"),
    ("init without a key", lambda e: e.bound.init(e.y), "the key"),
    ("data twice", lambda e: e.bound.on(e.y).value_and_grad(e.key, e.params, e.y), "`on`"),
    ("level beyond one", lambda e: e.bound.check(e.key, e.params, e.y, alpha=2.0), "alpha", "2.0"),
    ("level as a text", lambda e: e.bound.check(e.key, e.params, e.y, alpha="low"), "alpha", "'low'"),
    ("budget below zero", lambda e: e.bound.check(e.key, e.params, e.y, budget=-1), "budget", "-1"),
    ("budget as a text", lambda e: e.bound.check(e.key, e.params, e.y, budget="30s"), "budget", "'30s'"),
    ("against an oracle that is none", lambda e: e.bound.check(e.key, e.params, e.y, against="exactly"), "'exactly'", "'exact'"),
    ("bias of zero", lambda e: e.bound.check(e.key, e.params, e.y, delta=0.0), "delta", "0.0"),
    ("far below zero", lambda e: e.bound.check(e.key, e.params, e.y, far=-1.0), "far", "-1.0"),
    ("rare beyond one", lambda e: e.bound.check(e.key, e.params, e.y, rare=3.0), "rare", "3.0"),
    ("check misspelt", lambda e: e.bound.check(e.key, e.params, e.y, alhpa=0.1), "'alhpa'", "alpha"),
    ("progress of check by word", lambda e: e.bound.check(e.key, e.params, e.y, progress="no"), "progress", "'no'"),
    ("objective changed", lambda e: setattr(e.bound, "model", e.guide), "objective does not change"),
    ("objective as a loss", lambda e: e.bound(e.y), "as_loss()"),
)  # fmt: skip


@mistake(PROGRAM, "as_loss()")
def objective_given_to_svi(e):
    if e.is_numpyro:
        e.infer.SVI(e.model, e.guide, optax.adam(0.1), loss=e.bound).run(e.key, 2, e.y, progress_bar=False)
    else:
        e.infer.SVI(e.model, e.guide, e.ppl.optim.Adam({"lr": 0.1}), loss=e.bound).step(e.y)


# check_estimator ----------------------------------------------------------------------------------------------------------


def right(key, params):
    return sum(params.values()), dict.fromkeys(params, 1.0)


START = {"loc": 0.5}

mistakes(
    PROGRAM,
    ("estimator that is an objective", lambda e: ppvi.check_estimator(e.bound, e.params), "check_estimator", "check(key, params"),
    ("estimator that is a number", lambda e: ppvi.check_estimator(5, START), "check_estimator", "5"),
    ("estimator of one value", lambda e: ppvi.check_estimator(lambda key, params: 1.0, START, budget=1), "check_estimator", "value", "gradient"),
    ("estimator of other names", lambda e: ppvi.check_estimator(lambda key, params: (1.0, {"x": 1.0}), START, budget=1), "'loc'"),
    ("estimator without a key", lambda e: ppvi.check_estimator(lambda params: (1.0, params), START, budget=1), "check_estimator", "key"),
    ("estimated at a text", lambda e: ppvi.check_estimator(right, "start"), "check_estimator", "params"),
    ("estimated at nothing", lambda e: ppvi.check_estimator(right, {}), "check_estimator", "params"),
    ("estimated at NaN", lambda e: ppvi.check_estimator(right, {"loc": float("nan")}), "'loc'", "NaN"),
    ("level of an estimator", lambda e: ppvi.check_estimator(right, START, alpha=0), "alpha", "0"),
    ("bounds the wrong way", lambda e: ppvi.check_estimator(right, START, bounds=(1.0, -1.0)), "bounds"),
    ("variance below zero", lambda e: ppvi.check_estimator(right, START, variance=-1.0), "variance", "-1.0"),
    ("budget of a list", lambda e: ppvi.check_estimator(right, START, budget=[30]), "budget", "list"),
    ("seed by a text", lambda e: ppvi.check_estimator(right, START, key="seed"), "key", "'seed'"),
)  # fmt: skip

# Rules, budgets, folders --------------------------------------------------------------------------------------------------

mistakes(
    PROGRAM,
    ("time by a text", lambda e: ppvi.TimeLimit("60"), "TimeLimit", "'60'"),
    ("time below zero", lambda e: ppvi.TimeLimit(-1), "TimeLimit", "-1"),
    ("window of one", lambda e: ppvi.Plateau(1), "Plateau", "at least 2"),
    ("tolerance by a text", lambda e: ppvi.Converged("0.1"), "Converged", "tolerance", "'0.1'"),
    ("converged, asked by hand", lambda e: ppvi.Converged()(3), "Converged", "until="),
    ("converged and averaging", lambda e: e.fit(until=ppvi.Converged(), averaging=3), "averaging=", "ppvi.Converged()"),
    ("window of half steps", lambda e: ppvi.Plateau(window=2.5), "Plateau", "2.5"),
    ("budget of no draws", lambda e: ppvi.Budget(draws=0), "Budget", "draws", "0"),
    ("budget of seconds by a text", lambda e: ppvi.Budget(seconds="30"), "Budget", "'30'"),
    ("load the wrong way round", lambda e: ppvi.load(e.bound, "folder"), "load", "load(folder, objective)"),
    ("load from nowhere", lambda e: ppvi.load("/nonexistent/folder", e.bound), "/nonexistent/folder"),
)  # fmt: skip

# The objective language ---------------------------------------------------------------------------------------------------


@mistake(PROGRAM, "replicate", "function", "lambda:")
def replicated_value(e):
    e.gradient(lambda p, q: ppvi.replicate(3, q.simulate().log_density).mean())


@mistake(PROGRAM, "replicate", "replicate(n, thunk)")
def replicated_the_wrong_way_round(e):
    e.gradient(lambda p, q: ppvi.replicate(lambda: q.simulate().log_density, 3).mean())


@mistake(PROGRAM, "replicate", "at least 1")
def replicated_never(e):
    e.gradient(lambda p, q: ppvi.replicate(0, lambda: q.simulate().log_density).sum())


@mistake(PROGRAM, "replicate", "no arguments")
def replicated_with_an_argument(e):
    e.gradient(lambda p, q: ppvi.replicate(3, lambda z: q.simulate().log_density).sum())


@mistake(PROGRAM, "objective program")
def replicated_outside(e):
    ppvi.replicate(3, lambda: 1.0)


@mistake(PROGRAM, "each", "function")
def each_of_a_value(e):
    e.gradient(lambda p, q: each(3.0, e.y).sum())


@mistake(PROGRAM, "each", "(5,)", "(3,)")
def each_of_stacks_that_differ(e):
    e.gradient(lambda p, q: each(lambda a, b: a + b, e.y, e.y[:3]).sum() + q.simulate().log_density)


@mistake(PROGRAM, "each", "leading axis")
def each_of_a_number(e):
    e.gradient(lambda p, q: each(lambda a: a, e.y[0]) + q.simulate().log_density)


@mistake(PROGRAM, "exp_of", "function")
def exponential_of_a_number(e):
    e.gradient(lambda p, q: ppvi.exp_of(q.simulate().log_density))


@mistake(PROGRAM, "log_of", "function")
def logarithm_of_a_number(e):
    e.gradient(lambda p, q: ppvi.log_of(3.0))


@mistake(PROGRAM, "power_of", "function")
def power_of_a_number(e):
    e.gradient(lambda p, q: ppvi.power_of(3.0, 2))


@mistake(PROGRAM, "handle", "function", "5")
def handle_on_a_number(e):
    e.gradient(lambda p, q: ppvi.handle(5).simulate().log_density)


@mistake(PROGRAM, "guide(y)", "too many")
def bound_to_too_many(e):
    e.gradient(lambda p, q: p.log_density(q.bind(e.y, e.y).simulate()))


@mistake(PROGRAM, "marginal", "names of sites", "3")
def marginal_of_a_text(e):
    e.gradient(lambda p, q: p.log_density(ppvi.marginal(q, 3, q, 5).simulate()))


@mistake(PROGRAM, "normalize", "particles", "0")
def normalised_by_none(e):
    e.gradient(lambda p, q: p.log_density(ppvi.normalize(p, q, 0).simulate()))


@mistake(PROGRAM, "normalize", "program")
def normalised_numbers(e):
    e.gradient(lambda p, q: p.log_density(ppvi.normalize(e.y, q, 3).simulate()))


@mistake(PROGRAM, "'rowz'", "'rows'")
def total_over_no_plate(e):
    e.gradient(lambda p, q: ppvi.total(p.log_density(q.simulate(), per="rowz"), per="rowz"))


@mistake(PROGRAM, "one real number", f"({N},)")
def objective_of_a_vector(e):
    e.gradient(lambda p, q: q.simulate().log_density * e.y)


@mistake(PROGRAM, "returned None")
def objective_that_returns_nothing(e):
    def program(p, q):
        p.log_density(q.simulate())

    e.gradient(program)


@mistake(PROGRAM, "returned 'high'")
def objective_that_returns_a_text(e):
    e.gradient(lambda p, q: q.simulate() and "high")


@mistake(PROGRAM, "model", "dict from site to value")
def density_of_a_choice(e):
    e.gradient(lambda p, q: p.log_density(q.simulate()["mean"]))


@mistake(PROGRAM, "guide(y)", "too many")
def simulate_given_an_array_too_many(e):
    e.gradient(lambda p, q: p.log_density(q.simulate(e.y, e.y)))


@mistake(PROGRAM, "'zz'", "'mean'")
def choice_that_is_not_there(e):
    e.gradient(lambda p, q: q.simulate()["zz"])


@mistake(KeyError, "zz", "objective program")
def log_prob_that_is_not_there(e):
    e.gradient(lambda p, q: q.simulate().log_probs["zz"])


@mistake(PROGRAM, "'sample'", "simulate")
def verb_that_is_none(e):
    e.gradient(lambda p, q: q.sample().log_density)


@mistake(ZeroDivisionError, "objective program")
def error_of_the_objective_itself(e):
    e.gradient(lambda p, q: 1 / 0)


@mistake(TypeError, "objective program")
def gradient_stopped_of_a_text(e):
    e.gradient(lambda p, q: ppvi.stop_gradient("x"))


# Calls that do not fit a signature ----------------------------------------------------------------------------------------

CALL = ppvi.errors.CallError

mistakes(
    CALL,
    ("particles as K", lambda e: iwelbo(K=5), "iwelbo(particles, per=)", "'K'", "Did you mean particles=?"),
    ("family of one number", lambda e: renyi(5), "renyi(alpha, particles, per=)", "'particles'"),
    ("hvi of nothing", lambda e: objectives.hvi(), "hvi(keep", "'keep'"),
    ("particles of the objective", lambda e: e.objective(num_particles=10), "'num_particles'", "iwelbo(10)"),
    ("optimizer of the objective", lambda e: e.objective(optimizer=0.1), "'optimizer'", "goes to fit"),
    ("loss of the objective", lambda e: e.vi.objective(model=e.model, guide=e.guide, loss=elbo), "'loss'", "vi.objective(elbo, model, guide)"),
    ("samples of a posterior", lambda e: e.fit().posterior(num_samples=100), "'num_samples'", "Did you mean draws=?"),
    ("reference left out", lambda e: ppvi.compare(e.params), "compare(fit, reference", "'reference'"),
    ("load without an objective", lambda e: ppvi.load("run"), "load(folder, objective", "'objective'"),
    ("key and params by name", lambda e: e.bound.value_and_grad(key=e.key, params=e.params, y=e.y), "key and params by position"),
    ("fit of the module", lambda e: ppvi.fit(e.bound, e.key, e.y), "ppvi.fit is a module", "vi.fit"),
    ("objective of the module", lambda e: ppvi.objective(elbo, e.model, e.guide), "ppvi.objective is a module", "vi.objective"),
)  # fmt: skip
mistakes(
    AttributeError,
    ("nuts of no engine", lambda e: ppvi.nuts, "'nuts'", "ppvi.numpyro"),
    ("strategy of the other spelling", lambda e: ppvi.Reparameterize, "'Reparameterize'", "Did you mean Reparam?"),
    ("objective in capitals", lambda e: objectives.IWELBO, "'IWELBO'", "Did you mean iwelbo?"),
)
mistakes(
    PROGRAM,
    ("draws of nuts", lambda e: e.vi.nuts(e.model, e.key, e.y, draws=5), "'draws'", "Did you mean num_samples=?"),
    ("num_draws of nuts", lambda e: e.vi.nuts(e.model, e.key, e.y, num_draws=5), "'num_draws'", "Did you mean num_samples=?"),
    ("particles of a gradient", lambda e: e.bound.value_and_grad(e.key, e.params, e.y, particles=3), "'particles'", "iwelbo(10)"),
    ("particles of a fit", lambda e: e.fit(num_particles=3), "'num_particles'", "iwelbo(10)"),
    ("strategies of a fit", lambda e: e.fit(strategies={}), "'strategies'", "vi.objective"),
    ("data of init", lambda e: e.bound.init(e.key, data=e.y), "it has no argument 'data'", "give them what both take"),
    ("guide by name", lambda e: e.vi.objective(elbo, e.model, "AutoNormal"), "'AutoNormal'", "such as AutoNormal(model)"),
    ("loss of SVI", lambda e: e.objective(e.infer.Trace_ELBO()), "Trace_ELBO", "SVI", "ppvi.objectives.elbo"),
    ("loss of SVI as a class", lambda e: e.objective(e.infer.TraceMeanField_ELBO), "TraceMeanField_ELBO", "ppvi.objectives.elbo"),
    ("family of structured guides not called", lambda e: e.gradient(objectives.hvi), "'hvi'", "iwelbo(5)"),
    ("parameters by a function of none", lambda e: e.fit([(e.bound, lambda name: False)]), "the function <lambda>(name)", "'loc'"),
    ("bounds swapped", lambda e: ppvi.check_estimator(right, START, bounds=(1.0, -1.0), progress=False), "(lower, upper)", "(1.0, -1.0)"),
    ("given by a name", lambda e: e.gradient(lambda p, q: q.simulate(given="mean").log_density), "given=", "'mean'"),
    ("per a number", lambda e: e.gradient(lambda p, q: p.log_density(q.simulate(), per=0)), "per=", "not 0"),
    ("mean of a number", lambda e: e.gradient(lambda p, q: ppvi.logmeanexp(q.simulate().log_density)), "logmeanexp", "shape ()"),
    ("mean of a list", lambda e: e.gradient(lambda p, q: ppvi.logmeanexp([q.simulate().log_density])), "logmeanexp", "list of length 1"),
    ("dreg of a name", lambda e: objectives.dreg(3, of="elbo"), "dreg", "of=", "'elbo'"),
)  # fmt: skip
