"""What the tests on Pyro share."""

import pyro
import pytest


@pytest.fixture(autouse=True)
def _empty_store():
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()
