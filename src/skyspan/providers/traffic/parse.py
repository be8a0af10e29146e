"""What the tools print, read into figures: iperf3's JSON, ping, curl, and the generator's lines; pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from skyspan.providers.traffic.figures import Figures, Spread, jitter, spread

_TIMED_OUT = (124, 137)

_PING_TIME = re.compile(r"^\d+ bytes from .*\btime[=<]([0-9.]+) ?ms", re.MULTILINE)
_PING_COUNT = re.compile(r"(\d+) packets transmitted, (\d+) (?:packets )?received")


class Tool(StrEnum):
    """What made the traffic, and so how its words are read."""

    IPERF3 = "iperf3"
    GENERATOR = "python3"
    PING = "ping"
    CURL = "curl"


def read(tool: Tool, text: str, words: str = "", code: int = 0) -> Figures:
    """The figures in what `tool` printed; `words` are its last ones on standard error.

    Ended by `timeout` it has the exit status 124, or 137 when it had to be killed (coreutils' manual)."""
    if code in _TIMED_OUT and not text.strip():
        return Figures(failed=f"{tool.value} did not end in time and was stopped")
    try:
        figures = _READERS[tool](text)
    except (ValueError, KeyError, IndexError, TypeError):
        figures = None
    if figures is not None:
        return figures
    said = (words.strip() or text.strip()).splitlines()
    return Figures(failed=said[-1].strip() if said else f"{tool.value} ended with {code} without a word")


def iperf3(text: str) -> Figures | None:
    """`iperf3 --json`. It exits with 0 also when it fails, and says so inside."""
    said: Mapping[str, Any] = json.loads(text)
    if "error" in said:
        return Figures(failed=f"iperf3: {said['error']}")
    end = said["end"]
    if "udp" in end["streams"][0]:
        return _iperf3_udp(end)
    sent, received = end["sum_sent"], end["sum_received"]
    senders = [stream["sender"] for stream in end["streams"]]
    trips = [item for item in senders if item.get("mean_rtt")]
    return Figures(
        seconds=float(received["seconds"]),
        throughput=float(received["bits_per_second"]),
        retransmits=sent.get("retransmits"),
        latency=Spread(
            min(item["min_rtt"] for item in trips) / 1000,
            sum(item["mean_rtt"] for item in trips) / len(trips) / 1000,
            max(item["max_rtt"] for item in trips) / 1000,
        )
        if trips
        else None,
    )


def _iperf3_udp(end: Mapping[str, Any]) -> Figures:
    """`sum` counts what was sent, with the receiver's losses and jitter."""
    total = end["sum"]
    packets, lost = int(total["packets"]), int(total["lost_packets"])
    arrived = end.get("sum_received", {}).get("bits_per_second")
    sent_rate = float(total["bits_per_second"])
    return Figures(
        seconds=float(total["seconds"]),
        sent=packets,
        received=packets - lost,
        # The rate of what was sent, less what was lost: versions differ in what they call received.
        throughput=float(arrived) if arrived and not lost else sent_rate * (1 - lost / packets) if packets else 0.0,
        loss=lost / packets if packets else None,
        jitter_ms=float(total["jitter_ms"]),
    )


def ping(text: str) -> Figures | None:
    """The ping of iputils and that of busybox, with a line for each answer."""
    count = _PING_COUNT.search(text)
    if count is None:
        return None
    sent, received = int(count[1]), int(count[2])
    times = [float(found) for found in _PING_TIME.findall(text)]
    return Figures(
        sent=sent,
        received=received,
        loss=(sent - min(received, sent)) / sent if sent else None,
        latency=spread(times),
        jitter_ms=jitter(times),
    )


def generator(text: str) -> Figures | None:
    """The lines of `shipped/generator.py`; None when it did not come to its end."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    found: dict[str, list[list[str]]] = {}
    for name, *values in lines:
        found.setdefault(name, []).append(values)
    if "failed" in found:
        return Figures(failed=" ".join(found["failed"][0]))
    if "took" not in found:
        return None
    errors = Counter(values[0].replace("-", " ") for values in found.get("error", ()))
    if "streamed" in found or not found.get("sent"):
        return _stream(found, errors)
    sent = len(found["sent"])
    answers = [float(values[0]) for values in found.get("rtt", ())]
    connects = [float(values[0]) for values in found.get("connect", ())]
    statuses = Counter(values[0] for values in found.get("status", ()))
    received = min(len(answers), sent)
    return Figures(
        seconds=float(found["took"][0][0]),
        sent=sent,
        received=received,
        loss=(sent - received) / sent,
        latency=spread(answers),
        jitter_ms=jitter(answers),
        connect=spread(connects),
        statuses=dict(statuses),
        errors=dict(errors),
    )


def _stream(found: Mapping[str, list[list[str]]], errors: Mapping[str, int]) -> Figures:
    octets = sum(int(values[0]) for values in found.get("streamed", ()))
    seconds = float(found["seconds"][0][0]) if "seconds" in found else 0.0
    sent, arrived = (int(value) for value in found.get("datagrams", [["0", "0"]])[0])
    return Figures(
        seconds=seconds,
        sent=sent or None,
        received=arrived if sent else None,
        throughput=octets * 8 / seconds if seconds > 0 else 0.0,
        loss=(sent - min(arrived, sent)) / sent if sent else None,
        jitter_ms=float(found["jitter"][0][0]) if "jitter" in found else None,
        errors=dict(errors),
    )


def curl(text: str) -> Figures | None:
    """A line for each request: status, seconds to connect, seconds in all; status 000 where there was no answer."""
    rows = [(row[0], float(row[1]) * 1000, float(row[2]) * 1000) for row in map(str.split, text.splitlines()) if row]
    if not rows:
        return None
    good = [took for status, _, took in rows if status[0] in "23"]
    return Figures(
        sent=len(rows),
        received=len(good),
        loss=(len(rows) - len(good)) / len(rows),
        latency=spread(good),
        jitter_ms=jitter(good),
        connect=spread([connect for status, connect, _ in rows if status != "000"]),
        statuses=dict(Counter(status for status, _, _ in rows if status != "000")),
        errors={"no answer": silent} if (silent := sum(status == "000" for status, _, _ in rows)) else {},
    )


_READERS: Mapping[Tool, Callable[[str], Figures | None]] = MappingProxyType(
    {Tool.IPERF3: iperf3, Tool.GENERATOR: generator, Tool.PING: ping, Tool.CURL: curl}
)
