"""Secret canaries: children print every form of a secret, byte by byte and at every split; none of it is kept.

The way is the real one: child, transport, reporter, redactor, log, store; then the database and its WAL are searched.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from skyspan.app.clock import SystemClock
from skyspan.app.reporting import RunLog, StageReporter
from skyspan.contracts.transport import Command, Effect, Stream
from skyspan.model.secret import MASK, Secret
from skyspan.secrets.encodings import SHORTEST, variants
from skyspan.secrets.redactor import Redactor
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.sql import SqlStore, open_store
from skyspan.testing.conformance.store_world import started
from skyspan.transports.local import LocalTransport

PEM = """-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACDm1qLmCanaryCanaryCanaryCanaryCanaryCanaryCanaryCanaryAAAAI
-----END OPENSSH PRIVATE KEY-----
"""
CANARIES = {
    "raw": "canary-7f3a91-raw",
    "pem": PEM,
    "json-special": 'can"ary\\7f/3a{91}<&>é\t!',
    "shell-special": "can'ary $7f`3a`; 91 ${x} %{y}",
    "cloud key": json.dumps({"type": "service_account", "private_key": "canary-in-json-7f3a91", "id": "harmless"}),
}


@dataclass
class Way:
    """Everything between a child and the database."""

    store: SqlStore
    database: Path
    redactor: Redactor = field(default_factory=Redactor)
    shown: list[tuple[float, str]] = field(default_factory=list)

    def reporter(self) -> StageReporter:
        self.log = RunLog("run-0001", self.store, SystemClock(), self._seen)
        return StageReporter("cloud", 1, self.log, self.redactor, None)

    def _seen(self, _stage: str, text: str) -> None:
        self.shown.append((time.monotonic(), text))

    def files(self) -> dict[str, bytes]:
        """What is on the disk while the WAL still exists."""
        return {file.name: file.read_bytes() for file in self.database.parent.iterdir()}


@pytest.fixture
async def way(tmp_path: Path) -> Way:
    database = tmp_path / "store" / "skyspan.db"
    store = open_store(database, EnvelopeSealer(tmp_path / "home"))
    await started(store)
    return Way(store, database)


def forms(text: str) -> list[bytes]:
    return sorted(form for form in variants(text) if b"\n" not in form and len(form) >= SHORTEST)


async def assert_no_hit(way: Way, kept: bytes) -> int:
    """No form of any canary is in a file or was shown, and `kept`, no secret, is; how many forms were looked for."""
    looked = 0
    files = way.files()
    assert {"skyspan.db", "skyspan.db-wal"} <= set(files)
    lines = [line.text.encode(errors="surrogatepass") for line in await way.store.log("run-0001", limit=1_000_000)]
    everything = {**files, "log": b"\n".join(lines), "screen": "\n".join(text for _, text in way.shown).encode()}
    for name, text in CANARIES.items():
        for form in variants(text):
            looked += 1
            for place, content in everything.items():
                assert form not in content, f"{name} as {form!r} is in {place}"
    assert kept in b"".join(files.values())
    assert MASK in "\n".join(text for _, text in way.shown)
    return looked


CHILD = """
import os, sys
for form in sys.stdin.buffer.read().split(b"\\n"):
    for byte in b"before " + bytes.fromhex(form.decode()) + b" after\\n":
        os.write(1, bytes((byte,)))
        os.write(2, bytes((byte,)))
"""


async def test_no_form_of_a_secret_that_a_child_prints_byte_by_byte_is_kept(way: Way) -> None:
    for name, text in CANARIES.items():
        way.redactor.learn(Secret(text), name)
    reporter = way.reporter()
    printed = [form for text in CANARIES.values() for form in forms(text)]
    here = LocalTransport({"PATH": "/usr/bin:/bin"})
    stdin = b"\n".join(form.hex().encode() for form in printed)
    command = Command((sys.executable, "-c", CHILD), stdin=stdin, timeout_s=120.0, effect=Effect.READ)
    done = await here.query(command, reporter.output)
    assert done.ok, done.last_words()
    await here.close()
    reporter.close()
    await way.log.close()
    assert await assert_no_hit(way, b"before ") > 100
    # Both streams, every line, and what stood around the secret stayed.
    assert len(way.shown) == 2 * len(printed)
    assert all(text.startswith("before") and text.endswith("after") for _, text in way.shown)
    await way.store.close()


async def test_no_form_of_a_secret_is_kept_wherever_the_output_is_split(way: Way) -> None:
    for name, text in CANARIES.items():
        way.redactor.learn(Secret(text), name)
    reporter = way.reporter()
    splits = 0
    for text in CANARIES.values():
        for form in forms(text):
            line = b"before " + form + b" after\n"
            for at in range(len(line) + 1):
                reporter.output(Stream.OUT, line[:at])
                reporter.output(Stream.OUT, line[at:])
                splits += 1
        await asyncio.sleep(0)
    # A secret with line ends of its own, as a tool prints a key.
    for at in range(len(PEM)):
        reporter.output(Stream.ERR, PEM[:at].encode())
        reporter.output(Stream.ERR, PEM[at:].encode() + b"\n")
    reporter.close()
    await way.log.close()
    await assert_no_hit(way, b"before ")
    assert splits > 3000
    await way.store.close()


CLOCKED = """
import os, time
for number in range(150):
    for byte in b"line %d clean text about a canary that is none\\n" % number:
        os.write(1, bytes((byte,)))
    os.write(1, b"%.6f\\n" % time.monotonic())
    time.sleep(0.002)
"""


async def test_clean_text_is_hardly_delayed(way: Way) -> None:
    """The budget is 100 ms at the 95th percentile; a busy machine gets three times that."""
    for name, text in CANARIES.items():
        way.redactor.learn(Secret(text), name)
    reporter = way.reporter()
    here = LocalTransport({"PATH": "/usr/bin:/bin"})
    command = Command((sys.executable, "-c", CLOCKED), stdin=b"", timeout_s=60.0, effect=Effect.READ)
    assert (await here.query(command, reporter.output)).ok
    await here.close()
    reporter.close()
    await way.log.close()
    # The clock of a line is printed right after it: monotonic time is one for all processes of a machine.
    delays = sorted(seen - float(text) for seen, text in way.shown if text[0].isdigit())
    assert len(delays) == 150
    p95 = delays[int(len(delays) * 0.95)]
    print(f"delay of clean text: median {delays[75] * 1000:.2f} ms, p95 {p95 * 1000:.2f} ms")
    assert p95 < 0.3
    await way.store.close()
