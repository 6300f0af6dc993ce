"""Benchmarks: side by side with hand-written code and with peers, in one run, as ratios."""
