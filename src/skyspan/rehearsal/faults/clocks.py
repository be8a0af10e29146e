"""Keeps the clocks of stand-ins that were stepped: one tracer for each (see `clock`)."""

from __future__ import annotations

import platform

from skyspan.contracts.transport import Command, Process, Spawner, Transport
from skyspan.model.error import ToolFailedError, UsageError
from skyspan.rehearsal.faults import clock
from skyspan.rehearsal.hosts.machine import Machine
from skyspan.rehearsal.programs import LADDER, listening, standard

_PROCESSOR = "x86_64"
_STEP_S = 20.0


class Clocks:
    """The clocks that are not the world's. `transport` and `spawner` run commands in the world's own namespaces."""

    def __init__(self, transport: Transport, spawner: Spawner) -> None:
        self._transport = transport
        self._spawner = spawner
        self._tracers: dict[str, Process] = {}

    async def step(self, machine: Machine, seconds: int) -> None:
        """Set a machine's clock `seconds` ahead of the world's; 0 mends it. Raises UsageError, ToolFailedError."""
        if platform.machine() != _PROCESSOR:
            raise UsageError(f"a clock can be stepped on {_PROCESSOR} only, and this is {platform.machine()}")
        await self.forget(machine.name)
        argv = standard(clock, str(machine.pid), str(seconds))
        if seconds:
            self._tracers[machine.name] = await listening(self._spawner, machine.name, argv)
            return
        done = await self._transport.run(Command(argv, ladder=LADDER, timeout_s=_STEP_S))
        if not done.ok:
            raise ToolFailedError(f"could not mend the clock of {machine.name}", detail=done.last_words())

    def stepped(self) -> tuple[str, ...]:
        """The machines whose clock is not the world's."""
        return tuple(self._tracers)

    async def forget(self, name: str) -> None:
        """Follow a machine no longer; what was stepped stays so."""
        tracer = self._tracers.pop(name, None)
        if tracer is not None:
            await tracer.stop()
