"""What the survey of an end says, read into values: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skyspan.networks.docker import NO_FILTERS, Filters, parse_filters
from skyspan.networks.ipsec.link import USERSPACE_INTERFACE, interface_for
from skyspan.networks.ipsec.message import Section, list_of, parse_message, sections_of, text_of
from skyspan.networks.looking import addresses, objects, pairs, routes, sections
from skyspan.networks.peers import OwnRoute, Route, own_routes
from skyspan.networks.proving import Probe, parse_probes

ESTABLISHED = "ESTABLISHED"
INSTALLED = "INSTALLED"
"""The states of an IKE_SA and of a CHILD_SA that carry traffic (vici(8), list-sa)."""


@dataclass(frozen=True, slots=True)
class Child:
    """A CHILD_SA: what it may carry and how much came in (bytes)."""

    state: str
    local: tuple[str, ...]
    remote: tuple[str, ...]
    bytes_in: int
    rekeys_in: int


@dataclass(frozen=True, slots=True)
class Session:
    """An IKE_SA with its CHILD_SAs. `remote_host` is where the other side really is, `rekeys_in` in seconds."""

    number: int
    state: str
    initiator: bool
    remote_host: str
    rekeys_in: int
    children: tuple[Child, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """One host as seen.

    `tools` says what the host has: programs, and `charon`, `libipsec`, `esp`, `xfrm-interface` for what could carry
    packets, `answers` for a daemon that runs. `interfaces` are by name
    their MTU and whether they are up. `before` are the bytes that had come in before the pings. `digests` are of what
    is on the host: the files, `session` what the files of both ends were when they were written, `synced` when the
    session was made, `table` the live nftables table, `loaded` the same just after it was loaded. `way` is how the host
    would send to the other side, `log` what the daemon said last.
    """

    tools: Mapping[str, bool]
    now: int
    owner: str
    plugins: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()
    before: int = 0
    sessions: tuple[Session, ...] = ()
    interfaces: Mapping[str, tuple[int, bool, str]] = field(default_factory=dict)
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    own_routes: tuple[OwnRoute, ...] = ()
    routes: tuple[Route, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    forwarding: Mapping[int, bool] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()
    way: tuple[str, ...] = ()
    filters: Filters = NO_FILTERS
    log: str = ""

    @property
    def established(self) -> tuple[Session, ...]:
        """The IKE_SAs that stand."""
        return tuple(session for session in self.sessions if session.state == ESTABLISHED)

    @property
    def installed(self) -> tuple[Child, ...]:
        """The CHILD_SAs that carry traffic."""
        return tuple(child for session in self.sessions for child in session.children if child.state == INSTALLED)

    @property
    def bytes_in(self) -> int:
        """What came in over all of them."""
        return sum(child.bytes_in for session in self.sessions for child in session.children)

    @property
    def answers(self) -> bool:
        """Whether the daemon runs."""
        return self.tools.get("answers", False)

    def held(self, families: Iterable[int]) -> tuple[int, ...]:
        """Which of these IP versions the host does not forward."""
        return tuple(family for family in families if not self.forwarding.get(family, False))


@dataclass(frozen=True, slots=True)
class Probed:
    """What a quick look while the link is up found at an end: whether the other one `answered`, and which IP versions
    the gateway does not forward, so that nothing but itself is reached."""

    answered: bool
    held: tuple[int, ...] = ()

    def trouble(self, silence: str) -> str:
        """In words, why the direction is not open, `silence` when nothing answers; empty when it is."""
        if not self.answered:
            return silence
        return f"forwarding of IPv{self.held[0]} is off" if self.held else ""


def parse_held(text: str) -> tuple[int, ...]:
    """The IP versions that are not forwarded, of what a probe prints."""
    return tuple(int(family) for word, family in pairs(text) if word == "held")


def parse_survey(text: str, name: str) -> Survey:
    """The survey of the link `name` on a host; raises ValueError or KeyError for what the
    script cannot have printed."""
    # The log comes last, and may hold anything.
    seen, _, log = text.partition("\n@log\n")
    parts = sections(seen)
    there = routes(parts["route4"], parts["route6"])
    return Survey(
        tools={tool: found == "yes" for tool, found in pairs(parts["tools"])},
        now=int(parts["time"].strip()),
        owner=parts["owner"].strip(),
        plugins=tuple(parts["plugins"].split()),
        connections=tuple(parts["conns"].split()),
        before=sum(child.bytes_in for session in _sas(parts["before"], name) for child in session.children),
        sessions=tuple(_sas(parts["sas"], name)),
        interfaces={item["ifname"]: _interface(item) for item in objects(parts["link"])},
        addresses=addresses(objects(parts["addr"])),
        own_routes=own_routes(there, name),
        routes=there,
        digests=dict(pairs(parts["digests"])),
        forwarding={int(family): value == "1" for family, value in pairs(parts["forward"])},
        probes=parse_probes(parts["probes"]),
        way=tuple(parts["way"].splitlines()),
        filters=parse_filters(parts["docker"], parts["drops"]),
        log=log.removesuffix("\n"),
    )


def _sas(text: str, name: str) -> Iterator[Session]:
    for line in text.splitlines():
        if line.strip():
            found = sections_of(parse_message(line)).get(name)
            if found is not None:
                yield _session(found)


def _session(section: Section) -> Session:
    children = section.get("child-sas")
    return Session(
        number=_number(section, "uniqueid"),
        state=text_of(section, "state"),
        initiator=text_of(section, "initiator") == "yes",
        remote_host=text_of(section, "remote-host"),
        rekeys_in=_number(section, "rekey-time"),
        children=tuple(_child(child) for child in sections_of(children).values())
        if isinstance(children, Mapping)
        else (),
    )


def _child(section: Section) -> Child:
    return Child(
        state=text_of(section, "state"),
        local=list_of(section, "local-ts"),
        remote=list_of(section, "remote-ts"),
        bytes_in=_number(section, "bytes-in"),
        rekeys_in=_number(section, "rekey-time"),
    )


def _number(section: Section, name: str) -> int:
    return int(text_of(section, name) or 0)


def _interface(item: Mapping[str, Any]) -> tuple[int, bool, str]:
    kind = item.get("linkinfo", {}).get("info_kind", "")
    return int(item.get("mtu", 0)), "UP" in item.get("flags", ()), kind


def agrees(local: Sequence[str], remote: Sequence[str], seen: Survey) -> bool:
    """Whether there are keys for packets between these selectors."""
    wanted = (set(local), set(remote))
    return any((set(child.local), set(child.remote)) == wanted for child in seen.installed)


def carrier(plane: str, name: str, seen: Survey) -> bool:
    """Whether what carries the link's packets is there and up."""
    interface = interface_for(name, plane)
    if not interface:
        return True
    return seen.interfaces.get(interface, (0, False, ""))[1]


def userspace_runs(seen: Survey) -> bool:
    """Whether the daemon that runs carries packets itself."""
    return "kernel-libipsec" in seen.plugins or (not seen.plugins and USERSPACE_INTERFACE in seen.interfaces)
