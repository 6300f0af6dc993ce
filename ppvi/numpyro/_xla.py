"""A defect of XLA on CPUs, kept from the user's process.

jaxlib 0.10.2, and neither the version before nor the one after, fuses sums of products into kernels of another library, one of
which breaks off the process with a segmentation fault where the arrays have seven axes or more that it cannot merge, as in

    a = b = jnp.ones((3, 1, 2, 2, 8, 8, 8));    jax.jit(lambda a, b: (a * b).sum(3))(a, b)

(https://github.com/jax-ml/jax/issues/40412). Runs of a strategy are an axis each, so that three enumerated sites of images
have as many. A flag leaves these kernels out of sums. XLA reads its flags once, when the CPUs' backend starts, and breaks off
a process that names one which it does not know: the flag is in the environment only while the backend of such a version starts,
so that no other version meets it, in this process or in its children. That one of a user who names the flag is left alone. It
stands before the user's flags: XLA ignores what comes after a word without dashes, and `intra_op_parallelism_threads=1` is one
that is often among them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ppvi.numpyro import _compat

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
FIRST, FIXED = (0, 10, 2), (0, 11)
"""The versions of jaxlib that have the defect, and the flag."""


def without_fused_sums(flags: str) -> str:
    """XLA's flags with these kernels left out of sums. What begins without a dash is the name of a file of flags."""
    own = FLAG in flags or (flags.strip() and not flags.lstrip().startswith("-"))
    return flags if own else f"{FLAG}=-reduce {flags}".strip()


@contextmanager
def flagged() -> Iterator[None]:
    """With the flag in the environment."""
    given = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = without_fused_sums(given or "")
    try:
        yield
    finally:
        if given is None:
            del os.environ["XLA_FLAGS"]
        else:
            os.environ["XLA_FLAGS"] = given


def guard(version: tuple[int, ...]) -> None:
    """Have the backend of CPUs start with the flag where this version of jaxlib needs it; warn where it has started."""
    if (
        FIRST <= version < FIXED
        and not _compat.cpu_starts_within(flagged)
        and FLAG not in os.environ.get("XLA_FLAGS", "")
    ):
        warnings.warn(
            f"JAX had computed before ppvi.numpyro was imported: on CPUs, jaxlib {'.'.join(map(str, version))} breaks off the "
            f"process at some sums of products of arrays with seven axes or more, by a segmentation fault. Import ppvi.numpyro "
            f"before JAX computes, or set the environment variable XLA_FLAGS={FLAG}=-reduce, or take another jaxlib.",
            stacklevel=2,
        )


guard(_compat.JAXLIB)
