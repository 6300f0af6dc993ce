"""Pictures of what the compiler's passes return: of a staged program, of its terms, and of what is run how often.

Of a program only what carries a role is drawn: parameters, data, sites and densities; what lies between two of them is a line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from matplotlib import pyplot as plt

from ppvi.compiler.choose import evaluations, runs
from ppvi.compiler.dependence import own_lanes, propagate, site_lanes, sources_of
from ppvi.compiler.plan import Plan
from ppvi.ir import Density, Equation, Program, Sited, Var

COLOURS = {"input": "#dddddd", "site": "#f2c14e", "density": "#8ecae6", "term": "#b7e4c7", "output": "#f4a6a6"}


class Node(NamedTuple):
    """A box."""

    kind: str
    label: str


Edges = dict[Node, set[Node]]
"""Each box, and those that lead to it."""


def condensed(program: Program, inputs: Sequence[str]) -> tuple[Edges, dict[Any, frozenset[Node]]]:
    """The boxes of a program, and for each variable those that it comes from next; inputs without a name are left out."""
    from_: dict[Any, frozenset[Node]] = {}
    edges: Edges = {}
    for name, var in zip(inputs, program.inputs, strict=False):
        if name:
            node = Node("input", name)
            edges[node] = set()
            from_[var] = frozenset([node])
    for equation in program.equations:
        before = frozenset().union(*(from_.get(atom, frozenset()) for atom in equation.needs))
        node = _box(equation)
        if node is not None:
            edges[node] = set(before)
        for var in equation.outputs:
            from_[var] = before if node is None else frozenset([node])
    return edges, from_


def _box(equation: Equation) -> Node | None:
    match equation.role:
        case Sited(info):
            return Node("site", info.name)
        case Density(site, at=at):
            return Node("density", f"log {'q' if at in ('draw', 'credited draw') else 'p'}({site})")
    return None


def program(plan: Plan, inputs: Sequence[str]) -> Any:
    """The staged program: what leads to the objective."""
    edges, from_ = condensed(plan.program, inputs)
    edges[Node("output", "objective")] = set(from_[plan.program.output])
    return graph(edges)


def terms(plan: Plan) -> Any:
    """The objective as a sum of terms, and the sites that each depends on."""
    edges: Edges = {Node("site", site.role.info.name): set() for site in plan.choices}
    _, from_ = condensed(plan.program, ())
    for i, term in enumerate(plan.terms):
        parts = sorted({node.label for part in term.parts for node in from_.get(part.atom, ())})
        node = Node("term", f"term {i + 1}, {list(term.shape)}\n" + "\n".join(parts))
        edges[node] = {Node("site", site.role.info.name) for site in term.dependence}
    edges[Node("output", "objective")] = {node for node in edges if node.kind == "term"}
    return graph(edges)


def graph(edges: Edges) -> Any:
    """Boxes in columns, each to the right of what leads to it."""
    depth: dict[Node, int] = {}
    for node in edges:
        depth[node] = 1 + max((depth[before] for before in edges[node]), default=-1)
    columns = [[node for node in edges if depth[node] == i] for i in range(max(depth.values()) + 1)]
    tallest = max(map(len, columns))
    figure, axis = plt.subplots(figsize=(2.3 * len(columns), 0.95 * tallest + 0.4), layout="constrained")
    at = {
        node: (float(x), (tallest - len(column)) / 2 + y)
        for x, column in enumerate(columns)
        for y, node in enumerate(column)
    }
    style = {"boxstyle": "round,pad=0.4", "edgecolor": "#555555"}
    boxes = {
        node: axis.text(
            *at[node],
            node.label,
            ha="center",
            va="center",
            fontsize=9,
            zorder=3,
            bbox=style | {"fc": COLOURS[node.kind]},
        )
        for node in edges
    }
    for node, others in edges.items():
        for before in others:
            bend = -0.3 if at[node][0] - at[before][0] > 1 else 0.0
            patches = {"patchA": boxes[before].get_bbox_patch(), "patchB": boxes[node].get_bbox_patch()}
            arrow = {"arrowstyle": "->", "color": "#777777", "connectionstyle": f"arc3,rad={bend}"}
            axis.annotate("", at[node], at[before], arrowprops=arrow | patches, zorder=1)
    axis.set(xlim=(-0.5, len(columns) - 0.5), ylim=(tallest - 0.4, -0.6))
    axis.axis("off")
    return figure


def dependence(plan: Plan) -> Any:
    """For each density and the objective: how it depends on the lanes of each site."""
    sites = list(plan.choices)
    found = propagate(plan.program.equations, {}, lambda site: {site: own_lanes(site)})
    rows = [(_box(e), e.outputs[0]) for e in plan.program.equations if isinstance(e.role, Density)]
    rows = [(box.label, var) for box, var in rows if box is not None]
    rows.append(("objective", plan.program.output))
    said = [[_how(sources_of(found, var), site) if isinstance(var, Var) else "" for site in sites] for _, var in rows]
    names = [site.role.info.name for site in sites]
    colours = [[{"lane by lane": "#b7e4c7", "all lanes": "#f4a6a6"}.get(x, "white") for x in row] for row in said]
    return _table(said, [label for label, _ in rows], names, colours)


def _how(sources: Any, site: Equation) -> str:
    if site not in sources:
        return "no"
    if math.prod(site_lanes(site)) == 1:
        return "yes"
    return "lane by lane" if all(place is not None for place in sources[site]) else "all lanes"


def schedule(plan: Plan) -> Any:
    """The equations in their order: those that run once, and those that run again for each value that a strategy asks for."""
    bits = [sum(1 << i for i, e in enumerate(plan.equations) if e in group) for group in (plan.fixed, plan.tail)]
    rows = {"once, before any credited draw": bits[0]}
    for i, (term, need) in enumerate(zip(plan.terms, plan.needs, strict=True)):
        times, plain = 1, 0
        for site, choice in plan.choices.items():
            if site in term.dependence:
                plain += times * evaluations(site, choice.candidate, term)
                times *= runs(site, choice.candidate, term)
        rows[f"for term {i + 1}: {times} and {plain} plain"] = need
    rows["the linear tail, once"] = bits[1]
    figure, axis = plt.subplots(figsize=(9, 0.5 * len(rows) + 0.8), layout="constrained")
    for y, (name, mask) in enumerate(rows.items()):
        at = [i for i in range(len(plan.equations)) if mask >> i & 1]
        axis.scatter(at, [y] * len(at), marker="|", s=120, label=name)
    for i in (i for i, equation in enumerate(plan.equations) if equation.is_site):
        axis.axvline(i, color="0.7", lw=0.8, zorder=0)
        axis.annotate(plan.equations[i].role.info.name, (i, -0.75), ha="center", fontsize=9)
    axis.set(yticks=range(len(rows)), yticklabels=list(rows), xlabel="equation", ylim=(len(rows) - 0.5, -1))
    return figure


def _table(said: Iterable[Sequence[str]], rows: Sequence[str], columns: Sequence[str], colours: Any) -> Any:
    figure, axis = plt.subplots(figsize=(1.6 * len(columns) + 2, 0.35 * len(rows) + 0.6), layout="constrained")
    axis.axis("off")
    options = {"loc": "center", "cellLoc": "center", "rowLoc": "right"}
    table = axis.table(list(said), rowLabels=rows, colLabels=columns, cellColours=colours, **options)
    table.scale(1, 1.5)
    return figure
