"""containerlab stages on a real Docker host: made, changed, broken, mended, stopped, rebooted and removed."""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.docker_world import BUSYBOX, NODE, DockerWorld
from tests.support.wireguard_rig import ENV

from skyspan.model.address import DeploymentAddress, StageAddress
from skyspan.model.change import Action, Change, Observation
from skyspan.model.error import NotReadyError, SpecError, StageError, ToolFailedError, ToolMissingError
from skyspan.model.secret import Secret
from skyspan.providers.containerlab.provider import ContainerlabProvider
from skyspan.providers.containerlab.spec import ContainerlabSpec
from skyspan.providers.lab.waiting import LabWait
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.gateway_world import Machine
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport
from skyspan.transports.ssh import SshTransport

pytestmark = pytest.mark.integration

UNPRIVILEGED = {"privileged": False, "cap-add": ["NET_ADMIN", "NET_RAW", "SYS_ADMIN"]}

TOPOLOGY = """\
name: triangle
topology:
  kinds:
    linux: {image: "${IMAGE:=frrouting/frr:v8.4.1}"}
  nodes:
    r1:
      kind: linux
      binds: ["__clabNodeName__.conf:/etc/frr/frr.conf"]
      exec: ["ip addr add 10.1.0.1/30 dev eth1"]
    r2:
      kind: linux
      binds: ["__clabNodeName__.conf:/etc/frr/frr.conf"]
      exec: ["ip addr add 10.1.0.2/30 dev eth1"]
    pc:
      {kind: linux, image: "small:1", cmd: "sleep 3600", binds: ["pc:/pc"], exec: ["ip addr add 10.2.0.2/30 dev eth1"]}
  links:
    - endpoints: ["r1:eth1", "r2:eth1"]
    - endpoints: ["r1:eth2", "pc:eth1"]
"""

FRR = """\
ip route 10.10.{n}.0/24 blackhole
router bgp 6500{n}
 no bgp ebgp-requires-policy
 bgp router-id 10.1.0.{n}
 neighbor 10.1.0.{o} remote-as 6500{o}
 neighbor 10.1.0.{o} timers 1 3
 neighbor 10.1.0.{o} timers connect 1
 address-family ipv4 unicast
  network 10.10.{n}.0/24
 exit-address-family
"""

SMALL = """\
name: small
topology:
  nodes:
    a: {kind: linux, image: "IMG", cmd: "sleep 3600", exec: ["ip addr add 10.1.0.1/30 dev eth1"]}
    b: {kind: linux, image: "IMG", cmd: "sleep 3600", exec: ["ip addr add 10.1.0.2/30 dev eth1"]}
  links: [{endpoints: ["a:eth1", "b:eth1"]}]
""".replace("IMG", BUSYBOX)

STATE = """
docker ps -a --format '{{.Names}} {{.State}}' | sort; docker network ls --format '{{.Name}}' | sort
ip -o link | awk '{print $2}' | sed 's/@.*//' | sort; cat /etc/hosts
find /var/lib/skyspan /run/netns /etc/ssh/ssh_config.d -mindepth 1 2>/dev/null | sort
iptables-save | grep -v -e '^[#:]' | sort; ip route
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerWorld]:
    made = DockerWorld.start(tmp_path_factory.mktemp("world"))
    yield made
    made.close()


@dataclass
class Stage:
    """A containerlab stage on a host of the world, driven as the engine does."""

    surroundings: ProviderWorld
    spec: ContainerlabSpec
    provider: ContainerlabProvider

    @classmethod
    def make(cls, root: Path, places: Mapping[str, Any], world: DockerWorld, label: str, **settings: Any) -> Stage:
        spec = {"topology": "lab.clab.yml", "host": "lab-1", "defaults": UNPRIVILEGED, **settings}
        return cls(
            ProviderWorld(
                root / label,
                places,
                hosts=world.hosts,
                address=StageAddress(DeploymentAddress("default", label), "lab"),
            ),
            ContainerlabSpec.model_validate(spec),
            ContainerlabProvider(),
        )

    def write(self, files: Mapping[str, str]) -> Stage:
        for name, text in files.items():
            (self.surroundings.folder / name).write_text(text)
        return self

    def edit(self, before: str, after: str) -> None:
        path = self.surroundings.folder / "lab.clab.yml"
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after))

    async def observe(self) -> Observation:
        return await self.provider.observe(self.spec, self.surroundings.reading())

    async def plan(self) -> tuple[Observation, Change]:
        seen = await self.observe()
        return seen, await self.provider.plan(self.spec, seen, self.surroundings.reading())

    async def up(self) -> Change:
        """Plan, apply, and demand that this is the end of it."""
        _, change = await self.plan()
        there = await self.provider.apply(self.spec, change, self.surroundings.writing())
        assert there.healthy, there.reason
        _, again = await self.plan()
        assert again.action is Action.NONE, again
        return change

    async def destroy(self) -> None:
        await self.provider.destroy(self.spec, self.surroundings.writing())
        assert not self.surroundings.kept.data


async def assert_as(before: str, machine: Machine) -> None:
    """Containers, networks, interfaces, files, host entries, filters and routes are what they were."""
    after = await machine.sh(STATE)
    assert after.splitlines() == before.splitlines(), "\n".join(difflib.ndiff(before.splitlines(), after.splitlines()))


def started(world: DockerWorld, lab: str) -> dict[str, str]:
    """Since when each node's container runs."""
    form = '{{.Label "clab-node-name"}}'
    names = world.docker("lab-1", "ps", "-a", "--filter", f"label=containerlab={lab}", "--format", form).split()
    look = "{{.State.StartedAt}}"
    return {name: world.docker("lab-1", "inspect", "-f", look, f"clab-{lab}-{name}") for name in names}


def kept(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """The nodes that were not started anew."""
    return {name for name, since in before.items() if after.get(name) == since}


def listed(change: Change) -> dict[str, str]:
    return {item.address: item.action.value for item in change.resources}


async def test_a_lab_is_made_changed_mended_stopped_and_removed_node_by_node(
    world: DockerWorld, tmp_path: Path
) -> None:
    machine: Machine = world.machines(LocalTransport(ENV))["lab-1"]
    before = await machine.sh(STATE)
    waits = [{"node": "r1", "bgp": "10.1.0.2"}, {"node": "r2", "command": "ip route", "contains": "10.10.1.0/24"}]
    lab = Stage.make(
        tmp_path,
        {"lab-1": machine},
        world,
        "triangle",
        env={"IMAGE": NODE},
        images={"small:1": BUSYBOX},
        wait=waits,
        exec={"r1": ("ip addr add 10.2.0.1/30 dev eth2",)},
    ).write({"lab.clab.yml": TOPOLOGY, "pc": "1", "r1.conf": FRR.format(n=1, o=2), "r2.conf": FRR.format(n=2, o=1)})

    # Made, with the published topology as it is; all facts come from one look at the host.
    _, change = await lab.plan()
    assert listed(change) == {
        "node r1": "create",
        "node r2": "create",
        "node pc": "create",
        "link r1:eth1 -- r2:eth1": "create",
        "link r1:eth2 -- pc:eth1": "create",
    }
    await lab.up()
    commands = len(lab.surroundings.commands)
    outputs = {name: output.value for name, output in (await lab.observe()).outputs.items()}
    assert len(lab.surroundings.commands) == commands + 1, "observing is one command"
    assert outputs["endpoints"]["r1"]["eth2"]["addresses"] == ["10.2.0.1/30"]
    assert outputs["endpoints"]["r1"]["eth2"]["peer"] == {"node": "pc", "interface": "eth1"}
    assert outputs["prefixes"] == ["10.1.0.0/30", "10.2.0.0/30"]
    address = outputs["nodes"]["pc"]["ipv4"]
    assert outputs["consoles"]["pc"]["ssh"].endswith(f"root@{address}")
    assert outputs["management"]["ipv4"].startswith("10.253.")
    assert "r1" in outputs["graph"]["mermaid"]

    # Another setting of one node, then another file of one: only that node is made anew.
    since = started(world, "triangle")
    lab.edit('"sleep 3600", binds', '"sleep 3600", env: {A: "1"}, binds')
    assert listed(await lab.up()) == {"node pc": "replace"}
    assert kept(since, started(world, "triangle")) == {"r1", "r2"}
    lab.write({"pc": "2"})
    assert listed(await lab.up()) == {"node pc": "replace"}
    assert kept(since, started(world, "triangle")) == {"r1", "r2"}
    assert world.docker("lab-1", "exec", "clab-triangle-pc", "cat", "/pc") == "2"

    # Killed: named, and repaired alone, its links and their addresses at both ends too.
    since = started(world, "triangle")
    world.docker("lab-1", "kill", "clab-triangle-r2")
    seen = await lab.observe()
    assert seen.drifted
    assert "node r2: its container ended with status 137" in seen.reason
    assert {item.address for item in seen.drift} == {"node r2", "link r1:eth1 -- r2:eth1"}
    await lab.up()
    assert kept(since, started(world, "triangle")) == {"r1", "pc"}
    # Restarted by Docker, a container comes back without its links.
    world.docker("lab-1", "restart", "-t", "0", "clab-triangle-pc")
    assert "link r1:eth2 -- pc:eth1: r1:eth2 and pc:eth1 are gone" in (await lab.observe()).reason
    await lab.up()
    world.docker("lab-1", "exec", "clab-triangle-pc", "ping", "-c1", "-W1", "10.2.0.1")
    # A link that somebody took away; a container that somebody removed.
    await machine.sh("nsenter -t $(docker inspect -f '{{.State.Pid}}' clab-triangle-r1) -n ip link delete eth2")
    assert listed(await lab.up()) == {"link r1:eth2 -- pc:eth1": "create"}
    world.docker("lab-1", "rm", "-f", "clab-triangle-pc")
    await lab.up()
    world.docker("lab-1", "exec", "clab-triangle-pc", "ping", "-c1", "-W1", "10.2.0.1")

    # Stopped, links wait on the host; started, they are there with what they had.
    lab.spec = lab.spec.model_copy(update={"stop_within": 1.0})
    await lab.provider.stop(lab.spec, lab.surroundings.writing())
    assert (await lab.observe()).reason == "it is stopped"
    await lab.provider.stop(lab.spec, lab.surroundings.writing())
    await lab.up()
    world.docker("lab-1", "exec", "clab-triangle-pc", "ping", "-c1", "-W1", "10.2.0.1")

    # The link's settings, and the node at its end, may go.
    lab.edit('- endpoints: ["r1:eth1", "r2:eth1"]', '- {endpoints: ["r1:eth1", "r2:eth1"], mtu: 1400}')
    since = started(world, "triangle")
    assert listed(await lab.up()) == {"link r1:eth1 -- r2:eth1": "update"}
    assert kept(since, started(world, "triangle")) == {"r1", "r2", "pc"}
    assert "mtu 1400" in world.docker("lab-1", "exec", "clab-triangle-r1", "ip", "link", "show", "eth1")
    text = (lab.surroundings.folder / "lab.clab.yml").read_text()
    lab.write({"lab.clab.yml": "".join(line for line in text.splitlines(True) if not re.search(r"\bpc\b", line))})
    lab.spec = lab.spec.model_copy(update={"images": {}})
    assert listed(await lab.up()) == {"node pc": "destroy", "link r1:eth2 -- pc:eth1": "destroy"}
    assert kept(since, started(world, "triangle")) == {"r1", "r2"}

    await lab.destroy()
    await assert_as(before, machine)
    await lab.destroy()


async def test_two_labs_live_side_by_side_and_what_cannot_work_touches_nothing(
    world: DockerWorld, tmp_path: Path
) -> None:
    machine = world.machines(LocalTransport(ENV))["lab-1"]
    places = {"lab-1": machine}
    before = await machine.sh(STATE)

    def small(label: str, topology: str = SMALL, **settings: Any) -> Stage:
        made = Stage.make(tmp_path, places, world, label, **{"name": label, **settings})
        return made.write({"lab.clab.yml": topology})

    one, two = small("one"), small("two")
    await asyncio.gather(one.up(), two.up())
    subnets = {(await lab.observe()).outputs["management"].value["ipv4"] for lab in (one, two)}
    assert len(subnets) == 2
    for name in ("one", "two"):
        world.docker("lab-1", "exec", f"clab-{name}-a", "ping", "-c1", "-W1", "10.1.0.2")

    async def refused(lab: Stage, kind: type[StageError], words: str) -> StageError:
        state = await machine.sh(STATE)
        with pytest.raises(kind, match=words) as caught:
            await lab.up()
        assert await machine.sh(STATE) == state, "nothing is touched"
        assert not lab.surroundings.kept.data
        return caught.value

    await refused(small("three", name="one"), SpecError, "a lab called one is already on lab-1")
    (subnet, *_) = sorted(subnets)
    taken = SMALL.replace("topology:", f"mgmt: {{ipv4-subnet: {subnet}}}\ntopology:")
    await refused(small("four", taken), SpecError, f"the management network {subnet} overlaps what lab-1 has")
    error = await refused(small("five", SMALL.replace(BUSYBOX, "no/such:1")), SpecError, "does not have the image")
    assert "docker pull no/such:1" in error.hint
    await refused(small("six", SMALL.replace("b:eth1", "c:eth1")), SpecError, "dangles")
    places["client"] = world.machines(LocalTransport(ENV))["client"]
    await refused(small("seven", host="client"), ToolMissingError, "Docker does not run on client")

    # A full disk is told by its name, and nothing is deployed then.
    full = small("full", files=("big",)).write({"big": "x" * 100_000})
    await machine.sh("mount -t tmpfs -o size=64k none /var/lib/skyspan/labs")
    with pytest.raises(ToolFailedError, match="the disk of lab-1 is full"):
        await full.up()
    await machine.sh("umount /var/lib/skyspan/labs")
    await full.destroy()

    # A deploy that fails half-way is told with what helps, repaired by the next one, or removed.
    half = small("half", defaults={})
    with pytest.raises(ToolFailedError) as caught:
        await half.up()
    assert "privileged: false" in caught.value.hint
    assert "Created" in world.docker("lab-1", "ps", "-a", "--filter", "label=containerlab=half")
    half.spec = half.spec.model_copy(update={"defaults": UNPRIVILEGED})
    assert {item.split()[0] for item in listed(await half.up())} <= {"node", "link"}
    await half.destroy()

    # What is waited for in vain is named; the lab is there all the same, and can be removed.
    vain = (LabWait(node="a", port=9, within=0.5),)
    two.spec = two.spec.model_copy(update={"wait": vain})
    with pytest.raises(NotReadyError, match="a: port 9"):
        await two.up()
    # Another name is another lab: the old one goes.
    since = started(world, "one")
    two.spec = two.spec.model_copy(update={"wait": (), "name": "second"})
    assert (await two.up()).action is Action.REPLACE
    assert not started(world, "two")
    await two.destroy()
    assert kept(since, started(world, "one")) == {"a", "b"}
    await one.destroy()
    await assert_as(before, machine)


async def test_a_lab_over_ssh_comes_back_after_its_host_was_rebooted(world: DockerWorld, tmp_path: Path) -> None:
    with world.network():
        ssh = SshTransport(replace(world.hosts["lab-2"]), world.ssh)
        lab = Stage.make(tmp_path, {"lab-2": ssh}, world, "far", host="lab-2", name="far")
        lab.write({"lab.clab.yml": SMALL})
        await lab.up()
        console = (await lab.observe()).outputs["consoles"].value["a"]["exec"]
        assert console.startswith("ssh -t -i ")
        assert console.endswith("root@198.51.100.10 'docker exec -it clab-far-a sh'")
        await ssh.close()
    world.fault("reboot", "lab-2")
    with world.network():
        ssh = SshTransport(replace(world.hosts["lab-2"]), world.ssh)
        lab.surroundings.transports = {"lab-2": ssh}
        seen = await lab.observe()
        assert seen.drifted
        assert "link a:eth1 -- b:eth1" in {item.address for item in seen.drift}
        await lab.up()
        world.docker("lab-2", "exec", "clab-far-a", "ping", "-c1", "-W1", "10.1.0.2")
        await lab.destroy()
        assert world.docker("lab-2", "ps", "-aq") == ""
        await ssh.close()


def one_node(**settings: Any) -> ContainerlabSpec:
    node = {"kind": "linux", "image": BUSYBOX, "cmd": "sleep 3600", **settings.pop("node", {})}
    topology = {"name": "proof", "topology": {"nodes": {"a": node}}}
    return ContainerlabSpec.model_validate(
        {"host": "lab-1", "defaults": UNPRIVILEGED, "topology": topology, **settings}
    )


class TestContainerlab(ProviderConformance):
    """The provider suite, on a lab of one node."""

    @pytest.fixture
    async def case(self, tmp_path: Path, world: DockerWorld) -> AsyncIterator[ProviderCase]:
        machine: Machine = world.machines(LocalTransport(ENV))["lab-1"]
        secret = {"env": {"PASSWORD": Secret("a-password-of-the-lab")}}
        made = ProviderCase(
            provider=ContainerlabProvider(),
            spec=one_node(),
            changed=one_node(node={"env": {"A": "1"}}),
            secret_spec=one_node(node=secret),
            slow_spec=one_node(wait=[{"node": "a", "command": "false"}]),
            world=ProviderWorld(tmp_path, {"lab-1": machine}, hosts=world.hosts),
            snapshot=lambda: machine.sh(STATE),
        )
        yield made
        await made.destroy()
