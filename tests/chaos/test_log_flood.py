"""A stage that floods its log: the engine's memory stays bounded, no line is lost, no secret is kept.

`SKYSPAN_FLOOD_MB` makes it larger.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.cli import Cli

from skyspan.contracts.store import LogLine
from skyspan.model.address import DeploymentAddress
from skyspan.model.secret import MASK
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.sql import SqlStore, open_store

pytestmark = pytest.mark.chaos

MEGABYTES = int(os.environ.get("SKYSPAN_FLOOD_MB", "200"))
LINE_BYTES = 1000
LINES = MEGABYTES * 1000

# First every byte there is, one at a time and then as one; a secret in it; then the flood.
PROGRAM = f"""
import os, sys
every = bytes(byte for byte in range(256) if byte != 10)
for byte in every + b"\\n":
    os.write(1, bytes((byte,)))
os.write(2, every + os.environ["CANARY"].encode() + b"\\n")
line = "%08d " + "x" * ({LINE_BYTES} - 10) + "\\n"
for start in range(0, {LINES}, 100):
    sys.stdout.write("".join(line % number for number in range(start, start + 100)))
"""

# `skyspan` as the only child of this process, so that its peak of memory can be told.
MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""

MOST_MB = 160
"""An engine with nothing to do takes some 60, and keeps the last 8 of each stream for messages."""

CANARY = "canary-7f3a91-in-the-flood"


async def lines_of(store: SqlStore) -> AsyncIterator[LogLine]:
    [run] = await store.runs(DeploymentAddress("default", "app"))
    after = 0
    while page := await store.log(run.id, None, after, 20_000):
        for line in page:
            assert line.seq == after + 1
            after = line.seq
            yield line


async def test_a_stage_that_floods_its_log_takes_neither_the_engines_memory_nor_a_line(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    program = tmp_path / "flood.py"
    program.write_text(PROGRAM)
    folder = cli.compose(
        f"stages:\n  app:\n    uses: command\n    with:\n      run: [{sys.executable}, {program}]\n"
        '      env: {CANARY: "${{ secrets.canary }}"}\n'
    )
    assert cli("secrets", "set", "canary", stdin=CANARY).status == 0
    up = cli.argv("up", "--yes", "-f", folder)
    ran = subprocess.run([sys.executable, "-c", MEASURED, *up], capture_output=True, text=True, env=cli.env)
    status, peak_mb = map(int, ran.stdout.split())
    print(f"{MEGABYTES} MB of log: peak {peak_mb} MB in the engine")
    assert status == 0, ran.stderr
    assert peak_mb < MOST_MB

    store = open_store(cli.database, EnvelopeSealer(cli.home, None))
    try:
        flood = 0
        binary: list[str] = []
        async for line in lines_of(store):
            if line.text.endswith("xx"):
                assert line.text.startswith(f"{flood:08d} x")
                assert len(line.text) == LINE_BYTES - 1
                flood += 1
            else:
                binary.append(line.text)
    finally:
        await store.close()
    assert flood == LINES
    # Byte by byte or at once makes the same line; a NUL and what is no UTF-8 are shown as such.
    one, other = sorted(binary, key=len)
    assert other == one + MASK
    assert one.startswith("\ufffd\x01\x02")
    for file in cli.home.iterdir():
        if file.is_file():
            assert CANARY.encode() not in file.read_bytes()
