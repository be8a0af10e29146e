"""Every fault of a world, seen from the stand-ins that it befalls; and that what was mended is as before."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from tests.support.world_shell import WorldShell, world_shell

pytestmark = pytest.mark.integration

SECTION: Mapping[str, Any] = {
    "sites": {"east": {"prefix": "198.51.100.0/24"}, "west": {"prefix": "203.0.113.0/24"}},
    "hosts": {
        "gw": {
            "site": "east",
            "address": "198.51.100.10",
            "lans": {"inside": "10.1.0.1/24"},
            "forwards": True,
            "services": {"http": {"kind": "recorder"}},
        },
        "far": {"site": "west", "address": "203.0.113.10"},
        "app": {"lans": {"inside": "10.1.0.2/24"}, "routes": [{"to": "203.0.113.0/24", "via": "10.1.0.1"}]},
    },
    "secrets": {"ssh_key": "generated"},
}

ABOUT = f"""
fault() {{ {sys.executable} -m skyspan.rehearsal fault "$@" >/tmp/said || cat /tmp/said; }}
on() {{ local host=$1; shift
  ssh -o UserKnownHostsFile=$SKYSPAN_KNOWN_HOSTS -o BatchMode=yes -o ConnectTimeout=2 \\
    -i /run/skyspan/keys/ssh_key "root@$host" "$@"; }}
cd "$TMPDIR"
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorldShell]:
    folder = tmp_path_factory.mktemp("world")
    stages = {"one": {"uses": "command", "with": {"run": "true"}}}
    document = {"skyspan": 1, "name": "world", "stages": stages, "rehearsal": SECTION}
    (folder / "skyspan.yaml").write_text(json.dumps(document))
    with world_shell(folder) as shell:
        yield shell


@pytest.fixture
def within(shell: WorldShell) -> Callable[[str], list[str]]:
    """Runs a shell script in the one world of these tests and gives the lines that it printed; it has to succeed.

    Each leaves the world as it was.
    """
    return lambda script: shell(ABOUT + script).splitlines()


def test_a_renumbered_host_is_found_by_its_name_and_known_by_its_key(within: Callable[[str], list[str]]) -> None:
    said = within("""
        fault renumber far 203.0.113.77
        on far hostname
        on 203.0.113.77 'ip -o -4 addr show eth0 | grep -o "inet [^ ]*"; ip route show default'
        on gw 'getent hosts far; ping -c1 -W2 far >/dev/null && echo reached'
        ping -c1 -W1 203.0.113.10 >/dev/null || echo gone
        fault renumber far 198.51.100.9
        fault renumber far 203.0.113.77
        fault renumber far 203.0.113.10
    """)
    assert said[:3] == ["far", "inet 203.0.113.77/24", "default via 203.0.113.1 dev eth0 "]
    assert said[3].split() == ["203.0.113.77", "far"]
    assert said[4:6] == ["reached", "gone"]
    assert "198.51.100.9 is no address that far could have" in said[6]
    assert "already that of far" in said[7]


def test_an_answer_of_the_name_server_can_be_swapped(within: Callable[[str], list[str]]) -> None:
    said = within("""
        resolve() { on gw 'for name in vpn.example.org far; do getent hosts $name || echo none; done' | cut -d" " -f1; }
        resolve
        fault dns vpn.example.org 203.0.113.10; fault dns far 192.0.2.1
        resolve
        getent hosts vpn.example.org | cut -d" " -f1
        fault dns vpn.example.org nowhere
        resolve
        fault clear; resolve
    """)
    right, wrong = "203.0.113.10", "192.0.2.1"
    assert said == ["none", right, right, wrong, right, "none", wrong, "none", right]


def test_a_hole_swallows_long_packets_and_no_router_says_so(within: Callable[[str], list[str]]) -> None:
    said = within("""
        fault mtu west 1300
        on gw 'ping -c1 -W1 -M do -s 1200 203.0.113.10 >/dev/null && echo short
               ping -c1 -W1 -M do -s 1400 203.0.113.10 2>&1 | grep -ci "frag needed\\|too long" || echo silence
               ip route get 203.0.113.10 | grep -c mtu || echo nothing learned'
        fault clear
        on gw 'ping -c1 -W1 -M do -s 1400 203.0.113.10 >/dev/null && echo long'
    """)
    assert said == ["short", "0", "silence", "0", "nothing learned", "long"]


ECHO = """
cat > echo.py <<'END'
import socket
port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
port.bind(("203.0.113.10", 5000))
print("listening", flush=True)
while True:
    _, asker = port.recvfrom(99)
    port.sendto(f"{asker[0]} {asker[1]}".encode(), asker)
END
cat > ask.py <<'END'
import socket, sys
port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
port.bind(("198.51.100.10", 4000))
port.settimeout(5)
for _ in sys.stdin:
    port.sendto(b"who am I?", ("203.0.113.10", 5000))
    print(port.recv(99).decode(), flush=True)
END
coproc ECHO { ip netns exec far python3 -u echo.py; }; read -r <&"${ECHO[0]}"
exec 3<&"${ECHO[0]}"
mkfifo in out; ip netns exec gw python3 -u ask.py <in >out & exec 4>in 5<out
ask() { echo >&4; read -r <&5; echo "$REPLY"; }
"""


def test_a_rebound_nat_shows_another_port_in_the_middle_of_a_flow(within: Callable[[str], list[str]]) -> None:
    said = within(f"""
        {ECHO}
        ask; fault nat east; ask; ask; fault rebind east; ask; ask; fault clear; ask
        fault rebind west
        exec 4>&-; kill "$ECHO_PID"
    """)
    assert said[0] == said[5] == "198.51.100.10 4000"
    addresses, ports = zip(*(line.split() for line in said[1:5]), strict=True)
    assert set(addresses) == {"203.0.113.1"}
    assert ports[0] == ports[1] != ports[2] == ports[3]
    assert "west is not behind NAT" in said[6]


def test_a_kill_is_for_the_processes_of_one_host_alone(within: Callable[[str], list[str]]) -> None:
    said = within("""
        for host in gw far; do on $host 'setsid sleep 1000 </dev/null >/dev/null 2>&1 &'; done
        fault kill gw sleep
        for host in gw far; do on $host 'pgrep -c sleep' || :; done
        fault kill gw sleep
        on gw hostname
        fault kill far sleep
    """)
    assert said[:2] == ["0", "1"]
    assert "no sleep runs on gw" in said[2]
    assert said[3] == "gw"


def test_a_rebooted_host_has_its_files_and_nothing_that_only_ran(within: Callable[[str], list[str]]) -> None:
    said = within("""
        on gw 'touch /etc/kept /run/lost; ip route add 192.0.2.0/24 via 198.51.100.1; nft add table inet lost
               setsid sleep 1000 </dev/null >/dev/null 2>&1 &'
        curl -sf http://gw:8080/told -d 1 >/dev/null
        fault renumber gw 198.51.100.20
        fault reboot gw
        on gw 'ls /etc/kept /run/lost 2>&1 | sed "s/.*cannot.*/lost/"; ip route show 192.0.2.0/24; nft list ruleset
               pgrep -c sleep; cat /proc/sys/net/ipv4/ip_forward
               ping -c1 -W2 10.1.0.2 >/dev/null && ping -c1 -W2 far >/dev/null && echo wired'
        curl -sf http://198.51.100.20:8080/requests; echo
        fault reboot app
        ip netns exec app ping -c1 -W2 10.1.0.1 >/dev/null && echo wired
        fault renumber gw 198.51.100.10; on gw 'rm /etc/kept'
    """)
    assert sorted(said[:2]) == ["/etc/kept", "lost"]
    assert said[2:] == ["0", "1", "wired", "[]", "wired"]


def test_a_stepped_clock_is_what_every_program_of_the_host_reads(within: Callable[[str], list[str]]) -> None:
    """A program that runs already, and new ones."""
    said = within("""
        on gw 'cat > /root/tell.py' <<'END'
import time
while True:
    open("/root/now.new", "w").write(str(int(time.time())))
    __import__("os").replace("/root/now.new", "/root/now")
    time.sleep(0.02)
END
        on gw 'setsid python3 /root/tell.py </dev/null >/dev/null 2>&1 & until [ -e /root/now ]; do sleep 0.02; done'
        on gw 'cat > /root/look' <<'END'
sleep 0.1; cat /root/now; echo; date +%s; python3 -Sc "import time; print(int(time.time()))"
END
        ahead() { echo $(( ($1 - $2 + 100050) / 100 * 100 - 100000 )); }  # in hundreds of seconds
        look() { local now; now=$(date +%s); on gw sh /root/look | while read -r seen; do ahead "$seen" "$now"; done; }
        look; fault clock gw -3600; look; fault clock gw 7200; look
        ahead "$(on far date +%s)" "$(date +%s)"
        fault clear; look
        fault clock gw soon
        on gw 'pkill python3; rm /root/tell.py /root/look /root/now'
    """)
    assert said[:-1] == ["0"] * 3 + ["-3600"] * 3 + ["7200"] * 3 + ["0"] + ["0"] * 3
    assert "soon is no whole number of seconds" in said[-1]


def test_wireguard_is_refused_while_the_clock_of_its_host_is_behind(within: Callable[[str], list[str]]) -> None:
    """Its handshakes carry the time, which must never fall (wireguard-go is a Go program)."""
    said = within("""
        for host in gw far; do on $host 'umask 077; wg genkey > /root/key'; done
        gw=$(on gw 'wg pubkey < /root/key') far=$(on far 'wg pubkey < /root/key')
        begin() { on gw "wireguard-go w >/dev/null 2>&1; ip addr add 10.9.0.1/30 dev w; ip link set w up
          wg set w private-key /root/key peer $far endpoint 203.0.113.10:51820 allowed-ips 10.9.0.0/30"; }
        on far "wireguard-go w >/dev/null 2>&1; ip addr add 10.9.0.2/30 dev w; ip link set w up
          wg set w listen-port 51820 private-key /root/key peer $gw allowed-ips 10.9.0.1/32"
        passes() { on gw 'ping -c1 -W1 10.9.0.2 >/dev/null' && echo passes || echo refused; }
        begin; passes
        fault clock gw -600; fault kill gw wireguard-go; begin; passes
        fault kill gw wireguard-go; fault clock gw 600; begin; passes
        fault clear; for host in gw far; do fault kill $host wireguard-go; done
    """)
    assert said == ["passes", "refused", "passes"]
