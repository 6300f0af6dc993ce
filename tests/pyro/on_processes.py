"""Fits of one of several processes, printed as JSON: `python -m tests.pyro.on_processes ADDRESS PROCESSES NUMBER`."""

import functools
import json
import sys

import pyro
import pyro.distributions as dist
import torch
import torch.distributed as distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ppvi
import ppvi.pyro as vi
from ppvi.objective import estimator_of
from ppvi.objectives import elbo, iwelbo
from ppvi.pyro._sharding import Layout

ROWS = 64


def data(rows=ROWS):
    return torch.sin(torch.arange(1.0 * rows)) * 2


def model(x):
    means = pyro.sample("means", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(torch.where(z > 0, means[..., 1:], means[..., :1]), 1.0), obs=x)


def guide(x):
    loc = pyro.param("loc", lambda: torch.tensor([-1.0, 1.0]))
    pyro.sample("means", dist.Normal(loc, 0.1).to_event(1))
    a, b = pyro.param("a", lambda: torch.tensor(0.0)), pyro.param("b", lambda: torch.tensor(0.3))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=a + b * x))


def minibatch(x):
    """Rows that are drawn, and rates whose draws have a derivative of their own."""
    scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(x), subsample_size=16) as rows:
        rate = pyro.sample("rate", dist.Gamma(3.0, 1.0))
        pyro.sample("x", dist.Normal(rate, scale), obs=x[rows])


def amortised(x):
    a = pyro.param("a", lambda: torch.tensor(2.0), constraint=dist.constraints.positive)
    pyro.sample("scale", dist.Gamma(a, 1.0))
    with pyro.plate("data", len(x), subsample_size=16) as rows:
        concentration = torch.nn.functional.softplus(a + x[rows])
        pyro.sample("rate", dist.Gamma(concentration, 1.0))


def digits(x):
    decoder = pyro.module("decoder", DECODER)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        k = pyro.sample("k", dist.Categorical(logits=torch.zeros(4)))
        pyro.sample("x", dist.Normal(decoder(z).squeeze(-1) + 0.1 * k, 1.0), obs=x)


def encoded(x):
    hidden = pyro.module("encoder", ENCODER)(x[:, None])
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(hidden[:, :3], hidden[:, 3:6].exp()).to_event(1))
        pyro.sample("k", dist.Categorical(logits=hidden[:, 6:]))


def networks():
    torch.manual_seed(0)
    linear, tanh = torch.nn.Linear, torch.nn.Tanh
    return (
        torch.nn.Sequential(linear(1, 32), tanh(), linear(32, 10)),
        torch.nn.Sequential(linear(3, 32), tanh(), linear(32, 1)),
    )


ENCODER, DECODER = networks()


def objectives():
    of = functools.partial(vi.objective, model=model, guide=guide)
    return {
        "enumerated": of(elbo),
        "score": of(elbo, strategies={"z": ppvi.Reinforce()}),
        "particles": of(iwelbo(8), strategies={"z": ppvi.LeaveOneOut(2)}),
        "one by one": of(iwelbo(4), strategies={"z": ppvi.MeasureValued()}),
        "minibatch": vi.objective(elbo, minibatch, amortised),
        "networks": vi.objective(elbo, digits, encoded, strategies={"k": ppvi.Reinforce()}),
    }


def fitted(name, mesh=None):
    pyro.clear_param_store()
    for module, start in zip((ENCODER, DECODER), networks(), strict=True):
        module.load_state_dict(start.state_dict())
    fit = vi.fit(objectives()[name], 0, data(), num_steps=5, mesh=mesh, progress=False)
    return [fit.losses.tolist(), {key: value.tolist() for key, value in fit.params.items()}]


class Work(TorchDispatchMode):
    """Counts the numbers that this process computes: not those that it looks at otherwise, draws, sends or receives."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        out = func(*args, **(kwargs or {}))
        if func.namespace != "aten" or func.is_view or torch.Tag.nondeterministic_seeded in func.tags:
            return out
        self.numbers += sum(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))
        return out


def work(mesh=None):
    """Of one gradient."""
    pyro.clear_param_store()
    bound, x = objectives()["networks"], data(4096)
    params = bound.init(0, x)
    estimator = estimator_of(bound)
    estimator = estimator.on_mesh(Layout(mesh)) if mesh else estimator
    estimator.value_and_grad(0, params, x)
    with Work() as count:
        estimator.value_and_grad(0, params, x)
    return count.numbers


def refusal(mesh, bound, x):
    try:
        vi.fit(bound, 0, x, num_steps=1, mesh=mesh, progress=False)
    except ppvi.PpviError as error:
        return str(error)


def main(address, processes, number):
    distributed.init_process_group("gloo", init_method=f"tcp://{address}", world_size=int(processes), rank=int(number))
    n = int(processes)
    if n == 4:
        meshes = {"both": init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "particles"))}
    else:
        meshes = {name: init_device_mesh("cpu", (n,), mesh_dim_names=(name,)) for name in ("data", "particles")}
    found = {f"{name} {where}": fitted(name, mesh) for name in objectives() for where, mesh in meshes.items()}
    line = init_device_mesh("cpu", (n,))
    found["work"] = work(line)
    learner = vi.objective(elbo, model, guide, strategies={"z": ppvi.Reinforce(ppvi.strategies.RunningMean())})
    found["refusals"] = [
        refusal(line, objectives()["score"], torch.arange(5.0)),
        refusal(line, learner, data()),
    ]
    print(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
