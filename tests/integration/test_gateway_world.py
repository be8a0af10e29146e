"""Gateways in network namespaces end with the test run that made them, however that one ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.driven import until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]

MAKES_ONE = """
import asyncio
from tests.support.gateways import gateways

async def main():
    async with gateways() as sites:
        print(*(machine.pid for machine in sites.machines.values()), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_killed_run_leaves_no_machines() -> None:
    with subprocess.Popen([sys.executable, "-c", MAKES_ONE], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        machines = (await asyncio.to_thread(run.stdout.readline)).split()
        run.kill()
    assert len(machines) == 5

    async def gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in machines)

    await until(gone, 20)
