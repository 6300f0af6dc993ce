import pytest

from tests.engines import NUMPYRO, PYRO


@pytest.fixture(params=[PYRO, pytest.param(NUMPYRO, marks=pytest.mark.slow)], ids=lambda engine: engine.name)
def engine(request):
    """The laws that have to fail are the same on both; NumPyro takes longer."""
    return request.param
