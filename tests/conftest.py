"""Common set-up: no implicit rank promotion by accident, CPU only, quiet third parties."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
