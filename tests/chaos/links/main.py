"""Deploys an example, breaks its link, one fault after the other, beside its supervisor and a separate meter, destroys.

Runs inside a rehearsal's world: `python -m tests.chaos.links.main KIND SEED SECONDS COUNT [NAME]` prints one JSON
document with what was broken, when that was told and when traffic passed again. Traffic is judged by who asks along the
link's ways, who know nothing of Skyspan.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chaos.links import probing
from tests.chaos.links.fault import Kind, Way, schedule
from tests.chaos.links.kinds import KINDS
from tests.chaos.links.measuring import Heard, until
from tests.chaos.links.stand_ins import StandIns, run
from tests.chaos.links.trial import Trial

_ROOT = Path(__file__).resolve().parents[3]
_SKYSPAN = (sys.executable, "-m", "skyspan")

_LONG_S, _SHORT_S = (4.0, 8.0), (3.5, 4.5)
"""For how long something is left broken, where there is time and where there is none: longer than it takes to tell."""


def main(name: str, seed: int, seconds: float, count: int, only: str = "") -> None:
    """Deploy, break, repair, destroy; the document on standard output."""
    kind = KINDS[name]
    world = StandIns(kind.gateways, _LONG_S if seconds else _SHORT_S)
    before = world.state()
    _up(kind, world)
    results: list[dict[str, Any]] = []
    failed = ""
    with _looking_on(kind, world, random.Random(f"{name} {seed} chance")) as (trial, meter):
        begun = time.monotonic()
        try:
            until("the link is up and watched", lambda: trial.health() and trial.calm())
            begun = time.monotonic()
            plan = schedule(name, kind.faults, seed, count, only)
            for number, fault in enumerate(plan):
                due = begun + number * seconds / len(plan)
                time.sleep(max(trial.chance.uniform(0.2, 1.2), due - time.monotonic()))
                results.append(trial.suffer(fault))
                print(f"{name}: {fault.name}: {results[-1]['repaired_s']} s", file=sys.stderr, flush=True)
            time.sleep(max(0.0, begun + seconds - time.monotonic()))
        except (TimeoutError, RuntimeError) as error:
            failed = f"{error}; {trial.health()}; {list(trial.supervisor.documents())[-12:]}"
        lasted = time.monotonic() - begun
    run(*_SKYSPAN, "destroy", kind.example, "--yes")
    document = {
        "kind": name, "seed": seed, "lasted_s": round(lasted, 1), "faults": results, "failed": failed,
        "sessions": trial.sessions, "left": _differing(before, world.state()),
        "meter": _last(meter.documents()), "supervisor": _last(trial.supervisor.documents()),
    }  # fmt: skip
    print(json.dumps(document))


def _up(kind: Kind, world: StandIns) -> None:
    example, place = _ROOT / "examples" / kind.example, Path(os.environ["HOME"]) / kind.example
    text = (example / "skyspan.yaml").read_text() if kind.compose is None else kind.compose(world)
    for old, new in kind.changes:
        assert old in text
        text = text.replace(old, new)
    place.mkdir()
    (place / "skyspan.yaml").write_text(text)
    run(*_SKYSPAN, "up", "-f", str(place), "--yes", *(("--only", kind.only) if kind.only else ()))


@contextmanager
def _looking_on(kind: Kind, world: StandIns, chance: random.Random) -> Iterator[tuple[Trial, Heard]]:
    """The trial with all that looks at the link, and the meter that repairs nothing."""
    watch = (*_SKYSPAN, "--json", "watch", kind.example)
    supervisor, meter = Heard.of(*watch), Heard.of(*watch, "--no-repair")
    ways = [_asking(way, kind, world) for way in kind.ways]
    routes = [
        Heard.of("ip", "netns", "exec", host, "stdbuf", "-oL", "ip", "-o", "monitor", "route")
        for host in kind.gateways[:2]
    ]
    try:
        yield Trial(world, supervisor, ways, routes, world.sessions(), chance, kind.gap_s), meter
    finally:
        for heard in (supervisor, meter, *ways, *routes):
            heard.end()


def _asking(way: Way, kind: Kind, world: StandIns) -> Heard:
    named = way.target[0].isalpha()
    target = world.on(way.target, kind.address).strip() if named else way.target
    words = (way.source, way.by, target, *((way.proxy,) if way.proxy else ()))
    return Heard.of(sys.executable, "-I", "-S", probing.__file__, *words)


def _differing(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """By host, what is only there once of before and after."""
    found = {}
    for host, lines in after.items():
        was, now = Counter(before[host]), Counter(lines)
        if different := sorted(((now - was) + (was - now)).elements()):
            found[host] = different
    return found


def _last(documents: Iterable[tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    *_, (_, last) = documents
    return last


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
