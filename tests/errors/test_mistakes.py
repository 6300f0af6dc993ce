"""Every mistake is answered by an error that says what was expected, what came, and what to try next.

The rule of a message: at most 600 characters, no data, nothing of this library's insides; and where a site, a parameter or an
option is at fault, its name.
"""

import re
import warnings
from collections import Counter

import pytest

from tests.engines import on
from tests.errors import control_flow, data, doors, plates, programs, results, silent  # noqa: F401  (they fill the table)
from tests.errors.table import MISTAKES, Case

ROWS = [pytest.param(m, e, id=f"{m.name.replace(' ', '_')}-{e.name}") for m in MISTAKES for e in m.engines]
LONGEST = 600
NUMBERS = re.compile(r"Array\(|tensor\(|array\(|\[[-\d.e]+[ ,]+[-\d.e]+[ ,]+[-\d.e]+[ ,]+[-\d.e]+|<ppvi|object at 0x")


@pytest.mark.parametrize(("mistake", "engine"), ROWS)
def test_a_mistake_is_told(mistake, engine):
    with on(engine), warnings.catch_warnings():
        warnings.simplefilter("error" if issubclass(mistake.error, Warning) else "ignore")
        with pytest.raises(mistake.error) as raised:
            mistake.make(Case(engine))
    notes = [
        x for x in getattr(raised.value, "__notes__", ()) if "JAX_TRACEBACK_FILTERING" not in x
    ]  # that is JAX's own
    said = "\n".join([str(raised.value), *notes])
    assert all(word in said for word in mistake.words), said
    assert len(said) <= LONGEST, f"{len(said)} characters: {said}"
    assert not NUMBERS.search(said), said


def test_table_is_large_and_its_names_are_its_own():
    assert len(MISTAKES) >= 170
    assert [name for name, count in Counter(m.name for m in MISTAKES).items() if count > 1] == []
