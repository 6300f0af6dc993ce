from tests.laws.conftest import engine as engine
