"""The compiler: a staged objective becomes a gradient estimator. Framework-free; see each pass's module."""
