"""A configuration's own S3 backend keeps state and lock, and nothing is lost when a tool is killed or S3 goes away."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.request import Request, urlopen

import pytest

from skyspan.model.change import Observation
from skyspan.model.error import Retry, StageError, StateLockedError
from skyspan.providers.terraform.holder import processes_of
from skyspan.providers.terraform.journal import Journal
from skyspan.providers.terraform.provider import TerraformProvider
from skyspan.providers.terraform.spec import TerraformSpec
from skyspan.testing.provider_world import FoundTools, ProviderWorld, RecordingReporter
from skyspan.transports.local import LocalTransport

pytestmark = pytest.mark.integration

PATH = f"{Path(__file__).resolve().parents[2] / '.tools' / 'bin'}:{os.environ['PATH']}"
Tool = Literal["tofu", "terraform"]
N = 5

CONFIGURATION = """
terraform {
  backend "s3" {
    bucket                      = "states"
    key                         = "shop.tfstate"
    region                      = "eu-west-1"
    use_lockfile                = true
    use_path_style              = true
    access_key                  = "test"
    secret_key                  = "test"
    skip_credentials_validation = true
    skip_metadata_api_check     = true
    skip_region_validation      = true
    skip_requesting_account_id  = true
    max_retries                 = 1
    endpoints = {
      s3 = "%(s3)s"
    }
  }
}
resource "terraform_data" "thing" {
  count = 5
  input = "%(real)s/${count.index}"
  provisioner "local-exec" {
    command = "echo made >> ${self.input}; sleep 0.1; while [ -e ${self.input}.wait ]; do sleep 0.05; done"
  }
}
"""


class Bucket:
    """An S3 on loopback with one bucket; `close` makes it unreachable, `open` brings it back as it was."""

    def __init__(self) -> None:
        self._server: Any = None
        self.address = ""
        self._port = 0

    def open(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        host, self._port = self._server.get_host_and_port()
        self.address = f"http://{host}:{self._port}"

    def close(self) -> None:
        self._server.stop()

    def make(self) -> None:
        with urlopen(Request(f"{self.address}/states", method="PUT"), timeout=10):
            pass

    @property
    def objects(self) -> dict[str, bytes]:
        from moto.backends import get_backend

        return {
            name: key.value for name, key in get_backend("s3")["123456789012"]["aws"].buckets["states"].keys.items()
        }


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    from moto.backends import get_backend

    get_backend("s3").reset()
    made = Bucket()
    made.open()
    made.make()
    yield made
    made.close()


class Watching(RecordingReporter):
    """Calls `act` once the k-th resource is done."""

    def __init__(self, k: int, act: Callable[[], None]) -> None:
        super().__init__()
        self._left, self._act = k, act

    def progress(self, address: str, action: str, state: str, detail: str = "") -> None:
        super().progress(address, action, state, detail)
        self._left -= state == "done"
        if self._left == 0:
            self._act()


@dataclass
class Stage:
    world: ProviderWorld
    spec: TerraformSpec
    bucket: Bucket
    real: Path
    provider: TerraformProvider = field(default_factory=TerraformProvider)

    async def apply(self) -> Observation:
        seen = await self.provider.observe(self.spec, self.world.reading())
        change = await self.provider.plan(self.spec, seen, self.world.reading())
        return await self.provider.apply(self.spec, change, self.world.writing())

    def lose_the_backend(self) -> None:
        """While the last resource is under way, which then goes on."""
        self.bucket.close()
        self.waits.unlink()

    @property
    def waits(self) -> Path:
        return self.real / f"{N - 1}.wait"

    def made(self) -> dict[str, int]:
        return {path.name: path.read_text().count("made") for path in self.real.iterdir()}

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.bucket.objects["shop.tfstate"])
        return state

    def kill(self) -> None:
        for pid in processes_of(Journal.load(self.world.kept.data["journal"]).holders[-1]):
            if Path(f"/proc/{pid}/comm").read_text().strip() in ("tofu", "terraform"):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(params=["tofu", "terraform"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> AsyncIterator[Stage]:
    here = LocalTransport({"PATH": PATH, "AWS_EC2_METADATA_DISABLED": "true"})
    world = ProviderWorld(tmp_path, {None: here}, tools=FoundTools(PATH))
    real = tmp_path / "real"
    real.mkdir()
    (world.folder / "cloud").mkdir()
    (world.folder / "cloud" / "main.tf").write_text(CONFIGURATION % {"s3": bucket.address, "real": real})
    yield Stage(world, TerraformSpec(source="cloud", tool=request.param, parallelism=2), bucket, real)
    await here.close()


async def test_a_tool_killed_in_the_middle_loses_nothing_and_its_lock_is_broken(stage: Stage) -> None:
    stage.world.report = Watching(2, stage.kill)
    with pytest.raises(StageError, match="killed by signal 9"):
        await stage.apply()
    finished = dict(Journal.load(stage.world.kept.data["journal"]).made)
    assert len(finished) >= 2
    assert "shop.tfstate.tflock" in stage.bucket.objects, "the killed tool left its lock"
    assert "shop.tfstate" not in stage.bucket.objects, "and no state"
    stage.world.report = RecordingReporter()
    while True:
        try:
            await stage.apply()
            break
        except StageError as error:
            assert error.retry is Retry.LATER, error
    [broken] = [line for line in stage.world.report.lines if "broke the lock" in line]
    assert "interrupted run" in broken
    now = {f"terraform_data.thing[{item['index_key']}]": item for item in stage.state()["resources"][0]["instances"]}
    assert len(now) == N
    assert {address: now[address]["attributes"]["id"] for address in finished} == finished, "imported, not made anew"
    made = stage.made()
    assert len(made) == N
    assert {made[address[-2]] for address in finished} == {1}, "what was finished is not done twice"
    assert set(stage.bucket.objects) == {"shop.tfstate"}
    assert {"state", "lock", "journal"} & set(stage.world.kept.data) == set()
    await stage.provider.destroy(stage.spec, stage.world.writing())
    assert stage.state()["resources"] == []


async def test_when_the_backend_goes_away_the_state_that_the_tool_saved_is_given_to_it_later(stage: Stage) -> None:
    stage.waits.touch()
    stage.world.report = Watching(N - 1, stage.lose_the_backend)
    with pytest.raises(StageError) as caught:
        await stage.apply()
    assert "Failed to save state" in caught.value.detail, caught.value
    left = stage.world.work / "tree" / "cloud" / "errored.tfstate"
    assert len(json.loads(left.read_text())["resources"][0]["instances"]) == N
    stage.bucket.open()
    assert "shop.tfstate.tflock" in stage.bucket.objects, "it could not even give its lock back"
    stage.world.report = RecordingReporter()
    there = await stage.apply()
    assert there.healthy
    assert not left.exists()
    assert len(stage.state()["resources"][0]["instances"]) == N
    assert set(stage.made().values()) == {1}, "nothing is made twice"
    assert set(stage.bucket.objects) == {"shop.tfstate"}


async def test_what_can_be_saved_nowhere_is_kept_aside_and_taken_up_by_the_journal(stage: Stage) -> None:
    left = stage.world.work / "tree" / "cloud" / "errored.tfstate"
    stage.waits.touch()

    def end() -> None:
        left.mkdir()
        stage.lose_the_backend()

    stage.world.report = Watching(N - 1, end)
    with pytest.raises(StageError):
        await stage.apply()
    assert any("state pull proof --stage stage --version errored" in line for line in stage.world.report.lines)
    aside = json.loads(stage.world.kept.data["state-errored"])
    assert len(aside["resources"][0]["instances"]) == N
    left.rmdir()
    stage.bucket.open()
    stage.world.report = RecordingReporter()
    assert (await stage.apply()).healthy
    assert len(stage.state()["resources"][0]["instances"]) == N
    assert set(stage.made().values()) == {1}, "nothing is made twice"


async def test_a_lock_of_somebody_else_is_respected_and_they_are_named(stage: Stage) -> None:
    other = {"ID": "b1", "Operation": "OperationTypeApply", "Info": "", "Who": "ann@laptop", "Version": "1.12.6"}
    other |= {"Created": "2026-01-02T03:04:05.123456789Z", "Path": "states/shop.tfstate"}
    where, kind = f"{stage.bucket.address}/states/shop.tfstate.tflock", {"Content-Type": "application/json"}
    put = Request(where, json.dumps(other).encode(), kind, method="PUT")
    with urlopen(put, timeout=10):
        pass
    with pytest.raises(StateLockedError) as caught:
        await stage.apply()
    assert "locked by ann@laptop since 2026-01-02 03:04:05 UTC (apply, lock b1)" in caught.value.summary
    assert f"{stage.spec.tool} force-unlock b1" in caught.value.hint
    assert caught.value.retry is Retry.LATER
    assert "shop.tfstate.tflock" in stage.bucket.objects
    assert stage.made() == {}
