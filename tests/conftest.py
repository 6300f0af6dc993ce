"""Common set-up: tests run on the CPU unless the environment says otherwise."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
