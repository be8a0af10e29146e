"""Does what one call says, on an end: the last part of the text that is sent there."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from skyspan.providers.traffic.shipped.answers import listen
from skyspan.providers.traffic.shipped.asks import ask_http, ask_often, ask_tcp, echo_udp
from skyspan.providers.traffic.shipped.snmp import ask_snmp
from skyspan.providers.traffic.shipped.streams import stream_tcp, stream_udp
from skyspan.providers.traffic.shipped.wire import Place, say


def asker(kind: str, place: Place, given: dict[str, Any]) -> Callable[[], None]:
    """What asks one time."""
    if kind == "snmp":
        return ask_snmp(place, **given)
    ask = ask_tcp if kind == "tcp" else ask_http
    return lambda: ask(place, **given)


def main(kind: str, address: str = "", port: int = 0, source: str = "", dscp: int = 0, **given: Any) -> None:
    """Do what is wanted; `listen` takes its port from the command line when none is given."""
    if kind == "listen":
        listen(address, port or int(sys.argv[1]), **given)
        return
    place, begun = Place(address, port, source, dscp), time.monotonic()
    try:
        if kind == "udp":
            echo_udp(place, **given)
        elif kind == "stream-tcp":
            stream_tcp(place, **given)
        elif kind == "stream-udp":
            stream_udp(place, **given)
        else:
            seconds, per_second = given.pop("seconds"), given.pop("per_second")
            ask_often(asker(kind, place, given), per_second, seconds)
    except OSError as error:
        # Its name does not resolve, or there is no way to it at all.
        say(f"failed {error.strerror or error}")
        sys.exit(1)
    say(f"took {(time.monotonic() - begun):.6f}")
