"""What a bgp stage may be told, what each speaker makes of it, and the configurations that come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.contracts.host import Host
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.networks.bgp import bird, frr
from skyspan.networks.bgp.speaking import Instance, plan_instances
from skyspan.networks.bgp.spec import BgpSpec

ADDRESS = DeploymentAddress("default", "proof").stage("stage")
HOSTS = {name: Host(name, f"198.18.{n}.2") for n, name in enumerate(("hub", "east", "west"), 1)}
RECORDED = Path(__file__).parent / "recorded"

OVER: dict[str, Any] = {
    "interface": "wg-lab",
    "addresses": {"hub": ["10.255.0.0/31", "fd5b::/127"], "east": ["10.255.0.1/31", "fd5b::1/127"]},
}
PAIR: list[dict[str, Any]] = [
    {"host": "hub", "asn": 64512, "announce": ["10.1.0.0/24", "fd00:1::/48"]},
    {"host": "east", "asn": 64513, "announce": ["10.2.0.0/24", "10.3.0.0/24"]},
]


def spec(hub: Any = (), east: Any = (), **settings: Any) -> BgpSpec:
    speakers = [PAIR[0] | dict(hub), PAIR[1] | dict(east)]
    return BgpSpec.model_validate({"speakers": speakers, "over": OVER} | settings)


def instance(host: str, settings: BgpSpec) -> Instance:
    return next(item for item in plan_instances(settings, ADDRESS, HOSTS) if item.host == host)


STAR: dict[str, Any] = {
    "speakers": [
        {"host": "hub", "asn": 64512, "announce": ["10.1.0.0/24"], "address": "10.255.0.1/24"},
        {"host": "east", "asn": 64513, "announce": ["10.2.0.0/24"], "address": "10.255.0.2/24"},
        {"host": "west", "asn": 64514, "announce": ["10.3.0.0/24"], "address": "10.255.0.3/24"},
    ],
    "sessions": [{"between": ["hub", "east"]}, {"between": ["west", "hub"]}],
}


def star(**hub: Any) -> BgpSpec:
    return BgpSpec.model_validate(STAR | {"speakers": [STAR["speakers"][0] | hub, *STAR["speakers"][1:]]})


def exchanged(settings: BgpSpec) -> dict[tuple[str, str], tuple[set[str], set[str]]]:
    """By host and peer, what is received and what is sent."""
    return {
        (item.host, talk.peer_host): (set(map(str, talk.receive)), set(map(str, talk.send)))
        for item in plan_instances(settings, ADDRESS, HOSTS)
        for talk in item.conversations
    }


def test_each_side_accepts_and_sends_only_what_was_declared() -> None:
    assert exchanged(star()) == {
        ("hub", "east"): ({"10.2.0.0/24"}, {"10.1.0.0/24"}),
        ("hub", "west"): ({"10.3.0.0/24"}, {"10.1.0.0/24"}),
        ("east", "hub"): ({"10.1.0.0/24"}, {"10.2.0.0/24"}),
        ("west", "hub"): ({"10.1.0.0/24"}, {"10.3.0.0/24"}),
    }


def test_a_hub_passes_on_when_told() -> None:
    found = exchanged(star(transit=True))
    assert found["east", "hub"] == ({"10.1.0.0/24", "10.3.0.0/24"}, {"10.2.0.0/24"})
    assert found["hub", "west"] == ({"10.3.0.0/24"}, {"10.1.0.0/24", "10.2.0.0/24"})


def test_a_session_per_ip_version_carries_its_own_prefixes() -> None:
    hub = instance("hub", spec())
    assert [(item.local, item.peer, item.version) for item in hub.conversations] == [
        ("10.255.0.0", "10.255.0.1", 4),
        ("fd5b::", "fd5b::1", 6),
    ]
    assert [[*map(str, item.send)] for item in hub.conversations] == [["10.1.0.0/24"], ["fd00:1::/48"]]
    assert [[*map(str, item.receive)] for item in hub.conversations] == [["10.2.0.0/24", "10.3.0.0/24"], []]


def test_an_address_that_shares_no_network_with_its_peer_names_it() -> None:
    settings = spec({"address": "10.9.0.1/32", "announce": []}, {"address": "10.8.0.1"}, over=None)
    talk = instance("hub", settings).conversations[0]
    assert (talk.onlink, talk.peering) == (False, "10.8.0.1/32")
    far = spec({"address": "10.9.0.1/32", "announce": []}, {"address": "10.8.0.1"}, over=None, multihop=3)
    assert instance("hub", far).conversations[0].peering == ""


def test_the_pair_of_a_common_network_is_taken() -> None:
    over = {"addresses": {"hub": ["10.254.0.0/31", "10.255.0.0/31"], "east": ["10.255.0.1/31"]}}
    talk = instance("hub", spec({"announce": ["10.1.0.0/24"]}, over=over)).conversations[0]
    assert (talk.local, talk.peer, talk.onlink) == ("10.255.0.0", "10.255.0.1", True)


def test_a_router_id_is_always_found() -> None:
    assert instance("hub", spec()).router_id == "10.255.0.0"
    assert instance("hub", spec({"router_id": "192.0.2.9"})).router_id == "192.0.2.9"
    over = {"addresses": {"hub": ["fd5b::/127"], "east": ["fd5b::1/127"]}}
    only6 = spec({"announce": ["fd00:1::/48"]}, {"announce": []}, over=over)
    ids = {item.router_id for item in plan_instances(only6, ADDRESS, HOSTS)}
    assert len(ids) == 2
    assert "0.0.0.0" not in ids


def test_a_router_of_somebody_else_needs_no_host() -> None:
    settings = spec(east={"host": "provider", "managed": False, "address": "10.255.0.1/31"}, hub={"announce": []})
    only = plan_instances(settings, ADDRESS, HOSTS)
    assert [item.host for item in only] == ["hub"]
    assert {item.peer_host for item in only[0].conversations} == {"provider"}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a name that would break out": ({"east": {"host": 'a"; quit'}}, "is no name of a host"),
    "a device that would break out": ({"over": {"interface": 'a"; quit'}}, "is no interface name"),
    "a prefix with host bits": ({"hub": {"announce": ["10.1.0.1/24"]}}, "did you mean 10.1.0.0/24?"),
    "one prefix from two": ({"east": {"announce": ["10.1.0.0/24"]}}, "10.1.0.0/24 is announced by hub and by east"),
    "one prefix twice": ({"hub": {"announce": ["10.1.0.0/24"] * 2}}, "hub announces 10.1.0.0/24 twice"),
    "a host twice": ({"east": {"host": "hub"}}, "hub is named 2 times"),
    "a stranger": ({"sessions": [{"between": ["hub", "north"]}]}, "names north, which is no speaker"),
    "talking to itself": ({"sessions": [{"between": ["hub", "hub"]}]}, "not hub with itself"),
    "a password with a quote": ({"password": Secret('a"b')}, "without quotes"),
    "a password too long": ({"password": Secret("x" * 81)}, "1 to 80"),
    "nobody managed": ({"hub": {"managed": False}, "east": {"managed": False}}, "no speaker is managed"),
    "a router id of zero": ({"hub": {"router_id": "0.0.0.0"}}, "no router id"),
    "a router id of IPv6": ({"hub": {"router_id": "fd00::1"}}, "no router id"),
    "a system that is none": ({"hub": {"asn": 0}}, "greater than or equal to 1"),
    "a BFD that never sleeps": ({"bfd": {"interval": "1ms"}}, "between 10ms and 60s"),
    "a hold time too short": ({"hold": 2}, "greater than or equal to 3"),
    "a probe of a stranger": ({"probes": {"north": "10.1.0.1"}}, "names north"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_work_is_refused_before_any_host_is_asked(what: str) -> None:
    settings, words = REFUSED[what]
    with pytest.raises(ValidationError) as caught:
        spec(**settings)
    assert words in str(caught.value)


def test_three_speakers_need_sessions_and_a_ring_has_no_transit() -> None:
    with pytest.raises(ValidationError, match="say who talks to whom"):
        BgpSpec.model_validate({"speakers": STAR["speakers"]})
    ring = [*STAR["sessions"], {"between": ["east", "west"]}]
    hub = STAR["speakers"][0] | {"transit": True}
    with pytest.raises(ValidationError, match="without a ring"):
        BgpSpec.model_validate({"speakers": [hub, *STAR["speakers"][1:]], "sessions": ring})
    with pytest.raises(ValidationError, match="east talks to nobody"):
        BgpSpec.model_validate({"speakers": STAR["speakers"], "sessions": STAR["sessions"][1:]})


def test_transit_between_spokes_of_one_system_is_refused() -> None:
    spokes = [item | {"asn": 64513} for item in STAR["speakers"][1:]]
    with pytest.raises(ValidationError, match="need different `asn`s"):
        BgpSpec.model_validate(STAR | {"speakers": [STAR["speakers"][0] | {"transit": True}, *spokes]})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"east": {"host": "nobody"}}, "no host 'nobody'"),
        ({"over": None}, "no addresses inside their link"),
        ({"over": {"addresses": {"hub": ["10.255.0.0/31"], "east": ["10.255.0.1/31"]}}}, "no IPv6 address"),
    ],
)
def test_what_only_the_whole_composition_shows_is_said_with_a_hint(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan_instances(spec(**settings), ADDRESS, HOSTS)
    assert words in caught.value.summary
    assert caught.value.hint


def test_the_configurations_are_as_recorded() -> None:
    settings = spec(password=Secret("between-us-9"), max_prefixes=50)
    one, other = plan_instances(settings, ADDRESS, HOSTS)
    texts = {
        "bgp_bird.conf": bird.config_text(one, 1234, "/run/skyspan-bgp/sky-1"),
        "bgp_frr.conf": frr.config_text(other),
        "bgp_bird_far.conf": bird.config_text(
            instance("hub", spec({"announce": []}, multihop=3, bfd=False, port=1179)), 1000, "/run/skyspan-bgp/sky-1"
        ),
        "bgp_frr_far.conf": frr.config_text(instance("east", spec({"announce": []}, multihop=3, bfd=False, port=1179))),
    }
    for name, text in texts.items():
        assert (RECORDED / name).read_text() == text.reveal(), f"{name} has changed"


def test_a_text_of_frr_turns_into_another_by_what_differs_alone() -> None:
    def text(*announced: str, **more: Any) -> str:
        return frr.config_text(instance("east", spec({"announce": []}, {"announce": announced}, **more))).reveal()

    assert frr.delta(text("10.2.0.0/24"), text("10.2.0.0/24")) == ""
    assert frr.delta(text("10.2.0.0/24"), text("10.4.0.0/24")) == (
        "ip prefix-list peer_10_255_0_0_out permit 10.4.0.0/24\n"
        "router bgp 64513\n"
        " address-family ipv4 unicast\n"
        "  network 10.4.0.0/24\n"
        "  no network 10.2.0.0/24\n"
        "  exit\n"
        " exit\n"
        "no ip prefix-list peer_10_255_0_0_out permit 10.2.0.0/24\n"
    )
    assert frr.delta(text("10.2.0.0/24"), text("10.2.0.0/24", port=1179)) is None
    without = frr.delta(text("10.2.0.0/24"), text("10.2.0.0/24", bfd=False))
    assert without is not None
    assert "no bfd\n" in without
    assert "  profile" not in without, "a block that goes takes its lines along"


def test_what_gets_another_value_is_set_and_not_taken_away() -> None:
    def text(**more: Any) -> str:
        return frr.config_text(instance("east", spec({"announce": []}, {"announce": ["10.2.0.0/24"]}, **more))).reveal()

    changed = frr.delta(text(hold=30, password=Secret("old")), text(hold=9, password=Secret("new"), max_prefixes=7))
    assert changed is not None
    assert " neighbor 10.255.0.0 timers 3 9\n" in changed
    assert " neighbor 10.255.0.0 password new\n" in changed
    assert "  neighbor 10.255.0.0 maximum-prefix 7 restart 1 force\n" in changed
    assert "no " not in changed
    assert "connect" not in changed, "what stays is left alone"
    gone = frr.delta(text(password=Secret("old")), text())
    assert gone is not None
    assert " no neighbor 10.255.0.0 password old\n" in gone


def test_a_neighbour_that_goes_is_removed_and_one_of_another_system_takes_a_new_start() -> None:
    def text(*spokes: dict[str, Any]) -> str:
        sessions = [{"between": ["hub", spoke["host"]]} for spoke in spokes]
        settings = {"speakers": [STAR["speakers"][0], *spokes], "sessions": sessions}
        return frr.config_text(instance("hub", BgpSpec.model_validate(settings))).reveal()

    east, west = STAR["speakers"][1:]
    less = frr.delta(text(east, west), text(east))
    assert less is not None
    lines = less.splitlines()
    assert " no neighbor 10.255.0.3 remote-as 64514" in lines
    assert lines.index("  no neighbor 10.255.0.3 activate") < lines.index(" no neighbor 10.255.0.3 remote-as 64514")
    assert "no ip prefix-list peer_10_255_0_3_in permit 10.3.0.0/24" in lines
    assert not any("10.255.0.2" in line for line in lines)
    assert frr.delta(text(east, west), text(east, west | {"asn": 65000})) is None
