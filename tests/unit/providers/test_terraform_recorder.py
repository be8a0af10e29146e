"""The journal's writer when it is stopped in the middle of a write."""

from __future__ import annotations

import asyncio
import gc

import pytest

from skyspan.model.change import Action
from skyspan.model.error import FencedError
from skyspan.providers.terraform.holder import Holder, Machine
from skyspan.providers.terraform.journal import Journal
from skyspan.providers.terraform.parse import Moved
from skyspan.providers.terraform.recorder import Recorder
from skyspan.testing.fake_clock import FakeClock

HOLDER = Holder("x", Machine("vm", "b", "n", 0))


class Slow:
    """Keeps the first at once; every later one when it is told to, and then not at all."""

    def __init__(self) -> None:
        self.count = 0
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def get(self, name: str) -> bytes | None:
        return None

    async def put(self, name: str, data: bytes) -> None:
        self.count += 1
        if self.count > 1:
            self.begun.set()
            await self.go.wait()
            raise FencedError("the lease is somebody else's")

    def put_soon(self, name: str, data: bytes) -> None:
        raise AssertionError("the journal is durable at once")

    async def remove(self, name: str) -> None:
        raise AssertionError("nothing is removed")


async def test_a_write_that_fails_while_it_is_stopped_is_told_once_and_to_the_caller() -> None:
    lost: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    kept = Slow()
    recorder = Recorder(kept, FakeClock(), Journal().opened(HOLDER, {}, 0.0))
    await recorder.start()
    recorder.note(Moved("a.b", Action.CREATE, "started"))
    await kept.begun.wait()
    stopping = asyncio.ensure_future(recorder.stop())
    await asyncio.sleep(0)
    kept.go.set()
    with pytest.raises(FencedError):
        await stopping
    gc.collect()
    assert lost == []
