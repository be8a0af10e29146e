"""Carries bytes between two streams in both directions, each direction ended by itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any

_CHUNK = 2**16

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing tells the other end by RST that something broke, not that all was said."""


async def relay(near: tuple[Any, Any], far: tuple[Any, Any]) -> None:
    """Carry on until both directions have ended, or either breaks. Each end is a reader and a writer, of this machine's
    sockets (`near`) and of the SSH connection (`far`)."""
    import asyncssh

    (near_reader, near_writer), (far_reader, far_writer) = near, far
    there = asyncio.ensure_future(_carry(near_reader, far_writer))
    ssh = far_writer.get_extra_info("connection")
    # A connection that is given up looks like the end of what was said, and is none.
    back = asyncio.ensure_future(_carry(far_reader, near_writer, lambda: not ssh.is_closed()))
    try:
        await asyncio.gather(there, back)
    except (OSError, asyncssh.Error):
        abort(near_writer)
    finally:
        there.cancel()
        back.cancel()
        near_writer.close()
        far_writer.close()
        with contextlib.suppress(OSError, asyncssh.Error):
            await near_writer.wait_closed()


def abort(writer: asyncio.StreamWriter) -> None:
    """Tell the client that its connection broke."""
    found = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


async def _carry(reader: Any, writer: Any, ended: Callable[[], bool] = lambda: True) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if not ended():
        raise ConnectionResetError
    if writer.can_write_eof():
        writer.write_eof()
