"""What the stand-in AWS holds, as plain values, and which stand-in is what of it (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from skyspan.rehearsal.cloud.vpn import Vpn
from skyspan.rehearsal.spec import Rehearsal, uses_tags


@dataclass(frozen=True, slots=True)
class Permit:
    """One ingress rule of a security group. `protocol` is tcp, udp, icmp or -1 (all); ports are inclusive."""

    protocol: str
    first: int
    last: int
    source: IPv4Network


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance that is running."""

    id: str
    tags: Mapping[str, str]
    subnet: str
    private: IPv4Address
    elastic: IPv4Address | None = None
    forwards: bool = False
    permits: tuple[Permit, ...] = ()


@dataclass(frozen=True, slots=True)
class CloudRoute:
    """A route of a route table to an instance's interface, or to a VPN gateway; both by id."""

    to: IPv4Network
    target: str


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet of a VPC, with the routes of its route table; `follows` are the VPN gateways whose routes it takes."""

    id: str
    prefix: IPv4Network
    vpc: IPv4Network
    routes: tuple[CloudRoute, ...] = ()
    follows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CloudState:
    """What matters of an account: running instances, VPN connections, and the subnets of VPCs that have any."""

    instances: tuple[Instance, ...] = ()
    subnets: Mapping[str, Subnet] = field(default_factory=dict)
    vpns: tuple[Vpn, ...] = ()


def standing_in(state: CloudState, rehearsal: Rehearsal) -> Mapping[str, Instance]:
    """Which instance each stand-in stands for now; of several that fit, the first by id."""
    found: dict[str, Instance] = {}
    for name, host in rehearsal.hosts.items():
        wanted = None if host.stands_for is None else host.stands_for.aws_instance
        if wanted is None:
            continue
        fits = sorted((one for one in state.instances if uses_tags(one.tags, wanted)), key=lambda one: one.id)
        if fits:
            found[name] = fits[0]
    return found


def ends_of(state: CloudState, rehearsal: Rehearsal) -> Mapping[str, Vpn]:
    """Which VPN connection each stand-in stands for now; of several that fit, the first by id."""
    found: dict[str, Vpn] = {}
    for name, host in rehearsal.hosts.items():
        wanted = host.vpn_tags
        fits = [one for one in state.vpns if wanted is not None and uses_tags(one.tags, wanted)]
        if fits:
            found[name] = min(fits, key=lambda one: one.id)
    return found


def moves(before: CloudState, after: CloudState, rehearsal: Rehearsal) -> Iterator[str]:
    """Who stands for what now and did not before, in words."""
    old, new = (_all(state, rehearsal) for state in (before, after))
    for name in rehearsal.hosts:
        was, now = old.get(name), new.get(name)
        if now is None and was is not None:
            yield f"{name} no longer stands for {was.id}"
        elif now is not None and (was is None or (was.id, _known(was)) != (now.id, _known(now))):
            yield f"{name} stands for {now.id} with {_known(now)}"


def _all(state: CloudState, rehearsal: Rehearsal) -> Mapping[str, Instance | Vpn]:
    return {**standing_in(state, rehearsal), **ends_of(state, rehearsal)}


def _known(one: Instance | Vpn) -> str:
    addresses = one.outside if isinstance(one, Vpn) else (one.elastic, one.private)
    return ", ".join(str(address) for address in addresses if address)
