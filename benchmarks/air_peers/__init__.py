"""One Adam step of Attend, Infer, Repeat in different systems: contenders of `benchmarks.air_steps`.

`python -m benchmarks.air_peers.SYSTEM ESTIMATOR FILE`, where FILE holds the 64 images.
"""
