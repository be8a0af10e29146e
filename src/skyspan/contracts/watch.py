"""What a link offers to whoever watches over it: probes through it, its trouble in words, and steps of repair."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from skyspan.contracts.context import ReadContext, StageContext


@dataclass(frozen=True, slots=True)
class Passage:
    """One direction of a link, as a probe found it. `source` and `target` name its ends.

    `passed` is None where nothing is known of the link because the end that was to probe could not be reached by
    Skyspan itself: that is no fault of the link, and no reason to repair it.
    """

    source: str
    target: str
    passed: bool | None
    reason: str = ""


class Cause(StrEnum):
    """Why a link carries no traffic, for programs; `Finding.words` says it for people."""

    INTERFACE_MISSING = "interface-missing"
    DAEMON_DOWN = "daemon-down"
    HANDSHAKE_MISSING = "handshake-missing"
    AUTHENTICATION = "authentication"
    STALE_ENDPOINT = "stale-endpoint"
    CLOCK_BEHIND = "clock-behind"
    MTU_HOLE = "mtu-hole"
    RETURN_ROUTE_MISSING = "return-route-missing"
    ROUTE_MISSING = "route-missing"
    FORWARD_DROPPED = "forward-dropped"
    ALLOWED_IPS = "allowed-ips"
    EXPIRED = "expired"
    WRONG_TAGS = "wrong-tags"
    DUPLICATE_SAS = "duplicate-sas"
    PREFIX_MISSING = "prefix-missing"
    PREFIX_LEAKED = "prefix-leaked"
    SERVICE_DOWN = "service-down"
    PORT_TAKEN = "port-taken"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause, where it is (a host), what was seen in words, and what to do about it."""

    cause: Cause
    where: str
    words: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Repair:
    """One step of repair on one end only, so that never both are changed at once. `name` is what it does
    (`re-resolve`, `re-initiate`, `reapply`, `reload`, `restart`); a link's steps are in order, the gentlest first.
    `shows_in_s` is how many seconds it takes to show in the probes that it helped."""

    name: str
    host: str
    shows_in_s: float = 2.0


@runtime_checkable
class SupportsWatch(Protocol):
    """Its stages are links that can be probed every second, diagnosed and repaired while they are up."""

    async def probe(self, spec: Any, ctx: ReadContext) -> tuple[Passage, ...]:
        """One small packet in each direction, within a second; raises nothing for a link that is down."""
        ...

    async def diagnose(self, spec: Any, ctx: ReadContext) -> tuple[Finding, ...]:
        """Why it does not carry traffic as it should; empty when nothing is wrong. May take some seconds."""
        ...

    def repairs(self, spec: Any, ctx: ReadContext) -> tuple[Repair, ...]:
        """The steps there are for this link, gentlest first (pure)."""
        ...

    async def repair(self, spec: Any, step: Repair, ctx: StageContext) -> None:
        """Take one of them. Safe at any time, also on a link that is well. Raises StageError."""
        ...
