"""Stopping real processes: the ladder's timing, what is told of it, and that nothing survives it, daemons included."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.cli import Cli, ended, until

from skyspan.contracts.transport import Command, StopLadder, Stream
from skyspan.testing.conformance.transport import Heard
from skyspan.transports.descendants import MARK, descendants
from skyspan.transports.local import LocalTransport

SOON_S = 30.0
TOLERANCE = 0.10

pytestmark = pytest.mark.chaos

# A family tree: a child, a grandchild in the same group, and daemons that left it: one with its parent gone, one in a
# session of its own below the command, and one that has cleared its environment but not its parents.
FAMILY = """
import os, signal, subprocess, sys, time
deaf = "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15, 1)]; time.sleep(1000)"
def sleeper(*how):
    return subprocess.Popen([*how, sys.executable, "-c", deaf])
pids = [sleeper().pid, sleeper("setsid").pid, sleeper("env", "-i", "setsid").pid]
told, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (2, 15, 1):
            signal.signal(number, signal.SIG_IGN)
        os.write(tell, str(os.getpid()).encode())
        os.closerange(0, 16)
        time.sleep(1000)
    os._exit(0)
os.wait()
pids.insert(0, int(os.read(told, 16)))
print("family", *pids, flush=True)
"""

COOPERATIVE = FAMILY + "signal.signal(2, lambda *_: sys.exit(0))\nprint('ready', flush=True)\ntime.sleep(1000)"
SLOW = FAMILY + (
    "told = []\n"
    "signal.signal(2, lambda *_: told.append(1))\n"
    "print('ready', flush=True)\n"
    "while not told: time.sleep(0.01)\n"
    "time.sleep(0.6)\n"
    "print('saved', flush=True)\n"
)
IGNORING = FAMILY + "signal.signal(2, signal.SIG_IGN)\nprint('ready', flush=True)\nwhile True: time.sleep(1)"
SECOND = FAMILY + (
    "told = []\n"
    "signal.signal(2, lambda *_: told.append(1))\n"
    "print('ready', flush=True)\n"
    "while len(told) < 2: time.sleep(0.01)\n"
    "sys.exit(7)\n"
)

LADDER = StopLadder(first_s=1.5, second_s=1.0)


@dataclass
class Stopped:
    """How stopping a command went."""

    took_s: float
    heard: Heard
    family: list[int]

    @property
    def told(self) -> list[str]:
        lines = self.heard.data[Stream.ERR].decode().splitlines()
        return [line.removeprefix("skyspan: ") for line in lines if line.startswith("skyspan: ")]


@pytest.fixture
async def transport() -> AsyncIterator[LocalTransport]:
    made = LocalTransport({"PATH": os.environ["PATH"]})
    yield made
    await made.close()


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


async def gone(pids: list[int]) -> list[int]:
    """Who of them is left after a moment: killed ones need it to vanish."""
    deadline = time.monotonic() + 2.0
    while any(map(alive, pids)) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return [pid for pid in pids if alive(pid)]


def family_of(heard: Heard) -> list[int]:
    lines = [line.split() for line in heard.data[Stream.OUT].decode().splitlines()]
    return [int(pid) for words in lines if words and words[0] == "family" for pid in words[1:]]


async def started(transport: LocalTransport, program: str, ladder: StopLadder) -> tuple[asyncio.Task[object], Heard]:
    heard = Heard()
    command = Command((sys.executable, "-c", program), ladder=ladder)
    running: asyncio.Task[object] = asyncio.ensure_future(transport.run(command, heard))
    await asyncio.wait_for(heard.until(b"ready"), SOON_S)
    return running, heard


async def stopped(transport: LocalTransport, program: str, ladder: StopLadder = LADDER) -> Stopped:
    running, heard = await started(transport, program, ladder)
    family = family_of(heard)
    assert len(family) == 4
    assert all(map(alive, family))
    began = time.monotonic()
    running.cancel()
    await asyncio.wait({running}, timeout=SOON_S)
    assert running.cancelled()
    return Stopped(time.monotonic() - began, heard, family)


def about(seconds: float) -> object:
    return pytest.approx(seconds, rel=TOLERANCE)


async def test_a_cooperative_command_ends_at_once_and_its_daemons_with_it(transport: LocalTransport) -> None:
    result = await stopped(transport, COOPERATIVE)
    assert result.took_s < LADDER.first_s * TOLERANCE + 0.35
    assert not await gone(result.family)
    assert result.told[0] == "stopping: SIGINT, then up to 1.5 s to end in order"
    assert result.told[1].startswith("it ended 0.")
    assert result.told[2].startswith("killed what it had started: ")
    assert str(result.family[0]) in result.told[2]


async def test_a_slow_command_gets_its_time_to_save(transport: LocalTransport) -> None:
    result = await stopped(transport, SLOW)
    assert b"saved" in result.heard.data[Stream.OUT]
    assert result.took_s == pytest.approx(0.6, abs=0.15)
    assert not await gone(result.family)
    assert not any("SIGKILL" in line for line in result.told)


async def test_a_second_interrupt_comes_on_time(transport: LocalTransport) -> None:
    result = await stopped(transport, SECOND)
    assert result.took_s == about(LADDER.first_s)
    assert result.told[1].startswith("no end after 1.5 s: SIGINT again")
    assert not await gone(result.family)


async def test_a_command_that_ignores_signals_is_killed_on_time_with_all_it_started(transport: LocalTransport) -> None:
    result = await stopped(transport, IGNORING)
    assert result.took_s == about(LADDER.first_s + LADDER.second_s)
    assert not await gone(result.family)
    steps = [
        "stopping: SIGINT",
        "no end after 1.5 s: SIGINT again",
        "no end after 2.5 s: SIGKILL",
        "killed",
        "it ended 2.5 s",
    ]
    assert all(told.startswith(step) for told, step in zip(result.told, steps, strict=True)), result.told


async def test_a_timeout_climbs_the_same_ladder_and_leaves_nothing(transport: LocalTransport) -> None:
    heard = Heard()
    command = Command((sys.executable, "-c", IGNORING), timeout_s=2.0, ladder=StopLadder(0.4, 0.4))
    began = time.monotonic()
    completed = await asyncio.wait_for(transport.run(command, heard), SOON_S)
    assert completed.timed_out
    assert completed.exit_code == -9
    assert time.monotonic() - began == about(2.8)
    assert not await gone(family_of(heard))
    assert b"skyspan:" not in completed.stderr, "what is told is no output of the command"


async def test_asking_twice_ends_everything_at_once(transport: LocalTransport) -> None:
    running, heard = await started(transport, IGNORING, StopLadder(900, 900))
    running.cancel()
    while b"stopping" not in heard.data[Stream.ERR]:
        await asyncio.sleep(0)
    began = time.monotonic()
    running.cancel()
    await asyncio.wait({running}, timeout=SOON_S)
    assert time.monotonic() - began < 0.5
    assert not await gone(family_of(heard))
    assert b"to be stopped at once after 0." in heard.data[Stream.ERR]


async def test_a_daemon_of_a_command_that_succeeded_is_left_alone(transport: LocalTransport) -> None:
    heard = Heard()
    program = FAMILY + "print('ready', flush=True)\n[os.kill(pid, 9) for pid in pids[1:]]"
    completed = await asyncio.wait_for(transport.run(Command((sys.executable, "-c", program)), heard), SOON_S)
    assert completed.ok
    daemon = family_of(heard)[0]
    assert alive(daemon), "a service that a command started goes on"
    environment = Path(f"/proc/{daemon}/environ").read_bytes().split(b"\0")
    mark = next(item for item in environment if item.startswith(MARK.encode())).decode().partition("=")[2]
    assert [found.pid for found in descendants(mark)] == [daemon]

    # Another command that is stopped afterwards is not its family.
    running, _ = await started(transport, COOPERATIVE, LADDER)
    running.cancel()
    await asyncio.wait({running}, timeout=SOON_S)
    assert alive(daemon)
    os.kill(daemon, 9)
    assert not await gone([daemon])


async def test_a_flood_of_200_megabytes_is_bounded_in_memory(transport: LocalTransport) -> None:
    before, size = resident_mb(), 0

    def count(stream: Stream, data: bytes) -> None:
        nonlocal size
        size += len(data)

    command = Command(("head", "-c", str(200 * 2**20), "/dev/zero"))
    completed = await asyncio.wait_for(transport.run(command, count), 4 * SOON_S)
    assert completed.ok
    assert size == 200 * 2**20
    assert resident_mb() - before < 40


async def test_a_flooding_command_can_be_stopped_on_time(transport: LocalTransport) -> None:
    heard = 0

    def count(stream: Stream, data: bytes) -> None:
        nonlocal heard
        heard += len(data)

    script = "trap '' INT; echo $$; while :; do head -c 1000000 /dev/urandom; done"
    running = asyncio.ensure_future(transport.run(Command(("sh", "-c", script), ladder=StopLadder(0.5, 0.5)), count))
    while heard < 5_000_000:
        await asyncio.sleep(0.01)
    began = time.monotonic()
    running.cancel()
    await asyncio.wait({running}, timeout=SOON_S)
    assert time.monotonic() - began == pytest.approx(1.0, abs=0.25)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# Through the whole of Skyspan: the composition's own ladder, the keeper, the log, the screen.

DEAF = """
stages:
  deaf:
    uses: command
    {policies}
    with:
      run: |
        trap '' INT
        setsid sleep 1000 & echo $! > {pids}
        echo $$ >> {pids}
        touch {ready}
        while :; do sleep 0.1; done
"""


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()


def deaf(cli: Cli, policies: str) -> Path:
    return cli.compose(DEAF.format(policies=policies, pids=cli.folder / "pids", ready=cli.folder / "ready"))


def family(cli: Cli) -> list[int]:
    return [int(line) for line in (cli.folder / "pids").read_text().split()]


async def test_a_stage_says_how_patiently_it_is_stopped_and_its_log_tells_how_it_went(cli: Cli) -> None:
    composition = deaf(cli, "timeout: 2s\n    cancel: {first: 1s, second: 500ms}")
    ran = cli.up(composition)
    assert ran.status == 1
    [stage] = ran.document["stages"]
    assert stage["duration_s"] == pytest.approx(3.5, abs=0.6)
    told = [line.partition("skyspan: ")[2] for line in cli("logs", "app").out.splitlines()]
    for step in (
        "stopping: SIGINT, then up to 1 s to end in order",
        "no end after 1.0 s: SIGINT again, then up to 0.5 s",
        "no end after 1.5 s: SIGKILL for all of its group",
        "killed what it had started: ",
        "it ended 1.",
    ):
        assert any(line.startswith(step[:-6]) for line in told), (step, told)
    assert not await gone(family(cli))


async def test_pressing_ctrl_c_twice_is_explained_on_screen_and_ends_everything_at_once(cli: Cli) -> None:
    composition = deaf(cli, "cancel: {first: 10m, second: 10m}")
    running = cli.start("up", "-f", composition, "--yes")
    until((cli.folder / "ready").exists, "the command is running")
    os.kill(running.pid, signal.SIGINT)
    until(lambda: "SIGINT" in cli("logs", "app").out, "the first interrupt is in the log")
    assert running.poll() is None
    began = time.monotonic()
    os.kill(running.pid, signal.SIGINT)
    ran = ended(running)
    assert time.monotonic() - began < 5
    assert ran.status == 130
    assert "Ctrl-C again ends them at once" in ran.err
    assert "to be stopped at once after" in cli("logs", "app").out
    assert not await gone(family(cli))
