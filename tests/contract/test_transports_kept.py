"""Commands that the keeper runs keep the transport's contract; and those that an earlier engine started are found."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skyspan.contracts.transport import Command, DivergedError, StopLadder, Stream
from skyspan.model.error import FencedError, InDoubtError
from skyspan.testing.conformance.transport import TransportConformance
from skyspan.transports.keeper.address import AttemptKey, KeptCommand, RunKey, keeper_place
from skyspan.transports.keeper.link import KeeperLink
from skyspan.transports.keeper.process import KeptProcess
from skyspan.transports.keeper.transport import Keeping, KeptTransport
from skyspan.transports.local import LocalTransport

ENV = {"PATH": os.environ["PATH"], "BASE": "given"}
ATTEMPT = AttemptKey("stage", 1)


class Engine:
    """One engine of the run `run-0001`, as far as the keeper is concerned."""

    def __init__(self, home: Path, epoch: int = 1, *, fresh: bool = True) -> None:
        home.mkdir(exist_ok=True)
        self.link = KeeperLink(keeper_place(home), RunKey("default/site", "run-0001", epoch, fresh))
        self.points: list[str] = []

    def transport(self, started: tuple[KeptCommand, ...] = ()) -> KeptTransport:
        keeping = Keeping(self.link, ENV, b"key", self.points.append, self._assured)
        return KeptTransport(LocalTransport(ENV), keeping, ATTEMPT, started)

    async def _assured(self) -> None:
        pass


class TestKeptTransport(TransportConformance):
    @pytest.fixture
    async def transport(self, tmp_path: Path) -> AsyncIterator[KeptTransport]:
        engine = Engine(tmp_path / "home")
        yield engine.transport()
        await engine.link.end_run("run-0001")
        await engine.link.close()


@pytest.fixture
async def first(tmp_path: Path) -> AsyncIterator[Engine]:
    engine = Engine(tmp_path / "home")
    yield engine
    await engine.link.close()


@pytest.fixture
async def second(tmp_path: Path) -> AsyncIterator[Engine]:
    engine = Engine(tmp_path / "home", 2, fresh=False)
    yield engine
    await engine.link.close()


def waiting(folder: Path, then: str = "echo done") -> Command:
    """Says that it began, and waits for the file `go`."""
    script = f"echo begun; until [ -e go ]; do sleep 0.01; done; {then}"
    return Command(("sh", "-c", script), cwd=str(folder), ladder=StopLadder(0.3, 0.2))


async def begun(engine: Engine, command: Command) -> asyncio.Task[object]:
    heard = asyncio.Event()
    task: asyncio.Task[object] = asyncio.create_task(engine.transport().run(command, lambda *_: heard.set()))
    await asyncio.wait_for(heard.wait(), 20)
    return task


async def cut_off(engine: Engine, command: Command) -> None:
    """The engine starts it, and vanishes without a word."""
    transport, heard = engine.transport(), asyncio.Event()
    process = KeptProcess(engine.link, ATTEMPT, command.ladder, lambda *_: heard.set())
    await transport._start(process, command, transport._digest(command))
    await asyncio.wait_for(heard.wait(), 20)
    await engine.link.close()


async def test_the_next_engine_hears_all_of_it_and_its_own_exit_status(
    first: Engine, second: Engine, tmp_path: Path
) -> None:
    command = waiting(tmp_path, "echo done >&2; exit 7")
    await cut_off(first, command)
    (tmp_path / "go").touch()
    heard: list[tuple[Stream, bytes]] = []
    done = await second.transport(await second.link.records()).run(command, lambda *piece: heard.append(piece))
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"begun\n", b"done\n")
    assert heard == [(Stream.OUT, b"begun\n"), (Stream.ERR, b"done\n")]


async def test_another_command_waits_for_the_end_of_what_was_started(
    first: Engine, second: Engine, tmp_path: Path
) -> None:
    await cut_off(first, waiting(tmp_path, "touch ended"))
    transport = second.transport(await second.link.records())
    asyncio.get_running_loop().call_later(0.2, (tmp_path / "go").touch)
    with pytest.raises(DivergedError):
        await transport.run(Command(("touch", str(tmp_path / "other"))))
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "other").exists()
    assert (await transport.run(Command(("touch", str(tmp_path / "other"))))).ok


async def test_an_older_epoch_can_neither_start_nor_stop(first: Engine, second: Engine, tmp_path: Path) -> None:
    task = await begun(first, waiting(tmp_path))
    await second.link.open()
    with pytest.raises(FencedError):
        await first.transport().run(Command(("touch", str(tmp_path / "late"))))
    task.cancel()
    with pytest.raises(FencedError):
        await task
    [record] = await second.link.records()
    assert not record.over, "the older engine stopped what is not its own any more"
    (tmp_path / "go").touch()
    assert (await second.transport((record,)).run(waiting(tmp_path))).ok


async def test_a_command_whose_keeper_was_killed_is_waited_for_and_left_in_doubt(
    first: Engine, second: Engine, tmp_path: Path
) -> None:
    task = await begun(first, waiting(tmp_path, "touch ended"))
    keeper = (await first.link._ask("hello", fresh=False))["pid"]
    os.kill(keeper, signal.SIGKILL)
    asyncio.get_running_loop().call_later(0.3, (tmp_path / "go").touch)
    with pytest.raises(InDoubtError):
        await task
    assert (tmp_path / "ended").exists()
    [record] = await second.link.records()
    assert record.unknown and record.over


async def test_what_was_forgotten_is_not_known_any_more(first: Engine, tmp_path: Path) -> None:
    await first.transport().run(Command(("echo", "said")))
    assert len(await first.link.records()) == 1
    first.link.forget(ATTEMPT)
    assert await first.link.records() == ()


async def test_a_journal_tells_whether_it_knows_everything(first: Engine, second: Engine, tmp_path: Path) -> None:
    await second.link.open()
    assert not second.link.complete, "another engine began this run, who knows where"
    await first.link.close()
    fresh = KeeperLink(keeper_place(tmp_path / "home"), RunKey("default/site", "run-0002", 3))
    await fresh.open()
    assert fresh.complete
    await fresh.end_run("run-0002")
    await fresh.close()


async def test_the_umask_of_the_engine_is_that_of_its_commands(first: Engine, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        await first.transport().run(Command(("touch", str(tmp_path / "made"))))
    finally:
        os.umask(before)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o640


async def test_crash_points_surround_a_command(first: Engine) -> None:
    await first.transport().run(Command(("true",)))
    assert first.points == ["command.before", "command.started", "command.ended"]
