"""What links carry: those made by Skyspan beside the same daemons set up by hand, with plain `wg`, `swanctl` and
`tailscale`.

Both stand at the same time, each in network namespaces of its own, and are measured in turns: TCP from a machine behind
one gateway to a machine behind the other, and pings. Needs root and the daemons of `make tools` and
`tools/build tailnet`; a plane whose daemon is missing is shown as such.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

from bench.processes import BrokenRunError
from bench.report import SELF, Measure, Row
from bench.rounds import alternate
from bench.world import World
from skyspan.contracts.transport import Command, Stream
from skyspan.model.change import Action, Change
from skyspan.model.secret import Secret
from skyspan.networks.ipsec.provider import IpsecProvider
from skyspan.networks.ipsec.spec import IpsecSpec
from skyspan.networks.tailscale.provider import TailscaleProvider
from skyspan.networks.tailscale.spec import TailscaleSpec
from skyspan.networks.wireguard.provider import WireguardProvider
from skyspan.networks.wireguard.spec import WireguardSpec
from skyspan.testing.gateway_world import GatewayWorld, Machine
from skyspan.testing.provider_world import ProviderWorld
from skyspan.testing.tailnet_world import DOMAIN, SERVER, TailnetWorld
from skyspan.transports.local import LocalTransport

HAND = "by hand"
GUARDED = "by hand, with the same firewall"
PORT = 5001

RECEIVE = """
import socket, sys, time
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
connection = server.accept()[0]
view = memoryview(bytearray(1 << 18))
warm = time.monotonic() + float(sys.argv[2])
early = count = 0
while got := connection.recv_into(view):
    count += got
    begun = time.monotonic()
    if begun > warm:
        early = count
        break
while got := connection.recv_into(view):
    count += got
print((count - early) / (time.monotonic() - begun) / 1e6, count / 1e6)
"""
"""Print the MB/s that came, from some time after the start to the end, and all MB."""

SEND = """
import socket, sys, time
piece = bytes(1 << 17)
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
until = time.monotonic() + float(sys.argv[3])
while time.monotonic() < until:
    connection.sendall(piece)
connection.close()
"""

PINGS = 'ping -n -q -c 40 -i 0.005 -W 1 "$1"'

CLOCKS = "cat /proc/[0-9]*/stat 2>/dev/null || :"

DAEMONS = ("wireguard-go", "charon", "tailscaled")


class Carried(NamedTuple):
    """One measurement: MB/s, the daemons' processor time (both ends, ms per MB), the mean time of a ping (ms)."""

    megabytes_s: float
    cost: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Way:
    """From one machine through a link to another; `ends` are where the link's daemons run."""

    world: GatewayWorld
    start: Machine
    end: Machine
    address: str
    ends: tuple[Machine, ...]

    async def measure(self, seconds: float) -> Carried:
        """Send for that long, then ping."""
        ready = asyncio.Event()

        def listen(stream: Stream, data: bytes) -> None:
            ready.set()

        python = (sys.executable, "-I", "-S", "-c")
        receive = Command((*python, RECEIVE, str(PORT), str(seconds / 4)), timeout_s=60)
        receiving = asyncio.ensure_future(self.end.run(receive, listen))
        await asyncio.wait_for(ready.wait(), 20)
        before = await self._spent()
        sent = await self.start.run(Command((*python, SEND, self.address, str(PORT), str(seconds)), timeout_s=60))
        _demand(sent.ok, f"sending to {self.address}: {sent.last_words(2)}")
        rate, count = map(float, (await receiving).text().split()[-2:])
        spent = await self._spent() - before
        pinged = await self.start.sh(PINGS, self.address)
        found = re.search(r"= [\d.]+/([\d.]+)/", pinged)
        _demand(found is not None, f"no ping to {self.address} was answered")
        return Carried(rate, 1000 * spent / count, float(found[1]) if found else 0.0)

    async def rules(self) -> tuple[str, ...]:
        """What firewall each end has."""
        return tuple([await machine.sh("nft list ruleset") for machine in self.ends])

    async def guard(self, rules: tuple[str, ...]) -> None:
        """Give each end that firewall."""
        for machine, text in zip(self.ends, rules, strict=True):
            await machine.sh('printf "%s" "$1" | nft -f -', text)

    async def _spent(self) -> float:
        """Seconds of processor time that the daemons have had."""
        total = 0
        for machine in self.ends:
            for line in (await machine.sh(CLOCKS)).splitlines():
                name, _, rest = line.partition("(")[2].rpartition(")")
                if name in DAEMONS:
                    total += sum(map(int, rest.split()[11:13]))
        return total / os.sysconf("SC_CLK_TCK")


Maker = Callable[[World], Awaitable[Way]]


class Plane(NamedTuple):
    """One daemon, set up in both ways; `needs` are its programs, `device` is its interface when set up by hand, where
    Skyspan's firewall can stand there too."""

    title: str
    needs: tuple[str, ...]
    device: str
    own: Maker
    hand: Maker


def planes(world: World) -> list[Measure]:
    """Throughput and latency of every userspace plane."""
    return [measure for plane in PLANES.values() for measure in _plane(world, plane)]


def _plane(world: World, plane: Plane) -> list[Measure]:
    titles = (
        f"TCP through {plane.title}",
        f"processor time of {plane.title} for it, both ends",
        f"ping through {plane.title}",
    )
    path = _env(world)["PATH"]
    missing = [name for name in plane.needs if shutil.which(name, path=f"{path}:/usr/lib/ipsec") is None]
    if os.geteuid() != 0 or missing:
        note = f"not here: {', '.join(missing)}" if missing else "needs root"
        return [Measure(title, "", (Row(SELF, None, note=note),)) for title in titles]
    with asyncio.Runner() as runner:
        made = runner.run(_all(world, plane))
        try:
            # Short and many: what else the machine does then falls on all of a round, or on few rounds.
            seconds = 0.4 if world.quick else 0.8

            def measured(way: Way) -> Carried:
                work: Coroutine[Any, Any, Carried] = way.measure(seconds)
                return runner.run(work)

            subjects = {name: partial(measured, way) for name, way in made.items()}
            for subject in subjects.values():
                subject()
            found = alternate(subjects, world.rounds(24, quick=4))
        finally:
            runner.run(_close(made))
    return [
        Measure(title, unit, _rows(found, index), f"{SELF} >= 0.95 beside {HAND}", more_is_better=index == 0)
        for index, (title, unit) in enumerate(zip(titles, ("MB/s", "ms/MB", "ms"), strict=True))
    ]


def _rows(found: Mapping[str, list[Carried]], index: int) -> tuple[Row, ...]:
    """A row each; those by hand say how well Skyspan's does beside them in the same round: above 1 it does better."""
    own = [item[index] for item in found[SELF]]
    rows = []
    for name, items in found.items():
        values = [item[index] for item in items]
        shares = [one / other if index == 0 else other / one for one, other in zip(own, values, strict=True) if one]
        note = ""
        if name != SELF and shares:
            low, high = _between_which(shares)
            note = f"{SELF} beside it: {median(shares):.2f} ({low:.2f} to {high:.2f}, {len(shares)} rounds)"
        rows.append(Row(name, median(values), note=note))
    return tuple(rows)


def _between_which(values: Sequence[float]) -> tuple[float, float]:
    """What the true median lies between, 19 times in 20 (the sign test's interval)."""
    ordered, half = sorted(values), len(values) / 2
    away = math.sqrt(len(values))
    return ordered[max(0, math.floor(half - away))], ordered[min(len(values), math.ceil(half + away)) - 1]


async def _all(world: World, plane: Plane) -> dict[str, Way]:
    made: dict[str, Way] = {}
    try:
        for name, make in ((SELF, plane.own), (HAND, plane.hand)):
            made[name] = await make(world)
        if plane.device:
            made[GUARDED] = await plane.hand(world)
            rules = await made[SELF].rules()
            await made[GUARDED].guard(tuple(re.sub(r'"sky-\w+"', f'"{plane.device}"', text) for text in rules))
    except BaseException:
        await _close(made)
        raise
    return made


async def _close(made: Mapping[str, Way]) -> None:
    for way in made.values():
        await way.world.close()


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenRunError(what)


def _env(world: World) -> dict[str, str]:
    return {"PATH": f"{world.env['PATH']}:/usr/local/sbin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}


async def _sites(world: World, prepare: Callable[[GatewayWorld], Awaitable[None]]) -> Way:
    sites = await GatewayWorld.make(LocalTransport(_env(world)))
    try:
        await prepare(sites)
    except BaseException:
        await sites.close()
        raise
    return Way(sites, sites.machines["east"], sites.machines["west"], "10.2.0.10", tuple(sites.gateways.values()))


ENDS = MappingProxyType({"east-gw": "10.1.0.0/24", "west-gw": "10.2.0.0/24"})


def _between() -> dict[str, Any]:
    ends = [{"host": host, "prefixes": [prefix]} for host, prefix in ENDS.items()]
    return {"between": ends, "allow": ["icmp", f"tcp/{PORT}"]}


async def _own_wireguard(world: World) -> Way:
    async def prepare(sites: GatewayWorld) -> None:
        stage = ProviderWorld(world.fresh("wireguard"), sites.gateways, hosts=sites.hosts)
        spec = WireguardSpec.model_validate(_between())
        await WireguardProvider().apply(spec, Change(Action.CREATE), stage.writing())

    return await _sites(world, prepare)


WG_KEY = "umask 077; wg genkey > /run/key; wg pubkey < /run/key"

WG_LINK = """
LOG_LEVEL=error wireguard-go wg0 >/dev/null 2>&1
wg set wg0 listen-port 51820 private-key /run/key \\
  peer "$1" endpoint "$2:51820" allowed-ips "$3" persistent-keepalive 25
ip link set wg0 mtu 1420 up
ip route add "$3" dev wg0
echo 1 > /proc/sys/net/ipv4/ip_forward
"""


async def _hand_wireguard(world: World) -> Way:
    async def prepare(sites: GatewayWorld) -> None:
        keys = {name: (await gateway.sh(WG_KEY)).strip() for name, gateway in sites.gateways.items()}
        for name, other in (("east-gw", "west-gw"), ("west-gw", "east-gw")):
            await sites.machines[name].sh(WG_LINK, keys[other], sites.hosts[other].address, ENDS[other])

    return await _sites(world, prepare)


async def _own_ipsec(world: World) -> Way:
    async def prepare(sites: GatewayWorld) -> None:
        stage = ProviderWorld(world.fresh("ipsec"), sites.gateways, hosts=sites.hosts)
        spec = IpsecSpec.model_validate({**_between(), "mode": "userspace"})
        await IpsecProvider().apply(spec, Change(Action.CREATE), stage.writing())

    return await _sites(world, prepare)


SWANCTL = """
connections {{
  hand {{
    version = 2
    local_addrs = {here}
    remote_addrs = {there}
    proposals = {ike}
    local {{ auth = psk
      id = {name} }}
    remote {{ auth = psk
      id = {other} }}
    children {{
      net {{
        local_ts = {local}
        remote_ts = {remote}
        esp_proposals = {esp}
      }}
    }}
  }}
}}
secrets {{
  ike-hand {{
    secret = made-for-this-benchmark-alone
  }}
}}
"""

CHARON = """
printf '%s' "$1" > /etc/swanctl/conf.d/hand.conf
sed -i 's/load = no/load = yes/' /etc/strongswan.d/charon/kernel-libipsec.conf
echo 1 > /proc/sys/net/ipv4/ip_forward
setsid /usr/lib/ipsec/charon >/dev/null 2>&1 </dev/null &
until swanctl --stats >/dev/null 2>&1; do sleep 0.05; done
swanctl --load-all --noprompt >/dev/null 2>&1
"""


async def _hand_ipsec(world: World) -> Way:
    async def prepare(sites: GatewayWorld) -> None:
        wished = IpsecSpec.model_validate(_between())
        for name, other in (("east-gw", "west-gw"), ("west-gw", "east-gw")):
            text = SWANCTL.format(
                here=sites.hosts[name].address,
                there=sites.hosts[other].address,
                ike=wished.proposals[0],
                esp=wished.esp_proposals[0],
                name=name,
                other=other,
                local=ENDS[name],
                remote=ENDS[other],
            )
            await sites.machines[name].sh(CHARON, text)
        await sites.machines["east-gw"].sh("swanctl --initiate --child net --timeout 10 >/dev/null 2>&1")

    return await _sites(world, prepare)


async def _tailnet(world: World, prepare: Callable[[TailnetWorld, str], Awaitable[None]]) -> Way:
    tailnet = await TailnetWorld.make_tailnet(LocalTransport(_env(world)))
    try:
        await prepare(tailnet, await tailnet.key())
        address = (await tailnet.machines["db-1"].sh("tailscale ip -4")).strip()
        # Until they talk directly: the first packets go through the relay.
        await tailnet.machines["app-1"].sh('tailscale ping -c 20 --until-direct --timeout=2s "$1" >/dev/null', address)
    except BaseException:
        await tailnet.close()
        raise
    return Way(tailnet, tailnet.machines["app-1"], tailnet.machines["db-1"], address, tuple(tailnet.places.values()))


async def _own_tailscale(world: World) -> Way:
    async def prepare(tailnet: TailnetWorld, key: str) -> None:
        settings = {"hosts": ["app-1", "db-1"], "tailnet_domain": DOMAIN, "login_server": SERVER, "accept_dns": False}
        spec = TailscaleSpec.model_validate({**settings, "install": {"method": "none"}})
        folder: Path = world.fresh("tailscale")
        variables = {"TS_AUTHKEY": Secret(key)}
        stage = ProviderWorld(folder, tailnet.places, hosts=tailnet.hosts, variables=variables)
        await TailscaleProvider().apply(spec, Change(Action.CREATE), stage.writing())

    return await _tailnet(world, prepare)


async def _hand_tailscale(world: World) -> Way:
    async def prepare(tailnet: TailnetWorld, key: str) -> None:
        for name, machine in tailnet.places.items():
            join = 'tailscale up --login-server="$1" --auth-key="$2" --hostname="$3" --accept-dns=false'
            await machine.sh(join, SERVER, key, name)

    return await _tailnet(world, prepare)


PLANES: Mapping[str, Plane] = MappingProxyType(
    {
        "wireguard": Plane("wireguard-go", ("wg", "wireguard-go"), "wg0", _own_wireguard, _hand_wireguard),
        "ipsec": Plane("strongSwan's libipsec", ("swanctl", "charon"), "ipsec0", _own_ipsec, _hand_ipsec),
        "tailscale": Plane("tailscaled", ("tailscale", "tailscaled", "headscale"), "", _own_tailscale, _hand_tailscale),
    }
)
