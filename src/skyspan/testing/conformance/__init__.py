"""Conformance suites: inherit, supply the fixtures, and every rule of a contract is tested."""
