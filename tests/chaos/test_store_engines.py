"""Several engines, each a process as on a machine of its own, compete for the deployments of one store."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.support.postgres import PostgresServer

from skyspan.contracts.store import DeploymentRecord
from skyspan.model.address import DeploymentAddress
from skyspan.model.event import StageStarted
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.sql import open_store

pytestmark = pytest.mark.chaos

ENGINES, DEPLOYMENTS, TURNS = 4, 3, 12
LEASE_S = 0.25


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture(params=("sqlite", "postgresql"))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "store" / "skyspan.db")
        return
    server: PostgresServer = request.getfixturevalue("server")
    yield server.database()
    server.reclaim()


ENGINE = """
import asyncio, json, random, sys, time
from pathlib import Path
from skyspan.contracts.store import Batch, Lease, RunRecord
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import FencedError, RefusedError
from skyspan.model.event import StageStarted
from skyspan.model.lifecycle import Verb
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.store.sql import open_store

async def turn(store, chance, me, number, lease_s):
    \"\"\"One run. Some engines stall past their lease and then try to write: that must be refused.\"\"\"
    address = DeploymentAddress("default", f"d{chance.randrange(3)}")
    run_id = f"{me}-{number:04}"
    try:
        wanted = Lease(address, f"root@{me}", 0, time.time() + lease_s, run_id, Verb.UP)
        lease = await store.acquire(wanted, time.time())
    except RefusedError:
        return "refused"
    stalls = chance.random() < 0.3
    wrote = 0
    try:
        await store.begin_run(RunRecord(run_id, address, Verb.UP, started_at=time.time(), epoch=lease.epoch), lease)
        for step in range(6):
            if stalls and step == 3:
                await asyncio.sleep(lease_s * 1.5)
            event = StageStarted(f"{me}-{lease.epoch}", step)
            await store.append(run_id, lease, Batch(((time.time(), event),)))
            wrote += 1
            await asyncio.sleep(0.005)
    except FencedError:
        return f"fenced after {wrote}"
    await store.release(lease)
    return "done"

async def work(url, home, me, turns, lease_s):
    chance = random.Random(me)
    store = open_store(url, EnvelopeSealer(Path(home)))
    await store.secret_names("w")
    print("ready", flush=True)
    sys.stdin.readline()
    ends = []
    number = 0
    while sum(end == "done" for end in ends) < turns:
        number += 1
        ends.append(await turn(store, chance, me, number, lease_s))
        if ends[-1] == "refused":
            await asyncio.sleep(0.02)
    await store.close()
    print(json.dumps(ends), flush=True)

asyncio.run(work(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
"""


async def test_engines_of_several_machines_never_write_in_turn(url: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = open_store(url, EnvelopeSealer(home))
    addresses = [DeploymentAddress("default", f"d{number}") for number in range(DEPLOYMENTS)]
    for address in addresses:
        await store.save_deployment(DeploymentRecord(address))
    names = [f"machine{number}" for number in range(ENGINES)]
    engines = [
        subprocess.Popen(
            [sys.executable, "-c", ENGINE, url, str(home), name, str(TURNS), str(LEASE_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for engine in engines:
        assert engine.stdout is not None
        assert engine.stdout.readline() == "ready\n"
    told = await asyncio.gather(*(asyncio.to_thread(engine.communicate, "go\n", 120) for engine in engines))
    assert [engine.returncode for engine in engines] == [0] * ENGINES
    ends = [end for out, _ in told for end in json.loads(out)]
    assert ends.count("done") == ENGINES * TURNS
    assert any(end.startswith("fenced") for end in ends), "no engine ever stalled past its lease and was taken over"
    for address in addresses:
        written = []
        for run in reversed(await store.runs(address, 10_000)):
            events = await store.events(run.id, limit=1000)
            assert [item.seq for item in events] == list(range(1, len(events) + 1))
            assert {item.event.stage for item in events if isinstance(item.event, StageStarted)} <= {
                f"{run.id.partition('-')[0]}-{run.epoch}"
            }
            written.append((run.epoch, [item.at for item in events]))
        epochs = [epoch for epoch, _ in written]
        assert len(set(epochs)) == len(epochs), "two runs had the same epoch"
        # An older epoch wrote nothing after a newer one had begun to.
        in_order = [times for _, times in sorted(written) if times]
        assert all(max(earlier) <= min(later) for earlier, later in pairwise(in_order))
    await store.close()
