from __future__ import annotations

import os
import stat
from pathlib import Path

from skyspan.rehearsal.snapshot import differences, files, network

LOOKED = """@links
[{"ifname":"eth0","flags":["UP"],"mtu":1500,"addr_info":[{"local":"10.0.0.1","prefixlen":24,"scope":"global"},
{"local":"fe80::1","prefixlen":64,"scope":"link"}]}]
@routes
[{"dst":"10.0.0.0/24","dev":"eth0","protocol":"kernel"},{"dst":"default","gateway":"10.0.0.254","dev":"eth0"}]
@routes
@rules
[{"priority":0,"src":"all","table":"local"}]
@nftables
table inet link {
\tchain forward {
\t\ttype filter hook forward priority filter; policy accept;
\t\ttcp dport 22 accept
\t}
}
"""


def test_a_picture_leaves_out_what_the_kernel_makes_by_itself() -> None:
    found = set(network(LOOKED))
    assert "address 10.0.0.1/24 on eth0" in found
    assert "route default gateway 10.0.0.254 dev eth0" in found
    assert not any("fe80" in item or "10.0.0.0/24" in item for item in found)


def test_a_rule_is_named_with_its_table_and_chain() -> None:
    assert "nftables table inet link / chain forward: tcp dport 22 accept" in set(network(LOOKED))


def test_what_is_new_and_what_is_gone_are_told_apart() -> None:
    before = {"gw": frozenset({"a", "b"})}
    after = {"gw": frozenset({"b", "c"}), "new": frozenset({"d"})}
    assert differences(before, after) == ("gw: left behind: c", "gw: missing: a", "new: left behind: d")


def test_equal_pictures_prove_that_nothing_is_left() -> None:
    assert differences({"gw": frozenset({"a"})}, {"gw": frozenset({"a"})}) == ()


def test_files_below_are_seen_by_content_and_scratch_folders_are_not(tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    (upper / "etc/wireguard").mkdir(parents=True)
    (lower / "etc").mkdir(parents=True)
    (upper / "etc/wireguard/w.conf").write_text("key")
    (upper / "var/log").mkdir(parents=True)
    (upper / "var/log/x").write_text("log")
    (lower / "var").mkdir()
    (upper / "etc/here").symlink_to("there")
    before = set(files(upper, lower))
    assert "folder /etc/wireguard" in before
    assert "link to there /etc/here" in before
    assert not any("log" in item for item in before)
    (upper / "etc/wireguard/w.conf").write_text("other")
    assert len(set(files(upper, lower)) - before) == 1


def test_what_a_stand_in_never_saw_is_not_missed_and_what_it_made_in_its_place_is_seen(tmp_path: Path) -> None:
    (tmp_path / "var/lib").mkdir(parents=True)
    os.mknod(tmp_path / "var/lib/skyspan", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(tmp_path / "var/lib/other", stat.S_IFCHR, os.makedev(0, 0))
    below = tmp_path / "below"
    assert {line for line in files(tmp_path, below) if "/var/lib/" in line} == {"removed file /var/lib/other"}
    (tmp_path / "var/lib/skyspan").unlink()
    (tmp_path / "var/lib/skyspan/links").mkdir(parents=True)
    assert "folder /var/lib/skyspan/links" in set(files(tmp_path, below))


def test_a_changed_mode_is_a_difference(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    before = set(files(tmp_path, tmp_path))
    (tmp_path / "f").chmod(0o600)
    assert set(files(tmp_path, tmp_path)) != before


IPTABLES = """@nftables
table ip filter {
\tchain INPUT {
\t\ttype filter hook input priority filter; policy accept;
\t}
\tchain FORWARD {
\t\ttype filter hook forward priority filter; policy %s;
\t}
%s}
table inet filter {
\tchain INPUT {
\t\ttype filter hook input priority filter; policy accept;
\t}
}
"""


def test_what_iptables_leaves_when_it_is_asked_for_anything_is_not_told() -> None:
    said = set(network(IPTABLES % ("accept", "")))
    assert not any("table ip filter" in item for item in said)
    assert "nftables table inet filter / chain INPUT" in said


def test_a_policy_a_rule_or_a_chain_of_somebodys_own_is_told() -> None:
    assert any("policy drop" in item for item in network(IPTABLES % ("drop", "")))
    own = set(network(IPTABLES % ("accept", "\tchain mine {\n\t}\n")))
    assert {"nftables table ip filter", "nftables table ip filter / chain mine"} <= own
    ruled = "\tchain OUTPUT {\n\t\ttype filter hook output priority 0; policy accept;\n\t\tdrop\n\t}\n"
    assert "nftables table ip filter / chain OUTPUT: drop" in set(network(IPTABLES % ("accept", ruled)))
