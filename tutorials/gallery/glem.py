# %% [markdown]
# # GLEM: a model of texts and a model of who cites whom, which teach one another
#
# Papers have words and cite one another, and a few have been given a subject. A text model sees a paper's words alone: it is
# cheap, it works for a paper that nobody has cited yet, and with few labels it is bad. A graph model sees the neighbours too.
# To train both as one network costs a text model for each neighbour of each neighbour. GLEM trains them in turn: labels that
# are not known are hidden variables, the text model is their variational distribution, and the graph model is the model.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import ppvi
import ppvi.numpyro as vi
from gallery import FULL, Entry, choose, mean_se, said, show
from gallery.evaluation import columns_of
from guides.glem import answers, guide, table
from models.datasets import cora_labels, planetoid
from models.generated import communities, community
from models.glem import at_rest, by_gibbs, exactly, fields, filled, jointly, model, predicted, small, split, weights

ENTRY = Entry(
    name="glem",
    system="Learning on Large-scale Text-attributed Graphs via Variational Inference",
    family="graphs",
    engine="NumPyro",
    objective="pseudo-likelihood and wake-sleep, in turn, on the page",
    strategies="Enumerate",
    shows="a text model and a graph model that label each other's papers, on Cora; beside enumeration and Gibbs sampling",
    paper="Zhao et al. 2023",
    link="https://arxiv.org/abs/2210.14709",
)
SEEDS, STEPS, ROUNDS, EACH = range(choose(1, 8)), choose(20, 100), choose(1, 2), choose(5, 20)
GRAPH, LABELS = (planetoid("cora"), cora_labels()) if FULL else (communities(150), community(150))
CLASSES = int(LABELS.max()) + 1
model, guide, table = (partial(each, classes=CLASSES) for each in (model, guide, table))
show(model.func, guide.func)

# %% [markdown]
# ## Two objectives
# The field of all labels cannot be normalised, but its conditionals can. In the M-step the graph model climbs the
# pseudo-likelihood, of labels that the text model draws where none is known. In the E-step the text model climbs the likelihood
# of labels that the graph model draws given the neighbours': as in wake-sleep, $KL(p\,\|\,q)$ of each conditional takes the
# place of the bound's $KL(q\,\|\,p)$. Known labels stay; the weights are a share over papers without one, the rest over others.
#
# $$\text{M:} \; E_{y \sim q} \sum_n w_n \log p(y_n \mid s, A, y_{-n}) \qquad
# \text{E:} \; E_{\hat y \sim q}\, E_{y_n \sim p(\cdot \mid s, A, \hat y_{-n})} \sum_n w_n \log q(y_n \mid s_n)$$


# %%
def m_step(share, classes=CLASSES):
    def program(p, q):
        guess = q.simulate(stop_params="the text model is held constant")
        papers, y = guess.returned, filled(guess.returned, guess["y"])
        given = p.bind(papers, jax.nn.one_hot(y, classes))
        return (weights(papers, share) * given.log_density({"y": y}, per="nodes")).sum()

    return program


def e_step(share, classes=CLASSES):
    def program(p, q):
        guess = q.simulate(stop_params="labels of the others are held constant")
        papers, y = guess.returned, filled(guess.returned, guess["y"])
        told = p.bind(papers, jax.nn.one_hot(y, classes)).simulate(stop_params="the graph model is held constant")
        return (weights(papers, share) * q.log_density({"y": filled(papers, told["y"])}, per="nodes")).sum()

    return program


# %% [markdown]
# ## Exact, on a small graph
# Six papers, two with a label, and all 729 ways to label them. Both objectives are what the sum over all labels says, with
# conditionals that are taken from the joint distribution; so is the E-step's gradient. Where that is zero,
# $q(y_n) = E_q[p(y_n \mid y_{-n})]$: these are not the posterior's marginals, whose distance in total variation is printed.

# %%
few, params = small(jax.random.key(0))
programs = partial(model.func, classes=3, hidden=4), partial(table.func, classes=3)
e, m = (vi.objective(step(0.5, 3), *programs, strategies={"y": ppvi.Enumerate()}) for step in (e_step, m_step))
print(e.explain(params, few))
assert [bound.prove(params, few).verdict for bound in (e, m)] == ["proved"] * 2
joint, q, key = jointly(params, few), jax.nn.softmax(params["text"]), jax.random.key(1)
e_value, gradient, m_value = exactly(q, joint, few, 0.5)
value, found = e.value_and_grad(key, params, few)
np.testing.assert_allclose([value, m.estimate(key, params, few)], [e_value, m_value], rtol=1e-4)
np.testing.assert_allclose(found["text"], gradient, atol=1e-5)
q, posterior = at_rest(q, joint, few)
_, found = e.value_and_grad(key, params | {"text": jnp.log(q + 1e-12)}, few)
np.testing.assert_allclose(found["text"], 0.0, atol=1e-5)
print("q at rest, from the posterior's:", (from_exact := 0.5 * abs(q - posterior)[1:5].sum(1)).round(3))

# %% [markdown]
# ## Papers on Cora
# Of 2,708 papers 677 are new: nobody cites them, they cite none, and nothing is learned from them. 20 of each of seven subjects
# have a label. Both models first learn from these, then come rounds of E and M. The graph model learns from labels that it
# draws, too: `self-trained`. A Gibbs sampler draws labels from the field that GLEM has fitted, and does so `again`. `free` is
# an E-step with numbers for each paper, `longer` one of 500 steps, weights not penalised, `fields` the field without couplings.


# %%
def labels_alone(p, q):
    papers = q.simulate(stop_params="a draw is of no use here").returned
    each = q.log_density({"y": papers.label}, per="nodes") + p.log_density({"y": papers.label}, per="nodes")
    return (weights(papers, 0.0) * each).sum()


alone, e, m = (vi.objective(step, model, guide) for step in (labels_alone, e_step(0.5), m_step(0.9)))
e_free, m_itself = (vi.objective(step, model, table) for step in (e_step(0.5), m_step(0.9)))
adam = optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.01))
gibbs = jax.jit(partial(by_gibbs, sweeps=300, warmup=50))


def one_split(seed):
    """Percent that are right, by model; distances from the Gibbs sampler's probabilities; and the course of it."""
    papers, key = split(GRAPH, LABELS, EACH, seed), jax.random.key(seed)
    new, hidden = np.asarray(papers.new), ~np.asarray(papers.known | papers.new)

    def fitted(pairs, params, steps=STEPS, optimizer=adam):
        return vi.fit(pairs, key, papers, num_steps=steps, params=params, optimizer=optimizer, progress=False).params

    def right(told, some):
        return 100 * np.mean((np.asarray(told).argmax(1) == LABELS)[some])

    params = first = fitted(alone, None, 2 * STEPS)
    course = [answers(params, papers)]
    for pair in [(e, "guide"), (m, "model")] * ROUNDS:
        params = fitted([pair], params)
        course.append(answers(params, papers))
    row = {}
    for when, told in (("alone", course[0]), ("GLEM", course[-1])):
        row |= {f"{name}, {when}": right(each, hidden) for name, each in told.items()}
        row |= {f"new: {name}, {when}": right(each, new) for name, each in told.items()}
    if FULL:
        itself = first | {"text": fields(first["fields"], papers)}
        for _ in range(ROUNDS):
            itself = fitted([(m_itself, "model")], itself)
            itself |= {"text": jnp.log(predicted(itself, papers, jax.nn.softmax(itself["text"])))}
        free = fitted([(e_free, "guide")], params | {"text": jnp.log(course[-1]["text"])}, 5 * STEPS, 0.05)["text"]
        longer = answers(fitted([(e, "guide")], params, 5 * STEPS, 0.01), papers)["text"]
        drawn, again = (np.asarray(gibbs(k, params, papers)) for k in jax.random.split(key))
        row |= {"graph, self-trained": right(itself["text"], hidden), "Gibbs, GLEM": right(drawn, hidden)}
        free, by_fields = map(jax.nn.softmax, (free, fields(params["fields"], papers)))
        told = course[-1] | {"free": free, "longer": longer, "fields": by_fields, "again": again}
        row |= {f"{x} from Gibbs": 0.5 * abs(np.asarray(y) - drawn)[hidden].sum(1).mean() for x, y in told.items()}
    return row, [[right(x["text"], new), right(x["text"], hidden), right(x["graph"], hidden)] for x in course]


rows, courses = zip(*map(one_split, SEEDS), strict=True)
found = columns_of(rows)
print("\n".join(f"{name:20} {said(values)}" for name, values in found.items()))

# %%
figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
for k, name in enumerate(("text model, new papers", "text model", "graph model")):
    axis.plot(np.array(courses)[:, :, k].T, color=f"C{k}", lw=0.5, alpha=0.6)
    axis.plot(np.mean(courses, 0)[:, k], "o-", color=f"C{k}", label=name)
axis.set(xticks=range(1 + 2 * ROUNDS), xticklabels=["labels alone", *["E", "M"] * ROUNDS], ylabel="percent right")
axis.legend(frameon=False)
ENTRY.picture(figure)

# %% [markdown]
# ## The claim
# The paper: both models get better than alone. Half of it comes out. Of papers that are new the text model gets 68.2 ± 0.7 %
# right, alone 56.0 ± 0.7, and more than the graph model, which has no neighbours there (64.4 ± 0.8), of the others 77.2 ± 0.6,
# alone 55.0 ± 0.7: all of it in the first E-step. The graph model, at 77.4 ± 0.5 % alone, loses 1.2 ± 0.4; by labels of its own
# it loses 1.6 ± 0.3, not told apart; Gibbs gets no more right than it. In total variation the graph model is 0.001 from Gibbs
# (Gibbs again 0.0004), the free text model 0.004, the text model 0.088, but 0.007 when it is trained for longer without the
# penalty: so its network can. But the field without couplings is 0.009 away: here labels of neighbours say little.
#
# What differs: the paper has a language model and larger graphs; here are words, a text model that is bad alone, and symmetric
# couplings, which the exact sums need. The penalty, steps and shares were set on other splits. What to change first: `EACH`.
#
# Zhao, Qu, Li et al., "Learning on large-scale text-attributed graphs via variational inference", ICLR 2023.

# %%
ahead = {name: np.subtract(found[f"{name}, GLEM"], found[f"{name}, alone"]) for name in ("new: text", "text", "graph")}
to = {name: " to ".join(said(found[f"{name}, {when}"], 1) for when in ("alone", "GLEM")) for name in ahead}
text = f"right, alone to GLEM: text model on new papers {to['new: text']} %, graph model {to['graph']} %"
ahead |= {"itself": np.subtract(found["graph, self-trained"], found["graph, alone"])} if FULL else {}
ENTRY.record(text, seeds=SEEDS, steps=STEPS, found=found, ahead=ahead, courses=courses, from_exact=from_exact)
assert min(*ahead["text"], *ahead["new: text"]) > choose(0, 5)
if FULL:
    assert mean_se(ahead["graph"])[0] < -2 * mean_se(ahead["graph"])[1]
    assert max(*found["free from Gibbs"], *found["longer from Gibbs"]) < 0.2 * min(found["text from Gibbs"])
