"""Topologies as they are read, checked, overridden and rendered for the host; the files that go with them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from skyspan.model.error import SpecError
from skyspan.model.secret import Secret
from skyspan.providers.containerlab.checks import problems
from skyspan.providers.containerlab.commands import Place
from skyspan.providers.containerlab.network import choose_management, refuse_overlap
from skyspan.providers.containerlab.provider import ContainerlabProvider
from skyspan.providers.containerlab.reading import expand, read
from skyspan.providers.containerlab.render import overridden, with_management
from skyspan.providers.containerlab.spec import ContainerlabSpec
from skyspan.providers.containerlab.template import Template, literal, rendered
from skyspan.providers.containerlab.topology import link_name, spelled_out, topology_of
from skyspan.providers.containerlab.wanted import findings, wanted_lab
from skyspan.providers.lab.containers import DockerNetwork, HostLook, parse_look
from skyspan.providers.lab.topology import LabLink, Management

TWO = """\
name: two   # a comment
topology:
  kinds:
    linux: {image: "alpine:3.10"}
  nodes:
    r1: {kind: linux, env: {VERSION: 3.10, ANSWER: yes}}
    r2: {kind: linux}
  links:
    - endpoints: ["r1:eth1", "r2:eth1"]
"""


async def never(template: Template) -> str:
    raise AssertionError(f"{template.name} is no template")


def found(text: str, **env: str) -> list[str]:
    """Every finding as `LINE:COLUMN code summary`."""
    topology = read(text, "t.yml", env)
    return sorted(f"{item.where.line}:{item.where.column} {item.code} {item.summary}" for item in problems(topology))


def changed(before: str, after: str) -> str:
    assert before in TWO
    return TWO.replace(before, after)


def test_a_good_topology_has_no_findings() -> None:
    assert found(TWO) == []


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        ("kind: linux}", "kind: linxu}", "7:10 unknown-kind node r2 is of unknown kind 'linxu'"),
        ("  links:", "  linsk:", "8:3 unknown-key unknown key 'linsk'"),
        ("{kind: linux}", "{kind: linux, imag: x}", "7:23 unknown-key unknown key 'imag'"),
        ("name: two", "nam: two", "1:1 unknown-key unknown key 'nam'"),
        ("name: two", "name: -two", "1:1 bad-name '-two' cannot be a lab's name"),
        ('"r2:eth1"', '"r3:eth1"', "9:7 dangling-endpoint the endpoint r3:eth1 dangles: there is no node 'r3'"),
        ('"r2:eth1"', '"r2"', "9:7 bad-endpoint the endpoint 'r2' is not `NODE:INTERFACE`"),
        ('["r1:eth1", "r2:eth1"]', '["r1:eth1"]', "9:7 bad-endpoints a link of type brief has exactly two `endpoints`"),
        ('"r2:eth1"', '"r1:eth1"', "9:7 loop r1:eth1 is linked to itself"),
        ('"r2:eth1"', '"r2:eth0"', "9:7 eth0 eth0 of r2 is its management interface"),
        (
            '"r2:eth1"',
            '"r2:a-very-long-name"',
            "9:7 long-interface the interface a-very-long-name of r2 has 16 characters",
        ),
        ("    r2: {kind: linux}", "    r2: {}", "7:5 no-kind node r2 has no kind"),
        ("    r2: {", "    r1: {", "7:5 duplicate-key 'r1' is there twice"),
        ("topology:", "mgmt: {ipv4-subnet: 10.0.0.300/24}\ntopology:", "2:8 bad-subnet '10.0.0.300/24' does not"),
    ],
)
def test_what_is_wrong_is_found_with_its_place(before: str, after: str, finding: str) -> None:
    assert any(item.startswith(finding) for item in found(changed(before, after))), found(changed(before, after))


def test_all_findings_come_at_once_with_the_line_and_a_caret() -> None:
    text = changed('"r2:eth1"', '"r9:eth1"').replace("kind: linux}", "kind: linx}")
    with pytest.raises(SpecError, match="2 errors") as caught:
        from skyspan.providers.containerlab.checks import check

        check(read(text, "lab.clab.yml", {}))
    assert "lab.clab.yml:7:10: error: node r2 is of unknown kind 'linx'" in caught.value.detail
    assert "lab.clab.yml:9:7: error: the endpoint r9:eth1 dangles" in caught.value.detail
    assert "      ^" in caught.value.detail


def test_two_links_cannot_share_an_interface_and_an_address_has_one_node() -> None:
    text = TWO + '    - endpoints: ["r1:eth1", "r2:eth2"]\n'
    assert [item.partition(" ")[2] for item in found(text)] == 2 * ["duplicate-endpoint r1:eth1 is an end of 2 links"]
    text = TWO.replace("{kind: linux", "{mgmt-ipv4: 10.9.0.2, kind: linux").replace(
        "topology:", "mgmt: {ipv4-subnet: 10.8.0.0/24}\ntopology:"
    )
    assert [item.split(" ", 1)[1] for item in found(text)] == [
        "foreign-address 10.9.0.2 of r1 is not in 10.8.0.0/24",
        "duplicate-address 10.9.0.2 is given to r1 and to r2",
        "foreign-address 10.9.0.2 of r2 is not in 10.8.0.0/24",
    ]


def test_interfaces_of_kinds_with_names_of_their_own_may_be_long() -> None:
    text = TWO.replace("linux", "vr-xrv9k").replace("r1:eth1", "r1:GigabitEthernet0/0/0/0")
    assert found(text) == []


def test_what_is_no_yaml_is_told_with_its_place() -> None:
    with pytest.raises(SpecError, match=r"t.yml:2:\d+: error"):
        read("name: x\n\t- y", "t.yml", {})


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("${A}", "1"),
        ("$A/x", "1/x"),
        ("${B:=b:2}", "b:2"),
        ("${B:-b}", "b"),
        ("${B-b}", "b"),
        ("${EMPTY:-e}${EMPTY-e}$EMPTY", "e${EMPTY-e}$EMPTY"),
        ("${B} $B $$A $(date) $1 $_", "${B} $B $$A $(date) $1 $_"),
        ("${B:=$A} ${B:-$C}", "1 $C"),
        ("${A:+set} ${B:+set}", "set ${B:+set}"),
        ("$DOLLAR ${DOLLAR:-x}", "a$$b a$$b"),
    ],
)
def test_variables_are_put_in_as_containerlab_does(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "EMPTY": "", "DOLLAR": "a$b"}) == expanded


def test_scalars_reach_the_host_as_they_were_written() -> None:
    text = with_management(read(TWO, "t", {}), Management("net", "br", "10.253.1.0/24"))
    assert "VERSION: 3.10" in text
    assert "ANSWER: yes" in text
    assert yaml.safe_load(text)["mgmt"] == {"network": "net", "bridge": "br", "ipv4-subnet": "10.253.1.0/24"}


def test_what_the_user_says_of_the_management_network_stays() -> None:
    text = TWO.replace("topology:", "mgmt: {network: mine, ipv4-subnet: 10.7.0.0/24, mtu: 1400}\ntopology:")
    topology = read(text, "t", {})
    chosen = choose_management(topology_of(topology.values), HostLook(), None, ["10.253.0.0/16"], "seed")
    assert chosen == Management("mine", "", "10.7.0.0/24")
    assert yaml.safe_load(with_management(topology, chosen))["mgmt"] == {
        "network": "mine",
        "ipv4-subnet": "10.7.0.0/24",
        "mtu": 1400,
    }


def test_nodes_with_addresses_of_their_own_stay_in_containerlabs_default_subnet() -> None:
    text = changed("{kind: linux}", "{kind: linux, mgmt-ipv4: 172.20.20.9}")
    chosen = choose_management(topology_of(read(text, "t", {}).values), HostLook(), None, ["10.253.0.0/16"], "seed")
    assert chosen.ipv4 == "172.20.20.0/24"
    assert chosen.network.startswith("sky-lab-")


def test_a_chosen_subnet_is_kept_and_one_that_overlaps_is_refused() -> None:
    sample = Path(__file__).parent / "lab_samples" / "look.txt"
    look = parse_look(sample.read_text())
    topology = topology_of(read(TWO, "t", {}).values)
    first = choose_management(topology, look, None, ["172.31.240.0/23"], "seed")
    assert first.ipv4 == "172.31.241.0/24", "the other half is taken"
    assert choose_management(topology, look, first, ["10.0.0.0/8"], "seed") == first
    with pytest.raises(SpecError, match="no management network is left"):
        choose_management(topology, look, None, ["172.31.240.0/24"], "seed")
    with pytest.raises(SpecError, match=r"overlaps what lab-gw has: 172.31.250.0/24 \(Docker's network bridge\)"):
        refuse_overlap(Management("n", "b", "172.31.0.0/16"), look, "lab-gw")


def test_a_network_of_somebody_else_is_joined_as_it_is() -> None:
    from ipaddress import ip_network

    theirs = DockerNetwork("shared", "1", "br-1", (ip_network("10.5.0.0/24"),))
    text = TWO.replace("topology:", "mgmt: {network: shared}\ntopology:")
    chosen = choose_management(
        topology_of(read(text, "t", {}).values), HostLook(networks=(theirs,)), None, ["10.253.0.0/16"], "seed"
    )
    assert chosen == Management("shared", "br-1", "10.5.0.0/24")


def test_images_and_defaults_are_put_in_and_an_unused_image_is_refused() -> None:
    topology = overridden(read(TWO, "t", {}), "other", {"alpine:3.10": "skyspan/node:1"}, {"privileged": False})
    lab = topology_of(topology.values)
    assert lab.name == "other"
    assert {node.image for node in lab.nodes} == {"skyspan/node:1"}
    assert [node.container for node in lab.nodes] == ["clab-other-r1", "clab-other-r2"]
    assert yaml.safe_load(with_management(topology, Management("n")))["topology"]["defaults"] == {"privileged": False}
    with pytest.raises(SpecError, match="`images` names alpine:3, which"):
        overridden(read(TWO, "t", {}), None, {"alpine:3": "x"}, {})


def test_merge_keys_and_inheritance_are_followed() -> None:
    text = """
name: m
prefix: ""
topology:
  defaults: {kind: linux, exec: [first]}
  kinds: {linux: {image: "a:1"}}
  groups: {edge: {exec: [second], startup-config: "__clabNodeName__.cfg"}}
  nodes:
    a: &base {group: edge, exec: [third], binds: ["conf:/etc/x", "/etc/hosts:/h", "__clabDir__/x:/y", "$HOME/x:/z"]}
    b: {<<: *base, image: "b:1"}
"""
    first, second = topology_of(read(text, "t", {}).values).nodes
    assert (first.exec, first.image, first.container) == (("first", "second", "third"), "a:1", "a")
    assert [(item.path, item.setting) for item in second.files] == [("conf", "binds"), ("b.cfg", "startup-config")]
    assert second.image == "b:1"


def test_kinds_and_groups_are_found_as_containerlab_finds_them() -> None:
    text = """
name: m
topology:
  defaults: {group: edge}
  groups: {edge: {kind: Linux}, core: {env-files: [core.env]}}
  kinds: {Linux: {image: "a:1"}, bridge: {group: core}}
  nodes:
    a: {group: only-a-label}
    b: {}
    c: {kind: bridge}
"""
    assert found(text) == []
    lab = topology_of(read(text, "t", {}).values)
    assert [(node.kind, node.image) for node in lab.nodes] == [("linux", "a:1"), ("linux", "a:1"), ("bridge", "")]
    assert [item.path for item in lab.nodes[2].files] == ["core.env"], "a kind may have a group"
    assert (lab.images, lab.bridges, lab.others, lab.sharing) == (("a:1",), ("c",), (), "")


def test_former_words_count_and_what_labs_cannot_be_run_with_is_named() -> None:
    text = TWO.replace("topology:", "mgmt: {ipv4_subnet: 10.8.0.0/24}\ntopology:")
    lab = topology_of(read(text, "t", {}).values)
    assert lab.management == {"ipv4-subnet": "10.8.0.0/24"}
    chosen = choose_management(lab, HostLook(), None, ["10.253.0.0/16"], "seed")
    rendered = yaml.safe_load(with_management(read(text, "t", {}), chosen))["mgmt"]
    assert rendered == {"ipv4_subnet": "10.8.0.0/24", "network": chosen.network, "bridge": chosen.bridge}
    assert "foreign-address 10.9.0.2 of r1" in found(text.replace("r1: {", "r1: {mgmt-ipv4: 10.9.0.2, "))[0]
    assert found(changed("r2: {", "r2: {username: me, password: x, ")) == []
    assert "asks for the runtime podman" in found(changed("r2: {", "r2: {runtime: podman, "))[0]
    assert topology_of(read(changed("r2: {", 'r2: {network-mode: "container:r1", '), "t", {}).values).sharing == "r2"


def test_containerlabs_words_for_its_folders_are_spelled_out() -> None:
    text = "x __clabNodeDir__ __clabDir__/a __clabLabName__ __clabNodeName__"
    assert spelled_out(text, "r1", "/t/clab-two") == "x /t/clab-two/r1 /t/clab-two/a clab-two r1"
    assert Place("me", "/x").made("labs/t.yml", "two") == "/x/tree/labs/clab-two"
    assert Place("me", "/x").made("t.yml", "two") == "/x/tree/clab-two"


async def test_a_template_is_rendered_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    beside = {
        "t.clab.gotmpl": "name: {{ .n }}",
        "t.clab_vars.yml": "n: a",
        "t.clab_vars.more.json": "{}",
        "t.clab_vars.txt": "no",
        "other.clab_vars.yml": "no",
        "clab_templates/x.gotmpl": "{{ define `x` }}{{ end }}",
        "v.yml": "n: b",
    }
    (tmp_path / "clab_templates").mkdir()
    for name, text in beside.items():
        (tmp_path / name).write_text(text)
    asked: list[Template] = []

    async def render(template: Template) -> str:
        asked.append(template)
        return TWO.replace("name: two", "name: it$elf")

    lab = ContainerlabSpec(topology="t.clab.gotmpl", env={"A": Secret("it's")})
    with pytest.raises(SpecError, match=r"t.clab.gotmpl \(rendered\) has an error: 'it\$elf' cannot be"):
        await wanted_lab(lab, tmp_path, render)
    (template,) = asked
    with tarfile.open(fileobj=io.BytesIO(template.archive())) as archive:
        sent = {item.name: archive.extractfile(item).read().decode() for item in archive}  # type: ignore[union-attr]
    assert sent.pop("topology/t.clab.gotmpl") == 'name: {{ .n }}{{ "\\n" }}skyspan-end: true\n'
    assert sent.pop("environment") == "export A='it'\"'\"'s'\n"
    assert sent == {
        "variables.yml": "",
        "topology/t.clab_vars.yml": "n: a",
        "topology/t.clab_vars.more.json": "{}",
        "topology/clab_templates/x.gotmpl": beside["clab_templates/x.gotmpl"],
    }
    # Variables of the settings count instead; whatever it is rendered from is another rendering.
    for variables in ("v.yml", {"n": Secret("b")}):
        spec = lab.model_copy(update={"vars": variables, "name": "two"})
        with pytest.raises(SpecError):
            await wanted_lab(spec, tmp_path, render)
    assert [item.variables for item in asked] == [b"", b"n: b", b'{"n": "b"}']
    assert len({item.mark for item in asked}) == 3
    with pytest.raises(SpecError, match="no variables"):
        await wanted_lab(lab.model_copy(update={"vars": "none.yml"}), tmp_path, render)
    assert findings("t.clab.gotmpl", {}, tmp_path) == [], "what it comes to is not known yet"


def test_what_was_rendered_reaches_the_host_as_it_is() -> None:
    assert rendered("name: x\n\nskyspan-end: true\n") == "name: x\n\n"
    assert rendered("name: x\n") is None, "it was cut off"
    text = with_management(read(TWO.replace("yes", '"{{ a$b }}"'), "t"), Management("n"))
    assert "a$$b" in text
    assert '{{"{{"}} a$$b }}' in literal(text)
    assert topology_of(read(text, "t", {}).values) == topology_of(read(text.replace("$$", "$"), "t").values)


@pytest.mark.parametrize(
    ("link", "ends", "kind"),
    [
        ({"endpoints": ["a:eth1", "host:lab-a"]}, (("a", "eth1"), ("host", "lab-a")), "host"),
        (
            {"type": "veth", "endpoints": [{"node": "a", "interface": "eth1"}, {"node": "b", "interface": "eth2"}]},
            (("a", "eth1"), ("b", "eth2")),
            "veth",
        ),
        (
            {"type": "mgmt-net", "endpoint": {"node": "a", "interface": "eth1"}, "host-interface": "x"},
            (("a", "eth1"), ("mgmt-net", "x")),
            "mgmt-net",
        ),
        ({"type": "dummy", "endpoint": {"node": "a", "interface": "d0"}}, (("a", "d0"),), "dummy"),
    ],
)
def test_links_are_read_briefly_and_at_length(link: dict[str, Any], ends: Any, kind: str) -> None:
    lab = topology_of({"name": "x", "topology": {"nodes": {"a": {}, "b": {}}, "links": [link]}})
    assert lab.links == (LabLink(ends, kind),)
    assert link_name(lab.links[0]).startswith("a:")


async def test_files_are_gathered_from_above_the_topology_too(tmp_path: Path) -> None:
    for name, text in {"shared/daemons": "d", "labs/one/r1.conf": "r1", "labs/one/extra/x": "x"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "labs/one/extra/x").chmod(0o700)
    (tmp_path / "labs/one/empty").mkdir(mode=0o755)
    bound = TWO.replace("kind: linux}", 'kind: linux, binds: ["../../shared:/s", "r1.conf:/r1"]}')
    (tmp_path / "labs/one/lab.clab.yml").write_text(bound)
    spec = ContainerlabSpec(topology="labs/one/lab.clab.yml", files=("extra", "empty"))
    wanted = await wanted_lab(spec, tmp_path, never)
    assert wanted.file == "labs/one/lab.clab.yml"
    data = wanted.shipment.archive(wanted.file, "the topology")
    assert data == wanted.shipment.archive(wanted.file, "the topology"), "the same for the same"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert {item.name: item.mode for item in archive} == {
            "labs/one/empty": 0o755,
            "labs/one/extra/x": 0o700,
            "labs/one/r1.conf": 0o644,
            "shared/daemons": 0o644,
            "labs/one/lab.clab.yml": 0o644,
        }
    (tmp_path / "shared/daemons").write_text("other")
    again = await wanted_lab(spec, tmp_path, never)
    assert again.shipment.content != wanted.shipment.content
    assert again.shipment.nodes["r1"] == wanted.shipment.nodes["r1"]
    assert again.shipment.nodes["r2"] != wanted.shipment.nodes["r2"], "only the node that is bound to it changes"


async def test_a_lab_may_be_named_by_the_branch_that_is_checked_out(tmp_path: Path) -> None:
    (tmp_path / "t.yml").write_text(changed("name: two", "name: lab-__gitBranch__-__gitHash__"))

    async def name() -> str:
        return (await wanted_lab(ContainerlabSpec(topology="t.yml"), tmp_path, never)).topology.name

    assert await name() == "lab-none-none"
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/feature/x\n")
    assert await name() == "lab-feature-x-none", "a branch without a commit"
    (tmp_path / ".git/packed-refs").write_text("# packed\n0123456789abcdef refs/heads/feature/x\n")
    assert await name() == "lab-feature-x-0123456"
    (tmp_path / ".git/HEAD").write_text("fedcba9876543210\n")
    assert await name() == "lab-HEAD-fedcba9"


async def test_a_file_that_is_missing_is_named_with_its_node_and_setting(tmp_path: Path) -> None:
    text = changed("{kind: linux}", '{kind: linux, binds: ["clab-two/topology-data.json:/t", "no.conf:/x"]}')
    (tmp_path / "t.yml").write_text(text)
    with pytest.raises(SpecError) as caught:
        await wanted_lab(ContainerlabSpec(topology="t.yml"), tmp_path, never)
    assert caught.value.detail == f"node r2, binds: no file 'no.conf' in {tmp_path}"
    (tmp_path / "no.conf").mkdir()
    (tmp_path / "no.conf" / "loop").symlink_to("loop")
    (tmp_path / "clab-two").mkdir()
    (tmp_path / "clab-two" / "mine").write_text("made by hand")
    (tmp_path / "t.yml").write_text(text.replace("topology-data.json", "mine"))
    wanted = await wanted_lab(ContainerlabSpec(topology="t.yml"), tmp_path, never)
    assert sorted(wanted.shipment.files) == ["clab-two/mine", "no.conf"], "a link to nothing is not sent"


async def test_an_inline_topology_may_hold_secrets_and_settings_name_nodes_that_exist(tmp_path: Path) -> None:
    inline = {
        "name": "two",
        "topology": {"nodes": {"a": {"kind": "linux", "image": "x:1", "env": {"PASSWORD": Secret("s3cret-word")}}}},
    }
    wanted = await wanted_lab(ContainerlabSpec.model_validate({"topology": inline}), tmp_path, never)
    assert wanted.file == "topology.clab.yml"
    assert "s3cret-word" in with_management(wanted.source, Management("n"))
    with pytest.raises(SpecError, match="wait names the node 'b', which the topology does not have"):
        await wanted_lab(
            ContainerlabSpec.model_validate({"topology": inline, "wait": [{"node": "b", "port": 22}]}), tmp_path, never
        )


def test_preflight_tells_what_no_other_setting_can_mend(tmp_path: Path) -> None:
    (tmp_path / "t.yml").write_text("name: x\ntopology:\n  nodes: {a: {knd: linux}, b: {}}\n")
    (item,) = findings("t.yml", {}, tmp_path)
    assert (item.code, item.summary, str(item.where)) == ("unknown-key", "unknown key 'knd'", "t.yml:3:15")
    assert [item.code for item in findings("none.yml", {}, tmp_path)] == ["missing-file"]
    assert findings(None, {}, tmp_path) == []


def test_the_fingerprint_covers_the_topology_and_the_folder_that_is_its_own() -> None:
    sources = ContainerlabProvider().sources
    assert sources(ContainerlabSpec(topology="lab/t.yml", files=("more",))) == ("lab/t.yml", "lab/more", "lab")
    assert sources(ContainerlabSpec(topology="t.yml", files=("more",))) == ("t.yml", "more")
    assert sources(ContainerlabSpec(topology="../lab/t.yml")) == ("../lab/t.yml",)
    assert sources(ContainerlabSpec(topology={"name": "x"}, files=("more",))) == ("more",)
