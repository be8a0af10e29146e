"""The rules of `contracts.transport.Transport`, as tests that every transport passes by inheriting them.

    class TestMine(TransportConformance):
        @pytest.fixture
        async def transport(self): yield …

The place needs a POSIX shell and its common tools. Needs pytest with pytest-asyncio in its `auto` mode.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable
from typing import Any

from skyspan.contracts.transport import Command, Completed, Effect, Joined, StopLadder, Stream, Transport
from skyspan.model.error import SpecError, StageError, ToolMissingError, UnreachableError
from skyspan.model.secret import Secret

_SOON_S = 20.0
"""Nothing here takes as long unless it hangs."""

_QUICK = StopLadder(first_s=0.3, second_s=0.3)
_KEPT_MOST = 16 * 2**20

SECRET = "s3cr3t \"quoted\" 'twice' $HOME `id` \\n\nsecond line"


def shell(script: str, *arguments: str, **settings: Any) -> Command:
    """A command that runs a script."""
    return Command(("sh", "-c", script, "sh", *arguments), **settings)


async def raised(awaitable: Awaitable[Any], kind: type[BaseException]) -> BaseException:
    """The error of exactly this kind that `awaitable` raises."""
    try:
        await asyncio.wait_for(awaitable, _SOON_S)
    except kind as error:
        return error
    msg = f"expected {kind.__name__}"
    raise AssertionError(msg)


class Heard:
    """Collects a command's output and lets a test wait for a part of it."""

    def __init__(self) -> None:
        self.data = {Stream.OUT: b"", Stream.ERR: b""}
        self._came = asyncio.Event()

    def __call__(self, stream: Stream, data: bytes) -> None:
        self.data[stream] += data
        self._came.set()

    async def until(self, word: bytes) -> None:
        """Wait until standard output holds `word`."""
        async with asyncio.timeout(_SOON_S):
            while word not in self.data[Stream.OUT]:
                self._came.clear()
                await self._came.wait()


class TransportConformance:
    """Inherit, and supply a fixture `transport`."""

    async def run(self, transport: Transport, command: Command, heard: Heard | None = None) -> Completed:
        """Run `command`, which must not hang."""
        return await asyncio.wait_for(transport.run(command, heard), _SOON_S)

    async def test_a_command_gives_its_output_and_exit_code(self, transport: Transport) -> None:
        completed = await self.run(transport, shell("echo out; echo err >&2; exit 3"))
        assert (completed.exit_code, completed.stdout, completed.stderr) == (3, b"out\n", b"err\n")
        assert not completed.ok
        assert not completed.timed_out
        assert completed.duration_s > 0

    async def test_arguments_arrive_as_they_are(self, transport: Transport) -> None:
        odd = ("", " ", "a b", "'", '"', "$HOME", "`id`", "*", "\\", "-n", "a\nb\n", "\n", "é✓", "#", "!!", "~", "a;b")
        completed = await self.run(transport, Command(("printf", "%s|", *odd, Joined(("x=", Secret("y"))))))
        assert completed.text() == "".join(f"{argument}|" for argument in (*odd, "x=y"))

    async def test_an_argument_may_be_long(self, transport: Transport) -> None:
        completed = await self.run(transport, shell('printf %s "$1" | wc -c', "x" * 100_000))
        assert completed.text().strip() == "100000"

    async def test_standard_input_arrives_whole_and_then_ends(self, transport: Transport) -> None:
        data = bytes(range(256)) * 16384
        completed = await self.run(transport, Command(("cat",), stdin=data))
        assert hashlib.sha256(completed.stdout).digest() == hashlib.sha256(data).digest()

    async def test_without_standard_input_a_command_reads_an_end(self, transport: Transport) -> None:
        assert (await self.run(transport, Command(("cat",)))).stdout == b""

    async def test_a_secret_may_be_standard_input(self, transport: Transport) -> None:
        assert (await self.run(transport, Command(("cat",), stdin=Secret(SECRET)))).text() == SECRET

    async def test_a_command_that_ignores_its_input_does_not_hang(self, transport: Transport) -> None:
        assert (await self.run(transport, Command(("true",), stdin=b"x" * 4_000_000))).ok

    async def test_environment_arrives_and_its_secrets_are_in_no_process_list(self, transport: Transport) -> None:
        script = "printenv TOKEN; printenv PLAIN; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
        env = {"TOKEN": Secret(SECRET), "PLAIN": "plain value"}
        completed = await self.run(transport, shell(script, env=env))
        values, listing = completed.text().split("plain value\n")
        assert values == SECRET + "\n"
        assert "printenv TOKEN" in listing
        assert "s3cr3t" not in listing

    async def test_output_is_bytes(self, transport: Transport) -> None:
        completed = await self.run(transport, Command(("printf", "\\000\\377\\n\\r\\001")))
        assert completed.stdout == b"\x00\xff\n\r\x01"

    async def test_big_output_flows_and_only_its_last_part_is_kept(self, transport: Transport) -> None:
        size = 0

        def count(stream: Stream, data: bytes) -> None:
            nonlocal size
            size += len(data)

        command = shell("head -c 67108864 /dev/zero; head -c 1000000 /dev/zero >&2; printf end")
        completed = await asyncio.wait_for(transport.run(command, count), 6 * _SOON_S)
        assert size == 64 * 2**20 + 1_000_003
        assert 2**20 < len(completed.stdout) < _KEPT_MOST
        assert completed.stdout.endswith(b"\0end")
        assert len(completed.stderr) == 1_000_000

    async def test_output_comes_while_the_command_runs(self, transport: Transport) -> None:
        heard = Heard()
        running = asyncio.ensure_future(self.run(transport, shell("echo first; cat; sleep 1000", ladder=_QUICK), heard))
        await heard.until(b"first")
        assert not running.done()
        running.cancel()
        await raised(running, asyncio.CancelledError)

    async def test_the_folder_is_entered(self, transport: Transport) -> None:
        assert (await self.run(transport, Command(("pwd",), cwd="/usr"))).text() == "/usr\n"

    async def test_a_missing_folder_is_an_error_that_names_it(self, transport: Transport) -> None:
        error = await raised(transport.run(Command(("true",), cwd="/no/such folder")), SpecError)
        assert "/no/such folder" in str(error)

    async def test_a_missing_tool_is_an_error_that_names_it(self, transport: Transport) -> None:
        error = await raised(transport.run(Command(("no-such-tool", Secret("hidden")))), ToolMissingError)
        assert "no-such-tool" in str(error)
        assert "hidden" not in str(error)

    async def test_a_tool_that_is_no_program_is_an_error(self, transport: Transport) -> None:
        try:
            completed = await self.run(transport, Command(("/etc/passwd",)))
        except StageError:
            return
        assert completed.exit_code in (126, 127)

    async def test_what_cannot_be_an_argument_is_refused(self, transport: Transport) -> None:
        await raised(transport.run(Command(("echo", "a\0b"))), SpecError)
        await raised(transport.run(Command(())), SpecError)

    async def test_death_by_a_signal_is_a_negative_exit_code(self, transport: Transport) -> None:
        assert (await self.run(transport, shell("kill -TERM $$"))).exit_code == -15

    async def test_a_query_refuses_to_write(self, transport: Transport) -> None:
        await raised(transport.query(Command(("true",), effect=Effect.WRITE)), PermissionError)
        assert (await transport.query(Command(("true",), effect=Effect.READ))).ok

    async def test_a_timeout_stops_the_command_and_says_so(self, transport: Transport) -> None:
        started = time.monotonic()
        completed = await self.run(transport, Command(("sleep", "1000"), timeout_s=0.3, ladder=StopLadder(9, 9)))
        assert completed.timed_out
        assert not completed.ok
        assert completed.exit_code == -2
        assert time.monotonic() - started < 8

    async def test_cancelling_interrupts_and_lets_the_command_finish(self, transport: Transport) -> None:
        heard = Heard()
        script = "trap 'echo saved; exit 0' INT; echo ready; while :; do sleep 0.05; done"
        running = asyncio.ensure_future(transport.run(shell(script, ladder=StopLadder(15, 15)), heard))
        await heard.until(b"ready")
        running.cancel()
        await raised(running, asyncio.CancelledError)
        assert b"saved" in heard.data[Stream.OUT]

    async def test_a_second_interrupt_follows_when_the_first_does_not_end_it(self, transport: Transport) -> None:
        heard = Heard()
        script = (
            "n=0; trap 'n=$((n+1)); echo int$n; [ $n = 2 ] && exit 0' INT; echo ready; while :; do sleep 0.05; done"
        )
        running = asyncio.ensure_future(transport.run(shell(script, ladder=StopLadder(0.5, 15)), heard))
        await heard.until(b"ready")
        running.cancel()
        await raised(running, asyncio.CancelledError)
        assert b"int1\nint2\n" in heard.data[Stream.OUT]

    async def test_a_command_that_ignores_interrupts_is_killed_with_its_group(self, transport: Transport) -> None:
        heard = Heard()
        script = "trap '' INT; sleep 1001 & echo child $!; echo ready $$; while :; do sleep 0.05; done"
        running = asyncio.ensure_future(transport.run(shell(script, ladder=_QUICK), heard))
        await heard.until(b"ready")
        running.cancel()
        await raised(running, asyncio.CancelledError)
        await self._gone(transport, heard.data[Stream.OUT])

    async def test_what_an_interrupted_command_leaves_behind_is_killed(self, transport: Transport) -> None:
        heard = Heard()
        left = "(trap '' INT; exec sleep 1002) & echo child $!"
        script = f"trap 'exit 0' INT; {left}; echo ready; while :; do sleep 0.05; done"
        running = asyncio.ensure_future(transport.run(shell(script, ladder=StopLadder(15, 15)), heard))
        await heard.until(b"ready")
        running.cancel()
        await raised(running, asyncio.CancelledError)
        await self._gone(transport, heard.data[Stream.OUT])

    async def test_cancelling_twice_kills_at_once(self, transport: Transport) -> None:
        heard = Heard()
        script = "trap 'echo noted' INT; sleep 1003 & echo child $!; echo ready; while :; do sleep 0.05; done"
        running = asyncio.ensure_future(transport.run(shell(script, ladder=StopLadder(900, 900)), heard))
        await heard.until(b"ready")
        running.cancel()
        await heard.until(b"noted")
        running.cancel()
        await raised(running, asyncio.CancelledError)
        await self._gone(transport, heard.data[Stream.OUT])

    async def test_a_daemon_that_keeps_the_pipes_open_does_not_hold_up_the_result(self, transport: Transport) -> None:
        completed = await self.run(transport, shell("sleep 1004 & echo $!"))
        assert completed.ok
        pid = completed.text().strip()
        assert (await self.run(transport, Command(("kill", pid)))).ok, "it goes on by itself"

    async def test_many_commands_run_at_once(self, transport: Transport) -> None:
        results = await asyncio.gather(*(self.run(transport, shell(f"sleep 0.1; echo {n}")) for n in range(20)))
        assert [result.text() for result in results] == [f"{n}\n" for n in range(20)]

    async def test_a_dialled_connection_carries_bytes_both_ways(self, transport: Transport) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(5))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            connection = await transport.dial("127.0.0.1", server.sockets[0].getsockname()[1], 5)
            await connection.send(b"hello")
            received = b""
            while piece := await connection.receive():
                received += piece
            assert received == b"hello"
            await connection.close()
            await connection.close()

    async def test_dialling_a_closed_port_says_refused(self, transport: Transport) -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        error = await raised(transport.dial("127.0.0.1", port, 5), UnreachableError)
        assert "refused" in str(error)

    async def _gone(self, transport: Transport, said: bytes) -> None:
        """Whoever was named as `child PID` is dead, or will be within moments; its parent may be slow to notice."""
        pid = next(line.split()[1].decode() for line in said.splitlines() if line.startswith(b"child"))
        alive = f"grep -q '^State:.[^ZX]' /proc/{pid}/status 2>/dev/null"
        script = f"n=0; while {alive}; do n=$((n+1)); [ $n -gt 100 ] && exit 1; sleep 0.02; done"
        assert (await self.run(transport, shell(script))).ok, f"process {pid} is still there"
