"""Links carried by a real kernel: WireGuard's own module, XFRM interfaces and policies, under delay and loss by netem.

Run in the guest that `tools/kernel` boots (`make test-kernel`): this machine's kernel may have none of it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support import ipsec_rig, wireguard_rig
from tests.support.driven import DockerHost, LastWords, until
from tests.support.gateways import stage_on

from skyspan.model.change import Action
from skyspan.model.error import UnreachableError
from skyspan.networks.ipsec import scripts
from skyspan.testing.gateway_world import GatewayWorld, Machine

pytestmark = pytest.mark.integration

# Software emulation is slow: what takes a moment on a machine takes seconds here.
READY_S = 120.0

DELAY_MS = 20.0
LOSS = 0.1


async def stamps(link: wireguard_rig.Link) -> list[str]:
    return [await link.wg(name, "latest-handshakes") for name in link.sites.gateways]


async def measured(machine: Machine, address: str, count: int) -> tuple[float, float]:
    """The share of pings that are lost, and the shortest round trip in milliseconds."""
    said = await machine.sh('ping -n -q -i 0.05 -W 2 -c "$1" "$2" || :', str(count), address)
    lost = re.search(r"([\d.]+)% packet loss", said)
    shortest = re.search(r"min/avg/max/mdev = ([\d.]+)/", said)
    assert lost is not None, said
    assert shortest is not None, said
    return float(lost[1]) / 100, float(shortest[1])


async def test_the_kernels_wireguard_carries_a_link_through_delay_and_loss(sites: GatewayWorld, tmp_path: Path) -> None:
    link = wireguard_rig.Link(sites, stage_on(sites, tmp_path))
    spec = wireguard_rig.spec
    before = await sites.state()
    for port in (8080, 9090):
        await sites.listen("west", port)
    seen = await link.up(spec(plane="kernel", expect=["10.2.0.10:8080"], ready_within=READY_S))
    assert seen.healthy
    assert seen.outputs["planes"].value == {"east-gw": "kernel", "west-gw": "kernel"}
    assert "wireguard-go" not in "".join((await sites.state()).values())
    east, router = sites.machines["east"], sites.machines["router"]
    assert await east.pings("10.2.0.10")
    await east.dial("10.2.0.10", 8080, 10)
    with pytest.raises(UnreachableError, match="refused"):
        await east.dial("10.2.0.10", 9090, 10)

    first = await stamps(link)
    changed = spec(west={"prefixes": ["10.2.0.0/24", "10.7.0.0/16"]}, plane="kernel", keepalive=7, ready_within=READY_S)
    assert (await link.up(changed)).healthy
    assert await stamps(link) == first, "a change keeps the sessions"
    assert (await link.look(changed))[1].action is Action.NONE

    await router.sh('tc qdisc add dev east root netem delay "$1" loss "$2"', f"{DELAY_MS:.0f}ms", f"{LOSS:.0%}")
    lost, shortest = await measured(east, "10.2.0.10", 200)
    print(f"{DELAY_MS:.0f} ms and {LOSS:.0%} asked of netem: {shortest:.1f} ms at least, {lost:.1%} lost")
    assert shortest >= DELAY_MS
    assert 0.02 < lost < 0.25
    await router.sh("tc qdisc delete dev east root")
    assert await east.pings("10.2.0.10")
    await link.down(changed)
    assert await sites.state() == before


async def alike(machine: Machine, ruleset: str) -> bool:
    """Whether the host's filters are these, and no timer would change them."""
    there = await machine.sh("nft -s list ruleset; ls /run/skyspan | sed -n 's/.*guard.*/&/p'")
    return there == ruleset


@pytest.mark.parametrize("plane", ["route", "policy"])
async def test_the_kernels_own_ipsec_carries_a_link(sites: GatewayWorld, tmp_path: Path, plane: str) -> None:
    link = ipsec_rig.Link(sites, stage_on(sites, tmp_path))
    settings = ipsec_rig.spec(mode=plane, ready_within=READY_S)
    # Docker drops what its chain does not let through: in policy mode there is no interface to name there.
    docker = DockerHost(sites.machines["west-gw"], "nft")
    await docker.begin()
    before, bare = await sites.state(), await docker.rules()
    for port in (8080, 9090):
        await sites.listen("west", port)
    router, east, west = (sites.machines[name] for name in ("router", "east", "west"))
    # What is seen of the link between the sites: ESP and nothing else but the keys' exchange.
    await router.sh(
        "nft add table ip seen; nft add chain ip seen way '{ type filter hook forward priority 0; }'; "
        "nft add rule ip seen way ip protocol esp counter; nft add rule ip seen way udp dport '{ 500, 4500 }' accept; "
        "nft add rule ip seen way ip protocol != esp counter drop"
    )
    seen = await link.up(settings)
    assert seen.healthy
    assert seen.outputs["planes"].value == {"east-gw": plane, "west-gw": plane}
    assert await east.pings("10.2.0.10")
    assert await west.pings("10.1.0.10")
    await east.dial("10.2.0.10", 8080, 10)
    with pytest.raises(UnreachableError, match="refused"):
        await east.dial("10.2.0.10", 9090, 10)
    counted = [int(number) for number in re.findall(r"packets (\d+)", await router.sh("nft list table ip seen"))]
    assert counted[0] >= 10, "the packets are the kernel's ESP"
    assert counted[1] == 0, "nothing passes in the clear"
    opened = await docker.opened()
    assert len(opened) == 4
    assert all(("--pol ipsec" in rule) is (plane == "policy") for rule in opened), opened
    await docker.flush()
    assert not await east.pings("10.2.0.10"), "without the link's rules Docker drops it"
    assert (await link.up(settings)).healthy
    assert await east.pings("10.2.0.10")

    # What is not confirmed is taken back: neither policies nor anything else is left in the way.
    wider = settings.model_copy(update={"allow": ("any",), "confirm_within": 20.0})
    deaf = LastWords(sites.machines["west-gw"], scripts.CONFIRMED)
    table = await deaf.machine.sh("nft -s list ruleset")
    with link.by(deaf), pytest.raises(UnreachableError, match="west-gw cannot be reached any more"):
        await link.up(wider)
    await until(lambda: alike(deaf.machine, table), READY_S)
    assert await east.pings("10.2.0.10"), "the link as it was goes on"
    assert (await link.up(settings)).healthy

    gateway = sites.machines["east-gw"]
    assert "proto esp" in await gateway.sh("ip xfrm state")
    assert ("xfrm" in await gateway.sh("ip -d link show type xfrm")) is (plane == "route")
    assert (await link.look(settings))[1].action is Action.NONE
    await link.down(settings)
    assert "proto esp" not in await gateway.sh("ip xfrm state")
    assert await docker.rules() == bare
    assert await sites.state() == before
