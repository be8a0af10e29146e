"""Docker hosts among the stand-ins: real daemons with firewall, labs and Compose, that nobody meets outside."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.docker_world import BUSYBOX, DockerWorld
from tests.support.gateways import ENV

from skyspan.contracts.transport import Command
from skyspan.rehearsal.isolation import cgroups
from skyspan.transports.local import LocalTransport
from skyspan.transports.ssh import SshTransport

pytestmark = pytest.mark.integration

LAB = """
name: two
mgmt: {network: two, ipv4-subnet: 172.31.240.0/24}
topology:
  defaults: {privileged: false, cap-add: [NET_ADMIN, NET_RAW, SYS_ADMIN]}
  kinds: {linux: {image: "skyspan/node:1"}}
  nodes:
    n1: {kind: linux, exec: ["ip addr add 10.1.0.1/30 dev eth1"]}
    n2: {kind: linux, exec: ["ip addr add 10.1.0.2/30 dev eth1"]}
  links: [{endpoints: ["n1:eth1", "n2:eth1"]}]
"""

COMPOSE = """
services:
  web: {image: "skyspan/busybox:1", command: "httpd -f -p 80 -h /etc", ports: ["8081:80"], stop_signal: SIGKILL}
"""

BGP = """
for node in 1 2; do
  other=$((3-node)) tries=0
  until docker exec clab-two-n$node vtysh -c 'show daemons' | grep zebra | grep -q bgpd; do
    tries=$((tries+1)); [ $tries -lt 200 ]; sleep 0.1
  done
  docker exec clab-two-n$node vtysh -c "conf t" -c "interface lo" -c "ip address 10.1.1.$node/32" \\
    -c "router bgp 6500$node" -c "no bgp ebgp-requires-policy" -c "neighbor 10.1.0.$other remote-as 6500$other" \\
    -c "neighbor 10.1.0.$other timers connect 1" -c "address-family ipv4 unicast" -c "network 10.1.1.$node/32"
done
"""


SLEEPS = ("--stop-signal", "KILL", BUSYBOX, "sleep", "3600")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerWorld]:
    """A world, after which this machine is as it was before."""
    before = outside("")
    made = DockerWorld.start(tmp_path_factory.mktemp("world"))
    own = cgroups.own_name(made.process.pid)
    assert outside(own)["groups"], "its control groups are made here, so that the next line says something"
    yield made
    made.close()
    assert outside(own) == before


def outside(groups: str) -> Mapping[str, Any]:
    """What Docker hosts could leave on this machine. Others may be at work here: only our own groups are looked for."""
    links = json.loads(subprocess.run(["ip", "-j", "link"], check=True, capture_output=True).stdout)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    rules = subprocess.run(["nft", "-s", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    return {
        "links": {link["ifname"] for link in links},
        "mounts": {line.split()[4] for line in mounts},
        "groups": [one.mounted for one in cgroups.here() if groups and (one.mounted / groups).exists()],
        "rules": rules,
    }


def until(condition: Any, what: str, within_s: float = 15.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


async def test_a_lab_runs_on_a_docker_host_and_its_nodes_route_answer_and_let_in(world: DockerWorld) -> None:
    machines = world.machines(LocalTransport(ENV))
    host, client = machines["lab-1"], machines["client"]
    await host.sh('cat > /root/two.clab.yml <<"END"\n' + LAB + "END\n")
    await host.sh("cd /root; CLAB_VERSION_CHECK=disable containerlab deploy -t two.clab.yml")
    try:
        await host.sh(BGP)
        await host.sh("""
            tries=0
            until docker exec clab-two-n1 ping -c1 -W1 -I 10.1.1.1 10.1.1.2 >/dev/null 2>&1; do
              tries=$((tries+1)); [ $tries -lt 100 ] || { docker exec clab-two-n1 vtysh -c 'show bgp summary'; exit 1; }
              sleep 0.1
            done
        """)
        assert "10.1.1.2" in await host.sh("docker exec clab-two-n1 ip route show proto bgp")
        said = await host.sh("""
            docker exec clab-two-n1 snmpget -v2c -c public 10.1.0.2 .1.3.6.1.2.1.1.5.0
            docker exec -d clab-two-n2 iperf3 -s -1
            docker exec clab-two-n1 sh -c 'sleep 0.2; exec iperf3 -c 10.1.0.2 -t 1 -J' | grep -c bits_per_second
            iptables -S FORWARD | head -n 1
        """)
        name, measured, policy = said.splitlines()
        assert name.endswith('"n2"')
        assert int(measured) > 1
        assert policy == "-P FORWARD DROP", "the firewall chains are Docker's own"
        # The world's key opens the nodes too; the world's router knows no way to them, so by way of their host.
        await client.sh("ip route add 172.31.240.0/24 via 203.0.113.10")
        await host.sh("iptables -I DOCKER-USER -s 203.0.113.20 -j ACCEPT")
        with Path(str(world.hosts["lab-1"].key_file)).open("rb") as key:
            command = Command(("sh", "-euc", "umask 77; cat > /root/key"), stdin=key.read())
        assert (await client.run(command)).ok
        form = '{{(index .NetworkSettings.Networks "two").IPAddress}}'
        node = world.docker("lab-1", "inspect", "-f", form, "clab-two-n2")
        login = "ssh -i /root/key -o StrictHostKeyChecking=no $1 hostname 2>/dev/null"
        assert await client.sh(login, node) == "n2\n"
    finally:
        await host.sh("cd /root; CLAB_VERSION_CHECK=disable containerlab destroy -t two.clab.yml --cleanup")
    assert world.docker("lab-1", "ps", "-aq") == ""


async def test_each_docker_host_is_one_of_its_own_and_works_over_ssh(world: DockerWorld) -> None:
    here = LocalTransport(ENV)
    client = world.machines(here)["client"]
    with world.network():
        ssh = SshTransport(world.hosts["lab-2"], world.ssh)
        up = "mkdir -p /srv/web; cat > /srv/web/compose.yaml; docker compose -f /srv/web/compose.yaml up --wait -d"
        done = await ssh.run(Command(("sh", "-euc", up), stdin=COMPOSE.encode()))
        assert done.ok, done.last_words()
        limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max"
        run = ("docker", "run", "--rm", "--memory", "64m", BUSYBOX, "sh", "-c", f"({limit}) 2>/dev/null")
        assert (await ssh.run(Command(run))).text().strip() == str(64 * 2**20)
        assert "root:" in await client.sh("curl -s -m 5 http://198.51.100.10:8081/passwd"), "a published port is open"
        assert "web-web-1" in world.docker("lab-2", "ps")
        assert "web-web-1" not in world.docker("lab-1", "ps")
        assert (await ssh.run(Command(("docker", "compose", "-f", "/srv/web/compose.yaml", "down")))).ok
        await ssh.close()
    done = await client.run(Command(("docker", "ps")))
    assert not done.ok, "a plain machine has the commands, and no daemon to talk to"


def test_a_daemon_that_is_killed_or_rebooted_comes_back_with_all_it_had(world: DockerWorld) -> None:
    world.docker("lab-1", "run", "-d", "--name", "ever", "--restart", "always", *SLEEPS)
    world.docker("lab-1", "run", "-d", "--name", "once", "-v", "kept:/kept", BUSYBOX, "sh", "-c", "echo 7 > /kept/it")
    world.docker("lab-2", "run", "-d", "--name", "other", *SLEEPS)
    try:
        began = world.docker("lab-2", "inspect", "-f", "{{.State.StartedAt}}", "other")
        world.fault("kill", "lab-1", "dockerd")
        world.fault("start", "lab-1", "docker")
        until(lambda: "Up" in world.docker("lab-1", "ps", "-f", "name=ever"), "it is started again")
        world.fault("reboot", "lab-1")
        until(lambda: "Up" in world.docker("lab-1", "ps", "-f", "name=ever"), "it is started again")
        assert world.docker("lab-1", "run", "--rm", "-v", "kept:/kept", BUSYBOX, "cat", "/kept/it") == "7"
        assert {"skyspan/busybox", "skyspan/node"} == set(
            world.docker("lab-1", "images", "--format", "{{.Repository}}").split()
        )
        assert world.docker("lab-2", "inspect", "-f", "{{.State.StartedAt}}", "other") == began
    finally:
        world.docker("lab-1", "rm", "-f", "ever", "once")
        world.docker("lab-1", "volume", "rm", "kept")
        world.docker("lab-2", "rm", "-f", "other")


def test_what_a_world_that_was_killed_left_the_next_one_removes(tmp_path: Path) -> None:
    services = {"docker": {"kind": "docker", "images": {BUSYBOX: "busybox"}}}
    hosts = {"lab-1": {"site": "north", "address": "203.0.113.10", "services": services}}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = DockerWorld.start(tmp_path / "first", hosts)
    first.docker("lab-1", "run", "-d", "--name", "left", *SLEEPS)
    daemon = first.pid("lab-1")
    own = cgroups.own_name(first.process.pid)
    first.process.kill()
    first.close()
    until(lambda: not Path(f"/proc/{daemon}").exists(), "everything in it ends with it")
    assert outside(own)["groups"], "nobody was left to remove its control groups"
    second = DockerWorld.start(tmp_path / "second", hosts)
    try:
        assert not outside(own)["groups"]
        assert second.docker("lab-1", "ps", "-aq") == ""
    finally:
        second.close()
