"""Breaks the links of a deployment, one fault after the other, beside its supervisor and a separate meter.

Runs inside a rehearsal's world: `python link_faults.py KIND SEED SECONDS` deploys nothing itself but what `skyspan up`
makes, and prints one JSON document with what was broken, when that was told and when traffic passed again. Traffic is
judged by pings between the machines behind the gateways, twenty a second in each direction, which know nothing of
Skyspan.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVERY_S, GAP_S, CALM_S, GIVEN_UP_S = 0.05, 0.3, 1.5, 75.0
"""Between two pings; what counts as an outage; how long all must be well before the next fault; when to give up."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`breaks` makes it and returns what mends it, if only the world can: then repair is timed from the mending.

    `bound_s` is within how many seconds traffic passes again. `causes` are those that the diagnosis may name. One that
    `heals` may be over before anybody notices; one that is `quiet` is none of the link's, which is left alone."""

    name: str
    breaks: Callable[[World, random.Random], Callable[[], None] | None]
    bound_s: float
    causes: tuple[str, ...] = ()
    heals: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """A link of an example, its gateways, and who pings whom to measure it; `changes` replace texts of the example's
    composition."""

    example: str
    gateways: tuple[str, ...]
    pings: tuple[tuple[str, str], ...]
    faults: tuple[Fault, ...]
    session: str = ""
    changes: tuple[tuple[str, str], ...] = ()


def run(*argv: str, check: bool = True, give: str | None = None) -> str:
    """What a command prints; raises with its last words when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, input=give, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


@dataclass
class World:
    """The stand-ins, by their names."""

    kind: Kind

    def pids(self, host: str, *programs: str) -> list[int]:
        """The processes of a host, only those of the programs if any are named, the oldest first."""
        found = sorted(int(pid) for pid in run("ip", "netns", "pids", host).split())
        return [pid for pid in found if not programs or _program(pid) in programs]

    def on(self, host: str, script: str, *arguments: str, check: bool = True) -> str:
        """Run a script on a host, with its files."""
        inside = ("nsenter", "-t", str(self.pids(host)[0]), "-m", "-u", "-i", "-n", "-p", "--")
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; "
        return run(*inside, "sh", "-euc", path + script, "sh", *arguments, check=check)

    def kill(self, host: str, *programs: str) -> None:
        """Kill daemons of a host without a word."""
        pids = self.pids(host, *programs)
        if not pids:
            raise RuntimeError(f"no {programs} runs on {host}")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def fault(self, *words: str) -> None:
        """Let the world make or mend a fault."""
        run(sys.executable, "-m", "skyspan.rehearsal", "fault", *words)

    def interface(self, host: str) -> str:
        """The WireGuard interface of a host."""
        return self.on(host, "wg show interfaces").split()[0]

    def state(self) -> dict[str, list[str]]:
        """What is on the gateways, to compare: links, addresses, routes, rules, firewall, files, processes."""
        script = """
        ip -o link show | awk '{print "link", $2}' | sed 's/@.*//'
        ip -o address show scope global | awk '{print "address", $2, $4}'
        ip route show table all | grep -v -e ff00:: -e fe80:: | sed 's/^/route /'
        ip rule | sed 's/^/rule /'
        nft -s list ruleset | sed 's/^/firewall /'
        cat /proc/sys/net/ipv4/ip_forward | sed 's/^/forwarding /'
        places="/etc/wireguard /etc/swanctl /etc/strongswan.d /var/lib/skyspan /run"
        { find $places ! -type s 2>/dev/null || :; } | sort | sed 's/^/file /'
        """
        found = {host: self.on(host, script).splitlines() for host in self.kind.gateways}
        if self.kind.session == "tailnet":
            # Its own daemon makes and keeps chains of its own.
            found = {host: [line for line in lines if "firewall " not in line] for host, lines in found.items()}
        for host, lines in found.items():
            programs = (_program(pid) for pid in self.pids(host))
            lines += sorted(f"process {name}" for name in programs if name not in ("sshd", ""))
        return found

    def sessions(self) -> dict[str, int]:
        """How many sessions and daemons each gateway has; one of each is right."""
        found: dict[str, int] = {}
        for host in self.kind.gateways:
            for program in ("wireguard-go", "charon", "charon-systemd", "bird", "bgpd", "tailscaled"):
                if pids := self.pids(host, program):
                    found[f"{host}: {program}"] = len(pids)
            if self.kind.session == "ike":
                said = self.on(host, "swanctl --list-sas --raw", check=False)
                found[f"{host}: IKE_SA"] = said.count("state=ESTABLISHED")
        return found


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


# Faults ----------------------------------------------------------------------------------------------------------


def killed(*programs: str, hosts: int = 1) -> Callable[[World, random.Random], None]:
    """Daemons of one gateway or more, killed."""

    def breaks(world: World, chance: random.Random) -> None:
        having = [host for host in world.kind.gateways if world.pids(host, *programs)]
        for host in chance.sample(having, hosts):
            world.kill(host, *programs)

    return breaks


def scripted(script: str, hosts: int = 1) -> Callable[[World, random.Random], None]:
    """A script run on gateways; `$1` is the WireGuard interface where there is one."""

    def breaks(world: World, chance: random.Random) -> None:
        for host in chance.sample(world.kind.gateways[:2], hosts):
            wire = world.interface(host) if world.pids(host, "wireguard-go") else "none"
            world.on(host, script, wire)

    return breaks


def cut(one: str, other: str) -> Callable[[World, random.Random], Callable[[], None]]:
    """The way between two sites cut for some seconds."""

    def breaks(world: World, chance: random.Random) -> Callable[[], None]:
        world.fault("cut", one, other)
        lasts = chance.uniform(4.0, 8.0)

        def mends() -> None:
            time.sleep(lasts)
            world.fault("restore", one, other)

        return mends

    return breaks


def told(*words: str, undo: tuple[str, ...] = ()) -> Callable[[World, random.Random], Callable[[], None] | None]:
    """A fault of the world's own, undone by another some seconds later, if that is named."""

    def breaks(world: World, chance: random.Random) -> Callable[[], None] | None:
        world.fault(*words)
        lasts = chance.uniform(4.0, 8.0)

        def mends() -> None:
            time.sleep(lasts)
            world.fault(*undo)

        return mends if undo else None

    return breaks


def rebound(world: World, chance: random.Random) -> None:
    """A site behind an address that others share, whose ports are given out anew."""
    world.fault("nat", "south")
    world.fault("rebind", "south")


def served(world: World, chance: random.Random) -> Callable[[], None]:
    """The control server of a tailnet killed, for some seconds."""
    world.kill("tailnet-ctl", "headscale")

    def mends() -> None:
        time.sleep(chance.uniform(4.0, 8.0))
        world.fault("start", "tailnet-ctl", "headscale")

    return mends


FORGET_PEER = 'for key in $(wg show "$1" peers); do wg set "$1" peer "$key" remove; done'
ASTRAY = 'for key in $(wg show "$1" peers); do wg set "$1" peer "$key" endpoint 192.0.2.77:9; done'
NARROWED = 'for key in $(wg show "$1" peers); do wg set "$1" peer "$key" allowed-ips 192.0.2.78/32; done'
UNROUTED = 'ip route show dev "$1" proto 241 | while read -r to rest; do ip route delete "$to" dev "$1"; done'

WIREGUARD = (
    Fault("daemon killed", killed("wireguard-go"), 5, ("interface-missing", "daemon-down")),
    Fault(
        "way cut", cut("office", "north"), 5, ("handshake-missing", "stale-endpoint", "unreachable", "forward-dropped")
    ),
    Fault("interface deleted", scripted('ip link delete "$1"'), 5, ("interface-missing",)),
    Fault("interface down", scripted('ip link set "$1" down'), 5, ("interface-missing",)),
    Fault("peers forgotten", scripted(FORGET_PEER), 10, ("authentication",)),
    Fault("routes removed", scripted(UNROUTED), 10, ("route-missing",)),
    Fault("AllowedIPs lost", scripted(NARROWED), 10, ("allowed-ips",)),
    Fault("endpoints astray", scripted(ASTRAY, hosts=2), 12, heals=True),
    Fault("both daemons killed", killed("wireguard-go", hosts=2), 10, ("interface-missing", "daemon-down")),
    Fault("forwarding off", scripted("echo 0 > /proc/sys/net/ipv4/ip_forward"), 10, ("forward-dropped",)),
    Fault("packets lost", told("loss", "office", "north", "20", undo=("restore", "office", "north")), 5, heals=True),
    Fault("NAT bound anew", rebound, 10, heals=True),
    Fault("host rebooted", told("reboot", "north-gw"), 20),
    Fault(
        "host renumbered",
        told("renumber", "north-gw", "203.0.113.77", undo=("renumber", "north-gw", "203.0.113.10")),
        15,
        heals=True,
    ),
)
TERMINATED = (
    "swanctl --terminate --ike \"$(swanctl --list-conns --raw | grep -o 'sky-[a-z0-9]*' | head -1)\" --force >/dev/null"
)
UNLOADED = """
name=$(swanctl --list-conns --raw | grep -o 'sky-[a-z0-9]*' | head -1)
conf=/etc/swanctl/conf.d/$name.conf
mv $conf /run/away; swanctl --load-conns >/dev/null; mv /run/away $conf
swanctl --terminate --ike "$name" --force >/dev/null || :
"""
IPSEC = (
    Fault("charon killed", killed("charon", "charon-systemd"), 10, ("daemon-down",)),
    Fault("way cut", cut("east", "west"), 10, ("unreachable", "handshake-missing")),
    Fault("session ended", scripted(TERMINATED), 10, heals=True),
    Fault("connection unloaded", scripted(UNLOADED), 10, ("interface-missing",)),
    Fault("both charons killed", killed("charon", "charon-systemd", hosts=2), 15, ("daemon-down",)),
)
BGP = (
    Fault("BIRD killed", killed("bird"), 10, ("daemon-down",)),
    Fault("way cut", cut("east", "west"), 15),
    Fault("wireguard-go killed", killed("wireguard-go"), 15, ("interface-missing", "daemon-down")),
    Fault("FRR killed", killed("bgpd", "zebra", "bfdd", "staticd", "watchfrr"), 10, ("daemon-down",)),
    Fault("bgpd killed", killed("bgpd"), 10, ("daemon-down",)),
)
SIDES = (("east-app", "10.2.0.10"), ("west-app", "10.1.0.10"))
TAILSCALE = (
    Fault("tailscaled killed", killed("tailscaled"), 20, ("daemon-down",)),
    Fault("server down", served, 1, heals=True, quiet=True),
    Fault("way cut", cut("office", "cloud"), 15),
    Fault("taken down", scripted("tailscale down"), 15, ("interface-missing",)),
)
KINDS = {
    "wireguard": Kind(
        "hub",
        ("office-gw", "north-gw", "south-gw"),
        (
            ("office-app", "10.2.0.10"),
            ("north-app", "10.1.0.10"),
            ("office-app", "10.3.0.10"),
            ("south-app", "10.1.0.10"),
        ),
        WIREGUARD,
    ),
    "ipsec": Kind("ipsec", ("east-gw", "west-gw"), SIDES, IPSEC, "ike"),
    "bgp": Kind(
        "bgp",
        ("east-gw", "west-gw"),
        SIDES,
        BGP,
        # All ways by BGP alone.
        changes=(("allow: [icmp, tcp/179, udp/3784]\n", "allow: [icmp, tcp/179, udp/3784]\n      routes: none\n"),),
    ),
    "tailscale": Kind("tailnet", ("app-1", "db-1"), (("app-1", "db-1"), ("db-1", "app-1")), TAILSCALE, "tailnet"),
}


def schedule(kind: str, seed: int, count: int, only: str = "") -> list[Fault]:
    """Every fault once, in the order of the table, then as chance has it (pure); `only` those with that name."""
    faults = [fault for fault in KINDS[kind].faults if only in fault.name]
    chance = random.Random(f"{kind} {seed}")
    return [*faults, *(chance.choice(faults) for _ in range(count))][:count]


# Measuring -------------------------------------------------------------------------------------------------------


def ping_for_ever(target: str) -> None:
    """Send a ping every EVERY_S, and print the time of sending of each that is answered."""
    wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    mine, due = os.getpid() & 0xFFFF, time.monotonic()
    while True:
        wait = due - time.monotonic()
        if wait <= 0:
            due = max(due + EVERY_S, time.monotonic() - 1)
            body = struct.pack("!d", time.monotonic())
            head = struct.pack("!BBHHH", 8, 0, 0, mine, 0)
            with contextlib.suppress(OSError):
                wire.sendto(struct.pack("!BBHHH", 8, 0, _sum(head + body), mine, 0) + body, (target, 0))
            continue
        wire.settimeout(wait)
        try:
            heard = wire.recv(200)[20:]
        except TimeoutError:
            continue
        if len(heard) >= 16 and heard[0] == 0 and struct.unpack("!H", heard[4:6])[0] == mine:
            print(struct.unpack("!d", heard[8:16])[0], flush=True)


def _sum(data: bytes) -> int:
    """The checksum of RFC 1071."""
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


@dataclass
class Heard:
    """What a process printed, line by line, with the time at which each line came."""

    process: subprocess.Popen[str]
    lines: list[tuple[float, str]] = field(default_factory=list)

    @classmethod
    def of(cls, *argv: str) -> Heard:
        """Start it and listen."""
        heard = cls(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        threading.Thread(target=heard._listen, daemon=True).start()
        return heard

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line))

    def documents(self, since: float = 0.0) -> Iterator[tuple[float, dict[str, Any]]]:
        """The JSON lines that came after a time."""
        return ((at, json.loads(line)) for at, line in list(self.lines) if at >= since)

    def end(self) -> None:
        """Ask it to end, and wait for that."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        time.sleep(0.1)


def answered(pinging: Heard, since: float) -> list[float]:
    """When the pings were sent that got an answer, from a time on."""
    return [sent for _, line in list(pinging.lines)[-4000:] if (sent := float(line)) >= since]


def passes_again(times: Sequence[float], now: float) -> float | None:
    """Since when pings are answered without a gap; None while they are not (pure)."""
    if not times or now - times[-1] > GAP_S:
        return None
    begin = times[-1]
    for sent in reversed(times):
        if begin - sent > GAP_S:
            break
        begin = sent
    return begin


def until(what: str, holds: Callable[[], Any], within_s: float = GIVEN_UP_S) -> None:
    """Wait for a condition."""
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {within_s:.0f} s")
        time.sleep(0.05)


@dataclass
class Trial:
    """The link under test with all that looks at it."""

    world: World
    supervisor: Heard
    pings: list[Heard]
    routes: list[Heard]
    sessions: dict[str, int]
    chance: random.Random

    def health(self) -> dict[str, str]:
        """What the supervisor last told of each link."""
        told = {}
        for _, item in self.supervisor.documents():
            if item.get("what") in ("up", "down", "degraded", "unknown"):
                told[item["link"]] = item["what"]
        return told

    def withdrawn(self, since: float) -> list[tuple[float, str]]:
        """When a gateway lost the way to the other side's machines."""
        lost = ("Deleted 10.1.0.0/24", "Deleted 10.2.0.0/24")
        return sorted(
            (at, line) for heard in self.routes for at, line in heard.lines if at >= since and line.startswith(lost)
        )

    def calm(self) -> bool:
        """Whether traffic passes in both directions and the supervisor says so."""
        now = time.monotonic()
        since = [passes_again(answered(pings, now - 10), now) for pings in self.pings]
        well = all(begin is not None and now - begin >= CALM_S for begin in since)
        return well and all(health == "up" for health in self.health().values())

    def suffer(self, fault: Fault) -> dict[str, Any]:
        """Break, wait for the repair, tell."""
        began = time.monotonic()
        mends = fault.breaks(self.world, self.chance)
        mended = began
        if mends is not None:
            mends()
            mended = time.monotonic()
        try:
            until(f"{fault.name}: an outage", lambda: self._gap(began) is not None, 3 if fault.heals else 15)
        except TimeoutError:
            if not fault.heals:
                raise
            mended = time.monotonic()
        until(f"{fault.name}: repair", self.calm)
        # How long it takes to cut a way is known from the pings alone.
        hit = began if mends is None else self._gap(began) or began
        again = max(self._again(pings, began) for pings in self.pings)
        told = [(at, item) for at, item in self.supervisor.documents(began)]
        return {
            "fault": fault.name,
            "detected_s": next((round(at - hit, 2) for at, item in told if item.get("what") == "down"), None),
            "withdrawn_s": next((round(at - hit, 2) for at, line in self.withdrawn(began)), None),
            "repaired_s": round(max(0.0, again - mended), 2),
            "outage_s": round(again - hit, 2),
            "bound_s": fault.bound_s,
            "causes": list(dict.fromkeys(item["cause"] for _, item in told if item.get("what") == "cause")),
            "named": list(fault.causes),
            "quiet": fault.quiet,
            "load": round(os.getloadavg()[0] / (os.cpu_count() or 1), 1),
            "told": [
                {"t": round(at - began, 2), **{k: v for k, v in item.items() if k not in ("at", "hint")}}
                for at, item in told
            ],
            "sessions": self._settled(),
        }

    def _again(self, pings: Heard, began: float) -> float:
        """Since when pings are answered, now that they are."""
        times = answered(pings, began)
        since = passes_again(times, times[-1])
        assert since is not None
        return since

    def _settled(self) -> dict[str, int]:
        """The sessions and daemons, when they are as before, or after some seconds in which they may come to be."""
        with contextlib.suppress(TimeoutError):
            until("one session each", lambda: self.world.sessions() == self.sessions, 8)
        return self.world.sessions()

    def _gap(self, began: float) -> float | None:
        now = time.monotonic()
        for pings in self.pings:
            times = [began, *answered(pings, began), now]
            for one, other in itertools.pairwise(times):
                if other - one > GAP_S:
                    return one
        return None


def main(kind_name: str, seed: int, seconds: float, count: int, only: str = "") -> None:
    """Deploy, break, repair, destroy; the document on standard output."""
    kind, here = KINDS[kind_name], Path(__file__).resolve().parents[2]
    example, name = here / "examples" / kind.example, kind.example
    skyspan = (sys.executable, "-m", "skyspan")
    world = World(kind)
    before = world.state()
    composition = Path(os.environ["HOME"]) / "skyspan.yaml"
    text = (example / "skyspan.yaml").read_text()
    for old, new in kind.changes:
        assert old in text
        text = text.replace(old, new)
    composition.write_text(text)
    run(*skyspan, "up", "-f", str(composition), "--yes")
    supervisor = Heard.of(*skyspan, "--json", "watch", name)
    meter = Heard.of(*skyspan, "--json", "watch", name, "--no-repair")
    pinging = (sys.executable, "-I", "-S", __file__, "ping")
    targets = [
        (host, world.on(to, "tailscale ip -4").strip() if to in kind.gateways else to) for host, to in kind.pings
    ]
    pings = [Heard.of("ip", "netns", "exec", host, *pinging, to) for host, to in targets]
    routes = [
        Heard.of("ip", "netns", "exec", host, "stdbuf", "-oL", "ip", "-o", "monitor", "route")
        for host in kind.gateways[:2]
    ]
    alone = world.sessions()
    trial = Trial(world, supervisor, pings, routes, alone, random.Random(f"{kind_name} {seed} chance"))
    results, failed = [], ""
    begun = time.monotonic()
    try:
        until("the link is up and watched", lambda: trial.health() and trial.calm())
        begun = time.monotonic()
        plan = schedule(kind_name, seed, count, only)
        pause = seconds / max(1, len(plan))
        for number, fault in enumerate(plan):
            due = begun + number * pause
            time.sleep(max(trial.chance.uniform(0.2, 1.2), due - time.monotonic()))
            results.append(trial.suffer(fault))
            print(f"{kind_name}: {results[-1]['fault']}: {results[-1]['repaired_s']} s", file=sys.stderr, flush=True)
        while seconds and time.monotonic() < begun + seconds:
            time.sleep(0.2)
        lasted = time.monotonic() - begun
    except (TimeoutError, RuntimeError) as error:
        failed, lasted = f"{error}; {trial.health()}; {list(supervisor.documents())[-12:]}", time.monotonic() - begun
    finally:
        for heard in (supervisor, meter, *pings, *routes):
            heard.end()
    run(*skyspan, "destroy", name, "--yes")
    after = world.state()
    left = {
        host: sorted(
            ((Counter(after[host]) - Counter(before[host])) + (Counter(before[host]) - Counter(after[host]))).elements()
        )
        for host in after
    }
    document = {
        "kind": kind_name, "seed": seed, "lasted_s": round(lasted, 1), "faults": results, "failed": failed,
        "sessions": alone, "left": {host: lines for host, lines in left.items() if lines},
        "meter": _last(meter.documents()), "supervisor": _last(supervisor.documents()),
    }  # fmt: skip
    print(json.dumps(document))


def _last(documents: Iterable[tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    *_, (_, last) = documents
    return last


if __name__ == "__main__":
    if sys.argv[1] == "ping":
        with contextlib.suppress(KeyboardInterrupt):
            ping_for_ever(sys.argv[2])
    else:
        main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
