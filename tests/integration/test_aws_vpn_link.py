"""The customer gateway of a cloud-managed VPN in network namespaces: a machine plays the cloud's two tunnel ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from tests.support.cloud_vpn import FACTS, announce, make_world

from skyspan.contracts.transport import Command, Effect
from skyspan.contracts.watch import Cause, Finding, Repair, SupportsWatch
from skyspan.model.change import Action, Change, Observation
from skyspan.model.error import CredentialsError, NotReadyError, SpecError, StageError, UnreachableError
from skyspan.networks.awsvpn.provider import AwsVpnProvider
from skyspan.networks.awsvpn.spec import AwsVpnSpec
from skyspan.networks.awsvpn.tunnels import plan_tunnels
from skyspan.networks.ipsec.message import parse_message, sections_of, text_of
from skyspan.networks.ipsec.spec import Plane
from skyspan.testing.gateway_world import GatewayWorld, Machine
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

FAILOVER_S = 20.0
"""Until traffic goes on through the other tunnel by itself: `dpd`, then 13 s until a dead peer counts as one."""

TOLD_S = 10.0
"""The same when the host is told: what is left is the cloud's own time to see it."""


def spec(facts: dict[str, Any] | None = None, **settings: Any) -> AwsVpnSpec:
    return AwsVpnSpec.model_validate(
        {
            "host": "site-gw",
            "facts": {**FACTS, **(facts or {})},
            "prefixes": ["10.1.0.0/24"],
            "remote": ["10.2.0.0/24"],
            "allow": ["icmp", "tcp/8080"],
            **settings,
        }
    )


@dataclass
class Vpn:
    """A stage in the world, driven as the engine does it."""

    sites: GatewayWorld
    world: ProviderWorld
    provider: AwsVpnProvider = field(default_factory=AwsVpnProvider)

    @property
    def gateway(self) -> Machine:
        return self.sites.machines["site-gw"]

    @property
    def cloud(self) -> Machine:
        return self.sites.machines["cloud-gw"]

    async def look(self, settings: AwsVpnSpec) -> tuple[Observation, Change]:
        ctx = self.world.reading()
        seen = await self.provider.observe(settings, ctx)
        return seen, await self.provider.plan(settings, seen, ctx)

    async def up(self, settings: AwsVpnSpec) -> Observation:
        seen, change = await self.look(settings)
        return await self.provider.apply(settings, change, self.world.writing()) if change.action.changes else seen

    async def down(self, settings: AwsVpnSpec) -> None:
        await self.provider.destroy(settings, self.world.writing())

    async def diagnosed(self, settings: AwsVpnSpec) -> tuple[Finding, ...]:
        return await self.provider.diagnose(settings, self.world.reading())

    async def passes(self, settings: AwsVpnSpec) -> dict[str, bool | None]:
        return {one.target: one.passed for one in await self.provider.probe(settings, self.world.reading())}

    def step(self, name: str) -> Repair:
        return Repair(name, "site-gw")

    async def sessions(self, *, numbers: bool = False) -> dict[int, int]:
        """By tunnel, how many IKE_SAs it has, or the number of the last one."""
        said = await self.gateway.sh("swanctl --list-sas --raw 2>/dev/null | grep ' event ' || :")
        found: dict[int, int] = {}
        for line in said.splitlines():
            for name, session in sections_of(parse_message(line)).items():
                tunnel = int(name[-1])
                found[tunnel] = int(text_of(session, "uniqueid")) if numbers else found.get(tunnel, 0) + 1
        return found

    async def cut(self, *outside: str) -> None:
        """Drop everything to and from these addresses of the cloud."""
        router = self.sites.machines["router"]
        await router.sh("nft add table ip w; nft add chain ip w f '{ type filter hook forward priority 0; }'")
        for address in outside:
            await router.sh(f"nft add rule ip w f ip daddr {address} drop; nft add rule ip w f ip saddr {address} drop")

    async def mend(self) -> None:
        await self.sites.machines["router"].sh("nft delete table ip w")

    async def carrying(self) -> int:
        """The number of the tunnel that carries what the site sends now."""
        before = await self._sent()
        assert await self.sites.machines["site"].pings("10.2.0.10", "-s", "1000")
        after = await self._sent()
        return max(after, key=lambda number: after[number] - before.get(number, 0))

    async def carrying_out(self) -> int:
        """The same while no answer may come back yet."""
        before = await self._sent()
        await self.sites.machines["site"].pings("10.2.0.10", "-s", "1000")
        after = await self._sent()
        return max(after, key=lambda number: after[number] - before.get(number, 0))

    async def _sent(self) -> dict[int, int]:
        said = await self.gateway.sh("swanctl --list-sas --raw 2>/dev/null | grep ' event '")
        found: dict[int, int] = {}
        for line in said.splitlines():
            for name, session in sections_of(parse_message(line)).items():
                for child in sections_of(sections_of(session).get("child-sas", {})).values():
                    found[int(name[-1])] = found.get(int(name[-1]), 0) + int(text_of(child, "bytes-out"))
        return found

    async def silence(self, begun: float) -> float:
        """How long after `begun` the site's pings pass again, three in a row."""
        first, row = begun, 0
        while row < 3:
            assert time.monotonic() < begun + 60, f"nothing passes: {await self.gateway.sh('swanctl --list-sas')}"
            at = time.monotonic()
            row, first = (row + 1, first if row else at) if await self._passes() else (0, at)
        return first - begun

    async def _passes(self) -> bool:
        return await self.sites.machines["site"].pings("10.2.0.10")

    def written(self) -> list[Command]:
        return [command for command in self.world.commands if command.effect is Effect.WRITE]


@pytest.fixture
async def sites() -> AsyncIterator[GatewayWorld]:
    made = await make_world(LocalTransport(ENV))
    yield made
    await made.close()


@pytest.fixture
def vpn(sites: GatewayWorld, tmp_path: Path) -> Vpn:
    return Vpn(sites, ProviderWorld(tmp_path, {"site-gw": sites.machines["site-gw"]}, hosts=sites.hosts))


async def test_the_whole_life_of_a_vpn(vpn: Vpn, sites: GatewayWorld) -> None:
    before = await vpn.gateway.state()
    for name in ("site", "cloud"):
        await sites.listen(name, 8080)
        await sites.listen(name, 9090)
    settings = spec(expect=["10.2.0.10:8080"], ping="10.2.0.10")
    begun = time.monotonic()
    seen = await vpn.up(settings)
    print(f"both tunnels up and proven in {time.monotonic() - begun:.1f} s")
    assert seen.healthy
    assert seen.outputs["plane"].value == "userspace"
    assert "whose keys are newest" in seen.outputs["limit"].value
    assert seen.outputs["up"].value == ["tunnel 1", "tunnel 2"]
    assert await vpn.sessions() == {1: 1, 2: 1}
    site, cloud = sites.machines["site"], sites.machines["cloud"]
    assert await site.pings("10.2.0.10")
    assert await cloud.pings("10.1.0.10")
    await site.dial("10.2.0.10", 8080, 3)
    await cloud.dial("10.1.0.10", 8080, 3)
    for machine, target in ((site, "10.2.0.10"), (cloud, "10.1.0.10")):
        with pytest.raises(UnreachableError, match="refused"):
            await machine.dial(target, 9090, 3)
    assert await vpn.gateway.sh("stat -c %a /etc/swanctl/conf.d/sky-*.conf") == "600\n600\n"

    # What kernels with ESP would get is right for nft, too.
    kernels: tuple[tuple[Plane, AwsVpnSpec], ...] = (("route", spec(bgp={"asn": 65000})), ("policy", spec()))
    for plane, wanted in kernels:
        for end in plan_tunnels(wanted, vpn.world.reading().address, sites.hosts, plane, ip_address("10.1.0.1")):
            await vpn.gateway.sh('printf %s "$1" | nft -c -f -', end.firewall)

    # A second up writes nothing.
    first, written, puts = await vpn.gateway.state(), len(vpn.written()), vpn.world.kept.puts
    assert (await vpn.look(settings))[1].action is Action.NONE
    assert (len(vpn.written()), vpn.world.kept.puts) == (written, puts)
    assert await vpn.gateway.state() == first

    # What may pass changes without new sessions.
    numbers = await vpn.sessions(numbers=True)
    assert (await vpn.up(spec(allow=["icmp", "tcp/9090"]))).healthy
    await site.dial("10.2.0.10", 9090, 3)
    assert await vpn.sessions(numbers=True) == numbers

    # Stopped, nothing leaves in the clear; started, it is as before.
    for _ in range(2):
        await vpn.provider.stop(spec(), vpn.world.writing())
    assert "charon" not in (await vpn.gateway.state()).partition("# processes")[2]
    await vpn.cut()
    await sites.machines["router"].sh("nft add rule ip w f ip daddr 10.2.0.0/24 counter")
    assert not await site.pings("10.2.0.10")
    assert "packets 0 " in await sites.machines["router"].sh("nft list table ip w"), "it left in the clear"
    assert not (await vpn.look(spec()))[0].exists
    assert (await vpn.provider.start(spec(), vpn.world.writing())).healthy
    assert await site.pings("10.2.0.10")
    assert await vpn.sessions() == {1: 1, 2: 1}
    begun = time.monotonic()
    for _ in range(2):
        await vpn.down(spec())
    print(f"taken away in {time.monotonic() - begun:.1f} s")
    assert await vpn.gateway.state() == before


async def test_a_cut_tunnel_is_named_and_traffic_goes_on_through_the_other(vpn: Vpn, sites: GatewayWorld) -> None:
    before = await vpn.gateway.state()
    settings = spec(dpd=1)
    await vpn.up(settings)
    assert isinstance(vpn.provider, SupportsWatch)
    assert not await vpn.diagnosed(settings)
    for helped in (False, True):
        cut = await vpn.carrying()
        begun = time.monotonic()
        await vpn.cut(f"198.18.2.{cut + 1}")
        assert await vpn.passes(settings) == {"tunnel 1": cut != 1, "tunnel 2": cut != 2}
        if helped:
            await vpn.provider.repair(settings, vpn.step("re-initiate"), vpn.world.writing())
            assert await vpn.carrying_out() != cut
        took = await vpn.silence(begun)
        how = "told at once to use the other" if helped else "left alone"
        print(f"tunnel {cut} cut, {how}: traffic goes on after {took:.1f} s")
        assert took < (TOLD_S if helped else FAILOVER_S)
        found = await vpn.diagnosed(settings)
        assert [one.words.partition(":")[0] for one in found] == [f"tunnel {cut}"], found
        with pytest.raises(NotReadyError, match="which carries traffic"):
            await vpn.provider.repair(settings, vpn.step("restart"), vpn.world.writing())
        seen, _ = await vpn.look(settings)
        assert not seen.healthy
        assert f"tunnel {cut}" in seen.reason
        await vpn.mend()
        with contextlib.suppress(StageError):
            await vpn.provider.repair(settings, vpn.step("re-initiate"), vpn.world.writing())
        assert all((await vpn.passes(settings)).values())
        assert await vpn.sessions() == {1: 1, 2: 1}
    await vpn.cut("198.18.2.2", "198.18.2.3")
    assert not any((await vpn.passes(settings)).values())
    found = await vpn.diagnosed(settings)
    assert [one.words.partition(":")[0] for one in found] == ["both tunnels are down"], found
    await vpn.mend()
    await vpn.down(settings)
    assert await vpn.gateway.state() == before


@pytest.mark.parametrize(
    ("breaks", "cause"),
    [
        pytest.param("kill -9 $(cat /run/skyspan/charon.pid)", Cause.DAEMON_DOWN, id="daemon killed"),
        pytest.param("echo 0 > /proc/sys/net/ipv4/ip_forward", Cause.FORWARD_DROPPED, id="forwarding off"),
    ],
)
async def test_trouble_of_the_host_is_named_once_and_repaired_with_one_session_per_tunnel(
    vpn: Vpn, breaks: str, cause: Cause
) -> None:
    await vpn.up(spec())
    await vpn.gateway.sh(breaks)
    assert not any((await vpn.passes(spec())).values())
    assert [one.cause for one in await vpn.diagnosed(spec())] == [cause]
    begun = time.monotonic()
    for step in vpn.provider.repairs(spec(), vpn.world.reading()):
        with contextlib.suppress(StageError):
            await vpn.provider.repair(spec(), step, vpn.world.writing())
        if all((await vpn.passes(spec())).values()):
            break
    print(f"{cause}: repaired by {step.name} in {time.monotonic() - begun:.1f} s")
    assert step.name == "reapply"
    assert await vpn.sessions() == {1: 1, 2: 1}
    assert (await vpn.look(spec()))[1].action is Action.NONE


async def test_a_wrong_key_is_told_with_its_tunnel_and_mended_by_the_right_one(vpn: Vpn, sites: GatewayWorld) -> None:
    before = await vpn.gateway.state()
    wrong = spec({"tunnel2_preshared_key": "not.the.key.of_the_cloud"})
    begun = time.monotonic()
    with pytest.raises(CredentialsError) as caught:
        await vpn.up(wrong)
    print(f"a wrong key is told after {time.monotonic() - begun:.1f} s")
    assert caught.value.summary.startswith("tunnel 2 (198.18.2.3): ")
    assert "aws_vpn_connection" in caught.value.hint
    assert "not.the.key" not in f"{caught.value.summary} {caught.value.detail} {vpn.world.report.lines}"
    found = await vpn.diagnosed(wrong)
    assert [(one.cause, one.words.partition(":")[0]) for one in found] == [(Cause.AUTHENTICATION, "tunnel 2")]
    assert await sites.machines["site"].pings("10.2.0.10"), "the other tunnel carries"
    assert (await vpn.up(spec())).healthy
    assert await vpn.sessions() == {1: 1, 2: 1}

    # What is in the way on the host is told before it is touched.
    await vpn.down(spec())
    await vpn.gateway.sh("ip address add 169.254.20.2/30 dev lan")
    with pytest.raises(SpecError, match=r"169.254.20.2.* is in use on site-gw, by lan") as refused:
        await vpn.up(spec())
    assert "tunnel1_inside_cidr" in refused.value.hint
    await vpn.gateway.sh("ip address delete 169.254.20.2/30 dev lan")
    await vpn.down(spec())
    assert await vpn.gateway.state() == before


async def test_bgp_announces_the_site_learns_the_vpc_and_nothing_else(vpn: Vpn, sites: GatewayWorld) -> None:
    before = await vpn.gateway.state()
    await announce(sites)
    settings = spec(bgp={"asn": 65000}, ping="10.2.0.10")
    begun = time.monotonic()
    seen = await vpn.up(settings)
    print(f"both tunnels and BGP through them up and proven in {time.monotonic() - begun:.1f} s")
    assert seen.healthy
    both = {"tunnel1": ["10.2.0.0/24"], "tunnel2": ["10.2.0.0/24"]}
    assert seen.outputs["bgp_received"].value == {"site-gw": both}
    assert seen.outputs["bgp_sent"].value == {"site-gw": {name: ["10.1.0.0/24"] for name in both}}
    assert seen.outputs["bgp_refused"].value == {"site-gw": {name: ["10.99.0.0/16"] for name in both}}
    assert "10.99." not in await vpn.gateway.sh("ip route show table all")
    assert "10.1.0.0/24" in await vpn.cloud.sh("ip route show table 210")
    assert await sites.machines["site"].pings("10.2.0.10")
    assert (await vpn.look(settings))[1].action is Action.NONE

    # Without the cloud's word the diagnosis names BGP, not the tunnels.
    await vpn.cloud.sh("birdc -s /run/cloud-vpn/bird.ctl disable tunnel1 >/dev/null")
    assert all((await vpn.passes(settings)).values())
    found = await vpn.diagnosed(settings)
    down = [one for one in found if one.cause is not Cause.PREFIX_LEAKED]
    assert down
    assert all("tunnel1" in one.words for one in down), found
    leaked = next(one for one in found if one.cause is Cause.PREFIX_LEAKED)
    assert "10.99.0.0/16" in leaked.words
    assert "`remote`" in leaked.hint
    assert not (await vpn.look(settings))[0].healthy
    await vpn.cloud.sh("birdc -s /run/cloud-vpn/bird.ctl enable tunnel1 >/dev/null")

    # Tunnels without BGP lead nowhere, though their pings pass: that is missed, named and mended.
    assert await vpn.passes(settings) == {"tunnel 1": True, "tunnel 2": True, "BGP": True, "10.2.0.10": True}
    await vpn.gateway.sh("kill -9 $(pgrep -x bird --ns $$ --nslist net)")
    assert (await vpn.passes(settings))["BGP"] is False
    assert [one.cause for one in await vpn.diagnosed(settings)] == [Cause.DAEMON_DOWN]
    await vpn.provider.repair(settings, vpn.step("reapply"), vpn.world.writing())
    await vpn.silence(time.monotonic())
    assert (await vpn.passes(settings))["BGP"]

    # A daemon that dies takes the interface with BGP's addresses along; one step brings all of it back.
    await vpn.gateway.sh("kill -9 $(cat /run/skyspan/charon.pid)")
    await vpn.provider.repair(settings, vpn.step("reapply"), vpn.world.writing())
    assert (await vpn.up(settings)).healthy
    assert await vpn.sessions() == {1: 1, 2: 1}

    # By FRR, which merges both ways into one route; without BGP; then with it anew, after a stop too.
    assert (await vpn.up(spec(bgp={"asn": 65000, "daemon": "frr"}, ping="10.2.0.10"))).healthy
    assert (await vpn.up(spec())).healthy
    assert "/frr/" not in (await vpn.gateway.state()).partition("# processes")[2]
    assert (await vpn.up(settings)).healthy
    await vpn.provider.stop(settings, vpn.world.writing())
    assert "bird" not in (await vpn.gateway.state()).partition("# processes")[2]
    assert (await vpn.provider.start(settings, vpn.world.writing())).healthy
    await vpn.down(settings)
    assert await vpn.gateway.state() == before
