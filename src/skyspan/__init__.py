"""Skyspan: one deployment across clouds, clusters, hosts and labs, and the link between them."""

__version__ = "0.1.0"
