"""Rotations killed by SIGKILL at every step, under load: each resumes, nothing is lost, old keys open nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.postgres import PostgresServer

from skyspan.app.rotation import rotate_data, rotate_master
from skyspan.app.session import open_session
from skyspan.app.settings import Settings, read_settings
from skyspan.contracts.store import Batch
from skyspan.model.error import SkyspanError
from skyspan.model.secret import Secret
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.testing.conformance.store_world import cloud_record, started

pytestmark = pytest.mark.chaos

SECRETS = 450
"""More than two batches."""

ROTATE = """
import asyncio, os, signal, sys
from skyspan.app.rotation import rotate_data, rotate_master
from skyspan.app.session import open_session
from skyspan.app.settings import read_settings

at, seen = int(sys.argv[3]), []
def step(name):
    seen.append(name)
    print(name, flush=True)
    if len(seen) == at:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with open_session(read_settings(sys.argv[1])) as session:
        if sys.argv[2] == "master":
            await rotate_master(session, None, step)
        else:
            await rotate_data(session, step)

asyncio.run(main())
"""

WRITE = """
import asyncio, sys
from skyspan.app.session import open_session
from skyspan.app.settings import read_settings
from skyspan.model.secret import Secret

async def main():
    async with open_session(read_settings(sys.argv[1])) as session:
        number = 0
        while True:
            number += 1
            name = f"w{number % 50}"
            await session.store.put_secret("default", name, Secret(f"written {name}"))
            assert await session.store.secret("default", name) == Secret(f"written {name}")
            print(number, flush=True)

asyncio.run(main())
"""


@pytest.fixture(params=("sqlite", "postgresql"))
def env(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """What the processes of the test share besides a home."""
    base = {key: value for key, value in os.environ.items() if not key.startswith("SKYSPAN_")}
    if request.param == "sqlite":
        yield base
        return
    with PostgresServer() as server:
        yield {**base, "SKYSPAN_STORE": server.database()}


async def fill(settings: Settings) -> None:
    async with open_session(settings) as session:
        await started(session.store)
        lease = await session.store.holder(cloud_record().address.deployment)
        assert lease is not None
        await session.store.append("run-0001", lease, Batch(put=(cloud_record(),)))
        await asyncio.gather(
            *(
                session.store.put_secret("default", f"s{number}", Secret(f"secret {number}"))
                for number in range(SECRETS)
            )
        )
        await session.store.release(lease)


async def whole(settings: Settings) -> None:
    """Every value opens, and is what was written."""
    async with open_session(settings) as session:
        seen = await session.upkeep.survey()
        assert seen.flaws == ()
        for number in range(0, SECRETS, 50):
            assert await session.store.secret("default", f"s{number}") == Secret(f"secret {number}")


@pytest.mark.parametrize("what", ["data", "master"])
async def test_a_rotation_killed_at_every_step_under_load_resumes(
    env: dict[str, str], tmp_path: Path, what: str
) -> None:
    home = tmp_path / "home"
    settings = read_settings(str(home), environ=env)
    await fill(settings)
    writer = subprocess.Popen([sys.executable, "-c", WRITE, str(home)], env=env, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    writer.stdout.readline()
    killed, names = 0, set()
    try:
        for at in range(1, 30):
            old = home.parent / f"old{at}"
            shutil.copytree(home, old, ignore=shutil.ignore_patterns("*.db*"))
            first = EnvelopeSealer(home).current("default")
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", ROTATE, str(home), what, str(at)],
                env=env,
                capture_output=True,
                text=True,
                timeout=120,
            )
            names |= set(done.stdout.split("\n"))
            await whole(settings)
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL, done.stderr
            killed += 1
            async with open_session(settings) as session:
                rotated = await (rotate_master(session, None) if what == "master" else rotate_data(session))
            # Begun, and not over: gone on with. A master key that was not decided for is as if it had never been.
            steps = done.stdout.split("\n")
            begun = "decided" in steps if what == "master" else "old data keys gone" not in steps
            assert rotated["resumed"] is (begun and "default wrapped once" not in steps)
            await whole(settings)
            assert opens_nothing(home, old, what, first)
        assert writer.poll() is None, "the writer failed"
    finally:
        writer.kill()
        writer.communicate()
    assert killed >= (4 if what == "master" else 5), names
    await whole(settings)


def opens_nothing(home: Path, old: Path, what: str, first: bytes) -> bool:
    """Whether the keys of before the rotation are of no use for what is there now."""
    if what == "data":
        return not EnvelopeSealer(home).current("default").startswith(first)
    shutil.copy(old / "key", old / "stolen")
    shutil.rmtree(old / "keys")
    shutil.copytree(home / "keys", old / "keys")
    try:
        EnvelopeSealer(old).current("default")
    except SkyspanError:
        return True
    return False
