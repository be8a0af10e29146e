"""What a gateway says of itself, what differs from what was wanted, and what makes a link ready."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from skyspan.contracts.host import Host
from skyspan.contracts.transport import Command, Completed
from skyspan.contracts.watch import Cause
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Action
from skyspan.model.error import NotReadyError, SpecError, ToolFailedError, ToolMissingError
from skyspan.model.secret import Secret
from skyspan.networks.docker import Filters
from skyspan.networks.legs import summary
from skyspan.networks.looking import digest_of
from skyspan.networks.peers import OwnRoute, Route
from skyspan.networks.proving import Probe
from skyspan.networks.wireguard.compare import (
    differences,
    refuse_collisions,
    refuse_missing_powers,
    refuse_missing_tools,
    routes_of,
)
from skyspan.networks.wireguard.config import config_text
from skyspan.networks.wireguard.keys import Keys, Memory, keys_of
from skyspan.networks.wireguard.link import EndState, plan_ends
from skyspan.networks.wireguard.parse import Survey, parse_survey
from skyspan.networks.wireguard.provider import WireguardProvider
from skyspan.networks.wireguard.ready import legs_of
from skyspan.networks.wireguard.spec import WireguardSpec
from skyspan.networks.wireguard.watch import Scene, diagnosis
from skyspan.testing.provider_world import ProviderWorld, ScriptedTransport, SteppingClock

NOW = 1_700_000_000

HOSTS = {"east-gw": Host("east-gw", "198.18.1.2"), "west-gw": Host("west-gw", "198.18.2.2")}

# Made for these tests alone, by `wg genkey` and `wg genpsk`.
SPEC = WireguardSpec.model_validate(
    {
        "between": [
            {
                "host": "east-gw",
                "prefixes": ["10.1.0.0/24"],
                "key": Secret("IDLeP0nh0dHYIqQIGKvvV8hnLL3JnCSuSmyGmnDiOUo="),
            },
            {
                "host": "west-gw",
                "prefixes": ["10.2.0.0/24"],
                "key": Secret("OKKjsVPb3LKyNLHSBNlqBhBVP4nT6pE8A5DXy+mWSGc="),
            },
        ],
        "tunnel": "10.255.0.0/31",
        "interface": "wg-lab",
        "psk": Secret("9yqnkoyOEnaJqrJkYKbpBZ5UnyIbM6fGtLC5SPgiMCs="),
    }
)
ENDS = plan_ends(SPEC, DeploymentAddress("default", "proof").stage("stage"), HOSTS, {})
EAST = ENDS[0]

# What a gateway printed whose link stands; its private and shared keys never leave it.
TEXT = """\
@tools
wg yes
ip yes
nft yes
ping yes
flock yes
sha256sum yes
wireguard-go yes
kernel no
tun yes
@powers
000001ffffffffff
@time
1700000000
@owner
default/proof/stage
@link
[{"ifindex":4,"ifname":"wg-lab","flags":["POINTOPOINT","MULTICAST","NOARP","UP","LOWER_UP"],"mtu":1420,\
"linkinfo":{"info_kind":"tun","info_data":{"type":"tun"}}}]
@addr
[{"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"}]},\
{"ifname":"eth0","addr_info":[{"family":"inet","local":"198.18.1.2","prefixlen":24,"scope":"global"}]},\
{},\
{"ifname":"lan","addr_info":[{"family":"inet","local":"10.1.0.1","prefixlen":24,"scope":"global"}]},\
{"ifname":"wg-lab","addr_info":[{"family":"inet","local":"10.255.0.0","prefixlen":31,"scope":"global"},\
{"family":"inet6","local":"fe80::2fa5","prefixlen":64,"scope":"link"}]}]
@route4
[{"dst":"default","gateway":"198.18.1.1","dev":"eth0","flags":[]},\
{"dst":"10.1.0.0/24","dev":"lan","protocol":"kernel","scope":"link","prefsrc":"10.1.0.1","flags":[]},\
{"dst":"10.2.0.0/24","dev":"wg-lab","protocol":"241","scope":"link","prefsrc":"10.1.0.1","flags":[]},\
{"dst":"10.255.0.0/31","dev":"wg-lab","protocol":"kernel","scope":"link","prefsrc":"10.255.0.0","flags":[]},\
{"dst":"192.0.2.1","gateway":"198.18.1.1","dev":"eth0","protocol":"static","flags":[]}]
@route6
[{"dst":"fe80::/64","dev":"wg-lab","protocol":"kernel","metric":256,"flags":[],"pref":"medium"},\
{"dst":"default","dev":"eth0","protocol":"ra","flags":[]}]
@wg
-\tAl1jceLJAvbZFO3GsRDDWX9R5MP4dxZHy6Vq9kagC3k=\t51820\toff
2Oycx7IzkxR9QhdPOF/JVgWuUbMSUyFK6o+5oXfpxyI=\t-\t198.18.2.2:51820\t10.255.0.1/32,10.2.0.0/24\t1699999990\t4776\t4868\t25
@digests
config CONFIG
rules RULES
loaded 7c65
synced CONFIG
table 7c65
psk PSK
@forward
4 1
6 0
@fixed
@docker
4 iptables-nft yes
@drops
4 ip filter FORWARD
@udp
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
12160: 00000000:CA6C 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 616155 2 0000000020a531de 0
@probes
10.255.0.1 36 yes
10.255.0.1 1420 yes
"""


def made_keys() -> Keys:
    keys = keys_of(SPEC, Memory())
    assert keys is not None
    return keys


KEYS = made_keys()


def text() -> str:
    shared = KEYS.psk("east-gw", "west-gw")
    psk = shared.reveal() if shared else ""
    return (
        TEXT.replace("CONFIG", digest_of(config_text(EAST, KEYS).reveal()))
        .replace("RULES", digest_of(EAST.firewall))
        .replace("PSK", digest_of(f"{KEYS.public['west-gw']}\t{psk}\n"))
    )


def seen() -> Survey:
    return parse_survey(text(), "wg-lab")


ABSENT = """\
@tools
wg yes
ip yes
nft yes
ping yes
flock yes
sha256sum yes
wireguard-go yes
kernel no
tun yes
@powers
000001ffffffffff
@time
1700000000
@owner
@link
@addr
[{"ifname":"lo","addr_info":[]}]
@route4
[]
@route6
@wg
@digests
@forward
4 0
@fixed
@docker
@drops
@udp
@probes
"""


def test_a_survey_is_read_whole() -> None:
    survey = seen()
    assert survey.present
    assert survey.up
    assert survey.plane == "userspace"
    assert survey.addresses == ("10.255.0.0/31",), "link-local addresses are the kernel's"
    assert survey.others["lan"] == ("10.1.0.1/24",)
    assert survey.own_routes == (OwnRoute("10.2.0.0/24", "10.1.0.1"),)
    assert Route(ip_network("::/0"), "eth0", "ra") in survey.routes
    assert Route(ip_network("10.1.0.0/24"), "lan", "kernel", connected=True, source="10.1.0.1") in survey.routes
    assert Route(ip_network("192.0.2.1/32"), "eth0", "static") in survey.routes
    assert survey.ports_in_use == {51820}
    assert survey.filters == Filters({(4, "iptables-nft"): True}, ((4, "ip filter FORWARD"),))
    assert survey.powers == 0x1FF_FFFF_FFFF
    assert survey.probes == (Probe("10.255.0.1", 36, answered=True), Probe("10.255.0.1", 1420, answered=True))


def test_a_host_without_the_interface_is_read_too() -> None:
    survey = parse_survey(ABSENT, "wg-lab")
    assert not survey.present
    assert survey.peers == ()
    assert survey.owner == ""


def test_a_link_that_stands_differs_in_nothing() -> None:
    assert list(differences(EAST, KEYS, seen())) == []


def without(name: str) -> Callable[[Survey], Survey]:
    return lambda survey: replace(survey, digests={key: v for key, v in survey.digests.items() if key != name})


DIFFERENCES: dict[str, tuple[Callable[[Survey], Survey], list[tuple[str, Action]]]] = {
    "down": (lambda s: replace(s, up=False), [("interface wg-lab", Action.UPDATE)]),
    "mtu": (lambda s: replace(s, mtu=1400), [("interface wg-lab", Action.UPDATE)]),
    "key": (lambda s: replace(s, public_key="x"), [("interface wg-lab", Action.UPDATE)]),
    "port": (lambda s: replace(s, port=1), [("interface wg-lab", Action.UPDATE)]),
    "no peer": (lambda s: replace(s, peers=()), [("peer west-gw", Action.CREATE)]),
    "stolen prefix": (
        lambda s: replace(s, peers=(replace(s.peers[0], allowed_ips=("10.255.0.1/32",)),)),
        [("peer west-gw", Action.UPDATE)],
    ),
    "not synced": (without("synced"), [("interface wg-lab", Action.UPDATE)]),
    "addresses": (
        lambda s: replace(s, addresses=("10.9.9.9/32",)),
        [("address 10.255.0.0/31", Action.CREATE), ("address 10.9.9.9/32", Action.DESTROY)],
    ),
    "routes": (
        lambda s: replace(s, own_routes=(OwnRoute("10.3.0.0/16"),)),
        [("route 10.2.0.0/24", Action.CREATE), ("route 10.3.0.0/16", Action.DESTROY)],
    ),
    "source": (
        lambda s: replace(s, own_routes=(OwnRoute("10.2.0.0/24"),)),
        [("route 10.2.0.0/24", Action.UPDATE)],
    ),
    "table": (
        lambda s: replace(s, digests={**s.digests, "table": "else"}),
        [("firewall skyspan-wg-lab", Action.UPDATE)],
    ),
    "file": (without("config"), [("file wg-lab.conf", Action.CREATE)]),
    "forwarding": (lambda s: replace(s, forwarding={4: False}), [("forwarding of IPv4", Action.UPDATE)]),
}


@pytest.mark.parametrize("what", DIFFERENCES)
def test_every_difference_is_named(what: str) -> None:
    spoil, expected = DIFFERENCES[what]
    found = [(item.address, item.action) for item in differences(EAST, KEYS, spoil(seen()))]
    assert found == [(f"east-gw: {address}", action) for address, action in expected]


def test_another_plane_is_only_made_when_it_is_asked_for() -> None:
    assert list(differences(replace(EAST, plane="userspace"), KEYS, seen())) == []
    found = list(differences(replace(EAST, plane="kernel"), KEYS, seen()))
    assert [(item.action, item.note) for item in found] == [(Action.REPLACE, "carried by userspace, not by kernel")]


def test_a_gateway_without_an_address_in_its_site_uses_the_tunnels() -> None:
    assert routes_of(EAST, replace(seen(), others={})) == (OwnRoute("10.2.0.0/24"),)


def legs(**changes: object) -> list[str]:
    east = replace(seen(), **changes)  # type: ignore[arg-type]
    found = legs_of((EAST,), KEYS, (east,))
    return [leg.line() for leg in found if not leg.ok]


def test_a_link_that_carries_traffic_is_ready() -> None:
    assert legs() == []


def test_every_leg_that_fails_is_named() -> None:
    peer = seen().peers[0]
    old = replace(peer, handshake=NOW - 180)
    probes = seen().probes
    assert legs(up=False) == ["FAIL interface wg-lab of east-gw: down"]
    assert legs(present=False, up=False)[0] == "FAIL interface wg-lab of east-gw: absent"
    assert legs(peers=(old,)) == ["FAIL handshake of east-gw with west-gw: 180 s ago"]
    assert legs(peers=(replace(peer, handshake=0),)) == [
        "FAIL handshake of east-gw with west-gw: never, towards 198.18.2.2:51820"
    ]
    assert legs(probes=()) == ["FAIL ping from east-gw to west-gw (10.255.0.1): no answer"]
    assert legs(probes=probes[:1]) == ["FAIL packets of 1420 bytes from east-gw to west-gw: lost"]


def test_the_summary_names_the_first_failing_leg_and_counts_the_rest() -> None:
    found = list(legs_of((EAST,), KEYS, (replace(seen(), up=False, peers=()),)))
    assert summary(found) == "interface wg-lab of east-gw: down (and 1 more)"
    assert summary([]) == ""


def absent() -> Survey:
    return parse_survey(ABSENT, "wg-lab")


def test_missing_tools_are_named_with_their_packages() -> None:
    tools = dict(absent().tools) | {"wg": False, "nft": False}
    with pytest.raises(ToolMissingError) as caught:
        refuse_missing_tools(EAST, replace(absent(), tools=tools))
    assert caught.value.summary == "east-gw has no wg, nft"
    assert caught.value.hint == "on east-gw: apt-get install wireguard-tools nftables"


def test_a_gateway_with_neither_plane_is_refused() -> None:
    tools = dict(absent().tools) | {"wireguard-go": False}
    with pytest.raises(ToolMissingError, match="neither the kernel of east-gw nor wireguard-go"):
        refuse_missing_tools(EAST, replace(absent(), tools=tools))
    refuse_missing_tools(EAST, replace(absent(), tools=tools | {"kernel": True}))


DOCKERS_DEFAULT = 0xA80425FB
"""What a container may do when nothing more is asked for."""

LACKING: dict[str, tuple[dict[str, Any], str, str]] = {
    "NET_ADMIN": ({"powers": DOCKERS_DEFAULT}, "lacks the capability NET_ADMIN", "--cap-add NET_ADMIN"),
    "a TUN": ({"tools": {"kernel": False, "tun": False}}, "has no /dev/net/tun", "--device /dev/net/tun"),
    "writable settings": ({"fixed": frozenset({4})}, "its /proc/sys is read-only", "--sysctl net.ipv4.ip_forward=1"),
    "IPv4 at all": ({"forwarding": {}}, "has it switched off altogether", "leave out the prefixes"),
}


@pytest.mark.parametrize("what", LACKING)
def test_a_gateway_that_may_not_do_what_it_must_is_refused_with_what_to_give_it(what: str) -> None:
    changes, words, hint = LACKING[what]
    refuse_missing_powers(EAST, absent())
    with pytest.raises(NotReadyError, match=re.escape(words)) as caught:
        refuse_missing_powers(EAST, replace(absent(), **changes))
    assert hint in caught.value.hint


def test_what_a_gateway_does_not_need_may_be_missing() -> None:
    kernel = {"kernel": True, "tun": False}
    refuse_missing_powers(EAST, replace(absent(), tools=kernel))
    refuse_missing_powers(EAST, replace(absent(), fixed=frozenset({4, 6}), forwarding={4: True}))
    with pytest.raises(NotReadyError, match="/dev/net/tun"):
        refuse_missing_powers(replace(EAST, plane="userspace"), replace(absent(), tools=kernel))


def test_what_dockers_chains_lack_is_a_difference() -> None:
    shut = replace(seen(), filters=Filters({(4, "iptables-nft"): False, (6, "ip6tables-nft"): False}))
    assert [(item.address, item.action) for item in differences(EAST, KEYS, shut)] == [
        ("east-gw: DOCKER-USER of iptables-nft", Action.CREATE)
    ]
    needless = replace(seen(), filters=Filters({(4, "iptables-nft"): True, (6, "ip6tables-nft"): True}))
    assert [(item.address, item.action) for item in differences(EAST, KEYS, needless)] == [
        ("east-gw: DOCKER-USER of ip6tables-nft", Action.DESTROY)
    ]


def test_a_filter_of_others_that_drops_is_named_by_the_diagnosis() -> None:
    ends = (EAST, ENDS[1])
    for filters, words in (
        (Filters({(4, "iptables-nft"): False}), "its chain DOCKER-USER of iptables-nft does not let wg-lab through"),
        (Filters({}, ((4, "ip filter FORWARD"),)), "the chain ip filter FORWARD drops what is forwarded over IPv4"),
        # Docker's chain opens Docker's own filter and nobody else's.
        (Filters({(4, "iptables-nft"): True}, ((4, "inet theirs way"),)), "the chain inet theirs way drops"),
        (Filters({(4, "iptables-legacy"): True}, ((4, "ip filter FORWARD"),)), "the chain ip filter FORWARD drops"),
    ):
        shut = replace(seen(), filters=filters)
        found = [item for item in diagnosis(Scene(ends, KEYS, (shut, shut))) if item.cause is Cause.FORWARD_DROPPED]
        assert [item.where for item in found] == ["east-gw", "west-gw"]
        assert all(words in item.words for item in found)
    for tool, drops in (
        ("iptables-nft", ((6, "ip6 filter FORWARD"), (4, "ip filter FORWARD"))),
        ("iptables-legacy", ((4, "iptables-legacy FORWARD"),)),
    ):
        fine = replace(seen(), filters=Filters({(4, tool): True}, drops))
        assert Cause.FORWARD_DROPPED not in [item.cause for item in diagnosis(Scene(ends, KEYS, (fine, fine)))]


def refused(survey: Survey, end: EndState = EAST) -> str:
    with pytest.raises(SpecError) as caught:
        refuse_collisions(end, survey, frozenset())
    return caught.value.summary


def test_what_is_in_the_way_is_refused() -> None:
    free = absent()
    refuse_collisions(EAST, free, frozenset())
    assert "belongs to default/other/link" in refused(replace(free, owner="default/other/link"))
    assert "is taken on east-gw" in refused(replace(seen(), owner=""))
    assert "UDP port 51820 of east-gw is in use" in refused(replace(free, ports_in_use=frozenset({51820})))
    assert "10.255.0.1/24 is in use on east-gw, by lan" in refused(replace(free, others={"lan": ("10.255.0.1/24",)}))
    lan = Route(ip_network("10.2.0.0/16"), "lan", "kernel", connected=True)
    assert "would take over the connected network 10.2.0.0/16 of lan" in refused(replace(free, routes=(lan,)))
    other = Route(ip_network("10.2.0.0/24"), "sky-other", "241")
    assert "already routed over another link, sky-other" in refused(replace(free, routes=(other,)))


def test_the_links_own_things_are_not_in_the_way() -> None:
    refuse_collisions(EAST, seen(), frozenset())
    old = replace(absent(), others={"sky-old": ("10.255.0.0/31",)}, ports_in_use=frozenset({51820}))
    refuse_collisions(EAST, old, frozenset({"sky-old"}))


def world(tmp_path: Path, east: str, west: str) -> ProviderWorld:
    def place(name: str, answer: str) -> ScriptedTransport:
        def says(command: Command) -> Completed:
            return Completed(0, stdout=answer.encode())

        return ScriptedTransport(says, name=name)

    places = {"east-gw": place("east-gw", east), "west-gw": place("west-gw", west)}
    return ProviderWorld(tmp_path, places, hosts=HOSTS, clock=SteppingClock(float(NOW)))


async def test_clocks_that_are_apart_are_refused_before_anything_is_touched(tmp_path: Path) -> None:
    scene = world(tmp_path, ABSENT, ABSENT.replace(str(NOW), str(NOW - 3600)))
    provider = WireguardProvider()
    read = scene.reading()
    change = await provider.plan(SPEC, await provider.observe(SPEC, read), read)
    with pytest.raises(NotReadyError, match="the clock of west-gw is 3600 s behind that of east-gw"):
        await provider.apply(SPEC, change, scene.writing())
    assert scene.kept.data == {}


async def test_clocks_that_agree_but_not_with_ours_are_only_mentioned(tmp_path: Path) -> None:
    later = ABSENT.replace(str(NOW), str(NOW + 500))
    scene = world(tmp_path, later, later)
    provider = WireguardProvider()
    read = scene.reading()
    change = await provider.plan(SPEC, await provider.observe(SPEC, read), read)
    with pytest.raises(NotReadyError, match=r"interface wg-lab of east-gw: absent \(and 5 more\)"):
        await provider.apply(SPEC, change, scene.writing())
    assert "the clock of east-gw differs from the one here by +500 s" in scene.report.lines


async def test_an_answer_that_is_none_is_an_error_and_no_bug(tmp_path: Path) -> None:
    scene = world(tmp_path, "Welcome to Ubuntu!", ABSENT)
    provider = WireguardProvider()
    read = scene.reading()
    change = await provider.plan(SPEC, await provider.observe(SPEC, read), read)
    with pytest.raises(ToolFailedError, match="what east-gw says about its interfaces cannot be read"):
        await provider.apply(SPEC, change, scene.writing())


async def test_what_was_never_applied_is_absent_without_a_look_at_any_host(tmp_path: Path) -> None:
    scene = world(tmp_path, "", "")
    provider = WireguardProvider()
    assert not (await provider.observe(SPEC, scene.reading())).exists
    await provider.destroy(SPEC, scene.writing())
    assert scene.commands == []


async def test_the_plan_of_a_new_link_lists_what_both_sides_get(tmp_path: Path) -> None:
    scene = world(tmp_path, "", "")
    provider = WireguardProvider()
    read = scene.reading()
    change = await provider.plan(SPEC, await provider.observe(SPEC, read), read)
    assert change.action is Action.CREATE
    addresses = [item.address for item in change.resources]
    assert "east-gw: route 10.2.0.0/24" in addresses
    assert "west-gw: peer east-gw" in addresses
    assert change.outputs["interface"].value == "wg-lab"
    assert "public_keys" not in change.outputs, "keys that are not made yet are not known"


async def test_preflight_names_prefixes_that_overlap(tmp_path: Path) -> None:
    ends = [{"host": "a", "prefixes": ["10.0.0.0/8"]}, {"host": "b", "prefixes": ["10.2.0.0/16", "not yet"]}]
    found = await WireguardProvider().preflight({"between": ends}, world(tmp_path, "", "").reading())
    assert [item.summary for item in found] == ["prefix 10.0.0.0/8 of a overlaps 10.2.0.0/16 of b"]
    assert await WireguardProvider().preflight({"between": "later"}, world(tmp_path, "", "").reading()) == ()
