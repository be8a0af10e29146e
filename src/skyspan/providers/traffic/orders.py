"""Which tool makes a flow, and with which command at each end: pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyspan.model.error import ToolMissingError
from skyspan.model.secret import Secret
from skyspan.providers.masking import mask_secrets
from skyspan.providers.traffic.parse import Tool
from skyspan.providers.traffic.spec import End, Flow

PORT = "@PORT@"
"""Stands in the command of what listens for the port that is found free."""

CONNECT_S = 5.0
"""How long iperf3 tries to reach its server."""

_GRACE_S = 10.0
"""A tool has that much longer than it needs: to start, to look a name up, to hear the other end's figures."""

_PYTHON = ("python3", "-I", "-S", "-")
_SMALL = 64
_DATAGRAM = 1200
_UDP_RATE = 1e6
_PACKAGES = (("iperf3", "iperf3"), ("python3", "python3"), ("ping", "iputils-ping"), ("curl", "curl"))


@dataclass(frozen=True, slots=True)
class Program:
    """What runs at an end: its command, what it reads from standard input, and how its words are read."""

    argv: tuple[str, ...]
    tool: Tool
    text: Secret = Secret("")


def tool_of(flow: Flow, here: frozenset[str], there: frozenset[str]) -> Tool:
    """What makes the flow, of the tools at both ends; raises ToolMissingError naming the end and the package."""
    options = _options(flow)
    for tool in options:
        # What is served over HTTP is served by Python, whoever asks.
        answers = "python3" if tool is Tool.CURL else tool.value
        if tool.value in here and (not flow.served or answers in there):
            return tool
    first = options[0].value
    if flow.served and (flow.kind == "http" or here & {*options}) and not there & {*options} - {Tool.CURL}:
        raise _missing(flow, flow.to, [tool.value for tool in options if tool is not Tool.CURL])
    if not here & {*options}:
        raise _missing(flow, flow.from_, [tool.value for tool in options])
    raise _missing(flow, flow.from_ if first not in here else flow.to, [first])


def _options(flow: Flow) -> tuple[Tool, ...]:
    """The tools that can make the flow, the best one first."""
    if flow.kind == "ping":
        return (Tool.PING,)
    if flow.kind == "http":
        return (Tool.GENERATOR, Tool.CURL)
    if flow.kind != "iperf3":
        return (Tool.GENERATOR,)
    # The generator speaks to itself only; datagrams the other way round are more than it can do.
    stands_in = flow.served and not (flow.reverse and flow.protocol == "udp")
    return (Tool.IPERF3, Tool.GENERATOR) if stands_in else (Tool.IPERF3,)


def _missing(flow: Flow, end: End, options: Sequence[str]) -> ToolMissingError:
    place = f"in the container {end.container} on {_at(end)}" if end.container else f"on {_at(end)}"
    package = next(package for tool, package in _PACKAGES if tool == options[0])
    both = flow.kind == "iperf3" and len(options) > 1
    beside = f", or {options[1]}{' at both ends' if both else ''}" if len(options) > 1 else ""
    return ToolMissingError(
        f"there is no {' and no '.join(options)} {place} for a flow of kind {flow.kind}",
        hint=f"install the package {package} {place}{beside}",
    )


def _at(end: End) -> str:
    return end.host or "this machine"


def listener(flow: Flow, tool: Tool, address: str, lifetime: float) -> Program:
    """What answers at `to`; bound to `address`, everywhere when it is empty. `lifetime` in seconds, 0 for ever."""
    if tool is Tool.IPERF3:
        bind = ("-B", address) if address else ()
        argv = ("iperf3", "-s", "-p", PORT, *bind, "--forceflush", "--rcv-timeout", "10000")
        return Program(argv, tool)
    size = flow.size or _SMALL
    call = {"address": address, "size": size, "lifetime": lifetime}
    return Program((*_PYTHON, PORT), Tool.GENERATOR, _script("listen", call))


def sender(flow: Flow, tool: Tool, address: str, port: int) -> Program:
    """What makes the traffic from `from` to `address`, for one measurement or window."""
    if tool is Tool.IPERF3:
        return Program(_iperf3(flow, address, port), tool)
    if tool is Tool.PING:
        return Program(_ping(flow, address), tool)
    if tool is Tool.CURL:
        return Program(_curl(flow, address, port), tool)
    kind, given = _asked(flow)
    call: dict[str, Any] = {
        "address": address,
        "port": port,
        "source": flow.from_.address or "",
        "dscp": flow.dscp or 0,
    }
    call |= {"seconds": float(flow.duration), **given}
    return Program(_PYTHON, tool, _script(kind, call))


def without_secrets(flow: Flow, text: str) -> str:
    """What a tool said, with the flow's secrets masked: it may say what it was given."""
    return mask_secrets(text, [flow.community] if flow.community is not None else [])


def port_there(flow: Flow) -> int:
    """The port of a service that is there already; 0 where there are none."""
    known = {"http": 443 if flow.tls else 80, "snmp": 161}
    return flow.port or known.get(flow.kind, 0)


def longest(flow: Flow) -> float:
    """Seconds after which a measurement must have ended."""
    return flow.duration + flow.timeout + _GRACE_S + (CONNECT_S if flow.kind == "iperf3" else 0.0)


def _iperf3(flow: Flow, address: str, port: int) -> tuple[str, ...]:
    udp = flow.protocol == "udp"
    rate = flow.rate or (_UDP_RATE if udp else 0)
    size = flow.size or (_DATAGRAM if udp else 0)
    if rate and not udp and not size:
        # It sends whole blocks: those of 128 KB would come in bursts.
        size = max(256, min(131072, int(rate / flow.parallel / 8 / 20)))
    argv = ["iperf3", "-c", address, "-p", str(port), "-t", str(math.ceil(flow.duration)), "--json", "-i", "0"]
    argv += ["--connect-timeout", str(int(CONNECT_S * 1000))]
    argv += ["-u"] if udp else []
    # Its rate is that of each stream.
    argv += ["-b", str(max(int(rate / flow.parallel), 1))] if rate else []
    argv += ["-l", str(size)] if size else []
    argv += ["-P", str(flow.parallel)] if flow.parallel > 1 else []
    argv += ["-R"] if flow.reverse else []
    argv += ["-S", str(flow.dscp << 2)] if flow.dscp else []
    argv += ["-B", flow.from_.address] if flow.from_.address else []
    return tuple(argv)


def requests(flow: Flow) -> int:
    """How many there are in one measurement."""
    return max(math.ceil(flow.per_second * flow.duration), 1)


def _ping(flow: Flow, address: str) -> tuple[str, ...]:
    argv = ["ping", "-n", "-c", str(requests(flow)), "-i", f"{1 / flow.per_second:g}"]
    argv += ["-W", str(math.ceil(flow.timeout)), "-s", str((flow.size or _SMALL) - 8)]
    # Both iputils and busybox take a bare number; only the first knows code points.
    argv += ["-Q", str(flow.dscp << 2)] if flow.dscp else []
    argv += ["-I", flow.from_.address] if flow.from_.address else []
    return (*argv, address)


_CURL = r"""
count=$1 pause=$2 url=$3; shift 3
while [ "$count" -gt 0 ]; do
  curl -s -o /dev/null -w '%{http_code} %{time_connect} %{time_total}\n' "$@" -- "$url" || :
  count=$((count-1))
  if [ "$count" -gt 0 ]; then sleep "$pause"; fi
done
"""


def _curl(flow: Flow, address: str, port: int) -> tuple[str, ...]:
    host = f"[{address}]" if ":" in address else address
    url = f"http{'s' if flow.tls else ''}://{host}:{port}{flow.path}"
    more = [] if flow.verify else ["-k"]
    more += ["--interface", flow.from_.address] if flow.from_.address else []
    count, pause = str(requests(flow)), f"{1 / flow.per_second:g}"
    return ("sh", "-c", _CURL, "sh", count, pause, url, "--globoff", "-m", f"{flow.timeout:g}", *more)


def _asked(flow: Flow) -> tuple[str, dict[str, Any]]:
    """What the generator is to do."""
    if flow.kind == "iperf3":
        if flow.protocol == "udp":
            return "stream-udp", {"rate": float(flow.rate or _UDP_RATE), "size": max(flow.size or _DATAGRAM, 32)}
        return "stream-tcp", {"rate": float(flow.rate or 0), "parallel": flow.parallel, "reverse": flow.reverse}
    paced = {"per_second": float(flow.per_second), "timeout": float(flow.timeout)}
    if flow.kind == "tcp":
        return "tcp", {**paced, "echo": flow.served, "size": flow.size or _SMALL}
    if flow.kind == "udp":
        return "udp", {**paced, "size": flow.size or _SMALL}
    if flow.kind == "http":
        tls = 0 if not flow.tls else 1 if flow.verify else 2
        return "http", {**paced, "path": flow.path, "tls": tls}
    community = flow.community.reveal() if flow.community is not None else "public"
    numbers = tuple(int(number) for number in flow.oid.split("."))
    version = 0 if flow.version == "1" else 1
    return "snmp", {**paced, "community": community, "version": version, "oid": numbers, "walk": flow.walk}


_PARTS = ("wire", "answers", "asks", "streams", "snmp", "main")
_SHIPPED = "from skyspan."


def _script(kind: str, call: dict[str, Any]) -> Secret:
    """The generator's parts as one text, with the call of its `main`: numbers and texts, written as Python writes them.

    Each part imports the others by lines of their own, which one text does not need."""
    folder = Path(__file__).parent / "shipped"
    lines = ["from __future__ import annotations"]
    for part in _PARTS:
        for line in (folder / f"{part}.py").read_text(encoding="utf-8").splitlines():
            if not line.startswith((_SHIPPED, lines[0])):
                lines.append(line)
    return Secret("\n".join([*lines, f"main({kind!r}, **{call!r})", ""]))
