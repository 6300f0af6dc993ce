"""Mistakes in the data: what is passed to a model and a guide."""
