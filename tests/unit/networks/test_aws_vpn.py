"""The customer gateway of a cloud-managed VPN: facts that are refused, what follows from them, trouble in words."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.support.cloud_vpn import FACTS

from skyspan.contracts.host import Host
from skyspan.contracts.watch import Cause
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Action, Observation, ResourceChange
from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.model.value import concealed
from skyspan.networks.awsvpn.example import EXAMPLE
from skyspan.networks.awsvpn.observation import View, observation, views
from skyspan.networks.awsvpn.spec import AwsVpnSpec, Facts
from skyspan.networks.awsvpn.tunnels import plan_tunnels, planes_of, sessions_of, settings_digest
from skyspan.networks.awsvpn.watching import causes, repairs, speaks
from skyspan.networks.bgp.speaking import plan_instances
from skyspan.networks.docker import NO_FILTERS, Filters
from skyspan.networks.firewall import Address
from skyspan.networks.ipsec.config import connection, files
from skyspan.networks.ipsec.link import EndState
from skyspan.networks.ipsec.parse import Child, Session, Survey
from skyspan.networks.ipsec.spec import Plane
from skyspan.networks.proving import Probe

ADDRESS = DeploymentAddress("default", "hybrid").stage("vpn")

RECORDED = Path(__file__).parent / "recorded" / "aws_vpn_connection.json"
"""All attributes of a connection as Terraform's AWS provider (5.100) read it from a stand-in AWS (moto 5.2.5), which
says the same of both tunnels and leaves the options of the request aside."""


def spec(facts: dict[str, Any] | None = None, **settings: Any) -> AwsVpnSpec:
    given = {"host": "lab-gw", "facts": {**FACTS, **(facts or {})}}
    return AwsVpnSpec.model_validate({**given, "prefixes": ["10.1.0.0/24"], "remote": ["10.2.0.0/16"], **settings})


def ends(
    settings: AwsVpnSpec,
    plane: Plane = "userspace",
    source: Address | None = None,
    address: str = "203.0.113.10",
) -> tuple[EndState, ...]:
    return plan_tunnels(settings, ADDRESS, {"lab-gw": Host("lab-gw", address)}, plane, source)


BGP = {"asn": 65000}

REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "one outside address": (
        {"tunnel2_address": "198.18.2.2"},
        {},
        "both tunnels have the outside address 198.18.2.2",
    ),
    "one inside network": (
        {"tunnel2_cgw_inside_address": "169.254.10.2", "tunnel2_vgw_inside_address": "169.254.10.1"},
        {},
        "both tunnels have their inside addresses in 169.254.10.0/30",
    ),
    "no inside address": ({"tunnel1_vgw_inside_address": "10.0.0.1"}, {}, "10.0.0.1 is no inside address of a tunnel"),
    "inside addresses apart": (
        {"tunnel1_vgw_inside_address": "169.254.30.1"},
        {},
        "are not in one network of four addresses",
    ),
    "twice the same": (
        {"tunnel1_vgw_inside_address": "169.254.10.2"},
        {},
        "tunnel1_cgw_inside_address and tunnel1_vgw_inside_address are both 169.254.10.2",
    ),
    "no address": ({"tunnel1_address": "vpn.example.org"}, {}, "'vpn.example.org' is no IP address"),
    "an IPv6 outside": ({"tunnel1_address": "2001:db8::1"}, {}, "2001:db8::1 is no IPv4 address"),
    "short key": ({"tunnel1_preshared_key": "short"}, {}, "too short: at least 8 characters"),
    "no key": ({"tunnel1_preshared_key": None}, {}, "tunnel1_preshared_key"),
    "a system of zero": ({"tunnel1_bgp_asn": "0"}, {}, "greater than or equal to 1"),
    "a hold time of one": ({"tunnel1_bgp_holdtime": 1}, {}, "tunnel1_bgp_holdtime 1 is too short"),
    "overlap": ({}, {"remote": ["10.0.0.0/8"]}, "prefix 10.1.0.0/24 of lab-gw overlaps 10.0.0.0/8 of the cloud"),
    "an end in a prefix": (
        {},
        {"remote": ["198.18.0.0/15"]},
        "tunnel1_address 198.18.2.2 lies inside 198.18.0.0/15, which the tunnel carries",
    ),
    "a prefix inside": ({}, {"prefixes": ["169.254.0.0/20"]}, "overlaps the tunnel's own addresses 169.254.10.0/30"),
    "IPv6": ({}, {"prefixes": ["2001:db8:1::/48"]}, "the tunnels carry IPv4 only"),
    "everything": ({}, {"remote": ["0.0.0.0/0"]}, "does not take the default route"),
    "a service elsewhere": ({}, {"expect": ["192.0.2.1:80"]}, "192.0.2.1 is in none of the `remote` networks"),
    "a ping elsewhere": ({}, {"ping": "192.0.2.1"}, "192.0.2.1 is in none of the `remote` networks"),
    "interfaces without BGP": ({}, {"mode": "route"}, "`mode: route` needs `bgp`"),
    "BGP without interfaces": ({}, {"mode": "policy", "bgp": BGP}, "no interface that BGP could speak over"),
    "BGP of a static connection": ({"tunnel2_bgp_asn": ""}, {"bgp": BGP}, "the facts have no tunnel2_bgp_asn"),
    "one system": ({}, {"bgp": {"asn": 64512}}, "`bgp.asn` is 64512 as the cloud's own"),
    "unknown key": ({}, {"remotes": []}, "Extra inputs"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_facts_and_settings_that_cannot_work_are_refused_in_words(what: str) -> None:
    facts, settings, words = REFUSED[what]
    with pytest.raises(ValidationError) as caught:
        spec(facts, **settings)
    assert words in str(caught.value)
    assert "for_this.test" not in str(caught.value), "a key is in the message"


def test_facts_of_a_stand_in_that_cannot_tell_its_tunnels_apart_are_refused() -> None:
    recorded = json.loads(RECORDED.read_text())
    assert (recorded["tunnel1_bgp_asn"], recorded["tunnel1_bgp_holdtime"]) == ("7224", 30)
    with pytest.raises(
        ValidationError, match=r"both tunnels have the outside address 52\.2\.144\.13.*169\.254\.44\.40"
    ):
        spec(recorded)
    read = spec({**recorded, **{name: FACTS[name] for name in FACTS if name.startswith("tunnel2_")}})
    assert read.facts.tunnels[0].asn == 7224
    assert read.facts.tunnels[0].key == Secret(recorded["tunnel1_preshared_key"])


def test_a_sensitive_output_is_taken_as_it_arrives_and_only_its_keys_stay_secret() -> None:
    sealed: Any = concealed(json.loads(json.dumps(dict(FACTS))))
    assert sealed["tunnel1_bgp_holdtime"] == Secret("30")
    read = spec(sealed)
    assert read == spec()
    assert read.facts.tunnels[1].outside == "198.18.2.3"
    assert read.facts.tunnels[1].hold == 30
    secret = [name for name in Facts.model_fields if isinstance(getattr(read.facts, name), Secret)]
    assert secret == ["tunnel1_preshared_key", "tunnel2_preshared_key"]
    assert "for_this.test" not in repr(read)


def test_the_host_is_known_by_its_public_address() -> None:
    assert {end.own_id for end in ends(spec())} == {"203.0.113.10"}
    assert {end.own_id for end in ends(spec(id="198.51.100.9"), address="10.9.0.2")} == {"198.51.100.9"}
    with pytest.raises(SpecError, match=r"is the name gw\.example\.org") as caught:
        ends(spec(), address="gw.example.org")
    assert "aws_customer_gateway" in caught.value.hint
    with pytest.raises(SpecError, match="no host 'elsewhere'"):
        ends(spec(host="elsewhere"))
    with pytest.raises(SpecError, match=r"endpoint 10\.1\.0\.1 of lab-gw lies inside its own prefix"):
        ends(spec(), address="10.1.0.1")


def test_each_tunnel_has_a_name_a_key_and_addresses_of_its_own() -> None:
    one, other = ends(spec())
    assert one.name != other.name
    assert max(len(end.name) for end in (one, other)) <= 15, "an interface takes 15 characters"
    assert (one.addresses, one.peer_addresses) == (("169.254.10.2",), ("169.254.10.1",))
    assert one.local_selectors == ("10.1.0.0/24", "169.254.10.2/32")
    assert other.remote_selectors == ("10.2.0.0/16", "169.254.20.1/32")
    text = connection(spec(), other)
    assert "remote_addrs = 198.18.2.3" in text
    for line in ("start_action = start", "dpd_action = restart", "keyingtries = 0", "unique = replace"):
        assert line in text
    assert "curve25519" not in text, "AWS does not know it"
    looks = views(spec(), (one, other), (Survey({}, 0, ""), Survey({}, 0, "")))
    keys = [files(spec(), look.ends[0], look.keys)["conf"].count("secret = 0s") for look in looks]
    assert keys == [1, 1]
    assert {secret.reveal() for secret in looks[0].keys.secrets()} == {
        secret.reveal() for secret in looks[1].keys.secrets()
    }
    assert settings_digest(spec(), (one, other)) != settings_digest(
        spec({"tunnel2_preshared_key": "another.key.for_this.test"}), (one, other)
    )


def test_a_kernel_with_interfaces_gets_one_per_tunnel_with_bgp_and_policies_without() -> None:
    assert planes_of(spec()) == ("policy", "userspace")
    assert planes_of(spec(bgp=BGP)) == ("route", "userspace")
    one, other = ends(spec(bgp=BGP), "route")
    assert one.number != other.number
    assert f"if_id_in = {one.number}" in connection(spec(bgp=BGP), one)
    assert one.local_selectors == ("0.0.0.0/0",)
    assert [str(net) for net in one.destinations] == ["169.254.10.1/32"], "BGP routes the rest"
    both = f'{{ "{one.name}", "{other.name}" }}'
    assert f"iifname != {both} ip saddr" in one.firewall, "what comes by the other tunnel is not spoofed"
    bare, _ = ends(spec(), "policy")
    assert "if_id" not in connection(spec(), bare)
    assert "rt ipsec missing" in bare.firewall
    assert bare.local_selectors == ("10.1.0.0/24", "169.254.10.2/32")


def test_the_filter_lets_bgp_in_and_gives_the_host_its_address_in_the_site() -> None:
    static, _ = ends(spec(), source=ip_address("10.1.0.1"))
    assert "ip saddr 169.254.10.2 ip daddr 10.2.0.0/16 snat to 10.1.0.1" in static.firewall
    assert "dport 179" not in static.firewall
    speaking, _ = ends(spec(bgp=BGP))
    assert "ip saddr 169.254.10.1 ip daddr 169.254.10.2 tcp dport 179 accept" in speaking.firewall
    assert "snat" not in speaking.firewall
    assert "option maxseg size set 1359" in static.firewall


def test_bgp_speaks_through_both_tunnels_with_strict_lists() -> None:
    settings = spec(bgp={"asn": 65010, "daemon": "frr"}, ping="10.2.0.10")
    assert sessions_of(spec(), ends(spec())) is None
    stage = sessions_of(settings, ends(settings))
    assert stage is not None
    (instance,) = plan_instances(stage, ADDRESS, {"lab-gw": Host("lab-gw", "203.0.113.10")})
    assert (instance.asn, instance.wanted, instance.hold, instance.bfd) == (65010, "frr", 30, None)
    assert [(item.local, item.peer, item.peer_asn) for item in instance.conversations] == [
        ("169.254.10.2", "169.254.10.1", 64512),
        ("169.254.20.2", "169.254.20.1", 64512),
    ]
    for item in instance.conversations:
        assert [str(net) for net in item.receive] == ["10.2.0.0/16"]
        assert [str(net) for net in item.send] == ["10.1.0.0/24"]
        assert item.device == "ipsec0"


def survey(
    end: EndState,
    *,
    answers: bool = True,
    session: bool = True,
    passes: bool = True,
    log: str = "",
    filters: Filters = NO_FILTERS,
) -> Survey:
    child = Child("INSTALLED", end.local_selectors, end.remote_selectors, 10, 1000)
    return Survey(
        tools={"answers": answers},
        now=0,
        owner=end.owner,
        connections=(end.name,) if answers else (),
        sessions=(Session(1, "ESTABLISHED", True, end.calls, 1000, (child,)),) if session and answers else (),
        interfaces={"ipsec0": (1400, True, "tun")} if answers else {},
        digests={"conf": "x", "table": "t", "loaded": "t"},
        forwarding={4: True},
        probes=tuple(Probe(end.peer_addresses[0], size, passes) for size in (36, end.mtu)),
        way=(f"{end.peer_addresses[0]} dev ipsec0 src {end.addresses[0]}",),
        log=log,
        filters=filters,
    )


def view(*changes: dict[str, Any], settings: AwsVpnSpec | None = None, bgp: Observation | None = None) -> View:
    wanted = settings or spec()
    both = ends(wanted)
    return View(views(wanted, both, [survey(end, **change) for end, change in zip(both, changes, strict=True)]), bgp)


def test_what_is_wrong_is_told_of_the_tunnel_or_of_both_or_of_the_host() -> None:
    assert not list(causes(view({}, {})))
    (one,) = causes(view({}, {"session": False}))
    assert one.words.startswith("tunnel 2: ")
    assert one.cause is Cause.HANDSHAKE_MISSING
    assert "UDP 500 and 4500" in one.hint
    (both,) = causes(view({"passes": False}, {"session": False}))
    assert both.words.startswith("both tunnels are down: ")
    (host,) = causes(view({"answers": False}, {"answers": False}))
    assert (host.cause, host.words) == (Cause.DAEMON_DOWN, "charon does not run")
    shut = {"filters": Filters({(4, "iptables-nft"): False})}
    (docker,) = causes(view(shut, shut))
    assert (docker.cause, docker.where) == (Cause.FORWARD_DROPPED, "lab-gw")
    assert docker.words.startswith("both tunnels pass nothing on: Docker drops what is forwarded")
    name = ends(spec())[0].name
    refused = f"1 09[IKE] <{name}|3> received AUTHENTICATION_FAILED notify error"
    (key,) = causes(view({"session": False, "log": refused}, {}))
    assert (key.cause, key.where) == (Cause.AUTHENTICATION, "lab-gw")
    assert "aws_vpn_connection" in key.hint


def test_what_is_seen_says_the_plane_its_limit_and_which_tunnels_carry() -> None:
    seen = view({}, {"passes": False})
    legs = tuple(seen.legs())
    there = observation(seen, legs, 0, as_applied=False)
    assert not there.healthy
    assert there.reason.startswith("ping from lab-gw to tunnel 2")
    assert there.outputs["up"].value == ["tunnel 1"]
    assert there.outputs["plane"].value == "userspace"
    assert "whose keys are newest" in there.outputs["limit"].value
    assert len({leg.name for leg in legs}) == len(legs), "every leg says of which tunnel it is"


def test_bgp_that_is_gone_or_drifted_counts_for_the_whole() -> None:
    gone = view({}, {}, settings=spec(bgp=BGP), bgp=Observation.absent("no daemon of this stage runs"))
    assert "lab-gw: routing daemon" in [item.address for item in gone.differences()]
    assert [leg.reason for leg in gone.legs() if leg.name == "BGP of lab-gw"] == ["no daemon of this stage runs"]
    drift = (ResourceChange("lab-gw: configuration of bird", Action.UPDATE),)
    well = Observation(exists=True, healthy=True, fingerprint="1")
    drifted = view({}, {}, settings=spec(bgp=BGP), bgp=replace(well, drifted=True, drift=drift))
    assert drift[0] in drifted.differences()


def test_the_daemon_that_both_share_is_said_once() -> None:
    down = view({"answers": False}, {"answers": False})
    addresses = [item.address for item in down.differences()]
    assert addresses.count("lab-gw: daemon charon") == 1
    assert [step.name for step in repairs(spec())] == ["re-initiate", "reapply", "restart"]
    assert {step.host for step in repairs(spec())} == {"lab-gw"}


def test_the_example_names_what_the_settings_take() -> None:
    assert set(re.findall(r"^      (\w+):", EXAMPLE.partition("uses: aws-vpn")[2], re.MULTILINE)) <= set(
        AwsVpnSpec.model_fields
    )


def test_bgp_is_spoken_when_there_is_a_connection_with_a_peer_whoever_called() -> None:
    peers = ("169.254.10.1", "169.254.20.1")
    assert speaks("0      0      169.254.10.2:179    169.254.10.1:41234 \n", peers)
    assert speaks("0      0      169.254.20.2:40123    169.254.20.1:179\n", peers)
    assert not speaks("", peers)
    assert not speaks("0      0      10.0.0.1:40123    10.0.0.2:179\n", peers), "another's"
    assert not speaks("0      0      169.254.10.1:179    10.0.0.2:40123\n", peers), "the own side says nothing"
