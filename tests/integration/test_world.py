"""The stand-in world by itself: what it gives, what cannot leave it, and that nothing remains."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.world_shell import WorldShell, world_shell

pytestmark = pytest.mark.integration

SECTION: Mapping[str, Any] = {
    "sites": {
        "cloud": {"prefix": "198.51.100.0/24"},
        "lab": {"prefix": "203.0.113.0/24"},
        "office": {"prefix": "192.0.2.0/24"},
    },
    "aws": {"site": "cloud"},
    "hosts": {
        "cloud-gw": {"site": "cloud", "stands_for": {"aws_instance": {"Name": "cloud-gw"}}},
        "app": {"stands_for": {"aws_instance": {"Name": "app"}}},
        "lab-gw": {"site": "lab", "address": "203.0.113.10", "lans": {"lab": "192.168.77.1/24"}, "forwards": True},
        "lab-svc": {
            "lans": {"lab": "192.168.77.10/24"},
            "routes": [{"to": "0.0.0.0/0", "via": "192.168.77.1"}],
        },
        "inventory": {"site": "office", "address": "192.0.2.10", "services": {"http": {"kind": "recorder"}}},
    },
    "secrets": {"ssh_key": "generated", "token": {"value": "pretended"}},
    "inputs": {"ssh_public_key": {"public_key_of": "ssh_key"}, "count": 3},
}

SSH = "ssh -o UserKnownHostsFile=$SKYSPAN_KNOWN_HOSTS -o BatchMode=yes -i /run/skyspan/keys/ssh_key"


PLAIN: Mapping[str, Any] = {
    "sites": {"lab": {"prefix": "203.0.113.0/24"}},
    "hosts": {"lab-gw": {"site": "lab", "address": "203.0.113.10"}},
}
"""A world that is up at once, for what is about its beginning and its end."""


def described(folder: Path, section: Mapping[str, Any]) -> Path:
    stages = {"one": {"uses": "command", "with": {"run": "true"}}}
    text = json.dumps({"skyspan": 1, "name": "world", "stages": stages, "rehearsal": section})
    (folder / "skyspan.yaml").write_text(text)
    return folder


@pytest.fixture
def composition(tmp_path: Path) -> Path:
    return described(tmp_path, PLAIN)


@pytest.fixture
def begin(composition: Path) -> Callable[..., subprocess.Popen[str]]:
    def start(*command: str, **more: Any) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "skyspan", "rehearse", "exec", "-f", str(composition), "--", *command]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, **more)

    return start


@pytest.fixture(scope="module")
def within(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorldShell]:
    """Runs a shell script in the one world of these tests and gives what it printed; it has to succeed."""
    outer = {**os.environ, "AWS_PROFILE": "production", "AWS_SECRET_ACCESS_KEY": "real", "SSH_AUTH_SOCK": "/x"}
    with world_shell(described(tmp_path_factory.mktemp("world"), SECTION), outer) as shell:
        yield shell


def test_the_exit_status_is_that_of_the_command(begin: Callable[..., subprocess.Popen[str]]) -> None:
    process = begin("sh", "-c", "exit 7")
    process.communicate(timeout=60)
    assert process.returncode == 7


def test_a_command_that_does_not_exist_is_said_as_a_shell_says_it(begin: Callable[..., subprocess.Popen[str]]) -> None:
    process = begin("no-such-program")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 127
    assert "cannot run no-such-program" in err


def test_hosts_are_reached_by_ssh_with_the_generated_key_and_only_with_known_keys(
    within: WorldShell,
) -> None:
    said = within(f"""
        {SSH} root@203.0.113.10 'hostname; ping -c1 -W2 192.168.77.10 >/dev/null && echo lan'
        {SSH} -o "ProxyCommand={SSH} -W %h:%p root@203.0.113.10" root@192.168.77.10 hostname
        ssh -o UserKnownHostsFile=/dev/null -o BatchMode=yes -i /run/skyspan/keys/ssh_key root@203.0.113.10 true \\
          2>&1 || echo unknown key refused
    """)
    assert said.splitlines()[:3] == ["lab-gw", "lan", "lab-svc"]
    assert said.rstrip().endswith("unknown key refused")


def test_what_a_host_writes_never_reaches_this_machine(within: WorldShell) -> None:
    name = f"/etc/only-in-the-world-{os.getpid()}"
    said = within(f"""
        {SSH} root@203.0.113.10 'touch {name}; echo -n > /etc/hostname; ls -A /root /home; ls {name}'
        {SSH} -o "ProxyCommand={SSH} -W %h:%p root@203.0.113.10" root@192.168.77.10 'ls {name} || echo not here'
    """)
    assert name in said
    assert "not here" in said
    assert not Path(name).exists()
    assert Path("/etc/hostname").read_text().strip()


def test_a_host_sees_its_own_processes_only(within: WorldShell) -> None:
    said = within(f"{SSH} root@203.0.113.10 'cat /proc/1/cmdline; echo; ls -d /proc/[0-9]* | wc -l'")
    assert "firstprocess" in said
    assert int(said.split()[-1]) < 12


def test_no_packet_leaves_the_world(within: WorldShell) -> None:
    said = within("""
        ip route
        python3 - <<'END'
import socket
for address in ("1.1.1.1", "169.254.169.254", "192.168.0.1", "10.0.0.1"):
    try:
        socket.create_connection((address, 80), timeout=2)
        print("OUT", address)
    except OSError as error:
        print(address, error.strerror)
END
        ls /run
    """)
    assert "default" not in said
    assert "OUT" not in said
    assert said.count("Network is unreachable") == 4
    assert set(said.split("\n")[-4:]) >= {"netns", "skyspan"}


def test_the_inner_environment_has_stand_ins_and_no_credentials(within: WorldShell) -> None:
    said = within("env; cat $SKYSPAN_REHEARSAL_SECRETS; stat -c %a $SKYSPAN_REHEARSAL_SECRETS")
    assert "production" not in said
    assert "AWS_SECRET_ACCESS_KEY=rehearsal" in said
    assert "SSH_AUTH_SOCK" not in said
    assert "SKYSPAN_INPUT_ssh_public_key=ssh-ed25519 AAAA" in said
    assert "SKYSPAN_INPUT_count=3" in said
    assert '"token": "pretended"' in said
    assert said.rstrip().endswith("600")
    assert "SKYSPAN_WORLD=" not in said


def test_a_service_remembers_what_it_was_told(within: WorldShell) -> None:
    said = within("""
        curl -sf http://inventory:8080/deployments -d '{"cidr": "10.0.0.0/8"}' > /dev/null
        curl -sf http://192.0.2.10:8080/requests
    """)
    (request,) = [one for one in json.loads(said) if one["path"] == "/deployments"]
    assert (request["method"], request["path"]) == ("POST", "/deployments")
    assert json.loads(request["body"]) == {"cidr": "10.0.0.0/8"}


def test_sites_can_be_cut_and_mended(within: WorldShell) -> None:
    said = within(f"""
        fault() {{ {sys.executable} -m skyspan.rehearsal fault "$@"; }}
        probe() {{ ping -c1 -W1 203.0.113.10 >/dev/null && echo reached || echo lost; }}
        probe; fault cut control lab; probe; fault restore control lab; probe
        fault mtu lab 1000; ping -c1 -W1 -s 1200 203.0.113.10 >/dev/null && echo long || echo short; probe
        fault loss control lab 100; probe; fault clear; probe
        fault melt || echo refused
    """)
    words = [line for line in said.splitlines() if not line.startswith("{")]
    assert words == ["reached", "lost", "reached", "short", "reached", "lost", "reached", "refused"]


def test_a_site_behind_nat_is_reached_by_skyspan_and_calls_by_a_shared_address(within: WorldShell) -> None:
    said = within(f"""
        {sys.executable} -m skyspan.rehearsal fault nat lab >/dev/null
        ping -c1 -W1 203.0.113.10 >/dev/null && echo managed
        {SSH} root@203.0.113.10 'curl -sf http://192.0.2.10:8080/hello -d 1 >/dev/null && echo called'
        ip netns exec inventory ping -c1 -W1 203.0.113.10 >/dev/null || echo not called
        {sys.executable} -m skyspan.rehearsal fault clear >/dev/null
    """)
    assert [line for line in said.splitlines() if not line.startswith("{")] == ["managed", "called", "not called"]


def test_a_userspace_tunnel_comes_up_on_a_host(within: WorldShell) -> None:
    said = within(f"""
        {SSH} root@203.0.113.10 'wireguard-go wg0 >/dev/null 2>&1; wg show wg0 | head -1; ls /run/wireguard'
    """)
    assert "interface: wg0" in said
    assert "wg0.sock" in said


def test_several_worlds_at_once_do_not_meet(begin: Callable[..., subprocess.Popen[str]]) -> None:
    script = "echo here > /run/skyspan/tmp/mark; ping -c2 -i0.2 -W2 203.0.113.10 >/dev/null; ls /run/skyspan/tmp"
    worlds = [begin("bash", "-euc", script) for _ in range(3)]
    for world in worlds:
        out, err = world.communicate(timeout=120)
        assert (world.returncode, out) == (0, "mark\n"), err


def test_nothing_remains_of_a_killed_world(begin: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    before = _traces()
    world = begin("sh", "-c", f": {marker}; echo up; sleep 1000", start_new_session=True)
    assert world.stdout is not None
    assert world.stdout.readline() == "up\n"
    assert _processes(marker)
    os.kill(world.pid, signal.SIGKILL)
    world.wait(10)
    _eventually(lambda: not _processes(marker) and not _processes(str(tmp_path)))
    assert _traces() == before
    world.communicate()


def test_a_terminated_world_ends_its_command(begin: Callable[..., subprocess.Popen[str]]) -> None:
    world = begin("bash", "-c", "trap 'echo told; exit 5' TERM; echo up; while :; do sleep 0.1; done")
    assert world.stdout is not None
    assert world.stdout.readline() == "up\n"
    world.terminate()
    out, _ = world.communicate(timeout=30)
    assert (out, world.returncode) == ("told\n", 5)


def test_a_shell_has_the_terminal(composition: Path) -> None:
    argv = [sys.executable, "-m", "skyspan", "rehearse", "exec", "-f", str(composition), "--", "bash", "--norc", "-i"]
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    os.write(ours, b"test -t 0 && sleep 1000\n")
    said = _read_until(ours, b"sleep 1000")
    os.write(ours, b"\x03")  # Ctrl-C ends the command, not the shell
    os.write(ours, b"echo still-$((40 + 2)); exit 3\n")
    said += _read_until(ours, b"still-42")
    assert shell.wait(30) == 3, said
    os.close(ours)


def _read_until(terminal: int, wanted: bytes) -> bytes:
    said = b""
    while wanted not in said:
        said += os.read(terminal, 4096)
    return said


def _traces() -> tuple[str, ...]:
    """What a world could leave on this machine: interfaces, named namespaces, mounts."""
    links = tuple(sorted(entry.name for entry in Path("/sys/class/net").iterdir()))
    named = tuple(sorted(entry.name for entry in Path("/run/netns").iterdir())) if Path("/run/netns").is_dir() else ()
    return (*links, *named, Path("/proc/self/mounts").read_text(), str(Path("/run/skyspan").exists()))


def _processes(marker: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if marker in words:
                found.append(words)
    return found


def _eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        time.sleep(0.05)
