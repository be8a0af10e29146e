"""Traffic between containers and hosts of a rehearsed world, over SSH, through loss, a reboot and a new container."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.docker_world import BUSYBOX, DOCKER, NODE, DockerWorld
from tests.support.traffic_rig import ENV, Traffic, spec, traces

from skyspan.contracts.transport import Command
from skyspan.model.error import CredentialsError, NotReadyError, ToolMissingError
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport
from skyspan.transports.ssh import SshTransport

pytestmark = pytest.mark.integration

HOSTS = {
    "lab": {"site": "north", "address": "203.0.113.10", "services": DOCKER},
    "far": {"site": "south", "address": "198.51.100.10"},
}

R1 = {"host": "lab", "container": "r1"}
LAB, FAR = {"host": "lab"}, {"host": "far"}

MARKS = "docker exec r1 sh -c 'grep -lsF SKYSPAN_TRAFFIC= /proc/[0-9]*/environ || :'"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DockerWorld]:
    made = DockerWorld.start(tmp_path, HOSTS)
    yield made
    made.close()


async def test_traffic_of_containers_goes_on_and_is_looked_after(world: DockerWorld, tmp_path: Path) -> None:
    for name, image, words in (("r1", NODE, ()), ("b1", BUSYBOX, ("sleep", "3600"))):
        world.docker("lab", "run", "-d", "--restart", "always", "--stop-signal", "KILL", "--name", name, image, *words)
    machines = world.machines(LocalTransport(ENV))
    before = [await traces(machines["lab"]), await traces(machines["far"])]
    with world.network():
        ssh = {name: SshTransport(world.hosts[name], world.ssh) for name in HOSTS}
        traffic = Traffic(ProviderWorld(tmp_path / "stage", ssh, hosts=world.hosts))

        measured = spec(
            {
                "out": {"kind": "iperf3", "from": R1, "to": FAR, "rate": "10M", "duration": 1},
                "in": {"kind": "iperf3", "from": LAB, "to": R1, "protocol": "udp", "rate": "2M", "duration": 1},
                "agent": {"kind": "snmp", "from": LAB, "to": R1, "duration": 0.3},
                "web": {"kind": "http", "from": R1, "to": FAR, "duration": 0.3},
                "reach": {"kind": "ping", "from": R1, "to": FAR, "duration": 0.3},
                "small": {"kind": "ping", "from": {"host": "lab", "container": "b1"}, "to": R1, "duration": 0.3},
            },
            together=True,
        )
        found = await traffic.up(measured)
        assert 3e6 < found["out"]["throughput"] < 13e6
        assert found["in"]["address"].startswith("172.")
        assert found["in"]["loss"] < 0.5
        for name in ("agent", "web", "reach"):
            assert found[name]["loss"] == 0, (name, found[name])
        assert (found["out"]["tool"], found["web"]["tool"]) == ("iperf3", "curl")
        assert [await traces(machines["lab"]), await traces(machines["far"])] == before
        assert not world.docker("lab", "exec", "r1", "sh", "-c", "pgrep iperf3 || :")
        await traffic.down(measured)

        await refuses(
            traffic, {"from": {"host": "lab", "container": "b1"}}, ToolMissingError, "in the container b1 on lab"
        )
        await refuses(
            traffic, {"from": {"host": "lab", "container": "r9"}}, NotReadyError, "the container r9 on lab is missing"
        )
        await refuses(
            traffic, {"from": {"host": "far", "container": "r1"}}, CredentialsError, "Docker on far does not answer"
        )

        going = {"mode": "background", "duration": 0.5}
        settings = spec(
            {
                "in": {"kind": "iperf3", "from": LAB, "to": R1, "rate": "5M", **going},
                "voice": {"kind": "udp", "from": LAB, "to": FAR, "thresholds": {"max_loss": 0.2}, **going},
                "out": {"kind": "ping", "from": R1, "to": FAR, **going},
            }
        )
        await traffic.up(settings)
        for transport in ssh.values():
            await transport.close()
        assert await inside(ssh["lab"]), "what goes on inside goes on when nobody is connected"

        # The container begins anew: what listened inside is gone, and what sends goes on with the next window.
        world.docker("lab", "restart", "r1")
        seen, _ = await traffic.look(settings)
        assert [item.address for item in seen.drift] == ["lab/r1: server of in"]
        await traffic.up(settings)

        world.fault("loss", "north", "south", "60")
        await until(traffic, settings, "voice: loss", "is above 20 %")
        world.fault("restore", "north", "south")

        world.fault("reboot", "far")
        ssh["far"] = SshTransport(world.hosts["far"], world.ssh)
        traffic.world.transports = ssh
        seen, _ = await traffic.look(settings)
        assert [item.address for item in seen.drift] == ["far: server of voice"]
        await traffic.up(settings)

        await traffic.provider.stop(settings, traffic.world.writing())
        assert not await inside(ssh["lab"])
        assert (await traffic.provider.start(settings, traffic.world.writing())).healthy
        await traffic.down(settings)
        assert not await inside(ssh["lab"])
        for transport in ssh.values():
            await transport.close()
    assert [await traces(machines["lab"]), await traces(machines["far"])] == before


async def inside(lab: SshTransport) -> str:
    """What the stage has running in the container."""
    done = await lab.run(Command(("sh", "-euc", MARKS)))
    assert done.ok, done.last_words()
    return done.text().strip()


async def refuses(traffic: Traffic, ends: dict[str, Any], kind: type[Exception], words: str) -> None:
    """A flow with these ends is refused, by an error that says so, before anything is touched."""
    commands = len(traffic.world.commands)
    with pytest.raises(kind, match=words):
        await traffic.up(spec({"lab": {"kind": "iperf3", "to": FAR, **ends}}))
    assert len(traffic.world.commands) <= commands + 2


async def until(traffic: Traffic, settings: Any, *words: str) -> None:
    """Look until the reason holds these words."""
    async with asyncio.timeout(30):
        while True:
            seen, _ = await traffic.look(settings)
            if all(word in seen.reason for word in words):
                return
