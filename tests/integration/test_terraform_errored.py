"""What a tool could not push and saved beside itself: collected, taken up or offered, and never left lying about."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from skyspan.model.change import Action, Change, Observation
from skyspan.model.error import Retry, StageError
from skyspan.providers.terraform import by_hand
from skyspan.providers.terraform.endpoint.server import Endpoint
from skyspan.providers.terraform.provider import TerraformProvider
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.providers.terraform.state import ERRORED
from skyspan.testing.provider_world import FoundTools, ProviderWorld, RecordingReporter
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

PATH = f"{Path(__file__).resolve().parents[2] / '.tools' / 'bin'}:{os.environ['PATH']}"
CANARY = "canary-77d0c1"

CONFIGURATION = """
resource "terraform_data" "a" {
  input = "%(text)s"
  provisioner "local-exec" {
    command = "echo made >> %(real)s; while [ -e %(real)s.wait ]; do sleep 0.05; done"
  }
}
output "a" {
  value = terraform_data.a.output
}
"""


class Left(RecordingReporter):
    """Ends the endpoint while the resource is being made: as if the engine were gone, which the tool outlives."""

    def __init__(self, end: Callable[[], None]) -> None:
        super().__init__()
        self._end = end

    def progress(self, address: str, action: str, state: str, detail: str = "") -> None:
        super().progress(address, action, state, detail)
        if state == "started":
            self._end()


class Stage:
    def __init__(self, folder: Path, here: LocalTransport, tool: Literal["tofu", "terraform"]) -> None:
        self.world = ProviderWorld(folder, {None: here}, tools=FoundTools(PATH))
        self.provider, self.spec = TerraformProvider(), TerraformSpec(source="cloud", tool=tool)
        self.real = folder / "real"
        self.left = self.world.work / "tree" / "cloud" / "errored.tfstate"
        (self.world.folder / "cloud").mkdir()
        self.write(CANARY)

    def write(self, text: str) -> None:
        (self.world.folder / "cloud" / "main.tf").write_text(CONFIGURATION % {"text": text, "real": self.real})

    async def plan(self) -> Change:
        seen = await self.provider.observe(self.spec, self.world.reading())
        return await self.provider.plan(self.spec, seen, self.world.reading())

    async def apply(self) -> Observation:
        return await self.provider.apply(self.spec, await self.plan(), self.world.writing())

    def in_clear(self) -> list[str]:
        """Files below the work folder that hold what only the state and the configuration do, without the latter."""
        files = [path for path in self.world.work.rglob("*") if path.is_file() and path.suffix != ".tf"]
        return [path.name for path in files if CANARY.encode() in path.read_bytes()]


@pytest.fixture(params=["tofu", "terraform"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    here = LocalTransport({"PATH": PATH})
    yield Stage(tmp_path, here, request.param)
    await here.close()


@pytest.fixture
def endpoints(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Endpoint, asyncio.Server]]:
    """Every endpoint that is served from now on."""
    made: list[tuple[Endpoint, asyncio.Server]] = []
    serve = Endpoint.serve

    async def noted(self: Endpoint) -> asyncio.Server:
        server = await serve(self)
        made.append((self, server))
        return server

    monkeypatch.setattr(Endpoint, "serve", noted)
    return made


@pytest.mark.parametrize("room", [True, False], ids=["beside-itself", "nowhere-at-all"])
async def test_what_a_tool_saves_after_the_endpoint_went_away_is_collected_and_the_next_plan_uses_it(
    room: bool, stage: Stage, endpoints: list[tuple[Endpoint, asyncio.Server]]
) -> None:
    ending: list[asyncio.Task[None]] = []
    waits = Path(f"{stage.real}.wait")
    waits.touch()

    def end() -> None:
        endpoint, server = endpoints[-1]
        server.close()
        if not room:  # Then it tells the state on its standard output.
            stage.left.mkdir()
        ending.append(asyncio.ensure_future(endpoint.hang_up()))
        waits.unlink()

    stage.world.report = Left(end)
    with pytest.raises(StageError) as caught:
        await stage.apply()
    assert "connection refused" in caught.value.detail
    assert "by the next plan" in caught.value.hint or "the next plan takes it up" in caught.value.hint
    said = stage.world.report.said() + str(caught.value) + "".join(map(str, stage.world.report.raw.values()))
    assert CANARY not in said.replace("(local-exec)", ""), "the state is in no log"
    stage.world.report = RecordingReporter()
    if not room:
        stage.left.rmdir()
    assert json.loads(stage.world.kept.data["state"])["outputs"]["a"]["value"] == CANARY, "collected at once"
    assert not stage.left.exists()
    assert stage.in_clear() == []
    for _ in range(3):
        try:
            assert (await stage.apply()).outputs["a"].value == CANARY
            break
        except StageError as error:
            assert error.retry is Retry.LATER, error
    assert stage.real.read_text() == "made\n", "made once"
    assert {"lock", "journal", "state-errored"} & set(stage.world.kept.data) == set()
    assert (await stage.plan()).action is Action.NONE


async def test_one_that_is_not_newer_is_kept_aside_with_the_command_that_lets_it_stand(stage: Stage) -> None:
    await stage.apply()
    errored: dict[str, Any] = json.loads(stage.world.kept.data["state"])
    errored["outputs"]["a"]["value"] = "of the interrupted one"
    stage.write("second")
    await stage.apply()
    stands = stage.world.kept.data["state"]
    stage.left.write_text(json.dumps(errored))
    await stage.apply()
    assert not stage.left.exists()
    assert stage.world.kept.data["state"] == stands
    assert any("errored.tfstate is not newer" in line for line in stage.world.report.lines)
    [offer] = [line for line in stage.world.report.lines if "should it stand all the same" in line]
    assert offer.endswith("skyspan state rollback proof --stage stage --to errored")
    kept, clock = stage.world.writing().kept, stage.world.clock
    assert (await by_hand.read(kept, ERRORED)).outputs["a"].value == "of the interrupted one"
    again = await by_hand.rollback(kept, ERRORED, clock, 1)
    assert again.serial == json.loads(stands)["serial"] + 1
    assert "state-errored" not in stage.world.kept.data
    assert (await by_hand.read(kept)).outputs["a"].value == "of the interrupted one"
    assert (await stage.apply()).outputs["a"].value == "second"


async def test_one_of_another_lineage_stops_the_stage_until_a_person_says_which(stage: Stage) -> None:
    await stage.apply()
    other = json.loads(stage.world.kept.data["state"]) | {"lineage": "elsewhere", "serial": 7}
    stage.left.write_text(json.dumps(other))
    with pytest.raises(StageError, match="two different states") as caught:
        await stage.apply()
    command = f"skyspan state push proof --stage stage --force --yes < {stage.left}"
    assert command in caught.value.hint
    kept, clock = stage.world.writing().kept, stage.world.clock
    pushed = await by_hand.push(kept, stage.left.read_bytes(), clock, 1, force=True)
    assert (pushed.lineage, pushed.serial) == ("elsewhere", 7)
    assert (await stage.apply()).healthy
    assert not stage.left.exists()
    assert json.loads(stage.world.kept.data["state"])["lineage"] == "elsewhere"
    assert stage.in_clear() == []
