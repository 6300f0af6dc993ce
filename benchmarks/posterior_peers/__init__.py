"""Ways to a posterior in different systems: contenders of `benchmarks.posteriors`.

`python -m benchmarks.posterior_peers.SYSTEM WAY POSTERIOR SEED FILE` writes draws and processor seconds to FILE;
`python -m benchmarks.posterior_peers.SYSTEM check POSTERIOR FILE` prints the log density of the system's own model at the
points in FILE. Each runs in the environment of its system, which need not have ppvi.
"""
