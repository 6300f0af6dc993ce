"""|x| of derivative 0 at 0, midway between its two sides, as JAX has it for max(x, 0).

JAX's own abs takes one side, 1. Stable formulas of smooth functions, such as max(x, 0) + log1p(exp(-|x|)) for log(1 + exp(x)),
are right at 0 only if both take the middle, and 0 is where logits begin. In a program and all bodies in it, abs is another
operation of the same name, which differs in its derivative.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ppvi.numpyro import _compat, _rules as rules
from ppvi.numpyro._compat import Primitive, ad, batching, mlir

abs_p = Primitive(lax.abs_p.name)
abs_p.def_impl(lax.abs)
abs_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(abs_p, mlir.lower_fun(lax.abs, multiple_results=False))
batching.defvectorized(abs_p)
ad.defjvp(abs_p, lambda dx, x: dx * jnp.sign(x))


def symmetric(body: _compat.Body) -> _compat.Body:
    """A program with the symmetric |x|."""
    return _compat.with_equations(body, _symmetric)


def _symmetric(eqn: Any) -> Any:
    if eqn.primitive is lax.abs_p and rules.is_float(eqn.invars[0]):
        return eqn.replace(primitive=abs_p)
    if next(_compat.bodies_in(eqn.params), None) is None:
        return eqn
    params = jax.tree.map(lambda x: symmetric(x) if _compat.is_body(x) else x, eqn.params, is_leaf=_compat.is_body)
    return eqn.replace(params=params)
