"""BGP between two sites over a real WireGuard link, with real BIRD and real FRR: prefixes, faults, repair, removal."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.bgp_rig import PAIR, Joined, Routing, bgp, joined
from tests.support.driven import assert_cut_off_is_healed
from tests.support.gateways import stage_on

from skyspan.contracts.transport import Command, Stream
from skyspan.contracts.watch import Cause, Finding, Repair
from skyspan.model.change import Action, Change
from skyspan.model.error import NotReadyError, SpecError, ToolMissingError
from skyspan.model.secret import Secret
from skyspan.networks.bgp.spec import BgpSpec
from skyspan.networks.wireguard.provider import WireguardProvider
from skyspan.networks.wireguard.spec import WireguardSpec
from skyspan.testing.gateway_world import Machine

pytestmark = pytest.mark.integration

MIXED = ({"daemon": "bird"}, {"daemon": "frr"})
BIRDS = ({"daemon": "bird"}, {"daemon": "bird"})

SINCE = """
export VTYSH_HISTFILE=/dev/null
if [ -e /run/skyspan-bgp/*/ctl ]; then
  birdcl -s /run/skyspan-bgp/*/ctl show protocols | awk '/^peer_/ { print $1, $NF }'
  ss -Htn state established '( sport = :179 or dport = :179 )' | awk '{ print $3, $4 }' | sort
else vtysh --vty_socket /run/skyspan-bgp/* -c 'show bgp summary json' | grep -e connections; fi
"""
"""Which sessions a gateway has: for FRR how often each was lost; for BIRD the ports of each connection, as the time it
tells is worked out anew whenever it is asked."""

RUNS = """
export VTYSH_HISTFILE=/dev/null
vtysh --vty_socket /run/skyspan-bgp/* -c 'show running-config' | sed 's/ seq [0-9]*//' | sort
"""
"""What FRR runs with, whatever the numbers of its lists' entries."""

LEAK = """
export VTYSH_HISTFILE=/dev/null
if [ -e /run/skyspan-bgp/*/ctl ]; then
  folder=$(echo /run/skyspan-bgp/*)
  routes=; for net; do routes="$routes route $net unreachable;"; done
  sed -i "s#^protocol static announced4 .*#protocol static announced4 { ipv4; $routes }#" $folder/config
  sed -i "s#export where net.*#export all;#" $folder/config
  birdcl -s $folder/ctl configure
else
  runs=$(vtysh --vty_socket /run/skyspan-bgp/* -c 'show running-config')
  name=$(echo "$runs" | sed -n 's/^ip prefix-list \\(.*_out\\) .*/\\1/p' | tail -1)
  as=$(echo "$runs" | grep '^router bgp')
  for net; do
    vtysh --vty_socket /run/skyspan-bgp/* -c 'configure terminal' -c "ip prefix-list $name permit $net" \
      -c "$as" -c 'address-family ipv4 unicast' -c "network $net"
  done
  vtysh --vty_socket /run/skyspan-bgp/* -c 'clear bgp ipv4 unicast * soft out'
fi
"""
"""Announce other prefixes by hand, past everything that was declared."""


@pytest_asyncio.fixture(loop_scope="module")
async def routing(shared_link: Joined, shared_linked: dict[str, str], tmp_path: Path) -> AsyncIterator[Routing]:
    """A stage over the link that all share: whatever the test leaves of it can be destroyed."""
    made = Routing(stage_on(shared_link.sites, tmp_path))
    yield made
    await made.down(bgp(shared_link))
    assert await shared_link.sites.state() == shared_linked


@pytest.fixture
def link(shared_link: Joined) -> Joined:
    return shared_link


@pytest.fixture
async def own_link(tmp_path: Path) -> AsyncIterator[Joined]:
    """A link for a test that spoils it."""
    async with joined(tmp_path) as made:
        yield made


@pytest.fixture
def own_routing(own_link: Joined, tmp_path: Path) -> Routing:
    return Routing(stage_on(own_link.sites, tmp_path / "bgp"))


@asynccontextmanager
async def network_behind(machine: Machine, address: str) -> AsyncIterator[None]:
    """One more network behind a gateway, for a time."""
    await machine.sh('ip address add "$1" dev lan', address)
    try:
        yield
    finally:
        await machine.sh('ip address delete "$1" dev lan', address)


async def causes(routing: Routing, settings: BgpSpec) -> dict[Cause, Finding]:
    return {item.cause: item for item in await routing.diagnosed(settings)}


async def until(routing: Routing, settings: BgpSpec, words: str) -> Finding:
    """The finding with these words, once it is there."""
    found: tuple[Finding, ...] = ()
    for _ in range(60):
        found = await routing.diagnosed(settings)
        for item in found:
            if words in item.words:
                return item
        await asyncio.sleep(0.1)
    raise AssertionError(f"nothing of {words}: {found}")


async def routes(machine: Machine) -> set[str]:
    """What BGP put into the kernel's table."""
    listed = json.loads(await machine.sh("ip -j route show"))
    return {item["dst"] for item in listed if item.get("protocol") in ("bird", "bgp")}


@pytest.mark.parametrize("daemons", [("bird", "bird"), ("bird", "frr"), ("frr", "frr")], ids="-".join)
async def test_exactly_the_declared_prefixes_pass_and_destroying_leaves_nothing(
    link: Joined, routing: Routing, daemons: tuple[str, str]
) -> None:
    before = await link.sites.state()
    settings = bgp(link, {"daemon": daemons[0]}, {"daemon": daemons[1], "announce": ["10.2.0.0/24", "10.2.64.0/20"]})
    async with network_behind(link.west, "10.2.64.1/20"):
        seen = await routing.up(settings)
        assert seen.healthy
        assert seen.outputs["daemons"].value == dict(zip(("east-gw", "west-gw"), daemons, strict=True))
        assert seen.outputs["received"].value == {
            "east-gw": {"west-gw": ["10.2.0.0/24", "10.2.64.0/20"]},
            "west-gw": {"east-gw": ["10.1.0.0/24"]},
        }
        assert seen.outputs["sent"].value["west-gw"] == {"east-gw": ["10.2.0.0/24", "10.2.64.0/20"]}
        assert await routes(link.east) == {"10.2.0.0/24", "10.2.64.0/20"}
        assert await routes(link.west) == {"10.1.0.0/24"}
        assert await link.sites.machines["east"].pings("10.2.64.1")
        assert not await causes(routing, settings)
        assert await routing.passes(settings)
        written, puts = len(routing.written()), routing.world.kept.puts
        assert (await routing.look(settings))[1].action is Action.NONE
        await routing.up(settings)
        assert (len(routing.written()), routing.world.kept.puts) == (written, puts), "a second up writes nothing"
        await routing.down(settings)
    assert await link.sites.state() == before


async def test_prefixes_change_both_ways_without_loss_of_the_session(link: Joined, routing: Routing) -> None:
    """FRR is told every change of what it announces and of what it learns, and BIRD works them out by itself."""
    east, west = link.east, link.west
    networks = {"east": ("10.1.0.0/24", "10.1.77.0/24"), "west": ("10.2.0.0/24", "10.2.77.0/24")}

    def settings(*which: int) -> BgpSpec:
        announced = {side: {"announce": [nets[number] for number in which]} for side, nets in networks.items()}
        return bgp(link, MIXED[0] | announced["east"], MIXED[1] | announced["west"])

    async with network_behind(east, "10.1.77.1/24"), network_behind(west, "10.2.77.1/24"):
        await routing.up(settings(0))
        since = [await machine.sh(SINCE) for machine in (east, west)]
        for which in ((1,), (0, 1), (0,)):
            seen, change = await routing.look(settings(*which))
            assert change.action is Action.UPDATE
            assert not seen.drifted, "settings that changed are no drift"
            assert (await routing.up(settings(*which))).healthy
            assert await routes(east) == {networks["west"][number] for number in which}
            assert await routes(west) == {networks["east"][number] for number in which}
            assert [await machine.sh(SINCE) for machine in (east, west)] == since
        runs = await west.sh(RUNS)
        await routing.provider.repair(settings(0), Repair("restart", "west-gw"), routing.world.writing())
        assert await west.sh(RUNS) == runs, "all changes give what a new start gives"


@pytest.mark.parametrize("leaking", ["east-gw", "west-gw"])
async def test_a_leak_is_refused_and_named_and_a_flood_closes_the_session(
    link: Joined, routing: Routing, leaking: str
) -> None:
    settings = bgp(link, *MIXED, max_prefixes=5)
    await routing.up(settings)
    own, other = ("10.1.0.0/24", link.west) if leaking == "east-gw" else ("10.2.0.0/24", link.east)
    kept = await routes(other)
    await link.sites.machines[leaking].sh(LEAK, own, "10.66.0.0/16", "0.0.0.0/1")
    found = await until(routing, settings, "0.0.0.0/1, 10.66.0.0/16")
    assert (found.cause, found.where) == (Cause.PREFIX_LEAKED, other.name)
    assert await routes(other) == kept, "nothing of it reaches the kernel's table"
    seen, _ = await routing.look(settings)
    assert seen.reason.startswith(f"what {leaking} tells {other.name}: also 0.0.0.0/1, 10.66.0.0/16"), seen.reason
    assert seen.outputs["refused"].value[other.name] == {leaking: ["0.0.0.0/1", "10.66.0.0/16"]}
    await link.sites.machines[leaking].sh(LEAK, own, *(f"10.66.{n}.0/24" for n in range(8)))
    if leaking == "east-gw":
        # FRR counts, refused ones too, when a prefix comes that it does not refuse.
        await link.east.sh("birdcl -s /run/skyspan-bgp/*/ctl reload out all")
    assert (await until(routing, settings, "max_prefixes")).where == other.name
    assert not (await routing.look(settings))[0].healthy


WATCH = """
import sys, time
prefix = bytes(int(part) for part in sys.argv[1].split("."))[::-1].hex().upper()
end = time.monotonic() + 20
print("ready", flush=True)
while time.monotonic() < end:
    rows = [line.split() for line in open("/proc/net/route")]
    if any(row[1] == prefix and row[7] == "00FFFFFF" for row in rows) == (sys.argv[2] == "there"):
        print(time.monotonic())
        break
    time.sleep(0.004)
"""
"""Print the (system-wide monotonic) time at which a /24 is there or gone."""


async def when(machine: Machine, prefix: str, what: str, act: Callable[[], Awaitable[object]]) -> float:
    """Seconds from an act to a route's coming or going."""
    ready = asyncio.Event()

    def listen(stream: Stream, data: bytes) -> None:
        ready.set()

    command = Command((sys.executable, "-I", "-S", "-c", WATCH, prefix, what))
    watching = asyncio.ensure_future(machine.run(command, listen))
    await asyncio.wait_for(ready.wait(), 10)
    begun = time.monotonic()
    await act()
    said = (await watching).text().split()
    assert len(said) == 2, f"{prefix} is never {what}"
    return float(said[1]) - begun


async def test_a_cut_withdraws_the_routes_within_bfds_time(link: Joined, routing: Routing) -> None:
    settings = bgp(link, *MIXED, bfd={"interval": "200ms", "multiplier": 5})
    await routing.up(settings)
    router = link.sites.machines["router"]
    for machine, prefix in ((link.east, "10.2.0.0"), (link.west, "10.1.0.0")):
        gone = await when(machine, prefix, "gone", lambda: router.sh("ip link set west down"))
        assert gone < 1.5, f"withdrawn from {machine.name} after {gone:.2f} s"
        probed = await routing.provider.probe(settings, routing.world.reading())
        assert [passage.passed for passage in probed] == [False, False]
        back = await when(machine, prefix, "there", lambda: router.sh("ip link set west up"))
        print(f"{machine.name}: withdrawn after {gone:.2f} s, back after {back:.2f} s")
        assert back < 15
        await until_healthy(routing, settings)


async def until_healthy(routing: Routing, settings: BgpSpec) -> None:
    reason = ""
    for _ in range(100):
        seen, _ = await routing.look(settings)
        if seen.healthy:
            return
        reason = seen.reason
        await asyncio.sleep(0.1)
    raise AssertionError(reason)


async def test_a_killed_daemon_is_named_and_started_again(link: Joined, routing: Routing) -> None:
    settings = bgp(link, *MIXED)
    await routing.up(settings)
    for victim in ("bird", "zebra", "bgpd", "bfdd"):
        host, file = ("east-gw", "pid") if victim == "bird" else ("west-gw", f"{victim}.pid")
        await link.sites.machines[host].sh('kill -9 $(cat /run/skyspan-bgp/*/"$1")', file)
        seen, change = await routing.look(settings)
        assert seen.exists
        assert seen.drifted
        assert change.action is Action.UPDATE
        assert {item.address.split(":")[0] for item in seen.drift} == {host}
        found = await causes(routing, settings)
        assert found[Cause.DAEMON_DOWN].where == host
        began = time.monotonic()
        await routing.provider.repair(settings, Repair("restart", host), routing.world.writing())
        await until_healthy(routing, settings)
        print(f"{victim}: everything holds {time.monotonic() - began:.1f} s after the repair began")
        if victim != "bird":
            said = await link.west.sh("vtysh --vty_socket /run/skyspan-bgp/* -c 'show bgp neighbors json'")
            dropped = [item["connectionsDropped"] for item in json.loads(said).values()]
            assert dropped == [0], "BFD that comes after it does not end it again"
        assert await routes(link.east) == {"10.2.0.0/24"}
        assert await routes(link.west) == {"10.1.0.0/24"}


async def test_reloads_leave_well_sessions_up_and_stop_withdraws_until_start(link: Joined, routing: Routing) -> None:
    settings = bgp(link, *MIXED)
    await routing.up(settings)
    since = [await machine.sh(SINCE) for machine in (link.east, link.west)]
    for step in routing.provider.repairs(settings, routing.world.reading())[:2]:
        assert step.name == "reload"
        await routing.provider.repair(settings, step, routing.world.writing())
    assert [await machine.sh(SINCE) for machine in (link.east, link.west)] == since
    assert (await routing.look(settings))[1].action is Action.NONE
    for _ in range(2):
        await routing.provider.stop(settings, routing.world.writing())
    assert not await routes(link.east) | await routes(link.west)
    assert not (await routing.look(settings))[0].exists
    assert (await routing.provider.start(settings, routing.world.writing())).healthy
    assert await routes(link.east) == {"10.2.0.0/24"}


async def test_what_wireguard_would_drop_is_named(own_link: Joined, own_routing: Routing) -> None:
    await own_link.west.sh("ip address add 10.9.0.1/24 dev lan")
    settings = bgp(own_link, BIRDS[0], BIRDS[1] | {"announce": ["10.9.0.0/24"]}, ready_within=5)
    with pytest.raises(NotReadyError) as caught:
        await own_routing.up(settings)
    assert "its AllowedIPs do not cover 10.9.0.0/24" in caught.value.summary
    assert await routes(own_link.east) == {"10.9.0.0/24"}, "BGP itself sees nothing wrong"
    found = await causes(own_routing, settings)
    assert set(found) == {Cause.ALLOWED_IPS}
    assert found[Cause.ALLOWED_IPS].where == "east-gw"
    assert "do not cover 10.9.0.0/24" in found[Cause.ALLOWED_IPS].words
    key = (await own_link.east.sh("wg show all peers")).split()[-1]
    await own_link.east.sh(
        'wg set $(wg show interfaces) peer "$1" allowed-ips +10.9.0.0/24 2>/dev/null || '
        'wg set $(wg show interfaces) peer "$1" allowed-ips 10.2.0.0/16,10.9.0.0/24,"$2"/32',
        key,
        own_link.outputs["addresses"]["west-gw"][0].split("/")[0],
    )
    await until_healthy(own_routing, settings)
    assert not await causes(own_routing, settings)


async def test_settings_that_do_not_come_up_are_taken_back(link: Joined, routing: Routing) -> None:
    good = bgp(link, *BIRDS)
    await routing.up(good)
    bad = bgp(link, BIRDS[0], BIRDS[1] | {"announce": ["10.9.0.0/24"]}, ready_within=4)
    with pytest.raises(NotReadyError):
        await routing.up(bad)
    await until_healthy(routing, good)
    assert await routes(link.east) == {"10.2.0.0/24"}
    assert (await routing.up(good)).healthy


async def test_a_refused_configuration_changes_nothing_anywhere(link: Joined, routing: Routing) -> None:
    good = bgp(link, *BIRDS)
    await routing.up(good)
    before = await link.sites.state()
    since = [await machine.sh(SINCE) for machine in (link.east, link.west)]
    await link.west.sh(
        "printf '#!/bin/sh\\necho line 7: no such thing >&2\\nexit 1\\n' > /run/no; chmod 755 /run/no; "
        "mount --bind /run/no $(command -v bird)"
    )
    with pytest.raises(SpecError) as caught:
        await routing.up(bgp(link, BIRDS[0], BIRDS[1] | {"announce": ["10.2.0.0/23"]}))
    assert "line 7" in caught.value.detail
    await link.west.sh("umount $(command -v bird); rm /run/no")
    assert [await machine.sh(SINCE) for machine in (link.east, link.west)] == since
    await routing.up(good)
    assert await link.sites.state() == before


FOREIGN_ZEBRA = """
mkdir -p /run/frr; chown frr /run/frr
/usr/lib/frr/zebra -d -u frr -g frr -P 0 -f /dev/null --vty_socket /run/frr
"""

FOREIGN_BIRD = """
printf '%s' 'router id 1.2.3.4; protocol device {} protocol static { ipv4; route 10.200.0.0/16 via 198.18.2.1; }
protocol kernel { ipv4 { import none; export all; }; scan time 1; }
protocol bgp { local 198.18.2.2 as 65000; neighbor 198.18.2.1 as 65001; }' > /run/theirs.conf
mkdir -p /run/bird; bird -c /run/theirs.conf -s /run/bird/ctl -P /run/bird/pid
"""


async def test_the_hosts_own_daemons_are_left_alone(own_link: Joined, own_routing: Routing) -> None:
    await own_link.west.sh(FOREIGN_ZEBRA)
    await own_link.west.sh(FOREIGN_BIRD)
    theirs = (
        "ip route show 10.200.0.0/16; cat /run/bird/pid /run/frr/zebra.pid; pgrep -x zebra; pgrep -x bird | head -1"
    )
    before, kept = await own_link.sites.state(), await own_link.west.sh(theirs)
    with pytest.raises(SpecError, match="runs an FRR already") as caught:
        await own_routing.up(bgp(own_link, *MIXED))
    assert "daemon: bird" in caught.value.hint
    both = BIRDS
    with pytest.raises(SpecError, match="TCP port 179 of west-gw is in use"):
        await own_routing.up(bgp(own_link, *both))
    assert await own_link.sites.state() == before, "nothing was touched"
    with pytest.raises(NotReadyError, match="session of"):
        await own_routing.up(bgp(own_link, *both, port=1179, ready_within=2))
    await own_routing.down(bgp(own_link, *both, port=1179))
    for machine in (own_link.east, own_link.west):
        await machine.sh(
            'nft insert rule inet "skyspan-$1" admitted tcp dport 1179 accept', own_link.outputs["interface"]
        )
    assert (await own_routing.up(bgp(own_link, *both, port=1179))).healthy
    assert await own_link.west.sh(theirs) == kept
    await own_routing.down(bgp(own_link, *both, port=1179))
    assert await own_link.west.sh(theirs) == kept


async def test_addresses_without_a_common_network_name_their_peer(tmp_path: Path) -> None:
    ends = [
        {"host": "east-gw", "prefixes": ["10.1.0.0/16"], "address": "10.254.9.1/32"},
        {"host": "west-gw", "prefixes": ["10.2.0.0/16"], "address": "10.254.7.2/32"},
    ]
    async with joined(tmp_path, between=ends) as link:
        routing = Routing(stage_on(link.sites, tmp_path / "bgp"))
        before = await link.sites.state()
        seen = await routing.up(bgp(link, *MIXED))
        assert seen.healthy
        assert "10.254.9.1 peer 10.254.7.2/32" in await link.east.sh("ip -o address show")
        assert (await routing.look(bgp(link, *MIXED)))[1].action is Action.NONE
        await link.east.sh("ip address delete 10.254.9.1 peer 10.254.7.2/32 dev $(wg show interfaces)")
        seen, _ = await routing.look(bgp(link, *MIXED))
        assert "east-gw: address 10.254.9.1 peer 10.254.7.2/32" in [item.address for item in seen.drift]
        assert (await routing.up(bgp(link, *MIXED))).healthy
        await routing.down(bgp(link, *MIXED))
        assert await link.sites.state() == before


async def test_ipv6_prefixes_pass_in_a_session_of_their_own(tmp_path: Path) -> None:
    ends = [
        {"host": "east-gw", "prefixes": ["10.1.0.0/16", "fd00:1::/48"]},
        {"host": "west-gw", "prefixes": ["10.2.0.0/16", "fd00:2::/48"]},
    ]
    async with joined(tmp_path, between=ends) as link:
        for number, machine in ((1, link.east), (2, link.west)):
            await machine.sh(f"ip address add fd00:{number}::1/64 dev lan nodad")
        routing = Routing(stage_on(link.sites, tmp_path / "bgp"))
        settings = bgp(
            link,
            MIXED[0] | {"announce": ["10.1.0.0/24", "fd00:1::/64"]},
            MIXED[1] | {"announce": ["10.2.0.0/24", "fd00:2::/64"]},
        )
        before = await link.sites.state()
        seen = await routing.up(settings)
        assert seen.healthy
        assert seen.outputs["received"].value["east-gw"] == {"west-gw": ["10.2.0.0/24", "fd00:2::/64"]}
        assert "fd00:2::/64" in await link.east.sh("ip -6 route show proto bird")
        assert "fd00:1::/64" in await link.west.sh("ip -6 route show proto bgp")
        assert (await routing.look(settings))[1].action is Action.NONE
        await routing.down(settings)
        assert await link.sites.state() == before


async def test_each_side_can_be_somebody_elses(link: Joined, routing: Routing, tmp_path: Path) -> None:
    theirs = Routing(stage_on(link.sites, tmp_path / "theirs", address=PAIR.stage("theirs")))
    password = Secret("correct-horse-9")
    ours = bgp(link, MIXED[0], {"managed": False}, password=password)
    seen, _ = await asyncio.gather(
        routing.up(ours), theirs.up(bgp(link, {"managed": False}, MIXED[1], password=password))
    )
    assert seen.healthy
    assert seen.outputs["daemons"].value == {"east-gw": "bird"}
    assert seen.outputs["received"].value == {"east-gw": {"west-gw": ["10.2.0.0/24"]}}
    assert password.reveal() not in await link.east.sh("ps axww")
    with pytest.raises(NotReadyError) as caught:
        await routing.up(bgp(link, MIXED[0], {"managed": False}, password=Secret("wrong"), ready_within=2))
    assert "session of east-gw with west-gw" in caught.value.summary
    assert "password" in caught.value.hint
    await until_healthy(routing, ours)
    await theirs.down(ours)


async def test_a_missing_daemon_names_host_and_package(own_link: Joined, own_routing: Routing) -> None:
    await own_link.west.sh("mount --bind /dev/null /usr/lib/frr/zebra; mount --bind /dev/null $(command -v birdcl)")
    with pytest.raises(ToolMissingError) as caught:
        await own_routing.up(bgp(own_link, *MIXED))
    assert caught.value.summary == "west-gw has no FRR"
    assert caught.value.hint == "on west-gw: apt-get install frr"
    with pytest.raises(ToolMissingError, match="west-gw has no BIRD 2 and no FRR"):
        await own_routing.up(bgp(own_link))


async def second_link(folder: Path, link: Joined) -> Joined:
    """East and north, over a link of its own."""
    ends = [
        {"host": "east-gw", "prefixes": ["10.1.0.0/16", "10.2.0.0/16"], "port": 51821},
        {"host": "north-gw", "prefixes": ["10.3.0.0/16"]},
    ]
    spec = WireguardSpec.model_validate({"between": ends, "allow": ["icmp", "tcp/179", "udp/3784"]})
    world = stage_on(link.sites, folder / "north", address=PAIR.stage("north"))
    seen = await WireguardProvider().apply(spec, Change(Action.CREATE), world.writing())
    return Joined(link.sites, world, spec, {name: output.value for name, output in seen.outputs.items()})


async def test_a_hub_passes_on_what_its_spokes_announce_and_one_may_leave(tmp_path: Path) -> None:
    ends = [
        {"host": "east-gw", "prefixes": ["10.1.0.0/16", "10.3.0.0/16"]},
        {"host": "west-gw", "prefixes": ["10.2.0.0/16"]},
    ]
    async with joined(tmp_path, ("east", "west", "north"), between=ends) as link:
        other = await second_link(tmp_path, link)
        routing = Routing(stage_on(link.sites, tmp_path / "bgp"))
        before = await link.sites.state()
        speakers = [
            {"host": "east-gw", "asn": 64512, "announce": ["10.1.0.0/24"], "daemon": "frr", "transit": True},
            {"host": "west-gw", "asn": 64513, "announce": ["10.2.0.0/24"], "daemon": "bird"},
            {"host": "north-gw", "asn": 64514, "announce": ["10.3.0.0/24"], "daemon": "bird"},
        ]
        sessions = [
            {"between": ["east-gw", "west-gw"], "over": link.over},
            {"between": ["east-gw", "north-gw"], "over": other.over},
        ]
        both = BgpSpec.model_validate({"speakers": speakers, "sessions": sessions})
        seen = await routing.up(both)
        assert seen.outputs["received"].value == {
            "east-gw": {"west-gw": ["10.2.0.0/24"], "north-gw": ["10.3.0.0/24"]},
            "west-gw": {"east-gw": ["10.1.0.0/24", "10.3.0.0/24"]},
            "north-gw": {"east-gw": ["10.1.0.0/24", "10.2.0.0/24"]},
        }
        assert await link.sites.machines["west"].pings("10.3.0.10")
        since = await link.west.sh(SINCE)
        less = BgpSpec.model_validate({"speakers": speakers[:2], "sessions": sessions[:1]})
        assert (await routing.up(less)).healthy
        assert await link.west.sh(SINCE) == since
        assert await routes(link.west) == {"10.1.0.0/24"}
        assert not await routes(link.sites.machines["north-gw"])
        await routing.down(less)
        assert await link.sites.state() == before


async def test_a_script_cut_off_at_any_step_is_healed_and_removed(link: Joined, routing: Routing) -> None:
    for at in range(1, 5):
        await assert_cut_off_is_healed(routing, bgp(link, *BIRDS), (link.sites, "west-gw"), at)
