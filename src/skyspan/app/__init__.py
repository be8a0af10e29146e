"""The composition root: wiring, settings and use cases."""
