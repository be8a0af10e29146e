"""This machine under the transport suite, and what only it has."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skyspan.contracts.transport import Command, StopLadder
from skyspan.model.error import SpecError, ToolFailedError, UnreachableError
from skyspan.testing.conformance.transport import Heard, TransportConformance, raised, shell
from skyspan.transports.descendants import MARK
from skyspan.transports.local import LocalTransport


class TestLocalTransport(TransportConformance):
    @pytest.fixture
    async def transport(self) -> AsyncIterator[LocalTransport]:
        made = LocalTransport({"PATH": os.environ["PATH"], "BASE": "given"})
        yield made
        await made.close()

    async def test_only_the_given_environment_arrives(self, transport: LocalTransport) -> None:
        completed = await transport.run(Command(("env",), env={"OWN": "1"}))
        names = {line.split("=")[0] for line in completed.text().splitlines()}
        assert names - {"LC_CTYPE", MARK} == {"PATH", "BASE", "OWN"}

    async def test_a_script_without_its_interpreter_is_told_apart_from_a_missing_tool(
        self, transport: LocalTransport, tmp_path: Path
    ) -> None:
        script = tmp_path / "script"
        script.write_text("#!/no/such/interpreter\n")
        script.chmod(0o755)
        assert "interpreter" in str(await raised(transport.run(Command((str(script),))), ToolFailedError))

    async def test_a_file_that_is_not_executable_says_how_to_make_it_so(
        self, transport: LocalTransport, tmp_path: Path
    ) -> None:
        (tmp_path / "tool").write_text("#!/bin/sh\n")
        assert "executable" in str(await raised(transport.run(Command((str(tmp_path / "tool"),))), ToolFailedError))

    async def test_a_relative_tool_is_sought_in_the_commands_folder(
        self, transport: LocalTransport, tmp_path: Path
    ) -> None:
        script = tmp_path / "script"
        script.write_text("#!/bin/sh\necho here\n")
        script.chmod(0o755)
        assert (await transport.run(Command(("./script",), cwd=str(tmp_path)))).text() == "here\n"

    async def test_an_impossible_variable_is_refused(self, transport: LocalTransport) -> None:
        await raised(transport.run(Command(("true",), env={"a=b": "c"})), SpecError)

    async def test_a_started_command_leads_its_own_session_and_can_be_stopped(self, transport: LocalTransport) -> None:
        heard = Heard()
        process = await transport.start(
            shell("trap '' INT; echo ready; sleep 1005; exit 9", ladder=StopLadder(0.1, 0.1)), heard
        )
        await heard.until(b"ready")
        assert os.getsid(process.pid) == process.pid
        assert (await process.stop()).exit_code == -9
        assert (await process.stop()).exit_code == -9
        assert (await process.wait()).exit_code == -9

    async def test_no_descriptor_stays_open(self, transport: LocalTransport) -> None:
        await transport.run(Command(("true",), stdin=b"x"))
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            await transport.run(Command(("cat",), stdin=b"x"))
            await transport.run(Command(("sleep", "100"), timeout_s=0.01, ladder=StopLadder(1, 1)))
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    async def test_a_connection_that_is_reset_says_so(self, transport: LocalTransport) -> None:
        def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

        server = await asyncio.start_server(reset, "127.0.0.1", 0)
        async with server:
            connection = await transport.dial("localhost", server.sockets[0].getsockname()[1], 5)
            assert "broke" in str(await raised(connection.receive(), UnreachableError))
            await connection.close()

    async def test_silence_and_unknown_names_are_told_apart(self, transport: LocalTransport) -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            # Two fill the backlog; the next one gets no answer.
            with socket.create_connection(("127.0.0.1", port)):
                error = await raised(_until_silent(transport, port), UnreachableError)
        assert "did not answer within 0.2 s" in str(error)
        error = await raised(transport.dial("name.invalid", 80, 5), UnreachableError)
        assert "resolved" in str(error)


async def _until_silent(transport: LocalTransport, port: int) -> None:
    open_ones = []
    try:
        for _ in range(10):
            open_ones.append(await transport.dial("127.0.0.1", port, 0.2))
    finally:
        for connection in open_ones:
            await connection.close()
