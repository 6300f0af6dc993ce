"""Section search finds the jumps and poles of functions whose jumps and poles are known, and no others."""

import numpy as np
import pytest
from mpmath import acos, atan, cos, erf, exp, floor, inf, isnan, log, mp, mpf, nan, sign, sin, sqrt, tanh

from tests.laws.sections import MANY, EndlessError, derivative, jumps, saturates, shows

GRID = np.linspace(-4, 4, 200) + 0.00271

JUMPING = {
    "sign": (lambda x: (sign(x - 0.3), x > 0.3), [0.3]),
    "a small jump on a slope": (lambda x: (50 * sin(x) + 1e-6 * (x > 1), x > 1), [1.0]),
    "floor": (lambda x: (x - floor(x), floor(x)), [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0]),
    "floor, but where a factor is zero": (lambda x: (floor(x) * (x - 1), floor(x)), [-3.0, -2.0, -1.0, 0.0, 2.0, 3.0, 4.0]),
    "atan(1 / x)": (lambda x: (atan(1 / x), sign(x)), [0.0]),
    "1 / x": (lambda x: (1 / x, sign(x)), [0.0]),
    "a pole that is touched": (lambda x: (1 / (x - 1) ** 2, None), [1.0]),
    "log |x|": (lambda x: (log(abs(x)), None), [0.0]),
    "the end of a domain": (lambda x: (sqrt(x) if x >= 0 else nan, x >= 0), [0.0]),
    "-inf": (lambda x: (log(x) if x > 0 else -inf, x > 0), [0.0]),
    "two in one cell": (lambda x: (mpf(0.5 < x < 0.501), (x > 0.5, x > 0.501)), [0.5, 0.501]),
}  # fmt: skip

CONTINUOUS = {
    "where(x > 0, x, expm1(x))": lambda x: (x if x > 0 else exp(x) - 1, x > 0),
    "root": lambda x: (sqrt(abs(x)) * sign(x), sign(x)),
    "a root of a root": lambda x: (abs(x) ** mpf("0.05") * (x > 0), x > 0),
    "a root of a root on both sides": lambda x: (sqrt(sqrt(abs(x))), sign(x)),
    "exp(-1 / x**2)": lambda x: (exp(-1 / x**2), sign(x)),
    "atan(1 / x**2)": lambda x: (atan(1 / x**2), sign(x)),
    "x log |x|": lambda x: (x * log(abs(x)), sign(x)),
    "a sharp peak": lambda x: (1 / (1e-4 + abs(x)), None),
    "waves": lambda x: (cos(20 * x), floor(x)),
    "NaN all along": lambda x: (nan, isnan(nan)),
}


@pytest.mark.parametrize("name", JUMPING)
def test_jumps_are_found(name):
    function, where = JUMPING[name]
    found = sorted(float(u) for u in jumps(function, GRID))
    np.testing.assert_allclose(found, where, atol=1e-25)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_no_others_are_found(name):
    assert not list(jumps(CONTINUOUS[name], GRID))


def test_endless_jumps_are_not_gone_through():
    with pytest.raises(EndlessError):
        list(jumps(lambda x: (floor(100 * x), floor(100 * x)), GRID))


def test_derivative():
    with mp.workdps(40):
        assert abs(derivative(lambda x: (sin(x * x), None), 1.25) - 2.5 * cos(mpf(1.25) ** 2)) < 1e-30


def test_what_double_precision_has():
    """erf(6) is 1 in it, tanh(150) in a hundred digits too."""
    assert shows(lambda x: (sign(x), x > 0), mpf(0))
    assert not shows(lambda x: (acos(erf(6 + 0.1 * (x > 0))), x > 0), mpf(0))
    below_one = lambda x: (tanh(150 * x), tanh(150 * x) < 1)  # noqa: E731
    assert not saturates(below_one, [1.0])
    assert saturates(below_one, [1.0], MANY)
