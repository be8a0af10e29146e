"""An IPsec link between two sites in network namespaces, with real daemons, traffic and faults."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.support.driven import Through, assert_cut_off_is_healed
from tests.support.gateways import stage_on
from tests.support.ipsec_rig import Link, spec

from skyspan.contracts.context import Clock
from skyspan.contracts.transport import Command, Completed, OnOutput
from skyspan.contracts.watch import Cause, SupportsWatch
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Action
from skyspan.model.error import (
    CredentialsError,
    NotReadyError,
    SpecError,
    StageError,
    ToolMissingError,
    UnreachableError,
)
from skyspan.model.secret import Secret
from skyspan.networks.ipsec.certificates import DAY_S, new_ca
from skyspan.testing.gateway_world import GatewayWorld
from skyspan.testing.provider_world import RealClock

pytestmark = pytest.mark.integration

REPAIRED_S = 10.0
"""What repairing a link may take, probing included."""

KILL = "kill -9 $(cat /run/skyspan/charon.pid)"
NAME = "$(ls /var/lib/skyspan/links)"


@dataclass
class Shifted:
    """A clock that is some days off."""

    days: float
    real: Clock = field(default_factory=RealClock)

    def now(self) -> float:
        return self.real.now() + self.days * DAY_S

    def monotonic(self) -> float:
        return self.real.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self.real.sleep(seconds)


@pytest.fixture
def link(sites: GatewayWorld, tmp_path: Path) -> Link:
    return Link(sites, stage_on(sites, tmp_path))


async def test_the_whole_life_of_a_link(link: Link, sites: GatewayWorld) -> None:
    before = await sites.state()
    for name in ("east", "west", "west-gw"):
        await sites.listen(name, 8080)
        await sites.listen(name, 9090)
    seen = await link.up(spec(expect=["10.2.0.10:8080"]))
    assert seen.healthy
    assert seen.outputs["planes"].value == {"east-gw": "userspace", "west-gw": "userspace"}
    assert seen.outputs["initiator"].value == "east-gw"
    await link.assert_one_session()
    east, west = sites.machines["east"], sites.machines["west"]
    assert await east.pings("10.2.0.10")
    assert await west.pings("10.1.0.10")
    for machine, target in ((east, "10.2.0.10"), (west, "10.1.0.10"), (east, "10.2.0.1")):
        await machine.dial(target, 8080, 3)
        with pytest.raises(UnreachableError, match="refused"):
            await machine.dial(target, 9090, 3)
    for gateway in sites.gateways.values():
        assert await gateway.sh("stat -c %a /etc/swanctl/conf.d/sky-*.conf") == "600\n"

    # A second up writes nothing.
    first, written, puts = await sites.state(), len(link.written()), link.world.kept.puts
    _, change = await link.look(spec(expect=["10.2.0.10:8080"]))
    assert change.action is Action.NONE
    assert (len(link.written()), link.world.kept.puts) == (written, puts)
    assert await sites.state() == first

    # What may pass changes without the session.
    sessions = [await link.sessions(name) for name in sites.gateways]
    assert (await link.up(spec(allow=["icmp", "tcp/9090"]))).healthy
    await east.dial("10.2.0.10", 9090, 3)
    assert [await link.sessions(name) for name in sites.gateways] == sessions

    # Another shared key makes another session, one again.
    assert (await link.up(spec(psk=Secret("quite another key, not made here")))).healthy
    await link.assert_one_session()
    assert [await link.sessions(name) for name in sites.gateways] != sessions
    await link.down(spec())
    assert await sites.state() == before


async def test_stop_ends_the_session_without_a_leak_and_start_brings_it_back(link: Link, sites: GatewayWorld) -> None:
    before = await sites.state()
    await link.up(spec())
    kept = dict(link.world.kept.data)
    for _ in range(2):
        await link.provider.stop(spec(), link.world.writing())
    for machine in sites.gateways.values():
        state = await machine.state()
        assert "charon" not in state.partition("# processes")[2]
        assert "/etc/swanctl/conf.d/sky-" not in state
    await sites.machines["router"].sh(
        "nft add table ip w; nft add chain ip w f '{ type filter hook forward priority 0; }'"
    )
    await sites.machines["router"].sh("nft add rule ip w f ip daddr 10.2.0.0/24 counter")
    assert not await sites.machines["east"].pings("10.2.0.10")
    assert "packets 0 " in await sites.machines["router"].sh("nft list table ip w"), "it left in the clear"
    assert not (await link.look(spec()))[0].exists
    for _ in range(2):
        assert (await link.provider.start(spec(), link.world.writing())).healthy
    assert link.world.kept.data == kept, "with the keys it had"
    assert await sites.machines["east"].pings("10.2.0.10")
    await link.assert_one_session()
    await link.down(spec())
    assert await sites.state() == before


async def test_certificates_join_are_renewed_in_time_and_told_when_expired(link: Link, sites: GatewayWorld) -> None:
    before = await sites.state()
    settings = spec(auth="certificates", certificate_days=90)
    link.world.clock = Shifted(-100)
    with pytest.raises(CredentialsError) as caught:
        await link.up(settings)
    assert "certificate expired 10.0 days ago" in caught.value.summary
    link.world.clock = RealClock()
    assert (await link.up(settings)).healthy, "what is expired is renewed"
    await link.down(settings)
    link.world.clock = Shifted(-61)
    assert (await link.up(settings)).healthy
    first = link.world.kept.data["link"]
    link.world.clock = RealClock()
    seen, change = await link.look(settings)
    assert seen.healthy, "29 days are left"
    assert {item.address.partition(": ")[2].partition(" ")[0] for item in seen.drift} == {"certificate"}
    assert change.action is Action.UPDATE
    seen = await link.up(settings)
    assert seen.healthy
    assert link.world.kept.data["link"] != first
    assert (await link.look(settings))[1].action is Action.NONE
    await link.assert_one_session()
    await link.down(settings)
    assert await sites.state() == before


async def test_what_breaks_a_link_is_named_and_repaired_with_one_session(link: Link, sites: GatewayWorld) -> None:
    before = await sites.state()
    await link.up(spec())
    assert isinstance(link.provider, SupportsWatch)
    assert not await link.diagnosed(spec())

    # Daemons that were killed.
    for victims in (("west-gw",), ("east-gw",), ("east-gw", "west-gw")):
        for victim in victims:
            await sites.machines[victim].sh(KILL)
        found = await link.diagnosed(spec())
        assert [(one.cause, one.where) for one in found] == [(Cause.DAEMON_DOWN, victim) for victim in victims]
        step, took = await link.repaired(spec())
        print(f"{' and '.join(victims)} killed: repaired by {step} in {took:.1f} s")
        assert took < REPAIRED_S
        await link.assert_one_session()
        assert (await link.look(spec()))[1].action is Action.NONE

    # A cut between the sites.
    router = sites.machines["router"]
    await router.wire("ip link set west down")
    assert not await link.passes(spec())
    found = await link.diagnosed(spec())
    assert found[0].cause in (Cause.UNREACHABLE, Cause.HANDSHAKE_MISSING)
    await router.wire("ip link set west up")
    begun = time.monotonic()
    while not await link.passes(spec()):
        await RealClock().sleep(0.2)
        assert time.monotonic() - begun < REPAIRED_S
    await link.assert_one_session()

    # A gateway that answers itself and passes nothing on.
    for victim in sites.gateways:
        await sites.machines[victim].sh("echo 0 > /proc/sys/net/ipv4/ip_forward")
        assert not await link.passes(spec())
        found = await link.diagnosed(spec())
        assert [(one.cause, one.where) for one in found] == [(Cause.FORWARD_DROPPED, victim)]
        step, _ = await link.repaired(spec())
        assert step == f"reapply {victim}", "the session is left alone"
    await link.assert_one_session()

    await link.down(spec())
    assert await sites.state() == before


async def test_a_side_that_forgot_the_session_is_called_again(link: Link, sites: GatewayWorld) -> None:
    await link.up(spec())
    restart = f"{KILL}; sleep 0.3; rm -f /run/charon.*; setsid /usr/lib/ipsec/charon >/dev/null 2>&1 & sleep 1"
    await sites.machines["west-gw"].sh(f"{restart}; swanctl --load-all --noprompt >/dev/null 2>&1")
    found = await link.diagnosed(spec())
    assert [one.cause for one in found] == [Cause.HANDSHAKE_MISSING]
    assert "no longer knows the session that east-gw still holds" in found[0].words
    step, took = await link.repaired(spec())
    assert (step, took < REPAIRED_S) == ("re-initiate east-gw", True)
    await link.assert_one_session()


async def test_two_sessions_are_named_and_made_one(link: Link, sites: GatewayWorld) -> None:
    await link.up(spec())
    conf = "/etc/swanctl/conf.d/sky-*.conf"
    for machine in sites.gateways.values():
        await machine.sh(f"sed -i s/unique.=.replace/unique=never/ {conf}; swanctl --load-conns")
    await sites.machines["west-gw"].sh(f"swanctl --initiate --ike {NAME} --child net --timeout 5")
    for machine in sites.gateways.values():
        await machine.sh(f"sed -i 's/unique=never/unique = replace/' {conf}")
    seen, change = await link.look(spec())
    assert "2 at once" in seen.reason
    assert not seen.drifted, "every file is as it was"
    assert change.action is Action.UPDATE
    assert {one.cause for one in await link.diagnosed(spec())} == {Cause.DUPLICATE_SAS}
    assert (await link.up(spec())).healthy
    await link.assert_one_session()


@dataclass
class Altered(Through):
    """A gateway that gets other files than those sent to it."""

    alter: Callable[[str], str]

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        if isinstance(command.stdin, Secret):
            sent = command.stdin.reveal()
            command = replace(command, stdin=Secret(self.alter(sent)))
            assert command.stdin != Secret(sent), "it is altered"
        return await self.machine.run(command, on_output)


def by_another_ca(text: str) -> str:
    other = new_ca("other", time.time()).certificate
    return re.sub(r"(?s)(@skyspan-file ca\n).*(?=@skyspan-file session)", lambda found: found[1] + other, text)


WRONG: dict[str, tuple[str, Callable[[str], str], type[StageError], str]] = {
    "key": (
        "psk",
        lambda text: text.replace("secret = 0s", "secret = 0sAA"),
        CredentialsError,
        "has another shared key",
    ),
    "identity": (
        "psk",
        lambda text: text.replace(' id = "east-gw', ' id = "someone'),
        CredentialsError,
        "knows no connection",
    ),
    "proposal": (
        "psk",
        lambda text: re.sub("( proposals = ).*", r"\1aes128-sha512-modp3072", text),
        NotReadyError,
        "no proposal in common",
    ),
    "prefixes": (
        "psk",
        lambda text: text.replace("local_ts = 10.2.0.0/24", "local_ts = 10.3.0.0/24"),
        NotReadyError,
        "did not agree on 10.2.0.0/24",
    ),
    "certificate": ("certificates", by_another_ca, CredentialsError, "is not trusted"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_the_gateways_refuse_each_other_for_is_said(link: Link, sites: GatewayWorld, what: str) -> None:
    auth, alter, kind, words = WRONG[what]
    right = dict(link.world.transports)
    link.world.transports = {**right, "west-gw": Altered(sites.machines["west-gw"], alter)}
    with pytest.raises(StageError) as caught:
        await link.up(spec(auth=auth, ready_within=4))
    assert type(caught.value) is kind, caught.value
    assert words in caught.value.summary
    assert caught.value.hint
    link.world.transports = right
    assert (await link.up(spec(auth=auth))).healthy
    await link.assert_one_session()


DRIFTS = {
    "connection": "sed -i 's/dpd_delay = 5s/dpd_delay = 9s/' /etc/swanctl/conf.d/sky-*.conf",
    "address": "ip address delete $(cat /var/lib/skyspan/links/*/addresses) dev lo",
    "firewall": f"nft add rule inet skyspan-{NAME} admitted tcp dport 9090 accept",
    "forwarding": "echo 0 > /proc/sys/net/ipv4/ip_forward",
}


async def test_drift_is_seen_named_and_repaired(link: Link, sites: GatewayWorld) -> None:
    await link.up(spec())
    before = await sites.state()
    for resource, script in DRIFTS.items():
        await sites.machines["west-gw"].sh(script)
        seen, change = await link.look(spec())
        assert [item.address.partition(" ")[0::2] for item in seen.drift if resource in item.address], resource
        assert all(item.address.startswith("west-gw") for item in seen.drift), "the other side is as it was"
        assert change.resources == seen.drift
        assert (await link.up(spec())).healthy
        assert await sites.state() == before, resource


async def test_a_hole_for_large_packets_is_named(link: Link, sites: GatewayWorld) -> None:
    await sites.machines["router"].sh(
        "nft add table ip hole; nft add chain ip hole out '{ type filter hook forward priority 0; }'; "
        "nft add rule ip hole out ip length \\> 1300 drop"
    )
    with pytest.raises(NotReadyError, match=r"packets of 1400 bytes from .*: lost"):
        await link.up(spec(ready_within=2))
    assert {one.cause for one in await link.diagnosed(spec())} == {Cause.MTU_HOLE}
    assert (await link.up(spec(mtu=1200))).healthy


async def test_rekeying_loses_nothing(link: Link, sites: GatewayWorld) -> None:
    await link.up(spec(rekey=3))
    sent = await sites.machines["east"].sh("ping -n -q -i 0.02 -c 220 10.2.0.10")
    assert " 0% packet loss" in sent
    held = await sites.machines["east-gw"].sh("swanctl --list-sas 2>/dev/null | grep net:")
    assert "#2," in held, "there are new keys"
    assert not re.search("#1, .*INSTALLED", held), "and the first ones are in use no more"
    assert len(await link.sessions("east-gw")) == 1


async def test_a_side_behind_nat_calls(link: Link, sites: GatewayWorld) -> None:
    rules = 'table ip nat { chain post { type nat hook postrouting priority 100; oifname "east" masquerade; }; }'
    await sites.machines["router"].sh('printf "%s" "$1" | nft -f -', rules)
    settings = spec(west={"nat": True})
    seen = await link.up(settings)
    assert seen.healthy
    assert seen.outputs["initiator"].value == "west-gw"
    assert "remote_addrs" not in await sites.machines["east-gw"].sh("cat /etc/swanctl/conf.d/*.conf")
    await link.assert_one_session()


SYSTEMCTL = r"""#!/bin/sh
echo "$*" >> /run/calls
case "$*" in
  "cat strongswan.service") ;;
  cat*) exit 1;;
  "is-enabled -q strongswan") [ -e /run/enabled ];;
  "enable -q strongswan") touch /run/enabled;;
  "disable -q strongswan") rm /run/enabled;;
  "restart strongswan" | "stop strongswan")
    if [ -e /run/charon.pid ]; then kill $(cat /run/charon.pid); while [ -e /run/charon.pid ]; do sleep 0.05; done; fi
    rm -f /run/charon.*
    if [ "$1" = restart ]; then setsid /usr/lib/ipsec/charon >/dev/null 2>&1 </dev/null 9<&- & fi;;
esac
"""
"""What stands in for systemd, which runs in no namespace: it knows one service."""

WITH_SYSTEMD = """
mkdir -p /run/systemd/system; mount -t tmpfs none /usr/local/sbin; mount -t tmpfs none /etc/systemd
mkdir -p /etc/systemd/system
printf '%s' "$1" > /usr/local/sbin/systemctl; chmod +x /usr/local/sbin/systemctl
"""


async def test_with_a_service_manager_the_link_comes_back_at_boot(link: Link, sites: GatewayWorld) -> None:
    west = sites.machines["west-gw"]
    await west.sh(WITH_SYSTEMD, SYSTEMCTL)
    before = await sites.state()
    assert (await link.up(spec())).healthy
    assert (await link.look(spec()))[1].action is Action.NONE
    assert "enable -q strongswan\nrestart strongswan\n" in await west.sh("cat /run/calls")
    assert "/run/skyspan/charon.pid" not in await west.state(), "it is the service manager's"
    up = await west.state()
    # As after a reboot: what is not on disk is gone, and the unit does what its file says.
    await west.sh("nft flush ruleset; echo 0 > /proc/sys/net/ipv4/ip_forward")
    await west.sh("for a in $(cat /var/lib/skyspan/links/*/addresses); do ip address delete $a dev lo; done")
    await west.sh("sh -c \"$(sed -n 's/^ExecStart=//p' /etc/systemd/system/skyspan-*.service)\"")
    assert await west.state() == up
    await link.passes(spec())
    await link.down(spec())
    calls = await west.sh("cat /run/calls; ls /etc/systemd/system /run/enabled 2>/dev/null || :; rm -f /run/calls")
    assert "stop strongswan\ndisable -q strongswan\n" in calls
    assert "skyspan-" not in calls.splitlines()[-1]
    assert await sites.state() == before


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


THEIRS = """
connections { theirs { remote_addrs = 192.0.2.1
 local { auth = psk } remote { auth = psk } children { net { } } } }
secrets { ike-theirs { secret = theirs-alone } }
"""

RUN_THEIRS = """
printf '%s' "$1" > /etc/swanctl/conf.d/theirs.conf
sed -i 's/load = no/load = yes/' /etc/strongswan.d/charon/kernel-libipsec.conf
setsid /usr/lib/ipsec/charon >/dev/null 2>&1 </dev/null &
until swanctl --stats >/dev/null 2>&1; do sleep 0.05; done
swanctl --load-all --noprompt >/dev/null 2>&1
"""


async def test_a_daemon_of_others_and_its_connections_stay(link: Link, sites: GatewayWorld) -> None:
    west = sites.machines["west-gw"]
    await west.sh(RUN_THEIRS, THEIRS)
    before = await sites.state()
    assert (await link.up(spec())).healthy
    assert "theirs" in await west.sh("swanctl --list-conns 2>/dev/null")
    await link.down(spec())
    assert await sites.state() == before
    assert "theirs" in await west.sh("swanctl --list-conns 2>/dev/null")
    # One that is in no file would be lost by loading ours.
    await west.sh("rm /etc/swanctl/conf.d/theirs.conf")
    with pytest.raises(SpecError, match="it would take a connection of others out of the daemon"):
        await link.up(spec())
    assert "theirs" in await west.sh("swanctl --list-conns 2>/dev/null")
    await link.down(spec())


async def test_a_daemon_of_others_that_does_not_answer_is_left_alone(link: Link, sites: GatewayWorld) -> None:
    west = sites.machines["west-gw"]
    await west.sh(RUN_THEIRS, THEIRS)
    await west.sh("kill -STOP $(cat /run/charon.pid); mv /run/charon.vici /run/theirs")
    before = await west.state()
    with pytest.raises(StageError, match="making the link's end on west-gw failed") as caught:
        await link.up(spec())
    assert "a charon of others runs and does not answer" in caught.value.detail
    await link.down(spec())
    assert await west.state() == before


async def test_two_links_share_a_gateway_and_its_daemon(link: Link, sites: GatewayWorld, tmp_path: Path) -> None:
    before = await sites.state()
    address = DeploymentAddress("default", "proof").stage("second")
    other = Link(sites, stage_on(sites, tmp_path / "other", address=address))
    second = spec(east={"prefixes": ["10.11.0.0/24"]}, west={"prefixes": ["10.12.0.0/24"]})
    await link.up(spec())
    session = await link.sessions("east-gw")
    assert (await other.up(second)).healthy
    assert session[0] in await link.sessions("east-gw"), "the first link's session stays"
    assert (await link.look(spec()))[1].action is Action.NONE
    await link.down(spec())
    assert (await other.look(second))[1].action is Action.NONE
    await other.down(second)
    assert await sites.state() == before


TAKEN = {
    "a file": ("echo theirs > /etc/swanctl/conf.d/@name@.conf", "is taken on west-gw"),
    "the tunnel's address": ("ip address add 10.254.0.1/32 dev lan", "10.254.0.1/32 is in use on west-gw, by lan"),
    "a connected network": ("ip address add 10.1.0.77/24 dev lan", "take over the connected network 10.1.0.0/24"),
    "a route": ("ip route add 10.1.0.0/24 via 198.18.2.1 proto static", "already routed over eth0 (proto static)"),
}


@pytest.mark.parametrize("what", TAKEN)
async def test_what_is_somebody_elses_is_refused_and_not_touched(link: Link, sites: GatewayWorld, what: str) -> None:
    script, words = TAKEN[what]
    settings = spec(tunnel="10.254.0.0/31")
    name = (await link.look(settings))[1].outputs["name"].value
    await sites.machines["west-gw"].sh(script.replace("@name@", str(name)))
    before = await sites.state()
    with pytest.raises(SpecError) as caught:
        await link.up(settings)
    assert words in caught.value.summary
    assert caught.value.hint
    assert await sites.state() == before, "nothing was touched"
    await link.down(settings)
    assert await sites.state() == before, "destroy leaves what is not ours alone"


async def test_a_missing_tool_or_plane_names_host_and_package(link: Link, sites: GatewayWorld) -> None:
    west = sites.machines["west-gw"]
    with pytest.raises(ToolMissingError, match="east-gw cannot carry the link by `mode: route`; it has: userspace"):
        await link.up(spec(mode="route"))
    await west.sh("mount --bind /dev/null $(command -v swanctl)")
    with pytest.raises(ToolMissingError, match="west-gw has no swanctl") as caught:
        await link.up(spec())
    assert "strongswan-swanctl" in caught.value.hint


async def test_a_script_cut_off_at_any_step_is_healed_and_removed(link: Link, sites: GatewayWorld) -> None:
    for at in range(1, 9):
        await assert_cut_off_is_healed(link, spec(), (sites, "west-gw"), at, heals=[bool(at % 2)])
