"""TCP forwards over an SSH connection that outlives whoever asked for it: what is wanted, what there is, who keeps it.

A *forwarder* is a process of its own on this machine. It holds one SSH connection, makes it anew when it breaks, and
carries the forwards of one stage over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol, TypeAlias

from skyspan.model.error import NotReadyError

Place: TypeAlias = tuple[str, int]
"""Address or name, and TCP port."""


class ForwardKind(StrEnum):
    """Who listens: this machine, the host, or this machine as a SOCKS5 proxy."""

    LOCAL = "local"
    REMOTE = "remote"
    DYNAMIC = "dynamic"


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward. `to` is where its connections go, None for a proxy, whose clients say that themselves."""

    name: str
    kind: ForwardKind
    listen: Place
    to: Place | None = None


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What a forwarder is to do. `through` is the name of the host whose sshd is at the other end.

    A connection that is silent for `keepalive_s * (keepalive_count + 1)` is given up and made anew.
    """

    through: str
    forwards: tuple[Forward, ...]
    keepalive_s: float = 5.0
    keepalive_count: int = 3


class TroubleKind(StrEnum):
    """What is in the way of a connection or a forward."""

    PORT_TAKEN = "port-taken"
    PORT_FORBIDDEN = "port-forbidden"
    NO_SUCH_ADDRESS = "no-such-address"
    BIND_REFUSED = "bind-refused"
    PORT_TAKEN_THERE = "port-taken-there"
    GATEWAY_PORTS = "gateway-ports"
    TARGET_REFUSED = "target-refused"
    FORWARDING_FORBIDDEN = "forwarding-forbidden"
    HOST_KEY = "host-key"
    CREDENTIALS = "credentials"
    UNKNOWN_HOST = "unknown-host"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What failed, the evidence, and what to do next."""

    kind: TroubleKind
    summary: str
    detail: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ForwardState:
    """One forward as it is. `tried` counts the connections that came in, `failed` those that could not be led on."""

    listening: bool
    trouble: Trouble | None = None
    tried: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class ForwarderState:
    """A forwarder that runs.

    `current` is false when it connects to other hosts, or in another way, than this context knows them. `connections`
    counts the SSH connections that it has made so far; `trouble` says why there is none now.
    """

    forwarding: Forwarding
    current: bool
    connected: bool
    connections: int
    trouble: Trouble | None = None
    forwards: Mapping[str, ForwardState] = field(default_factory=lambda: MappingProxyType({}))


class ForwarderView(Protocol):
    """A stage's forwarder, to look at."""

    async def look(self) -> ForwarderState | None:
        """What it does; None when it does not run."""
        ...

    async def heard(self, name: str, after: int, timeout_s: float) -> Trouble | None:
        """How the forward `name` led on the first connection after the `after`-th that came in: None when its far end
        took it. Waits for it; silence is trouble too. Raises nothing."""
        ...


class ForwarderControl(ForwarderView, Protocol):
    """A stage's forwarder, to be changed."""

    async def forward(self, forwarding: Forwarding, *, anew: bool = False) -> None:
        """Have it do this: start it, or tell the one that runs, whose connection and other forwards go on; with `anew`
        that one is ended first. Does not wait for the connection. Raises StageError when it cannot be started."""
        ...

    async def reconnect(self) -> None:
        """Give up its connection and make another at once; sessions through it end. Absent is success."""
        ...

    async def end(self) -> None:
        """End it and remove all that it left on this machine; absent is success. Raises StageError."""
        ...


class NoForwarder:
    """Where nothing is ever forwarded, as in contexts that are made by hand (a `ForwarderControl`)."""

    async def look(self) -> ForwarderState | None:
        """Nothing runs."""
        return None

    async def heard(self, name: str, after: int, timeout_s: float) -> Trouble | None:
        """Nothing is led on."""
        return Trouble(TroubleKind.UNREACHABLE, "nothing is forwarded here")

    async def forward(self, forwarding: Forwarding, *, anew: bool = False) -> None:
        """Refuse: nobody could find it again. Raises NotReadyError."""
        raise NotReadyError("nothing is forwarded here", hint="`skyspan up` of a stage forwards what it declares")

    async def reconnect(self) -> None:
        """Nothing to do."""

    async def end(self) -> None:
        """Nothing to do."""
