"""What the gateways of an IPsec link say, read into values; and what follows from it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyspan.contracts.host import Host
from skyspan.contracts.watch import Cause
from skyspan.model.address import DeploymentAddress
from skyspan.model.change import Action
from skyspan.model.error import SpecError, ToolMissingError
from skyspan.model.secret import Secret
from skyspan.networks.docker import NO_FILTERS, Filters
from skyspan.networks.ipsec import compare
from skyspan.networks.ipsec.certificates import DAY_S, issue, new_ca
from skyspan.networks.ipsec.config import boot_files
from skyspan.networks.ipsec.diagnose import findings, sign_of
from skyspan.networks.ipsec.keys import Keys
from skyspan.networks.ipsec.link import plan_ends
from skyspan.networks.ipsec.message import list_of, parse_message, sections_of, text_of
from skyspan.networks.ipsec.observation import Look
from skyspan.networks.ipsec.parse import Probed, Survey, parse_held, parse_survey
from skyspan.networks.ipsec.ready import legs_of
from skyspan.networks.ipsec.spec import IpsecSpec, Plane
from skyspan.networks.legs import summary
from skyspan.networks.looking import digest_of

ADDRESS = DeploymentAddress("default", "hybrid").stage("link")
NAME = "sky-e18e513a"
NOW = 1_800_000_000
HOSTS = {"east": Host("east", "198.51.100.1"), "west": Host("west", "198.51.100.2")}

# As charon 5.9.8 prints it by `swanctl --list-sas --raw`.
SA = (
    f"list-sa event {{{NAME} {{uniqueid=7 version=2 state=ESTABLISHED local-host=198.51.100.1 local-port=4500 "
    "local-id=east.sky remote-host=198.51.100.2 remote-port=4500 remote-id=west.sky initiator=yes "
    "initiator-spi=056acd7f5ce35fff responder-spi=e2072b51830b552a nat-remote=yes nat-any=yes encr-alg=AES_CBC "
    "encr-keysize=128 established=1 rekey-time=14106 child-sas {net-1 {name=net uniqueid=1 reqid=1 state=INSTALLED "
    "mode=TUNNEL protocol=ESP encap=yes spi-in=cf9d83c7 spi-out=0321edba encr-alg=AES_CBC encr-keysize=256 "
    "integ-alg=HMAC_SHA2_256_128 bytes-in=@bytes@ packets-in=0 bytes-out=0 packets-out=0 rekey-time=3370 "
    "life-time=3959 install-time=1 local-ts=[@local@] remote-ts=[@remote@]}}}}"
)
STATS = (
    "stats reply {uptime {running=2 seconds since=Nov 21 16:10:38 2026} workers {total=16 idle=6 active {critical=5 "
    "high=0 medium=5 low=0}} ikesas {total=1 half-open=0} plugins=[charon aes kernel-libipsec vici] mallinfo {used=9}}"
)


def spec(**settings: Any) -> IpsecSpec:
    ends = [{"host": "east", "prefixes": ["10.1.0.0/16"]}, {"host": "west", "prefixes": ["10.2.0.0/16"]}]
    return IpsecSpec.model_validate({"between": ends, **settings})


def sa(here: int, there: int, received: int) -> str:
    local = f"10.{here}.0.0/16 10.255.42.{53 + here}/32"
    remote = f"10.{there}.0.0/16 10.255.42.{53 + there}/32"
    return SA.replace("@bytes@", str(received)).replace("@local@", local).replace("@remote@", remote)


def text(**parts: str) -> str:
    links = [{}, {"ifname": "ipsec0", "mtu": 1400, "flags": ["UP"], "linkinfo": {"info_kind": "tun"}}]
    lan = {"ifname": "lan", "addr_info": [{"local": "10.1.0.1", "prefixlen": 24, "scope": "global"}]}
    lo = {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]}
    route = {"dst": "10.2.0.0/16", "dev": NAME, "protocol": "241", "prefsrc": "10.1.0.1"}
    sections = {
        "tools": "swanctl yes\nip yes\nanswers yes\nesp no",
        "time": str(NOW),
        "owner": "default/hybrid/link",
        "plugins": "charon aes kernel-libipsec vici",
        "conns": NAME,
        "before": sa(1, 2, 0),
        "sas": sa(1, 2, 168),
        "link": json.dumps(links),
        "addr": json.dumps([lan, lo]),
        "route4": json.dumps([route, {"dst": "default", "gateway": "198.51.100.9", "dev": "eth0"}]),
        "route6": "",
        "digests": "conf abc\ntable def",
        "forward": "4 1\n6 0",
        "probes": "10.255.42.55 36 yes\n10.255.42.55 1400 no",
        "way": "10.255.42.55 dev ipsec0 table 220 src 10.255.42.54",
        "docker": "4 iptables-nft no",
        "drops": "4 ip filter FORWARD",
        "log": "@ is no section here\n-- initiate --",
    }
    return "".join(f"@{name}\n{content}\n" for name, content in (sections | parts).items())


def test_a_survey_is_read_whole() -> None:
    seen = parse_survey(text(), NAME)
    assert seen.answers
    assert not seen.tools["esp"]
    assert (seen.now, seen.owner, seen.connections) == (NOW, "default/hybrid/link", (NAME,))
    assert (seen.before, seen.bytes_in) == (0, 168)
    [session] = seen.established
    assert (session.number, session.initiator, session.remote_host) == (7, True, "198.51.100.2")
    assert seen.installed[0].local == ("10.1.0.0/16", "10.255.42.54/32")
    assert seen.interfaces["ipsec0"] == (1400, True, "tun")
    assert seen.addresses["lan"] == ("10.1.0.1/24",)
    assert [(own.prefix, own.source) for own in seen.own_routes] == [("10.2.0.0/16", "10.1.0.1")]
    assert seen.forwarding == {4: True, 6: False}
    assert [probe.answered for probe in seen.probes] == [True, False]
    assert seen.filters == Filters({(4, "iptables-nft"): False}, ((4, "ip filter FORWARD"),))
    assert "@ is no section here" in seen.log


def test_a_survey_of_a_host_with_nothing_is_read_too() -> None:
    empty = dict.fromkeys(("plugins", "conns", "before", "sas", "link", "addr", "route4", "probes", "owner"), "")
    seen = parse_survey(text(**empty, tools="swanctl no\nanswers no"), NAME)
    assert not seen.sessions
    assert not seen.answers


def test_messages_with_spaces_lists_and_sections_are_read() -> None:
    stats = parse_message(STATS)
    assert text_of(sections_of(stats)["uptime"], "since") == "Nov 21 16:10:38 2026"
    assert list_of(stats, "plugins")[-1] == "vici"
    assert text_of(sections_of(stats)["mallinfo"], "used") == "9"
    assert parse_message("list-sas reply {}") == {}
    assert parse_message("list-conn event {a {children {}}}") == {"a": {"children": {}}}


@pytest.mark.parametrize("broken", ["", "nothing", "list-sa event {a {b=c", "x {=}"])
def test_a_message_that_is_cut_off_is_refused(broken: str) -> None:
    with pytest.raises(ValueError, match="swanctl"):
        parse_message(broken)


words = st.text("abcdefghij.:/%-0123456789", min_size=1, max_size=9)


@given(
    st.recursive(
        st.dictionaries(words, st.one_of(words, st.lists(words).map(tuple)), max_size=4),
        lambda inner: st.dictionaries(words, st.one_of(words, inner), max_size=4),
        max_leaves=12,
    )
)
def test_whatever_is_written_in_that_form_is_read_back(message: dict[str, Any]) -> None:
    def written(section: dict[str, Any]) -> str:
        parts = []
        for name, value in section.items():
            if isinstance(value, dict):
                parts.append(f"{name} {{{written(value)}}}")
            else:
                parts.append(f"{name}=[{' '.join(value)}]" if isinstance(value, tuple) else f"{name}={value}")
        return " ".join(parts)

    assert parse_message(f"some event {{{written(message)}}}") == message


def seen_with(**tools: bool) -> Survey:
    known = dict.fromkeys(("swanctl", "ip", "nft", "ping", "flock", "sha256sum", "awk", "charon"), True)
    return Survey(tools=known | tools, now=NOW, owner="")


@pytest.mark.parametrize(
    ("tools", "mode", "plane"),
    [
        ({"esp": True, "xfrm-interface": True, "libipsec": True}, "auto", "route"),
        ({"esp": True, "libipsec": True}, "auto", "policy"),
        ({"libipsec": True}, "auto", "userspace"),
        ({"esp": True, "xfrm-interface": True}, "policy", "policy"),
        ({"esp": True, "xfrm-interface": True, "libipsec": True}, "userspace", "userspace"),
        ({"xfrm-interface": True, "libipsec": True}, "auto", "userspace"),
    ],
)
def test_the_plane_is_the_best_that_the_host_has(tools: dict[str, bool], mode: str, plane: Plane) -> None:
    assert compare.plane_of(mode, "east", seen_with(**tools)) == plane


def test_a_daemon_that_runs_decides_who_carries_the_packets() -> None:
    both = seen_with(esp=True, libipsec=True, answers=True)
    by_kernel = replace(both, plugins=("charon", "vici"))
    by_itself = replace(both, plugins=("charon", "kernel-libipsec"))
    assert compare.plane_of("auto", "east", by_kernel) == "policy"
    assert compare.plane_of("auto", "east", by_itself) == "userspace"
    with pytest.raises(ToolMissingError, match="it has: userspace"):
        compare.plane_of("policy", "east", by_itself)
    with pytest.raises(ToolMissingError, match="neither the kernel of east nor") as caught:
        compare.plane_of("auto", "east", replace(by_kernel, tools={**both.tools, "esp": False}))
    assert "kernel-libipsec.conf" in caught.value.hint


def test_what_a_host_lacks_is_named_with_its_package() -> None:
    with pytest.raises(ToolMissingError, match="east has no nft") as caught:
        compare.refuse_missing_tools("east", seen_with(nft=False))
    assert caught.value.hint == "on east: apt-get install nftables"
    with pytest.raises(ToolMissingError, match="east has no charon"):
        compare.refuse_missing_tools("east", seen_with(charon=False))
    compare.refuse_missing_tools("east", seen_with(charon=False, answers=True))


def look(*planes: Plane, **settings: Any) -> Look:
    """A link that is as it is to be, on both sides."""
    wanted = spec(**settings)
    ends = plan_ends(wanted, ADDRESS, HOSTS, dict(zip(HOSTS, planes or ("userspace",) * 2, strict=True)))
    keys = Keys(Secret("correct horse battery staple"))
    if wanted.auth == "certificates":
        ca = new_ca(NAME, NOW)
        keys = Keys(ca=ca.certificate, certificates={end.own_id: issue(ca, end.own_id, 90, NOW) for end in ends})
    made = Look(wanted, ends, keys, ())
    seen = []
    for here, (end, there) in enumerate(zip(ends, (2, 1), strict=True), 1):
        digests = {name: digest_of(content) for name, content in made.files(end).items()}
        digests |= {"synced": digest_of(made.session()), "rules": digest_of(end.firewall)}
        device, addresses = ("lo", [*end.addresses]) if end.plane != "route" else (end.name, [*end.addresses])
        parts = parse_survey(text(before=sa(here, there, 0), sas=sa(here, there, 168)), NAME)
        parts = replace(
            parts,
            addresses={"lan": (f"10.{here}.0.1/24",), device: tuple(f"{address}/32" for address in addresses)},
            digests={**digests, "table": "same", "loaded": "same"},
            interfaces={end.interface: (end.mtu, True, "")} if end.interface else {},
            probes=tuple(
                replace(probe, address=address, answered=True)
                for address in end.peer_addresses
                for probe in parts.probes
            ),
            way=tuple(f"{address} dev {end.interface} src x" for address in end.peer_addresses),
            filters=NO_FILTERS,
        )
        seen.append(replace(parts, own_routes=compare.routes_of(end, parts)))
    return replace(made, seen=tuple(seen))


def altered(whole: Look, side: int, **changes: Any) -> Look:
    seen = list(whole.seen)
    seen[side] = replace(seen[side], **changes)
    return replace(whole, seen=tuple(seen))


@pytest.mark.parametrize("plane", ["userspace", "policy"])
def test_a_link_that_is_as_it_is_to_be_differs_in_nothing(plane: Plane) -> None:
    whole = look(plane, plane)
    assert not whole.differences()
    assert not findings(whole)
    assert summary(tuple(legs_of(whole.ends, whole.keys, whole.seen))) == ""


def test_a_link_over_xfrm_interfaces_has_routes_of_its_own() -> None:
    whole = look("route", "route")
    assert not whole.differences()
    east, seen = whole.ends[0], whole.seen[0]
    assert [(route.prefix, route.source) for route in compare.routes_of(east, seen)] == [
        ("10.2.0.0/16", "10.1.0.1"),
        ("10.255.42.55/32", "10.1.0.1"),
    ]
    bare = altered(whole, 0, own_routes=(), interfaces={east.name: (1500, True, "xfrm")})
    assert [(item.address, item.action) for item in bare.differences()] == [
        (f"east: interface {east.name}", Action.UPDATE),
        ("east: route 10.2.0.0/16", Action.CREATE),
        ("east: route 10.255.42.55/32", Action.CREATE),
    ]
    assert altered(whole, 0, interfaces={}).differences()[0].action is Action.CREATE


DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "daemon": ({"tools": {"answers": False}}, "west: daemon charon"),
    "connection": ({"connections": ()}, f"west: connection {NAME}"),
    "address": ({"addresses": {"lan": ("10.2.0.1/24",)}}, "west: address 10.255.42.55"),
    "forwarding": ({"forwarding": {4: False}}, "west: forwarding of IPv4"),
    "interface": ({"interfaces": {"ipsec0": (1400, False, "tun")}}, "west: interface ipsec0"),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_differs_is_named(what: str) -> None:
    changes, address = DIFFERENT[what]
    assert [item.address for item in altered(look(), 1, **changes).differences()] == [address]


@pytest.mark.parametrize(("name", "resource"), [("conf", "connection"), ("synced", "session"), ("table", "firewall")])
def test_a_changed_file_session_or_table_is_named(name: str, resource: str) -> None:
    whole = look()
    found = altered(whole, 0, digests={**whole.seen[0].digests, name: "other"}).differences()
    assert [item.address.split()[:2] for item in found] == [["east:", resource]]


def test_libipsec_gets_an_address_in_every_prefix_and_says_where_it_cannot() -> None:
    whole = look()
    bare = replace(whole.seen[0], addresses={"lan": ("192.0.2.1/24",)})
    assert compare.addresses_of(whole.ends[0], bare) == ("10.255.42.54", "10.1.0.0")
    anchored = replace(bare, addresses={"lo": ("10.1.0.0/32", "10.255.42.54/32")})
    assert compare.addresses_of(whole.ends[0], anchored) == ("10.255.42.54", "10.1.0.0"), "it stays"
    narrow = IpsecSpec.model_validate(
        {"between": [{"host": "east", "prefixes": ["10.1.0.9/32"]}, {"host": "west", "prefixes": ["10.2.0.0/16"]}]}
    )
    end, _ = plan_ends(narrow, ADDRESS, HOSTS, {"east": "userspace", "west": "userspace"})
    with pytest.raises(SpecError, match=r"east has no address in 10\.1\.0\.9/32"):
        compare.addresses_of(end, bare)


LOGS: dict[str, tuple[str, Cause | None]] = {
    "tried 1 shared key for 'a' - 'b', but MAC mismatched": ("AUTHENTICATION", Cause.AUTHENTICATION),
    "no shared key found for 'a' - 'b'": ("no key", Cause.AUTHENTICATION),
    "subject certificate invalid (valid from Jan 1 to Feb 1)": ("expired", Cause.EXPIRED),
    "no trusted ECDSA public key found for 'a'": ("untrusted", Cause.AUTHENTICATION),
    'no issuer certificate found for "CN=a"': ("untrusted", Cause.AUTHENTICATION),
    "received AUTHENTICATION_FAILED notify error": ("refused", Cause.AUTHENTICATION),
    "no matching peer config found": ("identity", Cause.AUTHENTICATION),
    "received NO_PROPOSAL_CHOSEN notify error": ("proposal", Cause.UNKNOWN),
    "received TS_UNACCEPTABLE notify, no CHILD_SA built": ("prefixes", Cause.PREFIX_MISSING),
    "unable to install IPsec policies (SPD) in kernel": ("policies", Cause.UNKNOWN),
    "unable to resolve gw.example.org, initiate aborted": ("name", Cause.STALE_ENDPOINT),
    "giving up after 4 retransmits": ("silence", Cause.UNREACHABLE),
    "CHILD_SA net{1} established with SPIs a_i b_o": ("well", None),
    "nothing that anybody knows": ("nothing", None),
}


@pytest.mark.parametrize("line", LOGS)
def test_what_the_daemon_says_is_understood(line: str) -> None:
    sign = sign_of(f"1795278490 13[IKE] <{NAME}|1> {line}", NAME)
    assert (sign.cause if sign is not None else None) == LOGS[line][1]


def test_the_last_word_counts_and_other_connections_do_not() -> None:
    refused = f"<{NAME}|1> received AUTHENTICATION_FAILED notify error"
    well = f"<{NAME}|2> CHILD_SA net{{2}} established with SPIs a_i b_o"
    foreign = "<other|3> received NO_PROPOSAL_CHOSEN notify error"
    assert sign_of(f"{refused}\n{well}\n{foreign}", NAME) is None
    sign = sign_of(f"{well}\n{refused}\n{foreign}", NAME)
    assert sign is not None
    assert sign.cause is Cause.AUTHENTICATION
    certain = f"<{NAME}|4> tried 1 shared key for 'a' - 'b', but MAC mismatched"
    sign = sign_of(f"{certain}\n{refused}", NAME)
    assert sign is not None
    assert sign.certain, "what names the reason says more than what follows from it"


def session_count(whole: Look, count: int) -> Look:
    session = whole.seen[0].sessions[0]
    return altered(whole, 0, sessions=tuple(replace(session, number=number) for number in range(count)))


def small_lost(whole: Look, side: int) -> Look:
    return altered(whole, side, probes=tuple(replace(probe, answered=False) for probe in whole.seen[side].probes))


def test_every_cause_is_found_where_it_is() -> None:
    whole = look()
    probes = whole.seen[0].probes
    big_lost = tuple(replace(probe, answered=probe.size < 1400) for probe in probes)
    session = whole.seen[0].sessions[0]
    narrowed = (replace(session, children=(replace(session.children[0], local=("10.1.0.0/24",)),)),)
    deaf = altered(small_lost(whole, 0), 1, before=168)
    cases: list[tuple[Look, Cause, str]] = [
        (altered(whole, 1, tools={"answers": False}), Cause.DAEMON_DOWN, "west"),
        (altered(whole, 1, connections=()), Cause.INTERFACE_MISSING, "west"),
        (altered(look("route", "route"), 0, interfaces={}), Cause.INTERFACE_MISSING, "east"),
        (session_count(whole, 2), Cause.DUPLICATE_SAS, "east"),
        (session_count(whole, 0), Cause.HANDSHAKE_MISSING, "east"),
        (altered(whole, 0, sessions=narrowed), Cause.PREFIX_MISSING, "east"),
        (altered(whole, 0, probes=big_lost), Cause.MTU_HOLE, "east"),
        (altered(whole, 0, way=("10.255.42.55 via 198.51.100.9 dev eth0",)), Cause.ROUTE_MISSING, "east"),
        (small_lost(whole, 0), Cause.RETURN_ROUTE_MISSING, "east"),
        (deaf, Cause.UNREACHABLE, "east"),
        (altered(whole, 1, forwarding={4: False}), Cause.FORWARD_DROPPED, "west"),
        (altered(whole, 1, filters=Filters({}, ((4, "ip filter FORWARD"),))), Cause.FORWARD_DROPPED, "west"),
        (altered(whole, 1, filters=Filters({(4, "iptables-nft"): False})), Cause.FORWARD_DROPPED, "west"),
        (altered(whole, 1, digests={**whole.seen[1].digests, "table": "x"}), Cause.FORWARD_DROPPED, "west"),
    ]
    for case, cause, where in cases:
        found = findings(case)
        assert (found[0].cause, found[0].where) == (cause, where), f"{cause}: {found}"
        assert found[0].words


@pytest.mark.parametrize(
    ("days", "leg", "cause"),
    [
        (0, "", None),
        (80, "", None),
        (84, "expires in 6.0 days", None),
        (91, "expired 1.0 days ago", Cause.EXPIRED),
        (-1, "not valid yet", Cause.CLOCK_BEHIND),
    ],
)
def test_a_certificate_is_followed_to_its_end(days: float, leg: str, cause: Cause | None) -> None:
    whole = look(auth="certificates")
    for side in (0, 1):
        whole = altered(whole, side, now=int(NOW + days * DAY_S))
    failing = [one for one in legs_of(whole.ends, whole.keys, whole.seen) if not one.ok]
    assert [one.reason for one in failing] == ([leg] * 2 if leg else [])
    assert {one.cause for one in findings(whole)} == ({cause} if cause else set())
    assert bool(whole.due(NOW + days * DAY_S)) == (days > 60 or days < 0)


def test_each_leg_says_what_is_wrong() -> None:
    whole = look()
    child = whole.seen[0].sessions[0].children[0]
    session = whole.seen[0].sessions[0]
    narrowed = replace(session, children=(replace(child, local=("10.1.0.0/24",)),))
    keyless = replace(session, children=())
    cases = [
        (altered(whole, 0, tools={"answers": False}), "daemon of east: not running"),
        (altered(whole, 0, sessions=()), "session of east with west: none"),
        (altered(whole, 0, sessions=(replace(session, state="CONNECTING"),)), "session of east with west: connecting"),
        (session_count(whole, 2), "session of east with west: 2 at once"),
        (altered(whole, 0, sessions=(narrowed,)), "packet keys of east: agreed on 10.1.0.0/24 to "),
        (altered(whole, 0, sessions=(keyless,)), "packet keys of east: no keys for packets"),
        (altered(whole, 0, interfaces={}), "interface ipsec0 of east: not up"),
        (small_lost(whole, 0), "ping from east to west (10.255.42.55): no answer"),
        (altered(whole, 0, before=168), "bytes that east decrypts: none while pings were answered"),
    ]
    for case, words in cases:
        said = summary(tuple(legs_of(case.ends, case.keys, case.seen)))
        assert said.startswith(words), said


def test_somebody_elses_names_addresses_and_routes_are_refused() -> None:
    whole = look()
    east, seen = whole.ends[0], whole.seen[0]
    compare.refuse_collisions(east, seen)
    foreign = replace(seen, owner="default/other/link")
    with pytest.raises(SpecError, match="is taken on east: it belongs to default/other/link"):
        compare.refuse_collisions(east, foreign)
    with pytest.raises(SpecError, match="is taken on east"):
        compare.refuse_collisions(east, replace(seen, owner="?"))
    with pytest.raises(SpecError, match=r"10\.255\.42\.55/24 is in use on east, by lan"):
        compare.refuse_collisions(east, replace(seen, addresses={"lan": ("10.255.42.55/24",)}))
    with pytest.raises(SpecError, match="already routed over another link"):
        compare.refuse_collisions(east, replace(seen, routes=parse_survey(text(route4=_routed("wg0")), NAME).routes))


def _routed(device: str) -> str:
    return json.dumps([{"dst": "10.2.0.0/16", "dev": device, "protocol": "241"}])


@pytest.mark.parametrize(
    ("plane", "into", "out_of"),
    [
        ("route", f"-d 10.2.0.0/16 -o {NAME}", f"-s 10.2.0.0/16 -i {NAME}"),
        ("userspace", "-d 10.2.0.0/16 -o ipsec0", "-s 10.2.0.0/16 -i ipsec0"),
        (
            "policy",
            "-d 10.2.0.0/16 -m policy --dir out --pol ipsec",
            "-s 10.2.0.0/16 -m policy --dir in --pol ipsec",
        ),
    ],
)
def test_docker_lets_through_what_is_the_links_and_no_more(plane: Plane, into: str, out_of: str) -> None:
    (end, _) = look(plane, plane).ends
    assert {f"4 {into}", f"4 {out_of}"} < set(end.admitted)
    assert end.admitted_families == (4,)
    assert len(end.admitted) == 4, "the tunnel's address too"
    boot = boot_files(end, (), ())["boot"]
    assert f"through iptables {into} " in boot
    assert "ip6tables" not in boot


def test_rules_that_docker_has_for_other_prefixes_are_a_difference() -> None:
    whole = look()
    (end, survey) = whole.ends[0], whole.seen[0]

    def differing(**changes: Any) -> list[str]:
        changed = replace(survey, **changes)
        return [item.address for item in compare.differences(end, whole.files(end), whole.session(), changed)]

    chain = {(4, "iptables-nft"): True}
    right = {**survey.digests, "admitted": digest_of(end.admitted_text)}
    assert not differing()
    assert not differing(filters=Filters(chain), digests=right)
    assert differing(filters=Filters(chain)) == ["east: DOCKER-USER"]
    assert differing(filters=Filters({(4, "iptables-nft"): False})) == ["east: DOCKER-USER of iptables-nft"]


@pytest.mark.parametrize(
    ("answered", "said", "trouble"),
    [
        (True, "", ""),
        (False, "", "silence"),
        (True, "held 6\n", "forwarding of IPv6 is off"),
        (True, "held 4\nheld 6\n", "forwarding of IPv4 is off"),
        (False, "held 4\n", "silence"),
    ],
)
def test_a_gateway_that_answers_and_forwards_nothing_is_no_open_way(answered: bool, said: str, trouble: str) -> None:
    assert Probed(answered, parse_held(said)).trouble("silence") == trouble
