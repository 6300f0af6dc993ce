"""Example models: one system per module, the same name in `guides`."""
