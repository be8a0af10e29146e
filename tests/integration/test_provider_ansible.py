"""The ansible provider under the provider suite, with the real ansible-playbook, on this machine and over SSH."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.sshd import USER, Sshd, free_port

from skyspan.contracts.host import Host
from skyspan.model.change import Action
from skyspan.model.error import SpecError, ToolFailedError, UnreachableError
from skyspan.model.secret import Secret
from skyspan.providers.ansible.provider import AnsibleProvider
from skyspan.providers.ansible.spec import AnsibleSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.provider_world import FoundTools, ProviderWorld
from skyspan.transports.local import LocalTransport

PATH = f"{os.environ['PATH']}:/usr/sbin"
SECRET = Secret('pass "word"/+=&')

SITE = """
- hosts: all
  gather_facts: false
  tasks:
    - name: wait
      pause: {seconds: "{{ seconds }}"}
      when: (seconds | default(0) | int) > 0
    - name: make the thing
      copy: {dest: "{{ at }}/{{ inventory_hostname }}", content: "{{ text }}"}
    - name: tell
      set_stats: {data: {text: "{{ text }}", count: 2, shape: {list: [1, true, null]}}}
      run_once: true
    - name: say
      debug: {msg: "it is {{ text }}"}
    - name: trip over
      fail: {msg: "I saw {{ text }}"}
      when: trip | default(false)
"""

UNDO = """
- hosts: all
  gather_facts: false
  tasks:
    - name: remove the thing
      file: {path: "{{ at }}/{{ inventory_hostname }}", state: absent}
"""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[LocalTransport]:
    transport = LocalTransport({"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": str(tmp_path)})
    yield transport
    await transport.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    found = Sshd(tmp_path_factory.mktemp("server"))
    yield found
    found.stop()


def local_host(name: str = "box") -> Host:
    return Host(name, "127.0.0.1", user=USER, roles=("web",), vars={"ansible_connection": "local"})


def ssh_host(server: Sshd, name: str = "far", **more: Any) -> Host:
    key = Secret((server.folder / "user_key").read_text())
    return Host(name, "127.0.0.1", port=server.port, user=USER, key=key, host_key=server.host_key, **more)


def world_of(folder: Path, here: LocalTransport, *hosts: Host) -> ProviderWorld:
    tools = FoundTools(PATH)
    if tools.find("ansible-playbook") is None:
        pytest.fail("ansible-playbook is missing: run `make tools`")
    world = ProviderWorld(folder, {None: here}, hosts={host.name: host for host in hosts}, tools=tools)
    (world.folder / "site.yml").write_text(SITE)
    (world.folder / "undo.yml").write_text(UNDO)
    (folder / "real").mkdir()
    return world


def spec_of(world: ProviderWorld, **variables: Any) -> AnsibleSpec:
    return AnsibleSpec.model_validate(
        {
            "playbook": "site.yml",
            "destroy": "undo.yml",
            "hosts": list(world.hosts),
            "extra_vars": {"at": str(world.root / "real"), **variables},
        }
    )


def case_of(folder: Path, here: LocalTransport, verify: str) -> ProviderCase:
    world = world_of(folder, here, local_host())

    def spec(**variables: Any) -> AnsibleSpec:
        return spec_of(world, **variables).model_copy(update={"verify": verify})

    return ProviderCase(
        provider=AnsibleProvider(),
        spec=spec(text="one"),
        changed=spec(text="two"),
        secret_spec=spec(text=SECRET),
        failing_spec=spec(text=SECRET, trip=True),
        slow_spec=spec(text="one", seconds=60),
        world=world,
        snapshot=lambda: {path.name: path.read_text() for path in sorted((folder / "real").iterdir())},
    )


class TestTrustingItsMarker(ProviderConformance):
    """Looking runs nothing here, so that the whole suite takes seconds; that it can look is shown below."""

    @pytest.fixture
    def case(self, tmp_path: Path, here: LocalTransport) -> ProviderCase:
        return case_of(tmp_path, here, "marker")


@pytest.mark.parametrize(
    "rule",
    [
        ProviderConformance.test_applying_makes_it_exist_and_the_plan_settles,
        ProviderConformance.test_looking_at_what_was_applied_writes_nothing,
        ProviderConformance.test_a_changed_setting_is_planned_and_settles,
        ProviderConformance.test_no_secret_shows,
    ],
)
async def test_looking_in_check_mode_keeps_the_rules_too(tmp_path: Path, here: LocalTransport, rule: Any) -> None:
    await rule(ProviderConformance(), case_of(tmp_path, here, "check"))


async def applied(world: ProviderWorld, spec: AnsibleSpec) -> Any:
    """Look, plan and apply, as the engine does."""
    provider = AnsibleProvider()
    change = await provider.plan(spec, await provider.observe(spec, world.reading()), world.reading())
    return await provider.apply(spec, change, world.writing())


async def test_over_ssh_the_key_is_pinned_private_and_gone_afterwards(
    tmp_path: Path, here: LocalTransport, server: Sshd
) -> None:
    world = world_of(tmp_path, here, ssh_host(server), local_host())
    seen = await applied(world, spec_of(world, text="one"))
    assert {name: output.value for name, output in seen.outputs.items()} == {
        "text": "one", "count": 2, "shape": {"list": [1, True, None]}
    }  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == ["box", "far"]
    [command] = [item for item in world.commands if "ansible-playbook" in item.display()]
    assert "PRIVATE KEY" not in command.display()
    left = [path for path in world.work.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert not left, "the key does not stay"
    assert not (world.work / "run").exists()


async def test_a_wrong_host_key_and_a_silent_host_are_unreachable_and_named(
    tmp_path: Path, here: LocalTransport, server: Sshd
) -> None:
    other = " ".join((server.folder / "user_key.pub").read_text().split()[:2])
    strange = Host("strange", "127.0.0.1", port=server.port, user=USER, host_key=other)
    silent = Host("silent", "127.0.0.1", port=free_port(), user=USER, host_key=other)
    world = world_of(tmp_path, here, local_host(), strange, silent)
    with pytest.raises(UnreachableError, match="silent, strange did not answer") as caught:
        await applied(world, spec_of(world, text="one"))
    assert "refused" in caught.value.detail
    assert "host key" in caught.value.detail.lower()
    assert (tmp_path / "real" / "box").exists(), "the other host was configured"


async def test_tags_groups_and_forks_reach_the_playbook(tmp_path: Path, here: LocalTransport) -> None:
    world = world_of(tmp_path, here, local_host("a"), local_host("b"))
    (world.folder / "site.yml").write_text(
        "- hosts: chosen\n  gather_facts: false\n  tasks:\n"
        "    - set_stats: {data: {web: \"{{ groups['web'] | sort }}\", here: '{{ inventory_hostname }}'}}\n"
        "      tags: [wanted]\n"
        "    - fail: {msg: not wanted}\n      tags: [unwanted]\n"
    )
    spec = AnsibleSpec.model_validate(
        {"playbook": "site.yml", "hosts": ["a", "b"], "groups": {"chosen": ["b"]}, "tags": ["wanted"], "forks": 2}
    )
    seen = await applied(world, spec)
    assert {name: output.value for name, output in seen.outputs.items()} == {"web": ["a", "b"], "here": "b"}


async def test_a_playbook_that_cannot_run_in_check_mode_trusts_its_marker(tmp_path: Path, here: LocalTransport) -> None:
    world = world_of(tmp_path, here, local_host())
    spec = spec_of(world, text="one").model_copy(update={"verify": "marker"})
    await applied(world, spec)
    (tmp_path / "real" / "box").unlink()
    commands = len(world.commands)
    seen = await AnsibleProvider().observe(spec, world.reading())
    assert (seen.exists, seen.drifted) == (True, False)
    assert len(world.commands) == commands, "nothing is run to look"


async def test_an_edited_playbook_is_planned_and_run_again(tmp_path: Path, here: LocalTransport) -> None:
    world = world_of(tmp_path, here, local_host())
    spec, provider = spec_of(world, text="one").model_copy(update={"verify": "marker"}), AnsibleProvider()
    await applied(world, spec)
    (world.folder / "site.yml").write_text(SITE.replace("{{ text }}", "edited"))
    change = await provider.plan(spec, await provider.observe(spec, world.reading()), world.reading())
    assert (change.action, change.reason) == (Action.UPDATE, "its settings or files changed")
    await applied(world, spec)
    assert (tmp_path / "real" / "box").read_text() == "edited"


async def test_what_cannot_work_is_told_before_anything_runs(tmp_path: Path, here: LocalTransport) -> None:
    world = world_of(tmp_path, here, local_host())
    with pytest.raises(SpecError, match="unknown hosts: nobody"):
        await applied(world, spec_of(world, text="one").model_copy(update={"hosts": ("nobody",)}))
    with pytest.raises(SpecError, match=r"no playbook 'none\.yml'"):
        await applied(world, spec_of(world, text="one").model_copy(update={"playbook": "none.yml"}))
    (world.folder / "site.yml").write_text("- hosts: all\n  tasks: [\n")
    with pytest.raises(ToolFailedError, match="ansible-playbook ended with") as caught:
        await applied(world, spec_of(world, text="one"))
    assert "site.yml" in caught.value.detail


async def test_preflight_names_missing_tools_and_files(tmp_path: Path, here: LocalTransport) -> None:
    world = world_of(tmp_path, here, local_host())
    settings = {"playbook": "none.yml", "requirements": "needed.yml"}
    found = await AnsibleProvider().preflight(settings, world.reading())
    assert [item.code for item in found] == ["missing-file", "missing-file"]
    bare = ProviderWorld(tmp_path / "bare", {None: here}, tools=FoundTools("/nowhere"))
    found = await AnsibleProvider().preflight({}, bare.reading())
    assert [item.code for item in found] == ["missing-tool"]
    assert "apt-get install ansible" in found[0].hint
