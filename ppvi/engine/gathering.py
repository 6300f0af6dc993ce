"""What a model says of draws of its latent sites, group by group, as ArviZ data have it.

Draws come from a fit or from MCMC. The model is run once for each, on all rows, and tells its deterministic sites, the density
and that of every observation; and once more for the data, which are the same for all. The axes of an array are named by the
plates that they are of.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from ppvi._ops import Array
from ppvi.engine._arviz import SAMPLE, Variable, data_of, dataset
from ppvi.engine.calls import name_of
from ppvi.engine.handles import Handle
from ppvi.engine.labels import Labels
from ppvi.engine.protocol import Args, Estimator, Kwargs, Params
from ppvi.engine.runs import Assess, Run, Simulate
from ppvi.engine.sites import Layout, Site
from ppvi.ir import At

if TYPE_CHECKING:  # which take seconds to import
    import xarray as xr

    from ppvi.engine._arviz import ArviZData

LIBRARIES = {"numpyro": ("numpyro", "jax"), "pyro": ("pyro-ppl", "torch")}
"""Of an engine, those whose versions are kept with draws."""


class Predict(Simulate):
    """Draw latent sites that nothing is given for, or an array of other rows; and unless it observes, what the model does.

    **Arguments**

    - `in_loops`: of sites in loops that have values, which of their rounds these are of, `(rounds)`; None for all of them.
    """

    def __init__(
        self,
        handle: Handle,
        given: Mapping[str, Any],
        redraw: Collection[str] = (),
        observing: bool = False,
        in_loops: Mapping[str, Array | None] | None = None,
    ):
        super().__init__(handle.role, handle.session, given, observing)
        self.redraw, self.observable, self.in_loops = redraw, set[str](), in_loops or {}
        self.others: dict[str, tuple[int, ...]] = {}
        """Of sites that what is given does not fit, the shape, without the rounds of loops that they are in."""

    def observe(self, site: Site) -> tuple[Array, Array, At]:
        self.observable.add(site.name)
        return super().observe(site)

    def visit(self, site: Site) -> tuple[Array, Array, At]:
        if site.name not in self.given or site.name in self.redraw:
            return self._drawn(site)
        if site.name in self.in_loops:
            rounds = self.in_loops[site.name]
            return super().visit(site) if rounds is None else self._begun(site, rounds)
        own = (*site.fn.batch_shape, *site.fn.event_shape)
        if tuple(self.given[site.name].shape) == own:
            return super().visit(site)
        self.others[site.name] = own
        return self._drawn(site)

    def _drawn(self, site: Site) -> tuple[Array, Array, At]:
        kept, self.given = self.given, {}
        try:
            return super().visit(site)
        finally:
            self.given = kept

    def _begun(self, site: Site, rounds: Array) -> tuple[Array, Array, At]:
        """The values of some rounds, and draws in the others."""
        drawn, _, _ = self._drawn(site)
        known = self.session.given(replace(site, name=f"{site.name} is known", fn=Flag()), rounds, self.role)
        value = self.session.given(site, self.given[site.name], self.role)
        value = self.session.ops.where(known, value, drawn)
        return value, self.session.log_prob(site, value, self.role), "choice"

    def refuse_unused(self, choices: Mapping[str, Any]) -> None:
        """What is given may be of more sites."""

    def again(self, handle: Handle, drawn: Mapping[str, Array]) -> Predict | None:
        """A run after this one that knows of loops, whose rounds show in no round but in what this one has drawn; None where
        they make no difference. A loop that has more rounds than there are values goes on from these."""
        given, in_loops, ops = dict(self.given), dict[str, Any](), self.session.ops
        for name, own in self.others.items():
            value, whole = given[name], tuple(drawn[name].shape)
            shape = tuple(value.shape)
            missing = whole[0] - shape[0] if len(whole) == len(shape) == len(own) + 1 else 0
            if shape == whole:
                in_loops[name] = None
            elif shape[1:] == whole[1:] and missing > 0:
                in_loops[name] = ops.array(np.arange(whole[0]) < len(value)) > 0
                given[name] = ops.concatenate([value, ops.zeros((missing, *shape[1:]), value)])
        return Predict(handle, given, self.redraw, self.observing, in_loops) if in_loops else None


class Flag:
    """The distribution of what is true or false in each round of a loop, as far as its shape."""

    batch_shape = event_shape = ()

    def shape(self) -> tuple[int, ...]:
        return ()


@dataclass
class Told:
    """What the runs of a model have told of it, beside numbers."""

    layouts: dict[str, Layout] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    """Of plates."""

    def hear(self, run: Run) -> None:
        self.layouts |= run.layouts
        for name, plates in run.plates.items():
            shape = run.log_probs[name].shape
            self.rows |= {plate.name: shape[plate.dim] for plate in plates if plate.dim is not None}

    def beside(self, probs: Collection[str]) -> None:
        """Told of the probabilities of the values of sites, which have an axis more."""
        for name in probs:
            plates = self.layouts[name.removesuffix("_probs")].plates
            self.layouts[name] = Layout(plates, 1)

    def at(self, p: Handle, choices: Mapping[str, Array], strict: bool = False) -> dict[str, Any]:
        """One run of the model with these choices, which if `strict` are all its own: its `sites`, `log_p`, and the
        `log_likelihood` of what is observed."""
        run = Assess("model", p.session, choices, strict)
        joint = p.run(run)
        self.hear(run)
        return {
            "sites": {**joint, **run.deterministic},
            "log_p": joint.log_density,
            "log_likelihood": {name: joint.log_probs[name] for name in _data(run)},
        }

    def data(self, p: Handle, choices: Mapping[str, Array]) -> dict[str, Array]:
        """What is observed, whatever the choices, of which there may be too few."""
        run = Predict(p, choices, observing=True)
        p.run(run)
        return _data(run)

    def predicted(
        self, p: Handle, choices: Mapping[str, Array], redraw: Collection[str] = ()
    ) -> dict[str, Mapping[str, Array]]:
        """One run of the model in which its data are drawn: `latent` and `observable` sites, of which what the run has drawn
        is `predicted`, and `deterministic` ones."""
        run = Predict(p, choices, redraw)
        drawn = p.run(run)
        if (after := run.again(p, drawn)) is not None:
            run, drawn = after, p.run(after)
        self.hear(run)
        own = {name: x for name, x in drawn.items() if 0 not in x.shape}
        return {
            "latent": {name: x for name, x in own.items() if name not in run.observable},
            "observable": {name: x for name, x in own.items() if name in run.observable},
            "predicted": {name: x for name, x in own.items() if name not in run.placed},
            "deterministic": run.deterministic,
        }


def _data(run: Run) -> dict[str, Array]:
    """What a run has observed; the data of a factor are empty."""
    return {name: x for name, x in run.data.items() if 0 not in x.shape}


# Groups ---------------------------------------------------------------------------------------------------------------------


class Groups:
    """Groups of ArviZ data, in the making.

    **Arguments**

    - `chains`: how many the draws are of, which come one chain after the other.
    """

    def __init__(self, told: Told, labels: Labels, chains: int = 1):
        self.told, self.labels, self.chains = told, labels, chains
        self.made: dict[str, dict[str, Variable]] = {}
        self.attrs: dict[str, Any] = {}
        self.of_group: dict[str, dict[str, Any]] = {}
        self.numbered: dict[str, Any] = {}
        """Coordinates of axes that are no site's."""

    def draws(self, group: str, arrays: Mapping[str, np.ndarray], pointwise: bool = False) -> None:
        """A group of draws, each of leading size draws times chains; `pointwise` ones have no axes of events."""
        axes = self.labels.axes(
            self.told.layouts, self.told.rows, {name: x.shape[1:] for name, x in arrays.items()}, pointwise
        )
        self.made[group] = {
            name: Variable((*SAMPLE, *axes[name]), x.reshape(self.chains, -1, *x.shape[1:]))
            for name, x in arrays.items()
        }

    def flat(self, group: str) -> dict[str, np.ndarray]:
        """The arrays of a group of draws, one chain after the other."""
        return {name: x.values.reshape(-1, *x.values.shape[2:]) for name, x in self.made.get(group, {}).items()}

    def on_other(self, told: Told) -> Groups:
        """The same groups, for those to come that are of other data."""
        other = Groups(told, self.labels, self.chains)
        other.made = self.made
        return other

    def constants(self, group: str, arrays: Mapping[str, np.ndarray]) -> None:
        """A group of arrays that are no draws."""
        if arrays:
            axes = self.labels.axes(self.told.layouts, self.told.rows, {name: x.shape for name, x in arrays.items()})
            self.made[group] = {name: Variable(axes[name], x) for name, x in arrays.items()}

    def arguments(self, group: str, bound: Estimator, args: Args, kwargs: Kwargs) -> None:
        """Arrays among the model's arguments, but for those that are observed."""
        data = self.made.get("observed_data", {}).values()
        found = dict(arrays_of(bound, args, kwargs))
        self.constants(group, {name: x for name, x in found.items() if not any(_same(x, y.values) for y in data)})

    def course(self, group: str, steps: np.ndarray, losses: np.ndarray) -> None:
        """A group of the losses of a fit, by step."""
        if len(steps):
            self.made[group] = {"loss": Variable(("step", "objective")[: losses.ndim], losses)}
            self.numbered["step"] = steps

    def likelihood(self, given: Mapping[str, np.ndarray], marginal: Mapping[str, np.ndarray] | None = None) -> None:
        """The log density of data at draws.

        **Arguments**

        - `given`: that of each entry given all latent sites; `marginal` instead over finite sites that are summed out, of which
          the group's attribute `conditional` names those data that it is not known of.
        """
        found = {name: x if marginal is None else marginal.get(name, x) for name, x in given.items()}
        self.draws("log_likelihood", found, pointwise=True)
        if marginal is not None and (left := [name for name in given if name not in marginal]):
            self.say("log_likelihood", conditional=", ".join(left))

    def say(self, group: str, **attrs: Any) -> None:
        """Attributes of a group."""
        self.of_group.setdefault(group, {}).update(attrs)

    def dataset(self, variables: Mapping[str, Variable], attrs: Mapping[str, Any] | None = None) -> xr.Dataset:
        return dataset(variables, self.numbered | self.labels.coords_of(variables), attrs or {})

    def datasets(self) -> dict[str, xr.Dataset]:
        found = {
            name: self.dataset(variables, self.of_group.get(name)) for name, variables in self.made.items() if variables
        }
        self.labels.refuse_unused()
        return found

    def finished(self, more: Mapping[str, xr.Dataset] | None = None) -> ArviZData:
        """ArviZ data of these groups, and of others that are made already."""
        return data_of(self.datasets() | dict(more or {}), self.attrs)


def observed(
    groups: Groups, bound: Estimator, key: Any, params: Params, args: Args, kwargs: Kwargs, sites: Mapping[str, Any]
) -> None:
    """Add the data: what is observed, and the arguments beside."""
    first = {name: x[:1] for name, x in sites.items()}
    found = bound.many(key, params, args, kwargs, 1, lambda p, q, z: groups.told.data(p, z), first)
    groups.constants("observed_data", {name: x[0] for name, x in found.items()})
    groups.arguments("constant_data", bound, args, kwargs)


def arrays_of(bound: Estimator, args: Args, kwargs: Kwargs) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays among the arguments of a model, by name; those in a dict by both names."""
    for name, value in _by_name(bound.formula.model, args, kwargs):
        for whole, part in (
            ((f"{name}.{k}", x) for k, x in value.items()) if isinstance(value, dict) else [(name, value)]
        ):
            x = _array(bound, part)
            if x is not None and x.ndim and x.dtype.kind in "biuf":
                yield whole, x


def _array(bound: Estimator, value: Any) -> np.ndarray | None:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return bound.known(value)
    if isinstance(value, list | tuple) or hasattr(value, "__array__"):
        try:
            return np.asarray(value, float)
        except (TypeError, ValueError):
            return None
    return None


def _by_name(model: Callable[..., Any], args: Args, kwargs: Kwargs) -> list[tuple[str, Any]]:
    try:
        bound = inspect.signature(model).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return [*((f"argument_{i}", x) for i, x in enumerate(args)), *kwargs.items()]
    kinds = {name: p.kind for name, p in inspect.signature(model).parameters.items()}
    found: list[tuple[str, Any]] = []
    for name, value in bound.items():
        if kinds[name] is inspect.Parameter.VAR_POSITIONAL:
            found += [(f"{name}_{i}", x) for i, x in enumerate(value)]
        else:
            found += value.items() if kinds[name] is inspect.Parameter.VAR_KEYWORD else [(name, value)]
    return found


def _same(x: Any, y: Any) -> bool:
    return np.shape(x) == np.shape(y) and np.array_equal(np.asarray(x, float), np.asarray(y, float), equal_nan=True)


def made_by(engine: str, model: Any, **attrs: Any) -> dict[str, Any]:
    """Attributes that say where draws are from."""
    libraries = ("ppvi", *LIBRARIES[engine], "arviz")
    return {
        "inference_library": "ppvi",
        "inference_library_version": _version("ppvi"),
        "versions": ", ".join(f"{name} {_version(name)}" for name in libraries),
        "model": name_of(model),
        **attrs,
    }


def _version(name: str) -> str:
    if name == "ppvi":
        from ppvi import __version__

        return __version__
    return version(name)
