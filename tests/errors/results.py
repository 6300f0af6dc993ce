"""Mistakes with what comes out: posteriors, comparisons, MCMC."""
