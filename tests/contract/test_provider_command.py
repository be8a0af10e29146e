"""The command provider under the provider suite, here and on a host, with real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skyspan.contracts.transport import Command, Completed, OnOutput
from skyspan.model.error import SpecError, ToolFailedError, ToolMissingError
from skyspan.model.secret import Secret
from skyspan.providers.command.provider import CommandProvider
from skyspan.providers.command.spec import CommandSpec
from skyspan.testing.conformance.provider import ProviderCase, ProviderConformance
from skyspan.testing.provider_world import ProviderWorld
from skyspan.transports.local import LocalTransport

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

SECRET = Secret('pass "word"/+=&')


@pytest.fixture
async def here() -> AsyncIterator[LocalTransport]:
    transport = LocalTransport(ENV)
    yield transport
    await transport.close()


def files_in(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def spec(**settings: Any) -> CommandSpec:
    return CommandSpec.model_validate(settings)


class TestHere(ProviderConformance):
    @pytest.fixture
    def case(self, tmp_path: Path, here: LocalTransport) -> ProviderCase:
        world = ProviderWorld(tmp_path, {None: here})
        common = {"check": "test -s thing", "destroy": "rm -f thing"}
        write = 'printf %s "$TEXT" > thing; printf "size=%s\\n" "${#TEXT}" >> "$SKYSPAN_OUTPUT"'
        return ProviderCase(
            provider=CommandProvider(),
            spec=spec(run=write, env={"TEXT": "one"}, **common),
            changed=spec(run=write, env={"TEXT": "other"}, **common),
            secret_spec=spec(
                run=write + '; printf "again=%s\\n" "$TEXT" >> "$SKYSPAN_OUTPUT"; echo "$TEXT"',
                env={"TEXT": SECRET},
                **common,
            ),
            failing_spec=spec(
                run='echo "I saw $TEXT" >&2; exit 3', env={"TEXT": SECRET}, destroy=["rm", "-f", "thing"]
            ),
            slow_spec=spec(run=["sleep", 60], destroy=["true"]),
            world=world,
            snapshot=lambda: files_in(world.folder),
        )


class TestHereWithNothingButMemory(ProviderConformance):
    """No check and no creates: the stage remembers that it ran."""

    @pytest.fixture
    def case(self, tmp_path: Path, here: LocalTransport) -> ProviderCase:
        world = ProviderWorld(tmp_path, {None: here})
        return ProviderCase(
            provider=CommandProvider(),
            spec=spec(run=["sh", "-c", "echo a > thing"], destroy=["rm", "-f", "thing"]),
            changed=spec(run=["sh", "-c", "echo b > thing"], destroy=["rm", "-f", "thing"]),
            secret_spec=spec(run=Secret("echo hidden-script-text > thing"), destroy=["rm", "-f", "thing"]),
            world=world,
            snapshot=lambda: files_in(world.folder),
        )


class Elsewhere(LocalTransport):
    """A host whose login folder is not the composition's."""

    def __init__(self, home: Path) -> None:
        super().__init__({**ENV, "TMPDIR": str(home / "tmp")})
        self._home = home
        (home / "tmp").mkdir(parents=True)

    @property
    def name(self) -> str:
        return "lab-gw"

    async def run(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        return await super().run(self._placed(command), on_output)

    async def query(self, command: Command, on_output: OnOutput | None = None) -> Completed:
        return await super().query(self._placed(command), on_output)

    def _placed(self, command: Command) -> Command:
        return replace(command, cwd=str(self._home / (command.cwd or ".")))


class TestOnAHost(ProviderConformance):
    @pytest.fixture
    async def case(self, tmp_path: Path) -> AsyncIterator[ProviderCase]:
        home = tmp_path / "home"
        host = Elsewhere(home)
        (home / "below").mkdir()
        world = ProviderWorld(tmp_path, {"lab-gw": host})
        common: dict[str, Any] = {"host": "lab-gw", "workdir": "below", "creates": "thing", "destroy": "rm -f thing"}
        write = 'cat > thing; echo "{\\"size\\": $(wc -c < thing)}" >> "$SKYSPAN_OUTPUT"'
        yield ProviderCase(
            provider=CommandProvider(),
            spec=spec(run=write, stdin="one", **common),
            changed=spec(run=write, stdin="other", **common),
            secret_spec=spec(run=write, stdin=SECRET, **common),
            world=world,
            snapshot=lambda: files_in(home / "below"),
        )
        await host.close()

    async def test_no_temporary_folder_stays_on_the_host(self, case: ProviderCase, tmp_path: Path) -> None:
        await case.settle()
        await case.destroy()
        assert list((tmp_path / "home" / "tmp").iterdir()) == []


async def applied(here: LocalTransport, folder: Path, **settings: Any) -> ProviderWorld:
    world, provider, wanted = ProviderWorld(folder, {None: here}), CommandProvider(), spec(**settings)
    change = await provider.plan(wanted, await provider.observe(wanted, world.reading()), world.reading())
    await provider.apply(wanted, change, world.writing())
    return world


async def test_no_process_list_shows_a_script_that_holds_a_secret(tmp_path: Path, here: LocalTransport) -> None:
    script = Secret("# planted-word\ncat > said; tr '\\0' ' ' < /proc/$$/cmdline > shown; env > environment")
    world = await applied(here, tmp_path, run=script, stdin="its own input")
    assert (world.folder / "said").read_text() == "its own input"
    assert "planted-word" not in (world.folder / "shown").read_text()
    assert "planted-word" not in (world.folder / "environment").read_text()


async def test_a_script_that_holds_a_secret_stops_at_the_first_error_too(tmp_path: Path, here: LocalTransport) -> None:
    for script in ("false\ntouch made", "echo $UNSET_NAME\ntouch made"):
        with pytest.raises(ToolFailedError, match=r"sh -euc \*\*\*"):
            await applied(here, tmp_path, run=Secret(script))
    assert not (tmp_path / "composition" / "made").exists()


async def test_the_output_file_is_private_and_does_not_stay(tmp_path: Path, here: LocalTransport) -> None:
    script = 'stat -c mode=%a "$SKYSPAN_OUTPUT" >> "$SKYSPAN_OUTPUT"'
    world = await applied(here, tmp_path, run=script)
    seen = await CommandProvider().observe(spec(run=script), world.reading())
    assert seen.outputs["mode"].value == "600"
    assert list(world.work.iterdir()) == []


async def test_a_missing_program_and_a_missing_folder_are_told_apart(tmp_path: Path, here: LocalTransport) -> None:
    with pytest.raises(ToolMissingError, match="no-such-tool"):
        await applied(here, tmp_path, run=["no-such-tool"])
    with pytest.raises(SpecError, match="no-such-folder"):
        await applied(here, tmp_path, run=["true"], workdir="no-such-folder")


async def test_a_command_that_a_signal_ended_is_told_so(tmp_path: Path, here: LocalTransport) -> None:
    with pytest.raises(ToolFailedError, match="was ended by SIGKILL"):
        await applied(here, tmp_path, run="echo last words; kill -9 $$")
