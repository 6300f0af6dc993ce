"""Mistakes in models, guides and objectives."""
