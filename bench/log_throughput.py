"""What a stage says, from the child's pipe through the redactor into the store: how fast, in how much memory."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from pathlib import Path
from statistics import median

from bench.keeping import log_text, sample_secrets
from bench.processes import BrokenRunError, run
from bench.report import SELF, Measure, Row
from bench.rounds import alternate
from bench.world import ROOT, World


def log_throughput(world: World) -> list[Measure]:
    """A child that prints as fast as it can: MB/s until its last line is in the store, beside a plain file."""
    megabytes = world.size(64, 16)
    source = world.fresh("log") / "source"
    source.write_bytes(log_text(megabytes))
    subjects = {
        f"{SELF}, 1 secret": lambda: _ours(world, source, 1),
        f"{SELF}, 50 secrets": lambda: _ours(world, source, 50),
        "tee to a file": lambda: _tee(world, source),
    }
    found = alternate(subjects, world.rounds(3, quick=1))
    speed = tuple(
        Row(name, median(rate for rate, _, _ in values), note=_note(name, median(busy for _, busy, _ in values)))
        for name, values in found.items()
    )
    memory = tuple(
        Row(name, median(peak for _, _, peak in values)) for name, values in found.items() if name.startswith(SELF)
    )
    return [
        Measure(
            f"{megabytes} MB of log, from the pipe into the store", "MB/s", speed, ">= 50 MB/s", more_is_better=True
        ),
        Measure("Memory that it takes on top", "MB", memory, "bounded, whatever the amount"),
    ]


def _note(name: str, busy: float) -> str:
    done = "no redaction, no lines, no store" if name.startswith("tee") else "redacted, cut into lines, in SQLite"
    return f"{busy:.0f} per second of processor; {done}"


def _ours(world: World, source: Path, secrets: int) -> tuple[float, float, float]:
    """A process of its own, so that its peak of memory is its own."""
    home = world.fresh("home")
    code = "import sys; from bench.log_throughput import measure; measure(*sys.argv[1:])"
    sample = run(
        [sys.executable, "-c", code, home, source, str(secrets)],
        home,
        world.env | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))},
    )
    rate, busy, peak = map(float, sample.stdout.split())
    return rate, busy, peak


def _tee(world: World, source: Path) -> tuple[float, float, float]:
    folder = world.fresh("tee")
    sample = run(["sh", "-c", f"cat {source} | tee copy > /dev/null; sync copy"], folder, world.env)
    size = source.stat().st_size / 1e6
    return size / sample.wall_s, size / sample.cpu_s, 0.0


def measure(home: str, source: str, secrets: str) -> None:
    """Print MB/s, MB per second of processor and the MB of memory that came on top; started as its own process."""
    numbers = asyncio.run(_throughput(Path(home), Path(source), int(secrets)))
    sys.stdout.write(" ".join(map(str, numbers)) + "\n")


async def _throughput(home: Path, source: Path, secrets: int) -> tuple[float, float, float]:
    from skyspan.app.clock import SystemClock
    from skyspan.app.reporting import RunLog, StageReporter
    from skyspan.contracts.store import DeploymentRecord, Lease, RunRecord
    from skyspan.contracts.transport import Command
    from skyspan.model.address import DeploymentAddress
    from skyspan.model.lifecycle import Verb
    from skyspan.model.secret import Secret
    from skyspan.secrets.redactor import Redactor
    from skyspan.secrets.sealing import EnvelopeSealer
    from skyspan.store.sql import open_store
    from skyspan.transports.local import LocalTransport

    clock, address = SystemClock(), DeploymentAddress("default", "bench")
    store = open_store(home / "skyspan.db", EnvelopeSealer(home, None), clock)
    await store.save_deployment(DeploymentRecord(address))
    lease = await store.acquire(Lease(address, "bench", 0, clock.now() + 600, "run-1"), clock.now())
    await store.begin_run(RunRecord("run-1", address, Verb.UP, epoch=lease.epoch), lease)
    redactor = Redactor()
    for secret in sample_secrets(secrets):
        redactor.learn(Secret(secret))
    log = RunLog("run-1", store, clock, lambda _stage, _line: None)
    report = StageReporter("stage", 1, log, redactor, None)
    transport = LocalTransport({"PATH": os.environ["PATH"]})
    await transport.run(Command(("true",)), report.output)
    before = _peak_mb()
    started, busy_before = time.perf_counter(), time.process_time()
    await transport.run(Command(("cat", str(source))), report.output)
    report.close()
    await log.close()
    took, busy = time.perf_counter() - started, time.process_time() - busy_before
    peak = _peak_mb() - before
    lines, after = 0, 0
    while page := await store.log("run-1", after=after, limit=50_000):
        lines, after = lines + len(page), page[-1].seq
    await store.close()
    if lines != source.read_bytes().count(b"\n"):
        raise BrokenRunError(f"{lines} lines are in the store")
    size = source.stat().st_size / 1e6
    return size / took, size / busy, peak


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
