"""A hub with spokes and a mesh in network namespaces, with real daemons, and links that are watched and repaired."""

from __future__ import annotations

import asyncio
import timeit
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import pytest
from tests.support.gateways import gateways, stage_on
from tests.support.wireguard_rig import Link

from skyspan.contracts.host import Host
from skyspan.contracts.watch import Cause
from skyspan.model.address import DeploymentAddress
from skyspan.networks.wireguard import hosts
from skyspan.networks.wireguard.config import QUICK_ONLY, config_text
from skyspan.networks.wireguard.keys import Keys, Memory, Place, keys_of, with_keys
from skyspan.networks.wireguard.link import EndState, plan_ends
from skyspan.networks.wireguard.numbering import numbered
from skyspan.networks.wireguard.observation import Look
from skyspan.networks.wireguard.spec import WireguardSpec
from skyspan.testing.gateway_world import GatewayWorld

pytestmark = pytest.mark.integration

SIDES = ("east", "west", "north", "south")


def spec(*sides: str, **settings: Any) -> WireguardSpec:
    ends = [{"host": f"{side}-gw", "prefixes": [f"10.{SIDES.index(side) + 1}.0.0/24"]} for side in sides]
    return WireguardSpec.model_validate({"between": ends, "allow": ["icmp"], **settings})


def star(*sides: str, **settings: Any) -> WireguardSpec:
    return spec(*sides, hub="east-gw", **settings)


@dataclass
class Hub(Link):
    async def stamps(self, gateway: str) -> dict[str, str]:
        """When the gateway shook hands with each peer, by its key."""
        said = await self.sites.machines[gateway].sh("wg show all latest-handshakes | cut -f2-")
        return dict(line.split() for line in said.splitlines())

    async def causes(self, settings: WireguardSpec) -> list[tuple[Cause, str]]:
        return [(item.cause, item.where) for item in await self.diagnosed(settings)]

    async def repair(self, settings: WireguardSpec, name: str, host: str) -> float:
        """Take that step; how long it took until traffic passed."""
        began = monotonic()
        (step,) = (
            step
            for step in self.provider.repairs(settings, self.world.reading())
            if (step.name, step.host) == (name, host)
        )
        await self.provider.repair(settings, step, self.world.writing())
        async with asyncio.timeout(20):
            while not await self.passes(settings):
                await asyncio.sleep(0.1)
        return monotonic() - began


@pytest.fixture
async def sites() -> AsyncIterator[GatewayWorld]:
    async with gateways(*SIDES) as made:
        yield made


@pytest.fixture
def link(sites: GatewayWorld, tmp_path: Path) -> Hub:
    return Hub(sites, stage_on(sites, tmp_path))


async def test_spokes_reach_the_hub_and_each_other_only_when_that_is_declared(link: Hub, sites: GatewayWorld) -> None:
    before = await sites.state()
    assert (await link.up(star(*SIDES))).healthy
    west = sites.machines["west"]
    assert await west.pings("10.1.0.10")
    assert await sites.machines["south"].pings("10.1.0.10")
    assert not await west.pings("10.3.0.10"), "spokes do not meet"
    assert (await link.up(star(*SIDES, spokes_meet=True))).healthy
    assert await west.pings("10.3.0.10")
    assert (await link.up(star(*SIDES))).healthy
    assert not await west.pings("10.3.0.10")
    await link.down(star(*SIDES))
    assert await sites.state() == before


async def test_in_a_mesh_everybody_reaches_everybody_directly(link: Hub, sites: GatewayWorld) -> None:
    assert (await link.up(spec(*SIDES))).healthy
    assert await sites.machines["west"].pings("10.3.0.10")
    assert [len(await link.stamps(name)) for name in sites.gateways] == [3, 3, 3, 3]


async def test_a_spoke_comes_and_goes_and_the_others_keep_their_sessions(link: Hub, sites: GatewayWorld) -> None:
    whole, less = star(*SIDES, tunnel="10.9.0.0/24"), star("east", "west", tunnel="10.9.0.0/24")
    await link.up(less)
    before = await link.stamps("west-gw")
    await link.up(whole)
    assert await sites.machines["north"].pings("10.1.0.10")
    assert await link.stamps("west-gw") == before, "a new spoke disturbs nobody"
    hub = await link.stamps("east-gw")
    await link.up(less)
    assert await link.stamps("west-gw") == before, "nor does one that leaves"
    assert (await link.stamps("east-gw")).items() <= hub.items()
    assert "sky-" not in await sites.machines["north-gw"].sh("ip -o link")


async def test_what_breaks_a_star_is_named_and_repaired_within_seconds(link: Hub, sites: GatewayWorld) -> None:
    settings = star(*SIDES)
    await link.up(settings)
    assert await link.passes(settings)
    assert await link.causes(settings) == []
    await sites.machines["west-gw"].sh("kill -9 $(cat /run/skyspan/*.pid)")
    assert not await link.passes(settings)
    assert (await link.causes(settings))[0] == (Cause.INTERFACE_MISSING, "west-gw")
    assert await link.repair(settings, "reapply", "west-gw") < 5
    assert await link.causes(settings) == []

    # Prefixes that another peer took.
    hub = sites.machines["east-gw"]
    west = (await sites.machines["west-gw"].sh("wg show all public-key | cut -f2")).strip()
    await hub.sh('wg set $(wg show interfaces) peer "$1" allowed-ips 10.99.0.0/24', west)
    assert (Cause.ALLOWED_IPS, "east-gw") in await link.causes(settings)
    assert await link.repair(settings, "reapply", "east-gw") < 5

    # A hole for large packets.
    await sites.machines["router"].sh(
        "nft add table inet hole; nft add chain inet hole f '{ type filter hook forward priority 0; }'; "
        "nft add rule inet hole f meta length '>' 1300 drop"
    )
    assert await link.passes(settings), "small packets pass"
    assert {cause for cause, _ in await link.causes(settings)} == {Cause.MTU_HOLE}


async def test_a_peer_that_is_called_by_name_is_followed_to_its_new_address(link: Hub, sites: GatewayWorld) -> None:
    caller, moved = sites.machines["west-gw"], sites.machines["east-gw"]
    await caller.sh("echo '198.18.1.2 hub.example' > /run/hosts; mount --bind /run/hosts /etc/hosts")
    ends = [
        {"host": "east-gw", "prefixes": ["10.1.0.0/24"], "endpoint": "hub.example"},
        {"host": "west-gw", "prefixes": ["10.2.0.0/24"], "nat": True},
    ]
    settings = WireguardSpec.model_validate({"between": ends, "keepalive": 1})
    await link.up(settings)
    assert await link.passes(settings)
    await moved.sh("ip address delete 198.18.1.2/24 dev eth0; ip address add 198.18.1.7/24 dev eth0")
    await moved.sh("ip route add default via 198.18.1.1")
    await caller.sh("echo '198.18.1.7 hub.example' > /run/hosts")
    # It calls nobody, as the other side is behind NAT: only who knows its name finds it again.
    assert not await link.passes(settings)
    assert (await link.causes(settings))[:1] != [], "something is named"
    assert await link.repair(settings, "re-resolve", "west-gw") < 5
    assert "198.18.1.7:51820" in await caller.sh("wg show all endpoints")


@dataclass
class Timed:
    """What so many spokes cost, in seconds: working out all ends and their files (processor time, as the rest of the
    machine has no part in it), making the hub what it is to be, `wg syncconf` alone."""

    generated: float
    changed: float
    synced: float


SYNC = """
if=$(wg show interfaces)
grep -Ev "^($1) =" /etc/wireguard/$if.conf > /run/whole
sed '/^.Peer.$/,$d' /run/whole > /run/none
for round in 1 2 3 4 5 6 7 8 9; do
  wg syncconf "$if" /run/none
  begun=$(date +%s%N); wg syncconf "$if" /run/whole; ended=$(date +%s%N)
  echo $((ended-begun))
done
rm /run/whole /run/none
"""
"""How long it takes to give all peers to an interface without any, in nanoseconds: some of the times hold what else the
machine does."""


def crowd(count: int) -> tuple[WireguardSpec, dict[str, Host]]:
    """A hub that is there, and spokes of which there is no more than what the hub is told."""
    spokes = [f"spoke-{number}" for number in range(count)]
    ends = [{"host": "east-gw", "prefixes": ["10.1.0.0/24"]}]
    ends += [{"host": name, "prefixes": [f"10.{100 + number}.0.0/24"]} for number, name in enumerate(spokes)]
    places = {name: Host(name, f"198.18.9.{number}") for number, name in enumerate(spokes, 1)}
    return WireguardSpec.model_validate({"between": ends, "hub": "east-gw", "allow": ["icmp"]}), places


async def time_crowd(count: int, sites: GatewayWorld, folder: Path) -> Timed:
    settings, spokes = crowd(count)
    address = DeploymentAddress("default", "proof").stage(f"crowd-{count}")
    world = stage_on(sites, folder, hosts={**sites.hosts, **spokes}, address=address)

    def generate() -> tuple[EndState, Keys]:
        memory = with_keys(Memory(), settings)
        ends, keys = plan_ends(settings, address, world.hosts, numbered(settings, {})), keys_of(settings, memory)
        assert keys is not None
        assert sum(config_text(end, keys).reveal().count("[Peer]") for end in ends) == 2 * count
        return ends[0], keys

    generated = min(timeit.repeat(generate, timer=process_time, number=3, repeat=5)) / 3
    hub, keys = generate()
    ctx, machine = world.writing(), sites.machines["east-gw"]
    (seen,) = await hosts.survey([hub], ctx, probe=False)
    began = monotonic()
    await hosts.change(hub, keys, seen, ctx)
    changed = monotonic() - began
    synced = min(map(int, (await machine.sh(SYNC, QUICK_ONLY)).split())) / 1e9
    (seen,) = await hosts.survey([hub], ctx, probe=False)
    assert not Look((hub,), keys, [seen]).differences(), "the hub is what it is to be"
    assert len((await machine.sh("wg show all peers")).splitlines()) == count
    assert len((await machine.sh("ip route show proto 241")).splitlines()) == count
    await hosts.remove(Place("east-gw", hub.interface), str(address), ctx)
    return Timed(generated, changed, synced)


async def test_what_a_hub_costs_grows_with_its_spokes_and_no_faster(tmp_path: Path) -> None:
    async with gateways(SIDES[0]) as sites:
        before = await sites.state()
        found = {count: await time_crowd(count, sites, tmp_path) for count in (10, 20, 50)}
        assert await sites.state() == before
    for count, took in found.items():
        times = f"generated in {took.generated * 1000:.1f} ms, hub changed in {took.changed * 1000:.0f} ms"
        print(f"{count} spokes: {times}, `wg syncconf` {took.synced * 1000:.1f} ms")
    few, many = found[10], found[50]
    # Five times as many; twice that, for what else the machine does.
    assert many.generated < 10 * few.generated
    assert many.changed < 10 * few.changed
    assert many.synced < 10 * few.synced
