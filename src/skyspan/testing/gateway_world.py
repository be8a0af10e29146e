"""Sites in network namespaces: a gateway and a machine behind it on each side, and a router between the gateways.

Every machine is a set of namespaces (network, mounts, processes) with an empty /run, /etc/wireguard and /var/lib of its
own, and copies of strongSwan's folders, so that daemons and files are private to it and all of it vanishes with its
first process. Needs root.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from skyspan.contracts.host import Host
from skyspan.contracts.transport import (
    Command,
    Completed,
    Connection,
    OnOutput,
    Process,
    Spawner,
    StopLadder,
    Stream,
    Transport,
)
from skyspan.model.error import UnreachableError

_BOOT = """
mount --make-rprivate /
for place in /run /etc/wireguard /var/lib; do if [ -d $place ]; then mount -t tmpfs -o mode=755 none $place; fi; done
for place in /etc/swanctl /etc/strongswan.d; do
  if [ -d $place ]; then
    cp -a $place /run/own; mount -t tmpfs -o mode=755 none $place; cp -a /run/own/. $place/; rm -r /run/own
  fi
done
ip link set lo up
echo ready
exec sleep infinity
"""

_WIRES = """
wire() {
  ip link add "$1" type veth peer name eth0 netns "$2"
  ip address add "$3" dev "$1"
  ip link set "$1" addrgenmode none up
}
number=0
while [ $# -gt 0 ]; do
  number=$((number+1))
  wire "$1" "$2" 198.18.$number.1/24
  shift 2
done
echo 1 > /proc/sys/net/ipv4/ip_forward
"""

_GATEWAY = """
ip address add 198.18.$1.2/24 dev eth0
ip link set eth0 addrgenmode none up
ip route add default via 198.18.$1.1
ip link add lan type veth peer name eth0 netns "$2"
ip address add 10.$1.0.1/24 dev lan
ip link set lan addrgenmode none up
"""

_MACHINE = """
ip address add 10.$1.0.10/24 dev eth0
ip link set eth0 addrgenmode none up
ip route add default via 10.$1.0.1
"""

_IPV6 = """
own=$1 place=$2 lan=$3 number=$4
say() { ip address add "$1" dev "$2" nodad; ip address add "fe80::$own/64" dev "$2" nodad; }
case $place in
  router) say fd18:$number::1/64 "$lan"; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding;;
  gateway)
    say fd18:$number::2/64 eth0; say fd00:$number::1/64 lan
    ip -6 route add default via fd18:$number::1;;
  machine) say fd00:$number::10/64 eth0; ip -6 route add default via fd00:$number::1;;
esac
"""

_STATE = """
echo "# links"; ip -o link show | awk '{print $2, $3}' | sed 's/@[^ ]*//; s/NO-CARRIER,//' | sort
echo "# addresses"; ip -o address show scope global | awk '{print $2, $4}' | sort
echo "# routes"; ip route show table all | grep -v -e ff00:: -e fe80:: | sort
echo "# firewall"; nft -s list ruleset
echo "# forwarding"; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding
echo "# rules"; ip rule; ip -6 rule
echo "# files"; find /etc/wireguard /etc/swanctl /etc/strongswan.d /var/lib /run -mindepth 1 ! -type s | sort
echo "# sockets"; find /run -name 'charon*' -type s | sort
echo "# content"
find /etc/wireguard /etc/swanctl /etc/strongswan.d /var/lib -type f | sort | xargs -r sha256sum
echo "# processes"
all=$(for file in /proc/[0-9]*/cmdline; do tr '\\0\\n' '  ' < $file 2>/dev/null || :; echo; done)
printf '%s\\n' "$all" | cut -c1-60 | { grep -e wireguard-go -e charon -e bird -e /frr/ || :; } | sort
"""

_DIAL = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])).close()
"""

_LISTEN = """
import socket, sys
server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
held = []
while True:
    held.append(server.accept()[0])
"""


T = TypeVar("T")


async def together(work: Iterable[Awaitable[T]]) -> list[T]:
    """Do all at once and wait for all, so that nothing is left half made; then raise the first failure."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return [one for one in done if not isinstance(one, BaseException)]


class Start(Transport, Spawner, Protocol):
    """This machine, as a place to run and to start commands."""


class _Opened:
    """A connection that was opened and closed again."""

    async def send(self, data: bytes) -> None:
        """Nobody listens any more."""

    async def receive(self, limit: int = 65536) -> bytes:
        """The end."""
        return b""

    async def close(self) -> None:
        """It is."""


@dataclass(frozen=True)
class Machine:
    """A set of namespaces as a `Transport`: commands run inside them."""

    name: str
    pid: int
    here: Start

    def inside(self, command: Command) -> Command:
        """`command` to be run in the namespaces."""
        enter = ("nsenter", "-t", str(self.pid), "-m", "-n", "-p", "--")
        return replace(command, argv=(*enter, *command.argv))

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        """Run any command."""
        return await self.here.run(self.inside(command), on_output)

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        """Run a command that reads."""
        return await self.here.query(self.inside(command), on_output)

    async def dial(self, address: str, port: int, timeout_s: float) -> Connection:
        """Open a connection from here and close it again."""
        done = await self.run(Command((sys.executable, "-I", "-S", "-c", _DIAL, address, str(port), str(timeout_s))))
        if not done.ok:
            raise UnreachableError(f"{address}:{port}: {done.last_words(1)}")
        return _Opened()

    async def close(self) -> None:
        """It lives as long as its world."""

    async def sh(self, script: str, *arguments: str) -> str:
        """What a script prints; raises AssertionError when it fails."""
        done = await self.run(Command(("sh", "-euc", script, "sh", *arguments)))
        assert done.ok, f"{self.name}: {done.exit_code}: {done.last_words()}"
        return done.text()

    async def wire(self, script: str, *arguments: str) -> None:
        """Run a script in its network only, where the other machines' processes can still be named."""
        enter = ("nsenter", "-t", str(self.pid), "-n", "--")
        done = await self.here.run(Command((*enter, "sh", "-euc", script, "sh", *arguments)))
        assert done.ok, f"{self.name}: {done.last_words()}"

    async def pings(self, address: str, *options: str) -> bool:
        """Whether `address` answers one ping."""
        return (await self.run(Command(("ping", "-n", "-q", "-c", "1", "-W", "1", *options, address)))).ok

    async def state(self) -> str:
        """Links, addresses, routes, firewall, files and daemons, as text to compare."""
        return await self.sh(_STATE)


@dataclass
class GatewayWorld:
    """`east-gw` (198.18.1.2, behind it `east` 10.1.0.10) and `west-gw` (198.18.2.2, behind it `west` 10.2.0.10); more
    `sides` go on counting."""

    machines: Mapping[str, Machine]
    processes: list[Process]
    sides: tuple[str, ...] = ("east", "west")

    @classmethod
    async def make(cls, here: Start, sides: tuple[str, ...] = ("east", "west")) -> GatewayWorld:
        """Make the namespaces and the wires between them."""
        world = cls({}, [], sides)
        names = ("router", *(f"{side}-gw" for side in sides), *sides)
        try:
            made = dict(zip(names, await together(world._boot(name, here) for name in names), strict=True))
            world.machines = made
            ports = [text for side in sides for text in (side, str(made[f"{side}-gw"].pid))]
            await made["router"].wire(_WIRES, *ports)
            await together(world._wire_side(number, side) for number, side in enumerate(sides, 1))
        except BaseException:
            await world.close()
            raise
        return world

    @property
    def gateways(self) -> dict[str, Machine]:
        """The gateways by name."""
        return {name: machine for name, machine in self.machines.items() if name.endswith("-gw")}

    @property
    def hosts(self) -> dict[str, Host]:
        """The gateways as a composition names them."""
        return {f"{side}-gw": Host(f"{side}-gw", f"198.18.{number}.2") for number, side in enumerate(self.sides, 1)}

    async def add_ipv6(self) -> None:
        """IPv6 beside IPv4: gateways are fd18:N::2, the networks behind them fd00:N::/64 with machines at ::10."""
        for number, side in enumerate(self.sides, 1):
            await self.machines["router"].wire(_IPV6, "1", "router", side, str(number))
            await self.machines[f"{side}-gw"].wire(_IPV6, "2", "gateway", "", str(number))
            await self.machines[side].wire(_IPV6, "3", "machine", "", str(number))

    @property
    def hosts_by_ipv6(self) -> dict[str, Host]:
        """The gateways as a composition names them that knows their IPv6 addresses only."""
        return {f"{side}-gw": Host(f"{side}-gw", f"fd18:{number}::2") for number, side in enumerate(self.sides, 1)}

    async def listen(self, name: str, port: int) -> None:
        """Accept TCP connections to `port` on a machine, for as long as the world lives."""
        machine = self.machines[name]
        command = machine.inside(Command((sys.executable, "-I", "-S", "-c", _LISTEN, str(port))))
        await self._start(machine.here, command)

    async def state(self) -> dict[str, str]:
        """The state of the gateways, to compare."""
        gateways = self.gateways
        return dict(zip(gateways, await together(one.state() for one in gateways.values()), strict=True))

    async def close(self) -> None:
        """End every machine with all that runs in it."""
        for machine in self.machines.values():
            # The first process of its namespace: the kernel ends all others with it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(machine.pid, signal.SIGKILL)
        if self.machines:
            await asyncio.wait([asyncio.ensure_future(process.wait()) for process in self.processes], timeout=5)
        await together(process.stop() for process in self.processes)

    async def _wire_side(self, number: int, side: str) -> None:
        await self.machines[f"{side}-gw"].wire(_GATEWAY, str(number), str(self.machines[side].pid))
        await self.machines[side].wire(_MACHINE, str(number))

    async def _boot(self, name: str, here: Start) -> Machine:
        # It ends with whoever made it, however that one ends.
        bound = ("setpriv", "--pdeathsig", "KILL")
        unshare = ("unshare", "-m", "-n", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-euc", _BOOT)
        process = await self._start(here, Command((*bound, *unshare)))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return Machine(name, int(children[0]), here)

    async def _start(self, here: Start, command: Command) -> Process:
        ready = asyncio.Event()

        def listen(stream: Stream, data: bytes) -> None:
            if b"ready" in data:
                ready.set()

        process = await here.start(replace(command, ladder=StopLadder(0.0, 0.0)), listen)
        self.processes.append(process)
        ended = asyncio.ensure_future(process.wait())
        begun = asyncio.ensure_future(ready.wait())
        await asyncio.wait({ended, begun}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        assert ready.is_set(), ended.result().last_words() if ended.done() else "it does not start"
        ended.cancel()
        return process
