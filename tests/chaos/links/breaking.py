"""The ways in which a link is broken: each makes what breaks it, and says what mends it if only the world can."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable

from tests.chaos.links.fault import Breaks, Mends
from tests.chaos.links.measuring import until
from tests.chaos.links.stand_ins import StandIns


def killed(*programs: str, hosts: int = 1) -> Breaks:
    """Daemons of one gateway or more, killed without a word."""

    def breaks(world: StandIns, chance: random.Random) -> None:
        having = [host for host in world.gateways if world.pids(host, *programs)]
        for host in chance.sample(having, hosts):
            world.signal(host, signal.SIGKILL, *programs)

    return breaks


def scripted(script: str, hosts: int = 1) -> Breaks:
    """A script run on gateways; `$1` is the WireGuard interface where there is one."""

    def breaks(world: StandIns, chance: random.Random) -> None:
        for host in chance.sample(world.gateways[:2], hosts):
            world.on(host, script, world.interface(host))

    return breaks


def between(host: str, script: str, undo: str) -> Breaks:
    """A script run on one stand-in, undone by another some seconds later, or when it is told to."""

    def breaks(world: StandIns, chance: random.Random) -> Mends:
        world.on(host, script)
        return _after(world, chance, lambda: world.on(host, undo))

    return breaks


def cut(one: str, other: str) -> Breaks:
    """The way between two sites cut for some seconds."""
    return told("cut", one, other, undo=("restore", one, other))


def told(*words: str, undo: tuple[str, ...] = ()) -> Breaks:
    """A fault of the world's own, undone by another some seconds later, if that is named."""

    def breaks(world: StandIns, chance: random.Random) -> Mends | None:
        world.fault(*words)
        return _after(world, chance, lambda: world.fault(*undo)) if undo else None

    return breaks


def rebound(world: StandIns, chance: random.Random) -> None:
    """A site behind an address that others share, whose ports are given out anew."""
    world.fault("nat", "south")
    world.fault("rebind", "south")


def served(host: str, program: str, service: str) -> Breaks:
    """What a stand-in offers killed, and started again some seconds later."""

    def breaks(world: StandIns, chance: random.Random) -> Mends:
        os.kill(world.serving(host, program), signal.SIGKILL)
        return _after(world, chance, lambda: world.fault("start", host, service))

    return breaks


def forwarder(number: signal.Signals) -> Breaks:
    """A signal for the process that holds a tunnel."""

    def breaks(world: StandIns, chance: random.Random) -> None:
        os.kill(world.forwarder(), number)

    return breaks


def port_taken(port: int) -> Breaks:
    """The process that holds a tunnel killed, and a port of its taken for some seconds before it is back."""

    def breaks(world: StandIns, chance: random.Random) -> Mends:
        os.kill(world.forwarder(), signal.SIGKILL)
        taken = socket.socket()
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        until(f"port {port} is free", lambda: _bound(taken, port), 1)
        taken.listen()
        return _after(world, chance, taken.close)

    return breaks


def port_taken_there(host: str, port: int, one: str, other: str) -> Breaks:
    """The connection of a tunnel broken, and a port that its host listens on taken before it can be made anew; given
    back some seconds later. The sites are those between which it is."""

    def breaks(world: StandIns, chance: random.Random) -> Mends:
        world.fault("cut", one, other)
        sshd_sessions(host, signal.SIGKILL)(world, chance)
        world.on(host, _TAKE, str(port))
        world.fault("restore", one, other)
        return _after(world, chance, lambda: world.on(host, "kill $(cat /run/taken); rm /run/taken"))

    return breaks


_TAKE = """
setsid python3 -I -S -c '
import os, pathlib, signal, socket, sys, time
taken = socket.socket()
taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
for last in [False] * 200 + [True]:
    try:
        taken.bind(("127.0.0.1", int(sys.argv[1])))
        break
    except OSError:
        if last:
            raise
        time.sleep(0.01)
taken.listen()
pathlib.Path("/run/taken.new").write_text(str(os.getpid()))
pathlib.Path("/run/taken.new").rename("/run/taken")
signal.pause()
' "$1" >/dev/null 2>/run/taken.err </dev/null &
tries=0
until [ -e /run/taken ]; do
  tries=$((tries+1)); [ $tries -lt 100 ] || { cat /run/taken.err >&2; exit 1; }
  sleep 0.05
done
rm /run/taken.err
"""
"""Listen on a port of 127.0.0.1. Argument: the port."""


def _bound(taken: socket.socket, port: int) -> bool:
    try:
        taken.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def sshd_sessions(host: str, number: signal.Signals, undo: signal.Signals | None = None) -> Breaks:
    """A signal for all that an sshd serves connections with, and not for the one that takes them, which is the host's
    own life; followed by another some seconds later, if that is named."""

    def breaks(world: StandIns, chance: random.Random) -> Mends | None:
        _listening, *serving = world.pids(host, "sshd")

        def send(one: signal.Signals) -> None:
            for pid in {*serving} & {*world.pids(host, "sshd")}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, one)

        send(number)
        return _after(world, chance, lambda: send(undo)) if undo is not None else None

    return breaks


def _after(world: StandIns, chance: random.Random, undo: Callable[[], object]) -> Mends:
    lasts = world.while_broken(chance)

    def mends() -> None:
        time.sleep(lasts)
        undo()

    return mends
