"""What a look at a host with labs is read into, which management network a lab gets, and when a lab is ready."""

from __future__ import annotations

import json
import random
from ipaddress import IPv4Network, ip_network
from pathlib import Path

import pytest

from skyspan.contracts.transport import Command, Completed, Effect
from skyspan.model.error import CredentialsError, NotReadyError, StageError, ToolFailedError, ToolMissingError
from skyspan.providers.lab.containers import docker_trouble, look_command, lost_interfaces, parse_look
from skyspan.providers.lab.management import POOLS, Network, PoolExhaustedError, allocate, bridge_name, overlapping
from skyspan.providers.lab.topology import LabLink
from skyspan.providers.lab.waiting import LabWait, bgp_trouble, inside_command, until_ready
from skyspan.testing.provider_world import ProviderWorld, ScriptedTransport, SteppingClock

RECORDED = Path(__file__).parent / "lab_samples"


def test_a_look_gives_containers_with_their_interfaces_networks_and_routes() -> None:
    look = parse_look((RECORDED / "look.txt").read_text())
    one, two, three = look.containers
    assert (one.name, one.state, one.labels["clab-node-name"]) == ("clab-two-n1", "running", "n1")
    assert one.attached[0].ipv4 == "172.31.240.4"
    eth2 = one.interface("eth2")
    assert eth2 is not None
    assert eth2.up
    assert eth2.index > 1
    assert one.interface("eth1") is None, "its peer was killed, and took the wire along"
    assert (two.state, two.interfaces, two.exit_code) == ("exited", (), 137)
    assert [item.addresses for item in three.interfaces if item.name == "eth1"] == [("10.1.0.5/30",)]
    bridges = {net.name: (net.bridge, net.by_containerlab) for net in look.networks}
    assert bridges["sk-two"][0].startswith("br-")
    assert bridges["sk-two"][1]
    assert bridges["bridge"] == ("docker0", False)
    assert (ip_network("172.31.240.0/24"), bridges["sk-two"][0]) in look.routes


def test_lost_interfaces_are_named_by_node_and_a_stopped_container_loses_none() -> None:
    look = parse_look((RECORDED / "look.txt").read_text())
    by_node = {item.labels["clab-node-name"]: item for item in look.containers}
    links = (LabLink((("n1", "eth1"), ("n2", "eth1"))), LabLink((("n1", "eth2"), ("n3", "eth1"))))
    assert lost_interfaces(links, by_node) == {"n1": ("eth1",)}


def test_taken_networks_leave_out_what_is_the_labs_own() -> None:
    look = parse_look((RECORDED / "look.txt").read_text())
    assert ip_network("172.31.240.0/24") in [net for _, net in look.taken()]
    assert ip_network("172.31.240.0/24") not in [net for _, net in look.taken(besides=["sk-two"])]
    assert overlapping("172.31.0.0/16", look.taken(["sk-two"])) == ["172.31.250.0/24 (Docker's network bridge)"]


def test_a_look_at_an_empty_host_is_empty() -> None:
    assert parse_look("@containers\n\n").containers == ()


def test_a_look_reads_only() -> None:
    assert look_command("containerlab=two").effect is Effect.READ


@pytest.mark.parametrize(
    ("code", "words", "kind", "hint"),
    [
        (90, "", ToolMissingError, "install Docker"),
        (1, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", ToolMissingError, "systemctl start"),
        (1, "Got permission denied while trying to connect to the Docker daemon socket", CredentialsError, "sudo"),
        (1, "sudo: a password is required", CredentialsError, "sudo"),
        (1, "write /var/lib/docker/x: no space left on device", ToolFailedError, "docker system df"),
        (1, "something else", ToolFailedError, ""),
    ],
)
def test_trouble_with_docker_is_told_by_its_kind(code: int, words: str, kind: type[StageError], hint: str) -> None:
    error = docker_trouble(Completed(code, stderr=words.encode()), "lab-gw", "looking")
    assert type(error) is kind
    assert "lab-gw" in error.summary
    assert hint in error.hint
    assert error.detail == words


def test_a_management_network_is_the_same_every_time_and_overlaps_nothing() -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    avoid: list[Network] = [IPv4Network((int(POOLS[0][0]) + chance.randrange(2**16), 32)) for _ in range(200)]
    avoid.append(IPv4Network("10.253.128.0/17"))
    for number in range(50):
        found = allocate(f"default/lab-{number}/lab", avoid)
        network = ip_network(found.ipv4)
        assert network.prefixlen == 24, f"seed {seed}"
        assert not any(net.overlaps(network) for net in avoid), f"seed {seed}"
        assert allocate(f"default/lab-{number}/lab", avoid) == found
        assert len(found.bridge) <= 15
        avoid.append(network)


def test_when_the_first_pool_is_full_the_next_is_taken_and_then_none() -> None:
    assert allocate("x", [POOLS[0]]).ipv4.startswith("100.125.")
    with pytest.raises(PoolExhaustedError, match=r"10\.253"):
        allocate("x", list(POOLS))


def test_bridges_of_two_stages_have_two_names() -> None:
    assert bridge_name("a") != bridge_name("b")


def test_exactly_one_thing_is_waited_for() -> None:
    for settings in ({}, {"command": "x", "port": 1}, {"contains": "x", "port": 1}):
        with pytest.raises(ValueError, match=r"needs|exactly one"):
            LabWait.model_validate({"node": "r1", **settings})
    assert LabWait(node="r1", bgp="192.0.2.1").words() == "r1: BGP with 192.0.2.1"


FRR = json.dumps(
    {
        "default": {
            "ipv4Unicast": {"peers": {"10.1.0.2": {"state": "Established"}, "10.2.0.2": {"state": "Active"}}},
            "ipv6Unicast": {"peers": {"2001:db8::2": {"state": "Established"}}},
        }
    }
)
BIRD = (
    "Name Proto Table State Since Info\nup1 BGP --- up 10:00 Established\nup2 BGP --- start 10:00 Connect Socket: x\n"
)


@pytest.mark.parametrize(
    ("text", "neighbour", "trouble"),
    [
        (FRR, "", "10.2.0.2 is Active"),
        (FRR, "10.1.0.2", ""),
        (FRR, "2001:0db8::2", ""),
        (FRR, "10.9.9.9", "no session with 10.9.9.9 is known"),
        (BIRD, "up1", ""),
        (BIRD, "", "up2 is Connect Socket: x"),
        ("", "", "no session is known"),
        ("{}", "", "no session is known"),
    ],
)
def test_bgp_sessions_of_both_daemons_are_read(text: str, neighbour: str, trouble: str) -> None:
    assert bgp_trouble(text, neighbour) == trouble


async def test_waiting_goes_on_until_it_is_so_and_names_what_was_said_last(tmp_path: Path) -> None:
    answers = iter([Completed(1, stderr=b"no such host"), Completed(0, b"starting"), Completed(0, b"all ready")])
    clock = SteppingClock()
    place = ScriptedTransport(lambda command: next(answers))
    ctx = ProviderWorld(tmp_path, {None: place}, clock=clock).reading()
    await until_ready([LabWait(node="r1", command="ask", contains="ready")], {"r1": ("clab-a-r1", "")}, place, ctx)
    assert len(clock.slept) == 2
    assert place.commands[0].argv[-3:] == ("sh", "-c", "ask")
    silent = ScriptedTransport(lambda command: Completed(0, b"nothing yet"))
    with pytest.raises(NotReadyError, match="r1: ask prints 'ready'") as caught:
        await until_ready(
            [LabWait(node="r1", command="ask", contains="ready", within=2)], {"r1": ("c", "")}, silent, ctx
        )
    assert "nothing yet" in caught.value.detail


async def test_a_port_is_asked_from_the_labs_host(tmp_path: Path) -> None:
    place = ScriptedTransport()
    ctx = ProviderWorld(tmp_path, {None: place}, clock=SteppingClock()).reading()
    with pytest.raises(NotReadyError) as caught:
        await until_ready([LabWait(node="r1", port=22, within=1)], {"r1": ("c", "192.0.2.9")}, place, ctx)
    assert caught.value.detail == "192.0.2.9:22: refused"


def test_a_command_inside_is_a_value() -> None:
    command = inside_command("c", ("ip", "address"), effect=Effect.WRITE)
    assert isinstance(command, Command)
    assert command.argv[-3:] == ("c", "ip", "address")
