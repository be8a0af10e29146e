"""The settings of an ssh-tunnel stage, and what can be said against them without looking anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import combinations
from typing import Annotated, TypeAlias

from pydantic import Field, model_validator

from skyspan.contracts.forwarding import Forward, Forwarding, ForwardKind, Place
from skyspan.contracts.provider import Spec
from skyspan.model.address import NAME_PATTERN
from skyspan.model.composition import Seconds
from skyspan.networks.endpoints import parse_endpoint
from skyspan.networks.written import checked

MOST_FORWARDS = 200
"""More than that belong into several tunnels, or into a link that joins networks."""

_NUMBERS = re.compile(r"[0-9.]+")


def parse_place(text: str) -> Place:
    """Address or name, and port; raises ValueError in words."""
    if text.count(":") > 1 and not text.startswith("["):
        msg = f"{text!r}: write an IPv6 address in brackets, as in [2001:db8::1]:22"
        raise ValueError(msg)
    address, port = parse_endpoint(text)
    if port is None:
        msg = f"{text!r} has no port: write address:port, as in 127.0.0.1:8080"
        raise ValueError(msg)
    if _NUMBERS.fullmatch(address) and not _is_address(address):
        msg = f"{text!r}: {address} is no IPv4 address"
        raise ValueError(msg)
    return address, port


def parse_listen(text: str) -> Place:
    """IP address and port; raises ValueError in words."""
    address, port = parse_place(text)
    if not _is_address(address):
        msg = f"{text!r}: listen on an IP address: 127.0.0.1 for that machine alone, 0.0.0.0 for everybody"
        raise ValueError(msg)
    return address, port


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


Listen: TypeAlias = Annotated[str, checked(parse_listen)]
Target: TypeAlias = Annotated[str, checked(parse_place)]
Name: TypeAlias = Annotated[str, Field(pattern=NAME_PATTERN)]


class Local(Spec):
    """Connections to this machine go on from the host (`ssh -L`)."""

    listen: Listen
    """Address and port on this machine, `127.0.0.1:5432`; `0.0.0.0:5432` lets other machines in."""
    to: Target
    """Where the host leads them: an address or a name as the host knows it, and a port."""
    probe: bool = True
    """Whether it is proven by a connection through it that `to` answers: for the stage to be ready, and each second by
    `skyspan watch`. False for a service that is not there yet, or that takes such visits amiss."""


class Remote(Spec):
    """Connections to the host go on from this machine (`ssh -R`)."""

    listen: Listen
    """Address and port on the host. Beyond 127.0.0.1 its sshd needs `GatewayPorts clientspecified`."""
    to: Target
    """Where this machine leads them: an address or a name, and a port."""
    probe: bool = True
    """Whether it is proven by a connection from the host that `to` answers; see a local forward."""


class Dynamic(Spec):
    """A SOCKS5 proxy on this machine, whose connections go on from the host (`ssh -D`)."""

    listen: Listen
    """Address and port on this machine."""
    probe: Target | None = None
    """Where a connection through the proxy must succeed, as proof; without it only the proxy itself is looked at."""


class Entry(Spec):
    """One forward: `local`, `remote` or `dynamic`."""

    local: Local | None = None
    """From this machine to what the host can reach."""
    remote: Remote | None = None
    """From the host to what this machine can reach."""
    dynamic: Dynamic | None = None
    """From this machine, as a proxy, to whatever the host can reach."""

    @property
    def form(self) -> Local | Remote | Dynamic:
        """The one that is given."""
        found = self.local or self.remote or self.dynamic
        assert found is not None, "the validator demands one"
        return found

    @property
    def kind(self) -> ForwardKind:
        """Which one is given."""
        named = {ForwardKind.LOCAL: self.local, ForwardKind.REMOTE: self.remote, ForwardKind.DYNAMIC: self.dynamic}
        return next(kind for kind, form in named.items() if form is not None)

    @model_validator(mode="after")
    def _one(self) -> Entry:
        if len([form for form in (self.local, self.remote, self.dynamic) if form is not None]) != 1:
            msg = "give one of `local`, `remote` and `dynamic`"
            raise ValueError(msg)
        return self


class Keepalive(Spec):
    """When a silent connection is given up."""

    interval: Seconds = Field(default=5.0, ge=0.2, le=3600)
    """The host is asked for a sign of life after so much silence."""
    count: int = Field(default=3, ge=1, le=100)
    """After so many questions without an answer the connection is made anew. Fewer than the default drop connections
    that only stall."""


class SshTunnelSpec(Spec):
    """TCP forwards through a host, kept up by a process on this machine."""

    through: str
    """The host that they lead through; its key, address and jump hosts are those of the composition."""
    forwards: dict[Name, Entry] = Field(min_length=1, max_length=MOST_FORWARDS)
    """The forwards, by names of your own."""
    keepalive: Keepalive = Keepalive()
    """How a broken connection is noticed."""
    ready_within: Seconds = 30.0
    """How long the tunnel may take to carry traffic."""

    @property
    def forwarding(self) -> Forwarding:
        """What the forwarder is to do."""
        return Forwarding(self.through, tuple(self._forwards()), float(self.keepalive.interval), self.keepalive.count)

    def _forwards(self) -> Iterator[Forward]:
        for name, entry in self.forwards.items():
            form = entry.form
            to = None if isinstance(form, Dynamic) else parse_place(form.to)
            yield Forward(name, entry.kind, parse_listen(form.listen), to)

    @model_validator(mode="after")
    def _ports_differ(self) -> SshTunnelSpec:
        problems = [
            f"{one.name} and {other.name} both listen on port {one.listen[1]}"
            for one, other in combinations(self._forwards(), 2)
            if (one.kind is ForwardKind.REMOTE) == (other.kind is ForwardKind.REMOTE) and _clash(one, other)
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _clash(one: Forward, other: Forward) -> bool:
    (here, port), (there, its) = one.listen, other.listen
    both = ip_address(here), ip_address(there)
    everywhere = any(address.is_unspecified for address in both) and both[0].version == both[1].version
    return port == its and (both[0] == both[1] or everywhere)
