"""The stand-ins of a rehearsal as those who break links reach them: their processes, scripts on them, what is on them.

Runs inside the rehearsal's world.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = "here"
"""The machine that Skyspan runs on."""

_STATE = """
ip -o link show | awk '{print "link", $2}' | sed 's/@.*//'
ip -o address show scope global | awk '{print "address", $2, $4}'
ip route show table all | grep -v -e ff00:: -e fe80:: | sed 's/^/route /'
ip rule | sed 's/^/rule /'
nft -s list ruleset | sed 's/^/firewall /'
cat /proc/sys/net/ipv4/ip_forward | sed 's/^/forwarding /'
{ find $1 ! -type s 2>/dev/null || :; } | sort | sed 's/^/file /'
"""

_PLACES = "/etc/wireguard /etc/swanctl /etc/strongswan.d /var/lib/skyspan"

_LISTENING = "ss -Hltn | awk '{print \"listening\", $4}' | sort"

_DAEMONS = ("wireguard-go", "charon", "charon-systemd", "bird", "bgpd", "tailscaled")


def run(*argv: str, check: bool = True) -> str:
    """What a command prints; raises with its last words when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class StandIns:
    """The stand-ins by their names; `gateways` are those that a link is made on. `lasts_s` is for how long, at least
    and at most, what only the world mends is left broken."""

    gateways: tuple[str, ...]
    lasts_s: tuple[float, float]

    def pids(self, host: str, *programs: str) -> list[int]:
        """The processes of a host, only those of the programs if any are named, the oldest first."""
        found = sorted(int(pid) for pid in run("ip", "netns", "pids", host).split())
        return [pid for pid in found if not programs or _program(pid) in programs]

    def on(self, host: str, script: str, *arguments: str, check: bool = True) -> str:
        """Run a script on a host, with its files."""
        inside = ("nsenter", "-t", str(self.pids(host)[0]), "-m", "-u", "-i", "-n", "-p", "--")
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; "
        return run(*inside, "sh", "-euc", path + script, "sh", *arguments, check=check)

    def signal(self, host: str, number: signal.Signals, *programs: str) -> None:
        """Send a signal to the daemons of a host, of which there must be one."""
        pids = self.pids(host, *programs)
        if not pids:
            raise RuntimeError(f"no {programs} runs on {host}")
        for pid in pids:
            os.kill(pid, number)

    def serving(self, host: str, program: str) -> int:
        """The process of a host that one of the world's own programs serves with."""
        [pid] = [pid for pid in self.pids(host) if any(word.endswith(program) for word in _arguments(pid))]
        return pid

    def forwarder(self) -> int:
        """The process that holds the tunnel."""
        [pid] = _forwarders()
        return pid

    def fault(self, *words: str) -> None:
        """Let the world make or mend a fault."""
        run(sys.executable, "-m", "skyspan.rehearsal", "fault", *words)

    def while_broken(self, chance: random.Random) -> float:
        """For how many seconds something is left broken."""
        return chance.uniform(*self.lasts_s)

    def interface(self, host: str) -> str:
        """The WireGuard interface of a host, if it has one."""
        return self.on(host, "wg show interfaces").split()[0] if self.pids(host, "wireguard-go") else "none"

    def state(self) -> dict[str, list[str]]:
        """What is on the gateways and here, to compare: links, addresses, routes, rules, firewall, files, processes,
        listeners."""
        found = {host: self._state_of(host) for host in self.gateways}
        folder = _forwarder_folder()
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []
        found[HERE] = [
            *run("sh", "-euc", _LISTENING).splitlines(),
            *(f"file {name}" for name in files),
            *("process forwarder" for _ in _forwarders()),
        ]
        return found

    def _state_of(self, host: str) -> list[str]:
        # A stand-in's files lie over this machine's: what is made here shows there.
        lines = self.on(host, _STATE, f"{_PLACES} /run").splitlines()
        ours = {f"file {path}" for path in run("find", *_PLACES.split(), check=False).splitlines()}
        lines = [line for line in lines if line not in ours]
        programs = [_program(pid) for pid in self.pids(host)]
        if "tailscaled" in programs:
            # It keeps chains of its own, and listens where it likes.
            lines = [line for line in lines if "firewall " not in line]
        else:
            lines += self.on(host, _LISTENING).splitlines()
        return lines + sorted(f"process {name}" for name in programs if name not in ("sshd", ""))

    def sessions(self) -> dict[str, int]:
        """How many sessions and daemons each gateway has, and how many forwarders there are here; one of each is
        right."""
        found = {f"{HERE}: forwarder": len(_forwarders())}
        for host in self.gateways:
            for program in _DAEMONS:
                if pids := self.pids(host, program):
                    found[f"{host}: {program}"] = len(pids)
            if self.pids(host, "charon", "charon-systemd"):
                said = self.on(host, "swanctl --list-sas --raw", check=False)
                found[f"{host}: IKE_SA"] = said.count("state=ESTABLISHED")
        return found


def _forwarder_folder() -> Path:
    return Path(os.environ["SKYSPAN_HOME"]) / "forwarders"


def _forwarders() -> list[int]:
    """The processes whose last argument is a folder of forwarders, as only theirs is."""
    beginning = f"{_forwarder_folder()}/"
    everything = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [pid for pid in everything if _arguments(pid)[-1].startswith(beginning)]


def _arguments(pid: int) -> list[str]:
    """One of which is empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return [""]


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
