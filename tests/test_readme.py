"""The programs of the README and of the pages that it links run as they stand."""

import re
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer.autoguide import AutoNormal

import guides.cone
import models.cone
import ppvi
import ppvi.numpyro

ROOT = Path(__file__).parent.parent


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


README, OBJECTIVES = blocks("README.md"), blocks("docs/objectives.md")


def test_the_example_and_the_objective_after_it(capsys):
    names = {}
    exec(README[0].replace("num_steps=3000", "num_steps=1000, progress=False"), names)
    printed = capsys.readouterr().out
    assert "Enumerate()" in printed
    assert "Fit of 1000 steps" in printed
    np.testing.assert_allclose(names["fit"].params["loc"], [-2.1, 1.9], atol=0.3)
    exec(OBJECTIVES[0], names)
    bound = names["vi"].objective(names["iwelbo"](5), names["model"], names["guide"])
    key = names["jax"].random.key(1)
    assert np.isfinite(bound.estimate(key, names["fit"].params, names["x"]))
    exec(README[2].replace("fit.params, x)", "fit.params, x, budget=5, progress=False)"), names)
    assert "static check: proved" in capsys.readouterr().out
    exec(OBJECTIVES[1], names)
    assert [whose for _, whose in names["pairs"]] == ["model", "guide"]
    assert [objective.maximize for objective, _ in names["pairs"]] == [True, False]
    exec(OBJECTIVES[2], names)
    bound = names["vi"].objective(names["diwhvi"], models.cone.model, guides.cone.ring)
    library = ppvi.objectives.diwhvi(["x", "y"], None, 5, 5)
    same = names["vi"].objective(library, models.cone.model, guides.cone.ring)
    params = bound.init(key, 5.0)
    np.testing.assert_allclose(bound.estimate(key, params, 5.0), same.estimate(key, params, 5.0), rtol=1e-5)


def test_fits_that_go_on(tmp_path):
    names = {}
    exec(README[0].replace("num_steps=3000", "num_steps=10, progress=False"), names)
    names["key"], [block] = names["jax"].random.key(0), blocks("docs/fits.md")
    block = re.sub(r"num_steps=[\d_]+", "num_steps=10, progress=False", block).replace('"run"', repr(str(tmp_path)))
    exec(block.replace("state=ppvi.load", "num_steps=10, progress=False, state=ppvi.load"), names)
    assert (names["more"].losses == names["again"].losses).all()
    assert len(names["more"].losses) == 20


def test_every_page_that_is_linked_is_there():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_example_on_pyro(capsys):
    pyro = pytest.importorskip("pyro")
    pyro.clear_param_store()
    names = {}
    exec(README[1].replace("num_steps=1000", "num_steps=300, progress=False"), names)
    assert "engine: staged" in capsys.readouterr().out
    assert abs(float(names["guide"].median()["loc"]) - 1.27) < 0.3
    pyro.clear_param_store()


def test_a_program_with_a_loop():
    names = {"numpyro": numpyro, "dist": numpyro.distributions, "scan": scan}
    exec(blocks("docs/loops.md")[0], names)
    series, key = jnp.sin(jnp.arange(5.0)), jax.random.key(0)
    bound = ppvi.numpyro.objective(ppvi.objectives.elbo, names["model"], AutoNormal(names["model"]))
    fit = ppvi.numpyro.fit(
        bound,
        key,
        series,
        optimizer=optax.adam(optax.exponential_decay(0.05, 500, 0.1)),
        num_steps=2000,
        progress=False,
    )
    # The posterior mean, by the precision of five states.
    moves = jnp.eye(5) - 0.9 * jnp.eye(5, k=-1)
    mean = jnp.linalg.solve(moves.T @ moves + 4 * jnp.eye(5), 4 * series)
    np.testing.assert_allclose(fit.params["z_auto_loc"], mean, atol=0.1)


def test_presence_by_one_argument():
    names = {"vi": ppvi.numpyro}
    exec(blocks("docs/air.md")[0].replace("vi.objective", "bound = vi.objective"), names)
    assert [str(strategy) for strategy in names["bound"].strategies.values()] == [
        "MeasureValued()",
        "MeasureValued()",
        "Enumerate()",
    ]


@pytest.mark.slow
def test_the_page_of_results():
    from tests.engines import NUMPYRO, on
    from tests.test_results import OPTIONS, X, Y, guide, model

    with on(NUMPYRO):
        x, y, key = jnp.array(X), jnp.array(Y), jax.random.key(0)
        bound = ppvi.numpyro.objective(ppvi.objectives.elbo, model, guide)
        names = {"vi": ppvi.numpyro, "ppvi": ppvi, "az": az, "model": model, "bound": bound, "key": key, "x": x, "y": y}
        names |= {"names": list("ABCDEFGHIJKL"), "new_x": x[:3], "new_y": y[:3], "other": bound}
        first, predicting, left_out, compared = blocks("docs/results.md")
        options = ", ".join(f"{name}={value}" for name, value in OPTIONS.items())
        exec(
            first.replace("until=ppvi.Plateau()", "num_steps=50, optimizer=1e-3, progress=False")
            .replace('{"school"', '{"rows"')
            .replace("key, x, y)", f"key, x, y, {options})"),
            names,
        )
        names["other"] = names["fit"]
        for block in (predicting, left_out, compared.replace('["slope", "bend"]', '["slope"]')):
            exec(block, names)
    assert names["comparison"]["elbo"].worst.name == "slope"
