"""What each host is to say to whom, worked out from settings and hosts: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_interface
from typing import TypeAlias

from skyspan.contracts.host import Host
from skyspan.model.address import StageAddress
from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.model.value import digest
from skyspan.networks.addressing import Network, interface_name, stable_number
from skyspan.networks.bgp.spec import Bfd, BgpSpec, Over, Session, Speaker

Inside: TypeAlias = IPv4Interface | IPv6Interface

_SPARE_PREFIXES = 100
"""What a neighbour may send beyond what it is to announce, by default."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One side of one session. `local` and `peer` are addresses in their shortest form, `multihop` 0 on a link.

    `onlink` when the peer lies in the network of the local address; `device` is empty when nobody named it.
    """

    peer_host: str
    peer_asn: int
    local: str
    peer: str
    device: str
    onlink: bool
    multihop: int
    receive: tuple[Network, ...]
    send: tuple[Network, ...]
    limit: int
    password: Secret | None

    @property
    def version(self) -> int:
        """Its IP version: a session carries the prefixes of its own version only, so their next hop is its peer."""
        return 6 if ":" in self.peer else 4

    @property
    def name(self) -> str:
        """Its name in the daemons: it stays when other sessions come and go."""
        return "peer_" + self.peer.replace(".", "_").replace(":", "_")

    @property
    def peering(self) -> str:
        """The network of the peer's address alone, when the local address must name it; else empty."""
        if self.onlink or self.multihop:
            return ""
        return str(ip_interface(self.peer).network)


@dataclass(frozen=True, slots=True)
class Instance:
    """The daemon of one host as it is to be. `identity` names it on the host; `wanted` is a daemon or `auto`."""

    host: str
    owner: str
    identity: str
    wanted: str
    asn: int
    router_id: str
    announce: tuple[Network, ...]
    conversations: tuple[Conversation, ...]
    bfd: Bfd | None
    hold: int
    port: int
    sudo: bool

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions that it routes."""
        return tuple(sorted({conversation.version for conversation in self.conversations}))

    @property
    def keepalive(self) -> int:
        """Seconds between keepalives: a third of the hold time (RFC 4271 section 4.4)."""
        return max(self.hold // 3, 1)

    @property
    def imports(self) -> tuple[Network, ...]:
        """Everything that it may put into the kernel's table."""
        return tuple(dict.fromkeys(net for conversation in self.conversations for net in conversation.receive))


def identity_of(address: StageAddress) -> str:
    """The name of a stage's instances on their hosts."""
    return interface_name(str(address))


def settings_digest(spec: BgpSpec) -> str:
    """A digest of all settings; kept sealed only, as they may hold a password."""
    return digest(spec.model_dump())


def plan_instances(spec: BgpSpec, address: StageAddress, hosts: Mapping[str, Host]) -> tuple[Instance, ...]:
    """Every managed speaker as it is to be. Raises SpecError for what cannot work, before any host is touched."""
    managed = [speaker for speaker in spec.speakers if speaker.managed]
    for speaker in managed:
        if speaker.host not in hosts:
            known = ", ".join(sorted(hosts)) or "none"
            raise SpecError(
                f"the composition has no host {speaker.host!r}",
                hint=f"hosts: {known}; a router that somebody else configures has `managed: false`",
            )
    return tuple(_instance(spec, speaker, address, hosts[speaker.host]) for speaker in managed)


def _instance(spec: BgpSpec, speaker: Speaker, address: StageAddress, host: Host) -> Instance:
    sessions = [session for session in spec.pairs if speaker.host in session.between]
    found = tuple(item for session in sessions for item in _conversations(spec, speaker, session))
    spoken = {item.version for item in found}
    silent = [net for net in speaker.networks if net.version not in spoken]
    if silent:
        raise SpecError(
            f"{speaker.host} announces {silent[0]}, but has no IPv{silent[0].version} address inside the link",
            hint="a session carries the prefixes of its own IP version: give both ends an address of it",
        )
    first = next((item.local for item in found if item.version == 4), "")
    return Instance(
        host=speaker.host,
        owner=str(address),
        identity=identity_of(address),
        wanted=speaker.daemon,
        asn=speaker.asn,
        router_id=speaker.router_id or first or _made_up(f"{address} {speaker.host}"),
        announce=speaker.networks,
        conversations=found,
        bfd=spec.detection,
        hold=spec.hold,
        port=spec.port,
        sudo=host.user != "root",
    )


def _made_up(seed: str) -> str:
    """A router id for a host without an IPv4 address in the link: any number but zero that differs from others'."""
    return str(IPv4Address(stable_number(seed) % (2**32 - 1) + 1))


def _conversations(spec: BgpSpec, speaker: Speaker, session: Session) -> Iterator[Conversation]:
    """This speaker's side of a session, once per IP version that both ends have."""
    other = spec.speaker(next(host for host in session.between if host != speaker.host))
    over = session.over or spec.over or Over()
    pairs = list(_address_pairs(_inside(speaker, over), _inside(other, over)))
    if not pairs:
        raise SpecError(
            f"{speaker.host} and {other.host} have no addresses inside their link that fit together",
            hint="give `over` the link's `addresses`, or each speaker an `address`",
        )
    hops = session.multihop or spec.multihop or 0
    heard, said = partial(_exports, spec, other.host, speaker.host), partial(_exports, spec, speaker.host, other.host)
    for mine, theirs in pairs:
        receive = tuple(net for net in heard() if net.version == mine.version)
        yield Conversation(
            peer_host=other.host,
            peer_asn=other.asn,
            local=str(mine.ip),
            peer=str(theirs.ip),
            device=over.device(speaker.host),
            onlink=theirs.ip in mine.network,
            multihop=hops,
            receive=receive,
            send=tuple(net for net in said() if net.version == mine.version),
            limit=spec.max_prefixes or len(receive) + _SPARE_PREFIXES,
            password=session.password or spec.password,
        )


def _inside(speaker: Speaker, over: Over) -> list[Inside]:
    given = (speaker.address,) if isinstance(speaker.address, str) else speaker.address
    return [ip_interface(text) for text in (given or over.addresses.get(speaker.host, ()))]


def _address_pairs(mine: list[Inside], theirs: list[Inside]) -> Iterator[tuple[Inside, Inside]]:
    """One pair per IP version: two of the same network where there are such."""
    for version in (4, 6):
        both = [(one, other) for one in mine for other in theirs if one.version == other.version == version]
        both.sort(key=lambda pair: pair[1].ip not in pair[0].network)
        yield from both[:1]


def _exports(spec: BgpSpec, sender: str, receiver: str) -> tuple[Network, ...]:
    """What `sender` tells `receiver`: its own prefixes and, if it passes on, what its other neighbours tell it."""
    speaker = spec.speaker(sender)
    passed = [
        net
        for session in spec.pairs
        if speaker.transit and sender in session.between
        for host in session.between
        if host not in (sender, receiver)
        for net in _exports(spec, host, sender)
    ]
    return tuple(dict.fromkeys((*speaker.networks, *passed)))
