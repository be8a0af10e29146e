"""Hosts that refuse, hide or lie, and playbooks over two of them; every host is a real sshd on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import Cli
from tests.support.sshd import Sshd, free_port, make_key

pytestmark = pytest.mark.integration


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sshd, Sshd]]:
    folder = tmp_path_factory.mktemp("servers")
    found: list[Sshd] = []
    try:
        found += [Sshd(folder / "one"), Sshd(folder / "two")]
        yield found[0], found[1]
    finally:
        for server in found:
            server.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "own")
    yield server
    server.stop()


def remote(cli: Cli, declaration: str, stage: str = "run: 'echo hi'") -> Path:
    """A composition with one command on one host."""
    return cli.compose(
        f"hosts: {{box: {declaration}}}\nstages:\n"
        f"  far: {{uses: command, retry: {{attempts: 1}}, with: {{host: box, {stage}}}}}\n"
        "  near: {uses: command, with: {run: 'true'}}\n"
    )


def failure(cli: Cli, app: Path) -> dict[str, str]:
    """Why the stage on the host failed; the independent one succeeded."""
    ran = cli.up(app)
    assert ran.status == 1
    assert ran.stages() == {"far": "failed", "near": "succeeded"}
    error = ran.error("far")
    assert error["hint"], error
    return error


def test_a_command_on_a_host_runs_there_and_is_remembered(cli: Cli, servers: tuple[Sshd, Sshd], tmp_path: Path) -> None:
    stage = (
        f"run: 'echo made > {tmp_path}/far; echo name=far >> \"$SKYSPAN_OUTPUT\"; echo over ssh', "
        f"creates: '{tmp_path}/far', destroy: 'rm {tmp_path}/far'"
    )
    app = remote(cli, servers[0].declaration(), stage)
    assert cli.up(app).stages() == {"far": "succeeded", "near": "succeeded"}
    assert "over ssh" in cli("logs", "app").out
    assert cli.json("outputs", "app").document["merged"] == {"name": "far"}
    assert cli.up(app).stages() == {"far": "unchanged", "near": "unchanged"}
    (tmp_path / "far").unlink()
    assert cli.json("check", "app").stages()["far"] == "failed"
    assert cli.up(app).stages()["far"] == "succeeded"
    assert cli.json("destroy", "app", "--yes").status == 0
    assert not (tmp_path / "far").exists()


def test_a_refused_connection_names_host_and_port(cli: Cli, servers: tuple[Sshd, Sshd]) -> None:
    port = free_port()
    error = failure(cli, remote(cli, servers[0].declaration(port=str(port))))
    assert error["kind"] == "UnreachableError"
    assert "refused" in error["summary"]
    assert str(port) in error["summary"]


def test_an_unknown_host_key_is_refused_with_how_to_accept_it(cli: Cli, servers: tuple[Sshd, Sshd]) -> None:
    server = servers[0]
    error = failure(cli, remote(cli, server.declaration(host_key="")))
    assert error["kind"] == "HostKeyError"
    assert "unknown" in error["summary"]
    assert "SHA256:" in error["detail"]
    assert f'host_key: "{server.host_key}"' in error["hint"]
    # And accepting it as told works, in either place.
    (cli.folder / "user" / ".ssh").mkdir()
    line = next(line for line in error["hint"].splitlines() if line.strip().startswith("[127.0.0.1]"))
    (cli.folder / "user" / ".ssh" / "known_hosts").write_text(line.strip() + "\n")
    assert cli.up(cli.folder / "app").status == 0


def test_a_changed_host_key_is_shouted(cli: Cli, servers: tuple[Sshd, Sshd], tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    error = failure(cli, remote(cli, servers[0].declaration(host_key=f'"{other}"')))
    assert error["kind"] == "HostKeyError"
    assert "HAS CHANGED" in error["summary"]


def test_refused_credentials_say_whose_key(cli: Cli, servers: tuple[Sshd, Sshd], tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    error = failure(cli, remote(cli, servers[0].declaration(key_file=str(tmp_path / "stranger"))))
    assert error["kind"] == "CredentialsError"
    assert "authorized_keys" in error["hint"]


def test_a_host_that_goes_down_is_found_and_the_run_goes_on_when_it_is_back(cli: Cli, own: Sshd) -> None:
    app = remote(cli, own.declaration())
    assert cli.up(app).status == 0
    own.stop()
    check = cli.json("check", "app")
    assert check.status in (0, 1)
    cli.compose((app / "skyspan.yaml").read_text().replace("echo hi", "echo ho"))
    ran = cli.up(app)
    assert ran.stages() == {"far": "failed", "near": "unchanged"}
    assert ran.error("far")["kind"] == "UnreachableError"
    assert cli.json("destroy", "app", "--yes").status in (0, 1)
    own.start()
    assert cli.up(app).status == 0


def test_a_transient_failure_is_tried_again_and_says_so(cli: Cli) -> None:
    port = free_port()
    app = cli.compose(
        f"hosts: {{box: {{address: 127.0.0.1, port: {port}}}}}\nstages:\n"
        "  far: {uses: command, retry: {attempts: 3, backoff: 50ms}, with: {host: box, run: 'true'}}\n"
    )
    ran = cli.up(app)
    assert ran.status == 1
    assert ran.document["stages"][0]["attempt"] == 3
    assert "tried again in" in ran.err


PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - name: make the file
      copy: {{dest: "{folder}/{{{{ inventory_hostname }}}}", content: "{{{{ word }}}}\\n"}}
    - name: trip over
      command: "test ! -e {folder}/trip-{{{{ inventory_hostname }}}}"
      changed_when: false
      check_mode: false
    - name: tell
      set_stats: {{data: {{configured: "{{{{ ansible_play_hosts | sort | join(',') }}}}"}}}}
      run_once: true
"""


def playing(cli: Cli, one: Sshd, two: Sshd, folder: Path, **ports: str) -> Path:
    """A composition with a playbook over two hosts, which makes one file for each in `folder`."""
    app = cli.compose(
        f"""
hosts:
  one: {one.declaration()}
  two: {two.declaration(**ports)}
inputs: {{word: {{type: string, default: hello}}}}
stages:
  play:
    uses: ansible
    retry: {{attempts: 1}}
    with: {{playbook: site.yml, hosts: [one, two], extra_vars: {{word: "${{{{ inputs.word }}}}"}}}}
"""
    )
    (app / "site.yml").write_text(PLAYBOOK.format(folder=folder))
    return app


def test_a_playbook_configures_two_hosts_settles_and_its_drift_is_seen(
    cli: Cli, servers: tuple[Sshd, Sshd], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    app = playing(cli, *servers, made)
    plan = cli.plan(app)
    assert plan.changes() == {"play": "create"}
    assert not list(made.iterdir()), "planning touches nothing"
    assert cli.up(app).stages() == {"play": "succeeded"}
    assert {path.name: path.read_text() for path in made.iterdir()} == {"one": "hello\n", "two": "hello\n"}
    assert cli.json("outputs", "app").document["merged"] == {"configured": "one,two"}
    assert cli.up(app).stages() == {"play": "unchanged"}
    (made / "two").write_text("scribbled over\n")
    check = cli.json("check", "app")
    assert (check.status, check.stages()) == (1, {"play": "failed"})
    assert "two: make the file" in check.error("play")["detail"]
    assert "one: make the file" not in check.error("play")["detail"]
    assert (made / "two").read_text() == "scribbled over\n", "looking touches nothing"
    assert cli.up(app).stages() == {"play": "succeeded"}
    assert (made / "two").read_text() == "hello\n"


def test_a_playbook_that_fails_on_one_host_names_it_and_was_fine_on_the_other(
    cli: Cli, servers: tuple[Sshd, Sshd], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "trip-two").touch()
    app = playing(cli, *servers, made)
    ran = cli.up(app)
    assert ran.status == 1
    error = ran.error("play")
    assert error["kind"] == "ToolFailedError"
    assert "failed on two (fine on one)" in error["summary"]
    assert "two: trip over" in error["detail"]
    (made / "trip-two").unlink()
    assert cli.up(app).stages() == {"play": "succeeded"}


def test_a_host_that_does_not_answer_is_told_apart_from_one_that_fails(
    cli: Cli, servers: tuple[Sshd, Sshd], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    app = playing(cli, *servers, made, port=str(free_port()))
    ran = cli.up(app)
    assert ran.status == 1
    error = ran.error("play")
    assert error["kind"] == "UnreachableError"
    assert "two did not answer" in error["summary"]
    assert (made / "one").exists()


def test_a_syntax_error_of_a_playbook_comes_in_its_own_words(
    cli: Cli, servers: tuple[Sshd, Sshd], tmp_path: Path
) -> None:
    app = playing(cli, *servers, tmp_path)
    (app / "site.yml").write_text("- hosts: all\n  tasks:\n    - nonsense_module_name: {}\n")
    error = cli.up(app).error("play")
    assert error["kind"] == "ToolFailedError"
    assert "nonsense_module_name" in error["detail"]
