"""A workspace's templates: kept, taken by compositions, recorded with deployments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from skyspan.app import connections
from skyspan.app.connections import Written
from skyspan.app.documents import Document
from skyspan.app.library import Library, providers_of
from skyspan.app.load import load, load_checked
from skyspan.app.prepare import Given, Prepared, prepare, read_secrets, recall, secrets_read
from skyspan.app.session import Session
from skyspan.app.settings import read_settings
from skyspan.contracts.store import DeploymentRecord
from skyspan.contracts.upkeep import Upkeep
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import CompositionError, NotFoundError, UsageError
from skyspan.model.lifecycle import DeploymentStatus
from skyspan.model.secret import Secret
from skyspan.planning.resolve import Situation, resolve_settings
from skyspan.providers.registry import Registry
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.testing.fake_clock import FakeClock
from skyspan.testing.memory_store import MemoryStore

ADDRESS = DeploymentAddress("default", "app")

TEMPLATE = """\
uses: command
description: how we say it
with:
  run: echo
  env: {WORD: "${{ inputs.word }}", TOKEN: "${{ secrets.token }}", FIRST: "${{ stages.first.outputs.id }}"}
"""

TEXT = """\
skyspan: 1
name: app
inputs: {word: {type: string, default: one}}
stages:
  first: {uses: command, with: {run: 'true'}}
  say: {uses: connection, with: {template: say, env: {MORE: mine}}}
"""


@pytest.fixture
def session(tmp_path: Path) -> Session:
    settings = read_settings(str(tmp_path / "home"), environ={})
    return Session(settings, MemoryStore(), EnvelopeSealer(tmp_path / "home"), FakeClock(), no_upkeep)


def no_upkeep() -> Upkeep:
    raise AssertionError("templates take no care of the store")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "skyspan.yaml"
    path.write_text(TEXT)
    return path


async def add(session: Session, text: str = TEMPLATE, name: str = "say", *, again: bool = False) -> Document:
    return await connections.add(session, name, Written(text, "say.yaml"), Registry().spec_of, replace=again)


async def prepared(session: Session, file: Path) -> Prepared:
    return await prepare(session, Given(file), Registry())


async def brought_up(session: Session, made: Prepared, status: DeploymentStatus = DeploymentStatus.DEPLOYED) -> None:
    await session.store.save_deployment(
        DeploymentRecord(ADDRESS, status, folder=str(made.folder), composition=made.raw, inputs=made.inputs)
    )


async def test_a_template_is_kept_shown_replaced_and_removed(session: Session) -> None:
    assert (await add(session))["replaced"] is False
    with pytest.raises(UsageError, match="already") as caught:
        await add(session)
    assert "--replace" in caught.value.hint
    other = TEMPLATE.replace("how we say it", "better")
    assert (await add(session, other, again=True))["replaced"] is True
    listed = (await connections.listing(session))["connections"]
    assert [(item["name"], item["uses"], item["description"]) for item in listed] == [("say", "command", "better")]
    shown = await connections.show(session, "say")
    assert shown.text == other
    assert shown.document["with"]["run"] == "echo"
    assert (await connections.remove(session, "say"))["used_by"] == []
    for gone in (connections.show, connections.remove):
        with pytest.raises(NotFoundError, match="no connection 'say'"):
            await gone(session, "say")


async def test_what_is_no_template_is_not_kept(session: Session) -> None:
    for name, text, kind in (
        ("Bad Name", TEMPLATE, UsageError),
        ("say", TEMPLATE + "# " + "x" * connections.MAX_CHARACTERS, UsageError),
        ("say", "uses: comand", CompositionError),
        ("say", "with: [", CompositionError),
        ("say", "uses: command\nwith: {env: {PASSWORD: canary}}", CompositionError),
    ):
        with pytest.raises(kind):
            await add(session, text, name)
    assert await session.store.connections("default") == []


async def test_a_stage_gets_what_the_template_says_and_adds_its_own(session: Session, file: Path) -> None:
    await add(session)
    made = await prepared(session, file)
    assert made.checked.composition.stages["say"].uses == "command"
    assert made.checked.needs["say"] == {"first"}
    assert secrets_read(made.raw).keys() == {"token"}
    situation = Situation(
        made.checked.composition,
        made.inputs,
        outputs={"first": {}},
        secrets={"token": Secret("s3cret")},
        absent={},
        pending=frozenset({"first"}),
    )
    unknown = resolve_settings("say", situation)
    assert "stages.first.outputs.id" in str(unknown), "expressions of the template mean this composition"


async def test_a_secret_that_the_template_reads_is_asked_for_at_its_place(session: Session, file: Path) -> None:
    await add(session)
    with pytest.raises(CompositionError) as caught:
        await read_secrets(session, await prepared(session, file))
    [missing] = caught.value.diagnostics
    assert str(missing.where) == "connection template say:5:44"
    file.write_text(TEXT.replace("{MORE: mine}", "{TOKEN: mine}"))
    assert await read_secrets(session, await prepared(session, file)) == {}, "it is overridden, so nobody reads it"


async def test_a_mistake_in_a_template_names_it_and_the_line_that_takes_it(session: Session, file: Path) -> None:
    await add(session, TEMPLATE.replace("inputs.word", "inputs.wrod"))
    with pytest.raises(CompositionError) as caught:
        await prepared(session, file)
    [mistake] = caught.value.diagnostics
    assert mistake.summary == "there is no input 'wrod'"
    assert str(mistake.where) == "connection template say:5:20"
    assert mistake.excerpt == TEMPLATE.replace("inputs.word", "inputs.wrod").splitlines()[4]
    assert mistake.detail == f"stage say starts from it: {file}:6:44"


async def test_what_the_stage_itself_gets_wrong_stays_in_the_file(session: Session, file: Path) -> None:
    await add(session)
    file.write_text(TEXT.replace("{MORE: mine}", "{MORE: [mine]}, rnu: x"))
    with pytest.raises(CompositionError) as caught:
        await prepared(session, file)
    assert {(item.code, item.where.file, item.where.line) for item in caught.value.diagnostics} == {
        ("unknown-key", str(file), 6),
        ("wrong-type", str(file), 6),
    }


async def test_an_entry_of_the_composition_shadows_the_template_of_that_name(session: Session, file: Path) -> None:
    await add(session)
    file.write_text(TEXT + "connections: {say: {uses: command, with: {run: mine}}}\n")
    made = await prepared(session, file)
    assert made.checked.needs["say"] == frozenset()
    assert made.raw["connections"] == {"say": {"uses": "command", "with": {"run": "mine"}}}
    await brought_up(session, made)
    assert (await connections.remove(session, "say"))["used_by"] == []


async def test_other_entries_of_the_composition_stay_beside_the_template(session: Session, file: Path) -> None:
    await add(session)
    file.write_text(TEXT + "  hi: {uses: command, with: {connection: hi}}\nconnections: {hi: {run: hi}}\n")
    assert set((await prepared(session, file)).raw["connections"]) == {"hi", "say"}


async def test_what_is_recorded_needs_the_template_never_again(session: Session, file: Path) -> None:
    await add(session)
    made = await prepared(session, file)
    await brought_up(session, made)
    assert (await connections.show(session, "say")).document["used_by"] == ["app"]
    assert (await connections.remove(session, "say"))["used_by"] == ["app"]
    record = await session.store.deployment(ADDRESS)
    assert record is not None
    again = recall(record, Registry())
    assert again.checked.composition == made.checked.composition
    assert again.checked.needs == made.checked.needs
    assert secrets_read(again.raw).keys() == {"token"}
    with pytest.raises(CompositionError, match="no connection 'say'"):
        await prepared(session, file)


async def test_nothing_is_said_to_use_a_template_that_nothing_was_made_with(session: Session, file: Path) -> None:
    await add(session)
    made = await prepared(session, file)
    for status in (DeploymentStatus.PENDING, DeploymentStatus.DESTROYED):
        await brought_up(session, made, status)
        assert (await connections.show(session, "say")).document["used_by"] == []
        assert await connections.changed(session, replace(made, raw={"connections": {}}), ADDRESS) == ()


async def test_a_template_that_changed_since_is_named_and_makes_a_saved_plan_stale(
    session: Session, file: Path
) -> None:
    await add(session)
    before = await prepared(session, file)
    await brought_up(session, before)
    assert await connections.changed(session, await prepared(session, file), ADDRESS) == ()
    await add(session, TEMPLATE.replace("how we say it", "only other words"), again=True)
    assert await connections.changed(session, await prepared(session, file), ADDRESS) == ()
    await add(session, TEMPLATE.replace("run: echo", "run: printf"), again=True)
    after = await prepared(session, file)
    assert await connections.changed(session, after, ADDRESS) == ("say",)
    assert after.digest != before.digest


async def test_without_a_template_the_digest_is_that_of_the_file_and_nobody_is_asked(
    session: Session, file: Path
) -> None:
    await add(session)
    file.write_text(TEXT.replace("uses: connection, with: {template: say,", "uses: command, with: {run: 'true',"))
    await session.store.close()
    assert (await prepared(session, file)).digest == load(file).digest


def test_a_template_is_looked_up_by_name_only_when_one_is_named(file: Path) -> None:
    asked: list[frozenset[str]] = []

    def look(names: frozenset[str]) -> Library:
        asked.append(names)
        return Library(names, {"say": TEMPLATE})

    loaded, checked = load_checked(file, Registry().spec_of, look)
    assert asked == [{"say"}]
    assert checked.composition.stages["say"].uses == "command"
    assert providers_of(load(file).composition, Library(texts={"say": "uses: ansible"})) == {"ansible", "command"}
    file.write_text(TEXT.replace("uses: connection, with: {template: say,", "uses: command, with: {run: 'true',"))
    load_checked(file, Registry().spec_of, look)
    assert len(asked) == 1
    assert loaded.raw["connections"]["say"]["origin"] == "workspace"


def test_mistakes_of_the_file_and_of_the_template_are_told_together(file: Path) -> None:
    file.write_text(TEXT + "colour: red\n")
    library = Library(frozenset({"say"}), {"say": TEMPLATE.replace("inputs.word", "inputs.wrod")})
    with pytest.raises(CompositionError) as caught:
        load_checked(file, Registry().spec_of, lambda _: library)
    assert {item.code for item in caught.value.diagnostics} == {"unknown-key", "unknown-input"}
