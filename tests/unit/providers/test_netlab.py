"""The pure half of the netlab provider: settings, files, facts, comparisons, places, errors."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from skyspan.contracts.transport import Completed, Effect
from skyspan.model.change import Action
from skyspan.model.error import CredentialsError, SpecError, ToolFailedError, ToolMissingError
from skyspan.model.secret import Secret
from skyspan.providers.lab.containers import Container, DockerNetwork, HostLook, Interface
from skyspan.providers.lab.facts import outputs
from skyspan.providers.netlab import clabfile, commands, compare
from skyspan.providers.netlab.commands import Place
from skyspan.providers.netlab.compare import Way, creation, damage, difference, refitted
from skyspan.providers.netlab.facts import Facts, lab_of, parse_facts, routing_outputs
from skyspan.providers.netlab.failure import failed, refuse_tools, version_of
from skyspan.providers.netlab.memory import Made, Memory
from skyspan.providers.netlab.package import Package, packed
from skyspan.providers.netlab.parse import Other, Survey, parse_made, parse_survey, parse_validation
from skyspan.providers.netlab.placing import placed, unplaced
from skyspan.providers.netlab.provider import NetlabProvider
from skyspan.providers.netlab.spec import NetlabSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.provider_world import ProviderWorld

SAMPLES = Path(__file__).parent / "netlab_samples"
INSPECT = (SAMPLES / "inspect.json").read_text()
CLAB = (SAMPLES / "clab.yml").read_text()
HYBRID = Path(__file__).parents[3] / "examples" / "hybrid"
PLACE = Place("nl-1", "default/proof/lab", 40, "ml-40", "sky-lab-1", "skl-1", "10.253.239.0/24")


def spec(**settings: Any) -> NetlabSpec:
    return NetlabSpec.model_validate({"topology": "topology.yml", **settings})


def made(clab: str = CLAB, **changes: Any) -> Made:
    facts = parse_facts(INSPECT)
    return Made(Facts({**facts.data, **changes}), clab, dict.fromkeys(facts.nodes, "digest"))


def changed_node(name: str, **settings: Any) -> Made:
    nodes = copy.deepcopy(dict(made().facts.data["nodes"]))
    nodes[name].update(settings)
    return made(nodes=nodes)


def container(node: str, *interfaces: str, state: str = "running", started: str = "t1") -> Container:
    labels = {"containerlab": "ml-40", "clab-node-name": node}
    return Container(
        node, f"clab-ml-40-{node}", "frr", state, labels, started_at=started,
        interfaces=tuple(Interface(name) for name in interfaces) if state == "running" else (),
    )  # fmt: skip


WHOLE = {
    "r1": ("eth1", "eth2", "eth3"),
    "r2": ("eth1", "eth2", "eth3"),
    "r3": ("eth1", "eth2", "eth3"),
    "h1": ("eth1",),
}
ENDS = frozenset(("ml-40_4", "bni40n1i3", "bni40n2i3", "bni40n3i2"))


def hurt(links: frozenset[str] = ENDS, /, **containers: Container | None) -> Any:
    there = {node: container(node, *names) for node, names in WHOLE.items()} | containers
    memory = Memory(PLACE, None, made=made(), started=dict.fromkeys(WHOLE, "t1"))
    look = HostLook(containers=tuple(item for item in there.values() if item is not None))
    return damage(memory, Survey(links=links), look)


def error(words: str, what: str = "starting the lab", code: int = 1, secrets: tuple[Secret, ...] = ()) -> Any:
    done = Completed(code, stderr=words.encode())
    return failed(done, what, "lab-1", "lab/topology.yml", "/var/lib/skyspan/netlab/nl-1", secrets)


class TestRules:
    """The rules of the provider suite that need no lab; the others take a real one each, see the integration tests."""

    def test_it_keeps_them(self, tmp_path: Path) -> None:
        world = ProviderWorld(tmp_path, {})
        case = ProviderCase(NetlabProvider(), spec(), spec(), world, snapshot=dict)
        suite = ProviderConformance()
        suite.test_it_has_a_kind_and_a_strict_frozen_spec(case)
        suite.test_no_setting_is_called_by_a_word_that_is_skyspans_own(case)
        suite.test_every_setting_is_documented(case)
        suite.test_time_chance_and_environment_come_only_from_the_context(case)

    async def test_what_was_never_made_needs_no_host_to_be_destroyed(self, tmp_path: Path) -> None:
        world = ProviderWorld(tmp_path, {})
        await NetlabProvider().destroy(spec(), world.writing())
        assert not world.commands

    async def test_a_file_that_is_not_there_is_found_before_a_run(self, tmp_path: Path) -> None:
        world = ProviderWorld(tmp_path, {})
        settings = {"topology": "topology.yml", "files": ["fixes"]}
        found = await NetlabProvider().preflight(settings, world.reading())
        assert [item.summary for item in found] == [
            "no file 'topology.yml' beside the composition",
            "no file 'fixes' beside the composition",
        ]


class TestSettings:
    def test_what_cannot_work_is_refused_with_the_reason(self) -> None:
        for settings, words in (
            ({"topology": {"links": []}}, "has no `nodes`"),
            ({"topology": "/etc/topology.yml"}, "no path below the composition's folder"),
            ({"topology": "../topology.yml"}, "no path below the composition's folder"),
            ({"provider": "external", "images": {"frr": "x:1"}}, "`images` is for labs of containers"),
            ({"number": 201}, "less than or equal to 200"),
            ({"name": "9lab"}, "is no lab name"),
            ({"name": "a-lab-whose-name-is-long"}, "16 at most"),
            ({"management": "10.0.0.0/29"}, "too small"),
            ({"capabilities": ["CAP NET"]}, "is no capability"),
            ({"settings": {"a=b": 1}}, "netlab takes no `=`"),
        ):
            with pytest.raises(ValidationError, match=words):
                spec(**settings)

    def test_netlab_is_told_by_variables_that_win_over_the_topology(self) -> None:
        told = dict(
            line.split("=", 1)
            for line in commands.variables(spec(images={"cumulus_nvue": "c:1", "r1": "x:1"}, restricted=True), PLACE)
        )
        assert json.loads(told["NETLAB_DEVICES_CUMULUS__NVUE_CLAB_IMAGE"]) == "c:1"
        assert json.loads(told["NETLAB_DEVICES_FRR_CLAB_KMODS"]) == {}
        assert json.loads(told["NETLAB_PROVIDER"]) == "clab"
        change = json.loads(told["NETLAB_MULTILAB_CHANGE"])
        assert (change["name"], change["addressing.mgmt"]["ipv4"]) == ("ml-40", "10.253.239.0/24")
        assert "start" not in change["addressing.mgmt"], "netlab's own first address fits a /24"
        assert not [name for name in told if "R1" in name], "a node is no device of netlab's"
        small = replace(PLACE, management="10.9.0.0/27")
        told = dict(line.split("=", 1) for line in commands.variables(spec(), small))
        assert json.loads(told["NETLAB_MULTILAB_CHANGE"])["addressing.mgmt"]["start"] == 4

    def test_only_devices_that_exist_are_started_quietly_as_netlab_asks_about_their_cables(self) -> None:
        assert "-q" in commands.up(spec(), PLACE, "", external=True).argv
        assert "-q" not in commands.up(spec(), PLACE, CLAB, external=False).argv
        assert "--no-config" in commands.up(spec(configure=False), PLACE, CLAB, external=False).argv

    def test_what_looks_is_read_and_what_changes_is_write(self) -> None:
        package = Package("topology.yml", {})
        reads = [
            commands.look(spec(), PLACE),
            commands.trial(spec(), PLACE, package),
            commands.validate(spec(), PLACE),
        ]
        assert {command.effect for command in reads} == {Effect.READ}
        writes = [
            commands.claim(spec(), PLACE),
            commands.remove(spec(), PLACE, ()),
            commands.ship(spec(), PLACE, package),
        ]
        assert {command.effect for command in writes} == {Effect.WRITE}


def filled(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


class TestFiles:
    def test_a_file_brings_what_it_names_and_what_netlab_looks_for_beside_it_and_no_more(self, tmp_path: Path) -> None:
        topology = """
defaults.sources.extra: [ ../../defaults.yml ]
plugin: [ bgp.session, check ]
_include: [ parts/*.yml ]
groups:
  all: {config: [ extra ]}
nodes:
  cloud: {clab.binds: {motd.txt: /etc/motd}, clab.startup-config: first.cfg}
  r1: {config: [ loopback ], clab: {config_templates: {web: /etc/web.conf}}}
links: [ cloud-r1 ]
"""
        wanted = {
            "defaults.yml": 'paths.plugin: [ "topology:../../plugin", "package:extra", "~/x", "." ]\n',
            "plugin/check.py": "",
            "lab/one/parts/validate.yml": "test: {config: [ deeper ]}\n",
            "lab/one/parts/deeper.j2": "",
            "lab/one/extra/frr.j2": "",
            "lab/one/loopback.r1.frr.j2": "",
            "lab/one/web.j2": "",
            "lab/one/motd.txt": "",
            "lab/one/first.cfg": "",
            "lab/one/templates/initial/frr.j2": "",
            "lab/one/topology-defaults.yml": "device: frr\n",
        }
        others = ("secret.txt", "lab/one/cloud/main.tf", "lab/one/r1.txt", "lab/two/topology.yml", "plugin-old/x.py")
        filled(tmp_path, {"lab/one/topology.yml": topology, **wanted, **dict.fromkeys(others, "")})
        found = packed(spec(topology="lab/one/topology.yml"), tmp_path)
        assert set(found.files) == {"lab/one/topology.yml", *wanted}
        assert found.topology == "lab/one/topology.yml"
        also = packed(spec(topology="lab/one/topology.yml", files=["secret.txt"]), tmp_path)
        assert set(also.files) - set(found.files) == {"secret.txt"}

    def test_a_file_that_is_named_but_outside_of_the_composition_is_refused(self, tmp_path: Path) -> None:
        filled(tmp_path, {"defaults.yml": "", "in/topology.yml": "defaults.sources.extra: [ ../defaults.yml ]\n"})
        with pytest.raises(SpecError, match=r"names \.\./defaults\.yml, which is outside"):
            packed(spec(), tmp_path / "in")

    def test_links_are_followed_but_not_in_circles(self, tmp_path: Path) -> None:
        filled(tmp_path, {"lab/topology.yml": "config: [x.yml]\n", "lab/x.yml/frr.j2": "", "shared.j2": "one"})
        (tmp_path / "lab/x.yml/linux.j2").symlink_to("../../shared.j2")
        (tmp_path / "lab/templates").symlink_to("..")
        found = packed(spec(topology="lab/topology.yml"), tmp_path)
        assert set(found.files) == {"lab/topology.yml", "lab/x.yml/frr.j2", "lab/x.yml/linux.j2"}
        assert found.files["lab/x.yml/linux.j2"] == (0o644, b"one")

    def test_what_cannot_be_read_names_nothing(self, tmp_path: Path) -> None:
        filled(tmp_path, {"topology.yml": "nodes: [a\nplugin: b"})
        assert set(packed(spec(), tmp_path).files) == {"topology.yml"}

    def test_the_hybrid_example_sends_its_topology_and_the_templates_beside_it(self) -> None:
        stages = yaml.safe_load((HYBRID / "skyspan.yaml").read_text())["stages"]
        found = packed(NetlabSpec.model_validate(stages["netlab"]["with"]), HYBRID)
        assert set(found.files) == {
            "netlab/topology.yml",
            "netlab/templates/frr/daemons.j2",
            "netlab/templates/initial/frr.j2",
        }
        assert found.files["netlab/templates/frr/daemons.j2"][1] == (HYBRID / "lab/daemons").read_bytes()
        assert (stages["lab"]["if"], stages["netlab"]["if"]) == ("${{ !inputs.netlab }}", "${{ inputs.netlab }}")

    def test_a_folder_comes_whole_but_for_what_netlab_made_there(self, tmp_path: Path) -> None:
        names = ("topology.yml", "a/b.j2", "clab.yml", "node_files/r1/initial", "clab-x/topology.json")
        filled(tmp_path, {f"lab/{name}": "" for name in names})
        found = packed(spec(topology="lab"), tmp_path)
        assert sorted(found.files) == ["lab/a/b.j2", "lab/topology.yml"]
        (tmp_path / "lab" / "a/b.j2").write_text("other")
        assert packed(spec(topology="lab"), tmp_path).digest != found.digest

    def test_an_inline_topology_is_sent_as_yaml_with_its_secrets_and_shows_none(self, tmp_path: Path) -> None:
        inline = {"nodes": {"r1": {"password": Secret("hush")}}}
        found = packed(spec(topology=inline), tmp_path)
        assert yaml.safe_load(found.files["topology.yml"][1]) == {"nodes": {"r1": {"password": "hush"}}}
        assert "hush" not in repr(found)
        assert found.files["topology.yml"][0] == 0o600

    def test_what_is_missing_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "lab").mkdir()
        for settings, words in (({}, "no topology 'topology.yml'"), ({"topology": "lab"}, "has no topology.yml")):
            with pytest.raises(SpecError, match=words):
                packed(spec(**settings), tmp_path)


class TestFacts:
    def test_addresses_sessions_and_prefixes_are_typed_lists(self) -> None:
        out = routing_outputs(parse_facts(INSPECT))
        assert out["announced"] == ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32", "172.16.0.0/24", "172.16.2.0/24"]
        assert out["announced_by"]["r3"] == ["10.0.0.3/32", "172.16.2.0/24"]
        assert out["loopbacks"]["r2"] == {"ipv4": "10.0.0.2/32"}
        assert out["routing"]["r3"]["bgp"] == {"as": 65001, "router_id": "10.0.0.3"}
        wire = next(item for item in out["addressing"] if (item["node"], item["interface"]) == ("r2", "eth2"))
        assert wire["addresses"] == ["10.1.0.5/30"]
        assert (wire["prefixes"], wire["neighbors"]) == (["10.1.0.4/30"], ["r3"])
        session = next(item for item in out["bgp"] if (item["node"], item["type"]) == ("r3", "ebgp"))
        assert (session["as"], session["neighbor_as"]) == (65001, 65000)
        assert json.loads(json.dumps(out)) == out

    def test_the_lab_is_told_as_every_other_lab_is(self) -> None:
        seen = {"r1": container("r1", "eth1"), "r2": container("r2", state="exited")}
        lab = lab_of(parse_facts(INSPECT), None, seen, {"r1": "node:1"})
        told = outputs(lab, None)
        assert told["nodes"]["r1"] == {
            "name": "r1", "kind": "frr", "image": "node:1", "container": "clab-ml-40-r1", "ipv4": "10.253.239.101",
            "ipv6": "", "state": "running", "started_at": "t1",
        }  # fmt: skip
        assert (told["nodes"]["r2"]["state"], told["nodes"]["r3"]["state"]) == ("exited", "absent")
        assert told["endpoints"]["r1"]["eth1"]["peer"] == {"node": "r2", "interface": "eth1"}
        assert told["prefixes"] == ["10.1.0.0/30", "10.1.0.4/30", "172.16.0.0/24", "172.16.1.0/24", "172.16.2.0/24"]
        assert [len(link["ends"]) for link in told["links"]] == [2, 2, 2, 3, 1]

    def test_a_bridge_of_somebody_elses_is_none_of_the_labs(self) -> None:
        links = copy.deepcopy(list(made().facts.data["links"]))
        links[3]["clab"] = {"external_bridge": True}
        assert made(links=links).facts.bridges() == ()

    def test_a_node_that_nobody_manages_is_no_peer_to_be_mended(self) -> None:
        nodes = copy.deepcopy(dict(made().facts.data["nodes"]))
        nodes["h1"]["unmanaged"] = True
        lab = made(nodes=nodes)
        assert (set(lab.facts.nodes), lab.facts.peers("r1")) == ({"r1", "r2", "r3"}, ("r2",))
        assert compare.forgetful(lab.facts, "r1") == []

    def test_what_netlab_never_said_is_an_error_of_its_own(self) -> None:
        for text in ("", "[]", "{}", '{"name": "x", "provider": "clab", "nodes": {"r1": {}}}'):
            with pytest.raises(ToolFailedError, match="cannot be read"):
                parse_facts(text)

    def test_what_a_look_and_a_creation_print_is_read(self) -> None:
        look = "@tools\nyes netlab\nno docker\n@version\n26.10\n@owner\nme\n@shipped\nabc\n@marks\nlock yes\n"
        look += "netlab.snapshot.pickle d1\n@others\n7 ml-7 10.9.0.0/24 you and me\n8 - - x\n@links\nlo\neth0\n"
        assert parse_survey(look) == Survey(
            ("docker",), "26.10", "me", "abc", True, "d1",
            (Other(7, "ml-7", "10.9.0.0/24", "you and me"), Other(8, "-", "", "x")), frozenset(("lo", "eth0")),
        )  # fmt: skip
        text = f"@facts\n{INSPECT}\n@clab\n{CLAB}\n@files\nd1  node_files/r1/initial\nd2  node_files/-shared-hosts\n"
        found = parse_made(text)
        assert found.facts.name == "ml-40"
        assert set(found.configs) == {"r1", ""}
        other = parse_made(text.replace("d1  ", "d3  "))
        assert found.configs["r1"] != other.configs["r1"]
        assert found.configs[""] == other.configs[""]


class TestValidation:
    TESTS = ({"name": "session"}, {"name": "loopback"}, {"name": "bare"})

    def test_every_test_has_its_own_result_and_the_words_for_it(self) -> None:
        text = """\
[session]   BGP with the other network [ node(s): r2,r3 ]
[PASS]      r2: fine
[PASS]      Test succeeded in 0.2 seconds

[loopback]  A host reaches a loopback [ node(s): h1 ]
[WAITING]   not yet (retrying for 40 seconds)
[FAIL]      Node h1: no answer
more of it

[bare]      Starting test
[SKIPPED]   Test action not defined for device linux / node h1

[FAIL]      3 tests completed, one test failed
"""
        report = parse_validation(text, "failed", self.TESTS)
        assert report["result"] == "failed"
        assert [(test["name"], test["result"]) for test in report["tests"]] == [
            ("session", "passed"), ("loopback", "failed"), ("bare", "skipped"),
        ]  # fmt: skip
        assert report["tests"][0] == {
            "name": "session", "description": "BGP with the other network", "nodes": ["r2", "r3"],
            "result": "passed", "messages": [],
        }  # fmt: skip
        assert report["tests"][1]["messages"] == ["Node h1: no answer\nmore of it"]

    def test_each_exit_status_means_something_else(self) -> None:
        assert commands.VALIDATION == {0: "passed", 1: "failed", 2: "none", 3: "warnings"}
        report = parse_validation("[session]  x\n[WARNING]  Node r1: odd\n[INFO]  One out of\n", "warnings", self.TESTS)
        assert report["tests"][0]["result"] == "warning"


class TestContainerlabsFile:
    DEVICES = {"r1": "frr", "r2": "frr", "r3": "frr", "h1": "linux"}

    def test_images_are_chosen_by_node_then_image_then_device(self) -> None:
        images = {"r1": "one:1", "frrouting/frr:10.7.1": "two:1", "frr": "three:1", "linux": "four:1"}
        found = clabfile.images(clabfile.adapted(CLAB, spec(images=images), 40, self.DEVICES))
        assert found == {"r1": "one:1", "r2": "two:1", "r3": "two:1", "h1": "four:1"}

    def test_restricted_takes_privileges_and_dummy_interfaces_away_and_nothing_else(self) -> None:
        plain = yaml.safe_load(clabfile.adapted(CLAB, spec(), 40, self.DEVICES))
        assert plain == yaml.safe_load(CLAB)
        file = yaml.safe_load(clabfile.adapted(CLAB, spec(restricted=True), 40, self.DEVICES))
        defaults = file["topology"].pop("defaults")
        assert defaults["privileged"] is False
        assert "SYS_ADMIN" in defaults["cap-add"]
        stub = file["topology"]["links"].pop()
        assert stub == {"type": "host", "endpoint": {"node": "r3", "interface": "eth3"}, "host-interface": "sks40l6"}
        assert len(clabfile.stub(200, 999)) <= 15
        plain["topology"]["links"].pop()
        for node in file["topology"]["nodes"].values():
            if node["kind"] == "linux":
                assert "remount,rw /proc/sys" in node["exec"].pop(0)
                node["exec"] or node.pop("exec")
        assert file == plain

    def test_what_it_needs_of_the_host_is_read(self) -> None:
        assert clabfile.bridges(CLAB) == parse_facts(INSPECT).bridges() == ("ml-40_4",)
        assert clabfile.host_ends(CLAB) == {"bni40n1i3": "r1", "bni40n2i3": "r2", "bni40n3i2": "r3"}
        adapted = clabfile.adapted(CLAB, spec(restricted=True), 40, self.DEVICES)
        assert clabfile.host_ends(adapted)["sks40l6"] == "r3"

    def test_a_file_that_is_none_is_an_error_of_its_own(self) -> None:
        for text in ("", "topology: []", "a: [", "topology: {}"):
            with pytest.raises(ToolFailedError, match="cannot be read"):
                clabfile.bridges(text)


class TestDifferences:
    def test_the_same_is_the_same(self) -> None:
        assert difference(made(), made()).way is Way.FILES
        assert not difference(made(), made()).changes

    def test_another_image_makes_one_node_anew(self) -> None:
        other = made(CLAB.replace("python:3.13-alpine", "node:2"))
        found = difference(made(), other)
        assert (found.way, found.nodes) == (Way.DEPLOY, ("h1",))
        assert [(item.address, item.action, item.note) for item in found.changes] == [
            ("node h1", Action.REPLACE, "node:2")
        ]

    def test_what_a_device_is_told_makes_the_whole_lab_anew(self) -> None:
        found = difference(made(), changed_node("r1", mtu=1400, module=["ospf"]))
        assert found.way is Way.REPLACE
        assert [(item.address, item.note) for item in found.changes] == [("node r1", "module, mtu")]
        other = replace(made(), configs={**made().configs, "r2": "other"})
        assert [item.note for item in difference(made(), other).changes] == ["its configuration"]

    def test_nodes_and_links_that_come_and_go_are_named(self) -> None:
        nodes = {name: node for name, node in made().facts.data["nodes"].items() if name != "h1"}
        links = [link for link in made().facts.data["links"] if '"h1"' not in json.dumps(link)]
        found = difference(made(), made(nodes=nodes, links=links))
        assert [(item.address, item.action) for item in found.changes] == [
            ("node h1", Action.DESTROY),
            ("link h1:eth1 -- r1:eth2", Action.DESTROY),
        ]
        assert difference(made(nodes=nodes, links=links), made()).changes[0].action is Action.CREATE

    def test_other_privileges_make_the_whole_lab_anew(self) -> None:
        other = made(clabfile.adapted(CLAB, spec(restricted=True), 40, {}))
        assert difference(made(), other).way is Way.REPLACE

    def test_other_tests_need_other_files_only(self) -> None:
        found = difference(made(), made(validate=[]))
        assert (found.way, found.changes[0].address) == (Way.FILES, "validation tests")

    def test_a_new_lab_is_told_by_nodes_and_links(self) -> None:
        found = creation(parse_facts(INSPECT))
        assert [item.address for item in found][:5] == [
            "node h1",
            "node r1",
            "node r2",
            "node r3",
            "link r1:eth1 -- r2:eth1",
        ]


class TestDamage:
    def test_a_whole_lab_has_none(self) -> None:
        assert not hurt().any

    def test_a_dead_node_explains_what_its_neighbours_lost(self) -> None:
        found = hurt(
            ENDS - {"bni40n2i3"},
            r2=container("r2", state="exited"),
            r1=container("r1", "eth2", "eth3"),
            r3=container("r3", "eth2", "eth3"),
        )
        assert [(item.address, item.note) for item in found.drift] == [("node r2", "its container is exited")]
        assert (found.remade, found.configured, found.whole) == (("r2",), ("r2",), False)

    def test_frr_neighbours_get_their_links_settings_back_and_others_are_configured_again(self) -> None:
        found = hurt(r1=None)
        assert (found.remade, found.configured) == (("r1",), ("r1", "h1"))
        assert refitted(made().facts, found.configured) == [("r2", "eth1", 1500, False)]

    def test_a_container_that_was_started_again_is_made_anew_even_when_it_looks_well(self) -> None:
        found = hurt(h1=container("h1", "eth1", started="t2"))
        assert [(item.address, item.note) for item in found.drift] == [("node h1", "its container was started again")]

    def test_a_link_that_somebody_took_is_put_back_without_making_nodes_anew(self) -> None:
        found = hurt(r1=container("r1", "eth2", "eth3"), r2=container("r2", "eth2", "eth3"))
        assert [item.note for item in found.drift] == ["it lost eth1", "it lost eth1"]
        assert (found.remade, found.configured[:2]) == ((), ("r1", "r2"))

    def test_a_bridge_that_is_gone_needs_the_whole_lab(self) -> None:
        assert hurt(ENDS - {"ml-40_4"}).whole
        assert hurt(**{node: container(node, state="exited") for node in WHOLE}).whole


class TestPlaces:
    LOOK = HostLook(networks=(DockerNetwork("bridge", "1", "docker0", (ip_network("172.17.0.0/16"),)),))

    def place(self, survey: Survey, before: Place | None = None, look: HostLook = LOOK, **settings: Any) -> Place:
        return placed(spec(**settings), "default/proof/lab", before, survey, look, external=False)

    def test_a_lab_gets_a_number_and_a_network_that_nobody_has_and_keeps_them(self) -> None:
        first = self.place(Survey())
        assert (first.name, first.key) == (f"ml-{first.number}", unplaced("default/proof/lab").key)
        others = (Other(first.number, first.name, first.management, "default/other/lab"),)
        second = self.place(Survey(others=others))
        assert (second.number != first.number, second.management != first.management) == (True, True)
        assert self.place(Survey(), before=second) == second
        assert len(first.bridge) <= 15

    def test_what_others_have_on_the_host_is_avoided(self) -> None:
        first = self.place(Survey())
        foreign = replace(container("r1"), labels={"containerlab": f"ml-{first.number}"})
        assert self.place(Survey(), look=HostLook(containers=(foreign,))).number != first.number
        network = DockerNetwork(f"nl_mgmt_{first.number}", "2", "", (ip_network(first.management),))
        found = self.place(Survey(), look=HostLook(networks=(network,)))
        assert (found.number != first.number, found.management != first.management) == (True, True)

    def test_what_the_settings_ask_for_and_others_have_is_refused(self) -> None:
        taken = Survey(others=(Other(7, "labour", "10.9.0.0/24", "default/other/lab"),))
        for settings, words in (
            ({"number": 7}, "number 7 is default/other/lab's"),
            ({"name": "labour2"}, "begins like labour"),
            ({"management": "10.9.0.0/25"}, "overlaps 10.9.0.0/24"),
            ({"management": "172.17.4.0/24"}, "Docker's network bridge"),
        ):
            with pytest.raises(SpecError, match=words):
                self.place(taken, **settings)
        with pytest.raises(SpecError, match="200 of netlab's lab numbers"):
            self.place(Survey(others=tuple(Other(number, "-", "", "x") for number in range(1, 201))))

    def test_a_lab_of_devices_needs_no_network(self) -> None:
        found = placed(spec(), "a/b/c", None, Survey(), self.LOOK, external=True)
        assert (found.management, found.network) == ("", "")


class TestErrors:
    def test_a_topology_error_is_netlabs_own_words_with_the_compositions_file(self) -> None:
        words = (
            "Errors encountered while processing topology.yml\n"
            "IncorrectValue in links: Link string r1-r9 in links[1] refers to an unknown node r9\n"
            "Fatal error in netlab: Cannot proceed beyond this point due to errors, exiting\n"
        )
        found = error(words, "creating the lab's files")
        assert isinstance(found, SpecError)
        assert found.summary == "lab/topology.yml: links: Link string r1-r9 in links[1] refers to an unknown node r9"
        found = error(
            "UserWarning in configs: Cannot find x template\nFatal error in netlab: Cannot go on\n", "creating"
        )
        assert found.summary == "lab/topology.yml: configs: Cannot find x template"
        words = (
            "Fatal error in netlab: Cannot read YAML from /var/lib/skyspan/netlab/nl-1/files/lab/topology.yml: while\n"
            '  in "/tmp/skyspan.AbCd1234/lab/lab/topology.yml", line 2, column 6\n'
        )
        found = error(words, "creating the lab's files")
        assert isinstance(found, SpecError)
        assert "read YAML from lab/topology.yml" in found.detail
        assert 'in "lab/topology.yml", line 2, column 6' in found.detail

    def test_each_trouble_has_its_own_kind_and_hint(self) -> None:
        for words, kind, summary, hint in (
            ("unable to apply caps: not permitted", ToolFailedError, "no full privileges", "restricted: true"),
            ("No such file or directory: '/proc/modules'", ToolFailedError, "no modules", "restricted: true"),
            ('node "r1" deploy links: operation not supported', ToolFailedError, "dummy", "restricted: true"),
            ("pull access denied for nothere, repository", SpecError, "no image nothere", "images: {nothere: …}"),
            ("ERRO Failed to pull image image=docker.io/a/b:1 err=x", SpecError, "no image a/b:1", "images: {a/b:1"),
            ("Container netlab/x:1 used by node r1 is not installed, an image", SpecError, "netlab/x:1", "docker load"),
            ("invalid pool request: Pool overlaps with other one", SpecError, "overlaps", "`management`"),
            ("Containerlab version is too old, please", ToolMissingError, "too old", "update"),
            ("sudo: a password is required", CredentialsError, "needs root", "without a password"),
            ("sh: 1: exec: sudo: not found", CredentialsError, "needs root", "log in as root"),
            ("Cannot connect to the Docker daemon at unix", ToolMissingError, "Docker does not run", "start"),
            ("write x: no space left on device", ToolFailedError, "is full", "make room"),
            ("FatalError in initial: initial configuration in namespace x failed for node r3", ToolFailedError,
             "configuring r3 failed", "image lacks"),
            ("FatalError in initial: vlan configuration in namespace x failed for node s1\n"
             "+ ip link add link eth1 name eth1.7 type vlan id 7\n  Error: Unknown device type.", ToolFailedError,
             "no interfaces of type vlan", "`modprobe 8021q`"),
            ("something else", ToolFailedError, "failed (exit status 1)", ""),
        ):  # fmt: skip
            found = error(words)
            assert type(found) is kind, words
            assert summary in found.summary
            assert hint in found.hint

    def test_progress_is_left_out_of_last_words_and_secrets_too(self) -> None:
        noise = "22:48:16 INFO Creating container name=r1\n╭────╮\n│ x  │\nWarning in ansible: y\nOK: done\n"
        found = error(noise + "it is hush\n", secrets=(Secret("hush"),))
        assert found.detail == "it is ***"

    def test_what_the_host_lacks_is_said_at_once(self) -> None:
        with pytest.raises(ToolMissingError, match="lacks netlab, docker") as caught:
            refuse_tools(Survey(("netlab", "docker", "ansible-playbook"), ""), "lab-1", "netlab", external=False)
        assert "pip install networklab" in caught.value.hint
        with pytest.raises(ToolMissingError, match="too old"):
            refuse_tools(Survey((), "1.9.2"), "lab-1", "netlab", external=False)
        refuse_tools(Survey(("docker", "containerlab"), "26.10"), "lab-1", "netlab", external=True)
        assert version_of("26.10.post1") == (26, 10)
