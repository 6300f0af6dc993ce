"""What compares with the libraries takes minutes, and runs with the other slow laws."""

from pathlib import Path

import pytest

QUICK = ("test_page.py", "test_numpyro_introduction.py")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name not in QUICK:
            item.add_marker(pytest.mark.slow)
