"""`python -m bench [NAME…] [--quick] [--json]`: prints what was measured; fails only when a run breaks."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from bench import keeping, labs, log_throughput, overhead, planes, reattaching, starting, tools
from bench.processes import BrokenRunError
from bench.report import Measure, table
from bench.world import World, open_world

Case = Callable[[World], Measure | list[Measure]]

CASES: Mapping[str, Case] = MappingProxyType(
    {
        "startup": starting.start_up,
        "first": overhead.first_process,
        "overhead": overhead.chain_overhead,
        "pauses": overhead.stage_pauses,
        "parallel": overhead.parallel_sleeps,
        "graphs": overhead.wide_and_long,
        "unchanged": overhead.no_change,
        "tools": tools.real_tools,
        "planning": starting.planning,
        "list": keeping.listing,
        "memory": keeping.memory,
        "redaction": keeping.redaction,
        "reattach": reattaching.reattach,
        "log": log_throughput.log_throughput,
        "planes": planes.planes,
        "labs": labs.labs,
    }
)


def main() -> int:
    """Run the cases named, or all; 1 when one broke."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(CASES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: about two minutes")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in CASES]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(CASES)}")
    document: dict[str, object] = {"machine": machine(), "quick": given.quick, "measures": {}, "broken": {}}
    if not given.json:
        print(f"{machine()}\nMedians of alternating rounds; x: as a multiple of Skyspan's. cpu: user + system time.\n")
    broken = _measure(given.names or list(CASES), document, quick=given.quick, as_json=given.json)
    if given.json:
        json.dump(document, sys.stdout, indent=2)
        print()
    return 1 if broken else 0


def _measure(names: list[str], document: dict[str, object], *, quick: bool, as_json: bool) -> bool:
    done: dict[str, object] = {}
    broken: dict[str, str] = {}
    document |= {"measures": done, "broken": broken}
    for name in names:
        started = time.monotonic()
        try:
            with open_world(quick=quick) as world:
                found = CASES[name](world)
        except BrokenRunError as error:
            broken[name] = str(error)
            print(f"{name}: BROKEN: {error}\n", file=sys.stderr, flush=True)
            continue
        measures = found if isinstance(found, list) else [found]
        done[name] = [measure.document() for measure in measures]
        if not as_json:
            print(f"{table(measures)}\n", flush=True)
        print(f"({name}: {time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)
    return bool(broken)


def machine() -> str:
    """The machine in a line; its load tells how far to trust the wall times."""
    return (
        f"Python {platform.python_version()}, Linux {platform.release()}, {os.cpu_count()} processors, "
        f"load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
