"""External tools that are missing, too old, or refuse what they are given; and outputs that break their contract."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import Cli, python_without_tools

pytestmark = pytest.mark.integration

CLOUD = """
stages:
  cloud: {uses: terraform, with: {source: ./cloud}}
"""

THING = """
resource "terraform_data" "thing" {
  input = "x"
}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()


def cloud(cli: Cli, text: str = THING, stages: str = CLOUD) -> Path:
    """A composition with one Terraform stage."""
    app = cli.compose(stages)
    (app / "cloud").mkdir(exist_ok=True)
    (app / "cloud" / "main.tf").write_text(text)
    return app


def bare(tmp_path: Path, **env: str) -> Cli:
    """A command line whose machine has none of the tools."""
    python, environment = python_without_tools(tmp_path / "venv")
    return Cli(tmp_path, python=python, env={**environment, "PATH": "/nowhere", **env})


def test_missing_tools_are_found_before_anything_is_touched(tmp_path: Path) -> None:
    cli = bare(tmp_path)
    app = cloud(
        cli,
        stages=f"""
hosts: {{box: {{address: 127.0.0.1}}}}
stages:
  first: {{uses: command, with: {{run: [/bin/touch, {tmp_path}/touched]}}}}
  cloud: {{uses: terraform, with: {{source: ./cloud}}}}
  play: {{uses: ansible, with: {{playbook: site.yml, hosts: [box]}}}}
""",
    )
    (app / "site.yml").write_text("- hosts: all\n  tasks: []\n")
    for verb in ("plan", "up"):
        ran = cli.json(verb, "-f", app, *(["--yes"] if verb == "up" else []))
        assert ran.status == 1, ran.err
        assert ran.document["error"]["kind"] == "PreflightError"
        assert re.search(r"app/skyspan\.yaml:7:\d+: error: stage cloud: .*(tofu|terraform)", ran.err), ran.err
        assert re.search(r"app/skyspan\.yaml:8:\d+: error: stage play: ansible-playbook is not installed", ran.err)
        assert "apt-get install ansible" in ran.err
        assert "2 errors; nothing was touched" in ran.err
    assert not (tmp_path / "touched").exists()
    doctor = cli.json("doctor", "-f", app)
    assert doctor.status == 1
    missing = {item["what"]: item for item in doctor.document["findings"] if item["verdict"] == "error"}
    assert set(missing) == {"tofu", "ansible-playbook"}
    assert all(item["hint"] for item in missing.values())


def test_a_missing_command_fails_its_stage_with_its_name(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    ran = cli.up(cli.compose("stages:\n  odd: {uses: command, with: {run: [no-such-program]}}\n"))
    assert ran.status == 1
    assert ran.error("odd")["kind"] == "ToolMissingError"
    assert "no-such-program is not installed here" in ran.error("odd")["summary"]
    assert "warning: stage odd: no-such-program is not here yet" in ran.err


def test_a_tool_of_a_wrong_version_is_refused_by_name_and_version(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    said = json.dumps({"terraform_version": "1.3.0"})
    (tools / "tofu").write_text(f"#!/bin/sh\n[ \"$1\" = version ] && echo '{said}' && exit 0\nexit 99\n")
    (tools / "tofu").chmod(0o755)
    cli = Cli(tmp_path, env={"SKYSPAN_TOOLS": str(tools)})
    ran = cli("up", "-f", cloud(cli), "--yes")
    assert ran.status == 1
    assert "1.3.0" in ran.err
    assert str(tools / "tofu") in ran.err
    assert re.search(r"1\.\d+", ran.err.replace("1.3.0", "")), "it says which version is needed"


def test_a_syntax_error_of_terraform_comes_with_its_own_file_and_line(cli: Cli) -> None:
    ran = cli.up(cloud(cli, 'resource "terraform_data" "thing" {\n  input = \n}\n'))
    assert ran.status == 1
    error = ran.error("cloud")
    assert "Invalid expression" in error["summary"] + error["detail"], error
    assert re.search(r"main\.tf(:| line |, line )2", error["summary"] + error["detail"]), error
    assert "work/" not in error["summary"] + error["detail"], "the file is named as its author knows it"


def test_a_reference_to_nothing_in_terraform_comes_with_its_own_words(cli: Cli) -> None:
    ran = cli.plan(cloud(cli, 'output "x" {\n  value = terraform_data.nothing.id\n}\n'))
    assert ran.status == 1
    assert "Reference to undeclared resource" in ran.err
    assert re.search(r"main\.tf(:| line |, line )2", ran.err), ran.err


def test_a_terraform_apply_that_fails_keeps_what_was_made(cli: Cli, tmp_path: Path) -> None:
    text = f"""
resource "terraform_data" "made" {{
  input = "x"
  provisioner "local-exec" {{
    when    = destroy
    command = "touch {tmp_path}/unmade"
  }}
}}
resource "terraform_data" "broken" {{
  depends_on = [terraform_data.made]
  provisioner "local-exec" {{
    command = "echo my last words >&2; exit 3"
  }}
}}
"""
    app = cloud(cli, text)
    ran = cli.up(app)
    assert ran.status == 1
    assert "my last words" in ran.error("cloud")["detail"] + cli("logs", "app").out
    assert cli.json("destroy", "app", "--yes").stages() == {"cloud": "destroyed"}
    assert (tmp_path / "unmade").exists(), "what was made before the failure is destroyed too"


def test_an_output_that_is_missing_or_of_the_wrong_type_fails_its_stage(cli: Cli) -> None:
    app = cli.compose("""
stages:
  missing:
    uses: command
    with: {run: 'true'}
    outputs: {address: {type: ip}}
  wrong:
    uses: command
    with: {run: 'echo address=300.1.2.3 >> "$SKYSPAN_OUTPUT"'}
    outputs: {address: {type: ip}}
  optional:
    uses: command
    with: {run: 'true'}
    outputs: {address: {type: ip, optional: true}}
  reader:
    uses: command
    with: {run: 'echo ${{ stages.wrong.outputs.address }}'}
""")
    ran = cli.up(app)
    assert ran.status == 1
    assert ran.stages() == {"missing": "failed", "wrong": "failed", "optional": "succeeded", "reader": "skipped"}
    for stage, words in (("missing", ["address"]), ("wrong", ["address", "300.1.2.3", "IP address"])):
        error = ran.error(stage)
        assert error["kind"] == "OutputError"
        assert all(word in error["summary"] + error["detail"] for word in words), error
    [reason] = [stage["reason"] for stage in ran.document["stages"] if stage["name"] == "reader"]
    assert "wrong" in reason


def test_a_webhook_that_answers_500_degrades_a_best_effort_run(cli: Cli) -> None:
    asked: list[bytes] = []

    class Broken(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(500)
            self.end_headers()
            self.wfile.write(b"the inventory is down")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        app = cli.compose(f"""
stages:
  one: {{uses: command, with: {{run: 'true'}}}}
  register:
    uses: http
    best_effort: true
    retry: {{attempts: 2, backoff: 50ms}}
    with:
      url: "http://127.0.0.1:{server.server_port}/register"
      method: POST
      body: {{name: lab}}
      retries: {{attempts: 1}}
""")
        ran = cli.up(app)
        assert (ran.status, ran.document["run"]["status"]) == (0, "degraded")
        assert ran.stages() == {"one": "succeeded", "register": "failed"}
        assert "500" in ran.error("register")["summary"] + ran.error("register")["detail"]
        assert "the inventory is down" in ran.error("register")["detail"]
        assert [json.loads(body) for body in asked] == [{"name": "lab"}] * 2
        assert cli.up(app, "--strict").status == 3
        assert cli.json("status", "app").document["status"] == "degraded"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
