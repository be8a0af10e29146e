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
from tests.support.gateways import ENV

from skyspan.model.address import DeploymentAddress, StageAddress
from skyspan.model.change import Action, Change, Observation
from skyspan.model.error import (
    CredentialsError,
    NotReadyError,
    SpecError,
    StageError,
    ToolFailedError,
    ToolMissingError,
)
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
iptables-save | grep -v -e '^[#:]' | sort; ip route | sed 's/ linkdown//'
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

    def edit(self, before: str, after: str, file: str = "lab.clab.yml") -> None:
        path = self.surroundings.folder / file
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
        stop_within=1.0,
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

    # Killed: named, and repaired alone, its links and their addresses at both ends too; and a link that was taken away.
    since = started(world, "triangle")
    world.docker("lab-1", "kill", "clab-triangle-r2")
    await machine.sh("nsenter -t $(docker inspect -f '{{.State.Pid}}' clab-triangle-r1) -n ip link delete eth2")
    seen = await lab.observe()
    assert seen.drifted
    assert "node r2: its container ended with status 137" in seen.reason
    torn = "link r1:eth2 -- pc:eth1"
    assert {item.address for item in seen.drift} == {"node r2", "link r1:eth1 -- r2:eth1", torn}
    assert listed(await lab.up())[torn] == "create"
    assert kept(since, started(world, "triangle")) == {"r1", "pc"}
    lab.spec = lab.spec.model_copy(update={"wait": ()})  # it is the same every time from here on
    # Restarted by Docker, a container comes back without its links.
    world.docker("lab-1", "restart", "-t", "0", "clab-triangle-pc")
    assert "link r1:eth2 -- pc:eth1: r1:eth2 and pc:eth1 are gone" in (await lab.observe()).reason
    await lab.up()
    world.docker("lab-1", "exec", "clab-triangle-pc", "ping", "-c1", "-W1", "10.2.0.1")
    # A container that somebody removed.
    world.docker("lab-1", "rm", "-f", "clab-triangle-pc")
    await lab.up()
    world.docker("lab-1", "exec", "clab-triangle-pc", "ping", "-c1", "-W1", "10.2.0.1")

    # Stopped, links wait on the host; started, they are there with what they had.
    await lab.provider.stop(lab.spec, lab.surroundings.writing())
    assert (await lab.observe()).reason == "it is stopped"
    await lab.provider.stop(lab.spec, lab.surroundings.writing())
    await lab.up()
    world.docker("lab-1", "exec", "clab-triangle-pc", "ping", "-c1", "-W1", "10.2.0.1")
    world.docker("lab-1", "exec", "clab-triangle-r1", "ping", "-c1", "-W1", "10.1.0.2")

    # A link's settings may change, and a node may go.
    lab.edit('- endpoints: ["r1:eth1", "r2:eth1"]', '- {endpoints: ["r1:eth1", "r2:eth1"], mtu: 1400}')
    since = started(world, "triangle")
    text = (lab.surroundings.folder / "lab.clab.yml").read_text()
    lab.write({"lab.clab.yml": "".join(line for line in text.splitlines(True) if not re.search(r"\bpc\b", line))})
    lab.spec = lab.spec.model_copy(update={"images": {}})
    assert listed(await lab.up()) == {
        "link r1:eth1 -- r2:eth1": "update",
        "node pc": "destroy",
        "link r1:eth2 -- pc:eth1": "destroy",
    }
    assert kept(since, started(world, "triangle")) == {"r1", "r2"}
    assert "mtu 1400" in world.docker("lab-1", "exec", "clab-triangle-r1", "ip", "link", "show", "eth1")

    await lab.destroy()
    await assert_as(before, machine)
    await lab.destroy()


MIXED = """\
name: Mixed_1
mgmt: {ipv4_subnet: 172.29.5.0/24, network: mixed, bridge: br-mixed}
topology:
  defaults: {kind: linux, image: IMG, cmd: sleep 3600}
  nodes:
    a: {exec: ["ip addr add 10.5.1.1/24 dev eth1", "ip addr add 10.5.2.1/24 dev eth2"]}
    b: {mgmt-ipv4: 172.29.5.40, network-mode: bridge, exec: ["ip addr add 10.5.2.2/24 dev eth1"]}
    outside: {kind: ext-container, exec: ["ip addr add 10.5.1.9/24 dev eth9"]}
    br-own: {kind: bridge}
    host: {kind: host}
  links:
    - endpoints: ["a:eth1", "outside:eth9"]
    - endpoints: ["a:eth2", "br-own:p1"]
    - endpoints: ["br-own:p2", "b:eth1"]
    - {type: host, host-interface: mixed-a3, endpoint: {node: a, interface: eth3}}
    - endpoints: ["b:eth2", "mgmt-net:mixed-b2"]
""".replace("IMG", BUSYBOX)


async def test_a_command_that_something_in_its_node_stopped_is_run_again(world: DockerWorld, tmp_path: Path) -> None:
    """As FRR's start does, which stops what has a process number that it kept from before a restart."""
    stopped_once = "test -e /run/again || { mkdir -p /run; touch /run/again; exit 130; }"
    places = {"lab-1": world.machines(LocalTransport(ENV))["lab-1"]}
    lab = Stage.make(tmp_path, places, world, "small", stop_within=1.0).write({"lab.clab.yml": SMALL})
    lab.edit('"ip addr add 10.1.0.2/30 dev eth1"', f"\"sh -c '{stopped_once}; ip addr add 10.1.0.2/30 dev eth1'\"")
    await lab.up()
    world.docker("lab-1", "exec", "clab-small-a", "ping", "-c1", "-W1", "10.1.0.2")

    # The same when containerlab starts the node again, by the same topology or by another one than it was stopped with.
    for change in (("IMG", "IMG"), ("10.1.0.1/30", "10.1.0.1/29")):
        world.docker("lab-1", "exec", "clab-small-b", "rm", "/run/again")
        await lab.provider.stop(lab.spec, lab.surroundings.writing())
        lab.edit(*(part.replace("IMG", BUSYBOX) for part in change))
        await lab.up()
        world.docker("lab-1", "exec", "clab-small-a", "ping", "-c1", "-W1", "10.1.0.2")
    await lab.destroy()


async def test_a_lab_is_connected_to_what_others_made_and_leaves_it(world: DockerWorld, tmp_path: Path) -> None:
    machine: Machine = world.machines(LocalTransport(ENV))["lab-1"]
    lab = Stage.make(tmp_path, {"lab-1": machine}, world, "mixed").write({"lab.clab.yml": MIXED})
    with pytest.raises(SpecError, match="there is no bridge br-own on lab-1") as refused:
        await lab.up()
    await machine.sh(refused.value.hint.removeprefix("make it: "))
    with pytest.raises(SpecError, match="the container outside, which the lab is connected to, does not run on lab-1"):
        await lab.up()
    world.docker("lab-1", "run", "-d", "--name", "outside", "--cap-add", "NET_ADMIN", BUSYBOX, "sleep", "3600")
    before = await machine.sh(STATE)
    await lab.up()
    for node, address in (("a", "10.5.1.9"), ("a", "10.5.2.2")):
        world.docker("lab-1", "exec", f"clab-Mixed_1-{node}", "ping", "-c1", "-W1", address)
    assert await machine.sh("ip link show mixed-a3; ip link show mixed-b2")
    # The container of others gets its end of the link back, with its address.
    since = started(world, "Mixed_1")
    world.docker("lab-1", "kill", "clab-Mixed_1-a")
    assert "link a:eth1 -- outside:eth9" in listed(await lab.up())
    assert kept(since, started(world, "Mixed_1")) == {"b"}
    world.docker("lab-1", "exec", "clab-Mixed_1-a", "ping", "-c1", "-W1", "10.5.1.9")
    world.docker("lab-1", "kill", "outside")
    assert "node outside: the container, of others, does not run" in (await lab.observe()).reason
    world.docker("lab-1", "start", "outside")
    await lab.up()
    world.docker("lab-1", "exec", "clab-Mixed_1-a", "ping", "-c1", "-W1", "10.5.1.9")
    await lab.destroy()
    # Docker gave it another interface when it was started again.
    after = re.sub(r"(?m)^veth\w+$", "veth", await machine.sh(STATE))
    assert after == re.sub(r"(?m)^veth\w+$", "veth", before)
    world.docker("lab-1", "rm", "-f", "outside")
    await machine.sh("ip link delete br-own")


async def test_two_labs_live_side_by_side_and_what_cannot_work_touches_nothing(
    world: DockerWorld, tmp_path: Path
) -> None:
    machine = world.machines(LocalTransport(ENV))["lab-1"]
    places = {"lab-1": machine}
    before = await machine.sh(STATE)

    def small(label: str, topology: str = SMALL, **settings: Any) -> Stage:
        made = Stage.make(tmp_path, places, world, label, **{"name": label, **settings})
        return made.write({"lab.clab.yml": topology})

    shared = SMALL.replace(
        "  links:", f'    user: {{kind: linux, image: "{BUSYBOX}", network-mode: "container:a"}}\n  links:'
    )
    one, two = small("one"), small("two", shared)
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

    # Where a node is in another one's network, containerlab changes nothing: the lab is made anew, and that is told.
    world.docker("lab-1", "kill", "clab-two-b")
    change = await two.up()
    assert change.action is Action.REPLACE
    assert "a node (user) shares another one's network" in change.reason
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


TEMPLATE = """\
{{- $n := .leafs -}}
name: {{ .name }}
topology:
  defaults: {kind: Linux, image: "${IMAGE:=skyspan/busybox:1}", cmd: sleep 3600, group: only-a-label}
  nodes:
  {{- range $i := seq 1 $n }}
    leaf{{ $i }}:
      binds: ["store/__clabNodeName__:/store"]
      exec: ["ip addr add 10.7.{{ $i }}.1/30 dev eth1", "sh -c 'echo __clabNodeName__ > /store/who'"]
      env: {PASSWORD: "{{ $.password }}", LITERAL: '{{ "{{" }} x }}', DOLLAR: "a$$b"}
  {{- end }}
    spine: {exec: [{{ range $i := seq 1 $n }}"ip addr add 10.7.{{ $i }}.2/30 dev eth{{ $i }}", {{ end }}]}
  links:
{{ template "links" . -}}
"""

LINKS = """\
{{ define "links" }}{{ range $i := seq 1 .leafs }}    - endpoints: ["leaf{{ $i }}:eth1", "spine:eth{{ $i }}"]
{{ end }}{{ end }}"""

LOGINS = """
for name in lab guest; do useradd --create-home --shell /bin/sh --password '*' $name; done
echo 'lab ALL=(root) NOPASSWD: ALL' > /etc/sudoers.d/lab; chmod 440 /etc/sudoers.d/lab
"""


async def test_a_template_for_a_login_with_sudo_comes_back_after_its_host_was_rebooted(
    world: DockerWorld, tmp_path: Path
) -> None:
    machine: Machine = world.machines(LocalTransport(ENV))["lab-2"]
    await machine.sh(LOGINS)

    def login(user: str) -> SshTransport:
        return SshTransport(replace(world.hosts["lab-2"], user=user), world.ssh)

    lab = Stage.make(tmp_path, {}, world, "far", host="lab-2", topology="far.clab.gotmpl", env={"IMAGE": BUSYBOX})
    lab.write({"far.clab.gotmpl": TEMPLATE, "far.clab_vars.yaml": "name: far\nleafs: 2\n"})
    lab.write({"far.clab_vars.more.json": '{"password": "pa$s"}'})
    for folder in ("clab_templates", "store/leaf1", "store/leaf2"):
        (lab.surroundings.folder / folder).mkdir(parents=True)
    lab.write({"clab_templates/links.gotmpl": LINKS})
    before = await machine.sh(STATE)
    with world.network():
        lab.surroundings.transports = {"lab-2": login("guest")}
        with pytest.raises(CredentialsError) as refused:
            await lab.up()
        assert "sudo without a password" in refused.value.hint
        lab.surroundings.transports = {"lab-2": login("lab")}
        lab.edit("seq 1 $n", "nosuch 1 $n", "far.clab.gotmpl")
        with pytest.raises(SpecError, match=r"the template far\.clab\.gotmpl cannot be rendered") as unknown:
            await lab.up()
        assert 'function "nosuch" not defined' in unknown.value.detail
        lab.edit("nosuch 1 $n", "seq 1 $n", "far.clab.gotmpl")
        assert await machine.sh(STATE) == before, "what is refused touches nothing"
        await lab.up()
        commands = len(lab.surroundings.commands)
        console = (await lab.observe()).outputs["consoles"].value["leaf1"]["exec"]
        assert len(lab.surroundings.commands) == commands + 1, "nothing is rendered that was rendered before"
        assert console.startswith("ssh -t -i ")
        assert console.endswith("root@198.51.100.10 'docker exec -it clab-far-leaf1 sh'")
        show = 'cat /store/who; echo "$PASSWORD $LITERAL $DOLLAR"'
        assert world.docker("lab-2", "exec", "clab-far-leaf1", "sh", "-c", show) == "leaf1\npa$s {{ x }} a$b"
        await lab.surroundings.transports["lab-2"].close()
    world.fault("reboot", "lab-2")
    with world.network():
        lab.surroundings.transports = {"lab-2": login("lab")}
        seen = await lab.observe()
        assert seen.drifted
        assert "link leaf1:eth1 -- spine:eth1" in {item.address for item in seen.drift}
        await lab.up()
        world.docker("lab-2", "exec", "clab-far-spine", "ping", "-c1", "-W1", "10.7.2.1")
        assert world.docker("lab-2", "exec", "clab-far-leaf2", "cat", "/store/who") == "leaf2"
        lab.spec = lab.spec.model_copy(update={"stop_within": 1.0})
        await lab.provider.stop(lab.spec, lab.surroundings.writing())
        assert (await lab.observe()).reason == "it is stopped"
        # Other variables are another topology.
        (lab.surroundings.folder / "far.clab_vars.yaml").write_text("name: far\nleafs: 1\n")
        assert listed(await lab.up())["node leaf2"] == "destroy"
        await lab.destroy()
        assert world.docker("lab-2", "ps", "-aq") == ""
        await lab.surroundings.transports["lab-2"].close()


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
