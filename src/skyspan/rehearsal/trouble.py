"""Makes what is asked for befall a world: faults between its sites, and acts upon its stand-ins."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from skyspan.model.error import UsageError
from skyspan.rehearsal import acts, faults
from skyspan.rehearsal.machine import Machine
from skyspan.rehearsal.world import World

_REROUTING = frozenset({"nat", "rebind", "clear"})
"""What gives connections other addresses: the router has to forget those that it tracks."""


async def make(world: World, words: Sequence[str]) -> None:
    """Do what one instruction says (see `faults.USAGE`); raises UsageError, ToolFailedError."""
    act = acts.act(list(words), world.rehearsal)
    if act is None:
        wanted = faults.changed(world.faults, list(words), world.rehearsal.sites)
        await world.disturb(wanted, forget_connections=words[0] in _REROUTING)
        if words[0] == "clear":
            for name in world.clocks.stepped():
                await world.clocks.step(world.machines[name], 0)
    else:
        await _perform(world, act)
    world.say(" ".join(words))


async def _perform(world: World, act: acts.Act) -> None:
    match act:
        case acts.Renumber(host, address):
            await world.renumber(host, address)
        case acts.Kill(host, program):
            kill(world.machines[host], program)
        case acts.Start(host, service):
            await world.start_service(host, service)
        case acts.Reboot(host):
            await world.reboot(host)
        case acts.Clock(host, step):
            await world.clocks.step(world.machines[host], step)


def kill(machine: Machine, program: str) -> None:
    """Kill every process of that name on a machine, but not its init and sshd; raises UsageError if none is there."""
    found = [pid for pid, name in programs(machine) if name == program]
    if not found:
        running = ", ".join(sorted({name for _, name in programs(machine)}))
        raise UsageError(f"no {program} runs on {machine.name}", hint=f"there are: {running or 'none'}")
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def programs(machine: Machine) -> Iterator[tuple[int, str]]:
    """The processes in a machine's own PID namespace with the names of their programs; without its init and sshd."""
    namespace = Path(f"/proc/{machine.pid}/ns/pid").readlink()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == machine.pid:
            continue
        try:
            if (entry / "ns/pid").readlink() != namespace or _is_sshd_itself(entry, machine):
                continue
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked
        if words[0]:
            yield int(entry.name), Path(words[0].decode(errors="replace").partition(" ")[0].rstrip(":")).name


def _is_sshd_itself(entry: Path, machine: Machine) -> bool:
    parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
    listening = b"stand_in_sshd_config" in (entry / "cmdline").read_bytes()
    return int(parent) == machine.pid and listening
