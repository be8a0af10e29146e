"""The nftables text of a link; tests/integration loads it for real."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from skyspan.networks.firewall import KNOWN, TO_CLAMP, Admission, LinkFilter, parse_admission, removal, ruleset


def link_filter(*allow: str, mtu: int = 1420) -> LinkFilter:
    return LinkFilter(
        table="skyspan-sky-1",
        interface="sky-1",
        mtu=mtu,
        allow=tuple(parse_admission(rule) for rule in allow),
        here=(ip_network("10.1.0.0/16"),),
        there=(ip_network("10.2.0.0/16"), ip_network("2001:db8:2::/48")),
        own=(ip_address("10.255.0.0"),),
        peer=(ip_address("10.255.0.1"),),
    )


def chain(text: str, name: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    begin = lines.index(f"chain {name} {{") + 1
    return lines[begin : lines.index("}", begin)]


def test_rules_are_read() -> None:
    assert parse_admission("tcp/22") == Admission("tcp", 22, 22)
    assert parse_admission("udp/5000-5010") == Admission("udp", 5000, 5010)
    assert parse_admission("icmp") == Admission("icmp")


@pytest.mark.parametrize("text", ["", "tcp", "tcp/0", "tcp/70000", "tcp/20-10", "sctp/1", "tcp/22; drop", "tcp/22\n"])
def test_what_is_no_rule_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(ValueError, match="is no rule: write icmp, tcp/22"):
        parse_admission(text)


def test_only_what_is_allowed_is_admitted() -> None:
    assert chain(ruleset(link_filter("icmp", "tcp/22", "udp/161", "tcp/8080")), "admitted") == [
        "meta l4proto { icmp, ipv6-icmp } accept",
        "tcp dport { 22, 8080 } accept",
        "udp dport { 161 } accept",
    ]


def test_nothing_is_admitted_when_nothing_is_allowed() -> None:
    assert chain(ruleset(link_filter()), "admitted") == []


def test_overlapping_ranges_become_one() -> None:
    text = ruleset(link_filter("tcp/10-20", "tcp/15-30", "tcp/31", "tcp/40"))
    assert chain(text, "admitted") == ["tcp dport { 10-31, 40 } accept"]


def test_what_arrives_over_the_tunnel_ends_in_a_refusal() -> None:
    text = ruleset(link_filter("icmp"))
    assert chain(text, "input")[-1] == "goto refused"
    assert chain(text, "forward")[-2:] == ['iifname "sky-1" goto refused', 'oifname "sky-1" goto refused']
    assert chain(text, "refused")[-1] == "reject with icmpx admin-prohibited"


def test_traffic_that_is_not_the_links_is_left_to_others() -> None:
    text = ruleset(link_filter("any"))
    assert chain(text, "input")[1:3] == [KNOWN, 'iifname != "sky-1" accept']
    # Before the interface is asked for, only what the end of the chain gives others too.
    assert chain(text, "forward")[1:3] == [TO_CLAMP, KNOWN]
    assert all("sky-1" in rule for rule in (*chain(text, "forward")[3:], *chain(text, "clamp")))


def test_a_connections_first_answer_is_clamped_too() -> None:
    forward = chain(ruleset(link_filter()), "forward")
    assert forward.index(TO_CLAMP) < forward.index(KNOWN), "which belongs to a connection already"


def test_only_declared_prefixes_are_forwarded() -> None:
    forward = chain(ruleset(link_filter("tcp/22")), "forward")
    assert 'iifname "sky-1" ip daddr { 10.1.0.0/16 } jump admitted' in forward
    assert 'oifname "sky-1" ip saddr { 10.1.0.0/16 } ip daddr { 10.2.0.0/16, 10.255.0.1 } jump admitted' in forward


def test_the_mss_is_clamped_in_both_directions() -> None:
    clamp = chain(ruleset(link_filter(mtu=1400)), "clamp")
    for way in ("iifname", "oifname"):
        assert any(rule.startswith(way) and rule.endswith("maxseg size set 1360") for rule in clamp)
        assert any(rule.startswith(way) and "ipv6" in rule and rule.endswith("size set 1340") for rule in clamp)


def test_what_ipv6_cannot_do_without_always_passes() -> None:
    text = ruleset(link_filter())
    errors = "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept"
    assert errors in chain(text, "input")
    for way in ("iifname", "oifname"):
        assert f'{way} "sky-1" {errors}' in chain(text, "forward")
    neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept"
    assert neighbours in chain(text, "input")


def test_the_table_is_replaced_in_one_transaction() -> None:
    lines = ruleset(link_filter()).splitlines()
    assert lines[:3] == [
        "table inet skyspan-sky-1",
        "delete table inet skyspan-sky-1",
        "table inet skyspan-sky-1 {",
    ]
    assert removal("skyspan-sky-1").splitlines() == lines[:2]
