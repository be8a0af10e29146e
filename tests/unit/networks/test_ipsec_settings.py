"""The settings of an IPsec link: what is refused, what follows from them, and the texts made of them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.contracts.host import Host
from skyspan.contracts.transport import Effect
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.networks.ipsec import commands
from skyspan.networks.ipsec.certificates import DAY_S, ends_at, given, issue, new_ca
from skyspan.networks.ipsec.config import boot_files, bundle, connection, daemon_settings, files
from skyspan.networks.ipsec.keys import Keys, Memory, keys_of, with_keys
from skyspan.networks.ipsec.link import EndState, plan_ends, settings_digest
from skyspan.networks.ipsec.spec import IpsecSpec, Plane

ADDRESS = DeploymentAddress("default", "hybrid").stage("link")

PSK = Secret("correct horse battery staple")
NOW = 1_800_000_000.0


def spec(east: dict[str, Any] | None = None, west: dict[str, Any] | None = None, **settings: Any) -> IpsecSpec:
    ends = [
        {"host": "east", "prefixes": ["10.1.0.0/16"]} | (east or {}),
        {"host": "west", "prefixes": ["10.2.0.0/16"]} | (west or {}),
    ]
    return IpsecSpec.model_validate({"between": ends, **settings})


def ends(settings: IpsecSpec, *planes: Plane, user: str = "root") -> tuple[EndState, EndState]:
    hosts = {"east": Host("east", "198.51.100.1", user=user), "west": Host("west", "2001:db8::2", user=user)}
    chosen: tuple[Plane, ...] = planes or ("userspace", "userspace")
    return plan_ends(settings, ADDRESS, hosts, dict(zip(hosts, chosen, strict=True)))


PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
OWN = {"id": "gw.example.org", "certificate": PEM, "key": Secret("a key")}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "overlap": ({"west": {"prefixes": ["10.0.0.0/8"]}}, "prefix 10.1.0.0/16 of east overlaps 10.0.0.0/8 of west"),
    "host bits": ({"west": {"prefixes": ["10.2.0.1/16"]}}, "did you mean 10.2.0.0/16?"),
    "everything": ({"west": {"prefixes": ["0.0.0.0/0"]}}, "does not take the default route"),
    "one host": ({"west": {"host": "east"}}, "both sides are east"),
    "loop": ({"west": {"endpoint": "10.2.0.9"}}, "endpoint 10.2.0.9 of west lies inside its own prefix 10.2.0.0/16"),
    "both behind NAT": ({"east": {"nat": True}, "west": {"nat": True}}, "neither can call the other"),
    "identity": ({"east": {"id": 'a"; }'}}, "is no IKE identity"),
    "same identity": ({"east": {"id": "gw"}, "west": {"id": "gw"}}, "both sides have the identity gw"),
    "short key": ({"psk": Secret("short")}, "too short: at least 16 characters"),
    "key with certificates": ({"auth": "certificates", "psk": PSK}, "`psk` is for `auth: psk`"),
    "certificates with a key": ({"east": OWN, "ca": PEM}, "certificates are for `auth: certificates`"),
    "one certificate": ({"auth": "certificates", "east": OWN}, "give `ca` and both sides' `certificate`, or none"),
    "a CA alone": ({"auth": "certificates", "ca": PEM}, "give `ca` and both sides' `certificate`, or none"),
    "a certificate without key": ({"east": {"certificate": PEM}}, "`certificate` and `key` belong together"),
    "a nameless certificate": (
        {"auth": "certificates", "ca": PEM, "east": OWN, "west": OWN | {"id": None}},
        "west: a given certificate needs its `id`",
    ),
    "no certificate": ({"auth": "certificates", "ca": "nothing"}, "PEM text that begins with"),
    "proposal": ({"proposals": ["AES 256; }"]}, "is no proposal such as"),
    "tunnel": ({"tunnel": "10.255.0.1/32"}, "no room for two"),
    "tunnel's text": ({"tunnel": "nowhere"}, "is no network such as"),
    "one address": ({"east": {"address": "10.255.0.1"}}, "give `address` for both sides or for none"),
    "service": ({"expect": ["10.2.0.9"]}, "has no port"),
    "service elsewhere": ({"expect": ["192.0.2.1:80"]}, "192.0.2.1:80 is behind neither side"),
    "small MTU": ({"mtu": 1200, "west": {"prefixes": ["2001:db8:2::/48"]}}, "too small for IPv6"),
    "lifetime": ({"certificate_days": 0}, "greater than or equal to 1"),
    "unknown key": ({"west": {"prefix": "10.2.0.0/16"}}, "Extra inputs"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_settings_that_cannot_work_are_refused_in_words(what: str) -> None:
    settings, words = REFUSED[what]
    with pytest.raises(ValidationError) as caught:
        spec(**settings)
    assert words in str(caught.value)
    assert "staple" not in str(caught.value)


def test_exactly_one_side_calls_and_the_same_one_whatever_the_order() -> None:
    one = spec()
    turned = IpsecSpec.model_validate({"between": [end.model_dump() for end in reversed(one.between)]})
    for settings in (one, turned):
        assert [end.host for end in ends(settings) if end.initiates] == ["east"]


@pytest.mark.parametrize(
    ("east", "west", "caller"),
    [
        ({"nat": True}, {}, "east"),
        ({}, {"nat": True}, "west"),
        ({"nat": True, "endpoint": "gw.example.org:4501"}, {"nat": True}, "west"),
    ],
)
def test_the_side_behind_nat_calls(east: dict[str, Any], west: dict[str, Any], caller: str) -> None:
    both = ends(spec(east, west))
    assert [end.host for end in both if end.initiates] == [caller]
    waiting = next(end for end in both if not end.initiates)
    assert not waiting.calls, "it cannot be called"


def test_two_links_between_the_same_hosts_share_neither_name_nor_identity() -> None:
    hosts = {"east": Host("east", "198.51.100.1"), "west": Host("west", "198.51.100.2")}
    first, _ = plan_ends(spec(), ADDRESS, hosts, {})
    second, _ = plan_ends(spec(), DeploymentAddress("default", "other").stage("link"), hosts, {})
    assert first.name != second.name
    assert first.own_id != second.own_id
    assert first.number != second.number
    assert set(first.addresses).isdisjoint(second.addresses)


def test_a_host_that_is_not_there_and_a_tunnel_inside_a_site_are_refused() -> None:
    with pytest.raises(SpecError, match="no host 'west'"):
        plan_ends(spec(), ADDRESS, {"east": Host("east", "198.51.100.1")}, {})
    with pytest.raises(SpecError, match="overlaps the tunnel's own addresses"):
        ends(spec(tunnel="10.1.7.0/31"))


def test_settings_that_were_applied_are_told_from_others_whoever_carries_the_packets() -> None:
    assert settings_digest(spec(), ends(spec(), "route", "route")) == settings_digest(spec(), ends(spec()))
    assert settings_digest(spec(mtu=1300), ends(spec())) != settings_digest(spec(), ends(spec()))


CALLER = """\
# Made by Skyspan for default/hybrid/link: what is changed here is overwritten.
connections {
  sky-e18e513a {
    version = 2
    remote_addrs = 2001:db8::2
    proposals = aes256gcm16-prfsha256-curve25519,aes256-sha256-curve25519
    unique = replace
    mobike = no
    dpd_delay = 5s
    rekey_time = 14400s
    over_time = 14400s
    rand_time = 1440s
    keyingtries = 0
    local {
      auth = psk
      id = "east.sky-e18e513a"
    }
    remote {
      auth = psk
      id = "west.sky-e18e513a"
    }
    children {
      net {
        local_ts = 10.1.0.0/16,10.255.42.54/32
        remote_ts = 10.2.0.0/16,10.255.42.55/32
        esp_proposals = aes256gcm16-curve25519,aes256-sha256-curve25519
        rekey_time = 3600s
        life_time = 7200s
        rand_time = 360s
        start_action = start
        close_action = start
        dpd_action = restart
      }
    }
  }
}
"""

SHARED_KEY = """\
secrets {
  ike-sky-e18e513a {
    id-1 = "east.sky-e18e513a"
    id-2 = "west.sky-e18e513a"
    secret = 0sY29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==
  }
}
"""

WAITING_BY_INTERFACE = """\
# Made by Skyspan for default/hybrid/link: what is changed here is overwritten.
connections {
  sky-e18e513a {
    version = 2
    proposals = aes256-sha256-modp2048
    unique = replace
    mobike = no
    dpd_delay = 9s
    rekey_time = 9360s
    over_time = 7200s
    rand_time = 720s
    keyingtries = 1
    local {
      auth = pubkey
      id = "west.sky-e18e513a"
      certs = sky-e18e513a.pem
    }
    remote {
      auth = pubkey
      id = "gw.example.org"
      cacerts = sky-e18e513a.pem
    }
    children {
      net {
        local_ts = 0.0.0.0/0
        remote_ts = 0.0.0.0/0
        if_id_in = @number@
        if_id_out = @number@
        esp_proposals = aes256-sha256
        rekey_time = 2340s
        life_time = 4140s
        rand_time = 180s
        start_action = none
        close_action = none
        dpd_action = clear
      }
    }
  }
}
"""


def test_the_side_that_calls_gets_this_connection() -> None:
    east, _ = ends(spec())
    assert connection(spec(), east) == CALLER
    assert files(spec(), east, Keys(PSK)) == {"conf": CALLER + SHARED_KEY}


def test_the_side_that_waits_gets_this_connection_over_an_xfrm_interface() -> None:
    settings = spec(
        {"id": "gw.example.org", "nat": True},
        auth="certificates",
        proposals=["aes256-sha256-modp2048"],
        esp_proposals=["aes256-sha256"],
        rekey=1800,
        dpd=9,
    )
    _, west = ends(settings, "route", "route")
    assert connection(settings, west) == WAITING_BY_INTERFACE.replace("@number@", str(west.number))
    assert 0 < west.number < 2**31


def test_selectors_name_the_prefixes_unless_both_sides_route() -> None:
    for planes in (("route", "policy"), ("userspace", "route"), ("policy", "policy")):
        east, west = ends(spec(), *planes)
        assert east.local_selectors == west.remote_selectors == ("10.1.0.0/16", "10.255.42.54/32")
        assert ("if_id_in" in connection(spec(), east)) == (planes[0] == "route")
    both = ends(spec({"prefixes": ["10.1.0.0/16", "fd00:1::/48"]}, {"prefixes": ["fd00:2::/48"]}), "route", "route")
    assert both[0].local_selectors == ("0.0.0.0/0", "::/0")


def test_a_port_that_is_forwarded_is_called() -> None:
    east, west = ends(spec(west={"endpoint": "[2001:db8::9]:4501"}))
    text = connection(spec(), east)
    assert "    remote_addrs = 2001:db8::9\n    remote_port = 4501\n" in text
    assert west.listens == "2001:db8::9"


def test_the_daemon_carries_packets_itself_only_where_nothing_else_can() -> None:
    assert "kernel-libipsec" in daemon_settings("userspace")
    assert "kernel-libipsec" not in daemon_settings("route")
    assert "@" not in daemon_settings("policy")


BOOT = """\
# Made by Skyspan for default/hybrid/link: what is changed here is overwritten.
set -eu; PATH=$PATH:/usr/sbin:/sbin
nft -f /var/lib/skyspan/links/sky-e18e513a/rules
echo 1 > /proc/sys/net/ipv4/ip_forward
ip link show dev sky-e18e513a >/dev/null 2>&1 || ip link add dev sky-e18e513a type xfrm dev lo if_id @number@
ip link set dev sky-e18e513a mtu 1400 up
ip address replace 10.255.42.54/32 dev sky-e18e513a
ip route replace 10.2.0.0/16 dev sky-e18e513a proto 241 src 10.1.0.1
through() { tool=$1; shift; ! $tool -w -n -L DOCKER-USER >/dev/null 2>&1 || \
$tool -w -C DOCKER-USER "$@" 2>/dev/null || $tool -w -I DOCKER-USER "$@"; }
through iptables -s 10.2.0.0/16 -i sky-e18e513a -m comment --comment skyspan-sky-e18e513a -j ACCEPT
through iptables -d 10.2.0.0/16 -o sky-e18e513a -m comment --comment skyspan-sky-e18e513a -j ACCEPT
through iptables -s 10.255.42.55/32 -i sky-e18e513a -m comment --comment skyspan-sky-e18e513a -j ACCEPT
through iptables -d 10.255.42.55/32 -o sky-e18e513a -m comment --comment skyspan-sky-e18e513a -j ACCEPT
"""


def test_what_a_boot_brings_back_is_the_same_link() -> None:
    east, _ = ends(spec(), "route", "policy")
    content = boot_files(east, east.addresses, [("10.2.0.0/16", "10.1.0.1")])
    assert content["boot"] == BOOT.replace("@number@", str(east.number))
    assert "ExecStart=/bin/sh /var/lib/skyspan/links/sky-e18e513a/boot\n" in content["unit"]
    by_policy = boot_files(ends(spec(), "policy", "policy")[0], ("10.255.42.54",), [])["boot"]
    assert "ip address replace 10.255.42.54/32 dev lo\n" in by_policy
    assert "xfrm" not in by_policy


def test_no_plane_carries_more_than_it_can() -> None:
    assert [end.mtu for end in ends(spec(mtu=1450), "userspace", "policy")] == [1400, 1450]


TABLE = """\
table inet skyspan-sky-e18e513a
delete table inet skyspan-sky-e18e513a
table inet skyspan-sky-e18e513a {
	chain clamp {
		ip saddr { 10.2.0.0/16, 10.255.42.55 } tcp option maxseg size > 1360 tcp option maxseg size set 1360
		ip daddr { 10.2.0.0/16, 10.255.42.55 } tcp option maxseg size > 1360 tcp option maxseg size set 1360
	}
	chain input {
		type filter hook input priority filter; policy accept;
		ip saddr != 10.2.0.0/16 ip saddr != 10.255.42.55 accept
		iifname != "ipsec0" ip saddr { 10.2.0.0/16, 10.255.42.55 } drop
		ip saddr { 10.2.0.0/16, 10.255.42.55 } goto arrived
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		tcp flags & (syn | rst) == syn jump clamp
		ct state established ip daddr 10.1.0.0/16 iifname "ipsec0" accept
		ct state established ip saddr 10.1.0.0/16 oifname "ipsec0" accept
		iifname != "ipsec0" ip saddr { 10.2.0.0/16, 10.255.42.55 } drop
		oifname != "ipsec0" ip daddr { 10.2.0.0/16, 10.255.42.55 } goto refused
		ip saddr { 10.2.0.0/16, 10.255.42.55 } goto passing
		ip daddr { 10.2.0.0/16, 10.255.42.55 } goto leaving
	}
	chain output {
		type filter hook output priority filter; policy accept;
		ip daddr != 10.2.0.0/16 ip daddr != 10.255.42.55 accept
		oifname != "ipsec0" ip daddr { 10.2.0.0/16, 10.255.42.55 } goto refused
	}
	chain arrived {
		ct state established,related accept
		icmp type { destination-unreachable, time-exceeded, parameter-problem } accept
		icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
		ip saddr 10.255.42.55 ip daddr 10.255.42.54 icmp type echo-request accept
		jump admitted
		goto refused
	}
	chain passing {
		ct state established,related accept
		icmp type { destination-unreachable, time-exceeded, parameter-problem } accept
		icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
		ip daddr 10.1.0.0/16 jump admitted
		goto refused
	}
	chain leaving {
		ct state established,related accept
		icmp type { destination-unreachable, time-exceeded, parameter-problem } accept
		icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
		ip saddr 10.1.0.0/16 jump admitted
		goto refused
	}
	chain admitted {
		meta l4proto { icmp, ipv6-icmp } accept
		tcp dport 22 accept
		udp dport 5000-5010 accept
	}
	chain refused {
		meta l4proto tcp reject with tcp reset
		reject with icmpx admin-prohibited
	}
}
"""


def test_the_firewall_tells_the_link_by_the_prefixes_of_the_other_side() -> None:
    east, _ = ends(spec(allow=["udp/5000-5010", "icmp", "tcp/22"]))
    assert east.firewall == TABLE


def test_what_would_leave_in_the_clear_is_refused_by_every_plane() -> None:
    by_policy, by_interface = ends(spec(allow=["any"]), "policy", "route")
    assert "rt ipsec missing ip daddr { 10.2.0.0/16, 10.255.42.55 } goto refused" in by_policy.firewall
    assert "iifname" not in by_policy.firewall
    assert f'oifname != "{by_interface.name}" ip daddr {{ 10.1.0.0/16, 10.255.42.54 }}' in by_interface.firewall
    assert "\tchain admitted {\n\t\taccept\n\t}" in by_policy.firewall


def test_keys_are_made_once_and_certificates_renewed_in_their_last_third() -> None:
    settings = spec(auth="certificates", certificate_days=90)
    both = ends(settings)
    first = with_keys(Memory(), settings, both, NOW)
    assert with_keys(first, settings, both, NOW + 59 * DAY_S) == first
    renewed = with_keys(first, settings, both, NOW + 61 * DAY_S)
    assert renewed.ca == first.ca, "the CA stays"
    assert set(renewed.certificates) == {end.own_id for end in both}
    assert all(renewed.certificates[name] != issued for name, issued in first.certificates.items())
    again = with_keys(first, settings, both, NOW + 3000 * DAY_S)
    assert again.ca != first.ca, "a CA near its end is followed by another"
    plain = with_keys(Memory(), spec(), both, NOW)
    assert plain.psk is not None
    assert with_keys(plain, spec(), both, NOW) == plain


def test_what_a_certificate_says_is_what_ike_asks_for() -> None:
    from cryptography import x509

    ca = new_ca("sky-1", NOW)
    for identity, kind in (("gw.a", x509.DNSName), ("192.0.2.1", x509.IPAddress), ("gw@a.b", x509.RFC822Name)):
        issued = issue(ca, identity, 90, NOW)
        read = x509.load_pem_x509_certificate(issued.certificate.encode())
        names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(name) for name in names.get_values_for_type(kind)] == [identity]
        read.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.certificate.encode()))
        assert ends_at(issued.certificate) == pytest.approx(NOW + 90 * DAY_S)


def test_given_certificates_are_used_and_a_wrong_key_is_told_without_showing_it() -> None:
    ca = new_ca("sky-1", NOW)
    one, other = (issue(ca, name, 90, NOW) for name in ("gw.a", "gw.b"))
    settings = spec(
        {"id": "gw.a", "certificate": one.certificate, "key": one.key},
        {"id": "gw.b", "certificate": other.certificate, "key": other.key},
        auth="certificates",
        ca=ca.certificate,
    )
    keys = keys_of(settings, with_keys(Memory(), settings, ends(settings), NOW), ends(settings))
    assert keys is not None
    assert files(settings, ends(settings)[1], keys)["cert"] == other.certificate
    with pytest.raises(SpecError, match="does not belong to its certificate") as caught:
        given(one.certificate, other.key, "east")
    assert other.key.reveal() not in str(caught.value)
    with pytest.raises(SpecError, match="cannot be read"):
        given(one.certificate, Secret("no key"), "east")


def test_keys_go_by_standard_input_and_looking_is_reading() -> None:
    settings = spec(auth="certificates")
    both = ends(settings)
    keys = keys_of(settings, with_keys(Memory(), settings, both, NOW), both)
    assert keys is not None
    content = files(settings, both[0], keys)
    command = commands.converge_command(both[0], bundle(content), both[0].addresses, ())
    assert isinstance(command.stdin, Secret)
    shown = " ".join(str(part) for part in command.argv)
    assert not [secret for secret in keys.secrets() if secret.reveal() in shown]
    assert commands.survey_command(both[0], probe=True).effect is Effect.READ
    assert commands.probe_command(both[0]).effect is Effect.READ
    assert command.effect is Effect.WRITE


def test_a_login_that_is_not_root_asks_for_it_but_not_for_a_ping() -> None:
    east, _ = ends(spec(), user="admin")
    assert commands.initiate_command(east).argv[:3] == ("sudo", "-n", "sh")
    assert commands.remove_command(east.name, east.owner, sudo=True).argv[:2] == ("sudo", "-n")
    assert commands.probe_command(east).argv[0] == "sh"
