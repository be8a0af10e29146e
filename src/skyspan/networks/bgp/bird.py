"""The configuration of BIRD 2 as text, and what its client prints, read into values: pure.

BIRD has no machine-readable output; what is read here is what birdc of 2.0 prints, tolerantly. A reload
(`configure`) keeps every session whose own settings stay (BIRD user's guide, section 5.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from skyspan.model.secret import Secret
from skyspan.networks.addressing import Network
from skyspan.networks.bgp.speaking import Conversation, Instance

_LOG_LIMIT = 1_000_000


def config_text(instance: Instance, metric: int, run: str) -> Secret:
    """The whole file. `run` is the folder of its socket and log. What is announced lives in BIRD's own tables alone:
    the kernel's only gets what neighbours announce, with a metric that keeps it apart from other instances."""
    lines = [
        f"# Made by Skyspan for {instance.owner}: what is changed here is overwritten.",
        f'log "{run}/log" {_LOG_LIMIT} "{run}/log.old" {{ info, remote, warning, error, auth, fatal, bug }};',
        f"router id {instance.router_id};",
        "protocol device { scan time 10; }",
    ]
    for version in instance.versions:
        lines += _tables(instance, version, metric)
    if instance.bfd is not None:
        timers = f"interval {instance.bfd.milliseconds} ms; multiplier {instance.bfd.multiplier};"
        lines.append(f'protocol bfd bfd1 {{ strict bind yes; interface "*" {{ {timers} }}; multihop {{ {timers} }}; }}')
    for conversation in instance.conversations:
        lines += _session(instance, conversation)
    return Secret("\n".join((*lines, "")))


def _tables(instance: Instance, version: int, metric: int) -> Iterator[str]:
    own = "".join(f" route {net} unreachable;" for net in instance.announce if net.version == version)
    yield f"protocol static announced{version} {{ ipv{version};{own} }}"
    kernel = "import none; export where source = RTS_BGP;"
    yield f"protocol kernel kernel{version} {{ ipv{version} {{ {kernel} }}; metric {metric}; scan time 20; }}"


def _session(instance: Instance, conversation: Conversation) -> Iterator[str]:
    yield f"protocol bgp {conversation.name} {{"
    yield f'\tdescription "{conversation.peer_host}";'
    yield f"\tlocal {conversation.local} port {instance.port} as {instance.asn};"
    yield f"\tneighbor {conversation.peer} port {instance.port} as {conversation.peer_asn};"
    yield "\tstrict bind yes;"
    if conversation.multihop:
        yield f"\tmultihop {conversation.multihop};"
    else:
        yield "\tdirect;"
        if conversation.device:
            yield f'\tinterface "{conversation.device}";'
    yield f"\thold time {instance.hold}; keepalive time {instance.keepalive};"
    yield "\tconnect delay time 1; connect retry time 2; error wait time 1, 2;"
    if conversation.password is not None:
        yield f'\tpassword "{conversation.password.reveal()}";'
    if instance.bfd is not None:
        yield "\tbfd yes;"
    yield f"\tipv{conversation.version} {{"
    yield "\t\tnext hop self;"
    yield f"\t\timport keep filtered yes; receive limit {conversation.limit} action restart;"
    yield f"\t\timport {_only(conversation.receive)};"
    yield f"\t\texport {_only(conversation.send)};"
    yield "\t};"
    yield "}"


def _only(networks: Sequence[Network]) -> str:
    """A filter that lets these prefixes pass, exactly; BIRD has no empty set."""
    return f"where net ~ [ {', '.join(map(str, networks))} ]" if networks else "none"


_PROTOCOL = re.compile(r"^(?P<name>\S+)\s+BGP\s+\S+\s+(?P<state>\S+)", re.MULTILINE)
_ROUTE = re.compile(r"^(?P<net>[0-9a-fA-F:.]+/\d+)\s", re.MULTILINE)


def read_sessions(text: str) -> dict[str, tuple[str, str]]:
    """Of `show protocols all`: by protocol, the state of its session and its last error."""
    found: dict[str, tuple[str, str]] = {}
    starts = [*_PROTOCOL.finditer(text)]
    for number, start in enumerate(starts):
        end = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        block = text[start.end() : end]
        state = _field(block, "BGP state") or start["state"]
        error = _field(block, "Last error")
        if "[HIT]" in block:
            error = "it sent more prefixes than `max_prefixes` allows" + (f" ({error})" if error else "")
        found[start["name"]] = (state, "" if state == "Established" else error)
    return found


def _field(block: str, name: str) -> str:
    found = re.search(rf"^\s+{name}:\s+(.+?)\s*$", block, re.MULTILINE)
    return found[1] if found else ""


def read_routes(text: str) -> frozenset[str]:
    """Of `show route …`: the prefixes."""
    return frozenset(found["net"] for found in _ROUTE.finditer(text))


def read_bfd(text: str) -> dict[str, bool]:
    """Of `show bfd sessions`: by the peer's address, whether it is up."""
    rows = (line.split() for line in text.splitlines())
    return {
        row[0].partition("%")[0]: row[2] == "Up"
        for row in rows
        if len(row) >= 6 and row[0][0].isalnum() and "." in row[-1]
    }
