"""Ansible's events, inventory and commands, without Ansible."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from skyspan.contracts.host import Host
from skyspan.contracts.transport import Effect
from skyspan.model.secret import Secret
from skyspan.providers.ansible import commands
from skyspan.providers.ansible.applied import origin
from skyspan.providers.ansible.inventory import inventory, known_hosts_lines, ssh_options
from skyspan.providers.ansible.parse import LineSplitter, Recap, Started, TaskResult, parse_line
from skyspan.providers.ansible.spec import AnsibleSpec

PATHS = commands.Paths(
    "/bin/ansible-playbook", "/app", "/w/inventory.json", "/w/vars.json", "/w/home", "/w/collections"
)


def event(kind: str, **fields: Any) -> str:
    return json.dumps({"_event": kind, **fields})


def result(kind: str, **fields: Any) -> TaskResult:
    task = {"name": "make it", "path": "site.yml:7"}
    said = parse_line(event(kind, hosts={"box": fields}, task=task))
    assert isinstance(said, TaskResult)
    return said


@pytest.mark.parametrize(
    ("kind", "fields", "state"),
    [
        ("v2_runner_on_ok", {}, "ok"),
        ("v2_runner_on_ok", {"changed": True}, "changed"),
        ("v2_runner_on_failed", {"msg": "no"}, "failed"),
        ("v2_runner_on_failed", {"msg": "no", "ignore_errors": True}, "ignored"),
        ("v2_runner_on_unreachable", {"msg": "gone"}, "unreachable"),
        ("v2_runner_on_skipped", {}, "skipped"),
    ],
)
def test_every_kind_of_result_is_told(kind: str, fields: dict[str, Any], state: str) -> None:
    said = result(kind, **fields)
    assert (said.host, said.task, said.state, said.where) == ("box", "make it", state, "site.yml:7")


def test_a_failure_says_what_the_module_said_and_no_log_hides_it() -> None:
    assert result("v2_runner_on_failed", msg="broke", stderr="last words\n").message == "broke\nstderr: last words"
    loop = {"msg": "one or more failed", "results": [{"failed": True, "msg": "this one"}, {"msg": "not this"}]}
    assert result("v2_runner_on_failed", **loop).message == "one or more failed\nthis one"
    hidden = result("v2_runner_on_failed", msg="the password is x", _ansible_no_log=True)
    assert hidden.message == "hidden by no_log"


def test_the_recap_holds_counts_and_statistics() -> None:
    stats = {"one": {"ok": 2, "failures": 0, "unreachable": 0}, "two": {"ok": 1, "failures": 1, "unreachable": 0}}
    said = parse_line(
        event("v2_playbook_on_stats", stats=stats, global_custom_stats={"a": 1}, custom_stats={"two": {"b": 2}})
    )
    assert isinstance(said, Recap)
    assert said.having("failures") == ("two",)
    assert said.having("unreachable") == ()
    assert said.outputs() == {"a": 1, "b": {"two": 2}}


def test_what_is_no_event_is_a_remark_and_nothing_is_nothing() -> None:
    assert parse_line("[WARNING]: something\n") == "[WARNING]: something"
    assert parse_line('{"json": "but no event"}') == '{"json": "but no event"}'
    assert parse_line("  \n") is None
    assert parse_line(event("v2_playbook_on_start")) is None
    assert parse_line(event("v2_playbook_on_task_start", task={"name": "next"})) == Started("next")


def test_lines_come_whole_however_they_are_cut() -> None:
    data = "one\nzwölf\nrest".encode()
    splitter = LineSplitter()
    lines = [line for place in range(len(data)) for line in splitter.feed(data[place : place + 1])]
    assert lines == ["one", "zwölf"]
    assert splitter.flush() == ["rest"]
    assert splitter.flush() == []


HOSTS = {
    "gw": Host("gw", "203.0.113.1", user="ops", roles=("gateway",), host_key="ssh-ed25519 AAAAgw"),
    "box": Host("box", "10.0.0.2", port=2222, jump="gw", roles=("web", "db"), host_key="ssh-ed25519 AAAAbox"),
    "plain": Host("plain", "10.0.0.3", vars={"color": "red", "token": Secret("planted")}),
}


def test_the_inventory_holds_the_chosen_hosts_their_facts_and_groups() -> None:
    made = inventory(HOSTS, ["box", "plain"], {"mine": ["plain", "gw"]}, {"box": "/k/box", "gw": "/k/gw"}, "/k/known")
    everything = made["all"]
    assert set(everything["hosts"]) == {"box", "plain"}
    assert {name: set(group["hosts"]) for name, group in everything["children"].items()} == {
        "web": {"box"}, "db": {"box"}, "mine": {"plain"}
    }  # fmt: skip
    box = everything["hosts"]["box"]
    assert (box["ansible_host"], box["ansible_port"], box["ansible_user"]) == ("10.0.0.2", 2222, "root")
    assert box["ansible_ssh_private_key_file"] == "/k/box"
    plain = everything["hosts"]["plain"]
    assert (plain["color"], plain["token"]) == ("red", "planted"), "the file is private: vars are in clear"
    assert "ansible_ssh_private_key_file" not in plain
    assert json.dumps(made)


def test_a_jump_host_becomes_a_proxy_command_with_its_own_key_and_trust() -> None:
    made = inventory(HOSTS, ["box"], {}, {"gw": "/k/gw"}, "/k/known hosts")
    options = shlex.split(made["all"]["hosts"]["box"]["ansible_ssh_common_args"])
    [proxy] = [option for option in options if option.startswith("ProxyCommand=")]
    words = shlex.split(proxy.removeprefix("ProxyCommand="))
    assert words[0] == "ssh"
    assert words[words.index("-l") : words.index("-l") + 4] == ["-l", "ops", "-i", "/k/gw"]
    assert words[-3:] == ["-W", "[%h]:%p", "203.0.113.1"]
    assert 'UserKnownHostsFile="/k/known hosts" ~/.ssh/known_hosts' in words


def test_a_percent_sign_in_a_jumps_path_survives_sshs_own_expansion() -> None:
    made = inventory(HOSTS, ["box"], {}, {"gw": "/k/100%h"}, "/k/known")
    assert "/k/100%%h" in made["all"]["hosts"]["box"]["ansible_ssh_common_args"]


def test_host_keys_are_pinned_with_their_port_and_nothing_is_asked() -> None:
    assert known_hosts_lines(HOSTS) == "203.0.113.1 ssh-ed25519 AAAAgw\n[10.0.0.2]:2222 ssh-ed25519 AAAAbox\n"
    assert {"StrictHostKeyChecking=yes", "BatchMode=yes"} <= set(ssh_options(HOSTS["gw"], "/k"))


def test_looking_is_a_read_in_check_mode_and_acting_a_write() -> None:
    spec = AnsibleSpec.model_validate(
        {"playbook": "site.yml", "hosts": ["a"], "tags": ["x", "y"], "skip_tags": ["z"], "become": True, "forks": 3}
    )
    look, act = (commands.playbook(spec, PATHS, "/app/site.yml", check=check) for check in (True, False))
    assert (look.effect, act.effect) == (Effect.READ, Effect.WRITE)
    assert set(look.argv) - set(act.argv) == {"--check"}
    assert act.display() == (
        "/bin/ansible-playbook -i /w/inventory.json -e @/w/vars.json --forks 3 --tags x,y --skip-tags z --become "
        "/app/site.yml"
    )
    assert act.env["ANSIBLE_STDOUT_CALLBACK"] == commands.CALLBACK


def test_connections_are_shared_only_where_the_sockets_path_is_short_enough() -> None:
    def shares(folder: str) -> bool:
        spec = AnsibleSpec.model_validate({"playbook": "site.yml", "hosts": ["a"]})
        paths = commands.Paths("/bin/ansible-playbook", "/app", "i", "v", folder, "c")
        env = commands.environment(spec, paths)
        return "ControlMaster=auto" in str(env["ANSIBLE_SSH_ARGS"]) and "ANSIBLE_SSH_CONTROL_PATH_DIR" in env

    assert shares("/" + "x" * 75)
    assert not shares("/" + "x" * 76)
    assert not shares("/" + "ü" * 40)


def test_a_run_comes_from_its_settings_its_hosts_and_its_files(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text("one")
    (tmp_path / "roles" / "web").mkdir(parents=True)
    (tmp_path / "roles" / "web" / "main.yml").write_text("two")
    spec = AnsibleSpec.model_validate({"playbook": "site.yml", "hosts": ["plain"], "extra_vars": {"a": Secret("x")}})
    hosts = {"plain": HOSTS["plain"]}
    sources = ("site.yml", "roles", "absent")
    first = origin(spec, hosts, tmp_path, sources)
    assert origin(spec, hosts, tmp_path, sources) == first
    other_variable = spec.model_copy(update={"extra_vars": {"a": Secret("y")}})
    other_host = {"plain": Host("plain", "10.0.0.4")}
    seen = {first, origin(other_variable, hosts, tmp_path, sources), origin(spec, other_host, tmp_path, sources)}
    (tmp_path / "roles" / "web" / "main.yml").write_text("three")
    seen.add(origin(spec, hosts, tmp_path, sources))
    assert len(seen) == 4
