"""What a routes stage may be told, what a host says of its routes, what differs, what is ready."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.contracts.host import Host
from skyspan.contracts.transport import Command, Completed, Effect
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Action, Change
from skyspan.model.error import NotReadyError, SpecError, ToolFailedError, ToolMissingError
from skyspan.networks.peers import Route as Existing
from skyspan.networks.routes import commands
from skyspan.networks.routes.provider import RoutesProvider
from skyspan.networks.routes.ready import legs_of
from skyspan.networks.routes.spec import RoutesSpec
from skyspan.networks.routes.table import (
    HostRoutes,
    Seen,
    Static,
    differences,
    parse_seen,
    parse_taken,
    plan_hosts,
    refuse,
)
from skyspan.testing.provider_world import ProviderWorld, ScriptedTransport, SteppingClock

ADDRESS = DeploymentAddress("default", "proof").stage("stage")
HOSTS = {"gw": Host("gw", "198.18.1.2"), "far": Host("far", "198.18.2.2", user="admin")}
RETURN = {"host": "far", "to": ["10.1.0.0/24"]}


def spec(returns: Any = (), **route: Any) -> RoutesSpec:
    one = {"host": "gw", "to": ["10.2.0.0/24"], "via": "198.18.1.1"} | route
    return RoutesSpec.model_validate({"routes": [one], "returns": returns, "ready_within": 1})


def host(settings: RoutesSpec, name: str = "gw") -> HostRoutes:
    return next(item for item in plan_hosts(settings, ADDRESS, HOSTS) if item.host == name)


TEXT = """\
@tools
ip yes
flock yes
@owner
default/proof/stage
@recorded
4 10.2.0.0/24 10
@route4
[{"dst":"default","gateway":"198.18.1.1","dev":"eth0","flags":[]},\
{"dst":"10.1.0.0/24","dev":"lan","protocol":"kernel","scope":"link","prefsrc":"10.1.0.1","flags":[]},\
{"dst":"10.2.0.0/24","gateway":"198.18.1.1","dev":"eth0","protocol":"242","metric":10,"flags":[]},\
{"dst":"10.9.0.0/24","gateway":"198.18.1.1","dev":"eth0","protocol":"242","metric":10,"flags":[]}]
@route6
[{"dst":"fe80::/64","dev":"eth0","protocol":"kernel","metric":256,"flags":[],"pref":"medium"}]
@ways
10.2.0.1 [{"dst":"10.2.0.1","gateway":"198.18.1.1","dev":"eth0","prefsrc":"198.18.1.2","flags":[],"uid":0,"cache":[]}]
10.1.0.1 [{"dst":"10.1.0.1","dev":"lan","prefsrc":"10.1.0.1","flags":[],"uid":0,"cache":[]}]
"""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "everything": ({"to": ["0.0.0.0/0"]}, "the default route is not ours to take"),
    "host bits": ({"to": ["10.2.0.1/24"]}, "did you mean 10.2.0.0/24?"),
    "nowhere": ({"via": None}, "needs `via` or `interface`"),
    "two IP versions": ({"via": "fd00::1"}, "are not of one IP version"),
    "another source": ({"source": "fd00::1"}, "are not of one IP version"),
    "no interface": ({"interface": "a name that is long"}, "is no interface name"),
    "metric": ({"metric": 0}, "greater than or equal to 1"),
    "no address": ({"via": "gw.example"}, "is no IP address"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_work_is_refused_before_any_host_is_asked(what: str) -> None:
    settings, words = REFUSED[what]
    with pytest.raises(ValidationError) as caught:
        spec(**settings)
    assert words in str(caught.value)


def test_one_network_has_one_route_per_metric() -> None:
    one = {"host": "gw", "to": ["10.2.0.0/24"], "interface": "eth0"}
    with pytest.raises(ValidationError, match=r"gw has two routes to 10.2.0.0/24"):
        RoutesSpec.model_validate({"routes": [one, one]})
    RoutesSpec.model_validate({"routes": [one, one | {"metric": 5000}]})


def test_a_host_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(SpecError) as caught:
        plan_hosts(spec(host="nobody"), ADDRESS, HOSTS)
    assert caught.value.hint == "hosts: far, gw"


def test_what_a_host_says_is_read() -> None:
    seen = parse_seen(TEXT)
    assert seen.owner == "default/proof/stage"
    assert seen.ours == (Static("10.2.0.0/24", 10, "198.18.1.1", "eth0"),), "the mark alone does not make a route ours"
    assert "4 10.9.0.0/24 10" in dict(seen.others)
    assert seen.ways["10.1.0.1"] == ("lan", "")
    assert not [*differences(host(spec()), seen)]
    assert [leg.reason for leg in legs_of([host(spec())], [seen.taken])] == [""]


def test_differences_are_named_by_route() -> None:
    seen = parse_seen(TEXT)

    def found(**route: Any) -> list[tuple[str, Action]]:
        return [(item.address, item.action) for item in differences(host(spec(**route)), seen)]

    assert found(via="198.18.1.9") == [("gw: route 10.2.0.0/24 metric 10", Action.UPDATE)]
    assert found(source="10.1.0.1") == [("gw: route 10.2.0.0/24 metric 10", Action.UPDATE)]
    assert found(metric=20) == [
        ("gw: route 10.2.0.0/24 metric 20", Action.CREATE),
        ("gw: route 10.2.0.0/24 metric 10", Action.DESTROY),
    ]


FRESH = replace(parse_seen(TEXT), owner="", recorded=frozenset(), ours=(), others=())
LAN = ("4 10.2.0.0/16 0", Existing(ip_network("10.2.0.0/16"), "lan", "kernel", connected=True))
TAKEN: dict[str, tuple[Seen, str]] = {
    "name": (replace(FRESH, owner="default/other/stage"), "it belongs to default/other/stage"),
    "LAN": (replace(FRESH, others=(LAN,)), "take over the connected network 10.2.0.0/16 of lan"),
    "route": (
        replace(FRESH, others=(("4 10.2.0.0/24 10", Existing(ip_network("10.2.0.0/24"), "lan", "static")),)),
        "10.2.0.0/24 with metric 10 is there already, over lan (proto static)",
    ),
    "tool": (replace(FRESH, tools={"ip": True, "flock": False}), "gw has no flock"),
}


@pytest.mark.parametrize("what", TAKEN)
def test_what_is_in_the_way_is_refused_with_a_hint(what: str) -> None:
    seen, words = TAKEN[what]
    with pytest.raises((SpecError, ToolMissingError)) as caught:
        refuse(host(spec()), seen)
    assert words in caught.value.summary
    assert caught.value.hint
    refuse(host(spec()), FRESH)


BACK: dict[str, tuple[Seen, dict[str, Any], str]] = {
    "none": (replace(FRESH, ways={}), {}, "there is none"),
    "default": (
        replace(FRESH, others=(("4 0.0.0.0/0 0", Existing(ip_network("0.0.0.0/0"), "lan", "")),)),
        {},
        "only by the default route over lan",
    ),
    "elsewhere": (parse_seen(TEXT), {"interface": "wg0"}, "it goes over lan, not over wg0"),
    "there": (parse_seen(TEXT), {"interface": "lan"}, ""),
}


@pytest.mark.parametrize("what", BACK)
def test_a_way_back_is_one_of_its_own(what: str) -> None:
    seen, wanted, words = BACK[what]
    leg = legs_of([host(spec([RETURN | wanted]), "far")], [seen.taken])[0]
    assert leg.name == "way back of far to 10.1.0.0/24"
    assert leg.reason == words


def test_a_route_that_is_not_taken_is_named() -> None:
    seen = replace(parse_seen(TEXT), ways={"10.2.0.1": ("lan", "10.1.0.9")})
    assert [leg.reason for leg in legs_of([host(spec())], [seen.taken])] == ["it goes by 10.1.0.9"]
    gone = replace(seen, ours=())
    assert [leg.reason for leg in legs_of([host(spec())], [gone.taken])] == ["the route is not there"]


def test_a_route_that_only_stands_by_need_not_be_taken_but_be_there() -> None:
    spare = host(spec(metric=100000))
    there = replace(
        parse_seen(TEXT), ours=(Static("10.2.0.0/24", 100000, "198.18.1.1"),), ways={"10.2.0.1": ("lan", "10.1.0.9")}
    )
    assert [leg.reason for leg in legs_of([spare], [there.taken])] == [""]
    nowhere = replace(there, ways={})
    assert [leg.reason for leg in legs_of([spare], [nowhere.taken])] == ["it leads nowhere"]
    assert [leg.reason for leg in legs_of([spare], [replace(there, ours=()).taken])] == ["the route is not there"]


def test_the_quick_look_says_the_same_as_the_whole_one() -> None:
    quick = """\
way 10.2.0.1 [{"dst":"10.2.0.1","gateway":"198.18.1.1","dev":"eth0","prefsrc":"198.18.1.2","flags":[],"cache":[]}]
known 10.2.0.1
way 10.1.0.1 [{"dst":"10.1.0.1","dev":"lan","prefsrc":"10.1.0.1","flags":[],"uid":0,"cache":[]}]
known 10.1.0.1
there 4 10.2.0.0/24 10
"""
    assert parse_taken(quick) == parse_seen(TEXT).taken
    assert parse_taken("way 10.2.0.1 \n").ways == {"10.2.0.1": ("", "")}
    with pytest.raises(KeyError):
        parse_taken("what 4\n")


def test_commands_name_the_route_and_ask_for_root_where_they_must() -> None:
    command = commands.set_command(host(spec(interface="eth0", source="198.18.1.2")))
    assert command.argv[-1] == "4 10.2.0.0/24 10 via 198.18.1.1 dev eth0 src 198.18.1.2\n"
    far = host(spec([RETURN]), "far")
    assert commands.survey_command(far).argv[:2] == ("sudo", "-n")
    assert commands.survey_command(far).effect is Effect.READ


async def test_a_way_back_that_stays_away_is_waited_for_then_named(tmp_path: Path) -> None:
    def answer(command: Command) -> Completed:
        return Completed(0, TEXT.encode())

    clock = SteppingClock()
    places = {"gw": ScriptedTransport(answer), "far": ScriptedTransport(answer)}
    world = ProviderWorld(tmp_path, places, hosts=HOSTS, clock=clock, address=ADDRESS)
    settings = spec([RETURN | {"to": ["10.66.0.0/16"]}])
    with pytest.raises(NotReadyError, match=r"way back of far to 10.66.0.0/16: there is none"):
        await RoutesProvider().apply(settings, Change(Action.CREATE), world.writing())
    assert 0.5 < sum(clock.slept) <= 1.0


async def test_what_cannot_be_read_is_no_crash(tmp_path: Path) -> None:
    world = ProviderWorld(tmp_path, {"gw": ScriptedTransport()}, hosts=HOSTS, address=ADDRESS)
    with pytest.raises(ToolFailedError, match="cannot be read"):
        await RoutesProvider().apply(spec(), Change(Action.CREATE), world.writing())
