from collections import Counter

import pytest

from tests.engines import ENGINES, PYRO


@pytest.fixture(autouse=True)
def _axes_of_no_plate():
    """Laws are about lanes, which programs here have without plates; Pyro's validation of its ELBOs refuses them."""
    if PYRO is None:
        yield
        return
    validation = PYRO.infer.util
    before = validation.is_validation_enabled()
    validation.enable_validation(False)
    yield
    validation.enable_validation(before)


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request):
    return request.param


def pytest_terminal_summary(terminalreporter):
    """How many random functions the static check has decided, of those with a right gradient and of the others."""
    decided, total = Counter(), Counter()
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for _, counts in (found for found in report.user_properties if found[0] == "verdicts"):
            for verdict, kind, n in counts:
                total[kind] += n
                decided[kind] += n * (verdict != "suspect")
    for kind, n in total.items():
        terminalreporter.write_line(f"decided: {decided[kind]} of {n} random functions whose gradient is {kind}")
