"""Labs by netlab on a Docker host of the world: real FRR, validated, broken and mended, changed, stopped, destroyed."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.docker_world import HOSTS, NODE, DockerWorld, Inside
from tests.support.gateways import ENV

from skyspan.contracts.transport import Command
from skyspan.model.address import DeploymentAddress, StageAddress
from skyspan.model.change import Action, Change, Observation
from skyspan.model.error import NotReadyError, SpecError, StageError, ToolMissingError
from skyspan.providers.netlab.facts import routing_outputs
from skyspan.providers.netlab.provider import NetlabProvider
from skyspan.providers.netlab.spec import NetlabSpec
from skyspan.testing.gate import Died, Gate, Side
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

TRIANGLE = """\
# As it would be published: nothing in it is about the host that runs it.
defaults.device: frr
module: [ospf, bgp]
ospf.timers: {hello: 1, dead: 4}
bgp.as: 65000
nodes:
  r1: {}
  r2: {}
  r3: {bgp.as: 65001}
  h1: {device: linux}
links:
- r1-r2
- r2-r3
- h1-r1
- r1:
  r2:
  r3:
- r3
validate:
  session:
    description: BGP with the other network
    wait: 30
    nodes: [r2]
    devices: [frr]
    exec: vtysh -c 'show bgp ipv4 unicast summary established json'
    valid: |
      "65001" in stdout
  loopback:
    description: A host reaches a loopback that it learns of nobody
    wait: 40
    nodes: [h1]
    devices: [linux]
    exec: ping -c 1 -W 1 10.0.0.2
    valid: |
      "64 bytes" in stdout
"""

HYBRID = Path(__file__).parents[2] / "examples" / "hybrid"

STATE = """
docker ps -a --format '{{.Names}}'
docker network ls --format '{{.Name}}'
ip -o link show | awk '{print $2}' | sed 's/@.*//'
find /var/lib/skyspan /root/.netlab /etc/ssh/ssh_config.d -mindepth 1 2>/dev/null || :
cat /etc/hosts
"""


class Lab:
    """One stage on the host, driven as the engine drives it."""

    def __init__(self, root: Path, machine: Inside, world: DockerWorld, name: str = "lab") -> None:
        self.provider = NetlabProvider()
        self.machine = machine
        address = StageAddress(DeploymentAddress("default", "proof"), name)
        self.world = ProviderWorld(root / name, {"lab-1": machine}, hosts=world.hosts, address=address)

    def write(self, text: str, name: str = "topology.yml") -> None:
        (self.world.folder / name).write_text(text)

    def spec(self, **settings: Any) -> NetlabSpec:
        given: dict[str, Any] = {
            "host": "lab-1",
            "topology": "topology.yml",
            "images": {"frr": NODE, "linux": NODE},
            "restricted": True,
        }
        return NetlabSpec.model_validate({**given, **settings})

    async def look(self, spec: NetlabSpec) -> tuple[Observation, Change]:
        ctx = self.world.reading()
        seen = await self.provider.observe(spec, ctx)
        return seen, await self.provider.plan(spec, seen, ctx)

    async def up(self, spec: NetlabSpec, gate: Gate | None = None) -> Observation:
        seen, change = await self.look(spec)
        if change.action is Action.NONE:
            return seen
        return await self.provider.apply(spec, change, self.world.writing(gate))

    async def settled(self, spec: NetlabSpec, change: Change | None = None) -> Observation:
        """Up, by a plan that was made already where there is one; then nothing is left to do."""
        if change is not None:
            seen = await self.provider.apply(spec, change, self.world.writing())
        else:
            seen = await self.up(spec)
        assert seen.healthy, seen.reason
        assert not seen.drifted
        again, change = await self.look(spec)
        assert change.action is Action.NONE, change.reason
        assert again.outputs == seen.outputs
        return seen

    async def down(self, spec: NetlabSpec) -> None:
        await self.provider.destroy(spec, self.world.writing())

    async def sh(self, script: str) -> str:
        done = await self.machine.run(Command(("sh", "-euc", script)))
        assert done.ok, done.last_words()
        return done.text()

    async def started(self) -> dict[str, str]:
        names = await self.sh("docker ps -a --filter label=containerlab --format '{{.Names}}'")
        found = await self.sh(
            f"docker inspect --format '{{{{.Name}}}} {{{{.State.StartedAt}}}}' {names}".replace("\n", " ")
        )
        return dict(line.strip("/").split(" ") for line in found.splitlines())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerWorld]:
    made = DockerWorld.start(tmp_path_factory.mktemp("world"), {"lab-1": HOSTS["lab-1"]})
    # A host on which somebody used netlab before: reading its own defaults takes it seconds each time otherwise.
    machine = made.machines(LocalTransport(ENV))["lab-1"]
    asyncio.run(
        machine.sh("HOME=/root netlab show providers >/dev/null; test -e /root/.netlab/topology-defaults.pickle")
    )
    yield made
    made.close()


@pytest.fixture
def lab(tmp_path: Path, world: DockerWorld) -> Lab:
    made = Lab(tmp_path, world.machines(LocalTransport(ENV))["lab-1"], world)
    made.write(TRIANGLE)
    return made


async def test_a_published_topology_runs_is_told_mended_and_leaves_nothing(lab: Lab) -> None:
    before = await lab.sh(STATE)
    spec = lab.spec()

    seen, change = await lab.look(spec)
    assert (seen.exists, change.action) == (False, Action.CREATE)
    addresses = [item.address for item in change.resources]
    assert addresses[:4] == ["node h1", "node r1", "node r2", "node r3"]
    assert "link r1:eth1 -- r2:eth1" in addresses
    assert await lab.sh(STATE) == before, "a plan leaves nothing on the host"

    seen = await lab.settled(spec, change)
    out = {name: value.value for name, value in seen.outputs.items()}
    assert out["validation"]["result"] == "passed"
    assert [test["name"] for test in out["validation"]["tests"]] == ["session", "loopback"]
    assert out["nodes"]["r1"]["state"] == "running"
    assert out["announced_by"]["r3"][0] == "10.0.0.3/32"
    assert {"node": "r2", "as": 65000, "neighbor": "r3", "neighbor_as": 65001, "type": "ebgp"}.items() <= next(
        item for item in out["bgp"] if item["node"] == "r2" and item["neighbor"] == "r3"
    ).items()
    assert out["routing"]["r1"]["ospf"]["area"] == "0.0.0.0"
    assert out["netlab"]["version"] == "26.10"
    assert "docker exec -it clab-ml-" in out["consoles"]["r1"]["exec"]

    # One node is killed, another one is started again by Docker, without its links: both are named, and mended without
    # touching the others. A Linux host does not get its address back by itself, FRR does.
    name, host = (out["nodes"][node]["container"] for node in ("r2", "h1"))
    started = await lab.started()
    await lab.sh(f"docker kill {name}; docker restart -t 0 {host}")
    seen, change = await lab.look(spec)
    assert "node r2: its container is exited" in seen.reason
    assert "node h1: its container was started again" in seen.reason
    assert [item.address for item in change.resources] == ["node h1", "node r2"]
    mended = await lab.settled(spec, change)
    assert mended.outputs["validation"].value["result"] == "passed"
    again = await lab.started()
    assert {node for node in started if started[node] != again[node]} == {name, host}

    await lab.down(spec)
    assert await lab.sh(STATE) == before
    assert not lab.world.kept.data
    await lab.down(spec)


PAIR = """\
defaults.device: linux
nodes: {a: {}, b: {}, c: {}}
links: [a-b, b-c]
"""

UNREACHABLE = """\
validate:
  reach:
    nodes: [a]
    devices: [linux]
    exec: ping -c 1 -W 1 10.66.66.66
    valid: |
      "64 bytes" in stdout
"""


async def test_the_hybrid_example_makes_the_routers_that_its_composition_announces(lab: Lab) -> None:
    shutil.copytree(HYBRID / "netlab", lab.world.folder / "netlab")
    _, change = await lab.look(lab.spec(topology="netlab/topology.yml"))
    assert [item.address for item in change.resources] == [
        *("node r1", "node r2", "node r3"),
        *("link r1:eth1 -- r2:eth1", "link r1:eth2 -- r3:eth1", "link r2:eth2 -- r3:eth2", "link r1:eth3"),
    ]
    inputs = yaml.safe_load((HYBRID / "skyspan.yaml").read_text())["inputs"]
    loopbacks = routing_outputs(change.payload.made.facts)["loopbacks"]
    assert [loopbacks[node]["ipv4"] for node in ("r1", "r2", "r3")] == inputs["node_loopbacks"]["default"]


async def test_what_cannot_work_is_said_in_netlabs_words_and_leaves_nothing(lab: Lab) -> None:
    before = await lab.sh(STATE)
    lab.write(PAIR.replace("b-c", "b-x"))
    with pytest.raises(SpecError, match=r"topology\.yml: links: Link string b-x .* unknown node x"):
        await lab.look(lab.spec())
    lab.write("nodes: [a\nlinks: []\n")
    with pytest.raises(SpecError, match=r"(?s)Cannot read YAML from topology\.yml.*line 2, column 6"):
        await lab.look(lab.spec())
    lab.write(PAIR)
    _, change = await lab.look(lab.spec(program="no-such-netlab"))
    assert (change.action, change.resources) == (Action.CREATE, ())
    assert "lab-1 lacks no-such-netlab" in change.reason
    with pytest.raises(ToolMissingError, match="lab-1 lacks no-such-netlab"):
        await lab.up(lab.spec(program="no-such-netlab"))
    assert await lab.sh(STATE) == before

    with pytest.raises(SpecError, match="lab-1 has no image skyspan/nothere:1"):
        await lab.up(lab.spec(images={"linux": "skyspan/nothere:1"}))

    # Half a lab is there when its nodes may not have what they ask for; destroying takes it away.
    with pytest.raises(StageError) as caught:
        await lab.up(lab.spec(restricted=False))
    assert "restricted: true" in caught.value.hint
    assert await lab.sh("docker ps -aq") != ""
    await lab.down(lab.spec())
    assert await lab.sh(STATE) == before


async def test_labs_side_by_side_change_by_the_node_or_as_a_whole_stop_and_start(
    lab: Lab, tmp_path: Path, world: DockerWorld
) -> None:
    before = await lab.sh(STATE)
    await lab.sh(f"docker tag {NODE} skyspan/node:2")
    lab.write(PAIR)
    second = Lab(tmp_path, lab.machine, world, "second")
    second.write(PAIR + UNREACHABLE)
    one, two = await asyncio.gather(lab.settled(lab.spec()), second.up(second.spec()), return_exceptions=True)
    assert isinstance(one, Observation), one

    # The other one's test fails: it is named with its node, and the lab is left for people to look at.
    assert isinstance(two, NotReadyError)
    assert two.summary == "validation failed: reach (a)"
    seen, change = await second.look(second.spec())
    assert (seen.exists, seen.reason, change.action) == (True, "validation failed: reach (a)", Action.UPDATE)
    started = await lab.started()
    told = second.spec(validation="report")
    two = await second.settled(told)
    assert two.outputs["validation"].value["result"] == "failed"
    assert await lab.started() == started, "nothing was made again"
    here, there = (seen.outputs["netlab"].value["number"] for seen in (one, two))
    assert here != there
    managed = [ip_network(seen.outputs["management"].value["ipv4"]) for seen in (one, two)]
    assert not managed[0].overlaps(managed[1])
    with pytest.raises(SpecError, match=f"number {here} is default/proof/lab's"):
        await second.look(second.spec(number=here, validation="report"))

    # Another image for one node: the others, and the other lab, go on.
    spec = lab.spec(images={"linux": NODE, "b": "skyspan/node:2"})
    seen, change = await lab.look(spec)
    assert change.action is Action.UPDATE
    assert [(item.address, item.note) for item in change.resources] == [("node b", "skyspan/node:2")]
    started = await lab.started()
    seen = await lab.settled(spec, change)
    assert seen.outputs["nodes"].value["b"]["image"] == "skyspan/node:2"
    again = await lab.started()
    assert {name for name in started if started[name] != again.get(name)} == {f"clab-ml-{here}-b"}
    await lab.sh(f"docker exec clab-ml-{here}-a ping -c 1 -W 2 {address(seen, 'b', 'eth1')}")

    # It stops and starts, and the other one goes on.
    await lab.provider.stop(spec, lab.world.writing())
    seen, change = await lab.look(spec)
    assert (seen.exists, seen.reason, change.action) == (True, "stopped", Action.UPDATE)
    assert {name.split("-")[2] for name in await lab.started()} == {str(there)}
    seen = await lab.provider.start(spec, lab.world.writing())
    assert seen.healthy, seen.reason

    # Another link: netlab cannot add it to what runs.
    lab.write(PAIR.replace("b-c]", "b-c, c-a]"))
    seen, change = await lab.look(spec)
    assert (change.action, "made anew as a whole" in change.reason) == (Action.REPLACE, True)
    assert ("link c:eth2 -- a:eth2", Action.CREATE) in [(item.address, item.action) for item in change.resources]
    await lab.settled(spec, change)

    # Another test: nothing that runs is touched.
    started = await lab.started()
    lab.write(PAIR.replace("b-c]", "b-c, c-a]") + UNREACHABLE.replace("10.66.66.66", "127.0.0.1"))
    seen, change = await lab.look(spec)
    assert [(item.address, item.action) for item in change.resources] == [("validation tests", Action.UPDATE)]
    seen = await lab.settled(spec, change)
    assert seen.outputs["validation"].value["result"] == "passed"
    assert await lab.started() == started

    # The host's netlab is another one than the lab's.
    record = json.loads(lab.world.kept.data["lab"])
    lab.world.kept.data["lab"] = json.dumps({**record, "version": "26.09"}).encode()
    seen, change = await lab.look(spec)
    assert (seen.healthy, change.action) == (True, Action.NONE)
    assert "the lab was made by netlab 26.09, but lab-1 has 26.10 now" in lab.world.report.lines
    with pytest.raises(ToolMissingError, match=r"made by netlab 26\.09"):
        await lab.look(lab.spec(images={"linux": "skyspan/node:2"}))
    seen, change = await lab.look(spec.model_copy(update={"new_version": "recreate"}))
    assert (change.action, "made by netlab 26.09" in change.reason) == (Action.REPLACE, True)

    # Somebody takes everything that Docker has of it: a reboot does the same.
    await lab.sh(f"docker rm -f $(docker ps -q --filter label=containerlab=ml-{there})")
    seen = await second.settled(told)
    assert seen.outputs["nodes"].value["a"]["state"] == "running"

    await lab.down(spec)
    assert await lab.sh("docker ps -q") != "", "the other lab is left alone"
    await second.down(told)
    await lab.sh("docker rmi skyspan/node:2")
    assert await lab.sh(STATE) == before


async def test_an_apply_that_died_converges_and_devices_that_exist_are_never_asked_about(lab: Lab) -> None:
    before = await lab.sh(STATE)
    lab.write(
        "provider: external\ndefaults.device: frr\nnodes: {x: {mgmt.ipv4: 10.99.0.1}, y: {mgmt.ipv4: 10.99.0.2}}\n"
        "links: [{x: {ifname: ge1}, y: {ifname: ge2}}]\n"
    )
    spec = lab.spec(images={}, restricted=False, configure=False, provider="external")
    for number, side in ((4, Side.AFTER), (6, Side.BEFORE)):
        with pytest.raises(Died):
            await lab.up(spec, Gate(die_at=(number, side)))
        if number % 4 == 0:
            seen = await lab.settled(spec)
            assert seen.outputs["nodes"].value["x"]["state"] == "external"
            assert seen.outputs["links"].value[0]["ends"][1] == {"node": "y", "interface": "ge2"}
            assert (await lab.up(spec)).outputs == seen.outputs
        await lab.down(spec)
        assert await lab.sh(STATE) == before, f"died {side} effect {number}"


def address(seen: Observation, node: str, interface: str) -> str:
    found = next(
        item for item in seen.outputs["addressing"].value if (item["node"], item["interface"]) == (node, interface)
    )
    return str(found["addresses"][0].partition("/")[0])
