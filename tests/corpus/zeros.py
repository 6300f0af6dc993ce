"""Probabilities that are exactly zero: in the model where the guide has mass, in both, and in a guide that a parameter may move
away from there."""

from __future__ import annotations

from numpyro.contrib.control_flow import scan

from ppvi import Enumerate, LeaveOneOut, LocalExpectation, Reinforce, objectives
from ppvi.strategies import SumAndSample, UnorderedSet
from tests.corpus.programs import LOOPS, right, wrong
from tests.engines import dist, handlers, nn, ppl, xp

IMPOSSIBLE = "the guide draws a value of probability zero in the model"
SHARED = "what the model bars, the guide bars too"
HIDDEN = "a value that is never drawn has a derivative, as it becomes possible"


def program(distribution):
    """One site `z`, whose distribution is made when the program runs."""
    return lambda: ppl.sample("z", distribution())


def in_plate(distribution, mask=None):
    def run():
        with ppl.plate("lanes", 2):
            if mask is None:
                ppl.sample("z", distribution())
            else:
                with handlers.mask(mask=xp.asarray(mask)):
                    ppl.sample("z", distribution())

    return run


def logits():
    return ppl.param("l", xp.array([0.1, 0.2, 0.3]))


def barred(places):
    """Logits of which some are those of a probability of zero."""
    return logits() + xp.log(1.0 - xp.asarray(places))


def free():
    return dist.Categorical(logits=logits())


def coin(probability):
    return program(lambda: dist.Bernoulli(xp.asarray(probability)))


ROWS = [[0.5, 0.5, 0.0], [0.2, 0.2, 0.6]]
categorical = program(lambda: dist.Categorical(probs=xp.asarray(ROWS[0])))
coin_guide = program(lambda: dist.Bernoulli(logits=ppl.param("l", 0.3)))

for _name, _model, _guide in (
    ("Categorical", categorical, program(free)),
    ("logits", program(lambda: dist.Categorical(logits=xp.log(xp.asarray(ROWS[0])), validate_args=False)), program(free)),
    ("softmax of -inf", program(lambda: dist.Categorical(probs=nn.softmax(xp.asarray([0.0, 0.0, -xp.inf])))), program(free)),
    ("softmax of -200", program(lambda: dist.Categorical(probs=nn.softmax(xp.asarray([0.0, 0.0, -200.0])))), program(free)),
    ("Bernoulli of 0", coin(0.0), coin_guide),
    ("Bernoulli of 1", coin(1.0), coin_guide),
    ("one lane", in_plate(lambda: dist.Categorical(probs=xp.asarray(ROWS))), in_plate(free)),
    ("events", program(lambda: dist.Categorical(probs=xp.asarray(ROWS)).to_event(1)), program(lambda: free().expand([2]).to_event(1))),
    ("another zero", categorical, program(lambda: dist.Categorical(logits=barred([0.0, 1.0, 0.0])))),
):  # fmt: skip
    wrong(f"barred by the model, {_name}", objectives.elbo, IMPOSSIBLE, "support", model=_model, guide=_guide)
wrong("barred, weighed", objectives.iwelbo(3), IMPOSSIBLE, "support", model=categorical, guide=program(free))

for _name, _model, _guide in (
    ("barred by both", categorical, program(lambda: dist.Categorical(logits=barred([0.0, 0.0, 1.0])))),
    ("barred by the guide", program(lambda: dist.Categorical(probs=xp.asarray(ROWS[1]))), program(lambda: dist.Categorical(logits=barred([0.0, 0.0, 1.0])))),
    ("barred where it is masked", in_plate(lambda: dist.Categorical(probs=xp.asarray(ROWS)), mask=[False, True]), in_plate(free)),
    ("barred in the same lanes", in_plate(lambda: dist.Categorical(probs=xp.asarray(ROWS))), in_plate(lambda: dist.Categorical(logits=barred([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])))),
):  # fmt: skip
    right(_name, objectives.elbo, SHARED, model=_model, guide=_guide)


def worth(p, q):
    return 2.0 + 3.0 * q.simulate()["z"]


def starting_at(probability):
    return lambda: ppl.sample("z", dist.Bernoulli(ppl.param("p", probability)))


def of_simplex():
    probs = ppl.param("p", xp.array([0.0, 0.5, 0.5]), constraint=dist.constraints.simplex)
    ppl.sample("z", dist.Categorical(probs=probs))


def by_logarithm():
    p = ppl.param("p", 0.0)
    ppl.sample("z", dist.Categorical(logits=xp.log(xp.stack([p, 1 - p]))))


for _strategy in (Reinforce(), LeaveOneOut(2), UnorderedSet(2)):
    for _p in (0.0, 1.0):
        wrong(
            f"probs of {_p}, {_strategy}", worth, HIDDEN, "probability zero", guide=starting_at(_p), strategies={"z": _strategy}
        )  # fmt: skip
wrong(
    "a count of probs 1.0, Reinforce()", worth, HIDDEN, "probability zero", strategies={"z": Reinforce()},
    guide=lambda: ppl.sample("z", dist.Binomial(3, probs=ppl.param("p", 1.0))),
)  # fmt: skip
right(
    "a count of probs 1.0, Enumerate()", worth, "every value is summed over", strategies={"z": Enumerate()},
    guide=lambda: ppl.sample("z", dist.Binomial(3, probs=ppl.param("p", 1.0))),
)  # fmt: skip
right(
    "a count of many trials", objectives.elbo, "every count is possible", strategies={"z": Reinforce()},
    model=program(lambda: dist.Binomial(2000, probs=xp.asarray(0.3))),
    guide=lambda: ppl.sample("z", dist.Binomial(2000, probs=ppl.param("p", 0.4, constraint=dist.constraints.unit_interval))),
)  # fmt: skip
wrong("rest of a sum", worth, HIDDEN, "probability zero", guide=of_simplex, strategies={"z": SumAndSample(1)})
wrong("logarithm of 0", worth, HIDDEN, "probability zero", guide=by_logarithm, strategies={"z": Enumerate()})

REACHED = "the zero is in a row that a draw before reaches"


def moving_rows():
    """Rows of probabilities, of which the first is on the boundary of the simplex at p = 0."""
    p = ppl.param("p", 0.0)
    return xp.stack([xp.stack([1.0 - p, p]), xp.stack([0.5 - 0.5 * p, 0.5 + 0.5 * p])])


def in_turn(rows):
    """A draw, and another from the row of a table that it points at."""

    def run():
        before = ppl.sample("before", dist.Categorical(probs=xp.asarray([0.5, 0.5])))
        ppl.sample("z", dist.Categorical(probs=rows()[before]))

    return run


def chained(rows):
    def run():
        table = rows()

        def step(state, _):
            z = ppl.sample("z", dist.Categorical(probs=table[state]))
            return z, None

        scan(step, 0, None, length=3)

    return run


for _strategy in (Reinforce(), LeaveOneOut(2)):
    wrong(f"probs of 0 after a draw, {_strategy}", worth, REACHED, "probability zero", guide=in_turn(moving_rows), strategies={"z": _strategy})  # fmt: skip
    wrong(
        f"probs of 0 in a loop, {_strategy}", lambda p, q: xp.sum(worth(p, q)), REACHED, "probability zero",
        guide=chained(moving_rows), strategies={"z": _strategy}, not_on_pyro=LOOPS,
    )  # fmt: skip
right("probs of 0 after a draw, Enumerate()", worth, "every value is summed over", guide=in_turn(moving_rows), strategies={"z": Enumerate()})  # fmt: skip
right("probs of 0 in a loop, Enumerate()", lambda p, q: xp.sum(worth(p, q)), "by the forward recursion", guide=chained(moving_rows), strategies={"z": Enumerate()}, not_on_pyro=LOOPS)  # fmt: skip


def fixed_rows():
    return xp.asarray([[1.0, 0.0], [0.5, 0.5]])


def rows_with_the_same_zero():
    """The same zero, beside a parameter."""
    p = ppl.param("p", 0.3)
    return xp.stack([xp.asarray([1.0, 0.0]), xp.stack([1.0 - p, p])])


def learned_rows():
    return nn.softmax(ppl.param("l", xp.array([[0.1, 0.2], [0.3, 0.4]])), -1)


wrong("barred by the model after a draw", objectives.elbo, IMPOSSIBLE, "support", model=in_turn(fixed_rows), guide=in_turn(learned_rows))  # fmt: skip
right("barred by both after a draw", objectives.elbo, SHARED, model=in_turn(fixed_rows), guide=in_turn(rows_with_the_same_zero))  # fmt: skip

FORGOTTEN = "the derivative is 0 times infinity"
for _name, _function in (
    ("exp", lambda w: xp.exp(xp.log(w))),
    ("logaddexp", lambda w: xp.logaddexp(xp.log(w), 0.0 * w)),
    ("a table", lambda w: xp.exp(xp.log(xp.stack([w, w + 1.0])))[0]),
):
    wrong(
        f"{_name} of the logarithm of 0",
        lambda p, q, _function=_function: worth(p, q) * _function(ppl.param("w", 0.0)),
        FORGOTTEN,
        "pole",
        guide=coin_guide,
    )
right(
    "the logarithm of what underflows",
    lambda p, q: worth(p, q) * xp.exp(xp.log(nn.softmax(ppl.param("w", xp.array([0.0, -2000.0])), -1)))[0],
    "there is no derivative",
    guide=coin_guide,
)

SEEN = "every value is summed over, whatever its probability"
right("rest of a sum that is one", worth, SEEN, guide=of_simplex, strategies={"z": SumAndSample(2)})
for _strategy in (Enumerate(), LocalExpectation()):
    right(f"probs of 0, {_strategy}", worth, SEEN, guide=starting_at(0.0), strategies={"z": _strategy})
right(
    "probs that underflow",
    worth,
    "there is no derivative",
    guide=lambda: ppl.sample(
        "z", dist.Categorical(probs=nn.softmax(ppl.param("l", xp.array([0.0, -2000.0, 1.0])), -1))
    ),
    strategies={"z": Reinforce()},
)
right(
    "a coin that always falls on one side",
    worth,
    "no parameter moves it",
    guide=lambda: ppl.sample("z", dist.Bernoulli(0.0 * ppl.param("p", 0.3) + 1.0)),
    strategies={"z": Reinforce()},
)


# What data make impossible of a value that is hardly ever drawn --------------------------------------------------------

RARE = "at a value that is drawn once in a thousand runs the log density of the data is -inf, and so is the mean"
POSSIBLE = "no value that is drawn makes the data impossible"


def rare_guide(site):
    """A site that is hardly ever 1."""
    return lambda: site(0.999, 0.001)


def of_label(zero, one):
    ppl.sample("z", dist.Categorical(probs=nn.softmax(ppl.param("l", xp.log(xp.asarray([zero, one]))))))


def of_coin(zero, one):
    ppl.sample("z", dist.Bernoulli(probs=nn.sigmoid(ppl.param("l", xp.log(xp.asarray(one / zero))))))


def of_two_labels(zero, one):
    of_label(zero, one)
    ppl.sample("u", dist.Categorical(logits=ppl.param("m", xp.asarray([0.0, 7.0]))))


def counted(*rates):
    """Counts whose rate is looked up by a label."""

    def run():
        z = ppl.sample("z", dist.Categorical(probs=xp.asarray([0.5, 0.5])))
        ppl.sample("x", dist.Poisson(xp.asarray(rates)[z]), obs=xp.asarray(3.0))

    return run


def counted_by_coin(*rates):
    def run():
        z = ppl.sample("z", dist.Bernoulli(0.5))
        ppl.sample("x", dist.Poisson(rates[0] + (rates[1] - rates[0]) * z), obs=xp.asarray(3.0))

    return run


def counted_by_both():
    """Of a rate that is zero at one of four combinations."""
    z = ppl.sample("z", dist.Categorical(probs=xp.asarray([0.5, 0.5])))
    u = ppl.sample("u", dist.Categorical(probs=xp.asarray([0.5, 0.5])))
    ppl.sample("x", dist.Poisson(xp.asarray([[1.0, 2.0], [0.0, 3.0]])[z, u]), obs=xp.asarray(3.0))


def of_coins(*probs):
    for i, prob in enumerate(probs):
        logit = ppl.param(f"l{i}", xp.log(xp.asarray(prob / (1 - prob))))
        ppl.sample("z" if i == 0 else f"z{i}", dist.Bernoulli(probs=nn.sigmoid(logit)))


def counted_by_coins():
    """Of a rate that is zero where the first of five coins is 1 and the last is 0."""
    z = [ppl.sample("z" if i == 0 else f"z{i}", dist.Bernoulli(0.5)) for i in range(5)]
    ppl.sample("x", dist.Poisson(2.0 - 2.0 * z[0] * (1 - z[4])), obs=xp.asarray(3.0))


RARELY = {"z": Reinforce()}
for _name, _model, _guide in (
    ("a label", counted(2.0, 0.0), rare_guide(of_label)),
    ("a coin", counted_by_coin(2.0, 0.0), rare_guide(of_coin)),
    ("a label of two", counted_by_both, rare_guide(of_two_labels)),
    ("two of five coins", counted_by_coins, lambda: of_coins(0.001, 0.5, 0.5, 0.5, 0.999)),
):  # fmt: skip
    wrong(
        f"impossible data of {_name}",
        objectives.elbo,
        RARE,
        "not finite",
        model=_model,
        guide=_guide,
        verdict="suspect",
        strategies=RARELY,
    )
right(
    "possible data of a rare label",
    objectives.elbo,
    POSSIBLE,
    model=counted(2.0, 0.1),
    guide=rare_guide(of_label),
    strategies=RARELY,
)
right(
    "impossible data of a barred label", objectives.elbo, POSSIBLE, model=counted(2.0, 0.0),
    guide=program(lambda: dist.Categorical(logits=xp.asarray([0.0, -xp.inf]) + ppl.param("l", 0.1))), strategies=RARELY,
)  # fmt: skip
