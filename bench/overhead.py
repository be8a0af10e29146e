"""What a stage costs beyond its own process: chains of `true`, the pauses between stages, runs that change nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

from bench.compositions import chain, command, composition, fan, independent
from bench.peers import JOBS, Job, bash
from bench.processes import Sample, run
from bench.report import SELF, Measure, Row
from bench.rounds import alternate, cpu, percentile, wall
from bench.world import PEERS, World

SLOW = frozenset({"snakemake", "unfurl"})
"""Peers that need tens of milliseconds per stage: measured with fewer stages, and not by --quick."""


def peer_run(world: World, name: str, job: Job, size: int, process: str = "true", *, chained: bool = True) -> Sample:
    """Run a peer's job in a fresh folder."""
    folder = world.fresh(name)
    try:
        return _in_folder(world, name, job, size, folder, process, chained=chained)
    finally:
        shutil.rmtree(folder)


def _in_folder(
    world: World, name: str, job: Job, size: int, folder: Path, process: str = "true", *, chained: bool = True
) -> Sample:
    command = shutil.which("bash") if name == "bash" else PEERS / JOBS[name][0]
    env = world.env | {"PATH": f"{PEERS}{os.pathsep}{world.env['PATH']}"}
    return run([str(command), *job(folder, size, process, chained)], folder, env)


def missing(world: World) -> list[Row]:
    """A line for every peer that could not be installed here."""
    return [Row(name, None, note="not installed") for name, (tool, _) in JOBS.items() if world.peer(tool) is None]


def present(world: World, slow: bool) -> dict[str, Job]:
    """The peers that can be run now, slow ones or fast ones."""
    here = {name: job for name, (tool, job) in JOBS.items() if world.peer(tool) is not None and (name in SLOW) is slow}
    return here if slow else {**here, "bash": bash}


def chain_overhead(world: World) -> Measure:
    """The slope of the wall time between a short and a long chain of `true`."""
    few, many = world.size(50, 20), world.size(500, 120)
    own = {size: world.composition("chain", chain(size)) for size in (few, many)}
    subjects: dict[str, Callable[[], tuple[Sample, Sample]]] = {
        SELF: lambda: _short_and_long(lambda size: world.up(own[size]), few, many)
    }
    for name, job in present(world, slow=False).items():
        subjects[name] = partial(_short_and_long, partial(peer_run, world, name, job), few, many)
    found = alternate(subjects, world.rounds(5))
    notes = {SELF: f"durable; {few} and {many} stages", "bash": "the same processes by a hand-written script"}
    rows = [_slope_row(name, pairs, many - few, notes.get(name, "")) for name, pairs in found.items()]
    rows += _slow_slopes(world) + missing(world)
    rows.append(Row("(one fdatasync here)", _fdatasync_ms(world), note="what one durable write costs on this disk"))
    return Measure("Durable overhead per stage: slope of a chain of `true`", "ms/stage", tuple(rows), "<= 2 ms")


def _slow_slopes(world: World) -> list[Row]:
    slow = present(world, slow=True)
    if world.quick:
        return [Row(name, None, note="left out by --quick") for name in slow]
    few, many = 5, 65
    found = alternate(
        {name: partial(_short_and_long, partial(peer_run, world, name, job), few, many) for name, job in slow.items()},
        3,
    )
    return [_slope_row(name, pairs, many - few, f"{few} and {many} stages") for name, pairs in found.items()]


def _short_and_long(job: Callable[[int], Sample], few: int, many: int) -> tuple[Sample, Sample]:
    return job(few), job(many)


def _slope_row(name: str, pairs: Sequence[tuple[Sample, Sample]], stages: int, note: str) -> Row:
    """Wall and processor time per stage in ms: medians first, as one disturbed short run would tilt a single slope."""
    short, long = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    scale = 1000 / stages
    return Row(name, (wall(long) - wall(short)) * scale, (cpu(long) - cpu(short)) * scale, note)


def _fdatasync_ms(world: World) -> float:
    path = world.fresh("disk") / "file"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(100):
            started = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return median(times) * 1000


def parallel_sleeps(world: World) -> Measure:
    """Eight stages that need nothing of each other and take a second each."""
    own = world.composition("sleeps", independent(8, ("sleep", "1")))
    jobs = present(world, slow=False) | ({} if world.quick else present(world, slow=True))
    subjects: dict[str, Callable[[], Sample]] = {SELF: lambda: world.up(own)}
    for name, job in jobs.items():
        subjects[name] = partial(peer_run, world, name, job, 8, "sleep 1", chained=False)
    found = alternate(subjects, world.rounds(3, quick=1))
    rows = [Row(name, wall(samples), cpu(samples)) for name, samples in found.items()]
    return Measure("Eight independent `sleep 1`", "s", (*rows, *missing(world)), "< 1.3 s, ideal 1.0")


def wide_and_long(world: World) -> Measure:
    """Large graphs to their end."""
    size = world.size(500, 100)
    folders = {
        f"{SELF}, chain of {size}": world.composition("chain", chain(size)),
        f"{SELF}, fan of {size}": world.composition("fan", fan(size)),
    }
    subjects: dict[str, Callable[[], Sample]] = {name: partial(world.up, folder) for name, folder in folders.items()}
    for name, job in present(world, slow=False).items():
        subjects[f"{name}, chain of {size}"] = partial(peer_run, world, name, job, size)
    found = alternate(subjects, world.rounds(3, quick=1))
    rows = [Row(name, wall(samples), cpu(samples)) for name, samples in found.items()]
    return Measure(f"Graphs of {size} stages, from start to exit", "s", (*rows, *missing(world)), "both complete")


def no_change(world: World) -> Measure:
    """The first run of a chain, and one that finds nothing to do."""
    size, rounds = world.size(500, 100), world.rounds(3, quick=1)
    plain = world.composition("chain", chain(size))
    checked = world.composition("chain", chain(size, check=("true",)))
    subjects: dict[str, Callable[[], tuple[Sample, Sample]]] = {
        SELF: lambda: _twice(world, plain),
        f"{SELF}, with a check process": lambda: _twice(world, checked),
    }
    for name, job in present(world, slow=False).items():
        subjects[name] = partial(_peer_twice, world, name, job, size)
    found = alternate(subjects, rounds)
    rows = []
    for name, pairs in found.items():
        first, again = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        note = f"first run {wall(first):.2f} s" + ("; knows no unchanged, runs all again" if name == "bash" else "")
        rows.append(Row(name, wall(again), cpu(again), note))
    title = f"A run that changes nothing, chain of {size}"
    return Measure(title, "s", (*rows, *missing(world)), "the observations only")


def _twice(world: World, folder: Path) -> tuple[Sample, Sample]:
    home = world.fresh("home")
    return world.up(folder, home), world.up(folder, home)


def _peer_twice(world: World, name: str, job: Job, size: int) -> tuple[Sample, Sample]:
    folder = world.fresh(name)
    return _in_folder(world, name, job, size, folder), _in_folder(world, name, job, size, folder)


def stage_pauses(world: World) -> list[Measure]:
    """From a stage's end to the next one's beginning: by our event log, and by the processes' own clocks."""
    size = world.size(200, 60)
    home = world.fresh("home")
    world.up(world.composition("chain", chain(size, ("date", "+%s.%N"))), home)
    logged, seen = asyncio.run(_pauses(home))
    by_script = world.fresh("script")
    (by_script / "job.sh").write_text("set -eu\n" + f"{shutil.which('date')} +%s.%N\n" * size)
    script = _gaps(run([str(shutil.which("bash")), "job.sh"], by_script, world.env).stdout.split())
    rows = (
        Row(
            f"{SELF}, event log p95",
            percentile(logged, 0.95),
            note=f"median {median(logged):.2f}; end recorded to intent recorded",
        ),
        Row(
            f"{SELF}, processes p95",
            percentile(seen, 0.95),
            note=f"median {median(seen):.2f}; one `date` to the next, a process included",
        ),
        Row("bash, processes p95", percentile(script, 0.95), note=f"median {median(script):.2f}"),
    )
    return [Measure(f"Stage end to next start, chain of {size}", "ms", rows, "p95 <= 10 ms")]


async def _pauses(home: Path) -> tuple[list[float], list[float]]:
    """Pauses in ms: StageEnded to the next stage's EffectIntended, and between the times that the stages printed."""
    from skyspan.model.address import DeploymentAddress
    from skyspan.secrets.sealing import EnvelopeSealer
    from skyspan.store.sql import open_store

    store = open_store(home / "skyspan.db", EnvelopeSealer(home, None))
    try:
        [latest] = await store.runs(DeploymentAddress("default", "bench"), 1)
        events = list(await store.events(latest.id, 0, 100_000))
        lines = await store.log(latest.id, None, 0, 100_000)
    finally:
        await store.close()
    moments = [(item.at, item.event.kind) for item in events if item.event.kind in ("stage_ended", "effect_intended")]
    pauses = [
        (later[0] - earlier[0]) * 1000
        for earlier, later in pairwise(moments)
        if (earlier[1], later[1]) == ("stage_ended", "effect_intended")
    ]
    return pauses, _gaps([line.text for line in lines])


def _gaps(stamps: Sequence[str]) -> list[float]:
    times = sorted(float(stamp) for stamp in stamps)
    return [(later - earlier) * 1000 for earlier, later in pairwise(times)]


def first_process(world: World) -> Measure:
    """From the start of the command to the start of the first external process."""
    stamp = world.folder / "first"
    script = world.folder / "stamp"
    script.write_text(f"#!/bin/sh\nexec date +%s.%N > {stamp}\n")
    script.chmod(0o700)
    own = world.composition("first", composition([command("first", [str(script)])]))
    jobs = present(world, slow=False) | ({} if world.quick else present(world, slow=True))
    subjects: dict[str, Callable[[], float]] = {SELF: lambda: _until(stamp, lambda: world.up(own))}
    for name, job in jobs.items():
        subjects[name] = partial(_until, stamp, partial(peer_run, world, name, job, 1, str(script)))
    found = alternate(subjects, world.rounds(7, quick=3))
    rows = [Row(name, median(values)) for name, values in found.items()]
    return Measure("First external process after the start of `up`", "s", (*rows, *missing(world)), "< 0.5 s")


def _until(stamp: Path, job: Callable[[], Sample]) -> float:
    stamp.unlink(missing_ok=True)
    began = job().began_at
    return float(stamp.read_text()) - began
