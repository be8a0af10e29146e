"""The settings of a link: what is refused, what follows from them, and the texts made of them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.contracts.host import Host
from skyspan.contracts.transport import Effect
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.networks.endpoints import parse_endpoint
from skyspan.networks.peers import OwnRoute
from skyspan.networks.wireguard.commands import prepare_command, raise_command, remove_command, survey_command
from skyspan.networks.wireguard.config import config_text
from skyspan.networks.wireguard.keys import Memory, keys_of, public_key, with_keys
from skyspan.networks.wireguard.link import Ends, EndState, plan_ends, settings_digest
from skyspan.networks.wireguard.numbering import numbered
from skyspan.networks.wireguard.provider import WireguardProvider
from skyspan.networks.wireguard.spec import WireguardSpec

ADDRESS = DeploymentAddress("default", "hybrid").stage("link")

# Made for these tests alone, by `wg genkey`, `wg pubkey` and `wg genpsk`.
EAST = Secret("IDLeP0nh0dHYIqQIGKvvV8hnLL3JnCSuSmyGmnDiOUo=")
WEST = Secret("OKKjsVPb3LKyNLHSBNlqBhBVP4nT6pE8A5DXy+mWSGc=")
PSK = Secret("9yqnkoyOEnaJqrJkYKbpBZ5UnyIbM6fGtLC5SPgiMCs=")


def spec(east: dict[str, Any] | None = None, west: dict[str, Any] | None = None, **settings: Any) -> WireguardSpec:
    ends = [
        {"host": "east", "prefixes": ["10.1.0.0/16"]} | (east or {}),
        {"host": "west", "prefixes": ["10.2.0.0/16"]} | (west or {}),
    ]
    return WireguardSpec.model_validate({"between": ends, **settings})


def hosts(user: str = "root") -> dict[str, Host]:
    return {"east": Host("east", "198.51.100.1", user=user), "west": Host("west", "2001:db8::2", user=user)}


def ends(settings: WireguardSpec, user: str = "root") -> Ends:
    return plan_ends(settings, ADDRESS, hosts(user), {})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "overlap": ({"west": {"prefixes": ["10.0.0.0/8"]}}, "prefix 10.1.0.0/16 of east overlaps 10.0.0.0/8 of west"),
    "host bits": ({"west": {"prefixes": ["10.2.0.1/16"]}}, "did you mean 10.2.0.0/16?"),
    "no prefix": ({"west": {"prefixes": ["lab"]}}, "'lab' is no network prefix such as 10.20.0.0/16"),
    "everything": ({"west": {"prefixes": ["0.0.0.0/0"]}}, "does not take the default route"),
    "one host": ({"west": {"host": "east"}}, "east is more than one side"),
    "loop": ({"west": {"endpoint": "10.2.0.9"}}, "endpoint 10.2.0.9 of west lies inside its own prefix 10.2.0.0/16"),
    "endpoint": ({"west": {"endpoint": "a b"}}, "'a b' is no address"),
    "endpoint's port": ({"west": {"endpoint": "gw:99999"}}, "does not end in a port between 1 and 65535"),
    "both behind NAT": (
        {"east": {"nat": True}, "west": {"nat": True}},
        "east and west are both behind NAT, so neither can call the other",
    ),
    "rule": ({"allow": ["tcp"]}, "'tcp' is no rule"),
    "interface": ({"interface": "much-too-long-a-name"}, "is no interface name"),
    "interface's letters": ({"interface": "a/../b"}, "is no interface name"),
    "tunnel": ({"tunnel": "10.255.0.1/32"}, "no room for two"),
    "one address": ({"east": {"address": "10.255.0.1/30"}}, "give `address` for every side or for none"),
    "service": ({"expect": ["10.2.0.9"]}, "has no port"),
    "service elsewhere": ({"expect": ["192.0.2.1:80"]}, "192.0.2.1:80 is behind no side"),
    "public key alone": ({"east": {"public_key": public_key(EAST)}}, "`public_key` needs `key`"),
    "small MTU": ({"mtu": 1200, "west": {"prefixes": ["2001:db8:2::/48"]}}, "too small for IPv6"),
    "small MTU inside": ({"mtu": 1200, "tunnel": "fd00::/127"}, "too small for IPv6"),
    "no time to confirm": ({"confirm_within": 0.5}, "greater than or equal to 1"),
    "unknown key": ({"west": {"prefix": "10.2.0.0/16"}}, "Extra inputs"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_settings_that_cannot_work_are_refused_in_words(what: str) -> None:
    settings, words = REFUSED[what]
    with pytest.raises(ValidationError) as caught:
        spec(**settings)
    assert words in str(caught.value)


def test_a_key_that_is_none_is_refused_without_showing_it() -> None:
    with pytest.raises(ValidationError) as caught:
        spec(east={"key": Secret("hush-hush")})
    assert "no WireGuard key" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("gw.example.org", ("gw.example.org", None)),
        ("192.0.2.1:51820", ("192.0.2.1", 51820)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
    ],
)
def test_endpoints_are_read(text: str, place: tuple[str, int | None]) -> None:
    assert parse_endpoint(text) == place


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2001:db8::1", "is IPv6 without brackets: write [2001:db8::1], or [2001:db8::1]:PORT"),
        ("2001:db8::1:51820", "is IPv6 without brackets: write [2001:db8::1], or [2001:db8::1]:PORT"),
        ("2001:db8::1:5182", "is IPv6 without brackets: write [2001:db8::1:5182], or"),
        ("1.2.3.4:5:6", "is no address and no name"),
        ("[2001:db8::1", "brackets are for IPv6 alone"),
        ("[2001:db8::1]51820", "brackets are for IPv6 alone"),
        ("[192.0.2.1]:51820", "brackets are for IPv6 alone"),
        ("[2001:db8::1]:0", "does not end in a port"),
    ],
)
def test_an_endpoint_that_could_be_read_in_two_ways_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(west={"endpoint": text})
    assert words in str(caught.value)


def test_an_endpoint_defaults_to_the_hosts_address() -> None:
    east, west = ends(spec(west={"port": 4500}))
    assert (east.peers[0].calls, east.listens) == ("[2001:db8::2]:4500", "198.51.100.1:51820")
    assert west.peers[0].calls == "198.51.100.1:51820"
    assert ends(spec(west={"endpoint": "192.0.2.7:999"}))[0].peers[0].calls == "192.0.2.7:999"


def test_a_hosts_address_inside_its_own_prefix_is_a_loop() -> None:
    with pytest.raises(SpecError, match="endpoint 198\\.51\\.100\\.1 of east lies inside its own prefix"):
        ends(spec(east={"prefixes": ["198.51.100.0/24"]}))


def test_a_host_that_the_composition_does_not_name_is_an_error() -> None:
    with pytest.raises(SpecError, match="no host 'north'"):
        ends(spec(east={"host": "north"}))


def test_tunnel_addresses_are_a_pair_of_one_network() -> None:
    east, west = ends(spec())
    assert (east.peer_addresses, west.peer_addresses) == ((west.addresses[0][:-3],), (east.addresses[0][:-3],))
    assert east.addresses == ends(spec())[0].addresses
    assert [end.addresses for end in ends(spec(tunnel="10.9.0.0/29"))] == [("10.9.0.1/29",), ("10.9.0.2/29",)]
    given = spec(east={"address": "10.9.0.1"}, west={"address": "10.9.5.1"})
    assert [str(net) for net in ends(given)[0].destinations] == ["10.9.5.1/32", "10.2.0.0/16"]


def test_ipv6_prefixes_get_tunnel_addresses_of_their_own() -> None:
    east, _ = ends(spec(west={"prefixes": ["2001:db8:2::/48"], "endpoint": "192.0.2.1"}))
    assert [address.count(":") > 0 for address in east.addresses] == [False, True]
    assert east.families == (4, 6)


def test_routes_can_be_left_to_somebody_else() -> None:
    west = {"prefixes": ["10.2.0.0/16", "2001:db8:2::/48"], "endpoint": "192.0.2.1"}
    bare, _ = ends(spec(west=west, routes="none"))
    full, _ = ends(spec(west=west))
    assert bare.destinations == ()
    assert [peer.allowed_ips for peer in bare.peers] == [peer.allowed_ips for peer in full.peers]
    assert bare.firewall == full.firewall
    assert bare.families == full.families
    alone = spec(east={"address": "10.9.0.1"}, west={"address": "10.9.5.1"}, routes="none")
    assert [str(net) for net in ends(alone)[0].destinations] == ["10.9.5.1/32"], "what the tunnel itself needs"


def test_keepalive_is_sent_by_the_side_behind_nat_and_by_both_when_none_is() -> None:
    assert [end.peers[0].keepalive for end in ends(spec())] == [25, 25]
    assert [end.peers[0].keepalive for end in ends(spec(west={"nat": True}))] == [0, 25]
    assert [end.peers[0].keepalive for end in ends(spec(keepalive=0))] == [0, 0]


def test_a_side_behind_nat_is_not_called() -> None:
    east, west = ends(spec(west={"nat": True}))
    assert east.peers[0].calls == ""
    assert west.peers[0].calls == "198.51.100.1:51820"


def test_the_configuration_is_what_wg_quick_reads() -> None:
    settings = spec(east={"key": EAST}, west={"key": WEST}, psk=PSK, tunnel="10.255.0.0/31", interface="wg-lab")
    keys = keys_of(settings, Memory())
    assert keys is not None
    east, _ = ends(settings)
    rule = 'DOCKER-USER "$way" %i -m comment --comment skyspan-wg-lab -j ACCEPT'
    docker = (
        "! iptables -w -n -L DOCKER-USER >/dev/null 2>&1 || for way in -i -o; do "
        f"iptables -w -C {rule} 2>/dev/null || iptables -w -I {rule}; done"
    )
    assert (
        config_text(east, keys).reveal()
        == f"""\
# Made by Skyspan for default/hybrid/link: what is changed here is overwritten.
[Interface]
PrivateKey = {EAST.reveal()}
ListenPort = 51820
Address = 10.255.0.0/31
MTU = 1420
Table = off
PreUp = sysctl -n net.ipv4.ip_forward | grep -qx 1 || sysctl -q -w net.ipv4.ip_forward=1
PreUp = nft -f /etc/wireguard/wg-lab.nft
PreUp = {docker}
PostUp = ip route replace 10.2.0.0/16 dev %i proto 241

[Peer]
# west
PublicKey = {public_key(WEST)}
PresharedKey = {PSK.reveal()}
AllowedIPs = 10.255.0.1/32, 10.2.0.0/16
Endpoint = [2001:db8::2]:51820
PersistentKeepalive = 25
"""
    )


def test_no_shared_key_is_said_as_such() -> None:
    settings = spec(east={"key": EAST}, west={"key": WEST}, psk=False)
    keys = keys_of(settings, Memory())
    assert keys is not None
    assert f"PresharedKey = {'A' * 43}=\n" in config_text(ends(settings)[0], keys).reveal()


def test_keys_are_made_once_and_kept() -> None:
    memory = with_keys(Memory(), spec())
    assert set(memory.private) == {"east", "west"}
    assert with_keys(memory, spec()) == memory
    assert with_keys(memory, spec(psk=False)).shared == memory.shared, "it may be wanted again"
    assert keys_of(spec(), Memory()) is None


def test_a_public_key_is_what_wg_pubkey_prints() -> None:
    assert public_key(EAST) == "Al1jceLJAvbZFO3GsRDDWX9R5MP4dxZHy6Vq9kagC3k="


def test_a_pair_of_keys_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecError, match="does not belong to its public key") as caught:
        keys_of(
            spec(east={"key": EAST, "public_key": public_key(WEST)}, west={"key": WEST}), with_keys(Memory(), spec())
        )
    assert EAST.reveal() not in str(caught.value)


def test_commands_carry_secrets_by_standard_input_only() -> None:
    east, _ = ends(spec())
    config = Secret("PrivateKey = x")
    command = prepare_command(east, config)
    assert command.stdin is config
    assert "PrivateKey = x" not in command.display()
    assert command.effect is Effect.WRITE
    assert survey_command(east, probe=True).effect is Effect.READ


def test_a_login_that_is_not_root_asks_sudo() -> None:
    east, _ = ends(spec(), user="ubuntu")
    for command in (survey_command(east, probe=False), raise_command(east, (OwnRoute("10.2.0.0/16"),), again=False)):
        assert command.argv[:3] == ("sudo", "-n", "sh")
    assert remove_command("sky-1", "a/b/c", sudo=True).argv[0] == "sudo"


def test_settings_differ_when_the_other_side_moves() -> None:
    settings = spec()
    moved = hosts() | {"west": Host("west", "192.0.2.9")}
    assert settings_digest(settings, ends(settings)) != settings_digest(
        settings, plan_ends(settings, ADDRESS, moved, {})
    )


def star(*names: str, hub: str | None = "hub", **settings: Any) -> WireguardSpec:
    ends = [{"host": name, "prefixes": [f"10.{number}.0.0/16"]} for number, name in enumerate(names, 1)]
    return WireguardSpec.model_validate({"between": ends, "hub": hub, **settings})


def planned(settings: WireguardSpec, numbers: dict[str, int] | None = None) -> dict[str, EndState]:
    places = {end.host: Host(end.host, f"192.0.2.{n}") for n, end in enumerate(settings.between, 1)}
    return {end.host: end for end in plan_ends(settings, ADDRESS, places, numbers or {})}


def test_spokes_are_joined_to_the_hub_alone() -> None:
    found = planned(star("hub", "a", "b"))
    assert {name: [peer.host for peer in end.peers] for name, end in found.items()} == {
        "hub": ["a", "b"],
        "a": ["hub"],
        "b": ["hub"],
    }
    assert [str(net) for net in found["a"].there] == ["10.1.0.0/16"]
    interface = found["hub"].interface
    assert f'iifname "{interface}" oifname "{interface}"' not in found["hub"].firewall


def test_spokes_meet_through_the_hub_when_that_is_declared() -> None:
    found = planned(star("hub", "a", "b", spokes_meet=True))
    address = found["b"].addresses[0].partition("/")[0]
    assert found["a"].peers[0].allowed_ips[1:] == ("10.1.0.0/16", f"{address}/32", "10.3.0.0/16")
    assert [str(net) for net in found["a"].destinations] == ["10.1.0.0/16", f"{address}/32", "10.3.0.0/16"]
    interface = found["hub"].interface
    assert f'iifname "{interface}" oifname "{interface}" ip saddr {{' in found["hub"].firewall


def test_without_a_hub_everybody_meets_everybody() -> None:
    found = planned(star("a", "b", "c", hub=None))
    assert {name: [peer.host for peer in end.peers] for name, end in found.items()} == {
        "a": ["b", "c"],
        "b": ["a", "c"],
        "c": ["a", "b"],
    }
    memory = with_keys(Memory(), star("a", "b", "c", hub=None))
    assert set(memory.shared) == {("a", "b"), ("a", "c"), ("b", "c")}


def test_who_stays_keeps_its_address_when_others_come_and_go() -> None:
    first = star("hub", "a", "b", "c")
    numbers = dict(numbered(first, {}))
    later = star("hub", "c", "d", "e")
    renumbered = numbered(later, numbers)
    assert renumbered == {"hub": 0, "c": 3, "d": 1, "e": 2}
    before, after = planned(first, numbers), planned(later, dict(renumbered))
    assert before["c"].addresses == after["c"].addresses


REFUSED_STARS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown hub": ({"hub": "x"}, "the hub x is none of the sides: hub, a, b"),
    "no hub to meet by": ({"hub": None, "spokes_meet": True}, "without one all sides meet anyway"),
    "no room": ({"tunnel": "10.9.0.0/31"}, "10.9.0.0/31 has no room for 3 tunnel addresses"),
}


@pytest.mark.parametrize("what", REFUSED_STARS)
def test_a_star_that_cannot_be_is_refused_in_words(what: str) -> None:
    settings, words = REFUSED_STARS[what]
    with pytest.raises(ValidationError, match=words):
        star("hub", "a", "b", **settings)


def test_only_joined_sides_need_to_be_able_to_call_each_other() -> None:
    behind: list[dict[str, Any]] = [{"host": name, "prefixes": [], "nat": True} for name in ("a", "b")]
    WireguardSpec.model_validate({"between": [{"host": "hub", "prefixes": []}, *behind], "hub": "hub"})
    with pytest.raises(ValidationError, match="a and b are both behind NAT"):
        WireguardSpec.model_validate({"between": [{"host": "hub", "prefixes": []}, *behind]})


def test_a_gateway_with_nothing_behind_it_forwards_nothing() -> None:
    assert planned(star("hub", "a", "b"))["hub"].families == (4,)
    bare = [{"host": name} for name in ("hub", "a", "b")]
    assert planned(WireguardSpec.model_validate({"between": bare, "hub": "hub"}))["hub"].families == ()
    meeting = WireguardSpec.model_validate({"between": bare, "hub": "hub", "spokes_meet": True})
    assert planned(meeting)["hub"].families == (4,)


def test_a_thousand_spokes_are_planned_in_linear_time() -> None:
    few, many = (star_of(count) for count in (100, 900))
    assert sum(len(end.peers) for end in planned(many).values()) == 2 * 899
    assert len(planned(few)["hub"].firewall) * 12 > len(planned(many)["hub"].firewall)


def star_of(count: int) -> WireguardSpec:
    ends = [{"host": "hub"}, *({"host": f"spoke-{n}"} for n in range(count - 1))]
    return WireguardSpec.model_validate({"between": ends, "hub": "hub"})


def test_a_link_describes_its_ends() -> None:
    assert WireguardProvider().describe_link(spec(allow=["tcp/22"])) == {
        "ends": [{"host": "east", "prefixes": ["10.1.0.0/16"]}, {"host": "west", "prefixes": ["10.2.0.0/16"]}],
        "allow": ["tcp/22"],
    }
