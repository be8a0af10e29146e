"""A machine of a `GatewayWorld` that plays the cloud's two ends of a VPN connection, by the rehearsal's own daemons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType
from typing import Any

from skyspan.contracts.transport import Command
from skyspan.rehearsal.cloud import vpn_daemons
from skyspan.rehearsal.cloud.vpn import Tunnel, Vpn
from skyspan.testing.gateway_world import GatewayWorld, Machine, Start

VPN = Vpn(
    id="vpn-0123456789abcdef0",
    tags={},
    gateway="vgw-0123456789abcdef0",
    customer=IPv4Address("198.18.1.2"),
    customer_asn=65000,
    asn=64512,
    tunnels=(
        Tunnel(IPv4Address("198.18.2.2"), IPv4Network("169.254.10.0/30"), "first.key.for_this.test", dpd_s=6),
        Tunnel(IPv4Address("198.18.2.3"), IPv4Network("169.254.20.0/30"), "second.key.for_this.test", dpd_s=6),
    ),
    static=True,
    routes=(IPv4Network("10.1.0.0/24"),),
    vpc=IPv4Network("10.2.0.0/24"),
)
"""The keys are made for tests alone."""

FACTS: Mapping[str, Any] = MappingProxyType(
    {
        "id": VPN.id,
        **{
            f"tunnel{number}_{name}": value
            for number, tunnel in enumerate(VPN.tunnels, 1)
            for name, value in {
                "address": str(tunnel.outside),
                "preshared_key": tunnel.key,
                "cgw_inside_address": str(tunnel.customer),
                "vgw_inside_address": str(tunnel.cloud),
                "bgp_asn": str(VPN.asn),
                "bgp_holdtime": 30,
                "inside_cidr": str(tunnel.inside),
            }.items()
        },
        "vgw_telemetry": [],
        "transit_gateway_id": None,
    }
)
"""The same as an aws_vpn_connection names it, with attributes that are no facts."""

_PLACE = """
ip address add 198.18.2.3/24 dev eth0
echo 1 > /proc/sys/net/ipv4/ip_forward
# libipsec takes no prefix in which its host has no address.
ip address add 10.7.0.1/32 dev lo
ip rule add priority 210 iif lan lookup 210
ip rule add priority 211 iif lan unreachable
"""


async def make_world(here: Start, vpn: Vpn = VPN) -> GatewayWorld:
    """`site-gw` (198.18.1.2, behind it `site` 10.1.0.10) and `cloud-gw` with both tunnel ends of `FACTS` (behind it
    `cloud` 10.2.0.10), which routes no link-local addresses."""
    world = await GatewayWorld.make(here, ("site", "cloud"))
    try:
        cloud = world.machines["cloud-gw"]
        await cloud.sh(_PLACE)
        await _begin(cloud, vpn)
        await world.machines["cloud"].sh("ip route add blackhole 169.254.0.0/16")
    except BaseException:
        await world.close()
        raise
    return world


async def announce(world: GatewayWorld) -> None:
    """The cloud speaks BGP through both tunnels (AS 64512): it announces 10.2.0.0/24, and 10.99.0.0/16 unasked."""
    cloud, speaking = world.machines["cloud-gw"], replace(VPN, static=False)
    await cloud.sh(vpn_daemons.STOP)
    await _begin(cloud, speaking)
    leaking = vpn_daemons.routing(speaking, (IPv4Network("10.99.0.0/16"),))
    done = await cloud.run(Command(("sh", "-euc", vpn_daemons.ROUTES), stdin=leaking.encode()))
    assert done.ok, done.last_words()


async def _begin(cloud: Machine, vpn: Vpn) -> None:
    argv = ("sh", "-euc", vpn_daemons.START, "sh", *vpn_daemons.start_arguments(vpn))
    done = await cloud.run(Command(argv, stdin=vpn_daemons.connections(vpn).encode()))
    assert done.ok, done.last_words()
