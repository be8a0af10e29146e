"""The tool is killed after k of n resources, for every k: nothing is lost, nothing that was finished is done twice."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from skyspan.model.change import Action, Change, Observation
from skyspan.model.error import Retry, StageError
from skyspan.providers.terraform.holder import processes_of
from skyspan.providers.terraform.journal import Journal
from skyspan.providers.terraform.provider import TerraformProvider
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.testing.provider_world import FoundTools, ProviderWorld, RecordingReporter
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

PATH = f"{Path(__file__).resolve().parents[2] / '.tools' / 'bin'}:{os.environ['PATH']}"

N = 6

THINGS = """
resource "terraform_data" "thing" {
  count = 6
  input = { at = "%(at)s/thing-${count.index}" }
  provisioner "local-exec" {
    command = "echo made >> ${self.input.at}; sleep 0.15"
  }
  provisioner "local-exec" {
    when    = destroy
    command = "rm ${self.input.at}"
  }
}
"""


class Killing(RecordingReporter):
    """Calls `kill` when the k-th resource is done; for 0, when the first one is begun."""

    def __init__(self, k: int, kill: Callable[[], None]) -> None:
        super().__init__()
        self._left, self._kill = k, kill

    def progress(self, address: str, action: str, state: str, detail: str = "") -> None:
        super().progress(address, action, state, detail)
        self._left -= state == "done"
        if self._left <= 0:
            self._kill()


@pytest.fixture
async def here() -> AsyncIterator[LocalTransport]:
    transport = LocalTransport({"PATH": PATH})
    yield transport
    await transport.close()


def kill_tool(world: ProviderWorld) -> None:
    """SIGKILL the tool itself, not what it started."""
    for pid in processes_of(Journal.load(world.kept.data["journal"]).holders[-1]):
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        if name in ("tofu", "terraform"):
            os.kill(pid, signal.SIGKILL)


async def applied(world: ProviderWorld, spec: TerraformSpec) -> tuple[Change, Observation]:
    """Plan and apply as the engine does, trying again while an earlier command still works."""
    provider = TerraformProvider()
    while True:
        try:
            seen = await provider.observe(spec, world.reading())
            change = await provider.plan(spec, seen, world.reading())
            return change, await provider.apply(spec, change, world.writing())
        except StageError as error:
            if error.retry is not Retry.LATER:
                raise


def ids(world: ProviderWorld) -> dict[str, str]:
    state: dict[str, Any] = json.loads(world.kept.data["state"])
    return {
        f"{item['type']}.{item['name']}[{each['index_key']}]": each["attributes"]["id"]
        for item in state["resources"]
        for each in item["instances"]
    }


@pytest.mark.parametrize("tool", ["tofu", "terraform"])
@pytest.mark.parametrize("k", range(N + 1))
async def test_after_a_kill_everything_that_was_finished_is_taken_up_and_the_rest_is_made(
    k: int, tool: Literal["tofu", "terraform"], tmp_path: Path, here: LocalTransport
) -> None:
    world = ProviderWorld(tmp_path, {None: here}, tools=FoundTools(PATH))
    world.report = Killing(k, lambda: kill_tool(world))
    (world.folder / "cloud").mkdir()
    real = tmp_path / "real"
    real.mkdir()
    (world.folder / "cloud" / "main.tf").write_text(THINGS % {"at": real})
    spec, provider = TerraformSpec(source="cloud", tool=tool, parallelism=2), TerraformProvider()

    change = await provider.plan(spec, Observation.absent(), world.reading())
    if k < N:
        with pytest.raises(StageError, match="killed by signal 9"):
            await provider.apply(spec, change, world.writing())
    else:  # Whether the last kill comes before or after the state is pushed is a matter of chance.
        try:
            await provider.apply(spec, change, world.writing())
        except StageError as error:
            assert "killed by signal 9" in error.summary
    left = Journal.load(world.kept.data.get("journal"))
    finished = dict(left.made)
    assert len(finished) >= k or k == N
    world.report = RecordingReporter()

    _, there = await applied(world, spec)
    assert there.healthy
    now = ids(world)
    assert len(now) == N
    assert {address: now[address] for address in finished} == finished, "imported, not made anew"
    made = {f"terraform_data.thing[{path.name[-1]}]": path.read_text().count("made") for path in real.iterdir()}
    assert len(made) == N
    assert {made[address] for address in finished} <= {1}, "what was finished is not done twice"
    assert {"journal", "lock"} & set(world.kept.data) == set()
    settled = await provider.observe(spec, world.reading())
    assert (settled.exists, settled.drifted, settled.healthy) == (True, False, True)
    await provider.destroy(spec, world.writing())
    assert list(real.iterdir()) == []
    assert world.kept.data == {}


async def test_destroying_after_a_kill_removes_what_never_reached_the_state(
    tmp_path: Path, here: LocalTransport
) -> None:
    world = ProviderWorld(tmp_path, {None: here}, tools=FoundTools(PATH))
    world.report = Killing(3, lambda: kill_tool(world))
    (world.folder / "cloud").mkdir()
    real = tmp_path / "real"
    real.mkdir()
    (world.folder / "cloud" / "main.tf").write_text((THINGS % {"at": real}).replace("sleep 0.15", "true"))
    spec, provider = TerraformSpec(source="cloud", tool="tofu", parallelism=1), TerraformProvider()
    change = await provider.plan(spec, Observation.absent(), world.reading())
    assert change.action is Action.CREATE
    with pytest.raises(StageError, match="killed by signal 9"):
        await provider.apply(spec, change, world.writing())
    finished = Journal.load(world.kept.data["journal"]).made
    assert len(finished) >= 3
    assert "state" not in world.kept.data
    world.report = RecordingReporter()
    await provider.destroy(spec, world.writing())
    left = {path.name for path in real.iterdir()}
    assert not {f"thing-{address[-2]}" for address in finished} & left
    assert world.kept.data == {}
