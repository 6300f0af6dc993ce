"""A defect of XLA on CPUs, kept from the user's process.

jaxlib 0.10.2 fuses sums of products into kernels of another library, and one of those breaks off the process with a
segmentation fault where the arrays have seven axes or more that it cannot merge, as in

    a = b = jnp.ones((3, 1, 2, 2, 8, 8, 8));    jax.jit(lambda a, b: (a * b).sum(3))(a, b)

(https://github.com/jax-ml/jax/issues/40412). Runs of a strategy are an axis each, so that three enumerated sites of images
have as many. XLA reads its flags when the first computation starts; that one of a user who names the flag is left alone.
"""

import os

FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def without_fused_sums(flags: str) -> str:
    """XLA's flags with these kernels left out of sums."""
    return flags if FLAG in flags else f"{flags} {FLAG}=-reduce".strip()


os.environ["XLA_FLAGS"] = without_fused_sums(os.environ.get("XLA_FLAGS", ""))
