"""Which stage gives a host its name in a private network."""

from __future__ import annotations

from dataclasses import dataclass

from skyspan.model.value import Value

FQDN = "fqdn"
"""The field of a host that is its name in a private network: `hosts.H.fqdn`."""


@dataclass(frozen=True, slots=True)
class HostName:
    """The stage that joins a host to a private network, and that network's domain as written."""

    stage: str
    domain: Value
