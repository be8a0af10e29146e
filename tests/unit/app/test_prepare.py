"""Compositions made ready for a run: inputs, secrets, and what was last used."""

from __future__ import annotations

from pathlib import Path

import pytest

from skyspan.app.prepare import Given, Prepared, prepare, read_secrets, recall
from skyspan.app.session import Session
from skyspan.app.settings import read_settings
from skyspan.contracts.store import DeploymentRecord
from skyspan.contracts.upkeep import Upkeep
from skyspan.model.address import DeploymentAddress
from skyspan.model.error import CompositionError, UsageError
from skyspan.model.secret import Secret
from skyspan.providers.registry import Registry
from skyspan.secrets.sealing import EnvelopeSealer
from skyspan.testing.fake_clock import FakeClock
from skyspan.testing.memory_store import MemoryStore

TEXT = """
skyspan: 1
name: app
inputs: {word: {type: string, default: one}, pin: {type: secret, default: "1234567"}}
stages:
  a: {uses: command, with: {run: 'true', env: {A: "${{ secrets.first }}", B: "${{ secrets.second }}"}}}
  b: {uses: command, with: {run: 'true', env: {A: "${{ secrets.first }}"}}}
"""


@pytest.fixture
def session(tmp_path: Path) -> Session:
    settings = read_settings(str(tmp_path / "home"), environ={"SKYSPAN_INPUT_WORD": "from-environment"})
    return Session(settings, MemoryStore(), EnvelopeSealer(tmp_path / "home"), FakeClock(), no_upkeep)


def no_upkeep() -> Upkeep:
    raise AssertionError("preparing takes no care of the store")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "skyspan.yaml"
    path.write_text(TEXT)
    return path


async def prepared(session: Session, file: Path, **inputs: str) -> Prepared:
    return await prepare(session, Given(file, inputs), Registry())


async def test_inputs_come_from_the_line_before_the_environment(session: Session, file: Path) -> None:
    assert (await prepared(session, file)).inputs["word"] == "from-environment"
    assert (await prepared(session, file, word="given")).inputs["word"] == "given"
    assert (await prepared(session, file)).inputs["pin"] == Secret("1234567")


async def test_the_digest_of_the_inputs_leaves_secrets_out(session: Session, file: Path) -> None:
    first = (await prepared(session, file)).inputs_digest
    assert (await prepared(session, file, pin="7654321")).inputs_digest == first
    assert (await prepared(session, file, word="other")).inputs_digest != first


async def test_inputs_come_from_a_file_too_which_must_be_a_mapping(
    session: Session, file: Path, tmp_path: Path
) -> None:
    given = tmp_path / "inputs.yaml"
    given.write_text("word: from-file\n")
    assert (await prepare(session, Given(file, {}, str(given)), Registry())).inputs["word"] == "from-file"
    for content, kind in (("- a\n", UsageError), ("a: [\n", CompositionError)):
        given.write_text(content)
        with pytest.raises(kind):
            await prepare(session, Given(file, {}, str(given)), Registry())
    with pytest.raises(UsageError, match="no inputs file"):
        await prepare(session, Given(file, {}, str(tmp_path / "none")), Registry())


async def test_every_secret_that_is_not_set_is_named_once_with_its_place(session: Session, file: Path) -> None:
    with pytest.raises(CompositionError) as caught:
        await read_secrets(session, await prepared(session, file))
    assert [item.summary for item in caught.value.diagnostics] == [
        "secret first is not set in workspace default",
        "secret second is not set in workspace default",
    ]
    assert {item.where.line for item in caught.value.diagnostics} == {6}
    for name in ("first", "second"):
        await session.store.put_secret("default", name, Secret(f"value of {name}"))
    assert await read_secrets(session, await prepared(session, file)) == {
        "first": Secret("value of first"),
        "second": Secret("value of second"),
    }


async def test_what_was_last_used_comes_back_with_its_inputs(session: Session, file: Path) -> None:
    before = await prepared(session, file)
    address = DeploymentAddress("default", "app")
    record = DeploymentRecord(address, folder=str(before.folder), composition=before.raw, inputs=before.inputs)
    again = recall(record, Registry())
    assert again.inputs == before.inputs
    assert list(again.checked.order) == list(before.checked.order)
    with pytest.raises(UsageError, match="never brought up"):
        recall(DeploymentRecord(address), Registry())
