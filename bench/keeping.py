"""What is kept: thousands of deployments in the store, memory while a run waits, secrets out of what is printed."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from bench.compositions import chain, independent
from bench.peers import doit, luigi
from bench.processes import BrokenRunError, end, peak_memory_mb, run, start
from bench.report import SELF, Measure, Row
from bench.rounds import alternate, cpu, percentile, wall
from bench.world import World

SEED = 20240607


def listing(world: World) -> list[Measure]:
    """`list` among many deployments: in the store, and as a command."""
    size = world.size(10_000, 2_000)
    home = world.fresh("home")
    times = asyncio.run(_seed_and_list(home, size, world.size(200, 30)))
    found = [world.sky("--json", "list", home=home) for _ in range(world.rounds(5))]
    in_store = (Row(SELF, percentile(times, 0.99), note=f"median {median(times):.1f}"),)
    whole = (Row(f"{SELF} --json list", 1000 * wall(found), 1000 * cpu(found)),)
    return [
        Measure(f"List {size} deployments in the store, p99", "ms", in_store, "10000: < 50 ms"),
        Measure(f"List {size} deployments, the whole command", "ms", whole),
    ]


async def _seed_and_list(home: Path, size: int, repeats: int) -> list[float]:
    from skyspan.contracts.store import DeploymentRecord
    from skyspan.model.address import DeploymentAddress
    from skyspan.model.lifecycle import DeploymentStatus
    from skyspan.secrets.sealing import EnvelopeSealer
    from skyspan.store.sql import open_store

    store = open_store(home / "skyspan.db", EnvelopeSealer(home, None))
    composition = {"skyspan": 1, "name": "seed", "stages": {"one": {"uses": "command", "with": {"run": ["true"]}}}}
    try:
        for begin in range(0, size, 500):
            numbers = range(begin, min(size, begin + 500))
            records = (
                DeploymentRecord(
                    DeploymentAddress("default", f"d{number:05}"),
                    DeploymentStatus.DEPLOYED,
                    folder=f"/srv/{number}",
                    composition=composition,
                    created_at=1.7e9 + number,
                )
                for number in numbers
            )
            await asyncio.gather(*(store.save_deployment(record) for record in records))
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            listed = await store.deployments("default")
            times.append(1000 * (time.perf_counter() - started))
            if len(listed) != size:
                raise BrokenRunError(f"the store lists {len(listed)} deployments, {size} are in it")
        return times
    finally:
        await store.close()


def memory(world: World) -> list[Measure]:
    """The most that an engine has resident: while its one stage sleeps, and over a long chain."""
    sleeping = world.composition("sleep", independent(1, ("sleep", "2")))
    size = world.size(500, 100)
    long = world.composition("chain", chain(size))
    subjects: dict[str, Callable[[], float]] = {SELF: partial(_peak_of_up, world, sleeping)}
    if path := world.peer("doit"):
        folder = world.fresh("doit")
        subjects["doit"] = partial(_peak, world, [path, *doit(folder, 1, "sleep 2", True)], folder)
    if path := world.peer("python"):
        subjects["luigi"] = lambda: _peak_of_luigi(world, path)
    found = alternate(subjects, world.rounds(3, quick=1))
    rows = tuple(Row(name, median(values)) for name, values in found.items())
    return [
        Measure("Peak memory while a stage sleeps", "MB", rows, "< 80 MB"),
        Measure(f"Peak memory, chain of {size}", "MB", (Row(SELF, _peak_of_up(world, long)),), "< 80 MB"),
    ]


def _peak_of_up(world: World, composition: Path) -> float:
    home = world.fresh("home")
    return _peak(world, [world.skyspan, "--home", home, "up", "--yes", "-f", composition], home)


def _peak_of_luigi(world: World, python: Path) -> float:
    folder = world.fresh("luigi")
    return _peak(world, [python, *luigi(folder, 1, "sleep 2", True)], folder)


def _peak(world: World, argv: Sequence[str | Path], folder: Path) -> float:
    """Watched until it ends: the largest value seen."""
    process = start(argv, folder, world.env)
    peak, until = 0.0, time.monotonic() + 120
    try:
        while process.poll() is None:
            if time.monotonic() > until:
                raise BrokenRunError(f"{argv[0]}: still running after 120 s")
            peak = max(peak, peak_memory_mb(process.pid) or 0.0)
            time.sleep(0.02)
    finally:
        if process.poll() is None:
            end(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        raise BrokenRunError(f"{' '.join(map(str, argv))}: exit status {process.returncode}")
    return peak


def redaction(world: World) -> list[Measure]:
    """How fast output passes the redactor, as a child's stream arrives: in pieces."""
    text = log_text(world.size(16, 4))
    measures = []
    for count in (1, 50):
        secrets = sample_secrets(count)
        subjects: dict[str, Callable[[], float]] = {
            SELF: partial(_redactor, text, secrets),
            "re, one alternation": partial(_expression, text, secrets),
            "sed": partial(_sed, world, text, secrets),
        }
        found = alternate(subjects, world.rounds(3, quick=1))
        notes = {
            "re, one alternation": "the same forms of each secret; whole chunks only",
            "sed": "the bare values only; whole lines only",
        }
        rows = tuple(Row(name, median(values), note=notes.get(name, "")) for name, values in found.items())
        title = f"Redacting {len(text) // 1_000_000} MB of log, {count} secret{'s' * (count > 1)}"
        measures.append(Measure(title, "MB/s", rows, more_is_better=True))
    return measures


def sample_secrets(count: int) -> list[str]:
    source = random.Random(SEED)
    return ["".join(source.choices("abcdefghkmnpqrstuvwxyzABCDEFG23456789", k=24)) for _ in range(count)]


def log_text(megabytes: int) -> bytes:
    source = random.Random(SEED)
    words = ["aws_instance.gw:", "Creating...", "still", "creating", "[10s", "elapsed]", "id=i-0abc", "ok:", "changed="]
    lines = [" ".join(source.choices(words, k=source.randint(4, 14))) for _ in range(4000)]
    secret = sample_secrets(1)[0]
    lines[::400] = [f"token={secret}"] * len(lines[::400])
    block = ("\n".join(lines) + "\n").encode()
    return block * (megabytes * 1_000_000 // len(block) + 1)


def _chunks(text: bytes) -> list[bytes]:
    return [text[at : at + 65536] for at in range(0, len(text), 65536)]


def _redactor(text: bytes, secrets: Sequence[str]) -> float:
    from skyspan.model.secret import Secret
    from skyspan.secrets.redactor import Redactor

    redactor = Redactor()
    for secret in secrets:
        redactor.learn(Secret(secret))
    stream = redactor.stream()
    stream.feed(b"warm")
    started = time.perf_counter()
    out = [stream.feed(chunk) for chunk in _chunks(text)]
    out.append(stream.flush())
    took = time.perf_counter() - started
    if any(secrets[0].encode() in chunk for chunk in out):
        raise BrokenRunError("the redactor let a secret pass")
    return len(text) / 1e6 / took


def _expression(text: bytes, secrets: Sequence[str]) -> float:
    from skyspan.secrets.encodings import variants

    forms = {form for secret in secrets for form in variants(secret)}
    pattern = re.compile(b"|".join(map(re.escape, sorted(forms, key=len, reverse=True))))
    chunks = _chunks(text)
    if len(secrets) > 1:
        # It takes minutes for all of it.
        chunks = chunks[: max(1, len(chunks) // 50)]
    started = time.perf_counter()
    for chunk in chunks:
        pattern.sub(b"***", chunk)
    return sum(map(len, chunks)) / 1e6 / (time.perf_counter() - started)


def _sed(world: World, text: bytes, secrets: Sequence[str]) -> float:
    folder = world.fresh("sed")
    (folder / "in").write_bytes(text)
    (folder / "script").write_text("".join(f"s/{secret}/***/g\n" for secret in secrets))
    sed = shutil.which("sed") or "sed"
    sample = run([sed, "-n", "-f", "script", "in"], folder, world.env | {"LC_ALL": "C"})
    return len(text) / 1e6 / sample.wall_s
