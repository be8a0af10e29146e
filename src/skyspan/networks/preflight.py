"""What can be said against a link before a run, from the settings that are known already: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from skyspan.model.diagnostic import Diagnostic, Position
from skyspan.networks.addressing import Network
from skyspan.networks.peers import Site, conflicts


def findings(settings: Mapping[str, Any]) -> Iterator[Diagnostic]:
    """An error for every pair of prefixes that cannot be joined. What is unknown or of a wrong shape is passed over:
    the settings are validated when all of them are known."""
    ends = settings.get("between")
    known = [_site(end) for end in ends if isinstance(end, Mapping)] if isinstance(ends, list | tuple) else []
    for problem in conflicts(known):
        yield Diagnostic(
            "link-conflict",
            problem,
            Position(""),
            hint="every network may be behind one side only, and endpoints outside all of them",
        )


def _site(end: Mapping[str, Any]) -> Site:
    prefixes = end.get("prefixes")
    endpoint = end.get("endpoint")
    return Site(
        name=str(end.get("host", "a side")),
        prefixes=tuple(_networks(prefixes)) if isinstance(prefixes, list | tuple) else (),
        endpoint=endpoint if isinstance(endpoint, str) else "",
    )


def _networks(prefixes: list[Any] | tuple[Any, ...]) -> Iterator[Network]:
    for prefix in prefixes:
        if isinstance(prefix, str):
            try:
                yield ip_network(prefix)
            except ValueError:
                continue
