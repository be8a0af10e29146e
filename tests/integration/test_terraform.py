"""The terraform provider with the real tools: what goes wrong, what it costs, what is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from skyspan.contracts.transport import Command
from skyspan.model.change import Action, Change, Observation
from skyspan.model.error import (
    Retry,
    SpecError,
    StageError,
    StoreUnavailableError,
    ToolFailedError,
    ToolMissingError,
)
from skyspan.model.secret import Secret
from skyspan.providers.terraform import by_hand
from skyspan.providers.terraform.holder import ATTEMPT_VARIABLE, Holder, this_machine
from skyspan.providers.terraform.journal import Journal
from skyspan.providers.terraform.provider import TerraformProvider
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.providers.terraform.worktree import held
from skyspan.testing.provider_world import FoundTools, ProviderWorld, SteppingClock
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

PATH = f"{Path(__file__).resolve().parents[2] / '.tools' / 'bin'}:{os.environ['PATH']}"


@dataclass
class Stage:
    """A stage with its folder, driven as the engine drives it."""

    world: ProviderWorld
    tool: str
    provider: TerraformProvider = field(default_factory=TerraformProvider)

    def write(self, text: str, path: str = "cloud/main.tf") -> Path:
        target = self.world.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def spec(self, **settings: Any) -> TerraformSpec:
        return TerraformSpec.model_validate({"source": "cloud", "tool": self.tool, **settings})

    async def observe(self, spec: TerraformSpec | None = None) -> Observation:
        return await self.provider.observe(spec or self.spec(), self.world.reading())

    async def plan(self, spec: TerraformSpec | None = None) -> Change:
        spec = spec or self.spec()
        return await self.provider.plan(spec, await self.observe(spec), self.world.reading())

    async def apply(self, spec: TerraformSpec | None = None, change: Change | None = None) -> Observation:
        spec = spec or self.spec()
        return await self.provider.apply(spec, change or await self.plan(spec), self.world.writing())

    async def destroy(self, spec: TerraformSpec | None = None) -> None:
        await self.provider.destroy(spec or self.spec(), self.world.writing())

    def ran(self) -> list[str]:
        """The verbs of the commands since the last look, and forget them."""
        verbs = [str(command.argv[1]) for command in self.world.commands]
        self.world.commands.clear()
        return verbs

    def kept_state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.world.kept.data["state"])
        return state

    def addresses(self) -> list[str]:
        return sorted(f"{item['type']}.{item['name']}" for item in self.kept_state()["resources"])

    def files_with(self, text: str) -> list[str]:
        return [str(path) for path in sorted(self.world.work.rglob("*")) if path.is_file() and text in read(path)]


def read(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


@pytest.fixture
async def here() -> AsyncIterator[LocalTransport]:
    # What a person's shell may have set must not reach the tool.
    noise = {"TF_CLI_CONFIG_FILE": "/nowhere/rc", "TF_CLI_ARGS_plan": "-no-such-option", "TF_WORKSPACE": "other"}
    transport = LocalTransport({"PATH": PATH, **noise})
    yield transport
    await transport.close()


def stage_for(tool: str, folder: Path, here: LocalTransport) -> Stage:
    tools = FoundTools(PATH)
    if tools.find(tool) is None:
        pytest.fail(f"{tool} is missing: run `make tools`")
    return Stage(ProviderWorld(folder, {None: here}, tools=tools), tool)


@pytest.fixture
def stage(tmp_path: Path, here: LocalTransport) -> Stage:
    return stage_for("tofu", tmp_path, here)


@pytest.fixture(params=["tofu", "terraform"])
def either(request: pytest.FixtureRequest, tmp_path: Path, here: LocalTransport) -> Iterator[Stage]:
    yield stage_for(request.param, tmp_path, here)


SIMPLE = """
variable "size" {
  type    = number
  default = 1
}
resource "terraform_data" "a" {
  input = var.size
}
output "size" {
  value = terraform_data.a.output
}
output "twice" {
  value = var.size * 2
}
"""


async def test_nothing_applied_is_seen_without_running_any_tool(stage: Stage) -> None:
    stage.write(SIMPLE)
    assert not (await stage.observe()).exists
    assert stage.ran() == []


async def test_an_unchanged_stage_costs_one_run_of_the_tool(either: Stage) -> None:
    either.write(SIMPLE)
    await either.apply()
    either.ran()
    seen = await either.observe()
    assert (seen.exists, seen.healthy, seen.drifted) == (True, True, False)
    assert either.ran() == ["plan"]


async def test_the_first_apply_runs_each_command_once(either: Stage) -> None:
    either.write(SIMPLE)
    there = await either.apply()
    assert either.ran() == ["version", "init", "plan", "show", "apply"]
    assert {name: output.value for name, output in there.outputs.items()} == {"size": 1, "twice": 2}


async def test_a_plan_without_changes_shows_nothing_and_asks_no_api_again(stage: Stage) -> None:
    stage.write(SIMPLE)
    await stage.apply()
    stage.ran()
    change = await stage.plan()
    assert change.action is Action.NONE
    assert {name: output.value for name, output in change.outputs.items()} == {"size": 1, "twice": 2}
    observed, planned = stage.world.commands
    assert "-refresh=false" not in observed.argv
    assert "-refresh=false" in planned.argv


async def test_editing_a_value_needs_no_init_but_a_new_module_does(stage: Stage) -> None:
    stage.write(SIMPLE)
    await stage.apply()
    stage.ran()
    stage.write(SIMPLE.replace("var.size * 2", "var.size * 3"))
    await stage.apply()
    assert stage.ran() == ["plan", "plan", "show", "apply"]
    stage.write('output "from" {\n  value = path.module\n}\n', "modules/part/main.tf")
    stage.write(SIMPLE + 'module "part" {\n  source = "../modules/part"\n}\n')
    await stage.apply()
    assert stage.ran() == ["init", "plan", "plan", "show", "apply"]
    await stage.observe()
    assert stage.ran() == ["plan"]


async def test_what_init_installed_being_gone_is_mended(stage: Stage) -> None:
    stage.write(SIMPLE)
    await stage.apply()
    shutil.rmtree(stage.world.work / "data")
    stage.ran()
    assert (await stage.observe()).exists
    assert stage.ran() == ["init", "plan"]


async def test_a_change_lists_resources_and_only_certain_outputs(either: Stage) -> None:
    either.write(SIMPLE)
    change = await either.plan()
    assert change.action is Action.CREATE
    assert change.reason == "1 to create"
    assert [(item.address, item.action) for item in change.resources] == [("terraform_data.a", Action.CREATE)]
    assert {name: output.value for name, output in change.outputs.items()} == {"twice": 2}
    await either.apply(change=change)
    update = await either.plan(either.spec(variables={"size": 5}))
    assert update.action is Action.UPDATE
    assert {name: output.value for name, output in update.outputs.items()} == {"twice": 10}


async def test_a_replacement_is_planned_as_one(stage: Stage) -> None:
    text = 'variable "of" {\n type = string\n}\nresource "terraform_data" "a" {\n triggers_replace = [var.of]\n}\n'
    stage.write(text)
    await stage.apply(stage.spec(variables={"of": "x"}))
    change = await stage.plan(stage.spec(variables={"of": "y"}))
    assert change.action is Action.REPLACE
    assert change.reason == "1 to replace"


async def test_changed_outputs_alone_are_an_update(stage: Stage) -> None:
    stage.write(SIMPLE)
    await stage.apply()
    stage.write(SIMPLE.replace("var.size * 2", "var.size * 3"))
    change = await stage.plan()
    assert (change.action, change.resources) == (Action.UPDATE, ())
    assert change.reason == "outputs change: twice"
    assert (await stage.apply(change=change)).outputs["twice"].value == 3


async def test_a_change_in_a_module_beside_the_source_is_seen(stage: Stage) -> None:
    stage.write('resource "terraform_data" "in" {\n  input = 1\n}\n', "modules/part/main.tf")
    stage.write('module "part" {\n  source = "../modules/part"\n}\n')
    await stage.apply()
    stage.write('resource "terraform_data" "in" {\n  input = 2\n}\n', "modules/part/main.tf")
    seen = await stage.observe()
    assert seen.drifted
    assert [item.address for item in seen.drift] == ["module.part.terraform_data.in"]


async def test_a_syntax_error_is_told_with_the_users_own_file_and_line(either: Stage) -> None:
    either.write('resource "terraform_data" "a" {\n  input = \n}\n')
    with pytest.raises(ToolFailedError) as caught:
        await either.plan()
    assert "cloud/main.tf:2" in caught.value.summary
    assert "Invalid expression" in caught.value.detail
    assert "input =" in caught.value.detail
    assert str(either.world.work) not in str(caught.value)


async def test_an_error_within_a_module_beside_the_source_names_its_file(stage: Stage) -> None:
    stage.write('resource "terraform_data" "in" {\n  input = nothing.here\n}\n', "modules/part/part.tf")
    stage.write('module "part" {\n  source = "../modules/part"\n}\n')
    with pytest.raises(StageError, match=r"modules/part/part\.tf:2"):
        await stage.plan()


async def test_a_missing_variable_says_where_to_give_it(either: Stage) -> None:
    either.write('variable "zone" {\n  type = string\n}\n')
    with pytest.raises(ToolFailedError) as caught:
        await either.plan()
    assert "No value for required variable" in caught.value.summary
    assert '"zone"' in caught.value.detail
    assert "variables:" in caught.value.hint


async def test_a_variable_that_is_not_declared_is_refused_not_ignored(stage: Stage) -> None:
    stage.write(SIMPLE)
    with pytest.raises(SpecError, match="declares no variable 'sise'"):
        await stage.plan(stage.spec(variables={"sise": 2}))
    assert stage.ran() == []


async def test_a_variable_of_the_wrong_type_is_told_without_showing_other_values(either: Stage) -> None:
    either.write('variable "count_of" {\n  type = number\n}\nvariable "pass" {\n  type = string\n}\n')
    with pytest.raises(ToolFailedError) as caught:
        await either.plan(either.spec(variables={"count_of": [1], "pass": "do-not-tell"}))
    assert "Invalid value for input variable" in caught.value.summary
    assert "count_of" in caught.value.detail
    assert "do-not-tell" not in str(caught.value)
    assert "do-not-tell" not in either.world.report.said()


FRAGILE = """
resource "terraform_data" "first" {}
resource "terraform_data" "second" {
  depends_on = [terraform_data.first]
  provisioner "local-exec" {
    command = "test -e %s || { %s; }"
  }
}
"""


async def test_a_failing_provisioner_fails_the_stage_and_keeps_what_was_made(either: Stage, tmp_path: Path) -> None:
    either.write(FRAGILE % (tmp_path / "mended", "echo last words; exit 7"))
    with pytest.raises(ToolFailedError) as caught:
        await either.apply()
    assert "local-exec provisioner error" in caught.value.summary
    assert "exit status 7" in caught.value.detail
    assert any("last words" in line for line in either.world.report.lines)
    assert either.addresses() == ["terraform_data.first", "terraform_data.second"]
    half = await either.observe()
    assert not half.healthy
    assert half.reason == "left half made: terraform_data.second"
    (tmp_path / "mended").touch()
    change = await either.plan()
    assert [(item.address, item.action) for item in change.resources] == [("terraform_data.second", Action.REPLACE)]
    assert (await either.apply(change=change)).healthy


async def test_what_a_killed_tool_made_without_saving_it_is_listed_and_then_taken_up(
    either: Stage, tmp_path: Path
) -> None:
    # Both tools push their state at most every 20 seconds.
    either.write(FRAGILE % (tmp_path / "mended", "kill -9 $PPID"))
    with pytest.raises(ToolFailedError) as caught:
        await either.apply()
    assert "killed by signal 9" in caught.value.summary
    assert "made, but not in the state:\n  terraform_data.first (id=" in caught.value.detail
    assert "under way, perhaps made:\n  terraform_data.second" in caught.value.detail
    assert caught.value.retry is Retry.LATER
    seen = await either.observe()
    assert (seen.exists, seen.healthy) == (True, False)
    assert "1 made and not in the state, 1 under way" in seen.reason
    (tmp_path / "mended").touch()
    change = await either.plan()
    assert "1 to import that an interrupted apply made, 1 to make again" in change.reason
    assert (await either.apply(change=change)).healthy
    assert any("broke the state lock" in line for line in either.world.report.lines)
    assert either.addresses() == ["terraform_data.first", "terraform_data.second"]
    assert (await either.plan()).action is Action.NONE


async def test_a_cancelled_apply_stops_the_tool_and_keeps_its_state(either: Stage, tmp_path: Path) -> None:
    started = tmp_path / "started"
    either.write(FRAGILE % (tmp_path / "mended", f"touch {started}; sleep 60"))
    task = asyncio.ensure_future(either.apply())
    while not started.exists():
        await asyncio.sleep(0.02)
    before = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - before < 15
    assert "terraform_data.first" in either.addresses()
    assert not list((either.world.work / "state").glob("*"))
    (tmp_path / "mended").touch()
    assert (await either.apply()).healthy


def leave_behind(stage: Stage, state: dict[str, Any], name: str = "terraform.tfstate") -> Path:
    folder = stage.world.work / "state"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(state))
    return folder / name


async def test_a_newer_state_that_a_killed_run_left_is_taken_up_and_said(stage: Stage) -> None:
    stage.write(SIMPLE)
    await stage.apply()
    newer = stage.kept_state() | {"serial": 40}
    newer["outputs"]["size"]["value"] = 77
    left = leave_behind(stage, newer)
    seen = await stage.observe()
    assert seen.outputs["size"].value == 77
    assert left.exists(), "observing cannot seal it, so it stays"
    assert any("interrupted run left behind" in line for line in stage.world.report.lines)
    await stage.apply()
    assert not left.exists()
    assert stage.kept_state()["serial"] == 41


async def test_an_older_state_that_was_left_is_not_used(stage: Stage) -> None:
    stage.write(SIMPLE)
    await stage.apply()
    old = stage.kept_state()
    await stage.apply(stage.spec(variables={"size": 2}))
    left = leave_behind(stage, old)
    assert (await stage.observe(stage.spec(variables={"size": 2}))).outputs["size"].value == 2
    await stage.apply(stage.spec(variables={"size": 3}))
    assert not left.exists()
    assert stage.kept_state()["outputs"]["size"]["value"] == 3


async def test_two_states_of_different_lineage_are_never_guessed_about(stage: Stage) -> None:
    stage.write(SIMPLE)
    await stage.apply()
    left = leave_behind(stage, stage.kept_state() | {"lineage": "somebody-elses"})
    with pytest.raises(StageError, match="two different states"):
        await stage.observe()
    assert left.exists()


async def test_a_damaged_state_that_was_left_is_set_aside_and_said(stage: Stage) -> None:
    stage.write(SIMPLE)
    await stage.apply()
    left = leave_behind(stage, {})
    left.write_text('{"version": 4, "serial"')
    assert (await stage.observe()).exists
    assert any("damaged" in line for line in stage.world.report.lines)
    assert (left.parent / "damaged-terraform.tfstate").read_text() == '{"version": 4, "serial"'


async def test_a_tool_that_outlived_its_engine_is_not_joined_by_another(stage: Stage) -> None:
    stage.write(SIMPLE)
    change = await stage.plan()
    left = Journal(holders=(Holder("survivor", this_machine()),), begun={"terraform_data.a": "survivor"})
    stage.world.kept.data["journal"] = left.dump()
    stage.world.clock = SteppingClock()
    command = Command(("sleep", "60"), {ATTEMPT_VARIABLE: "survivor"})
    survivor = await LocalTransport({"PATH": PATH}).start(command)
    try:
        with pytest.raises(StageError) as caught:
            await stage.apply(change=change)
        assert "still works on this stage's state" in caught.value.summary
        assert str(survivor.pid) in caught.value.detail
        assert caught.value.retry is Retry.LATER
    finally:
        await survivor.stop()
    assert (await stage.apply()).healthy


async def test_what_ran_on_another_machine_is_not_taken_for_dead(stage: Stage) -> None:
    stage.write(SIMPLE)
    change = await stage.plan()
    elsewhere = replace(this_machine(), host="elsewhere")
    left = Journal(holders=(Holder("x", elsewhere),), begun={"terraform_data.a": "x"})
    stage.world.kept.data["journal"] = left.dump()
    with pytest.raises(StageError) as caught:
        await stage.apply(change=change)
    assert caught.value.retry is Retry.NEVER
    assert "skyspan state unlock proof --stage stage" in caught.value.hint
    await by_hand.unlock(stage.world.writing().kept, stage.world.clock, 1)
    assert (await stage.apply()).healthy


async def test_what_is_in_doubt_blocks_until_it_is_settled(stage: Stage) -> None:
    stage.write(SIMPLE)
    left = Journal(holders=(Holder("x", this_machine(), dead=True),), begun={"aws_sqs_queue.a": "x"})
    stage.world.kept.data["journal"] = left.dump()
    with pytest.raises(StageError) as caught:
        await stage.plan()
    assert caught.value.retry is Retry.NEVER
    assert "aws_sqs_queue.a: exists, perhaps, but is no longer declared" in caught.value.detail
    assert "skyspan state settle aws_sqs_queue.a proof --stage stage" in caught.value.hint
    await by_hand.settle(stage.world.writing().kept, "aws_sqs_queue.a", None)
    assert (await stage.apply()).healthy
    assert "journal" not in stage.world.kept.data


async def test_the_states_before_each_command_are_kept_and_can_stand_again(either: Stage) -> None:
    either.write(SIMPLE)
    for size in (1, 2, 3):
        await either.apply(either.spec(variables={"size": size}))
    kept, clock = either.world.writing().kept, either.world.clock
    versions = [entry["serial"] for entry in await by_hand.history(kept)]
    assert len(versions) == 2
    assert (await by_hand.read(kept, str(versions[0]))).outputs["size"].value == 1
    serial = either.kept_state()["serial"]
    again = await by_hand.rollback(kept, str(versions[0]), clock, 1)
    assert (again.outputs["size"].value, again.serial) == (1, serial + 1)
    seen = await either.observe(either.spec(variables={"size": 3}))
    assert seen.drifted
    assert (await either.apply(either.spec(variables={"size": 3}))).outputs["size"].value == 3


async def test_what_cannot_be_pushed_is_collected_and_taken_up(stage: Stage) -> None:
    stage.write(SIMPLE)
    kept = stage.world.kept
    put = kept.put

    async def full(name: str, data: bytes) -> None:
        if name == "state":
            raise StoreUnavailableError("no space is left")
        await put(name, data)

    kept.put = full  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        await stage.apply()
    kept.put = put  # type: ignore[method-assign]
    left = stage.world.work / "tree" / "cloud" / "errored.tfstate"
    assert left.exists()
    assert (await stage.apply()).healthy
    assert not left.exists()
    assert stage.addresses() == ["terraform_data.a"]


async def test_destroy_works_after_the_source_folder_was_deleted(either: Stage, tmp_path: Path) -> None:
    thing = tmp_path / "thing"
    either.write(f"""resource "terraform_data" "a" {{
  input = "{thing}"
  provisioner "local-exec" {{
    command = "touch ${{self.input}}"
  }}
  provisioner "local-exec" {{
    when    = destroy
    command = "rm ${{self.input}}"
  }}
}}""")
    await either.apply()
    assert thing.exists()
    shutil.rmtree(either.world.folder / "cloud")
    shutil.rmtree(either.world.work)
    assert (await either.observe()).exists
    await either.destroy()
    assert not thing.exists()
    assert either.world.kept.data == {}


async def test_destroy_uses_the_configuration_that_was_applied(stage: Stage, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    text = """
resource "terraform_data" "a" {
  input = "%s"
  provisioner "local-exec" {
    when    = destroy
    command = "%s"
  }
}
"""
    stage.write(text % (gone, "echo one > ${self.input}"))
    await stage.apply()
    stage.write(text % (gone, "echo two > ${self.input}"))
    await stage.destroy()
    assert gone.read_text() == "one\n"


async def test_no_secret_is_left_in_any_file_and_the_source_stays_untouched(either: Stage) -> None:
    text = """
variable "pass" {
  type      = string
  sensitive = true
}
resource "terraform_data" "a" {
  input = var.pass
  provisioner "local-exec" {
    command     = "echo $PASS $FROM_ENV"
    environment = { PASS = nonsensitive(var.pass) }
  }
}
output "pass" {
  value     = terraform_data.a.output
  sensitive = true
}
"""
    source = either.write(text)
    spec = either.spec(
        variables={"pass": Secret("canary-in-a-variable")}, env={"FROM_ENV": Secret("canary-in-the-env")}
    )
    change = await either.plan(spec)
    assert either.files_with("canary") == []
    there = await either.apply(spec, change)
    await either.observe(spec)
    assert either.files_with("canary") == []
    assert "canary" not in either.world.report.said()
    assert there.outputs["pass"].sensitive
    assert there.outputs["pass"].value == "canary-in-a-variable"
    assert Secret("canary-in-a-variable") in either.world.report.concealed
    assert "canary" not in json.dumps(change.record())
    assert [path.name for path in sorted(source.parent.iterdir())] == ["main.tf"]
    loose = [path for path in either.world.work.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert [path for path in loose if "data" not in path.parts] == []
    await either.destroy(spec)
    assert either.files_with("canary") == []


async def test_a_plan_that_has_become_stale_is_made_again_when_it_means_the_same(either: Stage) -> None:
    either.write(SIMPLE)
    await either.apply()
    spec = either.spec(variables={"size": 2})
    change = await either.plan(spec)
    # Somebody renews the state without changing anything that matters.
    state = either.kept_state() | {"serial": 30}
    either.world.kept.data["state"] = json.dumps(state).encode()
    assert (await either.apply(spec, change)).outputs["size"].value == 2
    assert any("no longer fits" in line for line in either.world.report.lines)


async def test_a_stored_plan_is_carried_out_only_when_it_still_means_the_same(stage: Stage) -> None:
    stage.write(SIMPLE)
    await stage.apply()
    spec = stage.spec(variables={"size": 2})
    stored = Change.restore(json.loads(json.dumps((await stage.plan(spec)).record())))
    with pytest.raises(StageError) as caught:
        await stage.apply(stage.spec(variables={"size": 3}), stored)
    assert caught.value.retry is Retry.NOW
    assert stage.kept_state()["outputs"]["size"]["value"] == 1
    assert (await stage.apply(spec, stored)).outputs["size"].value == 2


async def test_a_configuration_with_a_backend_of_its_own_keeps_its_state_there(either: Stage, tmp_path: Path) -> None:
    backend = f'terraform {{\n  backend "local" {{\n    path = "{tmp_path}/own.tfstate"\n  }}\n}}\n'
    either.write(backend + SIMPLE)
    assert not (await either.observe()).exists
    there = await either.apply()
    assert there.outputs["size"].value == 1
    assert (tmp_path / "own.tfstate").exists()
    assert "state" not in either.world.kept.data
    assert (await either.observe()).exists
    either.write(SIMPLE)
    with pytest.raises(SpecError, match="backend of its own"):
        await either.plan()
    await either.destroy()
    assert json.loads((tmp_path / "own.tfstate").read_text())["resources"] == []


async def test_backend_kept_takes_a_declared_backend_out_of_play(either: Stage) -> None:
    either.write('terraform {\n  backend "s3" {\n    bucket = "b"\n    key = "k"\n  }\n}\n' + SIMPLE)
    spec = either.spec(backend="kept")
    await either.apply(spec)
    assert either.addresses() == ["terraform_data.a"]
    assert not (await either.observe(spec)).drifted
    with pytest.raises(SpecError, match="state is kept by Skyspan"):
        await either.plan()
    await either.destroy(spec)


async def test_in_a_rehearsal_the_state_is_kept_whatever_the_configuration_says(stage: Stage) -> None:
    stage.write(
        'terraform {\n  cloud {\n    organization = "o"\n    workspaces {\n      name = "w"\n    }\n  }\n}\n' + SIMPLE
    )
    reading = replace(stage.world.reading(), rehearsal=True)
    change = await stage.provider.plan(stage.spec(), await stage.provider.observe(stage.spec(), reading), reading)
    await stage.provider.apply(stage.spec(), change, replace(stage.world.writing(), rehearsal=True))
    assert stage.addresses() == ["terraform_data.a"]


async def test_an_override_is_laid_over_the_configuration(stage: Stage, tmp_path: Path) -> None:
    stage.write(SIMPLE)
    override = {"resource": {"terraform_data": {"a": {"input": 9}}}}
    (tmp_path / "world.json").write_text(
        json.dumps({"output": {"twice": {"value": "overlaid"}}, "provider": {"aws": {}}})
    )
    stage.world.tools = FoundTools(PATH, {"terraform_override": str(tmp_path / "world.json")})
    there = await stage.apply(stage.spec(override=override))
    assert there.outputs["size"].value == 9
    assert there.outputs["twice"].value == "overlaid"


async def test_the_lock_file_stays_the_same_between_runs_and_a_users_own_one_wins(stage: Stage) -> None:
    stage.write(SIMPLE)
    await stage.apply()
    own = "# This is the user's.\n"
    stage.write(own, "cloud/.terraform.lock.hcl")
    await stage.observe()
    assert (stage.world.work / "tree/cloud/.terraform.lock.hcl").read_text() == own


async def test_a_plugin_cache_is_filled_by_one_init_at_a_time(stage: Stage, tmp_path: Path) -> None:
    stage.write(SIMPLE)
    config = tmp_path / "rc"
    config.write_text(f'plugin_cache_dir = "{tmp_path}"\n')
    stage.world.tools = FoundTools(PATH, {"terraform_config": str(config)})
    stage.world.clock = SteppingClock()
    async with held(config, stage.world.clock, exclusive=True, what="the cache"):
        with pytest.raises(StageError, match="the plugin cache is in use") as caught:
            await stage.plan()
    assert caught.value.retry is Retry.LATER
    await stage.plan()


async def test_a_provider_that_cannot_be_had_is_told_with_what_to_do(either: Stage, tmp_path: Path) -> None:
    either.write('resource "nowhere_thing" "a" {}\n')
    config = tmp_path / "rc"
    (tmp_path / "mirror").mkdir()
    config.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{tmp_path}/mirror"\n  }}\n}}\n')
    either.world.tools = FoundTools(PATH, {"terraform_config": str(config)})
    with pytest.raises(ToolFailedError) as caught:
        await either.plan()
    assert "hashicorp/nowhere" in caught.value.detail
    assert "terraform_config" in caught.value.hint
    with pytest.raises(ToolFailedError):
        await either.plan()
    assert either.ran() == ["version", "init", "init"], "an init that failed is not taken as done"


async def test_another_protocol_is_refused_and_a_crash_shows_its_last_words(stage: Stage, tmp_path: Path) -> None:
    stage.write(SIMPLE)
    tool = tmp_path / "bin" / "tofu"
    tool.parent.mkdir()
    version = """if [ "$1" = version ]; then echo '{"terraform_version": "1.12.6"}'; exit; fi\n"""

    def answer(script: str) -> None:
        tool.write_text(f"#!/bin/sh\n{version}{script}\n")
        tool.chmod(0o755)
        stage.world.tools = FoundTools(str(tool.parent))

    answer("""echo '{"@message": "Tofu 9", "type": "version", "ui": "2.0"}'""")
    with pytest.raises(ToolFailedError, match=r"speaks version 2\.0"):
        await stage.plan()
    answer("echo 'panic: at the disco' >&2; exit 11")
    with pytest.raises(ToolFailedError, match=r"exit 11") as caught:
        await stage.plan()
    assert caught.value.detail == "panic: at the disco"


async def test_a_missing_or_empty_source_folder_is_told(stage: Stage) -> None:
    with pytest.raises(SpecError, match="cloud does not exist"):
        await stage.plan()
    (stage.world.folder / "cloud").mkdir()
    with pytest.raises(SpecError, match="has no configuration"):
        await stage.plan()


async def test_a_missing_tool_and_a_wrong_version_say_how_to_get_it(stage: Stage) -> None:
    stage.write(SIMPLE)
    with pytest.raises(ToolMissingError, match=r"does not meet '>= 99'"):
        await stage.plan(stage.spec(version=">= 99"))
    stage.world.tools = FoundTools("/nowhere")
    with pytest.raises(ToolMissingError) as caught:
        await stage.plan(stage.spec(tool="auto"))
    assert caught.value.summary == "tofu or terraform not found on this machine"
    assert "opentofu.org" in caught.value.hint


async def test_preflight_tells_everything_that_would_stop_it_at_once(stage: Stage) -> None:
    ctx = stage.world.reading()
    found = await stage.provider.preflight({"source": "cloud", "version": ">= 99", "variables": {"a": "${{ x }}"}}, ctx)
    assert [item.code for item in found] == ["tool-missing", "source"]
    stage.write(SIMPLE)
    stage.write("{}", "cloud/terraform.tfstate")
    found = await stage.provider.preflight({"source": "cloud"}, ctx)
    assert [(item.code, item.severity) for item in found] == [("foreign-state", "warning")]
    found = await stage.provider.preflight({"source": "cloud", "variables": {"sise": "${{ inputs.size }}"}}, ctx)
    assert [(item.summary, item.hint) for item in found] == [
        ("cloud declares no variable 'sise'", "did you mean 'size'?")
    ]
    assert await stage.provider.preflight({"source": "${{ inputs.where }}"}, ctx) == ()


async def test_files_that_are_removed_from_the_source_are_removed_from_the_work_tree(stage: Stage) -> None:
    stage.write(SIMPLE)
    extra = stage.write('resource "terraform_data" "b" {}\n', "cloud/extra.tf")
    await stage.apply()
    extra.unlink()
    change = await stage.plan()
    assert [(item.address, item.action) for item in change.resources] == [("terraform_data.b", Action.DESTROY)]
    assert change.action is Action.UPDATE
    await stage.apply(change=change)
    assert stage.addresses() == ["terraform_data.a"]


async def test_a_configuration_that_manages_nothing_settles(either: Stage) -> None:
    either.write("locals {\n  a = 1\n}\n")
    change = await either.plan()
    assert change.action is Action.CREATE
    assert (await either.apply(change=change)).exists
    assert (await either.observe()).exists
    assert (await either.plan()).action is Action.NONE
    await either.destroy()
    assert not (await either.observe()).exists


async def test_resources_are_reported_as_they_move(either: Stage) -> None:
    either.write(SIMPLE)
    await either.apply()
    assert [step[:3] for step in either.world.report.progressed] == [
        ("terraform_data.a", "create", "started"),
        ("terraform_data.a", "create", "done"),
    ]
    assert any("Apply complete! Resources: 1 added" in line for line in either.world.report.lines)
    assert not any(line.startswith("{") for line in either.world.report.lines)


async def test_several_looks_and_one_apply_share_a_work_tree(stage: Stage, tmp_path: Path) -> None:
    stage.write(
        FRAGILE % (tmp_path / "mended", f"touch {tmp_path}/started; while ! test -e {tmp_path}/go; do sleep 0.05; done")
    )
    task = asyncio.ensure_future(stage.apply())
    while not (tmp_path / "started").exists():
        await asyncio.sleep(0.02)
    seen = await asyncio.gather(stage.observe(), stage.observe())
    assert [item.exists for item in seen] == [False, False], "what was kept is nothing yet"
    (tmp_path / "go").touch()
    assert (await task).healthy
    assert list((stage.world.work / "scratch").iterdir()) == []
