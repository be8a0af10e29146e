"""What differs between a lab and what runs, what is mended, and which commands are run again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from skyspan.contracts.transport import Completed
from skyspan.model.change import Action, Observation
from skyspan.model.error import CredentialsError, SpecError, StageError, ToolFailedError, ToolMissingError
from skyspan.model.secret import Secret
from skyspan.providers.containerlab.commands import Place
from skyspan.providers.containerlab.compare import changed_links, differences, drift
from skyspan.providers.containerlab.hosts import Survey, _deploy_failed, disowned, render, survey
from skyspan.providers.containerlab.memory import Memory, Settled
from skyspan.providers.containerlab.observation import observation
from skyspan.providers.containerlab.provider import ContainerlabProvider
from skyspan.providers.containerlab.repair import Sight, due, mending, settled_of
from skyspan.providers.containerlab.spec import ContainerlabSpec
from skyspan.providers.containerlab.template import Template
from skyspan.providers.containerlab.topology import Topology, topology_of
from skyspan.providers.containerlab.wanted import missing_image
from skyspan.providers.lab.containers import Container, Interface
from skyspan.providers.lab.topology import Management
from skyspan.testing.provider_world import ProviderWorld, ScriptedTransport

TWO = {
    "name": "two",
    "topology": {
        "nodes": {
            "a": {"kind": "linux", "image": "x:1", "exec": ["ip addr add 10.1.0.1/30 dev eth1", "sysctl -w a=1"]},
            "b": {"kind": "linux", "image": "x:1", "exec": ["ip addr add 10.1.0.2/30 dev eth1"]},
            "br": {"kind": "bridge"},
        },
        "links": [{"endpoints": ["a:eth1", "b:eth1"]}, {"endpoints": ["a:eth11", "br:a"]}],
    },
}
LAB = topology_of(TWO)


def container(
    node: str, state: str = "running", own: str = "", since: str = "t0", faces: Iterable[int] = ()
) -> Container:
    names = {"a": ("eth1", "eth11"), "b": ("eth1",)}[node]
    found = tuple(Interface(name, index=index) for name, index in zip(names, faces, strict=False) if index)
    return Container(own or node, f"clab-two-{node}", "x:1", state, {}, started_at=since, interfaces=found)


WELL = {"a": container("a", faces=(7, 9)), "b": container("b", faces=(8,))}
SETTLED = settled_of(WELL, {"a": "f", "b": ""})


def drifted(**others: Container | None) -> dict[str, str]:
    there = {name: item for name, item in {**WELL, **others}.items() if item is not None}
    return {item.address: f"{item.action} {item.note}".strip() for item in drift(LAB, SETTLED, there)}


def test_a_lab_that_is_as_it_settled_has_not_drifted() -> None:
    assert drifted() == {}
    seen = observation(LAB, Memory(None, "two", "", "", "", Management("n"), settled=SETTLED), WELL, None)
    assert (seen.healthy, seen.drifted, seen.reason) == (True, False, "")
    assert seen.outputs["nodes"].value["br"]["state"] == "external"


def test_a_killed_node_is_named_and_its_link() -> None:
    found = drifted(b=container("b", "exited"), a=container("a", faces=(0, 9)))
    assert found == {
        "node b": "update its container ended with status 0",
        "link a:eth1 -- b:eth1": "create a:eth1 and b:eth1 are gone",
    }


def test_a_node_that_is_gone_or_was_never_started_is_named() -> None:
    assert drifted(b=None)["node b"] == "create its container is gone"
    assert drifted(b=container("b", "created"))["node b"] == "update its container was never started"


def test_a_restart_is_drift_only_where_commands_were_lost_with_it() -> None:
    assert drifted(b=container("b", since="t1", faces=(8,))) == {
        "node b": "update it was restarted, without its commands"
    }
    silent = topology_of({"name": "two", "topology": {"nodes": {"a": {"kind": "linux", "image": "x:1"}}}})
    restarted = {"a": container("a", since="t1")}
    assert drift(silent, SETTLED, restarted) == ()
    assert [item.address for item in drift(silent, SETTLED, restarted, instructed=["a"])] == ["node a"]


def test_an_interface_with_another_index_is_another_one() -> None:
    assert drifted(a=container("a", faces=(70, 9))) == {
        "link a:eth1 -- b:eth1": "update a:eth1 is new, without addresses"
    }


def test_a_container_that_no_node_has_is_drift() -> None:
    (item,) = drift(LAB, SETTLED, WELL, ["clab-two-old"])
    assert (item.address, item.action) == ("container clab-two-old", Action.DESTROY)


def other(**nodes: dict[str, object]) -> Topology:
    section = TWO["topology"]
    assert isinstance(section, dict)
    return topology_of({**TWO, "topology": {**section, "nodes": {**section["nodes"], **nodes}}})


def test_another_topology_changes_what_differs_and_nothing_else() -> None:
    after = other(b={"kind": "linux", "image": "x:2"}, c={"kind": "linux", "image": "x:1"})
    found = {item.address: item.action for item in differences(LAB, after, SETTLED, {"a": "f"})}
    assert found == {"node b": Action.REPLACE, "node c": Action.CREATE}
    back = {item.address: item.action for item in differences(after, LAB, SETTLED, {"a": "other"})}
    assert back == {"node b": Action.REPLACE, "node c": Action.DESTROY, "node a": Action.REPLACE}


def test_a_link_with_other_settings_is_made_anew() -> None:
    section = TWO["topology"]
    assert isinstance(section, dict)
    links = [{**section["links"][0], "mtu": "1400"}, section["links"][1]]
    after = topology_of({**TWO, "topology": {**section, "links": links}})
    assert [item.address for item in differences(LAB, after, SETTLED, {"a": "f"})] == ["link a:eth1 -- b:eth1"]
    assert changed_links(LAB, after) == [after.links[0]]
    assert changed_links(LAB, LAB) == []


def test_what_ended_is_started_unless_parked_and_what_never_ran_is_removed() -> None:
    ended = {"a": container("a", "exited"), "b": container("b", "created")}
    mend = mending(ended, SETTLED, {"a": "f"}, ())
    assert (mend.removed, mend.started) == (("clab-two-b",), ("clab-two-a",))
    assert mending(ended, SETTLED, {"a": "f"}, ("clab-two-a",)).started == ()
    assert mending(WELL, SETTLED, {"a": "new"}, ()).removed == ("clab-two-a",), "its files changed"
    assert mending(WELL, {}, {"a": "new"}, ()).removed == ()
    assert mending(WELL, {}, {}, (), unsure=True).removed == ("clab-two-a", "clab-two-b"), "nobody saw them settle"


def commands(before: dict[str, Container], after: dict[str, Container], **settings: object) -> list[str]:
    parked = settings.get("parked", ())
    known = settings.get("settled", SETTLED)
    assert isinstance(parked, tuple)
    assert isinstance(known, dict)
    seen = Sight(before, after, parked)
    return [f"{node}: {line}" for node, line in due(LAB, {"b": ("more",)}, known, seen)]


OWN_A = ["a: ip addr add 10.1.0.1/30 dev eth1", "a: sysctl -w a=1"]
OWN_B = ["b: ip addr add 10.1.0.2/30 dev eth1", "b: more"]


def test_nothing_is_run_in_a_lab_that_stayed_as_it_was() -> None:
    assert commands(WELL, WELL) == []


def test_a_node_that_containerlab_made_gets_only_the_settings_commands() -> None:
    assert commands({}, WELL, settled={}) == ["b: more"]
    parked = {**WELL, "b": container("b", "exited")}
    again = {**WELL, "b": container("b", since="t1", faces=(8,))}
    assert commands(parked, again, parked=("clab-two-b",)) == ["b: more"]


def test_a_node_that_was_restarted_gets_all_and_its_peer_what_names_the_new_interface() -> None:
    after = {"a": container("a", faces=(17, 9)), "b": container("b", since="t1", faces=(18,))}
    assert commands({**WELL, "b": container("b", "exited")}, after) == [OWN_A[0], *OWN_B]
    eleven = {**WELL, "a": container("a", faces=(7, 19))}
    assert commands(WELL, eleven) == [], "eth1 is not eth11"


def test_a_route_that_names_no_interface_may_have_gone_with_any() -> None:
    lines = (
        "ip route add default via 10.1.0.1",
        "ip -6 route replace ::/0 via fd00::1",
        "ip route add 10.9.0.0/16 dev eth9",
    )
    seen = Sight(WELL, {**WELL, "b": container("b", faces=(18,))})
    found = [line for _, line in due(LAB, {"b": lines}, SETTLED, seen)]
    assert found == ["ip addr add 10.1.0.2/30 dev eth1", *lines[:2]]


def test_a_container_of_others_is_watched_and_gets_its_commands_again_when_its_link_was_made_anew() -> None:
    section = {
        "nodes": {"b": {"kind": "ext-container", "exec": ["ip addr add 10.1.0.2/30 dev eth1"]}, "a": {"kind": "linux"}},
        "links": [{"endpoints": ["a:eth1", "b:eth1"]}],
    }
    lab = topology_of({"name": "two", "topology": section})
    assert lab.others == ("b",)
    stopped = {**WELL, "b": container("b", "exited")}
    assert [(item.address, item.note) for item in drift(lab, SETTLED, stopped)] == [
        ("node b", "the container, of others, does not run"),
        ("link a:eth1 -- b:eth1", "b:eth1 is gone"),
    ]
    anew = {**WELL, "b": container("b", faces=(18,))}
    again = [("b", "ip addr add 10.1.0.2/30 dev eth1")]
    assert list(due(lab, {}, SETTLED, Sight(WELL, anew))) == again
    assert list(due(lab, {}, {}, Sight(WELL, WELL))) == [], "containerlab ran them when it made the lab"
    assert list(due(lab, {}, SETTLED, Sight(WELL, {**WELL, "b": container("b", since="t1", faces=(8,))}))) == again


@pytest.mark.parametrize(
    ("missing", "words", "hint"),
    [
        ("@bridges\nbr0\n@others\n", "there is no bridge br0 on lab-gw", "ip link add br0 type bridge"),
        ("@bridges\n@others\nx\n", "the container x, which the lab is connected to, does not run", "start it first"),
    ],
)
async def test_what_the_lab_is_connected_to_has_to_be_there(
    tmp_path: Path, missing: str, words: str, hint: str
) -> None:
    said = f"@owner\n@content\n@containerlab\n0.79.0\n@docker\n28.1.1\n@parked\n@missing\n{missing}"
    world = ProviderWorld(tmp_path, {"lab-gw": ScriptedTransport(lambda command: Completed(0, said.encode()))})
    with pytest.raises(SpecError, match=words) as caught:
        await survey(Place("me", "/x"), "lab-gw", LAB, world.reading())
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (b"Failed to read topology file: template: t:6: function no not defined", SpecError, "cannot be rendered"),
        (b"sh: 1: exec: containerlab: not found", ToolMissingError, "there is no containerlab on lab-gw"),
        (b"sh: 3: sudo: not found", CredentialsError, "no permission to use Docker on lab-gw"),
        (b"sudo: a password is required", CredentialsError, "no permission to use Docker on lab-gw"),
        (b"Cannot connect to the Docker daemon", ToolMissingError, "Docker does not run on lab-gw"),
    ],
)
async def test_a_template_that_cannot_be_rendered_is_told_with_the_words_of_the_tool(
    tmp_path: Path, words: bytes, kind: type[StageError], told: str
) -> None:
    world = ProviderWorld(tmp_path, {"lab-gw": ScriptedTransport(lambda command: Completed(1, stderr=words))})
    with pytest.raises(kind, match=told) as caught:
        await render(Template("t", "{{ x }}", {}), "lab-gw", world.reading())
    assert words.decode() in caught.value.detail


async def test_a_line_that_is_quoted_does_not_show_a_secret(tmp_path: Path) -> None:
    world = ProviderWorld(tmp_path, {})
    text = "name: x\ntopology: {nodes: {a: {kind: linux, image: i, env: {PW: $PW}, no-such-key: 1}}}\n"
    (world.folder / "lab.yml").write_text(text)
    spec = ContainerlabSpec(topology="lab.yml", env={"PW": Secret("a-secret-word")})
    with pytest.raises(SpecError, match="unknown key 'no-such-key'") as caught:
        await ContainerlabProvider().plan(spec, Observation.absent("new"), world.reading())
    assert "a-secret-word" not in str(caught.value.record())
    assert "PW: ***" in caught.value.detail


def test_nodes_of_an_apply_that_was_cut_off_get_all_again() -> None:
    assert commands(WELL, WELL, settled={}) == [*OWN_A, *OWN_B]
    known: dict[str, Settled] = {"b": SETTLED["b"]}
    assert commands(WELL, WELL, settled=known) == OWN_A


def test_containerlabs_last_words_come_with_what_they_mean() -> None:
    error = _deploy_failed(Completed(1, stderr=b"\x1b[31mERRO unable to apply caps: operation not permitted"), "h")
    assert isinstance(error, ToolFailedError)
    assert error.detail == "ERRO unable to apply caps: operation not permitted"
    assert "privileged: false" in error.hint
    full = _deploy_failed(Completed(1, stderr=b"mkdir /x: no space left on device"), None)
    assert full.summary.startswith("the disk of this machine is full")
    assert "subnet" in _deploy_failed(Completed(1, stderr=b"Pool overlaps with other one"), "h").hint
    there = _deploy_failed(Completed(1, stderr=b"Interface host:x is defined via topology but already exists"), "h")
    assert "ip link delete" in there.hint
    assert "kernel" in _deploy_failed(Completed(1, stderr=b"deploy links: operation not supported"), "h").hint
    named = _deploy_failed(Completed(1, stderr=b'Containers ["web"] already exist. Add --reconfigure'), "h")
    assert "`prefix`" in named.hint
    assert "/dev/kvm" in _deploy_failed(Completed(1, stderr=b"CPU virtualization support is required"), "h").hint
    assert "IfNotPresent" in _deploy_failed(Completed(1, stderr=b"ERRO Failed to pull image image=x"), "h").hint
    old = b'"specify mac-address per network" requires API\n version 1.44'
    assert "a newer Docker" in _deploy_failed(Completed(1, stderr=old), "h").hint
    assert "the next `up` goes on" in _deploy_failed(Completed(1, stderr=b"something else"), "h").hint
    theirs = _deploy_failed(Completed(1, stderr=b'"x" on node "br" exists but is not\n containerlab-owned.'), "h")
    assert (disowned(theirs), disowned(there)) == (True, False)


@pytest.mark.parametrize(
    ("docker", "tool", "words"),
    [
        ("20.10.24+dfsg1", "0.79.0", ""),
        ("28.1.1", "1.0.0", ""),
        ("19.03.1", "0.79.0", "Docker 19.03.1 on lab-gw is too old"),
        ("20.10.1", "0.68.0", "containerlab 0.68.0 on lab-gw is too old"),
        ("20.10.1", "", "there is no containerlab on lab-gw"),
        ("Cannot connect to the Docker daemon at unix:///x", "0.79.0", "Docker does not run on lab-gw"),
        ("sh: docker: not found", "0.79.0", "there is no docker on lab-gw"),
    ],
)
async def test_tools_that_are_absent_or_too_old_are_named(tmp_path: Path, docker: str, tool: str, words: str) -> None:
    said = f"@owner\n\n@content\nabc\n@containerlab\n{tool}\n@docker\n{docker}\n@parked\nclab-park-x\n@missing\ni:1\n"
    said += "@bridges\n@others\n"
    place = ScriptedTransport(lambda command: Completed(0, said.encode()))
    world = ProviderWorld(tmp_path, {"lab-gw": place})
    asked = survey(Place("me", "/x"), "lab-gw", LAB, world.reading())
    if not words:
        assert await asked == Survey("abc", ("x",), ("i:1",))
        return
    with pytest.raises(ToolMissingError, match=words):
        await asked


def test_a_missing_image_is_named_with_its_nodes_and_how_to_bring_it() -> None:
    error = missing_image(LAB, ("x:1", "y:1"), "lab-gw")
    assert isinstance(error, SpecError)
    assert error.summary == "lab-gw does not have the image x:1 and 1 more"
    assert "x:1: a, b" in error.detail
    assert "docker save" in error.hint
