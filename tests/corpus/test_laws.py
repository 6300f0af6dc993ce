"""Programs whose estimators the laws show to be unbiased: the static check proves them all."""

import numpy as np
import pytest

from tests.engines import on
from tests.laws import cases, test_objectives, test_statistical

TABLES = (cases, test_statistical, test_objectives)
CASES = [case for table in TABLES for case in table.CASES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_proved(engine, case):
    with on(engine):
        params = {name: engine.array(np.asarray(value, np.float32)) for name, value in case.params.items()}
        objective = engine.vi.objective(case.program, case.model, case.guide, strategies=case.strategies[0])
        report = objective.prove(params)
    assert report.verdict == "proved", report
