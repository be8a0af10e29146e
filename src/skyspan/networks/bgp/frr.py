"""The configuration of FRR as text, how one becomes another without losing sessions, and what `vtysh` prints; pure.

The integrated file goes through vtysh, which hands each line to the daemons that know it: given to the daemons
directly, each rejects the others' lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from skyspan.model.secret import Secret
from skyspan.networks.bgp.speaking import Conversation, Instance

METRIC = 20
"""What zebra gives a route of BGP in the kernel's table."""

STARTUP = "no zebra nexthop kernel enable\n"
"""What zebra reads before it looks at the kernel: no next hop objects, which two zebras would fight over."""

_PROFILE = "link"

_COALESCE_MS = 20
"""How long bgpd gathers changes before it tells them: by default a second, for tables of the whole internet."""

_LISTENS = "! listens on "
"""A remark with the port, which is given to bgpd on its command line: another one takes a new start."""

Line: TypeAlias = tuple[tuple[str, ...], str]
"""A line and the blocks it stands in."""


def config_text(instance: Instance) -> Secret:
    """The whole file, one block in another by indentation of one space, as vtysh wants it."""
    lines = [
        f"! Made by Skyspan for {instance.owner}: what is changed here is overwritten.",
        f"{_LISTENS}{instance.port}",
    ]
    for conversation in instance.conversations:
        lines += _lists(conversation)
    if instance.bfd is not None:
        lines += [
            "bfd",
            f" profile {_PROFILE}",
            f"  transmit-interval {instance.bfd.milliseconds}",
            f"  receive-interval {instance.bfd.milliseconds}",
            f"  detect-multiplier {instance.bfd.multiplier}",
        ]
    lines += [
        f"router bgp {instance.asn}",
        f" bgp router-id {instance.router_id}",
        " no bgp default ipv4-unicast",
        " no bgp network import-check",
        f" coalesce-time {_COALESCE_MS}",
    ]
    for conversation in instance.conversations:
        lines += _neighbour(instance, conversation)
    for version in instance.versions:
        lines += _family(instance, version)
    return Secret("\n".join((*lines, "")))


def _lists(conversation: Conversation) -> Iterator[str]:
    """Strict lists in both directions. Each has an entry that never matches: a list without entries lets all pass."""
    word, nothing = ("ip", "255.255.255.255/32") if conversation.version == 4 else ("ipv6", "ff00::/128")
    for way, networks in (("in", conversation.receive), ("out", conversation.send)):
        name = f"{conversation.name}_{way}"
        yield f"{word} prefix-list {name} seq 1 deny {nothing}"
        yield from (f"{word} prefix-list {name} permit {net}" for net in networks)


def _neighbour(instance: Instance, conversation: Conversation) -> Iterator[str]:
    start = f" neighbor {conversation.peer}"
    yield f"{start} remote-as {conversation.peer_asn}"
    yield f"{start} description {conversation.peer_host}"
    if instance.port != 179:
        yield f"{start} port {instance.port}"
    yield f"{start} update-source {conversation.local}"
    if conversation.multihop and conversation.peer_asn != instance.asn:
        yield f"{start} ebgp-multihop {conversation.multihop}"
    yield f"{start} timers {instance.keepalive} {instance.hold}"
    yield f"{start} timers connect 2"
    yield f"{start} advertisement-interval 0"
    if conversation.password is not None:
        yield f"{start} password {conversation.password.reveal()}"
    if instance.bfd is not None:
        yield f"{start} bfd"
        yield f"{start} bfd profile {_PROFILE}"


def _family(instance: Instance, version: int) -> Iterator[str]:
    yield f" address-family ipv{version} unicast"
    yield from (f"  network {net}" for net in instance.announce if net.version == version)
    for conversation in instance.conversations:
        if conversation.version == version:
            start = f"  neighbor {conversation.peer}"
            yield f"{start} activate"
            yield f"{start} next-hop-self"
            yield f"{start} soft-reconfiguration inbound"
            yield f"{start} maximum-prefix {conversation.limit} restart 1 force"
            yield f"{start} prefix-list {conversation.name}_in in"
            yield f"{start} prefix-list {conversation.name}_out out"


def delta(old: str, new: str) -> str | None:
    """The lines that turn a daemon with `old` into one with `new`, as a file for vtysh; None when only a new start
    does, because its system, router id or port changed, or a neighbour's system. What comes is added before what goes
    is removed, and what only gets another value is not removed at all: that would take the new one away."""
    before, after = _lines(old), _lines(new)
    had, has, set_again = set(before), set(after), {_setting(line) for line in after}
    # A family of addresses is no block that can be taken away: what is in it can.
    kept = has | {line for line in before if line[1].startswith("address-family")}
    removed = [line for line in before if line not in kept and all(block in kept for block in _blocks(line))]
    if _identity(old) != _identity(new) or any(_moved(line) and _setting(line) in set_again for line in removed):
        return None
    gone = [(where, _no(text)) for where, text in reversed(removed) if _setting((where, text)) not in set_again]
    come = [line for line in after if line not in had and not line[1].startswith("address-family")]
    return "".join(f"{line}\n" for line in _written([*come, *gone]))


def _setting(line: Line) -> Line:
    """What a line sets, without the value: lines of one setting replace each other. Lists have a line per entry."""
    where, text = line
    words = text.split()
    if words[0] == "neighbor":
        which = words[3:4] if words[3:4] in (["connect"], ["profile"]) else words[4:5] if "prefix-list" in words else []
        return where, " ".join((*words[:3], *which))
    return where, text if words[0] in ("network", "ip", "ipv6", "no", "profile", "bgp") else words[0]


def _moved(line: Line) -> bool:
    return " remote-as " in line[1]


def _identity(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith((_LISTENS, "router bgp ", " bgp router-id "))]


def _blocks(line: Line) -> Iterator[Line]:
    """The lines that open the blocks around a line."""
    where, _ = line
    return ((where[:depth], where[depth]) for depth in range(len(where)))


def _no(text: str) -> str:
    return text.removeprefix("no ") if text.startswith("no ") else f"no {text}"


def _lines(text: str) -> list[Line]:
    found: list[Line] = []
    where: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("!"):
            continue
        depth = len(line) - len(line.lstrip(" "))
        where = where[:depth]
        found.append((tuple(where), line.strip()))
        where.append(line.strip())
    return found


def _written(lines: Sequence[Line]) -> Iterator[str]:
    """Each line in its blocks, every block closed before the next."""
    last: tuple[str, ...] = ()
    for where, text in lines:
        if where != last:
            yield from (" " * depth + "exit" for depth in range(len(last), 0, -1))
            yield from (" " * depth + block for depth, block in enumerate(where))
            last = where
        yield " " * len(where) + text


def read_sessions(summary: str, neighbours: str) -> dict[str, tuple[str, str]]:
    """Of `show bgp vrf default summary json` and `… neighbors json`: by peer, the state of its session and
    its last error. Only the summary tells a session that was closed for its number of prefixes."""
    states = {
        peer: str(info.get("state", ""))
        for family in _object(summary).values()
        if isinstance(family, Mapping)
        for peer, info in family.get("peers", {}).items()
    }
    known = _object(neighbours)
    return {peer: (state.partition(" ")[0], _error(state, known.get(peer, {}))) for peer, state in states.items()}


def _error(state: str, info: Mapping[str, Any]) -> str:
    if state == "Established":
        return ""
    if "PfxCt" in state:
        return "it sent more prefixes than `max_prefixes` allows"
    return str(info.get("lastNotificationReason") or info.get("lastResetDueTo") or "")


def read_routes(text: str) -> frozenset[str]:
    """Of `show bgp … neighbors PEER routes|advertised-routes|filtered-routes json`: the prefixes."""
    found = _object(text)
    listed: Any = next((found[name] for name in ("routes", "advertisedRoutes", "receivedRoutes") if name in found), {})
    return frozenset(listed) if isinstance(listed, Mapping) else frozenset()


def read_bfd(text: str) -> dict[str, bool]:
    """Of `show bfd peers json`: by the peer's address, whether it is up."""
    found = json.loads(text) if text.strip().startswith("[") else []
    return {item["peer"]: item.get("status") == "up" for item in found}


def _object(text: str) -> Mapping[str, Any]:
    """A JSON object; vtysh says a sentence instead where there is nothing."""
    start = text.find("{")
    found: Mapping[str, Any] = json.loads(text[start:]) if start >= 0 else {}
    return found
