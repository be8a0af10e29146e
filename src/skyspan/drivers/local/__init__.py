"""The embedded driver: one process, one event loop."""
