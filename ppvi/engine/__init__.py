"""What the engines do alike: run programs under an objective, and fit it."""
