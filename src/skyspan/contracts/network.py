"""Private networks that hosts join as members: what such a network offers, and the names its members have in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from skyspan.contracts.context import StageContext
from skyspan.contracts.provider import Spec


@dataclass(frozen=True, slots=True)
class Installation:
    """The network's software on a host, and whether it was just put there."""

    version: str
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Membership:
    """A host as the network knows it, and whether anything was changed to make it so."""

    fqdn: str
    addresses: tuple[str, ...]
    tags: tuple[str, ...]
    changed: bool = False


class NetworkProvider(Protocol):
    """A private network with its settings, reached over SSH on logical hosts, before the network itself is there.

    Both `ensure_…` are idempotent and raise StageError; the name is a function of the settings alone.
    """

    async def ensure_installed(self, host: str) -> Installation:
        """Have the network's software on `host`, new enough and running; nothing is done where it is."""
        ...

    async def ensure_joined(self, host: str) -> Membership:
        """Have `host` in the right network with the right tags; nothing is done, and no key sent, where it is."""
        ...

    def node_fqdn(self, host: str) -> str:
        """`{host}.{domain}` (pure)."""
        ...


@runtime_checkable
class SupportsNetwork(Protocol):
    """Its stages join hosts to a private network."""

    def network(self, spec: Any, ctx: StageContext) -> NetworkProvider:
        """The network with these settings."""
        ...


class NetworkSpec(Spec):
    """Base of the settings of stages that give each of their `hosts` a name in a private network.

    A composition reads that name as `hosts.H.fqdn`.
    """

    domain_setting: ClassVar[str] = "domain"
    """Name of the setting that holds the network's domain."""


def node_name(host: str, domain: str) -> str:
    """The name of a member (pure)."""
    return f"{host}.{domain}"
