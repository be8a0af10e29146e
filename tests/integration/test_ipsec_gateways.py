"""IPsec links on gateways that may not be lost, and on those where Docker drops what is forwarded."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.support.driven import LOCKED_OUT, DockerHost, LastWords, Through, until
from tests.support.gateways import stage_on
from tests.support.ipsec_rig import Link, spec

from skyspan.contracts.transport import Command, Completed, OnOutput
from skyspan.contracts.watch import Cause
from skyspan.model.change import Action
from skyspan.model.error import UnreachableError
from skyspan.networks.ipsec import scripts
from skyspan.testing.gateway_world import GatewayWorld, Machine

pytestmark = pytest.mark.integration


@pytest.fixture
def link(sites: GatewayWorld, tmp_path: Path) -> Link:
    return Link(sites, stage_on(sites, tmp_path))


@dataclass
class LockedOut(Through):
    """A gateway that gets a firewall by which nobody reaches it any more, and is not told so: as when the engine's host
    is cut off by what it asked for."""

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        script = command.argv[2]
        assert isinstance(script, str)
        if script.endswith(scripts.CONFIRMED):
            raise UnreachableError(f"{self.name} does not answer")
        assert script.endswith(scripts.CONVERGE)
        argv = tuple(
            LOCKED_OUT.format(table=text.split()[2])
            if isinstance(text, str) and text.startswith("table inet ")
            else text
            for text in command.argv
        )
        return await self.machine.run(replace(command, argv=argv), on_output)


async def files_of(machine: Machine) -> str:
    return await machine.sh("cat /etc/swanctl/conf.d/sky-*.conf; ip -o address show dev lo; nft -s list ruleset")


async def test_what_is_not_confirmed_is_taken_back_with_its_connection(link: Link, sites: GatewayWorld) -> None:
    west, router = sites.machines["west-gw"], sites.machines["router"]
    await sites.listen("west-gw", 2222)
    empty = await sites.state()

    async def reached() -> bool:
        try:
            await router.dial("198.18.2.2", 2222, 0.3)
        except UnreachableError:
            return False
        return True

    async def gone() -> bool:
        return "guard" not in await west.sh("ls /run/skyspan 2>/dev/null || :")

    # There was no link: there is none, and the daemon that was started for it has ended.
    assert await reached()
    with link.by(LockedOut(west)), pytest.raises(UnreachableError, match="since the link's change") as caught:
        await link.up(spec(confirm_within=3))
    assert "takes its firewall, the connection and the new routes back" in caught.value.hint
    assert not await reached()
    begun = time.monotonic()
    await until(reached, 10)
    print(f"reached again {time.monotonic() - begun:.1f} s later")
    await until(gone, 10)
    assert "skyspan" not in await west.sh("nft list tables")
    assert "charon" not in (await west.state()).partition("# processes")[2]
    assert "sky-" not in await west.sh("find /etc/swanctl /etc/strongswan.d")
    assert "10.255" not in await west.sh("ip -o address show; ip route show table all")
    late = await west.run(Command(("sh", "-euc", scripts.PLACES + scripts.CONFIRMED, "x", *(await names(west)))))
    assert late.exit_code == 96
    assert (await link.up(spec())).healthy

    # There was one: it goes on, with its prefixes and its filter.
    stood = await files_of(west)
    wider = spec(east={"prefixes": ["10.1.0.0/24", "10.7.0.0/16"]}, allow=["any"], tunnel="10.254.0.0/31")
    hasty = wider.model_copy(update={"confirm_within": 3.0})
    with link.by(LastWords(west, scripts.CONFIRMED)), pytest.raises(UnreachableError):
        await link.up(hasty)
    assert "10.7.0.0/16" in await files_of(west)
    await until(gone, 10)
    assert await files_of(west) == stood
    assert "10.7.0.0/16" not in await west.sh("ip route show table all; swanctl --list-conns 2>/dev/null")
    assert (await link.up(spec())).healthy
    assert await sites.machines["east"].pings("10.2.0.10")
    await link.assert_one_session()

    # A stop before the time is over stays one.
    with link.by(LastWords(west, scripts.CONFIRMED)), pytest.raises(UnreachableError):
        await link.up(hasty.model_copy(update={"confirm_within": 1.5}))
    await link.provider.stop(wider, link.world.writing())
    await until(gone, 10)
    assert "charon" not in (await west.state()).partition("# processes")[2]
    assert "10.7.0.0/16" not in await west.sh("nft list ruleset")
    assert not await west.sh("grep -l skyspan-guar[d] /proc/[0-9]*/cmdline || :")
    await link.down(wider)
    assert await sites.state() == empty


async def names(machine: Machine) -> tuple[str, str, str]:
    """Name, owner and table of the link there."""
    name = (await machine.sh("ls /var/lib/skyspan/links")).strip()
    return name, (await machine.sh("cat /var/lib/skyspan/links/*/owner")).strip(), f"skyspan-{name}"


async def test_dockers_chains_let_the_link_through_and_are_given_back(link: Link, sites: GatewayWorld) -> None:
    east, west = sites.machines["east"], sites.machines["west"]
    docker = DockerHost(sites.machines["west-gw"], "nft")
    await docker.begin()
    for port in (8080, 9090):
        await sites.listen("west", port)
    bare, before = await docker.rules(), await sites.state()
    settings = spec(expect=["10.2.0.10:8080"])
    assert (await link.up(settings)).healthy
    opened = await docker.opened()
    assert len(opened) == 4, "in and out, for the prefix and for the other gateway"
    assert all("ipsec0" in rule and ("10.1.0.0/24" in rule or "10.255." in rule) for rule in opened), opened
    assert await east.pings("10.2.0.10")
    assert await west.pings("10.1.0.10")
    with pytest.raises(UnreachableError, match="refused"):
        await east.dial("10.2.0.10", 9090, 3)
    assert (await link.look(settings))[1].action is Action.NONE

    # Docker that begins anew drops the link's traffic: seen, named, mended.
    await docker.flush()
    seen, change = await link.look(settings)
    assert [item.address for item in seen.drift] == ["west-gw: DOCKER-USER of iptables-nft"]
    # What others drop is named beside it, and left to them.
    gateway = sites.machines["west-gw"]
    drops = "nft add table ip w; nft add chain ip w f '{ type filter hook forward priority 5; policy drop; }'"
    await gateway.sh(drops)
    dockers, theirs = await link.diagnosed(settings)
    assert {(found.cause, found.where) for found in (dockers, theirs)} == {(Cause.FORWARD_DROPPED, "west-gw")}
    assert "DOCKER-USER of iptables-nft does not let the link" in dockers.words
    assert "the chain ip w f drops what is forwarded over IPv4" in theirs.words
    assert "10.1.0.0/24 in both directions" in theirs.hint
    await gateway.sh("nft delete table ip w")
    assert not await east.pings("10.2.0.10")
    assert (await link.provider.apply(settings, change, link.world.writing())).healthy
    assert await docker.opened() == opened

    # Other prefixes, other rules, and none of those before.
    other = spec(east={"prefixes": ["10.1.0.0/25"]})
    await gateway.sh(drops)
    assert (await link.up(other)).healthy
    assert any("the chain ip w f drops" in line for line in link.world.report.lines)
    await gateway.sh("nft delete table ip w")
    assert {"10.1.0.0/24" in rule for rule in await docker.opened()} == {False}
    assert len(await docker.opened()) == 4
    assert (await link.look(other))[1].action is Action.NONE
    await link.down(other)
    assert (await docker.rules(), await sites.state()) == (bare, before)
