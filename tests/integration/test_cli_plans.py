"""Plans: what is known and what is not, nothing invented, and a saved plan that is kept or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import Cli

pytestmark = pytest.mark.integration

SITE = """
inputs: {region: {type: string, default: north}}
hosts:
  gateway: {address: "${{ stages.cloud.outputs.address }}", user: root, key_file: /nowhere}
stages:
  cloud:
    uses: terraform
    with: {source: ./cloud, variables: {region: "${{ inputs.region }}"}}
    outputs:
      address: {type: ip, example: 203.0.113.77}
      region: {type: string}
  greet: {uses: command, with: {run: "true", env: {REGION: "${{ inputs.region }}"}}}
  configure:
    uses: command
    with: {host: gateway, run: "true"}
  register:
    uses: command
    with:
      run: "true"
      env: {ADDRESS: "${{ stages.cloud.outputs.address }}", REGION: "${{ stages.cloud.outputs.region }}"}
  announce: {uses: command, needs: [register], with: {run: "true"}}
"""

CLOUD = """
variable "region" { type = string }
resource "terraform_data" "address" {
  input = "192.0.2.${length(terraform_data.region.id) > 0 ? 7 : 8}"
}
resource "terraform_data" "region" {
  input = var.region
}
output "address" { value = terraform_data.address.output }
output "region" { value = var.region }
"""

FILES = """
inputs: {{word: {{type: string, default: one}}}}
stages:
  first: {{uses: command, with: {{run: "echo $WORD > {0}/first", env: {{WORD: "${{{{ inputs.word }}}}"}}}}}}
  second: {{uses: command, needs: [first], with: {{run: "touch {0}/second", creates: "{0}/second"}}}}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path)
    yield made
    made.stop_all()


@pytest.fixture
def site(cli: Cli) -> Path:
    app = cli.compose(SITE)
    (app / "cloud").mkdir()
    (app / "cloud" / "main.tf").write_text(CLOUD)
    return app


def test_the_plan_of_what_was_never_applied_says_what_is_known_and_invents_nothing(cli: Cli, site: Path) -> None:
    plan = cli.plan(site)
    stages = {stage["name"]: stage for stage in plan.document["stages"]}
    assert plan.changes() == {
        "cloud": "create",
        "greet": "create",
        "configure": "deferred",
        "register": "deferred",
        "announce": "create",
    }
    assert [resource["address"] for resource in stages["cloud"]["resources"]] == [
        "terraform_data.address",
        "terraform_data.region",
    ]
    assert {resource["action"] for resource in stages["cloud"]["resources"]} == {"create"}
    # The region is in the plan of the tool itself, so only the address is unknown.
    assert stages["register"]["unknown"] == ["stages.cloud.outputs.address"]
    assert stages["configure"]["unknown"] == ["stages.cloud.outputs.address"]
    assert plan.document["summary"]["deferred"] == 2
    everything = plan.out + plan.err + cli("plan", "-f", site).out
    for invented in ("203.0.113.77", "192.0.2.7", "192.0.2.8", "null", "unknown@", "<computed>"):
        assert invented not in everything.replace('"note": null', ""), invented


def test_looking_touches_nothing(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(FILES.format(tmp_path))
    cli.plan(app)
    assert not (tmp_path / "first").exists()
    assert cli.json("status", "app").document["status"] == "pending"


def test_once_it_is_applied_nothing_is_unknown_any_more(cli: Cli, site: Path) -> None:
    text = (site / "skyspan.yaml").read_text()
    head, _, rest = text.partition("  configure:")
    (site / "skyspan.yaml").write_text(head + "  register:" + rest.partition("  register:")[2])
    assert cli.up(site).status == 0
    plan = cli.plan(site)
    assert set(plan.changes().values()) == {"none"}
    assert plan.document["summary"]["deferred"] == 0


def test_a_saved_plan_is_applied_as_it_was_reviewed(cli: Cli, site: Path, tmp_path: Path) -> None:
    text = (site / "skyspan.yaml").read_text()
    head, _, rest = text.partition("  configure:")
    (site / "skyspan.yaml").write_text(head + "  register:" + rest.partition("  register:")[2])
    saved = tmp_path / "the.plan"
    planned = cli.plan(site, "--out", saved)
    assert planned.document["summary"]["create"] == 3
    ran = cli.json("up", "-f", site, "--plan", saved, "--yes")
    assert ran.status == 0, ran.err
    assert set(ran.stages().values()) == {"succeeded"}


def test_a_saved_plan_of_an_edited_composition_is_refused(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(FILES.format(tmp_path))
    saved = tmp_path / "the.plan"
    cli.plan(app, "--out", saved)
    cli.compose(FILES.format(tmp_path).replace("echo $WORD", "echo not $WORD"))
    ran = cli.json("up", "-f", app, "--plan", saved, "--yes")
    assert ran.status == 1
    assert ran.document["error"]["kind"] == "PlanMismatchError"
    assert "edited" in ran.err
    assert not (tmp_path / "first").exists()


def test_a_saved_plan_with_other_inputs_or_for_another_deployment_is_refused(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(FILES.format(tmp_path))
    saved = tmp_path / "the.plan"
    cli.plan(app, "--out", saved)
    for arguments, said in ((("--input", "word=two"), "inputs"), (("other",), "other")):
        ran = cli.json("up", *arguments, "-f", app, "--plan", saved, "--yes")
        assert ran.status == 1
        assert ran.document["error"]["kind"] == "PlanMismatchError"
        assert said in ran.err
    assert not (tmp_path / "first").exists()


def test_a_saved_plan_that_would_do_something_else_by_now_is_refused_stage_by_stage(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(FILES.format(tmp_path))
    cli.up(app)
    saved = tmp_path / "the.plan"
    assert cli.plan(app, "--out", saved).changes() == {"first": "none", "second": "none"}
    (tmp_path / "second").unlink()
    ran = cli.json("up", "-f", app, "--plan", saved, "--yes")
    assert ran.status == 1
    assert ran.stages() == {"first": "unchanged", "second": "failed"}
    error = ran.error("second")
    assert "plan" in error["summary"]
    assert "create" in error["summary"] + error["detail"], error
    assert error["hint"]
    assert not (tmp_path / "second").exists()


def test_what_is_no_plan_is_told_so(cli: Cli, tmp_path: Path) -> None:
    app = cli.compose(FILES.format(tmp_path))
    for content in ("", "{}", "[]", '{"version": 99}', "not json"):
        (tmp_path / "odd").write_text(content)
        ran = cli.json("up", "-f", app, "--plan", tmp_path / "odd", "--yes")
        assert ran.status in (1, 2), content
        assert "plan" in ran.document["error"]["summary"]
    assert not (tmp_path / "first").exists()


def test_a_plan_file_holds_no_secret(cli: Cli, tmp_path: Path) -> None:
    cli("secrets", "set", "token", stdin="planted-in-a-plan")
    app = cli.compose("stages:\n  a: {uses: command, with: {run: 'true', env: {T: '${{ secrets.token }}'}}}\n")
    saved = tmp_path / "the.plan"
    assert cli.plan(app, "--out", saved).status == 0
    assert json.loads(saved.read_text())
    assert "planted-in-a-plan" not in saved.read_text()
