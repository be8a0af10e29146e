"""What a filter of IPsec asks first, to be done sooner, decides nothing: random packets end as they would without.

Rules are read here as nft reads them, as far as the filter uses its language; tests/integration loads them for real.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import pytest

from skyspan.networks.firewall import TO_CLAMP, Address, parse_admission
from skyspan.networks.ipsec.filter import EndFilter, ruleset

SITES = ("10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/24", "10.4.4.0/24", "10.5.0.0/16", "10.6.0.0/16", "0.0.0.0/0")
SITES6 = ("2001:db8:1::/48", "2001:db8:2::/48")
OWN, PEER = ("10.255.0.0", "fd5b::1"), ("10.255.0.1", "fd5b::2")
PLACES = (*OWN, *PEER, "10.1.0.9", "10.2.0.9", "10.3.0.9", "10.5.0.9", "192.0.2.9", "2001:db8:1::9", "2001:db8:2::9")


def end_filter(here: tuple[str, ...], there: tuple[str, ...], interface: str = "ipsec0", *allow: str) -> EndFilter:
    return EndFilter(
        table="t",
        interface=interface,
        mtu=1400,
        allow=tuple(map(parse_admission, allow)),
        here=tuple(map(ip_network, here)),
        there=tuple(map(ip_network, there)),
        own=tuple(map(ip_address, OWN)),
        peer=tuple(map(ip_address, PEER)),
    )


def chains(text: str) -> dict[str, list[str]]:
    found = re.findall(r"\tchain (\S+) \{\n(.*?)\t\}", text, re.DOTALL)
    return {name: [line.strip() for line in body.splitlines()] for name, body in found}


@dataclass(frozen=True, slots=True)
class Packet:
    source: Address
    target: Address
    comes: str
    goes: str
    state: str
    kind: str
    port: int
    wrapped: bool
    """Whether a policy of IPsec takes it."""

    @classmethod
    def any(cls, chance: random.Random) -> Packet:
        source, target = chance.sample(PLACES, 2)
        return cls(
            ip_address(source),
            ip_address(target),
            comes=chance.choice(("ipsec0", "lan", "eth0")),
            goes=chance.choice(("ipsec0", "lan", "eth0")),
            state=chance.choice(("new", "established", "related", "invalid")),
            kind=chance.choice(("tcp", "udp")),
            port=chance.choice((22, 80)),
            wrapped=chance.random() < 0.5,
        )

    def matches(self, rule: str) -> bool:
        """Whether every condition of a rule holds."""
        rest = re.sub(r" ?(accept|drop|(goto|jump) \S+|reject.*)$", "", rule)
        for what, unlike, value in CONDITION.findall(rest):
            if what.startswith("ip6 " if self.source.version == 4 else "ip "):
                return False
            if self._is(what, [item.strip(' "') for item in value.strip("{}").split(",")]) == bool(unlike):
                return False
        assert not CONDITION.sub("", rest).strip(), f"not understood: {rule}"
        return True

    def _is(self, what: str, values: list[str]) -> bool:
        kind, _, which = what.rpartition(" ")
        if which in ("saddr", "daddr"):
            address = self.source if which == "saddr" else self.target
            return any(address in ip_network(text) for text in values)
        if kind in ("icmp", "icmpv6"):
            return False
        if which == "dport":
            first, last = (values[0].split("-") * 2)[:2]
            return self.kind == kind and int(first) <= self.port <= int(last)
        own = {"iifname": self.comes, "oifname": self.goes, "ct state": self.state, "meta l4proto": self.kind}
        return {**own, "rt ipsec": "exists" if self.wrapped else "missing"}[what] in values


CONDITION = re.compile(
    r"(iifname|oifname|ct state|meta l4proto|rt ipsec|ip6? [sd]addr|icmp(?:v6)? type|(?:tcp|udp) dport) "
    r"(!= )?(\{[^}]*\}|\S+)"
)


@dataclass
class Reader:
    """Follows a packet through chains."""

    rules: dict[str, list[str]]
    seen: set[str] = field(default_factory=set)

    def end(self, chain: str, packet: Packet) -> str:
        """`accept`, `drop` or `reject`; empty when the chain ends before it is decided."""
        for rule in self.rules[chain]:
            if rule.startswith("type filter") or rule == TO_CLAMP or not packet.matches(rule):
                continue
            if jump := re.search(r"(goto|jump) (\S+)$", rule):
                decided = self.end(jump[2], packet)
                if decided or jump[1] == "goto":
                    return decided
            else:
                self.seen.add(rule)
                return (re.search(r"\b(accept|drop|reject)\b", rule) or [""])[0]
        return ""


def test_what_is_asked_first_changes_the_end_of_no_packet() -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ends, hurried = set(), set()
    for _ in range(30):
        sites = chance.sample((*SITES, *SITES6), 6)
        cut = chance.randint(1, 3)
        interface = chance.choice(("ipsec0", "ipsec0", ""))
        text = ruleset(end_filter((*sites[:cut],), (*sites[cut:],), interface, *chance.choice((("any",), ("tcp/22",)))))
        quick, slow = Reader(chains(text)), Reader(chains(text))
        for name in ("input", "forward", "output"):
            first = [rule for rule in quick.rules[name] if re.match(r"ct state|ip6? [sd]addr != ", rule)]
            slow.rules[name] = [rule for rule in slow.rules[name] if rule not in first]
            hurried |= {rule.partition(" ")[0] for rule in first}
        for _ in range(60):
            packet = Packet.any(chance)
            if packet.source.version == packet.target.version:
                for name in ("input", "forward", "output"):
                    end = quick.end(name, packet) or "accept"
                    assert end == (slow.end(name, packet) or "accept"), (name, packet, text)
                    ends.add(end)
    assert ends == {"accept", "drop", "reject"}
    assert hurried == {"ct", "ip", "ip6"}, "there was something to leave out"


def test_what_comes_first_is_left_out_where_it_would_not_hold() -> None:
    whole = ruleset(end_filter(("10.1.0.0/16",), ("0.0.0.0/0",)))
    assert "!= 0.0.0.0/0" not in whole, "nothing is aside of everything"
    nested = ruleset(end_filter(("10.0.0.0/8",), ("10.2.0.0/16",)))
    for text in (whole, nested):
        assert not [rule for rule in chains(text)["forward"] if rule.startswith("ct state")]


def test_many_prefixes_are_looked_for_in_one_set() -> None:
    many = chains(ruleset(end_filter(("192.0.2.0/24",), SITES[:6])))
    assert many["input"][1].startswith("ip saddr != { 10.1.0.0/16, 10.2.0.0/16, ")
    few = chains(ruleset(end_filter(("192.0.2.0/24",), SITES[:2])))
    assert few["input"][1] == "ip saddr != 10.1.0.0/16 ip saddr != 10.2.0.0/16 ip saddr != 10.255.0.1 accept"


@pytest.mark.parametrize("interface", ["ipsec0", ""])
def test_the_answer_to_a_syn_is_clamped_before_its_connection_is_known(interface: str) -> None:
    forward = chains(ruleset(end_filter(("10.1.0.0/16",), ("10.2.0.0/16",), interface)))["forward"]
    assert forward[1] == TO_CLAMP
