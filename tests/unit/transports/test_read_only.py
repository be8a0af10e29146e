"""The read-only half and the scripted transport."""

from __future__ import annotations

import pytest

from skyspan.contracts.transport import Command, Completed, Effect, Reader, Stream, Transport
from skyspan.model.error import ToolMissingError, UnreachableError
from skyspan.model.secret import Secret
from skyspan.testing.scripted_transport import ScriptedConnection, ScriptedTransport
from skyspan.transports.read_only import ReadOnly

LOOK = Command(("look", "around"), effect=Effect.READ)
TOUCH = Command(("touch", "it"))


async def test_a_reader_looks_and_never_touches() -> None:
    inner = ScriptedTransport("box").expect("look", gives="seen")
    reader: Reader = ReadOnly(inner)
    assert reader.name == "box"
    assert (await reader.query(LOOK)).text() == "seen"
    with pytest.raises(PermissionError, match="touch it"):
        await reader.query(TOUCH)
    assert inner.commands == [LOOK]
    assert not hasattr(reader, "run")


async def test_a_reader_dials() -> None:
    connection = ScriptedConnection()
    reader = ReadOnly(ScriptedTransport().listen("10.0.0.1", 80, connection))
    assert await reader.dial("10.0.0.1", 80, 1) is connection
    with pytest.raises(UnreachableError, match="refused"):
        await reader.dial("10.0.0.1", 81, 1)


async def test_a_script_answers_in_order_and_streams_its_output() -> None:
    script: Transport = (
        scripted := ScriptedTransport()
        .expect("first", Secret("s"), gives=Completed(3, b"out", b"err"))
        .expect("second", gives=ToolMissingError("no second"))
        .expect("third", gives=lambda command: Completed(0, command.argv[1].encode()), times=2)
    )
    heard: list[tuple[Stream, bytes]] = []
    first = await script.run(Command(("first", Secret("s"), "more")), lambda *said: heard.append(said))
    assert first.exit_code == 3
    assert heard == [(Stream.OUT, b"out"), (Stream.ERR, b"err")]
    with pytest.raises(ToolMissingError):
        await script.run(Command(("second",)))
    assert [(await script.run(Command(("third", word)))).text() for word in "ab"] == ["a", "b"]
    scripted.finished()


async def test_a_script_fails_loudly_for_what_it_does_not_expect() -> None:
    script = ScriptedTransport().expect("first")
    with pytest.raises(AssertionError, match=r"unexpected command `second '\*\*\*'`"):
        await script.run(Command(("second", Secret("hidden"))))
    with pytest.raises(AssertionError, match="never came"):
        script.finished()
    any_order = ScriptedTransport(in_order=False).expect("first").expect("second")
    await any_order.run(Command(("second",)))
    await any_order.run(Command(("first",)))
    any_order.finished()
