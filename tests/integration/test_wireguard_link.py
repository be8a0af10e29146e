"""A wireguard link between two sites in network namespaces, with real daemons, traffic and faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.driven import assert_cut_off_is_healed
from tests.support.gateways import stage_on
from tests.support.wireguard_rig import Link, spec

from skyspan.contracts.transport import Command, Completed, Connection, OnOutput, Transport
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Action
from skyspan.model.error import NotReadyError, SpecError, ToolMissingError, UnreachableError
from skyspan.networks.wireguard.spec import WireguardSpec
from skyspan.testing.gateway_world import GatewayWorld

pytestmark = pytest.mark.integration


@pytest.fixture
def link(sites: GatewayWorld, tmp_path: Path) -> Link:
    return Link(sites, stage_on(sites, tmp_path))


async def test_sites_reach_each_other_on_what_is_allowed_and_nothing_else(link: Link, sites: GatewayWorld) -> None:
    for name in ("east", "west", "west-gw"):
        await sites.listen(name, 8080)
        await sites.listen(name, 9090)
    seen = await link.up(spec(expect=["10.2.0.10:8080"]))
    assert seen.healthy
    assert seen.outputs["plane"].value in ("kernel", "userspace")
    east, west = sites.machines["east"], sites.machines["west"]
    assert await east.pings("10.2.0.10")
    assert await west.pings("10.1.0.10")
    for machine, target in ((east, "10.2.0.10"), (west, "10.1.0.10"), (east, "10.2.0.1")):
        await machine.dial(target, 8080, 3)
        with pytest.raises(UnreachableError, match="refused"):
            await machine.dial(target, 9090, 3)


async def test_what_is_not_behind_the_gateway_is_not_forwarded_to(link: Link, sites: GatewayWorld) -> None:
    await link.up(spec(allow=["any"]))
    west_gw = sites.machines["west-gw"]
    await west_gw.sh("ip route add 198.18.1.1/32 dev $(wg show interfaces)")
    key = (await link.wg("west-gw", "peers")).strip() or (await west_gw.sh("wg show all peers")).split()[-1]
    await west_gw.sh('wg set $(wg show interfaces) peer "$1" allowed-ips 0.0.0.0/0', key)
    assert not await west_gw.pings("198.18.1.1"), "the router is not one of east's prefixes"


async def test_tcp_is_told_to_keep_its_segments_inside_the_tunnel(link: Link, sites: GatewayWorld) -> None:
    await sites.listen("west", 8080)
    await link.up(spec(mtu=1300))
    script = (
        "import socket; s = socket.create_connection(('10.2.0.10', 8080), 3); "
        "print(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))"
    )
    size = int(await sites.machines["east"].sh(f'python3 -I -S -c "{script}"'))
    assert 1200 < size <= 1300 - 40


async def test_a_second_up_writes_nothing_and_a_change_keeps_the_session_and_the_daemon(
    link: Link, sites: GatewayWorld
) -> None:
    await link.up(spec())
    before, written, puts = await sites.state(), len(link.written()), link.world.kept.puts
    seen, change = await link.look(spec())
    assert change.action is Action.NONE
    await link.provider.apply(spec(), change, link.world.writing())
    assert await sites.state() == before
    assert len(link.written()) == written
    assert link.world.kept.puts == puts
    assert seen.outputs["ready"].value is True

    stamps = [await link.wg(name, "latest-handshakes") for name in sites.gateways]
    daemons = [await machine.sh("cat /run/skyspan/*.pid 2>/dev/null || :") for machine in sites.gateways.values()]
    changed = spec(west={"prefixes": ["10.2.0.0/24", "10.7.0.0/16"]}, allow=["icmp", "udp/53"], keepalive=7, mtu=1400)
    seen, change = await link.look(changed)
    assert change.action is Action.UPDATE
    assert ("east-gw: route 10.7.0.0/16", Action.CREATE) in [(item.address, item.action) for item in change.resources]
    assert not seen.drifted, "settings that changed are no drift"
    assert (await link.up(changed)).healthy
    assert [await link.wg(name, "latest-handshakes") for name in sites.gateways] == stamps
    again = [await machine.sh("cat /run/skyspan/*.pid 2>/dev/null || :") for machine in sites.gateways.values()]
    assert again == daemons
    assert "10.7.0.0/16" in await sites.machines["east-gw"].sh("ip route show proto 241")
    await link.up(spec())
    assert "10.7.0.0/16" not in await sites.machines["east-gw"].sh("ip route show proto 241")


async def test_stop_takes_the_interfaces_and_start_brings_the_same_link_back(link: Link, sites: GatewayWorld) -> None:
    first = await link.up(spec())
    for _ in range(2):
        await link.provider.stop(spec(), link.world.writing())
    for machine in sites.gateways.values():
        assert "sky-" not in await machine.sh("ip -o link show")
        assert await machine.sh("ls /etc/wireguard")
    assert not (await link.look(spec()))[0].exists
    for _ in range(2):
        seen = await link.provider.start(spec(), link.world.writing())
        assert seen.healthy
        assert seen.outputs["public_keys"] == first.outputs["public_keys"]
    assert await sites.machines["east"].pings("10.2.0.10")


async def test_a_killed_daemon_is_seen_and_repaired(link: Link, sites: GatewayWorld) -> None:
    seen = await link.up(spec(plane="userspace"))
    assert seen.outputs["planes"].value == {"east-gw": "userspace", "west-gw": "userspace"}
    await sites.machines["west-gw"].sh("kill -9 $(cat /run/skyspan/*.pid)")
    seen, change = await link.look(spec(plane="userspace"))
    assert seen.exists
    assert not seen.healthy
    assert seen.drifted
    assert seen.reason.startswith("interface sky-")
    assert any(item.address.startswith("west-gw: interface") for item in seen.drift)
    assert change.action is Action.UPDATE
    assert (await link.up(spec(plane="userspace"))).healthy
    assert await sites.machines["east"].pings("10.2.0.10")


DRIFTS = {
    "route 10.1.0.0/24": "ip route delete 10.1.0.0/24 proto 241",
    "address ": "ip address add 10.99.0.1/32 dev $(wg show interfaces)",
    "interface ": "ip link set $(wg show interfaces) mtu 1300",
    "firewall ": "nft add rule inet skyspan-$(wg show interfaces) admitted tcp dport 9090 accept",
    "file ": "echo '# by hand' >> /etc/wireguard/$(wg show interfaces).conf",
    "peer ": "wg set $(wg show interfaces) peer $(wg show all peers | cut -f2) persistent-keepalive 99",
    "interface sky": "wg set $(wg show interfaces) peer $(wg show all peers | cut -f2) preshared-key /dev/null",
    "forwarding ": "echo 0 > /proc/sys/net/ipv4/ip_forward",
}


async def test_drift_is_seen_named_and_repaired(link: Link, sites: GatewayWorld) -> None:
    await link.up(spec())
    before = await sites.state()
    for resource, script in DRIFTS.items():
        await sites.machines["west-gw"].sh(script)
        seen, change = await link.look(spec())
        assert seen.drifted, resource
        assert [item.address for item in seen.drift if item.address.startswith(f"west-gw: {resource}")], resource
        assert all(item.address.startswith("west-gw") for item in seen.drift), "the other side is as it was"
        assert change.action is Action.UPDATE
        assert change.resources == seen.drift
        assert (await link.up(spec())).healthy
        assert await sites.state() == before, resource


async def test_two_links_of_a_gateway_share_forwarding(link: Link, sites: GatewayWorld, tmp_path: Path) -> None:
    before = await sites.state()
    address = DeploymentAddress("default", "proof").stage("second")
    other = Link(sites, stage_on(sites, tmp_path / "other", address=address))
    second = spec(
        east={"prefixes": ["10.11.0.0/24"], "port": 51821}, west={"prefixes": ["10.12.0.0/24"], "port": 51821}
    )
    await link.up(spec())
    assert (await other.up(second)).healthy
    await link.down(spec())
    forwarding = "cat /proc/sys/net/ipv4/ip_forward"
    assert await sites.machines["east-gw"].sh(forwarding) == "1\n"
    assert (await other.look(second))[1].action is Action.NONE
    await other.down(second)
    assert await sites.state() == before


async def test_another_interface_name_leaves_nothing_under_the_old_one(link: Link, sites: GatewayWorld) -> None:
    before = await sites.state()
    await link.up(spec())
    named = spec(interface="wg-lab")
    _, change = await link.look(named)
    assert any(item.action is Action.DESTROY and "sky-" in item.address for item in change.resources)
    assert (await link.up(named)).healthy
    for machine in sites.gateways.values():
        assert "sky-" not in await machine.state()
    await link.down(named)
    assert await sites.state() == before


async def test_the_boot_artefact_brings_up_the_same_link_by_wg_quick(link: Link, sites: GatewayWorld) -> None:
    seen = await link.up(spec())
    name = seen.outputs["interface"].value
    await link.provider.stop(spec(), link.world.writing())
    for machine in sites.gateways.values():
        await machine.sh('nft flush ruleset; echo 0 > /proc/sys/net/ipv4/ip_forward; wg-quick up "$1"', name)
        assert await machine.sh('stat -c %a "/etc/wireguard/$1.conf"', name) == "600\n"
    assert await sites.machines["east"].pings("10.2.0.10")
    assert (await link.look(spec()))[0].healthy


async def test_a_side_behind_nat_calls_and_is_not_called(link: Link, sites: GatewayWorld) -> None:
    rules = 'table ip nat { chain post { type nat hook postrouting priority 100; oifname "east" masquerade; }; }'
    await sites.machines["router"].sh('printf "%s" "$1" | nft -f -', rules)
    settings = spec(west={"nat": True})
    assert (await link.up(settings)).healthy
    assert "198.18.1.1:" in await sites.machines["east-gw"].sh("wg show all endpoints")
    assert "Endpoint" not in await sites.machines["east-gw"].sh("cat /etc/wireguard/*.conf")
    assert (await link.look(settings))[1].action is Action.NONE


async def test_ipv6_prefixes_are_joined_too(link: Link, sites: GatewayWorld) -> None:
    for number, side in ((1, "east"), (2, "west")):
        await sites.machines[f"{side}-gw"].sh(
            f"ip address add fd00:{number}::1/64 dev lan nodad; ip address add fe80::1/64 dev lan nodad"
        )
        script = f"ip address add fd00:{number}::10/64 dev eth0 nodad; ip -6 route add default via fd00:{number}::1"
        await sites.machines[side].sh(f"ip address add fe80::2/64 dev eth0 nodad; {script}")
    settings = spec(
        east={"prefixes": ["10.1.0.0/24", "fd00:1::/64"]}, west={"prefixes": ["10.2.0.0/24", "fd00:2::/64"]}
    )
    before = await sites.state()
    assert (await link.up(settings)).healthy
    assert await sites.machines["east"].pings("fd00:2::10")
    assert (await link.look(settings))[1].action is Action.NONE
    await link.down(settings)
    assert await sites.state() == before


FAULTS: dict[str, tuple[str, Callable[[], WireguardSpec], str]] = {
    "cut": ("ip link set west down", lambda: spec(ready_within=2), "handshake of east-gw with west-gw: never"),
    "narrow": ("ip link set west mtu 1300", lambda: spec(ready_within=2), "packets of 1420 bytes from"),
    "no service": (":", lambda: spec(expect=["10.2.0.10:81"], ready_within=1), "tcp 10.2.0.10:81 from east-gw"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_link_that_carries_no_traffic_says_which_leg_fails(link: Link, sites: GatewayWorld, fault: str) -> None:
    before = await sites.state()
    script, settings, leg = FAULTS[fault]
    await sites.machines["router"].sh(script)
    if fault == "narrow":
        await sites.machines["router"].sh(
            "nft add table ip hole; nft add chain ip hole out '{ type filter hook forward priority 0; }'; "
            "nft add rule ip hole out ip length \\> 1300 drop"
        )
    with pytest.raises(NotReadyError) as caught:
        await link.up(settings())
    assert leg in caught.value.summary
    assert caught.value.hint
    await link.down(settings())
    if fault != "cut":
        assert await sites.state() == before


@dataclass
class Gone:
    """A host that does not answer."""

    name: str

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        raise UnreachableError(f"{self.name} does not answer")

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        raise UnreachableError(f"{self.name} does not answer")

    async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
        raise UnreachableError(f"{self.name} does not answer")

    async def close(self) -> None:
        """Nothing."""


async def test_a_destroy_that_cannot_reach_a_side_says_which_and_can_be_repeated(
    link: Link, sites: GatewayWorld
) -> None:
    before = await sites.state()
    await link.up(spec())
    there: dict[str | None, Transport] = dict(link.world.transports)
    link.world.transports = {**there, "west-gw": Gone("west-gw")}
    with pytest.raises(UnreachableError, match="removed from east-gw, but not from west-gw: west-gw does not answer"):
        await link.down(spec())
    assert await sites.machines["east-gw"].state() == before["east-gw"]
    link.world.transports = there
    await link.down(spec())
    assert await sites.state() == before


TAKEN = {
    "an interface": ("ip link add wg-x type veth peer name other", "is taken on west-gw"),
    "a file": ("echo theirs > /etc/wireguard/wg-x.conf", "is taken on west-gw"),
    "the port": (
        "setsid python3 -c 'import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        ' s.bind(("0.0.0.0", 51820)); time.sleep(600)\' >/dev/null 2>&1 & sleep 0.3',
        "UDP port 51820",
    ),
    "the tunnel's address": ("ip address add 10.254.0.1/32 dev lan", "10.254.0.1/32 is in use on west-gw, by lan"),
    "a connected network": (
        "ip address add 10.1.0.77/24 dev lan",
        "take over the connected network 10.1.0.0/24 of lan",
    ),
    "a route": ("ip route add 10.1.0.0/24 via 198.18.2.1 proto static", "already routed over eth0 (proto static)"),
}


@pytest.mark.parametrize("what", TAKEN)
async def test_what_is_somebody_elses_is_refused_and_not_touched(link: Link, sites: GatewayWorld, what: str) -> None:
    script, words = TAKEN[what]
    await sites.machines["west-gw"].sh(script)
    before = await sites.state()
    settings = spec(interface="wg-x", tunnel="10.254.0.0/31")
    with pytest.raises(SpecError) as caught:
        await link.up(settings)
    assert words in caught.value.summary
    assert caught.value.hint
    assert await sites.state() == before, "nothing was touched"
    await link.down(settings)
    assert await sites.state() == before, "destroy leaves what is not ours alone"


async def test_a_missing_tool_names_host_and_package(link: Link, sites: GatewayWorld) -> None:
    await sites.machines["west-gw"].sh("mount --bind /dev/null $(command -v nft)")
    with pytest.raises(ToolMissingError) as caught:
        await link.up(spec())
    assert caught.value.summary == "west-gw has no nft"
    assert "nftables" in caught.value.hint


async def test_a_script_cut_off_at_any_step_is_healed_and_removed(link: Link, sites: GatewayWorld) -> None:
    for at in range(1, 6):
        await assert_cut_off_is_healed(link, spec(), (sites, "west-gw"), at)
