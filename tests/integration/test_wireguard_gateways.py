"""WireGuard links on gateways of every kind: IPv6 alone, containers, Docker hosts, and hosts that may not be lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.support.driven import LOCKED_OUT, DockerHost, LastWords, Through, until
from tests.support.gateways import stage_on
from tests.support.wireguard_rig import Link, spec

from skyspan.contracts.transport import Command, Completed, OnOutput
from skyspan.contracts.watch import Cause
from skyspan.model.change import Action
from skyspan.model.error import NotReadyError, UnreachableError
from skyspan.model.secret import Secret
from skyspan.networks.wireguard import scripts
from skyspan.networks.wireguard.commands import confirm_command, prepare_command
from skyspan.networks.wireguard.link import EndState, plan_ends
from skyspan.networks.wireguard.spec import WireguardSpec
from skyspan.testing.gateway_world import GatewayWorld, Machine

pytestmark = pytest.mark.integration


@pytest.fixture
def link(sites: GatewayWorld, tmp_path: Path) -> Link:
    return Link(sites, stage_on(sites, tmp_path))


@pytest.fixture
async def link6(sites: GatewayWorld, tmp_path: Path) -> Link:
    await sites.add_ipv6()
    return Link(sites, stage_on(sites, tmp_path, hosts=sites.hosts_by_ipv6))


EAST6, WEST6 = {"prefixes": ["fd00:1::/64"]}, {"prefixes": ["fd00:2::/64"]}
BOTH_EAST, BOTH_WEST = {"prefixes": ["10.1.0.0/24", "fd00:1::/64"]}, {"prefixes": ["10.2.0.0/24", "fd00:2::/64"]}


async def segment(machine: Machine, *place: str) -> int:
    """The size of the segments that the connection agreed on, as this side sees it."""
    said = await machine.sh("ss -Htin state established \"$@\" | grep -o ' mss:[0-9]*' | cut -d: -f2", *place)
    return int(said.split()[0])


async def test_sites_are_joined_over_ipv6_alone(link6: Link, sites: GatewayWorld) -> None:
    """Nothing of the link's packets is in fragments: what it grows by over IPv6 still fits."""
    await sites.machines["router"].sh(
        "nft add table ip6 whole; nft add chain ip6 whole out '{ type filter hook forward priority 0; }'; "
        "nft add rule ip6 whole out exthdr frag exists counter drop"
    )
    for name in ("east", "west"):
        await sites.listen(name, 8080)
        await sites.listen(name, 9090)
    before = await sites.state()
    settings = spec(EAST6, WEST6 | {"endpoint": "[fd18:2::2]:51820"}, tunnel="fd77::/127", expect=["[fd00:2::10]:8080"])
    seen = await link6.up(settings)
    assert seen.healthy
    assert seen.outputs["endpoints"].value == {"east-gw": "[fd18:1::2]:51820", "west-gw": "[fd18:2::2]:51820"}
    assert seen.outputs["addresses"].value == {"east-gw": ["fd77::/127"], "west-gw": ["fd77::1/127"]}
    east, west = sites.machines["east"], sites.machines["west"]
    for machine, target in ((east, "fd00:2::10"), (west, "fd00:1::10")):
        assert await machine.pings(target)
        await machine.dial(target, 8080, 3)
        with pytest.raises(UnreachableError, match="refused"):
            await machine.dial(target, 9090, 3)
    assert (await link6.look(settings))[1].action is Action.NONE
    larger = settings.model_copy(update={"mtu": 1440, "ready_within": 2.0})
    with pytest.raises(NotReadyError, match="packets of 1440 bytes") as caught:
        await link6.up(larger)
    assert "80 over IPv6" in caught.value.hint
    await link6.down(larger)
    assert await sites.state() == before


async def test_both_families_pass_with_segments_that_fit_and_errors_that_come_back(
    link6: Link, sites: GatewayWorld
) -> None:
    for name in ("east", "west"):
        await sites.listen(name, 8080)
    assert (await link6.up(spec(BOTH_EAST, BOTH_WEST, mtu=1340))).healthy
    east, west = sites.machines["east"], sites.machines["west"]
    holding = (
        "import socket, sys, time; s = socket.create_connection((sys.argv[1], 8080), 3); print('ready', flush=True); "
        "time.sleep(600)"
    )
    pairs = ((east, west, "10.2.0.10", 40), (east, west, "fd00:2::10", 60), (west, east, "fd00:1::10", 60))
    for caller, called, target, headers in pairs:
        await caller.sh('python3 -I -S -c "$1" "$2" >/dev/null 2>&1 &', holding, target)
        host = f"[{target}]" if ":" in target else target

        async def connected(caller: Machine = caller, host: str = host) -> bool:
            return bool(await caller.sh('ss -Htn state established dst "$1"', f"{host}:8080"))

        await until(connected, 5)
        assert 1000 < await segment(caller, "dst", f"{host}:8080") <= 1340 - headers
        assert 1000 < await segment(called, "src", f"{host}:8080") <= 1340 - headers
    for machine, device in (("east-gw", "lan"), ("east", "eth0")):
        await sites.machines[machine].sh('ip link set "$1" mtu 1290', device)
    assert not await west.pings("fd00:1::10", "-M", "do", "-s", "1280")
    assert "mtu 1290" in await west.sh("ip -6 route get fd00:1::10"), "packet too big came through the tunnel"


async def test_routes_are_left_to_whoever_is_to_own_them(link: Link, sites: GatewayWorld) -> None:
    before = await sites.state()
    settings = spec(routes="none")
    assert (await link.up(settings)).healthy
    east, gateways = sites.machines["east"], sites.gateways
    assert [await machine.sh("ip route show proto 241") for machine in gateways.values()] == ["", ""]
    assert not await east.pings("10.2.0.10")
    for name, prefix in (("east-gw", "10.2.0.0/24"), ("west-gw", "10.1.0.0/24")):
        await gateways[name].sh('ip route add "$1" dev $(wg show interfaces) proto bgp', prefix)
    assert await east.pings("10.2.0.10"), "what may pass is as declared"
    assert (await link.look(settings))[1].action is Action.NONE, "others' routes are no drift"
    assert not await link.diagnosed(settings)
    await link.down(settings)
    assert await sites.state() == before


FIXED = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"


async def test_a_container_with_fixed_settings_is_a_gateway_like_any_other(link: Link, sites: GatewayWorld) -> None:
    west = sites.machines["west-gw"]
    await west.sh(f"echo 1 > /proc/sys/net/ipv4/ip_forward; {FIXED}; ! [ -e /run/systemd ]")
    before = await sites.state()
    settings = spec(plane="userspace")
    seen = await link.up(settings)
    assert seen.healthy
    assert seen.outputs["plane"].value == "userspace"
    assert await sites.machines["east"].pings("10.2.0.10")
    name = seen.outputs["interface"].value
    await link.provider.stop(settings, link.world.writing())
    await west.sh('nft flush ruleset; WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go wg-quick up "$1"', name)
    assert "admitted" in await west.sh("nft list ruleset"), "the boot artefact needs neither systemd nor sysctl"
    await west.sh('wg-quick down "$1"', name)
    await link.down(settings)
    assert await sites.state() == before


@dataclass
class Weak(Through):
    """A gateway where commands lack the capability to change the network."""

    def _weakly(self, command: Command) -> Command:
        return replace(command, argv=("setpriv", "--bounding-set", "-net_admin", "--", *command.argv))

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        return await self.machine.query(self._weakly(command), on_output)

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        return await self.machine.run(self._weakly(command), on_output)


async def test_a_container_that_lacks_something_is_left_alone_and_told_what(link: Link, sites: GatewayWorld) -> None:
    west = sites.machines["west-gw"]
    before = await sites.state()
    with link.by(Weak(west)), pytest.raises(NotReadyError, match="west-gw may not change its network") as caught:
        await link.up(spec())
    assert "--cap-add NET_ADMIN" in caught.value.hint
    await west.sh("mount -t tmpfs none /dev/net")
    with pytest.raises(NotReadyError, match="west-gw has no /dev/net/tun") as caught:
        await link.up(spec(plane="userspace"))
    assert "--device /dev/net/tun" in caught.value.hint
    await west.sh(f"umount /dev/net; {FIXED}")
    with pytest.raises(NotReadyError, match="does not forward IPv4, and its /proc/sys is read-only") as caught:
        await link.up(spec())
    assert "--sysctl net.ipv4.ip_forward=1" in caught.value.hint
    assert not link.written()
    assert await sites.state() == before


@pytest.mark.parametrize("kind", ["nft", "legacy"])
async def test_dockers_chains_let_the_link_through_and_are_given_back(
    link: Link, sites: GatewayWorld, kind: str
) -> None:
    west_gw, west = sites.machines["west-gw"], sites.machines["west"]
    docker = DockerHost(west_gw, kind)
    await docker.begin()
    for port in (8080, 9090):
        await sites.listen("west", port)

    bare, before = await docker.rules(), await sites.state()
    settings = spec(expect=["10.2.0.10:8080"])
    assert (await link.up(settings)).healthy
    assert len(await docker.opened()) == 2, "one chain is of a family that the link does not carry"
    east = sites.machines["east"]
    assert await east.pings("10.2.0.10")
    assert await west.pings("10.1.0.10")
    with pytest.raises(UnreachableError, match="refused"):
        await east.dial("10.2.0.10", 9090, 3)
    assert (await link.look(settings))[1].action is Action.NONE
    await docker.flush()
    seen, change = await link.look(settings)
    assert [item.address for item in seen.drift] == [f"west-gw: DOCKER-USER of iptables-{kind}"]
    assert change.action is Action.UPDATE
    (found,) = await link.diagnosed(settings)
    assert (found.cause, found.where) == (Cause.FORWARD_DROPPED, "west-gw")
    assert "DOCKER-USER" in found.words
    assert not await east.pings("10.2.0.10")
    assert (await link.provider.apply(settings, change, link.world.writing())).healthy
    await link.down(settings)
    assert (await docker.rules(), await sites.state()) == (bare, before)


async def test_a_filter_of_others_that_drops_what_is_forwarded_is_named(link: Link, sites: GatewayWorld) -> None:
    await sites.listen("west", 8080)
    await sites.machines["west-gw"].sh(
        "nft add table inet theirs; "
        "nft add chain inet theirs way '{ type filter hook forward priority 5; policy drop; }'"
    )
    settings = spec(expect=["10.2.0.10:8080"], ready_within=1)
    with pytest.raises(NotReadyError, match=r"tcp 10\.2\.0\.10:8080 from east-gw"):
        await link.up(settings)
    (found,) = await link.diagnosed(settings)
    assert (found.cause, found.where) == (Cause.FORWARD_DROPPED, "west-gw")
    assert "the chain inet theirs way drops what is forwarded over IPv4" in found.words
    name = plan_ends(settings, link.world.address, sites.hosts, {})[0].interface
    rule = f"nft add rule inet theirs way iifname {name} accept; nft add rule inet theirs way oifname {name} accept"
    await sites.machines["west-gw"].sh(rule)
    assert (await link.look(settings))[0].healthy
    assert not await link.diagnosed(settings)


def end_of(link: Link, settings: WireguardSpec, host: str) -> EndState:
    ends = plan_ends(settings, link.world.address, link.sites.hosts, {})
    return next(end for end in ends if end.host == host)


async def test_a_ruleset_that_locks_everybody_out_is_taken_back_by_the_host_itself(
    link: Link, sites: GatewayWorld
) -> None:
    west, router = sites.machines["west-gw"], sites.machines["router"]
    await sites.listen("west-gw", 2222)
    await link.up(spec())
    before = await sites.state()
    end = end_of(link, spec(), "west-gw")
    config = Secret(await west.sh('cat "/etc/wireguard/$1.conf"', end.interface))

    async def reached() -> bool:
        try:
            await router.dial("198.18.2.2", 2222, 0.3)
        except UnreachableError:
            return False
        return True

    assert await reached()
    wrong = replace(end, firewall=LOCKED_OUT.format(table=end.table), confirm_within=2.0)
    assert (await west.run(prepare_command(wrong, config))).ok
    assert not await reached()
    # Cut off and begun again: the table of the first attempt was never confirmed, and is nothing to go back to.
    assert (await west.run(prepare_command(wrong, config))).ok
    assert not await reached()
    await until(reached, 10)
    late = await west.run(confirm_command(wrong))
    assert late.exit_code == 96
    assert (await link.up(spec())).healthy
    assert await sites.state() == before
    assert not await west.sh("grep -l skyspan-guar[d] /proc/[0-9]*/cmdline || :")


async def test_what_is_not_confirmed_is_taken_back_with_its_routes(link: Link, sites: GatewayWorld) -> None:
    west = sites.machines["west-gw"]
    deaf = LastWords(west, scripts.CONFIRMED)
    empty = await sites.state()
    name = end_of(link, spec(), "west-gw").interface

    async def gone() -> bool:
        return "guard" not in await west.sh("ls /run/skyspan 2>/dev/null || :")

    lost = "west-gw cannot be reached any more since the link's change"
    with link.by(deaf), pytest.raises(UnreachableError, match=lost) as caught:
        await link.up(spec(confirm_within=1.5))
    assert "takes its firewall and the new routes back" in caught.value.hint
    await until(gone, 10)
    assert "skyspan" not in await west.sh("nft list tables")
    assert "UP" not in await west.sh('ip -o link show dev "$1" | cut -d">" -f1', name), "nothing passes unfiltered"
    assert (await link.up(spec())).healthy
    table = await west.sh("nft -s list ruleset")
    wider = spec(east={"prefixes": ["10.1.0.0/24", "10.7.0.0/16"]}, allow=["any"], confirm_within=1.5)
    with link.by(deaf), pytest.raises(UnreachableError):
        await link.up(wider)
    assert "10.7.0.0/16" in await west.sh("ip route show proto 241")
    await until(gone, 10)
    assert await west.sh("nft -s list ruleset") == table
    assert await west.sh("ip route show proto 241 | cut -d' ' -f1") == "10.1.0.0/24\n"
    assert await sites.machines["east"].pings("10.2.0.10"), "the link as it was goes on"
    seen, _ = await link.look(wider)
    assert seen.exists
    assert (await link.up(wider)).healthy
    await link.down(wider)
    assert await sites.state() == empty
