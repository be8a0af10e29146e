"""The command stage: its settings, its commands as values, its outputs, and its life without processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from skyspan.contracts.transport import Command, Completed, Effect
from skyspan.model.change import Action
from skyspan.model.error import NotReadyError, OutputError, ToolFailedError
from skyspan.model.secret import Secret
from skyspan.providers.command import commands
from skyspan.providers.command.parse import LIMIT, parse_outputs
from skyspan.providers.command.provider import CommandProvider
from skyspan.providers.command.spec import CommandSpec
from skyspan.testing.provider_world import ProviderWorld, ScriptedTransport

FOLDER = Path("/composition")


def spec(**settings: Any) -> CommandSpec:
    return CommandSpec.model_validate({"run": ["true"]} | settings)


def values(text: str | bytes) -> dict[str, Any]:
    data = text.encode() if isinstance(text, str) else text
    return {name: output.value for name, output in parse_outputs(data).items()}


class TestSpec:
    def test_numbers_and_truth_values_are_arguments_too(self) -> None:
        assert spec(run=["sleep", 1, True, 0.5]).run == ("sleep", "1", "true", "0.5")
        assert spec(env={"N": 3}).env == {"N": "3"}

    def test_a_secret_among_the_arguments_is_refused_with_a_way_out(self) -> None:
        with pytest.raises(ValidationError, match="pass it by `env` or `stdin`"):
            spec(run=["tool", Secret("x")])

    @pytest.mark.parametrize("run", ["", "  ", []])
    def test_an_empty_command_is_refused(self, run: Any) -> None:
        with pytest.raises(ValidationError, match="is no command"):
            spec(run=run)

    @pytest.mark.parametrize("name", ["A B", "1A", "A=B", "", "SKYSPAN_OUTPUT"])
    def test_an_impossible_variable_is_refused(self, name: str) -> None:
        with pytest.raises(ValidationError, match="environment variable"):
            spec(env={name: "x"})


class TestCommands:
    def test_a_list_is_started_as_it_is(self) -> None:
        command = commands.command_for(("tool", "a b"), spec(workdir="sub", env={"A": "1"}), FOLDER, stdin="text")
        assert command == Command(("tool", "a b"), env={"A": "1"}, stdin=b"text", cwd="/composition/sub")

    def test_a_text_is_run_by_a_shell_that_stops_at_the_first_error(self) -> None:
        assert commands.command_for("a; b", spec(), FOLDER).argv == ("sh", "-euc", "a; b")

    def test_a_script_that_holds_a_secret_travels_in_the_environment(self) -> None:
        secret = Secret("curl -H 'token: abc'")
        command = commands.command_for(secret, spec(), FOLDER)
        assert secret in command.env.values()
        assert all(isinstance(part, str) and "abc" not in part for part in command.argv)
        assert commands.shown(secret) == "sh -euc ***"

    def test_on_a_host_the_folder_is_below_the_login_folder(self) -> None:
        assert commands.folder_of(spec(host="gw"), FOLDER) is None
        assert commands.folder_of(spec(host="gw", workdir="sub"), FOLDER) == "sub"

    def test_a_long_command_is_shown_in_one_short_line(self) -> None:
        assert commands.shown("first\nsecond") == "first…"
        assert len(commands.shown("x" * 500)) == 100
        assert commands.shown(("echo", "a b")) == "echo 'a b'"

    def test_outputs_are_given_to_later_commands(self) -> None:
        outputs = parse_outputs(b'{"vm-id": "i-1", "ports": [1, 2]}')
        given = commands.output_variables(outputs)
        assert given == {"SKYSPAN_OUTPUT_VM_ID": Secret("i-1"), "SKYSPAN_OUTPUT_PORTS": Secret("[1, 2]")}

    def test_an_ending_is_told_in_words(self) -> None:
        assert commands.ending(Completed(3)) == "exited with status 3"
        assert commands.ending(Completed(-9)) == "was ended by SIGKILL"
        assert commands.ending(Completed(-200)) == "was ended by signal 200"
        assert commands.ending(Completed(-2, timed_out=True)) == "did not end in time"


class TestOutputs:
    def test_lines_are_names_and_texts(self) -> None:
        assert values("a=1\n\nurl=http://x/?a=b\nempty=\r\na=2\n") == {"a": "2", "url": "http://x/?a=b", "empty": ""}

    def test_one_json_object_may_span_lines(self) -> None:
        assert values('{\n "a": [1, {"b": null}],\n "c": "ü"\n}') == {"a": [1, {"b": None}], "c": "ü"}

    def test_lines_and_objects_may_be_mixed(self) -> None:
        assert values('a=1\n{"b": 2, "a": 3}\nc=4') == {"a": 3, "b": 2, "c": "4"}

    def test_nothing_is_no_outputs(self) -> None:
        assert values("") == {}
        assert values("\n \n") == {}

    @pytest.mark.parametrize("text", ["a=1\nno equals", '["a"]', '{"a": NaN}', "{broken", '{"a": 1} {"b": 2}'])
    def test_what_is_neither_is_refused_by_line_without_quoting_it(self, text: str) -> None:
        with pytest.raises(OutputError, match=r"line \d of \$SKYSPAN_OUTPUT is neither") as caught:
            values(text)
        assert text not in str(caught.value)

    @pytest.mark.parametrize("text", ["a b=1", "=1", '{"a b": 1}', '{"": 1}'])
    def test_a_name_that_no_expression_can_read_is_refused(self, text: str) -> None:
        with pytest.raises(OutputError, match="whose name"):
            values(text)

    def test_what_is_no_text_or_too_long_is_refused(self) -> None:
        with pytest.raises(OutputError, match="UTF-8"):
            values(b"a=\xff")
        with pytest.raises(OutputError, match="more than 1024 KiB"):
            values(b"a=" + b"x" * LIMIT)

    def test_a_value_that_shows_a_secret_is_sensitive(self) -> None:
        outputs = parse_outputs(b'a=my-token-x\nb=other\n{"c": ["my-token"]}', [Secret("my-token")])
        assert {name: output.sensitive for name, output in outputs.items()} == {"a": True, "b": False, "c": True}


class TestLife:
    """Driven over a scripted place, so that what is run, and when, is exact."""

    @pytest.fixture
    def place(self) -> ScriptedTransport:
        return ScriptedTransport(self.answer)

    @pytest.fixture
    def world(self, tmp_path: Path, place: ScriptedTransport) -> ProviderWorld:
        self.failing: set[str] = set()
        return ProviderWorld(tmp_path, {None: place})

    def answer(self, command: Command) -> Completed:
        return Completed(4 if str(command.argv[-1]) in self.failing else 0, stderr=b"some words")

    async def up(self, world: ProviderWorld, wanted: CommandSpec) -> Action:
        provider = CommandProvider()
        change = await provider.plan(wanted, await provider.observe(wanted, world.reading()), world.reading())
        if change.action is not Action.NONE:
            await provider.apply(wanted, change, world.writing())
        return change.action

    def ran(self, place: ScriptedTransport) -> list[str]:
        found = [str(command.argv[-1]) for command in place.commands if command.effect is Effect.WRITE]
        place.commands.clear()
        return found

    async def test_a_simple_stage_costs_one_process_and_one_write(
        self, world: ProviderWorld, place: ScriptedTransport
    ) -> None:
        assert await self.up(world, spec(run=["true"])) is Action.CREATE
        assert len(place.commands) == 1
        assert world.kept.puts == 1
        assert await self.up(world, spec(run=["true"])) is Action.NONE
        assert len(place.commands) == 1
        assert world.kept.puts == 1

    async def test_new_settings_run_it_again_and_new_undoing_does_not(
        self, world: ProviderWorld, place: ScriptedTransport
    ) -> None:
        await self.up(world, spec(run="one", destroy="undo"))
        assert self.ran(place) == ["one"]
        assert await self.up(world, spec(run="one", destroy="undo better")) is Action.UPDATE
        assert self.ran(place) == []
        assert await self.up(world, spec(run="one", destroy="undo better")) is Action.NONE
        assert await self.up(world, spec(run="two", destroy="undo better")) is Action.UPDATE
        assert self.ran(place) == ["two"]

    async def test_what_is_there_already_is_left_alone(self, world: ProviderWorld, place: ScriptedTransport) -> None:
        wanted = spec(run="make", check="look", destroy="undo")
        assert await self.up(world, wanted) is Action.NONE
        await CommandProvider().destroy(wanted, world.writing())
        assert self.ran(place) == []

    async def test_a_check_that_fails_after_the_run_is_told(self, world: ProviderWorld) -> None:
        self.failing = {"look"}
        with pytest.raises(NotReadyError, match="`make` ended well, but its check exited with status 4"):
            await self.up(world, spec(run="make", check="look"))

    async def test_a_failure_tells_command_status_and_last_words(self, world: ProviderWorld) -> None:
        self.failing = {"make"}
        with pytest.raises(ToolFailedError, match="`make` exited with status 4") as caught:
            await self.up(world, spec(run="make"))
        assert caught.value.detail == "some words"

    async def test_stop_and_start_run_their_commands_once(self, world: ProviderWorld, place: ScriptedTransport) -> None:
        provider, wanted = CommandProvider(), spec(run="make", stop="halt", start="go", check="look")
        self.failing = {"look"}
        with pytest.raises(NotReadyError):
            await self.up(world, wanted)
        self.failing = set()
        await self.up(world, wanted)
        self.ran(place)
        await provider.stop(wanted, world.writing())
        await provider.stop(wanted, world.writing())
        assert self.ran(place) == ["halt"]
        seen = await provider.observe(wanted, world.reading())
        assert (seen.exists, seen.healthy, seen.reason) == (True, False, "stopped")
        await provider.start(wanted, world.writing())
        await provider.start(wanted, world.writing())
        assert self.ran(place) == ["go"]
        await provider.stop(wanted, world.writing())
        assert await self.up(world, wanted) is Action.UPDATE
        assert self.ran(place) == ["halt", "go"]
        assert await self.up(world, wanted) is Action.NONE

    async def test_without_a_stop_command_it_is_left_as_it_is(
        self, world: ProviderWorld, place: ScriptedTransport
    ) -> None:
        await self.up(world, spec(run="make"))
        await CommandProvider().stop(spec(run="make"), world.writing())
        assert (await CommandProvider().observe(spec(run="make"), world.reading())).healthy
        assert "left as it is" in world.report.said()

    async def test_without_a_start_command_it_is_run_again(
        self, world: ProviderWorld, place: ScriptedTransport
    ) -> None:
        wanted = spec(run="make", stop="halt")
        await self.up(world, wanted)
        await CommandProvider().stop(wanted, world.writing())
        await CommandProvider().start(wanted, world.writing())
        assert self.ran(place) == ["make", "halt", "make"]

    async def test_the_paths_it_creates_tell_whether_it_is_there(self, world: ProviderWorld) -> None:
        wanted = spec(run="make", creates=["a", "b"])
        (world.folder / "a").touch()
        seen = await CommandProvider().observe(wanted, world.reading())
        assert (seen.exists, seen.reason) == (False, "b does not exist")
        (world.folder / "b").touch()
        assert (await CommandProvider().observe(wanted, world.reading())).exists

    async def test_preflight_warns_of_what_is_not_here(self, world: ProviderWorld) -> None:
        async def codes(**settings: Any) -> list[str]:
            found = await CommandProvider().preflight(settings, world.reading())
            return [item.code for item in found]

        assert await codes(run=["no-such-tool"]) == ["missing-tool"]
        assert await codes(run=["./script"]) == ["missing-tool"]
        assert await codes(run=["sh"]) == []
        assert await codes(run="anything goes") == []
        assert await codes(run=["sh"], workdir="none") == ["missing-folder"]
        assert await codes(run=["no-such-tool"], host="gw") == []

    async def test_what_is_kept_is_one_small_record(self, world: ProviderWorld) -> None:
        await self.up(world, spec(run="make", env={"TOKEN": Secret("hidden-token")}))
        assert list(world.kept.data) == ["applied"]
        assert "hidden-token" not in json.dumps(world.kept.data["applied"].decode())
