"""Shipped with the package: fakes, scripted transports and conformance suites."""
