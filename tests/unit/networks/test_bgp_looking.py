"""What speakers say of themselves, as recorded from real daemons: what differs, what is ready, what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from skyspan.contracts.host import Host
from skyspan.contracts.transport import Command, Completed, Effect
from skyspan.contracts.watch import Cause, Repair
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Action
from skyspan.model.error import NotReadyError, SpecError, ToolFailedError, ToolMissingError, UnreachableError
from skyspan.model.secret import Secret
from skyspan.networks.bgp import bird, commands, diagnosis, frr
from skyspan.networks.bgp.compare import (
    LOWEST_METRIC,
    Made,
    differences,
    peer_lines,
    refuse_collisions,
    refuse_missing_tools,
    settle,
)
from skyspan.networks.bgp.parse import Heard, NextHop, Survey, parse_survey
from skyspan.networks.bgp.provider import BgpProvider
from skyspan.networks.bgp.ready import Way, legs_of, ping_legs, sites_of, ways_between
from skyspan.networks.bgp.speaking import Instance, plan_instances
from skyspan.networks.bgp.spec import BgpSpec
from skyspan.networks.bgp.watch import SESSION_S
from skyspan.networks.looking import digest_of
from skyspan.networks.peers import Route
from skyspan.testing.provider_world import ProviderWorld, ScriptedTransport, SteppingClock

RECORDED = Path(__file__).parent / "recorded"
ADDRESS = DeploymentAddress("default", "proof").stage("stage")
HOSTS = {"east-gw": Host("east-gw", "198.18.1.2"), "west-gw": Host("west-gw", "198.18.2.2")}
SPEAKERS: list[dict[str, Any]] = [
    {"host": "east-gw", "asn": 64512, "announce": ["10.1.0.0/24"]},
    {"host": "west-gw", "asn": 64513, "announce": ["10.2.0.0/24"]},
]
OVER = {"interface": "wg-lab", "addresses": {"east-gw": ["10.255.0.0/31"], "west-gw": ["10.255.0.1/31"]}}


def spec(**settings: Any) -> BgpSpec:
    return BgpSpec.model_validate({"speakers": SPEAKERS, "over": OVER, "max_prefixes": 5} | settings)


def pair(settings: BgpSpec) -> tuple[Instance, Instance]:
    one, other = plan_instances(settings, ADDRESS, HOSTS)
    return one, other


EAST, WEST = pair(spec(speakers=[SPEAKERS[0] | {"daemon": "bird"}, SPEAKERS[1] | {"daemon": "frr"}]))


def recorded(name: str) -> str:
    return (RECORDED / f"bgp_{name}.txt").read_text()


def survey(name: str) -> Survey:
    return parse_survey(recorded(name), EAST if name.startswith("bird") else WEST)


def heard(name: str) -> Heard:
    return next(iter(survey(name).heard.values()))


@pytest.mark.parametrize(
    ("name", "learned", "told"), [("bird", "10.2.0.0/24", "10.1.0.0/24"), ("frr", "10.1.0.0/24", "10.2.0.0/24")]
)
def test_a_running_session_is_read(name: str, learned: str, told: str) -> None:
    seen = survey(f"{name}_ready")
    assert seen.alive
    assert (seen.owner, seen.daemon) == ("default/proof/stage", name)
    assert heard(f"{name}_ready") == Heard("Established", "", True, frozenset({learned}), frozenset({told}))
    assert seen.next_hops[learned.replace("0/24", "1")].device == "wg-lab"
    assert seen.device_of("10.255.0.0" if name == "bird" else "10.255.0.1") == "wg-lab"
    assert [len(peers) for peers in seen.allowed.values()] == [1]


@pytest.mark.parametrize("name", ["bird", "frr"])
def test_what_was_refused_is_read(name: str) -> None:
    assert heard(f"{name}_leak").refused == {"10.66.0.0/16"}
    assert heard(f"{name}_leak").established


def test_a_session_closed_for_its_flood_is_read() -> None:
    assert heard("frr_flood").state == "Idle"
    assert "max_prefixes" in heard("frr_flood").error
    assert not heard("bird_flood").established


def test_what_birds_client_says_of_a_hit_limit_is_read() -> None:
    text = """\
BIRD 2.0.12 ready.
Name       Proto      Table      State  Since         Info
peer_10_255_0_1 BGP   ---        start  16:35:01.123  Active        Receive limit: [HIT]
  BGP state:          Active
    Neighbor address: 10.255.0.1%wg-lab
    Last error:       Automatic shutdown: Route limit exceeded
  Channel ipv4
    State:          DOWN
    Receive limit:  5 [HIT]
      Action:       restart
other_one  BGP        ---        start  16:35:01.123  Connect       Socket: Connection refused
  BGP state:          Connect
    Last error:       Socket: Connection refused
"""
    found = bird.read_sessions(text)
    assert found["peer_10_255_0_1"][0] == "Active"
    assert "max_prefixes" in found["peer_10_255_0_1"][1]
    assert found["other_one"] == ("Connect", "Socket: Connection refused")


def test_bfd_of_both_ip_versions_is_read() -> None:
    text = """\
BIRD 2.0.12 ready.
bfd1:
IP address                Interface  State      Since         Interval  Timeout
10.255.0.1                wg-lab     Up         16:52:44.960    0.300    1.500
fd5b::1                   wg-lab     Down       16:52:44.960    1.000    0.000
"""
    assert bird.read_bfd(text) == {"10.255.0.1": True, "fd5b::1": False}
    assert bird.read_bfd("BIRD 2.0.12 ready.\nThere is no BFD protocol running\n") == {}
    assert frr.read_bfd("") == {}


@pytest.mark.parametrize("text", ["", "{}", "% No such neighbor or address family\n"])
def test_where_frr_has_nothing_nothing_is_read(text: str) -> None:
    assert frr.read_routes(text) == frozenset()
    assert frr.read_sessions(text, text) == {}


def test_ready_sessions_have_only_legs_that_hold() -> None:
    legs = tuple(legs_of((EAST, WEST), (survey("bird_ready"), survey("frr_ready"))))
    assert [leg.reason for leg in legs] == [""] * 12
    assert [leg.name for leg in legs][:4] == [
        "bird of east-gw",
        "frr of west-gw",
        "session of east-gw with west-gw (10.255.0.1)",
        "what east-gw learns from west-gw",
    ]


def altered(name: str, **changes: Any) -> Survey:
    """A recorded survey with another word of its session."""
    seen = survey(name)
    session = next(iter(seen.heard))
    return replace(seen, heard={session: replace(seen.heard[session], **changes)})


LEGS: dict[str, tuple[Survey, str]] = {
    "dead": (replace(survey("bird_ready"), alive=False, heard={}), "bird of east-gw: it does not run"),
    "refused": (
        altered("bird_ready", state="Connect", error="Connection refused"),
        "session of east-gw with west-gw (10.255.0.1): Connect: Connection refused",
    ),
    "fewer": (altered("bird_ready", received=frozenset()), "what east-gw learns from west-gw: without 10.2.0.0/24"),
    "more": (
        altered("bird_ready", sent=frozenset({"10.1.0.0/24", "10.7.0.0/16"})),
        "what east-gw tells west-gw: also 10.7.0.0/16",
    ),
    "BFD": (altered("bird_ready", bfd=False), "BFD of east-gw with west-gw: down"),
    "elsewhere": (
        replace(survey("bird_ready"), next_hops={"10.2.0.1": NextHop("eth0", "198.18.1.1")}),
        "way of east-gw to 10.2.0.0/24: over eth0, not over wg-lab",
    ),
    "nowhere": (replace(survey("bird_ready"), next_hops={}), "way of east-gw to 10.2.0.0/24: the kernel has none"),
    "AllowedIPs": (
        replace(survey("bird_ready"), allowed={"wg-lab": ((ip_network("10.255.0.1/32"),),)}),
        "WireGuard of east-gw towards west-gw: its AllowedIPs do not cover 10.2.0.0/24",
    ),
}


@pytest.mark.parametrize("what", LEGS)
def test_a_leg_that_fails_says_why(what: str) -> None:
    seen, words = LEGS[what]
    failed = [leg for leg in legs_of((EAST, WEST), (seen, survey("frr_ready"))) if not leg.ok]
    assert f"{failed[0].name}: {failed[0].reason}" == words


def test_of_two_links_to_who_announces_a_prefix_the_kernel_may_choose_either() -> None:
    [item] = EAST.conversations
    second = replace(item, peer_host="west-gw-2", local="10.255.0.2", peer="10.255.0.3", device="wg-two")
    both = replace(EAST, conversations=(item, second))
    seen = survey("bird_ready")
    seen = replace(
        seen,
        heard={**seen.heard, second.name: seen.heard[item.name]},
        addresses={**seen.addresses, "wg-two": ("10.255.0.2",)},
    )
    for device, well in (("wg-lab", True), ("wg-two", True), ("eth0", False)):
        now = replace(seen, next_hops={**seen.next_hops, "10.2.0.1": NextHop(device)})
        ways = [leg.ok for leg in legs_of((both,), (now,)) if leg.name.startswith("way of")]
        found = [one for one in diagnosis.findings((both,), (now,), ()) if one.cause is Cause.ROUTE_MISSING]
        assert (ways, len(found)) == ([well, well], 0 if well else 2)
    silent = replace(seen, heard={item.name: seen.heard[item.name]}, next_hops={"10.2.0.1": NextHop("wg-two")})
    assert [leg.reason for leg in legs_of((both,), (silent,)) if leg.name.startswith("way of")] == [
        "over wg-two, not over wg-lab"
    ]


def causes(seen: Survey, silent: Sequence[Way] = ()) -> dict[Cause, str]:
    found = diagnosis.findings((EAST, WEST), (seen, survey("frr_ready")), silent)
    assert all(item.where in HOSTS for item in found)
    return {item.cause: item.words for item in found}


FOUND: dict[Cause, tuple[Survey, str]] = {
    Cause.DAEMON_DOWN: (LEGS["dead"][0], "bird of this stage does not run on east-gw"),
    Cause.INTERFACE_MISSING: (replace(survey("bird_ready"), addresses={}), "no interface of east-gw has 10.255.0.0"),
    Cause.PREFIX_MISSING: (LEGS["fewer"][0], "west-gw does not announce 10.2.0.0/24 to east-gw"),
    Cause.PREFIX_LEAKED: (survey("bird_leak"), "west-gw sends 10.66.0.0/16, which nobody declared"),
    Cause.ALLOWED_IPS: (LEGS["AllowedIPs"][0], "AllowedIPs of west-gw on wg-lab of east-gw do not cover 10.2.0.0/24"),
    Cause.AUTHENTICATION: (altered("bird_ready", state="Idle", error="Received: Bad peer AS"), "Bad peer AS"),
    Cause.ROUTE_MISSING: (
        replace(LEGS["elsewhere"][0], next_hops={**LEGS["elsewhere"][0].next_hops, "10.1.0.1": NextHop("lo")}),
        "east-gw learned 10.2.0.0/24 from west-gw, but sends it over eth0",
    ),
    Cause.RETURN_ROUTE_MISSING: (
        replace(
            survey("bird_ready"), next_hops={"10.1.0.1": NextHop("wg-lab"), "10.2.0.1": NextHop("wg-lab", "10.255.0.1")}
        ),
        "east-gw announces 10.1.0.0/24, but sends it back over wg-lab",
    ),
    Cause.SERVICE_DOWN: (altered("bird_ready", bfd=None), "BFD of east-gw with west-gw is down"),
}


@pytest.mark.parametrize("cause", FOUND)
def test_a_cause_is_named_in_words(cause: Cause) -> None:
    seen, words = FOUND[cause]
    assert words in causes(seen)[cause]


def test_that_nobody_answers_for_a_speaker_that_does_not_run_is_no_cause_of_its_own() -> None:
    waiting = survey("frr_ready")
    session = next(iter(waiting.heard))
    waiting = replace(waiting, heard={session: replace(waiting.heard[session], state="Active", error="refused")})
    found = diagnosis.findings((EAST, WEST), (LEGS["dead"][0], waiting), ())
    assert [(item.cause, item.where) for item in found] == [(Cause.DAEMON_DOWN, "east-gw")]


def test_a_session_that_is_down_is_told_from_a_link_that_is() -> None:
    down = altered("bird_ready", state="Connect", error="")
    assert set(causes(down)) == {Cause.SERVICE_DOWN}
    ping = Way("east-gw", "west-gw", "10.255.0.0", "10.255.0.1")
    assert set(causes(down, [ping])) == {Cause.UNREACHABLE}
    assert set(causes(survey("bird_ready"), [ping])) == {Cause.FORWARD_DROPPED}
    assert causes(survey("bird_ready")) == {}
    flooded = altered("bird_ready", state="Idle", error="it sent more prefixes than `max_prefixes` allows")
    assert set(causes(flooded)) == {Cause.PREFIX_LEAKED}


def test_pings_go_from_site_to_site_and_else_inside_the_link() -> None:
    sites = {"east-gw": sites_of(EAST, survey("bird_ready")), "west-gw": sites_of(WEST, survey("frr_ready"))}
    assert sites == {"east-gw": ("10.1.0.1",), "west-gw": ("10.2.0.1",)}
    settings = spec()
    assert ways_between(settings, (EAST, WEST), sites) == (
        Way("east-gw", "west-gw", "10.1.0.1", "10.2.0.1"),
        Way("west-gw", "east-gw", "10.2.0.1", "10.1.0.1"),
    )
    bare = ways_between(settings, (EAST,), {})
    assert bare == (Way("east-gw", "west-gw", "10.255.0.0", "10.255.0.1"),)
    [item] = EAST.conversations
    second = replace(item, peer_host="west-gw-2", local="10.255.0.2", peer="10.255.0.3")
    both = replace(EAST, conversations=(item, second))
    assert ways_between(settings, (EAST,), {"east-gw": ("10.1.0.1",)})[0].source == "10.1.0.1"
    assert ways_between(settings, (both,), {"east-gw": ("10.1.0.1",)})[0].source == "10.255.0.0"
    told = ways_between(spec(probes={"west-gw": "10.2.0.99"}), (EAST,), sites)
    assert told[0].target == "10.2.0.99"
    legs = tuple(ping_legs(told, {}))
    assert legs[0].reason == "no answer"


def test_differences_are_named_by_resource() -> None:
    seen = survey("bird_ready")
    wanted = digest_of(settle(EAST, seen).config(EAST).reveal())
    same = replace(seen, facts={**seen.facts, "config": wanted, "loaded": wanted})
    assert not [*differences(EAST, same)]

    def found(**changes: Any) -> list[tuple[str, Action, str]]:
        return [(item.address, item.action, item.note) for item in differences(EAST, replace(same, **changes))]

    facts = dict(same.facts)
    assert found(alive=False) == [(f"east-gw: bird {EAST.identity}", Action.UPDATE, "not running")]
    assert found(facts=facts | {"loaded": "x"}) == [("east-gw: configuration of bird", Action.UPDATE, "")]
    assert found(facts=facts | {"daemon": "frr"}) == [(f"east-gw: bird {EAST.identity}", Action.REPLACE, "was frr")]
    assert found(facts=facts | {"running": "a", "live": "b"})[0][2] == "changed by hand"
    del facts["config"]
    assert found(facts=facts)[0][1] is Action.CREATE


def test_the_daemon_is_the_named_one_or_the_one_it_has_or_what_is_there() -> None:
    auto = replace(EAST, wanted="auto")
    seen = replace(survey("bird_ready"), facts={"daemon": "frr"})
    assert settle(auto, seen).daemon == "frr", "what runs is not exchanged"
    assert settle(auto, replace(seen, facts={})).daemon == "bird"
    assert settle(auto, replace(seen, facts={}, tools={"frr": True})).daemon == "frr"
    assert settle(auto, replace(seen, facts={}, tools={})).daemon == "bird"
    assert settle(EAST, seen).daemon == "bird"


def test_two_instances_of_a_host_have_routes_of_different_metrics() -> None:
    empty = replace(survey("bird_ready"), facts={})
    first = settle(EAST, empty).metric
    assert first >= LOWEST_METRIC
    assert settle(EAST, replace(empty, metrics=frozenset({first}))).metric == first + 1
    assert settle(EAST, replace(empty, facts={"metric": "4711"})) == Made("bird", 4711), "it keeps what it has"


def test_a_missing_tool_names_host_and_package() -> None:
    tools = dict(survey("bird_ready").tools)
    with pytest.raises(ToolMissingError) as caught:
        refuse_missing_tools(EAST, replace(survey("bird_ready"), tools=tools | {"bird": False, "ping": False}))
    assert caught.value.summary == "east-gw has no ping, BIRD 2"
    assert caught.value.hint == "on east-gw: apt-get install iputils-ping bird2"


FRESH = replace(survey("bird_ready"), alive=False, facts={}, listens=(), datagrams=(), foreign=(), routes=())
LAN = Route(ip_network("10.2.0.0/16"), "lan", "kernel", connected=True)
COLLISIONS: dict[str, tuple[Instance, Survey, str]] = {
    "name": (EAST, replace(FRESH, facts={"owner": "default/other/stage"}), "it belongs to default/other/stage"),
    "link": (EAST, replace(FRESH, addresses={}), "east-gw has no address 10.255.0.0"),
    "LAN": (
        EAST,
        replace(FRESH, routes=(LAN,)),
        "10.2.0.0/24 would take over the connected network 10.2.0.0/16 of lan",
    ),
    "wildcard port": (EAST, replace(FRESH, listens=("00000000:00B3",)), "TCP port 179 of east-gw is in use"),
    "own port": (EAST, replace(FRESH, listens=("0000FF0A:00B3",)), "TCP port 179 of east-gw is in use"),
    "wildcard port, IPv6": (EAST, replace(FRESH, listens=("0" * 32 + ":00B3",)), "TCP port 179 of east-gw is in use"),
    "BFD": (EAST, replace(FRESH, datagrams=("00000000:0EC8",)), "UDP port 3784 of east-gw, which BFD needs, is in use"),
    "FRR": (WEST, replace(FRESH, addresses=survey("frr_ready").addresses, foreign=("zebra 7",)), "runs an FRR already"),
    "routes": (
        WEST,
        replace(
            FRESH,
            addresses=survey("frr_ready").addresses,
            routes=(Route(ip_network("10.9.0.0/24"), "lan", "ospf"),),
        ),
        "routes of another routing daemon (10.9.0.0/24, proto ospf)",
    ),
}


@pytest.mark.parametrize("what", COLLISIONS)
def test_what_is_in_the_way_is_refused_with_a_hint(what: str) -> None:
    instance, seen, words = COLLISIONS[what]
    with pytest.raises((SpecError, NotReadyError)) as caught:
        refuse_collisions(instance, seen)
    assert words in caught.value.summary
    assert caught.value.hint


def test_what_others_have_elsewhere_is_not_in_the_way() -> None:
    elsewhere = ("0100007F:00B3", "00000000:01BB")
    refuse_collisions(EAST, replace(FRESH, listens=elsewhere, foreign=("zebra 7",)))
    refuse_collisions(EAST, replace(survey("bird_ready"), listens=("0000FF0A:00B3",)))


def test_peers_of_another_network_are_named_in_addresses() -> None:
    over = {"addresses": {"east-gw": ["10.255.0.0/32"], "west-gw": ["10.255.0.1/32"]}}
    instance = pair(spec(over=over))[0]
    seen = survey("bird_ready")
    assert peer_lines(instance, seen) == ("10.255.0.0 10.255.0.1/32 wg-lab",)
    assert "east-gw: address 10.255.0.0 peer 10.255.0.1/32" in [item.address for item in differences(instance, seen)]
    assert not peer_lines(EAST, seen)


def test_secrets_go_by_standard_input_alone() -> None:
    instance = pair(spec(password=Secret("hush-hush")))[0]
    made = Made("bird", 1000)
    command = commands.prepare_command(instance, "bird", made.config(instance))
    assert isinstance(command.stdin, Secret)
    assert "hush-hush" in command.stdin.reveal()
    assert "hush-hush" not in command.display()
    assert commands.survey_command(instance, ["10.2.0.1"]).effect is Effect.READ
    assert commands.probe_command([("10.1.0.1", "10.2.0.1")], sudo=True).argv[:2] == ("sudo", "-n")


class Unreachable(ScriptedTransport):
    async def query(self, command: Command, on_output: Any = None) -> Completed:
        raise UnreachableError("west-gw does not answer")


def world(tmp_path: Path, east: ScriptedTransport) -> ProviderWorld:
    places = {"east-gw": east, "west-gw": Unreachable(name="west-gw")}
    return ProviderWorld(tmp_path, places, hosts=HOSTS, clock=SteppingClock())


async def test_an_end_that_cannot_be_reached_is_no_fault_of_the_sessions(tmp_path: Path) -> None:
    def answer(command: Command) -> Completed:
        return Completed(0, (recorded("bird_ready") if "@tools" in str(command.argv) else "").encode())

    rig = world(tmp_path, ScriptedTransport(answer))
    passages = await BgpProvider().probe(spec(), rig.reading())
    assert [(item.source, item.target, item.passed) for item in passages] == [
        ("east-gw", "west-gw", False),
        ("west-gw", "east-gw", None),
    ]
    found = await BgpProvider().diagnose(spec(), rig.reading())
    assert (found[0].cause, found[0].where) == (Cause.UNREACHABLE, "west-gw")


async def test_what_cannot_be_read_is_no_crash(tmp_path: Path) -> None:
    rig = world(tmp_path, ScriptedTransport(lambda command: Completed(0, b"@tools\nnothing more\n")))
    with pytest.raises(ToolFailedError, match="cannot be read"):
        await BgpProvider().apply(spec(), await absent(rig), rig.writing())


async def absent(rig: ProviderWorld) -> Any:
    seen = await BgpProvider().observe(spec(), rig.reading())
    assert not seen.exists
    return await BgpProvider().plan(spec(), seen, rig.reading())


def test_repairs_begin_gently_and_touch_one_host_at_a_time(tmp_path: Path) -> None:
    steps = BgpProvider().repairs(spec(), world(tmp_path, ScriptedTransport()).reading())
    assert steps == (
        Repair("reload", "east-gw", SESSION_S),
        Repair("reload", "west-gw", SESSION_S),
        Repair("restart", "east-gw", SESSION_S),
        Repair("restart", "west-gw", SESSION_S),
    )
