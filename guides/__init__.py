"""Example guides: one system per module, the same name in `models`."""
