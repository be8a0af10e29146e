"""Perform what the engine decided, one driver per way of running."""
